// SPDX-License-Identifier: GPL-2.0
//! The hash table of hosts and paths.

use xlb_engine::hash::fnv1a;

use super::blob::StringAt;
use crate::intf::{xlb_index, XLB_MAX_PROBES};

/// XLB_SCOPE of blob.h.
pub fn scope(key: u32, vhost: u32) -> u32 {
    (key << 28) | vhost
}

/// XLB_HOME of blob.h.
pub fn home(hash: u64, scope: u32) -> u32 {
    let mixed = (hash ^ (u64::from(scope) << 16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from(mixed >> 32).unwrap_or(0)
}

/// One key: the string's bytes, where they are kept, and what they lead to.
pub fn entry(text: &[u8], at: StringAt, scope: u32, value: u32, count: u32) -> xlb_index {
    xlb_index {
        hash: fnv1a(text),
        scope,
        string_page: at.page,
        string_offset: at.offset,
        string_bytes: at.bytes,
        value,
        count,
        reserved0: 0,
    }
}

/// The smallest table in which no key is more than XLB_MAX_PROBES - 1 from its home.
///
/// `None` when even a table of 2^26 entries has none, which takes hundreds of
/// strings of one scope with one and the same 64-bit hash.
pub fn build(entries: &[xlb_index]) -> Option<Vec<xlb_index>> {
    let mut size = (entries.len() * 2).next_power_of_two().max(2);
    while size <= 1 << 26 {
        if let Some(table) = try_build(entries, size) {
            return Some(table);
        }
        size *= 2;
    }
    None
}

fn try_build(entries: &[xlb_index], size: usize) -> Option<Vec<xlb_index>> {
    let mut table = vec![xlb_index::default(); size];
    for entry in entries {
        let home = home(entry.hash, entry.scope) as usize;
        let slot = (0..XLB_MAX_PROBES as usize)
            .map(|probe| (home + probe) & (size - 1))
            .find(|slot| table.get(*slot).is_some_and(|e| e.scope == 0))?;
        *table.get_mut(slot)? = *entry;
    }
    Some(table)
}
