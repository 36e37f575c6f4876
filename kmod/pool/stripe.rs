// SPDX-License-Identifier: GPL-2.0

//! A stripe of a pool: those of its i-socks that one CPU has to do with.
//!
//! Every i-sock of a pool is in at most one list of one stripe: of the idle ones, of those that are opened ahead,
//! or of those that exchanges hold. The lists are linked through [`Place`], so joining takes no memory, and each
//! stripe has a lock of its own (4b, inside the pool's): a request takes a connection from the stripe of its CPU and
//! gives it back to the stripe of the CPU that it ends on, which most often is the same.
//!
//! [`Place::stripe`] names the stripe whose lock protects the place. It is set before callbacks know the i-sock, and
//! changes under the lock of the stripe that it named before, while the i-sock is in no list. So callbacks, which hold
//! no right to the i-sock, find it by [`Place::lock`], and who has a stripe's lock may trust the links of what names it.
//!
//! **Events of idle connections.** A callback changes the connection's state and then looks for its place. Whoever
//! puts a connection into a list writes the place and then looks at the state. With a full barrier between the two
//! on both sides at least one of them sees the other, so an idle connection that has died is taken out: by its
//! callback, or by who puts it in.
//!
//! **Holders.** A client that is slow to read holds a connection whose response is in already. When a request
//! must wait, the pool asks holders whether they can let go: as many as wait, and of those only such as have
//! something for their client to read. Who cannot let go makes the pool ask another one
//! ([`Pool::ask_another`]), so whoever can is found; and nobody is asked twice in one round.
//!
//! Contexts: any but hard interrupts. Under the lock nothing is allocated and no i-sock is dropped.

use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ptr;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Release};

use super::{Chain, Isock, Pool, Shared};
use crate::count;
use crate::isock::now_ms;
use crate::lock::{BhGuard, BhLock};
use crate::once::Once as _;
use crate::sys;

/// An i-sock's place in the lists of its pool.
pub(crate) struct Place {
    /// Whose lock protects `links`.
    stripe: Atomic<u32>,
    links: UnsafeCell<Links>,
}

struct Links {
    list: Kind,
    next: *const Shared,
    prev: *const Shared,
    /// The round in which it was looked at last, as a holder.
    seen: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    /// Ready for a request. The list owns it.
    Idle,
    /// Opened ahead, not connected yet. The list owns it.
    Ahead,
    /// An exchange's, or given to one that waits.
    Held,
}

impl Place {
    /// In no list, of the stripe with this number.
    pub(crate) const fn new(stripe: u32) -> Self {
        Self {
            stripe: Atomic::new(stripe),
            links: UnsafeCell::new(Links {
                list: Kind::None,
                next: ptr::null(),
                prev: ptr::null(),
                seen: 0,
            }),
        }
    }

    /// The lock of the stripe that it is in.
    fn lock<'a>(&self, stripes: &'a Stripes) -> Option<(&'a Stripe, BhGuard<'a, Lists>)> {
        loop {
            let number = self.stripe.read();
            let stripe = stripes.get(number)?;
            let lists = stripe.lists.lock();
            if self.stripe.read() == number {
                return Some((stripe, lists));
            }
        }
    }
}

/// See the top of the file. On cache lines of its own.
#[repr(align(64))]
pub(crate) struct Stripe {
    number: u32,
    /// How many are idle: a hint for those who do not hold the lock.
    idle: Atomic<u32>,
    /// When a request last asked here, in milliseconds of uptime.
    used_ms: Atomic<u64>,
    /// When a connection last became idle here.
    put_ms: Atomic<u64>,
    lists: BhLock<Lists>,
}

struct Lists {
    /// The warmest last.
    idle: List,
    ahead: List,
    /// Those that were looked at in this round are at the end.
    held: List,
    reused: u64,
}

/// Linked through [`Place`].
struct List {
    head: *const Shared,
    tail: *const Shared,
    len: u32,
}

// SAFETY: The pointers are followed under the stripe's lock only, and what is listed is live.
unsafe impl Send for List {}

impl List {
    const fn new() -> Self {
        Self {
            head: ptr::null(),
            tail: ptr::null(),
            len: 0,
        }
    }
}

