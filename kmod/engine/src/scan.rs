// SPDX-License-Identifier: GPL-2.0

//! Finding the first byte of a kind, eight bytes at a time where that pays.
//!
//! The word tricks look at the lowest flagged byte only: a borrow may flag bytes above
//! a true one, never one below it.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Token character (RFC 9110, section 5.6.2).
const TOKEN: u8 = 1;
/// Allowed in a path as it is: pchar without percent, and the slash (RFC 3986, section 3.3).
const PATH: u8 = 2;
/// Unreserved (RFC 3986, section 2.3).
const UNRESERVED: u8 = 4;
/// Letter, digit, hyphen, underscore, tilde: what a label of a host name may hold here.
const LABEL: u8 = 8;

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn mark(mut table: [u8; 256], bytes: &[u8], kind: u8) -> [u8; 256] {
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] |= kind;
        i += 1;
    }
    table
}

const ALNUM: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

static KIND: [u8; 256] = {
    let table = mark([0; 256], ALNUM, TOKEN | PATH | UNRESERVED | LABEL);
    let table = mark(table, b"!#$%&'*+-.^_`|~", TOKEN);
    let table = mark(table, b"-._~!$&'()*+,;=:@/", PATH);
    let table = mark(table, b"-._~", UNRESERVED);
    mark(table, b"-_~", LABEL)
};

#[inline]
fn is(byte: u8, kind: u8) -> bool {
    KIND.get(byte as usize).is_some_and(|k| k & kind != 0)
}

#[inline]
pub(crate) fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

#[inline]
pub(crate) fn is_path(byte: u8) -> bool {
    is(byte, PATH)
}

#[inline]
pub(crate) fn is_unreserved(byte: u8) -> bool {
    is(byte, UNRESERVED)
}

/// field-vchar, space or tab (RFC 9110, section 5.5).
#[inline]
pub(crate) fn is_value(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// Visible ASCII.
#[inline]
pub(crate) fn is_visible(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// What clients send in a target: visible ASCII, and bytes from 0x80, which mean nothing to framing.
#[inline]
pub(crate) fn is_target(byte: u8) -> bool {
    byte > 0x20 && byte != 0x7f
}

/// The byte at an offset.
#[inline]
pub(crate) fn at(buf: &[u8], offset: usize) -> Option<u8> {
    buf.get(offset).copied()
}

#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES.wrapping_mul(u64::from(limit))) & !word & HIGHS
}

#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ ONES.wrapping_mul(u64::from(byte)), 1)
}

/// Flags the bytes that no field value may have, and the tab; every flag is exact up to the lowest.
#[inline]
fn not_value(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES.wrapping_mul(0x20));
    let delete = (word ^ ONES.wrapping_mul(0x7f)).wrapping_sub(ONES);
    (control | delete) & !word & HIGHS
}

/// Flags white space and control bytes, `#`, which no target may have, and `?`, which ends its path.
#[inline]
fn not_path(word: u64) -> u64 {
    let space = word.wrapping_sub(ONES.wrapping_mul(0x21));
    let delete = (word ^ ONES.wrapping_mul(0x7f)).wrapping_sub(ONES);
    let hash = (word ^ ONES.wrapping_mul(u64::from(b'#'))).wrapping_sub(ONES);
    let question = (word ^ ONES.wrapping_mul(u64::from(b'?'))).wrapping_sub(ONES);
    (space | delete | hash | question) & !word & HIGHS
}

#[inline(always)]
fn find(buf: &[u8], from: usize, flags: impl Fn(u64) -> u64, stops: impl Fn(u8) -> bool) -> usize {
    let Some(mut rest) = buf.get(from..) else {
        return from;
    };
    let mut at = from;
    // Two words a turn: long values are the most of a browser's head.
    while let Some((&[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], tail)) =
        rest.split_first_chunk::<16>()
    {
        let first = flags(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        if first != 0 {
            return at.wrapping_add((first.trailing_zeros() >> 3) as usize);
        }
        let second = flags(u64::from_le_bytes([i, j, k, l, m, n, o, p]));
        if second != 0 {
            return at.wrapping_add((second.trailing_zeros() >> 3).wrapping_add(8) as usize);
        }
        at = at.wrapping_add(16);
        rest = tail;
    }
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let hit = flags(u64::from_le_bytes(*word));
        if hit != 0 {
            return at.wrapping_add((hit.trailing_zeros() >> 3) as usize);
        }
        at = at.wrapping_add(8);
        rest = tail;
    }
    for byte in rest {
        if stops(*byte) {
            return at;
        }
        at = at.wrapping_add(1);
    }
    at
}

/// The first byte at or after `from` that is no token character, or the end.
#[inline]
pub(crate) fn token_end(buf: &[u8], from: usize) -> usize {
    kind_end(buf, from, TOKEN)
}

/// The first byte at or after `from` that no label of a host name holds, or the end.
#[inline]
pub(crate) fn label_end(buf: &[u8], from: usize) -> usize {
    kind_end(buf, from, LABEL)
}

#[inline(always)]
fn kind_end(buf: &[u8], from: usize, kind: u8) -> usize {
    let Some(mut rest) = buf.get(from..) else {
        return from;
    };
    let mut end = from;
    // By eights only so that the compiler unrolls it.
    while let Some((eight, tail)) = rest.split_first_chunk::<8>() {
        for byte in eight {
            if !is(*byte, kind) {
                return end;
            }
            end = end.wrapping_add(1);
        }
        rest = tail;
    }
    for byte in rest {
        if !is(*byte, kind) {
            return end;
        }
        end = end.wrapping_add(1);
    }
    end
}

