// SPDX-License-Identifier: GPL-2.0
//! A hundred thousand sockets, and sockets whose programs keep them when the module goes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::socket::{MsgFlags, SockFlag};

use crate::caller::Caller;
use crate::ctx::{Ctx, Scenario, VIP6};
use crate::script::Logging;
use crate::sock::Sock;
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("life/hundred_thousand_sockets", hundred_thousand_sockets).within(400),
    Scenario::xlb(
        "life/module_goes_before_sockets",
        module_goes_before_sockets,
    )
    .within(120),
    Scenario::xlb("life/pins_are_listed", pins_are_listed).within(90),
    Scenario::xlb("life/module_goes_under_calls", module_goes_under_calls).within(180),
];

const BACKEND: &str = "127.0.1.1:8001";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The longest a section may be, in microseconds.
const LONGEST_US: f64 = 100.0;

/// Function tracing of where the module's sections begin and end.
struct Sections(&'static Path);

/// Begin and end of a section.
const EDGES: [(&str, &str); 2] = [
    ("xlb_spin_lock_bh", "xlb_spin_unlock_bh"),
    ("xlb_rcu_read_lock", "xlb_rcu_read_unlock"),
];

/// What is known of a task while the trace is read; times in seconds.
#[derive(Default)]
struct Task {
    /// Sections: when each began, and `away` then.
    open: Vec<(f64, f64)>,
    /// How long others have run in its place: RCU is no lock.
    away: f64,
    left: Option<f64>,
}

impl Sections {
    fn begin() -> Result<Self> {
        let this = Self(Path::new("/sys/kernel/tracing"));
        this.set("current_tracer", "nop")?;
        this.set("trace", "")?;
        this.set("buffer_size_kb", "16384")?;
        for name in EDGES.iter().flat_map(|(a, b)| [a, b]) {
            let file = this.0.join("set_ftrace_filter");
            let mut file = fs::OpenOptions::new().append(true).open(file)?;
            std::io::Write::write_all(&mut file, name.as_bytes())
                .with_context(|| (*name).to_owned())?;
        }
        this.set("current_tracer", "function")?;
        this.set("events/sched/sched_switch/enable", "1")?;
        this.set("tracing_on", "1")?;
        Ok(this)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).with_context(|| format!("{file} <- {value}"))
    }

    /// Their lengths in microseconds, sorted; those of nobody but `program`.
    fn end(self, program: &str) -> Result<Vec<f64>> {
        // Another tracer would begin with an empty buffer.
        self.set("tracing_on", "0")?;
        let trace = fs::read_to_string(self.0.join("trace"))?;
        self.set("current_tracer", "nop")?;
        self.set("set_ftrace_filter", "")?;
        self.set("events/sched/sched_switch/enable", "0")?;
        let mut tasks: HashMap<String, Task> = HashMap::new();
        let mut lengths = Vec::new();
        for line in trace.lines().filter(|l| !l.starts_with('#')) {
            // "  xlbctl-123   [000] ...1.  12.345678: xlb_rcu_read_lock <-walk"
            let words: Vec<&str> = line.split_whitespace().collect();
            let [task, _, _, time, name, ..] = words[..] else {
                continue;
            };
            let time: f64 = time.trim_end_matches(':').parse()?;
            let name = name.trim_end_matches(':');
            if name == "sched_switch" {
                let of = |key: &str| words.iter().find_map(|w| w.strip_prefix(key));
                let next = (of("next_comm="), of("next_pid="));
                if let (Some(comm), Some(pid)) = next {
                    let next = tasks.entry(format!("{comm}-{pid}")).or_default();
                    next.away += next.left.take().map_or(0.0, |left| time - left);
                }
                tasks.entry(task.to_owned()).or_default().left = Some(time);
            } else if task.starts_with(program) {
                let task = tasks.entry(task.to_owned()).or_default();
                if EDGES.iter().any(|(begin, _)| *begin == name) {
                    task.open.push((time, task.away));
                } else if let Some((begin, away)) = task.open.pop() {
                    lengths.push((time - begin - (task.away - away)) * 1e6);
                }
            }
        }
        lengths.sort_by(f64::total_cmp);
        Ok(lengths)
    }
}

