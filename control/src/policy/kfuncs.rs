// SPDX-License-Identifier: GPL-2.0
//! What the programs call: the map lookup, random numbers, and the kfuncs of `xlb_intf.h` with the checks that the
//! module's shim makes (`kmod/shim/policy.c`). The kfuncs' answers are [`View`]'s.

use std::ffi::c_void;
use std::slice;

use xlb_engine::hash::{fnv1a, fnv1a_lower};
use xlb_engine::{number, search};

use super::maps;
use super::{Asked, View};
use crate::intf::*;

const ENOENT: i32 = nix::libc::ENOENT;
const EINVAL: i32 = nix::libc::EINVAL;

/// # Safety
///
/// Called by a program; `key` is one of 32 bits.
#[no_mangle]
unsafe extern "C" fn xlb_user_lookup(map: *const c_void, key: *const u32) -> *mut c_void {
    // SAFETY: by the function's contract.
    unsafe { maps::current().lookup(map, *key) }
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn xlb_user_draw() -> u32 {
    // SAFETY: by the function's contract.
    unsafe { maps::current() }.draw()
}

/// # Safety
///
/// `ex` is the argument of a program, during its call.
unsafe fn view<'a>(ex: *const xlb_exchange) -> &'a View<'a> {
    // SAFETY: by the invariant of `Asked`, and by what `Policy` calls the programs with; nobody writes to the view during a call.
    unsafe { &(*ex.cast::<Asked<'a>>()).view }
}

/// The bytes that `off_len`, an XLB_OFF_LEN(), names in a buffer.
///
/// # Safety
///
/// `buf` is valid for `size` bytes.
unsafe fn part<'a>(buf: *const u8, size: u32, off_len: u64) -> Option<&'a [u8]> {
    // SAFETY: by the function's contract.
    let buf = unsafe { slice::from_raw_parts(buf, size as usize) };
    let (off, len) = halves(off_len);
    buf.get(off as usize..)?.get(..len as usize)
}

fn halves(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, (pair & u64::from(u32::MAX)) as u32)
}

fn found(value: Option<usize>) -> i32 {
    value
        .and_then(|value| i32::try_from(value).ok())
        .unwrap_or(-ENOENT)
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_hash(ex: *const xlb_exchange, n: u32, from: u32, to: u32) -> u64 {
    // SAFETY: by the function's contract.
    let field = unsafe { view(ex) }.field(n);
    let hash = match n {
        XLB_FIELD_PATH_LOWER => fnv1a_lower,
        _ => fnv1a,
    };
    field
        .and_then(|field| field.get(from as usize..to as usize))
        .map_or(0, hash)
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_find(ex: *const xlb_exchange, n: u32, from: u32, byte: u32) -> i32 {
    // SAFETY: by the function's contract.
    let field = unsafe { view(ex) }.field(n);
    let rest = field.and_then(|field| field.get(from as usize..));
    let at = rest.and_then(|rest| rest.iter().position(|b| u32::from(*b) == byte));
    found(at.map(|at| at + from as usize))
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_len(ex: *const xlb_exchange, n: u32) -> i32 {
    // SAFETY: by the function's contract.
    found(unsafe { view(ex) }.field(n).map(<[u8]>::len))
}

/// What `how` says of a field from an offset on and of a part of `buf`; false without such a field or part.
///
/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
unsafe fn compare(
    ex: *const xlb_exchange,
    field_from: u64,
    buf: *const u8,
    size: u32,
    off_len: u64,
    how: impl FnOnce(&[u8], &[u8]) -> bool,
) -> i32 {
    let (n, from) = halves(field_from);
    // SAFETY: by the function's contract.
    let (field, with) = unsafe { (view(ex).field(n), part(buf, size, off_len)) };
    let rest = field.and_then(|field| field.get(from as usize..));
    i32::from(rest.zip(with).is_some_and(|(rest, with)| how(rest, with)))
}

/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_equal(
    ex: *const xlb_exchange,
    field_from: u64,
    buf: *const u8,
    size: u32,
    off_len: u64,
) -> i32 {
    let how = match halves(field_from).0 {
        XLB_FIELD_PATH_LOWER => search::starts_with_lower,
        _ => <[u8]>::starts_with,
    };
    // SAFETY: by the function's contract.
    unsafe { compare(ex, field_from, buf, size, off_len, how) }
}

/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_contains(
    ex: *const xlb_exchange,
    field_from: u64,
    buf: *const u8,
    size: u32,
    off_len: u64,
) -> i32 {
    // SAFETY: by the function's contract.
    unsafe { compare(ex, field_from, buf, size, off_len, search::contains) }
}

/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_in_range(
    ex: *const xlb_exchange,
    field: u32,
    buf: *const u8,
    size: u32,
    off_len: u64,
) -> i32 {
    let whole = u64::from(field) << 32;
    // SAFETY: by the function's contract.
    unsafe { compare(ex, whole, buf, size, off_len, number::is_in) }
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_needles(ex: *const xlb_exchange, count: u32) -> i32 {
    // SAFETY: by the function's contract.
    unsafe { view(ex) }.need_needles(count)
}

/// # Safety
///
/// Called by a program; `regex` is valid.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_match(
    ex: *const xlb_exchange,
    n: u32,
    pages: *const c_void,
    regex: *const xlb_regex,
) -> i32 {
    // SAFETY: by the function's contract.
    let (view, array, regex) = unsafe { (view(ex), maps::current().array(pages), *regex) };
    let states = 2 * u64::from(regex.state_count);
    let matches = 4 * u64::from(regex.match_count);
    if !array.has(regex.class_page, 256)
        || !array.has(regex.state_page, states)
        || !array.has(regex.match_page, matches)
    {
        return -EINVAL;
    }
    view.matches(n, array, &regex)
}

/// # Safety
///
/// Called by a program; `needle` is valid.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_search(
    ex: *const xlb_exchange,
    n: u32,
    pages: *const c_void,
    needle: *const xlb_needle,
) -> i32 {
    // SAFETY: by the function's contract.
    let (view, array, needle) = unsafe { (view(ex), maps::current().array(pages), *needle) };
    let bytes = |count: u32, of: usize| u64::from(count) * of as u64;
    let states = bytes(needle.state_count, size_of::<xlb_search_state>());
    let shorter = bytes(needle.shorter_count, size_of::<u32>());
    if !array.has(needle.state_page, states) || !array.has(needle.shorter_page, shorter) {
        return -EINVAL;
    }
    view.search(n, array, &needle)
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_act(
    _ex: *const xlb_exchange,
    pages: *const c_void,
    first: u32,
    count: u32,
    bytes: u32,
) -> i32 {
    // SAFETY: by the function's contract.
    let array = unsafe { maps::current().array(pages) };
    let is_short = (bytes as usize) < size_of::<xlb_action>();
    let end = (u64::from(first) + u64::from(count)) * u64::from(bytes);
    if count > XLB_MAX_ACTIONS || is_short || !array.has(0, end) {
        return -EINVAL;
    }
    0
}

/// # Safety
///
/// Called by a program.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_fields(ex: *const xlb_exchange, kinds: u32) -> i32 {
    // SAFETY: by the function's contract.
    unsafe { view(ex) }.need_all(kinds)
}

/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_want(
    ex: *const xlb_exchange,
    kind: u32,
    buf: *const u8,
    size: u32,
    off_len: u64,
) -> i32 {
    // SAFETY: by the function's contract.
    match unsafe { (view(ex), part(buf, size, off_len)) } {
        (view, Some(name)) => view.want(kind, name),
        (_, None) => -EINVAL,
    }
}

/// # Safety
///
/// Called by a program; `buf` is valid for `size` bytes.
#[no_mangle]
unsafe extern "C" fn bpf_xlb_named(
    ex: *const xlb_exchange,
    kind: u32,
    buf: *const u8,
    size: u32,
    off_len: u64,
) -> i32 {
    // SAFETY: by the function's contract.
    let (view, name) = unsafe { (view(ex), part(buf, size, off_len)) };
    found(name.and_then(|name| view.named(kind, name)))
}
