// SPDX-License-Identifier: GPL-2.0
//! Slow and hostile peers: memory stays bounded, and other clients keep their latency.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{send, MsgFlags};

use crate::ctx::{Ctx, Scenario};
use crate::http::{find, lossy, Conn};
use crate::script::{Logging, Server};
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("hostile/slowloris_heads", slowloris_heads).within(90),
    Scenario::xlb("hostile/one_byte_chunks_up", one_byte_chunks_up).within(90),
    Scenario::xlb("hostile/one_byte_chunks_down", one_byte_chunks_down).within(90),
    Scenario::xlb(
        "hostile/mebibyte_of_response_headers",
        mebibyte_of_response_headers,
    ),
    Scenario::xlb(
        "hostile/endless_interim_responses",
        endless_interim_responses,
    ),
    Scenario::xlb("hostile/backend_answers_twice", backend_answers_twice),
    Scenario::xlb("hostile/backend_speaks_first", backend_speaks_first),
    Scenario::xlb(
        "hostile/bytes_on_an_idle_connection",
        bytes_on_an_idle_connection,
    ),
    Scenario::xlb("hostile/never_ending_response", never_ending_response).within(90),
    Scenario::xlb(
        "hostile/pipelined_without_reading",
        pipelined_without_reading,
    )
    .within(90),
    Scenario::xlb("hostile/urgent_bytes", urgent_bytes),
    Scenario::xlb("hostile/pages_changed_later", pages_changed_later),
    Scenario::xlb(
        "hostile/request_with_the_answer_of_another",
        request_with_the_answer_of_another,
    ),
];

const BACKEND: &str = "127.0.1.1:8001";
const GOOD: &str = "127.0.1.2:8001";

/// A service with a hostile backend behind `/bad` and a good one behind the rest.
fn good_and_bad(ctx: &mut Ctx, pool: &str) -> Result<SocketAddr> {
    let yaml = crate::ctx::shop_yaml(&[BACKEND], "round_robin", pool).replace(
        "  - cluster: items\n",
        "  - {match: {path: {prefix: /bad}}, cluster: items}\n  - cluster: good\n",
    ) + &format!("- {{name: good, lb: round_robin, endpoints: [\"{GOOD}\"]}}\n");
    ctx.apply(&yaml)?;
    Ok(crate::ctx::VIP4.parse()?)
}

/// The median time of a small GET, in microseconds.
fn latency(ctx: &Ctx, vip: SocketAddr) -> Result<u128> {
    let mut conn = ctx.open(vip)?;
    let mut times = Vec::new();
    for _ in 0..100 {
        let begin = Instant::now();
        conn.get("/good")?.expect(200)?;
        times.push(begin.elapsed().as_micros());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("times")
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

/// Fails when others got much slower, or memory is gone.
fn check_others(
    ctx: &Ctx,
    vip: SocketAddr,
    before_us: u128,
    memory_before: u64,
    allowed: u64,
) -> Result<()> {
    let now = latency(ctx, vip)?;
    println!("latency {before_us} -> {now} us");
    ensure!(
        now < before_us * 4 + 2000,
        "others' median latency went from {before_us} to {now} us"
    );
    let used = memory_before.saturating_sub(available()?);
    println!("memory used: {} KiB", used >> 10);
    ensure!(
        used < allowed,
        "{used} bytes of memory went, allowed are {allowed}"
    );
    Ok(())
}

/// A thousand clients that send a head byte by byte.
fn slowloris_heads(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let mut conn = ctx.open(vip)?;
        conn.send("GET /bad HTTP/1.1\r\nHost: a\r\nX-Slow: ")?;
        slow.push(conn);
    }
    for _ in 0..20 {
        for conn in &mut slow {
            conn.send("a")?;
        }
    }
    check_others(ctx, vip, before, memory, 64 << 20)?;
    ensure!(
        backend.count() == 0 && backend.accepted() == 0,
        "a connection was taken for half a head"
    );
    let counters = xlb::counters()?;
    println!(
        "{} bytes for each",
        counters.get("psock_bytes")? / counters.get("psocks")?
    );
    // One of them ends its head after all.
    let conn = slow.first_mut().context("slow")?;
    conn.send("\r\n\r\n")?;
    conn.response("GET")?.expect(200)?;
    Ok(())
}

fn one_byte_chunks_up(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut conn = ctx.open(vip)?;
    conn.send("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    // 100,000 chunks, some alone in their write.
    for round in 0..100 {
        conn.send("1\r\nx\r\n".repeat(990))?;
        for _ in 0..10 {
            conn.send("1\r\nx\r\n")?;
        }
        if round == 50 {
            check_others(ctx, vip, before, memory, 64 << 20)?;
        }
    }
    conn.send("0\r\n\r\n")?;
    conn.response("POST")?.expect(200)?;
    let body = backend.requests().first().map(|s| s.message.body.len());
    ensure!(body == Some(100_000), "{body:?}");
    Ok(())
}

fn one_byte_chunks_down(ctx: &mut Ctx) -> Result<()> {
    let written = Arc::new(AtomicUsize::new(0));
    let at_server = Arc::clone(&written);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..2000 {
                conn.send("1\r\nx\r\n")?;
                at_server.fetch_add(1, Ordering::Relaxed);
            }
            conn.send("1\r\nx\r\n".repeat(98_000))?;
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/bad", "", b"")?;
    ctx.until_still("chunks that wait", || Ok(written.load(Ordering::Relaxed)))?;
    check_others(ctx, vip, before, memory, 64 << 20)?;
    let body = conn.response("GET")?.body.len();
    ensure!(body == 100_000, "{body}");
    conn.get("/bad")?.expect(200)?;
    Ok(())
}

fn mebibyte_of_response_headers(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\n")?;
            for number in 0..1024 {
                conn.send(format!("X-{number}: {}\r\n", "h".repeat(1014)))?;
            }
            conn.send("Content-Length: 0\r\n\r\n")?;
        }
        Ok(())
    })?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut conns = Vec::new();
    for _ in 0..20 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/bad", "", b"")?;
        conns.push(conn);
    }
    for conn in &mut conns {
        conn.response("GET")?
            .expect_reply(502, "upstream_protocol")?;
        conn.get("/good")
            .context("the connection stays usable")?
            .expect(200)?;
    }
    check_others(ctx, vip, before, memory, 64 << 20)
}

