// SPDX-License-Identifier: GPL-2.0

//! Pools: the i-socks of one (identity, cluster, endpoint), and the requests that wait for one.
//!
//! Objects: a [`Pool`] is an `Arc`, found through the table (`table.rs`) and remembered by the
//! clients that used it lately (`recent.rs`). Its i-socks are in [`Stripes`], one for each CPU, so that the common request takes
//! the lock of its CPU's stripe when it begins and when it ends, and no other. [`Inner`] is for what is seldom:
//! to open and close connections, and to wait for one. The table's
//! reference goes when the pool has been empty for a while; `closed` then tells late users to look
//! again.
//!
//! Contexts: everything runs in process context but [`Pool::idle_event`], which TCP's callbacks
//! call in softirq with the i-sock locked. Locks (numbers as in `lock.rs`): pool (4), then a stripe (4b), then the
//! list of the dead (5). Under them nothing is allocated and no i-sock is dropped: what must close is moved out first,
//! or onto the list of the dead, which the reaper closes.
//!
//! Who waits is a [`Waiter`] in the pool's queue. Whoever gives a connection back hands it, or
//! the right to open a new one, to the first waiter and kicks it. Both sides hold the pool's
//! lock, and a waiter leaves the queue before it goes, so its link is always live. Its time is up
//! when it finds so; the timer is set under the pool's lock, so that it never replaces the kick
//! of a turn that has come.
//!
//! Who gives back looks at `waiting` without the lock. It puts the connection into a stripe and then looks; who begins
//! to wait says so and then looks into the stripes. There is a full barrier in both, so one of them sees the
//! other, and no connection lies idle while a request waits for it.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;

use crate::count;
use crate::isock::{self, now_ms, Cred, Home, Id};
use crate::lock::BhLock;
use crate::once::Once as _;
use crate::sys;

mod queue;
mod recent;
mod stripe;
pub(crate) mod table;

pub(crate) use queue::Waiter;
pub(crate) use recent::{Found, Recent};

use queue::{Queue, Turn};
use stripe::{Fate, Place, Stripes, Until};
use table::bury;

/// A connection of a pool.
pub(crate) type Isock = isock::Isock<Pool>;
type Shared = isock::Shared<Pool>;
type Chain = isock::Chain<Pool>;

/// What a pool is for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// [`Id::address`]: who has the key, or the pool, holds that identity.
    identity: usize,
    addr: [u8; 16],
    port: u16,
    /// Limits belong to a cluster, and clusters may have an endpoint in common.
    cluster: u32,
}

impl Key {
    /// `decision` says which endpoint and cluster.
    pub(crate) fn new(identity: &Id, decision: &sys::xlb_decision) -> Self {
        Self {
            identity: identity.address(),
            addr: decision.addr,
            port: decision.port,
            cluster: decision.pool.cluster,
        }
    }

    /// Whether it names `identity`.
    pub(crate) fn is_of(&self, identity: &Id) -> bool {
        self.identity == identity.address()
    }

    /// For the table.
    pub(crate) fn hash(&self) -> u64 {
        let h = xlb_engine::hash::Fnv1a::new()
            .update(self.addr.get(12..).unwrap_or(&[]))
            .update(&self.port.to_ne_bytes())
            .update(&self.identity.to_ne_bytes())
            .update(&self.cluster.to_ne_bytes())
            .finish();
        h ^ (h >> 32)
    }
}

/// See the top of the file.
pub(crate) struct Pool {
    pub(crate) key: Key,
    /// The next one in its bucket; the table's.
    pub(crate) next: Atomic<*mut Pool>,
    /// Whose connections these are.
    identity: Id,
    // What follows is read by each request and seldom written.
    limits: Limits,
    /// [`Inner::permitted`], to be compared with.
    permitted: Atomic<usize>,
    /// Requests that wait; a hint for those who do not hold the lock.
    waiting: Atomic<u32>,
    /// Connections of an earlier one are closed when they come back.
    generation: Atomic<u64>,
    /// An endpoint has said how long it keeps idle connections.
    told: Atomic<bool>,
    /// Holders are asked once in each round.
    round: Atomic<u64>,
    closed: Atomic<bool>,
    stripes: Stripes,
    inner: BhLock<Inner>,
}

