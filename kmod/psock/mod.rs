// SPDX-License-Identifier: GPL-2.0

//! p-sockets: the application's own sockets, served by XLB.
//!
//! A [`Psock`] hangs on a socket as its upper layer protocol data, from the first `connect()` to a
//! VIP until the socket is destroyed. Its parts, and what protects them:
//!
//! | part | protected by |
//! |---|---|
//! | `client`: what poll(2) and callbacks know | see `http1/client.rs` |
//! | [`Session`]: exchange, buffers, the bound i-sock | the socket lock (1): only through [`Locked`] |
//! | `entry`: place in the list of all p-sockets | see `list.rs` |
//! | `next_done` | the list of orphans that are over (5) |
//! | `deferred` | the spinlock inside the socket lock |
//!
//! Contexts: the proto operations and the work run in process context. i-sock callbacks (softirq)
//! reach a p-sock through the waker in its client alone, inside an RCU section: they wake its waiters and may
//! queue its work. The memory of a `Psock` is freed after a grace period.
//!
//! The work never sleeps for the socket lock, which its owner may hold through a page fault for as long
//! as user space likes: where it finds the lock taken it leaves a mark (`deferred`), and the owner does the
//! work when it lets go, in `release_cb`.
//!
//! Teardown, in order: [`xlb_psock_close`] ends the exchange (so no i-sock and no pool knows the
//! p-sock), takes it off the list, and then waits for its work; TCP's own close follows and calls
//! [`xlb_psock_free`] through the ULP. One that has ended can be taken off its socket before that (`leave.rs`). With a request
//! that must still be sent this comes later, see `orphan.rs`.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};
use core::ptr;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;

use crate::count;
use crate::http1::{Active, Client, Phase, Session};
use crate::once::Once as _;
use crate::sys;

pub(crate) mod leave;
pub(crate) mod list;
pub(crate) mod orphan;
mod recv;
mod send;

use list::Entry;

/// See the top of the file.
#[repr(C)]
pub(crate) struct Psock {
    /// Room for the RCU head of `kfree_rcu()`: first, see `xlb_kfree_rcu()`.
    rcu: [usize; 2],
    pub(crate) client: Client,
    entry: Entry,
    /// The next one of the list of orphans that are over.
    next_done: UnsafeCell<*const Psock>,
    /// The work waits for the owner of the socket lock to let go; written under its spinlock.
    deferred: Atomic<bool>,
    /// Somebody waits for a grace period to let go of the p-sock, see `leave.rs`.
    leaving: Atomic<bool>,
    /// `bpf_xlb_accept()` was called for the connect that goes on; the socket lock.
    armed: UnsafeCell<bool>,
    session: UnsafeCell<Session>,
}

// SAFETY: See the table at the top of the file.
unsafe impl Sync for Psock {}

/// Prepares the list and the memory; once, at load.
pub(crate) fn init() -> Result {
    list::init();
    // SAFETY: Once.
    kernel::error::to_result(unsafe { sys::xlb_psock_cache_init(size_of::<Psock>() as u32) })
}

/// Undoes [`init`]; no p-sock is left but in grace periods.
pub(crate) fn exit() {
    list::exit();
    // SAFETY: Once, after `init`.
    unsafe { sys::xlb_psock_cache_exit() }
}

