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
        let id = match is_loaded() {
            true => Maps::open()?.stored_id(),
            false => None,
        };
        Ok(id == self.id && !self.stored.is_pending())
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
    // Another apply may find a cgroup made anew.
    let is_alone = is_as_full && part.document.is_current() && !stored.has_vip(&addresses)?;
    Ok(is_alone.then_some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::document::Document;
    use crate::numbers::Before;

    const SERVICES: &str = "services:\n\
        - {name: s, listen: [\"10.0.0.1:80\"], routes: [{match: {path: {prefix: /c}}, cluster: c}, {cluster: d}]}\n";
    const CLUSTERS: &str = "clusters:\n\
        - {name: c, endpoints: [\"127.0.0.1:1\"]}\n\
        - {name: d, endpoints: []}\n";

    fn source(text: &str) -> Source {
        config::parse("f", format!("version: 1\n{text}")).expect("parses")
    }

    fn applied() -> Document {
        let config = source(&format!("{SERVICES}{CLUSTERS}")).config;
        let mut document = Document::default();
        document
            .numbers
            .assign(&config, &Before::of(&Config::default()), |_| true)
            .expect("few");
        document.config = config;
        document
    }

    #[test]
    fn only_what_changes_is_looked_at_where_that_is_enough() {
        let cluster = |text: &str| format!("clusters: [{text}]\n");
        for (file, prune, is_part) in [
            (
                cluster("{name: c, endpoints: [\"127.0.0.1:2\"]}"),
                false,
                true,
            ),
            (
                cluster("{name: c, lb: random, endpoints: [\"127.0.0.1:1\"]}"),
                false,
                true,
            ),
            (cluster("{name: d, endpoints: []}"), false, true),
            (CLUSTERS.to_owned(), false, true),
            // A service has no endpoint any more, or has one at last.
            (cluster("{name: c, endpoints: []}"), false, false),
            (
                cluster("{name: d, endpoints: [\"127.0.0.1:2\"]}"),
                false,
                false,
            ),
            // A new one; all others are to go; a service is in the file.
            (
                cluster("{name: e, endpoints: [\"127.0.0.1:2\"]}"),
                false,
                false,
            ),
            (CLUSTERS.to_owned(), true, false),
            (format!("{SERVICES}{CLUSTERS}"), false, false),
        ] {
            let stored = Stored::of(&applied());
            let plan = match Plan::new(&stored, &source(&file), prune) {
                Ok(plan) => plan,
                // Routes to nowhere.
                Err(err) => {
                    assert!(prune, "{file}: {err}");
                    continue;
                }
            };
            assert_eq!(
                plan.part.document.config.services.is_empty(),
                is_part,
                "{file}"
            );
        }
        let pending = Document {
            pending: true,
            ..applied()
        };
        let stored = Stored::of(&pending);
        let plan = Plan::new(&stored, &source(CLUSTERS), false).expect("valid");
        assert_eq!(plan.part.document.config, pending.config);
    }

    #[test]
    fn what_is_wrong_with_the_whole_is_told() {
        let stored = Stored::of(&applied());
        let vip = source("clusters: [{name: c, endpoints: [\"10.0.0.1:80\"]}]\n");
        let err = Plan::new(&stored, &vip, false).err().expect("a loop");
        assert!(err.to_string().contains("is the VIP of service s"), "{err}");
    }
}
