// SPDX-License-Identifier: GPL-2.0
//! xlbctl against the running system: changes under load, and configurations that must change nothing.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::backend;
use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4};
use crate::script::Logging;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb(
        "config/apply_in_a_loop_under_load",
        apply_in_a_loop_under_load,
    )
    .within(120),
    Scenario::xlb("config/old_or_new_never_a_mix", old_or_new_never_a_mix).within(120),
    Scenario::xlb(
        "config/routes_and_cluster_change_together",
        routes_and_cluster_change_together,
    )
    .within(120),
    Scenario::xlb(
        "config/endpoint_removed_under_load",
        endpoint_removed_under_load,
    )
    .within(120),
    Scenario::xlb(
        "config/running_request_outlives_its_endpoint",
        running_request_outlives_its_endpoint,
    ),
    Scenario::xlb("config/apply_get_delete", apply_get_delete),
    Scenario::xlb("config/dry_run_and_prune", dry_run_and_prune),
    Scenario::xlb("config/bad_files_change_nothing", bad_files_change_nothing),
    Scenario::xlb("config/no_permission", no_permission),
    Scenario::xlb("config/no_process_stays", no_process_stays),
    Scenario::xlb("config/many_xlbctl_at_once", many_xlbctl_at_once),
    Scenario::xlb("config/status_beside_apply", status_beside_apply).within(120),
    Scenario::xlb("config/thousands_of_services", thousands_of_services).within(120),
    Scenario::xlb("config/kernel_without_btf", kernel_without_btf),
    Scenario::xlb("config/verified_in_time", verified_in_time),
    Scenario::bare("config/module_not_loaded", module_not_loaded),
];

const THREE: [&str; 3] = ["127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"];

fn three_nginx(ctx: &mut Ctx) -> Result<Vec<backend::Backend>> {
    THREE
        .iter()
        .enumerate()
        .map(|(number, address)| backend::nginx(ctx, address, &format!("n{}", number + 1)))
        .collect()
}

/// Load generators for some seconds; their reports are checked with [`Load::end`].
struct Load {
    programs: Vec<(crate::ctx::Proc, PathBuf)>,
}

impl Load {
    fn start(ctx: &mut Ctx, url: &str, seconds: u64) -> Result<Self> {
        let mut programs = Vec::new();
        for (program, args) in [
            (
                "wrk",
                format!("-t 1 -c 8 -d {seconds} --timeout 20s {url}/wrk"),
            ),
            ("hey", format!("-z {seconds}s -c 4 -t 20 {url}/hey")),
        ] {
            let log = ctx.path(&format!("{program}.report"));
            let line = format!("exec {program} {args} > {} 2>&1", log.display());
            programs.push((ctx.spawn("sh", &["-c", &line])?, log));
        }
        Ok(Self { programs })
    }

    /// Waits, and fails when any request failed.
    fn end(self, ctx: &Ctx) -> Result<()> {
        for (mut program, log) in self.programs {
            let code = program.wait(ctx.secs(60))?;
            let report = std::fs::read_to_string(&log)?;
            ensure!(code == Some(0), "exit {code:?}: {report}");
            for bad in ["Socket errors", "Non-2xx", "Error distribution"] {
                ensure!(!report.contains(bad), "{report}");
            }
            let statuses: Vec<&str> = report
                .lines()
                .filter(|line| line.trim_start().starts_with('['))
                .collect();
            ensure!(
                statuses.iter().all(|line| line.contains("[200]")),
                "{report}"
            );
        }
        Ok(())
    }
}

fn apply_in_a_loop_under_load(ctx: &mut Ctx) -> Result<()> {
    let _backends = three_nginx(ctx)?;
    let vip = ctx.shop(&THREE)?;
    let variants = [
        shop_yaml(&THREE, "round_robin", ""),
        shop_yaml(&THREE[..2], "least_request", ""),
        shop_yaml(&THREE[1..], "random", "  pool: {min_idle: 2}\n"),
        shop_yaml(&THREE[..1], "round_robin", "").replace(
            "  - cluster: items\n",
            "  - {match: {path: {prefix: /wrk}}, cluster: items}\n  - {match: {path: {prefix: /hey}}, cluster: items}\n",
        ),
    ];
    let url = ctx.url(vip);
    let load = Load::start(ctx, &url, 12)?;
    let end = Instant::now() + Duration::from_secs(11);
    let mut applied = 0;
    while Instant::now() < end {
        for yaml in &variants {
            ctx.apply(yaml)?;
            applied += 1;
        }
    }
    println!("{applied} configurations");
    ensure!(
        applied >= variants.len(),
        "only {applied} configurations in 11 s"
    );
    load.end(ctx)
}

