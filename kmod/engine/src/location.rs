// SPDX-License-Identifier: GPL-2.0

//! Where a redirect sends a client: the request's own URL, with other parts.
//!
//! As Gateway API's HTTPRequestRedirectFilter has it: a port that is not said is the scheme's where a scheme is said, else
//! the request's; and the scheme's own port is left out.  What came with the request is written in normal form, and bytes that
//! may not stand in a URL are encoded, so that every client reads the same place.

use crate::message::Span;
use crate::out::Out;
use crate::path::NewPath;
use crate::reason::Reason;
use crate::request::RequestHead;
use crate::scan;

/// What is other than the request's.
#[derive(Clone, Copy, Debug)]
pub struct Redirect<'a> {
    /// RFC 9110, section 15.4.
    pub status: u16,
    /// `http` or `https`.
    pub scheme: Option<&'a [u8]>,
    /// Without port.
    pub host: Option<&'a [u8]>,
    /// In decimal.
    pub port: Option<&'a [u8]>,
    /// One with a query has it instead of the request's.
    pub path: Option<NewPath<'a>>,
}

/// What a request asked for, of `http`.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    host: &'a [u8],
    port: Option<u16>,
    path: &'a [u8],
    /// Without its question mark.
    query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Of a request whose path is `path` in [`Form::Forward`](crate::path::Form::Forward).
    pub fn of(head: &'a [u8], request: &RequestHead, path: &'a [u8]) -> Self {
        let query = (request.query != Span::EMPTY).then(|| request.query.get(head));
        Target {
            host: request.host.get(head),
            port: request.port,
            // The server as a whole has no other place.
            path: if path == b"*" { b"/" } else { path },
            query,
        }
    }
}

impl Redirect<'_> {
    /// The most bytes that [`put`](Self::put) writes.
    pub(crate) fn bound(&self, from: &Target<'_>) -> usize {
        const SEPARATORS_AND_A_PORT: usize = 16;
        let texts = [self.scheme, self.host, self.port];
        let texts = texts
            .iter()
            .flatten()
            .fold(0, |n, t| t.len().saturating_add(n));
        let path = self.path.map_or(from.path.len(), |p| p.bound(from.path));
        [from.host.len(), path, from.query.map_or(0, encoded_bound)]
            .iter()
            .fold(texts, |n, bytes| n.saturating_add(*bytes))
            .saturating_add(SEPARATORS_AND_A_PORT)
    }

    /// Writes the URL; only a path where neither request nor redirect says a host.
    pub(crate) fn put(&self, from: &Target<'_>, out: &mut Out<'_>) -> Result<(), Reason> {
        let texts = [self.scheme, self.host, self.port];
        let mut bytes = texts.iter().flatten().flat_map(|text| *text);
        if !bytes.all(|b| scan::is_visible(*b)) {
            return Err(Reason::EditHost);
        }
        let host = self.host.unwrap_or(from.host);
        if !host.is_empty() {
            let scheme = self.scheme.unwrap_or(b"http");
            out.put(scheme)?;
            out.put(b"://")?;
            out.put(host)?;
            self.put_port(scheme, from, out)?;
        }
        let start = out.len();
        match &self.path {
            Some(new) => out.put_with(|to| new.write(from.path, to))?,
            None => out.put(from.path)?,
        }
        let path = out.bytes().get(start..).unwrap_or(&[]);
        if path.first() != Some(&b'/') || !path.iter().all(|b| scan::is_visible(*b)) {
            return Err(Reason::EditTarget);
        }
        if let Some(query) = from.query.filter(|_| !path.contains(&b'?')) {
            out.push(b'?')?;
            put_encoded(query, out)?;
        }
        Ok(())
    }

    fn put_port(&self, scheme: &[u8], from: &Target<'_>, out: &mut Out<'_>) -> Result<(), Reason> {
        let mut digits = [0; 5];
        let mut digits = Out::new(&mut digits);
        match (self.port, self.scheme, from.port) {
            (Some(port), ..) => digits.put(port)?,
            (None, None, Some(port)) => digits.decimal(u32::from(port))?,
            _ => return Ok(()),
        }
        match (scheme, digits.bytes()) {
            (b"http", b"80") | (b"https", b"443") => Ok(()),
            (_, port) => {
                out.push(b':')?;
                out.put(port)
            }
        }
    }
}

