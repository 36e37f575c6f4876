// SPDX-License-Identifier: GPL-2.0
//! `xlbctl load`

use crate::cli::Wait;
use crate::error::Error;
use crate::kernel::ctl::Ctl;
use crate::kernel::lock::Lock;
use crate::kernel::{preflight, programs};
use crate::output;

pub fn run(args: &Wait) -> Result<(), Error> {
    ensure_ready()?;
    let _lock = Lock::take(args)?;
    if programs::are_loaded() {
        return output::print_line("already loaded");
    }
    // The module's ABI first: its answer is clearer than the verifier's.
    Ctl::open()?.info()?;
    programs::load()?;
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
