// SPDX-License-Identifier: GPL-2.0
//! Compiles the BPF programs into skeletons, the policy also for user space, and makes Rust of the
//! C headers that xlbctl shares with them and with the module.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bindgen::callbacks::{DeriveInfo, ParseCallbacks, TypeKind};
use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 3] = ["connect", "policy", "ctl"];

fn main() {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
            .join("..");
    let bpf = root.join("bpf");
    let intf = root.join("kmod/include/xlb_intf.h");
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-changed={}", intf.display());

    for name in PROGRAMS {
        SkeletonBuilder::new()
            .source(bpf.join(format!("{name}.bpf.c")))
            .clang_args(
                ["-Wall", "-Werror", "-mcpu=v3"]
                    .into_iter()
                    .chain(defines()),
            )
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|err| panic!("{name}.bpf.c: {err:#}"));
    }
    fs::write(out.join("build.rs"), build(&out)).expect("OUT_DIR is writable");
    user_space(&bpf);
    structs(&bpf, &intf, &out.join("intf.rs"));
    tables(&bpf, &intf, &out.join("tables.rs"));
}

/// The layout of blob.h that tests of upgrades take for the next one.
fn defines() -> Option<&'static str> {
    env::var_os("CARGO_FEATURE_NEXT_LAYOUT").map(|_| "-DXLB_NEXT_LAYOUT")
}

/// FNV-1a of the skeletons, with the programs in them.
fn build(out: &Path) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for name in PROGRAMS {
        let skeleton = fs::read(out.join(format!("{name}.skel.rs"))).expect("just made");
        for byte in skeleton {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:#018x}")
}

/// The policy as a part of xlbctl: `src/policy/`.
fn user_space(bpf: &Path) {
    let mut build = cc::Build::new();
    if let Some(define) = defines() {
        build.flag(define);
    }
    build
        .compiler("clang")
        .file(bpf.join("user/policy.c"))
        .include(bpf.join("user"))
        // Those of the BPF build, and no more.
        .warnings(false)
        .flag("-Wall")
        .flag("-Werror")
        // Its functions and maps have short names.
        .flag("-fvisibility=hidden")
        // What C leaves open, above all a NULL that is followed, ends the process there and then.
        .flag("-fsanitize=undefined")
        .flag("-fsanitize-trap=undefined")
        .compile("xlb_user_policy");
}

fn structs(bpf: &Path, intf: &Path, out: &Path) {
    bindgen::Builder::default()
        .header(intf.display().to_string())
        .header(bpf.join("blob.h").display().to_string())
        .header(bpf.join("ctl.h").display().to_string())
        .clang_args(defines())
        .parse_callbacks(Box::new(Records))
        .allowlist_item("(xlb|XLB)_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .generate()
        .expect("bindgen reads the shared headers")
        .write_to_file(out)
        .expect("OUT_DIR is writable");
}

/// What is read from bytes and written as bytes.
#[derive(Debug)]
struct Records;

impl ParseCallbacks for Records {
    fn add_derives(&self, info: &DeriveInfo<'_>) -> Vec<String> {
        // The one that is only made for its offsets: no record.
        if info.kind != TypeKind::Struct || info.name == "xlb_ctl_call" {
            return Vec::new();
        }
        ["FromBytes", "IntoBytes", "Immutable"]
            .map(|name| format!("zerocopy::{name}"))
            .into()
    }
}

/// The X-macro tables, which bindgen cannot see.
fn tables(bpf: &Path, intf: &Path, out: &Path) {
    let intf = fs::read_to_string(intf).expect("xlb_intf.h");
    let blob = fs::read_to_string(bpf.join("blob.h")).expect("blob.h");
    let mut text = String::new();

    table(
        &mut text,
        "REASONS",
        &rows(&intf, "XLB_REASONS"),
        |row| match row {
            [_, name, status, help] => {
                format!("Reason {{ name: \"{name}\", status: {status}, help: {help} }}")
            }
            _ => panic!("XLB_REASONS: {row:?}"),
        },
    );
    table(
        &mut text,
        "COUNTERS",
        &rows(&intf, "XLB_COUNTERS"),
        |row| match row {
            [_, name, _, help] => format!("Counter {{ name: \"{name}\", help: {help} }}"),
            _ => panic!("XLB_COUNTERS: {row:?}"),
        },
    );
    table(
        &mut text,
        "STATS",
        &rows(&blob, "XLB_STATS"),
        |row| match row {
            [name, help] => format!("Counter {{ name: \"{name}\", help: {help} }}"),
            _ => panic!("XLB_STATS: {row:?}"),
        },
    );
    fs::write(out, text).expect("OUT_DIR is writable");
}

fn table(out: &mut String, name: &str, rows: &[Vec<String>], item: impl Fn(&[String]) -> String) {
    let kind = if name == "REASONS" {
        "Reason"
    } else {
        "Counter"
    };
    writeln!(out, "pub const {name}: [{kind}; {}] = [", rows.len()).expect("a String grows");
    for row in rows {
        writeln!(out, "    {},", item(row)).expect("a String grows");
    }
    out.push_str("];\n");
}

/// The arguments of each `X(a, b, "c")` of a macro, the quotes of strings kept.
fn rows(header: &str, name: &str) -> Vec<Vec<String>> {
    let start = header
        .find(&format!("#define {name}(X)"))
        .unwrap_or_else(|| panic!("{name} is not in the header"));
    let mut rows = Vec::new();
    for line in header[start..].lines().skip(1) {
        let line = line.trim();
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line.trim(), true),
            None => (line, false),
        };
        let Some(args) = line.strip_prefix("X(").and_then(|l| l.strip_suffix(')')) else {
            break;
        };
        let (head, help) = args
            .split_once(", \"")
            .expect("the last argument is a string");
        rows.push(
            head.split(", ")
                .map(str::to_owned)
                .chain([format!("\"{help}")])
                .collect(),
        );
        if !more {
            break;
        }
    }
    rows
}
