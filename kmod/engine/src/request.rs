// SPDX-License-Identifier: GPL-2.0

//! Request heads (RFC 9112, sections 2, 3 and 5).
//!
//! ```text
//! *( CRLF ) method SP target SP HTTP-version CRLF *( field-line CRLF ) CRLF
//! ```

use crate::facts::{Facts, Flags};
use crate::fields::Lines;
use crate::limits::Limits;
use crate::message::{Framing, Method, Protocol, Span, Status, Version};
use crate::reason::Reason;
use crate::scan;
use crate::target::{self, Authority};

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
    /// After the first question mark of the target; 0 when there is none.
    query: u32,
    method: Method,
    version: Version,
    /// The error that was returned.
    refused: Option<Reason>,
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
    /// Host, checked, without port: of an absolute target if there is one.  Empty if the request names none.
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
    /// The request asks for this protocol, so a 101 may follow.  A caller that does not allow it puts `None` here and sets
    /// `rewrite`.
    pub upgrade: Option<Protocol>,
    /// Must not be forwarded byte for byte: hop-by-hop fields, an absolute target, an expectation of nothing, or framing
    /// fields in another than the usual form.
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
    /// 101 is allowed to this protocol.
    pub upgrade: Option<Protocol>,
}

impl RequestHead {
    /// No request.
    pub const EMPTY: RequestHead = RequestHead {
        skip: 0,
        head_bytes: 0,
        field_count: 0,
        method: Method::Other,
        method_span: Span::EMPTY,
        target: Span::EMPTY,
        host: Span::EMPTY,
        port: None,
        path: Span::EMPTY,
        query: Span::EMPTY,
        version: Version::Http11,
        framing: Framing::None,
        close: false,
        expect_continue: false,
        upgrade: None,
        rewrite: false,
        solo: false,
    };

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
            query: 0,
            method: Method::Other,
            version: Version::Http11,
            refused: None,
            at: At::Start,
        }
    }

    /// Goes on where the last call stopped.  `buf` is everything since the first byte, and may hold bytes after
    /// the head.  After a complete head, begin anew with [`new`](Self::new); after an error every call returns it again.
    // The module calls it in one place: inlined, the head need not be copied out.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<RequestHead>, Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let result = self.parse_once(buf, limits);
        if let Err(reason) = result {
            self.refused = Some(reason);
        }
        result
    }

    #[inline]
    fn parse_once(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<RequestHead>, Reason> {
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
        // A local, so that it need not go through memory.
        let mut lines = if self.at == At::Fields {
            self.lines
        } else {
            match self.request_line(buf, limits)? {
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
    fn request_line(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<usize>, Reason> {
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
            let Status::Complete(end) = self.method(buf, limits)? else {
                return Ok(Status::Partial);
            };
            self.pos = end.wrapping_add(1) as u32;
            self.target.start = self.pos;
            self.at = At::Target;
        }
        if self.at == At::Target {
            let start = self.target.start as usize;
            let mut end = self.pos as usize;
            loop {
                end = scan::path_end(buf, end);
                if scan::at(buf, end) != Some(b'?') {
                    break;
                }
                end = end.wrapping_add(1);
                if self.query == 0 {
                    self.query = end as u32;
                }
            }
            self.pos = end as u32;
            if end.wrapping_sub(start) > limits.target_bytes as usize {
                return Err(Reason::TargetBytes);
            }
            match scan::at(buf, end) {
                Some(b' ') if end != start => {}
                None => return Ok(Status::Partial),
                Some(byte) => return Err(target_error(byte)),
            }
            self.target = Span::between(start, end);
            self.pos = self.pos.wrapping_add(1);
            self.at = At::Version;
        }
        let start = self.pos as usize;
        let Some(rest) = buf.get(start..) else {
            return Ok(Status::Partial);
        };
        // Nearly all of them: two words to compare.
        if rest.first_chunk() == Some(b"HTTP/1.1\r\n") {
            self.version = Version::Http11;
        } else if let Status::Complete(version) = version_line(rest)? {
            self.version = version;
        } else {
            return Ok(Status::Partial);
        }
        self.at = At::Fields;
        Ok(Status::Complete(start.wrapping_add(10)))
    }

    /// The offset of the space after the method.
    #[inline]
    fn method(&mut self, buf: &[u8], limits: &Limits) -> Result<Status<usize>, Reason> {
        let start = self.skip as usize;
        // Most requests, with one comparison.
        if buf.get(start..).and_then(<[u8]>::first_chunk) == Some(b"GET ")
            && limits.method_bytes >= 3
        {
            self.method = Method::Get;
            return Ok(Status::Complete(start.wrapping_add(3)));
        }
        self.any_method(buf, start, limits)
    }

    #[inline(never)]
    fn any_method(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Result<Status<usize>, Reason> {
        let end = scan::token_end(buf, self.pos as usize);
        self.pos = end as u32;
        if end.wrapping_sub(start) > limits.method_bytes as usize {
            return Err(Reason::MethodBytes);
        }
        match scan::at(buf, end) {
            Some(b' ') if end != start => {}
            None => return Ok(Status::Partial),
            Some(b' ') => return Err(Reason::MethodEmpty),
            Some(_) => return Err(Reason::MethodByte),
        }
        let token = buf.get(start..end).unwrap_or(&[]);
        self.method = Method::from_token(token);
        match self.method {
            Method::Connect => Err(Reason::MethodConnect),
            // To a server that ignores case the response would have another end.
            Method::Other
                if [&b"head"[..], b"connect"]
                    .iter()
                    .any(|name| token.eq_ignore_ascii_case(name)) =>
            {
                Err(Reason::MethodLookalike)
            }
            _ => Ok(Status::Complete(end)),
        }
    }

    /// What can only be said once every field was seen.
    fn finish(&self, head: &[u8], end: usize) -> Result<RequestHead, Reason> {
        let flags = self.facts.flags;
        let absolute = target::absolute(head, self.target, self.method)?;
        let Authority { host, port } = self.authority(head, absolute)?;
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
        let expect_continue = flags.has(Flags::EXPECT) && http11 && content;
        // RFC 6455, section 4.1, has websocket asked for by GET without content; others allow both.
        let plain = self.method == Method::Get && !content;
        let upgrade = self
            .facts
            .upgrade()
            .filter(|protocol| http11 && (plain || *protocol != Protocol::WEBSOCKET));
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
            path: target::path(self.target, self.query, absolute),
            query: target::query(self.target, self.query),
            version: self.version,
            framing,
            close: flags.has(Flags::CLOSE) || !(http11 || flags.has(Flags::KEEP_ALIVE)),
            expect_continue,
            upgrade,
            rewrite: flags.has(Flags::HOP)
                || flags.has(Flags::CLOSE)
                || flags.has(Flags::ODD)
                || (flags.has(Flags::EXPECT) && !expect_continue)
                || (flags.upgrade() && upgrade.is_none())
                || absolute.is_some(),
            solo: content && self.method.is_content_unusual(),
        })
    }

    /// RFC 9112, section 3.2: one Host, which may be empty; section 3.2.2: an absolute target's authority is instead of it.
    #[inline]
    fn authority(&self, head: &[u8], absolute: Option<Span>) -> Result<Authority, Reason> {
        let named = if self.facts.flags.has(Flags::HOST) {
            if self.facts.host.is_empty() {
                Authority::NONE
            } else {
                target::authority(head, self.facts.host)?
            }
        } else if self.version == Version::Http11 {
            return Err(Reason::HostMissing);
        } else {
            Authority::NONE
        };
        match absolute {
            None => Ok(named),
            Some(absolute) => target::authority(head, absolute),
        }
    }
}

#[cold]
fn target_error(byte: u8) -> Reason {
    match byte {
        b' ' => Reason::TargetEmpty,
        b'#' => Reason::TargetFragment,
        b'\r' | b'\n' => Reason::VersionMissing,
        _ => Reason::TargetByte,
    }
}

/// The version and the end of the request line.
#[inline(never)]
fn version_line(bytes: &[u8]) -> Result<Status<Version>, Reason> {
    let Some((version, line_end)) = bytes.split_first_chunk::<8>() else {
        return Ok(Status::Partial);
    };
    let version = version_of(version)?;
    match line_end {
        [] | [b'\r'] => Ok(Status::Partial),
        [b'\r', b'\n', ..] => Ok(Status::Complete(version)),
        [b'\r', ..] => Err(Reason::BareCr),
        [b'\n', ..] => Err(Reason::BareLf),
        [..] => Err(Reason::RequestLineEnd),
    }
}

/// RFC 9112, section 2.3: exact, with case.
#[inline]
pub(crate) fn version_of(bytes: &[u8; 8]) -> Result<Version, Reason> {
    // Compared as words; a match would go byte by byte.
    if bytes == b"HTTP/1.1" {
        return Ok(Version::Http11);
    }
    match bytes {
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Reason::VersionUnsupported)
        }
        _ => Err(Reason::VersionSyntax),
    }
}
