// SPDX-License-Identifier: GPL-2.0
//! Every socket option, on a TCP socket to the backend and on a p-sock, side by side.
//!
//! The sweep needs no list of options: it sets and gets every number of the four levels with the same values
//! on both, before and after the connect, and compares every errno and every byte. What differs is in
//! [`DIFFERENCES`], which is the README's table: a difference that is not there fails, and so does a row that
//! no difference was seen for.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::{ensure, Result};
use nix::libc;
use nix::sys::socket::SockFlag;

use crate::ctx::{Ctx, Scenario, VIP4, VIP6};
use crate::sock::{mapped, Sock};

pub const SCENARIOS: &[Scenario] = &[Scenario::xlb("options/sweep", sweep).within(240)];

pub const BACKEND4: &str = "127.0.1.1:8001";
const BACKEND6: &str = "[::1]:8001";

/// A difference that is meant: the option, what TCP does, what a p-sock does.
struct Difference {
    level: i32,
    option: i32,
    /// The TCP socket's result begins with this; so does the p-sock's with the next.
    tcp: &'static str,
    psock: &'static str,
}

const fn differs(level: i32, option: i32, tcp: &'static str, psock: &'static str) -> Difference {
    Difference {
        level,
        option,
        tcp,
        psock,
    }
}

/// The README's table "Socket options that differ" has the reasons.
const DIFFERENCES: &[Difference] = &[
    // TCP sizes the buffer at the connect; a p-sock shows what was set, or the size before that.
    differs(libc::SOL_SOCKET, libc::SO_SNDBUF, "", "16384"),
    // A device that does not lead there: no packet leaves from a p-sock.
    differs(libc::SOL_SOCKET, SO_BINDTOIFINDEX, "E", "ok"),
    // Without a connection: 536.
    differs(libc::SOL_TCP, libc::TCP_MAXSEG, "", "536"),
    // Kept, and not rounded by a handshake.
    differs(libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, "65536", ""),
    differs(libc::SOL_TCP, libc::TCP_MD5SIG, "EINVAL", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, TCP_MD5SIG_EXT, "EINVAL", "EOPNOTSUPP"),
    // Not to be given to another socket: a p-sock cannot have them.
    differs(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, "", "EOPNOTSUPP"),
    differs(libc::SOL_SOCKET, libc::SO_ATTACH_BPF, "", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, TCP_AO_ADD_KEY, "", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, TCP_AO_INFO, "", "EOPNOTSUPP"),
    differs(libc::SOL_IP, libc::IP_OPTIONS, "", "EOPNOTSUPP"),
    differs(libc::SOL_IP, libc::IP_OPTIONS, "", "[0]"),
    differs(libc::SOL_IP, libc::IP_IPSEC_POLICY, "", "EOPNOTSUPP"),
    differs(libc::SOL_IP, libc::IP_XFRM_POLICY, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, IPV6_2292PKTOPTIONS, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, IPV6_FLOWLABEL_MGR, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_IPSEC_POLICY, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_XFRM_POLICY, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_HOPOPTS, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_HOPOPTS, "[8]", "[0]"),
    differs(libc::SOL_IPV6, libc::IPV6_RTHDRDSTOPTS, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_RTHDRDSTOPTS, "[8]", "[0]"),
    differs(libc::SOL_IPV6, libc::IPV6_RTHDR, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_DSTOPTS, "", "EOPNOTSUPP"),
    differs(libc::SOL_IPV6, libc::IPV6_DSTOPTS, "[8]", "[0]"),
    differs(libc::SOL_TCP, libc::TCP_REPAIR, "ok", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, libc::TCP_REPAIR, "EINVAL", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, libc::TCP_REPAIR, "1", "0"),
    // A socket in repair mode does not become a p-sock.
    differs(libc::SOL_TCP, libc::TCP_REPAIR, "ok", "ENETUNREACH"),
    differs(libc::SOL_TCP, libc::TCP_ULP, "E", "EOPNOTSUPP"),
    differs(libc::SOL_TCP, libc::TCP_ULP, "[0]", "[16] 78 6c 62 00"),
    differs(libc::SOL_TCP, TCP_ZEROCOPY_RECEIVE, "[64]", "EOPNOTSUPP"),
    // A p-sock has no route.
    differs(libc::SOL_IP, libc::IP_MTU, "655", "ENOTCONN"),
    differs(libc::SOL_IPV6, libc::IPV6_MTU, "655", "ENOTCONN"),
    differs(libc::SOL_IPV6, IPV6_PATHMTU, "[32]", "ENOTCONN"),
    // TCP answers with the port, and a p-sock takes none.
    differs(libc::SOL_IP, IP_PROTOCOL, "", "0"),
    // What comes after it has succeeded: the socket is one of IPv4 then.
    differs(libc::SOL_IPV6, libc::IPV6_ADDRFORM, "ok", "EBUSY"),
    differs(
        libc::SOL_IPV6,
        libc::IPV6_ADDRFORM,
        "EADDRNOTAVAIL",
        "EBUSY",
    ),
    differs(libc::SOL_IPV6, libc::IPV6_ADDRFORM, "EOPNOTSUPP", "10"),
    differs(libc::SOL_IPV6, libc::IPV6_ADDRFORM, "ENOPROTOOPT", "EINVAL"),
];

