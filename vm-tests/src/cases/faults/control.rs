// SPDX-License-Identifier: GPL-2.0
//! xlbctl as a child whose allocations in the kernel fail: not those of its start, but from its first bpf(2) on.
//!
//! They have thousands, and one run of them takes a second on a kernel that looks for mistakes: of long ones so many are
//! tried, in equal steps.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitid, waitpid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use super::nth::prepare;
use crate::ctx::{shop_yaml, Ctx, VIP4};
use crate::script::Logging;
use crate::xlb;

const FIRST: &str = "127.0.1.1:8001";
const SECOND: &str = "127.0.1.2:8001";

/// More faults than any program comes to: the run that counts them.
const FAR: u32 = 1_000_000;

/// What a child did.
struct Ended {
    status: WaitStatus,
    said: String,
    /// How many places were left before the fault; 0: it was injected.
    left: u32,
}

impl Ended {
    fn code(&self) -> Option<i32> {
        match self.status {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        format!("{:?}: {}", self.status, self.said.trim())
    }
}

/// Runs a program whose n-th fault after the beginning of its first `call` is injected.
fn run(program: &str, args: &[&str], call: i64, n: u32, limit: Duration) -> Result<Ended> {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: One system call, between fork and exec.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from));
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let pid = Pid::from_raw(child.id() as i32);
    let fail_nth = format!("/proc/{pid}/fail-nth");
    waitpid(pid, None)?;
    loop {
        ptrace::syscall(pid, None)?;
        if let WaitStatus::Exited(..) | WaitStatus::Signaled(..) = waitpid(pid, None)? {
            bail!("{program} {args:?} ends before its system call {call}");
        }
        if ptrace::getregs(pid)?.orig_rax as i64 == call {
            break;
        }
    }
    fs::write(&fail_nth, n.to_string())?;
    ptrace::detach(pid, None)?;
    let end = Instant::now() + limit;
    // It stays a zombie, whose number can be read still.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags)? == WaitStatus::StillAlive {
        if Instant::now() > end {
            let stack = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
            kill(pid, Signal::SIGKILL)?;
            child.wait()?;
            bail!("{program} {args:?} hangs\n{stack}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let left = fs::read_to_string(&fail_nth)?.trim().parse()?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let status = waitpid(pid, None)?;
    Ok(Ended { status, said, left })
}

/// Runs it for each of at most `most` faults of all that it has. `judge` sees how each ended and says what that is.
fn sweep(
    what: &str,
    most: u32,
    mut run: impl FnMut(u32) -> Result<Ended>,
    mut judge: impl FnMut(&Ended) -> Result<&'static str>,
) -> Result<()> {
    let whole = run(FAR)?;
    ensure!(whole.code() == Some(0), "{what}: {}", whole.describe());
    judge(&whole)?;
    let all = FAR - whole.left;
    let step = all.div_ceil(most).max(1);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut injected = 0;
    let mut n = 1;
    while n <= all {
        let ended = run(n).with_context(|| format!("{what}: fault {n}"))?;
        if ended.left == 0 {
            injected += 1;
            let said = ended.describe();
            let went = judge(&ended).with_context(|| format!("{what}: fault {n}: {said}"))?;
            *outcomes.entry(went).or_default() += 1;
        }
        n += step;
    }
    let went: Vec<String> = outcomes.iter().map(|(o, n)| format!("{n} {o}")).collect();
    println!("{what}: {injected} faults of {all}: {}", went.join(", "));
    ensure!(injected >= 5, "{what}: {injected} faults");
    Ok(())
}

/// A program that got an error said so, or had no memory itself.
fn clean_end(ended: &Ended) -> Result<&'static str> {
    match ended.status {
        WaitStatus::Exited(_, 0) => Ok("done"),
        WaitStatus::Exited(_, 1) => {
            ensure!(!ended.said.trim().is_empty(), "exit 1 without a word");
            Ok("refused")
        }
        WaitStatus::Signaled(_, Signal::SIGABRT, _) if ended.said.contains("allocation") => {
            Ok("no memory of its own")
        }
        // What no library expects: nanosleep(2) that cannot write how long it has not slept (EFAULT).
        WaitStatus::Exited(_, 101) if ended.said.contains("std/src/sys/pal/unix/thread.rs") => {
            Ok("of the standard library")
        }
        _ => bail!("no clean end"),
    }
}

fn served(ctx: &Ctx, by: &[&str]) -> Result<()> {
    let vip = VIP4.parse()?;
    let mut conn = crate::http::Conn::open(vip, ctx.secs(20))?;
    let text = conn.get("/served")?.expect(200)?.text();
    let name = text.lines().next().unwrap_or("").to_owned();
    ensure!(
        by.contains(&name.as_str()),
        "served by {name:?}, not {by:?}"
    );
    Ok(())
}

pub fn xlbctl(ctx: &mut Ctx) -> Result<()> {
    let _first = Logging::start(FIRST)?;
    let _second = Logging::start(SECOND)?;
    prepare()?;
    let limit = ctx.secs(60);
    let one = shop_yaml(&[FIRST], "round_robin", "");
    let two = shop_yaml(&[SECOND], "round_robin", "");
    ctx.apply(&one)?;
    let one = ctx.file("one.yaml", &one)?.display().to_string();
    let two = ctx.file("two.yaml", &two)?.display().to_string();
    let bpf = libc::SYS_bpf;
    for args in [
        &["get", "services"][..],
        &["get", "sockets"],
        &["get", "pools"],
        &["status"],
    ] {
        sweep(
            &format!("xlbctl {}", args.join(" ")),
            25,
            |n| run("xlbctl", args, bpf, n, limit),
            clean_end,
        )?;
    }
    let mut turn = false;
    sweep(
        "xlbctl apply",
        50,
        |n| {
            turn = !turn;
            let file = if turn { &two } else { &one };
            run("xlbctl", &["apply", "-f", file], bpf, n, limit)
        },
        |ended| {
            let went = clean_end(ended)?;
            // The old or the new one.
            served(ctx, &[FIRST, SECOND])?;
            Ok(went)
        },
    )?;
    for (file, name) in [(&one, FIRST), (&two, SECOND)] {
        let out = xlb::xlbctl(&["apply", "-f", file])?;
        ensure!(out.code == Some(0), "apply afterwards: {}", out.all());
        served(ctx, &[name])?;
    }
    sweep(
        "xlbctl unload and load",
        10,
        |n| {
            let out = xlb::xlbctl(&["load"])?;
            ensure!(out.code == Some(0), "load: {}", out.all());
            run("xlbctl", &["unload"], bpf, n, limit)
        },
        clean_end,
    )?;
    sweep(
        "xlbctl load",
        15,
        |n| {
            xlb::xlbctl(&["unload", "--force"])?;
            run("xlbctl", &["load"], bpf, n, limit)
        },
        clean_end,
    )?;
    let out = xlb::xlbctl(&["apply", "-f", &one])?;
    ensure!(out.code == Some(0), "apply at the end: {}", out.all());
    served(ctx, &[FIRST])?;
    Ok(())
}
