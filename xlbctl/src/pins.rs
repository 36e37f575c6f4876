// SPDX-License-Identifier: GPL-2.0
//! What keeps the module in place: every socket that XLB has served, until its last descriptor is closed.
//!
//! The kernel reaches a socket's operations through tables that lie in the module, and a
//! task may be about to; `sock->ops->owner` and the ULP hold references until the socket is destroyed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::intf::{self, xlb_socket_info};
use crate::verbs::get::command;

/// The sockets of one process.
#[derive(Debug, PartialEq, Serialize)]
pub struct Pin {
    pid: u32,
    command: String,
    sockets: usize,
    /// Of them, how many have ended or are TCP's again: they need their descriptor closed, and nothing else.
    ended: usize,
}

/// By process; those that hold most come first.
pub fn by_process(sockets: &[xlb_socket_info]) -> Vec<Pin> {
    let mut counts: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for socket in sockets {
        let ended = matches!(
            socket.state,
            intf::XLB_SOCKET_CLOSING | intf::XLB_SOCKET_PASSED
        );
        let count = counts.entry(socket.pid).or_default();
        count.0 += 1;
        count.1 += usize::from(ended);
    }
    let mut pins: Vec<Pin> = counts
        .into_iter()
        .map(|(pid, (sockets, ended))| Pin {
            pid,
            command: command(pid),
            sockets,
            ended,
        })
        .collect();
    pins.sort_by_key(|pin| std::cmp::Reverse(pin.sockets));
    pins
}

/// How many processes are named; the rest are counted.
const NAMED: usize = 10;

/// One line for each process.
pub fn lines(pins: &[Pin]) -> Vec<String> {
    let mut lines: Vec<String> = pins
        .iter()
        .take(NAMED)
        .map(|pin| {
            let name = match pin.command.as_str() {
                // It may have passed its sockets on, and ended.
                "" => "gone",
                name => name,
            };
            format!(
                "pid {} ({name}): {} sockets, {} of them ended",
                pin.pid, pin.sockets, pin.ended
            )
        })
        .collect();
    if let Some(rest) = pins.get(NAMED..).filter(|rest| !rest.is_empty()) {
        let sockets: usize = rest.iter().map(|pin| pin.sockets).sum();
        lines.push(format!("{} more processes: {sockets} sockets", rest.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_by_process() {
        let socket = |pid, state| xlb_socket_info {
            pid,
            state,
            ..xlb_socket_info::default()
        };
        let pins = by_process(&[
            socket(4_000_001, intf::XLB_SOCKET_PASSED),
            socket(4_000_002, intf::XLB_SOCKET_IDLE),
            socket(4_000_002, intf::XLB_SOCKET_CLOSING),
        ]);
        assert_eq!(
            lines(&pins),
            [
                "pid 4000002 (gone): 2 sockets, 1 of them ended",
                "pid 4000001 (gone): 1 sockets, 1 of them ended"
            ]
        );
        let many: Vec<_> = (0..12).map(|n| socket(4_000_000 + n, 0)).collect();
        let lines = lines(&by_process(&many));
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(
            lines.last().map(String::as_str),
            Some("2 more processes: 2 sockets")
        );
    }
}
