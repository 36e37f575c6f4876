// SPDX-License-Identifier: GPL-2.0

//! Near-valid messages: a grammar that is wrong now and then, and mutations of what it made.

use crate::common::rng::{mutate, Rng};

const METHODS: &[&str] = &[
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "X-ODD", "get", "G(T", "",
];
const TARGETS: &[&str] = &[
    "/",
    "/a/b?c=d",
    "/%2e%2e/x",
    "*",
    "http://a/",
    "http://a",
    "http://b/x",
    "a:80",
    "/a b",
    "/#f",
    "/\u{e9}",
    "//x",
    "/%zz",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.01",
    "HTTP/0.9",
    "",
];
const ENDS: &[&str] = &[
    "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n",
    "\n\r\n", "\r\n ",
];
const FIELDS: &[&str] = &[
    "X: y",
    "Accept: */*",
    "Cookie: a=b",
    "X:",
    "X:\ty\t",
    "X : y",
    "X\t: y",
    " X: y",
    "X y: z",
    ": y",
    "X",
    "X: caf\u{e9}",
    "X: \0",
    "X: \x0b",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Expect: x",
    "TE: trailers",
    "Keep-Alive: timeout=5",
    "Trailer: X",
    "Host: a",
    "Host: b",
    "Host:",
    "Host: a b",
    "Connection: Content-Length",
    "X(: y",
    "X\u{ff}: y",
    "X_Y: z",
    "Content_Length: 3",
    "Transfer_Encoding: chunked",
];
const GOOD_FIELDS: &[&str] = &[
    "X: y",
    "Accept: */*",
    "X:",
    "X:\ty\t",
    "X: caf\u{e9}",
    "Connection: keep-alive",
    "Connection: close",
    "Upgrade: h2c",
    "TE: trailers",
    "Expect: 100-continue",
    "X_Y: z",
    "Cookie: a=\"b\"; c",
    "x!#$%&'*+-.^_`|~: y",
    "Connection: x, y",
    "Proxy-Connection: z",
];
const LENGTHS: &[&str] = &[
    "0",
    "3",
    "5",
    "5",
    "5",
    "05",
    "+5",
    "-5",
    "5, 5",
    "5,",
    "5 5",
    "0x5",
    "5a",
    "",
    "18446744073709551621",
    "9223372036854775808",
    "1e1",
    "5\x0b",
    "\"5\"",
    "5\t",
    "5;a",
];
const CODINGS: &[&str] = &[
    "chunked",
    "chunked",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "identity",
    "xchunked",
    "chunked;a",
    ",chunked",
    "chunked,",
    "\"chunked\"",
    "chunk",
    "",
    "chunked\x0b",
    "identity, chunked",
    " chunked ",
];
const SIZES: &[&str] = &[
    "5",
    "5",
    "5",
    "05",
    "5;a",
    "5;a=b",
    "5;a=\"b\"",
    "5 ",
    " 5",
    "0x5",
    "+5",
    "-5",
    "5;",
    "5 ;a",
    "5; a",
    "5\x0b",
    "10000000000000005",
    "8000000000000000",
    "00000000000000005",
    "5;a=\"",
    "5;\x7f",
    "",
    "g",
];
const TRAILERS: &[&str] = &[
    "",
    "",
    "",
    "X: y",
    "Content-Length: 5",
    "X : y",
    " X: y",
    "X",
    ": y",
    "GET / HTTP/1.1",
    "Transfer-Encoding: chunked",
];
const STATUSES: &[&str] = &[
    "200 OK",
    "200 OK",
    "200 OK",
    "200",
    "200 ",
    "204 No",
    "304 Not",
    "100 Continue",
    "103 Early",
    "101 Switch",
    "404 Not Found",
    "500 x\x0b",
    "20 OK",
    "2000 OK",
    "099 x",
    "999 x",
    "2x0 x",
    " 200 OK",
    "200\tOK",
];

/// Mostly the first of two.
fn usual<'a>(rng: &mut Rng, usual: &'a str, from: &[&'a str]) -> &'a str {
    if rng.below(12) == 0 {
        rng.pick(from)
    } else {
        usual
    }
}

fn end(rng: &mut Rng) -> &'static str {
    if rng.below(100) == 0 {
        rng.pick(ENDS)
    } else {
        "\r\n"
    }
}

