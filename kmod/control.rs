// SPDX-License-Identifier: GPL-2.0

//! What xlbctl asks of the module, through a BPF program of type SYSCALL: `bpf_xlb_ctl()`.
//!
//! Process context, may sleep. Records are written to the caller's buffer; the cursor is
//! `shard or bucket << 32 | place in it`. A socket that is there all the time is listed once; in a bucket of pools
//! that changes between two calls one may be shown twice or missed.

use kernel::prelude::*;
use xlb_engine::Reason;

use crate::pool::table;
use crate::psock::{self, leave, list};
use crate::sys;

/// # Safety
///
/// Called by `bpf_xlb_ctl()`: `ctl` is valid, `buf` for `len` bytes.
#[no_mangle]
unsafe extern "C" fn xlb_control(ctl: *mut sys::xlb_ctl, buf: *mut u8, len: u32) -> i32 {
    // SAFETY: By the contract; BPF gives each call its own memory.
    let ctl = unsafe { &mut *ctl };
    let abi = core::mem::replace(&mut ctl.abi, sys::XLB_ABI);
    ctl.abi_oldest = sys::XLB_ABI_OLDEST;
    if !(sys::XLB_ABI_OLDEST..=sys::XLB_ABI).contains(&abi) {
        return -(kernel::bindings::EPROTO as i32);
    }
    let mut out = Records {
        buf,
        left: len as usize,
        count: 0,
        record_bytes: 0,
    };
    let result = match ctl.op {
        sys::XLB_CTL_INFO => info(&mut out),
        sys::XLB_CTL_COUNTS => counts(ctl, &mut out),
        sys::XLB_CTL_SOCKETS => sockets(ctl, &mut out),
        sys::XLB_CTL_POOLS => pools(ctl, &mut out),
        sys::XLB_CTL_CLOSE_IDLE => {
            table::retire_endpoint(&ctl.addr, ctl.port);
            Ok(())
        }
        sys::XLB_CTL_END_SOCKETS => {
            psock::end_all(ctl.service);
            Ok(())
        }
        sys::XLB_CTL_RELEASE => leave::leave(&mut ctl.cursor).map(|(count, more)| {
            out.count = count;
            ctl.more = more.into();
        }),
        _ => Err(EINVAL),
    };
    ctl.count = out.count;
    ctl.record_bytes = out.record_bytes;
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// A buffer that records of one type are written to.
struct Records {
    buf: *mut u8,
    left: usize,
    count: u32,
    record_bytes: u32,
}

impl Records {
    /// Appends `record`; false when it does not fit.
    fn push<T: Copy>(&mut self, record: &T) -> bool {
        let size = size_of::<T>();
        self.record_bytes = size as u32;
        if self.left < size {
            return false;
        }
        // SAFETY: `left` bytes are valid behind `buf`; `T` is a C structure without padding that
        // BPF reads as bytes.
        unsafe {
            core::ptr::copy_nonoverlapping(
                core::ptr::from_ref(record).cast::<u8>(),
                self.buf,
                size,
            );
            self.buf = self.buf.add(size);
        }
        self.left -= size;
        self.count += 1;
        true
    }
}

fn info(out: &mut Records) -> Result {
    let mut info = sys::xlb_info {
        abi: sys::XLB_ABI,
        ..sys::xlb_info::default()
    };
    // SAFETY: Writes to `info`.
    unsafe { sys::xlb_policy_describe(&mut info) };
    name(&mut info.module_version, crate::VERSION.as_bytes());
    if out.push(&info) {
        Ok(())
    } else {
        Err(ENOSPC)
    }
}

/// Counters, gauges and reasons, then what the engine has refused, by reason. The cursor is the number of the next one.
fn counts(ctl: &mut sys::xlb_ctl, out: &mut Records) -> Result {
    // SAFETY: A constant.
    let named = u64::from(unsafe { sys::xlb_counts() });
    loop {
        let mut count = sys::xlb_count::default();
        if let Some(reason) = ctl.cursor.checked_sub(named) {
            let Some(reason) = Reason::ALL.get(reason as usize) else {
                break;
            };
            count.kind = sys::XLB_COUNT_ENGINE;
            // SAFETY: The shim checks the range.
            count.value = unsafe { sys::xlb_engine_count(*reason as u32) };
            name(&mut count.name, reason.name().as_bytes());
        } else {
            // SAFETY: Writes to `count`.
            unsafe { sys::xlb_count_read(ctl.cursor as u32, &mut count) };
        }
        if !out.push(&count) {
            ctl.more = 1;
            return Ok(());
        }
        ctl.cursor += 1;
    }
    ctl.more = 0;
    Ok(())
}

/// Writes as much of `text` as fits in front of the last byte, which stays 0.
fn name<T: From<u8>>(to: &mut [T], text: &[u8]) {
    let room = to.len().saturating_sub(1);
    for (to, from) in to.iter_mut().take(room).zip(text) {
        *to = T::from(*from);
    }
}

fn sockets(ctl: &mut sys::xlb_ctl, out: &mut Records) -> Result {
    let more = list::walk(&mut ctl.cursor, |psock| {
        psock.info().is_none_or(|info| out.push(&info))
    });
    ctl.more = more.into();
    Ok(())
}

fn pools(ctl: &mut sys::xlb_ctl, out: &mut Records) -> Result {
    let (mut bucket, mut nth) = split(ctl.cursor);
    while let Ok(pool) = table::nth(bucket, nth) {
        let Some(pool) = pool else {
            bucket += 1;
            nth = 0;
            continue;
        };
        if !out.push(&pool.info()) {
            ctl.cursor = join(bucket, nth);
            ctl.more = 1;
            return Ok(());
        }
        nth += 1;
    }
    ctl.more = 0;
    Ok(())
}

fn split(cursor: u64) -> (usize, usize) {
    ((cursor >> 32) as usize, (cursor & 0xffff_ffff) as usize)
}

fn join(shard: usize, place: usize) -> u64 {
    ((shard as u64) << 32) | place as u64
}
