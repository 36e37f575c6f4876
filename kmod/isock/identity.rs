// SPDX-License-Identifier: GPL-2.0

//! Network identities: what the host's rules see of a client, and what its connections must be like.
//!
//! An [`Id`] stands for a `struct xlb_identity` (what is in it, and how an i-sock takes it on, is in
//! `shim/identity.c`) and the credentials that the client's socket was made with. Equal ones are one
//! object, so they are compared by address: the key of a pool has it, and requests of clients that
//! differ in anything that a rule could ask for never meet on a connection. Cgroup and netns are
//! parts of it, so an object is never shared between tenants.
//!
//! Beside it a client has the credentials of who connected it ([`Cred`]). Rules of security modules ask for
//! those: a domain of Landlock is in nothing else, and two processes with equal identities may differ in it.
//! So each connection is asked for anew when another process's credentials come to a pool (`Inner::permitted` of
//! the pool), before it is opened or used.
//!
//! A client has one from its connect on. An option that is set makes it stale, and the next request
//! that looks for a connection reads it anew; one that has a connection keeps it as it
//! is. The credentials are those of the connect: the socket's file may be gone later.
//!
//! Contexts: identities are made in process context with the socket lock (1); they are let go of
//! anywhere. The lock of a bucket is a leaf (5). The last reference is given up under it only, so whoever
//! finds an object in the table may take one more.

use core::ptr::{self, NonNull};
use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed, Release};

use crate::count;
use crate::lock::BhLock;
use crate::sys;

/// Buckets of the table, a few KiB of static memory.
const BUCKETS: usize = 256;

/// See the top of the file.
struct Identity {
    raw: sys::xlb_identity,
    cred: Cred,
    hash: u64,
    /// How many [`Id`] there are; grows, and ends, under the bucket's lock.
    users: Atomic<u32>,
    /// The next one of the bucket, under its lock.
    next: *mut Identity,
}

/// A reference to credentials.
///
/// # Invariants
///
/// The pointer is a reference that this object owns.
pub(crate) struct Cred(*const sys::cred);

// SAFETY: Credentials do not change, and are counted atomically.
unsafe impl Send for Cred {}
// SAFETY: As above.
unsafe impl Sync for Cred {}

impl Drop for Cred {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; any context.
        unsafe { sys::xlb_cred_put(self.0) }
    }
}

/// The first of a bucket.
struct Head(*mut Identity);

// SAFETY: Followed under the bucket's lock only.
unsafe impl Send for Head {}

static TABLE: [BhLock<Head>; BUCKETS] = [const { BhLock::new(Head(ptr::null_mut())) }; BUCKETS];

/// Prepares the table; once, at load.
pub(crate) fn init() {
    for bucket in &TABLE {
        // SAFETY: Once, before first use; statics do not move.
        unsafe { bucket.init(sys::XLB_LOCK_IDENTITIES) };
    }
}

/// No p-sock and no pool is left, hence no identity; once, when the module goes.
pub(crate) fn exit() {
    for bucket in &TABLE {
        if !bucket.lock().0.is_null() {
            kernel::warn_on!(true);
        }
    }
}

/// A counted reference to an identity.
///
/// # Invariants
///
/// The pointer is to an object of the table that counts this reference.
pub(crate) struct Id(NonNull<Identity>);

// SAFETY: What is shared is never written, but for the count and what the bucket's lock protects.
unsafe impl Send for Id {}
// SAFETY: As above.
unsafe impl Sync for Id {}

