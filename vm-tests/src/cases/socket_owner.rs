// SPDX-License-Identifier: GPL-2.0
//! What happens to a socket without its owner: the owner sits in a page fault, or has closed it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::MsgFlags;
use nix::unistd::gettid;

use crate::caller::waits_in;
use crate::ctx::{Ctx, Scenario, VIP4};
use crate::http::pattern;
use crate::script::{Logging, Server};
use crate::sock::Sock;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::xlb("owner/in_a_page_fault", in_a_page_fault).within(120),
    Scenario::xlb("owner/closed_while_queued", closed_while_queued),
    Scenario::xlb("owner/closed_with_more_requests", closed_with_more_requests),
    Scenario::xlb("owner/closed_with_a_long_body", closed_with_a_long_body),
    Scenario::xlb("owner/closed_for_ever_waiting", closed_for_ever_waiting),
];

const BACKEND: &str = "127.0.1.1:8001";
const OTHER: &str = "127.0.1.2:8001";
const OTHER_VIP: &str = "10.96.0.11:80";

/// More than a workqueue has workers (`WQ_DFL_ACTIVE` of the kernel's workqueue.h is 1,024).
const STUCK: usize = 1100;

/// A page that nobody can read before [`Page::fill`]: whoever tries sleeps (userfaultfd(2)).
struct Page {
    uffd: OwnedFd,
    at: usize,
}

const PAGE: usize = 4096;
/// `include/uapi/linux/userfaultfd.h`: `_IOWR(0xaa, nr, size)`.
const fn uffd_ioctl(nr: u64, size: u64) -> u64 {
    (3 << 30) | (size << 16) | (0xaa << 8) | nr
}

impl Page {
    fn new() -> Result<Self> {
        // SAFETY: No pointers.
        let uffd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })?;
        // SAFETY: Just opened.
        let uffd = unsafe { OwnedFd::from_raw_fd(uffd as i32) };
        // struct uffdio_api: api, features, ioctls.
        let mut api = [0xaau64, 0, 0];
        // SAFETY: The structure has the size that the number says.
        Errno::result(unsafe {
            libc::ioctl(uffd.as_raw_fd(), uffd_ioctl(0x3f, 24), api.as_mut_ptr())
        })?;
        // SAFETY: A new mapping.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(at != libc::MAP_FAILED, "mmap");
        // struct uffdio_register: start, len, mode (1: missing), ioctls.
        let mut register = [at as u64, PAGE as u64, 1, 0];
        // SAFETY: As above.
        Errno::result(unsafe {
            libc::ioctl(uffd.as_raw_fd(), uffd_ioctl(0, 32), register.as_mut_ptr())
        })?;
        Ok(Self {
            uffd,
            at: at as usize,
        })
    }

    /// Ends all waits: the page is zero.
    fn fill(&self) -> Result<()> {
        // struct uffdio_zeropage: start, len, mode, zeropage.
        let mut zero = [self.at as u64, PAGE as u64, 0, 0];
        // SAFETY: As above.
        Errno::result(unsafe {
            libc::ioctl(self.uffd.as_raw_fd(), uffd_ioctl(4, 32), zero.as_mut_ptr())
        })?;
        Ok(())
    }
}

