// SPDX-License-Identifier: GPL-2.0
//! What configures XLB: `xlbctl` is its command, and an agent that gets its configuration elsewhere uses the same.
//!
//! ```text
//! config    YAML and JSON to a checked model; all mistakes of a file at once
//! numbers   of items, and slots, over changes
//! compile   the model to the bytes that the BPF policy walks (bpf/blob.h)
//! store     what is applied, as bytes of which parts are read
//! plan      what of it an apply touches
//! kernel    programs, maps, the module: load, commit, upgrade, ask
//! policy    the BPF policy itself, run here; why: what it says, for people
//! ```
//!
//! ```ignore
//! let source = config::read("routes.yaml")?;
//! let _lock = Lock::take(None)?;
//! let applied = Applied::read()?;
//! let Plan { part, config, .. } = Plan::new(&applied.stored, &source, false)?;
//! Maps::open()?.commit(&part, config, &Ctl::open()?)?;
//! ```

mod addresses;
pub mod compile;
pub mod config;
pub mod document;
pub mod error;
pub mod intf;
pub mod kernel;
#[cfg(test)]
mod matcher;
pub mod numbers;
mod pair;
pub mod plan;
pub mod policy;
#[cfg(test)]
mod random;
pub mod store;
pub mod why;
