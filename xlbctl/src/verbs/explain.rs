// SPDX-License-Identifier: GPL-2.0
//! `xlbctl explain --service S METHOD URL [-H 'k: v']`

use std::borrow::Cow;

use serde::Serialize;

use super::applied;
use super::get::{match_text, route_name};
use crate::cli::Explain;
use crate::config::model::{Config, Method, Normalize, Service, VirtualHost};
use crate::config::{self};
use crate::error::Error;
use crate::matcher::{self, Request};
use crate::numbers::route_key;
use crate::output;

#[derive(Serialize)]
struct Answer {
    service: String,
    host: String,
    path: String,
    /// The domain that the host matched.
    domain: Option<String>,
    /// Routes in the order of the file, up to the one that serves.
    routes: Vec<Tried>,
    clusters: Vec<Choice>,
    /// What the client gets when nothing serves.
    reply: Option<Cow<'static, str>>,
}

#[derive(Serialize)]
struct Tried {
    route: String,
    #[serde(rename = "match")]
    matches: String,
    /// `None`: it matches.
    refused: Option<String>,
}

#[derive(Serialize)]
struct Choice {
    cluster: String,
    share_percent: f64,
    lb: &'static str,
    endpoints: Vec<String>,
}

pub fn run(args: &Explain) -> Result<(), Error> {
    let config = match &args.file {
        Some(file) => {
            let source = config::read(file)?;
            source.check(&source.config)?;
            source.config
        }
        None => applied()?.1.config,
    };
    let service = config
        .services
        .iter()
        .find(|s| s.name == args.service)
        .ok_or_else(|| unknown_service(&config, &args.service))?;
    let request = request(args)?;
    output::emit(
        args.format.output,
        &answer(&config, service, &request),
        text,
    )
}

fn unknown_service(config: &Config, name: &str) -> Error {
    let names: Vec<_> = config.services.iter().map(|s| s.name.as_str()).collect();
    Error::usage(match config::decode::closest(name, &names) {
        Some(close) => format!("there is no service {name}: did you mean {close}?"),
        None => format!(
            "there is no service {name}; there are: {}",
            names.join(", ")
        ),
    })
}

/// As the engine would present it to the policy.
fn request(args: &Explain) -> Result<Request, Error> {
    let rest = args
        .url
        .split_once("://")
        .map_or(args.url.as_str(), |(_, rest)| rest);
    let (authority, target) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let target = target.split('#').next().unwrap_or("/");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut request = Request {
        method: Method::parse(&args.method),
        query,
        raw_path: path.to_owned(),
        path: config::names::request_path(path)
            .map_err(|reason| Error::usage(format!("path {path}: {reason}")))?,
        ..Request::default()
    };
    let mut host = authority.to_owned();
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(Error::usage(format!(
                "header \"{header}\": write 'name: value'"
            )));
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name == "host" {
            host = value.to_owned();
            continue;
        }
        match request.headers.iter_mut().find(|(n, _)| *n == name) {
            Some((_, joined)) => {
                // As in the kernel: kmod/engine/src/headers.rs.
                joined.push_str(if name == "cookie" { "; " } else { "," });
                joined.push_str(value);
            }
            None => request.headers.push((name, value.to_owned())),
        }
    }
    request.host = config::names::request_host(&host);
    Ok(request)
}

fn answer(config: &Config, service: &Service, request: &Request) -> Answer {
    let mut answer = Answer {
        service: service.name.clone(),
        host: request.host.clone(),
        path: request.path.clone(),
        domain: None,
        routes: Vec::new(),
        clusters: Vec::new(),
        reply: None,
    };
    let Some((host, domain)) = matcher::virtual_host(service, &request.host) else {
        answer.reply = Some("404 no_route: no virtual host for this host".into());
        return answer;
    };
    answer.domain = Some(domain.to_owned());
    match tried(host, request, &mut answer.routes) {
        Some(route) => answer.clusters = choices(config, host, route),
        None => answer.reply = Some("404 no_route: no route matches".into()),
    }
    if answer.reply.is_none() && answer.clusters.iter().all(|c| c.endpoints.is_empty()) {
        answer.reply = Some("503 no_endpoint: no endpoint is eligible".into());
    }
    // What was decided may not be forwarded as it came: settle() in kmod/decide.rs.
    if answer.reply.is_none() && service.normalize == Normalize::Match {
        answer.reply = config::names::path_refusal(&request.raw_path)
            .map(|reason| format!("400 bad_request: {}: {}", reason.name(), reason.text()).into());
    }
    answer
}

/// A route with `percent` may serve, or not: it is taken as serving, and said so.
fn tried(host: &VirtualHost, request: &Request, tried: &mut Vec<Tried>) -> Option<usize> {
    for (r, route) in host.routes.iter().enumerate() {
        let refused = matcher::refusal(&route.matches, request, &mut |share| share > 0);
        let serves = refused.is_none();
        tried.push(Tried {
            route: route_name(&route_key(host, r)),
            matches: match_text(&route.matches),
            refused,
        });
        if serves {
            return Some(r);
        }
    }
    None
}

fn choices(config: &Config, host: &VirtualHost, route: usize) -> Vec<Choice> {
    let targets = host.routes.get(route).map_or(&[][..], |r| &r.clusters);
    let total: u64 = targets.iter().map(|t| u64::from(t.weight)).sum();
    targets
        .iter()
        .filter(|target| target.weight > 0)
        .filter_map(|target| {
            let cluster = config.clusters.iter().find(|c| c.name == target.name)?;
            Some(Choice {
                cluster: cluster.name.clone(),
                share_percent: f64::from(target.weight) * 100.0 / total as f64,
                lb: cluster.lb.name(),
                endpoints: cluster
                    .endpoints
                    .iter()
                    .filter(|e| e.is_eligible())
                    .map(|e| match e.weight {
                        1 => e.address.to_string(),
                        weight => format!("{} weight {weight}", e.address),
                    })
                    .collect(),
            })
        })
        .collect()
}

fn text(answer: &Answer) -> String {
    let mut out = format!(
        "service {}, host {}, path {}\n",
        answer.service,
        output::or_dash(&answer.host),
        answer.path
    );
    match &answer.domain {
        Some(domain) => out.push_str(&format!("virtual host: domain \"{domain}\"\n")),
        None => out.push_str("virtual host: none\n"),
    }
    for tried in &answer.routes {
        let matches = if tried.matches.is_empty() {
            "everything"
        } else {
            &tried.matches
        };
        match &tried.refused {
            Some(why) => out.push_str(&format!("route {} ({matches}): no: {why}\n", tried.route)),
            None => out.push_str(&format!("route {} ({matches}): serves\n", tried.route)),
        }
    }
    for choice in &answer.clusters {
        out.push_str(&format!(
            "cluster {} gets {:.4} % of it, {}\n",
            choice.cluster, choice.share_percent, choice.lb
        ));
        for endpoint in &choice.endpoints {
            out.push_str(&format!("  {endpoint}\n"));
        }
    }
    if let Some(reply) = &answer.reply {
        out.push_str(&format!("reply: {reply}\n"));
    }
    out
}
