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
//! What only one phase has lies in that phase: a connection that is awaited or used, a place in a queue and
//! its deadline, how far the request was sent, how far the response has come. It goes with the phase:
//! [`Locked::unbind`] gives up a connection or a place without an end of its response, [`Locked::finish`] after it.
//!
//! Bytes of the request stay in `buf` until the first byte of a response: `held` bytes of the
//! current request, then what was pipelined. So a request that met a dead connection can be
//! sent again, unless a part of its body went straight from the user's memory to the i-sock.

use core::ptr;

use kernel::prelude::*;
use kernel::sync::Arc;
use xlb_engine::{
    Body, Framing, Reason, RequestHead, RequestParser, ResponseHead, ResponseParser, Status,
};

use crate::buf::Buf;
use crate::count;
use crate::identity::{Cred, Id};
use crate::isock::Isock;
use crate::limits;
use crate::pool::Pool;
use crate::psock::{bits, Locked};
use crate::recent::Recent;
use crate::sys;
use crate::table;

/// See the top of the file.
pub(crate) enum Phase {
    Idle,
    /// A part of a head is held.
    Head(RequestParser),
    /// Between two phases, while an endpoint and a connection are looked for: nobody sees it who
    /// takes the socket lock.
    Deciding,
    Waiting(Wait),
    Relay(Relay),
    Reply,
    Drain,
    Closing,
    /// `close()` was called.
    Closed,
}

impl Phase {
    /// Ends a relay and takes its connection out. The rest is dropped where it is: it is large, and nobody wants it.
    fn take_isock(&mut self) -> Option<Isock> {
        let Self::Relay(relay) = self else {
            return None;
        };
        let Relay {
            isock,
            upload,
            response,
        } = relay;
        // SAFETY: Each part is moved or dropped once, and what is left of them is overwritten, not dropped. Nothing in
        // between returns or panics.
        unsafe {
            let isock = ptr::read(isock);
            ptr::drop_in_place(upload);
            ptr::drop_in_place(response);
            ptr::write(self, Self::Deciding);
            Some(isock)
        }
    }
}

/// A request without connection.
pub(crate) struct Wait {
    pub(crate) on: WaitOn,
    /// In milliseconds of uptime; 0 for none.
    pub(crate) deadline_ms: u64,
}

/// What a request waits for.
pub(crate) enum WaitOn {
    /// The end of a connect.
    Connect(Isock),
    /// Its turn in the queue of a pool, or what it was given there.
    Turn(Arc<Pool>),
}

/// A request that an endpoint has, or gets.
pub(crate) struct Relay {
    pub(crate) isock: Isock,
    pub(crate) upload: Upload,
    pub(crate) response: Response,
}

/// How far the request has gone to the endpoint.
pub(crate) struct Upload {
    /// The rewritten request, when it is not sent as it is held.
    pub(crate) out: Option<Buf>,
    /// Bytes of `out`, or else of what is held, that were sent.
    pub(crate) sent: usize,
    /// All of the request so far is held.
    pub(crate) whole: bool,
    /// The endpoint takes no more of it; the rest of the body is dropped.
    pub(crate) deaf: bool,
}

impl Upload {
    /// The bytes to send: of the rewritten request, or of the `held` bytes in `buf`.
    pub(crate) fn unsent<'a>(&'a self, buf: &'a Buf, held: usize) -> &'a [u8] {
        let all = match &self.out {
            Some(out) => out.bytes(),
            None => buf.bytes().get(..held).unwrap_or(&[]),
        };
        all.get(self.sent..).unwrap_or(&[])
    }
}

/// How far the response has come.
pub(crate) struct Response {
    pub(crate) stage: Stage,
    /// Bytes at the front of the i-sock's queue that were framed and may go to the client.
    pub(crate) framed: u64,
    /// An incomplete head, taken from the i-sock.
    pub(crate) partial: Buf,
    /// Bytes from the endpoint so far.
    pub(crate) bytes: u64,
    /// Bytes came behind the end of the response.
    pub(crate) surplus: bool,
}

/// What comes next from the endpoint.
pub(crate) enum Stage {
    /// A head, interim or final.
    Head(ResponseParser),
    /// The rest of the body that this final head announces.
    Body(ResponseHead, Body),
}

