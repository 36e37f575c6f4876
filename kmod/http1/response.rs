// SPDX-License-Identifier: GPL-2.0

//! What a client reads: responses, where TCP has queued them.
//!
//! The client reads the i-sock's own receive queue, in its own system call: a response is framed
//! in place (nothing of it is copied or moved but a head that must be changed), and as many bytes
//! as are known to belong to it are received by TCP itself, straight into the user's memory. So
//! memory accounting, window updates and back-pressure are TCP's: what the client does not read
//! fills the i-sock's queue and closes its window.

use core::iter;

use xlb_engine::cookie;
use xlb_engine::reason::Class;
use xlb_engine::rewrite::{self, Connection, FieldEdit, FieldEdits, Op, ResponseEdits};
use xlb_engine::{Body, Framing, Reason, ResponseHead, Status, Version};

use super::{fill_with, keep_alive, Active, Phase, Relay, Response, Stage, EAGAIN_I};
use crate::buf::Buf;
use crate::count;
use crate::isock::Home as _;
use crate::limits;
use crate::policy::Actions;
use crate::pool::Isock;
use crate::sys;

const MSG_PEEK: i32 = 0x2;
const MSG_TRUNC: i32 = 0x20;

/// The most of a response that is taken from the i-sock because others wait for it.
const PARK_BYTES: usize = 64 * 1024;

/// How much of an incomplete response head is taken from the i-sock in one go.
const PARTIAL_BYTES: usize = 2048;

/// What came of one read.
pub(crate) enum Read {
    Bytes(usize),
    /// Something has changed: look again.
    Again,
    /// Nothing is there now.
    Empty,
    End,
    /// `-errno`
    Error(i32),
}

impl<'a> Active<'a> {
    /// Reads once, at most `len` bytes.
    pub(crate) fn read(&mut self, msg: *mut sys::msghdr, len: usize, flags: i32) -> Read {
        if !self.local.is_empty() {
            return self.read_local(msg, len, flags);
        }
        match self.phase {
            Phase::Relay(_) => self.read_relayed(msg, len, flags),
            Phase::Closing | Phase::Closed => {
                let err = self.take_error();
                if err != 0 {
                    Read::Error(err)
                } else {
                    Read::End
                }
            }
            Phase::Reply => {
                self.next();
                Read::Again
            }
            _ => Read::Empty,
        }
    }

    fn read_local(&mut self, msg: *mut sys::msghdr, len: usize, flags: i32) -> Read {
        let n = self.local.len().min(len);
        let bytes = self.local.bytes().get(..n).unwrap_or(&[]);
        let read = Self::copy(msg, bytes, flags);
        if flags & MSG_PEEK == 0 && matches!(read, Read::Bytes(_)) {
            self.local.consume(n);
            if self.local.is_empty() {
                match self.phase {
                    Phase::Reply => self.next(),
                    Phase::Relay(_) => self.finish_if_over(),
                    _ => {}
                }
            }
        }
        read
    }

    /// Reads from the i-sock: sends what is left of the request, frames a head when one comes next, and
    /// receives what is known to belong to the response.
    fn read_relayed(&mut self, msg: *mut sys::msghdr, len: usize, flags: i32) -> Read {
        if self.has_unsent() {
            self.flush();
            self.pass_on_end();
        }
        let Some(relay) = self.relay() else {
            return Read::Again;
        };
        if relay.response.partial.is_empty() && relay.isock.inq() == 0 {
            return self.nothing_came();
        }
        if relay.response.lacks_head() {
            match self.frame_head() {
                // It was changed.
                Ok(true) if !self.local.is_empty() => return Read::Again,
                Ok(true) => {}
                Ok(false) => return self.nothing_came(),
                Err(reason) => return self.refuse(reason),
            }
        }
        let Some(Relay {
            isock, response, ..
        }) = self.relay_mut()
        else {
            return Read::Again;
        };
        if let Err(reason) = scan(isock, response, len as u64) {
            return self.refuse(reason);
        }
        let want = usize::try_from(response.passable())
            .unwrap_or(usize::MAX)
            .min(len);
        if want == 0 {
            return self.nothing_came();
        }
        let n = isock.recv_msg(msg, want, flags & (MSG_PEEK | MSG_TRUNC));
        if n == 0 || n == -EAGAIN_I {
            return self.nothing_came();
        }
        let Ok(n) = usize::try_from(n) else {
            if n == -(kernel::bindings::EFAULT as i32) {
                return Read::Error(n);
            }
            self.fail_upstream(sys::XLB_REASON_UPSTREAM_RESET, "");
            return Read::Again;
        };
        if flags & MSG_PEEK == 0 {
            response.pass(n as u64);
            self.finish_if_over();
        }
        Read::Bytes(n)
    }

