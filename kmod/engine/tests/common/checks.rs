// SPDX-License-Identifier: GPL-2.0

//! What must hold for every input.  Each check takes fuzzer bytes and panics when it does not hold.

use super::drive::{Event, Stream};
use super::reference;
use super::rng::Rng;
use xlb_engine::rewrite::{self, Connection, FieldEdit, Op, RequestEdits, ResponseEdits};
use xlb_engine::{
    hash, path, Body, Fields, Framing, Limits, Method, Protocol, Reason, RequestContext,
    RequestHead, RequestParser, ResponseHead, ResponseParser, Status, Version,
};

/// Small enough that a fuzzer reaches them.
pub const TIGHT: Limits = Limits {
    head_bytes: 600,
    field_count: 12,
    field_bytes: 120,
    target_bytes: 100,
    method_bytes: 10,
    connection_options: 4,
    leading_lines: 2,
    chunk_ext_bytes: 40,
    chunk_size_digits: 16,
    trailer_bytes: 60,
    interim_count: 2,
};

fn limits(choice: u8) -> Limits {
    if choice & 1 == 0 {
        Limits::DEFAULT
    } else {
        TIGHT
    }
}

/// The first byte chooses, the rest is the message.
fn split_choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(c, rest)| (*c, rest))
}

/// The request that a response answers, from the choice byte.
pub fn context(choice: u8) -> RequestContext {
    RequestContext {
        method: match (choice >> 1) & 3 {
            0 => Method::Head,
            _ => Method::Get,
        },
        version: if choice & 8 == 0 {
            Version::Http11
        } else {
            Version::Http10
        },
        upgrade: (choice & 0x18 == 0x10).then_some(Protocol::WEBSOCKET),
    }
}

/// The same events whatever the pieces.
fn same_events(data: &[u8], new: impl Fn() -> Stream) -> Vec<Event> {
    let mut whole = new();
    whole.feed(data);
    whole.close();
    let mut bytes = new();
    for byte in data {
        bytes.feed(std::slice::from_ref(byte));
    }
    bytes.close();
    assert_eq!(whole.events, bytes.events, "byte by byte");
    let mut rng = Rng(hash::fnv1a(data));
    let mut pieces = new();
    let mut rest = data;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at((1 + rng.below(40)).min(rest.len()));
        pieces.feed(piece);
        rest = tail;
    }
    pieces.close();
    assert_eq!(whole.events, pieces.events, "random pieces");
    whole.events
}

/// A stream of requests.
pub fn requests(data: &[u8]) {
    let (choice, data) = split_choice(data);
    let limits = limits(choice);
    let events = same_events(data, || Stream::requests(limits));
    let mut at = 0;
    for event in &events {
        match event {
            Event::Request(head) => {
                request_head(&data[at..], head);
                at += head.head_bytes as usize;
            }
            Event::Body(body) => at += body.len(),
            _ => {}
        }
    }
    assert!(at <= data.len());
}

