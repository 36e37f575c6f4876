// SPDX-License-Identifier: GPL-2.0

//! The engine's limits as they were set when the module was loaded: `insmod xlb.ko head_bytes=16384`.
//!
//! Set once before the first socket, read by all, never changed. What each limit stops is said in
//! `engine/src/limits.rs`, which has the defaults too.

use core::cell::UnsafeCell;

use kernel::prelude::*;
use xlb_engine::Limits;

/// Written by [`set`] alone, before there is a socket. A `SetOnce` would ask at each look whether it was.
struct Fixed(UnsafeCell<Limits>);

// SAFETY: See above: later it is read only.
unsafe impl Sync for Fixed {}

static LIMITS: Fixed = Fixed(UnsafeCell::new(Limits::DEFAULT));

/// The limits of every connection.
pub(crate) fn get() -> &'static Limits {
    // SAFETY: Nobody writes any more.
    unsafe { &*LIMITS.0.get() }
}

/// Bytes of requests that a p-sock holds at most: the largest head and some of what follows it.
/// Stops a client that pipelines without reading from filling the kernel.
pub(crate) fn hold_max() -> usize {
    get().head_bytes as usize + 16 * 1024
}

/// Takes the module's parameters; once, at load, before anything else of the module runs. `EINVAL` for a value with which nothing would
/// work, or with which the limit would be none.
pub(crate) fn set(limits: Limits) -> Result {
    let ranges = [
        ("head_bytes", limits.head_bytes, 256, 256 * 1024),
        ("field_count", limits.field_count, 8, 4096),
        ("field_bytes", limits.field_bytes, 64, 256 * 1024),
        ("target_bytes", limits.target_bytes, 16, 256 * 1024),
        ("chunk_ext_bytes", limits.chunk_ext_bytes, 0, 1024 * 1024),
        ("trailer_bytes", limits.trailer_bytes, 2, 256 * 1024),
        ("interim_count", limits.interim_count, 1, 1024),
    ];
    for (name, value, min, max) in ranges {
        if value < min || value > max {
            pr_err!("{name}={value}: not from {min} to {max}\n");
            return Err(EINVAL);
        }
    }
    // SAFETY: The module is being loaded: nobody reads yet.
    unsafe { *LIMITS.0.get() = limits };
    Ok(())
}
