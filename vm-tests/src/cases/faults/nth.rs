// SPDX-License-Identifier: GPL-2.0
//! The kernel's fault injection: `fail-nth` of this thread, and the knobs in debugfs.
//!
//! With n in `/proc/thread-self/fail-nth` the n-th time that this thread comes to a place where an allocation or a copy
//! from or to user space may fail, it does (`lib/fault-inject.c`), whatever the knobs of probability say. Softirqs that
//! interrupt the thread and works that it queues do not count: see `anywhere.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use nix::libc;

const DEBUGFS: &str = "/sys/kernel/debug";

/// Faults that no path has: a sweep that gets there does not end.
const MOST: u32 = 3000;

/// Allocations that fail in a row.
const SEVERAL: u32 = 4;

/// More bytes than any path allocates: the run that counts them.
const FAR: u32 = 1 << 28;

/// Runs of a path with several faults.
const STEPS: u32 = 24;

/// Wrong ends after which a sweep is not worth another minute.
const MOST_WRONG: usize = 12;

/// Writes a knob, `failslab/verbose` say.
pub fn set(knob: &str, value: &str) -> Result<()> {
    fs::write(Path::new(DEBUGFS).join(knob), value).with_context(|| format!("{knob} = {value}"))
}

/// Reads a knob.
pub fn get(knob: &str) -> Result<u32> {
    let text =
        fs::read_to_string(Path::new(DEBUGFS).join(knob)).with_context(|| knob.to_owned())?;
    text.trim()
        .parse()
        .with_context(|| format!("{knob}: {text:?}"))
}

/// Allocations that may sleep fail, too, and those of single pages; and each failure is no line of the kernel log,
/// which is judged.
pub fn prepare() -> Result<()> {
    let verbose = std::env::var("XLB_FAULTS_VERBOSE").unwrap_or_else(|_| "0".to_owned());
    for kind in ["failslab", "fail_page_alloc", "fail_usercopy"] {
        set(&format!("{kind}/verbose"), &verbose)?;
        set(&format!("{kind}/probability"), "0")?;
        set(&format!("{kind}/times"), "-1")?;
    }
    set("failslab/ignore-gfp-wait", "N")?;
    set("failslab/cache-filter", "N")?;
    set("fail_page_alloc/ignore-gfp-wait", "N")?;
    // Not the program's own pages.
    set("fail_page_alloc/ignore-gfp-highmem", "Y")?;
    set("fail_page_alloc/min-order", "0")
}

/// Faults in one of the system calls that are made through it.
pub struct Nth {
    kind: Kind,
    left: u32,
    hit: Option<&'static str>,
}

enum Kind {
    None,
    /// `fail-nth`
    One(File),
    /// `make-it-fail`; `failslab/times` goes down with each one.
    Several(File),
}

fn open(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(path).with_context(|| path.to_owned())
}

impl Nth {
    /// The n-th from now.
    pub fn new(n: u32) -> Result<Self> {
        Ok(Self {
            kind: Kind::One(open("/proc/thread-self/fail-nth")?),
            left: n,
            hit: None,
        })
    }

    /// None at all.
    pub fn none() -> Self {
        Self {
            kind: Kind::None,
            left: 0,
            hit: None,
        }
    }

    /// [`SEVERAL`] allocations in a row, after those of `space` bytes: what has a second way, as vmalloc() is one of
    /// kvmalloc(), fails on both. None after the call in which the first one is.
    fn several(space: u32) -> Result<Self> {
        set("failslab/space", &space.to_string())?;
        set("failslab/times", &SEVERAL.to_string())?;
        Ok(Self {
            kind: Kind::Several(open("/proc/thread-self/make-it-fail")?),
            left: SEVERAL,
            hit: None,
        })
    }

    /// Where it was injected.
    pub fn hit(&self) -> Option<&'static str> {
        self.hit
    }

    /// Makes a system call. It must not allocate memory in user space: that could be what fails.
    pub fn call<R>(&mut self, name: &'static str, call: impl FnOnce() -> R) -> R {
        if self.hit.is_some() {
            return call();
        }
        let result = match &self.kind {
            Kind::None => return call(),
            Kind::One(file) => {
                let fd = file.as_raw_fd();
                write_number(fd, self.left);
                let result = call();
                // The number was taken down before it is copied to us, and that copy may be what fails.
                self.left = read_number(fd).unwrap_or(1);
                // As may the copy of this number from us.
                while !write_number(fd, 0) {}
                if self.left == 0 {
                    self.hit = Some(name);
                }
                return result;
            }
            Kind::Several(task) => {
                write_number(task.as_raw_fd(), 1);
                let result = call();
                write_number(task.as_raw_fd(), 0);
                self.left = get("failslab/times").unwrap_or(SEVERAL);
                result
            }
        };
        if self.left < SEVERAL {
            self.hit = Some(name);
        }
        result
    }
}

