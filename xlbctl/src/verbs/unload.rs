// SPDX-License-Identifier: GPL-2.0
//! `xlbctl unload [--force]`

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Unload;
use crate::error::Error;
use crate::intf::XLB_COUNTER_PSOCKS;
use crate::kernel::ctl::Ctl;
use crate::kernel::lock::Lock;
use crate::kernel::{preflight, programs};
use crate::output;

/// How long sockets may take for their orderly end before the policy goes.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(args: &Unload) -> Result<(), Error> {
    if let Some(problem) = preflight::permission() {
        return Err(Error::System(problem));
    }
    let _lock = Lock::take()?;
    if !programs::dir().exists() {
        return output::print_line("nothing is loaded");
    }
    // Without the module there are no sockets, only pins to remove.
    if preflight::is_module_loaded() {
        let ctl = Ctl::open()?;
        let live = psocks(&ctl)?;
        if live > 0 && !args.force {
            return Err(Error::system(format!(
                "{live} client sockets are served by XLB now (xlbctl get sockets lists them): \
                 end their programs first, or unload --force to end the sockets in order"
            )));
        }
        // First no new sockets, then those that live.
        programs::detach_connect()?;
        if args.force {
            end_sockets(&ctl)?;
        }
    }
    programs::remove()?;
    output::print_line("unloaded")
}

fn psocks(ctl: &Ctl) -> Result<u64, Error> {
    let info = ctl.info()?;
    Ok(info
        .counters
        .get(XLB_COUNTER_PSOCKS as usize)
        .copied()
        .unwrap_or(0))
}

/// Ended sockets live on until their programs close them; they need the policy no more.
fn end_sockets(ctl: &Ctl) -> Result<(), Error> {
    ctl.end_sockets(None)?;
    let start = Instant::now();
    while psocks(ctl)? > 0 && start.elapsed() < END_TIMEOUT {
        let busy = ctl
            .sockets()?
            .iter()
            .any(|socket| socket.endpoint_port != 0);
        if !busy {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
