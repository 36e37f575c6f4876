// SPDX-License-Identifier: GPL-2.0

//! Query parameters and cookies of one request by name, in a single pass over the head: [`seek`] finds one, [`Wanted`] those of
//! a few names that were given before, and a table of all ([`fill`]) each, however many routes ask.
//!
//! The rules: names are compared as written; of one name the first counts; a part without `=` has an empty value, one
//! without a name is left out; one space before a cookie is no part of its name (RFC 6265, section 4.2.1).  All are seen,
//! however many there are, and all `Cookie` fields are one list (RFC 9113, section 8.2.3).
//!
//! A head of 64 KiB may have 30,000 parts of two bytes, or 20,000 names, so what is done for each is little: both tables have
//! nothing but offsets and are open (no chains). The one of all has room for as many names as fit in the bytes, so that they
//! need not be counted first; the one of wanted names is small, whatever the head has. The caller brings the memory
//! ([`bound`]) and a secret key: without one a client could choose names that all fall to one place.

use crate::fields::Fields;
use crate::hash::{word_at, Keyed};
use crate::message::Span;
use crate::request::RequestHead;
use crate::scan;

/// What the parts are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Query parameters, not percent-decoded.
    Query,
    /// Cookies of all `Cookie` fields.
    Cookie,
}

/// A part: what its name is, and where in the head it lies.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// A name of up to seven bytes, with NULs behind them; of a longer one the hash, with a highest byte that is none.
    tag: u64,
    start: u32,
    /// 0 when the slot is free, or the wanted part not found: nothing ends where a head begins.
    end: u32,
}

impl Slot {
    /// Memory of the table before it is filled.
    pub const FREE: Slot = Slot {
        tag: 0,
        start: 0,
        end: 0,
    };
}

/// A name as the table has it.
#[derive(Clone, Copy)]
struct Name<'a> {
    hash: u64,
    tag: u64,
    /// To be compared when the tag is a hash.
    long: &'a [u8],
}

impl<'a> Name<'a> {
    /// Up to seven bytes.
    #[inline]
    fn short(key: [u64; 2], word: u64) -> Self {
        let mut hash = Keyed::new(key);
        hash.push(word);
        Name {
            hash: hash.finish(),
            tag: word,
            long: &[],
        }
    }

    /// Of more bytes, hashed to their end.
    #[inline]
    fn long(hash: Keyed, name: &'a [u8]) -> Self {
        let hash = hash.finish();
        Name {
            hash,
            tag: hash | (0xff << 56),
            long: name,
        }
    }

    fn new(key: [u64; 2], name: &'a [u8]) -> Self {
        match name.len() {
            0..8 => Self::short(key, word_at(name, 0)),
            _ => Self::long(Keyed::of(key, name, |word| word), name),
        }
    }

    #[inline]
    fn is_of(&self, slot: &Slot, head: &[u8]) -> bool {
        slot.tag == self.tag && (self.long.is_empty() || self.is_long_of(slot, head))
    }

    #[inline(never)]
    fn is_long_of(&self, slot: &Slot, head: &[u8]) -> bool {
        let part = head.get(slot.start as usize..slot.end as usize);
        let rest = part.and_then(|part| part.strip_prefix(self.long));
        matches!(rest, Some([] | [b'=', ..]))
    }
}

/// The texts that parts of a kind are in.
fn texts<'a>(
    head: &'a [u8],
    request: &RequestHead,
    kind: Kind,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (query, fields) = match kind {
        Kind::Query => (Some(request.query.get(head)), None),
        Kind::Cookie => (None, Some(Fields::of(head, request))),
    };
    let cookies = fields.into_iter().flatten();
    let cookies = cookies.filter(|(name, _)| scan::is_token_equal(name, b"cookie"));
    query.into_iter().chain(cookies.map(|(_, value)| value))
}

/// The first part of a kind with a name, from that name on.
pub fn seek(head: &[u8], request: &RequestHead, kind: Kind, name: &[u8]) -> Option<Span> {
    texts(head, request, kind).find_map(|text| {
        let text = Span::of(head, text);
        match kind {
            Kind::Query => seek_in::<b'&'>(head, text, name),
            Kind::Cookie => seek_in::<b';'>(head, text, name),
        }
    })
}

