// SPDX-License-Identifier: GPL-2.0
//! Map operations, typed.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::ptr;

use libbpf_rs::{libbpf_sys, MapCore, MapFlags, MapHandle, MapType};
use memmap2::{Mmap, MmapOptions};
use nix::errno::Errno;

use crate::error::{Context, Error};
use crate::intf::{Pod, XLB_CLUSTER_PAGE_BYTES, XLB_PAGE_BYTES};

/// Bytes of a page of services and of the document.
pub const PAGE: usize = XLB_PAGE_BYTES as usize;
/// Bytes of a page of a cluster.
pub const CLUSTER_PAGE: usize = XLB_CLUSTER_PAGE_BYTES as usize;

pub fn open(path: &Path) -> Result<MapHandle, Error> {
    MapHandle::from_pinned_path(path).context(path.display())
}

pub fn set(map: &impl MapCore, key: &impl Pod, value: &[u8]) -> Result<(), Error> {
    set_bytes(map, key.bytes(), value)
}

pub fn set_bytes(map: &impl MapCore, key: &[u8], value: &[u8]) -> Result<(), Error> {
    map.update(key, value, MapFlags::ANY)
        .context(format!("cannot write map {}", map.name().to_string_lossy()))
}

/// Absence is no error.
pub fn remove(map: &impl MapCore, key: &impl Pod) -> Result<(), Error> {
    remove_bytes(map, key.bytes())
}

/// Absence is no error.
pub fn remove_bytes(map: &impl MapCore, key: &[u8]) -> Result<(), Error> {
    match map.delete(key) {
        Err(err) if err.kind() != libbpf_rs::ErrorKind::NotFound => Err(err).context(format!(
            "cannot delete from map {}",
            map.name().to_string_lossy()
        )),
        _ => Ok(()),
    }
}

pub fn get<T: Pod>(map: &impl MapCore, key: &impl Pod) -> Option<T> {
    let bytes = map.lookup(key.bytes(), MapFlags::ANY).ok()??;
    T::from_bytes(&bytes)
}

/// One value for each CPU.
pub fn get_per_cpu<T: Pod>(map: &impl MapCore, key: &impl Pod) -> Vec<T> {
    map.lookup_percpu(key.bytes(), MapFlags::ANY)
        .ok()
        .flatten()
        .unwrap_or_default()
        .iter()
        .filter_map(|bytes| T::from_bytes(bytes))
        .collect()
}

/// The same value for each CPU.
pub fn set_per_cpu<T: Pod>(
    map: &impl MapCore,
    key: &impl Pod,
    value: &T,
    cpus: usize,
) -> Result<(), Error> {
    let values = vec![value.bytes().to_vec(); cpus];
    map.update_percpu(key.bytes(), &values, MapFlags::ANY)
        .context(format!("cannot write map {}", map.name().to_string_lossy()))
}

/// The inner map in a slot of an outer one.
pub fn inner(outer: &impl MapCore, slot: u32) -> Option<MapHandle> {
    let id: u32 = get(outer, &slot)?;
    MapHandle::from_map_id(id).ok()
}

/// Slots of an outer map that have an inner one.
pub fn used_slots(outer: &impl MapCore) -> Result<Vec<u32>, Error> {
    const BATCH: usize = 4096;
    let (mut keys, mut ids) = (vec![0u32; BATCH], vec![0u32; BATCH]);
    let options = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let mut used = Vec::new();
    let (mut last, mut next) = (None, 0u32);
    loop {
        let mut count = BATCH as u32;
        // SAFETY: the descriptor is open; a batch begins behind a key of 4 bytes, or at the first one, and has as many keys
        // and ids, of 4 bytes each, as there is room for.
        let status = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                outer.as_fd().as_raw_fd(),
                last.as_mut()
                    .map_or(ptr::null_mut(), |last: &mut u32| (&raw mut *last).cast()),
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                ids.as_mut_ptr().cast(),
                &raw mut count,
                &raw const options,
            )
        };
        // With the end of the map comes ENOENT, and what was found before it.
        if status != 0 && status != -nix::libc::ENOENT {
            let name = outer.name().to_string_lossy();
            return Err(Errno::from_raw(-status)).context(format!("cannot read map {name}"));
        }
        used.extend(keys.iter().take(count as usize));
        if status != 0 {
            return Ok(used);
        }
        last = Some(next);
    }
}

