// SPDX-License-Identifier: GPL-2.0
//! Socket options that work on packets and queues: on a p-sock they work on the connection behind it, which
//! another client finds afterwards as it was. Each is compared with a TCP socket to the same server.

use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sched::{setns, CloneFlags};
use nix::sys::socket::{shutdown, MsgFlags, Shutdown, SockFlag};

use crate::ctx::{Ctx, Scenario, VIP4};
use crate::http::pattern;
use crate::script::{Gate, Server};
use crate::sock::Sock;
use crate::xlb;

use super::socket_options::BACKEND4;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("options/connection_state", connection_state),
    Scenario::xlb("options/queue_lengths", queue_lengths),
    Scenario::xlb("options/receive_buffer", receive_buffer).within(120),
    Scenario::xlb("options/send_buffer", send_buffer).within(120),
    Scenario::xlb("options/pacing", pacing),
    Scenario::xlb("options/time_stamps", time_stamps),
    Scenario::xlb("options/bytes_left", bytes_left),
    Scenario::xlb("options/busy_poll", busy_poll),
    Scenario::xlb("options/all_harmless", all_harmless),
];

/// Runs the same with a TCP socket to the backend and with a p-sock.
fn both<T: PartialEq + std::fmt::Debug>(
    ctx: &mut Ctx,
    mut run: impl FnMut(&mut Ctx, SocketAddr) -> Result<T>,
) -> Result<(T, T)> {
    let tcp = run(ctx, BACKEND4.parse()?).context("TCP")?;
    let psock = run(ctx, VIP4.parse()?).context("p-sock")?;
    Ok((tcp, psock))
}

fn same<T: PartialEq + std::fmt::Debug>(
    ctx: &mut Ctx,
    run: impl FnMut(&mut Ctx, SocketAddr) -> Result<T>,
) -> Result<()> {
    let (tcp, psock) = both(ctx, run)?;
    ensure!(tcp == psock, "TCP {tcp:?}\np-sock {psock:?}");
    Ok(())
}

/// A server whose every connection does what its path says.
fn serve() -> Result<Server> {
    Server::start(BACKEND4, |mut conn, _| {
        while let Some(head) = conn.head()? {
            let (name, number) = head.path()[1..].split_once('/').unwrap_or(("", "0"));
            let number: usize = number.parse()?;
            let length = head.field("content-length").unwrap_or("0").parse()?;
            match name {
                // A response of so many bytes, all of them at once.
                "get" => conn.send(answer("", number))?,
                "last" => return conn.send(answer("Connection: close\r\n", number)),
                // The body is read after so many milliseconds.
                "late" => {
                    thread::sleep(Duration::from_millis(number as u64));
                    conn.exactly(length)?;
                    conn.send(answer("", 0))?;
                }
                _ => bail!("path {}", head.path()),
            }
        }
        Ok(())
    })
}

fn answer(field: &str, length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n");
    [head.into_bytes(), pattern(length, 7)].concat()
}

/// After the answer to "/last" the connection ends, because both ask for it.
fn ask(path: &str) -> Vec<u8> {
    let end = match path.starts_with("/last") {
        true => "Connection: close\r\n",
        false => "",
    };
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{end}\r\n").into_bytes()
}

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Reads to the end of a response that was made by [`answer`].
fn read_answer(sock: &Sock, length: usize) -> Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").len();
    let got = sock.recv_until("\r\n\r\n")?.len();
    let mut left = (head + length).saturating_sub(got);
    while left > 0 {
        let piece = sock.recv(left.min(65536), MsgFlags::empty())?;
        ensure!(!piece.is_empty(), "end, {left} bytes before it was due");
        left -= piece.len();
    }
    Ok(())
}

