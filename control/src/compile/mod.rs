// SPDX-License-Identifier: GPL-2.0
//! From a checked service to its blob: the pages that the BPF policy walks.

mod blob;
mod cluster;
pub(crate) mod hashing;
mod index;
mod needles;
pub(crate) mod regexes;
mod routes;

use blob::Blob;
pub(crate) use blob::Strings;
pub use blob::PAGE;
pub use cluster::blob as cluster;

use xlb_engine::Protocol;

use crate::config::model::{Config, Normalize, Service};
use crate::intf::{
    xlb_blob, xlb_group, xlb_needle, xlb_regex, Pod, XLB_BLOB_FORWARD_NORMAL, XLB_LAYOUT,
    XLB_MAX_NEEDLES, XLB_MAX_UPGRADES,
};
use crate::numbers::Numbers;

/// Services of more bytes have a blob of their own.
const SMALL_BYTES: usize = 4 * PAGE;

/// A blob of some services.
pub struct Shared {
    pub slots: Vec<u32>,
    /// Its pages, one after the other.
    pub blob: Vec<u8>,
}

/// The blobs of services whose slots are of one group of `XLB_GROUP`.
pub struct Group<'n> {
    numbers: &'n Numbers,
    generation: u64,
    small: Blob,
    small_slots: Vec<u32>,
    is_small_stale: bool,
    large: Vec<Shared>,
}

impl<'n> Group<'n> {
    pub fn new(numbers: &'n Numbers, generation: u64) -> Group<'n> {
        Group {
            numbers,
            generation,
            small: Blob::new(),
            small_slots: Vec::new(),
            is_small_stale: false,
            large: Vec::new(),
        }
    }

    /// Adds a service; `is_stale`: it is not in the kernel as it is here. `numbers` has all its items and the clusters
    /// that its routes name.
    ///
    /// `None` when something in it is beyond what the layout can count: checks of the
    /// configuration keep everything far below that.
    pub fn add(&mut self, service: &Service, is_stale: bool) -> Option<()> {
        let (numbers, generation) = (self.numbers, self.generation);
        let slot = numbers.slot(&service.name)?;
        let end = self.small.len();
        write(&mut self.small, service, slot, numbers, generation)?;
        if self.small.len() - end > SMALL_BYTES {
            self.small.cut(end, slot);
            if is_stale {
                let mut blob = Blob::new();
                write(&mut blob, service, slot, numbers, generation)?;
                self.large.push(Shared {
                    slots: vec![slot],
                    blob: blob.finish(),
                });
            }
            return Some(());
        }
        self.small_slots.push(slot);
        self.is_small_stale |= is_stale;
        Some(())
    }

    /// What is to be written.
    pub fn finish(self) -> Vec<Shared> {
        let mut all = self.large;
        if self.is_small_stale {
            all.push(Shared {
                slots: self.small_slots,
                blob: self.small.finish(),
            });
        }
        all
    }
}

/// One service, in slot 0, and all clusters, as they would be in the kernel.
pub struct Compiled {
    pub service: Vec<u8>,
    /// By slot.
    pub clusters: Vec<(u32, Vec<u8>)>,
}

impl Compiled {
    /// `None` as of [`Group::add`].
    pub fn new(
        config: &Config,
        service: &Service,
        numbers: &Numbers,
        generation: u64,
    ) -> Option<Compiled> {
        let clusters = config.clusters.iter().map(|c| {
            let slot = numbers.cluster_slot(&c.name)?;
            Some((slot, cluster(c, numbers, generation)?))
        });
        let mut blob = Blob::new();
        write(&mut blob, service, 0, numbers, generation)?;
        Some(Compiled {
            service: blob.finish(),
            clusters: clusters.collect::<Option<_>>()?,
        })
    }

    /// What its blob says of the service.
    pub fn head(&self) -> Option<xlb_blob> {
        let [head, ..] = xlb_group::from_bytes(&self.service)?.head;
        self.record(head, 0)
    }

