// SPDX-License-Identifier: GPL-2.0
//! The host's rules: each names a client by what its packets are, and holds for it through XLB as it does directly.
//!
//! A rule is tried with a client that it does not name and one that it names; the first has left an idle connection
//! when the second comes. Then, without the rule, clients that differ must not meet on a connection, which the
//! backend tells by the port that it sees.

use std::net::SocketAddr;
use std::thread;

use anyhow::{anyhow, ensure, Context, Result};
use nix::libc;
use nix::sched::{setns, CloneFlags};
use nix::sys::socket::{bind, MsgFlags, SockFlag, SockaddrStorage};

use crate::ctx::{Ctx, Scenario, VIP4, VIP6};
use crate::script::Server;
use crate::sock::{mapped, Sock};

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("identity/source_address", source_address),
    Scenario::xlb("identity/source_port", source_port),
    Scenario::xlb("identity/device", device),
    Scenario::xlb("identity/vrf", vrf),
    Scenario::xlb("identity/mark", mark),
    Scenario::xlb("identity/class", class),
    Scenario::xlb("identity/class_v6", class_v6),
    Scenario::xlb("identity/owner", owner).within(120),
    Scenario::xlb("identity/landlock", landlock),
    Scenario::xlb("identity/opened_ahead", opened_ahead),
    Scenario::xlb("identity/set_between_requests", set_between_requests),
    Scenario::xlb("identity/not_portable", not_portable),
    Scenario::xlb("identity/shown", shown),
];

pub const BACKEND: &str = "127.0.1.1:8001";
pub const BACKEND6: &str = "[::1]:8001";
/// A server in another namespace, behind a pair of devices: packets to it are routed.
pub const FAR: &str = "10.77.0.2:8001";

/// Who asks, and what it does to its socket before the connect.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// `(user, group, supplementary group)`; root without.
    pub owner: Option<(u32, u32, u32)>,
    /// A file: who writes to it joins a cgroup of the first version. A thread that does makes the socket; the
    /// client, who goes on with it, is no member.
    pub joins: Option<&'a str>,
    pub prepare: &'a (dyn Fn(&Sock) -> Result<()> + Sync),
}

pub const PLAIN: Client = Client {
    owner: None,
    joins: None,
    prepare: &|_| Ok(()),
};

impl<'a> Client<'a> {
    pub fn that(prepare: &'a (dyn Fn(&Sock) -> Result<()> + Sync)) -> Self {
        Self { prepare, ..PLAIN }
    }

    pub fn owned_by(user: u32, group: u32, supplementary: u32) -> Client<'static> {
        Client {
            owner: Some((user, group, supplementary)),
            ..PLAIN
        }
    }

    /// A GET over a new socket: the address that the backend saw, or what came instead.
    pub fn get(&self, to: SocketAddr) -> Result<Result<String, String>> {
        // In a thread of its own: the system calls below, unlike those of a C library, are about one thread.
        thread::scope(|scope| {
            let ask = scope.spawn(|| -> Result<Result<String, String>> {
                if let Some((user, group, supplementary)) = self.owner {
                    act_as(user, group, supplementary)?;
                }
                self.ask(to)
            });
            ask.join().map_err(|_| anyhow!("client"))?
        })
    }

    /// The socket, or what the kernel said to it.
    fn make(&self, to: SocketAddr) -> Result<Result<Sock>> {
        let Some(tasks) = self.joins else {
            return Ok(Sock::new(to, SockFlag::empty()));
        };
        thread::scope(|scope| {
            let member = scope.spawn(|| {
                std::fs::write(tasks, "0").context("join the cgroup")?;
                Ok(Sock::new(to, SockFlag::empty()))
            });
            member.join().map_err(|_| anyhow!("member"))?
        })
    }

    fn ask(&self, to: SocketAddr) -> Result<Result<String, String>> {
        let sock = match self.make(to)? {
            Ok(sock) => sock,
            Err(error) => return Ok(Err(format!("socket: {error}"))),
        };
        sock.timeouts(std::time::Duration::from_secs(5))?;
        (self.prepare)(&sock)?;
        if let Err(errno) = sock.connect(to) {
            return Ok(Err(format!("connect: {errno}")));
        }
        Ok(once(&sock))
    }
}

