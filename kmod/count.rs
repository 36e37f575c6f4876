// SPDX-License-Identifier: GPL-2.0

//! Counters: per CPU, declared once in `XLB_COUNTERS` and `XLB_REASONS` of `xlb_intf.h`.
//!
//! The kernel is built with overflow checks, and an overflow with a lock held takes the machine with it. So
//! whatever only grows (events, bytes, generations, rounds, times in ns or ms) has 64 bits: one event in each
//! nanosecond reaches their end after 584 years. 32 bits are for what lives at the same time, each with
//! memory of its own, and for what a limit bounds. 64 bits must not be cut down on the way: the module's
//! parameter `counts_from` lets a test begin below the end of 32.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::sys;

/// Where counts begin: 0, but in a test of what happens far from there.
static FROM: Atomic<u64> = Atomic::new(0);

/// See [`FROM`].
pub(crate) fn from() -> u64 {
    FROM.load(Relaxed)
}

/// Takes the module's parameter; once, at load.
pub(crate) fn set_from(from: u32) {
    FROM.store(u64::from(from), Relaxed);
    // SAFETY: Adds to counters; before the first socket.
    unsafe { sys::xlb_counts_from(u64::from(from)) }
}

/// Adds `n` to a counter or gauge, `XLB_COUNTER_*`.
pub(crate) fn add(counter: u32, n: i64) {
    // SAFETY: The shim checks the range; `this_cpu_add()` may run in any context.
    unsafe { sys::xlb_count(counter, n) }
}

/// Adds one.
pub(crate) fn inc(counter: u32) {
    add(counter, 1);
}

/// Takes one from a gauge.
pub(crate) fn dec(counter: u32) {
    add(counter, -1);
}

/// Counts a reply or end for `reason`, `XLB_REASON_*`.
pub(crate) fn reason(reason: u32) {
    // SAFETY: As in `add`.
    unsafe { sys::xlb_count_reason(reason) }
}

/// Counts a rejection by the engine.
pub(crate) fn engine(reason: xlb_engine::reason::Reason) {
    // SAFETY: As in `add`.
    unsafe { sys::xlb_count_engine(reason as u32) }
}