fn encoded_bound(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(3)
}

/// RFC 3986, section 2.1, of bytes that a target may have and a URL may not.
fn put_encoded(bytes: &[u8], out: &mut Out<'_>) -> Result<(), Reason> {
    for byte in bytes {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                out.encoded(*byte)?
            }
            byte => out.push(*byte)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    const SAME: Redirect<'static> = Redirect {
        status: 302,
        scheme: None,
        host: None,
        port: None,
        path: None,
    };

    fn location(target: &str, host: &str, redirect: &Redirect<'_>) -> Result<String, Reason> {
        let (head, parsed) = request(&format!("GET {target} HTTP/1.1\r\nHost:{host}\r\n\r\n"));
        let from = Target::of(&head, &parsed, parsed.path.get(&head));
        let mut bytes = vec![0; redirect.bound(&from)];
        let mut out = Out::new(&mut bytes);
        redirect.put(&from, &mut out)?;
        Ok(String::from_utf8(out.bytes().to_vec()).unwrap())
    }

    #[test]
    fn parts() {
        let https = Redirect {
            scheme: Some(b"https"),
            ..SAME
        };
        let other = Redirect {
            host: Some(b"other.example"),
            ..SAME
        };
        let port = |port| Redirect {
            port: Some(port),
            ..SAME
        };
        let path = |path| Redirect {
            path: Some(NewPath::Whole(path)),
            ..SAME
        };
        let prefix = Redirect {
            path: Some(NewPath::Prefix {
                matched: 2,
                to: b"/new/",
            }),
            ..SAME
        };
        for (target, host, redirect, expected) in [
            ("/a?b=c", "h", &SAME, "http://h/a?b=c"),
            ("/a?", "h", &SAME, "http://h/a?"),
            ("/a", "h:80", &SAME, "http://h/a"),
            ("/a", "h:443", &SAME, "http://h:443/a"),
            ("/a", "h:8080", &SAME, "http://h:8080/a"),
            ("/a", "[::1]:8080", &SAME, "http://[::1]:8080/a"),
            ("http://x:81/a", "h", &SAME, "http://x:81/a"),
            // A scheme has its own port.
            ("/a", "h:8080", &https, "https://h/a"),
            ("/a", "h", &https, "https://h/a"),
            ("/a", "h:8080", &other, "http://other.example:8080/a"),
            ("/a", "h", &port(b"8443"), "http://h:8443/a"),
            ("/a", "h:81", &port(b"80"), "http://h/a"),
            (
                "/a",
                "h",
                &Redirect {
                    port: Some(b"443"),
                    ..https
                },
                "https://h/a",
            ),
            ("/a?b", "h", &path(b"/c"), "http://h/c?b"),
            ("/a?b", "h", &path(b"/c?d"), "http://h/c?d"),
            ("/v/a?b", "h", &prefix, "http://h/new/a?b"),
            // No host is known.
            ("/a?b", "", &SAME, "/a?b"),
            ("/a", "", &https, "/a"),
            ("/a", "", &other, "http://other.example/a"),
            ("/a?\u{e9}\"<", "h", &SAME, "http://h/a?%C3%A9%22%3C"),
        ] {
            assert_eq!(
                location(target, host, redirect).as_deref(),
                Ok(expected),
                "{target} {host} {redirect:?}"
            );
        }
    }

    #[test]
    fn nothing_is_injected() {
        let host = Redirect {
            host: Some(b"h\r\nx: y"),
            ..SAME
        };
        assert_eq!(location("/", "h", &host), Err(Reason::EditHost));
        for path in [&b"/a b"[..], b"", b"a", b"/\r\nx: y"] {
            let path = Redirect {
                path: Some(NewPath::Whole(path)),
                ..SAME
            };
            assert_eq!(location("/", "h", &path), Err(Reason::EditTarget));
        }
    }
}
