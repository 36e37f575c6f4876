// SPDX-License-Identifier: GPL-2.0
//! Every way in which a program waits for a socket: poll, select, epoll, io_uring, time-outs, signals.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{select, FdSet};
use nix::sys::socket::{setsockopt, sockopt, MsgFlags, SockFlag, SockaddrStorage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::gettid;

use crate::caller::waits_in;
use crate::ctx::{Ctx, Scenario};
use crate::http::{find, lossy, pattern};
use crate::script::{Gate, Server};
use crate::sock::Sock;

use super::socket_io::{get, start, BACKEND, GET};

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("io/poll_and_select", poll_and_select),
    Scenario::http("io/epoll_level_and_edge", epoll_level_and_edge),
    Scenario::http("io/writable_again", writable_again),
    Scenario::http("io/receive_timeout", receive_timeout),
    Scenario::http("io/send_timeout", send_timeout),
    Scenario::http("io/signal_while_reading", signal_while_reading),
    Scenario::http("io/io_uring", io_uring),
    Scenario::http("io/io_uring_zerocopy", io_uring_zerocopy),
];

fn poll_and_select(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    let both = PollFlags::POLLIN | PollFlags::POLLOUT;
    ensure!(
        sock.poll(both, Duration::ZERO)? == PollFlags::POLLOUT,
        "fresh socket: {:?}",
        sock.poll(both, Duration::ZERO)?
    );
    sock.send_all(b"GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(
        sock.poll(PollFlags::POLLIN, Duration::ZERO)?.is_empty(),
        "readable before the answer"
    );
    ensure!(
        sock.poll(PollFlags::POLLIN, ctx.secs(10))? == PollFlags::POLLIN,
        "not readable with the answer"
    );
    let mut read = FdSet::new();
    read.insert(sock.fd().as_fd());
    let ready = select(
        None,
        Some(&mut read),
        None,
        None,
        Some(&mut TimeVal::seconds(1)),
    )?;
    ensure!(ready == 1, "select says {ready}");
    sock.recv_until("/sleep/300\n")?;
    ensure!(
        sock.poll(both, Duration::ZERO)? == PollFlags::POLLOUT,
        "readable after all was read"
    );
    get(&sock)
}

fn epoll_level_and_edge(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    for edge in [false, true] {
        let sock = Sock::new(vip, SockFlag::SOCK_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mode = if edge {
            EpollFlags::EPOLLET
        } else {
            EpollFlags::empty()
        };
        match sock.connect(vip) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => bail!("connect: {error}"),
        }
        epoll.add(
            sock.fd(),
            EpollEvent::new(
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | mode,
                1,
            ),
        )?;
        ensure!(
            wait(&epoll, ctx.secs(5))?.contains(EpollFlags::EPOLLOUT),
            "writable after connect (edge: {edge})"
        );
        for round in 0..20 {
            sock.send_all(GET)?;
            let end = Instant::now() + ctx.secs(10);
            let mut all = Vec::new();
            while find(&all, b"GET /x\n").is_none() {
                ensure!(
                    Instant::now() < end,
                    "edge: {edge}, round {round}: no event for the answer; have {:?}",
                    lossy(&all)
                );
                if wait(&epoll, Duration::from_millis(500))?.contains(EpollFlags::EPOLLIN) {
                    // Edge-triggered readers must drain; level-triggered ones may read a little.
                    loop {
                        match sock.recv(if edge { 4096 } else { 16 }, MsgFlags::empty()) {
                            Ok(piece) if piece.is_empty() => bail!("closed"),
                            Ok(piece) => all.extend(piece),
                            Err(Errno::EAGAIN) => break,
                            Err(error) => return Err(error.into()),
                        }
                        if !edge {
                            break;
                        }
                    }
                }
            }
        }
        sock.send_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let end = Instant::now() + ctx.secs(10);
        loop {
            ensure!(
                Instant::now() < end,
                "edge: {edge}: no end after Connection: close"
            );
            wait(&epoll, Duration::from_millis(200))?;
            match sock.recv(4096, MsgFlags::empty()) {
                Ok(piece) if piece.is_empty() => break,
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            if ctx.direct {
                break; // the scripted backend does not look at Connection
            }
        }
    }
    Ok(())
}

fn wait(epoll: &Epoll, limit: Duration) -> Result<EpollFlags> {
    let mut events = [EpollEvent::empty()];
    let count = epoll.wait(&mut events, EpollTimeout::try_from(limit)?)?;
    Ok(if count == 0 {
        EpollFlags::empty()
    } else {
        events
            .first()
            .map_or(EpollFlags::empty(), EpollEvent::events)
    })
}

/// A writer that outruns the backend gets EAGAIN, then EPOLLOUT once the backend reads.
fn writable_again(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 20 << 20;
    let reads = Gate::default();
    let at_server = reads.clone();
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.head()?;
        at_server.pass();
        let body = conn.exactly(LENGTH)?;
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{:08x}",
            crate::http::crc(&body)
        ))
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    setsockopt(sock.fd(), sockopt::SndBuf, &262_144)?;
    let body = pattern(LENGTH, 3);
    sock.send_all(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes(),
    )?;
    let (mut sent, mut full) = (0, 0);
    while let Some(rest) = body.get(sent..).filter(|rest| !rest.is_empty()) {
        match sock.send_with(rest, MsgFlags::MSG_DONTWAIT) {
            Ok(count) => sent += count,
            Err(Errno::EAGAIN) => {
                full += 1;
                reads.open();
                let events = sock.poll(PollFlags::POLLOUT, ctx.secs(20))?;
                ensure!(
                    events.contains(PollFlags::POLLOUT),
                    "no POLLOUT after EAGAIN at {sent} bytes: {events:?}"
                );
            }
            Err(error) => bail!("send at {sent}: {error}"),
        }
    }
    ensure!(
        full > 0,
        "{LENGTH} bytes were taken without EAGAIN while the backend did not read"
    );
    let answer = sock.recv_until(&format!("{:08x}", crate::http::crc(&body)))?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", lossy(&answer));
    Ok(())
}