impl Response {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Head(ResponseParser::new()),
            framed: 0,
            partial: Buf::new(),
            bytes: 0,
            surplus: false,
        }
    }

    /// The final head, once it is there.
    pub(crate) fn head(&self) -> Option<&ResponseHead> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(head, _) => Some(head),
        }
    }

    /// Whether a head must be framed before anything can be read.
    pub(crate) fn lacks_head(&self) -> bool {
        self.framed == 0 && matches!(self.stage, Stage::Head(_))
    }

    /// Bytes at the front of the i-sock's queue, there or still to come, that may go to the client
    /// without being looked at.
    pub(crate) fn passable(&self) -> u64 {
        let opaque = match &self.stage {
            Stage::Head(_) => 0,
            Stage::Body(_, body) => body.opaque(),
        };
        self.framed.saturating_add(opaque)
    }

    /// Counts `bytes` that went to the client.
    pub(crate) fn pass(&mut self, bytes: u64) {
        let framed = self.framed.min(bytes);
        self.framed -= framed;
        self.bytes += bytes;
        if let Stage::Body(_, body) = &mut self.stage {
            body.skip(bytes - framed);
        }
    }

    /// Whether all of it was taken from the i-sock.
    pub(crate) fn is_over(&self) -> bool {
        self.framed == 0 && matches!(&self.stage, Stage::Body(_, body) if body.is_done())
    }

    /// Whether it may end with the connection now.
    pub(crate) fn ends_at_close(&self) -> bool {
        matches!(&self.stage, Stage::Body(_, body) if body.at_close().is_ok())
    }

    /// Whether it was taken by 101 (Switching Protocols).
    pub(crate) fn is_tunnel(&self) -> bool {
        self.head().is_some_and(|h| h.framing == Framing::Tunnel)
    }
}

