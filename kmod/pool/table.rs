// SPDX-License-Identifier: GPL-2.0

//! The table of all pools, and the reaper: which pool a connection belongs to, and when pools and
//! connections that nobody uses go.
//!
//! A bucket is a chain of pools through [`Pool::next`]. Readers walk it in RCU and take no lock, writers hold the bucket's.
//! The chain has a reference to each pool in it, which is dropped a grace period after the pool has left it: so what a reader
//! sees has a reference that it can add its own to.
//!
//! Contexts: everything runs in process context but [`bury`], which TCP's callbacks reach in
//! softirq. Locks (numbers as in `lock.rs`): bucket (3), then a pool's (4), then the list of the
//! dead (5). `CLOSING`, a mutex, is outside of them. Under the spinlocks nothing is allocated and
//! no i-sock is dropped.

use core::mem::ManuallyDrop;

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::{rcu, Arc};

use super::{Chain, End, Inner, Isock, Key, Pool};
use crate::count;
use crate::isock::{now_ms, Home as _, Id};
use crate::lock::BhLock;
use crate::sys;

/// Buckets of the table, some tens of KiB of static memory.
const BUCKETS: usize = 1024;
/// Pools that leave their chains in one grace period.
const REMOVE_BATCH: usize = 16;
/// How often the reaper looks, in milliseconds.
const REAP_MS: u64 = 1000;

/// On a cache line of its own: pools of others are in the next one.
#[repr(align(64))]
struct Bucket {
    head: Atomic<*mut Pool>,
    /// For those who write to the chain.
    lock: BhLock<()>,
}

static TABLE: [Bucket; BUCKETS] = [const {
    Bucket {
        head: Atomic::new(core::ptr::null_mut()),
        lock: BhLock::new(()),
    }
}; BUCKETS];

/// i-socks that a callback found dead; the reaper closes them.
static DEAD: BhLock<Chain> = BhLock::new(Chain::new());

kernel::sync::global_lock! {
    // SAFETY: Initialised in `init`, before first use.
    /// Held while connections are closed that nobody has. They hold no reference to their
    /// netns, so [`net_gone`] waits here until the reaper has let go of them.
    unsafe(uninit) static CLOSING: Mutex<()> = ();
}

impl Bucket {
    /// The pools of the chain.
    ///
    /// # Safety
    ///
    /// The caller is in RCU, or holds the lock, for as long as it uses them.
    unsafe fn pools<'a>(&self) -> impl Iterator<Item = &'a Pool> {
        let mut at = self.head.load(Acquire);
        core::iter::from_fn(move || {
            // SAFETY: By the contract; see the top of the file.
            let pool = unsafe { at.as_ref() }?;
            at = pool.next.load(Acquire);
            Some(pool)
        })
    }

    /// Another reference to a pool of the chain.
    ///
    /// # Safety
    ///
    /// As of [`Bucket::pools`].
    unsafe fn share(pool: &Pool) -> Arc<Pool> {
        // SAFETY: It came from an `Arc`, in `get`, whose reference is not dropped meanwhile.
        let of_chain = ManuallyDrop::new(unsafe { Arc::from_raw(pool) });
        Arc::clone(&of_chain)
    }

    /// The pool of `key`.
    fn find(&self, key: &Key) -> Option<Arc<Pool>> {
        let _rcu = rcu::read_lock();
        // SAFETY: In RCU.
        let pool = unsafe { self.pools() }.find(|p| p.key == *key)?;
        // SAFETY: As above.
        Some(unsafe { Self::share(pool) })
    }

    /// Takes the first pool out of the chain that `gone` names, and gives its reference, which is to be dropped after a
    /// grace period.
    fn remove(&self, gone: &mut impl FnMut(&Pool, &Inner) -> bool) -> Option<Arc<Pool>> {
        let _guard = self.lock.lock();
        let mut link = &self.head;
        // SAFETY: The lock is held.
        for pool in unsafe { self.pools() } {
            if pool.close_if(&mut *gone) {
                link.store(pool.next.load(Relaxed), Release);
                // SAFETY: It came from an `Arc`, in `get`, whose reference was the chain's.
                return Some(unsafe { Arc::from_raw(pool) });
            }
            link = &pool.next;
        }
        None
    }
}

/// Gives a dead i-sock to the reaper. Any context; the pool's lock may be held.
pub(crate) fn bury(isock: Isock) {
    isock.forget_waker();
    DEAD.lock().push(isock);
    // SAFETY: Queues work; any context.
    unsafe { sys::xlb_reaper_kick(0) };
}

fn reaper_soon() {
    // SAFETY: Queues work; any context.
    unsafe { sys::xlb_reaper_kick(REAP_MS) };
}

/// The pool of `key`, which names `identity`, made if there is none. May sleep.
// Not for the common request, which knows its pool: inlined, the key would be hashed for it too.
#[cold]
#[inline(never)]
pub(crate) fn get(key: &Key, identity: &Id) -> Result<Arc<Pool>> {
    let bucket = TABLE.get(key.hash() as usize % BUCKETS).ok_or(EINVAL)?;
    // One that has ended is on its way out of the chain: with the lock it is found no more.
    if let Some(pool) = bucket.find(key).filter(|p| !p.is_closed()) {
        return Ok(pool);
    }
    let new = Pool::new(key, identity)?;
    let guard = bucket.lock.lock();
    if let Some(pool) = bucket.find(key) {
        return Ok(pool);
    }
    new.next.store(bucket.head.load(Relaxed), Relaxed);
    bucket
        .head
        .store(Arc::into_raw(new.clone()).cast_mut(), Release);
    drop(guard);
    count::inc(sys::XLB_COUNTER_POOLS);
    count::add(sys::XLB_COUNTER_ISOCK_BYTES, size_of::<Pool>() as i64);
    reaper_soon();
    Ok(new)
}

