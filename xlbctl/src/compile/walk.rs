// SPDX-License-Identifier: GPL-2.0
//! The BPF policy's walk through a blob, in Rust, for tests: `bpf/{walk,host,match,balance}.h`
//! function by function, so that what they rely on is checked without a kernel.

use std::cell::Cell;

use xlb_engine::hash::fnv1a;
use xlb_engine::search;

use super::blob::PAGE;
use super::index;
use crate::intf::*;
use crate::matcher::Request;

pub struct Walk<'b> {
    blob: &'b [u8],
    pub head: xlb_blob,
    /// Routes looked at: the cost of the last call.
    pub looked_at: usize,
}

impl<'b> Walk<'b> {
    pub fn new(blob: &'b [u8]) -> Walk<'b> {
        assert_eq!(blob.len() % PAGE, 0);
        let head = xlb_blob::from_bytes(blob).expect("a page at least");
        assert_eq!(head.pages as usize, blob.len() / PAGE);
        Walk {
            blob,
            head,
            looked_at: 0,
        }
    }

    fn page(&self, page: u32) -> Option<&'b [u8]> {
        self.blob.chunks_exact(PAGE).nth(page as usize)
    }

    fn record<T: Pod>(&self, page: u32, index: u32) -> Option<T> {
        let per_page = u32::try_from(PAGE / size_of::<T>()).expect("fits");
        let offset = (index % per_page) as usize * size_of::<T>();
        T::from_bytes(&self.page(page + index / per_page)?[offset..])
    }

