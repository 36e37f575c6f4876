// SPDX-License-Identifier: GPL-2.0
//! Readers that are woken by edges and take a short read for "nothing more is there", as tokio, nginx
//! and many others do (epoll(7), question 9). The rule is TCP's: `tcp_recvmsg_locked()` returns all that is
//! in the queue, so what comes later, or was left, raises a new edge.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SockFlag};

use crate::ctx::{Ctx, Scenario, VIP4};
use crate::http::{find, lossy, pattern, Conn};
use crate::script::Server;
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("edge/short_read_ends", short_read_ends),
    Scenario::http("edge/end_behind_data", end_behind_data),
    Scenario::http("edge/large_body", large_body),
    Scenario::http("edge/tunnel", tunnel),
    Scenario::xlb("edge/pipelined", pipelined),
    Scenario::xlb("edge/own_reply_behind_response", own_reply_behind_response),
    Scenario::xlb("edge/parked", parked),
    Scenario::http("edge/short_write_ends", short_write_ends),
];

const BACKEND: &str = "127.0.1.1:8001";
const ROOM: usize = 65_536;

/// A non-blocking socket in an edge-triggered epoll, as an event loop has it.
struct Edge {
    sock: Sock,
    epoll: Epoll,
    got: Vec<u8>,
    ended: bool,
    limit: Duration,
}

impl Edge {
    fn open(ctx: &Ctx, address: SocketAddr) -> Result<Self> {
        let sock = Sock::new(address, SockFlag::SOCK_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        match sock.connect(address) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => bail!("connect: {error}"),
        }
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        epoll.add(sock.fd(), EpollEvent::new(flags, 1))?;
        let this = Self {
            sock,
            epoll,
            got: Vec::new(),
            ended: false,
            limit: ctx.secs(5),
        };
        ensure!(
            this.event(this.limit)?.contains(EpollFlags::EPOLLOUT),
            "not writable after connect"
        );
        Ok(this)
    }

    /// The next event; empty when none comes in time.
    fn event(&self, limit: Duration) -> Result<EpollFlags> {
        let mut events = [EpollEvent::empty()];
        let count = self
            .epoll
            .wait(&mut events, EpollTimeout::try_from(limit)?)?;
        Ok(match events.first() {
            Some(event) if count > 0 => event.events(),
            _ => EpollFlags::empty(),
        })
    }

    /// Reads on edges only, until `done`; never again after a short read without a new edge.
    fn read_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + self.limit;
        while !done(self) {
            ensure!(
                Instant::now() < end,
                "{what}: no edge for the rest after {:?}, end: {}",
                lossy(&self.got),
                self.ended
            );
            let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP;
            let event = self.event(Duration::from_millis(200))?;
            if !event.intersects(wanted) {
                continue;
            }
            while !done(self) {
                match self.sock.recv(ROOM, MsgFlags::empty()) {
                    Ok(piece) if piece.is_empty() => {
                        self.ended = true;
                        break;
                    }
                    Ok(piece) => {
                        let short = piece.len() < ROOM;
                        self.got.extend(piece);
                        // With RDHUP, the end is known to be there, and is read.
                        if short && !event.contains(EpollFlags::EPOLLRDHUP) {
                            break;
                        }
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(error) => bail!("{what}: {error} after {:?}", lossy(&self.got)),
                }
            }
        }
        Ok(())
    }

    fn read_to(&mut self, what: &str, end: &str) -> Result<Vec<u8>> {
        self.read_until(what, |e| find(&e.got, end.as_bytes()).is_some())?;
        Ok(std::mem::take(&mut self.got))
    }
}

/// Name, request fields, pieces of the answer with pauses between, the last bytes of the body.
type Case = (&'static str, &'static str, &'static [&'static str]);