fn receive_timeout(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    sock.timeouts(Duration::from_millis(200))?;
    let begin = Instant::now();
    ensure!(
        sock.recv(10, MsgFlags::empty()) == Err(Errno::EAGAIN),
        "SO_RCVTIMEO without a request"
    );
    sock.send_all(b"GET /sleep/1000 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(
        sock.recv(10, MsgFlags::empty()) == Err(Errno::EAGAIN),
        "SO_RCVTIMEO before the answer"
    );
    ensure!(
        begin.elapsed() >= Duration::from_millis(390),
        "too early: {:?}",
        begin.elapsed()
    );
    sock.timeouts(ctx.secs(20))?;
    sock.recv_until("/sleep/1000\n")?;
    Ok(())
}

/// A blocking send to a backend that does not read ends with what was taken, or EAGAIN, in time.
fn send_timeout(ctx: &mut Ctx) -> Result<()> {
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?;
        thread::sleep(Duration::from_secs(60));
        Ok(())
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    sock.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")?;
    sock.timeouts(Duration::from_millis(400))?;
    let block = vec![b'x'; 1 << 20];
    let mut taken = 0;
    let error = loop {
        let begin = Instant::now();
        match sock.send(&block) {
            Ok(count) => taken += count,
            Err(error) => break error,
        }
        ensure!(
            begin.elapsed() < ctx.secs(5),
            "a send took {:?}",
            begin.elapsed()
        );
        ensure!(
            taken < 64 << 20,
            "{taken} bytes were taken for a backend that does not read"
        );
    };
    ensure!(error == Errno::EAGAIN, "send: {error} after {taken} bytes");
    Ok(())
}

extern "C" fn ignore(_signal: i32) {}

