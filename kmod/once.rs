// SPDX-License-Identifier: GPL-2.0

//! `READ_ONCE()`, `WRITE_ONCE()`, `smp_load_acquire()` and `smp_store_release()` of an [`Atomic`], inlined.
//!
//! [`Atomic::load`] and [`Atomic::store`] are the same, but calls of helpers in C where the kernel was built without inlined
//! ones, as distributions do. A request reads some forty atomics, which was 1 % of all that it costs.

use kernel::sync::atomic::{Atomic, AtomicType};

/// See the top of the file. For what is read or written with each request.
pub(crate) trait Once<T> {
    /// `READ_ONCE()`, which orders what depends on the value.
    fn read(&self) -> T;
    /// `smp_load_acquire()`
    fn read_acquire(&self) -> T;
    /// `WRITE_ONCE()`
    fn write(&self, value: T);
    /// `smp_store_release()`
    fn write_release(&self, value: T);
}

#[cfg(target_arch = "x86_64")]
impl<T: AtomicType> Once<T> for Atomic<T> {
    #[inline(always)]
    fn read(&self) -> T {
        // SAFETY: Valid and aligned as long as `self`; all accesses of others are volatile or in C.
        unsafe { self.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn read_acquire(&self) -> T {
        let value = self.read();
        // x86 keeps loads in order (`arch/x86/include/asm/barrier.h`): the compiler must, too.
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        value
    }

    #[inline(always)]
    fn write(&self, value: T) {
        // SAFETY: As in `read`.
        unsafe { self.as_ptr().write_volatile(value) }
    }

    #[inline(always)]
    fn write_release(&self, value: T) {
        // As in `read_acquire`.
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        self.write(value);
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl<T: AtomicType> Once<T> for Atomic<T>
where
    T::Repr: kernel::sync::atomic::AtomicBasicOps,
{
    fn read(&self) -> T {
        self.load(kernel::sync::atomic::Relaxed)
    }

    fn read_acquire(&self) -> T {
        self.load(kernel::sync::atomic::Acquire)
    }

    fn write(&self, value: T) {
        self.store(value, kernel::sync::atomic::Relaxed);
    }

    fn write_release(&self, value: T) {
        self.store(value, kernel::sync::atomic::Release);
    }
}
