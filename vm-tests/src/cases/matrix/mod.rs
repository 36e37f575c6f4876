// SPDX-License-Identifier: GPL-2.0
//! The matrix of real programs: every client against every server with every kind of request, once directly and
//! once through XLB.
//!
//! `vm-tests/matrix/README.md` has the contract of the programs. One scenario for each server; a client runs once in
//! it and asks the server directly, then through the VIP, on connections that it keeps alive, so that a request that
//! leaves a connection in a bad state shows in the next one. What both say must be equal, and right.
//!
//! Not every program can do every kind: [`NOT_OFFERED`] says which cannot, and why. The whole matrix runs when
//! `XLB_ALL` is set; otherwise each server meets the clients that a seed draws (`XLB_SEED`, printed);
//! `XLB_CLIENTS` names them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;

use crate::ctx::{seed, Ctx, Scenario};
use crate::http::{crc, pattern};

use clients::CLIENTS;
use servers::Server;

mod clients;
mod cuts;
mod proxies;
mod raw;
mod servers;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("matrix/node", |ctx| against(ctx, Server::Node)).within(300),
    Scenario::http("matrix/go", |ctx| against(ctx, Server::Go)).within(300),
    Scenario::http("matrix/nginx", |ctx| against(ctx, Server::Nginx)).within(300),
    Scenario::http("matrix/apache", |ctx| against(ctx, Server::Apache)).within(300),
    Scenario::http("matrix/tomcat", |ctx| against(ctx, Server::Tomcat)).within(300),
    Scenario::http("matrix/uvicorn", |ctx| against(ctx, Server::Uvicorn)).within(300),
    Scenario::http("matrix/gunicorn", |ctx| against(ctx, Server::Gunicorn)).within(300),
    Scenario::http("matrix/cuts_edges", cuts::edges).within(120),
    Scenario::http("matrix/cuts_io_uring", cuts::ring).within(120),
];

/// What the servers listen on.
const BACKEND: &str = "127.0.1.1:8001";

/// How long one request may take on a plain emulated machine.
const LIMIT_S: u64 = 3;

/// How many clients a server meets unless all are asked for.
const DRAWN: usize = 4;

const MIB: usize = 1 << 20;

/// What a body must be.
#[derive(Clone, Copy)]
enum Body {
    None,
    Text(&'static str),
    /// So many bytes of the big file.
    Big(usize),
}

/// A kind of request: one row of the matrix for each client and server.
pub struct Kind {
    pub name: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    /// Bytes of the big file that the request carries.
    pub length: usize,
    pub flag: &'static str,
    status: u16,
    body: Body,
}

const fn get(name: &'static str, path: &'static str, status: u16, body: Body) -> Kind {
    Kind {
        name,
        method: "GET",
        path,
        length: 0,
        flag: "-",
        status,
        body,
    }
}

impl Kind {
    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = flag;
        self
    }

    const fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    const fn post(mut self, length: usize) -> Self {
        self.method = "POST";
        self.length = length;
        self
    }
}

const PLAIN: Body = Body::Text("plain body\n");

/// A plain request stands behind each kind that may leave a connection in a bad state.
pub const KINDS: &[Kind] = &[
    // Not judged: programs load half of themselves at their first request.
    get("warm", "/plain", 200, PLAIN),
    get("plain", "/plain", 200, PLAIN),
    get("keepalive", "/keepalive", 200, Body::Text("kept alive\n")),
    get("early", "/early", 200, Body::Text("after 103\n")),
    get(
        "chunked2",
        "/chunked2",
        200,
        Body::Text("first part\nsecond part\n"),
    ),
    get("head", "/plain", 200, Body::None).method("HEAD"),
    get("204", "/204", 204, Body::None),
    get("304", "/304", 304, Body::None),
    get("404", "/404", 404, Body::Text("not here\n")),
    get("continue", "/echo", 200, Body::Big(1000))
        .post(1000)
        .flag("expect"),
    get("plain-2", "/plain", 200, PLAIN),
    get("upload", "/echo", 200, Body::Big(MIB)).post(MIB),
    get("download", "/big", 200, Body::Big(MIB)),
    get("plain-3", "/plain", 200, PLAIN),
    get("close", "/close", 200, Body::Text("ended by\nclose\n")),
    get("http10", "/plain", 200, PLAIN).flag("http10"),
    get("client-close", "/plain", 200, PLAIN).flag("close"),
    get("plain-4", "/plain", 200, PLAIN),
];

