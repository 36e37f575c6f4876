// SPDX-License-Identifier: GPL-2.0

//! What the BPF policy may ask about a request: the bodies of the kfuncs of `xlb_intf.h`.
//!
//! BPF never sees the bytes of a head: it names a field and gets hashes, offsets and comparisons.
//! A [`View`] of the held head is made for the time of one call of the policy.

use xlb_engine::{hash::Fnv1a, Fields, RequestHead};

use crate::psock::Psock;
use crate::sys;

/// The request during a call of the policy.
///
/// # Invariants
///
/// Outside of such a call all slices are empty; in it they outlive the call.
pub(crate) struct View {
    /// The bytes that `head` has its spans in.
    pub(crate) bytes: *const [u8],
    pub(crate) head: RequestHead,
    /// Normalised, without query.
    pub(crate) path: *const [u8],
    /// Lower case, without port.
    pub(crate) host: *const [u8],
}

const NOTHING: *const [u8] = core::ptr::slice_from_raw_parts(core::ptr::null(), 0);

impl View {
    /// No request.
    pub(crate) const EMPTY: View = View {
        bytes: NOTHING,
        head: RequestHead::EMPTY,
        path: NOTHING,
        host: NOTHING,
    };
}

/// A field of a request: one piece, or the values of repeated headers joined with `,`.
enum Field<'a> {
    Piece(&'a [u8]),
    Header {
        bytes: &'a [u8],
        head: &'a RequestHead,
        name: &'a [u8],
    },
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
unsafe fn field<'a>(req: *const sys::xlb_request, field: u32) -> Option<Field<'a>> {
    // SAFETY: By the function's contract.
    let view = unsafe { &*Psock::of_request(req).view.get() };
    // SAFETY: By the invariant of `View`.
    let (bytes, path, host) = unsafe { (slice(view.bytes), slice(view.path), slice(view.host)) };
    Some(match field {
        sys::XLB_FIELD_METHOD => Field::Piece(view.head.method_span.get(bytes)),
        sys::XLB_FIELD_HOST => Field::Piece(host),
        sys::XLB_FIELD_PATH => Field::Piece(path),
        sys::XLB_FIELD_QUERY => Field::Piece(view.head.query.get(bytes)),
        n => {
            let nth = n.checked_sub(sys::XLB_FIELD_HEADER)? as usize;
            let (name, _) = Fields::of(bytes, &view.head).nth(nth)?;
            Field::Header {
                bytes,
                head: &view.head,
                name,
            }
        }
    })
}

impl<'a> Field<'a> {
    /// The bytes in order. Joined values come piece by piece, with `,` between.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        const EMPTY: &[u8] = &[];
        let (piece, fields, name) = match self {
            Field::Piece(p) => (Some(*p), Fields::of(EMPTY, &View::EMPTY.head), EMPTY),
            Field::Header { bytes, head, name } => (None, Fields::of(bytes, head), *name),
        };
        let values = fields
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .enumerate()
            .flat_map(|(i, (_, value))| [if i == 0 { EMPTY } else { b"," }, value]);
        piece.into_iter().chain(values)
    }

    fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    fn equals(&self, from: usize, mut with: &[u8]) -> bool {
        let mut skip = from;
        for piece in self.pieces() {
            let Some(piece) = piece.get(skip..) else {
                skip -= piece.len();
                continue;
            };
            skip = 0;
            let n = piece.len().min(with.len());
            if piece.get(..n) != with.get(..n) {
                return false;
            }
            with = with.get(n..).unwrap_or(&[]);
        }
        with.is_empty() && skip == 0
    }
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
    let Some(field) = (unsafe { field(req, n) }) else {
        return 0;
    };
    let (mut from, to) = (from as usize, to as usize);
    if from > to || to > field.len() {
        return 0;
    }
    let mut left = to - from;
    let mut hash = Fnv1a::new();
    for piece in field.pieces() {
        let Some(piece) = piece.get(from..) else {
            from -= piece.len();
            continue;
        };
        from = 0;
        let n = piece.len().min(left);
        hash = hash.update(piece.get(..n).unwrap_or(&[]));
        left -= n;
    }
    hash.finish()
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
    let Some(field) = (unsafe { field(req, n) }) else {
        return NOT_FOUND;
    };
    let from = from as usize;
    let mut start = 0usize;
    for piece in field.pieces() {
        let skip = from.saturating_sub(start);
        if let Some(rest) = piece.get(skip..) {
            if let Some(at) = rest.iter().position(|b| u32::from(*b) == byte) {
                return i32::try_from(start + skip + at).unwrap_or(NOT_FOUND);
            }
        }
        start += piece.len();
    }
    NOT_FOUND
}

/// # Safety
///
/// Called by `bpf_xlb_len()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_len(req: *const sys::xlb_request, n: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    match unsafe { field(req, n) } {
        Some(field) => i32::try_from(field.len()).unwrap_or(i32::MAX),
        None => NOT_FOUND,
    }
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
    // SAFETY: As in `xlb_field_hash`.
    let Some(field) = (unsafe { field(req, n) }) else {
        return 0;
    };
    // SAFETY: By the function's contract.
    let with = unsafe { core::slice::from_raw_parts(buf, len as usize) };
    i32::from(field.equals(from as usize, with))
}

/// # Safety
///
/// Called by `bpf_xlb_header()`; `name` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_header(
    req: *const sys::xlb_request,
    name: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { &*Psock::of_request(req).view.get() };
    // SAFETY: By the function's contract, and the invariant of `View`.
    let (name, bytes) = unsafe {
        (
            core::slice::from_raw_parts(name, len as usize),
            slice(view.bytes),
        )
    };
    match Fields::of(bytes, &view.head).position(|(n, _)| n.eq_ignore_ascii_case(name)) {
        Some(nth) => i32::try_from(nth + sys::XLB_FIELD_HEADER as usize).unwrap_or(NOT_FOUND),
        None => NOT_FOUND,
    }
}

/// `-ENOENT`
const NOT_FOUND: i32 = -(kernel::bindings::ENOENT as i32);