/// What was decided on a request head agrees with the reference.
pub fn request_head(bytes: &[u8], head: &RequestHead) {
    let slow = reference::head(bytes).expect("the reference refuses");
    assert_eq!(slow.bytes, head.head_bytes as usize);
    assert_eq!(slow.fields.len(), head.field_count as usize);
    assert_eq!(slow.first.len(), 3);
    assert_eq!(slow.first[0], head.method_span.get(bytes));
    assert_eq!(slow.first[1], head.target.get(bytes));
    assert_eq!(
        slow.first[2],
        match head.version {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    );
    assert_eq!(slow.request_framing(), head.framing);
    assert!(
        slow.values("transfer-encoding").is_empty() || slow.values("content-length").is_empty()
    );
    assert_eq!(slow.ends(head.version), head.close);
    let fields: Vec<_> = Fields::of(bytes, head)
        .map(|(n, v)| (String::from_utf8(n.to_ascii_lowercase()).unwrap(), v))
        .collect();
    assert_eq!(fields, slow.fields);
    let host = slow.values("host");
    assert!(host.len() <= 1);
    assert!(host.len() == 1 || head.version == Version::Http10);
    let authority = |target: &[u8]| {
        let rest = target.split(|b| *b == b'/').nth(2).unwrap_or(b"").to_vec();
        rest.split(|b| *b == b'?').next().unwrap_or(b"").to_vec()
    };
    let named = match head.target.get(bytes) {
        [b'/' | b'*', ..] => host.first().map_or(Vec::new(), |host| host.to_vec()),
        absolute => authority(absolute),
    };
    let (host, named) = (head.host.get(bytes), named.to_ascii_lowercase());
    assert!(named.starts_with(&host.to_ascii_lowercase()));
    assert_eq!(host.is_empty(), named.is_empty());
    let path = head.path.get(bytes);
    assert!(path == b"*" || path.first() == Some(&b'/'));
    if let [b'/', ..] = head.target.get(bytes) {
        let mut parts = slow.first[1].splitn(2, |b| *b == b'?');
        assert_eq!(parts.next(), Some(path));
        assert_eq!(parts.next().unwrap_or(b""), head.query.get(bytes));
    }
    if head.upgrade.is_some() {
        let [protocol] = &slow.list("upgrade")[..] else {
            panic!("{slow:?}");
        };
        assert_eq!(Protocol::from_value(protocol.as_bytes()), head.upgrade);
        assert!(slow.list("connection").iter().any(|o| o == "upgrade"));
    }
    for form in [path::Form::Match, path::Form::Forward] {
        let mut out = vec![0; path::normalize_bound(path)];
        if let Ok(path::Normalized::Written(len)) = path::normalize(path, form, &mut out) {
            assert!(path::is_normal(&out[..len], form));
        }
    }
}

/// A stream of responses to one kind of request.
pub fn responses(data: &[u8]) {
    let (choice, data) = split_choice(data);
    let (limits, to) = (limits(choice), context(choice));
    let events = same_events(data, || Stream::responses(limits, to));
    let mut at = 0;
    for event in &events {
        match event {
            Event::Response(head) => {
                response_head(&data[at..], head, &to);
                at += head.head_bytes as usize;
            }
            Event::Body(body) => at += body.len(),
            _ => {}
        }
    }
    assert!(at <= data.len());
}

/// What was decided on a response head agrees with the reference.
pub fn response_head(bytes: &[u8], head: &ResponseHead, to: &RequestContext) {
    let slow = reference::head(bytes).expect("the reference refuses");
    assert_eq!(slow.bytes, head.head_bytes as usize);
    assert_eq!(slow.fields.len(), head.field_count as usize);
    assert_eq!(slow.first[1], head.status.to_string().as_bytes());
    let framing = slow.response_framing(head.status, to.method);
    assert_eq!(framing, head.framing);
    assert_eq!(head.interim, head.status < 200 && head.status != 101);
    assert!(head.close || !slow.ends(head.version));
    assert!(head.close || !matches!(framing, Framing::UntilClose | Framing::Tunnel));
    let fields: Vec<_> = Fields::of_response(bytes, head)
        .map(|(n, v)| (String::from_utf8(n.to_ascii_lowercase()).unwrap(), v))
        .collect();
    assert_eq!(fields, slow.fields);
}

/// A chunked body: any split, with and without looking at the data, and as the reference decodes it.
pub fn chunked(data: &[u8]) {
    let (choice, data) = split_choice(data);
    let limits = limits(choice);
    let whole = Body::new(Framing::Chunked).feed(data, &limits);
    let mut body = Body::new(Framing::Chunked);
    let mut at = 0;
    let mut seen = Vec::new();
    let slow = loop {
        if body.is_done() || at == data.len() {
            break Ok(at);
        }
        let opaque = body.opaque();
        if opaque > 0 {
            let pass = (data.len() - at).min(usize::try_from(opaque).unwrap_or(usize::MAX));
            body.skip(pass as u64);
            seen.extend(&data[at..at + pass]);
            at += pass;
        } else {
            match body.feed(&data[at..=at], &limits) {
                Ok(used) => assert_eq!(used, 1),
                Err(reason) => break Err(reason),
            }
            at += 1;
        }
    };
    assert_eq!(whole, slow);
    assert_eq!(body.at_close().is_ok(), body.is_done());
    if let Err(reason) = slow {
        assert_eq!(body.feed(b"0\r\n\r\n", &limits), Err(reason));
        assert!(!body.is_done());
    }
    if slow.is_ok() && body.is_done() {
        let (decoded, used) = reference::chunked(data).expect("the reference refuses");
        assert_eq!((decoded, used), (seen, at));
    }
}

/// Edits chosen by the input.
fn edits(rng: &mut Rng) -> Vec<FieldEdit<'static>> {
    let names: [&[u8]; 6] = [b"x-a", b"X-B", b"accept", b"cookie", b"host", b"bad name"];
    let values: [&[u8]; 5] = [b"", b"1", b" spaced ", b"caf\xe9", b"a\r\nb"];
    (0..rng.below(4))
        .map(|_| FieldEdit {
            op: [Op::Set, Op::Add, Op::Remove][rng.below(3)],
            // The two last of each are refused, so take them seldom.
            name: names[if rng.below(16) == 0 {
                rng.below(6)
            } else {
                rng.below(4)
            }],
            value: values[if rng.below(16) == 0 {
                rng.below(5)
            } else {
                rng.below(4)
            }],
        })
        .collect()
}

