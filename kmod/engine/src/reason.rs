// SPDX-License-Identifier: GPL-2.0

//! Why the engine refused bytes: one reason for each rule, and one name for counter, trace and reply.
//!
//! A reason's number is its place in the module's counters: append, never reorder.

/// What the client is answered.  Bytes from an endpoint are always `upstream_protocol` to the client, whatever
/// the class: fields and chunks obey the same rules both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// 400, and the connection ends: where the next request begins is not known.
    BadRequest,
    /// 431, and the connection ends.
    HeadTooLarge,
    /// 501, and the connection ends.
    Unsupported,
    /// 505, and the connection ends.
    Version,
    /// 502: only an endpoint can cause it.
    Upstream,
    /// The caller's or the policy's mistake, not the peer's.
    Internal,
}

macro_rules! reasons {
    ($($variant:ident = $name:literal, $class:ident, $text:literal;)*) => {
        /// Why bytes were refused.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The counter, the detail of `x-xlb-reason`, and the word in `xlbctl stats`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)*
                }
            }

            /// What the client is answered.
            pub const fn class(self) -> Class {
                match self {
                    $(Reason::$variant => Class::$class,)*
                }
            }
        }
    };
}

reasons! {
    // Limits
    HeadBytes = "head_bytes", HeadTooLarge, "head longer than its limit";
    FieldCount = "field_count", HeadTooLarge, "more fields than the limit";
    FieldBytes = "field_bytes", HeadTooLarge, "field line longer than its limit";
    TargetBytes = "target_bytes", HeadTooLarge, "request target longer than its limit";
    MethodBytes = "method_bytes", BadRequest, "method longer than its limit";
    LeadingLines = "leading_lines", BadRequest, "more empty lines before the request than the limit";
    ConnectionOptions = "connection_options", HeadTooLarge, "more connection options than the limit";
    // Line ends and control bytes (RFC 9112, section 2.2; RFC 9110, section 5.5)
    BareCr = "bare_cr", BadRequest, "carriage return without line feed";
    BareLf = "bare_lf", BadRequest, "line feed without carriage return";
    Nul = "nul", BadRequest, "zero byte in a field value";
    Control = "control", BadRequest, "control byte in a field value";
    // Request line (RFC 9112, section 3)
    MethodEmpty = "method_empty", BadRequest, "no method before the first space";
    MethodByte = "method_byte", BadRequest, "byte in the method that no token may have";
    MethodConnect = "method_connect", Unsupported, "CONNECT is not relayed";
    TargetEmpty = "target_empty", BadRequest, "no target after the method, or two spaces";
    TargetByte = "target_byte", BadRequest, "white space or control byte in the target";
    TargetFragment = "target_fragment", BadRequest, "fragment in the target";
    TargetForm = "target_form", BadRequest, "target in none of the forms that the method allows";
    TargetScheme = "target_scheme", BadRequest, "absolute target whose scheme is not http or https";
    TargetUserinfo = "target_userinfo", BadRequest, "user name in the target's authority";
    VersionMissing = "version_missing", BadRequest, "request line without version (HTTP/0.9)";
    VersionSyntax = "version_syntax", BadRequest, "malformed HTTP version";
    VersionUnsupported = "version_unsupported", Version, "HTTP version other than 1.0 and 1.1";
    RequestLineEnd = "request_line_end", BadRequest, "bytes between version and line end";
    // Field lines (RFC 9112, section 5)
    SpaceAfterStartLine = "space_after_start_line", BadRequest, "white space before the first field";
    ObsFold = "obs_fold", BadRequest, "folded field line";
    FieldNameEmpty = "field_name_empty", BadRequest, "field line that begins with a colon";
    FieldNameByte = "field_name_byte", BadRequest, "byte in a field name that no token may have";
    FieldNameSpace = "field_name_space", BadRequest, "white space between field name and colon";
    FieldColonMissing = "field_colon_missing", BadRequest, "field line without colon";
    FieldLookalike = "field_lookalike", BadRequest, "framing field spelt with underscores";
    // Host (RFC 9110, section 7.2; RFC 9112, section 3.2)
    HostMissing = "host_missing", BadRequest, "HTTP/1.1 request without Host";
    HostRepeated = "host_repeated", BadRequest, "more than one Host";
    HostEmpty = "host_empty", BadRequest, "empty host";
    HostByte = "host_byte", BadRequest, "byte that no host name may have";
    HostLabel = "host_label", BadRequest, "host name with an empty label";
    HostBytes = "host_bytes", BadRequest, "host name longer than 255 bytes";
    HostLiteral = "host_literal", BadRequest, "malformed IP literal";
    HostPort = "host_port", BadRequest, "malformed port";
    // Not refused any more: the target wins.
    HostMismatch = "host_mismatch", BadRequest, "Host differs from the absolute target";
    // Content-Length (RFC 9112, section 6.2)
    LengthSyntax = "length_syntax", BadRequest, "Content-Length is no decimal number";
    LengthList = "length_list", BadRequest, "Content-Length is a list";
    LengthZeros = "length_zeros", BadRequest, "Content-Length with leading zeros";
    LengthOverflow = "length_overflow", BadRequest, "Content-Length above 2^63 - 1";
    LengthRepeated = "length_repeated", BadRequest, "more than one Content-Length";
    LengthAndCoding = "length_and_coding", BadRequest, "both Content-Length and Transfer-Encoding";
    // Transfer-Encoding (RFC 9112, section 6.1)
    CodingRepeated = "coding_repeated", BadRequest, "more than one Transfer-Encoding";
    CodingEmpty = "coding_empty", BadRequest, "Transfer-Encoding with an empty element";
    CodingTwice = "coding_twice", BadRequest, "chunked twice";
    CodingNotLast = "coding_not_last", BadRequest, "chunked is not the last coding";
    CodingUnknown = "coding_unknown", Unsupported, "transfer coding other than chunked";
    CodingSyntax = "coding_syntax", BadRequest, "malformed Transfer-Encoding";
    CodingHttp10 = "coding_http10", BadRequest, "Transfer-Encoding in HTTP/1.0";
    // Other fields
    ConnectionSyntax = "connection_syntax", BadRequest, "connection option that is no token";
    ConnectionFraming = "connection_framing", BadRequest, "Connection names a field that frames or routes";
    ExpectUnknown = "expect_unknown", BadRequest, "expectation other than 100-continue";
    TraceContent = "trace_content", BadRequest, "TRACE with content";
    // Responses (RFC 9112, section 4)
    StatusLine = "status_line", Upstream, "malformed status line";
    StatusCode = "status_code", Upstream, "status code that is not three digits from 100";
    StatusReason = "status_reason", Upstream, "control byte in the reason phrase";
    ContentForbidden = "content_forbidden", Upstream, "1xx or 204 response with a body length or coding";
    CodingToHttp10 = "coding_to_http10", Upstream, "chunked response to an HTTP/1.0 request";
    InterimToHttp10 = "interim_to_http10", Upstream, "1xx response to an HTTP/1.0 request";
    InterimCount = "interim_count", Upstream, "more 1xx responses than the limit";
    SwitchUnasked = "switch_unasked", Upstream, "101 to a request that asked for no upgrade";
    SwitchProtocol = "switch_protocol", Upstream, "101 without the upgrade that was asked for";
    // Bodies (RFC 9112, section 7)
    ChunkSizeEmpty = "chunk_size_empty", BadRequest, "chunk without size";
    ChunkSizeByte = "chunk_size_byte", BadRequest, "chunk size that is no hexadecimal number";
    ChunkSizeDigits = "chunk_size_digits", BadRequest, "chunk size with more digits than the limit";
    ChunkSizeOverflow = "chunk_size_overflow", BadRequest, "chunk size above 2^63 - 1";
    ChunkExtSyntax = "chunk_ext_syntax", BadRequest, "malformed chunk extension";
    ChunkExtBytes = "chunk_ext_bytes", BadRequest, "more chunk framing than the limit";
    ChunkDataEnd = "chunk_data_end", BadRequest, "chunk data longer than the chunk's size";
    TrailerBytes = "trailer_bytes", BadRequest, "trailer section longer than its limit";
    TrailerField = "trailer_field", BadRequest, "trailer field that frames or routes";
    BodyTruncated = "body_truncated", BadRequest, "the connection closed inside a message";
    // Paths (module path)
    PathForm = "path_form", BadRequest, "path that does not begin with a slash";
    PathEscape = "path_escape", BadRequest, "malformed percent-encoding";
    PathNul = "path_nul", BadRequest, "encoded zero byte";
    PathParameter = "path_parameter", BadRequest, "dot segment with a parameter";
    // Rewriting
    OutputFull = "output_full", Internal, "rewritten head does not fit";
    EditName = "edit_name", Internal, "edit of a name that is no token";
    EditValue = "edit_value", Internal, "edit to a value that no field may have";
    EditForbidden = "edit_forbidden", Internal, "edit of a field that frames or routes";
    EditTarget = "edit_target", Internal, "edit to a malformed path";
    EditHost = "edit_host", Internal, "edit to a malformed host";
    // Appended
    MethodLookalike = "method_lookalike", BadRequest, "HEAD or CONNECT in another case";
    PathDots = "path_dots", BadRequest, "dot segment in the path, which servers resolve differently";
    PathAuthority = "path_authority", BadRequest, "path that begins with slash and backslash, which some read as a host";
}

// XLB_ENGINE_REASONS in xlb_intf.h.
const _: () = assert!(Reason::ALL.len() <= 96, "raise XLB_ENGINE_REASONS first");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_texts_are_unique_and_ordered() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            let name = reason.name();
            assert!(name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            for other in &Reason::ALL[..i] {
                assert_ne!(other.name(), name);
                assert_ne!(other.text(), reason.text());
            }
        }
    }
}
