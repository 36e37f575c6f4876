// SPDX-License-Identifier: GPL-2.0
//! Virtual hosts and routes of one service, as records and index entries.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::blob::Strings;
use super::index;
use super::needles::Automata;
use super::regexes;
use crate::config::model::{
    HashOn, Match, PathMatch, Percent, Route, Service, ValueMatch, VirtualHost,
};
use crate::intf::{
    self, xlb_action, xlb_condition, xlb_index, xlb_needle, xlb_route, xlb_target, xlb_vhost,
    XLB_NONE,
};
use crate::numbers::Numbers;

/// All tables of a service. Strings are named by their numbers, as [`Strings`] gives them.
#[derive(Default)]
pub struct Tables {
    pub strings: Strings,
    pub index: Vec<xlb_index>,
    pub vhosts: Vec<xlb_vhost>,
    pub lists: Vec<u32>,
    pub routes: Vec<xlb_route>,
    pub conditions: Vec<xlb_condition>,
    pub targets: Vec<xlb_target>,
    pub actions: Vec<xlb_action>,
    pub automata: Automata,
    pub needles: Vec<xlb_needle>,
    /// Records of expressions are numbered through all of them.
    pub expressions: Vec<regexes::Tables>,
    expression_count: u32,
    /// Conditions whose expressions are in none of these yet.
    sought: Vec<Sought>,
    pub flags: u32,
    pub default_vhost: u32,
    pub max_suffix_bytes: u32,
    pub max_prefix_bytes: u32,
}

pub fn tables(service: &Service, numbers: &Numbers) -> Option<Tables> {
    let mut tables = Tables {
        default_vhost: XLB_NONE,
        ..Tables::default()
    };
    let mut route_numbers = numbers.routes(&service.name).iter();
    for (v, host) in service.virtual_hosts.iter().enumerate() {
        let v = u32::try_from(v).ok()?;
        for domain in &host.domains {
            tables.domain(domain, v)?;
        }
        let first = u32::try_from(tables.routes.len()).ok()?;
        for route in &host.routes {
            let number = *route_numbers.next()?;
            tables.route(route, number, numbers)?;
        }
        tables.vhost(host, v, first)?;
    }
    Some(tables)
}

fn count(len: usize) -> Option<u32> {
    u32::try_from(len).ok()
}

/// An enum of blob.h in one byte.
fn small(value: u32) -> Option<u8> {
    u8::try_from(value).ok()
}

/// A condition that is an expression.
struct Sought {
    condition: usize,
    text: String,
    ignore_case: bool,
}

/// The names of headers, query parameters and cookies that routes of a virtual host ask for. One parameter or cookie is
/// searched for when a route asks for it. A few are given to the kernel before, which finds them in one pass over the
/// head. Of more, and of headers, it makes a table.
#[derive(Default)]
struct Named {
    /// Kinds of which the kernel makes a table.
    all: u32,
    /// Conditions whose names it gets, each name once.
    few: Vec<u32>,
}

/// The routes that ask for a path, by that path.
type ByPath<'r> = BTreeMap<Cow<'r, str>, Vec<u32>>;

/// The same of one kind of match: with case, and without.
#[derive(Default)]
struct Lists<'r> {
    as_written: ByPath<'r>,
    lower: ByPath<'r>,
}

impl<'r> Lists<'r> {
    fn add(&mut self, path: &'r str, lower: bool, route: u32) {
        let list = match lower {
            true => self.lower.entry(path.to_ascii_lowercase().into()),
            false => self.as_written.entry(path.into()),
        };
        list.or_default().push(route);
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let all = self.as_written.keys().chain(self.lower.keys());
        all.map(|path| path.as_ref())
    }
}

#[derive(Default)]
struct Paths<'r> {
    exact: Lists<'r>,
    prefix: Lists<'r>,
}

/// What conditions ask for in one place.
#[derive(Default)]
struct Asked {
    count: usize,
    /// By the name's number: the first condition that has it.
    names: BTreeMap<u32, u32>,
}

