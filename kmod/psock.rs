// SPDX-License-Identifier: GPL-2.0

//! p-sockets: the application's own sockets, served by XLB.
//!
//! A [`Psock`] hangs on a socket as its upper layer protocol data, from the first `connect()` to a
//! VIP until the socket is destroyed. Its parts, and what protects them:
//!
//! | part | protected by |
//! |---|---|
//! | [`Inner`]: the exchange, buffers, the bound i-sock | the socket lock (1): only through [`Locked`] |
//! | `link`: place in a pool's queue | that pool's lock (4) |
//! | `entry`: place in the list of all p-sockets | see `list.rs` |
//! | `poll`, `rx`, and what `get sockets` shows | atomics: poll(2) and i-sock callbacks take no lock |
//! | `next_done` | the list of orphans that are over (5) |
//! | `options`, `lent` | the socket lock |
//! | `deferred` | the spinlock inside the socket lock |
//! | `view` | the socket lock, and only during a call of the BPF policy |
//!
//! Contexts: the proto operations and the work run in process context. i-sock callbacks (softirq)
//! reach a p-sock through [`wake`] alone, inside an RCU section: they wake its waiters and may
//! queue its work. The memory of a `Psock` is freed after a grace period.
//!
//! The work never sleeps for the socket lock, which its owner may hold through a page fault for as long
//! as user space likes: where it finds the lock taken it leaves a mark (`deferred`), and the owner does the
//! work when it lets go, in `release_cb`.
//!
//! Teardown, in order: [`xlb_psock_close`] ends the exchange (so no i-sock and no pool knows the
//! p-sock), takes it off the list, and then waits for its work; TCP's own close follows and calls
//! [`xlb_psock_free`] through the ULP. One that has ended can be taken off its socket before that (`leave.rs`). With a request that must still be sent this comes later, see
//! `orphan.rs`.

