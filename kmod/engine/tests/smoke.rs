// SPDX-License-Identifier: GPL-2.0

//! The fuzz targets without a fuzzer: replays the corpora, then mutates them for some seconds with a fixed
//! seed.  Needs no nightly toolchain.

mod common;

use common::rng::{mutate, Rng};
use common::{checks, files};
use std::time::{Duration, Instant};

fn smoke(target: &str, check: fn(&[u8])) {
    let corpus = files(&format!("fuzz/corpus/{target}"));
    assert!(corpus.len() > 20, "the corpus of {target} is missing");
    for (_, data) in &corpus {
        check(data);
    }
    let mut rng = Rng(0x786c_6221);
    let end = Instant::now() + Duration::from_secs(2);
    let mut runs = 0u64;
    while Instant::now() < end {
        let mut data = corpus[rng.below(corpus.len())].1.clone();
        let other = &corpus[rng.below(corpus.len())].1;
        mutate(&mut rng, &mut data, other);
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(
            outcome.is_ok(),
            "{target}, input: b\"{}\"",
            data.escape_ascii()
        );
        runs += 1;
    }
    println!("{target}: {} files, {runs} mutations", corpus.len());
}

#[test]
fn request() {
    smoke("request", checks::requests);
}

#[test]
fn response() {
    smoke("response", checks::responses);
}

#[test]
fn chunked() {
    smoke("chunked", checks::chunked);
}

#[test]
fn rewrite() {
    smoke("rewrite", checks::rewrites);
}