/// Whether some are too long. An interrupt may be in any of them, and what the kernel does behind it, such as to free
/// a batch of sockets. Where instructions are counted and all must be `short`, none may be. Elsewhere a busy host
/// stops the machine as it likes: of 6304 sections 144 were long in one run, the same that have 38 us at most when
/// they are counted. A walk under a lock has two long ones in three, so one in ten tells them apart.
fn check_sections(what: &str, lengths: &[f64], short: bool) -> Result<()> {
    let longest = lengths.last().copied().unwrap_or(0.0);
    let long = lengths.iter().filter(|l| **l > LONGEST_US).count();
    let sum: f64 = lengths.iter().sum();
    println!(
        "{what}: {} sections of the module, the longest {longest:.0} us, {long} above {LONGEST_US} us, {:.0} ms together",
        lengths.len(),
        sum / 1e3
    );
    ensure!(lengths.len() > 100, "{what}: nothing was traced");
    let counted = thread::available_parallelism()?.get() == 1;
    ensure!(
        if counted && short {
            long == 0
        } else {
            long * 10 <= lengths.len()
        },
        "{what}: {long} sections of {} are longer than {LONGEST_US} us, the longest {longest:.0} us",
        lengths.len()
    );
    Ok(())
}

/// All of them are listed, each once, while others come and go; and ended. No section of the module is long.
fn hundred_thousand_sockets(ctx: &mut Ctx) -> Result<()> {
    const COUNT: usize = 100_000;
    setrlimit(Resource::RLIMIT_NOFILE, 110_000, 110_000)?;
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let mut socks = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        let sock = Sock::new(vip, SockFlag::empty())?;
        sock.connect(vip).with_context(|| format!("socket {n}"))?;
        socks.push(sock);
    }
    let mut cookies = HashSet::with_capacity(COUNT);
    for sock in &socks {
        cookies.insert(sock.cookie()?);
    }
    ensure!(cookies.len() == COUNT, "cookies");

    let over = Arc::new(AtomicBool::new(false));
    let churn = {
        let over = Arc::clone(&over);
        thread::spawn(move || -> Result<usize> {
            let mut rounds = 0;
            let again = Sock::open(vip)?;
            while !over.load(Ordering::Relaxed) {
                drop(Sock::open(vip)?);
                again.disconnect()?;
                again.connect(vip)?;
                rounds += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(rounds)
        })
    };
    let sections = Sections::begin()?;
    let out = xlb::xlbctl(&["get", "sockets", "-o", "json"]);
    let lengths = sections.end("xlbctl")?;
    over.store(true, Ordering::Relaxed);
    let rounds = churn
        .join()
        .map_err(|_| anyhow::anyhow!("a thread died"))??;
    let out = out?;
    ensure!(out.code == Some(0), "get sockets: {}", out.stderr);
    let mut listed = 0;
    for line in out.stdout.lines() {
        let Some(id) = line.trim().strip_prefix("\"id\": ") else {
            continue;
        };
        listed += 1;
        cookies.remove(&id.trim_end_matches(',').parse()?);
    }
    println!("{listed} listed while {rounds} came and went");
    ensure!(
        cookies.is_empty(),
        "{} sockets are not listed",
        cookies.len()
    );
    // Beside them there are two of the other thread at any time; of those that it opens meanwhile one may be listed
    // where another one was.
    ensure!(
        listed >= COUNT && listed <= COUNT + 2 + rounds,
        "{listed} lines"
    );
    drop(out);
    check_sections("get sockets", &lengths, true)?;

    let sections = Sections::begin()?;
    let out = xlb::xlbctl(&["unload", "--force"])?;
    let lengths = sections.end("xlbctl")?;
    ensure!(out.code == Some(0), "unload --force: {}", out.all());
    check_sections("unload --force", &lengths, false)?;
    println!("{}", out.all());
    for sock in socks.iter().step_by(997) {
        ensure!(sock.recv(1, MsgFlags::empty())?.is_empty(), "no end");
    }
    ctx.until("rmmod with a hundred thousand descriptors", || {
        Ok(xlb::rmmod()?.code == Some(0))
    })?;
    Ok(())
}

