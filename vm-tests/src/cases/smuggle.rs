// SPDX-License-Identifier: GPL-2.0
//! Smuggling: an attacker and a victim share one pooled connection to a real server.
//!
//! For each request of the corpus the attacker sends it with a marker, then the victim sends plain requests over
//! the same connection to the backend (`max: 1`). The victim must get exactly the answers to its own requests, and
//! the marker must be in none of them, nor the victim's in anything that the attacker reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::backend::{self, Echo};
use crate::corpus::{self, Expect};
use crate::ctx::{Ctx, Scenario, VIP4};
use crate::http::{find, lossy, Conn};
use crate::script::Server;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("smuggle/python", python).within(240),
    Scenario::xlb("smuggle/node", node).within(240),
    Scenario::xlb("smuggle/nginx", nginx).within(240),
    Scenario::xlb("smuggle/haproxy", haproxy).within(240),
    Scenario::xlb("smuggle/responses", responses).within(240),
    Scenario::xlb("smuggle/trailers", trailers),
    Scenario::xlb("smuggle/cheroot", cheroot),
];

pub const REQUESTS: &str = include_str!("../../corpus/smuggled-requests.txt");
pub const RESPONSES: &str = include_str!("../../corpus/smuggled-responses.txt");

const BACKEND: &str = "127.0.1.1:8001";
/// All of the loopback, so that each lane has an endpoint, and so a pool, of its own.
const EVERYWHERE: &str = "0.0.0.0:8001";
const LANES: usize = 4;
const BEHIND: &str = "127.0.1.1:9001";

fn python(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, EVERYWHERE, "b1")?;
    attack(ctx)
}

fn node(ctx: &mut Ctx) -> Result<()> {
    let _node = backend::node(ctx, EVERYWHERE, "b1")?;
    attack(ctx)
}

/// nginx as a proxy: one more parser that could be made to disagree with XLB and with what is behind it.
fn nginx(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BEHIND, "b1")?;
    let more = format!("location /v {{ proxy_pass http://{BEHIND}; proxy_http_version 1.1; proxy_request_buffering off; }}");
    let _nginx = backend::nginx_with(ctx, EVERYWHERE, "n1", &more)?;
    attack(ctx)
}

fn haproxy(ctx: &mut Ctx) -> Result<()> {
    let _python = backend::python(ctx, BEHIND, "b1")?;
    let _haproxy = backend::haproxy(ctx, EVERYWHERE, BEHIND)?;
    attack(ctx)
}

/// The corpus in lanes: most of the time of an attack is waiting for what does not come.
fn attack(ctx: &mut Ctx) -> Result<()> {
    let mut services = String::new();
    let mut clusters = String::new();
    for lane in 1..=LANES {
        services += &format!("- {{name: s{lane}, listen: [\"10.96.1.{lane}:80\"], routes: [{{cluster: c{lane}}}]}}\n");
        clusters += &format!(
            "- {{name: c{lane}, lb: round_robin, endpoints: [\"127.0.1.{lane}:8001\"], pool: {{max: 1, max_pending: 100}}}}\n"
        );
    }
    ctx.apply(&format!(
        "version: 1\nservices:\n{services}clusters:\n{clusters}"
    ))?;
    let entries = corpus::parse(REQUESTS)?;
    let (ctx, entries) = (&*ctx, &entries);
    let problems: Vec<String> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| scope.spawn(move || run_lane(ctx, lane, entries)))
            .collect();
        lanes
            .into_iter()
            .flat_map(|lane| {
                lane.join()
                    .unwrap_or_else(|_| vec!["a lane died".to_owned()])
            })
            .collect()
    });
    println!("{} messages", entries.len());
    ensure!(
        problems.is_empty(),
        "{} of {}:\n{}",
        problems.len(),
        entries.len(),
        problems.join("\n")
    );
    Ok(())
}

fn run_lane(ctx: &Ctx, lane: usize, entries: &[corpus::Entry]) -> Vec<String> {
    let vip = std::net::SocketAddr::from(([10, 96, 1, lane as u8 + 1], 80));
    let mut problems = Vec::new();
    for (number, entry) in entries.iter().enumerate().skip(lane).step_by(LANES) {
        let mark = format!("ATTACKER{number}X");
        if let Err(error) = one_attack(ctx, vip, entry, number, &mark) {
            problems.push(format!("{}: {error:#}", entry.name));
        }
    }
    problems
}

