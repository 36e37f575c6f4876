// SPDX-License-Identifier: GPL-2.0

//! What the fields of one head say about framing, connection and host: gathered line by line by both parsers.

use crate::known::Known;
use crate::limits::Limits;
use crate::message::{Protocol, Span};
use crate::reason::Reason;
use crate::scan;

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
            Known::Trailer => {}
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
            } else if Known::from_name(option).is_some_and(|known| !known.is_hop_by_hop()) {
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
