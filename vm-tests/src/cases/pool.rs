// SPDX-License-Identifier: GPL-2.0
//! Connections to endpoints: reuse, limits, and what happens when one is dead.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use nix::libc::SYS_sendto;
use nix::unistd::gettid;

use super::pool_cpus::run_on;
use crate::caller::waits_in;
use crate::ctx::{Ctx, Scenario};
use crate::http::pattern;
use crate::script::{Gate, Logging, Server};
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb(
        "pool/one_connection_for_many_requests",
        one_connection_for_many_requests,
    ),
    Scenario::xlb("pool/last_in_first_out", last_in_first_out),
    Scenario::xlb("pool/max_and_pending", max_and_pending),
    Scenario::xlb(
        "pool/pending_does_not_block_others",
        pending_does_not_block_others,
    ),
    Scenario::xlb("pool/large_upload_after_a_wait", large_upload_after_a_wait),
    Scenario::xlb(
        "pool/opened_late_in_the_clients_cgroup",
        opened_late_in_the_clients_cgroup,
    ),
    Scenario::xlb("pool/min_idle", min_idle),
    Scenario::xlb("pool/idle_timeout", idle_timeout),
    Scenario::xlb("pool/max_requests", max_requests),
    Scenario::xlb(
        "pool/backend_restarts_between_requests",
        backend_restarts_between_requests,
    ),
    Scenario::xlb(
        "pool/dead_connection_is_replayed_once",
        dead_connection_is_replayed_once,
    ),
    Scenario::xlb("pool/post_is_not_replayed", post_is_not_replayed),
    Scenario::xlb("pool/close_by_the_backend", close_by_the_backend),
    Scenario::xlb("pool/separate_for_each_cgroup", separate_for_each_cgroup),
    Scenario::xlb(
        "pool/client_gone_closes_its_connection",
        client_gone_closes_its_connection,
    ),
];

const BACKEND: &str = "127.0.1.1:8001";

fn one_connection_for_many_requests(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    for _ in 0..20 {
        let mut conn = ctx.open(vip)?;
        for _ in 0..5 {
            conn.get("/")?.expect(200)?;
        }
    }
    ensure!(
        backend.accepted() == 1,
        "{} connections for clients in turn",
        backend.accepted()
    );
    let counters = xlb::counters()?;
    ensure!(
        counters.get("requests")? == 100 && counters.get("reused")? == 99,
        "requests {}, reused {}",
        counters.get("requests")?,
        counters.get("reused")?
    );
    ensure!(
        counters.get("isocks_idle")? == 1,
        "idle {}",
        counters.get("isocks_idle")?
    );
    let pools = xlb::json(&["get", "pools"])?;
    ensure!(pools.to_string().contains("8001"), "{pools}");
    Ok(())
}

fn last_in_first_out(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    // The order is that of one CPU.
    run_on(0)?;
    // Three connections, given back one after the other.
    let mut conns = Vec::new();
    for ms in [100, 400, 700] {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", &format!("/sleep/{ms}"), "", b"")?;
        conns.push(conn);
    }
    for conn in &mut conns {
        conn.response("GET")?.expect(200)?;
    }
    ensure!(
        backend.accepted() == 3,
        "{} connections for three at once",
        backend.accepted()
    );
    let last = backend
        .requests()
        .iter()
        .find(|s| s.message.path() == "/sleep/700")
        .map(|s| s.connection);
    backend.clear();
    for _ in 0..5 {
        ctx.open(vip)?.get("/")?.expect(200)?;
        // A request that cannot be sent twice, too, has the connection that was good last.
        let mut conn = ctx.open(vip)?;
        conn.request("POST", "/", "", b"body")?;
        conn.response("POST")?.expect(200)?;
    }
    let used: Vec<usize> = backend.requests().iter().map(|s| s.connection).collect();
    ensure!(
        used.iter().all(|c| Some(*c) == last),
        "last given back: {last:?}; used: {used:?}"
    );
    Ok(())
}

