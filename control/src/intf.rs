// SPDX-License-Identifier: GPL-2.0
//! The structures and tables of `kmod/include/xlb_intf.h` and `bpf/*.h`.
//!
//! bindgen checks size and offset of each at compile time.

use zerocopy::{FromBytes, Immutable, IntoBytes};

#[allow(
    non_camel_case_types,
    dead_code,
    clippy::all,
    reason = "generated: which of them apply depends on bindgen"
)]
mod raw {
    include!(concat!(env!("OUT_DIR"), "/intf.rs"));
}
pub use raw::*;

/// Why XLB itself answered or ended an exchange.
pub struct Reason {
    pub name: &'static str,
    pub status: u16,
    pub help: &'static str,
}

/// A number that the module or the BPF programs count.
pub struct Counter {
    pub name: &'static str,
    pub help: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// What a counter or gauge of the module says; nothing is known of a newer module's.
pub fn counter_help(name: &str) -> &'static str {
    let known = COUNTERS.iter().find(|counter| counter.name == name);
    known.map_or("of a newer module than this xlbctl", |counter| counter.help)
}

const _: () = assert!(REASONS.len() == XLB_REASON_COUNT as usize);
const _: () = assert!(COUNTERS.len() == XLB_COUNTER_COUNT as usize);
// Beside them `picked`, which is no counter of users.
const _: () = assert!(STATS.len() * 8 + 8 == size_of::<xlb_stats>());

/// A structure that is its bytes: no padding, and every bit pattern is a value.
pub trait Pod: FromBytes + IntoBytes + Immutable + Copy + Default {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// As [`Pod::from_bytes`], of bytes whose writer knows fewer fields, or more: what is lacking is 0.
    fn from_record(bytes: &[u8]) -> Self {
        let mut value = Self::default();
        let room = value.as_mut_bytes();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        value
    }

    /// From its first `size_of::<Self>()` bytes; `None` when there are fewer.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(value, _)| value)
    }
}

impl<T: FromBytes + IntoBytes + Immutable + Copy + Default> Pod for T {}

/// The text of a C array, up to its first 0.
pub fn text(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|c| c.to_ne_bytes()[0])
        .take_while(|b| *b != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The policy's address form: 16 bytes in network order, IPv4 mapped into IPv6.
pub fn mapped(addr: std::net::IpAddr) -> [u8; 16] {
    match addr {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    }
}

/// Back from [`mapped`].
pub fn unmapped(addr: [u8; 16]) -> std::net::IpAddr {
    std::net::IpAddr::V6(addr.into()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_from_the_headers() {
        assert_eq!(REASONS[XLB_REASON_NO_ROUTE as usize].name, "no_route");
        assert_eq!(REASONS[XLB_REASON_NO_ROUTE as usize].status, 404);
        assert_eq!(COUNTERS[XLB_COUNTER_ACCEPTED as usize].name, "accepted");
        assert_eq!(STATS[0].name, "requests");
    }

    /// The text of a header without comments, and what is one word apart is so by one space.
    fn meaning(header: &str) -> String {
        let mut text = String::new();
        let mut rest = header;
        while let Some((before, comment)) = rest.split_once("/*") {
            text += before;
            rest = comment.split_once("*/").expect("comments end").1;
        }
        text += rest;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A header that both sides of a boundary are built from does not change without its version.
    fn check(header: &str, versions: &str, name: &str, version: u32) {
        let hash = xlb_engine::hash::fnv1a(meaning(header).as_bytes());
        let recorded: Vec<(u32, &str)> = versions
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.trim().split_once(' '))
            .map(|(version, hash)| (version.parse().expect("a number"), hash))
            .collect();
        assert!(
            recorded.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{name}: a version is recorded once"
        );
        let now = format!("{hash:016x}");
        assert_eq!(
            recorded.last(),
            Some(&(version, now.as_str())),
            "the header has changed: raise {name}, and record `{name} {} {now}` in `versions`",
            version + 1
        );
    }

    #[test]
    fn headers_do_not_change_without_their_version() {
        check(
            include_str!("../../kmod/include/xlb_intf.h"),
            include_str!("../../kmod/include/versions"),
            "XLB_ABI",
            XLB_ABI,
        );
        check(
            include_str!("../../bpf/blob.h"),
            include_str!("../../bpf/versions"),
            "XLB_LAYOUT",
            XLB_LAYOUT,
        );
    }

    #[test]
    fn records_of_other_lengths() {
        let mut long = xlb_vip {
            service: 7,
            cgroup_levels: 1,
            flags: 2,
        }
        .bytes()
        .to_vec();
        long.extend([0xff; 9]);
        assert_eq!(xlb_vip::from_record(&long).flags, 2);
        let short = xlb_vip::from_record(&long[..6]);
        assert_eq!((short.service, short.cgroup_levels, short.flags), (7, 1, 0));
    }

    #[test]
    fn addresses_map_both_ways() {
        for text in ["10.1.2.3", "fd00::1", "::1"] {
            let addr = text.parse().expect("an address");
            assert_eq!(unmapped(mapped(addr)), addr);
        }
    }
}
