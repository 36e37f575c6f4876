// SPDX-License-Identifier: GPL-2.0
//! The answers of the kfuncs, from the head of a request: what `kmod/policy/view.rs` is in the module, over the same functions of the engine.
//!
//! Memory is asked for in the module's way, though there is plenty here: who wants a table of named parts, room for a few
//! names, or for needles, says so and ends, and is called again.

use std::cell::{Cell, RefCell};

use xlb_engine::headers::{self, Bytes, Entry, Headers};
use xlb_engine::parts::{self, Kind, NotLookedFor, Slot, Wanted};
use xlb_engine::{regex, search, Span};

use super::maps::Array;
use super::Head;
use crate::intf::*;

const ENOENT: i32 = nix::libc::ENOENT;
const EINVAL: i32 = nix::libc::EINVAL;
const EAGAIN: i32 = nix::libc::EAGAIN;

/// Of the hash tables. Nobody here chooses names against it.
const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15];

/// What a field number of a named part has above the part's own: one bit says of which kind it is.
const PART_BITS: u32 = 24;
/// In a part's own number: it is where the part begins, which was searched for by itself.
const SOUGHT: u32 = 1 << 23;

/// In [`View::wanted`]: names are above tables.
const ROOM_SHIFT: u32 = 16;

const ALL_KINDS: u32 = XLB_NAMED_HEADER | XLB_NAMED_QUERY | XLB_NAMED_COOKIE;

/// What the policy may ask about a request.
pub struct View<'h> {
    head: &'h Head,
    /// Of all parts of some kinds.
    table: Option<Table>,
    names: Option<Names>,
    /// The part that was found last without either.
    found: Cell<Span>,
    /// Kinds (`XLB_NAMED_*`) that were asked for: a table of all in the lower half, room for names in the upper.
    wanted: Cell<u32>,
    /// Bits for needles, in the same way.
    wanted_needles: Cell<u32>,
}

struct Table {
    kinds: u32,
    headers: Vec<Entry>,
    /// Values of repeated header fields.
    joined: Vec<u8>,
    query: Vec<Slot>,
    cookies: Vec<Slot>,
}

/// What the policy has said before that it will ask for.
struct Names {
    query: Option<RefCell<Few>>,
    cookies: Option<RefCell<Few>>,
    needles: Vec<Cell<u64>>,
}

/// Names of one kind.
struct Few {
    wanted: Wanted,
    /// The head was searched for them.
    looked: bool,
}

/// As the engine has it; of a kind that has no order of its own in a head.
fn kind_of(kind: u32) -> Option<Kind> {
    match kind {
        XLB_NAMED_QUERY => Some(Kind::Query),
        XLB_NAMED_COOKIE => Some(Kind::Cookie),
        _ => None,
    }
}

fn number(n: u32) -> usize {
    n as usize
}

