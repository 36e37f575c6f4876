// SPDX-License-Identifier: GPL-2.0

//! One direction of a connection, as the module drives the engine: heads are collected, bodies pass.

use xlb_engine::{
    Body, Framing, Limits, Reason, RequestContext, RequestHead, RequestParser, ResponseHead,
    ResponseParser, Status,
};

/// What came out of a stream; consecutive body bytes are one event.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    Request(Box<RequestHead>),
    Response(Box<ResponseHead>),
    /// Framing and data of a body, as it was received.
    Body(Vec<u8>),
    End,
    Refused(Reason),
}

enum Side {
    Requests(RequestParser),
    Responses(ResponseParser, RequestContext),
}

pub struct Stream {
    side: Side,
    limits: Limits,
    head: Vec<u8>,
    body: Option<Body>,
    pub events: Vec<Event>,
}

impl Stream {
    pub fn requests(limits: Limits) -> Self {
        Self::new(Side::Requests(RequestParser::new()), limits)
    }

    /// Responses to requests that are all `to`.
    pub fn responses(limits: Limits, to: RequestContext) -> Self {
        Self::new(Side::Responses(ResponseParser::new(), to), limits)
    }

    fn new(side: Side, limits: Limits) -> Self {
        Stream {
            side,
            limits,
            head: Vec::new(),
            body: None,
            events: Vec::new(),
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.events.last(), Some(Event::Refused(_)))
    }

    /// Takes more bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.is_refused() {
            return;
        }
        if let Err(reason) = self.take(bytes) {
            self.check_stays_refused(reason);
            // How much of a refused body had passed depends on the pieces.
            if matches!(self.events.last(), Some(Event::Body(_))) {
                self.events.pop();
            }
            self.events.push(Event::Refused(reason));
        }
    }

    /// The connection closed.
    pub fn close(&mut self) {
        if self.is_refused() {
            return;
        }
        match self.body.take().map(|b| b.at_close()) {
            Some(Err(reason)) => self.events.push(Event::Refused(reason)),
            Some(Ok(())) => self.events.push(Event::End),
            None => {}
        }
    }

    /// What has returned an error takes nothing any more, whatever comes.
    fn check_stays_refused(&mut self, reason: Reason) {
        const GOOD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        if let Some(body) = &mut self.body {
            for more in [GOOD, b"\r\n", b""] {
                assert_eq!(body.feed(more, &self.limits), Err(reason));
            }
            body.skip(1);
            assert_eq!((body.opaque(), body.is_done()), (0, false));
            assert_eq!(body.at_close(), Err(reason));
            return;
        }
        match &mut self.side {
            Side::Requests(parser) => {
                for bytes in [&self.head, GOOD] {
                    assert_eq!(parser.parse(bytes, &self.limits), Err(reason));
                }
            }
            Side::Responses(parser, to) => {
                for bytes in [&self.head, &b"HTTP/1.1 204 x\r\n\r\n"[..]] {
                    assert_eq!(parser.parse(bytes, &self.limits, to), Err(reason));
                }
                assert_eq!(parser.interim(&self.limits), Err(reason));
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Reason> {
        loop {
            if let Some(body) = &mut self.body {
                let used = body.feed(bytes, &self.limits)?;
                assert!(used <= bytes.len());
                let (data, rest) = bytes.split_at(used);
                if !data.is_empty() {
                    match self.events.last_mut() {
                        Some(Event::Body(body)) => body.extend(data),
                        _ => self.events.push(Event::Body(data.to_vec())),
                    }
                }
                bytes = rest;
                if !body.is_done() {
                    assert!(bytes.is_empty(), "a body that has not ended takes all");
                    return Ok(());
                }
                self.body = None;
                self.events.push(Event::End);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.head.extend(bytes);
            let (framing, head_bytes) = match &mut self.side {
                Side::Requests(parser) => match parser.parse(&self.head, &self.limits)? {
                    Status::Partial => return Ok(()),
                    Status::Complete(head) => {
                        *parser = RequestParser::new();
                        self.events.push(Event::Request(Box::new(head)));
                        (Some(head.framing), head.head_bytes)
                    }
                },
                Side::Responses(parser, to) => match parser.parse(&self.head, &self.limits, to)? {
                    Status::Partial => return Ok(()),
                    Status::Complete(head) => {
                        self.events.push(Event::Response(Box::new(head)));
                        if head.interim {
                            parser.interim(&self.limits)?;
                        } else {
                            *parser = ResponseParser::new();
                        }
                        ((!head.interim).then_some(head.framing), head.head_bytes)
                    }
                },
            };
            let head_bytes = head_bytes as usize;
            assert!(0 < head_bytes && head_bytes <= self.head.len());
            assert!(
                self.head.len() - head_bytes <= bytes.len(),
                "a head that ends in what came before"
            );
            bytes = &bytes[bytes.len() - (self.head.len() - head_bytes)..];
            self.head.clear();
            self.body = framing.map(Body::new);
            if framing == Some(Framing::None) {
                self.body = None;
                self.events.push(Event::End);
            }
        }
    }
}
