// SPDX-License-Identifier: GPL-2.0

//! The client's socket, as a session sees it: what poll(2) and callbacks may know without its lock, and how it is woken.
//!
//! | part | protected by |
//! |---|---|
//! | `poll`, `local`, `rx`, and what `get sockets` shows | atomics: poll(2) and i-sock callbacks take no lock |
//! | `options`, `lent` | the socket lock |
//! | `exchange` | see `exchange/mod.rs` |
//!
//! The `struct sock` is live as long as a [`Client`] is known to anybody but readers in RCU; to them its memory stays
//! that of a socket until the section ends (`SOCK_RCU_FREE`). The [`Client`] itself is freed a grace period later.

use core::cell::UnsafeCell;
use core::mem::{offset_of, MaybeUninit};
use core::ptr;
use kernel::bindings;
use kernel::sync::atomic::Atomic;

use crate::count;
use crate::exchange;
use crate::isock::{Event, Wake, Waker};
use crate::once::Once as _;
use crate::sys;

use super::{Active, RCV_SHUTDOWN};

/// What poll(2) and callbacks must know, as bits of [`Client::poll`], which holders of the socket lock write.
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
pub(crate) struct Client {
    /// With the waker of the connections that the client has or waits for.
    pub(crate) exchange: exchange::Shared,
    pub(crate) sk: *mut sys::sock,
    work: UnsafeCell<MaybeUninit<bindings::delayed_work>>,
    poll: Atomic<u32>,
    /// Bytes for the client that do not come from an i-sock.
    local: Atomic<u32>,
    /// Unload with force: end after the running exchange.
    ending: Atomic<bool>,
    /// What was set with `setsockopt`, and what the bound i-sock had before; see `options.rs`.
    pub(super) options: UnsafeCell<u8>,
    pub(super) lent: UnsafeCell<sys::xlb_lent>,
    service: Atomic<u32>,
    /// The `struct sock` of the bound i-sock.
    rx: Atomic<*mut sys::sock>,
    requests: Atomic<u64>,
}

static WAKE: Wake = Wake {
    event: Client::did_happen,
    ask: Client::asked,
    kick: Client::kicked,
    expect: Client::expects,
};

impl Client {
    /// Where the work lies in it.
    pub(crate) const WORK: usize = offset_of!(Client, work);

    /// Of the socket `sk`, connected to nothing yet.
    ///
    /// # Safety
    ///
    /// It does not move once it is used, and [`Client::init`] is called before.
    pub(crate) unsafe fn new(sk: *mut sys::sock, service: u32) -> Self {
        Self {
            // SAFETY: WAKE is for the waker in `exchange` of a Client.
            exchange: exchange::Shared::new(unsafe { Waker::new(&WAKE) }),
            sk,
            work: UnsafeCell::new(MaybeUninit::zeroed()),
            poll: Atomic::new(0),
            local: Atomic::new(0),
            ending: Atomic::new(false),
            options: UnsafeCell::new(0),
            lent: UnsafeCell::new(sys::xlb_lent::default()),
            service: Atomic::new(service),
            rx: Atomic::new(ptr::null_mut()),
            requests: Atomic::new(count::from()),
        }
    }

    /// # Safety
    ///
    /// Once, at its final address, before anybody else knows it.
    pub(crate) unsafe fn init(&self) {
        // SAFETY: By the contract.
        unsafe { sys::xlb_work_init(self.work.get().cast()) };
    }

    /// The client that a waker is part of.
    ///
    /// # Safety
    ///
    /// It is that of a [`Client`].
    unsafe fn of(waker: &Waker) -> &Self {
        const AT: usize = offset_of!(Client, exchange) + exchange::Shared::WAKER;
        // SAFETY: By the contract.
        unsafe { &*ptr::from_ref(waker).byte_sub(AT).cast() }
    }

    /// Something happened to the connection.
    ///
    /// # Safety
    ///
    /// As of [`Client::of`], in an RCU section that began before the waker was found.
    unsafe fn did_happen(waker: &Waker, event: Event, wanted: bool) {
        // SAFETY: By the contract.
        let this = unsafe { Self::of(waker) };
        if event != Event::Space {
            this.wake_reader();
        }
        if event != Event::Data {
            this.wake_writer();
        }
        if wanted || this.poll.read_acquire() & bits::KICK != 0 {
            this.kick(0);
        }
    }

    /// Others wait for the connection; false when the client has nothing to read now.
    ///
    /// # Safety
    ///
    /// As of [`Client::did_happen`].
    unsafe fn asked(waker: &Waker) -> bool {
        // SAFETY: By the contract.
        let this = unsafe { Self::of(waker) };
        let readable = this.is_readable(this.poll.read_acquire());
        if readable {
            this.kick(0);
        }
        readable
    }

    /// # Safety
    ///
    /// As of [`Client::of`].
    unsafe fn kicked(waker: &Waker, delay_ms: u64) {
        // SAFETY: By the contract.
        unsafe { Self::of(waker) }.kick(delay_ms);
    }

