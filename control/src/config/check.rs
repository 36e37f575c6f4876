// SPDX-License-Identifier: GPL-2.0
//! What must hold between the items of a configuration.
//!
//! Issues carry places in the [`Config`] that was checked.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::decode::{closest, Issue, Issues};
use super::model::Config;
use super::node::Step;
use crate::addresses::Addresses;
use crate::intf;

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

/// The message may cost time, and is made for those only that are printed.
fn add(issues: &Issues, steps: Vec<Step>, message: impl FnOnce() -> String) {
    if issues.wanted() {
        issues.push(Issue {
            steps,
            message: message(),
            at: None,
            alias: None,
        });
    }
}

/// A name that could not be read is a place behind a 0 (see [`super::Source`]).
fn shown(name: &str) -> &str {
    name.trim_start_matches('\0')
}

/// Holds for a file on its own: nothing is there twice.
pub fn within(config: &Config, issues: &Issues) {
    let mut seen = HashMap::new();
    for (s, service) in config.services.iter().enumerate() {
        let at = |rest: Vec<Step>| [vec![key("services"), Step::Index(s)], rest].concat();
        if let Some(first) = seen.insert(service.name.as_str(), s) {
            add(issues, at(vec![key("name")]), || {
                format!(
                    "service {} is defined already as number {first}: rename or remove one",
                    service.name
                )
            });
        }
        let mut domains = HashSet::new();
        for (v, host) in service.virtual_hosts.iter().enumerate() {
            for (d, domain) in host.domains.iter().enumerate() {
                if !domains.insert(domain.as_str()) {
                    add(
                        issues,
                        at(vec![
                            key("virtual_hosts"),
                            Step::Index(v),
                            key("domains"),
                            Step::Index(d),
                        ]),
                        || format!("\"{domain}\" is there already in this service: keep one"),
                    );
                }
            }
            let mut names = HashSet::new();
            for (r, route) in host.routes.iter().enumerate() {
                if let Some(name) = &route.name {
                    if !names.insert(name) {
                        add(
                            issues,
                            at(vec![
                                key("virtual_hosts"),
                                Step::Index(v),
                                key("routes"),
                                Step::Index(r),
                                key("name"),
                            ]),
                            || {
                                format!(
                                "route {name} is there already in this virtual host: rename one"
                            )
                            },
                        );
                    }
                }
            }
        }
        if service.virtual_hosts.len() > intf::XLB_MAX_VHOSTS as usize {
            add(issues, at(vec![key("virtual_hosts")]), || {
                format!(
                    "{} virtual hosts; the limit in one service is {}",
                    service.virtual_hosts.len(),
                    intf::XLB_MAX_VHOSTS
                )
            });
        }
    }

    let mut seen = HashMap::new();
    for (c, cluster) in config.clusters.iter().enumerate() {
        let at = |rest: Vec<Step>| [vec![key("clusters"), Step::Index(c)], rest].concat();
        if let Some(first) = seen.insert(cluster.name.as_str(), c) {
            add(issues, at(vec![key("name")]), || {
                format!(
                    "cluster {} is defined already as number {first}: rename or remove one",
                    cluster.name
                )
            });
        }
        let mut addresses = Addresses::default();
        for (e, endpoint) in cluster.endpoints.iter().enumerate() {
            if !addresses.insert(endpoint.address) {
                add(issues, at(vec![key("endpoints"), Step::Index(e)]), || {
                    format!(
                        "{} is there already in this cluster: give it more weight instead",
                        endpoint.address
                    )
                });
            }
        }
    }
}

/// Holds for a whole configuration: one owner per VIP, clusters exist, no loops, limits.
pub fn references(config: &Config, issues: &Issues) {
    let clusters: HashSet<&str> = config.clusters.iter().map(|c| c.name.as_str()).collect();
    let known: Vec<&str> = clusters
        .iter()
        .copied()
        .filter(|name| shown(name) == *name)
        .collect();
    let mut owners: FxHashMap<SocketAddr, &str> = FxHashMap::default();

    for (s, service) in config.services.iter().enumerate() {
        for (l, vip) in service.listen.iter().enumerate() {
            if let Some(owner) = owners.insert(*vip, &service.name) {
                add(
                    issues,
                    vec![
                        key("services"),
                        Step::Index(s),
                        key("listen"),
                        Step::Index(l),
                    ],
                    || {
                        format!(
                            "{vip} belongs to service {}: a VIP and port has one owner",
                            shown(owner)
                        )
                    },
                );
            }
        }
        for (v, host) in service.virtual_hosts.iter().enumerate() {
            for (r, route) in host.routes.iter().enumerate() {
                for (t, target) in route.clusters.iter().enumerate() {
                    if clusters.contains(target.name.as_str()) {
                        continue;
                    }
                    add(
                        issues,
                        vec![
                            key("services"),
                            Step::Index(s),
                            key("virtual_hosts"),
                            Step::Index(v),
                            key("routes"),
                            Step::Index(r),
                            key("clusters"),
                            Step::Index(t),
                        ],
                        || {
                            let hint = closest(&target.name, &known).map_or_else(
                                || "add it to clusters".to_owned(),
                                |name| format!("did you mean {name}?"),
                            );
                            format!("there is no cluster {}: {hint}", target.name)
                        },
                    );
                }
            }
        }
    }
    for (c, cluster) in config.clusters.iter().enumerate() {
        for (e, endpoint) in cluster.endpoints.iter().enumerate() {
            if let Some(owner) = owners.get(&endpoint.address) {
                add(
                    issues,
                    vec![
                        key("clusters"),
                        Step::Index(c),
                        key("endpoints"),
                        Step::Index(e),
                    ],
                    || {
                        format!(
                            "{} is the VIP of service {}: give the address of the real server",
                            endpoint.address,
                            shown(owner)
                        )
                    },
                );
            }
        }
    }
    if config.services.len() > intf::XLB_MAX_SERVICES as usize - 1 {
        add(issues, vec![key("services")], || {
            format!(
                "{} services; the limit is {}",
                config.services.len(),
                intf::XLB_MAX_SERVICES - 1
            )
        });
    }
    if config.clusters.len() > intf::XLB_MAX_CLUSTERS as usize {
        add(issues, vec![key("clusters")], || {
            format!(
                "{} clusters; the limit is {}",
                config.clusters.len(),
                intf::XLB_MAX_CLUSTERS
            )
        });
    }
    if owners.len() > intf::XLB_MAX_VIPS as usize {
        add(issues, vec![key("services")], || {
            format!("{} VIPs; the limit is {}", owners.len(), intf::XLB_MAX_VIPS)
        });
    }
}