/// Client or server, kind, and why there is no such cell.
const NOT_OFFERED: &[(&str, &str, &str)] = &[
    (
        "nginx",
        "early",
        "nginx 1.26 neither makes nor forwards 103",
    ),
    ("apache", "early", "Apache sends 103 over HTTP/2 only"),
    ("tomcat", "early", "no call for 103 before Servlet 6.2"),
    ("uvicorn", "early", "ASGI has no message for 103"),
    (
        "uvicorn",
        "close",
        "always sends chunks when there is no length",
    ),
    ("gunicorn", "early", "WSGI has no call for 103"),
    (
        "gunicorn",
        "close",
        "always sends chunks when there is no length",
    ),
    ("go-client", "http10", "always sends HTTP/1.1"),
    ("java", "http10", "HttpClient has no HTTP/1.0"),
    (
        "java",
        "client-close",
        "Connection is a restricted field of HttpClient",
    ),
    ("undici", "http10", "always sends HTTP/1.1"),
    ("undici", "continue", "refuses a request with Expect"),
    ("axios", "http10", "always sends HTTP/1.1"),
    ("httpx", "http10", "always sends HTTP/1.1"),
    (
        "nginx-client",
        "early",
        "nginx 1.26 takes 103 of an upstream for the final response",
    ),
    (
        "nginx-client-1.0",
        "early",
        "nginx 1.26 takes 103 of an upstream for the final response",
    ),
];

/// Whether both can do this kind.
fn is_offered(server: &str, client: &str, kind: &str) -> bool {
    !NOT_OFFERED
        .iter()
        .any(|(who, what, _)| *what == kind && (*who == server || *who == client))
}

/// What a client says of one request.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub via: String,
    pub kind: String,
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub length: usize,
    #[serde(default)]
    pub crc: u32,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub error: Option<String>,
    pub ms: u64,
}

impl Line {
    /// What is wrong with it, if anything is.
    fn fault(&self, kind: &Kind, big: &[u8], limit_ms: u64) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("{error} after {} ms", self.ms));
        }
        let body = match kind.body {
            Body::None => &[],
            Body::Text(text) => text.as_bytes(),
            Body::Big(length) => big.get(..length).unwrap_or(big),
        };
        let (status, length, sum) = (kind.status, body.len(), crc(body));
        if (self.status, self.length, self.crc) != (status, length, sum) {
            return Some(format!(
                "{} with {} bytes, crc {:08x}; expected {status} with {length}, {sum:08x}",
                self.status, self.length, self.crc
            ));
        }
        (self.ms > limit_ms).then(|| format!("{} ms", self.ms))
    }
}

/// A file that the host built for the matrix, beside this program.
fn built(name: &str) -> Result<String> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} was not built", path.display());
    Ok(path.display().to_string())
}

