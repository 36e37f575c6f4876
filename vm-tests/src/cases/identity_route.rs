// SPDX-License-Identifier: GPL-2.0
//! What a client may be that a plain socket is not: without a gateway, from an address that the host does not have,
//! with a segment size and a class of its own.

use std::net::SocketAddr;

use anyhow::{anyhow, ensure, Result};
use nix::libc;
use nix::sys::socket::{bind, SockaddrStorage};

use crate::bpf;
use crate::cases::identity::{
    apart, backend, far, holds, nft, shell, with, Client, Undo, BACKEND, BACKEND6, FAR, PLAIN,
};
use crate::ctx::{Ctx, Scenario, VIP4, VIP6};
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("identity/no_gateway", no_gateway),
    Scenario::xlb("identity/free_bind", free_bind),
    Scenario::xlb("identity/transparent", transparent),
    Scenario::xlb("identity/segment_size", segment_size),
    Scenario::xlb("identity/v1_class", v1_class),
    Scenario::xlb("identity/v1_priority", v1_priority),
];

const IPV6_FREEBIND: i32 = 78;

/// Sets a flag that lets the socket have it, and binds an address that the host does not have.
fn from_elsewhere(level: i32, option: i32, text: &str) -> impl Fn(&Sock) -> Result<()> + Sync {
    let address: SocketAddr = text.parse().unwrap_or(SocketAddr::from(([0; 4], 0)));
    move |sock: &Sock| {
        let plain = bind(sock.raw(), &SockaddrStorage::from(address));
        ensure!(plain.is_err(), "the host has {address}");
        sock.set(level, option, 1)?;
        Ok(bind(sock.raw(), &SockaddrStorage::from(address))?)
    }
}

/// The backend sees the address directly and through XLB, and others have connections of their own.
fn seen_as(direct: SocketAddr, vip: SocketAddr, client: Client, address: &str) -> Result<()> {
    PLAIN.get(vip)?.map_err(|e| anyhow!("a plain one: {e}"))?;
    for (way, to) in [("directly", direct), ("through XLB", vip)] {
        let seen = client.get(to)?.map_err(|e| anyhow!("{way}: {e}"))?;
        let seen: SocketAddr = seen.parse()?;
        ensure!(
            seen.ip().to_string() == address,
            "{way}, it is seen as {seen}"
        );
    }
    apart(vip, &[PLAIN, client])?;
    Ok(())
}

/// `SO_DONTROUTE`: an endpoint behind a gateway is out of reach.
fn no_gateway(ctx: &mut Ctx) -> Result<()> {
    const BEHIND: &str = "10.78.0.2:8001";
    ctx.shop(&[BEHIND])?;
    let ctx = &*ctx;
    let _far = far(ctx, || {
        let run = std::process::Command::new("ip")
            .args(["addr", "add", "10.78.0.2/32", "dev", "far0"])
            .status()?;
        ensure!(run.success(), "ip addr add");
        backend(BEHIND)
    })?;
    ctx.run_ok("ip", &["route", "add", "10.78.0.2", "via", "10.77.0.2"])?;
    let near_only = with(libc::SOL_SOCKET, libc::SO_DONTROUTE, 1);
    let client = Client::that(&near_only);
    holds(BEHIND.parse()?, VIP4.parse()?, client, "SO_DONTROUTE")
}

/// `IPV6_FREEBIND`, and a whole network that is delivered here: with IPv4, one that is bound so cannot connect.
fn free_bind(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND6)?;
    ctx.shop(&[BACKEND6])?;
    let _here = shell(
        ctx,
        "ip -6 route add local fd00:79::/64 dev lo",
        "ip -6 route del local fd00:79::/64 dev lo",
    )?;
    let free = from_elsewhere(libc::SOL_IPV6, IPV6_FREEBIND, "[fd00:79::5]:0");
    let client = Client::that(&free);
    seen_as(BACKEND6.parse()?, VIP6.parse()?, client, "fd00:79::5")
}

/// `IP_TRANSPARENT`: whoever speaks for others, from their address; what comes back for it is delivered here.
fn transparent(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let _far = far(ctx, || backend(FAR))?;
    let _ways = shell(
        ctx,
        "ip -n far route add 10.79.0.9 via 10.77.0.1\n\
         ip rule add iif near0 lookup 100\n\
         ip route add local 10.79.0.9 dev lo table 100",
        "ip rule del iif near0 lookup 100; ip route flush table 100",
    )?;
    let other = from_elsewhere(libc::SOL_IP, libc::IP_TRANSPARENT, "10.79.0.9:0");
    let client = Client::that(&other);
    seen_as(FAR.parse()?, VIP4.parse()?, client, "10.79.0.9")
}

/// `TCP_MAXSEG`, as the first packet says it.
fn segment_size(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let small = with(libc::SOL_TCP, libc::TCP_MAXSEG, 600);
    let other = with(libc::SOL_TCP, libc::TCP_MAXSEG, 700);
    {
        let _rule = nft(ctx, "tcp flags syn tcp option maxseg size 600")?;
        holds(BACKEND.parse()?, vip, Client::that(&small), "maxseg")?;
    }
    apart(vip, &[PLAIN, Client::that(&small), Client::that(&other)])?;
    Ok(())
}

/// Its socket is in the cgroup of [`v1`].
const MEMBER: Client = Client {
    joins: Some("/run/v1/ruled/tasks"),
    ..PLAIN
};

/// A cgroup of the first version; `set` is a line of shell that writes to its files.
fn v1<'a>(ctx: &'a Ctx, controller: &str, set: &str) -> Result<Undo<'a>> {
    shell(
        ctx,
        &format!(
            "mkdir -p /run/v1\n\
             mount -t cgroup -o {controller} none /run/v1\n\
             mkdir /run/v1/ruled\n\
             {set}"
        ),
        "for i in 1 2 3 4 5; do rmdir /run/v1/ruled && break; sleep 0.1; done; umount /run/v1",
    )
}

/// A class of net_cls: nft, iptables and tc match it.
fn v1_class(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let set = "echo 0x100001 > /run/v1/ruled/net_cls.classid";
    let _cgroup = v1(ctx, "net_cls", set)?;
    {
        let _rule = nft(ctx, "meta cgroup 0x100001")?;
        holds(BACKEND.parse()?, vip, MEMBER, "meta cgroup")?;
    }
    apart(vip, &[PLAIN, MEMBER])?;
    Ok(())
}

/// A priority of net_prio, which a device gives to packets that have none; a program at the device reads it.
fn v1_priority(ctx: &mut Ctx) -> Result<()> {
    ctx.shop(&[FAR])?;
    let ctx = &*ctx;
    let vip = VIP4.parse()?;
    let _far = far(ctx, || backend(FAR))?;
    let set = "echo 'near0 5' > /run/v1/ruled/net_prio.ifpriomap";
    let _cgroup = v1(ctx, "net_prio", set)?;
    {
        let device = std::fs::read_to_string("/sys/class/net/near0/ifindex")?;
        let _rule = bpf::attach_to_device(device.trim().parse()?, &bpf::drop_priority(5))?;
        holds(FAR.parse()?, vip, MEMBER, "net_prio")?;
    }
    apart(vip, &[PLAIN, MEMBER])?;
    Ok(())
}
