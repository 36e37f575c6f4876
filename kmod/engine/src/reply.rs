// SPDX-License-Identifier: GPL-2.0

//! The replies that XLB makes itself: a status, its reason twice (for programs and for people), and nothing that
//! came from the other side. Or what the configuration says: a status and a body, or another place.

use crate::location::{Redirect, Target};
use crate::message::Version;
use crate::out::Out;
use crate::reason::Reason;
use crate::rewrite::{self, FieldEdits};
use crate::scan;

/// Room that every reply fits in when `reason` and `detail` are names of this project.
pub const REPLY_BYTES: usize = 512;

/// RFC 9110, section 15.
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// What every reply tells its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct To {
    /// The connection ends after it.
    pub close: bool,
    /// It answers HEAD: no body.
    pub head_only: bool,
    /// Of the request.
    pub version: Version,
}

/// Writes a whole reply: `reason` is the counter's name, `detail` the engine's [`Reason::name`] or empty.
/// Returns its length, or 0 when it does not fit.
pub fn encode(status: u16, reason: &str, detail: &str, to: To, out: &mut [u8]) -> usize {
    let mut out = Out::new(out);
    match write(status, reason, detail, to, &mut out) {
        Ok(()) => out.len(),
        Err(_) => 0,
    }
}

fn write(status: u16, reason: &str, detail: &str, to: To, out: &mut Out<'_>) -> Result<(), Reason> {
    let (reason, detail) = (reason.as_bytes(), detail.as_bytes());
    if !reason.iter().chain(detail).all(|b| scan::is_value(*b)) {
        return Err(Reason::EditValue);
    }
    line(status, to, out)?;
    out.put(b"content-type: text/plain\r\n")?;
    out.field(b"x-xlb-reason", reason)?;
    if !detail.is_empty() {
        out.field(b"x-xlb-detail", detail)?;
    }
    connection(to, out)?;
    let separator: &[u8] = if detail.is_empty() { b"" } else { b": " };
    let body: [&[u8]; 5] = [b"xlb: ", reason, separator, detail, b"\n"];
    let length = body
        .iter()
        .fold(0usize, |n, part| n.saturating_add(part.len()));
    out.put(b"content-length: ")?;
    out.decimal(u32::try_from(length).unwrap_or(u32::MAX))?;
    out.put(b"\r\n\r\n")?;
    if !to.head_only {
        for part in body {
            out.put(part)?;
        }
    }
    Ok(())
}

/// The most bytes that [`encode_body`] writes.
pub fn body_bound<'a>(body: &[u8], fields: &impl FieldEdits<'a>) -> usize {
    REPLY_BYTES
        .saturating_add(body.len())
        .saturating_add(rewrite::edits_bound(fields))
}

/// Writes a whole reply with a plain text, and with more fields or others. Returns its length.
pub fn encode_body<'a>(
    status: u16,
    body: &[u8],
    fields: &impl FieldEdits<'a>,
    to: To,
    out: &mut [u8],
) -> Result<usize, Reason> {
    rewrite::check(fields)?;
    let mut out = Out::new(out);
    line(status, to, &mut out)?;
    connection(to, &mut out)?;
    if !body.is_empty() && has_body(status) && !rewrite::is_replaced(b"content-type", fields) {
        out.put(b"content-type: text/plain\r\n")?;
    }
    rewrite::put_edits(fields, &mut out)?;
    end(status, body, to, &mut out)?;
    Ok(out.len())
}

/// The most bytes that [`encode_redirect`] writes.
pub fn redirect_bound<'a>(
    redirect: &Redirect<'_>,
    request: &Target<'_>,
    fields: &impl FieldEdits<'a>,
) -> usize {
    REPLY_BYTES
        .saturating_add(redirect.bound(request))
        .saturating_add(rewrite::edits_bound(fields))
}

/// Writes a whole reply that sends the client elsewhere. Returns its length.
pub fn encode_redirect<'a>(
    redirect: &Redirect<'_>,
    request: &Target<'_>,
    fields: &impl FieldEdits<'a>,
    to: To,
    out: &mut [u8],
) -> Result<usize, Reason> {
    rewrite::check(fields)?;
    let mut out = Out::new(out);
    line(redirect.status, to, &mut out)?;
    connection(to, &mut out)?;
    if !rewrite::is_replaced(b"location", fields) {
        out.put(b"location: ")?;
        redirect.put(request, &mut out)?;
        out.put(b"\r\n")?;
    }
    rewrite::put_edits(fields, &mut out)?;
    end(redirect.status, &[], to, &mut out)?;
    Ok(out.len())
}

/// RFC 9110, sections 15.3.5, 15.4.5 and 8.6: these have neither a body nor its length.
fn has_body(status: u16) -> bool {
    !matches!(status, 204 | 304)
}

/// The end of the head, and the body.
fn end(status: u16, body: &[u8], to: To, out: &mut Out<'_>) -> Result<(), Reason> {
    if !has_body(status) {
        return out.put(b"\r\n");
    }
    out.put(b"content-length: ")?;
    out.decimal(u32::try_from(body.len()).unwrap_or(u32::MAX))?;
    out.put(b"\r\n\r\n")?;
    if to.head_only {
        return Ok(());
    }
    out.put(body)
}

/// The status line.
fn line(status: u16, to: To, out: &mut Out<'_>) -> Result<(), Reason> {
    if !(200..=999).contains(&status) {
        return Err(Reason::StatusCode);
    }
    out.put(to.version.as_bytes())?;
    out.push(b' ')?;
    out.decimal(u32::from(status))?;
    out.push(b' ')?;
    out.put(phrase(status).as_bytes())?;
    out.put(b"\r\n")
}

