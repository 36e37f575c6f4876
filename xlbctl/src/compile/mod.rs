// SPDX-License-Identifier: GPL-2.0
//! From a checked service to its blob: the pages that the BPF policy walks.

mod blob;
mod cluster;
mod index;
mod needles;
mod routes;

use std::collections::HashMap;

use blob::Blob;
pub use blob::PAGE;

use xlb_engine::Protocol;

use crate::config::model::{Cluster, Normalize, Service};
use crate::intf::{xlb_blob, xlb_needle, XLB_BLOB_FORWARD_NORMAL, XLB_LAYOUT, XLB_MAX_UPGRADES};
use crate::numbers::Numbers;

/// The blob of `service`.  `clusters` has all that its routes name, `numbers` all its items.
///
/// `None` when something in it is beyond what the layout can count: checks of the
/// configuration keep everything far below that.
pub fn service(
    service: &Service,
    clusters: &HashMap<&str, &Cluster>,
    numbers: &Numbers,
    generation: u64,
) -> Option<Vec<u8>> {
    let used = used_clusters(service);
    let places: HashMap<&str, u32> = (0u32..).zip(&used).map(|(n, name)| (*name, n)).collect();

    let mut tables = routes::tables(service, numbers, &|name| places.get(name).copied())?;
    let mut cluster_table = Vec::new();
    let mut endpoint_table = Vec::new();
    for name in &used {
        let first = u32::try_from(endpoint_table.len()).ok()?;
        let (record, endpoints) = cluster::records(clusters.get(name)?, numbers, first)?;
        cluster_table.push(record);
        endpoint_table.extend(endpoints);
    }

    let normalize = match service.normalize {
        Normalize::Match => 0,
        Normalize::Forward => XLB_BLOB_FORWARD_NORMAL,
    };
    let mut blob = Blob::new();
    let mut head = xlb_blob {
        layout: XLB_LAYOUT,
        generation,
        number: numbers.service(&service.name)?,
        flags: tables.flags | normalize,
        upgrades: upgrades(service)?,
        vhost_page: blob.table(&tables.vhosts),
        list_page: blob.table(&tables.lists),
        route_page: blob.table(&tables.routes),
        target_page: blob.table(&tables.targets),
        cluster_page: blob.table(&cluster_table),
        endpoint_page: blob.table(&endpoint_table),
        default_vhost: tables.default_vhost,
        max_suffix_bytes: tables.max_suffix_bytes,
        max_prefix_bytes: tables.max_prefix_bytes,
        ..xlb_blob::default()
    };
    let first_string = blob.strings(&tables.strings);
    for condition in &mut tables.conditions {
        condition.name_page += first_string;
        condition.value_page += first_string;
    }
    for entry in &mut tables.index {
        entry.string_page += first_string;
    }
    let automata = &tables.automata;
    if !tables.needles.is_empty() {
        head.needle_count = u32::try_from(automata.shorter.len()).ok()?;
        let state_page = blob.table(&automata.states);
        let shorter_page = blob.table(&automata.shorter);
        let mut needles = vec![xlb_needle::default(); automata.shorter.len()];
        for needle in &tables.needles {
            *needles.get_mut(needle.needle as usize)? = xlb_needle {
                state_page,
                state_count: u32::try_from(automata.states.len()).ok()?,
                shorter_page,
                shorter_count: head.needle_count,
                ..*needle
            };
        }
        head.needle_page = blob.table(&needles);
    }
    head.condition_page = blob.table(&tables.conditions);
    let index = index::build(&tables.index)?;
    head.index_mask = u32::try_from(index.len() - 1).ok()?;
    head.index_page = blob.table(&index);
    head.pages = blob.next_page();
    Some(blob.finish(&head))
}

/// As the module hashes what a request asks for.
fn upgrades(service: &Service) -> Option<[u64; XLB_MAX_UPGRADES as usize]> {
    let mut hashes = [0; XLB_MAX_UPGRADES as usize];
    for (n, name) in service.upgrades.iter().enumerate() {
        *hashes.get_mut(n)? = Protocol::from_value(name.as_bytes())?.hash();
    }
    Some(hashes)
}

/// In the order of their first use, each once.
fn used_clusters(service: &Service) -> Vec<&str> {
    let mut seen = HashMap::new();
    let mut used = Vec::new();
    let targets = service
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.routes)
        .flat_map(|route| &route.clusters);
    for target in targets {
        if seen.insert(target.name.as_str(), ()).is_none() {
            used.push(target.name.as_str());
        }
    }
    used
}

#[cfg(test)]
mod tests;