    /// # Safety
    ///
    /// As of [`Client::of`]; the socket lock is held.
    unsafe fn expects(waker: &Waker) {
        // SAFETY: By the contract.
        unsafe { Self::of(waker) }.want_kick();
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
    pub(crate) fn is_ours(&self) -> bool {
        self.poll.read_acquire() & bits::OURS != 0
    }

    /// Says, before anything is sent over it, that responses come from the i-sock `sk`: a thread
    /// that polls when the first byte comes must find it.
    pub(crate) fn will_relay(&self, sk: *mut sys::sock) {
        self.set_rx(sk);
        self.poll.write_release(self.poll.read() | bits::RELAY);
    }

    /// Wants i-sock events to kick the work, from before the next event.
    pub(super) fn want_kick(&self) {
        self.poll.write_release(self.poll.read() | bits::KICK);
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
    pub(crate) fn bound(&self) -> *mut sys::sock {
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

    /// No exchange runs and none will, as told when the socket lock was let go of last.
    pub(crate) fn is_closing(&self) -> bool {
        self.poll.read_acquire() >> bits::STATE_SHIFT == sys::XLB_SOCKET_CLOSING
    }

    /// The work runs no more. The socket lock may be held: the work never sleeps for it.
    pub(crate) fn stop_work(&self) {
        // SAFETY: Initialised in `init`.
        unsafe { sys::xlb_work_disable_sync(self.work.get().cast()) };
    }

    /// The client connects to a VIP of this service.
    pub(crate) fn set_service(&self, service: u32) {
        self.service.write(service);
    }

    /// From now on what is done with the socket is for XLB.
    pub(crate) fn did_connect(&self) {
        self.poll.write_release(self.poll.read() | bits::OURS);
    }

    /// The socket is to be passed through to TCP, from now on.
    pub(crate) fn did_disconnect(&self) {
        self.poll.write_release(self.poll.read() & !bits::OURS);
    }

    /// Whether the socket must end after the running exchange. Any context.
    pub(crate) fn set_ending(&self, ending: bool) {
        self.ending.write(ending);
    }

    /// What `get sockets` shows of it. In RCU.
    pub(crate) fn describe(&self, info: &mut sys::xlb_socket_info) {
        let (mut receive, mut send) = (0, 0);
        let rx = self.rx.read_acquire();
        if !rx.is_null() {
            // SAFETY: In RCU; see `is_writable` for what `rx` points at.
            unsafe {
                sys::xlb_sk_peer(rx, info.endpoint.as_mut_ptr(), &mut info.endpoint_port);
                receive = sys::xlb_isk_inq(rx);
                send = sys::xlb_isk_outq(rx);
            }
        }
        info.receive_bytes = u32::try_from(receive).unwrap_or(0);
        info.send_bytes = u32::try_from(send).unwrap_or(0);
        info.state = match self.poll.read_acquire() {
            poll if poll & bits::OURS == 0 => sys::XLB_SOCKET_PLAIN,
            poll => poll >> bits::STATE_SHIFT,
        };
        // SAFETY: In RCU the memory is that of some TCP socket, and a cookie is an atomic.
        info.id = unsafe { sys::xlb_sk_cookie(self.sk) };
        info.requests = self.requests.read();
        info.service = self.service();
        info.endpoint_id = self.exchange.endpoint();
    }

    /// [`Client::is_readable_to`] as poll(2) asks; -1 for a socket that is passed through. In RCU.
    pub(crate) fn poll_in(&self, target: u32) -> i32 {
        match self.poll.read_acquire() {
            poll if poll & bits::OURS == 0 => -1,
            poll => i32::from(self.is_readable_to(poll, target)),
        }
    }

    /// As [`Client::poll_in`], for writes.
    pub(crate) fn poll_out(&self) -> i32 {
        match self.poll.read_acquire() {
            poll if poll & bits::OURS == 0 => -1,
            poll => i32::from(self.is_writable(poll)),
        }
    }
}

impl Active<'_> {
    /// Publishes what lock-free readers need, then wakes those to whom it matters (a thread that
    /// polled a moment before saw the old state), and counts memory that has changed.
    pub(crate) fn tell(&mut self, read_short: bool) {
        let client = self.client;
        let inner = &mut **self;
        let (poll, state) = inner.public();
        let before = client.poll.read();
        if (poll | before) & bits::READY != 0 {
            let local = u32::try_from(inner.local.len()).unwrap_or(u32::MAX);
            client.local.write(local);
        }
        let poll = poll | before & bits::OURS | state << bits::STATE_SHIFT;
        client.poll.write_release(poll);
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
        if poll & !before & bits::READY != 0 || (read_short && self.has_news()) {
            client.wake_reader();
        }
        if streams || before & !poll & (bits::FULL | bits::STREAM) != 0 {
            client.wake_writer();
        }
    }

    /// Whether there is something to read now: bytes, an end or an error.
    fn has_news(&self) -> bool {
        // SAFETY: The socket is live.
        let ended = unsafe { sys::xlb_sk_shutdown(self.client.sk) } & RCV_SHUTDOWN != 0;
        ended || self.client.is_readable(self.client.poll.read()) || self.has_error()
    }

    /// Whether the socket has an error for the next call.
    pub(crate) fn has_error(&self) -> bool {
        // SAFETY: The socket is live.
        unsafe { sys::xlb_sk_has_error(self.client.sk) != 0 }
    }

    /// Whether the socket is still connected to a VIP: another thread may have dissolved that
    /// while this one waited for the lock.
    pub(crate) fn is_ours(&self) -> bool {
        self.client.is_ours()
    }

    /// The pending error of the socket, cleared; 0 for none, else `-errno`.
    pub(crate) fn take_error(&mut self) -> i32 {
        // SAFETY: The lock is held.
        unsafe { sys::xlb_sk_take_error(self.client.sk) }
    }
}
