// SPDX-License-Identifier: GPL-2.0
//! The paths of a client besides: an event loop and options, and what ends otherwise than with a response.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;

use super::nth::{prepare, sweep, Nth};
use super::paths::{begin, end, once, retried, POOL};
use super::talk::{answer, parse, recv, send, socket, Ask, BACKEND};
use crate::ctx::{Ctx, VIP4};
use crate::http::pattern;
use crate::script::{Logging, Server};
use crate::sock::Sock;

/// What a program with an event loop does besides: everything that takes memory must be told and can be done again.
pub fn poll_and_options(ctx: &mut Ctx) -> Result<()> {
    let _server = begin(ctx)?;
    let vip = VIP4.parse()?;
    let mut mark = 1000;
    sweep("epoll, options, shutdown", 10, |nth| {
        mark += 1;
        let sock = socket(vip, 0, ctx.secs(20))?;
        sock.connect(vip)?;
        let mut failed = None;
        // SAFETY: No pointers.
        let (epoll, e) = retried(nth, "epoll_create1", || {
            Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
        })?;
        failed = failed.or(e);
        let epoll = Sock::adopt(epoll);
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32,
            u64: 7,
        };
        let (_, e) = retried(nth, "epoll_ctl", || {
            // SAFETY: The kernel reads one event.
            Errno::result(unsafe {
                libc::epoll_ctl(epoll.raw(), libc::EPOLL_CTL_ADD, sock.raw(), &raw mut event)
            })
        })?;
        failed = failed.or(e);
        for (level, option, value) in [
            (libc::SOL_SOCKET, libc::SO_SNDBUF, 70_000),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 80_000),
            (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
            (libc::SOL_SOCKET, libc::SO_MARK, mark),
            (libc::SOL_TCP, libc::TCP_NODELAY, 1),
            (libc::SOL_TCP, libc::TCP_KEEPIDLE, 33),
            (libc::SOL_IP, libc::IP_TTL, 44),
        ] {
            failed = failed.or(retried(nth, "setsockopt", || sock.set(level, option, value))?.1);
        }
        let congestion = |sock: &Sock| sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"reno");
        failed = failed.or(retried(nth, "setsockopt TCP_CONGESTION", || congestion(&sock))?.1);
        let request = Ask::get("/polled").pieces.concat();
        let (sent, e) = retried(nth, "send", || send(&sock, &request, 0))?;
        failed = failed.or(e);
        ensure!(sent == request.len(), "sent {sent}");
        let info = |sock: &Sock| {
            let (mut room, mut length) = ([0u8; 256], 256u32);
            // SAFETY: The kernel writes at most as many bytes as there is room for.
            Errno::result(unsafe {
                let room = room.as_mut_ptr().cast();
                libc::getsockopt(
                    sock.raw(),
                    libc::SOL_TCP,
                    libc::TCP_INFO,
                    room,
                    &raw mut length,
                )
            })
        };
        failed = failed.or(retried(nth, "getsockopt TCP_INFO", || info(&sock))?.1);
        let limit = Instant::now() + ctx.secs(20);
        let mut got = Vec::with_capacity(65536);
        let mut room = [0u8; 4096];
        let came = loop {
            if let Some((came, _)) = parse(&got)? {
                break came;
            }
            ensure!(
                Instant::now() < limit,
                "it hangs after {:?}",
                crate::http::lossy(&got)
            );
            let (_, e) = retried(nth, "epoll_wait", || {
                let mut events = [libc::epoll_event { events: 0, u64: 0 }; 4];
                // SAFETY: The kernel writes at most four events.
                Errno::result(unsafe {
                    libc::epoll_wait(epoll.raw(), events.as_mut_ptr(), 4, 20_000)
                })
            })?;
            failed = failed.or(e);
            loop {
                let read = nth.call("recv", || recv(&sock, &mut room, libc::MSG_DONTWAIT));
                match read {
                    Ok(n) => {
                        ensure!(n > 0, "an end after {:?}", crate::http::lossy(&got));
                        got.extend_from_slice(room.get(..n).unwrap_or(&[]));
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(e @ (Errno::ENOMEM | Errno::ENOBUFS | Errno::EFAULT))
                        if nth.hit().is_some() =>
                    {
                        ensure!(failed.is_none(), "recv: {e}");
                        failed = Some(e);
                    }
                    // Without memory for a reply either.
                    Err(Errno::ECONNRESET) if nth.hit().is_some() && got.is_empty() => {
                        return Ok("reset".to_owned());
                    }
                    Err(e) => anyhow::bail!("recv: {e}"),
                }
            }
        };
        let own = came.reason.as_deref() == Some("no_memory") && nth.hit().is_some();
        ensure!(
            own || came.body == answer("GET", "/polled", b""),
            "{} {:?} {:?}",
            came.status,
            came.reason,
            crate::http::lossy(&came.body)
        );
        let (_, e) = retried(nth, "shutdown", || {
            // SAFETY: No pointers.
            Errno::result(unsafe { libc::shutdown(sock.raw(), libc::SHUT_WR) })
        })?;
        failed = failed.or(e);
        ensure!(recv(&sock, &mut room, 0) == Ok(0), "no end after shutdown");
        let fd = sock.into_raw();
        // SAFETY: It is ours, and not used any more.
        nth.call("close", || unsafe { libc::close(fd) });
        Ok(if own {
            "503 no_memory".to_owned()
        } else {
            once(failed)
        })
    })?;
    end(ctx)
}

