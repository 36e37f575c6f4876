// SPDX-License-Identifier: GPL-2.0
//! What XLB does with a request is what `xlbctl explain` says it does, for generated configurations and requests.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};

use super::routes::{backends, clusters, who};
use crate::ctx::{Ctx, Scenario, VIP4};
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("routes/as_explained", as_explained).within(240),
    Scenario::xlb("routes/every_part_counts", every_part_counts),
    Scenario::xlb("routes/dear_heads", dear_heads),
];

/// How many configurations, and requests for each.
const ROUNDS: usize = 8;
const REQUESTS: usize = 40;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const HEADERS: [&str; 3] = ["x-a", "x-b", "cookie"];
const PARTS: [&str; 4] = ["p", "q", "long-name-of-a-part", "P"];
const VALUES: [&str; 9] = ["a", "ab", "aab", "aabaab", "b", "A", "aa", "a,b", "ba"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const MATCHED_PATHS: [&str; 6] = ["/", "/a", "/a/b", "/ab", "/a/b/c", "/admin"];
const ASKED_PATHS: [&str; 14] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/ab",
    "/a/b/c",
    "/a/b/c/d",
    "/admin",
    "/admin/x",
    "/%61dmin",
    "/a/../admin",
    "//a//b",
    "/adminx",
    "/a%2fb",
];
const ASKED_HOSTS: [&str; 7] = [
    "shop.example",
    "SHOP.example",
    "a.example",
    "a.b.example",
    "shop.net",
    "shop.example:81",
    "other",
];

/// Distinct domains of a virtual host; each is used once.
const DOMAINS: [&str; 4] = ["shop.example", "*.example", "shop.*", "*"];

fn value(rng: &mut Rng, name: &str) -> String {
    match rng.below(6) {
        0 => format!("{{name: {name}, present: {}}}", rng.one_in(2)),
        kind => {
            let kind = ["exact", "prefix", "suffix", "contains", "contains"][kind - 1];
            format!("{{name: {name}, {kind}: \"{}\"}}", rng.of(&VALUES))
        }
    }
}

fn route(rng: &mut Rng) -> String {
    let mut parts = Vec::new();
    if !rng.one_in(4) {
        let kind = rng.of(&["exact", "prefix", "string_prefix"]);
        parts.push(format!("path: {{{kind}: {}}}", rng.of(&MATCHED_PATHS)));
    }
    if rng.one_in(4) {
        parts.push(format!("method: [{}]", rng.of(&METHODS)));
    }
    for (kind, names) in [
        ("headers", &HEADERS[..]),
        ("query", &PARTS),
        ("cookies", &PARTS),
    ] {
        if rng.one_in(3) {
            let first = rng.of(names);
            let mut all = vec![value(rng, first)];
            if rng.one_in(3) {
                let second = rng.of(names);
                if second != first {
                    all.push(value(rng, second));
                }
            }
            parts.push(format!("{kind}: [{}]", all.join(", ")));
        }
    }
    format!(
        "    - {{match: {{{}}}, cluster: c{}}}\n",
        parts.join(", "),
        rng.below(3) + 1
    )
}

fn config(rng: &mut Rng) -> String {
    let normalize = rng.of(&["match", "forward"]);
    let mut yaml = format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  normalize: {normalize}\n  virtual_hosts:\n"
    );
    let first = rng.below(DOMAINS.len());
    for domain in &DOMAINS[first..] {
        yaml += &format!("  - domains: [\"{domain}\"]\n    routes:\n");
        for _ in 0..1 + rng.below(12) {
            yaml += &route(rng);
        }
    }
    yaml + &clusters()
}

/// `name=value` parts, some twice, some empty or without a value, sometimes behind hundreds of others.
fn parts(rng: &mut Rng, separators: &[&str]) -> String {
    let mut text = String::new();
    if rng.one_in(6) {
        for n in 0..rng.below(600) {
            text += &format!("f{n}{}", separators[0]);
        }
    }
    for _ in 0..rng.below(5) {
        match rng.below(8) {
            0 => {}
            1 => text += rng.of(&PARTS),
            _ => text += &format!("{}={}", rng.of(&PARTS), rng.of(&VALUES)),
        }
        text += rng.of(separators);
    }
    text
}

/// The target and the fields of a request.
fn request(rng: &mut Rng) -> (String, Vec<String>) {
    let mut target = rng.of(&ASKED_PATHS).to_owned();
    if rng.one_in(2) {
        target += "?";
        target += &parts(rng, &["&", "&", ";", "&&"]);
    }
    let mut fields = vec![format!("Host: {}", rng.of(&ASKED_HOSTS))];
    for _ in 0..rng.below(4) {
        let name = rng.of(&["x-a", "X-A", "x-b", "X-b", "x-c"]);
        let text = if rng.one_in(5) { "" } else { rng.of(&VALUES) };
        fields.push(format!("{name}: {text}"));
    }
    for _ in 0..[0, 1, 1, 2][rng.below(4)] {
        let text = parts(rng, &["; ", ";", ";  ", "&", ", "]);
        fields.push(format!(
            "{}: {}",
            rng.of(&["Cookie", "cookie"]),
            text.trim()
        ));
    }
    (target, fields)
}

