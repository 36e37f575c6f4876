// SPDX-License-Identifier: GPL-2.0

//! What the BPF policy may know about a request.
//!
//! BPF never sees the bytes of a head: it names a field and gets hashes, offsets and comparisons.
//! A [`View`] of the held head is made for the time of one call of the policy. Of its named parts there is
//! either a [`Table`] of all, when routes ask for many, or [`Names`], those of the few that the policy has given before it asks
//! for one. Both need memory, and the policy runs under RCU and must not sleep: so it ends, the memory is made, and it is
//! called again. For the next requests of the connection it is there from the beginning.

use core::cell::{Cell, UnsafeCell};

use kernel::alloc::flags::{GFP_KERNEL_ACCOUNT, __GFP_ZERO};
use kernel::prelude::*;
use xlb_engine::headers::{self, Bytes, Entry, Headers};
use xlb_engine::parts::{self, Kind, NotLookedFor, Slot, Wanted};
use xlb_engine::{RequestHead, Span};

use super::Request;
use crate::sys;

/// The request during a call of the policy.
///
/// # Invariants
///
/// Outside of such a call all pointers are null and there is no table; in it what they point at stays.
pub(super) struct View {
    /// The bytes that `head` has its spans in.
    bytes: *const [u8],
    head: *const RequestHead,
    /// Normalised, without query.
    path: *const [u8],
    /// Lower case, without port.
    host: *const [u8],
    table: Option<KBox<Table>>,
    names: Option<KBox<Names>>,
    /// The part that was found last without a table.
    found: Cell<Span>,
    /// Kinds of named parts (`XLB_NAMED_*`) that were asked for: a table of all in the lower half, room for names in the
    /// upper. What one request on a connection needs, the next one most likely needs too: it stays.
    pub(super) wanted: Cell<u32>,
    /// Of this kind too: as many bits for needles.
    pub(super) wanted_needles: Cell<u32>,
}

/// In [`View::wanted`].
const ROOM_SHIFT: u32 = 16;

/// What the policy has said before that it will ask for.
struct Names {
    query: Option<KBox<Few>>,
    cookies: Option<KBox<Few>>,
    /// What the searches for many needles at once have found.
    needles: KVVec<Cell<u64>>,
}

/// Those of a kind. Only kfuncs of one call of the policy look at it, one after the other.
struct Few {
    wanted: UnsafeCell<Wanted>,
    /// The head was searched for them, and they do not change any more.
    looked: Cell<bool>,
}

impl Few {
    fn new() -> Result<KBox<Self>> {
        // Zeroed where it lies: moved there from the stack, its 2 KiB would be copied for each request.
        let few = KBox::<Self>::new_uninit(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        // SAFETY: All zero is one without names.
        let mut few = unsafe { few.assume_init() };
        few.wanted.get_mut().set_key(draw_key());
        Ok(few)
    }

    /// Adds a name, before the search.
    pub(super) fn want(&self, name: &[u8]) {
        // After it, a new name is one of another configuration: it is searched for by itself.
        if !self.looked.get() {
            // SAFETY: Nobody else looks at it, see above, and references are given out after the search only.
            unsafe { &mut *self.wanted.get() }.want(name);
        }
    }

    /// What the search has found, which is made if it was not yet.
    fn found(&self, head: &[u8], request: &RequestHead, kind: Kind) -> &Wanted {
        if !self.looked.replace(true) {
            // SAFETY: As in `want`.
            unsafe { &mut *self.wanted.get() }.look(head, request, kind);
        }
        // SAFETY: It does not change any more.
        unsafe { &*self.wanted.get() }
    }
}

impl Names {
    fn new(kinds: u32, needles: u32) -> Result<Self> {
        let few = |kind: u32| match kinds & kind {
            0 => Ok(None),
            _ => Few::new().map(Some),
        };
        Ok(Self {
            query: few(sys::XLB_NAMED_QUERY)?,
            cookies: few(sys::XLB_NAMED_COOKIE)?,
            needles: KVVec::from_elem(
                Cell::new(0),
                needles.div_ceil(u64::BITS) as usize,
                GFP_KERNEL_ACCOUNT,
            )?,
        })
    }

