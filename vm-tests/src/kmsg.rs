// SPDX-License-Identifier: GPL-2.0
//! The kernel log, judged: a warning, a splat or a leak fails a scenario whatever else it says.

use std::fs::{self, File, OpenOptions};
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

/// What check-log.sh, which sees the whole of a machine's log, goes by.
const MAY_FAIL: &str = "xlb-vm: allocations may fail\n";
const MAY_NOT_FAIL: &str = "xlb-vm: allocations may not fail\n";

/// The log from where it was opened.
pub struct Log {
    file: File,
    /// Allocations are made to fail, and the kernel may report that.
    may_fail: bool,
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
            may_fail: false,
            foreign_races: Vec::new(),
        })
    }

    /// From now on allocations are made to fail, until this goes.
    pub fn allocations_may_fail(&mut self) -> Result<()> {
        fs::write("/dev/kmsg", MAY_FAIL).context("/dev/kmsg")?;
        self.may_fail = true;
        Ok(())
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
        let (races, mut lines) = races::take_from(self.take()?);
        if self.may_fail {
            lines = without_failed_allocations(lines);
        }
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

impl Drop for Log {
    fn drop(&mut self) {
        if self.may_fail {
            let _ = fs::write("/dev/kmsg", MAY_NOT_FAIL);
        }
    }
}

/// Without the reports of warn_alloc(), as mm/page_alloc.c writes them: a title, who it was, and a stack. What another
/// CPU says meanwhile stays.
fn without_failed_allocations(lines: Vec<(u32, String)>) -> Vec<(u32, String)> {
    let mut within = false;
    let mut is_of_one = |(_, text): &(u32, String)| {
        let title =
            text.contains("vmalloc error: size") || text.contains("page allocation failure: order");
        let part = within
            && (text == "Call Trace:"
                || [" ", "CPU: ", "RIP: 0033:"]
                    .iter()
                    .any(|of| text.starts_with(of)));
        within = title || (within && text != " </TASK>");
        title || part
    };
    lines.into_iter().filter(|line| !is_of_one(line)).collect()
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
    use super::{is_bad, without_failed_allocations};

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
    fn failed_allocations_are_left_out_and_nothing_else() {
        let log = "before\n\
                   xlbctl: vmalloc error: size 4096, failed to allocate pages, mode:0xdc0(GFP_KERNEL|__GFP_ZERO)\n\
                   CPU: 1 UID: 0 PID: 9 Comm: xlbctl\n\
                   Call Trace:\n <TASK>\n dump_stack_lvl+0x1/0x2\n\
                   BUG: said by another CPU\n\
                   RIP: 0033:0x7f\n </TASK>\n\
                   Mem-Info:\n\
                   Call Trace:\n <TASK>\n xlb_close+0x1/0x2\n </TASK>";
        let lines = log.lines().map(|text| (4, text.to_owned())).collect();
        let left = without_failed_allocations(lines);
        let left: Vec<&str> = left.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            left.join("\n"),
            "before\nBUG: said by another CPU\nMem-Info:\n\
             Call Trace:\n <TASK>\n xlb_close+0x1/0x2\n </TASK>"
        );
    }

    #[test]
    fn taint_and_programs_are_not() {
        assert!(!is_bad(4, "xlb: loading out-of-tree module taints kernel."));
        assert!(!is_bad(12, "BUG: said by a program"));
        assert!(!is_bad(6, "xlb: loaded"));
    }
}
