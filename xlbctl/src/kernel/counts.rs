// SPDX-License-Identifier: GPL-2.0
//! Reading the policy's counters and state by number.

use std::collections::HashMap;

use libbpf_rs::MapHandle;
use serde::Serialize;

use super::commit::Maps;
use super::raw;
use crate::intf::{xlb_state, xlb_stats, XLB_STATE_PAGE, XLB_STATS_PAGE};

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
        ] {
            *sum = sum.wrapping_add(n);
        }
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
    states: HashMap<u32, Option<MapHandle>>,
}

impl<'m> Reader<'m> {
    pub fn new(maps: &'m Maps) -> Reader<'m> {
        Reader {
            maps,
            stats: HashMap::new(),
            states: HashMap::new(),
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

    /// Requests picked for an endpoint and not done.
    pub fn outstanding(&mut self, number: Option<u32>) -> u64 {
        let Some(number) = number else {
            return 0;
        };
        let (page, index) = (number / XLB_STATE_PAGE, number % XLB_STATE_PAGE);
        let maps = self.maps;
        self.states
            .entry(page)
            .or_insert_with(|| maps.states_page(page))
            .as_ref()
            .and_then(|map| raw::get::<xlb_state>(map, &index))
            .map_or(0, |state| state.outstanding)
    }
}
