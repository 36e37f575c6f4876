// SPDX-License-Identifier: GPL-2.0

//! Replays `smuggling.tsv`: every published technique is refused for the reason written there, or framed as
//! every conforming peer frames it.

mod common;

use common::checks;
use common::drive::{Event, Stream};
use xlb_engine::{Limits, Method, RequestContext, Version};

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        bytes.push(match c {
            '\\' => match chars.next().unwrap() {
                'r' => b'\r',
                'n' => b'\n',
                't' => b'\t',
                '0' => 0,
                'x' => u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16).unwrap(),
                other => other as u8,
            },
            c => c as u8,
        });
    }
    bytes
}

const GET: RequestContext = RequestContext {
    method: Method::Get,
    version: Version::Http11,
    upgrade: None,
};

#[test]
fn every_technique_ends_as_the_table_says() {
    let table = include_str!("smuggling.tsv");
    let mut cases = 0;
    let mut wrong = Vec::new();
    for line in table.lines().filter(|l| !l.starts_with('#')) {
        let [name, expected, bytes] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let bytes = unescape(bytes);
        let is_response = name.starts_with("response");
        let mut stream = if is_response {
            Stream::responses(Limits::DEFAULT, GET)
        } else {
            Stream::requests(Limits::DEFAULT)
        };
        stream.feed(&bytes);
        stream.close();
        let ends = stream.events.iter().filter(|e| **e == Event::End).count();
        let got = match stream.events.last() {
            Some(Event::Refused(reason)) => reason.name().to_owned(),
            _ => format!("ok {ends}"),
        };
        if got != expected {
            wrong.push(format!("{name}: {got}, not {expected}"));
        }
        // And the same in pieces, and as the reference reads it.
        let mut input = vec![0];
        input.extend(&bytes);
        if is_response {
            input[0] = 2;
            checks::responses(&input);
        } else {
            checks::requests(&input);
            checks::rewrites(&input);
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases > 100);
}
