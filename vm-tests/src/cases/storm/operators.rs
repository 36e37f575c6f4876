// SPDX-License-Identifier: GPL-2.0
//! The operators of a storm: they apply one configuration after another, look at what there is, and take the module
//! away and bring it back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use super::chance::Rng;
use super::documents;
use super::world::World;
use crate::ctx::Output;
use crate::xlb;

/// Actors from here on are operators.
const FIRST: u32 = 200;

/// Who works at the module and the configuration; only one of them reloads, and nobody applies meanwhile.
pub struct Operators {
    world: Arc<World>,
    dir: PathBuf,
    reloading: AtomicBool,
}

/// One step of an operator.
type Job = fn(&Operators, &mut Rng) -> Result<()>;

/// Starts all of them; they end with the storm.
pub fn start(world: &Arc<World>, dir: &Path) -> Result<Vec<JoinHandle<()>>> {
    let this = Arc::new(Operators {
        world: Arc::clone(world),
        dir: dir.to_owned(),
        reloading: AtomicBool::new(false),
    });
    let mut threads = Vec::new();
    let jobs: [(&str, bool, Job); 4] = [
        ("apply", true, Operators::apply),
        ("reload", true, Operators::reload),
        ("look", false, Operators::look),
        ("look-too", false, Operators::look),
    ];
    for (number, (name, disturbs, job)) in jobs.into_iter().enumerate() {
        if disturbs {
            world.will_disturb();
        }
        let this = Arc::clone(&this);
        let actor = FIRST + number as u32;
        let run = move || this.run(actor, name, disturbs, job);
        threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
    }
    Ok(threads)
}

impl Operators {
    fn run(&self, actor: u32, name: &str, disturbs: bool, job: Job) {
        let mut step = 0;
        while !self.world.is_over() {
            let mut rng = Rng::of(self.world.seed, actor, step);
            let result = if disturbs && self.world.wants_calm() {
                // Only the applier has something to put in order.
                let order = if name == "apply" {
                    self.apply_whole()
                } else {
                    Ok(())
                };
                self.world.shelter();
                order
            } else {
                step += 1;
                job(self, &mut rng)
            };
            if let Err(error) = result {
                self.world.fail(actor, step, name, &error);
            }
        }
        if name == "apply" {
            if let Err(error) = self.apply_whole() {
                self.world.fail(actor, step, "the last apply", &error);
            }
        }
    }

    fn reloads(&self) -> u64 {
        self.world.reloads.load(Ordering::SeqCst)
    }

    /// Runs xlbctl; `None` when the module went or came meanwhile, which excuses whatever it said.
    fn xlbctl(&self, args: &[&str]) -> Result<Option<Output>> {
        let before = self.reloads();
        let begin = Instant::now();
        let out = xlb::xlbctl(args)?;
        let took = begin.elapsed();
        ensure!(took < self.world.bound * 4, "xlbctl {args:?} took {took:?}");
        let excused = before % 2 == 1 || self.reloads() != before;
        ensure!(
            matches!(out.code, Some(0 | 1)),
            "xlbctl {args:?}: exit {:?}\n{}",
            out.code,
            out.all()
        );
        if excused {
            return Ok(None);
        }
        ensure!(
            out.code == Some(0),
            "xlbctl {args:?}: exit {:?}\n{}",
            out.code,
            out.all()
        );
        Ok(Some(out))
    }

    fn apply_text(&self, yaml: &str) -> Result<bool> {
        let file = self.dir.join("storm.yaml");
        std::fs::write(&file, yaml)?;
        let file = file.display().to_string();
        let out = self
            .xlbctl(&["apply", "--prune", "-f", &file])
            .with_context(|| yaml.to_owned())?;
        Ok(out.is_some())
    }

    fn apply(&self, rng: &mut Rng) -> Result<()> {
        if !self.reloading.load(Ordering::SeqCst) {
            let yaml = documents::drawn(rng);
            let told = self.apply_text(&yaml)?;
            self.world
                .count("xlbctl apply", if told { "applied" } else { "in a reload" });
        }
        self.world
            .pause(Duration::from_millis(rng.from(10, 1000) as u64));
        Ok(())
    }

    fn apply_whole(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            if !self.reloading.load(Ordering::SeqCst) && self.apply_text(&documents::whole())? {
                return Ok(());
            }
            let limit = self.world.bound * 10;
            ensure!(since.elapsed() < limit, "no apply within {limit:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// The module goes, whatever is at work, and comes back.
    fn reload(&self, rng: &mut Rng) -> Result<()> {
        let pause = Duration::from_millis(rng.from(4000, 12_000) as u64);
        let until = Instant::now() + self.world.slowly(pause);
        while Instant::now() < until && !self.world.wants_calm() {
            sleep(Duration::from_millis(20));
        }
        if self.world.wants_calm() {
            return Ok(());
        }
        self.reloading.store(true, Ordering::SeqCst);
        self.world.reloads.fetch_add(1, Ordering::SeqCst);
        let result = self.go_and_come(rng);
        self.world.reloads.fetch_add(1, Ordering::SeqCst);
        self.reloading.store(false, Ordering::SeqCst);
        result
    }

    fn go_and_come(&self, rng: &mut Rng) -> Result<()> {
        let begin = Instant::now();
        let limit = self.world.bound * 4;
        loop {
            // A response that its client has still to read pins the module, and so does an apply that had begun.
            let unloaded = xlb::xlbctl(&["unload", "--force"])?;
            ensure!(
                unloaded.code == Some(0),
                "xlbctl unload --force: {}",
                unloaded.all()
            );
            let removed = xlb::rmmod()?;
            if removed.code == Some(0) {
                break;
            }
            if begin.elapsed() > limit {
                bail!(
                    "no rmmod within {limit:?}: {}\n{}",
                    removed.all(),
                    unloaded.all()
                );
            }
        }
        self.world.count("rmmod", "done");
        self.world
            .pause(Duration::from_millis(rng.below(500) as u64));
        let out = xlb::insmod(&[])?;
        ensure!(out.code == Some(0), "insmod: {}", out.all());
        let file = self.dir.join("storm-again.yaml");
        std::fs::write(&file, documents::drawn(rng))?;
        let out = xlb::xlbctl(&["apply", "--prune", "-f", &file.display().to_string()])?;
        ensure!(out.code == Some(0), "apply after insmod: {}", out.all());
        Ok(())
    }

    fn look(&self, rng: &mut Rng) -> Result<()> {
        let args: &[&str] = rng.of_these(&[
            &["get", "sockets", "-o", "json"],
            &["get", "pools", "-o", "json"],
            &["get", "endpoints", "-o", "json"],
            &["get", "clusters", "-o", "json"],
            &["get", "routes"],
            &["stats", "-o", "json"],
            &["status", "-o", "json"],
        ]);
        if let Some(out) = self.xlbctl(args)? {
            if args.contains(&"json") {
                serde_json::from_str::<serde_json::Value>(&out.stdout)
                    .with_context(|| format!("xlbctl {args:?}: {}", out.all()))?;
            }
            self.world.count("xlbctl get", args[..2].join(" "));
        }
        self.world
            .pause(Duration::from_millis(rng.from(200, 3000) as u64));
        Ok(())
    }
}
