// SPDX-License-Identifier: GPL-2.0
//! Where a request goes and why, for `explain`: the policy is asked, here as in the kernel.
//!
//! One run of it says which route serves. Why the routes above do not is asked a condition at a time: what is in the table of
//! conditions there; a path, a method and a domain, which are none, by a service that has nothing else.

use crate::compile;
use crate::config::action::Actions;
use crate::config::model::{
    Config, Match, NamedMatch, PathMatch, Route, Service, ValueMatch, VirtualHost,
};
use crate::error::Error;
use crate::intf::{xlb_route, XLB_DECISION_FORWARD_NORMAL, XLB_REASON_NO_ROUTE};
use crate::numbers::{Before, Numbers};
use crate::policy::{Asked, Decision, Head, Policy};

pub struct Routed<'c> {
    service: &'c Service,
    head: &'c Head,
    compiled: Compiled,
    asked: Asked<'c>,
    decision: Decision,
}

struct Compiled {
    numbers: Numbers,
    service: compile::Compiled,
    policy: Policy,
}

impl Compiled {
    fn new(config: &Config, service: &Service) -> Result<Compiled, Error> {
        let mut numbers = Numbers::default();
        let numbered = numbers
            .assign(config, &Before::of(&Config::default()), |_| true)
            .ok();
        let compiled = numbered.and_then(|_| compile::Compiled::new(config, service, &numbers, 1));
        let compiled = compiled.ok_or_else(|| {
            Error::usage(format!("service {}: too large to be applied", service.name))
        })?;
        let policy = Policy::new(&compiled, numbers.end());
        Ok(Compiled {
            numbers,
            service: compiled,
            policy,
        })
    }

    /// Of a service of its own, with the routes to no cluster.
    fn alone(virtual_hosts: Vec<VirtualHost>) -> Result<Compiled, Error> {
        let config = Config {
            services: vec![Service {
                name: String::new(),
                listen: Vec::new(),
                normalize: Default::default(),
                upgrades: Vec::new(),
                cgroups: Vec::new(),
                virtual_hosts,
            }],
            clusters: Vec::new(),
        };
        Compiled::new(&config, &config.services[0])
    }
}

impl<'c> Routed<'c> {
    /// No draws are made: a `percent` above 0 holds.
    pub fn new(config: &Config, service: &'c Service, head: &'c Head) -> Result<Self, Error> {
        let compiled = Compiled::new(config, service)?;
        let mut asked = Asked::new(head);
        let decision = compiled.policy.route(&mut asked);
        Ok(Routed {
            service,
            head,
            compiled,
            asked,
            decision,
        })
    }

    /// The virtual host, and the domain of it that the host matched.
    pub fn domain(&self) -> Result<Option<(&'c VirtualHost, &'c str)>, Error> {
        let all = self.service.virtual_hosts.iter();
        let all = all.flat_map(|host| host.domains.iter().map(move |d| (host, d.as_str())));
        let each = all.clone().map(|(_, domain)| VirtualHost {
            domains: vec![domain.to_owned()],
            routes: Vec::new(),
        });
        let compiled = Compiled::alone(each.collect())?;
        let found = compiled.policy.vhost(&mut Asked::new(self.head));
        Ok(found.and_then(|place| all.clone().nth(place as usize)))
    }

    /// The route of that virtual host that serves.
    pub fn route(&self, host: &VirtualHost) -> Option<usize> {
        let Decision { reason, decision } = &self.decision;
        let numbers = self.compiled.numbers.routes(&self.service.name);
        let numbers = numbers.iter().skip(self.first_route(host));
        let mut numbers = numbers.take(host.routes.len());
        let found = numbers.position(|number| *number == decision.route);
        found.filter(|_| *reason != XLB_REASON_NO_ROUTE)
    }

    /// Where the routes of a virtual host begin among all of the service.
    fn first_route(&self, host: &VirtualHost) -> usize {
        let hosts = self.service.virtual_hosts.iter();
        let before = hosts.take_while(|other| other.domains != host.domains);
        before.map(|other| other.routes.len()).sum()
    }

    /// The request is forwarded with its path in normal form.
    pub fn is_forwarded_in_normal_form(&self) -> bool {
        u32::from(self.decision.decision.flags) & XLB_DECISION_FORWARD_NORMAL != 0
    }