fn endless_interim_responses(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.request_read()?;
        for _ in 0..200_000 {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".repeat(10))?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/", "", b"")?;
    // Either a 502 after some of them, or the end of the connection.
    if let Ok(answer) = conn.response("GET") {
        answer.expect_reply(502, "upstream_protocol")?;
        ensure!(
            answer.interim.len() < 10_000,
            "{} interim responses were passed on",
            answer.interim.len()
        );
    }
    Ok(())
}

/// Two responses to one request: the second belongs to nobody.
fn backend_answers_twice(ctx: &mut Ctx) -> Result<()> {
    let second_later = Arc::new(AtomicBool::new(false));
    let later = Arc::clone(&second_later);
    let _server = Server::start(BACKEND, move |mut conn, number| {
        while let Some(request) = conn.request_read()? {
            let path = request.path().to_owned();
            let text = format!("for {path}");
            let one = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let two =
                format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Conn: {number}\r\n\r\nPOISON");
            if later.load(Ordering::SeqCst) {
                conn.send(one)?;
                thread::sleep(Duration::from_millis(30));
                conn.send(two)?;
            } else {
                conn.send(one + &two)?;
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop_of_one_connection(BACKEND)?;
    for round in 0..40 {
        // Bytes that come once the next request is out cannot be told from its answer by anyone: a late second
        // response is waited for.
        let later = round % 8 == 7;
        second_later.store(later, Ordering::SeqCst);
        for client in ["a", "b"] {
            let before = if later {
                xlb::counters()?.get("desync")?
            } else {
                0
            };
            let path = format!("/{client}{round}");
            let mut conn = ctx.open(vip)?;
            let answer = conn.get(&path)?;
            // A request that met the poison on its way may fail; it may never get another's answer.
            if answer.status() == 200 {
                let text = answer.text();
                ensure!(text == format!("for {path}"), "{path} got {text:?}");
            } else {
                ensure!(answer.field("x-xlb-reason").is_some(), "{answer:?}");
            }
            let (more, _) = conn.rest(Duration::from_millis(5))?;
            ensure!(
                find(&more, b"POISON").is_none(),
                "{path}: a second response came through: {:?}",
                lossy(&more)
            );
            if later {
                ctx.until("the late response seen", || {
                    Ok(xlb::counters()?.get("desync")? > before)
                })?;
            }
        }
    }
    ensure!(xlb::counters()?.get("desync")? > 0, "no desync was counted");
    Ok(())
}

/// A backend that answers before it was asked. Its answers are one late from then on, and nobody can tell: what
/// counts is that each is an answer or an error, and that other backends' clients do not notice.
fn backend_speaks_first(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")?;
        while conn.request_read()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    })?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    for _ in 0..20 {
        let mut conn = ctx.open(vip)?;
        for _ in 0..3 {
            let answer = conn.get("/bad")?;
            let known = matches!(answer.text().as_str(), "ok" | "POISON");
            ensure!(answer.status() >= 500 || known, "{answer:?}");
            let good = conn.get("/good")?;
            ensure!(good.expect(200)?.text().ends_with("GET /good"), "{good:?}");
        }
    }
    Ok(())
}

fn bytes_on_an_idle_connection(ctx: &mut Ctx) -> Result<()> {
    // A response that nobody asked for comes once the answer was read.
    let (go, went) = mpsc::channel::<()>();
    let went = Mutex::new(went);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let text = request.path().to_owned();
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ))?;
            went.lock().unwrap_or_else(PoisonError::into_inner).recv()?;
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for round in 0..20 {
        let path = format!("/{round}");
        let answer = conn.get(&path)?;
        ensure!(answer.expect(200)?.text() == path, "{answer:?}");
        go.send(())?;
        ctx.until("the end of the connection", || {
            Ok(xlb::counters()?.get("desync")? > round)
        })
        .with_context(|| path)?;
    }
    Ok(())
}

