// SPDX-License-Identifier: GPL-2.0

//! Socket options of a p-sock that work on the connection behind it, see `shim/options.c`.
//!
//! `Client::options` holds which of them were set, from the connect and from each `setsockopt` on, and so
//! which a bound i-sock has; `Client::lent` holds what it had before. Where none was set, a request costs one
//! test. All of it runs with the socket lock (1); the i-sock's (2) is taken inside.

use super::{Active, Client, Phase};
use crate::pool::Isock;
use crate::sys;

impl Client {
    /// Looks which options are set, before a connection is bound.
    ///
    /// # Safety
    ///
    /// The caller holds the socket lock.
    pub(crate) unsafe fn read_options(&self) {
        // SAFETY: By the contract.
        unsafe { *self.options.get() = sys::xlb_sk_options(self.sk) };
    }
}

impl Active<'_> {
    fn has_option(&self, option: u32) -> bool {
        // SAFETY: The socket lock is held.
        u32::from(unsafe { *self.client.options.get() }) & option != 0
    }

    /// Lends the options to a connection that becomes this client's.
    pub(crate) fn lend_options(&self, isock: &Isock) {
        let client = self.client;
        let options = client.options.get();
        // SAFETY: The socket lock is held, the i-sock is live, and its lock is taken for the change.
        unsafe {
            sys::xlb_sk_learn(client.sk, isock.sk());
            if *options != 0 {
                let _guard = isock.lock();
                sys::xlb_isk_lend(isock.sk(), client.sk, options, client.lent.get());
            }
        }
    }

    /// Takes the options back from a connection that goes on to the pool.
    pub(crate) fn take_options_back(&self, isock: &Isock) {
        let client = self.client;
        let options = client.options.get();
        // SAFETY: As above.
        unsafe {
            if *options != 0 {
                let _guard = isock.lock();
                sys::xlb_isk_take_back(isock.sk(), options, client.lent.get());
            }
        }
    }

    /// An option of the client's socket was set.
    pub(crate) fn did_set_options(&mut self) {
        self.party.has_changed();
        let isock = self.relay().map(|relay| &relay.isock);
        if let Some(isock) = isock {
            self.take_options_back(isock);
        }
        // SAFETY: The socket lock is held.
        unsafe { self.client.read_options() };
        if let Some(isock) = isock {
            self.lend_options(isock);
        }
    }

    /// `SIOCOUTQNSD`: of the client's bytes, those that were never sent.
    pub(crate) fn never_sent(&self) -> usize {
        let flying = self.isock().map_or(0, |isock| {
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
