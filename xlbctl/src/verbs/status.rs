// SPDX-License-Identifier: GPL-2.0
//! `xlbctl status`

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::pins::{lines, pins, Pin};
use crate::cli::Format;
use crate::output;
use xlb_control::document::Document;
use xlb_control::error::Error;
use xlb_control::intf::{self, xlb_info, Reason, REASONS};
use xlb_control::kernel::commit::Maps;
use xlb_control::kernel::ctl::{Count, Counts, Ctl};
use xlb_control::kernel::{cgroup, lock, preflight, programs};

#[derive(Default, Serialize)]
struct Status {
    active: bool,
    problems: Vec<String>,
    warnings: Vec<String>,
    /// Sockets that are served no more and keep the module from going.
    pinned_by: Vec<Pin>,
    module: Option<String>,
    abi: Option<u32>,
    policy: Option<String>,
    generation: Option<u64>,
    services: usize,
    clusters: usize,
    /// Instructions that the verifier walked for each program: a measure of its cost to load.
    verified_insns: BTreeMap<String, u32>,
    connects: BTreeMap<&'static str, u64>,
    counters: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    engine_reasons: BTreeMap<String, u64>,
    /// Their names in the module's order.
    #[serde(skip)]
    order: Vec<String>,
}

/// How long another xlbctl is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(args: &Format) -> Result<(), Error> {
    let status = settled();
    output::emit(args.output, &status, text)?;
    if status.active {
        return Ok(());
    }
    Err(Error::system(format!(
        "layer-7 balancing is not active: {}",
        status
            .problems
            .first()
            .map_or("unknown reason", String::as_str)
    )))
}

/// What another xlbctl is in the middle of is no state to tell: where something is amiss, its end is waited for.
fn settled() -> Status {
    let start = Instant::now();
    let mut was_quiet = false;
    loop {
        let holder = lock::held_by();
        let mut status = look();
        if status.active {
            return status;
        }
        match holder.or_else(lock::held_by) {
            // One may have begun and ended meanwhile: it is looked at once more.
            None if was_quiet => return status,
            None => was_quiet = true,
            Some(who) if start.elapsed() > PATIENCE => {
                status.problems.insert(0, format!("{who} is at work"));
                return status;
            }
            Some(_) => {
                was_quiet = false;
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn look() -> Status {
    let mut status = Status {
        problems: preflight::problems(),
        ..Status::default()
    };
    if !status.problems.is_empty() {
        return status;
    }
    match Ctl::open().and_then(|ctl| Ok((ctl.info()?, ctl.counts()?, ctl.sockets()?))) {
        Ok((info, counts, sockets)) => {
            module(&mut status, &info, &counts);
            status.pinned_by = pins(&sockets, info.policy != 0);
        }
        Err(err) => status.problems.push(plain(&err)),
    }
    let missing = programs::missing_links();
    if missing.len() == programs::LINKS.len() {
        status
            .problems
            .push("nothing is loaded: run xlbctl apply -f FILE".to_owned());
    } else if !missing.is_empty() {
        status.problems.push(format!(
            "not attached: {}: run xlbctl unload, then apply again",
            missing.join(", ")
        ));
    } else {
        match Maps::open().and_then(|maps| maps.document().map(|document| (maps, document))) {
            Ok((maps, document)) => applied(&mut status, &maps, &document),
            Err(err) => status.problems.push(plain(&err)),
        }
    }
    status.active = status.problems.is_empty();
    status
}

fn plain(err: &Error) -> String {
    err.to_string().trim_start_matches("xlbctl: ").to_owned()
}

fn module(status: &mut Status, info: &xlb_info, counts: &Counts) {
    status.module = Some(intf::text(&info.module_version));
    status.abi = Some(info.abi);
    if info.policy != 0 {
        status.policy = Some(intf::text(&info.policy_name));
    } else if programs::are_loaded() {
        status.problems.push(
            "no policy is attached to the module: run xlbctl unload, then apply again".to_owned(),
        );
    }
    let entry = |count: &Count| (count.name.clone(), count.value);
    let seen = |kind| counts.of(kind).filter(|count| count.value > 0).map(entry);
    status.counters = counts.counters().map(entry).collect();
    status.order = counts.counters().map(|count| count.name.clone()).collect();
    status.reasons = seen(intf::XLB_COUNT_REASON).collect();
    status.engine_reasons = seen(intf::XLB_COUNT_ENGINE).collect();
}

fn applied(status: &mut Status, maps: &Maps, document: &Document) {
    status.verified_insns = programs::verified_insns();
    status.generation = Some(document.generation);
    status.services = document.config.services.len();
    status.clusters = document.config.clusters.len();
    let names = [
        "accepted",
        "refused",
        "other_cgroup",
        "no_endpoint",
        "no_memory",
    ];
    status.connects = names.into_iter().zip(maps.connects()).collect();
    if document.pending {
        status
            .problems
            .push("the last apply was cut off: apply again".to_owned());
    }
    if document.config.services.is_empty() {
        status
            .problems
            .push("no service is configured: run xlbctl apply -f FILE".to_owned());
    }
    for (path, id) in &document.cgroups {
        match cgroup::id_of(path) {
            Some(now) if now == *id => {}
            Some(_) => status
                .problems
                .push(format!("cgroup {path} was made anew: apply again")),
            None => status.warnings.push(format!(
                "cgroup {path} is gone: its service serves no one there"
            )),
        }
    }
    if status.connects.get("refused").is_some_and(|n| *n > 0) {
        status.warnings.push(
            "connects to a VIP were left as plain TCP, for the socket belongs to something else \
             (sockmap, kTLS, MPTCP, SMC)"
                .to_owned(),
        );
    }
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<12} {value}\n"));
    line(
        "layer 7",
        if status.active {
            "active"
        } else {
            "NOT ACTIVE"
        },
    );
    for problem in &status.problems {
        line("problem", problem);
    }
    for warning in &status.warnings {
        line("warning", warning);
    }
    for pin in lines(&status.pinned_by) {
        line("pinned by", &pin);
    }
    if let (Some(module), Some(abi)) = (&status.module, status.abi) {
        line("module", &format!("xlb {module}, ABI {abi}"));
    }
    line("policy", status.policy.as_deref().unwrap_or("none"));
    if let Some(generation) = status.generation {
        line(
            "applied",
            &format!(
                "generation {generation}: {} services, {} clusters",
                status.services, status.clusters
            ),
        );
    }
    if !status.verified_insns.is_empty() {
        let programs: Vec<_> = status
            .verified_insns
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        line("verified", &format!("{} instructions", programs.join(", ")));
    }
    for (name, n) in &status.connects {
        line("connects", &format!("{name} {n}"));
    }
    for name in &status.order {
        if let Some(n) = status.counters.get(name).filter(|n| **n > 0) {
            let help = intf::counter_help(name);
            out.push_str(&format!("  {name:<16} {n:>14}  {help}\n"));
        }
    }
    for (name, n) in &status.reasons {
        let known = REASONS.iter().find(|reason| reason.name == name);
        let text = match known {
            Some(Reason {
                status: 0, help, ..
            }) => (*help).to_owned(),
            Some(Reason { status, help, .. }) => format!("{status}: {help}"),
            None => String::new(),
        };
        if known.is_none_or(|reason| reason.name != "ok") {
            out.push_str(&format!("  {name:<16} {n:>14}  {text}\n"));
        }
    }
    for (name, n) in &status.engine_reasons {
        out.push_str(&format!("  {name:<16} {n:>14}  engine\n"));
    }
    out
}