/// What the pool's lock protects.
pub(crate) struct Inner {
    /// All connections of this pool, and permits to open one, wherever they are.
    total: u32,
    waiters: Queue,
    round_ms: u64,
    created: u64,
    /// Whom the rules of the host have let connect last.
    permitted: Option<Cred>,
}

/// Limits as the last request had them. Each word is read and written as one; that words may be of two configurations
/// for a moment does no harm.
struct Limits([Atomic<u64>; 4]);

impl Limits {
    fn words(limits: &sys::xlb_pool_limits) -> [u64; 4] {
        const { assert!(size_of::<sys::xlb_pool_limits>() == size_of::<[u64; 4]>()) };
        // SAFETY: Of the same size, without padding, and any bytes are numbers.
        unsafe { core::mem::transmute_copy(limits) }
    }

    fn new() -> Self {
        Self([const { Atomic::new(0) }; 4])
    }

    fn load(&self) -> sys::xlb_pool_limits {
        let words = self.0.each_ref().map(|w| w.read());
        // SAFETY: As in `words`.
        unsafe { core::mem::transmute_copy(&words) }
    }

    /// Of these alone, without the rest.
    fn max_requests(&self) -> u32 {
        const WORD: usize = core::mem::offset_of!(sys::xlb_pool_limits, max_requests) / 8;
        const { assert!(core::mem::offset_of!(sys::xlb_pool_limits, max_requests) % 8 == 4) };
        let word = self.0.get(WORD).map_or(0, |w| w.read());
        let [_, _, _, _, a, b, c, d] = word.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    /// Writes only what differs: the line is shared by all CPUs.
    fn store(&self, limits: &sys::xlb_pool_limits) {
        for (word, new) in self.0.iter().zip(Self::words(limits)) {
            if word.read() != new {
                word.write(new);
            }
        }
    }
}

impl Inner {
    /// Gives `turn` to the first waiter; gives it back when nobody waits.
    ///
    /// # Safety
    ///
    /// The pool's lock is held, and what `turn` gives is of this pool, a connection is among those that are held.
    unsafe fn serve(&mut self, turn: Turn) -> Option<Turn> {
        // SAFETY: The pool's lock is held.
        unsafe { self.waiters.serve(turn) }
    }
}

/// How an idle connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a FIN.
    Order,
    /// By a RST, which leaves no `TIME_WAIT` behind that has its port.
    Reset,
}

/// What [`Pool::acquire`] found.
pub(crate) enum Got {
    /// A connection that was idle; it may have died since, see [`Isock::is_clean`]. The rules of the host are to
    /// be asked about it, unless they were by this caller.
    Ready(Isock, bool),
    /// The right to open one, for [`Isock::open`] with this generation.
    Permit(u64),
    /// The waiter is queued; it is kicked when its turn comes.
    Queued,
    /// It was queued until its deadline, and is no more.
    Late,
    /// `max` and `max_pending` are reached.
    Overflow,
    /// The pool has left the table: look it up again.
    Closed,
}

