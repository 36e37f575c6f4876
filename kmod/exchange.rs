// SPDX-License-Identifier: GPL-2.0

//! One request and its response: from a framed head to a policy decision, an i-sock, and an end.
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
use xlb_engine::reason::Class;
use xlb_engine::rewrite::{self, RequestEdits};
use xlb_engine::{
    host, path, reply, Body, Framing, Limits, Method, Reason, RequestHead, RequestParser,
    ResponseHead, ResponseParser, Status, Version,
};

use crate::buf::Buf;
use crate::count;
use crate::fields::View;
use crate::isock::{now_ms, Isock};
use crate::pool::{Got, Key, Pool};
use crate::psock::{bits, Locked};
use crate::sys;

/// The limits of every connection.
pub(crate) const LIMITS: Limits = Limits::DEFAULT;

/// Bytes of requests that a p-sock holds at most: the largest head and some of what follows it.
/// Stops a client that pipelines without reading from filling the kernel.
pub(crate) const HOLD_MAX: usize = LIMITS.head_bytes as usize + 16 * 1024;

/// How often an endpoint is picked for one request: the first, and two more when no connection
/// could be made.
const PICKS: u32 = 3;

/// How often a decision is begun at most because the configuration changed while it was made.
const ROUNDS: u32 = 4;

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
    pub(crate) isock: Option<KBox<Isock>>,
    pub(crate) pool: Option<Arc<Pool>>,
    pub(crate) decision: sys::xlb_decision,
    picked: bool,
    replayed: bool,
    deadline_ms: u64,
    started_ns: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response: Response,
    /// Bytes for the client that do not come from an i-sock: replies, rewritten heads.
    pub(crate) local: Buf,
    path: Buf,
    host: Buf,
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