const SO_BINDTOIFINDEX: i32 = 62;
const TCP_ZEROCOPY_RECEIVE: i32 = 35;
const TCP_MD5SIG_EXT: i32 = 32;
const IP_PROTOCOL: i32 = 52;
const IPV6_PATHMTU: i32 = 61;
const TCP_AO_ADD_KEY: i32 = 38;
const TCP_AO_INFO: i32 = 40;
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_FLOWLABEL_MGR: i32 = 32;

/// What is another value on each socket: only length and errno are compared.
const VOLATILE: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_COOKIE),
    (libc::SOL_SOCKET, libc::SO_MEMINFO),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
    (libc::SOL_SOCKET, libc::SO_PEERNAME),
    (libc::SOL_TCP, libc::TCP_INFO),
    (libc::SOL_TCP, libc::TCP_CC_INFO),
    (libc::SOL_TCP, libc::TCP_TIMESTAMP),
];

/// `(level, name, last number)`
const LEVELS: &[(i32, &str, i32)] = &[
    (libc::SOL_SOCKET, "SOL_SOCKET", 90),
    (libc::SOL_TCP, "SOL_TCP", 60),
    (libc::SOL_IP, "SOL_IP", 60),
    (libc::SOL_IPV6, "SOL_IPV6", 85),
];

/// These belong to netfilter's tables.
fn is_foreign(level: i32, option: i32) -> bool {
    level == libc::SOL_IPV6 && (64..=69).contains(&option)
}

/// What is set, in this order: ints, then a `timeval` or `linger`, then a name.
fn values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [1i32, 0, 2, 1000, 100_000, -1, 1]
        .iter()
        .map(|v| v.to_ne_bytes().to_vec())
        .collect();
    values.push([1u64.to_ne_bytes(), 500u64.to_ne_bytes()].concat());
    values.push(b"reno".to_vec());
    values.push(Vec::new());
    values
}

/// One socket, driven with one option; what came of it, step by step.
struct Drive {
    sock: Sock,
    level: i32,
    option: i32,
    steps: Vec<(String, String)>,
}

impl Drive {
    fn run(to: SocketAddr, level: i32, option: i32, before: bool) -> Result<Vec<(String, String)>> {
        let mut drive = Self {
            sock: Sock::new(to, SockFlag::empty())?,
            level,
            option,
            steps: Vec::new(),
        };
        if before {
            drive.set_all("before connect");
        }
        drive.connect(to);
        if before {
            drive.get("after connect");
        } else {
            drive.set_all("after connect");
        }
        Ok(drive.steps)
    }

    fn note(&mut self, what: String, result: String) {
        self.steps.push((what, result));
    }

    fn get(&mut self, what: &str) {
        let result = match self.sock.get_bytes(self.level, self.option, 256) {
            Err(errno) => errno.to_string(),
            Ok(bytes) if VOLATILE.contains(&(self.level, self.option)) => {
                format!("[{}]", bytes.len())
            }
            Ok(bytes) => shown(&bytes),
        };
        self.note(format!("get {what}"), result);
    }