/// /a and /b always lead to the same backend, and one apply moves both: never 404, and once /b was seen on the new
/// side, /a is never seen on the old one.
fn old_or_new_never_a_mix(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    let _two = Logging::named(THREE[1], "two")?;
    let yaml = |endpoint: &str| {
        shop_yaml(&[endpoint], "round_robin", "").replace(
            "  - cluster: items\n",
            "  - {match: {path: {prefix: /a}}, cluster: items}\n  - {match: {path: {prefix: /b}}, cluster: items}\n",
        )
    };
    ctx.apply(&yaml(THREE[0]))?;
    let limit = ctx.secs(20);
    let reader = thread::spawn(move || -> Result<usize> {
        let mut conn = crate::http::Conn::open(VIP4.parse()?, limit)?;
        let mut changes = 0;
        let mut last = String::new();
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            let b = conn.get("/b")?;
            let b = b
                .expect(200)?
                .text()
                .lines()
                .next()
                .unwrap_or("")
                .to_owned();
            let a = conn.get("/a")?;
            let a = a
                .expect(200)?
                .text()
                .lines()
                .next()
                .unwrap_or("")
                .to_owned();
            // At most one change at a time: applies are seconds apart, the two requests are not.
            changes += usize::from(a != b) + usize::from(!last.is_empty() && b != last);
            last = a;
        }
        Ok(changes)
    });
    let mut applied = 0;
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        applied += 1;
        ctx.apply(&yaml(THREE[applied % 2]))?;
        thread::sleep(Duration::from_millis(300));
    }
    let changes = reader.join().map_err(|_| anyhow::anyhow!("reader"))??;
    ensure!(
        changes <= applied,
        "{changes} changes seen for {applied} applied: some requests saw an old configuration"
    );
    ensure!(changes >= 1, "no change was seen in {applied}");
    Ok(())
}

/// Each of two paths is there in one of two configurations, in which the cluster has an endpoint of its own: no path is ever
/// answered by the other's.
fn routes_and_cluster_change_together(ctx: &mut Ctx) -> Result<()> {
    const PATHS: [&str; 2] = ["/a", "/b"];
    let _backends = [
        Logging::named(THREE[0], PATHS[0])?,
        Logging::named(THREE[1], PATHS[1])?,
    ];
    let yaml = |which: usize| {
        shop_yaml(&[THREE[which]], "round_robin", "").replace(
            "  - cluster: items\n",
            &format!(
                "  - {{match: {{path: {{prefix: {}}}}}, cluster: items}}\n",
                PATHS[which]
            ),
        )
    };
    ctx.apply(&yaml(0))?;
    let limit = ctx.secs(20);
    let done = Arc::new(AtomicBool::new(false));
    let readers = PATHS.map(|path| {
        let done = done.clone();
        thread::spawn(move || -> Result<[usize; 2]> {
            let mut conn = crate::http::Conn::open(VIP4.parse()?, limit)?;
            let mut seen = [0, 0];
            while !done.load(Ordering::Relaxed) {
                let answer = conn.get(path)?;
                let is_there = answer.status() == 200;
                if is_there {
                    let text = answer.text();
                    ensure!(text.lines().next() == Some(path), "{path} by {text}");
                } else {
                    answer.expect(404)?;
                }
                seen[usize::from(is_there)] += 1;
            }
            Ok(seen)
        })
    });
    let applied = (1..=10).try_for_each(|number| ctx.apply(&yaml(number % 2)));
    done.store(true, Ordering::Relaxed);
    applied?;
    for reader in readers {
        let seen = reader.join().map_err(|_| anyhow::anyhow!("reader"))??;
        ensure!(
            seen.iter().all(|count| *count > 5),
            "not there, there: {seen:?}: too few to prove anything"
        );
    }
    Ok(())
}

