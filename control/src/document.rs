// SPDX-License-Identifier: GPL-2.0
//! What is applied, or a part of it; how it is kept in the kernel is in [`crate::store`].

use std::collections::BTreeMap;

use crate::config::model::Config;
use crate::intf::XLB_LAYOUT;
use crate::kernel::cgroup;
use crate::numbers::Numbers;

#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub layout: u32,
    /// Raised by each apply.
    pub generation: u64,
    /// An apply has begun and not ended: the maps may be partly of the one before.
    pub pending: bool,
    pub config: Config,
    pub numbers: Numbers,
    /// Ids of the cgroups that are named, when it was applied.
    pub cgroups: BTreeMap<String, u64>,
}

impl Default for Document {
    fn default() -> Self {
        Document {
            layout: XLB_LAYOUT,
            generation: 0,
            pending: false,
            config: Config::default(),
            numbers: Numbers::default(),
            cgroups: BTreeMap::new(),
        }
    }
}

impl Document {
    /// The cgroups that it names are those that it was applied to.
    pub fn is_current(&self) -> bool {
        self.cgroups
            .iter()
            .all(|(path, id)| cgroup::id_of(path) == Some(*id))
    }
}
