// SPDX-License-Identifier: GPL-2.0
//! Real client programs, each with its habits.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::backend::{self, Backend};
use crate::ctx::{Ctx, Output, Scenario};
use crate::http::crc;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("clients/curl_keep_alive", curl_keep_alive),
    Scenario::http("clients/curl_parallel", curl_parallel),
    Scenario::http(
        "clients/many_threads_many_sockets",
        many_threads_many_sockets,
    ),
    Scenario::http("clients/wrk", wrk),
    Scenario::http("clients/h2load", h2load),
    Scenario::http("clients/hey", hey),
    Scenario::http("clients/python", python),
    Scenario::http("clients/node_agent", node_agent),
    Scenario::xlb("clients/all_over_ipv6", all_over_ipv6),
    Scenario::xlb("clients/many_at_once", many_at_once).within(120),
];

const BACKEND: &str = "127.0.1.1:8001";

fn nginx(ctx: &mut Ctx) -> Result<(Backend, SocketAddr)> {
    let backend = backend::nginx(ctx, BACKEND, "n1")?;
    let vip = ctx.shop(&[BACKEND])?;
    Ok((backend, vip))
}

fn curl_keep_alive(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = nginx(ctx)?;
    let url = format!("{}/item/[1-100]", ctx.url(vip));
    let out = ctx.run_ok("curl", &["-sS", "-w", "connects=%{num_connects}\n", &url])?;
    ensure!(out.matches("n1\n").count() == 100, "{out}");
    ensure!(
        out.matches("connects=1\n").count() == 1,
        "curl opened more than one connection:\n{out}"
    );
    ctx.until("100 lines in nginx's log", || {
        Ok(backend.count("\"GET /item/")? >= 100)
    })?;
    ensure!(
        backend.count(" 200 \"GET /item/")? == 100,
        "nginx's log: {}",
        backend.count("")?
    );
    Ok(())
}

fn curl_parallel(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = nginx(ctx)?;
    let url = format!("{}/item/[1-200]", ctx.url(vip));
    let out = ctx.run_ok(
        "curl",
        &[
            "-sS",
            "--parallel",
            "--parallel-max",
            "20",
            "--parallel-immediate",
            "--no-progress-meter",
            &url,
        ],
    )?;
    ensure!(
        out.matches("n1\n").count() == 200,
        "{} answers",
        out.matches("n1\n").count()
    );
    ctx.until("200 lines in nginx's log", || {
        Ok(backend.count("\"GET /item/")? >= 200)
    })?;
    Ok(())
}

