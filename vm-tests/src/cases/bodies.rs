// SPDX-License-Identifier: GPL-2.0
//! Message bodies: every size, every framing, both directions, and the responses that have none.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{mpsc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::backend::{self, Echo};
use crate::ctx::{Ctx, Scenario};
use crate::http::{crc, lossy, pattern, Conn};
use crate::script::Server;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("bodies/python_sizes", |ctx| sizes(ctx, backend::python)).within(120),
    Scenario::http("bodies/node_sizes", |ctx| sizes(ctx, backend::node)).within(120),
    Scenario::http("bodies/nginx_files", nginx_files).within(120),
    Scenario::http("bodies/hundred_mib_up", hundred_mib_up).within(240),
    Scenario::http("bodies/hundred_mib_down", hundred_mib_down).within(240),
    Scenario::http("bodies/one_gib_both_ways", one_gib_both_ways).within(300),
    Scenario::http("bodies/python_kinds", |ctx| kinds(ctx, backend::python)),
    Scenario::http("bodies/node_kinds", |ctx| kinds(ctx, backend::node)),
    Scenario::http("bodies/both_directions", both_directions).within(120),
    Scenario::http("bodies/early_response", early_response),
    Scenario::http("bodies/expect_continue", expect_continue),
    Scenario::http("bodies/ended_by_close", ended_by_close),
    Scenario::http("bodies/http_1_0_client", http_1_0_client),
    Scenario::http("bodies/http_1_0_to_the_backend", http_1_0_to_the_backend),
    Scenario::http("bodies/slow_reader", slow_reader).within(120),
    Scenario::http("bodies/upgrade_tunnel", upgrade_tunnel),
    Scenario::xlb("bodies/tunnel_half_closed", tunnel_half_closed),
    Scenario::http("bodies/response_in_pieces", response_in_pieces),
    Scenario::http("bodies/no_body_statuses", no_body_statuses),
];

const BACKEND: &str = "127.0.1.1:8001";

type Start = fn(&mut Ctx, &str, &str) -> Result<backend::Backend>;

