// SPDX-License-Identifier: GPL-2.0
//! The module and xlbctl, as an administrator uses them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::ctx::{run_for, Output};

/// Long, because the verifier is slow on an emulated machine whose host is busy.
const LIMIT: Duration = Duration::from_secs(300);

/// Where the VM keeps the module, unless the environment says otherwise.
pub fn module_path() -> String {
    std::env::var("XLB_KO").unwrap_or_else(|_| "/lib/xlb/xlb.ko".to_owned())
}

pub fn is_loaded() -> bool {
    Path::new("/sys/module/xlb").exists()
}

/// How many hold the module in place.
pub fn references() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/module/xlb/refcnt").context("refcnt of xlb")?;
    text.trim().parse().context("refcnt of xlb")
}

pub fn insmod(args: &[&str]) -> Result<Output> {
    let path = module_path();
    let mut all = vec![path.as_str()];
    all.extend(args);
    run_for(LIMIT, "insmod", &all)
}

pub fn rmmod() -> Result<Output> {
    run_for(LIMIT, "rmmod", &["xlb"])
}

pub fn xlbctl(args: &[&str]) -> Result<Output> {
    run_for(LIMIT, "xlbctl", args)
}

/// `xlbctl ... -o json`, parsed.
pub fn json(args: &[&str]) -> Result<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json"]);
    let out = xlbctl(&all)?;
    serde_json::from_str(&out.stdout).with_context(|| format!("xlbctl {all:?}: {}", out.all()))
}

/// The module's counters, by the names of `XLB_COUNTERS`, and reasons, by those of `XLB_REASONS`.
#[derive(Deserialize)]
pub struct Counters {
    counters: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
}

impl Counters {
    pub fn get(&self, name: &str) -> Result<u64> {
        let counters = &self.counters;
        counters
            .get(name)
            .copied()
            .with_context(|| format!("xlbctl status has no counter {name}: {counters:?}"))
    }

    /// A reason that never was is not listed.
    pub fn reason(&self, name: &str) -> u64 {
        self.reasons.get(name).copied().unwrap_or(0)
    }
}

/// Prints what XLB and TCP hold at this moment, for a scenario that is about to fail.
pub fn explain() {
    if !is_loaded() {
        return;
    }
    let commands: [(&str, &[&str]); 4] = [
        ("xlbctl", &["get", "sockets"]),
        ("xlbctl", &["get", "pools"]),
        ("xlbctl", &["status"]),
        ("ss", &["-tnoi"]),
    ];
    for (program, args) in commands {
        if let Ok(out) = run_for(LIMIT, program, args) {
            println!("$ {program} {}\n{}", args.join(" "), out.all());
        }
    }
}

/// Names the file with the counters at the scenario's beginning, when the module is older than the scenario.
pub const BASELINE: &str = "XLB_BASELINE";

/// Counters that say how much there is now, not how much there was.
pub const GAUGES: [&str; 8] = [
    "psocks",
    "psock_bytes",
    "isocks",
    "isocks_idle",
    "isock_bytes",
    "pools",
    "pending",
    "identities",
];

/// Reads the counters from `xlbctl status -o json`, since the scenario's beginning.
pub fn counters() -> Result<Counters> {
    let status = json(&["status"])?;
    let mut now: Counters = serde_json::from_value(status.clone())
        .with_context(|| format!("xlbctl status: {status}"))?;
    let before = std::env::var(BASELINE)
        .ok()
        .and_then(|file| std::fs::read_to_string(file).ok());
    if let Some(before) = before.and_then(|text| serde_json::from_str::<Counters>(&text).ok()) {
        for (name, value) in &mut now.counters {
            if !GAUGES.contains(&name.as_str()) {
                *value = value.saturating_sub(before.counters.get(name).copied().unwrap_or(0));
            }
        }
        for (name, value) in &mut now.reasons {
            *value = value.saturating_sub(before.reasons.get(name).copied().unwrap_or(0));
        }
    }
    Ok(now)
}
