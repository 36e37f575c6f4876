// SPDX-License-Identifier: GPL-2.0
//! `xlbctl load`

use crate::cli::Wait;
use crate::output;
use xlb_control::error::Error;
use xlb_control::kernel::ctl::Ctl;
use xlb_control::kernel::lock::Lock;
use xlb_control::kernel::{preflight, programs, upgrade};

pub fn run(args: &Wait) -> Result<(), Error> {
    ensure_ready()?;
    let _lock = Lock::take(args.timeout)?;
    // The module's ABI first: its answer is clearer than the verifier's.
    let ctl = Ctl::open()?;
    ctl.info()?;
    if programs::are_loaded() {
        let loaded = programs::loaded().map_or(0, |loaded| loaded.build);
        if loaded == programs::BUILD && !upgrade::is_unfinished() {
            return output::print_line("already loaded");
        }
        upgrade::run()?;
        return output::print_line("replaced the loaded policy; what is applied stays in force");
    }
    programs::load(&ctl)?;
    output::print_line("loaded")
}

/// Everything that must be there before anything is changed.
pub fn ensure_ready() -> Result<(), Error> {
    let problems = preflight::problems();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::system(problems.join("\nxlbctl: ")))
    }
}
