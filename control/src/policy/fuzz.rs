// SPDX-License-Identifier: GPL-2.0
//! Random configurations and random requests: the policy says what the plain rules (`matcher.rs`) say.
//!
//! Each round draws from a seed of its own, which a failure names: `XLB_SEED=n` begins with that round. `XLB_FUZZ=600` goes on for
//! so many seconds. Words are few, so that much collides; requests are written in odd ways that mean the same, and
//! what they mean is known from how they were made, not from taking them apart.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::*;
use crate::compile::hashing;
use crate::compile::Compiled;
use crate::config::action::{Actions, Respond};
use crate::config::model::*;
use crate::matcher::{self, Request};
use crate::numbers::{Before, Numbers};
use crate::random::Random;
use crate::why::Routed;

const LABELS: [&str; 6] = ["a", "b", "ab", "v2", "v2x", "example"];
/// In normal form.
const SEGMENTS: [&str; 9] = [
    "a",
    "b",
    "ab",
    "v2",
    "v2x",
    "@b",
    "a;v=1",
    "caf%C3%A9",
    "a.b",
];
const HEADERS: [&str; 4] = ["x-user", "x-a", "accept", "cookie"];
/// Some of more than a word of the machine.
const NAMES: [&str; 7] = [
    "a",
    "b",
    "ab",
    "A",
    "abcdefg",
    "abcdefgh",
    "a-long-name-of-a-part",
];
const VALUES: [&str; 11] = [
    "", "a", "b", "ab", "aab", "aabaab", "ba", "a,b", "aa", "é", "a b",
];

fn host(random: &mut Random) -> String {
    let labels = match random.below(30) {
        0 => 100,
        _ => 1 + random.below(4),
    };
    let labels: Vec<&str> = (0..labels)
        .map(|_| random.one(&LABELS[..2 + labels % 5]))
        .collect();
    labels.join(".")
}

fn path(random: &mut Random) -> String {
    let segments = match random.below(40) {
        0 => 70,
        _ => random.below(5),
    };
    let mut path = String::new();
    for _ in 0..segments {
        path.push('/');
        path.push_str(random.one(&SEGMENTS));
    }
    if path.is_empty() || random.chance(20) {
        path.push('/');
    }
    path
}

fn value(random: &mut Random) -> String {
    match random.below(40) {
        0 => "ab".repeat(random.below(2_000)),
        1 => random.one(&VALUES).repeat(1 + random.below(40)),
        _ => random.one(&VALUES).to_owned(),
    }
}

/// Of a parameter or a cookie: few, or so many that one table has them all.
fn name(random: &mut Random, many: bool) -> String {
    match many && random.chance(80) {
        true => format!("n{}", random.below(120)),
        false => random.one(&NAMES).to_owned(),
    }
}

const EXPRESSIONS: [&str; 12] = [
    "",
    ".*",
    "a",
    "a*b?",
    "(?:a|ab)+",
    ".*ab.*",
    "[^b]*",
    "/a.*",
    "/[a-z0-9]+(?:/.*)?",
    "/(?:v2|B)/?.*",
    "\\w{2,3}",
    "(?i:AB|a)",
];

fn rule(random: &mut Random, name: String) -> NamedMatch {
    let value = value(random);
    NamedMatch {
        name,
        invert: random.chance(15),
        value: match random.below(10) {
            9 => ValueMatch::Regex(random.one(&EXPRESSIONS).to_owned()),
            0 => ValueMatch::Present(true),
            1 => ValueMatch::Present(false),
            8 => ValueMatch::Range(
                [-5, 0, 1][random.below(3)],
                [2, 10, i64::MAX][random.below(3)],
            ),
            2 => ValueMatch::Prefix(value),
            3 => ValueMatch::Suffix(value),
            4 | 5 => ValueMatch::Contains(value),
            _ => ValueMatch::Exact(value),
        },
    }
}

