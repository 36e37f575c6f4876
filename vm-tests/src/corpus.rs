// SPDX-License-Identifier: GPL-2.0
//! Raw messages from data files.
//!
//! ```text
//! # a comment
//! == name of the message
//! expect: reject          (or: any)
//! GET / HTTP/1.1\r\n
//! Host: a\r\n
//! \r\n
//! ```
//!
//! The line ends of the file mean nothing: `\r \n \t \0 \\ \xHH` stand for bytes. `{MARK}` becomes the marker of
//! the exchange, `{PAD:n}` n letters; `{LEN}` and `{HEX}` the length of what stands between `{{` and `}}`.

use anyhow::{bail, Context, Result};

/// What must come of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// XLB answers with an error, or ends the connection, and no backend sees the message.
    Reject,
    /// Whatever XLB makes of it is right as long as nobody else is touched.
    Any,
}

pub struct Entry {
    pub name: String,
    pub expect: Expect,
    text: String,
}

impl Entry {
    /// The bytes, with the marker filled in.
    pub fn bytes(&self, mark: &str) -> Result<Vec<u8>> {
        let text = expand(&self.text.replace("{MARK}", mark))?;
        unescape(&measure(&text)?).with_context(|| self.name.clone())
    }
}

pub fn parse(file: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in file.lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            entries.push(Entry {
                name: name.to_owned(),
                expect: Expect::Any,
                text: String::new(),
            });
            continue;
        }
        let entry = entries.last_mut().context("a line before the first name")?;
        match line.strip_prefix("expect: ") {
            Some("reject") => entry.expect = Expect::Reject,
            Some("any") => entry.expect = Expect::Any,
            Some(other) => bail!("{}: expect: {other}?", entry.name),
            None => entry.text.push_str(line),
        }
    }
    Ok(entries)
}

fn expand(text: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{PAD:") {
        let (count, after) = after.split_once('}').context("{PAD:n without }")?;
        out.push_str(before);
        out.push_str(&"a".repeat(count.parse().context("{PAD:n}")?));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Fills in the length of the marked part.
fn measure(text: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once("{{") else {
        return Ok(text.to_owned());
    };
    let (inside, after) = rest.split_once("}}").context("{{ without }}")?;
    let length = unescape(inside)?.len();
    let before = before
        .replace("{LEN}", &length.to_string())
        .replace("{HEX}", &format!("{length:x}"));
    Ok(format!("{before}{inside}{after}"))
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [bytes.next().context("\\x")?, bytes.next().context("\\x")?];
                u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
            }
            other => bail!("unknown escape {other:?}"),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_places_are_filled_in() -> Result<()> {
        let entries = parse("# c\n== one\nexpect: reject\nGET /{MARK} x\\r\\n\n{PAD:3}\\x00\\t\n")?;
        let entry = entries.first().context("one entry")?;
        assert_eq!(entry.expect, Expect::Reject);
        assert_eq!(entry.bytes("M")?, b"GET /M x\r\naaa\0\t");
        Ok(())
    }

    #[test]
    fn the_committed_corpora_parse() -> Result<()> {
        for file in [
            crate::cases::smuggle::REQUESTS,
            crate::cases::smuggle::RESPONSES,
        ] {
            let entries = parse(file)?;
            assert!(entries.len() > 20);
            for entry in entries {
                assert!(!entry.bytes("MARK")?.is_empty(), "{}", entry.name);
            }
        }
        Ok(())
    }
}