const NO_DECISION: sys::xlb_decision = sys::xlb_decision {
    route: 0,
    cluster: 0,
    cookie: [0; 2],
    addr: [0; 16],
    port: 0,
    reserved0: 0,
    endpoint: 0,
    pool: sys::xlb_pool_limits {
        min_idle: 0,
        max: 0,
        max_pending: 0,
        idle_timeout_ms: 0,
        connect_timeout_ms: 0,
        max_requests: 0,
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
            head: View::EMPTY.head,
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
            started_ns: 0,
            request_bytes: 0,
            response: Response::new(),
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
        if self.buf.len() >= HOLD_MAX && self.phase != Phase::Closing {
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
        self.held += self.body.feed(rest, &LIMITS)?;
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
            match inner.parser.parse(inner.buf.bytes(), &LIMITS) {
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
        match inner.body.feed(inner.buf.bytes(), &LIMITS) {
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
        self.connect(more);
    }

    /// Fills in what BPF sees, and asks `route`.
    fn ask_route(&mut self) -> Result<u32, Reason> {
        let psock = self.psock;
        let inner = &mut **self;
        let bytes = inner.buf.bytes();
        let raw_path = inner.head.path.get(bytes);
        inner.path.reset();
        let normal: *const [u8] = if raw_path == b"*" || path::is_normal(raw_path) {
            raw_path
        } else {
            let bound = path::normalize_bound(raw_path);
            fill_with(&mut inner.path, bound, |to| {
                match path::normalize(raw_path, to)? {
                    path::Normalized::Same => Ok(0),
                    path::Normalized::Written(n) => Ok(n),
                }
            })?;
            inner.path.bytes()
        };
        let raw_host = inner.head.host.get(bytes);
        inner.host.reset();
        let mut lower: *const [u8] = raw_host;
        if raw_host.iter().any(u8::is_ascii_uppercase) || raw_host.ends_with(b".") {
            fill_with(
                &mut inner.host,
                raw_host.len(),
                |to| match host::normalize(raw_host, to)? {
                    path::Normalized::Same => Ok(0),
                    path::Normalized::Written(n) => Ok(n),
                },
            )?;
            if !inner.host.is_empty() {
                lower = inner.host.bytes();
            }
        }
        // SAFETY: The pointers were just made from live slices, which nothing moves during the call.
        let (path_len, host_len, segments) =
            unsafe { ((*normal).len(), (*lower).len(), path::segments(&*normal)) };
        // SAFETY: The view and the request belong to the holder of the socket lock.
        unsafe {
            *psock.view.get() = View {
                bytes,
                head: inner.head,
                path: normal,
                host: lower,
            };
            *psock.request() = sys::xlb_request {
                cgroup_id: sys::xlb_sk_cgroup_id(psock.sk),
                now_ns: inner.started_ns,
                service: psock.service(),
                attempt: 0,
                method: inner.head.method as u32,
                head_bytes: inner.head.head_bytes - inner.head.skip,
                host_bytes: host_len as u32,
                path_bytes: path_len as u32,
                path_segments: segments,
                http_version: inner.head.version.as_u16(),
                flags: if inner.head.framing == Framing::None {
                    0
                } else {
                    sys::XLB_REQ_HAS_BODY as u16
                } | if inner.head.upgrade {
                    sys::XLB_REQ_UPGRADE as u16
                } else {
                    0
                },
            };
        }
        inner.decision = NO_DECISION;
        // SAFETY: Both are valid for the call; the view is, too.
        let ret = unsafe { sys::xlb_policy_route(psock.request(), &raw mut inner.decision) };
        match answer(ret, sys::XLB_REASON_NO_ROUTE) {
            // `pick` finds that nothing is decided, and `ask_pick` asks again.
            sys::XLB_REASON_OK | sys::XLB_REASON_RETRIED => Ok(sys::XLB_REASON_OK),
            reason => {
                // SAFETY: The socket lock is held, and the call is over.
                unsafe { *psock.view.get() = View::EMPTY };
                Ok(reason)
            }
        }
    }

    /// Asks `pick` for an endpoint; the view of [`Locked::ask_route`] or of a new attempt is set.
    fn ask_pick(&mut self, attempt: u32) -> u32 {
        let psock = self.psock;
        let inner = &mut **self;
        // SAFETY: As in `ask_route`. For a new attempt `buf` still holds the head, so the spans
        // hold, and the view is made anew.
        let ret = unsafe {
            if attempt > 0 {
                let bytes = inner.buf.bytes();
                let (raw_path, raw_host) = (inner.head.path.get(bytes), inner.head.host.get(bytes));
                *psock.view.get() = View {
                    bytes,
                    head: inner.head,
                    path: if inner.path.is_empty() {
                        raw_path
                    } else {
                        inner.path.bytes()
                    },
                    host: if inner.host.is_empty() {
                        raw_host
                    } else {
                        inner.host.bytes()
                    },
                };
            }
            (*psock.request()).attempt = attempt;
            let mut ret = sys::xlb_policy_pick(psock.request(), &raw mut inner.decision);
            for _ in 1..ROUNDS {
                if answer(ret, sys::XLB_REASON_NO_ENDPOINT) != sys::XLB_REASON_RETRIED {
                    break;
                }
                ret = sys::xlb_policy_route(psock.request(), &raw mut inner.decision);
                if ret == 0 {
                    ret = sys::xlb_policy_pick(psock.request(), &raw mut inner.decision);
                }
            }
            *psock.view.get() = View::EMPTY;
            ret
        };
        inner.picked = ret == 0;
        if ret == 0 {
            psock.show_endpoint(inner.decision.endpoint);
        }
        match answer(ret, sys::XLB_REASON_NO_ENDPOINT) {
            // It changes faster than one can decide.
            sys::XLB_REASON_RETRIED => sys::XLB_REASON_NO_ENDPOINT,
            reason => reason,
        }
    }

    /// Tells the policy how the picked endpoint did.
    fn done(&mut self, reason: u32) {
        let psock = self.psock;
        let inner = &mut **self;
        if !core::mem::take(&mut inner.picked) {
            return;
        }
        // SAFETY: Reads the clock.
        let now = unsafe { sys::xlb_now_ns() };
        let mut result = sys::xlb_result {
            request_bytes: inner.request_bytes,
            response_bytes: inner.response.bytes,
            latency_ns: now.saturating_sub(inner.started_ns),
            status: inner.response.head.map_or(0, |h| u32::from(h.status)),
            reason,
        };
        count::add(sys::XLB_COUNTER_REQUEST_BYTES, inner.request_bytes as i64);
        count::add(sys::XLB_COUNTER_RESPONSE_BYTES, inner.response.bytes as i64);
        // SAFETY: All three are valid for the call.
        unsafe { sys::xlb_policy_done(psock.request(), &raw mut inner.decision, &raw mut result) };
    }

    /// Finds a connection to the endpoint that was decided on and sends what is held.
    fn connect(&mut self, more: bool) {
        let psock = self.psock;
        // SAFETY: The socket is live; its netns does not change.
        let net = unsafe { sys::xlb_sk_net(psock.sk) };
        // SAFETY: The field is ours under the socket lock.
        let cgroup_id = unsafe { (*psock.request()).cgroup_id };
        let key = Key::new(cgroup_id, net, self.decision.addr, self.decision.port);
        let limits = self.decision.pool;
        loop {
            let pool = match self.pool.take().filter(|p| p.key == key) {
                Some(pool) => pool,
                None => match Pool::get(&key) {
                    Ok(pool) => pool,
                    Err(_) => return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED),
                },
            };
            let got = pool.acquire(psock, &limits);
            self.pool = Some(pool.clone());
            match got {
                Got::Ready(isock) => {
                    if self.bind(isock, more) {
                        count::inc(sys::XLB_COUNTER_REUSED);
                        return;
                    }
                    // It had died; the next one, or a new one.
                }
                Got::Permit(generation) => {
                    self.open(pool, generation, more);
                    return;
                }
                Got::Queued => {
                    self.phase = Phase::Waiting;
                    self.deadline_ms = 0;
                    pool.ask_holders();
                    return;
                }
                Got::Overflow => {
                    self.done(sys::XLB_REASON_POOL_OVERFLOW);
                    return self.reply(sys::XLB_REASON_POOL_OVERFLOW, "");
                }
                Got::Closed => self.pool = None,
            }
        }
    }

    fn open(&mut self, pool: Arc<Pool>, generation: u32, more: bool) {
        // Before the connect, so that its end cannot be missed.
        self.psock.want_kick();
        match Isock::open(pool.clone(), generation, self.psock.sk) {
            Err(_) => self.fail_connect(sys::XLB_REASON_CONNECT_FAILED),
            Ok(isock) => {
                if isock.is_connected() {
                    if !self.bind(isock, more) {
                        return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
                    }
                } else if isock.is_dead() {
                    count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
                    drop(isock);
                    return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
                } else {
                    let timeout = u64::from(self.decision.pool.connect_timeout_ms);
                    self.isock = Some(isock);
                    self.phase = Phase::Waiting;
                    self.deadline_ms = now_ms() + timeout;
                    if timeout > 0 {
                        self.psock.kick(timeout);
                    }
                    if self
                        .isock
                        .as_ref()
                        .is_some_and(|i| i.is_connected() || i.is_dead())
                    {
                        self.psock.kick(0);
                    }
                }
                if self.decision.pool.min_idle > 0 {
                    pool.warm();
                }
            }
        }
    }

    /// Gives the request to `isock` and sends what is held; false when the connection is no good.
    fn bind(&mut self, isock: KBox<Isock>, more: bool) -> bool {
        let psock = self.psock;
        if self.prepare().is_err() {
            isock.pool.clone().release(isock, true);
            self.done(sys::XLB_REASON_NO_ENDPOINT);
            self.reply(sys::XLB_REASON_NO_ENDPOINT, "no_memory");
            return true;
        }
        isock.set_owner(psock.sk);
        psock.will_relay(isock.sk());
        let inner = &mut **self;
        inner.sent = if inner.out.is_some() {
            0
        } else {
            inner.head.skip as usize
        };
        let more = more && !inner.body.is_done();
        let sent = {
            let guard = isock.lock();
            if !isock.is_clean() {
                -1
            } else {
                guard.send(inner.outgoing(), more)
            }
        };
        if sent < 0 && sent != -EAGAIN_I {
            psock.set_rx(core::ptr::null_mut());
            isock.set_owner(core::ptr::null_mut());
            drop(isock);
            return false;
        }
        let sent = usize::try_from(sent).unwrap_or(0);
        inner.sent += sent;
        inner.request_bytes += sent as u64;
        let mut isock = isock;
        isock.requests += 1;
        inner.isock = Some(isock);
        inner.phase = Phase::Relay;
        if inner.has_unsent() {
            psock.want_kick();
            self.flush();
        }
        true
    }

    /// Makes `out` when the head must not be sent byte for byte.
    fn prepare(&mut self) -> Result {
        let inner = &mut **self;
        inner.out = None;
        if !inner.head.rewrite && inner.path.is_empty() {
            return Ok(());
        }
        let bytes = inner.buf.bytes();
        let edits = RequestEdits {
            path: if inner.path.is_empty() {
                None
            } else {
                Some(inner.path.bytes())
            },
            ..RequestEdits::default()
        };
        let bound = rewrite::request_bound(&inner.head, &edits);
        let mut out = Buf::new();
        fill_with(&mut out, bound, |to| {
            rewrite::request(bytes, &inner.head, &edits, to)
        })
        .map_err(|_| ENOMEM)?;
        out.append(
            bytes
                .get(inner.head.head_bytes as usize..inner.held)
                .unwrap_or(&[]),
        )?;
        inner.out = Some(out);
        Ok(())
    }

    /// Sends what is held and was not sent. False when the connection takes nothing any more.
    pub(crate) fn flush(&mut self) -> bool {
        let inner = &mut **self;
        let Some(isock) = &inner.isock else {
            return true;
        };
        while inner.has_unsent() && !inner.deaf {
            let n = isock.lock().send(inner.outgoing(), false);
            if n == -EAGAIN_I {
                return true;
            }
            let Ok(n) = usize::try_from(n) else {
                inner.deaf = true;
                return false;
            };
            inner.sent += n;
            inner.request_bytes += n as u64;
        }
        if !inner.whole {
            // Nothing can be sent again: forget what was.
            inner.buf.consume(inner.held);
            inner.held = 0;
            inner.sent = 0;
            inner.out = None;
        }
        true
    }

    /// No connection could be made: another endpoint, or a reply.
    fn fail_connect(&mut self, reason: u32) {
        self.unbind();
        self.done(reason);
        // SAFETY: The field is ours under the socket lock.
        let attempt = unsafe { (*self.psock.request()).attempt } + 1;
        let before = (self.decision.addr, self.decision.port);
        if attempt < PICKS && self.ask_pick(attempt) == sys::XLB_REASON_OK {
            if (self.decision.addr, self.decision.port) != before {
                // Bounded by PICKS.
                return self.connect(false);
            }
            self.done(reason);
        }
        self.reply(reason, "");
    }

    /// The connection ended or failed before its response did.
    pub(crate) fn fail_upstream(&mut self, reason: u32, detail: &'static str) {
        let nothing_came = self.response.bytes == 0 && self.response.partial.is_empty();
        if nothing_came && reason == sys::XLB_REASON_UPSTREAM_RESET && self.can_replay() {
            count::inc(sys::XLB_COUNTER_REPLAYED);
            self.unbind();
            self.done(sys::XLB_REASON_RETRIED);
            self.replayed = true;
            self.deaf = false;
            let reason = self.ask_pick(1);
            if reason != sys::XLB_REASON_OK {
                return self.reply(reason, "");
            }
            return self.connect(false);
        }
        // Did the client see any of it?
        let seen =
            self.response.head.is_some() && (self.response.framed == 0 || self.response.bytes > 0);
        self.unbind();
        self.done(reason);
        if !seen {
            self.response.partial.reset();
            self.response.head = None;
            return self.reply(reason, detail);
        }
        count::reason(reason);
        self.close_client(true);
    }

    /// Whether the request may be sent again (RFC 9110, section 9.2.2) and can be.
    fn can_replay(&self) -> bool {
        !self.replayed
            && self.whole
            && self.response.head.is_none()
            && (self.head.method.is_idempotent() || self.request_bytes == 0)
    }

    /// Lets go of the i-sock, which closes it.
    fn unbind(&mut self) {
        self.psock.set_rx(core::ptr::null_mut());
        if let Some(isock) = self.isock.take() {
            isock.set_owner(core::ptr::null_mut());
            drop(isock);
        }
        self.out = None;
        self.sent = 0;
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
            && !response.surplus
            && inner.body.is_done()
            && !inner.has_unsent();
        if response.surplus {
            count::inc(sys::XLB_COUNTER_DESYNC);
        }
        inner.last |= to_end;
        inner.response.partial.reset();
        if let Some(isock) = inner.isock.take() {
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

    /// Answers bytes that the engine refused. Where the next request begins is not known.
    pub(crate) fn reject(&mut self, reason: Reason) {
        count::engine(reason);
        let reply = match reason.class() {
            Class::HeadTooLarge => sys::XLB_REASON_HEAD_TOO_LARGE,
            Class::Unsupported => sys::XLB_REASON_UNSUPPORTED,
            Class::Version => sys::XLB_REASON_VERSION,
            _ => sys::XLB_REASON_BAD_REQUEST,
        };
        let answered = self.response.bytes > 0 && self.phase == Phase::Relay;
        self.leave_queue();
        self.unbind();
        self.done(reply);
        if answered {
            count::reason(reply);
            return self.close_client(true);
        }
        self.last = true;
        self.parser = RequestParser::new();
        self.body = Body::new(Framing::None);
        self.buf.reset();
        self.held = 0;
        self.reply(reply, reason.name());
    }

    /// XLB's own reply; see `XLB_REASONS` for the status.
    pub(crate) fn reply(&mut self, reason: u32, detail: &str) {
        count::reason(reason);
        let (status, name) = status_of(reason);
        let inner = &mut **self;
        let known = !inner.buf.is_empty() && inner.held > 0;
        let head_only = known && inner.head.method == Method::Head;
        let version = if known {
            inner.head.version
        } else {
            Version::Http11
        };
        inner.last |= known && inner.head.expect_continue && !inner.body.is_done();
        let last = inner.last;
        inner.phase = Phase::Reply;
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        inner.out = None;
        inner.sent = 0;
        inner.response.head = None;
        let written = fill_with(&mut inner.local, reply::REPLY_BYTES, |to| {
            Ok(reply::encode(
                status, name, detail, last, head_only, version, to,
            ))
        });
        if written.is_err() {
            self.close_client(true);
        }
    }

    /// The client ends its side: an incomplete request will never be whole.
    pub(crate) fn shut_send(&mut self) {
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Drain => self.close_client(false),
            Phase::Waiting | Phase::Relay if !self.body.is_done() => {
                let tunnel = self
                    .response
                    .head
                    .is_some_and(|h| h.framing == Framing::Tunnel);
                if tunnel {
                    if let Some(isock) = &self.isock {
                        isock.shut_write();
                    }
                } else {
                    self.abandon(sys::XLB_REASON_CLIENT_GONE);
                    self.close_client(false);
                }
            }
            _ => {}
        }
    }

    /// Gives up a place in the queue, and what may have been given there.
    fn leave_queue(&mut self) {
        if self.phase == Phase::Waiting && self.isock.is_none() {
            if let Some(pool) = self.pool.clone() {
                pool.cancel(self.psock);
            }
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

    /// The p-sock's work.
    pub(crate) fn work(&mut self) {
        match self.phase {
            Phase::Closed => return,
            Phase::Waiting => self.waited(),
            Phase::Relay => {
                self.flush();
                self.park();
                self.psock.wake_writer();
            }
            _ => {}
        }
        if self.psock.is_ending() {
            self.last = true;
            if matches!(self.phase, Phase::Idle | Phase::Head | Phase::Drain) {
                self.close_client(false);
            }
        }
    }

    /// A connect or a turn in the queue may be over.
    fn waited(&mut self) {
        let late = self.deadline_ms != 0 && now_ms() >= self.deadline_ms;
        if let Some(isock) = self.isock.take() {
            if isock.is_connected() {
                if !self.bind(isock, false) {
                    self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
                }
            } else if isock.is_dead() || late {
                count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
                isock.set_owner(core::ptr::null_mut());
                let dead = isock.is_dead();
                drop(isock);
                self.fail_connect(if dead {
                    sys::XLB_REASON_CONNECT_FAILED
                } else {
                    sys::XLB_REASON_TIMEOUT
                });
            } else {
                self.isock = Some(isock);
                return;
            }
        } else {
            let Some(pool) = self.pool.clone() else {
                return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
            };
            match pool.take_turn(self.psock) {
                Got::Ready(isock) => {
                    if self.bind(isock, false) {
                        count::inc(sys::XLB_COUNTER_REUSED);
                    } else {
                        self.connect(false);
                    }
                }
                Got::Permit(generation) => self.open(pool, generation, false),
                Got::Queued => return,
                Got::Overflow | Got::Closed => self.connect(false),
            }
        }
        // What the client wants to write may go now.
        self.psock.wake_writer();
    }
}

/// What the policy answered: 0, one of our reasons, or `otherwise`.
fn answer(ret: i32, otherwise: u32) -> u32 {
    match u32::try_from(ret) {
        Ok(reason) if reason < sys::XLB_REASON_COUNT => reason,
        _ => otherwise,
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

/// Status and name of a reason of `xlb_intf.h`.
fn status_of(reason: u32) -> (u16, &'static str) {
    match reason {
        sys::XLB_REASON_BAD_REQUEST => (400, "bad_request"),
        sys::XLB_REASON_NO_ROUTE => (404, "no_route"),
        sys::XLB_REASON_BODY_TOO_LARGE => (413, "body_too_large"),
        sys::XLB_REASON_HEAD_TOO_LARGE => (431, "head_too_large"),
        sys::XLB_REASON_UNSUPPORTED => (501, "unsupported"),
        sys::XLB_REASON_UPSTREAM_RESET => (502, "upstream_reset"),
        sys::XLB_REASON_UPSTREAM_PROTOCOL => (502, "upstream_protocol"),
        sys::XLB_REASON_NO_ENDPOINT => (503, "no_endpoint"),
        sys::XLB_REASON_CONNECT_FAILED => (503, "connect_failed"),
        sys::XLB_REASON_POOL_OVERFLOW => (503, "pool_overflow"),
        sys::XLB_REASON_TIMEOUT => (504, "timeout"),
        sys::XLB_REASON_VERSION => (505, "version"),
        sys::XLB_REASON_NO_POLICY => (503, "no_policy"),
        _ => (502, "upstream_reset"),
    }
}

/// `include/net/sock.h`
pub(crate) const RCV_SHUTDOWN: u32 = 1;
/// `include/net/sock.h`
pub(crate) const SEND_SHUTDOWN: u32 = 2;
/// `EAGAIN` as the shim's functions return it, negated.
pub(crate) const EAGAIN_I: i32 = sys::XLB_EAGAIN as i32;
