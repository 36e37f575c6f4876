// SPDX-License-Identifier: GPL-2.0
//! Real clients against real servers through XLB, in a virtual machine.
//!
//! One binary, three roles:
//!
//! | command | runs on | does |
//! |---|---|---|
//! | `vm-tests run` | the host | boots a VM (again, when a scenario kills it) and prints what the guest prints |
//! | `vm-tests guest` | the VM, as root | runs every scenario, each with a fresh module, and judges the kernel log |
//! | `vm-tests scenario` | a process of its own in the VM | runs one scenario; the guest kills all of it afterwards |
//!
//! `vm-tests guest --direct` needs neither module nor VM: clients speak to a backend without XLB, which
//! checks that the servers, the clients and the expectations are right before XLB is blamed.

#![expect(
    clippy::format_collect,
    reason = "tests put short texts together, and are read more often than they run"
)]

mod backend;
mod bpf;
mod caller;
mod cases;
mod corpus;
mod ctx;
mod envoy;
mod guest;
mod host;
mod http;
mod kmsg;
mod races;
mod script;
mod sock;
mod xlb;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Boot a VM and run the scenarios in it
    Run(host::Options),
    /// Run the scenarios on this machine (made for the VM)
    Guest(guest::Options),
    /// Run one scenario in this process
    #[command(hide = true)]
    Scenario(guest::ScenarioOptions),
    /// Print the names of the scenarios
    List {
        /// Only scenarios with this text in their name
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().role {
        Role::Run(options) => host::run(&options),
        Role::Guest(options) => guest::run(&options),
        Role::Scenario(options) => guest::run_scenario(&options),
        Role::List { filter } => {
            for scenario in cases::matching(filter.as_deref()) {
                println!("{}", scenario.name);
            }
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-tests: {error:#}");
            ExitCode::from(2)
        }
    }
}
