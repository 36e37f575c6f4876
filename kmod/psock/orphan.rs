// SPDX-License-Identifier: GPL-2.0

//! p-sockets without owner: `close()` was called while a request still had to be sent.
//!
//! What plain TCP has taken from a program it delivers after `close()`, too. A p-sock may hold a request
//! that waits for its connection, or whose rest found no room there; [`Locked::orphan`] lets it go on as
//! TCP lets an orphan (`__tcp_close()`): without file and wait queue, with the reference that the
//! file had. Its work sends what is held, each request over a connection of its own, and reads no
//! answer; as with TCP, the endpoint sees the request and then an end.
//!
//! Bounds: [`LIFE_MS`] of time (a connect that was begun may take its own time-out), [`MAX`] orphans on
//! the host, and for each the memory that its owner was allowed. Beyond them, and with SO_LINGER of 0,
//! what is held is dropped.
//!
//! Contexts: process context, socket lock held (1). The work cannot close its own socket, for a close
//! waits for the work: it puts it on the list of [`DONE`] (5), which the reaper closes.

use core::ptr;

use super::{Locked, Psock};
use crate::http1::Phase;
use crate::isock::now_ms;
use crate::lock::BhLock;
use crate::sys;

/// How long a request may wait for its connection without its owner, in milliseconds: as long as
/// one waits in the queue of a full pool by default.
const LIFE_MS: u64 = 5000;
/// Most orphans at once. Stops clients that write and close in a loop, as `tcp_max_orphans` does.
const MAX: u32 = 65_536;

/// Orphans that are over, linked through [`Psock::next_done`], and the number of all orphans.
struct Done {
    first: *const Psock,
    orphans: u32,
}

// SAFETY: Followed under the lock only; a listed p-sock is closed by who takes it off the list.
unsafe impl Send for Done {}

static DONE: BhLock<Done> = BhLock::new(Done {
    first: ptr::null(),
    orphans: 0,
});

/// Prepares the list; once, at load.
pub(crate) fn init() {
    // SAFETY: Once, before first use; statics do not move.
    unsafe { DONE.init(sys::XLB_LOCK_ORPHANS) };
}

/// Closes the orphans that are over. May sleep; nothing is locked.
pub(crate) fn close_done() {
    loop {
        let mut done = DONE.lock();
        if done.first.is_null() {
            return;
        }
        // SAFETY: On the list, hence live until it is closed below.
        let psock = unsafe { &*done.first };
        // SAFETY: The link is ours under the lock.
        done.first = unsafe { *psock.next_done.get() };
        done.orphans -= 1;
        drop(done);
        psock.stop();
        // SAFETY: The work has ended, no i-sock knows the socket, and its last reference is ours.
        unsafe { sys::xlb_sk_close(psock.client.sk) };
    }
}

impl Locked<'_> {
    /// Lets the socket go on without owner when plain TCP would still have something to deliver; false
    /// when there is nothing, or no room for one more.
    pub(crate) fn orphan(&mut self) -> bool {
        let waits = match &self.phase {
            Phase::Waiting(_) => true,
            Phase::Relay(relay) => !relay.upload.deaf && (self.has_unsent() || self.has_next()),
            Phase::Reply => self.has_next(),
            _ => false,
        };
        if !waits || !self.is_ours() || self.client.is_ending() {
            return false;
        }
        let mut done = DONE.lock();
        if done.orphans >= MAX {
            return false;
        }
        done.orphans += 1;
        drop(done);
        // SAFETY: The socket lock is held.
        unsafe { sys::xlb_sk_orphan(self.client.sk) };
        self.party.until_ms = now_ms() + LIFE_MS;
        self.client.kick(0);
        true
    }

    /// Whether the socket goes on without its owner.
    pub(crate) fn is_orphan(&self) -> bool {
        self.party.until_ms != 0
    }

    /// Whether bytes of a further request are held that can be sent.
    fn has_next(&self) -> bool {
        self.body.is_done() && !self.last && self.buf.len() > self.held
    }

    /// Before the work of an orphan: wakes it again when its time is over. An event that comes after this
    /// has a kick of its own, one that came before is seen by the work that follows.
    pub(crate) fn set_orphan_timer(&self) {
        let left = self.party.until_ms.saturating_sub(now_ms());
        self.client.kick(left.max(1));
    }

    /// The work of an orphan: goes from request to request until all are sent or time is over.
    pub(crate) fn work_as_orphan(&mut self) {
        let now = now_ms();
        while now < self.party.until_ms && !self.client.is_ending() {
            match &self.phase {
                Phase::Waiting(_) => {}
                Phase::Relay(relay) if self.has_unsent() && !relay.upload.deaf => {}
                Phase::Relay(_) if self.has_next() => {
                    // All of it is sent: nobody reads the answer.
                    self.done(sys::XLB_REASON_CLIENT_GONE);
                    self.unbind();
                    self.local.reset();
                    self.next();
                    continue;
                }
                Phase::Reply if self.has_next() => {
                    self.local.reset();
                    self.next();
                    continue;
                }
                _ => break,
            }
            // An event of the connection or of the pool goes on, or a deadline.
            return;
        }
        self.end(sys::XLB_REASON_CLIENT_GONE);
        let mut done = DONE.lock();
        // SAFETY: The link is ours under the lock, and an orphan is put on the list once: its phase
        // is `Closed` from now on.
        unsafe { *self.psock.next_done.get() = done.first };
        done.first = self.psock;
        drop(done);
        // SAFETY: Queues work; any context.
        unsafe { sys::xlb_reaper_kick(0) };
    }
}
