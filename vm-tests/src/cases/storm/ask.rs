// SPDX-License-Identifier: GPL-2.0
//! One request of the storm: what it asks for, how its answer is known to be its own.
//!
//! A request says who sent it (`x-owner: ACTOR.NUMBER`), which answer it wants (`x-answer`), and what its body is
//! (`x-body: LENGTH CRC`). Both bodies are bytes made from the owner, so a byte of somebody else's shows, and so does one
//! that is lost. The answer repeats owner, length and CRC and names the backend.
//!
//! Each request also names a lane, in every way in which routes can ask: path, header, parameter, cookie. Whatever
//! configuration is applied, a lane leads to the same backends, so a request that got a part of one configuration and a
//! part of another shows, too.

use std::net::IpAddr;

use anyhow::{bail, ensure, Context, Result};

use super::chance::Rng;
use super::world::Outcome;
use crate::http::{crc, pattern, Message};

/// Backends are numbered from 1.
pub const BACKENDS: u32 = 6;

/// A service: its address under `10.96.0.` and `fd00:96::`, and the backends of its two lanes.
pub struct Service {
    pub name: &'static str,
    pub host: u8,
    pub lanes: [&'static [u32]; 2],
}

pub const SERVICES: [Service; 3] = [
    Service {
        name: "shop",
        host: 10,
        lanes: [&[1, 2], &[3, 4]],
    },
    Service {
        name: "cart",
        host: 11,
        lanes: [&[3, 4], &[5, 6]],
    },
    // Not in every configuration, and all in one cluster.
    Service {
        name: "guest",
        host: 12,
        lanes: [&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]],
    },
];

pub const LANES: [&str; 2] = ["left", "right"];

/// How the backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Plain,
    Chunked,
    /// With its length, and the connection ends.
    Close,
    /// Without a length: its end is that of the connection.
    ToClose,
    /// 103 first.
    Early,
    /// After a while.
    Slow,
    /// In many small pieces.
    Trickle,
    /// Before the request's body is read.
    Before,
    NoContent,
    NotModified,
    /// 101, then all that comes is sent back.
    Tunnel,
    /// The connection ends without an answer, in its head, in its body, in a chunk.
    CutNone,
    CutHead,
    CutBody,
    CutChunk,
    /// No HTTP.
    Garbage,
}

const ANSWERS: [(&str, Answer); 16] = [
    ("plain", Answer::Plain),
    ("chunked", Answer::Chunked),
    ("close", Answer::Close),
    ("to-close", Answer::ToClose),
    ("early", Answer::Early),
    ("slow", Answer::Slow),
    ("trickle", Answer::Trickle),
    ("before", Answer::Before),
    ("no-content", Answer::NoContent),
    ("not-modified", Answer::NotModified),
    ("tunnel", Answer::Tunnel),
    ("cut-none", Answer::CutNone),
    ("cut-head", Answer::CutHead),
    ("cut-body", Answer::CutBody),
    ("cut-chunk", Answer::CutChunk),
    ("garbage", Answer::Garbage),
];

impl Answer {
    fn name(self) -> &'static str {
        let found = ANSWERS.iter().find(|(_, answer)| *answer == self);
        found.map_or("", |(name, _)| *name)
    }

    pub fn status(self) -> u16 {
        match self {
            Self::NoContent => 204,
            Self::NotModified => 304,
            Self::Tunnel => 101,
            _ => 200,
        }
    }

    /// Whether a body of another length than was asked for may be whole.
    fn is_ended_by_close(self) -> bool {
        self == Self::ToClose
    }

    /// What the client gets when nothing else goes wrong.
    pub fn in_calm(self, outcome: &Outcome) -> bool {
        match self {
            Self::CutNone | Self::CutHead => *outcome == Outcome::Reply("upstream_reset".into()),
            Self::CutBody | Self::CutChunk => {
                matches!(outcome, Outcome::Cut | Outcome::Errno(_))
            }
            Self::Garbage => *outcome == Outcome::Reply("upstream_protocol".into()),
            _ => *outcome == Outcome::Answered,
        }
    }
}