fn seek_in<const SEPARATOR: u8>(head: &[u8], text: Span, name: &[u8]) -> Option<Span> {
    let (start, end) = (text.start as usize, text.end() as usize);
    if name.is_empty() || name.iter().any(|b| *b == b'=' || *b == SEPARATOR) {
        return None;
    }
    let first = word_at(name, 0);
    let unused = 8usize.saturating_sub(name.len()) as u32;
    let mask = u64::MAX.wrapping_shr(unused.wrapping_mul(8));
    let named = |at: usize| {
        if word_at(head, at) & mask != first {
            return None;
        }
        let name_end = at.wrapping_add(name.len());
        let text = head.get(..end)?;
        let part_end = match text.get(name_end) {
            Some(b'=') => scan::find_byte(text, name_end, SEPARATOR).unwrap_or(end),
            Some(byte) if *byte == SEPARATOR => name_end,
            None if name_end == end => end,
            _ => return None,
        };
        if name.len() > 8 && text.get(at..name_end) != Some(name) {
            return None;
        }
        Some(Span::between(at, part_end))
    };
    if let Some(part) = named(start) {
        return Some(part);
    }
    let mut from = start;
    while from < end {
        let word = word_at(head, from);
        let mut separators = equal(word, SEPARATOR);
        while separators != 0 {
            let bits = separators.trailing_zeros();
            separators &= separators.wrapping_sub(1);
            let mut at = from.wrapping_add((bits >> 3) as usize).wrapping_add(1);
            // What the word has of the part: most are no match already.
            let mut rest = word.wrapping_shr(bits) >> 1;
            let mut seen = u64::MAX.wrapping_shr(bits) >> 1;
            if SEPARATOR == b';' && is_space(rest, seen, head, at) {
                at = at.wrapping_add(1);
                rest >>= 8;
                seen >>= 8;
            }
            if (rest ^ first) & mask & seen == 0 {
                if let Some(part) = named(at) {
                    return Some(part);
                }
            }
        }
        from = from.wrapping_add(8);
    }
    None
}

/// Is there a space at `at`, of which `rest` are the bytes that were `seen`?
#[inline]
fn is_space(rest: u64, seen: u64, head: &[u8], at: usize) -> bool {
    let space = u64::from(b' ');
    rest & 0xff == space || (seen == 0 && scan::at(head, at) == Some(b' '))
}

/// The value of a part.
pub fn value_of(head: &[u8], part: Span) -> &[u8] {
    let part = part.get(head);
    let value = scan::find_byte(part, 0, b'=').and_then(|at| part.get(at.wrapping_add(1)..));
    value.unwrap_or(&[])
}

/// How many slots the table of a request needs: a power of two, or 0.
pub fn bound(head: &[u8], request: &RequestHead, kind: Kind) -> usize {
    // With a separator behind each part.
    let bytes = texts(head, request, kind)
        .filter(|text| !text.is_empty())
        .fold(0usize, |n, text| {
            n.saturating_add(text.len()).saturating_add(1)
        });
    // Names that differ: at most 256 have one byte, and two with the separator.
    let names = (bytes / 2).min(bytes.saturating_add(256) / 3);
    match names {
        0 => 0,
        // A quarter at least stays free.
        n => n
            .saturating_add(n / 3)
            .saturating_add(1)
            .checked_next_power_of_two()
            .unwrap_or(0),
    }
}

/// Fills `slots`, which are all [`Slot::FREE`] and [`bound`] many, with the parts of a request.
pub fn fill(slots: &mut [Slot], key: [u64; 2], head: &[u8], request: &RequestHead, kind: Kind) {
    for text in texts(head, request, kind) {
        let text = Span::of(head, text);
        match kind {
            Kind::Query => add::<All<'_>, b'&'>(&mut All(slots), key, head, text),
            Kind::Cookie => add::<All<'_>, b';'>(&mut All(slots), key, head, text),
        }
    }
}

/// Slots of a table of wanted names: a power of two. Half of them are used at most, so that a search is short and ends.
const SLOTS: usize = 128;

/// Parts of one kind that were named before they are looked for.
pub struct Wanted {
    slots: [Slot; SLOTS],
    used: usize,
    key: [u64; 2],
}

impl Wanted {
    /// None yet: all zero, but for the key.
    pub const fn new(key: [u64; 2]) -> Self {
        Wanted {
            slots: [Slot::FREE; SLOTS],
            used: 0,
            key,
        }
    }

