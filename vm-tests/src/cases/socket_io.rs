// SPDX-License-Identifier: GPL-2.0
//! Every way in which a program writes to a socket, reads from it and shares it.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{mpsc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{MsgFlags, SockFlag};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, gettid, ForkResult, Pid};

use super::pool_cpus::run_on;
use crate::caller::waits_in;
use crate::ctx::{Ctx, Scenario};
use crate::http::{find, pattern};
use crate::script::{Logging, Server};
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::http("io/one_byte_writes", one_byte_writes),
    Scenario::http("io/pipelined", pipelined),
    Scenario::http("io/peek_dontwait_waitall", peek_dontwait_waitall),
    Scenario::http("io/queue_lengths", queue_lengths),
    Scenario::http("io/vectors_and_more", vectors_and_more),
    Scenario::http("io/zerocopy", zerocopy),
    Scenario::http("io/receive_low_water", receive_low_water),
    Scenario::http("io/peek_all", peek_all),
    Scenario::http("io/receive_flow_steering", receive_flow_steering),
    Scenario::http("io/sendfile_and_splice", sendfile_and_splice),
    Scenario::http("io/fork_and_dup", fork_and_dup),
    Scenario::http(
        "io/passed_to_another_socket_owner",
        passed_to_another_socket_owner,
    ),
    Scenario::http("io/two_threads_one_socket", two_threads_one_socket),
];

pub const BACKEND: &str = "127.0.1.1:8001";
pub const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n";

pub fn start(ctx: &mut Ctx) -> Result<(Logging, SocketAddr)> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    Ok((backend, vip))
}