use core::cell::UnsafeCell;
use core::mem::{offset_of, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::ptr;
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;

use crate::count;
use crate::exchange::{Inner, RCV_SHUTDOWN};
use crate::fields::View;
use crate::list::{self, Entry};
use crate::once::Once as _;
use crate::pool::Link;
use crate::sys;

/// What poll(2) and callbacks must know, as bits of [`Psock::poll`], which holders of the socket lock write.
pub(crate) mod bits {
    /// Bytes or an end for the client are there, whatever the i-sock has.
    pub(crate) const READY: u32 = 1;
    /// The response comes from the i-sock in `rx`.
    pub(crate) const RELAY: u32 = 2;
    /// No room for bytes of the client.
    pub(crate) const FULL: u32 = 4;
    /// Bytes of the client go straight to the i-sock in `rx`.
    pub(crate) const STREAM: u32 = 8;
    /// Events of the i-sock are for the work: a connect, or a head that did not fit.
    pub(crate) const KICK: u32 = 16;
    /// The socket is connected to a VIP; without this it is passed through to TCP.
    pub(crate) const OURS: u32 = 32;
    /// Behind them the state that `get sockets` shows, `XLB_SOCKET_*`.
    pub(crate) const STATE_SHIFT: u32 = 8;
}

/// See the top of the file.
#[repr(C)]
pub(crate) struct Psock {
    /// Room for the RCU head of `kfree_rcu()`: first, see `xlb_kfree_rcu()`.
    rcu: [usize; 2],
    /// The request as BPF sees it; the kfuncs come back from here.
    req: UnsafeCell<sys::xlb_request>,
    pub(crate) view: UnsafeCell<View>,
    pub(crate) sk: *mut sys::sock,
    work: UnsafeCell<MaybeUninit<bindings::delayed_work>>,
    pub(crate) link: UnsafeCell<Link>,
    pub(crate) entry: Entry,
    /// The next one of the list of orphans that are over.
    pub(crate) next_done: UnsafeCell<*const Psock>,
    poll: Atomic<u32>,
    /// Bytes for the client that do not come from an i-sock.
    local: Atomic<u32>,
    /// The work waits for the owner of the socket lock to let go; written under its spinlock.
    deferred: Atomic<bool>,
    /// Unload with force: end after the running exchange.
    ending: Atomic<bool>,
    /// What was set with `setsockopt`, and what the bound i-sock had before; see `options.rs`.
    pub(crate) options: UnsafeCell<u8>,
    pub(crate) lent: UnsafeCell<sys::xlb_lent>,
    service: Atomic<u32>,
    /// Somebody waits for a grace period to let go of the p-sock, see `leave.rs`.
    pub(crate) leaving: Atomic<bool>,
    /// The `struct sock` of the bound i-sock.
    rx: Atomic<*mut sys::sock>,
    endpoint: Atomic<u32>,
    requests: Atomic<u64>,
    inner: UnsafeCell<Inner>,
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
    /// The p-sock that `req` is part of.
    ///
    /// # Safety
    ///
    /// `req` is the pointer that the policy was called with, during that call.
    pub(crate) unsafe fn of_request<'a>(req: *const sys::xlb_request) -> &'a Psock {
        // SAFETY: By the contract `req` is the field `req` of a live Psock.
        unsafe { &*req.byte_sub(offset_of!(Psock, req)).cast::<Psock>() }
    }

    /// The request that BPF is shown.
    pub(crate) fn request(&self) -> *mut sys::xlb_request {
        self.req.get()
    }

    /// Runs `f` with the socket lock held (lock order 1) and lets the socket go. Before that it tells those
    /// who read and write without the lock what has changed, and wakes them.
    pub(crate) fn locked<R>(&self, f: impl FnOnce(&mut Locked<'_>) -> R) -> R {
        // SAFETY: A Psock that can be named has a live socket; process context.
        unsafe { sys::xlb_lock_sock(self.sk) };
        // SAFETY: Just taken.
        let result = unsafe { self.owned(f) };
        // SAFETY: Taken above.
        unsafe { sys::xlb_release_sock(self.sk) };
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
            read_short: false,
        };
        // SAFETY: The socket is live, and so is its cgroup; ended below, by this task.
        let before = unsafe { sys::xlb_charge_begin(self.sk) };
        let result = f(&mut locked);
        // SAFETY: Begun above.
        unsafe { sys::xlb_charge_end(before) };
        locked.tell();
        result
    }

    /// Runs the work in `delay_ms`, or at once for 0. Any context.
    pub(crate) fn kick(&self, delay_ms: u64) {
        // SAFETY: `work` was initialised at creation; once it is disabled this does nothing.
        unsafe { sys::xlb_work_kick(self.work.get().cast(), delay_ms) }
    }

    /// Says which i-sock the client polls; null for none.
    pub(crate) fn set_rx(&self, sk: *mut sys::sock) {
        self.rx.write_release(sk);
    }

    /// Whether the socket is connected to a VIP.
    fn is_ours(&self) -> bool {
        self.poll.read_acquire() & bits::OURS != 0
    }

    /// Says, before anything is sent over it, that responses come from the i-sock `sk`: a thread
    /// that polls when the first byte comes must find it.
    pub(crate) fn will_relay(&self, sk: *mut sys::sock) {
        self.set_rx(sk);
        self.poll.write_release(self.poll.read() | bits::RELAY);
    }

    /// Wants i-sock events to kick the work, from before the next event.
    pub(crate) fn want_kick(&self) {
        self.poll.write_release(self.poll.read() | bits::KICK);
    }

    /// The endpoint shown by `get sockets`.
    pub(crate) fn show_endpoint(&self, endpoint: u32) {
        self.endpoint.write(endpoint);
    }

    /// Counts a request.
    pub(crate) fn count_request(&self) {
        self.requests.write(self.requests.read().wrapping_add(1));
    }

    /// The service that the client connected to.
    pub(crate) fn service(&self) -> u32 {
        self.service.read()
    }

    /// Whether the socket must end after the running exchange.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.read()
    }

    /// Tells readers that something is there.
    pub(crate) fn wake_reader(&self) {
        // SAFETY: The socket is live.
        unsafe { sys::xlb_sk_data_ready(self.sk) }
    }

    /// Tells writers that there is room.
    pub(crate) fn wake_writer(&self) {
        // SAFETY: The socket is live.
        unsafe { sys::xlb_sk_write_space(self.sk) }
    }

    /// Whether a write can make progress, where `poll` says how the socket stands; lock-free.
    fn is_writable(&self, poll: u32) -> bool {
        if poll & bits::STREAM != 0 {
            let rx = self.rx.read_acquire();
            // SAFETY: In RCU; TCP sockets are SLAB_TYPESAFE_BY_RCU, so what `rx` points at is
            // the memory of some TCP socket until the section ends, live or not.
            if rx.is_null() || unsafe { sys::xlb_isk_get(rx) } == 0 {
                // It goes, or has gone: a write finds out.
                return true;
            }
            let bound = self.rx.read_acquire() == rx;
            // SAFETY: With the reference it stays what it is, and when it is the bound one still,
            // then it is an i-sock.
            let writable = !bound || unsafe { sys::xlb_isk_writable(rx) } != 0;
            // SAFETY: Taken above.
            unsafe { sys::xlb_isk_put(rx) };
            return writable;
        }
        poll & bits::FULL == 0
    }

    /// The bound i-sock with a reference, or null; lock-free, in RCU.
    fn bound(&self) -> *mut sys::sock {
        let rx = self.rx.read_acquire();
        // SAFETY: As in `is_writable`.
        if rx.is_null() || unsafe { sys::xlb_isk_get(rx) } == 0 {
            return ptr::null_mut();
        }
        if self.rx.read_acquire() != rx {
            // SAFETY: Taken above.
            unsafe { sys::xlb_isk_put(rx) };
            return ptr::null_mut();
        }
        rx
    }

    /// Whether a read can make progress; lock-free.
    fn is_readable(&self, poll: u32) -> bool {
        if poll & bits::READY != 0 {
            return true;
        }
        if poll & bits::RELAY == 0 {
            return false;
        }
        let rx = self.rx.read_acquire();
        // SAFETY: As in `is_writable`: plain fields of some TCP socket. Of another one they may say
        // that there is something: a read finds out.
        !rx.is_null() && unsafe { sys::xlb_isk_readable(rx) } != 0
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

    /// Whether poll(2) may say so, where SO_RCVLOWAT asks for `target` bytes; lock-free. As
    /// `tcp_epollin_ready()`: also for an end, and where the window or memory ends before.
    fn is_readable_to(&self, poll: u32, target: u32) -> bool {
        let readable = self.is_readable(poll);
        if target <= 1 || !readable {
            return readable;
        }
        let local = self.local.read();
        if local >= target || (local == 0 && poll & bits::READY != 0) {
            return true;
        }
        let rx = self.rx.read_acquire();
        // SAFETY: As in `is_writable`.
        if poll & bits::RELAY == 0 || rx.is_null() || unsafe { sys::xlb_isk_get(rx) } == 0 {
            return false;
        }
        let rest = i32::try_from(target - local).unwrap_or(i32::MAX);
        // SAFETY: With the reference it stays what it is; of another socket than the bound one it may say
        // that there is something, and a read finds out.
        unsafe {
            let readable = sys::xlb_isk_readable_to(rx, rest) != 0;
            sys::xlb_isk_put(rx);
            readable
        }
    }

    /// The last step of a close: takes the p-sock off the list and waits for its work, which finds
    /// `Phase::Closed`. Nothing is locked; may sleep.
    pub(crate) fn stop(&self) {
        list::remove(self);
        self.stop_work();
    }

    /// The work runs no more. The socket lock may be held: the work never sleeps for it.
    pub(crate) fn stop_work(&self) {
        // SAFETY: Initialised at creation.
        unsafe { sys::xlb_work_disable_sync(self.work.get().cast()) };
    }

    /// What was left for the owner of the socket lock is not needed any more. The lock is held.
    pub(crate) fn forget_deferred(&self) {
        self.deferred.write(false);
    }

    /// No exchange runs and none will, as told when the socket lock was let go of last.
    pub(crate) fn is_closing(&self) -> bool {
        self.poll.read_acquire() >> bits::STATE_SHIFT == sys::XLB_SOCKET_CLOSING
    }

    /// As the shim knows it.
    pub(crate) fn as_c(&self) -> *const sys::xlb_psock {
        ptr::from_ref(self).cast()
    }

    /// For `xlbctl get sockets`, in RCU; `None` while the socket is being connected.
    pub(crate) fn info(&self) -> Option<sys::xlb_socket_info> {
        let names = self.entry.names()?;
        let mut endpoint = [0; 16];
        let mut endpoint_port = 0;
        let (mut receive, mut send) = (0, 0);
        let rx = self.rx.read_acquire();
        if !rx.is_null() {
            // SAFETY: In RCU; see `is_writable` for what `rx` points at.
            unsafe {
                sys::xlb_sk_peer(rx, endpoint.as_mut_ptr(), &mut endpoint_port);
                receive = sys::xlb_isk_inq(rx);
                send = sys::xlb_isk_outq(rx);
            }
        }
        let state = match self.poll.read_acquire() {
            poll if poll & bits::OURS == 0 => sys::XLB_SOCKET_PLAIN,
            poll => poll >> bits::STATE_SHIFT,
        };
        Some(sys::xlb_socket_info {
            // SAFETY: In RCU the memory is that of some TCP socket, and a cookie is an atomic.
            id: unsafe { sys::xlb_sk_cookie(self.sk) },
            cgroup_id: self.entry.cgroup_id(),
            requests: self.requests.read(),
            pid: names.pid,
            service: self.service(),
            netns: self.entry.netns(),
            state,
            receive_bytes: u32::try_from(receive).unwrap_or(0),
            send_bytes: u32::try_from(send).unwrap_or(0),
            vip: names.vip,
            endpoint,
            vip_port: names.vip_port,
            endpoint_port,
            endpoint_id: self.endpoint.read(),
        })
    }

    /// Asks the p-sock to end in order. In RCU.
    fn end_soon(&self) {
        self.ending.write(true);
        // One that is closed meanwhile has its work disabled: then this does nothing.
        self.kick(0);
    }
}

/// Asks the p-sockets of `service` (or of all) to end in order.
pub(crate) fn end_all(service: u32) {
    let mut cursor = 0;
    list::walk(&mut cursor, |psock| {
        if service == sys::XLB_ANY || psock.service() == service {
            psock.end_soon();
        }
        true
    });
}

/// Lets the owner of an i-sock look whether it can let go of it, see
/// [`crate::pool::Pool::is_wanted`]; false when its client has nothing to read now.
///
/// # Safety
///
/// As [`wake`].
pub(crate) unsafe fn ask(sk: *mut sys::sock) -> bool {
    // SAFETY: As in `wake`.
    let psock = unsafe { sys::xlb_sk_psock(sk).cast::<Psock>().as_ref() };
    let Some(psock) = psock.filter(|p| p.is_readable(p.poll.read_acquire())) else {
        return false;
    };
    psock.kick(0);
    true
}

/// Tells the owner of an i-sock that something happened to it; `wanted` says that other requests
/// wait for the connection.
///
/// # Safety
///
/// In an RCU section that began before `sk` was found to be the owner; see `isock.rs`.
pub(crate) unsafe fn wake(sk: *mut sys::sock, event: sys::xlb_isock_event, wanted: bool) {
    // SAFETY: `sk` has SOCK_RCU_FREE, so it is a socket until the section ends; its Psock is freed
    // after a grace period too.
    unsafe {
        if event != sys::XLB_ISOCK_SPACE {
            sys::xlb_sk_data_ready(sk);
        }
        if event != sys::XLB_ISOCK_DATA {
            sys::xlb_sk_write_space(sk);
        }
        let psock = sys::xlb_sk_psock(sk).cast::<Psock>();
        if !psock.is_null() && (wanted || (*psock).poll.read_acquire() & bits::KICK != 0) {
            (*psock).kick(0);
        }
    }
}

/// The socket lock of a p-sock, and with it [`Inner`]; made by [`Psock::locked`].
pub(crate) struct Locked<'a> {
    pub(crate) psock: &'a Psock,
    /// A read returned less than was asked for; see [`Locked::did_read_short`].
    read_short: bool,
}