    fn of(&self, kind: u32) -> Option<&Few> {
        match kind {
            sys::XLB_NAMED_QUERY => self.query.as_deref(),
            sys::XLB_NAMED_COOKIE => self.cookies.as_deref(),
            _ => None,
        }
    }
}

/// As the engine has it; of a kind that has no order of its own in a head.
fn kind_of(kind: u32) -> Option<Kind> {
    match kind {
        sys::XLB_NAMED_QUERY => Some(Kind::Query),
        sys::XLB_NAMED_COOKIE => Some(Kind::Cookie),
        _ => None,
    }
}

fn draw_key() -> [u64; 2] {
    // SAFETY: Only draws numbers.
    unsafe { [sys::xlb_random_u64(), sys::xlb_random_u64() | 1] }
}

/// The named parts of a request, of the kinds that were asked for.
struct Table {
    kinds: u32,
    key: [u64; 2],
    headers: KVVec<Entry>,
    /// Values of repeated header fields.
    joined: KVVec<u8>,
    query: KVVec<Slot>,
    cookies: KVVec<Slot>,
}

/// What a field number of a named part has above the part's own: one bit says of which kind it is.
const PART_BITS: u32 = 24;
/// In a part's own number: it is where the part begins, which was searched for by itself. Heads are smaller.
const SOUGHT: usize = 1 << 23;

pub(super) const ALL_KINDS: u32 =
    sys::XLB_NAMED_HEADER | sys::XLB_NAMED_QUERY | sys::XLB_NAMED_COOKIE;

const NOTHING: *const [u8] = core::ptr::slice_from_raw_parts(core::ptr::null(), 0);

impl View {
    /// No request.
    pub(super) const fn empty() -> Self {
        View {
            bytes: NOTHING,
            head: core::ptr::null(),
            path: NOTHING,
            host: NOTHING,
            table: None,
            names: None,
            found: Cell::new(Span::EMPTY),
            wanted: Cell::new(0),
            wanted_needles: Cell::new(0),
        }
    }

    /// Begins a call of the policy. What is given must stay until [`View::hide`].
    pub(super) fn show(&mut self, request: &Request<'_>) {
        self.bytes = request.bytes;
        self.head = request.head;
        self.path = request.path;
        self.host = request.host;
        self.table = None;
        self.names = None;
    }

    /// Ends it.
    pub(super) fn hide(&mut self) {
        self.bytes = NOTHING;
        self.head = core::ptr::null();
        self.path = NOTHING;
        self.host = NOTHING;
        self.table = None;
        self.names = None;
        self.found.set(Span::EMPTY);
    }

    fn head(&self) -> &RequestHead {
        // SAFETY: By the invariant of `View`.
        unsafe { self.head.as_ref() }.unwrap_or(&RequestHead::EMPTY)
    }

    /// The policy has asked for parts that the table lacks, or for room.
    pub(super) fn is_lacking(&self) -> bool {
        let wanted = self.wanted.get();
        !self.has(wanted)
            || !self.has_room(wanted >> ROOM_SHIFT)
            || !self.has_needles(self.wanted_needles.get())
    }

    /// Whether there is room for as many bits of needles.
    pub(super) fn has_needles(&self, count: u32) -> bool {
        count as usize <= self.needle_bits().len() * u64::BITS as usize
    }

    /// Before each call of the policy: another configuration has other needles.
    pub(super) fn forget_needles(&self) {
        self.needle_bits().iter().for_each(|word| word.set(0));
    }

    /// Whether the bit is set; `None` without room for it.
    pub(super) fn has_needle(&self, bit: u32) -> Option<bool> {
        let word = self.needle_bits().get((bit / u64::BITS) as usize)?;
        Some(word.get() & (1 << (bit % u64::BITS)) != 0)
    }

    pub(super) fn set_needle(&self, bit: u32) {
        if let Some(word) = self.needle_bits().get((bit / u64::BITS) as usize) {
            word.set(word.get() | 1 << (bit % u64::BITS));
        }
    }