fn endpoint_removed_under_load(ctx: &mut Ctx) -> Result<()> {
    let backends = three_nginx(ctx)?;
    let vip = ctx.shop(&THREE)?;
    let url = ctx.url(vip);
    let load = Load::start(ctx, &url, 5)?;
    let third = backends.get(2).context("third")?;
    ctx.until("requests of both to the third backend", || {
        Ok(third.count("GET /wrk")? > 0 && third.count("GET /hey")? > 0)
    })?;
    ctx.apply(&shop_yaml(&THREE[..2], "round_robin", ""))?;
    // nginx, too, has ended its side: what ran then is in its log.
    let states = ["-tnH", "state", "established", "state", "close-wait"];
    let ended = ctx.until("the end of the third backend's connections", || {
        Ok(!ctx.run_ok("ss", &states)?.contains("127.0.1.3:"))
    });
    if ended.is_err() {
        xlb::explain();
    }
    ended?;
    let before = third.count("GET")?;
    thread::sleep(Duration::from_secs(1));
    ensure!(
        third.count("GET")? == before,
        "a removed endpoint still gets requests"
    );
    let sockets = ctx.run_ok("ss", &["-tnH", "state", "established", "dst", "127.0.1.3"])?;
    if !sockets.trim().is_empty() {
        xlb::explain();
    }
    ensure!(
        sockets.trim().is_empty(),
        "connections to a removed endpoint are left:\n{sockets}"
    );
    load.end(ctx)
}

fn running_request_outlives_its_endpoint(ctx: &mut Ctx) -> Result<()> {
    let one = Logging::named(THREE[0], "one")?;
    let _two = Logging::named(THREE[1], "two")?;
    let vip = ctx.shop(&THREE[..1])?;
    let mut conn = ctx.open(vip)?;
    conn.request("GET", "/held", "", b"")?;
    ctx.until("the running request", || Ok(one.count() == 1))?;
    ctx.apply(&shop_yaml(&THREE[1..2], "round_robin", ""))?;
    one.held.open();
    let answer = conn.response("GET")?;
    ensure!(
        answer.expect(200)?.text().starts_with("one"),
        "{}",
        answer.text()
    );
    ensure!(conn.get("/")?.text().starts_with("two"), "the next request");
    let sockets = ctx.run_ok("ss", &["-tnH", "state", "established", "dst", "127.0.1.1"])?;
    ensure!(
        sockets.trim().is_empty(),
        "the removed endpoint's connection went back to the pool:\n{sockets}"
    );
    Ok(())
}

fn apply_get_delete(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    let vip = ctx.shop(&THREE[..1])?;
    for (what, wanted) in [
        ("services", "shop"),
        ("routes", "items"),
        ("clusters", "items"),
        ("endpoints", "127.0.1.1:8001"),
    ] {
        let table = xlb::xlbctl(&["get", what])?;
        ensure!(
            table.code == Some(0) && table.stdout.contains(wanted),
            "get {what}: {}",
            table.all()
        );
        let json = xlb::json(&["get", what])?;
        ensure!(
            json.to_string().contains(wanted),
            "get {what} -o json: {json}"
        );
        let yaml = xlb::xlbctl(&["get", what, "-o", "yaml"])?;
        ensure!(
            yaml.code == Some(0) && yaml.stdout.contains(wanted),
            "get {what} -o yaml: {}",
            yaml.all()
        );
    }
    let status = xlb::xlbctl(&["status"])?;
    ensure!(status.code == Some(0), "status: {}", status.all());
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    let stats = xlb::xlbctl(&["stats"])?;
    ensure!(
        stats.code == Some(0) && stats.stdout.contains("shop"),
        "stats: {}",
        stats.all()
    );
    // JSON is read as well as YAML, from standard input too.
    let again = ctx.file("again.yaml", &shop_yaml(&THREE[..1], "round_robin", ""))?;
    ctx.run_ok(
        "sh",
        &["-c", &format!("xlbctl apply -f - < {}", again.display())],
    )?;
    ctx.run_ok("xlbctl", &["delete", "-f", &again.display().to_string()])?;
    // A live connection whose service is gone: refused or ended, but no hang and no answer of a backend.
    if let Ok(answer) = conn.get("/") {
        ensure!(answer.status() >= 400, "{answer:?}");
    }
    drop(conn);
    // A new connect is plain again: nothing routes to the VIP.
    ensure!(
        std::net::TcpStream::connect(vip).is_err(),
        "the VIP still answers after delete"
    );
    let empty = xlb::json(&["get", "services"])?;
    ensure!(!empty.to_string().contains("shop"), "{empty}");
    Ok(())
}

