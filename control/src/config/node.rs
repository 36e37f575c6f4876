// SPDX-License-Identifier: GPL-2.0
//! A YAML or JSON document as a tree in which every key and value knows its place.
//!
//! The tree is decoded by hand (see [`super::decode`]), not by derived `Deserialize`:
//! a derived one stops at the first error, and all are to be listed at once.

use std::collections::HashMap;

use super::json;
use super::yaml::{Event, Events, Head};

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    /// Where it is written.
    pub at: At,
    /// The alias by which it stands here too; where it is written is `at`.
    pub alias: Option<At>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key given twice is there twice.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub at: At,
    pub node: Node,
}

/// Equal whatever the places.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key == other.key && self.node == other.node
    }
}

impl Node {
    /// What it is, for "expected a string, found ...".
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Of a mapping: the first of that key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Itself and all in it.
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            _ => 0,
        }
    }
}

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// Where it stops being YAML, and why.
pub type ParseError = (At, String);

/// A configuration needs ten; the parser takes time with the square of the depth.
pub(super) const MAX_DEPTH: usize = 1000;
/// Values that aliases may add: a file of a few lines could mean more than there is memory.
const MAX_ALIASED: usize = 1_000_000;

/// The documents of a file that are not empty, each with its index.
pub fn parse(text: &str) -> Result<Vec<(usize, Node)>, ParseError> {
    match json::parse(text) {
        Some(root) => Ok(vec![(0, root)]),
        None => parse_yaml(text),
    }
}

/// As [`parse`], all by libyaml.
pub(super) fn parse_yaml(text: &str) -> Result<Vec<(usize, Node)>, ParseError> {
    let start = At { line: 1, column: 1 };
    if let Some(at) = too_deep(text) {
        return Err((
            at,
            format!("more than {MAX_DEPTH} brackets are open: close them"),
        ));
    }
    let mut events = Events::new(text).ok_or((start, "no memory".to_owned()))?;
    let mut documents = Vec::new();
    let mut index = 0;
    let mut builder = Builder::default();
    loop {
        let (event, at) = events.next().map_err(plainly)?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart => builder = Builder::default(),
            Event::DocumentEnd => {
                if let Some(node) = builder.root.take() {
                    if node.value != Value::Null {
                        documents.push((index, node));
                    }
                }
                index += 1;
            }
            event => builder.event(event, at)?,
        }
    }
}

/// The place where too many brackets are open, those in strings counted too.
fn too_deep(text: &str) -> Option<At> {
    let mut depth = 0usize;
    let mut at = At { line: 1, column: 0 };
    for c in text.chars() {
        at.column += 1;
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            '\n' => {
                at.line += 1;
                at.column = 0;
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(at);
        }
    }
    None
}

/// The parser's words for what people get wrong most, in those of this file's messages.
fn plainly((at, message): (At, String)) -> ParseError {
    let plain = [
        (
            "found character that cannot start any token",
            "a value cannot begin with this character, nor a line with a tab: put the value in quotes, indent with spaces",
        ),
        (
            "mapping values are not allowed in this context",
            "a \": \" where none can be: put the value in quotes, or check the indent",
        ),
    ];
    let found = plain.iter().find(|(words, _)| message.contains(words));
    (
        at,
        found.map_or(message.clone(), |(_, plain)| (*plain).to_owned()),
    )
}

/// A list or a mapping that has begun.
struct Open {
    node: Node,
    anchor: Option<String>,
    /// Of a mapping: the key whose value comes next.
    key: Option<(String, At)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<String, Node>,
    aliased: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event, at: At) -> Result<(), ParseError> {
        match event {
            Event::Scalar { head, text, plain } => {
                let value = scalar(text, plain, head.tag.as_deref(), at)?;
                self.finished(new(value, at), head.anchor)
            }
            Event::ListStart(head) => self.begin(Value::List(Vec::new()), head, at),
            Event::MapStart(head) => self.begin(Value::Map(Vec::new()), head, at),
            Event::ListEnd | Event::MapEnd => match self.open.pop() {
                Some(open) => self.finished(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(name) => self.alias(&name, at),
            Event::StreamEnd | Event::DocumentStart | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, value: Value, head: Head, at: At) -> Result<(), ParseError> {
        if let Some(tag) = head
            .tag
            .filter(|tag| !["!", MAP, SEQ].contains(&tag.as_str()))
        {
            return Err(unknown_tag(&tag, at));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err((
                at,
                format!("more than {MAX_DEPTH} levels: is it a configuration?"),
            ));
        }
        if let Some(open) = self.open.last() {
            if matches!(open.node.value, Value::Map(_)) && open.key.is_none() {
                return Err((at, "a key must be a plain word".to_owned()));
            }
        }
        self.open.push(Open {
            node: new(value, at),
            anchor: head.anchor,
            key: None,
        });
        Ok(())
    }

    fn alias(&mut self, name: &str, at: At) -> Result<(), ParseError> {
        let Some(node) = self.anchors.get(name) else {
            let message = if self.open.iter().any(|o| o.anchor.as_deref() == Some(name)) {
                format!("*{name} stands in what it means: give the value itself")
            } else {
                format!("*{name} means nothing: there is no &{name} before it; put a text that begins with * in quotes")
            };
            return Err((at, message));
        };
        self.aliased += node.size();
        if self.aliased > MAX_ALIASED {
            return Err((
                at,
                format!("aliases stand for more than {MAX_ALIASED} values: write fewer of them"),
            ));
        }
        let mut node = node.clone();
        node.alias = Some(at);
        self.finished(node, None)
    }

    /// A whole value goes to where it belongs.
    fn finished(&mut self, node: Node, anchor: Option<String>) -> Result<(), ParseError> {
        if let Some(name) = anchor {
            self.anchors.insert(name, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => {
                    let at = node.alias.unwrap_or(node.at);
                    open.key = Some((key_text(node.value).map_err(|why| (at, why))?, at));
                }
                Some((key, at)) => entries.push(Entry { key, at, node }),
            },
            _ => {}
        }
        Ok(())
    }
}

fn new(value: Value, at: At) -> Node {
    Node {
        value,
        at,
        alias: None,
    }
}

fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::Text(text) => Ok(text),
        Value::Bool(v) => Ok(v.to_string()),
        Value::Int(v) => Ok(v.to_string()),
        Value::Float(v) => Ok(v.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err("a key must be a plain word".to_owned())
        }
    }
}

