// SPDX-License-Identifier: GPL-2.0
//! Numbers of services, routes, clusters and endpoints.
//!
//! Counters and balancing state live in the kernel under a number.  An item keeps its
//! number over changes of the configuration, so it keeps its counters too.  A number
//! that has become free waits in a queue: requests that began under it may still end.
//!
//! Those of routes and endpoints stand in the order in which a configuration has these; so numbers belong to one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::config::merge::by_name;
use crate::config::model::{Config, Service, VirtualHost};
use crate::intf::{XLB_CLUSTER_SLOTS, XLB_MAX_ITEMS, XLB_MAX_SERVICES};
use crate::pair::pair;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    pub services: BTreeMap<String, Item>,
    pub clusters: BTreeMap<String, Item>,
    pub supply: Supply,
}

/// Those of a service and its routes, or of a cluster and its endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    pub number: u32,
    /// Which slot of the outer map is its own: sockets carry that of their service, routes name that of a cluster.
    pub slot: u32,
    /// Of its routes, one virtual host's after the other's; or of its endpoints.
    pub parts: Vec<u32>,
}

/// What is given out next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Supply {
    /// Every number below was given out at some time; 0 never is.
    next: u32,
    next_slot: u32,
    /// Every slot was given out at some time: a slot given out now was another's.
    round: bool,
    next_cluster_slot: u32,
    free: VecDeque<u32>,
}

/// What [`Numbers::assign`] must know of the kernel and of what is applied before.
pub struct Before<'b> {
    /// That the numbers are of.
    pub config: &'b Config,
    /// Clusters that get another slot than they had.
    pub moving: HashSet<&'b str>,
    /// Slots of clusters that no other cluster may get, beside those that clusters had before.
    pub used: HashSet<u32>,
}

impl<'b> Before<'b> {
    pub fn of(config: &'b Config) -> Self {
        Before {
            config,
            moving: HashSet::new(),
            used: HashSet::new(),
        }
    }
}

/// Of a route: its name, or its place where it has none.
pub fn route_key(host: &VirtualHost, route: usize) -> String {
    let domain = host.domains.first().map_or("", String::as_str);
    match host.routes.get(route).and_then(|r| r.name.as_ref()) {
        Some(name) => format!("{domain}|{name}"),
        None => format!("{domain}|#{route}"),
    }
}

fn route_keys(service: &Service) -> impl Iterator<Item = String> + '_ {
    let hosts = service.virtual_hosts.iter();
    hosts.flat_map(|host| (0..host.routes.len()).map(|route| route_key(host, route)))
}

/// Gives out numbers.
struct Giver<'s, F> {
    supply: &'s mut Supply,
    reusable: VecDeque<u32>,
    busy: VecDeque<u32>,
    /// That had another meaning before.
    reused: Vec<u32>,
    /// Whether a freed number has no requests under way.
    is_idle: F,
}

impl<F: FnMut(u32) -> bool> Giver<'_, F> {
    fn give(&mut self) -> Option<u32> {
        while let Some(number) = self.reusable.pop_front() {
            if (self.is_idle)(number) {
                self.reused.push(number);
                return Some(number);
            }
            self.busy.push_back(number);
        }
        let number = self.supply.next.max(1);
        if number >= XLB_MAX_ITEMS {
            return None;
        }
        self.supply.next = number + 1;
        Some(number)
    }

    /// Numbers for parts of which some were there before; what is not there any more is freed.
    fn carry<K: Eq + Hash>(
        &mut self,
        old: impl IntoIterator<Item = (K, u32)>,
        new: impl IntoIterator<Item = K>,
    ) -> Option<Vec<u32>> {
        let (found, left) = pair(old, new);
        let mut freed: Vec<u32> = left.into_iter().map(|(_, number)| number).collect();
        freed.sort_unstable();
        self.supply.free.extend(freed);
        let numbers = found.into_iter();
        numbers
            .map(|number| number.or_else(|| self.give()))
            .collect()
    }

    /// Those of the parts of an item that was `was`; `old` and `new` are what tells its parts apart.
    fn parts<K: Eq + Hash>(
        &mut self,
        was: Option<&Item>,
        is_same: bool,
        old: impl Iterator<Item = K>,
        new: impl Iterator<Item = K>,
    ) -> Option<Vec<u32>> {
        match was {
            Some(was) if is_same => Some(was.parts.clone()),
            _ => {
                let numbers = was.map_or(&[][..], |was| &was.parts);
                self.carry(old.zip(numbers.iter().copied()), new)
            }
        }
    }

    fn free(&mut self, items: BTreeMap<String, Item>) {
        for item in items.into_values() {
            self.supply.free.push_back(item.number);
            self.supply.free.extend(item.parts);
        }
    }
}

