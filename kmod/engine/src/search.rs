// SPDX-License-Identifier: GPL-2.0

//! One string in another, in time linear in both: the two-way algorithm (Crochemore and Perrin,
//! "Two-way string-matching", 1991).  A search that begins anew at each byte costs the product, and
//! whoever writes the request chooses the worst one.

use crate::scan;

/// Whether `needle` is somewhere in `text`.
pub fn contains(text: &[u8], needle: &[u8]) -> bool {
    if needle.len() > text.len() {
        return false;
    }
    match needle {
        [] => true,
        [byte] => scan::find_byte(text, 0, *byte).is_some(),
        _ => two_way(text, needle),
    }
}

/// Needles of two bytes and more.
fn two_way(text: &[u8], needle: &[u8]) -> bool {
    let (smaller, greater) = (
        maximal_suffix(needle, |a, b| a < b),
        maximal_suffix(needle, |a, b| a > b),
    );
    // The needle is cut here: the part after the cut is compared first.
    let (cut, period) = if smaller.0 > greater.0 {
        smaller
    } else {
        greater
    };
    let (front, back) = needle.split_at_checked(cut).unwrap_or((&[], needle));
    let periodic = needle
        .get(period..)
        .is_some_and(|rest| rest.starts_with(front));
    // How far a mismatch before the cut moves, and how much of the needle is known to match then.
    let (shift, known) = if periodic {
        (period, needle.len().wrapping_sub(period))
    } else {
        (front.len().max(back.len()).wrapping_add(1), 0)
    };
    let seen = needle.iter().fold(0u64, |set, byte| set | bit(*byte));

    let (mut at, mut memory) = (0usize, 0usize);
    while let Some(window) = text.get(at..).and_then(|rest| rest.get(..needle.len())) {
        // A last byte that the needle has nowhere: no match can begin in this window.
        if window.last().is_none_or(|last| seen & bit(*last) == 0) {
            at = at.wrapping_add(needle.len());
            memory = 0;
            continue;
        }
        let from = cut.max(memory);
        // Where the part after the cut begins otherwise no match does, and the needle moves by one.
        if memory <= cut && window.get(cut) != back.first() {
            let begins = back.first().and_then(|byte| {
                scan::find_byte(text, at.wrapping_add(cut).wrapping_add(1), *byte)
            });
            let Some(begins) = begins else {
                return false;
            };
            at = begins.wrapping_sub(cut);
            memory = 0;
            continue;
        }
        if let Some(n) = mismatch(needle, window, from) {
            at = at.wrapping_add(from.wrapping_add(n).wrapping_sub(cut).wrapping_add(1));
            memory = 0;
            continue;
        }
        if memory >= cut || needle.get(memory..cut) == window.get(memory..cut) {
            return true;
        }
        at = at.wrapping_add(shift);
        memory = known;
    }
    false
}

fn bit(byte: u8) -> u64 {
    1u64.wrapping_shl(u32::from(byte))
}

/// The first place at or after `from` where the two differ, counted from `from`.
#[inline]
fn mismatch(needle: &[u8], window: &[u8], from: usize) -> Option<usize> {
    let (a, b) = (needle.get(from..)?, window.get(from..)?);
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Where the greatest suffix in an order begins, and its period.
fn maximal_suffix(needle: &[u8], before: impl Fn(u8, u8) -> bool) -> (usize, usize) {
    let (mut left, mut right, mut offset, mut period) = (0usize, 1usize, 0usize, 1usize);
    while let (Some(a), Some(b)) = (
        scan::at(needle, right.wrapping_add(offset)),
        scan::at(needle, left.wrapping_add(offset)),
    ) {
        if before(a, b) {
            right = right.wrapping_add(offset).wrapping_add(1);
            offset = 0;
            period = right.wrapping_sub(left);
        } else if a == b {
            offset = offset.wrapping_add(1);
            if offset == period {
                right = right.wrapping_add(period);
                offset = 0;
            }
        } else {
            left = right;
            right = right.wrapping_add(1);
            offset = 0;
            period = 1;
        }
    }
    (left, period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::draws;

    fn plain(text: &[u8], needle: &[u8]) -> bool {
        needle.is_empty() || text.windows(needle.len()).any(|w| w == needle)
    }

    /// Every needle and text over two letters up to a length: all periods and cuts.
    #[test]
    fn all_short_strings() {
        let word = |n: usize, len: usize| -> Vec<u8> {
            (0..len).map(|i| b'a' + ((n >> i) & 1) as u8).collect()
        };
        for needle_len in 0..=7 {
            for n in 0..1 << needle_len {
                let needle = word(n, needle_len);
                for text_len in 0..=11 {
                    for t in 0..1 << text_len {
                        let text = word(t, text_len);
                        assert_eq!(contains(&text, &needle), plain(&text, &needle));
                    }
                }
            }
        }
    }

    /// Longer ones, with runs, near misses and bytes that share a bit of the set.
    #[test]
    fn long_strings() {
        let mut draw = draws(1);
        for _ in 0..20_000 {
            let letters = [b'a', b'b', b'a' + 64, 0x80][..1 + draw(4)].to_vec();
            let text: Vec<u8> = (0..draw(200))
                .map(|_| letters[draw(letters.len())])
                .collect();
            let needle: Vec<u8> = if draw(2) == 0 && !text.is_empty() {
                let from = draw(text.len());
                text[from..from + draw(text.len() - from + 1)].to_vec()
            } else {
                (0..draw(40))
                    .map(|_| letters[draw(letters.len())])
                    .collect()
            };
            assert_eq!(contains(&text, &needle), plain(&text, &needle));
        }
    }
}