    pub(super) fn needle_bits(&self) -> &[Cell<u64>] {
        self.names
            .as_ref()
            .map_or(&[], |names| names.needles.as_slice())
    }

    /// Whether there is a table of all parts of these kinds.
    pub(super) fn has(&self, kinds: u32) -> bool {
        let made = self.table.as_ref().map_or(0, |t| t.kinds);
        kinds & ALL_KINDS & !made == 0
    }

    /// Whether there is room for names of these kinds.
    fn has_room(&self, kinds: u32) -> bool {
        let has = |kind: u32| kinds & kind == 0 || self.few(kind).is_some();
        has(sys::XLB_NAMED_QUERY) && has(sys::XLB_NAMED_COOKIE)
    }

    fn few(&self, kind: u32) -> Option<&Few> {
        self.names.as_ref()?.of(kind)
    }

    /// Makes the table of all that was asked for, and room. May sleep. Its memory, which is at most some 9
    /// times the head's, is charged to the caller's cgroup and goes when the policy has decided.
    pub(super) fn make_table(&mut self) -> Result {
        let wanted = self.wanted.get();
        if !self.has(wanted) {
            self.table = None;
            // SAFETY: By the invariant of `View`.
            let head = unsafe { slice(self.bytes) };
            let table = Table::new(wanted & ALL_KINDS, head, self.head())?;
            self.table = Some(KBox::new(table, GFP_KERNEL_ACCOUNT)?);
        }
        let bits = self.wanted_needles.get();
        if !self.has_room(wanted >> ROOM_SHIFT) || !self.has_needles(bits) {
            self.names = None;
            let names = Names::new(wanted >> ROOM_SHIFT, bits)?;
            self.names = Some(KBox::new(names, GFP_KERNEL_ACCOUNT)?);
        }
        Ok(())
    }

    /// `-errno`, or 0 when the name is or was among those that will be asked for.
    pub(super) fn want(&self, kind: u32, name: &[u8]) -> i32 {
        if kind_of(kind).is_none() {
            return -(kernel::bindings::EINVAL as i32);
        }
        match self.few(kind) {
            Some(few) => {
                few.want(name);
                0
            }
            None => {
                self.wanted.set(self.wanted.get() | kind << ROOM_SHIFT);
                -(kernel::bindings::EAGAIN as i32)
            }
        }
    }

    pub(super) fn field(&self, field: u32) -> Option<&[u8]> {
        // SAFETY: By the invariant of `View`.
        let (bytes, path, host) =
            unsafe { (slice(self.bytes), slice(self.path), slice(self.host)) };
        Some(match field {
            sys::XLB_FIELD_METHOD => self.head().method_span.get(bytes),
            sys::XLB_FIELD_HOST => host,
            // Who compares it does so without case.
            sys::XLB_FIELD_PATH | sys::XLB_FIELD_PATH_LOWER => path,
            sys::XLB_FIELD_QUERY => self.head().query.get(bytes),
            n => {
                let part = n.checked_sub(sys::XLB_FIELD_NAMED)?;
                self.value(bytes, part)?
            }
        })
    }

    pub(super) fn named(&self, kind: u32, name: &[u8]) -> Option<u32> {
        // SAFETY: By the invariant of `View`.
        let head = unsafe { slice(self.bytes) };
        let nth = match (self.table(kind), kind_of(kind)) {
            (Some(table), _) => table.find(head, kind, name)?,
            (None, Some(of)) => match self.looked(head, kind, of, name) {
                Ok(place) => place?,
                Err(NotLookedFor) => {
                    let part = parts::seek(head, self.head(), of, name)?;
                    self.found.set(part);
                    SOUGHT | part.start as usize
                }
            },
            _ => return None,
        };
        Some(sys::XLB_FIELD_NAMED + ((kind << PART_BITS) | u32::try_from(nth).ok()?))
    }

