// SPDX-License-Identifier: GPL-2.0

//! What several unit tests need.

use crate::{Limits, RequestHead, RequestParser, Status};

/// Numbers below what is asked for, the same on every run.
pub(crate) fn draws(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |n| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    }
}

/// A request head that is right, and what it says.
pub(crate) fn request(head: &str) -> (Vec<u8>, RequestHead) {
    let head = head.as_bytes().to_vec();
    match RequestParser::new().parse(&head, &Limits::DEFAULT) {
        Ok(Status::Complete(request)) => (head, request),
        other => panic!("{other:?}: {}", head.escape_ascii()),
    }
}
