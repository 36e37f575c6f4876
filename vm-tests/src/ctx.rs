// SPDX-License-Identifier: GPL-2.0
//! What a scenario is, and what it gets to work with.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::http;
use crate::xlb;

/// The VIPs that every scenario uses. Nothing routes to them: a packet to one fails the connect.
pub const VIP4: &str = "10.96.0.10:80";
pub const VIP6: &str = "[fd00:96::10]:80";

/// What a scenario needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// HTTP only: it also passes straight to a backend.
    Http,
    /// Balancing, pools or XLB's own replies.
    Xlb,
    /// It loads and unloads the module by itself.
    BareKernel,
    /// XLB, on a kernel that can be told to fail an allocation.
    Faults,
}

impl Needs {
    /// What the machine lacks; a scenario that needs it is skipped.
    pub fn lacking(self) -> Option<&'static str> {
        let there = self != Self::Faults || Path::new("/sys/kernel/debug/failslab").exists();
        (!there).then_some("the kernel has no fault injection")
    }
}

/// One named test.
pub struct Scenario {
    pub name: &'static str,
    pub needs: Needs,
    /// On an emulated machine without debug options; the guest multiplies it for slower ones.
    pub timeout_s: u64,
    /// Seconds that it lasts by intent, however slow the machine is.
    pub lasting_s: fn(u32) -> u64,
    pub run: fn(&mut Ctx) -> Result<()>,
}

impl Scenario {
    pub const fn http(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Self {
        Self {
            name,
            needs: Needs::Http,
            timeout_s: 60,
            lasting_s: |_| 0,
            run,
        }
    }

    pub const fn xlb(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Self {
        Self {
            name,
            needs: Needs::Xlb,
            timeout_s: 60,
            lasting_s: |_| 0,
            run,
        }
    }

    pub const fn bare(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Self {
        Self {
            name,
            needs: Needs::BareKernel,
            timeout_s: 60,
            lasting_s: |_| 0,
            run,
        }
    }

    /// Every path has dozens of allocations, and is gone once for each.
    pub const fn faults(name: &'static str, run: fn(&mut Ctx) -> Result<()>) -> Self {
        Self {
            name,
            needs: Needs::Faults,
            timeout_s: 240,
            lasting_s: |_| 0,
            run,
        }
    }

    pub const fn within(mut self, timeout_s: u64) -> Self {
        self.timeout_s = timeout_s;
        self
    }

    pub const fn lasting(mut self, seconds: fn(u32) -> u64) -> Self {
        self.lasting_s = seconds;
        self
    }

    /// How long it may take on a machine of this scale.
    pub fn limit(&self, scale: u32) -> Duration {
        Duration::from_secs(self.timeout_s * u64::from(scale) + (self.lasting_s)(scale))
    }
}

/// The environment's name for the seed.
pub const SEED: &str = "XLB_SEED";

/// The seed of what is drawn: `XLB_SEED`, or another one each second.
pub fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) if !text.is_empty() => text.parse().context("XLB_SEED"),
        _ => Ok(std::time::UNIX_EPOCH.elapsed()?.as_secs()),
    }
}

/// How a program ended and what it said.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A child process that ends with its owner.
pub struct Proc {
    child: Child,
}

impl Proc {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// `kill -9`, and reap.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end; the exit code (`None` for a signal).
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            ensure!(
                Instant::now() < end,
                "process {} still runs after {limit:?}",
                self.pid()
            );
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a scenario works with: a scratch folder, and XLB, or a backend in its place.
pub struct Ctx {
    pub dir: PathBuf,
    pub direct: bool,
    /// How many times slower than a plain emulated machine this one is.
    pub scale: u32,
    files: u32,
}

impl Ctx {
    pub fn new(dir: PathBuf, direct: bool, scale: u32) -> Self {
        Self {
            dir,
            direct,
            scale,
            files: 0,
        }
    }

    /// A duration that grows with the slowness of the machine.
    pub fn secs(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds * u64::from(self.scale))
    }

    /// A new path in the scratch folder.
    pub fn path(&mut self, name: &str) -> PathBuf {
        self.files += 1;
        self.dir.join(format!("{:02}-{name}", self.files))
    }

