// SPDX-License-Identifier: GPL-2.0
//! Routes by host, path, method and header, and how paths are read before they are matched.

use anyhow::{ensure, Context, Result};

use crate::backend::{self, Echo};
use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4};
use crate::http::Conn;
use crate::script::{Logging, Server};
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("routes/match_table", match_table),
    Scenario::xlb("routes/hosts", hosts),
    Scenario::xlb("routes/first_match_wins", first_match_wins),
    Scenario::xlb("routes/no_way_around", no_way_around),
    Scenario::xlb("routes/paths_as_they_came", paths_as_they_came),
    Scenario::xlb("routes/paths_in_normal_form", paths_in_normal_form),
    Scenario::xlb("routes/upgrades", upgrades),
    Scenario::xlb("routes/forwarded_bytes", forwarded_bytes),
    Scenario::xlb("routes/thousands", thousands).within(120),
    Scenario::xlb("routes/two_services", two_services),
    Scenario::xlb("routes/respond", respond),
    Scenario::xlb("routes/cgroups", cgroups),
];

const THREE: [&str; 3] = ["127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"];

/// Three clusters c1, c2, c3 of one logging backend each.
pub(super) fn clusters() -> String {
    let mut yaml = String::from("clusters:\n");
    for (number, address) in THREE.iter().enumerate() {
        yaml += &format!(
            "- {{name: c{}, lb: round_robin, endpoints: [\"{address}\"]}}\n",
            number + 1
        );
    }
    yaml
}

pub(super) fn backends() -> Result<Vec<Logging>> {
    THREE
        .iter()
        .enumerate()
        .map(|(n, address)| Logging::named(address, &format!("c{}", n + 1)))
        .collect()
}

/// Who answers: c1, c2, c3, or "404" and the like.
pub(super) fn who(conn: &mut Conn, method: &str, path: &str, fields: &str) -> Result<String> {
    let host = if fields.to_ascii_lowercase().contains("host:") {
        ""
    } else {
        "Host: shop.example\r\n"
    };
    conn.send(format!("{method} {path} HTTP/1.1\r\n{host}{fields}\r\n"))?;
    let answer = conn
        .response(method)
        .with_context(|| format!("{method} {path} {fields:?}"))?;
    if answer.status() != 200 {
        return Ok(answer.status().to_string());
    }
    Ok(answer.text().lines().next().unwrap_or("").to_owned())
}

fn check(conn: &mut Conn, method: &str, path: &str, fields: &str, wanted: &str) -> Result<()> {
    let got = who(conn, method, path, fields)?;
    ensure!(
        got == wanted,
        "{method} {path} {fields:?}: {got} instead of {wanted}"
    );
    Ok(())
}

fn match_table(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{path: {{exact: /only}}, method: [POST, PUT]}}, cluster: c3}}\n\
         \x20 - {{match: {{path: {{prefix: /v2}}, headers: [{{name: X-User, exact: jason}}]}}, cluster: c3}}\n\
         \x20 - {{match: {{path: {{prefix: /v2}}}}, cluster: c2}}\n\
         \x20 - {{match: {{path: {{exact: /exact}}}}, cluster: c1}}\n\
         \x20 - {{match: {{path: {{prefix: /a/b}}, method: [GET]}}, cluster: c1}}\n{}",
        clusters()
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for (method, path, fields, wanted) in [
        ("GET", "/v2", "", "c2"),
        ("GET", "/v2/", "", "c2"),
        ("GET", "/v2/a/b", "", "c2"),
        ("GET", "/v2?x=1", "", "c2"),
        ("DELETE", "/v2/x", "", "c2"),
        // By whole segments, from the start of the path, and nowhere else.
        ("GET", "/v2x", "", "404"),
        ("GET", "/foo/v2/example", "", "404"),
        ("GET", "/", "Referer: /v2\r\n", "404"),
        ("GET", "/?next=/v2", "", "404"),
        // Header values are exact, names without case.
        ("GET", "/v2", "x-user: jason\r\n", "c3"),
        ("GET", "/v2", "X-USER:jason  \r\n", "c3"),
        ("GET", "/v2", "x-user: jasonx\r\n", "c2"),
        ("GET", "/v2", "x-user: Jason\r\n", "c2"),
        ("GET", "/v2", "x-user: jaso\r\n", "c2"),
        ("GET", "/v2", "x-userx: jason\r\n", "c2"),
        // Repeated fields are one value.
        ("GET", "/v2", "x-user: jason\r\nx-user: jason\r\n", "c2"),
        ("GET", "/exact", "", "c1"),
        ("GET", "/exact?q", "", "c1"),
        ("GET", "/exact/", "", "404"),
        ("GET", "/exac", "", "404"),
        ("GET", "/Exact", "", "404"),
        ("POST", "/only", "Content-Length: 0\r\n", "c3"),
        ("PUT", "/only", "Content-Length: 0\r\n", "c3"),
        ("GET", "/only", "", "404"),
        ("GET", "/a/b/c", "", "c1"),
        ("POST", "/a/b/c", "Content-Length: 0\r\n", "404"),
        ("GET", "/a", "", "404"),
        ("GET", "/", "", "404"),
        // The connection is still usable after all those 404s.
        ("GET", "/v2", "", "c2"),
    ] {
        check(&mut conn, method, path, fields, wanted)?;
    }
    Ok(())
}

