// SPDX-License-Identifier: GPL-2.0

//! The replies that XLB makes itself: a status, its reason twice (for programs and for people), and nothing that
//! came from the other side. Or a status and a body that the configuration says.

use crate::message::Version;
use crate::out::Out;
use crate::reason::Reason;
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

/// Writes a whole reply: `reason` is the counter's name, `detail` the engine's [`Reason::name`] or empty.
/// Returns its length, or 0 when it does not fit.
pub fn encode(
    status: u16,
    reason: &str,
    detail: &str,
    close: bool,
    head_only: bool,
    version: Version,
    out: &mut [u8],
) -> usize {
    let mut out = Out::new(out);
    match write(status, reason, detail, close, head_only, version, &mut out) {
        Ok(()) => out.len(),
        Err(_) => 0,
    }
}

fn write(
    status: u16,
    reason: &str,
    detail: &str,
    close: bool,
    head_only: bool,
    version: Version,
    out: &mut Out<'_>,
) -> Result<(), Reason> {
    let (reason, detail) = (reason.as_bytes(), detail.as_bytes());
    if !reason.iter().chain(detail).all(|b| scan::is_value(*b)) {
        return Err(Reason::EditValue);
    }
    line(status, version, out)?;
    out.put(b"content-type: text/plain\r\n")?;
    out.field(b"x-xlb-reason", reason)?;
    if !detail.is_empty() {
        out.field(b"x-xlb-detail", detail)?;
    }
    connection(close, version, out)?;
    let separator: &[u8] = if detail.is_empty() { b"" } else { b": " };
    let body: [&[u8]; 5] = [b"xlb: ", reason, separator, detail, b"\n"];
    let length = body
        .iter()
        .fold(0usize, |n, part| n.saturating_add(part.len()));
    out.put(b"content-length: ")?;
    out.decimal(u32::try_from(length).unwrap_or(u32::MAX))?;
    out.put(b"\r\n\r\n")?;
    if !head_only {
        for part in body {
            out.put(part)?;
        }
    }
    Ok(())
}

/// Writes a whole reply with a plain text. It fits into [`REPLY_BYTES`] more than the text has. Returns its length, or
/// 0 when it does not fit.
pub fn encode_body(
    status: u16,
    body: &[u8],
    close: bool,
    head_only: bool,
    version: Version,
    out: &mut [u8],
) -> usize {
    let mut out = Out::new(out);
    match write_body(status, body, close, head_only, version, &mut out) {
        Ok(()) => out.len(),
        Err(_) => 0,
    }
}

fn write_body(
    status: u16,
    body: &[u8],
    close: bool,
    head_only: bool,
    version: Version,
    out: &mut Out<'_>,
) -> Result<(), Reason> {
    line(status, version, out)?;
    connection(close, version, out)?;
    // RFC 9110, sections 15.3.5, 15.4.5 and 8.6: these have neither a body nor its length.
    if matches!(status, 204 | 304) {
        return out.put(b"\r\n");
    }
    if !body.is_empty() {
        out.put(b"content-type: text/plain\r\n")?;
    }
    out.put(b"content-length: ")?;
    out.decimal(u32::try_from(body.len()).unwrap_or(u32::MAX))?;
    out.put(b"\r\n\r\n")?;
    if !head_only {
        out.put(body)?;
    }
    Ok(())
}

/// The status line.
fn line(status: u16, version: Version, out: &mut Out<'_>) -> Result<(), Reason> {
    if !(200..=999).contains(&status) {
        return Err(Reason::StatusCode);
    }
    out.put(version.as_bytes())?;
    out.push(b' ')?;
    out.decimal(u32::from(status))?;
    out.push(b' ')?;
    out.put(phrase(status).as_bytes())?;
    out.put(b"\r\n")
}

fn connection(close: bool, version: Version, out: &mut Out<'_>) -> Result<(), Reason> {
    if close {
        return out.put(b"connection: close\r\n");
    }
    if version == Version::Http10 {
        return out.put(b"connection: keep-alive\r\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, detail: &str, close: bool, head_only: bool, version: Version) -> String {
        let mut out = [0; REPLY_BYTES];
        let len = encode(
            status,
            "bad_request",
            detail,
            close,
            head_only,
            version,
            &mut out,
        );
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    #[test]
    fn replies() {
        assert_eq!(
            text(400, "bare_lf", true, false, Version::Http11),
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nx-xlb-reason: bad_request\r\n\
             x-xlb-detail: bare_lf\r\nconnection: close\r\ncontent-length: 26\r\n\r\nxlb: bad_request: bare_lf\n"
        );
        assert_eq!(
            text(404, "", false, true, Version::Http10),
            "HTTP/1.0 404 Not Found\r\ncontent-type: text/plain\r\nx-xlb-reason: bad_request\r\n\
             connection: keep-alive\r\ncontent-length: 17\r\n\r\n"
        );
    }

    #[test]
    fn texts() {
        let text = |status, body: &[u8], close, head_only, version| {
            let mut out = vec![0; REPLY_BYTES + body.len()];
            let len = encode_body(status, body, close, head_only, version, &mut out);
            String::from_utf8(out[..len].to_vec()).unwrap()
        };
        assert_eq!(
            text(403, b"no\r\n", false, false, Version::Http11),
            "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nno\r\n"
        );
        assert_eq!(
            text(599, b"no", true, true, Version::Http10),
            "HTTP/1.0 599 \r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n"
        );
        assert_eq!(
            text(200, b"", false, false, Version::Http10),
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n"
        );
        for (status, line) in [(204, "204 No Content"), (304, "304 Not Modified")] {
            let reply = text(status, b"never", false, false, Version::Http11);
            assert_eq!(reply, format!("HTTP/1.1 {line}\r\n\r\n"));
        }
        assert_eq!(text(100, b"", false, false, Version::Http11), "");
        assert_ne!(text(200, &[b'a'; 4096], true, false, Version::Http11), "");
    }

    #[test]
    fn nothing_is_half_written_or_injected() {
        for room in 0..100 {
            assert_eq!(
                encode(
                    404,
                    "no_route",
                    "",
                    false,
                    false,
                    Version::Http11,
                    &mut vec![0; room]
                ),
                0
            );
        }
        let mut out = [0; REPLY_BYTES];
        assert_eq!(
            encode(400, "a\r\nb", "", true, false, Version::Http11, &mut out),
            0
        );
        assert_eq!(
            encode(0, "a", "", true, false, Version::Http11, &mut out),
            0
        );
    }

    #[test]
    fn every_reason_fits() {
        let mut out = [0; REPLY_BYTES];
        for reason in Reason::ALL {
            assert_ne!(
                encode(
                    431,
                    "head_too_large_and_then_some",
                    reason.name(),
                    true,
                    false,
                    Version::Http11,
                    &mut out
                ),
                0
            );
        }
    }
}