    /// Sets the key, before there is a name.
    pub fn set_key(&mut self, key: [u64; 2]) {
        self.key = key;
    }

    /// Adds a name; false when there is no room for it, or no part can have it.
    pub fn want(&mut self, name: &[u8]) -> bool {
        if name.is_empty() {
            return false;
        }
        let name = Name::new(self.key, name);
        let mut place = name.hash as usize % SLOTS;
        while let Some(slot) = self.slots.get_mut(place) {
            if slot.tag == name.tag {
                return true;
            }
            if slot.tag == 0 {
                if self.used < SLOTS / 2 {
                    slot.tag = name.tag;
                    self.used = self.used.wrapping_add(1);
                    return true;
                }
                break;
            }
            place = place.wrapping_add(1) % SLOTS;
        }
        false
    }

    /// Finds the parts of a kind: the first of each name.
    pub fn look(&mut self, head: &[u8], request: &RequestHead, kind: Kind) {
        let key = self.key;
        for text in texts(head, request, kind) {
            let text = Span::of(head, text);
            match kind {
                Kind::Query => add::<Wanted, b'&'>(self, key, head, text),
                Kind::Cookie => add::<Wanted, b';'>(self, key, head, text),
            }
        }
    }

    /// The number of the part that [`Wanted::look`] has found for a name.
    pub fn find(&self, head: &[u8], name: &[u8]) -> Result<Option<usize>, NotLookedFor> {
        let name = Name::new(self.key, name);
        let mut place = name.hash as usize % SLOTS;
        while let Some(slot) = self.slots.get(place).filter(|slot| slot.tag != 0) {
            if slot.tag == name.tag {
                return match slot.end {
                    0 => Ok(None),
                    // The tag of a long name is a hash, and another one's may be the same.
                    _ if name.is_of(slot, head) => Ok(Some(place)),
                    _ => Err(NotLookedFor),
                };
            }
            place = place.wrapping_add(1) % SLOTS;
        }
        Err(NotLookedFor)
    }

    /// The part with that number.
    pub fn part(&self, place: usize) -> Option<Span> {
        part(&self.slots, place)
    }
}

/// The name was not wanted, or must be compared with all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotLookedFor;

/// The number of the slot with a name, in a table that was filled with the same key.
pub fn find(slots: &[Slot], key: [u64; 2], head: &[u8], name: &[u8]) -> Option<usize> {
    let name = Name::new(key, name);
    let mask = mask(slots);
    let mut place = name.hash as usize & mask;
    // There is a free one.
    loop {
        let slot = slots.get(place).filter(|slot| slot.end != 0)?;
        if name.is_of(slot, head) {
            return Some(place);
        }
        place = place.wrapping_add(1) & mask;
    }
}

/// The part of a slot.
pub fn part(slots: &[Slot], place: usize) -> Option<Span> {
    let slot = slots.get(place)?;
    Some(Span::between(slot.start as usize, slot.end as usize))
}

/// Eight bytes of a text, and where in them a part ends (`separators`), or its name does (`stops`).
struct Word {
    bytes: u64,
    separators: u64,
    stops: u64,
}

impl Word {
    /// Of the text that ends at `end`: as if a separator stood there.
    #[inline]
    fn at<const SEPARATOR: u8>(head: &[u8], at: usize, end: usize) -> Word {
        let bytes = word_at(head, at);
        let separators = equal(bytes, SEPARATOR);
        let mut word = Word {
            bytes,
            separators,
            stops: separators | equal(bytes, b'='),
        };
        let left = end.wrapping_sub(at);
        if left < 8 {
            let last = 0x80u64.wrapping_shl((left as u32).wrapping_mul(8));
            word.separators = (word.separators & last.wrapping_sub(1)) | last;
            word.stops = (word.stops & last.wrapping_sub(1)) | last;
        }
        word
    }

    /// Without its first `bits`, less than all.
    #[inline]
    fn skip(&mut self, bits: u32) {
        self.bytes = self.bytes.wrapping_shr(bits);
        self.separators = self.separators.wrapping_shr(bits);
        self.stops = self.stops.wrapping_shr(bits);
    }

    /// The bytes before the first stop.
    #[inline]
    fn name(&self) -> u64 {
        self.bytes & ((self.stops & self.stops.wrapping_neg()) >> 7).wrapping_sub(1)
    }
}