fn connection(to: To, out: &mut Out<'_>) -> Result<(), Reason> {
    if to.close {
        return out.put(b"connection: close\r\n");
    }
    if to.version == Version::Http10 {
        return out.put(b"connection: keep-alive\r\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::NewPath;
    use crate::rewrite::{FieldEdit, Op};
    use crate::testing::request;

    const fn to(close: bool, head_only: bool, version: Version) -> To {
        To {
            close,
            head_only,
            version,
        }
    }

    const PLAIN: To = to(false, false, Version::Http11);

    fn own(status: u16, reason: &str, detail: &str, to: To, room: usize) -> String {
        let mut out = vec![0; room];
        let len = encode(status, reason, detail, to, &mut out);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    fn text(status: u16, body: &str, fields: &[FieldEdit<'_>], to: To) -> Result<String, Reason> {
        let fields = fields.iter().copied();
        let mut out = vec![0; body_bound(body.as_bytes(), &fields)];
        let len = encode_body(status, body.as_bytes(), &fields, to, &mut out)?;
        Ok(String::from_utf8(out[..len].to_vec()).unwrap())
    }

    const fn edit<'a>(op: Op, name: &'a str, value: &'a str) -> FieldEdit<'a> {
        FieldEdit {
            op,
            name: name.as_bytes(),
            value: value.as_bytes(),
        }
    }

    #[test]
    fn replies() {
        assert_eq!(
            own(400, "bad_request", "bare_lf", to(true, false, Version::Http11), REPLY_BYTES),
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nx-xlb-reason: bad_request\r\n\
             x-xlb-detail: bare_lf\r\nconnection: close\r\ncontent-length: 26\r\n\r\nxlb: bad_request: bare_lf\n"
        );
        assert_eq!(
            own(
                404,
                "bad_request",
                "",
                to(false, true, Version::Http10),
                REPLY_BYTES
            ),
            "HTTP/1.0 404 Not Found\r\ncontent-type: text/plain\r\nx-xlb-reason: bad_request\r\n\
             connection: keep-alive\r\ncontent-length: 17\r\n\r\n"
        );
    }

    #[test]
    fn texts() {
        for (status, body, to, expected) in [
            (
                403,
                "no\r\n",
                PLAIN,
                "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nno\r\n",
            ),
            (
                599,
                "no",
                to(true, true, Version::Http10),
                "HTTP/1.0 599 \r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n",
            ),
            (
                200,
                "",
                to(false, false, Version::Http10),
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            ),
            (204, "never", PLAIN, "HTTP/1.1 204 No Content\r\n\r\n"),
            (304, "never", PLAIN, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ] {
            assert_eq!(text(status, body, &[], to).as_deref(), Ok(expected));
        }
        assert_eq!(text(100, "", &[], PLAIN), Err(Reason::StatusCode));
        assert!(text(200, &"a".repeat(4096), &[], PLAIN).is_ok());
    }

    #[test]
    fn fields_of_a_text() {
        let json = edit(Op::Set, "Content-Type", "application/json");
        let fields = [json, edit(Op::Add, "x-a", "1"), edit(Op::Add, "x-a", "2")];
        assert_eq!(
            text(200, "{}", &fields, PLAIN).as_deref(),
            Ok("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\n{}")
        );
        let length = [edit(Op::Set, "content-length", "7")];
        assert_eq!(text(200, "a", &length, PLAIN), Err(Reason::EditForbidden));
        let split = [edit(Op::Set, "x-a", "1\r\nx-b: 2")];
        assert_eq!(text(200, "a", &split, PLAIN), Err(Reason::EditValue));
    }

    #[test]
    fn redirects() {
        let (head, parsed) = request("GET /a?b HTTP/1.1\r\nHost: h:80\r\n\r\n");
        let target = Target::of(&head, &parsed, b"/a");
        let redirect = Redirect {
            status: 308,
            scheme: Some(b"https"),
            host: None,
            port: None,
            path: Some(NewPath::Whole(b"/new")),
        };
        let reply = |fields: &[FieldEdit<'_>]| {
            let fields = fields.iter().copied();
            let mut out = vec![0; redirect_bound(&redirect, &target, &fields)];
            let len = encode_redirect(&redirect, &target, &fields, PLAIN, &mut out).unwrap();
            String::from_utf8(out[..len].to_vec()).unwrap()
        };
        assert_eq!(
            reply(&[edit(Op::Set, "x-a", "1")]),
            "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://h/new?b\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(
            reply(&[edit(Op::Set, "Location", "/own")]),
            "HTTP/1.1 308 Permanent Redirect\r\nLocation: /own\r\ncontent-length: 0\r\n\r\n"
        );
    }

    #[test]
    fn nothing_is_half_written_or_injected() {
        for room in 0..100 {
            assert_eq!(own(404, "no_route", "", PLAIN, room), "");
        }
        assert_eq!(own(400, "a\r\nb", "", PLAIN, REPLY_BYTES), "");
        assert_eq!(own(0, "a", "", PLAIN, REPLY_BYTES), "");
    }

    #[test]
    fn every_reason_fits() {
        for reason in Reason::ALL {
            let long = "head_too_large_and_then_some";
            assert_ne!(own(431, long, reason.name(), PLAIN, REPLY_BYTES), "");
        }
    }
}