    /// Why a route of that virtual host does not match, or `None` when all of its conditions hold.
    pub fn refusal(&mut self, host: &VirtualHost, route: usize) -> Result<Option<String>, Error> {
        let first = self.first_route(host);
        let matches = &host.routes[route].matches;
        if let Some(path) = &matches.path {
            let alone = Match {
                path: Some(path.clone()),
                ignore_case: matches.ignore_case,
                ..Match::default()
            };
            if !self.holds(alone)? {
                let asked = String::from_utf8_lossy(&self.head.path);
                return Ok(Some(match path {
                    PathMatch::Exact(path) => format!("path {asked} is not {path}"),
                    PathMatch::Prefix(path) => format!("path {asked} is not {path} or below it"),
                    PathMatch::StringPrefix(path) => {
                        format!("path {asked} does not begin with {path}")
                    }
                    PathMatch::Regex(text) => format!("path {asked} does not match {text}"),
                }));
            }
        }
        if !matches.method.is_empty() {
            let alone = Match {
                method: matches.method.clone(),
                ..Match::default()
            };
            if !self.holds(alone)? {
                return Ok(Some("another method".to_owned()));
            }
        }
        // As compile/routes.rs has them: a path that is one is the first.
        let is_condition = matches!(
            matches.path,
            Some(PathMatch::StringPrefix(_) | PathMatch::Regex(_))
        );
        let mut index = self.record(first + route)?.condition + u32::from(is_condition);
        let headers = matches.headers.iter().map(|rule| (Kind::Header, rule));
        let query = matches.query.iter().map(|rule| (Kind::Query, rule));
        let cookies = matches.cookies.iter().map(|rule| (Kind::Cookie, rule));
        for (kind, rule) in headers.chain(query).chain(cookies) {
            if !self.condition(index) {
                let what = self.value_refusal(kind, rule)?;
                return Ok(Some(format!("{} {} {what}", kind.text(), rule.name)));
            }
            index += 1;
        }
        Ok(match matches.percent {
            Some(share) if !self.condition(index) => Some(format!("not in its {share} per cent")),
            _ => None,
        })
    }

    fn condition(&mut self, index: u32) -> bool {
        self.compiled.policy.condition(&mut self.asked, index)
    }

    fn value_refusal(&self, kind: Kind, rule: &NamedMatch) -> Result<String, Error> {
        let what = rule.refusal();
        if matches!(rule.value, ValueMatch::Present(_)) {
            return Ok(what);
        }
        let present = kind.alone(NamedMatch {
            name: rule.name.clone(),
            value: ValueMatch::Present(true),
            invert: false,
        });
        Ok(match self.holds(present)? {
            true => what,
            false => "is absent".to_owned(),
        })
    }

    /// Whether the request matches that and nothing else.
    fn holds(&self, matches: Match) -> Result<bool, Error> {
        let compiled = Compiled::alone(vec![VirtualHost {
            domains: vec!["*".to_owned()],
            routes: vec![Route {
                name: None,
                matches,
                clusters: Vec::new(),
                hash_on: Vec::new(),
                actions: Actions::default(),
            }],
        }])?;
        let decided = compiled.policy.route(&mut Asked::new(self.head));
        Ok(decided.reason != XLB_REASON_NO_ROUTE)
    }

    /// A route by its place among all of the service, which is also that in the table.
    fn record(&self, place: usize) -> Result<xlb_route, Error> {
        let service = &self.compiled.service;
        let record = service
            .head()
            .map(|head| service.record(head.route_base, place));
        record
            .flatten()
            .ok_or_else(|| Error::system("a route is not in its table: this is a bug of xlbctl"))
    }
}

/// What a rule with a name is about.
#[derive(Clone, Copy)]
enum Kind {
    Header,
    Query,
    Cookie,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::Header => "header",
            Kind::Query => "query parameter",
            Kind::Cookie => "cookie",
        }
    }

    fn alone(self, rule: NamedMatch) -> Match {
        let mut matches = Match::default();
        match self {
            Kind::Header => &mut matches.headers,
            Kind::Query => &mut matches.query,
            Kind::Cookie => &mut matches.cookies,
        }
        .push(rule);
        matches
    }
}
