// SPDX-License-Identifier: GPL-2.0

//! The forms of a path: the one that routes are matched with, and what may be forwarded.
//!
//! [`Form::Match`] is made in this order:
//!
//! 1. percent-encoded characters that may stand in a path as they are (RFC 3986, section 3.3) are decoded, and so are `%2F` and
//!    `%5C`; what stays encoded gets upper-case digits (6.2.2.1); what may not stand in a path as it is gets encoded;
//! 2. a backslash is a slash, and slashes that follow each other are one;
//! 3. `.` and `..` segments are resolved (5.2.4); `..` in the root stays there.
//!
//! So paths that any server takes for the same are the same to a rule, `/%40a` and `/@a` too.  Decoding happens once: `%252e`
//! stays `%252e`.  Refused are malformed percent-encoding, `%00`, and dot segments with a parameter (`..;x`), which some servers
//! resolve and others do not.  Letters keep their case, and a parameter (`/a;v=1`) is a part of its segment.
//!
//! What is forwarded are the bytes that came: to RabbitMQ, npm, GitLab and S3 `%2F` and `//` are names, and another spelling is
//! another resource.  That is no way around a rule, because [`forward`] leaves out or refuses what a server could read as a path
//! that was not matched.  The readings considered: segments split and then decoded, or decoded and then split; a backslash as a
//! slash or as itself; empty segments kept or merged; dot segments resolved (RFC 3986, section 5.2.4) before any of these, after
//! them, or never; the target read as a URL, to which `//x/y` is the host `x` and the path `/y`.  In all of them the path consists
//! of the segments that were matched: they can only differ in which slashes part segments and which belong to a name.  A rule
//! thus sees an encoded slash as a slash.
//!
//! Slashes at the start are therefore sent as one, as Python's `http.server` takes them since CVE-2021-28861.  Clients that join a
//! base that ends with a slash to a path that begins with one write `//x/y`, and mean what was matched, `/x/y`: nginx, Go's
//! `net/http` and Node's `http` see that path or two slashes, but `new URL(target, base)` in what runs on Node, `parse_url()` of PHP,
//! `urlsplit()` of Python and `java.net.URI` see `/y`.  To refuse such a request breaks its client, and to forward it as it came
//! lets `//x/admin` pass a rule for `/admin`.  With one slash all of them read what was matched.  The rest of the path stays as it
//! came.  The price: a server to which `//key` and `/key` are two resources gets no request for the first.
//!
//! A service that says `normalize: forward` gets [`Form::Forward`] instead: Envoy's `normalize_path`, `merge_slashes` and
//! `UNESCAPE_AND_FORWARD`.  It differs from the form that is matched in reserved characters (`;` and `%3B`), which keep the spelling
//! that they came in (RFC 3986, section 2.2).

use crate::out::Out;
use crate::reason::Reason;
use crate::scan;

/// What a path is brought to normal form for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// For rules: one spelling of what servers take for the same.
    Match,
    /// For a server: reserved characters stay encoded.
    Forward,
}

