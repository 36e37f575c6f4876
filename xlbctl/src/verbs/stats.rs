// SPDX-License-Identifier: GPL-2.0
//! `xlbctl stats [--watch] [-o prometheus]`

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::applied;
use super::get::route_name;
use crate::cli::{Output, Stats, StatsOutput};
use crate::output::{emit, print, table};
use xlb_control::document::Document;
use xlb_control::error::Error;
use xlb_control::intf::{self, STATS};
use xlb_control::kernel::counts::{Counts, Reader};
use xlb_control::kernel::ctl::{self, Ctl};
use xlb_control::numbers::route_key;

/// One item's counters.  Which labels are set tells what it is.
#[derive(Serialize)]
struct Row {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    outstanding: Option<u64>,
    #[serde(flatten)]
    counts: Counts,
}

impl Row {
    fn labels(&self) -> Vec<(&'static str, &str)> {
        [
            ("service", &self.service),
            ("domain", &self.domain),
            ("route", &self.route),
            ("cluster", &self.cluster),
            ("endpoint", &self.endpoint),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect()
    }
}

pub fn run(args: &Stats) -> Result<(), Error> {
    loop {
        once(args.output)?;
        if !args.watch {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
        if args.output == StatsOutput::Table {
            print("\n")?;
        }
    }
}

fn once(output: StatsOutput) -> Result<(), Error> {
    let (maps, document) = applied()?;
    let rows = rows(&document, &mut Reader::new(&maps));
    match output {
        StatsOutput::Prometheus => print(&prometheus(&rows, &Ctl::open()?.counts()?)),
        StatsOutput::Table => emit(Output::Table, &rows, |rows| text(rows)),
        StatsOutput::Json => emit(Output::Json, &rows, |_| String::new()),
        StatsOutput::Yaml => emit(Output::Yaml, &rows, |_| String::new()),
    }
}

fn rows(document: &Document, reader: &mut Reader<'_>) -> Vec<Row> {
    let numbers = &document.numbers;
    let empty = |kind| Row {
        kind,
        service: None,
        domain: None,
        route: None,
        cluster: None,
        endpoint: None,
        outstanding: None,
        counts: Counts::default(),
    };
    let mut rows = Vec::new();
    for service in &document.config.services {
        rows.push(Row {
            service: Some(service.name.clone()),
            counts: reader.counts(numbers.service(&service.name)),
            ..empty("service")
        });
    }
    for service in &document.config.services {
        let mut routes = numbers.routes(&service.name).iter();
        for host in &service.virtual_hosts {
            for r in 0..host.routes.len() {
                rows.push(Row {
                    service: Some(service.name.clone()),
                    domain: host.domains.first().cloned(),
                    route: Some(route_name(&route_key(host, r))),
                    counts: reader.counts(routes.next().copied()),
                    ..empty("route")
                });
            }
        }
    }
    for cluster in &document.config.clusters {
        rows.push(Row {
            cluster: Some(cluster.name.clone()),
            counts: reader.counts(numbers.cluster(&cluster.name)),
            ..empty("cluster")
        });
    }
    for cluster in &document.config.clusters {
        for (endpoint, number) in cluster
            .endpoints
            .iter()
            .zip(numbers.endpoints(&cluster.name))
        {
            let counts = reader.counts(Some(*number));
            rows.push(Row {
                cluster: Some(cluster.name.clone()),
                endpoint: Some(endpoint.address.to_string()),
                outstanding: Some(counts.outstanding()),
                counts,
                ..empty("endpoint")
            });
        }
    }
    rows
}

fn text(rows: &[Row]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let labels: Vec<_> = row.labels().into_iter().map(|(_, value)| value).collect();
            let c = &row.counts;
            let answered = c.requests.saturating_sub(c.errors);
            vec![
                row.kind.to_owned(),
                labels.join(" "),
                c.requests.to_string(),
                c.errors.to_string(),
                c.status_4xx.to_string(),
                c.status_5xx.to_string(),
                c.retries.to_string(),
                c.request_bytes.to_string(),
                c.response_bytes.to_string(),
                c.latency_ns
                    .checked_div(answered)
                    .map_or("-".to_owned(), |ns| (ns / 1000).to_string()),
                row.outstanding.map_or("-".to_owned(), |n| n.to_string()),
            ]
        })
        .collect();
    table(
        &[
            "KIND",
            "NAME",
            "REQUESTS",
            "ERRORS",
            "4XX",
            "5XX",
            "RETRIES",
            "BYTES-OUT",
            "BYTES-IN",
            "MEAN-US",
            "OUTSTANDING",
        ],
        &cells,
    )
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
fn prometheus(rows: &[Row], counts: &ctl::Counts) -> String {
    let mut out = String::new();
    for kind in ["service", "route", "cluster", "endpoint"] {
        for (n, stat) in STATS.iter().enumerate() {
            let name = format!("xlb_{kind}_{}", stat.name);
            head(&mut out, &format!("{name}_total"), "counter", stat.help);
            for row in rows.iter().filter(|row| row.kind == kind) {
                let value = row.counts.values().get(n).copied().unwrap_or(0);
                sample(&mut out, &format!("{name}_total"), &row.labels(), value);
            }
        }
    }
    head(
        &mut out,
        "xlb_endpoint_outstanding",
        "gauge",
        "requests picked for it and not done",
    );
    for row in rows {
        if let Some(n) = row.outstanding {
            sample(&mut out, "xlb_endpoint_outstanding", &row.labels(), n);
        }
    }
    for count in counts.counters() {
        let (name, kind) = if count.kind == intf::XLB_COUNT_GAUGE {
            (format!("xlb_{}", count.name), "gauge")
        } else {
            (format!("xlb_{}_total", count.name), "counter")
        };
        head(&mut out, &name, kind, intf::counter_help(&count.name));
        sample(&mut out, &name, &[], count.value);
    }
    head(
        &mut out,
        "xlb_reason_total",
        "counter",
        "exchanges by how they ended",
    );
    for reason in counts.of(intf::XLB_COUNT_REASON) {
        sample(
            &mut out,
            "xlb_reason_total",
            &[("reason", &reason.name)],
            reason.value,
        );
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(label, text)| {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{label}=\"{text}\"")
        })
        .collect();
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{}}} {value}", labels.join(","))
    };
}
