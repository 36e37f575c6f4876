// SPDX-License-Identifier: GPL-2.0

//! Host names (RFC 3986, section 3.2.2): what is accepted, and the form that is matched.
//!
//! Accepted are names of letters, digits, `-`, `_`, `.`, `~`, IPv4 addresses, and IPv6 literals in
//! brackets.  Percent-encoding and sub-delimiters are legal in a URI, but no host on a network has them,
//! and servers disagree about what they mean.
//!
//! The matched form is in lower case and without the dot that ends a fully qualified name.

use crate::limits::HOST_BYTES;
use crate::path::Normalized;
use crate::reason::Reason;
use crate::scan;

/// Checks a host without port.
pub fn check(host: &[u8]) -> Result<(), Reason> {
    if host.is_empty() {
        return Err(Reason::HostEmpty);
    }
    if host.len() > HOST_BYTES {
        return Err(Reason::HostBytes);
    }
    if let [b'[', literal @ ..] = host {
        let address = literal.strip_suffix(b"]").ok_or(Reason::HostLiteral)?;
        return if is_ipv6(address) {
            Ok(())
        } else {
            Err(Reason::HostLiteral)
        };
    }
    if name_len(host)? != host.len() {
        return Err(Reason::HostByte);
    }
    Ok(())
}

/// How many bytes of an authority are its host, checked like [`check`]; what follows is not looked at.
#[inline]
pub(crate) fn len(authority: &[u8]) -> Result<usize, Reason> {
    let len = match authority.first() {
        Some(b'[') => literal_len(authority)?,
        _ => name_len(authority)?,
    };
    match len {
        0 => Err(Reason::HostEmpty),
        1..=HOST_BYTES => Ok(len),
        _ => Err(Reason::HostBytes),
    }
}

/// The length of an IP literal with its brackets.  What follows the authority is not looked at: the line's end is no byte of
/// an address.
#[cold]
fn literal_len(authority: &[u8]) -> Result<usize, Reason> {
    let close = authority
        .iter()
        .skip(1)
        .position(|b| !(b.is_ascii_hexdigit() || matches!(b, b':' | b'.')))
        .map_or(authority.len(), |address| address.wrapping_add(1));
    if authority.get(close) != Some(&b']') {
        return Err(Reason::HostLiteral);
    }
    let len = close.wrapping_add(1);
    check(authority.get(..len).unwrap_or(&[]))?;
    Ok(len)
}

/// The length of the labels and dots at the start of `bytes`.  Every label has a byte, but after the dot that ends
/// a fully qualified name.
#[inline]
fn name_len(bytes: &[u8]) -> Result<usize, Reason> {
    let mut label = 0;
    loop {
        let end = scan::label_end(bytes, label);
        if scan::at(bytes, end) != Some(b'.') {
            return Ok(end);
        }
        if end == label {
            return Err(Reason::HostLabel);
        }
        label = end.wrapping_add(1);
    }
}

/// One to five digits, at most 65535.
pub(crate) fn port(digits: &[u8]) -> Result<u16, Reason> {
    if digits.is_empty() || digits.len() > 5 {
        return Err(Reason::HostPort);
    }
    let mut value: u32 = 0;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return Err(Reason::HostPort);
        }
        // At most 99999.
        value = value
            .wrapping_mul(10)
            .wrapping_add(u32::from(byte.wrapping_sub(b'0')));
    }
    u16::try_from(value).map_err(|_| Reason::HostPort)
}

