// SPDX-License-Identifier: GPL-2.0
//! Beginnings and ends: of the module, of clients, of backends, of cgroups and network namespaces.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::sched::{unshare, CloneFlags};

use crate::backend;
use crate::ctx::{shop_yaml, Ctx, Scenario, VIP4};
use crate::http::Conn;
use crate::script::{Gate, Logging};
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::bare("life/insmod_and_rmmod", insmod_and_rmmod),
    Scenario::bare("life/nonsense_parameters", nonsense_parameters),
    Scenario::bare("life/limits_as_parameters", limits_as_parameters),
    Scenario::bare("life/module_without_btf", module_without_btf),
    Scenario::xlb(
        "life/rmmod_refused_with_live_sockets",
        rmmod_refused_with_live_sockets,
    ),
    Scenario::xlb(
        "life/unload_refused_with_live_sockets",
        unload_refused_with_live_sockets,
    ),
    Scenario::xlb(
        "life/forced_unload_ends_sockets",
        forced_unload_ends_sockets,
    ),
    Scenario::xlb("life/forced_unload_under_load", forced_unload_under_load).within(90),
    Scenario::xlb("life/client_killed", client_killed).within(120),
    Scenario::xlb("life/backend_killed", backend_killed).within(120),
    Scenario::xlb(
        "life/cgroup_removed_while_in_use",
        cgroup_removed_while_in_use,
    ),
    Scenario::xlb(
        "life/netns_removed_while_in_use",
        netns_removed_while_in_use,
    ),
    Scenario::xlb("life/netns_gone_frees_its_pool", netns_gone_frees_its_pool),
    Scenario::xlb("life/netns_each_have_their_own", netns_each_have_their_own),
    Scenario::xlb(
        "life/socket_outlives_its_cgroup",
        socket_outlives_its_cgroup,
    ),
    Scenario::bare("life/ten_times_over", ten_times_over).within(120),
];

const BACKEND: &str = "127.0.1.1:8001";

fn insmod_and_rmmod(_ctx: &mut Ctx) -> Result<()> {
    for _ in 0..5 {
        let out = xlb::insmod(&[])?;
        ensure!(out.code == Some(0), "insmod: {}", out.all());
        ensure!(
            Path::new("/sys/kernel/btf/xlb").exists(),
            "the module has no BTF"
        );
        let again = xlb::insmod(&[])?;
        ensure!(
            again.code != Some(0) && again.all().contains("File exists"),
            "insmod twice: {}",
            again.all()
        );
        let out = xlb::rmmod()?;
        ensure!(out.code == Some(0), "rmmod: {}", out.all());
    }
    Ok(())
}

/// The kernel itself complains about unknown parameters and loads the module; bad values of known ones must not.
fn nonsense_parameters(_ctx: &mut Ctx) -> Result<()> {
    for parameter in ["limits=banana", "max=-1", "\u{1}=\u{2}"] {
        let out = xlb::insmod(&[parameter])?;
        if out.code == Some(0) {
            let out = xlb::rmmod()?;
            ensure!(
                out.code == Some(0),
                "rmmod after {parameter}: {}",
                out.all()
            );
        }
        ensure!(!xlb::is_loaded(), "still loaded after {parameter}");
    }
    for parameter in ["head_bytes=10", "head_bytes=banana", "field_count=1000000"] {
        let out = xlb::insmod(&[parameter])?;
        ensure!(out.code != Some(0), "{parameter} was taken");
        ensure!(!xlb::is_loaded(), "still loaded after {parameter}");
    }
    Ok(())
}

/// insmod says what is missing.
fn module_without_btf(ctx: &mut Ctx) -> Result<()> {
    let stripped = ctx.path("xlb.ko").display().to_string();
    let whole = xlb::module_path();
    ctx.run_ok(
        "objcopy",
        &["-R", ".BTF", "-R", ".BTF.base", &whole, &stripped],
    )?;
    let out = ctx.run("insmod", &[&stripped])?;
    ensure!(out.code != Some(0), "loaded without BTF");
    ensure!(!xlb::is_loaded(), "the module stayed");
    let log = ctx.run_ok("dmesg", &[])?;
    ensure!(
        log.lines()
            .rev()
            .take(20)
            .any(|line| line.contains("xlb: this module was built without BTF")),
        "the kernel log does not say why"
    );
    Ok(())
}