impl Pool {
    /// An empty one; [`table::get`](crate::table::get) makes them. May sleep.
    pub(crate) fn new(key: &Key, identity: &Id) -> Result<Arc<Self>> {
        let new = Arc::new(
            Pool {
                key: key.clone(),
                next: Atomic::new(core::ptr::null_mut()),
                identity: identity.clone(),
                limits: Limits::new(),
                permitted: Atomic::new(0),
                waiting: Atomic::new(0),
                generation: Atomic::new(count::from()),
                told: Atomic::new(false),
                round: Atomic::new(count::from()),
                closed: Atomic::new(false),
                stripes: Stripes::new()?,
                inner: BhLock::new(Inner {
                    total: 0,
                    waiters: Queue::new(),
                    round_ms: 0,
                    created: count::from(),
                    permitted: None,
                }),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: First use, and an Arc's contents do not move.
        unsafe { new.inner.init(sys::XLB_LOCK_POOL) };
        Ok(new)
    }

    /// Takes an idle connection, the right to open one, or a place in the queue for `waiter`. The
    /// place is good until `deadline_ms`, which is set when it is 0 and the wait has an end. `once` says that the
    /// request cannot be sent again. May sleep (to close those that are too old).
    pub(crate) fn acquire(
        &self,
        waiter: &Waiter,
        caller: &Cred,
        limits: &sys::xlb_pool_limits,
        once: bool,
        deadline_ms: &mut u64,
    ) -> Got {
        self.limits.store(limits);
        let now = now_ms();
        // Who waits was first.
        if !self.is_wanted() && !self.is_closed() {
            let mut over = Chain::new();
            let taken = self.stripes.take(now, once, &mut over);
            // They count until they are closed.
            drop(over);
            if let Some(isock) = taken {
                return Got::Ready(isock, self.permitted.read() == caller.get() as usize);
            }
        }
        self.open_or_wait(waiter, limits, now, deadline_ms)
    }

    #[cold]
    #[inline(never)]
    fn open_or_wait(
        &self,
        waiter: &Waiter,
        limits: &sys::xlb_pool_limits,
        now: u64,
        deadline_ms: &mut u64,
    ) -> Got {
        let mut inner = self.inner.lock();
        if self.is_closed() {
            return Got::Closed;
        }
        if inner.waiters.len() == 0 && (limits.max == 0 || inner.total < limits.max) {
            inner.total += 1;
            inner.created += 1;
            return Got::Permit(self.generation.read());
        }
        if inner.waiters.len() >= limits.max_pending {
            return Got::Overflow;
        }
        // SAFETY: The lock is held; who asks has no connection, so it is not queued.
        unsafe { inner.waiters.push(waiter) };
        self.waiting.write(inner.waiters.len());
        if *deadline_ms == 0 && limits.pending_timeout_ms != 0 {
            *deadline_ms = now + u64::from(limits.pending_timeout_ms);
        }
        if *deadline_ms != 0 {
            waiter.waker().kick(deadline_ms.saturating_sub(now).max(1));
        }
        // One may have been given back since we looked.
        self.serve_idle(&mut inner);
        Got::Queued
    }

    /// Gives idle connections to those who wait.
    fn serve_idle(&self, inner: &mut Inner) {
        // See the top of the file.
        // SAFETY: Any context.
        unsafe { sys::xlb_smp_mb() };
        while inner.waiters.len() > 0 {
            let mut over = Chain::new();
            let taken = self.stripes.steal(now_ms(), &mut over);
            while let Some(isock) = over.pop() {
                bury(isock);
            }
            let Some(isock) = taken else { break };
            // SAFETY: The lock is held, and somebody waits, so it does not come back.
            let _ = unsafe { inner.serve(Turn::Ready(isock)) };
        }
        self.waiting.write(inner.waiters.len());
    }

    /// The rules of the host let `caller` connect.
    pub(crate) fn permit(&self, caller: &Cred) {
        let caller = caller.again();
        let mut inner = self.inner.lock();
        // The address names these credentials for as long as it stands there: they are let go of after it has gone.
        self.permitted.write(caller.get() as usize);
        let before = inner.permitted.replace(caller);
        drop(inner);
        drop(before);
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.read()
    }

    /// Whether `isock`, which comes back, is to be closed.
    pub(crate) fn refuses(&self, isock: &Isock) -> bool {
        self.is_closed() || isock.owned().generation != self.generation.read()
    }

    /// Whether it has left the table, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.read()
    }

    /// After a request was queued: responses that are in already hold connections too. Asks as
    /// many holders as wait.
    pub(crate) fn ask_holders(&self) {
        let now = now_ms();
        let mut inner = self.inner.lock();
        // A round looks at every one, so it is worth less often when they are many.
        let pause = ROUND_MS.max(u64::from(inner.total) / 64);
        if now.saturating_sub(inner.round_ms) >= pause {
            inner.round_ms = now;
            self.round.write(self.round.read() + 1);
        }
        drop(inner);
        self.stripes.ask(self.round.read(), u32::MAX, self);
    }

    /// A holder that was asked cannot let go: asks another one.
    pub(crate) fn ask_another(&self) {
        self.stripes.ask(self.round.read(), 1, self);
    }

    /// What a queued `waiter` was given: [`Got::Queued`] when its turn has not come, and it may wait
    /// until `deadline_ms` (0: for ever).
    pub(crate) fn take_turn(&self, waiter: &Waiter, deadline_ms: u64) -> Got {
        let mut inner = self.inner.lock();
        // SAFETY: The lock is held.
        match unsafe { waiter.take_turn() } {
            Turn::Ready(isock) => Got::Ready(isock, false),
            Turn::Permit(generation) => Got::Permit(generation),
            Turn::Queued => {
                let now = now_ms();
                if deadline_ms != 0 && now >= deadline_ms {
                    // SAFETY: It is queued here.
                    unsafe { inner.waiters.unlink(waiter) };
                    self.waiting.write(inner.waiters.len());
                    return Got::Late;
                }
                // SAFETY: As above.
                unsafe { waiter.keep_waiting() };
                if deadline_ms != 0 {
                    // A kick for another reason has replaced the one for the deadline.
                    waiter.waker().kick(deadline_ms - now);
                }
                Got::Queued
            }
            Turn::None => Got::Closed,
        }
    }

    /// Takes `waiter` out of the queue, and passes on what it may have been given.
    pub(crate) fn cancel(&self, waiter: &Waiter) {
        let mut inner = self.inner.lock();
        // SAFETY: The lock is held.
        match unsafe { waiter.take_turn() } {
            Turn::None => {}
            Turn::Queued => {
                // SAFETY: It is queued here.
                unsafe { inner.waiters.unlink(waiter) };
                self.waiting.write(inner.waiters.len());
            }
            Turn::Ready(isock) => {
                drop(inner);
                self.release(isock, true);
            }
            Turn::Permit(_) => {
                drop(inner);
                self.forget_one();
            }
        }
    }

    /// As [`Pool::release`] to the pool that `isock` is of, most likely `last`.
    pub(crate) fn give_back(isock: Isock, last: Option<&Arc<Self>>, keep: bool) {
        match last {
            Some(pool) if Arc::ptr_eq(pool, &isock.home) => pool.release(isock, keep),
            _ => isock.home.clone().release(isock, keep),
        }
    }

    /// Takes a connection back whose exchange is over: for the next waiter, into the pool, or to
    /// be closed when `keep` is false or it is no longer good. May sleep.
    pub(crate) fn release(&self, isock: Isock, keep: bool) {
        isock.forget_waker();
        let owned = isock.owned();
        let most = self.limits.max_requests();
        if !keep || self.refuses(&isock) || (most != 0 && owned.requests >= u64::from(most)) {
            drop(isock);
            return;
        }
        if owned.life_ms != u32::MAX && !self.told.read() {
            self.told.write(true);
        }
        let mut isock = isock;
        if self.is_wanted() {
            let mut inner = self.inner.lock();
            // SAFETY: The lock is held, and whose exchange is over is held still.
            let back = unsafe { inner.serve(Turn::Ready(isock)) };
            self.waiting.write(inner.waiters.len());
            let Some(Turn::Ready(again)) = back else {
                return;
            };
            isock = again;
        }
        drop(self.put(isock));
    }

    /// Makes `isock` an idle one, or gives it to one who waits; gives it out again when it is no good. Any context.
    fn put(&self, isock: Isock) -> Option<Isock> {
        let back = self.stripes.put(isock, self);
        if let Some(isock) = &back {
            if isock.is_over(now_ms()) {
                count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
            } else if !self.refuses(isock) {
                count_lost(isock);
            }
        } else if self.is_wanted() {
            self.serve_idle(&mut self.inner.lock());
        }
        back
    }

    /// Opens connections ahead until `min_idle` are idle or on their way. `payer` is a p-sock of
    /// the pool's netns and cgroup, `caller` who connected it. May sleep.
    pub(crate) fn warm(self: &Arc<Self>, payer: *mut sys::sock, caller: &Cred) {
        let l = self.limits.load();
        // Bounded by the first look at `min_idle`.
        for _ in 0..l.min_idle.min(MAX_WARM) {
            let there = self.stripes.tally();
            let generation = {
                let mut inner = self.inner.lock();
                if self.is_closed()
                    || there.idle + there.ahead >= l.min_idle
                    || (l.max != 0 && inner.total >= l.max)
                {
                    return;
                }
                inner.total += 1;
                inner.created += 1;
                self.generation.read()
            };
            let Ok(isock) = Isock::open(self.clone(), generation, None, payer, caller) else {
                return;
            };
            match self.stripes.keep_ahead(isock, self) {
                None => {}
                Some(Fate::Connected(isock)) => drop(self.put(isock)),
                Some(Fate::Failed(isock) | Fate::Lost(isock)) => {
                    drop(isock);
                    return;
                }
            }
        }
    }

    /// Closes what is idle now, and what is running when it ends. May sleep.
    pub(crate) fn retire(&self, how: End) {
        let inner = self.inner.lock();
        self.generation.write(self.generation.read() + 1);
        drop(inner);
        let mut done = false;
        while !done {
            let mut out = Chain::new();
            done = self.stripes.empty(&mut out);
            while let Some(mut isock) = out.pop() {
                if how == End::Reset {
                    isock.reset_at_end();
                }
            }
        }
    }

    /// Moves connections that have been idle too long, or did not connect in time, into `out`, some at a time:
    /// false when others may be left.
    pub(crate) fn expire(&self, now: u64, out: &mut Chain) -> bool {
        let l = self.limits.load();
        let until = Until {
            now,
            idle_ms: l.idle_timeout_ms,
            connect_ms: l.connect_timeout_ms,
            told: self.told.read(),
        };
        // Nobody keeps the spare ones of a pool that is not used any more.
        let unused = now.saturating_sub(self.stripes.used_ms())
            >= u64::from(l.idle_timeout_ms).max(UNUSED_MS);
        let keep = if unused { 0 } else { l.min_idle };
        self.stripes.expire(&until, keep, out)
    }

    /// Whether it is empty, and was not asked for lately. `inner` is what its lock protects.
    pub(crate) fn is_unused(&self, inner: &Inner, now: u64) -> bool {
        self.is_empty(inner) && now.saturating_sub(self.stripes.used_ms()) >= UNUSED_MS
    }

    /// Whether it has neither connections nor waiters. `inner` is what its lock protects.
    pub(crate) fn is_empty(&self, inner: &Inner) -> bool {
        inner.total == 0 && inner.waiters.len() == 0
    }

    /// As [`Pool::is_empty`], for those who do not hold the lock.
    pub(crate) fn seems_empty(&self) -> bool {
        self.is_empty(&self.inner.lock())
    }

    /// As [`Pool::is_unused`], for those who do not hold the lock.
    pub(crate) fn seems_unused(&self, now: u64) -> bool {
        self.is_unused(&self.inner.lock(), now)
    }

    /// Ends the pool if `gone` says so: it gives nothing any more, and takes connections back
    /// only to close them. `gone` runs under the lock.
    pub(crate) fn close_if(&self, gone: impl FnOnce(&Self, &Inner) -> bool) -> bool {
        // One section: nobody takes a permit between the look and the end.
        let inner = self.inner.lock();
        if gone(self, &inner) {
            self.closed.write(true);
        }
        self.is_closed()
    }

    /// Whether the connections are in this netns. It is compared by address and never followed after
    /// it has gone: the table closes its pools before that.
    pub(crate) fn is_in(&self, net: *mut sys::net) -> bool {
        self.identity.raw().net == net as u64
    }

    /// For `xlbctl get pools`.
    pub(crate) fn info(&self) -> sys::xlb_pool_info {
        let id = self.identity.raw();
        let hz = kernel::bindings::CONFIG_HZ;
        let there = self.stripes.tally();
        let inner = self.inner.lock();
        sys::xlb_pool_info {
            cgroup_id: id.cgroup_id,
            created: inner.created,
            reused: there.reused,
            netns: id.netns,
            idle: there.idle,
            active: inner.total.saturating_sub(there.idle + there.ahead),
            connecting: there.ahead,
            pending: inner.waiters.len(),
            cluster: self.key.cluster,
            addr: self.key.addr,
            port: self.key.port,
            source_port: id.source_port,
            source: id.source,
            congestion: id.congestion,
            uid: id.uid,
            fsuid: id.fsuid,
            fsgid: id.fsgid,
            secid: id.secid,
            bound_dev_if: id.bound_dev_if,
            mark: id.mark,
            priority: id.priority,
            user_timeout_ms: id.user_timeout_ms,
            keep_idle_s: id.keep_idle / hz,
            tos: id.tos,
            reserved0: [0; 7],
        }
    }
}

impl Home for Pool {
    type Place = Place;

