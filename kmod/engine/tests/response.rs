// SPDX-License-Identifier: GPL-2.0

//! Response heads, rule by rule.

mod common;

use common::{response, response_to};
use xlb_engine::{
    Fields, Framing, Limits, Method, Protocol, Reason, RequestContext, ResponseParser, Status,
    Version,
};

const GET: RequestContext = RequestContext {
    method: Method::Get,
    version: Version::Http11,
    upgrade: None,
};
const HEAD: RequestContext = RequestContext {
    method: Method::Head,
    ..GET
};
const OLD: RequestContext = RequestContext {
    version: Version::Http10,
    ..GET
};
const SOCKET: RequestContext = RequestContext {
    upgrade: Some(Protocol::WEBSOCKET),
    ..GET
};

#[test]
fn rfc9112_4_status_line() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello";
    let head = response(bytes).unwrap();
    assert_eq!(head.head_bytes as usize, bytes.len() - 5);
    assert_eq!(
        (head.status, head.version, head.field_count),
        (200, Version::Http11, 2)
    );
    assert_eq!(head.framing, Framing::Length(5));
    assert!(!head.close && !head.interim && !head.rewrite);
    let fields: Vec<_> = Fields::of_response(bytes, &head).collect();
    let expected: [(&[u8], &[u8]); 2] = [(b"Content-Length", b"5"), (b"Server", b"x")];
    assert_eq!(fields, expected);
    for line in [
        "HTTP/1.1 200 ",
        "HTTP/1.1 200",
        "HTTP/1.1 404 Not\tFound caf\u{e9}",
        "HTTP/1.1 999 x",
    ] {
        assert!(response(format!("{line}\r\n\r\n")).is_ok(), "{line}");
    }
    for (line, reason) in [
        ("HTTP/1.1  200 OK", Reason::StatusCode),
        ("HTTP/1.1 20 OK", Reason::StatusCode),
        ("HTTP/1.1 2000 OK", Reason::StatusCode),
        ("HTTP/1.1 099 OK", Reason::StatusCode),
        ("HTTP/1.1 +20 OK", Reason::StatusCode),
        ("HTTP/1.1 2x0 OK", Reason::StatusCode),
        ("HTTP/1.1 200\tOK", Reason::StatusLine),
        ("HTTP/1.1 200OK", Reason::StatusLine),
        ("HTTP/1.1\t200 OK", Reason::StatusLine),
        ("HTTP/1.1 200 O\0K", Reason::StatusReason),
        ("HTTP/1.1 200 O\x1bK", Reason::StatusReason),
        ("HTTP/1.1 200 O\rK", Reason::BareCr),
        ("HTTP/2.0 200 OK", Reason::VersionUnsupported),
        ("HTTP/1.x 200 OK", Reason::VersionSyntax),
        ("http/1.1 200 OK", Reason::StatusLine),
        ("ICY 200 OK", Reason::StatusLine),
        (" HTTP/1.1 200 OK", Reason::StatusLine),
        ("\r\nHTTP/1.1 200 OK", Reason::StatusLine),
        ("220 smtp ready", Reason::StatusLine),
    ] {
        assert_eq!(response(format!("{line}\r\n\r\n")), Err(reason), "{line:?}");
    }
    assert_eq!(response("HTTP/1.1 200 OK\n\n"), Err(Reason::BareLf));
    assert_eq!(response("HTTP/1.1 200\n\n......"), Err(Reason::BareLf));
}

#[test]
fn another_protocol_is_refused_at_its_first_byte() {
    let parse = |b: &[u8]| ResponseParser::new().parse(b, &Limits::DEFAULT, &GET);
    assert_eq!(parse(b"2"), Err(Reason::StatusLine));
    assert_eq!(parse(b"HTTPS"), Err(Reason::StatusLine));
    assert_eq!(parse(b"HTTP"), Ok(Status::Partial));
    assert_eq!(parse(b""), Ok(Status::Partial));
}

