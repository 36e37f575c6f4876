// SPDX-License-Identifier: GPL-2.0

//! The same decisions made the slow and obvious way, for messages that the engine accepted: strings, vectors,
//! and a second reading of the RFCs.

use xlb_engine::{Framing, Method, Version};

#[derive(Debug)]
pub struct Head<'a> {
    pub first: Vec<&'a [u8]>,
    pub fields: Vec<(String, &'a [u8])>,
    pub bytes: usize,
}

/// Splits a head that ends with an empty line; `None` when something in it is not as RFC 9112 has it.
pub fn head(bytes: &[u8]) -> Option<Head<'_>> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let end = at + bytes[at..].windows(2).position(|w| w == b"\r\n")?;
        let line = &bytes[at..end];
        at = end + 2;
        if line.contains(&b'\r') || line.contains(&b'\n') || line.contains(&0) {
            return None;
        }
        if line.is_empty() && lines.is_empty() {
            continue; // RFC 9112, section 2.2
        }
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let first = lines[0].splitn(3, |b| *b == b' ').collect();
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return None;
        }
        fields.push((name.to_ascii_lowercase(), line[colon + 1..].trim_ascii()));
    }
    Some(Head {
        first,
        fields,
        bytes: at,
    })
}

impl Head<'_> {
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| *v)
            .collect()
    }

    /// Members of a list field, in lower case.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.values(name)
            .iter()
            .flat_map(|v| v.split(|b| *b == b','))
            .map(|v| String::from_utf8_lossy(v.trim_ascii()).to_ascii_lowercase())
            .filter(|v| !v.is_empty())
            .collect()
    }

    fn length(&self) -> Option<u64> {
        let values = self.list("content-length");
        values.first().map(|v| v.parse().unwrap())
    }

    /// RFC 9112, section 6.3, for a request.
    pub fn request_framing(&self) -> Framing {
        match self.list("transfer-encoding").last() {
            Some(last) if last == "chunked" => Framing::Chunked,
            Some(other) => panic!("{other}"),
            None => self.length().map_or(Framing::None, Framing::Length),
        }
    }

    /// RFC 9112, section 6.3, for a response.
    pub fn response_framing(&self, status: u16, method: Method) -> Framing {
        if status == 101 {
            return Framing::Tunnel;
        }
        if method == Method::Head || status < 200 || status == 204 || status == 304 {
            return Framing::None;
        }
        match self.list("transfer-encoding").last() {
            Some(last) if last == "chunked" => Framing::Chunked,
            Some(other) => panic!("{other}"),
            None => self.length().map_or(Framing::UntilClose, Framing::Length),
        }
    }

    /// RFC 9112, section 9.3: does the connection end?
    pub fn ends(&self, version: Version) -> bool {
        let options = self.list("connection");
        let has = |name: &str| options.iter().any(|o| o == name);
        has("close") || (version == Version::Http10 && !has("keep-alive"))
    }
}

/// A chunked body: the data, and how many bytes it took; `None` when it is malformed or has not ended.
pub fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    let line = |at: &mut usize| -> Option<&[u8]> {
        let rest = bytes.get(*at..)?;
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        *at += end + 2;
        Some(&rest[..end])
    };
    loop {
        let size = line(&mut at)?;
        let digits = size.split(|b| *b == b';').next()?;
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            while !line(&mut at)?.is_empty() {}
            return Some((data, at));
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        data.extend(bytes.get(at..end)?);
        at = end;
        if !line(&mut at)?.is_empty() {
            return None;
        }
    }
}