impl Form {
    /// Is this byte decoded when it comes encoded?
    #[inline]
    fn decodes(self, byte: u8) -> bool {
        match self {
            Form::Match => scan::is_path(byte),
            Form::Forward => scan::is_unreserved(byte),
        }
    }
}

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
fn piece(path: &[u8], form: Form) -> Result<Option<(Piece, &[u8])>, Reason> {
    let (piece, rest) = match path {
        [] => return Ok(None),
        [b'/' | b'\\', rest @ ..] => (Piece::Slash, rest),
        [b'%', high, low, rest @ ..] => {
            let high = scan::hex(*high).ok_or(Reason::PathEscape)?;
            let low = scan::hex(*low).ok_or(Reason::PathEscape)?;
            let piece = match (high << 4) | low {
                0 => return Err(Reason::PathNul),
                b'/' | b'\\' => Piece::Slash,
                byte if form.decodes(byte) => Piece::Byte(byte),
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
    matches!(
        segment,
        [b'.', b';', ..]
            | [b'.', b'.', b';', ..]
            | [b'.', b'%', b'3', b'B', ..]
            | [b'.', b'.', b'%', b'3', b'B', ..]
    )
}

/// Is this path its own normal form?
pub fn is_normal(path: &[u8], form: Form) -> bool {
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
                if lower || form.decodes(byte) || matches!(byte, 0 | b'/' | b'\\') {
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
pub fn normalize(path: &[u8], form: Form, out: &mut [u8]) -> Result<Normalized, Reason> {
    if is_normal(path, form) {
        return Ok(Normalized::Same);
    }
    let mut rest = path.strip_prefix(b"/").ok_or(Reason::PathForm)?;
    let mut out = Out::new(out);
    out.push(b'/')?;
    let mut segment_start = 1;
    loop {
        let next = piece(rest, form)?;
        let slash = match &next {
            Some((Piece::Byte(byte), tail)) => {
                out.push(*byte)?;
                rest = tail;
                continue;
            }
            Some((Piece::Encoded(byte), tail)) => {
                out.encoded(*byte)?;
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

/// How a path that was matched in normal form is forwarded: as it came from this offset on, where its last slash at the start
/// stands.  Only asked of one that has another form, and that has a normal form.
#[cold]
pub fn forward(path: &[u8]) -> Result<usize, Reason> {
    let slashes = path.iter().take_while(|b| **b == b'/').count();
    let start = slashes.saturating_sub(1);
    let path = path.get(start..).unwrap_or(&[]);
    if path.starts_with(b"/\\") {
        return Err(Reason::PathAuthority);
    }
    let mut rest = path;
    // Dots of the segment so far; nothing else in it.
    let mut dots = Some(0u32);
    while let Some((piece, tail)) = piece(rest, Form::Match)? {
        rest = tail;
        dots = match (piece, dots) {
            (Piece::Slash, Some(1 | 2)) => return Err(Reason::PathDots),
            (Piece::Slash, _) => Some(0),
            (Piece::Byte(b'.'), Some(n)) => Some(n.saturating_add(1)),
            _ => None,
        };
    }
    match dots {
        Some(1 | 2) => Err(Reason::PathDots),
        _ => Ok(start),
    }
}

/// What a path becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewPath<'a> {
    /// This path.
    Whole(&'a [u8]),
    /// `to`, instead of what stands for the first `matched` bytes of its [`Form::Match`].  Between the two is one slash
    /// where either has one, as Gateway API has it (`ReplacePrefixMatch`): of `/v2` and `/v2/a` where `/v2` was matched, `/`
    /// makes `/` and `/a`, and `/x/` makes `/x/` and `/x/a`.
    Prefix {
        /// Bytes of the form that rules see.
        matched: usize,
        /// What stands there instead.
        to: &'a [u8],
    },
}

impl NewPath<'_> {
    /// The most bytes that [`write`](Self::write) needs.
    pub fn bound(&self, path: &[u8]) -> usize {
        match self {
            NewPath::Whole(new) => new.len(),
            NewPath::Prefix { to, .. } => path.len().saturating_add(to.len()),
        }
    }

    /// Writes what `path` becomes, and returns its length.  The path is without dot segments, and has one slash at its
    /// start.  Its rest stays as it came, so what was a part of a segment may be a segment of dots now: what a server gets
    /// is for [`forward`] to judge.
    pub fn write(&self, path: &[u8], out: &mut [u8]) -> Result<usize, Reason> {
        let mut out = Out::new(out);
        match self {
            NewPath::Whole(new) => out.put(new)?,
            NewPath::Prefix { matched, to } => {
                let rest = match after(path, *matched)? {
                    // A prefix without segments is all of a path that has none.
                    rest if *matched == 0 && after(rest, 1) == Ok(&[]) => &[],
                    rest => rest,
                };
                let joins = matches!(rest.first(), Some(b'/' | b'\\'));
                out.put(to.strip_suffix(b"/").filter(|_| joins).unwrap_or(to))?;
                out.put(rest)?;
            }
        }
        Ok(out.len())
    }
}

/// What of `path` follows what stands for the first `bytes` of its [`Form::Match`].
fn after(path: &[u8], bytes: usize) -> Result<&[u8], Reason> {
    let (mut rest, mut left, mut slash) = (path, bytes, false);
    while let Some((piece, tail)) = piece(rest, Form::Match)? {
        let bytes = match piece {
            // Of those that follow each other.
            Piece::Slash if slash => 0,
            Piece::Slash | Piece::Byte(_) => 1,
            Piece::Encoded(_) => 3,
        };
        if bytes > left {
            break;
        }
        slash = matches!(piece, Piece::Slash);
        left = left.wrapping_sub(bytes);
        rest = tail;
    }
    match left {
        0 => Ok(rest),
        _ => Err(Reason::EditTarget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::draws;

    fn form(path: &str, form: Form) -> Result<String, Reason> {
        let mut out = vec![0; normalize_bound(path.as_bytes())];
        Ok(match normalize(path.as_bytes(), form, &mut out)? {
            Normalized::Same => path.to_owned(),
            Normalized::Written(len) => String::from_utf8(out[..len].to_vec()).unwrap(),
        })
    }

    fn normal(path: &str) -> Result<String, Reason> {
        form(path, Form::Match)
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
            ("/a;b", "/a;b"),
            // section 3.3
            ("/a%3bb", "/a;b"),
            ("/%40babel%2Fcore", "/@babel/core"),
            ("/%21%24%26%27%28%29%2A%2b%2C%3A%3d", "/!$&'()*+,:="),
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
            assert_eq!(
                is_normal(path.as_bytes(), Form::Match),
                path == expected,
                "{path}"
            );
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
            ("/a/..%3bx", Reason::PathParameter),
            ("/a/.%3B", Reason::PathParameter),
        ] {
            assert_eq!(normal(path), Err(reason), "{path}");
            assert_eq!(form(path, Form::Forward), Err(reason), "{path}");
            assert!(!is_normal(path.as_bytes(), Form::Match), "{path}");
        }
        assert_eq!(
            normalize(b"//abc", Form::Match, &mut [0; 3]),
            Err(Reason::OutputFull)
        );
    }

    #[test]
    fn reserved_characters_are_forwarded_as_they_came() {
        for (path, expected) in [
            ("/a%3bb;c//%7Ed", "/a%3Bb;c/~d"),
            ("/%40babel%2fcore", "/%40babel/core"),
            ("/a/../%3d", "/%3D"),
        ] {
            assert_eq!(form(path, Form::Forward).as_deref(), Ok(expected), "{path}");
            assert_eq!(normal(path), normal(expected), "{path}");
        }
    }

    #[test]
    fn what_may_be_forwarded_as_it_came() {
        for path in [
            "/api/queues/%2F/orders",
            "/@babel%2fcore",
            "/%40babel%2Fcore",
            "/projects/group%2Fproject",
            "/bucket//key",
            "/bucket/key//",
            "/%2Fkey",
            "/a\\b",
            "/a%5Cb",
            "/%61dmin",
            "/...",
            "/a/.../b",
            "/.a/..b/c./d..",
            "/%252e%252e/a",
            "/a|b",
        ] {
            assert_eq!(forward(path.as_bytes()), Ok(0), "{path}");
        }
        for (path, sent) in [
            ("//", "/"),
            ("//a/b", "/a/b"),
            ("///a//b", "/a//b"),
            ("//api/queues/%2F/orders", "/api/queues/%2F/orders"),
            ("//%2Fa", "/%2Fa"),
        ] {
            let start = forward(path.as_bytes()).unwrap();
            assert_eq!(&path[start..], sent);
        }
        for (path, reason) in [
            ("/.", Reason::PathDots),
            ("/..", Reason::PathDots),
            ("/a/./b", Reason::PathDots),
            ("/a/../b", Reason::PathDots),
            ("/a/%2e%2E/b", Reason::PathDots),
            ("/a/.%2e", Reason::PathDots),
            ("/a%2f..%2fb", Reason::PathDots),
            ("/a%2F%2E", Reason::PathDots),
            ("/a\\..\\b", Reason::PathDots),
            ("/a%5c..", Reason::PathDots),
            ("/a//..//b", Reason::PathDots),
            ("//..//a", Reason::PathDots),
            ("//./a", Reason::PathDots),
            ("/\\a/b", Reason::PathAuthority),
            ("//\\a/b", Reason::PathAuthority),
            ("/\\/a/b", Reason::PathAuthority),
        ] {
            assert_eq!(forward(path.as_bytes()), Err(reason), "{path}");
        }
    }

    fn replaced(path: &str, matched: &str, to: &str) -> Result<String, Reason> {
        let new = NewPath::Prefix {
            matched: matched.len(),
            to: to.as_bytes(),
        };
        let mut out = vec![0; new.bound(path.as_bytes())];
        let len = new.write(path.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out[..len].to_vec()).unwrap())
    }

    /// The table of Gateway API's HTTPPathModifier, and what it leaves out.
    #[test]
    fn prefixes_are_replaced() {
        for (path, matched, to, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo", "/xyz/", "/xyz/"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // No segment was matched.
            ("/", "", "/", "/"),
            ("/", "", "/x", "/x"),
            ("/", "", "/x/", "/x/"),
            ("/a/b", "", "/x", "/x/a/b"),
            ("/a/b", "", "/", "/a/b"),
            // In another spelling.
            ("/%66oo/%62ar%2F", "/foo", "/x", "/x/%62ar%2F"),
            ("/foo%2Fbar//c", "/foo/bar", "/x", "/x//c"),
            ("/foo%2fbar", "/foo", "/x/", "/x/%2fbar"),
            ("/foo%2fbar", "/foo", "/x", "/x%2fbar"),
            ("/foo//bar", "/foo", "/", "//bar"),
            ("/%e4%b8%ad/a", "/%E4%B8%AD", "/x", "/x/a"),
            ("/\u{e9}/a", "/%C3%A9", "/x", "/x/a"),
            ("/a|b/c", "/a%7Cb", "/x", "/x/c"),
            // A prefix of bytes, not of segments.
            ("/v2x/a", "/v2", "/", "/x/a"),
            ("/v2//a", "/v2/", "/w/", "/w/a"),
            ("/v2/", "/v2/", "/w", "/w"),
            ("/v2../a", "/v2", "/", "/../a"),
        ] {
            assert_eq!(
                replaced(path, matched, to).as_deref(),
                Ok(expected),
                "{path} {matched} {to}"
            );
        }
        assert_eq!(replaced("/a", "/abc", "/"), Err(Reason::EditTarget));
        assert_eq!(forward(b"/../a"), Err(Reason::PathDots));
    }

    /// Whatever the spelling, the rest is that of what was matched.
    #[test]
    fn what_replaces_a_prefix_of_segments_is_before_the_rest_of_them() {
        let mut count = 0;
        each_path(|path| {
            let Ok(matched) = normal(path) else { return };
            let Ok(start) = forward(path.as_bytes()) else {
                return;
            };
            for (end, _) in matched.char_indices().filter(|(_, c)| *c == '/') {
                count += 1;
                let (prefix, rest) = matched.split_at(end);
                let new = replaced(&path[start..], prefix, "/new").unwrap();
                let expected = format!("/new{}", if matched == "/" { "" } else { rest });
                assert_eq!(normal(&new), Ok(expected), "{path} {prefix}");
            }
        });
        assert!(count > 10_000, "{count}");
    }

    /// Paths of parts that mean something to some reading.
    fn each_path(mut check: impl FnMut(&str)) {
        let mut next = draws(7);
        let parts = [
            "/", "a", ".", "..", "%2e", "%2F", "%5c", "\\", "//", "%41", "%", ";", "%3b", "|",
            "%25", "%00", "2e", "/..", "/", "%40", "@", "%c3", "/.",
        ];
        for _ in 0..100_000 {
            let mut path = String::from("/");
            for _ in 0..next(10) {
                path.push_str(parts[next(parts.len())]);
            }
            check(&path);
        }
    }

    #[test]
    fn normal_form_is_its_own() {
        each_path(|path| {
            for kind in [Form::Match, Form::Forward] {
                let Ok(once) = form(path, kind) else { continue };
                assert!(is_normal(once.as_bytes(), kind), "{path} {once}");
                assert_eq!(form(&once, kind).as_deref(), Ok(once.as_str()));
                assert_eq!(
                    is_normal(path.as_bytes(), kind),
                    once == path,
                    "{path} {once}"
                );
                assert!(!once.contains("//") && !once.contains('\\'));
                assert!(
                    !once.split('/').any(|s| s == "." || s == ".."),
                    "{path} {once}"
                );
            }
        });
    }

    /// Bytes are characters here, up to U+00FF.
    fn decode(path: &str) -> String {
        let chars: Vec<char> = path.chars().collect();
        let mut out = String::new();
        let mut rest = &chars[..];
        while let [first, tail @ ..] = rest {
            let byte = match rest {
                ['%', high, low, ..] => u8::from_str_radix(&format!("{high}{low}"), 16).ok(),
                _ => None,
            };
            out.push(byte.map_or(*first, char::from));
            rest = if byte.is_some() { &rest[3..] } else { tail };
        }
        out
    }

    /// RFC 3986, section 5.2.4, of a path with or without empty segments.
    fn resolve(path: &str, merge: bool) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(kept.pop()),
                "" if merge => {}
                other => kept.push(other),
            }
        }
        format!("/{}", kept.join("/"))
    }

    /// Every way to read a path that the module's documentation names: the text whose slashes, and no others,
    /// part it for a server.
    fn readings(path: &str) -> Vec<String> {
        let mut all = vec![path.to_owned()];
        // What an URL parser takes for the path.
        if path.starts_with("//") || path.starts_with("/\\") {
            let rest = path.trim_start_matches(['/', '\\']);
            let end = rest.find(['/', '\\']).unwrap_or(rest.len());
            all.push(rest[end..].to_owned());
        }
        type Step = fn(&str) -> String;
        let steps: [Step; 5] = [
            decode,
            |p| p.replace('\\', "/"),
            |p| resolve(p, false),
            |p| resolve(p, true),
            // Dots that are written with their encoding are dots to an URL parser.
            |p| resolve(&p.replace("%2e", ".").replace("%2E", "."), false),
        ];
        // In every order, each once, and any of them left out.
        fn apply(path: &str, steps: &[Step], used: u32, all: &mut Vec<String>) {
            for (i, step) in steps.iter().enumerate() {
                if used & (1 << i) == 0 {
                    let next = step(path);
                    apply(&next, steps, used | (1 << i), all);
                    all.push(next);
                }
            }
        }
        for start in all.clone() {
            apply(&start, &steps, 0, &mut all);
        }
        all
    }

    /// The segments of a path, whether or not a name has slashes in it.
    fn flat(path: &str) -> Vec<String> {
        let decoded = decode(path).replace('\\', "/");
        decoded
            .split('/')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn no_reading_of_what_is_forwarded_has_other_segments_than_were_matched() {
        let (mut count, mut as_it_came, mut shorter, mut refused) = (0, 0, 0, 0);
        each_path(|path| {
            count += 1;
            // Each takes 650 readings.
            if count % 16 != 0 || path.contains("%25") {
                return;
            }
            let Ok(matched) = normal(path) else { return };
            let forwarded = match forward(path.as_bytes()) {
                Ok(start) => {
                    as_it_came += usize::from(start == 0);
                    shorter += usize::from(start > 0);
                    path[start..].to_owned()
                }
                Err(_) => {
                    refused += 1;
                    form(path, Form::Forward).unwrap()
                }
            };
            assert_eq!(normal(&forwarded).as_ref(), Ok(&matched), "{path}");
            for reading in readings(&forwarded) {
                assert_eq!(flat(&reading), flat(&matched), "{path} read as {reading}");
            }
        });
        let counts = [as_it_came, shorter, refused];
        assert!(counts.iter().all(|n| *n > 200), "{counts:?}");
    }

    /// The reason for what is done to the slashes at the start.
    #[test]
    fn two_slashes_have_a_reading_of_their_own() {
        assert!(readings("//x/admin").contains(&"/admin".to_owned()));
        assert!(!readings("/x/admin").contains(&"/admin".to_owned()));
    }

    #[test]
    fn refused_dots_have_a_reading_of_their_own() {
        each_path(|path| {
            let Ok(matched) = normal(path) else { return };
            let dots = forward(path.as_bytes()) == Err(Reason::PathDots);
            if !dots || path.len() > 12 || matched == "/" {
                return;
            }
            let other = |reading: &String| flat(reading) != flat(&matched);
            assert!(readings(path).iter().any(other), "{path}");
        });
    }

    #[test]
    fn counts_segments() {
        for (path, count) in [("/", 0), ("/a", 1), ("/a/", 1), ("/a/b", 2), ("*", 1)] {
            assert_eq!(segments(path.as_bytes()), count, "{path}");
        }
    }
}