/// Sockets whose owners sleep in a page fault, in `sendmsg`, stop nobody else: no worker waits for
/// their locks. What comes for them meanwhile (here: the end of their connect's time) is done when they wake.
fn in_a_page_fault(ctx: &mut Ctx) -> Result<()> {
    let _deaf = super::replies::deaf_listener(ctx)?;
    let other = Logging::start(OTHER)?;
    ctx.apply(&format!(
        "version: 1\nservices:\n\
         - name: shop\n  listen: [\"{VIP4}\"]\n  routes: [{{cluster: deaf}}]\n\
         - name: other\n  listen: [\"{OTHER_VIP}\"]\n  routes: [{{cluster: other}}]\n\
         clusters:\n\
         - name: deaf\n  endpoints: [\"{BACKEND}\"]\n  pool: {{connect_timeout: 1s, max: 4000}}\n\
         - name: other\n  endpoints: [\"{OTHER}\"]\n  pool: {{max: 1, max_pending: 100}}\n"
    ))?;
    let page = Page::new()?;
    let at = page.at;
    let (tell, told) = mpsc::channel();
    let mut owners = Vec::new();
    for _ in 0..STUCK {
        let sock = Sock::open(VIP4.parse()?)?;
        sock.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")?;
        let tell = tell.clone();
        let owner = thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let _ = tell.send(gettid());
            // SAFETY: The page is mapped until the process ends.
            let body = unsafe { std::slice::from_raw_parts(at as *const u8, 100) };
            let sent = sock.send(body);
            (sent, sock.recv(4096, MsgFlags::empty()))
        })?;
        owners.push(owner);
    }
    for owner in told.iter().take(STUCK) {
        ctx.until("an owner in its page fault", || {
            waits_in(owner, libc::SYS_sendto)
        })?;
    }
    // All connects of the stuck ones are over.
    thread::sleep(Duration::from_millis(1500));
    let mut first = ctx.open(OTHER_VIP.parse()?)?;
    let mut second = ctx.open(OTHER_VIP.parse()?)?;
    first.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ctx.until("the first request", || Ok(other.count() == 1))?;
    let begin = Instant::now();
    second.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n")?;
    other.held.open();
    first.response("GET")?.expect(200)?;
    second
        .response("GET")
        .context("the answer that needs a worker")?
        .expect(200)?;
    ensure!(
        begin.elapsed() < ctx.secs(5),
        "a request of another service waited {:?}",
        begin.elapsed()
    );
    page.fill()?;
    for owner in owners {
        let (sent, answer) = owner.join().map_err(|_| anyhow::anyhow!("thread"))?;
        ensure!(sent == Ok(100), "send: {sent:?}");
        let answer = answer?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 50"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}

fn one_connection(ctx: &mut Ctx, more: &str) -> Result<std::net::SocketAddr> {
    ctx.shop_with(
        &[BACKEND],
        "round_robin",
        &format!("  pool: {{max: 1, max_pending: 100{more}}}\n"),
    )
}

/// `write(); close()` while the only connection is busy: the request is sent when its turn comes.
fn closed_while_queued(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = one_connection(ctx, "")?;
    let mut busy = ctx.open(vip)?;
    busy.send("GET /sleep/800 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ctx.until("the busy request", || Ok(backend.count() == 1))?;
    for i in 0..3 {
        let sock = Sock::open(vip)?;
        sock.send_all(
            format!("POST /left/{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
                .as_bytes(),
        )?;
    }
    ensure!(backend.count() == 1, "sent too early");
    busy.response("GET")?.expect(200)?;
    ctx.until(
        "the requests of closed sockets",
        || Ok(backend.count() == 4),
    )?;
    let mut paths = Vec::new();
    for seen in backend.requests().iter().skip(1) {
        ensure!(seen.message.body == b"body", "{seen:?}");
        paths.push(seen.message.path().to_owned());
    }
    // Each has a connection of its own, so the backend may log them in any order.
    paths.sort();
    ensure!(paths == ["/left/0", "/left/1", "/left/2"], "{paths:?}");
    busy.get("/after")?.expect(200)?;
    Ok(())
}

/// Requests that were written in one go, and nobody reads an answer: all of them arrive.
fn closed_with_more_requests(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = ctx.shop(&[BACKEND])?;
    let sock = Sock::open(vip)?;
    let requests: String = (0..5)
        .map(|i| format!("GET /piped/{i} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    sock.send_all(requests.as_bytes())?;
    drop(sock);
    ctx.until("five requests", || Ok(backend.count() == 5))?;
    let paths: Vec<String> = backend
        .requests()
        .iter()
        .map(|seen| seen.message.path().to_owned())
        .collect();
    for i in 0..5 {
        ensure!(paths.contains(&format!("/piped/{i}")), "{paths:?}");
    }
    Ok(())
}

/// A body larger than what a socket buffer takes, to a backend that begins to read after the close.
fn closed_with_a_long_body(ctx: &mut Ctx) -> Result<()> {
    const HELD: usize = 40_000;
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Logging::start(BACKEND)?;
    let _slow = Server::start(OTHER, move |mut conn, _| {
        let seen = conn.request_read()?;
        if let (Some(seen), Ok(tell)) = (seen, tell.lock()) {
            let _ = tell.send(seen.body);
        }
        Ok(())
    })?;
    let vip = ctx.shop_of_one_connection(OTHER)?;
    // The connection is taken by a request that is not whole.
    let hold = Sock::open(vip)?;
    hold.send_all(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")?;
    let sock = Sock::open(vip)?;
    let body = pattern(HELD, 7);
    sock.send_all(
        format!("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: {HELD}\r\n\r\n").as_bytes(),
    )?;
    sock.send_all(&body)?;
    drop(sock);
    hold.send_all(b"12345")?;
    ensure!(told.recv_timeout(ctx.secs(10))? == b"12345", "the first");
    drop(hold);
    let got = told
        .recv_timeout(ctx.secs(10))
        .context("the request of a closed socket")?;
    ensure!(got == body, "{} of {HELD} bytes", got.len());
    ensure!(backend.count() == 0, "another backend was asked");
    Ok(())
}

/// A request that never gets its turn is dropped after a while: sockets and memory come back.
fn closed_for_ever_waiting(ctx: &mut Ctx) -> Result<()> {
    let backend = Logging::start(BACKEND)?;
    let vip = one_connection(ctx, "")?;
    let mut busy = ctx.open(vip)?;
    busy.send("GET /sleep/20000 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ctx.until("the busy request", || Ok(backend.count() == 1))?;
    for _ in 0..20 {
        let sock = Sock::open(vip)?;
        sock.send_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")?;
    }
    let closed = Instant::now();
    ensure!(crate::xlb::counters()?.get("psocks")? == 21, "21 sockets");
    ctx.until("the end of the orphans", || {
        Ok(crate::xlb::counters()?.get("psocks")? == 1)
    })?;
    let waited = closed.elapsed();
    ensure!(waited >= Duration::from_secs(4), "dropped after {waited:?}");
    ensure!(backend.count() == 1, "a request was sent all the same");
    Ok(())
}
