// SPDX-License-Identifier: GPL-2.0
//! Reading fields out of a tree, with every problem written down and none fatal.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::node::{At, Entry, Node, Step, Value};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub steps: Vec<Step>,
    /// What is wrong, and how to mend it.
    pub message: String,
    /// Where in the file, and by which alias; `None` as long as only the steps are known.
    pub at: Option<At>,
    pub alias: Option<At>,
}

/// `services[0].virtual_hosts[1].routes[3].match.path`
pub fn path_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&visible(key));
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// What a terminal would not show, or would obey, is escaped.
pub fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{a0}')
    };
    text.chars()
        .map(|c| match c {
            c if hidden(c) => c.escape_unicode().to_string(),
            c => c.to_string(),
        })
        .collect()
}

/// More problems than this are counted, not described: there is an end to what one wants to read.
pub const MAX_DESCRIBED: usize = 100;

/// Where the problems go.
#[derive(Default)]
pub struct Issues {
    list: RefCell<Vec<Issue>>,
    total: Cell<usize>,
    /// By the place of a list: which of its items could not be decoded.
    dropped: RefCell<HashMap<At, BTreeSet<usize>>>,
}

impl Issues {
    /// Counts one more; tells whether it is to be described, which may cost time.
    pub fn wanted(&self) -> bool {
        self.total.set(self.total.get() + 1);
        self.total.get() <= MAX_DESCRIBED
    }

    /// Of one that is [wanted](Self::wanted).
    pub fn push(&self, issue: Issue) {
        self.list.borrow_mut().push(issue);
    }

    pub fn total(&self) -> usize {
        self.total.get()
    }

    pub fn list(&self) -> Vec<Issue> {
        self.list.borrow().clone()
    }

    /// From the index in what was decoded of a list to the one in the file.
    pub fn written_index(&self, list: At, decoded: usize) -> usize {
        let dropped = self.dropped.borrow();
        let earlier = dropped.get(&list).into_iter().flatten();
        earlier.fold(decoded, |index, dropped| {
            index + usize::from(*dropped <= index)
        })
    }
}

/// The way to a field, as a chain of borrowed steps: free until there is an error.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    pub fn steps(&self) -> Vec<Step> {
        match self {
            Place::Root => Vec::new(),
            Place::Key(parent, key) => {
                let mut steps = parent.steps();
                steps.push(Step::Key((*key).to_owned()));
                steps
            }
            Place::Index(parent, index) => {
                let mut steps = parent.steps();
                steps.push(Step::Index(*index));
                steps
            }
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub node: &'a Node,
    pub place: Place<'a>,
    /// The alias through which the value came here.
    pub alias: Option<At>,
    pub issues: &'a Issues,
}

impl<'a> Field<'a> {
    pub fn wrong(&self, message: impl Into<String>) {
        if self.issues.wanted() {
            self.issues.push(Issue {
                steps: self.place.steps(),
                message: message.into(),
                at: Some(self.node.at),
                alias: self.alias,
            });
        }
    }

    /// Of a key of this mapping.
    fn wrong_key(&self, entry: &Entry, message: impl FnOnce() -> String) {
        if self.issues.wanted() {
            self.issues.push(Issue {
                steps: Place::Key(&self.place, &entry.key).steps(),
                message: message(),
                at: Some(entry.at),
                alias: self.alias,
            });
        }
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.wrong(format!("expected {what}, found {}", self.node.kind()));
        None
    }

    pub fn unsupported(&self, what: &str) {
        self.wrong(format!("{what} is not supported yet: remove it"));
    }

