// SPDX-License-Identifier: GPL-2.0

//! `recvmsg(MSG_PEEK)` on a p-sock: looks at a response without taking it.
//!
//! As in `tcp_recvmsg_locked()` a peek begins at the socket's offset (SO_PEEK_OFF), copies all that is there,
//! and with MSG_WAITALL waits until its length is. What it can see ends with the current response: the next
//! one is not asked for before this one has been read. There, and where no more fits into the i-sock's
//! window, a peek returns what it has.
//!
//! Positions count from the next byte that a read would return: first `local`, then the i-sock's queue.

use xlb_engine::reason::Class;

use super::response::scan;
use super::{Active, Read, Relay, Stage};
use crate::sys;

impl Active<'_> {
    /// Copies bytes from position `at` on, at most `len`.
    pub(crate) fn peek(
        &mut self,
        msg: *mut sys::msghdr,
        len: usize,
        flags: i32,
        at: usize,
    ) -> Read {
        if at == 0 {
            return self.read(msg, len, flags);
        }
        let local = self.local.bytes().get(at..).unwrap_or(&[]);
        if !local.is_empty() {
            let n = local.len().min(len);
            return Self::copy(msg, local.get(..n).unwrap_or(local), flags);
        }
        if self.relay().is_none() {
            return Read::Empty;
        }
        self.peek_behind(msg, len, flags, at - self.local.len())
    }

    /// Copies `bytes` to the client.
    pub(crate) fn copy(msg: *mut sys::msghdr, bytes: &[u8], flags: i32) -> Read {
        const MSG_TRUNC: i32 = 0x20;
        if flags & MSG_TRUNC == 0 {
            // SAFETY: `msg` is ours; `bytes` are valid.
            let n = unsafe { sys::xlb_msg_copy_out(msg, bytes.as_ptr().cast(), bytes.len()) };
            if n < bytes.len() {
                return Read::Error(-(kernel::bindings::EFAULT as i32));
            }
        }
        Read::Bytes(bytes.len())
    }

    /// From position `at` of the i-sock's queue. What is refused there is so by the read that comes to it.
    fn peek_behind(&mut self, msg: *mut sys::msghdr, len: usize, flags: i32, at: usize) -> Read {
        if self.relay().is_some_and(|r| r.response.lacks_head()) {
            return match self.frame_head() {
                Ok(true) => Read::Again,
                // No memory: nothing that a read would refuse.
                Err(reason) if reason.class() == Class::Internal => {
                    Read::Error(-(kernel::bindings::ENOMEM as i32))
                }
                Ok(false) | Err(_) => Read::Empty,
            };
        }
        let Some(Relay {
            isock, response, ..
        }) = self.relay_mut()
        else {
            return Read::Empty;
        };
        let want = (at as u64).saturating_add(len as u64);
        if scan(isock, response, want).is_err() {
            return Read::Empty;
        }
        let seen = usize::try_from(response.passable()).unwrap_or(usize::MAX);
        let len = len.min(seen.saturating_sub(at));
        let Some(at) = u32::try_from(at).ok().filter(|_| len > 0) else {
            return Read::Empty;
        };
        match isock.peek_msg(msg, len, flags, at) {
            n @ 1.. => Read::Bytes(n as usize),
            n if n == -(kernel::bindings::EFAULT as i32) => Read::Error(n),
            _ => Read::Empty,
        }
    }

    /// Whether a peek that has seen all up to position `at` may see more without a read.
    pub(crate) fn may_see_more(&self, at: usize) -> bool {
        let Some(Relay {
            isock, response, ..
        }) = self.relay()
        else {
            return false;
        };
        if isock.is_dead() {
            return false;
        }
        let Stage::Body(_, mut body) = response.stage else {
            return response.framed == 0;
        };
        let end = (self.local.len() as u64).saturating_add(response.framed);
        body.skip((at as u64).saturating_sub(end));
        !body.is_done()
    }
}
