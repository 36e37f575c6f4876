// SPDX-License-Identifier: GPL-2.0

//! Request heads, rule by rule; each test names the section that it comes from.

mod common;

use common::request;
use xlb_engine::{
    Class, Fields, Framing, Limits, Method, Protocol, Reason, RequestHead, RequestParser, Status,
    Version,
};

fn with_fields(fields: &str) -> Result<RequestHead, Reason> {
    request(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn refused(cases: &[(&str, Reason)]) {
    for (bytes, reason) in cases {
        assert_eq!(request(bytes).map(|_| ()), Err(*reason), "{bytes:?}");
    }
}

fn refused_fields(cases: &[(&str, Reason)]) {
    for (fields, reason) in cases {
        assert_eq!(with_fields(fields).map(|_| ()), Err(*reason), "{fields:?}");
    }
}

#[test]
fn rfc9112_2_1_message_format() {
    let bytes = b"GET /where?q=now HTTP/1.1\r\nHost: www.example.com\r\nAccept:  text/html \r\nEmpty:\r\n\r\nGET /next";
    let head = request(bytes).unwrap();
    assert_eq!(head.head_bytes as usize, bytes.len() - "GET /next".len());
    assert_eq!(head.skip, 0);
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.method_span.get(bytes), b"GET");
    assert_eq!(head.target.get(bytes), b"/where?q=now");
    assert_eq!(head.path.get(bytes), b"/where");
    assert_eq!(head.query.get(bytes), b"q=now");
    assert_eq!(head.host.get(bytes), b"www.example.com");
    assert_eq!(head.port, None);
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::None);
    assert!(
        !head.close
            && !head.rewrite
            && head.upgrade.is_none()
            && !head.expect_continue
            && !head.solo
    );
    let fields: Vec<_> = Fields::of(bytes, &head).collect();
    let expected: [(&[u8], &[u8]); 3] = [
        (b"Host", b"www.example.com"),
        (b"Accept", b"text/html"),
        (b"Empty", b""),
    ];
    assert_eq!(fields, expected);
    assert_eq!(head.field_count, 3);
}

#[test]
fn rfc9112_2_2_message_parsing() {
    // "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line"
    let bytes = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = request(bytes).unwrap();
    assert_eq!((head.skip, head.head_bytes as usize), (4, bytes.len()));
    assert_eq!(head.method_span.get(bytes), b"GET");
    refused(&[
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", Reason::LeadingLines),
        ("\nGET / HTTP/1.1\r\n\r\n", Reason::BareLf),
        ("\rGET / HTTP/1.1\r\n\r\n", Reason::BareCr),
        // "a recipient MAY recognize a single LF as a line terminator": peers differ, so not here
        ("GET / HTTP/1.1\nHost: a\n\n", Reason::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Reason::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\n\n", Reason::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Reason::BareLf),
        // bare CR
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Reason::BareCr),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            Reason::BareCr,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n",
            Reason::BareCr,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
            Reason::BareCr,
        ),
        // white space between the start line and the first field
        (
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            Reason::SpaceAfterStartLine,
        ),
        (
            "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            Reason::SpaceAfterStartLine,
        ),
        (
            "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
            Reason::SpaceAfterStartLine,
        ),
    ]);
}

#[test]
fn rfc9112_2_3_version() {
    for (version, reason) in [
        ("HTTP/2.0", Reason::VersionUnsupported),
        ("HTTP/1.2", Reason::VersionUnsupported),
        ("HTTP/0.9", Reason::VersionUnsupported),
        ("http/1.1", Reason::VersionSyntax),
        ("HTTP/1,1", Reason::VersionSyntax),
        ("HTTP/11 ", Reason::VersionSyntax),
        ("HTTP/1.10", Reason::RequestLineEnd),
        ("HTTP/01.1", Reason::VersionSyntax),
        ("HTTP 1.1", Reason::VersionSyntax),
        ("HTTP/1.1 ", Reason::RequestLineEnd),
        ("HTTP/1.1\t", Reason::RequestLineEnd),
        ("HTTP/1.1 x", Reason::RequestLineEnd),
        ("ICY/1.1x", Reason::VersionSyntax),
    ] {
        let bytes = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(request(&bytes), Err(reason), "{version}");
    }
    // The preface of HTTP/2 (RFC 9113, section 3.4)
    refused(&[(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        Reason::VersionUnsupported,
    )]);
    assert_eq!(Reason::VersionUnsupported.class(), Class::Version);
    assert_eq!(
        request("GET / HTTP/1.0\r\n\r\n").unwrap().version.as_u16(),
        0x0100
    );
    assert_eq!(with_fields("").unwrap().version.as_u16(), 0x0101);
}

