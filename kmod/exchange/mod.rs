// SPDX-License-Identifier: GPL-2.0

//! An exchange: one request and its response, whatever protocol they come by.
//!
//! It decides where the request goes, gets a connection for it, and tells the policy how that ended. It knows no
//! socket of a client and no bytes of a protocol: a session above it frames the request, sends it over the connection
//! that it is given, and reads the answer. A session may have one exchange, one after the other (HTTP/1), or many.
//!
//! | object | is | who may touch it |
//! |---|---|---|
//! | [`Shared`] | what pools, connections and the policy know of an exchange; does not move | see its parts |
//! | [`Exchange`] | how far it has come | who has the exchange |
//! | [`Party`] | whose requests these are | who has one of its exchanges |
//! | [`Wait`] | a request without a connection: its place in a queue, or a connect that goes on | the session's phase |
//!
//! What goes on is told as a [`Step`], which the session takes: a connection to send the request over, a wait, or the reason that
//! the client is to be told. After a wait the exchange's waker is kicked, and [`Exchange::waited`] says what comes next.
//!
//! Contexts: process context; locks of connections and pools are taken inside. [`Shared`] is reached by wakers in softirq.

use core::mem::offset_of;

use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;

use crate::count;
use crate::isock::{now_ms, Cred, Home as _, Waker};
use crate::once::Once as _;
use crate::policy::{Actions, Origin, Question, Request, NO_DECISION};
use crate::pool::{Found, Got, Isock, Pool, Waiter};
use crate::sys;

mod party;

pub(crate) use party::Party;

/// How often an endpoint is picked for one request: the first, and two more when no connection
/// could be made.
const PICKS: u32 = 3;

/// See the top of the file.
pub(crate) struct Shared {
    waiter: Waiter,
    question: Question,
    /// The endpoint that was picked last, as the policy numbers it.
    endpoint: Atomic<u32>,
}

impl Shared {
    /// Where the waker lies in it.
    pub(crate) const WAKER: usize = offset_of!(Shared, waiter) + Waiter::WAKER;

    /// Its owner is woken by `waker`.
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            waiter: Waiter::new(waker),
            question: Question::new(),
            endpoint: Atomic::new(0),
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        self.waiter.waker()
    }

    /// What the policy wants done with the request, beside sending it or instead.
    ///
    /// # Safety
    ///
    /// The caller has the exchange, and takes no step of it meanwhile.
    pub(crate) unsafe fn actions(&self) -> Option<&Actions> {
        // SAFETY: By the contract; the policy is called by who has the exchange.
        unsafe { self.question.actions() }
    }

    /// Nothing is left to be done.
    ///
    /// # Safety
    ///
    /// The caller has the exchange.
    pub(crate) unsafe fn forget_actions(&self) {
        // SAFETY: As in `actions`.
        unsafe { self.question.forget_actions() }
    }

    /// For those who look from outside.
    pub(crate) fn endpoint(&self) -> u32 {
        self.endpoint.read()
    }
}

/// What an exchange works with, and does not have.
pub(crate) struct With<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) party: &'a mut Party,
    pub(crate) request: Request<'a>,
}

/// See the top of the file.
pub(crate) struct Exchange {
    pub(crate) decision: sys::xlb_decision,
    /// An endpoint was picked, and the policy not told yet how it did.
    picked: bool,
    /// The request was sent again.
    replayed: bool,
    /// How many endpoints were picked for it before.
    attempt: u32,
    /// When its head was whole, in nanoseconds of `CLOCK_MONOTONIC`.
    started_ns: u64,
    /// Bytes that were sent to endpoints.
    pub(crate) request_bytes: u64,
}

/// What comes next.
pub(crate) enum Step {
    /// The request can be sent over this connection.
    Ready(Ready),
    /// The session waits; the waker is kicked.
    Wait(Wait),
    /// The client is told so, by an `XLB_REASON_*`; the policy knows.
    Fail(u32),
}

/// A connection for a request. A pooled one may have died: then [`Exchange::next_after`] has another one.
pub(crate) struct Ready {
    pub(crate) isock: Isock,
    pub(crate) from: From,
}

/// Where a connection is from.
pub(crate) enum From {
    /// The pool; the wait for it may go on until so many milliseconds of uptime (0: for ever).
    Pool { deadline_ms: u64 },
    /// It was opened for this request.
    Connect,
}

/// A request without connection.
pub(crate) struct Wait {
    on: WaitOn,
    /// In milliseconds of uptime; 0 for none.
    deadline_ms: u64,
}

