// SPDX-License-Identifier: GPL-2.0
//! Clients that come in cgroups and network namespaces of their own, which go while their sockets are open.
//!
//! A cgroup is a threaded one, so that one thread can be in it: a socket is its cgroup's as one of a process would be.
//! What a cgroup's memory.max does is not here: it has no threads; `memory/` has it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sched::{setns, unshare, CloneFlags};
use nix::unistd::gettid;

use super::ask::BACKENDS;
use super::backends::Backend;
use super::chance::Rng;
use super::clients::Client;
use super::world::World;
use crate::ctx::run_for;

/// Actors from here on are visitors.
const FIRST: u32 = 300;
const VISITORS: u32 = 3;

struct Visitor {
    world: Arc<World>,
    actor: u32,
    client: Client,
    /// The namespace that it is at home in.
    home: File,
}

/// Starts all of them; they end with the storm.
pub fn start(world: &Arc<World>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for actor in FIRST..FIRST + VISITORS {
        let world = Arc::clone(world);
        let run = move || {
            let mut visits = 0;
            let result = Visitor::new(&world, actor).and_then(|mut visitor| {
                while !world.is_over() {
                    visits += 1;
                    visitor.visit(visits)?;
                }
                Ok(())
            });
            if let Err(error) = result {
                world.fail(actor, visits, "a visit", &error);
            }
        };
        let name = format!("visitor-{actor}");
        threads.push(thread::Builder::new().name(name).spawn(run)?);
    }
    Ok(threads)
}

impl Visitor {
    fn new(world: &Arc<World>, actor: u32) -> Result<Self> {
        Ok(Self {
            world: Arc::clone(world),
            actor,
            client: Client::new(world, actor),
            home: File::open("/proc/thread-self/ns/net")?,
        })
    }

    fn visit(&mut self, number: u64) -> Result<()> {
        let mut rng = Rng::of(self.world.seed, self.actor, number << 32);
        match rng.below(3) {
            0 => self.in_cgroup(number, |this| this.take_steps(&mut rng))?,
            1 => self.in_namespace(|this| this.take_steps(&mut rng))?,
            _ => self.in_cgroup(number, |this| {
                this.in_namespace(|this| this.take_steps(&mut rng))
            })?,
        }
        Ok(())
    }

    fn take_steps(&mut self, rng: &mut Rng) -> Result<()> {
        for _ in 0..rng.from(1, 20) {
            if !self.world.is_over() {
                self.client.take_step();
            }
        }
        Ok(())
    }

    /// The connection that it has then goes on after the cgroup is gone.
    fn in_cgroup(&mut self, number: u64, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let all = own_cgroup()?;
        let own = all.join(format!("storm-{}-{number}", self.actor));
        fs::create_dir(&own)?;
        fs::write(own.join("cgroup.type"), "threaded").context("cgroup.type")?;
        let thread = gettid().to_string();
        fs::write(own.join("cgroup.threads"), &thread).context("cgroup.threads")?;
        // One more that was opened before would be of another cgroup.
        self.client.link = None;
        let result = work(self);
        fs::write(all.join("cgroup.threads"), &thread).context("cgroup.threads")?;
        // A process that was forked in it may have some way to its end.
        let since = Instant::now();
        while let Err(error) = fs::remove_dir(&own) {
            if since.elapsed() > self.world.bound {
                bail!("{}: {error}", own.display());
            }
            sleep(Duration::from_millis(10));
        }
        self.world.count("a cgroup", "came and went");
        result
    }

    /// With backends of its own, which go with it: so does the connection, now and then after it.
    fn in_namespace(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.client.link = None;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let gone = Arc::new(AtomicBool::new(false));
        let result = self.with_backends(&gone, work);
        setns(&self.home, CloneFlags::CLONE_NEWNET)?;
        gone.store(true, Ordering::SeqCst);
        if self.client.step % 2 == 0 {
            sleep(Duration::from_millis(self.client.step % 100));
        }
        self.client.link = None;
        self.world.count("a namespace", "came and went");
        result
    }

    fn with_backends(
        &mut self,
        gone: &Arc<AtomicBool>,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let out = run_for(self.world.bound, "ip", &["link", "set", "lo", "up"])?;
        ensure!(out.code == Some(0), "ip: {}", out.all());
        for number in 1..=BACKENDS {
            Backend::start_until(&self.world, number, gone)?;
        }
        work(self)
    }
}

/// The folder of this process's cgroup.
fn own_cgroup() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(PathBuf::from("/sys/fs/cgroup").join(path.context("no cgroup v2")?))
}