/// IPv6address of RFC 3986, section 3.2.2: eight groups, or fewer and one `::`; the last two may be an IPv4 address.
fn is_ipv6(address: &[u8]) -> bool {
    let mut groups = 0u32;
    let mut gap = false;
    let mut rest = address;
    if let Some(after) = rest.strip_prefix(b"::") {
        gap = true;
        rest = after;
        if rest.is_empty() {
            return true;
        }
    }
    loop {
        let len = rest
            .iter()
            .position(|b| !b.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        if len == 0 {
            return false;
        }
        let after = rest.get(len..).unwrap_or(&[]);
        if after.first() == Some(&b'.') {
            groups = groups.saturating_add(2);
            return is_ipv4(rest) && if gap { groups < 8 } else { groups == 8 };
        }
        if len > 4 {
            return false;
        }
        groups = groups.saturating_add(1);
        rest = match after {
            [] => return if gap { groups < 8 } else { groups == 8 },
            [b':', b':', after @ ..] if !gap => {
                gap = true;
                if after.is_empty() {
                    return groups < 8;
                }
                after
            }
            [b':', after @ ..] => after,
            _ => return false,
        };
    }
}

fn is_ipv4(address: &[u8]) -> bool {
    let mut parts = 0u32;
    for part in address.split(|b| *b == b'.') {
        parts = parts.saturating_add(1);
        if part.len() > 3 || scan::decimal(part).is_none_or(|n| n > 255) {
            return false;
        }
    }
    parts == 4
}

/// Brings an accepted host to the form that is matched; the result is never longer.
pub fn normalize(host: &[u8], out: &mut [u8]) -> Result<Normalized, Reason> {
    check(host)?;
    let name = match host {
        [name @ .., b'.'] => name,
        _ => host,
    };
    if name.len() == host.len() && !host.iter().any(u8::is_ascii_uppercase) {
        return Ok(Normalized::Same);
    }
    let room = out.get_mut(..name.len()).ok_or(Reason::OutputFull)?;
    for (to, from) in room.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    Ok(Normalized::Written(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::draws;
    use std::net::Ipv6Addr;

    #[test]
    fn ipv6_agrees_with_the_standard_library() {
        let mut next = draws(1);
        let parts = [
            "1",
            "ffff",
            "0",
            "::",
            ":",
            ":",
            ":",
            "127.0.0.1",
            "12345",
            "1.2.3",
            "g",
            ".",
        ];
        let mut valid = 0;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..next(20) {
                text.push_str(
                    parts[if next(20) == 0 {
                        next(parts.len())
                    } else {
                        next(7)
                    }],
                );
            }
            let expected = text.parse::<Ipv6Addr>().is_ok();
            valid += usize::from(expected);
            assert_eq!(is_ipv6(text.as_bytes()), expected, "{text}");
        }
        assert!(valid > 100);
        for text in [
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "::ffff:1.2.3.4",
            "1:2:3:4:5:6:1.2.3.4",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:1.2.3.4",
            "1::2::3",
            ":::",
            "::1.2.3.4.5",
            "::01.2.3.4",
            "1:",
            ":1",
            "",
        ] {
            assert_eq!(
                is_ipv6(text.as_bytes()),
                text.parse::<Ipv6Addr>().is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn names() {
        for good in [
            "a",
            "a.b",
            "a.b.",
            "127.0.0.1",
            "my_svc-1.ns",
            "~a",
            "[::1]",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("", Reason::HostEmpty),
            (".", Reason::HostLabel),
            (".a", Reason::HostLabel),
            ("a..b", Reason::HostLabel),
            ("a b", Reason::HostByte),
            ("a%41", Reason::HostByte),
            ("a,b", Reason::HostByte),
            ("a/b", Reason::HostByte),
            ("a@b", Reason::HostByte),
            ("\u{e4}", Reason::HostByte),
            ("[::1", Reason::HostLiteral),
            ("[]", Reason::HostLiteral),
            ("[v1.a]", Reason::HostLiteral),
            ("[fe80::1%25eth0]", Reason::HostLiteral),
        ] {
            assert_eq!(check(bad.as_bytes()), Err(reason), "{bad}");
        }
        assert_eq!(check(&[b'a'; 255]), Ok(()));
        assert_eq!(check(&[b'a'; 256]), Err(Reason::HostBytes));
    }

    #[test]
    fn normal_form() {
        let mut out = [0; 16];
        assert_eq!(normalize(b"shop.example", &mut out), Ok(Normalized::Same));
        assert_eq!(
            normalize(b"Shop.Example.", &mut out),
            Ok(Normalized::Written(12))
        );
        assert_eq!(&out[..12], b"shop.example");
        assert_eq!(
            normalize(b"shop.example.", &mut out),
            Ok(Normalized::Written(12))
        );
        assert_eq!(
            normalize(b"[FD00::1]", &mut out),
            Ok(Normalized::Written(9))
        );
        assert_eq!(
            normalize(b"Shop.Example", &mut out[..3]),
            Err(Reason::OutputFull)
        );
    }

    #[test]
    fn ports() {
        assert_eq!(port(b"80"), Ok(80));
        assert_eq!(port(b"65535"), Ok(65535));
        for bad in ["", "65536", "123456", "-1", "8 0", "x"] {
            assert_eq!(port(bad.as_bytes()), Err(Reason::HostPort), "{bad}");
        }
    }
}
