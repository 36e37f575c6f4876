// SPDX-License-Identifier: GPL-2.0

//! The list of all p-sockets, which readers walk without a lock: `xlbctl get sockets` and `unload`.
//!
//! Objects: an xarray for each of [`SHARDS`], so that connects on different CPUs take different locks. A p-sock has
//! an index in one of them, its [`Entry`], from the moment that a socket is made one until its `close()`, or until
//! it is let go of (`leave.rs`). It stays there when the socket is connected anew, or to something else: a walk
//! never meets an entry that was taken out and put in elsewhere. What then changes is behind a sequence number.
//!
//! A [`Cursor`] is a place, not an entry: shard and index. A walk finds the next entry at or after it in
//! logarithmic time, so it begins where the last one has ended, whatever came and went in between. Who is there
//! from the beginning to the end of a walk is seen once.
//!
//! Contexts: adding is atomic (`pre_connect`, in RCU), removing and walking is process context. Locks: xarray's own
//! (5), held for one entry. A walk holds RCU for [`BATCH`] entries at most and lets others run in between.
//!
//! In that section the memory of a p-sock stays (`kfree_rcu`), and what is read of it are atomics. Its socket
//! may be closed meanwhile: the memory stays that of some TCP socket (`SLAB_TYPESAFE_BY_RCU`), but its cgroup and
//! netns go with it, hence their numbers are in [`Entry`].

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};

use super::Psock;
use crate::sys;

const SHARDS: usize = 64;

/// p-sockets in one section. To queue the work of one takes 1 or 2 us, so a section ends within 50 us.
const BATCH: u32 = 16;

/// On a cache line of its own.
#[repr(align(64))]
struct Shard(UnsafeCell<MaybeUninit<bindings::xarray>>);

// SAFETY: An xarray has its own lock, and readers use RCU.
unsafe impl Sync for Shard {}

static LIST: [Shard; SHARDS] = [const { Shard(UnsafeCell::new(MaybeUninit::zeroed())) }; SHARDS];

/// Prepares the list; once, at load, before the first p-sock.
pub(crate) fn init() {
    for shard in &LIST {
        // SAFETY: Once, before first use; statics do not move.
        unsafe { sys::xlb_list_init(shard.0.get().cast()) };
    }
}

/// Undoes [`init`]; the list is empty.
pub(crate) fn exit() {
    for shard in &LIST {
        // SAFETY: Once, after `init`, and nobody uses the list any more.
        unsafe { sys::xlb_list_exit(shard.0.get().cast()) };
    }
}

/// A p-sock's place in the list, and what is shown of it that is not the exchange's.
pub(crate) struct Entry {
    /// [`Cursor`] of its place; [`NOWHERE`] when it is in no list.
    place: Atomic<u64>,
    cgroup_id: u64,
    netns: u32,
    /// Odd while the names change; readers look before and after.
    sequence: Atomic<u32>,
    pid: Atomic<u32>,
    vip: [Atomic<u64>; 2],
    vip_port: Atomic<u32>,
}

/// No shard has this number.
const NOWHERE: u64 = u64::MAX;

/// Who has connected, and to what.
pub(crate) struct Names {
    pub(crate) pid: u32,
    pub(crate) vip: [u8; 16],
    pub(crate) vip_port: u16,
}

impl Entry {
    /// For a p-sock of the socket `sk`, which is live; not in the list.
    pub(crate) fn new(sk: *mut sys::sock) -> Self {
        // SAFETY: By the contract.
        let (cgroup_id, netns) = unsafe {
            (
                sys::xlb_sk_cgroup_id(sk),
                sys::xlb_net_inum(sys::xlb_sk_net(sk)),
            )
        };
        Self {
            place: Atomic::new(NOWHERE),
            cgroup_id,
            netns,
            sequence: Atomic::new(0),
            // SAFETY: About the current task.
            pid: Atomic::new(unsafe { sys::xlb_current_tgid() }),
            vip: [Atomic::new(0), Atomic::new(0)],
            vip_port: Atomic::new(0),
        }
    }

    pub(crate) fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    pub(crate) fn netns(&self) -> u32 {
        self.netns
    }

