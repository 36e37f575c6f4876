// SPDX-License-Identifier: GPL-2.0
//! The storm: many clients do whatever programs do to sockets, while backends die and return, configurations change,
//! cgroups and network namespaces come and go, and the module is taken away and brought back.
//!
//! | file | what |
//! |---|---|
//! | `ask.rs` | one request, how its answer is known to be its own, which replies of XLB's are allowed |
//! | `world.rs` | what all share: the weather, which errors are allowed, how often what happened |
//! | `chance.rs` | all that is drawn, from the seed, the actor and the step |
//! | `clients.rs`, `operations.rs`, `pipe.rs` | clients, what they do, how they read and write |
//! | `backends.rs` | answers of all kinds, and deaths |
//! | `documents.rs`, `operators.rs` | configurations; apply, get, unload, insmod |
//! | `visitors.rs` | clients in cgroups and namespaces of their own |
//!
//! The judgement: a response that comes whole is the client's own, byte for byte, from a backend that its route leads
//! to; or XLB's reply, or an errno, of a short list; nothing takes long. While it is calm every operation succeeds.
//! `XLB_SEED=n` draws the same operations again, `XLB_STORM=seconds` says how long.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};

use crate::ctx::{Ctx, Scenario};
use crate::xlb;
use backends::Backend;
use world::{Tally, World};

mod ask;
mod backends;
mod chance;
mod clients;
mod documents;
mod operations;
mod operators;
mod pipe;
mod visitors;
mod world;

pub const SCENARIOS: &[Scenario] = &[Scenario::xlb("storm/all", all).within(300).lasting(seconds)];

/// On a plain emulated machine; a slower one has fewer, so that backends and operators get on, too.
const CLIENTS: u32 = 30;
const FEWEST_CLIENTS: u32 = 6;

/// Of a machine with a debug kernel, and how long a storm must be there to have seen all, in seconds.
const SLOW: u32 = 2;
const LONG_S: u64 = 1800;

/// How long one operation may take on a plain emulated machine.
const BOUND_S: u64 = 30;

const STORM: Duration = Duration::from_secs(12);
const CALM: Duration = Duration::from_secs(3);

/// How long the storm is on a machine of this scale, without what comes before and after.
fn seconds(scale: u32) -> u64 {
    let wanted = std::env::var("XLB_STORM").ok();
    let wanted = wanted.and_then(|text| text.parse().ok());
    wanted.unwrap_or(60 * u64::from(scale))
}

/// Hundreds of threads that come and go are to cost the machine little: no huge pages for their stacks and heaps, few
/// heaps, and what was freed is kept.
fn save_memory() {
    use nix::libc;
    // SAFETY: settings of this process alone, before it has other threads.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        libc::mallopt(libc::M_ARENA_MAX, 4);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

fn all(ctx: &mut Ctx) -> Result<()> {
    save_memory();
    let seed = crate::ctx::seed()?;
    let seconds = seconds(ctx.scale);
    println!("XLB_STORM={seconds}");
    ctx.apply(&documents::whole())?;
    let world = Arc::new(World::new(seed, seconds, ctx.secs(BOUND_S), ctx.scale));
    for number in 1..=ask::BACKENDS {
        Backend::start(&world, number)?;
    }
    let mut threads = operators::start(&world, &ctx.dir)?;
    for actor in 0..(CLIENTS / ctx.scale).max(FEWEST_CLIENTS) {
        threads.push(clients::start(&world, actor)?);
    }
    threads.extend(visitors::start(&world)?);
    let calms = world.make_weather(world.slowly(STORM), world.slowly(CALM));
    for thread in threads {
        let name = thread.thread().name().unwrap_or("").to_owned();
        let ended = thread.join();
        ended.map_err(|_| anyhow!("XLB_SEED={seed}: {name} panicked"))?;
    }
    let tally = world.tally();
    for (kind, outcomes) in &tally {
        let outcomes: Vec<_> = outcomes.iter().map(|(o, n)| format!("{o} {n}")).collect();
        println!("{kind}: {}", outcomes.join(", "));
    }
    println!("{calms} calms");
    let failures = world.failures();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    quiet(ctx).with_context(|| format!("XLB_SEED={seed}: after the storm"))?;
    // On a slow machine to load the module's policy takes minutes: a short storm has then hardly begun.
    if ctx.scale > SLOW && seconds < LONG_S {
        println!("too short for this machine to have seen all");
        return Ok(());
    }
    enough(&tally, calms).with_context(|| format!("XLB_SEED={seed}"))
}

/// Nothing is left of it.
fn quiet(ctx: &Ctx) -> Result<()> {
    let is = |name: &'static str| move || Ok(xlb::counters()?.get(name)? == 0);
    ctx.until("no p-socket", is("psocks"))?;
    ctx.until("no request that waits", is("pending"))?;
    let out = xlb::xlbctl(&["delete", "--all"])?;
    ensure!(out.code == Some(0), "xlbctl delete --all: {}", out.all());
    for name in [
        "isocks",
        "isocks_idle",
        "pools",
        "identities",
        "psock_bytes",
        "isock_bytes",
    ] {
        ctx.until(name, is(name))?;
    }
    Ok(())
}

/// A storm in which nothing happened shows nothing.
fn enough(tally: &Tally, calms: u64) -> Result<()> {
    let count = |kind: &str, outcome: &str| {
        let outcomes = tally.get(kind);
        outcomes.and_then(|o| o.get(outcome)).copied().unwrap_or(0)
    };
    ensure!(calms > 0, "it never was calm");
    let good = |weather: &str, operation: &operations::Operation| {
        let kind = format!("{weather} {operation:?}");
        count(&kind, "answered") + count(&kind, "done")
    };
    let mut in_calm = 0;
    for (_, operation) in &operations::OPERATIONS {
        in_calm += good("calm", operation);
        let all = good("calm", operation) + good("storm", operation) + good("reload", operation);
        ensure!(all > 0, "{operation:?}: none succeeded");
    }
    ensure!(in_calm > 0, "none succeeded while it was calm");
    let gets = tally.get("storm Get").context("no GET")?;
    // Configurations without endpoints are drawn, too, and on a slow machine few are.
    let could = gets.values().sum::<u64>() - count("storm Get", "no_endpoint");
    let good = count("storm Get", "answered");
    ensure!(
        good * 2 >= could,
        "{good} of {could} GETs were answered in the storm"
    );
    for (kind, outcome) in [
        ("a backend", "died"),
        ("xlbctl apply", "applied"),
        ("rmmod", "done"),
        ("a cgroup", "came and went"),
        ("a namespace", "came and went"),
    ] {
        ensure!(count(kind, outcome) > 0, "{kind}: never {outcome}");
    }
    Ok(())
}