fn hosts(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  virtual_hosts:\n\
         \x20 - {{domains: [\"shop.example\"], routes: [{{cluster: c1}}]}}\n\
         \x20 - {{domains: [\"*.example\"], routes: [{{cluster: c2}}]}}\n\
         \x20 - {{domains: [\"*.deep.example\", \"shop.*\"], routes: [{{cluster: c3}}]}}\n{}",
        clusters()
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for (host, wanted) in [
        ("shop.example", "c1"),
        ("SHOP.Example", "c1"),
        ("shop.example:80", "c1"),
        ("shop.example:8080", "c1"),
        ("other.example", "c2"),
        ("a.b.example", "c2"),
        ("a.deep.example", "c3"),
        ("shop.net", "c3"),
        ("example", "404"),
        ("10.96.0.10", "404"),
        ("evil-shop.example.net", "404"),
    ] {
        check(&mut conn, "GET", "/", &format!("Host: {host}\r\n"), wanted)?;
    }
    // An absolute target names the host.
    check(
        &mut conn,
        "GET",
        "http://other.example/x",
        "Host: other.example\r\n",
        "c2",
    )
}

fn first_match_wins(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{path: {{prefix: /a}}}}, cluster: c1}}\n\
         \x20 - {{match: {{path: {{prefix: /a/b}}}}, cluster: c2}}\n\
         \x20 - {{match: {{path: {{exact: /a/b}}}}, cluster: c2}}\n\
         \x20 - {{cluster: c3}}\n\
         \x20 - {{match: {{path: {{exact: /z}}}}, cluster: c2}}\n{}",
        clusters()
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for (path, wanted) in [
        ("/a", "c1"),
        ("/a/b", "c1"),
        ("/a/b/c", "c1"),
        ("/z", "c3"),
        ("/", "c3"),
        ("*", "c3"),
    ] {
        check(
            &mut conn,
            if path == "*" { "OPTIONS" } else { "GET" },
            path,
            "",
            wanted,
        )?;
    }
    Ok(())
}