/// Each answer is read by a reader that stops at the first short read; all end with "done\n".
const CASES: &[Case] = &[
    (
        "a field that is hop by hop",
        "GET /0 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\ndone\n"],
    ),
    (
        "the client's close",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n"],
    ),
    (
        "HTTP/1.0",
        "GET /2 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        &["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\ndone\n"],
    ),
    (
        "a head in pieces",
        "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 20", "0 OK\r\nContent-Le", "ngth: 5\r\n\r\ndone\n"],
    ),
    (
        "a head in pieces that is rewritten",
        "GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nKeep-Alive: max", "=5\r\nContent-Length: 9\r\n\r\nand", "\ndone\n"],
    ),
    (
        "103 and 200 at once",
        "GET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\ndone\n"],
    ),
    (
        "103, then 200",
        "GET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n"],
    ),
    (
        "chunks at once",
        "GET /7 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\ndone\n\r\n0\r\n\r\n"],
    ),
    (
        "chunks in pieces",
        "GET /8 HTTP/1.1\r\nHost: a\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3", "\r\nabc\r", "\n5\r\ndon", "e\n\r\n0\r\n\r\n"],
    ),
];

fn cases(mut conn: Conn) -> Result<()> {
    while let Some(request) = conn.request_read()? {
        let number: usize = request.path().trim_start_matches('/').parse()?;
        let (_, _, pieces) = CASES.get(number).context("a case")?;
        for (i, piece) in pieces.iter().enumerate() {
            if i > 0 {
                thread::sleep(Duration::from_millis(60));
            }
            conn.send(piece)?;
        }
    }
    Ok(())
}

fn short_read_ends(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |conn, _| cases(conn))?;
    let vip = ctx.shop(&[BACKEND])?;
    for (name, request, _) in CASES {
        let mut edge = Edge::open(ctx, vip)?;
        edge.sock.send_all(request.as_bytes())?;
        let answer = edge.read_to(name, "done\n")?;
        ensure!(
            find(&answer, b" 200 ").is_some(),
            "{name}: {:?}",
            lossy(&answer)
        );
        if request.contains("close") && !ctx.direct {
            edge.read_until(name, |e| e.ended)?;
        }
    }
    Ok(())
}

/// Data, and an end right behind it: the end is found without another event of the backend's.
fn end_behind_data(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, number| {
        conn.request_read()?;
        let keep = if number % 2 == 0 {
            "Keep-Alive: timeout=5\r\n"
        } else {
            ""
        };
        conn.send(format!("HTTP/1.1 200 OK\r\n{keep}\r\nuntil close\n"))
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    for round in 0..8 {
        let mut edge = Edge::open(ctx, vip)?;
        edge.sock.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        if round % 4 >= 2 {
            // The end is there before the first look.
            thread::sleep(Duration::from_millis(60));
        }
        edge.read_until("until close", |e| e.ended)?;
        ensure!(
            edge.got.ends_with(b"\r\n\r\nuntil close\n"),
            "{:?}",
            lossy(&edge.got)
        );
    }
    Ok(())
}

fn large_body(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 1 << 20;
    let _server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: {LENGTH}\r\n\r\n"
            )
            .into_bytes();
            answer.extend(pattern(LENGTH, 9));
            conn.send(answer)?;
        }
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut edge = Edge::open(ctx, vip)?;
    for _ in 0..3 {
        edge.sock.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        edge.read_until("1 MiB", |e| {
            find(&e.got, b"\r\n\r\n").is_some_and(|head| e.got.len() >= head + 4 + LENGTH)
        })?;
        ensure!(edge.got.ends_with(&pattern(LENGTH, 9)), "other bytes");
        edge.got.clear();
    }
    Ok(())
}

fn tunnel(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.request_read()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        )?;
        ensure!(conn.exactly(4)? == b"ping", "not what was sent");
        conn.send("pong")?;
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut edge = Edge::open(ctx, vip)?;
    edge.sock.send_all(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    edge.read_to("101 and what follows", "hello")?;
    edge.sock.send_all(b"ping")?;
    edge.read_until("the tunnel's end", |e| e.ended)?;
    ensure!(edge.got == b"pong", "{:?}", lossy(&edge.got));
    Ok(())
}

