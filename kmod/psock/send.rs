// SPDX-License-Identifier: GPL-2.0

//! `sendmsg` on a p-sock: gives the user's bytes to the session, and waits for room as TCP does.

use super::{from_c, Locked};
use crate::http1::{Phase, Taken, EAGAIN_I, SEND_SHUTDOWN};
use crate::sys;

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with the message of the current system call.
#[no_mangle]
unsafe extern "C" fn xlb_psock_sendmsg(
    psock: *mut sys::xlb_psock,
    msg: *mut sys::msghdr,
    _len: usize,
    flags: i32,
) -> i32 {
    const MSG_OOB: i32 = 1;
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    if flags & MSG_OOB != 0 {
        return -(kernel::bindings::EOPNOTSUPP as i32);
    }
    let sent = psock.locked(|locked| locked.send(msg, flags));
    if sent >= 0 {
        return sent;
    }
    // SAFETY: The socket is live; may raise SIGPIPE.
    unsafe { sys::xlb_sk_send_error(psock.client.sk, flags, sent) }
}

impl Locked<'_> {
    /// Takes bytes until none is left, or no room is there and one must not wait for it. The number of
    /// bytes, or `-errno`.
    fn send(&mut self, msg: *mut sys::msghdr, flags: i32) -> i32 {
        const MSG_DONTWAIT: i32 = 0x40;
        let sk = self.client.sk;
        // SAFETY: The socket is live; `msg` is ours.
        let (mut timeo, all) = unsafe {
            (
                sys::xlb_sk_sndtimeo(sk, flags & MSG_DONTWAIT),
                sys::xlb_msg_left(msg),
            )
        };
        // SAFETY: The lock is held.
        let notice = unsafe { sys::xlb_sk_zerocopy_begin(sk, all, flags) };
        let notice = match kernel::error::from_err_ptr(notice) {
            Ok(notice) => notice,
            Err(err) => return err.to_errno(),
        };
        let err = loop {
            // SAFETY: `msg` is ours.
            let left = unsafe { sys::xlb_msg_left(msg) };
            // As in TCP: an error is for the next call when this one has something to return.
            if left == 0 || (left != all && self.has_error()) {
                break 0;
            }
            let err = self.take_error();
            if err != 0 {
                break err;
            }
            // SAFETY: The socket is live.
            let shut = unsafe { sys::xlb_sk_shutdown(sk) } & SEND_SHUTDOWN != 0;
            let over = matches!(self.phase, Phase::Closing | Phase::Closed);
            if shut || over || !self.is_ours() {
                break -(sys::XLB_EPIPE as i32);
            }
            match self.take(msg) {
                Taken::Some => continue,
                Taken::Error(err) => break err,
                Taken::None => {}
            }
            if timeo == 0 {
                break -EAGAIN_I;
            }
            if let Err(err) = self.wait_writable(&mut timeo) {
                break err;
            }
        };
        // SAFETY: `msg` is ours.
        let taken = all - unsafe { sys::xlb_msg_left(msg) };
        if !notice.is_null() {
            // SAFETY: Begun above; the lock is held.
            unsafe { sys::xlb_sk_zerocopy_end(notice, taken) };
        }
        if taken > 0 || err == 0 {
            return i32::try_from(taken).unwrap_or(i32::MAX);
        }
        err
    }
}
