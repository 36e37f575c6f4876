// SPDX-License-Identifier: GPL-2.0
//! A file that is one JSON document, which is what programs write, without libyaml: in a sixth of its instructions.
//!
//! [`parse`] makes the tree that libyaml's events make, places included, or none.  What is not strict JSON
//! (RFC 8259), and what YAML reads otherwise or refuses, is left to libyaml: so are all messages.

use std::mem;

use super::node::{number, At, Entry, Node, Value, MAX_DEPTH as MAX_BRACKETS};

/// A configuration needs ten; each level takes stack.
const MAX_DEPTH: usize = 64;
/// From a key's first byte to its colon: libyaml looks no further than so many characters (YAML 1.2.2, section 7.4.2).
const MAX_KEY_BYTES: usize = 1024;

/// In a string: a character of one byte that stands for itself, and is no bracket.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'[' | b']' | b'{' | b'}');
        byte += 1;
    }
    plain
};

/// The document, a list or a mapping; `None`: ask libyaml.
pub fn parse(text: &str) -> Option<Node> {
    let mut reader = Reader {
        text,
        pos: 0,
        line: 1,
        line_start: 0,
        depth: 0,
        brackets: 0,
        items: Vec::new(),
        entries: Vec::new(),
    };
    reader.space();
    if !matches!(reader.peek()?, b'{' | b'[') {
        return None;
    }
    let root = reader.value()?;
    reader.space();
    reader.peek().is_none().then_some(root)
}

struct Reader<'t> {
    text: &'t str,
    /// In bytes, as all places here.
    pos: usize,
    line: u32,
    /// Where the line would begin if all characters before `pos` were of one byte.
    line_start: usize,
    depth: usize,
    /// Open ones, as [`super::node::parse`] counts them: those in strings too.
    brackets: usize,
    /// Of the lists and mappings that are open, the outer ones first: each list is allocated when its length is known.
    items: Vec<Node>,
    entries: Vec<Entry>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.pos += usize::from(is_next);
        is_next
    }

    fn at(&self) -> Option<At> {
        Some(At {
            line: self.line,
            column: u32::try_from(self.pos - self.line_start + 1).ok()?,
        })
    }

    /// A tab outside of brackets, and a CR without LF, end it: nothing that may follow begins with them.
    fn space(&mut self) {
        let mut bytes = self.text.as_bytes().get(self.pos..).unwrap_or(&[]);
        loop {
            while let [b' ', rest @ ..] = bytes {
                bytes = rest;
            }
            bytes = match bytes {
                [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => {
                    self.line += 1;
                    self.line_start = self.text.len() - rest.len();
                    rest
                }
                [b'\t', rest @ ..] if self.depth > 0 => rest,
                _ => break,
            }
        }
        self.pos = self.text.len() - bytes.len();
    }

    fn value(&mut self) -> Option<Node> {
        let at = self.at()?;
        let value = match self.peek()? {
            b'{' => self.map()?,
            b'[' => self.list()?,
            b'"' => Value::Text(self.string()?),
            b't' => self.word("true", Value::Bool(true))?,
            b'f' => self.word("false", Value::Bool(false))?,
            b'n' => self.word("null", Value::Null)?,
            _ => self.number()?,
        };
        Some(Node {
            value,
            at,
            alias: None,
        })
    }

    /// Over a bracket, which may be in a string.
    fn opening(&mut self) -> Option<()> {
        self.pos += 1;
        self.brackets += 1;
        (self.brackets <= MAX_BRACKETS).then_some(())
    }

    fn closing(&mut self) {
        self.pos += 1;
        self.brackets = self.brackets.saturating_sub(1);
    }

    fn list(&mut self) -> Option<Value> {
        let first = self.items.len();
        self.each(b']', |reader| {
            let item = reader.value()?;
            reader.items.push(item);
            Some(())
        })?;
        // A long one stands at the beginning: it is not copied.
        let items = match first {
            0 => mem::take(&mut self.items),
            _ => self.items.drain(first..).collect(),
        };
        Some(Value::List(items))
    }

    fn map(&mut self) -> Option<Value> {
        let first = self.entries.len();
        self.each(b'}', |reader| {
            let entry = reader.entry()?;
            reader.entries.push(entry);
            Some(())
        })?;
        Some(Value::Map(self.entries.drain(first..).collect()))
    }

    /// From a bracket over its items, with commas between them, to the other bracket, `end`.
    fn each(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.opening()?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.space();
        if self.peek()? != end {
            item(self)?;
            self.space();
            while self.eat(b',') {
                self.space();
                item(self)?;
                self.space();
            }
        }
        if self.peek()? != end {
            return None;
        }
        self.closing();
        self.depth -= 1;
        Some(())
    }

    fn entry(&mut self) -> Option<Entry> {
        let (at, start) = (self.at()?, self.pos);
        if self.peek()? != b'"' {
            return None;
        }
        let key = self.string()?;
        self.space();
        if self.line != at.line || self.pos - start > MAX_KEY_BYTES || !self.eat(b':') {
            return None;
        }
        self.space();
        let node = self.value()?;
        Some(Entry { key, at, node })
    }

    /// The next byte is its quote.
    fn string(&mut self) -> Option<String> {
        self.pos += 1;
        // What is behind the last escape is not in it yet.
        let mut string = String::new();
        let mut start = self.pos;
        loop {
            let rest = self.text.as_bytes().get(self.pos..)?;
            self.pos += rest.iter().position(|byte| !PLAIN[usize::from(*byte)])?;
            match self.peek()? {
                b'"' => {
                    let rest = self.text.get(start..self.pos)?;
                    self.pos += 1;
                    return Some(match string.is_empty() {
                        true => rest.to_owned(),
                        false => string + rest,
                    });
                }
                b'\\' => {
                    string.push_str(self.text.get(start..self.pos)?);
                    string.push(self.escape()?);
                    start = self.pos;
                }
                b'[' | b'{' => self.opening()?,
                b']' | b'}' => self.closing(),
                0x80.. => self.wide()?,
                _ => return None,
            }
        }
    }

    /// A character of more than one byte, if libyaml takes it, and not for a line break.
    fn wide(&mut self) -> Option<()> {
        let c = self.text.get(self.pos..)?.chars().next()?;
        if matches!(
            c,
            '\0'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            return None;
        }
        self.pos += c.len_utf8();
        self.line_start += c.len_utf8() - 1;
        Some(())
    }

    /// Those that are the same in YAML: it has no surrogates.
    fn escape(&mut self) -> Option<char> {
        let (end, c) = match self.text.as_bytes().get(self.pos + 1)? {
            b'b' => (2, '\u{8}'),
            b'f' => (2, '\u{c}'),
            b'n' => (2, '\n'),
            b'r' => (2, '\r'),
            b't' => (2, '\t'),
            c @ (b'"' | b'\\' | b'/') => (2, char::from(*c)),
            b'u' => {
                let digits = self.text.get(self.pos + 2..self.pos + 6)?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                (6, char::from_u32(u32::from_str_radix(digits, 16).ok()?)?)
            }
            _ => return None,
        };
        self.pos += end;
        Some(c)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text.get(self.pos..)?.strip_prefix(word)?;
        self.pos += word.len();
        Some(value)
    }

    /// What YAML's core schema takes for text, such as 1e999, is left to libyaml.
    fn number(&mut self) -> Option<Value> {
        let start = self.pos;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        number(self.text.get(start..self.pos)?)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.pos;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
        (self.pos > start).then_some(())
    }
}

#[cfg(test)]
mod tests;
