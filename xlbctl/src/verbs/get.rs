// SPDX-License-Identifier: GPL-2.0
//! `xlbctl get services|routes|clusters|endpoints|pools|sockets`

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::{applied, ready_to_look};
use crate::cli::{Get, Kind};
use crate::output::{emit, or_dash, table};
use crate::verbs::identity::{usual_congestion, Identity};
use xlb_control::config::action::Actions;
use xlb_control::config::model::{Match, Method, PathMatch};
use xlb_control::document::Document;
use xlb_control::error::Error;
use xlb_control::intf::{self, unmapped, xlb_pool_info, xlb_socket_info};
use xlb_control::kernel::cgroup;
use xlb_control::kernel::counts::Reader;
use xlb_control::kernel::ctl::Ctl;
use xlb_control::numbers::route_key;

pub fn run(args: &Get) -> Result<(), Error> {
    let output = args.format.output;
    match args.kind {
        Kind::Services => {
            let (_, document) = applied()?;
            emit(output, &document.config.services, |_| services(&document))
        }
        Kind::Routes => {
            let (_, document) = applied()?;
            let rows = routes(&document);
            emit(output, &rows, |rows| {
                let rows: Vec<_> = rows.iter().map(RouteRow::cells).collect();
                table(&["SERVICE", "DOMAINS", "ROUTE", "MATCH", "CLUSTERS"], &rows)
            })
        }
        Kind::Clusters => {
            let (_, document) = applied()?;
            emit(output, &document.config.clusters, |_| clusters(&document))
        }
        Kind::Endpoints => {
            let (maps, document) = applied()?;
            let rows = endpoints(&document, &mut Reader::new(&maps));
            emit(output, &rows, |rows| {
                let rows: Vec<_> = rows.iter().map(EndpointRow::cells).collect();
                table(
                    &[
                        "CLUSTER",
                        "ENDPOINT",
                        "WEIGHT",
                        "STATE",
                        "OUTSTANDING",
                        "REQUESTS",
                        "ERRORS",
                    ],
                    &rows,
                )
            })
        }
        Kind::Pools => {
            ready_to_look()?;
            let document = applied().map(|(_, document)| document).unwrap_or_default();
            let rows = pools(&Ctl::open()?.pools()?, &document);
            let usual = usual_congestion();
            emit(output, &rows, |rows| {
                let rows: Vec<_> = rows.iter().map(|row| row.cells(&usual)).collect();
                table(
                    &[
                        "CGROUP",
                        "NETNS",
                        "CLUSTER",
                        "ENDPOINT",
                        "IDLE",
                        "ACTIVE",
                        "CONNECTING",
                        "PENDING",
                        "CREATED",
                        "REUSED",
                        "IDENTITY",
                    ],
                    &rows,
                )
            })
        }
        Kind::Sockets => {
            ready_to_look()?;
            let document = applied().map(|(_, document)| document).unwrap_or_default();
            let rows = sockets(&Ctl::open()?.sockets()?, &document);
            emit(output, &rows, |rows| {
                let rows: Vec<_> = rows.iter().map(SocketRow::cells).collect();
                table(
                    &[
                        "PID", "COMMAND", "CGROUP", "SERVICE", "VIP", "STATE", "RECV-Q", "SEND-Q",
                        "ENDPOINT", "REQUESTS",
                    ],
                    &rows,
                )
            })
        }
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

fn services(document: &Document) -> String {
    let rows: Vec<_> = document
        .config
        .services
        .iter()
        .map(|service| {
            let routes: usize = service
                .virtual_hosts
                .iter()
                .map(|host| host.routes.len())
                .sum();
            let cgroups = if service.cgroups.is_empty() {
                "/".to_owned()
            } else {
                join(&service.cgroups)
            };
            vec![
                service.name.clone(),
                join(&service.listen),
                cgroups,
                routes.to_string(),
            ]
        })
        .collect();
    table(&["SERVICE", "LISTEN", "CGROUPS", "ROUTES"], &rows)
}

fn clusters(document: &Document) -> String {
    let rows: Vec<_> = document
        .config
        .clusters
        .iter()
        .map(|cluster| {
            let eligible = cluster.endpoints.iter().filter(|e| e.is_eligible()).count();
            vec![
                cluster.name.clone(),
                cluster.lb.name().to_owned(),
                format!("{eligible}/{}", cluster.endpoints.len()),
                cluster.pool.max.to_string(),
                cluster.pool.max_pending.to_string(),
            ]
        })
        .collect();
    table(
        &["CLUSTER", "LB", "ENDPOINTS", "POOL-MAX", "MAX-PENDING"],
        &rows,
    )
}

#[derive(Serialize)]
struct RouteRow {
    service: String,
    domains: Vec<String>,
    route: String,
    #[serde(rename = "match")]
    matches: String,
    clusters: Vec<String>,
    #[serde(flatten)]
    actions: Actions,
}

impl RouteRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            join(&self.domains),
            self.route.clone(),
            or_dash(&self.matches),
            self.actions.reply().unwrap_or_else(|| join(&self.clusters)),
        ]
    }
}