#[test]
fn rfc9112_3_request_line() {
    refused(&[
        (" GET / HTTP/1.1\r\n\r\n", Reason::MethodEmpty),
        ("\tGET / HTTP/1.1\r\n\r\n", Reason::MethodByte),
        ("GET\t/ HTTP/1.1\r\n\r\n", Reason::MethodByte),
        ("GET\r\n\r\n", Reason::MethodByte),
        ("G\0T / HTTP/1.1\r\n\r\n", Reason::MethodByte),
        ("G\u{e9}T / HTTP/1.1\r\n\r\n", Reason::MethodByte),
        ("\x16\x03\x01\x02\0\x01", Reason::MethodByte), // a TLS client hello
        ("GET  / HTTP/1.1\r\n\r\n", Reason::TargetEmpty),
        ("GET /  HTTP/1.1\r\n\r\n", Reason::VersionSyntax),
        ("GET /\tHTTP/1.1\r\n\r\n", Reason::TargetByte),
        ("GET / x HTTP/1.1\r\n\r\n", Reason::VersionSyntax),
        ("GET /a\x0bb HTTP/1.1\r\n\r\n", Reason::TargetByte),
        ("GET /a\x7fb HTTP/1.1\r\n\r\n", Reason::TargetByte),
        ("GET /a\0 HTTP/1.1\r\n\r\n", Reason::TargetByte),
        ("GET /\r\n\r\n", Reason::VersionMissing), // HTTP/0.9
        ("GET /\n", Reason::VersionMissing),
        ("GET /#f HTTP/1.1\r\n\r\n", Reason::TargetFragment),
    ]);
}

#[test]
fn rfc9110_9_methods() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("TRACE", Method::Trace),
        ("PATCH", Method::Patch),
        ("get", Method::Other),
        ("PROPFIND", Method::Other),
        ("M-SEARCH", Method::Other),
        ("!#$%&'*+-.^_`|~", Method::Other),
    ] {
        let head = request(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        assert_eq!(head.method, method, "{name}");
        assert_eq!(head.method_span.len as usize, name.len());
    }
    refused(&[(
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        Reason::MethodConnect,
    )]);
    assert_eq!(Reason::MethodConnect.class(), Class::Unsupported);
    // Methods have case (section 9.1); where ignoring it would move the end of the response, it is not relayed.
    refused(&[
        (
            "head / HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::MethodLookalike,
        ),
        (
            "Connect / HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::MethodLookalike,
        ),
    ]);
    // section 9.3.8: "A client MUST NOT send content in a TRACE request."
    refused(&[
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            Reason::TraceContent,
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::TraceContent,
        ),
    ]);
    // section 9.3.1: content in a GET request "might lead some implementations to reject the request and close the
    // connection because of its potential as a request smuggling attack"
    for (method, solo) in [
        ("GET", true),
        ("HEAD", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PUT", false),
    ] {
        let head = request(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
        ))
        .unwrap();
        assert_eq!(head.solo, solo, "{method}");
        let head = request(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ))
        .unwrap();
        assert!(!head.solo, "{method}");
    }
}