    fn set_all(&mut self, when: &str) {
        self.get(&format!("{when} as it is"));
        for value in values() {
            let what = format!("{when} {}", shown(&value));
            let result = match self.sock.set_bytes(self.level, self.option, &value) {
                Ok(()) => "ok".to_owned(),
                Err(errno) => errno.to_string(),
            };
            self.note(format!("set {what}"), result);
            self.get(&what);
        }
    }

    fn connect(&mut self, to: SocketAddr) {
        let result = match self.sock.connect(to) {
            Ok(()) => "ok".to_owned(),
            Err(errno) => errno.to_string(),
        };
        self.note("connect".to_owned(), result);
    }
}

/// A value as a message shows it.
fn shown(bytes: &[u8]) -> String {
    match <[u8; 4]>::try_from(bytes) {
        Ok(int) => i32::from_ne_bytes(int).to_string(),
        Err(_) => {
            let mut text = format!("[{}]", bytes.len());
            for byte in bytes {
                let _ = write!(text, " {byte:02x}");
            }
            text
        }
    }
}

/// Accepts connections, and keeps the latest open.
fn accept_all(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        let mut kept = VecDeque::new();
        for stream in listener.incoming().flatten() {
            kept.push_back(stream);
            if kept.len() > 64 {
                kept.pop_front();
            }
        }
    });
    Ok(())
}

fn sweep(ctx: &mut Ctx) -> Result<()> {
    accept_all(BACKEND4)?;
    accept_all(BACKEND6)?;
    ctx.shop(&[BACKEND4])?;
    let (four, vip4): (SocketAddr, SocketAddr) = (BACKEND4.parse()?, VIP4.parse()?);
    let mut found = Found {
        seen: vec![false; DIFFERENCES.len()],
        ..Found::default()
    };
    found.compare(four, vip4)?;
    found.compare(BACKEND6.parse()?, VIP6.parse()?)?;
    // IPv4 over sockets of IPv6.
    found.compare(mapped(four), mapped(vip4))?;
    ensure!(found.steps > 15_000, "only {} steps", found.steps);
    for (row, seen) in DIFFERENCES.iter().zip(found.seen) {
        if !seen {
            found.unexpected.push(format!(
                "level {} option {}: no more {:?} and {:?}",
                row.level, row.option, row.tcp, row.psock
            ));
        }
    }
    ensure!(
        found.unexpected.is_empty(),
        "{}",
        found.unexpected.join("\n")
    );
    Ok(())
}

/// What the sweep saw.
#[derive(Default)]
struct Found {
    steps: usize,
    /// Rows of [`DIFFERENCES`].
    seen: Vec<bool>,
    unexpected: Vec<String>,
}

impl Found {
    fn compare(&mut self, backend: SocketAddr, vip: SocketAddr) -> Result<()> {
        for &(level, name, last) in LEVELS {
            for option in (1..=last).filter(|option| !is_foreign(level, *option)) {
                for before in [true, false] {
                    let tcp = Drive::run(backend, level, option, before)?;
                    let psock = Drive::run(vip, level, option, before)?;
                    self.steps += tcp.len();
                    for ((what, tcp), (_, psock)) in tcp.iter().zip(&psock) {
                        if tcp != psock {
                            self.differs((level, option), tcp, psock, || {
                                format!("to {vip}: {name} {option}, {what}")
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn differs(
        &mut self,
        option: (i32, i32),
        tcp: &str,
        psock: &str,
        what: impl FnOnce() -> String,
    ) {
        let row = DIFFERENCES.iter().position(|row| {
            (row.level, row.option) == option
                && tcp.starts_with(row.tcp)
                && psock.starts_with(row.psock)
        });
        match row.and_then(|row| self.seen.get_mut(row)) {
            Some(seen) => *seen = true,
            None => self
                .unexpected
                .push(format!("{}: TCP {tcp}, p-sock {psock}", what())),
        }
    }
}