fn routes(document: &Document) -> Vec<RouteRow> {
    let mut rows = Vec::new();
    for service in &document.config.services {
        for host in &service.virtual_hosts {
            for (r, route) in host.routes.iter().enumerate() {
                let total: u64 = route.clusters.iter().map(|t| u64::from(t.weight)).sum();
                rows.push(RouteRow {
                    service: service.name.clone(),
                    domains: host.domains.clone(),
                    route: route_name(&route_key(host, r)),
                    matches: match_text(&route.matches),
                    clusters: route
                        .clusters
                        .iter()
                        .map(|target| {
                            if route.clusters.len() == 1 {
                                target.name.clone()
                            } else {
                                format!("{}:{}/{total}", target.name, target.weight)
                            }
                        })
                        .collect(),
                    actions: route.actions.clone(),
                });
            }
        }
    }
    rows
}

/// The part of a route's key behind the domain.
pub fn route_name(key: &str) -> String {
    key.split_once('|').map_or(key, |(_, name)| name).to_owned()
}

/// All conditions in one line.
pub fn match_text(matches: &Match) -> String {
    let mut parts = Vec::new();
    if !matches.method.is_empty() {
        let names: Vec<_> = Method::ALL
            .iter()
            .filter(|(_, method)| matches.method.contains(method))
            .map(|(name, _)| *name)
            .collect();
        parts.push(names.join("|"));
    }
    match &matches.path {
        Some(PathMatch::Prefix(path)) => parts.push(format!("prefix {path}")),
        Some(PathMatch::Exact(path)) => parts.push(format!("exact {path}")),
        Some(PathMatch::StringPrefix(path)) => parts.push(format!("string_prefix {path}")),
        Some(PathMatch::Regex(text)) => parts.push(format!("regex {text}")),
        None => {}
    }
    if matches.ignore_case {
        parts.push("ignore_case".to_owned());
    }
    let lists = [
        ("", &matches.headers),
        ("?", &matches.query),
        ("cookie ", &matches.cookies),
    ];
    for (kind, rule) in lists
        .iter()
        .flat_map(|(kind, list)| list.iter().map(move |r| (kind, r)))
    {
        parts.push(format!("{kind}{}", rule.shown()));
    }
    if let Some(percent) = matches.percent {
        parts.push(format!("{percent}%"));
    }
    parts.join(" ")
}

#[derive(Serialize)]
struct EndpointRow {
    cluster: String,
    endpoint: SocketAddr,
    weight: u32,
    state: &'static str,
    outstanding: u64,
    requests: u64,
    errors: u64,
}

impl EndpointRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.cluster.clone(),
            self.endpoint.to_string(),
            self.weight.to_string(),
            self.state.to_owned(),
            self.outstanding.to_string(),
            self.requests.to_string(),
            self.errors.to_string(),
        ]
    }
}

fn endpoints(document: &Document, reader: &mut Reader<'_>) -> Vec<EndpointRow> {
    let mut rows = Vec::new();
    for cluster in &document.config.clusters {
        let numbers = document.numbers.endpoints(&cluster.name);
        for (endpoint, number) in cluster.endpoints.iter().zip(numbers) {
            let counts = reader.counts(Some(*number));
            rows.push(EndpointRow {
                cluster: cluster.name.clone(),
                endpoint: endpoint.address,
                weight: endpoint.weight,
                state: match (endpoint.drain, endpoint.weight) {
                    (true, _) => "draining",
                    (false, 0) => "off",
                    _ => "serving",
                },
                outstanding: counts.outstanding(),
                requests: counts.requests,
                errors: counts.errors,
            });
        }
    }
    rows
}

