// SPDX-License-Identifier: GPL-2.0
//! `xlbctl delete -f FILE` and `xlbctl delete --all`

use super::apply::describe;
use super::loaded;
use crate::cli::Delete;
use crate::config::merge::{self, Change};
use crate::config::{self, model::Config};
use crate::error::Error;
use crate::kernel::ctl::Ctl;
use crate::kernel::lock::Lock;
use crate::kernel::preflight;
use crate::output;

pub fn run(args: &Delete) -> Result<(), Error> {
    let source = args.what.file.as_deref().map(config::read).transpose()?;
    if let Some(problem) = preflight::permission() {
        return Err(Error::System(problem));
    }
    let _lock = Lock::take(&args.wait)?;
    let maps = loaded()?;
    let stored = maps.stored()?;
    let part = stored.all()?;
    let old = &part.document;
    let rest = match &source {
        Some(source) => {
            let rest = merge::delete(&old.config, &source.config);
            source.check(&rest)?;
            rest
        }
        None => Config::default(),
    };
    let change = Change::between(&old.config, &rest);
    maps.commit(&part, rest, &Ctl::open()?)?;
    output::print(&describe(&change))
}
