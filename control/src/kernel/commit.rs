// SPDX-License-Identifier: GPL-2.0
//! Bringing a configuration into the maps.
//!
//! The order makes each step safe on its own: pages for counters; the document, as `pending`, so that an apply after one that
//! was cut off writes everything again; clusters; the routes of services, all slots in few operations; new VIPs; only then old
//! VIPs go, and the slots of what is gone are cleared: of services, after which their sockets' next requests find no route,
//! and of clusters, to which no route leads any more.
//!
//! A cluster that has changed is written over in its slot, and its services are not touched. Where routes to it change in the
//! same apply, it is written to another slot, which the new routes name: old routes never lead to the new cluster, nor new
//! ones to the old. All services with a route to it are written then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use libbpf_rs::{MapCore, MapHandle};
use rustc_hash::FxHashSet;

use super::counts::Reader;
use super::ctl::Ctl;
use super::{cgroup, programs, raw};
use crate::compile;
use crate::config::merge::by_name;
use crate::config::model::{Cluster, Config, Service};
use crate::document::Document;
use crate::error::Error;
use crate::intf::{
    self, xlb_cgroup_key, xlb_state, xlb_stats, xlb_vip, xlb_vip_key, Pod, XLB_GROUP,
    XLB_STATE_PAGE, XLB_STATS_PAGE,
};
use crate::numbers::Before;
use crate::pair::pair;
use crate::store::{self, Kept, Part, Stored};

/// Blobs whose slots are swapped in one operation: each takes a file descriptor until then.
const SWAP_BATCH: usize = 256;

/// What is applied, of whatever layout, by the map that has it.
pub(super) fn stored(document: &MapHandle) -> Result<Stored, Error> {
    let Some(map) = raw::inner(document, intf::XLB_DOCUMENT_APPLIED) else {
        return Ok(Stored::default());
    };
    let is_pending = raw::get::<u32>(document, &intf::XLB_DOCUMENT_PENDING).is_some();
    Stored::read(Box::new(raw::read_pages(&map)?), is_pending)
}

/// Policies whose documents were of no format that is known had no map of clusters.
pub(super) fn ensure_format() -> Result<(), Error> {
    match programs::are_loaded() && !programs::pin("clusters").exists() {
        true => Err(store::other_format()),
        false => Ok(()),
    }
}

pub struct Maps {
    services: MapHandle,
    clusters: MapHandle,
    document: MapHandle,
    states: MapHandle,
    stats: MapHandle,
    vips: MapHandle,
    cgroups: MapHandle,
    connects: MapHandle,
}

impl Maps {
    pub fn open() -> Result<Maps, Error> {
        ensure_format()?;
        let map = |name| raw::open(&programs::pin(name));
        Ok(Maps {
            services: map("services")?,
            clusters: map("clusters")?,
            document: map("document")?,
            states: map("states")?,
            stats: map("stats")?,
            vips: map("vips")?,
            cgroups: map("cgroups")?,
            connects: map("connects")?,
        })
    }

    /// With the maps of a policy of another layout, which is about to replace the loaded one; all others are taken over from
    /// that.
    pub fn of_layout(
        services: MapHandle,
        clusters: MapHandle,
        document: MapHandle,
    ) -> Result<Maps, Error> {
        Ok(Maps {
            services,
            clusters,
            document,
            ..Maps::open()?
        })
    }

    /// Writes all of a document that was applied, for a policy of another layout.
    pub fn fill(&self, old: &Document) -> Result<(), Error> {
        // The VIPs, which are taken over, are those of an apply that was cut off, too.
        let new = Document {
            layout: intf::XLB_LAYOUT,
            generation: old.generation + 1,
            ..old.clone()
        };
        let nothing = Document::default();
        self.write_clusters(&nothing, &new)?;
        self.write_services(&nothing, &new)?;
        self.keep(&Kept::whole(&new)?, new.pending)
    }

    /// What is applied.
    pub fn stored(&self) -> Result<Stored, Error> {
        stored(&self.document)
    }

