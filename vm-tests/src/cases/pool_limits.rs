// SPDX-License-Identifier: GPL-2.0
//! Pools that are full, limits that belong to one cluster, and how long a connection is good.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockFlag};
use serde_json::Value;

use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4};
use crate::script::{Gate, Logging, Server};
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("pool/pending_timeout", pending_timeout),
    Scenario::xlb(
        "pool/pending_timeout_by_default",
        pending_timeout_by_default,
    ),
    Scenario::xlb("pool/limits_of_each_cluster", limits_of_each_cluster),
    Scenario::xlb("pool/asks_its_own_holders", asks_its_own_holders),
    Scenario::xlb("pool/finds_who_can_let_go", finds_who_can_let_go),
    Scenario::xlb("pool/endpoint_says_how_long", endpoint_says_how_long),
    Scenario::xlb("pool/endpoint_keeps_nothing", endpoint_keeps_nothing),
    Scenario::xlb(
        "pool/poll_while_connections_die",
        poll_while_connections_die,
    ),
    Scenario::bare("pool/counts_beyond_32_bits", counts_beyond_32_bits),
];

const BACKEND: &str = "127.0.1.1:8001";
const OTHER: &str = "127.0.1.2:8001";

/// A cluster "items" for all, and "other" for what begins with `/sleep`.
fn two_clusters(items: &str, other: &str, other_endpoint: &str) -> String {
    let yaml = shop_yaml(&[BACKEND], "round_robin", items)
        + &format!(
            "- name: other\n  lb: round_robin\n  endpoints: [\"{other_endpoint}\"]\n{other}"
        );
    yaml.replace(
        "  - cluster: items\n",
        "  - {match: {path: {string_prefix: /sleep}}, cluster: other}\n  - cluster: items\n",
    )
}

/// A request waits so long and no longer for its turn; one that got it is left alone.
fn pending_timeout(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 10, pending_timeout: 700ms}\n",
    )?;
    let mut holder = ctx.open(vip)?;
    holder.request("GET", "/held", "", b"")?;
    ctx.until("the holder's request", || Ok(backend.count() == 1))?;
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for body in [&b""[..], b"posted", b""] {
        let mut conn = ctx.open(vip)?;
        conn.request(if body.is_empty() { "GET" } else { "POST" }, "/", "", body)?;
        waiting.push(conn);
    }
    for conn in &mut waiting {
        conn.response("GET")?.expect_reply(503, "pool_timeout")?;
        let waited = begin.elapsed();
        ensure!(
            waited > Duration::from_millis(600) && waited < ctx.secs(5) / 2,
            "pending_timeout: 700ms took {waited:?}"
        );
    }
    let counters = xlb::counters()?;
    ensure!(
        counters.get("pending")? == 0 && counters.reason("pool_timeout") == 3,
        "pending {}, timed out {}",
        counters.get("pending")?,
        counters.reason("pool_timeout")
    );
    backend.held.open();
    holder.response("GET")?.expect(200)?;
    for conn in &mut waiting {
        conn.get("/")
            .context("the connection stays usable")?
            .expect(200)?;
    }
    // The wait was short, the response takes longer than the time-out of the wait.
    let before = backend.count();
    holder.request("GET", "/sleep/300", "", b"")?;
    ctx.until("the holder's second request", || {
        Ok(backend.count() > before)
    })?;
    let conn = waiting.first_mut().context("one")?;
    conn.get("/sleep/1500")
        .context("a wait that ended in time")?
        .expect(200)?;
    holder.response("GET")?.expect(200)?;
    Ok(())
}

fn pending_timeout_by_default(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {max: 1}\n")?;
    let mut holder = ctx.open(vip)?;
    holder.request("GET", "/held", "", b"")?;
    ctx.until("the holder's request", || Ok(backend.count() == 1))?;
    let begin = Instant::now();
    ctx.open(vip)?.get("/")?.expect_reply(503, "pool_timeout")?;
    let waited = begin.elapsed();
    ensure!(
        waited > Duration::from_millis(4900) && waited < Duration::from_secs(5) + ctx.secs(3),
        "the default of 5 s took {waited:?}"
    );
    backend.held.open();
    holder.response("GET")?.expect(200)?;
    Ok(())
}

