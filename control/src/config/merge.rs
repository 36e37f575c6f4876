// SPDX-License-Identifier: GPL-2.0
//! Bringing a file into what is applied, by name, and what that changes.

use std::collections::HashMap;

use serde::Serialize;

use super::model::{Cluster, Config, Service};

/// An item that has a name in its list.
pub trait Named: Clone + PartialEq {
    fn name(&self) -> &str;
}

impl Named for Service {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Cluster {
    fn name(&self) -> &str {
        &self.name
    }
}

pub fn by_name<T: Named>(items: &[T]) -> HashMap<&str, &T> {
    items.iter().map(|item| (item.name(), item)).collect()
}

/// The file's items replace those of the same name; others stay, unless `prune`.
pub fn apply(applied: &Config, file: &Config, prune: bool) -> Config {
    if prune {
        return file.clone();
    }
    Config {
        services: merged(&applied.services, &file.services),
        clusters: merged(&applied.clusters, &file.clusters),
    }
}

fn merged<T: Named>(applied: &[T], file: &[T]) -> Vec<T> {
    let mut new = by_name(file);
    let mut all: Vec<T> = applied
        .iter()
        .map(|item| new.remove(item.name()).unwrap_or(item).clone())
        .collect();
    all.extend(
        file.iter()
            .filter(|item| new.contains_key(item.name()))
            .cloned(),
    );
    all
}

/// Without the items that the file names.
pub fn delete(applied: &Config, file: &Config) -> Config {
    Config {
        services: without(&applied.services, &file.services),
        clusters: without(&applied.clusters, &file.clusters),
    }
}

fn without<T: Named>(applied: &[T], file: &[T]) -> Vec<T> {
    let gone = by_name(file);
    applied
        .iter()
        .filter(|item| !gone.contains_key(item.name()))
        .cloned()
        .collect()
}

/// Names of what differs between two configurations.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Change {
    pub services: ListChange,
    pub clusters: ListChange,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct ListChange {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl Change {
    pub fn between(old: &Config, new: &Config) -> Change {
        Change {
            services: ListChange::between(&old.services, &new.services),
            clusters: ListChange::between(&old.clusters, &new.clusters),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

impl ListChange {
    fn between<T: Named>(old: &[T], new: &[T]) -> ListChange {
        let mut before = by_name(old);
        let mut change = ListChange::default();
        for item in new {
            match before.remove(item.name()) {
                None => change.added.push(item.name().to_owned()),
                Some(was) if was != item => change.changed.push(item.name().to_owned()),
                Some(_) => {}
            }
        }
        change.removed = old
            .iter()
            .filter(|item| before.contains_key(item.name()))
            .map(|item| item.name().to_owned())
            .collect();
        change
    }
}