/// `/admin` is refused; no spelling of it gets through to the open cluster.
fn no_way_around(ctx: &mut Ctx) -> Result<()> {
    let backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{path: {{prefix: /admin}}}}, cluster: c2}}\n\
         \x20 - {{cluster: c1}}\n{}",
        clusters()
    ))?;
    for path in [
        "/admin",
        "/admin/",
        "//admin",
        "//x/admin",
        "/./admin",
        "/x/../admin",
        "/x/./../admin/y",
        "/%61dmin",
        "/%61%64min/x",
        "/admin%2Fx",
        "/admin%2f..%2fadmin",
        "/x%2f..%2fadmin",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/x/%2E%2e/admin",
        "/a/b/../../admin",
        "///admin",
        "/admin//x",
        "/admin/../admin",
        "/admin;v=1",
        "/\\admin",
        "/x\\..\\admin",
        "/admin%00",
        "/admin%",
        "/ad%6Din",
        "http://shop.example/admin",
        "http://shop.example//admin",
    ] {
        let mut conn = ctx.open(VIP4.parse()?)?;
        // c2 or a refusal; c1 is allowed only for what is no spelling of /admin at its end.
        let got = who(&mut conn, "GET", path, "").unwrap_or_else(|error| format!("{error:#}"));
        println!("{path}: {got}");
        let other_name = matches!(
            path,
            "/admin;v=1"
                | "//x/admin"
                | "/\\admin"
                | "/x\\..\\admin"
                | "/admin%2Fx"
                | "/admin%2f..%2fadmin"
                | "/x%2f..%2fadmin"
        );
        ensure!(got != "c1" || other_name, "{path} reached the open cluster");
    }
    // What did reach the open cluster must not be read as /admin by a server that decodes once, or parses it as an URL.
    for seen in backends.first().map(Logging::requests).unwrap_or_default() {
        let path = seen.message.path().to_owned();
        ensure!(
            !decodes_to_admin(&path),
            "{path} reached the open cluster, and means /admin"
        );
    }
    Ok(())
}

/// How a lenient server reads a path: percent-decoded, back-slashes as slashes, dot segments resolved, a host after two
/// slashes.
fn decodes_to_admin(path: &str) -> bool {
    let behind_host = path
        .strip_prefix("//")
        .and_then(|rest| rest.find('/').map(|slash| &rest[slash..]));
    if behind_host.is_some_and(decodes_to_admin) {
        return true;
    }
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
            let value = std::str::from_utf8(&digits)
                .ok()
                .and_then(|d| u8::from_str_radix(d, 16).ok());
            decoded.push(value.unwrap_or(b'?'));
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8_lossy(&decoded).into_owned();
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    segments.first() == Some(&"admin")
}

/// What the endpoint of `target` sees as its path, or the status and detail of XLB's refusal.
fn seen_path(ctx: &Ctx, backends: &[Logging], target: &str) -> Result<String> {
    let mut conn = ctx.open(VIP4.parse()?)?;
    conn.send(format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    ))?;
    let answer = conn.response("GET").context(target.to_owned())?;
    if answer.status() != 200 {
        let reason = answer.field("x-xlb-reason").unwrap_or("");
        return Ok(format!("{} {reason}", answer.status()));
    }
    let name = answer.text().lines().next().unwrap_or("").to_owned();
    let seen = backends.iter().find(|b| b.name == name).context("name")?;
    let last = seen.requests().pop().context("a request")?;
    Ok(format!("{name} {}", last.message.path()))
}

fn check_paths(ctx: &Ctx, backends: &[Logging], cases: &[(&str, &str)]) -> Result<()> {
    for (target, wanted) in cases {
        let got = seen_path(ctx, backends, target)?;
        ensure!(
            got.starts_with(wanted) && got.len() - wanted.len() < 20,
            "{target}: {got:?} instead of {wanted:?}"
        );
    }
    Ok(())
}

/// Routes are chosen by the normal form of the path, and the endpoint gets the bytes that came, with one slash at the start;
/// what it could read as another path is refused.
fn paths_as_they_came(ctx: &mut Ctx) -> Result<()> {
    let backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{path: {{prefix: /admin}}}}, cluster: c2}}\n\
         \x20 - {{match: {{path: {{prefix: /@babel/core}}}}, cluster: c3}}\n\
         \x20 - {{cluster: c1}}\n{}",
        clusters()
    ))?;
    let same = |name: &str, path: &str| (path.to_owned(), format!("{name} {path}"));
    let mut cases: Vec<(String, String)> = vec![
        same("c1", "/api/queues/%2F/orders"),
        same("c1", "/projects/group%2Fproject?x=%2e%2e//"),
        same("c1", "/bucket//key"),
        same("c1", "/caf%c3%a9/%7e"),
        same("c3", "/@babel%2fcore"),
        same("c3", "/%40babel%2fcore"),
        same("c2", "/%61dmin/x"),
        same("c2", "/admin//x"),
        same("c2", "/admin%2Fx"),
    ];
    for (path, seen) in [
        ("//", "c1 /"),
        ("//x/admin", "c1 /x/admin"),
        ("///x//admin?y=//z", "c1 /x//admin?y=//z"),
        ("//admin//x", "c2 /admin//x"),
        ("//caf%c3%a9%2Fé", "c1 /caf%c3%a9%2Fé"),
        ("http://shop.example//admin", "c2 /admin"),
    ] {
        cases.push((path.to_owned(), seen.to_owned()));
    }
    for path in [
        "/x/../admin",
        "/x/%2e%2E/admin",
        "/x%2f..%2fadmin",
        "/a/.",
        "/x\\..\\admin",
        "//x/../admin",
        "/\\x/admin",
        "//\\x/admin",
    ] {
        cases.push((path.to_owned(), "400 bad_request".to_owned()));
    }
    let cases: Vec<_> = cases.iter().map(|(a, b)| (&**a, &**b)).collect();
    check_paths(ctx, &backends, &cases)
}