/// The calls of the module, between those of the policy.
impl<'h> View<'h> {
    pub fn new(head: &'h Head) -> View<'h> {
        View {
            head,
            table: None,
            names: None,
            found: Cell::new(Span::EMPTY),
            wanted: Cell::new(0),
            wanted_needles: Cell::new(0),
        }
    }

    /// What requests before this one on its connection have asked for.
    #[cfg(test)]
    pub fn want_already(&self, kinds: u32, needles: u32) {
        self.wanted.set(kinds);
        self.wanted_needles.set(needles);
    }

    /// Makes all that was asked for and is not there.
    pub fn make_table(&mut self) {
        let wanted = self.wanted.get();
        if !self.has(wanted) {
            self.table = Some(Table::new(wanted & ALL_KINDS, self.head));
        }
        let (kinds, bits) = (wanted >> ROOM_SHIFT, self.wanted_needles.get());
        if !self.has_room(kinds) || !self.has_needles(bits) {
            self.names = Some(Names::new(kinds, bits));
        }
    }

    /// Before each call: another configuration has other needles.
    pub fn forget_needles(&self) {
        self.needles().iter().for_each(|word| word.set(0));
    }

    fn has(&self, kinds: u32) -> bool {
        let made = self.table.as_ref().map_or(0, |table| table.kinds);
        kinds & ALL_KINDS & !made == 0
    }

    fn has_room(&self, kinds: u32) -> bool {
        let has = |kind: u32| kinds & kind == 0 || self.few(kind).is_some();
        has(XLB_NAMED_QUERY) && has(XLB_NAMED_COOKIE)
    }

    fn has_needles(&self, count: u32) -> bool {
        u64::from(count) <= self.needles().len() as u64 * u64::from(u64::BITS)
    }

    fn few(&self, kind: u32) -> Option<&RefCell<Few>> {
        let names = self.names.as_ref()?;
        match kind {
            XLB_NAMED_QUERY => names.query.as_ref(),
            XLB_NAMED_COOKIE => names.cookies.as_ref(),
            _ => None,
        }
    }

    fn needles(&self) -> &[Cell<u64>] {
        self.names.as_ref().map_or(&[], |names| &names.needles)
    }

    fn table(&self, kind: u32) -> Option<&Table> {
        self.table.as_ref().filter(|table| table.kinds & kind != 0)
    }
}

/// The calls of the policy.
impl View<'_> {
    pub fn field(&self, field: u32) -> Option<&[u8]> {
        let Head { bytes, head, .. } = self.head;
        Some(match field {
            XLB_FIELD_METHOD => head.method_span.get(bytes),
            XLB_FIELD_HOST => &self.head.host,
            // Who compares it does so without case.
            XLB_FIELD_PATH | XLB_FIELD_PATH_LOWER => &self.head.path,
            XLB_FIELD_QUERY => head.query.get(bytes),
            n => self.value(n.checked_sub(XLB_FIELD_NAMED)?)?,
        })
    }

    pub fn need_all(&self, kinds: u32) -> i32 {
        if self.has(kinds) {
            return 0;
        }
        if kinds & !ALL_KINDS != 0 {
            return -EINVAL;
        }
        self.wanted.set(self.wanted.get() | kinds);
        -EAGAIN
    }

    pub fn need_needles(&self, count: u32) -> i32 {
        if self.has_needles(count) {
            return 0;
        }
        if count > XLB_MAX_NEEDLES {
            return -EINVAL;
        }
        let before = self.wanted_needles.get();
        self.wanted_needles.set(before.max(count));
        -EAGAIN
    }

    pub fn want(&self, kind: u32, name: &[u8]) -> i32 {
        if kind_of(kind).is_none() {
            return -EINVAL;
        }
        let Some(few) = self.few(kind) else {
            self.wanted.set(self.wanted.get() | (kind << ROOM_SHIFT));
            return -EAGAIN;
        };
        let mut few = few.borrow_mut();
        // After the search, a new name is one of another configuration.
        if !few.looked {
            few.wanted.want(name);
        }
        0
    }

    /// The field number of the part of a kind with a name.
    pub fn named(&self, kind: u32, name: &[u8]) -> Option<usize> {
        let nth = match (self.table(kind), kind_of(kind)) {
            (Some(table), _) => table.find(self.head, kind, name)?,
            (None, Some(of)) => match self.looked(kind, of, name) {
                Ok(place) => place?,
                Err(NotLookedFor) => {
                    let part = parts::seek(&self.head.bytes, &self.head.head, of, name)?;
                    self.found.set(part);
                    number(SOUGHT | part.start)
                }
            },
            (None, None) => return None,
        };
        Some(number(XLB_FIELD_NAMED) + ((number(kind) << PART_BITS) | nth))
    }

    fn looked(&self, kind: u32, of: Kind, name: &[u8]) -> Result<Option<usize>, NotLookedFor> {
        let few = self.few(kind).ok_or(NotLookedFor)?;
        let mut few = few.borrow_mut();
        few.look(self.head, of);
        few.wanted.find(&self.head.bytes, name)
    }

