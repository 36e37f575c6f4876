// SPDX-License-Identifier: GPL-2.0
//! A client's socket, written to and read from in the ways in which programs do it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::MsgFlags;
use nix::unistd::{fork, pipe2, ForkResult, Pid};

use super::chance::Rng;
use crate::sock::Sock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Plain,
    /// Few bytes at a time, at times after a pause.
    Few,
    /// Looked at before they are taken.
    Peek,
    /// Not blocking, and waited for with poll(2).
    Poll,
    /// Not blocking, and waited for with edge-triggered epoll.
    Edge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    Plain,
    /// Byte by byte, as far as that does not take all day.
    Bytes,
    /// In pieces of any size, with pauses.
    Pieces,
    /// Not blocking, and waited for with poll(2).
    Poll,
    /// Said to go on.
    More,
}

pub const READINGS: [(usize, Reading); 5] = [
    (6, Reading::Plain),
    (2, Reading::Few),
    (2, Reading::Peek),
    (2, Reading::Poll),
    (3, Reading::Edge),
];

pub const WRITINGS: [(usize, Writing); 5] = [
    (8, Writing::Plain),
    (1, Writing::Bytes),
    (2, Writing::Pieces),
    (2, Writing::Poll),
    (1, Writing::More),
];

/// Bytes that are written one by one at the most.
const ONE_BY_ONE: usize = 400;

pub struct Pipe {
    pub sock: Sock,
    pub reading: Reading,
    pub writing: Writing,
    /// How to cut and when to pause.
    pub rng: Rng,
    limit: Duration,
    epoll: Option<Epoll>,
    /// Reads in its place.
    reader: Option<Reader>,
}

/// Another process that reads the socket, and hands over what it reads.
struct Reader {
    pid: Pid,
    bytes: std::fs::File,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

impl Pipe {
    pub fn new(sock: Sock, limit: Duration, rng: Rng) -> Self {
        Self {
            sock,
            reading: Reading::Plain,
            writing: Writing::Plain,
            rng,
            limit,
            epoll: None,
            reader: None,
        }
    }

    /// How the next operation is to read and write.
    pub fn set_ways(&mut self, mut rng: Rng) {
        self.reading = rng.weighted(&READINGS);
        self.writing = rng.weighted(&WRITINGS);
        self.rng = rng;
    }

    /// Goes on with another descriptor; the one until now is closed.
    pub fn replace(&mut self, sock: Sock) {
        self.epoll = None;
        self.sock = sock;
    }