    fn string(&self, page: u32, offset: u16, bytes: u16) -> &'b [u8] {
        &self.page(page).expect("a string page")[offset.into()..][..bytes.into()]
    }

    fn find(&self, key: u32, vhost: u32, text: &[u8]) -> Option<xlb_index> {
        let scope = index::scope(key, vhost);
        let hash = fnv1a(text);
        for probe in 0..XLB_MAX_PROBES {
            let place = index::home(hash, scope).wrapping_add(probe) & self.head.index_mask;
            let entry: xlb_index = self.record(self.head.index_page, place)?;
            if entry.scope == 0 {
                return None;
            }
            if entry.hash == hash
                && entry.scope == scope
                && self.string(entry.string_page, entry.string_offset, entry.string_bytes) == text
            {
                return Some(entry);
            }
        }
        None
    }

    pub fn vhost(&self, host: &str) -> Option<u32> {
        let host = host.as_bytes();
        let dots = || (0..host.len()).filter(|at| host[*at] == b'.');
        let has = |flag| self.head.flags & flag != 0;
        if has(XLB_BLOB_EXACT_HOST) {
            if let Some(entry) = self.find(XLB_KEY_HOST, 0, host) {
                return Some(entry.value);
            }
        }
        if has(XLB_BLOB_SUFFIX_HOST) {
            let found = dots()
                .filter(|dot| *dot > 0 && host.len() - dot <= self.head.max_suffix_bytes as usize)
                .find_map(|dot| self.find(XLB_KEY_HOST_SUFFIX, 0, &host[dot..]));
            if let Some(entry) = found {
                return Some(entry.value);
            }
        }
        if has(XLB_BLOB_PREFIX_HOST) {
            let found = dots()
                .filter(|dot| *dot < self.head.max_prefix_bytes as usize && dot + 1 < host.len())
                .filter_map(|dot| self.find(XLB_KEY_HOST_PREFIX, 0, &host[..=dot]))
                .last();
            if let Some(entry) = found {
                return Some(entry.value);
            }
        }
        (self.head.default_vhost != XLB_NONE).then_some(self.head.default_vhost)
    }

    /// The index of the route in the route table.
    pub fn route(&mut self, vhost: u32, request: &Request) -> Option<u32> {
        self.looked_at = 0;
        let vh: xlb_vhost = self.record(self.head.vhost_page, vhost)?;
        let path = request.path.as_bytes();
        let mut best = XLB_NONE;
        best = self.scan(vh.any_list, vh.any_count, request, best);
        if u32::from(vh.flags) & XLB_VHOST_PATHS != 0 && path.len() <= vh.max_path_bytes as usize {
            if let Some(entry) = self.find(XLB_KEY_PATH, vhost, path) {
                best = self.scan(entry.value, entry.count, request, best);
            }
        }
        let mut from = 1;
        for _ in 0..vh.depth {
            if from >= path.len() {
                break;
            }
            let end = path[from..]
                .iter()
                .position(|b| *b == b'/')
                .map_or(path.len(), |at| from + at);
            if end > vh.max_prefix_bytes as usize {
                break;
            }
            if let Some(entry) = self.find(XLB_KEY_PATH_PREFIX, vhost, &path[..end]) {
                best = self.scan(entry.value, entry.count, request, best);
            }
            from = end + 1;
        }
        (best != XLB_NONE).then_some(best)
    }

    fn scan(&mut self, list: u32, count: u32, request: &Request, best: u32) -> u32 {
        for i in 0..count {
            let route: u32 = self
                .record(self.head.list_page, list + i)
                .expect("in the table");
            if route >= best {
                break;
            }
            self.looked_at += 1;
            if self.holds(route, request) {
                return route;
            }
        }
        best
    }

    fn holds(&self, route: u32, request: &Request) -> bool {
        let route: xlb_route = self
            .record(self.head.route_page, route)
            .expect("in the table");
        let method = 1 << request.method.map_or(0, |m| m as u32);
        if route.methods != 0 && route.methods & method == 0 {
            return false;
        }
        (0..route.condition_count).all(|i| {
            let c: xlb_condition = self
                .record(self.head.condition_page, route.condition + i)
                .expect("in the table");
            self.condition(&c, request)
        })
    }

    fn condition(&self, c: &xlb_condition, request: &Request) -> bool {
        let kind = u32::from(c.kind);
        if kind == XLB_CONDITION_PERCENT {
            return c.number > 0;
        }
        let name = self.string(c.name_page, c.name_offset, c.name_bytes);
        let value = self.string(c.value_page, c.value_offset, c.value_bytes);
        let header = |name: &[u8]| {
            let found = request.headers.iter().find(|(n, _)| n.as_bytes() == name);
            found.map(|(_, v)| v.as_bytes())
        };
        let found = match u32::from(c.place) {
            XLB_PLACE_PATH => Some(request.path.as_bytes()),
            XLB_PLACE_HEADER => header(name),
            XLB_PLACE_QUERY => request
                .query
                .as_ref()
                .and_then(|q| find_part(q.as_bytes(), name, b'&')),
            XLB_PLACE_COOKIE => header(b"cookie").and_then(|c| find_part(c, name, b';')),
            place => panic!("unknown place {place}"),
        };
        let Some(found) = found else {
            return kind == XLB_CONDITION_ABSENT;
        };
        match kind {
            XLB_CONDITION_ABSENT => false,
            XLB_CONDITION_PRESENT => true,
            XLB_CONDITION_EXACT => found == value,
            XLB_CONDITION_PREFIX => found.starts_with(value),
            XLB_CONDITION_SUFFIX => found.ends_with(value),
            XLB_CONDITION_CONTAINS if c.needle != 0 => self.search(c.needle, found),
            XLB_CONDITION_CONTAINS => {
                value.is_empty() || found.windows(value.len()).any(|w| w == value)
            }
            kind => panic!("unknown condition {kind}"),
        }
    }

    fn search(&self, needle: u32, text: &[u8]) -> bool {
        let needle: xlb_needle = self
            .record(self.head.needle_page, needle)
            .expect("in the table");
        let bits = vec![Cell::new(0); self.head.needle_count.div_ceil(64) as usize];
        let automata = Searched { walk: self, needle };
        search::all(&automata, needle.root, text, &bits);
        (bits[needle.needle as usize / 64].get() >> (needle.needle % 64)) & 1 != 0
    }

    pub fn route_record(&self, route: u32) -> xlb_route {
        self.record(self.head.route_page, route)
            .expect("in the table")
    }

    /// The cluster that `drawn` of `total_weight` falls to.
    pub fn target(&self, route: &xlb_route, drawn: u32) -> Option<xlb_cluster> {
        let (mut low, mut high) = (0, route.target_count);
        if high == 0 {
            return None;
        }
        while route.target_count > 1 && low < high {
            let middle = low + (high - low) / 2;
            let target: xlb_target = self
                .record(self.head.target_page, route.target + middle)
                .expect("in the table");
            if target.cumulative > drawn {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let target: xlb_target = self.record(self.head.target_page, route.target + low)?;
        self.record(self.head.cluster_page, target.cluster)
    }

    /// Endpoint `position` of a cluster.
    pub fn endpoint(&self, cluster: &xlb_cluster, position: u32) -> xlb_endpoint {
        self.record(self.head.endpoint_page, cluster.endpoint + position)
            .expect("in the table")
    }

    pub fn round_robin(&self, cluster: &xlb_cluster, count: u64) -> u32 {
        let weight = u64::from(cluster.total_weight);
        let position = if cluster.equal != 0 {
            return u32::try_from(count % weight).expect("below the weight");
        } else {
            count % weight * u64::from(cluster.stride) % weight
        };
        let (mut low, mut high) = (0, cluster.endpoint_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if u64::from(self.endpoint(cluster, middle).cumulative) > position {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

/// The automata of a needle.
struct Searched<'w, 'b> {
    walk: &'w Walk<'b>,
    needle: xlb_needle,
}

impl search::Automata for Searched<'_, '_> {
    type State = xlb_search_state;
    type Row = u32;

    fn state(&self, place: u32) -> Option<xlb_search_state> {
        assert!(place < self.needle.state_count);
        self.walk.record(self.needle.state_page, place)
    }
    fn row(&self, place: u32) -> Option<u32> {
        Some(place)
    }
    fn in_row(&self, row: u32, byte: u8) -> xlb_search_state {
        self.state(row + u32::from(byte)).expect("in the table")
    }
    fn base(&self, state: xlb_search_state) -> u32 {
        state.base
    }
    fn check(&self, state: xlb_search_state) -> u32 {
        state.check
    }
    fn fail(&self, state: xlb_search_state) -> u32 {
        state.fail
    }
    fn needle(&self, state: xlb_search_state) -> u32 {
        state.needle
    }
    fn shorter(&self, needle: u32) -> u32 {
        assert!(needle < self.needle.shorter_count);
        let shorter = self.walk.record(self.needle.shorter_page, needle);
        shorter.expect("in the table")
    }
}

/// As the module's table of named parts has it.
fn find_part<'f>(field: &'f [u8], name: &[u8], separator: u8) -> Option<&'f [u8]> {
    field.split(|b| *b == separator).find_map(|part| {
        let part = match part {
            [b' ', rest @ ..] if separator == b';' => rest,
            _ => part,
        };
        let at = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
        (part[..at] == *name).then(|| &part[(at + 1).min(part.len())..])
    })
}
