// SPDX-License-Identifier: GPL-2.0
//! Strings that are searched for in one pass: automata as of Aho and Corasick, as `bpf_xlb_search()` walks them.
//!
//! All of a service are in one double array. What a state does with a byte is at `base ^ byte`, so it lies in one block
//! of 256 places; most states know one byte only, which nearly any free place will do for. A root knows all, and has a block
//! for itself. No two states that know a byte have the same base.
//!
//! As long as that takes little, each state knows all bytes that lead it elsewhere than they lead the root, and fails
//! to it: two places are looked at for a byte at most. Else it knows those that lengthen its prefix, and fails to its longest suffix.

use crate::intf::{xlb_search_state, XLB_MAX_NEEDLES, XLB_NONE};

const BLOCK: usize = 256;
/// Bases that are tried for a state, before a new block is begun.
const TRIES: usize = 64;
/// Up to how many bytes a state may know, on the whole, to have all.
const SPREAD: usize = 8;
/// As many are no cost in any case.
const FEW: usize = 16_384;

#[derive(Default)]
pub struct Automata {
    pub states: Vec<xlb_search_state>,
    /// By needle: the next shorter one that ends where it does, or 0.
    pub shorter: Vec<u32>,
    used: Vec<bool>,
    used_base: Vec<bool>,
    /// Has all that are not used, and some that are.
    free: Vec<u32>,
}

/// One that was added.
pub struct Search {
    /// The state that it begins in.
    pub root: u32,
    /// A number of its own.
    pub searched: u32,
    /// That of the first needle; those of the others follow.
    pub first: u32,
}

/// Bytes, in their order, and the nodes that they lead to.
type Next = Vec<(u8, usize)>;

/// A prefix of a needle.
#[derive(Default)]
struct Node {
    /// The prefixes that are longer by a byte.
    longer: Next,
    /// The longest suffix that is a node too.
    fail: usize,
    /// The longest needle that ends here, or 0.
    ends: u32,
    /// Where a state that is this one is.
    place: u32,
    base: u32,
}

impl Automata {
    /// One search for all of these, which are distinct and not empty.
    ///
    /// `None` when there are too many.
    pub fn add(&mut self, needles: &[&[u8]]) -> Option<Search> {
        // 0 is no needle.
        let searched = u32::try_from(self.shorter.len()).ok()?.max(1);
        let first = searched + 1;
        let end = first.checked_add(u32::try_from(needles.len()).ok()?)?;
        if end > XLB_MAX_NEEDLES {
            return None;
        }
        self.shorter.resize(end as usize, 0);
        let mut nodes = prefixes(needles, first);
        let order = by_length(&nodes);
        find_suffixes(&mut nodes, &order);
        for at in &order {
            let shorter = nodes[nodes[*at].fail].ends;
            match nodes[*at].ends {
                0 => nodes[*at].ends = shorter,
                needle => self.shorter[needle as usize] = shorter,
            }
        }
        let most = FEW.max(SPREAD * nodes.len());
        let known = match all_known(&nodes, &order, most) {
            Some(known) => {
                nodes.iter_mut().for_each(|node| node.fail = 0);
                known
            }
            None => nodes.iter().map(|node| node.longer.clone()).collect(),
        };
        Some(Search {
            root: self.place(&mut nodes, &order, &known)?,
            searched,
            first,
        })
    }

    /// `known` has at least the bytes that lengthen a prefix.
    fn place(&mut self, nodes: &mut [Node], order: &[usize], known: &[Next]) -> Option<u32> {
        let root = self.take(&[0])?;
        let row = self.begin_block()?;
        self.used[row as usize..][..BLOCK].fill(true);
        self.used_base[row as usize] = true;
        for at in order {
            let bytes: Vec<u8> = known[*at].iter().map(|(byte, _)| *byte).collect();
            // A base of nobody's byte: it knows none.
            let base = match bytes.is_empty() || *at == 0 {
                true => row,
                false => self.take(&bytes)?,
            };
            nodes[*at].base = base;
            for (byte, next) in nodes[*at].longer.clone() {
                nodes[next].place = base ^ u32::from(byte);
            }
        }
        nodes[0].place = root;
        let state = |node: &Node, check| xlb_search_state {
            base: node.base,
            check,
            fail: nodes[node.fail].place,
            needle: node.ends,
        };
        self.states[root as usize] = state(&nodes[0], XLB_NONE);
        self.states[row as usize..][..BLOCK].fill(state(&nodes[0], XLB_NONE));
        for (node, known) in nodes.iter().zip(known) {
            let check = if node.base == row {
                XLB_NONE
            } else {
                node.base
            };
            for (byte, next) in known {
                let place = node.base ^ u32::from(*byte);
                self.states[place as usize] = state(&nodes[*next], check);
            }
        }
        Some(root)
    }