    /// From now on another process reads, and this one has no descriptor of the socket but for writing.
    pub fn hand_over(&mut self) -> nix::Result<()> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let mut room = [0u8; 4096];
        // SAFETY: the child makes only system calls, on descriptors of its own.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // SAFETY: the descriptors are open, `room` is this long, and nothing of the parent's runs here.
                unsafe {
                    // What others close is to be closed.
                    let high = |fd| libc::fcntl(fd, libc::F_DUPFD, 1000);
                    let (sock, out) = (high(self.sock.raw()), high(to.as_raw_fd()));
                    let (sock, out) = (libc::dup2(sock, 3), libc::dup2(out, 4));
                    libc::syscall(libc::SYS_close_range, 5, u32::MAX, 0);
                    loop {
                        let got = libc::recv(sock, room.as_mut_ptr().cast(), room.len(), 0);
                        if got <= 0 || libc::write(out, room.as_ptr().cast(), got as usize) != got {
                            libc::_exit(0);
                        }
                    }
                }
            }
            ForkResult::Parent { child } => {
                self.reader = Some(Reader {
                    pid: child,
                    bytes: std::fs::File::from(from),
                });
            }
        }
        Ok(())
    }

    fn recv(&self, to: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        Ok(nix::sys::socket::recv(self.sock.raw(), to, flags)?)
    }

    fn wait(&self, wanted: PollFlags, since: Instant) -> io::Result<()> {
        let left = self.limit.saturating_sub(since.elapsed());
        let events = self.sock.poll(wanted, left).map_err(io::Error::other)?;
        if events.is_empty() {
            return Err(Errno::EAGAIN.into());
        }
        Ok(())
    }

    fn read_by_poll(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            match self.recv(to, MsgFlags::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, since)?;
                }
                other => return other,
            }
        }
    }

    /// Registered once, so that edges are lost if any are.
    fn read_by_edge(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let since = Instant::now();
        if self.epoll.is_none() {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            epoll.add(self.sock.fd(), EpollEvent::new(wanted, 0))?;
            self.epoll = Some(epoll);
        }
        loop {
            match self.recv(to, MsgFlags::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let left = self.limit.saturating_sub(since.elapsed());
            let timeout = EpollTimeout::try_from(left).map_err(io::Error::other)?;
            let mut events = [EpollEvent::empty()];
            let count = match &self.epoll {
                Some(epoll) => epoll.wait(&mut events, timeout)?,
                None => 0,
            };
            if count == 0 {
                return Err(Errno::EAGAIN.into());
            }
        }
    }

    fn read_after_peek(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let some = 1 + self.rng.below(to.len());
        let mut looked = vec![0; some];
        let seen = self.recv(&mut looked, MsgFlags::MSG_PEEK)?;
        if seen == 0 {
            return self.recv(to, MsgFlags::empty());
        }
        let got = self.recv(&mut to[..some], MsgFlags::empty())?;
        let same = seen.min(got);
        if got == 0 || looked[..same] != to[..same] {
            return Err(io::Error::other(format!(
                "{seen} bytes were seen by MSG_PEEK, and then {got} others were read"
            )));
        }
        Ok(got)
    }

    fn some(&mut self, most: usize) -> usize {
        let limit = self.rng.of_these(&[1, 7, 100, 5000]);
        (1 + self.rng.below(limit)).min(most)
    }

    fn pause(&mut self) {
        if self.rng.one_in(16) {
            sleep(Duration::from_millis(self.rng.below(30) as u64));
        }
    }

    fn write_by_poll(&mut self, from: &[u8]) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            match self.sock.send_with(from, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, since)?,
                other => return Ok(other?),
            }
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if let Some(reader) = &mut self.reader {
            let mut fds = [nix::poll::PollFd::new(
                reader.bytes.as_fd(),
                PollFlags::POLLIN,
            )];
            let limit = nix::poll::PollTimeout::try_from(self.limit).map_err(io::Error::other)?;
            if nix::poll::poll(&mut fds, limit)? == 0 {
                return Err(Errno::EAGAIN.into());
            }
            return reader.bytes.read(to);
        }
        if to.is_empty() {
            return Ok(0);
        }
        match self.reading {
            Reading::Plain => self.recv(to, MsgFlags::empty()),
            Reading::Few => {
                self.pause();
                let some = self.some(to.len());
                self.recv(&mut to[..some], MsgFlags::empty())
            }
            Reading::Peek => self.read_after_peek(to),
            Reading::Poll => self.read_by_poll(to),
            Reading::Edge => self.read_by_edge(to),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self.writing {
            Writing::Bytes if from.len() <= ONE_BY_ONE => {
                self.pause();
                Ok(self.sock.send(&from[..from.len().min(1)])?)
            }
            Writing::Bytes | Writing::Plain => Ok(self.sock.send(from)?),
            Writing::Pieces => {
                self.pause();
                let some = self.some(from.len()).max(from.len() / 32);
                Ok(self.sock.send(&from[..some])?)
            }
            Writing::Poll => self.write_by_poll(from),
            Writing::More => {
                let some = self.some(from.len()).max(from.len() / 8);
                let flags = if some < from.len() {
                    MsgFlags::from_bits_retain(libc::MSG_MORE)
                } else {
                    MsgFlags::empty()
                };
                Ok(self.sock.send_with(&from[..some], flags)?)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
