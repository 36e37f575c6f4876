// SPDX-License-Identifier: GPL-2.0
//! Requests and their answers, in system calls one of which has a fault; and what is right after one.
//!
//! A call that fails has done nothing: it is made again, with the same bytes, and all must come out as if it had not
//! failed. Or XLB says in a reply what was missing, or ends the connection with a reset: then a new one is served.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockFlag;

use super::nth::Nth;
use crate::ctx::{Ctx, VIP4};
use crate::http::{crc, find, lossy, pattern};
use crate::script::Server;
use crate::sock::Sock;

pub const BACKEND: &str = "127.0.1.1:8001";

/// What a call says that had no memory, or could not read or write the user's.
const CLEAN: [Errno; 3] = [Errno::ENOMEM, Errno::ENOBUFS, Errno::EFAULT];
/// What XLB may say of a lack of memory, with a 5xx.
const REASONS: [&str; 1] = ["no_memory"];

/// A request in the pieces in which it is written, and the body of the right answer.
pub struct Ask {
    pub pieces: Vec<Vec<u8>>,
    pub wants: Vec<Vec<u8>>,
    /// How much is read in one go.
    pub room: usize,
    pub how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// send(2), recv(2)
    Plain,
    /// Each read is preceded by one with `MSG_PEEK`, which must show the same.
    Peek,
    /// All pieces in one sendmsg(2); recvmsg(2) into two buffers.
    Vectors,
}

impl Ask {
    pub fn get(path: &str) -> Self {
        Self {
            pieces: vec![format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").into_bytes()],
            wants: vec![answer("GET", path, b"")],
            room: 65536,
            how: How::Plain,
        }
    }

    pub fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }

    pub fn room(mut self, room: usize) -> Self {
        self.room = room;
        self
    }
}

/// The body of the backend's answer.
pub fn answer(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} {} {:08x}\n", body.len(), crc(body)).into_bytes();
    if path.starts_with("/big") || path.starts_with("/chunked") {
        text.extend(pattern(20_000, 7));
    }
    text
}

/// A backend whose answers say what it was sent; the path says in which form.
pub fn backend(address: &str) -> Result<Server> {
    Server::start(address, |mut conn, _| {
        while let Some(message) = conn.request_read()? {
            let path = message.path().to_owned();
            let body = answer(message.method(), &path, &message.body);
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\n";
            if path.starts_with("/chunked") {
                let mut all = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in body.chunks(3000) {
                    all.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    all.extend_from_slice(chunk);
                    all.extend_from_slice(b"\r\n");
                }
                all.extend_from_slice(b"0\r\n\r\n");
                conn.send(all)?;
                continue;
            }
            let mut all = format!("{head}Content-Length: {length}\r\n");
            if path.contains("/changed") {
                // Hop-by-hop: the head is written anew.
                all += "Connection: x-hop\r\nX-Hop: 1\r\n";
            }
            let mut all = format!("{all}\r\n").into_bytes();
            all.extend(body);
            if path.starts_with("/pieces") {
                let (first, rest) = all.split_at(30);
                conn.send(first)?;
                std::thread::sleep(Duration::from_millis(60));
                conn.send(rest)?;
            } else {
                conn.send(all)?;
            }
        }
        Ok(())
    })
}