/// Two clusters have the same endpoint: neither counts, limits or ages the other's connections.
fn limits_of_each_cluster(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    ctx.apply(&two_clusters(
        "  pool: {max: 1, max_pending: 1, idle_timeout: 1s}\n",
        "  pool: {max: 3, idle_timeout: 60s}\n",
        BACKEND,
    ))?;
    let vip = VIP4.parse()?;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/sleep/held", "", b"")?;
        others.push(conn);
    }
    ctx.until("the others' requests", || Ok(backend.count() == 3))?;
    // Counted together, it would wait for them for ever.
    let mut item = ctx.open(vip)?;
    item.get("/")
        .context("max: 1, and none is used")?
        .expect(200)?;
    // Before the others are answered: an empty pool is forgotten after a while.
    let pools = xlb::json(&["get", "pools"])?;
    let mut seen: Vec<_> = pools
        .as_array()
        .context("a list")?
        .iter()
        .map(|pool| (pool["cluster"].as_str(), pool["created"].as_u64()))
        .collect();
    seen.sort_unstable();
    ensure!(
        seen == [(Some("items"), Some(1)), (Some("other"), Some(3))],
        "{pools:#}"
    );
    backend.held.open();
    for conn in &mut others {
        conn.response("GET")?.expect(200)?;
    }
    // The other cluster's limits came last: the first one's are still its own.
    ctx.until("the end of the item's idle connection", || {
        Ok(xlb::counters()?.get("isocks_idle")? == 3)
    })?;
    // The reaper looks once more, a second later.
    thread::sleep(Duration::from_millis(1500));
    let idle = xlb::counters()?.get("isocks_idle")?;
    ensure!(idle == 3, "{idle} idle connections with idle_timeout: 60s");
    Ok(())
}

/// How often the work of p-sockets ran meanwhile.
fn works(run: impl FnOnce() -> Result<()>) -> Result<usize> {
    const TRACING: &str = "/sys/kernel/tracing";
    let write = |file: &str, what: &str| {
        fs::write(format!("{TRACING}/{file}"), what).with_context(|| format!("write {file}"))
    };
    write("buffer_size_kb", "8192")?;
    write("trace", "")?;
    write("events/workqueue/workqueue_execute_start/enable", "1")?;
    let result = run();
    write("events/workqueue/workqueue_execute_start/enable", "0")?;
    let trace = fs::read_to_string(format!("{TRACING}/trace"))?;
    write("trace", "")?;
    result?;
    Ok(trace.lines().filter(|l| l.contains("psock_work")).count())
}

/// A full pool troubles nobody but those who hold its own connections.
fn asks_its_own_holders(ctx: &mut Ctx) -> Result<()> {
    const STRANGERS: usize = 40;
    const WAITING: usize = 30;
    let other = Logging::start(OTHER)?;
    let items = Logging::start(BACKEND)?;
    ctx.apply(&two_clusters(
        "  pool: {max: 1, max_pending: 100, pending_timeout: 1m}\n",
        "",
        OTHER,
    ))?;
    let vip = VIP4.parse()?;
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/sleep/held", "", b"")?;
        strangers.push(conn);
    }
    let mut holder = ctx.open(vip)?;
    holder.request("GET", "/held", "", b"")?;
    ctx.until("all that hold", || {
        Ok(items.count() == 1 && other.count() == STRANGERS)
    })?;
    let mut waiting = Vec::new();
    let ran = works(|| {
        for _ in 0..WAITING {
            let mut conn = ctx.open(vip)?;
            conn.request("GET", "/", "", b"")?;
            waiting.push(conn);
            // More than `ROUND_MS` of kmod/pool/mod.rs: each asks in a round of its own.
            thread::sleep(Duration::from_millis(15));
        }
        Ok(())
    })?;
    println!("{WAITING} requests that wait: the work of p-sockets ran {ran} times");
    ensure!(
        ran <= WAITING * 3,
        "{WAITING} requests that wait made {ran} p-sockets work"
    );
    items.held.open();
    other.held.open();
    holder.response("GET")?.expect(200)?;
    for conn in waiting.iter_mut().chain(&mut strangers) {
        conn.response("GET")?.expect(200)?;
    }
    Ok(())
}