fn limits_as_parameters(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let out = xlb::insmod(&["head_bytes=1024", "field_count=9"])?;
    ensure!(out.code == Some(0), "insmod: {}", out.all());
    let vip = ctx.shop(&[BACKEND])?;
    for (name, fields, length, status) in [
        ("small", 5, 10, 200),
        ("long", 5, 250, 431),
        ("many", 12, 10, 431),
    ] {
        let mut conn = ctx.open(vip)?;
        let mut head = format!("GET /{name} HTTP/1.1\r\nHost: shop.example\r\n");
        for number in 0..fields {
            head += &format!("x-{number}: {}\r\n", "v".repeat(length));
        }
        conn.send(head + "\r\n")?;
        conn.response("GET")?.expect(status).context(name)?;
    }
    ctx.run_ok("xlbctl", &["delete", "--all"])?;
    ctx.run_ok("xlbctl", &["unload"])?;
    let out = xlb::rmmod()?;
    ensure!(out.code == Some(0), "rmmod: {}", out.all());
    Ok(())
}

fn rmmod_refused_with_live_sockets(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    let out = xlb::rmmod()?;
    ensure!(
        out.code != Some(0) && out.all().contains("in use"),
        "rmmod: {:?} {}",
        out.code,
        out.all()
    );
    conn.get("/")
        .context("after the refused rmmod")?
        .expect(200)?;
    Ok(())
}

fn unload_refused_with_live_sockets(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    let out = xlb::xlbctl(&["unload"])?;
    ensure!(
        out.code == Some(1),
        "unload: exit {:?} {}",
        out.code,
        out.all()
    );
    ensure!(
        out.stderr.contains("--force") && out.stderr.contains('1'),
        "the message names the sockets and the way out: {}",
        out.stderr
    );
    conn.get("/")
        .context("after the refused unload")?
        .expect(200)?;
    drop(conn);
    ctx.until("unload without sockets", || {
        Ok(xlb::xlbctl(&["unload"])?.code == Some(0))
    })
}

fn forced_unload_ends_sockets(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut idle = ctx.open(vip)?;
    idle.get("/")?.expect(200)?;
    let fresh = Sock::open(vip)?;
    let mut busy = ctx.open(vip)?;
    busy.request("GET", "/sleep/1500", "", b"")?;
    let mut half = ctx.open(vip)?;
    half.send("GET / HT")?;
    ctx.until("the running exchange", || Ok(backend.count() == 2))?;
    let out = xlb::xlbctl(&["unload", "--force"])?;
    ensure!(out.code == Some(0), "unload --force: {}", out.all());
    idle.expect_eof().context("an idle socket")?;
    ensure!(
        fresh
            .recv(10, nix::sys::socket::MsgFlags::empty())?
            .is_empty(),
        "a fresh socket reads the end"
    );
    // The running exchange may end, or be cut; it must not hang, and what comes must be the answer.
    if let Ok(answer) = busy.response("GET") {
        ensure!(
            answer.status() == 200 || answer.status() >= 500,
            "{answer:?}"
        );
    }
    let _ = half.rest(ctx.secs(5))?;
    ensure!(
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err(),
        "a write after the end"
    );
    drop((idle, fresh, busy, half));
    ctx.until("rmmod", || Ok(xlb::rmmod()?.code == Some(0)))?;
    Ok(())
}

