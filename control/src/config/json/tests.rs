// SPDX-License-Identifier: GPL-2.0
//! What is read here is what libyaml reads.
//!
//! Each case draws from a seed of its own, which a failure names.

use super::super::node;
use super::*;
use crate::random::Random;

/// With all places; `None` when it is left to libyaml.
fn same_as_yaml(text: &str, case: &dyn Fn() -> String) -> Option<Node> {
    let root = parse(text)?;
    match node::parse_yaml(text) {
        Ok(documents) => assert_eq!(
            format!("{documents:?}"),
            format!("{:?}", [(0, &root)]),
            "{}",
            case()
        ),
        Err((at, message)) => panic!("{}:{}: {message}: {}", at.line, at.column, case()),
    }
    Some(root)
}

fn is_taken(text: &str) -> bool {
    same_as_yaml(text, &|| format!("{text:?}")).is_some()
}

#[test]
fn plain_json_is_taken() {
    for text in [
        "{}",
        "[]",
        " \n [ ] \r\n\n",
        "{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\"}}\n",
        "{\n\t\"a\": [\n\t\t1,\t2\n\t]\n}\n",
        "{\r\n  \"a\"  :\r\n  \"b\"\r\n}",
        "[0, -0, -1, 12, 1.5, -0.0, 1e5, 1E-5, 2.5e+3]",
        "[170141183460469231731687303715884105727, 170141183460469231731687303715884105728]",
        r#"["\"\\\/\b\f\n\r\t", "\u0041\u00e9\u0000\u2028\uffff"]"#,
        "[\"\u{e9}\u{20ac}\u{1f600}\", 1,\n\"\u{a0}\", 2]",
        "{\"a\": 1, \"a\": 2, \"\": 3, \"<<\": 4}",
        "[\"# no comment\", \"a: b\", \"  \", \"---\", \"{\", \"&a\", \"*a\", \"!!int\", \"'\"]",
    ] {
        assert!(is_taken(text), "{text:?}");
    }
}

#[test]
fn the_rest_is_left_to_yaml() {
    for text in [
        "",
        " ",
        "1",
        "\"a\"",
        "null",
        "a: 1",
        "{} {}",
        "{}\n---\n{}",
        "--- {}",
        "{} # comment",
        "[1, # comment\n2]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a: 1}",
        "{1: 1}",
        "{'a': 1}",
        "{[1]: 1}",
        "{\"a\": b}",
        "[\"a\": 1]",
        "{\"a\"\n: 1}",
        "[1}",
        "{\"a\": [1}",
        "[\"a]",
        "[\"a\nb\"]",
        "[\"a\tb\"]",
        "[\"\u{7f}\"]",
        "[\"\u{85}\"]",
        "[\"\u{2028}\"]",
        "[\"\u{feff}\"]",
        "[\"\u{ffff}\"]",
        "\u{feff}{}",
        "\t{}",
        "{}\t",
        "[1\r]",
        "[\u{a0}1]",
        r#"["\ud83d\ude00"]"#,
        r#"["\x41"]"#,
        r#"["\u004"]"#,
        r#"["\u+041"]"#,
        r#"["\"#,
        "[01]",
        "[-]",
        "[+1]",
        "[.5]",
        "[1.]",
        "[1e]",
        "[0x1f]",
        "[1e999]",
        "[NaN]",
        "[tru]",
        "[truer]",
        "[True]",
    ] {
        assert!(!is_taken(text), "{text:?}");
    }
}

