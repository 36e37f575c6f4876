// SPDX-License-Identifier: GPL-2.0

//! The bodies of the kfuncs that a policy may call; `xlb_intf.h` says what each does.
//!
//! They run while the policy is called, in RCU, and answer from the [`View`] of the request that it is called for.

use core::cell::Cell;

use xlb_engine::hash::{fnv1a, fnv1a_lower};
use xlb_engine::{number, regex, search};

use super::view::{View, ALL_KINDS};
use super::{Actions, Question};
use crate::sys;

/// # Safety
///
/// `ex` is the argument of the policy's program, during its call.
unsafe fn view<'a>(ex: *const sys::xlb_exchange) -> &'a View {
    // SAFETY: By the function's contract; the view is not written during a call.
    unsafe { Question::of(ex).view() }
}

/// # Safety
///
/// Called by `bpf_xlb_hash()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_hash(
    ex: *const sys::xlb_exchange,
    n: u32,
    from: u32,
    to: u32,
) -> u64 {
    // SAFETY: The verifier lets programs pass their own argument only.
    let field = unsafe { view(ex) }.field(n);
    let hash = if n == sys::XLB_FIELD_PATH_LOWER {
        fnv1a_lower
    } else {
        fnv1a
    };
    field
        .and_then(|f| f.get(from as usize..to as usize))
        .map_or(0, hash)
}

/// # Safety
///
/// Called by `bpf_xlb_find()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_find(
    ex: *const sys::xlb_exchange,
    n: u32,
    from: u32,
    byte: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let field = unsafe { view(ex) }.field(n);
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
unsafe extern "C" fn xlb_field_len(ex: *const sys::xlb_exchange, n: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    match unsafe { view(ex) }.field(n) {
        Some(field) => i32::try_from(field.len()).unwrap_or(i32::MAX),
        None => NOT_FOUND,
    }
}

/// What `how` says of a field from `from` on and of `buf`; false without such a field.
///
/// # Safety
///
/// `ex` is the argument of the policy's program, during its call; `buf` is valid for `len` bytes.
unsafe fn compare(
    ex: *const sys::xlb_exchange,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
    how: impl FnOnce(&[u8], &[u8]) -> bool,
) -> bool {
    // SAFETY: As in `xlb_field_hash`.
    let field = unsafe { view(ex) }.field(n);
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
    ex: *const sys::xlb_exchange,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
) -> i32 {
    let how = if n == sys::XLB_FIELD_PATH_LOWER {
        search::starts_with_lower
    } else {
        <[u8]>::starts_with
    };
    // SAFETY: By the function's contract.
    i32::from(unsafe { compare(ex, n, from, buf, len, how) })
}

/// # Safety
///
/// Called by `bpf_xlb_contains()`; `buf` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_contains(
    ex: *const sys::xlb_exchange,
    n: u32,
    from: u32,
    buf: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: By the function's contract.
    i32::from(unsafe { compare(ex, n, from, buf, len, search::contains) })
}

/// # Safety
///
/// Called by `bpf_xlb_in_range()`; `buf` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_in_range(
    ex: *const sys::xlb_exchange,
    n: u32,
    buf: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: By the function's contract.
    i32::from(unsafe { compare(ex, n, 0, buf, len, number::is_in) })
}

/// # Safety
///
/// Called by `bpf_xlb_needles()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_needles(ex: *const sys::xlb_exchange, count: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    if view.has_needles(count) {
        return 0;
    }
    if count > sys::XLB_MAX_NEEDLES {
        return -(kernel::bindings::EINVAL as i32);
    }
    view.wanted_needles
        .set(view.wanted_needles.get().max(count));
    -(kernel::bindings::EAGAIN as i32)
}

/// # Safety
///
/// Called by `bpf_xlb_search()`; the tables have as many records as `needle` says, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_search(
    ex: *const sys::xlb_exchange,
    n: u32,
    needle: &sys::xlb_needle,
    states: *const sys::xlb_search_state,
    shorter: *const u32,
) -> i32 {
    let tables = Tables {
        states,
        state_count: needle.state_count,
        shorter,
        shorter_count: needle.shorter_count,
    };
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    find(view, n, needle.searched, needle.needle, |field, bits| {
        search::all(&tables, needle.root, field, bits);
    })
}

/// Whether a bit is set, by `find`, if that was not called for the bit `searched` before.
fn find(
    view: &View,
    n: u32,
    searched: u32,
    bit: u32,
    find: impl FnOnce(&[u8], &[Cell<u64>]),
) -> i32 {
    let Some(field) = view.field(n) else {
        return NOT_FOUND;
    };
    let (Some(was_searched), Some(mut found)) = (view.has_needle(searched), view.has_needle(bit))
    else {
        return -(kernel::bindings::EINVAL as i32);
    };
    if !was_searched {
        find(field, view.needle_bits());
        view.set_needle(searched);
        found = view.has_needle(bit) == Some(true);
    }
    i32::from(found)
}

/// Automata in a map.
///
/// # Invariants
///
/// The tables have as many records. They may be written to at any time: what is read is checked by whoever uses it.
struct Tables {
    states: *const sys::xlb_search_state,
    state_count: u32,
    shorter: *const u32,
    shorter_count: u32,
}

impl search::Automata for Tables {
    /// In the table.
    type State = *const sys::xlb_search_state;
    /// The first of 256 in the table.
    type Row = *const sys::xlb_search_state;

    #[inline]
    fn state(&self, place: u32) -> Option<Self::State> {
        // SAFETY: By the invariant of `Tables`.
        (place < self.state_count).then(|| unsafe { self.states.add(place as usize) })
    }