    /// The place of a part among those of the names that were given.
    fn looked(
        &self,
        head: &[u8],
        kind: u32,
        of: Kind,
        name: &[u8],
    ) -> Result<Option<usize>, NotLookedFor> {
        let few = self.few(kind).ok_or(NotLookedFor)?;
        few.found(head, self.head(), of).find(head, name)
    }

    /// The value of the part with a number.
    fn value<'a>(&'a self, head: &'a [u8], part: u32) -> Option<&'a [u8]> {
        let (kind, nth) = (part >> PART_BITS, part & ((1 << PART_BITS) - 1));
        match self.table(kind) {
            Some(table) => table.value(head, kind, nth as usize),
            None if nth as usize & SOUGHT != 0 => {
                let start = nth & !(SOUGHT as u32);
                let found = Some(self.found.get()).filter(|part| part.start == start)?;
                Some(parts::value_of(head, found))
            }
            None => {
                let found = self.few(kind)?.found(head, self.head(), kind_of(kind)?);
                Some(parts::value_of(head, found.part(nth as usize)?))
            }
        }
    }

    /// The table, if it has parts of this kind.
    fn table(&self, kind: u32) -> Option<&Table> {
        self.table
            .as_deref()
            .filter(|table| table.kinds & kind != 0)
    }
}

impl Table {
    fn new(kinds: u32, head: &[u8], request: &RequestHead) -> Result<Self> {
        let key = draw_key();
        let mut table = Table {
            kinds,
            key,
            headers: KVVec::new(),
            joined: KVVec::new(),
            query: KVVec::new(),
            cookies: KVVec::new(),
        };
        if kinds & sys::XLB_NAMED_HEADER != 0 {
            let count = request.field_count as usize;
            table.headers = KVVec::from_elem(Entry::FREE, count, GFP_KERNEL_ACCOUNT)?;
            let mut headers = Headers::new(&mut table.headers, key);
            let joined = headers.fill(head, request);
            // from_elem() would write byte by byte.
            table.joined = KVVec::with_capacity(joined, GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
            // SAFETY: There is room for as many bytes, and they are zero.
            unsafe { table.joined.inc_len(joined) };
            headers.join(head, request, &mut table.joined);
        }
        let slots = |kind| -> Result<KVVec<Slot>> {
            let bound = parts::bound(head, request, kind);
            let mut slots = KVVec::from_elem(Slot::FREE, bound, GFP_KERNEL_ACCOUNT)?;
            parts::fill(&mut slots, key, head, request, kind);
            Ok(slots)
        };
        if kinds & sys::XLB_NAMED_QUERY != 0 {
            table.query = slots(Kind::Query)?;
        }
        if kinds & sys::XLB_NAMED_COOKIE != 0 {
            table.cookies = slots(Kind::Cookie)?;
        }
        Ok(table)
    }

    fn bytes<'a>(&'a self, head: &'a [u8]) -> Bytes<'a> {
        Bytes {
            head,
            joined: &self.joined,
        }
    }

    /// The number of the part of a kind with a name.
    fn find(&self, head: &[u8], kind: u32, name: &[u8]) -> Option<usize> {
        let key = self.key;
        match kind {
            sys::XLB_NAMED_HEADER => headers::find(&self.headers, key, self.bytes(head), name),
            sys::XLB_NAMED_QUERY => parts::find(&self.query, key, head, name),
            _ => parts::find(&self.cookies, key, head, name),
        }
    }

    /// The value of the part with that number.
    fn value<'a>(&'a self, head: &'a [u8], kind: u32, nth: usize) -> Option<&'a [u8]> {
        let part = match kind {
            sys::XLB_NAMED_HEADER => {
                return headers::value(&self.headers, self.bytes(head), nth);
            }
            sys::XLB_NAMED_QUERY => parts::part(&self.query, nth),
            _ => parts::part(&self.cookies, nth),
        };
        Some(parts::value_of(head, part?))
    }
}

/// # Safety
///
/// `p` is null or valid for `'a`.
unsafe fn slice<'a>(p: *const [u8]) -> &'a [u8] {
    if p.is_null() {
        return &[];
    }
    // SAFETY: By the function's contract.
    unsafe { &*p }
}
