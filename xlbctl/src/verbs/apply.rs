// SPDX-License-Identifier: GPL-2.0
//! `xlbctl apply -f FILE [--dry-run] [--prune]`

use serde::Serialize;

use super::load::ensure_ready;
use crate::cli::Apply;
use crate::config::merge::{self, Change, ListChange};
use crate::config::model::{Cluster, Config};
use crate::config::{self, Source};
use crate::document::Document;
use crate::error::Error;
use crate::kernel::commit::Maps;
use crate::kernel::ctl::Ctl;
use crate::kernel::lock::Lock;
use crate::kernel::{preflight, programs, upgrade};
use crate::output;
use crate::store::{Part, Stored};

#[derive(Serialize)]
struct Report<'c> {
    dry_run: bool,
    generation: u64,
    #[serde(flatten)]
    change: &'c Change,
}

/// What an apply would do.
struct Plan<'s> {
    part: Part<'s>,
    /// That becomes of the part.
    config: Config,
    change: Change,
}

impl<'s> Plan<'s> {
    fn new(stored: &'s Stored, source: &Source, prune: bool) -> Result<Plan<'s>, Error> {
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
    let is_alone = is_as_full && !stored.has_vip(&endpoints.map(|e| e.address).collect())?;
    Ok(is_alone.then_some(part))
}

pub fn run(args: &Apply) -> Result<(), Error> {
    let source = config::read(&args.file.file)?;
    // What is wrong with the file is told even where the machine is not ready.
    let (id, stored) = applied()?;
    let mut plan = Plan::new(&stored, &source, args.prune)?;
    if args.dry_run && !is_loaded() {
        // Nothing to compare with: as on a machine where nothing is applied.
        return report(
            args,
            &Document::default(),
            &Change::between(&Config::default(), &source.config),
        );
    }
    ensure_ready()?;
    let _lock = Lock::take(&args.wait)?;
    let loaded = is_loaded();
    if loaded && !args.dry_run && upgrade::is_unfinished() {
        upgrade::run()?;
    }
    // Again, if another xlbctl has changed it before the lock.
    let now =
        match loaded && id.is_some() && Maps::open()?.stored_id() == id && !stored.is_pending() {
            true => None,
            false => Some(applied()?.1),
        };
    if let Some(now) = &now {
        plan = Plan::new(now, &source, args.prune)?;
    }
    let Plan {
        part,
        config,
        change,
    } = plan;
    let old = &part.document;
    let nothing_to_do = loaded && change.is_empty() && !old.pending && old.is_current();
    if args.dry_run || nothing_to_do {
        return report(args, old, &change);
    }

    let ctl = Ctl::open()?;
    ctl.info()?;
    if !loaded {
        programs::load()?;
    }
    let new = Maps::open()?.commit(&part, config, &ctl).inspect_err(|_| {
        if !loaded {
            // As it was before; the first error is the one to tell.
            let _ = programs::remove();
        }
    })?;
    report(args, &new, &change)
}

fn is_loaded() -> bool {
    preflight::permission().is_none() && programs::are_loaded()
}

/// What is applied, and by which apply.
fn applied() -> Result<(Option<u32>, Stored), Error> {
    if !is_loaded() {
        return Ok((None, Stored::default()));
    }
    let maps = Maps::open()?;
    Ok((maps.stored_id(), maps.stored()?))
}

fn report(args: &Apply, document: &Document, change: &Change) -> Result<(), Error> {
    let report = Report {
        dry_run: args.dry_run,
        generation: document.generation,
        change,
    };
    output::emit(args.format.output, &report, |_| {
        let mut text = describe(change);
        if args.dry_run {
            text.push_str("dry run: nothing was changed\n");
        }
        text
    })
}

/// One line for each item that differs.
pub fn describe(change: &Change) -> String {
    let mut text = String::new();
    let mut lines = |kind: &str, list: &ListChange| {
        for (what, names) in [
            ("added", &list.added),
            ("changed", &list.changed),
            ("removed", &list.removed),
        ] {
            for name in names {
                text.push_str(&format!("{kind} {name} {what}\n"));
            }
        }
    };
    lines("cluster", &change.clusters);
    lines("service", &change.services);
    if text.is_empty() {
        text.push_str("nothing changed\n");
    }
    text
}
