// SPDX-License-Identifier: GPL-2.0

//! The request target (RFC 9112, section 3.2) and the authority inside it or in Host.

use crate::host;
use crate::message::{Method, Span};
use crate::reason::Reason;
use crate::scan;

/// A target taken apart; spans are of the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The authority of an absolute target, else empty.
    pub(crate) authority: Span,
    /// Never empty: of `http://host` it is a slash of the scheme, which stands for the root.
    pub(crate) path: Span,
    /// Without the question mark.
    pub(crate) query: Span,
}

/// Host and port of an authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Authority {
    pub(crate) host: Span,
    pub(crate) port: Option<u16>,
}

/// Takes `head[start .. end]` apart; its bytes are visible ASCII without `#`.
pub(crate) fn split(head: &[u8], target: Span, method: Method) -> Result<Target, Reason> {
    let bytes = target.get(head);
    let start = target.start as usize;
    let end = target.end() as usize;
    let (authority, path_start) = match bytes {
        [b'/', ..] => (Span::EMPTY, start),
        b"*" if method == Method::Options => {
            return Ok(Target {
                authority: Span::EMPTY,
                path: target,
                query: Span::EMPTY,
            })
        }
        _ => {
            let Some(slashes) = scheme_end(bytes) else {
                return Err(match scan::find_byte(bytes, 0, b':') {
                    Some(colon) if bytes.get(colon..).is_some_and(|b| b.starts_with(b"://")) => {
                        Reason::TargetScheme
                    }
                    _ => Reason::TargetForm,
                });
            };
            let authority_start = start.wrapping_add(slashes);
            let authority_end = bytes
                .get(slashes..)
                .and_then(|rest| rest.iter().position(|b| matches!(b, b'/' | b'?')))
                .map_or(end, |len| authority_start.wrapping_add(len));
            let authority = Span::between(authority_start, authority_end);
            if authority.get(head).contains(&b'@') {
                return Err(Reason::TargetUserinfo);
            }
            (authority, authority_end)
        }
    };
    let question = scan::find_byte(head.get(..end).unwrap_or(&[]), path_start, b'?');
    let path_end = question.unwrap_or(end);
    let path = if path_end == path_start {
        Span {
            start: authority.start.saturating_sub(1),
            len: 1,
        }
    } else {
        Span::between(path_start, path_end)
    };
    let query = question.map_or(Span::EMPTY, |q| Span::between(q.wrapping_add(1), end));
    Ok(Target {
        authority,
        path,
        query,
    })
}

/// The length of `http://` in any case.
fn scheme_end(target: &[u8]) -> Option<usize> {
    let scheme = target.get(..7)?;
    scheme.eq_ignore_ascii_case(b"http://").then_some(7)
}

/// Splits and checks `host [ ":" port ]` (RFC 3986, section 3.2, without user information).
pub(crate) fn authority(head: &[u8], span: Span) -> Result<Authority, Reason> {
    let bytes = span.get(head);
    let host_len = host::len(bytes)?;
    let port = match bytes.get(host_len..).unwrap_or(&[]) {
        [] => None,
        [b':', digits @ ..] => Some(host::port(digits)?),
        _ if bytes.first() == Some(&b'[') => return Err(Reason::HostPort),
        _ => return Err(Reason::HostByte),
    };
    Ok(Authority {
        host: Span {
            start: span.start,
            len: host_len as u32,
        },
        port,
    })
}