#[test]
fn rfc9112_3_2_1_origin_form() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/?a?b", "/", "a?b"),
        ("//x/y", "//x/y", ""),
        ("/a;b=c,d:e@f!$&'()*+", "/a;b=c,d:e@f!$&'()*+", ""),
        ("/%zz|{}", "/%zz|{}", ""),
        ("/a?x=http://b/", "/a", "x=http://b/"),
        // Go, Java, curl and Node.js send what they are given.
        ("/caf\u{e9}?\u{ff}=\u{80}", "/caf\u{e9}", "\u{ff}=\u{80}"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = request(&bytes).unwrap();
        assert_eq!(head.path.get(bytes.as_bytes()), path.as_bytes());
        assert_eq!(head.query.get(bytes.as_bytes()), query.as_bytes());
        assert!(!head.rewrite);
    }
    refused(&[
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        ("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        ("GET \\ HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
    ]);
}

#[test]
fn rfc9112_3_2_2_absolute_form() {
    for (target, host, path, query, port) in [
        ("http://a.example/x?y", "a.example", "/x", "y", None),
        ("HTTP://A.example", "A.example", "/", "", None),
        ("http://a.example?y", "a.example", "/", "y", None),
        ("http://a.example:80/", "a.example", "/", "", Some(80)),
        ("https://a.example/x", "a.example", "/x", "", None),
        ("HttpS://a.example:", "a.example", "/", "", None),
        // section 3.2.2: "the recipient MUST ignore the received Host header field"
        ("http://b/", "b", "/", "", None),
        ("http://a.example:81/", "a.example", "/", "", Some(81)),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n");
        let head = request(&bytes).unwrap();
        assert_eq!(head.host.get(bytes.as_bytes()), host.as_bytes(), "{target}");
        assert_eq!(head.path.get(bytes.as_bytes()), path.as_bytes(), "{target}");
        assert_eq!(
            head.query.get(bytes.as_bytes()),
            query.as_bytes(),
            "{target}"
        );
        assert_eq!(head.port, port);
        assert!(head.rewrite);
    }
    refused(&[
        (
            "GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n",
            Reason::HostByte,
        ),
        ("GET http://a/ HTTP/1.1\r\n\r\n", Reason::HostMissing),
        (
            "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::HostEmpty,
        ),
        (
            "GET http:///x HTTP/1.1\r\nHost: \r\n\r\n",
            Reason::HostEmpty,
        ),
        ("GET http://?x HTTP/1.0\r\n\r\n", Reason::HostEmpty),
        (
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetUserinfo,
        ),
        (
            "GET http://a@b:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetUserinfo,
        ),
        (
            "GET https:/// HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::HostEmpty,
        ),
        (
            "GET httpx://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetScheme,
        ),
        (
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetScheme,
        ),
        (
            "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetForm,
        ),
        ("GET http:a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        (
            "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::HostByte,
        ),
        (
            "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::HostPort,
        ),
    ]);
    let bytes = b"GET http://a/ HTTP/1.0\r\n\r\n";
    assert_eq!(request(bytes).unwrap().host.get(bytes), b"a");
}

#[test]
fn rfc9112_3_2_3_and_4_authority_and_asterisk_form() {
    let bytes = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(bytes).unwrap().path.get(bytes), b"*");
    refused(&[
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        ("OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        (
            "OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetForm,
        ),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Reason::TargetForm),
        (
            "GET a.example:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            Reason::TargetForm,
        ),
    ]);
}