/// What a program sees of a socket that XLB has let go of: a TCP socket whose connection has ended.
fn check_ended(sock: &Sock, why: &str) -> Result<()> {
    let poll = sock.poll(PollFlags::POLLIN | PollFlags::POLLOUT, Duration::ZERO)?;
    ensure!(
        poll.contains(PollFlags::POLLIN | PollFlags::POLLHUP),
        "{why}: poll says {poll:?}"
    );
    for flags in [
        MsgFlags::empty(),
        MsgFlags::MSG_PEEK,
        MsgFlags::MSG_WAITALL,
        MsgFlags::MSG_DONTWAIT,
    ] {
        ensure!(
            sock.recv(10, flags)
                .with_context(|| why.to_owned())?
                .is_empty(),
            "{why}: a read with {flags:?}"
        );
    }
    ensure!(sock.send(GET) == Err(Errno::EPIPE), "{why}: a write");
    ensure!(sock.peer() == Err(Errno::ENOTCONN), "{why}: getpeername");
    sock.local().with_context(|| why.to_owned())?;
    sock.set(nix::libc::SOL_TCP, nix::libc::TCP_NODELAY, 1)?;
    sock.set(nix::libc::SOL_SOCKET, nix::libc::SO_KEEPALIVE, 1)?;
    Ok(())
}

/// The module is unloaded while programs keep their descriptors: idle, fresh, half a head, IPv6, bound, in a
/// blocking read. They go on with what is a plain socket then.
fn module_goes_before_sockets(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let idle = Sock::open(vip)?;
    idle.send_all(GET)?;
    idle.recv_until(BACKEND)?;
    let fresh = Sock::open(vip)?;
    let half = Sock::open(vip)?;
    half.send_all(b"GET / HT")?;
    let six = Sock::open(VIP6.parse()?)?;
    let bound = Sock::new(vip, SockFlag::empty())?;
    nix::sys::socket::bind(
        bound.raw(),
        &nix::sys::socket::SockaddrIn::new(127, 0, 0, 9, 4567),
    )?;
    bound.connect(vip)?;
    let read = Sock::open(vip)?;
    let reader = {
        let read = read.dup()?;
        Caller::start(move || read.recv(10, MsgFlags::empty()))?
    };
    ctx.until("the blocking read", || {
        reader.waits_in(nix::libc::SYS_recvfrom)
    })?;

    let out = xlb::xlbctl(&["unload", "--force"])?;
    ensure!(out.code == Some(0), "unload --force: {}", out.all());
    ensure!(out.stdout.trim() == "unloaded", "{}", out.all());
    ctx.until("rmmod", || Ok(xlb::rmmod()?.code == Some(0)))?;
    let got = reader.join()??;
    ensure!(got.is_empty(), "the blocking read: {got:?}");
    for (sock, why) in [
        (&idle, "idle"),
        (&fresh, "fresh"),
        (&half, "half"),
        (&six, "IPv6"),
        (&bound, "bound"),
        (&read, "read"),
    ] {
        check_ended(sock, why)?;
    }
    ensure!(
        bound.local()? == "127.0.0.9:4567".parse()?,
        "what was bound stays: {:?}",
        bound.local()
    );
    // Plain sockets again.
    let before = backend.count();
    for (sock, why) in [(&idle, "idle"), (&bound, "bound"), (&half, "half")] {
        sock.disconnect()?;
        sock.connect(BACKEND.parse()?)
            .with_context(|| why.to_owned())?;
        sock.send_all(GET)?;
        sock.recv_until(BACKEND)?;
        ensure!(sock.peer()? == BACKEND.parse()?, "{why}: the peer");
    }
    ensure!(backend.count() == before + 3, "requests arrived");

    // And p-sockets again, of a module that was loaded anew.
    let out = xlb::insmod(&[])?;
    ensure!(out.code == Some(0), "insmod: {}", out.all());
    ctx.shop(&[BACKEND])?;
    for sock in [&fresh, &idle] {
        sock.disconnect()?;
        sock.connect(vip)?;
        sock.send_all(GET)?;
        sock.recv_until(BACKEND)?;
    }
    Ok(())
}

