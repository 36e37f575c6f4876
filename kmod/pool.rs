// SPDX-License-Identifier: GPL-2.0

//! Pools: the i-socks of one (identity, cluster, endpoint), and the requests that wait for one.
//!
//! Objects: a [`Pool`] is an `Arc`, found through the table (`table.rs`) and remembered by the
//! p-socks that used it last, so that the common request takes one lock, the pool's. The table's
//! reference goes when the pool has been empty for a while; `closed` then tells late users to look
//! again.
//!
//! Contexts: everything runs in process context but [`Pool::idle_event`], which TCP's callbacks
//! call in softirq with the i-sock locked. Locks (numbers as in `lock.rs`): pool (4), then the
//! list of the dead (5). Under them nothing is allocated and no i-sock is dropped: idle slots are
//! reserved before a connection is opened, and what must close is moved out first, or onto the
//! list of the dead, which the reaper closes.
//!
//! A waiting p-sock is a link in the pool's queue. Whoever gives a connection back hands it, or
//! the right to open a new one, to the first waiter and kicks its work. Both sides hold the pool's
//! lock, and a p-sock leaves the queue before it goes, so the link is always live. Its time is up
//! when its work finds so; the timer is set under the pool's lock, so that it never replaces the kick
//! of a turn that has come.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

use crate::count;
use crate::holders::Holders;
use crate::identity::{Cred, Id};
use crate::isock::{now_ms, Chain, Isock, Shared};
use crate::lock::BhLock;
use crate::psock::Psock;
use crate::sys;
use crate::table::bury;

/// What a pool is for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// [`Id::address`]: who has the key, or the pool, holds that identity.
    identity: usize,
    pub(crate) addr: [u8; 16],
    pub(crate) port: u16,
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

    /// `AF_INET` for IPv4-mapped addresses, else `AF_INET6`.
    pub(crate) fn family(&self) -> i32 {
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        if self.addr.starts_with(&MAPPED) {
            kernel::bindings::AF_INET as i32
        } else {
            kernel::bindings::AF_INET6 as i32
        }
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
    /// Whose connections these are.
    pub(crate) identity: Id,
    /// Requests that wait; a hint for those who do not hold the lock.
    waiting: Atomic<u32>,
    inner: BhLock<Inner>,
}

/// What the pool's lock protects.
pub(crate) struct Inner {
    /// Ready for a request; taken from the end, so the warmest first and the oldest in front.
    idle: KVec<Isock>,
    /// Opened ahead, not connected yet.
    warming: KVec<Isock>,
    /// All connections of this pool, and permits to open one, wherever they are.
    total: u32,
    waiters: Queue,
    /// Those that p-socks hold.
    holders: Holders,
    limits: sys::xlb_pool_limits,
    generation: u64,
    created: u64,
    reused: u64,
    used_ms: u64,
    /// An endpoint has said how long it keeps idle connections.
    told: bool,
    /// There was no memory for a slot: the next connection will not be kept.
    short: bool,
    closed: bool,
    /// Whom the rules of the host have let connect last.
    permitted: Option<Cred>,
}

impl Inner {
    /// Gives `turn` to the first waiter; gives it back when nobody waits.
    ///
    /// # Safety
    ///
    /// The pool's lock is held, and what `turn` gives is of this pool.
    unsafe fn serve(&mut self, mut turn: Turn) -> Option<Turn> {
        // SAFETY: Queued, hence live until it takes the pool's lock to leave.
        let Some(p) = (unsafe { self.waiters.head.as_ref() }) else {
            return Some(turn);
        };
        // SAFETY: It is the head of this queue.
        unsafe { self.waiters.unlink(p) };
        if let Turn::Ready(isock) = &mut turn {
            // SAFETY: By the contract.
            unsafe { self.holders.add(isock) };
        }
        // SAFETY: Links are ours under the pool's lock.
        unsafe { (*p.link.get()).turn = turn };
        p.kick(0);
        None
    }