    /// Another one for each apply; `None` before the first.
    pub fn stored_id(&self) -> Option<u32> {
        raw::get(&self.document, &intf::XLB_DOCUMENT_APPLIED)
    }

    pub fn document(&self) -> Result<Document, Error> {
        self.stored()?.document()
    }

    fn keep(&self, kept: &Kept<'_>, is_pending: bool) -> Result<(), Error> {
        let map = raw::mapped_pages("xlb_document", kept.bytes(), |room| kept.write(room))?;
        if is_pending {
            raw::swap(&self.document, &[(intf::XLB_DOCUMENT_PENDING, &map)])?;
        }
        raw::swap(&self.document, &[(intf::XLB_DOCUMENT_APPLIED, &map)])
    }

    /// Pages of counters by page number; opened once, for there is one for 256 items.
    pub fn stats_page(&self, page: u32) -> Option<MapHandle> {
        raw::inner(&self.stats, page)
    }

    pub fn states_page(&self, page: u32) -> Option<MapHandle> {
        raw::inner(&self.states, page)
    }

    /// What the connect programs counted, by `enum xlb_connect_count`.
    pub fn connects(&self) -> Vec<u64> {
        (0..intf::XLB_CONNECT_COUNTS)
            .map(|which| raw::get_per_cpu::<u64>(&self.connects, &which).iter().sum())
            .collect()
    }

    /// Makes `config` the one in force.  `part` is what was applied before, or what of it changes.
    pub fn commit(&self, part: &Part<'_>, config: Config, ctl: &Ctl) -> Result<Document, Error> {
        let old = &part.document;
        let cgroups = resolve_cgroups(&config)?;
        let mut new = Document {
            generation: old.generation + 1,
            pending: true,
            numbers: old.numbers.clone(),
            cgroups,
            config,
            ..Document::default()
        };
        // What a configuration in force names no more is picked no more: the kernel has waited for its programs when the
        // slots were swapped. So this only falls while it is read.
        let mut reader = Reader::new(self);
        let before = Before {
            config: &old.config,
            moving: moving_clusters(old, &new.config),
            // An apply that was cut off may have left any.
            used: match old.pending {
                true => raw::used_slots(&self.clusters)?.into_iter().collect(),
                false => HashSet::new(),
            },
        };
        let reused = new
            .numbers
            .assign(&new.config, &before, |number| {
                reader.counts(Some(number)).outstanding() == 0
            })
            .map_err(too_many)?;
        self.grow(old.numbers.end(), new.numbers.end())?;
        self.clear(&reused, new.generation)?;

        self.keep(&part.kept(&new)?, true)?;
        end_former_sockets(old, &new, ctl)?;
        self.write_clusters(old, &new)?;
        self.write_services(old, &new)?;
        let (vips, cgroups) = (Entries::of_vips, Entries::of_cgroups);
        cgroups(&new).add(&self.cgroups, old.pending, &cgroups(old))?;
        vips(&new).add(&self.vips, old.pending, &vips(old))?;
        vips(&new).remove_others(&self.vips, old.pending, &vips(old))?;
        cgroups(&new).remove_others(&self.cgroups, old.pending, &cgroups(old))?;
        self.clear_slots(old, &new)?;
        let mut retired = retired_endpoints(&old.config, &new.config);
        part.without_used(&mut retired)?;
        for endpoint in retired {
            ctl.close_idle(endpoint)?;
        }
        new.pending = false;
        raw::remove(&self.document, &intf::XLB_DOCUMENT_PENDING)?;
        Ok(new)
    }

    /// Pages of state and counters for numbers below `end`; those below `before` have theirs.
    fn grow(&self, before: u32, end: u32) -> Result<(), Error> {
        for page in before / XLB_STATE_PAGE..end.div_ceil(XLB_STATE_PAGE) {
            if raw::get::<u32>(&self.states, &page).is_none() {
                let map = raw::records::<xlb_state>("xlb_states", XLB_STATE_PAGE, false)?;
                raw::swap(&self.states, &[(page, &map)])?;
            }
        }
        for page in before / XLB_STATS_PAGE..end.div_ceil(XLB_STATS_PAGE) {
            if raw::get::<u32>(&self.stats, &page).is_none() {
                let map = raw::records::<xlb_stats>("xlb_stats", XLB_STATS_PAGE, true)?;
                raw::swap(&self.stats, &[(page, &map)])?;
            }
        }
        Ok(())
    }