fn create(
    kind: MapType,
    name: &str,
    value_bytes: usize,
    entries: usize,
    flags: u32,
) -> Result<MapHandle, Error> {
    let too_many = |_| Error::system(format!("{name}: {entries} entries of {value_bytes} bytes"));
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: flags,
        ..Default::default()
    };
    MapHandle::create(
        kind,
        Some(name),
        4,
        u32::try_from(value_bytes).map_err(too_many)?,
        u32::try_from(entries).map_err(too_many)?,
        &options,
    )
    .context(format!("cannot create map {name}"))
}

/// An inner map of pages of so many bytes that holds `bytes`, which are whole pages.
pub fn pages(name: &str, page_bytes: usize, bytes: &[u8]) -> Result<MapHandle, Error> {
    let count = bytes.len() / page_bytes;
    let map = create(
        MapType::Array,
        name,
        page_bytes,
        count,
        libbpf_sys::BPF_F_INNER_MAP,
    )?;
    let keys: Vec<u8> = (0u32..).take(count).flat_map(u32::to_ne_bytes).collect();
    let entries = u32::try_from(count).unwrap_or(u32::MAX);
    map.update_batch(&keys, bytes, entries, MapFlags::ANY, MapFlags::ANY)
        .context(format!("cannot fill map {name}"))?;
    Ok(map)
}

/// An inner map of pages that processes map, into which `fill` writes so many bytes.
pub fn mapped_pages(
    name: &str,
    bytes: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), Error>,
) -> Result<MapHandle, Error> {
    let flags = libbpf_sys::BPF_F_INNER_MAP | libbpf_sys::BPF_F_MMAPABLE;
    let map = create(
        MapType::Array,
        name,
        PAGE,
        bytes.div_ceil(PAGE).max(1),
        flags,
    )?;
    let mut room = MmapOptions::new();
    room.len(bytes);
    // SAFETY: the map was just made, and nobody else has it.
    let mut room = unsafe { room.map_mut(map.as_fd().as_raw_fd()) }
        .context(format!("cannot write map {name}"))?;
    fill(&mut room)?;
    Ok(map)
}

/// The bytes of [`mapped_pages`].
pub fn read_pages(map: &MapHandle) -> Result<Mmap, Error> {
    let mut bytes = MmapOptions::new();
    bytes.len(map.max_entries() as usize * PAGE);
    // SAFETY: nobody writes into such a map when it is in its slot; who changes something makes another one.
    unsafe { bytes.map(map.as_fd().as_raw_fd()) }.context("cannot read a map")
}

/// An inner map of `entries` records, zeroed.
pub fn records<T: Pod>(name: &str, entries: u32, per_cpu: bool) -> Result<MapHandle, Error> {
    let kind = if per_cpu {
        MapType::PercpuArray
    } else {
        MapType::Array
    };
    create(kind, name, size_of::<T>(), entries as usize, 0)
}

/// Puts inner maps into slots of an outer map, all in one operation.
///
/// The kernel waits once for readers of what was there before, not once for each slot.
pub fn swap(outer: &impl MapCore, slots: &[(u32, &MapHandle)]) -> Result<(), Error> {
    if slots.is_empty() {
        return Ok(());
    }
    let keys: Vec<u8> = slots
        .iter()
        .flat_map(|(slot, _)| slot.to_ne_bytes())
        .collect();
    let values: Vec<u8> = slots
        .iter()
        .flat_map(|(_, map)| map.as_fd().as_raw_fd().to_ne_bytes())
        .collect();
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    outer
        .update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY)
        .context(format!("cannot swap {}", outer.name().to_string_lossy()))
}