    fn place(&self) -> Place {
        self.stripes.place()
    }

    fn identity(&self) -> &Id {
        &self.identity
    }

    fn endpoint(&self) -> (&[u8; 16], u16) {
        (&self.key.addr, self.key.port)
    }

    fn hold(&self, isock: &mut Isock) {
        self.stripes.hold(isock);
    }

    fn let_go(&self, isock: &mut Isock) {
        self.stripes.let_go(isock);
    }

    fn idle_event(&self, isock: &Shared) {
        match self.stripes.settle(isock) {
            None => {}
            Some(Fate::Connected(isock)) => {
                if let Some(isock) = self.put(isock) {
                    bury(isock);
                }
            }
            Some(Fate::Failed(isock)) => {
                count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
                bury(isock);
            }
            Some(Fate::Lost(isock)) => {
                count_lost(&isock);
                bury(isock);
            }
        }
    }

    /// A waiter may open another.
    fn forget_one(&self) {
        let mut inner = self.inner.lock();
        let permit = Turn::Permit(self.generation.read());
        // SAFETY: The lock is held.
        if unsafe { inner.serve(permit) }.is_some() {
            inner.total = inner.total.saturating_sub(1);
        } else {
            inner.created += 1;
            self.waiting.write(inner.waiters.len());
        }
    }

