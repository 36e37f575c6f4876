// SPDX-License-Identifier: GPL-2.0

//! Letting go of p-sockets that have ended while their programs keep the descriptors, so that the module can go.
//!
//! After `unload --force` a client may hold its descriptor for as long as it likes. Once its last response is read,
//! nothing is left that needs XLB: the socket becomes what a TCP socket is after its connection has ended (reads give
//! an end, writes `EPIPE`, it can be connected anew), with TCP's own tables and without our ULP. The steps:
//!
//! 1. In RCU: the p-sock has ended ([`Psock::is_over`]), and we get a reference to its file. With it no `close()` begins,
//!    which reads the tables of the socket without any lock, and what is attached to the socket stays so.
//! 2. A grace period, once for many: callbacks of i-socks that saw the socket as their owner are over.
//! 3. Under the socket lock, which is not waited for (user space may hold it through a page fault): if it is still so,
//!    the list, the work and the tables forget the p-sock (`xlb_sk_leave()`).
//! 4. Some task may still be in `sendmsg` or the like of this socket. These are SRCU sections, and the p-sock's memory
//!    and its two references to the module go when those that had begun are over (`xlb_psock_leave()`).
//!
//! What has loaded a pointer to our tables or functions and not used it yet takes no reference: the module's exit
//! waits for it (`xlb_proto_exit()`).
//!
//! A p-sock whose client has not read all stays, and so does one that was connected to something else since.

use kernel::prelude::*;
use kernel::sync::atomic::{Full, Relaxed};

use super::list::{self, Cursor};
use super::{Locked, Psock};
use crate::http1::Phase;
use crate::sys;

/// Most p-sockets for one grace period.
const MOST: usize = 1024;

/// One that may go: its file is ours, so its socket and its p-sock are live.
struct Held {
    sk: *mut sys::sock,
    psock: *const Psock,
    file: *mut sys::file,
}

/// Lets go of those that have ended, from the cursor on; returns of how many, and whether there are more to look at.
/// May sleep.
pub(crate) fn leave(cursor: &mut Cursor) -> Result<(u32, bool)> {
    let mut held = KVVec::with_capacity(MOST, GFP_KERNEL)?;
    let more = list::walk(cursor, |psock| {
        if held.len() == held.capacity() {
            return false;
        }
        if psock.is_over() {
            // SAFETY: In RCU, with a p-sock that was found in this section.
            let file = unsafe { sys::xlb_sk_get_file(psock.client.sk, psock.as_c()) };
            if !file.is_null() {
                let _ = held.push_within_capacity(Held {
                    sk: psock.client.sk,
                    psock,
                    file,
                });
            }
        }
        true
    });
    // SAFETY: Process context, nothing is locked.
    unsafe { sys::xlb_synchronize_rcu() };
    let mut count = 0;
    for one in held.iter() {
        count += u32::from(one.leave());
        // SAFETY: Taken above. If it is the last one the socket is closed when this task leaves the kernel.
        unsafe {
            sys::xlb_put_file(one.file);
            sys::xlb_cond_resched();
        }
    }
    Ok((count, more))
}

impl Held {
    fn leave(&self) -> bool {
        // SAFETY: The file keeps the socket.
        if unsafe { sys::xlb_sk_try_lock(self.sk) } == 0 {
            return false;
        }
        // SAFETY: The socket lock is held.
        let left = unsafe {
            // Another one of us may have been here before.
            let attached = sys::xlb_sk_psock(self.sk).cast_const() == self.psock.cast();
            attached && self.leave_locked()
        };
        // SAFETY: Taken above.
        unsafe { sys::xlb_release_sock(self.sk) };
        if left {
            // SAFETY: Nothing finds it any more; those who have found it are in RCU or in SRCU.
            unsafe { sys::xlb_psock_leave(self.psock.cast_mut().cast()) };
        }
        left
    }

    /// # Safety
    ///
    /// The socket lock is held, and the p-sock is attached.
    unsafe fn leave_locked(&self) -> bool {
        // SAFETY: Attached, hence live.
        let psock = unsafe { &*self.psock };
        // SAFETY: By the contract.
        if !unsafe { psock.owned(|locked| locked.leave()) } {
            return false;
        }
        list::remove(psock);
        psock.client.stop_work();
        psock.forget_deferred();
        // SAFETY: By the contract.
        unsafe { sys::xlb_sk_leave(self.sk) };
        true
    }
}

impl Psock {
    /// Whether the p-sock may be let go of a grace period from now. In RCU, not locked.
    fn is_over(&self) -> bool {
        if !self.client.is_ending() {
            return false;
        }
        // First the mark, which a new connect takes away, then the look: what is seen there began before the grace
        // period, or the mark is gone.
        self.leaving.xchg(true, Full);
        self.client.is_ending() && self.client.is_closing()
    }
}

impl Locked<'_> {
    /// Whether nothing but the descriptor is left; nothing will be any more, then.
    fn leave(&mut self) -> bool {
        let over = self.psock.leaving.load(Relaxed)
            && self.client.is_ending()
            && self.is_ours()
            && matches!(self.phase, Phase::Closing)
            && self.local.is_empty();
        if over {
            self.end(sys::XLB_REASON_CLIENT_GONE);
        }
        over
    }
}