fn one_attack(
    ctx: &Ctx,
    vip: std::net::SocketAddr,
    entry: &corpus::Entry,
    number: usize,
    mark: &str,
) -> Result<()> {
    // The victim's connection is there before the attack, and used after it.
    let mut victim = ctx.open(vip)?;
    let mut attacker = ctx.open(vip)?;
    // A reply may come while the rest is still being written.
    let _ = attacker.send(entry.bytes(mark)?);
    let (first, closed) = attacker.rest(Duration::from_millis(150))?;
    drop(attacker);
    for round in 0..2 {
        let path = format!("/v/VICTIM{number}R{round}");
        victim.request("POST", &path, "X-Victim: VICTIM\r\n", b"VICTIMBODY")?;
        let answer = victim
            .response("POST")
            .with_context(|| format!("the victim's request {round}"))?;
        answer.expect(200).context("the victim's request")?;
        ensure!(
            find(&answer.body, mark.as_bytes()).is_none(),
            "the victim's answer holds the attacker's marker: {}",
            answer.text()
        );
        let echo = Echo::parse(&answer.body)?;
        ensure!(
            echo.path == path && echo.method == "POST" && echo.body == "VICTIMBODY",
            "the backend saw {} {} {:?} instead of the victim's request",
            echo.method,
            echo.path,
            echo.body
        );
    }
    ensure!(
        find(&first, b"VICTIM").is_none(),
        "the attacker read the victim's data: {:?}",
        lossy(&first)
    );
    let text = lossy(&first);
    if entry.expect == Expect::Reject {
        let refused = text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5");
        ensure!(
            find(&first, b"HTTP/1.1 2").is_none() && (refused || closed),
            "not refused: {text:?}"
        );
    }
    Ok(())
}

/// A request whose trailer is a request to a server that takes the end of the last chunk's line, or two bytes behind it, for
/// the end of the message.
const TRAILER_ATTACK: &str =
    "POST /attack HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
     0\r\nX:GET /slow HTTP/1.1\r\n\r\n";

/// Nobody gets the answer to the hidden request, which comes late: when the pool looks at the connection after the first
/// answer, nothing is there.
fn attack_by_trailer(ctx: &Ctx, vip: std::net::SocketAddr) -> Result<()> {
    // While the server still thinks, and after its answer to the hidden request has come.
    for wait_ms in [0, 100, 500] {
        let mut attacker = ctx.open(vip)?;
        attacker.send(TRAILER_ATTACK)?;
        ensure!(attacker.response("POST")?.expect(200)?.text() == "answer to /attack");
        thread::sleep(Duration::from_millis(wait_ms));
        let mut victim = ctx.open(vip)?;
        for round in 0..2 {
            let path = format!("/v/{wait_ms}/{round}");
            let answer = victim.get(&path)?;
            ensure!(
                answer.expect(200)?.text() == format!("answer to {path}"),
                "the victim's request {path} was answered with {:?}",
                answer.text()
            );
        }
    }
    Ok(())
}

/// The real cheroot 11.1.2 leaves a trailer section to be read as its next request.
fn cheroot(ctx: &mut Ctx) -> Result<()> {
    let script = include_str!("../../peers/cheroot_server.py");
    let script = ctx.file("cheroot_server.py", script)?.display().to_string();
    let (host, port) = BACKEND.rsplit_once(':').context("address:port")?;
    let _server = ctx.spawn("python3", &[&script, host, port])?;
    ctx.wait_listen(BACKEND)?;
    // It does: one request has two answers.
    let mut direct = ctx.open(BACKEND.parse()?)?;
    direct.send(TRAILER_ATTACK)?;
    for text in ["answer to /attack", "POISON"] {
        ensure!(
            direct.response("POST")?.expect(200)?.text() == text,
            "cheroot has changed"
        );
    }
    drop(direct);
    let vip = ctx.shop_of_one_connection(BACKEND)?;
    attack_by_trailer(ctx, vip)
}