fn fields_and_body(rng: &mut Rng, out: &mut String) {
    let mut lines: Vec<String> = Vec::new();
    for _ in 0..rng.below(4) {
        let from = if rng.below(4) == 0 {
            FIELDS
        } else {
            GOOD_FIELDS
        };
        lines.push(rng.pick(from).to_owned());
    }
    let (mut length, mut chunked) = (false, false);
    match rng.below(8) {
        0..=2 => length = true,
        3..=5 => chunked = true,
        6 if rng.below(3) == 0 => (length, chunked) = (true, true),
        _ => {}
    }
    if length {
        lines.push(format!("Content-Length: {}", usual(rng, "5", LENGTHS)));
        if rng.below(20) == 0 {
            lines.push(format!("Content-Length: {}", rng.pick(LENGTHS)));
        }
    }
    if chunked {
        lines.push(format!(
            "Transfer-Encoding: {}",
            usual(rng, "chunked", CODINGS)
        ));
        if rng.below(20) == 0 {
            lines.push(format!("Transfer-Encoding: {}", rng.pick(CODINGS)));
        }
    }
    if lines.len() > 1 {
        let (a, b) = (rng.below(lines.len()), rng.below(lines.len()));
        lines.swap(a, b);
    }
    for line in lines {
        out.push_str(&line);
        out.push_str(end(rng));
    }
    out.push_str(end(rng));
    if chunked {
        for _ in 0..rng.below(3) {
            out.push_str(usual(rng, "5", SIZES));
            out.push_str(end(rng));
            out.push_str("hello");
            out.push_str(end(rng));
        }
        out.push_str(usual(
            rng,
            "0",
            &[
                "00",
                "0;a",
                "0 ",
                "0;a=\"b\"",
                "0x0",
                "-0",
                "000000000000000000000",
            ],
        ));
        out.push_str(end(rng));
        let trailer = rng.pick(TRAILERS);
        if !trailer.is_empty() {
            out.push_str(trailer);
            out.push_str(end(rng));
        }
        out.push_str(end(rng));
    } else if length {
        out.push_str("hello");
    }
}

pub fn request(rng: &mut Rng) -> Vec<u8> {
    let mut out = String::new();
    if rng.below(30) == 0 {
        out.push_str(rng.pick(&["\r\n", "\n", " ", "\r\n\r\n", "\r"]));
    }
    let space = if rng.below(60) == 0 {
        rng.pick(&["  ", "\t", "\x0b", "\x0c", "\r"])
    } else {
        " "
    };
    out.push_str(usual(rng, "POST", METHODS));
    out.push_str(space);
    out.push_str(usual(rng, "/", TARGETS));
    out.push_str(space);
    out.push_str(usual(rng, "HTTP/1.1", VERSIONS));
    out.push_str(end(rng));
    if rng.below(30) != 0 {
        out.push_str("Host: a");
        out.push_str(end(rng));
    }
    fields_and_body(rng, &mut out);
    finish(rng, out, b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n")
}

pub fn response(rng: &mut Rng) -> Vec<u8> {
    let mut out = String::new();
    if rng.below(10) == 0 {
        out.push_str("HTTP/1.1 100 Continue\r\n");
        if rng.below(10) == 0 {
            out.push_str("Connection: close\r\n");
        }
        out.push_str("\r\n");
    }
    if rng.below(40) == 0 {
        out.push_str(rng.pick(&["\r\n", "\n", " "]));
    }
    out.push_str(usual(rng, "HTTP/1.1", VERSIONS));
    out.push(' ');
    out.push_str(usual(rng, "200 OK", STATUSES));
    out.push_str(end(rng));
    fields_and_body(rng, &mut out);
    finish(rng, out, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

fn finish(rng: &mut Rng, out: String, next: &[u8]) -> Vec<u8> {
    let mut bytes = out.into_bytes();
    if rng.below(2) == 0 {
        bytes.extend(next);
    }
    if rng.below(3) == 0 {
        let other = bytes.clone();
        mutate(rng, &mut bytes, &other);
    }
    bytes
}