impl Psock {
    /// Runs `f` with the socket lock held (lock order 1) and lets the socket go. Before that it tells those
    /// who read and write without the lock what has changed, and wakes them.
    pub(crate) fn locked<R>(&self, f: impl FnOnce(&mut Locked<'_>) -> R) -> R {
        // SAFETY: A Psock that can be named has a live socket; process context.
        unsafe { sys::xlb_lock_sock(self.client.sk) };
        // SAFETY: Just taken.
        let result = unsafe { self.owned(f) };
        // SAFETY: Taken above.
        unsafe { sys::xlb_release_sock(self.client.sk) };
        result
    }

    /// As [`Psock::locked`] where the lock is held already, and stays so. What `f` allocates is charged to
    /// the cgroup of the socket, whoever runs it.
    ///
    /// # Safety
    ///
    /// The caller holds the socket lock, and there is no other [`Locked`].
    pub(crate) unsafe fn owned<R>(&self, f: impl FnOnce(&mut Locked<'_>) -> R) -> R {
        let mut locked = Locked {
            psock: self,
            // SAFETY: By the contract.
            active: unsafe { Active::new(&self.client, &self.session) },
            read_short: false,
        };
        // SAFETY: The socket is live, and so is its cgroup; ended below, by this task.
        let before = unsafe { sys::xlb_charge_begin(self.client.sk) };
        let result = f(&mut locked);
        // SAFETY: Begun above.
        unsafe { sys::xlb_charge_end(before) };
        locked.tell();
        result
    }

    /// SO_LINGER with a time: sleeps until the endpoint has acknowledged what was written, or `timeo` jiffies.
    /// Nothing is locked.
    fn linger(&self, mut timeo: isize) {
        while timeo > 0 && self.locked(|locked| locked.is_sending()) {
            // SAFETY: About the current task, in process context.
            if unsafe { sys::xlb_sk_linger(&mut timeo) } != 0 {
                return;
            }
        }
    }

    /// The last step of a close: takes the p-sock off the list and waits for its work, which finds
    /// `Phase::Closed`. Nothing is locked; may sleep.
    pub(crate) fn stop(&self) {
        list::remove(self);
        self.client.stop_work();
    }

    /// What was left for the owner of the socket lock is not needed any more. The lock is held.
    pub(crate) fn forget_deferred(&self) {
        self.deferred.write(false);
    }

    /// As the shim knows it.
    pub(crate) fn as_c(&self) -> *const sys::xlb_psock {
        ptr::from_ref(self).cast()
    }

    /// For `xlbctl get sockets`, in RCU; `None` while the socket is being connected.
    pub(crate) fn info(&self) -> Option<sys::xlb_socket_info> {
        let names = self.entry.names()?;
        let mut info = sys::xlb_socket_info {
            cgroup_id: self.entry.cgroup_id(),
            netns: self.entry.netns(),
            pid: names.pid,
            vip: names.vip,
            vip_port: names.vip_port,
            ..sys::xlb_socket_info::default()
        };
        self.client.describe(&mut info);
        Some(info)
    }

    /// Asks the p-sock to end in order. In RCU.
    fn end_soon(&self) {
        self.client.set_ending(true);
        // One that is closed meanwhile has its work disabled: then this does nothing.
        self.client.kick(0);
    }
}

/// Asks the p-sockets of `service` (or of all) to end in order.
pub(crate) fn end_all(service: u32) {
    let mut cursor = 0;
    list::walk(&mut cursor, |psock| {
        if service == sys::XLB_ANY || psock.client.service() == service {
            psock.end_soon();
        }
        true
    });
}

/// The socket lock of a p-sock, and with it its session; made by [`Psock::locked`].
pub(crate) struct Locked<'a> {
    psock: &'a Psock,
    active: Active<'a>,
    /// A read returned less than was asked for; see [`Locked::did_read_short`].
    read_short: bool,
}

impl Locked<'_> {
    /// Tells those who read and write without the lock what has changed, and wakes them.
    fn tell(&mut self) {
        self.active.tell(self.read_short);
    }

    /// A read that does not peek returned less than was asked for. Its caller takes that for "nothing more
    /// is there", so what is there all the same when the lock goes raises an edge.
    pub(crate) fn did_read_short(&mut self) {
        self.read_short = true;
    }

