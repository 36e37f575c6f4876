// SPDX-License-Identifier: GPL-2.0
//! One xlbctl at a time changes the kernel's side.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error};

const FILE: &str = "/run/xlb.lock";

/// Held until it is dropped, or the process ends in whatever way.
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for another xlbctl to end.
    pub fn take() -> Result<Lock, Error> {
        let path = if Path::new("/run").is_dir() {
            FILE
        } else {
            "/var/lock/xlb.lock"
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .context(format!("cannot open {path}"))?;
        // Only root may hold it: anyone else could make root's xlbctl wait for ever.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(path)?;
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, err)) => Err(Error::system(format!("cannot lock {path}: {err}"))),
        }
    }
}