#[test]
fn rfc9112_6_3_message_body_length() {
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (to, status, fields, expected) in [
        // 1. HEAD, 1xx, 204, 304
        (HEAD, 200, length, Ok(Framing::None)),
        (HEAD, 200, chunked, Ok(Framing::None)),
        (HEAD, 200, "", Ok(Framing::None)),
        (GET, 204, "", Ok(Framing::None)),
        (GET, 204, "Content-Length: 0\r\n", Ok(Framing::None)),
        (GET, 304, length, Ok(Framing::None)),
        (GET, 304, chunked, Ok(Framing::None)),
        (GET, 100, "", Ok(Framing::None)),
        (GET, 103, "Link: x\r\n", Ok(Framing::None)),
        // RFC 9110, section 8.6: no Content-Length in 1xx and 204; RFC 9112, section 6.1: no Transfer-Encoding
        (GET, 204, length, Err(Reason::ContentForbidden)),
        (GET, 204, chunked, Err(Reason::ContentForbidden)),
        (GET, 100, length, Err(Reason::ContentForbidden)),
        (GET, 103, chunked, Err(Reason::ContentForbidden)),
        // 3. both
        (
            GET,
            200,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Err(Reason::LengthAndCoding),
        ),
        (
            HEAD,
            200,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Err(Reason::LengthAndCoding),
        ),
        // 4. Transfer-Encoding
        (GET, 200, chunked, Ok(Framing::Chunked)),
        (OLD, 200, chunked, Err(Reason::CodingToHttp10)),
        (
            GET,
            200,
            "Transfer-Encoding: gzip\r\n",
            Err(Reason::CodingUnknown),
        ),
        (
            GET,
            200,
            "Transfer-Encoding: gzip, chunked\r\n",
            Err(Reason::CodingUnknown),
        ),
        // 5. bad Content-Length
        (
            GET,
            200,
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            Err(Reason::LengthRepeated),
        ),
        (
            GET,
            200,
            "Content-Length: 5, 5\r\n",
            Err(Reason::LengthList),
        ),
        (
            GET,
            200,
            "Content-Length: -1\r\n",
            Err(Reason::LengthSyntax),
        ),
        // 6. and 8.
        (GET, 200, length, Ok(Framing::Length(5))),
        (GET, 205, "Content-Length: 0\r\n", Ok(Framing::Length(0))),
        (GET, 200, "", Ok(Framing::UntilClose)),
        (OLD, 200, "", Ok(Framing::UntilClose)),
    ] {
        let bytes = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let framing = response_to(&to, &bytes).map(|h| h.framing);
        assert_eq!(framing, expected, "{to:?} {bytes:?}");
    }
    assert_eq!(
        response("HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(Reason::CodingHttp10)
    );
}

#[test]
fn rfc9110_15_2_informational() {
    for (status, interim) in [
        (100, true),
        (102, true),
        (103, true),
        (199, true),
        (200, false),
    ] {
        let head = response(format!("HTTP/1.1 {status} x\r\n\r\n")).unwrap();
        assert_eq!(head.interim, interim, "{status}");
    }
    // "A server MUST NOT send a 1xx response to an HTTP/1.0 client."
    assert_eq!(
        response_to(&OLD, "HTTP/1.1 100 x\r\n\r\n"),
        Err(Reason::InterimToHttp10)
    );
    let limits = Limits {
        interim_count: 2,
        ..Limits::DEFAULT
    };
    let mut parser = ResponseParser::new();
    for _ in 0..2 {
        let parsed = parser.parse(b"HTTP/1.1 103 x\r\nA: b\r\n\r\n", &limits, &GET);
        assert!(matches!(parsed, Ok(Status::Complete(h)) if h.interim && h.field_count == 1));
        assert_eq!(parser.interim(&limits), Ok(()));
    }
    assert_eq!(parser.interim(&limits), Err(Reason::InterimCount));
}

#[test]
fn rfc9110_15_2_2_switching_protocols() {
    let switch = "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let head = response_to(&SOCKET, switch).unwrap();
    assert_eq!(head.framing, Framing::Tunnel);
    assert!(head.close && !head.interim && !head.rewrite);
    assert_eq!(response_to(&GET, switch), Err(Reason::SwitchUnasked));
    let tcp = RequestContext {
        upgrade: Protocol::from_value(b"tcp"),
        ..GET
    };
    assert_eq!(response_to(&tcp, switch), Err(Reason::SwitchProtocol));
    let switch = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: TCP\r\n\r\n";
    assert_eq!(response_to(&tcp, switch).unwrap().framing, Framing::Tunnel);
    for (fields, reason) in [
        ("", Reason::SwitchProtocol),
        ("Upgrade: websocket\r\n", Reason::SwitchProtocol),
        (
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
            Reason::SwitchProtocol,
        ),
        (
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 9\r\n",
            Reason::ContentForbidden,
        ),
    ] {
        assert_eq!(
            response_to(&SOCKET, format!("HTTP/1.1 101 x\r\n{fields}\r\n")),
            Err(reason),
            "{fields:?}"
        );
    }
    // The request asked, and the server chose not to.
    let head = response_to(&SOCKET, "HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!(head.framing, Framing::Length(3));
}

#[test]
fn rfc9112_9_3_persistence() {
    for (line, close, rewrite) in [
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\n", false, false),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: keep-alive\r\n", false, false),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n", true, true),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\n", false, true),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: h2,h2c\r\n", false, true),
        ("HTTP/1.1 200 x\r\n", true, false),
        // An HTTP/1.0 status line would make an HTTP/1.1 client close.
        ("HTTP/1.0 200 x\r\nContent-Length: 0\r\n", true, true),
        ("HTTP/1.0 200 x\r\nContent-Length: 0\r\nConnection: keep-alive\r\n", false, true),
    ] {
        let head = response(format!("{line}\r\n")).unwrap();
        assert_eq!((head.close, head.rewrite), (close, rewrite), "{line:?}");
    }
    // To a request of HTTP/1.0: "Otherwise, the connection will close after the current response."
    for (line, close) in [
        ("HTTP/1.0 200 x\r\nContent-Length: 0\r\n", true),
        ("HTTP/1.1 200 x\r\nContent-Length: 0\r\n", true),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: keep-alive\r\n",
            false,
        ),
    ] {
        let head = response_to(&OLD, format!("{line}\r\n")).unwrap();
        assert_eq!((head.close, head.rewrite), (close, false), "{line:?}");
    }
}

