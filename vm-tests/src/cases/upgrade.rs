// SPDX-License-Identifier: GPL-2.0
//! The loaded policy is replaced by another version's, with another layout of its maps, and by the first one again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};

use crate::ctx::{run_for, shop_yaml, Ctx, Output, Scenario, VIP4};
use crate::http::Conn;
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("upgrade/under_load", under_load).within(120),
    Scenario::xlb("upgrade/cut_off", cut_off).within(120),
];

/// This version's xlbctl, and one whose maps have another layout.
const THIS: &str = "xlbctl";
const NEXT: &str = "xlbctl-next";

const ENDPOINTS: [&str; 3] = ["127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"];

fn run(program: &str, args: &[&str]) -> Result<Output> {
    run_for(Duration::from_secs(300), program, args)
}

fn run_ok(program: &str, args: &[&str]) -> Result<String> {
    let out = run(program, args)?;
    ensure!(
        out.code == Some(0),
        "{program} {args:?}: {:?}\n{}",
        out.code,
        out.all()
    );
    Ok(out.stdout)
}

fn apply(ctx: &mut Ctx, program: &str, yaml: &str) -> Result<()> {
    let file = ctx.file("config.yaml", yaml)?.display().to_string();
    run_ok(program, &["apply", "-f", &file]).map(|_| ())
}

/// Clients that never stop asking, and want each answer.
struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(vip: SocketAddr, limit: Duration) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let client = |number: usize| {
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            thread::spawn(move || -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let mut conn = Conn::open(vip, limit)?;
                    for request in 0..20 {
                        if number % 2 == 0 {
                            conn.get("/")?.expect(200)?;
                        } else {
                            conn.request("POST", "/", "", b"body")?;
                            conn.response("POST")?.expect(200)?;
                        }
                        answers.fetch_add(1, Ordering::Relaxed);
                        if request % 5 == number % 5 {
                            sleep(Duration::from_millis(5));
                        }
                    }
                }
                Ok(())
            })
        };
        let clients = (0..6).map(client).collect();
        Self {
            over,
            answers,
            clients,
        }
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

/// Requests that the policy has counted for the service.
fn counted(program: &str) -> Result<u64> {
    let rows: serde_json::Value =
        serde_json::from_str(&run_ok(program, &["stats", "-o", "json"])?)?;
    let service = rows
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["kind"] == "service"));
    service
        .and_then(|row| row["requests"].as_u64())
        .with_context(|| format!("{rows}"))
}

fn backends() -> Result<Vec<Logging>> {
    ENDPOINTS.iter().map(|e| Logging::start(e)).collect()
}

/// To the other layout and back: no request fails, no socket is lost, counters go on, and each version is told what to do
/// about the other.
fn under_load(ctx: &mut Ctx) -> Result<()> {
    let backends = backends()?;
    let vip: SocketAddr = VIP4.parse()?;
    apply(ctx, THIS, &shop_yaml(&ENDPOINTS[..2], "least_request", ""))?;
    let mut idle = ctx.open(vip)?;
    idle.get("/")?.expect(200)?;
    let mut running = ctx.open(vip)?;
    running.request("GET", "/held", "", b"")?;
    let load = Load::start(vip, ctx.secs(20));
    ctx.until("load", || Ok(load.answers() > 50))?;

    for (program, other, endpoints) in [(NEXT, THIS, &ENDPOINTS[..]), (THIS, NEXT, &ENDPOINTS[1..])]
    {
        let before = load.answers();
        let said = run_ok(program, &["load"])?;
        ensure!(said.contains("replaced"), "{program} load: {said}");
        ensure!(load.answers() > before, "nothing was answered meanwhile");
        let said = run_ok(program, &["load"])?;
        ensure!(said.contains("already loaded"), "{program} load: {said}");
        run_ok(program, &["status"])?;
        let refused = run(other, &["get", "routes"])?;
        ensure!(
            refused.code == Some(1) && refused.stderr.contains("run xlbctl load"),
            "{other}: {:?} {}",
            refused.code,
            refused.all()
        );
        let requests = counted(program)?;
        ensure!(
            requests > before as u64 / 2,
            "counters began again: {requests}"
        );
        // What is applied now is applied to the maps that serve.
        apply(ctx, program, &shop_yaml(endpoints, "least_request", ""))?;
        let last = backends.last().context("one")?;
        last.clear();
        ctx.until("requests to the new endpoint", || Ok(last.count() > 0))?;
        idle.get("/")?.expect(200)?;
    }
    for backend in &backends {
        backend.held.open();
    }
    running.response("GET")?.expect(200)?;
    let answers = load.answers();
    load.end()?;
    println!("{answers} answers");
    Ok(())
}

/// Killed at any moment, it leaves what serves; the next apply puts all in order.
fn cut_off(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    let vip: SocketAddr = VIP4.parse()?;
    apply(ctx, THIS, &shop_yaml(&ENDPOINTS, "round_robin", ""))?;
    let begin = Instant::now();
    run_ok(NEXT, &["load"])?;
    let whole = begin.elapsed();
    let load = Load::start(vip, ctx.secs(20));
    for eighth in 1..=8 {
        // One is loaded whole, the other is killed on its way.
        let (loaded, other) = if eighth % 2 == 0 {
            (THIS, NEXT)
        } else {
            (NEXT, THIS)
        };
        run_ok(loaded, &["load"])?;
        let mut child = ctx.spawn(other, &["load"])?;
        sleep(whole * eighth / 8);
        child.kill();
        let mut conn = ctx.open(vip)?;
        conn.get("/")
            .with_context(|| format!("killed after {eighth} of 8"))?
            .expect(200)?;
        run_ok(other, &["load"])?;
        apply(ctx, other, &shop_yaml(&ENDPOINTS[..2], "round_robin", ""))?;
        apply(ctx, other, &shop_yaml(&ENDPOINTS, "round_robin", ""))?;
        run_ok(other, &["status"])?;
        conn.get("/")?.expect(200)?;
    }
    run_ok(THIS, &["load"])?;
    load.end()?;
    xlb::json(&["status"])?;
    Ok(())
}
