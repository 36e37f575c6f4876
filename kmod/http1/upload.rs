// SPDX-License-Identifier: GPL-2.0

//! From an exchange to a connection: takes the steps that it tells, gives the request to a connection, sends what is held,
//! and says what happens when the connection fails.
//!
//! Runs under the client's socket lock, in process context; the i-sock's lock and the pool's
//! are taken inside.

use core::ptr;

use xlb_engine::path::NewPath;
use xlb_engine::reason::Class;
use xlb_engine::rewrite::{self, FieldEdits, RequestEdits};
use xlb_engine::Reason;

use super::{fill_with, forms, Active, Phase, Relay, Response, Upload, EAGAIN_I};
use crate::buf::Buf;
use crate::count;
use crate::exchange::{Answer, Ready, Step};
use crate::isock::Home as _;
use crate::pool::Isock;
use crate::sys;

/// What became of a request that was given to a connection.
enum Bound {
    /// It is on its way.
    Sent,
    /// The connection is no good.
    Dead,
    /// The client was answered: there is no memory, or the request is not to be sent.
    Answered,
}

impl Active<'_> {
    /// Takes the steps of the exchange up to one that lasts; `more` says that the client has more bytes at hand.
    pub(super) fn go(&mut self, mut step: Step, more: bool) {
        let client = self.client;
        loop {
            let ready = match step {
                Step::Ready(ready) => ready,
                Step::Wait(wait) => {
                    self.phase = Phase::Waiting(wait);
                    return;
                }
                Step::Fail(reason) => return self.reply(reason, ""),
            };
            let Ready { isock, from } = ready;
            match self.bind(isock, more) {
                Bound::Sent if from.is_pooled() => {
                    count::inc(sys::XLB_COUNTER_REUSED);
                    return;
                }
                Bound::Sent => return self.exchange.warm(&self.party),
                Bound::Answered => return,
                Bound::Dead => {}
            }
            let (exchange, mut with) = (**self).exchange(client);
            step = exchange.next_after(&mut with, from);
        }
    }

    /// A connect or a turn in the queue may be over.
    pub(super) fn waited(&mut self) {
        let Phase::Waiting(wait) = core::mem::replace(&mut self.phase, Phase::Deciding) else {
            return;
        };
        let client = self.client;
        let (exchange, mut with) = (**self).exchange(client);
        let step = exchange.waited(&mut with, wait);
        self.go(step, false);
    }

    /// Gives the request to `isock` and sends what is held.
    fn bind(&mut self, mut isock: Isock, more: bool) -> Bound {
        let client = self.client;
        let out = match self.prepare() {
            Ok(out) => out,
            Err(reason) => {
                self.party.give_back(isock, true);
                self.refuse_to_send(reason);
                return Bound::Answered;
            }
        };
        isock.set_waker(client.exchange.waker());
        self.lend_options(&isock);
        client.will_relay(isock.sk());
        let inner = &mut **self;
        let sent = match &out {
            Some(_) => 0,
            None => inner.head.skip as usize,
        };
        let mut upload = Upload {
            out,
            sent,
            whole: true,
            deaf: false,
        };
        let more = more && !inner.body.is_done();
        let sent = {
            let guard = isock.lock();
            if !isock.is_clean() {
                -1
            } else {
                guard.send(upload.unsent(&inner.buf, inner.held), more)
            }
        };
        if sent < 0 && sent != -EAGAIN_I {
            client.set_rx(ptr::null_mut());
            isock.forget_waker();
            drop(isock);
            return Bound::Dead;
        }
        let sent = usize::try_from(sent).unwrap_or(0);
        upload.sent += sent;
        inner.exchange.request_bytes += sent as u64;
        isock.owned_mut().requests += 1;
        inner.phase = Phase::Relay(Relay {
            isock,
            upload,
            response: Response::new(),
        });
        if inner.has_unsent() {
            client.want_kick();
            self.flush();
        }
        Bound::Sent
    }

    /// There is no memory for what would be sent, or a route makes a path of it that no server should see.
    fn refuse_to_send(&mut self, reason: Reason) {
        if reason.class() != Class::Internal {
            return self.reject(reason);
        }
        self.done(sys::XLB_REASON_NO_MEMORY);
        self.reply(sys::XLB_REASON_NO_MEMORY, "");
    }

    /// The request as it is sent, when its head must not go byte for byte.
    fn prepare(&self) -> Result<Option<Buf>, Reason> {
        // SAFETY: Until this function ends.
        let Some(actions) = (unsafe { self.actions() }) else {
            return self.rewrite(RequestEdits::NONE, None);
        };
        let edits = RequestEdits {
            path: None,
            host: actions.host(),
            fields: actions.request_fields(),
        };
        self.rewrite(edits, actions.path())
    }

    fn rewrite<'a>(
        &self,
        edits: RequestEdits<'_, impl FieldEdits<'a>>,
        new: Option<NewPath<'_>>,
    ) -> Result<Option<Buf>, Reason> {
        let normal = self.rewrite_path && !self.path.is_empty();
        let edited = new.is_some() || edits.host.is_some() || edits.fields.clone().next().is_some();
        if !self.head.rewrite && !normal && !edited {
            return Ok(None);
        }
        let bytes = self.buf.bytes();
        let raw = self.head.path.get(bytes);
        let mut path = Buf::new();
        if normal {
            path = forms::to_forward(raw)?;
        }
        if let Some(new) = new.filter(|_| raw != b"*") {
            path = forms::replaced(&new, forms::or_raw(&path, raw))?;
        }
        let edits = RequestEdits {
            path: (!path.is_empty()).then_some(path.bytes()),
            ..edits
        };
        let bound = rewrite::request_bound(&self.head, &edits);
        let mut out = Buf::new();
        fill_with(&mut out, bound, |to| {
            rewrite::request(bytes, &self.head, &edits, to)
        })?;
        let body = bytes.get(self.head.head_bytes as usize..self.held);
        let body = out.append(body.unwrap_or(&[]));
        body.map_err(|_| Reason::OutputFull)?;
        Ok(Some(out))
    }

    /// Sends what is held and was not sent.
    pub(crate) fn flush(&mut self) {
        let client = self.client;
        let inner = &mut **self;
        let Phase::Relay(Relay { isock, upload, .. }) = &mut inner.phase else {
            return;
        };
        let mut asked = false;
        while !upload.deaf {
            let unsent = upload.unsent(&inner.buf, inner.held);
            if unsent.is_empty() {
                break;
            }
            let n = isock.lock().send(unsent, false);
            if n == -EAGAIN_I {
                if asked {
                    return;
                }
                // Room that came before this line kicked nobody: look once more.
                client.want_kick();
                asked = true;
                continue;
            }
            let Ok(n) = usize::try_from(n) else {
                upload.deaf = true;
                return;
            };
            upload.sent += n;
            inner.exchange.request_bytes += n as u64;
        }
        if !upload.whole {
            // Nothing can be sent again: forget what was.
            inner.buf.consume(inner.held);
            inner.held = 0;
            upload.sent = 0;
            upload.out = None;
        }
    }

    /// The connection ended or failed before its response did.
    pub(super) fn fail_upstream(&mut self, reason: u32, detail: &'static str) {
        let client = self.client;
        let Some(Relay {
            upload, response, ..
        }) = self.relay()
        else {
            return;
        };
        let nothing_came = response.bytes == 0 && response.partial.is_empty();
        let could = nothing_came
            && reason == sys::XLB_REASON_UPSTREAM_RESET
            && response.head().is_none()
            && upload.whole;
        // Did the client see any of it?
        let seen = response.head().is_some() && (response.framed == 0 || response.bytes > 0);
        let (exchange, with) = (**self).exchange(client);
        let replay = could && exchange.may_replay(&with.request);
        self.done(if replay {
            sys::XLB_REASON_RETRIED
        } else {
            reason
        });
        self.unbind();
        if replay {
            let (exchange, mut with) = (**self).exchange(client);
            let step = exchange.replay(&mut with);
            return self.go(step, false);
        }
        if !seen {
            return self.reply(reason, detail);
        }
        count::reason(reason);
        self.close_client(true);
    }

    /// Tells the policy how the picked endpoint did, before the connection is given up, with which what is known of the
    /// response goes.
    pub(crate) fn done(&mut self, reason: u32) {
        let client = self.client;
        let inner = &mut **self;
        let answer = match &inner.phase {
            Phase::Relay(relay) => relay.response.answer(),
            _ => Answer::default(),
        };
        inner.exchange.done(&client.exchange, reason, &answer);
    }

    /// Gives up the connection that the request has or waits for, which closes it, or its place in a queue
    /// and what may have been given there.
    pub(crate) fn unbind(&mut self) {
        self.client.set_rx(ptr::null_mut());
        match core::mem::replace(&mut self.phase, Phase::Deciding) {
            Phase::Relay(relay) => relay.isock.forget_waker(),
            Phase::Waiting(wait) => wait.cancel(&self.client.exchange),
            other => self.phase = other,
        }
    }

    /// Others wait for this connection, and it cannot be given back yet: maybe another one can.
    pub(super) fn ask_another(&self) {
        if let Some(isock) = self.isock() {
            if isock.home.is_wanted() {
                isock.home.ask_another();
            }
        }
    }
}
