// SPDX-License-Identifier: GPL-2.0

//! i-socks: the module's own connections to endpoints.
//!
//! An i-sock has exactly one owner at a time: its home, a pool, while it is idle or being opened ahead, or
//! one exchange from the moment the request is bound to it until the response has ended. Ownership
//! is the [`Isock`]; dropping it closes the connection, which needs process context.
//!
//! TCP's callbacks find its [`Shared`] part through `sk_user_data` and run with the i-sock's own lock
//! held (`bh_lock_sock` in softirq, or the backlog of its owner). They do two things only: wake
//! whoever owns it, or tell the pool that an idle connection is no longer good. No byte is
//! framed in softirq: the client reads the i-sock's queue in its own system call.
//!
//! What callbacks see is [`Shared`]; the rest, [`Owned`], is the owner's alone. Both lie in one
//! allocation, and no reference to one reaches the other.
//!
//! `waker` is read by callbacks without any lock of the owner's. It is valid there because its owner clears it before it
//! goes, and its memory stays for a grace period: see `waker.rs`.

use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;

use crate::count;
use crate::once::Once as _;
use crate::sys;

pub(crate) mod identity;
mod waker;

pub(crate) use identity::{Cred, Id};
pub(crate) use waker::{Event, Wake, Waker};

/// One TCP connection to an endpoint: the right of its owner.
///
/// # Invariants
///
/// `node` is a live allocation, made by [`Isock::open`] and freed by drop alone; its `owned` is
/// reached through this object only. `owned.sock` is a kernel TCP socket that this object owns; its
/// `sk_user_data` is `node`'s `shared` from [`Isock::open`] until drop.
pub(crate) struct Isock<H: Home> {
    node: NonNull<Node<H>>,
}

struct Node<H: Home> {
    shared: Shared<H>,
    owned: Owned<H>,
}

/// Where i-socks are kept, and what they are like: a pool.
pub(crate) trait Home: Sized {
    /// What an i-sock has for the lists of its home.
    type Place;

    /// For one that is made now.
    fn place(&self) -> Self::Place;

    /// What all of them are like to the network and the host.
    fn identity(&self) -> &Id;

    /// The endpoint that they lead to; IPv4 as `::ffff:a.b.c.d`.
    fn endpoint(&self) -> (&[u8; 16], u16);

    /// `isock`, which was just made, belongs to who opens it.
    fn hold(&self, isock: &mut Isock<Self>);

    /// `isock` is about to be closed.
    fn let_go(&self, isock: &mut Isock<Self>);

    /// Something happened to a connection that nobody has. Softirq, the i-sock's lock held.
    fn idle_event(&self, isock: &Shared<Self>);

    /// A connection, or the right to open one, is gone.
    fn forget_one(&self);

    /// Whether requests wait for a connection.
    fn is_wanted(&self) -> bool;
}

/// What callbacks, and those who hold the lock of its place, may see of an i-sock.
pub(crate) struct Shared<H: Home> {
    sk: *mut sys::sock,
    /// Whom its events are for; null while it is the pool's.
    waker: Atomic<*mut Waker>,
    pub(crate) home: Arc<H>,
    pub(crate) place: H::Place,
}

/// What only the owner touches.
pub(crate) struct Owned<H: Home> {
    sock: *mut sys::socket,
    /// Requests that were sent over it.
    pub(crate) requests: u64,
    /// That of its home when it was opened: one of an earlier generation is closed when it comes back.
    pub(crate) generation: u64,
    /// When it became idle, or when its connect began, in milliseconds of uptime.
    pub(crate) since_ms: u64,
    /// How long it may be idle, because the endpoint said so; `u32::MAX` when it did not.
    pub(crate) life_ms: u32,
    /// The first response did not say how long.
    pub(crate) silent: bool,
    /// It is in a list of holders of the pool.
    pub(crate) held: bool,
    /// Reset the connection instead of ending it in order.
    abort: bool,
    /// The next one of a [`Chain`].
    next: Option<Isock<H>>,
}

