// SPDX-License-Identifier: GPL-2.0
//! From the bytes of a file to a checked [`Config`].
//!
//! [`read`] decodes a file; [`merge`] brings it into what is applied already; [`Source::check`]
//! tells all that is wrong with the one and with the other.

pub mod check;
pub mod decode;
pub mod merge;
pub mod model;
pub mod names;
pub mod node;

mod cluster;
mod service;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

use decode::{path_text, Field, Issue, Issues, Place};
use model::Config;
use node::{Node, Step};

use crate::error::Error;

/// Enough for 10,000 services with 10 routes each; a larger file is a mistake.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// More problems than this are counted, not printed.
const MAX_PRINTED: usize = 100;

/// A file's content, where each of its items stands, and what is wrong with it.
pub struct Source {
    pub file: String,
    text: String,
    /// With its index in the file.
    documents: Vec<(usize, Node)>,
    pub config: Config,
    /// Document and index in it, for each item of `config`.
    service_places: Vec<(usize, usize)>,
    cluster_places: Vec<(usize, usize)>,
    /// Clusters that could not be decoded: there, though not in `config`.
    broken_clusters: HashSet<String>,
    issues: Vec<(usize, Issue)>,
}

/// Reads `-` from standard input.
pub fn read(file: &str) -> Result<Source, Error> {
    let name = if file == "-" { "standard input" } else { file };
    parse(name, load(file, name)?)
}

fn load(file: &str, name: &str) -> Result<String, Error> {
    let failed = |err: io::Error| Error::usage(format!("{name}: {err}"));
    let too_large = || {
        Error::usage(format!(
            "{name}: larger than {} MiB, the limit of one file: is it a configuration?",
            MAX_FILE_BYTES >> 20
        ))
    };
    let mut reader: Box<dyn Read> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(failed)?;
        let meta = opened.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(Error::usage(format!("{name}: is a directory: name a file")));
        }
        if meta.len() > MAX_FILE_BYTES {
            return Err(too_large());
        }
        Box::new(opened)
    };
    let mut bytes = Vec::new();
    reader
        .by_ref()
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{name}: is not UTF-8 text: is it a configuration?")))
}

/// Decodes; what is wrong is kept for [`Source::check`].  Fails when it is no YAML at all.
pub fn parse(file: &str, text: String) -> Result<Source, Error> {
    let documents = node::parse(&text).map_err(|(line, message)| {
        Error::usage(match line {
            Some(line) => format!("{file}:{line}: {message}"),
            None => format!("{file}: {message}"),
        })
    })?;
    if documents.is_empty() {
        return Err(Error::usage(format!(
            "{file}: is empty: a configuration begins with \"version: 1\""
        )));
    }

    let mut source = Source {
        file: file.to_owned(),
        text,
        documents: Vec::new(),
        config: Config::default(),
        service_places: Vec::new(),
        cluster_places: Vec::new(),
        broken_clusters: HashSet::new(),
        issues: Vec::new(),
    };
    for (number, document) in &documents {
        let sink = Issues::default();
        source.document(
            *number,
            Field {
                node: document,
                place: Place::Root,
                issues: &sink,
            },
        );
        source
            .issues
            .extend(sink.into_vec().into_iter().map(|issue| (*number, issue)));
    }
    source.documents = documents;
    Ok(source)
}

impl Source {
    fn document(&mut self, number: usize, field: Field<'_>) {
        let Some(object) = field.object(&["version", "services", "clusters"]) else {
            return;
        };
        if let Some(version) = object.need("version", "version: 1") {
            if *version.node != Node::Int(1) {
                version.wrong("this xlbctl knows version 1 only: write version: 1");
            }
        }
        let mut index = 0;
        if let Some(services) = object.get("services") {
            services.list(|item| {
                let place = (number, index);
                index += 1;
                self.config.services.push(service::service(item)?);
                self.service_places.push(place);
                Some(())
            });
        }
        index = 0;
        if let Some(clusters) = object.get("clusters") {
            clusters.list(|item| {
                let place = (number, index);
                index += 1;
                let Some(cluster) = cluster::cluster(item) else {
                    self.broken_clusters.extend(name_of(item.node));
                    return None;
                };
                self.config.clusters.push(cluster);
                self.cluster_places.push(place);
                Some(())
            });
        }
    }

    /// Fails with all that is wrong with the file, and with `whole`, the
    /// configuration that it is to become a part of.
    pub fn check(&self, whole: &Config) -> Result<(), Error> {
        let mut lines: Vec<(usize, String)> = Vec::new();
        let mut total = 0;
        let mut add = |found: Option<(usize, Issue)>, otherwise: &Issue| {
            total += 1;
            if lines.len() < MAX_PRINTED {
                lines.push(match found {
                    Some((number, issue)) => self.describe(number, &issue),
                    None => (usize::MAX, describe_applied(whole, otherwise)),
                });
            }
        };
        for (number, issue) in &self.issues {
            add(Some((*number, issue.clone())), issue);
        }
        for issue in check::within(&self.config) {
            add(self.place(&issue), &issue);
        }
        for issue in check::references(whole, &self.broken_clusters) {
            add(
                self.translate(whole, &issue)
                    .and_then(|issue| self.place(&issue)),
                &issue,
            );
        }
        if total == 0 {
            return Ok(());
        }
        lines.sort();
        let mut messages: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
        if total > messages.len() {
            messages.push(format!(
                "{}: and {} more problems",
                self.file,
                total - messages.len()
            ));
        }
        Err(Error::Config(messages))
    }

