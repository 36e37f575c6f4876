// SPDX-License-Identifier: GPL-2.0
//! Every way in which a program ends a socket, or half of one.

use std::sync::{mpsc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt, MsgFlags};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, ForkResult};

use crate::caller::Caller;
use crate::ctx::{Ctx, Scenario};
use crate::http::{find, lossy, pattern};
use crate::script::Server;
use crate::sock::Sock;

use super::socket_io::{big, get, start, BACKEND, GET};

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("io/shutdown_write", shutdown_write),
    Scenario::http("io/shutdown_read_and_both", shutdown_read_and_both),
    Scenario::http("io/close_with_unread_data", close_with_unread_data),
    Scenario::http("io/linger", linger),
    Scenario::http("io/linger_waits", linger_waits),
    Scenario::http("io/broken_pipe", broken_pipe),
    Scenario::http("io/reset_after_a_part", reset_after_a_part),
];

fn shutdown_write(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let mut conn = ctx.open(vip)?;
    conn.get("/before")?;
    conn.send("GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    conn.shutdown_write()?;
    conn.response("GET")?.expect(200)?;
    conn.expect_eof().context("after the last answer")?;
    ensure!(
        conn.send("GET / HTTP/1.1\r\n").is_err(),
        "write after shutdown"
    );
    // In the middle of a request: the rest can never come, so the connection ends.
    let mut conn = ctx.open(vip)?;
    conn.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")?;
    conn.shutdown_write()?;
    let (bytes, closed) = conn.rest(ctx.secs(5))?;
    ensure!(
        closed,
        "half a body, then FIN: the connection stays open; got {:?}",
        lossy(&bytes)
    );
    ensure!(
        find(&bytes, b" 200 ").is_none(),
        "half a body was answered: {:?}",
        lossy(&bytes)
    );
    Ok(())
}

fn shutdown_read_and_both(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    for how in [std::net::Shutdown::Read, std::net::Shutdown::Both] {
        let mut conn = ctx.open(vip)?;
        conn.get("/before")?;
        conn.stream.shutdown(how)?;
        conn.expect_eof().with_context(|| format!("{how:?}"))?;
    }
    // While a reader sleeps in the call.
    let conn = ctx.open(vip)?;
    let reader = conn.stream.try_clone()?;
    let sleeper = Caller::start(move || std::io::Read::read(&mut &reader, &mut [0; 10]))?;
    ctx.until("the reader sleeps", || sleeper.waits_in(libc::SYS_recvfrom))?;
    conn.stream.shutdown(std::net::Shutdown::Both)?;
    let got = sleeper.join()??;
    ensure!(got == 0, "the sleeping reader got {got}");
    Ok(())
}

fn close_with_unread_data(ctx: &mut Ctx) -> Result<()> {
    let _server = big(5_000_000)?;
    let vip = ctx.shop(&[BACKEND])?;
    for round in 0..30 {
        let sock = Sock::open(vip)?;
        sock.send_all(GET)?;
        // From "nothing came yet" to "much of it is queued".
        thread::sleep(Duration::from_millis(round * 5));
        if round % 3 == 0 {
            sock.recv(1000, MsgFlags::empty())?;
        }
    }
    let mut conn = ctx.open(vip)?;
    let answer = conn.get("/whole")?;
    ensure!(
        answer.body == pattern(5_000_000, 7),
        "a later client got {} bytes",
        answer.body.len()
    );
    Ok(())
}

/// How a close in the middle of a request looks to the backend: in order, or a reset when `SO_LINGER` says so.
fn linger(ctx: &mut Ctx) -> Result<()> {
    let (begins, begun) = mpsc::channel();
    let (ends, seen) = mpsc::channel();
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.head()?;
        begins.send(conn.exactly(4)?)?;
        let mut end = [0; 100];
        let result = loop {
            match std::io::Read::read(&mut conn.stream, &mut end) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error.raw_os_error()),
            }
        };
        ends.send(result)?;
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let reset = Err(Some(libc::ECONNRESET));
    for (seconds, wanted) in [(None, Ok(())), (Some(0), reset), (Some(5), Ok(()))] {
        let sock = Sock::open(vip)?;
        if let Some(l_linger) = seconds {
            let l_onoff = 1;
            setsockopt(
                sock.fd(),
                sockopt::Linger,
                &libc::linger { l_onoff, l_linger },
            )?;
        }
        sock.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")?;
        let half = begun.recv_timeout(ctx.secs(20))?;
        ensure!(half == b"half", "{:?}", lossy(&half));
        let begin = Instant::now();
        drop(sock);
        ensure!(
            begin.elapsed() < ctx.secs(5),
            "close took {:?}",
            begin.elapsed()
        );
        let end = seen.recv_timeout(ctx.secs(20))?;
        ensure!(
            end == wanted,
            "SO_LINGER {seconds:?}: the backend saw {end:?}"
        );
    }
    Ok(())
}

