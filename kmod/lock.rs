// SPDX-License-Identifier: GPL-2.0

//! A spinlock that disables bottom halves, for data that softirq and process context share.
//!
//! `kernel::sync::SpinLock` leaves softirqs on, so a callback of an i-sock on the same CPU would
//! spin for ever; `SpinLockIrq` would also shut out hard interrupts, which never come here.
//!
//! Lock order of the module, outermost first; each file says which of them it takes:
//!
//! 1. p-sock `lock_sock` (process context only)
//! 2. i-sock `lock_sock` or, in its callbacks, `bh_lock_sock`
//! 3. pool table bucket
//! 4. pool, then one stripe of it (4b)
//! 5. list of dead i-socks; list of orphans; bucket of identities; shard of the list of p-sockets (an xarray's own lock)
//!
//! Nothing is allocated, dropped or called back under 3 to 5.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use kernel::bindings;

use crate::sys;

/// A value behind `spin_lock_bh()`.
///
/// # Invariants
///
/// Once [`BhLock::init`] was called, `raw` is an initialised `spinlock_t` that does not move.
pub(crate) struct BhLock<T> {
    raw: UnsafeCell<MaybeUninit<bindings::spinlock_t>>,
    data: UnsafeCell<T>,
}

// SAFETY: The spinlock makes access to `data` exclusive.
unsafe impl<T: Send> Send for BhLock<T> {}
// SAFETY: As above.
unsafe impl<T: Send> Sync for BhLock<T> {}

impl<T> BhLock<T> {
    /// A lock that still needs [`BhLock::init`] at its final address.
    pub(crate) const fn new(data: T) -> Self {
        Self {
            raw: UnsafeCell::new(MaybeUninit::zeroed()),
            data: UnsafeCell::new(data),
        }
    }

    /// Initialises the spinlock.
    ///
    /// # Safety
    ///
    /// Called once, before any [`BhLock::lock`], and `self` is not moved afterwards.
    pub(crate) unsafe fn init(&self, class: u32) {
        // SAFETY: `raw` has the size of a spinlock_t and nobody else uses it yet.
        unsafe { sys::xlb_spin_init(self.raw.get().cast(), class) }
    }

    /// Takes the lock and disables bottom halves on this CPU.
    pub(crate) fn lock(&self) -> BhGuard<'_, T> {
        // SAFETY: By the type invariant `raw` is an initialised spinlock.
        unsafe { sys::xlb_spin_lock_bh(self.raw.get().cast()) };
        BhGuard { lock: self }
    }
}

/// Holds a [`BhLock`].
pub(crate) struct BhGuard<'a, T> {
    lock: &'a BhLock<T>,
}

impl<T> Deref for BhGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The spinlock is held until this guard is dropped.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for BhGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The spinlock is held until this guard is dropped.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for BhGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: This guard holds the lock.
        unsafe { sys::xlb_spin_unlock_bh(self.lock.raw.get().cast()) }
    }
}
