// SPDX-License-Identifier: GPL-2.0
//! What the rules mean, said plainly: the first route of the file that matches.
//!
//! `explain` tells it to people.  Tests compare it with the compiled form, which
//! reaches the same answers through an index.

use crate::config::model::{
    Match, Method, NamedMatch, PathMatch, Service, ValueMatch, VirtualHost,
};

/// A request as the engine presents it: host in lower case without port, path normalised.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub host: String,
    pub path: String,
    /// Without "?"; `None` when there is none.
    pub query: Option<String>,
    /// `None`: a method that the engine does not tell apart from others.
    pub method: Option<Method>,
    /// The path as it came.
    pub raw_path: String,
    /// Names in lower case; repeated headers are joined already.
    pub headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
pub fn virtual_host<'s>(service: &'s Service, host: &str) -> Option<(&'s VirtualHost, &'s str)> {
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
    exact()
        .or_else(suffix)
        .or_else(prefix)
        .or_else(|| all().find(|(_, domain)| *domain == "*"))
}

/// Why a route does not match, or `None` when it does; `percent` is asked for its draw.
pub fn refusal(
    matches: &Match,
    request: &Request,
    percent: &mut dyn FnMut(u32) -> bool,
) -> Option<String> {
    if let Some(path) = &matches.path {
        let (holds, what) = match path {
            PathMatch::Exact(path) => (request.path == *path, format!("is not {path}")),
            PathMatch::Prefix(path) => (
                has_prefix(&request.path, path),
                format!("is not {path} or below it"),
            ),
            PathMatch::StringPrefix(path) => (
                request.path.starts_with(path.as_str()),
                format!("does not begin with {path}"),
            ),
        };
        if !holds {
            return Some(format!("path {} {what}", request.path));
        }
    }
    if !matches.method.is_empty() && !request.method.is_some_and(|m| matches.method.contains(&m)) {
        return Some("another method".to_owned());
    }
    for header in &matches.headers {
        if let Some(why) = value_refusal("header", header, request.header(&header.name)) {
            return Some(why);
        }
    }
    for parameter in &matches.query {
        let value = request
            .query
            .as_deref()
            .and_then(|q| part(q.split('&'), &parameter.name));
        if let Some(why) = value_refusal("query parameter", parameter, value) {
            return Some(why);
        }
    }
    for cookie in &matches.cookies {
        let value = request.header("cookie").and_then(|cookies| {
            let parts = cookies.split(';').map(|p| p.strip_prefix(' ').unwrap_or(p));
            part(parts, &cookie.name)
        });
        if let Some(why) = value_refusal("cookie", cookie, value) {
            return Some(why);
        }
    }
    match matches.percent {
        Some(share) if !percent(share) => Some(format!("not in its {share} per cent")),
        _ => None,
    }
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

fn value_refusal(kind: &str, rule: &NamedMatch, found: Option<&str>) -> Option<String> {
    let (holds, what) = match (&rule.value, found) {
        (ValueMatch::Present(wanted), found) => (
            found.is_some() == *wanted,
            if *wanted { "is absent" } else { "is present" }.to_owned(),
        ),
        (_, None) => (false, "is absent".to_owned()),
        (ValueMatch::Exact(value), Some(v)) => (v == value, format!("is not \"{value}\"")),
        (ValueMatch::Prefix(value), Some(v)) => (
            v.starts_with(value.as_str()),
            format!("does not begin with \"{value}\""),
        ),
        (ValueMatch::Suffix(value), Some(v)) => (
            v.ends_with(value.as_str()),
            format!("does not end with \"{value}\""),
        ),
        (ValueMatch::Contains(value), Some(v)) => (
            v.contains(value.as_str()),
            format!("does not contain \"{value}\""),
        ),
    };
    (!holds).then(|| format!("{kind} {} {what}", rule.name))
}

/// The index of the first route that matches.
#[cfg(test)]
pub fn route(
    host: &VirtualHost,
    request: &Request,
    percent: &mut dyn FnMut(u32) -> bool,
) -> Option<usize> {
    host.routes
        .iter()
        .position(|route| refusal(&route.matches, request, percent).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
