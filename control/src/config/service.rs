// SPDX-License-Identifier: GPL-2.0
//! Decoding of `services`.

use super::action::Actions;
use super::decode::{Field, Object};
use super::model::{
    default_upgrades, HashCookie, HashOn, Match, Method, NamedMatch, Normalize, PathMatch, Percent,
    Route, Service, Target, ValueMatch, VirtualHost,
};
use super::names;
use crate::intf;

/// With what could be read, for the other checks; `place` is its name where that could not.
pub fn service(field: Field<'_>, place: String) -> Option<Service> {
    let object = field.object(&[
        "name",
        "listen",
        "normalize",
        "upgrades",
        "protocol",
        "cgroups",
        "virtual_hosts",
        "routes",
    ])?;
    let name = object
        .need("name", "name: my-service")
        .and_then(names::service);
    let listen = object
        .need("listen", "listen: [\"10.96.0.10:80\"]")
        .map(|f| f.list(|item| item.socket_addr()));
    if let Some(field) = object.get("listen").filter(Field::is_empty_list) {
        field.wrong("an empty list: give at least one VIP:port");
    }
    if let Some(field) = object.get("protocol") {
        match field.text() {
            Some("http1") | None => {}
            Some("http2" | "auto") => field.unsupported("a protocol other than http1"),
            Some(_) => field.wrong("unknown protocol: write http1"),
        }
    }
    let normalize = match object.get("normalize") {
        None => Some(Normalize::default()),
        Some(field) => normalize(field),
    };
    let upgrades = match object.get("upgrades") {
        None => default_upgrades(),
        Some(field) => upgrades(field),
    };
    let mut cgroups = object
        .get("cgroups")
        .map(|f| f.list(names::cgroup))
        .unwrap_or_default();
    if cgroups.iter().any(|path| path == "/") {
        cgroups.clear();
    }
    let virtual_hosts = match object.one_of(&["virtual_hosts", "routes"]) {
        Some("virtual_hosts") => object.get("virtual_hosts").map(|f| f.list(virtual_host)),
        Some(_) => object.get("routes").map(|f| {
            vec![VirtualHost {
                domains: vec!["*".to_owned()],
                routes: routes(f),
            }]
        }),
        None => {
            object.wrong("no routes: add virtual_hosts or routes");
            None
        }
    };
    Some(Service {
        name: name.unwrap_or(place),
        listen: listen.unwrap_or_default(),
        normalize: normalize.unwrap_or_default(),
        upgrades,
        cgroups,
        virtual_hosts: virtual_hosts.unwrap_or_default(),
    })
}

fn normalize(field: Field<'_>) -> Option<Normalize> {
    match field.text()? {
        "match" => Some(Normalize::Match),
        "forward" => Some(Normalize::Forward),
        other => {
            field.wrong(format!("\"{other}\": write match or forward"));
            None
        }
    }
}

fn upgrades(field: Field<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in field.list(names::protocol) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > intf::XLB_MAX_UPGRADES as usize {
        field.wrong(format!(
            "{} protocols; the limit of one service is {}",
            names.len(),
            intf::XLB_MAX_UPGRADES
        ));
    }
    names
}

fn virtual_host(field: Field<'_>) -> Option<VirtualHost> {
    let object = field.object(&["domains", "routes"])?;
    let domains = object
        .need("domains", "domains: [\"*\"]")
        .map(|f| f.list(names::domain));
    if let Some(field) = object.get("domains").filter(Field::is_empty_list) {
        field.wrong("an empty list matches no request: write [\"*\"]");
    }
    let routes = object
        .need("routes", "routes: [{cluster: my-cluster}]")
        .map(routes);
    Some(VirtualHost {
        domains: domains.unwrap_or_default(),
        routes: routes.unwrap_or_default(),
    })
}

fn routes(field: Field<'_>) -> Vec<Route> {
    let routes = field.list(route);
    if routes.len() > intf::XLB_MAX_ROUTES as usize {
        field.wrong(format!(
            "{} routes; the limit in one virtual host is {}",
            routes.len(),
            intf::XLB_MAX_ROUTES
        ));
    }
    routes
}

const ROUTE_FIELDS: [&str; 11] = [
    "name",
    "match",
    "cluster",
    "clusters",
    "redirect",
    "respond",
    "rewrite",
    "request_headers",
    "response_headers",
    "mirror",
    "hash_on",
];