impl Lists {
    fn list(&mut self, kind: Kind) -> Option<&mut List> {
        match kind {
            Kind::None => None,
            Kind::Idle => Some(&mut self.idle),
            Kind::Ahead => Some(&mut self.ahead),
            Kind::Held => Some(&mut self.held),
        }
    }

    /// Puts `isock` at the end of a list.
    ///
    /// # Safety
    ///
    /// It is in no list, its place names this stripe, and it stays live until it is unlinked.
    unsafe fn push(&mut self, kind: Kind, isock: &Shared) {
        let Some(list) = self.list(kind) else { return };
        // SAFETY: Links are ours under the stripe's lock; the tail is another one, and live.
        unsafe {
            let links = &mut *isock.place.links.get();
            links.list = kind;
            links.next = ptr::null();
            links.prev = list.tail;
            match list.tail.as_ref() {
                Some(tail) => (*tail.place.links.get()).next = isock,
                None => list.head = isock,
            }
        }
        list.tail = isock;
        list.len += 1;
    }

    /// Takes `isock` out of the list that it is in.
    ///
    /// # Safety
    ///
    /// Its place names this stripe.
    unsafe fn unlink(&mut self, isock: &Shared) {
        // SAFETY: Links are ours under the stripe's lock.
        let links = unsafe { &mut *isock.place.links.get() };
        let Some(list) = self.list(links.list) else {
            return;
        };
        // SAFETY: Neighbours are other ones, and live.
        unsafe {
            match links.prev.as_ref() {
                Some(prev) => (*prev.place.links.get()).next = links.next,
                None => list.head = links.next,
            }
            match links.next.as_ref() {
                Some(next) => (*next.place.links.get()).prev = links.prev,
                None => list.tail = links.prev,
            }
        }
        list.len -= 1;
        links.list = Kind::None;
    }

    /// Takes the last one out of a list that owns what is in it.
    fn pop(&mut self, kind: Kind) -> Option<Isock> {
        let last = self.list(kind)?.tail;
        // SAFETY: It is in that list.
        (!last.is_null()).then(|| unsafe { self.take_out(last) })
    }

    /// Takes `isock` out of the list that owns it.
    ///
    /// # Safety
    ///
    /// It is in such a list of this stripe.
    unsafe fn take_out(&mut self, isock: *const Shared) -> Isock {
        // SAFETY: By the contract; the list's right goes to the result.
        unsafe {
            self.unlink(&*isock);
            Isock::from_shared(isock)
        }
    }

    /// The first one from `at` on, in a list that owns what is in it, for which `is` says so; null when there is none.
    fn seek(&self, mut at: *const Shared, is: impl Fn(&Isock) -> bool) -> *const Shared {
        while !at.is_null() {
            // SAFETY: The list owns it, and nobody else has it under the lock.
            if is(&ManuallyDrop::new(unsafe { Isock::from_shared(at) })) {
                break;
            }
            at = Self::next(at);
        }
        at
    }

    /// The one behind `at`, which is in a list.
    fn next(at: *const Shared) -> *const Shared {
        // SAFETY: What is listed is live, and links are ours under the lock.
        unsafe { (*(*at).place.links.get()).next }
    }

    /// The next holder that was not looked at in `round`.
    fn next_holder(&mut self, round: u64) -> Option<&Shared> {
        // SAFETY: What is listed is live.
        let isock = unsafe { self.held.head.as_ref() }?;
        // SAFETY: Links are ours under the lock.
        let seen = unsafe { core::mem::replace(&mut (*isock.place.links.get()).seen, round) };
        if seen == round {
            return None;
        }
        // SAFETY: It is the head of this list.
        unsafe {
            self.unlink(isock);
            self.push(Kind::Held, isock);
        }
        Some(isock)
    }
}

/// What became of a connection that nobody has.
pub(crate) enum Fate {
    /// One that was opened ahead has connected.
    Connected(Isock),
    /// It has not.
    Failed(Isock),
    /// An idle one has ended, or was sent what nobody asked for.
    Lost(Isock),
}

