// SPDX-License-Identifier: GPL-2.0

//! Request heads (RFC 9112, sections 2, 3 and 5).
//!
//! ```text
//! *( CRLF ) method SP target SP HTTP-version CRLF *( field-line CRLF ) CRLF
//! ```

use crate::facts::{self, Facts, Flags};
use crate::fields::{Line, Lines};
use crate::limits::Limits;
use crate::message::{Framing, Method, Span, Status, Version};
use crate::reason::Reason;
use crate::scan;
use crate::target;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    #[default]
    Start,
    Method,
    Target,
    Version,
    Fields,
}

/// Frames one request head; call [`parse`](Self::parse) again with the same bytes and more until it is
/// whole.  No byte is looked at twice, however the input is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestParser {
    facts: Facts,
    lines: Lines,
    skip: u32,
    /// Where scanning goes on, until the request line has ended.
    pos: u32,
    target: Span,
    method: Method,
    version: Version,
    at: At,
}

const _: () = assert!(size_of::<RequestParser>() <= 72);

/// What a request head says.  Spans are offsets into the bytes that were parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestHead {
    /// Bytes of empty lines before the head; they are not forwarded.
    pub skip: u32,
    /// Length of the head with `skip` and with the empty line that ends it.
    pub head_bytes: u32,
    /// Fields of the head.
    pub field_count: u32,
    /// The method.
    pub method: Method,
    /// The method as it was written.
    pub method_span: Span,
    /// The whole target.
    pub target: Span,
    /// Host, checked, without port; empty if the request has none (HTTP/1.0).
    pub host: Span,
    /// Port of the authority.
    pub port: Option<u16>,
    /// The path as it was written, without query; `*` for `OPTIONS *`.  Never empty.
    pub path: Span,
    /// The query without its question mark.
    pub query: Span,
    /// The version.
    pub version: Version,
    /// `None`, `Length` or `Chunked`.
    pub framing: Framing,
    /// The client's connection ends after this exchange.
    pub close: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// The request asks for the websocket protocol, so a 101 may follow.
    pub upgrade: bool,
    /// Must not be forwarded byte for byte: hop-by-hop fields, or an absolute target.
    pub rewrite: bool,
    /// Content with a method for which servers are known to ignore content: what one of those would
    /// answer next is not for another client, so the endpoint's connection must not be reused.
    pub solo: bool,
}

/// What a response parser must know of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestContext {
    /// HEAD has no response body.
    pub method: Method,
    /// HTTP/1.0 has no chunks and no 1xx.
    pub version: Version,
    /// 101 is allowed.
    pub upgrade: bool,
}

impl RequestHead {
    /// What the response parser must know.
    pub const fn context(&self) -> RequestContext {
        RequestContext {
            method: self.method,
            version: self.version,
            upgrade: self.upgrade,
        }
    }

    /// The target had a scheme and an authority.
    pub(crate) fn is_absolute(&self, head: &[u8]) -> bool {
        !matches!(self.target.get(head), [b'/' | b'*', ..])
    }
}

impl RequestParser {
    /// Before the first byte.
    pub const fn new() -> Self {
        RequestParser {
            facts: Facts::new(),
            lines: Lines::new(),
            skip: 0,
            pos: 0,
            target: Span::EMPTY,
            method: Method::Other,
            version: Version::Http11,
            at: At::Start,
        }
    }

    /// Goes on where the last call stopped.  `buf` is everything since the first byte, and may hold bytes after
    /// the head.  After an error or a complete head, begin anew with [`new`](Self::new).
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<RequestHead>, Reason> {
        let most = limits.head_bytes as usize;
        let window = buf.get(..most).unwrap_or(buf);
        match self.advance(window, limits)? {
            Some(end) => self.finish(window, end).map(Status::Complete),
            None if window.len() >= most => Err(Reason::HeadBytes),
            None => Ok(Status::Partial),
        }
    }

