// SPDX-License-Identifier: GPL-2.0
//! The policy over time: endpoints that fail, requests that end, configurations that change.

use super::*;
use crate::compile::Compiled;
use crate::config::{self, model::Config};
use crate::numbers::{Before, Numbers};

#[derive(Default)]
struct Applied {
    config: Config,
    numbers: Numbers,
    generation: u64,
}

impl Applied {
    /// The one service of a file.
    fn apply(&mut self, text: &str, do_clusters_move: bool) -> Compiled {
        let config = parse(text);
        let mut before = Before::of(&self.config);
        if do_clusters_move {
            before.moving = config.clusters.iter().map(|c| c.name.as_str()).collect();
        }
        let assigned = self.numbers.assign(&config, &before, |_| false);
        assigned.expect("few");
        self.generation += 1;
        self.config = config;
        let service = &self.config.services[0];
        Compiled::new(&self.config, service, &self.numbers, self.generation).expect("compiles")
    }

    fn first(text: &str) -> (Compiled, Numbers) {
        let mut applied = Applied::default();
        (applied.apply(text, false), applied.numbers)
    }
}

fn parse(text: &str) -> Config {
    let source = config::parse("test", text.to_owned()).expect("parses");
    source.check(&source.config).expect("valid");
    source.config
}

fn one_cluster(lb: &str, endpoints: u32) -> String {
    let endpoints: Vec<String> = (1..=endpoints)
        .map(|port| format!("\"127.0.0.1:{port}\""))
        .collect();
    format!(
        "version: 1\nservices:\n- {{name: s, listen: [\"10.0.0.1:80\"], routes: [{{cluster: c}}]}}\n\
         clusters:\n- {{name: c, lb: {lb}, lb_options: {{choices: 0}}, endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

fn head() -> Head {
    Head::new("GET", "/", &[("Host", "a")]).expect("a request")
}

#[test]
fn an_endpoint_that_failed_is_not_picked_again_at_once() {
    for lb in ["round_robin", "random", "least_request"] {
        for count in [2, 3] {
            let (compiled, numbers) = Applied::first(&one_cluster(lb, count));
            let policy = Policy::new(&compiled, numbers.end());
            let head = head();
            let mut asked = Asked::new(&head);
            let Decision {
                reason,
                mut decision,
            } = policy.route(&mut asked);
            assert_eq!(reason, XLB_REASON_OK);
            for attempt in 1..=6 {
                let before = decision.port;
                let failed = xlb_result {
                    reason: XLB_REASON_CONNECT_FAILED,
                    ..xlb_result::default()
                };
                policy.done(&mut asked, &decision, &failed);
                assert_eq!(policy.pick(&mut asked, &mut decision, attempt), 0);
                assert_ne!(decision.port, before, "{lb} of {count}, {attempt}");
            }
        }
    }
}

#[test]
fn the_least_loaded_of_all_is_picked_and_load_ends() {
    let (compiled, numbers) = Applied::first(&one_cluster("least_request", 3));
    let policy = Policy::new(&compiled, numbers.end());
    let head = head();
    let mut asked = Asked::new(&head);
    let mut route = || policy.route(&mut asked).decision;
    let three = [route(), route(), route()];
    let mut ports = three.map(|decision| decision.port);
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3]);
    let again = route();
    let ok = xlb_result {
        status: 200,
        response_bytes: 7,
        ..xlb_result::default()
    };
    let mut asked = Asked::new(&head);
    policy.done(&mut asked, &three[1], &ok);
    let next = policy.route(&mut asked).decision;
    assert_eq!(next.port, three[1].port, "the others have load");
    for decision in [three[0], three[2], again, next] {
        policy.done(&mut asked, &decision, &ok);
    }
    for decision in three {
        assert_eq!(policy.state(decision.endpoint).load, 0);
        let stats = policy.stats(decision.endpoint);
        assert_eq!(stats.picked, stats.requests);
    }
    let stats = policy.stats(numbers.cluster("c").expect("numbered"));
    assert_eq!((stats.requests, stats.response_bytes), (5, 35));
    assert_eq!(policy.strays(), 0);
}