fn route(field: Field<'_>) -> Option<Route> {
    let object = field.object(&ROUTE_FIELDS)?;
    let name = object.get("name").and_then(names::item);
    let matches = object.get("match").map(matching);
    let matches = matches.flatten().unwrap_or_default();
    if let Some(field) = object.get("mirror") {
        field.unsupported("mirror");
    }
    let hash_on = object.get("hash_on").map_or(Vec::new(), hash_on);
    let clusters = match object.one_of(&["cluster", "clusters", "redirect", "respond"]) {
        Some("cluster") => object
            .get("cluster")
            .and_then(names::item)
            .map(|name| vec![Target { name, weight: 1 }]),
        Some("clusters") => object.get("clusters").and_then(targets),
        Some(_) => None,
        None => {
            object.wrong("no action: add cluster, clusters, redirect or respond");
            None
        }
    };
    Some(Route {
        name,
        actions: Actions::of(&object, &matches),
        matches,
        hash_on,
        clusters: clusters.unwrap_or_default(),
    })
}

const HASH_KINDS: [&str; 4] = ["header", "cookie", "query", "source_ip"];

fn hash_on(field: Field<'_>) -> Vec<HashOn> {
    let mut made = 0;
    let list = field.list(|item| {
        let object = item.object(&HASH_KINDS)?;
        let Some(kind) = object.one_of(&HASH_KINDS) else {
            object.wrong("nothing to hash: write {header: x-user}, {cookie: {name: sid}}, {query: user} or {source_ip: true}");
            return None;
        };
        let field = object.get(kind)?;
        match kind {
            "header" => names::header(field).map(HashOn::Header),
            "query" => names::parameter(field).map(HashOn::Query),
            "cookie" => {
                let cookie = hash_cookie(field)?;
                made += usize::from(cookie.ttl.is_some());
                Some(HashOn::Cookie(cookie))
            }
            _ => {
                if field.flag()? {
                    return Some(HashOn::SourceIp(true));
                }
                field.wrong("write true, or leave it out");
                None
            }
        }
    });
    let limit = intf::XLB_MAX_HASHES as usize;
    if list.len() > limit {
        field.wrong(format!(
            "{} of them; the limit in one route is {limit}",
            list.len()
        ));
    }
    if made > 1 {
        field.wrong(
            "two cookies with ttl: the first is always there, so the second is never looked at",
        );
    }
    list
}

fn hash_cookie(field: Field<'_>) -> Option<HashCookie> {
    let object = field.object(&["name", "ttl", "path"])?;
    let name = object.need("name", "name: sid").and_then(names::parameter);
    let ttl = object.get("ttl").map(|f| f.duration_ms());
    let path = object.get("path").map(names::cookie_path);
    if let (Some(field), None) = (object.get("path"), ttl) {
        field.wrong(
            "no cookie is made without ttl: add ttl: 0s for one that lasts as long as its session",
        );
    }
    Some(HashCookie {
        name: name?,
        ttl: ttl.flatten(),
        path: path.flatten(),
    })
}

fn targets(field: Field<'_>) -> Option<Vec<Target>> {
    let targets = field.list(|item| {
        let object = item.object(&["name", "weight"])?;
        let name = object
            .need("name", "name: my-cluster")
            .and_then(names::item);
        let weight = object
            .need("weight", "weight: 1")
            .and_then(|f| f.number(0, u32::MAX));
        Some(Target {
            name: name?,
            weight: weight.unwrap_or(1),
        })
    });
    if field.is_empty_list() {
        field.wrong("an empty list: name at least one cluster");
    }
    if targets.is_empty() {
        return None;
    }
    if targets.len() > intf::XLB_MAX_TARGETS as usize {
        field.wrong(format!(
            "{} clusters; the limit in one route is {}",
            targets.len(),
            intf::XLB_MAX_TARGETS
        ));
    }
    let sum: u64 = targets.iter().map(|t| u64::from(t.weight)).sum();
    if sum == 0 {
        field.wrong("all weights are 0: no request could be sent; give one of them a weight");
    }
    if sum > u64::from(u32::MAX) {
        field.wrong(format!(
            "the weights add up to {sum}: keep the sum below {}",
            u32::MAX
        ));
    }
    Some(targets)
}

/// A path's string_prefix and `percent` are conditions too.
const MAX_NAMED: usize = intf::XLB_MAX_CONDITIONS as usize - 2;

