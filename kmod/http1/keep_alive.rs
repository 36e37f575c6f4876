// SPDX-License-Identifier: GPL-2.0

//! `Keep-Alive: timeout=5, max=100`, in which an endpoint says how long it keeps an idle connection.
//!
//! No standard has the field any more (RFC 2068, section 19.7.1.1 had); Node.js, Apache and others
//! send it, and their clients end a connection before its server does. What cannot be read says nothing.
//!
//! Who sends it sends it in every response, so a connection whose first response is without is not
//! looked at again.

use xlb_engine::{Fields, ResponseHead};

use crate::pool::Isock;

/// The seconds that the response head in `bytes`, of `isock`, names.
pub(crate) fn timeout(isock: &Isock, bytes: &[u8], head: &ResponseHead) -> Option<u32> {
    // A hop-by-hop field: without any the head is forwarded as it is.
    if !head.rewrite || head.interim || isock.owned().silent {
        return None;
    }
    Fields::of_response(bytes, head)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"keep-alive"))
        .flat_map(|(_, value)| value.split(|b| *b == b','))
        .find_map(seconds)
}

/// The number in `timeout=number`; a number that is too large is as good as the largest.
fn seconds(parameter: &[u8]) -> Option<u32> {
    let at = parameter.iter().position(|b| *b == b'=')?;
    let (name, value) = parameter.split_at_checked(at)?;
    if !name.trim_ascii().eq_ignore_ascii_case(b"timeout") {
        return None;
    }
    let value = value.strip_prefix(b"=")?.trim_ascii();
    let value = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""))
        .unwrap_or(value);
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u32, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}
