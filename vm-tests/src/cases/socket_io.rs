// SPDX-License-Identifier: GPL-2.0
//! Every way in which a program writes to a socket, reads from it, waits for it and ends it.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{select, FdSet};
use nix::sys::socket::{setsockopt, sockopt, MsgFlags, SockFlag, SockaddrStorage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, ForkResult};

use crate::ctx::{Ctx, Scenario};
use crate::http::{find, lossy, pattern};
use crate::script::{Logging, Server};
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("io/one_byte_writes", one_byte_writes),
    Scenario::http("io/pipelined", pipelined),
    Scenario::http("io/poll_and_select", poll_and_select),
    Scenario::http("io/epoll_level_and_edge", epoll_level_and_edge),
    Scenario::http("io/writable_again", writable_again),
    Scenario::http("io/peek_dontwait_waitall", peek_dontwait_waitall),
    Scenario::http("io/receive_timeout", receive_timeout),
    Scenario::http("io/queue_lengths", queue_lengths),
    Scenario::http("io/vectors_more_and_zerocopy", vectors_more_and_zerocopy),
    Scenario::http("io/sendfile_and_splice", sendfile_and_splice),
    Scenario::http("io/shutdown_write", shutdown_write),
    Scenario::http("io/shutdown_read_and_both", shutdown_read_and_both),
    Scenario::http("io/close_with_unread_data", close_with_unread_data),
    Scenario::http("io/linger", linger),
    Scenario::http("io/io_uring", io_uring),
    Scenario::http("io/broken_pipe", broken_pipe),
    Scenario::http("io/fork_and_dup", fork_and_dup),
    Scenario::http(
        "io/passed_to_another_socket_owner",
        passed_to_another_socket_owner,
    ),
    Scenario::http("io/send_timeout", send_timeout),
    Scenario::http("io/two_threads_one_socket", two_threads_one_socket),
    Scenario::http("io/signal_while_reading", signal_while_reading),
];

const BACKEND: &str = "127.0.1.1:8001";
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n";

fn start(ctx: &mut Ctx) -> Result<(Logging, SocketAddr)> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    Ok((backend, vip))
}

/// A backend that answers each request with this many bytes.
fn big(length: usize) -> Result<Server> {
    Server::start(BACKEND, move |mut conn, _| {
        while conn.request_read()?.is_some() {
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))?;
            conn.send(pattern(length, 7))?;
        }
        Ok(())
    })
}

fn get(sock: &Sock) -> Result<()> {
    sock.send_all(GET)?;
    sock.recv_until("GET /x\n")?;
    Ok(())
}

fn one_byte_writes(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = start(ctx)?;
    let mut conn = ctx.open(vip)?;
    let request = b"POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
        PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nx-t: 1\r\n\r\n";
    for byte in request {
        conn.send([*byte])?;
    }
    conn.response("POST")?.expect(200)?;
    conn.response("PUT")?.expect(200)?;
    let bodies: Vec<_> = backend
        .requests()
        .into_iter()
        .map(|seen| seen.message.body)
        .collect();
    ensure!(bodies == [b"hello".to_vec(), b"abc".to_vec()], "{bodies:?}");
    Ok(())
}

fn pipelined(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = start(ctx)?;
    let mut conn = ctx.open(vip)?;
    // The first answer is slow: the others must not overtake it.
    let mut bytes = String::from("GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    for number in 1..50 {
        let body = "b".repeat(number);
        bytes += &format!(
            "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {number}\r\n\r\n{body}"
        );
    }
    conn.send(&bytes)?;
    ensure!(
        conn.response("GET")?.text().ends_with("/sleep/300"),
        "first"
    );
    for number in 1..50 {
        let text = conn.response("POST")?.text();
        ensure!(
            text.ends_with(&format!("POST /{number}")),
            "answer {number}: {text}"
        );
    }
    ensure!(backend.count() == 50, "{}", backend.count());
    Ok(())
}

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
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?;
        thread::sleep(Duration::from_millis(700));
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

