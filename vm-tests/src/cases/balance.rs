// SPDX-License-Identifier: GPL-2.0
//! Which backend gets which request: counted in the backends' own logs.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use crate::backend;
use crate::ctx::{Ctx, Scenario, VIP4};
use crate::script::Logging;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("balance/round_robin_exact", round_robin_exact),
    Scenario::xlb("balance/round_robin_weights", round_robin_weights),
    Scenario::xlb("balance/random_weights", random_weights),
    Scenario::xlb("balance/least_request", least_request),
    Scenario::xlb(
        "balance/least_request_counts_pending",
        least_request_counts_pending,
    ),
    Scenario::xlb("balance/weighted_clusters", weighted_clusters),
    Scenario::xlb("balance/weight_zero_never", weight_zero_never),
    Scenario::xlb("balance/hash_on", hash_on).within(60),
    Scenario::xlb("balance/sticky_cookie", sticky_cookie).within(60),
    Scenario::xlb("balance/hash_source", hash_source),
    Scenario::xlb("balance/one_curl_connection", one_curl_connection),
    Scenario::xlb("balance/one_wrk_connection", one_wrk_connection),
];

const THREE: [&str; 3] = ["127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"];

fn three() -> Result<Vec<Logging>> {
    THREE
        .iter()
        .map(|address| Logging::start(address))
        .collect()
}

fn counts(backends: &[Logging]) -> Vec<usize> {
    backends.iter().map(Logging::count).collect()
}

/// The counts of a sample must be within five standard deviations of their shares.
fn check_shares(counts: &[usize], weights: &[f64]) -> Result<()> {
    let total: usize = counts.iter().sum();
    let sum: f64 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = weight / sum;
        let expected = total as f64 * share;
        let deviation = (total as f64 * share * (1.0 - share)).sqrt();
        ensure!(
            (*count as f64 - expected).abs() <= 5.0 * deviation,
            "{counts:?} of {total} for weights {weights:?}: {count} instead of {expected:.0} +- {deviation:.0}"
        );
    }
    Ok(())
}

/// The name of the backend that answered.
fn who(conn: &mut crate::http::Conn, path: &str) -> Result<String> {
    let answer = conn.get(path)?;
    answer.expect(200)?;
    Ok(answer.text().lines().next().unwrap_or("").to_owned())
}

fn round_robin_exact(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let vip = ctx.shop(&THREE)?;
    let mut conn = ctx.open(vip)?;
    let mut order = Vec::new();
    for _ in 0..300 {
        order.push(who(&mut conn, "/")?);
    }
    ensure!(
        counts(&backends) == [100, 100, 100],
        "{:?}",
        counts(&backends)
    );
    // Any three in a row are three different ones.
    ensure!(
        order
            .windows(3)
            .all(|w| matches!(w, [a, b, c] if a != b && b != c && a != c)),
        "{order:?}"
    );
    Ok(())
}

fn round_robin_weights(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let yaml = format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes: [{{cluster: items}}]\n\
         clusters:\n- name: items\n  lb: round_robin\n  endpoints:\n\
         - {{address: \"{}\", weight: 5}}\n  - {{address: \"{}\", weight: 3}}\n  - {{address: \"{}\", weight: 2}}\n",
        THREE[0], THREE[1], THREE[2]
    )
    .replace("\n- {", "\n  - {");
    ctx.apply(&yaml)?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    let mut order = Vec::new();
    for _ in 0..300 {
        order.push(who(&mut conn, "/")?);
    }
    ensure!(
        counts(&backends) == [150, 90, 60],
        "{:?}",
        counts(&backends)
    );
    // Smooth: within one period of ten the heaviest is never asked three times running.
    ensure!(
        !order
            .windows(3)
            .any(|w| w.iter().all(|name| name == THREE[0])),
        "not smooth: {order:?}"
    );
    Ok(())
}

fn random_weights(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let yaml = crate::ctx::shop_yaml(&THREE, "random", "").replace(
        "\"127.0.1.1:8001\"",
        "{address: \"127.0.1.1:8001\", weight: 3}",
    );
    ctx.apply(&yaml)?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for _ in 0..1000 {
        who(&mut conn, "/")?;
    }
    check_shares(&counts(&backends), &[3.0, 1.0, 1.0])
}

/// Two backends are slow: with exact counts and a scan of all, new requests go to the free one.
fn least_request(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let vip = ctx.shop_with(&THREE, "least_request", "  lb_options: {choices: 0}\n")?;
    let mut busy = Vec::new();
    for _ in 0..6 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/held", "", b"")?;
        busy.push(conn);
    }
    ctx.until("six requests", || {
        Ok(counts(&backends).iter().sum::<usize>() == 6)
    })?;
    ensure!(
        counts(&backends) == [2, 2, 2],
        "six requests at once: {:?}",
        counts(&backends)
    );
    // Now one backend gets more: its two must end first on no other.
    backends.iter().for_each(|b| b.held.open());
    for conn in &mut busy {
        conn.response("GET")?.expect(200)?;
    }
    backends.iter().for_each(|b| b.held.close());
    let mut slow = ctx.open(vip)?;
    slow.request("GET", "/held", "", b"")?;
    ctx.until("the slow request", || {
        Ok(counts(&backends).iter().sum::<usize>() == 7)
    })?;
    let asleep: BTreeMap<String, usize> = backends
        .iter()
        .map(|b| (b.name.clone(), b.count()))
        .collect();
    let mut conn = ctx.open(vip)?;
    for _ in 0..30 {
        let name = who(&mut conn, "/")?;
        ensure!(
            asleep.get(&name) == Some(&2),
            "{name} was picked though it had a request: {asleep:?}"
        );
    }
    backends.iter().for_each(|b| b.held.open());
    slow.response("GET")?.expect(200)?;
    Ok(())
}

