// SPDX-License-Identifier: GPL-2.0

//! What the policy says of a request: which route, which endpoint; and what it is told afterwards.
//!
//! The policy is BPF and is called under RCU by `shim/policy.c`. While it decides, the kfuncs of
//! `fields.rs` answer from the p-sock's [`View`](crate::fields::View), which is set before the first call and emptied
//! after the last one. Both run under the socket lock, so nothing moves the bytes in between.

use xlb_engine::path::Form;
use xlb_engine::{host, path, Framing, Protocol, Reason};

use crate::buf::Buf;
use crate::count;
use crate::exchange::{fill_with, Phase, Relay, NO_DECISION};
use crate::psock::Locked;
use crate::sys;

/// How often a decision is begun at most.
const ROUNDS: u32 = 8;

impl Locked<'_> {
    /// Fills in what BPF sees, and asks `route` where the request is to go.
    pub(crate) fn ask_route(&mut self) -> Result<u32, Reason> {
        self.normalize()?;
        let psock = self.psock;
        let head = &self.head;
        let (path, host) = self.show();
        let mut flags = 0;
        if head.framing != Framing::None {
            flags |= sys::XLB_REQ_HAS_BODY;
        }
        let request = sys::xlb_request {
            // SAFETY: The socket is live.
            cgroup_id: unsafe { sys::xlb_sk_cgroup_id(psock.sk) },
            now_ns: self.started_ns,
            service: psock.service(),
            attempt: 0,
            method: head.method as u32,
            head_bytes: head.head_bytes - head.skip,
            host_bytes: host.len() as u32,
            path_bytes: path.len() as u32,
            path_segments: path::segments(path),
            http_version: head.version.as_u16(),
            flags: flags as u16,
            upgrade: head.upgrade.map_or(0, Protocol::hash),
        };
        // SAFETY: The request belongs to the holder of the socket lock, and no call of the policy
        // goes on.
        unsafe { *psock.request() = request };
        self.decision = NO_DECISION;
        let ret = self.call_route();
        Ok(self.decided(ret, sys::XLB_REASON_NO_ROUTE))
    }

    /// Asks `pick` for another endpoint, after [`Locked::ask_route`].
    pub(crate) fn ask_pick(&mut self, attempt: u32) -> u32 {
        let psock = self.psock;
        self.show();
        // SAFETY: The request is ours under the socket lock.
        unsafe { (*psock.request()).attempt = attempt };
        // SAFETY: Both are valid for the call, and the view is set.
        let mut ret = unsafe { sys::xlb_policy_pick(psock.request(), &raw mut self.decision) };
        if answer(ret, sys::XLB_REASON_NO_ENDPOINT) == sys::XLB_REASON_RETRIED {
            // The configuration that it was decided in is no more.
            ret = self.call_route();
        }
        self.decided(ret, sys::XLB_REASON_NO_ENDPOINT)
    }

    /// Ends the time in which BPF may ask. Returns what it has said, `otherwise` where that is none of our reasons.
    fn decided(&mut self, ret: i32, otherwise: u32) -> u32 {
        self.hide();
        self.picked = ret == 0;
        if self.picked {
            self.psock.show_endpoint(self.decision.endpoint);
        }
        match answer(ret, otherwise) {
            // It changes faster than one can decide.
            sys::XLB_REASON_RETRIED => sys::XLB_REASON_NO_ENDPOINT,
            reason => reason,
        }
    }

    /// Tells the policy how the picked endpoint did: once for each successful `pick`, and before the
    /// connection is given up, with which what is known of the response goes.
    pub(crate) fn done(&mut self, reason: u32) {
        let psock = self.psock;
        let inner = &mut **self;
        if !core::mem::take(&mut inner.picked) {
            return;
        }
        let (response_bytes, status) = match &inner.phase {
            Phase::Relay(Relay { response, .. }) => {
                let status = response.head().map_or(0, |h| u32::from(h.status));
                (response.bytes, status)
            }
            _ => (0, 0),
        };
        // SAFETY: Reads the clock.
        let now = unsafe { sys::xlb_now_ns() };
        let mut result = sys::xlb_result {
            request_bytes: inner.request_bytes,
            response_bytes,
            latency_ns: now.saturating_sub(inner.started_ns),
            status,
            reason,
        };
        count::add(sys::XLB_COUNTER_REQUEST_BYTES, inner.request_bytes as i64);
        count::add(sys::XLB_COUNTER_RESPONSE_BYTES, response_bytes as i64);
        // SAFETY: All three are valid for the call.
        unsafe { sys::xlb_policy_done(psock.request(), &raw mut inner.decision, &raw mut result) };
    }

    /// Calls `route`, and again when the configuration changed while it decided, or when it has asked for a table of the
    /// request's named parts first.
    fn call_route(&mut self) -> i32 {
        let mut ret = sys::XLB_REASON_RETRIED as i32;
        for _ in 0..ROUNDS {
            // SAFETY: The view is ours under the socket lock, and no call of the policy goes on.
            let view = unsafe { &mut *self.psock.view.get() };
            if view.is_lacking() && view.make_table().is_err() {
                return sys::XLB_REASON_NO_MEMORY as i32;
            }
            view.forget_needles();
            let request = self.psock.request();
            // SAFETY: Both are valid for the call, and the view is set.
            ret = unsafe { sys::xlb_policy_route(request, &raw mut self.decision) };
            if ret != sys::XLB_REASON_RETRIED as i32 {
                break;
            }
        }
        ret
    }

    /// What the first decision says of how the request is forwarded, whoever gets it in the end: an upgrade that the
    /// service does not allow is not asked for, and a path that came in another form than it was matched in is
    /// forwarded as it came, but for slashes at its start, and only where no server can read another path in it.
    pub(crate) fn settle(&mut self) -> Result<(), Reason> {
        let inner = &mut **self;
        let flags = u32::from(inner.decision.flags);
        if inner.head.upgrade.is_some() && flags & sys::XLB_DECISION_UPGRADE == 0 {
            inner.head.upgrade = None;
            inner.head.rewrite = true;
        }
        inner.rewrite_path = flags & sys::XLB_DECISION_FORWARD_NORMAL != 0;
        if inner.rewrite_path || inner.path.is_empty() {
            return Ok(());
        }
        let path = inner.head.path;
        let start = path::forward(path.get(inner.buf.bytes()))?;
        if start > 0 {
            inner.head.path = path.skip(start as u32);
            inner.head.rewrite = true;
        }
        Ok(())
    }

    /// Writes path and host as they are matched to `path` and `host`, or leaves these empty when
    /// the request has them in that form already.
    fn normalize(&mut self) -> Result<(), Reason> {
        let inner = &mut **self;
        let bytes = inner.buf.bytes();
        inner.path.reset();
        let raw = inner.head.path.get(bytes);
        if raw != b"*" && !path::is_normal(raw, Form::Match) {
            let bound = path::normalize_bound(raw);
            fill_with(&mut inner.path, bound, |to| {
                written(path::normalize(raw, Form::Match, to))
            })?;
        }
        inner.host.reset();
        let raw = inner.head.host.get(bytes);
        if raw.iter().any(u8::is_ascii_uppercase) || raw.ends_with(b".") {
            fill_with(&mut inner.host, raw.len(), |to| {
                written(host::normalize(raw, to))
            })?;
        }
        Ok(())
    }

    /// Path and host as they are matched.
    fn matched(&self) -> (&[u8], &[u8]) {
        let bytes = self.buf.bytes();
        (
            or_raw(&self.path, self.head.path.get(bytes)),
            or_raw(&self.host, self.head.host.get(bytes)),
        )
    }

    /// Lets BPF ask for the held request, by path and host as they are matched.
    fn show(&self) -> (&[u8], &[u8]) {
        let (path, host) = self.matched();
        // SAFETY: The view is ours under the socket lock, and no call of the policy goes on.
        let view = unsafe { &mut *self.psock.view.get() };
        view.show(self.buf.bytes(), &self.head, path, host);
        (path, host)
    }

    /// BPF has nothing to ask any more.
    fn hide(&self) {
        // SAFETY: The view is ours under the socket lock, and no call of the policy goes on.
        unsafe { &mut *self.psock.view.get() }.hide();
    }
}

/// The normal form, or what came when that is normal already.
fn or_raw<'a>(normal: &'a Buf, raw: &'a [u8]) -> &'a [u8] {
    if normal.is_empty() {
        raw
    } else {
        normal.bytes()
    }
}

/// How many bytes a normalisation wrote: none when the input is normal.
pub(crate) fn written(result: Result<path::Normalized, Reason>) -> Result<usize, Reason> {
    Ok(match result? {
        path::Normalized::Same => 0,
        path::Normalized::Written(n) => n,
    })
}

/// What the policy answered: 0, one of our reasons, or `otherwise`.
fn answer(ret: i32, otherwise: u32) -> u32 {
    match u32::try_from(ret) {
        Ok(reason) if reason < sys::XLB_REASON_COUNT => reason,
        _ => otherwise,
    }
}