    /// From a place in `whole` to one in `self.config`; `None` when the item is not from this file.
    fn translate(&self, whole: &Config, issue: &Issue) -> Option<Issue> {
        let mut issue = issue.clone();
        let (first, rest) = issue.steps.split_first_mut()?;
        let Some(Step::Index(index)) = rest.first_mut() else {
            return Some(issue);
        };
        *index = match first {
            Step::Key(key) if key == "services" => {
                let name = &whole.services.get(*index)?.name;
                self.config.services.iter().position(|s| s.name == *name)?
            }
            _ => {
                let name = &whole.clusters.get(*index)?.name;
                self.config.clusters.iter().position(|c| c.name == *name)?
            }
        };
        Some(issue)
    }

    /// From a place in `self.config` to a document and the place in it, as it is written there.
    fn place(&self, issue: &Issue) -> Option<(usize, Issue)> {
        let (first, rest) = issue.steps.split_first()?;
        let places = match first {
            Step::Key(key) if key == "services" => &self.service_places,
            _ => &self.cluster_places,
        };
        let Some(Step::Index(index)) = rest.first() else {
            return Some((0, issue.clone()));
        };
        let (number, index) = *places.get(*index)?;
        let mut steps = vec![first.clone(), Step::Index(index)];
        steps.extend(rest.iter().skip(1).cloned());
        let steps = as_written(self.document_at(number)?, &steps);
        Some((
            number,
            Issue {
                steps,
                message: issue.message.clone(),
            },
        ))
    }

    fn document_at(&self, number: usize) -> Option<&Node> {
        self.documents
            .iter()
            .find(|(index, _)| *index == number)
            .map(|(_, node)| node)
    }

    fn describe(&self, number: usize, issue: &Issue) -> (usize, String) {
        // The value itself may be missing: then the line of what it is missing from.
        let line = (0..=issue.steps.len())
            .rev()
            .find_map(|n| node::line_of(&self.text, number, issue.steps.get(..n)?));
        let mut text = self.file.clone();
        if let Some(line) = line {
            text.push_str(&format!(":{line}"));
        }
        text.push_str(": ");
        if self.documents.len() > 1 {
            text.push_str(&format!("document {}: ", number + 1));
        }
        let path = path_text(&issue.steps);
        if !path.is_empty() {
            text.push_str(&path);
            text.push_str(": ");
        }
        text.push_str(&issue.message);
        (line.unwrap_or(0), text)
    }
}

fn name_of(node: &Node) -> Option<String> {
    let Node::Map(entries) = node else {
        return None;
    };
    entries.iter().find_map(|(key, value)| match value {
        Node::Text(name) if key == "name" => Some(name.clone()),
        _ => None,
    })
}

/// For a place in what was applied before: the item's name instead of its index.
fn describe_applied(whole: &Config, issue: &Issue) -> String {
    let name = match issue.steps.as_slice() {
        [Step::Key(key), Step::Index(index), ..] if key == "services" => whole
            .services
            .get(*index)
            .map(|s| format!("service {}", s.name)),
        [Step::Key(_), Step::Index(index), ..] => whole
            .clusters
            .get(*index)
            .map(|c| format!("cluster {}", c.name)),
        _ => None,
    };
    format!(
        "applied configuration: {}: {}: {}",
        name.unwrap_or_default(),
        path_text(issue.steps.get(2..).unwrap_or(&[])),
        issue.message
    )
}

/// The short forms `routes:` and `cluster:` are longer in the model than in the file.
fn as_written(document: &Node, steps: &[Step]) -> Vec<Step> {
    let mut written = Vec::new();
    let mut node = Some(document);
    let mut rest = steps;
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match (step, node) {
            (Step::Key(key), Some(Node::Map(entries))) => {
                let has = |name: &str| entries.iter().any(|(key, _)| key == name);
                let (name, skip) = match key.as_str() {
                    "virtual_hosts" if !has("virtual_hosts") && has("routes") => ("routes", 2),
                    "clusters" if !has("clusters") && has("cluster") => ("cluster", 1),
                    other => (other, 0),
                };
                rest = rest.get(skip..).unwrap_or(&[]);
                node = entries
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value);
                written.push(Step::Key(name.to_owned()));
            }
            (Step::Index(index), Some(Node::List(items))) => {
                node = items.get(*index);
                written.push(step.clone());
            }
            _ => {
                node = None;
                written.push(step.clone());
            }
        }
    }
    written
}

#[cfg(test)]
mod tests;
