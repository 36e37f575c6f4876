// SPDX-License-Identifier: GPL-2.0
//! `xlbctl delete -f FILE` and `xlbctl delete --all`

use super::apply::describe;
use super::loaded;
use crate::cli::Delete;
use crate::output;
use xlb_control::config::merge::{self, Change};
use xlb_control::config::{self, model::Config};
use xlb_control::error::Error;
use xlb_control::kernel::ctl::Ctl;
use xlb_control::kernel::lock::Lock;
use xlb_control::kernel::preflight;

pub fn run(args: &Delete) -> Result<(), Error> {
    let source = args.what.file.as_deref().map(config::read).transpose()?;
    if let Some(problem) = preflight::permission() {
        return Err(Error::System(problem));
    }
    let _lock = Lock::take(args.wait.timeout)?;
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
