// SPDX-License-Identifier: GPL-2.0
//! On the host: boots the machine through `env/env.sh vm-test` and passes on what the guest prints.
//!
//! A scenario that takes the kernel down takes the rest of the run with it, so the machine is booted again for
//! the scenarios that have not been run; the one that was running has failed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use clap::Parser;

use crate::cases;

/// Boots after which a broken kernel is not worth another minute.
const MAX_BOOTS: usize = 6;

#[derive(Parser)]
pub struct Options {
    /// Only scenarios with this text, or one of these between commas, in their name
    filter: Option<String>,
    /// The kernel: 7.2, 7.3 or a full version
    #[arg(long)]
    kernel: Option<String>,
    /// On the debug kernel
    #[arg(long)]
    debug: bool,
}

/// What one boot told.
#[derive(Default)]
struct Told {
    running: Option<String>,
    done: BTreeSet<String>,
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
    /// The guest got to its totals.
    ended: bool,
}

impl Told {
    fn line(&mut self, line: &str) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("..."), Some(name)) => self.running = Some(name.to_owned()),
            (Some("ok"), Some(name)) => {
                self.passed += 1;
                self.done.insert(name.to_owned());
                self.running = None;
            }
            (Some("skipped"), Some(name)) => {
                self.skipped += 1;
                self.done.insert(name.trim_end_matches(':').to_owned());
            }
            (Some("FAIL"), Some(name)) => {
                self.failed.push(name.to_owned());
                self.done.insert(name.to_owned());
                self.running = None;
            }
            (Some(count), Some("passed,")) if count.parse::<usize>().is_ok() => self.ended = true,
            _ => {}
        }
    }
}

/// Runs all that match; true when all passed and every machine ended in order.
pub fn run(options: &Options) -> Result<bool> {
    let mut left: Vec<&str> = cases::matching(options.filter.as_deref())
        .iter()
        .map(|s| s.name)
        .collect();
    ensure!(!left.is_empty(), "no scenario matches");
    let (mut passed, mut skipped, mut failed, mut clean) = (0, 0, Vec::new(), true);
    for _ in 0..MAX_BOOTS {
        let (told, in_order) = boot(options, &left)?;
        clean &= in_order;
        passed += told.passed;
        skipped += told.skipped;
        failed.extend(told.failed);
        left.retain(|name| !told.done.contains(*name));
        if let Some(name) = told.running {
            println!("FAIL {name}: the machine ended in it");
            left.retain(|other| *other != name);
            failed.push(name);
        } else if !told.ended && told.done.is_empty() {
            break; // it did not even begin: another boot would not either
        }
        if told.ended || left.is_empty() {
            break;
        }
    }
    for name in &left {
        println!("FAIL {name}: not run");
        failed.push((*name).to_owned());
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!(
        "{passed} passed, {} failed, {skipped} skipped",
        failed.len()
    );
    Ok(failed.is_empty() && clean)
}

fn boot(options: &Options, names: &[&str]) -> Result<(Told, bool)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("env/env.sh");
    let mut command = Command::new(&script);
    command
        .arg("vm-test")
        .env("FILTER", format!("--only {}", names.join(",")))
        .stdout(Stdio::piped());
    if let Some(kernel) = &options.kernel {
        command.env("KERNEL", kernel);
    }
    if options.debug {
        command.env("DEBUG", "1");
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", script.display()))?;
    let mut told = Told::default();
    for line in BufReader::new(child.stdout.take().context("stdout")?).lines() {
        let line = line?;
        println!("{line}");
        told.line(&line);
    }
    Ok((told, child.wait()?.success()))
}