/// XLB's own replies to a request that is well-formed, and when they may be.
const REPLIES: [(&str, u16); 9] = [
    // The service is gone, or the policy is.
    ("no_route", 404),
    ("no_policy", 503),
    // The configuration has no endpoint there, or those that it has drain.
    ("no_endpoint", 503),
    // The backend is dead, or dies.
    ("connect_failed", 503),
    ("upstream_reset", 502),
    // It does not accept.
    ("timeout", 504),
    // Configurations with limits.
    ("pool_overflow", 503),
    ("pool_timeout", 503),
    // Only when garbage was asked for.
    ("upstream_protocol", 502),
];

/// Identifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub actor: u32,
    pub number: u32,
}

impl Owner {
    fn seed(self) -> u64 {
        ((u64::from(self.actor) << 32) | u64::from(self.number)) << 1
    }

    pub fn request_body(self, length: usize) -> Vec<u8> {
        pattern(length, self.seed())
    }

    pub fn response_body(self, length: usize) -> Vec<u8> {
        pattern(length, self.seed() + 1)
    }

    fn parse(text: &str) -> Option<Self> {
        let (actor, number) = text.split_once('.')?;
        Some(Self {
            actor: actor.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.actor, self.number)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub owner: Owner,
    pub method: &'static str,
    pub version: &'static str,
    /// Index into [`SERVICES`].
    pub service: usize,
    /// Index into [`LANES`].
    pub lane: usize,
    pub answer: Answer,
    /// Of the response's body.
    pub length: usize,
    /// Of the request's.
    pub body: usize,
    pub chunked: bool,
    /// More fields, each with its line end.
    pub fields: String,
}

impl Ask {
    /// A GET for this answer.
    pub fn get(owner: Owner, service: usize, answer: Answer, rng: &mut Rng) -> Self {
        Self {
            owner,
            method: "GET",
            version: "1.1",
            service,
            lane: rng.below(LANES.len()),
            answer,
            length: rng.length(),
            body: 0,
            chunked: false,
            fields: String::new(),
        }
    }

    pub fn has_body(&self) -> bool {
        self.body > 0 || self.chunked
    }

    pub fn head(&self) -> String {
        let lane = LANES[self.lane];
        let mut head = format!(
            "{} /{lane}/of/{}?a=b&lane={lane} HTTP/{}\r\nHost: storm.example\r\nCookie: c=d; lane={lane}\r\n\
             X-Lane: {lane}\r\nX-Owner: {}\r\nX-Answer: {} {}\r\n{}",
            self.method,
            self.owner,
            self.version,
            self.owner,
            self.answer.name(),
            self.length,
            self.fields
        );
        if self.has_body() {
            let sum = crc(&self.owner.request_body(self.body));
            head += &format!("X-Body: {} {sum}\r\n", self.body);
        }
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n";
        } else if self.body > 0 {
            head += &format!("Content-Length: {}\r\n", self.body);
        }
        head + "\r\n"
    }

    /// The body as it is sent, in chunks of chance where it is chunked.
    pub fn body_bytes(&self, rng: &mut Rng) -> Vec<u8> {
        let body = self.owner.request_body(self.body);
        if self.chunked {
            let trailer = rng.one_in(4).then_some("X-Trailer: t\r\n");
            chunks(&body, trailer.unwrap_or(""), rng)
        } else {
            body
        }
    }

    pub fn bytes(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        bytes.extend(self.body_bytes(rng));
        bytes
    }

    /// What a request that arrived at a backend asks for; an error is a request that was not sent so.
    pub fn arrived(message: &Message) -> Result<(Owner, Answer, usize)> {
        let owner = message.field("x-owner").and_then(Owner::parse);
        let owner = owner.context("no owner")?;
        let wanted = message.field("x-answer").context("no x-answer")?;
        let (name, length) = wanted.split_once(' ').context("x-answer")?;
        let answer = ANSWERS.iter().find(|(other, _)| *other == name);
        let (_, answer) = answer.with_context(|| format!("x-answer: {wanted}"))?;
        ensure!(
            message.path().contains(&format!("/of/{owner}?")),
            "{} of {owner}",
            message.start
        );
        Ok((owner, *answer, length.parse()?))
    }

    /// Whether the body that arrived is the one that was sent.
    pub fn body_arrived(owner: Owner, message: &Message) -> Result<()> {
        let said = message.field("x-body").unwrap_or("0 0");
        let is = format!("{} {}", message.body.len(), crc(&message.body));
        ensure!(said == is, "a body {said} arrived as {is}");
        check_bytes(&message.body, &owner.request_body(message.body.len()))
    }

    /// Judges a response that came whole: what it is, or what is wrong with it.
    ///
    /// `from` is the address that the client has bound.
    pub fn judge(&self, message: &Message, from: IpAddr) -> Result<Outcome> {
        if let Some(reason) = message.field("x-xlb-reason") {
            return self.judge_reply(message, reason);
        }
        let field = |name| message.field(name).unwrap_or("");
        let owner = self.owner.to_string();
        ensure!(
            field("x-owner") == owner && message.status() == self.answer.status(),
            "{owner} got {:?} of {:?}",
            message.start,
            field("x-owner")
        );
        let backend: u32 = field("x-backend").parse().context("x-backend")?;
        ensure!(
            SERVICES[self.service].lanes[self.lane].contains(&backend),
            "{} of {} was answered by backend {backend}",
            LANES[self.lane],
            SERVICES[self.service].name
        );
        ensure!(
            field("x-peer") == from.to_string(),
            "a client of {from} came from {}",
            field("x-peer")
        );
        ensure!(
            (self.answer == Answer::Early) == (message.interim.len() == 1) || self.has_expect(),
            "interim responses: {:?}",
            message.interim
        );
        if self.method == "HEAD" || self.answer.status() != 200 {
            ensure!(message.body.is_empty(), "a body after {:?}", message.start);
            return Ok(Outcome::Answered);
        }
        let body = self.owner.response_body(self.length);
        if self.answer.is_ended_by_close() && message.body.len() < body.len() {
            check_bytes(&message.body, &body[..message.body.len()])?;
            return Ok(Outcome::Cut);
        }
        ensure!(
            field("x-length") == self.length.to_string()
                && field("x-sum") == crc(&message.body).to_string(),
            "{} bytes where {} were asked for, {} promised; sum {} is {}",
            message.body.len(),
            self.length,
            field("x-length"),
            field("x-sum"),
            crc(&message.body)
        );
        check_bytes(&message.body, &body)?;
        // Cut answers are not to look whole.
        if matches!(
            self.answer,
            Answer::CutNone
                | Answer::CutHead
                | Answer::CutBody
                | Answer::CutChunk
                | Answer::Garbage
        ) {
            bail!("{:?} came whole", self.answer);
        }
        Ok(Outcome::Answered)
    }

    fn has_expect(&self) -> bool {
        self.fields.contains("Expect")
    }

    fn judge_reply(&self, message: &Message, reason: &str) -> Result<Outcome> {
        let known = REPLIES.contains(&(reason, message.status()));
        let may = reason != "upstream_protocol" || self.answer == Answer::Garbage;
        ensure!(
            known && may,
            "a reply that nothing allows: {:?} {:?}",
            message.start,
            message.fields
        );
        let text = format!("xlb: {reason}");
        ensure!(
            self.method == "HEAD" || message.text().starts_with(&text),
            "a reply for {reason} that says {:?}",
            message.text()
        );
        Ok(Outcome::Reply(reason.to_owned()))
    }
}

/// The first byte that differs, and where.
pub fn check_bytes(got: &[u8], wanted: &[u8]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(a, b)| a != b);
    let at = at.unwrap_or(got.len().min(wanted.len()));
    let end = |bytes: &[u8]| bytes.len().min(at + 16);
    bail!(
        "wrong bytes from {at} on: {:?} instead of {:?} ({} of {} bytes)",
        &got[at..end(got)],
        &wanted[at..end(wanted)],
        got.len(),
        wanted.len()
    )
}

/// A chunked body, in chunks of any size.
pub fn chunks(body: &[u8], trailers: &str, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    while !rest.is_empty() {
        let limit = rng.of_these(&[1, 16, 1000, 16 << 10, 256 << 10]);
        // So few that their lines do not outweigh the body.
        let size = (1 + rng.below(limit)).max(body.len() / 64).min(rest.len());
        let (chunk, more) = rest.split_at(size);
        bytes.extend(format!("{size:x}\r\n").bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
        rest = more;
    }
    bytes.extend(format!("0\r\n{trailers}\r\n").bytes());
    bytes
}