// SAFETY: The raw pointers are owned; what callbacks share is atomic or under the socket's lock.
unsafe impl<H: Home> Send for Isock<H> {}
// SAFETY: As above; without `&mut` there is nothing to write but the atomics.
unsafe impl<H: Home> Sync for Isock<H> {}

impl<H: Home> Deref for Isock<H> {
    type Target = Shared<H>;

    fn deref(&self) -> &Shared<H> {
        // SAFETY: By the type invariant; `shared` is never borrowed mutably.
        unsafe { &(*self.node.as_ptr()).shared }
    }
}

impl<H: Home> Shared<H> {
    /// Wakes `waker` from now on.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.waker.write_release(ptr::from_ref(waker).cast_mut());
    }

    /// Wakes nobody from now on.
    pub(crate) fn forget_waker(&self) {
        self.waker.write_release(ptr::null_mut());
    }

    /// # Safety
    ///
    /// In RCU, and it is used in that section only.
    unsafe fn waker(&self) -> Option<&Waker> {
        // SAFETY: By the contract; see the top of the file.
        unsafe { self.waker.read_acquire().as_ref() }
    }

    /// Whether the handshake is over and the connection has not ended.
    pub(crate) fn is_connected(&self) -> bool {
        // SAFETY: `sk` is valid as long as `self`; the state is read atomically.
        unsafe { sys::xlb_sk_state(self.sk) == kernel::bindings::BPF_TCP_ESTABLISHED as i32 }
    }

    /// Whether the connection cannot be used any more: reset, refused, or ended by the endpoint.
    pub(crate) fn is_dead(&self) -> bool {
        // SAFETY: As above.
        unsafe { sys::xlb_isk_fin(self.sk) != 0 }
    }

    /// Whether a request may be sent over it: established, and nothing was received that nobody
    /// asked for.
    pub(crate) fn is_clean(&self) -> bool {
        // SAFETY: As above.
        unsafe { sys::xlb_isk_idle_ok(self.sk) != 0 }
    }

    /// Bytes received and not read.
    pub(crate) fn inq(&self) -> usize {
        // SAFETY: As above.
        usize::try_from(unsafe { sys::xlb_isk_inq(self.sk) }).unwrap_or(0)
    }

    /// Bytes sent and not acknowledged.
    pub(crate) fn outq(&self) -> usize {
        // SAFETY: As above.
        usize::try_from(unsafe { sys::xlb_isk_outq(self.sk) }).unwrap_or(0)
    }

    /// Asks whoever owns it to look whether it can be let go of; false when that cannot be.
    ///
    /// # Safety
    ///
    /// The lock of its place is held, which is an RCU section, and this i-sock is in the list of holders.
    pub(crate) unsafe fn ask(&self) -> bool {
        // SAFETY: By the contract.
        unsafe { self.waker() }.is_some_and(Waker::ask)
    }
}

