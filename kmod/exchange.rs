// SPDX-License-Identifier: GPL-2.0

//! One request and its response, from a framed head to the end: what a p-sock is doing, and how
//! it goes on. The steps on the way are in `decide.rs` (which endpoint), `upstream.rs` (which
//! connection, and its failures) and `replies.rs` (what XLB answers itself).
//!
//! All of it runs under the socket lock of the p-sock, in process context: in the client's own
//! `sendmsg` and `recvmsg`, or in the p-sock's work when nobody is in a system call. The phases:
//!
//! ```text
//!  Idle -> Head -> Waiting -> Relay -> Idle          the common way; Waiting only without a
//!             \        \        \                    connection at hand
//!              `--------`--------`-> Reply -> Idle   XLB answers itself
//!  Drain: the response is over but the request's body is not; the rest of it is dropped
//!  Closing: no further request is taken, readers get an end
//! ```
//!
//! Bytes of the request stay in `buf` until the first byte of a response: `held` bytes of the
//! current request, then what was pipelined. So a request that met a dead connection can be
//! sent again, unless a part of its body went straight from the user's memory to the i-sock.

use kernel::prelude::*;
use kernel::sync::Arc;
use xlb_engine::{
    Body, Framing, Reason, RequestHead, RequestParser, ResponseHead, ResponseParser, Status,
};

use crate::buf::Buf;
use crate::count;
use crate::isock::Isock;
use crate::limits;
use crate::pool::Pool;
use crate::psock::{bits, Locked};
use crate::sys;

/// See the top of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Head,
    Waiting,
    Relay,
    Reply,
    Drain,
    Closing,
    /// `close()` was called.
    Closed,
}

/// What a p-sock is doing; behind the socket lock.
pub(crate) struct Inner {
    pub(crate) phase: Phase,
    /// `bpf_xlb_accept()` was called for the connect that goes on.
    pub(crate) armed: bool,
    /// No request after this one.
    pub(crate) last: bool,
    /// Bytes of requests, the current one first.
    pub(crate) buf: Buf,
    /// How many of them belong to the current request.
    pub(crate) held: usize,
    pub(crate) parser: RequestParser,
    pub(crate) head: RequestHead,
    /// The request's body: what is still to come from the client.
    pub(crate) body: Body,
    /// The rewritten request, when it is not sent as it is.
    pub(crate) out: Option<Buf>,
    /// Bytes of `out` or `buf` that were sent.
    pub(crate) sent: usize,
    /// All of the request so far is in `buf`.
    pub(crate) whole: bool,
    /// The endpoint takes no more of the request; the rest of the body is dropped.
    pub(crate) deaf: bool,
    pub(crate) isock: Option<Isock>,
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) decision: sys::xlb_decision,
    pub(crate) picked: bool,
    pub(crate) replayed: bool,
    pub(crate) deadline_ms: u64,
    /// When an orphan ends at the latest, in milliseconds of uptime; 0 for a socket with an owner.
    pub(crate) dies_ms: u64,
    pub(crate) started_ns: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response: Response,
    /// Bytes for the client that do not come from an i-sock: replies, rewritten heads.
    pub(crate) local: Buf,
    /// Path and host as they are matched, when the request has them in another form.
    pub(crate) path: Buf,
    pub(crate) host: Buf,
    /// The path is forwarded in normal form.
    pub(crate) rewrite_path: bool,
    /// Memory of buffers that the gauge knows.
    pub(crate) counted: usize,
}

/// The response side of an exchange.
pub(crate) struct Response {
    pub(crate) parser: ResponseParser,
    /// The final head.
    pub(crate) head: Option<ResponseHead>,
    pub(crate) body: Body,
    /// Bytes at the front of the i-sock's queue that were framed and may go to the client.
    pub(crate) framed: u64,
    /// An incomplete head, taken from the i-sock.
    pub(crate) partial: Buf,
    /// Bytes from the endpoint so far.
    pub(crate) bytes: u64,
    /// Bytes came behind the end of the response.
    pub(crate) surplus: bool,
}

impl Response {
    const fn new() -> Self {
        Self {
            parser: ResponseParser::new(),
            head: None,
            body: Body::new(Framing::None),
            framed: 0,
            partial: Buf::new(),
            bytes: 0,
            surplus: false,
        }
    }
}

pub(crate) const NO_DECISION: sys::xlb_decision = sys::xlb_decision {
    route: 0,
    cluster: 0,
    cookie: [0; 2],
    addr: [0; 16],
    port: 0,
    flags: 0,
    endpoint: 0,
    pool: sys::xlb_pool_limits {
        min_idle: 0,
        max: 0,
        max_pending: 0,
        idle_timeout_ms: 0,
        connect_timeout_ms: 0,
        max_requests: 0,
        pending_timeout_ms: 0,
        cluster: 0,
    },
};

