// SPDX-License-Identifier: GPL-2.0

//! XLB: a layer-7 load balancer in the socket layer.
//!
//! This is the module's root: it wires and nothing else. Where things are:
//!
//! | file | what |
//! |---|---|
//! | `psock.rs` | the application's socket: lifetime, poll, the list of all of them |
//! | `send.rs`, `recv.rs` | its `sendmsg` and `recvmsg` |
//! | `exchange.rs` | one request and its response: what a p-sock is doing, and how it goes on |
//! | `decide.rs`, `upstream.rs`, `replies.rs` | the steps of it: policy, connection, own answers |
//! | `isock.rs`, `pool.rs` | connections to endpoints, and who may use them |
//! | `fields.rs` | what BPF may ask about a request |
//! | `control.rs`, `count.rs` | what xlbctl may ask; counters |
//! | `lock.rs` | the spinlock, and the lock order of the module |
//! | `engine/` | HTTP/1: framing and rewriting, without any kernel |
//! | `shim/` | C: tables, BTF, inline functions |

use kernel::prelude::*;

mod buf;
mod control;
mod count;
mod decide;
mod exchange;
mod fields;
mod isock;
mod lock;
mod pool;
mod psock;
mod recv;
mod replies;
mod send;
mod sys;
mod upstream;

/// As `modinfo` and `xlbctl status` show it.
pub(crate) const VERSION: &str = "0.1.0";

module! {
    type: Xlb,
    name: "xlb",
    authors: ["The XLB authors"],
    description: "Layer-7 load balancer in the socket layer",
    license: "GPL",
}

struct Xlb;

impl kernel::Module for Xlb {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pool::init();
        psock::init();
        // SAFETY: Once; everything that the shim calls into is ready.
        kernel::error::to_result(unsafe { sys::xlb_shim_init() })?;
        pr_info!("version {}, ABI {}\n", VERSION, sys::XLB_ABI);
        Ok(Xlb)
    }
}

impl Drop for Xlb {
    fn drop(&mut self) {
        // The module's reference count is 0: no p-sock and no BPF program is left.
        // SAFETY: Waits for a reaper that runs.
        unsafe { sys::xlb_reaper_stop() };
        pool::close_all();
        // SAFETY: Mirrors `init`.
        unsafe { sys::xlb_shim_exit() };
    }
}
