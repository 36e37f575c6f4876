// SPDX-License-Identifier: GPL-2.0
//! Tables by which a hash chooses an endpoint, so that few requests go elsewhere when an endpoint comes or goes.
//!
//! | table | as of | takes |
//! |---|---|---|
//! | ring | Karger et al., "Consistent Hashing and Random Trees" (1997); as many points as Envoy gives each endpoint | 8 bytes a point |
//! | Maglev | Eisenbud et al., "Maglev" (2016), section 3.4; weights as Envoy has them | 2 bytes a place |
//!
//! Points and permutations are made of an endpoint's address, so neither depends on the order of a file.

use std::net::SocketAddr;

use xlb_engine::hash::fnv1a;

#[cfg(test)]
use crate::config::model::Lb;
use crate::intf::{self, xlb_point};

/// An endpoint that may be picked, by its position in the cluster.
pub type Weighted = (SocketAddr, u32);

/// `XLB_POINT()` of `bpf/blob.h`.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// In the order of the ring. At least `least` of them, and at least one for each endpoint.
pub fn ring(endpoints: &[Weighted], least: u32) -> Vec<xlb_point> {
    let total: f64 = endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let smallest = endpoints.iter().map(|(_, weight)| *weight).min();
    let smallest = f64::from(smallest.unwrap_or(1)) / total;
    // A whole number of points for the one with the smallest weight, as far as memory goes.
    let scale = (smallest * f64::from(least)).ceil() / smallest;
    let scale = scale.min(f64::from(intf::XLB_MAX_POINTS));
    let mut points = Vec::with_capacity(scale as usize + endpoints.len());
    let mut share = 0.0;
    for (position, (address, weight)) in (0u32..).zip(endpoints) {
        share += scale * f64::from(*weight) / total;
        let mut nth = 0;
        while (points.len() as f64) < share || nth == 0 {
            let at = mix(fnv1a(format!("{address}_{nth}").as_bytes())) >> 32;
            points.push(xlb_point {
                at: u32::try_from(at).unwrap_or(u32::MAX),
                endpoint: position,
            });
            nth += 1;
        }
    }
    points.sort_unstable_by_key(|point| (point.at, point.endpoint));
    points
}

