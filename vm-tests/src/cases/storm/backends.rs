// SPDX-License-Identifier: GPL-2.0
//! The backends of a storm: they answer as each request asks for, check what has arrived, die and return.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::libc;

use super::ask::{chunks, Answer, Ask, Owner};
use super::chance::Rng;
use super::world::{judge_error, World};
use crate::http::{crc, Conn};

/// Actors from here on are backends.
pub const FIRST: u32 = 100;

const PORT: u16 = 8001;

/// Connections may be idle for as long as a storm lasts.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Answers that are no HTTP, or not whole.
const GARBAGE: [&[u8]; 5] = [
    b"HELLO\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    b"HTTP/1.1 200 OK\r\nbad name: 1\r\nContent-Length: 2\r\n\r\nok",
    b"\0\0\0\0\0\0\0\0\r\n\r\n",
];

/// How a backend goes.
#[derive(Clone, Copy)]
enum Death {
    /// It listens no more, and its connections are reset.
    Reset,
    /// It listens no more, and its connections end in order.
    Close,
    /// It listens no more; its connections live.
    Deaf,
    /// It listens, and accepts nothing.
    Busy,
    /// Its connections are reset, and it goes on.
    Restart,
}

pub struct Backend {
    number: u32,
    world: Arc<World>,
    live: Mutex<HashMap<u64, TcpStream>>,
    /// It is to end.
    gone: Arc<AtomicBool>,
}

/// Where a backend listens.
pub fn address(number: u32) -> String {
    format!("127.0.1.{number}:{PORT}")
}

impl Backend {
    /// Starts one that lives until the process ends, and dies now and then.
    pub fn start(world: &Arc<World>, number: u32) -> Result<()> {
        Self::start_one(world, number, true, &Arc::default())
    }

    /// Starts one that lives until `gone`.
    pub fn start_until(world: &Arc<World>, number: u32, gone: &Arc<AtomicBool>) -> Result<()> {
        Self::start_one(world, number, false, gone)
    }

    fn start_one(
        world: &Arc<World>,
        number: u32,
        mortal: bool,
        gone: &Arc<AtomicBool>,
    ) -> Result<()> {
        let this = Arc::new(Self {
            number,
            world: Arc::clone(world),
            live: Mutex::default(),
            gone: Arc::clone(gone),
        });
        let listener = listen(number)?;
        if mortal {
            world.will_disturb();
        }
        thread::Builder::new()
            .name(format!("backend-{number}"))
            .spawn(move || this.run(listener, mortal))?;
        Ok(())
    }

    fn run(self: Arc<Self>, first: TcpListener, mortal: bool) {
        let mut listener = Some(first);
        let mut connections = 0;
        for step in 0.. {
            let mut rng = Rng::of(self.world.seed, FIRST + self.number, step);
            let until = Instant::now() + Duration::from_millis(rng.from(300, 6000) as u64);
            // It serves on after the end: others have still to come to theirs.
            while !mortal || self.world.is_over() || Instant::now() < until {
                let alive = listener.as_ref().context("dead");
                match alive.and_then(|l| self.accept(l, &mut connections)) {
                    Ok(()) => {}
                    Err(error) => {
                        let actor = FIRST + self.number;
                        return self.world.fail(actor, step, "accept", &error);
                    }
                }
                if self.gone.load(Ordering::SeqCst) {
                    drop(listener);
                    let _ = self.end_all(Death::Reset);
                    return;
                }
                if mortal && self.world.wants_calm() && !self.world.is_over() {
                    self.accept_until_calm_ends(listener.as_ref(), &mut connections);
                }
            }
            let death = rng.weighted(&[
                (3, Death::Reset),
                (3, Death::Close),
                (2, Death::Deaf),
                (2, Death::Busy),
                (1, Death::Restart),
            ]);
            let dead = Duration::from_millis(rng.from(10, 1500) as u64);
            if let Err(error) = self.die(death, dead, &mut listener) {
                self.world
                    .fail(FIRST + self.number, step, "a death", &error);
                return;
            }
        }
    }

