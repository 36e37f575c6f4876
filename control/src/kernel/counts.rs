// SPDX-License-Identifier: GPL-2.0
//! Reading the policy's counters by number.

use std::collections::HashMap;

use libbpf_rs::MapHandle;
use serde::Serialize;

use super::commit::Maps;
use super::raw;
use crate::intf::{xlb_stats, XLB_STATS_PAGE};

/// `struct xlb_stats`, summed over CPUs; [`crate::intf::STATS`] says what each means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
    pub status_4xx: u64,
    pub status_5xx: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub latency_ns: u64,
    pub retries: u64,
    #[serde(skip)]
    picked: u64,
}

impl Counts {
    fn add(&mut self, one: &xlb_stats) {
        for (sum, n) in [
            (&mut self.requests, one.requests),
            (&mut self.errors, one.errors),
            (&mut self.status_4xx, one.status_4xx),
            (&mut self.status_5xx, one.status_5xx),
            (&mut self.request_bytes, one.request_bytes),
            (&mut self.response_bytes, one.response_bytes),
            (&mut self.latency_ns, one.latency_ns),
            (&mut self.retries, one.retries),
            (&mut self.picked, one.picked),
        ] {
            *sum = sum.wrapping_add(n);
        }
    }

    /// Of an endpoint: requests picked for it and not done. CPUs are read one after the other, and what
    /// is done in between may be seen where its pick was not: then it is not outstanding.
    pub fn outstanding(&self) -> u64 {
        let done = self.requests.wrapping_add(self.retries);
        u64::try_from(self.picked.wrapping_sub(done) as i64).unwrap_or(0)
    }

    /// In the order of [`crate::intf::STATS`].
    pub fn values(&self) -> [u64; 8] {
        [
            self.requests,
            self.errors,
            self.status_4xx,
            self.status_5xx,
            self.request_bytes,
            self.response_bytes,
            self.latency_ns,
            self.retries,
        ]
    }
}

/// Keeps the pages that it has opened.
pub struct Reader<'m> {
    maps: &'m Maps,
    stats: HashMap<u32, Option<MapHandle>>,
}

impl<'m> Reader<'m> {
    pub fn new(maps: &'m Maps) -> Reader<'m> {
        Reader {
            maps,
            stats: HashMap::new(),
        }
    }

    pub fn counts(&mut self, number: Option<u32>) -> Counts {
        let mut sum = Counts::default();
        let Some(number) = number else {
            return sum;
        };
        let (page, index) = (number / XLB_STATS_PAGE, number % XLB_STATS_PAGE);
        let maps = self.maps;
        if let Some(map) = self
            .stats
            .entry(page)
            .or_insert_with(|| maps.stats_page(page))
        {
            for one in raw::get_per_cpu::<xlb_stats>(map, &index) {
                sum.add(&one);
            }
        }
        sum
    }
}
