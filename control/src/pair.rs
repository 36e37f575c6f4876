// SPDX-License-Identifier: GPL-2.0
//! What of an old list is in a new one.

use std::hash::Hash;
use std::iter::Peekable;

use rustc_hash::FxHashMap;

/// For each of `new` what `old` has to it, and what is left of `old`. Each of `old` is given once.
///
/// Lists of endpoints and routes differ in few places: what stands where it stood, but for one that was taken out, put in or
/// replaced before it, is found without a table.
pub fn pair<K: Eq + Hash, V>(
    old: impl IntoIterator<Item = (K, V)>,
    new: impl IntoIterator<Item = K>,
) -> (Vec<Option<V>>, Vec<(K, V)>) {
    let mut old = old.into_iter().peekable();
    let mut new = new.into_iter().peekable();
    let mut found = Vec::with_capacity(new.size_hint().0);
    let mut left: Vec<(K, V)> = Vec::new();
    let mut missed: Vec<(usize, K)> = Vec::new();
    while let Some(key) = new.next() {
        let mut value = take(&mut old, &key);
        if value.is_none() && !is_next(&mut old, new.peek()) {
            left.extend(old.next());
            value = take(&mut old, &key);
        }
        if value.is_none() {
            missed.push((found.len(), key));
        }
        found.push(value);
    }
    left.extend(old);
    if missed.is_empty() || left.is_empty() {
        return (found, left);
    }
    let mut table: FxHashMap<K, V> = left.into_iter().collect();
    for (at, key) in missed {
        if let (Some(value), Some(room)) = (table.remove(&key), found.get_mut(at)) {
            *room = Some(value);
        }
    }
    (found, table.into_iter().collect())
}

fn take<K: Eq, V>(old: &mut Peekable<impl Iterator<Item = (K, V)>>, key: &K) -> Option<V> {
    old.next_if(|(was, _)| was == key).map(|(_, value)| value)
}

/// Whether `key` stands where it stood: what is before it in the new list was put in.
fn is_next<K: Eq, V>(old: &mut Peekable<impl Iterator<Item = (K, V)>>, key: Option<&K>) -> bool {
    old.peek().is_some_and(|(was, _)| Some(was) == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn as_a_table_would_find_it() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            let mut list = |most| -> Vec<usize> {
                let mut list: Vec<usize> = Vec::new();
                for _ in 0..random.below(most) {
                    let next = random.below(10);
                    if !list.contains(&next) {
                        list.push(next);
                    }
                }
                list
            };
            let (old, new) = (list(12), list(12));
            let values = old.iter().map(|key| (*key, key * 10));
            let (found, mut left) = pair(values, new.iter().copied());
            let expected: Vec<Option<usize>> = new
                .iter()
                .map(|key| old.contains(key).then_some(key * 10))
                .collect();
            assert_eq!(found, expected, "{old:?} {new:?}");
            left.sort_unstable();
            let mut gone: Vec<(usize, usize)> = old
                .iter()
                .filter(|key| !new.contains(key))
                .map(|key| (*key, key * 10))
                .collect();
            gone.sort_unstable();
            assert_eq!(left, gone, "{old:?} {new:?}");
        }
    }
}