/// Endless bodies to clients that do not read.
fn never_ending_response(ctx: &mut Ctx) -> Result<()> {
    const ALLOWED: usize = 200 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let at_server = Arc::clone(&written);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.request_read()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            conn.send([b'x'; 65536])?;
            at_server.fetch_add(65536, Ordering::Relaxed);
        }
    })?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut conns: Vec<Conn> = Vec::new();
    for _ in 0..10 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/bad", "", b"")?;
        conns.push(conn);
    }
    let held = ctx.until_still("an end of what is taken", || {
        let written = written.load(Ordering::Relaxed);
        ensure!(written < ALLOWED, "{written} bytes were taken");
        Ok(written)
    })?;
    println!("{} KiB were taken", held >> 10);
    check_others(ctx, vip, before, memory, ALLOWED as u64)?;
    drop(conns);
    ctx.until("all gone", || Ok(xlb::counters()?.get("psocks")? == 0))
}

/// A client that writes requests for ever and reads nothing.
fn pipelined_without_reading(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let _good = Logging::start(GOOD)?;
    let vip = good_and_bad(ctx, "")?;
    let (before, memory) = (latency(ctx, vip)?, available()?);
    let mut conn = ctx.open(vip)?;
    conn.stream
        .set_write_timeout(Some(Duration::from_secs(2)))?;
    let requests = "GET /bad HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let mut sent = 0;
    while sent < 200 << 20 && conn.send(&requests).is_ok() {
        sent += requests.len();
    }
    println!("{} KiB of requests were taken", sent >> 10);
    ensure!(sent < 64 << 20, "requests are queued without limit");
    check_others(ctx, vip, before, memory, 64 << 20)
}

/// Two clients in turn over one pooled connection, each with a marker: neither ever sees the other's.
fn request_with_the_answer_of_another(ctx: &mut Ctx) -> Result<()> {
    let _backend = crate::backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 2, max_pending: 1000, pending_timeout: 5m}\n",
    )?;
    let limit = ctx.secs(30);
    let threads: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || -> Result<()> {
                for round in 0..15 {
                    let mark = format!("client-{client}-round-{round}");
                    let mut conn = Conn::open(vip, limit)?;
                    let size = (client * 7919 + round * 104_729) % 70_000;
                    let body = format!("{mark} {}", "y".repeat(size));
                    conn.request(
                        "POST",
                        &format!("/mirror/{mark}"),
                        &format!("X-Mark: {mark}\r\n"),
                        body.as_bytes(),
                    )?;
                    if round % 4 == 3 {
                        continue; // goes away in the middle
                    }
                    let answer = conn.response("POST")?;
                    ensure!(
                        answer.body == body.as_bytes(),
                        "{mark} got {:?}",
                        lossy(&answer.body)
                    );
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client thread died"))??;
    }
    Ok(())
}

/// TCP's urgent byte is a byte of the stream: skipped, it would make a response of 15 bytes one of 5.
fn urgent_bytes(ctx: &mut Ctx) -> Result<()> {
    let _backend = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            for (bytes, flags) in [
                ("HTTP/1.1 200 OK\r\nContent-Length: ", MsgFlags::empty()),
                ("1", MsgFlags::MSG_OOB),
                (
                    "5\r\nKeep-Alive: x\r\n\r\nhello, 15 bytes",
                    MsgFlags::empty(),
                ),
            ] {
                send(conn.stream.as_raw_fd(), bytes.as_bytes(), flags)?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    for _ in 0..5 {
        let mut conn = ctx.open(vip)?;
        for _ in 0..2 {
            let answer = conn.get("/")?;
            ensure!(answer.text() == "hello, 15 bytes", "{answer:?}");
        }
    }
    Ok(())
}

/// A backend that gives its own pages to TCP, and changes them once they were framed.
fn pages_changed_later(ctx: &mut Ctx) -> Result<()> {
    const TRUE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const FALSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello";
    let (change, changes) = mpsc::channel::<()>();
    let (changed, seen) = mpsc::channel::<()>();
    let changes = Mutex::new((changes, changed));
    let _backend = Server::start(BACKEND, move |mut conn, _| {
        let pages = memfd_create(c"pages", MemFdCreateFlag::empty())?;
        let pages = std::fs::File::from(pages);
        while conn.request_read()?.is_some() {
            pages.write_all_at(TRUE, 0)?;
            let mut at = 0;
            sendfile(&conn.stream, &pages, Some(&mut at), TRUE.len())?;
            let channel = changes.lock().unwrap_or_else(PoisonError::into_inner);
            channel.0.recv()?;
            pages.write_all_at(FALSE, 0)?;
            channel.1.send(())?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    for _ in 0..3 {
        sock.send_all(b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
        ctx.until("the response", || {
            Ok(sock.recv(1000, MsgFlags::MSG_PEEK)? == TRUE)
        })?;
        change.send(())?;
        seen.recv()?;
        let whole = sock.recv(1000, MsgFlags::empty())?;
        ensure!(whole == TRUE, "{:?}", lossy(&whole));
    }
    Ok(())
}
