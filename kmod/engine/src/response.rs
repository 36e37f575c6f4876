// SPDX-License-Identifier: GPL-2.0

//! Response heads (RFC 9112, sections 4 and 6.3).
//!
//! ```text
//! HTTP-version SP 3DIGIT [ SP reason-phrase ] CRLF *( field-line CRLF ) CRLF
//! ```

use crate::facts::{Facts, Flags};
use crate::fields::Lines;
use crate::limits::Limits;
use crate::message::{Framing, Method, Status, Version};
use crate::reason::Reason;
use crate::request::{version_of, RequestContext};
use crate::scan;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    #[default]
    Start,
    Phrase,
    Fields,
}

/// Frames one response head, as [`RequestParser`](crate::RequestParser) does a request head.  For what follows a 1xx
/// response, call [`interim`](Self::interim) and go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResponseParser {
    facts: Facts,
    lines: Lines,
    pos: u32,
    interims: u32,
    status: u16,
    version: Version,
    /// The error that was returned.
    refused: Option<Reason>,
    at: At,
}

const _: () = assert!(size_of::<ResponseParser>() <= 64);

/// What a response head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResponseHead {
    /// Length of the head with the empty line that ends it.
    pub head_bytes: u32,
    /// Fields of the head.
    pub field_count: u32,
    /// 100 to 999.
    pub status: u16,
    /// The version.
    pub version: Version,
    /// Where the body ends.
    pub framing: Framing,
    /// The endpoint's connection cannot be used again.
    pub close: bool,
    /// 1xx other than 101: the final response follows.
    pub interim: bool,
    /// Must not be forwarded byte for byte.
    pub rewrite: bool,
}

/// `HTTP/1.1 200`
const START_BYTES: usize = 12;

impl ResponseParser {
    /// Before the first byte.
    pub const fn new() -> Self {
        ResponseParser {
            facts: Facts::new(),
            lines: Lines::new(),
            pos: 0,
            interims: 0,
            status: 0,
            version: Version::Http11,
            refused: None,
            at: At::Start,
        }
    }

