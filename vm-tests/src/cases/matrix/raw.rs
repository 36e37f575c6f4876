// SPDX-License-Identifier: GPL-2.0
//! Clients whose every system call is written here, and that read as strictly as TCP allows.
//!
//! [`Edge`] is told of new bytes by edges only (EPOLLET) and takes a read that returns less than it asked for as the
//! word that nothing more is there: mio, nginx and others do so. [`Ring`] arms one multishot receive and takes what
//! it completes with. [`Plain`] blocks; it drives the proxies, whose own sockets are what is tested there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use io_uring::{cqueue, opcode, types, IoUring};
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::MsgFlags;

use super::{Kind, Line, Task};
use crate::http::{crc, find};
use crate::sock::Sock;

/// Bytes asked for in one read: many responses fit, the large ones do not.
const READ: usize = 8192;

/// How bytes are waited for. At the end of the stream, no bytes.
pub trait Reader: Sized {
    fn open(address: SocketAddr, limit: Duration) -> Result<Self>;
    fn sock(&self) -> &Sock;
    fn more(&mut self, end: Instant) -> Result<Vec<u8>>;
}

pub struct Plain(Sock);

impl Reader for Plain {
    fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let sock = Sock::open(address)?;
        sock.timeouts(limit)?;
        Ok(Self(sock))
    }

    fn sock(&self) -> &Sock {
        &self.0
    }

    fn more(&mut self, end: Instant) -> Result<Vec<u8>> {
        let left = end.saturating_duration_since(Instant::now());
        self.0.timeouts(left.max(Duration::from_millis(1)))?;
        loop {
            match self.0.recv(READ, MsgFlags::empty()) {
                // The end of an earlier ring interrupts its thread.
                Err(Errno::EINTR) => {}
                other => return other.context("recv"),
            }
        }
    }
}

pub struct Edge {
    sock: Sock,
    epoll: Epoll,
    /// An edge came, and no read has come back short since.
    ready: bool,
    /// The peer's end was told: reads go on until they return it.
    ended: bool,
}

impl Reader for Edge {
    fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let sock = Sock::open(address)?;
        sock.timeouts(limit)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        epoll.add(sock.fd(), EpollEvent::new(wanted, 0))?;
        Ok(Self {
            sock,
            epoll,
            ready: false,
            ended: false,
        })
    }

    fn sock(&self) -> &Sock {
        &self.sock
    }

    fn more(&mut self, end: Instant) -> Result<Vec<u8>> {
        loop {
            while !self.ready && !self.ended {
                let left = end.saturating_duration_since(Instant::now());
                ensure!(!left.is_zero(), "no edge came");
                let mut events = [EpollEvent::empty()];
                match self.epoll.wait(&mut events, EpollTimeout::try_from(left)?) {
                    // A signal to the test is nothing that the socket did.
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error).context("epoll_wait"),
                }
                let [event] = events;
                let closed = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
                self.ready = event.events().intersects(EpollFlags::EPOLLIN);
                self.ended = event.events().intersects(closed);
            }
            match self.sock.recv(READ, MsgFlags::MSG_DONTWAIT) {
                Ok(bytes) => {
                    self.ready = bytes.len() == READ;
                    return Ok(bytes);
                }
                Err(Errno::EAGAIN) => {
                    ensure!(!self.ended, "EAGAIN after EPOLLRDHUP");
                    self.ready = false;
                }
                Err(error) => return Err(error).context("recv"),
            }
        }
    }
}

const GROUP: u16 = 1;
const BUFFERS: u16 = 8;

pub struct Ring {
    // Before the ring in the order of drop: a closed socket ends the receive.
    sock: Sock,
    ring: IoUring,
    memory: Vec<u8>,
    armed: bool,
}

impl Ring {
    fn push(&mut self, entry: &io_uring::squeue::Entry) -> Result<()> {
        // SAFETY: entries point into `memory` only, which lives as long as the ring and is never moved.
        unsafe { self.ring.submission().push(entry) }.context("submission queue")?;
        Ok(())
    }

    fn provide(&mut self, first: u16, count: u16) -> Result<()> {
        let at = self
            .memory
            .as_mut_ptr()
            .wrapping_add(usize::from(first) * READ);
        let entry = opcode::ProvideBuffers::new(at, READ as i32, count, GROUP, first)
            .build()
            .flags(io_uring::squeue::Flags::SKIP_SUCCESS);
        self.push(&entry)
    }
}

