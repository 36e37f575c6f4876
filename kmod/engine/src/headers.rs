// SPDX-License-Identifier: GPL-2.0

//! Header fields of one request by name, so that each is found without scanning the head again, however
//! many routes ask.
//!
//! The rules: names are compared without case; repeated fields are one value joined with `,` (RFC 9110,
//! section 5.3), `Cookie` with `; ` (RFC 9113, section 8.2.3).
//!
//! The caller brings the memory ([`RequestHead::field_count`] entries, [`Headers::fill`]) and a secret key: without one a
//! client could choose names that all fall to one place.

use crate::fields::Fields;
use crate::hash::Keyed;
use crate::message::Span;
use crate::request::RequestHead;

/// A name, its value, and its place in the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    hash: u32,
    /// The next entry of the same bucket, and the first of the bucket with this entry's number.
    next: u32,
    first: u32,
    name: Span,
    /// Above [`JOINED`]: of the joined values.
    value: Span,
}

impl Entry {
    /// Memory of the table before it is filled.
    pub const FREE: Entry = Entry {
        hash: 0,
        next: NONE,
        first: NONE,
        name: Span::EMPTY,
        value: Span::EMPTY,
    };
}

const NONE: u32 = u32::MAX;

/// Set in the start of a span that lies in the joined values, not in the head.
const JOINED: u32 = 1 << 31;

/// What spans point into.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// The head.
    pub head: &'a [u8],
    /// The values of repeated fields, see [`Headers::join`].
    pub joined: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn get(&self, span: Span) -> &'a [u8] {
        let from = if span.start & JOINED == 0 {
            self.head
        } else {
            self.joined
        };
        let start = (span.start & !JOINED) as usize;
        from.get(start..start.wrapping_add(span.len as usize))
            .unwrap_or(&[])
    }
}

const COOKIE: &[u8] = b"cookie";

/// What stands between the values of a repeated field.
fn separator(name: &[u8]) -> &'static [u8] {
    if name.eq_ignore_ascii_case(COOKIE) {
        b"; "
    } else {
        b","
    }
}

/// The table while it is filled.
#[derive(Debug)]
pub struct Headers<'e> {
    entries: &'e mut [Entry],
    len: usize,
    key: [u64; 2],
}

impl<'e> Headers<'e> {
    /// An empty table in `entries`, all [`Entry::FREE`] and as many as the head has fields.
    pub fn new(entries: &'e mut [Entry], key: [u64; 2]) -> Self {
        Headers {
            entries,
            len: 0,
            key,
        }
    }

    /// Takes the fields; how many bytes the joined values of repeated ones have.
    pub fn fill(&mut self, head: &[u8], request: &RequestHead) -> usize {
        let bytes = Bytes { head, joined: &[] };
        let mut repeated = false;
        for (name, value) in Fields::of(head, request) {
            let place = place(self.entries, self.key, name);
            let (name, value) = (Span::of(head, name), Span::of(head, value));
            let Some(earlier) = self.insert(bytes, place, name, value) else {
                continue;
            };
            repeated = true;
            let between = separator(earlier.name.get(head)).len() as u32;
            earlier.value.start = JOINED;
            earlier.value.len = earlier
                .value
                .len
                .wrapping_add(between)
                .wrapping_add(value.len);
        }
        let mut joined = 0u32;
        for entry in self
            .entries
            .iter_mut()
            .take(if repeated { self.len } else { 0 })
        {
            if entry.value.start == JOINED {
                entry.value.start = JOINED | joined;
                joined = joined.wrapping_add(entry.value.len);
            }
        }
        joined as usize
    }

    /// Writes the joined values into `to`, which has as many bytes as [`Headers::fill`] said.
    pub fn join(&mut self, head: &[u8], request: &RequestHead, to: &mut [u8]) {
        if to.is_empty() {
            return;
        }
        for (name, value) in Fields::of(head, request) {
            let bytes = Bytes { head, joined: &[] };
            let first = Span::of(head, name).start;
            let Some(entry) =
                find(self.entries, self.key, bytes, name).and_then(|at| self.entries.get_mut(at))
            else {
                continue;
            };
            if entry.value.start & JOINED == 0 {
                continue;
            }
            // Grows anew to what it was.
            if entry.name.start == first {
                entry.value.len = 0;
            } else {
                append(to, &mut entry.value, separator(name));
            }
            append(to, &mut entry.value, value);
        }
    }