    /// Writes a file into the scratch folder.
    pub fn file(&mut self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Applies a whole configuration.
    pub fn apply(&mut self, yaml: &str) -> Result<()> {
        let path = self.file("config.yaml", yaml)?;
        if self.direct {
            return Ok(());
        }
        let path = path.display().to_string();
        let out = xlb::xlbctl(&["apply", "-f", &path])?;
        ensure!(out.code == Some(0), "xlbctl apply: {}\n{yaml}", out.all());
        Ok(())
    }

    /// One service "shop" in front of one cluster of these endpoints. Returns the address that clients connect
    /// to: the VIP, or the first endpoint when there is no XLB.
    pub fn shop(&mut self, endpoints: &[&str]) -> Result<SocketAddr> {
        self.shop_with(endpoints, "round_robin", "")
    }

    /// Like [`Ctx::shop`], with a balancing policy and lines to add to the cluster.
    pub fn shop_with(&mut self, endpoints: &[&str], lb: &str, more: &str) -> Result<SocketAddr> {
        self.apply(&shop_yaml(endpoints, lb, more))?;
        let first = endpoints.first().context("no endpoint")?;
        Ok(if self.direct {
            first.parse()?
        } else {
            VIP4.parse()?
        })
    }

    /// Like [`Ctx::shop`] with one endpoint, of which one connection is used at a time: requests wait
    /// for it, as long as a slow machine makes them.
    pub fn shop_of_one_connection(&mut self, endpoint: &str) -> Result<SocketAddr> {
        let pool = "  pool: {max: 1, max_pending: 100, pending_timeout: 5m}\n";
        self.shop_with(&[endpoint], "round_robin", pool)
    }

    /// The base URL for clients that want one.
    pub fn url(&self, address: SocketAddr) -> String {
        format!("http://{address}")
    }

    /// Runs a program to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        run_for(self.secs(50), program, args)
    }

    /// Runs a program that must succeed; its standard output.
    pub fn run_ok(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = self.run(program, args)?;
        ensure!(
            out.code == Some(0),
            "{program} {args:?}: exit {:?}\n{}",
            out.code,
            out.all()
        );
        Ok(out.stdout)
    }

    /// Starts a program in the background; what it prints goes to a file of the scratch folder.
    pub fn spawn(&mut self, program: &str, args: &[&str]) -> Result<Proc> {
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        let log = fs::File::create(self.path(&format!("{name}.log")))?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Proc { child })
    }

    /// Waits until something listens there: a Java server takes half a minute to begin on an emulated
    /// machine, and longer on a busy one.
    pub fn wait_listen(&self, address: &str) -> Result<()> {
        let address: SocketAddr = address.parse()?;
        let listens = || Ok(std::net::TcpStream::connect(address).is_ok());
        self.until_within(self.secs(90), "a listener", listens)
            .with_context(|| format!("waiting for {address}"))
    }

    /// Waits until the condition holds.
    pub fn until(&self, what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
        self.until_within(self.secs(30), what, condition)
    }

    fn until_within(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !condition()? {
            if Instant::now() > end {
                bail!("{what}: not within {limit:?}");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until a number has begun to grow and then been the same for half a second; the number.
    pub fn until_still(
        &self,
        what: &str,
        mut number: impl FnMut() -> Result<usize>,
    ) -> Result<usize> {
        let quiet = Duration::from_millis(500) * self.scale;
        let (mut last, mut since) = (number()?, Instant::now());
        self.until(what, || {
            let now = number()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok(last > 0 && since.elapsed() >= quiet)
        })?;
        Ok(last)
    }

    /// A connection with a deadline on every read and write.
    pub fn open(&self, address: SocketAddr) -> Result<http::Conn> {
        http::Conn::open(address, self.secs(20))
    }
}

/// Runs a program to its end, and kills it when it takes too long.
pub fn run_for(limit: Duration, program: &str, args: &[&str]) -> Result<Output> {
    // timeout(1) kills the program's whole process group.
    let out = Command::new("timeout")
        .args(["-k", "2", &limit.as_secs().to_string(), program])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    ensure!(
        out.status.code() != Some(124),
        "{program} {args:?}: no end within {limit:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(Output {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// A service "shop" on both VIPs with one cluster "items".
pub fn shop_yaml(endpoints: &[&str], lb: &str, more: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("  - \"{e}\"\n")).collect();
    let endpoints = endpoints.concat();
    format!(
        "version: 1\n\
         services:\n\
         - name: shop\n  listen: [\"{VIP4}\", \"{VIP6}\"]\n  routes:\n  - cluster: items\n\
         clusters:\n\
         - name: items\n  lb: {lb}\n  endpoints:\n{endpoints}{more}"
    )
}
