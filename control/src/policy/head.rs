// SPDX-License-Identifier: GPL-2.0
//! A request as the module holds it: the bytes of its head, framed, and what of it is matched in another form.

use xlb_engine::path::{self, Form, Normalized};
use xlb_engine::{host, Framing, Limits, Protocol, Reason, RequestHead, RequestParser, Status};

use super::SOURCE;
use crate::intf::{xlb_request, XLB_REQ_HAS_BODY};

/// Which slot of the services' map is asked for.
pub const SLOT: u32 = 0;

pub struct Head {
    pub bytes: Vec<u8>,
    pub head: RequestHead,
    /// Normalised, without query.
    pub path: Vec<u8>,
    /// Lower case, without port.
    pub host: Vec<u8>,
}

impl Head {
    /// The error is why XLB refuses the request before it asks for a route.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        method: &str,
        target: &str,
        fields: &[(N, V)],
    ) -> Result<Head, Reason> {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in fields {
            bytes.push_str(&format!("{}: {}\r\n", name.as_ref(), value.as_ref()));
        }
        bytes.push_str("\r\n");
        let bytes = bytes.into_bytes();
        let head = match RequestParser::new().parse(&bytes, &Limits::DEFAULT)? {
            Status::Complete(head) => head,
            Status::Partial => return Err(Reason::BodyTruncated),
        };
        Ok(Head {
            path: normal_path(head.path.get(&bytes))?,
            host: normal_host(head.host.get(&bytes))?,
            bytes,
            head,
        })
    }

    /// The path as it came.
    pub fn raw_path(&self) -> &[u8] {
        self.head.path.get(&self.bytes)
    }

    /// As `Question::route()` of `kmod/policy/mod.rs` fills it in.
    pub fn request(&self) -> xlb_request {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let has_body = self.head.framing != Framing::None;
        let flags = if has_body { XLB_REQ_HAS_BODY } else { 0 };
        xlb_request {
            size: u32::try_from(size_of::<xlb_request>()).unwrap_or(0),
            service: SLOT,
            method: self.head.method as u32,
            head_bytes: self.head.head_bytes - self.head.skip,
            host_bytes: count(self.host.len()),
            path_bytes: count(self.path.len()),
            path_segments: path::segments(&self.path),
            http_version: self.head.version.as_u16(),
            flags: u16::try_from(flags).unwrap_or(0),
            source: SOURCE,
            upgrade: self.head.upgrade.map_or(0, Protocol::hash),
            ..xlb_request::default()
        }
    }
}

fn normal_path(raw: &[u8]) -> Result<Vec<u8>, Reason> {
    if raw == b"*" {
        return Ok(raw.to_vec());
    }
    let mut out = vec![0; path::normalize_bound(raw)];
    let made = path::normalize(raw, Form::Match, &mut out)?;
    Ok(written(made, out, raw))
}

fn normal_host(raw: &[u8]) -> Result<Vec<u8>, Reason> {
    // No request needs one.
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; raw.len()];
    let made = host::normalize(raw, &mut out)?;
    Ok(written(made, out, raw))
}

fn written(made: Normalized, mut out: Vec<u8>, raw: &[u8]) -> Vec<u8> {
    match made {
        Normalized::Same => raw.to_vec(),
        Normalized::Written(bytes) => {
            out.truncate(bytes);
            out
        }
    }
}