fn path_match(random: &mut Random) -> PathMatch {
    // As the configuration has it: at most 64 segments, of a prefix without the last slash.
    let text: String = match path(random) {
        long if long.len() > 250 => long.split_inclusive('/').take(60).collect(),
        path => path,
    };
    match random.below(6) {
        5 => PathMatch::Regex(random.one(&EXPRESSIONS).to_owned()),
        0 => PathMatch::Exact(text),
        1 => PathMatch::StringPrefix(text),
        _ => PathMatch::Prefix(match text.trim_end_matches('/') {
            "" => "/".to_owned(),
            prefix => prefix.to_owned(),
        }),
    }
}

fn route(random: &mut Random, clusters: usize, many: bool) -> Route {
    let most = if many { 3 } else { 1 };
    let is_named = random.chance(if many { 90 } else { 30 });
    let named = if is_named { most } else { 0 };
    let first = random.below(clusters);
    Route {
        name: None,
        matches: Match {
            path: random.chance(75).then(|| path_match(random)),
            method: random.some(2, |random| Method::ALL[random.below(Method::ALL.len())].1),
            headers: random.some(most.min(2), |random| {
                let name = random.one(&HEADERS).to_owned();
                rule(random, name)
            }),
            query: random.some(named, |random| {
                let name = name(random, many);
                rule(random, name)
            }),
            cookies: random.some(named, |random| {
                let name = name(random, many);
                rule(random, name)
            }),
            ignore_case: random.chance(20),
            percent: random
                .chance(8)
                .then(|| Percent([0, 1, 500_000, 999_999, 1_000_000][random.below(5)])),
        },
        clusters: (0..1 + random.below(3).min(clusters - 1))
            .map(|n| Target {
                name: format!("c{}", (first + n) % clusters),
                weight: [0, 1, 1, 2, 7, 100][random.below(6)],
            })
            .collect(),
        hash_on: random.some(3, |random| match random.below(5) {
            0 => HashOn::SourceIp(true),
            1 => HashOn::Header(random.one(&HEADERS).to_owned()),
            2 => HashOn::Query(name(random, many)),
            n => HashOn::Cookie(HashCookie {
                name: name(random, many),
                ttl: (n == 3).then_some(0),
                path: None,
            }),
        }),
        actions: Actions::default(),
    }
}

/// Says what the client gets, instead of naming clusters.
fn responding(random: &mut Random, route: Route) -> Route {
    Route {
        clusters: Vec::new(),
        actions: Actions {
            respond: Some(Respond {
                status: [200, 204, 403, 503][random.below(4)],
                body: random.one(&["", "no\n"]).to_owned(),
            }),
            ..Actions::default()
        },
        ..route
    }
}

fn service(random: &mut Random, clusters: usize) -> Service {
    let many = random.chance(10);
    let mut used = Vec::new();
    let mut virtual_hosts = Vec::new();
    for _ in 0..1 + random.below(6) {
        let mut domains = Vec::new();
        if used.is_empty() && random.chance(50) {
            used.push("*".to_owned());
            domains.push("*".to_owned());
        }
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
        let most = if many { 60 } else { 12 };
        // No two of them are numbered alike.
        if !domains.is_empty() {
            virtual_hosts.push(VirtualHost {
                domains,
                routes: random.some(most, |random| {
                    let route = route(random, clusters, many);
                    match random.chance(12) {
                        true => responding(random, route),
                        false => route,
                    }
                }),
            });
        }
    }
    Service {
        name: "s".to_owned(),
        listen: vec!["10.0.0.1:80".parse().expect("an address")],
        normalize: match random.chance(50) {
            true => Normalize::Match,
            false => Normalize::Forward,
        },
        upgrades: match random.below(3) {
            0 => Vec::new(),
            1 => vec!["websocket".to_owned()],
            _ => vec!["spdy/3.1".to_owned(), "tcp".to_owned()],
        },
        cgroups: Vec::new(),
        virtual_hosts,
    }
}