    /// Empty, and not asked for lately.
    pub(crate) fn is_unused(&self, now: u64) -> bool {
        self.total == 0 && self.waiters.len == 0 && now.saturating_sub(self.used_ms) >= UNUSED_MS
    }
}

/// What [`Pool::acquire`] found.
pub(crate) enum Got {
    /// A connection that was idle; it may have died since, see [`Isock::is_clean`]. The rules of the host are to
    /// be asked about it, unless they were by this caller.
    Ready(Isock, bool),
    /// The right to open one, for [`Isock::open`] with this generation.
    Permit(u64),
    /// The p-sock is queued; its work is kicked when its turn comes.
    Queued,
    /// It was queued until its deadline, and is no more.
    Late,
    /// `max` and `max_pending` are reached.
    Overflow,
    /// The pool has left the table: look it up again.
    Closed,
}

/// A p-sock's place in the queue; accessed under the pool's lock only.
pub(crate) struct Link {
    next: *const Psock,
    prev: *const Psock,
    turn: Turn,
}

enum Turn {
    /// Not queued, and nothing was given.
    None,
    Queued,
    Ready(Isock),
    Permit(u64),
}

impl Link {
    pub(crate) const fn new() -> Self {
        Self {
            next: core::ptr::null(),
            prev: core::ptr::null(),
            turn: Turn::None,
        }
    }
}

/// First come, first served, linked through [`Psock::link`].
struct Queue {
    head: *const Psock,
    tail: *const Psock,
    len: u32,
}

// SAFETY: The pointers are followed under the pool's lock only, and queued p-socks are live.
unsafe impl Send for Queue {}

impl Queue {
    /// # Safety
    ///
    /// The pool's lock is held and `p` is live and not queued.
    unsafe fn push(&mut self, p: &Psock) {
        // SAFETY: Links are ours under the pool's lock.
        let link = unsafe { &mut *p.link.get() };
        link.turn = Turn::Queued;
        link.next = core::ptr::null();
        link.prev = self.tail;
        if self.tail.is_null() {
            self.head = p;
        } else {
            // SAFETY: A queued p-sock is live.
            unsafe { (*(*self.tail).link.get()).next = p };
        }
        self.tail = p;
        self.len += 1;
        count::inc(sys::XLB_COUNTER_PENDING);
    }

    /// # Safety
    ///
    /// The pool's lock is held and `p` is queued here.
    unsafe fn unlink(&mut self, p: &Psock) {
        // SAFETY: Links are ours under the pool's lock.
        let link = unsafe { &mut *p.link.get() };
        link.turn = Turn::None;
        if link.prev.is_null() {
            self.head = link.next;
        } else {
            // SAFETY: Neighbours are queued, hence live.
            unsafe { (*(*link.prev).link.get()).next = link.next };
        }
        if link.next.is_null() {
            self.tail = link.prev;
        } else {
            // SAFETY: As above.
            unsafe { (*(*link.next).link.get()).prev = link.prev };
        }
        link.next = core::ptr::null();
        link.prev = core::ptr::null();
        self.len -= 1;
        count::dec(sys::XLB_COUNTER_PENDING);
    }
}

const NO_LIMITS: sys::xlb_pool_limits = sys::xlb_pool_limits {
    min_idle: 0,
    max: 0,
    max_pending: 0,
    idle_timeout_ms: 0,
    connect_timeout_ms: 0,
    max_requests: 0,
    pending_timeout_ms: 0,
    cluster: 0,
};