    /// The endpoint sent what the engine refuses, or there is no memory for it.
    fn refuse(&mut self, reason: Reason) -> Read {
        count::engine(reason);
        let reply = match reason.class() {
            // Not the endpoint's doing, see `reject`.
            Class::Internal => sys::XLB_REASON_NO_MEMORY,
            _ => sys::XLB_REASON_UPSTREAM_PROTOCOL,
        };
        self.fail_upstream(reply, reason.name());
        Read::Again
    }

    /// When other requests wait for this connection and the rest of the response is in: takes it
    /// into `local`, so that a client that is slow to read does not hold the connection.
    pub(crate) fn park(&mut self) {
        let wanted = self.isock().is_some_and(|i| i.home.is_wanted());
        if !wanted || self.has_unsent() {
            return;
        }
        while self.relay().is_some_and(|r| r.response.lacks_head()) {
            match self.frame_head() {
                Ok(true) => {}
                Ok(false) => return,
                Err(reason) => {
                    self.refuse(reason);
                    return;
                }
            }
        }
        let inner = &mut **self;
        let Phase::Relay(Relay {
            isock, response, ..
        }) = &mut inner.phase
        else {
            return;
        };
        if response.head().is_none() || inner.local.len() >= PARK_BYTES {
            return;
        }
        if let Err(reason) = scan(isock, response, PARK_BYTES as u64) {
            self.refuse(reason);
            return;
        }
        let Stage::Body(_, mut body) = response.stage else {
            return;
        };
        let Ok(rest) = usize::try_from(response.passable()) else {
            return;
        };
        body.skip((rest as u64).saturating_sub(response.framed));
        let fits = rest <= PARK_BYTES && isock.inq() >= rest;
        if !fits || !body.is_done() || inner.local.reserve(rest).is_err() {
            return;
        }
        let n = inner.local.fill(rest, |to, n| {
            // SAFETY: `fill` gives `n` writable bytes.
            usize::try_from(unsafe { isock.recv_buf(to, n, 0) }).unwrap_or(0)
        });
        response.pass(n as u64);
        if response.is_over() {
            self.finish();
        }
    }

    fn finish_if_over(&mut self) {
        if self.local.is_empty() && self.relay().is_some_and(|r| r.response.is_over()) {
            self.finish();
        }
    }

    /// The i-sock has nothing that may be delivered: wait, or is it over?
    fn nothing_came(&mut self) -> Read {
        let Some(Relay {
            isock, response, ..
        }) = self.relay()
        else {
            return Read::Again;
        };
        // In this order: bytes and the end after them may arrive between the two, in a softirq.
        if !isock.is_dead() || isock.inq() > 0 {
            return Read::Empty;
        }
        // A reset is no end of a response that is delimited by one.
        if response.ends_at_close() && response.framed == 0 && isock.end_in_order() {
            self.finish();
        } else {
            self.fail_upstream(sys::XLB_REASON_UPSTREAM_RESET, "");
        }
        Read::Again
    }

    /// Frames the next response head, interim or final. True when there is something to read now,
    /// false when the head is not whole.
    pub(crate) fn frame_head(&mut self) -> Result<bool, Reason> {
        // SAFETY: Until the head is written here.
        let told = unsafe { self.told() };
        let inner = &mut **self;
        let Phase::Relay(Relay {
            isock, response, ..
        }) = &mut inner.phase
        else {
            return Ok(false);
        };
        let Stage::Head(mut parser) = response.stage else {
            return Ok(false);
        };
        if !response.partial.is_empty() {
            return self.frame_head_in_pieces();
        }
        // The common case: the whole head is in one piece, and stays where it is.
        let context = inner.head.context();
        let mut guard = isock.lock();
        let bytes = guard.peek(0);
        if bytes.is_empty() {
            return Ok(false);
        }
        let Status::Complete(head) = parser.parse(bytes, limits::get(), &context)? else {
            drop(guard);
            return self.frame_head_in_pieces();
        };
        let head_bytes = head.head_bytes as usize;
        let keeps = keep_alive::timeout(isock, bytes, &head);
        if rewritten(bytes, &head, told, 0, &mut inner.local)? {
            drop(guard);
            if !isock.drop_bytes(head_bytes) {
                inner.local.reset();
                return Err(Reason::OutputFull);
            }
            response.bytes += head_bytes as u64;
        } else {
            drop(guard);
            response.framed = head_bytes as u64;
        }
        self.accept_head(head, keeps)?;
        Ok(true)
    }