impl Inner {
    /// Between requests.
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            armed: false,
            last: false,
            buf: Buf::new(),
            held: 0,
            parser: RequestParser::new(),
            head: RequestHead::EMPTY,
            body: Body::new(Framing::None),
            out: None,
            sent: 0,
            whole: true,
            deaf: false,
            isock: None,
            pool: None,
            decision: NO_DECISION,
            picked: false,
            replayed: false,
            deadline_ms: 0,
            dies_ms: 0,
            started_ns: 0,
            request_bytes: 0,
            response: Response::new(),
            local: Buf::new(),
            path: Buf::new(),
            host: Buf::new(),
            rewrite_path: false,
            counted: 0,
        }
    }

    /// Forgets everything, for a socket that is connected anew.
    pub(crate) fn clear(&mut self) {
        let counted = self.counted;
        *self = Self::new();
        self.counted = counted;
    }

    /// Bytes of memory behind the buffers.
    pub(crate) fn memory(&self) -> usize {
        self.buf.memory()
            + self.local.memory()
            + self.response.partial.memory()
            + self.out.as_ref().map_or(0, Buf::memory)
            + self.path.memory()
            + self.host.memory()
    }

    /// The bits of [`crate::psock::bits`] and the state that `get sockets` shows.
    pub(crate) fn public(&self) -> (u32, u32) {
        let mut poll = 0;
        if !self.local.is_empty() || matches!(self.phase, Phase::Closing | Phase::Closed) {
            poll |= bits::READY;
        }
        let state = match self.phase {
            Phase::Idle | Phase::Drain => sys::XLB_SOCKET_IDLE,
            Phase::Head => sys::XLB_SOCKET_REQUEST_HEAD,
            Phase::Waiting => {
                poll |= bits::KICK;
                sys::XLB_SOCKET_WAITING
            }
            Phase::Relay => {
                poll |= bits::RELAY;
                if self.has_unsent() {
                    poll |= bits::KICK;
                }
                if !self.body.is_done() && !self.deaf {
                    poll |= bits::STREAM;
                }
                match self.response.head {
                    Some(h) if h.framing == Framing::Tunnel => sys::XLB_SOCKET_TUNNEL,
                    _ => sys::XLB_SOCKET_ACTIVE,
                }
            }
            Phase::Reply => sys::XLB_SOCKET_ACTIVE,
            Phase::Closing | Phase::Closed => sys::XLB_SOCKET_CLOSING,
        };
        // Where `sendmsg` drops what comes, there is always room.
        let drops = match self.phase {
            Phase::Closing => true,
            Phase::Reply if self.last => true,
            Phase::Relay => self.deaf && !self.body.is_done(),
            Phase::Reply | Phase::Drain => !self.body.is_done(),
            _ => false,
        };
        if self.buf.len() >= limits::hold_max() && !drops {
            poll |= bits::FULL;
        }
        (poll, state)
    }

    /// The bytes to send: the request, rewritten or as it is.
    pub(crate) fn outgoing(&self) -> &[u8] {
        let all = match &self.out {
            Some(out) => out.bytes(),
            None => self.buf.bytes().get(..self.held).unwrap_or(&[]),
        };
        all.get(self.sent..).unwrap_or(&[])
    }

    /// Whether a part of what is held was not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing().is_empty()
    }

    /// Bytes that a read would find now.
    pub(crate) fn unread(&self) -> usize {
        self.local.len() + self.isock.as_ref().map_or(0, |i| i.inq())
    }

    /// Bytes taken from the client that the endpoint has not acknowledged.
    pub(crate) fn unsent(&self) -> usize {
        let queued = match self.phase {
            Phase::Relay => self.outgoing().len(),
            _ => self.buf.len(),
        };
        let flying = self.isock.as_ref().map_or(0, |i| {
            // SAFETY: The bound i-sock is live.
            unsafe { sys::xlb_isk_outq(i.sk()) }
        });
        queued + usize::try_from(flying).unwrap_or(0)
    }

    /// Frames the part of the body that is held behind `held`.
    pub(crate) fn frame_held_body(&mut self) -> Result<(), Reason> {
        if self.body.is_done() {
            return Ok(());
        }
        let rest = self.buf.bytes().get(self.held..).unwrap_or(&[]);
        self.held += self.body.feed(rest, limits::get())?;
        Ok(())
    }
}

