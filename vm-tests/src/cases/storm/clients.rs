// SPDX-License-Identifier: GPL-2.0
//! A client of a storm: one operation after another, mostly on a connection that it keeps.
//!
//! What it does is drawn for each step; on which connection, and what comes of it, is a matter of the weather.
//! `operations.rs` has the operations.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Result};
use nix::libc;
use nix::sys::socket::{SockFlag, SockaddrIn};

use super::ask::{Ask, Owner, SERVICES};
use super::chance::Rng;
use super::operations::OPERATIONS;
use super::pipe::Pipe;
use super::world::{judge_error, Outcome, World};
use crate::http::{Conn, Message};
use crate::sock::{mapped, Sock};

/// Where the host is seen from when a client has bound nothing.
pub const UNBOUND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A connection of a client.
pub struct Link {
    pub conn: Conn<Pipe>,
    /// Index into [`SERVICES`].
    pub service: usize,
    pub from: IpAddr,
}

pub struct Client {
    pub world: Arc<World>,
    pub actor: u32,
    pub step: u64,
    /// The calm in which the connection was opened.
    calm: Option<u64>,
    /// Not held to be answered even in calm.
    pub excused: bool,
    pub link: Option<Link>,
    /// What was asked last, for a message.
    pub asked: Option<Ask>,
}

/// Starts one that goes on until the end.
pub fn start(world: &Arc<World>, actor: u32) -> Result<JoinHandle<()>> {
    let mut client = Client::new(world, actor);
    let run = move || {
        // What xlbctl has to do is to be done beside all this.
        // SAFETY: changes the priority of this thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 3) };
        while !client.world.is_over() {
            client.take_step();
        }
    };
    let name = format!("client-{actor}");
    Ok(thread::Builder::new().name(name).spawn(run)?)
}

impl Client {
    pub fn new(world: &Arc<World>, actor: u32) -> Self {
        Self {
            world: Arc::clone(world),
            actor,
            step: 0,
            calm: None,
            excused: false,
            link: None,
            asked: None,
        }
    }

    pub fn take_step(&mut self) {
        let mut rng = self.chance(0);
        let operation = rng.weighted(&OPERATIONS);
        let reloads = self.world.reloads.load(Ordering::SeqCst);
        self.excused = false;
        self.asked = None;
        let begin = Instant::now();
        let result = self.perform(operation, &mut rng);
        let result = result.or_else(judge_error).and_then(|outcome| {
            let took = begin.elapsed();
            ensure!(took < self.world.bound, "{outcome} after {took:?}");
            self.check_weather(&outcome)?;
            Ok(outcome)
        });
        let calm = self.world.calm().is_some() && self.calm == self.world.calm();
        match result {
            Ok(outcome) => {
                let reload =
                    reloads % 2 == 1 || reloads != self.world.reloads.load(Ordering::SeqCst);
                let beside = match (calm, reload) {
                    (true, _) => "calm",
                    (_, true) => "reload",
                    _ => "storm",
                };
                self.world
                    .count(&format!("{beside} {operation:?}"), &outcome);
                if !matches!(outcome, Outcome::Answered | Outcome::Done) {
                    self.link = None;
                }
                if matches!(outcome, Outcome::Errno(_)) {
                    sleep(self.world.slowly(Duration::from_millis(20)));
                }
            }
            Err(error) => {
                let calm = if calm { "in calm " } else { "" };
                let what = format!("{calm}{operation:?} of {:?}", self.asked);
                self.world.fail(self.actor, self.step, &what, &error);
            }
        }
        let mut rng = self.chance(1);
        if rng.one_in(2) {
            sleep(Duration::from_millis(rng.below(40) as u64));
        }
        self.step += 1;
    }

    /// In calm there is no excuse.
    fn check_weather(&self, outcome: &Outcome) -> Result<()> {
        let calm = self.world.calm();
        if calm.is_none() || self.calm != calm || self.excused {
            return Ok(());
        }
        let fine = match (outcome, &self.asked) {
            (Outcome::Done | Outcome::Answered, _) => true,
            (other, Some(ask)) => ask.answer.in_calm(other),
            (_, None) => false,
        };
        ensure!(fine, "{outcome} though nothing disturbed it");
        Ok(())
    }

    /// A generator for a part of this step.
    pub fn chance(&self, part: u64) -> Rng {
        Rng::of(self.world.seed, self.actor, (self.step << 8) | part)
    }

    /// The owner of the `n`-th request of this step.
    pub fn owner(&self, n: u32) -> Owner {
        Owner {
            actor: self.actor,
            number: ((self.step as u32) << 4) | n,
        }
    }

    /// The connection, a new one where there is none and now and then; with the ways of this step.
    pub fn link(&mut self) -> Result<&mut Link> {
        let mut rng = self.chance(2);
        if rng.one_in(8) {
            self.link = None;
        }
        if self.link.is_none() {
            self.open(&mut rng, None)?;
        }
        let ways = self.chance(3);
        let link = self.link.as_mut();
        let link = link.ok_or_else(|| anyhow!("no connection"))?;
        link.conn.stream.set_ways(ways);
        Ok(link)
    }

    /// Another connection, from an address that is bound before where one is given.
    pub fn open(&mut self, rng: &mut Rng, bind: Option<(Ipv4Addr, u16)>) -> Result<()> {
        self.link = None;
        let service = rng.weighted(&[(4, 0), (4, 1), (1, 2)]);
        let host = SERVICES[service].host;
        let four: SocketAddr = (Ipv4Addr::new(10, 96, 0, host), 80).into();
        let kinds = if bind.is_some() { 1 } else { 4 };
        let vip = match rng.below(kinds) {
            0 | 1 => four,
            2 => format!("[fd00:96::{host}]:80").parse()?,
            _ => mapped(four),
        };
        // Before the connect: it may have been calm only since.
        self.calm = self.world.calm();
        let sock = Sock::new(vip, SockFlag::empty())?;
        if let Some((address, port)) = bind {
            let [a, b, c, d] = address.octets();
            nix::sys::socket::bind(sock.raw(), &SockaddrIn::new(a, b, c, d, port))?;
        }
        sock.timeouts(self.world.bound)?;
        sock.connect(vip)?;
        let pipe = Pipe::new(sock, self.world.bound, self.chance(3));
        self.link = Some(Link {
            conn: Conn::over(pipe),
            service,
            from: bind.map_or(UNBOUND, |(address, _)| address.into()),
        });
        Ok(())
    }

    /// Sends a request and judges what comes.
    pub fn ask(&mut self, ask: Ask, rng: &mut Rng) -> Result<Outcome> {
        self.asked = Some(ask.clone());
        let link = self.link.as_mut().ok_or_else(|| anyhow!("no connection"))?;
        link.conn.send(ask.bytes(rng))?;
        let message = link.conn.response(ask.method)?;
        self.judge(&ask, &message)
    }

    /// Judges a response; keeps the connection where it may be kept.
    pub fn judge(&mut self, ask: &Ask, message: &Message) -> Result<Outcome> {
        let from = self.link.as_ref().map_or(UNBOUND, |link| link.from);
        let outcome = ask.judge(message, from)?;
        let last = message
            .field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if last || ask.version == "1.0" {
            self.link = None;
        }
        Ok(outcome)
    }
}
