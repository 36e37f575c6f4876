// SPDX-License-Identifier: GPL-2.0
//! Regular expressions as `bpf_xlb_match()` walks them: dense deterministic automata, several expressions in one where that fits.
//!
//! The syntax is RE2's as far as both know it (no look-around, no back references); classes as `\w` are of ASCII, and `.` is
//! any byte but a line feed. An expression matches all of a value.

use std::collections::HashMap;

use regex_automata::dfa::{dense, Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

/// What the table of one automaton may take.
pub const MAX_BYTES: usize = 1 << 20;

/// What may be needed to make one.
const MAX_WORK: usize = 16 << 20;

/// The tables of `struct xlb_regex`.
pub struct Tables {
    pub classes: Vec<u8>,
    pub states: Vec<u16>,
    /// Each how many, and the numbers of the expressions, from 0.
    pub matches: Vec<u32>,
    pub stride: u16,
    pub start: u16,
    /// Expressions.
    pub count: u32,
}

impl Tables {
    /// With the bits of the expressions, of which these are the first.
    pub fn matches(&self, first: u32) -> Vec<u32> {
        let mut matches = self.matches.clone();
        let mut place = 0;
        while let Some((count, rest)) = matches.get_mut(place..).and_then(<[u32]>::split_first_mut)
        {
            let count = *count as usize;
            rest.iter_mut().take(count).for_each(|nth| *nth += first);
            place += 1 + count;
        }
        matches
    }
}

/// Why there is no automaton.
#[derive(Debug)]
pub enum Refused {
    /// It would take more than [`MAX_BYTES`].
    TooLarge,
    /// What is wrong with an expression.
    Wrong(String),
}

/// A text, and whether it is to match without case.
pub type Expression<'e> = (&'e str, bool);

/// One automaton for all of these.
pub fn tables(expressions: &[Expression<'_>]) -> Result<Tables, Refused> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let parsed = expressions.iter().map(|(text, ignore_case)| {
        syntax::parse_with(text, &syntax.case_insensitive(*ignore_case))
    });
    let parsed: Vec<_> = parsed.collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
    let nfa = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(MAX_WORK));
    // Nothing else is wrong with an expression that was read.
    let nfa = thompson::Compiler::new()
        .configure(nfa)
        .build_many_from_hir(&parsed)
        .map_err(|_| Refused::TooLarge)?;
    let dfa = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(4 * MAX_BYTES))
        .determinize_size_limit(Some(MAX_WORK));
    let dfa = dense::Builder::new()
        .configure(dfa)
        .build_from_nfa(&nfa)
        .map_err(|_| Refused::TooLarge)?;
    flat(&dfa, expressions.len()).ok_or(Refused::TooLarge)
}

/// The reason alone: the parser draws the place over several lines.
fn wrong(error: &dyn std::error::Error) -> Refused {
    let text = error.to_string();
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    let last = last.unwrap_or("not understood").trim();
    Refused::Wrong(last.trim_start_matches("error: ").to_owned())
}

/// Rows of 16 bits, from the start on in the order in which they are reached; `None` when these do not do.
fn flat(dfa: &dense::DFA<Vec<u32>>, count: usize) -> Option<Tables> {
    let byte_classes = dfa.byte_classes();
    let mut classes = Vec::with_capacity(256);
    // A byte of each class.
    let mut bytes: Vec<u8> = Vec::new();
    for byte in 0..=u8::MAX {
        let class = byte_classes.get(byte);
        if usize::from(class) == bytes.len() {
            bytes.push(byte);
        }
        classes.push(class);
    }
    let stride = bytes.len() + 1;
    let start = dfa
        .start_state(&start::Config::new().anchored(Anchored::Yes))
        .ok()?;
    let mut rows: HashMap<StateID, u16> = HashMap::new();
    let mut order = vec![start];
    rows.insert(start, 1);
    // Row 0 is left by nothing; place 0 of the matches is "none".
    let mut states = vec![0u16; stride];
    let mut matches = vec![0u32];
    let mut places: HashMap<Vec<u32>, u16> = HashMap::from([(Vec::new(), 0)]);
    let mut next = 0;
    while let Some(state) = order.get(next).copied() {
        next += 1;
        for byte in &bytes {
            let to = dfa.next_state(state, *byte);
            let row = if dfa.is_dead_state(to) {
                0
            } else if let Some(row) = rows.get(&to) {
                *row
            } else {
                order.push(to);
                let row = u16::try_from(order.len()).ok()?;
                rows.insert(to, row);
                row
            };
            states.push(row);
        }
        // A match is known one step behind its last byte.
        let end = dfa.next_eoi_state(state);
        let found: Vec<u32> = match dfa.is_match_state(end) {
            true => (0..dfa.match_len(end))
                .map(|n| dfa.match_pattern(end, n).as_u32())
                .collect(),
            false => Vec::new(),
        };
        let place = match places.get(&found) {
            Some(place) => *place,
            None => {
                let place = u16::try_from(matches.len()).ok()?;
                matches.push(u32::try_from(found.len()).ok()?);
                matches.extend(&found);
                places.insert(found, place);
                place
            }
        };
        states.push(place);
        if states.len() * size_of::<u16>() > MAX_BYTES {
            return None;
        }
    }
    Some(Tables {
        classes,
        states,
        matches,
        stride: u16::try_from(stride).ok()?,
        start: 1,
        count: u32::try_from(count).ok()?,
    })
}