/// A request that waits for a connection counts for its endpoint.
fn least_request_counts_pending(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let vip = ctx.shop_with(
        &THREE,
        "least_request",
        "  lb_options: {choices: 0}\n  pool: {max: 1, max_pending: 100, pending_timeout: 5m}\n",
    )?;
    let mut conns = Vec::new();
    for _ in 0..12 {
        let mut conn = ctx.open(vip)?;
        conn.request("GET", "/sleep/300", "", b"")?;
        conns.push(conn);
    }
    for conn in &mut conns {
        conn.response("GET")?.expect(200)?;
    }
    ensure!(counts(&backends) == [4, 4, 4], "{:?}", counts(&backends));
    Ok(())
}

fn clusters_yaml(weights: [u32; 3]) -> String {
    let [a, b, c] = weights;
    let mut yaml = format!(
        "version: 1\nservices:\n- name: shop\n  listen: [\"{VIP4}\"]\n  routes:\n\
         \x20 - clusters: [{{name: c1, weight: {a}}}, {{name: c2, weight: {b}}}, {{name: c3, weight: {c}}}]\nclusters:\n"
    );
    for (number, address) in THREE.iter().enumerate() {
        yaml += &format!(
            "- {{name: c{}, lb: round_robin, endpoints: [\"{address}\"]}}\n",
            number + 1
        );
    }
    yaml
}

fn weighted_clusters(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    // Weights that do not add up to 100.
    ctx.apply(&clusters_yaml([20, 30, 7]))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for _ in 0..1140 {
        who(&mut conn, "/")?;
    }
    check_shares(&counts(&backends), &[20.0, 30.0, 7.0])
}

fn weight_zero_never(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    ctx.apply(&clusters_yaml([0, 1, 1]))?;
    let mut conn = ctx.open(VIP4.parse()?)?;
    for _ in 0..500 {
        who(&mut conn, "/")?;
    }
    ensure!(counts(&backends)[0] == 0, "{:?}", counts(&backends));
    // An endpoint of weight 0, and one that drains.
    let yaml = crate::ctx::shop_yaml(&THREE, "round_robin", "")
        .replace(
            "\"127.0.1.1:8001\"",
            "{address: \"127.0.1.1:8001\", weight: 0}",
        )
        .replace(
            "\"127.0.1.2:8001\"",
            "{address: \"127.0.1.2:8001\", drain: true}",
        );
    backends.iter().for_each(Logging::clear);
    ctx.apply(&yaml)?;
    for _ in 0..100 {
        who(&mut conn, "/")?;
    }
    ensure!(counts(&backends) == [0, 0, 100], "{:?}", counts(&backends));
    Ok(())
}

fn three_nginx(ctx: &mut Ctx) -> Result<Vec<backend::Backend>> {
    THREE
        .iter()
        .enumerate()
        .map(|(number, address)| backend::nginx(ctx, address, &format!("n{}", number + 1)))
        .collect()
}

