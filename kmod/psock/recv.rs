// SPDX-License-Identifier: GPL-2.0

//! `recvmsg` on a p-sock: reads from the session, and waits as TCP does.
//!
//! What a read promises is what TCP promises (`tcp_recvmsg_locked()`): it returns all that is there,
//! up to the length that was asked for, through heads, bodies and responses. So a read that returns less
//! (and does not peek) says that nothing more was there; what comes later raises an edge, and so does what
//! this call itself has made readable and did not take: see [`Locked::did_read_short`].

use super::{from_c, Locked};
use crate::http1::{Read, EAGAIN_I, RCV_SHUTDOWN};
use crate::sys;

const MSG_PEEK: i32 = 0x2;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_WAITALL: i32 = 0x100;

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with the message of the current system call.
#[no_mangle]
unsafe extern "C" fn xlb_psock_recvmsg(
    psock: *mut sys::xlb_psock,
    msg: *mut sys::msghdr,
    len: usize,
    flags: i32,
) -> i32 {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.locked(|locked| locked.receive(msg, len, flags))
}

impl Locked<'_> {
    /// Reads until `len` bytes are copied, or nothing more is there and that is enough (SO_RCVLOWAT,
    /// MSG_WAITALL, time-outs: as in TCP). The number of bytes, 0 at the end, or `-errno`.
    fn receive(&mut self, msg: *mut sys::msghdr, len: usize, flags: i32) -> i32 {
        let sk = self.client.sk;
        let len = len.min(i32::MAX as usize);
        // SAFETY: The socket is live.
        let (mut timeo, target) = unsafe {
            (
                sys::xlb_sk_rcvtimeo(sk, flags & MSG_DONTWAIT),
                sys::xlb_sk_rcvlowat(sk, flags & MSG_WAITALL, len as i32),
            )
        };
        let target = usize::try_from(target).unwrap_or(1);
        let peeks = flags & MSG_PEEK != 0;
        let offset = match peeks {
            // SAFETY: The socket is live.
            true => usize::try_from(unsafe { sys::xlb_sk_peek_offset(sk) }).unwrap_or(0),
            false => 0,
        };
        let mut copied = 0;
        let mut control = sys::xlb_control::default();
        let err = loop {
            // As in TCP, an error is for the next call when there is something to return.
            if copied >= len || (copied > 0 && self.has_error()) {
                break 0;
            }
            if !self.is_ours() {
                break -(sys::XLB_ENOTCONN as i32);
            }
            let read = self.stamped(msg, &mut control, |locked| match peeks {
                true => locked.peek(msg, len - copied, flags, offset + copied),
                false => locked.read(msg, len - copied, flags),
            });
            match read {
                Read::Bytes(n) => {
                    copied += n;
                    // The common end: the response is over, and no other one is under way.
                    if copied >= target && !peeks && self.is_idle() {
                        break 0;
                    }
                    continue;
                }
                Read::Again => continue,
                Read::End => break 0,
                Read::Error(err) => break err,
                Read::Empty => {}
            }
            if copied >= target {
                break 0;
            }
            let err = self.take_error();
            if err != 0 {
                break err;
            }
            // SAFETY: The socket is live.
            if unsafe { sys::xlb_sk_shutdown(sk) } & RCV_SHUTDOWN != 0 {
                break 0;
            }
            if timeo == 0 {
                break -EAGAIN_I;
            }
            // A peek leaves what it has seen: it waits for more than that.
            let seen = if offset + copied > 0 {
                self.unread()
            } else {
                0
            };
            if copied > 0 && peeks && !self.may_see_more(offset + copied) {
                break 0;
            }
            if let Err(err) = self.wait_readable(&mut timeo, if peeks { seen + 1 } else { 1 }) {
                break err;
            }
            if peeks && seen > 0 && self.unread() <= seen {
                break -EAGAIN_I;
            }
        };
        if copied > 0 || err == 0 {
            self.tell_unread(msg);
        }
        if copied == 0 {
            return err;
        }
        // SAFETY: The lock is held.
        unsafe { sys::xlb_sk_peek_moved(sk, flags, copied as i32) };
        if copied < len && !peeks {
            self.did_read_short();
        }
        copied as i32
    }
}