/// One GET over a connected socket: the address that the backend saw, or what came instead.
pub fn once(sock: &Sock) -> Result<String, String> {
    let text = || -> Result<String> {
        sock.send_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
        let mut all = Vec::new();
        while !all.ends_with(b"\n") || !String::from_utf8_lossy(&all).contains("\r\n\r\n") {
            let piece = sock.recv(4096, MsgFlags::empty())?;
            ensure!(!piece.is_empty(), "closed after {all:?}");
            all.extend(piece);
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    };
    let text = text().map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.trim().to_owned())
    } else {
        Err(head.replace("\r\n", " | "))
    }
}

fn act_as(user: u32, group: u32, supplementary: u32) -> Result<()> {
    let list = [supplementary];
    // SAFETY: the kernel reads one group; the others take numbers.
    unsafe {
        ensure!(
            libc::syscall(libc::SYS_setgroups, 1, list.as_ptr()) == 0
                && libc::syscall(libc::SYS_setresgid, group, group, group) == 0
                && libc::syscall(libc::SYS_setresuid, user, user, user) == 0,
            "become user {user}, group {group}"
        );
    }
    Ok(())
}

/// Answers each request with the address that it came from.
pub fn backend(address: &str) -> Result<Server> {
    Server::start(address, |mut conn, _| {
        let peer = format!("{}\n", conn.stream.peer_addr()?);
        while conn.request_read()?.is_some() {
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{peer}",
                peer.len()
            ))?;
        }
        Ok(())
    })
}

/// What undoes a rule.
pub struct Undo<'a>(&'a Ctx, &'a str);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = self.0.run("sh", &["-c", self.1]);
    }
}

/// Runs a line of shell; `undo` when what this returns goes.
pub fn shell<'a>(ctx: &'a Ctx, line: &str, undo: &'a str) -> Result<Undo<'a>> {
    let undo = Undo(ctx, undo);
    ctx.run_ok("sh", &["-e", "-c", line])?;
    Ok(undo)
}

/// Packets to the port of the backends that match are refused.
pub fn nft<'a>(ctx: &'a Ctx, matches: &str) -> Result<Undo<'a>> {
    shell(
        ctx,
        &format!(
            "nft add table inet host\n\
             nft 'add chain inet host out {{ type filter hook output priority 0; }}'\n\
             nft 'add rule inet host out tcp dport 8001 {matches} reject with tcp reset'"
        ),
        "nft delete table inet host",
    )
}

/// The rule refuses `named` and nobody else, directly and through XLB.
pub fn holds(direct: SocketAddr, vip: SocketAddr, named: Client, rule: &str) -> Result<()> {
    for (way, to) in [("directly", direct), ("through XLB", vip)] {
        PLAIN
            .get(to)?
            .map_err(|e| anyhow!("{rule}: refuses, {way}, who is not named: {e}"))?;
        if let Ok(seen) = named.get(to)? {
            return Err(anyhow!("{rule}: does not hold {way}; seen as {seen}"));
        }
    }
    Ok(())
}

/// No two of these clients meet on a connection, and each finds its own again.
pub fn apart(vip: SocketAddr, clients: &[Client]) -> Result<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    for round in 0..2 {
        for (at, client) in clients.iter().enumerate() {
            let name = client
                .get(vip)?
                .map_err(|e| anyhow!("client {at}, round {round}: {e}"))?;
            match seen.get(at) {
                Some(before) => ensure!(*before == name, "client {at}: {before}, then {name}"),
                None => {
                    ensure!(
                        !seen.contains(&name),
                        "client {at} on a connection of {seen:?}"
                    );
                    seen.push(name);
                }
            }
        }
    }
    Ok(seen)
}

