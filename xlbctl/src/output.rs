// SPDX-License-Identifier: GPL-2.0
//! Tables, JSON and YAML on standard output.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Output;
use xlb_control::error::{Context, Error};

/// Writes to standard output; a reader that has gone away is no error.
pub fn print(text: &str) -> Result<(), Error> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

pub fn print_line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// As JSON or YAML, or else as what `table` makes of it.
pub fn emit<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Error> {
    match output {
        Output::Table => print(&table(value)),
        Output::Json => {
            print_line(&serde_json::to_string_pretty(value).context("cannot write JSON")?)
        }
        Output::Yaml => print(&yaml(value)?),
    }
}

/// Through JSON, whose enums are plain mappings and not YAML tags.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, Error> {
    let value = serde_json::to_value(value).context("cannot write YAML")?;
    serde_yaml::to_string(&value).context("cannot write YAML")
}

/// Left-aligned columns under their heads; numbers look well enough that way.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    line(&mut out, &widths, &mut head.iter().copied());
    for row in rows {
        line(&mut out, &widths, &mut row.iter().map(String::as_str));
    }
    out
}

fn line(out: &mut String, widths: &[usize], cells: &mut dyn Iterator<Item = &str>) {
    let mut text = String::new();
    for (width, cell) in widths.iter().zip(cells) {
        text.push_str(cell);
        let pad = width.saturating_sub(cell.chars().count()) + 2;
        text.extend(std::iter::repeat_n(' ', pad));
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