/// With `normalize: forward` the endpoint gets the normal form.
fn paths_in_normal_form(ctx: &mut Ctx) -> Result<()> {
    let backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  normalize: forward\n  routes:\n\
         \x20 - {{match: {{path: {{prefix: /admin}}}}, cluster: c2}}\n\
         \x20 - {{cluster: c1}}\n{}",
        clusters()
    ))?;
    check_paths(
        ctx,
        &backends,
        &[
            ("/bucket//key?a//b", "c1 /bucket/key?a//b"),
            ("/a%3bb%2fc/%7e", "c1 /a%3Bb/c/~"),
            ("/x/../admin", "c2 /admin"),
            ("/x%2f..%2fadmin/%40", "c2 /admin/%40"),
            ("//admin", "c2 /admin"),
            ("/%40", "c1 /%40"),
            ("/a/..;x", "400 bad_request"),
        ],
    )
}

/// A tunnel for the protocols that the service allows, and for the one that was asked for.
fn upgrades(ctx: &mut Ctx) -> Result<()> {
    // Switches to whatever is asked for, or to what the path says.
    let _server = Server::start(THREE[0], |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let Some(asked) = request.field("upgrade").map(str::to_owned) else {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")?;
                continue;
            };
            let name = request.path().strip_prefix("/as/").unwrap_or(&asked);
            conn.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n\r\nhello"
            ))?;
            let word = conn.exactly(4)?;
            return conn.send(word);
        }
        Ok(())
    })?;
    for (allowed, cases) in [
        (
            "",
            [
                ("GET", "/", "WebSocket", "", "tunnel"),
                // Java 17's client says how long no body is.
                ("GET", "/", "websocket", "Content-Length: 0\r\n", "tunnel"),
                ("POST", "/", "tcp", "Content-Length: 0\r\n", "plain"),
                ("GET", "/as/tcp", "websocket", "", "502"),
            ],
        ),
        (
            "  upgrades: [TCP, spdy/3.1]\n",
            [
                ("POST", "/", "tcp", "Content-Length: 0\r\n", "tunnel"),
                ("POST", "/", "SPDY/3.1", "", "tunnel"),
                ("GET", "/", "websocket", "", "plain"),
                ("POST", "/as/spdy/3.1", "tcp", "", "502"),
            ],
        ),
    ] {
        ctx.apply(&format!(
            "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n{allowed}  routes: [{{cluster: c1}}]\n{}",
            clusters()
        ))?;
        for (method, path, protocol, fields, wanted) in cases {
            let mut conn = ctx.open(VIP4.parse()?)?;
            conn.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            ))?;
            let answer = conn.response(method)?;
            let got = match answer.status() {
                101 => {
                    ensure!(conn.exactly(5)? == b"hello", "the tunnel's first bytes");
                    conn.send("ping")?;
                    ensure!(conn.exactly(4)? == b"ping", "the tunnel");
                    "tunnel".to_owned()
                }
                200 => answer.text(),
                status => status.to_string(),
            };
            ensure!(
                got == wanted,
                "{method} {path} {protocol:?} {allowed:?}: {got} instead of {wanted}"
            );
        }
    }
    Ok(())
}

