// SPDX-License-Identifier: GPL-2.0
//! `xlbctl explain --service S METHOD URL [-H 'k: v']`

use std::borrow::Cow;

use serde::Serialize;
use xlb_engine::Reason;

use super::applied;
use super::get::{match_text, route_name};
use crate::cli::Explain;
use crate::output;
use xlb_control::config::model::{Config, Service, VirtualHost};
use xlb_control::config::{self};
use xlb_control::error::Error;
use xlb_control::numbers::route_key;
use xlb_control::policy::Head;
use xlb_control::why::Routed;

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
    /// What the route changes on the way.
    changes: Vec<String>,
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
    let head = head(args)?;
    output::emit(args.format.output, &answer(&config, service, &head)?, text)
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

/// The request as a client would write it.
fn head(args: &Explain) -> Result<Head, Error> {
    let rest = match args.url.split_once("://") {
        Some((_, rest)) if !args.url.starts_with('/') => rest,
        _ => args.url.as_str(),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let target = target.split('#').next().unwrap_or("");
    let target = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("/{target}"),
    };
    let mut host = authority;
    let mut fields = Vec::new();
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(Error::usage(format!(
                "header \"{header}\": write 'name: value'"
            )));
        };
        match (name.trim(), value.trim()) {
            (name, value) if name.eq_ignore_ascii_case("host") => host = value,
            field => fields.push(field),
        }
    }
    fields.insert(0, ("Host", host));
    Head::new(&args.method, &target, &fields).map_err(|reason| {
        let text = reason.text();
        Error::usage(match reason {
            Reason::PathForm | Reason::PathEscape | Reason::PathNul | Reason::PathParameter => {
                let path = target.split('?').next().unwrap_or("");
                format!("path {path}: {text}")
            }
            _ => format!("XLB refuses such a request: {}: {text}", reason.name()),
        })
    })
}

fn answer(config: &Config, service: &Service, head: &Head) -> Result<Answer, Error> {
    let mut answer = Answer {
        service: service.name.clone(),
        host: String::from_utf8_lossy(&head.host).into_owned(),
        path: String::from_utf8_lossy(&head.path).into_owned(),
        domain: None,
        routes: Vec::new(),
        clusters: Vec::new(),
        changes: Vec::new(),
        reply: None,
    };
    let mut routed = Routed::new(config, service, head)?;
    let Some((host, domain)) = routed.domain()? else {
        answer.reply = Some("404 no_route: no virtual host for this host".into());
        return Ok(answer);
    };
    answer.domain = Some(domain.to_owned());
    match tried(host, &mut routed, &mut answer.routes)? {
        Some(route) => {
            let actions = host.routes.get(route).map(|route| &route.actions);
            let reply = actions.and_then(|actions| actions.reply());
            answer.reply = reply.map(|reply| format!("{reply}, by the route").into());
            answer.changes = actions.map(|a| a.changes()).unwrap_or_default();
            answer.clusters = choices(config, host, route);
        }
        None => answer.reply = Some("404 no_route: no route matches".into()),
    }
    if answer.reply.is_none() && answer.clusters.iter().all(|c| c.endpoints.is_empty()) {
        answer.reply = Some("503 no_endpoint: no endpoint is eligible".into());
    }
    // What was decided may not be forwarded as it came: settle() in kmod/http1/forms.rs.
    if answer.reply.is_none() && !routed.is_forwarded_in_normal_form() {
        answer.reply = config::names::path_refusal(head.raw_path())
            .map(|reason| format!("400 bad_request: {}: {}", reason.name(), reason.text()).into());
    }
    Ok(answer)
}

/// A route with `percent` may serve, or not: it is taken as serving, and said so.
fn tried(
    host: &VirtualHost,
    routed: &mut Routed<'_>,
    tried: &mut Vec<Tried>,
) -> Result<Option<usize>, Error> {
    let serves = routed.route(host);
    let end = serves.map_or(host.routes.len(), |route| route + 1);
    for (r, route) in host.routes.iter().enumerate().take(end) {
        let name = route_name(&route_key(host, r));
        let refused = match serves == Some(r) {
            true => None,
            false => Some(routed.refusal(host, r)?.ok_or_else(|| {
                Error::system(format!(
                    "route {name} matches, and the policy takes another: this is a bug of XLB"
                ))
            })?),
        };
        tried.push(Tried {
            route: name,
            matches: match_text(&route.matches),
            refused,
        });
    }
    Ok(serves)
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
    for change in &answer.changes {
        out.push_str(&format!("  {change}\n"));
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
