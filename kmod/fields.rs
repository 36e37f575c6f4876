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
use xlb_engine::named::{self, Bytes, Entry, Kind, Named};
use xlb_engine::{search, RequestHead};

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
    /// Kinds of named parts (`XLB_NAMED_*`) that were asked for. What one request on a connection
    /// needs, the next one most likely needs too: it stays.
    wanted: Cell<u32>,
}

/// The named parts of a request, of some kinds.
struct Table {
    kinds: u32,
    key: [u64; 2],
    entries: KVVec<Entry>,
    /// Values of repeated header fields.
    joined: KVVec<u8>,
}

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

    /// Makes the table of all that was asked for. May sleep. Its memory, which is at most some 14
    /// times the head's, is charged to the caller's cgroup and goes when the policy has decided.
    pub(crate) fn make_table(&mut self) -> Result {
        self.table = None;
        let head = self.head();
        // SAFETY: By the invariant of `View`.
        let bytes = unsafe { slice(self.bytes) };
        let kinds = self.wanted.get();
        let (query, cookies) = (
            kinds & sys::XLB_NAMED_QUERY != 0,
            kinds & sys::XLB_NAMED_COOKIE != 0,
        );
        // SAFETY: Only draws numbers.
        let key = unsafe { [sys::xlb_random_u64(), sys::xlb_random_u64() | 1] };
        let bound = named::bound(bytes, head, query, cookies);
        let mut entries = KVVec::from_elem(Entry::FREE, bound, GFP_KERNEL_ACCOUNT)?;
        let mut named = Named::new(&mut entries, key);
        let joined = named.headers(bytes, head);
        let mut joined = KVVec::from_elem(0, joined, GFP_KERNEL_ACCOUNT)?;
        named.join(bytes, head, &mut joined);
        if query {
            named.query(bytes, head);
        }
        if cookies {
            named.cookies(Bytes {
                head: bytes,
                joined: &joined,
            });
        }
        let table = Table {
            kinds: kinds | sys::XLB_NAMED_HEADER,
            key,
            entries,
            joined,
        };
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
                let nth = n.checked_sub(sys::XLB_FIELD_NAMED)? as usize;
                let table = self.table.as_ref()?;
                named::value(&table.entries, table.bytes(bytes), nth)?
            }
        })
    }

    fn named(&self, kind: Kind, name: &[u8]) -> Option<u32> {
        let table = self.table.as_ref()?;
        // SAFETY: By the invariant of `View`.
        let bytes = table.bytes(unsafe { slice(self.bytes) });
        let nth = named::find(&table.entries, table.key, bytes, kind, name)?;
        sys::XLB_FIELD_NAMED.checked_add(u32::try_from(nth).ok()?)
    }
}

impl Table {
    fn bytes<'a>(&'a self, head: &'a [u8]) -> Bytes<'a> {
        Bytes {
            head,
            joined: &self.joined,
        }
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
    let kind = match kind {
        sys::XLB_NAMED_HEADER => Kind::Header,
        sys::XLB_NAMED_QUERY => Kind::Query,
        sys::XLB_NAMED_COOKIE => Kind::Cookie,
        _ => return NOT_FOUND,
    };
    match view.named(kind, name) {
        Some(field) => i32::try_from(field).unwrap_or(NOT_FOUND),
        None => NOT_FOUND,
    }
}

/// `-ENOENT`
const NOT_FOUND: i32 = -(kernel::bindings::ENOENT as i32);
