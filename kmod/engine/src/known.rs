// SPDX-License-Identifier: GPL-2.0

//! The one table of the field names that mean something to the engine.
//!
//! Each of them says where a message ends, what it asks for, or something to the next hop only.  So no trailer section may hold
//! one (RFC 9110, section 6.5.1), no edit may touch one, and one spelt with underscores is refused.  What sets them apart is who
//! they are meant for ([`Reach`]).

use crate::hash::fnv1a;
use crate::scan;

/// Who a field is meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// The next hop only (RFC 9110, section 7.6.1): never forwarded as it came.
    Hop,
    /// The other end.  Connection must not name such a field: dropping it would change where the message ends, or what it
    /// asks for.
    End,
}

macro_rules! fields {
    ($($known:ident = $name:literal, $len:literal $first:literal, $reach:ident;)*) => {
        /// A field that the engine knows.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Known {
            $($known,)*
        }

        impl Known {
            const ALL: &'static [Known] = &[$(Known::$known,)*];

            /// In lower case.
            #[inline]
            const fn spelling(self) -> &'static [u8] {
                match self {
                    $(Known::$known => $name,)*
                }
            }

            const fn reach(self) -> Reach {
                match self {
                    $(Known::$known => Reach::$reach,)*
                }
            }

            /// The field that this token may be by its length and first letter, and whether it is.
            #[inline]
            pub(crate) fn candidate(name: &[u8]) -> Option<(Known, bool)> {
                // One test sends most fields on.
                const LENGTHS: u32 = $((1 << $len))|*;
                if name.len() > LENGTHS.ilog2() as usize || (LENGTHS >> name.len()) & 1 == 0 {
                    return None;
                }
                let known = match (name.len(), name.first()? | 0x20) {
                    $(($len, $first) => Known::$known,)*
                    _ => return None,
                };
                Some((known, scan::is_token_equal(name, known.spelling())))
            }
        }

        $(const _: () = assert!(matches!($name, [$first, ..]) && $name.len() == $len);)*
    };
}

fields! {
    Host = b"host", 4 b'h', End;
    ContentLength = b"content-length", 14 b'c', End;
    TransferEncoding = b"transfer-encoding", 17 b't', End;
    Connection = b"connection", 10 b'c', Hop;
    KeepAlive = b"keep-alive", 10 b'k', Hop;
    ProxyConnection = b"proxy-connection", 16 b'p', Hop;
    Te = b"te", 2 b't', Hop;
    Upgrade = b"upgrade", 7 b'u', Hop;
    Http2Settings = b"http2-settings", 14 b'h', Hop;
    Expect = b"expect", 6 b'e', End;
    Trailer = b"trailer", 7 b't', End;
}

const COUNT: usize = Known::ALL.len();

/// Of the names, so that one can be compared without being stored.
static HASHES: [u64; COUNT] = hashes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler"
)]
const fn hashes() -> [u64; COUNT] {
    let (mut hashes, mut i) = ([0; COUNT], 0);
    while i < COUNT {
        hashes[i] = fnv1a(Known::ALL[i].spelling());
        i += 1;
    }
    hashes
}

impl Known {
    /// The field of this name, which is a token, compared without case.
    #[inline]
    pub(crate) fn from_name(name: &[u8]) -> Option<Known> {
        Self::candidate(name).and_then(|(known, equal)| equal.then_some(known))
    }

    /// Is this the FNV-1a hash of a known name in lower case?
    pub(crate) fn is_hash(hash: u64) -> bool {
        HASHES.contains(&hash)
    }

    /// Is this the name of a field with `_` for `-`?  Gateways that turn names into environment variables
    /// cannot tell the two apart.
    #[cold]
    pub(crate) fn is_lookalike(name: &[u8]) -> bool {
        Self::candidate(name).is_some_and(|(known, _)| {
            name.contains(&b'_')
                && name
                    .iter()
                    .zip(known.spelling())
                    .all(|(a, b)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-'))
        })
    }

    /// Meant for the next hop only.
    #[inline]
    pub(crate) fn is_hop_by_hop(self) -> bool {
        self.reach() == Reach::Hop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_without_case() {
        for known in Known::ALL {
            let name = known.spelling();
            assert_eq!(Known::from_name(name), Some(*known));
            assert_eq!(Known::from_name(&name.to_ascii_uppercase()), Some(*known));
            assert!(Known::is_hash(fnv1a(name)));
            assert!(!Known::is_lookalike(name));
            let underscores: Vec<u8> = name
                .iter()
                .map(|b| if *b == b'-' { b'_' } else { *b })
                .collect();
            let other = underscores != name;
            assert_eq!(Known::from_name(&underscores).is_none(), other);
            assert_eq!(Known::is_lookalike(&underscores), other);
        }
        for name in [
            "",
            "hosts",
            "content-lengt",
            "content-lengths",
            "hose",
            "content.length",
            "X",
            "accept-charset",
            "a-name-that-is-longer-than-thirty-two-bytes-in-all",
        ] {
            assert_eq!(Known::from_name(name.as_bytes()), None, "{name}");
            assert!(!Known::is_lookalike(name.as_bytes()), "{name}");
            assert!(!Known::is_hash(fnv1a(name.as_bytes())), "{name}");
        }
        for name in ["content_length", "TRANSFER_ENCODING", "Keep_Alive"] {
            assert!(Known::is_lookalike(name.as_bytes()), "{name}");
        }
    }
}