    /// For numbers that were another item's: requests that were decided before, such as long
    /// tunnels, count no more.
    fn clear(&self, numbers: &[u32], generation: u64) -> Result<(), Error> {
        let fresh = xlb_state {
            generation,
            ..xlb_state::default()
        };
        let cpus = libbpf_rs::num_possible_cpus().unwrap_or(1);
        for number in numbers {
            if let Some(page) = self.states_page(number / XLB_STATE_PAGE) {
                raw::set(&page, &(number % XLB_STATE_PAGE), fresh.bytes())?;
            }
            if let Some(page) = self.stats_page(number / XLB_STATS_PAGE) {
                raw::set_per_cpu(
                    &page,
                    &(number % XLB_STATS_PAGE),
                    &xlb_stats::default(),
                    cpus,
                )?;
            }
        }
        Ok(())
    }

    fn write_clusters(&self, old: &Document, new: &Document) -> Result<(), Error> {
        let stale: Vec<&Cluster> = stale_clusters(old, new);
        for batch in stale.chunks(SWAP_BATCH) {
            let mut maps = Vec::new();
            for cluster in batch {
                let beyond = || too_large("cluster", &cluster.name);
                let slot = new.numbers.cluster_slot(&cluster.name);
                let slot = slot.ok_or_else(beyond)?;
                let blob = compile::cluster(cluster, &new.numbers, new.generation);
                let blob = blob.ok_or_else(beyond)?;
                maps.push((slot, raw::pages("xlb_cluster", raw::CLUSTER_PAGE, &blob)?));
            }
            let slots: Vec<_> = maps.iter().map(|(slot, map)| (*slot, map)).collect();
            raw::swap(&self.clusters, &slots)?;
        }
        Ok(())
    }

    fn write_services(&self, old: &Document, new: &Document) -> Result<(), Error> {
        let stale = stale_services(old, new);
        let mut groups: BTreeMap<u32, Vec<&Service>> = BTreeMap::new();
        let group_of = |service: &Service| Some(new.numbers.slot(&service.name)? / XLB_GROUP);
        let wanted: HashSet<u32> = stale.iter().filter_map(|s| group_of(s)).collect();
        for service in &new.config.services {
            let beyond = || too_large("service", &service.name);
            let group = group_of(service).ok_or_else(beyond)?;
            if wanted.contains(&group) {
                groups.entry(group).or_default().push(service);
            }
        }
        let stale: HashSet<&str> = stale.iter().map(|s| s.name.as_str()).collect();
        let mut maps = Vec::new();
        for services in groups.into_values() {
            let mut group = compile::Group::new(&new.numbers, new.generation);
            for service in services {
                let added = group.add(service, stale.contains(service.name.as_str()));
                added.ok_or_else(|| too_large("service", &service.name))?;
            }
            for shared in group.finish() {
                let map = raw::pages("xlb_service", raw::PAGE, &shared.blob)?;
                maps.push((shared.slots, map));
            }
            if maps.len() >= SWAP_BATCH {
                self.swap_services(&std::mem::take(&mut maps))?;
            }
        }
        self.swap_services(&maps)
    }

    fn swap_services(&self, maps: &[(Vec<u32>, MapHandle)]) -> Result<(), Error> {
        let slots: Vec<_> = maps
            .iter()
            .flat_map(|(slots, map)| slots.iter().map(move |slot| (*slot, map)))
            .collect();
        raw::swap(&self.services, &slots)
    }