/// What a request waits for.
enum WaitOn {
    /// The end of a connect.
    Connect(Isock),
    /// Its turn in the queue of a pool, or what it was given there.
    Turn(Arc<Pool>),
}

impl Wait {
    /// The connection that is awaited.
    pub(crate) fn isock(&self) -> Option<&Isock> {
        match &self.on {
            WaitOn::Connect(isock) => Some(isock),
            WaitOn::Turn(_) => None,
        }
    }

    /// Gives up the connection, which closes it, or the place in a queue and what may have been given there.
    pub(crate) fn cancel(self, shared: &Shared) {
        match self.on {
            WaitOn::Connect(isock) => isock.forget_waker(),
            WaitOn::Turn(pool) => pool.cancel(&shared.waiter),
        }
    }
}

/// How a response ended.
#[derive(Default)]
pub(crate) struct Answer {
    /// Bytes that came from the endpoint.
    pub(crate) bytes: u64,
    /// Of the final response; 0 if there was none.
    pub(crate) status: u32,
}

impl Exchange {
    pub(crate) const fn new() -> Self {
        Self {
            decision: NO_DECISION,
            picked: false,
            replayed: false,
            attempt: 0,
            started_ns: 0,
            request_bytes: 0,
        }
    }

    /// A request begins; asks the policy where it is to go. The error is the reason to tell the client.
    pub(crate) fn begin(&mut self, with: &With<'_>, service: u32) -> Result<(), u32> {
        self.replayed = false;
        self.request_bytes = 0;
        self.attempt = 0;
        // SAFETY: Reads the clock; the socket is live.
        let (now_ns, cgroup_id, source) = unsafe {
            (
                sys::xlb_now_ns(),
                sys::xlb_sk_cgroup_id(with.party.sk),
                sys::xlb_sk_source(with.party.sk),
            )
        };
        self.started_ns = now_ns;
        let origin = Origin {
            cgroup_id,
            service,
            now_ns,
            source,
        };
        let question = &with.shared.question;
        // SAFETY: The exchange is ours, and the policy is not being called.
        let decided = unsafe { question.route(&origin, &with.request, &mut self.decision) };
        self.decided(with.shared, decided)
    }

    /// Asks the policy for another endpoint.
    fn pick(&mut self, with: &With<'_>, attempt: u32) -> Result<(), u32> {
        self.attempt = attempt;
        let question = &with.shared.question;
        // SAFETY: As in `begin`.
        let decided = unsafe { question.pick(attempt, &with.request, &mut self.decision) };
        self.decided(with.shared, decided)
    }

    fn decided(&mut self, shared: &Shared, decided: Result<(), u32>) -> Result<(), u32> {
        self.picked = decided.is_ok();
        if self.picked {
            shared.endpoint.write(self.decision.endpoint);
        }
        decided
    }

    /// Tells the policy how the picked endpoint did, once for each that it has picked.
    pub(crate) fn done(&mut self, shared: &Shared, reason: u32, answer: &Answer) {
        if !core::mem::take(&mut self.picked) {
            return;
        }
        // SAFETY: Reads the clock.
        let now = unsafe { sys::xlb_now_ns() };
        let result = sys::xlb_result {
            size: size_of::<sys::xlb_result>() as u32,
            status: answer.status,
            request_bytes: self.request_bytes,
            response_bytes: answer.bytes,
            latency_ns: now.saturating_sub(self.started_ns),
            reason,
            reserved0: 0,
        };
        count::add(sys::XLB_COUNTER_REQUEST_BYTES, self.request_bytes as i64);
        count::add(sys::XLB_COUNTER_RESPONSE_BYTES, answer.bytes as i64);
        // SAFETY: As in `begin`.
        unsafe { shared.question.done(&mut self.decision, result) };
    }

    /// Ends an attempt that came to no connection.
    fn fail(&mut self, shared: &Shared, reason: u32) -> Step {
        self.done(shared, reason, &Answer::default());
        Step::Fail(reason)
    }

    /// Finds a connection to the endpoint that was decided on.
    pub(crate) fn connect(&mut self, with: &mut With<'_>) -> Step {
        // An orphan waits no longer than it lives.
        let deadline_ms = with.party.until_ms;
        self.find(with, deadline_ms)
    }