    pub fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                self.wrong(format!(
                    "expected a string, found {}: put it in quotes",
                    self.node.kind()
                ));
                None
            }
            _ => self.expected("a string"),
        }
    }

    pub fn flag(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(v) => Some(*v),
            _ => self.expected("true or false"),
        }
    }

    /// A number in `min..=max`.
    pub fn number(&self, min: u32, max: u32) -> Option<u32> {
        let Value::Int(v) = &self.node.value else {
            return self.expected("a whole number");
        };
        match u32::try_from(*v) {
            Ok(v) if (min..=max).contains(&v) => Some(v),
            _ => {
                self.wrong(format!(
                    "{v} is out of range: give a number from {min} to {max}"
                ));
                None
            }
        }
    }

    /// Any whole number of 64 bits.
    pub fn integer(&self) -> Option<i64> {
        let Value::Int(v) = &self.node.value else {
            return self.expected("a whole number");
        };
        let number = i64::try_from(*v).ok();
        if number.is_none() {
            self.wrong(format!("{v} is out of range: give a number of 64 bits"));
        }
        number
    }

    /// A number, whole or not.
    pub fn decimal(&self) -> Option<f64> {
        match &self.node.value {
            // Those that are meant have few digits.
            Value::Int(v) => Some(*v as f64),
            Value::Float(v) => Some(*v),
            _ => self.expected("a number"),
        }
    }

    /// `500ms`, `60s`, `5m`, `1h`; in milliseconds.
    pub fn duration_ms(&self) -> Option<u32> {
        let text = match &self.node.value {
            Value::Text(text) => text.as_str(),
            Value::Int(0) => return Some(0),
            _ => return self.expected("a duration such as 500ms, 60s, 5m or 1h"),
        };
        match parse_duration_ms(text) {
            Some(ms) => Some(ms),
            None => {
                self.wrong(format!(
                    "\"{text}\" is not a duration: write 500ms, 60s, 5m or 1h, up to 24h"
                ));
                None
            }
        }
    }

    /// `10.0.0.1:80` or `[fd00::1]:80`.  IPv4 in IPv6 becomes IPv4.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let text = self.text()?;
        let Ok(addr) = SocketAddr::from_str(text) else {
            self.wrong(format!(
                "\"{text}\" is not an address and port: write 10.0.0.1:80 or [fd00::1]:80"
            ));
            return None;
        };
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let ip = addr.ip();
        if addr.port() == 0 {
            self.wrong(format!(
                "\"{text}\": port 0 cannot be connected to: give 1 to 65535"
            ));
            return None;
        }
        if ip.is_unspecified() || ip.is_multicast() || text.contains('%') {
            self.wrong(format!(
                "\"{text}\": give the address of one host, without scope"
            ));
            return None;
        }
        Some(addr)
    }

    pub fn list<T>(&self, mut item: impl FnMut(Field<'_>) -> Option<T>) -> Vec<T> {
        let Value::List(nodes) = &self.node.value else {
            self.expected::<()>("a list");
            return Vec::new();
        };
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            match item(Field {
                node,
                place: Place::Index(&self.place, index),
                alias: node.alias.or(self.alias),
                issues: self.issues,
            }) {
                Some(item) => items.push(item),
                None => {
                    let mut dropped = self.issues.dropped.borrow_mut();
                    dropped.entry(self.node.at).or_default().insert(index);
                }
            }
        }
        items
    }

    /// As a mapping with any keys, each once without regard to case.
    pub fn map<T>(&self, mut item: impl FnMut(&str, Field<'_>) -> Option<T>) -> Vec<T> {
        let Value::Map(entries) = &self.node.value else {
            self.expected::<()>("a mapping");
            return Vec::new();
        };
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = entry.key.as_str();
            if let Some(line) = lines.insert(key.to_ascii_lowercase(), entry.at.line) {
                self.wrong_key(entry, || {
                    format!("given twice, first in line {line}: keep one")
                });
                continue;
            }
            items.extend(item(
                key,
                Field {
                    node: &entry.node,
                    place: Place::Key(&self.place, key),
                    alias: entry.node.alias.or(self.alias),
                    issues: self.issues,
                },
            ));
        }
        items
    }

    pub fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::List(items) if items.is_empty())
    }

    /// As a mapping with no other keys than `known`.
    pub fn object(&self, known: &[&str]) -> Option<Object<'a, '_>> {
        let Value::Map(entries) = &self.node.value else {
            return self.expected("a mapping");
        };
        // By index in `known`.
        let mut first: Vec<Option<At>> = vec![None; known.len()];
        for entry in entries {
            let key = entry.key.as_str();
            let index = known.iter().position(|word| *word == key);
            match index.and_then(|index| first.get_mut(index)) {
                None => self.wrong_key(entry, || {
                    let hint = match closest(key, known) {
                        Some(word) => format!("did you mean {word}?"),
                        None => format!("known here: {}", known.join(", ")),
                    };
                    format!("unknown field; {hint}")
                }),
                Some(Some(at)) => self.wrong_key(entry, || {
                    format!("given twice, first in line {}: keep one", at.line)
                }),
                Some(first) => *first = Some(entry.at),
            }
        }
        Some(Object { field: self })
    }
}