/// The state that TCP_INFO shows, and what it says of a connection in use.
fn connection_state(ctx: &mut Ctx) -> Result<()> {
    let server = serve()?;
    ctx.shop(&[BACKEND4])?;
    same(ctx, |ctx, to| {
        let sock = Sock::open(to)?;
        let mut states = vec![("connected", sock.tcp_info()?.tcpi_state)];
        sock.send_all(&ask("/get/100000"))?;
        sock.recv(100, MsgFlags::MSG_WAITALL)?;
        // A part of the answer is unread: TCP's numbers are those of the connection.
        let info = sock.tcp_info()?;
        states.push(("reading", info.tcpi_state));
        ensure!(
            info.tcpi_rtt > 0 && info.tcpi_snd_mss > 1000 && info.tcpi_pmtu > 1000,
            "rtt {} mss {} pmtu {}",
            info.tcpi_rtt,
            info.tcpi_snd_mss,
            info.tcpi_pmtu
        );
        let mss = sock.get(libc::SOL_TCP, libc::TCP_MAXSEG)?;
        ensure!(mss > 1000, "TCP_MAXSEG {mss}");
        sock.recv(answer("", 100_000).len() - 100, MsgFlags::MSG_WAITALL)?;
        states.push(("read", sock.tcp_info()?.tcpi_state));
        sock.send_all(&ask("/last/10"))?;
        while !sock.recv(65536, MsgFlags::empty())?.is_empty() {}
        states.push(("ended by the server", sock.tcp_info()?.tcpi_state));
        let error = sock.get(libc::SOL_SOCKET, libc::SO_ERROR)?;
        ensure!(error == 0, "SO_ERROR {error}");

        let sock = Sock::open(to)?;
        sock.send_all(&ask("/get/10"))?;
        read_answer(&sock, 10)?;
        sock.send_all(&post("/late/1000", 10))?;
        sock.send_all(b"0123456789")?;
        shutdown(sock.raw(), Shutdown::Write)?;
        ctx.until("the FIN is acknowledged", || {
            Ok(sock.tcp_info()?.tcpi_state == FIN_WAIT2)
        })?;
        read_answer(&sock, 0)?;
        sock.recv(1, MsgFlags::empty())?;
        states.push(("ended by both", sock.tcp_info()?.tcpi_state));
        Ok(states)
    })?;
    // Those that are another value on each socket.
    let vip: SocketAddr = VIP4.parse()?;
    let (one, two) = (Sock::open(vip)?, Sock::open(vip)?);
    let cookie = |sock: &Sock| sock.get_bytes(libc::SOL_SOCKET, libc::SO_COOKIE, 8);
    ensure!(
        cookie(&one)? == cookie(&one)? && cookie(&one)? != cookie(&two)?,
        "cookies"
    );
    let name = one.get_bytes(libc::SOL_SOCKET, libc::SO_PEERNAME, 16)?;
    ensure!(
        name.get(2..8) == Some(&[0, 80, 10, 96, 0, 10]),
        "SO_PEERNAME {name:?}"
    );
    one.send_all(&ask("/get/10"))?;
    read_answer(&one, 10)?;
    one.send_all(&ask("/get/10"))?;
    read_answer(&one, 10)?;
    let cpu = one.get(libc::SOL_SOCKET, libc::SO_INCOMING_CPU)?;
    ensure!(cpu >= 0, "SO_INCOMING_CPU {cpu}");
    let memory = one.get_bytes(libc::SOL_SOCKET, libc::SO_MEMINFO, 64)?;
    ensure!(memory.len() == 36, "SO_MEMINFO {memory:?}");
    ensure!(server.accepted() >= 3, "connections");
    Ok(())
}

const FIN_WAIT2: u8 = 5;

nix::ioctl_read_bad!(siocinq, libc::FIONREAD, i32);
nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, i32);
nix::ioctl_read_bad!(siocoutqnsd, SIOCOUTQNSD, i32);
nix::ioctl_read_bad!(siocatmark, SIOCATMARK, i32);
const SIOCOUTQNSD: i32 = 0x894b;
const SIOCATMARK: i32 = 0x8905;

/// SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK.
fn queues(sock: &Sock) -> Result<[i32; 4]> {
    let mut all = [-1; 4];
    let [inq, outq, nsd, mark] = &mut all;
    // SAFETY: each writes one int.
    unsafe {
        siocinq(sock.raw(), inq)?;
        siocoutq(sock.raw(), outq)?;
        siocoutqnsd(sock.raw(), nsd)?;
        siocatmark(sock.raw(), mark)?;
    }
    Ok(all)
}

