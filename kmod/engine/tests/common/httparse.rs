// SPDX-License-Identifier: GPL-2.0

//! Heads and chunk sizes beside httparse, which must accept whatever the engine accepts, and see the same in it.

use crate::common::checks::context;
use xlb_engine::{Body, Fields, Framing, Limits, RequestParser, ResponseParser, Status};

const FIELDS: usize = 256;

/// The first byte chooses what the rest is: a request, a response, or a chunked body.
pub fn check(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 3 {
        0 => request(data),
        1 => response(*choice, data),
        _ => chunked(data),
    }
}

fn request(data: &[u8]) {
    let Ok(Status::Complete(head)) = RequestParser::new().parse(data, &Limits::DEFAULT) else {
        return;
    };
    if std::str::from_utf8(head.target.get(data)).is_err() {
        // It has targets as strings.
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Request::new(&mut fields);
    let bytes = match other.parse(data) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        other => panic!("httparse: {other:?}"),
    };
    assert_eq!(bytes, head.head_bytes as usize);
    assert_eq!(
        other.method.map(str::as_bytes),
        Some(head.method_span.get(data))
    );
    assert_eq!(other.path.map(str::as_bytes), Some(head.target.get(data)));
    assert_eq!(
        other.version.map(u16::from),
        Some(head.version.as_u16() & 1)
    );
    let theirs = other.headers.iter().map(|f| (f.name.as_bytes(), f.value));
    assert!(theirs.eq(Fields::of(data, &head).map(|(n, v)| (n, v))));
}

fn response(choice: u8, data: &[u8]) {
    let parsed = ResponseParser::new().parse(data, &Limits::DEFAULT, &context(choice));
    let Ok(Status::Complete(head)) = parsed else {
        return;
    };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Response::new(&mut fields);
    let bytes = match other.parse(data) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        other => panic!("httparse: {other:?}"),
    };
    assert_eq!(bytes, head.head_bytes as usize);
    assert_eq!(other.code, Some(head.status));
    let theirs = other.headers.iter().map(|f| (f.name.as_bytes(), f.value));
    assert!(theirs.eq(Fields::of_response(data, &head)));
}

/// Every chunk line that the engine takes is one to httparse, with the same size.
fn chunked(data: &[u8]) {
    let mut body = Body::new(Framing::Chunked);
    let mut at = 0;
    let mut line = 0;
    while at < data.len() && !body.is_done() {
        if body.feed(&data[at..=at], &Limits::DEFAULT).is_err() {
            return;
        }
        at += 1;
        let size = body.opaque();
        if size > 0 {
            match httparse::parse_chunk_size(&data[line..]) {
                Ok(httparse::Status::Complete((bytes, theirs))) => {
                    assert_eq!((line + bytes, theirs), (at, size));
                }
                other => panic!("httparse: {other:?}"),
            }
            let Some(end) = usize::try_from(size)
                .ok()
                .and_then(|s| at.checked_add(s + 2))
            else {
                return;
            };
            if end > data.len() {
                return;
            }
            if body.feed(&data[at..end], &Limits::DEFAULT).is_err() {
                return;
            }
            at = end;
            line = end;
        }
    }
}
