// SPDX-License-Identifier: GPL-2.0
//! The compiled form gives the same answers as the plain meaning of the rules.

use std::collections::HashMap;

use super::walk::Walk;
use crate::config;
use crate::config::model::*;
use crate::matcher::{self, Request};
use crate::numbers::Numbers;

/// Xorshift: tests are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % n
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Applies are counted with 64 bits.
const GENERATION: u64 = (1 << 32) + 1;

fn compile(config: &Config) -> (Vec<u8>, Numbers) {
    let mut numbers = Numbers::default();
    numbers.assign(config, |_| true).expect("within the limits");
    let clusters: HashMap<&str, &Cluster> = config
        .clusters
        .iter()
        .map(|c| (c.name.as_str(), c))
        .collect();
    let blob =
        super::service(&config.services[0], &clusters, &numbers, GENERATION).expect("compiles");
    assert_eq!(Walk::new(&blob).head.generation, GENERATION);
    (blob, numbers)
}

fn parse(text: &str) -> Config {
    let source = config::parse("test", text.to_owned()).expect("parses");
    source.check(&source.config).expect("valid");
    source.config
}

// Few words, so that much collides.
const WORDS: [&str; 6] = ["a", "b", "ab", "v2", "v2x", "example"];
const NAMES: [&str; 3] = ["x-user", "x-a", "accept"];

fn host(random: &mut Random) -> String {
    let labels: Vec<&str> = (0..1 + random.below(4))
        .map(|_| *random.one(&WORDS))
        .collect();
    labels.join(".")
}

fn path(random: &mut Random) -> String {
    let mut path = String::new();
    for _ in 0..random.below(5) {
        path.push('/');
        let word: &str = random.one::<&str>(&WORDS);
        path.push_str(word);
    }
    if path.is_empty() || random.chance(20) {
        path.push('/');
    }
    path
}

fn named_match(random: &mut Random, names: &[&str]) -> NamedMatch {
    let value = (*random.one(&WORDS)).to_owned();
    NamedMatch {
        name: (*random.one(names)).to_owned(),
        value: match random.below(7) {
            4 => ValueMatch::Contains(value),
            0 => ValueMatch::Prefix(value),
            1 => ValueMatch::Suffix(value),
            2 => ValueMatch::Present(true),
            3 => ValueMatch::Present(false),
            _ => ValueMatch::Exact(value),
        },
    }
}

fn some(random: &mut Random, percent: usize, names: &[&str]) -> Vec<NamedMatch> {
    if random.chance(percent) {
        vec![named_match(random, names)]
    } else {
        Vec::new()
    }
}

/// Parameters or cookies, sometimes odd.
fn parts(random: &mut Random, separator: &str) -> String {
    let parts: Vec<String> = (0..random.below(4))
        .map(|_| match random.below(6) {
            0 => (*random.one::<&str>(&WORDS)).to_owned(),
            1 => String::new(),
            2 => format!("{}=", random.one::<&str>(&WORDS)),
            3 => format!(
                "{0}={1}={1}",
                random.one::<&str>(&WORDS),
                random.one::<&str>(&WORDS)
            ),
            _ => format!(
                "{}={}",
                random.one::<&str>(&WORDS),
                random.one::<&str>(&WORDS)
            ),
        })
        .collect();
    parts.join(separator)
}

fn route(random: &mut Random) -> Route {
    let text = path(random);
    let prefix = text
        .strip_suffix('/')
        .filter(|p| !p.is_empty())
        .unwrap_or(&text)
        .to_owned();
    Route {
        name: None,
        matches: Match {
            path: match random.below(5) {
                0 => None,
                1 => Some(PathMatch::Exact(text)),
                2 => Some(PathMatch::StringPrefix(text)),
                _ => Some(PathMatch::Prefix(prefix)),
            },
            method: (0..random.below(3))
                .map(|_| random.one(&Method::ALL).1)
                .collect(),
            headers: (0..random.below(3))
                .map(|_| named_match(random, &NAMES))
                .collect(),
            query: some(random, 20, &WORDS),
            cookies: some(random, 20, &WORDS),
            percent: random
                .chance(5)
                .then(|| if random.chance(50) { 0 } else { 100 }),
        },
        clusters: vec![Target {
            name: "c".to_owned(),
            weight: 1,
        }],
    }
}

fn service(random: &mut Random) -> Service {
    let mut used = Vec::new();
    let mut virtual_hosts = Vec::new();
    for _ in 0..1 + random.below(6) {
        let mut domains = Vec::new();
        for _ in 0..1 + random.below(3) {
            let host = host(random);
            let domain = match random.below(5) {
                0 => "*".to_owned(),
                1 => format!("*.{host}"),
                2 => format!("{host}.*"),
                _ => host,
            };
            if !used.contains(&domain) {
                used.push(domain.clone());
                domains.push(domain);
            }
        }
        let routes = (0..random.below(12)).map(|_| route(random)).collect();
        virtual_hosts.push(VirtualHost { domains, routes });
    }
    Service {
        name: "s".to_owned(),
        listen: vec!["10.0.0.1:80".parse().expect("an address")],
        normalize: Normalize::Match,
        upgrades: Vec::new(),
        cgroups: Vec::new(),
        virtual_hosts,
    }
}