pub struct Object<'a, 'f> {
    field: &'f Field<'a>,
}

impl<'a> Object<'a, '_> {
    /// `None` when absent or empty.
    pub fn get<'k>(&'k self, key: &'k str) -> Option<Field<'k>>
    where
        'a: 'k,
    {
        let node = &self.field.node.entry(key)?.node;
        if node.value == Value::Null {
            return None;
        }
        Some(Field {
            node,
            place: Place::Key(&self.field.place, key),
            alias: node.alias.or(self.field.alias),
            issues: self.field.issues,
        })
    }

    /// As `get`; absence is an error, with what to write.
    pub fn need<'k>(&'k self, key: &'k str, example: &str) -> Option<Field<'k>>
    where
        'a: 'k,
    {
        let field = self.get(key);
        if field.is_none() {
            self.field.wrong(format!("{key} is missing: add {example}"));
        }
        field
    }

    /// Which of `keys` are given; more than one is an error.
    pub fn one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        let given: Vec<_> = keys
            .iter()
            .copied()
            .filter(|key| self.get(key).is_some())
            .collect();
        if given.len() > 1 {
            self.field.wrong(format!(
                "{} exclude each other: keep one",
                given.join(" and ")
            ));
        }
        given.first().copied()
    }

    pub fn wrong(&self, message: impl Into<String>) {
        self.field.wrong(message);
    }
}

/// `500ms`, `60s`, `1h 30m`: whole milliseconds, a day at most; and `0`.
pub fn parse_duration_ms(text: &str) -> Option<u32> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    if text == "0" {
        return Some(0);
    }
    let duration = humantime::parse_duration(text).ok()?;
    let ms = duration.as_millis();
    let is_whole = Duration::from_millis(u64::try_from(ms).ok()?) == duration;
    (is_whole && duration <= DAY).then_some(u32::try_from(ms).ok()?)
}

/// As [`parse_duration_ms`] takes it back.
pub fn duration_text(ms: u32) -> String {
    humantime::format_duration(Duration::from_millis(ms.into())).to_string()
}

/// The word that a typing error was meant to be.
pub fn closest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    const LONGEST: usize = 64;
    let limit = |k: &str| 1 + k.len() / 4;
    if word.len() > LONGEST {
        return None;
    }
    known
        .iter()
        .filter(|k| k.len() <= LONGEST && word.len().abs_diff(k.len()) <= limit(k))
        .map(|k| (strsim::levenshtein(word, k), *k))
        .filter(|(d, k)| *d <= limit(k))
        .min()
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("60s", 60_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
            ("5 s", 5000),
            ("1.5s", 1500),
            ("1h30m", 5_400_000),
            ("1m 500ms", 60_500),
        ] {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "s", "5", "1us", "-1s", "25h", "99999999999s", "2d"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
        for ms in [0, 1, 1500, 60_000, 60_001, 3_600_000, 86_400_000] {
            assert_eq!(parse_duration_ms(&duration_text(ms)), Some(ms));
        }
    }

    #[test]
    fn typing_errors() {
        let known = ["clusters", "listen", "name"];
        assert_eq!(closest("cluters", &known), Some("clusters"));
        assert_eq!(closest("lisen", &known), Some("listen"));
        assert_eq!(closest("banana", &known), None);
    }
}