/// Of all that hold a connection of a full pool one can let go: its response is in, and its client reads late.
fn finds_who_can_let_go(ctx: &mut Ctx) -> Result<()> {
    const STALLED: usize = 5;
    let stall = Gate::default();
    let at_server = stall.clone();
    let (answers, answered) = mpsc::channel();
    let _server = Server::start(BACKEND, move |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            match request.path() {
                "/stall" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nst")?;
                    at_server.pass();
                    conn.send("op")?;
                }
                "/none" => {
                    conn.send("HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=60\r\n\r\n")?;
                    answers.send(())?;
                }
                "/late" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                    answers.send(())?;
                }
                _ => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        &format!(
            "  pool: {{max: {}, max_pending: 10, pending_timeout: 1m}}\n",
            STALLED + 1
        ),
    )?;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/stall", "", b"")?;
        stalled.push(conn);
    }
    for path in ["/late", "/none", "/late", "/none"] {
        let mut late = ctx.open(vip)?;
        late.request("GET", path, "", b"")?;
        answered.recv_timeout(ctx.secs(20)).context("no answer")?;
        ctx.open(vip)?.get("/")?.expect(200)?;
        late.response("GET")?;
    }
    // None of these waited for the stalled ones.
    stall.open();
    for conn in &mut stalled {
        let answer = conn.response("GET")?;
        ensure!(answer.text() == "stop", "{:?}", answer.text());
    }
    Ok(())
}

/// A server that ends idle connections after `timeout=3` may not be sent a POST in its last second.
fn endpoint_says_how_long(ctx: &mut Ctx) -> Result<()> {
    let server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=3\r\n\
                 Content-Length: 2\r\n\r\nok",
            )?;
        }
        Ok(())
    })?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {min_idle: 1}\n")?;
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    let before = xlb::counters()?.get("reused")?;
    conn.get("/")?.expect(200)?;
    ensure!(
        xlb::counters()?.get("reused")? == before + 1,
        "not used again within its time"
    );
    thread::sleep(Duration::from_millis(2200));
    let before = xlb::counters()?.get("connects")?;
    let reused = xlb::counters()?.get("reused")?;
    conn.request("POST", "/pay", "", b"money")?;
    conn.response("POST")?.expect(200)?;
    let after = xlb::counters()?;
    // The one opened ahead was never told a time.
    ensure!(
        after.get("connects")? > before || after.get("reused")? == reused + 1,
        "neither new nor opened ahead"
    );
    ensure!(
        after.get("idle_expired")? >= 1,
        "a connection in its last second was kept"
    );
    ensure!(server.accepted() >= 2, "{} connections", server.accepted());
    Ok(())
}

/// Every form of the field: with one second or less there is no time to use the connection again.
fn endpoint_keeps_nothing(ctx: &mut Ctx) -> Result<()> {
    const FORMS: [(&str, bool); 12] = [
        ("Keep-Alive: timeout=1", false),
        ("keep-alive: timeout=0", false),
        ("Keep-Alive: TimeOut=1, max=100", false),
        ("Keep-Alive: max=100 , timeout = 1", false),
        ("Keep-Alive: timeout=\"1\"", false),
        ("Keep-Alive: max=5\r\nKeep-Alive: timeout=1", false),
        ("Keep-Alive: timeout=60", true),
        ("Keep-Alive: timeout=99999999999999999999999", true),
        ("Keep-Alive: timeout=", true),
        ("Keep-Alive: timeout=1x", true),
        ("Keep-Alive: xtimeout=1", true),
        ("X-Keep-Alive: timeout=1", true),
    ];
    let server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            let number = request.path().trim_start_matches('/').parse::<usize>()?;
            let (form, _) = FORMS.get(number).context("no such form")?;
            conn.send(format!(
                "HTTP/1.1 200 OK\r\n{form}\r\nContent-Length: 2\r\n\r\nok"
            ))?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for (number, (form, kept)) in FORMS.iter().enumerate() {
        conn.get(&format!("/{number}"))?.expect(200)?;
        let idle = xlb::counters()?.get("isocks_idle")?;
        ensure!(
            idle == u64::from(*kept),
            "{form}: {idle} idle, {} accepted",
            server.accepted()
        );
    }
    Ok(())
}

