// SPDX-License-Identifier: GPL-2.0
//! Configurations of a storm. Whatever changes from one to the next, a lane of a service leads to the same backends;
//! the names of the clusters, and how the lane is asked for, are others each time.

use super::ask::{Service, BACKENDS, LANES, SERVICES};
use super::backends;
use super::chance::Rng;

/// Everything is there, and nothing is limited.
pub fn whole() -> String {
    document(None)
}

pub fn drawn(rng: &mut Rng) -> String {
    document(Some(rng))
}

fn document(mut rng: Option<&mut Rng>) -> String {
    let mut names = ["a", "b", "c", "d", "e", "f"];
    let mut services = Vec::new();
    let mut clusters = Vec::new();
    if let Some(rng) = &mut rng {
        rng.shuffle(&mut names);
    }
    let mut names = names.iter();
    for service in &SERVICES {
        let lanes: Vec<String> = LANES
            .iter()
            .zip(service.lanes)
            .map(|(lane, backends)| {
                let name = names.next().copied().unwrap_or(lane);
                clusters.push(cluster(name, backends, rng.as_deref_mut()));
                name.to_owned()
            })
            .collect();
        let optional = service.lanes[0].len() == BACKENDS as usize;
        let there = rng
            .as_deref_mut()
            .is_none_or(|rng| !optional || rng.one_in(2));
        if there {
            services.push(routes(service, &lanes, rng.as_deref_mut()));
        }
    }
    if let Some(rng) = rng {
        rng.shuffle(&mut services);
        rng.shuffle(&mut clusters);
    }
    format!(
        "version: 1\nservices:\n{}clusters:\n{}",
        services.concat(),
        clusters.concat()
    )
}

fn routes(service: &Service, clusters: &[String], rng: Option<&mut Rng>) -> String {
    let (name, host) = (service.name, service.host);
    let mut yaml = format!(
        "- name: {name}\n  listen: [\"10.96.0.{host}:80\", \"[fd00:96::{host}]:80\"]\n  routes:\n"
    );
    let (first, kinds) = match rng {
        None => (0, [0, 0]),
        Some(rng) => (rng.below(2), [rng.below(7), rng.below(7)]),
    };
    // One is asked for, and all else goes to the other; or both are asked for.
    for (place, lane) in [first, 1 - first].into_iter().enumerate() {
        let (text, cluster) = (LANES[lane], &clusters[lane]);
        let target = format!("cluster: {cluster}");
        let condition = match kinds[place] {
            0 => format!("path: {{prefix: /{text}}}"),
            1 => format!("headers: [{{name: x-lane, exact: {text}}}]"),
            2 => format!("query: [{{name: lane, exact: {text}}}]"),
            3 => format!("cookies: [{{name: lane, exact: {text}}}]"),
            4 => format!(
                "path: {{string_prefix: /{text}/of}}, headers: [{{name: x-owner, present: true}}]"
            ),
            5 => format!("headers: [{{name: x-lane, prefix: {}}}]", &text[..2]),
            _ if place == 0 => format!("path: {{prefix: /{text}/of}}"),
            _ => String::new(),
        };
        // All of a part, the rest of it after that.
        let clusters =
            format!("clusters: [{{name: {cluster}, weight: 1}}, {{name: {cluster}, weight: 2}}]");
        let target = if kinds[1 - place] == 3 {
            clusters
        } else {
            target
        };
        yaml += &format!("  - {{match: {{{condition}}}, {target}}}\n");
    }
    yaml
}

fn cluster(name: &str, backends: &[u32], rng: Option<&mut Rng>) -> String {
    let address = |number: u32| backends::address(number);
    let Some(rng) = rng else {
        let all: Vec<_> = backends
            .iter()
            .map(|n| format!("\"{}\"", address(*n)))
            .collect();
        return format!(
            "- {{name: {name}, lb: round_robin, endpoints: [{}], pool: {{connect_timeout: 10s}}}}\n",
            all.join(", ")
        );
    };
    let mut endpoints = Vec::new();
    for backend in backends {
        // Seldom there is none.
        if rng.one_in(5) {
            continue;
        }
        let (weight, drain) = (rng.from(1, 6), rng.one_in(8));
        endpoints.push(format!(
            "{{address: \"{}\", weight: {weight}, drain: {drain}}}",
            address(*backend)
        ));
    }
    let lb = rng.of_these(&["round_robin", "random", "least_request"]);
    let mut pool = vec!["connect_timeout: 2s".to_owned()];
    let max = rng.from(1, 5);
    if rng.one_in(3) {
        let pending = rng.of_these(&[0, 1, 100]);
        pool.push(format!(
            "max: {max}, max_pending: {pending}, pending_timeout: 2s"
        ));
    }
    if rng.one_in(3) {
        pool.push(format!("min_idle: {}", rng.below(max + 1)));
    }
    if rng.one_in(3) {
        pool.push(format!("idle_timeout: {}ms", rng.from(50, 2000)));
    }
    if rng.one_in(4) {
        pool.push(format!("max_requests: {}", rng.from(1, 10)));
    }
    format!(
        "- {{name: {name}, lb: {lb}, endpoints: [{}], pool: {{{}}}}}\n",
        endpoints.join(", "),
        pool.join(", ")
    )
}