impl Reader for Ring {
    fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let sock = Sock::open(address)?;
        sock.timeouts(limit)?;
        let mut ring = Self {
            sock,
            ring: IoUring::new(16)?,
            memory: vec![0; READ * usize::from(BUFFERS)],
            armed: false,
        };
        ring.provide(0, BUFFERS)?;
        Ok(ring)
    }

    fn sock(&self) -> &Sock {
        &self.sock
    }

    fn more(&mut self, end: Instant) -> Result<Vec<u8>> {
        loop {
            if !self.armed {
                self.push(&opcode::RecvMulti::new(types::Fd(self.sock.raw()), GROUP).build())?;
                self.armed = true;
            }
            let left = end.saturating_duration_since(Instant::now());
            let time = types::Timespec::from(left);
            let args = types::SubmitArgs::new().timespec(&time);
            if let Err(error) = self.ring.submitter().submit_with_args(1, &args) {
                ensure!(
                    error.raw_os_error() != Some(libc::ETIME),
                    "no completion came"
                );
                return Err(error).context("io_uring_enter");
            }
            let Some(done) = self.ring.completion().next() else {
                continue;
            };
            self.armed = cqueue::more(done.flags());
            let result = done.result();
            let Some(buffer) = cqueue::buffer_select(done.flags()) else {
                match result {
                    0 => return Ok(Vec::new()),
                    // All buffers were in use: they are back by now.
                    _ if result == -libc::ENOBUFS => continue,
                    _ => return Err(Errno::from_raw(-result)).context("multishot receive"),
                }
            };
            let at = usize::from(buffer) * READ;
            let length = usize::try_from(result)?;
            let bytes = self.memory.get(at..at + length).context("buffer")?.to_vec();
            self.provide(buffer, 1)?;
            return Ok(bytes);
        }
    }
}

/// Where a response ends in these bytes, and where its final head and its body begin.
struct Found {
    status: u16,
    head: String,
    body: Vec<u8>,
    end: usize,
    ends_connection: bool,
}

/// Parses a whole response; `None` while bytes are missing. Interim responses are skipped.
fn parse(bytes: &[u8], method: &str, at_end: bool) -> Result<Option<Found>> {
    let mut begin = 0;
    loop {
        let rest = bytes.get(begin..).unwrap_or(&[]);
        let Some(length) = find(rest, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(rest.get(..length).unwrap_or(&[])).into_owned();
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.get(..3))
            .and_then(|s| s.parse().ok())
            .with_context(|| format!("no status: {head:?}"))?;
        begin += length + 4;
        if (100..200).contains(&status) {
            continue;
        }
        let ends_connection = field(&head, "connection").is_some_and(|v| v.contains("close"))
            || head.starts_with("HTTP/1.0");
        let rest = bytes.get(begin..).unwrap_or(&[]);
        let (body, used, by_close) = if method == "HEAD" || status == 204 || status == 304 {
            (Vec::new(), 0, false)
        } else if field(&head, "transfer-encoding").is_some() {
            let Some((body, used)) = chunks(rest)? else {
                return Ok(None);
            };
            (body, used, false)
        } else if let Some(length) = field(&head, "content-length") {
            let length: usize = length.parse().context("content-length")?;
            let Some(body) = rest.get(..length) else {
                return Ok(None);
            };
            (body.to_vec(), length, false)
        } else if at_end {
            (rest.to_vec(), rest.len(), true)
        } else {
            return Ok(None);
        };
        return Ok(Some(Found {
            status,
            head,
            body,
            end: begin + used,
            ends_connection: ends_connection || by_close,
        }));
    }
}

fn field(head: &str, name: &str) -> Option<String> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (n, v) = line.split_once(':')?;
        n.eq_ignore_ascii_case(name)
            .then(|| v.trim().to_ascii_lowercase())
    })
}

/// The content of chunks and the length of all of it; `None` while bytes are missing.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let Some(line) = find(rest, b"\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(rest.get(..line).unwrap_or(&[])).into_owned();
        let size = usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16)
            .with_context(|| format!("chunk size {text:?}"))?;
        at += line + 2;
        if size == 0 {
            // Trailers, up to an empty line.
            let trailers = bytes.get(at - 2..).unwrap_or(&[]);
            return Ok(find(trailers, b"\r\n\r\n").map(|end| (body, at + end + 2)));
        }
        let Some(data) = bytes.get(at..at + size) else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        at += size + 2;
    }
}