    /// Whose client is slow to read a response that has come in whole lets go of the connection then.
    fn is_wanted(&self) -> bool {
        self.waiting() != 0
    }
}

/// TCP's callbacks of an i-sock.
///
/// # Safety
///
/// `isock` is the live [`Shared`] of a socket whose lock is held, inside an RCU section: what
/// `isk_event()` in `shim/isock.c` does.
#[no_mangle]
unsafe extern "C" fn xlb_isock_event(isock: *mut sys::xlb_isock, event: sys::xlb_isock_event) {
    // SAFETY: By the function's contract.
    isock::event(unsafe { &*isock.cast::<Shared>() }, event);
}

fn count_lost(isock: &Isock) {
    if isock.inq() > 0 {
        count::inc(sys::XLB_COUNTER_DESYNC);
    } else {
        count::inc(sys::XLB_COUNTER_IDLE_CLOSED);
    }
}

/// Connections opened ahead in one go. The system call that finds too few idle ones pays for
/// them: it runs in the cgroup and netns that they are for.
const MAX_WARM: u32 = 1024;
/// An empty pool is forgotten after this time, in milliseconds.
const UNUSED_MS: u64 = 10_000;
/// How often at most a round of asking begins, in milliseconds.
const ROUND_MS: u64 = 10;