    /// The value of the part with a number.
    fn value(&self, part: u32) -> Option<&[u8]> {
        let bytes = &self.head.bytes;
        let (kind, nth) = (part >> PART_BITS, part & ((1 << PART_BITS) - 1));
        if let Some(table) = self.table(kind) {
            return table.value(self.head, kind, number(nth));
        }
        let part = if nth & SOUGHT != 0 {
            let found = self.found.get();
            (found.start == nth & !SOUGHT).then_some(found)
        } else {
            let mut few = self.few(kind)?.borrow_mut();
            few.look(self.head, kind_of(kind)?);
            few.wanted.part(number(nth))
        };
        Some(parts::value_of(bytes, part?))
    }

    pub fn search(&self, field: u32, array: &Array, needle: &xlb_needle) -> i32 {
        self.find(field, needle.searched, needle.needle, |text, bits| {
            search::all(&Automata { array, needle }, needle.root, text, bits);
        })
    }

    pub fn matches(&self, field: u32, array: &Array, regex: &xlb_regex) -> i32 {
        self.find(field, regex.searched, regex.needle, |text, bits| {
            regex::all(
                &Expressions { array, regex },
                regex.start.into(),
                text,
                bits,
            );
        })
    }

    /// Whether a bit is set, by `find` if that was not called with this `searched` before.
    fn find(
        &self,
        field: u32,
        searched: u32,
        bit: u32,
        find: impl FnOnce(&[u8], &[Cell<u64>]),
    ) -> i32 {
        let Some(text) = self.field(field) else {
            return -ENOENT;
        };
        let bits = self.needles();
        let is_set = |bit: u32| {
            let word = bits.get(number(bit / u64::BITS))?;
            Some(word.get() & (1 << (bit % u64::BITS)) != 0)
        };
        let (Some(was_searched), Some(_)) = (is_set(searched), is_set(bit)) else {
            return -EINVAL;
        };
        if !was_searched {
            find(text, bits);
            if let Some(word) = bits.get(number(searched / u64::BITS)) {
                word.set(word.get() | (1 << (searched % u64::BITS)));
            }
        }
        i32::from(is_set(bit) == Some(true))
    }
}

impl Few {
    fn look(&mut self, head: &Head, kind: Kind) {
        if !self.looked {
            self.looked = true;
            self.wanted.look(&head.bytes, &head.head, kind);
        }
    }
}

impl Names {
    fn new(kinds: u32, needles: u32) -> Names {
        let few = |kind: u32| {
            let few = || Few {
                wanted: Wanted::new(KEY),
                looked: false,
            };
            (kinds & kind != 0).then(|| RefCell::new(few()))
        };
        Names {
            query: few(XLB_NAMED_QUERY),
            cookies: few(XLB_NAMED_COOKIE),
            needles: vec![Cell::new(0); number(needles.div_ceil(u64::BITS))],
        }
    }
}

impl Table {
    fn new(kinds: u32, of: &Head) -> Table {
        let Head { bytes, head, .. } = of;
        let mut table = Table {
            kinds,
            headers: Vec::new(),
            joined: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
        };
        if kinds & XLB_NAMED_HEADER != 0 {
            table.headers = vec![Entry::FREE; number(head.field_count)];
            let mut headers = Headers::new(&mut table.headers, KEY);
            table.joined = vec![0; headers.fill(bytes, head)];
            headers.join(bytes, head, &mut table.joined);
        }
        let slots = |kind| {
            let mut slots = vec![Slot::FREE; parts::bound(bytes, head, kind)];
            parts::fill(&mut slots, KEY, bytes, head, kind);
            slots
        };
        if kinds & XLB_NAMED_QUERY != 0 {
            table.query = slots(Kind::Query);
        }
        if kinds & XLB_NAMED_COOKIE != 0 {
            table.cookies = slots(Kind::Cookie);
        }
        table
    }