fn dry_run_and_prune(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    let _two = Logging::named(THREE[1], "two")?;
    let vip = ctx.shop(&THREE[..1])?;
    let second = format!(
        "version: 1\nservices:\n- {{name: second, listen: [\"10.96.0.20:80\"], routes: [{{cluster: others}}]}}\n\
         clusters:\n- {{name: others, lb: round_robin, endpoints: [\"{}\"]}}\n",
        THREE[1]
    );
    let file = ctx.file("second.yaml", &second)?.display().to_string();
    let dry = ctx.run_ok("xlbctl", &["apply", "-f", &file, "--dry-run"])?;
    ensure!(
        dry.contains("second"),
        "a dry run says what it would do: {dry}"
    );
    ensure!(
        std::net::TcpStream::connect("10.96.0.20:80").is_err(),
        "a dry run changed something"
    );
    ctx.run_ok("xlbctl", &["apply", "-f", &file])?;
    ensure!(
        ctx.open("10.96.0.20:80".parse()?)?
            .get("/")?
            .text()
            .starts_with("two"),
        "second"
    );
    ensure!(
        ctx.open(vip)?.get("/")?.text().starts_with("one"),
        "apply without --prune keeps the others"
    );
    let pruned = ctx.run_ok("xlbctl", &["apply", "-f", &file, "--prune"])?;
    ensure!(
        pruned.contains("shop"),
        "what was removed is printed: {pruned}"
    );
    ensure!(
        std::net::TcpStream::connect(vip).is_err(),
        "--prune keeps what the file does not have"
    );
    ensure!(
        ctx.open("10.96.0.20:80".parse()?)?
            .get("/")?
            .text()
            .starts_with("two"),
        "second, after --prune"
    );
    Ok(())
}

fn bad_files_change_nothing(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    let vip = ctx.shop(&THREE[..1])?;
    let good = shop_yaml(&THREE[..1], "round_robin", "");
    let before = xlb::xlbctl(&["get", "services", "-o", "json"])?.stdout;
    let cases: Vec<(&str, String, &str)> = vec![
        ("malformed", "version: 1\nservices: [\n".to_owned(), ""),
        ("empty", String::new(), ""),
        ("binary", "\0\u{1}\u{2}".to_owned(), ""),
        ("a number", "42\n".to_owned(), ""),
        ("unknown field", good.replace("lb:", "lbb:"), "lbb"),
        ("unknown field deep", good.replace("- cluster: items", "- {cluster: items, matches: {}}"), "matches"),
        ("no cluster", good.replace("cluster: items", "cluster: nowhere"), "nowhere"),
        ("no version", good.replace("version: 1\n", ""), "version"),
        ("version 2", good.replace("version: 1", "version: 2"), "version"),
        ("bad address", good.replace("127.0.1.1:8001", "127.0.1.1"), "endpoints"),
        ("bad port", good.replace("127.0.1.1:8001", "127.0.1.1:99999"), "endpoints"),
        ("bad policy", good.replace("round_robin", "round_robbin"), "lb"),
        ("bad name", good.replace("name: shop", "name: \"Shop!\""), "name"),
        ("two actions", good.replace("- cluster: items", "- {cluster: items, clusters: [{name: items, weight: 1}]}"), "routes[0]"),
        ("overlapping VIPs", good.replace(
            "clusters:\n",
            &format!("- {{name: other, listen: [\"{VIP4}\"], routes: [{{cluster: items}}]}}\nclusters:\n"),
        ), VIP4),
        ("twice the same name", good.replace("clusters:\n", "clusters:\n- {name: items, lb: random, endpoints: [\"127.0.0.1:1\"]}\n"), "items"),
        ("not supported yet", good.replace("- cluster: items", "- {match: {path: {regex: \"a.*\"}}, cluster: items}"), ""),
        ("all at once", good.replace("lb: round_robin", "lb: nope").replace("cluster: items", "cluster: nowhere"), "nowhere"),
    ];
    for (what, text, wanted) in cases {
        let file = ctx.file("bad.yaml", &text)?.display().to_string();
        let out = xlb::xlbctl(&["apply", "-f", &file])?;
        if what == "not supported yet" && out.code == Some(0) {
            ctx.apply(&good)?; // it is supported by now
            continue;
        }
        ensure!(
            out.code == Some(2),
            "{what}: exit {:?} {}",
            out.code,
            out.all()
        );
        ensure!(
            !out.stderr.trim().is_empty() && out.stderr.contains(wanted),
            "{what}: {}",
            out.stderr
        );
        ensure!(
            out.stderr.contains("bad.yaml"),
            "{what}: the message does not name the file: {}",
            out.stderr
        );
        ensure!(!out.stderr.contains("panicked"), "{what}: {}", out.stderr);
    }
    let missing = xlb::xlbctl(&["apply", "-f", "/nowhere/x.yaml"])?;
    ensure!(
        missing.code == Some(2) || missing.code == Some(1),
        "missing file: {:?} {}",
        missing.code,
        missing.all()
    );
    // 100 MB: refused at once, not read into memory.
    let huge = ctx.path("huge.yaml");
    std::fs::File::create(&huge)?.set_len(100_000_000)?;
    let begin = Instant::now();
    let out = xlb::xlbctl(&["apply", "-f", &huge.display().to_string()])?;
    ensure!(
        out.code == Some(2) && begin.elapsed() < ctx.secs(5),
        "100 MB: exit {:?} after {:?}: {}",
        out.code,
        begin.elapsed(),
        out.all()
    );
    ensure!(
        xlb::xlbctl(&["get", "services", "-o", "json"])?.stdout == before,
        "something changed"
    );
    ensure!(
        ctx.open(vip)?.get("/")?.text().starts_with("one"),
        "and it still works"
    );
    for usage in [&["aply"][..], &["apply"][..], &["get", "nothing"][..]] {
        let out = xlb::xlbctl(usage)?;
        ensure!(out.code == Some(2), "xlbctl {usage:?}: exit {:?}", out.code);
    }
    Ok(())
}