/// Both framings, both directions, on one keep-alive connection.
fn sizes(ctx: &mut Ctx, start: Start) -> Result<()> {
    let _backend = start(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for size in [0usize, 1, 4095, 4096, 65_535, 65_536, 1_000_003] {
        let body = pattern(size, size as u64);
        conn.request(
            "POST",
            "/echo/length",
            if size == 0 {
                "Content-Length: 0\r\n"
            } else {
                ""
            },
            &body,
        )?;
        check_echo(&mut conn, &body).with_context(|| format!("POST {size}"))?;
        send_chunked(&mut conn, "/echo/chunked", &body, 10_007)?;
        check_echo(&mut conn, &body).with_context(|| format!("chunked POST {size}"))?;
        for query in ["", "?chunked"] {
            let answer = conn.get(&format!("/bytes/{size}{query}"))?;
            check_bytes(&answer, size).with_context(|| format!("GET {size}{query}"))?;
        }
    }
    Ok(())
}

fn send_chunked(conn: &mut Conn, path: &str, body: &[u8], chunk: usize) -> Result<()> {
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for piece in body.chunks(chunk) {
        write!(bytes, "{:x}\r\n", piece.len())?;
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    conn.send(bytes)
}

fn check_echo(conn: &mut Conn, body: &[u8]) -> Result<Echo> {
    let echo = Echo::parse(&conn.response("POST")?.expect(200)?.body)?;
    ensure!(
        echo.length == body.len() as u64 && echo.crc == crc(body),
        "the backend got {} bytes with CRC {:08x}, sent were {} with {:08x}",
        echo.length,
        echo.crc,
        body.len(),
        crc(body)
    );
    Ok(echo)
}

fn check_bytes(answer: &crate::http::Message, size: usize) -> Result<()> {
    answer.expect(200)?;
    let said: u32 = answer.field("x-crc").context("x-crc")?.parse()?;
    ensure!(
        answer.body.len() == size && crc(&answer.body) == said,
        "{} bytes with CRC {:08x}, sent were {size} with {said:08x}",
        answer.body.len(),
        crc(&answer.body)
    );
    Ok(())
}

fn nginx_files(ctx: &mut Ctx) -> Result<()> {
    let nginx = backend::nginx(ctx, BACKEND, "b1")?;
    std::fs::create_dir_all(backend::nginx_files(&nginx))?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for size in [0usize, 1, 4095, 65_536, 5_000_001] {
        let body = pattern(size, 11 + size as u64);
        conn.request(
            "PUT",
            &format!("/files/f{size}"),
            if size == 0 {
                "Content-Length: 0\r\n"
            } else {
                ""
            },
            &body,
        )?;
        conn.response("PUT")?.expect(201)?;
        let stored = std::fs::read(backend::nginx_files(&nginx).join(format!("f{size}")))?;
        ensure!(stored == body, "stored file of {size} differs");
        ensure!(
            conn.get(&format!("/files/f{size}"))?.expect(200)?.body == body,
            "file of {size} differs"
        );
        conn.request("HEAD", &format!("/files/f{size}"), "", b"")?;
        let head = conn.response("HEAD")?;
        ensure!(
            head.field("content-length") == Some(size.to_string().as_str()),
            "HEAD {:?}",
            head.fields
        );
        conn.request(
            "GET",
            &format!("/files/f{size}"),
            "Range: bytes=0-0\r\n",
            b"",
        )?;
        let part = conn.response("GET")?;
        ensure!(
            size == 0 || part.status() == 206 && part.body.len() == 1,
            "range: {:?}",
            part.start
        );
    }
    Ok(())
}

const BIG: usize = 100 << 20;

/// curl uploads from a file to Python, with a length and chunked.
fn hundred_mib_up(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let body = pattern(BIG, 1);
    let file = ctx.path("big");
    std::fs::write(&file, &body)?;
    let (upload, url) = (file.display().to_string(), format!("{}/echo", ctx.url(vip)));
    for more in ["X-Length: known", "Transfer-Encoding: chunked"] {
        let limit = ctx.secs(100);
        let out = crate::ctx::run_for(
            limit,
            "curl",
            &["-sS", "-T", &upload, "-H", more, "-H", "Expect:", &url],
        )?;
        ensure!(out.code == Some(0), "curl: {}", out.all());
        let echo = Echo::parse(out.stdout.as_bytes())?;
        ensure!(
            echo.length == BIG as u64 && echo.crc == crc(&body),
            "{more}: {} bytes, CRC {:08x}",
            echo.length,
            echo.crc
        );
    }
    Ok(())
}

fn hundred_mib_down(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    for query in ["", "?chunked"] {
        let (file, heads) = (ctx.path("down"), ctx.path("heads"));
        let (file_name, heads_name) = (file.display().to_string(), heads.display().to_string());
        let url = format!("{}/bytes/{BIG}{query}", ctx.url(vip));
        let limit = ctx.secs(100);
        let out = crate::ctx::run_for(
            limit,
            "curl",
            &["-sS", "-o", &file_name, "-D", &heads_name, &url],
        )?;
        ensure!(out.code == Some(0), "curl: {}", out.all());
        let heads = std::fs::read_to_string(&heads)?;
        let said = heads
            .lines()
            .find_map(|l| l.strip_prefix("x-crc: "))
            .context("x-crc")?
            .trim()
            .parse::<u32>()?;
        let body = std::fs::read(&file)?;
        ensure!(
            body.len() == BIG && crc(&body) == said,
            "{query}: {} bytes, CRC {:08x}, wanted {said:08x}",
            body.len(),
            crc(&body)
        );
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

/// A GiB up and a GiB down at once; memory stays bounded.
fn one_gib_both_ways(ctx: &mut Ctx) -> Result<()> {
    const BLOCKS: usize = 1024;
    const LENGTH: usize = BLOCKS << 20;
    let block = std::sync::Arc::new(pattern(1 << 20, 12));
    let copy = std::sync::Arc::clone(&block);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.head()?;
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))?;
        let mut writer = conn.stream.try_clone()?;
        let down = std::sync::Arc::clone(&copy);
        let writing = thread::spawn(move || (0..BLOCKS).all(|_| writer.write_all(&down).is_ok()));
        for number in 0..BLOCKS {
            // A difference ends the connection, which the client notices.
            ensure!(conn.exactly(1 << 20)? == *copy, "block {number}");
        }
        ensure!(writing.join().unwrap_or(false), "writing");
        conn.request_read().map(drop)
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let free = available()?;
    let mut conn = ctx.open(vip)?;
    let mut writer = conn.stream.try_clone()?;
    let up = std::sync::Arc::clone(&block);
    let writing = thread::spawn(move || -> Result<()> {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        for number in 0..BLOCKS {
            writer
                .write_all(&up)
                .with_context(|| format!("writing block {number}"))?;
        }
        Ok(())
    });
    ensure!(conn.head()?.context("closed")?.status() == 200, "status");
    for number in 0..BLOCKS {
        let got = conn
            .exactly(1 << 20)
            .with_context(|| format!("reading block {number}"))?;
        ensure!(got == *block, "block {number} differs");
        if number % 128 == 64 {
            let used = free.saturating_sub(available()?);
            ensure!(used < 200 << 20, "{used} bytes of memory are used for it");
        }
    }
    writing.join().map_err(|_| anyhow::anyhow!("writer"))?
}

/// Free memory of the machine, in bytes.
fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find(|l| l.starts_with("MemAvailable:"))
        .context("MemAvailable")?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .context("MemAvailable")?
        .parse()?;
    Ok(kib << 10)
}

/// Responses of every kind, and the connection goes on after each.
fn kinds(ctx: &mut Ctx, start: Start) -> Result<()> {
    let _backend = start(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for status in [204, 304] {
        conn.get(&format!("/status/{status}"))?.expect(status)?;
    }
    conn.request("HEAD", "/bytes/5000", "", b"")?;
    let head = conn.response("HEAD")?;
    ensure!(
        head.expect(200)?.field("content-length") == Some("5000"),
        "{:?}",
        head.fields
    );
    let hints = conn.get("/interim")?;
    ensure!(hints.expect(200)?.text() == "final", "{}", hints.text());
    ensure!(
        hints.interim.len() == 2 && hints.interim.iter().all(|s| s.contains(" 103")),
        "{:?}",
        hints.interim
    );
    let trailers = conn.get("/trailers")?;
    ensure!(
        trailers.expect(200)?.text() == "hello world",
        "{}",
        trailers.text()
    );
    ensure!(
        trailers
            .trailers
            .iter()
            .any(|(n, v)| n == "x-sum" && v == "42"),
        "{:?}",
        trailers.trailers
    );
    for method in ["OPTIONS", "DELETE", "PATCH", "TRACE"] {
        conn.request(method, "/echo", "", b"")?;
        let answer = conn.response(method)?;
        // A server may refuse TRACE; what matters is that the method arrives.
        ensure!(
            method == "TRACE" || Echo::parse(&answer.expect(200)?.body)?.method == method,
            "{method}"
        );
    }
    // Fields arrive as they were sent, repeated ones too, in order.
    conn.request(
        "GET",
        "/echo/a%20b?q=1&r=%2f",
        "X-One: 1\r\nX-Two: a\r\nx-two: b\r\nCookie: s=1; t=2\r\n",
        b"",
    )?;
    let echo = Echo::parse(&conn.response("GET")?.body)?;
    ensure!(echo.path == "/echo/a%20b?q=1&r=%2f", "path {}", echo.path);
    let twos: Vec<_> = echo
        .headers
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case("x-two"))
        .map(|(_, v)| v.as_str())
        .collect();
    ensure!(twos == ["a", "b"], "{:?}", echo.headers);
    ensure!(
        echo.headers
            .iter()
            .any(|(n, v)| n == "Cookie" && v == "s=1; t=2"),
        "{:?}",
        echo.headers
    );
    ensure!(echo.backend == "b1", "{}", echo.backend);
    Ok(())
}

/// The body comes back while it goes up: neither side may wait for the other's end.
fn both_directions(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 20 << 20;
    let _python = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    let body = pattern(LENGTH, 4);
    let mut writer = conn.stream.try_clone()?;
    let copy = body.clone();
    let thread = thread::spawn(move || -> Result<()> {
        writer.write_all(
            format!("POST /mirror HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")
                .as_bytes(),
        )?;
        writer.write_all(&copy)?;
        Ok(())
    });
    let answer = conn.response("POST")?;
    thread.join().map_err(|_| anyhow::anyhow!("writer"))??;
    ensure!(
        answer.body == body,
        "the mirror gave {} bytes",
        answer.body.len()
    );
    conn.get("/echo").context("the next request")?.expect(200)?;
    Ok(())
}

/// The answer comes before the body was read; the connection stays usable when the rest is sent.
fn early_response(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    let body = pattern(300_000, 5);
    conn.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")?;
    conn.send(body.get(..1000).unwrap_or(&[]))?;
    let answer = conn
        .response("POST")
        .context("the answer before the body")?;
    ensure!(answer.expect(200)?.text() == "early", "{}", answer.text());
    conn.send(body.get(1000..).unwrap_or(&[]))?;
    conn.request("POST", "/echo", "", &body)?;
    check_echo(&mut conn, &body).context("the request after it")?;
    // A client that gives up instead leaves nothing behind.
    let mut conn = ctx.open(vip)?;
    conn.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\nabc")?;
    conn.response("POST")?.expect(200)?;
    drop(conn);
    let mut conn = ctx.open(vip)?;
    conn.request("POST", "/echo", "", &body)?;
    check_echo(&mut conn, &body).context("another client")?;
    Ok(())
}

fn expect_continue(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for round in 0..3 {
        conn.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )?;
        let interim = conn.head()?.context("closed")?;
        ensure!(
            interim.status() == 100,
            "round {round}: {:?}",
            interim.start
        );
        conn.send("hello")?;
        let echo = check_echo(&mut conn, b"hello")?;
        ensure!(echo.body == "hello", "{}", echo.body);
    }
    // A client that does not wait.
    conn.send(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    )?;
    check_echo(&mut conn, b"hello")?;
    // curl waits for the 100 when the body is large.
    let file = ctx.path("upload");
    let body = pattern(2 << 20, 6);
    std::fs::write(&file, &body)?;
    let out = ctx.run_ok(
        "curl",
        &[
            "-sS",
            "--expect100-timeout",
            "30",
            "-H",
            "Expect: 100-continue",
            "-T",
            &file.display().to_string(),
            &format!("{}/echo", ctx.url(vip)),
        ],
    )?;
    let echo = Echo::parse(out.as_bytes())?;
    ensure!(echo.crc == crc(&body), "curl's body differs");
    Ok(())
}

