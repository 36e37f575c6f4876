// SPDX-License-Identifier: GPL-2.0
//! BPF programs of the client's cgroup: they are asked for its connections as they are for its sockets.

use std::net::SocketAddr;

use anyhow::{anyhow, ensure, Context, Result};

use crate::bpf::{self, Cgroup};
use crate::cases::identity::{backend, once, BACKEND};
use crate::ctx::{Ctx, Scenario};
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("identity/cgroup_sock_create", sock_create),
    Scenario::xlb("identity/cgroup_connect", connect),
    Scenario::xlb("identity/cgroup_connect_user", connect_user),
    Scenario::xlb("identity/cgroup_bind", bind),
    Scenario::xlb("identity/cgroup_egress", egress),
    Scenario::xlb("identity/cgroup_sock_ops", sock_ops),
];

const OTHER: &str = "127.0.1.2:8001";

/// A GET by a new process in the cgroup: the status, 0 without a response; and `x-xlb-reason`.
fn curl(ctx: &Ctx, cgroup: &Cgroup, to: SocketAddr, more: &str) -> Result<(u16, String)> {
    let line = format!(
        "echo $$ > {}/cgroup.procs && exec curl -s -m 5 -o /dev/null \
         -w '%{{http_code}} %header{{x-xlb-reason}}' {more} {}/",
        cgroup.path().display(),
        ctx.url(to)
    );
    let out = ctx.run("sh", &["-c", &line])?.stdout;
    let (code, reason) = out.split_once(' ').context("curl")?;
    Ok((code.parse()?, reason.trim().to_owned()))
}

/// Moves this process into the cgroup; what this returns moves it back.
struct Inside(String);

impl Inside {
    fn of(cgroup: &Cgroup) -> Result<Self> {
        let path = cgroup.path();
        let above = path.parent().context("a parent")?.display().to_string();
        std::fs::write(path.join("cgroup.procs"), "0")?;
        Ok(Self(above))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = std::fs::write(format!("{}/cgroup.procs", self.0), "0");
    }
}

/// A socket that was there before the rule: it makes no new connection.
fn sock_create(ctx: &mut Ctx) -> Result<()> {
    let _backends = [backend(BACKEND)?, backend(OTHER)?];
    let cgroup = Cgroup::new("ruled")?;
    let vip = ctx.shop_with(
        &[BACKEND, OTHER],
        "round_robin",
        "  pool: {max_requests: 1}\n",
    )?;
    let sock = {
        let _inside = Inside::of(&cgroup)?;
        Sock::open(vip)?
    };
    once(&sock).map_err(|e| anyhow!("without a rule: {e}"))?;
    {
        let _rule = cgroup.attach(bpf::SOCK_CREATE, &bpf::deny())?;
        let refused = once(&sock);
        ensure!(
            refused.as_ref().is_err_and(|e| e.contains("not_permitted")),
            "the rule does not hold: {refused:?}"
        );
        let (code, _) = curl(ctx, &cgroup, BACKEND.parse()?, "")?;
        ensure!(code == 0, "directly the rule does not hold: {code}");
    }
    once(&sock).map_err(|e| anyhow!("after the rule: {e}"))?;
    // As many ends as beginnings.
    let (made, gone) = (bpf::counter()?, bpf::counter()?);
    let _made = cgroup.attach(bpf::SOCK_CREATE, &bpf::count(&made))?;
    let _gone = cgroup.attach(bpf::SOCK_RELEASE, &bpf::count(&gone))?;
    for _ in 0..3 {
        once(&sock).map_err(|e| anyhow!("counted: {e}"))?;
    }
    ctx.until("three sockets made and gone", || {
        Ok((bpf::counted(&made)?, bpf::counted(&gone)?) == (3, 3))
    })
    .with_context(|| {
        format!(
            "{:?} made, {:?} gone",
            bpf::counted(&made),
            bpf::counted(&gone)
        )
    })
}

fn connect(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let cgroup = Cgroup::new("ruled")?;
    let vip = ctx.shop(&[BACKEND])?;
    ensure!(curl(ctx, &cgroup, vip, "")?.0 == 200, "without a rule");
    // The connection that is idle now was made before the rule: not for who comes after it.
    let _rule = cgroup.attach(bpf::CONNECT4, &bpf::deny_port(8001))?;
    ensure!(curl(ctx, &cgroup, BACKEND.parse()?, "")?.0 == 0, "directly");
    let (code, reason) = curl(ctx, &cgroup, vip, "")?;
    ensure!(
        code == 503 && reason == "not_permitted",
        "through XLB: {code} {reason}"
    );
    Ok(())
}

/// A program that asks who connects gets the answer that it gets of the client, also where a worker connects.
fn connect_user(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let cgroup = Cgroup::new("ruled")?;
    // One connection for one request: whoever waits gets the right to open one, and a worker does.
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_requests: 1, max_pending: 100, pending_timeout: 1m}\n",
    )?;
    // Not root, which workers are.
    let _rule = cgroup.attach(bpf::CONNECT4, &bpf::deny_user(0))?;
    let line = format!(
        "echo $$ > {}/cgroup.procs && exec setpriv --reuid 1000 --regid 1000 --clear-groups \
         curl -s -m 20 --parallel --parallel-immediate -w '%{{http_code}} %header{{x-xlb-reason}}\\n' \
         -o /dev/null '{}/[1-8]'",
        cgroup.path().display(),
        ctx.url(vip)
    );
    let out = ctx.run("sh", &["-c", &line])?.stdout;
    ensure!(
        out.lines().filter(|l| l.starts_with("200")).count() == 8,
        "user 1000: {out}"
    );
    // Who is named is not let to the VIP either.
    ensure!(curl(ctx, &cgroup, vip, "")?.0 == 0, "root");
    Ok(())
}

fn bind(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let cgroup = Cgroup::new("ruled")?;
    let vip = ctx.shop(&[BACKEND])?;
    let source = "--interface 127.0.0.5";
    ensure!(curl(ctx, &cgroup, vip, source)?.0 == 200, "without a rule");
    let calls = bpf::counter()?;
    let _rule = cgroup.attach(bpf::BIND4, &bpf::count(&calls))?;
    let other = "--interface 127.0.0.6";
    ensure!(curl(ctx, &cgroup, vip, other)?.0 == 200, "another address");
    let calls = bpf::counted(&calls)?;
    ensure!(
        calls == 2,
        "the program was asked {calls} times, not for the client and its connection"
    );
    Ok(())
}

/// No packet leaves.
fn egress(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let cgroup = Cgroup::new("ruled")?;
    let vip = ctx.shop(&[BACKEND])?;
    ensure!(curl(ctx, &cgroup, vip, "")?.0 == 200, "without a rule");
    let _rule = cgroup.attach(bpf::EGRESS, &bpf::deny())?;
    ensure!(curl(ctx, &cgroup, BACKEND.parse()?, "")?.0 == 0, "directly");
    let (code, reason) = curl(ctx, &cgroup, vip, "")?;
    ensure!(code != 200, "through XLB: {code} {reason}");
    Ok(())
}

/// A program that gives connections another congestion control.
fn sock_ops(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let cgroup = Cgroup::new("ruled")?;
    let vip = ctx.shop(&[BACKEND])?;
    let _rule = cgroup.attach(bpf::SOCK_OPS, &bpf::set_reno())?;
    ensure!(curl(ctx, &cgroup, vip, "")?.0 == 200, "through XLB");
    let shown = ctx.run_ok("ss", &["-tniH", "state", "established", "dst", BACKEND])?;
    ensure!(shown.contains("reno"), "the program was not asked: {shown}");
    Ok(())
}
