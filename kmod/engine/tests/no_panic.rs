// SPDX-License-Identifier: GPL-2.0

//! The engine as the kernel gets it has no way to panic: compiled with overflow checks, its object refers to no panic
//! function at all.

use std::path::Path;
use std::process::Command;

#[test]
fn the_object_refers_to_no_panic_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/xlb_engine.rs");
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no_panic.o");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let status = Command::new(rustc)
        .args([
            "--edition=2021",
            "--crate-type=lib",
            "--crate-name=xlb_engine",
        ])
        .args([
            "-Copt-level=2",
            "-Coverflow-checks=y",
            "-Cpanic=abort",
            "-Cdebuginfo=0",
        ])
        .arg(format!("--emit=obj={}", object.display()))
        // The sources may lie where nothing can be written.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .arg(root)
        .status()
        .unwrap();
    assert!(status.success());
    let object = std::fs::read(object).unwrap();
    let text = String::from_utf8_lossy(&object);
    let names = |what: &str| text.matches(what).count();
    // The symbol names are there at all, and none of them panics.
    assert!(names("RequestParser") > 0);
    for panics in [
        "panicking",
        "len_mismatch_fail",
        "index_fail",
        "unwrap_failed",
        "expect_failed",
    ] {
        assert_eq!(names(panics), 0, "{panics}");
    }
}
