// SPDX-License-Identifier: GPL-2.0
//! How TCP treats a client's connections: congestion control, keep-alive, and how long a dead peer is believed in.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{MsgFlags, SockFlag};

use crate::cases::identity::{backend, far, shell, Client, BACKEND, FAR, PLAIN};
use crate::ctx::{Ctx, Scenario, VIP4};
use crate::script::Server;
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("identity/congestion", congestion),
    Scenario::xlb("identity/keep_alive", keep_alive),
    Scenario::xlb("identity/dead_endpoint", dead_endpoint).within(240),
    Scenario::xlb("identity/slow_endpoint", slow_endpoint).within(240),
];

/// The lines of ss(8) about the connection from this address.
fn ss(ctx: &Ctx, source: &str) -> Result<String> {
    ctx.run_ok("ss", &["-tnoiHO", "state", "established", "src", source])
}

fn congestion(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let reno = |sock: &Sock| Ok(sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"reno")?);
    let reno = Client::that(&reno);
    for client in [PLAIN, reno, PLAIN, reno] {
        let source = client.get(vip)?.map_err(|e| anyhow!("{e}"))?;
        let shown = ss(ctx, &source)?;
        let is_reno = shown.contains(" reno ");
        ensure!(
            is_reno == std::ptr::addr_eq(client.prepare, reno.prepare),
            "from {source}: {shown}"
        );
    }
    // One that only an administrator may choose, on a socket that is given to somebody else.
    ctx.run_ok("modprobe", &["tcp_dctcp"])?;
    let sock = Sock::new(vip, SockFlag::empty())?;
    sock.timeouts(ctx.secs(10))?;
    sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"dctcp")?;
    let source = thread::scope(|scope| {
        scope
            .spawn(|| -> Result<String> {
                // SAFETY: takes numbers, and is about this thread.
                let ret = unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) };
                ensure!(ret == 0, "setresuid");
                sock.connect(vip)?;
                crate::cases::identity::once(&sock).map_err(|e| anyhow!("{e}"))
            })
            .join()
            .map_err(|_| anyhow!("client"))?
    })?;
    let shown = ss(ctx, &source)?;
    ensure!(shown.contains(" dctcp"), "from {source}: {shown}");
    Ok(())
}

/// The seconds until the keep-alive timer of the connection from this address.
fn timer(ctx: &Ctx, source: &str) -> Result<Option<u64>> {
    let shown = ss(ctx, source)?;
    let Some((_, rest)) = shown.split_once("timer:(keepalive,") else {
        return Ok(None);
    };
    let text = rest.split(',').next().context("a time")?;
    let mut seconds = 0;
    let mut number = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let unit = match (c, rest.peek()) {
            ('m', Some('s')) => 0,
            ('m', _) => 60,
            ('s', _) => 1,
            _ => continue,
        };
        seconds += number.parse::<f64>().unwrap_or(0.0) as u64 * unit;
        number.clear();
    }
    Ok(Some(seconds))
}

fn keep_alive(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let source = PLAIN.get(vip)?.map_err(|e| anyhow!("{e}"))?;
    let seconds = timer(ctx, &source)?;
    ensure!(
        seconds.is_some_and(|s| (5..=15).contains(&s)),
        "without a word of the client: {seconds:?}"
    );
    // On, without a time: the time is XLB's, not the kernel's two hours.
    let on = |sock: &Sock| Ok(sock.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?);
    let seconds = timer(
        ctx,
        &Client::that(&on).get(vip)?.map_err(|e| anyhow!("{e}"))?,
    )?;
    ensure!(
        seconds.is_some_and(|s| s <= 15),
        "SO_KEEPALIVE: {seconds:?}"
    );
    let slow = |sock: &Sock| {
        sock.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        Ok(sock.set(libc::SOL_TCP, libc::TCP_KEEPIDLE, 500)?)
    };
    let own = Client::that(&slow).get(vip)?.map_err(|e| anyhow!("{e}"))?;
    ensure!(own != source, "two clients that differ share {own}");
    let seconds = timer(ctx, &own)?;
    ensure!(
        seconds.is_some_and(|s| (480..=500).contains(&s)),
        "TCP_KEEPIDLE 500: {seconds:?}"
    );
    // A host that is stricter than XLB.
    let _host = shell(
        ctx,
        "sysctl -qw net.ipv4.tcp_keepalive_time=6",
        "sysctl -qw net.ipv4.tcp_keepalive_time=7200",
    )?;
    let seconds = timer(ctx, &PLAIN.get(vip)?.map_err(|e| anyhow!("{e}"))?)?;
    ensure!(seconds.is_some_and(|s| s <= 6), "sysctl 6: {seconds:?}");
    Ok(())
}

const DROP_ALL: &str = "ip netns exec far nft add table inet dead\n\
    ip netns exec far nft 'add chain inet dead in { type filter hook input priority 0; policy drop; }'\n\
    ip netns exec far nft 'add chain inet dead out { type filter hook output priority 0; policy drop; }'";