/// Several requests in one write: each answer, from its own backend, is found on edges alone.
fn pipelined(ctx: &mut Ctx) -> Result<()> {
    let others = ["127.0.1.2:8001", "127.0.1.3:8001"];
    let answer = |mut conn: Conn, _| {
        while let Some(request) = conn.request_read()? {
            let text = format!("{}\n", request.path());
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ))?;
        }
        Ok(())
    };
    let mut servers = Vec::new();
    for address in others {
        servers.push(Server::start(address, answer)?);
    }
    let vip = ctx.shop(&others)?;
    let mut edge = Edge::open(ctx, vip)?;
    for round in 0..20 {
        let requests: String = (0..10)
            .map(|i| format!("GET /r{round}-{i} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .collect();
        edge.sock.send_all(requests.as_bytes())?;
        let all = edge.read_to("pipelined", &format!("/r{round}-9\n"))?;
        ensure!(
            String::from_utf8_lossy(&all)
                .matches("HTTP/1.1 200")
                .count()
                == 10,
            "{:?}",
            lossy(&all)
        );
    }
    Ok(())
}

/// A request that XLB answers itself, behind one that a backend answers.
fn own_reply_behind_response(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nContent-Length: 3\r\n\r\nok\n")?;
        }
        Ok(())
    })?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n  \
         - match: {{path: {{prefix: /a}}}}\n    cluster: items\n\
         clusters:\n- name: items\n  endpoints: [\"{BACKEND}\"]\n"
    ))?;
    for second in [
        "GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T /a HTTP/1.1\r\n\r\n",
    ] {
        let mut edge = Edge::open(ctx, VIP4.parse()?)?;
        edge.sock
            .send_all(format!("GET /a HTTP/1.1\r\nHost: a\r\n\r\n{second}").as_bytes())?;
        edge.read_until("both answers", |e| {
            lossy(&e.got).matches("HTTP/1.1 ").count() == 2
                && find(&e.got, b"x-xlb-reason").is_some()
                && e.got.ends_with(b"\n")
        })?;
        ensure!(
            find(&edge.got, b"\r\n\r\nok\n").is_some(),
            "{:?}",
            lossy(&edge.got)
        );
        if second.contains('@') {
            edge.read_until("the end", |e| e.ended)?;
        }
    }
    Ok(())
}

/// Responses that were taken off their connection, because another client waited for it.
fn parked(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndone\n\r\n0\r\n\r\n",
            )?;
        }
        Ok(())
    })?;
    let vip = ctx.shop_of_one_connection(BACKEND)?;
    let mut all = Vec::new();
    for _ in 0..10 {
        let edge = Edge::open(ctx, vip)?;
        edge.sock.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        all.push(edge);
    }
    for edge in &mut all {
        edge.read_to("parked", "0\r\n\r\n")?;
    }
    Ok(())
}

/// A short write means that there is no room; the room that comes raises an edge.
fn short_write_ends(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 16 << 20;
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?;
        let mut left = LENGTH;
        while left > 0 {
            let n = left.min(1 << 20);
            conn.exactly(n)?;
            left -= n;
            thread::sleep(Duration::from_millis(20));
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n")
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut edge = Edge::open(ctx, vip)?;
    let mut bytes =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").into_bytes();
    bytes.extend(pattern(LENGTH, 5));
    let mut at = 0;
    let end = Instant::now() + ctx.secs(30);
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        if rest.is_empty() {
            break;
        }
        match edge.sock.send(rest) {
            Ok(n) => {
                at += n;
                if n == rest.len() {
                    break;
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(error) => bail!("send at {at}: {error}"),
        }
        while !edge
            .event(Duration::from_millis(200))?
            .contains(EpollFlags::EPOLLOUT)
        {
            ensure!(Instant::now() < end, "no edge for room at {at} bytes");
        }
    }
    edge.limit = ctx.secs(30);
    edge.read_to("the answer", "done\n")?;
    Ok(())
}