impl Tables {
    fn domain(&mut self, domain: &str, vhost: u32) -> Option<()> {
        let (key, text, flag) = if domain == "*" {
            self.default_vhost = vhost;
            return Some(());
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.max_suffix_bytes = self.max_suffix_bytes.max(count(suffix.len())?);
            (
                intf::XLB_KEY_HOST_SUFFIX,
                suffix,
                intf::XLB_BLOB_SUFFIX_HOST,
            )
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.max_prefix_bytes = self.max_prefix_bytes.max(count(prefix.len())?);
            (
                intf::XLB_KEY_HOST_PREFIX,
                prefix,
                intf::XLB_BLOB_PREFIX_HOST,
            )
        } else {
            (intf::XLB_KEY_HOST, domain, intf::XLB_BLOB_EXACT_HOST)
        };
        self.flags |= flag;
        let at = self.strings.add(text.as_bytes())?;
        self.index.push(index::entry(
            text.as_bytes(),
            at,
            index::scope(key, 0),
            vhost,
            0,
        ));
        Some(())
    }

    fn route(&mut self, route: &Route, number: u32, numbers: &Numbers) -> Option<()> {
        let condition = count(self.conditions.len())?;
        self.conditions(&route.matches)?;
        let hash = count(self.conditions.len())?;
        self.hashes(&route.hash_on)?;
        let target = count(self.targets.len())?;
        let mut total = 0u32;
        for weighted in route.clusters.iter().filter(|t| t.weight > 0) {
            total = total.checked_add(weighted.weight)?;
            self.targets.push(xlb_target {
                cumulative: total,
                cluster: numbers.cluster_slot(&weighted.name)?,
            });
        }
        let action = count(self.actions.len())?;
        self.actions.extend(route.actions.records(
            &route.matches,
            &route.hash_on,
            &mut self.strings,
        )?);
        self.routes.push(xlb_route {
            methods: route
                .matches
                .method
                .iter()
                .fold(0, |mask, m| mask | (1 << (*m as u16))),
            flags: match route.actions.reply() {
                Some(_) => u16::try_from(intf::XLB_ROUTE_ANSWERS).ok()?,
                None => 0,
            },
            condition,
            condition_count: small(hash - condition)?,
            hash_count: small(count(self.conditions.len())? - hash)?,
            action_count: u16::try_from(count(self.actions.len())? - action).ok()?,
            number,
            target,
            target_count: count(self.targets.len())? - target,
            total_weight: total,
            action,
        });
        Some(())
    }

    fn hashes(&mut self, hash_on: &[HashOn]) -> Option<()> {
        for on in hash_on {
            let (place, name) = match on {
                HashOn::Header(name) => (intf::XLB_PLACE_HEADER, name.as_str()),
                HashOn::Query(name) => (intf::XLB_PLACE_QUERY, name.as_str()),
                HashOn::Cookie(cookie) => (intf::XLB_PLACE_COOKIE, cookie.name.as_str()),
                HashOn::SourceIp(_) => (intf::XLB_PLACE_SOURCE, ""),
            };
            let kind = match on {
                HashOn::Cookie(cookie) if cookie.ttl.is_some() => intf::XLB_CONDITION_HASH_MADE,
                _ => intf::XLB_CONDITION_HASH,
            };
            let name = self.strings.add(name.as_bytes())?;
            self.conditions.push(xlb_condition {
                kind: small(kind)?,
                place: small(place)?,
                name_page: name.page,
                name_offset: name.offset,
                name_bytes: name.bytes,
                ..xlb_condition::default()
            });
        }
        Some(())
    }

    /// In the order cheap to dear; `percent` last, for it is of those that matched so far.
    fn conditions(&mut self, matches: &Match) -> Option<()> {
        if let Some(PathMatch::StringPrefix(prefix)) = &matches.path {
            let (place, prefix) = match matches.ignore_case {
                true => (intf::XLB_PLACE_PATH_LOWER, prefix.to_ascii_lowercase()),
                false => (intf::XLB_PLACE_PATH, prefix.clone()),
            };
            self.condition(place, "", &ValueMatch::Prefix(prefix), false)?;
        }
        if let Some(PathMatch::Regex(text)) = &matches.path {
            let value = ValueMatch::Regex(text.clone());
            self.condition(intf::XLB_PLACE_PATH, "", &value, false)?;
            self.sought.last_mut()?.ignore_case = matches.ignore_case;
        }
        for (place, rules) in [
            (intf::XLB_PLACE_HEADER, &matches.headers),
            (intf::XLB_PLACE_QUERY, &matches.query),
            (intf::XLB_PLACE_COOKIE, &matches.cookies),
        ] {
            for rule in rules {
                self.condition(place, &rule.name, &rule.value, rule.invert)?;
            }
        }
        if let Some(Percent(number)) = matches.percent {
            self.conditions.push(xlb_condition {
                kind: small(intf::XLB_CONDITION_PERCENT)?,
                number,
                ..xlb_condition::default()
            });
        }
        Some(())
    }