/// nginx's own logs: each request of one connection is balanced by itself.
fn one_curl_connection(ctx: &mut Ctx) -> Result<()> {
    let backends = three_nginx(ctx)?;
    let vip = ctx.shop(&THREE)?;
    let url = format!("{}/r/[1-90]", ctx.url(vip));
    let out = ctx.run_ok("curl", &["-sS", "-w", "connects=%{num_connects}\n", &url])?;
    ensure!(
        out.matches("connects=1\n").count() == 1,
        "curl opened more than one connection"
    );
    for backend in &backends {
        ctx.until("30 requests", || Ok(backend.count("\"GET /r/")? >= 30))?;
        ensure!(
            backend.count("\"GET /r/")? == 30,
            "{}: {}",
            backend.address,
            backend.count("GET")?
        );
        // All over one pooled connection: nginx's connection number is the same on each line.
        let mut connections: Vec<String> = backend
            .log()?
            .iter()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        connections.dedup();
        ensure!(
            connections.len() == 1,
            "{}: connections {connections:?}",
            backend.address
        );
    }
    Ok(())
}

fn one_wrk_connection(ctx: &mut Ctx) -> Result<()> {
    let backends = three_nginx(ctx)?;
    let vip = ctx.shop(&THREE)?;
    let seconds = ctx.secs(2).as_secs().to_string();
    let out = ctx.run(
        "wrk",
        &[
            "-t",
            "1",
            "-c",
            "1",
            "-d",
            &seconds,
            "--timeout",
            "20s",
            &ctx.url(vip),
        ],
    )?;
    ensure!(
        out.code == Some(0) && !out.stdout.contains("Non-2xx"),
        "{}",
        out.all()
    );
    // wrk may stop in the middle of a round, and a request that it gave up is not logged with 200.
    let mut counts = Vec::new();
    ctx.until("as many for each", || {
        counts.clear();
        for backend in &backends {
            counts.push(backend.count(" 200 ")?);
        }
        let least = counts.iter().min().copied().unwrap_or(0);
        let most = counts.iter().max().copied().unwrap_or(0);
        Ok(least > 20 && most - least <= 2)
    })
    .with_context(|| format!("{counts:?}"))
}

/// A service with one route to a cluster of so many of [`THREE`].
fn hashing(lb: &str, route: &str, endpoints: &[&str]) -> String {
    let list: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "version: 1\nservices:\n- {{name: shop, listen: [\"{VIP4}\"], routes: [{{cluster: items, {route}}}]}}\n\
         clusters:\n- {{name: items, lb: {lb}, endpoints: [{}]}}\n",
        list.join(", ")
    )
}

/// Who gets the request that has these fields, over a connection of its own.
fn who_by(ctx: &Ctx, path: &str, fields: &str) -> Result<String> {
    let mut conn = ctx.open(VIP4.parse()?)?;
    conn.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?;
    let answer = conn.response("GET")?;
    Ok(answer
        .expect(200)?
        .text()
        .lines()
        .next()
        .unwrap_or("")
        .to_owned())
}

/// The same value leads to the same endpoint, over any connection; many values to all of them; and an endpoint that goes
/// takes none but its own along.
fn hash_on(ctx: &mut Ctx) -> Result<()> {
    const USERS: usize = 60;
    let _backends = three()?;
    let route = "hash_on: [{header: x-user}, {query: user}, {cookie: {name: user}}]";
    for lb in ["ring_hash", "maglev"] {
        ctx.apply(&hashing(lb, route, &THREE))?;
        let all = |ctx: &Ctx| -> Result<Vec<String>> {
            (0..USERS)
                .map(|n| who_by(ctx, "/", &format!("X-User: {n}\r\n")))
                .collect()
        };
        let before = all(ctx)?;
        ensure!(all(ctx)? == before, "{lb}: another endpoint");
        for name in THREE {
            let count = before.iter().filter(|who| *who == name).count();
            ensure!((5..=40).contains(&count), "{lb}: {name} {count} of {USERS}");
        }
        for (n, who) in before.iter().enumerate().take(20) {
            // By whatever of the list is there; the first counts.
            let query = who_by(ctx, &format!("/?a=b&user={n}"), "X-Other: 7\r\n")?;
            let cookie = who_by(ctx, "/", &format!("Cookie: a=b; user={n}\r\n"))?;
            let first = who_by(ctx, "/?user=other", &format!("x-user: {n}\r\n"))?;
            ensure!(
                [&query, &cookie, &first] == [who; 3],
                "{lb}: {n}: {who}, by query {query}, by cookie {cookie}, by header {first}"
            );
        }
        ctx.apply(&hashing(lb, route, &THREE[..2]))?;
        let after = all(ctx)?;
        let moved = before.iter().zip(&after).filter(|(was, is)| was != is);
        let (gone, others): (Vec<_>, Vec<_>) = moved.partition(|(was, _)| *was == THREE[2]);
        ensure!(
            others.len() <= USERS / 10 && !gone.is_empty(),
            "{lb}: {} moved that had their endpoint still",
            others.len()
        );
        // Nothing to hash: anywhere.
        let anywhere: Vec<_> = (0..40)
            .map(|_| who_by(ctx, "/", ""))
            .collect::<Result<_>>()?;
        ensure!(
            THREE[..2]
                .iter()
                .all(|name| anywhere.iter().any(|who| who == name)),
            "{lb}: {anywhere:?}"
        );
    }
    Ok(())
}

