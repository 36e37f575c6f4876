// SPDX-License-Identifier: GPL-2.0

//! The engine beside httparse, Node.js (llhttp), h11 and Go's net/http on generated near-valid messages.
//!
//! Where the engine accepts a message and a peer does too, both must end it at the same byte.  Where the engine accepts and
//! a peer does not, `table.tsv` must say why, and every line of the table must be met.  Where only the peer
//! accepts, the engine is the stricter one.  Before that, the fuzz target `differential` runs for some seconds.
//!
//! Usage: `xlb-engine-differential [MESSAGES]`; peers are started by the commands in `XLB_NODE`, `XLB_H11`, `XLB_GO`.

#[path = "../../tests/common/httparse.rs"]
mod against_httparse;
#[path = "../../tests/common/mod.rs"]
mod common;
mod generate;
mod peer;

use common::rng::Rng;
use peer::{Outcome, Peer};
use std::collections::BTreeMap;
use std::process::ExitCode;
use xlb_engine::{
    Body, Framing, Limits, Method, RequestContext, RequestParser, ResponseParser, Status, Version,
};

/// The end of the first message, as far as the engine is concerned; and the end of its head.
fn engine(kind: u8, bytes: &[u8]) -> (Outcome, Option<usize>) {
    let limits = Limits::DEFAULT;
    let refused = |r: xlb_engine::Reason| Outcome::Refused(r.name().to_owned());
    let mut start = 0;
    let (framing, head) = if kind == b'q' {
        match RequestParser::new().parse(bytes, &limits) {
            Ok(Status::Complete(head)) => (head.framing, head.head_bytes as usize),
            Ok(Status::Partial) => return (Outcome::Partial, None),
            Err(reason) => return (refused(reason), None),
        }
    } else {
        let to = RequestContext {
            method: if kind == b'h' {
                Method::Head
            } else {
                Method::Get
            },
            version: Version::Http11,
            upgrade: None,
        };
        loop {
            match ResponseParser::new().parse(&bytes[start..], &limits, &to) {
                Ok(Status::Complete(head)) if head.interim => start += head.head_bytes as usize,
                Ok(Status::Complete(head)) => {
                    break (head.framing, start + head.head_bytes as usize)
                }
                Ok(Status::Partial) => return (Outcome::Partial, None),
                Err(reason) => return (refused(reason), None),
            }
        }
    };
    let mut body = Body::new(framing);
    let outcome = match body.feed(&bytes[head..], &limits) {
        Err(reason) => refused(reason),
        Ok(used) if body.is_done() || framing == Framing::UntilClose => {
            Outcome::Accepted(head + used)
        }
        Ok(_) => Outcome::Partial,
    };
    (outcome, Some(head - start))
}

/// httparse has heads only.
fn httparse_head(kind: u8, bytes: &[u8]) -> Outcome {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let (parsed, code) = if kind == b'q' {
            (httparse::Request::new(&mut fields).parse(rest), None)
        } else {
            let mut response = httparse::Response::new(&mut fields);
            (response.parse(rest), response.code)
        };
        return match parsed {
            Ok(httparse::Status::Complete(len)) if matches!(code, Some(100 | 102..=199)) => {
                at += len;
                continue;
            }
            Ok(httparse::Status::Complete(len)) => Outcome::Accepted(len),
            Ok(httparse::Status::Partial) => Outcome::Partial,
            Err(error) => Outcome::Refused(error.to_string()),
        };
    }
}

#[derive(Default)]
struct Count {
    agreed: u64,
    stricter: BTreeMap<String, u64>,
    laxer: BTreeMap<String, (u64, Vec<u8>)>,
    boundaries: Vec<String>,
}

impl Count {
    fn add(&mut self, kind: u8, message: &[u8], ours: &Outcome, theirs: &Outcome) {
        let side = if kind == b'q' { "request" } else { "response" };
        match (ours, theirs) {
            (Outcome::Accepted(a), Outcome::Accepted(b)) if a == b => self.agreed += 1,
            (Outcome::Accepted(_), Outcome::Accepted(_) | Outcome::Partial)
            | (Outcome::Partial, Outcome::Accepted(_)) => self.boundaries.push(format!(
                "{side} {}: engine {ours:?}, peer {theirs:?}: {}",
                kind as char,
                message.escape_ascii()
            )),
            (Outcome::Accepted(_), Outcome::Refused(text)) => {
                let entry = self.laxer.entry(format!("{side}\t{text}")).or_default();
                entry.0 += 1;
                if entry.1.is_empty() || message.len() < entry.1.len() {
                    entry.1 = message.to_vec();
                }
            }
            (Outcome::Refused(reason), Outcome::Accepted(_) | Outcome::Partial) => {
                *self.stricter.entry(reason.clone()).or_default() += 1;
            }
            // Neither took it, now or ever.
            (Outcome::Refused(_), Outcome::Refused(_)) | (Outcome::Partial, _) => self.agreed += 1,
        }
    }
}