#[derive(Serialize)]
struct PoolRow {
    cgroup: String,
    netns: u32,
    cluster: String,
    endpoint: SocketAddr,
    idle: u32,
    active: u32,
    connecting: u32,
    pending: u32,
    created: u64,
    reused: u64,
    identity: Identity,
}

impl PoolRow {
    fn cells(&self, usual: &str) -> Vec<String> {
        vec![
            self.cgroup.clone(),
            self.netns.to_string(),
            self.cluster.clone(),
            self.endpoint.to_string(),
            self.idle.to_string(),
            self.active.to_string(),
            self.connecting.to_string(),
            self.pending.to_string(),
            self.created.to_string(),
            self.reused.to_string(),
            self.identity.text(usual),
        ]
    }
}

pub fn cgroup_name(paths: &HashMap<u64, String>, id: u64) -> String {
    // A removed cgroup has no path any more.
    paths.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))
}

fn pools(pools: &[xlb_pool_info], document: &Document) -> Vec<PoolRow> {
    let paths = cgroup::paths();
    let clusters = document.numbers.cluster_names();
    pools
        .iter()
        .map(|pool| PoolRow {
            cgroup: cgroup_name(&paths, pool.cgroup_id),
            netns: pool.netns,
            // The pool of a removed cluster lives until its connections are closed.
            cluster: clusters
                .get(&pool.cluster)
                .map_or_else(|| format!("#{}", pool.cluster), |name| (*name).to_owned()),
            endpoint: SocketAddr::new(unmapped(pool.addr), pool.port),
            idle: pool.idle,
            active: pool.active,
            connecting: pool.connecting,
            pending: pool.pending,
            created: pool.created,
            reused: pool.reused,
            identity: Identity::of(pool),
        })
        .collect()
}

#[derive(Serialize)]
struct SocketRow {
    id: u64,
    pid: u32,
    command: String,
    cgroup: String,
    netns: u32,
    service: String,
    vip: SocketAddr,
    state: &'static str,
    receive_bytes: u32,
    send_bytes: u32,
    endpoint: Option<SocketAddr>,
    requests: u64,
}

impl SocketRow {
    fn cells(&self) -> Vec<String> {
        vec![
            self.pid.to_string(),
            or_dash(&self.command),
            self.cgroup.clone(),
            self.service.clone(),
            self.vip.to_string(),
            self.state.to_owned(),
            self.receive_bytes.to_string(),
            self.send_bytes.to_string(),
            self.endpoint
                .map_or("-".to_owned(), |endpoint| endpoint.to_string()),
            self.requests.to_string(),
        ]
    }
}

fn sockets(sockets: &[xlb_socket_info], document: &Document) -> Vec<SocketRow> {
    let paths = cgroup::paths();
    let mut commands = HashMap::new();
    sockets
        .iter()
        .filter(|socket| socket.state != intf::XLB_SOCKET_PLAIN)
        .map(|socket| SocketRow {
            id: socket.id,
            pid: socket.pid,
            command: commands
                .entry(socket.pid)
                .or_insert_with(|| command(socket.pid))
                .clone(),
            cgroup: cgroup_name(&paths, socket.cgroup_id),
            netns: socket.netns,
            service: document
                .numbers
                .service_in(socket.service)
                .map_or_else(|| format!("#{}", socket.service), str::to_owned),
            vip: SocketAddr::new(unmapped(socket.vip), socket.vip_port),
            state: state_name(socket.state),
            receive_bytes: socket.receive_bytes,
            send_bytes: socket.send_bytes,
            endpoint: (socket.endpoint_port != 0)
                .then(|| SocketAddr::new(unmapped(socket.endpoint), socket.endpoint_port)),
            requests: socket.requests,
        })
        .collect()
}

/// The name of a process; empty when it is gone.
pub fn command(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

pub fn state_name(state: u32) -> &'static str {
    match state {
        intf::XLB_SOCKET_IDLE => "idle",
        intf::XLB_SOCKET_REQUEST_HEAD => "request-head",
        intf::XLB_SOCKET_WAITING => "waiting",
        intf::XLB_SOCKET_ACTIVE => "active",
        intf::XLB_SOCKET_TUNNEL => "tunnel",
        intf::XLB_SOCKET_CLOSING => "closing",
        intf::XLB_SOCKET_PLAIN => "plain-tcp",
        _ => "unknown",
    }
}
