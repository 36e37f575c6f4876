// SPDX-License-Identifier: GPL-2.0
//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use xlb_control::config::decode::parse_duration_ms;

/// Configures XLB, the layer-7 load balancer in the Linux kernel.
///
/// Exit codes: 0 done, 1 the system refused or is not ready, 2 bad usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "xlbctl", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Load the BPF programs and attach them (apply does it when needed), or replace those of another version under load
    Load(Wait),
    /// Detach and remove the BPF programs and all configuration
    Unload(Unload),
    /// Check a configuration and put it in force, replacing items of the same name
    Apply(Apply),
    /// Remove the services and clusters that a file names, or all
    Delete(Delete),
    /// Check a configuration; needs no kernel and no rights
    Validate(File),
    /// List services, routes, clusters, endpoints, pools or sockets
    Get(Get),
    /// Tell whether layer-7 balancing is active, and what is wrong if it is not
    Status(Format),
    /// Tell which route, cluster and endpoints would serve a request, and why
    Explain(Explain),
    /// Show counters per service, route, cluster and endpoint
    Stats(Stats),
}

#[derive(Debug, Args)]
pub struct File {
    /// YAML or JSON; - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    pub file: String,
}

#[derive(Debug, Args)]
pub struct Wait {
    /// How long to wait while another xlbctl changes something, such as 500ms or 10s; without it
    /// as long as that takes
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration_ms(text)
        .map(|ms| Duration::from_millis(ms.into()))
        .ok_or_else(|| "write 500ms, 60s, 5m or 1h, up to 24h".to_owned())
}

#[derive(Debug, Args)]
pub struct Unload {
    #[command(flatten)]
    pub wait: Wait,
    /// End client sockets that XLB serves now, in order
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub file: File,
    /// Check all and print what would change, but change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove what is applied and not in the file
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// YAML or JSON whose services and clusters go; - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    pub file: Option<String>,
    /// Everything goes; the BPF programs stay loaded
    #[arg(long)]
    pub all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    Services,
    Routes,
    Clusters,
    Endpoints,
    Pools,
    Sockets,
}

#[derive(Debug, Args)]
pub struct Get {
    pub kind: Kind,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
pub struct Format {
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// The service that the client connects to
    #[arg(long, value_name = "NAME")]
    pub service: String,
    pub method: String,
    /// http://host/path?query, or only /path
    pub url: String,
    /// A header of the request; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Use this file instead of what is applied
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsOutput {
    Table,
    Json,
    Yaml,
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Stats {
    /// Print again every second
    #[arg(long)]
    pub watch: bool,
    #[arg(short, long, value_enum, default_value_t = StatsOutput::Table)]
    pub output: StatsOutput,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        super::Cli::command().debug_assert();
    }
}
