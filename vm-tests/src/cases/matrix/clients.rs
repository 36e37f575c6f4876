// SPDX-License-Identifier: GPL-2.0
//! The clients of the matrix: programs of their own, and proxies whose upstream is the server or the VIP.

use anyhow::{Context, Result};

use super::{built, proxies, raw, Line, Task};
use crate::ctx::{run_for, Ctx};

const JS: &str = include_str!("../../../matrix/clients/client.js");
const PY: &str = include_str!("../../../matrix/clients/client.py");

pub struct Client {
    pub name: &'static str,
    pub run: fn(&mut Ctx, &Task) -> Result<Vec<Line>>,
}

const fn client(name: &'static str, run: fn(&mut Ctx, &Task) -> Result<Vec<Line>>) -> Client {
    Client { name, run }
}

pub const CLIENTS: &[Client] = &[
    client("reqwest", |ctx, task| {
        program(ctx, task, &["matrix-reqwest"])
    }),
    client("go-client", |ctx, task| {
        compiled(ctx, task, "matrix-go-client")
    }),
    client("java", java),
    client("undici", |ctx, task| javascript(ctx, task, "undici")),
    client("axios", |ctx, task| javascript(ctx, task, "axios")),
    client("aiohttp", |ctx, task| python(ctx, task, "aiohttp")),
    client("httpx", |ctx, task| python(ctx, task, "httpx")),
    client("libcurl", |ctx, task| compiled(ctx, task, "matrix-curl")),
    client("epoll-edges", |_, task| {
        Ok(raw::drive::<raw::Edge>(task, &task.addresses()?))
    }),
    client("io-uring", |_, task| {
        Ok(raw::drive::<raw::Ring>(task, &task.addresses()?))
    }),
    client("nginx-client", |ctx, task| proxies::nginx(ctx, task, "1.1")),
    client("nginx-client-1.0", |ctx, task| {
        proxies::nginx(ctx, task, "1.0")
    }),
    client("haproxy", proxies::haproxy),
    client("envoy", proxies::envoy),
];

fn compiled(ctx: &mut Ctx, task: &Task, name: &str) -> Result<Vec<Line>> {
    program(ctx, task, &[&built(name)?])
}

fn java(ctx: &mut Ctx, task: &Task) -> Result<Vec<Line>> {
    let jar = built("matrix-java.jar")?;
    program(ctx, task, &["java", "-cp", &jar, "JavaClient"])
}

fn javascript(ctx: &mut Ctx, task: &Task, library: &str) -> Result<Vec<Line>> {
    let script = ctx.file("client.js", JS)?.display().to_string();
    program(ctx, task, &["node", &script, library])
}

fn python(ctx: &mut Ctx, task: &Task, library: &str) -> Result<Vec<Line>> {
    let script = ctx.file("client.py", PY)?.display().to_string();
    program(ctx, task, &["python3", &script, library])
}

/// Runs a client to its end.
fn program(ctx: &mut Ctx, task: &Task, command: &[&str]) -> Result<Vec<Line>> {
    let (program, first) = command.split_first().context("no program")?;
    let limit = task.limit_ms.to_string();
    let big = task.big_file.display().to_string();
    let requests = task.requests();
    let ways: Vec<String> = task
        .ways
        .iter()
        .map(|(n, url)| format!("{n}={url}"))
        .collect();
    let mut args = first.to_vec();
    args.extend([limit.as_str(), &big, &requests]);
    args.extend(ways.iter().map(String::as_str));
    // Enough for every request to fail, so that the report shows all of them.
    let out = run_for(ctx.secs(200), program, &args)?;
    let lines: Result<Vec<Line>> = out
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("what is {line:?}?")))
        .collect();
    lines.with_context(|| out.all())
}
