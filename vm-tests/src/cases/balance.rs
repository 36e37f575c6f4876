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
