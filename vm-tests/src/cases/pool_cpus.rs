// SPDX-License-Identifier: GPL-2.0
//! Pools whose connections are kept for each CPU, used from two.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::backend;
use crate::ctx::{Ctx, Scenario};
use crate::http::{self, Conn};
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("pool/taken_from_another_cpu", taken_from_another_cpu),
    Scenario::xlb("pool/a_post_takes_the_freshest", a_post_takes_the_freshest),
    Scenario::xlb("pool/dies_on_either_cpu", dies_on_either_cpu),
    Scenario::xlb("pool/turns_between_cpus", turns_between_cpus).within(120),
    Scenario::xlb("pool/eight_endpoints_in_turn", eight_endpoints_in_turn),
];

const BACKEND: &str = "127.0.1.1:8001";

/// From now on this thread runs on one CPU.
pub fn run_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("two CPUs are needed")
}

fn post(conn: &mut Conn, path: &str) -> Result<()> {
    conn.request("POST", path, "", b"body")?;
    conn.response("POST")?.expect(200)?;
    Ok(())
}

/// Leaves `n` idle connections to the backend with this CPU.
fn leave_idle(ctx: &Ctx, vip: SocketAddr, cpu: usize, n: usize) -> Result<()> {
    run_on(cpu)?;
    let mut conns = Vec::new();
    for _ in 0..n {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/sleep/300", "", b"")?;
        conns.push(conn);
    }
    for conn in &mut conns {
        conn.response("GET")?.expect(200)?;
    }
    Ok(())
}

fn idle() -> Result<u64> {
    xlb::counters()?.get("isocks_idle")
}

fn taken_from_another_cpu(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    leave_idle(ctx, vip, 0, 3)?;
    ensure!(idle()? == 3, "{} idle", idle()?);
    // The other CPU has none of its own, and opens none while there are some.
    leave_idle(ctx, vip, 1, 3)?;
    ensure!(
        backend.accepted() == 3,
        "{} connections",
        backend.accepted()
    );
    leave_idle(ctx, vip, 1, 4)?;
    ensure!(
        backend.accepted() == 4,
        "{} connections",
        backend.accepted()
    );
    let pools = xlb::json(&["get", "pools"])?;
    ensure!(
        pools[0]["idle"] == 4 && pools[0]["created"] == 4 && pools[0]["reused"] == 6,
        "{pools}"
    );
    Ok(())
}

/// What cannot be sent again must not meet a connection that its server is about to close.
fn a_post_takes_the_freshest(ctx: &mut Ctx) -> Result<()> {
    // More than `FRESH_MS` of kmod/pool/stripe.rs.
    const AGE: Duration = Duration::from_millis(800);
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    // A CPU that never took a connection keeps none.
    run_on(1)?;
    ctx.open(vip)?.get("/")?.expect(200)?;
    run_on(0)?;
    let mut on_zero = ctx.open(vip)?;
    let mut on_one = ctx.open(vip)?;
    on_zero.request("GET", "/sleep/300", "", b"")?;
    on_one.request("GET", "/sleep/301", "", b"")?;
    on_zero.response("GET")?.expect(200)?;
    thread::sleep(AGE);
    run_on(1)?;
    on_one.response("GET")?.expect(200)?;
    run_on(0)?;
    // A GET has that of its CPU; it can be sent again.
    on_zero.get("/old")?.expect(200)?;
    thread::sleep(AGE);
    run_on(1)?;
    on_one.get("/fresh")?.expect(200)?;
    run_on(0)?;
    post(&mut on_zero, "/post")?;
    let of = |path: &str| {
        let requests = backend.requests();
        let found = requests.iter().find(|s| s.message.path() == path);
        found.map(|s| s.connection)
    };
    let fresh = of("/sleep/301");
    ensure!(of("/old") != fresh, "the GET took the other CPU's");
    ensure!(
        of("/fresh") == fresh && of("/post") == fresh,
        "fresh: {fresh:?}, POST: {:?}",
        of("/post")
    );
    Ok(())
}

fn dies_on_either_cpu(ctx: &mut Ctx) -> Result<()> {
    for cpu in [0, 1] {
        let mut backend = backend::python(ctx, BACKEND, "first")?;
        let vip = ctx.shop(&[BACKEND])?;
        leave_idle(ctx, vip, 0, 4)?;
        // Two of them are the other CPU's now.
        leave_idle(ctx, vip, 1, 2)?;
        ensure!(idle()? == 4, "{} idle", idle()?);
        // Their ends come in on this one.
        run_on(cpu)?;
        backend.proc.kill();
        ctx.until("no idle connection", || Ok(idle()? == 0))?;
        let _again = backend::python(ctx, BACKEND, "second")?;
        ctx.open(vip)?.get("/")?.expect(200)?;
    }
    Ok(())
}

/// One connection for many threads on two CPUs: a turn that got lost would hang one of them.
fn turns_between_cpus(ctx: &mut Ctx) -> Result<()> {
    const THREADS: usize = 12;
    const REQUESTS: usize = 60;
    let backend = Logging::start(BACKEND)?;
    for max in [1, 2, 3] {
        let more = format!("  pool: {{max: {max}, max_pending: 1000, pending_timeout: 0s}}\n");
        let vip = ctx.shop_with(&[BACKEND], "round_robin", &more)?;
        let limit = ctx.secs(20);
        let begin = Instant::now();
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                thread::spawn(move || -> Result<()> {
                    run_on(n % 2)?;
                    let mut conn = http::Conn::open(vip, limit)?;
                    for request in 0..REQUESTS {
                        if request % 16 == 15 {
                            run_on((n + request / 16) % 2)?;
                        }
                        conn.get("/")
                            .and_then(|answer| answer.expect(200).map(|_| ()))
                            .with_context(|| format!("client {n}, request {request}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        println!("max {max}: {:?}", begin.elapsed());
        let pending = xlb::counters()?.get("pending")?;
        ensure!(pending == 0, "{pending} still wait");
    }
    ensure!(
        backend.accepted() <= 3,
        "{} connections where three are allowed",
        backend.accepted()
    );
    Ok(())
}

/// A client of eight endpoints has eight pools, and looks none up.
fn eight_endpoints_in_turn(ctx: &mut Ctx) -> Result<()> {
    let addresses: Vec<String> = (1..=9).map(|n| format!("127.0.1.{n}:8001")).collect();
    let backends = addresses
        .iter()
        .map(|address| Logging::start(address))
        .collect::<Result<Vec<_>>>()?;
    // More than are remembered, too.
    for count in [8, 9] {
        let endpoints: Vec<&str> = addresses.iter().take(count).map(String::as_str).collect();
        let vip = ctx.shop(&endpoints)?;
        backends.iter().for_each(Logging::clear);
        let mut conn = ctx.open(vip)?;
        for _ in 0..5 * count {
            conn.get("/")?.expect(200)?;
        }
        for (backend, address) in backends.iter().zip(&endpoints) {
            ensure!(backend.count() == 5, "{address}: {}", backend.count());
        }
    }
    for (backend, address) in backends.iter().zip(&addresses) {
        ensure!(
            backend.accepted() == 1,
            "{address}: {} connections",
            backend.accepted()
        );
    }
    Ok(())
}