fn forced_unload_under_load(ctx: &mut Ctx) -> Result<()> {
    let backend = backend::nginx(ctx, BACKEND, "n1")?;
    for round in 0..3 {
        if !xlb::is_loaded() {
            let out = xlb::insmod(&[])?;
            ensure!(out.code == Some(0), "insmod: {}", out.all());
        }
        let vip = ctx.shop(&[BACKEND])?;
        let before = backend.count("GET")?;
        let mut load = ctx.spawn(
            "wrk",
            &[
                "-t",
                "1",
                "-c",
                "16",
                "-d",
                "4",
                "--timeout",
                "2s",
                &ctx.url(vip),
            ],
        )?;
        // Many for each of its connections.
        ctx.until("load", || Ok(backend.count("GET")? > before + 200))?;
        let out = xlb::xlbctl(&["unload", "--force"])?;
        ensure!(
            out.code == Some(0),
            "round {round}: unload --force: {}",
            out.all()
        );
        load.wait(ctx.secs(20))?;
        ctx.until("rmmod", || Ok(xlb::rmmod()?.code == Some(0)))?;
    }
    Ok(())
}

fn client_killed(ctx: &mut Ctx) -> Result<()> {
    let backend = backend::python(ctx, BACKEND, "b1")?;
    let vip = ctx.shop(&[BACKEND])?;
    let url = ctx.url(vip);
    let file = ctx.path("up");
    std::fs::write(&file, crate::http::pattern(30 << 20, 1))?;
    let file = file.display().to_string();
    for round in 0..6 {
        let pieces = backend.count("/bytes/100000")?;
        // In the middle of a download, of an upload, of waiting, and with many connections.
        let mut clients = vec![
            ctx.spawn(
                "curl",
                &[
                    "-sS",
                    "-o",
                    "/dev/null",
                    "--limit-rate",
                    "3M",
                    &format!("{url}/bytes/50000000"),
                ],
            )?,
            ctx.spawn(
                "curl",
                &[
                    "-sS",
                    "-T",
                    &file,
                    "--limit-rate",
                    "3M",
                    &format!("{url}/echo"),
                ],
            )?,
            ctx.spawn("curl", &["-sS", &format!("{url}/sleep/60000")])?,
            ctx.spawn(
                "wrk",
                &[
                    "-t",
                    "1",
                    "-c",
                    "10",
                    "-d",
                    "60",
                    &format!("{url}/bytes/100000"),
                ],
            )?,
        ];
        ctx.until("requests of all", || {
            for single in ["GET /bytes/50000000", "PUT /echo", "GET /sleep/60000"] {
                if backend.count(single)? <= round {
                    return Ok(false);
                }
            }
            Ok(backend.count("/bytes/100000")? >= pieces + 10)
        })?;
        // Each time somewhere else in them.
        thread::sleep(Duration::from_millis((round as u64 + 1) * 173));
        for client in &mut clients {
            client.kill();
        }
        ctx.until(
            "p-sockets gone",
            || Ok(xlb::counters()?.get("psocks")? == 0),
        )?;
        ctx.open(vip)?
            .get("/echo")
            .with_context(|| format!("round {round}"))?
            .expect(200)?;
    }
    ensure!(backend.log()?.len() > 20, "requests arrived");
    Ok(())
}

