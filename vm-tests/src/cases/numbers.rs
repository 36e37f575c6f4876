// SPDX-License-Identifier: GPL-2.0
//! What belongs to whom when configuration changes under open connections: counters, and connects
//! to services that have lost their endpoints.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::SockFlag;

use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4, VIP6};
use crate::http;
use crate::script::{Logging, Server};
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb(
        "config/connect_without_endpoints",
        connect_without_endpoints,
    ),
    Scenario::xlb("config/numbers_of_a_long_tunnel", numbers_of_a_long_tunnel),
    Scenario::xlb("config/a_held_lock", a_held_lock),
    Scenario::xlb("config/clients_that_write_first", clients_that_write_first).within(120),
];

const BACKEND: &str = "127.0.1.1:8001";

/// Refused at once on every way to connect, as where nobody listens; as soon as there is an endpoint
/// the same socket is taken.
fn connect_without_endpoints(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let full = shop_yaml(&[BACKEND], "round_robin", "");
    let empty = full.replace("endpoints:\n  - \"127.0.1.1:8001\"\n", "endpoints: []\n");
    let drained = full.replace(
        "\"127.0.1.1:8001\"",
        "{address: \"127.0.1.1:8001\", drain: true}",
    );
    for (why, yaml) in [("empty", &empty), ("drained", &drained)] {
        ctx.apply(yaml)?;
        for vip in [VIP4, VIP6] {
            for flags in [SockFlag::empty(), SockFlag::SOCK_NONBLOCK] {
                let sock = Sock::new(vip.parse()?, flags)?;
                for _ in 0..2 {
                    let err = sock.connect(vip.parse()?);
                    ensure!(
                        err == Err(Errno::ECONNREFUSED),
                        "{why}: connect to {vip}: {err:?}"
                    );
                }
                if flags.is_empty() {
                    ctx.apply(&full)?;
                    sock.connect(vip.parse()?)
                        .context("the same socket, with an endpoint")?;
                    sock.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
                    sock.recv_until("200 OK")?;
                    ctx.apply(yaml)?;
                }
            }
        }
        let curl = ctx.run("curl", &["-sS", &ctx.url(VIP4.parse()?)])?;
        ensure!(curl.code == Some(7), "curl: {}", curl.all());
    }
    let status = xlb::json(&["status"])?;
    let refused = status
        .pointer("/connects/no_endpoint")
        .and_then(serde_json::Value::as_u64);
    ensure!(refused == Some(18), "{refused:?} of\n{status:#}");
    // A route more whose cluster has an endpoint.
    ctx.apply(
        &empty
            .replace(
                "  - cluster: items\n",
                "  - {match: {path: {prefix: /x}}, cluster: other}\n  - cluster: items\n",
            )
            .replace(
                "clusters:\n",
                "clusters:\n- {name: other, endpoints: [\"127.0.1.1:8001\"]}\n",
            ),
    )?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    conn.get("/x")?.expect(200)?;
    conn.get("/")?.expect_reply(503, "no_endpoint")?;
    Ok(())
}

/// A tunnel lasts while its service, route, cluster and endpoint go and others come, which get their
/// numbers: its end counts for none of them.
fn numbers_of_a_long_tunnel(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?.context("closed")?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let bytes = conn.exactly(4)?;
        conn.send(bytes)
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(
        conn.head()?.context("closed")?.status() == 101,
        "the tunnel"
    );

    // Freed numbers wait until others have been freed after them: some rounds, with many items each.
    for round in 0..6 {
        let mut yaml = "version: 1\nservices:\n".to_owned();
        for n in 0..4 {
            yaml.push_str(&format!(
                "- {{name: s{round}-{n}, listen: [\"10.97.{round}.{}:80\"], routes: [{{name: r{n}, cluster: c{round}-{n}}}]}}\n",
                n + 1
            ));
        }
        yaml.push_str("clusters:\n");
        for n in 0..4 {
            yaml.push_str(&format!(
                "- {{name: c{round}-{n}, endpoints: [\"127.0.1.2:{}\"]}}\n",
                8001 + n
            ));
        }
        let file = ctx.file("round.yaml", &yaml)?;
        let out = xlb::xlbctl(&["apply", "--prune", "-f", &file.display().to_string()])?;
        ensure!(out.code == Some(0), "{}", out.all());
    }
    conn.send("bye.")?;
    ensure!(conn.exactly(4)? == b"bye.", "the tunnel goes on");
    conn.expect_eof()?;
    drop(conn);
    let stats = xlb::json(&["stats"])?;
    let rows = stats.as_array().context("a list")?;
    ensure!(rows.len() == 16, "{} rows:\n{stats:#}", rows.len());
    for row in rows {
        ensure!(
            row["requests"] == 0 && (row["outstanding"].is_null() || row["outstanding"] == 0),
            "what got no request has counted one:\n{row:#}"
        );
    }
    Ok(())
}

/// Another program holds the lock: it is named, and --timeout ends the wait.
fn a_held_lock(ctx: &mut Ctx) -> Result<()> {
    let vip = ctx.shop(&[BACKEND])?;
    let mut holder = ctx.spawn("flock", &["--no-fork", "/run/xlb.lock", "sleep", "1000"])?;
    ctx.until("the lock is held", || {
        let free = Command::new("flock")
            .args(["-n", "/run/xlb.lock", "true"])
            .stdin(Stdio::null())
            .status()?;
        Ok(!free.success())
    })?;
    let start = Instant::now();
    let out = xlb::xlbctl(&["delete", "--all", "--timeout", "1s"])?;
    ensure!(out.code == Some(1), "{}", out.all());
    ensure!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    for words in [
        format!("waiting for process {} (", holder.pid()),
        "gave up waiting for process".to_owned(),
        "sleep 1000".to_owned(),
    ] {
        ensure!(out.stderr.contains(&words), "{words}: {}", out.all());
    }
    holder.kill();
    ensure!(
        xlb::xlbctl(&["delete", "--all", "--timeout", "10s"])?.code == Some(0),
        "a free lock is taken"
    );
    let refused = http::Conn::open(vip, ctx.secs(5));
    ensure!(refused.is_err(), "the service is gone");
    Ok(())
}

/// More of them than a pool had connections and places to wait by default, and no limit is given.
fn clients_that_write_first(ctx: &mut Ctx) -> Result<()> {
    const CLIENTS: usize = 1300;
    let _backend = Logging::start(BACKEND)?;
    // It is the pool that must not refuse: a machine that emulates accepts a thousand connections slowly.
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {connect_timeout: 60s}\n",
    )?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/", "", b"")?;
        clients.push(conn);
    }
    for mut conn in clients {
        conn.response("GET")?.expect(200)?;
    }
    Ok(())
}