impl<H: Home> Isock<H> {
    /// Creates a socket with the pool's identity, in the cgroups of the p-sock `payer`, and begins to
    /// connect it, as `caller`, to the pool's endpoint; `waker` is told how that ended, or else the pool. The handshake may be over already when this
    /// returns (loopback): see [`Isock::is_connected`]. May sleep.
    ///
    /// Errors are those of `socket(2)`, `bind(2)` and `connect(2)`, but for `EINPROGRESS`; `EPERM` and
    /// `EACCES` are a rule's of the host.
    pub(crate) fn open(
        home: Arc<H>,
        generation: u64,
        waker: Option<&Waker>,
        payer: *mut sys::sock,
        caller: &Cred,
    ) -> Result<Self> {
        let mut sock = ptr::null_mut();
        let id = home.identity();
        let (addr, port) = home.endpoint();
        // SAFETY: The caller holds the netns and `payer`: it acts for this p-sock.
        let err =
            unsafe { sys::xlb_isk_create(id.raw(), id.cred(), family(addr), payer, &mut sock) };
        if err != 0 {
            home.forget_one();
            return Err(Error::from_errno(err));
        }
        // SAFETY: `sock` was just created, its `sk` does not change.
        let sk = unsafe { sys::xlb_socket_sk(sock) };
        let node = KBox::new(
            Node {
                shared: Shared {
                    sk,
                    waker: Atomic::new(
                        waker.map_or(ptr::null_mut(), |w| ptr::from_ref(w).cast_mut()),
                    ),
                    home: home.clone(),
                    place: home.place(),
                },
                owned: Owned {
                    sock,
                    requests: count::from(),
                    generation,
                    since_ms: now_ms(),
                    life_ms: u32::MAX,
                    silent: false,
                    held: false,
                    abort: false,
                    next: None,
                },
            },
            GFP_KERNEL,
        );
        let node = match node {
            Ok(node) => NonNull::from(KBox::leak(node)),
            Err(e) => {
                // SAFETY: `sock` is ours and no callback knows it.
                unsafe { sys::xlb_isk_release(sock, 1) };
                home.forget_one();
                return Err(e.into());
            }
        };
        // INVARIANT: Just made; `xlb_isk_start()` tells callbacks of it.
        let mut this = Self { node };
        count::inc(sys::XLB_COUNTER_ISOCKS);
        count::add(sys::XLB_COUNTER_ISOCK_BYTES, size_of::<Node<H>>() as i64);
        count::inc(sys::XLB_COUNTER_CONNECTS);
        if waker.is_some() {
            home.hold(&mut this);
        }
        // SAFETY: The address given to callbacks stays until drop.
        unsafe { sys::xlb_isk_start(sock, (&raw mut (*node.as_ptr()).shared).cast()) };
        // SAFETY: `sock` is ours; `addr` is 16 bytes.
        let err =
            unsafe { sys::xlb_isk_connect(sock, id.raw(), caller.get(), addr.as_ptr(), port) };
        if err != 0 && err != -(kernel::bindings::EINPROGRESS as i32) {
            count::inc(sys::XLB_COUNTER_CONNECT_ERRORS);
            return Err(Error::from_errno(err));
        }
        Ok(this)
    }

    /// Whether `caller` may have a connection like this one; an error is a rule's of the host.
    pub(crate) fn may_use(&self, caller: &Cred) -> Result {
        let (addr, port) = self.home.endpoint();
        // SAFETY: The socket is ours; `addr` is 16 bytes.
        kernel::error::to_result(unsafe {
            let sock = self.owned().sock;
            sys::xlb_isk_may_use(sock, caller.get(), addr.as_ptr(), port)
        })
    }

    /// The `struct sock`, valid as long as `self`.
    pub(crate) fn sk(&self) -> *mut sys::sock {
        self.sk
    }

    /// Gives up the object, not the right: that is its holder's who keeps the address.
    pub(crate) fn into_shared(self) -> *const Shared<H> {
        let node = ManuallyDrop::new(self).node.as_ptr();
        // SAFETY: By the type invariant.
        unsafe { &raw const (*node).shared }
    }

    /// Undoes [`Isock::into_shared`].
    ///
    /// # Safety
    ///
    /// `shared` came from there, and whoever calls has the right now.
    pub(crate) unsafe fn from_shared(shared: *const Shared<H>) -> Self {
        // SAFETY: By the contract it is that part of a live node.
        let node = unsafe { kernel::container_of!(shared.cast_mut(), Node<H>, shared) };
        // SAFETY: As above, so it is not null.
        let node = unsafe { NonNull::new_unchecked(node) };
        // INVARIANT: By the contract.
        Self { node }
    }

    /// What is the owner's.
    pub(crate) fn owned(&self) -> &Owned<H> {
        // SAFETY: By the type invariant it is reached through `self` only.
        unsafe { &(*self.node.as_ptr()).owned }
    }

    /// As [`Isock::owned`], to change it.
    pub(crate) fn owned_mut(&mut self) -> &mut Owned<H> {
        // SAFETY: As above, and `&mut self` makes this the only reference.
        unsafe { &mut (*self.node.as_ptr()).owned }
    }

    /// Resets the connection at its end, instead of ending it in order.
    pub(crate) fn reset_at_end(&mut self) {
        self.owned_mut().abort = true;
    }

