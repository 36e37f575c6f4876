// SPDX-License-Identifier: GPL-2.0
//! What a program may ask of a connected socket besides bytes: names, options, states, refusals.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{getrlimit, Resource};
use nix::sys::socket::{
    bind, getsockopt, setsockopt, sockopt, MsgFlags, SockFlag, SockaddrStorage,
};

use crate::ctx::{Ctx, Scenario, VIP4, VIP6};
use crate::script::Logging;
use crate::sock::{mapped, Sock};
use crate::xlb;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("socket/connect_at_once", connect_at_once),
    Scenario::xlb("socket/names", names),
    Scenario::xlb("socket/ipv6", ipv6),
    Scenario::xlb("socket/ipv4_mapped", ipv4_mapped),
    Scenario::xlb("socket/other_connects_untouched", other_connects_untouched),
    Scenario::http("socket/connect_twice", connect_twice),
    Scenario::xlb("socket/bound_before_connect", bound_before_connect),
    Scenario::http("socket/disconnect_and_reconnect", disconnect_and_reconnect),
    Scenario::http("socket/options", options),
    Scenario::xlb("socket/refused_options", refused_options),
    Scenario::http("socket/fast_open", fast_open),
    Scenario::xlb("socket/listed", listed),
    Scenario::xlb("socket/ten_thousand", ten_thousand).within(180),
];

const BACKEND: &str = "127.0.1.1:8001";
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// One GET over a raw socket.
fn get(sock: &Sock) -> Result<()> {
    sock.send_all(GET)?;
    let answer = sock.recv_until("GET /x\n")?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{:?}",
        crate::http::lossy(&answer)
    );
    Ok(())
}

fn connect_at_once(ctx: &mut Ctx) -> Result<()> {
    // No backend listens, and nothing routes to the VIP: only XLB can make this succeed.
    let vip = ctx.shop(&[BACKEND])?;
    let begin = Instant::now();
    let blocking = Sock::new(vip, SockFlag::empty())?;
    blocking.connect(vip).context("blocking connect")?;
    let nonblocking = Sock::new(vip, SockFlag::SOCK_NONBLOCK)?;
    nonblocking
        .connect(vip)
        .context("non-blocking connect: must be 0 at once")?;
    ensure!(
        begin.elapsed() < ctx.secs(1),
        "connects took {:?}",
        begin.elapsed()
    );
    for sock in [&blocking, &nonblocking] {
        ensure!(
            getsockopt(sock.fd(), sockopt::SocketError)? == 0,
            "SO_ERROR"
        );
    }
    ensure!(
        matches!(nonblocking.recv(10, MsgFlags::empty()), Err(Errno::EAGAIN)),
        "nothing to read yet"
    );
    Ok(())
}

fn names(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let socks: Vec<Sock> = (0..200).map(|_| Sock::open(vip)).collect::<Result<_>>()?;
    let first = socks.first().context("socks")?;
    ensure!(first.peer()? == vip, "getpeername {}", first.peer()?);
    let local = first.local()?;
    ensure!(local.is_ipv4() && local != vip, "getsockname {local}");
    get(first)?;
    ensure!(
        first.peer()? == vip && first.local()? == local,
        "names changed with a request"
    );
    // No ephemeral port is taken: TCP's own count of sockets does not grow with p-sockets.
    let in_use = sockstat("TCP:", "inuse")?;
    ensure!(
        in_use < 100,
        "{in_use} TCP sockets in the tables with {} p-sockets",
        socks.len()
    );
    Ok(())
}

/// A figure of /proc/net/sockstat.
fn sockstat(line: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text
        .lines()
        .find(|l| l.starts_with(line))
        .context("sockstat")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.next();
    Ok(words.next().context("sockstat")?.parse()?)
}

fn ipv6(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start("[::1]:8001")?;
    ctx.shop(&["[::1]:8001"])?;
    let vip: SocketAddr = VIP6.parse()?;
    let sock = Sock::open(vip)?;
    ensure!(sock.peer()? == vip, "getpeername {}", sock.peer()?);
    ensure!(sock.local()?.is_ipv6(), "getsockname {}", sock.local()?);
    get(&sock)?;
    get(&sock)?;
    // An IPv4 client may well be served by an IPv6 endpoint.
    get(&Sock::open(VIP4.parse()?)?)?;
    ensure!(backend.count() == 3, "{} requests", backend.count());
    Ok(())
}