fn backend_killed(ctx: &mut Ctx) -> Result<()> {
    let vip = ctx.shop(&[BACKEND])?;
    let limit = ctx.secs(20);
    for round in 0..5u64 {
        let mut backend = backend::python(ctx, BACKEND, "b1")?;
        let killed = Gate::default();
        let requests: Vec<_> = [
            "/bytes/40000000",
            "/bytes/40000000?chunked",
            "/sleep/30000",
            "/bytes/40000000?close",
        ]
        .into_iter()
        .map(|path| {
            let killed = killed.clone();
            thread::spawn(move || late_get(vip, path, limit, &killed))
        })
        .collect();
        let upload = thread::spawn(move || -> Result<u16> {
            let mut conn = Conn::open(vip, limit)?;
            conn.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")?;
            for _ in 0..1000 {
                if conn.send([0; 10_000]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
            Ok(conn.response("POST").map_or(0, |answer| answer.status()))
        });
        ctx.until("an upload, and three bodies that wait to be read", || {
            let args = ["-tnH", "state", "established", "dst", BACKEND];
            let unread = ctx.run_ok("ss", &args)?;
            let unread = unread.lines().filter(|line| !line.starts_with("0 "));
            Ok(unread.count() >= 3 && backend.log()?.len() >= 5)
        })?;
        // Each time somewhere else in their bodies.
        thread::sleep(Duration::from_millis(round * 131));
        backend.proc.kill();
        killed.open();
        for request in requests {
            let outcome = request
                .join()
                .map_err(|_| anyhow::anyhow!("a client thread died"))?;
            println!("round {round}: {outcome:?}");
            // A body that the close ends looks whole to any client; all others must be seen as cut.
            if let Ok((path, status, length)) = outcome {
                ensure!(
                    status >= 500 || path.contains("close"),
                    "{path}: {length} bytes were taken as whole"
                );
            }
        }
        let status = upload
            .join()
            .map_err(|_| anyhow::anyhow!("the uploading thread died"))??;
        ensure!(status == 0 || status >= 500, "upload: {status}");
        let answer = ctx.open(vip)?.get("/echo")?;
        answer
            .expect_reply(503, "connect_failed")
            .with_context(|| format!("round {round}, no backend"))?;
    }
    Ok(())
}

/// A GET that reads nothing before the backend has died, which is in the body then.
fn late_get(
    vip: SocketAddr,
    path: &'static str,
    limit: Duration,
    killed: &Gate,
) -> Result<(&'static str, u16, usize)> {
    let mut conn = Conn::open(vip, limit)?;
    conn.request("GET", path, "", b"")?;
    killed.pass();
    let answer = conn.response("GET")?;
    Ok((path, answer.status(), answer.body.len()))
}

fn own_cgroup() -> Result<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    Ok(format!(
        "/sys/fs/cgroup{}",
        own.trim().rsplit(':').next().context("cgroup")?
    ))
}

fn cgroup_removed_while_in_use(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let url = ctx.url(vip);
    for round in 0..5 {
        let folder = format!("{}/gone{round}", own_cgroup()?);
        std::fs::create_dir(&folder)?;
        // Its pool keeps connections when the cgroup goes.
        ctx.run_ok(
            "sh",
            &[
                "-c",
                &format!("echo $$ > {folder}/cgroup.procs && exec curl -sS {url}/[1-5]"),
            ],
        )?;
        ctx.until("rmdir of the cgroup", || {
            Ok(std::fs::remove_dir(&folder).is_ok())
        })?;
        ctx.open(vip)?.get("/")?.expect(200)?;
    }
    ensure!(backend.count() == 30, "{}", backend.count());
    Ok(())
}

/// A p-sock made in a cgroup that is removed afterwards (its process moved on).
fn socket_outlives_its_cgroup(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let own = own_cgroup()?;
    let (gone, pid) = (format!("{own}/gone"), std::process::id().to_string());
    std::fs::create_dir(&gone)?;
    std::fs::create_dir(format!("{own}/stay"))?;
    std::fs::write(format!("{gone}/cgroup.procs"), &pid)?;
    let mut conn = ctx.open(vip)?;
    conn.get("/")?.expect(200)?;
    std::fs::write(format!("{own}/stay/cgroup.procs"), &pid)?;
    std::fs::remove_dir(&gone)?;
    for _ in 0..5 {
        conn.get("/")
            .context("after the cgroup went")?
            .expect(200)?;
    }
    let listed = xlb::xlbctl(&["get", "sockets"])?;
    ensure!(
        listed.code == Some(0),
        "get sockets with a cgroup that is gone: {}",
        listed.all()
    );
    Ok(())
}

/// Runs in a new network namespace with its loopback up; the thread's namespace is put back afterwards.
fn in_new_netns(ctx: &Ctx, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let limit = ctx.secs(10);
    thread::scope(|scope| {
        scope
            .spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let out = crate::ctx::run_for(limit, "ip", &["link", "set", "lo", "up"])?;
                ensure!(out.code == Some(0), "ip: {}", out.all());
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the namespace's thread died"))?
    })
}

/// The namespace goes while its pool holds connections, and while a socket of it is still open.
fn netns_removed_while_in_use(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[BACKEND])?;
    let vip: SocketAddr = VIP4.parse()?;
    for round in 0..5 {
        let limit = ctx.secs(20);
        let mut kept: Option<Conn> = None;
        let keep = &mut kept;
        in_new_netns(ctx, move || {
            let _backend = Logging::start(BACKEND)?;
            let mut conn = Conn::open(vip, limit)?;
            for _ in 0..3 {
                conn.get("/")
                    .with_context(|| format!("round {round}"))?
                    .expect(200)?;
            }
            if round % 2 == 1 {
                *keep = Some(conn);
            }
            Ok(())
        })?;
        if let Some(mut conn) = kept {
            // The socket keeps its namespace; its loopback and the backend's listener are still there.
            conn.get("/")
                .context("after the thread left the namespace")?
                .expect(200)?;
        }
    }
    // The listeners' threads still hold their namespaces' sockets; what XLB holds must go by itself.
    ctx.until("connections of dead namespaces gone", || {
        Ok(xlb::counters()?.get("psocks")? == 0)
    })
}