impl Locked<'_> {
    /// Publishes what lock-free readers need, then wakes those to whom it matters (a thread that
    /// polled a moment before saw the old state), and counts memory that has changed.
    fn tell(&mut self) {
        let psock = self.psock;
        let inner = &mut **self;
        let (poll, state) = inner.public();
        let before = psock.poll.read();
        if (poll | before) & bits::READY != 0 {
            let local = u32::try_from(inner.local.len()).unwrap_or(u32::MAX);
            psock.local.write(local);
        }
        let poll = poll | before & bits::OURS | state << bits::STATE_SHIFT;
        psock.poll.write_release(poll);
        // Some 100 KiB at most.
        let memory = inner.memory() as u32;
        if memory != inner.counted {
            count::add(
                sys::XLB_COUNTER_PSOCK_BYTES,
                i64::from(memory) - i64::from(inner.counted),
            );
            inner.counted = memory;
        }
        // A writer that found no room while a connection was awaited: from now on the i-sock has it.
        let streams = before & bits::FULL != 0 && poll & !before & bits::STREAM != 0;
        if poll & !before & bits::READY != 0 || (self.read_short && self.has_news()) {
            psock.wake_reader();
        }
        if streams || before & !poll & (bits::FULL | bits::STREAM) != 0 {
            psock.wake_writer();
        }
    }

    /// A read that does not peek returned less than was asked for. Its caller takes that for "nothing more
    /// is there", so what is there all the same when the lock goes raises an edge.
    pub(crate) fn did_read_short(&mut self) {
        self.read_short = true;
    }

    /// Whether there is something to read now: bytes, an end or an error.
    fn has_news(&self) -> bool {
        // SAFETY: The socket is live.
        let ended = unsafe { sys::xlb_sk_shutdown(self.psock.sk) } & RCV_SHUTDOWN != 0;
        ended || self.psock.is_readable(self.psock.poll.read()) || self.has_error()
    }

    /// Sleeps without the lock until `target` bytes are there, or no more will come. `Err` is for the caller.
    pub(crate) fn wait_readable(&mut self, timeo: &mut isize, target: usize) -> Result<(), i32> {
        self.tell();
        let target = u32::try_from(target).unwrap_or(u32::MAX);
        // SAFETY: The lock is held, and is again on return.
        let err = unsafe { sys::xlb_sk_wait_readable(self.psock.sk, timeo, target) };
        if err < 0 {
            return Err(err);
        }
        self.interrupted(*timeo)
    }

    /// Sleeps without the lock until a write may make progress. `Err` is for the caller.
    pub(crate) fn wait_writable(&mut self, timeo: &mut isize) -> Result<(), i32> {
        self.tell();
        // SAFETY: The lock is held, and is again on return.
        let err = unsafe { sys::xlb_sk_wait_writable(self.psock.sk, timeo) };
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

    /// Whether the socket has an error for the next call.
    pub(crate) fn has_error(&self) -> bool {
        // SAFETY: The socket is live.
        unsafe { sys::xlb_sk_has_error(self.psock.sk) != 0 }
    }

    /// Whether the socket is still connected to a VIP: another thread may have dissolved that
    /// while this one waited for the lock.
    pub(crate) fn is_ours(&self) -> bool {
        self.psock.is_ours()
    }

    /// The pending error of the socket, cleared; 0 for none, else `-errno`.
    pub(crate) fn take_error(&mut self) -> i32 {
        // SAFETY: The lock is held.
        unsafe { sys::xlb_sk_take_error(self.psock.sk) }
    }
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        // SAFETY: The socket lock is held.
        unsafe { &*self.psock.inner.get() }
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        // SAFETY: The socket lock is held, and `&mut self` makes this the only reference.
        unsafe { &mut *self.psock.inner.get() }
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
            req: UnsafeCell::new(sys::xlb_request::default()),
            view: UnsafeCell::new(View::empty()),
            sk,
            work: UnsafeCell::new(MaybeUninit::zeroed()),
            link: UnsafeCell::new(Link::new()),
            entry: Entry::new(sk),
            next_done: UnsafeCell::new(ptr::null()),
            poll: Atomic::new(0),
            local: Atomic::new(0),
            deferred: Atomic::new(false),
            ending: Atomic::new(false),
            options: UnsafeCell::new(0),
            lent: UnsafeCell::new(sys::xlb_lent::default()),
            leaving: Atomic::new(false),
            service: Atomic::new(service),
            rx: Atomic::new(ptr::null_mut()),
            endpoint: Atomic::new(0),
            requests: Atomic::new(count::from()),
            inner: UnsafeCell::new(Inner::new()),
        });
    }
    // SAFETY: Just made, and nobody else knows it; what sees it through the list finds all of it ready.
    unsafe {
        sys::xlb_work_init((*psock).work.get().cast());
        (*(*psock).inner.get()).armed = true;
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
    // SAFETY: By the contract.
    unsafe { psock.owned(|locked| locked.armed = armed != 0) };
    if armed != 0 {
        psock.service.write(service);
    }
}

