// SPDX-License-Identifier: GPL-2.0

//! Bodies, rule by rule.

use xlb_engine::{Body, Framing, Limits, Reason};

fn feed(framing: Framing, bytes: &[u8]) -> Result<(usize, bool), Reason> {
    let mut body = Body::new(framing);
    let used = body.feed(bytes, &Limits::DEFAULT)?;
    Ok((used, body.is_done()))
}

#[test]
fn rfc9112_6_3_lengths() {
    assert_eq!(feed(Framing::None, b"next"), Ok((0, true)));
    assert_eq!(feed(Framing::Length(0), b"next"), Ok((0, true)));
    assert_eq!(feed(Framing::Length(5), b"helloGET"), Ok((5, true)));
    assert_eq!(feed(Framing::Length(5), b"hell"), Ok((4, false)));
    assert_eq!(
        feed(Framing::Length(i64::MAX as u64), b"hell"),
        Ok((4, false))
    );
    assert_eq!(feed(Framing::UntilClose, b"hello"), Ok((5, false)));
    assert_eq!(feed(Framing::Tunnel, b"hello"), Ok((5, false)));
}

#[test]
fn rfc9112_8_incomplete_messages() {
    for framing in [
        Framing::None,
        Framing::Length(0),
        Framing::UntilClose,
        Framing::Tunnel,
    ] {
        assert_eq!(Body::new(framing).at_close(), Ok(()), "{framing:?}");
    }
    for framing in [Framing::Length(1), Framing::Chunked] {
        assert_eq!(
            Body::new(framing).at_close(),
            Err(Reason::BodyTruncated),
            "{framing:?}"
        );
    }
    let whole = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for cut in 0..whole.len() {
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.feed(&whole[..cut], &Limits::DEFAULT), Ok(cut));
        assert_eq!(body.at_close(), Err(Reason::BodyTruncated), "{cut}");
    }
}

#[test]
fn rfc9112_7_1_chunked() {
    for bytes in [
        "0\r\n\r\n",
        "00000000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "0005\r\nhello\r\n0\r\n\r\n",
        "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        "2\r\n\r\n\r\n0\r\n\r\n",
    ] {
        let next = format!("{bytes}GET / HTTP/1.1\r\n\r\n");
        assert_eq!(
            feed(Framing::Chunked, next.as_bytes()),
            Ok((bytes.len(), true)),
            "{bytes:?}"
        );
    }
    for (bytes, reason) in [
        ("\r\n", Reason::ChunkSizeEmpty),
        (";a\r\n", Reason::ChunkSizeEmpty),
        ("\n", Reason::ChunkSizeEmpty),
        (" 5\r\n", Reason::ChunkSizeByte),
        ("5 \r\n", Reason::ChunkSizeByte),
        ("5\t\r\n", Reason::ChunkSizeByte),
        ("+5\r\n", Reason::ChunkSizeByte),
        ("-5\r\n", Reason::ChunkSizeByte),
        ("0x5\r\n", Reason::ChunkSizeByte),
        ("5_0\r\n", Reason::ChunkSizeByte),
        ("g\r\n", Reason::ChunkSizeByte),
        ("5\0\r\n", Reason::ChunkSizeByte),
        ("5\n", Reason::BareLf),
        ("5\rhello", Reason::BareCr),
        ("5\r\nhello\n", Reason::ChunkDataEnd),
        ("5\r\nhelloo\r\n", Reason::ChunkDataEnd),
        ("5\r\nhello0\r\n\r\n", Reason::ChunkDataEnd),
        ("5\r\nhello\rx", Reason::BareCr),
        ("5\r\nhello\r\n\r\n", Reason::ChunkSizeEmpty),
        ("8000000000000000\r\n", Reason::ChunkSizeOverflow),
        ("ffffffffffffffff\r\n", Reason::ChunkSizeOverflow),
        ("00000000000000005\r\n", Reason::ChunkSizeDigits),
        ("0\r\n\n", Reason::BareLf),
        ("0\r\n\rx", Reason::BareCr),
    ] {
        assert_eq!(
            feed(Framing::Chunked, bytes.as_bytes()),
            Err(reason),
            "{bytes:?}"
        );
    }
    assert_eq!(
        feed(Framing::Chunked, b"7fffffffffffffff\r\nx"),
        Ok((19, false))
    );
}

