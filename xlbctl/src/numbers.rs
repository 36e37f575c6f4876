// SPDX-License-Identifier: GPL-2.0
//! Numbers of services, routes, clusters and endpoints.
//!
//! Counters and balancing state live in the kernel under a number.  An item keeps its
//! number over changes of the configuration, so it keeps its counters too.  A number
//! that has become free waits in a queue: requests that began under it may still end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::model::{Config, VirtualHost};
use crate::intf::{XLB_CLUSTER_SLOTS, XLB_MAX_ITEMS, XLB_MAX_SERVICES};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    items: BTreeMap<String, u32>,
    slots: BTreeMap<String, u32>,
    /// Every number below was given out at some time; 0 never is.
    next: u32,
    next_slot: u32,
    /// Every slot was given out at some time: a slot given out now was another's.
    #[serde(default)]
    round: bool,
    free: VecDeque<u32>,
    #[serde(default)]
    cluster_slots: BTreeMap<String, u32>,
    #[serde(default)]
    next_cluster_slot: u32,
}

/// What [`Numbers::assign`] must know of the kernel and of what is applied before.
pub struct Before<'b> {
    /// Clusters that get another slot than they had.
    pub moving: HashSet<&'b str>,
    /// Slots of clusters that no other cluster may get, beside those that clusters had before.
    pub used: HashSet<u32>,
}

impl Before<'_> {
    pub fn nothing() -> Self {
        Before {
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

impl Numbers {
    fn get(&self, key: &str) -> Option<u32> {
        self.items.get(key).copied()
    }

    pub fn service(&self, name: &str) -> Option<u32> {
        self.get(&format!("service|{name}"))
    }

    pub fn cluster(&self, name: &str) -> Option<u32> {
        self.get(&format!("cluster|{name}"))
    }

    /// Names of all clusters, by number.
    pub fn clusters(&self) -> HashMap<u32, &str> {
        self.items
            .iter()
            .filter_map(|(key, number)| Some((*number, key.strip_prefix("cluster|")?)))
            .collect()
    }

    pub fn endpoint(&self, cluster: &str, address: SocketAddr) -> Option<u32> {
        self.get(&format!("endpoint|{cluster}|{address}"))
    }

    pub fn route(&self, service: &str, host: &VirtualHost, route: usize) -> Option<u32> {
        self.get(&format!("route|{service}|{}", route_key(host, route)))
    }

    /// Which slot of the outer map is the service's; sockets carry this number.
    pub fn slot(&self, service: &str) -> Option<u32> {
        self.slots.get(service).copied()
    }

    pub fn service_in(&self, slot: u32) -> Option<&str> {
        self.slots
            .iter()
            .find(|(_, s)| **s == slot)
            .map(|(name, _)| name.as_str())
    }

    /// Which slot of the map of clusters is the cluster's; routes name it by this number.
    pub fn cluster_slot(&self, cluster: &str) -> Option<u32> {
        self.cluster_slots.get(cluster).copied()
    }

    pub fn cluster_slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.cluster_slots.values().copied()
    }

    pub fn slots_go_round(&self) -> bool {
        self.round
    }

    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.values().copied()
    }

    /// One more than the highest number in use or to be used again.
    pub fn end(&self) -> u32 {
        self.next
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
        mut is_idle: impl FnMut(u32) -> bool,
    ) -> Result<Vec<u32>, usize> {
        let keys = keys(config);
        let gone: Vec<String> = {
            let wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
            self.items
                .keys()
                .filter(|key| !wanted.contains(key.as_str()))
                .cloned()
                .collect()
        };
        // What is freed now goes behind: it is not given out before all freed earlier.
        let mut reusable = std::mem::take(&mut self.free);
        for key in gone {
            self.free.extend(self.items.remove(&key));
        }

        let mut reused = Vec::new();
        let mut busy = VecDeque::new();
        let total = keys.len();
        for key in keys {
            if self.items.contains_key(&key) {
                continue;
            }
            let recycled = loop {
                match reusable.pop_front() {
                    Some(number) if is_idle(number) => break Some(number),
                    Some(number) => busy.push_back(number),
                    None => break None,
                }
            };
            let number = match recycled {
                Some(number) => {
                    reused.push(number);
                    number
                }
                None if self.next.max(1) < XLB_MAX_ITEMS => {
                    let number = self.next.max(1);
                    self.next = number + 1;
                    number
                }
                None => return Err(total),
            };
            self.items.insert(key, number);
        }
        busy.append(&mut reusable);
        busy.append(&mut self.free);
        self.free = busy;

        self.assign_slots(config);
        self.assign_cluster_slots(config, before);
        Ok(reused)
    }

    /// Slots go round, so that a slot is used again as late as possible: a socket of the
    /// service that had it may live.  Configurations have fewer services than there are slots.
    fn assign_slots(&mut self, config: &Config) {
        let names: HashSet<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
        self.slots.retain(|name, _| names.contains(name.as_str()));
        let mut used: HashSet<u32> = self.slots.values().copied().collect();
        for service in &config.services {
            if self.slots.contains_key(&service.name) || used.len() >= XLB_MAX_SERVICES as usize {
                continue;
            }
            while used.contains(&self.next_slot) {
                self.step_slot();
            }
            used.insert(self.next_slot);
            self.slots.insert(service.name.clone(), self.next_slot);
            self.step_slot();
        }
    }

    /// A slot that a cluster had before is no other's yet: routes may still lead to it until all of this is written.
    fn assign_cluster_slots(&mut self, config: &Config, before: &Before<'_>) {
        let mut used: HashSet<u32> = self.cluster_slots().collect();
        used.extend(&before.used);
        let names: HashSet<&str> = config.clusters.iter().map(|c| c.name.as_str()).collect();
        self.cluster_slots.retain(|name, _| {
            names.contains(name.as_str()) && !before.moving.contains(name.as_str())
        });
        for cluster in &config.clusters {
            // Twice as many as clusters can be.
            if self.cluster_slots.contains_key(&cluster.name)
                || used.len() >= XLB_CLUSTER_SLOTS as usize
            {
                continue;
            }
            while !used.insert(self.next_cluster_slot) {
                self.next_cluster_slot = (self.next_cluster_slot + 1) % XLB_CLUSTER_SLOTS;
            }
            let name = cluster.name.clone();
            self.cluster_slots.insert(name, self.next_cluster_slot);
        }
    }

    fn step_slot(&mut self) {
        self.next_slot = (self.next_slot + 1) % XLB_MAX_SERVICES;
        self.round |= self.next_slot == 0;
    }
}

