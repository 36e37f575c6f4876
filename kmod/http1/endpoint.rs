// SPDX-License-Identifier: GPL-2.0

//! The endpoint's side of an exchange in HTTP/1: how far the request has gone to it, how far its response has come.

use xlb_engine::{Body, Framing, ResponseHead, ResponseParser};

use super::Session;
use crate::buf::Buf;
use crate::exchange::Answer;
use crate::pool::Isock;

/// A request that an endpoint has, or gets.
pub(crate) struct Relay {
    pub(crate) isock: Isock,
    pub(crate) upload: Upload,
    pub(crate) response: Response,
}

/// How far the request has gone to the endpoint.
pub(crate) struct Upload {
    /// The rewritten request, when it is not sent as it is held.
    pub(crate) out: Option<Buf>,
    /// Bytes of `out`, or else of what is held, that were sent.
    pub(crate) sent: usize,
    /// All of the request so far is held.
    pub(crate) whole: bool,
    /// The endpoint takes no more of it; the rest of the body is dropped.
    pub(crate) deaf: bool,
}

impl Upload {
    /// The bytes to send: of the rewritten request, or of the `held` bytes in `buf`.
    pub(crate) fn unsent<'a>(&'a self, buf: &'a Buf, held: usize) -> &'a [u8] {
        let all = match &self.out {
            Some(out) => out.bytes(),
            None => buf.bytes().get(..held).unwrap_or(&[]),
        };
        all.get(self.sent..).unwrap_or(&[])
    }
}

/// How far the response has come.
pub(crate) struct Response {
    pub(crate) stage: Stage,
    /// Bytes at the front of the i-sock's queue that were framed and may go to the client.
    pub(crate) framed: u64,
    /// An incomplete head, taken from the i-sock.
    pub(crate) partial: Buf,
    /// Bytes from the endpoint so far.
    pub(crate) bytes: u64,
    /// Bytes came behind the end of the response.
    pub(crate) surplus: bool,
}

/// What comes next from the endpoint.
pub(crate) enum Stage {
    /// A head, interim or final.
    Head(ResponseParser),
    /// The rest of the body that this final head announces.
    Body(ResponseHead, Body),
}

impl Response {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Head(ResponseParser::new()),
            framed: 0,
            partial: Buf::new(),
            bytes: 0,
            surplus: false,
        }
    }

    /// The final head, once it is there.
    pub(crate) fn head(&self) -> Option<&ResponseHead> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(head, _) => Some(head),
        }
    }

    /// Whether a head must be framed before anything can be read.
    pub(crate) fn lacks_head(&self) -> bool {
        self.framed == 0 && matches!(self.stage, Stage::Head(_))
    }

    /// Bytes at the front of the i-sock's queue, there or still to come, that may go to the client
    /// without being looked at.
    pub(crate) fn passable(&self) -> u64 {
        let opaque = match &self.stage {
            Stage::Head(_) => 0,
            Stage::Body(_, body) => body.opaque(),
        };
        self.framed.saturating_add(opaque)
    }

    /// Counts `bytes` that went to the client.
    pub(crate) fn pass(&mut self, bytes: u64) {
        let framed = self.framed.min(bytes);
        self.framed -= framed;
        self.bytes += bytes;
        if let Stage::Body(_, body) = &mut self.stage {
            body.skip(bytes - framed);
        }
    }

    /// Whether all of it was taken from the i-sock.
    pub(crate) fn is_over(&self) -> bool {
        self.framed == 0 && matches!(&self.stage, Stage::Body(_, body) if body.is_done())
    }

    /// Whether it may end with the connection now.
    pub(crate) fn ends_at_close(&self) -> bool {
        matches!(&self.stage, Stage::Body(_, body) if body.at_close().is_ok())
    }

    /// For the policy.
    pub(crate) fn answer(&self) -> Answer {
        Answer {
            bytes: self.bytes,
            status: self.head().map_or(0, |head| u32::from(head.status)),
        }
    }

    /// Whether it was taken by 101 (Switching Protocols).
    pub(crate) fn is_tunnel(&self) -> bool {
        self.head().is_some_and(|h| h.framing == Framing::Tunnel)
    }
}

impl Relay {
    /// Whether the connection may be used again after the response that has ended now.
    pub(super) fn keeps_connection(&self, inner: &Session) -> bool {
        let response = &self.response;
        let reusable = |head: &ResponseHead| {
            !head.close && !matches!(head.framing, Framing::UntilClose | Framing::Tunnel)
        };
        response.head().is_some_and(reusable)
            && !response.surplus
            && !self.upload.deaf
            && self.upload.unsent(&inner.buf, inner.held).is_empty()
            && inner.body.is_done()
            && !inner.body.had_trailers()
            && !inner.head.solo
    }
}
