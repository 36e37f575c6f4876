// SPDX-License-Identifier: GPL-2.0

//! Heads beside httparse, in turns: the least time of many short batches, which a busy machine does not change much.

use std::time::Instant;
use xlb_engine_benches::{
    self as messages, httparse_request, httparse_response, request, response,
};

const BATCHES: u32 = 20_000;
const BATCH: u32 = 50;

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
