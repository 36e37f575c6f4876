// SPDX-License-Identifier: GPL-2.0

//! Who waits for a connection of a pool, first come, first served.
//!
//! A [`Waiter`] lies in the object that waits, so to queue takes no memory. Its link is accessed under the lock of the pool
//! that it waits for, and of which it was given something, only.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr;

use super::Isock;
use crate::count;
use crate::isock::Waker;
use crate::sys;

/// A place in the queue of one pool, and how its owner is told that its turn has come.
pub(crate) struct Waiter {
    waker: Waker,
    link: UnsafeCell<Link>,
}

struct Link {
    next: *const Waiter,
    prev: *const Waiter,
    turn: Turn,
}

/// What a waiter was given.
pub(super) enum Turn {
    /// Not queued, and nothing was given.
    None,
    Queued,
    Ready(Isock),
    /// The right to open a connection, of this generation.
    Permit(u64),
}

impl Waiter {
    /// Where the waker lies in it.
    pub(crate) const WAKER: usize = offset_of!(Waiter, waker);

    pub(crate) const fn new(waker: Waker) -> Self {
        Self {
            waker,
            link: UnsafeCell::new(Link {
                next: ptr::null(),
                prev: ptr::null(),
                turn: Turn::None,
            }),
        }
    }

    /// For connections, too, that its owner has.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Takes what it was given.
    ///
    /// # Safety
    ///
    /// The pool's lock is held.
    pub(super) unsafe fn take_turn(&self) -> Turn {
        // SAFETY: Links are ours under the pool's lock.
        core::mem::replace(unsafe { &mut (*self.link.get()).turn }, Turn::None)
    }

    /// Undoes [`Waiter::take_turn`] of one that is queued still.
    ///
    /// # Safety
    ///
    /// The pool's lock is held, and it is queued.
    pub(super) unsafe fn keep_waiting(&self) {
        // SAFETY: As above.
        unsafe { (*self.link.get()).turn = Turn::Queued };
    }
}

/// See the top of the file; under the pool's lock.
pub(super) struct Queue {
    head: *const Waiter,
    tail: *const Waiter,
    len: u32,
}

// SAFETY: The pointers are followed under the pool's lock only, and what is queued is live.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            head: ptr::null(),
            tail: ptr::null(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// # Safety
    ///
    /// The pool's lock is held, and `waiter` is not queued; it is unlinked before it goes.
    pub(super) unsafe fn push(&mut self, waiter: &Waiter) {
        // SAFETY: Links are ours under the pool's lock.
        let link = unsafe { &mut *waiter.link.get() };
        link.turn = Turn::Queued;
        link.next = ptr::null();
        link.prev = self.tail;
        if self.tail.is_null() {
            self.head = waiter;
        } else {
            // SAFETY: What is queued is live.
            unsafe { (*(*self.tail).link.get()).next = waiter };
        }
        self.tail = waiter;
        self.len += 1;
        count::inc(sys::XLB_COUNTER_PENDING);
    }

    /// # Safety
    ///
    /// The pool's lock is held, and `waiter` is queued here.
    pub(super) unsafe fn unlink(&mut self, waiter: &Waiter) {
        // SAFETY: Links are ours under the pool's lock.
        let link = unsafe { &mut *waiter.link.get() };
        link.turn = Turn::None;
        if link.prev.is_null() {
            self.head = link.next;
        } else {
            // SAFETY: Neighbours are queued, hence live.
            unsafe { (*(*link.prev).link.get()).next = link.next };
        }
        if link.next.is_null() {
            self.tail = link.prev;
        } else {
            // SAFETY: As above.
            unsafe { (*(*link.next).link.get()).prev = link.prev };
        }
        link.next = ptr::null();
        link.prev = ptr::null();
        self.len -= 1;
        count::dec(sys::XLB_COUNTER_PENDING);
    }

    /// Gives `turn` to the first one; gives it back when nobody waits.
    ///
    /// # Safety
    ///
    /// The pool's lock is held.
    pub(super) unsafe fn serve(&mut self, turn: Turn) -> Option<Turn> {
        // SAFETY: Queued, hence live until it takes the pool's lock to leave.
        let Some(waiter) = (unsafe { self.head.as_ref() }) else {
            return Some(turn);
        };
        // SAFETY: It is the head of this queue.
        unsafe { self.unlink(waiter) };
        // SAFETY: Links are ours under the pool's lock.
        unsafe { (*waiter.link.get()).turn = turn };
        waiter.waker.kick(0);
        None
    }
}