/// A namespace "far" with [`FAR`] in it, reached over the device "near0".
pub struct Far<'a> {
    pub server: Server,
    _undo: Undo<'a>,
}

pub fn far(ctx: &Ctx, start: impl FnOnce() -> Result<Server> + Send + 'static) -> Result<Far<'_>> {
    let undo = shell(
        ctx,
        "ip netns add far\n\
         ip link add near0 type veth peer name far0 netns far\n\
         ip addr add 10.77.0.1/24 dev near0\n\
         ip link set near0 up\n\
         ip -n far addr add 10.77.0.2/24 dev far0\n\
         ip -n far link set far0 up",
        "ip link del near0; ip netns del far",
    )?;
    let netns = std::fs::File::open("/run/netns/far")?;
    let server = thread::spawn(move || -> Result<Server> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        start()
    });
    let server = server.join().map_err(|_| anyhow!("server"))??;
    Ok(Far {
        server,
        _undo: undo,
    })
}

fn bound_to(text: &str) -> impl Fn(&Sock) -> Result<()> + Sync {
    let address: SocketAddr = text.parse().unwrap_or(SocketAddr::from(([0; 4], 0)));
    move |sock: &Sock| {
        sock.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        bind(sock.raw(), &SockaddrStorage::from(address)).with_context(|| format!("bind {address}"))
    }
}

pub fn with(level: i32, option: i32, value: i32) -> impl Fn(&Sock) -> Result<()> + Sync {
    move |sock: &Sock| Ok(sock.set(level, option, value)?)
}

fn on_device(name: &'static str) -> impl Fn(&Sock) -> Result<()> + Sync {
    move |sock: &Sock| {
        Ok(sock.set_bytes(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())?)
    }
}

fn source_address(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let (five, six) = (bound_to("127.0.0.5:0"), bound_to("127.0.0.6:0"));
    {
        let _rule = nft(ctx, "ip saddr 127.0.0.5")?;
        holds(BACKEND.parse()?, vip, Client::that(&five), "saddr")?;
    }
    let seen = apart(vip, &[PLAIN, Client::that(&five), Client::that(&six)])?;
    ensure!(
        seen.iter()
            .map(|s| s.split(':').next())
            .eq(["127.0.0.1", "127.0.0.5", "127.0.0.6"].map(Some)),
        "the backend saw {seen:?}"
    );
    // A socket of IPv6 with an address of IPv4, on the connections of who has that.
    let five6 = bound_to("[::ffff:127.0.0.5]:0");
    let seen6 = Client::that(&five6).get(mapped(vip))?;
    ensure!(
        seen6.as_ref().ok() == seen.get(1),
        "mapped: {seen6:?}, {seen:?}"
    );
    // An address of the other family leads nowhere.
    let other = bound_to("[::1]:0");
    let refused = Client::that(&other).get(VIP6.parse()?)?;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|e| e.contains("connect_failed")),
        "bound to ::1, for an endpoint of IPv4: {refused:?}"
    );
    Ok(())
}

/// A port that the client has bound is that of its connections; so are a range, and one below 1024.
fn source_port(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let low = bound_to("0.0.0.0:700");
    let range = with(libc::SOL_IP, IP_LOCAL_PORT_RANGE, (40_009 << 16) | 40_000);
    // First of all through XLB: a direct connection leaves its port in TIME_WAIT.
    let seen = apart(vip, &[PLAIN, Client::that(&low), Client::that(&range)])?;
    let ports: Vec<u16> = seen
        .iter()
        .filter_map(|s| s.rsplit(':').next()?.parse().ok())
        .collect();
    ensure!(
        matches!(ports.as_slice(), [_, 700, 40_000..=40_009]),
        "the backend saw {seen:?}"
    );
    let _rule = nft(ctx, "tcp sport 800-801")?;
    let high = bound_to("127.0.0.1:800");
    let other = bound_to("127.0.0.1:801");
    let refused = Client::that(&high).get(vip)?;
    ensure!(refused.is_err(), "the rule does not hold: {refused:?}");
    let refused = Client::that(&other).get(BACKEND.parse()?)?;
    ensure!(
        refused.is_err(),
        "directly the rule does not hold: {refused:?}"
    );
    Ok(())
}