fn queue_lengths(ctx: &mut Ctx) -> Result<()> {
    let _server = serve()?;
    ctx.shop(&[BACKEND4])?;
    same(ctx, |ctx, to| {
        let sock = Sock::open(to)?;
        let mut all = vec![queues(&sock)?];
        sock.send_all(&ask("/get/5000"))?;
        let whole = answer("", 5000).len() as i32;
        ctx.until("the answer", || Ok(queues(&sock)?[0] == whole))?;
        sock.recv(1000, MsgFlags::MSG_PEEK)?;
        all.push(queues(&sock)?);
        sock.recv(1000, MsgFlags::empty())?;
        all.push(queues(&sock)?);
        read_rest(&sock, whole as usize - 1000)?;
        all.push(queues(&sock)?);
        Ok(all)
    })?;
    // A server that does not read for longer than a slow machine needs to fill the queues: the windows are not the same
    // to the byte.
    let (tcp, psock) = both(ctx, |ctx, to| {
        let sock = Sock::new(to, SockFlag::SOCK_NONBLOCK)?;
        sock.connect(to).or_else(|errno| match errno {
            Errno::EINPROGRESS => Ok(()),
            errno => Err(errno),
        })?;
        sock.poll(PollFlags::POLLOUT, ctx.secs(5))?;
        let body = 20_000_000;
        sock.send(&post("/late/20000", body))?;
        fill(ctx, &sock, body)?;
        let [inq, outq, nsd, _] = queues(&sock)?;
        Ok([inq, outq, nsd])
    })?;
    ensure!(tcp[0] == 0 && psock[0] == 0, "{tcp:?} {psock:?}");
    ensure!(
        tcp[2] > 0 && psock[2] > 0 && psock[1] >= psock[2] && tcp[1] >= tcp[2],
        "TCP {tcp:?}, p-sock {psock:?}"
    );
    Ok(())
}

fn read_rest(sock: &Sock, length: usize) -> Result<()> {
    let got = sock.recv(length, MsgFlags::MSG_WAITALL)?.len();
    ensure!(got == length, "{got} of {length} bytes");
    Ok(())
}

/// Writes as poll(2) says, until there is no room for half a second; how many bytes that were.
fn fill(ctx: &Ctx, sock: &Sock, most: usize) -> Result<usize> {
    let bytes = vec![b'x'; 4096];
    let mut sent = 0;
    while sent < most {
        let quiet = Duration::from_millis(500) * ctx.scale;
        if sock.poll(PollFlags::POLLOUT, quiet)?.is_empty() {
            return Ok(sent);
        }
        let piece = bytes.get(..(most - sent).min(4096)).unwrap_or(&bytes);
        match sock.send_with(piece, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => sent += n,
            Err(Errno::EAGAIN) => {}
            Err(errno) => bail!("send: {errno}"),
        }
    }
    bail!("never full: {sent} bytes")
}

/// Within a fifth, and what a connection's first window lets pass: that is not taken back.
fn near(one: usize, other: usize) -> bool {
    one.abs_diff(other) <= one.max(other) / 5 + 160 * 1024
}

/// An option, set before the connect.
type Option4 = (i32, i32, i32);

fn connected(to: SocketAddr, options: &[Option4], after: bool) -> Result<Sock> {
    let sock = Sock::new(to, SockFlag::empty())?;
    sock.timeouts(Duration::from_secs(20))?;
    for step in [false, true] {
        if step {
            sock.connect(to)?;
        }
        if step == after {
            for (level, option, value) in options {
                sock.set(*level, *option, *value)?;
            }
        }
    }
    Ok(sock)
}

