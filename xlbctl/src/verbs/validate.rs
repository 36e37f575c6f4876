// SPDX-License-Identifier: GPL-2.0
//! `xlbctl validate -f FILE`

use crate::cli::File;
use crate::output;
use xlb_control::config;
use xlb_control::error::Error;

pub fn run(args: &File) -> Result<(), Error> {
    let source = config::read(&args.file)?;
    source.check(&source.config)?;
    let config = &source.config;
    let routes: usize = config
        .services
        .iter()
        .flat_map(|s| &s.virtual_hosts)
        .map(|host| host.routes.len())
        .sum();
    let endpoints: usize = config.clusters.iter().map(|c| c.endpoints.len()).sum();
    output::print_line(&format!(
        "{}: valid: {} services, {routes} routes, {} clusters, {endpoints} endpoints",
        source.file,
        config.services.len(),
        config.clusters.len()
    ))
}
