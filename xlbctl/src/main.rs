// SPDX-License-Identifier: GPL-2.0
//! xlbctl: configures XLB and shows what it does.  See `xlbctl help`.

mod cli;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.verb {
        Verb::Load(args) => verbs::load::run(args),
        Verb::Unload(args) => verbs::unload::run(args),
        Verb::Apply(args) => verbs::apply::run(args),
        Verb::Delete(args) => verbs::delete::run(args),
        Verb::Validate(args) => verbs::validate::run(args),
        Verb::Get(args) => verbs::get::run(args),
        Verb::Status(args) => verbs::status::run(args),
        Verb::Explain(args) => verbs::explain::run(args),
        Verb::Stats(args) => verbs::stats::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            ExitCode::from(err.exit_code())
        }
    }
}
