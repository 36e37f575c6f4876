// SPDX-License-Identifier: GPL-2.0
//! The scenarios, one file for each group.

use crate::ctx::Scenario;

mod actions;
mod actions_envoy;
mod balance;
mod bodies;
mod clients;
mod config;
mod differential;
mod faults;
mod hostile;
mod identity;
mod identity_cgroup;
mod identity_route;
mod identity_tcp;
mod life;
mod life_many;
mod matrix;
mod memory;
mod numbers;
mod pool;
mod pool_cpus;
mod pool_limits;
mod replies;
mod routes;
pub mod smuggle;
mod socket_api;
mod socket_edge;
mod socket_end;
mod socket_io;
mod socket_lent;
mod socket_options;
mod socket_owner;
mod socket_wait;
pub mod storm;
mod upgrade;

const ALL: &[&[Scenario]] = &[
    socket_api::SCENARIOS,
    socket_io::SCENARIOS,
    socket_wait::SCENARIOS,
    socket_edge::SCENARIOS,
    socket_end::SCENARIOS,
    socket_owner::SCENARIOS,
    socket_options::SCENARIOS,
    socket_lent::SCENARIOS,
    bodies::SCENARIOS,
    clients::SCENARIOS,
    balance::SCENARIOS,
    routes::SCENARIOS,
    actions::SCENARIOS,
    actions_envoy::SCENARIOS,
    differential::SCENARIOS,
    pool::SCENARIOS,
    pool_cpus::SCENARIOS,
    pool_limits::SCENARIOS,
    replies::SCENARIOS,
    config::SCENARIOS,
    numbers::SCENARIOS,
    upgrade::SCENARIOS,
    life::SCENARIOS,
    life_many::SCENARIOS,
    memory::SCENARIOS,
    hostile::SCENARIOS,
    identity::SCENARIOS,
    identity_cgroup::SCENARIOS,
    identity_route::SCENARIOS,
    identity_tcp::SCENARIOS,
    smuggle::SCENARIOS,
    matrix::SCENARIOS,
    faults::SCENARIOS,
    storm::SCENARIOS,
];

/// The scenarios with this text, or one of these between commas, in their name; or all.
pub fn matching(filter: Option<&str>) -> Vec<&'static Scenario> {
    ALL.iter()
        .copied()
        .flatten()
        .filter(|s| filter.is_none_or(|texts| texts.split(',').any(|text| s.name.contains(text))))
        .collect()
}

pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().flatten().find(|s| s.name == name)
}