fn no_permission(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&THREE[..1])?;
    let file = ctx.file("x.yaml", &shop_yaml(&THREE[..2], "round_robin", ""))?;
    let program = ctx.run_ok("sh", &["-c", "command -v xlbctl"])?;
    let out = Command::new(program.trim())
        .args(["apply", "-f"])
        .arg(&file)
        .uid(65534)
        .gid(65534)
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(
        out.status.code() == Some(1),
        "exit {:?}: {said}",
        out.status.code()
    );
    ensure!(
        said.to_lowercase().contains("permi") || said.contains("root") || said.contains("CAP_"),
        "{said}"
    );
    Ok(())
}

/// After `apply`, the configuration needs nobody: no xlbctl, no daemon.
fn no_process_stays(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    let vip = ctx.shop(&THREE[..1])?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        ensure!(
            !comm.contains("xlbctl"),
            "process {:?} is {comm}",
            entry.file_name()
        );
    }
    ctx.open(vip)?.get("/")?.expect(200)?;
    Ok(())
}

/// Who asks for the status while an apply is half done is told neither that it was cut off nor that nothing is there.
fn status_beside_apply(ctx: &mut Ctx) -> Result<()> {
    let routes: String = (0..2000)
        .map(|n| format!("  - {{match: {{path: {{exact: /{n}}}}}, cluster: items}}\n"))
        .collect();
    let yaml = shop_yaml(&THREE, "round_robin", "")
        .replace("  - cluster: items\n", &(routes + "  - cluster: items\n"));
    let small = ctx.file("small.yaml", &shop_yaml(&THREE[1..], "round_robin", ""))?;
    let large = ctx.file("large.yaml", &yaml)?;
    ctx.apply(&yaml)?;
    let end = Instant::now() + Duration::from_secs(15);
    let applier = thread::spawn(move || -> Result<()> {
        while Instant::now() < end {
            for file in [&small, &large] {
                let out = xlb::xlbctl(&["apply", "--prune", "-f", &file.display().to_string()])?;
                ensure!(out.code == Some(0), "apply: {}", out.all());
            }
        }
        Ok(())
    });
    let mut asked = 0;
    while !applier.is_finished() {
        let out = xlb::xlbctl(&["status"])?;
        ensure!(out.code == Some(0), "after {asked} times: {}", out.all());
        asked += 1;
    }
    applier
        .join()
        .map_err(|_| anyhow::anyhow!("the applier panicked"))??;
    ensure!(asked > 10, "asked {asked} times only");
    Ok(())
}

/// Each of them adds a service of its own; none is lost.
fn many_xlbctl_at_once(ctx: &mut Ctx) -> Result<()> {
    let _one = Logging::named(THREE[0], "one")?;
    const WRITERS: u8 = 6;
    let mut running = Vec::new();
    for number in 0..WRITERS {
        let file = ctx.file(&format!("{number}.yaml"), &service_yaml(number.into()))?;
        running.push(ctx.spawn("xlbctl", &["apply", "-f", &file.display().to_string()])?);
    }
    for (number, writer) in running.iter_mut().enumerate() {
        let code = writer.wait(ctx.secs(120))?;
        ensure!(code == Some(0), "apply {number}: exit {code:?}");
    }
    for number in 0..WRITERS {
        let vip = service_vip(number.into()).parse()?;
        ctx.open(vip)?.get("/")?.expect(200)?;
    }
    Ok(())
}