/// How much a server can write to a client that does not read, with SO_RCVBUF as it is set.
fn receive_buffer(ctx: &mut Ctx) -> Result<()> {
    const MEGABYTE: usize = 1 << 20;
    let (tell, told) = mpsc::channel();
    let scale = ctx.scale;
    // It writes until there is no room for a while, tells how much that was, and goes on.
    let server = Server::start(BACKEND4, move |mut conn, _| {
        while let Some(head) = conn.head()? {
            let length: usize = head.path().trim_start_matches('/').parse()?;
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))?;
            let sock = Sock::adopt(conn.stream.try_clone()?.into_raw_fd());
            sock.set(libc::SOL_SOCKET, libc::SO_SNDBUF, 16 * 1024)?;
            let quiet = Duration::from_millis(500) * scale;
            let bytes = vec![b'x'; 16 * 1024];
            let mut sent = 0;
            while sent < length && !sock.poll(PollFlags::POLLOUT, quiet)?.is_empty() {
                let piece = bytes.get(..(length - sent).min(bytes.len())).unwrap_or(&[]);
                sent += match sock.send_with(piece, MsgFlags::MSG_DONTWAIT) {
                    Err(Errno::EAGAIN) => 0,
                    other => other?,
                };
            }
            tell.send(sent)?;
            conn.send(vec![b'x'; length - sent])?;
        }
        Ok(())
    })?;
    ctx.shop_of_one_connection(BACKEND4)?;
    let limit = ctx.secs(20);
    let held = |sock: &Sock, length: usize| -> Result<usize> {
        sock.send_all(&ask(&format!("/{length}")))?;
        let held = told.recv_timeout(limit)?;
        ensure!(held < length, "never full: {held}");
        Ok(held)
    };
    for (option, value) in [
        (libc::SO_RCVBUF, 4096),
        (libc::SO_RCVBUFFORCE, 2 << 20),
        (libc::SO_RCVLOWAT, 1 << 20),
    ] {
        for after in [false, true] {
            let options = [(libc::SOL_SOCKET, option, value)];
            let (tcp, psock) = both(ctx, |_, to| {
                held(&connected(to, &options, after)?, 30 * MEGABYTE)
            })?;
            ensure!(
                near(tcp, psock),
                "option {option}: TCP {tcp}, p-sock {psock}"
            );
        }
    }
    // A connection that was used with the option is the next client's without it, and the other way round.
    let vip: SocketAddr = VIP4.parse()?;
    let big = [(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 2 << 20)];
    let usual = held(&connected(vip, &[], false)?, 30 * MEGABYTE)?;
    let before = server.accepted();
    let mut all = Vec::new();
    for (first, second) in [(&big[..], &[][..]), (&[], &big)] {
        let sock = connected(vip, first, false)?;
        sock.send_all(&ask("/0"))?;
        read_answer(&sock, 0)?;
        told.recv_timeout(limit)?;
        drop(sock);
        all.push(held(&connected(vip, second, false)?, 30 * MEGABYTE)?);
    }
    ensure!(server.accepted() == before + 2, "other connections");
    ensure!(
        near(all[0], usual) && all[1] > usual + MEGABYTE,
        "{usual} bytes, {all:?}"
    );
    Ok(())
}

/// How much a client can write to a server that does not read, with SO_SNDBUF and TCP_NOTSENT_LOWAT.
fn send_buffer(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 30_000_000;
    let reads = Gate::default();
    let at_server = reads.clone();
    let server = Server::start(BACKEND4, move |mut conn, _| {
        while let Some(head) = conn.head()? {
            let length: usize = head.field("content-length").unwrap_or("0").parse()?;
            at_server.pass();
            conn.exactly(length)?;
            conn.send(answer("", 0))?;
        }
        Ok(())
    })?;
    ctx.shop_of_one_connection(BACKEND4)?;
    let held = |ctx: &mut Ctx, sock: &Sock, read: bool| -> Result<usize> {
        reads.close();
        sock.send_all(&post("/", LENGTH))?;
        let held = fill(ctx, sock, LENGTH)?;
        reads.open();
        if read {
            sock.send_all(&vec![b'x'; LENGTH - held])?;
            read_answer(sock, 0)?;
        }
        Ok(held)
    };
    let small = [(libc::SOL_SOCKET, libc::SO_SNDBUF, 4096)];
    let big = [(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8 << 20)];
    let lowat = [(libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, 16 * 1024)];
    for options in [small, big, lowat] {
        for after in [false, true] {
            let (tcp, psock) = both(ctx, |ctx, to| {
                held(ctx, &connected(to, &options, after)?, false)
            })?;
            ensure!(near(tcp, psock), "{options:?}: TCP {tcp}, p-sock {psock}");
        }
    }
    let vip: SocketAddr = VIP4.parse()?;
    let mut all = Vec::new();
    held(ctx, &connected(vip, &[], false)?, true)?;
    let connections = server.accepted();
    for options in [&small[..], &[], &lowat, &[]] {
        all.push(held(ctx, &connected(vip, options, false)?, true)?);
    }
    ensure!(server.accepted() == connections, "another connection");
    let [small, after_small, lowat, after_lowat] = all.as_slice() else {
        bail!("{all:?}");
    };
    ensure!(
        *after_small > small + 500_000 && *after_lowat > lowat + 500_000,
        "not lent, or not taken back: {all:?}"
    );
    Ok(())
}