    /// A base of its own with a free place for each of these bytes, which are used then.
    fn take(&mut self, bytes: &[u8]) -> Option<u32> {
        let is_used = |place: &&u32| self.used[**place as usize];
        let last = self.free.iter().rev().take_while(is_used).count();
        self.free.truncate(self.free.len() - last);
        let first = bytes.first()?;
        let candidates = self.free.iter().rev().take(TRIES);
        let mut bases = candidates.map(|place| place ^ u32::from(*first));
        let base = bases.find(|base| {
            let is_free = |byte: &u8| !self.used[(base ^ u32::from(*byte)) as usize];
            !self.used_base[*base as usize] && bytes.iter().all(is_free)
        });
        let base = match base {
            Some(base) => base,
            None => self.begin_block()?,
        };
        self.used_base[base as usize] = true;
        for byte in bytes {
            self.used[(base ^ u32::from(*byte)) as usize] = true;
        }
        Some(base)
    }

    /// Its first place.
    fn begin_block(&mut self) -> Option<u32> {
        let first = u32::try_from(self.states.len()).ok()?;
        let end = first.checked_add(u32::try_from(BLOCK).ok()?)?;
        let free = xlb_search_state {
            check: XLB_NONE,
            ..xlb_search_state::default()
        };
        self.states.resize(end as usize, free);
        self.used.resize(end as usize, false);
        self.used_base.resize(end as usize, false);
        self.free.retain(|place| !self.used[*place as usize]);
        self.free.extend((first..end).rev());
        Some(first)
    }
}

/// For each node the bytes that lead it elsewhere than they lead the root, but for the root those that
/// lead it on; `None` when these are more than `most`.
fn all_known(nodes: &[Node], order: &[usize], most: usize) -> Option<Vec<Next>> {
    let mut known: Vec<Next> = nodes.iter().map(|_| Next::new()).collect();
    let mut count = 0;
    for at in order {
        let node = &nodes[*at];
        let mut bytes = node.longer.clone();
        if node.fail != 0 {
            let of_suffix = known[node.fail].iter();
            let is_new = |byte: &u8| node.longer.binary_search_by_key(byte, |(b, _)| *b).is_err();
            bytes.extend(of_suffix.filter(|(byte, _)| is_new(byte)));
            bytes.sort_unstable();
        }
        count += bytes.len();
        if count > most {
            return None;
        }
        known[*at] = bytes;
    }
    Some(known)
}

/// The tree of all prefixes; the first is the empty one.
fn prefixes(needles: &[&[u8]], first: u32) -> Vec<Node> {
    let mut nodes = vec![Node::default()];
    for (needle, number) in needles.iter().zip(first..) {
        let mut at = 0;
        for byte in *needle {
            at = match nodes[at].longer.binary_search_by_key(byte, |(b, _)| *b) {
                Ok(found) => nodes[at].longer[found].1,
                Err(place) => {
                    let new = nodes.len();
                    nodes[at].longer.insert(place, (*byte, new));
                    nodes.push(Node::default());
                    new
                }
            };
        }
        nodes[at].ends = number;
    }
    nodes
}

/// All nodes, shorter prefixes first.
fn by_length(nodes: &[Node]) -> Vec<usize> {
    let mut order = vec![0];
    let mut done = 0;
    while let Some(at) = order.get(done) {
        order.extend(nodes[*at].longer.iter().map(|(_, next)| *next));
        done += 1;
    }
    order
}