/// What a p-sock is doing; behind the socket lock.
pub(crate) struct Inner {
    pub(crate) phase: Phase,
    /// `bpf_xlb_accept()` was called for the connect that goes on.
    pub(crate) armed: bool,
    /// No request after this one.
    pub(crate) last: bool,
    /// The path is forwarded in normal form.
    pub(crate) rewrite_path: bool,
    /// An endpoint was picked for the request, and the policy not told yet how it did.
    pub(crate) picked: bool,
    /// The request was sent again.
    pub(crate) replayed: bool,
    /// An option was set since `identity` was read.
    pub(crate) stale: bool,
    /// Bytes of requests, the current one first.
    pub(crate) buf: Buf,
    /// How many of them belong to the current request.
    pub(crate) held: usize,
    /// The head of the current request.
    pub(crate) head: RequestHead,
    /// Its body: what is still to come from the client.
    pub(crate) body: Body,
    pub(crate) decision: sys::xlb_decision,
    /// The pools of the last requests: most likely those of the next ones.
    pub(crate) pools: Recent,
    /// What connections of this client must be like, and who connected; none before the first connect.
    pub(crate) identity: Option<Id>,
    pub(crate) caller: Option<Cred>,
    /// When an orphan ends at the latest, in milliseconds of uptime; 0 for a socket with an owner.
    pub(crate) dies_ms: u64,
    pub(crate) started_ns: u64,
    pub(crate) request_bytes: u64,
    /// Bytes for the client that do not come from an i-sock: replies, rewritten heads.
    pub(crate) local: Buf,
    /// Path and host as they are matched, when the request has them in another form.
    pub(crate) path: Buf,
    pub(crate) host: Buf,
    /// Memory of buffers that the gauge knows.
    pub(crate) counted: u32,
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
            rewrite_path: false,
            picked: false,
            replayed: false,
            stale: false,
            buf: Buf::new(),
            held: 0,
            head: RequestHead::EMPTY,
            body: Body::new(Framing::None),
            decision: NO_DECISION,
            pools: Recent::new(),
            identity: None,
            caller: None,
            dies_ms: 0,
            started_ns: 0,
            request_bytes: 0,
            local: Buf::new(),
            path: Buf::new(),
            host: Buf::new(),
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
        let relayed = self.relay().map_or(0, |relay| {
            relay.response.partial.memory() + relay.upload.out.as_ref().map_or(0, Buf::memory)
        });
        self.buf.memory() + self.local.memory() + self.path.memory() + self.host.memory() + relayed
    }

    /// Whether nothing is to be read, and nothing will come before the client writes.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head(_)) && self.local.is_empty()
    }

    /// The request that an endpoint has.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        match &self.phase {
            Phase::Relay(relay) => Some(relay),
            _ => None,
        }
    }

    /// As [`Inner::relay`], to change it.
    pub(crate) fn relay_mut(&mut self) -> Option<&mut Relay> {
        match &mut self.phase {
            Phase::Relay(relay) => Some(relay),
            _ => None,
        }
    }

    /// The connection that the request has, or waits for.
    pub(crate) fn isock(&self) -> Option<&Isock> {
        match &self.phase {
            Phase::Relay(relay) => Some(&relay.isock),
            Phase::Waiting(wait) => match &wait.on {
                WaitOn::Connect(isock) => Some(isock),
                WaitOn::Turn(_) => None,
            },
            _ => None,
        }
    }

    /// The bits of [`crate::psock::bits`] and the state that `get sockets` shows.
    pub(crate) fn public(&self) -> (u32, u32) {
        let mut poll = 0;
        if !self.local.is_empty() || matches!(self.phase, Phase::Closing | Phase::Closed) {
            poll |= bits::READY;
        }
        // Where `sendmsg` drops what comes, there is always room.
        let mut drops = false;
        let state = match &self.phase {
            Phase::Idle | Phase::Deciding => sys::XLB_SOCKET_IDLE,
            Phase::Drain => {
                drops = !self.body.is_done();
                sys::XLB_SOCKET_IDLE
            }
            Phase::Head(_) => sys::XLB_SOCKET_REQUEST_HEAD,
            Phase::Waiting(_) => {
                poll |= bits::KICK;
                sys::XLB_SOCKET_WAITING
            }
            Phase::Relay(relay) => {
                poll |= bits::RELAY;
                if !relay.upload.unsent(&self.buf, self.held).is_empty() {
                    poll |= bits::KICK;
                }
                if !self.body.is_done() {
                    if relay.upload.deaf {
                        drops = true;
                    } else {
                        poll |= bits::STREAM;
                    }
                }
                if relay.response.is_tunnel() {
                    sys::XLB_SOCKET_TUNNEL
                } else {
                    sys::XLB_SOCKET_ACTIVE
                }
            }
            Phase::Reply => {
                drops = self.last || !self.body.is_done();
                sys::XLB_SOCKET_ACTIVE
            }
            Phase::Closing | Phase::Closed => {
                drops = matches!(self.phase, Phase::Closing);
                sys::XLB_SOCKET_CLOSING
            }
        };
        if self.buf.len() >= limits::hold_max() && !drops {
            poll |= bits::FULL;
        }
        (poll, state)
    }

    /// Whether a part of what is held for the endpoint was not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.relay()
            .is_some_and(|relay| !relay.upload.unsent(&self.buf, self.held).is_empty())
    }

    /// Bytes that a read would find now.
    pub(crate) fn unread(&self) -> usize {
        self.local.len() + self.isock().map_or(0, |i| i.inq())
    }

    /// Bytes taken from the client that the endpoint has not acknowledged.
    pub(crate) fn unsent(&self) -> usize {
        let queued = match &self.phase {
            Phase::Relay(relay) => relay.upload.unsent(&self.buf, self.held).len(),
            _ => self.buf.len(),
        };
        queued + self.isock().map_or(0, |i| i.outq())
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
        loop {
            if matches!(self.phase, Phase::Drain) && !self.drain_held() {
                return;
            }
            let mut parser = match &self.phase {
                Phase::Idle => RequestParser::new(),
                Phase::Head(parser) => *parser,
                _ => return,
            };
            if self.buf.is_empty() {
                return;
            }
            match parser.parse(self.buf.bytes(), limits::get()) {
                Ok(Status::Partial) => {
                    self.phase = Phase::Head(parser);
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
        inner.phase = Phase::Deciding;
        inner.head = head;
        inner.body = Body::new(head.framing);
        inner.held = head.head_bytes as usize;
        inner.replayed = false;
        inner.last = head.close;
        inner.request_bytes = 0;
        // SAFETY: Reads the clock.
        inner.started_ns = unsafe { sys::xlb_now_ns() };
        if let Err(reason) = inner.frame_held_body() {
            return self.reject(reason);
        }
        count::inc(sys::XLB_COUNTER_REQUESTS);
        self.psock.count_request();
        let reason = match self.ask_route() {
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
        self.done(sys::XLB_REASON_OK);
        let inner = &mut **self;
        let Some(relay) = inner.relay() else { return };
        let keep = relay.keeps_connection(inner);
        let response = &relay.response;
        if response.surplus {
            count::inc(sys::XLB_COUNTER_DESYNC);
        }
        let last = matches!(
            response.head().map(|h| h.framing),
            Some(Framing::UntilClose | Framing::Tunnel)
        );
        inner.last |= last;
        let Some(isock) = inner.phase.take_isock() else {
            return;
        };
        self.take_options_back(&isock);
        Pool::give_back(isock, self.pools.last(), keep);
        count::inc(sys::XLB_COUNTER_RESPONSES);
        count::reason(sys::XLB_REASON_OK);
        self.next();
    }

    /// After an exchange: the next request, the rest of a body that nobody wants, or the end.
    pub(crate) fn next(&mut self) {
        let inner = &mut **self;
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        inner.buf.relax();
        inner.local.relax();
        if inner.last || self.psock.is_ending() {
            return self.close_client(false);
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
        if shut && matches!(self.phase, Phase::Idle | Phase::Head(_) | Phase::Drain) {
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
        match &self.phase {
            Phase::Idle | Phase::Head(_) | Phase::Drain => self.close_client(false),
            Phase::Relay(relay) if relay.response.is_tunnel() => {
                self.flush();
                self.pass_on_end();
            }
            Phase::Waiting(_) | Phase::Relay(_) if !self.body.is_done() => {
                self.abandon(sys::XLB_REASON_CLIENT_GONE);
                self.close_client(false);
            }
            _ => {}
        }
    }

    /// Whether bytes that the client wrote are on their way to an endpoint, and not acknowledged.
    pub(crate) fn is_sending(&self) -> bool {
        match &self.phase {
            Phase::Waiting(_) => true,
            Phase::Relay(relay) => {
                let isock = &relay.isock;
                let lives = !isock.is_dead() || isock.end_in_order();
                lives && !relay.upload.deaf && self.unsent() > 0
            }
            _ => false,
        }
    }

    /// Ends the endpoint's side of a tunnel when the client has ended its own and all of it was
    /// sent.
    pub(crate) fn pass_on_end(&mut self) {
        // SAFETY: The socket is live.
        let shut = unsafe { sys::xlb_sk_shutdown(self.psock.sk) } & SEND_SHUTDOWN != 0;
        if !shut || self.has_unsent() {
            return;
        }
        if let Some(relay) = self.relay().filter(|r| r.response.is_tunnel()) {
            relay.isock.shut_write();
        }
    }

    /// Ends what is going on without a word: the client is gone.
    pub(crate) fn abandon(&mut self, reason: u32) {
        if matches!(self.phase, Phase::Waiting(_) | Phase::Relay(_)) {
            count::reason(reason);
        }
        self.done(reason);
        self.unbind();
        self.local.reset();
        self.buf.reset();
        self.held = 0;
    }

    /// Lets go of idle connections from a port that the client has bound: while they are kept nobody could bind it, or
    /// connect from it to their endpoints.
    pub(crate) fn free_port(&self) {
        if let Some(identity) = self.identity.as_ref().filter(|id| id.has_port()) {
            table::reset_idle(identity);
        }
    }

    /// Ends all that a socket is doing, for good: it is closed.
    pub(crate) fn end(&mut self, reason: u32) {
        self.abandon(reason);
        self.phase = Phase::Closed;
        self.free_port();
        self.pools.clear();
        self.identity = None;
        self.caller = None;
    }

    /// The p-sock's work.
    pub(crate) fn work(&mut self) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if self.is_orphan() {
            self.set_orphan_timer();
        }
        match self.phase {
            Phase::Waiting(_) => self.waited(),
            Phase::Relay(_) => {
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
            if matches!(self.phase, Phase::Idle | Phase::Head(_) | Phase::Drain) {
                self.close_client(false);
            }
        }
    }
}

impl Relay {
    /// Whether the connection may be used again after the response that has ended now.
    fn keeps_connection(&self, inner: &Inner) -> bool {
        let response = &self.response;
        let reusable = |head: &ResponseHead| {
            !head.close && !matches!(head.framing, Framing::UntilClose | Framing::Tunnel)
        };
        response.head().is_some_and(reusable)
            && !response.surplus
            && !self.upload.deaf
            && self.upload.unsent(&inner.buf, inner.held).is_empty()
            && inner.body.is_done()
            && !inner.body.had_trailers()
            && !inner.head.solo
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