impl Numbers {
    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).map(|item| item.number)
    }

    pub fn cluster(&self, name: &str) -> Option<u32> {
        self.clusters.get(name).map(|item| item.number)
    }

    /// Names of all clusters, by number.
    pub fn cluster_names(&self) -> HashMap<u32, &str> {
        let items = self.clusters.iter();
        items
            .map(|(name, item)| (item.number, name.as_str()))
            .collect()
    }

    /// Of the endpoints of a cluster, in its order.
    pub fn endpoints(&self, cluster: &str) -> &[u32] {
        self.clusters.get(cluster).map_or(&[], |item| &item.parts)
    }

    /// Of the routes of a service, one virtual host's after the other's.
    pub fn routes(&self, service: &str) -> &[u32] {
        self.services.get(service).map_or(&[], |item| &item.parts)
    }

    pub fn slot(&self, service: &str) -> Option<u32> {
        self.services.get(service).map(|item| item.slot)
    }

    pub fn service_in(&self, slot: u32) -> Option<&str> {
        self.services
            .iter()
            .find(|(_, item)| item.slot == slot)
            .map(|(name, _)| name.as_str())
    }

    pub fn cluster_slot(&self, cluster: &str) -> Option<u32> {
        self.clusters.get(cluster).map(|item| item.slot)
    }

    pub fn cluster_slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.clusters.values().map(|item| item.slot)
    }

    pub fn slots_go_round(&self) -> bool {
        self.supply.round
    }

    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.services.values().map(|item| item.slot)
    }

    /// One more than the highest number in use or to be used again.
    pub fn end(&self) -> u32 {
        self.supply.next
    }

    /// Gives numbers to all of `config` and takes those of what is not in it.
    ///
    /// `is_idle` tells whether a freed number has no requests under way.
    /// Returns the numbers that had another meaning before: their counters start
    /// again.  The error is the count that was above the limit.
    pub fn assign(
        &mut self,
        config: &Config,
        before: &Before<'_>,
        is_idle: impl FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, usize> {
        self.assign_numbers(config, before, is_idle)
            .ok_or_else(|| count(config))
    }

    fn assign_numbers(
        &mut self,
        config: &Config,
        before: &Before<'_>,
        is_idle: impl FnMut(u32) -> bool,
    ) -> Option<Vec<u32>> {
        let mut slots = Slots::of(self, before);
        // What is freed now goes behind: it is not given out before all freed earlier.
        let reusable = std::mem::take(&mut self.supply.free);
        let mut giver = Giver {
            supply: &mut self.supply,
            reusable,
            busy: VecDeque::new(),
            reused: Vec::new(),
            is_idle,
        };
        let mut services = std::mem::take(&mut self.services);
        let old_services = by_name(&before.config.services);
        for service in &config.services {
            let was = services.remove(&service.name);
            let old = old_services.get(service.name.as_str());
            let (is_same, old) = (old == Some(&service), old.into_iter());
            let old = old.flat_map(|old| route_keys(old));
            let parts = giver.parts(was.as_ref(), is_same, old, route_keys(service))?;
            let (number, slot) = match was {
                Some(was) => (was.number, was.slot),
                None => (giver.give()?, slots.next_service(giver.supply)?),
            };
            let item = Item {
                number,
                slot,
                parts,
            };
            self.services.insert(service.name.clone(), item);
        }
        giver.free(services);

        let mut clusters = std::mem::take(&mut self.clusters);
        let old_clusters = by_name(&before.config.clusters);
        for cluster in &config.clusters {
            let was = clusters.remove(&cluster.name);
            let old = old_clusters.get(cluster.name.as_str());
            let (is_same, old) = (old == Some(&cluster), old.into_iter());
            let old = old.flat_map(|old| &old.endpoints).map(|e| e.address);
            let new = cluster.endpoints.iter().map(|e| e.address);
            let parts = giver.parts(was.as_ref(), is_same, old, new)?;
            let slot = match &was {
                Some(was) if !before.moving.contains(cluster.name.as_str()) => was.slot,
                _ => slots.next_cluster(giver.supply)?,
            };
            let number = match was {
                Some(was) => was.number,
                None => giver.give()?,
            };
            let item = Item {
                number,
                slot,
                parts,
            };
            self.clusters.insert(cluster.name.clone(), item);
        }
        giver.free(clusters);

        let Giver {
            supply,
            mut reusable,
            mut busy,
            reused,
            ..
        } = giver;
        busy.append(&mut reusable);
        busy.append(&mut supply.free);
        supply.free = busy;
        Some(reused)
    }
}

