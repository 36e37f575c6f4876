// SPDX-License-Identifier: GPL-2.0
//! Sockets as a C program uses them, where `std::net` does too much.

use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    connect, getpeername, getsockname, recv, send, setsockopt, socket, sockopt, AddressFamily,
    MsgFlags, SockFlag, SockType, SockaddrIn6, SockaddrStorage,
};
use nix::sys::time::TimeVal;

/// A TCP socket.
pub struct Sock(OwnedFd);

impl Sock {
    /// A socket of the family of this address.
    pub fn new(address: SocketAddr, flags: SockFlag) -> Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        Ok(Self(socket(
            family,
            SockType::Stream,
            flags | SockFlag::SOCK_CLOEXEC,
            None,
        )?))
    }

    /// A blocking socket, connected.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let sock = Self::new(address, SockFlag::empty())?;
        sock.connect(address)?;
        sock.timeouts(Duration::from_secs(20))?;
        Ok(sock)
    }

    pub fn connect(&self, address: SocketAddr) -> Result<(), Errno> {
        connect(self.0.as_raw_fd(), &SockaddrStorage::from(address))
    }

    /// `connect()` to no address.
    pub fn disconnect(&self) -> Result<(), Errno> {
        let unspec = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as u16,
            sa_data: [0; 14],
        };
        // SAFETY: connect() reads only the sockaddr of the given length.
        let result =
            unsafe { libc::connect(self.raw(), &unspec, size_of::<libc::sockaddr>() as u32) };
        Errno::result(result).map(drop)
    }

    pub fn timeouts(&self, limit: Duration) -> Result<()> {
        let limit = TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()));
        setsockopt(&self.0, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&self.0, sockopt::SendTimeout, &limit)?;
        Ok(())
    }

    pub fn peer(&self) -> Result<SocketAddr, Errno> {
        getpeername::<SockaddrStorage>(self.raw()).map(|a| std_address(&a))
    }

    pub fn local(&self) -> Result<SocketAddr, Errno> {
        getsockname::<SockaddrStorage>(self.raw()).map(|a| std_address(&a))
    }

    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        send(self.raw(), bytes, MsgFlags::MSG_NOSIGNAL)
    }

    pub fn send_with(&self, bytes: &[u8], flags: MsgFlags) -> Result<usize, Errno> {
        send(self.raw(), bytes, flags | MsgFlags::MSG_NOSIGNAL)
    }

    /// Sends all of it.
    pub fn send_all(&self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = self.send(rest)?;
            rest = rest.get(sent..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Up to `length` bytes.
    pub fn recv(&self, length: usize, flags: MsgFlags) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        let got = recv(self.raw(), &mut bytes, flags)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Reads until this text has come.
    pub fn recv_until(&self, text: &str) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while crate::http::find(&all, text.as_bytes()).is_none() {
            let piece = self.recv(65536, MsgFlags::empty())?;
            anyhow::ensure!(
                !piece.is_empty(),
                "closed before {text:?}: {:?}",
                crate::http::lossy(&all)
            );
            all.extend(piece);
        }
        Ok(all)
    }

    /// What poll(2) says at once, or within `limit`.
    pub fn poll(&self, wanted: PollFlags, limit: Duration) -> Result<PollFlags> {
        let mut fds = [PollFd::new(self.0.as_fd(), wanted)];
        poll(&mut fds, PollTimeout::try_from(limit)?)?;
        Ok(fds
            .first()
            .and_then(|fd| fd.revents())
            .unwrap_or(PollFlags::empty()))
    }

    /// Sets an option that is an int.
    pub fn set(&self, level: i32, option: i32, value: i32) -> Result<(), Errno> {
        let length = size_of::<i32>() as u32;
        // SAFETY: the kernel reads one int.
        let result = unsafe {
            libc::setsockopt(self.raw(), level, option, (&raw const value).cast(), length)
        };
        Errno::result(result).map(drop)
    }

    /// Sets an option of any length.
    pub fn set_bytes(&self, level: i32, option: i32, value: &[u8]) -> Result<(), Errno> {
        let length = value.len() as u32;
        // SAFETY: the kernel reads as many bytes as are there.
        let result =
            unsafe { libc::setsockopt(self.raw(), level, option, value.as_ptr().cast(), length) };
        Errno::result(result).map(drop)
    }

    /// What the kernel says of an option, at most `room` bytes.
    pub fn get_bytes(&self, level: i32, option: i32, room: usize) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; room];
        let mut length = room as u32;
        // SAFETY: the kernel writes at most as many bytes as there is room for.
        let result = unsafe {
            libc::getsockopt(
                self.raw(),
                level,
                option,
                value.as_mut_ptr().cast(),
                &mut length,
            )
        };
        Errno::result(result)?;
        value.truncate(length as usize);
        Ok(value)
    }

    /// An option that is an int.
    pub fn get(&self, level: i32, option: i32) -> Result<i32, Errno> {
        let bytes = self.get_bytes(level, option, size_of::<i32>())?;
        Ok(bytes.try_into().map_or(0, i32::from_ne_bytes))
    }

    /// SO_COOKIE, which names the socket.
    pub fn cookie(&self) -> Result<u64, Errno> {
        let bytes = self.get_bytes(libc::SOL_SOCKET, libc::SO_COOKIE, size_of::<u64>())?;
        Ok(bytes.try_into().map_or(0, u64::from_ne_bytes))
    }

    /// SIOCINQ: bytes that can be read.
    pub fn unread(&self) -> Result<i32, Errno> {
        let mut count = 0;
        // SAFETY: the kernel writes one int.
        let result = unsafe { libc::ioctl(self.raw(), libc::FIONREAD, &raw mut count) };
        Errno::result(result).map(|_| count)
    }

    /// SIOCOUTQ: bytes that were written and that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> Result<i32, Errno> {
        let mut count = 0;
        // SAFETY: the kernel writes one int.
        let result = unsafe { libc::ioctl(self.raw(), libc::TIOCOUTQ, &raw mut count) };
        Errno::result(result).map(|_| count)
    }

    pub fn tcp_info(&self) -> Result<libc::tcp_info> {
        let bytes = self.get_bytes(libc::SOL_TCP, libc::TCP_INFO, size_of::<libc::tcp_info>())?;
        anyhow::ensure!(
            bytes.len() == size_of::<libc::tcp_info>(),
            "{}",
            bytes.len()
        );
        // SAFETY: as many bytes as the structure has, all of them plain numbers.
        Ok(unsafe { bytes.as_ptr().cast::<libc::tcp_info>().read_unaligned() })
    }

    /// Takes over a descriptor that came from elsewhere.
    pub fn adopt(fd: i32) -> Self {
        // SAFETY: the caller got the descriptor from the kernel and gives it away.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Gives the descriptor away.
    pub fn into_raw(self) -> i32 {
        self.0.into_raw_fd()
    }

    pub fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub fn dup(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

/// The IPv4-mapped form of an address.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => {
            SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
        }
        v6 => v6,
    }
}

fn std_address(address: &SockaddrStorage) -> SocketAddr {
    if let Some(v4) = address.as_sockaddr_in() {
        SocketAddr::from((v4.ip(), v4.port()))
    } else if let Some(v6) = address.as_sockaddr_in6() {
        let v6: &SockaddrIn6 = v6;
        SocketAddr::from((v6.ip(), v6.port()))
    } else {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
}