impl Id {
    /// That of a client as the options of its socket are now, which was made with `cred`. May sleep.
    ///
    /// # Safety
    ///
    /// The socket lock is held.
    pub(crate) unsafe fn new(sk: *mut sys::sock, cred: Cred) -> Result<Self> {
        let mut raw = sys::xlb_identity::default();
        // SAFETY: By the contract; `cred` is a reference.
        unsafe { sys::xlb_identity_read(sk, cred.0, &mut raw) };
        let hash = hash(&raw);
        let bucket = bucket_of(hash);
        if let Some(found) = find(&bucket.lock(), &raw, &cred, hash) {
            return Ok(found);
        }
        let new = KBox::new(
            Identity {
                raw,
                cred,
                hash,
                users: Atomic::new(1),
                next: ptr::null_mut(),
            },
            // The client chooses how many there are.
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut head = bucket.lock();
        if let Some(found) = find(&head, &new.raw, &new.cred, hash) {
            drop(head);
            return Ok(found);
        }
        let new = KBox::leak(new);
        new.next = head.0;
        head.0 = new;
        count::inc(sys::XLB_COUNTER_IDENTITIES);
        // INVARIANT: Just counted.
        Ok(Self(NonNull::from(new)))
    }

    fn get(&self) -> &Identity {
        // SAFETY: By the type invariant it lives as long as `self`, and is not written.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn raw(&self) -> &sys::xlb_identity {
        &self.get().raw
    }

    /// Whether the client has bound a port.
    pub(crate) fn has_port(&self) -> bool {
        self.raw().source_port != 0
    }

    pub(crate) fn cred(&self) -> *const sys::cred {
        self.get().cred.0
    }

    /// Another reference to [`Id::cred`].
    pub(crate) fn maker(&self) -> Cred {
        self.get().cred.again()
    }

    /// The same number for equal identities, another one for others, as long as one is held.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Clone for Id {
    fn clone(&self) -> Self {
        // The count is not 0, so nobody is about to free it.
        self.get().users.fetch_add(1, Relaxed);
        // INVARIANT: Just counted.
        Self(self.0)
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        let this = self.get();
        let mut users = this.users.load(Relaxed);
        while users > 1 {
            match this.users.cmpxchg(users, users - 1, Release) {
                Ok(_) => return,
                Err(now) => users = now,
            }
        }
        let mut head = bucket_of(this.hash).lock();
        if this.users.fetch_sub(1, kernel::sync::atomic::Full) != 1 {
            return;
        }
        let mut at: *mut *mut Identity = &raw mut head.0;
        // SAFETY: The list is ours under the lock, and this object is in it.
        unsafe {
            while *at != self.0.as_ptr() {
                at = &raw mut (**at).next;
            }
            *at = (*self.0.as_ptr()).next;
        }
        drop(head);
        count::dec(sys::XLB_COUNTER_IDENTITIES);
        // SAFETY: Leaked by `new`; out of the list and without references.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

fn bucket_of(hash: u64) -> &'static BhLock<Head> {
    #[expect(clippy::indexing_slicing, reason = "the remainder is in range")]
    &TABLE[hash as usize % BUCKETS]
}

/// Takes a reference to the one that is equal.
fn find(head: &Head, raw: &sys::xlb_identity, cred: &Cred, hash: u64) -> Option<Id> {
    let mut at = head.0;
    // SAFETY: The bucket's lock is held: what is in the list lives, and has users.
    while let Some(identity) = unsafe { at.as_ref() } {
        if identity.hash == hash
            && bytes(&identity.raw) == bytes(raw)
            // SAFETY: Both are references.
            && unsafe { sys::xlb_cred_same_groups(identity.cred.0, cred.0) } != 0
        {
            identity.users.fetch_add(1, Relaxed);
            // INVARIANT: Just counted.
            return Some(Id(NonNull::from(identity)));
        }
        at = identity.next;
    }
    None
}

fn bytes(raw: &sys::xlb_identity) -> &[u8] {
    let len = size_of::<sys::xlb_identity>();
    // SAFETY: A C structure without padding.
    unsafe { core::slice::from_raw_parts(ptr::from_ref(raw).cast(), len) }
}

fn hash(raw: &sys::xlb_identity) -> u64 {
    let h = xlb_engine::hash::Fnv1a::new().update(bytes(raw)).finish();
    h ^ (h >> 32)
}

impl Cred {
    /// Of who made the socket.
    ///
    /// # Safety
    ///
    /// The socket lock is held.
    pub(crate) unsafe fn of_socket(sk: *mut sys::sock) -> Self {
        // SAFETY: By the contract. INVARIANT: It is a reference.
        Self(unsafe { sys::xlb_sk_cred(sk) })
    }

    /// Of the current task.
    pub(crate) fn current() -> Self {
        // SAFETY: In any context. INVARIANT: It is a reference.
        Self(unsafe { sys::xlb_current_cred() })
    }

    /// The pointer, good as long as `self`.
    pub(crate) fn get(&self) -> *const sys::cred {
        self.0
    }

    pub(crate) fn again(&self) -> Self {
        // SAFETY: By the type invariant.
        Self(unsafe { sys::xlb_cred_get(self.0) })
    }
}
