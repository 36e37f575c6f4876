// SPDX-License-Identifier: GPL-2.0
//! Loading, attaching and pinning of the BPF programs.
//!
//! Under /sys/fs/bpf/xlb stand the maps, the control program, one link for each connect program and one for
//! the policy.  The links are pinned last and removed first: what is pinned serves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore as _, MapFlags, ProgramType};
use nix::time::{clock_gettime, ClockId};

use super::ctl::Ctl;
use super::preflight::{self, BPFFS};
use super::raw;
use crate::error::{Context, Error};
use crate::intf::Pod as _;

mod connect {
    include!(concat!(env!("OUT_DIR"), "/connect.skel.rs"));
}
mod policy {
    include!(concat!(env!("OUT_DIR"), "/policy.skel.rs"));
}

pub const LINKS: [&str; 3] = ["connect4", "connect6", "policy"];

const PROGRAMS: [&str; 5] = ["connect4", "connect6", "route", "pick", "done"];

/// Which programs these are: changes with every byte of them.
pub const BUILD: u64 = include!(concat!(env!("OUT_DIR"), "/build.rs"));

/// What the programs that are loaded were given, see `policy.bpf.c`.
#[derive(Clone, Copy, Default)]
pub struct Loaded {
    pub epoch: u64,
    pub build: u64,
}

/// Of those that are loaded now.
pub fn loaded() -> Result<Loaded, Error> {
    let map = raw::open(&pin("rodata"))?;
    let bytes = map
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .context("cannot read a map")?
        .unwrap_or_default();
    let word = |n: usize| u64::from_bytes(bytes.get(n * 8..).unwrap_or(&[])).unwrap_or(0);
    Ok(Loaded {
        epoch: word(0),
        build: word(1),
    })
}

pub fn dir() -> PathBuf {
    Path::new(BPFFS).join("xlb")
}

pub fn pin(name: &str) -> PathBuf {
    dir().join(name)
}

/// All links are there.
pub fn are_loaded() -> bool {
    missing_links().is_empty()
}

pub fn missing_links() -> Vec<&'static str> {
    LINKS
        .into_iter()
        .filter(|name| !pin(&format!("link_{name}")).exists())
        .collect()
}

/// Loads, pins and attaches everything, `ctl` too; on failure nothing stays.
pub fn load(ctl: &Ctl) -> Result<(), Error> {
    let problems = preflight::problems();
    if !problems.is_empty() {
        return Err(Error::system(problems.join("\nxlbctl: ")));
    }
    // What an interrupted load has left.
    remove()?;
    fs::create_dir(dir()).context(dir().display())?;
    load_all(ctl).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = remove();
    })
}

/// As messages call them.
pub(super) const POLICY: &str = "the policy";
pub(super) const CONNECT: &str = "the connect programs";

/// With the constants of [`Loaded`]. Skeletons borrow their objects; xlbctl opens each once and ends.
pub(super) fn open_policy(epoch: u64) -> Result<policy::OpenPolicySkel<'static>, Error> {
    let storage = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = policy::PolicySkelBuilder::default()
        .open(storage)
        .map_err(|err| super::load_error(POLICY, &err))?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.epoch = epoch;
        rodata.build = BUILD;
    }
    Ok(open)
}

pub(super) fn open_connect() -> Result<connect::OpenConnectSkel<'static>, Error> {
    let storage = Box::leak(Box::new(MaybeUninit::uninit()));
    connect::ConnectSkelBuilder::default()
        .open(storage)
        .map_err(|err| super::load_error(CONNECT, &err))
}

pub(super) fn load_skeleton<'o, S: OpenSkel<'o>>(what: &str, open: S) -> Result<S::Output, Error> {
    open.load().map_err(|err| super::load_error(what, &err))
}

fn load_all(ctl: &Ctl) -> Result<(), Error> {
    super::quiet_libbpf();
    let cgroup = preflight::cgroup_root()
        .ok_or_else(|| Error::system("no cgroup v2 file system is mounted"))?;
    let cgroup = File::open(&cgroup).context(cgroup.display())?;

    let mut policy = load_skeleton(POLICY, open_policy(uptime_ns()?)?)?;
    let mut connect = load_skeleton(CONNECT, open_connect()?)?;

    let maps = &mut policy.maps;
    for (name, map) in [
        ("services", &mut maps.services),
        ("clusters", &mut maps.clusters),
        ("document", &mut maps.document),
        ("states", &mut maps.states),
        ("stats", &mut maps.stats),
        ("rodata", &mut maps.rodata),
        ("vips", &mut connect.maps.vips),
        ("cgroups", &mut connect.maps.cgroups),
        ("connects", &mut connect.maps.connects),
    ] {
        map.pin(pin(name))
            .context(format!("cannot pin map {name}"))?;
    }

    ctl.pin()?;

    let busy = "is another policy attached to the module?";
    let mut link = maps
        .policy
        .attach_struct_ops()
        .context(format!("cannot attach the policy ({busy})"))?;
    link.pin(pin("link_policy"))
        .context("cannot pin the policy")?;
    for (name, program) in [
        ("connect4", &connect.progs.connect4),
        ("connect6", &connect.progs.connect6),
    ] {
        let mut link = program
            .attach_cgroup(cgroup.as_raw_fd())
            .context(format!("cannot attach {name} to the root cgroup"))?;
        link.pin(pin(&format!("link_{name}")))
            .context(format!("cannot pin {name}"))?;
    }
    Ok(())
}

/// Above what every load before has reached: decisions of an earlier one are not counted.
fn uptime_ns() -> Result<u64, Error> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("the monotonic clock")?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}

/// What the verifier had to do for each program that is loaded, in instructions.
pub fn verified_insns() -> BTreeMap<String, u32> {
    ProgInfoIter::default()
        .filter(|info| {
            matches!(
                info.ty,
                ProgramType::StructOps | ProgramType::CgroupSockAddr
            )
        })
        .map(|info| {
            (
                info.name.to_string_lossy().into_owned(),
                info.verified_insns,
            )
        })
        .filter(|(name, _)| PROGRAMS.contains(&name.as_str()))
        .collect()
}

/// No new sockets from here on.
pub fn detach_connect() -> Result<(), Error> {
    unpin("link_connect4")?;
    unpin("link_connect6")
}

/// Absence is no error.
pub(super) fn unpin(name: &str) -> Result<(), Error> {
    let path = pin(name);
    match fs::remove_file(&path) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err).context(path.display()),
        _ => Ok(()),
    }
}

/// Removes everything: first what brings new sockets, then the policy, then the maps.
pub fn remove() -> Result<(), Error> {
    detach_connect()?;
    unpin("link_policy")?;
    let dir = dir();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err).context(dir.display()),
    };
    for entry in entries.flatten() {
        fs::remove_file(entry.path()).context(entry.path().display())?;
    }
    fs::remove_dir(&dir).context(dir.display())
}