    fn bytes<'a>(&'a self, of: &'a Head) -> Bytes<'a> {
        Bytes {
            head: &of.bytes,
            joined: &self.joined,
        }
    }

    /// The number of the part of a kind with a name.
    fn find(&self, of: &Head, kind: u32, name: &[u8]) -> Option<usize> {
        match kind {
            XLB_NAMED_HEADER => headers::find(&self.headers, KEY, self.bytes(of), name),
            XLB_NAMED_QUERY => parts::find(&self.query, KEY, &of.bytes, name),
            _ => parts::find(&self.cookies, KEY, &of.bytes, name),
        }
    }

    /// The value of the part with that number.
    fn value<'a>(&'a self, of: &'a Head, kind: u32, nth: usize) -> Option<&'a [u8]> {
        let part = match kind {
            XLB_NAMED_HEADER => return headers::value(&self.headers, self.bytes(of), nth),
            XLB_NAMED_QUERY => parts::part(&self.query, nth),
            _ => parts::part(&self.cookies, nth),
        };
        Some(parts::value_of(&of.bytes, part?))
    }
}

/// Those of an expression, in a blob. The tables have as many entries as the expression says.
struct Expressions<'a> {
    array: &'a Array,
    regex: &'a xlb_regex,
}

impl Expressions<'_> {
    /// Entry `n` of a table of entries that so many of are in a word.
    fn part(&self, page: u32, n: u64, in_word: u64) -> u32 {
        let bits = u64::from(u32::BITS) / in_word;
        let word = self.array.word(page, n / in_word).expect("in the map");
        let part = (u64::from(word) >> (n % in_word * bits)) & ((1 << bits) - 1);
        u32::try_from(part).expect("less than a word")
    }
}

impl regex::Automaton for Expressions<'_> {
    fn class(&self, byte: u8) -> u32 {
        self.part(self.regex.class_page, byte.into(), 4)
    }
    fn next(&self, state: u32, class: u32) -> Option<u32> {
        let at = state * u32::from(self.regex.stride) + class;
        (at < self.regex.state_count).then(|| self.part(self.regex.state_page, at.into(), 2))
    }
    fn end(&self) -> u32 {
        u32::from(self.regex.stride) - 1
    }
    fn matched(&self, place: u32) -> Option<u32> {
        let is_there = place < self.regex.match_count;
        is_there.then(|| self.part(self.regex.match_page, place.into(), 1))
    }
}

/// Those of a needle, in a blob. The tables have as many records as the needle says.
struct Automata<'a> {
    array: &'a Array,
    needle: &'a xlb_needle,
}

impl Automata<'_> {
    fn word(&self, state: u32, n: u64) -> u32 {
        let words = size_of::<xlb_search_state>() / size_of::<u32>();
        let at = u64::from(state) * words as u64 + n;
        let word = self.array.word(self.needle.state_page, at);
        word.expect("a state that is there")
    }
}

impl search::Automata for Automata<'_> {
    /// The place itself.
    type State = u32;
    type Row = u32;

    fn state(&self, place: u32) -> Option<u32> {
        (place < self.needle.state_count).then_some(place)
    }
    fn row(&self, place: u32) -> Option<u32> {
        self.state(place.checked_add(u32::from(u8::MAX))?)?;
        Some(place)
    }
    fn in_row(&self, row: u32, byte: u8) -> u32 {
        row + u32::from(byte)
    }
    fn base(&self, state: u32) -> u32 {
        self.word(state, 0)
    }
    fn check(&self, state: u32) -> u32 {
        self.word(state, 1)
    }
    fn fail(&self, state: u32) -> u32 {
        self.word(state, 2)
    }
    fn needle(&self, state: u32) -> u32 {
        self.word(state, 3)
    }
    fn shorter(&self, needle: u32) -> u32 {
        if needle >= self.needle.shorter_count {
            return 0;
        }
        let shorter = self.array.word(self.needle.shorter_page, needle.into());
        shorter.unwrap_or(0)
    }
}