impl Stripe {
    /// Whether there is something to take; a hint.
    fn has_idle(&self) -> bool {
        self.idle.read() != 0
    }

    /// Takes the idle connection that was used last, for an exchange. Those whose time is over come
    /// out on the way, to be closed without the lock.
    fn take(&self, now: u64, over: &mut Chain) -> Option<Isock> {
        let mut lists = self.lists.lock();
        self.used_ms.write(now);
        while let Some(mut isock) = lists.pop(Kind::Idle) {
            self.idle.write(lists.idle.len);
            count::dec(sys::XLB_COUNTER_ISOCKS_IDLE);
            if isock.is_over(now) {
                count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
                over.push(isock);
                continue;
            }
            lists.reused += 1;
            isock.owned_mut().held = true;
            // SAFETY: It was in this stripe; who has it unlinks it before it goes.
            unsafe { lists.push(Kind::Held, &isock) };
            return Some(isock);
        }
        None
    }

    /// `isock`, which is of this stripe and in no list, is an exchange's from now on.
    fn hold(&self, isock: &mut Isock) {
        let mut lists = self.lists.lock();
        isock.owned_mut().held = true;
        // SAFETY: As in `take`.
        unsafe { lists.push(Kind::Held, isock) };
    }

    /// Takes an i-sock of this stripe out of the list of holders, if it is there, and lets it be of the stripe `to`.
    fn let_go(&self, isock: &mut Isock, to: u32) {
        let mut lists = self.lists.lock();
        if core::mem::take(&mut isock.owned_mut().held) {
            // SAFETY: Its place is here.
            unsafe { lists.unlink(isock) };
        }
        isock.place.stripe.write(to);
    }

    /// Takes `isock` back, which is of this stripe and in no list but maybe that of holders. Gives it out again when it
    /// is no good: to be closed.
    fn put(&self, mut isock: Isock, pool: &Pool) -> Option<Isock> {
        let now = now_ms();
        let mut lists = self.lists.lock();
        if core::mem::take(&mut isock.owned_mut().held) {
            // SAFETY: Its place is here.
            unsafe { lists.unlink(&isock) };
        }
        // The pool says so before it takes the locks of its stripes one by one to empty them.
        if pool.refuses(&isock) {
            return Some(isock);
        }
        isock.owned_mut().since_ms = now;
        if isock.is_over(now) {
            return Some(isock);
        }
        let shared = isock.into_shared();
        // SAFETY: The list owns it.
        unsafe { lists.push(Kind::Idle, &*shared) };
        self.idle.write(lists.idle.len);
        self.put_ms.write(now);
        // For events, and for who comes to wait: see the top of the file, and of `mod.rs`.
        // SAFETY: Any context.
        unsafe { sys::xlb_smp_mb() };
        // SAFETY: It is live: nobody takes it from the list while we have the lock.
        if !unsafe { &*shared }.is_clean() {
            // SAFETY: It is in that list.
            let isock = unsafe { lists.take_out(shared) };
            self.idle.write(lists.idle.len);
            return Some(isock);
        }
        count::inc(sys::XLB_COUNTER_ISOCKS_IDLE);
        None
    }

    /// Keeps a connection of this stripe that was opened ahead until it is there; what became of it, when that is known
    /// already.
    fn keep_ahead(&self, isock: Isock, pool: &Pool) -> Option<Fate> {
        let mut lists = self.lists.lock();
        if pool.refuses(&isock) {
            return Some(Fate::Failed(isock));
        }
        // A callback that came before saw it in no list; one that comes now waits for the lock.
        if isock.is_connected() {
            return Some(Fate::Connected(isock));
        }
        if isock.is_dead() {
            return Some(Fate::Failed(isock));
        }
        let shared = isock.into_shared();
        // SAFETY: The list owns it.
        unsafe { lists.push(Kind::Ahead, &*shared) };
        None
    }

    /// Asks holders who were not asked in `round`, until `most` were asked or nobody waits; how many.
    fn ask(&self, round: u64, most: u32, pool: &Pool) -> u32 {
        let mut asked = 0;
        loop {
            let mut lists = self.lists.lock();
            let most = most.min(pool.waiting());
            for _ in 0..ASK_BATCH {
                if asked >= most {
                    return asked;
                }
                let Some(isock) = lists.next_holder(round) else {
                    return asked;
                };
                // SAFETY: The lock is held, which is an RCU section, and it is in the list.
                asked += u32::from(unsafe { isock.ask() });
            }
        }
    }