fn max_and_pending(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 2, max_pending: 3, pending_timeout: 5m}\n",
    )?;
    let mut conns = Vec::new();
    for _ in 0..5 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/held", "", b"")?;
        conns.push(conn);
    }
    let pending = |n| move || Ok(xlb::counters()?.get("pending")? == n);
    ctx.until("three pending requests", pending(3))?;
    let mut above = ctx.open(vip)?;
    above
        .get("/")
        .context("one too many")?
        .expect_reply(503, "pool_overflow")?;
    backend.held.open();
    for conn in &mut conns {
        conn.response("GET").context("one of five")?.expect(200)?;
    }
    ensure!(
        backend.accepted() == 2,
        "{} connections with max: 2",
        backend.accepted()
    );
    above
        .get("/")
        .context("the refused connection is still usable")?
        .expect(200)?;
    ensure!(xlb::counters()?.get("pending")? == 0, "pending stays");
    // A client that gives up while it waits leaves the queue.
    backend.held.close();
    let mut conns = Vec::new();
    for _ in 0..5 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/held", "", b"")?;
        conns.push(conn);
    }
    ctx.until("three pending requests", pending(3))?;
    conns.truncate(2);
    ctx.until("no pending request", pending(0))?;
    backend.held.open();
    ctx.open(vip)?
        .get("/")
        .context("after clients that gave up")?
        .expect(200)?;
    Ok(())
}

/// A request that waits for a full pool holds up neither other sockets nor a non-blocking writer.
fn pending_does_not_block_others(ctx: &mut Ctx) -> Result<()> {
    let slow = Logging::start(BACKEND)?;
    let _other = Logging::start("127.0.1.2:8001")?;
    let yaml = crate::ctx::shop_yaml(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 100, pending_timeout: 5m}\n",
    ) + "- {name: other, lb: round_robin, endpoints: [\"127.0.1.2:8001\"]}\n";
    ctx.apply(&yaml.replace(
        "  - cluster: items\n",
        "  - {match: {path: {prefix: /other}}, cluster: other}\n  - cluster: items\n",
    ))?;
    let vip = crate::ctx::VIP4.parse()?;
    let mut holder = ctx.open(vip)?;
    holder.request("GET", "/held", "", b"")?;
    ctx.until("the holder's request", || Ok(slow.count() == 1))?;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut conn = ctx.open(vip)?;
        conn.stream.set_nonblocking(true)?;
        conn.request("GET", "/", "", b"")
            .context("a non-blocking write of a request that has to wait")?;
        conn.stream.set_nonblocking(false)?;
        waiting.push(conn);
    }
    let mut other = ctx.open(vip)?;
    for _ in 0..20 {
        other.get("/other")?.expect(200)?;
    }
    slow.held.open();
    holder.response("GET")?.expect(200)?;
    for conn in &mut waiting {
        conn.response("GET")?.expect(200)?;
    }
    Ok(())
}

fn min_idle(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {min_idle: 5, max: 20}\n",
    )?;
    ctx.open(vip)?.get("/")?.expect(200)?;
    ctx.until("five idle connections", || {
        Ok(xlb::counters()?.get("isocks_idle")? >= 5)
    })?;
    // Time for more than are wanted.
    thread::sleep(Duration::from_millis(300));
    ensure!(
        backend.open() <= 7,
        "{} connections for min_idle: 5",
        backend.open()
    );
    Ok(())
}

fn idle_timeout(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {idle_timeout: 1s}\n")?;
    ctx.open(vip)?.get("/")?.expect(200)?;
    thread::sleep(Duration::from_millis(200));
    ensure!(backend.open() == 1, "closed at once");
    ctx.until("the idle connection's end", || Ok(backend.open() == 0))?;
    let counters = xlb::counters()?;
    ensure!(
        counters.get("isocks")? == 0 && counters.get("idle_expired")? == 1,
        "isocks {} expired {}",
        counters.get("isocks")?,
        counters.get("idle_expired")?
    );
    ctx.open(vip)?.get("/")?.expect(200)?;
    Ok(())
}

