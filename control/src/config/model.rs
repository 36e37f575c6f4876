// SPDX-License-Identifier: GPL-2.0
//! A checked configuration.  What is serialised is again what `apply` reads.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::action::Actions;
use super::decode::{duration_text, parse_duration_ms};
use crate::intf;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub services: Vec<Service>,
    pub clusters: Vec<Cluster>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub listen: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Normalize::is_default")]
    pub normalize: Normalize,
    /// Protocols that may become tunnels, in lower case.
    #[serde(
        default = "default_upgrades",
        skip_serializing_if = "is_default_upgrades"
    )]
    pub upgrades: Vec<String>,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    pub virtual_hosts: Vec<VirtualHost>,
}

/// Which form of a path is forwarded; the normal form is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// The bytes that came, or a refusal where these could mean another path.
    #[default]
    Match,
    Forward,
}

impl Normalize {
    fn is_default(&self) -> bool {
        *self == Normalize::default()
    }
}

pub fn default_upgrades() -> Vec<String> {
    vec!["websocket".to_owned()]
}

fn is_default_upgrades(upgrades: &[String]) -> bool {
    upgrades == default_upgrades()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualHost {
    pub domains: Vec<String>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_empty")]
    pub matches: Match,
    /// Empty where the route says by itself what the client gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Target>,
    #[serde(flatten)]
    pub actions: Actions,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub name: String,
    pub weight: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Match {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub method: Vec<Method>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<NamedMatch>,
    /// Parameters as written: not percent-decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<NamedMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<NamedMatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

impl Match {
    pub fn is_empty(&self) -> bool {
        *self == Match::default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// By whole segments; without trailing slash, so "" is "/".
    Prefix(String),
    Exact(String),
    /// Raw bytes.
    StringPrefix(String),
}

/// The methods that the engine tells apart; the numbers are those of xlb_intf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get = 1,
    Head = 2,
    Post = 3,
    Put = 4,
    Delete = 5,
    Options = 7,
    Trace = 8,
    Patch = 9,
}

impl Method {
    pub const ALL: [(&'static str, Method); 8] = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("PATCH", Method::Patch),
    ];

    pub fn parse(text: &str) -> Option<Method> {
        Method::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, method)| *method)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedMatch {
    /// Of headers in lower case.
    pub name: String,
    #[serde(flatten)]
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Present(bool),
}

/// A word in a file, and the match of a text.
type OfText = (&'static str, fn(String) -> ValueMatch);

impl ValueMatch {
    /// Those that compare with a text, each with its word in a file.
    pub const OF_TEXT: [OfText; 4] = [
        ("exact", ValueMatch::Exact),
        ("prefix", ValueMatch::Prefix),
        ("suffix", ValueMatch::Suffix),
        ("contains", ValueMatch::Contains),
    ];

    /// Its number in `bpf/blob.h`, and the text.
    pub fn condition(&self) -> (u32, &str) {
        match self {
            ValueMatch::Exact(text) => (intf::XLB_CONDITION_EXACT, text),
            ValueMatch::Prefix(text) => (intf::XLB_CONDITION_PREFIX, text),
            ValueMatch::Suffix(text) => (intf::XLB_CONDITION_SUFFIX, text),
            ValueMatch::Contains(text) => (intf::XLB_CONDITION_CONTAINS, text),
            ValueMatch::Present(true) => (intf::XLB_CONDITION_PRESENT, ""),
            ValueMatch::Present(false) => (intf::XLB_CONDITION_ABSENT, ""),
        }
    }

    /// As lists show it, behind a name.
    pub fn shown(&self) -> String {
        match self {
            ValueMatch::Exact(text) => format!("={text}"),
            ValueMatch::Prefix(text) => format!("={text}*"),
            ValueMatch::Suffix(text) => format!("=*{text}"),
            ValueMatch::Contains(text) => format!("=*{text}*"),
            ValueMatch::Present(true) => " present".to_owned(),
            ValueMatch::Present(false) => " absent".to_owned(),
        }
    }

    /// What a value is that is there and does not match; for `present: true`, what one is that does not.
    pub fn refusal(&self) -> String {
        match self {
            ValueMatch::Exact(text) => format!("is not \"{text}\""),
            ValueMatch::Prefix(text) => format!("does not begin with \"{text}\""),
            ValueMatch::Suffix(text) => format!("does not end with \"{text}\""),
            ValueMatch::Contains(text) => format!("does not contain \"{text}\""),
            ValueMatch::Present(true) => "is absent".to_owned(),
            ValueMatch::Present(false) => "is present".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub lb: Lb,
    #[serde(default, skip_serializing_if = "LbOptions::is_default")]
    pub lb_options: LbOptions,
    pub endpoints: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Pool::is_default")]
    pub pool: Pool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lb {
    RoundRobin,
    Random,
    LeastRequest,
}

impl Lb {
    /// Each with its word in a file, and its number in `bpf/blob.h`.
    const ALL: [(Lb, &'static str, u32); 3] = [
        (Lb::RoundRobin, "round_robin", intf::XLB_LB_ROUND_ROBIN),
        (Lb::Random, "random", intf::XLB_LB_RANDOM),
        (
            Lb::LeastRequest,
            "least_request",
            intf::XLB_LB_LEAST_REQUEST,
        ),
    ];

    fn row(self) -> (Lb, &'static str, u32) {
        let row = Lb::ALL.into_iter().find(|(lb, ..)| *lb == self);
        row.unwrap_or(Lb::ALL[0])
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub fn number(self) -> u32 {
        self.row().2
    }

    pub fn named(word: &str) -> Option<Lb> {
        let row = Lb::ALL.into_iter().find(|(_, name, _)| *name == word);
        row.map(|(lb, ..)| lb)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LbOptions {
    /// least_request: the best of so many drawn endpoints; 0 = of all.
    pub choices: u32,
}

impl Default for LbOptions {
    fn default() -> Self {
        LbOptions { choices: 2 }
    }
}

impl LbOptions {
    fn is_default(&self) -> bool {
        *self == LbOptions::default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub weight: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

impl Endpoint {
    /// May new requests go there?
    pub fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.drain
    }
}

/// Limits per endpoint and cgroup, as config.md has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub min_idle: u32,
    /// 0 = no limit.
    pub max: u32,
    pub max_pending: u32,
    /// A request's wait for a connection; 0 = for ever.
    #[serde(with = "duration")]
    pub pending_timeout: u32,
    #[serde(with = "duration")]
    pub idle_timeout: u32,
    #[serde(with = "duration")]
    pub connect_timeout: u32,
    pub max_requests: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            min_idle: 0,
            max: 0,
            max_pending: 1024,
            pending_timeout: 5000,
            idle_timeout: 60_000,
            connect_timeout: 1000,
            max_requests: 0,
        }
    }
}

impl Pool {
    fn is_default(&self) -> bool {
        *self == Pool::default()
    }
}

/// Milliseconds, written as `60s`.
mod duration {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(ms: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::duration_text(*ms))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration_ms(&text).ok_or_else(|| D::Error::custom("not a duration"))
    }
}