/// Where the first byte is that is flagged.
#[inline]
fn first_of(flags: u64) -> usize {
    (flags.trailing_zeros() >> 3) as usize
}

/// Where the parts of a text go.
trait Parts {
    fn take(&mut self, head: &[u8], name: Name<'_>, start: usize, end: usize);
}

/// A table of all.
struct All<'a>(&'a mut [Slot]);

/// Takes the parts of one text.
fn add<P: Parts, const SEPARATOR: u8>(to: &mut P, key: [u64; 2], head: &[u8], text: Span) {
    let end = text.end() as usize;
    let mut at = text.start as usize;
    while at < end {
        let start = at;
        let mut word = Word::at::<SEPARATOR>(head, at, end);
        // The parts that end in this word, as most do in a text of many.
        while word.separators != 0 {
            let name = word.name();
            let bits = word.separators.trailing_zeros();
            let part_end = at.wrapping_add((bits >> 3) as usize);
            if name != 0 {
                to.take(head, Name::short(key, name), at, part_end);
            }
            at = part_end.wrapping_add(1);
            if bits == 63 {
                break;
            }
            word.skip(bits.wrapping_add(1));
            if SEPARATOR == b';' && word.bytes & 0xff == u64::from(b' ') {
                at = at.wrapping_add(1);
                word.skip(8);
            }
        }
        if at == start {
            at = add_long::<P, SEPARATOR>(to, key, head, at, end, word).wrapping_add(1);
        }
        // A space behind the word's last byte.
        if SEPARATOR == b';'
            && scan::at(head, at) == Some(b' ')
            && scan::at(head, at.wrapping_sub(1)) == Some(b';')
        {
            at = at.wrapping_add(1);
        }
    }
}

/// Takes a part that does not end in its first `word`; where it ends.
#[inline(never)]
fn add_long<P: Parts, const SEPARATOR: u8>(
    to: &mut P,
    key: [u64; 2],
    head: &[u8],
    start: usize,
    end: usize,
    mut word: Word,
) -> usize {
    let mut hash = Keyed::new(key);
    let mut at = start;
    while word.stops == 0 {
        hash.push(word.bytes);
        at = at.wrapping_add(8);
        word = Word::at::<SEPARATOR>(head, at, end);
    }
    let part_end = if word.separators != 0 {
        at.wrapping_add(first_of(word.separators))
    } else {
        let text = head.get(..end).unwrap_or(&[]);
        scan::find_byte(text, at.wrapping_add(8), SEPARATOR).unwrap_or(end)
    };
    if at != start {
        hash.push(word.name());
        let name_end = at.wrapping_add(first_of(word.stops));
        let name = Name::long(hash, head.get(start..name_end).unwrap_or(&[]));
        to.take(head, name, start, part_end);
    } else if word.name() != 0 {
        to.take(head, Name::short(key, word.name()), start, part_end);
    }
    part_end
}

impl Parts for All<'_> {
    /// Puts a part in its place, unless one of that name is there.
    #[inline(always)]
    fn take(&mut self, head: &[u8], name: Name<'_>, start: usize, end: usize) {
        let mask = mask(self.0);
        let mut place = name.hash as usize & mask;
        // There is a free one.
        while let Some(slot) = self.0.get_mut(place) {
            if slot.end == 0 {
                *slot = Slot {
                    tag: name.tag,
                    start: start as u32,
                    end: end as u32,
                };
                return;
            }
            if name.is_of(slot, head) {
                return;
            }
            place = place.wrapping_add(1) & mask;
        }
    }
}

impl Parts for Wanted {
    /// Writes down where a part is that is wanted and was not found yet.
    #[inline(always)]
    fn take(&mut self, _: &[u8], name: Name<'_>, start: usize, end: usize) {
        let mut place = name.hash as usize % SLOTS;
        // There is a free one.
        while let Some(slot) = self.slots.get_mut(place) {
            if slot.tag == name.tag {
                if slot.end == 0 {
                    slot.start = start as u32;
                    slot.end = end as u32;
                }
                return;
            }
            if slot.tag == 0 {
                return;
            }
            place = place.wrapping_add(1) % SLOTS;
        }
    }
}