fn max_requests(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {max_requests: 10}\n")?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..95 {
        conn.get("/")?.expect(200)?;
    }
    ensure!(
        backend.accepted() == 10,
        "{} connections for 95 requests, 10 each",
        backend.accepted()
    );
    Ok(())
}

/// The backend goes away and comes back while connections to it are idle: no request may notice.
fn backend_restarts_between_requests(ctx: &mut Ctx) -> Result<()> {
    let vip = ctx.shop(&[BACKEND])?;
    let mut backend = crate::backend::python(ctx, BACKEND, "b1")?;
    let mut conns = Vec::new();
    for _ in 0..5 {
        conns.push(ctx.open(vip)?);
    }
    for round in 0..4 {
        for conn in &mut conns {
            conn.get("/sleep/20")
                .with_context(|| format!("round {round}"))?
                .expect(200)?;
        }
        backend.proc.kill();
        backend = crate::backend::python(ctx, BACKEND, "b1")?;
    }
    for conn in &mut conns {
        conn.get("/")?.expect(200)?;
    }
    let counters = xlb::counters()?;
    ensure!(
        counters.get("idle_closed")? > 0,
        "no idle connection was seen closed"
    );
    Ok(())
}

/// The backend accepts a request on an old connection and closes without a byte of an answer: the race that
/// cannot be seen beforehand. An idempotent request goes out again, once.
fn dead_connection_is_replayed_once(ctx: &mut Ctx) -> Result<()> {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        // One good answer, then the second request of each connection is dropped.
        while let Some(request) = conn.request_read()? {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            if request.path() == "/drop" && number > 0 {
                return Ok(());
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            if conn.request_read()?.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.get("/first")?.expect(200)?;
    conn.get("/second")
        .context("a GET that met a dying connection")?
        .expect(200)?;
    ensure!(
        seen.load(Ordering::SeqCst) == 3,
        "the backend saw {} requests",
        seen.load(Ordering::SeqCst)
    );
    ensure!(
        xlb::counters()?.get("replayed")? == 1,
        "replayed {}",
        xlb::counters()?.get("replayed")?
    );
    // A fresh connection that closes without an answer is no dead pooled connection: no second try.
    let before = seen.load(Ordering::SeqCst);
    let mut fresh = ctx.open(vip)?;
    let answer = fresh.get("/drop")?;
    answer.expect_reply(502, "upstream_reset")?;
    ensure!(
        seen.load(Ordering::SeqCst) <= before + 2,
        "tried {} times",
        seen.load(Ordering::SeqCst) - before
    );
    Ok(())
}

fn post_is_not_replayed(ctx: &mut Ctx) -> Result<()> {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.request_read()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        if conn.request_read()?.is_some() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    conn.request("POST", "/pay", "", b"money")?;
    conn.response("POST")?.expect_reply(502, "upstream_reset")?;
    ensure!(
        seen.load(Ordering::SeqCst) == 1,
        "the POST was sent {} times",
        seen.load(Ordering::SeqCst)
    );
    conn.get("/")
        .context("the connection stays usable")?
        .expect(200)?;
    Ok(())
}

/// `Connection: close` from the backend ends its connection, not the client's.
fn close_by_the_backend(ctx: &mut Ctx) -> Result<()> {
    let server = Server::start(BACKEND, |mut conn, _| {
        conn.request_read()?;
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    for _ in 0..5 {
        let answer = conn.get("/")?;
        answer.expect(200)?;
        let connection = answer.field("connection").unwrap_or("");
        ensure!(
            !connection.eq_ignore_ascii_case("close"),
            "the backend's Connection: close was passed on"
        );
    }
    ensure!(server.accepted() == 5, "{} connections", server.accepted());
    ctx.until("no connection left", || {
        Ok(xlb::counters()?.get("isocks")? == 0)
    })
}

fn separate_for_each_cgroup(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = own.trim().rsplit(':').next().context("cgroup")?.to_owned();
    let url = format!("{}/", ctx.url(vip));
    for name in ["a", "b", "a"] {
        let folder = format!("/sys/fs/cgroup{own}/{name}");
        std::fs::create_dir_all(&folder)?;
        ctx.run_ok(
            "sh",
            &[
                "-c",
                &format!("echo $$ > {folder}/cgroup.procs && exec curl -sS {url}"),
            ],
        )?;
    }
    let used: Vec<usize> = backend.requests().iter().map(|s| s.connection).collect();
    ensure!(
        used == [0, 1, 0],
        "connections used by cgroups a, b, a: {used:?}"
    );
    Ok(())
}

/// What finds no room while a request waits for its turn is taken once the connection is there.
fn large_upload_after_a_wait(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 4, pending_timeout: 5m}\n",
    )?;
    let body = pattern(300_000, 3);
    for round in 0..3 {
        backend.clear();
        let mut first = ctx.open(vip)?;
        first.request("GET", "/held", "", b"")?;
        ctx.until("the first request", || Ok(backend.count() == 1))?;
        let mut upload = ctx.open(vip)?;
        let writer = gettid();
        let (written, waited) = thread::scope(|scope| {
            let opener = scope.spawn(|| {
                let waited = ctx.until("the upload waits", || {
                    Ok(waits_in(writer, SYS_sendto)? && xlb::counters()?.get("pending")? == 1)
                });
                backend.held.open();
                waited
            });
            let written = upload.request("POST", "/up", "", &body);
            (written, opener.join())
        });
        written.with_context(|| format!("round {round}"))?;
        waited.map_err(|_| anyhow!("a thread died"))??;
        backend.held.close();
        first.response("GET")?.expect(200)?;
        upload.response("POST")?.expect(200)?;
        let seen = backend.requests();
        ensure!(
            seen.len() == 2 && seen.iter().any(|s| s.message.body == body),
            "{} requests",
            seen.len()
        );
    }
    Ok(())
}

/// A connection that the p-sock's work opens belongs to the client's cgroup, as one that the client opens itself.
fn opened_late_in_the_clients_cgroup(ctx: &mut Ctx) -> Result<()> {
    // The second answer waits for a look at its connection.
    let (looked, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let patience = ctx.secs(30);
    let first_ends = Gate::default();
    let at_server = first_ends.clone();
    let _backend = Server::start(BACKEND, move |mut conn, number| {
        conn.request_read()?;
        if number == 0 {
            at_server.pass();
        } else {
            let wait = wait.lock().unwrap_or_else(PoisonError::into_inner);
            wait.recv_timeout(patience)?;
        }
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    })?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 4, pending_timeout: 5m}\n",
    )?;
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = own.trim().rsplit(':').next().context("cgroup")?;
    let mut first = ctx.open(vip)?;
    first.request("GET", "/first", "", b"")?;
    // Waits in the queue; its connection is opened when the first one's has ended.
    let mut second = ctx.open(vip)?;
    second.request("GET", "/second", "", b"")?;
    ctx.until("the second request waits", || {
        Ok(xlb::counters()?.get("pending")? == 1)
    })?;
    first_ends.open();
    first.response("GET")?.expect(200)?;
    let wanted = format!("cgroup:{own}");
    ctx.until("the second connection", || {
        let all = ctx.run_ok(
            "ss",
            &["-tnH", "--cgroup", "state", "established", "dst", BACKEND],
        )?;
        ensure!(
            all.lines().all(|line| line.contains(&wanted)),
            "not all in {own}:\n{all}"
        );
        Ok(!all.is_empty())
    })?;
    looked.send(())?;
    second.response("GET")?.expect(200)?;
    Ok(())
}

/// A connection whose client went away in mid-response is closed: its rest must not reach the next client.
fn client_gone_closes_its_connection(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 10, pending_timeout: 5m}\n",
    )?;
    for round in 0..10 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", &format!("/sleep/{}", round * 20), "", b"")?;
        thread::sleep(Duration::from_millis(round * 15));
        drop(conn);
        let mut next = ctx.open(vip)?;
        let answer = next.get("/mine")?;
        ensure!(
            answer.text().ends_with("GET /mine"),
            "round {round}: {:?}",
            answer.text()
        );
    }
    ensure!(
        backend.accepted() > 1,
        "the connection of a client that went away was used again"
    );
    Ok(())
}