/// SO_MAX_PACING_RATE: a body takes its time, and the next client's does not.
fn pacing(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 600_000;
    let _server = serve()?;
    ctx.shop_of_one_connection(BACKEND4)?;
    let slow = [(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, 300_000)];
    let time = |to: SocketAddr, options: &[Option4]| -> Result<Duration> {
        let sock = connected(to, options, false)?;
        let begun = Instant::now();
        sock.send_all(&post("/late/0", LENGTH))?;
        sock.send_all(&pattern(LENGTH, 3))?;
        read_answer(&sock, 0)?;
        Ok(begun.elapsed())
    };
    let (tcp, psock) = both(ctx, |_, to| time(to, &slow))?;
    let after = time(VIP4.parse()?, &[])?;
    let figures = format!("TCP {tcp:?}, p-sock {psock:?}, then without {after:?}");
    ensure!(tcp > Duration::from_millis(600), "{figures}");
    ensure!(psock > tcp / 2, "{figures}");
    ensure!(after < psock / 2, "{figures}");
    Ok(())
}

/// A control message: level, type, data.
type Control = (i32, i32, Vec<u8>);

/// `recvmsg()`: how many bytes, and the control messages.
fn recv_control(sock: &Sock, length: usize, flags: MsgFlags) -> Result<(usize, Vec<Control>)> {
    let mut control = [0u64; 32];
    let mut bytes = vec![0u8; length];
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: length,
    };
    // SAFETY: an all-zero msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = std::mem::size_of_val(&control);
    // SAFETY: the message and its buffers live until the call returns.
    let got = Errno::result(unsafe { libc::recvmsg(sock.raw(), &mut message, flags.bits()) })?;
    ensure!(message.msg_flags & libc::MSG_CTRUNC == 0, "MSG_CTRUNC");
    let mut all = Vec::new();
    // SAFETY: the kernel has filled the control buffer, whose length is in the message.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(at) = header.as_ref() {
            let length = at.cmsg_len - libc::CMSG_LEN(0) as usize;
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(at), length);
            all.push((at.cmsg_level, at.cmsg_type, data.to_vec()));
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok((got as usize, all))
}

/// The time stamps of what comes in, with each of the options.
fn time_stamps(ctx: &mut Ctx) -> Result<()> {
    const RX_SOFTWARE: i32 = 8;
    const SOFTWARE: i32 = 16;
    const RX_FILTER: i32 = 1 << 17;
    let _server = serve()?;
    ctx.shop_of_one_connection(BACKEND4)?;
    let long = answer("", 3000).len();
    // The host stamps while any socket wants it, and begins a moment later: this one always does.
    let always = connected(
        BACKEND4.parse()?,
        &[(libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)],
        false,
    )?;
    let short = answer("", 10).len();
    ctx.until("a stamp", || {
        always.send_all(&ask("/get/10"))?;
        let (got, control) = recv_control(&always, short, MsgFlags::MSG_WAITALL)?;
        ensure!(got == short, "{got} of {short} bytes");
        Ok(!control.is_empty())
    })?;
    for (option, value) in [
        (libc::SO_TIMESTAMP, 1),
        (libc::SO_TIMESTAMPNS, 1),
        (63, 1),
        (64, 1),
        (libc::SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE),
        (libc::SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE | RX_FILTER),
        (65, RX_SOFTWARE | SOFTWARE),
    ] {
        for after in [false, true] {
            same(ctx, |ctx, to| {
                let options = [(libc::SOL_SOCKET, option, value)];
                let sock = connected(to, &options, after)?;
                let mut seen = Vec::new();
                let mut read = |sock: &Sock, length: usize, flags| -> Result<()> {
                    let (got, control) = recv_control(sock, length, flags)?;
                    for (level, kind, data) in control {
                        let seconds = data.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
                        let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
                        ensure!(now.abs_diff(seconds) <= 60, "stamped {seconds} at {now}");
                        seen.push((got, level, kind, data.len()));
                    }
                    Ok(())
                };
                // Two answers in one read have one stamp.
                sock.send_all(&[ask("/get/3000"), ask("/get/3000")].concat())?;
                ctx.until("an answer", || Ok(queues(&sock)?[0] >= long as i32))?;
                read(&sock, 100, MsgFlags::MSG_PEEK)?;
                read(&sock, 100, MsgFlags::empty())?;
                read(&sock, 2 * long - 100, MsgFlags::MSG_WAITALL)?;
                sock.set(libc::SOL_SOCKET, option, 0)?;
                sock.send_all(&ask("/get/3000"))?;
                read(&sock, long, MsgFlags::MSG_WAITALL)?;
                // Set again while a response is read.
                sock.send_all(&ask("/get/3000"))?;
                read(&sock, 10, MsgFlags::MSG_WAITALL)?;
                sock.set(libc::SOL_SOCKET, option, value)?;
                read(&sock, long - 10, MsgFlags::MSG_WAITALL)?;
                ensure!(seen.len() == 4, "option {option} {value}: {seen:?}");
                Ok(seen)
            })
            .with_context(|| format!("option {option} {value}"))?;
        }
    }
    // The next client of the connection has none.
    let sock = Sock::open(VIP4.parse()?)?;
    sock.send_all(&ask("/get/3000"))?;
    let (_, control) = recv_control(&sock, long, MsgFlags::MSG_WAITALL)?;
    ensure!(control.is_empty(), "{control:?}");
    Ok(())
}