#[test]
fn limits() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_taken(&nested(MAX_DEPTH)));
    assert!(!is_taken(&nested(MAX_DEPTH + 1)));

    // With its quotes, and up to the colon.
    for (before, after) in [("", ""), ("x", " "), ("\u{e9}", "\t")] {
        let key = |bytes: usize| {
            let bytes = bytes - 2 - before.len() - after.len();
            format!("{{\"{before}{}\"{after}: 1}}", "k".repeat(bytes))
        };
        assert!(is_taken(&key(MAX_KEY_BYTES)), "{before:?}");
        assert!(!is_taken(&key(MAX_KEY_BYTES + 1)), "{before:?}");
    }
    let key = |bytes: usize| format!("{{\"{}\": 1}}", "k".repeat(bytes - 2));
    assert!(node::parse(&key(MAX_KEY_BYTES + 1)).is_err());
    assert!(is_taken(&format!("[\"{}\"]", "v".repeat(5000))));

    // Those in strings count, which may close what was never open.
    let strings =
        |before: &str, brackets: usize| format!("[{before}\"\u{e9}{}\"]", "[".repeat(brackets));
    for (before, most) in [
        ("", MAX_BRACKETS - 1),
        ("\"]}]\", ", MAX_BRACKETS),
        ("\"{\", ", MAX_BRACKETS - 2),
    ] {
        assert!(is_taken(&strings(before, most)), "{before}");
        assert!(!is_taken(&strings(before, most + 1)), "{before}");
        assert!(node::parse(&strings(before, most + 1)).is_err(), "{before}");
    }
}

/// What stands between the parts of a text.
enum Layout {
    Compact,
    Lines(&'static str, &'static str),
    Any,
}

struct Writer {
    random: Random,
    text: String,
    layout: Layout,
    /// With what may be left to libyaml.
    is_odd: bool,
}

const PLAIN: [&str; 12] = [
    "",
    "a",
    "name",
    "10.1.2.3:8080",
    "[fd00::1]:80",
    "/a/b?c=d#e",
    "a: b",
    " #",
    "- x",
    "'",
    "null",
    "{}",
];
const ODD: [&str; 22] = [
    r#"\""#,
    r"\\",
    r"\/",
    r"\n",
    r"\t",
    r"\b\f\r",
    r"\u0041",
    r"\u00E9",
    r"\u0000",
    r"\u2028",
    r"\ud83d\ude00",
    r"\ud800",
    "\u{e9}",
    "\u{20ac}",
    "\u{1f600}",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{7f}",
    "\t",
    "\u{fffd}",
];
const NUMBERS: [&str; 10] = [
    "0",
    "-0",
    "1",
    "-7",
    "8080",
    "4294967296",
    "1.5",
    "-0.25",
    "1e3",
    "2.5E-7",
];
const ODD_NUMBERS: [&str; 8] = ["1e999", "-1e-999", "01", "1.", ".5", "+1", "0x1f", "0o17"];
const SPACES: [&str; 8] = ["", "", " ", "  ", "\n", "\r\n", "\t", " \n "];
const ODD_SPACES: [&str; 6] = ["\r", "\u{a0}", "# x\n", "\u{85}", "\u{feff}", "\n\n\t"];

impl Writer {
    fn space(&mut self) {
        match self.layout {
            Layout::Compact | Layout::Lines(..) => {}
            Layout::Any if self.is_odd && self.random.chance(1) => {
                self.text += self.random.one(&ODD_SPACES)
            }
            Layout::Any => self.text += self.random.one(&SPACES),
        }
    }

    fn line(&mut self, depth: usize) {
        match self.layout {
            Layout::Compact => {}
            Layout::Lines(end, indent) => {
                self.text = std::mem::take(&mut self.text) + end + &indent.repeat(depth)
            }
            Layout::Any => self.space(),
        }
    }

    fn string(&mut self) {
        self.text.push('"');
        for _ in 0..1 + self.random.below(2) {
            self.text += match self.is_odd && self.random.chance(10) {
                true => self.random.one(&ODD),
                false => self.random.one(&PLAIN),
            };
        }
        if self.is_odd && self.random.chance(1) {
            let long = 1000 + self.random.below(50);
            self.text += &"k".repeat(long);
        }
        self.text.push('"');
    }