    /// Sleeps without the lock until `target` bytes are there, or no more will come. `Err` is for the caller.
    pub(crate) fn wait_readable(&mut self, timeo: &mut isize, target: usize) -> Result<(), i32> {
        self.tell();
        let target = u32::try_from(target).unwrap_or(u32::MAX);
        // SAFETY: The lock is held, and is again on return.
        let err = unsafe { sys::xlb_sk_wait_readable(self.client.sk, timeo, target) };
        if err < 0 {
            return Err(err);
        }
        self.interrupted(*timeo)
    }

    /// Sleeps without the lock until a write may make progress. `Err` is for the caller.
    pub(crate) fn wait_writable(&mut self, timeo: &mut isize) -> Result<(), i32> {
        self.tell();
        // SAFETY: The lock is held, and is again on return.
        let err = unsafe { sys::xlb_sk_wait_writable(self.client.sk, timeo) };
        if err < 0 {
            return Err(err);
        }
        self.interrupted(*timeo)
    }

    fn interrupted(&self, timeo: isize) -> Result<(), i32> {
        // SAFETY: About the current task.
        if unsafe { sys::xlb_signal_pending() } != 0 {
            // SAFETY: A computation.
            return Err(unsafe { sys::xlb_intr_errno(timeo) });
        }
        Ok(())
    }

    /// The p-sock's work.
    fn work(&mut self) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if self.is_orphan() {
            self.set_orphan_timer();
        }
        self.active.work();
        if self.is_orphan() {
            return self.work_as_orphan();
        }
        if self.client.is_ending() {
            self.end_soon();
        }
    }
}

impl<'a> Deref for Locked<'a> {
    type Target = Active<'a>;

    fn deref(&self) -> &Active<'a> {
        &self.active
    }
}

impl<'a> DerefMut for Locked<'a> {
    fn deref_mut(&mut self) -> &mut Active<'a> {
        &mut self.active
    }
}

/// # Safety
///
/// `psock` is live: what every entry from `shim/proto.c` gives us.
pub(crate) unsafe fn from_c<'a>(psock: *const sys::xlb_psock) -> &'a Psock {
    // SAFETY: By the function's contract.
    unsafe { &*psock.cast::<Psock>() }
}

/// A new p-sock for `sk`; null without memory. In RCU, so it must not sleep.
#[no_mangle]
extern "C" fn xlb_psock_new(sk: *mut sys::sock, service: u32) -> *mut sys::xlb_psock {
    // SAFETY: Any context.
    let psock = unsafe { sys::xlb_psock_alloc() }.cast::<Psock>();
    if psock.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: The cache's objects have the size and alignment of a Psock, and this one is ours.
    unsafe {
        psock.write(Psock {
            rcu: [0; 2],
            client: Client::new(sk, service),
            entry: Entry::new(sk),
            next_done: UnsafeCell::new(ptr::null()),
            deferred: Atomic::new(false),
            leaving: Atomic::new(false),
            armed: UnsafeCell::new(true),
            session: UnsafeCell::new(Session::new(sk)),
        });
    }
    // SAFETY: Just made, and nobody else knows it; what sees it through the list finds all of it ready.
    unsafe {
        (*psock).client.init();
        if list::add(&*psock).is_err() {
            sys::xlb_kfree_rcu(psock.cast());
            return ptr::null_mut();
        }
    }
    count::inc(sys::XLB_COUNTER_PSOCKS);
    count::add(sys::XLB_COUNTER_PSOCK_BYTES, size_of::<Psock>() as i64);
    psock.cast()
}

/// Says whether the connect that goes on now is for XLB.
///
/// # Safety
///
/// Called by `shim/proto.c` with the socket lock held.
#[no_mangle]
unsafe extern "C" fn xlb_psock_arm(psock: *mut sys::xlb_psock, service: u32, armed: i32) {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: The socket lock is held.
    unsafe { *psock.armed.get() = armed != 0 };
    if armed != 0 {
        psock.client.set_service(service);
    }
}

/// # Safety
///
/// As [`xlb_psock_arm`].
#[no_mangle]
unsafe extern "C" fn xlb_psock_take_armed(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: The socket lock is held.
    i32::from(unsafe { core::mem::take(&mut *psock.armed.get()) })
}

