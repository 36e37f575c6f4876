// SPDX-License-Identifier: GPL-2.0

//! What the fields of one head say about framing, connection and host: gathered line by line by both parsers.

use crate::limits::Limits;
use crate::message::{Protocol, Span};
use crate::reason::Reason;
use crate::scan;

/// The fields that the engine reads or drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Upgrade,
    Http2Settings,
    Expect,
}

/// Lengths of the names in [`Known`]: one test sends most fields on.
const LENGTHS: u32 =
    (1 << 2) | (1 << 4) | (1 << 6) | (1 << 7) | (1 << 10) | (1 << 14) | (1 << 16) | (1 << 17);

impl Known {
    /// The field that this token may be by its length and first letter, and whether it is.
    #[inline]
    fn candidate(name: &[u8]) -> Option<(Known, bool)> {
        if name.len() > 17 || (LENGTHS >> name.len()) & 1 == 0 {
            return None;
        }
        let known = match (name.len(), name.first()? | 0x20) {
            (2, b't') => Known::Te,
            (4, b'h') => Known::Host,
            (6, b'e') => Known::Expect,
            (7, b'u') => Known::Upgrade,
            (10, b'c') => Known::Connection,
            (10, b'k') => Known::KeepAlive,
            (14, b'c') => Known::ContentLength,
            (14, b'h') => Known::Http2Settings,
            (16, b'p') => Known::ProxyConnection,
            (17, b't') => Known::TransferEncoding,
            _ => return None,
        };
        Some((known, scan::is_token_equal(name, known.spelling())))
    }

    #[inline]
    const fn spelling(self) -> &'static [u8] {
        match self {
            Known::Te => b"te",
            Known::Host => b"host",
            Known::Expect => b"expect",
            Known::Upgrade => b"upgrade",
            Known::Connection => b"connection",
            Known::KeepAlive => b"keep-alive",
            Known::ContentLength => b"content-length",
            Known::Http2Settings => b"http2-settings",
            Known::ProxyConnection => b"proxy-connection",
            Known::TransferEncoding => b"transfer-encoding",
        }
    }

    /// The field of this name, which is a token, compared without case.
    #[inline]
    pub(crate) fn from_name(name: &[u8]) -> Option<Known> {
        Self::candidate(name).and_then(|(known, equal)| equal.then_some(known))
    }

    /// Is this the name of a field with `_` for `-`?  Gateways that turn names into environment variables
    /// cannot tell the two apart.
    #[cold]
    pub(crate) fn is_lookalike(name: &[u8]) -> bool {
        Self::candidate(name).is_some_and(|(known, _)| {
            name.contains(&b'_')
                && name
                    .iter()
                    .zip(known.spelling())
                    .all(|(a, b)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-'))
        })
    }

    /// Meant for the next hop only (RFC 9110, section 7.6.1).
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::Upgrade
                | Known::Http2Settings
        )
    }
}

/// Names that a trailer section must not hold and Connection must not name: they frame or route (RFC 9110, sections
/// 6.5.1 and 7.6.1).
pub(crate) const FRAMING_NAMES: [&[u8]; 10] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
    b"expect",
];

/// Fields that Connection must not name although they are end to end: dropping one would change where the
/// message ends, or what it asks for.
const NEVER_NAMED: [&[u8]; 5] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"expect",
    b"trailer",
];

/// One bit for each fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    pub(crate) const LENGTH: Flags = Flags(1);
    pub(crate) const CHUNKED: Flags = Flags(2);
    pub(crate) const CLOSE: Flags = Flags(4);
    pub(crate) const KEEP_ALIVE: Flags = Flags(8);
    /// Connection has the option `upgrade`.
    pub(crate) const UPGRADE_OPTION: Flags = Flags(16);
    /// There is an Upgrade field.
    pub(crate) const UPGRADE: Flags = Flags(32);
    pub(crate) const EXPECT: Flags = Flags(128);
    pub(crate) const HOST: Flags = Flags(256);
    /// A hop-by-hop field or option that must not be relayed, whatever the rest of the head says.
    pub(crate) const HOP: Flags = Flags(512);
    /// A framing field in another form than it is forwarded in: peers differ about tabs and spaces around its value.
    pub(crate) const ODD: Flags = Flags(1024);

    #[inline]
    pub(crate) const fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    /// Connection or Upgrade ask for another protocol.
    #[inline]
    pub(crate) const fn upgrade(self) -> bool {
        self.has(Flags(Self::UPGRADE_OPTION.0 | Self::UPGRADE.0))
    }

    #[inline]
    fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }
}