const IP_LOCAL_PORT_RANGE: i32 = 51;

/// A device that does not lead to the endpoint.
fn device(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let vip = VIP4.parse()?;
    let _far = far(ctx, || backend(FAR))?;
    let (lo, near) = (on_device("lo"), on_device("near0"));
    holds(FAR.parse()?, vip, Client::that(&lo), "SO_BINDTODEVICE lo")?;
    apart(vip, &[PLAIN, Client::that(&near)])?;
    Ok(())
}

/// The endpoint is in a VRF: who is not in it finds no way there.
fn vrf(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let vip: SocketAddr = VIP4.parse()?;
    let _far = far(ctx, || backend(FAR))?;
    let _vrf = shell(
        ctx,
        "ip link add red type vrf table 77\nip link set red up\nip link set near0 master red",
        "ip link del red",
    )?;
    let red = on_device("red");
    for (way, to) in [("directly", FAR.parse()?), ("through XLB", vip)] {
        Client::that(&red)
            .get(to)?
            .map_err(|e| anyhow!("in the VRF, {way}: {e}"))?;
        let outside = PLAIN.get(to)?;
        ensure!(outside.is_err(), "outside of the VRF, {way}: {outside:?}");
        let url = ctx.url(to);
        let curl = ["vrf", "exec", "red", "curl", "-sS", "-m", "20", &url];
        ctx.run_ok("ip", &curl)
            .with_context(|| format!("ip vrf exec, {way}"))?;
    }
    Ok(())
}

fn mark(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let vip = VIP4.parse()?;
    let _far = far(ctx, || backend(FAR))?;
    let forty_two = with(libc::SOL_SOCKET, libc::SO_MARK, 42);
    let seven = with(libc::SOL_SOCKET, libc::SO_MARK, 7);
    {
        let _rule = shell(
            ctx,
            "ip rule add fwmark 42 prohibit",
            "ip rule del fwmark 42 prohibit",
        )?;
        holds(
            FAR.parse()?,
            vip,
            Client::that(&forty_two),
            "ip rule fwmark",
        )?;
        let refused = Client::that(&forty_two).get(vip)?;
        ensure!(
            refused.as_ref().is_err_and(|e| e.contains("not_permitted")),
            "EACCES of a route: {refused:?}"
        );
    }
    {
        let _rule = nft(ctx, "meta mark 7")?;
        holds(FAR.parse()?, vip, Client::that(&seven), "nft mark")?;
    }
    apart(
        vip,
        &[PLAIN, Client::that(&forty_two), Client::that(&seven)],
    )?;
    Ok(())
}

fn class(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let tos = with(libc::SOL_IP, libc::IP_TOS, 0x20);
    let priority = with(libc::SOL_SOCKET, libc::SO_PRIORITY, 5);
    let ttl = with(libc::SOL_IP, libc::IP_TTL, 7);
    for (rule, client) in [
        ("ip dscp cs1", Client::that(&tos)),
        ("meta priority 0:5", Client::that(&priority)),
        ("ip ttl 7", Client::that(&ttl)),
    ] {
        let _rule = nft(ctx, rule)?;
        holds(BACKEND.parse()?, vip, client, rule)?;
        // A socket of IPv6 with a mapped address has these of IPv4.
        let refused = client.get(mapped(vip))?;
        ensure!(refused.is_err(), "{rule}, mapped: {refused:?}");
    }
    apart(
        vip,
        &[
            PLAIN,
            Client::that(&tos),
            Client::that(&priority),
            Client::that(&ttl),
        ],
    )?;
    Ok(())
}

