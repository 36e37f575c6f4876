// SPDX-License-Identifier: GPL-2.0
//! Memory that is not there, and user memory that cannot be read or written, at every single place of a path.
//!
//! | file | what |
//! |---|---|
//! | `nth.rs` | the kernel's fault injection, and the sweep over the faults of a path |
//! | `talk.rs` | a request, its answer, and what may come of it under a fault |
//! | `paths.rs` | the paths of a client, from socket(2) to the last byte of a response |
//! | `ends.rs` | its event loop, its options, orphans, tunnels |
//! | `control.rs` | xlbctl |
//! | `anywhere.rs` | faults also where no client is: works, softirqs |
//!
//! A fault gives an error that says so, or nothing that one could see, or a reply of XLB with 503 `no_memory`. It is never
//! a hang, a wrong byte, or something left behind: the guest looks at counters, kernel log and rmmod after each scenario.

use crate::ctx::Scenario;

mod anywhere;
mod control;
mod ends;
mod nth;
mod paths;
mod talk;

pub const SCENARIOS: &[Scenario] = &[
    Scenario::faults("faults/socket_and_connect", paths::socket_and_connect),
    Scenario::faults("faults/get_with_cold_pool", paths::get_with_cold_pool),
    Scenario::faults("faults/get_with_warm_pool", paths::get_with_warm_pool),
    Scenario::faults("faults/bodies", paths::bodies),
    Scenario::faults("faults/heads", paths::heads),
    Scenario::faults("faults/pipelined", paths::pipelined),
    Scenario::faults("faults/responses", paths::responses),
    Scenario::faults("faults/own_replies", paths::own_replies),
    Scenario::faults("faults/poll_and_options", ends::poll_and_options),
    Scenario::faults("faults/orphan", ends::orphan),
    Scenario::faults("faults/tunnel", ends::tunnel),
    Scenario::faults("faults/anywhere", anywhere::anywhere),
    Scenario::faults("faults/xlbctl", control::xlbctl).within(400),
];
