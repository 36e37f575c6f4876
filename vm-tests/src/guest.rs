// SPDX-License-Identifier: GPL-2.0
//! Inside the VM: runs the scenarios one by one.
//!
//! A scenario runs in a process of its own, in a cgroup of its own, so that whatever it started can be ended.
//! Afterwards the configuration is deleted; sockets, connections or references to the module that stay, and a kernel log
//! with a complaint, all fail it. Scenarios of one folder share the module and the policy, until one has failed or has
//! unloaded them. Behind the last that shares them the policy is unloaded and the module removed: one that stays fails
//! that scenario.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::cases;
use crate::ctx::{self, Ctx, Needs, Scenario};
use crate::kmsg;
use crate::xlb;

const CGROUPS: &str = "/sys/fs/cgroup";

/// How long sockets and connections may take to go away after a scenario.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Parser)]
pub struct Options {
    /// Only scenarios with this text, or one of these between commas, in their name
    filter: Option<String>,
    /// Without XLB: clients speak to a backend
    #[arg(long)]
    direct: bool,
    /// Run only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many times slower than a plain emulated machine this one is; 0: measured
    #[arg(long, default_value_t = 0)]
    scale: u32,
    /// A freshly loaded module for each scenario (slower, proves more)
    #[arg(long, conflicts_with = "keep")]
    fresh: bool,
    /// One module for the scenarios of all folders
    #[arg(long)]
    keep: bool,
    /// Print what a scenario printed even when it passes
    #[arg(long)]
    verbose: bool,
}

/// There on a kernel that was built to find leaks.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

impl Options {
    /// Whether the module stays from one scenario to the other.
    fn shares(&self, one: &Scenario, other: &Scenario) -> bool {
        let folder = |s: &Scenario| s.name.split('/').next();
        let may = |s: &Scenario| s.needs != Needs::BareKernel;
        let near = self.keep || folder(one) == folder(other);
        !self.direct && !self.fresh && near && may(one) && may(other)
    }

    fn looks_for_leaks(&self) -> bool {
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        !self.direct && Path::new(KMEMLEAK).exists() && !command_line.contains("kmemleak=off")
    }
}

/// How slow this machine is: an idle emulated one starts Python in a second. Limits grow with it, because a debug
/// kernel and a busy host make everything late and nothing wrong.
fn measure_scale() -> Result<u32> {
    let begin = Instant::now();
    Command::new("python3")
        .args(["-c", "import json"])
        .status()
        .context("python3")?;
    let scale = (begin.elapsed().as_millis() / 1000 + 1).min(8) as u32;
    println!("limits are multiplied by {scale}");
    Ok(scale)
}

#[derive(Parser)]
pub struct ScenarioOptions {
    name: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    direct: bool,
    #[arg(long, default_value_t = 1)]
    scale: u32,
}

/// Runs one scenario in this process.
pub fn run_scenario(options: &ScenarioOptions) -> Result<bool> {
    let scenario =
        cases::named(&options.name).with_context(|| format!("no scenario {}", options.name))?;
    raise_file_limit()?;
    let mut ctx = Ctx::new(options.dir.clone(), options.direct, options.scale);
    match (scenario.run)(&mut ctx) {
        Ok(()) => Ok(true),
        Err(error) => {
            println!("{error:#}");
            Ok(false)
        }
    }
}

/// Ten thousand sockets need as many files.
fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{getrlimit, setrlimit, Resource};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = 65536;
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// Runs all that match, prints a line for each and the totals; true when all passed.
pub fn run(options: &Options) -> Result<bool> {
    let mut passed = 0;
    let mut skipped = 0;
    let mut failed = Vec::new();
    let chosen: Vec<&Scenario> = cases::matching(options.filter.as_deref())
        .into_iter()
        .filter(|s| options.only.is_empty() || options.only.iter().any(|name| name == s.name))
        .filter(|s| !options.direct || s.needs == Needs::Http)
        .collect();
    ensure!(!chosen.is_empty(), "no scenario matches");
    let scale = if options.scale == 0 {
        measure_scale()?
    } else {
        options.scale
    };
    if !options.direct {
        clear_machine()?;
    }
    let seed = ctx::seed()?;
    println!("XLB_SEED={seed} draws the same again");
    let mut foreign_races = BTreeMap::new();
    let (chosen, lacking): (Vec<_>, Vec<_>) = chosen
        .into_iter()
        .map(|s| (s, s.needs.lacking()))
        .partition(|(_, lacking)| lacking.is_none());
    for (scenario, lacking) in lacking {
        skipped += 1;
        println!("skipped {}: {}", scenario.name, lacking.unwrap_or_default());
    }
    let mut left = chosen.iter().map(|(scenario, _)| *scenario).peekable();
    while let Some(scenario) = left.next() {
        println!("... {}", scenario.name);
        let begin = Instant::now();
        let shares = left
            .peek()
            .is_some_and(|next| options.shares(scenario, next));
        let outcome = run_one(scenario, options, shares, (scale, seed), &mut foreign_races);
        let seconds = begin.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok {} {seconds:.1}s", scenario.name);
            }
            Err(error) => {
                failed.push(scenario.name);
                println!("FAIL {} {seconds:.1}s: {error:#}", scenario.name);
            }
        }
    }
    if options.looks_for_leaks() {
        match scan_leaks() {
            Ok(()) => println!("ok kmemleak"),
            Err(error) => {
                failed.push("kmemleak");
                println!("FAIL kmemleak: {error:#}");
            }
        }
    }
    for (title, count) in &foreign_races {
        println!("not of XLB: {count} x {title}");
    }
    for name in &failed {
        println!("failed: {name}");
    }
    let skips = match skipped {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    println!("{passed} passed, {} failed{skips}", failed.len());
    Ok(failed.is_empty())
}