/// # Safety
///
/// As [`xlb_psock_arm`].
#[no_mangle]
unsafe extern "C" fn xlb_psock_take_armed(psock: *mut sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    let psock = unsafe { from_c(psock) };
    // SAFETY: By the contract.
    i32::from(unsafe { psock.owned(|locked| core::mem::take(&mut locked.armed)) })
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
    if let Err(e) = unsafe { psock.owned(|locked| locked.identify()) } {
        return e.to_errno();
    }
    // SAFETY: By the contract.
    unsafe { psock.read_options() };
    psock.ending.write(false);
    let poll = psock.poll.read();
    psock.leaving.write_release(false);
    psock.entry.set_names(vip, port);
    psock.poll.write_release(poll | bits::OURS);
    count::inc(sys::XLB_COUNTER_ACCEPTED);
    0
}

/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_is_ours(psock: *const sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    i32::from(unsafe { from_c(psock) }.is_ours())
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
        if unsafe { sys::xlb_sk_resets_on_close(psock.sk) } != 0 {
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
            locked.free_port();
            locked.clear();
        });
    }
    let poll = psock.poll.read();
    psock.poll.write_release(poll & !bits::OURS);
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
    // SAFETY: The socket is dead, so this is the only user of `inner`; `abandon` left no i-sock
    // and no pool in it, so dropping it frees memory and nothing else. Readers in RCU use atomics.
    unsafe {
        let counted = (*(*psock).inner.get()).counted;
        ptr::drop_in_place((*psock).inner.get());
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
    match psock.poll.read_acquire() {
        poll if poll & bits::OURS == 0 => -1,
        poll => i32::from(psock.is_readable_to(poll, target)),
    }
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
    match psock.poll.read_acquire() {
        poll if poll & bits::OURS == 0 => -1,
        poll => i32::from(psock.is_writable(poll)),
    }
}

