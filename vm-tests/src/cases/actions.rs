// SPDX-License-Identifier: GPL-2.0
//! What a route does with a request beside sending it, or instead: redirects, rewritten paths and hosts, changed fields.
//! As Envoy does it; and where Gateway API says otherwise, as that says.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::backend;
use crate::ctx::{shop_yaml, Ctx, Proc, Scenario, VIP4};
use crate::envoy;
use crate::http::{Conn, Message};
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("actions/as_envoy", as_envoy).within(60),
    Scenario::xlb("actions/matches_as_envoy", matches_as_envoy).within(60),
    Scenario::xlb("actions/expressions", expressions),
    Scenario::xlb("actions/as_gateway_api", as_gateway_api),
    Scenario::xlb("actions/paths", paths),
    Scenario::xlb("actions/fields", fields),
    Scenario::xlb("actions/shown", shown),
    Scenario::xlb("actions/followed", followed),
];

const BACKEND: &str = "127.0.1.1:8001";
const PROXY: &str = "127.0.1.1:8101";

/// A route, with a name of its own for a host: what a file of XLB and a RouteConfiguration of Envoy say, and requests for it:
/// method, target, what stands behind the host's name, more fields.
struct Case {
    xlb: &'static str,
    envoy: &'static str,
    requests: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

const TO: &str = "cluster: items";

/// The same of both.
const CASES: &[Case] = &[
    Case {
        xlb: "match: {path: {prefix: /a}}, redirect: {scheme: https, status: 301}",
        envoy: "match: {path_separated_prefix: /a}, redirect: {https_redirect: true}",
        requests: &[
            ("GET", "/a/b?c=d", "", ""),
            ("HEAD", "/a", ":80", ""),
            ("POST", "/a?", "", "Content-Length: 0\r\n"),
        ],
    },
    Case {
        xlb: "redirect: {host: other.example, status: 308}",
        envoy: "match: {prefix: /}, redirect: {host_redirect: other.example, response_code: PERMANENT_REDIRECT}",
        requests: &[("GET", "/x/y?z", "", ""), ("DELETE", "/", "", "")],
    },
    Case {
        xlb: "redirect: {port: 8443, scheme: https, status: 307}",
        envoy: "match: {prefix: /}, redirect: {https_redirect: true, port_redirect: 8443, response_code: TEMPORARY_REDIRECT}",
        requests: &[("GET", "/x", "", ""), ("GET", "/x", ":8080", "")],
    },
    Case {
        xlb: "redirect: {path: /new, status: 303}",
        envoy: "match: {prefix: /}, redirect: {path_redirect: /new, response_code: SEE_OTHER}",
        requests: &[
            ("GET", "/x", "", ""),
            ("GET", "/x?y=z", "", ""),
            ("GET", "/x", ":8080", ""),
        ],
    },
    Case {
        xlb: "redirect: {path: \"/new?a=b\"}",
        envoy: "match: {prefix: /}, redirect: {path_redirect: \"/new?a=b\", response_code: FOUND}",
        requests: &[("GET", "/x", "", ""), ("GET", "/x?y=z", "", "")],
    },
    Case {
        xlb: "match: {path: {prefix: /old}}, redirect: {path_prefix: /new}",
        envoy: "match: {path_separated_prefix: /old}, redirect: {prefix_rewrite: /new, response_code: FOUND}",
        requests: &[
            ("GET", "/old", "", ""),
            ("GET", "/old/", "", ""),
            ("GET", "/old/a/b?c", "", ""),
        ],
    },
    Case {
        xlb: "respond: {status: 503, body: \"later\"}, response_headers: {set: {retry-after: \"5\"}, add: {x-a: b}}",
        envoy: "match: {prefix: /}, direct_response: {status: 503, body: {inline_string: later}}, \
                response_headers_to_add: [{header: {key: retry-after, value: '5'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-a, value: b}}]",
        requests: &[("GET", "/", "", ""), ("HEAD", "/", "", "")],
    },
    Case {
        xlb: "redirect: {host: h}, response_headers: {set: {x-a: b}}",
        envoy: "match: {prefix: /}, redirect: {host_redirect: h, response_code: FOUND}, response_headers_to_add: [{header: {key: x-a, value: b}}]",
        requests: &[("GET", "/", "", "")],
    },
    Case {
        xlb: "match: {path: {prefix: /v2}}, rewrite: {path_prefix: /w}, cluster: items",
        envoy: "match: {path_separated_prefix: /v2}, route: {cluster: items, prefix_rewrite: /w}",
        requests: &[
            ("GET", "/v2", "", ""),
            ("GET", "/v2/", "", ""),
            ("GET", "/v2/a/b?c=/v2", "", ""),
            ("POST", "/v2/a", "", "Content-Length: 3\r\n"),
        ],
    },
    Case {
        xlb: "match: {path: {string_prefix: /v2/}}, rewrite: {path_prefix: /}, cluster: items",
        envoy: "match: {prefix: /v2/}, route: {cluster: items, prefix_rewrite: /}",
        requests: &[("GET", "/v2/", "", ""), ("GET", "/v2/a?b", "", "")],
    },
    Case {
        xlb: "match: {path: {exact: /a}}, rewrite: {path: /b/c}, cluster: items",
        envoy: "match: {path: /a}, route: {cluster: items, prefix_rewrite: /b/c}",
        requests: &[("GET", "/a", "", ""), ("GET", "/a?b=c", "", "")],
    },
    Case {
        xlb: "rewrite: {host: \"inner.example:81\"}, cluster: items",
        envoy: "match: {prefix: /}, route: {cluster: items, host_rewrite_literal: 'inner.example:81'}",
        requests: &[("GET", "/a", "", ""), ("GET", "/a", ":8080", "")],
    },
    Case {
        xlb: "request_headers: {set: {x-set: \"1\"}, add: {x-add: \"2\"}, remove: [x-gone, X-Absent]}, cluster: items",
        envoy: "match: {prefix: /}, route: {cluster: items}, request_headers_to_remove: [x-gone, x-absent], \
                request_headers_to_add: [{header: {key: x-set, value: '1'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-add, value: '2'}}]",
        requests: &[
            ("GET", "/", "", ""),
            ("GET", "/", "", "X-Set: a\r\nx-add: b\r\nX-GONE: c\r\nx-set: d\r\nx-kept: e\r\n"),
        ],
    },
    Case {
        xlb: "response_headers: {set: {x-name: \"1\"}, add: {x-more: \"2\"}, remove: [x-secret]}, cluster: items",
        envoy: "match: {prefix: /}, route: {cluster: items}, response_headers_to_remove: [x-secret], \
                response_headers_to_add: [{header: {key: x-name, value: '1'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-more, value: '2'}}]",
        requests: &[
            ("GET", "/", "", ""),
            ("GET", "/answer/x-name:a/x-more:b/x-secret:c/x-kept:d", "", ""),
            ("HEAD", "/answer/x-name:a", "", ""),
        ],
    },
];

fn as_envoy(ctx: &mut Ctx) -> Result<()> {
    let server = Logging::named(BACKEND, "one")?;
    let (mut hosts, mut envoys) = (String::new(), String::new());
    for (n, case) in CASES.iter().enumerate() {
        hosts += &format!(
            "  - {{domains: [c{n}.example], routes: [{{{}}}]}}\n",
            case.xlb
        );
        envoys += &format!(
            "{{name: c{n}, domains: [c{n}.example, 'c{n}.example:*'], routes: [{{{}}}]}}, ",
            case.envoy
        );
    }
    let (mut conns, _proxy) = beside(ctx, &hosts, &envoys)?;
    for (n, case) in CASES.iter().enumerate() {
        for (method, target, port, fields) in case.requests {
            let head =
                format!("{method} {target} HTTP/1.1\r\nHost: c{n}.example{port}\r\n{fields}\r\n");
            let ask = |conn: &mut Conn| outcome(conn, &server, method, fields, &head);
            let [ours, theirs] = &mut conns;
            let (ours, theirs) = (ask(ours)?, ask(theirs)?);
            ensure!(
                ours == theirs,
                "{}\n{head}XLB: {ours:#?}\nEnvoy: {theirs:#?}",
                case.xlb
            );
        }
    }
    Ok(())
}

/// What a route matches, in a file of XLB and in one of Envoy; and requests, of which some match: target and fields.
struct Matches {
    xlb: &'static str,
    envoy: &'static str,
    requests: &'static [(&'static str, &'static str)],
}

const NUMBERS: &[(&str, &str)] = &[
    ("/", ""),
    ("/", "x-n: 10\r\n"),
    ("/", "x-n: 19\r\n"),
    ("/", "x-n: 20\r\n"),
    ("/", "x-n: 9\r\n"),
    ("/", "x-n: +12\r\n"),
    ("/", "x-n: -12\r\n"),
    ("/", "x-n: 012\r\n"),
    ("/", "x-n: 1 2\r\n"),
    ("/", "x-n: 12.0\r\n"),
    ("/", "x-n:\r\n"),
    ("/", "x-n: 12\r\nx-n: 13\r\n"),
    ("/", "x-n: 99999999999999999999\r\n"),
];

const VALUES: &[(&str, &str)] = &[
    ("/", ""),
    ("/", "x-a: b\r\n"),
    ("/", "x-a: B\r\n"),
    ("/", "x-a: bc\r\n"),
    ("/", "x-a: ab\r\n"),
    ("/", "x-a:\r\n"),
    ("/", "x-a: b\r\nx-a: c\r\n"),
];

const PATHS: &[(&str, &str)] = &[
    ("/a/b", ""),
    ("/A/b", ""),
    ("/a/B", ""),
    ("/a/b/", ""),
    ("/A/B/c?D", ""),
    ("/a/bc", ""),
    ("/", ""),
];

const EXPRESSIONS: &[(&str, &str)] = &[
    ("/a/b", ""),
    ("/a/", ""),
    ("/a/b_1?c=/", ""),
    ("/a/b-c", ""),
    ("/x12/y", ""),
    ("/x1/y", ""),
    ("/A/B", ""),
    ("/xb", ""),
    ("/x/b/b", ""),
    ("/", ""),
];

const MATCHES: &[Matches] = &[
    Matches {
        xlb: "headers: [{name: x-n, range: [10, 20]}]",
        envoy: "prefix: /, headers: [{name: x-n, range_match: {start: 10, end: 20}}]",
        requests: NUMBERS,
    },
    Matches {
        xlb: "headers: [{name: x-n, range: [-20, 12], invert: true}]",
        envoy: "prefix: /, headers: [{name: x-n, invert_match: true, range_match: {start: -20, end: 12}}]",
        requests: NUMBERS,
    },
    Matches {
        xlb: "headers: [{name: x-a, exact: b, invert: true}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, string_match: {exact: b}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, prefix: b, invert: true}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, string_match: {prefix: b}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, suffix: b}]",
        envoy: "prefix: /, headers: [{name: x-a, string_match: {suffix: b}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, contains: b, invert: true}, {name: x-a, contains: c}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, string_match: {contains: b}}, \
                {name: x-a, string_match: {contains: c}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, present: true}]",
        envoy: "prefix: /, headers: [{name: x-a, present_match: true}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, present: false}]",
        envoy: "prefix: /, headers: [{name: x-a, present_match: false}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, present: true, invert: true}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, present_match: true}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, present: false, invert: true}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, present_match: false}]",
        requests: VALUES,
    },
    Matches {
        xlb: "path: {prefix: /A/b}, ignore_case: true",
        envoy: "path_separated_prefix: /A/b, case_sensitive: false",
        requests: PATHS,
    },
    Matches {
        xlb: "path: {exact: /A/b}, ignore_case: true",
        envoy: "path: /A/b, case_sensitive: false",
        requests: PATHS,
    },
    Matches {
        xlb: "path: {string_prefix: /A/b}, ignore_case: true",
        envoy: "prefix: /A/b, case_sensitive: false",
        requests: PATHS,
    },
    Matches {
        xlb: "path: {regex: \"/(?:a|x[0-9]{2})/\\\\w+\"}",
        envoy: "safe_regex: {regex: \"/(?:a|x[0-9]{2})/\\\\w+\"}",
        requests: EXPRESSIONS,
    },
    Matches {
        xlb: "path: {regex: \"(?i)/a/.*|/X.*b\"}",
        envoy: "safe_regex: {regex: \"(?i)/a/.*|/X.*b\"}",
        requests: EXPRESSIONS,
    },
    Matches {
        xlb: "path: {regex: \".*[^a-z/].*\"}",
        envoy: "safe_regex: {regex: \".*[^a-z/].*\"}",
        requests: EXPRESSIONS,
    },
    Matches {
        xlb: "headers: [{name: x-a, regex: \"b*|B.?\"}]",
        envoy: "prefix: /, headers: [{name: x-a, string_match: {safe_regex: {regex: \"b*|B.?\"}}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "headers: [{name: x-a, regex: \"[^c]*\", invert: true}]",
        envoy: "prefix: /, headers: [{name: x-a, invert_match: true, string_match: {safe_regex: {regex: \"[^c]*\"}}}]",
        requests: VALUES,
    },
    Matches {
        xlb: "query: [{name: a, regex: \"[0-9]+\"}]",
        envoy: "prefix: /, query_parameters: [{name: a, string_match: {safe_regex: {regex: \"[0-9]+\"}}}]",
        requests: &[("/", ""), ("/?a=", ""), ("/?a=12", ""), ("/?a=12b", ""), ("/?b=1&a=2", "")],
    },
    Matches {
        xlb: "percent: 0",
        envoy: "prefix: /, runtime_fraction: {default_value: {numerator: 0, denominator: MILLION}}",
        requests: &[("/", "")],
    },
    Matches {
        xlb: "percent: 100",
        envoy: "prefix: /, runtime_fraction: {default_value: {numerator: 1000000, denominator: MILLION}}",
        requests: &[("/", "")],
    },
    Matches {
        xlb: "query: [{name: a, exact: b}, {name: c, present: true}]",
        envoy: "prefix: /, query_parameters: [{name: a, string_match: {exact: b}}, {name: c, present_match: true}]",
        requests: &[
            ("/", ""),
            ("/?a=b", ""),
            ("/?a=b&c", ""),
            ("/?c=&a=b", ""),
            ("/?c=1&a=b&a=d", ""),
            ("/?c=1&a=d&a=b", ""),
            ("/?A=b&c=1", ""),
        ],
    },
];

fn matches_as_envoy(ctx: &mut Ctx) -> Result<()> {
    let (mut hosts, mut envoys) = (String::new(), String::new());
    for (n, Matches { xlb, envoy, .. }) in MATCHES.iter().enumerate() {
        hosts += &format!(
            "  - {{domains: [c{n}.example], routes: [{{match: {{{xlb}}}, respond: {{status: 204}}}}]}}\n"
        );
        envoys += &format!(
            "{{name: c{n}, domains: [c{n}.example], routes: [{{match: {{{envoy}}}, direct_response: {{status: 204}}}}]}}, "
        );
    }
    let (mut conns, _proxy) = beside(ctx, &hosts, &envoys)?;
    let mut differ = Vec::new();
    for (n, case) in MATCHES.iter().enumerate() {
        for (target, fields) in case.requests {
            let ask = |conn: &mut Conn, fields: &str| -> Result<u16> {
                let head = format!("GET {target} HTTP/1.1\r\nHost: c{n}.example\r\n{fields}\r\n");
                conn.send(&head)?;
                let response = conn.response("GET").context(head)?;
                Ok(response.status())
            };
            // Envoy looks at the first of repeated fields only: it gets what they are to XLB, one joined with ",".
            let joined = ["\r\nx-a: ", "\r\nx-n: "]
                .iter()
                .fold((*fields).to_owned(), |text, again| text.replace(again, ","));
            let [ours, theirs] = &mut conns;
            let (ours, theirs) = (ask(ours, fields)?, ask(theirs, &joined)?);
            if ours != theirs || !matches!(ours, 204 | 404) {
                differ.push(format!(
                    "{}: {target} {fields:?}: XLB {ours}, Envoy {theirs}",
                    case.xlb
                ));
            }
        }
    }
    ensure!(differ.is_empty(), "{differ:#?}");
    Ok(())
}

/// Hundreds of expressions in one list of routes, of paths and of a header, the first that matches wins; and in another spelling
/// of the path.
fn expressions(ctx: &mut Ctx) -> Result<()> {
    const COUNT: u16 = 150;
    let mut routes = String::new();
    for n in 0..COUNT {
        let status = 200 + n;
        routes += &format!(
            "  - {{match: {{path: {{regex: \"/(?:item|thing)/{n}(?:/[a-z]+)?\"}}}}, respond: {{status: {status}}}}}\n  \
             - {{match: {{headers: [{{name: x-user, regex: \"u{n}-[0-9]*\"}}]}}, respond: {{status: {}}}}}\n",
            status + COUNT
        );
    }
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n{routes}"
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for n in (0..COUNT).step_by(7) {
        for (target, user, status) in [
            (format!("/item/{n}"), String::new(), 200 + n),
            (format!("/%74hing//{n}/ab?c"), String::new(), 200 + n),
            (format!("/thing/{n}/AB"), String::new(), 404),
            ("/".to_owned(), format!("u{n}-12"), 200 + COUNT + n),
            ("/".to_owned(), format!("u{n}-x"), 404),
            (
                format!("/item/{n}"),
                "u0-".to_owned(),
                if n == 0 { 200 } else { 200 + COUNT },
            ),
        ] {
            let user = match user.as_str() {
                "" => String::new(),
                user => format!("x-user: {user}\r\n"),
            };
            conn.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{user}\r\n"))?;
            let got = conn.response("GET")?.status();
            ensure!(got == status, "{target} {user:?}: {got}, not {status}");
        }
    }
    // As long as a value may be.
    let long = "9".repeat(30_000);
    conn.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx-user: u149-{long}\r\n\r\n"
    ))?;
    conn.response("GET")?.expect(200 + COUNT + 149)?;
    let said = ctx.run_ok(
        "xlbctl",
        &["explain", "--service", "shop", "GET", "http://a/item/1"],
    )?;
    ensure!(
        said.contains("path /item/1 does not match /(?:item|thing)/0(?:/[a-z]+)?")
            && said.contains("header x-user is absent")
            && said.contains("reply: respond 201"),
        "{said}"
    );
    Ok(())
}

/// XLB and Envoy with these virtual hosts, before the same backend; a connection to each.
fn beside(ctx: &mut Ctx, hosts: &str, envoys: &str) -> Result<([Conn; 2], Proc)> {
    let yaml = shop_yaml(&[BACKEND], "round_robin", "");
    ctx.apply(&yaml.replace(
        "  routes:\n  - cluster: items\n",
        &format!("  virtual_hosts:\n{hosts}"),
    ))?;
    let proxy: SocketAddr = PROXY.parse()?;
    let listener = envoy::listener("all", proxy, &format!("{{virtual_hosts: [{envoys}]}}"));
    let process = envoy::start(ctx, &listener, &envoy::cluster("items", BACKEND.parse()?))?;
    ctx.wait_listen(PROXY)?;
    Ok(([ctx.open(VIP4.parse()?)?, ctx.open(proxy)?], process))
}

/// What the client got, and what the backend, as far as both proxies should agree.
fn outcome(
    conn: &mut Conn,
    server: &Logging,
    method: &str,
    fields: &str,
    head: &str,
) -> Result<Vec<String>> {
    server.clear();
    conn.send(head)?;
    if fields.contains("Content-Length: 3") {
        conn.send("abc")?;
    }
    let response = conn.response(method).with_context(|| head.to_owned())?;
    let mut lines = vec![format!("{} {:?}", response.status(), response.text())];
    // RFC 9110, section 9.3.2: that of the answer to a GET, or none, as Envoy has it.
    let to_head = |line: &String| method == "HEAD" && line.starts_with("content-length");
    lines.extend(
        of_interest(&response)
            .into_iter()
            .filter(|line| !to_head(line)),
    );
    for seen in server.requests() {
        let message = &seen.message;
        lines.push(format!(
            "-> {} {} {:?}",
            message.method(),
            message.path(),
            message.text()
        ));
        lines.extend(
            of_interest(message)
                .into_iter()
                .map(|line| format!("-> {line}")),
        );
    }
    Ok(lines)
}

/// Fields that a proxy does not make by itself, in an order of our own: Envoy puts what it adds elsewhere.
fn of_interest(message: &Message) -> Vec<String> {
    const OWN: [&str; 3] = ["x-forwarded-proto", "x-request-id", "x-envoy"];
    const ALL: [&str; 5] = [
        "location",
        "host",
        "content-type",
        "content-length",
        "retry-after",
    ];
    let fields = message
        .fields
        .iter()
        .map(|(n, v)| (n.to_ascii_lowercase(), v));
    let fields = fields.filter(|(n, _)| {
        ALL.contains(&n.as_str())
            || (n.starts_with("x-") && !OWN.iter().any(|own| n.starts_with(own)))
    });
    let mut fields: Vec<_> = fields.map(|(n, v)| format!("{n}: {v}")).collect();
    fields.sort();
    fields
}

/// One route, and the cluster of one backend.
fn apply(ctx: &mut Ctx, route: &str) -> Result<()> {
    let yaml = shop_yaml(&[BACKEND], "round_robin", "");
    ctx.apply(&yaml.replace("  - cluster: items\n", &format!("  - {{{route}}}\n")))
}

/// What the backend got last.
fn got(server: &Logging) -> Result<Message> {
    let seen = server.requests().pop().context("nothing came")?;
    Ok(seen.message)
}

/// Where Envoy and Gateway API differ: the table of HTTPPathModifier, and ports of HTTPRequestRedirectFilter.
fn as_gateway_api(ctx: &mut Ctx) -> Result<()> {
    let server = Logging::named(BACKEND, "one")?;
    for (to, rows) in [
        (
            "/xyz",
            [
                ("/foo/bar", "/xyz/bar"),
                ("/foo/", "/xyz/"),
                ("/foo", "/xyz"),
            ],
        ),
        (
            "/xyz/",
            [
                ("/foo/bar", "/xyz/bar"),
                ("/foo/", "/xyz/"),
                ("/foo", "/xyz/"),
            ],
        ),
        ("/", [("/foo/bar", "/bar"), ("/foo/", "/"), ("/foo", "/")]),
    ] {
        apply(
            ctx,
            &format!("match: {{path: {{prefix: /foo}}}}, rewrite: {{path_prefix: {to}}}, {TO}"),
        )?;
        let mut conn = ctx.open(VIP4.parse()?)?;
        for (path, expected) in rows {
            conn.get(path)?.expect(200)?;
            let path_there = got(&server)?.path().to_owned();
            ensure!(path_there == expected, "{to} {path}: {path_there}");
        }
    }
    for (redirect, host, location) in [
        ("scheme: https", "h:8080", "https://h/a"),
        ("scheme: http", "h:8080", "http://h/a"),
        ("host: o", "h:8080", "http://o:8080/a"),
        ("host: o", "h", "http://o/a"),
        ("port: 80", "h:8080", "http://h/a"),
        ("scheme: https, port: 443", "h", "https://h/a"),
        (
            "host: \"[fd00::1]\", port: 81",
            "h",
            "http://[fd00::1]:81/a",
        ),
    ] {
        apply(ctx, &format!("redirect: {{{redirect}}}"))?;
        let mut conn = ctx.open(VIP4.parse()?)?;
        conn.send(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        let response = conn.response("GET")?;
        // The default of Gateway API.
        let response = response.expect(302)?;
        ensure!(
            response.field("location") == Some(location),
            "{redirect} {host}: {:?}",
            response.fields
        );
    }
    Ok(())
}

/// What came in another form than it was matched in.
fn paths(ctx: &mut Ctx) -> Result<()> {
    let server = Logging::named(BACKEND, "one")?;
    let route = format!("match: {{path: {{prefix: /v2}}}}, rewrite: {{path_prefix: /w}}, {TO}");
    apply(ctx, &route)?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for (target, expected) in [
        ("/%762/a%2Fb//c?d", "/w/a%2Fb//c?d"),
        ("//v2/a", "/w/a"),
        ("/v2%2Fa", "/w%2Fa"),
        ("http://shop.example/v2/a", "/w/a"),
        ("/v2/\u{e9}", "/w/\u{e9}"),
    ] {
        conn.send(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ))?;
        conn.response("GET")?.expect(200)?;
        let path = got(&server)?.path().to_owned();
        ensure!(path == expected, "{target}: {path}");
    }
    // A part of a segment that would be one of dots: no way out of the new prefix.
    let route =
        format!("match: {{path: {{string_prefix: /v2}}}}, rewrite: {{path_prefix: /w/}}, {TO}");
    apply(ctx, &route)?;
    conn.get("/v2x/a")?.expect(200)?;
    ensure!(got(&server)?.path() == "/w/x/a", "{:?}", got(&server)?);
    server.clear();
    for target in ["/v2../a", "/v2%2e%2E/a", "/v2."] {
        let mut conn = ctx.open(VIP4.parse()?)?;
        conn.get(target)?.expect_reply(400, "bad_request")?;
    }
    ensure!(server.count() == 0, "{:?}", server.requests());
    // In normal form, where the service wants that.
    let yaml = shop_yaml(&[BACKEND], "round_robin", "");
    let route = format!("match: {{path: {{prefix: /v2}}}}, rewrite: {{path_prefix: /w}}, {TO}");
    ctx.apply(&yaml.replace(
        "  routes:\n  - cluster: items\n",
        &format!("  normalize: forward\n  routes:\n  - {{{route}}}\n"),
    ))?;
    conn.get("/x/../%762//a%2fb/%3b")?.expect(200)?;
    ensure!(got(&server)?.path() == "/w/a/b/%3B", "{:?}", got(&server)?);
    // A redirect is followed: a client resolves what it gets.
    apply(
        ctx,
        "match: {path: {prefix: /v2}}, redirect: {path_prefix: /w}",
    )?;
    for (target, location) in [
        ("/x/..//v2/./a?b", "http://shop.example/w/a?b"),
        ("//v2//a", "http://shop.example/w/a"),
        ("/v2/a\\b?\u{e9}", "http://shop.example/w/a/b?%C3%A9"),
    ] {
        conn.send(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ))?;
        let response = conn.response("GET")?;
        ensure!(
            response.expect(302)?.field("location") == Some(location),
            "{target}: {:?}",
            response.fields
        );
    }
    // Without a host there is no other way to say where.
    conn.send("GET //v2/a HTTP/1.0\r\n\r\n")?;
    let response = conn.response("GET")?;
    ensure!(
        response.field("location") == Some("/w/a"),
        "{:?}",
        response.fields
    );
    Ok(())
}