    /// What the next head must tell the client.
    ///
    /// # Safety
    ///
    /// As of [`Active::actions`].
    unsafe fn told(&self) -> Told<'a> {
        Told {
            last: self.last,
            version: self.head.version,
            // SAFETY: By the contract.
            actions: unsafe { self.actions() },
            affinity: self.exchange.decision.affinity,
        }
    }

    /// The head comes in several pieces: collects it in `partial`.
    fn frame_head_in_pieces(&mut self) -> Result<bool, Reason> {
        let inner = &mut **self;
        let Phase::Relay(Relay {
            isock, response, ..
        }) = &mut inner.phase
        else {
            return Ok(false);
        };
        let Stage::Head(parser) = &mut response.stage else {
            return Ok(false);
        };
        let context = inner.head.context();
        let most = limits::get().head_bytes as usize + PARTIAL_BYTES;
        loop {
            if !response.partial.is_empty() {
                // Without memory for what comes of a whole head it is framed again.
                let mut tried = *parser;
                let status = tried.parse(response.partial.bytes(), limits::get(), &context)?;
                if let Status::Complete(head) = status {
                    return self.collected(head);
                }
                *parser = tried;
            }
            let Ok(room) = response.partial.make_room(most) else {
                return Err(Reason::OutputFull);
            };
            // Little by little: what lies behind the head is better left where it is.
            let n = response.partial.fill(room.min(PARTIAL_BYTES), |to, n| {
                // SAFETY: `fill` gives `n` writable bytes.
                usize::try_from(unsafe { isock.recv_buf(to, n, 0) }).unwrap_or(0)
            });
            if n == 0 {
                return Ok(false);
            }
            response.bytes += n as u64;
        }
    }

    /// `partial` holds a whole head, and maybe bytes behind it.
    fn collected(&mut self, head: ResponseHead) -> Result<bool, Reason> {
        // SAFETY: Until the head is written here.
        let told = unsafe { self.told() };
        let inner = &mut **self;
        let Phase::Relay(Relay {
            isock, response, ..
        }) = &mut inner.phase
        else {
            return Ok(false);
        };
        let head_bytes = head.head_bytes as usize;
        let bytes = response.partial.bytes();
        let own = bytes.get(..head_bytes).unwrap_or(bytes);
        let keeps = keep_alive::timeout(isock, own, &head);
        let behind = bytes.len() - own.len();
        if !rewritten(own, &head, told, behind, &mut inner.local)? {
            let room = inner.local.reserve(bytes.len());
            let room = room.and_then(|()| inner.local.append(own));
            room.map_err(|_| Reason::OutputFull)?;
        }
        response.partial.consume(head_bytes);
        self.accept_head(head, keeps)?;
        let inner = &mut **self;
        let Phase::Relay(Relay { response, .. }) = &mut inner.phase else {
            return Ok(true);
        };
        if let Stage::Body(_, body) = &mut response.stage {
            // The beginning of the body was taken with the head.
            let rest = response.partial.bytes();
            let used = body.feed(rest, limits::get())?;
            inner
                .local
                .append(rest.get(..used).unwrap_or(&[]))
                .map_err(|_| Reason::OutputFull)?;
            response.surplus |= rest.len() > used;
            response.partial.reset();
        }
        Ok(true)
    }

    /// Goes on to the body, or to the next head. `keeps` is what [`keep_alive::timeout`] found.
    fn accept_head(&mut self, head: ResponseHead, keeps: Option<u32>) -> Result<(), Reason> {
        let inner = &mut **self;
        let Phase::Relay(Relay {
            isock,
            upload,
            response,
        }) = &mut inner.phase
        else {
            return Ok(());
        };
        if head.interim {
            if inner.head.version == Version::Http10 {
                // RFC 9110, section 15.2: not for an HTTP/1.0 client. The engine refuses these.
                return Err(Reason::StatusCode);
            }
            return match &mut response.stage {
                Stage::Head(parser) => parser.interim(limits::get()),
                Stage::Body(..) => Ok(()),
            };
        }
        isock.endpoint_keeps(keeps);
        response.stage = Stage::Body(head, Body::new(head.framing));
        if head.framing == Framing::Tunnel {
            count::inc(sys::XLB_COUNTER_TUNNELS);
            // Everything that the client has written and will write is for the endpoint.
            inner.body = Body::new(Framing::Tunnel);
            upload.whole = false;
            if let Some(out) = &mut upload.out {
                let rest = inner.buf.bytes().get(inner.held..).unwrap_or(&[]);
                out.append(rest).map_err(|_| Reason::OutputFull)?;
            }
            inner.held = inner.buf.len();
            self.flush();
            self.pass_on_end();
        }
        Ok(())
    }
}