/// What the fields said so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) length: u64,
    /// Value of Host, trimmed.
    pub(crate) host: Span,
    /// The one protocol that Upgrade names.
    protocol: Option<Protocol>,
    pub(crate) options: u16,
    pub(crate) flags: Flags,
}

impl Facts {
    pub(crate) const fn new() -> Self {
        Facts {
            length: 0,
            host: Span::EMPTY,
            protocol: None,
            options: 0,
            flags: Flags::NONE,
        }
    }

    /// Takes one field line of `head` into account: name `line .. colon`, value `colon + 1 .. end`.
    #[inline]
    pub(crate) fn field(
        &mut self,
        head: &[u8],
        line: usize,
        colon: usize,
        end: usize,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let Some(name) = head.get(line..colon) else {
            return Ok(());
        };
        // Every request has one.
        if scan::is_token_equal(name, b"host") {
            return self.host(head, colon, end);
        }
        match Known::candidate(name) {
            None => Ok(()),
            Some((known, true)) => self.known(known, head, colon, end, limits),
            Some((_, false)) if Known::is_lookalike(name) => Err(Reason::FieldLookalike),
            Some(_) => Ok(()),
        }
    }

    /// The protocol that the connection is to change to, or changes to: Connection says so, and Upgrade names one.
    #[inline]
    pub(crate) fn upgrade(&self) -> Option<Protocol> {
        self.protocol
            .filter(|_| self.flags.has(Flags::UPGRADE_OPTION))
    }

    /// RFC 9112, section 3.2.
    #[inline]
    fn host(&mut self, head: &[u8], colon: usize, end: usize) -> Result<(), Reason> {
        if self.flags.has(Flags::HOST) {
            return Err(Reason::HostRepeated);
        }
        self.flags.set(Flags::HOST);
        let (start, value) = value_of(head, colon, end);
        self.host = Span {
            start: start as u32,
            len: value.len() as u32,
        };
        Ok(())
    }

