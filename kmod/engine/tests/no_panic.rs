// SPDX-License-Identifier: GPL-2.0

//! The engine as the kernel gets it has no way to panic: compiled with overflow checks, its object refers to no panic
//! function at all, and neither does that of a caller, which has what is inlined.

use std::path::{Path, PathBuf};
use std::process::Command;

const CALLER: &str = "
#![no_std]
use xlb_engine::{Limits, Reason, RequestHead, RequestParser, Status};
#[no_mangle]
pub fn caller(parser: &mut RequestParser, buf: &[u8], limits: &Limits) -> Result<Status<RequestHead>, Reason> {
    parser.parse(buf, limits)
}
";

/// Compiles one file to an object, and to what others need of it; the object.
fn compile(source: &Path, name: &str, more: &[&str]) -> Vec<u8> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let object = out.join(format!("{name}.o"));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition=2021", "--crate-type=rlib"])
        .args([
            "-Copt-level=2",
            "-Coverflow-checks=y",
            "-Cpanic=abort",
            "-Cdebuginfo=0",
        ])
        .arg(format!("--crate-name={name}"))
        .arg(format!("--emit=obj={},link", object.display()))
        .arg("--out-dir")
        .arg(out)
        .args(more)
        // The sources may lie where nothing can be written.
        .current_dir(out)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(object).unwrap()
}

fn no_panics(object: &[u8], has: &str) {
    let text = String::from_utf8_lossy(object);
    let names = |what: &str| text.matches(what).count();
    // The symbol names are there at all, and none of them panics.
    assert!(names(has) > 0, "{has}");
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

#[test]
fn the_objects_refer_to_no_panic_function() {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/xlb_engine.rs");
    no_panics(&compile(&root, "xlb_engine", &[]), "ResponseParser");
    let caller = out.join("caller.rs");
    std::fs::write(&caller, CALLER).unwrap();
    let rlib = format!("xlb_engine={}", out.join("libxlb_engine.rlib").display());
    no_panics(&compile(&caller, "caller", &["--extern", &rlib]), "caller");
}
