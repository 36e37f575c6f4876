// SPDX-License-Identifier: GPL-2.0

//! How what happens to a connection reaches whoever has it: the one way up from the levels below.
//!
//! A [`Waker`] lies in the object of its owner, whatever that is; who is to be woken knows its address and nothing else
//! of the owner. It is found by callbacks in softirq without a lock, so its memory stays for an RCU grace period
//! after its owner has said at each place that knew it that it is gone.

use crate::sys;

/// What happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Bytes or an end have come.
    Data,
    /// There is room to send again.
    Space,
    /// It was established, or has failed.
    State,
}

impl Event {
    /// As the shim says it.
    pub(crate) fn of(event: sys::xlb_isock_event) -> Self {
        match event {
            sys::XLB_ISOCK_DATA => Self::Data,
            sys::XLB_ISOCK_SPACE => Self::Space,
            _ => Self::State,
        }
    }
}

/// What an owner does when it is woken. All but `expect` run in any context but hard interrupts, in an RCU section that began
/// before the waker was found; pools may be locked, so no lock is taken and nothing is allocated.
pub(crate) struct Wake {
    /// Something happened to the connection; `wanted` says that other requests wait for one.
    pub(crate) event: unsafe fn(&Waker, Event, wanted: bool),
    /// Others wait for a connection: is to look soon whether this one can be let go of. False when that cannot be now.
    pub(crate) ask: unsafe fn(&Waker) -> bool,
    /// Is to look after its exchange in so many milliseconds, or at once for 0. A call replaces the one before, but not one that
    /// is due.
    pub(crate) kick: unsafe fn(&Waker, u64),
    /// From before the next event on, each is a kick as well. Process context.
    pub(crate) expect: unsafe fn(&Waker),
}

/// See the top of the file.
///
/// # Invariants
///
/// It is part of an object of the kind that the functions of its `wake` take it to be part of.
pub(crate) struct Waker {
    wake: &'static Wake,
}

impl Waker {
    /// # Safety
    ///
    /// It becomes a part of an object of the kind that `wake` is for, before it is used.
    pub(crate) const unsafe fn new(wake: &'static Wake) -> Self {
        // INVARIANT: By the contract.
        Self { wake }
    }

    /// See [`Wake::event`].
    pub(crate) fn event(&self, event: Event, wanted: bool) {
        // SAFETY: By the type invariant.
        unsafe { (self.wake.event)(self, event, wanted) }
    }

    /// See [`Wake::ask`].
    pub(crate) fn ask(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { (self.wake.ask)(self) }
    }

    /// See [`Wake::kick`].
    pub(crate) fn kick(&self, delay_ms: u64) {
        // SAFETY: By the type invariant.
        unsafe { (self.wake.kick)(self, delay_ms) }
    }

    /// See [`Wake::expect`].
    pub(crate) fn expect(&self) {
        // SAFETY: By the type invariant.
        unsafe { (self.wake.expect)(self) }
    }
}
