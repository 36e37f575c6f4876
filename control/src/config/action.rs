// SPDX-License-Identifier: GPL-2.0
//! What a route does with a request beside sending it, or instead: what it is called in files, and its records for the policy.
//!
//! What the module does then is in `kmod/policy/actions.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xlb_engine::rewrite::{check_edit, FieldEdit, Op};

use super::decode::{Field, Object};
use super::model::{HashCookie, HashOn, Match, PathMatch};
use super::names;
use crate::compile::Strings;
use crate::intf::{self, xlb_action};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Actions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub request_headers: Headers,
    /// Of what the client gets: an endpoint's response, or what `respond` and `redirect` make.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub response_headers: Headers,
}

/// The client is sent to its own URL, with these parts of it changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Without port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(flatten)]
    pub path: Option<NewPath>,
    /// RFC 9110, section 15.4.
    pub status: u16,
}

/// XLB answers by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Respond {
    /// From 200 to 599.
    pub status: u16,
    /// Plain text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

/// What the endpoint gets instead of what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    #[serde(flatten)]
    pub path: Option<NewPath>,
    /// With or without port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NewPath {
    #[serde(rename = "path")]
    Whole(String),
    /// Instead of the prefix that the route matches.
    #[serde(rename = "path_prefix")]
    Prefix(String),
}

/// Changes to header fields, names as they are to be written. Removed first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Headers {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl Headers {
    fn is_empty(&self) -> bool {
        *self == Headers::default()
    }
}

/// Of one message: a head of 256 fields is gone over once for each of them.
const MAX_CHANGES: usize = 100;

impl Actions {
    /// Fields of a route that say what the client gets, instead of clusters.
    pub const INSTEAD: [&'static str; 2] = ["redirect", "respond"];

    pub(super) fn of(route: &Object<'_, '_>, matches: &Match) -> Actions {
        let instead = Actions::INSTEAD.iter().find(|key| route.get(key).is_some());
        for (key, what) in [
            ("rewrite", "changes what an endpoint gets"),
            ("request_headers", "changes what an endpoint gets"),
            ("hash_on", "chooses an endpoint"),
        ] {
            if let (Some(instead), Some(field)) = (instead, route.get(key)) {
                field.wrong(format!(
                    "it {what}, and with {instead} none gets anything: remove one of them"
                ));
            }
        }
        let headers = |key, of| {
            route
                .get(key)
                .map_or_else(Headers::default, |f| headers(f, of))
        };
        Actions {
            redirect: route.get("redirect").and_then(|f| redirect(f, matches)),
            respond: route.get("respond").and_then(respond),
            rewrite: route.get("rewrite").and_then(|f| rewrite(f, matches)),
            request_headers: headers("request_headers", Message::Request),
            response_headers: headers("response_headers", Message::Response),
        }
    }

    /// What the client gets, where that is no endpoint's answer; as lists show it.
    pub fn reply(&self) -> Option<String> {
        if let Some(respond) = &self.respond {
            return Some(format!("respond {}", respond.status));
        }
        let redirect = self.redirect.as_ref()?;
        let mut parts = vec![format!("redirect {}", redirect.status)];
        let mut part = |key: &str, value: Option<&str>| {
            parts.extend(value.map(|value| format!("{key}={value}")));
        };
        part("scheme", redirect.scheme.as_deref());
        part("host", redirect.host.as_deref());
        part("port", redirect.port.map(|p| p.to_string()).as_deref());
        if let Some(path) = &redirect.path {
            part(path.key(), Some(path.text()));
        }
        Some(parts.join(" "))
    }

    /// What is changed on the way, a line each.
    pub fn changes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(rewrite) = &self.rewrite {
            let path = rewrite.path.iter();
            lines.extend(path.map(|path| format!("rewrite {} {}", path.key(), path.text())));
            lines.extend(
                rewrite
                    .host
                    .iter()
                    .map(|host| format!("rewrite host {host}")),
            );
        }
        for (of, headers) in [
            ("request", &self.request_headers),
            ("response", &self.response_headers),
        ] {
            let named =
                |what, name: &String, value: &str| format!("{what} {of} header {name}{value}");
            lines.extend(headers.remove.iter().map(|name| named("remove", name, "")));
            for (what, fields) in [("set", &headers.set), ("add", &headers.add)] {
                let fields = fields.iter();
                lines.extend(fields.map(|(name, value)| named(what, name, &format!(": {value}"))));
            }
        }
        lines
    }