fn ipv4_mapped(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = mapped(ctx.shop(&[BACKEND])?);
    let sock = Sock::open(vip)?;
    ensure!(sock.peer()? == vip, "getpeername {}", sock.peer()?);
    ensure!(sock.local()?.is_ipv6(), "getsockname {}", sock.local()?);
    get(&sock)?;
    get(&sock)?;
    ensure!(backend.count() == 2, "{} requests", backend.count());
    Ok(())
}

fn other_connects_untouched(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let _six = Logging::start("[::1]:8001")?;
    ctx.shop(&[BACKEND])?;
    for address in [BACKEND, "[::1]:8001"] {
        get(&Sock::open(address.parse()?)?)?;
    }
    // Another port of the VIP is nobody's: the packet has no route.
    let other: SocketAddr = "10.96.0.10:81".parse()?;
    let sock = Sock::new(other, SockFlag::empty())?;
    match sock.connect(other) {
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ECONNREFUSED) => {}
        result => bail!("connect to VIP:81: {result:?}"),
    }
    let refused: SocketAddr = "127.0.1.1:9".parse()?;
    ensure!(
        Sock::new(refused, SockFlag::empty())?.connect(refused) == Err(Errno::ECONNREFUSED),
        "closed port"
    );
    // UDP to the VIP is nobody's either.
    let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
    ensure!(
        udp.connect(VIP4).is_err() || udp.send(b"x").is_err(),
        "UDP to the VIP"
    );
    let accepted = xlb::counters()?.get("accepted")?;
    ensure!(accepted == 0, "{accepted} connects taken over");
    Ok(())
}

fn connect_twice(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    ensure!(sock.connect(vip) == Err(Errno::EISCONN), "second connect");
    get(&sock)?;
    ensure!(
        sock.connect(vip) == Err(Errno::EISCONN),
        "connect after a request"
    );
    get(&sock)
}

/// As [`get`]; what there is then is printed when it fails.
fn answered(sock: &Sock) -> Result<()> {
    get(sock).inspect_err(|_| xlb::explain())
}

fn bound_before_connect(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::new(vip, SockFlag::empty())?;
    let own: SocketAddr = "127.0.2.2:40123".parse()?;
    bind(sock.raw(), &SockaddrStorage::from(own))?;
    sock.connect(vip)?;
    sock.timeouts(ctx.secs(20))?;
    ensure!(sock.local()? == own, "getsockname {}", sock.local()?);
    answered(&sock).context("bound to an address and a port")?;
    drop(sock);
    // The port must be free again, whoever had the socket.
    let again = Sock::new(vip, SockFlag::empty())?;
    setsockopt(again.fd(), sockopt::ReuseAddr, &true)?;
    bind(again.raw(), &SockaddrStorage::from(own)).context("bind the same port after close")?;
    // A port without an address: the name gets one, the socket's place among the bound ones does not.
    // The connection has the port too: each time another one, as with TCP, where the last one's may be in use for a while.
    for (any, vip, shown) in [
        ("0.0.0.0:0", vip, "127.0.0.1:0"),
        ("[::]:0", VIP6.parse()?, "[::1]:0"),
    ] {
        let mut any: SocketAddr = any.parse()?;
        let mut shown: SocketAddr = shown.parse()?;
        for port in 40200..40220 {
            any.set_port(port);
            shown.set_port(port);
            let sock = Sock::new(vip, SockFlag::empty())?;
            bind(sock.raw(), &SockaddrStorage::from(any)).with_context(|| format!("bind {any}"))?;
            sock.connect(vip)?;
            sock.timeouts(ctx.secs(20))?;
            ensure!(sock.local()? == shown, "getsockname {}", sock.local()?);
            answered(&sock).with_context(|| format!("bound to {any}"))?;
            let other = Sock::new(vip, SockFlag::empty())?;
            ensure!(
                bind(other.raw(), &SockaddrStorage::from(any)) == Err(Errno::EADDRINUSE),
                "{any} is taken"
            );
        }
    }
    // Bound to an address that is none to send from, and then connected elsewhere as plain TCP.
    for port in 40220..40240 {
        let many = SocketAddr::from(([224, 0, 0, 1], port));
        let sock = Sock::new(vip, SockFlag::empty())?;
        bind(sock.raw(), &SockaddrStorage::from(many)).context("bind to a multicast address")?;
        sock.connect(vip)?;
        sock.timeouts(ctx.secs(20))?;
        answered(&sock).context("bound to a multicast address")?;
        sock.disconnect().context("connect(AF_UNSPEC)")?;
        sock.connect(BACKEND.parse()?)
            .context("to the backend itself")?;
        answered(&sock).context("from the backend itself")?;
    }
    Ok(())
}