const STR: &str = "tag:yaml.org,2002:str";
const MAP: &str = "tag:yaml.org,2002:map";
const SEQ: &str = "tag:yaml.org,2002:seq";
const RESOLVED: [&str; 4] = [
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
];

fn unknown_tag(tag: &str, at: At) -> ParseError {
    let tag = match tag.strip_prefix("tag:yaml.org,2002:") {
        Some(name) => format!("!!{name}"),
        None => tag.to_owned(),
    };
    (at, format!("the tag {tag} is not known here: remove it"))
}

/// By YAML 1.2's core schema, section 10.3.2.
fn scalar(text: String, plain: bool, tag: Option<&str>, at: At) -> Result<Value, ParseError> {
    match tag {
        None if !plain => return Ok(Value::Text(text)),
        Some("!" | STR) => return Ok(Value::Text(text)),
        Some(tag) if !RESOLVED.contains(&tag) => return Err(unknown_tag(tag, at)),
        _ => {}
    }
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(&text) {
            Some(number) => number,
            None => Value::Text(text),
        },
    })
}

pub(super) fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return (!rest.starts_with(['+', '-']))
                .then(|| i128::from_str_radix(rest, radix).ok().map(Value::Int))
                .flatten();
        }
    }
    // "0123" is no number, and so is not 83 or 123.
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if let Ok(v) = text.parse::<i128>() {
        return Some(Value::Int(v));
    }
    let v = text.parse::<f64>().ok()?;
    v.is_finite().then_some(Value::Float(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, document: usize, keys: &[&str]) -> Option<(u32, u32)> {
        let documents = parse(text).expect("parses");
        let (_, root) = documents.iter().find(|(index, _)| *index == document)?;
        let mut node = root;
        for key in keys {
            node = match &node.value {
                Value::List(items) => items.get(key.parse::<usize>().ok()?)?,
                _ => &node.entry(key)?.node,
            };
        }
        Some((node.at.line, node.at.column))
    }

    #[test]
    fn places_of_values() {
        let text = "a: 1\nb:\n- x\n- {c: 2,\n   d: 3}\n---\n---\ne:\n  f: g\n";
        assert_eq!(at(text, 0, &["a"]), Some((1, 4)));
        assert_eq!(at(text, 0, &["b", "1", "d"]), Some((5, 7)));
        assert_eq!(at(text, 2, &["e", "f"]), Some((9, 6)));
        assert_eq!(at(text, 0, &["z"]), None);
        assert_eq!(
            at("{\n\t\"a\": [\n\t\t1,\n\t\ttrue]}", 0, &["a", "1"]),
            Some((4, 3))
        );
        assert_eq!(at("\u{e9}: [\u{fc}, x]", 0, &["\u{e9}", "1"]), Some((1, 8)));
    }

    #[test]
    fn json_is_yaml() {
        let json = parse(r#"{"a": [1, "x", true, null, -2.5e3, "1"]}"#).expect("parses");
        let yaml = parse("a: [1, x, true, ~, -2500.0, '1']").expect("parses");
        assert_eq!(json, yaml);
    }

    #[test]
    fn scalars_are_what_yaml_says() {
        for (text, value) in [
            ("0x1f", Value::Int(31)),
            ("-7", Value::Int(-7)),
            ("0123", Value::Text("0123".to_owned())),
            ("1.2.3", Value::Text("1.2.3".to_owned())),
            ("10.0.0.1:80", Value::Text("10.0.0.1:80".to_owned())),
            ("no", Value::Text("no".to_owned())),
            ("inf", Value::Text("inf".to_owned())),
            ("!!str 5", Value::Text("5".to_owned())),
            ("|\n  5\n", Value::Text("5\n".to_owned())),
            (".5", Value::Float(0.5)),
        ] {
            let documents = parse(&format!("a: {text}")).expect("parses");
            assert_eq!(
                documents[0].1.entry("a").expect("there").node.value,
                value,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        for (text, line, column, part) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3, 2, "expected"),
            (
                "a: 1\nb: *nothing\n",
                2,
                4,
                "*nothing means nothing: there is no &nothing",
            ),
            ("a: 1\nb: &b [*b]\n", 2, 8, "*b stands in what it means"),
            (
                "a: !!binary x\n",
                1,
                4,
                "the tag !!binary is not known here",
            ),
            ("? [a]\n: 1\n", 1, 3, "a key must be a plain word"),
            ("a:\n\tb: 1\n", 2, 1, "indent with spaces"),
            ("a: b: c\n", 1, 5, "put the value in quotes"),
        ] {
            let (at, message) = parse(text).expect_err(text);
            assert_eq!((at.line, at.column), (line, column), "{text}: {message}");
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let p = n - 1;
            text.push_str(&format!(
                "a{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n"
            ));
        }
        let (at, message) = parse(&text).expect_err("a bomb");
        assert!(message.contains("aliases stand for more than"), "{message}");
        assert!(at.line < 12, "{at:?}");
    }
}
