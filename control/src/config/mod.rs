// SPDX-License-Identifier: GPL-2.0
//! From the bytes of a file to a checked [`Config`].
//!
//! [`read`] decodes a file; [`merge`] brings it into what is applied already; [`Source::check`]
//! tells all that is wrong with the one and with the other.

pub mod action;
pub mod check;
pub mod decode;
pub mod merge;
pub mod model;
pub mod names;
pub mod node;

mod cluster;
mod excerpt;
mod json;
mod service;
mod yaml;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use decode::{path_text, Field, Issue, Issues, Place, MAX_DESCRIBED};
use excerpt::Lines;
use merge::Named;
use model::Config;
use node::{At, Node, Step, Value};

use crate::error::Error;

/// Enough for 10,000 services with 10 routes each; a larger file is a mistake.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

/// A file's content, where each of its items stands, and what is wrong with it.
pub struct Source {
    pub file: String,
    text: String,
    documents: Vec<Document>,
    /// All that could be read, of items with mistakes too: one mistake does not hide others.
    /// An item whose name could not be read has its place behind a 0 for a name, which is no
    /// name of any other.
    pub config: Config,
    /// Index in `documents`, and index in that, for each item of `config`.
    service_places: Vec<(usize, usize)>,
    cluster_places: Vec<(usize, usize)>,
}