fn disconnect_and_reconnect(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    get(&sock)?;
    sock.disconnect().context("connect(AF_UNSPEC)")?;
    ensure!(
        sock.peer() == Err(Errno::ENOTCONN),
        "getpeername after disconnect: {:?}",
        sock.peer()
    );
    ensure!(sock.send(GET).is_err(), "write after disconnect");
    sock.connect(vip).context("connect again")?;
    get(&sock)?;
    // To somewhere else entirely: plain TCP now.
    sock.disconnect().context("connect(AF_UNSPEC)")?;
    let plain: SocketAddr = BACKEND.parse()?;
    sock.connect(plain)
        .context("connect to the backend itself")?;
    ensure!(sock.peer()? == plain, "getpeername {}", sock.peer()?);
    get(&sock)
}

fn options(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    let fd = sock.fd();
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    ensure!(getsockopt(fd, sockopt::TcpNoDelay)?, "TCP_NODELAY");
    setsockopt(fd, sockopt::KeepAlive, &true)?;
    ensure!(getsockopt(fd, sockopt::KeepAlive)?, "SO_KEEPALIVE");
    setsockopt(fd, sockopt::TcpKeepIdle, &1)?;
    setsockopt(fd, sockopt::TcpKeepInterval, &1)?;
    setsockopt(
        fd,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 1,
        },
    )?;
    for (option, value) in [
        (libc::TCP_QUICKACK, 1),
        (libc::TCP_CORK, 1),
        (libc::TCP_CORK, 0),
        (libc::TCP_USER_TIMEOUT, 5000),
    ] {
        sock.set(libc::IPPROTO_TCP, option, value)
            .with_context(|| format!("TCP option {option}"))?;
    }
    for (option, value) in [
        (libc::SO_RCVBUF, 65536),
        (libc::SO_SNDBUF, 65536),
        (libc::SO_RCVLOWAT, 1),
        (libc::SO_PRIORITY, 1),
    ] {
        sock.set(libc::SOL_SOCKET, option, value)
            .with_context(|| format!("socket option {option}"))?;
    }
    sock.set(libc::IPPROTO_IP, libc::IP_TOS, 0x10)
        .context("IP_TOS")?;
    // TCP_INFO: state is its first byte, 1 is TCP_ESTABLISHED.
    let mut info = [0u8; 256];
    let mut length = info.len() as u32;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            sock.raw(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(result).context("TCP_INFO")?;
    ensure!(
        info.first() == Some(&1),
        "TCP_INFO state {:?}",
        info.first()
    );
    get(&sock)?;
    // SO_KEEPALIVE must not start a timer on a socket that has no route: give it time to fire.
    std::thread::sleep(Duration::from_millis(1500));
    get(&sock)
}