    /// The first of them is what the client gets, if it is no endpoint's answer. `None` as of [`crate::compile::Group::add`].
    pub(crate) fn records(
        &self,
        matches: &Match,
        hash_on: &[HashOn],
        strings: &mut Strings,
    ) -> Option<Vec<xlb_action>> {
        let mut records = Records {
            list: Vec::new(),
            strings,
        };
        if let Some(respond) = &self.respond {
            records.add(intf::XLB_ACTION_RESPOND, &respond.body)?.status = respond.status;
        }
        if let Some(redirect) = &self.redirect {
            records.add(intf::XLB_ACTION_REDIRECT, "")?.status = redirect.status;
            records.option(intf::XLB_ACTION_SCHEME, redirect.scheme.as_deref())?;
            records.option(intf::XLB_ACTION_HOST, redirect.host.as_deref())?;
            let port = redirect.port.map(|port| port.to_string());
            records.option(intf::XLB_ACTION_PORT, port.as_deref())?;
            records.path(redirect.path.as_ref(), matches)?;
        }
        if let Some(rewrite) = &self.rewrite {
            records.path(rewrite.path.as_ref(), matches)?;
            records.option(intf::XLB_ACTION_HOST, rewrite.host.as_deref())?;
        }
        records.fields(
            &self.request_headers,
            intf::XLB_ACTION_REQUEST_REMOVE,
            intf::XLB_ACTION_REQUEST_SET,
            intf::XLB_ACTION_REQUEST_ADD,
        )?;
        records.fields(
            &self.response_headers,
            intf::XLB_ACTION_RESPONSE_REMOVE,
            intf::XLB_ACTION_RESPONSE_SET,
            intf::XLB_ACTION_RESPONSE_ADD,
        )?;
        let cookies = hash_on.iter().filter_map(|on| match on {
            HashOn::Cookie(cookie) => Some((cookie, cookie.ttl?)),
            _ => None,
        });
        for (cookie, ttl) in cookies {
            records.with_value(
                intf::XLB_ACTION_COOKIE,
                &cookie.name,
                &attributes(cookie, ttl),
            )?;
        }
        Some(records.list)
    }
}

struct Records<'s> {
    list: Vec<xlb_action>,
    strings: &'s mut Strings,
}

impl Records<'_> {
    fn add(&mut self, kind: u32, text: &str) -> Option<&mut xlb_action> {
        let text = self.strings.add(text.as_bytes())?;
        self.list.push(xlb_action {
            kind: u16::try_from(kind).ok()?,
            text_page: text.page,
            text_offset: text.offset,
            text_bytes: text.bytes,
            ..xlb_action::default()
        });
        self.list.last_mut()
    }

    fn option(&mut self, kind: u32, text: Option<&str>) -> Option<()> {
        if let Some(text) = text {
            self.add(kind, text)?;
        }
        Some(())
    }

    fn path(&mut self, path: Option<&NewPath>, matches: &Match) -> Option<()> {
        match path {
            Some(NewPath::Whole(path)) => {
                self.add(intf::XLB_ACTION_PATH, path)?;
            }
            Some(NewPath::Prefix(to)) => {
                let matched = match &matches.path {
                    Some(PathMatch::Prefix(prefix)) if prefix != "/" => prefix.len(),
                    Some(PathMatch::StringPrefix(prefix)) => prefix.len(),
                    _ => 0,
                };
                let record = self.add(intf::XLB_ACTION_PATH_PREFIX, to)?;
                record.matched = u32::try_from(matched).ok()?;
            }
            None => {}
        }
        Some(())
    }

    fn fields(&mut self, headers: &Headers, remove: u32, set: u32, add: u32) -> Option<()> {
        for name in &headers.remove {
            self.add(remove, name)?;
        }
        for (kind, fields) in [(set, &headers.set), (add, &headers.add)] {
            for (name, value) in fields {
                self.with_value(kind, name, value)?;
            }
        }
        Some(())
    }

    fn with_value(&mut self, kind: u32, text: &str, value: &str) -> Option<()> {
        let value = self.strings.add(value.as_bytes())?;
        let record = self.add(kind, text)?;
        record.value_page = value.page;
        record.value_offset = value.offset;
        record.value_bytes = value.bytes;
        Some(())
    }
}

/// What stands behind the value of a cookie, as Envoy has it.
fn attributes(cookie: &HashCookie, ttl_ms: u32) -> String {
    let mut text = String::new();
    if ttl_ms > 0 {
        text += &format!("; Max-Age={}", ttl_ms.div_ceil(1000));
    }
    if let Some(path) = &cookie.path {
        text += &format!("; Path={path}");
    }
    text + "; HttpOnly"
}

impl NewPath {
    const KEYS: [&'static str; 2] = ["path", "path_prefix"];

    fn key(&self) -> &'static str {
        match self {
            NewPath::Whole(_) => "path",
            NewPath::Prefix(_) => "path_prefix",
        }
    }

    fn text(&self) -> &str {
        match self {
            NewPath::Whole(text) | NewPath::Prefix(text) => text,
        }
    }

    /// Of a redirect or a rewrite; `query`: it may have one.
    fn of(object: &Object<'_, '_>, matches: &Match, query: bool) -> Option<NewPath> {
        let key = object.one_of(&NewPath::KEYS)?;
        let field = object.get(key)?;
        if key == "path" {
            return names::new_path(field, query).map(NewPath::Whole);
        }
        if let Some(PathMatch::Exact(_) | PathMatch::Regex(_)) = &matches.path {
            field.wrong("the route matches no prefix that it could replace: write path");
            return None;
        }
        names::new_path(field, false).map(NewPath::Prefix)
    }
}