#[cfg(test)]
impl Numbers {
    /// Of a route, by the place of its virtual host and its own.
    pub fn route(&self, service: &Service, host: usize, route: usize) -> u32 {
        let hosts = service.virtual_hosts[..host].iter();
        let before: usize = hosts.map(|host| host.routes.len()).sum();
        self.routes(&service.name)[before + route]
    }
}

/// Slots that cannot be given out.
struct Slots {
    services: HashSet<u32>,
    /// Those that clusters had before, too: routes may still lead there until all of this is written.
    clusters: HashSet<u32>,
}

impl Slots {
    fn of(numbers: &Numbers, before: &Before<'_>) -> Slots {
        let mut clusters: HashSet<u32> = numbers.cluster_slots().collect();
        clusters.extend(&before.used);
        Slots {
            services: numbers.slots().collect(),
            clusters,
        }
    }

    /// They go round, so that a slot is used again as late as possible: a socket of the
    /// service that had it may live.  Configurations have fewer services than there are slots.
    fn next_service(&mut self, supply: &mut Supply) -> Option<u32> {
        next(
            &mut self.services,
            &mut supply.next_slot,
            XLB_MAX_SERVICES,
            &mut supply.round,
        )
    }

    /// There are twice as many as clusters can be.
    fn next_cluster(&mut self, supply: &mut Supply) -> Option<u32> {
        let next_slot = &mut supply.next_cluster_slot;
        next(&mut self.clusters, next_slot, XLB_CLUSTER_SLOTS, &mut false)
    }
}

/// The next one that is not used; `round` is set when the first one comes again.
fn next(used: &mut HashSet<u32>, at: &mut u32, end: u32, round: &mut bool) -> Option<u32> {
    for _ in 0..end {
        let slot = *at;
        *at = (*at + 1) % end;
        *round |= *at == 0;
        if used.insert(slot) {
            return Some(slot);
        }
    }
    None
}