#[inline]
fn mask(slots: &[Slot]) -> usize {
    slots.len().wrapping_sub(1)
}

/// The highest bit of each byte of `word` that is `byte`, and of no other.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let other = word ^ ONES.wrapping_mul(u64::from(byte));
    // No sum carries over.
    !((other & LOW).wrapping_add(LOW) | other | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{draws, request};

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15];

    struct Table {
        head: Vec<u8>,
        request: RequestHead,
        kinds: [Vec<Slot>; 2],
    }

    impl Table {
        fn of(head: &str) -> Table {
            let (head, request) = request(head);
            let kinds = [Kind::Query, Kind::Cookie].map(|kind| {
                let mut slots = vec![Slot::FREE; bound(&head, &request, kind)];
                fill(&mut slots, KEY, &head, &request, kind);
                let full = slots.iter().filter(|slot| slot.end != 0).count();
                assert!(full * 4 <= slots.len() * 3, "{full} of {}", slots.len());
                slots
            });
            Table {
                head,
                request,
                kinds,
            }
        }

        fn get(&self, kind: Kind, name: &str) -> Option<&str> {
            let slots = &self.kinds[kind as usize];
            let place = find(slots, KEY, &self.head, name.as_bytes());
            let found = place.and_then(|place| part(slots, place));
            // And without the table.
            assert_eq!(
                seek(&self.head, &self.request, kind, name.as_bytes()),
                found
            );
            assert_eq!(self.looked(kind, &[name])[0], found);
            std::str::from_utf8(value_of(&self.head, found?)).ok()
        }
    }

    impl Table {
        /// What one pass finds for all of these names.
        fn looked(&self, kind: Kind, names: &[&str]) -> Vec<Option<Span>> {
            let mut table = Wanted::new(KEY);
            let wanted: Vec<bool> = names
                .iter()
                .map(|name| table.want(name.as_bytes()))
                .collect();
            table.look(&self.head, &self.request, kind);
            names
                .iter()
                .zip(wanted)
                .map(
                    |(name, wanted)| match table.find(&self.head, name.as_bytes()) {
                        Ok(place) => place.and_then(|place| table.part(place)),
                        Err(NotLookedFor) => {
                            assert!(!wanted, "{name}");
                            None
                        }
                    },
                )
                .collect()
        }
    }

    #[test]
    fn many_are_found_in_one_pass() {
        let mut draw = draws(1);
        for _ in 0..300 {
            let parts: Vec<String> = (0..draw(200))
                .map(|_| {
                    let name = match draw(3) {
                        0 => format!("{}", draw(40)),
                        1 => format!("a-long-name-{}", draw(40)),
                        _ => format!("eight-{:02}", draw(40)),
                    };
                    ["{}", "{}=", "{}=v", "{}==w&"][draw(4)].replace("{}", &name)
                })
                .collect();
            let separator = [";", "; ", ";;"][draw(3)];
            let table = Table::of(&format!(
                "GET /?{} HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n",
                parts.join("&"),
                parts.join(separator)
            ));
            let names: Vec<String> = (0..SLOTS / 2)
                .map(|n| match n % 3 {
                    0 => format!("{n}"),
                    1 => format!("a-long-name-{n}"),
                    _ => format!("eight-{n:02}"),
                })
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for kind in [Kind::Query, Kind::Cookie] {
                for (name, found) in names.iter().zip(table.looked(kind, &names)) {
                    let sought = seek(&table.head, &table.request, kind, name.as_bytes());
                    assert_eq!(found, sought, "{name}");
                }
            }
        }
    }

    #[test]
    fn room_has_an_end() {
        let mut table = Wanted::new(KEY);
        let names: Vec<String> = (0..SLOTS).map(|n| n.to_string()).collect();
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.want(name.as_bytes()), n < SLOTS / 2, "{n}");
        }
        assert!(table.want(b"0"), "it is there");
        assert!(!table.want(b""));
        let (head, request) = request("GET / HTTP/1.1\r\nHost: h\r\nCookie: never=1; 7=1\r\n\r\n");
        table.look(&head, &request, Kind::Cookie);
        assert_eq!(table.find(&head, b"0"), Ok(None));
        assert!(matches!(table.find(&head, b"7"), Ok(Some(_))));
        assert_eq!(table.find(&head, b"never"), Err(NotLookedFor));
    }

    #[test]
    fn rules() {
        let table = Table::of(
            "GET /p?a=1&b&a=2&=x&c==3&&long-parameter-name=v&A=4&eight-by=5&ab=6 HTTP/1.1\r\nHost: h\r\n\
             cookie: s=1; t=2;  u=3;v\r\nX-A: x=1\r\nCookie:\r\nCOOKIE: s=9; w=8;; ; =5; q=a&b\r\n\r\n",
        );
        for (kind, name, value) in [
            (Kind::Query, "a", Some("1")),
            (Kind::Query, "b", Some("")),
            (Kind::Query, "ab", Some("6")),
            (Kind::Query, "c", Some("=3")),
            (Kind::Query, "c=", None),
            (Kind::Query, "", None),
            (Kind::Query, "A", Some("4")),
            (Kind::Query, "eight-by", Some("5")),
            (Kind::Query, "long-parameter-name", Some("v")),
            (Kind::Query, "long-parameter-nam", None),
            (Kind::Query, "host", None),
            (Kind::Query, "s", None),
            (Kind::Cookie, "s", Some("1")),
            (Kind::Cookie, "t", Some("2")),
            (Kind::Cookie, "u", None),
            (Kind::Cookie, " u", Some("3")),
            (Kind::Cookie, "v", Some("")),
            (Kind::Cookie, "v,s", None),
            (Kind::Cookie, "w", Some("8")),
            (Kind::Cookie, "q", Some("a&b")),
            (Kind::Cookie, "", None),
            (Kind::Cookie, "x", None),
            (Kind::Cookie, "a", None),
        ] {
            assert_eq!(table.get(kind, name), value, "{kind:?} {name}");
        }
        let none = Table::of("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(none.kinds.map(|slots| slots.len()), [0, 0]);
    }

    /// As a plain split has them, whatever the lengths of names and values are: words, and pieces of words.
    #[test]
    fn as_a_plain_split() {
        let mut draw = draws(1);
        for _ in 0..3_000 {
            let text: String = (0..draw(60))
                .map(|_| ["a", "b", "=", "&", "&", " ", "abcdefgh", "abcdefg"][draw(8)])
                .collect();
            let (query, cookies) = (text.replace(' ', "+"), text.replace('&', ";"));
            let table = Table::of(&format!(
                "GET /?{query} HTTP/1.1\r\nHost: h\r\nCookie: {cookies}\r\n\r\n"
            ));
            for (kind, text, separator) in [
                (Kind::Query, &*query, '&'),
                (Kind::Cookie, cookies.trim(), ';'),
            ] {
                let mut seen = std::collections::HashMap::new();
                for part in text.split(separator) {
                    let part = match kind {
                        Kind::Query => part,
                        Kind::Cookie => part.strip_prefix(' ').unwrap_or(part),
                    };
                    let (name, value) = part.split_once('=').unwrap_or((part, ""));
                    if !name.is_empty() {
                        seen.entry(name).or_insert(value);
                    }
                }
                for (name, value) in &seen {
                    assert_eq!(table.get(kind, name), Some(*value), "{text:?} {name:?}");
                }
                for name in ["a", "ab", "b", "abcdefg", "abcdefgh", " a", "bb", "c"] {
                    assert_eq!(table.get(kind, name), seen.get(name).copied(), "{text:?}");
                }
                let full = table.kinds[kind as usize].iter().filter(|s| s.end != 0);
                assert_eq!(full.count(), seen.len(), "{text:?}");
            }
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
    }

    /// As many names as fit in the bytes.
    #[test]
    fn all_names_fit() {
        let letters: Vec<char> = ('!'..='~').filter(|c| !";=".contains(*c)).collect();
        let one = letters.iter().map(char::to_string);
        let two = letters
            .iter()
            .flat_map(|a| letters.iter().map(move |b| format!("{a}{b}")));
        let names: Vec<String> = one.chain(two).collect();
        for count in [0, 1, 2, 3, 8, 100, 1_000, names.len()] {
            let cookies = names[..count].join(";");
            let table = Table::of(&format!(
                "GET / HTTP/1.1\r\nHost: h\r\nCookie: {cookies}\r\n\r\n"
            ));
            for name in &names[..count] {
                assert_eq!(table.get(Kind::Cookie, name), Some(""), "{name}");
            }
        }
    }
}