fn class_v6(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND6)?;
    ctx.shop(&[BACKEND6])?;
    let vip = VIP6.parse()?;
    let _address = shell(
        ctx,
        "ip addr add fd00:77::5/128 dev lo nodad",
        "ip addr del fd00:77::5/128 dev lo",
    )?;
    let class = with(libc::SOL_IPV6, libc::IPV6_TCLASS, 0x20);
    let hops = with(libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, 7);
    let source = bound_to("[fd00:77::5]:0");
    for (rule, client) in [
        ("ip6 dscp cs1", Client::that(&class)),
        ("ip6 hoplimit 7", Client::that(&hops)),
        ("ip6 saddr fd00:77::5", Client::that(&source)),
    ] {
        let _rule = nft(ctx, rule)?;
        holds(BACKEND6.parse()?, vip, client, rule)?;
    }
    apart(
        vip,
        &[
            PLAIN,
            Client::that(&class),
            Client::that(&hops),
            Client::that(&source),
        ],
    )?;
    Ok(())
}

/// The user and the groups who made the socket: nft, iptables and routing rules.
fn owner(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let vip = VIP4.parse()?;
    let _far = far(ctx, || backend(FAR))?;
    let user = Client::owned_by(1000, 1001, 1002);
    for rule in ["meta skuid 1000", "meta skgid 1001"] {
        let _rule = nft(ctx, rule)?;
        holds(FAR.parse()?, vip, user, rule)?;
    }
    for rule in [
        "--uid-owner 1000",
        "--gid-owner 1001",
        "--gid-owner 1002 --suppl-groups",
    ] {
        let add = format!("iptables -A OUTPUT -p tcp --dport 8001 -m owner {rule} -j REJECT --reject-with tcp-reset");
        let _rule = shell(ctx, &add, "iptables -F OUTPUT")?;
        holds(FAR.parse()?, vip, user, rule)?;
    }
    {
        let _rule = shell(
            ctx,
            "ip rule add uidrange 1000-1000 prohibit",
            "ip rule del uidrange 1000-1000 prohibit",
        )?;
        holds(FAR.parse()?, vip, user, "ip rule uidrange")?;
    }
    let others = [
        PLAIN,
        user,
        Client::owned_by(1001, 1001, 1002),
        Client::owned_by(1000, 1002, 1002),
        Client::owned_by(1000, 1001, 1003),
    ];
    apart(vip, &others)?;
    Ok(())
}

/// A domain of Landlock that lets its processes connect to these ports: the one rule that is in nothing but
/// the credentials of who connects.
fn confine(ports: &[u16]) -> Result<()> {
    const CONNECT_TCP: u64 = 2;
    const NET_PORT: i32 = 2;
    // struct landlock_ruleset_attr: file system, network.
    let attr = [0u64, CONNECT_TCP];
    // SAFETY: the kernel reads as many bytes as are said to be there, and the system calls are about this thread.
    unsafe {
        let ruleset = libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), 16, 0);
        ensure!(
            ruleset >= 0,
            "landlock_create_ruleset: {}",
            nix::errno::Errno::last()
        );
        for port in ports {
            let rule = [CONNECT_TCP, u64::from(*port)];
            let ret = libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset,
                NET_PORT,
                rule.as_ptr(),
                0,
            );
            ensure!(ret == 0, "landlock_add_rule: {}", nix::errno::Errno::last());
        }
        let ret = libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0);
        ensure!(
            ret == 0,
            "landlock_restrict_self: {}",
            nix::errno::Errno::last()
        );
    }
    Ok(())
}