/// Sends one request and reads its response, on a connection that is kept when both sides keep it.
fn ask<R: Reader>(
    kept: &mut Option<R>,
    address: SocketAddr,
    kind: &Kind,
    task: &Task,
) -> Result<Line> {
    let limit = Duration::from_millis(task.limit_ms);
    let end = Instant::now() + limit;
    let mut conn = match kept.take() {
        Some(conn) => conn,
        None => R::open(address, limit)?,
    };
    let version = if kind.flag == "http10" { "1.0" } else { "1.1" };
    let mut head = format!(
        "{} {} HTTP/{version}\r\nHost: shop.example\r\n",
        kind.method, kind.path
    );
    if kind.length > 0 {
        head += &format!("Content-Length: {}\r\n", kind.length);
    }
    head += match kind.flag {
        "expect" => "Expect: 100-continue\r\n\r\n",
        "close" => "Connection: close\r\n\r\n",
        _ => "\r\n",
    };
    conn.sock().send_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    if kind.flag == "expect" {
        while find(&bytes, b"\r\n\r\n").is_none() {
            let piece = conn.more(end).context("waiting for 100")?;
            ensure!(!piece.is_empty(), "closed before 100");
            bytes.extend(piece);
        }
    }
    conn.sock()
        .send_all(task.big.get(..kind.length).context("big")?)?;
    let (found, at_end) = read_response(&mut conn, &mut bytes, kind.method, end)?;
    ensure!(
        found.end == bytes.len(),
        "{} bytes behind the response",
        bytes.len() - found.end
    );
    if !found.ends_connection && !at_end && matches!(kind.flag, "-" | "expect") {
        *kept = Some(conn);
    }
    let mut line = Line {
        via: String::new(),
        kind: kind.name.to_owned(),
        status: found.status,
        length: found.body.len(),
        crc: crc(&found.body),
        headers: Default::default(),
        error: None,
        ms: 0,
    };
    for name in ["content-type", "content-length", "x-kind", "etag"] {
        if let Some(value) = field(&found.head, name) {
            line.headers.insert(name.to_owned(), value);
        }
    }
    Ok(line)
}

/// Reads behind what `bytes` holds until the response is whole, and whether the connection has ended then.
fn read_response<R: Reader>(
    conn: &mut R,
    bytes: &mut Vec<u8>,
    method: &str,
    end: Instant,
) -> Result<(Found, bool)> {
    let (mut took, mut at_end) = (0, false);
    loop {
        if took != bytes.len() || at_end {
            took = bytes.len();
            if let Some(found) = parse(bytes, method, at_end)? {
                return Ok((found, at_end));
            }
        }
        ensure!(!at_end, "closed after {} bytes", bytes.len());
        let piece = conn
            .more(end)
            .with_context(|| format!("after {} bytes", bytes.len()))?;
        at_end = piece.is_empty();
        bytes.extend(piece);
    }
}

/// Sends a GET and reads its response: status, body, and whether the connection ends with it.
pub fn fetch<R: Reader>(
    conn: &mut R,
    request: &[u8],
    end: Instant,
) -> Result<(u16, Vec<u8>, bool)> {
    conn.sock().send_all(request)?;
    let mut bytes = Vec::new();
    let (found, at_end) = read_response(conn, &mut bytes, "GET", end)?;
    let extra = bytes.len() - found.end;
    ensure!(extra == 0, "{extra} bytes behind the response");
    Ok((found.status, found.body, found.ends_connection || at_end))
}

/// All requests of the task, on one connection after the other to each address.
pub fn drive<R: Reader>(task: &Task, ways: &[(&str, SocketAddr)]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (via, address) in ways {
        let mut kept: Option<R> = None;
        for kind in &task.kinds {
            let begin = Instant::now();
            let mut line = ask(&mut kept, *address, kind, task).unwrap_or_else(|error| Line {
                via: String::new(),
                kind: kind.name.to_owned(),
                status: 0,
                length: 0,
                crc: 0,
                headers: Default::default(),
                error: Some(format!("{error:#}")),
                ms: 0,
            });
            line.via = (*via).to_owned();
            line.ms = begin.elapsed().as_millis() as u64;
            lines.push(line);
        }
    }
    lines
}
