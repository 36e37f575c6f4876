// SPDX-License-Identifier: GPL-2.0
//! The paths of a client: from socket(2) to the last byte of a response.

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockType};

use super::nth::{prepare, sweep, Nth};
use super::talk::{
    answer, backend, connected, follow_up, recv, send, socket, talk, Ask, How, BACKEND,
};
use crate::ctx::{Ctx, VIP4, VIP6};
use crate::http::pattern;
use crate::script::Server;
use crate::sock::Sock;
use crate::xlb;

/// Connections of marks that will not come again go soon.
pub const POOL: &str = "  pool: {idle_timeout: 5s}\n";

pub fn begin(ctx: &mut Ctx) -> Result<Server> {
    let server = backend(BACKEND)?;
    ctx.shop_with(&[BACKEND], "round_robin", POOL)?;
    prepare()?;
    Ok(server)
}

/// No gauge is left with something; the guest looks at sockets, log and rmmod after that.
pub fn end(ctx: &Ctx) -> Result<()> {
    let out = xlb::xlbctl(&["delete", "--all"])?;
    ensure!(out.code == Some(0), "{}", out.all());
    let mut left = String::new();
    let gone = ctx.until("nothing is left", || {
        let counters = xlb::counters()?;
        left.clear();
        for gauge in xlb::GAUGES {
            let n = counters.get(gauge)?;
            if n != 0 {
                left += &format!(" {gauge} {n}");
            }
        }
        Ok(left.is_empty())
    });
    gone.with_context(|| left)
}

/// Calls until it succeeds; the errno of the call that failed for the fault.
pub fn retried<R>(
    nth: &mut Nth,
    name: &'static str,
    mut call: impl FnMut() -> Result<R, Errno>,
) -> Result<(R, Option<Errno>)> {
    let before = nth.hit().is_some();
    let error = match nth.call(name, &mut call) {
        Ok(result) => return Ok((result, None)),
        Err(error) => error,
    };
    // ENFILE is what socket(2) says where it has no memory.
    let clean = [Errno::ENOMEM, Errno::ENOBUFS, Errno::EFAULT, Errno::ENFILE];
    ensure!(
        !before && nth.hit().is_some() && clean.contains(&error),
        "{name}: {error}"
    );
    let result = call().with_context(|| format!("{name} after {error}"))?;
    Ok((result, Some(error)))
}

pub fn once(failed: Option<Errno>) -> String {
    failed.map_or("right".to_owned(), |errno| format!("{errno:?} once"))
}

pub fn socket_and_connect(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let mut mark = 0;
    for (what, vip) in [("connect", VIP4), ("connect over IPv6", VIP6)] {
        let vip = vip.parse()?;
        sweep(what, 2, |nth| {
            mark += 1;
            let sock = socket(vip, mark, ctx.secs(20))?;
            let (_, failed) = retried(nth, "connect", || sock.connect(vip))?;
            let went = talk(&mut Nth::none(), &sock, &Ask::get("/connected"))?;
            ensure!(went.text == "right", "then: {}", went.text);
            Ok(once(failed))
        })?;
    }
    let status = xlb::json(&["status"])?;
    let told = status
        .pointer("/connects/no_memory")
        .and_then(|n| n.as_u64());
    ensure!(
        told.is_some_and(|n| n >= 2),
        "connects without memory: {told:?}"
    );
    let vip = VIP4.parse()?;
    sweep("connect again", 2, |nth| {
        let sock = socket(vip, 0, ctx.secs(20))?;
        sock.connect(vip)?;
        talk(&mut Nth::none(), &sock, &Ask::get("/first"))?;
        let (_, first) = retried(nth, "disconnect", || {
            let unspec = [0u8; 16];
            // SAFETY: The kernel reads 16 bytes: AF_UNSPEC.
            Errno::result(unsafe { libc::connect(sock.raw(), unspec.as_ptr().cast(), 16) })
        })?;
        let (_, second) = retried(nth, "connect", || sock.connect(vip))?;
        let went = talk(&mut Nth::none(), &sock, &Ask::get("/second"))?;
        ensure!(went.text == "right", "then: {}", went.text);
        Ok(once(first.or(second)))
    })?;
    sweep("socket", 2, |nth| {
        let (fd, failed) = retried(nth, "socket", || {
            let (family, kind) = (AddressFamily::Inet as i32, SockType::Stream as i32);
            // SAFETY: No pointers.
            Errno::result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })
        })?;
        let sock = Sock::adopt(fd);
        sock.connect(vip)?;
        let went = talk(&mut Nth::none(), &sock, &Ask::get("/socket"))?;
        ensure!(went.text == "right", "then: {}", went.text);
        Ok(once(failed))
    })?;
    end(ctx)
}

/// Each with an identity of its own: the pool is made, and a connection.
pub fn get_with_cold_pool(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let mut mark = 100;
    sweep("GET, cold pool", 15, |nth| {
        mark += 1;
        connected(ctx, nth, mark, &Ask::get("/cold"))
    })?;
    end(ctx)
}

