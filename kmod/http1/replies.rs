// SPDX-License-Identifier: GPL-2.0

//! Replies that XLB makes itself; their table is `XLB_REASONS` of `xlb_intf.h`.

use xlb_engine::reason::Class;
use xlb_engine::{reply, Body, Framing, Method, Reason, Version};

use super::{fill_with, Active, Phase};
use crate::count;
use crate::policy::Actions;
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
        let (status, name) = status_of(reason);
        let actions = match reason {
            // SAFETY: An active session has its exchange.
            sys::XLB_REASON_RESPOND => unsafe { self.client.exchange.take_actions() },
            _ => None,
        };
        let said = actions.as_ref().and_then(Actions::respond);
        let inner = &mut **self;
        let known = !inner.buf.is_empty() && inner.held > 0;
        let head_only = known && inner.head.method == Method::Head;
        let version = if known {
            inner.head.version
        } else {
            Version::Http11
        };
        inner.last |= known && inner.head.expect_continue && !inner.body.is_done();
        let last = inner.last;
        inner.phase = Phase::Reply;
        let held = core::mem::take(&mut inner.held);
        inner.buf.consume(held);
        let bound = reply::REPLY_BYTES + said.map_or(0, |(_, body)| body.len());
        let written = fill_with(&mut inner.local, bound, |to| {
            Ok(match said {
                Some((status, body)) => {
                    reply::encode_body(status, body, last, head_only, version, to)
                }
                None => reply::encode(status, name, detail, last, head_only, version, to),
            })
        });
        if written.is_err() {
            self.close_client(true);
        }
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