/// The socket is connected to a VIP now.
///
/// # Safety
///
/// As [`xlb_psock_arm`]; `vip` points at 16 bytes.
#[no_mangle]
unsafe extern "C" fn xlb_psock_connected(
    psock: *mut sys::xlb_psock,
    vip: *const u8,
    port: u16,
) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: By the contract.
    let vip = unsafe { *vip.cast::<[u8; 16]>() };
    // SAFETY: By the contract.
    if let Err(e) = unsafe { psock.owned(|locked| locked.party.identify()) } {
        return e.to_errno();
    }
    // SAFETY: By the contract.
    unsafe { psock.client.read_options() };
    psock.client.set_ending(false);
    psock.leaving.write_release(false);
    psock.entry.set_names(vip, port);
    psock.client.did_connect();
    count::inc(sys::XLB_COUNTER_ACCEPTED);
    0
}

/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_is_ours(psock: *const sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    i32::from(unsafe { from_c(psock) }.client.is_ours())
}

/// Ends everything but the socket itself; or keeps it as an orphan (`orphan.rs`), and returns 1. Lingers
/// for `timeout` jiffies at most before. Takes the socket lock.
///
/// # Safety
///
/// Called once by `shim/proto.c`, from the last `close()`.
#[no_mangle]
unsafe extern "C" fn xlb_psock_close(psock: *mut sys::xlb_psock, timeout: isize) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    psock.linger(timeout);
    let kept = psock.locked(|locked| {
        // SAFETY: The socket lock is held.
        if unsafe { sys::xlb_sk_resets_on_close(psock.client.sk) } != 0 {
            if let Some(relay) = locked.relay_mut() {
                relay.isock.reset_at_end();
            }
        } else if locked.orphan() {
            return true;
        }
        locked.end(sys::XLB_REASON_CLIENT_GONE);
        false
    });
    if kept {
        // The reaper may have closed it already.
        return 1;
    }
    psock.stop();
    0
}

/// `connect(AF_UNSPEC)`.
///
/// # Safety
///
/// As [`xlb_psock_arm`].
#[no_mangle]
unsafe extern "C" fn xlb_psock_disconnect(psock: *mut sys::xlb_psock) {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: By the contract.
    unsafe {
        psock.owned(|locked| {
            locked.abandon(sys::XLB_REASON_CLIENT_GONE);
            locked.party.free_port();
            locked.clear(psock.client.sk);
        });
    }
    psock.client.did_disconnect();
}

/// `shutdown(2)`: `how` is `RCV_SHUTDOWN` and/or `SEND_SHUTDOWN`, already set on the socket.
///
/// # Safety
///
/// As [`xlb_psock_arm`].
#[no_mangle]
unsafe extern "C" fn xlb_psock_shutdown(psock: *mut sys::xlb_psock, how: i32) {
    const SEND: i32 = 2;
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    if how & SEND != 0 {
        // SAFETY: By the contract.
        unsafe { psock.owned(|locked| locked.shut_send()) };
    }
}

/// The socket is being destroyed, or has let go of the p-sock: nothing refers to it but readers in RCU. Any context.
///
/// # Safety
///
/// Called by `shim/proto.c` from the ULP's release, after [`xlb_psock_close`], or at the end of `xlb_psock_leave()`.
#[no_mangle]
unsafe extern "C" fn xlb_psock_free(psock: *mut sys::xlb_psock) {
    let psock = psock.cast::<Psock>();
    // SAFETY: The socket is dead, so this is the only user of `session`; `abandon` left no i-sock
    // and no pool in it, so dropping it frees memory and nothing else. Readers in RCU use atomics.
    unsafe {
        let counted = (*(*psock).session.get()).counted;
        ptr::drop_in_place((*psock).session.get());
        count::add(
            sys::XLB_COUNTER_PSOCK_BYTES,
            -i64::from(counted) - size_of::<Psock>() as i64,
        );
        count::dec(sys::XLB_COUNTER_PSOCKS);
        sys::xlb_kfree_rcu(psock.cast());
    }
}

