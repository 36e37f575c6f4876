// SPDX-License-Identifier: GPL-2.0

//! A fuzz target without a fuzzer: replays its corpus, then mutates it for some seconds with a fixed seed.

use super::files;
use super::rng::{mutate, Rng};
use std::time::{Duration, Instant};

/// `corpus` is a folder beside this crate's manifest.
pub fn smoke(target: &str, corpus: &str, check: fn(&[u8])) {
    let corpus = files(corpus);
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
