// SPDX-License-Identifier: GPL-2.0
//! Reverse proxies as clients: each has one port whose upstream is the server and one whose upstream is the VIP.
//! They keep connections to both, and try nothing twice, so that a failure shows.

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;

use super::{raw, Line, Task};
use crate::ctx::{Ctx, Proc};
use crate::envoy;

/// Where the proxy listens for each way.
const PORTS: [&str; 2] = ["127.0.1.1:8101", "127.0.1.1:8102"];

/// Way, port of the proxy, upstream.
fn ways(task: &Task) -> Result<Vec<(&'static str, SocketAddr, SocketAddr)>> {
    let addresses = task.addresses()?;
    let ports = PORTS.iter().map(|p| p.parse());
    ports
        .zip(addresses)
        .map(|(port, (name, upstream))| Ok((name, port?, upstream)))
        .collect()
}

/// Sends all through a proxy that was just started.
fn through(ctx: &Ctx, task: &Task, _proxy: Proc) -> Result<Vec<Line>> {
    for port in PORTS {
        ctx.wait_listen(port)?;
    }
    let ports: Vec<_> = ways(task)?.iter().map(|(n, port, _)| (*n, *port)).collect();
    Ok(raw::drive::<raw::Plain>(task, &ports))
}

pub fn nginx(ctx: &mut Ctx, task: &Task, version: &str) -> Result<Vec<Line>> {
    let root = ctx.path("proxy");
    fs::create_dir_all(&root)?;
    let root = root.display().to_string();
    let servers: String = ways(task)?
        .iter()
        .map(|(name, port, upstream)| {
            format!(
                "upstream {name} {{ server {upstream}; keepalive 16; }}\n\
                 server {{ listen {port}; location / {{ proxy_pass http://{name}; }} }}\n"
            )
        })
        .collect();
    // Without this line nginx sends "Connection: close" to its upstream.
    let connection = if version == "1.1" {
        "proxy_set_header Connection \"\";"
    } else {
        ""
    };
    // One process: a worker would outlive its killed master and keep the ports.
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log warn; user root;\n\
         events {{ worker_connections 1000; }}\n\
         http {{\n\
           access_log off; client_max_body_size 0;\n\
           client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
           uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
           proxy_http_version {version}; {connection} proxy_next_upstream off; proxy_read_timeout 600s;\n\
           {servers}\
         }}\n"
    );
    let file = ctx.file("proxy.conf", &config)?.display().to_string();
    let proxy = ctx.spawn("nginx", &["-p", &root, "-e", "stderr", "-c", &file])?;
    through(ctx, task, proxy)
}

pub fn haproxy(ctx: &mut Ctx, task: &Task) -> Result<Vec<Line>> {
    let listeners: String = ways(task)?
        .iter()
        .map(|(name, port, upstream)| {
            format!("listen {name}\n  bind {port}\n  server s {upstream}\n")
        })
        .collect();
    let config = format!(
        "global\n  nbthread 1\n\
         defaults\n  mode http\n  retries 0\n  timeout connect 60s\n  timeout client 600s\n  timeout server 600s\n  \
         http-reuse always\n{listeners}"
    );
    let file = ctx.file("proxy.cfg", &config)?.display().to_string();
    let proxy = ctx.spawn("haproxy", &["-db", "-f", &file])?;
    through(ctx, task, proxy)
}

pub fn envoy(ctx: &mut Ctx, task: &Task) -> Result<Vec<Line>> {
    let (mut listeners, mut clusters) = (String::new(), String::new());
    for (name, port, upstream) in ways(task)? {
        let routes = format!(
            "{{virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {name}, timeout: 600s}}}}]}}]}}"
        );
        listeners += &envoy::listener(name, port, &routes);
        clusters += &envoy::cluster(name, upstream);
    }
    let proxy = envoy::start(ctx, &listeners, &clusters)?;
    through(ctx, task, proxy)
}