fn cluster(random: &mut Random, name: String, ports: &mut std::ops::RangeFrom<u16>) -> Cluster {
    let weights: &[u32] = match random.chance(50) {
        true => &[1],
        false => &[0, 1, 2, 6, 9],
    };
    Cluster {
        name,
        lb: [
            Lb::RoundRobin,
            Lb::Random,
            Lb::LeastRequest,
            Lb::RingHash,
            Lb::Maglev,
        ][random.below(5)],
        lb_options: LbOptions {
            choices: [0, 1, 2, 3][random.below(4)],
            table_size: [None, Some(5), Some(1009)][random.below(3)],
        },
        endpoints: random.some(4, |random| {
            let port = ports.next().expect("few");
            Endpoint {
                address: match random.chance(50) {
                    true => ([127, 0, 0, 1], port).into(),
                    false => ([0xfd00, 0, 0, 0, 0, 0, 0, 1], port).into(),
                },
                weight: weights[random.below(weights.len())],
                drain: random.chance(10),
            }
        }),
        pool: Pool {
            max: random.next(),
            ..Pool::default()
        },
    }
}

fn config(random: &mut Random) -> Config {
    let mut ports = 1..;
    let clusters = 1 + random.below(4);
    Config {
        services: vec![service(random, clusters)],
        clusters: (0..clusters)
            .map(|n| cluster(random, format!("c{n}"), &mut ports))
            .collect(),
    }
}

/// As it comes, and what it means.
struct Sent {
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
    means: Request,
    /// The protocol that it may become a tunnel for.
    upgrade: Option<&'static str>,
}

fn any_case(random: &mut Random, text: &str) -> String {
    let other = |c: char| match c.is_ascii_lowercase() {
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    };
    text.chars()
        .map(|c| if random.chance(30) { other(c) } else { c })
        .collect()
}

