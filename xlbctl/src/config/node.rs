// SPDX-License-Identifier: GPL-2.0
//! A YAML or JSON document as a tree, and the line of any place in it.
//!
//! The tree is decoded by hand (see [`super::decode`]), not by derived `Deserialize`:
//! a derived one stops at the first error, and all are to be listed at once.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key given twice is there twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for "expected a string, found ...".
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "true or false",
            Node::Int(_) | Node::Float(_) => "a number",
            Node::Text(_) => "a string",
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }
}

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The line, where the parser knows it, and what is wrong there.
pub type ParseError = (Option<usize>, String);

/// The documents of a file that are not empty, each with its index.  The error has the line,
/// where the parser knows it.
pub fn parse(text: &str) -> Result<Vec<(usize, Node)>, ParseError> {
    if let Some(line) = too_deep(text) {
        return Err((
            Some(line),
            format!("more than {MAX_DEPTH} brackets are open: close them"),
        ));
    }
    let mut documents = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        match Node::deserialize(document) {
            Ok(Node::Null) => {}
            Ok(node) => documents.push((index, node)),
            Err(err) => {
                let line = err.location().map(|at| at.line());
                return Err((line, without_location(&err.to_string())));
            }
        }
    }
    Ok(documents)
}

/// A configuration needs ten; the parser takes time with the square of the depth.
const MAX_DEPTH: usize = 1000;

/// The line where too many brackets are open, those in strings counted too.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut line) = (0usize, 1);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(line);
        }
    }
    None
}

/// The parser appends " at line L column C", and the caller prints the line itself.
fn without_location(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(at) => message[..at].to_owned(),
        None => message.to_owned(),
    }
}

/// The line (from 1) of the value at `steps` of a document.
///
/// Reads the text again and fails on purpose at the place: the parser then says
/// where it is.  Slow, and only errors ask for it.
pub fn line_of(text: &str, document: usize, steps: &[Step]) -> Option<usize> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    for _ in 0..document {
        IgnoredAny::deserialize(documents.next()?).ok()?;
    }
    let err = Seek { steps }.deserialize(documents.next()?).err()?;
    err.location().map(|at| at.line())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Int(v.into()))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Node, E> {
        Ok(Node::Int(v))
    }

    fn visit_u128<E>(self, v: u128) -> Result<Node, E> {
        Ok(i128::try_from(v).map_or(Node::Float(v as f64), Node::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        Ok(Node::Float(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Node, E> {
        Ok(Node::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Node, Node>()? {
            entries.push((key_text(key).map_err(A::Error::custom)?, value));
        }
        Ok(Node::Map(entries))
    }
}

fn key_text(key: Node) -> Result<String, &'static str> {
    match key {
        Node::Text(text) => Ok(text),
        Node::Bool(v) => Ok(v.to_string()),
        Node::Int(v) => Ok(v.to_string()),
        Node::Float(v) => Ok(v.to_string()),
        Node::Null | Node::List(_) | Node::Map(_) => Err("a key must be a plain word"),
    }
}

/// Walks to `steps` and fails there.
struct Seek<'s> {
    steps: &'s [Step],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.steps {
            // Any visit fails: the error gets the place of the value.
            [] => deserializer.deserialize_any(Here),
            _ => deserializer.deserialize_any(self),
        }
    }
}

struct Here;

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: this is a search")
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("not a list"));
        };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Seek { steps: rest })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("not a mapping"));
        };
        while let Some(key) = map.next_key::<Node>()? {
            if key_text(key).is_ok_and(|key| key == *wanted) {
                map.next_value_seed(Seek { steps: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_values() {
        let text = "a: 1\nb:\n- x\n- {c: 2,\n   d: 3}\n---\n---\ne:\n  f: g\n";
        let key = |k: &str| Step::Key(k.to_owned());
        assert_eq!(line_of(text, 0, &[key("a")]), Some(1));
        assert_eq!(
            line_of(text, 0, &[key("b"), Step::Index(1), key("d")]),
            Some(5)
        );
        assert_eq!(line_of(text, 2, &[key("e"), key("f")]), Some(9));
        assert_eq!(line_of(text, 0, &[key("z")]), None);
    }

    #[test]
    fn json_is_yaml() {
        let json = parse(r#"{"a": [1, "x", true, null]}"#).expect("parses");
        let yaml = parse("a: [1, x, true, ~]").expect("parses");
        assert_eq!(json, yaml);
    }

    #[test]
    fn syntax_errors_have_a_line() {
        let (line, message) = parse("a: 1\nb: [1, 2\nc: 3\n").expect_err("an open bracket");
        assert!(line.is_some(), "{message}");
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
        assert!(parse(&text).is_err());
    }
}
