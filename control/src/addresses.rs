// SPDX-License-Identifier: GPL-2.0
//! A set of addresses and ports, of which a cluster may have ten thousands.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use rustc_hash::FxHashSet;

/// IPv4 apart, in a quarter of the memory.
#[derive(Default)]
pub struct Addresses {
    v4: FxHashSet<u64>,
    v6: FxHashSet<SocketAddrV6>,
}

impl Addresses {
    /// Whether it is new.
    pub fn insert(&mut self, address: SocketAddr) -> bool {
        match address {
            SocketAddr::V4(v4) => self.v4.insert(word(v4)),
            SocketAddr::V6(v6) => self.v6.insert(v6),
        }
    }

    pub fn contains(&self, address: &SocketAddr) -> bool {
        match address {
            SocketAddr::V4(v4) => self.v4.contains(&word(*v4)),
            SocketAddr::V6(v6) => self.v6.contains(v6),
        }
    }
}

impl<'a> FromIterator<&'a SocketAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = &'a SocketAddr>>(addresses: I) -> Addresses {
        let mut all = Addresses::default();
        for address in addresses {
            all.insert(*address);
        }
        all
    }
}

fn word(address: SocketAddrV4) -> u64 {
    (u64::from(address.ip().to_bits()) << 16) | u64::from(address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_itself() {
        let texts = [
            "1.2.3.4:5",
            "1.2.3.4:6",
            "1.2.3.5:5",
            "[::ffff:1.2.3.4]:5",
            "[fe80::1%1]:5",
            "[fe80::1%2]:5",
        ];
        let all: Vec<SocketAddr> = texts.map(|text| text.parse().expect("an address")).into();
        for n in 0..all.len() {
            let mut some: Addresses = all[..n].iter().collect();
            for (m, address) in all.iter().enumerate() {
                assert_eq!(some.contains(address), m < n, "{address}");
            }
            assert!(some.insert(all[n]) && !some.insert(all[n]));
        }
    }
}