#[test]
fn rfc9112_3_2_host() {
    for (host, name, port) in [
        ("a", "a", None),
        ("a:80", "a", Some(80)),
        ("  a.example.:8080 \t", "a.example.", Some(8080)),
        ("[fd00::1]", "[fd00::1]", None),
        ("[fd00::1]:443", "[fd00::1]", Some(443)),
        ("127.0.0.1:0", "127.0.0.1", Some(0)),
        ("my_service", "my_service", None),
        ("a:", "a", None),
        ("[::1]:", "[::1]", None),
        // "a client MUST send a Host header field with an empty field value" when there is no authority
        ("", "", None),
        (" \t", "", None),
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n");
        let head = request(&bytes).unwrap();
        assert_eq!(head.host.get(bytes.as_bytes()), name.as_bytes());
        assert_eq!(head.port, port);
    }
    refused(&[
        ("GET / HTTP/1.1\r\n\r\n", Reason::HostMissing),
        ("GET / HTTP/1.1\r\nX: y\r\n\r\n", Reason::HostMissing),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            Reason::HostRepeated,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            Reason::HostRepeated,
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            Reason::HostRepeated,
        ),
        ("GET / HTTP/1.1\r\nHost: :\r\n\r\n", Reason::HostEmpty),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", Reason::HostEmpty),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Reason::HostByte),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Reason::HostByte),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Reason::HostByte),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Reason::HostByte),
        ("GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", Reason::HostByte),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Reason::HostPort),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", Reason::HostPort),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Reason::HostPort),
        ("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", Reason::HostPort),
        ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Reason::HostEmpty),
        ("GET / HTTP/1.1\r\nHost: fd00::1\r\n\r\n", Reason::HostPort),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Reason::HostLiteral),
        ("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", Reason::HostLiteral),
        ("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", Reason::HostLabel),
    ]);
    assert!(request("GET / HTTP/1.0\r\n\r\n").unwrap().host.is_empty());
    // A bracket that is never closed, and one far behind in what follows the head: found by fuzzing.
    let bytes = format!("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n{}]", "x".repeat(300));
    assert_eq!(request(bytes), Err(Reason::HostLiteral));
}

#[test]
fn rfc9112_5_field_syntax() {
    refused_fields(&[
        (": x\r\n", Reason::FieldNameEmpty),
        ("X : y\r\n", Reason::FieldNameSpace), // section 5.1
        ("X\t: y\r\n", Reason::FieldNameSpace),
        ("X y: z\r\n", Reason::FieldNameSpace),
        ("X\r\n", Reason::FieldColonMissing),
        ("X\x0b: y\r\n", Reason::FieldNameByte),
        ("X(: y\r\n", Reason::FieldNameByte),
        ("X\0: y\r\n", Reason::FieldNameByte),
        ("\"X\": y\r\n", Reason::FieldNameByte),
        ("\u{ff}: y\r\n", Reason::FieldNameByte),
        ("X: y\r\n folded\r\n", Reason::ObsFold), // section 5.2
        ("X: y\r\n\tfolded\r\n", Reason::ObsFold),
        ("X: y\r\n \r\n", Reason::ObsFold),
        // RFC 9110, section 5.5
        ("X: a\0b\r\n", Reason::Nul),
        ("X: a\x0bb\r\n", Reason::Control),
        ("X: a\x7fb\r\n", Reason::Control),
        ("X: a\x1bb\r\n", Reason::Control),
    ]);
    for fields in [
        "X:y\r\n",
        "X:\r\n",
        "X: \t \r\n",
        "X: a\tb c\r\n",
        "X: caf\u{e9}\r\n",
        "X: a:b::\r\n",
        "!#$%&'*+-.^_`|~: y\r\n",
    ] {
        assert!(with_fields(fields).is_ok(), "{fields:?}");
    }
}

#[test]
fn rfc9112_6_2_content_length() {
    for (value, length) in [
        ("0", 0),
        ("5", 5),
        (" 5 \t", 5),
        ("9223372036854775807", i64::MAX as u64),
    ] {
        let head = with_fields(&format!("Content-Length:{value}\r\n")).unwrap();
        assert_eq!(head.framing, Framing::Length(length));
        assert!(head.rewrite, "without the one space: {value:?}");
        let head = with_fields(&format!("content-length: {}\r\n", value.trim())).unwrap();
        assert!(!head.rewrite);
    }
    refused_fields(&[
        ("Content-Length:\r\n", Reason::LengthSyntax),
        ("Content-Length: +5\r\n", Reason::LengthSyntax),
        ("Content-Length: -5\r\n", Reason::LengthSyntax),
        ("Content-Length: 0x5\r\n", Reason::LengthSyntax),
        ("Content-Length: 5 5\r\n", Reason::LengthSyntax),
        ("Content-Length: 5;a\r\n", Reason::LengthSyntax),
        ("Content-Length: 5.0\r\n", Reason::LengthSyntax),
        ("Content-Length: 1e3\r\n", Reason::LengthSyntax),
        ("Content-Length: \u{ff15}\r\n", Reason::LengthSyntax),
        ("Content-Length: 05\r\n", Reason::LengthZeros),
        ("Content-Length: 00\r\n", Reason::LengthZeros),
        (
            "Content-Length: 9223372036854775808\r\n",
            Reason::LengthOverflow,
        ),
        (
            "Content-Length: 18446744073709551616\r\n",
            Reason::LengthOverflow,
        ),
        (
            "Content-Length: 99999999999999999999999999\r\n",
            Reason::LengthOverflow,
        ),
        // section 6.3: a recipient may accept a list of equal values; peers differ
        ("Content-Length: 5, 5\r\n", Reason::LengthList),
        ("Content-Length: 5,\r\n", Reason::LengthList),
        ("Content-Length: 5, 6\r\n", Reason::LengthList),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            Reason::LengthRepeated,
        ),
        (
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            Reason::LengthRepeated,
        ),
        ("Content_Length: 5\r\n", Reason::FieldLookalike),
    ]);
}

