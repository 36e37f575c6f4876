// SPDX-License-Identifier: GPL-2.0

//! A client's HTTP/1 session: from the bytes that it writes to exchanges, from an exchange to an endpoint's bytes, and
//! back. One exchange at a time.
//!
//! | file | what |
//! |---|---|
//! | `client.rs`, `options.rs` | the client's socket: poll, wake, what connections have on loan from it |
//! | `mod.rs` | the phases of a session, and how it goes from one to the next |
//! | `request.rs`, `forms.rs` | the client's bytes: framing, bodies; path and host as they are matched |
//! | `upload.rs` | from an exchange to a connection: binds it, sends what is held, and what happens when it fails |
//! | `endpoint.rs`, `response.rs`, `peek.rs` | how far request and response have come; reading it where TCP has queued it |
//! | `replies.rs`, `keep_alive.rs` | what XLB answers itself; what an endpoint says of its idle connections |
//!
//! All of it runs with the client's socket lock, in process context: in the client's own
//! `sendmsg` and `recvmsg`, or in its work when nobody is in a system call. The phases:
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
//! [`Active::unbind`] gives up a connection or a place without an end of its response, [`Active::finish`] after it.
//!
//! Bytes of the request stay in `buf` until the first byte of a response: `held` bytes of the
//! current request, then what was pipelined. So a request that met a dead connection can be
//! sent again, unless a part of its body went straight from the user's memory to the i-sock.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::ptr;

use kernel::prelude::*;
use xlb_engine::{Body, Framing, Reason, RequestHead, RequestParser, Status};

use crate::buf::Buf;
use crate::count;
use crate::exchange::{Exchange, Party, Wait, With};
use crate::limits;
use crate::policy::{Actions, Request};
use crate::pool::Isock;
use crate::sys;

mod client;
mod endpoint;
mod forms;
mod keep_alive;
mod options;
mod peek;
mod replies;
mod request;
mod response;
mod upload;

pub(crate) use client::{bits, Client};
pub(crate) use endpoint::{Relay, Response, Stage, Upload};
pub(crate) use request::Taken;
pub(crate) use response::Read;

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

/// What a client is doing; behind its socket lock.
pub(crate) struct Session {
    pub(crate) phase: Phase,
    /// No request after this one.
    pub(crate) last: bool,
    /// The path is forwarded in normal form.
    rewrite_path: bool,
    /// Bytes of requests, the current one first.
    pub(crate) buf: Buf,
    /// How many of them belong to the current request.
    pub(crate) held: usize,
    /// The head of the current request.
    head: RequestHead,
    /// Its body: what is still to come from the client.
    pub(crate) body: Body,
    pub(crate) exchange: Exchange,
    pub(crate) party: Party,
    /// Bytes for the client that do not come from an i-sock: replies, rewritten heads.
    pub(crate) local: Buf,
    /// Path and host as they are matched, when the request has them in another form.
    path: Buf,
    host: Buf,
    /// Memory of buffers that the gauge knows.
    pub(crate) counted: u32,
}

/// A session whose socket lock is held.
pub(crate) struct Active<'a> {
    pub(crate) client: &'a Client,
    session: &'a UnsafeCell<Session>,
}

impl<'a> Active<'a> {
    /// # Safety
    ///
    /// While it is used the socket lock of `client` is held, and there is no other one; `session` is that client's.
    pub(crate) unsafe fn new(client: &'a Client, session: &'a UnsafeCell<Session>) -> Self {
        Self { client, session }
    }
}

impl Deref for Active<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        // SAFETY: The socket lock is held.
        unsafe { &*self.session.get() }
    }
}

impl DerefMut for Active<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        // SAFETY: The socket lock is held, and `&mut self` makes this the only reference.
        unsafe { &mut *self.session.get() }
    }
}

impl Session {
    /// Between requests, of the socket `sk`.
    pub(crate) const fn new(sk: *mut sys::sock) -> Self {
        Self {
            phase: Phase::Idle,
            last: false,
            rewrite_path: false,
            buf: Buf::new(),
            held: 0,
            head: RequestHead::EMPTY,
            body: Body::new(Framing::None),
            exchange: Exchange::new(),
            party: Party::new(sk),
            local: Buf::new(),
            path: Buf::new(),
            host: Buf::new(),
            counted: 0,
        }
    }

    /// Forgets everything, for a socket that is connected anew.
    pub(crate) fn clear(&mut self, sk: *mut sys::sock) {
        let counted = self.counted;
        *self = Self::new(sk);
        self.counted = counted;
    }