    /// A record of a table of the service.
    pub fn record<T: Pod>(&self, base: u32, index: usize) -> Option<T> {
        let at = (base as usize).checked_add(index)?;
        T::from_bytes(self.service.get(at.checked_mul(size_of::<T>())?..)?)
    }
}

/// Adds a service to a blob.
fn write(
    blob: &mut Blob,
    service: &Service,
    slot: u32,
    numbers: &Numbers,
    generation: u64,
) -> Option<()> {
    let mut tables = routes::tables(service, numbers)?;
    let normalize = match service.normalize {
        Normalize::Match => 0,
        Normalize::Forward => XLB_BLOB_FORWARD_NORMAL,
    };
    let place = blob.table(&[xlb_blob::default()])?;
    blob.set_head(slot, place);
    let mut head = xlb_blob {
        layout: XLB_LAYOUT,
        generation,
        number: numbers.service(&service.name)?,
        flags: tables.flags | normalize,
        upgrades: upgrades(service)?,
        vhost_base: blob.table(&tables.vhosts)?,
        route_base: blob.table(&tables.routes)?,
        list_base: blob.table(&tables.lists)?,
        target_base: blob.table(&tables.targets)?,
        default_vhost: tables.default_vhost,
        max_suffix_bytes: tables.max_suffix_bytes,
        max_prefix_bytes: tables.max_prefix_bytes,
        ..xlb_blob::default()
    };
    let places = blob.strings(&tables.strings)?;
    for condition in &mut tables.conditions {
        places.put(&mut condition.name_page, &mut condition.name_offset)?;
        places.put(&mut condition.value_page, &mut condition.value_offset)?;
    }
    for action in &mut tables.actions {
        places.put(&mut action.text_page, &mut action.text_offset)?;
        places.put(&mut action.value_page, &mut action.value_offset)?;
    }
    for entry in &mut tables.index {
        places.put(&mut entry.string_page, &mut entry.string_offset)?;
    }
    let automata = &tables.automata;
    if !tables.needles.is_empty() {
        let state_page = blob.pages(&automata.states)?;
        let shorter_page = blob.pages(&automata.shorter)?;
        let mut needles = vec![xlb_needle::default(); automata.shorter.len()];
        for needle in &tables.needles {
            *needles.get_mut(needle.needle as usize)? = xlb_needle {
                state_page,
                state_count: u32::try_from(automata.states.len()).ok()?,
                shorter_page,
                shorter_count: u32::try_from(automata.shorter.len()).ok()?,
                ..*needle
            };
        }
        head.needle_base = blob.table(&needles)?;
    }
    // The bits of expressions are behind those of needles.
    head.needle_count = u32::try_from(automata.shorter.len()).ok()?;
    let mut regexes = Vec::new();
    for together in &tables.expressions {
        let (searched, first) = (head.needle_count, head.needle_count + 1);
        head.needle_count = first.checked_add(together.count)?;
        let shared = xlb_regex {
            class_page: blob.pages(&together.classes)?,
            state_page: blob.pages(&together.states)?,
            state_count: u32::try_from(together.states.len()).ok()?,
            stride: together.stride,
            start: together.start,
            match_page: blob.pages(&together.matches(first))?,
            match_count: u32::try_from(together.matches.len()).ok()?,
            searched,
            needle: 0,
        };
        regexes.extend((0..together.count).map(|nth| xlb_regex {
            needle: first + nth,
            ..shared
        }));
    }
    if head.needle_count > XLB_MAX_NEEDLES {
        return None;
    }
    head.regex_base = blob.table(&regexes)?;
    head.action_base = blob.table(&tables.actions)?;
    head.condition_base = blob.table(&tables.conditions)?;
    let index = index::build(&tables.index)?;
    head.index_mask = u32::try_from(index.len() - 1).ok()?;
    head.index_base = blob.table(&index)?;
    blob.set(place, &head);
    Some(())
}

/// As the module hashes what a request asks for.
fn upgrades(service: &Service) -> Option<[u64; XLB_MAX_UPGRADES as usize]> {
    let mut hashes = [0; XLB_MAX_UPGRADES as usize];
    for (n, name) in service.upgrades.iter().enumerate() {
        *hashes.get_mut(n)? = Protocol::from_value(name.as_bytes())?.hash();
    }
    Some(hashes)
}

#[cfg(test)]
mod tests;