/// As few automata as these fit in, each with the range of the expressions that it has.
pub fn together(expressions: &[Expression<'_>]) -> Option<Vec<(std::ops::Range<usize>, Tables)>> {
    fn parted(
        all: &[Expression<'_>],
        range: std::ops::Range<usize>,
        made: &mut Vec<(std::ops::Range<usize>, Tables)>,
    ) -> Option<()> {
        match tables(&all[range.clone()]) {
            Ok(tables) => made.push((range, tables)),
            Err(_) if range.len() < 2 => return None,
            Err(_) => {
                let middle = range.start + range.len() / 2;
                parted(all, range.start..middle, made)?;
                parted(all, middle..range.end, made)?;
            }
        }
        Some(())
    }
    let mut made = Vec::new();
    parted(expressions, 0..expressions.len(), &mut made)?;
    Some(made)
}

/// Whether an expression matches all of a text, by another engine.
#[cfg(test)]
pub fn plainly(text: &str, expression: Expression<'_>) -> bool {
    use regex_automata::nfa::thompson::pikevm::PikeVM;
    let (source, lower) = expression;
    let vm = PikeVM::builder()
        .syntax(
            syntax::Config::new()
                .unicode(false)
                .utf8(false)
                .case_insensitive(lower),
        )
        .thompson(thompson::Config::new().utf8(false))
        .build(&format!("\\A(?:{source})\\z"))
        .expect("an expression");
    vm.is_match(&mut vm.create_cache(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expressions that match, as the kernel finds them.
    fn found(tables: &Tables, text: &[u8]) -> Vec<u32> {
        let stride = usize::from(tables.stride);
        let mut row = usize::from(tables.start);
        for byte in text {
            row = tables.states[row * stride + usize::from(tables.classes[usize::from(*byte)])]
                .into();
        }
        let place = usize::from(tables.states[row * stride + stride - 1]);
        let count = tables.matches[place] as usize;
        let mut all = tables.matches[place + 1..][..count].to_vec();
        all.sort_unstable();
        all
    }

    #[test]
    fn many_in_one_pass() {
        let all = [
            ("/a/[0-9]+", false),
            ("/a/.*", false),
            ("/A/B", true),
            ("", false),
            ("/x{2,3}|/y", false),
            ("\\w+", false),
            ("[^/]*", false),
            ("^/a/1$", false),
            ("/a|/a/12b", false),
        ];
        let tables = tables(&all).expect("small");
        for text in [
            "/a/1", "/a/12b", "/a/b", "", "/xx", "/x", "/y", "word", "\u{e9}", "/a/", "a b",
        ] {
            let plain = (0u32..).zip(&all).filter(|(_, e)| plainly(text, **e));
            let plain: Vec<u32> = plain.map(|(n, _)| n).collect();
            assert_eq!(found(&tables, text.as_bytes()), plain, "{text:?}");
        }
        // A byte that is no text.
        assert_eq!(found(&tables, b"/a/\xff"), [1]);
        assert_eq!(found(&tables, b"/a/\n"), Vec::<u32>::new());
    }

    #[test]
    fn what_is_no_expression() {
        let wrong = |text| match tables(&[(text, false)]) {
            Err(Refused::Wrong(reason)) => reason,
            Err(Refused::TooLarge) => "too large".to_owned(),
            Ok(_) => "fine".to_owned(),
        };
        assert_eq!(wrong("a("), "unclosed group");
        assert_eq!(wrong("a)(b"), "unopened group");
        assert_eq!(
            wrong("(?=a)"),
            "look-around, including look-ahead and look-behind, is not supported"
        );
        assert_eq!(wrong("(a)\\1"), "backreferences are not supported");
        assert_eq!(wrong("[a-z]{1000}{1000}"), "too large");
        assert_eq!(wrong("(.*a.{14})"), "too large");
        assert_eq!(wrong("(?P<name>a)(?i)b"), "fine");
    }

    #[test]
    fn what_does_not_fit_together_is_parted() {
        let texts: Vec<String> = (0..40).map(|n| format!(".*a{n}.{{3}}b.*")).collect();
        let all: Vec<_> = texts.iter().map(|text| (text.as_str(), false)).collect();
        let made = together(&all).expect("each fits");
        assert!(made.len() > 1 && made.len() < 40, "{}", made.len());
        let ranges: Vec<_> = made.iter().flat_map(|(range, _)| range.clone()).collect();
        assert_eq!(ranges, (0..40).collect::<Vec<_>>());
        for (range, tables) in &made {
            for n in range.clone() {
                let text = format!("xa{n}yyyb");
                let nth = u32::try_from(n - range.start).expect("few");
                assert!(found(tables, text.as_bytes()).contains(&nth), "{n}");
            }
        }
    }
}