pub fn get_with_warm_pool(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    sweep("GET, warm pool", 4, |nth| {
        connected(ctx, nth, 0, &Ask::get("/warm"))
    })?;
    sweep("GET, vectors", 4, |nth| {
        let mut ask = Ask::get("/vectors").how(How::Vectors);
        let all = ask.pieces.concat();
        ask.pieces = all.chunks(9).map(<[u8]>::to_vec).collect();
        connected(ctx, nth, 0, &ask)
    })?;
    // The second request of a connection, which has its buffers.
    sweep("GET, second", 3, |nth| {
        let vip = VIP4.parse()?;
        let sock = socket(vip, 0, ctx.secs(20))?;
        sock.connect(vip)?;
        talk(&mut Nth::none(), &sock, &Ask::get("/first"))?;
        let went = talk(nth, &sock, &Ask::get("/second"))?;
        follow_up(ctx, &sock, &went, vip)?;
        Ok(went.text)
    })?;
    end(ctx)
}

fn post(path: &str, pieces: Vec<Vec<u8>>, body: &[u8]) -> Ask {
    Ask {
        pieces,
        wants: vec![answer("POST", path, body)],
        room: 65536,
        how: How::Plain,
    }
}

/// A body of `length` bytes in chunks, written in pieces of `piece` bytes, so that lines are cut too.
fn chunked(path: &str, length: usize, chunk: usize, piece: usize) -> Ask {
    let body = pattern(length, 3);
    let mut all =
        format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    let head = all.len();
    for data in body.chunks(chunk) {
        all.extend(format!("{:x}\r\n", data.len()).into_bytes());
        all.extend_from_slice(data);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b"0\r\n\r\n");
    let rest = all.split_off(head);
    let mut pieces = vec![all];
    pieces.extend(rest.chunks(piece).map(<[u8]>::to_vec));
    post(path, pieces, &body)
}