/// A client without a cookie gets one, once, and stays with its endpoint by it; curl keeps it as a browser does.
fn sticky_cookie(ctx: &mut Ctx) -> Result<()> {
    let backends = three()?;
    let route =
        "hash_on: [{cookie: {name: sid, ttl: 1h, path: /}}], response_headers: {set: {x-a: b}}";
    ctx.apply(&hashing("ring_hash", route, &THREE))?;
    let url = format!("http://{VIP4}/");
    let mut seen = Vec::new();
    for n in 0..12 {
        let jar = ctx.path(&format!("jar{n}")).display().to_string();
        let args = ["-sS", "-m", "10", "-i", "-b", &jar, "-c", &jar, &url];
        let first = ctx.run_ok("curl", &args)?;
        let cookie = first.lines().find(|line| line.starts_with("set-cookie: "));
        let cookie = cookie.with_context(|| first.clone())?.trim_end();
        let value = cookie.strip_prefix("set-cookie: sid=").unwrap_or("");
        let (digits, attributes) = value.split_at_checked(16).unwrap_or(("", value));
        ensure!(
            digits
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                && attributes == "; Max-Age=3600; Path=/; HttpOnly"
                && first.contains("\r\nx-a: b\r\n"),
            "{cookie}"
        );
        let name = |text: &str| {
            text.lines()
                .find(|l| l.starts_with("127."))
                .map(str::to_owned)
        };
        let who = name(&first);
        for _ in 0..4 {
            let again = ctx.run_ok("curl", &args)?;
            ensure!(name(&again) == who && who.is_some(), "{who:?} then {again}");
            ensure!(!again.contains("set-cookie"), "{again}");
        }
        seen.extend(who);
    }
    seen.sort();
    seen.dedup();
    ensure!(seen.len() > 1, "all went to {seen:?}");
    ensure!(
        counts(&backends).iter().sum::<usize>() == 60,
        "{:?}",
        counts(&backends)
    );
    // Over one connection of a client that keeps no cookies, each time another one.
    let mut conn = ctx.open(VIP4.parse()?)?;
    let mut made = Vec::new();
    for _ in 0..3 {
        let answer = conn.get("/")?;
        made.push(answer.field("set-cookie").unwrap_or("").to_owned());
    }
    made.sort();
    made.dedup();
    ensure!(made.len() == 3, "{made:?}");
    Ok(())
}

/// Clients of one network namespace and address have one endpoint.
fn hash_source(ctx: &mut Ctx) -> Result<()> {
    let _backends = three()?;
    ctx.apply(&hashing("maglev", "hash_on: [{source_ip: true}]", &THREE))?;
    let who = who_by(ctx, "/", "")?;
    for _ in 0..10 {
        let again = who_by(ctx, "/", "X-User: other\r\n")?;
        ensure!(again == who, "{who}, then {again}");
    }
    let mut others = Vec::new();
    for n in 1..=20 {
        let from = format!("127.0.9.{n}");
        let args = [
            "-sS",
            "-m",
            "10",
            "--interface",
            &from,
            &format!("http://{VIP4}/"),
        ];
        let once = ctx.run_ok("curl", &args)?;
        ensure!(ctx.run_ok("curl", &args)? == once, "{from}");
        others.push(once);
    }
    others.sort();
    others.dedup();
    ensure!(others.len() > 1, "twenty addresses, and {others:?}");
    Ok(())
}