fn landlock(ctx: &mut Ctx) -> Result<()> {
    let server = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    // In its thread, so with its socket, and after it was made.
    let only_vip = |_: &Sock| confine(&[80]);
    let both = |_: &Sock| confine(&[80, 8001]);
    let (only_vip, both) = (Client::that(&only_vip), Client::that(&both));
    // Nothing is idle yet: a connection cannot be opened.
    let refused = only_vip.get(vip)?;
    ensure!(
        refused.as_ref().is_err_and(|e| e.contains("not_permitted")),
        "opened: {refused:?}"
    );
    // What others have left idle cannot be used.
    holds(BACKEND.parse()?, vip, only_vip, "Landlock")?;
    let before = server.accepted();
    for client in [PLAIN, both, PLAIN, both] {
        client.get(vip)?.map_err(|e| anyhow!("allowed: {e}"))?;
        let refused = only_vip.get(vip)?;
        ensure!(
            refused.as_ref().is_err_and(|e| e.contains("not_permitted")),
            "used: {refused:?}"
        );
    }
    ensure!(
        server.accepted() == before,
        "the connection was not shared by those who may"
    );
    Ok(())
}

/// Connections that nobody asked for yet are those of the client whose request had them opened.
fn opened_ahead(ctx: &mut Ctx) -> Result<()> {
    let server = backend(BACKEND)?;
    let vip = ctx.shop_with(&[BACKEND], "round_robin", "  pool: {min_idle: 3}\n")?;
    let marked = with(libc::SOL_SOCKET, libc::SO_MARK, 42);
    let client = Client::that(&marked);
    client.get(vip)?.map_err(|e| anyhow!("{e}"))?;
    // Beside the three that of the request itself, which was not idle when they were counted.
    let before = 4;
    ctx.until("connections opened ahead", || {
        Ok(server.accepted() >= before)
    })?;
    {
        // From now on a marked one cannot be opened: those that are there must be marked, and do.
        let _rule = nft(ctx, "meta mark 42 tcp flags & (syn | ack) == syn")?;
        let socks: Vec<Sock> = (0..3)
            .map(|_| {
                let sock = Sock::new(vip, SockFlag::empty())?;
                sock.timeouts(ctx.secs(10))?;
                marked(&sock)?;
                sock.connect(vip)?;
                sock.send_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
                Ok(sock)
            })
            .collect::<Result<_>>()?;
        for sock in &socks {
            let head = sock.recv_until("\r\n\r\n")?;
            ensure!(
                head.starts_with(b"HTTP/1.1 200"),
                "{:?}",
                String::from_utf8_lossy(&head)
            );
        }
    }
    // Every packet of theirs is marked.
    let _rule = nft(ctx, "meta mark 42 counter")?;
    let refused = client.get(vip)?;
    ensure!(
        refused.is_err(),
        "a connection opened ahead is not marked: {refused:?}"
    );
    ensure!(
        server.accepted() == before,
        "{} connections, {before} before",
        server.accepted()
    );
    Ok(())
}

/// What is set on a connected socket holds from the next request on.
fn set_between_requests(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    let get = |sock: &Sock| once(sock).map_err(|e| anyhow!("{e}"));
    let first = get(&sock)?;
    ensure!(get(&sock)? == first, "nothing was set");
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_MARK, 42),
        (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
        (libc::SOL_IP, libc::IP_TOS, 0x20),
        (libc::SOL_IP, libc::IP_TTL, 9),
        (libc::SOL_TCP, libc::TCP_KEEPIDLE, 99),
        (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 9000),
    ] {
        let before = get(&sock)?;
        sock.set(level, option, value)?;
        let after = get(&sock)?;
        ensure!(
            before != after,
            "option {level}.{option} is not that of the connection"
        );
        ensure!(
            get(&sock)? == after,
            "option {level}.{option}: the connection is not kept"
        );
    }
    sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"reno")?;
    let before = get(&sock)?;
    sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"cubic")?;
    ensure!(before != get(&sock)?, "TCP_CONGESTION");
    // As it was at first, on the first connection.
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_MARK, 0),
        (libc::SOL_IP, libc::IP_TOS, 0),
        (libc::SOL_IP, libc::IP_TTL, -1),
        (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 0),
    ] {
        sock.set(level, option, value)?;
    }
    sock.set(libc::SOL_SOCKET, libc::SO_PRIORITY, 0)?;
    ensure!(get(&sock)? != first, "TCP_KEEPIDLE cannot be unset");
    ensure!(
        PLAIN.get(vip)?.is_ok_and(|name| name == first),
        "the first connection is lost"
    );
    Ok(())
}

