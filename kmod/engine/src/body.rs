// SPDX-License-Identifier: GPL-2.0

//! Message bodies (RFC 9112, sections 6.3 and 7).
//!
//! ```text
//! *( 1*HEXDIG [ ext ] CRLF data CRLF )  1*"0" [ ext ] CRLF  *( field-line CRLF )  CRLF
//! ext = *( ";" token [ "=" ( token / quoted-string ) ] )
//! ```
//!
//! Stricter than the RFC: no white space in the chunk line, no bare LF, no framing fields in the trailer section.

use crate::hash::Fnv1a;
use crate::known::Known;
use crate::limits::{Limits, CHUNK_FREE_BYTES};
use crate::message::Framing;
use crate::reason::Reason;
use crate::scan;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    // Bytes pass unseen in the first four: one comparison says so.
    Length,
    Data,
    UntilClose,
    Tunnel,
    Done,
    Refused,
    Size,
    ExtName,
    ExtNameMore,
    ExtValue,
    ExtToken,
    ExtQuoted,
    ExtEscaped,
    ExtQuotedEnd,
    SizeLf,
    DataCr,
    DataLf,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Where one message's body stands.  What follows an error has no meaning that all peers agree on, so a body that has
/// returned one returns it again, and never ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body {
    /// Rest of the length, or of the chunk's data; the chunk's size while its line is read.
    left: u64,
    /// Of the trailer field's name in lower case: names are compared without being stored.
    name: Fnv1a,
    /// Chunk framing that the data has not paid for.
    excess: u32,
    /// Bytes of the chunk line, or of the trailer section.
    line: u32,
    /// Digits of the chunk size, or bytes of the trailer field's name.
    digits: u32,
    /// The trailer section has a field.
    trailers: bool,
    /// The error that was returned, in [`At::Refused`].
    refused: Option<Reason>,
    at: At,
}

const _: () = assert!(size_of::<Body>() <= 48);

impl Body {
    /// The body of a message with this framing.
    pub const fn new(framing: Framing) -> Body {
        let (at, left) = match framing {
            Framing::None | Framing::Length(0) => (At::Done, 0),
            Framing::Length(length) => (At::Length, length),
            Framing::Chunked => (At::Size, 0),
            Framing::UntilClose => (At::UntilClose, 0),
            Framing::Tunnel => (At::Tunnel, 0),
        };
        Body {
            left,
            name: Fnv1a::new(),
            excess: 0,
            line: 0,
            digits: 0,
            trailers: false,
            refused: None,
            at,
        }
    }

    /// There was a field in the trailer section.  A server that takes the end of the last chunk's line for the end of the
    /// message reads what stands in the section as its next request: what it would answer then is not for another
    /// client, so the endpoint's connection must not be reused.
    pub const fn had_trailers(&self) -> bool {
        self.trailers
    }

    /// The message has ended.  Never for `UntilClose` and `Tunnel`.
    pub const fn is_done(&self) -> bool {
        matches!(self.at, At::Done)
    }

    /// May the connection close here?
    pub const fn at_close(&self) -> Result<(), Reason> {
        match self.at {
            At::Done | At::UntilClose | At::Tunnel => Ok(()),
            _ => Err(match self.refused {
                Some(reason) => reason,
                None => Reason::BodyTruncated,
            }),
        }
    }

    /// Bytes that may pass without being looked at: `u64::MAX` when there is no end but the
    /// connection's, 0 when the next byte must be fed (or the message has ended).
    pub const fn opaque(&self) -> u64 {
        match self.at {
            At::Length | At::Data => self.left,
            At::UntilClose | At::Tunnel => u64::MAX,
            _ => 0,
        }
    }

    /// The message ends after [`opaque`](Self::opaque) bytes, or has ended.
    pub const fn ends_after_opaque(&self) -> bool {
        matches!(self.at, At::Length | At::Done)
    }

