// SPDX-License-Identifier: GPL-2.0

//! The messages that are measured, and the calls that are.

use std::hint::black_box;
use xlb_engine::{Limits, Method, RequestContext, RequestParser, ResponseParser, Version};

/// What a load generator sends.
pub const SHORT_GET: &[u8] = b"GET /v2/items HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// What a browser sends.
pub const BROWSER_GET: &[u8] = b"GET /wp-content/uploads/2010/03/hello-kitty-darth-vader-pink.jpg HTTP/1.1\r\n\
Host: www.kittyhell.com\r\n\
User-Agent: Mozilla/5.0 (Macintosh; U; Intel Mac OS X 10.6; ja-JP-mac; rv:1.9.2.3) Gecko/20100401 Firefox/3.6.3 Pathtraq/0.9\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: ja,en-us;q=0.7,en;q=0.3\r\n\
Accept-Encoding: gzip,deflate\r\n\
Accept-Charset: Shift_JIS,utf-8;q=0.7,*;q=0.7\r\n\
Connection: keep-alive\r\n\
Cookie: wp_ozh_wsa_visits=2; wp_ozh_wsa_visit_lasttime=xxxxxxxxxx; __utma=xxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.x; __utmz=xxxxxxxxx.xxxxxxxxxx.x.x.utmccn=(referral)|utmcsr=reader.livedoor.com|utmcct=/reader/|utmcmd=referral\r\n\r\n";

/// What nginx answers.
pub const NGINX_200: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.3\r\n\
Date: Sat, 01 Jan 2028 00:00:00 GMT\r\n\
Content-Type: application/octet-stream\r\n\
Content-Length: 4095\r\n\
Last-Modified: Sat, 01 Jan 2028 00:00:00 GMT\r\n\
Connection: keep-alive\r\n\
ETag: \"67a1b2c3-fff\"\r\n\
Accept-Ranges: bytes\r\n\r\n";

/// What an application behind several gateways answers.
pub fn response_of_30_fields() -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 12345\r\n".to_vec();
    for i in 0..28 {
        head.extend(
            format!("X-Application-Field-{i}: some value of a usual length, number {i}\r\n")
                .into_bytes(),
        );
    }
    head.extend(b"\r\n");
    head
}

/// A request of 60 KB of cookies, `part` again and again, or 20,000 names when that is empty.
pub fn cookies(part: &str) -> Vec<u8> {
    let letters =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()*+-./:<>?@[]^_`{|}~";
    let names = letters
        .chars()
        .flat_map(|a| letters.chars().map(move |b| format!("{a}{b};")));
    let all: String = if part.is_empty() {
        // Each name three times, in the order of the first time.
        let all: String = names.collect();
        all.repeat(3)
    } else {
        part.repeat(60_000 / part.len())
    };
    let [a, b] = [&all[..30_000.min(all.len() / 2)], &all[all.len() / 2..]]
        .map(|text| &text[..text.len().min(30_000)]);
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {a}\r\nCookie: {b}\r\n\r\n").into_bytes()
}

/// A body of some chunks.
pub fn chunks(count: usize, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..count {
        body.extend(format!("{size:x}\r\n").into_bytes());
        body.resize(body.len() + size, b'x');
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    body
}

/// What the responses answer.
pub const GET: RequestContext = RequestContext {
    method: Method::Get,
    version: Version::Http11,
    upgrade: None,
};

/// The engine parses a request head.
#[inline(never)]
pub fn request(bytes: &[u8]) {
    let parsed = RequestParser::new().parse(black_box(bytes), &Limits::DEFAULT);
    assert!(black_box(parsed).is_ok());
}

/// The engine parses a response head.
#[inline(never)]
pub fn response(bytes: &[u8]) {
    let parsed = ResponseParser::new().parse(black_box(bytes), &Limits::DEFAULT, &GET);
    assert!(black_box(parsed).is_ok());
}

/// httparse splits a request head.
#[inline(never)]
pub fn httparse_request(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request
        .parse(black_box(bytes))
        .is_ok_and(|s| s.is_complete()));
    black_box(request.headers.len());
}

/// httparse splits a response head.
#[inline(never)]
pub fn httparse_response(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    assert!(response
        .parse(black_box(bytes))
        .is_ok_and(|s| s.is_complete()));
    black_box(response.headers.len());
}
