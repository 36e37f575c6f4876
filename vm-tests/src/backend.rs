// SPDX-License-Identifier: GPL-2.0
//! The real servers: nginx, Python, Node.js and HAProxy, each with its own log.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::ctx::{Ctx, Proc};

const ECHO_PY: &str = include_str!("../peers/echo.py");
const ECHO_JS: &str = include_str!("../peers/echo.js");

/// A running server.
pub struct Backend {
    pub address: String,
    pub proc: Proc,
    log: PathBuf,
}

impl Backend {
    /// The lines of its access log.
    pub fn log(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.log)
            .with_context(|| format!("read {}", self.log.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Lines of the access log with this text.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self
            .log()?
            .iter()
            .filter(|line| line.contains(text))
            .count())
    }
}

/// An nginx that answers every path with its name, serves and takes files under `/files/`, and logs
/// `CONNECTION REQUESTS-ON-IT STATUS "REQUEST"`.
pub fn nginx(ctx: &mut Ctx, address: &str, name: &str) -> Result<Backend> {
    nginx_with(ctx, address, name, "")
}

/// Like [`nginx`], with lines to add to its `server` block.
pub fn nginx_with(ctx: &mut Ctx, address: &str, name: &str, more: &str) -> Result<Backend> {
    let root = ctx.path(&format!("nginx-{name}"));
    fs::create_dir_all(root.join("files"))?;
    let log = root.join("access.log");
    let root_text = root.display();
    let user = if nix::unistd::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let config = format!(
        "daemon off; worker_processes 1; pid {root_text}/pid; error_log {root_text}/error.log warn; {user}\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n\
           access_log off; client_max_body_size 0; keepalive_requests 10000000; keepalive_timeout 600s;\n\
           client_body_temp_path {root_text}/t1; proxy_temp_path {root_text}/t2; fastcgi_temp_path {root_text}/t3;\n\
           uwsgi_temp_path {root_text}/t4; scgi_temp_path {root_text}/t5;\n\
           log_format xlb '$connection $connection_requests $status \"$request\" $http_host';\n\
           server {{\n\
             listen {address} backlog=4096; access_log {log} xlb; {more}\n\
             location / {{ return 200 \"{name}\\n\"; }}\n\
             location /files/ {{ root {root_text}; dav_methods PUT DELETE; create_full_put_path on; }}\n\
           }}\n\
         }}\n",
        log = log.display(),
    );
    let file = ctx.file(&format!("nginx-{name}.conf"), &config)?;
    let proc = ctx.spawn(
        "nginx",
        &[
            "-p",
            &root_text.to_string(),
            "-e",
            "stderr",
            "-c",
            &file.display().to_string(),
        ],
    )?;
    ctx.wait_listen(address)?;
    Ok(Backend {
        address: address.to_owned(),
        proc,
        log,
    })
}

/// The folder behind `/files/` of an nginx.
pub fn nginx_files(backend: &Backend) -> PathBuf {
    backend.log.parent().unwrap_or(Path::new("/")).join("files")
}

/// What the echo servers say of a request.
#[derive(Debug, Deserialize)]
pub struct Echo {
    pub backend: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub length: u64,
    pub crc: u32,
    pub body: String,
}

impl Echo {
    pub fn parse(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body)
            .with_context(|| format!("echo: {:?}", String::from_utf8_lossy(body)))
    }
}

/// A threaded Python server (`peers/echo.py` says what its paths do).
pub fn python(ctx: &mut Ctx, address: &str, name: &str) -> Result<Backend> {
    echo(ctx, "python3", ECHO_PY, "echo.py", address, name)
}

/// A Node.js server with the same paths.
pub fn node(ctx: &mut Ctx, address: &str, name: &str) -> Result<Backend> {
    echo(ctx, "node", ECHO_JS, "echo.js", address, name)
}

fn echo(
    ctx: &mut Ctx,
    program: &str,
    source: &str,
    file: &str,
    address: &str,
    name: &str,
) -> Result<Backend> {
    let script = ctx.file(file, source)?;
    let log = ctx.path(&format!("{name}.access"));
    fs::write(&log, "")?;
    let (host, port) = address.rsplit_once(':').context("address:port")?;
    let args = [
        script.display().to_string(),
        host.to_owned(),
        port.to_owned(),
        name.to_owned(),
        log.display().to_string(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let proc = ctx.spawn(program, &args)?;
    ctx.wait_listen(address)?;
    Ok(Backend {
        address: address.to_owned(),
        proc,
        log,
    })
}

/// A HAProxy in front of another server: one more parser behind XLB.
pub fn haproxy(ctx: &mut Ctx, address: &str, behind: &str) -> Result<Backend> {
    let config = format!(
        "global\n  nbthread 1\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
         frontend f\n  bind {address}\n  default_backend b\n\
         backend b\n  server s {behind}\n"
    );
    let file = ctx.file("haproxy.cfg", &config)?;
    let log = ctx.path("haproxy.access");
    fs::write(&log, "")?;
    let proc = ctx.spawn("haproxy", &["-db", "-f", &file.display().to_string()])?;
    ctx.wait_listen(address)?;
    Ok(Backend {
        address: address.to_owned(),
        proc,
        log,
    })
}