/// Threads poll for room in a connection that dies and is made anew under them, while other
/// sockets take the memory of the dead ones.
fn poll_while_connections_die(ctx: &mut Ctx) -> Result<()> {
    const BODY: usize = 4 << 20;
    let _server = Server::start(BACKEND, |mut conn, number| {
        conn.exactly(1000 + number % 7 * 60_000)?;
        if number % 2 == 0 {
            return conn.reset();
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let over = Arc::new(AtomicBool::new(false));
    let end = Instant::now() + Duration::from_secs(6);
    let stop = Arc::clone(&over);
    let churn = thread::spawn(move || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let _ = std::net::TcpStream::connect("127.0.1.9:9");
        }
        Ok(())
    });
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        let sock = Sock::open(vip)?;
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
        sock.send_all(head.as_bytes())?;
        let polls: Vec<_> = (0..2)
            .map(|_| {
                let sock = sock.dup()?;
                Ok(thread::spawn(move || -> Result<()> {
                    for _ in 0..400 {
                        sock.poll(PollFlags::POLLOUT, Duration::ZERO)?;
                    }
                    Ok(())
                }))
            })
            .collect::<Result<_>>()?;
        let piece = [b'x'; 16 << 10];
        for _ in 0..BODY / piece.len() {
            match sock.send_with(&piece, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => {
                    sock.poll(PollFlags::POLLOUT, Duration::from_secs(5))?;
                }
                Err(_) => break,
            }
            if polls.iter().all(thread::JoinHandle::is_finished) {
                break;
            }
        }
        for poll in polls {
            poll.join()
                .map_err(|_| anyhow::anyhow!("a thread died"))??;
        }
    }
    over.store(true, Ordering::Relaxed);
    churn
        .join()
        .map_err(|_| anyhow::anyhow!("a thread died"))??;
    println!("{rounds} connections died under poll(2)");
    ensure!(rounds > 3, "only {rounds} rounds");
    Ok(())
}

/// What counts requests, rounds of asking or changes of a pool goes on where 32 bits end.
fn counts_beyond_32_bits(ctx: &mut Ctx) -> Result<()> {
    const FROM: u64 = (1 << 32) - 6;
    let out = xlb::insmod(&[&format!("counts_from={FROM}")])?;
    ensure!(out.code == Some(0), "insmod: {}", out.all());
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max_requests: 0, max: 1}\n",
    )?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..20 {
        conn.get("/")?.expect(200)?;
    }
    let counters = xlb::counters()?;
    ensure!(
        counters.get("requests")? == FROM + 20
            && counters.get("connects")? == FROM + 1
            && counters.reason("ok") == FROM + 20,
        "requests {}, connects {}, ok {}",
        counters.get("requests")?,
        counters.get("connects")?,
        counters.reason("ok")
    );
    let sockets = xlb::json(&["get", "sockets"])?;
    ensure!(
        sockets.pointer("/0/requests").and_then(Value::as_u64) == Some(FROM + 20),
        "{sockets:#}"
    );
    // Who must wait for the only connection has its holder asked, in a round of its own.
    let slow = Sock::new(vip, SockFlag::empty())?;
    slow.connect(vip)?;
    for round in 0..12 {
        slow.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        slow.poll(PollFlags::POLLIN, ctx.secs(5))?;
        conn.get("/")
            .with_context(|| format!("round {round} of asking"))?
            .expect(200)?;
        slow.recv_until("200 OK")?;
        // More than `ROUND_MS` of kmod/pool/mod.rs.
        thread::sleep(Duration::from_millis(20));
    }
    drop(slow);
    ensure!(
        backend.accepted() == 1,
        "{} connections",
        backend.accepted()
    );
    // Each removal of the endpoint is a new generation of its pool, which stays for a request that runs.
    ctx.shop_with(&[BACKEND], "round_robin", "")?;
    let mut running = ctx.open(vip)?;
    running.request("GET", "/held", "", b"")?;
    ctx.until("the request that runs", || {
        Ok(backend
            .requests()
            .iter()
            .any(|r| r.message.path() == "/held"))
    })?;
    for round in 0..12 {
        ctx.shop_with(&[OTHER], "round_robin", "")?;
        ctx.shop_with(&[BACKEND], "round_robin", "")?;
        conn.get("/")
            .with_context(|| format!("round {round}"))?
            .expect(200)?;
        conn.get("/")?.expect(200)?;
    }
    let pools = xlb::json(&["get", "pools"])?;
    let pool = pools
        .as_array()
        .context("a list")?
        .iter()
        .find(|pool| pool["endpoint"] == BACKEND)
        .context("the pool")?;
    for count in ["created", "reused"] {
        ensure!(
            pool[count].as_u64().is_some_and(|n| n > 1 << 32),
            "{pools:#}"
        );
    }
    backend.held.open();
    running.response("GET")?.expect(200)?;
    drop((conn, running));
    ctx.run_ok("xlbctl", &["delete", "--all"])?;
    ctx.run_ok("xlbctl", &["unload"])?;
    let out = xlb::rmmod()?;
    ensure!(out.code == Some(0), "rmmod: {}", out.all());
    Ok(())
}
