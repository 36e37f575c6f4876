// SPDX-License-Identifier: GPL-2.0
//! What strings may be: names, domains, paths, header names and values.

use xlb_engine::path::{Form, Normalized};
use xlb_engine::Protocol;

use super::decode::Field;
use crate::compile::regexes::{self, Refused};
use crate::intf::XLB_PAGE_BYTES;

/// One match string lives in one page of a blob.
const MAX_STRING_BYTES: usize = XLB_PAGE_BYTES as usize;

/// `[a-z0-9-]`, up to 63 bytes: a DNS label.
pub fn service(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        field.wrong(format!(
            "\"{text}\": a service's name is 1 to 63 bytes of a-z, 0-9 and -"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// Of clusters and routes: 1 to 253 printable bytes, without space and "|".
pub fn item(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fits =
        (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'|');
    if !fits {
        field.wrong(format!(
            "\"{text}\": a name is 1 to 253 printable ASCII bytes without space and |"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// Absolute, without `.` and `..`; trailing slashes go.
pub fn cgroup(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    if !text.starts_with('/') || text.split('/').any(|part| part == "." || part == "..") {
        field.wrong(format!(
            "\"{text}\": write the path from the cgroup v2 root, such as /system.slice"
        ));
        return None;
    }
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
    Some(format!("/{}", parts.join("/")))
}

/// `a.example`, `*.example`, `a.*` or `*`; in lower case, without port.
pub fn domain(field: Field<'_>) -> Option<String> {
    let text = field.text()?.to_ascii_lowercase();
    let host = without_port(&text);
    if host.len() > MAX_STRING_BYTES {
        too_long(field, host.len());
        return None;
    }
    let plain = match host {
        "*" => return Some(text),
        _ => host
            .strip_prefix("*.")
            .or(host.strip_suffix(".*"))
            .unwrap_or(host),
    };
    let fits = !plain.is_empty()
        && plain
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"*/?#@\\\"<>|".contains(&b))
        && (plain.starts_with('[') || !plain.contains(':'));
    if !fits {
        field.wrong(format!(
            "\"{text}\": write a host, \"*.suffix\", \"prefix.*\" or \"*\""
        ));
        return None;
    }
    Some(host.to_owned())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // In "[::1]" the last colon is inside of the brackets.
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// As the engine makes the path of a request, for it is compared with that.
pub fn path(field: Field<'_>) -> Option<&str> {
    let text = field.text()?;
    if text.len() > MAX_STRING_BYTES {
        too_long(field, text.len());
        return None;
    }
    if !text.starts_with('/') {
        field.wrong(format!("\"{text}\": a path begins with /"));
        return None;
    }
    if text.contains(['?', '#']) {
        field.wrong(format!(
            "\"{text}\": only the path is compared, without ? and #: leave it out"
        ));
        return None;
    }
    let normal = normal_path(text);
    match normal {
        Ok(None) => Some(text),
        Ok(Some(normal)) => {
            field.wrong(format!(
                "\"{text}\" can never match, for paths are compared in normal form: write \"{normal}\""
            ));
            None
        }
        Err(reason) => {
            field.wrong(format!(
                "\"{text}\" is no path that a request could have ({reason})"
            ));
            None
        }
    }
}

/// `None` when it is in normal form already.
fn normal_path(text: &str) -> Result<Option<String>, String> {
    let normal = request_path(text)?;
    Ok((normal != text).then_some(normal))
}

/// As the engine makes it for matching.
fn request_path(text: &str) -> Result<String, String> {
    let mut out = vec![0; xlb_engine::path::normalize_bound(text.as_bytes())];
    match xlb_engine::path::normalize(text.as_bytes(), Form::Match, &mut out) {
        Ok(Normalized::Same) => Ok(text.to_owned()),
        Ok(Normalized::Written(bytes)) => {
            out.truncate(bytes);
            String::from_utf8(out).map_err(|_| "not ASCII".to_owned())
        }
        Err(reason) => Err(reason.text().to_owned()),
    }
}

/// Why a path that came like this is not forwarded, where it was matched in another form: the engine's reason.
pub fn path_refusal(path: &[u8]) -> Option<xlb_engine::Reason> {
    if xlb_engine::path::is_normal(path, Form::Match) {
        return None;
    }
    xlb_engine::path::forward(path).err()
}

/// A protocol of RFC 9110, section 7.8, in lower case.
pub fn protocol(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let name = text.to_ascii_lowercase();
    if text.len() > MAX_STRING_BYTES || Protocol::from_value(text.as_bytes()).is_none() {
        field.wrong(format!(
            "\"{text}\" is not the name of a protocol: write websocket, tcp, spdy/3.1 and such"
        ));
        return None;
    }
    if name == "h2c" {
        field.wrong("requests in an HTTP/2 tunnel would pass by the routes: leave h2c out");
        return None;
    }
    Some(name)
}

/// A path that takes the place of a request's: with or without a query.
pub fn new_path(field: Field<'_>, query: bool) -> Option<String> {
    let text = text(field)?;
    if !text.starts_with('/') {
        field.wrong(format!("\"{text}\": a path begins with /"));
        return None;
    }
    let (path, rest) = text.split_at(text.find('?').unwrap_or(text.len()));
    if text.contains('#') || !(query || rest.is_empty()) {
        let excess = if query { "#" } else { "? and #" };
        field.wrong(format!("\"{text}\": write a path without {excess}"));
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        field.wrong(format!(
            "\"{text}\": percent-encode spaces and what is not ASCII"
        ));
        return None;
    }
    match xlb_engine::path::forward(path.as_bytes()) {
        Ok(0) => Some(text),
        Ok(_) => {
            field.wrong(format!("\"{text}\": write one slash at its start"));
            None
        }
        Err(reason) => {
            field.wrong(format!(
                "\"{text}\": servers could read another path in it ({})",
                reason.text()
            ));
            None
        }
    }
}

/// An expression that all of a value is matched with.
pub fn regex(field: Field<'_>) -> Option<String> {
    let text = text(field)?;
    match regexes::tables(&[(&text, false)]) {
        Ok(_) => return Some(text),
        Err(Refused::Wrong(reason)) => field.wrong(format!("\"{text}\": {reason}")),
        Err(Refused::TooLarge) => field.wrong(format!(
            "\"{text}\": its table would take more than {} KiB, the limit of one expression: make it shorter, or count less",
            regexes::MAX_BYTES / 1024
        )),
    }
    None
}

/// The path of a cookie, RFC 6265, section 4.1.1.
pub fn cookie_path(field: Field<'_>) -> Option<String> {
    let text = text(field)?;
    if !text.starts_with('/')
        || text
            .bytes()
            .any(|b| !(b.is_ascii_graphic() || b == b' ') || b == b';')
    {
        field.wrong(format!("\"{text}\": a path begins with / and has no ;"));
        return None;
    }
    Some(text)
}

/// A host, without port.
pub fn host(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    if xlb_engine::host::check(text.as_bytes()).is_err() {
        field.wrong(format!(
            "\"{text}\": write a host, such as shop.example or [fd00::1], without port"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// What a Host field may say: a host, with or without port.
pub fn authority(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let host = without_port(text);
    let port = text.get(host.len() + 1..).map(|port| port.parse::<u16>());
    if xlb_engine::host::check(host.as_bytes()).is_err() || matches!(port, Some(Err(_) | Ok(0))) {
        field.wrong(format!(
            "\"{text}\": write a host with or without port, such as shop.example or [fd00::1]:8080"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// A field name of RFC 9110, section 5.1, in lower case.
pub fn header(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > MAX_STRING_BYTES || !text.bytes().all(token) {
        field.wrong(format!(
            "\"{text}\" is not a header name: letters, digits and -, up to 4 KiB"
        ));
        return None;
    }
    if text.eq_ignore_ascii_case("host") {
        field.wrong("the host is matched by the virtual host's domains: put it there");
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// Of a query parameter or a cookie, as it is written in the request.
pub fn parameter(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fits = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"&;=,#".contains(&b));
    if text.is_empty() || text.len() > MAX_STRING_BYTES || !fits {
        field.wrong(format!(
            "\"{text}\" is not a name as it is written in requests: percent-encode spaces and &;=,#"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// A field value: values of requests have no spaces around them and no control bytes.
pub fn value(field: Field<'_>) -> Option<String> {
    let text = text(field)?;
    if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        field.wrong("a header value has no control bytes: remove them");
        return None;
    }
    Some(text)
}

/// Any text of a length that can be kept.
pub fn text(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.len() > MAX_STRING_BYTES {
        too_long(field, text.len());
        return None;
    }
    Some(text.to_owned())
}

fn too_long(field: Field<'_>, bytes: usize) {
    field.wrong(format!(
        "{bytes} bytes; the limit of one match string is {MAX_STRING_BYTES}"
    ));
}