    /// The endpoint says in a response that it closes the connection when it was idle for so long,
    /// or says nothing. A request must not meet that end: the last second is not used.
    pub(crate) fn endpoint_keeps(&mut self, seconds: Option<u32>) {
        let owned = self.owned_mut();
        match seconds {
            Some(seconds) => owned.life_ms = seconds.saturating_sub(1).saturating_mul(1000),
            None => owned.silent |= owned.life_ms == u32::MAX,
        }
    }

    /// Whether it was idle for as long as the endpoint allows.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        let owned = self.owned();
        owned.life_ms != u32::MAX && now.saturating_sub(owned.since_ms) >= u64::from(owned.life_ms)
    }

    /// Whether a dead connection was ended by a FIN.
    pub(crate) fn end_in_order(&self) -> bool {
        // SAFETY: `sk` is valid as long as `self`.
        unsafe { sys::xlb_isk_reset(self.sk) == 0 }
    }

    /// Takes the lock of the i-sock. Lock order 2.
    pub(crate) fn lock(&self) -> IsockGuard<'_, H> {
        // SAFETY: `sk` is valid as long as `self`; process context.
        unsafe { sys::xlb_lock_sock(self.sk) };
        IsockGuard { isock: self }
    }

    /// Receives into `buf`, at most `len` bytes, without waiting; `MSG_TRUNC` drops them instead
    /// (`buf` may be null then). Returns the number of bytes, 0 at the end, or `-errno`.
    ///
    /// # Safety
    ///
    /// `buf` is valid for writes of `len` bytes unless `flags` has `MSG_TRUNC`.
    pub(crate) unsafe fn recv_buf(&self, buf: *mut u8, len: usize, flags: i32) -> i32 {
        // SAFETY: By the function's contract; takes the i-sock's lock itself.
        unsafe { sys::xlb_isk_recv_buf(self.sk, buf.cast(), len, flags) }
    }

    /// Drops the next `len` bytes, which have come in; false when the connection does not give them.
    pub(crate) fn drop_bytes(&self, len: usize) -> bool {
        let mut left = len;
        while left > 0 {
            // SAFETY: MSG_TRUNC: nothing is written.
            let n = unsafe { self.recv_buf(ptr::null_mut(), left, MSG_TRUNC) };
            match usize::try_from(n) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return false,
            }
        }
        true
    }

    /// Receives into the user's message, as [`Isock::recv_buf`].
    pub(crate) fn recv_msg(&self, msg: *mut sys::msghdr, len: usize, flags: i32) -> i32 {
        // SAFETY: `msg` is the message of the current system call.
        unsafe { sys::xlb_isk_recv_msg(self.sk, msg, len, flags) }
    }

    /// Receives without taking, from `at` bytes behind the front of the queue.
    pub(crate) fn peek_msg(&self, msg: *mut sys::msghdr, len: usize, flags: i32, at: u32) -> i32 {
        // SAFETY: `msg` is the message of the current system call; only the owner reads.
        unsafe { sys::xlb_isk_peek_msg(self.sk, msg, len, flags, at) }
    }

    /// Ends our side of the connection.
    pub(crate) fn shut_write(&self) {
        // SAFETY: `sock` is ours; process context.
        unsafe { sys::xlb_isk_shut_write(self.owned().sock) }
    }
}

impl<H: Home> Drop for Isock<H> {
    fn drop(&mut self) {
        self.forget_waker();
        let home = self.home.clone();
        home.let_go(self);
        let owned = self.owned();
        // SAFETY: `sock` is ours. After `stop` no callback runs or will run on this object; then
        // the socket goes, with a FIN, or a RST when `abort` is set or bytes are unread.
        unsafe {
            sys::xlb_isk_stop(owned.sock);
            sys::xlb_isk_release(owned.sock, i32::from(owned.abort));
        }
        count::dec(sys::XLB_COUNTER_ISOCKS);
        count::add(sys::XLB_COUNTER_ISOCK_BYTES, -(size_of::<Node<H>>() as i64));
        home.forget_one();
        // SAFETY: Leaked by `open`, and no list and no callback knows it any more.
        drop(unsafe { KBox::from_raw(self.node.as_ptr()) });
    }
}

