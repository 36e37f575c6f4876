// SPDX-License-Identifier: GPL-2.0

//! FNV-1a, 64 bit: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>.  For consistent choices, not for secrets:
//! whoever picks the bytes can pick the hash.  `Keyed` is for tables whose names a client picks.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of some bytes.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    Fnv1a::new().update(bytes).finish()
}

/// The same of the bytes with ASCII letters in lower case.
pub fn fnv1a_lower(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(Fnv1a::new(), |hash, byte| {
        hash.push(byte.to_ascii_lowercase())
    });
    hash.finish()
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

/// A hash with a secret: each word is multiplied to 128 bits and folded.  Names have no NUL, so a last word that is not
/// full says its length; a name is hashed to the end of the word behind its last byte.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    hash: u64,
    factor: u64,
}

impl Keyed {
    /// Before the first word.
    #[inline]
    pub(crate) fn new([hash, factor]: [u64; 2]) -> Self {
        Keyed { hash, factor }
    }

    /// Of a whole name, each word of which is changed by `fold` first.
    #[inline]
    pub(crate) fn of(key: [u64; 2], name: &[u8], fold: impl Fn(u64) -> u64) -> Keyed {
        let (mut hash, mut at) = (Keyed::new(key), 0usize);
        while at <= name.len() {
            hash.push(fold(word_at(name, at)));
            at = at.wrapping_add(8);
        }
        hash
    }

    #[inline]
    pub(crate) fn push(&mut self, word: u64) {
        let product = u128::from(self.hash ^ word).wrapping_mul(u128::from(self.factor));
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    pub(crate) fn finish(self) -> u64 {
        self.hash
    }
}

/// Eight bytes as a word, the first lowest; NULs behind the last.
#[inline]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at.wrapping_add(8)) {
        Some(&[a, b, c, d, e, f, g, h]) => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => last_word(bytes.get(at..).unwrap_or(&[])),
    }
}

#[cold]
fn last_word(bytes: &[u8]) -> u64 {
    let backwards = bytes.iter().rev();
    backwards.fold(0, |word, byte| (word << 8) | u64::from(*byte))
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
        assert_eq!(fnv1a_lower(b"FooBar"), fnv1a(b"foobar"));
        assert_eq!(
            Fnv1a::new().update(b"foo").update(b"bar").finish(),
            fnv1a(b"foobar")
        );
    }
}