/// TCP_INQ: what is left after a read; of an end that is there TCP says 1, and counts it as a byte before that.
fn bytes_left(ctx: &mut Ctx) -> Result<()> {
    const TCP_INQ: i32 = 36;
    let _server = serve()?;
    ctx.shop(&[BACKEND4])?;
    for after in [false, true] {
        same(ctx, |ctx, to| {
            let sock = connected(to, &[(libc::SOL_TCP, TCP_INQ, 1)], after)?;
            let mut seen = Vec::new();
            let mut read = |length: usize, flags, left: usize, end: bool| -> Result<()> {
                let (got, control) = recv_control(&sock, length, flags)?;
                let [(libc::SOL_TCP, TCP_INQ, data)] = control.as_slice() else {
                    bail!("{control:?}");
                };
                let told = i32::from_ne_bytes(data.as_slice().try_into()?) as usize;
                let known = told == left || (end && told == left + 1);
                ensure!(known, "{told} bytes left after {got}, not {left}");
                // With nothing left, what is said of the end.
                seen.push((got, if left > 0 { 0 } else { told }));
                Ok(())
            };
            for (path, field) in [("get", ""), ("last", "Connection: close\r\n")] {
                let whole = answer(field, 1000).len();
                let end = path == "last";
                sock.send_all(&ask(&format!("/{path}/1000")))?;
                ctx.until("the answer", || Ok(queues(&sock)?[0] == whole as i32))?;
                read(10, MsgFlags::MSG_PEEK, whole, end)?;
                read(10, MsgFlags::empty(), whole - 10, end)?;
                read(200, MsgFlags::empty(), whole - 210, end)?;
                read(whole - 210, MsgFlags::empty(), 0, end)?;
            }
            read(10, MsgFlags::empty(), 0, true)?;
            Ok(seen)
        })?;
    }
    Ok(())
}

/// SO_BUSY_POLL and SO_INCOMING_NAPI_ID, over a device that has a NAPI: loopback has none.
fn busy_poll(ctx: &mut Ctx) -> Result<()> {
    const ETHTOOL_SGRO: u32 = 0x2c;
    const ETHTOOL_STSO: u32 = 0x1f;
    const ENDPOINT: &str = "10.9.0.2:8001";
    ctx.run_ok("ip", &["netns", "add", "far"])?;
    let line = "ip link add near0 type veth peer name far0 netns far && ip addr add 10.9.0.1/24 dev near0 && \
         ip link set near0 up && ip -n far addr add 10.9.0.2/24 dev far0 && ip -n far link set far0 up";
    ctx.run_ok("sh", &["-c", line])?;
    // A veth receives by NAPI with GRO, of what was sent without TSO.
    ethtool("near0", ETHTOOL_SGRO, 1)?;
    let far = std::fs::File::open("/run/netns/far")?;
    let server = thread::spawn(move || -> Result<Server> {
        setns(far, CloneFlags::CLONE_NEWNET)?;
        ethtool("far0", ETHTOOL_STSO, 0)?;
        Server::start(ENDPOINT, |mut conn, _| {
            while conn.head()?.is_some() {
                // Within the 50 ms for which a client polls.
                thread::sleep(Duration::from_millis(5));
                conn.send(answer("", 100))?;
            }
            Ok(())
        })
    });
    let _server = server.join().map_err(|_| anyhow!("server"))??;
    ctx.shop(&[ENDPOINT])?;
    for to in [ENDPOINT.parse()?, VIP4.parse::<SocketAddr>()?] {
        for busy in [0, 50_000] {
            let options = [
                (libc::SOL_SOCKET, libc::SO_BUSY_POLL, busy),
                (libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1),
            ];
            let sock = connected(to, &options, true)?;
            let before = busy_polled()?;
            for _ in 0..10 {
                sock.send_all(&ask("/"))?;
                read_answer(&sock, 100)?;
            }
            let polled = busy_polled()? - before;
            let napi = sock.get(libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID)?;
            ensure!(
                napi > 0 && (polled > 0) == (busy > 0),
                "to {to}, SO_BUSY_POLL {busy}: NAPI {napi}, {polled} packets"
            );
        }
    }
    ctx.run_ok("ip", &["link", "del", "near0"])?;
    ctx.run_ok("ip", &["netns", "del", "far"])?;
    Ok(())
}

