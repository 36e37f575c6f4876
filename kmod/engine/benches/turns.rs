// SPDX-License-Identifier: GPL-2.0

//! Heads beside httparse, in turns: the least time of many short batches, which a busy machine does not change much.

use std::hint::black_box;
use std::time::Instant;
use xlb_engine::{Limits, Method, RequestContext, RequestParser, ResponseParser, Version};
use xlb_engine_benches as messages;

const GET: RequestContext = RequestContext {
    method: Method::Get,
    version: Version::Http11,
    upgrade: false,
};
const BATCHES: u32 = 20_000;
const BATCH: u32 = 50;

#[inline(never)]
fn request(bytes: &[u8]) {
    let parsed = RequestParser::new().parse(black_box(bytes), &Limits::DEFAULT);
    assert!(black_box(parsed).is_ok());
}

#[inline(never)]
fn response(bytes: &[u8]) {
    let parsed = ResponseParser::new().parse(black_box(bytes), &Limits::DEFAULT, &GET);
    assert!(black_box(parsed).is_ok());
}

#[inline(never)]
fn httparse_request(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request.parse(black_box(bytes)).is_ok());
    black_box(request.headers.len());
}

#[inline(never)]
fn httparse_response(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    assert!(response.parse(black_box(bytes)).is_ok());
    black_box(response.headers.len());
}

/// Nanoseconds a message.
fn batch(run: fn(&[u8]), bytes: &[u8]) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        run(bytes);
    }
    start.elapsed().as_nanos() as f64 / f64::from(BATCH)
}

fn main() {
    type Run = fn(&[u8]);
    let long = messages::response_of_30_fields();
    let cases: [(&str, &[u8], Run, Run); 4] = [
        ("short-get", messages::SHORT_GET, request, httparse_request),
        (
            "browser-get",
            messages::BROWSER_GET,
            request,
            httparse_request,
        ),
        (
            "nginx-200",
            messages::NGINX_200,
            response,
            httparse_response,
        ),
        ("response-30", &long, response, httparse_response),
    ];
    for (name, bytes, engine, httparse) in cases {
        let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
        for _ in 0..BATCHES {
            ours = ours.min(batch(engine, bytes));
            theirs = theirs.min(batch(httparse, bytes));
        }
        println!("{name}: engine {ours:.1} ns, httparse {theirs:.1} ns");
    }
}
