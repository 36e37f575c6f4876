// SPDX-License-Identifier: GPL-2.0

//! From a decision to a connection: finds or opens an i-sock for a request, sends what is held,
//! and says what happens when the connection fails.
//!
//! Runs under the socket lock of the p-sock, in process context; the i-sock's lock and the pool's
//! are taken inside. A p-sock in [`Phase::Waiting`] either owns an i-sock that connects, or is
//! queued in its pool (or has been given its turn there); [`Locked::waited`] finds out.

use kernel::prelude::*;
use kernel::sync::Arc;
use xlb_engine::path::{self, Form};
use xlb_engine::rewrite::{self, RequestEdits};
use xlb_engine::ResponseHead;

use crate::buf::Buf;
use crate::count;
use crate::decide::written;
use crate::exchange::{fill_with, Phase, EAGAIN_I};
use crate::isock::{now_ms, Isock};
use crate::pool::{Got, Key, Pool};
use crate::psock::Locked;
use crate::sys;
use crate::table;

/// How often an endpoint is picked for one request: the first, and two more when no connection
/// could be made.
const PICKS: u32 = 3;

impl Locked<'_> {
    /// Finds a connection to the endpoint that was decided on and sends what is held.
    pub(crate) fn connect(&mut self, more: bool) {
        // An orphan waits no longer than it lives.
        self.deadline_ms = self.dies_ms;
        self.find(more);
    }

    /// As [`Locked::connect`], in a wait that may have begun already.
    fn find(&mut self, more: bool) {
        let psock = self.psock;
        // SAFETY: The socket is live; its netns does not change.
        let net = unsafe { sys::xlb_sk_net(psock.sk) };
        // SAFETY: The field is ours under the socket lock.
        let cgroup_id = unsafe { (*psock.request()).cgroup_id };
        let key = Key::new(cgroup_id, net, &self.decision);
        let limits = self.decision.pool;
        loop {
            let pool = match self.pool.take().filter(|p| p.key == key) {
                Some(pool) => pool,
                None => match table::get(&key) {
                    Ok(pool) => pool,
                    Err(_) => return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED),
                },
            };
            let got = pool.acquire(psock, &limits, &mut self.deadline_ms);
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
                    pool.ask_holders();
                    return;
                }
                Got::Overflow | Got::Late => {
                    self.done(sys::XLB_REASON_POOL_OVERFLOW);
                    return self.reply(sys::XLB_REASON_POOL_OVERFLOW, "");
                }
                Got::Closed => self.pool = None,
            }
        }
    }

    fn open(&mut self, pool: Arc<Pool>, generation: u64, more: bool) {
        // Before the connect, so that its end cannot be missed.
        self.psock.want_kick();
        let sk = self.psock.sk;
        match Isock::open(pool.clone(), generation, sk, sk) {
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
                    self.deadline_ms = if timeout > 0 { now_ms() + timeout } else { 0 };
                    self.await_connect(isock);
                }
                if self.decision.pool.min_idle > 0 {
                    pool.warm(self.psock.sk);
                }
            }
        }
    }

    /// Waits for the end of a connect, or for its deadline.
    fn await_connect(&mut self, isock: Isock) {
        self.phase = Phase::Waiting;
        if self.deadline_ms != 0 {
            let left = self.deadline_ms.saturating_sub(now_ms());
            self.psock.kick(left.max(1));
        }
        // This kick may have replaced that of a connect that has just ended.
        if isock.is_connected() || isock.is_dead() {
            self.psock.kick(0);
        }
        self.isock = Some(isock);
    }

    /// Gives the request to `isock` and sends what is held; false when the connection is no good.
    fn bind(&mut self, isock: Isock, more: bool) -> bool {
        let psock = self.psock;
        if self.prepare().is_err() {
            isock.pool.clone().release(isock, true);
            self.done(sys::XLB_REASON_NO_ENDPOINT);
            self.reply(sys::XLB_REASON_NO_ENDPOINT, "no_memory");
            return true;
        }
        isock.set_owner(psock.sk);
        self.lend_options(&isock);
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
        isock.owned_mut().requests += 1;
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
        let rewrite_path = inner.rewrite_path && !inner.path.is_empty();
        if !inner.head.rewrite && !rewrite_path {
            return Ok(());
        }
        let bytes = inner.buf.bytes();
        let mut path = Buf::new();
        if rewrite_path {
            let raw = inner.head.path.get(bytes);
            fill_with(&mut path, path::normalize_bound(raw), |to| {
                written(path::normalize(raw, Form::Forward, to))
            })
            .map_err(|_| ENOMEM)?;
        }
        let edits = RequestEdits {
            path: (!path.is_empty()).then_some(path.bytes()),
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
        let psock = self.psock;
        let inner = &mut **self;
        let Some(isock) = &inner.isock else {
            return true;
        };
        let mut asked = false;
        while inner.has_unsent() && !inner.deaf {
            let n = isock.lock().send(inner.outgoing(), false);
            if n == -EAGAIN_I {
                if asked {
                    return true;
                }
                // Room that came before this line kicked nobody: look once more.
                psock.want_kick();
                asked = true;
                continue;
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

    /// A connect or a turn in the queue may be over.
    pub(crate) fn waited(&mut self) {
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
                // A kick for another reason has replaced the one for the deadline.
                self.await_connect(isock);
            }
        } else {
            let Some(pool) = self.pool.clone() else {
                return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
            };
            if self.is_orphan() && (self.deadline_ms == 0 || self.dies_ms < self.deadline_ms) {
                // It became an orphan in the queue.
                self.deadline_ms = self.dies_ms;
            }
            match pool.take_turn(self.psock, self.deadline_ms) {
                Got::Ready(isock) => {
                    if self.bind(isock, false) {
                        count::inc(sys::XLB_COUNTER_REUSED);
                    } else {
                        self.find(false);
                    }
                }
                Got::Permit(generation) => self.open(pool, generation, false),
                Got::Queued => {}
                Got::Late => {
                    self.done(sys::XLB_REASON_POOL_TIMEOUT);
                    self.reply(sys::XLB_REASON_POOL_TIMEOUT, "");
                }
                Got::Overflow | Got::Closed => self.find(false),
            }
        }
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
    pub(crate) fn unbind(&mut self) {
        self.psock.set_rx(core::ptr::null_mut());
        if let Some(isock) = self.isock.take() {
            isock.set_owner(core::ptr::null_mut());
            drop(isock);
        }
        self.out = None;
        self.sent = 0;
    }

    /// What the endpoint says in a response of how long it keeps the connection when it is idle.
    pub(crate) fn endpoint_keeps(&mut self, head: &ResponseHead, seconds: Option<u32>) {
        if let Some(isock) = self.isock.as_mut().filter(|_| !head.interim) {
            isock.endpoint_keeps(seconds);
        }
    }

    /// Others wait for this connection, and it cannot be given back yet: maybe another one can.
    pub(crate) fn ask_another(&self) {
        if let Some(isock) = &self.isock {
            if isock.pool.is_wanted() {
                isock.pool.ask_another();
            }
        }
    }

    /// Gives up a place in the queue, and what may have been given there.
    pub(crate) fn leave_queue(&mut self) {
        if self.phase == Phase::Waiting && self.isock.is_none() {
            if let Some(pool) = self.pool.clone() {
                pool.cancel(self.psock);
            }
        }
    }
}