/// Each place's endpoint; `size` is a prime number, and not less than there are endpoints.
pub fn maglev(endpoints: &[Weighted], size: u32) -> Vec<u16> {
    struct Turn {
        next: u32,
        skip: u32,
        weight: u64,
        due: u64,
    }
    const FREE: u32 = u32::MAX;
    let most = endpoints.iter().map(|(_, weight)| u64::from(*weight)).max();
    let most = most.unwrap_or(1);
    let below = |hash: u64, n: u32| u32::try_from(hash % u64::from(n)).unwrap_or(0);
    let mut turns: Vec<Turn> = endpoints
        .iter()
        .map(|(address, weight)| {
            let hash = mix(fnv1a(address.to_string().as_bytes()));
            Turn {
                next: below(hash, size),
                skip: 1 + below(mix(!hash), size - 1),
                weight: u64::from(*weight),
                due: 0,
            }
        })
        .collect();
    let mut table = vec![FREE; size as usize];
    let mut free = if turns.is_empty() { 0 } else { size };
    for round in 1u64.. {
        if free == 0 {
            break;
        }
        for (position, turn) in (0u32..).zip(&mut turns) {
            // Endpoints of less weight sit out rounds.
            if round.saturating_mul(turn.weight) < turn.due {
                continue;
            }
            turn.due += most;
            while table[turn.next as usize] != FREE {
                turn.next = below(u64::from(turn.next) + u64::from(turn.skip), size);
            }
            table[turn.next as usize] = position;
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
    let positions = table
        .into_iter()
        .map(|position| u16::try_from(position).unwrap_or(0));
    positions.collect()
}

/// Which of the endpoints a hash chooses, said without tables in the kernel.
#[cfg(test)]
pub fn plainly(lb: Lb, endpoints: &[Weighted], size: Option<u32>, hash: u64) -> usize {
    match lb {
        Lb::Maglev => {
            let table = maglev(endpoints, size.unwrap_or(MAGLEV));
            let place = mix(hash) % table.len() as u64;
            table[usize::try_from(place).expect("fits")].into()
        }
        _ => {
            let ring = ring(endpoints, size.unwrap_or(RING));
            let at = mix(hash) >> 32;
            let first = ring.iter().find(|point| u64::from(point.at) >= at);
            first.unwrap_or(&ring[0]).endpoint as usize
        }
    }
}

/// Envoy's defaults: `min_ring_size`, and the `table_size` of its Maglev.
pub const RING: u32 = 1024;
pub const MAGLEV: u32 = 65_537;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u32) -> Vec<Weighted> {
        (0..count)
            .map(|n| {
                let address = format!("10.0.{}.{}:80", n / 250, n % 250);
                (address.parse().expect("an address"), 1)
            })
            .collect()
    }

    /// The endpoint of each of many hashes.
    fn by_ring(endpoints: &[Weighted], least: u32) -> Vec<SocketAddr> {
        let ring = ring(endpoints, least);
        hashes()
            .map(|hash| {
                let at = u32::try_from(mix(hash) >> 32).expect("32 bits");
                let place = ring.partition_point(|point| point.at < at);
                endpoints[ring[place % ring.len()].endpoint as usize].0
            })
            .collect()
    }

    fn by_maglev(endpoints: &[Weighted], size: u32) -> Vec<SocketAddr> {
        let table = maglev(endpoints, size);
        hashes()
            .map(|hash| {
                let place = mix(hash) % u64::from(size);
                endpoints[usize::from(table[usize::try_from(place).expect("fits")])].0
            })
            .collect()
    }

    const HASHES: u64 = 100_000;

    fn hashes() -> impl Iterator<Item = u64> {
        (0..HASHES).map(|n| fnv1a(format!("user-{n}").as_bytes()))
    }

    /// Of those that need not move, how many of a hundred do, when one endpoint goes.
    fn moved(before: &[SocketAddr], after: &[SocketAddr], gone: SocketAddr) -> f64 {
        let pairs = before.iter().zip(after).filter(|(was, _)| **was != gone);
        let all = pairs.clone().count();
        100.0 * pairs.filter(|(was, is)| was != is).count() as f64 / all as f64
    }

    #[test]
    fn few_move_when_one_goes() {
        for (count, most) in [(10, 1.0), (100, 2.0), (1000, 4.0)] {
            let all = endpoints(count);
            let mut rest = all.clone();
            let (gone, _) = rest.remove(count as usize / 2);
            // A ring takes its points away, and no request moves that did not fall to them.
            let moves = moved(&by_ring(&all, 1024), &by_ring(&rest, 1024), gone);
            // As many points of each as before, where these are the least: none moves.
            let limit = if count == 1000 { 0.0 } else { 12.0 };
            assert!(moves <= limit, "ring of {count}: {moves} %");
            let moves = moved(&by_maglev(&all, 65_537), &by_maglev(&rest, 65_537), gone);
            assert!(moves <= most, "Maglev of {count}: {moves} %");
        }
    }

    #[test]
    fn order_is_nothing() {
        let all = endpoints(50);
        let mut other = all.clone();
        other.reverse();
        assert_eq!(by_ring(&all, 1024), by_ring(&other, 1024));
        // Turns are taken in an order: places that two want at once may differ.
        let (a, b) = (by_maglev(&all, 65_537), by_maglev(&other, 65_537));
        let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        assert!(differ < 3_000, "{differ}");
    }

    #[test]
    fn shares_are_the_weights() {
        let weights = [1, 1, 3, 5, 10];
        let mut weighted = endpoints(5);
        for (endpoint, weight) in weighted.iter_mut().zip(weights) {
            endpoint.1 = weight;
        }
        for (picked, most) in [
            (by_maglev(&weighted, 65_537), 0.01),
            (by_ring(&weighted, 65_536), 0.05),
        ] {
            for (address, weight) in &weighted {
                let count = picked.iter().filter(|a| *a == address).count();
                let (share, due) = (count as f64 / HASHES as f64, f64::from(*weight) / 20.0);
                assert!((share / due - 1.0).abs() < 0.1 + most, "{address}: {share}");
            }
        }
        // Places, exactly.
        let table = maglev(&weighted, 65_537);
        for (position, weight) in weights.iter().enumerate() {
            let places = table
                .iter()
                .filter(|p| usize::from(**p) == position)
                .count();
            let due = 65_537.0 * f64::from(*weight) / 20.0;
            assert!((places as f64 - due).abs() < 12.0, "{position}: {places}");
        }
    }

    #[test]
    fn each_endpoint_has_a_place() {
        for count in [1, 2, 3, 100, 10_000] {
            let all = endpoints(count);
            let mut of_ring: Vec<_> = ring(&all, 1024).iter().map(|p| p.endpoint).collect();
            of_ring.sort_unstable();
            of_ring.dedup();
            assert_eq!(of_ring.len(), count as usize);
            let mut of_maglev = maglev(&all, 65_537);
            of_maglev.sort_unstable();
            of_maglev.dedup();
            assert_eq!(of_maglev.len(), count as usize);
        }
        assert!(ring(&[], 1024).is_empty());
    }
}
