// SPDX-License-Identifier: GPL-2.0

//! Heads that are forwarded other than byte for byte: written in one pass into the caller's buffer.
//!
//! Hop-by-hop fields and the fields that Connection names never pass (RFC 9110, section 7.6.1).  What an edit may not touch is
//! what frames or routes: those fields are the engine's.  What was written parses to the same
//! message: the fuzz target `rewrite` holds that true.

use core::iter;

use crate::fields::Fields;
use crate::known::Known;
use crate::message::{Framing, Span, Version};
use crate::out::Out;
use crate::reason::Reason;
use crate::request::RequestHead;
use crate::response::ResponseHead;
use crate::scan;
use crate::target;

/// What to do with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Only this value.
    Set,
    /// This value as well.
    Add,
    /// No value.
    Remove,
}

/// One change to the fields.  Edits are applied in order; names are compared without case.
#[derive(Clone, Copy, Debug)]
pub struct FieldEdit<'a> {
    /// What to do.
    pub op: Op,
    /// A token, and none that frames or routes.
    pub name: &'a [u8],
    /// Ignored by `Remove`.
    pub value: &'a [u8],
}

/// Changes to the fields, from wherever they are kept: gone through once for each field of the head.
pub trait FieldEdits<'a>: Iterator<Item = FieldEdit<'a>> + Clone {}

impl<'a, I: Iterator<Item = FieldEdit<'a>> + Clone> FieldEdits<'a> for I {}

/// Changes to a request.
#[derive(Clone, Debug)]
pub struct RequestEdits<'a, F> {
    /// Instead of the path; the query stays.
    pub path: Option<&'a [u8]>,
    /// Instead of the authority: host with or without port.
    pub host: Option<&'a [u8]>,
    /// Changes to the fields: [`FieldEdits`].
    pub fields: F,
}

impl RequestEdits<'static, iter::Empty<FieldEdit<'static>>> {
    /// None.
    pub const NONE: Self = RequestEdits {
        path: None,
        host: None,
        fields: iter::empty(),
    };
}

/// What the client is told about its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connection {
    /// It ends after this response.
    Close,
    /// It stays; an HTTP/1.0 client must be told.
    KeepAlive,
}

/// Changes to a response.
#[derive(Clone, Debug)]
pub struct ResponseEdits<F> {
    /// The Connection field to write, if any.  Not used for 1xx.
    pub connection: Option<Connection>,
    /// Changes to the fields: [`FieldEdits`].
    pub fields: F,
}

/// Fields that Connection may name at once; more than `Limits::connection_options` allows by default.
const OPTIONS: usize = 32;

/// The options of every Connection field of a head.
struct Options<'a> {
    names: [&'a [u8]; OPTIONS],
}

impl<'a> Options<'a> {
    fn of(fields: Fields<'a>) -> Result<Self, Reason> {
        let mut names: [&'a [u8]; OPTIONS] = [&[]; OPTIONS];
        let mut free = names.iter_mut();
        for (name, value) in fields {
            if Known::from_name(name) == Some(Known::Connection) {
                for option in scan::list(value).filter(|o| !o.is_empty()) {
                    *free.next().ok_or(Reason::ConnectionOptions)? = option;
                }
            }
        }
        Ok(Options { names })
    }

    fn has(&self, name: &[u8]) -> bool {
        self.names
            .iter()
            .take_while(|n| !n.is_empty())
            .any(|n| n.eq_ignore_ascii_case(name))
    }
}

/// An upper bound of what [`request`] writes.
pub fn request_bound<'a>(h: &RequestHead, edits: &RequestEdits<'_, impl FieldEdits<'a>>) -> usize {
    let target = edits.path.map_or(0, <[u8]>::len);
    let host = edits.host.map_or(0, <[u8]>::len);
    bound(h.head_bytes, h.field_count, &edits.fields)
        .saturating_add(target)
        .saturating_add(host)
}

