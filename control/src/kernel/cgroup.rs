// SPDX-License-Identifier: GPL-2.0
//! cgroup v2 paths and ids.  The id of a cgroup is the inode number of its directory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::preflight::cgroup_root;

/// Of a path such as `/system.slice`; `None` when there is no such cgroup.
pub fn id_of(path: &str) -> Option<u64> {
    let meta = fs::metadata(cgroup_root()?.join(path.trim_start_matches('/'))).ok()?;
    meta.is_dir().then(|| meta.ino())
}

/// The root is level 0, `/a` is level 1.
pub fn level_of(path: &str) -> u32 {
    let parts = path.split('/').filter(|part| !part.is_empty()).count();
    u32::try_from(parts).unwrap_or(u32::MAX)
}

/// Paths of all cgroups by id.
pub fn paths() -> HashMap<u64, String> {
    let mut paths = HashMap::new();
    if let Some(root) = cgroup_root() {
        walk(&root, "", &mut paths);
    }
    paths
}

fn walk(dir: &Path, name: &str, paths: &mut HashMap<u64, String>) {
    let Ok(meta) = fs::metadata(dir) else {
        return;
    };
    paths.insert(
        meta.ino(),
        if name.is_empty() { "/" } else { name }.to_owned(),
    );
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            walk(&entry.path(), &below, paths);
        }
    }
}