/// A socket for one client. `mark` sets it apart from all others, whose connections it will not get.
pub fn socket(address: SocketAddr, mark: u32, limit: Duration) -> Result<Sock> {
    let sock = Sock::new(address, SockFlag::empty())?;
    sock.timeouts(limit)?;
    if mark != 0 {
        sock.set(libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
    }
    Ok(sock)
}

/// What a system call that was to be made gave.
enum Did {
    Bytes(usize),
    /// It has failed for the fault, and did nothing: once more.
    Nothing(Errno),
    /// The connection is over.
    Reset,
}

fn judge(nth: &Nth, before: bool, result: Result<usize, Errno>) -> Result<Did> {
    match result {
        Ok(n) => Ok(Did::Bytes(n)),
        // Only the call that has the fault.
        Err(e) if CLEAN.contains(&e) && !before && nth.hit().is_some() => Ok(Did::Nothing(e)),
        Err(Errno::ECONNRESET | Errno::EPIPE) if nth.hit().is_some() => Ok(Did::Reset),
        Err(Errno::EAGAIN) => bail!("it hangs"),
        Err(e) => bail!("{e}"),
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: All zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

fn checked(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(|n| n as usize)
}

pub fn send(sock: &Sock, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: The kernel reads as many bytes as are there.
    checked(unsafe { libc::send(sock.raw(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

pub fn recv(sock: &Sock, room: &mut [u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: The kernel writes at most as many bytes as there is room for.
    checked(unsafe { libc::recv(sock.raw(), room.as_mut_ptr().cast(), room.len(), flags) })
}

/// Sends from several places at once, as far as not `done` yet.
fn send_vectors(sock: &Sock, pieces: &[Vec<u8>], done: usize) -> Result<usize, Errno> {
    let mut vectors = [vector(b""); 16];
    let (mut skip, mut count) = (done, 0);
    for (piece, to) in pieces.iter().zip(vectors.iter_mut()) {
        let from = skip.min(piece.len());
        skip -= from;
        *to = vector(piece.get(from..).unwrap_or(&[]));
        count += 1;
    }
    let message = message(vectors.get_mut(..count).unwrap_or(&mut []));
    // SAFETY: The message names live memory.
    checked(unsafe { libc::sendmsg(sock.raw(), &raw const message, libc::MSG_NOSIGNAL) })
}

fn recv_vectors(sock: &Sock, room: &mut [u8]) -> Result<usize, Errno> {
    let (first, second) = room.split_at(room.len().min(50));
    let mut vectors = [vector(first), vector(second)];
    let mut message = message(&mut vectors);
    // SAFETY: The message names memory that is ours alone.
    checked(unsafe { libc::recvmsg(sock.raw(), &raw mut message, 0) })
}

/// How a talk went, and whether its socket can be used on.
pub struct Went {
    pub text: String,
    pub open: bool,
}

/// Makes the request on a connected socket and judges what comes of it.
pub fn talk(nth: &mut Nth, sock: &Sock, ask: &Ask) -> Result<Went> {
    let mut failed = None;
    let mut reset = false;
    let total: usize = ask.pieces.iter().map(Vec::len).sum();
    let mut done = 0;
    'send: for piece in &ask.pieces {
        let mut rest = piece.as_slice();
        while !rest.is_empty() && done < total {
            let before = nth.hit().is_some();
            let result = match ask.how {
                How::Vectors => nth.call("sendmsg", || send_vectors(sock, &ask.pieces, done)),
                _ => nth.call("send", || send(sock, rest, 0)),
            };
            match judge(nth, before, result).context("send")? {
                Did::Bytes(0) => bail!("send: 0"),
                Did::Bytes(n) => {
                    done += n;
                    rest = rest.get(n..).unwrap_or(&[]);
                }
                Did::Nothing(e) => failed = Some(e),
                Did::Reset => {
                    reset = true;
                    break 'send;
                }
            }
        }
    }
    let mut all: Vec<u8> = Vec::with_capacity(256 * 1024);
    let mut room = vec![0u8; ask.room];
    let mut seen = vec![0u8; ask.room];
    let mut answers = Vec::new();
    let (mut at, mut over) = (0, false);
    while answers.len() < ask.wants.len() && !over {
        let before = nth.hit().is_some();
        let mut peeked = None;
        if ask.how == How::Peek {
            let result = nth.call("peek", || recv(sock, &mut seen, libc::MSG_PEEK));
            match judge(nth, before, result).context("peek")? {
                Did::Bytes(n) => peeked = Some(n),
                Did::Nothing(e) => failed = Some(e),
                Did::Reset => {
                    reset = true;
                    break;
                }
            }
        }
        let before = nth.hit().is_some();
        let result = match ask.how {
            How::Vectors => nth.call("recvmsg", || recv_vectors(sock, &mut room)),
            _ => nth.call("recv", || recv(sock, &mut room, 0)),
        };
        match judge(nth, before, result) {
            Ok(Did::Bytes(n)) => {
                if let Some(peeked) = peeked {
                    // A read that meets the fault ends before it.
                    let cut = !before && nth.hit().is_some();
                    let both = peeked.min(n);
                    let same = (peeked <= n || cut) && room.get(..both) == seen.get(..both);
                    ensure!(
                        same,
                        "a peek of {peeked} bytes saw others than the read of {n}"
                    );
                }
                all.extend_from_slice(room.get(..n).unwrap_or(&[]));
                over = n == 0;
            }
            Ok(Did::Nothing(e)) => failed = Some(e),
            Ok(Did::Reset) => {
                reset = true;
                break;
            }
            Err(e) => return Err(e.context(format!("recv, after {:?}", lossy(&all)))),
        }
        while let Some((answer, length)) = parse(all.get(at..).unwrap_or(&[]))? {
            at += length;
            over |= answer.closes;
            answers.push(answer);
        }
    }
    let mut went = None;
    for (n, answer) in answers.iter().enumerate() {
        let want = ask.wants.get(n).context("more answers than requests")?;
        if answer.status == 200 && answer.body == *want {
            continue;
        }
        let reason = answer.reason.as_deref().unwrap_or("?");
        ensure!(
            answer.status >= 500 && REASONS.contains(&reason) && nth.hit().is_some(),
            "answer {n}: {} {reason}, {} bytes {:?}; wanted {:?}",
            answer.status,
            answer.body.len(),
            lossy(&answer.body),
            lossy(want)
        );
        went = Some(format!("{} {reason}", answer.status));
    }
    let whole = answers.len() == ask.wants.len();
    if reset {
        return Ok(Went {
            text: "reset".to_owned(),
            open: false,
        });
    }
    ensure!(
        whole || went.is_some(),
        "an end after {} answers and {:?}",
        answers.len(),
        lossy(all.get(at..).unwrap_or(&[]))
    );
    let text = went.unwrap_or_else(|| match failed {
        Some(errno) => format!("{errno:?} once"),
        None => "right".to_owned(),
    });
    Ok(Went { text, open: !over })
}

/// After a fault the same client, or where it was told an end a new one, is served.
pub fn follow_up(ctx: &Ctx, sock: &Sock, went: &Went, address: SocketAddr) -> Result<()> {
    let new;
    let sock = if went.open {
        sock
    } else {
        new = socket(address, 0, ctx.secs(20))?;
        new.connect(address)?;
        &new
    };
    let again = talk(&mut Nth::none(), sock, &Ask::get("/after")).context("afterwards")?;
    ensure!(again.text == "right", "afterwards: {}", again.text);
    Ok(())
}

/// The VIP, connected to without a fault, and a talk with one.
pub fn connected(ctx: &Ctx, nth: &mut Nth, mark: u32, ask: &Ask) -> Result<String> {
    let vip = VIP4.parse()?;
    let sock = socket(vip, mark, ctx.secs(20))?;
    sock.connect(vip)?;
    let went = talk(nth, &sock, ask)?;
    follow_up(ctx, &sock, &went, vip)?;
    Ok(went.text)
}

/// A response.
pub struct Answer {
    pub status: u16,
    pub reason: Option<String>,
    pub body: Vec<u8>,
    closes: bool,
}

/// The first response in these bytes and its length; `None` when it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or(&[])).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|l| l.strip_prefix("HTTP/1.1 "))
        .and_then(|l| l.get(..3)?.parse().ok())
        .with_context(|| format!("no status line: {head:?}"))?;
    let fields: Vec<(String, &str)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim()))
        .collect();
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let rest = bytes.get(end + 4..).unwrap_or(&[]);
    let (body, used) = if field("transfer-encoding").is_some() {
        match chunks(rest)? {
            Some(found) => found,
            None => return Ok(None),
        }
    } else {
        let length: usize = field("content-length").unwrap_or("0").parse()?;
        match rest.get(..length) {
            Some(body) => (body.to_vec(), length),
            None => return Ok(None),
        }
    };
    let answer = Answer {
        status,
        reason: field("x-xlb-reason").map(str::to_owned),
        body,
        closes: field("connection").is_some_and(|v| v.contains("close")),
    };
    Ok(Some((answer, end + 4 + used)))
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let Some(line) = find(rest, b"\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(rest.get(..line).unwrap_or(&[])).into_owned();
        let size = usize::from_str_radix(&text, 16).with_context(|| format!("chunk {text:?}"))?;
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        ensure!(data.ends_with(b"\r\n"), "a chunk without its end");
        body.extend_from_slice(data.get(..size).unwrap_or(&[]));
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
