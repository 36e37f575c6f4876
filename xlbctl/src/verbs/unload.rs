// SPDX-License-Identifier: GPL-2.0
//! `xlbctl unload [--force]`

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::pins::{lines, pins};
use crate::cli::Unload;
use crate::output;
use xlb_control::error::Error;
use xlb_control::intf::xlb_socket_info;
use xlb_control::kernel::ctl::Ctl;
use xlb_control::kernel::lock::Lock;
use xlb_control::kernel::{preflight, programs};

/// A grace period of RCU tasks takes tens of milliseconds, more where the machine is emulated.
const GRACE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long nothing may change before sockets count as left where they are.
const STILL_TIMEOUT: Duration = Duration::from_millis(500);

/// How long sockets may take for their orderly end before the policy goes.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(args: &Unload) -> Result<(), Error> {
    if let Some(problem) = preflight::permission() {
        return Err(Error::System(problem));
    }
    let _lock = Lock::take(args.wait.timeout)?;
    let loaded = programs::dir().exists();
    let mut pinned = Vec::new();
    // Without the module there are no sockets, only pins to remove.
    if preflight::is_module_loaded() && (loaded || args.force) {
        let ctl = Ctl::open()?;
        let live = psocks(&ctl)?;
        if live > 0 && !args.force {
            return Err(Error::system(format!(
                "{live} client sockets are served by XLB now (xlbctl get sockets lists them): \
                 end their programs first, or unload --force to end the sockets in order"
            )));
        }
        // First no new sockets, then those that live.
        if loaded {
            programs::detach_connect()?;
        }
        if args.force {
            pinned = pins(&end_sockets(&ctl)?, false);
        }
    }
    if loaded {
        programs::remove()?;
    }
    wait_for_references();
    output::print_line(if loaded {
        "unloaded"
    } else {
        "nothing is loaded"
    })?;
    if pinned.is_empty() {
        return Ok(());
    }
    output::print_line(&format!(
        "{} sockets still pin the module, until their programs read the rest or close them \
         (unload --force looks again):",
        pinned.len()
    ))?;
    for pin in lines(&pinned) {
        output::print_line(&format!("  {pin}"))?;
    }
    Ok(())
}

/// The kernel drops programs and maps, and with them their references to the module, after a
/// grace period: wait for it, so that `rmmod` may follow at once. References of sockets that live on
/// do not end here, so the wait is over as well when the count stands still.
fn wait_for_references() {
    let count = || fs::read_to_string("/sys/module/xlb/refcnt").unwrap_or_default();
    let start = Instant::now();
    let (mut last, mut since) = (count(), start);
    while !matches!(last.trim(), "" | "0") && start.elapsed() < END_TIMEOUT {
        thread::sleep(Duration::from_millis(20));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > GRACE_TIMEOUT {
            break;
        }
    }
}

fn psocks(ctl: &Ctl) -> Result<u64, Error> {
    Ok(ctl.counts()?.get("psocks"))
}

/// Ends the sockets and lets go of those that have ended; returns those that stay.  They need the policy
/// no more.
fn end_sockets(ctl: &Ctl) -> Result<Vec<xlb_socket_info>, Error> {
    ctl.end_sockets(None)?;
    let start = Instant::now();
    let mut progress = start;
    loop {
        if ctl.release()? > 0 {
            progress = Instant::now();
        }
        let left = ctl.sockets()?;
        let busy = left.iter().any(|socket| socket.endpoint_port != 0);
        // Whoever is at it in a system call just now ends soon.
        let still = !busy && progress.elapsed() > STILL_TIMEOUT;
        if left.is_empty() || still || start.elapsed() > END_TIMEOUT {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