    /// The offset after the head, once it is whole.
    #[inline]
    fn advance(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Reason> {
        if self.at != At::Fields {
            match self.request_line(buf, limits)? {
                Status::Partial => return Ok(None),
                Status::Complete(()) => {}
            }
        }
        // A local that the compiler can keep in registers.
        let mut lines = self.lines;
        let end = loop {
            match lines.next(buf, limits)? {
                Line::Partial => break None,
                Line::End(end) => break Some(end),
                Line::Field { line, colon, end } => {
                    self.facts.field(buf, line, colon, end, limits)?;
                }
            }
        };
        self.lines = lines;
        Ok(end)
    }

    #[inline]
    fn request_line(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<()>, Reason> {
        if self.at == At::Start {
            loop {
                let pos = self.pos as usize;
                match scan::at(buf, pos) {
                    None => return Ok(Status::Partial),
                    Some(b'\n') => return Err(Reason::BareLf),
                    Some(b'\r') => match scan::at(buf, pos.wrapping_add(1)) {
                        None => return Ok(Status::Partial),
                        Some(b'\n') if self.pos >> 1 >= limits.leading_lines => {
                            return Err(Reason::LeadingLines)
                        }
                        Some(b'\n') => self.pos = self.pos.wrapping_add(2),
                        Some(_) => return Err(Reason::BareCr),
                    },
                    Some(_) => break,
                }
            }
            self.skip = self.pos;
            self.at = At::Method;
        }
        if self.at == At::Method {
            let start = self.skip as usize;
            let end = scan::token_end(buf, self.pos as usize);
            self.pos = end as u32;
            if end > start.saturating_add(limits.method_bytes as usize) {
                return Err(Reason::MethodBytes);
            }
            match scan::at(buf, end) {
                None => return Ok(Status::Partial),
                Some(b' ') if end == start => return Err(Reason::MethodEmpty),
                Some(b' ') => {}
                Some(_) => return Err(Reason::MethodByte),
            }
            let token = buf.get(start..end).unwrap_or(&[]);
            self.method = Method::from_token(token);
            match self.method {
                Method::Connect => return Err(Reason::MethodConnect),
                // To a server that ignores case the response would have another end.
                Method::Other if facts::is_one_of(token, &[b"head", b"connect"]) => {
                    return Err(Reason::MethodLookalike)
                }
                _ => {}
            }
            self.pos = self.pos.wrapping_add(1);
            self.target.start = self.pos;
            self.at = At::Target;
        }
        if self.at == At::Target {
            let start = self.target.start as usize;
            let end = scan::target_end(buf, self.pos as usize);
            self.pos = end as u32;
            if end > start.saturating_add(limits.target_bytes as usize) {
                return Err(Reason::TargetBytes);
            }
            match scan::at(buf, end) {
                None => return Ok(Status::Partial),
                Some(b' ') if end == start => return Err(Reason::TargetEmpty),
                Some(b' ') => {}
                Some(b'#') => return Err(Reason::TargetFragment),
                Some(b'\r' | b'\n') => return Err(Reason::VersionMissing),
                Some(_) => return Err(Reason::TargetByte),
            }
            self.target = Span::between(start, end);
            self.pos = self.pos.wrapping_add(1);
            self.at = At::Version;
        }
        let start = self.pos as usize;
        let Some((version, line_end)) = buf.get(start..).and_then(|b| b.split_first_chunk::<8>())
        else {
            return Ok(Status::Partial);
        };
        self.version = version_of(version)?;
        match line_end {
            [] | [b'\r'] => return Ok(Status::Partial),
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(Reason::BareCr),
            [b'\n', ..] => return Err(Reason::BareLf),
            [..] => return Err(Reason::RequestLineEnd),
        }
        self.at = At::Fields;
        self.lines.start(start.wrapping_add(10));
        Ok(Status::Complete(()))
    }

    /// What can only be said once every field was seen.
    fn finish(&self, head: &[u8], end: usize) -> Result<RequestHead, Reason> {
        let flags = self.facts.flags;
        let target = target::split(head, self.target, self.method)?;
        let (host, port) = self.authority(head, target.authority)?;
        let http11 = self.version == Version::Http11;
        let framing = match (flags.has(Flags::CHUNKED), flags.has(Flags::LENGTH)) {
            (true, true) => return Err(Reason::LengthAndCoding),
            (true, false) if !http11 => return Err(Reason::CodingHttp10),
            (true, false) => Framing::Chunked,
            (false, true) => Framing::Length(self.facts.length),
            (false, false) => Framing::None,
        };
        let content = !matches!(framing, Framing::None | Framing::Length(0));
        if content && self.method == Method::Trace {
            return Err(Reason::TraceContent);
        }
        let upgrade = http11
            && self.method == Method::Get
            && framing == Framing::None
            && flags.has(Flags::UPGRADE_OPTION)
            && flags.has(Flags::WEBSOCKET)
            && !flags.has(Flags::UPGRADE_OTHER);
        let asks = flags.has(Flags::UPGRADE_OPTION)
            || flags.has(Flags::WEBSOCKET)
            || flags.has(Flags::UPGRADE_OTHER);
        Ok(RequestHead {
            skip: self.skip,
            head_bytes: end as u32,
            field_count: self.lines.count,
            method: self.method,
            method_span: Span::between(
                self.skip as usize,
                self.target.start.saturating_sub(1) as usize,
            ),
            target: self.target,
            host,
            port,
            path: target.path,
            query: target.query,
            version: self.version,
            framing,
            close: flags.has(Flags::CLOSE) || !(http11 || flags.has(Flags::KEEP_ALIVE)),
            expect_continue: flags.has(Flags::EXPECT) && http11 && content,
            upgrade,
            rewrite: flags.has(Flags::HOP)
                || flags.has(Flags::CLOSE)
                || (asks && !upgrade)
                || !target.authority.is_empty(),
            solo: content && self.method.is_content_unusual(),
        })
    }

    /// RFC 9112, section 3.2: one Host, and the same as an absolute target's authority.
    fn authority(&self, head: &[u8], absolute: Span) -> Result<(Span, Option<u16>), Reason> {
        let named = if self.facts.flags.has(Flags::HOST) {
            Some(target::authority(head, self.facts.host)?)
        } else if self.version == Version::Http11 {
            return Err(Reason::HostMissing);
        } else {
            None
        };
        if matches!(self.target.get(head), [b'/' | b'*', ..]) {
            return Ok(named.map_or((Span::EMPTY, None), |a| (a.host, a.port)));
        }
        let wanted = target::authority(head, absolute)?;
        if let Some(named) = named {
            let same = named
                .host
                .get(head)
                .eq_ignore_ascii_case(wanted.host.get(head));
            if !same || named.port.unwrap_or(80) != wanted.port.unwrap_or(80) {
                return Err(Reason::HostMismatch);
            }
        }
        Ok((wanted.host, wanted.port))
    }
}

/// RFC 9112, section 2.3: exact, with case.
pub(crate) fn version_of(bytes: &[u8; 8]) -> Result<Version, Reason> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Reason::VersionUnsupported)
        }
        _ => Err(Reason::VersionSyntax),
    }
}