/// The VM comes with the module loaded; each scenario loads its own.
fn clear_machine() -> Result<()> {
    if xlb::is_loaded() {
        xlb::xlbctl(&["unload", "--force"])?;
        let out = xlb::rmmod()?;
        ensure!(
            out.code == Some(0),
            "rmmod before the first scenario: {}",
            out.all()
        );
    }
    Ok(())
}

/// `shares`: the next one gets the module as this one leaves it. `machine`: how slow it is, and the seed of what is drawn.
/// `foreign_races`: how many of each KCSAN has found where XLB has no part.
fn run_one(
    scenario: &Scenario,
    options: &Options,
    shares: bool,
    machine: (u32, u64),
    foreign_races: &mut BTreeMap<String, usize>,
) -> Result<()> {
    let dir = PathBuf::from(format!("/tmp/vm-tests/{}", scenario.name));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let mut log = if options.direct {
        None
    } else {
        Some(kmsg::Log::from_now()?)
    };
    if let (Some(log), Needs::Faults) = (&mut log, scenario.needs) {
        log.allocations_may_fail()?;
    }
    let mut problems = Vec::new();
    let with_module = !options.direct && scenario.needs != Needs::BareKernel;
    let mut references = None;
    if with_module && xlb::is_loaded() {
        references = Some(xlb::references()?);
        fs::write(
            dir.join("baseline.json"),
            xlb::json(&["status"])?.to_string(),
        )?;
    } else if with_module {
        let out = xlb::insmod(&[])?;
        ensure!(out.code == Some(0), "insmod: {}", out.all());
    }
    let cgroup = if options.direct {
        None
    } else {
        Some(make_cgroup(scenario.name)?)
    };
    if let Err(error) = run_child(scenario, options, machine, &dir, cgroup.as_deref()) {
        problems.push(format!("{error:#}"));
    }
    if let Some(cgroup) = &cgroup {
        if let Err(error) = end_cgroup(cgroup) {
            problems.push(format!("{error:#}"));
        }
    }
    if !options.direct {
        let keep = shares && problems.is_empty();
        if let Err(error) = remove_xlb(keep, references) {
            problems.push(format!("afterwards: {error:#}"));
        }
    }
    if let Some(log) = &mut log {
        if let Some(lines) = log.complaints()? {
            problems.push(format!("kernel log:\n{lines}"));
        }
        for title in log.foreign_races.drain(..) {
            *foreign_races.entry(title).or_default() += 1;
        }
    }
    let _ = fs::remove_dir_all(&dir);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn run_child(
    scenario: &Scenario,
    options: &Options,
    (scale, seed): (u32, u64),
    dir: &Path,
    cgroup: Option<&Path>,
) -> Result<()> {
    let said = dir.join("said");
    let out = fs::File::create(&said)?;
    let mut command = match cgroup {
        // The shell moves itself into the cgroup and becomes the scenario.
        Some(path) => {
            let mut shell = Command::new("sh");
            shell
                .args([
                    "-c",
                    "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"",
                    "sh",
                ])
                .arg(path);
            shell.arg(std::env::current_exe()?);
            shell
        }
        None => Command::new(std::env::current_exe()?),
    };
    let mut child = command
        .args(["scenario", scenario.name, "--dir"])
        .arg(dir)
        .env(xlb::BASELINE, dir.join("baseline.json"))
        .env(ctx::SEED, seed.to_string())
        .args(["--scale", &scale.to_string()])
        .args(options.direct.then_some("--direct"))
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .spawn()?;
    let limit = scenario.limit(scale);
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > end {
            break None;
        }
        sleep(Duration::from_millis(10));
    };
    let stacks = if status.is_none() {
        kernel_stacks(child.id())
    } else {
        String::new()
    };
    let _ = kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGKILL);
    let said = fs::read_to_string(&said).unwrap_or_default();
    if options.verbose || ((scenario.lasting_s)(scale) > 0 && status.is_some_and(|s| s.success())) {
        print!("{said}");
    }
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!(
            "{}{}",
            said.trim_end(),
            if status.code() == Some(1) {
                String::new()
            } else {
                format!(" ({status})")
            }
        ),
        None => bail!("no end within {} s\n{said}{stacks}", limit.as_secs()),
    }
}

