// SPDX-License-Identifier: GPL-2.0
//! Replies that XLB makes by itself: no route, no endpoint, bad clients, bad backends.

use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::ctx::{Ctx, Scenario, VIP4};
use crate::http::{find, lossy, Message};
use crate::script::{Logging, Server};
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("replies/no_route", no_route),
    Scenario::xlb("replies/no_endpoint", no_endpoint),
    Scenario::xlb("replies/connect_failed", connect_failed),
    Scenario::xlb("replies/connect_timeout", connect_timeout),
    Scenario::xlb(
        "replies/connect_timeout_after_a_kick",
        connect_timeout_after_a_kick,
    ),
    Scenario::xlb("replies/malformed_requests", malformed_requests),
    Scenario::xlb("replies/malformed_responses", malformed_responses),
    Scenario::xlb("replies/upstream_reset", upstream_reset),
    Scenario::xlb("replies/half_a_response", half_a_response),
    Scenario::xlb("replies/head_limits", head_limits),
];

const BACKEND: &str = "127.0.1.1:8001";

fn reason_counted(name: &str) -> Result<u64> {
    Ok(xlb::counters()?.reason(name))
}

fn no_route(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let yaml = crate::ctx::shop_yaml(&[BACKEND], "round_robin", "").replace(
        "  - cluster: items\n",
        "  - {match: {path: {prefix: /shop}}, cluster: items}\n",
    );
    ctx.apply(&yaml)?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for _ in 0..3 {
        let answer = conn.get("/nothing")?;
        answer.expect_reply(404, "no_route")?;
        ensure!(
            answer
                .field("content-type")
                .is_some_and(|v| v.starts_with("text/plain")),
            "{answer:?}"
        );
        ensure!(
            !answer.body.is_empty() && answer.body.len() < 500,
            "{answer:?}"
        );
        conn.get("/shop")
            .context("the connection stays usable")?
            .expect(200)?;
    }
    conn.request("HEAD", "/nothing", "", b"")?;
    conn.response("HEAD")?.expect_reply(404, "no_route")?;
    conn.get("/shop").context("after HEAD")?.expect(200)?;
    // The body of a request that goes nowhere is thrown away.
    conn.request("POST", "/nothing", "", &[b'x'; 200_000])?;
    conn.response("POST")?.expect_reply(404, "no_route")?;
    conn.get("/shop").context("after a body")?.expect(200)?;
    ensure!(backend.count() == 5, "{}", backend.count());
    ensure!(
        reason_counted("no_route")? == 5,
        "no_route is {}",
        reason_counted("no_route")?
    );
    Ok(())
}

/// Connected while there was an endpoint: each of its requests is answered, and counted for the service,
/// the route and the cluster.
fn no_endpoint(ctx: &mut Ctx) -> Result<()> {
    let full = crate::ctx::shop_yaml(&[BACKEND], "round_robin", "");
    ctx.apply(&full)?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    ctx.apply(&full.replace(
        "\"127.0.1.1:8001\"",
        "{address: \"127.0.1.1:8001\", drain: true}",
    ))?;
    for _ in 0..3 {
        conn.get("/")?.expect_reply(503, "no_endpoint")?;
    }
    let stats = xlb::json(&["stats"])?;
    let rows = stats.as_array().context("a list")?;
    for kind in ["service", "route", "cluster"] {
        ensure!(
            rows.iter()
                .any(|row| row["kind"] == kind && row["requests"] == 3 && row["errors"] == 3),
            "{kind}:\n{stats:#}"
        );
    }
    Ok(())
}

fn connect_failed(ctx: &mut Ctx) -> Result<()> {
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..3 {
        conn.get("/")?.expect_reply(503, "connect_failed")?;
    }
    let errors = xlb::counters()?.get("connect_errors")?;
    ensure!(errors >= 3, "connect_errors is {errors}");
    let _backend = Logging::start(BACKEND)?;
    conn.get("/").context("once it listens")?.expect(200)?;
    Ok(())
}