fn keys(config: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    for service in &config.services {
        keys.push(format!("service|{}", service.name));
        for host in &service.virtual_hosts {
            for route in 0..host.routes.len() {
                keys.push(format!("route|{}|{}", service.name, route_key(host, route)));
            }
        }
    }
    for cluster in &config.clusters {
        keys.push(format!("cluster|{}", cluster.name));
        for endpoint in &cluster.endpoints {
            keys.push(format!("endpoint|{}|{}", cluster.name, endpoint.address));
        }
    }
    keys
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

    #[test]
    fn numbers_stay_and_freed_ones_wait() {
        let mut numbers = Numbers::default();
        numbers
            .assign(
                &config("\"127.0.0.1:1\", \"127.0.0.1:2\""),
                &Before::nothing(),
                |_| true,
            )
            .expect("fits");
        let kept = numbers.endpoint("c", "127.0.0.1:2".parse().expect("an address"));
        let freed = numbers.endpoint("c", "127.0.0.1:1".parse().expect("an address"));
        assert!(kept.is_some() && freed.is_some() && kept != freed);
        let cluster = numbers.cluster("c").expect("numbered");
        assert_eq!(numbers.clusters(), HashMap::from([(cluster, "c")]));

        numbers
            .assign(
                &config("\"127.0.0.1:2\", \"127.0.0.1:3\""),
                &Before::nothing(),
                |_| true,
            )
            .expect("fits");
        assert_eq!(
            numbers.endpoint("c", "127.0.0.1:2".parse().expect("an address")),
            kept
        );
        assert_ne!(
            numbers.endpoint("c", "127.0.0.1:3".parse().expect("an address")),
            freed
        );

        // Busy: not yet; idle: now, and it is told.
        let mut again = numbers.clone();
        let four = config("\"127.0.0.1:2\", \"127.0.0.1:3\", \"127.0.0.1:4\"");
        assert_eq!(
            again.assign(&four, &Before::nothing(), |_| false),
            Ok(vec![])
        );
        assert_eq!(
            numbers.assign(&four, &Before::nothing(), |_| true),
            Ok(freed.into_iter().collect())
        );
    }

    #[test]
    fn slots_go_round() {
        let mut numbers = Numbers::default();
        numbers
            .assign(&config(""), &Before::nothing(), |_| true)
            .expect("fits");
        assert_eq!(numbers.slot("s"), Some(0));
        numbers
            .assign(&Config::default(), &Before::nothing(), |_| true)
            .expect("fits");
        assert_eq!(numbers.slot("s"), None);
        numbers
            .assign(&config(""), &Before::nothing(), |_| true)
            .expect("fits");
        assert_eq!(numbers.slot("s"), Some(1));
        assert_eq!(numbers.service_in(1), Some("s"));
    }

    #[test]
    fn a_cluster_moves_to_a_slot_that_is_nobodys() {
        let mut numbers = Numbers::default();
        let config = config("");
        let mut assign = |before: Before<'_>| {
            numbers.assign(&config, &before, |_| true).expect("fits");
            numbers.cluster_slot("c")
        };
        assert_eq!(assign(Before::nothing()), Some(0));
        assert_eq!(assign(Before::nothing()), Some(0));
        let before = Before {
            moving: HashSet::from(["c"]),
            used: HashSet::from([1, 2]),
        };
        assert_eq!(assign(before), Some(3));
    }
}