/// An upper bound of what [`response`] writes.
pub fn response_bound<'a>(h: &ResponseHead, edits: &ResponseEdits<impl FieldEdits<'a>>) -> usize {
    bound(h.head_bytes, h.field_count, &edits.fields)
}

/// Every field may gain a space; `Connection` and `Host` may be new.
fn bound<'a>(head_bytes: u32, field_count: u32, edits: &impl FieldEdits<'a>) -> usize {
    const NEW_BYTES: usize = 64;
    (head_bytes as usize)
        .saturating_add(field_count as usize)
        .saturating_add(NEW_BYTES)
        .saturating_add(edits_bound(edits))
}

/// An upper bound of the fields that the edits add.
pub(crate) fn edits_bound<'a>(edits: &impl FieldEdits<'a>) -> usize {
    edits.clone().fold(0usize, |n, e| {
        n.saturating_add(e.name.len())
            .saturating_add(e.value.len())
            .saturating_add(4)
    })
}

/// Whether an edit may be made at all; what configuration says is held against it, too.
pub fn check_edit(edit: &FieldEdit<'_>) -> Result<(), Reason> {
    if edit.name.is_empty() || !edit.name.iter().all(|b| scan::is_token(*b)) {
        return Err(Reason::EditName);
    }
    if Known::from_name(edit.name).is_some() || Known::is_lookalike(edit.name) {
        return Err(Reason::EditForbidden);
    }
    if !edit.value.iter().all(|b| scan::is_value(*b)) {
        return Err(Reason::EditValue);
    }
    Ok(())
}

pub(crate) fn check<'a>(edits: &impl FieldEdits<'a>) -> Result<(), Reason> {
    edits.clone().try_for_each(|edit| check_edit(&edit))
}

/// Is the field of this name dropped by an edit?
pub(crate) fn is_replaced<'a>(name: &[u8], edits: &impl FieldEdits<'a>) -> bool {
    edits
        .clone()
        .any(|e| e.op != Op::Add && e.name.eq_ignore_ascii_case(name))
}

/// The fields that the edits add; an edit gives way to a later `Set` or `Remove` of its name.
pub(crate) fn put_edits<'a>(edits: &impl FieldEdits<'a>, out: &mut Out<'_>) -> Result<(), Reason> {
    let mut rest = edits.clone();
    while let Some(edit) = rest.next() {
        if edit.op != Op::Remove && !is_replaced(edit.name, &rest) {
            out.field(edit.name, scan::trim(edit.value))?;
        }
    }
    Ok(())
}

