// SPDX-License-Identifier: GPL-2.0
//! A small HTTP/1.1 peer for both sides, strict about what it reads.
//!
//! The scenarios use real programs where a program's habits matter; this one is for where every byte does.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

/// A head and a body, of a request or of a response.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The first line: "GET / HTTP/1.1" or "HTTP/1.1 200 OK".
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Status lines of the 1xx responses before this one.
    pub interim: Vec<String>,
}

impl Message {
    /// The status of a response; 0 when the start line has none.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    /// The target of a request.
    pub fn path(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// Fails unless the response has this status.
    pub fn expect(&self, status: u16) -> Result<&Self> {
        ensure!(
            self.status() == status,
            "expected {status}, got {:?} {:?} {:?}",
            self.start,
            self.fields,
            self.text()
        );
        Ok(self)
    }

    /// Fails unless XLB itself replied, with this status and reason.
    pub fn expect_reply(&self, status: u16, reason: &str) -> Result<&Self> {
        self.expect(status)?;
        ensure!(
            self.field("x-xlb-reason") == Some(reason),
            "expected x-xlb-reason: {reason}, got {:?} {:?}",
            self.start,
            self.fields
        );
        Ok(self)
    }
}

/// A connection, with what was read ahead.
pub struct Conn<S = TcpStream> {
    pub stream: S,
    ahead: Vec<u8>,
}

impl Conn {
    pub fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        Self::of(stream, limit)
    }

    pub fn of(stream: TcpStream, limit: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        // Pieces are to arrive as pieces.
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Reads to the end of the connection, or until nothing comes for so long.
    pub fn rest(&mut self, quiet: Duration) -> Result<(Vec<u8>, bool)> {
        self.stream.set_read_timeout(Some(quiet))?;
        let closed = loop {
            match self.fill() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break false,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break true,
                Err(error) => return Err(error).context("read"),
            }
        };
        Ok((std::mem::take(&mut self.ahead), closed))
    }

    pub fn shutdown_write(&self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write).context("shutdown")
    }

    /// Ends the connection with RST.
    pub fn reset(self) -> Result<()> {
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &linger)?;
        Ok(())
    }
}

impl<S: Read + Write> Conn<S> {
    /// Over any stream, whose own affair it is how long it waits.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).context("write")
    }

    /// Sends a request head with a Host field, and the body with its length when there is one.
    pub fn request(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Result<()> {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let mut bytes =
            format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}{length}\r\n")
                .into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes)
    }

    /// One GET and its response.
    pub fn get(&mut self, path: &str) -> Result<Message> {
        self.request("GET", path, "", b"")?;
        self.response("GET")
    }

    /// Reads one response to a request of this method, interim responses included.
    pub fn response(&mut self, method: &str) -> Result<Message> {
        let mut interim = Vec::new();
        loop {
            let mut message = self
                .head()?
                .context("connection closed before a response")?;
            let status = message.status();
            ensure!(
                message.start.starts_with("HTTP/1.") && status >= 100,
                "no status line: {:?}",
                lossy(message.start.as_bytes())
            );
            if (100..200).contains(&status) && status != 101 {
                interim.push(message.start);
                continue;
            }
            message.interim = interim;
            self.response_body(method, &mut message)?;
            return Ok(message);
        }
    }

    /// Reads what follows the head of a final response to a request of this method.
    pub fn response_body(&mut self, method: &str, message: &mut Message) -> Result<()> {
        let without = method == "HEAD" || matches!(message.status(), 101 | 204 | 304);
        if !without {
            self.body(message, true)?;
        }
        Ok(())
    }

    /// Reads one request; `None` at a clean end of the connection.
    pub fn request_read(&mut self) -> Result<Option<Message>> {
        let Some(mut message) = self.head()? else {
            return Ok(None);
        };
        self.request_body(&mut message)?;
        Ok(Some(message))
    }

    /// Reads what follows the head of a request.
    pub fn request_body(&mut self, message: &mut Message) -> Result<()> {
        self.body(message, false)
    }

    /// Reads a head; `None` when the connection ended before its first byte.
    pub fn head(&mut self) -> Result<Option<Message>> {
        let end = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at;
            }
            if self.fill_or_explain().context("read head")? == 0 {
                ensure!(
                    self.ahead.is_empty(),
                    "connection closed in a head: {:?}",
                    lossy(&self.ahead)
                );
                return Ok(None);
            }
        };
        let head = self.take(end + 4);
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or("").to_owned();
        let fields = lines.filter_map(split_field).collect();
        Ok(Some(Message {
            start,
            fields,
            ..Message::default()
        }))
    }

    fn body(&mut self, message: &mut Message, until_close: bool) -> Result<()> {
        let chunked = message
            .field("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        if chunked {
            return self.chunks(message);
        }
        if let Some(length) = message.field("content-length") {
            let length: usize = length
                .parse()
                .with_context(|| format!("content-length {length:?}"))?;
            message.body = self.exactly(length)?;
        } else if until_close {
            while self.fill().context("read to close")? != 0 {}
            message.body = std::mem::take(&mut self.ahead);
        }
        Ok(())
    }

    fn chunks(&mut self, message: &mut Message) -> Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or("").trim();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                break;
            }
            let data = self.exactly(size)?;
            message.body.extend_from_slice(&data);
            let end = self.exactly(2)?;
            ensure!(end == b"\r\n", "chunk does not end with CRLF: {end:?}");
        }
        loop {
            let line = self.line()?;
            match split_field(&line) {
                Some(field) => message.trailers.push(field),
                None => return Ok(()),
            }
        }
    }

    /// Reads a line; without its end.
    pub fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                let line = self.take(at + 2);
                return Ok(String::from_utf8_lossy(&line)
                    .trim_end_matches("\r\n")
                    .to_owned());
            }
            ensure!(
                self.fill().context("read line")? != 0,
                "connection closed in a line"
            );
        }
    }

    /// Reads so many bytes.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < length {
            let have = self.ahead.len();
            if self
                .fill_or_explain()
                .with_context(|| format!("read {length} bytes, have {have}"))?
                == 0
            {
                bail!(
                    "connection closed {} bytes before the end",
                    length - self.ahead.len()
                );
            }
        }
        Ok(self.take(length))
    }

    /// What was read ahead, or else what comes next; nothing at the end.
    pub fn some(&mut self) -> Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill_or_explain().context("read")?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Fails unless the peer has ended the connection with nothing more to read.
    pub fn expect_eof(&mut self) -> Result<()> {
        match self.fill() {
            Ok(0) if self.ahead.is_empty() => Ok(()),
            Ok(_) => bail!("expected the end, got {:?}", lossy(&self.ahead)),
            Err(error) => Err(error).context("expected the end"),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// When nothing comes in time, prints what XLB holds: later it will be gone.
    fn fill_or_explain(&mut self) -> io::Result<usize> {
        let result = self.fill();
        if result.as_ref().is_err_and(is_timeout) {
            crate::xlb::explain();
        }
        result
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0u8; 65536];
        loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(length) => {
                    self.ahead
                        .extend_from_slice(piece.get(..length).unwrap_or(&[]));
                    return Ok(length);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn split_field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Bytes as text for a message, not all of them.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(400)).unwrap_or(&[])).into_owned()
}

/// `length` bytes that show any loss, doubling or change of order, the same for the same seed.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
