// SPDX-License-Identifier: GPL-2.0

//! The one form of a path that routes are matched with, and that is forwarded.
//!
//! The rule, which is what Envoy does with `normalize_path`, `merge_slashes` and `UNESCAPE_AND_FORWARD`, in this order:
//!
//! 1. percent-encoded unreserved characters are decoded (RFC 3986, section 6.2.2.2), and so are `%2F` and `%5C`;
//!    what stays encoded gets upper-case digits (6.2.2.1); what may not stand in a path as it is gets encoded;
//! 2. a backslash is a slash, and slashes that follow each other are one;
//! 3. `.` and `..` segments are resolved (5.2.4); `..` in the root stays there.
//!
//! Decoding happens once: `%252e` stays `%252e`.  Refused are malformed percent-encoding, `%00`, and dot segments with a
//! parameter (`..;x`), which some servers resolve and others do not.  A reserved character and its encoding
//! (`;` and `%3B`) are different paths, as RFC 3986, section 2.2, says.  Letters keep their case.
//!
//! The caller forwards the normal form, so no server decides on another path than the routes did.

use crate::out::Out;
use crate::reason::Reason;
use crate::scan;

/// What a `normalize` made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalized {
    /// The input is in normal form; nothing was written.
    Same,
    /// The normal form is in the output, this many bytes.
    Written(usize),
}

/// The most bytes that the normal form of `path` may need.
pub fn normalize_bound(path: &[u8]) -> usize {
    path.len().saturating_mul(3)
}

/// Number of segments of a path in normal form: 0 for `/`, 1 for `/a` and `/a/`.
pub fn segments(path: &[u8]) -> u32 {
    path.split(|b| *b == b'/')
        .filter(|s| !s.is_empty())
        .fold(0, |n: u32, _| n.saturating_add(1))
}

/// One step over a path.
enum Piece {
    Slash,
    Byte(u8),
    /// Stays percent-encoded.
    Encoded(u8),
}

/// The first piece of `path`, and the rest of it.
#[inline]
fn piece(path: &[u8]) -> Result<Option<(Piece, &[u8])>, Reason> {
    let (piece, rest) = match path {
        [] => return Ok(None),
        [b'/' | b'\\', rest @ ..] => (Piece::Slash, rest),
        [b'%', high, low, rest @ ..] => {
            let high = scan::hex(*high).ok_or(Reason::PathEscape)?;
            let low = scan::hex(*low).ok_or(Reason::PathEscape)?;
            let piece = match (high << 4) | low {
                0 => return Err(Reason::PathNul),
                b'/' | b'\\' => Piece::Slash,
                byte if scan::is_unreserved(byte) => Piece::Byte(byte),
                byte => Piece::Encoded(byte),
            };
            (piece, rest)
        }
        [b'%', ..] => return Err(Reason::PathEscape),
        [byte, rest @ ..] if scan::is_path(*byte) => (Piece::Byte(*byte), rest),
        [byte, rest @ ..] => (Piece::Encoded(*byte), rest),
    };
    Ok(Some((piece, rest)))
}

/// A segment that some servers take for `.` or `..` because they cut parameters off first.
fn is_dot_parameter(segment: &[u8]) -> bool {
    matches!(segment, [b'.', b';', ..] | [b'.', b'.', b';', ..])
}

/// Is this path its own normal form?
pub fn is_normal(path: &[u8]) -> bool {
    let Some(mut rest) = path.strip_prefix(b"/") else {
        return path == b"*";
    };
    // Almost every segment is of plain characters, so look at the first byte of each for dots.
    let mut segment = rest;
    loop {
        match rest {
            [] => return !is_dots(segment),
            [b'/', tail @ ..] => {
                if rest.len() == segment.len() || is_dots(until(segment, rest)) {
                    return false;
                }
                segment = tail;
                rest = tail;
            }
            [b'%', high, low, tail @ ..] => {
                let (Some(high_value), Some(low_value)) = (scan::hex(*high), scan::hex(*low))
                else {
                    return false;
                };
                let byte = (high_value << 4) | low_value;
                let lower = high.is_ascii_lowercase() || low.is_ascii_lowercase();
                if lower || scan::is_unreserved(byte) || matches!(byte, 0 | b'/' | b'\\') {
                    return false;
                }
                rest = tail;
            }
            [byte, tail @ ..] if scan::is_path(*byte) => rest = tail,
            _ => return false,
        }
    }
}

/// What of `whole` stands before its suffix `rest`.
#[inline]
fn until<'a>(whole: &'a [u8], rest: &[u8]) -> &'a [u8] {
    whole
        .get(..whole.len().saturating_sub(rest.len()))
        .unwrap_or(&[])
}

#[inline]
fn is_dots(segment: &[u8]) -> bool {
    segment.first() == Some(&b'.') && (matches!(segment, b"." | b"..") || is_dot_parameter(segment))
}

