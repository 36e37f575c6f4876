// SPDX-License-Identifier: GPL-2.0
//! What a route does with a request beside sending it, or instead: redirects, rewritten paths and hosts, changed fields.
//! `actions_envoy.rs` has them beside Envoy; where Gateway API says otherwise, it is as that says.

use anyhow::{ensure, Context, Result};

use crate::backend;
use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4};
use crate::http::Message;
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("actions/expressions", expressions),
    Scenario::xlb("actions/as_gateway_api", as_gateway_api),
    Scenario::xlb("actions/paths", paths),
    Scenario::xlb("actions/fields", fields),
    Scenario::xlb("actions/shown", shown),
    Scenario::xlb("actions/followed", followed),
];

const BACKEND: &str = "127.0.1.1:8001";

const TO: &str = "cluster: items";

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
