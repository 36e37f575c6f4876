// SPDX-License-Identifier: GPL-2.0

//! Who makes requests: what its connections must be like, and the pools that it used.

use kernel::prelude::*;

use crate::isock::{Cred, Id};
use crate::pool::{table, Found, Key, Recent};
use crate::sys;

/// A client, from one connect to the next; its socket lock is held in all of it.
pub(crate) struct Party {
    /// The client's socket, whose cgroups pay.
    pub(super) sk: *mut sys::sock,
    /// What connections of this client must be like, and who connected; none before the first connect.
    identity: Option<Id>,
    pub(super) caller: Option<Cred>,
    /// An option was set since `identity` was read.
    stale: bool,
    /// The pools of the last requests: most likely those of the next ones.
    pub(super) pools: Recent,
    /// No request waits longer than this, in milliseconds of uptime; 0: there is no such end.
    pub(crate) until_ms: u64,
}

impl Party {
    /// Of the socket `sk`, which is not connected yet.
    pub(crate) const fn new(sk: *mut sys::sock) -> Self {
        Self {
            sk,
            identity: None,
            caller: None,
            stale: false,
            pools: Recent::new(),
            until_ms: 0,
        }
    }

    /// Takes the identity of a socket that is connected to a VIP now, by its owner.
    pub(crate) fn identify(&mut self) -> Result {
        // SAFETY: The socket lock is held.
        let cred = unsafe { Cred::of_socket(self.sk) };
        // SAFETY: As above.
        self.identity = Some(unsafe { Id::new(self.sk, cred) }?);
        self.caller = Some(Cred::current());
        self.stale = false;
        Ok(())
    }

    /// An option of the socket was set, which its next connections may have to have.
    pub(crate) fn has_changed(&mut self) {
        self.stale = true;
    }

    /// Reads the identity that the next connection must have, if it is another one now.
    pub(super) fn refresh(&mut self) -> Result {
        let identity = self.identity.as_ref().ok_or(EINVAL)?;
        if self.stale {
            let cred = identity.maker();
            // SAFETY: The socket lock is held.
            self.identity = Some(unsafe { Id::new(self.sk, cred) }?);
            self.stale = false;
        }
        Ok(())
    }

    /// The pool of this client's identity, and of the endpoint that was decided on; and who asks. `None` for want of memory.
    pub(super) fn find_pool(&mut self, decision: &sys::xlb_decision) -> Option<(Found, &Cred)> {
        let identity = self.identity.as_ref()?;
        let caller = self.caller.as_ref()?;
        let key = Key::new(identity, decision);
        let found = self.pools.take(&key, identity).ok()?;
        Some((found, caller))
    }

    /// Lets go of idle connections from a port that the client has bound: while they are kept nobody could bind it, or
    /// connect from it to their endpoints.
    pub(crate) fn free_port(&self) {
        if let Some(identity) = self.identity.as_ref().filter(|id| id.has_port()) {
            table::reset_idle(identity);
        }
    }

    /// Forgets all, for a socket that is closed, or connected anew.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.sk);
    }
}