/// Packets that came by busy polling, in this namespace.
fn busy_polled() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        lines.next().context("names")?,
        lines.next().context("values")?,
    );
    let at = names
        .split(' ')
        .position(|name| name == "BusyPollRxPackets")
        .context("BusyPollRxPackets")?;
    Ok(values.split(' ').nth(at).context("value")?.parse()?)
}

/// Sets a feature of a device of the thread's namespace.
fn ethtool(device: &str, command: u32, value: u32) -> Result<()> {
    let mut data = [command, value];
    // SAFETY: an all-zero request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    let sock = Sock::new("127.0.0.1:1".parse()?, SockFlag::empty())?;
    // SAFETY: the kernel reads the request and the two numbers behind it.
    Errno::result(unsafe { libc::ioctl(sock.raw(), libc::SIOCETHTOOL as _, &mut request) })?;
    Ok(())
}

/// A p-sock on which everything harmless was set, and the connection that it leaves to the next one.
fn all_harmless(ctx: &mut Ctx) -> Result<()> {
    let server = serve()?;
    ctx.shop_of_one_connection(BACKEND4)?;
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::SOL_SOCKET, libc::SO_BUSY_POLL, 50),
        (libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SOL_SOCKET, libc::SO_SNDBUF, 100_000),
        (libc::SOL_SOCKET, libc::SO_RCVBUF, 100_000),
        (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
        (libc::SOL_SOCKET, libc::SO_MARK, 3),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
        (libc::SOL_SOCKET, libc::SO_OOBINLINE, 1),
        (libc::SOL_TCP, libc::TCP_NODELAY, 1),
        (libc::SOL_TCP, libc::TCP_CORK, 1),
        (libc::SOL_TCP, libc::TCP_CORK, 0),
        (libc::SOL_TCP, libc::TCP_QUICKACK, 1),
        (libc::SOL_TCP, libc::TCP_KEEPIDLE, 1),
        (libc::SOL_TCP, libc::TCP_KEEPINTVL, 1),
        (libc::SOL_TCP, libc::TCP_KEEPCNT, 1),
        (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 1000),
        (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, 1),
        (libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, 5000),
        (libc::SOL_TCP, libc::TCP_MAXSEG, 1000),
        (libc::SOL_IP, libc::IP_TOS, 16),
        (libc::SOL_IP, libc::IP_TTL, 9),
        (libc::SOL_IP, libc::IP_RECVERR, 1),
    ];
    let exchange = |sock: &Sock| -> Result<()> {
        sock.send_all(&ask("/get/200000"))?;
        read_answer(sock, 200_000)?;
        sock.send_all(&post("/late/10", 300_000))?;
        sock.send_all(&pattern(300_000, 4))?;
        read_answer(sock, 0)
    };
    let vip: SocketAddr = VIP4.parse()?;
    exchange(&Sock::open(vip)?)?;
    for after in [false, true] {
        let sock = connected(vip, &options, after)?;
        for _ in 0..3 {
            exchange(&sock)?;
        }
        // Set while a response is read.
        sock.send_all(&ask("/get/100"))?;
        sock.recv(10, MsgFlags::MSG_WAITALL)?;
        for (level, option, value) in options {
            sock.set(level, option, value)?;
        }
        read_rest(&sock, answer("", 100).len() - 10)?;
        // Time enough for a timer that should not run.
        thread::sleep(Duration::from_millis(2500));
        exchange(&sock)?;
        drop(sock);
        exchange(&Sock::open(vip)?)?;
    }
    // One of the plain sockets, and two of those whose packets are marked and classed: IP_TOS changes the priority when it
    // changes, so it has another one after the second time.
    ensure!(
        server.accepted() == 3,
        "{} connections: {}",
        server.accepted(),
        xlb::json(&["get", "pools"])?
    );
    Ok(())
}
