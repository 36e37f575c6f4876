// SPDX-License-Identifier: GPL-2.0
//! Routes of XLB beside the same routes of Envoy, before one backend: each request goes to both, and what came back and what the
//! backend got are compared.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::ctx::{shop_yaml, Ctx, Proc, Scenario, VIP4};
use crate::envoy;
use crate::http::{Conn, Message};
use crate::script::Logging;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("actions/as_envoy", as_envoy).within(60),
    Scenario::xlb("actions/matches_as_envoy", matches_as_envoy).within(60),
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
