// SPDX-License-Identifier: GPL-2.0

//! The i-socks of one pool that p-socks hold, and whom to ask when requests wait for one.
//!
//! A client that is slow to read holds a connection whose response is in already. When a request
//! must wait, the pool asks holders whether they can let go: as many as wait, and of those only such
//! as have something for their client to read. Who cannot let go makes the pool ask another one
//! ([`Pool::ask_another`](crate::pool::Pool::ask_another)), so whoever can is found; and nobody is
//! asked twice in one round.
//!
//! Everything here is under the pool's lock (4). An i-sock is in the list from the moment that a
//! p-sock gets it until it goes back or is dropped, hence live while it is there.

use core::ptr;

use crate::count;
use crate::isock::{Isock, Shared};

/// An i-sock's place in the list.
pub(crate) struct Hold {
    next: *const Shared,
    prev: *const Shared,
    /// The round in which it was looked at last.
    seen: u64,
}

impl Hold {
    pub(crate) const fn new() -> Self {
        Self {
            next: ptr::null(),
            prev: ptr::null(),
            seen: 0,
        }
    }
}

/// Those that were looked at in this round are at the end.
pub(crate) struct Holders {
    head: *const Shared,
    tail: *const Shared,
    len: u32,
    round: u64,
    round_ms: u64,
}

// SAFETY: The pointers are followed under the pool's lock only, and what is listed is live.
unsafe impl Send for Holders {}

impl Holders {
    pub(crate) fn new() -> Self {
        Self {
            head: ptr::null(),
            tail: ptr::null(),
            len: 0,
            round: count::from(),
            round_ms: 0,
        }
    }

    /// Takes `isock` in, unless it is here already.
    ///
    /// # Safety
    ///
    /// `self` is the list of the pool of `isock`.
    pub(crate) unsafe fn add(&mut self, isock: &mut Isock) {
        if !core::mem::replace(&mut isock.owned_mut().held, true) {
            // SAFETY: By the contract; it was not here.
            unsafe { self.push(isock) };
        }
    }

    /// Takes `isock` out, if it is here.
    ///
    /// # Safety
    ///
    /// `self` is the list of the pool of `isock`.
    pub(crate) unsafe fn remove(&mut self, isock: &mut Isock) {
        if core::mem::take(&mut isock.owned_mut().held) {
            // SAFETY: By the contract; it is here.
            unsafe { self.unlink(isock) };
        }
    }

    /// Begins a new round, unless the last one is too young.
    pub(crate) fn begin_round(&mut self, now: u64) {
        // A round looks at every one, so it is worth less often in a long list.
        let pause = ROUND_MS.max(u64::from(self.len) / 64);
        if now.saturating_sub(self.round_ms) >= pause {
            self.round += 1;
            self.round_ms = now;
        }
    }

    /// The next one that was not looked at in this round.
    pub(crate) fn next(&mut self) -> Option<&Shared> {
        // SAFETY: What is listed is live.
        let isock = unsafe { self.head.as_ref() }?;
        // SAFETY: Links are ours under the pool's lock.
        let seen = unsafe { core::mem::replace(&mut (*isock.hold.get()).seen, self.round) };
        if seen == self.round {
            return None;
        }
        // SAFETY: It is the head of this list.
        unsafe {
            self.unlink(isock);
            self.push(isock);
        }
        Some(isock)
    }

    /// # Safety
    ///
    /// `isock` is in no list.
    unsafe fn push(&mut self, isock: &Shared) {
        // SAFETY: Links are ours under the pool's lock; the tail is another one.
        unsafe {
            let hold = &mut *isock.hold.get();
            hold.next = ptr::null();
            hold.prev = self.tail;
            match self.tail.as_ref() {
                Some(tail) => (*tail.hold.get()).next = isock,
                None => self.head = isock,
            }
        }
        self.tail = isock;
        self.len += 1;
    }

    /// # Safety
    ///
    /// `isock` is in this list.
    unsafe fn unlink(&mut self, isock: &Shared) {
        // SAFETY: Links are ours under the pool's lock; neighbours are other ones, and live.
        unsafe {
            let hold = &mut *isock.hold.get();
            match hold.prev.as_ref() {
                Some(prev) => (*prev.hold.get()).next = hold.next,
                None => self.head = hold.next,
            }
            match hold.next.as_ref() {
                Some(next) => (*next.hold.get()).prev = hold.prev,
                None => self.tail = hold.prev,
            }
        }
        self.len -= 1;
    }
}

/// How often at most a round begins, in milliseconds.
const ROUND_MS: u64 = 10;