/// A head that XLB does not change arrives byte for byte; hop-by-hop fields do not arrive.
fn forwarded_bytes(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, THREE[0], "b1")?;
    let vip = ctx.shop(&[THREE[0]])?;
    let mut conn = ctx.open(vip)?;
    conn.send(
        "GET /echo/x HTTP/1.1\r\nhOsT: shop.example:80\r\nX-Empty:\r\nUser-Agent:  a  b \r\nAccept: */*\r\n\
         Connection: X-Private, keep-alive\r\nX-Private: secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: gzip\r\nX-Last: z\r\n\r\n",
    )?;
    let echo = Echo::parse(&conn.response("GET")?.expect(200)?.body)?;
    let has = |name: &str| {
        echo.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim().to_owned())
    };
    for gone in ["x-private", "keep-alive", "proxy-connection", "te"] {
        ensure!(
            has(gone).is_none(),
            "{gone} was forwarded: {:?}",
            echo.headers
        );
    }
    ensure!(
        has("host").as_deref() == Some("shop.example:80"),
        "{:?}",
        echo.headers
    );
    ensure!(
        has("user-agent").as_deref() == Some("a  b"),
        "{:?}",
        echo.headers
    );
    ensure!(
        has("x-empty").as_deref() == Some("") && has("x-last").as_deref() == Some("z"),
        "{:?}",
        echo.headers
    );
    ensure!(
        echo.headers.iter().any(|(n, _)| n == "hOsT"),
        "names keep their case: {:?}",
        echo.headers
    );
    Ok(())
}

/// Ten thousand routes, and the last is found as well as the first.
fn thousands(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    let mut yaml =
        format!("version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n");
    for number in 0..10_000 {
        yaml += &format!(
            "  - {{match: {{path: {{prefix: /item/{number}}}}}, cluster: c{}}}\n",
            number % 3 + 1
        );
    }
    ctx.apply(&(yaml + &clusters()))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for number in [0, 1, 2, 4_999, 9_997, 9_998, 9_999] {
        check(
            &mut conn,
            "GET",
            &format!("/item/{number}/x"),
            "",
            &format!("c{}", number % 3 + 1),
        )?;
    }
    check(&mut conn, "GET", "/item/10000", "", "404")
}