/// A server with that defect that reads on behind two bytes, as it takes them for the empty line; and connections are kept
/// where no trailers were.
fn trailers(ctx: &mut Ctx) -> Result<()> {
    let server = Server::start(BACKEND, |mut conn, _| {
        while let Some(request) = conn.head()? {
            if request.field("transfer-encoding").is_some() {
                while conn.line()? != "0" {}
                conn.exactly(2)?;
            }
            let text = if request.path() == "/slow" {
                thread::sleep(Duration::from_millis(300));
                "POISON".to_owned()
            } else {
                format!("answer to {}", request.path())
            };
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ))?;
        }
        Ok(())
    })?;
    let vip = ctx.shop_with(
        &[BACKEND],
        "round_robin",
        "  pool: {max: 1, max_pending: 100}\n",
    )?;
    attack_by_trailer(ctx, vip)?;
    // A chunked request without trailers leaves its connection in the pool.
    let before = server.accepted();
    let mut conn = ctx.open(vip)?;
    for _ in 0..2 {
        conn.send(
            "POST /plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )?;
        ensure!(conn.response("POST")?.expect(200)?.text() == "answer to /plain");
    }
    ensure!(
        server.accepted() == before,
        "{} connections instead of {before}",
        server.accepted()
    );
    Ok(())
}

/// A hostile backend: whatever it sends in answer to the attacker's request, the victim gets its own answer or an
/// error that XLB made.
fn responses(ctx: &mut Ctx) -> Result<()> {
    let entries = Arc::new(corpus::parse(RESPONSES)?);
    let current = Arc::new(Mutex::new(0usize));
    let (corpus, index) = (Arc::clone(&entries), Arc::clone(&current));
    let _server = Server::start(BACKEND, move |mut conn, _| {
        while let Some(request) = conn.request_read()? {
            if request.path().starts_with("/attack") {
                let number = *index.lock().unwrap_or_else(PoisonError::into_inner);
                let entry = corpus.get(number).context("entry")?;
                conn.send(entry.bytes("POISON")?)?;
                thread::sleep(Duration::from_millis(20));
            } else {
                let text = format!("answer to {}", request.path());
                conn.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                ))?;
            }
        }
        Ok(())
    })?;
    ctx.shop_of_one_connection(BACKEND)?;
    let mut problems = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        *current.lock().unwrap_or_else(PoisonError::into_inner) = number;
        // At once after the attacker's answer, and after the rest had time to arrive.
        for wait_ms in [0, 60] {
            if let Err(error) = one_response(ctx, entry, number, wait_ms) {
                problems.push(format!("{} ({wait_ms} ms): {error:#}", entry.name));
            }
        }
    }
    ensure!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
    Ok(())
}

fn one_response(ctx: &Ctx, entry: &corpus::Entry, number: usize, wait_ms: u64) -> Result<()> {
    let vip = VIP4.parse()?;
    let mut victim = ctx.open(vip)?;
    let mut attacker = ctx.open(vip)?;
    let method = if entry.name.contains("HEAD") {
        "HEAD"
    } else {
        "GET"
    };
    attacker.request(method, &format!("/attack/{number}"), "", b"")?;
    // Its first answer, of whatever kind; the attacker then keeps its connection for a while.
    let first = read_some(&mut attacker, Duration::from_millis(200))?;
    thread::sleep(Duration::from_millis(wait_ms));
    if wait_ms > 0 {
        drop(attacker);
    }
    for round in 0..2 {
        let path = format!("/v/{number}/{round}");
        let answer = victim
            .get(&path)
            .with_context(|| format!("the victim's request {round}"))?;
        if answer.status() == 200 {
            ensure!(
                answer.text() == format!("answer to {path}"),
                "the victim got {:?}",
                answer.text()
            );
        } else {
            ensure!(
                answer.field("x-xlb-reason").is_some(),
                "the victim got {answer:?}"
            );
        }
        ensure!(
            !format!("{answer:?}").contains("POISON"),
            "the victim got {answer:?}"
        );
    }
    if entry.expect == Expect::Reject {
        let text = lossy(&first);
        ensure!(
            text.starts_with("HTTP/1.1 502 ") && !text.contains("POISON"),
            "not refused: {text:?}"
        );
    }
    Ok(())
}

/// What comes until it is quiet.
fn read_some(conn: &mut Conn, quiet: Duration) -> Result<Vec<u8>> {
    Ok(conn.rest(quiet)?.0)
}
