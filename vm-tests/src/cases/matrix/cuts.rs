// SPDX-License-Identifier: GPL-2.0
//! Responses that come in two pieces, cut at every byte, for readers that stop at the first short read.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::raw::{self, Reader};
use super::BACKEND;
use crate::ctx::Ctx;
use crate::script::Server;

/// Between the pieces: enough for a reader to have come back for the second.
const PAUSE: Duration = Duration::from_millis(3);

/// Bytes of a response, the content that a reader must find, and whether the backend ends the connection behind it.
struct Case {
    bytes: &'static str,
    body: &'static str,
    ends: bool,
}

const fn case(bytes: &'static str, body: &'static str, ends: bool) -> Case {
    Case { bytes, body, ends }
}

const CASES: &[Case] = &[
    case("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain", "plain", false),
    // Fields that XLB takes out.
    case(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\nalive",
        "alive",
        false,
    ),
    case(
        "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
        "final",
        false,
    ),
    case(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: t\r\n\r\n",
        "abcde",
        false,
    ),
    case("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", "to the end", true),
    case(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nclose",
        "close",
        true,
    ),
];

/// Answers `/CASE/CUT`.
fn backend() -> Result<Server> {
    Server::start(BACKEND, |mut conn, _| {
        while let Some(message) = conn.request_read()? {
            let mut words = message.path().split('/').skip(1);
            let mut number = || words.next().and_then(|w| w.parse::<usize>().ok());
            let case = number().and_then(|n| CASES.get(n)).context("case")?;
            let (first, second) = case
                .bytes
                .as_bytes()
                .split_at_checked(number().context("cut")?)
                .context("cut")?;
            conn.send(first)?;
            sleep(PAUSE);
            conn.send(second)?;
            if case.ends {
                return Ok(());
            }
        }
        Ok(())
    })
}

fn read_all<R: Reader>(ctx: &mut Ctx, address: SocketAddr) -> Result<()> {
    let limit = ctx.secs(super::LIMIT_S);
    let mut kept: Option<R> = None;
    for (number, case) in CASES.iter().enumerate() {
        for cut in 1..=case.bytes.len() {
            let mut conn = match kept.take() {
                Some(conn) => conn,
                None => R::open(address, limit)?,
            };
            let request = format!("GET /{number}/{cut} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            let (status, body, ends) =
                raw::fetch(&mut conn, request.as_bytes(), Instant::now() + limit)
                    .with_context(|| format!("case {number} cut at {cut}"))?;
            ensure!(
                status == 200 && body == case.body.as_bytes(),
                "case {number} cut at {cut}: {status} {:?}",
                String::from_utf8_lossy(&body)
            );
            if !ends && !case.ends {
                kept = Some(conn);
            }
        }
    }
    Ok(())
}

pub fn edges(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend()?;
    let address = ctx.shop(&[BACKEND])?;
    read_all::<raw::Edge>(ctx, address)
}

pub fn ring(ctx: &mut Ctx) -> Result<()> {
    let _backend = backend()?;
    let address = ctx.shop(&[BACKEND])?;
    read_all::<raw::Ring>(ctx, address)
}