fn peek_dontwait_waitall(ctx: &mut Ctx) -> Result<()> {
    let _server = big(300_000)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    ensure!(
        sock.recv(1, MsgFlags::MSG_DONTWAIT) == Err(Errno::EAGAIN),
        "MSG_DONTWAIT on an empty queue"
    );
    sock.send_all(GET)?;
    ensure!(
        !sock.poll(PollFlags::POLLIN, ctx.secs(10))?.is_empty(),
        "readable"
    );
    let seen = sock.recv(9, MsgFlags::MSG_PEEK)?;
    ensure!(seen == b"HTTP/1.1 ", "peek {seen:?}");
    ensure!(sock.recv(9, MsgFlags::MSG_PEEK)? == seen, "peek again");
    ensure!(
        sock.recv(3, MsgFlags::empty())? == b"HTT",
        "read after peek"
    );
    ensure!(
        sock.recv(4, MsgFlags::MSG_PEEK)? == b"P/1.",
        "peek in the middle"
    );
    let head = "P/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";
    ensure!(
        sock.recv(head.len(), MsgFlags::MSG_WAITALL)? == head.as_bytes(),
        "head"
    );
    let body = sock.recv(300_000, MsgFlags::MSG_WAITALL)?;
    ensure!(
        body == pattern(300_000, 7),
        "MSG_WAITALL gave {} bytes",
        body.len()
    );
    // MSG_TRUNC throws bytes away and counts them.
    sock.send_all(GET)?;
    let mut thrown = 0;
    while thrown < head.len() + 3 + 300_000 {
        let piece = sock.recv(65536, MsgFlags::MSG_TRUNC)?;
        ensure!(!piece.is_empty(), "end after {thrown}");
        thrown += piece.len();
    }
    ensure!(
        thrown == head.len() + 3 + 300_000,
        "MSG_TRUNC counted {thrown}"
    );
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

nix::ioctl_read_bad!(fionread, libc::FIONREAD, i32);
nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, i32);

fn queue_lengths(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    let mut queued = -1;
    // SAFETY: each ioctl writes one int.
    unsafe { fionread(sock.raw(), &mut queued) }.context("FIONREAD")?;
    ensure!(queued == 0, "FIONREAD {queued} on a fresh socket");
    sock.send_all(GET)?;
    ensure!(
        !sock.poll(PollFlags::POLLIN, ctx.secs(10))?.is_empty(),
        "readable"
    );
    thread::sleep(Duration::from_millis(100));
    unsafe { fionread(sock.raw(), &mut queued) }.context("FIONREAD")?;
    let answer = sock.recv(65536, MsgFlags::empty())?;
    ensure!(
        answer.len() as i32 == queued,
        "FIONREAD said {queued}, {} came",
        answer.len()
    );
    unsafe { siocoutq(sock.raw(), &mut queued) }.context("SIOCOUTQ")?;
    ensure!(queued == 0, "SIOCOUTQ {queued} after the answer");
    Ok(())
}