    fn condition(
        &mut self,
        place: u32,
        name: &str,
        value: &ValueMatch,
        invert: bool,
    ) -> Option<()> {
        // The kernel has a word for each of the two.
        let (value, flags) = match value {
            ValueMatch::Present(wanted) => (&ValueMatch::Present(*wanted != invert), 0),
            value if invert => (value, intf::XLB_CONDITION_INVERT),
            value => (value, 0),
        };
        if let ValueMatch::Regex(text) = value {
            self.sought.push(Sought {
                condition: self.conditions.len(),
                text: text.clone(),
                ignore_case: false,
            });
        }
        let (kind, value) = value.condition();
        let name = self.strings.add(name.as_bytes())?;
        let at = self.strings.add(&value)?;
        self.conditions.push(xlb_condition {
            kind: small(kind)?,
            place: small(place)?,
            flags: u16::try_from(flags).ok()?,
            number: 0,
            name_page: name.page,
            name_offset: name.offset,
            name_bytes: name.bytes,
            value_page: at.page,
            value_offset: at.offset,
            value_bytes: at.bytes,
            needle: 0,
            reserved1: 0,
        });
        Some(())
    }

    /// Which names these routes ask for.
    fn named(&self, routes: std::ops::Range<u32>) -> Named {
        let mut places: BTreeMap<u8, Asked> = BTreeMap::new();
        for route in &self.routes[routes.start as usize..routes.end as usize] {
            let asked = u32::from(route.condition_count) + u32::from(route.hash_count);
            for index in route.condition..route.condition + asked {
                let c = &self.conditions[index as usize];
                if c.name_bytes > 0 {
                    let asked = places.entry(c.place).or_default();
                    asked.count += 1;
                    asked.names.entry(c.name_page).or_insert(index);
                }
            }
        }
        let mut named = Named::default();
        for (place, Asked { count, names }) in places {
            if u32::from(place) == intf::XLB_PLACE_HEADER
                || names.len() > intf::XLB_MAX_CONDITIONS as usize
            {
                named.all |= u32::from(place);
            } else if count > 1 {
                named.few.extend(names.into_values());
            }
        }
        named
    }

    /// Makes one search of those for `contains` in one value, which routes of a virtual host ask for more than once.
    /// Whether there is such.
    fn search_together(&mut self, routes: std::ops::Range<u32>) -> Option<bool> {
        // By the place and name of the value: the conditions on it, by what they look for.
        type Sought = BTreeMap<u32, Vec<usize>>;
        let mut places: BTreeMap<(u8, u32), Sought> = BTreeMap::new();
        for route in &self.routes[routes.start as usize..routes.end as usize] {
            for index in route.condition..route.condition + u32::from(route.condition_count) {
                let c = &self.conditions[index as usize];
                if u32::from(c.kind) == intf::XLB_CONDITION_CONTAINS && c.value_bytes > 0 {
                    let sought = places.entry((c.place, c.name_page)).or_default();
                    let conditions = sought.entry(c.value_page).or_default();
                    conditions.push(index as usize);
                }
            }
        }
        let mut is_some = false;
        for sought in places.into_values() {
            if sought.values().flatten().count() < 2 {
                continue;
            }
            let strings = sought.keys().map(|number| self.strings.get(*number));
            let strings: Vec<&[u8]> = strings.collect();
            // Beyond what the kernel keeps for a request: each for itself.
            let Some(search) = self.automata.add(&strings) else {
                break;
            };
            is_some = true;
            for (conditions, needle) in sought.values().zip(search.first..) {
                self.needles.push(xlb_needle {
                    root: search.root,
                    searched: search.searched,
                    needle,
                    ..xlb_needle::default()
                });
                for condition in conditions {
                    self.conditions[*condition].needle = needle;
                }
            }
        }
        Some(is_some)
    }