/// Another spelling of a path in normal form.
fn respelt(random: &mut Random, path: &str) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some(byte) = path.as_bytes().get(at) {
        at += 1;
        let is_first = text.is_empty();
        match byte {
            b'/' => text.push_str(match random.below(12) {
                0 => "//",
                1 => "/./",
                2 => "/x/../",
                3 if !is_first => "%2f",
                4 if !is_first => "\\",
                5 => "/%2e/",
                _ => "/",
            }),
            b'%' => {
                let digits = &path[at..at + 2];
                text.push('%');
                text.push_str(&any_case(random, digits));
                at += 2;
            }
            byte if random.chance(15) => {
                let digits = format!("{byte:02x}");
                text.push('%');
                text.push_str(&any_case(random, &digits));
            }
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

/// Parameters or cookies, sometimes odd.
fn parts(random: &mut Random, separators: &[&str], many: bool) -> String {
    let most = if many { 80 } else { 5 };
    let parts = random.some(most, |random| {
        let (name, mut value) = (name(random, many), value(random).replace([' ', 'é'], ""));
        // A target has its limit.
        value.truncate(100);
        match random.below(9) {
            0 => String::new(),
            1 => name,
            2 => format!("={value}"),
            3 => format!("{name}={value}={value}"),
            _ => format!("{name}={value}"),
        }
    });
    let mut text = String::new();
    for part in parts {
        text.push_str(&part);
        text.push_str(random.one(separators));
    }
    text
}

fn request(random: &mut Random) -> Sent {
    let many = random.chance(10);
    let is_star = random.chance(2);
    let (method, known) = match random.below(10) {
        _ if is_star => ("OPTIONS", Some(Method::Options)),
        0 => (random.one(&["BREW", "get", "PURGE"]), None),
        _ => {
            let (name, method) = Method::ALL[random.below(Method::ALL.len())];
            (name, Some(method))
        }
    };
    let mut means = Request {
        method: known,
        drawn: random.next(),
        ..Request::default()
    };
    if !random.chance(3) {
        means.host = host(random);
    }
    means.path = if is_star {
        "*".to_owned()
    } else {
        path(random)
    };
    let mut target = match random.chance(40) && !is_star {
        true => respelt(random, &means.path),
        false => means.path.clone(),
    };
    if random.chance(60) && !is_star {
        means.query = parts(random, &["&", "&", "&&", ";"], many);
        target += &format!("?{}", means.query);
    }
    let mut host = any_case(random, &means.host);
    if !host.is_empty() && random.chance(10) {
        host.push('.');
    }
    if !host.is_empty() && random.chance(20) {
        host.push_str(random.one(&[":80", ":8080", ":"]));
    }
    if !host.is_empty() && !is_star && random.chance(10) {
        // Of http://host the path is a slash; what the field says does not count.
        let without = target.strip_prefix('/').filter(|_| means.path == "/");
        let without = without.filter(|rest| rest.is_empty() || rest.starts_with('?'));
        target = format!("http://{host}{}", without.unwrap_or(&target));
        host = "another.example".to_owned();
    }

    let mut fields = Vec::new();
    for name in HEADERS {
        for _ in 0..[0, 0, 1, 1, 2][random.below(5)] {
            let text = match name {
                "cookie" => parts(random, &["; ", ";", ";  ", ";;"], many),
                _ => value(random),
            };
            let name = any_case(random, name);
            fields.push((name, text));
        }
    }
    fields.push(("Host".to_owned(), host));
    let mut upgrade = None;
    if random.chance(10) {
        let protocol = random.one(&["websocket", "tcp", "spdy/3.1"]);
        // RFC 6455: asked for by GET.
        upgrade = Some(protocol).filter(|name| method == "GET" || *name != "websocket");
        fields.push(("Connection".to_owned(), "Upgrade".to_owned()));
        fields.push(("Upgrade".to_owned(), any_case(random, protocol)));
    }
    for at in 0..fields.len() {
        let with = random.below(fields.len());
        // The order of two of one name counts.
        if !fields[at].0.eq_ignore_ascii_case(&fields[with].0) {
            fields.swap(at, with);
        }
    }
    means.fields = fields
        .iter()
        .map(|(name, value)| (name.clone(), value.trim().to_owned()))
        .collect();
    for (_, value) in &mut fields {
        value.push_str(random.one(&["", "", " ", "\t "]));
    }
    Sent {
        method,
        target,
        fields,
        means,
        upgrade,
    }
}

/// What the rules say.
#[derive(Debug, PartialEq)]
struct Answer {
    reason: u32,
    route: u32,
    cluster: u32,
    flags: u32,
    /// Those that may be picked.
    endpoints: Vec<u32>,
}

fn expected(config: &Config, numbers: &Numbers, sent: &Sent) -> Answer {
    let service = &config.services[0];
    let mut answer = Answer {
        reason: XLB_REASON_NO_ROUTE,
        route: 0,
        cluster: 0,
        flags: 0,
        endpoints: Vec::new(),
    };
    if service.normalize == Normalize::Forward {
        answer.flags |= XLB_DECISION_FORWARD_NORMAL;
    }
    if service
        .upgrades
        .iter()
        .any(|name| sent.upgrade == Some(name))
    {
        answer.flags |= XLB_DECISION_UPGRADE;
    }
    let request = &sent.means;
    let Some(host) = matcher::virtual_host(service, &request.host) else {
        return answer;
    };
    let mut hosts = service.virtual_hosts.iter();
    let place = hosts
        .position(|other| std::ptr::eq(other, host))
        .expect("one of them");
    let Some(route) = matcher::route(host, request) else {
        return answer;
    };
    answer.reason = XLB_REASON_NO_ENDPOINT;
    answer.route = numbers.route(service, place, route);
    if host.routes[route].actions.reply().is_some() {
        answer.reason = XLB_REASON_RESPOND;
        return answer;
    }
    let Some(target) = matcher::target(&host.routes[route].clusters, request) else {
        return answer;
    };
    answer.cluster = numbers.cluster(&target.name).expect("numbered");
    let mut clusters = config.clusters.iter();
    let cluster = clusters.find(|c| c.name == target.name).expect("there");
    let endpoints = cluster
        .endpoints
        .iter()
        .zip(numbers.endpoints(&cluster.name));
    let eligible: Vec<_> = endpoints.filter(|(e, _)| e.is_eligible()).collect();
    if !eligible.is_empty() {
        answer.reason = XLB_REASON_OK;
        answer.endpoints = eligible.iter().map(|(_, number)| **number).collect();
    }
    let hash = matcher::hashed(&host.routes[route].hash_on, request);
    let is_hashing = matches!(cluster.lb, Lb::RingHash | Lb::Maglev);
    if let (true, true, Some(hash)) = (is_hashing, eligible.len() > 1, hash) {
        let weighted: Vec<_> = eligible
            .iter()
            .map(|(e, _)| (e.address, e.weight))
            .collect();
        let size = cluster.lb_options.table_size;
        let position = hashing::plainly(cluster.lb, &weighted, size, hash);
        answer.endpoints = vec![*eligible[position].1];
    } else if (cluster.lb == Lb::Random || is_hashing) && eligible.len() > 1 {
        let weights = eligible.iter().map(|(e, number)| Target {
            name: number.to_string(),
            weight: e.weight,
        });
        let weights: Vec<Target> = weights.collect();
        let drawn = matcher::target(&weights, request).expect("one has weight");
        answer.endpoints = vec![drawn.name.parse().expect("a number")];
    }
    answer
}

/// `answer` with the endpoint that was picked for all that might have been.
fn given(picked: u32, mut answer: Answer) -> Answer {
    if answer.endpoints.contains(&picked) {
        answer.endpoints = vec![picked];
    }
    answer
}

struct Applied {
    config: Config,
    compiled: Compiled,
}

fn applied(random: &mut Random, numbers: &mut Numbers, old: &Config, generation: u64) -> Applied {
    let config = config(random);
    let before = Before {
        moving: config.clusters.iter().map(|c| c.name.as_str()).collect(),
        ..Before::of(old)
    };
    numbers.assign(&config, &before, |_| true).expect("few");
    let compiled = Compiled::new(&config, &config.services[0], numbers, generation);
    Applied {
        compiled: compiled.expect("compiles"),
        config,
    }
}

#[derive(Default)]
struct Seen {
    requests: usize,
    served: usize,
    changed: usize,
    refusals: usize,
}

const REQUESTS: usize = 60;

fn round(seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let mut numbers = Numbers::default();
    let old = applied(random, &mut numbers, &Config::default(), 1);
    let old_numbers = numbers.clone();
    let new = applied(random, &mut numbers, &old.config, 2);
    let mut policy = Policy::new(&old.compiled, numbers.end());
    let mut ends = Vec::new();
    for n in 0..REQUESTS {
        let sent = request(random);
        let case = || {
            format!(
                "XLB_SEED={seed}, request {n}: {} {:?} {:?}\nmeans {:?}\n{:#?}",
                sent.method, sent.target, sent.fields, sent.means, old.config
            )
        };
        let head = Head::new(sent.method, &sent.target, &sent.fields)
            .unwrap_or_else(|reason| panic!("{}: {}", reason.name(), case()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&head.host), sent.means.host, "{}", case());
        assert_eq!(text(&head.path), sent.means.path, "{}", case());

        let drawn = sent.means.drawn;
        policy.set_draws(move || drawn);
        let changes = random.chance(15);
        if changes {
            let looks = u32::try_from(random.below(50)).expect("few");
            policy.change_after(looks, &new.compiled);
        } else {
            policy.change_after(u32::MAX, &new.compiled);
        }
        let mut asked = Asked::new(&head);
        if random.chance(30) {
            let kinds = random.next() & 0x0006_0007;
            asked.view.want_already(kinds, random.next() % 500);
        }
        let decided = policy.route(&mut asked);
        let is = Answer {
            reason: decided.reason,
            route: decided.decision.route,
            cluster: decided.decision.cluster,
            flags: decided.decision.flags.into(),
            endpoints: match decided.reason {
                XLB_REASON_OK => vec![decided.decision.endpoint],
                _ => Vec::new(),
            },
        };
        let picked = decided.decision.endpoint;
        let by_old = expected(&old.config, &old_numbers, &sent);
        let has_others = by_old.endpoints.len() > 1;
        let by_old = given(picked, by_old);
        let by_new = given(picked, expected(&new.config, &numbers, &sent));
        let by_one = match (changes, decided.reason, decided.decision.cookie[0]) {
            (false, ..) | (true, XLB_REASON_OK, 1) => is == by_old,
            (true, XLB_REASON_OK, _) => is == by_new,
            (true, ..) => is == by_old || is == by_new,
        };
        assert!(
            by_one,
            "{is:?}, not {by_old:?} (changing to {by_new:?}: {changes})\n{}",
            case()
        );
        seen.requests += 1;
        seen.served += usize::from(is.route != 0);
        seen.changed += usize::from(changes && decided.decision.cookie[0] == 2);
        if decided.reason == XLB_REASON_OK {
            let mut decision = decided.decision;
            if random.chance(30) {
                ends.push((head.request(), decision, XLB_REASON_RETRIED));
                let before = decision;
                let reason = policy.pick(&mut asked, &mut decision, 1);
                if reason == XLB_REASON_OK {
                    let is_other = decision.endpoint != before.endpoint;
                    assert!(is_other || !has_others || changes, "{}", case());
                    ends.push((head.request(), decision, XLB_REASON_OK));
                }
            } else {
                ends.push((head.request(), decision, XLB_REASON_OK));
            }
        }
        if n % 10 == 0 {
            refusals(&old.config, &sent, &head, seen, &case);
        }
        // A look into the configuration that was, when a part of it was not found in the one that is, is an end of it.
        assert!(policy.strays() == 0 || changes, "{}", case());
    }
    let any = Head::new("GET", "/", &[("Host", "a")]).expect("a request");
    let mut endpoints = Vec::new();
    for (request, decision, reason) in ends {
        let mut asked = Asked::new(&any);
        asked.request = request;
        let result = xlb_result {
            reason,
            ..xlb_result::default()
        };
        policy.done(&mut asked, &decision, &result);
        endpoints.push(decision.endpoint);
    }
    for endpoint in endpoints {
        let stats = policy.stats(endpoint);
        assert_eq!(
            stats.picked,
            stats.requests + stats.retries,
            "XLB_SEED={seed}"
        );
        assert_eq!(policy.state(endpoint).load, 0, "XLB_SEED={seed}");
    }
    assert_eq!(policy.strays(), 0, "XLB_SEED={seed}");
}

/// What `explain` says of each route of a virtual host: those that do not match, and no others, have a reason.
fn refusals(config: &Config, sent: &Sent, head: &Head, seen: &mut Seen, case: &dyn Fn() -> String) {
    let service = &config.services[0];
    let mut routed = Routed::new(config, service, head).expect("small");
    let found = routed.domain().expect("small").map(|(host, _)| host);
    let means = Request {
        drawn: 0,
        ..sent.means.clone()
    };
    assert_eq!(
        found,
        matcher::virtual_host(service, &means.host),
        "{}",
        case()
    );
    let Some(host) = found else {
        return;
    };
    assert_eq!(
        routed.route(host),
        matcher::route(host, &means),
        "{}",
        case()
    );
    for (r, route) in host.routes.iter().enumerate() {
        let refusal = routed.refusal(host, r).expect("small");
        let holds = matcher::holds(&route.matches, &means);
        assert_eq!(
            refusal.is_none(),
            holds,
            "route {r}: {refusal:?}\n{}",
            case()
        );
        seen.refusals += 1;
    }
}

#[test]
fn the_policy_is_the_rules() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let first = number("XLB_SEED").unwrap_or(now.map_or(0, |now| now.as_secs()) << 20);
    let end = number("XLB_FUZZ").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    println!("XLB_SEED={first}");
    let mut seen = Seen::default();
    let mut rounds = 0;
    while rounds < 120 || end.is_some_and(|end| Instant::now() < end) {
        round(first + rounds, &mut seen);
        rounds += 1;
    }
    let Seen {
        requests,
        served,
        changed,
        refusals,
    } = seen;
    println!("{rounds} rounds, {requests} requests: {served} served, {changed} by a configuration that came meanwhile; {refusals} routes explained");
    // It is worth something only when all answers are common.
    let share = served * 100 / requests;
    assert!(
        (10..90).contains(&share),
        "{served} of {requests} were served"
    );
    assert!(changed > 0 && refusals > 0);
}