/// A listener whose backlog is full, and what fills it: it drops SYNs, so a connect hangs.
pub(super) fn deaf_listener(ctx: &Ctx) -> Result<(Sock, Vec<Sock>)> {
    use nix::libc::{SOL_SOCKET, SO_REUSEADDR};
    use nix::sys::socket::{bind, listen, Backlog, SockFlag, SockaddrStorage};
    let address: std::net::SocketAddr = BACKEND.parse()?;
    let full = Sock::new(address, SockFlag::empty())?;
    full.set(SOL_SOCKET, SO_REUSEADDR, 1)?;
    bind(full.raw(), &SockaddrStorage::from(address))?;
    listen(full.fd(), Backlog::new(1)?)?;
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let sock = Sock::new(address, SockFlag::SOCK_NONBLOCK)?;
        let _ = sock.connect(address);
        fillers.push(sock);
    }
    // Of a listener these are the length of the backlog and its limit (`tcp_get_info()` in net/ipv4/tcp.c).
    ctx.until("a full backlog", || {
        let info = full.tcp_info()?;
        Ok(info.tcpi_unacked > info.tcpi_sacked)
    })?;
    Ok((full, fillers))
}

fn connect_timeout(ctx: &mut Ctx) -> Result<()> {
    let _deaf = deaf_listener(ctx)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {connect_timeout: 500ms}\n",
    )?;
    let begin = std::time::Instant::now();
    let answer = ctx.open(vip)?.get("/")?;
    ensure!(
        answer.status() == 503 || answer.status() == 504,
        "{answer:?}"
    );
    ensure!(
        matches!(
            answer.field("x-xlb-reason"),
            Some("connect_failed" | "timeout")
        ),
        "{answer:?}"
    );
    let took = begin.elapsed();
    ensure!(
        took > Duration::from_millis(400) && took < ctx.secs(5),
        "after {took:?}"
    );
    // A body that does not fit meanwhile: the client is in write(), and must get out of it.
    let mut upload = ctx.open(vip)?;
    upload.request("POST", "/", "", &[b'x'; 300_000])?;
    upload.response("POST")?.expect_reply(504, "timeout")?;
    Ok(())
}

/// A forced unload wakes the p-sock before its connect is late: it must still be late in time.
fn connect_timeout_after_a_kick(ctx: &mut Ctx) -> Result<()> {
    let _deaf = deaf_listener(ctx)?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {connect_timeout: 2s}\n")?;
    let mut conn = ctx.open(vip)?;
    let begin = std::time::Instant::now();
    conn.request("GET", "/", "", b"")?;
    ctx.until("the connect", || Ok(xlb::counters()?.get("connects")? > 0))?;
    let mut unload = ctx.spawn("xlbctl", &["unload", "--force"])?;
    conn.response("GET")?.expect_reply(504, "timeout")?;
    let took = begin.elapsed();
    ensure!(took < ctx.secs(8), "after {took:?}");
    drop(conn);
    let code = unload.wait(ctx.secs(20))?;
    ensure!(code == Some(0), "xlbctl unload --force: {code:?}");
    Ok(())
}

/// One request, sent raw; the reply (if any), and whether the connection ended.
fn raw(ctx: &Ctx, bytes: &[u8]) -> Result<(Vec<u8>, bool)> {
    let mut conn = ctx.open(VIP4.parse()?)?;
    conn.send(bytes)?;
    conn.rest(ctx.secs(3))
}

fn malformed_requests(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    ctx.shop(&[BACKEND])?;
    for (request, status, reason) in [
        ("GET\r\n\r\n", 400, "bad_request"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nname : x\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, "bad_request"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n1", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n1", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n1", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "unsupported"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, "unsupported"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version"),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", 400, "bad_request"),
    ] {
        let (bytes, closed) = raw(ctx, request.as_bytes()).with_context(|| format!("{request:?}"))?;
        let text = lossy(&bytes).to_lowercase();
        ensure!(text.starts_with(&format!("http/1.1 {status} ")), "{request:?}: {text:?} instead of {status}");
        ensure!(text.contains(&format!("x-xlb-reason: {reason}\r\n")), "{request:?}: {text:?}");
        if status == 400 {
            ensure!(closed && text.contains("connection: close"), "{request:?}: not closed after {text:?}");
        }
    }
    // A bad chunk, after the request was sent on: no second answer, no reuse.
    let (bytes, closed) = raw(
        ctx,
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    )?;
    ensure!(
        closed,
        "a bad chunk leaves the connection open: {:?}",
        lossy(&bytes)
    );
    ensure!(find(&bytes, b" 200 ").is_none(), "{:?}", lossy(&bytes));
    let seen: Vec<String> = backend
        .requests()
        .iter()
        .map(|s| s.message.start.clone())
        .collect();
    ensure!(seen.is_empty(), "the backend saw {seen:?}");
    ensure!(
        reason_counted("bad_request")? >= 20,
        "bad_request is {}",
        reason_counted("bad_request")?
    );
    ctx.open(VIP4.parse()?)?.get("/")?.expect(200)?;
    Ok(())
}

