// SPDX-License-Identifier: GPL-2.0
//! `xlbctl apply -f FILE [--dry-run] [--prune]`

use std::mem::ManuallyDrop;

use serde::Serialize;

use super::load::ensure_ready;
use crate::cli::Apply;
use crate::output;
use xlb_control::config::merge::{Change, ListChange};
use xlb_control::config::{self, model::Config};
use xlb_control::document::Document;
use xlb_control::error::Error;
use xlb_control::kernel::commit::Maps;
use xlb_control::kernel::ctl::Ctl;
use xlb_control::kernel::lock::Lock;
use xlb_control::kernel::{programs, upgrade};
use xlb_control::plan::{self, Applied, Plan};

#[derive(Serialize)]
struct Report<'c> {
    dry_run: bool,
    generation: u64,
    #[serde(flatten)]
    change: &'c Change,
}

pub fn run(args: &Apply) -> Result<(), Error> {
    // The process ends with it: a tree of ten thousand nodes is not taken apart before.
    let source = ManuallyDrop::new(config::read(&args.file.file)?);
    // What is wrong with the file is told even where the machine is not ready.
    let applied = Applied::read()?;
    let mut plan = Plan::new(&applied.stored, &source, args.prune)?;
    if args.dry_run && !plan::is_loaded() {
        // Nothing to compare with: as on a machine where nothing is applied.
        return report(
            args,
            &Document::default(),
            &Change::between(&Config::default(), &source.config),
        );
    }
    ensure_ready()?;
    let _lock = Lock::take(args.wait.timeout)?;
    let loaded = plan::is_loaded();
    if loaded && !args.dry_run && upgrade::is_unfinished() {
        upgrade::run()?;
    }
    // Again, if another xlbctl has changed it before the lock.
    let now = match applied.is_still()? {
        true => None,
        false => Some(Applied::read()?),
    };
    if let Some(now) = &now {
        plan = Plan::new(&now.stored, &source, args.prune)?;
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
        programs::load(&ctl)?;
    }
    let new = Maps::open()?.commit(&part, config, &ctl).inspect_err(|_| {
        if !loaded {
            // As it was before; the first error is the one to tell.
            let _ = programs::remove();
        }
    })?;
    report(args, &new, &change)
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
