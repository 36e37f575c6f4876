// SPDX-License-Identifier: GPL-2.0

//! Strings in another, in time linear in all of them. A search that begins anew at each byte costs the
//! product, and whoever writes the request chooses the worst one.
//!
//! One is searched for by the two-way algorithm (Crochemore and Perrin, "Two-way string-matching", 1991),
//! many by an automaton that was made of them before (Aho and Corasick, "Efficient string matching", 1975), in one pass.

use core::cell::Cell;

use crate::scan;

/// Whether `text` begins with `prefix`, which is in lower case, when its ASCII letters are.
pub fn starts_with_lower(text: &[u8], prefix: &[u8]) -> bool {
    let mut pairs = prefix.iter().zip(text);
    text.len() >= prefix.len() && pairs.all(|(lower, byte)| *lower == byte.to_ascii_lowercase())
}

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

/// Where automata are kept, as places of a double array. What it answers is not believed: a search is linear whatever
/// it is.
///
/// What a state does with a byte is at `base ^ byte`, if the `check` of what is there is that `base`: it is the next
/// state then. If it is not, the state `fail` is asked, and so on; at last the root, which has a place for each byte, whatever
/// their `check`.
pub trait Automata {
    /// A place that is there.
    type State: Copy;
    /// The 256 places of a root's next states, which are there.
    type Row: Copy;
    /// The state at a place, used or free.
    fn state(&self, place: u32) -> Option<Self::State>;
    /// The row that begins at a place.
    fn row(&self, place: u32) -> Option<Self::Row>;
    /// The state in a row that is for this byte.
    fn in_row(&self, row: Self::Row, byte: u8) -> Self::State;
    /// Where what it does is.
    fn base(&self, state: Self::State) -> u32;
    /// The base of the state that led here.
    fn check(&self, state: Self::State) -> u32;
    /// The state to ask about a byte that this one does not know.
    fn fail(&self, state: Self::State) -> u32;
    /// The longest needle that ends here, or 0.
    fn needle(&self, state: Self::State) -> u32;
    /// The next shorter needle that ends where this one does, or 0.
    fn shorter(&self, needle: u32) -> u32;
}

/// Sets the bit of each needle of the automaton at `root` that is somewhere in `text`. A needle's number is its bit; 0 is none.
///
/// Two places are looked at for each byte when all states fail to the root; else twice as many, on the whole; and one more for
/// each needle. `bits` has room for all, and no bit of theirs is set.
pub fn all(automata: &impl Automata, root: u32, text: &[u8], bits: &[Cell<u64>]) {
    let Some(mut state) = automata.state(root) else {
        return;
    };
    let mut base = automata.base(state);
    let Some(row) = automata.row(base) else {
        return;
    };
    // A failure is to a state that is less deep, and a byte makes it one deeper.
    let mut failures = text.len();
    for byte in text {
        let next = automata.state(base ^ u32::from(*byte));
        let next = match next.filter(|next| automata.check(*next) == base) {
            Some(next) => next,
            None if automata.fail(state) == root => automata.in_row(row, *byte),
            None => of_suffix(automata, root, state, *byte, &mut failures)
                .unwrap_or(automata.in_row(row, *byte)),
        };
        state = next;
        base = automata.base(state);
        let needle = automata.needle(state);
        if needle != 0 && !is_set(bits, needle) {
            set(automata, bits, needle);
        }
    }
}

/// What the states that `state` fails to do with a byte that it does not know; `None` when that is up to the root.
#[cold]
#[inline(never)]
fn of_suffix<A: Automata>(
    automata: &A,
    root: u32,
    mut state: A::State,
    byte: u8,
    failures: &mut usize,
) -> Option<A::State> {
    loop {
        let fail = automata.fail(state);
        if fail == root {
            return None;
        }
        *failures = failures.checked_sub(1)?;
        state = automata.state(fail)?;
        let base = automata.base(state);
        let next = automata.state(base ^ u32::from(byte));
        if let Some(next) = next.filter(|next| automata.check(*next) == base) {
            return Some(next);
        }
    }
}

/// Of what there is no room for, nothing is to be set.
#[inline]
fn is_set(bits: &[Cell<u64>], needle: u32) -> bool {
    let word = bits.get(needle.wrapping_shr(6) as usize);
    word.is_none_or(|word| word.get() & mask(needle) != 0)
}

fn mask(needle: u32) -> u64 {
    1u64.wrapping_shl(needle)
}

/// This one, and those that are shorter up to one that is set: what is shorter than that was set with it.
#[cold]
fn set(automata: &impl Automata, bits: &[Cell<u64>], mut needle: u32) {
    while needle != 0 && !is_set(bits, needle) {
        if let Some(word) = bits.get(needle.wrapping_shr(6) as usize) {
            word.set(word.get() | mask(needle));
        }
        needle = automata.shorter(needle);
    }
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