    /// What waits, and then a little while of nothing.
    fn accept(self: &Arc<Self>, listener: &TcpListener, connections: &mut u64) -> Result<()> {
        use nix::poll::{poll, PollFd, PollFlags};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 20u16)?;
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            *connections += 1;
            stream.set_nonblocking(false)?;
            let (this, id) = (Arc::clone(self), *connections);
            // Connections of a moment ago may be of clients that have gone since.
            let Ok(copy) = stream.try_clone() else {
                continue;
            };
            self.connections().insert(id, copy);
            thread::Builder::new()
                .name(format!("backend-{}.{id}", self.number))
                .stack_size(512 << 10)
                .spawn(move || this.serve(stream, id))?;
        }
    }

    fn accept_until_calm_ends(
        self: &Arc<Self>,
        listener: Option<&TcpListener>,
        connections: &mut u64,
    ) {
        thread::scope(|scope| {
            let waits = scope.spawn(|| self.world.shelter());
            while !waits.is_finished() {
                if let Some(listener) = listener {
                    let _ = self.accept(listener, connections);
                }
            }
        });
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn die(&self, death: Death, dead: Duration, listener: &mut Option<TcpListener>) -> Result<()> {
        match death {
            Death::Busy => {
                self.world.count("a backend", "was busy");
                self.be_gone(dead);
                return Ok(());
            }
            Death::Restart => {
                self.world.count("a backend", "reset all");
                return self.end_all(Death::Reset);
            }
            Death::Reset | Death::Close | Death::Deaf => {}
        }
        if let Some(listener) = listener.take() {
            // Whoever else has the descriptor: a process that was just forked keeps what was not accepted alive.
            let _ =
                nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
        if !matches!(death, Death::Deaf) {
            self.end_all(death)?;
        }
        self.world.count("a backend", "died");
        self.be_gone(dead);
        // A process that was just forked may have the old listener for a moment.
        let since = Instant::now();
        *listener = loop {
            match listen(self.number) {
                Ok(listener) => break Some(listener),
                Err(error) if since.elapsed() > self.world.bound => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        };
        Ok(())
    }

    fn be_gone(&self, dead: Duration) {
        let since = Instant::now();
        while since.elapsed() < dead && !self.world.wants_calm() {
            sleep(Duration::from_millis(5));
        }
    }

    fn end_all(&self, death: Death) -> Result<()> {
        let all: Vec<_> = self.connections().drain().collect();
        for (_, stream) in all {
            if matches!(death, Death::Close) {
                let _ = stream.shutdown(Shutdown::Both);
            } else {
                reset(&stream)?;
            }
        }
        Ok(())
    }

    fn serve(&self, stream: TcpStream, id: u64) {
        let peer = stream.peer_addr();
        let result = peer
            .map_err(anyhow::Error::from)
            .and_then(|peer| self.answer_all(Conn::of(stream, PATIENCE)?, peer));
        self.connections().remove(&id);
        // A connection may end anywhere; but what is on it is right.
        if let Err(error) = result.or_else(|error| judge_error(error).map(drop)) {
            self.world
                .fail(FIRST + self.number, 0, "a request arrived", &error);
        }
    }

    fn answer_all(&self, mut conn: Conn, peer: SocketAddr) -> Result<()> {
        while let Some(mut request) = conn.head()? {
            let head = || format!("{:?} {:?}", request.start, request.fields);
            let (owner, answer, length) = Ask::arrived(&request).with_context(head)?;
            let mut turn = Turn {
                backend: self,
                rng: Rng::of(
                    self.world.seed,
                    owner.actor,
                    (1 << 40) | u64::from(owner.number),
                ),
                owner,
                answer,
                length,
                peer,
                head_only: request.method() == "HEAD",
                is_1_0: request.start.ends_with("HTTP/1.0"),
            };
            if request.field("expect").is_some() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if answer == Answer::Before {
                turn.answer(&mut conn)?;
            }
            conn.request_body(&mut request)?;
            Ask::body_arrived(owner, &request).with_context(|| format!("of {owner}"))?;
            self.world.arrived(owner, &request)?;
            if answer != Answer::Before && !turn.answer(&mut conn)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn listen(number: u32) -> Result<TcpListener> {
    let address = address(number);
    let listener = TcpListener::bind(&address).with_context(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// RST, whoever else has the descriptor: `connect()` to no address.
fn reset(stream: &TcpStream) -> Result<()> {
    let unspec = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    let length = size_of::<libc::sockaddr>() as u32;
    // SAFETY: connect() reads only the sockaddr of the given length.
    let result = unsafe { libc::connect(stream.as_raw_fd(), &raw const unspec, length) };
    ensure!(result == 0, "reset: {}", std::io::Error::last_os_error());
    Ok(())
}

/// One answer.
struct Turn<'a> {
    backend: &'a Backend,
    rng: Rng,
    owner: Owner,
    answer: Answer,
    length: usize,
    peer: SocketAddr,
    head_only: bool,
    is_1_0: bool,
}

impl Turn<'_> {
    fn head(&self, status: &str, framing: &str, sum: u32) -> String {
        format!(
            "HTTP/1.1 {status}\r\nX-Owner: {}\r\nX-Backend: {}\r\nX-Peer: {}\r\nX-Length: {}\r\nX-Sum: {sum}\r\n{framing}\r\n",
            self.owner,
            self.backend.number,
            self.peer.ip(),
            self.length
        )
    }

    /// Answers; false when the connection is over.
    fn answer(&mut self, conn: &mut Conn) -> Result<bool> {
        let body = self.owner.response_body(self.length);
        let sum = crc(&body);
        let length = format!("Content-Length: {}\r\n", self.length);
        let whole = |head: String| {
            let mut bytes = head.into_bytes();
            if !self.head_only {
                bytes.extend(&body);
            }
            bytes
        };
        let plain = || whole(self.head("200 OK", &length, sum));
        let chunked = "Transfer-Encoding: chunked\r\n";
        match self.answer {
            Answer::Plain | Answer::Before => conn.send(plain())?,
            Answer::Chunked => {
                let trailers = if self.length % 2 == 0 {
                    ""
                } else {
                    "X-T: 1\r\n"
                };
                let mut bytes = self.head("200 OK", chunked, sum).into_bytes();
                if !self.head_only {
                    bytes.extend(chunks(&body, trailers, &mut self.rng));
                }
                conn.send(bytes)?;
            }
            Answer::Close => {
                let framing = format!("Connection: close\r\n{length}");
                conn.send(whole(self.head("200 OK", &framing, sum)))?;
                return Ok(false);
            }
            Answer::ToClose => {
                conn.send(whole(self.head("200 OK", "Connection: close\r\n", sum)))?;
                return Ok(false);
            }
            Answer::Early => {
                conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
                conn.send(plain())?;
            }
            Answer::Slow => {
                let bytes = plain();
                let (first, second) = bytes.split_at(self.rng.below(bytes.len() + 1));
                sleep(Duration::from_millis(self.rng.below(300) as u64));
                conn.send(first)?;
                sleep(Duration::from_millis(self.rng.below(200) as u64));
                conn.send(second)?;
            }
            Answer::Trickle => {
                let bytes = plain();
                let size = (1 + self.rng.below(40)).max(bytes.len() / 50);
                for piece in bytes.chunks(size) {
                    conn.send(piece)?;
                    sleep(Duration::from_millis(self.rng.below(4) as u64));
                }
            }
            Answer::NoContent => conn.send(self.head("204 No Content", "", sum))?,
            Answer::NotModified => conn.send(self.head("304 Not Modified", &length, sum))?,
            Answer::Tunnel => {
                let switch = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
                conn.send(self.head("101 Switching Protocols", switch, sum))?;
                loop {
                    let bytes = conn.some()?;
                    if bytes.is_empty() {
                        return Ok(false);
                    }
                    conn.send(bytes)?;
                }
            }
            Answer::CutNone => return self.cut(conn, b""),
            Answer::CutHead => {
                let head = self.head("200 OK", &length, sum).into_bytes();
                let end = 1 + self.rng.below(head.len() - 4);
                return self.cut(conn, &head[..end]);
            }
            Answer::CutBody => {
                let framing = format!("Content-Length: {}\r\n", self.length + 1);
                let mut bytes = self.head("200 OK", &framing, sum).into_bytes();
                bytes.extend(&body[..self.rng.below(self.length + 1)]);
                return self.cut(conn, &bytes);
            }
            Answer::CutChunk => {
                let mut bytes = self.head("200 OK", chunked, sum).into_bytes();
                let body = chunks(&body, "", &mut self.rng);
                bytes.extend(&body[..self.rng.below(body.len())]);
                return self.cut(conn, &bytes);
            }
            Answer::Garbage => {
                conn.send(self.rng.of_these(&GARBAGE))?;
                return Ok(false);
            }
        }
        Ok(!self.is_1_0 || self.answer == Answer::Before)
    }

    fn cut(&mut self, conn: &mut Conn, bytes: &[u8]) -> Result<bool> {
        conn.send(bytes)?;
        if self.rng.one_in(2) {
            reset(&conn.stream)?;
        }
        Ok(false)
    }
}