    /// `bytes` (at most [`opaque`](Self::opaque), more are not counted) passed without being looked at.
    pub fn skip(&mut self, bytes: u64) {
        match self.at {
            At::Length => {
                self.left = self.left.saturating_sub(bytes);
                if self.left == 0 {
                    self.at = At::Done;
                }
            }
            At::Data => {
                self.left = self.left.saturating_sub(bytes);
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            }
            _ => {}
        }
    }

    /// Goes over the next bytes and says how many of them are this message's: less than all only when
    /// the message has ended.
    pub fn feed(&mut self, data: &[u8], limits: &Limits) -> Result<usize, Reason> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let result = self.pass(data, limits);
        if let Err(reason) = result {
            self.refused = Some(reason);
            self.at = At::Refused;
        }
        result
    }

    #[inline]
    fn pass(&mut self, data: &[u8], limits: &Limits) -> Result<usize, Reason> {
        let mut rest = data;
        loop {
            let opaque = self.opaque();
            if opaque > 0 {
                let pass = rest
                    .len()
                    .min(usize::try_from(opaque).unwrap_or(usize::MAX));
                self.skip(pass as u64);
                rest = rest.get(pass..).unwrap_or(&[]);
            }
            if self.at == At::Done {
                break;
            }
            match rest.split_first() {
                None => break,
                Some((byte, tail)) => {
                    self.step(*byte, limits)?;
                    rest = tail;
                }
            }
        }
        Ok(data.len().wrapping_sub(rest.len()))
    }

    #[inline]
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<(), Reason> {
        self.at = match self.at {
            At::Size => match scan::hex(byte) {
                Some(digit) => {
                    if self.digits >= limits.chunk_size_digits {
                        return Err(Reason::ChunkSizeDigits);
                    }
                    self.digits = self.digits.saturating_add(1);
                    // Below 2^59, so that 16 times it stays below 2^63.
                    if self.left >> 59 != 0 {
                        return Err(Reason::ChunkSizeOverflow);
                    }
                    self.left = (self.left << 4) | u64::from(digit);
                    return self.count_ext(limits);
                }
                None if self.digits == 0 => {
                    return Err(match byte {
                        b'\r' | b'\n' | b';' => Reason::ChunkSizeEmpty,
                        _ => Reason::ChunkSizeByte,
                    })
                }
                None => match byte {
                    b'\r' => At::SizeLf,
                    b';' => At::ExtName,
                    b'\n' => return Err(Reason::BareLf),
                    _ => return Err(Reason::ChunkSizeByte),
                },
            },
            At::ExtName if scan::is_token(byte) => At::ExtNameMore,
            At::ExtNameMore => match byte {
                b'=' => At::ExtValue,
                b';' => At::ExtName,
                b'\r' => At::SizeLf,
                _ if scan::is_token(byte) => At::ExtNameMore,
                _ => return Err(ext_error(byte)),
            },
            At::ExtValue if byte == b'"' => At::ExtQuoted,
            At::ExtValue if scan::is_token(byte) => At::ExtToken,
            At::ExtToken if scan::is_token(byte) => At::ExtToken,
            At::ExtToken | At::ExtQuotedEnd => match byte {
                b';' => At::ExtName,
                b'\r' => At::SizeLf,
                _ => return Err(ext_error(byte)),
            },
            At::ExtQuoted => match byte {
                b'"' => At::ExtQuotedEnd,
                b'\\' => At::ExtEscaped,
                _ if scan::is_value(byte) => At::ExtQuoted,
                _ => return Err(ext_error(byte)),
            },
            At::ExtEscaped if scan::is_value(byte) => At::ExtQuoted,
            At::ExtName | At::ExtValue | At::ExtEscaped => return Err(ext_error(byte)),
            At::SizeLf if byte == b'\n' => {
                self.count_ext(limits)?;
                self.chunk_begins();
                return Ok(());
            }
            At::DataCr => match byte {
                b'\r' => At::DataLf,
                _ => return Err(Reason::ChunkDataEnd),
            },
            At::DataLf if byte == b'\n' => At::Size,
            At::TrailerLine => match byte {
                b'\r' => At::EndLf,
                b' ' | b'\t' => return Err(Reason::ObsFold),
                b':' => return Err(Reason::FieldNameEmpty),
                b'\n' => return Err(Reason::BareLf),
                _ => {
                    self.name = Fnv1a::new();
                    self.digits = 0;
                    self.trailers = true;
                    return self.trailer_name(byte, limits);
                }
            },
            At::TrailerName => return self.trailer_name(byte, limits),
            At::TrailerValue => match byte {
                b'\r' => At::TrailerLf,
                b'\n' => return Err(Reason::BareLf),
                0 => return Err(Reason::Nul),
                _ if scan::is_value(byte) => At::TrailerValue,
                _ => return Err(Reason::Control),
            },
            At::TrailerLf if byte == b'\n' => At::TrailerLine,
            At::EndLf if byte == b'\n' => At::Done,
            At::SizeLf | At::DataLf | At::TrailerLf | At::EndLf => return Err(Reason::BareCr),
            At::Length | At::UntilClose | At::Tunnel | At::Data | At::Done | At::Refused => self.at,
        };
        self.count(limits)
    }

    /// The chunk line has ended: its data pays for it, at 2 bytes of framing for each.
    fn chunk_begins(&mut self) {
        let cost = u64::from(self.excess)
            .saturating_add(u64::from(self.line))
            .saturating_sub(
                u64::from(CHUNK_FREE_BYTES).saturating_add(self.left.saturating_mul(2)),
            );
        self.excess = u32::try_from(cost).unwrap_or(u32::MAX);
        self.line = 0;
        self.digits = 0;
        self.at = if self.left == 0 {
            At::TrailerLine
        } else {
            At::Data
        };
    }

    #[inline]
    fn count(&mut self, limits: &Limits) -> Result<(), Reason> {
        match self.at {
            At::TrailerLine
            | At::TrailerName
            | At::TrailerValue
            | At::TrailerLf
            | At::EndLf
            | At::Done => {
                self.line = self.line.saturating_add(1);
                if self.line > limits.trailer_bytes {
                    return Err(Reason::TrailerBytes);
                }
            }
            At::DataLf | At::Size => {}
            _ => return self.count_ext(limits),
        }
        Ok(())
    }

    #[inline]
    fn count_ext(&mut self, limits: &Limits) -> Result<(), Reason> {
        self.line = self.line.saturating_add(1);
        if self.excess.saturating_add(self.line)
            > limits.chunk_ext_bytes.saturating_add(CHUNK_FREE_BYTES)
        {
            return Err(Reason::ChunkExtBytes);
        }
        Ok(())
    }

    fn trailer_name(&mut self, byte: u8, limits: &Limits) -> Result<(), Reason> {
        self.at = match byte {
            b':' if Known::is_hash(self.name.finish()) => {
                return Err(Reason::TrailerField);
            }
            b':' => At::TrailerValue,
            b' ' | b'\t' => return Err(Reason::FieldNameSpace),
            b'\r' => return Err(Reason::FieldColonMissing),
            b'\n' => return Err(Reason::BareLf),
            _ if scan::is_token(byte) => {
                // The underscore is a hyphen to gateways that make environment variables of names.
                let folded = if byte == b'_' {
                    b'-'
                } else {
                    byte.to_ascii_lowercase()
                };
                self.name = self.name.push(folded);
                At::TrailerName
            }
            _ => return Err(Reason::FieldNameByte),
        };
        self.count(limits)
    }
}

fn ext_error(byte: u8) -> Reason {
    match byte {
        b'\n' => Reason::BareLf,
        _ => Reason::ChunkExtSyntax,
    }
}