    /// Clears the slots of what is gone. An apply that was cut off may have left any.
    fn clear_slots(&self, old: &Document, new: &Document) -> Result<(), Error> {
        let kept: HashSet<u32> = new.numbers.slots().collect();
        clear_slots(&self.services, old.pending, old.numbers.slots(), &kept)?;
        let kept: HashSet<u32> = new.numbers.cluster_slots().collect();
        clear_slots(
            &self.clusters,
            old.pending,
            old.numbers.cluster_slots(),
            &kept,
        )
    }
}

fn clear_slots(
    map: &MapHandle,
    all: bool,
    candidates: impl Iterator<Item = u32>,
    kept: &HashSet<u32>,
) -> Result<(), Error> {
    let candidates = match all {
        true => raw::used_slots(map)?,
        false => candidates.collect(),
    };
    for slot in candidates.iter().filter(|slot| !kept.contains(slot)) {
        raw::remove(map, slot)?;
    }
    Ok(())
}

fn too_large(kind: &str, name: &str) -> Error {
    Error::system(format!("{kind} {name} is too large for its tables"))
}

fn too_many(count: usize) -> Error {
    Error::usage(format!(
        "{count} services, routes, clusters and endpoints; the limit is {} together",
        intf::XLB_MAX_ITEMS - 1
    ))
}

/// A slot that a new service gets may have been another's: sockets of that one, which may
/// be idle for days, must not become the new one's.
fn end_former_sockets(old: &Document, new: &Document, ctl: &Ctl) -> Result<(), Error> {
    for service in &new.config.services {
        let slot = new.numbers.slot(&service.name);
        if slot.is_some() && slot != old.numbers.slot(&service.name) && new.numbers.slots_go_round()
        {
            ctl.end_sockets(slot)?;
        }
    }
    Ok(())
}

/// What is in a hash map, key and value in bytes.
struct Entries(HashMap<Vec<u8>, Vec<u8>>);

impl Entries {
    fn of<K: Pod>(entries: impl IntoIterator<Item = (K, Vec<u8>)>) -> Entries {
        let entries = entries.into_iter();
        Entries(
            entries
                .map(|(key, value)| (key.bytes().to_vec(), value))
                .collect(),
        )
    }

    fn of_vips(document: &Document) -> Entries {
        let vips = wanted_vips(document).into_iter();
        Entries::of(vips.map(|(key, vip)| (key, vip.bytes().to_vec())))
    }

    fn of_cgroups(document: &Document) -> Entries {
        let keys = wanted_cgroups(document).into_iter();
        Entries::of(keys.map(|key| (key, vec![1])))
    }

    /// Writes those that are not in the map, which has `old`, or `all`: what it has is not known.
    fn add(&self, map: &MapHandle, all: bool, old: &Entries) -> Result<(), Error> {
        for (key, value) in &self.0 {
            if all || old.0.get(key) != Some(value) {
                raw::set_bytes(map, key, value)?;
            }
        }
        Ok(())
    }

    /// Removes what is none of these.
    fn remove_others(&self, map: &MapHandle, all: bool, old: &Entries) -> Result<(), Error> {
        let there: Vec<Vec<u8>> = match all {
            true => map.keys().collect(),
            false => old.0.keys().cloned().collect(),
        };
        for key in there.iter().filter(|key| !self.0.contains_key(*key)) {
            raw::remove_bytes(map, key)?;
        }
        Ok(())
    }
}

/// A cgroup that does not exist cannot be served.
fn resolve_cgroups(config: &Config) -> Result<BTreeMap<String, u64>, Error> {
    let mut ids = BTreeMap::new();
    let mut missing = Vec::new();
    for service in &config.services {
        for path in &service.cgroups {
            if cgroup::level_of(path) >= intf::XLB_MAX_CGROUP_LEVEL {
                missing.push(format!(
                    "xlbctl: service {}: cgroup {path} is too deep",
                    service.name
                ));
            }
            match cgroup::id_of(path) {
                Some(id) => {
                    ids.insert(path.clone(), id);
                }
                None => missing.push(format!(
                    "xlbctl: service {}: there is no cgroup {path}: create it first, or correct the path",
                    service.name
                )),
            }
        }
    }
    if missing.is_empty() {
        Ok(ids)
    } else {
        Err(Error::Config(missing))
    }
}

