// SPDX-License-Identifier: GPL-2.0

//! Replies that XLB makes itself; their table is `XLB_REASONS` of `xlb_intf.h`.

use xlb_engine::location::Target;
use xlb_engine::reason::Class;
use xlb_engine::reply::{self, To};
use xlb_engine::{Body, Framing, Method, Reason, Version};

use super::{fill_with, forms, Active, Phase, Session};
use crate::count;
use crate::policy::{Actions, Reply};
use crate::sys;

impl Active<'_> {
    /// Answers bytes that the engine refused. Where the next request begins is not known.
    pub(crate) fn reject(&mut self, reason: Reason) {
        count::engine(reason);
        let reply = match reason.class() {
            Class::HeadTooLarge => sys::XLB_REASON_HEAD_TOO_LARGE,
            Class::Unsupported => sys::XLB_REASON_UNSUPPORTED,
            Class::Version => sys::XLB_REASON_VERSION,
            // No fault of the client's: what is written has a bound, so there was no memory for it.
            Class::Internal => sys::XLB_REASON_NO_MEMORY,
            _ => sys::XLB_REASON_BAD_REQUEST,
        };
        let answered = self.relay().is_some_and(|r| r.response.bytes > 0);
        self.done(reply);
        self.unbind();
        if answered {
            count::reason(reply);
            return self.close_client(true);
        }
        self.last = true;
        self.body = Body::new(Framing::None);
        self.buf.reset();
        self.held = 0;
        self.reply(reply, reason.name());
    }

    /// XLB's own reply; see `XLB_REASONS` for the status. Or what the route says, if that is the reason.
    pub(crate) fn reply(&mut self, reason: u32, detail: &str) {
        count::reason(reason);
        let actions = match reason {
            // SAFETY: Until it is written here.
            sys::XLB_REASON_RESPOND => unsafe { self.actions() },
            _ => None,
        };
        let inner = &mut **self;
        let known = !inner.buf.is_empty() && inner.held > 0;
        inner.last |= known && inner.head.expect_continue && !inner.body.is_done();
        let to = To {
            close: inner.last,
            head_only: known && inner.head.method == Method::Head,
            version: if known {
                inner.head.version
            } else {
                Version::Http11
            },
        };
        inner.phase = Phase::Reply;
        let written = match actions {
            Some(actions) => inner.write_said(actions, to),
            None => inner.write_own(reason, detail, to),
        };
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        self.forget_actions();
        if written.is_err() {
            self.close_client(true);
        }
    }
}

impl Session {
    fn write_own(&mut self, reason: u32, detail: &str, to: To) -> Result<(), Reason> {
        let (status, name) = status_of(reason);
        fill_with(&mut self.local, reply::REPLY_BYTES, |out| {
            Ok(reply::encode(status, name, detail, to, out))
        })
    }

    /// What the route says instead of an endpoint.
    fn write_said(&mut self, actions: &Actions, to: To) -> Result<(), Reason> {
        let fields = actions.response_fields();
        let redirect = match actions.reply() {
            Some(Reply::Redirect(redirect)) => redirect,
            Some(Reply::Text(status, body)) => {
                let bound = reply::body_bound(body, &fields);
                return fill_with(&mut self.local, bound, |out| {
                    reply::encode_body(status, body, &fields, to, out)
                });
            }
            None => return self.write_own(sys::XLB_REASON_NO_ROUTE, "", to),
        };
        let bytes = self.buf.bytes();
        let raw = self.head.path.get(bytes);
        let path = forms::to_forward(raw)?;
        let target = Target::of(bytes, &self.head, forms::or_raw(&path, raw));
        let bound = reply::redirect_bound(&redirect, &target, &fields);
        fill_with(&mut self.local, bound, |out| {
            reply::encode_redirect(&redirect, &target, &fields, to, out)
        })
    }
}

/// Status and name of a reason of `xlb_intf.h`.
fn status_of(reason: u32) -> (u16, &'static str) {
    // SAFETY: A constant table of the shim.
    let table = unsafe { &sys::xlb_replies };
    let Some(row) = table.get(reason as usize).filter(|row| row.status != 0) else {
        return (502, "upstream_reset");
    };
    // SAFETY: `name` is a string constant of `name_len` bytes.
    let name = unsafe { core::slice::from_raw_parts(row.name.cast(), row.name_len.into()) };
    (row.status, core::str::from_utf8(name).unwrap_or(""))
}