fn malformed_responses(ctx: &mut Ctx) -> Result<()> {
    let answers: &[&[u8]] = &[
        b"HELLO\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"<html>not http</html>\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ];
    let server = Server::start(BACKEND, move |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let number: usize = request
                .path()
                .trim_start_matches('/')
                .parse()
                .unwrap_or(usize::MAX);
            conn.send(
                answers
                    .get(number)
                    .copied()
                    .unwrap_or(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            )?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for (number, answer) in answers.iter().enumerate() {
        let before = server.accepted();
        conn.get("/good")
            .with_context(|| format!("before {:?}", lossy(answer)))?
            .expect(200)?;
        let bad = conn
            .get(&format!("/{number}"))
            .with_context(|| lossy(answer))?;
        bad.expect_reply(502, "upstream_protocol")
            .with_context(|| format!("for {:?}", lossy(answer)))?;
        conn.get("/good")
            .context("the client's connection stays usable")?
            .expect(200)?;
        ensure!(
            server.accepted() > before,
            "{:?}: the connection was used again",
            lossy(answer)
        );
    }
    Ok(())
}

fn upstream_reset(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.head()? {
            match request.path() {
                "/close" => return Ok(()),
                "/reset" => return conn.reset(),
                "/half" => return conn.send("HTTP/1.1 200 OK\r\nContent-"),
                _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for path in ["/close", "/reset", "/half"] {
        let answer = conn.get(path).with_context(|| path.to_owned())?;
        answer
            .expect_reply(502, "upstream_reset")
            .with_context(|| path.to_owned())?;
        conn.get("/good")
            .with_context(|| format!("after {path}"))?
            .expect(200)?;
    }
    Ok(())
}

/// The head has gone to the client already: only the connection's end can say that the rest is missing.
fn half_a_response(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.head()? {
            let text = match request.path() {
                "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
                "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                "/nochunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "/badchunk" => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"
                }
                _ => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                    continue;
                }
            };
            conn.send(text)?;
            // Time for the head to go on.
            thread::sleep(Duration::from_millis(100));
            return Ok(());
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    for path in ["/length", "/chunk", "/nochunk", "/badchunk"] {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", path, "", b"")?;
        let whole: Result<Message> = conn.response("GET");
        if let Ok(message) = whole {
            // A protocol error may be seen before the head was passed on: then it is a 502.
            message
                .expect_reply(502, "upstream_protocol")
                .with_context(|| format!("{path} was taken as whole"))?;
        }
        ctx.open(vip)?
            .get("/good")
            .with_context(|| format!("after {path}"))?
            .expect(200)?;
    }
    Ok(())
}

fn head_limits(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    // 60 KiB of head are taken.
    let mut conn = ctx.open(vip)?;
    let fields: Vec<String> = (0..60)
        .map(|n| format!("X-{n}: {}\r\n", "v".repeat(1000)))
        .collect();
    let fields = fields.concat();
    conn.request("GET", "/large", &fields, b"")?;
    conn.response("GET")?.expect(200)?;
    // More is refused, whether it is one field, many, or the target.
    for head in [
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "v".repeat(200_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X-Y: z\r\n".repeat(20_000)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "p".repeat(200_000)),
        // And without an end.
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "v".repeat(200_000)),
    ] {
        let mut conn = ctx.open(vip)?;
        // The reply may come before all is written.
        let _ = conn.send(&head);
        let (bytes, _) = conn.rest(ctx.secs(3))?;
        let text = lossy(&bytes);
        ensure!(
            text.starts_with("HTTP/1.1 431 "),
            "{:?}...: {text:?}",
            lossy(head.as_bytes().get(..60).unwrap_or(&[]))
        );
        ensure!(
            text.to_lowercase().contains("x-xlb-reason: head_too_large"),
            "{text}"
        );
    }
    ensure!(backend.count() == 1, "{} requests", backend.count());
    Ok(())
}