/// Prepares the table; once, at load.
pub(crate) fn init() {
    // SAFETY: Once, before first use; statics do not move.
    unsafe {
        CLOSING.init();
        DEAD.init(sys::XLB_LOCK_DEAD);
        for bucket in &TABLE {
            bucket.lock.init(sys::XLB_LOCK_TABLE);
        }
    }
}

fn close_dead() {
    let dead = core::mem::replace(&mut *DEAD.lock(), Chain::new());
    drop(dead);
}

/// Calls `f` for every pool, without a lock held.
pub(crate) fn for_each(mut f: impl FnMut(&Arc<Pool>)) {
    for bucket in 0..BUCKETS {
        let mut at = 0;
        while let Ok(Some(pool)) = nth(bucket, at) {
            f(&pool);
            at += 1;
        }
    }
}

/// The `n`-th pool of bucket `bucket`; `Err` when there is no such bucket.
pub(crate) fn nth(bucket: usize, n: usize) -> Result<Option<Arc<Pool>>> {
    let bucket = TABLE.get(bucket).ok_or(EINVAL)?;
    let _rcu = rcu::read_lock();
    // SAFETY: In RCU.
    let pool = unsafe { bucket.pools() }.nth(n);
    // SAFETY: As above.
    Ok(pool.map(|p| unsafe { Bucket::share(p) }))
}

/// Closes the idle connections to an endpoint in all pools; running exchanges end first. Pools that are empty then are
/// forgotten at once: nothing leads to the endpoint any more. May sleep.
pub(crate) fn retire_endpoint(addr: &[u8; 16], port: u16) {
    let _closing = CLOSING.lock();
    let is_of = |pool: &Pool| pool.key.addr == *addr && pool.key.port == port;
    let mut empty = false;
    for_each(|pool| {
        if is_of(pool) {
            pool.retire(End::Order);
            empty |= pool.seems_empty();
        }
    });
    if empty {
        remove_if(|pool, inner| is_of(pool) && pool.is_empty(inner));
    }
}

/// Resets the idle connections of clients with this identity; of running ones the exchanges end first. The caller
/// holds a socket of its netns. May sleep.
pub(crate) fn reset_idle(identity: &Id) {
    for_each(|pool| {
        if pool.key.is_of(identity) {
            pool.retire(End::Reset);
        }
    });
}

/// Until no reader is at a pool that has left its chain. The kernel crate has this from 7.3 on.
fn wait_for_readers() {
    // SAFETY: The callers may sleep: they hold no spinlock and are in no RCU section.
    unsafe { sys::xlb_synchronize_rcu() };
}

/// Removes the pools that `gone` names from the table, and closes their connections. May sleep.
fn remove_if(mut gone: impl FnMut(&Pool, &Inner) -> bool) {
    let mut out = [const { None }; REMOVE_BATCH];
    let mut free = REMOVE_BATCH;
    for bucket in &TABLE {
        while let Some(pool) = bucket.remove(&mut gone) {
            pool.retire(End::Order);
            count::dec(sys::XLB_COUNTER_POOLS);
            count::add(sys::XLB_COUNTER_ISOCK_BYTES, -(size_of::<Pool>() as i64));
            free -= 1;
            if let Some(place) = out.get_mut(free) {
                *place = Some(pool);
            }
            if free == 0 {
                wait_for_readers();
                out = [const { None }; REMOVE_BATCH];
                free = REMOVE_BATCH;
            }
        }
    }
    if free < REMOVE_BATCH {
        wait_for_readers();
    }
}

/// Closes what a netns still has; its p-sockets are gone by now.
fn net_gone(net: *mut sys::net) {
    let _closing = CLOSING.lock();
    close_dead();
    remove_if(|pool, _| pool.is_in(net));
    close_dead();
}

/// Closes everything; at unload, when no p-sock is left.
pub(crate) fn close_all() {
    let _closing = CLOSING.lock();
    close_dead();
    remove_if(|_, _| true);
    close_dead();
}

/// Periodic work: closes the dead and the expired, forgets unused pools. May sleep.
pub(crate) fn reap() {
    let _closing = CLOSING.lock();
    close_dead();
    let now = now_ms();
    let mut pools = 0usize;
    let mut empty = false;
    for_each(|pool| {
        pools += 1;
        let mut done = false;
        while !done {
            let mut out = Chain::new();
            done = pool.expire(now, &mut out);
        }
        empty |= pool.seems_unused(now);
        // Whom nothing has told since: a client may have read up to what can be taken.
        if pool.is_wanted() {
            pool.ask_holders();
        }
    });
    if empty {
        remove_if(|pool, inner| pool.is_unused(inner, now));
    }
    if pools > 0 {
        reaper_soon();
    }
}

/// `pre_exit` of a network namespace.
#[no_mangle]
extern "C" fn xlb_net_exit(net: *mut sys::net) {
    net_gone(net);
}