/// Brings a path (without query) to normal form.  `out` needs [`normalize_bound`] bytes at most.
pub fn normalize(path: &[u8], out: &mut [u8]) -> Result<Normalized, Reason> {
    if is_normal(path) {
        return Ok(Normalized::Same);
    }
    let mut rest = path.strip_prefix(b"/").ok_or(Reason::PathForm)?;
    let mut out = Out::new(out);
    out.push(b'/')?;
    let mut segment_start = 1;
    loop {
        let next = piece(rest)?;
        let slash = match &next {
            Some((Piece::Byte(byte), tail)) => {
                out.push(*byte)?;
                rest = tail;
                continue;
            }
            Some((Piece::Encoded(byte), tail)) => {
                out.put(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)])?;
                rest = tail;
                continue;
            }
            Some((Piece::Slash, tail)) => {
                rest = tail;
                true
            }
            None => false,
        };
        match out.bytes().get(segment_start..).unwrap_or(&[]) {
            b"" => {}
            b"." => out.truncate(segment_start),
            b".." => {
                // Back over the slash before the dots, to the slash before that.
                let parent = out
                    .bytes()
                    .get(..segment_start.saturating_sub(1))
                    .and_then(|b| b.iter().rposition(|b| *b == b'/'))
                    .map_or(1, |slash| slash.wrapping_add(1));
                out.truncate(parent);
                segment_start = parent;
            }
            segment if is_dot_parameter(segment) => return Err(Reason::PathParameter),
            _ if slash => {
                out.push(b'/')?;
                segment_start = out.len();
            }
            _ => {}
        }
        if !slash {
            return Ok(Normalized::Written(out.len()));
        }
    }
}

fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0'.wrapping_add(value),
        _ => b'A'.wrapping_add(value.wrapping_sub(10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Result<String, Reason> {
        let mut out = vec![0; normalize_bound(path.as_bytes())];
        Ok(match normalize(path.as_bytes(), &mut out)? {
            Normalized::Same => path.to_owned(),
            Normalized::Written(len) => String::from_utf8(out[..len].to_vec()).unwrap(),
        })
    }

    #[test]
    fn rule() {
        for (path, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            // RFC 3986, section 6.2.2
            ("/%7Esmith/home.html", "/~smith/home.html"),
            ("/%7esmith", "/~smith"),
            ("/a%3bb", "/a%3Bb"),
            ("/a%3Bb", "/a%3Bb"),
            ("/a;b", "/a;b"),
            // section 5.2.4
            ("/a/b/c/./../../g", "/a/g"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/./b", "/a/b"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            // slashes
            ("//a///b//", "/a/b/"),
            ("/a\\b", "/a/b"),
            ("/a%2fb%5Cc", "/a/b/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e%2fb", "/b"),
            ("/a//../b", "/b"),
            ("/a/%2f../b", "/b"),
            // once
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%25%32%65", "/%252e"),
            // not allowed raw
            ("/a|b{c}", "/a%7Cb%7Bc%7D"),
            ("/a%7cb", "/a%7Cb"),
            ("/\"<>^`", "/%22%3C%3E%5E%60"),
            ("/%E4%b8%ad", "/%E4%B8%AD"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(expected), "{path}");
            assert_eq!(is_normal(path.as_bytes()), path == expected, "{path}");
        }
    }

    #[test]
    fn refused() {
        for (path, reason) in [
            ("", Reason::PathForm),
            ("a", Reason::PathForm),
            ("/%", Reason::PathEscape),
            ("/%4", Reason::PathEscape),
            ("/%4g", Reason::PathEscape),
            ("/%u0041", Reason::PathEscape),
            ("/a%00", Reason::PathNul),
            ("/a/..;/b", Reason::PathParameter),
            ("/a/%2e%2e;x=1/b", Reason::PathParameter),
            ("/.;", Reason::PathParameter),
        ] {
            assert_eq!(normal(path), Err(reason), "{path}");
            assert!(!is_normal(path.as_bytes()), "{path}");
        }
        assert_eq!(normalize(b"//abc", &mut [0; 3]), Err(Reason::OutputFull));
    }

    #[test]
    fn normal_form_is_its_own_and_has_no_way_around() {
        let mut state = 7u64;
        let mut next = |n: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let parts = [
            "/", "a", ".", "..", "%2e", "%2F", "%5c", "\\", "//", "%41", "%", ";", "%3b", "|",
            "%25", "%00", "2e",
        ];
        for _ in 0..100_000 {
            let mut path = String::from("/");
            for _ in 0..next(10) {
                path.push_str(parts[next(parts.len())]);
            }
            let Ok(once) = normal(&path) else { continue };
            assert!(is_normal(once.as_bytes()), "{path} {once}");
            assert_eq!(normal(&once).as_deref(), Ok(once.as_str()));
            assert_eq!(is_normal(path.as_bytes()), once == path, "{path} {once}");
            assert!(!once.contains("//") && !once.contains('\\'));
            assert!(
                !once.split('/').any(|s| s == "." || s == ".."),
                "{path} {once}"
            );
        }
    }

    #[test]
    fn counts_segments() {
        for (path, count) in [("/", 0), ("/a", 1), ("/a/", 1), ("/a/b", 2), ("*", 1)] {
            assert_eq!(segments(path.as_bytes()), count, "{path}");
        }
    }
}