    /// Makes as few searches as can be of the expressions of a virtual host that look at one value. Whether there is one.
    fn match_together(&mut self) -> Option<bool> {
        // By the place and name of the value, and the expression.
        type Asked = BTreeMap<(String, bool), Vec<usize>>;
        let mut places: BTreeMap<(u8, u32), Asked> = BTreeMap::new();
        for sought in std::mem::take(&mut self.sought) {
            let c = &self.conditions[sought.condition];
            let asked = places.entry((c.place, c.name_page)).or_default();
            let expression = (sought.text, sought.ignore_case);
            asked.entry(expression).or_default().push(sought.condition);
        }
        let is_some = !places.is_empty();
        for asked in places.into_values() {
            let all: Vec<_> = asked.keys().map(|(text, i)| (text.as_str(), *i)).collect();
            for (_, tables) in regexes::together(&all)? {
                self.expressions.push(tables);
            }
            for conditions in asked.values() {
                for condition in conditions {
                    self.conditions[*condition].needle = self.expression_count;
                }
                self.expression_count += 1;
            }
        }
        Some(is_some)
    }

    /// The lists of routes by path; route `n` of the virtual host is at `first + n` in the table.
    fn vhost(&mut self, host: &VirtualHost, vhost: u32, first: u32) -> Option<()> {
        let mut any = Vec::new();
        let mut paths = Paths::default();
        for (r, route) in host.routes.iter().enumerate() {
            let route_index = first.checked_add(count(r)?)?;
            let lower = route.matches.ignore_case;
            match &route.matches.path {
                Some(PathMatch::Exact(path)) => paths.exact.add(path, lower, route_index),
                Some(PathMatch::Prefix(path)) if path != "/" => {
                    paths.prefix.add(path, lower, route_index);
                }
                Some(PathMatch::Prefix(_) | PathMatch::StringPrefix(_) | PathMatch::Regex(_))
                | None => {
                    any.push(route_index);
                }
            }
        }
        let Paths { exact, prefix } = paths;
        let routes = first..first.checked_add(count(host.routes.len())?)?;
        let has_needles = self.search_together(routes.clone())? | self.match_together()?;
        let named = self.named(routes);
        let longest = |lists: &Lists<'_>| count(lists.keys().map(str::len).max().unwrap_or(0));
        let record = xlb_vhost {
            any_list: count(self.lists.len())?,
            any_count: count(any.len())?,
            depth: u16::try_from(
                prefix
                    .keys()
                    .map(|p| p.bytes().filter(|b| *b == b'/').count())
                    .max()
                    .unwrap_or(0),
            )
            .ok()?,
            flags: u16::try_from(
                [
                    (!exact.as_written.is_empty(), intf::XLB_VHOST_PATHS),
                    (!exact.lower.is_empty(), intf::XLB_VHOST_PATHS_LOWER),
                    (!prefix.lower.is_empty(), intf::XLB_VHOST_PREFIXES_LOWER),
                    (has_needles, intf::XLB_VHOST_NEEDLES),
                ]
                .into_iter()
                .filter_map(|(is_so, flag)| is_so.then_some(flag))
                .sum::<u32>(),
            )
            .ok()?,
            reserved0: 0,
            max_path_bytes: longest(&exact)?,
            max_prefix_bytes: longest(&prefix)?,
            named: u16::try_from(named.all).ok()?,
            want_count: u16::try_from(named.few.len()).ok()?,
            want_list: count(self.lists.len() + any.len())?,
        };
        self.lists.extend(any);
        self.lists.extend(named.few);
        self.vhosts.push(record);
        self.paths(intf::XLB_KEY_PATH, vhost, &exact.as_written)?;
        self.paths(intf::XLB_KEY_PATH_LOWER, vhost, &exact.lower)?;
        self.paths(intf::XLB_KEY_PATH_PREFIX, vhost, &prefix.as_written)?;
        self.paths(intf::XLB_KEY_PATH_PREFIX_LOWER, vhost, &prefix.lower)
    }

    fn paths(&mut self, key: u32, vhost: u32, lists: &ByPath<'_>) -> Option<()> {
        for (path, routes) in lists {
            let at = self.strings.add(path.as_bytes())?;
            let list = count(self.lists.len())?;
            let scope = index::scope(key, vhost);
            self.index.push(index::entry(
                path.as_bytes(),
                at,
                scope,
                list,
                count(routes.len())?,
            ));
            self.lists.extend(routes);
        }
        Some(())
    }
}