fn request(random: &mut Random) -> Request {
    let mut headers: Vec<(String, String)> = Vec::new();
    for name in NAMES {
        if random.chance(50) {
            let value = format!("{}{}", random.one(&WORDS), random.one(&["", "b", "v2"]));
            headers.push((name.to_owned(), value));
        }
    }
    if random.chance(50) {
        let separator = *random.one(&["; ", ";"]);
        headers.push(("cookie".to_owned(), parts(random, separator)));
    }
    Request {
        query: random.chance(60).then(|| parts(random, "&")),
        host: if random.chance(3) {
            String::new()
        } else {
            host(random)
        },
        path: path(random),
        method: random.chance(90).then(|| random.one(&Method::ALL).1),
        headers,
        ..Request::default()
    }
}

#[test]
fn walking_the_blob_is_matching_the_rules() {
    let mut random = Random(0x243f_6a88_85a3_08d3);
    let mut served = 0;
    for round in 0..400 {
        let config = Config {
            services: vec![service(&mut random)],
            clusters: vec![Cluster {
                name: "c".to_owned(),
                lb: Lb::RoundRobin,
                lb_options: LbOptions::default(),
                endpoints: Vec::new(),
                pool: Pool::default(),
            }],
        };
        let service = &config.services[0];
        let (blob, numbers) = compile(&config);
        let mut walk = Walk::new(&blob);
        for _ in 0..100 {
            let request = request(&mut random);
            let vhost = matcher::virtual_host(service, &request.host);
            let expected = vhost.and_then(|(host, _)| {
                let route = matcher::route(host, &request, &mut |share| share > 0)?;
                numbers.route("s", host, route)
            });
            let found = walk
                .vhost(&request.host)
                .and_then(|vhost| walk.route(vhost, &request))
                .map(|route| walk.route_record(route).number);
            assert_eq!(found, expected, "round {round}: {request:?}\n{service:#?}");
            served += usize::from(found.is_some());
        }
    }
    // The test is worth something only when both answers are common.
    assert!(
        (4_000..36_000).contains(&served),
        "{served} of 40,000 were served"
    );
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
        let (blob, numbers) = compile(&config);
        let mut walk = Walk::new(&blob);
        let request = Request {
            host: format!("h{}.example", hosts - 1),
            path: format!("/api/r{}/x", routes - 1),
            method: Some(Method::Get),
            ..Request::default()
        };
        let vhost = walk.vhost(&request.host).expect("a virtual host");
        let route = walk.route(vhost, &request).expect("a route");
        let host = &config.services[0].virtual_hosts[hosts - 1];
        assert_eq!(
            Some(walk.route_record(route).number),
            numbers.route("s", host, routes - 1)
        );
        assert_eq!(walk.looked_at, 1, "{hosts} hosts, {routes} routes");
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
    let (blob, _) = compile(&parse(&text));
    let request = Request {
        path,
        headers: vec![("x".to_owned(), "v".repeat(4096))],
        ..Request::default()
    };
    assert_eq!(Walk::new(&blob).route(0, &request), Some(0));
}

#[test]
fn weights_are_exact() {
    let config = parse(
        "version: 1\nservices:\n- name: s\n  listen: [\"10.0.0.1:80\"]\n  routes:\n  \
         - clusters: [{name: a, weight: 20}, {name: b, weight: 0}, {name: c, weight: 30}]\n\
         clusters:\n- {name: a, endpoints: []}\n- {name: b, endpoints: []}\n\
         - name: c\n  endpoints:\n  - {address: \"127.0.0.1:1\", weight: 6}\n  \
         - {address: \"127.0.0.1:2\", weight: 0}\n  - {address: \"127.0.0.1:3\", weight: 2}\n  \
         - {address: \"127.0.0.1:4\", weight: 5, drain: true}\n",
    );
    let (blob, numbers) = compile(&config);
    let walk = Walk::new(&blob);
    let route = walk.route_record(0);
    assert_eq!(route.total_weight, 50);
    let mut counts = HashMap::new();
    for drawn in 0..50 {
        let cluster = walk.target(&route, drawn).expect("a cluster");
        *counts.entry(cluster.number).or_insert(0) += 1;
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
    let cluster = walk.target(&route, 49).expect("a cluster");
    assert_eq!(
        (cluster.endpoint_count, cluster.total_weight, cluster.equal),
        (2, 4, 0)
    );
    let ports: Vec<u16> = (0..8)
        .map(|count| {
            walk.endpoint(&cluster, walk.round_robin(&cluster, count))
                .port
        })
        .collect();
    assert_eq!(ports.iter().filter(|p| **p == 1).count(), 6, "{ports:?}");
    assert_eq!(ports.iter().filter(|p| **p == 3).count(), 2, "{ports:?}");
}

#[test]
fn equal_weights_take_turns() {
    let config = parse(
        "version: 1\nservices:\n- {name: s, listen: [\"10.0.0.1:80\"], routes: [{cluster: c}]}\n\
         clusters:\n- name: c\n  endpoints:\n  - {address: \"127.0.0.1:1\", weight: 7}\n  \
         - {address: \"127.0.0.1:2\", weight: 7}\n  - {address: \"127.0.0.1:3\", weight: 7}\n",
    );
    let (blob, _) = compile(&config);
    let walk = Walk::new(&blob);
    let cluster = walk.target(&walk.route_record(0), 0).expect("a cluster");
    let ports: Vec<u16> = (0..6)
        .map(|count| {
            walk.endpoint(&cluster, walk.round_robin(&cluster, count))
                .port
        })
        .collect();
    assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
}
