// SPDX-License-Identifier: GPL-2.0
//! A checked configuration.  What is serialised is again what `apply` reads.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// The first that a request has says which endpoint it goes to, where the cluster balances so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash_on: Vec<HashOn>,
    #[serde(flatten)]
    pub actions: Actions,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// In lower case.
    Header(String),
    Cookie(HashCookie),
    Query(String),
    /// The client's network namespace, and the address that it has bound.
    SourceIp(bool),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashCookie {
    pub name: String,
    /// A client without the cookie gets one that lasts so long; 0: for its session.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "some_duration"
    )]
    pub ttl: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
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
    /// Of the path: letters of either case are the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
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
    pub percent: Option<Percent>,
}

/// In parts of [`intf::XLB_PERCENT_ALL`]; written as `12.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u32);

impl Percent {
    const ONE: u32 = intf::XLB_PERCENT_ALL / 100;

    /// `None`: not from 0 to 100, or in smaller parts.
    pub fn new(percent: f64) -> Option<Percent> {
        let parts = percent * f64::from(Percent::ONE);
        // A decimal fraction is none of a binary one: as near as it can be.
        let whole = parts.round();
        let is_whole = (parts - whole).abs() < 1e-6;
        let fits = (0.0..=f64::from(intf::XLB_PERCENT_ALL)).contains(&whole);
        (is_whole && fits).then_some(Percent(whole as u32))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(Percent::ONE))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % Percent::ONE {
            0 => serializer.serialize_u32(self.0 / Percent::ONE),
            _ => serializer.serialize_f64(f64::from(self.0) / f64::from(Percent::ONE)),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = Percent::new(f64::deserialize(deserializer)?);
        percent.ok_or_else(|| D::Error::custom("not a percentage"))
    }
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
    /// All of the path: an expression of RE2's syntax.
    Regex(String),
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
    /// It is there, and does not match; of `present`: the opposite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
}

impl NamedMatch {
    /// As lists show it.
    pub fn shown(&self) -> String {
        let not = if self.invert { "not " } else { "" };
        format!("{not}{}{}", self.name, self.value.shown())
    }

    /// What a value is that is there and does not match; for `present`, what one is that does not.
    pub fn refusal(&self) -> String {
        match (&self.value, self.invert) {
            (ValueMatch::Present(wanted), invert) => {
                let absent = *wanted != invert;
                if absent { "is absent" } else { "is present" }.to_owned()
            }
            (value, false) => value.refusal(),
            (value, true) => {
                value
                    .refusal()
                    .replacen("is not", "is", 1)
                    .replacen("does not ", "does ", 1)
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Present(bool),
    /// A number from the first to before the second.
    Range(i64, i64),
    /// All of the value: an expression of RE2's syntax.
    Regex(String),
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

    /// Its number in `bpf/blob.h`, and its value there.
    pub fn condition(&self) -> (u32, Cow<'_, [u8]>) {
        let (kind, text) = match self {
            ValueMatch::Exact(text) => (intf::XLB_CONDITION_EXACT, text.as_str()),
            ValueMatch::Prefix(text) => (intf::XLB_CONDITION_PREFIX, text.as_str()),
            ValueMatch::Suffix(text) => (intf::XLB_CONDITION_SUFFIX, text.as_str()),
            ValueMatch::Contains(text) => (intf::XLB_CONDITION_CONTAINS, text.as_str()),
            ValueMatch::Present(true) => (intf::XLB_CONDITION_PRESENT, ""),
            ValueMatch::Present(false) => (intf::XLB_CONDITION_ABSENT, ""),
            ValueMatch::Regex(text) => (intf::XLB_CONDITION_REGEX, text.as_str()),
            ValueMatch::Range(from, to) => {
                let range = [from.to_ne_bytes(), to.to_ne_bytes()].concat();
                return (intf::XLB_CONDITION_RANGE, range.into());
            }
        };
        (kind, text.as_bytes().into())
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
            ValueMatch::Range(from, to) => format!(" in {from}..{to}"),
            ValueMatch::Regex(text) => format!(" matches {text}"),
        }
    }

    /// Of a value that does not match.
    fn refusal(&self) -> String {
        match self {
            ValueMatch::Exact(text) => format!("is not \"{text}\""),
            ValueMatch::Prefix(text) => format!("does not begin with \"{text}\""),
            ValueMatch::Suffix(text) => format!("does not end with \"{text}\""),
            ValueMatch::Contains(text) => format!("does not contain \"{text}\""),
            ValueMatch::Range(from, to) => {
                format!("is not a number from {from} to before {to}")
            }
            ValueMatch::Regex(text) => format!("does not match {text}"),
            ValueMatch::Present(_) => String::new(),
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
    RingHash,
    Maglev,
}

impl Lb {
    /// Each with its word in a file, and its number in `bpf/blob.h`.
    const ALL: [(Lb, &'static str, u32); 5] = [
        (Lb::RoundRobin, "round_robin", intf::XLB_LB_ROUND_ROBIN),
        (Lb::Random, "random", intf::XLB_LB_RANDOM),
        (
            Lb::LeastRequest,
            "least_request",
            intf::XLB_LB_LEAST_REQUEST,
        ),
        (Lb::RingHash, "ring_hash", intf::XLB_LB_RING_HASH),
        (Lb::Maglev, "maglev", intf::XLB_LB_MAGLEV),
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
    #[serde(default = "default_choices")]
    pub choices: u32,
    /// maglev: places, a prime number; ring_hash: points, or as many as there are endpoints. `None`: Envoy's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

fn default_choices() -> u32 {
    LbOptions::default().choices
}

impl Default for LbOptions {
    fn default() -> Self {
        LbOptions {
            choices: 2,
            table_size: None,
        }
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

/// As [`duration`], of one that may be absent.
mod some_duration {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(ms: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => super::duration::serialize(ms, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
        super::duration::deserialize(d).map(Some)
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