    /// As [`Exchange::connect`], in a wait that may have begun already and ends at `deadline_ms`.
    fn find(&mut self, with: &mut With<'_>, mut deadline_ms: u64) -> Step {
        if with.party.refresh().is_err() {
            return self.fail(with.shared, sys::XLB_REASON_NO_MEMORY);
        }
        let once = !with.request.head.method.is_idempotent();
        loop {
            let Some((Found { pool, known }, caller)) = with.party.find_pool(&self.decision) else {
                return self.fail_connect(with, sys::XLB_REASON_NO_MEMORY);
            };
            let (waiter, limits) = (&with.shared.waiter, &self.decision.pool);
            match pool.acquire(waiter, caller, limits, once, &mut deadline_ms) {
                Got::Ready(isock, permitted) => {
                    let may = known || permitted || may_use(&isock, caller);
                    if may {
                        with.party.pools.set(pool);
                    }
                    return self.offer(with, isock, may, deadline_ms);
                }
                Got::Permit(generation) => return self.open(with, pool, generation),
                Got::Queued => {
                    pool.ask_holders();
                    return Step::Wait(Wait {
                        on: WaitOn::Turn(pool),
                        deadline_ms,
                    });
                }
                Got::Overflow | Got::Late => {
                    return self.fail(with.shared, sys::XLB_REASON_POOL_OVERFLOW);
                }
                Got::Closed => {}
            }
        }
    }

    /// An idle connection, if the rules of the host let this client have it.
    fn offer(&mut self, with: &mut With<'_>, isock: Isock, may: bool, deadline_ms: u64) -> Step {
        if !may {
            Pool::give_back(isock, with.party.pools.last(), true);
            return self.fail_connect(with, sys::XLB_REASON_NOT_PERMITTED);
        }
        let from = From::Pool { deadline_ms };
        Step::Ready(Ready { isock, from })
    }

    fn open(&mut self, with: &mut With<'_>, pool: Arc<Pool>, generation: u64) -> Step {
        let waker = with.shared.waker();
        // Before the connect, so that its end cannot be missed.
        waker.expect();
        let sk = with.party.sk;
        let Some(caller) = with.party.caller.as_ref().map(Cred::again) else {
            pool.forget_one();
            return self.fail_connect(with, sys::XLB_REASON_CONNECT_FAILED);
        };
        let isock = match Isock::open(pool.clone(), generation, Some(waker), sk, &caller) {
            Ok(isock) => isock,
            Err(e) => {
                let reason = if e == EPERM || e == EACCES {
                    sys::XLB_REASON_NOT_PERMITTED
                } else if lacks_memory(e) {
                    sys::XLB_REASON_NO_MEMORY
                } else {
                    sys::XLB_REASON_CONNECT_FAILED
                };
                return self.fail_connect(with, reason);
            }
        };
        pool.permit(&caller);
        with.party.pools.set(pool);
        if isock.is_connected() {
            let from = From::Connect;
            return Step::Ready(Ready { isock, from });
        }
        if isock.is_dead() {
            count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
            drop(isock);
            return self.fail_connect(with, sys::XLB_REASON_CONNECT_FAILED);
        }
        let timeout = u64::from(self.decision.pool.connect_timeout_ms);
        let deadline_ms = if timeout > 0 { now_ms() + timeout } else { 0 };
        let step = await_connect(with.shared, isock, deadline_ms);
        self.warm(with.party);
        step
    }

    /// Opens connections ahead, after one was opened, as many as the cluster wants to have idle. May sleep.
    pub(crate) fn warm(&self, party: &Party) {
        if self.decision.pool.min_idle == 0 {
            return;
        }
        if let (Some(pool), Some(caller)) = (party.pools.last(), &party.caller) {
            pool.warm(party.sk, caller);
        }
    }

    /// The connection that was [`Ready`] took nothing of the request.
    pub(crate) fn next_after(&mut self, with: &mut With<'_>, from: From) -> Step {
        match from {
            // It had died; the next one, or a new one.
            From::Pool { deadline_ms } => self.find(with, deadline_ms),
            From::Connect => self.fail_connect(with, sys::XLB_REASON_CONNECT_FAILED),
        }
    }

    /// A connect or a turn in the queue may be over.
    pub(crate) fn waited(&mut self, with: &mut With<'_>, wait: Wait) -> Step {
        match wait.on {
            WaitOn::Connect(isock) => self.waited_for_connect(with, isock, wait.deadline_ms),
            WaitOn::Turn(pool) => self.waited_for_turn(with, pool, wait.deadline_ms),
        }
    }

