// SPDX-License-Identifier: GPL-2.0
//! What clients of a storm do.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{shutdown, Shutdown};

use super::ask::{check_bytes, Answer, Ask, SERVICES};
use super::backends;
use super::chance::Rng;
use super::clients::{Client, Link, UNBOUND};
use super::world::Outcome;
use crate::http::lossy;

#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Get,
    /// HEAD, 204, 304.
    Bodiless,
    /// With a Content-Length.
    Upload,
    Chunked,
    Pipelined,
    Http10,
    /// 100-continue.
    Expect,
    Tunnel,
    /// shutdown(SHUT_WR) after the request.
    HalfClose,
    /// Gone in the middle of a request, of a response, after a request, after connect().
    LeaveInRequest,
    LeaveInResponse,
    LeaveAtOnce,
    LeaveUnused,
    /// Options are changed between requests.
    Options,
    /// bind() before connect().
    Bound,
    Malformed,
    /// Another process reads the responses.
    HandOver,
    /// dup(), and the first descriptor is closed.
    Dup,
    /// connect() to no address and to the service again.
    Reconnect,
    /// connect() to no address and then to a backend itself.
    Elsewhere,
}

use Operation as O;

pub const OPERATIONS: [(usize, Operation); 20] = [
    (24, O::Get),
    (6, O::Bodiless),
    (10, O::Upload),
    (8, O::Chunked),
    (8, O::Pipelined),
    (3, O::Http10),
    (4, O::Expect),
    (3, O::Tunnel),
    (3, O::HalfClose),
    (3, O::LeaveInRequest),
    (3, O::LeaveInResponse),
    (2, O::LeaveAtOnce),
    (2, O::LeaveUnused),
    (4, O::Options),
    (3, O::Bound),
    (4, O::Malformed),
    (1, O::HandOver),
    (2, O::Dup),
    (2, O::Reconnect),
    (1, O::Elsewhere),
];

/// Answers that are whole, on a connection to the client that goes on.
const WHOLE: [(usize, Answer); 6] = [
    (10, Answer::Plain),
    (6, Answer::Chunked),
    (2, Answer::Close),
    (2, Answer::Early),
    (2, Answer::Slow),
    (2, Answer::Trickle),
];

/// All that a GET may ask for.
const ALL: [(usize, Answer); 12] = [
    (20, Answer::Plain),
    (10, Answer::Chunked),
    (4, Answer::Close),
    (3, Answer::ToClose),
    (3, Answer::Early),
    (3, Answer::Slow),
    (3, Answer::Trickle),
    (1, Answer::CutNone),
    (1, Answer::CutHead),
    (1, Answer::CutBody),
    (1, Answer::CutChunk),
    (1, Answer::Garbage),
];

