// SPDX-License-Identifier: GPL-2.0

//! The list of all p-sockets: what `xlbctl get sockets` shows, and what an unload with force ends.
//!
//! A p-sock is in it from the moment that it is attached to its socket until that is closed, whatever the
//! socket is connected to meanwhile: so the list is also that of all that keeps the module from being removed.
//!
//! An XArray for each shard, by an index that XLB gives: a walk goes on from an index, in time
//! that does not grow with what it has passed, so it can be cut anywhere. Shards are chosen by CPU, so
//! that connects on different CPUs write different memory.
//!
//! Contexts: entries come and go in process context, under the XArray's own spinlock (5). Walks are in RCU sections
//! of [`BATCH`] entries: what is found there is a p-sock until the section ends, for its memory is
//! freed a grace period after it has left, and so is its socket (SOCK_RCU_FREE; `sk_destruct()`
//! lets go of cgroup and netns after the grace period, too). It may be closed already.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use kernel::bindings;
use kernel::prelude::*;

use crate::psock::Psock;
use crate::sys;

const SHARDS: usize = 64;

/// Entries looked at in one RCU section: with some 400 instructions each it ends long before 100 us.
const BATCH: u32 = 64;

struct Shard {
    raw: UnsafeCell<MaybeUninit<bindings::xarray>>,
}

// SAFETY: An XArray has a lock of its own for those who write, and is read in RCU.
unsafe impl Sync for Shard {}

static LIST: [Shard; SHARDS] = [const {
    Shard {
        raw: UnsafeCell::new(MaybeUninit::zeroed()),
    }
}; SHARDS];

impl Shard {
    fn raw(&self) -> *mut sys::xarray {
        self.raw.get().cast()
    }
}

/// Where a p-sock is in the list.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    shard: u8,
    index: u32,
}

/// Prepares the list; once, at load.
pub(crate) fn init() {
    for shard in &LIST {
        // SAFETY: Once, before first use; statics do not move.
        unsafe { sys::xlb_list_init(shard.raw()) };
    }
}

/// Puts `psock` into the list. Does not sleep. Its memory, some ten bytes where sockets are many, is charged
/// to the current task.
pub(crate) fn add(psock: *mut Psock) -> Result<Place> {
    // SAFETY: Any CPU number does.
    let shard = unsafe { sys::xlb_cpu() } as usize % SHARDS;
    let list = LIST.get(shard).ok_or(EINVAL)?;
    let mut index = 0;
    // SAFETY: The list was initialised; who takes a p-sock out waits a grace period before it goes.
    kernel::error::to_result(unsafe { sys::xlb_list_add(list.raw(), psock.cast(), &mut index) })?;
    Ok(Place {
        shard: shard as u8,
        index,
    })
}

/// Takes out what [`add`] has put to `place`.
pub(crate) fn remove(place: Place) {
    if let Some(list) = LIST.get(usize::from(place.shard)) {
        // SAFETY: The list was initialised.
        unsafe { sys::xlb_list_remove(list.raw(), place.index) };
    }
}

/// A place to begin or to go on from: `shard << 32 | index`.
#[derive(Clone, Copy)]
pub(crate) struct Cursor(pub(crate) u64);

/// Calls `f` in RCU with each p-sock from `cursor` on until it returns false, and leaves the cursor there; true when
/// it came to the end. Sleeps between RCU sections.
pub(crate) fn walk(cursor: &mut Cursor, mut f: impl FnMut(&Psock) -> bool) -> bool {
    let (mut shard, mut index) = ((cursor.0 >> 32) as usize, cursor.0 as u32);
    while let Some(list) = LIST.get(shard) {
        // SAFETY: Ended below; nothing in between sleeps.
        unsafe { sys::xlb_rcu_read_lock() };
        let mut passed = Passed::Batch;
        for _ in 0..BATCH {
            // SAFETY: In RCU; the list was initialised.
            let psock = unsafe { sys::xlb_list_next(list.raw(), &mut index) };
            // SAFETY: In RCU; see the top of the file.
            let Some(psock) = (unsafe { psock.cast::<Psock>().as_ref() }) else {
                passed = Passed::Shard;
                break;
            };
            if !f(psock) {
                passed = Passed::Enough;
                break;
            }
            let Some(next) = index.checked_add(1) else {
                passed = Passed::Shard;
                break;
            };
            index = next;
        }
        // SAFETY: Begun above.
        unsafe {
            sys::xlb_rcu_read_unlock();
            sys::xlb_cond_resched();
        }
        match passed {
            Passed::Batch => {}
            Passed::Shard => {
                shard += 1;
                index = 0;
            }
            Passed::Enough => {
                *cursor = Cursor((shard as u64) << 32 | u64::from(index));
                return false;
            }
        }
    }
    true
}

enum Passed {
    Batch,
    Shard,
    Enough,
}