    #[inline(never)]
    fn known(
        &mut self,
        known: Known,
        head: &[u8],
        colon: usize,
        end: usize,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let (start, value) = value_of(head, colon, end);
        if matches!(known, Known::ContentLength | Known::TransferEncoding) {
            let is_usual = head.get(colon.wrapping_add(1)..start) == Some(b" ")
                && start.wrapping_add(value.len()) == end
                && (known == Known::ContentLength || value == b"chunked");
            if !is_usual {
                self.flags.set(Flags::ODD);
            }
        }
        match known {
            Known::Host => return self.host(head, colon, end),
            Known::ContentLength => self.content_length(value)?,
            Known::TransferEncoding => self.transfer_encoding(value)?,
            Known::Connection => self.connection(value, limits)?,
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reason::ExpectUnknown);
                }
                self.flags.set(Flags::EXPECT);
            }
            Known::Upgrade => {
                let again = self.flags.has(Flags::UPGRADE);
                self.flags.set(Flags::UPGRADE);
                self.protocol = if again {
                    None
                } else {
                    Protocol::from_value(value)
                };
            }
            Known::KeepAlive | Known::ProxyConnection | Known::Te | Known::Http2Settings => {
                self.flags.set(Flags::HOP);
            }
        }
        Ok(())
    }

    /// RFC 9112, section 6.3, allows a list of equal numbers to be read as one; peers differ, so it is refused.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.flags.has(Flags::LENGTH) {
            return Err(Reason::LengthRepeated);
        }
        self.flags.set(Flags::LENGTH);
        self.length = scan::decimal(value).ok_or_else(|| length_error(value))?;
        Ok(())
    }

    /// RFC 9112, section 6.1.  Only `chunked` alone has one meaning for every peer.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reason> {
        if self.flags.has(Flags::CHUNKED) {
            return Err(Reason::CodingRepeated);
        }
        self.flags.set(Flags::CHUNKED);
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let mut chunked = scan::list(value).filter(|c| is_chunked(c));
        let (first, second) = (chunked.next(), chunked.next());
        if scan::list(value).any(<[u8]>::is_empty) {
            return Err(Reason::CodingEmpty);
        }
        if second.is_some() {
            return Err(Reason::CodingTwice);
        }
        if first.is_some() && !scan::list(value).last().is_some_and(is_chunked) {
            return Err(Reason::CodingNotLast);
        }
        if scan::list(value).all(|c| c.iter().all(|b| scan::is_token(*b))) {
            return Err(Reason::CodingUnknown);
        }
        Err(Reason::CodingSyntax)
    }

    /// RFC 9110, section 7.6.1.
    fn connection(&mut self, value: &[u8], limits: &Limits) -> Result<(), Reason> {
        // What most senders write, and all they write.
        if self.options == 0 && scan::is_token_equal(value, b"keep-alive") {
            self.options = 1;
            self.flags.set(Flags::KEEP_ALIVE);
            return Ok(());
        }
        for option in scan::list(value) {
            // An empty element is allowed by the list rule and means nothing.
            if option.is_empty() {
                self.flags.set(Flags::HOP);
                continue;
            }
            if !option.iter().all(|b| scan::is_token(*b)) {
                return Err(Reason::ConnectionSyntax);
            }
            self.options = self.options.saturating_add(1);
            if u32::from(self.options) > limits.connection_options {
                return Err(Reason::ConnectionOptions);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.flags.set(Flags::CLOSE);
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.flags.set(Flags::KEEP_ALIVE);
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.flags.set(Flags::UPGRADE_OPTION);
            } else if is_one_of(option, &NEVER_NAMED) {
                return Err(Reason::ConnectionFraming);
            } else {
                self.flags.set(Flags::HOP);
            }
        }
        Ok(())
    }
}

/// The trimmed value between the colon and the end of the line, and where it begins.
#[inline]
fn value_of(head: &[u8], colon: usize, end: usize) -> (usize, &[u8]) {
    let mut start = colon.wrapping_add(1);
    // The line's end ends this too.
    while let Some(b' ' | b'\t') = scan::at(head, start) {
        start = start.wrapping_add(1);
    }
    let value = head.get(start..end).unwrap_or(&[]);
    (start, scan::trim_end(value))
}

#[cold]
fn length_error(value: &[u8]) -> Reason {
    if value.contains(&b',') {
        Reason::LengthList
    } else if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        Reason::LengthSyntax
    } else if value.len() > 1 && value.first() == Some(&b'0') {
        Reason::LengthZeros
    } else {
        Reason::LengthOverflow
    }
}

/// Is `name` one of `names` (in lower case), without regard to case?
pub(crate) fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|n| name.eq_ignore_ascii_case(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_without_case() {
        for (name, known) in [
            ("Host", Known::Host),
            ("CONTENT-LENGTH", Known::ContentLength),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("te", Known::Te),
            ("HTTP2-Settings", Known::Http2Settings),
            ("Proxy-Connection", Known::ProxyConnection),
        ] {
            assert_eq!(Known::from_name(name.as_bytes()), Some(known), "{name}");
        }
        for name in [
            "",
            "hosts",
            "content-lengt",
            "content-lengths",
            "hose",
            "content.length",
            "X",
            "accept-charset",
            "a-name-that-is-longer-than-thirty-two-bytes-in-all",
        ] {
            assert_eq!(Known::from_name(name.as_bytes()), None, "{name}");
            assert!(!Known::is_lookalike(name.as_bytes()), "{name}");
        }
        for name in ["content_length", "TRANSFER_ENCODING", "Keep_Alive"] {
            assert_eq!(Known::from_name(name.as_bytes()), None, "{name}");
            assert!(Known::is_lookalike(name.as_bytes()), "{name}");
        }
    }
}
