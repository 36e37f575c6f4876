// SPDX-License-Identifier: GPL-2.0
//! One xlbctl at a time changes the kernel's side.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::config::decode::visible;
use crate::error::{Context, Error};

const FILE: &str = "/run/xlb.lock";

/// How often a lock that another one holds is tried again.
const PERIOD: Duration = Duration::from_millis(50);

/// Held until it is dropped, or the process ends in whatever way.
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for another xlbctl to end, so long at most; says for whom.
    pub fn take(timeout: Option<Duration>) -> Result<Lock, Error> {
        Lock::take_file(path(), timeout, &mut |message| eprintln!("{message}"))
    }

    fn take_file(
        path: &str,
        timeout: Option<Duration>,
        say: &mut dyn FnMut(String),
    ) -> Result<Lock, Error> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .context(format!("cannot open {path}"))?;
        // Only root may hold it: anyone else could make root's xlbctl wait for ever.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(path)?;
        let inode = file.metadata().context(path)?.ino();
        let start = Instant::now();
        let mut told = None;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Lock { _file: file }),
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, err)) => return Err(Error::system(format!("cannot lock {path}: {err}"))),
            };
            let holder = holder(inode);
            if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
                return Err(Error::system(format!(
                    "gave up waiting for {}, which holds {path}: nothing was changed",
                    describe(holder)
                )));
            }
            // Between two holders there may be none.
            if holder.is_some() && told != Some(holder)
                || told.is_none() && start.elapsed() >= PERIOD
            {
                say(format!(
                    "xlbctl: waiting for {}, which holds {path}",
                    describe(holder)
                ));
                told = Some(holder);
            }
            thread::sleep(PERIOD);
        }
    }
}

fn path() -> &'static str {
    if Path::new("/run").is_dir() {
        FILE
    } else {
        "/var/lock/xlb.lock"
    }
}

/// Who holds the lock just now, as text for a message.
pub fn held_by() -> Option<String> {
    let inode = fs::metadata(path()).ok()?.ino();
    holder(inode).map(|pid| describe(Some(pid)))
}

/// The process that holds a lock of flock(2) on the file, where it can be seen from here.
fn holder(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, inode))
}

/// A line of proc_locks(5): `1: FLOCK ADVISORY WRITE 713 00:1c:91 0 EOF`; one that waits has an
/// arrow behind the number.
fn holder_in(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else {
        return None;
    };
    let number = file.rsplit(':').next()?;
    (number.parse() == Ok(inode))
        .then(|| pid.parse().ok())
        .flatten()
}

fn describe(holder: Option<u32>) -> String {
    let Some(pid) = holder else {
        return "another process".to_owned();
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ");
    match command.as_str() {
        "" => format!("process {pid}"),
        command => format!("process {pid} ({})", visible(command)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_locks() {
        assert_eq!(
            holder_in("1: FLOCK  ADVISORY  WRITE 713 00:1c:91 0 EOF", 91),
            Some(713)
        );
        assert_eq!(
            holder_in("1: FLOCK  ADVISORY  WRITE 713 00:1c:91 0 EOF", 9),
            None
        );
        assert_eq!(
            holder_in("1: -> FLOCK  ADVISORY  WRITE 714 00:1c:91 0 EOF", 91),
            None
        );
        assert_eq!(
            holder_in("2: POSIX  ADVISORY  WRITE 713 00:1c:91 0 EOF", 91),
            None
        );
        assert_eq!(holder_in("", 91), None);
    }

    #[test]
    fn a_held_lock_is_waited_for_and_given_up() {
        let path = std::env::temp_dir().join(format!("xlbctl-lock-{}", std::process::id()));
        let path = path.to_str().expect("UTF-8");
        let held = Lock::take_file(path, None, &mut |_| {}).expect("free");
        let mut said = Vec::new();
        let timeout = Duration::from_millis(300);
        let start = Instant::now();
        let err = Lock::take_file(path, Some(timeout), &mut |message| said.push(message))
            .err()
            .expect("it is held");
        assert!(start.elapsed() >= timeout);
        assert_eq!(err.exit_code(), 1);
        let me = format!("process {} (", std::process::id());
        assert!(err.to_string().contains(&me), "{err}");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("waiting for") && said[0].contains(&me),
            "{said:?}"
        );
        drop(held);
        Lock::take_file(path, Some(Duration::ZERO), &mut |_| {}).expect("free again");
        fs::remove_file(path).expect("it is there");
    }
}