fn head_of(sock: &Sock) -> Result<String> {
    let bytes = sock.recv_until("\r\n\r\n")?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", " | "))
}

/// An endpoint dies without a word: while it works on a request, before one comes, and with a client that has
/// its own idea of how long to wait.
fn dead_endpoint(ctx: &mut Ctx) -> Result<()> {
    ctx.shop_with(&[FAR], "round_robin", "  pool: {connect_timeout: 1s}\n")?;
    let ctx = &*ctx;
    let vip: SocketAddr = VIP4.parse()?;
    let (asks, asked) = mpsc::channel();
    let far = far(ctx, || {
        Server::start(FAR, move |mut conn, _| {
            while let Some(message) = conn.request_read()? {
                if message.path() == "/never" {
                    asks.send(())?;
                    thread::sleep(Duration::from_secs(600));
                }
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
            Ok(())
        })
    })?;
    let open = |prepare: &dyn Fn(&Sock) -> Result<()>| -> Result<Sock> {
        let sock = Sock::new(vip, SockFlag::empty())?;
        sock.timeouts(Duration::from_secs(120))?;
        prepare(&sock)?;
        sock.connect(vip)?;
        Ok(sock)
    };
    let patient = |_: &Sock| Ok(());
    let hasty = |sock: &Sock| Ok(sock.set(libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 4000)?);
    let get = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n";
    let never = b"GET /never HTTP/1.1\r\nHost: shop.example\r\n\r\n";

    let (pending, late, own) = (open(&patient)?, open(&patient)?, open(&hasty)?);
    // First, so that the connection of the next one is idle at the end.
    pending.send_all(never)?;
    for sock in [&late, &own] {
        sock.send_all(get)?;
        head_of(sock)?;
    }
    asked.recv_timeout(ctx.secs(20)).context("no request")?;
    // What is on its way when the endpoint dies would be sent again.
    ctx.until("the request is acknowledged", || {
        Ok(pending.unacknowledged()? == 0)
    })?;
    ensure!(far.server.accepted() >= 2, "connections");
    ctx.run_ok("sh", &["-e", "-c", DROP_ALL])?;
    let began = Instant::now();
    // Not to be sent again.
    late.send_all(post)?;
    own.send_all(post)?;
    let ends = thread::scope(|scope| {
        let wait = |sock: &'_ Sock| -> Result<(Duration, String)> {
            let head = head_of(sock)?;
            Ok((began.elapsed(), head))
        };
        let waits: Vec<_> = [&pending, &late, &own]
            .map(|sock| scope.spawn(move || wait(sock)))
            .into_iter()
            .map(|w| w.join().map_err(|_| anyhow!("client"))?)
            .collect();
        waits
    });
    let ends = ends.into_iter().collect::<Result<Vec<_>>>()?;
    println!("{ends:?}");
    // Of the one that waits, a second connect_timeout is a part: a GET is sent again.
    for ((took, head), (from, to)) in ends.iter().zip([(10, 45), (10, 45), (2, 12)]) {
        ensure!(
            (from..=to).contains(&took.as_secs()) && head.starts_with("HTTP/1.1 50"),
            "expected an end after {from} to {to} s: {ends:?}"
        );
    }
    Ok(())
}

/// An endpoint that lives and does not read for longer than a dead one is believed in: nothing is lost, but for a
/// client that has a user time-out of its own, which TCP also counts then.
fn slow_endpoint(ctx: &mut Ctx) -> Result<()> {
    const LENGTH: usize = 8 << 20;
    const PAUSE: Duration = Duration::from_secs(45);
    let _server = Server::start(BACKEND, |mut conn, _| {
        conn.head()?;
        thread::sleep(PAUSE);
        conn.exactly(LENGTH)?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    })?;
    let vip = ctx.shop(&[BACKEND])?;
    let upload = |timeout_ms: i32| -> Result<String> {
        let sock = Sock::new(vip, SockFlag::empty())?;
        sock.timeouts(PAUSE * 3)?;
        sock.set(libc::SOL_TCP, libc::TCP_USER_TIMEOUT, timeout_ms)?;
        sock.connect(vip)?;
        let head =
            format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {LENGTH}\r\n\r\n");
        sock.send_all(head.as_bytes())?;
        // What is not taken any more is dropped, for the reply is on its way.
        let _ = sock.send_all(&vec![b'x'; LENGTH]);
        let head = sock.recv(4096, MsgFlags::empty())?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    let (patient, hasty) = thread::scope(|scope| {
        let (patient, hasty) = (scope.spawn(|| upload(0)), scope.spawn(|| upload(20_000)));
        (patient.join(), hasty.join())
    });
    let patient = patient.map_err(|_| anyhow!("client"))??;
    let hasty = hasty.map_err(|_| anyhow!("client"))??;
    ensure!(
        patient.starts_with("HTTP/1.1 200"),
        "without a time-out: {patient}"
    );
    ensure!(
        hasty.starts_with("HTTP/1.1 502"),
        "with one of 20 s: {hasty}"
    );
    Ok(())
}
