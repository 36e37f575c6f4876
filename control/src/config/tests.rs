// SPDX-License-Identifier: GPL-2.0
//! Every kind of mistake, with the message that it gets.

use super::model::*;
use super::*;

/// A valid configuration; tests break one thing in it.
const GOOD: &str = "\
version: 1
services:
- name: shop
  listen: [\"10.96.0.10:80\"]
  routes:
  - match: {path: {prefix: /v2}}
    cluster: c
clusters:
- name: c
  endpoints: [\"127.0.0.1:8081\"]
";

/// Messages without the file's name and the lines that they show.
fn problems(text: &str) -> Vec<String> {
    let checked = parse("f", text.to_owned()).and_then(|source| source.check(&source.config));
    match checked {
        Ok(()) => Vec::new(),
        Err(Error::Config(messages)) => messages
            .iter()
            .map(|m| m.split_once("\n").map_or(m.as_str(), |(first, _)| first))
            .map(|m| m.strip_prefix("f:").unwrap_or(m).to_owned())
            .collect(),
        Err(err) => vec![err.to_string()],
    }
}

fn replaced(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    problems(&GOOD.replacen(from, to, 1))
}

#[test]
fn the_good_one_is_good() {
    assert_eq!(problems(GOOD), [""; 0]);
}

#[test]
fn one_mistake_one_message() {
    // What is replaced, by what, and the one message: line, path, problem, remedy.
    let cases: &[(&str, &str, &str)] = &[
        ("version: 1", "version: 2", "1:10: version: this xlbctl knows version 1 only: write version: 1"),
        ("version: 1", "extra: 1\nversion: 1", "1:1: extra: unknown field; known here: version, services, clusters"),
        ("name: shop", "name: Shop", "3:9: services[0].name: \"Shop\": a service's name is 1 to 63 bytes of a-z, 0-9 and -"),
        ("name: shop", "name: 5", "3:9: services[0].name: expected a string, found a number: put it in quotes"),
        ("10.96.0.10:80", "10.96.0.10", "4:12: services[0].listen[0]: \"10.96.0.10\" is not an address and port: write 10.0.0.1:80 or [fd00::1]:80"),
        ("10.96.0.10:80", "10.96.0.10:0", "4:12: services[0].listen[0]: \"10.96.0.10:0\": port 0 cannot be connected to: give 1 to 65535"),
        ("10.96.0.10:80", "0.0.0.0:80", "4:12: services[0].listen[0]: \"0.0.0.0:80\": give the address of one host, without scope"),
        ("10.96.0.10:80", "127.0.0.1:8081", "10:15: clusters[0].endpoints[0]: 127.0.0.1:8081 is the VIP of service shop: give the address of the real server"),
        ("[\"10.96.0.10:80\"]", "[]", "4:11: services[0].listen: an empty list: give at least one VIP:port"),
        ("[\"10.96.0.10:80\"]", "[\"10.96.0.10:80\", \"[::ffff:10.96.0.10]:80\"]", "4:29: services[0].listen[1]: 10.96.0.10:80 belongs to service shop: a VIP and port has one owner"),
        ("  listen: [\"10.96.0.10:80\"]\n", "", "3:3: services[0]: listen is missing: add listen: [\"10.96.0.10:80\"]"),
        ("  routes:", "  protocol: http2\n  routes:", "5:13: services[0].protocol: a protocol other than http1 is not supported yet: remove it"),
        ("  routes:", "  cgroups: [a/b]\n  routes:", "5:13: services[0].cgroups[0]: \"a/b\": write the path from the cgroup v2 root, such as /system.slice"),
        ("  routes:", "  cgroups: a\n  routes:", "5:12: services[0].cgroups: expected a list, found a string"),
        ("prefix: /v2", "prefix: v2", "6:28: services[0].routes[0].match.path.prefix: \"v2\": a path begins with /"),
        ("prefix: /v2", "prefix: /v2?a=b", "6:28: services[0].routes[0].match.path.prefix: \"/v2?a=b\": only the path is compared, without ? and #: leave it out"),
        ("prefix: /v2", "prefix: //v2", "6:28: services[0].routes[0].match.path.prefix: \"//v2\" can never match, for paths are compared in normal form: write \"/v2\""),
        ("prefix: /v2", "prefix: /v2, exact: /v2", "6:19: services[0].routes[0].match.path: prefix and exact exclude each other: keep one"),
        ("prefix: /v2", "regex: \"/v2(\"", "6:27: services[0].routes[0].match.path.regex: \"/v2(\": unclosed group"),
        ("prefix: /v2", "regex: \".*a.{20}\"", "6:27: services[0].routes[0].match.path.regex: \".*a.{20}\": its table would take more than 1024 KiB, the limit of one expression: make it shorter, or count less"),
        ("{path: {prefix: /v2}}", "{method: [get]}", "6:22: services[0].routes[0].match.method[0]: methods are case-sensitive: write GET"),
        ("{path: {prefix: /v2}}", "{method: [PURGE]}", "6:22: services[0].routes[0].match.method[0]: method PURGE is not supported yet: known are GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x y, exact: a}]}", "6:30: services[0].routes[0].match.headers[0].name: \"x y\" is not a header name: letters, digits and -, up to 4 KiB"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x}]}", "6:23: services[0].routes[0].match.headers[0]: no kind of match: add exact, prefix, suffix, contains, regex, range or present"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x, regex: \"(?=a)\"}]}", "6:40: services[0].routes[0].match.headers[0].regex: \"(?=a)\": look-around, including look-ahead and look-behind, is not supported"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x, exact: 1}]}", "6:40: services[0].routes[0].match.headers[0].exact: expected a string, found a number: put it in quotes"),
        ("{path: {prefix: /v2}}", "{headers: [{name: Host, exact: a}]}", "6:30: services[0].routes[0].match.headers[0].name: the host is matched by the virtual host's domains: put it there"),
        ("{path: {prefix: /v2}}", "{percent: 101}", "6:22: services[0].routes[0].match.percent: 101 is out of range: give a number from 0 to 100, in steps of 0.0001"),
        ("{path: {prefix: /v2}}", "{percent: 0.00001}", "6:22: services[0].routes[0].match.percent: 0.00001 is out of range: give a number from 0 to 100, in steps of 0.0001"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x, range: [1]}]}", "6:40: services[0].routes[0].match.headers[0].range: write two whole numbers, [from, to]: the first is in the range, the second not"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x, range: [3, 3]}]}", "6:40: services[0].routes[0].match.headers[0].range: no number is in it: the first must be less than the second"),
        ("{path: {prefix: /v2}}", "{headers: [{name: x, exact: a, invert: 1}]}", "6:51: services[0].routes[0].match.headers[0].invert: expected true or false, found a number"),
        ("  routes:", "  normalize: yes\n  routes:", "5:14: services[0].normalize: \"yes\": write match or forward"),
        ("  routes:", "  upgrades: [a b]\n  routes:", "5:14: services[0].upgrades[0]: \"a b\" is not the name of a protocol: write websocket, tcp, spdy/3.1 and such"),
        ("  routes:", "  upgrades: [tcp, H2C]\n  routes:", "5:19: services[0].upgrades[1]: requests in an HTTP/2 tunnel would pass by the routes: leave h2c out"),
        ("prefix: /v2", "prefix: /a%40b", "6:28: services[0].routes[0].match.path.prefix: \"/a%40b\" can never match, for paths are compared in normal form: write \"/a@b\""),
        (
            "{path: {prefix: /v2}}",
            "{query: [{name: a&b, exact: b}]}",
            "6:28: services[0].routes[0].match.query[0].name: \"a&b\" is not a name as it is written in requests: percent-encode spaces and &;=,#",
        ),
        ("{path: {prefix: /v2}}", "{ignore_case: 1}", "6:26: services[0].routes[0].match.ignore_case: expected true or false, found a number"),
        ("    cluster: c", "    cluster: d", "7:14: services[0].routes[0].cluster: there is no cluster d: did you mean c?"),
        ("    cluster: c\n", "", "6:5: services[0].routes[0]: no action: add cluster, clusters, redirect or respond"),
        ("    cluster: c\n", "    cluster: c\n    respond: {status: 403}\n", "6:5: services[0].routes[0]: cluster and respond exclude each other: keep one"),
        ("cluster: c\n", "respond: {status: 100}\n", "7:23: services[0].routes[0].respond.status: 100 is out of range: give a number from 200 to 599"),
        ("cluster: c\n", "respond: {body: no}\n", "7:14: services[0].routes[0].respond: status is missing: add status: 403"),
        ("cluster: c\n", "respond: {status: 204, body: a}\n", "7:14: services[0].routes[0].respond: a response 204 has no body: leave it out"),
        ("cluster: c\n", "redirect: {status: 308}\n", "7:15: services[0].routes[0].redirect: the client would come back: add scheme, host, port, path or path_prefix"),
        ("cluster: c\n", "redirect: {host: h, status: 304}\n", "7:33: services[0].routes[0].redirect.status: 304: write 301, 302, 303, 307 or 308"),
        ("cluster: c\n", "redirect: {scheme: ftp}\n", "7:24: services[0].routes[0].redirect.scheme: \"ftp\": write http or https"),
        ("cluster: c\n", "redirect: {host: \"h:80\"}\n", "7:22: services[0].routes[0].redirect.host: \"h:80\": write a host, such as shop.example or [fd00::1], without port"),
        ("cluster: c\n", "redirect: {port: 0}\n", "7:22: services[0].routes[0].redirect.port: 0 is out of range: give a number from 1 to 65535"),
        ("cluster: c\n", "redirect: {path: x}\n", "7:22: services[0].routes[0].redirect.path: \"x\": a path begins with /"),
        ("cluster: c\n", "redirect: {path: \"/x#y\"}\n", "7:22: services[0].routes[0].redirect.path: \"/x#y\": write a path without #"),
        ("cluster: c\n", "redirect: {path: /x, path_prefix: /}\n", "7:15: services[0].routes[0].redirect: path and path_prefix exclude each other: keep one"),
        ("cluster: c\n", "redirect: {path: /x}\n    rewrite: {path: /y}\n", "8:14: services[0].routes[0].rewrite: it changes what an endpoint gets, and with redirect none gets anything: remove one of them"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {}\n", "8:14: services[0].routes[0].rewrite: nothing to rewrite: add path, path_prefix or host"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {path: \"/x?y\"}\n", "8:21: services[0].routes[0].rewrite.path: \"/x?y\": write a path without ? and #"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {path: /a/../b}\n", "8:21: services[0].routes[0].rewrite.path: \"/a/../b\": servers could read another path in it (dot segment in the path, which servers resolve differently)"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {path: //b}\n", "8:21: services[0].routes[0].rewrite.path: \"//b\": write one slash at its start"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {path: \"/a b\"}\n", "8:21: services[0].routes[0].rewrite.path: \"/a b\": percent-encode spaces and what is not ASCII"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {host: \"a:x\"}\n", "8:21: services[0].routes[0].rewrite.host: \"a:x\": write a host with or without port, such as shop.example or [fd00::1]:8080"),
        ("    cluster: c\n", "    cluster: c\n    rewrite: {regex: {pattern: a, substitution: b}}\n", "8:22: services[0].routes[0].rewrite.regex: regex is not supported yet: remove it"),
        ("{path: {prefix: /v2}}\n    cluster: c\n", "{path: {exact: /v2}}\n    cluster: c\n    rewrite: {path_prefix: /}\n", "8:28: services[0].routes[0].rewrite.path_prefix: the route matches no prefix that it could replace: write path"),
        ("    cluster: c\n", "    cluster: c\n    request_headers: {set: {a b: c}}\n", "8:34: services[0].routes[0].request_headers.set.a b: \"a b\" is not a header name: letters, digits and -"),
        ("    cluster: c\n", "    cluster: c\n    request_headers: {set: {Host: c}}\n", "8:35: services[0].routes[0].request_headers.set.Host: the host is changed by rewrite: {host: ..}"),
        ("    cluster: c\n", "    cluster: c\n    request_headers: {remove: [Content-Length]}\n", "8:32: services[0].routes[0].request_headers.remove[0]: Content-Length says where a message ends or how a connection goes on, which is XLB's to say"),
        ("    cluster: c\n", "    cluster: c\n    response_headers: {add: {a: 1}}\n", "8:33: services[0].routes[0].response_headers.add.a: expected a string, found a number: put it in quotes"),
        ("    cluster: c\n", "    cluster: c\n    response_headers: {set: {x-a: a, X-A: b}}\n", "8:38: services[0].routes[0].response_headers.set.X-A: given twice, first in line 8: keep one"),
        ("    cluster: c\n", "    cluster: c\n    response_headers: {set: {x-a: \"a\\nb\"}}\n", "8:35: services[0].routes[0].response_headers.set.x-a: a header value has no control bytes: remove them"),
        ("    cluster: c\n", "    cluster: c\n    request_headers: {set: {x-a: \"%DOWNSTREAM_REMOTE_ADDRESS%\"}}\n", "8:34: services[0].routes[0].request_headers.set.x-a: %DOWNSTREAM_REMOTE_ADDRESS% is not supported yet: remove it"),
        ("    cluster: c\n", "    cluster: c\n    mirror: {cluster: c}\n", "8:13: services[0].routes[0].mirror: mirror is not supported yet: remove it"),
        ("cluster: c\n", "clusters: [{name: c, weight: 0}]\n", "7:15: services[0].routes[0].clusters: all weights are 0: no request could be sent; give one of them a weight"),
        ("cluster: c\n", "clusters: [{name: c, weight: -1}]\n", "7:34: services[0].routes[0].clusters[0].weight: -1 is out of range: give a number from 0 to 4294967295"),
        ("cluster: c\n", "clusters: [{name: c}]\n", "7:16: services[0].routes[0].clusters[0]: weight is missing: add weight: 1"),
        ("cluster: c\n", "clusters: [{name: c, weight: 1.5}]\n", "7:34: services[0].routes[0].clusters[0].weight: expected a whole number, found a number"),
        ("- name: c", "- name: c\n  lb: ewma", "10:7: clusters[0].lb: ewma is not supported yet: write round_robin, random, least_request, ring_hash or maglev"),
        ("- name: c", "- name: c\n  lb: maglev\n  lb_options: {table_size: 1000}", "11:28: clusters[0].lb_options.table_size: 1000 is no prime number: write 1009"),
        ("    cluster: c\n", "    cluster: c\n    hash_on: [{}]\n", "8:15: services[0].routes[0].hash_on[0]: nothing to hash: write {header: x-user}, {cookie: {name: sid}}, {query: user} or {source_ip: true}"),
        ("    cluster: c\n", "    cluster: c\n    hash_on: [{cookie: {name: a, path: /}}]\n", "8:40: services[0].routes[0].hash_on[0].cookie.path: no cookie is made without ttl: add ttl: 0s for one that lasts as long as its session"),
        ("    cluster: c\n", "    cluster: c\n    hash_on: [{source_ip: false}]\n", "8:27: services[0].routes[0].hash_on[0].source_ip: write true, or leave it out"),
        ("    cluster: c\n", "    cluster: c\n    hash_on: [{cookie: {name: a, ttl: 1s}}, {cookie: {name: b, ttl: 1s}}]\n", "8:14: services[0].routes[0].hash_on: two cookies with ttl: the first is always there, so the second is never looked at"),
        ("    cluster: c\n", "    redirect: {path: /a}\n    hash_on: [{query: a}]\n", "8:14: services[0].routes[0].hash_on: it chooses an endpoint, and with redirect none gets anything: remove one of them"),
        ("- name: c", "- name: c\n  lb: round_robbin", "10:7: clusters[0].lb: unknown balancing: write round_robin, random, least_request, ring_hash or maglev"),
        ("- name: c", "- name: c\n  pool: {idle_timeout: 60}", "10:24: clusters[0].pool.idle_timeout: expected a duration such as 500ms, 60s, 5m or 1h, found a number"),
        ("- name: c", "- name: c\n  pool: {idle_timeout: 60x}", "10:24: clusters[0].pool.idle_timeout: \"60x\" is not a duration: write 500ms, 60s, 5m or 1h, up to 24h"),
        ("- name: c", "- name: c\n  pool: {min_idle: 9, max: 3}", "10:9: clusters[0].pool: min_idle 9 is above max 3: lower it or raise max"),
        ("- name: c", "- name: c\n  pool: {pending_timeout: 5}", "10:27: clusters[0].pool.pending_timeout: expected a duration such as 500ms, 60s, 5m or 1h, found a number"),
        ("[\"127.0.0.1:8081\"]", "[\"127.0.0.1:8081\", \"127.0.0.1:8081\"]", "10:33: clusters[0].endpoints[1]: 127.0.0.1:8081 is there already in this cluster: give it more weight instead"),
        ("  endpoints: [\"127.0.0.1:8081\"]\n", "", "9:3: clusters[0]: endpoints is missing: add endpoints: [\"127.0.0.1:8081\"]"),
        ("- name: c", "- name: c\n  name: d", "10:3: clusters[0].name: given twice, first in line 9: keep one"),
    ];
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        let found = replaced(from, to);
        if found != [*expected] {
            wrong.push(format!("{from} -> {to}: {found:#?}, and not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_typing_error_is_named() {
    assert_eq!(
        replaced("routes:", "rutes:"),
        [
            "3:3: services[0]: no routes: add virtual_hosts or routes",
            "5:3: services[0].rutes: unknown field; did you mean routes?"
        ]
    );
}

#[test]
fn items_are_there_once() {
    let twice = GOOD.replacen(
        "clusters:\n",
        "- {name: shop, listen: [\"10.96.0.11:80\"], routes: [{cluster: c}]}\nclusters:\n",
        1,
    );
    assert_eq!(
        problems(&twice),
        ["8:10: services[1].name: service shop is defined already as number 0: rename or remove one"]
    );
    let domains = GOOD.replacen(
        "  routes:\n  - match: {path: {prefix: /v2}}\n    cluster: c\n",
        "  virtual_hosts:\n  - {domains: [a.b], routes: [{cluster: c}]}\n  \
         - {domains: [c.d, \"A.B:80\"], routes: []}\n",
        1,
    );
    assert_eq!(
        problems(&domains),
        ["7:21: services[0].virtual_hosts[1].domains[1]: \"a.b\" is there already in this service: keep one"]
    );
}

#[test]
fn all_mistakes_are_listed_at_once() {
    let text = GOOD
        .replace("version: 1", "version: 9")
        .replace("name: shop", "name: S H O P")
        .replace("prefix: /v2", "prefix: v2")
        .replace("127.0.0.1:8081", "localhost");
    let lines: Vec<String> = problems(&text)
        .iter()
        .map(|m| m.split(':').next().unwrap_or("").to_owned())
        .collect();
    assert_eq!(lines, ["1", "3", "6", "10"]);
}

#[test]
fn mistakes_beyond_counting_are_counted() {
    let mut text = "version: 1\nclusters:\n".to_owned();
    for n in 0..500 {
        text.push_str(&format!("- {{name: c{n}, lb: x, endpoints: []}}\n"));
    }
    let found = problems(&text);
    assert_eq!(found.len(), MAX_DESCRIBED + 1);
    assert_eq!(
        found.last().map(String::as_str),
        Some(" and 400 more problems")
    );
}

#[test]
fn what_is_no_configuration_at_all() {
    for (text, part) in [
        (
            "",
            "f: is empty: a configuration begins with \"version: 1\"",
        ),
        ("# nothing\n---\n", "f: is empty"),
        ("just words", "expected a mapping, found a string"),
        ("- a\n- b\n", "expected a mapping, found a list"),
        ("version: 1\n\tservices: []\n", "f:2:1: found a tab"),
        ("version: [1, 2\nservices: x\n", "f:"),
        ("{\"version\": 1, \"services\": [}", "f:1:29: "),
        ("version: !!binary x\n", "f"),
        ("a: *nothing\n", "f:"),
    ] {
        let found = parse("f", text.to_owned())
            .and_then(|source| source.check(&source.config))
            .expect_err(text)
            .to_string();
        assert!(found.contains(part), "{text:?}: {found}");
    }
}

#[test]
fn several_documents_are_one() {
    let text = "version: 1\nclusters: [{name: c, endpoints: []}]\n---\n---\nversion: 1\n\
                services: [{name: s, listen: [\"1.2.3.4:5\"], routes: [{cluster: c}]}]\n";
    assert_eq!(problems(text), [""; 0]);
    let text = text.replace("cluster: c", "cluster: x");
    assert_eq!(
        problems(&text),
        ["6:64: document 3: services[0].routes[0].cluster: there is no cluster x: did you mean c?"]
    );
}

#[test]
fn what_is_printed_can_be_applied() {
    let source = parse(
        "f",
        include_str!("../../../xlbctl/tests/data/shop.yaml").to_owned(),
    )
    .expect("parses");
    source.check(&source.config).expect("valid");
    let value = serde_json::to_value(&source.config).expect("JSON");
    let yaml = serde_yaml::to_string(&value).expect("YAML");
    let text = format!("version: 1\n{yaml}");
    let again = parse("printed", text.clone()).expect("parses");
    again.check(&again.config).expect(&text);
    assert_eq!(again.config, source.config);
}

#[test]
fn pools_have_no_limit_unless_given() {
    let pool = |text: &str| {
        let text = GOOD.replace("- name: c\n", &format!("- name: c\n{text}"));
        let source = parse("f", text).expect("parses");
        source.check(&source.config).expect("valid");
        source.config.clusters[0].pool
    };
    assert_eq!((pool("").max, pool("").pending_timeout), (0, 5000));
    let given = pool("  pool: {max: 0, min_idle: 9, pending_timeout: 1500ms}\n");
    assert_eq!(
        (given.max, given.min_idle, given.pending_timeout),
        (0, 9, 1500)
    );
    assert_eq!(pool("  pool: {pending_timeout: 0}\n").pending_timeout, 0);
}

#[test]
fn shorthands_mean_what_they_say() {
    let source = parse("f", GOOD.replace("/v2", "/v2/")).expect("parses");
    let service = &source.config.services[0];
    assert_eq!(service.virtual_hosts[0].domains, ["*"]);
    let route = &service.virtual_hosts[0].routes[0];
    assert_eq!(
        route.matches.path,
        Some(PathMatch::Prefix("/v2".to_owned()))
    );
    assert_eq!(
        route.clusters,
        [Target {
            name: "c".to_owned(),
            weight: 1
        }]
    );
    assert_eq!(source.config.clusters[0].pool, Pool::default());
    assert_eq!(service.normalize, Normalize::Match);
    assert_eq!(service.upgrades, ["websocket"]);
}

/// The whole of the messages, with the lines that they show.
fn said(text: &str) -> String {
    parse("f", text.to_owned())
        .and_then(|source| source.check(&source.config))
        .expect_err(text)
        .to_string()
}

#[test]
fn the_line_is_shown() {
    assert_eq!(
        said(&GOOD.replace("/v2", "v2")),
        "f:6:28: services[0].routes[0].match.path.prefix: \"v2\": a path begins with /\n  \
         6 |   - match: {path: {prefix: v2}}\n    |                            ^"
    );
    let json = r#"{"version": 1, "clusters": [{"name": "c", "endpoints": [5]}]}"#;
    assert_eq!(
        said(json),
        format!(
            "f:1:57: clusters[0].endpoints[0]: expected a mapping, found a number\n  1 | {json}\n    | {:56}^",
            ""
        )
    );
}

#[test]
fn byte_order_marks_are_no_columns() {
    let mark = "\u{feff}";
    assert_eq!(problems(&format!("{mark}{GOOD}")), [""; 0]);
    let text = format!("{mark}extra: 1\n{GOOD}---\n{mark}version: 2\n");
    assert_eq!(
        problems(&text),
        [
            "1:1: document 1: extra: unknown field; known here: version, services, clusters",
            "13:10: document 2: version: this xlbctl knows version 1 only: write version: 1"
        ]
    );
    // Elsewhere it is a part of a word, which one would not see.
    let text = GOOD.replace("  listen", &format!("  {mark}listen"));
    assert!(
        problems(&text)
            .iter()
            .any(|m| m.contains("services[0].\\u{feff}listen: unknown field")),
        "{:?}",
        problems(&text)
    );
}

#[test]
fn a_key_given_again_has_its_own_place() {
    let text = GOOD.replace(
        "  routes:",
        "  listen: [\"10.96.0.11:80\"]\n  listen: []\n  routes:",
    );
    let again = "services[0].listen: given twice, first in line 4: keep one";
    assert_eq!(
        problems(&text),
        [format!("5:3: {again}"), format!("6:3: {again}")]
    );
}

#[test]
fn what_stands_there_by_an_alias_is_mended_where_it_is_written() {
    let text = GOOD.replace("{prefix: /v2}}", "&p {prefix: v2}}") + "";
    let text = text.replace(
        "clusters:\n",
        "  - {match: {path: *p}, cluster: c}\nclusters:\n",
    );
    let problem = "match.path.prefix: \"v2\": a path begins with /";
    assert_eq!(
        problems(&text),
        [
            format!("6:31: services[0].routes[0].{problem}"),
            format!(
                "6:31: services[0].routes[1].{problem} (it stands there by the alias in line 8)"
            )
        ]
    );
}

#[test]
fn a_broken_item_hides_nothing() {
    let text = "\
version: 1
services:
- name: a
  protocol: gopher
  listen: [\"10.0.0.1:80\", \"10.0.0.2\", \"10.0.0.3:80\"]
  routes:
  - {cluster: c, mach: {}}
  - 5
  - {cluster: d}
- name: a
  listen: [\"10.0.0.3:80\"]
  routes: [{clusters: []}]
- name: B
  listen: [\"10.0.0.1:80\"]
  routes: [{cluster: cc}]
clusters:
- name: c
  lb: x
  endpoints: [\"1\", \"10.0.0.9:1\", \"10.0.0.9:1\"]
  pool: {max: -1}
- 7
- {name: c, endpoints: [\"10.0.0.1:80\"]}
";
    assert_eq!(
        problems(text),
        [
            "4:13: services[0].protocol: unknown protocol: write http1",
            "5:27: services[0].listen[1]: \"10.0.0.2\" is not an address and port: write 10.0.0.1:80 or [fd00::1]:80",
            "7:18: services[0].routes[0].mach: unknown field; did you mean match?",
            "8:5: services[0].routes[1]: expected a mapping, found a number",
            "9:15: services[0].routes[2].cluster: there is no cluster d: did you mean c?",
            "10:9: services[1].name: service a is defined already as number 0: rename or remove one",
            "11:12: services[1].listen[0]: 10.0.0.3:80 belongs to service a: a VIP and port has one owner",
            "12:23: services[1].routes[0].clusters: an empty list: name at least one cluster",
            "13:9: services[2].name: \"B\": a service's name is 1 to 63 bytes of a-z, 0-9 and -",
            "14:12: services[2].listen[0]: 10.0.0.1:80 belongs to service a: a VIP and port has one owner",
            "15:22: services[2].routes[0].cluster: there is no cluster cc: did you mean c?",
            "18:7: clusters[0].lb: unknown balancing: write round_robin, random, least_request, ring_hash or maglev",
            "19:15: clusters[0].endpoints[0]: \"1\" is not an address and port: write 10.0.0.1:80 or [fd00::1]:80",
            "19:34: clusters[0].endpoints[2]: 10.0.0.9:1 is there already in this cluster: give it more weight instead",
            "20:15: clusters[0].pool.max: -1 is out of range: give a number from 0 to 4294967295",
            "21:3: clusters[1]: expected a mapping, found a number",
            "22:10: clusters[2].name: cluster c is defined already as number 0: rename or remove one",
            "22:25: clusters[2].endpoints[0]: 10.0.0.1:80 is the VIP of service services[2] of document 0: give the address of the real server",
        ]
    );
}

#[test]
fn thousands_of_mistakes_are_told_in_time() {
    use nix::time::{clock_gettime, ClockId};
    use std::fmt::Write;
    use std::time::Duration;

    // Whatever else the machine does.
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux"));
    let mut names = "version: 1\nservices:\n".to_owned();
    for n in 0..10_000 {
        let (a, b) = (n / 200, n % 200 + 1);
        writeln!(names, "- {{name: s{n}, listen: [\"10.0.{a}.{b}:80\"], routes: [{{cluster: clustre-{n:05}}}]}}").expect("grows");
    }
    names.push_str("clusters:\n");
    for n in 0..10_000 {
        writeln!(names, "- {{name: cluster-{n:05}, endpoints: []}}").expect("grows");
    }
    let mut fields = "version: 1\nservices:\n- name: s\n".to_owned();
    for n in 0..60_000 {
        writeln!(fields, "  lisen{n}: 1").expect("grows");
    }
    for (text, problems) in [(names, 10_000), (fields, 60_002)] {
        let start = now();
        let said = said(&text);
        let took = now() - start;
        let limit = if cfg!(debug_assertions) { 20 } else { 2 };
        assert!(took < Duration::from_secs(limit), "{took:?} for {problems}");
        let end = format!("f: and {} more problems", problems - MAX_DESCRIBED);
        assert!(said.ends_with(&end), "{}", &said[said.len() - 200..]);
    }
}