/// The clusters that a service's routes name.
fn targets(service: &Service) -> impl Iterator<Item = &str> {
    let routes = service.virtual_hosts.iter().flat_map(|host| &host.routes);
    let targets = routes.flat_map(|route| &route.clusters);
    targets.map(|target| target.name.as_str())
}

/// Those that change together with routes to them; after an apply that was cut off, all.
fn moving_clusters<'n>(old: &Document, new: &'n Config) -> HashSet<&'n str> {
    let before = by_name(&old.config.clusters);
    let changed = new
        .clusters
        .iter()
        .filter(|c| old.pending || before.get(c.name.as_str()) != Some(c))
        .map(|c| c.name.as_str());
    let mut changed: HashSet<&str> = changed.collect();
    if old.pending || changed.is_empty() {
        return changed;
    }
    let after = by_name(&new.services);
    let before = by_name(&old.config.services);
    // What a service led to, or leads to.
    let of_changed = |services: &HashMap<&str, &Service>, other: &HashMap<&str, &Service>| {
        let changed = services
            .iter()
            .filter(|(name, service)| other.get(*name) != Some(service));
        let names = changed.flat_map(|(_, service)| targets(service));
        names.map(str::to_owned).collect::<HashSet<String>>()
    };
    let with_routes: HashSet<String> = &of_changed(&before, &after) | &of_changed(&after, &before);
    changed.retain(|name| with_routes.contains(*name));
    changed
}

/// Clusters whose blob is not what it would be now.
fn stale_clusters<'n>(old: &Document, new: &'n Document) -> Vec<&'n Cluster> {
    let before = by_name(&old.config.clusters);
    let is_stale = |cluster: &&Cluster| {
        let name = cluster.name.as_str();
        old.pending
            || before.get(name) != Some(cluster)
            || old.numbers.cluster_slot(name) != new.numbers.cluster_slot(name)
    };
    new.config.clusters.iter().filter(is_stale).collect()
}

/// Services whose blob is not what it would be now.
fn stale_services<'n>(old: &Document, new: &'n Document) -> Vec<&'n Service> {
    let before = by_name(&old.config.services);
    let has_moved =
        |cluster: &str| old.numbers.cluster_slot(cluster) != new.numbers.cluster_slot(cluster);
    let moved: HashSet<&str> = new
        .config
        .clusters
        .iter()
        .map(|c| c.name.as_str())
        .filter(|name| has_moved(name))
        .collect();
    let is_stale = |service: &&Service| {
        old.pending
            || before.get(service.name.as_str()) != Some(service)
            || (!moved.is_empty() && targets(service).any(|name| moved.contains(name)))
    };
    new.config.services.iter().filter(is_stale).collect()
}

fn wanted_vips(document: &Document) -> Vec<(xlb_vip_key, xlb_vip)> {
    let clusters = by_name(&document.config.clusters);
    let mut vips = Vec::new();
    for service in &document.config.services {
        let Some(slot) = document.numbers.slot(&service.name) else {
            continue;
        };
        let cgroup_levels = service
            .cgroups
            .iter()
            .map(|path| cgroup::level_of(path) + 1)
            .max()
            .unwrap_or(0);
        let flags = if is_empty(service, &clusters) {
            intf::XLB_VIP_EMPTY
        } else {
            0
        };
        for vip in &service.listen {
            vips.push((
                vip_key(*vip),
                xlb_vip {
                    service: slot,
                    cgroup_levels,
                    flags,
                },
            ));
        }
    }
    vips
}

/// Does the service need endpoints and have none that new requests may go to?
fn is_empty(service: &Service, clusters: &HashMap<&str, &Cluster>) -> bool {
    let mut routes = service.virtual_hosts.iter().flat_map(|host| &host.routes);
    if routes.any(|route| route.actions.reply().is_some()) {
        return false;
    }
    let mut targets = service
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.routes)
        .flat_map(|route| &route.clusters)
        .filter(|target| target.weight > 0)
        .peekable();
    targets.peek().is_some()
        && targets.all(|target| {
            clusters
                .get(target.name.as_str())
                .is_none_or(|cluster| !cluster.endpoints.iter().any(|e| e.is_eligible()))
        })
}