    fn row(&self, place: u32) -> Option<Self::Row> {
        let last = self.state(place.checked_add(u32::from(u8::MAX))?)?;
        // SAFETY: It is that much further than the first, which is in the table too.
        Some(unsafe { last.sub(usize::from(u8::MAX)) })
    }

    #[inline]
    fn in_row(&self, row: Self::Row, byte: u8) -> Self::State {
        // SAFETY: A row has a place for each byte.
        unsafe { row.add(usize::from(byte)) }
    }

    #[inline]
    fn base(&self, state: Self::State) -> u32 {
        // SAFETY: RCU, which the policy runs in, keeps the map.
        unsafe { (&raw const (*state).base).read_volatile() }
    }

    #[inline]
    fn check(&self, state: Self::State) -> u32 {
        // SAFETY: As in `base`.
        unsafe { (&raw const (*state).check).read_volatile() }
    }

    #[inline]
    fn fail(&self, state: Self::State) -> u32 {
        // SAFETY: As in `base`.
        unsafe { (&raw const (*state).fail).read_volatile() }
    }

    #[inline]
    fn needle(&self, state: Self::State) -> u32 {
        // SAFETY: As in `base`.
        unsafe { (&raw const (*state).needle).read_volatile() }
    }

    fn shorter(&self, needle: u32) -> u32 {
        if needle >= self.shorter_count {
            return 0;
        }
        // SAFETY: By the invariant of `Tables`; RCU keeps the map.
        unsafe { self.shorter.add(needle as usize).read_volatile() }
    }
}

/// # Safety
///
/// Called by `bpf_xlb_match()`; the tables have as many entries as `regex` says, and 256 classes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_match(
    ex: *const sys::xlb_exchange,
    n: u32,
    regex: &sys::xlb_regex,
    classes: *const u8,
    states: *const u16,
    matches: *const u32,
) -> i32 {
    let automaton = Automaton {
        regex,
        classes,
        states,
        matches,
    };
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    find(view, n, regex.searched, regex.needle, |field, bits| {
        regex::all(&automaton, regex.start.into(), field, bits);
    })
}

/// That of regular expressions, in a map.
///
/// # Invariants
///
/// The tables have as many entries as `regex` says, and 256 classes. They may be written to at any time: what is read is checked
/// by whoever uses it.
struct Automaton<'a> {
    regex: &'a sys::xlb_regex,
    classes: *const u8,
    states: *const u16,
    matches: *const u32,
}

impl regex::Automaton for Automaton<'_> {
    #[inline]
    fn class(&self, byte: u8) -> u32 {
        // SAFETY: By the invariant; RCU, which the policy runs in, keeps the map.
        u32::from(unsafe { self.classes.add(usize::from(byte)).read_volatile() })
    }

    #[inline]
    fn next(&self, state: u32, class: u32) -> Option<u32> {
        let at = state * u32::from(self.regex.stride) + class;
        if at >= self.regex.state_count {
            return None;
        }
        // SAFETY: As in `class`.
        Some(u32::from(unsafe {
            self.states.add(at as usize).read_volatile()
        }))
    }

    #[inline]
    fn end(&self) -> u32 {
        u32::from(self.regex.stride).wrapping_sub(1)
    }

    fn matched(&self, place: u32) -> Option<u32> {
        if place >= self.regex.match_count {
            return None;
        }
        // SAFETY: As in `class`.
        Some(unsafe { self.matches.add(place as usize).read_volatile() })
    }
}

/// # Safety
///
/// Called by `bpf_xlb_fields()`.
#[no_mangle]
unsafe extern "C" fn xlb_field_want(ex: *const sys::xlb_exchange, kinds: u32) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    if view.has(kinds) {
        return 0;
    }
    if kinds & !ALL_KINDS != 0 {
        return -(kernel::bindings::EINVAL as i32);
    }
    view.wanted.set(view.wanted.get() | kinds);
    -(kernel::bindings::EAGAIN as i32)
}

/// # Safety
///
/// Called by `bpf_xlb_want()`; `name` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_want_named(
    ex: *const sys::xlb_exchange,
    kind: u32,
    name: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    // SAFETY: By the function's contract.
    view.want(kind, unsafe {
        core::slice::from_raw_parts(name, len as usize)
    })
}

/// # Safety
///
/// Called by `bpf_xlb_named()`; `name` is valid for `len` bytes, which the shim has checked.
#[no_mangle]
unsafe extern "C" fn xlb_field_named(
    ex: *const sys::xlb_exchange,
    kind: u32,
    name: *const u8,
    len: u32,
) -> i32 {
    // SAFETY: As in `xlb_field_hash`.
    let view = unsafe { view(ex) };
    // SAFETY: By the function's contract.
    let name = unsafe { core::slice::from_raw_parts(name, len as usize) };
    match view.named(kind, name) {
        Some(field) => i32::try_from(field).unwrap_or(NOT_FOUND),
        None => NOT_FOUND,
    }
}

/// # Safety
///
/// Called by `bpf_xlb_act()`, which has checked them and gives its reference away.
#[no_mangle]
unsafe extern "C" fn xlb_act(ex: *const sys::xlb_exchange, actions: *const sys::xlb_actions) {
    // SAFETY: By the function's contract, and as in `xlb_field_hash`.
    unsafe { Question::of(ex).act(Actions::new(actions.read())) }
}

/// `-ENOENT`
const NOT_FOUND: i32 = -(kernel::bindings::ENOENT as i32);