/// All processes of a namespace end: its pooled connections must not keep it.
fn netns_gone_frees_its_pool(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[BACKEND])?;
    let script = ctx.file("echo.py", include_str!("../../peers/echo.py"))?;
    let line = format!(
        "ip link set lo up; python3 {script} 127.0.1.1 8001 in /dev/null & server=$!; \
         for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do curl -s -o /dev/null 127.0.1.1:8001/ && break; sleep 0.5; done; \
         curl -sS http://{VIP4}/[1-3] && exec sleep 0.5",
        script = script.display()
    );
    // A process namespace of its own: when its first process ends, so does the server.
    let out = ctx.run_ok("unshare", &["-n", "-p", "-f", "sh", "-c", &line])?;
    ensure!(out.matches("\"backend\": \"in\"").count() == 3, "{out}");
    ctx.until("connections of the dead namespace gone", || {
        Ok(xlb::counters()?.get("isocks")? == 0)
    })
}

fn netns_each_have_their_own(ctx: &mut Ctx) -> Result<()> {
    let outside = Logging::named(BACKEND, "outside")?;
    ctx.shop(&[BACKEND])?;
    let vip: SocketAddr = VIP4.parse()?;
    let limit = ctx.secs(20);
    ctx.open(vip)?.get("/")?.expect(200)?;
    in_new_netns(ctx, move || {
        let answer = Conn::open(vip, limit)?.get("/")?;
        answer
            .expect_reply(503, "connect_failed")
            .context("no backend in the new namespace")?;
        let _inside = Logging::named(BACKEND, "inside")?;
        let text = Conn::open(vip, limit)?.get("/")?.text();
        ensure!(text.starts_with("inside"), "{text}");
        Ok(())
    })?;
    ensure!(
        ctx.open(vip)?.get("/")?.text().starts_with("outside"),
        "outside"
    );
    ensure!(outside.count() == 2, "{}", outside.count());
    Ok(())
}

fn ten_times_over(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let file = ctx
        .file(
            "x.yaml",
            &shop_yaml(&[BACKEND], "round_robin", "  pool: {min_idle: 3}\n"),
        )?
        .display()
        .to_string();
    for round in 0..10 {
        let begin = Instant::now();
        let out = xlb::insmod(&[])?;
        ensure!(out.code == Some(0), "insmod: {}", out.all());
        ctx.run_ok("xlbctl", &["apply", "-f", &file])?;
        ctx.open(VIP4.parse()?)?
            .get("/")
            .with_context(|| format!("round {round}"))?
            .expect(200)?;
        ctx.until("unload", || Ok(xlb::xlbctl(&["unload"])?.code == Some(0)))?;
        ctx.until("rmmod", || Ok(xlb::rmmod()?.code == Some(0)))?;
        println!("round {round}: {:?}", begin.elapsed());
    }
    Ok(())
}