#[test]
fn rfc9112_6_1_transfer_encoding() {
    for value in [" chunked", "chunked", " Chunked", "CHUNKED", "\tchunked \t"] {
        let head = with_fields(&format!("Transfer-Encoding:{value}\r\n")).unwrap();
        assert_eq!(head.framing, Framing::Chunked, "{value}");
        assert_eq!(head.rewrite, value != " chunked", "{value:?}");
    }
    refused_fields(&[
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            Reason::CodingUnknown,
        ),
        ("Transfer-Encoding: gzip\r\n", Reason::CodingUnknown),
        ("Transfer-Encoding: identity\r\n", Reason::CodingUnknown),
        ("Transfer-Encoding: xchunked\r\n", Reason::CodingUnknown),
        (
            "Transfer-Encoding: chunked, gzip\r\n",
            Reason::CodingNotLast,
        ),
        (
            "Transfer-Encoding: chunked, identity\r\n",
            Reason::CodingNotLast,
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            Reason::CodingTwice,
        ),
        ("Transfer-Encoding:\r\n", Reason::CodingEmpty),
        ("Transfer-Encoding: chunked,\r\n", Reason::CodingEmpty),
        ("Transfer-Encoding: ,chunked\r\n", Reason::CodingEmpty),
        ("Transfer-Encoding: chunked;a=b\r\n", Reason::CodingSyntax),
        ("Transfer-Encoding: \"chunked\"\r\n", Reason::CodingSyntax),
        (
            "Transfer-Encoding: chunked chunked\r\n",
            Reason::CodingSyntax,
        ),
        ("Transfer-Encoding: chunked\u{a0}\r\n", Reason::CodingSyntax),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Reason::CodingRepeated,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            Reason::CodingRepeated,
        ),
        ("Transfer_Encoding: chunked\r\n", Reason::FieldLookalike),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            Reason::LengthAndCoding,
        ),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            Reason::LengthAndCoding,
        ),
    ]);
    assert_eq!(Reason::CodingUnknown.class(), Class::Unsupported);
    // "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST treat
    // the message as if the framing is faulty"
    refused(&[(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Reason::CodingHttp10,
    )]);
}

#[test]
fn rfc9112_9_3_persistence() {
    for (version, connection, close) in [
        ("1.1", "", false),
        ("1.1", "Connection: keep-alive\r\n", false),
        ("1.1", "Connection: close\r\n", true),
        ("1.1", "Connection: Close, foo\r\n", true),
        ("1.1", "Connection: foo\r\nConnection: CLOSE\r\n", true),
        ("1.1", "Connection: keep-alive, close\r\n", true),
        ("1.0", "", true),
        ("1.0", "Connection: Keep-Alive\r\n", false),
        ("1.0", "Connection: keep-alive, close\r\n", true),
        ("1.0", "Proxy-Connection: keep-alive\r\n", true),
    ] {
        let head = request(format!(
            "GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"
        ))
        .unwrap();
        assert_eq!(head.close, close, "{version} {connection:?}");
    }
}