    /// The entry that has the name already; or `None`, and it is a new one.
    fn insert(
        &mut self,
        bytes: Bytes<'_>,
        (hash, bucket): (u32, usize),
        name: Span,
        value: Span,
    ) -> Option<&mut Entry> {
        let text = bytes.get(name);
        if let Some(at) = lookup(self.entries, bytes, text, hash, bucket) {
            return self.entries.get_mut(at);
        }
        let at = self.len;
        let first = &mut self.entries.get_mut(bucket)?.first;
        let next = core::mem::replace(first, at as u32);
        let entry = self.entries.get_mut(at)?;
        entry.hash = hash;
        entry.next = next;
        entry.name = name;
        entry.value = value;
        self.len = at.wrapping_add(1);
        None
    }
}

fn append(to: &mut [u8], span: &mut Span, bytes: &[u8]) {
    let start = (span.start & !JOINED).wrapping_add(span.len) as usize;
    if let Some(room) = to.get_mut(start..start.wrapping_add(bytes.len())) {
        room.copy_from_slice(bytes);
        span.len = span.len.wrapping_add(bytes.len() as u32);
    }
}

/// The number of the entry with a name, in a table that was filled with the same key.
pub fn find(entries: &[Entry], key: [u64; 2], bytes: Bytes<'_>, name: &[u8]) -> Option<usize> {
    let (hash, bucket) = place(entries, key, name);
    lookup(entries, bytes, name, hash, bucket)
}

/// The value of entry `at`.
pub fn value<'a>(entries: &[Entry], bytes: Bytes<'a>, at: usize) -> Option<&'a [u8]> {
    Some(bytes.get(entries.get(at)?.value))
}

fn lookup(
    entries: &[Entry],
    bytes: Bytes<'_>,
    name: &[u8],
    hash: u32,
    bucket: usize,
) -> Option<usize> {
    let mut at = entries.get(bucket)?.first as usize;
    while let Some(entry) = entries.get(at) {
        if entry.hash == hash && name.eq_ignore_ascii_case(bytes.get(entry.name)) {
            return Some(at);
        }
        at = entry.next as usize;
    }
    None
}

/// What the entry remembers of the hash, and its bucket.
#[inline]
fn place(entries: &[Entry], key: [u64; 2], name: &[u8]) -> (u32, usize) {
    let hash = Keyed::of(key, name, lower_case).finish();
    let bucket = (hash >> 32).wrapping_mul(entries.len() as u64) >> 32;
    (hash as u32, bucket as usize)
}

/// Eight bytes of a header field's name in lower case.
#[inline]
fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of each byte: at least 'A', above 'Z', ASCII.  No sum carries over.
    let low = word & ONES.wrapping_mul(0x7f);
    // 0x80 - b'A', and 0x7f - b'Z'.
    let from_a = low.wrapping_add(ONES.wrapping_mul(0x3f));
    let above_z = low.wrapping_add(ONES.wrapping_mul(0x25));
    let upper = from_a & !above_z & !word & ONES.wrapping_mul(0x80);
    word | (upper >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    struct Table {
        head: Vec<u8>,
        entries: Vec<Entry>,
        joined: Vec<u8>,
    }

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15];

    impl Table {
        fn of(head: &str) -> Table {
            let (head, request) = request(head);
            let mut entries = vec![Entry::FREE; request.field_count as usize];
            let mut table = Headers::new(&mut entries, KEY);
            let mut joined = vec![b'?'; table.fill(&head, &request)];
            table.join(&head, &request, &mut joined);
            Table {
                head,
                entries,
                joined,
            }
        }

        fn get(&self, name: &str) -> Option<&str> {
            let bytes = Bytes {
                head: &self.head,
                joined: &self.joined,
            };
            let at = find(&self.entries, KEY, bytes, name.as_bytes())?;
            std::str::from_utf8(value(&self.entries, bytes, at)?).ok()
        }
    }

    #[test]
    fn rules() {
        let table = Table::of(
            "GET /p?a=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\ncookie: s=1; t=2;  u=3;v\r\nx-a:\r\n\
             X-Long-Header-Name^: 5\r\nCOOKIE: s=9; w=8\r\nx-A: 3\r\n\r\n",
        );
        for (name, value) in [
            ("x-a", Some("1,,3")),
            ("host", Some("h")),
            ("cookie", Some("s=1; t=2;  u=3;v; s=9; w=8")),
            ("x-long-header-name^", Some("5")),
            ("x-long-header-name~", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(table.get(name), value, "{name}");
        }
        // Lower case of a word, byte by byte.
        for byte in 0..=127u8 {
            let word = lower_case(u64::from_le_bytes([byte; 8]));
            assert_eq!(word, u64::from_le_bytes([byte.to_ascii_lowercase(); 8]));
        }
    }
}
