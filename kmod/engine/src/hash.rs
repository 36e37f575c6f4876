// SPDX-License-Identifier: GPL-2.0

//! FNV-1a, 64 bit: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>.  For consistent choices, not for secrets:
//! whoever picks the bytes can pick the hash.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of some bytes.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    Fnv1a::new().update(bytes).finish()
}

/// The same, a piece at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fnv1a(u64);

impl Fnv1a {
    /// The hash of no bytes.
    pub const fn new() -> Self {
        Fnv1a(OFFSET)
    }

    /// The hash with `byte` after what was hashed before.
    #[must_use]
    #[inline]
    pub const fn push(self, byte: u8) -> Self {
        Fnv1a((self.0 ^ byte as u64).wrapping_mul(PRIME))
    }

    /// The hash with `bytes` after what was hashed before.
    #[must_use]
    pub const fn update(mut self, mut bytes: &[u8]) -> Self {
        while let [first, rest @ ..] = bytes {
            self = self.push(*first);
            bytes = rest;
        }
        self
    }

    /// The hash.
    pub const fn finish(self) -> u64 {
        self.0
    }
}

impl Default for Fnv1a {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Vectors of draft-eastlake-fnv, appendix C.
    #[test]
    fn vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(
            Fnv1a::new().update(b"foo").update(b"bar").finish(),
            fnv1a(b"foobar")
        );
    }
}
