// SPDX-License-Identifier: GPL-2.0

//! Field lines (RFC 9112, section 5): the resumable scanner that both parsers run, and the
//! iterator over a head that passed it.

use crate::facts::Facts;
use crate::limits::Limits;
use crate::reason::Reason;
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::scan;

/// Scans line after line, checking every byte once; what stands in a complete line goes to [`Facts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lines {
    /// Where scanning goes on.  It never goes back, so any split of the input costs the same.
    pos: u32,
    /// Where the line begins.
    line: u32,
    /// The colon of the line; 0 while its name has not ended.
    colon: u32,
    /// Fields seen.
    pub(crate) count: u32,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Lines {
            pos: 0,
            line: 0,
            colon: 0,
            count: 0,
        }
    }

    /// The first line begins here.
    pub(crate) const fn at(pos: usize) -> Self {
        Lines {
            pos: pos as u32,
            line: pos as u32,
            ..Self::new()
        }
    }

    /// The offset after the empty line, once it is there.  `buf` is cut at the head's limit by the caller.
    #[inline]
    pub(crate) fn scan(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        facts: &mut Facts,
    ) -> Result<Option<usize>, Reason> {
        let field_bytes = limits.field_bytes as usize;
        // Locals that the compiler can keep in registers.
        let (mut pos, mut line, mut colon, mut count) = (
            self.pos as usize,
            self.line as usize,
            self.colon as usize,
            self.count,
        );
        loop {
            if colon == 0 {
                if scan::at(buf, pos) != Some(b'\r') {
                    pos = scan::token_end(buf, pos);
                }
                if pos == line {
                    match line_start(buf, pos, count)? {
                        Some(end) => {
                            self.count = count;
                            return Ok(Some(end));
                        }
                        None => break,
                    }
                }
                if count >= limits.field_count {
                    return Err(Reason::FieldCount);
                }
                match scan::at(buf, pos) {
                    Some(b':') => {}
                    // Whatever stopped the scan: the answer must not depend on how the line was cut.
                    _ if pos.wrapping_sub(line) > field_bytes => return Err(Reason::FieldBytes),
                    None => break,
                    Some(byte) => return Err(name_error(byte)),
                }
                colon = pos;
                pos = pos.wrapping_add(1);
            }
            pos = scan::value_end(buf, pos);
            if pos.wrapping_sub(line) > field_bytes {
                return Err(Reason::FieldBytes);
            }
            match scan::at(buf, pos) {
                Some(b'\r') => {}
                None => break,
                Some(byte) => return Err(value_error(byte)),
            }
            match scan::at(buf, pos.wrapping_add(1)) {
                Some(b'\n') => {}
                None => break,
                Some(_) => return Err(Reason::BareCr),
            }
            facts.field(buf, line, colon, pos, limits)?;
            count = count.wrapping_add(1);
            pos = pos.wrapping_add(2);
            line = pos;
            colon = 0;
        }
        (self.pos, self.line, self.colon, self.count) =
            (pos as u32, line as u32, colon as u32, count);
        Ok(None)
    }
}

/// What stands where a name should: the empty line, of which this is the end; nothing yet; or an error.
#[inline]
fn line_start(buf: &[u8], line: usize, count: u32) -> Result<Option<usize>, Reason> {
    match scan::at(buf, line) {
        None => Ok(None),
        Some(b'\r') => match scan::at(buf, line.wrapping_add(1)) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line.wrapping_add(2))),
            Some(_) => Err(Reason::BareCr),
        },
        Some(b' ' | b'\t') if count == 0 => Err(Reason::SpaceAfterStartLine),
        Some(b' ' | b'\t') => Err(Reason::ObsFold),
        Some(b':') => Err(Reason::FieldNameEmpty),
        Some(byte) => Err(name_error(byte)),
    }
}

#[cold]
fn value_error(byte: u8) -> Reason {
    match byte {
        b'\n' => Reason::BareLf,
        0 => Reason::Nul,
        _ => Reason::Control,
    }
}

#[cold]
fn name_error(byte: u8) -> Reason {
    match byte {
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