/// SO_LINGER with a time: close() waits until the peer has acknowledged all, but no longer than that
/// (`tcp_close()`, `sk_stream_wait_close()`).
fn linger_waits(ctx: &mut Ctx) -> Result<()> {
    let (begin_reading, may_read) = mpsc::channel::<()>();
    let may_read = Mutex::new(may_read);
    let (ends, seen) = mpsc::channel();
    let _server = Server::start(BACKEND, move |mut conn, _| {
        let head = conn.head()?.context("no request")?;
        // A body behind "/now" is read at once; another one when the test says so.
        if !head.start.starts_with("POST /now") {
            let _ = may_read.lock().map(|may_read| may_read.recv());
        }
        let mut part = vec![0; 65_536];
        let mut total = 0usize;
        while let Ok(n) = std::io::Read::read(&mut conn.stream, &mut part) {
            if n == 0 {
                break;
            }
            total += n;
        }
        ends.send(total)?;
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 2,
    };
    for path in ["/now", "/later"] {
        let sock = Sock::open(vip)?;
        setsockopt(sock.fd(), sockopt::Linger, &linger)?;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
        sock.send_all(head.as_bytes())?;
        let body = pattern(1 << 20, 3);
        // As much as there is room for.
        while sock.send_with(&body, MsgFlags::MSG_DONTWAIT).is_ok() {
            if path == "/now" {
                break;
            }
        }
        let begin = Instant::now();
        drop(sock);
        let took = begin.elapsed();
        let is_late = took >= Duration::from_millis(1900);
        ensure!(
            is_late == (path == "/later") && took < ctx.secs(4),
            "{path}: close took {took:?}"
        );
        if path == "/later" {
            begin_reading.send(())?;
        }
        ensure!(seen.recv_timeout(ctx.secs(20))? > 0, "{path}: no body");
    }
    Ok(())
}

fn broken_pipe(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    get(&sock)?;
    nix::sys::socket::shutdown(sock.raw(), nix::sys::socket::Shutdown::Write)?;
    ensure!(
        sock.send(GET) == Err(Errno::EPIPE),
        "write after shutdown: EPIPE"
    );
    // Without MSG_NOSIGNAL it is a signal; the child must die of it.
    // SAFETY: the child only makes system calls.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: resets one disposition, writes, exits.
            unsafe {
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                libc::send(sock.raw(), GET.as_ptr().cast(), GET.len(), 0);
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGPIPE, _) => Ok(()),
            other => bail!("{other:?}"),
        },
    }
}

/// A read that has bytes to return leaves the error to the next one, as TCP's does: what was cut off must not look whole.
fn reset_after_a_part(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nhalf")?;
        // The client has read this by then, and wants more.
        thread::sleep(Duration::from_millis(300));
        conn.reset()
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    sock.send_all(GET)?;
    let part = sock.recv(100_000, MsgFlags::MSG_WAITALL)?;
    ensure!(part.ends_with(b"half"), "{:?}", lossy(&part));
    let next = sock.recv(100, MsgFlags::empty());
    ensure!(next == Err(Errno::ECONNRESET), "{next:?}");
    let end = sock.recv(100, MsgFlags::empty());
    ensure!(end == Ok(Vec::new()), "{end:?}");
    Ok(())
}