fn write_number(fd: i32, number: u32) -> bool {
    let mut text = [b'0'; 11];
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // A leading zero would make it octal.
    let from = text.iter().position(|d| *d != b'0').unwrap_or(10);
    let text = text.get(from..).unwrap_or(&[]);
    // SAFETY: The kernel reads as many bytes as are there.
    unsafe { libc::pwrite(fd, text.as_ptr().cast(), text.len(), 0) > 0 }
}

fn read_number(fd: i32) -> Option<u32> {
    let mut text = [0u8; 16];
    // SAFETY: The kernel writes at most as many bytes as there is room for.
    let n = unsafe { libc::pread(fd, text.as_mut_ptr().cast(), text.len(), 0) };
    let digits = text.get(..usize::try_from(n).ok()?)?;
    let digits = digits.iter().take_while(|d| d.is_ascii_digit());
    Some(digits.fold(0, |sum, d| sum * 10 + u32::from(*d - b'0')))
}

/// How the runs of a path ended.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<String, u32>,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts a run; false when it had no fault.
    fn add(&mut self, what: &str, nth: &Nth, went: Result<String>) -> Result<bool> {
        let Some(call) = nth.hit() else {
            let went = went.with_context(|| format!("{what}, without a fault"))?;
            ensure!(went == "right", "{what}, without a fault: {went}");
            return Ok(false);
        };
        let went = went.unwrap_or_else(|error| {
            self.wrong.push(format!("{what} in {call}: {error:#}"));
            "WRONG".to_owned()
        });
        *self.outcomes.entry(went).or_default() += 1;
        ensure!(self.wrong.len() < MOST_WRONG, "{}", self.wrong.join("\n"));
        Ok(true)
    }

    fn end(self, what: &str, injected: u32, least: u32) -> Result<()> {
        let went: Vec<String> = self
            .outcomes
            .iter()
            .map(|(o, n)| format!("{n} {o}"))
            .collect();
        println!("{what}: {injected} faults: {}", went.join(", "));
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        ensure!(injected >= least, "{what}: {injected} faults, not {least}");
        Ok(())
    }
}

/// Goes a path once for each of its faults, and a last time without one; then with [`SEVERAL`] in a row. `path` says how
/// it went, or why that is wrong; without a fault it must say "right". At least `least` single faults must have been
/// injected.
pub fn sweep(
    what: &str,
    least: u32,
    mut path: impl FnMut(&mut Nth) -> Result<String>,
) -> Result<()> {
    path(&mut Nth::none()).with_context(|| format!("{what}, before the first fault"))?;
    let mut tally = Tally::default();
    let mut injected = 0;
    loop {
        ensure!(injected < MOST, "{what}: more than {MOST} faults");
        let mut nth = Nth::new(injected + 1)?;
        let went = path(&mut nth);
        if !tally.add(&format!("{what}: fault {}", injected + 1), &nth, went)? {
            break;
        }
        injected += 1;
    }
    tally.end(what, injected, least)?;
    set("failslab/task-filter", "Y")?;
    set("failslab/probability", "100")?;
    let result = sweep_several(&format!("{what}, {SEVERAL} in a row"), &mut path);
    set("failslab/probability", "0")?;
    set("failslab/task-filter", "N")?;
    set("failslab/times", "-1")?;
    set("failslab/space", "0")?;
    result
}

fn sweep_several(what: &str, path: &mut impl FnMut(&mut Nth) -> Result<String>) -> Result<()> {
    let mut nth = Nth::several(FAR)?;
    path(&mut nth).with_context(|| format!("{what}, not yet"))?;
    let all = FAR - get("failslab/space")?;
    let step = (all / STEPS).max(8);
    let mut tally = Tally::default();
    let mut injected = 0;
    let mut space = 0;
    while space <= all {
        let mut nth = Nth::several(space)?;
        let went = path(&mut nth);
        if tally.add(&format!("{what}: after {space} bytes"), &nth, went)? {
            injected += 1;
        }
        space += step;
    }
    tally.end(what, injected, 0)
}
