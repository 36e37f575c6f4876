// SPDX-License-Identifier: GPL-2.0
//! The kernel's side: programs and maps pinned under /sys/fs/bpf/xlb, and the module.

pub mod cgroup;
pub mod commit;
pub mod counts;
pub mod ctl;
pub mod lock;
pub mod preflight;
pub mod programs;
pub mod raw;
pub mod upgrade;

use std::sync::Mutex;

use libbpf_rs::PrintLevel;

use crate::error::Error;

/// What libbpf said, for the message when something fails.
static LIBBPF_SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps libbpf's messages instead of printing them.
pub fn quiet_libbpf() {
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, message| {
        if let Ok(mut said) = LIBBPF_SAID.lock() {
            said.push(message.trim_end().to_owned());
        }
    })));
}

/// Why the kernel did not take a program: the last lines that libbpf had to say.
pub fn load_error(what: &str, err: &libbpf_rs::Error) -> Error {
    const LAST_LINES: usize = 12;
    if let Some(problem) = preflight::problems().into_iter().next() {
        return Error::System(problem);
    }
    let said = LIBBPF_SAID
        .lock()
        .map(|said| said.join("\n"))
        .unwrap_or_default();
    if std::env::var_os("XLBCTL_VERBOSE").is_some() {
        eprintln!("{said}");
    }
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let tail = lines
        .get(lines.len().saturating_sub(LAST_LINES)..)
        .unwrap_or(&[])
        .join("\n  ");
    let hint =
        if said.contains("kfunc") || said.contains("struct_ops") || said.contains("xlb_policy") {
            "the module and this xlbctl are not of one build, or its BTF is not of this kernel"
        } else {
            "this kernel may lack something"
        };
    Error::system(format!(
        "the kernel refused {what} ({err}): {hint}\n  {tail}"
    ))
}
