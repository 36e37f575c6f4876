// SPDX-License-Identifier: GPL-2.0

//! The request target (RFC 9112, section 3.2) and the authority inside it or in Host.

use crate::host;
use crate::message::{Method, Span};
use crate::reason::Reason;
use crate::scan;

/// Host and port of an authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Authority {
    pub(crate) host: Span,
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// Of a request without Host, or with an empty one.
    pub(crate) const NONE: Authority = Authority {
        host: Span::EMPTY,
        port: None,
    };
}

/// The authority of an absolute target; none of one in origin or asterisk form.
#[inline]
pub(crate) fn absolute(head: &[u8], target: Span, method: Method) -> Result<Option<Span>, Reason> {
    match scan::at(head, target.start as usize) {
        Some(b'/') => Ok(None),
        Some(b'*') if method == Method::Options && target.len == 1 => Ok(None),
        _ => after_scheme(head, target).map(Some),
    }
}

/// The path.  Never empty: of `http://host` it is a slash of the scheme, which stands for the root.  `query` is the
/// offset after the first question mark, or 0.
#[inline]
pub(crate) fn path(target: Span, query: u32, authority: Option<Span>) -> Span {
    let end = query.checked_sub(1).unwrap_or(target.end());
    match authority {
        None => Span::between(target.start as usize, end as usize),
        Some(authority) if authority.end() == end => Span {
            start: authority.start.saturating_sub(1),
            len: 1,
        },
        Some(authority) => Span::between(authority.end() as usize, end as usize),
    }
}

/// The query without its question mark.
#[inline]
pub(crate) fn query(target: Span, query: u32) -> Span {
    match query {
        0 => Span::EMPTY,
        _ => Span::between(query as usize, target.end() as usize),
    }
}

/// The authority of a target whose bytes are neither white space nor control bytes nor `#`.
#[inline(never)]
fn after_scheme(head: &[u8], target: Span) -> Result<Span, Reason> {
    let bytes = target.get(head);
    let Some(slashes) = scheme_end(bytes) else {
        return Err(match scan::find_byte(bytes, 0, b':') {
            Some(colon) if bytes.get(colon..).is_some_and(|b| b.starts_with(b"://")) => {
                Reason::TargetScheme
            }
            _ => Reason::TargetForm,
        });
    };
    let rest = bytes.get(slashes..).unwrap_or(&[]);
    let len = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let start = (target.start as usize).wrapping_add(slashes);
    let authority = Span::between(start, start.wrapping_add(len));
    if authority.get(head).contains(&b'@') {
        return Err(Reason::TargetUserinfo);
    }
    Ok(authority)
}

/// The length of `http://` or `https://` in any case.
fn scheme_end(target: &[u8]) -> Option<usize> {
    let is = |scheme: &[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if is(b"http://") {
        Some(7)
    } else {
        is(b"https://").then_some(8)
    }
}

/// Splits and checks `host [ ":" port ]` (RFC 3986, section 3.2, without user information).
#[inline(always)]
pub(crate) fn authority(head: &[u8], span: Span) -> Result<Authority, Reason> {
    // The scan need not know where the span ends: what stands there is in no host.
    let rest = head.get(span.start as usize..).unwrap_or(&[]);
    let host_len = host::len(rest)?;
    let port = if host_len == span.len as usize {
        None
    } else {
        port_after(span.get(head), host_len)?
    };
    Ok(Authority {
        host: Span {
            start: span.start,
            len: host_len as u32,
        },
        port,
    })
}

#[inline(never)]
fn port_after(authority: &[u8], host_len: usize) -> Result<Option<u16>, Reason> {
    match authority.get(host_len..).unwrap_or(&[]) {
        // RFC 3986, section 3.2.3: the scheme's own.
        [b':'] => Ok(None),
        [b':', digits @ ..] => host::port(digits).map(Some),
        _ if authority.first() == Some(&b'[') => Err(Reason::HostPort),
        _ => Err(Reason::HostByte),
    }
}
