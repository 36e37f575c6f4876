// SPDX-License-Identifier: GPL-2.0

//! Rewritten heads, byte for byte.

mod common;

use common::{request, response_to};
use xlb_engine::rewrite::{
    self, Connection, FieldEdit, FieldEdits, Op, RequestEdits, ResponseEdits,
};
use xlb_engine::{Method, Protocol, Reason, RequestContext, Version};

fn rewritten<'a>(
    head: &str,
    edits: &RequestEdits<'_, impl FieldEdits<'a>>,
) -> Result<String, Reason> {
    let parsed = request(head).unwrap();
    let mut out = vec![0; rewrite::request_bound(&parsed, edits)];
    let len = rewrite::request(head.as_bytes(), &parsed, edits, &mut out)?;
    Ok(String::from_utf8(out[..len].to_vec()).unwrap())
}

fn same(head: &str, expected: &str) {
    assert_eq!(
        rewritten(head, &RequestEdits::NONE).as_deref(),
        Ok(expected)
    );
}

const fn edit<'a>(op: Op, name: &'a str, value: &'a str) -> FieldEdit<'a> {
    FieldEdit {
        op,
        name: name.as_bytes(),
        value: value.as_bytes(),
    }
}

#[test]
fn rfc9110_7_6_1_hop_by_hop() {
    same(
        "\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nx-hop: 2\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: x\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nVia: 1.0 x\r\nDate:now\r\n\r\n",
        "GET /a?b HTTP/1.1\r\nHost: a\r\nVia: 1.0 x\r\nDate: now\r\n\r\n",
    );
    same(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
    );
    same(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, x\r\nUpgrade: websocket\r\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    same(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nKeep-Alive: 1\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    );
    same(
        "GET / HTTP/1.0\r\nKeep-Alive: 1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    );
}

#[test]
fn framing_fields_go_out_in_one_form() {
    same(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t5 \t\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    );
    same(
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:CHUNKED\t\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    same(
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    same(
        "GET https://b:1/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: b:1\r\n\r\n",
    );
    same(
        "OPTIONS https://b HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
    );
}

#[test]
fn rfc9112_3_2_2_absolute_form_becomes_origin_form() {
    same(
        "GET http://A.b:80/x?y HTTP/1.1\r\nX: y\r\nHost: a.b\r\n\r\n",
        "GET /x?y HTTP/1.1\r\nHost: A.b:80\r\nX: y\r\n\r\n",
    );
    same(
        "GET http://a?y HTTP/1.0\r\n\r\n",
        "GET /?y HTTP/1.0\r\nHost: a\r\n\r\n",
    );
    same(
        "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    // section 3.2.4
    same(
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    same(
        "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    same(
        "OPTIONS http://a? HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS /? HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

#[test]
fn edits() {
    let head = "GET /old?q HTTP/1.1\r\nX-A: 1\r\nHost: a\r\nx-a: 2\r\nCookie: c\r\n\r\n";
    let fields = [
        edit(Op::Set, "X-A", "new"),
        edit(Op::Add, "x-b", "1"),
        edit(Op::Add, "x-b", "2"),
        edit(Op::Remove, "COOKIE", ""),
        edit(Op::Set, "x-c", "lost"),
        edit(Op::Set, "X-C", " kept "),
    ];
    let edits = RequestEdits {
        path: Some(b"/new"),
        host: Some(b"b.example:81"),
        fields: fields.iter().copied(),
    };
    assert_eq!(
        rewritten(head, &edits).as_deref(),
        Ok("GET /new?q HTTP/1.1\r\nHost: b.example:81\r\nX-A: new\r\nx-b: 1\r\nx-b: 2\r\nX-C: kept\r\n\r\n")
    );
}

#[test]
fn edits_cannot_reach_framing_or_routing() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Transfer_Encoding",
        "Host",
        "Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Expect",
        "keep-alive",
    ] {
        for op in [Op::Set, Op::Add, Op::Remove] {
            let fields = [edit(op, name, "1")];
            let edits = RequestEdits {
                fields: fields.iter().copied(),
                path: None,
                host: None,
            };
            assert_eq!(
                rewritten(head, &edits),
                Err(Reason::EditForbidden),
                "{name}"
            );
        }
    }
    for (name, value, reason) in [
        ("", "x", Reason::EditName),
        ("a b", "x", Reason::EditName),
        ("a:", "x", Reason::EditName),
        ("a\r\nb", "x", Reason::EditName),
        ("a", "x\r\ny: z", Reason::EditValue),
        ("a", "x\ny", Reason::EditValue),
        ("a", "\0", Reason::EditValue),
    ] {
        let fields = [edit(Op::Set, name, value)];
        let edits = RequestEdits {
            fields: fields.iter().copied(),
            path: None,
            host: None,
        };
        assert_eq!(rewritten(head, &edits), Err(reason), "{name:?} {value:?}");
    }
    for path in ["", "x", "/a b", "/a?b", "/a#b", "/\r\n", "/\u{7f}", "*"] {
        let edits = RequestEdits {
            path: Some(path.as_bytes()),
            ..RequestEdits::NONE
        };
        assert_eq!(rewritten(head, &edits), Err(Reason::EditTarget), "{path:?}");
    }
    for host in ["", "a b", "a\r\nb", "a:x", "a/b"] {
        let edits = RequestEdits {
            host: Some(host.as_bytes()),
            ..RequestEdits::NONE
        };
        assert_eq!(rewritten(head, &edits), Err(Reason::EditHost), "{host:?}");
    }
}

#[test]
fn responses() {
    let get = RequestContext {
        method: Method::Get,
        version: Version::Http11,
        upgrade: Some(Protocol::WEBSOCKET),
    };
    let check =
        |head: &str, connection: Option<Connection>, fields: &[FieldEdit<'_>], expected: &str| {
            let parsed = response_to(&get, head).unwrap();
            let fields = fields.iter().copied();
            let edits = ResponseEdits { connection, fields };
            let mut out = vec![0; rewrite::response_bound(&parsed, &edits)];
            let len = rewrite::response(head.as_bytes(), &parsed, &edits, &mut out).unwrap();
            assert_eq!(std::str::from_utf8(&out[..len]), Ok(expected));
        };
    check(
        "HTTP/1.0 200 Fine then\r\nConnection: close, X\r\nX: y\r\nKeep-Alive: 5\r\nServer: s\r\nContent-Length: 3\r\n\r\nabc",
        Some(Connection::Close),
        &[edit(Op::Remove, "server", ""), edit(Op::Set, "x-a", "1")],
        "HTTP/1.1 200 Fine then\r\nContent-Length: 3\r\nConnection: close\r\nx-a: 1\r\n\r\n",
    );
    check(
        "HTTP/1.1 200\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        None,
        &[],
        "HTTP/1.1 200\r\n\r\n",
    );
    check(
        "HTTP/1.1 200 x\r\n\r\n",
        Some(Connection::KeepAlive),
        &[],
        "HTTP/1.1 200 x\r\nConnection: keep-alive\r\n\r\n",
    );
    check(
        "HTTP/1.1 103 x\r\nLink: a\r\n\r\n",
        Some(Connection::Close),
        &[],
        "HTTP/1.1 103 x\r\nLink: a\r\n\r\n",
    );
    check(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade, x\r\nX: y\r\n\r\n",
        Some(Connection::Close),
        &[],
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
}
