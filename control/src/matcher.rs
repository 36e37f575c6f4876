// SPDX-License-Identifier: GPL-2.0
//! What the rules mean, said plainly: the first route of the file that matches.
//!
//! No request is ever routed by this. Tests compare it with the policy ([`crate::policy`]), which reaches the same
//! answers through an index.

use xlb_engine::hash::fnv1a;

use crate::compile::regexes;
use crate::config::model::{
    HashOn, Match, Method, NamedMatch, PathMatch, Service, Target, ValueMatch, VirtualHost,
};
use crate::policy::SOURCE;

/// A request as rules see it: host in lower case without port, path normalised.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub host: String,
    pub path: String,
    /// Without "?".
    pub query: String,
    /// `None`: a method that the engine does not tell apart from others.
    pub method: Option<Method>,
    /// As they came: names in any case, the same one again.
    pub fields: Vec<(String, String)>,
    /// Drawn for each `percent`, and for the cluster.
    pub drawn: u32,
}

impl Request {
    /// All values of a header field, as one.
    fn header(&self, name: &str) -> Option<String> {
        let values = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(if name == "cookie" { "; " } else { "," }))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        part(self.query.split('&'), name).map(str::to_owned)
    }

    fn cookie(&self, name: &str) -> Option<String> {
        let all = self.header("cookie").unwrap_or_default();
        let cookies = all.split(';').map(|c| c.strip_prefix(' ').unwrap_or(c));
        part(cookies, name).map(str::to_owned)
    }
}

/// Exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
pub fn virtual_host<'s>(service: &'s Service, host: &str) -> Option<&'s VirtualHost> {
    let all = || {
        service
            .virtual_hosts
            .iter()
            .flat_map(|vh| vh.domains.iter().map(move |domain| (vh, domain.as_str())))
    };
    let exact = || all().find(|(_, domain)| *domain == host && *domain != "*");
    let suffix = || {
        all()
            .filter(|(_, domain)| {
                domain.len() > 1
                    && domain
                        .strip_prefix('*')
                        .is_some_and(|s| host.len() > s.len() && host.ends_with(s))
            })
            .max_by_key(|(_, domain)| domain.len())
    };
    let prefix = || {
        all()
            .filter(|(_, domain)| {
                domain.len() > 1
                    && domain
                        .strip_suffix('*')
                        .is_some_and(|p| host.len() > p.len() && host.starts_with(p))
            })
            .max_by_key(|(_, domain)| domain.len())
    };
    let found = exact()
        .or_else(suffix)
        .or_else(prefix)
        .or_else(|| all().find(|(_, domain)| *domain == "*"));
    found.map(|(host, _)| host)
}

/// The index of the first route that matches.
pub fn route(host: &VirtualHost, request: &Request) -> Option<usize> {
    let mut routes = host.routes.iter();
    routes.position(|route| holds(&route.matches, request))
}

/// The cluster that the drawn number, of all that 32 bits have, falls to.
pub fn target<'t>(targets: &'t [Target], request: &Request) -> Option<&'t Target> {
    let total: u64 = targets.iter().map(|t| u64::from(t.weight)).sum();
    let mut left = (u64::from(request.drawn) * total) >> 32;
    targets.iter().find(|target| {
        let weight = u64::from(target.weight);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

/// The hash that the endpoint is chosen by, where the cluster chooses by one.
pub fn hashed(hash_on: &[HashOn], request: &Request) -> Option<u64> {
    let text = |on: &HashOn| match on {
        HashOn::Header(name) => request.header(name),
        HashOn::Query(name) => request.parameter(name),
        HashOn::Cookie(cookie) => {
            let made = |_| format!("{:08x}{:08x}", request.drawn, request.drawn);
            let found = request.cookie(&cookie.name);
            found.or_else(|| cookie.ttl.map(made))
        }
        HashOn::SourceIp(_) => None,
    };
    hash_on.iter().find_map(|on| match on {
        HashOn::SourceIp(_) => Some(SOURCE),
        on => text(on).map(|text| fnv1a(text.as_bytes())),
    })
}

pub fn holds(matches: &Match, request: &Request) -> bool {
    let case = |text: &str| match matches.ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let asked = case(&request.path);
    let path = match &matches.path {
        None => true,
        Some(PathMatch::Exact(path)) => asked == case(path),
        Some(PathMatch::Prefix(path)) => has_prefix(&asked, &case(path)),
        Some(PathMatch::StringPrefix(path)) => asked.starts_with(&case(path)),
        Some(PathMatch::Regex(text)) => {
            regexes::plainly(&request.path, (text, matches.ignore_case))
        }
    };
    let method = matches.method.is_empty()
        || request
            .method
            .is_some_and(|method| matches.method.contains(&method));
    let header = |rule: &NamedMatch| has_value(rule, request.header(&rule.name).as_deref());
    let parameter = |rule: &NamedMatch| has_value(rule, request.parameter(&rule.name).as_deref());
    let cookie = |rule: &NamedMatch| has_value(rule, request.cookie(&rule.name).as_deref());
    path && method
        && matches.headers.iter().all(header)
        && matches.query.iter().all(parameter)
        && matches.cookies.iter().all(cookie)
        && matches
            .percent
            .is_none_or(|share| (u64::from(request.drawn) * 1_000_000) >> 32 < share.0.into())
}

/// By whole segments: /v2 holds for /v2, /v2/ and /v2/a, not for /v2x.
fn has_prefix(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The value of the first `name=value`; a part without "=" has an empty one.
fn part<'r>(mut parts: impl Iterator<Item = &'r str>, name: &str) -> Option<&'r str> {
    parts.find_map(|part| {
        let (n, value) = part.split_once('=').unwrap_or((part, ""));
        (n == name).then_some(value)
    })
}

/// A value that is absent matches nothing but `present`, also inverted.
fn has_value(rule: &NamedMatch, found: Option<&str>) -> bool {
    let holds = match (&rule.value, found) {
        (ValueMatch::Present(wanted), found) => found.is_some() == *wanted,
        (_, None) => return false,
        (ValueMatch::Exact(value), Some(found)) => found == value,
        (ValueMatch::Prefix(value), Some(found)) => found.starts_with(value.as_str()),
        (ValueMatch::Suffix(value), Some(found)) => found.ends_with(value.as_str()),
        (ValueMatch::Contains(value), Some(found)) => found.contains(value.as_str()),
        (ValueMatch::Regex(text), Some(found)) => regexes::plainly(found, (text, false)),
        (ValueMatch::Range(from, to), Some(found)) => found
            .trim()
            .parse()
            .is_ok_and(|n: i64| (*from..*to).contains(&n)),
    };
    holds != rule.invert
}

#[test]
fn prefixes_go_by_segments() {
    for (path, holds) in [
        ("/v2", true),
        ("/v2/", true),
        ("/v2/a", true),
        ("/v2x", false),
        ("/foo/v2/example", false),
        ("/", false),
        ("/v", false),
    ] {
        assert_eq!(has_prefix(path, "/v2"), holds, "{path}");
        assert!(has_prefix(path, "/"), "{path}");
    }
}