fn refused_options(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    let ulp = b"tls";
    // SAFETY: the kernel reads the three bytes.
    let result = unsafe {
        libc::setsockopt(
            sock.raw(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            ulp.as_ptr().cast(),
            ulp.len() as u32,
        )
    };
    ensure!(result == -1, "TCP_ULP was taken");
    const TCP_REPAIR: i32 = 19;
    ensure!(
        sock.set(libc::IPPROTO_TCP, TCP_REPAIR, 1).is_err(),
        "TCP_REPAIR was taken"
    );
    get(&sock)?;
    // IPV6_ADDRFORM would turn the socket into an IPv4 one and put TCP's own operations back.
    let six = Sock::open(mapped(vip))?;
    const IPV6_ADDRFORM: i32 = 1;
    ensure!(
        six.set(libc::IPPROTO_IPV6, IPV6_ADDRFORM, libc::AF_INET)
            .is_err(),
        "IPV6_ADDRFORM was taken"
    );
    get(&six)
}

fn fast_open(ctx: &mut Ctx) -> Result<()> {
    let _backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    // TCP_FASTOPEN_CONNECT: the first write carries the data.
    let sock = Sock::new(vip, SockFlag::empty())?;
    sock.set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    sock.connect(vip)?;
    sock.timeouts(ctx.secs(20))?;
    get(&sock)?;
    // MSG_FASTOPEN: connect and write in one call. An error the program can fall back from is fine, a hang is not.
    let sock = Sock::new(vip, SockFlag::empty())?;
    sock.timeouts(ctx.secs(20))?;
    let address = SockaddrStorage::from(vip);
    match nix::sys::socket::sendto(
        sock.raw(),
        GET,
        &address,
        MsgFlags::from_bits_retain(libc::MSG_FASTOPEN),
    ) {
        Ok(sent) => {
            ensure!(sent == GET.len(), "MSG_FASTOPEN sent {sent}");
            sock.recv_until("GET /x\n")?;
        }
        Err(Errno::EOPNOTSUPP) => {
            sock.connect(vip)?;
            get(&sock)?;
        }
        Err(error) => bail!("MSG_FASTOPEN: {error}"),
    }
    Ok(())
}

fn listed(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let idle = Sock::open(vip)?;
    get(&idle)?;
    let busy = Sock::open(vip)?;
    busy.send_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ctx.until("the busy one's request", || Ok(backend.count() == 2))?;
    let sockets = xlb::json(&["get", "sockets"])?;
    let text = sockets.to_string();
    let list = sockets
        .as_array()
        .or_else(|| sockets.get("sockets").and_then(|s| s.as_array()))
        .context("an array")?;
    ensure!(list.len() == 2, "{} sockets: {text}", list.len());
    let pid = std::process::id();
    for wanted in [
        format!("{pid}"),
        "shop".to_owned(),
        "t-socket-listed".to_owned(),
        BACKEND.to_owned(),
    ] {
        ensure!(text.contains(&wanted), "{wanted} is not in {text}");
    }
    let table = xlb::xlbctl(&["get", "sockets"])?;
    ensure!(
        table.code == Some(0) && table.stdout.lines().count() == 3,
        "{}",
        table.all()
    );
    Ok(())
}

fn ten_thousand(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(limit > 10_100, "file limit {limit}");
    let mut socks = Vec::with_capacity(10_000);
    for number in 0..10_000 {
        let sock = Sock::open(vip).with_context(|| format!("socket {number}"))?;
        if number % 50 == 0 {
            get(&sock)?;
        }
        socks.push(sock);
    }
    let counters = xlb::counters()?;
    let (psocks, bytes) = (counters.get("psocks")?, counters.get("psock_bytes")?);
    ensure!(psocks == 10_000, "psocks {psocks}");
    println!(
        "{} bytes of module memory for each idle p-sock",
        bytes / psocks
    );
    ensure!(
        bytes / psocks < 2048,
        "{} bytes for each idle p-sock",
        bytes / psocks
    );
    ensure!(
        counters.get("isocks")? < 100,
        "{} connections for 200 requests in turn",
        counters.get("isocks")?
    );
    for sock in socks.iter().step_by(97) {
        get(sock)?;
    }
    ensure!(backend.count() == 200 + 104, "{} requests", backend.count());
    drop(socks);
    ctx.until(
        "p-sockets gone",
        || Ok(xlb::counters()?.get("psocks")? == 0),
    )?;
    ensure!(
        xlb::counters()?.get("psock_bytes")? == 0,
        "memory of p-sockets left"
    );
    Ok(())
}
