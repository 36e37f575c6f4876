// SPDX-License-Identifier: GPL-2.0

//! One message, many times, for callgrind: `instructions MESSAGE COUNT`.  The difference between two
//! counts is what a message costs; see README.md.

use std::hint::black_box;
use xlb_engine::{Body, Framing, Limits};
use xlb_engine_benches::{
    self as messages, httparse_request, httparse_response, request, response, seek, table,
};

#[inline(never)]
fn body(bytes: &[u8]) {
    let mut body = Body::new(Framing::Chunked);
    assert!(body.feed(black_box(bytes), &Limits::DEFAULT).is_ok());
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