fn signal_while_reading(ctx: &mut Ctx) -> Result<()> {
    use nix::sys::pthread::{pthread_kill, pthread_self};
    use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
    let (backend, vip) = start(ctx)?;
    let action = SigAction::new(
        SigHandler::Handler(ignore),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    let sock = Sock::open(vip)?;
    // With SO_RCVTIMEO a system call ends with EINTR whatever the flags; without it too, as SA_RESTART is off.
    sock.timeouts(Duration::ZERO)?;
    sock.send_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let (reader, id) = (pthread_self(), gettid());
    let (got, waited) = thread::scope(|scope| {
        let signal = scope.spawn(|| -> Result<()> {
            let waited = ctx.until("the reader waits", || waits_in(id, libc::SYS_recvfrom));
            pthread_kill(reader, Signal::SIGUSR1)?;
            waited
        });
        let got = sock.recv(10, MsgFlags::empty());
        (got, signal.join())
    });
    ensure!(got == Err(Errno::EINTR), "a signal must end recv: {got:?}");
    waited.map_err(|_| anyhow!("a thread died"))??;
    backend.held.open();
    sock.recv_until("/held\n")?;
    get(&sock)
}

/// Requests by way of io_uring, which polls where it cannot go on.
fn io_uring(ctx: &mut Ctx) -> Result<()> {
    use io_uring::{opcode, types::Fd, IoUring};
    use nix::sys::socket::SockaddrLike;
    fn run(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> Result<i32> {
        // SAFETY: what the entry points at lives until its completion, which is awaited here.
        unsafe { ring.submission().push(entry) }?;
        ring.submit_and_wait(1)?;
        Ok(ring.completion().next().context("a completion")?.result())
    }
    let (backend, vip) = start(ctx)?;
    let mut ring = IoUring::new(8)?;
    let sock = Sock::new(vip, SockFlag::empty())?;
    let (fd, address) = (Fd(sock.raw()), SockaddrStorage::from(vip));
    let connect = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
    let result = run(&mut ring, &connect)?;
    ensure!(result == 0, "connect: {result}");
    for target in ["/x", "/sleep/200", "/y"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let length = request.len() as u32;
        let sent = run(
            &mut ring,
            &opcode::Send::new(fd, request.as_ptr(), length).build(),
        )?;
        ensure!(sent == request.len() as i32, "send: {sent}");
        let wanted = format!("GET {target}\n");
        let mut answer = Vec::new();
        while find(&answer, wanted.as_bytes()).is_none() {
            let mut piece = [0u8; 50];
            let recv = opcode::Recv::new(fd, piece.as_mut_ptr(), piece.len() as u32).build();
            let got = run(&mut ring, &recv)?;
            ensure!(got > 0, "recv: {got} after {:?}", lossy(&answer));
            answer.extend(piece.get(..got as usize).unwrap_or(&[]));
        }
    }
    // A receive that waits is ended by a shutdown from another thread.
    let other = sock.dup()?;
    let id = gettid();
    let (got, waited) = thread::scope(|scope| {
        let shutter = scope.spawn(|| -> Result<()> {
            let waited = ctx.until("the receive waits", || {
                waits_in(id, libc::SYS_io_uring_enter)
            });
            nix::sys::socket::shutdown(other.raw(), nix::sys::socket::Shutdown::Both)?;
            waited
        });
        let mut piece = [0u8; 50];
        let recv = opcode::Recv::new(fd, piece.as_mut_ptr(), piece.len() as u32).build();
        let got = run(&mut ring, &recv);
        (got, shutter.join())
    });
    let got = got?;
    ensure!(got == 0, "recv after shutdown: {got}");
    waited.map_err(|_| anyhow!("a thread died"))??;
    ensure!(backend.count() == 3, "{} requests", backend.count());
    Ok(())
}

/// SEND_ZC and SENDMSG_ZC, also of a registered buffer: each has a result, and then a notice, which says that
/// the bytes were copied. Nothing of it is in the socket's error queue, SO_ZEROCOPY or not.
fn io_uring_zerocopy(ctx: &mut Ctx) -> Result<()> {
    use io_uring::{cqueue, opcode, types::Fd, IoUring};
    const REPORT_USAGE: u16 = 8;
    const COPIED: i32 = i32::MIN;
    fn run(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> Result<usize> {
        // SAFETY: what the entry points at lives until its notice, which is awaited here.
        unsafe { ring.submission().push(entry) }?;
        let mut sent = None;
        loop {
            ring.submit_and_wait(1)?;
            let Some(done) = ring.completion().next() else {
                continue;
            };
            if cqueue::notif(done.flags()) {
                ensure!(done.result() == COPIED, "notice {:#x}", done.result());
                return sent.context("a notice before the result");
            }
            ensure!(
                done.result() > 0 && cqueue::more(done.flags()),
                "result {} without a notice to come",
                done.result()
            );
            sent = Some(done.result() as usize);
        }
    }
    let (backend, vip) = start(ctx)?;
    let mut ring = IoUring::new(8)?;
    let sock = Sock::open(vip)?;
    let fd = Fd(sock.raw());
    let body = pattern(300_000, 5);
    let head = b"POST /zero HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n";
    let request = [&head[..], &body].concat();
    let vector = libc::iovec {
        iov_base: request.as_ptr().cast_mut().cast(),
        iov_len: request.len(),
    };
    // SAFETY: the buffer outlives the ring's use of it.
    unsafe { ring.submitter().register_buffers(&[vector]) }?;
    for so_zerocopy in [0, 1] {
        sock.set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, so_zerocopy)?;
        for kind in ["send", "fixed", "sendmsg"] {
            let mut sent = 0;
            while let Some(rest) = request.get(sent..).filter(|rest| !rest.is_empty()) {
                let send = opcode::SendZc::new(fd, rest.as_ptr(), rest.len() as u32)
                    .zc_flags(REPORT_USAGE);
                let mut vector = libc::iovec {
                    iov_base: rest.as_ptr().cast_mut().cast(),
                    iov_len: rest.len(),
                };
                // SAFETY: an all-zero msghdr is a valid empty one.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                message.msg_iov = &mut vector;
                message.msg_iovlen = 1;
                let entry = match kind {
                    "send" => send.build(),
                    "fixed" => send.buf_index(Some(0)).build(),
                    _ => opcode::SendMsgZc::new(fd, &message)
                        .ioprio(REPORT_USAGE)
                        .build(),
                };
                sent += run(&mut ring, &entry).with_context(|| format!("{kind} after {sent}"))?;
            }
            sock.recv_until("POST /zero\n")?;
            ensure!(
                backend
                    .requests()
                    .last()
                    .is_some_and(|seen| seen.message.body == body),
                "{kind}: the body differs"
            );
            let events = sock.poll(PollFlags::empty(), Duration::ZERO)?;
            ensure!(events.is_empty(), "{kind}: {events:?}");
        }
    }
    Ok(())
}
