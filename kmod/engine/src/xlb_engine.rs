// SPDX-License-Identifier: GPL-2.0

//! The HTTP/1 engine: frames requests and responses, and rewrites heads.
//!
//! Feed bytes to a [`RequestParser`] until it gives a [`RequestHead`], and the bytes after the head
//! to a [`Body`]; the other direction is a [`ResponseParser`] and a `Body`.  The engine keeps no copy
//! of anything: positions are [`Span`]s of the head that the caller holds.
//!
//! The surprising rule: it is stricter than RFC 9112 asks.  Where peers are known to read the same
//! bytes differently, it refuses them with a [`Reason`] of their own, because a load balancer
//! whose idea of a message's end differs from that of the server behind it mixes up clients.
//!
//! The same files are compiled by Kbuild into the kernel module and by cargo for tests, fuzzing and
//! benchmarks.  No allocation, no `unsafe`, no panic on any input.

#![cfg_attr(not(any(test, MODULE)), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod body;
mod facts;
mod fields;
mod known;
mod message;
mod out;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod testing;

pub mod cookie;
pub mod hash;
pub mod headers;
pub mod host;
pub mod limits;
pub mod location;
pub mod number;
pub mod parts;
pub mod path;
pub mod reason;
pub mod regex;
pub mod reply;
pub mod rewrite;
pub mod search;

pub use body::Body;
pub use fields::Fields;
pub use limits::Limits;
pub use message::{Framing, Method, Protocol, Span, Status, Version};
pub use reason::{Class, Reason};
pub use request::{RequestContext, RequestHead, RequestParser};
pub use response::{ResponseHead, ResponseParser};
