// SPDX-License-Identifier: GPL-2.0
//! What all actors of a storm share: when it ends, how the weather is, what was seen, and what went wrong.
//!
//! The weather: now and then all that disturbs (backends that die, configurations, the module that goes) pauses. Who
//! disturbs puts its part in order first and then waits in [`World::shelter`]. When all wait it is calm, and an operation
//! that began and ended in one calm has no excuse: it must be answered.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use nix::errno::Errno;

use super::ask::Owner;
use crate::http::{is_timeout, Message};

/// How an operation ended, where nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By the backend, and it was the client's own answer.
    Answered,
    /// The client ended it itself, as it meant to.
    Done,
    /// XLB's own reply.
    Reply(String),
    /// The connection ended before the response did.
    Cut,
    Errno(Errno),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => write!(f, "answered"),
            Self::Done => write!(f, "done"),
            Self::Reply(reason) => write!(f, "{reason}"),
            Self::Cut => write!(f, "cut"),
            Self::Errno(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// Errors that a client may see, and why.
const ERRNOS: [(Errno, &str); 7] = [
    (
        Errno::ECONNREFUSED,
        "a connect to a service without endpoints; directly, to a dead backend",
    ),
    (
        Errno::ENETUNREACH,
        "a connect to a service that is gone, or without the module: nothing routes to a VIP",
    ),
    (
        Errno::ECONNRESET,
        "the backend died in its response, or the module goes",
    ),
    (
        Errno::EPIPE,
        "a write after that, or after XLB has ended the connection",
    ),
    (
        Errno::EADDRINUSE,
        "bind() to a port that another client has",
    ),
    (
        Errno::EADDRNOTAVAIL,
        "a connect from such a port to the same address",
    ),
    (
        Errno::ENOTCONN,
        "shutdown() or an option after XLB has let go of the socket",
    ),
];

/// The outcome that an error means; or the error, when nothing allows it.
pub fn judge_error(error: anyhow::Error) -> Result<Outcome> {
    let io_error = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
    let errno = match io_error {
        Some(e) if is_timeout(e) => return Err(error.context("it hangs")),
        Some(e) => e.raw_os_error().map(Errno::from_raw),
        None => error
            .chain()
            .find_map(|e| e.downcast_ref::<Errno>())
            .copied(),
    };
    if let Some(errno) = errno {
        if ERRNOS.iter().any(|(allowed, _)| *allowed == errno) {
            return Ok(Outcome::Errno(errno));
        }
    } else if error
        .root_cause()
        .to_string()
        .starts_with("connection closed")
    {
        return Ok(Outcome::Cut);
    }
    Err(error)
}

/// How many operations of a kind ended how.
pub type Tally = BTreeMap<String, BTreeMap<String, u64>>;

/// See the top of the file.
pub struct World {
    pub seed: u64,
    /// How long one operation may take.
    pub bound: Duration,
    scale: u32,
    end: Instant,
    over: AtomicBool,
    lull: AtomicBool,
    /// Those that disturb, and those of them that wait for the end of a lull.
    disturbers: AtomicUsize,
    sheltered: AtomicUsize,
    /// Odd while it is calm.
    calms: AtomicU64,
    /// Odd while the module goes and comes.
    pub reloads: AtomicU64,
    tally: Mutex<Tally>,
    arrived: Mutex<HashMap<Owner, u32>>,
    failures: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(seed: u64, seconds: u64, bound: Duration, scale: u32) -> Self {
        Self {
            seed,
            bound,
            scale,
            end: Instant::now() + Duration::from_secs(seconds),
            over: AtomicBool::new(false),
            lull: AtomicBool::new(false),
            disturbers: AtomicUsize::new(0),
            sheltered: AtomicUsize::new(0),
            calms: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            tally: Mutex::default(),
            arrived: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// A pause on a machine of this scale: a slow one needs its CPUs for what is in between.
    pub fn slowly(&self, pause: Duration) -> Duration {
        pause * self.scale
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || Instant::now() > self.end
    }

    /// Sleeps, or until the end.
    pub fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_over() && Instant::now() < until {
            sleep(Duration::from_millis(20).min(length));
        }
    }

    /// Notes what nothing allows, and ends the storm.
    pub fn fail(&self, actor: u32, step: u64, what: &str, error: &anyhow::Error) {
        let text = format!(
            "XLB_SEED={}: actor {actor}, step {step}, {what}: {error:#}",
            self.seed
        );
        println!("WRONG {text}");
        lock(&self.failures).push(text);
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    pub fn count(&self, kind: &str, outcome: impl fmt::Display) {
        self.add(kind, &outcome.to_string(), 1);
    }

    pub fn add(&self, kind: &str, outcome: &str, times: u64) {
        let mut tally = lock(&self.tally);
        *tally
            .entry(kind.to_owned())
            .or_default()
            .entry(outcome.to_owned())
            .or_default() += times;
    }

    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// A request has arrived whole. What is not idempotent is never sent twice, and no other more often than twice.
    pub fn arrived(&self, owner: Owner, message: &Message) -> Result<()> {
        let mut arrived = lock(&self.arrived);
        let times = arrived.entry(owner).or_default();
        *times += 1;
        let most = if message.method() == "POST" { 1 } else { 2 };
        ensure!(*times <= most, "{} arrived {times} times", message.start);
        Ok(())
    }

    /// Counts the caller among those who disturb, before any of them begins.
    pub fn will_disturb(&self) {
        self.disturbers.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether those who disturb are to pause.
    pub fn wants_calm(&self) -> bool {
        self.lull.load(Ordering::SeqCst) || self.is_over()
    }

    /// Waits for the end of a lull.
    pub fn shelter(&self) {
        self.sheltered.fetch_add(1, Ordering::SeqCst);
        while self.lull.load(Ordering::SeqCst) && !self.is_over() {
            sleep(Duration::from_millis(10));
        }
        self.sheltered.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of this calm, when it is calm.
    pub fn calm(&self) -> Option<u64> {
        let calms = self.calms.load(Ordering::SeqCst);
        (calms % 2 == 1).then_some(calms)
    }

    /// Makes the weather until the end; how many calms there were.
    pub fn make_weather(&self, storm: Duration, calm: Duration) -> u64 {
        while !self.is_over() {
            self.pause(storm);
            self.lull.store(true, Ordering::SeqCst);
            while self.sheltered.load(Ordering::SeqCst) < self.disturbers.load(Ordering::SeqCst)
                && !self.is_over()
            {
                sleep(Duration::from_millis(10));
            }
            // What was under way comes to its end: a reset, say, that softirq has still to see.
            self.pause(Duration::from_millis(300));
            if !self.is_over() {
                self.calms.fetch_add(1, Ordering::SeqCst);
                self.pause(calm);
                self.calms.fetch_add(1, Ordering::SeqCst);
                self.lull.store(false, Ordering::SeqCst);
                // So that nobody takes the next lull for this one.
                while self.sheltered.load(Ordering::SeqCst) > 0 && !self.is_over() {
                    sleep(Duration::from_millis(10));
                }
            }
        }
        self.calms.load(Ordering::SeqCst) / 2
    }
}
