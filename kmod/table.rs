// SPDX-License-Identifier: GPL-2.0

//! The table of all pools, and the reaper: which pool a connection belongs to, and when pools and
//! connections that nobody uses go.
//!
//! Contexts: everything runs in process context but [`bury`], which TCP's callbacks reach in
//! softirq. Locks (numbers as in `lock.rs`): bucket (3), then a pool's (4), then the list of the
//! dead (5). `CLOSING`, a mutex, is outside of them. Under the spinlocks nothing is allocated and
//! no i-sock is dropped.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::count;
use crate::identity::Id;
use crate::isock::{now_ms, Chain, Isock};
use crate::lock::BhLock;
use crate::orphan;
use crate::pool::{move_into, Inner, Key, Pool};
use crate::sys;

/// Buckets of the table, a few KiB of static memory.
const BUCKETS: usize = 1024;
/// How often the reaper looks, in milliseconds.
const REAP_MS: u64 = 1000;
/// Connections closed in one go by the reaper.
const REAP_BATCH: usize = 64;

type Bucket = BhLock<KVec<Arc<Pool>>>;

static TABLE: [Bucket; BUCKETS] = [const { BhLock::new(KVec::new()) }; BUCKETS];

/// i-socks that a callback found dead; the reaper closes them.
static DEAD: BhLock<Chain> = BhLock::new(Chain::new());

kernel::sync::global_lock! {
    // SAFETY: Initialised in `init`, before first use.
    /// Held while connections are closed that no p-sock owns. They hold no reference to their
    /// netns, so [`net_gone`] waits here until the reaper has let go of them.
    unsafe(uninit) static CLOSING: Mutex<()> = ();
}

fn find(bucket: &KVec<Arc<Pool>>, key: &Key) -> Option<Arc<Pool>> {
    bucket.iter().find(|p| p.key == *key).cloned()
}

/// Gives a dead i-sock to the reaper. Any context; the pool's lock may be held.
pub(crate) fn bury(isock: Isock) {
    isock.set_owner(core::ptr::null_mut());
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
    let found = find(&bucket.lock(), key);
    if let Some(pool) = found {
        return Ok(pool);
    }
    let new = Pool::new(key, identity)?;
    let mut room = KVec::new();
    loop {
        let mut guard = bucket.lock();
        if let Some(pool) = find(&guard, key) {
            return Ok(pool);
        }
        if guard.len() < guard.capacity() {
            // There is room, so this cannot fail.
            let _ = guard.push_within_capacity(new.clone());
            drop(guard);
            count::inc(sys::XLB_COUNTER_POOLS);
            count::add(sys::XLB_COUNTER_ISOCK_BYTES, size_of::<Pool>() as i64);
            reaper_soon();
            return Ok(new);
        }
        let want = guard.len() + 4;
        move_into(&mut guard, &mut room);
        drop(guard);
        room = KVec::with_capacity(want, GFP_KERNEL)?;
    }
}

/// Prepares the table; once, at load.
pub(crate) fn init() {
    // SAFETY: Once, before first use; statics do not move.
    unsafe {
        CLOSING.init();
        DEAD.init(sys::XLB_LOCK_DEAD);
        for bucket in &TABLE {
            bucket.init(sys::XLB_LOCK_TABLE);
        }
    }
}

fn close_dead() {
    let dead = core::mem::replace(&mut *DEAD.lock(), Chain::new());
    drop(dead);
}

/// Calls `f` for every pool, without a lock held.
pub(crate) fn for_each(mut f: impl FnMut(&Arc<Pool>)) {
    for bucket in &TABLE {
        let mut at = 0;
        loop {
            let pool = bucket.lock().get(at).cloned();
            let Some(pool) = pool else { break };
            f(&pool);
            at += 1;
        }
    }
}

/// The `n`-th pool of bucket `bucket`; `Err` when there is no such bucket.
pub(crate) fn nth(bucket: usize, n: usize) -> Result<Option<Arc<Pool>>> {
    Ok(TABLE.get(bucket).ok_or(EINVAL)?.lock().get(n).cloned())
}

/// Closes the idle connections to an endpoint in all pools; running exchanges end first.
pub(crate) fn retire_endpoint(addr: &[u8; 16], port: u16) {
    let _closing = CLOSING.lock();
    for_each(|pool| {
        if pool.key.addr == *addr && pool.key.port == port {
            pool.retire();
        }
    });
}

/// Removes the pools that `gone` names from the table, whose connections must be closed then.
fn remove_if(mut gone: impl FnMut(&Pool, &Inner) -> bool) {
    for bucket in &TABLE {
        let mut at = 0;
        loop {
            let mut guard = bucket.lock();
            let Some(pool) = guard.get(at) else { break };
            if !pool.close_if(&mut gone) {
                at += 1;
                continue;
            }
            let Ok(pool) = guard.remove(at) else { break };
            drop(guard);
            pool.retire();
            count::dec(sys::XLB_COUNTER_POOLS);
            count::add(sys::XLB_COUNTER_ISOCK_BYTES, -(size_of::<Pool>() as i64));
        }
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
    // Nothing drops a static: what the buckets have reserved would leak.
    for bucket in &TABLE {
        let reserved = core::mem::replace(&mut *bucket.lock(), KVec::new());
        drop(reserved);
    }
}

/// Periodic work: closes orphans that are over, the dead and the expired, forgets unused pools.
#[no_mangle]
extern "C" fn xlb_reap() {
    orphan::close_done();
    let _closing = CLOSING.lock();
    close_dead();
    let now = now_ms();
    let mut pools = 0usize;
    let mut empty = false;
    for_each(|pool| {
        pools += 1;
        let Ok(mut out) = KVec::with_capacity(REAP_BATCH, GFP_KERNEL) else {
            return;
        };
        loop {
            empty |= pool.expire(now, &mut out);
            if out.is_empty() {
                break;
            }
            out.clear();
        }
        // Whom nothing has told since: a client may have read up to what can be taken.
        if pool.is_wanted() {
            pool.ask_holders();
        }
    });
    if empty {
        remove_if(|_, inner| inner.is_unused(now));
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