#[test]
fn rfc9112_9_3_2_pipelining() {
    let stream = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\nGET /3";
    let mut rest = &stream[..];
    let mut seen = Vec::new();
    while let Ok(Status::Complete(head)) = RequestParser::new().parse(rest, &Limits::DEFAULT) {
        seen.push((
            head.method,
            head.path.get(rest).to_vec(),
            head.host.get(rest).to_vec(),
            head.close,
        ));
        rest = &rest[head.head_bytes as usize..];
    }
    assert_eq!(
        seen,
        [
            (Method::Get, b"/1".to_vec(), b"a".to_vec(), false),
            (Method::Head, b"/2".to_vec(), b"b".to_vec(), true),
        ]
    );
    assert_eq!(rest, b"GET /3");
}

#[test]
fn rfc9110_7_6_1_connection() {
    for (fields, rewrite) in [
        ("", false),
        ("Connection: keep-alive\r\n", false),
        ("Via: 1.1 x\r\nDate: now\r\nTrailer: x\r\n", false),
        ("Connection: close\r\n", true),
        ("Connection: keep-alive, x\r\n", true),
        ("Connection:\r\n", true),
        ("Connection: keep-alive,\r\n", true),
        ("Keep-Alive: timeout=5\r\n", true),
        ("Proxy-Connection: keep-alive\r\n", true),
        ("TE: trailers\r\n", true),
        ("Upgrade: h2c\r\n", true),
        ("Connection: upgrade\r\n", true),
        ("HTTP2-Settings: AAMAAABkAAQAAP__\r\n", true),
    ] {
        assert_eq!(with_fields(fields).unwrap().rewrite, rewrite, "{fields:?}");
    }
    refused_fields(&[
        ("Connection: a b\r\n", Reason::ConnectionSyntax),
        ("Connection: \"close\"\r\n", Reason::ConnectionSyntax),
        ("Connection: Content-Length\r\n", Reason::ConnectionFraming),
        (
            "Connection: close, transfer-encoding\r\n",
            Reason::ConnectionFraming,
        ),
        ("Connection: host\r\n", Reason::ConnectionFraming),
        (
            "Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n",
            Reason::ConnectionOptions,
        ),
        (
            "Connec_tion: close\r\nConnection: x\r\nKeep_Alive: 1\r\n",
            Reason::FieldLookalike,
        ),
    ]);
}