const HOP_BY_HOP: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// A rewritten head parses, says the same, and holds nothing that was meant for this hop.
pub fn rewrites(data: &[u8]) {
    let (choice, data) = split_choice(data);
    let mut rng = Rng(hash::fnv1a(data));
    if choice & 1 == 0 {
        let parsed = RequestParser::new().parse(data, &Limits::DEFAULT);
        if let Ok(Status::Complete(head)) = parsed {
            rewritten_request(data, &head, &mut rng);
        }
    } else {
        let to = context(choice);
        let parsed = ResponseParser::new().parse(data, &Limits::DEFAULT, &to);
        if let Ok(Status::Complete(head)) = parsed {
            rewritten_response(data, &head, &to, &mut rng);
        }
    }
}

fn is_bad(edits: &[FieldEdit<'_>]) -> bool {
    let bad_value = |v: &[u8]| v.contains(&b'\r');
    edits
        .iter()
        .any(|e| matches!(e.name, b"host" | b"bad name") || bad_value(e.value))
}

fn rewritten_request(data: &[u8], head: &RequestHead, rng: &mut Rng) {
    let fields = edits(rng);
    let asterisk = head.path.get(data) == b"*";
    let edits = RequestEdits {
        path: (!asterisk && rng.below(2) == 0).then_some(b"/new/path".as_slice()),
        host: (rng.below(2) == 0).then_some(b"other.example:81".as_slice()),
        fields: fields.iter().copied(),
    };
    let mut out = vec![0; rewrite::request_bound(head, &edits)];
    let len = match rewrite::request(data, head, &edits, &mut out) {
        Ok(len) => len,
        Err(Reason::EditForbidden | Reason::EditName | Reason::EditValue) if is_bad(&fields) => {
            return
        }
        Err(reason) => panic!("{reason:?}"),
    };
    assert!(!is_bad(&fields));
    let short = rewrite::request(data, head, &edits, &mut vec![0; len - 1]);
    assert_eq!(short, Err(Reason::OutputFull));
    let out = &out[..len];
    // It may be longer than the limit on what clients send.
    let wide = Limits {
        head_bytes: 1 << 20,
        field_count: 1000,
        field_bytes: 1 << 20,
        ..Limits::DEFAULT
    };
    let again = match RequestParser::new().parse(out, &wide) {
        Ok(Status::Complete(again)) => again,
        other => panic!("{other:?}: {}", out.escape_ascii()),
    };
    assert_eq!(again.head_bytes as usize, len);
    assert_eq!(again.method, head.method);
    assert_eq!(again.method_span.get(out), head.method_span.get(data));
    assert_eq!(again.version, head.version);
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.upgrade, head.upgrade);
    assert_eq!(again.expect_continue, head.expect_continue);
    assert_eq!(again.query.get(out), head.query.get(data));
    let was_root = head.target.get(data).first() != Some(&b'/') && head.method == Method::Options;
    let path = edits.path.unwrap_or(head.path.get(data));
    assert!(again.path.get(out) == path || (was_root && again.path.get(out) == b"*"));
    let host = edits.host.map_or(head.host.get(data), |_| b"other.example");
    assert!(again.host.get(out).eq_ignore_ascii_case(host));
    // Nothing of this hop is left, and nothing that Connection named; and the rest is all there, in order.
    let old = reference::head(data).unwrap();
    let new = reference::head(out).unwrap();
    let options = old.list("connection");
    let gone = |name: &str| {
        HOP_BY_HOP.contains(&name)
            || matches!(name, "connection" | "te" | "host" | "upgrade")
            || (name == "expect" && !head.expect_continue)
            || options.iter().any(|o| o == name)
    };
    let edited = |name: &str| {
        fields
            .iter()
            .any(|e| e.name.eq_ignore_ascii_case(name.as_bytes()))
    };
    let rest =
        |fields: &[(String, &[u8])], drop: &dyn Fn(&str) -> bool| -> Vec<(String, Vec<u8>)> {
            let fields = fields.iter().filter(|(n, _)| !drop(n) && !edited(n));
            let value = |name: &str, value: &[u8]| match name {
                "transfer-encoding" => value.to_ascii_lowercase(),
                _ => value.to_vec(),
            };
            fields.map(|(n, v)| (n.clone(), value(n, v))).collect()
        };
    assert_eq!(
        rest(&old.fields, &gone),
        rest(&new.fields, &|n| matches!(
            n,
            "connection" | "te" | "host" | "upgrade"
        ))
    );
    for name in HOP_BY_HOP {
        assert!(new.values(name).is_empty());
    }
    assert!(new.values("upgrade").is_empty() || again.upgrade.is_some());
    assert!(new.values("te").iter().all(|v| v == b"trailers"));
    let allowed = ["upgrade", "te", "keep-alive"];
    assert!(new
        .list("connection")
        .iter()
        .all(|o| allowed.contains(&o.as_str())));
    check_edits(&fields, &new);
}

