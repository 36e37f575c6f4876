// SPDX-License-Identifier: GPL-2.0
//! A small loader for BPF programs of cgroups and devices, as an administrator of rules has one.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;

/// Program type and attach type of `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy)]
pub struct Hook(u32, u32);

pub const EGRESS: Hook = Hook(8, 1);
pub const SOCK_CREATE: Hook = Hook(9, 2);
pub const SOCK_RELEASE: Hook = Hook(9, 34);
pub const SOCK_OPS: Hook = Hook(13, 3);
pub const CONNECT4: Hook = Hook(18, 10);
pub const BIND4: Hook = Hook(18, 8);
const DEVICE_EGRESS: Hook = Hook(3, 47);

/// One instruction.
const fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64
        | ((dst as u64) << 8)
        | ((src as u64) << 12)
        | ((off as u16 as u64) << 16)
        | ((imm as u32 as u64) << 32)
}

const fn mov(dst: u8, imm: i32) -> u64 {
    op(0xb7, dst, 0, 0, imm)
}

const EXIT: u64 = op(0x95, 0, 0, 0, 0);

/// Says no.
pub fn deny() -> Vec<u64> {
    vec![mov(0, 0), EXIT]
}

/// Says no to this port in a `struct bpf_sock_addr`.
pub fn deny_port(port: u16) -> Vec<u64> {
    const USER_PORT: i16 = 24;
    vec![
        op(0x61, 2, 1, USER_PORT, 0),
        mov(0, 1),
        op(0x55, 2, 0, 1, i32::from(port.to_be())),
        mov(0, 0),
        EXIT,
    ]
}

/// Says no to this user, by what the kernel says of the current task.
pub fn deny_user(uid: u32) -> Vec<u64> {
    const GET_CURRENT_UID_GID: i32 = 15;
    vec![
        op(0x85, 0, 0, 0, GET_CURRENT_UID_GID),
        op(0xbc, 2, 0, 0, 0),
        mov(0, 1),
        op(0x55, 2, 0, 1, uid as i32),
        mov(0, 0),
        EXIT,
    ]
}

/// Drops packets of this priority, for [`attach_to_device`].
pub fn drop_priority(priority: i32) -> Vec<u64> {
    const PRIORITY: i16 = 32;
    const DROP: i32 = 2;
    const NEXT: i32 = -1;
    vec![
        op(0x61, 2, 1, PRIORITY, 0),
        mov(0, NEXT),
        op(0x55, 2, 0, 1, priority),
        mov(0, DROP),
        EXIT,
    ]
}

/// Gives connections that begin the congestion control "reno".
pub fn set_reno() -> Vec<u64> {
    const TCP_CONNECT_CB: i32 = 3;
    const SETSOCKOPT: i32 = 49;
    vec![
        op(0x61, 2, 1, 0, 0),
        op(0x55, 2, 0, 8, TCP_CONNECT_CB),
        op(0x62, 10, 0, -8, i32::from_le_bytes(*b"reno")),
        op(0x62, 10, 0, -4, 0),
        mov(2, libc::SOL_TCP),
        mov(3, libc::TCP_CONGESTION),
        op(0xbf, 4, 10, 0, 0),
        op(0x07, 4, 0, 0, -8),
        mov(5, 5),
        op(0x85, 0, 0, 0, SETSOCKOPT),
        mov(0, 1),
        EXIT,
    ]
}

/// Counts its calls in a map, and says yes.
pub fn count(map: &OwnedFd) -> Vec<u64> {
    let fd = map.as_raw_fd();
    const LOOKUP: i32 = 1;
    const MAP_FD: u8 = 1;
    vec![
        op(0x62, 10, 0, -4, 0),
        op(0xbf, 2, 10, 0, 0),
        op(0x07, 2, 0, 0, -4),
        op(0x18, 1, MAP_FD, 0, fd),
        0,
        op(0x85, 0, 0, 0, LOOKUP),
        op(0x15, 0, 0, 2, 0),
        mov(1, 1),
        op(0xdb, 0, 1, 0, 0),
        mov(0, 1),
        EXIT,
    ]
}

fn bpf(command: i64, attr: &[u8]) -> Result<i32> {
    // SAFETY: the attribute and what it points at live for the call.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), attr.len()) };
    Ok(Errno::result(ret)? as i32)
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An array map with one number.
pub fn counter() -> Result<OwnedFd> {
    let attr: Vec<u8> = [2u32, 4, 8, 1]
        .iter()
        .flat_map(|v| v.to_ne_bytes())
        .collect();
    Ok(own(bpf(0, &attr).context("BPF map")?))
}

pub fn counted(map: &OwnedFd) -> Result<u64> {
    let (key, mut value) = (0u32, 0u64);
    let mut attr = u64::from(map.as_raw_fd() as u32).to_ne_bytes().to_vec();
    attr.extend((&raw const key as u64).to_ne_bytes());
    attr.extend((&raw mut value as u64).to_ne_bytes());
    attr.extend(0u64.to_ne_bytes());
    bpf(1, &attr).context("BPF map lookup")?;
    Ok(value)
}

fn load(hook: Hook, code: &[u64]) -> Result<OwnedFd> {
    let license = c"GPL";
    let mut attr = Vec::new();
    attr.extend(hook.0.to_ne_bytes());
    attr.extend((code.len() as u32).to_ne_bytes());
    attr.extend((code.as_ptr() as u64).to_ne_bytes());
    attr.extend((license.as_ptr() as u64).to_ne_bytes());
    attr.extend([0; 24]);
    attr.extend([0; 16]);
    attr.extend(0u32.to_ne_bytes());
    attr.extend(hook.1.to_ne_bytes());
    Ok(own(bpf(5, &attr).context("BPF program")?))
}

/// A cgroup below the scenario's own, without processes.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new(name: &str) -> Result<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let own = own.trim().rsplit(':').next().context("cgroup")?.to_owned();
        let path = PathBuf::from(format!("/sys/fs/cgroup{own}/{name}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The program is asked, besides others, until what this returns is dropped.
    pub fn attach(&self, hook: Hook, code: &[u64]) -> Result<Attached> {
        const ALLOW_MULTI: u32 = 2;
        let attached = Attached {
            target: Target::Cgroup(File::open(&self.0)?),
            program: load(hook, code)?,
            hook,
        };
        attached.call(8, ALLOW_MULTI).context("BPF attach")?;
        Ok(attached)
    }
}

/// The program sees what leaves by this device, before any queue, until what this returns is dropped.
pub fn attach_to_device(index: u32, code: &[u64]) -> Result<Attached> {
    let attached = Attached {
        target: Target::Device(index),
        program: load(DEVICE_EGRESS, code)?,
        hook: DEVICE_EGRESS,
    };
    attached.call(8, 0).context("BPF attach to a device")?;
    Ok(attached)
}

enum Target {
    Cgroup(File),
    Device(u32),
}

/// An attached program.
pub struct Attached {
    target: Target,
    program: OwnedFd,
    hook: Hook,
}

impl Attached {
    fn call(&self, command: i64, flags: u32) -> Result<i32> {
        let target = match &self.target {
            Target::Cgroup(cgroup) => cgroup.as_raw_fd() as u32,
            Target::Device(index) => *index,
        };
        let words = [target, self.program.as_raw_fd() as u32, self.hook.1, flags];
        let attr: Vec<u8> = words.iter().flat_map(|v| v.to_ne_bytes()).collect();
        bpf(command, &attr)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.call(9, 0);
    }
}