fn redirect(field: Field<'_>, matches: &Match) -> Option<Redirect> {
    let keys = ["scheme", "host", "port", "path", "path_prefix", "status"];
    let object = field.object(&keys)?;
    if !keys[..5].iter().any(|key| object.get(key).is_some()) {
        field.wrong("the client would come back: add scheme, host, port, path or path_prefix");
    }
    let scheme = object.get("scheme").and_then(|field| {
        let scheme = field.text()?;
        if !matches!(scheme, "http" | "https") {
            field.wrong(format!("\"{scheme}\": write http or https"));
        }
        Some(scheme.to_owned())
    });
    let port = object.get("port").and_then(|f| f.number(1, 65535));
    let status = match object.get("status") {
        // As of Gateway API's HTTPRequestRedirectFilter.
        None => Some(302),
        Some(field) => redirect_status(field),
    };
    Some(Redirect {
        scheme,
        host: object.get("host").and_then(names::host),
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: NewPath::of(&object, matches, true),
        status: status?,
    })
}

fn redirect_status(field: Field<'_>) -> Option<u16> {
    let status = field.number(0, u32::MAX)?;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        field.wrong(format!("{status}: write 301, 302, 303, 307 or 308"));
        return None;
    }
    u16::try_from(status).ok()
}

fn rewrite(field: Field<'_>, matches: &Match) -> Option<Rewrite> {
    let keys = ["path", "path_prefix", "regex", "host"];
    let object = field.object(&keys)?;
    if let Some(field) = object.get("regex") {
        field.unsupported("regex");
    }
    if !keys.iter().any(|key| object.get(key).is_some()) {
        field.wrong("nothing to rewrite: add path, path_prefix or host");
    }
    Some(Rewrite {
        path: NewPath::of(&object, matches, false),
        host: object.get("host").and_then(names::authority),
    })
}

fn respond(field: Field<'_>) -> Option<Respond> {
    let object = field.object(&["status", "body"])?;
    let status = object
        .need("status", "status: 403")
        .and_then(|f| f.number(200, 599));
    let body = object.get("body").map_or(Some(String::new()), names::text);
    let (status, body) = (u16::try_from(status?).ok()?, body?);
    // RFC 9110, sections 15.3.5 and 15.4.5.
    if matches!(status, 204 | 304) && !body.is_empty() {
        field.wrong(format!("a response {status} has no body: leave it out"));
        return None;
    }
    Some(Respond { status, body })
}

#[derive(Clone, Copy, PartialEq)]
enum Message {
    Request,
    Response,
}

fn headers(field: Field<'_>, of: Message) -> Headers {
    let Some(object) = field.object(&["set", "add", "remove"]) else {
        return Headers::default();
    };
    let fields = |key: &str| {
        let fields = object.get(key).map(|field| {
            field.map(|name, field| {
                let name = header(name, field, of);
                let value = value(field);
                Some((name?, value?))
            })
        });
        fields.unwrap_or_default()
    };
    let (set, add) = (fields("set"), fields("add"));
    let remove = object
        .get("remove")
        .map(|f| f.list(|item| header(item.text()?, item, of)))
        .unwrap_or_default();
    let changes = set.len() + add.len() + remove.len();
    if changes > MAX_CHANGES {
        field.wrong(format!(
            "{changes} changes; the limit of one message is {MAX_CHANGES}"
        ));
    }
    Headers {
        set: set.into_iter().collect(),
        add: add.into_iter().collect(),
        remove,
    }
}

/// The name of a field that may be changed.
fn header(name: &str, field: Field<'_>, of: Message) -> Option<String> {
    let edit = FieldEdit {
        op: Op::Remove,
        name: name.as_bytes(),
        value: &[],
    };
    let wrong = match check_edit(&edit) {
        Ok(()) => return Some(name.to_owned()),
        Err(_) if of == Message::Request && name.eq_ignore_ascii_case("host") => {
            "the host is changed by rewrite: {host: ..}".to_owned()
        }
        Err(xlb_engine::Reason::EditForbidden) => {
            format!("{name} says where a message ends or how a connection goes on, which is XLB's to say")
        }
        Err(_) => format!("\"{name}\" is not a header name: letters, digits and -"),
    };
    field.wrong(wrong);
    None
}

fn value(field: Field<'_>) -> Option<String> {
    let value = names::value(field)?;
    if let Some(variable) = variable(&value) {
        field.unsupported(variable);
        return None;
    }
    Some(value)
}

/// What Envoy would put something else in place of.
fn variable(value: &str) -> Option<&str> {
    let starts = value.match_indices('%').map(|(at, _)| at);
    starts.clone().zip(starts.skip(1)).find_map(|(from, to)| {
        let name = value.get(from + 1..to)?;
        let word = name.split(['(', ':']).next()?;
        let is_word = word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        (!word.is_empty() && is_word).then(|| value.get(from..=to))?
    })
}