/// A response that nobody has read and a socket that was connected elsewhere pin the module: both are named.
fn pins_are_listed(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let unread = Sock::open(vip)?;
    unread.send_all(GET)?;
    ctx.until("the response", || {
        Ok(!unread.recv(1, MsgFlags::MSG_PEEK)?.is_empty())
    })?;
    let plain = Sock::open(vip)?;
    plain.disconnect()?;
    plain.connect(BACKEND.parse()?)?;
    let listed = xlb::json(&["get", "sockets"])?;
    ensure!(
        listed.as_array().map(Vec::len) == Some(1),
        "a plain connection is no p-socket:\n{listed:#}"
    );
    let pinned = |count: usize| -> Result<()> {
        let status = xlb::json(&["status"])?;
        let pins = status["pinned_by"].as_array().context("a list")?;
        ensure!(pins.len() == count, "{status:#}");
        for pin in pins {
            ensure!(pin["pid"] == std::process::id(), "{pin:#}");
            let id = pin["socket"].as_u64().context("a cookie")?;
            ensure!([unread.cookie()?, plain.cookie()?].contains(&id), "{pin:#}");
        }
        Ok(())
    };
    pinned(1).context("while XLB serves")?;

    let out = xlb::xlbctl(&["unload", "--force"])?;
    println!("{}", out.all());
    ensure!(out.code == Some(0), "unload --force: {}", out.all());
    let pid = format!("pid {} (", std::process::id());
    ensure!(
        out.stdout.contains("2 sockets still pin") && out.stdout.matches(&pid).count() == 2,
        "{}",
        out.all()
    );
    ensure!(
        out.stdout.contains("plain-tcp") && out.stdout.contains("bytes unread"),
        "{}",
        out.all()
    );
    pinned(2).context("after unload")?;
    let text = xlb::xlbctl(&["status"])?;
    ensure!(text.stdout.contains("pinned by    pid "), "{}", text.all());
    ensure!(xlb::rmmod()?.code != Some(0), "rmmod with pins");

    unread.recv_until(BACKEND)?;
    ensure!(unread.recv(10, MsgFlags::empty())?.is_empty(), "the end");
    let out = xlb::xlbctl(&["unload", "--force"])?;
    ensure!(
        out.code == Some(0) && out.stdout.contains("1 sockets still pin"),
        "again: {}",
        out.all()
    );
    pinned(1).context("after the second unload")?;
    drop(plain);
    ctx.until("rmmod", || Ok(xlb::rmmod()?.code == Some(0)))?;
    check_ended(&unread, "read to the end")
}

/// Threads are in calls of all kinds, on sockets that are shared, when the module goes.
fn module_goes_under_calls(ctx: &mut Ctx) -> Result<()> {
    const ROUNDS: usize = 6;
    let _backend = Logging::start(BACKEND)?;
    for round in 0..ROUNDS {
        if !xlb::is_loaded() {
            let out = xlb::insmod(&[])?;
            ensure!(out.code == Some(0), "insmod: {}", out.all());
        }
        let vip = ctx.shop(&[BACKEND])?;
        let over = Arc::new(AtomicBool::new(false));
        let socks: Vec<Arc<Sock>> = (0..8)
            .map(|_| Ok(Arc::new(Sock::open(vip)?)))
            .collect::<Result<_>>()?;
        let mut threads = Vec::new();
        for (n, sock) in socks.iter().enumerate() {
            for kind in 0..3 {
                let (sock, over) = (Arc::clone(sock), Arc::clone(&over));
                threads.push(thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        call(&sock, (n + kind) % 8, vip);
                    }
                }));
            }
        }
        thread::sleep(Duration::from_millis(200 + 70 * round as u64));
        let out = xlb::xlbctl(&["unload", "--force"])?;
        ensure!(out.code == Some(0), "unload --force: {}", out.all());
        // A response that no thread reads any more pins its socket: read on, and let go of it.
        ctx.until("rmmod", || {
            if xlb::rmmod()?.code == Some(0) {
                return Ok(true);
            }
            xlb::xlbctl(&["unload", "--force"])?;
            Ok(false)
        })?;
        // Calls on what is left of the sockets.
        thread::sleep(Duration::from_millis(100));
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread died"))?;
        }
        for (n, sock) in socks.iter().enumerate() {
            ensure!(sock.send(GET) == Err(Errno::EPIPE), "socket {n}: a write");
        }
    }
    Ok(())
}

fn call(sock: &Sock, kind: usize, vip: std::net::SocketAddr) {
    let short = Duration::from_millis(20);
    // Whatever comes of it: the kernel log is what counts.
    match kind {
        0 => drop(sock.send_with(GET, MsgFlags::MSG_DONTWAIT)),
        1 | 2 => drop(sock.recv(4096, MsgFlags::MSG_DONTWAIT)),
        3 => drop(sock.poll(PollFlags::POLLIN | PollFlags::POLLOUT, short)),
        4 => drop(sock.set(nix::libc::SOL_TCP, nix::libc::TCP_NODELAY, 1)),
        5 => drop(sock.unread()),
        6 => drop((sock.local(), sock.peer())),
        // Readers of the others: without them nothing would be read.
        _ => {
            drop(sock.recv(4096, MsgFlags::MSG_DONTWAIT));
            let _ = sock.connect(vip);
        }
    }
}
