// SPDX-License-Identifier: GPL-2.0

//! Every limit of the engine, with the attack that it stops.
//!
//! The defaults are above what real programs send.  A limit of n admits n and refuses n + 1.

/// Host name, in bytes, for all messages alike: RFC 1035, section 2.3.4, has no longer ones. A matcher that copies names
/// needs a bound that no configuration can move.
pub(crate) const HOST_BYTES: usize = 255;

/// What a chunk may cost, in bytes, before its data has to pay for it: size, CRLF, and a short extension. Chunks of one
/// byte are slow, and no attack.
pub(crate) const CHUNK_FREE_BYTES: u32 = 16;

/// What one message may cost.  Units are bytes unless the name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Whole head, from the first byte to the empty line: the caller holds a head until it ends, so
    /// this bounds the memory that a client which never ends its head (slowloris), or a
    /// backend that answers with headers for ever, can pin.
    pub head_bytes: u32,
    /// Fields of one head: work per request grows with the fields (route matching looks at each), and
    /// a head of 16,000 fields of 4 bytes costs far more than its size says.
    pub field_count: u32,
    /// One field line without its CRLF: backends refuse or truncate longer ones each in their own way,
    /// and one value may be compared with many routes.
    pub field_bytes: u32,
    /// The request target: every route of a virtual host may be tried on it.
    pub target_bytes: u32,
    /// The method: a token without end would fill the head before anything can be said about it.
    pub method_bytes: u32,
    /// Connection options in one head: each field is compared with each option when a head is
    /// rewritten, so this bounds a product.
    pub connection_options: u32,
    /// Empty lines before a request line: RFC 9112, section 2.2, has them ignored; without
    /// a bound a client keeps the parser busy with lines that are no request.
    pub leading_lines: u32,
    /// Chunk framing beyond what the data pays for: chunk extensions and zero-padded sizes make a
    /// 1-byte chunk cost kilobytes (CVE-2023-39326).  16 bytes a chunk and twice its data are free.
    /// An empty chunk needs no limit of its own: the first one ends the body.
    pub chunk_ext_bytes: u32,
    /// Digits of one chunk size: zero padding without end is a chunk that never begins.
    pub chunk_size_digits: u32,
    /// Trailer section with its line ends: it is relayed as it comes, but the other side keeps it whole.
    pub trailer_bytes: u32,
    /// Interim responses (1xx) to one request: a backend that sends them for ever keeps the exchange
    /// alive past every idle timer and the client busy.
    pub interim_count: u32,
}

impl Limits {
    /// Fits browsers, gRPC gateways, service meshes and their cookies and tokens.
    pub const DEFAULT: Limits = Limits {
        head_bytes: 64 * 1024,
        field_count: 256,
        field_bytes: 32 * 1024,
        target_bytes: 16 * 1024,
        method_bytes: 32,
        connection_options: 16,
        leading_lines: 2,
        chunk_ext_bytes: 16 * 1024,
        chunk_size_digits: 16,
        trailer_bytes: 16 * 1024,
        interim_count: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
