// SPDX-License-Identifier: GPL-2.0

//! The same events however a stream is cut: every message of the corpus, at every pair of bytes.

mod common;

use common::drive::Stream;
use xlb_engine::{Limits, Method, Protocol, RequestContext, Version};

const CONTEXTS: [RequestContext; 3] = [
    RequestContext {
        method: Method::Get,
        version: Version::Http11,
        upgrade: Some(Protocol::WEBSOCKET),
    },
    RequestContext {
        method: Method::Head,
        version: Version::Http11,
        upgrade: None,
    },
    RequestContext {
        method: Method::Get,
        version: Version::Http10,
        upgrade: None,
    },
];

fn cut_everywhere(message: &[u8], new: impl Fn() -> Stream) {
    let mut whole = new();
    whole.feed(message);
    whole.close();
    assert!(!whole.events.is_empty());
    for first in 0..=message.len() {
        for second in first..=message.len() {
            let mut pieces = new();
            pieces.feed(&message[..first]);
            pieces.feed(&message[first..second]);
            pieces.feed(&message[second..]);
            pieces.close();
            assert_eq!(
                whole.events,
                pieces.events,
                "{first} {second} {}",
                message.escape_ascii()
            );
        }
    }
}

#[test]
fn requests() {
    for message in [
        &b"GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n"[..],
        b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello worldGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\\\"\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"PUT http://a/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n",
    ] {
        cut_everywhere(message, || Stream::requests(Limits::DEFAULT));
        cut_everywhere(message, || Stream::requests(common::checks::TIGHT));
    }
}

#[test]
fn responses() {
    for message in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhelloHTTP/1.1 304 x\r\n\r\n"[..],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil the end",
        b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
        b"HTTP/1.1 204 x\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nab",
        b"HTTP/1.1 2x0 x\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        for to in CONTEXTS {
            cut_everywhere(message, || Stream::responses(Limits::DEFAULT, to));
            cut_everywhere(message, || Stream::responses(common::checks::TIGHT, to));
        }
    }
}

/// A head of 64 KiB in 1-byte writes costs about what it costs in one: no byte is scanned twice.
#[test]
fn bytes_one_by_one_are_linear() {
    use std::time::Instant;
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for i in 0..2 {
        head.extend(format!("X-{i}: {}\r\n", "y".repeat(30_000)).into_bytes());
    }
    head.extend(b"\r\n");
    let time = |step: usize| {
        let start = Instant::now();
        let mut parser = xlb_engine::RequestParser::new();
        let mut result = Ok(xlb_engine::Status::Partial);
        for end in (0..head.len()).step_by(step).chain([head.len()]) {
            result = parser.parse(&head[..end], &Limits::DEFAULT);
        }
        assert!(matches!(result, Ok(xlb_engine::Status::Complete(_))));
        start.elapsed()
    };
    // 60,000 calls; scanning anew each time would look at 900 million bytes twice over.
    // Several tries, as the machine may do other work; scanning anew would take seconds each time.
    assert!((0..20).any(|_| time(1).as_millis() < 200));
}