/// Writes a response head anew to `to`, where it must be changed; false when it goes byte for byte. Behind it is
/// room for `more` bytes.
fn rewritten(
    bytes: &[u8],
    head: &ResponseHead,
    told: Told<'_>,
    more: usize,
    to: &mut Buf,
) -> Result<bool, Reason> {
    // Those of 1xx are not the response (RFC 9110, section 15.2).
    let Some(actions) = told.actions.filter(|_| !head.interim) else {
        return edit(bytes, head, told, iter::empty(), more, to);
    };
    let mut value = Buf::new();
    let cookie = match actions.cookie().filter(|_| told.affinity != 0) {
        Some((name, attributes)) => {
            let bound = cookie::bound(name, attributes);
            fill_with(&mut value, bound, |to| {
                cookie::write(name, told.affinity, attributes, to)
            })?;
            Some(FieldEdit {
                op: Op::Add,
                name: b"set-cookie",
                value: value.bytes(),
            })
        }
        None => None,
    };
    let fields = actions.response_fields().chain(cookie);
    edit(bytes, head, told, fields, more, to)
}

fn edit<'a>(
    bytes: &[u8],
    head: &ResponseHead,
    told: Told<'_>,
    fields: impl FieldEdits<'a>,
    more: usize,
    to: &mut Buf,
) -> Result<bool, Reason> {
    let (connection, says) = told.connection(head);
    let edited = fields.clone().next().is_some();
    let stays = head.interim || head.framing == Framing::Tunnel;
    if !edited && (stays || (!head.rewrite && says)) {
        return Ok(false);
    }
    let edits = ResponseEdits { connection, fields };
    let bound = rewrite::response_bound(head, &edits);
    // For what lies behind the head, too: nothing that follows may fail half-way.
    to.reserve(bound + more).map_err(|_| Reason::OutputFull)?;
    fill_with(to, bound, |to| rewrite::response(bytes, head, &edits, to))?;
    Ok(true)
}

/// What a response head must tell the client, whatever it says itself.
#[derive(Clone, Copy)]
struct Told<'a> {
    /// Its connection ends after this.
    last: bool,
    version: Version,
    actions: Option<&'a Actions>,
    /// For a cookie among these; 0: none is needed.
    affinity: u64,
}

impl Told<'_> {
    /// What becomes of the connection, and whether the head says so as it is. To a request of HTTP/1.0 one that does
    /// not say "keep-alive" says "close".
    fn connection(self, head: &ResponseHead) -> (Option<Connection>, bool) {
        if self.last || head.framing == Framing::UntilClose {
            let says = head.framing == Framing::UntilClose
                || (head.version == Version::Http10 && head.close);
            (Some(Connection::Close), says)
        } else if self.version == Version::Http10 {
            (Some(Connection::KeepAlive), !head.close)
        } else {
            (None, true)
        }
    }
}

/// Frames the body in the i-sock's queue, until `want` bytes may be read or the queue ends. Nothing need
/// be looked at where the length of the rest is known.
pub(crate) fn scan(isock: &Isock, response: &mut Response, want: u64) -> Result<(), Reason> {
    let Stage::Body(_, body) = &mut response.stage else {
        return Ok(());
    };
    let mut guard = None;
    while !body.ends_after_opaque() && response.framed.saturating_add(body.opaque()) < want {
        let Ok(off) = u32::try_from(response.framed) else {
            break;
        };
        let bytes = guard.get_or_insert_with(|| isock.lock()).peek(off);
        if bytes.is_empty() {
            break;
        }
        response.framed += body.feed(bytes, limits::get())? as u64;
    }
    Ok(())
}