/// Whether a read finds `target` bytes or an end; -1 for a socket that is passed through.
///
/// # Safety
///
/// In RCU, with a p-sock found in that section.
#[no_mangle]
unsafe extern "C" fn xlb_psock_readable(psock: *const sys::xlb_psock, target: u32) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    psock.client.poll_in(target)
}

/// Whether a write finds room; -1 for a socket that is passed through.
///
/// # Safety
///
/// In RCU, with a p-sock found in that section.
#[no_mangle]
unsafe extern "C" fn xlb_psock_writable(psock: *const sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    psock.client.poll_out()
}

/// The `struct sock` of the bound i-sock, with a reference for the caller, or null.
///
/// # Safety
///
/// In RCU, with a p-sock found in that section.
#[no_mangle]
unsafe extern "C" fn xlb_psock_bound(psock: *const sys::xlb_psock) -> *mut sys::sock {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.client.bound()
}

/// Whether the client was told that nothing more will come, or will be when it has read what is there.
///
/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_has_ended(psock: *const sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    i32::from(unsafe { from_c(psock) }.client.is_closing())
}

/// Where the work lies in a p-sock.
const WORK: usize = offset_of!(Psock, client) + Client::WORK;

/// The p-sock's work: what callbacks and timers ask for, under the socket lock.
///
/// # Safety
///
/// `work` is the `work` of a live p-sock: close waits for us.
#[no_mangle]
unsafe extern "C" fn xlb_psock_work(work: *mut c_void) {
    // SAFETY: By the contract.
    let psock = unsafe { &*work.byte_sub(WORK).cast::<Psock>() };
    // SAFETY: The socket is live; the work never sleeps for its lock.
    if unsafe { sys::xlb_sk_lock_or_defer(psock.client.sk) } != 0 {
        // SAFETY: Just taken.
        unsafe {
            psock.owned(|locked| locked.work());
            sys::xlb_release_sock(psock.client.sk);
        }
    }
}

/// The work found the socket held by its owner, who is to do it.
///
/// # Safety
///
/// Called by `shim/sock.c` with a live p-sock and the spinlock of its socket lock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_defer(psock: *mut sys::xlb_psock) {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.deferred.write(true);
}

/// Whether the owner that lets the socket go now has work to do first; asks once.
///
/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock and the spinlock of its socket lock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_take_deferred(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let deferred = &unsafe { from_c(psock) }.deferred;
    if !deferred.read() {
        return 0;
    }
    deferred.write(false);
    1
}

/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock, in process context, by who owns the socket lock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_deferred_work(psock: *mut sys::xlb_psock) {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: By the contract.
    unsafe { psock.owned(|locked| locked.work()) };
}

/// `SIOCINQ`.
///
/// # Safety
///
/// Called by `shim/proto.c`, not locked.
#[no_mangle]
unsafe extern "C" fn xlb_psock_inq(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let unread = unsafe { from_c(psock) }.locked(|locked| locked.unread());
    i32::try_from(unread).unwrap_or(i32::MAX)
}

/// `SIOCOUTQ`.
///
/// # Safety
///
/// Called by `shim/proto.c`, not locked.
#[no_mangle]
unsafe extern "C" fn xlb_psock_outq(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let unsent = unsafe { from_c(psock) }.locked(|locked| locked.unsent());
    i32::try_from(unsent).unwrap_or(i32::MAX)
}

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_set_options(psock: *mut sys::xlb_psock) {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.locked(|locked| locked.did_set_options());
}

/// # Safety
///
/// Called by `shim/proto.c`, not locked, with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_outq_nsd(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let bytes = unsafe { from_c(psock) }.locked(|locked| locked.never_sent());
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
