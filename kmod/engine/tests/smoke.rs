// SPDX-License-Identifier: GPL-2.0

//! The fuzz targets for some seconds, without a nightly toolchain.  The one that needs httparse, `differential`, runs
//! with the comparison of ../differential.

mod common;

use common::checks;
use common::smoke::smoke;

#[test]
fn request() {
    smoke("request", "fuzz/corpus/request", checks::requests);
}

#[test]
fn response() {
    smoke("response", "fuzz/corpus/response", checks::responses);
}

#[test]
fn chunked() {
    smoke("chunked", "fuzz/corpus/chunked", checks::chunked);
}

#[test]
fn rewrite() {
    smoke("rewrite", "fuzz/corpus/rewrite", checks::rewrites);
}