#[test]
fn rfc9112_7_1_1_chunk_extensions() {
    for ext in [
        ";a",
        ";a=b",
        ";a=\"b\"",
        ";a=\"\"",
        ";a;b=c;d",
        ";a=\";\"",
        ";a=\"\\\"x\\\\\"",
        ";a=\"caf\u{e9} \t\"",
    ] {
        let bytes = format!("1{ext}\r\nx\r\n0{ext}\r\n\r\n");
        assert_eq!(
            feed(Framing::Chunked, bytes.as_bytes()),
            Ok((bytes.len(), true)),
            "{ext}"
        );
    }
    for (ext, reason) in [
        (";", Reason::ChunkExtSyntax),
        (";;a", Reason::ChunkExtSyntax),
        (";a;", Reason::ChunkExtSyntax),
        (";a=", Reason::ChunkExtSyntax),
        ("; a", Reason::ChunkExtSyntax),
        (";a =b", Reason::ChunkExtSyntax),
        (";a=b c", Reason::ChunkExtSyntax),
        (";a=\"b", Reason::ChunkExtSyntax),
        (";a=\"b\\", Reason::ChunkExtSyntax),
        (";a=\"b\"c", Reason::ChunkExtSyntax),
        (";a=b\0", Reason::ChunkExtSyntax),
        (";a\n", Reason::BareLf),
        (";a=\"\n\"", Reason::BareLf),
        (";a=\"\r\"", Reason::ChunkExtSyntax),
        (";\n", Reason::BareLf),
        (";a\rx", Reason::BareCr),
    ] {
        let bytes = format!("1{ext}\r\nx\r\n0\r\n\r\n");
        assert_eq!(
            feed(Framing::Chunked, bytes.as_bytes()),
            Err(reason),
            "{ext:?}"
        );
    }
}

#[test]
fn chunk_framing_must_be_paid_for_by_data() {
    let chunk = |data: usize, ext: usize| {
        format!("{data:x};{}\r\n{}\r\n", "e".repeat(ext), "d".repeat(data)).into_bytes()
    };
    let run = |chunk: &[u8]| {
        let mut body = Body::new(Framing::Chunked);
        (0..100_000).try_for_each(|_| body.feed(chunk, &Limits::DEFAULT).map(|_| ()))
    };
    // 1-byte chunks, and signed chunks, may go on for ever.
    assert_eq!(run(b"1\r\nx\r\n"), Ok(()));
    assert_eq!(run(&chunk(1, 10)), Ok(()));
    assert_eq!(run(&chunk(64, 85)), Ok(()));
    assert_eq!(run(&chunk(1, 1000)), Err(Reason::ChunkExtBytes));
    assert_eq!(run(&chunk(1, 100_000)), Err(Reason::ChunkExtBytes));
    assert_eq!(
        run(b"0000000000000001;ee\r\nx\r\n"),
        Err(Reason::ChunkExtBytes)
    );
}

#[test]
fn rfc9112_7_1_2_trailer_section() {
    for trailer in [
        "X: y\r\n",
        "Digest: a\r\nServer-Timing: b\r\n",
        "X:\r\n",
        "grpc-status: 0\r\n",
        "contents: 1\r\n",
    ] {
        let bytes = format!("0\r\n{trailer}\r\n");
        assert_eq!(
            feed(Framing::Chunked, bytes.as_bytes()),
            Ok((bytes.len(), true)),
            "{trailer:?}"
        );
    }
    for (trailer, reason) in [
        // RFC 9110, section 6.5.1
        ("Content-Length: 5\r\n", Reason::TrailerField),
        ("CONTENT_LENGTH: 5\r\n", Reason::TrailerField),
        ("Transfer-Encoding: chunked\r\n", Reason::TrailerField),
        ("Host: a\r\n", Reason::TrailerField),
        ("Connection: close\r\n", Reason::TrailerField),
        ("Trailer: x\r\n", Reason::TrailerField),
        ("TE: x\r\n", Reason::TrailerField),
        ("HTTP2-Settings: x\r\n", Reason::TrailerField),
        (" X: y\r\n", Reason::ObsFold),
        ("X: y\r\n z\r\n", Reason::ObsFold),
        (": y\r\n", Reason::FieldNameEmpty),
        ("X : y\r\n", Reason::FieldNameSpace),
        ("X\r\n", Reason::FieldColonMissing),
        ("X(: y\r\n", Reason::FieldNameByte),
        ("X: y\n", Reason::BareLf),
        ("X\n", Reason::BareLf),
        ("X: a\rb", Reason::BareCr),
        ("X: a\0", Reason::Nul),
        ("X: a\x01", Reason::Control),
        // A request after the last chunk that forgot the empty line
        ("GET / HTTP/1.1\r\n", Reason::FieldNameSpace),
    ] {
        let bytes = format!("0\r\n{trailer}\r\n");
        assert_eq!(
            feed(Framing::Chunked, bytes.as_bytes()),
            Err(reason),
            "{trailer:?}"
        );
    }
    let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(17_000));
    assert_eq!(
        feed(Framing::Chunked, long.as_bytes()),
        Err(Reason::TrailerBytes)
    );
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(3_000));
    assert_eq!(
        feed(Framing::Chunked, many.as_bytes()),
        Err(Reason::TrailerBytes)
    );
}