/// `write(); close();`: the request is sent once, or not at all.
pub fn orphan(ctx: &mut Ctx) -> Result<()> {
    let server = Logging::start(BACKEND)?;
    ctx.shop_with(&[BACKEND], "round_robin", POOL)?;
    prepare()?;
    let vip = VIP4.parse()?;
    let mut number = 0;
    for cold in [true, false] {
        let what = if cold {
            "orphan, cold pool"
        } else {
            "orphan, warm pool"
        };
        sweep(what, if cold { 12 } else { 4 }, |nth| {
            number += 1;
            let sock = socket(vip, if cold { 2000 + number } else { 0 }, ctx.secs(20))?;
            sock.connect(vip)?;
            let path = format!("/orphan/{number}");
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 6\r\n\r\nonce\r\n"
            );
            let (sent, failed) = retried(nth, "send", || send(&sock, request.as_bytes(), 0))?;
            ensure!(sent == request.len(), "sent {sent}");
            let fd = sock.into_raw();
            // SAFETY: It is ours, and not used any more.
            nth.call("close", || unsafe { libc::close(fd) });
            let limit = match nth.hit() {
                Some(_) => Duration::from_millis(1500),
                None => ctx.secs(10),
            };
            let until = Instant::now() + limit;
            let seen = || {
                server
                    .requests()
                    .iter()
                    .filter(|s| s.message.path() == path)
                    .count()
            };
            while seen() == 0 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            ensure!(seen() <= 1, "{path} came {} times", seen());
            Ok(match seen() {
                0 => "not sent".to_owned(),
                _ => once(failed),
            })
        })?;
        server.clear();
    }
    end(ctx)
}

pub fn tunnel(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        let Some(request) = conn.head()? else {
            return Ok(());
        };
        if request.field("upgrade").is_none() {
            let text = answer("GET", request.path(), b"");
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            ))?;
            return conn.send(text);
        }
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        loop {
            let bytes = conn.exactly(3000)?;
            conn.send(bytes)?;
        }
    })?;
    ctx.shop_with(&[BACKEND], "round_robin", POOL)?;
    prepare()?;
    let vip = VIP4.parse()?;
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let payload = pattern(3000, 11);
    sweep("tunnel", 10, |nth| {
        let sock = socket(vip, 0, ctx.secs(20))?;
        sock.connect(vip)?;
        // The first bytes of the tunnel come before the 101.
        let mut first = request.as_bytes().to_vec();
        first.extend_from_slice(&payload);
        let bytes = [first.as_slice(), payload.as_slice()];
        let mut failed = None;
        let mut got = Vec::with_capacity(65536);
        let mut room = vec![0u8; 65536];
        let mut wanted = 0;
        for piece in bytes {
            let mut rest = piece;
            while !rest.is_empty() {
                let (n, e) = match retried(nth, "send", || send(&sock, rest, 0)) {
                    Ok(sent) => sent,
                    Err(e) => return over(nth, &e, &got),
                };
                failed = failed.or(e);
                rest = rest.get(n..).unwrap_or(&[]);
            }
            wanted += payload.len();
            loop {
                let begin = crate::http::find(&got, b"\r\n\r\n").map(|at| at + 4);
                if begin.is_some_and(|at| got.len() - at >= wanted) {
                    break;
                }
                let (n, e) = match retried(nth, "recv", || recv(&sock, &mut room, 0)) {
                    Ok(read) => read,
                    Err(e) => return over(nth, &e, &got),
                };
                failed = failed.or(e);
                got.extend_from_slice(room.get(..n).unwrap_or(&[]));
                if got.starts_with(b"HTTP/1.1 503 ") && nth.hit().is_some() {
                    return Ok("503".to_owned());
                }
                ensure!(n > 0, "an end after {:?}", crate::http::lossy(&got));
            }
        }
        let begin = crate::http::find(&got, b"\r\n\r\n").context("no head")? + 4;
        ensure!(
            got.starts_with(b"HTTP/1.1 101 "),
            "{:?}",
            crate::http::lossy(&got)
        );
        let echoed = got.get(begin..).unwrap_or(&[]);
        ensure!(
            echoed == [payload.as_slice(), payload.as_slice()].concat(),
            "wrong bytes"
        );
        Ok(once(failed))
    })?;
    end(ctx)
}

/// A tunnel that was ended by a reset, for the fault.
fn over(nth: &Nth, error: &anyhow::Error, got: &[u8]) -> Result<String> {
    let text = format!("{error:#}");
    let reset = text.contains("ECONNRESET") || text.contains("EPIPE");
    ensure!(
        reset && nth.hit().is_some(),
        "{text} after {:?}",
        crate::http::lossy(got)
    );
    Ok("reset".to_owned())
}
