// SPDX-License-Identifier: GPL-2.0
//! The kernel log, judged: a warning, a splat or a leak fails a scenario whatever else it says.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc::O_NONBLOCK;
use nix::unistd::{lseek, Whence};
use std::os::fd::AsRawFd;

use crate::races;

/// Text that no healthy log holds. Kept wide: a false alarm is mended here, a missed splat is not seen.
const BAD: &[&str] = &[
    "BUG",
    "WARNING",
    "Oops",
    "KASAN",
    "UBSAN",
    "KCSAN",
    "KFENCE",
    "Call Trace",
    "RIP:",
    "general protection",
    "unable to handle",
    "soft lockup",
    "hard LOCKUP",
    "INFO: task",
    "blocked for more than",
    "rcu: INFO",
    "self-detected stall",
    "suspicious RCU",
    "locking dependency",
    "recursive locking",
    "inconsistent lock state",
    "lock held when returning",
    "still has locks held",
    "held lock freed",
    "scheduling while atomic",
    "sleeping function called",
    "refcount_t",
    "Attempt to release",
    "use-after-free",
    "double free",
    "corruption",
    "Bad page",
    "bad page",
    "memory leak",
    "suspected memory leaks",
    "Objects remaining",
    "page allocation failure",
    "Out of memory",
    "oom-kill",
    "panicked",
    "Kernel panic",
    "stack-protector",
    "unregister_netdevice: waiting",
    "not freed",
];

/// Lines that hold one of the above and are known to be harmless.
const HARMLESS: &[&str] = &[
    "module verification failed",
    "loading out-of-tree module taints kernel",
    "unknown parameter",
    "invalid for parameter",
    // The module refuses a value of a parameter, and the load.
    "xlb: head_bytes=10: not from",
    "xlb: field_count=1000000: not from",
    "xlb: this module was built without BTF",
];

/// The log from where it was opened.
pub struct Log {
    file: File,
    /// Titles of the races that KCSAN has found where XLB has no part.
    pub foreign_races: Vec<String>,
}

impl Log {
    /// Opens the log at its end.
    pub fn from_now() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        lseek(file.as_raw_fd(), 0, Whence::SeekEnd)?;
        Ok(Self {
            file,
            foreign_races: Vec::new(),
        })
    }

    /// The new lines, each as (priority, text).
    fn take(&mut self) -> Result<Vec<(u32, String)>> {
        let mut lines = Vec::new();
        let mut record = vec![0u8; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(length) => {
                    let record =
                        String::from_utf8_lossy(record.get(..length).unwrap_or(&[])).into_owned();
                    let (prefix, text) = record.split_once(';').unwrap_or(("", &record));
                    let priority = prefix
                        .split(',')
                        .next()
                        .and_then(|p| p.parse().ok())
                        .unwrap_or(6);
                    let text = text.split('\n').next().unwrap_or("").to_owned();
                    lines.push((priority, text));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lines),
                // EPIPE: the ring was overwritten under us; the next read goes on.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    lines.push((3, "BUG in the test: the kernel log overflowed".to_owned()));
                }
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }

    /// The races of XLB among the new lines, and these when one of them is bad.
    pub fn complaints(&mut self) -> Result<Option<String>> {
        let (races, lines) = races::take_from(self.take()?);
        let mut text = Vec::new();
        for race in races {
            if race.is_of_xlb() {
                text.extend(race.lines);
            } else {
                self.foreign_races.push(race.title);
            }
        }
        if lines.iter().any(|(priority, text)| is_bad(*priority, text)) {
            text.extend(lines.into_iter().map(|(_, text)| text).take(200));
        }
        Ok((!text.is_empty()).then(|| text.join("\n")))
    }
}

/// `priority` is facility * 8 + level; the kernel is facility 0, and 4 is a warning.
fn is_bad(priority: u32, text: &str) -> bool {
    // Only the kernel itself: a program may write anything to /dev/kmsg.
    if priority >= 8 || HARMLESS.iter().any(|harmless| text.contains(harmless)) {
        return false;
    }
    BAD.iter().any(|bad| text.contains(bad)) || (priority <= 4 && text.contains("xlb"))
}

#[cfg(test)]
mod tests {
    use super::is_bad;

    #[test]
    fn splats_are_bad_whatever_their_level() {
        assert!(is_bad(6, "BUG: KASAN: slab-use-after-free in xlb_close"));
        assert!(is_bad(4, "WARNING: CPU: 0 PID: 1 at net/core/stream.c:217"));
        assert!(is_bad(4, "xlb: something odd"));
        assert!(is_bad(
            6,
            "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
        ));
    }

    #[test]
    fn taint_and_programs_are_not() {
        assert!(!is_bad(4, "xlb: loading out-of-tree module taints kernel."));
        assert!(!is_bad(12, "BUG: said by a program"));
        assert!(!is_bad(6, "xlb: loaded"));
    }
}