fn many_threads_many_sockets(ctx: &mut Ctx) -> Result<()> {
    let backend = crate::script::Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let limit = ctx.secs(30);
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || -> Result<()> {
                for round in 0..10 {
                    let mut conn = crate::http::Conn::open(vip, limit)?;
                    for number in 0..10 {
                        let path = format!("/{thread}/{round}/{number}");
                        let text = conn.get(&path)?.text();
                        ensure!(text.ends_with(&format!("GET {path}")), "{path}: {text}");
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread died"))??;
    }
    ensure!(backend.count() == 800, "{}", backend.count());
    Ok(())
}

/// What wrk says, with a look for errors.
fn wrk_report(out: &Output) -> Result<u64> {
    ensure!(out.code == Some(0), "wrk: {}", out.all());
    ensure!(
        !out.stdout.contains("Socket errors") && !out.stdout.contains("Non-2xx"),
        "{}",
        out.stdout
    );
    let line = out
        .stdout
        .lines()
        .find(|line| line.contains(" requests in "))
        .context("wrk's report")?;
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("wrk: {line}"))
}

fn wrk(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = nginx(ctx)?;
    let url = ctx.url(vip);
    let out = ctx.run(
        "wrk",
        &["-t", "1", "-c", "16", "-d", "3", "--timeout", "20s", &url],
    )?;
    let requests = wrk_report(&out)?;
    ensure!(requests > 100, "only {requests} requests");
    ctx.until("nginx's log", || {
        Ok(backend.count(" 200 ")? as u64 >= requests)
    })?;
    let logged = backend.count(" 200 ")? as u64;
    ensure!(
        logged <= requests + 16,
        "wrk counted {requests}, nginx logged {logged}"
    );
    Ok(())
}

fn h2load(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = nginx(ctx)?;
    let url = format!("{}/", ctx.url(vip));
    // -m 4: h2load pipelines over HTTP/1.1.
    for depth in ["1", "4"] {
        let out = ctx.run_ok(
            "h2load",
            &["--h1", "-n", "1000", "-c", "10", "-m", depth, &url],
        )?;
        ensure!(
            out.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "-m {depth}: {out}"
        );
        ensure!(out.contains("status codes: 1000 2xx"), "{out}");
    }
    Ok(())
}

fn hey(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = nginx(ctx)?;
    let url = format!("{}/", ctx.url(vip));
    for more in [&[][..], &["-disable-keepalive"][..]] {
        let mut args = vec!["-n", "500", "-c", "10", "-t", "20"];
        args.extend(more);
        args.push(&url);
        let out = ctx.run_ok("hey", &args)?;
        ensure!(out.contains("[200]\t500 responses"), "{more:?}: {out}");
    }
    Ok(())
}

fn python(ctx: &mut Ctx) -> Result<()> {
    let backend = backend::node(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let script = ctx.file("http_client.py", include_str!("../../peers/http_client.py"))?;
    let out = ctx.run_ok(
        "python3",
        &[
            &script.display().to_string(),
            &vip.ip().to_string(),
            &vip.port().to_string(),
        ],
    )?;
    ensure!(out.contains("python ok 54"), "{out}");
    ensure!(
        backend.log()?.len() >= 54,
        "{} requests",
        backend.log()?.len()
    );
    Ok(())
}

fn node_agent(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let out = run_agent(ctx, vip)?;
    ensure!(out.contains("node ok 100 requests"), "{out}");
    Ok(())
}

fn run_agent(ctx: &mut Ctx, vip: SocketAddr) -> Result<String> {
    let script = ctx.file("agent.js", include_str!("../../peers/agent.js"))?;
    ctx.run_ok(
        "node",
        &[
            &script.display().to_string(),
            &vip.ip().to_string(),
            &vip.port().to_string(),
            "100",
        ],
    )
}

fn all_over_ipv6(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend::python(ctx, BACKEND, "b1")?;
    ctx.shop(&[BACKEND])?;
    let vip: SocketAddr = crate::ctx::VIP6.parse()?;
    run_agent(ctx, vip)?;
    let url = format!("{}/echo/[1-20]", ctx.url(vip));
    // -g would switch the range off, so the address goes in by name.
    let url = url.replace("[fd00:96::10]:80", "six.test");
    let out = ctx.run_ok(
        "curl",
        &["-sS", "--resolve", "six.test:80:[fd00:96::10]", &url],
    )?;
    ensure!(out.matches("\"backend\"").count() == 20, "{out}");
    let out = ctx.run(
        "wrk",
        &[
            "-t",
            "1",
            "-c",
            "4",
            "-d",
            "1",
            "--timeout",
            "20s",
            &ctx.url(vip),
        ],
    )?;
    ensure!(out.code == Some(0), "{}", out.all());
    Ok(())
}

/// Clients of every kind together, with checked bodies, over three backends.
fn many_at_once(ctx: &mut Ctx) -> Result<()> {
    let _one = backend::python(ctx, "127.0.1.1:8001", "b1")?;
    let _two = backend::node(ctx, "127.0.1.2:8001", "b2")?;
    let _three = backend::nginx(ctx, "127.0.1.3:8001", "b3")?;
    let vip = ctx.shop(&["127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"])?;
    let url = ctx.url(vip);
    let mut load = Vec::new();
    for _ in 0..2 {
        load.push(ctx.spawn(
            "wrk",
            &[
                "-t",
                "1",
                "-c",
                "8",
                "-d",
                "6",
                "--timeout",
                "20s",
                &format!("{url}/"),
            ],
        )?);
    }
    load.push(ctx.spawn(
        "hey",
        &["-z", "6s", "-c", "4", "-t", "20", &format!("{url}/hey")],
    )?);
    for round in 0..20u64 {
        let body = crate::http::pattern(50_000, round);
        let mut conn = ctx.open(vip)?;
        for _ in 0..3 {
            conn.request("POST", "/echo", "", &body)?;
            let answer = conn.response("POST")?;
            if answer.text() == "b3" {
                continue;
            }
            // nginx answers a POST to a `return` location without looking at the body.
            let echo = backend::Echo::parse(&answer.expect(200)?.body)?;
            ensure!(echo.crc == crc(&body), "round {round}: {echo:?}");
        }
    }
    for mut program in load {
        let code = program.wait(ctx.secs(40))?;
        ensure!(code == Some(0), "a load generator ended with {code:?}");
    }
    Ok(())
}
