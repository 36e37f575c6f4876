// SPDX-License-Identifier: GPL-2.0

//! Field lines (RFC 9112, section 5): the resumable scanner that both parsers run, and the
//! iterator over a head that passed it.

use crate::limits::Limits;
use crate::reason::Reason;
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::scan;

/// Where the scanner stands.  `pos` never goes back, so any split of the input costs the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    #[default]
    LineStart,
    Name,
    Value,
}

/// One line of the head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    /// `name` is `line .. colon`, `value` is `colon + 1 .. end`.
    Field {
        line: usize,
        colon: usize,
        end: usize,
    },
    /// The empty line; the head ends at this offset.
    End(usize),
    /// More bytes are needed.
    Partial,
}

/// Scans line after line, checking every byte once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lines {
    at: At,
    pos: u32,
    line: u32,
    colon: u32,
    /// Fields seen.
    pub(crate) count: u32,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Lines {
            at: At::LineStart,
            pos: 0,
            line: 0,
            colon: 0,
            count: 0,
        }
    }

    /// The first field line begins here.
    pub(crate) fn start(&mut self, pos: usize) {
        self.pos = pos as u32;
    }

    /// `buf` is cut at the head's limit by the caller.
    #[inline]
    pub(crate) fn next(&mut self, buf: &[u8], limits: &Limits) -> Result<Line, Reason> {
        if self.at == At::LineStart {
            let line = self.pos as usize;
            match scan::at(buf, line) {
                None => return Ok(Line::Partial),
                Some(b'\r') => {
                    return match scan::at(buf, line.wrapping_add(1)) {
                        None => Ok(Line::Partial),
                        Some(b'\n') => Ok(Line::End(line.wrapping_add(2))),
                        Some(_) => Err(Reason::BareCr),
                    }
                }
                Some(b' ' | b'\t') if self.count == 0 => return Err(Reason::SpaceAfterStartLine),
                Some(b' ' | b'\t') => return Err(Reason::ObsFold),
                Some(_) if self.count >= limits.field_count => return Err(Reason::FieldCount),
                Some(_) => {
                    self.line = self.pos;
                    self.count = self.count.wrapping_add(1);
                    self.at = At::Name;
                }
            }
        }
        let line = self.line as usize;
        let most = line.saturating_add(limits.field_bytes as usize);
        if self.at == At::Name {
            let end = scan::token_end(buf, self.pos as usize);
            self.pos = end as u32;
            // Whatever stopped the scan: the answer must not depend on how the line was cut.
            if end > most {
                return Err(Reason::FieldBytes);
            }
            match scan::at(buf, end) {
                Some(b':') if end != line => {
                    self.colon = end as u32;
                    self.pos = end.wrapping_add(1) as u32;
                    self.at = At::Value;
                }
                None => return Ok(Line::Partial),
                Some(byte) => return Err(name_error(byte)),
            }
        }
        let end = scan::value_end(buf, self.pos as usize);
        self.pos = end as u32;
        if end > most {
            return Err(Reason::FieldBytes);
        }
        match scan::at(buf, end) {
            None => Ok(Line::Partial),
            Some(b'\r') => match scan::at(buf, end.wrapping_add(1)) {
                None => Ok(Line::Partial),
                Some(b'\n') => {
                    self.pos = end.wrapping_add(2) as u32;
                    self.at = At::LineStart;
                    Ok(Line::Field {
                        line,
                        colon: self.colon as usize,
                        end,
                    })
                }
                Some(_) => Err(Reason::BareCr),
            },
            Some(b'\n') => Err(Reason::BareLf),
            Some(0) => Err(Reason::Nul),
            Some(_) => Err(Reason::Control),
        }
    }
}

#[cold]
fn name_error(byte: u8) -> Reason {
    match byte {
        b':' => Reason::FieldNameEmpty,
        b' ' | b'\t' => Reason::FieldNameSpace,
        b'\n' => Reason::BareLf,
        b'\r' => Reason::FieldColonMissing,
        _ => Reason::FieldNameByte,
    }
}

/// Names and trimmed values of a head that was parsed, in order, scanned again from its bytes.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a request head; `head` holds at least `request.head_bytes` bytes.
    pub fn of(head: &'a [u8], request: &RequestHead) -> Fields<'a> {
        Self::after_first_line(head, request.skip, request.head_bytes)
    }

    /// The fields of a response head.
    pub fn of_response(head: &'a [u8], response: &ResponseHead) -> Fields<'a> {
        Self::after_first_line(head, 0, response.head_bytes)
    }

    fn after_first_line(head: &'a [u8], skip: u32, head_bytes: u32) -> Fields<'a> {
        let head = head.get(skip as usize..head_bytes as usize).unwrap_or(&[]);
        Fields {
            rest: split_line(head).map_or(&[], |(_, rest)| rest),
        }
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = scan::find_byte(bytes, 0, b'\n')?;
    let (line, rest) = bytes.split_at_checked(end.wrapping_add(1))?;
    Some((line.strip_suffix(b"\r\n")?, rest))
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (line, rest) = split_line(self.rest)?;
        self.rest = rest;
        let (name, value) = line.split_at_checked(scan::token_end(line, 0))?;
        Some((name, scan::trim(value.strip_prefix(b":")?)))
    }
}
