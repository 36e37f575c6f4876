// SPDX-License-Identifier: GPL-2.0

//! XLB: a layer-7 load balancer in the socket layer.
//!
//! This is the module's root: it wires and nothing else. Where things are:
//!
//! Each level knows those below it and none above; an event goes up through a waker only:
//!
//! | level | folder or file | is |
//! |---|---|---|
//! | 0 | `engine/` | HTTP/1: framing and rewriting, without any kernel |
//! | 0 | `buf`, `lock`, `once`, `count`, `limits`, `sys` | small tools; counters; the engine's limits as module parameters; the shim |
//! | 1 | `isock/` | a connection to an endpoint, what it is like to the host's rules, who is woken by it |
//! | 2 | `pool/` | connections by identity, cluster and endpoint; who waits for one; all pools |
//! | 3 | `policy/` | what BPF is asked, and what it may ask about a request |
//! | 4 | `exchange/` | one request and its response, for any protocol: decides, gets a connection, retries, ends |
//! | 5 | `http1/` | a client's session: from its bytes to exchanges, from an exchange to an endpoint's bytes, and back |
//! | 6 | `psock/` | the application's socket: connect, sendmsg, recvmsg, poll, close; the list of all; those without owner |
//! | 7 | `control.rs`, this file | what xlbctl may ask; wiring |
//!
//! `shim/` is C: tables, BTF, inline functions.

use kernel::prelude::*;
use xlb_engine::Limits;

mod buf;
mod control;
mod count;
mod exchange;
mod http1;
mod isock;
mod limits;
mod lock;
mod once;
mod policy;
mod pool;
mod psock;
mod sys;

use isock::identity;
use pool::table;
use psock::orphan;

/// As `modinfo` and `xlbctl status` show it.
pub(crate) const VERSION: &str = "0.1.0";

module! {
    type: Xlb,
    name: "xlb",
    authors: ["The XLB authors"],
    description: "Layer-7 load balancer in the socket layer",
    license: "GPL",
    params: {
        head_bytes: u32 {
            default: xlb_engine::Limits::DEFAULT.head_bytes,
            description: "Most bytes of a request or response head",
        },
        field_count: u32 {
            default: xlb_engine::Limits::DEFAULT.field_count,
            description: "Most fields of a head",
        },
        field_bytes: u32 {
            default: xlb_engine::Limits::DEFAULT.field_bytes,
            description: "Most bytes of one field line",
        },
        target_bytes: u32 {
            default: xlb_engine::Limits::DEFAULT.target_bytes,
            description: "Most bytes of a request target",
        },
        chunk_ext_bytes: u32 {
            default: xlb_engine::Limits::DEFAULT.chunk_ext_bytes,
            description: "Most bytes of chunk extensions beyond those that the data pays for",
        },
        trailer_bytes: u32 {
            default: xlb_engine::Limits::DEFAULT.trailer_bytes,
            description: "Most bytes of a trailer section",
        },
        interim_count: u32 {
            default: xlb_engine::Limits::DEFAULT.interim_count,
            description: "Most 1xx responses to one request",
        },
        counts_from: u32 {
            default: 0,
            description: "For tests: where all counts begin",
        },
    },
}

struct Xlb;

/// A parameter's value, which 7.2 gives by reference and 7.3 by value.
fn given(value: impl core::borrow::Borrow<u32>) -> u32 {
    *value.borrow()
}

impl kernel::Module for Xlb {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        limits::set(Limits {
            head_bytes: given(module_parameters::head_bytes.value()),
            field_count: given(module_parameters::field_count.value()),
            field_bytes: given(module_parameters::field_bytes.value()),
            target_bytes: given(module_parameters::target_bytes.value()),
            chunk_ext_bytes: given(module_parameters::chunk_ext_bytes.value()),
            trailer_bytes: given(module_parameters::trailer_bytes.value()),
            interim_count: given(module_parameters::interim_count.value()),
            ..Limits::DEFAULT
        })?;
        count::set_from(given(module_parameters::counts_from.value()));
        identity::init();
        table::init();
        psock::init()?;
        orphan::init();
        // SAFETY: Once; everything that the shim calls into is ready.
        kernel::error::to_result(unsafe { sys::xlb_shim_init() }).inspect_err(|_| psock::exit())?;
        pr_info!("version {}, ABI {}\n", VERSION, sys::XLB_ABI);
        Ok(Xlb)
    }
}

impl Drop for Xlb {
    fn drop(&mut self) {
        // The module's reference count is 0: no p-sock and no BPF program is left.
        // SAFETY: Waits for a reaper that runs.
        unsafe { sys::xlb_reaper_stop() };
        table::close_all();
        // SAFETY: Mirrors `init`.
        unsafe { sys::xlb_shim_exit() };
        psock::exit();
        identity::exit();
    }
}

/// Periodic work.
#[no_mangle]
extern "C" fn xlb_reap() {
    orphan::close_done();
    table::reap();
}