    fn waited_for_connect(&mut self, with: &mut With<'_>, isock: Isock, deadline_ms: u64) -> Step {
        let late = deadline_ms != 0 && now_ms() >= deadline_ms;
        if isock.is_connected() {
            let from = From::Connect;
            return Step::Ready(Ready { isock, from });
        }
        if !isock.is_dead() && !late {
            // A kick for another reason has replaced the one for the deadline.
            return await_connect(with.shared, isock, deadline_ms);
        }
        count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
        isock.forget_waker();
        let reason = if isock.is_dead() {
            sys::XLB_REASON_CONNECT_FAILED
        } else {
            sys::XLB_REASON_TIMEOUT
        };
        drop(isock);
        self.fail_connect(with, reason)
    }

    fn waited_for_turn(&mut self, with: &mut With<'_>, pool: Arc<Pool>, deadline_ms: u64) -> Step {
        let until_ms = with.party.until_ms;
        let deadline_ms = if until_ms != 0 && (deadline_ms == 0 || until_ms < deadline_ms) {
            // It became an orphan in the queue.
            until_ms
        } else {
            deadline_ms
        };
        match pool.take_turn(&with.shared.waiter, deadline_ms) {
            Got::Ready(isock, permitted) => {
                let caller = with.party.caller.as_ref();
                let may = permitted || caller.is_some_and(|caller| may_use(&isock, caller));
                self.offer(with, isock, may, deadline_ms)
            }
            Got::Permit(generation) => self.open(with, pool, generation),
            Got::Queued => Step::Wait(Wait {
                on: WaitOn::Turn(pool),
                deadline_ms,
            }),
            Got::Late => self.fail(with.shared, sys::XLB_REASON_POOL_TIMEOUT),
            Got::Overflow | Got::Closed => self.find(with, deadline_ms),
        }
    }

    /// No connection could be made: another endpoint, or a reply.
    fn fail_connect(&mut self, with: &mut With<'_>, reason: u32) -> Step {
        self.done(with.shared, reason, &Answer::default());
        let attempt = self.attempt + 1;
        let before = (self.decision.addr, self.decision.port);
        if attempt < PICKS && self.pick(with, attempt).is_ok() {
            if (self.decision.addr, self.decision.port) != before {
                // Bounded by PICKS.
                return self.connect(with);
            }
            self.done(with.shared, reason, &Answer::default());
        }
        Step::Fail(reason)
    }

    /// Whether a request of which nothing was answered may be sent again (RFC 9110, section 9.2.2).
    pub(crate) fn may_replay(&self, request: &Request<'_>) -> bool {
        !self.replayed && (request.head.method.is_idempotent() || self.request_bytes == 0)
    }

    /// The connection ended before a byte of the response came; the policy knows. Once for a request.
    pub(crate) fn replay(&mut self, with: &mut With<'_>) -> Step {
        count::inc(sys::XLB_COUNTER_REPLAYED);
        self.replayed = true;
        match self.pick(with, 1) {
            Ok(()) => self.connect(with),
            Err(reason) => Step::Fail(reason),
        }
    }
}

impl Party {
    /// Takes back the connection of an exchange that has ended, for others, or to be closed.
    pub(crate) fn give_back(&self, isock: Isock, keep: bool) {
        Pool::give_back(isock, self.pools.last(), keep);
    }
}

impl From {
    pub(crate) fn is_pooled(&self) -> bool {
        matches!(self, Self::Pool { .. })
    }
}

/// Whether the rules of the host let this client have an idle connection.
fn may_use(isock: &Isock, caller: &Cred) -> bool {
    let may = isock.may_use(caller).is_ok();
    if may {
        isock.home.permit(caller);
    }
    may
}

/// Waits for the end of a connect, or for its deadline.
fn await_connect(shared: &Shared, isock: Isock, deadline_ms: u64) -> Step {
    let waker = shared.waker();
    if deadline_ms != 0 {
        let left = deadline_ms.saturating_sub(now_ms());
        waker.kick(left.max(1));
    }
    // This kick may have replaced that of a connect that has just ended.
    if isock.is_connected() || isock.is_dead() {
        waker.kick(0);
    }
    Step::Wait(Wait {
        on: WaitOn::Connect(isock),
        deadline_ms,
    })
}

/// Whether a socket could not be had for want of memory: ENFILE is what `sock_create()` says then.
fn lacks_memory(err: Error) -> bool {
    err == ENOMEM || err == ENFILE || err.to_errno() == -(kernel::bindings::ENOBUFS as i32)
}
