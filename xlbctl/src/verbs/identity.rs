// SPDX-License-Identifier: GPL-2.0

//! Whose connections a pool has: what sets pools of one cgroup and endpoint apart.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use xlb_control::intf::{unmapped, xlb_pool_info};

/// As struct xlb_pool_info has it; what a client has not set is left out of the text.
#[derive(Serialize)]
pub struct Identity {
    uid: u32,
    /// Of who made the socket.
    owner_uid: u32,
    owner_gid: u32,
    secid: u32,
    source: Option<IpAddr>,
    source_port: u16,
    device: Option<String>,
    mark: u32,
    priority: u32,
    tos: u8,
    congestion: String,
    keep_idle_s: u32,
    user_timeout_ms: u32,
}

impl Identity {
    pub fn of(pool: &xlb_pool_info) -> Self {
        let source = unmapped(pool.source);
        let name: Vec<u8> = pool
            .congestion
            .iter()
            .map(|c| *c as u8)
            .take_while(|c| *c != 0)
            .collect();
        Self {
            uid: pool.uid,
            owner_uid: pool.fsuid,
            owner_gid: pool.fsgid,
            secid: pool.secid,
            source: (!source.is_unspecified()).then_some(source),
            source_port: pool.source_port,
            device: (pool.bound_dev_if != 0).then(|| device(pool.netns, pool.bound_dev_if)),
            mark: pool.mark,
            priority: pool.priority,
            tos: pool.tos,
            congestion: String::from_utf8_lossy(&name).into_owned(),
            keep_idle_s: pool.keep_idle_s,
            user_timeout_ms: pool.user_timeout_ms,
        }
    }

    /// For the table; `usual` is the host's congestion control.
    pub fn text(&self, usual: &str) -> String {
        let mut parts = vec![format!("uid={} gid={}", self.owner_uid, self.owner_gid)];
        if self.uid != self.owner_uid {
            parts.push(format!("socket_uid={}", self.uid));
        }
        if self.secid != 0 {
            parts.push(format!("secid={}", self.secid));
        }
        if let Some(source) = self.source {
            parts.push(format!("source={source}"));
        }
        if self.source_port != 0 {
            parts.push(format!("source_port={}", self.source_port));
        }
        if let Some(device) = &self.device {
            parts.push(format!("device={device}"));
        }
        if self.mark != 0 {
            parts.push(format!("mark={:#x}", self.mark));
        }
        if self.priority != 0 {
            parts.push(format!("priority={}", self.priority));
        }
        if self.tos != 0 {
            parts.push(format!("tos={:#x}", self.tos));
        }
        if self.congestion != usual {
            parts.push(format!("congestion={}", self.congestion));
        }
        if self.user_timeout_ms != 0 {
            parts.push(format!("user_timeout={}ms", self.user_timeout_ms));
        }
        parts.join(" ")
    }
}

/// The congestion control that sockets begin with.
pub fn usual_congestion() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The name of a device of this namespace, else its number.
fn device(netns: u32, index: u32) -> String {
    let number = || format!("#{index}");
    let own = fs::metadata("/proc/self/ns/net").is_ok_and(|m| m.ino() == u64::from(netns));
    let Ok(devices) = fs::read_dir("/sys/class/net") else {
        return number();
    };
    devices
        .flatten()
        .filter(|_| own)
        .find(|entry| {
            fs::read_to_string(entry.path().join("ifindex"))
                .is_ok_and(|text| text.trim().parse() == Ok(index))
        })
        .map_or_else(number, |entry| {
            entry.file_name().to_string_lossy().into_owned()
        })
}
