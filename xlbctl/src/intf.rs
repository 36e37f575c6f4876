// SPDX-License-Identifier: GPL-2.0
//! The structures and tables of `kmod/include/xlb_intf.h` and `bpf/*.h`.
//!
//! bindgen checks size and offset of each at compile time.

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
    pub gauge: bool,
    pub help: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

const _: () = assert!(REASONS.len() == XLB_REASON_COUNT as usize);
const _: () = assert!(COUNTERS.len() == XLB_COUNTER_COUNT as usize);
// Beside them `picked`, which is no counter of users.
const _: () = assert!(STATS.len() * 8 + 8 == size_of::<xlb_stats>());

/// A structure that is its bytes: no padding, and every bit pattern is a value.
///
/// # Safety
///
/// The type must be `repr(C)`, without padding and without pointers.
pub unsafe trait Pod: Copy + Default {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the trait's contract: all bytes of the value are initialised.
        unsafe { std::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }

    /// From its first `size_of::<Self>()` bytes; `None` when there are fewer.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..size_of::<Self>())?;
        // SAFETY: the length was checked; the trait's contract makes any bytes a value.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! pod {
    ($($name:ident),* $(,)?) => {
        $(
            // SAFETY: the header pads explicitly and asserts the size.
            unsafe impl Pod for $name {}
        )*
    };
}

pod!(
    xlb_blob,
    xlb_index,
    xlb_vhost,
    xlb_route,
    xlb_condition,
    xlb_target,
    xlb_cluster,
    xlb_endpoint,
    xlb_vip_key,
    xlb_vip,
    xlb_cgroup_key,
    xlb_state,
    xlb_stats,
    xlb_ctl,
    xlb_search_state,
    xlb_needle,
    xlb_socket_info,
    xlb_pool_info,
);

// SAFETY: 4 + 4 + 16 + 32 bytes, then __u64 arrays: no padding.
unsafe impl Pod for xlb_info {}

// SAFETY: a plain integer.
unsafe impl Pod for u32 {}
// SAFETY: a plain integer.
unsafe impl Pod for u64 {}

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
        assert!(COUNTERS[XLB_COUNTER_PSOCKS as usize].gauge);
        assert_eq!(STATS[0].name, "requests");
    }

    #[test]
    fn addresses_map_both_ways() {
        for text in ["10.1.2.3", "fd00::1", "::1"] {
            let addr = text.parse().expect("an address");
            assert_eq!(unmapped(mapped(addr)), addr);
        }
    }
}
