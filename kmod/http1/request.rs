// SPDX-License-Identifier: GPL-2.0

//! What a client writes: from the user's bytes to requests.
//!
//! Heads are copied into `buf`, framed and decided on; bytes of bodies go from the user's memory
//! straight into the i-sock's send queue, which is the one copy that plain TCP makes as well. Of a
//! chunked body only the lines between the chunks are copied, for the user may change memory that
//! was framed before it is sent.

use xlb_engine::{Body, Framing};

use super::{Active, Phase, Relay, EAGAIN_I};
use crate::limits;
use crate::sys;

/// How much of a chunked body is looked at in one go when its next byte must be framed.
const LINE_BYTES: usize = 64;

/// What became of a piece of the user's bytes.
pub(crate) enum Taken {
    /// Some bytes were taken, or the phase has changed.
    Some,
    /// Nothing fits now.
    None,
    /// `-errno`
    Error(i32),
}

impl Active<'_> {
    /// Takes some of the user's bytes.
    pub(crate) fn take(&mut self, msg: *mut sys::msghdr) -> Taken {
        match &self.phase {
            Phase::Idle | Phase::Head(_) => self.take_head(msg),
            // The last reply is on its way: what follows is nothing to anybody, and a client that
            // writes before it reads must not wait for ever.
            Phase::Reply if self.last => {
                // SAFETY: `msg` is ours, and has that much left.
                unsafe { sys::xlb_msg_skip(msg, sys::xlb_msg_left(msg)) };
                Taken::Some
            }
            Phase::Relay(relay) if !self.body.is_done() => {
                if relay.upload.deaf {
                    self.drop_body(msg)
                } else {
                    self.stream(msg)
                }
            }
            Phase::Reply | Phase::Drain if !self.body.is_done() => {
                let taken = self.drop_body(msg);
                if matches!(self.phase, Phase::Drain) && self.body.is_done() {
                    self.phase = Phase::Idle;
                    self.advance(false);
                }
                taken
            }
            Phase::Drain => {
                self.phase = Phase::Idle;
                Taken::Some
            }
            _ => self.hold(msg),
        }
    }

    /// Copies bytes behind what is held.
    fn copy_in(&mut self, msg: *mut sys::msghdr, max: usize) -> Result<usize, i32> {
        // SAFETY: `msg` is ours.
        let left = unsafe { sys::xlb_msg_left(msg) };
        let room = match self.buf.make_room(limits::hold_max()) {
            Ok(room) => room.min(max).min(left),
            Err(e) => return Err(e.to_errno()),
        };
        if room == 0 {
            return Ok(0);
        }
        // SAFETY: `fill` gives `n` writable bytes; `msg` is ours.
        let n = self.buf.fill(room, |to, n| unsafe {
            sys::xlb_msg_copy_in(msg, to.cast(), n)
        });
        if n == 0 {
            return Err(-(kernel::bindings::EFAULT as i32));
        }
        Ok(n)
    }

    fn take_head(&mut self, msg: *mut sys::msghdr) -> Taken {
        match self.copy_in(msg, limits::hold_max()) {
            Ok(0) => Taken::None,
            Ok(_) => {
                // SAFETY: `msg` is ours.
                let more = unsafe { sys::xlb_msg_left(msg) } > 0;
                self.advance(more);
                Taken::Some
            }
            Err(err) => Taken::Error(err),
        }
    }

    /// Bytes that have to wait: a body before its connection, or requests behind the current one.
    fn hold(&mut self, msg: *mut sys::msghdr) -> Taken {
        match self.copy_in(msg, limits::hold_max()) {
            Ok(0) => Taken::None,
            Ok(_) => {
                if matches!(self.phase, Phase::Waiting(_)) {
                    if let Err(reason) = self.frame_held_body() {
                        self.reject(reason);
                    }
                }
                Taken::Some
            }
            Err(err) => Taken::Error(err),
        }
    }

    /// The body of a request whose i-sock is there.
    fn stream(&mut self, msg: *mut sys::msghdr) -> Taken {
        self.flush();
        let unsent = self.has_unsent();
        let inner = &mut **self;
        let Phase::Relay(Relay { isock, upload, .. }) = &mut inner.phase else {
            return Taken::Some;
        };
        if upload.deaf {
            return Taken::Some;
        }
        if unsent {
            return Taken::None;
        }
        let opaque = inner.body.opaque();
        if opaque == 0 {
            return self.stream_line(msg);
        }
        // SAFETY: `msg` is ours.
        let left = unsafe { sys::xlb_msg_left(msg) };
        let len = usize::try_from(opaque).unwrap_or(usize::MAX).min(left);
        // The line that follows a chunk comes at once; what follows a whole body may be long in coming.
        let more = left > len && inner.head.framing == Framing::Chunked;
        let n = isock.lock().send_msg(msg, len, more);
        if n == -EAGAIN_I {
            return Taken::None;
        }
        if n == -(kernel::bindings::EFAULT as i32) {
            return Taken::Error(n);
        }
        let Ok(n) = u64::try_from(n) else {
            // The endpoint may have answered before it went: that is for the reader to see.
            upload.deaf = true;
            self.client.wake_reader();
            return Taken::Some;
        };
        upload.whole = false;
        inner.body.skip(n);
        inner.exchange.request_bytes += n;
        if inner.held > 0 {
            self.flush();
        }
        Taken::Some
    }

    /// The part of a chunked body that must be looked at.
    fn stream_line(&mut self, msg: *mut sys::msghdr) -> Taken {
        // Before anything is taken: what was must not be lost.
        let out = match &mut self.phase {
            Phase::Relay(Relay { upload, .. }) => upload.out.as_mut(),
            _ => None,
        };
        let room = out.map_or(Ok(()), |out| out.reserve(LINE_BYTES));
        let room = room.and_then(|()| self.buf.reserve(LINE_BYTES));
        if let Err(e) = room {
            return Taken::Error(e.to_errno());
        }
        let mut line = [0u8; LINE_BYTES];
        let Some(bytes) = copy_line(msg, &mut line) else {
            return Taken::Error(-(kernel::bindings::EFAULT as i32));
        };
        let inner = &mut **self;
        // Bytes of the line that were framed before an error have not been sent.
        let used = match inner.body.feed(bytes, limits::get()) {
            Ok(used) => used,
            Err(reason) => {
                self.reject(reason);
                return Taken::Some;
            }
        };
        let (ours, next) = bytes.split_at_checked(used).unwrap_or((bytes, &[]));
        let Phase::Relay(Relay { upload, .. }) = &mut inner.phase else {
            return Taken::Some;
        };
        if inner.held > limits::hold_max() {
            upload.whole = false;
        }
        // The body is not done before these bytes, so nothing is pipelined behind `held` yet.
        let stored = match &mut upload.out {
            Some(out) => out.append(ours),
            None => Ok(()),
        };
        let stored = stored.and_then(|()| inner.buf.append(ours)).and_then(|()| {
            inner.held += ours.len();
            inner.buf.append(next)
        });
        if stored.is_err() {
            return Taken::Error(-(kernel::bindings::ENOMEM as i32));
        }
        self.flush();
        Taken::Some
    }

    /// Bytes of a body that nobody wants.
    fn drop_body(&mut self, msg: *mut sys::msghdr) -> Taken {
        let opaque = self.body.opaque();
        if opaque > 0 {
            // SAFETY: `msg` is ours.
            let left = unsafe { sys::xlb_msg_left(msg) };
            let n = usize::try_from(opaque).unwrap_or(usize::MAX).min(left);
            // SAFETY: `msg` is ours and has `n` bytes left.
            unsafe { sys::xlb_msg_skip(msg, n) };
            self.body.skip(n as u64);
            return Taken::Some;
        }
        // As in `stream_line`.
        if let Err(e) = self.buf.reserve(LINE_BYTES) {
            return Taken::Error(e.to_errno());
        }
        let mut line = [0u8; LINE_BYTES];
        let Some(bytes) = copy_line(msg, &mut line) else {
            return Taken::Error(-(kernel::bindings::EFAULT as i32));
        };
        match self.body.feed(bytes, limits::get()) {
            Ok(used) => {
                if self.buf.append(bytes.get(used..).unwrap_or(&[])).is_err() {
                    return Taken::Error(-(kernel::bindings::ENOMEM as i32));
                }
            }
            // The reply is on its way; nothing that follows can be framed.
            Err(_) => {
                self.last = true;
                self.body = Body::new(Framing::None);
                if matches!(self.phase, Phase::Drain) {
                    self.close_client(false);
                }
            }
        }
        Taken::Some
    }
}

/// Copies the next bytes of the message, which are to be looked at; `None` when its memory is not there.
fn copy_line(msg: *mut sys::msghdr, line: &mut [u8; LINE_BYTES]) -> Option<&[u8]> {
    // SAFETY: `msg` is that of the current system call, `line` is as long as we say.
    let n = unsafe {
        let n = sys::xlb_msg_left(msg).min(LINE_BYTES);
        sys::xlb_msg_copy_in(msg, line.as_mut_ptr().cast(), n)
    };
    line.get(..n).filter(|bytes| !bytes.is_empty())
}
