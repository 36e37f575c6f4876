// SPDX-License-Identifier: GPL-2.0

//! What the BPF policy may ask about a request: the bodies of the kfuncs of `xlb_intf.h`.
//!
//! BPF never sees the bytes of a head: it names a field and gets hashes, offsets and comparisons.
//! A [`View`] of the held head is made for the time of one call of the policy, and a [`Table`] of
//! its named parts when the policy says that routes ask for some: the policy runs under RCU and
//! must not sleep, so it ends, the table is made, and it is called again.

use core::cell::Cell;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use xlb_engine::hash::fnv1a;
use xlb_engine::headers::{self, Bytes, Entry, Headers};
use xlb_engine::parts::{self, Kind, Slot};
use xlb_engine::{search, RequestHead, Span};

use crate::psock::Psock;
use crate::sys;

/// The request during a call of the policy.
///
/// # Invariants
///
/// Outside of such a call all pointers are null and there is no table; in it what they point at stays.
pub(crate) struct View {
    /// The bytes that `head` has its spans in.
    bytes: *const [u8],
    head: *const RequestHead,
    /// Normalised, without query.
    path: *const [u8],
    /// Lower case, without port.
    host: *const [u8],
    table: Option<KBox<Table>>,
    /// The part that was found last without a table.
    found: Cell<Span>,
    /// Kinds of named parts (`XLB_NAMED_*`) that were asked for. What one request on a connection
    /// needs, the next one most likely needs too: it stays.
    wanted: Cell<u32>,
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

const NOTHING: *const [u8] = core::ptr::slice_from_raw_parts(core::ptr::null(), 0);

impl View {
    /// No request.
    pub(crate) const fn empty() -> Self {
        View {
            bytes: NOTHING,
            head: core::ptr::null(),
            path: NOTHING,
            host: NOTHING,
            table: None,
            found: Cell::new(Span::EMPTY),
            wanted: Cell::new(0),
        }
    }

    /// Begins a call of the policy. What is given must stay until [`View::hide`].
    pub(crate) fn show(&mut self, bytes: &[u8], head: &RequestHead, path: &[u8], host: &[u8]) {
        self.bytes = bytes;
        self.head = head;
        self.path = path;
        self.host = host;
        self.table = None;
    }

    /// Ends it.
    pub(crate) fn hide(&mut self) {
        self.bytes = NOTHING;
        self.head = core::ptr::null();
        self.path = NOTHING;
        self.host = NOTHING;
        self.table = None;
        self.found.set(Span::EMPTY);
    }

    fn head(&self) -> &RequestHead {
        // SAFETY: By the invariant of `View`.
        unsafe { self.head.as_ref() }.unwrap_or(&RequestHead::EMPTY)
    }

    /// The policy has asked for parts that the table lacks.
    pub(crate) fn is_lacking(&self) -> bool {
        !self.has(self.wanted.get())
    }

    fn has(&self, kinds: u32) -> bool {
        let made = self.table.as_ref().map_or(0, |t| t.kinds);
        kinds & !made == 0
    }

    /// Makes the table of all that was asked for. May sleep. Its memory, which is at most some 9
    /// times the head's, is charged to the caller's cgroup and goes when the policy has decided.
    pub(crate) fn make_table(&mut self) -> Result {
        self.table = None;
        // SAFETY: By the invariant of `View`.
        let head = unsafe { slice(self.bytes) };
        let table = Table::new(self.wanted.get(), head, self.head())?;
        self.table = Some(KBox::new(table, GFP_KERNEL_ACCOUNT)?);
        Ok(())
    }

    fn field(&self, field: u32) -> Option<&[u8]> {
        // SAFETY: By the invariant of `View`.
        let (bytes, path, host) =
            unsafe { (slice(self.bytes), slice(self.path), slice(self.host)) };
        Some(match field {
            sys::XLB_FIELD_METHOD => self.head().method_span.get(bytes),
            sys::XLB_FIELD_HOST => host,
            sys::XLB_FIELD_PATH => path,
            sys::XLB_FIELD_QUERY => self.head().query.get(bytes),
            n => {
                let part = n.checked_sub(sys::XLB_FIELD_NAMED)?;
                self.value(bytes, part)?
            }
        })
    }

    fn named(&self, kind: u32, name: &[u8]) -> Option<u32> {
        // SAFETY: By the invariant of `View`.
        let head = unsafe { slice(self.bytes) };
        let nth = match (self.table(kind), kind) {
            (Some(table), _) => table.find(head, kind, name)?,
            (None, sys::XLB_NAMED_QUERY | sys::XLB_NAMED_COOKIE) => {
                let kind = match kind {
                    sys::XLB_NAMED_QUERY => Kind::Query,
                    _ => Kind::Cookie,
                };
                let part = parts::seek(head, self.head(), kind, name)?;
                self.found.set(part);
                part.start as usize
            }
            _ => return None,
        };
        Some(sys::XLB_FIELD_NAMED + ((kind << PART_BITS) | u32::try_from(nth).ok()?))
    }