    /// Something happened to `isock`, whose place is here; takes it out when that ends its time in a list.
    fn settle(&self, lists: &mut Lists, isock: &Shared) -> Option<Fate> {
        // SAFETY: Links are ours under the lock, which the caller holds.
        match unsafe { (*isock.place.links.get()).list } {
            Kind::Ahead if isock.is_connected() => {
                // SAFETY: It is in that list.
                Some(Fate::Connected(unsafe { lists.take_out(isock) }))
            }
            // SAFETY: As above.
            Kind::Ahead if isock.is_dead() => Some(Fate::Failed(unsafe { lists.take_out(isock) })),
            Kind::Idle if !isock.is_clean() => {
                // SAFETY: As above.
                let isock = unsafe { lists.take_out(isock) };
                self.has_given(lists);
                Some(Fate::Lost(isock))
            }
            _ => None,
        }
    }

    /// One idle connection less.
    fn has_given(&self, lists: &Lists) {
        self.idle.write(lists.idle.len);
        count::dec(sys::XLB_COUNTER_ISOCKS_IDLE);
    }

    /// Moves connections that were idle or connecting for too long into `out`; of the idle ones that their endpoint
    /// would keep, `spare` may go. False when others may be left.
    fn expire(&self, until: &Until, spare: &mut u32, out: &mut Chain) -> bool {
        let mut lists = self.lists.lock();
        let mut left = BATCH;
        let mut at = lists.idle.head;
        while left > 0 {
            let goes = |i: &Isock| {
                i.is_over(until.now) || (*spare > 0 && until.has_passed(i, until.idle_ms))
            };
            // The front is the oldest: one behind it goes before it by the word of an endpoint only.
            let found = lists.seek(at, goes);
            if found.is_null() || (found != at && !until.told) {
                break;
            }
            at = Lists::next(found);
            // SAFETY: It is in the list of idle ones.
            let isock = unsafe { lists.take_out(found) };
            self.has_given(&lists);
            if !isock.is_over(until.now) {
                *spare -= 1;
            }
            count::inc(sys::XLB_COUNTER_IDLE_EXPIRED);
            out.push(isock);
            left -= 1;
        }
        while left > 0 {
            let first = lists.ahead.head;
            let late = lists.seek(first, |i| until.has_passed(i, until.connect_ms));
            if first.is_null() || late != first {
                break;
            }
            // SAFETY: It is in the list of those opened ahead.
            out.push(unsafe { lists.take_out(first) });
            left -= 1;
        }
        left > 0
    }

    /// Moves what nobody has into `out`. False when others may be left.
    fn empty(&self, out: &mut Chain) -> bool {
        let mut lists = self.lists.lock();
        for _ in 0..BATCH {
            if let Some(isock) = lists.pop(Kind::Idle) {
                self.has_given(&lists);
                out.push(isock);
            } else if let Some(isock) = lists.pop(Kind::Ahead) {
                out.push(isock);
            } else {
                return true;
            }
        }
        false
    }
}

/// What is too old, for [`Stripes::expire`].
pub(crate) struct Until {
    /// Uptime in milliseconds.
    pub(crate) now: u64,
    /// How long a connection may be idle, and may take to be there; 0 for as long as it likes.
    pub(crate) idle_ms: u32,
    pub(crate) connect_ms: u32,
    /// An endpoint has said how long it keeps idle connections.
    pub(crate) told: bool,
}

impl Until {
    fn has_passed(&self, isock: &Isock, ms: u32) -> bool {
        ms != 0 && self.now.saturating_sub(isock.owned().since_ms) >= u64::from(ms)
    }
}

/// All stripes of a pool, each made when a request first runs on its CPU.
///
/// # Invariants
///
/// What is not null in `slots` is a leaked `KBox<Stripe>`, from when it is put there until drop; `first` names one.
pub(crate) struct Stripes {
    slots: KVVec<Atomic<*mut Stripe>>,
    first: usize,
}