fn service_vip(number: u32) -> String {
    format!("10.97.{}.{}:80", number / 250, number % 250 + 1)
}

fn service_yaml(number: u32) -> String {
    format!(
        "version: 1\nservices:\n- name: s{number}\n  listen: [\"{}\"]\n  routes:\n  - cluster: c{number}\n\
         clusters:\n- name: c{number}\n  endpoints: [\"{}\"]\n",
        service_vip(number),
        THREE[0]
    )
}

/// Two thousand services in one file: applied, used, and deleted.
fn thousands_of_services(ctx: &mut Ctx) -> Result<()> {
    const SERVICES: u32 = 2000;
    let _one = Logging::named(THREE[0], "one")?;
    let mut yaml = String::from("version: 1\nservices:\n");
    for number in 0..SERVICES {
        yaml += &format!(
            "- {{name: s{number}, listen: [\"{}\"], routes: [{{cluster: one}}]}}\n",
            service_vip(number)
        );
    }
    yaml += &format!(
        "clusters:\n- {{name: one, endpoints: [\"{}\"]}}\n",
        THREE[0]
    );
    ctx.apply(&yaml)?;
    for number in [0, 1, 249, 250, 1234, SERVICES - 1] {
        let vip = service_vip(number).parse()?;
        ctx.open(vip)?.get("/")?.expect(200)?;
    }
    ctx.run_ok("xlbctl", &["delete", "--all"])?;
    let left = xlb::json(&["get", "services"])?;
    ensure!(left.as_array().is_some_and(Vec::is_empty), "left: {left}");
    Ok(())
}

/// As on a kernel built without BTF: the folder that shows it is hidden, for xlbctl alone.
fn kernel_without_btf(ctx: &mut Ctx) -> Result<()> {
    let file = ctx.file("x.yaml", &shop_yaml(&THREE[..1], "round_robin", ""))?;
    let command = format!(
        "mount -t tmpfs none /sys/kernel/btf && exec xlbctl apply -f {}",
        file.display()
    );
    let out = ctx.run("unshare", &["--mount", "sh", "-c", &command])?;
    ensure!(out.code == Some(1), "exit {:?}: {}", out.code, out.all());
    ensure!(
        out.stderr.contains("BTF") && out.stderr.lines().count() == 1,
        "{}",
        out.stderr
    );
    Ok(())
}

/// What the verifier had to walk: a change that makes it explode shows here before it fails to load elsewhere.
fn verified_in_time(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&THREE[..1])?;
    let status = xlb::json(&["status"])?;
    let programs = status
        .get("verified_insns")
        .and_then(|programs| programs.as_object())
        .with_context(|| format!("verified_insns in {status}"))?;
    ensure!(programs.len() >= 5, "{status}");
    for (program, steps) in programs {
        let steps = steps.as_u64().unwrap_or(0);
        ensure!(
            steps > 0 && steps < 50_000,
            "{program}: {steps} instructions"
        );
    }
    Ok(())
}

fn module_not_loaded(ctx: &mut Ctx) -> Result<()> {
    let file = ctx
        .file("x.yaml", &shop_yaml(&THREE[..1], "round_robin", ""))?
        .display()
        .to_string();
    let out = xlb::xlbctl(&["apply", "-f", &file])?;
    ensure!(out.code == Some(1), "exit {:?}: {}", out.code, out.all());
    ensure!(
        out.stderr.contains("xlb") && out.stderr.to_lowercase().contains("load"),
        "{}",
        out.stderr
    );
    let status = xlb::xlbctl(&["status"])?;
    ensure!(
        status.code == Some(1),
        "status: exit {:?}: {}",
        status.code,
        status.all()
    );
    ensure!(
        !std::path::Path::new("/sys/fs/bpf/xlb").exists(),
        "something was pinned"
    );
    // Checking needs no kernel.
    let out = xlb::xlbctl(&["validate", "-f", &file])?;
    ensure!(out.code == Some(0), "validate: {}", out.all());
    Ok(())
}