    /// The value of the part with a number.
    fn value<'a>(&'a self, head: &'a [u8], part: u32) -> Option<&'a [u8]> {
        let (kind, nth) = (part >> PART_BITS, part & ((1 << PART_BITS) - 1));
        match self.table(kind) {
            Some(table) => table.value(head, kind, nth as usize),
            None => {
                let found = Some(self.found.get()).filter(|part| part.start == nth)?;
                Some(parts::value_of(head, found))
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
        // SAFETY: Only draws numbers.
        let key = unsafe { [sys::xlb_random_u64(), sys::xlb_random_u64() | 1] };
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
            table.joined = KVVec::from_elem(0, joined, GFP_KERNEL_ACCOUNT)?;
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

/// # Safety
///
/// `req` is the argument of the policy's program, during its call.
unsafe fn view<'a>(req: *const sys::xlb_request) -> &'a View {
    // SAFETY: By the function's contract; the view is not written during a call.
    unsafe { &*Psock::of_request(req).view.get() }
}

/// # Safety
///
/// Called by `bpf_xlb_hash()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_hash(
    req: *const sys::xlb_request,
    n: u32,
    from: u32,
    to: u32,
) -> u64 {
    // SAFETY: The verifier lets programs pass their own argument only.
    let field = unsafe { view(req) }.field(n);
    field
        .and_then(|f| f.get(from as usize..to as usize))
        .map_or(0, fnv1a)
}

/// # Safety
///
/// Called by `bpf_xlb_find()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_find(
    req: *const sys::xlb_request,
    n: u32,
    from: u32,
    byte: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let field = unsafe { view(req) }.field(n);
    let at = field
        .and_then(|f| f.get(from as usize..))
        .and_then(|rest| rest.iter().position(|b| u32::from(*b) == byte));
    match at {
        Some(at) => i32::try_from(at + from as usize).unwrap_or(NOT_FOUND),
        None => NOT_FOUND,
    }
}

/// # Safety
///
/// Called by `bpf_xlb_len()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_len(req: *const sys::xlb_request, n: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    match unsafe { view(req) }.field(n) {
        Some(field) => i32::try_from(field.len()).unwrap_or(i32::MAX),
        None => NOT_FOUND,
    }
}

/// What `how` says of a field from `from` on and of `buf`; false without such a field.
///
/// # Safety
///
/// `req` is the argument of the policy's program, during its call; `buf` is valid for `len` bytes.
unsafe fn compare(
    req: *const sys::xlb_request,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
    how: impl FnOnce(&[u8], &[u8]) -> bool,
) -> bool {
    // SAFETY: As in `xlb_field_hash`.
    let field = unsafe { view(req) }.field(n);
    // SAFETY: By the function's contract.
    let with = unsafe { core::slice::from_raw_parts(buf, len as usize) };
    let rest = field.and_then(|f| f.get(from as usize..));
    rest.is_some_and(|rest| how(rest, with))
}

/// # Safety
///
/// Called by `bpf_xlb_equal()`; `buf` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_equal(
    req: *const sys::xlb_request,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: By the function's contract.
    i32::from(unsafe { compare(req, n, from, buf, len, <[u8]>::starts_with) })
}

/// # Safety
///
/// Called by `bpf_xlb_contains()`; `buf` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_contains(
    req: *const sys::xlb_request,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: By the function's contract.
    i32::from(unsafe { compare(req, n, from, buf, len, search::contains) })
}

/// # Safety
///
/// Called by `bpf_xlb_fields()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_want(req: *const sys::xlb_request, kinds: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(req) };
    if view.has(kinds) {
        return 0;
    }
    let known = sys::XLB_NAMED_HEADER | sys::XLB_NAMED_QUERY | sys::XLB_NAMED_COOKIE;
    if kinds & !known != 0 {
        return -(kernel::bindings::EINVAL as i32);
    }
    view.wanted.set(view.wanted.get() | kinds);
    -(kernel::bindings::EAGAIN as i32)
}

/// # Safety
///
/// Called by `bpf_xlb_named()`; `name` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_named(
    req: *const sys::xlb_request,
    kind: u32,
    name: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(req) };
    // SAFETY: By the function's contract.
    let name = unsafe { core::slice::from_raw_parts(name, len as usize) };
    match view.named(kind, name) {
        Some(field) => i32::try_from(field).unwrap_or(NOT_FOUND),
        None => NOT_FOUND,
    }
}

/// `-ENOENT`
const NOT_FOUND: i32 = -(kernel::bindings::ENOENT as i32);