/// What cannot be given to another socket: such a one stays plain TCP, to which nobody answers at a VIP.
fn not_portable(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let _nowhere = shell(
        ctx,
        "ip route add prohibit 10.96.0.10",
        "ip route del prohibit 10.96.0.10",
    )?;
    let options: &[(i32, i32, &[u8])] = &[
        (libc::SOL_IP, libc::IP_OPTIONS, &[1, 1, 1, 0]),
        // struct sock_filter: BPF_RET, all.
        (libc::SOL_SOCKET, SO_ATTACH_FILTER, &[]),
    ];
    for (level, option, value) in options {
        let filter = [libc::sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: u32::MAX,
        }];
        let program = libc::sock_fprog {
            len: 1,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: a plain structure, read as bytes.
        let program = unsafe {
            std::slice::from_raw_parts(
                (&raw const program).cast::<u8>(),
                size_of::<libc::sock_fprog>(),
            )
        };
        let value = if value.is_empty() { program } else { value };
        let set = |sock: &Sock| sock.set_bytes(*level, *option, value);
        let before = |sock: &Sock| Ok(set(sock)?);
        let direct = Client::that(&before).get(BACKEND.parse()?)?;
        ensure!(direct.is_ok(), "directly: {direct:?}");
        let through = Client::that(&before).get(vip)?;
        ensure!(
            through.as_ref().is_err_and(|e| e.starts_with("connect")),
            "option {level}.{option}: {through:?}"
        );
        let sock = Sock::open(vip)?;
        let late = set(&sock);
        ensure!(
            late == Err(nix::errno::Errno::EOPNOTSUPP),
            "option {level}.{option} of a p-sock: {late:?}"
        );
        once(&sock).map_err(|e| anyhow!("{e}"))?;
    }
    Ok(())
}

const SO_ATTACH_FILTER: i32 = 26;

/// `xlbctl get pools` says what sets pools of one endpoint apart.
fn shown(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let special = |sock: &Sock| {
        sock.set(libc::SOL_SOCKET, libc::SO_MARK, 0x2a)?;
        sock.set(libc::SOL_SOCKET, libc::SO_PRIORITY, 3)?;
        sock.set(libc::SOL_TCP, libc::TCP_USER_TIMEOUT, 9000)?;
        sock.set_bytes(libc::SOL_TCP, libc::TCP_CONGESTION, b"reno")?;
        on_device("lo")(sock)?;
        bound_to("127.0.0.5:0")(sock)
    };
    for client in [
        PLAIN,
        Client::that(&special),
        Client::owned_by(1000, 1001, 1002),
    ] {
        client.get(vip)?.map_err(|e| anyhow!("{e}"))?;
    }
    let out = crate::xlb::xlbctl(&["get", "pools"])?;
    for text in [
        "mark=0x2a",
        "device=lo",
        "source=127.0.0.5",
        "priority=3",
        "congestion=reno",
        "user_timeout=9000ms",
        "uid=1000 gid=1001",
    ] {
        ensure!(out.stdout.contains(text), "no {text}: {}", out.all());
    }
    let pools = crate::xlb::json(&["get", "pools"])?;
    let marks: Vec<u64> = pools
        .as_array()
        .context("an array")?
        .iter()
        .filter_map(|pool| pool["identity"]["mark"].as_u64())
        .collect();
    ensure!(marks.contains(&0x2a) && marks.contains(&0), "{pools}");
    Ok(())
}
