// SPDX-License-Identifier: GPL-2.0

//! Header fields, query parameters and cookies of one request by name, so that each is found
//! without scanning the head again, however many routes ask.
//!
//! The rules: names of header fields are compared without case, others as written; repeated
//! fields are one value joined with `,` (RFC 9110, section 5.3), `Cookie` with `; ` (RFC 9113,
//! section 8.2.3), so that each cookie is one; of parameters and of cookies of one name the first counts;
//! a part without `=` has an empty value, one without a name is left out; one space before a cookie is no part of its name. All are
//! seen, however many there are.
//!
//! The caller brings the memory ([`bound`], [`Named::headers`]) and a secret key: without one a
//! client could choose names that all fall to one place.

use crate::fields::Fields;
use crate::message::Span;
use crate::request::RequestHead;

/// What a name is the name of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A header field.
    Header = 0,
    /// A query parameter, not percent-decoded.
    Query = 1,
    /// A cookie of the joined `Cookie` fields.
    Cookie = 2,
}

/// A name, its value, and its place in the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// 30 bits of the name's hash, and the kind above them.
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
    /// The values of repeated fields, see [`Named::join`].
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

/// How many entries the table of a request needs at most.
pub fn bound(head: &[u8], request: &RequestHead, query: bool, cookies: bool) -> usize {
    let mut entries = request.field_count as usize;
    if query {
        entries = entries.wrapping_add(parts(request.query.get(head), b'&'));
    }
    if cookies {
        for (name, value) in Fields::of(head, request) {
            if name.eq_ignore_ascii_case(COOKIE) {
                entries = entries.wrapping_add(parts(value, b';'));
            }
        }
    }
    entries
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

/// Parts that may have a name of their own: any number of empty ones have the same.
fn parts(text: &[u8], separator: u8) -> usize {
    let (mut count, mut before) = (1usize, separator);
    for byte in text {
        count = count.wrapping_add(usize::from(before == separator && *byte != separator));
        before = *byte;
    }
    count
}

/// The table while it is filled: headers, then the joined values, then the rest.
#[derive(Debug)]
pub struct Named<'e> {
    entries: &'e mut [Entry],
    len: usize,
    key: [u64; 2],
}

impl<'e> Named<'e> {
    /// An empty table in `entries`, all [`Entry::FREE`] and at least [`bound`] many.
    pub fn new(entries: &'e mut [Entry], key: [u64; 2]) -> Self {
        Named {
            entries,
            len: 0,
            key,
        }
    }

