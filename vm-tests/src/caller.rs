// SPDX-License-Identifier: GPL-2.0
//! Threads that wait in a system call: a test that needs one there looks, instead of giving it time.

use std::fs;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{anyhow, Context, Result};
use nix::libc::c_long;
use nix::unistd::{gettid, Pid};

/// A thread that makes a call.
pub struct Caller<T> {
    thread: JoinHandle<T>,
    id: Pid,
}

impl<T: Send + 'static> Caller<T> {
    pub fn start(call: impl FnOnce() -> T + Send + 'static) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _ = tell.send(gettid());
            call()
        });
        let id = told.recv()?;
        Ok(Self { thread, id })
    }

    /// See [`waits_in`].
    pub fn waits_in(&self, call: c_long) -> Result<bool> {
        waits_in(self.id, call)
    }

    pub fn join(self) -> Result<T> {
        self.thread.join().map_err(|_| anyhow!("a thread died"))
    }
}

/// Whether a thread of this process sleeps in the system call of this number: for one that runs there is no number
/// (`/proc/PID/syscall` in proc(5)). Fails when the thread has ended.
pub fn waits_in(thread: Pid, call: c_long) -> Result<bool> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/syscall"))
        .with_context(|| format!("thread {thread}"))?;
    let number = text.split_whitespace().next();
    Ok(number.and_then(|n| n.parse().ok()) == Some(call))
}
