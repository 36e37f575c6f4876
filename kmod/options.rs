// SPDX-License-Identifier: GPL-2.0

//! Socket options of a p-sock that work on the connection behind it, see `shim/options.c`.
//!
//! [`Psock::options`](crate::psock::Psock) holds which of them were set, from the connect and from each
//! `setsockopt` on, and which the bound i-sock has. Where none was set, a request costs one test. All of it
//! runs with the socket lock (1); the i-sock's (2) is taken inside.

use core::cell::UnsafeCell;

use crate::exchange::Phase;
use crate::isock::Isock;
use crate::psock::{from_c, Locked, Psock};
use crate::sys;

/// What [`Locked`] knows of the options; behind the socket lock.
pub(crate) type Options = UnsafeCell<sys::xlb_options>;

/// No option was set.
pub(crate) const fn none() -> Options {
    UnsafeCell::new(sys::xlb_options {
        set: 0,
        lent: 0,
        paced: 0,
        sndbuf: 0,
        rcvbuf: 0,
    })
}

impl Psock {
    /// Looks which options are set, before a connection is bound.
    ///
    /// # Safety
    ///
    /// The caller holds the socket lock.
    pub(crate) unsafe fn read_options(&self) {
        // SAFETY: By the contract.
        unsafe { (*self.options.get()).set = sys::xlb_sk_options(self.sk) as u8 };
    }
}

impl Locked<'_> {
    fn has_option(&self, option: u32) -> bool {
        // SAFETY: The socket lock is held.
        u32::from(unsafe { (*self.psock.options.get()).set }) & option != 0
    }

    /// Lends the options to a connection that becomes this p-sock's.
    pub(crate) fn lend_options(&self, isock: &Isock) {
        let options = self.psock.options.get();
        // SAFETY: The socket lock is held, the i-sock is live, and its lock is taken for the change.
        unsafe {
            sys::xlb_sk_learn(self.psock.sk, isock.sk());
            if (*options).set != 0 {
                let _guard = isock.lock();
                sys::xlb_isk_lend(isock.sk(), self.psock.sk, options);
            } else {
                // What a connection had that is gone.
                (*options).lent = 0;
            }
        }
    }

    /// Takes the options back from a connection that goes on to the pool.
    pub(crate) fn take_options_back(&self, isock: &Isock) {
        let options = self.psock.options.get();
        // SAFETY: As above.
        unsafe {
            if (*options).lent != 0 {
                let _guard = isock.lock();
                sys::xlb_isk_take_back(isock.sk(), options);
            }
        }
    }

    fn set_options(&self) {
        let isock = self.relaying();
        if let Some(isock) = isock {
            self.take_options_back(isock);
        }
        // SAFETY: The socket lock is held.
        unsafe { self.psock.read_options() };
        if let Some(isock) = isock {
            self.lend_options(isock);
        }
    }

    /// `SIOCOUTQNSD`: of the client's bytes, those that were never sent.
    fn never_sent(&self) -> usize {
        let flying = self.isock.as_ref().map_or(0, |isock| {
            // SAFETY: The bound i-sock is live.
            unsafe { sys::xlb_isk_flying(isock.sk()) }
        });
        let flying = usize::try_from(flying).unwrap_or(0);
        self.unsent().saturating_sub(flying)
    }

    /// Tells a program (TCP_INQ), or io_uring, how much is left to read; 1 for an end.
    pub(crate) fn tell_unread(&self, msg: *mut sys::msghdr) {
        let asked = self.has_option(sys::XLB_OPTION_INQ);
        // SAFETY: `msg` is that of the current system call.
        if !asked && unsafe { sys::xlb_msg_wants_inq(msg) } == 0 {
            return;
        }
        let unread = i32::try_from(self.unread()).unwrap_or(i32::MAX);
        let unread = unread.max(i32::from(matches!(
            self.phase,
            Phase::Closing | Phase::Closed
        )));
        // SAFETY: As above.
        unsafe { sys::xlb_msg_inq(msg, unread, i32::from(asked)) };
    }

    /// Runs a read on the i-sock, of which one `recvmsg` may have several: the time stamp of the last counts.
    pub(crate) fn stamped<R>(
        &mut self,
        msg: *mut sys::msghdr,
        mark: &mut sys::xlb_control,
        read: impl FnOnce(&mut Self) -> R,
    ) -> R {
        if !self.has_option(sys::XLB_OPTION_STAMPS) {
            return read(self);
        }
        // SAFETY: `msg` is that of the current system call.
        unsafe { sys::xlb_msg_control_before(msg, mark) };
        let result = read(self);
        // SAFETY: As above.
        unsafe { sys::xlb_msg_control_after(msg, mark) };
        result
    }
}

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_set_options(psock: *mut sys::xlb_psock) {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.locked(|locked| locked.set_options());
}

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_outq_nsd(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let bytes = unsafe { from_c(psock) }.locked(|locked| locked.never_sent());
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