    fn value(&mut self, depth: usize) {
        let kinds = if depth < 6 { 8 } else { 5 };
        match if depth == 0 {
            5 + self.random.below(3)
        } else {
            self.random.below(kinds)
        } {
            0 => self.text += self.random.one(&["true", "false", "null"]),
            1 if self.is_odd && self.random.chance(10) => {
                self.text += self.random.one(&ODD_NUMBERS)
            }
            1 => self.text += self.random.one(&NUMBERS),
            2..=4 => self.string(),
            5 | 6 => self.items('{', '}', depth, |writer| {
                writer.string();
                if writer.random.chance(20) {
                    writer.text.push(' ');
                }
                writer.text.push(':');
                writer.space();
                writer.value(depth + 1);
            }),
            _ => self.items('[', ']', depth, |writer| writer.value(depth + 1)),
        }
    }

    fn items(&mut self, open: char, close: char, depth: usize, item: impl Fn(&mut Writer)) {
        self.text.push(open);
        let count = self.random.below(4);
        for index in 0..count {
            if index > 0 {
                self.space();
                self.text.push(',');
            }
            self.line(depth + 1);
            item(self);
        }
        if count > 0 || self.random.chance(20) {
            self.line(depth);
        }
        self.text.push(close);
    }
}

fn document(seed: u64) -> Writer {
    let mut random = Random::new(seed);
    let layout = match random.below(6) {
        0 => Layout::Compact,
        1 => Layout::Lines("\n", "  "),
        2 => Layout::Lines("\r\n", "    "),
        3 => Layout::Lines("\n", "\t"),
        _ => Layout::Any,
    };
    let is_odd = random.chance(50);
    let mut writer = Writer {
        random,
        text: String::new(),
        layout,
        is_odd,
    };
    writer.text += writer.random.one(&["", "", "", " ", "\n", "\r\n  "]);
    writer.value(0);
    writer.text += writer.random.one(&["", "\n", "\r\n", " \n\n "]);
    writer
}

/// What a typing error, or another dialect, puts into a text.
const INSERTED: [&str; 46] = [
    "{", "}", "[", "]", ",", ":", "\"", "'", "\\", " ", "\t", "\n", "\r", "\r\n", "-", "+", ".",
    "e", "0", "1", "t", "#", " # x", "&", "*", "!", "|", ">", "%", "@", "`", "?", "~", "\0",
    "\u{7f}", "\u{85}", "\u{2028}", "\u{feff}", "\u{e9}", "---", "...", "\n--- ", "\\u", "\\u00",
    "//", "null",
];

fn mutated(random: &mut Random, text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(2) {
        let (at, other) = (random.below(bytes.len()), random.below(bytes.len()));
        let inserted = random.one(&INSERTED).bytes();
        match random.below(4) {
            0 => drop(bytes.remove(at)),
            1 => drop(bytes.splice(at..at, inserted)),
            2 => drop(bytes.splice(at..=at, inserted)),
            _ => bytes.swap(at, other),
        }
        if bytes.is_empty() {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

#[test]
fn any_text_is_read_as_yaml_or_left_to_it() {
    const SEED: u64 = 1 << 20;
    println!("SEED={SEED}");
    let (mut odd, mut odd_taken, mut mutants, mut mutants_taken) = (0, 0, 0, 0);
    for seed in SEED..SEED + 20_000 {
        let mut writer = document(seed);
        let text = std::mem::take(&mut writer.text);
        let is_taken = same_as_yaml(&text, &|| format!("seed {seed}: {text:?}")).is_some();
        assert!(is_taken || writer.is_odd, "seed {seed}: {text:?}");
        odd += usize::from(writer.is_odd);
        odd_taken += usize::from(writer.is_odd && is_taken);
        for _ in 0..3 {
            if let Some(text) = mutated(&mut writer.random, &text) {
                let taken = same_as_yaml(&text, &|| format!("seed {seed}: {text:?}"));
                mutants += 1;
                mutants_taken += usize::from(taken.is_some());
            }
        }
    }
    println!("{odd_taken} of {odd} odd ones, {mutants_taken} of {mutants} mutants taken");
    for (taken, of) in [(odd_taken, odd), (mutants_taken, mutants)] {
        assert!(taken > of / 10 && taken < of, "{taken} of {of}");
    }
}