/// The last word on each edited name.
fn check_edits(fields: &[FieldEdit<'_>], new: &reference::Head<'_>) {
    for (i, edit) in fields.iter().enumerate() {
        let name = String::from_utf8(edit.name.to_ascii_lowercase()).unwrap();
        let later = |e: &&FieldEdit<'_>| e.name.eq_ignore_ascii_case(edit.name);
        let after: Vec<_> = fields[i + 1..].iter().filter(later).collect();
        if after.iter().any(|e| e.op != Op::Add) {
            continue;
        }
        let values = new.values(&name);
        let value = edit.value.trim_ascii();
        match edit.op {
            Op::Remove => assert_eq!(values.len(), after.len()),
            Op::Set => assert_eq!((values.len(), values[0]), (after.len() + 1, value)),
            Op::Add => assert!(values.contains(&value)),
        }
    }
}

fn rewritten_response(data: &[u8], head: &ResponseHead, to: &RequestContext, rng: &mut Rng) {
    let fields = edits(rng);
    let edits = ResponseEdits {
        connection: [None, Some(Connection::Close), Some(Connection::KeepAlive)][rng.below(3)],
        fields: fields.iter().copied(),
    };
    let mut out = vec![0; rewrite::response_bound(head, &edits)];
    let len = match rewrite::response(data, head, &edits, &mut out) {
        Ok(len) => len,
        Err(Reason::EditForbidden | Reason::EditName | Reason::EditValue) if is_bad(&fields) => {
            return
        }
        Err(reason) => panic!("{reason:?}"),
    };
    let out = &out[..len];
    let wide = Limits {
        head_bytes: 1 << 20,
        field_count: 1000,
        field_bytes: 1 << 20,
        ..Limits::DEFAULT
    };
    let again = match ResponseParser::new().parse(out, &wide, to) {
        Ok(Status::Complete(again)) => again,
        other => panic!("{other:?}: {}", out.escape_ascii()),
    };
    assert_eq!(again.head_bytes as usize, len);
    assert_eq!(
        (again.status, again.framing, again.interim),
        (head.status, head.framing, head.interim)
    );
    assert_eq!(again.version, Version::Http11);
    let new = reference::head(out).unwrap();
    for name in HOP_BY_HOP {
        assert!(new.values(name).is_empty());
    }
    let connection = new.list("connection");
    let expected: &[&str] = match edits.connection {
        _ if head.framing == Framing::Tunnel => &["upgrade"],
        _ if head.interim => &[],
        Some(Connection::Close) => &["close"],
        Some(Connection::KeepAlive) => &["keep-alive"],
        None => &[],
    };
    assert_eq!(connection, expected);
    assert!(new.values("upgrade").is_empty() || head.framing == Framing::Tunnel);
    check_edits(&fields, &new);
}