/// i-socks that must be closed, linked through themselves: joining takes no memory. Dropping it
/// closes them, in process context.
pub(crate) struct Chain<H: Home>(Option<Isock<H>>);

impl<H: Home> Chain<H> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn push(&mut self, mut isock: Isock<H>) {
        isock.owned_mut().next = self.0.take();
        self.0 = Some(isock);
    }

    pub(crate) fn pop(&mut self) -> Option<Isock<H>> {
        let mut isock = self.0.take()?;
        self.0 = isock.owned_mut().next.take();
        Some(isock)
    }
}

impl<H: Home> Drop for Chain<H> {
    fn drop(&mut self) {
        // One by one: a chain that dropped itself would need a stack as long as it is.
        while let Some(isock) = self.pop() {
            drop(isock);
        }
    }
}

/// Holds an i-sock's lock.
pub(crate) struct IsockGuard<'a, H: Home> {
    isock: &'a Isock<H>,
}

impl<H: Home> IsockGuard<'_, H> {
    /// Queues `bytes`; `more` says that other bytes follow at once. Returns how many were taken,
    /// or `-errno`; never waits.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> i32 {
        let flags = if more { MSG_MORE } else { 0 };
        // SAFETY: The lock is held; `bytes` is valid for the call, which copies it.
        unsafe { sys::xlb_isk_send_buf(self.isock.sk, bytes.as_ptr().cast(), bytes.len(), flags) }
    }

    /// Queues at most `len` bytes of the user's message, as [`IsockGuard::send`].
    pub(crate) fn send_msg(&self, msg: *mut sys::msghdr, len: usize, more: bool) -> i32 {
        // SAFETY: The lock is held; `msg` is the message of the current system call.
        unsafe { sys::xlb_isk_send_msg(self.isock.sk, msg, len, i32::from(more)) }
    }

    /// The contiguous bytes that begin `off` bytes into what was received and not read.
    pub(crate) fn peek(&mut self, off: u32) -> &[u8] {
        let mut data = ptr::null();
        // SAFETY: The lock is held.
        let len = unsafe { sys::xlb_isk_peek(self.isock.sk, off, &mut data) };
        if len == 0 || data.is_null() {
            return &[];
        }
        // SAFETY: `data` points into an skb of the receive queue, which stays as it is until the
        // lock is released or the next call, and the slice borrows this guard mutably.
        unsafe { core::slice::from_raw_parts(data, len) }
    }
}

impl<H: Home> Drop for IsockGuard<'_, H> {
    fn drop(&mut self) {
        // SAFETY: This guard holds the lock.
        unsafe { sys::xlb_release_sock(self.isock.sk) }
    }
}

/// `AF_INET` for IPv4-mapped addresses, else `AF_INET6`.
fn family(addr: &[u8; 16]) -> i32 {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    if addr.starts_with(&MAPPED) {
        kernel::bindings::AF_INET as i32
    } else {
        kernel::bindings::AF_INET6 as i32
    }
}

/// `MSG_TRUNC` of `include/linux/socket.h`.
const MSG_TRUNC: i32 = 0x20;
/// `MSG_MORE` of `include/linux/socket.h`.
const MSG_MORE: i32 = 0x8000;

/// Uptime in milliseconds.
pub(crate) fn now_ms() -> u64 {
    // SAFETY: Reads jiffies.
    unsafe { sys::xlb_now_ms() }
}

/// TCP's callbacks of an i-sock come here, from `xlb_isock_event()` of its home.
pub(crate) fn event<H: Home>(isock: &Shared<H>, event: sys::xlb_isock_event) {
    let event = Event::of(event);
    // SAFETY: Callbacks are in an RCU section.
    match unsafe { isock.waker() } {
        Some(waker) => waker.event(event, isock.home.is_wanted()),
        // Idle, opened ahead, or changing hands; the home knows.
        None if event != Event::Space => isock.home.idle_event(isock),
        None => {}
    }
}