/// Fields of a response that comes in pieces, of interim ones, of an upload; and that what frames stays.
fn fields(ctx: &mut Ctx) -> Result<()> {
    let _node = backend::node(ctx, BACKEND, "one")?;
    apply(
        ctx,
        &format!(
            "request_headers: {{set: {{x-a: b}}, remove: [user-agent]}}, \
             response_headers: {{set: {{x-made: d}}, remove: [date]}}, {TO}"
        ),
    )?;
    let url = format!("http://{VIP4}");
    for (path, more, mark) in [
        ("/echo", &[][..], "\"x-a\",\"b\""),
        ("/echo", &["-0"], "\"x-a\",\"b\""),
        ("/echo", &["-H", "Connection: close"], "connection: close"),
        ("/echo", &["-I"], "200 ok"),
        ("/interim", &[], "rel=preload"),
        ("/trailers", &[], "hello world"),
        ("/http10", &[], "old"),
        ("/bytes/9?close", &["-o", "/dev/null", "-D", "-"], "x-crc"),
    ] {
        let whole = format!("{url}{path}");
        let args = [&["-sS", "-m", "10", "-i"], more, &[&whole]].concat();
        let out = ctx.run_ok("curl", &args)?.to_ascii_lowercase();
        let head = out.rsplit_once("\r\n\r\n").map_or("", |(head, _)| head);
        ensure!(
            head.contains("\r\nx-made: d") && out.matches("x-made").count() == 1,
            "{path} {more:?}: {out}"
        );
        ensure!(
            !head.contains("\r\ndate:") && !out.contains("user-agent") && out.contains(mark),
            "{path} {more:?}: {out}"
        );
    }
    let upload = ctx.file("upload", &"u".repeat(300_000))?;
    let upload = format!("@{}", upload.display());
    let whole = format!("{url}/echo");
    for chunked in [
        &[][..],
        &["-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect: 100-continue"],
    ] {
        let args = [
            &["-sS", "-m", "20", "-i", "--data-binary", &upload],
            chunked,
            &[&whole],
        ]
        .concat();
        let out = ctx.run_ok("curl", &args)?;
        ensure!(
            out.contains("\r\nx-made: d\r\n")
                && out.contains("\"x-a\",\"b\"")
                && out.contains("\"length\":300000"),
            "{chunked:?}: {}",
            &out[..out.len().min(600)]
        );
    }
    Ok(())
}