// SAFETY: A `Stripe` is shared, as `Sync` says of it.
unsafe impl Send for Stripes {}
// SAFETY: As above.
unsafe impl Sync for Stripes {}

impl Stripes {
    /// One, for this CPU. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: About this machine.
        let cpus = unsafe { sys::xlb_cpus() } as usize;
        let mut slots = KVVec::with_capacity(cpus, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..cpus {
            slots.push(Atomic::new(ptr::null_mut()), GFP_KERNEL_ACCOUNT)?;
        }
        let first = this_cpu();
        let this = Self { slots, first };
        this.make(first)?;
        Ok(this)
    }

    /// Makes that of a CPU, unless it is there. May sleep.
    #[cold]
    #[inline(never)]
    fn make(&self, cpu: usize) -> Result {
        let slot = self.slots.get(cpu).ok_or(EINVAL)?;
        let stripe = KBox::new(
            Stripe {
                number: cpu as u32,
                idle: Atomic::new(0),
                used_ms: Atomic::new(now_ms()),
                put_ms: Atomic::new(0),
                lists: BhLock::new(Lists {
                    idle: List::new(),
                    ahead: List::new(),
                    held: List::new(),
                    reused: count::from(),
                }),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: First use, and a box's contents do not move.
        unsafe { stripe.lists.init(sys::XLB_LOCK_STRIPE) };
        let stripe: *mut Stripe = KBox::into_raw(stripe);
        // INVARIANT: Leaked just now.
        if slot.cmpxchg(ptr::null_mut(), stripe, Release).is_err() {
            // SAFETY: Nobody knows it: another one was quicker.
            drop(unsafe { KBox::from_raw(stripe) });
        }
        Ok(())
    }

    fn get(&self, number: u32) -> Option<&Stripe> {
        let stripe = self.slots.get(number as usize)?.read_acquire();
        // SAFETY: By the type invariant.
        unsafe { stripe.as_ref() }
    }

    /// That of this CPU, or the first one. Where it is does not matter but for speed: a task may move on.
    fn here(&self) -> Option<&Stripe> {
        self.get(this_cpu() as u32)
            .or_else(|| self.get(self.first as u32))
    }

    fn all(&self) -> impl Iterator<Item = &Stripe> {
        (0..self.slots.len() as u32).filter_map(|n| self.get(n))
    }

    /// Takes an idle connection for a request: of this CPU, or else of another one. A request that cannot be sent
    /// again (`once`) does not take one that has long been idle while another CPU has a fresher one: its endpoint
    /// may be about to close it. May sleep.
    pub(crate) fn take(&self, now: u64, once: bool, over: &mut Chain) -> Option<Isock> {
        let cpu = this_cpu();
        let here = match self.get(cpu as u32) {
            Some(here) => Some(here),
            None => {
                // Without memory others' stripes do.
                let _ = self.make(cpu);
                self.get(cpu as u32)
            }
        };
        if once && here.is_none_or(|s| now.saturating_sub(s.put_ms.read()) >= FRESH_MS) {
            if let Some(isock) = self.freshest().and_then(|s| s.take(now, over)) {
                return Some(isock);
            }
        }
        here.and_then(|s| s.take(now, over))
            .or_else(|| self.steal(now, over))
    }

    /// The one whose connection was used last.
    #[cold]
    fn freshest(&self) -> Option<&Stripe> {
        self.all()
            .filter(|s| s.has_idle())
            .max_by_key(|s| s.put_ms.read())
    }

    /// As [`Stripes::take`], from any CPU. Any context.
    #[cold]
    #[inline(never)]
    pub(crate) fn steal(&self, now: u64, over: &mut Chain) -> Option<Isock> {
        self.all()
            .filter(|s| s.has_idle())
            .find_map(|s| s.take(now, over))
    }

    /// For an i-sock that is made on this CPU.
    pub(crate) fn place(&self) -> Place {
        Place::new(self.here().map_or(0, |s| s.number))
    }

    /// That of an i-sock.
    fn of(&self, isock: &Isock) -> Option<&Stripe> {
        self.get(isock.place.stripe.read())
    }

    /// `isock`, which was just made, is an exchange's.
    pub(crate) fn hold(&self, isock: &mut Isock) {
        if let Some(stripe) = self.of(isock) {
            stripe.hold(isock);
        }
    }

    /// Takes `isock`, which its owner has, out of the list of holders.
    pub(crate) fn let_go(&self, isock: &mut Isock) {
        if isock.owned().held {
            if let Some(stripe) = self.of(isock) {
                stripe.let_go(isock, stripe.number);
            }
        }
    }

    /// Takes `isock` back, as one of this CPU; gives it out again when it is no good: to be closed.
    pub(crate) fn put(&self, mut isock: Isock, pool: &Pool) -> Option<Isock> {
        let Some(here) = self.here() else {
            return Some(isock);
        };
        match self.of(&isock) {
            Some(stripe) if stripe.number != here.number => stripe.let_go(&mut isock, here.number),
            _ => {}
        }
        here.put(isock, pool)
    }

    /// Keeps a connection that was opened ahead until it is there; what became of it, when that is known already.
    pub(crate) fn keep_ahead(&self, isock: Isock, pool: &Pool) -> Option<Fate> {
        match self.of(&isock) {
            Some(stripe) => stripe.keep_ahead(isock, pool),
            None => Some(Fate::Failed(isock)),
        }
    }

    /// Something happened to a connection that nobody has. Softirq, the i-sock's lock held.
    pub(crate) fn settle(&self, isock: &Shared) -> Option<Fate> {
        // See the top of the file.
        // SAFETY: Any context.
        unsafe { sys::xlb_smp_mb() };
        let (stripe, mut lists) = isock.place.lock(self)?;
        stripe.settle(&mut lists, isock)
    }

    /// Asks holders who were not asked in `round`, until `most` were asked or nobody waits.
    pub(crate) fn ask(&self, round: u64, most: u32, pool: &Pool) {
        let mut asked = 0;
        for stripe in self.all() {
            asked += stripe.ask(round, most.saturating_sub(asked), pool);
        }
    }

    /// Moves some of those that were idle or connecting for too long into `out`, so that at least `keep` stay;
    /// false when others may be left.
    pub(crate) fn expire(&self, until: &Until, keep: u32, out: &mut Chain) -> bool {
        let mut spare = self.tally().idle.saturating_sub(keep);
        let mut done = true;
        for stripe in self.all() {
            done &= stripe.expire(until, &mut spare, out);
        }
        done
    }

    /// Moves some of what nobody has into `out`; false when others may be left.
    pub(crate) fn empty(&self, out: &mut Chain) -> bool {
        let mut done = true;
        for stripe in self.all() {
            done &= stripe.empty(out);
        }
        done
    }

    /// When a request last asked, in milliseconds of uptime.
    pub(crate) fn used_ms(&self) -> u64 {
        self.all().map(|s| s.used_ms.read()).max().unwrap_or(0)
    }

    /// How many there are.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for stripe in self.all() {
            let lists = stripe.lists.lock();
            sum.idle += lists.idle.len;
            sum.ahead += lists.ahead.len;
            sum.reused += lists.reused;
        }
        sum
    }
}

impl Drop for Stripes {
    fn drop(&mut self) {
        // Empty lists: what is in them holds the pool, and the pool this.
        for slot in &self.slots {
            let stripe = slot.read();
            if !stripe.is_null() {
                // SAFETY: By the type invariant; nobody else has `self`.
                drop(unsafe { KBox::from_raw(stripe) });
            }
        }
    }
}

/// See [`Stripes::tally`].
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) idle: u32,
    pub(crate) ahead: u32,
    /// Requests over a connection that was there.
    pub(crate) reused: u64,
}

fn this_cpu() -> usize {
    // SAFETY: Any CPU number does.
    unsafe { sys::xlb_cpu() as usize }
}

/// For so long a connection that is idle is as good as any, in milliseconds: no server closes one earlier.
const FRESH_MS: u64 = 500;

/// Holders looked at, and connections taken out, in one section with BHs off.
const ASK_BATCH: u32 = 64;
const BATCH: u32 = 64;
