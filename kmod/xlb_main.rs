// SPDX-License-Identifier: GPL-2.0

//! XLB: a layer-7 load balancer in the socket layer.
//!
//! This is the module's root: it wires and nothing else. Where things are:
//!
//! | file | what |
//! |---|---|
//! | `psock.rs`, `list.rs` | the application's socket: lifetime, poll; the list of all of them |
//! | `send.rs`, `recv.rs` | its `sendmsg` and `recvmsg` |
//! | `exchange.rs` | one request and its response: what a p-sock is doing, and how it goes on |
//! | `decide.rs`, `upstream.rs`, `replies.rs` | the steps of it: policy, connection, own answers |
//! | `orphan.rs` | p-sockets that were closed with a request still to be sent |
//! | `leave.rs` | p-sockets that have ended, but whose programs keep them |
//! | `isock.rs`, `pool.rs` | connections to endpoints, and who may use them |
//! | `identity.rs` | what the host's rules see of a client, which its connections must be like |
//! | `keep_alive.rs` | how long an endpoint keeps an idle connection |
//! | `holders.rs`, `table.rs` | who holds the connections of a pool; all pools, and the reaper |
//! | `fields.rs` | what BPF may ask about a request |
//! | `control.rs`, `count.rs` | what xlbctl may ask; counters |
//! | `limits.rs` | the limits of the engine, as module parameters |
//! | `lock.rs` | the spinlock, and the lock order of the module |
//! | `engine/` | HTTP/1: framing and rewriting, without any kernel |
//! | `shim/` | C: tables, BTF, inline functions |

use kernel::prelude::*;
use xlb_engine::Limits;

mod buf;
mod control;
mod count;
mod decide;
mod exchange;
mod fields;
mod identity;
mod isock;
mod keep_alive;
mod leave;
mod limits;
mod list;
mod lock;
mod once;
mod options;
mod orphan;
mod peek;
mod pool;
mod psock;
mod recent;
mod recv;
mod replies;
mod send;
mod stripe;
mod sys;
mod table;
mod upstream;

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