/// Of all items.
fn count(config: &Config) -> usize {
    let hosts = config.services.iter().flat_map(|s| &s.virtual_hosts);
    let routes: usize = hosts.map(|host| host.routes.len()).sum();
    let endpoints: usize = config.clusters.iter().map(|c| c.endpoints.len()).sum();
    config.services.len() + routes + config.clusters.len() + endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(endpoints: &str) -> Config {
        let text = format!(
            "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  routes: [{{cluster: c}}]\n\
             clusters:\n- {{name: c, endpoints: [{endpoints}]}}\n"
        );
        config::parse("test", text).expect("parses").config
    }

    fn ports(ports: &[u32]) -> Config {
        let endpoints = ports.iter().map(|port| format!("\"127.0.0.1:{port}\""));
        config(&endpoints.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn numbers_stay_and_freed_ones_wait() {
        let mut numbers = Numbers::default();
        let first = ports(&[1, 2]);
        let nothing = Config::default();
        numbers
            .assign(&first, &Before::of(&nothing), |_| true)
            .expect("fits");
        let &[freed, kept] = numbers.endpoints("c") else {
            panic!("two");
        };
        assert_ne!(kept, freed);
        let cluster = numbers.cluster("c").expect("numbered");
        assert_eq!(numbers.cluster_names(), HashMap::from([(cluster, "c")]));

        let second = ports(&[2, 3]);
        numbers
            .assign(&second, &Before::of(&first), |_| true)
            .expect("fits");
        let &[two, three] = numbers.endpoints("c") else {
            panic!("two");
        };
        assert_eq!(two, kept);
        assert_ne!(three, freed);

        // Busy: not yet; idle: now, and it is told.
        let mut again = numbers.clone();
        let third = ports(&[2, 3, 4]);
        let before = Before::of(&second);
        assert_eq!(again.assign(&third, &before, |_| false), Ok(vec![]));
        assert_eq!(numbers.assign(&third, &before, |_| true), Ok(vec![freed]));
        assert_eq!(numbers.endpoints("c"), [two, three, freed]);
    }

    #[test]
    fn what_is_there_keeps_its_number_wherever_it_stands() {
        let orders: [&[u32]; 8] = [
            &[1, 2, 3, 4],
            &[1, 3, 4],
            &[5, 1, 3, 4],
            &[4, 3, 1, 5],
            &[],
            &[4, 1],
            &[1, 6, 7, 4],
            &[7, 4, 1],
        ];
        let mut numbers = Numbers::default();
        let mut before = Config::default();
        for order in orders {
            let of = |config: &Config, numbers: &Numbers| -> HashMap<u16, u32> {
                let endpoints = config.clusters.iter().flat_map(|c| &c.endpoints);
                let ports = endpoints.map(|e| e.address.port());
                ports.zip(numbers.endpoints("c").iter().copied()).collect()
            };
            let was = of(&before, &numbers);
            let config = ports(order);
            numbers
                .assign(&config, &Before::of(&before), |_| true)
                .expect("fits");
            let is = of(&config, &numbers);
            assert_eq!(is.len(), order.len());
            let distinct: HashSet<u32> = is.values().copied().collect();
            assert_eq!(distinct.len(), order.len(), "{order:?}: {is:?}");
            for (port, number) in &is {
                assert!(was.get(port).is_none_or(|was| was == number), "{order:?}");
            }
            before = config;
        }
    }

    #[test]
    fn slots_go_round() {
        let mut numbers = Numbers::default();
        let (one, nothing) = (config(""), Config::default());
        let mut apply = |from: &Config, to: &Config| {
            numbers
                .assign(to, &Before::of(from), |_| true)
                .expect("fits");
            numbers.clone()
        };
        assert_eq!(apply(&nothing, &one).slot("s"), Some(0));
        assert_eq!(apply(&one, &nothing).slot("s"), None);
        let last = apply(&nothing, &one);
        assert_eq!(last.slot("s"), Some(1));
        assert_eq!(last.service_in(1), Some("s"));
    }

    #[test]
    fn a_cluster_moves_to_a_slot_that_is_nobodys() {
        let mut numbers = Numbers::default();
        let config = config("");
        let nothing = Config::default();
        let mut assign = |before: Before<'_>| {
            numbers.assign(&config, &before, |_| true).expect("fits");
            numbers.cluster_slot("c")
        };
        assert_eq!(assign(Before::of(&nothing)), Some(0));
        assert_eq!(assign(Before::of(&config)), Some(0));
        let before = Before {
            moving: HashSet::from(["c"]),
            used: HashSet::from([1, 2]),
            ..Before::of(&config)
        };
        assert_eq!(assign(before), Some(3));
    }
}
