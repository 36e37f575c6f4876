// SPDX-License-Identifier: GPL-2.0

//! Path and host of a request in the form in which they are matched, and which form of the path is forwarded.

use xlb_engine::path::{self, Form, NewPath};
use xlb_engine::{host, Reason};

use super::{fill_with, Active};
use crate::buf::Buf;
use crate::sys;

impl Active<'_> {
    /// What the first decision says of how the request is forwarded, whoever gets it in the end: an upgrade that the
    /// service does not allow is not asked for, and a path that came in another form than it was matched in is
    /// forwarded as it came, but for slashes at its start, and only where no server can read another path in it.
    pub(super) fn settle(&mut self) -> Result<(), Reason> {
        let inner = &mut **self;
        let flags = u32::from(inner.exchange.decision.flags);
        if inner.head.upgrade.is_some() && flags & sys::XLB_DECISION_UPGRADE == 0 {
            inner.head.upgrade = None;
            inner.head.rewrite = true;
        }
        inner.rewrite_path = flags & sys::XLB_DECISION_FORWARD_NORMAL != 0;
        if inner.rewrite_path || inner.path.is_empty() {
            return Ok(());
        }
        let path = inner.head.path;
        let start = path::forward(path.get(inner.buf.bytes()))?;
        if start > 0 {
            inner.head.path = path.skip(start as u32);
            inner.head.rewrite = true;
        }
        Ok(())
    }

    /// Writes path and host as they are matched to `path` and `host`, or leaves these empty when
    /// the request has them in that form already.
    pub(super) fn normalize(&mut self) -> Result<(), Reason> {
        let inner = &mut **self;
        let bytes = inner.buf.bytes();
        inner.path.reset();
        let raw = inner.head.path.get(bytes);
        if raw != b"*" && !path::is_normal(raw, Form::Match) {
            let bound = path::normalize_bound(raw);
            fill_with(&mut inner.path, bound, |to| {
                written(path::normalize(raw, Form::Match, to))
            })?;
        }
        inner.host.reset();
        let raw = inner.head.host.get(bytes);
        if raw.iter().any(u8::is_ascii_uppercase) || raw.ends_with(b".") {
            fill_with(&mut inner.host, raw.len(), |to| {
                written(host::normalize(raw, to))
            })?;
        }
        Ok(())
    }
}

/// The normal form that a server gets; empty when the path is in that form already, or is `*`.
pub(super) fn to_forward(raw: &[u8]) -> Result<Buf, Reason> {
    let mut path = Buf::new();
    if raw != b"*" && !path::is_normal(raw, Form::Forward) {
        fill_with(&mut path, path::normalize_bound(raw), |to| {
            written(path::normalize(raw, Form::Forward, to))
        })?;
    }
    Ok(path)
}

/// What the endpoint gets for `path`, where the route says so. Of a rest that came with the request no server reads another
/// path than was made, as of what is forwarded as it came.
pub(super) fn replaced(new: &NewPath<'_>, path: &[u8]) -> Result<Buf, Reason> {
    let mut made = Buf::new();
    fill_with(&mut made, new.bound(path), |to| new.write(path, to))?;
    let start = path::forward(made.bytes())?;
    made.consume(start);
    Ok(made)
}

/// The normal form, or what came when that is normal already.
pub(super) fn or_raw<'a>(normal: &'a Buf, raw: &'a [u8]) -> &'a [u8] {
    if normal.is_empty() {
        raw
    } else {
        normal.bytes()
    }
}

/// How many bytes a normalisation wrote: none when the input is normal.
pub(super) fn written(result: Result<path::Normalized, Reason>) -> Result<usize, Reason> {
    Ok(match result? {
        path::Normalized::Same => 0,
        path::Normalized::Written(n) => n,
    })
}