fn ended_by_close(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    for path in ["/bytes/0?close", "/bytes/70000?close"] {
        let mut conn = ctx.open(vip)?;
        conn.get("/echo")?.expect(200)?;
        let answer = conn.get(path)?;
        let size = if path.contains("70000") { 70_000 } else { 0 };
        check_bytes(&answer, size).context(path)?;
        conn.expect_eof()?;
    }
    let mut conn = ctx.open(vip)?;
    let old = conn.get("/http10")?;
    ensure!(old.expect(200)?.text() == "old", "{}", old.text());
    // A backend that dies in a body with a length: the client must see that it is not whole.
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/abort/50000", "", b"")?;
    let error = conn
        .response("GET")
        .err()
        .context("half a response was taken as a whole one")?;
    println!("abort: {error:#}");
    ctx.open(vip)?.get("/echo")?.expect(200)?;
    Ok(())
}

fn http_1_0_client(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.send("GET /echo HTTP/1.0\r\n\r\n")?;
    let answer = conn.response("GET")?;
    answer.expect(200)?;
    conn.expect_eof()
        .context("HTTP/1.0 without keep-alive ends")?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..3 {
        conn.send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
        conn.response("GET")?.expect(200)?;
    }
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/echo", "Connection: close\r\n", b"")?;
    conn.response("GET")?.expect(200)?;
    conn.expect_eof().context("Connection: close ends")?;
    Ok(())
}

