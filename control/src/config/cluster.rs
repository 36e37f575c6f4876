// SPDX-License-Identifier: GPL-2.0
//! Decoding of `clusters`.

use super::decode::Field;
use super::model::{Cluster, Endpoint, Lb, LbOptions, Pool};
use super::names;
use super::node::Value;
use crate::intf;

/// With what could be read, for the other checks; `place` is its name where that could not.
pub fn cluster(field: Field<'_>, place: String) -> Option<Cluster> {
    let object = field.object(&["name", "lb", "lb_options", "endpoints", "pool"])?;
    let name = object
        .need("name", "name: my-cluster")
        .and_then(names::item);
    let lb = object.get("lb").map_or(Some(Lb::RoundRobin), lb);
    let lb_options = object
        .get("lb_options")
        .map_or(Some(LbOptions::default()), |f| {
            let object = f.object(&["choices", "table_size"])?;
            let table_size = object.get("table_size").map(|f| table_size(f, lb));
            let choices = match object.get("choices") {
                Some(f) => f.number(0, intf::XLB_MAX_ENDPOINTS)?,
                None => LbOptions::default().choices,
            };
            Some(LbOptions {
                choices,
                table_size: table_size.flatten(),
            })
        });
    let endpoints = object
        .need("endpoints", "endpoints: [\"127.0.0.1:8081\"]")
        .map(endpoints);
    let options: &Option<LbOptions> = &lb_options;
    if let (Some(size), Some(list), Some(field)) = (
        options.and_then(|options| options.table_size),
        &endpoints,
        object.get("lb_options"),
    ) {
        if size < u32::try_from(list.len()).unwrap_or(u32::MAX) {
            field.wrong(format!(
                "a table of {size} has no place for each of {} endpoints: raise table_size",
                list.len()
            ));
        }
    }
    let pool = object.get("pool").map_or(Some(Pool::default()), pool);
    Some(Cluster {
        name: name.unwrap_or(place),
        lb: lb.unwrap_or(Lb::RoundRobin),
        lb_options: lb_options.unwrap_or_default(),
        endpoints: endpoints.unwrap_or_default(),
        pool: pool.unwrap_or_default(),
    })
}

fn lb(field: Field<'_>) -> Option<Lb> {
    let word = field.text()?;
    let lb = Lb::named(word);
    match word {
        _ if lb.is_some() => {}
        "ewma" => field.wrong(
            "ewma is not supported yet: write round_robin, random, least_request, ring_hash or maglev",
        ),
        _ => field.wrong(
            "unknown balancing: write round_robin, random, least_request, ring_hash or maglev",
        ),
    }
    lb
}

fn table_size(field: Field<'_>, lb: Option<Lb>) -> Option<u32> {
    let size = field.number(1, MAX_TABLE)?;
    if lb == Some(Lb::Maglev) && !is_prime(size) {
        let next = (size..).find(|n| is_prime(*n)).unwrap_or(size);
        field.wrong(format!("{size} is no prime number: write {next}"));
        return None;
    }
    Some(size)
}

/// Points of 8 MiB, places of 2 MiB.
const MAX_TABLE: u32 = intf::XLB_MAX_POINTS;

fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|d| d * d <= number);
    number > 1 && divisors.all(|divisor| number % divisor != 0)
}

fn endpoints(field: Field<'_>) -> Vec<Endpoint> {
    let endpoints = field.list(endpoint);
    if endpoints.len() > intf::XLB_MAX_ENDPOINTS as usize {
        field.wrong(format!(
            "{} endpoints; the limit in one cluster is {}",
            endpoints.len(),
            intf::XLB_MAX_ENDPOINTS
        ));
    }
    let sum: u64 = endpoints.iter().map(|e| u64::from(e.weight)).sum();
    if sum > u64::from(u32::MAX) {
        field.wrong(format!(
            "the weights add up to {sum}: keep the sum below {}",
            u32::MAX
        ));
    }
    endpoints
}

fn endpoint(field: Field<'_>) -> Option<Endpoint> {
    if matches!(field.node.value, Value::Text(_)) {
        return Some(Endpoint {
            address: field.socket_addr()?,
            weight: 1,
            drain: false,
        });
    }
    let object = field.object(&["address", "weight", "drain"])?;
    let address = object
        .need("address", "address: \"127.0.0.1:8081\"")
        .and_then(|f| f.socket_addr());
    let weight = object
        .get("weight")
        .map_or(Some(1), |f| f.number(0, u32::MAX));
    let drain = object.get("drain").map_or(Some(false), |f| f.flag());
    Some(Endpoint {
        address: address?,
        weight: weight.unwrap_or(1),
        drain: drain.unwrap_or(false),
    })
}

fn pool(field: Field<'_>) -> Option<Pool> {
    let object = field.object(&[
        "min_idle",
        "max",
        "max_pending",
        "pending_timeout",
        "idle_timeout",
        "connect_timeout",
        "max_requests",
    ])?;
    let default = Pool::default();
    let number = |key: &str, default: u32| match object.get(key) {
        Some(field) => field.number(0, u32::MAX),
        None => Some(default),
    };
    let duration = |key: &str, default: u32| match object.get(key) {
        Some(field) => field.duration_ms(),
        None => Some(default),
    };
    let min_idle = number("min_idle", default.min_idle);
    let max = number("max", default.max);
    let max_pending = number("max_pending", default.max_pending);
    let pending_timeout = duration("pending_timeout", default.pending_timeout);
    let idle_timeout = duration("idle_timeout", default.idle_timeout);
    let connect_timeout = duration("connect_timeout", default.connect_timeout);
    let max_requests = number("max_requests", default.max_requests);
    if let (Some(min_idle), Some(max)) = (min_idle, max) {
        if max != 0 && min_idle > max {
            object.wrong(format!(
                "min_idle {min_idle} is above max {max}: lower it or raise max"
            ));
        }
    }
    if connect_timeout == Some(0) {
        object.wrong("connect_timeout 0: no connection could be made in that time; write 1s");
    }
    Some(Pool {
        min_idle: min_idle?,
        max: max?,
        max_pending: max_pending?,
        pending_timeout: pending_timeout?,
        idle_timeout: idle_timeout?,
        connect_timeout: connect_timeout?,
        max_requests: max_requests?,
    })
}