    /// Takes the header fields; how many bytes the joined values of repeated ones have.
    pub fn headers(&mut self, head: &[u8], request: &RequestHead) -> usize {
        let bytes = Bytes { head, joined: &[] };
        let mut repeated = false;
        for (name, value) in Fields::of(head, request) {
            let place = place(self.entries, self.key, Kind::Header, name);
            let (name, value) = (span_in(head, name), span_in(head, value));
            let Some(earlier) = self.insert(bytes, Kind::Header, place, name, value) else {
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

    /// Writes the joined values into `to`, which has as many bytes as [`Named::headers`] said.
    pub fn join(&mut self, head: &[u8], request: &RequestHead, to: &mut [u8]) {
        if to.is_empty() {
            return;
        }
        for (name, value) in Fields::of(head, request) {
            let bytes = Bytes { head, joined: &[] };
            let first = span_in(head, name).start;
            let Some(entry) = find(self.entries, self.key, bytes, Kind::Header, name)
                .and_then(|at| self.entries.get_mut(at))
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

    /// Takes the query's parameters.
    pub fn query(&mut self, head: &[u8], request: &RequestHead) {
        let bytes = Bytes { head, joined: &[] };
        self.parts(bytes, Kind::Query, b'&', request.query);
    }

    /// Takes the cookies; after headers and [`Named::join`].
    pub fn cookies(&mut self, bytes: Bytes<'_>) {
        let cookie = find(self.entries, self.key, bytes, Kind::Header, COOKIE)
            .and_then(|at| self.entries.get(at))
            .map(|entry| entry.value);
        if let Some(value) = cookie {
            self.parts(bytes, Kind::Cookie, b';', value);
        }
    }

    /// Splits and hashes in one pass: a head may have tens of thousands of parts.
    fn parts(&mut self, bytes: Bytes<'_>, kind: Kind, separator: u8, of: Span) {
        let mut part = Part::at(of.start, self.key, kind);
        let mut at = of.start;
        for byte in bytes.get(of) {
            if *byte == separator {
                self.part(bytes, kind, &part, at);
                part = Part::at(at.wrapping_add(1), self.key, kind);
            } else if part.equals == NONE {
                // RFC 6265, section 4.2.1: one space after the semicolon.
                if *byte == b' ' && kind == Kind::Cookie && at == part.start && !part.spaced {
                    part.start = at.wrapping_add(1);
                    part.spaced = true;
                } else if *byte == b'=' {
                    part.equals = at;
                } else {
                    part.hash = part.hash.push(*byte);
                }
            }
            at = at.wrapping_add(1);
        }
        self.part(bytes, kind, &part, at);
    }

    /// A part without a name is left out: no route can ask for it.
    #[inline]
    fn part(&mut self, bytes: Bytes<'_>, kind: Kind, part: &Part, end: u32) {
        let name_end = part.equals.min(end);
        if name_end == part.start {
            return;
        }
        let name = Span::between(part.start as usize, name_end as usize);
        let value = Span::between(name_end.wrapping_add(1) as usize, end as usize);
        let (hash, bucket) = part.hash.place(self.entries, kind);
        self.insert(bytes, kind, (hash, bucket), name, value);
    }

    /// The entry that has the name already; or `None`, and it is a new one.
    fn insert(
        &mut self,
        bytes: Bytes<'_>,
        kind: Kind,
        (hash, bucket): (u32, usize),
        name: Span,
        value: Span,
    ) -> Option<&mut Entry> {
        let text = bytes.get(name);
        if let Some(at) = lookup(self.entries, bytes, kind, text, hash, bucket) {
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

/// Where `part` lies in `whole`, of which it is a piece.
fn span_in(whole: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    Span {
        start: if part.is_empty() { 0 } else { start as u32 },
        len: part.len() as u32,
    }
}

/// The number of the entry with a name, in a table that was filled with the same key.
pub fn find(
    entries: &[Entry],
    key: [u64; 2],
    bytes: Bytes<'_>,
    kind: Kind,
    name: &[u8],
) -> Option<usize> {
    let (hash, bucket) = place(entries, key, kind, name);
    lookup(entries, bytes, kind, name, hash, bucket)
}

/// The value of entry `at`.
pub fn value<'a>(entries: &[Entry], bytes: Bytes<'a>, at: usize) -> Option<&'a [u8]> {
    Some(bytes.get(entries.get(at)?.value))
}

fn lookup(
    entries: &[Entry],
    bytes: Bytes<'_>,
    kind: Kind,
    name: &[u8],
    hash: u32,
    bucket: usize,
) -> Option<usize> {
    let mut at = entries.get(bucket)?.first as usize;
    while let Some(entry) = entries.get(at) {
        if entry.hash == hash {
            let other = bytes.get(entry.name);
            if match kind {
                Kind::Header => name.eq_ignore_ascii_case(other),
                // Short ones: a call of memcmp would be the dearer part.
                Kind::Query | Kind::Cookie => {
                    name.len() == other.len() && name.iter().zip(other).all(|(a, b)| a == b)
                }
            } {
                return Some(at);
            }
        }
        at = entry.next as usize;
    }
    None
}

/// What the entry remembers of the hash, and its bucket.
#[inline]
fn place(entries: &[Entry], key: [u64; 2], kind: Kind, name: &[u8]) -> (u32, usize) {
    let mut hash = Hash::new(key, kind);
    for byte in name {
        hash = hash.push(*byte);
    }
    hash.place(entries, kind)
}

/// A query parameter or a cookie while it is scanned.
struct Part {
    start: u32,
    equals: u32,
    spaced: bool,
    hash: Hash,
}

impl Part {
    #[inline]
    fn at(start: u32, key: [u64; 2], kind: Kind) -> Self {
        Part {
            start,
            equals: NONE,
            spaced: false,
            hash: Hash::new(key, kind),
        }
    }
}

/// Keyed: each word is multiplied to 128 bits by secrets and folded. Names have no NUL, so a
/// last word that is not full says its length.
#[derive(Clone, Copy)]
struct Hash {
    hash: u64,
    factor: u64,
    word: u64,
    header: bool,
}

impl Hash {
    #[inline]
    fn new([start, factor]: [u64; 2], kind: Kind) -> Self {
        Hash {
            hash: start ^ (kind as u64).wrapping_shl(32),
            factor,
            word: 0,
            header: kind == Kind::Header,
        }
    }

    #[inline]
    fn push(mut self, byte: u8) -> Self {
        self.word = self.word.wrapping_shl(8) | u64::from(byte);
        // Eight bytes, none of which is NUL.
        if self.word >> 56 != 0 {
            self.hash = self.folded();
            self.word = 0;
        }
        self
    }

    #[inline]
    fn folded(self) -> u64 {
        let word = if self.header {
            lower_case(self.word)
        } else {
            self.word
        };
        fold(self.hash ^ word, self.factor)
    }

    #[inline]
    fn place(self, entries: &[Entry], kind: Kind) -> (u32, usize) {
        let hash = self.folded();
        let remembered = (hash as u32 >> 2) | (kind as u32).wrapping_shl(30);
        let bucket = (hash >> 32).wrapping_mul(entries.len() as u64) >> 32;
        (remembered, bucket as usize)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    product as u64 ^ (product >> 64) as u64
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
    use crate::{Limits, RequestParser, Status};

    struct Table {
        head: Vec<u8>,
        entries: Vec<Entry>,
        joined: Vec<u8>,
    }

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15];

    impl Table {
        fn of(head: &str) -> Table {
            let head = head.as_bytes().to_vec();
            let Ok(Status::Complete(request)) = RequestParser::new().parse(&head, &Limits::DEFAULT)
            else {
                panic!("{}", head.escape_ascii());
            };
            let mut entries = vec![Entry::FREE; bound(&head, &request, true, true)];
            let mut table = Named::new(&mut entries, KEY);
            let mut joined = vec![b'?'; table.headers(&head, &request)];
            table.join(&head, &request, &mut joined);
            table.query(&head, &request);
            table.cookies(Bytes {
                head: &head,
                joined: &joined,
            });
            Table {
                head,
                entries,
                joined,
            }
        }

        fn get(&self, kind: Kind, name: &str) -> Option<&str> {
            let bytes = Bytes {
                head: &self.head,
                joined: &self.joined,
            };
            let at = find(&self.entries, KEY, bytes, kind, name.as_bytes())?;
            std::str::from_utf8(value(&self.entries, bytes, at)?).ok()
        }
    }

    #[test]
    fn rules() {
        let table = Table::of(
            "GET /p?a=1&b&a=2&=x&c==3&&long-parameter-name=v&A=4 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\
             cookie: s=1; t=2;  u=3;v\r\nx-a:\r\nX-Long-Header-Name^: 5\r\nCOOKIE: s=9; w=8\r\nx-A: 3\r\n\r\n",
        );
        for (kind, name, value) in [
            (Kind::Header, "x-a", Some("1,,3")),
            (Kind::Header, "host", Some("h")),
            (Kind::Header, "cookie", Some("s=1; t=2;  u=3;v; s=9; w=8")),
            (Kind::Header, "x-long-header-name^", Some("5")),
            (Kind::Header, "x-long-header-name~", None),
            (Kind::Header, "a", None),
            (Kind::Query, "a", Some("1")),
            (Kind::Query, "b", Some("")),
            (Kind::Query, "c", Some("=3")),
            (Kind::Query, "", None),
            (Kind::Query, "A", Some("4")),
            (Kind::Query, "long-parameter-name", Some("v")),
            (Kind::Query, "host", None),
            (Kind::Cookie, "s", Some("1")),
            (Kind::Cookie, "t", Some("2")),
            (Kind::Cookie, "u", None),
            (Kind::Cookie, " u", Some("3")),
            (Kind::Cookie, "v", Some("")),
            (Kind::Cookie, "v,s", None),
            (Kind::Cookie, "w", Some("8")),
        ] {
            assert_eq!(table.get(kind, name), value, "{kind:?} {name}");
        }
    }

    /// None of thousands is left out, in a table of the bound's size.
    #[test]
    fn all_are_seen() {
        let mut query = String::new();
        let mut cookies = String::new();
        for n in 0..2_500 {
            query += &format!("&{n}&");
            cookies += &format!("{n}={n}; ");
        }
        let table = Table::of(&format!(
            "GET /?{query} HTTP/1.1\r\nHost: h\r\nCookie: {cookies}\r\n\r\n"
        ));
        for n in 0..2_500 {
            let name = n.to_string();
            assert_eq!(table.get(Kind::Query, &name), Some(""), "{n}");
            assert_eq!(table.get(Kind::Cookie, &name), Some(name.as_str()));
        }
        assert_eq!(table.get(Kind::Query, "2500"), None);
        // Lower case of a word, byte by byte.
        for byte in 0..=127u8 {
            let word = lower_case(u64::from_le_bytes([byte; 8]));
            assert_eq!(word, u64::from_le_bytes([byte.to_ascii_lowercase(); 8]));
        }
    }
}
