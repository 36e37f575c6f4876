// SPDX-License-Identifier: GPL-2.0
//! Is this machine ready?  One clear message for each thing that is missing.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{statfs, BPF_FS_MAGIC};

pub const BPFFS: &str = "/sys/fs/bpf";
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const MODULE: &str = "/sys/module/xlb";
const MODULE_BTF: &str = "/sys/kernel/btf/xlb";

// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// All that is missing, the first cause first.
pub fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(permission());
    problems.extend(btf());
    problems.extend(module());
    problems.extend(bpffs());
    if cgroup_root().is_none() {
        problems.push(
            "no cgroup v2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
        );
    }
    problems
}

pub fn permission() -> Option<String> {
    let caps = effective_capabilities()?;
    let has = |cap: u32| caps & (1 << cap) != 0;
    if has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_NET_ADMIN)) {
        return None;
    }
    Some(
        "no permission: run as root (it takes CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)".to_owned(),
    )
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn btf() -> Option<String> {
    (!Path::new(KERNEL_BTF).exists()).then(|| {
        format!("this kernel has no BTF ({KERNEL_BTF}): use one with CONFIG_DEBUG_INFO_BTF=y")
    })
}

pub fn module() -> Option<String> {
    if !Path::new(MODULE).exists() {
        return Some(
            "the kernel module xlb is not loaded: modprobe xlb, or insmod xlb.ko".to_owned(),
        );
    }
    (Path::new(KERNEL_BTF).exists() && !Path::new(MODULE_BTF).exists()).then(|| {
        format!(
            "the kernel module xlb has no BTF ({MODULE_BTF}): build it for this very kernel, \
             which needs CONFIG_DEBUG_INFO_BTF_MODULES=y"
        )
    })
}

pub fn is_module_loaded() -> bool {
    Path::new(MODULE).exists()
}

fn bpffs() -> Option<String> {
    let mounted = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    (!mounted).then(|| format!("no BPF file system at {BPFFS}: mount -t bpf bpf {BPFFS}"))
}

/// Where the root of the cgroup v2 hierarchy is mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        // proc(5): id parent major:minor root mount-point options [fields] - type source options
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && kind.starts_with("cgroup2 ")).then(|| PathBuf::from(unescape(point)))
    })
}

/// mountinfo writes space, tab, newline and backslash as \ooo.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (escape, plain) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        out = out.replace(escape, plain);
    }
    out
}