fn vip_key(vip: SocketAddr) -> xlb_vip_key {
    let mut addr = [0u32; 4];
    for (word, bytes) in addr.iter_mut().zip(intf::mapped(vip.ip()).chunks_exact(4)) {
        *word = u32::from_bytes(bytes).unwrap_or(0);
    }
    xlb_vip_key {
        addr,
        port: vip.port().to_be().into(),
    }
}

fn wanted_cgroups(document: &Document) -> Vec<xlb_cgroup_key> {
    let mut keys = Vec::new();
    for service in &document.config.services {
        let Some(slot) = document.numbers.slot(&service.name) else {
            continue;
        };
        for cgroup_id in service
            .cgroups
            .iter()
            .filter_map(|path| document.cgroups.get(path))
        {
            keys.push(xlb_cgroup_key {
                cgroup_id: *cgroup_id,
                service: slot,
                reserved0: 0,
            });
        }
    }
    keys
}

/// Addresses that got requests before and get none any more.
fn retired_endpoints(old: &Config, new: &Config) -> FxHashSet<SocketAddr> {
    let (_, left) = pair(eligible(old).map(|address| (address, ())), eligible(new));
    let mut gone: FxHashSet<SocketAddr> = left.into_iter().map(|(address, ())| address).collect();
    if !gone.is_empty() {
        // Of another cluster, too.
        for address in eligible(new) {
            gone.remove(&address);
        }
    }
    gone
}

fn eligible(config: &Config) -> impl Iterator<Item = SocketAddr> + '_ {
    let endpoints = config.clusters.iter().flat_map(|c| &c.endpoints);
    endpoints.filter(|e| e.is_eligible()).map(|e| e.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_any_endpoint_is_empty() {
        for (routes, endpoints, flags) in [
            ("{cluster: c}", "", intf::XLB_VIP_EMPTY),
            ("{cluster: c}", "\"127.0.0.1:1\"", 0),
            (
                "{cluster: c}",
                "{address: \"127.0.0.1:1\", weight: 0}",
                intf::XLB_VIP_EMPTY,
            ),
            (
                "{cluster: c}",
                "{address: \"127.0.0.1:1\", drain: true}",
                intf::XLB_VIP_EMPTY,
            ),
            ("{cluster: c}, {cluster: d}", "", 0),
            (
                "{clusters: [{name: c, weight: 1}, {name: d, weight: 0}]}",
                "",
                intf::XLB_VIP_EMPTY,
            ),
            // 404, and no endpoint is needed for it.
            ("", "", 0),
            ("{cluster: c}, {respond: {status: 200}}", "", 0),
        ] {
            let text = format!(
                "version: 1\nservices:\n- {{name: s, listen: [\"10.0.0.1:80\"], routes: [{routes}]}}\n\
                 clusters:\n- {{name: c, endpoints: [{endpoints}]}}\n- {{name: d, endpoints: [\"127.0.0.1:2\"]}}\n"
            );
            let source = crate::config::parse("f", text.clone()).expect("parses");
            source.check(&source.config).expect("valid");
            let mut document = Document {
                config: source.config,
                ..Document::default()
            };
            let config = document.config.clone();
            document
                .numbers
                .assign(&config, &Before::of(&Config::default()), |_| true)
                .expect("fits");
            let vips = wanted_vips(&document);
            assert_eq!(vips.len(), 1);
            assert_eq!(vips[0].1.flags, flags, "{text}");
        }
    }

    #[test]
    fn vip_keys_are_as_bpf_makes_them() {
        let key = vip_key("10.96.0.10:80".parse().expect("an address"));
        assert_eq!(
            &key.bytes()[..16],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 10]
        );
        // bpf_sock_addr.user_port: network order in the first two bytes.
        assert_eq!(&key.bytes()[16..], &[0, 80, 0, 0]);
    }
}