/// The cluster that `explain` names, or the status of the reply that it foretells.
fn explained(method: &str, target: &str, fields: &[String]) -> Result<String> {
    let mut args = vec!["explain", "--service", "shop", method, target];
    for field in fields {
        args.extend(["-H", field]);
    }
    let answer = xlb::json(&args)?;
    if let Some(reply) = answer["reply"].as_str() {
        return Ok(reply.split(' ').next().unwrap_or("").to_owned());
    }
    let cluster = &answer["clusters"][0]["cluster"];
    Ok(cluster.as_str().context("no cluster")?.to_owned())
}

fn as_explained(ctx: &mut Ctx) -> Result<()> {
    let seed = std::env::var("XLB_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64);
    println!("XLB_SEED={seed}");
    let mut rng = Rng(seed);
    let _backends = backends()?;
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    // A kernel that checks itself starts an xlbctl in seconds: a few rounds do there, for the policy is the same.
    let end = Instant::now() + ctx.secs(60);
    for round in 0..ROUNDS {
        if round >= 2 && seen.len() >= 4 && Instant::now() > end {
            break;
        }
        let yaml = config(&mut rng);
        ctx.apply(&yaml)?;
        let mut conn = ctx.open(VIP4.parse()?)?;
        for _ in 0..REQUESTS {
            let method = rng.of(&METHODS);
            let (target, fields) = request(&mut rng);
            let wanted = explained(method, &target, &fields)?;
            let lines: String = fields.iter().map(|f| format!("{f}\r\n")).collect();
            let got = who(&mut conn, method, &target, &lines)?;
            ensure!(
                got == wanted,
                "XLB_SEED={seed}, round {round}: {method} {target} {fields:?}: {got}, explained as {wanted}\n{yaml}"
            );
            if got == "400" {
                // That was the end of the connection.
                conn = ctx.open(VIP4.parse()?)?;
            }
            *seen.entry(got).or_default() += 1;
        }
    }
    println!("answers: {seen:?}");
    ensure!(seen.len() >= 4, "every cluster and 404: {seen:?}");
    Ok(())
}

/// A guard on a parameter or a cookie holds wherever that stands, and however many are in front.
fn every_part_counts(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{query: [{{name: admin, present: true}}]}}, cluster: c2}}\n\
         \x20 - {{match: {{cookies: [{{name: admin, exact: \"1\"}}]}}, cluster: c3}}\n\
         \x20 - {{cluster: c1}}\n{}",
        clusters()
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for count in [0, 1, 254, 255, 256, 257, 300, 4_000] {
        let query: String = (0..count).map(|n| format!("{n:x}&")).collect();
        let cookies: String = (0..count).map(|n| format!("{n:x}; ")).collect();
        for (target, cookie, wanted) in [
            (format!("/?{query}admin"), String::new(), "c2"),
            (format!("/?{query}admin=1&x"), String::new(), "c2"),
            (format!("/?{query}x"), String::new(), "c1"),
            ("/".to_owned(), format!("{cookies}admin=1"), "c3"),
            ("/".to_owned(), format!("{cookies}admin=2; admin=1"), "c1"),
        ] {
            let fields = format!("Host: a\r\nCookie: {cookie}\r\n");
            let got = who(&mut conn, "GET", &target, &fields)?;
            ensure!(got == wanted, "{count} in front: {got} instead of {wanted}");
        }
    }
    Ok(())
}

/// Heads that were chosen against the policy cost what their bytes cost: a hang would be seconds.
fn dear_heads(ctx: &mut Ctx) -> Result<()> {
    let _backends = backends()?;
    ctx.apply(&format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - {{match: {{headers: [{{name: x-a, contains: ab}}]}}, cluster: c2}}\n\
         \x20 - {{match: {{headers: [{{name: x-a, contains: \"{}b\"}}]}}, cluster: c3}}\n\
         \x20 - {{cluster: c1}}\n{}",
        "a".repeat(2_000),
        clusters()
    ))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    let fields = format!("X-A: {}\r\n", "a".repeat(8_000)).repeat(7);
    let start = Instant::now();
    for (last, wanted) in [("", "c1"), ("X-A: aab\r\n", "c2")] {
        let got = who(&mut conn, "GET", "/", &format!("Host: a\r\n{fields}{last}"))?;
        ensure!(got == wanted, "{got} instead of {wanted}");
    }
    let took = start.elapsed();
    println!("two heads of 56 KB: {took:?}");
    ensure!(took < ctx.secs(3), "two heads of 56 KB took {took:?}");
    Ok(())
}