/// What a client needs to know.
pub struct Task {
    pub limit_ms: u64,
    pub big_file: PathBuf,
    pub big: Vec<u8>,
    pub kinds: Vec<&'static Kind>,
    /// Name and base address of each way to the server.
    pub ways: [(&'static str, String); 2],
}

impl Task {
    /// The ways as addresses.
    pub fn addresses(&self) -> Result<Vec<(&'static str, SocketAddr)>> {
        self.ways
            .iter()
            .map(|(name, url)| {
                let address = url.strip_prefix("http://").context("http://")?;
                Ok((*name, address.parse()?))
            })
            .collect()
    }

    /// The requests as programs take them.
    pub fn requests(&self) -> String {
        let requests: Vec<String> = self
            .kinds
            .iter()
            .map(|k| {
                let path = k.path;
                format!("{},{},{path},{},{}", k.name, k.method, k.length, k.flag)
            })
            .collect();
        requests.join(";")
    }
}

fn against(ctx: &mut Ctx, server: Server) -> Result<()> {
    let big = pattern(MIB, 7);
    let big_file = ctx.path("big");
    fs::write(&big_file, &big)?;
    let _running = servers::start(ctx, server, BACKEND, &big_file)?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut report = String::new();
    let mut cells = 0;
    for client in drawn(server.name())? {
        let kinds = KINDS
            .iter()
            .filter(|k| is_offered(server.name(), client.name, k.name))
            .collect();
        let task = Task {
            limit_ms: ctx.secs(LIMIT_S).as_millis() as u64,
            big_file: big_file.clone(),
            big: big.clone(),
            kinds,
            ways: [
                ("direct", format!("http://{BACKEND}")),
                ("xlb", format!("http://{vip}")),
            ],
        };
        let begin = std::time::Instant::now();
        let lines = (client.run)(ctx, &task)
            .with_context(|| format!("{} against {}", client.name, server.name()))?;
        println!(
            "{}: {} lines in {:.1} s",
            client.name,
            lines.len(),
            begin.elapsed().as_secs_f32()
        );
        cells += judge(client.name, &task, &lines, &mut report)?;
    }
    println!("{cells} cells, each directly and through XLB");
    ensure!(report.is_empty(), "{}:\n{report}", server.name());
    Ok(())
}

/// Compares what came directly with what came through XLB; the number of cells.
fn judge(client: &str, task: &Task, lines: &[Line], report: &mut String) -> Result<usize> {
    let find = |via: &str, kind: &str| {
        lines
            .iter()
            .find(|line| line.via == via && line.kind == kind)
    };
    let mut cells = 0;
    for kind in task.kinds.iter().filter(|k| k.name != "warm") {
        cells += 1;
        let mut seen = Vec::new();
        for (via, _) in &task.ways {
            let fault = match find(via, kind.name) {
                Some(line) => {
                    seen.push(&line.headers);
                    line.fault(kind, &task.big, task.limit_ms)
                }
                None => Some("no result".to_owned()),
            };
            if let Some(fault) = fault {
                writeln!(report, "{client} {} {via}: {fault}", kind.name)?;
            }
        }
        if let [direct, xlb] = seen.as_slice() {
            if direct != xlb {
                let name = kind.name;
                writeln!(
                    report,
                    "{client} {name}: fields {direct:?} directly, {xlb:?} through XLB"
                )?;
            }
        }
    }
    Ok(cells)
}

/// All clients, or those that the seed draws for this server.
fn drawn(server: &str) -> Result<Vec<&'static clients::Client>> {
    let mut all: Vec<_> = CLIENTS.iter().collect();
    if let Some(wanted) = std::env::var("XLB_CLIENTS").ok().filter(|v| !v.is_empty()) {
        all.retain(|c| wanted.split(',').any(|name| name == c.name));
        return Ok(all);
    }
    if std::env::var("XLB_ALL").is_ok_and(|v| !v.is_empty()) {
        return Ok(all);
    }
    let seed = seed()?;
    // Every server another part.
    let bytes = pattern(all.len() * 4, seed ^ u64::from(crc(server.as_bytes())));
    let mut keyed: Vec<_> = bytes.chunks(4).zip(all).collect();
    keyed.sort_by_key(|(key, _)| *key);
    let all: Vec<_> = keyed.into_iter().take(DRAWN).map(|(_, c)| c).collect();
    let names: Vec<_> = all.iter().map(|c| c.name).collect();
    println!("XLB_SEED={seed}: {server} meets {}", names.join(", "));
    Ok(all)
}