/// The first byte at or after `from` that may not stand in a field value (tabs may), or the end.
#[inline]
pub(crate) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut from = from;
    loop {
        let end = find(buf, from, not_value, |b| b < 0x20 || b == 0x7f);
        if at(buf, end) != Some(b'\t') {
            return end;
        }
        from = end.wrapping_add(1);
    }
}

/// The first byte at or after `from` that is white space, a control byte, `#` or `?`, or the end.
#[inline]
pub(crate) fn path_end(buf: &[u8], from: usize) -> usize {
    find(buf, from, not_path, |b| {
        !is_target(b) || b == b'#' || b == b'?'
    })
}

/// The first `byte` at or after `from`.
#[inline]
pub(crate) fn find_byte(buf: &[u8], from: usize, byte: u8) -> Option<usize> {
    let end = find(buf, from, |w| equal(w, byte), |b| b == byte);
    (end < buf.len()).then_some(end)
}

/// Without spaces and tabs at the end (OWS, RFC 9110, section 5.6.3).
#[inline]
pub(crate) fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Without spaces and tabs at both ends.
#[inline]
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    trim_end(value)
}

/// The elements of a comma-separated list (RFC 9110, section 5.6.1), trimmed; empty ones included.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

/// A decimal number without sign, space, leading zero or overflow of 63 bits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    let mut value: u64 = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(byte.wrapping_sub(b'0')))?;
    }
    (value <= i64::MAX as u64).then_some(value)
}

/// Are these tokens equal without regard to case?  `lower` holds lower-case letters, digits and hyphens, all of
/// which have bit 5 set; the other byte of each pair is a token only for letters.
#[inline]
pub(crate) fn is_token_equal(token: &[u8], lower: &[u8]) -> bool {
    const CASE: u64 = ONES.wrapping_mul(0x20);
    if token.len() != lower.len() {
        return false;
    }
    let same = |a: &[u8; 8], b: &[u8; 8]| u64::from_le_bytes(*a) | CASE == u64::from_le_bytes(*b);
    let (Some(a_last), Some(b_last)) = (token.last_chunk(), lower.last_chunk()) else {
        // Two halves of a short name overlap, as the last two words of a long one do.
        let half = |bytes: &[u8]| {
            let (first, last) = (bytes.first_chunk::<4>()?, bytes.last_chunk::<4>()?);
            Some((u32::from_le_bytes(*first), u32::from_le_bytes(*last)))
        };
        return match (half(token), half(lower)) {
            (Some(a), Some(b)) => (a.0 | CASE as u32, a.1 | CASE as u32) == b,
            _ => token.iter().zip(lower).all(|(a, b)| a | 0x20 == *b),
        };
    };
    let (mut a_rest, mut b_rest) = (token, lower);
    while let (Some((a, a_tail)), Some((b, b_tail))) =
        (a_rest.split_first_chunk(), b_rest.split_first_chunk())
    {
        if !same(a, b) {
            return false;
        }
        (a_rest, b_rest) = (a_tail, b_tail);
    }
    same(a_last, b_last)
}

#[inline]
pub(crate) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        b'A'..=b'F' => Some(byte.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each scanner against its definition, with every byte at every alignment.
    #[test]
    fn scanners_match_their_definitions() {
        for at in 0..24 {
            for byte in 0..=255u8 {
                let mut buf = [b'a'; 24];
                buf[at] = byte;
                let slow = |ok: &dyn Fn(u8) -> bool, from: usize| {
                    (from..buf.len())
                        .find(|i| !ok(buf[*i]))
                        .unwrap_or(buf.len())
                };
                for from in 0..10 {
                    assert_eq!(token_end(&buf, from), slow(&is_token, from));
                    assert_eq!(value_end(&buf, from), slow(&is_value, from));
                    assert_eq!(
                        path_end(&buf, from),
                        slow(&|b| is_target(b) && b != b'#' && b != b'?', from)
                    );
                    assert_eq!(
                        find_byte(&buf, from, byte),
                        (from..buf.len()).find(|i| buf[*i] == byte)
                    );
                }
            }
        }
    }

    #[test]
    fn token_is_the_set_of_rfc9110_5_6_2() {
        let tchar = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for byte in 0..=255u8 {
            assert_eq!(
                is_token(byte),
                tchar.bytes().any(|b| b == byte),
                "{byte:#x}"
            );
        }
    }

    #[test]
    fn tokens_are_equal_without_case() {
        let names = [
            "te",
            "host",
            "http2-settings",
            "transfer-encoding",
            "connection",
        ];
        for name in names {
            assert!(is_token_equal(name.as_bytes(), name.as_bytes()));
            assert!(is_token_equal(
                name.to_ascii_uppercase().as_bytes(),
                name.as_bytes()
            ));
            for at in 0..name.len() {
                for byte in (0..=255).filter(|b| is_token(*b)) {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    let expected = other.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(is_token_equal(&other, name.as_bytes()), expected);
                }
            }
            assert!(!is_token_equal(&name.as_bytes()[1..], name.as_bytes()));
        }
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "1 ",
            "0x1",
            "1_0",
            "9223372036854775808",
            "18446744073709551616",
            "1\0",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