/// Writes the request `head` (parsed to `h`) with `edits` to `out`; returns its length.
pub fn request<'a>(
    head: &[u8],
    h: &RequestHead,
    edits: &RequestEdits<'_, impl FieldEdits<'a>>,
    out: &mut [u8],
) -> Result<usize, Reason> {
    check(&edits.fields)?;
    let mut out = Out::new(out);
    out.put(h.method_span.get(head))?;
    out.push(b' ')?;
    put_target(head, h, edits.path, &mut out)?;
    out.push(b' ')?;
    out.put(h.version.as_bytes())?;
    out.put(b"\r\n")?;

    let new_host = match edits.host {
        Some(host) => {
            let whole = Span::between(0, host.len());
            target::authority(host, whole).map_err(|_| Reason::EditHost)?;
            Some(host)
        }
        // An absolute target's authority is the host that was decided on.
        None => target::absolute(head, h.target, h.method)?.map(|authority| authority.get(head)),
    };
    if let Some(host) = new_host {
        out.field(b"Host", host)?;
    }

    let options = Options::of(Fields::of(head, h))?;
    let mut trailers = false;
    for (name, value) in Fields::of(head, h) {
        let known = Known::from_name(name);
        match known {
            Some(Known::Upgrade) if h.upgrade.is_some() => {}
            Some(Known::Te) => {
                trailers |= scan::list(value).any(|c| c.eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Some(Known::Host) if new_host.is_some() => continue,
            Some(Known::Expect) if !h.expect_continue => continue,
            Some(Known::TransferEncoding) => {
                out.field(name, b"chunked")?;
                continue;
            }
            Some(known) if known.is_hop_by_hop() => continue,
            _ if options.has(name) || is_replaced(name, &edits.fields) => continue,
            _ => {}
        }
        out.field(name, value)?;
    }
    if trailers {
        out.field(b"TE", b"trailers")?;
    }
    let keep_alive = h.version == Version::Http10 && !h.close;
    let connection: &[u8] = match (h.upgrade.is_some(), trailers, keep_alive) {
        (true, true, _) => b"Upgrade, TE",
        (true, false, _) => b"Upgrade",
        (false, true, false) => b"TE",
        (false, true, true) => b"TE, keep-alive",
        (false, false, true) => b"keep-alive",
        (false, false, false) => b"",
    };
    if !connection.is_empty() {
        out.field(b"Connection", connection)?;
    }
    put_edits(&edits.fields, &mut out)?;
    out.put(b"\r\n")?;
    Ok(out.len())
}

/// The target in origin form, or `*` (RFC 9112, section 3.2.4).
fn put_target(
    head: &[u8],
    h: &RequestHead,
    path: Option<&[u8]>,
    out: &mut Out<'_>,
) -> Result<(), Reason> {
    if let Some(path) = path {
        let allowed = |b: &u8| scan::is_target(*b) && !matches!(b, b'?' | b'#');
        if path.first() != Some(&b'/') || !path.iter().all(allowed) {
            return Err(Reason::EditTarget);
        }
        out.put(path)?;
    } else if h.method == crate::message::Method::Options
        && h.path.start < h.target.start.saturating_add(8)
        && h.is_absolute(head)
        && h.query == Span::EMPTY
    {
        return out.push(b'*');
    } else {
        out.put(h.path.get(head))?;
    }
    // An empty query has a place all the same: `/a?` is not `/a`.
    if h.query != Span::EMPTY {
        out.push(b'?')?;
        out.put(h.query.get(head))?;
    }
    Ok(())
}

/// Writes the response `head` (parsed to `h`) with `edits` to `out`; returns its length.  The version becomes
/// HTTP/1.1, the sender's own (RFC 9110, section 6.2), so say in `edits.connection` what an HTTP/1.0 client must know.
pub fn response<'a>(
    head: &[u8],
    h: &ResponseHead,
    edits: &ResponseEdits<impl FieldEdits<'a>>,
    out: &mut [u8],
) -> Result<usize, Reason> {
    check(&edits.fields)?;
    let mut out = Out::new(out);
    let line_end = scan::find_byte(head, 0, b'\n').ok_or(Reason::StatusLine)?;
    out.put(Version::Http11.as_bytes())?;
    out.put(head.get(8..=line_end).ok_or(Reason::StatusLine)?)?;

    let options = Options::of(Fields::of_response(head, h))?;
    let switch = h.framing == Framing::Tunnel;
    for (name, value) in Fields::of_response(head, h) {
        match Known::from_name(name) {
            Some(Known::Upgrade) if switch => {}
            Some(Known::TransferEncoding) => {
                out.field(name, b"chunked")?;
                continue;
            }
            Some(known) if known.is_hop_by_hop() => continue,
            _ if options.has(name) || is_replaced(name, &edits.fields) => continue,
            _ => {}
        }
        out.field(name, value)?;
    }
    match edits.connection {
        _ if switch => out.field(b"Connection", b"Upgrade")?,
        _ if h.interim => {}
        Some(Connection::Close) => out.field(b"Connection", b"close")?,
        Some(Connection::KeepAlive) => out.field(b"Connection", b"keep-alive")?,
        None => {}
    }
    put_edits(&edits.fields, &mut out)?;
    out.put(b"\r\n")?;
    Ok(out.len())
}