#[test]
fn a_trailer_field_is_remembered() {
    for (bytes, had) in [
        ("0\r\n\r\n", false),
        ("1\r\nX\r\n0\r\n\r\n", false),
        ("0\r\nX: y\r\n\r\n", true),
        ("1\r\nX\r\n0\r\nX:GET /slow HTTP/1.1\r\n\r\n", true),
    ] {
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(
            body.feed(bytes.as_bytes(), &Limits::DEFAULT),
            Ok(bytes.len())
        );
        assert_eq!(body.had_trailers(), had, "{bytes:?}");
    }
}

#[test]
fn limits_admit_n_and_refuse_one_more() {
    let limits = Limits {
        chunk_ext_bytes: 20,
        chunk_size_digits: 4,
        trailer_bytes: 20,
        ..Limits::DEFAULT
    };
    let run = |bytes: String| {
        let mut body = Body::new(Framing::Chunked);
        body.feed(bytes.as_bytes(), &limits).map(|_| body.is_done())
    };
    let pad = |n: usize| "x".repeat(n);
    // The section with its line ends: name, colon and CRLF take 4, the empty line 2.
    assert_eq!(run(format!("0\r\nX:{}\r\n\r\n", pad(14))), Ok(true));
    assert_eq!(
        run(format!("0\r\nX:{}\r\n\r\n", pad(15))),
        Err(Reason::TrailerBytes)
    );
    assert_eq!(
        run("0\r\nX:1\r\nX:2\r\nX:3\r\nX:4\r\n\r\n".into()),
        Err(Reason::TrailerBytes)
    );
    // 16 bytes are free: size, semicolon and CRLF take 4 of the 36.
    assert_eq!(run(format!("0;{}\r\n\r\n", pad(32))), Ok(true));
    assert_eq!(
        run(format!("0;{}\r\n\r\n", pad(33))),
        Err(Reason::ChunkExtBytes)
    );
    assert_eq!(run("0000\r\n\r\n".into()), Ok(true));
    assert_eq!(run("00000\r\n\r\n".into()), Err(Reason::ChunkSizeDigits));
}

#[test]
fn bytes_that_pass_unseen() {
    let mut body = Body::new(Framing::Length(10));
    assert_eq!(body.opaque(), 10);
    body.skip(4);
    assert_eq!((body.opaque(), body.is_done()), (6, false));
    assert_eq!(body.feed(b"abc", &Limits::DEFAULT), Ok(3));
    body.skip(3);
    assert_eq!((body.opaque(), body.is_done()), (0, true));

    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.opaque(), 0);
    assert_eq!(body.feed(b"10\r\n", &Limits::DEFAULT), Ok(4));
    assert_eq!(body.opaque(), 16);
    body.skip(16);
    assert_eq!((body.opaque(), body.is_done()), (0, false));
    assert_eq!(body.feed(b"\r\n0\r\n\r\nmore", &Limits::DEFAULT), Ok(7));
    assert!(body.is_done());

    let mut tunnel = Body::new(Framing::Tunnel);
    tunnel.skip(u64::MAX);
    assert_eq!((tunnel.opaque(), tunnel.is_done()), (u64::MAX, false));
}
