// SPDX-License-Identifier: GPL-2.0

//! Regular expressions: one pass over a value, by a deterministic automaton that was made of them before. A byte costs two
//! looks into tables, whatever it is and however many expressions there are; nothing is ever gone back over.

use core::cell::Cell;

/// The tables of `struct xlb_regex`.
pub trait Automaton {
    /// The class of a byte.
    fn class(&self, byte: u8) -> u32;

    /// Entry `class` of row `state`; `None` outside of the table.
    fn next(&self, state: u32, class: u32) -> Option<u32>;

    /// The class of the end.
    fn end(&self) -> u32;

    /// What stands at a place of the table of matches; `None` outside of it.
    fn matched(&self, place: u32) -> Option<u32>;
}

/// The row that nothing leaves.
const DEAD: u32 = 0;

/// Sets the bit of each expression that matches all of `text`.
pub fn all(automaton: &impl Automaton, start: u32, text: &[u8], bits: &[Cell<u64>]) {
    let mut state = start;
    for byte in text {
        match automaton.next(state, automaton.class(*byte)) {
            None | Some(DEAD) => return,
            Some(next) => state = next,
        }
    }
    let Some(place) = automaton.next(state, automaton.end()) else {
        return;
    };
    let count = automaton.matched(place).unwrap_or(0);
    for nth in 1..=count {
        let Some(bit) = automaton.matched(place.wrapping_add(nth)) else {
            return;
        };
        if let Some(word) = bits.get((bit / u64::BITS) as usize) {
            word.set(word.get() | (1 << (bit % u64::BITS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a*` is bit 3, `ab` bit 70: rows are nothing, the start, after `a`, after `aa..`, after `ab`.
    struct Two;

    impl Automaton for Two {
        fn class(&self, byte: u8) -> u32 {
            match byte {
                b'a' => 0,
                b'b' => 1,
                _ => 2,
            }
        }

        fn next(&self, state: u32, class: u32) -> Option<u32> {
            let rows: [[u32; 4]; 5] = [
                [0, 0, 0, 0],
                [2, 0, 0, 1],
                [3, 4, 0, 1],
                [3, 0, 0, 1],
                [0, 0, 0, 3],
            ];
            rows.get(state as usize)?.get(class as usize).copied()
        }

        fn end(&self) -> u32 {
            3
        }

        fn matched(&self, place: u32) -> Option<u32> {
            [0, 1, 3, 1, 70].get(place as usize).copied()
        }
    }

    #[test]
    fn whole_values() {
        for (text, found) in [
            ("", [1 << 3, 0]),
            ("a", [1 << 3, 0]),
            ("aaa", [1 << 3, 0]),
            ("ab", [0, 1 << 6]),
            ("aab", [0, 0]),
            ("abc", [0, 0]),
            ("b", [0, 0]),
        ] {
            let bits = [const { Cell::new(0) }; 2];
            all(&Two, 1, text.as_bytes(), &bits);
            assert_eq!(bits.each_ref().map(Cell::get), found, "{text}");
        }
        // Outside of its tables: nothing.
        all(&Two, 7, b"a", &[]);
        all(&Two, 1, b"a", &[]);
    }
}