struct Document {
    /// Index in the file, in which some may be empty.
    number: usize,
    root: Node,
    issues: Issues,
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
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::usage(format!(
            "{name}: is UTF-16, as its byte-order mark says, and not UTF-8 text: save it as UTF-8"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{name}: is not UTF-8 text: is it a configuration?")))
}

/// A byte-order mark may begin a document (YAML 1.2.2, section 5.2); files that were joined have
/// several.  It is no column of the line that it stands in.
fn without_marks(text: String) -> String {
    const MARK: char = '\u{feff}';
    if !text.contains(MARK) {
        return text;
    }
    text.split_inclusive('\n')
        .map(|line| line.trim_start_matches(MARK))
        .collect()
}

/// Decodes; what is wrong is kept for [`Source::check`].  Fails when it is no YAML at all.
pub fn parse(file: &str, text: String) -> Result<Source, Error> {
    let text = without_marks(text);
    let documents = node::parse(&text).map_err(|(at, message)| {
        let place = format!("{file}:{}:{}", at.line, at.column);
        Error::Config(vec![format!(
            "{place}: {message}{}",
            Lines::of(&text).excerpt(at)
        )])
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
    };
    for (number, root) in documents {
        let issues = Issues::default();
        source.document(Field {
            node: &root,
            place: Place::Root,
            alias: None,
            issues: &issues,
        });
        source.documents.push(Document {
            number,
            root,
            issues,
        });
    }
    Ok(source)
}

impl Source {
    /// The next one.
    fn document(&mut self, field: Field<'_>) {
        let number = self.documents.len();
        let Some(object) = field.object(&["version", "services", "clusters"]) else {
            return;
        };
        if let Some(version) = object.need("version", "version: 1") {
            if version.node.value != Value::Int(1) {
                version.wrong("this xlbctl knows version 1 only: write version: 1");
            }
        }
        let unnamed = |list: &str, index: usize| format!("\0{list}[{index}] of document {number}");
        let mut index = 0;
        if let Some(services) = object.get("services") {
            services.list(|item| {
                let place = (number, index);
                index += 1;
                let service = service::service(item, unnamed("services", place.1))?;
                self.config.services.push(service);
                self.service_places.push(place);
                Some(())
            });
        }
        index = 0;
        if let Some(clusters) = object.get("clusters") {
            clusters.list(|item| {
                let place = (number, index);
                index += 1;
                let cluster = cluster::cluster(item, unnamed("clusters", place.1))?;
                self.config.clusters.push(cluster);
                self.cluster_places.push(place);
                Some(())
            });
        }
    }

    /// Fails with all that is wrong with the file, and with `whole`, the
    /// configuration that it is to become a part of.
    pub fn check(&self, whole: &Config) -> Result<(), Error> {
        let within = Issues::default();
        check::within(&self.config, &within);
        let references = Issues::default();
        check::references(whole, &references);
        let total = within.total()
            + references.total()
            + self
                .documents
                .iter()
                .map(|d| d.issues.total())
                .sum::<usize>();
        if total == 0 {
            return Ok(());
        }

        // By document; what was applied before comes last.
        let mut found: Vec<(Option<usize>, Issue)> = Vec::new();
        for (number, document) in self.documents.iter().enumerate() {
            found.extend(
                document
                    .issues
                    .list()
                    .into_iter()
                    .map(|i| (Some(number), i)),
            );
        }
        found.extend(within.list().iter().map(|issue| self.place(issue)));
        let (services, clusters) = (
            Origins::of(&self.config.services),
            Origins::of(&self.config.clusters),
        );
        for issue in references.list() {
            found.push(match translate(whole, &issue, &services, &clusters) {
                Some(issue) => self.place(&issue),
                None => (None, issue),
            });
        }
        found.sort_by_key(|(number, issue)| (number.is_none(), issue.at));
        found.truncate(MAX_DESCRIBED);

        let lines = Lines::of(&self.text);
        let mut messages: Vec<String> = found
            .iter()
            .map(|(number, issue)| match number {
                Some(number) => self.describe(*number, issue, &lines),
                None => describe_applied(whole, issue),
            })
            .collect();
        if total > messages.len() {
            messages.push(format!(
                "{}: and {} more problems",
                self.file,
                total - messages.len()
            ));
        }
        Err(Error::Config(messages))
    }

    /// From a place in `self.config` to a document and the place in it, as it is written there.
    fn place(&self, issue: &Issue) -> (Option<usize>, Issue) {
        let found = || {
            let (first, rest) = issue.steps.split_first()?;
            let places = match first {
                Step::Key(key) if key == "services" => &self.service_places,
                _ => &self.cluster_places,
            };
            let (number, steps) = match rest.first() {
                Some(Step::Index(index)) => {
                    let (number, index) = *places.get(*index)?;
                    let mut steps = vec![first.clone(), Step::Index(index)];
                    steps.extend(rest.iter().skip(1).cloned());
                    (number, steps)
                }
                _ => (0, issue.steps.clone()),
            };
            Some((
                Some(number),
                as_written(self.documents.get(number)?, &steps, issue),
            ))
        };
        found().unwrap_or((None, issue.clone()))
    }

    fn describe(&self, number: usize, issue: &Issue, lines: &Lines<'_>) -> String {
        let mut text = self.file.clone();
        if let Some(at) = issue.at {
            text.push_str(&format!(":{}:{}", at.line, at.column));
        }
        text.push_str(": ");
        if let Some(document) = self
            .documents
            .get(number)
            .filter(|_| self.documents.len() > 1)
        {
            text.push_str(&format!("document {}: ", document.number + 1));
        }
        let path = path_text(&issue.steps);
        if !path.is_empty() {
            text.push_str(&path);
            text.push_str(": ");
        }
        text.push_str(&decode::visible(&issue.message));
        if let Some(alias) = issue.alias {
            text.push_str(&format!(
                " (it stands there by the alias in line {})",
                alias.line
            ));
        }
        if let Some(at) = issue.at {
            text.push_str(&lines.excerpt(at));
        }
        text
    }
}

/// Where in a list the items of each name are.
struct Origins<'c, T> {
    items: &'c [T],
    by_name: HashMap<&'c str, Vec<usize>>,
}

impl<'c, T: Named> Origins<'c, T> {
    fn of(items: &'c [T]) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            by_name.entry(item.name()).or_default().push(index);
        }
        Origins { items, by_name }
    }

    /// Of two items of one name it is the one that is the same.
    fn index(&self, item: &T) -> Option<usize> {
        let candidates = self.by_name.get(item.name())?;
        candidates
            .iter()
            .copied()
            .find(|index| self.items.get(*index) == Some(item))
    }
}

/// From a place in `whole` to one in the file's configuration; `None` when the item is not from
/// this file.
fn translate(
    whole: &Config,
    issue: &Issue,
    services: &Origins<'_, model::Service>,
    clusters: &Origins<'_, model::Cluster>,
) -> Option<Issue> {
    let mut issue = issue.clone();
    let (first, rest) = issue.steps.split_first_mut()?;
    let Some(Step::Index(index)) = rest.first_mut() else {
        return Some(issue);
    };
    *index = match first {
        Step::Key(key) if key == "services" => services.index(whole.services.get(*index)?)?,
        _ => clusters.index(whole.clusters.get(*index)?)?,
    };
    Some(issue)
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

/// The short forms `routes:` and `cluster:` are longer in the model than in the file, and
/// items that could not be read are not in the model.
fn as_written(document: &Document, steps: &[Step], issue: &Issue) -> Issue {
    let mut written = Vec::new();
    let mut at: Option<At> = Some(document.root.at);
    let mut alias = None;
    let mut node = Some(&document.root);
    let mut rest = steps;
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        node = match (step, node, node.map(|n| &n.value)) {
            (Step::Key(key), Some(node), Some(Value::Map(_))) => {
                let has = |name: &str| node.entry(name).is_some();
                let (name, skip) = match key.as_str() {
                    "virtual_hosts" if !has("virtual_hosts") && has("routes") => ("routes", 2),
                    "clusters" if !has("clusters") && has("cluster") => ("cluster", 1),
                    other => (other, 0),
                };
                rest = rest.get(skip..).unwrap_or(&[]);
                written.push(Step::Key(name.to_owned()));
                node.entry(name).map(|entry| &entry.node)
            }
            (Step::Index(index), Some(node), Some(Value::List(items))) => {
                // Of services and clusters it is the file's already.
                let index = match written.len() {
                    1 => *index,
                    _ => document.issues.written_index(node.at, *index),
                };
                written.push(Step::Index(index));
                items.get(index)
            }
            _ => {
                written.push(step.clone());
                None
            }
        };
        // The value itself may be missing: then the place of what it is missing from.
        at = node.map(|n| n.at).or(at);
        alias = node.and_then(|n| n.alias).or(alias);
    }
    Issue {
        steps: written,
        message: issue.message.clone(),
        at,
        alias,
    }
}

#[cfg(test)]
mod tests;
