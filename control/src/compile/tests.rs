// SPDX-License-Identifier: GPL-2.0
//! What the policy relies on in the compiled form: cost, sizes, weights. That it says what the rules say is tested in
//! `policy/fuzz.rs`.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use super::Compiled;
use crate::config;
use crate::config::action::Actions;
use crate::config::model::*;
use crate::intf::*;
use crate::numbers::{Before, Numbers};
use crate::policy::{Asked, Decision, Head, Policy};

/// Applies are counted with 64 bits.
const GENERATION: u64 = (1 << 32) + 1;

fn compile(config: &Config) -> (Compiled, Numbers) {
    let mut numbers = Numbers::default();
    numbers
        .assign(config, &Before::of(&Config::default()), |_| true)
        .expect("within the limits");
    let service = &config.services[0];
    let compiled = Compiled::new(config, service, &numbers, GENERATION).expect("compiles");
    assert_eq!(compiled.head().expect("it has").generation, GENERATION);
    (compiled, numbers)
}

fn get(policy: &Policy, host: &str, path: &str, fields: &[(&str, &str)]) -> Decision {
    let fields = [&[("Host", host)], fields].concat();
    let head = Head::new("GET", path, &fields).expect("a request");
    let decision = policy.route(&mut Asked::new(&head));
    assert_eq!(policy.strays(), 0);
    decision
}

fn parse(text: &str) -> Config {
    let source = config::parse("test", text.to_owned()).expect("parses");
    source.check(&source.config).expect("valid");
    source.config
}

/// A service with `n` virtual hosts of `n` routes each, or one of either.
fn wide(hosts: usize, routes: usize) -> Config {
    let virtual_hosts = (0..hosts)
        .map(|h| VirtualHost {
            domains: vec![format!("h{h}.example")],
            routes: (0..routes)
                .map(|r| Route {
                    name: None,
                    matches: Match {
                        path: Some(PathMatch::Prefix(format!("/api/r{r}"))),
                        ..Match::default()
                    },
                    clusters: vec![Target {
                        name: "c".to_owned(),
                        weight: 1,
                    }],
                    hash_on: Vec::new(),
                    actions: Actions::default(),
                })
                .collect(),
        })
        .collect();
    let mut config = parse(
        "version: 1\nservices:\n- {name: s, listen: [\"10.0.0.1:80\"], routes: [{cluster: c}]}\n\
         clusters:\n- {name: c, endpoints: [\"127.0.0.1:1\"]}\n",
    );
    config.services[0].virtual_hosts = virtual_hosts;
    config
}

#[test]
fn cost_does_not_grow_with_routes_and_hosts() {
    for (hosts, routes) in [(1, 10), (1, 10_000), (2_000, 1)] {
        let config = wide(hosts, routes);
        let (compiled, numbers) = compile(&config);
        let policy = Policy::new(&compiled, numbers.end());
        let decision = get(
            &policy,
            &format!("h{}.example", hosts - 1),
            &format!("/api/r{}/x", routes - 1),
            &[],
        );
        let last = numbers.route(&config.services[0], hosts - 1, routes - 1);
        assert_eq!(decision.decision.route, last);
        // Pages of all kinds, of which a key's place in the index is one to eight.
        let all = policy.lookups();
        assert!(all < 90, "{all} lookups for {hosts} hosts, {routes} routes");
    }
}

#[test]
fn the_longest_strings_fit() {
    let path = format!("/{}", "p".repeat(4095));
    let text = format!(
        "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  routes:\n  \
         - {{match: {{path: {{exact: {path}}}, headers: [{{name: x, exact: {}}}]}}, cluster: c}}\n\
         clusters:\n- {{name: c, endpoints: []}}\n",
        "v".repeat(4096)
    );
    let (compiled, numbers) = compile(&parse(&text));
    let policy = Policy::new(&compiled, numbers.end());
    for (value, is_found) in [("v".repeat(4096), true), ("v".repeat(4095), false)] {
        let decision = get(&policy, "a", &path, &[("X", &value)]);
        assert_eq!(decision.decision.route != 0, is_found);
    }
}

/// The policy, and what it draws.
fn drawing(compiled: &Compiled, numbers: &Numbers) -> (Policy, Rc<Cell<u32>>) {
    let mut policy = Policy::new(compiled, numbers.end());
    let drawn = Rc::new(Cell::new(0));
    let source = Rc::clone(&drawn);
    policy.set_draws(move || source.get());
    (policy, drawn)
}

/// What must be drawn for number `n` of `of`.
fn draw(n: u64, of: u64) -> u32 {
    u32::try_from((n << 32).div_ceil(of)).expect("below 2^32")
}

#[test]
fn weights_are_exact() {
    let config = parse(
        "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  routes:\n  \
         - clusters: [{name: a, weight: 20}, {name: b, weight: 0}, {name: c, weight: 30}]\n\
         clusters:\n- {name: a, endpoints: []}\n- {name: b, endpoints: []}\n\
         - name: c\n  lb: round_robin\n  endpoints:\n  - {address: \"127.0.0.1:1\", weight: 6}\n  \
         - {address: \"127.0.0.1:2\", weight: 0}\n  - {address: \"127.0.0.1:3\", weight: 2}\n  \
         - {address: \"127.0.0.1:4\", weight: 5, drain: true}\n",
    );
    let (compiled, numbers) = compile(&config);
    let (policy, drawn) = drawing(&compiled, &numbers);
    let mut counts = HashMap::new();
    let mut ports = Vec::new();
    for n in 0..50 {
        drawn.set(draw(n, 50));
        let Decision { reason, decision } = get(&policy, "a", "/", &[]);
        *counts.entry(decision.cluster).or_insert(0) += 1;
        if reason == XLB_REASON_OK {
            ports.push(decision.port);
        }
    }
    let count = |name| {
        counts
            .get(&numbers.cluster(name).expect("numbered"))
            .copied()
    };
    assert_eq!(
        (count("a"), count("b"), count("c")),
        (Some(20), None, Some(30))
    );

    // 6 and 2 become 3 and 1; weight 0 and draining endpoints are not there.
    let ports = &ports[..8];
    assert_eq!(ports.iter().filter(|p| **p == 1).count(), 6, "{ports:?}");
    assert_eq!(ports.iter().filter(|p| **p == 3).count(), 2, "{ports:?}");
    let four = &ports[..4];
    assert_eq!(four.iter().filter(|p| **p == 3).count(), 1, "{ports:?}");
}

#[test]
fn equal_weights_take_turns() {
    let config = parse(
        "version: 1\nservices:\n- {name: s, listen: [\"10.0.0.1:80\"], routes: [{cluster: c}]}\n\
         clusters:\n- name: c\n  lb: round_robin\n  endpoints:\n  - {address: \"127.0.0.1:1\", weight: 7}\n  \
         - {address: \"127.0.0.1:2\", weight: 7}\n  - {address: \"127.0.0.1:3\", weight: 7}\n",
    );
    let (compiled, numbers) = compile(&config);
    let policy = Policy::new(&compiled, numbers.end());
    let ports: Vec<u16> = (0..6)
        .map(|_| get(&policy, "a", "/", &[]).decision.port)
        .collect();
    assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
}