    /// The current process has connected to this. The socket lock is held.
    pub(crate) fn set_names(&self, vip: [u8; 16], vip_port: u16) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        let [a, b] = &self.vip;
        let bits = u128::from_ne_bytes(vip);
        // Each Release keeps the odd number before it.
        a.store(bits as u64, Release);
        b.store((bits >> 64) as u64, Release);
        self.vip_port.store(u32::from(vip_port), Release);
        // SAFETY: About the current task.
        self.pid.store(unsafe { sys::xlb_current_tgid() }, Release);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// `None` while they change.
    pub(crate) fn names(&self) -> Option<Names> {
        let sequence = self.sequence.load(Acquire);
        let [a, b] = &self.vip;
        // Each Acquire keeps the second look at the number behind it.
        let bits = u128::from(a.load(Acquire)) | u128::from(b.load(Acquire)) << 64;
        let names = Names {
            pid: self.pid.load(Acquire),
            vip: bits.to_ne_bytes(),
            vip_port: self.vip_port.load(Acquire) as u16,
        };
        (sequence % 2 == 0 && self.sequence.load(Relaxed) == sequence).then_some(names)
    }
}

/// Puts a p-sock into the list. Atomic.
///
/// # Safety
///
/// `psock` is in no list, and it is taken out before its memory is given to `kfree_rcu()`.
pub(crate) unsafe fn add(psock: &Psock) -> Result {
    // SAFETY: Any CPU number does.
    let shard = unsafe { sys::xlb_cpu() } as usize % SHARDS;
    let xarray = LIST.get(shard).ok_or(EINVAL)?.0.get();
    let this = core::ptr::from_ref(psock).cast_mut().cast();
    let mut index = 0;
    // SAFETY: Initialised; the caller keeps `psock` while it is there.
    kernel::error::to_result(unsafe { sys::xlb_list_add(xarray.cast(), this, &mut index) })?;
    psock.entry.place.store(place(shard, index), Relaxed);
    Ok(())
}

/// Takes a p-sock out, if it is there. Those who hold the socket lock, and the last user, keep out of each other's way.
pub(crate) fn remove(psock: &Psock) {
    let place = psock.entry.place.load(Relaxed);
    psock.entry.place.store(NOWHERE, Relaxed);
    if let Some(shard) = LIST.get(shard_of(place)) {
        // SAFETY: Initialised, and this index is ours.
        unsafe { sys::xlb_list_remove(shard.0.get().cast(), index_of(place)) };
    }
}

/// Where a walk goes on; 0 is the beginning.
pub(crate) type Cursor = u64;

/// Calls `f` with each p-sock from the cursor on until it returns false, and leaves the cursor at that one. False
/// when the end was reached. `f` runs in RCU. May sleep in between.
pub(crate) fn walk(cursor: &mut Cursor, mut f: impl FnMut(&Psock) -> bool) -> bool {
    loop {
        // SAFETY: Ended below.
        unsafe { sys::xlb_rcu_read_lock() };
        let mut state = State::More;
        for _ in 0..BATCH {
            // SAFETY: In RCU.
            state = match unsafe { next(cursor) } {
                None => State::End,
                Some(psock) if !f(psock) => State::Stopped,
                Some(_) => State::More,
            };
            if state != State::More {
                break;
            }
            *cursor += 1;
        }
        // SAFETY: Begun above.
        unsafe { sys::xlb_rcu_read_unlock() };
        match state {
            State::End => return false,
            State::Stopped => return true,
            // SAFETY: Process context, nothing is locked.
            State::More => unsafe { sys::xlb_cond_resched() },
        }
    }
}

#[derive(PartialEq, Eq)]
enum State {
    More,
    Stopped,
    End,
}

/// The first one at or after the cursor, which moves there.
///
/// # Safety
///
/// In RCU, and the result is used in that section only.
unsafe fn next<'a>(cursor: &mut Cursor) -> Option<&'a Psock> {
    loop {
        let shard = shard_of(*cursor);
        let mut index = index_of(*cursor);
        // SAFETY: Initialised.
        let found = unsafe { sys::xlb_list_next(LIST.get(shard)?.0.get().cast(), &mut index) };
        // SAFETY: What is in the list is freed a grace period after it was taken out.
        if let Some(psock) = unsafe { found.cast::<Psock>().as_ref() } {
            *cursor = place(shard, index);
            return Some(psock);
        }
        *cursor = place(shard + 1, 0);
    }
}

fn place(shard: usize, index: u32) -> Cursor {
    ((shard as u64) << 32) | u64::from(index)
}

fn shard_of(cursor: Cursor) -> usize {
    (cursor >> 32) as usize
}

fn index_of(cursor: Cursor) -> u32 {
    cursor as u32
}
