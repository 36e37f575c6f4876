// SPDX-License-Identifier: GPL-2.0
//! What must hold between the items of a configuration.
//!
//! Issues carry places in the [`Config`] that was checked.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::decode::Issue;
use super::model::Config;
use super::node::Step;
use crate::intf;

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

fn issue(steps: Vec<Step>, message: String) -> Issue {
    Issue { steps, message }
}

/// Holds for a file on its own: nothing is there twice.
pub fn within(config: &Config) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut seen = HashMap::new();
    for (s, service) in config.services.iter().enumerate() {
        let at = |rest: Vec<Step>| [vec![key("services"), Step::Index(s)], rest].concat();
        if let Some(first) = seen.insert(service.name.as_str(), s) {
            issues.push(issue(
                at(vec![key("name")]),
                format!(
                    "service {} is defined already as number {first}: rename or remove one",
                    service.name
                ),
            ));
        }
        let mut domains = HashSet::new();
        for (v, host) in service.virtual_hosts.iter().enumerate() {
            if host.domains.is_empty() {
                issues.push(issue(
                    at(vec![key("virtual_hosts"), Step::Index(v), key("domains")]),
                    "an empty list matches no request: write [\"*\"]".to_owned(),
                ));
            }
            for (d, domain) in host.domains.iter().enumerate() {
                if !domains.insert(domain.as_str()) {
                    issues.push(issue(
                        at(vec![
                            key("virtual_hosts"),
                            Step::Index(v),
                            key("domains"),
                            Step::Index(d),
                        ]),
                        format!("\"{domain}\" is there already in this service: keep one"),
                    ));
                }
            }
            let mut names = HashSet::new();
            for (r, route) in host.routes.iter().enumerate() {
                if let Some(name) = &route.name {
                    if !names.insert(name) {
                        issues.push(issue(
                            at(vec![
                                key("virtual_hosts"),
                                Step::Index(v),
                                key("routes"),
                                Step::Index(r),
                                key("name"),
                            ]),
                            format!(
                                "route {name} is there already in this virtual host: rename one"
                            ),
                        ));
                    }
                }
            }
        }
        if service.virtual_hosts.len() > intf::XLB_MAX_VHOSTS as usize {
            issues.push(issue(
                at(vec![key("virtual_hosts")]),
                format!(
                    "{} virtual hosts; the limit in one service is {}",
                    service.virtual_hosts.len(),
                    intf::XLB_MAX_VHOSTS
                ),
            ));
        }
    }

    let mut seen = HashMap::new();
    for (c, cluster) in config.clusters.iter().enumerate() {
        let at = |rest: Vec<Step>| [vec![key("clusters"), Step::Index(c)], rest].concat();
        if let Some(first) = seen.insert(cluster.name.as_str(), c) {
            issues.push(issue(
                at(vec![key("name")]),
                format!(
                    "cluster {} is defined already as number {first}: rename or remove one",
                    cluster.name
                ),
            ));
        }
        let mut addresses = HashSet::new();
        for (e, endpoint) in cluster.endpoints.iter().enumerate() {
            if !addresses.insert(endpoint.address) {
                issues.push(issue(
                    at(vec![key("endpoints"), Step::Index(e)]),
                    format!(
                        "{} is there already in this cluster: give it more weight instead",
                        endpoint.address
                    ),
                ));
            }
        }
    }
    issues
}

/// Holds for a whole configuration: one owner per VIP, clusters exist, no loops, limits.
/// `broken` names clusters that are there, but wrong in themselves.
pub fn references(config: &Config, broken: &HashSet<String>) -> Vec<Issue> {
    let mut issues = Vec::new();
    let clusters: HashSet<&str> = config
        .clusters
        .iter()
        .map(|c| c.name.as_str())
        .chain(broken.iter().map(String::as_str))
        .collect();
    let mut owners: HashMap<SocketAddr, &str> = HashMap::new();

    for (s, service) in config.services.iter().enumerate() {
        for (l, vip) in service.listen.iter().enumerate() {
            if let Some(owner) = owners.insert(*vip, &service.name) {
                issues.push(issue(
                    vec![
                        key("services"),
                        Step::Index(s),
                        key("listen"),
                        Step::Index(l),
                    ],
                    format!("{vip} belongs to service {owner}: a VIP and port has one owner"),
                ));
            }
        }
        for (v, host) in service.virtual_hosts.iter().enumerate() {
            for (r, route) in host.routes.iter().enumerate() {
                for (t, target) in route.clusters.iter().enumerate() {
                    if clusters.contains(target.name.as_str()) {
                        continue;
                    }
                    let known: Vec<&str> = clusters.iter().copied().collect();
                    let hint = super::decode::closest(&target.name, &known).map_or_else(
                        || "add it to clusters".to_owned(),
                        |name| format!("did you mean {name}?"),
                    );
                    issues.push(issue(
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
                        format!("there is no cluster {}: {hint}", target.name),
                    ));
                }
            }
        }
    }
    for (c, cluster) in config.clusters.iter().enumerate() {
        for (e, endpoint) in cluster.endpoints.iter().enumerate() {
            if let Some(owner) = owners.get(&endpoint.address) {
                issues.push(issue(
                    vec![
                        key("clusters"),
                        Step::Index(c),
                        key("endpoints"),
                        Step::Index(e),
                    ],
                    format!(
                        "{} is the VIP of service {owner}: give the address of the real server",
                        endpoint.address
                    ),
                ));
            }
        }
    }
    if config.services.len() > intf::XLB_MAX_SERVICES as usize - 1 {
        issues.push(issue(
            vec![key("services")],
            format!(
                "{} services; the limit is {}",
                config.services.len(),
                intf::XLB_MAX_SERVICES - 1
            ),
        ));
    }
    if owners.len() > intf::XLB_MAX_VIPS as usize {
        issues.push(issue(
            vec![key("services")],
            format!("{} VIPs; the limit is {}", owners.len(), intf::XLB_MAX_VIPS),
        ));
    }
    issues
}