/// A server closes after a request of HTTP/1.0, with or without a word, unless it says that it does not (RFC 9112,
/// section 9.3): who comes next must not meet that end.
fn http_1_0_to_the_backend(ctx: &mut Ctx) -> Result<()> {
    let server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let old = request.start.ends_with("HTTP/1.0");
            let keeps = request.path() == "/keep";
            let field = if keeps {
                "Connection: keep-alive\r\n"
            } else {
                ""
            };
            conn.send(format!(
                "HTTP/1.1 200 OK\r\n{field}Content-Length: 2\r\n\r\nok"
            ))?;
            if old && !keeps {
                // What comes meanwhile is not answered.
                std::thread::sleep(std::time::Duration::from_millis(300));
                break;
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    for (field, path, stays) in [
        ("", "/", false),
        ("Connection: keep-alive\r\n", "/", false),
        ("Connection: keep-alive\r\n", "/keep", true),
    ] {
        let what = format!("{field:?} {path}");
        let mut conn = ctx.open(vip)?;
        conn.send(format!("GET {path} HTTP/1.0\r\n{field}\r\n"))?;
        let answer = conn.response("GET")?;
        answer.expect(200).context(what.clone())?;
        let kept = answer.field("connection") == Some("keep-alive");
        ensure!(kept != field.is_empty(), "{what}: {:?}", answer.fields);
        let before = server.accepted();
        let mut other = ctx.open(vip)?;
        other.request("POST", "/", "", b"what cannot be sent twice")?;
        other.response("POST")?.expect(200).context(what.clone())?;
        ensure!((server.accepted() == before) == stays, "{what}");
    }
    Ok(())
}

/// A client that does not read must stop the backend, not fill the kernel.
fn slow_reader(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 64 << 20;
    let (sender, sent) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.request_read()?;
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))?;
        let body = pattern(LENGTH, 8);
        for piece in body.chunks(65536) {
            conn.send(piece)?;
            if let Ok(sender) = sender.lock() {
                let _ = sender.send(piece.len());
            }
        }
        Ok(())
    })?;
    let vip: SocketAddr = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/", "", b"")?;
    let mut unread = 0;
    ctx.until_still("an end of what is taken", || {
        unread += sent.try_iter().sum::<usize>();
        Ok(unread)
    })?;
    println!(
        "{} KiB were sent to a client that does not read",
        unread >> 10
    );
    ensure!(
        unread < 24 << 20,
        "{unread} bytes were taken for a client that does not read"
    );
    // Then it reads, in a strange rhythm.
    let head = conn.head()?.context("head")?;
    ensure!(head.status() == 200, "{}", head.start);
    let mut body = Vec::with_capacity(LENGTH);
    while body.len() < LENGTH {
        let take = (LENGTH - body.len()).min(if body.len() < 100_000 { 999 } else { 1 << 20 });
        body.extend(conn.exactly(take)?);
        if body.len() % 7 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    ensure!(body == pattern(LENGTH, 8), "body differs");
    Ok(())
}