#[test]
fn rfc9110_7_8_upgrade() {
    let ask = |method: &str, version: &str, fields: &str| {
        request(format!(
            "{method} / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"
        ))
        .unwrap()
    };
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    let head = ask("GET", "1.1", both);
    let websocket = Protocol::from_value(b"websocket");
    assert!(
        websocket.is_some() && head.upgrade == websocket && head.context().upgrade == websocket
    );
    assert!(!head.rewrite);
    // Java 17's client says how long no body is; kubectl and docker use POST, docker with content.
    for (method, fields, protocol) in [
        (
            "GET",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
            "WebSocket",
        ),
        (
            "POST",
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n",
            "spdy/3.1",
        ),
        (
            "POST",
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n",
            "tcp",
        ),
    ] {
        let head = ask(method, "1.1", fields);
        assert_eq!(head.upgrade, Protocol::from_value(protocol.as_bytes()));
        assert!(head.upgrade.is_some() && !head.rewrite, "{fields:?}");
    }
    for value in ["", "/", "a/", "/a", "a/b/c", "a b", "a, b", "a;b"] {
        assert_eq!(Protocol::from_value(value.as_bytes()), None, "{value}");
    }
    for (method, version, fields) in [
        ("GET", "1.0", both), // "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."
        ("POST", "1.1", both),
        ("GET", "1.1", "Upgrade: websocket\r\n"),
        ("GET", "1.1", "Connection: Upgrade\r\n"),
        (
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        ),
        (
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        (
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
        ),
        (
            "GET",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
        ),
        ("GET", "1.1", "Connection: Upgrade\r\nUpgrade: a b\r\n"),
    ] {
        let head = ask(method, version, fields);
        assert!(
            head.upgrade.is_none() && head.rewrite,
            "{method} {version} {fields:?}"
        );
    }
}

#[test]
fn rfc9110_10_1_1_expect() {
    let ask = |version: &str, fields: &str| {
        request(format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
    };
    assert!(
        ask("1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n")
            .unwrap()
            .expect_continue
    );
    assert!(
        ask(
            "1.1",
            "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
        )
        .unwrap()
        .expect_continue
    );
    // "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that expectation."
    assert!(
        !ask("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n")
            .unwrap()
            .expect_continue
    );
    assert!(
        !ask("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n")
            .unwrap()
            .expect_continue
    );
    for (version, fields, rewrite) in [
        (
            "1.1",
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
            false,
        ),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", true),
        ("1.1", "Expect: 100-continue\r\n", true),
        (
            "1.0",
            "Host: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n",
            true,
        ),
    ] {
        let fields = fields.trim_start_matches("Host: a\r\n");
        assert_eq!(ask(version, fields).unwrap().rewrite, rewrite, "{fields:?}");
    }
    for value in ["", "y 100-continue", "100-continue, x", "200-ok"] {
        assert_eq!(
            ask("1.1", &format!("Expect: {value}\r\n")),
            Err(Reason::ExpectUnknown),
            "{value}"
        );
    }
}

#[test]
fn limits_admit_n_and_refuse_one_more() {
    let limits = Limits {
        head_bytes: 100,
        field_count: 3,
        field_bytes: 20,
        target_bytes: 10,
        method_bytes: 4,
        ..Limits::DEFAULT
    };
    let parse = |bytes: &str| match RequestParser::new().parse(bytes.as_bytes(), &limits) {
        Ok(Status::Complete(_)) => Ok(()),
        Ok(Status::Partial) => panic!("{bytes:?}"),
        Err(reason) => Err(reason),
    };
    let pad = |n: usize| "x".repeat(n);
    assert_eq!(
        parse(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", pad(4))),
        Ok(())
    );
    assert_eq!(
        parse(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", pad(5))),
        Err(Reason::MethodBytes)
    );
    assert_eq!(parse(&pad(5)), Err(Reason::MethodBytes));
    assert_eq!(
        parse(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", pad(9))),
        Ok(())
    );
    assert_eq!(
        parse(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", pad(10))),
        Err(Reason::TargetBytes)
    );
    assert_eq!(
        parse(&format!("GET /{}", pad(10))),
        Err(Reason::TargetBytes)
    );
    let field = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", pad(n - 3));
    assert_eq!(parse(&field(20)), Ok(()));
    assert_eq!(parse(&field(21)), Err(Reason::FieldBytes));
    assert_eq!(
        parse(&format!("GET / HTTP/1.1\r\n{}", pad(21))),
        Err(Reason::FieldBytes)
    );
    assert_eq!(
        parse("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\n\r\n"),
        Ok(())
    );
    assert_eq!(
        parse("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\nX"),
        Err(Reason::FieldCount)
    );
    let options = |n: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: {}x\r\n\r\n",
            "x,".repeat(n - 1)
        )
    };
    assert!(request(options(16)).is_ok());
    assert_eq!(request(options(17)), Err(Reason::ConnectionOptions));
    let host = |n: usize| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", pad(n));
    assert!(request(host(255)).is_ok());
    assert_eq!(request(host(256)), Err(Reason::HostBytes));
    let wide = Limits {
        head_bytes: 41,
        ..Limits::DEFAULT
    };
    let head = |n: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\nmore bytes of the body",
            pad(n)
        )
    };
    let (fits, over) = (head(9), head(10));
    assert!(
        matches!(RequestParser::new().parse(fits.as_bytes(), &wide), Ok(Status::Complete(h)) if h.head_bytes == 41)
    );
    assert_eq!(
        RequestParser::new().parse(over.as_bytes(), &wide),
        Err(Reason::HeadBytes)
    );
    for reason in [
        Reason::HeadBytes,
        Reason::FieldBytes,
        Reason::FieldCount,
        Reason::TargetBytes,
        Reason::ConnectionOptions,
    ] {
        assert_eq!(reason.class(), Class::HeadTooLarge);
    }
}
