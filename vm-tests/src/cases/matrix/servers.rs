// SPDX-License-Identifier: GPL-2.0
//! The servers of the matrix, each started as its users start it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::built;
use crate::ctx::{Ctx, Proc};

const NODE: &str = include_str!("../../../matrix/servers/node.js");
const APP: &str = include_str!("../../../matrix/servers/app.py");
const CGI: &str = include_str!("../../../matrix/servers/cgi.sh");

/// What nginx forwards to: it makes no content that comes in parts.
const BEHIND: &str = "127.0.1.1:8002";

#[derive(Clone, Copy)]
pub enum Server {
    Node,
    Go,
    Nginx,
    Apache,
    Tomcat,
    Uvicorn,
    Gunicorn,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Go => "go",
            Self::Nginx => "nginx",
            Self::Apache => "apache",
            Self::Tomcat => "tomcat",
            Self::Uvicorn => "uvicorn",
            Self::Gunicorn => "gunicorn",
        }
    }
}

/// Starts one; it listens when this returns, and ends with what this returns.
pub fn start(ctx: &mut Ctx, server: Server, address: &str, big: &Path) -> Result<Vec<Proc>> {
    let big = big.display().to_string();
    let (host, port) = address.rsplit_once(':').context("address:port")?;
    let mut running = Vec::new();
    match server {
        Server::Node => {
            let script = ctx.file("node.js", NODE)?.display().to_string();
            running.push(ctx.spawn("node", &[&script, host, port, &big])?);
        }
        Server::Go => running.push(ctx.spawn(&built("matrix-go-server")?, &[host, port, &big])?),
        Server::Tomcat => {
            let jars = format!("{}:{JARS}", built("matrix-java.jar")?);
            running.push(ctx.spawn("java", &["-cp", &jars, "TomcatServer", host, port, &big])?)
        }
        Server::Nginx => {
            let (behind_host, behind_port) = BEHIND.rsplit_once(':').context("address:port")?;
            running.push(ctx.spawn(
                &built("matrix-go-server")?,
                &[behind_host, behind_port, &big],
            )?);
            ctx.wait_listen(BEHIND)?;
            running.push(nginx(ctx, address, &big)?);
        }
        Server::Apache => running.push(apache(ctx, address, &big)?),
        Server::Uvicorn => {
            let folder = python_folder(ctx)?;
            let big = format!("MATRIX_BIG={big}");
            let args = [
                &big,
                "python3",
                "-m",
                "uvicorn",
                "app:asgi",
                "--app-dir",
                &folder,
                "--host",
                host,
                "--port",
                port,
                "--timeout-keep-alive",
                "60",
                "--no-access-log",
            ];
            running.push(ctx.spawn("env", &args)?);
        }
        Server::Gunicorn => {
            let folder = python_folder(ctx)?;
            let big = format!("MATRIX_BIG={big}");
            let args = [
                &big,
                "gunicorn",
                "-k",
                "gthread",
                "--threads",
                "4",
                "--keep-alive",
                "60",
                "-b",
                address,
                "--chdir",
                &folder,
                "app:wsgi",
            ];
            running.push(ctx.spawn("env", &args)?);
        }
    }
    ctx.wait_listen(address)?;
    Ok(running)
}

/// Tomcat's, in the order of Debian's start script.
const JARS: &str = "/usr/share/tomcat10/lib/*:/usr/share/java/tomcat10-juli.jar:/usr/share/java/*";

fn python_folder(ctx: &mut Ctx) -> Result<String> {
    let folder = ctx.path("app");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("app.py"), APP)?;
    Ok(folder.display().to_string())
}

fn nginx(ctx: &mut Ctx, address: &str, big: &str) -> Result<Proc> {
    let root = ctx.path("nginx");
    fs::create_dir_all(&root)?;
    let root = root.display().to_string();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log warn; user root;\n\
         events {{ worker_connections 1000; }}\n\
         http {{\n\
           access_log off; client_max_body_size 0; default_type text/plain; etag on;\n\
           client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
           uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
           upstream behind {{ server {BEHIND}; keepalive 4; }}\n\
           proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;\n\
           server {{\n\
             listen {address};\n\
             location = /plain {{ add_header x-kind plain; return 200 \"plain body\\n\"; }}\n\
             location = /keepalive {{ keepalive_timeout 60s 5s; add_header x-kind keepalive; return 200 \"kept alive\\n\"; }}\n\
             location = /chunked2 {{ proxy_pass http://behind; }}\n\
             location = /close {{ chunked_transfer_encoding off; proxy_pass http://behind; }}\n\
             location = /204 {{ add_header x-kind 204; return 204; }}\n\
             location = /304 {{ add_header x-kind 304; add_header etag '\"e\"'; return 304; }}\n\
             location = /404 {{ add_header x-kind 404 always; return 404 \"not here\\n\"; }}\n\
             location = /echo {{ proxy_pass http://behind; }}\n\
             location = /big {{ add_header x-kind big; alias {big}; }}\n\
           }}\n\
         }}\n"
    );
    let file = ctx.file("nginx.conf", &config)?.display().to_string();
    ctx.spawn("nginx", &["-p", &root, "-e", "stderr", "-c", &file])
}

fn apache(ctx: &mut Ctx, address: &str, big: &str) -> Result<Proc> {
    let root = ctx.path("apache");
    fs::create_dir_all(root.join("files"))?;
    fs::write(root.join("files/plain"), "plain body\n")?;
    fs::write(root.join("files/keepalive"), "kept alive\n")?;
    fs::copy(big, root.join("files/big"))?;
    let script = root.join("cgi.sh");
    fs::write(&script, CGI)?;
    make_runnable(&script)?;
    let (root, script) = (root.display().to_string(), script.display().to_string());
    let modules: String = [
        "mpm_event",
        "authz_core",
        "alias",
        "headers",
        "env",
        "setenvif",
        "mime",
        "cgid",
    ]
    .iter()
    .map(|m| format!("LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n"))
    .collect();
    let config = format!(
        "ServerRoot {root}\nServerName shop\nPidFile {root}/pid\nErrorLog {root}/error.log\nListen {address}\n{modules}\
         User www-data\nGroup www-data\nScriptSock {root}/cgid\nTypesConfig /etc/mime.types\n\
         StartServers 1\nThreadsPerChild 25\nMaxRequestWorkers 50\nKeepAlive On\nKeepAliveTimeout 60\nMaxKeepAliveRequests 0\n\
         FileETag None\nDocumentRoot {root}/files\n\
         <Directory {root}>\n  Require all granted\n  ForceType text/plain\n</Directory>\n\
         <Files cgi.sh>\n  ForceType None\n  Options +ExecCGI\n  SetHandler cgi-script\n</Files>\n\
         ScriptAliasMatch ^/(chunked2|close|204|304|404|echo)$ {script}/$1\n\
         SetEnvIf Request_URI ^/close nokeepalive\n\
         <Location /plain>\n  Header set x-kind plain\n</Location>\n\
         <Location /keepalive>\n  Header set x-kind keepalive\n  Header set Keep-Alive timeout=5\n</Location>\n\
         <Location /big>\n  Header set x-kind big\n</Location>\n"
    );
    let file = ctx.file("apache.conf", &config)?.display().to_string();
    ctx.spawn("apache2", &["-f", &file, "-DFOREGROUND"])
}

fn make_runnable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}
