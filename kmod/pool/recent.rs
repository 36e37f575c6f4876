// SPDX-License-Identifier: GPL-2.0

//! The pools that a client used lately, so that a request to one of their endpoints looks nothing up and writes to
//! no counter of references, which other CPUs would write to as well.
//!
//! The last one comes first, and is the only one while a client has one endpoint: then no memory is needed.
//! Everything here is its owner's alone.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::{table, Key, Pool};
use crate::isock::Id;

/// How many are remembered beside the last one. With it, those of eight endpoints.
const OTHERS: usize = 7;

/// See the top of the file.
pub(crate) struct Recent {
    last: Option<Arc<Pool>>,
    others: Option<KBox<Others>>,
}

/// What [`Recent::take`] gives.
pub(crate) struct Found {
    pub(crate) pool: Arc<Pool>,
    /// The client had a connection of it: the rules of the host let it.
    pub(crate) known: bool,
}

impl Found {
    fn known(pool: Arc<Pool>) -> Self {
        Self { pool, known: true }
    }

    fn new(pool: Arc<Pool>) -> Self {
        Self { pool, known: false }
    }
}

struct Others {
    pools: [Option<Arc<Pool>>; OTHERS],
    /// Whose place the next new one takes.
    next: usize,
}

impl Recent {
    pub(crate) const fn new() -> Self {
        Self {
            last: None,
            others: None,
        }
    }

    /// That of the last request.
    pub(crate) fn last(&self) -> Option<&Arc<Pool>> {
        self.last.as_ref()
    }

    /// Takes the pool of `key`, which names `identity`, out, or looks it up. May sleep.
    pub(crate) fn take(&mut self, key: &Key, identity: &Id) -> Result<Found> {
        match self.last.take() {
            Some(pool) if pool.key == *key => Ok(Found::known(pool)),
            last => self.take_other(last, key, identity),
        }
    }

    #[inline(never)]
    fn take_other(&mut self, last: Option<Arc<Pool>>, key: &Key, identity: &Id) -> Result<Found> {
        let Some(last) = last else {
            return table::get(key, identity).map(Found::new);
        };
        if self.others.is_none() {
            let none = Others {
                pools: [const { None }; OTHERS],
                next: 0,
            };
            // Without memory they are looked up.
            self.others = KBox::new(none, GFP_KERNEL_ACCOUNT).ok();
        }
        let Some(others) = &mut self.others else {
            return table::get(key, identity).map(Found::new);
        };
        let is = |p: &Option<Arc<Pool>>| p.as_ref().is_some_and(|p| p.key == *key);
        let known = others.pools.iter_mut().find(|p| is(p));
        let place = match known {
            Some(place) => place,
            None => {
                let next = others.next;
                others.next = (next + 1) % OTHERS;
                others.pools.get_mut(next).ok_or(EINVAL)?
            }
        };
        match place.replace(last) {
            Some(pool) if pool.key == *key => Ok(Found::known(pool)),
            _ => table::get(key, identity).map(Found::new),
        }
    }

    /// Remembers `pool` as that of the last request: the client has, or had, a connection of it.
    pub(crate) fn set(&mut self, pool: Arc<Pool>) {
        self.last = Some(pool);
    }
}