/// Requests that are refused with this status.
const MALFORMED: [(&str, u16); 11] = [
    ("GET\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nname : x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
];

impl Client {
    pub fn perform(&mut self, operation: Operation, rng: &mut Rng) -> Result<Outcome> {
        match operation {
            O::Get => {
                let answer = rng.weighted(&ALL);
                self.get(answer, rng)
            }
            O::Bodiless => self.bodiless(rng),
            O::Upload | O::Chunked => self.upload(matches!(operation, O::Chunked), rng),
            O::Pipelined => self.pipelined(rng),
            O::Http10 => self.http10(rng),
            O::Expect => self.expect(rng),
            O::Tunnel => self.tunnel(rng),
            O::HalfClose => self.half_close(rng),
            O::LeaveInRequest => self.leave_in_request(rng),
            O::LeaveInResponse => self.leave_in_response(rng),
            O::LeaveAtOnce | O::LeaveUnused => self.leave(matches!(operation, O::LeaveAtOnce), rng),
            O::Options => self.options(rng),
            O::Bound => self.bound(rng),
            O::Malformed => self.malformed(rng),
            O::HandOver => self.hand_over(rng),
            O::Dup => self.dup(rng),
            O::Reconnect => self.reconnect(rng),
            O::Elsewhere => self.elsewhere(rng),
        }
    }

    fn get(&mut self, answer: Answer, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let ask = Ask::get(self.owner(0), service, answer, rng);
        self.ask(ask, rng)
    }

    /// A GET on the connection that is there, which is not given up for another.
    fn get_here(&mut self, n: u32, rng: &mut Rng) -> Result<Outcome> {
        let service = self.here()?.service;
        let answer = rng.weighted(&WHOLE);
        let mut ask = Ask::get(self.owner(n), service, answer, rng);
        ask.length = ask.length.min(64 << 10);
        self.ask(ask, rng)
    }

    fn here(&mut self) -> Result<&mut Link> {
        self.link.as_mut().ok_or_else(|| anyhow!("no connection"))
    }

    fn bodiless(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let answer = rng.of_these(&[
            Answer::Plain,
            Answer::Chunked,
            Answer::NoContent,
            Answer::NotModified,
        ]);
        let mut ask = Ask::get(self.owner(0), service, answer, rng);
        if answer.status() == 200 {
            ask.method = "HEAD";
        }
        self.ask(ask, rng)
    }

    fn upload(&mut self, chunked: bool, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let answer = rng.weighted(&[
            (12, Answer::Plain),
            (6, Answer::Chunked),
            (2, Answer::Close),
            (2, Answer::Slow),
            (3, Answer::Before),
            (1, Answer::CutNone),
            (1, Answer::CutBody),
        ]);
        let mut ask = Ask::get(self.owner(0), service, answer, rng);
        ask.method = rng.of_these(&["POST", "POST", "PUT"]);
        ask.body = rng.length();
        ask.chunked = chunked;
        ask.length = ask.length.min(64 << 10);
        self.ask(ask, rng)
    }

    /// Several requests before the first response is read. All of them are no more than XLB holds.
    fn pipelined(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let mut asks = Vec::new();
        let mut bytes = Vec::new();
        for n in 0..rng.from(2, 9) as u32 {
            let answer = rng.weighted(&WHOLE);
            let mut ask = Ask::get(self.owner(n), service, answer, rng);
            match rng.below(4) {
                0 => ask.method = "HEAD",
                1 => {
                    ask.method = "POST";
                    ask.body = rng.below(2000);
                    ask.chunked = rng.one_in(2);
                }
                _ => {}
            }
            bytes.extend(ask.bytes(rng));
            asks.push(ask);
        }
        self.here()?.conn.send(bytes)?;
        for ask in asks {
            self.asked = Some(ask.clone());
            let message = self.here()?.conn.response(ask.method)?;
            let outcome = self.judge(&ask, &message)?;
            if outcome != Outcome::Answered || self.link.is_none() {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Answered)
    }

    fn http10(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let answer = rng.of_these(&[Answer::Plain, Answer::ToClose]);
        let mut ask = Ask::get(self.owner(0), service, answer, rng);
        ask.version = "1.0";
        if rng.one_in(2) {
            ask.fields = "Connection: keep-alive\r\n".to_owned();
        }
        self.ask(ask, rng)
    }

    fn expect(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let mut ask = Ask::get(self.owner(0), service, Answer::Plain, rng);
        ask.method = "POST";
        ask.body = 1 + rng.length();
        ask.chunked = rng.one_in(3);
        ask.fields = "Expect: 100-continue\r\n".to_owned();
        self.asked = Some(ask.clone());
        let conn = &mut self.here()?.conn;
        conn.send(ask.head())?;
        let mut message = conn.head()?.context("connection closed before 100")?;
        if message.status() == 100 {
            conn.send(ask.body_bytes(rng))?;
            message = conn.response(ask.method)?;
        } else {
            conn.response_body(ask.method, &mut message)?;
            ensure!(message.status() >= 400, "{:?} without 100", message.start);
        }
        self.judge(&ask, &message)
    }

    fn tunnel(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let mut ask = Ask::get(self.owner(0), service, Answer::Tunnel, rng);
        ask.fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned();
        let outcome = self.ask(ask, rng)?;
        if outcome != Outcome::Answered {
            return Ok(outcome);
        }
        for n in 1..=rng.from(1, 5) as u32 {
            // Less than the buffers on the way hold: nobody reads while it is written.
            let length = rng.length().min(16 << 10);
            let bytes = self.owner(n).request_body(length);
            let conn = &mut self.here()?.conn;
            conn.send(&bytes)?;
            let back = conn.exactly(bytes.len())?;
            check_bytes(&back, &bytes).context("in a tunnel")?;
        }
        if rng.one_in(2) {
            self.end_writing()?;
            self.here()?.conn.expect_eof()?;
        }
        self.link = None;
        Ok(Outcome::Answered)
    }

    fn end_writing(&mut self) -> Result<()> {
        Ok(shutdown(
            self.here()?.conn.stream.sock.raw(),
            Shutdown::Write,
        )?)
    }

    fn half_close(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let ask = Ask::get(self.owner(0), service, rng.weighted(&WHOLE), rng);
        self.asked = Some(ask.clone());
        self.here()?.conn.send(ask.bytes(rng))?;
        self.end_writing()?;
        let message = self.here()?.conn.response(ask.method)?;
        let outcome = self.judge(&ask, &message)?;
        if let Some(mut link) = self.link.take() {
            link.conn.expect_eof()?;
        }
        Ok(outcome)
    }

    /// Closes the connection, with or without a reset.
    fn go(&mut self, rng: &mut Rng) -> Result<Outcome> {
        if rng.one_in(2) {
            self.here()?.conn.stream.sock.set_bytes(
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                &[1, 0, 0, 0, 0, 0, 0, 0],
            )?;
        }
        self.link = None;
        Ok(Outcome::Done)
    }

    fn leave_in_request(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let mut ask = Ask::get(self.owner(0), service, Answer::Plain, rng);
        ask.method = "PUT";
        ask.body = rng.length();
        ask.chunked = rng.one_in(2);
        self.asked = Some(ask.clone());
        let bytes = ask.bytes(rng);
        let part = rng.below(bytes.len());
        self.here()?.conn.send(&bytes[..part])?;
        sleep(Duration::from_millis(rng.below(20) as u64));
        self.go(rng)
    }

    fn leave_in_response(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let service = self.link()?.service;
        let mut ask = Ask::get(self.owner(0), service, rng.weighted(&WHOLE), rng);
        ask.length += rng.length();
        self.asked = Some(ask.clone());
        self.here()?.conn.send(ask.bytes(rng))?;
        let mut room = vec![0; 1 + rng.below(ask.length + 100)];
        let got = self.here()?.conn.stream.read(&mut room)?;
        ensure!(
            got == 0 || room.starts_with(b"HTTP/1.1 ".get(..got.min(9)).unwrap_or(b"")),
            "{:?}",
            lossy(&room)
        );
        self.go(rng)
    }

    /// After a request, or after nothing but the connect.
    fn leave(&mut self, asks: bool, rng: &mut Rng) -> Result<Outcome> {
        if asks {
            let service = self.link()?.service;
            let ask = Ask::get(self.owner(0), service, rng.weighted(&ALL), rng);
            self.asked = Some(ask.clone());
            self.here()?.conn.send(ask.bytes(rng))?;
        } else {
            self.open(rng, None)?;
        }
        self.go(rng)
    }

    fn options(&mut self, rng: &mut Rng) -> Result<Outcome> {
        self.link()?;
        for n in 0..3 {
            let choice = rng.below(9);
            let value = rng.below(4) as i32;
            let (level, option, value) = match choice {
                0 => (libc::SOL_SOCKET, libc::SO_MARK, value),
                1 => (libc::SOL_SOCKET, libc::SO_PRIORITY, value),
                2 => (libc::SOL_SOCKET, libc::SO_KEEPALIVE, value & 1),
                3 => (libc::SOL_SOCKET, libc::SO_SNDBUF, 4096 << value),
                4 => (libc::SOL_SOCKET, libc::SO_RCVBUF, 4096 << value),
                5 => (libc::SOL_TCP, libc::TCP_NODELAY, value & 1),
                6 => (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 60_000 + value),
                7 => (libc::SOL_IP, libc::IP_TOS, value << 3),
                _ => (libc::SOL_IP, libc::IP_TTL, 60 + value),
            };
            // IPv6 has other names for the last two: a refusal is as good here.
            let _ = self.here()?.conn.stream.sock.set(level, option, value);
            let outcome = self.get_here(n, rng)?;
            if outcome != Outcome::Answered || self.link.is_none() {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Answered)
    }

    /// Its requests come from the address that it has bound.
    fn bound(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let address = Ipv4Addr::new(127, 0, 0, rng.from(2, 6) as u8);
        let port = if rng.one_in(2) {
            0
        } else {
            // Others have it, or had it a moment ago.
            self.excused = true;
            20_000 + rng.below(64) as u16
        };
        self.open(rng, Some((address, port)))?;
        let mut outcome = Outcome::Answered;
        for n in 0..3 {
            outcome = self.get_here(n, rng)?;
            if outcome != Outcome::Answered || self.link.is_none() {
                break;
            }
        }
        self.link = None;
        Ok(outcome)
    }

    fn malformed(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let link = self.link()?;
        let (bytes, status) = rng.of_these(&MALFORMED);
        link.conn.send(bytes)?;
        let message = link.conn.response("GET")?;
        ensure!(
            message.status() == status && message.field("x-xlb-reason").is_some(),
            "{bytes:?} got {:?} {:?}",
            message.start,
            message.fields
        );
        if status == 400 {
            link.conn.expect_eof()?;
        }
        self.link = None;
        Ok(Outcome::Done)
    }

    fn hand_over(&mut self, rng: &mut Rng) -> Result<Outcome> {
        self.open(rng, None)?;
        let outcome = self.get_here(0, rng)?;
        if outcome != Outcome::Answered || self.link.is_none() {
            return Ok(outcome);
        }
        self.here()?.conn.stream.hand_over()?;
        let mut outcome = Outcome::Answered;
        for n in 1..3 {
            outcome = self.get_here(n, rng)?;
            if outcome != Outcome::Answered || self.link.is_none() {
                break;
            }
        }
        self.link = None;
        Ok(outcome)
    }

    fn dup(&mut self, rng: &mut Rng) -> Result<Outcome> {
        let link = self.link()?;
        let copy = link.conn.stream.sock.dup()?;
        link.conn.stream.replace(copy);
        self.get_here(0, rng)
    }

    fn reconnect(&mut self, rng: &mut Rng) -> Result<Outcome> {
        self.open(rng, None)?;
        let outcome = self.get_here(0, rng)?;
        if outcome != Outcome::Answered || self.link.is_none() {
            return Ok(outcome);
        }
        let sock = &self.here()?.conn.stream.sock;
        let Ok(vip) = sock.peer() else {
            return Ok(Outcome::Cut);
        };
        if rng.one_in(2) {
            // In the middle of a response.
            let service = self.here()?.service;
            let ask = Ask::get(self.owner(8), service, rng.weighted(&WHOLE), rng);
            self.here()?.conn.stream.write_all(&ask.bytes(rng))?;
        }
        let sock = &self.here()?.conn.stream.sock;
        sock.disconnect()?;
        sock.connect(vip)?;
        self.get_here(1, rng)
    }

    fn elsewhere(&mut self, rng: &mut Rng) -> Result<Outcome> {
        self.open(rng, None)?;
        let outcome = self.get_here(0, rng)?;
        if outcome != Outcome::Answered || self.link.is_none() {
            return Ok(outcome);
        }
        let four = self.here()?.conn.stream.sock.local()?.is_ipv4();
        let service = self.here()?.service;
        let ask = Ask::get(self.owner(1), service, Answer::Plain, rng);
        let lane = SERVICES[service].lanes[ask.lane];
        let to = backends::address(rng.of_these(lane)).parse()?;
        let to = if four { to } else { crate::sock::mapped(to) };
        let sock = &self.here()?.conn.stream.sock;
        sock.disconnect()?;
        sock.connect(to)?;
        self.here()?.from = UNBOUND;
        let outcome = self.ask(ask, rng)?;
        self.link = None;
        if matches!(outcome, Outcome::Reply(_)) {
            bail!("XLB replied on a connection that is not its own");
        }
        Ok(outcome)
    }
}
