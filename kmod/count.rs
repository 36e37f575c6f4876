// SPDX-License-Identifier: GPL-2.0

//! Counters: per CPU, declared once in `XLB_COUNTERS` and `XLB_REASONS` of `xlb_intf.h`.

use kernel::sync::atomic::{Atomic, Relaxed};

use crate::sys;

/// Where the counts of connections and pools begin: 0, but in a test of what happens far from there.
static FROM: Atomic<u64> = Atomic::new(0);

/// See [`FROM`].
pub(crate) fn from() -> u64 {
    FROM.load(Relaxed)
}

/// Takes the module's parameter; once, at load.
pub(crate) fn set_from(from: u32) {
    FROM.store(u64::from(from), Relaxed);
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