/// Where the threads of a process that does not end are in the kernel.
fn kernel_stacks(pid: u32) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let stack = fs::read_to_string(entry.path().join("stack")).unwrap_or_default();
        text += &format!("{} {}{stack}", entry.file_name().to_string_lossy(), name);
    }
    text
}

fn make_cgroup(name: &str) -> Result<PathBuf> {
    let path = Path::new(CGROUPS).join(format!("t-{}", name.replace('/', "-")));
    fs::create_dir_all(&path).with_context(|| format!("make cgroup {}", path.display()))?;
    Ok(path)
}

/// Kills what is left in the cgroup and removes it.
fn end_cgroup(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.kill"), "1")?;
    let end = Instant::now() + SETTLE;
    loop {
        remove_children(path);
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => {
                let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                let stacks: String = pids
                    .lines()
                    .filter_map(|p| p.parse().ok())
                    .map(kernel_stacks)
                    .collect();
                bail!("processes that do not die: {error}; {pids}\n{stacks}");
            }
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

fn remove_children(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_children(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Deletes the configuration, checks that nothing is left, unloads policy and module (unless they are kept and clean).
/// `references`: how many there were to the module before, with the policy loaded.
fn remove_xlb(keep: bool, references: Option<u64>) -> Result<()> {
    if !xlb::is_loaded() {
        return Ok(());
    }
    let mut problems = Vec::new();
    let deleted = xlb::xlbctl(&["delete", "--all"])?;
    // A scenario may have unloaded the policy already.
    let has_policy = Path::new("/sys/fs/bpf/xlb").exists();
    if has_policy && deleted.code != Some(0) {
        problems.push(format!("xlbctl delete --all: {}", deleted.all()));
    }
    if has_policy {
        if let Err(error) = wait_empty(references) {
            problems.push(format!("{error:#}"));
        }
        if keep && problems.is_empty() {
            return Ok(());
        }
        let unloaded = xlb::xlbctl(&["unload"])?;
        if unloaded.code != Some(0) {
            problems.push(format!("xlbctl unload: {}", unloaded.all()));
            xlb::xlbctl(&["unload", "--force"])?;
        }
    }
    let end = Instant::now() + SETTLE;
    loop {
        let out = xlb::rmmod()?;
        if out.code == Some(0) {
            break;
        }
        if Instant::now() > end {
            problems.push(format!("rmmod: {}", out.all()));
            break;
        }
        sleep(Duration::from_millis(100));
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Waits until no p-sock and no i-sock is left, then until no reference to the module is that was not there before.
///
/// One after the other: the program by which xlbctl asks for the counters holds the module too, until a grace period
/// has passed over its end, so whoever looks right behind xlbctl always finds one more.
fn wait_empty(references: Option<u64>) -> Result<()> {
    let end = Instant::now() + SETTLE;
    loop {
        let counters = xlb::counters()?;
        let left = ["psocks", "psock_bytes", "isocks", "pending"]
            .into_iter()
            .map(|name| Ok((name, counters.get(name)?)))
            .collect::<Result<Vec<_>>>()?;
        if left.iter().all(|(_, n)| *n == 0) {
            break;
        }
        ensure!(Instant::now() < end, "left over: {left:?}");
        sleep(Duration::from_millis(50));
    }
    let Some(before) = references else {
        return Ok(());
    };
    let end = Instant::now() + SETTLE;
    loop {
        let held = xlb::references()?;
        if held <= before {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "left over: {held} references to the module, {before} before"
        );
        sleep(Duration::from_millis(50));
    }
}

/// kmemleak needs two scans some seconds apart before it reports.
fn scan_leaks() -> Result<()> {
    for _ in 0..2 {
        fs::write(KMEMLEAK, "scan").context("kmemleak")?;
        sleep(Duration::from_secs(6));
    }
    let report = fs::read_to_string(KMEMLEAK)?;
    ensure!(report.trim().is_empty(), "{report}");
    Ok(())
}