/// A backend that answers each request with this many bytes.
pub fn big(length: usize) -> Result<Server> {
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

pub fn get(sock: &Sock) -> Result<()> {
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

fn queue_lengths(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
    // As long as each answer.
    let other = Sock::open(vip)?;
    other.send_all(GET)?;
    let whole = other.recv_until("GET /x\n")?.len() as i32;
    let sock = Sock::open(vip)?;
    let mut queued = sock.unread().context("FIONREAD")?;
    ensure!(queued == 0, "FIONREAD {queued} on a fresh socket");
    sock.send_all(GET)?;
    ensure!(
        !sock.poll(PollFlags::POLLIN, ctx.secs(10))?.is_empty(),
        "readable"
    );
    ctx.until("the whole answer", || {
        queued = sock.unread().context("FIONREAD")?;
        Ok(queued == whole)
    })
    .with_context(|| format!("FIONREAD {queued} of {whole}"))?;
    let answer = sock.recv(65536, MsgFlags::empty())?;
    ensure!(
        answer.len() as i32 == queued,
        "FIONREAD said {queued}, {} came",
        answer.len()
    );
    let queued = sock.unacknowledged().context("SIOCOUTQ")?;
    ensure!(queued == 0, "SIOCOUTQ {queued} after the answer");
    Ok(())
}

fn vectors_and_more(ctx: &mut Ctx) -> Result<()> {
    let (_backend, vip) = start(ctx)?;
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

/// `include/uapi/linux/errqueue.h`
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
/// `include/uapi/linux/errqueue.h`
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// MSG_ZEROCOPY: the program must not change its bytes until a notice comes for the call, in the error queue
/// (Documentation/networking/msg_zerocopy.rst). Here, as on loopback, it says that they were copied.
fn zerocopy(ctx: &mut Ctx) -> Result<()> {
    let (backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    let zerocopy = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY);
    // Without the option the flag asks for nothing.
    sock.send_with(GET, zerocopy)?;
    sock.recv_until("GET /x\n")?;
    ensure!(notice(&sock)?.is_none(), "a notice that was not asked for");
    sock.set(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let body = pattern(100_000, 5);
    sock.send_with(
        b"POST /zero HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        zerocopy,
    )?;
    let mut calls = 1;
    let mut sent = 0;
    while let Some(rest) = body.get(sent..).filter(|rest| !rest.is_empty()) {
        let piece = rest.get(..30_000).unwrap_or(rest);
        sent += sock.send_with(piece, zerocopy)?;
        calls += 1;
    }
    sock.recv_until("POST /zero\n")?;
    ensure!(
        backend
            .requests()
            .last()
            .is_some_and(|seen| seen.message.body == body),
        "zero-copy body differs"
    );
    // One notice may stand for several calls, which are numbered from 0.
    let mut next = 0;
    while next < calls {
        let events = sock.poll(PollFlags::empty(), ctx.secs(5))?;
        ensure!(
            events.contains(PollFlags::POLLERR),
            "no notice for call {next} of {calls}: {events:?}"
        );
        let error = notice(&sock)?.context("POLLERR without a notice")?;
        ensure!(
            error.ee_errno == 0
                && error.ee_origin == SO_EE_ORIGIN_ZEROCOPY
                && error.ee_code == SO_EE_CODE_ZEROCOPY_COPIED
                && error.ee_info == next
                && error.ee_data >= next,
            "{error:?}, after {next}"
        );
        next = error.ee_data + 1;
    }
    ensure!(next == calls, "notices for {next} of {calls} calls");
    // A call that takes nothing has no notice, and no number.
    nix::sys::socket::shutdown(sock.raw(), nix::sys::socket::Shutdown::Write)?;
    let refused = sock.send_with(GET, zerocopy | MsgFlags::MSG_NOSIGNAL);
    ensure!(refused == Err(Errno::EPIPE), "{refused:?}");
    ensure!(notice(&sock)?.is_none(), "a notice for a refused call");
    Ok(())
}

/// What the error queue has.
fn notice(sock: &Sock) -> Result<Option<libc::sock_extended_err>> {
    let mut control = [0u64; 16];
    // SAFETY: an all-zero msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = std::mem::size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message and its control buffer live until the call returns.
    match Errno::result(unsafe { libc::recvmsg(sock.raw(), &mut message, flags) }) {
        Err(Errno::EAGAIN) => return Ok(None),
        other => other.context("MSG_ERRQUEUE")?,
    };
    // SAFETY: the kernel has filled the control buffer, whose length is in the message.
    let header = unsafe { libc::CMSG_FIRSTHDR(&message).as_ref() }.context("no control message")?;
    ensure!(
        (header.cmsg_level, header.cmsg_type) == (libc::SOL_IP, libc::IP_RECVERR),
        "control message {} {}",
        header.cmsg_level,
        header.cmsg_type
    );
    // SAFETY: the data of IP_RECVERR begins with this structure.
    Ok(Some(unsafe {
        libc::CMSG_DATA(header)
            .cast::<libc::sock_extended_err>()
            .read_unaligned()
    }))
}

/// A head for each path: as it goes to the client, and for "/keep" with a hop-by-hop field, which makes XLB
/// write it anew.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
const KEEP: &str = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nContent-Length: 1000\r\n\r\n";

/// Answers with 300 bytes of the body at once, and the rest at a word.
fn in_two_parts() -> Result<(Server, mpsc::Sender<()>)> {
    let (go, went) = mpsc::channel::<()>();
    let went = Mutex::new(went);
    let server = Server::start(BACKEND, move |mut conn, _| {
        let wait = || -> Result<()> {
            let went = went.lock().map_err(|_| anyhow!("poisoned"))?;
            Ok(went.recv_timeout(Duration::from_secs(20))?)
        };
        while let Some(request) = conn.head()? {
            let head = if request.start.contains("/keep") {
                KEEP
            } else {
                HEAD
            };
            conn.stream.write_all(head.as_bytes())?;
            conn.stream.write_all(&[b'a'; 300])?;
            wait()?;
            conn.stream.write_all(&[b'b'; 700])?;
            if request.start.contains("/end") {
                wait()?;
                return Ok(());
            }
        }
        Ok(())
    })?;
    Ok((server, go))
}

/// SO_RCVLOWAT: poll says nothing before so many bytes are there, or an end (`tcp_epollin_ready()`), and a
/// read waits for them (`tcp_recvmsg_locked()`).
fn receive_low_water(ctx: &mut Ctx) -> Result<()> {
    let (_server, go) = in_two_parts()?;
    let vip = ctx.shop(&[BACKEND])?;
    let moment = Duration::from_millis(300);
    for path in ["/plain", "/keep", "/end"] {
        let sock = Sock::open(vip)?;
        sock.set(libc::SOL_SOCKET, libc::SO_RCVLOWAT, 900)?;
        sock.send_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        let early = sock.poll(PollFlags::POLLIN, moment)?;
        ensure!(early.is_empty(), "{path}: {early:?} after 300 bytes");
        go.send(())?;
        let late = sock.poll(PollFlags::POLLIN, ctx.secs(5))?;
        ensure!(
            late.contains(PollFlags::POLLIN),
            "{path}: nothing after all"
        );
        let got = sock.recv(900, MsgFlags::empty())?;
        ensure!(got.len() == 900, "{path}: a read of {}", got.len());
        // What is left is fewer than that.
        let left = sock.poll(PollFlags::POLLIN, moment)?;
        ensure!(left.is_empty(), "{path}: {left:?} for the rest");
        if path == "/end" {
            go.send(())?;
            let end = sock.poll(PollFlags::POLLIN, ctx.secs(5))?;
            ensure!(end.contains(PollFlags::POLLIN), "nothing at the end");
        }
        let rest = sock.recv(900, MsgFlags::MSG_DONTWAIT)?;
        ensure!(
            rest.len() >= 1000 + HEAD.len() - 900 && rest.iter().all(|b| *b == b'b'),
            "{path}: a rest of {}",
            rest.len()
        );
    }
    Ok(())
}

/// A peek copies all that is there from its offset on, MSG_WAITALL waits for the whole length, and a
/// read moves the offset back (`tcp_recvmsg_locked()`, SO_PEEK_OFF in socket(7)).
fn peek_all(ctx: &mut Ctx) -> Result<()> {
    const SO_PEEK_OFF: i32 = 42;
    let (_server, go) = in_two_parts()?;
    let vip = ctx.shop(&[BACKEND])?;
    for path in ["/plain", "/keep"] {
        let sock = Sock::open(vip)?;
        sock.timeouts(ctx.secs(10))?;
        sock.send_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        ensure!(
            !sock.poll(PollFlags::POLLIN, ctx.secs(5))?.is_empty(),
            "{path}"
        );
        let mut first = Vec::new();
        ctx.until("the first part", || {
            first = sock.recv(4096, MsgFlags::MSG_PEEK)?;
            Ok(first.ends_with(&[b'a'; 300]))
        })
        .with_context(|| format!("{path}: a peek at {}", first.len()))?;
        ensure!(
            first.starts_with(b"HTTP/1.1 200"),
            "{path}: a peek at {}",
            first.len()
        );
        let all = first.len() + 700;
        let reader = gettid();
        let (whole, waited) = thread::scope(|scope| {
            let second = scope.spawn(|| -> Result<()> {
                let waited = ctx.until("the reader waits", || waits_in(reader, libc::SYS_recvfrom));
                go.send(())?;
                waited
            });
            let whole = sock.recv(all, MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL);
            (whole, second.join())
        });
        waited.map_err(|_| anyhow!("a thread died"))??;
        let whole = whole?;
        ensure!(whole.len() == all, "{path}: {} of {all}", whole.len());
        sock.set(libc::SOL_SOCKET, SO_PEEK_OFF, 5)?;
        let peek = |len: usize, at: usize| -> Result<()> {
            let got = sock.recv(len, MsgFlags::MSG_PEEK)?;
            ensure!(
                Some(&got[..]) == whole.get(at..at + len),
                "{path}: a peek of {len} at {at} has {}",
                crate::http::lossy(&got)
            );
            Ok(())
        };
        peek(4, 5)?;
        // Through the head and into the body.
        peek(400, 9)?;
        let read = sock.recv(9, MsgFlags::empty())?;
        ensure!(Some(&read[..]) == whole.get(..9), "{path}: a read");
        peek(100, 409)?;
        let read = sock.recv(4096, MsgFlags::empty())?;
        ensure!(Some(&read[..]) == whole.get(9..), "{path}: {}", read.len());
    }
    Ok(())
}

/// Receive flow steering: packets are processed where the program that reads them runs
/// (Documentation/networking/scaling.rst), which `inet_recvmsg()` tells it.
fn receive_flow_steering(ctx: &mut Ctx) -> Result<()> {
    const SETTINGS: [(&str, &str); 3] = [
        ("/proc/sys/net/core/rps_sock_flow_entries", "1024"),
        ("/sys/class/net/lo/queues/rx-0/rps_flow_cnt", "1024"),
        ("/sys/class/net/lo/queues/rx-0/rps_cpus", "3"),
    ];
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    ensure!(before.is_set(1)?, "this needs two CPUs");
    for (path, value) in SETTINGS {
        fs::write(path, value).context(path)?;
    }
    let result = steered(ctx);
    for (path, _) in SETTINGS {
        fs::write(path, "0").context(path)?;
    }
    sched_setaffinity(this, &before)?;
    result
}

fn steered(ctx: &mut Ctx) -> Result<()> {
    const REQUESTS: u64 = 200;
    run_on(0)?;
    // Its threads stay on CPU 0.
    let (_backend, vip) = start(ctx)?;
    let sock = Sock::open(vip)?;
    let ask = |count: u64| -> Result<()> {
        for _ in 0..count {
            sock.send_all(GET)?;
            sock.recv_until("GET /x\n")?;
        }
        Ok(())
    };
    for (cpu, expected) in [(1, REQUESTS..u64::MAX), (0, 0..REQUESTS / 2)] {
        run_on(cpu)?;
        ask(20)?;
        let before = processed_on(1)?;
        ask(REQUESTS)?;
        let packets = processed_on(1)? - before;
        ensure!(
            expected.contains(&packets),
            "{packets} packets on CPU 1 with the client on CPU {cpu}"
        );
    }
    Ok(())
}

/// Packets that the backlog of a CPU has processed: the first column of its line, in hex.
fn processed_on(cpu: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat")?;
    let line = text.lines().nth(cpu).context("no such CPU")?;
    let count = line.split(' ').next().context("no columns")?;
    Ok(u64::from_str_radix(count, 16)?)
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
