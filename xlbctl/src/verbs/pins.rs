// SPDX-License-Identifier: GPL-2.0
//! Sockets that XLB serves no more and that keep the module from going.
//!
//! A socket's tables are the module's until it is closed, or until it has ended by force and its program has read
//! all: then the module lets go of it.  What stays is a response that nobody has read, and a socket that was
//! connected to something else since.

use std::collections::HashMap;

use serde::Serialize;

use super::get::{cgroup_name, command, state_name};
use crate::output::or_dash;
use xlb_control::intf::{xlb_socket_info, XLB_SOCKET_CLOSING, XLB_SOCKET_PLAIN};
use xlb_control::kernel::cgroup;

#[derive(Serialize)]
pub struct Pin {
    pub pid: u32,
    pub command: String,
    pub cgroup: String,
    /// The socket's cookie: SO_COOKIE, and `ss -e` calls it sk.
    pub socket: u64,
    pub state: &'static str,
    pub unread_bytes: u32,
}

impl Pin {
    fn new(socket: &xlb_socket_info, paths: &HashMap<u64, String>) -> Pin {
        Pin {
            pid: socket.pid,
            command: command(socket.pid),
            cgroup: cgroup_name(paths, socket.cgroup_id),
            socket: socket.id,
            state: state_name(socket.state),
            unread_bytes: socket.receive_bytes,
        }
    }

    pub fn text(&self) -> String {
        let Pin {
            pid,
            command,
            cgroup,
            socket,
            state,
            unread_bytes,
        } = self;
        format!(
            "pid {pid} ({}), cgroup {cgroup}, socket {socket}: {state}, {unread_bytes} bytes unread",
            or_dash(command)
        )
    }
}

/// Those of `sockets` that are served no more; without the policy none is served.
pub fn pins(sockets: &[xlb_socket_info], served: bool) -> Vec<Pin> {
    let over =
        |s: &&xlb_socket_info| !served || [XLB_SOCKET_CLOSING, XLB_SOCKET_PLAIN].contains(&s.state);
    let paths = cgroup::paths();
    sockets
        .iter()
        .filter(over)
        .map(|socket| Pin::new(socket, &paths))
        .collect()
}

/// A line for each, of many the first ones.
pub fn lines(pins: &[Pin]) -> Vec<String> {
    const SHOWN: usize = 20;
    let mut lines: Vec<_> = pins.iter().take(SHOWN).map(Pin::text).collect();
    if pins.len() > SHOWN {
        lines.push(format!(
            "and {} more (-o json lists all)",
            pins.len() - SHOWN
        ));
    }
    lines
}