pub fn bodies(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let mut mark = 200;
    sweep("POST with length", 10, |nth| {
        let body = pattern(90_000, 5);
        let head = format!(
            "POST /length HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut pieces = vec![head.into_bytes()];
        pieces.extend(body.chunks(30_000).map(<[u8]>::to_vec));
        connected(ctx, nth, 0, &post("/length", pieces, &body))
    })?;
    sweep("POST in one write, cold pool", 15, |nth| {
        mark += 1;
        let body = pattern(50_000, 6);
        let mut all = format!(
            "POST /one HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        all.extend_from_slice(&body);
        connected(ctx, nth, mark, &post("/one", vec![all], &body))
    })?;
    sweep("POST, large chunks", 10, |nth| {
        connected(ctx, nth, 0, &chunked("/chunks", 60_000, 15_000, 20_000))
    })?;
    // Lines are held until they are sent, and again: the buffer grows.
    sweep("POST, small chunks", 20, |nth| {
        connected(ctx, nth, 0, &chunked("/small", 9_000, 40, 3_000))
    })?;
    end(ctx)
}

pub fn heads(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let long = "x".repeat(9000);
    sweep("head in pieces", 8, |nth| {
        let head = format!("GET /pieced HTTP/1.1\r\nHost: shop.example\r\nX-Long: {long}\r\n\r\n");
        let mut ask = Ask::get("/pieced");
        ask.pieces = head.into_bytes().chunks(1700).map(<[u8]>::to_vec).collect();
        connected(ctx, nth, 0, &ask)
    })?;
    sweep("head that is written anew", 5, |nth| {
        let head = "GET //other//path?q HTTP/1.1\r\nHost: SHOP.example.\r\nConnection: x-own\r\nX-Own: 1\r\n\r\n";
        let mut ask = Ask::get("/other//path?q");
        ask.pieces = vec![head.as_bytes().to_vec()];
        connected(ctx, nth, 0, &ask)
    })?;
    // The rest is written to a client that was told an end, or nothing of it.
    let body = pattern(3000, 9);
    sweep("head written anew, with a body", 8, |nth| {
        let mut all = format!(
            "POST //new HTTP/1.1\r\nHost: shop.example\r\nConnection: x-own\r\nX-Own: 1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        all.extend_from_slice(&body);
        let pieces = all.chunks(1500).map(<[u8]>::to_vec).collect();
        connected(ctx, nth, 0, &post("/new", pieces, &body))
    })?;
    end(ctx)?;
    by_fields(ctx)
}

/// Routes that ask for headers, parameters and cookies: tables of these are made.
fn by_fields(ctx: &mut Ctx) -> Result<()> {
    let yaml = crate::ctx::shop_yaml(&[BACKEND], "round_robin", POOL).replace(
        "  - cluster: items\n",
        "  - {match: {headers: [{name: x-a, exact: b}, {name: x-c, present: true}]}, cluster: items}\n\
         \x20 - {match: {query: [{name: q, exact: one}, {name: r, exact: two}]}, cluster: items}\n\
         \x20 - {match: {cookies: [{name: k, exact: v}]}, cluster: items}\n",
    );
    ctx.apply(&yaml)?;
    sweep("routes by fields", 4, |nth| {
        let head = "GET /by?r=1&q=2 HTTP/1.1\r\nHost: shop.example\r\nX-A: z\r\nX-C: 1\r\nCookie: a=b; k=v\r\n\r\n";
        let mut ask = Ask::get("/by?r=1&q=2");
        ask.pieces = vec![head.as_bytes().to_vec()];
        let vip = VIP4.parse()?;
        let sock = socket(vip, 0, ctx.secs(20))?;
        sock.connect(vip)?;
        Ok(talk(nth, &sock, &ask)?.text)
    })?;
    end(ctx)
}

fn several(paths: &[&str], piece: usize) -> Ask {
    let all: Vec<u8> = paths
        .iter()
        .flat_map(|path| Ask::get(path).pieces.concat())
        .collect();
    Ask {
        pieces: all.chunks(piece).map(<[u8]>::to_vec).collect(),
        wants: paths.iter().map(|path| answer("GET", path, b"")).collect(),
        room: 65536,
        how: How::Plain,
    }
}

pub fn pipelined(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let paths = ["/a", "/chunked/b", "/changed/c", "/big/d", "/e"];
    sweep("pipelined in one write", 15, |nth| {
        connected(ctx, nth, 0, &several(&paths, 4096))
    })?;
    sweep("pipelined in pieces", 15, |nth| {
        connected(ctx, nth, 0, &several(&paths, 33))
    })?;
    // A body and the next request, in one write, with lines of chunks in between.
    sweep("pipelined behind chunks", 15, |nth| {
        let mut ask = chunked("/small", 4_000, 30, 100_000);
        let next = Ask::get("/next");
        let mut all = ask.pieces.concat();
        all.extend(next.pieces.concat());
        ask.pieces = vec![all];
        ask.wants.extend(next.wants);
        connected(ctx, nth, 0, &ask)
    })?;
    end(ctx)
}

pub fn responses(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    for path in ["/changed", "/big", "/chunked", "/pieces", "/pieces/changed"] {
        for how in [How::Plain, How::Peek, How::Vectors] {
            let kind = match how {
                How::Plain => "",
                How::Peek => ", peeked",
                How::Vectors => ", vectors",
            };
            sweep(&format!("response {path}{kind}"), 4, |nth| {
                connected(ctx, nth, 0, &Ask::get(path).how(how))
            })?;
        }
    }
    sweep("response read in small pieces", 10, |nth| {
        connected(ctx, nth, 0, &Ask::get("/changed/small").room(7))
    })?;
    end(ctx)
}

/// What XLB says itself: an answer is made without memory too, or the connection ends.
pub fn own_replies(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let yaml = crate::ctx::shop_yaml(&[BACKEND], "round_robin", POOL).replace(
        "  - cluster: items\n",
        "  - {match: {path: {prefix: /there}}, cluster: items}\n",
    );
    ctx.apply(&yaml)?;
    let vip = VIP4.parse()?;
    for (what, request, status) in [
        (
            "no route",
            "GET /elsewhere HTTP/1.1\r\nHost: shop.example\r\n\r\n",
            "404",
        ),
        ("bad request", "GET / HTTP/1.1\r\nHost shop\r\n\r\n", "400"),
    ] {
        sweep(what, 2, |nth| {
            let sock = socket(vip, 0, ctx.secs(20))?;
            sock.connect(vip)?;
            let sent = retried(nth, "send", || send(&sock, request.as_bytes(), 0))?;
            ensure!(sent.0 == request.len(), "sent {}", sent.0);
            let mut room = [0u8; 4096];
            let got = match retried(nth, "recv", || recv(&sock, &mut room, 0)) {
                Ok((got, failed)) => {
                    let text = String::from_utf8_lossy(room.get(..got).unwrap_or(&[])).into_owned();
                    let ok = text.starts_with(&format!("HTTP/1.1 {status} "));
                    let lacks = text.starts_with("HTTP/1.1 503 ") && text.contains("no_memory");
                    ensure!(ok || (lacks && nth.hit().is_some()), "{text}");
                    match failed.or(sent.1) {
                        None if lacks => "503 no_memory".to_owned(),
                        failed => once(failed),
                    }
                }
                Err(error) => {
                    ensure!(
                        nth.hit().is_some() && error.to_string().contains("ECONNRESET"),
                        "{error:#}"
                    );
                    "reset".to_owned()
                }
            };
            let sock = socket(vip, 0, ctx.secs(20))?;
            sock.connect(vip)?;
            let after = talk(&mut Nth::none(), &sock, &Ask::get("/there"))?;
            ensure!(after.text == "right", "afterwards: {}", after.text);
            Ok(got)
        })?;
    }
    end(ctx)
}