/// 101 turns the connection into a tunnel until one side ends it.
fn upgrade_tunnel(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        let request = conn.head()?.context("closed")?;
        ensure!(
            request.field("upgrade") == Some("websocket"),
            "{:?}",
            request.fields
        );
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")?;
        loop {
            let line = conn.exactly(6)?;
            conn.send(&line)?;
            if line == b"bye...".to_vec() {
                return Ok(());
            }
        }
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    let answer = conn.head()?.context("closed")?;
    ensure!(answer.status() == 101, "{:?}", answer.start);
    ensure!(
        conn.exactly(6)? == b"hello ",
        "the first bytes of the tunnel"
    );
    for text in ["GET / ", "\0\x01\x02\r\n\r", "bye..."] {
        conn.send(text)?;
        ensure!(conn.exactly(6)? == text.as_bytes(), "{text:?}");
    }
    conn.expect_eof().context("after the backend's end")
}

/// A client that has ended its side of a tunnel, while others wait for the connection: the endpoint sees the end once, and
/// no CPU is busy with it.
fn tunnel_half_closed(ctx: &mut Ctx) -> Result<()> {
    let patience = ctx.secs(20);
    let (ended, end) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let sides = Mutex::new((ended, wait));
    let _server = Server::start(BACKEND, move |mut conn, number| {
        conn.head()?;
        if number > 0 {
            return conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let sides = sides.lock().unwrap_or_else(PoisonError::into_inner);
        sides.0.send(conn.rest(patience)?)?;
        sides.1.recv_timeout(patience)?;
        conn.send("last words")
    })?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 4, pending_timeout: 5m}\n",
    )?;
    let mut conn = ctx.open(vip)?;
    conn.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(
        conn.head()?.context("closed")?.status() == 101,
        "the tunnel"
    );
    conn.send("all of it")?;
    conn.shutdown_write()?;
    let seen = end.recv_timeout(patience)?;
    ensure!(seen == (b"all of it".to_vec(), true), "{seen:?}");
    let mut waits = ctx.open(vip)?;
    waits.request("GET", "/", "", b"")?;
    ctx.until("another that waits", || {
        Ok(xlb::counters()?.get("pending")? == 1)
    })?;
    let before = system_ticks()?;
    thread::sleep(Duration::from_secs(1));
    let busy = system_ticks()? - before;
    ensure!(
        busy < 60,
        "the kernel ran for {busy} of 100 ticks of one CPU"
    );
    go_on.send(())?;
    ensure!(conn.exactly(10)? == b"last words", "the endpoint's side");
    conn.expect_eof().context("after the backend's end")?;
    waits.response("GET")?.expect(200)?;
    Ok(())
}