fn vectors_more_and_zerocopy(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    // A head in vectors of odd sizes, then read in vectors.
    let pieces: Vec<IoSlice> = GET.chunks(7).map(IoSlice::new).collect();
    let sent = nix::sys::uio::writev(sock.fd(), &pieces)?;
    ensure!(sent == GET.len(), "writev {sent}");
    ensure!(
        !sock.poll(PollFlags::POLLIN, ctx.secs(10))?.is_empty(),
        "readable"
    );
    let (mut one, mut two) = ([0u8; 4], vec![0u8; 4096]);
    let got = nix::sys::uio::readv(
        sock.fd(),
        &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)],
    )?;
    ensure!(&one == b"HTTP" && got > 20, "readv {got} {one:?}");
    // MSG_MORE: nothing may be lost however long the rest takes.
    for part in [
        &b"POST /more HTTP/1.1\r\n"[..],
        b"Host: a\r\nContent-Le",
        b"ngth: 4\r\n\r\n",
        b"ab",
    ] {
        sock.send_with(part, MsgFlags::from_bits_retain(libc::MSG_MORE))?;
    }
    sock.send_all(b"cd")?;
    sock.recv_until("POST /more\n")?;
    // MSG_ZEROCOPY: the data must not change after the call, so the program waits for the notice; a copy is fine.
    if sock.set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).is_ok() {
        let body = pattern(100_000, 5);
        sock.send_all(b"POST /zero HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")?;
        let mut sent = 0;
        while let Some(rest) = body.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += sock.send_with(rest, MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY))?;
        }
        sock.recv_until("POST /zero\n")?;
        ensure!(
            backend
                .requests()
                .last()
                .is_some_and(|seen| seen.message.body == body),
            "zero-copy body differs"
        );
    }
    // sendmmsg: two requests in one call.
    let mut first = [IoSlice::new(b"GET /m1 HTTP/1.1\r\nHost: a\r\n\r\n")];
    let mut second = [IoSlice::new(b"GET /m2 HTTP/1.1\r\nHost: a\r\n\r\n")];
    let message = |slices: &mut [IoSlice; 1]| libc::mmsghdr {
        // SAFETY: an all-zero msghdr is a valid empty one.
        msg_hdr: libc::msghdr {
            msg_iov: slices.as_mut_ptr().cast(),
            msg_iovlen: 1,
            ..unsafe { std::mem::zeroed() }
        },
        msg_len: 0,
    };
    let mut both = [message(&mut first), message(&mut second)];
    // SAFETY: both messages and their vectors live until the call returns.
    let count = unsafe { libc::sendmmsg(sock.raw(), both.as_mut_ptr(), 2, 0) };
    ensure!(count == 2, "sendmmsg {count}: {}", Errno::last());
    sock.recv_until("GET /m2\n")?;
    Ok(())
}

fn sendfile_and_splice(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = start(ctx)?;
    let body = pattern(1 << 20, 9);
    let path = ctx.path("body");
    File::create(&path)?.write_all(&body)?;
    let sock = Sock::open(vip)?;
    let head = format!(
        "PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    sock.send_all(head.as_bytes())?;
    let file = File::open(&path)?;
    let mut left = body.len();
    while left > 0 {
        // SAFETY: both descriptors are open; a null offset means the file's own.
        let sent =
            unsafe { libc::sendfile(sock.raw(), file.as_raw_fd(), std::ptr::null_mut(), left) };
        ensure!(sent > 0, "sendfile: {sent} {}", Errno::last());
        left -= sent as usize;
    }
    sock.recv_until("PUT /file\n")?;
    // splice: file -> pipe -> socket.
    sock.send_all(head.as_bytes())?;
    let file = File::open(&path)?;
    let (reader, writer) = nix::unistd::pipe()?;
    let mut left = body.len();
    while left > 0 {
        let mut piped = splice(file.as_raw_fd(), writer.as_raw_fd(), left.min(32768))
            .context("splice from the file")?;
        left -= piped;
        while piped > 0 {
            piped -=
                splice(reader.as_raw_fd(), sock.raw(), piped).context("splice to the socket")?;
        }
    }
    sock.recv_until("PUT /file\n")?;
    for seen in backend.requests() {
        ensure!(seen.message.body == body, "body differs");
    }
    // splice: socket -> pipe.
    sock.send_all(GET)?;
    let mut all = Vec::new();
    while find(&all, b"GET /x\n").is_none() {
        let count =
            splice(sock.raw(), writer.as_raw_fd(), 4096).context("splice from the socket")?;
        ensure!(count > 0, "splice from the socket: end");
        let mut piece = vec![0; count];
        nix::unistd::read(reader.as_raw_fd(), &mut piece)?;
        all.extend(piece);
    }
    Ok(())
}

fn splice(from: i32, to: i32, length: usize) -> Result<usize, Errno> {
    // SAFETY: plain descriptors, no offsets.
    let moved = unsafe {
        libc::splice(
            from,
            std::ptr::null_mut(),
            to,
            std::ptr::null_mut(),
            length,
            0,
        )
    };
    Errno::result(moved).map(|count| count as usize)
}

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
    let sleeper = thread::spawn(move || std::io::Read::read(&mut &reader, &mut [0; 10]));
    thread::sleep(Duration::from_millis(200));
    conn.stream.shutdown(std::net::Shutdown::Both)?;
    let got = sleeper.join().map_err(|_| anyhow::anyhow!("reader"))??;
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
    let (ends, seen) = mpsc::channel();
    let _server = Server::start(BACKEND, move |mut conn, _| {
        conn.head()?;
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
        thread::sleep(Duration::from_millis(200));
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
    let shutter = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        nix::sys::socket::shutdown(other.raw(), nix::sys::socket::Shutdown::Both)
    });
    let mut piece = [0u8; 50];
    let got = run(
        &mut ring,
        &opcode::Recv::new(fd, piece.as_mut_ptr(), piece.len() as u32).build(),
    )?;
    ensure!(got == 0, "recv after shutdown: {got}");
    shutter.join().map_err(|_| anyhow::anyhow!("shutter"))??;
    ensure!(backend.count() == 3, "{} requests", backend.count());
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

fn fork_and_dup(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    get(&sock)?;
    // SAFETY: the child only makes system calls on the socket, then exits.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let ok = (0..20).all(|_| get(&sock).is_ok());
            // SAFETY: no destructor of the parent's may run here.
            unsafe { libc::_exit(i32::from(!ok)) }
        }
        ForkResult::Parent { child } => {
            ensure!(
                matches!(waitpid(child, None)?, WaitStatus::Exited(_, 0)),
                "the child's requests failed"
            );
        }
    }
    get(&sock).context("after the child's end")?;
    let copy = sock.dup()?;
    drop(sock);
    get(&copy).context("the duplicate, after the original was closed")
}