fn matching(field: Field<'_>) -> Option<Match> {
    let object = field.object(&[
        "path",
        "ignore_case",
        "method",
        "headers",
        "query",
        "cookies",
        "percent",
    ])?;
    let path = object.get("path").map(path);
    let ignore_case = object.get("ignore_case").map(|f| f.flag());
    let method = object
        .get("method")
        .map(|f| f.list(method))
        .unwrap_or_default();
    let list = |key: &str, name: fn(Field<'_>) -> Option<String>| match object.get(key) {
        Some(field) => field.list(|item| named(item, name)),
        None => Vec::new(),
    };
    let headers = list("headers", names::header);
    let query = list("query", names::parameter);
    let cookies = list("cookies", names::parameter);
    let conditions = headers.len() + query.len() + cookies.len();
    if conditions > MAX_NAMED {
        object.wrong(format!(
            "{conditions} headers, query parameters and cookies; the limit in one route is {MAX_NAMED}"
        ));
    }
    let percent = object.get("percent").map(percent);
    Some(Match {
        path: path.flatten(),
        ignore_case: ignore_case.flatten().unwrap_or(false),
        method,
        headers,
        query,
        cookies,
        percent: percent.flatten(),
    })
}

fn percent(field: Field<'_>) -> Option<Percent> {
    let number = field.decimal()?;
    let percent = Percent::new(number);
    if percent.is_none() {
        field.wrong(format!(
            "{number} is out of range: give a number from 0 to 100, in steps of 0.0001"
        ));
    }
    percent
}

const PATH_KINDS: [&str; 4] = ["prefix", "exact", "string_prefix", "regex"];

fn path(field: Field<'_>) -> Option<PathMatch> {
    let object = field.object(&PATH_KINDS)?;
    let Some(kind) = object.one_of(&PATH_KINDS) else {
        object.wrong("no kind of match: write {prefix: /a}, {exact: /a}, {string_prefix: /a} or {regex: /a.*}");
        return None;
    };
    let field = object.get(kind)?;
    if kind == "regex" {
        return names::regex(field).map(PathMatch::Regex);
    }
    let text = names::path(field)?;
    match kind {
        "exact" => Some(PathMatch::Exact(text.to_owned())),
        "string_prefix" => Some(PathMatch::StringPrefix(text.to_owned())),
        _ => {
            let text = text.strip_suffix('/').unwrap_or(text);
            let depth = text.bytes().filter(|b| *b == b'/').count();
            if depth > intf::XLB_MAX_DEPTH as usize {
                field.wrong(format!(
                    "{depth} segments; the limit of a path prefix is {}",
                    intf::XLB_MAX_DEPTH
                ));
            }
            Some(PathMatch::Prefix(
                if text.is_empty() { "/" } else { text }.to_owned(),
            ))
        }
    }
}

fn method(field: Field<'_>) -> Option<Method> {
    let text = field.text()?;
    let method = Method::parse(text);
    if method.is_none() {
        let upper = text.to_ascii_uppercase();
        if text == "CONNECT" {
            field.wrong("CONNECT is never relayed: remove it");
        } else if Method::parse(&upper).is_some() {
            field.wrong(format!("methods are case-sensitive: write {upper}"));
        } else {
            let known: Vec<_> = Method::ALL.iter().map(|(name, _)| *name).collect();
            field.wrong(format!(
                "method {text} is not supported yet: known are {}",
                known.join(", ")
            ));
        }
    }
    method
}

const VALUE_KINDS: [&str; 7] = [
    "exact", "prefix", "suffix", "contains", "regex", "range", "present",
];

fn named(field: Field<'_>, name: fn(Field<'_>) -> Option<String>) -> Option<NamedMatch> {
    let mut known = vec!["name", "invert"];
    known.extend(VALUE_KINDS);
    let object = field.object(&known)?;
    let name = object.need("name", "name: x-user").and_then(name);
    let value = value_match(&object);
    let invert = object.get("invert").map_or(Some(false), |f| f.flag());
    Some(NamedMatch {
        name: name?,
        value: value?,
        invert: invert?,
    })
}

fn value_match(object: &Object<'_, '_>) -> Option<ValueMatch> {
    let Some(kind) = object.one_of(&VALUE_KINDS) else {
        object.wrong(
            "no kind of match: add exact, prefix, suffix, contains, regex, range or present",
        );
        return None;
    };
    let field = object.get(kind)?;
    match kind {
        "present" => return field.flag().map(ValueMatch::Present),
        "range" => return range(field),
        "regex" => return names::regex(field).map(ValueMatch::Regex),
        _ => {}
    }
    match ValueMatch::OF_TEXT.iter().find(|(word, _)| *word == kind) {
        Some((_, of)) => names::value(field).map(of),
        None => {
            field.unsupported(kind);
            None
        }
    }
}

fn range(field: Field<'_>) -> Option<ValueMatch> {
    let ends = field.list(|item| item.integer());
    match ends[..] {
        [from, to] if from < to => Some(ValueMatch::Range(from, to)),
        [_, _] => {
            field.wrong("no number is in it: the first must be less than the second");
            None
        }
        _ => {
            field.wrong(
                "write two whole numbers, [from, to]: the first is in the range, the second not",
            );
            None
        }
    }
}