/// What the fuzzer found, without the byte that chose limits and request.
fn corpus(target: &str, kind: u8) -> impl Iterator<Item = (u8, Vec<u8>)> {
    let files = common::files(&format!("../fuzz/corpus/{target}"));
    files
        .into_iter()
        .map(move |(_, data)| (kind, data.get(1..).unwrap_or(&[]).to_vec()))
}

fn run(messages: u64) -> std::io::Result<bool> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let command = |variable: &str, default: String| std::env::var(variable).unwrap_or(default);
    let mut peers = vec![
        Peer::start(
            "node",
            &command(
                "XLB_NODE",
                format!("node --no-deprecation {folder}/peers/node.js"),
            ),
        )?,
        Peer::start(
            "h11",
            &command("XLB_H11", format!("python3 {folder}/peers/h11_peer.py")),
        )?,
        Peer::start("go", &command("XLB_GO", format!("{folder}/target/go-peer")))?,
    ];
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut rng = Rng(9112);
    let mut accepted = 0;
    let generated = (0..messages).map(|i| match i % 4 {
        0 | 1 => (b'q', generate::request(&mut rng)),
        2 => (b'r', generate::response(&mut rng)),
        _ => (b'h', generate::response(&mut rng)),
    });
    let found = corpus("request", b'q').chain(corpus("response", b'r'));
    let mut messages = 0;
    for (kind, message) in generated.chain(found) {
        messages += 1;
        let (ours, head) = engine(kind, &message);
        accepted += u64::from(matches!(ours, Outcome::Accepted(_)));
        for peer in &mut peers {
            let theirs = peer.ask(kind, &message)?;
            counts
                .entry(peer.name)
                .or_default()
                .add(kind, &message, &ours, &theirs);
        }
        let heads = head.map_or(ours, Outcome::Accepted);
        let theirs = httparse_head(kind, &message);
        counts
            .entry("httparse")
            .or_default()
            .add(kind, &message, &heads, &theirs);
    }
    println!("{messages} messages, {accepted} accepted by the engine");
    Ok(report(&counts))
}

/// Prints the counts, and says whether all is as the table has it.
fn report(counts: &BTreeMap<&str, Count>) -> bool {
    let mut table: BTreeMap<String, &str> = BTreeMap::new();
    for line in include_str!("../table.tsv")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        match line.rsplit_once('\t') {
            Some((key, why)) => table.insert(key.to_owned(), why),
            None => panic!("table.tsv: {line}"),
        };
    }
    let mut good = true;
    for (peer, count) in counts {
        let stricter: u64 = count.stricter.values().sum();
        let laxer: u64 = count.laxer.values().map(|(n, _)| n).sum();
        println!(
            "{peer}: agreed {}, engine stricter {stricter} ({} reasons), engine laxer {laxer}, other boundary {}",
            count.agreed,
            count.stricter.len(),
            count.boundaries.len()
        );
        for boundary in count.boundaries.iter().take(10) {
            println!("  BOUNDARY {boundary}");
            good = false;
        }
        for (key, (n, example)) in &count.laxer {
            match table.remove(&format!("{peer}\t{key}")) {
                Some(why) => println!("  listed {key} ({n}): {why}"),
                None => {
                    println!("  NOT LISTED {key} ({n}): {}", example.escape_ascii());
                    good = false;
                }
            }
        }
    }
    for key in table.keys() {
        println!("  NOT MET {key}: this line of table.tsv describes nothing that happened");
        good = false;
    }
    good
}

fn main() -> ExitCode {
    let messages = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(40_000);
    common::smoke::smoke(
        "differential",
        "../fuzz/corpus/differential",
        against_httparse::check,
    );
    match run(messages) {
        Ok(true) => {
            println!("differential: ok");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("differential: FAILED");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}: are Node.js, Go and h11 installed? See README.md.");
            ExitCode::from(2)
        }
    }
}