impl Locked<'_> {
    /// Goes on with the bytes held, when no exchange runs: frames the next request and begins it.
    /// `more` says that the client has more bytes at hand.
    pub(crate) fn advance(&mut self, more: bool) {
        while matches!(self.phase, Phase::Idle | Phase::Head | Phase::Drain) {
            if self.phase == Phase::Drain && !self.drain_held() {
                return;
            }
            if self.buf.is_empty() {
                return;
            }
            let inner = &mut **self;
            match inner.parser.parse(inner.buf.bytes(), limits::get()) {
                Ok(Status::Partial) => {
                    self.phase = Phase::Head;
                    return;
                }
                Ok(Status::Complete(head)) => self.begin(head, more),
                Err(reason) => return self.reject(reason),
            }
        }
    }

    /// Drops held bytes of a body that nobody wants; true when its end was among them.
    fn drain_held(&mut self) -> bool {
        let inner = &mut **self;
        match inner.body.feed(inner.buf.bytes(), limits::get()) {
            Ok(n) => inner.buf.consume(n),
            Err(reason) => {
                self.reject(reason);
                return false;
            }
        }
        if inner.body.is_done() {
            inner.phase = Phase::Idle;
            return true;
        }
        false
    }

    fn begin(&mut self, head: RequestHead, more: bool) {
        let inner = &mut **self;
        inner.parser = RequestParser::new();
        inner.head = head;
        inner.body = Body::new(head.framing);
        inner.held = head.head_bytes as usize;
        inner.whole = true;
        inner.deaf = false;
        inner.replayed = false;
        inner.last = head.close;
        inner.request_bytes = 0;
        inner.response = Response {
            partial: core::mem::replace(&mut inner.response.partial, Buf::new()),
            ..Response::new()
        };
        // SAFETY: Reads the clock.
        inner.started_ns = unsafe { sys::xlb_now_ns() };
        if let Err(reason) = inner.frame_held_body() {
            return self.reject(reason);
        }
        count::inc(sys::XLB_COUNTER_REQUESTS);
        self.psock.count_request();
        let reason = match self.ask_route() {
            Ok(0) => self.ask_pick(0),
            Ok(reason) => reason,
            Err(reason) => return self.reject(reason),
        };
        if reason != sys::XLB_REASON_OK {
            return self.reply(reason, "");
        }
        if let Err(reason) = self.settle() {
            return self.reject(reason);
        }
        self.connect(more);
    }

    /// The response has been read to its end by the client.
    pub(crate) fn finish(&mut self) {
        self.psock.set_rx(core::ptr::null_mut());
        let inner = &mut **self;
        let response = &inner.response;
        let close = response.head.is_none_or(|h| h.close);
        let to_end = matches!(
            response.head.map(|h| h.framing),
            Some(Framing::UntilClose | Framing::Tunnel)
        );
        let keep = !close
            && !to_end
            && !inner.deaf
            && !inner.head.solo
            && !inner.body.had_trailers()
            && !response.surplus
            && inner.body.is_done()
            && !inner.has_unsent();
        if response.surplus {
            count::inc(sys::XLB_COUNTER_DESYNC);
        }
        inner.last |= to_end;
        inner.response.partial.reset();
        if let Some(isock) = self.isock.take() {
            self.take_options_back(&isock);
            isock.pool.clone().release(isock, keep);
        }
        count::inc(sys::XLB_COUNTER_RESPONSES);
        count::reason(sys::XLB_REASON_OK);
        self.done(sys::XLB_REASON_OK);
        self.next();
    }

    /// After an exchange: the next request, the rest of a body that nobody wants, or the end.
    pub(crate) fn next(&mut self) {
        let inner = &mut **self;
        inner.out = None;
        inner.sent = 0;
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        inner.buf.relax();
        inner.local.relax();
        inner.response.head = None;
        if inner.last || self.psock.is_ending() {
            return self.close_client(false);
        }
        if self.phase == Phase::Closing {
            return;
        }
        if self.body.is_done() {
            self.phase = Phase::Idle;
        } else if self.head.expect_continue {
            // The client may or may not send the body now: the next byte means nothing.
            return self.close_client(false);
        } else {
            self.phase = Phase::Drain;
        }
        self.advance(false);
        // A client that has shut its side down gets its end after the last response.
        // SAFETY: The socket is live.
        let shut = unsafe { sys::xlb_sk_shutdown(self.psock.sk) } & SEND_SHUTDOWN != 0;
        if shut && matches!(self.phase, Phase::Idle | Phase::Head | Phase::Drain) {
            self.close_client(false);
        }
    }

    /// No further request: readers get what is left and then an end, or `ECONNRESET`.
    pub(crate) fn close_client(&mut self, reset: bool) {
        self.phase = Phase::Closing;
        self.buf.reset();
        self.held = 0;
        // SAFETY: The socket lock is held.
        unsafe {
            if reset {
                sys::xlb_sk_set_error(self.psock.sk, sys::XLB_ECONNRESET as i32);
                sys::xlb_sk_shut(self.psock.sk, RCV_SHUTDOWN | SEND_SHUTDOWN);
            } else {
                sys::xlb_sk_shut(self.psock.sk, RCV_SHUTDOWN);
            }
            sys::xlb_sk_state_change(self.psock.sk);
        }
        self.psock.wake_writer();
    }

    /// The client ends its side: an incomplete request will never be whole.
    pub(crate) fn shut_send(&mut self) {
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Drain => self.close_client(false),
            Phase::Waiting | Phase::Relay if !self.body.is_done() => {
                if self.is_tunnel() {
                    self.flush();
                    self.pass_on_end();
                } else {
                    self.abandon(sys::XLB_REASON_CLIENT_GONE);
                    self.close_client(false);
                }
            }
            _ => {}
        }
    }

    /// Whether bytes that the client wrote are on their way to an endpoint, and not acknowledged.
    pub(crate) fn is_sending(&self) -> bool {
        match self.phase {
            Phase::Waiting => true,
            Phase::Relay => {
                let lives = |i: &Isock| !i.is_dead() || i.end_in_order();
                self.isock.as_ref().is_some_and(lives) && !self.deaf && self.unsent() > 0
            }
            _ => false,
        }
    }

    /// The connection that the running exchange is bound to.
    pub(crate) fn relaying(&self) -> Option<&Isock> {
        self.isock.as_ref().filter(|_| self.phase == Phase::Relay)
    }

    fn is_tunnel(&self) -> bool {
        let head = &self.response.head;
        head.is_some_and(|h| h.framing == Framing::Tunnel)
    }

    /// Ends the endpoint's side of a tunnel when the client has ended its own and all of it was
    /// sent.
    pub(crate) fn pass_on_end(&mut self) {
        // SAFETY: The socket is live.
        let shut = unsafe { sys::xlb_sk_shutdown(self.psock.sk) } & SEND_SHUTDOWN != 0;
        if !shut || !self.is_tunnel() || self.has_unsent() {
            return;
        }
        if let Some(isock) = &self.isock {
            isock.shut_write();
        }
    }

    /// Ends what is going on without a word: the client is gone.
    pub(crate) fn abandon(&mut self, reason: u32) {
        let busy = matches!(self.phase, Phase::Waiting | Phase::Relay);
        self.leave_queue();
        self.unbind();
        self.done(reason);
        if busy {
            count::reason(reason);
        }
        self.local.reset();
        self.buf.reset();
        self.response.partial.reset();
        self.held = 0;
    }

    /// Ends all that a socket is doing, for good: it is closed.
    pub(crate) fn end(&mut self, reason: u32) {
        self.abandon(reason);
        self.phase = Phase::Closed;
        self.pool = None;
    }

    /// The p-sock's work.
    pub(crate) fn work(&mut self) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.is_orphan() {
            self.set_orphan_timer();
        }
        match self.phase {
            Phase::Waiting => self.waited(),
            Phase::Relay => {
                self.flush();
                self.pass_on_end();
                self.park();
                self.ask_another();
                self.psock.wake_writer();
            }
            _ => {}
        }
        if self.is_orphan() {
            return self.work_as_orphan();
        }
        if self.psock.is_ending() {
            self.last = true;
            if matches!(self.phase, Phase::Idle | Phase::Head | Phase::Drain) {
                self.close_client(false);
            }
        }
    }
}

/// Lets `write` fill `buf` behind its contents with at most `bound` bytes.
pub(crate) fn fill_with(
    buf: &mut Buf,
    bound: usize,
    write: impl FnOnce(&mut [u8]) -> Result<usize, Reason>,
) -> Result<(), Reason> {
    let mut result = Ok(());
    buf.reserve(bound).map_err(|_| Reason::OutputFull)?;
    buf.fill(bound, |to, n| {
        // SAFETY: `n` bytes of spare capacity; zeroed before they are seen as a slice.
        let to = unsafe {
            core::ptr::write_bytes(to, 0, n);
            core::slice::from_raw_parts_mut(to, n)
        };
        match write(to) {
            Ok(n) => n,
            Err(e) => {
                result = Err(e);
                0
            }
        }
    });
    result
}

/// `include/net/sock.h`
pub(crate) const RCV_SHUTDOWN: u32 = 1;
/// `include/net/sock.h`
pub(crate) const SEND_SHUTDOWN: u32 = 2;
/// `EAGAIN` as the shim's functions return it, negated.
pub(crate) const EAGAIN_I: i32 = sys::XLB_EAGAIN as i32;
