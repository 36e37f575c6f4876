// SPDX-License-Identifier: GPL-2.0
//! Envoy, with a static configuration. In YAML's flow style, so that a caller's part needs no indentation.

use std::net::SocketAddr;

use anyhow::Result;

use crate::ctx::{Ctx, Proc};

/// The binary in the wheel.
const ENVOY: &str = "/xlb/pypi/programs/envoy/_bin/envoy";

fn address(a: SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: {}, port_value: {}}}}}",
        a.ip(),
        a.port()
    )
}

/// HTTP/1 at an address, with a `RouteConfiguration`.
pub fn listener(name: &str, at: SocketAddr, routes: &str) -> String {
    let manager = format!(
        "{{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: {name}, http_protocol_options: {{accept_http_10: true, default_host_for_http_10: shop.example}}, \
         proxy_100_continue: true, \
         http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
         route_config: {routes}}}"
    );
    format!(
        "  - {{name: {name}, address: {}, filter_chains: [{{filters: [{{name: http, typed_config: {manager}}}]}}]}}\n",
        address(at)
    )
}

/// Of one endpoint.
pub fn cluster(name: &str, endpoint: SocketAddr) -> String {
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 60s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}\n",
        address(endpoint)
    )
}

pub fn start(ctx: &mut Ctx, listeners: &str, clusters: &str) -> Result<Proc> {
    let config = format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}");
    let file = ctx.file("envoy.yaml", &config)?.display().to_string();
    let args = [
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warn",
        "-c",
        &file,
    ];
    ctx.spawn(ENVOY, &args)
}