fn two_services(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n\
         - {{name: one, listen: [\"10.96.0.11:80\", \"10.96.0.11:8080\"], routes: [{{cluster: c1}}]}}\n\
         - {{name: two, listen: [\"10.96.0.12:80\"], routes: [{{cluster: c2}}]}}\n{}",
        clusters()
    ))?;
    for (address, wanted) in [
        ("10.96.0.11:80", "c1"),
        ("10.96.0.11:8080", "c1"),
        ("10.96.0.12:80", "c2"),
    ] {
        check(&mut ctx.open(address.parse()?)?, "GET", "/", "", wanted)?;
    }
    Ok(())
}

/// Routes that say what the client gets: no endpoint sees such a request, and the connection stays.
fn respond(ctx: &mut Ctx) -> Result<()> {
    let server = crate::script::Logging::named("127.0.1.1:8001", "one")?;
    let long = "x".repeat(4096);
    let routes = format!(
        "  - {{name: no, match: {{path: {{prefix: /no}}}}, respond: {{status: 403, body: \"no\\n\"}}}}\n  \
         - {{name: empty, match: {{path: {{prefix: /empty}}}}, respond: {{status: 204}}}}\n  \
         - {{name: long, match: {{path: {{prefix: /long}}}}, respond: {{status: 599, body: {long}}}}}\n"
    );
    let yaml = shop_yaml(&["127.0.1.1:8001"], "round_robin", "");
    ctx.apply(&yaml.replace(
        "  - cluster: items\n",
        &format!("{routes}  - cluster: items\n"),
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    let rows: [(&str, u16, &str); 3] = [
        ("/no", 403, "no\n"),
        ("/empty", 204, ""),
        ("/long", 599, &long),
    ];
    for _ in 0..2 {
        for (path, status, body) in rows {
            let reply = conn.get(path)?;
            let reply = reply.expect(status)?;
            ensure!(reply.body == body.as_bytes(), "{path}: {}", reply.text());
            ensure!(reply.field("x-xlb-reason").is_none(), "{path}: a reason");
        }
        conn.get("/items")?.expect(200)?;
    }
    let accepted = server.accepted();
    ensure!(
        accepted == 1,
        "{accepted} connections: the first was not kept"
    );
    // Without its body, and with a body of the client's own that nobody wants.
    let url = format!("http://{VIP4}");
    let head = ctx.run_ok("curl", &["-sS", "-m", "10", "-I", &format!("{url}/no")])?;
    ensure!(
        head.starts_with("HTTP/1.1 403") && head.contains("content-length: 3"),
        "{head}"
    );
    let upload = ctx.file("upload", &"u".repeat(300_000))?;
    let upload = format!("@{}", upload.display());
    let post = [
        "-sS",
        "-m",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Expect:",
        "--data-binary",
        &upload,
    ];
    let no = format!("{url}/no");
    let post = [&post[..], &[&no]].concat();
    ensure!(ctx.run_ok("curl", &post)? == "403", "an upload");
    let old = [
        "-sS",
        "-m",
        "10",
        "-0",
        "-w",
        "%{http_version} %{http_code}",
        &format!("{url}/no"),
    ];
    let old = ctx.run_ok("curl", &old)?;
    ensure!(
        old.starts_with("no\n") && old.ends_with(" 403"),
        "HTTP/1.0: {old:?}"
    );

    // Counted for the service and the route, and no error of XLB's.
    let stats = xlb::json(&["stats"])?;
    let stats = stats.as_array().context("rows")?;
    let row = stats
        .iter()
        .find(|row| row["route"] == "no")
        .context("the route")?;
    ensure!(
        (&row["requests"], &row["status_4xx"], &row["errors"]) == (&5.into(), &5.into(), &0.into()),
        "{row}"
    );
    let status = xlb::json(&["status"])?;
    ensure!(status["reasons"]["respond"] == 9, "{}", status["reasons"]);
    let said = ctx.run_ok(
        "xlbctl",
        &["explain", "--service", "shop", "GET", "http://a/no/x"],
    )?;
    ensure!(
        said.contains("route no") && said.contains("reply: respond 403, by the route"),
        "{said}"
    );
    let listed = ctx.run_ok("xlbctl", &["get", "routes"])?;
    ensure!(listed.contains("respond 403"), "{listed}");

    // Another text, on the same connection; nothing else serves, and the VIP accepts all the same.
    ctx.apply(&format!(
        "version: 1\nservices:\n- {{name: shop, listen: [\"{VIP4}\"], routes: [{{respond: {{status: 200, body: new}}}}]}}\n"
    ))?;
    ensure!(
        conn.get("/no")?.expect(200)?.text() == "new",
        "the old text"
    );
    ctx.open(VIP4.parse()?)?.get("/")?.expect(200)?;
    Ok(())
}

/// A service for one cgroup only: processes elsewhere do not see it.
fn cgroups(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = own.trim().rsplit(':').next().context("cgroup")?.to_owned();
    let served = format!("{own}/served");
    let root = "/sys/fs/cgroup";
    std::fs::create_dir_all(format!("{root}{served}"))?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- {{name: shop, listen: [\"{VIP4}\"], cgroups: [{served}], routes: [{{cluster: c1}}]}}\n{}",
        clusters()
    ))?;
    let url = format!("http://{VIP4}/");
    let outside = ctx.run("curl", &["-sS", "-m", "5", &url])?;
    ensure!(
        outside.code != Some(0),
        "a process outside the cgroup was served: {}",
        outside.all()
    );
    let line = format!("echo $$ > {root}{served}/cgroup.procs && exec curl -sS -m 10 {url}");
    let inside = ctx.run_ok("sh", &["-c", &line])?;
    ensure!(inside.starts_with("c1"), "{inside}");
    // A child of the cgroup counts as inside.
    std::fs::create_dir_all(format!("{root}{served}/child"))?;
    let line = line.replace("served/", "served/child/");
    let inside = ctx.run_ok("sh", &["-c", &line])?;
    ensure!(inside.starts_with("c1"), "{inside}");
    Ok(())
}