impl Pool {
    /// An empty one; [`table::get`](crate::table::get) makes them.
    pub(crate) fn new(key: &Key, identity: &Id) -> Result<Arc<Self>> {
        let new = Arc::new(
            Pool {
                key: key.clone(),
                identity: identity.clone(),
                waiting: Atomic::new(0),
                inner: BhLock::new(Inner {
                    idle: KVec::new(),
                    warming: KVec::new(),
                    total: 0,
                    waiters: Queue {
                        head: core::ptr::null(),
                        tail: core::ptr::null(),
                        len: 0,
                    },
                    holders: Holders::new(),
                    limits: NO_LIMITS,
                    generation: count::from(),
                    created: count::from(),
                    reused: count::from(),
                    used_ms: now_ms(),
                    told: false,
                    short: false,
                    closed: false,
                    permitted: None,
                }),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: First use, and an Arc's contents do not move.
        unsafe { new.inner.init(sys::XLB_LOCK_POOL) };
        Ok(new)
    }

    /// Takes an idle connection, the right to open one, or a place in the queue for `psock`. The
    /// place is good until `deadline_ms`, which is set when it is 0 and the wait has an end. May
    /// sleep (to reserve the slot for a new connection, to close those that are too old).
    pub(crate) fn acquire(
        &self,
        psock: &Psock,
        caller: &Cred,
        limits: &sys::xlb_pool_limits,
        deadline_ms: &mut u64,
    ) -> Got {
        loop {
            // Closed after the lock is released.
            let mut over = Chain::new();
            let mut inner = self.inner.lock();
            if inner.closed {
                return Got::Closed;
            }
            let now = now_ms();
            inner.limits = *limits;
            inner.used_ms = now;
            if inner.waiters.len == 0 {
                while let Some(mut isock) = inner.idle.pop() {
                    count::dec(sys::XLB_COUNTER_ISOCKS_IDLE);
                    if isock.is_over(now) {
                        count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
                        over.push(isock);
                        continue;
                    }
                    inner.reused += 1;
                    // SAFETY: It is of this pool.
                    unsafe { inner.holders.add(&mut isock) };
                    let known = inner.permitted.as_ref();
                    let known = known.is_some_and(|c| c.get() == caller.get());
                    return Got::Ready(isock, known);
                }
                if !over.is_empty() {
                    // They count until they are closed.
                    continue;
                }
                if limits.max == 0 || inner.total < limits.max {
                    if inner.total as usize >= inner.idle.capacity() && !inner.short {
                        drop(inner);
                        self.reserve();
                        continue;
                    }
                    inner.short = false;
                    inner.total += 1;
                    inner.created += 1;
                    return Got::Permit(inner.generation);
                }
            }
            if inner.waiters.len >= limits.max_pending {
                return Got::Overflow;
            }
            // SAFETY: The lock is held; `psock` has no connection, so it is not queued.
            unsafe { inner.waiters.push(psock) };
            self.waiting.store(inner.waiters.len, Relaxed);
            if *deadline_ms == 0 && limits.pending_timeout_ms != 0 {
                *deadline_ms = now + u64::from(limits.pending_timeout_ms);
            }
            if *deadline_ms != 0 {
                psock.kick(deadline_ms.saturating_sub(now).max(1));
            }
            return Got::Queued;
        }
    }

    /// The rules of the host let `caller` connect.
    pub(crate) fn permit(&self, caller: &Cred) {
        let before = self.inner.lock().permitted.replace(caller.again());
        drop(before);
    }

    /// Whether requests wait for a connection of this pool. A p-sock whose client is slow to read
    /// a response that has come in whole lets go of the connection then.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) != 0
    }

    /// After a request was queued: responses that are in already hold connections too. Asks as
    /// many holders as wait.
    pub(crate) fn ask_holders(&self) {
        self.inner.lock().holders.begin_round(now_ms());
        self.ask(u32::MAX);
    }

    /// A holder that was asked cannot let go: asks another one.
    pub(crate) fn ask_another(&self) {
        self.ask(1);
    }

    fn ask(&self, most: u32) {
        let mut asked = 0;
        loop {
            let mut inner = self.inner.lock();
            let most = most.min(inner.waiters.len);
            for _ in 0..ASK_BATCH {
                if asked >= most {
                    return;
                }
                let Some(isock) = inner.holders.next() else {
                    return;
                };
                // SAFETY: The lock is held, and it is in the list.
                asked += u32::from(unsafe { isock.ask() });
            }
        }
    }

    /// `isock` is a p-sock's from now on.
    pub(crate) fn hold(&self, isock: &mut Isock) {
        // SAFETY: Whoever opens an i-sock says which pool it belongs to.
        unsafe { self.inner.lock().holders.add(isock) };
    }

    /// `isock` is nobody's from now on.
    pub(crate) fn let_go(&self, isock: &mut Isock) {
        if isock.owned().held {
            // SAFETY: As above.
            unsafe { self.inner.lock().holders.remove(isock) };
        }
    }

    /// What a queued `psock` was given: [`Got::Queued`] when its turn has not come, and it may wait
    /// until `deadline_ms` (0: for ever).
    pub(crate) fn take_turn(&self, psock: &Psock, deadline_ms: u64) -> Got {
        let mut inner = self.inner.lock();
        // SAFETY: Links are ours under the pool's lock.
        let turn = core::mem::replace(unsafe { &mut (*psock.link.get()).turn }, Turn::None);
        match turn {
            Turn::Ready(isock) => Got::Ready(isock, false),
            Turn::Permit(generation) => Got::Permit(generation),
            Turn::Queued => {
                let now = now_ms();
                if deadline_ms != 0 && now >= deadline_ms {
                    // SAFETY: It is queued here.
                    unsafe { inner.waiters.unlink(psock) };
                    self.waiting.store(inner.waiters.len, Relaxed);
                    return Got::Late;
                }
                // SAFETY: As above.
                unsafe { (*psock.link.get()).turn = Turn::Queued };
                if deadline_ms != 0 {
                    // A kick for another reason has replaced the one for the deadline.
                    psock.kick(deadline_ms - now);
                }
                Got::Queued
            }
            Turn::None => Got::Closed,
        }
    }

    /// Takes `psock` out of the queue, and passes on what it may have been given.
    pub(crate) fn cancel(&self, psock: &Psock) {
        let mut inner = self.inner.lock();
        // SAFETY: Links are ours under the pool's lock.
        let turn = core::mem::replace(unsafe { &mut (*psock.link.get()).turn }, Turn::None);
        match turn {
            Turn::None => {}
            Turn::Queued => {
                // SAFETY: It is queued here.
                unsafe { inner.waiters.unlink(psock) };
                self.waiting.store(inner.waiters.len, Relaxed);
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
            Some(pool) if Arc::ptr_eq(pool, &isock.pool) => pool.release(isock, keep),
            _ => isock.pool.clone().release(isock, keep),
        }
    }

    /// Takes a connection back whose exchange is over: for the next waiter, into the pool, or to
    /// be closed when `keep` is false or it is no longer good. May sleep.
    pub(crate) fn release(&self, isock: Isock, keep: bool) {
        isock.set_owner(core::ptr::null_mut());
        let mut inner = self.inner.lock();
        let l = &inner.limits;
        let owned = isock.owned();
        if !keep
            || inner.closed
            || owned.generation != inner.generation
            || (l.max_requests != 0 && owned.requests >= u64::from(l.max_requests))
        {
            drop(inner);
            drop(isock);
            return;
        }
        // SAFETY: The lock is held.
        let back = unsafe { inner.serve(Turn::Ready(isock)) };
        self.waiting.store(inner.waiters.len, Relaxed);
        let Some(Turn::Ready(mut isock)) = back else {
            return;
        };
        // SAFETY: It is of this pool.
        unsafe { inner.holders.remove(&mut isock) };
        let now = now_ms();
        isock.owned_mut().since_ms = now;
        // A FIN or a stray byte that came before this line is seen here; one that comes later
        // finds the connection in the pool, for its callback takes our lock.
        let good = isock.is_clean();
        let over = isock.is_over(now);
        if good && !over && inner.idle.len() < inner.idle.capacity() {
            inner.told |= isock.owned().life_ms != u32::MAX;
            let _ = inner.idle.push_within_capacity(isock);
            drop(inner);
            count::inc(sys::XLB_COUNTER_ISOCKS_IDLE);
            return;
        }
        drop(inner);
        if good && over {
            count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
        } else {
            count_lost(&isock);
        }
        drop(isock);
    }

    /// Opens connections ahead until `min_idle` are idle or on their way. `payer` is a p-sock of
    /// the pool's netns and cgroup, `caller` who connected it. May sleep.
    pub(crate) fn warm(self: &Arc<Self>, payer: *mut sys::sock, caller: &Cred) {
        // Bounded by the first look at `min_idle`.
        let mut budget = self.inner.lock().limits.min_idle.min(MAX_WARM);
        while budget > 0 {
            budget -= 1;
            self.reserve();
            let generation = {
                let mut inner = self.inner.lock();
                let ahead = (inner.idle.len() + inner.warming.len()) as u32;
                let l = &inner.limits;
                if inner.closed
                    || ahead >= l.min_idle
                    || (l.max != 0 && inner.total >= l.max)
                    || inner.warming.len() == inner.warming.capacity()
                {
                    return;
                }
                inner.total += 1;
                inner.created += 1;
                inner.generation
            };
            let Ok(isock) = Isock::open(
                self.clone(),
                generation,
                core::ptr::null_mut(),
                payer,
                caller,
            ) else {
                return;
            };
            let mut inner = self.inner.lock();
            // As in `release`: the state is looked at under the lock that its callback takes.
            if isock.is_connected() {
                drop(inner);
                self.release(isock, true);
            } else if isock.is_dead() {
                drop(inner);
                drop(isock);
                return;
            } else if let Err(e) = inner.warming.push_within_capacity(isock) {
                drop(inner);
                drop(e);
                return;
            }
        }
    }

    /// A connection or a permit is gone; a waiter may open another.
    pub(crate) fn forget_one(&self) {
        let mut inner = self.inner.lock();
        let generation = inner.generation;
        // SAFETY: The lock is held.
        if unsafe { inner.serve(Turn::Permit(generation)) }.is_some() {
            inner.total = inner.total.saturating_sub(1);
        } else {
            inner.created += 1;
            self.waiting.store(inner.waiters.len, Relaxed);
        }
    }

    /// Something happened to a connection that no p-sock owns. Softirq, the i-sock's lock held.
    pub(crate) fn idle_event(&self, isock: &Shared) {
        let mut inner = self.inner.lock();
        if let Some(at) = position(&inner.warming, isock) {
            if isock.is_connected() || isock.is_dead() {
                let Ok(mut taken) = inner.warming.remove(at) else {
                    return;
                };
                if taken.is_connected() {
                    taken.owned_mut().since_ms = now_ms();
                    // SAFETY: The lock is held.
                    let back = unsafe { inner.serve(Turn::Ready(taken)) };
                    self.waiting.store(inner.waiters.len, Relaxed);
                    if let Some(Turn::Ready(isock)) = back {
                        if inner.idle.len() < inner.idle.capacity() {
                            let _ = inner.idle.push_within_capacity(isock);
                            count::inc(sys::XLB_COUNTER_ISOCKS_IDLE);
                        } else {
                            bury(isock);
                        }
                    }
                } else {
                    count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
                    bury(taken);
                }
            }
        } else if let Some(at) = position(&inner.idle, isock) {
            if isock.is_clean() {
                return;
            }
            let Ok(taken) = inner.idle.remove(at) else {
                return;
            };
            count::dec(sys::XLB_COUNTER_ISOCKS_IDLE);
            count_lost(&taken);
            bury(taken);
        }
    }

    /// Closes what is idle now, and what is running when it ends. May sleep.
    pub(crate) fn retire(&self) {
        let mut none = KVec::new();
        let mut inner = self.inner.lock();
        inner.generation += 1;
        let idle = core::mem::replace(&mut inner.idle, KVec::new());
        core::mem::swap(&mut none, &mut inner.warming);
        drop(inner);
        count::add(sys::XLB_COUNTER_ISOCKS_IDLE, -(idle.len() as i64));
        drop(idle);
        drop(none);
    }

    /// Makes sure that every connection, and one more, has a slot in `idle` and in `warming`.
    /// Without memory the connection is simply not kept.
    fn reserve(&self) {
        loop {
            let want = {
                let inner = self.inner.lock();
                let need = inner.total as usize + 1;
                if need <= inner.idle.capacity() && need <= inner.warming.capacity() {
                    return;
                }
                need.next_power_of_two().max(8)
            };
            let (Ok(mut idle), Ok(mut warming)) = (
                KVec::with_capacity(want, GFP_KERNEL),
                KVec::with_capacity(want, GFP_KERNEL),
            ) else {
                self.inner.lock().short = true;
                return;
            };
            let mut inner = self.inner.lock();
            if want > inner.idle.capacity() {
                move_into(&mut inner.idle, &mut idle);
            }
            if want > inner.warming.capacity() {
                move_into(&mut inner.warming, &mut warming);
            }
            drop(inner);
            // The old vectors are empty now and are freed here, outside the lock.
        }
    }

    /// Moves connections that have been idle too long, or did not connect in time, into `out`;
    /// returns whether the pool is empty and unused.
    pub(crate) fn expire(&self, now: u64, out: &mut KVec<Isock>) -> bool {
        let mut inner = self.inner.lock();
        let l = inner.limits;
        while out.len() < out.capacity() {
            let spare = inner.idle.len() as u32 > l.min_idle;
            let over = match inner.told {
                true => inner.idle.iter().position(|i| i.is_over(now)),
                false => None,
            };
            let old = inner.idle.first().is_some_and(|i| {
                l.idle_timeout_ms != 0
                    && now.saturating_sub(i.owned().since_ms) >= u64::from(l.idle_timeout_ms)
            });
            // Nobody keeps the spare ones of a pool that is not used any more.
            let unused =
                now.saturating_sub(inner.used_ms) >= u64::from(l.idle_timeout_ms).max(UNUSED_MS);
            if over.is_some() || (old && (spare || unused)) {
                let Ok(isock) = inner.idle.remove(over.unwrap_or(0)) else {
                    break;
                };
                count::dec(sys::XLB_COUNTER_ISOCKS_IDLE);
                count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
                let _ = out.push_within_capacity(isock);
                continue;
            }
            let late = inner.warming.first().is_some_and(|i| {
                l.connect_timeout_ms != 0
                    && now.saturating_sub(i.owned().since_ms) >= u64::from(l.connect_timeout_ms)
            });
            if !late {
                break;
            }
            let Ok(isock) = inner.warming.remove(0) else {
                break;
            };
            let _ = out.push_within_capacity(isock);
        }
        inner.is_unused(now)
    }

    /// Ends the pool if `gone` says so: it gives nothing any more, and takes connections back
    /// only to close them. `gone` runs under the lock.
    pub(crate) fn close_if(&self, gone: impl FnOnce(&Self, &Inner) -> bool) -> bool {
        // One section: nobody takes a permit between the look and the end.
        let mut inner = self.inner.lock();
        inner.closed |= gone(self, &inner);
        inner.closed
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
        let inner = self.inner.lock();
        let idle = inner.idle.len() as u32;
        let connecting = inner.warming.len() as u32;
        sys::xlb_pool_info {
            cgroup_id: id.cgroup_id,
            created: inner.created,
            reused: inner.reused,
            netns: id.netns,
            idle,
            active: inner.total.saturating_sub(idle + connecting),
            connecting,
            pending: inner.waiters.len,
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

fn position(list: &[Isock], isock: &Shared) -> Option<usize> {
    list.iter().position(|i| i.is(isock))
}

/// Moves all of `from` into `to`, which has the larger capacity, and swaps the two.
pub(crate) fn move_into<T>(from: &mut KVec<T>, to: &mut KVec<T>) {
    if to.capacity() <= from.capacity() {
        return;
    }
    for item in from.drain_all() {
        // Fits: the capacity is larger.
        let _ = to.push_within_capacity(item);
    }
    core::mem::swap(from, to);
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
/// Holders looked at in one section with BHs off.
const ASK_BATCH: u32 = 64;