#[test]
fn response_splitting_and_folding() {
    for (fields, reason) in [
        ("Location: /a\rSet-Cookie: b\r\n", Reason::BareCr),
        ("Location: /a\nSet-Cookie: b\r\n", Reason::BareLf),
        ("Location: /a\r\n Set-Cookie: b\r\n", Reason::ObsFold),
        ("Location : /a\r\n", Reason::FieldNameSpace),
        ("X: \0\r\n", Reason::Nul),
        ("Content_Length: 3\r\n", Reason::FieldLookalike),
    ] {
        assert_eq!(
            response(format!("HTTP/1.1 200 x\r\n{fields}\r\n")),
            Err(reason),
            "{fields:?}"
        );
    }
}

#[test]
fn a_head_without_end_stops_at_its_limit() {
    let mut bytes = b"HTTP/1.1 200 x\r\n".to_vec();
    for i in 0..100_000 {
        bytes.extend(format!("X-{i}: {}\r\n", "y".repeat(1000)).into_bytes());
    }
    let wide = Limits {
        field_count: u32::MAX,
        ..Limits::DEFAULT
    };
    assert_eq!(
        ResponseParser::new().parse(&bytes, &wide, &GET),
        Err(Reason::HeadBytes)
    );
    assert_eq!(
        ResponseParser::new().parse(&bytes, &Limits::DEFAULT, &GET),
        Err(Reason::HeadBytes)
    );
}