/// `get`, `explain` and counters.
fn shown(ctx: &mut Ctx) -> Result<()> {
    let _server = Logging::named(BACKEND, "one")?;
    let yaml = shop_yaml(&[BACKEND], "round_robin", "");
    ctx.apply(&yaml.replace(
        "  - cluster: items\n",
        "  - {name: away, match: {path: {prefix: /away}}, redirect: {scheme: https, host: h, status: 308}}\n  \
         - {name: in, match: {path: {prefix: /in}}, rewrite: {path_prefix: /, host: a}, request_headers: {set: {x-a: b}}, cluster: items}\n  \
         - cluster: items\n",
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    conn.get("/away/x")?.expect(308)?;
    conn.get("/in/x")?.expect(200)?;
    let listed = ctx.run_ok("xlbctl", &["get", "routes"])?;
    ensure!(
        listed.contains("redirect 308 scheme=https host=h"),
        "{listed}"
    );
    let explain = |path: &str| {
        let url = format!("http://a{path}");
        ctx.run_ok("xlbctl", &["explain", "--service", "shop", "GET", &url])
    };
    let said = explain("/away")?;
    ensure!(
        said.contains("reply: redirect 308 scheme=https host=h, by the route"),
        "{said}"
    );
    let said = explain("/in/x")?;
    for line in [
        "rewrite path_prefix /",
        "rewrite host a",
        "set request header x-a: b",
    ] {
        ensure!(said.contains(line), "{said}");
    }
    // What is printed is what can be applied.
    let rows = xlb::json(&["get", "routes"])?;
    ensure!(rows[1]["rewrite"]["path_prefix"] == "/", "{rows}");
    let stats = xlb::json(&["stats"])?;
    let stats = stats.as_array().context("rows")?;
    for name in ["away", "in"] {
        let row = stats.iter().find(|row| row["route"] == name);
        let row = row.with_context(|| format!("route {name}"))?;
        ensure!(
            (&row["requests"], &row["errors"]) == (&1.into(), &0.into()),
            "{row}"
        );
    }
    Ok(())
}

/// By a client that follows what it reads.
fn followed(ctx: &mut Ctx) -> Result<()> {
    let server = Logging::named(BACKEND, "one")?;
    apply(
        ctx,
        "match: {path: {prefix: /old}}, redirect: {path_prefix: /new}}\n  - {match: {path: {prefix: /new}}, rewrite: {path_prefix: /}, cluster: items",
    )?;
    let url = format!("http://{VIP4}/old/a?b=c");
    let out = ctx.run_ok(
        "curl",
        &[
            "-sS",
            "-m",
            "10",
            "-L",
            "-w",
            " %{num_redirects} %{num_connects}",
            &url,
        ],
    )?;
    ensure!(out.contains("one") && out.ends_with(" 1 1"), "{out:?}");
    ensure!(got(&server)?.path() == "/a?b=c", "{:?}", got(&server)?);
    Ok(())
}
