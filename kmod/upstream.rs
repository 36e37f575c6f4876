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

use crate::buf::Buf;
use crate::count;
use crate::decide::written;
use crate::exchange::{fill_with, Phase, Relay, Response, Upload, Wait, WaitOn, EAGAIN_I};
use crate::identity::Cred;
use crate::isock::{now_ms, Isock};
use crate::pool::{Got, Key, Pool};
use crate::psock::Locked;
use crate::recent::Found;
use crate::sys;

/// How often an endpoint is picked for one request: the first, and two more when no connection
/// could be made.
const PICKS: u32 = 3;

impl Locked<'_> {
    /// Finds a connection to the endpoint that was decided on and sends what is held.
    pub(crate) fn connect(&mut self, more: bool) {
        // An orphan waits no longer than it lives.
        let deadline_ms = self.dies_ms;
        self.find(more, deadline_ms);
    }

    /// As [`Locked::connect`], in a wait that may have begun already and ends at `deadline_ms`.
    fn find(&mut self, more: bool, mut deadline_ms: u64) {
        let psock = self.psock;
        if self.identity().is_err() {
            self.done(sys::XLB_REASON_NO_MEMORY);
            return self.reply(sys::XLB_REASON_NO_MEMORY, "");
        }
        loop {
            // Both are there, but for want of memory.
            let (Some(found), Some(caller)) = (self.find_pool(), &self.caller) else {
                return self.fail_connect(sys::XLB_REASON_NO_MEMORY);
            };
            let Found { pool, known } = found;
            let once = !self.head.method.is_idempotent();
            match pool.acquire(psock, caller, &self.decision.pool, once, &mut deadline_ms) {
                Got::Ready(isock, permitted) => {
                    if !known && !permitted && !self.may_use(&isock) {
                        return self.turn_away(isock);
                    }
                    self.pools.set(pool);
                    if self.bind(isock, more) {
                        count::inc(sys::XLB_COUNTER_REUSED);
                        return;
                    }
                    // It had died; the next one, or a new one.
                }
                Got::Permit(generation) => return self.open(pool, generation, more),
                Got::Queued => {
                    pool.ask_holders();
                    self.phase = Phase::Waiting(Wait {
                        on: WaitOn::Turn(pool),
                        deadline_ms,
                    });
                    return;
                }
                Got::Overflow | Got::Late => {
                    self.done(sys::XLB_REASON_POOL_OVERFLOW);
                    return self.reply(sys::XLB_REASON_POOL_OVERFLOW, "");
                }
                Got::Closed => {}
            }
        }
    }

    /// The pool of this client's identity, and of the endpoint that was decided on.
    fn find_pool(&mut self) -> Option<Found> {
        let inner = &mut **self;
        let identity = inner.identity.as_ref()?;
        let key = Key::new(identity, &inner.decision);
        inner.pools.take(&key, identity).ok()
    }

    fn open(&mut self, pool: Arc<Pool>, generation: u64, more: bool) {
        // Before the connect, so that its end cannot be missed.
        self.psock.want_kick();
        let sk = self.psock.sk;
        let Some(caller) = self.caller.as_ref().map(Cred::again) else {
            pool.forget_one();
            return self.fail_connect(sys::XLB_REASON_CONNECT_FAILED);
        };
        match Isock::open(pool.clone(), generation, sk, sk, &caller) {
            Err(e) if e == EPERM || e == EACCES => {
                self.fail_connect(sys::XLB_REASON_NOT_PERMITTED);
            }
            Err(e) if lacks_memory(e) => {
                self.fail_connect(sys::XLB_REASON_NO_MEMORY);
            }
            Err(_) => self.fail_connect(sys::XLB_REASON_CONNECT_FAILED),
            Ok(isock) => {
                pool.permit(&caller);
                self.pools.set(pool.clone());
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
                    let deadline_ms = if timeout > 0 { now_ms() + timeout } else { 0 };
                    self.await_connect(isock, deadline_ms);
                }
                if self.decision.pool.min_idle > 0 {
                    pool.warm(self.psock.sk, &caller);
                }
            }
        }
    }

    /// Whether the rules of the host let this client have an idle connection.
    fn may_use(&self, isock: &Isock) -> bool {
        let may = |caller| isock.may_use(caller).is_ok();
        let Some(caller) = self.caller.as_ref().filter(|caller| may(caller)) else {
            return false;
        };
        isock.pool.permit(caller);
        true
    }

    fn turn_away(&mut self, isock: Isock) {
        Pool::give_back(isock, self.pools.last(), true);
        self.fail_connect(sys::XLB_REASON_NOT_PERMITTED);
    }

    /// Waits for the end of a connect, or for its deadline.
    fn await_connect(&mut self, isock: Isock, deadline_ms: u64) {
        if deadline_ms != 0 {
            let left = deadline_ms.saturating_sub(now_ms());
            self.psock.kick(left.max(1));
        }
        // This kick may have replaced that of a connect that has just ended.
        if isock.is_connected() || isock.is_dead() {
            self.psock.kick(0);
        }
        self.phase = Phase::Waiting(Wait {
            on: WaitOn::Connect(isock),
            deadline_ms,
        });
    }

    /// Gives the request to `isock` and sends what is held; false when the connection is no good.
    fn bind(&mut self, mut isock: Isock, more: bool) -> bool {
        let psock = self.psock;
        let Ok(out) = self.prepare() else {
            Pool::give_back(isock, self.pools.last(), true);
            self.done(sys::XLB_REASON_NO_MEMORY);
            self.reply(sys::XLB_REASON_NO_MEMORY, "");
            return true;
        };
        isock.set_owner(psock.sk);
        self.lend_options(&isock);
        psock.will_relay(isock.sk());
        let inner = &mut **self;
        let sent = match &out {
            Some(_) => 0,
            None => inner.head.skip as usize,
        };
        let mut upload = Upload {
            out,
            sent,
            whole: true,
            deaf: false,
        };
        let more = more && !inner.body.is_done();
        let sent = {
            let guard = isock.lock();
            if !isock.is_clean() {
                -1
            } else {
                guard.send(upload.unsent(&inner.buf, inner.held), more)
            }
        };
        if sent < 0 && sent != -EAGAIN_I {
            psock.set_rx(core::ptr::null_mut());
            isock.set_owner(core::ptr::null_mut());
            drop(isock);
            return false;
        }
        let sent = usize::try_from(sent).unwrap_or(0);
        upload.sent += sent;
        inner.request_bytes += sent as u64;
        isock.owned_mut().requests += 1;
        inner.phase = Phase::Relay(Relay {
            isock,
            upload,
            response: Response::new(),
        });
        if inner.has_unsent() {
            psock.want_kick();
            self.flush();
        }
        true
    }

    /// The request as it is sent, when its head must not go byte for byte.
    fn prepare(&self) -> Result<Option<Buf>> {
        let rewrite_path = self.rewrite_path && !self.path.is_empty();
        if !self.head.rewrite && !rewrite_path {
            return Ok(None);
        }
        let bytes = self.buf.bytes();
        let mut path = Buf::new();
        if rewrite_path {
            let raw = self.head.path.get(bytes);
            fill_with(&mut path, path::normalize_bound(raw), |to| {
                written(path::normalize(raw, Form::Forward, to))
            })
            .map_err(|_| ENOMEM)?;
        }
        let edits = RequestEdits {
            path: (!path.is_empty()).then_some(path.bytes()),
            ..RequestEdits::default()
        };
        let bound = rewrite::request_bound(&self.head, &edits);
        let mut out = Buf::new();
        fill_with(&mut out, bound, |to| {
            rewrite::request(bytes, &self.head, &edits, to)
        })
        .map_err(|_| ENOMEM)?;
        out.append(
            bytes
                .get(self.head.head_bytes as usize..self.held)
                .unwrap_or(&[]),
        )?;
        Ok(Some(out))
    }

    /// Sends what is held and was not sent.
    pub(crate) fn flush(&mut self) {
        let psock = self.psock;
        let inner = &mut **self;
        let Phase::Relay(Relay { isock, upload, .. }) = &mut inner.phase else {
            return;
        };
        let mut asked = false;
        while !upload.deaf {
            let unsent = upload.unsent(&inner.buf, inner.held);
            if unsent.is_empty() {
                break;
            }
            let n = isock.lock().send(unsent, false);
            if n == -EAGAIN_I {
                if asked {
                    return;
                }
                // Room that came before this line kicked nobody: look once more.
                psock.want_kick();
                asked = true;
                continue;
            }
            let Ok(n) = usize::try_from(n) else {
                upload.deaf = true;
                return;
            };
            upload.sent += n;
            inner.request_bytes += n as u64;
        }
        if !upload.whole {
            // Nothing can be sent again: forget what was.
            inner.buf.consume(inner.held);
            inner.held = 0;
            upload.sent = 0;
            upload.out = None;
        }
    }

    /// A connect or a turn in the queue may be over.
    pub(crate) fn waited(&mut self) {
        let Phase::Waiting(wait) = core::mem::replace(&mut self.phase, Phase::Deciding) else {
            return;
        };
        match wait.on {
            WaitOn::Connect(isock) => self.waited_for_connect(isock, wait.deadline_ms),
            WaitOn::Turn(pool) => self.waited_for_turn(pool, wait.deadline_ms),
        }
    }

    fn waited_for_connect(&mut self, isock: Isock, deadline_ms: u64) {
        let late = deadline_ms != 0 && now_ms() >= deadline_ms;
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
            self.await_connect(isock, deadline_ms);
        }
    }

    fn waited_for_turn(&mut self, pool: Arc<Pool>, mut deadline_ms: u64) {
        if self.is_orphan() && (deadline_ms == 0 || self.dies_ms < deadline_ms) {
            // It became an orphan in the queue.
            deadline_ms = self.dies_ms;
        }
        match pool.take_turn(self.psock, deadline_ms) {
            Got::Ready(isock, permitted) => {
                if !permitted && !self.may_use(&isock) {
                    self.turn_away(isock);
                } else if self.bind(isock, false) {
                    count::inc(sys::XLB_COUNTER_REUSED);
                } else {
                    self.find(false, deadline_ms);
                }
            }
            Got::Permit(generation) => self.open(pool, generation, false),
            Got::Queued => {
                self.phase = Phase::Waiting(Wait {
                    on: WaitOn::Turn(pool),
                    deadline_ms,
                });
            }
            Got::Late => {
                self.done(sys::XLB_REASON_POOL_TIMEOUT);
                self.reply(sys::XLB_REASON_POOL_TIMEOUT, "");
            }
            Got::Overflow | Got::Closed => self.find(false, deadline_ms),
        }
    }

    /// No connection could be made: another endpoint, or a reply.
    fn fail_connect(&mut self, reason: u32) {
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
        let Some(Relay {
            upload, response, ..
        }) = self.relay()
        else {
            return;
        };
        let nothing_came = response.bytes == 0 && response.partial.is_empty();
        let replay = nothing_came
            && reason == sys::XLB_REASON_UPSTREAM_RESET
            && response.head().is_none()
            && upload.whole
            && self.may_replay();
        // Did the client see any of it?
        let seen = response.head().is_some() && (response.framed == 0 || response.bytes > 0);
        self.done(if replay {
            sys::XLB_REASON_RETRIED
        } else {
            reason
        });
        self.unbind();
        if replay {
            count::inc(sys::XLB_COUNTER_REPLAYED);
            self.replayed = true;
            let reason = self.ask_pick(1);
            if reason != sys::XLB_REASON_OK {
                return self.reply(reason, "");
            }
            return self.connect(false);
        }
        if !seen {
            return self.reply(reason, detail);
        }
        count::reason(reason);
        self.close_client(true);
    }

    /// Whether the request may be sent again (RFC 9110, section 9.2.2).
    fn may_replay(&self) -> bool {
        !self.replayed && (self.head.method.is_idempotent() || self.request_bytes == 0)
    }

    /// Gives up the connection that the request has or waits for, which closes it, or its place in a queue
    /// and what may have been given there.
    pub(crate) fn unbind(&mut self) {
        self.psock.set_rx(core::ptr::null_mut());
        let isock = match core::mem::replace(&mut self.phase, Phase::Deciding) {
            Phase::Relay(relay) => relay.isock,
            Phase::Waiting(wait) => match wait.on {
                WaitOn::Connect(isock) => isock,
                WaitOn::Turn(pool) => return pool.cancel(self.psock),
            },
            other => {
                self.phase = other;
                return;
            }
        };
        isock.set_owner(core::ptr::null_mut());
    }

    /// Others wait for this connection, and it cannot be given back yet: maybe another one can.
    pub(crate) fn ask_another(&self) {
        if let Some(isock) = self.isock() {
            if isock.pool.is_wanted() {
                isock.pool.ask_another();
            }
        }
    }
}

/// Whether a socket could not be had for want of memory: ENFILE is what `sock_create()` says then.
fn lacks_memory(err: Error) -> bool {
    err == ENOMEM || err == ENFILE || err.to_errno() == -(kernel::bindings::ENOBUFS as i32)
}