/// Whenever it changes while a request is decided on, the answer is that of one configuration: whole, and of the new one if
/// it came before the decision.
#[test]
fn a_request_sees_one_configuration() {
    let file = |prefix: &str, header: &str, port: u32| {
        format!(
            "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  virtual_hosts:\n  \
             - domains: [\"*.{prefix}\"]\n    routes:\n    \
             - {{match: {{path: {{prefix: /x}}, headers: [{{name: {header}, exact: other}}]}}, cluster: c}}\n    \
             - {{match: {{path: {{prefix: /x}}, headers: [{{name: {header}, contains: a}}], \
             query: [{{name: q, contains: b}}]}}, cluster: c}}\n    \
             - {{match: {{query: [{{name: q, contains: never}}]}}, cluster: c}}\n\
             clusters:\n- {{name: c, lb: least_request, endpoints: [\"127.0.0.1:{port}\", \
             {{address: \"127.0.0.2:{port}\", weight: 3}}]}}\n"
        )
    };
    let mut applied = Applied::default();
    let old = applied.apply(&file("a.example", "x-a", 1), true);
    let new = applied.apply(&file("example", "x-b", 2), true);
    let mut policy = Policy::new(&old, applied.numbers.end());
    let fields = [("Host", "b.a.example"), ("X-A", "a"), ("X-B", "a")];
    let head = Head::new("GET", "/x/y?q=b", &fields).expect("a request");
    let mut seen = [0, 0];
    for looks in 0..60 {
        policy.change_after(looks, &new);
        let Decision { reason, decision } = policy.route(&mut Asked::new(&head));
        assert_eq!(reason, XLB_REASON_OK, "after {looks}");
        assert_eq!(
            decision.cookie[0],
            u64::from(decision.port),
            "after {looks}"
        );
        seen[usize::from(decision.port) - 1] += 1;
    }
    assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
}

/// The same of a cluster that changes alone, in its slot: an endpoint is picked from what it was, or from what it is.
#[test]
fn a_request_sees_one_version_of_a_cluster() {
    for lb in ["round_robin", "random", "least_request"] {
        let file = |ports: std::ops::Range<u32>| {
            let endpoints = ports.map(|port| {
                format!(
                    "{{address: \"127.0.0.1:{port}\", weight: {}}}",
                    1 + port % 3
                )
            });
            format!(
                "version: 1\nservices:\n- {{name: s, listen: [\"10.0.0.1:80\"], routes: [{{cluster: c}}]}}\n\
                 clusters:\n- {{name: c, lb: {lb}, lb_options: {{choices: 3}}, endpoints: [{}]}}\n",
                endpoints.collect::<Vec<_>>().join(", ")
            )
        };
        let mut applied = Applied::default();
        // The last of the old one is beyond the end of the new one.
        let old = applied.apply(&file(1..40), false);
        let new = applied.apply(&file(50..52), false);
        let mut policy = Policy::new(&old, applied.numbers.end());
        policy.set_draws(|| u32::MAX);
        let head = head();
        let mut seen = [0, 0];
        for looks in 0..20 {
            policy.change_clusters_after(looks, &new);
            let Decision { reason, decision } = policy.route(&mut Asked::new(&head));
            assert_eq!(reason, XLB_REASON_OK, "{lb} after {looks}");
            let is_new = decision.port >= 50;
            let of_its_own = policy.stats(decision.endpoint).picked > 0;
            assert!(of_its_own && decision.port < 52, "{lb} after {looks}");
            seen[usize::from(is_new)] += 1;
        }
        assert!(seen[0] > 1 && seen[1] > 1, "{lb}: {seen:?}");
    }
}
