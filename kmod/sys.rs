// SPDX-License-Identifier: GPL-2.0

//! The C side as bindgen sees it: `shim/xlb_shim.h` and `include/xlb_intf.h`.
//!
//! Nothing is written by hand here but the integer names of C headers. Safe wrappers stand in
//! the module of the object that they belong to.

#![expect(non_camel_case_types, reason = "names of C types")]
#![allow(
    missing_docs,
    dead_code,
    non_upper_case_globals,
    non_snake_case,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]

include!(env!("XLB_BINDINGS"));