    /// The exchange, and what it works with.
    fn exchange<'a>(&'a mut self, client: &'a Client) -> (&'a mut Exchange, With<'a>) {
        let bytes = self.buf.bytes();
        let request = Request {
            bytes,
            head: &self.head,
            path: forms::or_raw(&self.path, self.head.path.get(bytes)),
            host: forms::or_raw(&self.host, self.head.host.get(bytes)),
        };
        let with = With {
            shared: &client.exchange,
            party: &mut self.party,
            request,
        };
        (&mut self.exchange, with)
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
            Phase::Waiting(wait) => wait.isock(),
            _ => None,
        }
    }

    /// The bits of [`bits`] and the state that `get sockets` shows.
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

impl<'a> Active<'a> {
    /// What is done with the request beside sending it, or instead.
    ///
    /// # Safety
    ///
    /// It is looked at before the next step of the exchange, and before [`Active::forget_actions`].
    unsafe fn actions(&self) -> Option<&'a Actions> {
        // SAFETY: Who has the socket lock has the exchange; and by the contract.
        unsafe { self.client.exchange.actions() }
    }
}

impl Active<'_> {
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
        inner.last = head.close;
        if let Err(reason) = inner.frame_held_body() {
            return self.reject(reason);
        }
        count::inc(sys::XLB_COUNTER_REQUESTS);
        self.client.count_request();
        if let Err(reason) = self.normalize() {
            return self.reject(reason);
        }
        let client = self.client;
        let (exchange, with) = (**self).exchange(client);
        if let Err(reason) = exchange.begin(&with, client.service()) {
            return self.reply(reason, "");
        }
        if let Err(reason) = self.settle() {
            return self.reject(reason);
        }
        let (exchange, mut with) = (**self).exchange(client);
        let step = exchange.connect(&mut with);
        self.go(step, more);
    }

    /// The response has been read to its end by the client.
    pub(crate) fn finish(&mut self) {
        self.client.set_rx(ptr::null_mut());
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
        self.party.give_back(isock, keep);
        count::inc(sys::XLB_COUNTER_RESPONSES);
        count::reason(sys::XLB_REASON_OK);
        self.next();
    }

    /// After an exchange: the next request, the rest of a body that nobody wants, or the end.
    pub(crate) fn next(&mut self) {
        self.forget_actions();
        let inner = &mut **self;
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        inner.buf.relax();
        inner.local.relax();
        if inner.last || self.client.is_ending() {
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
        let shut = unsafe { sys::xlb_sk_shutdown(self.client.sk) } & SEND_SHUTDOWN != 0;
        if shut && matches!(self.phase, Phase::Idle | Phase::Head(_) | Phase::Drain) {
            self.close_client(false);
        }
    }

    /// The exchange is over.
    fn forget_actions(&mut self) {
        // SAFETY: Who has the socket lock has the exchange.
        unsafe { self.client.exchange.forget_actions() };
    }

    /// No further request: readers get what is left and then an end, or `ECONNRESET`.
    pub(crate) fn close_client(&mut self, reset: bool) {
        self.forget_actions();
        self.phase = Phase::Closing;
        self.buf.reset();
        self.held = 0;
        // SAFETY: The socket lock is held.
        unsafe {
            if reset {
                sys::xlb_sk_set_error(self.client.sk, sys::XLB_ECONNRESET as i32);
                sys::xlb_sk_shut(self.client.sk, RCV_SHUTDOWN | SEND_SHUTDOWN);
            } else {
                sys::xlb_sk_shut(self.client.sk, RCV_SHUTDOWN);
            }
            sys::xlb_sk_state_change(self.client.sk);
        }
        self.client.wake_writer();
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
        let shut = unsafe { sys::xlb_sk_shutdown(self.client.sk) } & SEND_SHUTDOWN != 0;
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
        self.forget_actions();
        self.local.reset();
        self.buf.reset();
        self.held = 0;
    }

    /// Ends all that a socket is doing, for good: it is closed.
    pub(crate) fn end(&mut self, reason: u32) {
        self.abandon(reason);
        self.phase = Phase::Closed;
        self.party.free_port();
        self.party.clear();
    }

    /// Goes on after an event: of the connection, of a pool, or of time.
    pub(crate) fn work(&mut self) {
        match self.phase {
            Phase::Waiting(_) => self.waited(),
            Phase::Relay(_) => {
                self.flush();
                self.pass_on_end();
                self.park();
                self.ask_another();
                self.client.wake_writer();
            }
            _ => {}
        }
    }

    /// The socket is to end: now, or after the running exchange.
    pub(crate) fn end_soon(&mut self) {
        self.last = true;
        if matches!(self.phase, Phase::Idle | Phase::Head(_) | Phase::Drain) {
            self.close_client(false);
        }
    }
}

/// Lets `write` fill `buf` behind its contents with at most `bound` bytes.
fn fill_with(
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
