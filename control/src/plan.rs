// SPDX-License-Identifier: GPL-2.0
//! What an apply would do, from a file and what is applied.
//!
//! Most applies are of a few clusters whose endpoints have changed: of them, nothing but these clusters is read, and what an
//! apply costs does not grow with the configuration.

use std::net::SocketAddr;

use crate::config::merge::{self, Change};
use crate::config::model::{Cluster, Config};
use crate::config::Source;
use crate::error::Error;
use crate::kernel::commit::Maps;
use crate::kernel::{preflight, programs};
use crate::store::{Part, Stored};

/// What is applied.
#[derive(Default)]
pub struct Applied {
    pub stored: Stored,
    /// By which apply; `None`: by none.
    id: Option<u32>,
}

pub fn is_loaded() -> bool {
    preflight::permission().is_none() && programs::are_loaded()
}

impl Applied {
    /// Nothing where nothing is loaded.
    pub fn read() -> Result<Applied, Error> {
        if !is_loaded() {
            return Ok(Applied::default());
        }
        let maps = Maps::open()?;
        Ok(Applied {
            id: maps.stored_id(),
            stored: maps.stored()?,
        })
    }

    /// Whether reading it again would give the same.
    pub fn is_still(&self) -> Result<bool, Error> {
        Ok(self.id.is_some()
            && !self.stored.is_pending()
            && is_loaded()
            && Maps::open()?.stored_id() == self.id)
    }
}

/// What an apply would do.
pub struct Plan<'s> {
    pub part: Part<'s>,
    /// That becomes of the part.
    pub config: Config,
    pub change: Change,
}

impl<'s> Plan<'s> {
    /// Fails with all that is wrong with the file, and with what it would become a part of.
    pub fn new(stored: &'s Stored, source: &Source, prune: bool) -> Result<Plan<'s>, Error> {
        let part = match clusters_alone(stored, source, prune)? {
            Some(part) => part,
            None => stored.all()?,
        };
        let config = merge::apply(&part.document.config, &source.config, prune);
        source.check(&config)?;
        Ok(Plan {
            change: Change::between(&part.document.config, &config),
            part,
            config,
        })
    }
}

/// The clusters of the file, when what it says of them is nobody else's business: nothing else of what is applied must be
/// looked at then.
fn clusters_alone<'s>(
    stored: &'s Stored,
    source: &Source,
    prune: bool,
) -> Result<Option<Part<'s>>, Error> {
    let config = &source.config;
    if prune || stored.is_pending() || !config.services.is_empty() {
        return Ok(None);
    }
    let clusters = merge::by_name(&config.clusters);
    let Some(part) = stored.clusters(&clusters.keys().copied().collect())? else {
        return Ok(None);
    };
    // Whether a service has an endpoint at all is told at its VIPs.
    let has_endpoints = |cluster: &Cluster| cluster.endpoints.iter().any(|e| e.is_eligible());
    let mut before = part.document.config.clusters.iter();
    let is_as_full = before.all(|before| {
        let after = clusters.get(before.name.as_str());
        after.is_some_and(|after| has_endpoints(after) == has_endpoints(before))
    });
    let endpoints = config.clusters.iter().flat_map(|c| &c.endpoints);
    let addresses: Vec<SocketAddr> = endpoints.map(|e| e.address).collect();
    let is_alone = is_as_full && !stored.has_vip(&addresses)?;
    Ok(is_alone.then_some(part))
}
