// SPDX-License-Identifier: GPL-2.0
//! Who pays for the memory that the module holds, and who may ask about it.

use std::fs;

use anyhow::{ensure, Context, Result};

use crate::ctx::{Ctx, Scenario};
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("memory/heads_are_charged", heads_are_charged),
    Scenario::xlb("memory/full_cgroup_gets_errors", full_cgroup_gets_errors),
    Scenario::xlb(
        "memory/control_needs_capabilities",
        control_needs_capabilities,
    ),
];

const BACKEND: &str = "127.0.1.1:8001";
const ENOMEM: i64 = 12;
const ENOBUFS: i64 = 105;

/// Runs `peers/hold_heads.py`; growth while held, growth after, heads, errno, bytes of a head.
fn hold_heads(ctx: &mut Ctx, name: &str, count: u32, limit: &str) -> Result<[i64; 5]> {
    let vip = ctx.shop(&[BACKEND])?;
    let script = ctx.file("hold_heads.py", include_str!("../../peers/hold_heads.py"))?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("memory controller")?;
    let folder = format!("/sys/fs/cgroup/{name}");
    fs::create_dir_all(&folder)?;
    let script = script.display().to_string();
    let (vip, count) = (vip.to_string(), count.to_string());
    let out = ctx.run_ok("python3", &[&script, &folder, &vip, &count, limit])?;
    println!("{out}");
    let numbers: Vec<i64> = out
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    fs::remove_dir(&folder)?;
    numbers.try_into().ok().context("five numbers")
}

fn heads_are_charged(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let [held, left, taken, error, head] = hold_heads(ctx, "charged", 200, "max")?;
    ensure!(taken == 200 && error == 0, "{taken} heads, errno {error}");
    // Each with its p-sock and its socket.
    let wanted = taken * (head + 1064);
    ensure!(held >= wanted, "{held} bytes charged for {wanted}");
    ensure!(left < 1 << 20, "{left} bytes stayed");
    Ok(())
}

/// The full cgroup's client gets an error and is not killed; others go on.
fn full_cgroup_gets_errors(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let limit = 4 << 20;
    let [_, left, taken, error, head] = hold_heads(ctx, "full", 200, &limit.to_string())?;
    ensure!(
        [ENOMEM, ENOBUFS].contains(&error),
        "errno {error} after {taken} heads"
    );
    ensure!(
        taken * head <= limit,
        "{taken} heads of {head} bytes in {limit}"
    );
    ensure!(left < 1 << 20, "{left} bytes stayed");
    let vip = ctx.shop(&[BACKEND])?;
    ctx.open(vip)?.get("/")?.expect(200)?;
    Ok(())
}

fn control_needs_capabilities(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    ctx.open(vip)?.get("/")?.expect(200)?;
    let sockets = ["xlbctl", "get", "sockets"];
    ctx.run_ok(
        "setpriv",
        &[&["--bounding-set", "-sys_time"], &sockets[..]].concat(),
    )?;
    let out = ctx.run(
        "setpriv",
        &[&["--bounding-set", "-net_admin"], &sockets[..]].concat(),
    )?;
    println!("without CAP_NET_ADMIN: {}", out.all());
    ensure!(
        out.code != Some(0) && out.all().contains("not permitted"),
        "without CAP_NET_ADMIN: {}",
        out.all()
    );
    ensure!(xlb::counters()?.get("accepted")? == 1, "no counters");
    Ok(())
}