/// The descriptor travels over a Unix socket; the original is closed on the way.
fn passed_to_another_socket_owner(ctx: &mut Ctx) -> Result<()> {
    use nix::sys::socket::{
        recvmsg, sendmsg, socketpair, AddressFamily, ControlMessage, ControlMessageOwned, SockType,
    };
    let (_backend, vip) = start(ctx)?;
    let (one, two) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::empty(),
    )?;
    let sock = Sock::open(vip)?;
    sock.send_all(b"GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let fds = [sock.raw()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        one.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &rights,
        MsgFlags::empty(),
        None,
    )?;
    drop(sock);
    let mut byte = [0u8; 1];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(
        two.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let sock = Sock::adopt(fd.context("no descriptor came")?);
    sock.recv_until("/sleep/300\n")?;
    get(&sock)
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

/// One thread writes requests, another reads the answers.
fn two_threads_one_socket(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    let conn = ctx.open(vip)?;
    let mut writer = conn.stream.try_clone()?;
    let thread = thread::spawn(move || -> Result<()> {
        for number in 0..500 {
            writer.write_all(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        }
        Ok(())
    });
    let mut conn = conn;
    for number in 0..500 {
        let text = conn
            .response("GET")
            .with_context(|| format!("answer {number}"))?
            .text();
        ensure!(
            text.ends_with(&format!("GET /{number}")),
            "answer {number}: {text}"
        );
    }
    thread.join().map_err(|_| anyhow::anyhow!("writer"))?
}

extern "C" fn ignore(_signal: i32) {}

fn signal_while_reading(ctx: &mut Ctx) -> Result<()> {
    use nix::sys::pthread::{pthread_kill, pthread_self};
    use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
    let (_backend, vip) = start(ctx)?;
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
    sock.send_all(b"GET /sleep/1500 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let reader = pthread_self();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        pthread_kill(reader, Signal::SIGUSR1)
    });
    ensure!(
        sock.recv(10, MsgFlags::empty()) == Err(Errno::EINTR),
        "a signal must end recv"
    );
    thread.join().map_err(|_| anyhow::anyhow!("thread"))??;
    sock.recv_until("/sleep/1500\n")?;
    get(&sock)
}
