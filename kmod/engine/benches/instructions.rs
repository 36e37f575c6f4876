// SPDX-License-Identifier: GPL-2.0

//! One message, many times, for callgrind: `instructions MESSAGE COUNT`.  The difference between two
//! counts is what a message costs; see README.md.

use std::hint::black_box;
use xlb_engine::parts::{self, Kind, Slot};
use xlb_engine::{Body, Framing, Limits, RequestHead, RequestParser, Status};
use xlb_engine_benches::{
    self as messages, httparse_request, httparse_response, request, response,
};

#[inline(never)]
fn body(bytes: &[u8]) {
    let mut body = Body::new(Framing::Chunked);
    assert!(body.feed(black_box(bytes), &Limits::DEFAULT).is_ok());
}

// Not beside `request`, which has the parser inlined as the module has.
fn head(bytes: &[u8]) -> RequestHead {
    match RequestParser::new().parse(black_box(bytes), &Limits::DEFAULT) {
        Ok(Status::Complete(head)) => head,
        other => panic!("{other:?}"),
    }
}

/// The engine searches for a cookie that is not there.
#[inline(never)]
fn seek(bytes: &[u8]) {
    let head = head(bytes);
    assert!(parts::seek(black_box(bytes), &head, Kind::Cookie, b"abc").is_none());
}

/// The engine makes a table of the cookies.
#[inline(never)]
fn table(bytes: &[u8]) {
    let head = head(bytes);
    let bytes = black_box(bytes);
    let mut slots = vec![Slot::FREE; parts::bound(bytes, &head, Kind::Cookie)];
    let key = [0x0123_4567_89ab_cdef, 0x9e37_79b9_7f4a_7c15];
    parts::fill(&mut slots, key, bytes, &head, Kind::Cookie);
    black_box(&slots);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, message, count, ..] = &args[..] else {
        // `cargo test --benches` and `cargo bench` run this without arguments.
        return;
    };
    let Ok(count) = count.parse::<u32>() else {
        return;
    };
    let long = messages::response_of_30_fields();
    let chunks = messages::chunks(16, 16 * 1024);
    let cookies = ["", "a;", "ab;", "abc=;", "abcdefgh;", "abc=def;"].map(messages::cookies);
    let near = messages::cookies("abcd;");
    let (run, bytes): (fn(&[u8]), &[u8]) = match message.as_str() {
        "short-get" => (request, messages::SHORT_GET),
        "browser-get" => (request, messages::BROWSER_GET),
        "nginx-200" => (response, messages::NGINX_200),
        "response-30" => (response, &long),
        "chunks-16k" => (body, &chunks),
        "cookies-names" => (table, &cookies[0]),
        "cookies-2" => (table, &cookies[1]),
        "cookies-3" => (table, &cookies[2]),
        "cookies-5" => (table, &cookies[3]),
        "cookies-9" => (table, &cookies[4]),
        "cookies-8" => (table, &cookies[5]),
        "seek-names" => (seek, &cookies[0]),
        "seek-2" => (seek, &cookies[1]),
        "seek-3" => (seek, &cookies[2]),
        "seek-9" => (seek, &cookies[4]),
        "seek-abcd" => (seek, &near),
        "httparse-short-get" => (httparse_request, messages::SHORT_GET),
        "httparse-browser-get" => (httparse_request, messages::BROWSER_GET),
        "httparse-nginx-200" => (httparse_response, messages::NGINX_200),
        "httparse-response-30" => (httparse_response, &long),
        _ => return,
    };
    for _ in 0..count {
        run(bytes);
    }
}