/// Gives each node its longest suffix.
fn find_suffixes(nodes: &mut [Node], order: &[usize]) {
    for at in order {
        for (byte, next) in nodes[*at].longer.clone() {
            let mut suffix = *at;
            nodes[next].fail = loop {
                if suffix == 0 {
                    break 0;
                }
                suffix = nodes[suffix].fail;
                let next = &nodes[suffix].longer;
                if let Ok(found) = next.binary_search_by_key(&byte, |(b, _)| *b) {
                    break next[found].1;
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use xlb_engine::search;

    /// Counts what is looked at.
    struct Counted<'a>(&'a Automata, Cell<usize>);

    impl search::Automata for Counted<'_> {
        type State = xlb_search_state;
        type Row = u32;

        fn state(&self, place: u32) -> Option<xlb_search_state> {
            self.1.set(self.1.get() + 1);
            self.0.states.get(place as usize).copied()
        }
        fn row(&self, place: u32) -> Option<u32> {
            self.0.states.get(place as usize + 255)?;
            Some(place)
        }
        fn in_row(&self, row: u32, byte: u8) -> xlb_search_state {
            self.1.set(self.1.get() + 1);
            self.0.states[row as usize + usize::from(byte)]
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
            self.1.set(self.1.get() + 1);
            self.0.shorter.get(needle as usize).copied().unwrap_or(0)
        }
    }

    /// All bits that are set, and how many places were looked at.
    fn found(automata: &Automata, root: u32, text: &[u8]) -> (BTreeSet<u32>, usize) {
        let counted = Counted(automata, Cell::new(0));
        let bits = vec![Cell::new(0u64); automata.shorter.len().div_ceil(64)];
        search::all(&counted, root, text, &bits);
        let all = 0..u32::try_from(64 * bits.len()).expect("few");
        let is_set = |n: &u32| (bits[*n as usize / 64].get() >> (n % 64)) & 1 != 0;
        (all.filter(is_set).collect(), counted.1.get())
    }

    fn wanted(needles: &[&[u8]], first: u32, text: &[u8]) -> BTreeSet<u32> {
        (first..)
            .zip(needles)
            .filter(|(_, needle)| text.windows(needle.len()).any(|w| w == **needle))
            .map(|(number, _)| number)
            .collect()
    }

    fn draws(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed;
        move |n| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        }
    }

    #[test]
    fn all_needles_are_found_and_no_others() {
        let mut draw = draws(7);
        for _ in 0..2_000 {
            let mut automata = Automata::default();
            let letters = [&b"ab"[..], b"abc", &[0, 255, b'a', 0x80]][draw(3)];
            let word = |draw: &mut dyn FnMut(usize) -> usize, most: usize| -> Vec<u8> {
                (0..1 + draw(most))
                    .map(|_| letters[draw(letters.len())])
                    .collect()
            };
            // Two of them share the array.
            let sets: Vec<BTreeSet<Vec<u8>>> = (0..2)
                .map(|_| (0..1 + draw(20)).map(|_| word(&mut draw, 9)).collect())
                .collect();
            let sets: Vec<Vec<&[u8]>> = sets
                .iter()
                .map(|set| set.iter().map(Vec::as_slice).collect())
                .collect();
            let searches: Vec<Search> = sets
                .iter()
                .map(|set| automata.add(set).expect("few"))
                .collect();
            for _ in 0..20 {
                let text = word(&mut draw, 60);
                for (set, search) in sets.iter().zip(&searches) {
                    let (found, _) = found(&automata, search.root, &text);
                    let wanted = wanted(set, search.first, &text);
                    assert_eq!(found, wanted, "{set:?} in {}", text.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_search_is_linear() {
        let needles: Vec<Vec<u8>> = (0..200)
            .map(|n| [&vec![b'a'; n + 1][..], &b"b"[..n % 2]].concat())
            .collect();
        let needles: Vec<&[u8]> = needles.iter().map(Vec::as_slice).collect();
        let mut automata = Automata::default();
        let root = automata.add(&needles).expect("few").root;
        for text in [vec![b'a'; 10_000], b"aaaaaaaaac".repeat(1_000)] {
            let most = 2 * text.len() + needles.len() + 1;
            let count = found(&automata, root, &text).1;
            assert!(count <= most, "{count} of {most}");
        }
    }

    /// More bytes than may be known by each: failures go to suffixes.
    #[test]
    fn many_needles_are_no_large_table() {
        let mut draw = draws(5);
        let needles: BTreeSet<Vec<u8>> = (0..4_000)
            .map(|_| {
                (0..10)
                    .map(|_| b'a' + u8::try_from(draw(26)).expect("a letter"))
                    .collect()
            })
            .collect();
        let needles: Vec<&[u8]> = needles.iter().map(Vec::as_slice).collect();
        let mut automata = Automata::default();
        let search = automata.add(&needles).expect("few");
        let bytes = needles.iter().map(|needle| needle.len()).sum::<usize>();
        let states = automata.states.len();
        assert!(states <= 2 * bytes, "{states} for {bytes}");
        let text: Vec<u8> = (0..2_000)
            .flat_map(|_| &needles[draw(needles.len())][draw(5)..])
            .copied()
            .collect();
        let (found, count) = found(&automata, search.root, &text);
        assert_eq!(found, wanted(&needles, search.first, &text));
        assert!(count <= 5 * text.len(), "{count} for {}", text.len());
    }

    /// Whatever the tables hold, it ends.
    #[test]
    fn a_broken_automaton_ends() {
        let mut draw = draws(3);
        for _ in 0..2_000 {
            let mut automata = Automata::default();
            let places = 1 + draw(400);
            for _ in 0..places {
                let mut number = || u32::try_from(draw(2 * places)).expect("small");
                automata.states.push(xlb_search_state {
                    base: number(),
                    check: number(),
                    fail: number(),
                    needle: number(),
                });
                automata.shorter.push(number());
            }
            let text: Vec<u8> = (0..1_000)
                .map(|_| u8::try_from(draw(256)).expect("a byte"))
                .collect();
            let count = found(&automata, 0, &text).1;
            assert!(count <= 6 * text.len());
        }
    }
}