    /// Makes ready for the response after an interim one, or says that there were too many.
    pub fn interim(&mut self, limits: &Limits) -> Result<(), Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let interims = self.interims.saturating_add(1);
        if interims > limits.interim_count {
            return self.refuse(Reason::InterimCount);
        }
        *self = ResponseParser {
            interims,
            ..Self::new()
        };
        Ok(())
    }

    /// Goes on where the last call stopped.  `buf` is everything since the first byte, and may hold bytes after
    /// the head; `request` is the oldest one that has no final response yet.  After an error every call returns it again.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        request: &RequestContext,
    ) -> Result<Status<ResponseHead>, Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let most = limits.head_bytes as usize;
        let window = buf.get(..most).unwrap_or(buf);
        match self.advance(window, limits) {
            Ok(Some(end)) => match self.finish(end, request) {
                Ok(head) => Ok(Status::Complete(head)),
                Err(reason) => self.refuse(reason),
            },
            Ok(None) if window.len() >= most => self.refuse(Reason::HeadBytes),
            Ok(None) => Ok(Status::Partial),
            Err(reason) => self.refuse(reason),
        }
    }

    #[cold]
    fn refuse<T>(&mut self, reason: Reason) -> Result<T, Reason> {
        self.refused = Some(reason);
        Err(reason)
    }

    /// The offset after the head, once it is whole.
    #[inline]
    fn advance(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Reason> {
        let mut lines = if self.at == At::Fields {
            self.lines
        } else {
            match self.status_line(buf)? {
                Status::Partial => return Ok(None),
                Status::Complete(end) => Lines::at(end),
            }
        };
        let end = lines.scan(buf, limits, &mut self.facts)?;
        self.lines = lines;
        Ok(end)
    }

    /// The offset of the first field line.
    #[inline]
    fn status_line(&mut self, buf: &[u8]) -> Result<Status<usize>, Reason> {
        if self.at == At::Start {
            // Bytes that cannot become a status line are refused at once: an endpoint that speaks another
            // protocol may never send more.
            if !buf.iter().zip(b"HTTP/").all(|(a, b)| a == b) {
                return Err(Reason::StatusLine);
            }
            let Some((start, _)) = buf.split_first_chunk::<START_BYTES>() else {
                return Ok(Status::Partial);
            };
            let (version, code) = start.split_first_chunk::<8>().ok_or(Reason::StatusLine)?;
            self.version = version_of(version)?;
            self.status = match code {
                [b' ', code @ ..] => status_of(code)?,
                _ => return Err(Reason::StatusLine),
            };
            self.pos = START_BYTES as u32;
            self.at = At::Phrase;
        }
        let start = START_BYTES;
        match scan::at(buf, start) {
            None => return Ok(Status::Partial),
            // Without the space before an empty phrase: common, and framed alike by everybody.
            Some(b' ' | b'\r') => {}
            Some(b'\n') => return Err(Reason::BareLf),
            Some(b'0'..=b'9') => return Err(Reason::StatusCode),
            Some(_) => return Err(Reason::StatusLine),
        }
        let end = scan::value_end(buf, self.pos as usize);
        self.pos = end as u32;
        match scan::at(buf, end) {
            None => return Ok(Status::Partial),
            Some(b'\r') => match scan::at(buf, end.wrapping_add(1)) {
                None => return Ok(Status::Partial),
                Some(b'\n') => {}
                Some(_) => return Err(Reason::BareCr),
            },
            Some(b'\n') => return Err(Reason::BareLf),
            Some(_) => return Err(Reason::StatusReason),
        }
        self.at = At::Fields;
        Ok(Status::Complete(end.wrapping_add(2)))
    }

    /// RFC 9112, section 6.3, in its order.
    fn finish(&self, end: usize, request: &RequestContext) -> Result<ResponseHead, Reason> {
        let flags = self.facts.flags;
        let chunked = flags.has(Flags::CHUNKED);
        let http11 = self.version == Version::Http11;
        if chunked && flags.has(Flags::LENGTH) {
            return Err(Reason::LengthAndCoding);
        }
        if chunked && !http11 {
            return Err(Reason::CodingHttp10);
        }
        let interim = matches!(self.status, 100 | 102..=199);
        let switch = self.status == 101;
        if interim || switch || self.status == 204 {
            // A length of 0 is sent by some servers, and means the same to everybody.
            if chunked || self.facts.length != 0 {
                return Err(Reason::ContentForbidden);
            }
            if (interim || switch) && request.version == Version::Http10 {
                return Err(Reason::InterimToHttp10);
            }
        }
        if switch {
            if request.upgrade.is_none() {
                return Err(Reason::SwitchUnasked);
            }
            if self.facts.upgrade() != request.upgrade {
                return Err(Reason::SwitchProtocol);
            }
        }
        let framing = if switch {
            Framing::Tunnel
        } else if interim || matches!(self.status, 204 | 304) || request.method == Method::Head {
            Framing::None
        } else if chunked && request.version == Version::Http10 {
            return Err(Reason::CodingToHttp10);
        } else if chunked {
            Framing::Chunked
        } else if flags.has(Flags::LENGTH) {
            Framing::Length(self.facts.length)
        } else {
            Framing::UntilClose
        };
        // RFC 9112, section 9.3, seen from both ends: a server closes after a request of HTTP/1.0 unless it says that it
        // does not, whatever version it answers with.
        let stays = http11 && request.version == Version::Http11;
        let close = flags.has(Flags::CLOSE)
            || !(stays || flags.has(Flags::KEEP_ALIVE))
            || matches!(framing, Framing::UntilClose | Framing::Tunnel);
        Ok(ResponseHead {
            head_bytes: end as u32,
            field_count: self.lines.count,
            status: self.status,
            version: self.version,
            framing,
            close,
            interim,
            rewrite: flags.has(Flags::HOP)
                || flags.has(Flags::CLOSE)
                || flags.has(Flags::ODD)
                || (flags.upgrade() && !switch)
                // An HTTP/1.0 status line tells an HTTP/1.1 client to close a connection that may stay.
                || (self.version < request.version),
        })
    }
}

/// RFC 9110, section 15.
fn status_of(code: &[u8]) -> Result<u16, Reason> {
    match code {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            let digit = |d: &u8| u16::from(d.wrapping_sub(b'0'));
            // At most 999.
            Ok(digit(a)
                .wrapping_mul(100)
                .wrapping_add(digit(b).wrapping_mul(10))
                .wrapping_add(digit(c)))
        }
        _ => Err(Reason::StatusCode),
    }
}