/// The `struct sock` of the bound i-sock, with a reference for the caller, or null.
///
/// # Safety
///
/// In RCU, with a p-sock found in that section.
#[no_mangle]
unsafe extern "C" fn xlb_psock_bound(psock: *const sys::xlb_psock) -> *mut sys::sock {
    // SAFETY: By the contract.
    unsafe { from_c(psock) }.bound()
}

/// Whether the client was told that nothing more will come, or will be when it has read what is there.
///
/// # Safety
///
/// Called by `shim/proto.c` with a live p-sock.
#[no_mangle]
unsafe extern "C" fn xlb_psock_has_ended(psock: *const sys::xlb_psock) -> i32 {
    // SAFETY: By the contract.
    i32::from(unsafe { from_c(psock) }.is_closing())
}

/// The p-sock's work: what callbacks and timers ask for, under the socket lock.
///
/// # Safety
///
/// `work` is the `work` of a live p-sock: close waits for us.
#[no_mangle]
unsafe extern "C" fn xlb_psock_work(work: *mut c_void) {
    // SAFETY: By the contract.
    let psock = unsafe { &*work.byte_sub(offset_of!(Psock, work)).cast::<Psock>() };
    // SAFETY: The socket is live; the work never sleeps for its lock.
    if unsafe { sys::xlb_sk_lock_or_defer(psock.sk) } != 0 {
        // SAFETY: Just taken.
        unsafe {
            psock.owned(|locked| locked.work());
            sys::xlb_release_sock(psock.sk);
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

use core::ffi::c_void;