/// Time that the CPUs have spent in the kernel, in hundredths of a second.
fn system_ticks() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = stat.split_whitespace().nth(3).context("/proc/stat")?;
    Ok(ticks.parse()?)
}

/// A response that trickles, with every kind of boundary inside a packet of its own.
fn response_in_pieces(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx-t: 1\r\n\r\n" {
                conn.send([*byte])?;
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..3 {
        let answer = conn.get("/")?;
        ensure!(answer.text() == "hello!", "{:?}", lossy(&answer.body));
        ensure!(
            answer.field("x-a") == Some("1") && answer.trailers.len() == 1,
            "{answer:?}"
        );
    }
    Ok(())
}

/// 204 and 304 end with their head whatever their fields promise; HEAD likewise.
fn no_body_statuses(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let text = match (request.method(), request.path()) {
                ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                (_, "/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
                (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            conn.send(text)?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..3 {
        conn.get("/304")?.expect(304)?;
        conn.get("/204")?.expect(204)?;
        conn.request("HEAD", "/", "", b"")?;
        let head = conn.response("HEAD")?;
        ensure!(head.field("content-length") == Some("99"), "{head:?}");
        ensure!(
            conn.get("/")?.text() == "ok",
            "the body after bodiless responses"
        );
    }
    Ok(())
}
