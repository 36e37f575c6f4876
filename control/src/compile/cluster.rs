// SPDX-License-Identifier: GPL-2.0
//! From a cluster to its blob, with the weights that `balance.h` needs to pick exactly and smoothly.

use super::hashing::{self, Weighted};
use crate::config::model::{Cluster, Endpoint, Lb};
use crate::intf::{self, xlb_cluster, xlb_endpoint, Pod, XLB_CLUSTER_PAGE_BYTES};
use crate::numbers::Numbers;

pub fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

/// A number coprime to `total`, as near to total / golden ratio as can be.
///
/// Multiples of it modulo `total` visit every position once, and any run of them is
/// spread evenly (three-distance theorem), so an endpoint's turns are never bunched.
pub fn stride(total: u32) -> u32 {
    const INVERSE_GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
    let total = u64::from(total);
    let start = (total as f64 * INVERSE_GOLDEN_RATIO) as u64;
    (0..total)
        .flat_map(|distance| [start + distance, start.saturating_sub(distance)])
        .find(|m| (1..=total).contains(m) && gcd(*m, total) == 1)
        .and_then(|m| u32::try_from(m).ok())
        .unwrap_or(1)
}

/// By which a hash chooses: how many records, and their bytes. `None` where the cluster does not choose so.
fn table(cluster: &Cluster, eligible: &[(&Endpoint, &u32)]) -> Option<(usize, Vec<u8>)> {
    fn packed<T: Pod>(records: &[T]) -> (usize, Vec<u8>) {
        let bytes = records.iter().flat_map(|record| record.bytes());
        (records.len(), bytes.copied().collect())
    }
    let weighted = || -> Vec<Weighted> {
        let endpoints = eligible.iter();
        endpoints.map(|(e, _)| (e.address, e.weight)).collect()
    };
    let size = cluster.lb_options.table_size;
    match cluster.lb {
        Lb::Maglev => Some(packed(&hashing::maglev(
            &weighted(),
            size.unwrap_or(hashing::MAGLEV),
        ))),
        Lb::RingHash => Some(packed(&hashing::ring(
            &weighted(),
            size.unwrap_or(hashing::RING),
        ))),
        Lb::RoundRobin | Lb::Random | Lb::LeastRequest => None,
    }
}

const _: () = assert!(
    size_of::<xlb_cluster>() == intf::XLB_FIRST_ENDPOINT as usize * size_of::<xlb_endpoint>()
);

/// The pages of the cluster's blob, one after the other. `None` as of [`super::Group::add`].
pub fn blob(cluster: &Cluster, numbers: &Numbers, generation: u64) -> Option<Vec<u8>> {
    let endpoints = cluster.endpoints.iter();
    let eligible: Vec<_> = endpoints
        .zip(numbers.endpoints(&cluster.name))
        .filter(|(e, _)| e.is_eligible())
        .collect();
    let divisor = eligible
        .iter()
        .fold(0, |d, (e, _)| gcd(d, u64::from(e.weight)))
        .max(1);
    let page = XLB_CLUSTER_PAGE_BYTES as usize;
    let records = size_of::<xlb_cluster>() + eligible.len() * size_of::<xlb_endpoint>();
    let mut bytes = Vec::with_capacity(records.next_multiple_of(page));
    // The cluster's own record, when its weights are known.
    bytes.resize(size_of::<xlb_cluster>(), 0);
    let mut cumulative = 0u32;
    // After division by their greatest common divisor, equal weights are 1.
    let mut equal = true;
    for (endpoint, number) in &eligible {
        let weight = u32::try_from(u64::from(endpoint.weight) / divisor).ok()?;
        cumulative = cumulative.checked_add(weight)?;
        equal &= weight == 1;
        let record = xlb_endpoint {
            addr: intf::mapped(endpoint.address.ip()),
            number: **number,
            weight,
            cumulative,
            port: endpoint.address.port(),
            reserved0: 0,
        };
        bytes.extend_from_slice(record.bytes());
    }
    let (choices, stride) = match table(cluster, &eligible) {
        None => (cluster.lb_options.choices, stride(cumulative)),
        Some((records, table)) => {
            bytes.resize(bytes.len().next_multiple_of(page), 0);
            let begin = bytes.len() / page;
            bytes.extend(table);
            (u32::try_from(records).ok()?, u32::try_from(begin).ok()?)
        }
    };
    let record = xlb_cluster {
        generation,
        number: numbers.cluster(&cluster.name)?,
        lb: cluster.lb.number(),
        choices,
        endpoint_count: u32::try_from(eligible.len()).ok()?,
        total_weight: cumulative,
        stride,
        equal: u32::from(equal),
        min_idle: cluster.pool.min_idle,
        max: cluster.pool.max,
        max_pending: cluster.pool.max_pending,
        idle_timeout_ms: cluster.pool.idle_timeout,
        connect_timeout_ms: cluster.pool.connect_timeout,
        max_requests: cluster.pool.max_requests,
        pending_timeout_ms: cluster.pool.pending_timeout,
    };
    bytes
        .get_mut(..size_of::<xlb_cluster>())?
        .copy_from_slice(record.bytes());
    bytes.resize(bytes.len().next_multiple_of(page), 0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order in which round robin serves: position = c * stride mod total.
    fn order(weights: &[u32]) -> Vec<usize> {
        let total: u32 = weights.iter().sum();
        let m = u64::from(stride(total));
        (0..u64::from(total))
            .map(|c| {
                let mut position = c * m % u64::from(total);
                weights
                    .iter()
                    .position(|w| {
                        let here = position < u64::from(*w);
                        position = position.saturating_sub(u64::from(*w));
                        here
                    })
                    .expect("the weights add up to the total")
            })
            .collect()
    }

    #[test]
    fn every_turn_is_taken_exactly_once() {
        for weights in [
            &[1, 2][..],
            &[5, 1, 1],
            &[3, 3, 2, 1],
            &[90, 10],
            &[997, 3],
            &[1, 1, 1, 1],
        ] {
            let order = order(weights);
            for (endpoint, weight) in weights.iter().enumerate() {
                let turns = order.iter().filter(|e| **e == endpoint).count();
                assert_eq!(turns, *weight as usize, "{weights:?}");
            }
        }
    }

    #[test]
    fn turns_are_spread() {
        // 10 of 100: never two in a row, never twice as far apart as on average.
        let order = order(&[90, 10]);
        let turns: Vec<_> = (0..100).filter(|i| order[*i] == 1).collect();
        let gaps: Vec<_> = turns.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| (5..=18).contains(gap)), "{gaps:?}");
    }

    #[test]
    fn strides_are_coprime() {
        for total in (1..2000).chain([u32::MAX, u32::MAX - 1, 1 << 31, 30030 * 17]) {
            let m = stride(total);
            assert!(m >= 1 && m <= total, "{total}: {m}");
            assert_eq!(gcd(u64::from(m), u64::from(total)), 1, "{total}");
        }
    }
}
