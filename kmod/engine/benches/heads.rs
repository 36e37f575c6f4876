// SPDX-License-Identifier: GPL-2.0

//! Heads beside httparse, which only splits them; and chunked bodies.
//!
//! `CARGO_CFG_HTTPARSE_DISABLE_SIMD=1` in the environment of the build gives httparse's build without SIMD, which
//! is what a kernel can run.

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use std::hint::black_box;
use xlb_engine::rewrite::{self, RequestEdits};
use xlb_engine::{path, Body, Framing, Limits, RequestHead, RequestParser, ResponseParser, Status};
use xlb_engine_benches as messages;
use xlb_engine_benches::{
    httparse_request, httparse_response, BROWSER_GET, GET, NGINX_200, SHORT_GET,
};

fn request(bytes: &[u8]) -> RequestHead {
    match RequestParser::new().parse(black_box(bytes), &Limits::DEFAULT) {
        Ok(Status::Complete(head)) => head,
        other => panic!("{other:?}"),
    }
}

fn requests(c: &mut Criterion) {
    for (name, bytes) in [("short GET", SHORT_GET), ("browser GET", BROWSER_GET)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("xlb", |b| b.iter(|| request(bytes)));
        group.bench_function("httparse", |b| b.iter(|| httparse_request(bytes)));
        let head = request(bytes);
        let mut out = vec![0; rewrite::request_bound(&head, &RequestEdits::NONE)];
        group.bench_function("xlb rewrite", |b| {
            b.iter(|| rewrite::request(black_box(bytes), &head, &RequestEdits::NONE, &mut out))
        });
        group.bench_function("xlb path", |b| {
            b.iter(|| path::normalize(black_box(head.path.get(bytes)), path::Form::Match, &mut []))
        });
        group.finish();
    }
}

fn responses(c: &mut Criterion) {
    let long = messages::response_of_30_fields();
    for (name, bytes) in [("nginx 200", NGINX_200), ("response of 30 fields", &long)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("xlb", |b| {
            b.iter(
                || match ResponseParser::new().parse(black_box(bytes), &Limits::DEFAULT, &GET) {
                    Ok(Status::Complete(head)) => head,
                    other => panic!("{other:?}"),
                },
            )
        });
        group.bench_function("httparse", |b| b.iter(|| httparse_response(bytes)));
        group.finish();
    }
}

fn bodies(c: &mut Criterion) {
    for size in [16 * 1024, 100, 1] {
        let bytes = messages::chunks(64, size);
        let mut group = c.benchmark_group(format!("chunks of {size}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("xlb", |b| {
            b.iter(|| {
                let mut body = Body::new(Framing::Chunked);
                assert_eq!(
                    body.feed(black_box(&bytes), &Limits::DEFAULT),
                    Ok(bytes.len())
                );
            })
        });
        group.finish();
    }
}

criterion_group!(benches, requests, responses, bodies);
criterion_main!(benches);
