// SPDX-License-Identifier: GPL-2.0
//! Replacing the loaded policy by this xlbctl's, under load and without a failed request.
//!
//! The module calls the policy through one pointer, which a struct_ops link swaps.  Where the new policy reads the maps of
//! the old one (same XLB_LAYOUT), it takes them over.  Where it does not, maps of its own are filled from the
//! applied document first, while the old policy serves; state, counters and VIPs are taken over all the same, for
//! numbers and slots stay.  A request that was decided before the swap and needs another endpoint finds
//! another generation, and is decided anew.
//!
//! In order: the new maps are pinned under names of their own, the links change, the pins take the names of the old
//! ones.  What is cut off leaves such a name, and the next load or apply does all of it again: both maps have the document.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use libbpf_rs::{libbpf_sys, Link, MapHandle, OpenMapMut};
use nix::errno::Errno;

use super::commit::{self, Maps};
use super::ctl::Ctl;
use super::programs::{self, pin};
use super::raw;
use crate::error::{Context, Error};
use crate::intf::XLB_LAYOUT;

/// Maps whose contents are of one layout.
const OF_LAYOUT: [&str; 3] = ["services", "clusters", "document"];

/// Where a map is pinned until it takes the place of the old one.
fn new_pin(name: &str) -> PathBuf {
    pin(&format!("new_{name}"))
}

/// Whether one was cut off.
pub fn is_unfinished() -> bool {
    OF_LAYOUT
        .iter()
        .chain(&["rodata"])
        .any(|name| new_pin(name).exists())
}

/// Puts this xlbctl's programs in place of those that are loaded.
pub fn run() -> Result<(), Error> {
    super::quiet_libbpf();
    commit::ensure_format()?;
    let old = commit::stored(&raw::open(&pin("document"))?)?;
    let same = old.layout() == XLB_LAYOUT && !is_unfinished();
    forget_new_pins()?;

    let mut open = programs::open_policy(programs::loaded()?.epoch)?;
    let maps = &mut open.maps;
    let mut reuse = vec![("states", &mut maps.states), ("stats", &mut maps.stats)];
    if same {
        reuse.extend([
            ("services", &mut maps.services),
            ("clusters", &mut maps.clusters),
            ("document", &mut maps.document),
        ]);
    }
    for (name, map) in reuse {
        take_over(name, map)?;
    }
    let mut policy = programs::load_skeleton(programs::POLICY, open)?;

    let mut open = programs::open_connect()?;
    for (name, map) in [
        ("vips", &mut open.maps.vips),
        ("cgroups", &mut open.maps.cgroups),
        ("connects", &mut open.maps.connects),
    ] {
        take_over(name, map)?;
    }
    let connect = programs::load_skeleton(programs::CONNECT, open)?;

    let mut pins = Vec::new();
    if !same {
        let maps = &policy.maps;
        let [services, clusters, document] = [&maps.services, &maps.clusters, &maps.document]
            .map(|map| MapHandle::try_from(map).context("a map of the new policy"));
        Maps::of_layout(services?, clusters?, document?)?.fill(&old.whole()?)?;
        pins.extend([
            ("services", &mut policy.maps.services),
            ("clusters", &mut policy.maps.clusters),
            ("document", &mut policy.maps.document),
        ]);
    }
    pins.push(("rodata", &mut policy.maps.rodata));
    let names: Vec<&str> = pins.iter().map(|(name, _)| *name).collect();
    for (name, map) in pins {
        map.pin(new_pin(name))
            .context(format!("cannot pin map {name}"))?;
    }
    swap_policy(&mut policy.maps.policy)?;
    for (name, program) in [
        ("connect4", &connect.progs.connect4),
        ("connect6", &connect.progs.connect6),
    ] {
        let path = pin(&format!("link_{name}"));
        Link::open(&path)
            .context(path.display())?
            .update_prog(program)
            .context(format!("cannot replace {name}"))?;
    }
    // The old one is not to be taken for this build's.
    Ctl::unpin()?;
    for name in names {
        fs::rename(new_pin(name), pin(name)).context(pin(name).display())?;
    }
    Ctl::load()?.pin()
}

fn take_over(name: &str, map: &mut OpenMapMut<'_>) -> Result<(), Error> {
    map.reuse_pinned_map(pin(name))
        .context(format!("cannot take over map {name}"))
}

fn forget_new_pins() -> Result<(), Error> {
    for name in OF_LAYOUT.iter().chain(&["rodata"]) {
        programs::unpin(&format!("new_{name}"))?;
    }
    Ok(())
}

/// The module has one policy: a link of its own is refused to the new one, which leaves its map ready, and then the old
/// link takes it.  libbpf's own call for that wants a link that it has made itself.
fn swap_policy(map: &mut libbpf_rs::MapMut<'_>) -> Result<(), Error> {
    let path = pin("link_policy");
    match map.attach_struct_ops() {
        // There was none, after all.
        Ok(mut link) => {
            programs::unpin("link_policy")?;
            return link.pin(path).context("cannot pin the policy");
        }
        Err(err) if err.kind() == libbpf_rs::ErrorKind::AlreadyExists => {}
        Err(err) => return Err(err).context("cannot attach the policy"),
    }
    let link = Link::open(&path).context(path.display())?;
    // SAFETY: both descriptors are open for the call, and no options are given.
    let status = unsafe {
        libbpf_sys::bpf_link_update(
            link.as_fd().as_raw_fd(),
            map.as_fd().as_raw_fd(),
            std::ptr::null(),
        )
    };
    match status {
        0 => Ok(()),
        status => Err(Error::system(format!(
            "the module refused the new policy: {}",
            Errno::from_raw(-status)
        ))),
    }
}
