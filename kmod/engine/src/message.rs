// SPDX-License-Identifier: GPL-2.0

//! The words that the parsers, the body and the rewriter share.

use core::num::NonZeroU64;

use crate::hash::{fnv1a, Fnv1a};
use crate::scan;

/// Whether there were enough bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status<T> {
    /// Call again with the same bytes and more.
    Partial,
    /// Done.
    Complete(T),
}

/// Bytes `start .. start + len` of the head that was parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Offset from the first byte given to the parser (skipped empty lines included).
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// No bytes, of anything.
    pub const EMPTY: Span = Span { start: 0, len: 0 };

    /// From two offsets; empty when they are out of order.
    pub(crate) const fn between(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            len: end.saturating_sub(start) as u32,
        }
    }

    /// Where `part` lies in `whole`, of which it is a piece.
    pub(crate) fn of(whole: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        Span {
            start: if part.is_empty() { 0 } else { start as u32 },
            len: part.len() as u32,
        }
    }

    /// Offset after the last byte.
    pub const fn end(self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// Without its first `bytes`.
    #[must_use]
    pub const fn skip(self, bytes: u32) -> Span {
        Span {
            start: self.start.saturating_add(bytes),
            len: self.len.saturating_sub(bytes),
        }
    }

    /// No byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes; empty when the span is not inside `head`.
    pub fn get(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end() as usize)
            .unwrap_or(&[])
    }
}

/// A protocol of an Upgrade field (RFC 9110, section 7.8) by the hash of its name and version in lower case: all that is
/// asked of one is whether it is another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol(NonZeroU64);

impl Protocol {
    /// `websocket` (RFC 6455)
    pub const WEBSOCKET: Protocol = Protocol(match NonZeroU64::new(fnv1a(b"websocket")) {
        Some(hash) => hash,
        None => NonZeroU64::MIN,
    });

    /// `token [ "/" token ]`; `None` for anything else, a list too.
    pub fn from_value(value: &[u8]) -> Option<Protocol> {
        let mut parts = value.splitn(2, |b| *b == b'/');
        let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|b| scan::is_token(*b));
        if !parts.all(is_token) {
            return None;
        }
        let hash = value
            .iter()
            .fold(Fnv1a::new(), |hash, b| hash.push(b.to_ascii_lowercase()));
        NonZeroU64::new(hash.finish()).map(Protocol)
    }

    /// FNV-1a; never 0.
    pub const fn hash(self) -> u64 {
        self.0.get()
    }
}

/// RFC 9110, section 9; the numbers are those of `enum xlb_method`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Method {
    /// Any other token; its bytes are in [`RequestHead::method_span`](crate::RequestHead::method_span).
    #[default]
    Other = 0,
    /// GET
    Get = 1,
    /// HEAD
    Head = 2,
    /// POST
    Post = 3,
    /// PUT
    Put = 4,
    /// DELETE
    Delete = 5,
    /// CONNECT; always refused.
    Connect = 6,
    /// OPTIONS
    Options = 7,
    /// TRACE
    Trace = 8,
    /// PATCH (RFC 5789)
    Patch = 9,
}

impl Method {
    /// Methods are compared with case (RFC 9110, section 9.1).
    #[inline]
    pub fn from_token(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// May the request be sent twice (RFC 9110, section 9.2.2)?  No for a method that is not known.
    pub const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Method::Get
                | Method::Head
                | Method::Put
                | Method::Delete
                | Method::Options
                | Method::Trace
        )
    }

    /// Methods whose content has no defined meaning, which servers therefore ignore or read as the next
    /// request (RFC 9110, section 9.3: "request smuggling").
    pub(crate) const fn is_content_unusual(self) -> bool {
        matches!(
            self,
            Method::Get | Method::Head | Method::Delete | Method::Options
        )
    }
}

/// The versions that are relayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    /// 0x0100 or 0x0101, as in `struct xlb_request`.
    pub const fn as_u16(self) -> u16 {
        match self {
            Version::Http10 => 0x0100,
            Version::Http11 => 0x0101,
        }
    }

    pub(crate) const fn as_bytes(self) -> &'static [u8] {
        match self {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    }
}

/// Where a message's body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// After this many bytes; at most 2^63 - 1.
    Length(u64),
    /// After the last chunk and the trailer section.
    Chunked,
    /// When the connection closes; responses only.
    UntilClose,
    /// Never: another protocol follows (101); responses only.
    Tunnel,
}
