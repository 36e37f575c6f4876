// SPDX-License-Identifier: GPL-2.0

//! The cookie that keeps a client with its endpoint (RFC 6265, section 4.1).

use crate::out::Out;
use crate::reason::Reason;

/// The digits of a value.
const DIGITS: usize = 16;

/// The most bytes that [`write()`] needs.
pub fn bound(name: &[u8], attributes: &[u8]) -> usize {
    name.len()
        .saturating_add(attributes.len())
        .saturating_add(DIGITS + 1)
}

/// Writes what Set-Cookie says; returns its length.  The value is `affinity` in 16 hexadecimal digits, as the policy hashes it.
pub fn write(
    name: &[u8],
    affinity: u64,
    attributes: &[u8],
    out: &mut [u8],
) -> Result<usize, Reason> {
    let mut out = Out::new(out);
    out.put(name)?;
    out.push(b'=')?;
    for byte in affinity.to_be_bytes() {
        for digit in [byte >> 4, byte & 15] {
            out.push(match digit {
                0..=9 => b'0'.wrapping_add(digit),
                _ => b'a'.wrapping_add(digit.wrapping_sub(10)),
            })?;
        }
    }
    out.put(attributes)?;
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = |affinity, attributes: &[u8]| {
            let mut out = vec![0; bound(b"sid", attributes)];
            let len = write(b"sid", affinity, attributes, &mut out).unwrap();
            String::from_utf8(out[..len].to_vec()).unwrap()
        };
        assert_eq!(text(0x0123_4567_89ab_cdef, b""), "sid=0123456789abcdef");
        assert_eq!(text(1, b"; Path=/"), "sid=0000000000000001; Path=/");
    }
}
