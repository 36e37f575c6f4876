// SPDX-License-Identifier: GPL-2.0
//! Faults wherever an object of these caches is made: also in works and softirqs, and in the backend's calls.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Result};

use super::nth::{get, prepare, set, Nth};
use super::talk::{backend, socket, talk, Ask, BACKEND};
use crate::ctx::{Ctx, VIP4};

/// One of so many allocations fails.
const EVERY: &str = "7";

/// Caches of what a connection and a request are made of.
const CACHES: [&str; 5] = [
    "xlb_psock",
    "TCP",
    "skbuff_head_cache",
    "skbuff_fclone_cache",
    "request_sock_TCP",
];

/// Sets SLAB_FAILSLAB on the caches; those that there are.
fn mark_caches(value: &str) -> usize {
    CACHES
        .iter()
        .filter(|cache| fs::write(format!("/sys/kernel/slab/{cache}/failslab"), value).is_ok())
        .count()
}

/// Requests go on while allocations fail, more slowly, and what fails says so.
pub fn anywhere(ctx: &mut Ctx) -> Result<()> {
    const TIMES: u32 = 300;
    let _server = backend(BACKEND)?;
    ctx.shop_with(&[BACKEND], "round_robin", "  pool: {idle_timeout: 5s}\n")?;
    prepare()?;
    let vip = VIP4.parse()?;
    // The caches of the first connection are made before they are marked.
    let sock = socket(vip, 0, ctx.secs(20))?;
    sock.connect(vip)?;
    talk(&mut Nth::none(), &sock, &Ask::get("/first"))?;
    let marked = mark_caches("1");
    ensure!(marked >= 3, "{marked} caches can be told to fail");
    set("failslab/cache-filter", "Y")?;
    set("failslab/task-filter", "N")?;
    set("failslab/interval", EVERY)?;
    set("failslab/times", &TIMES.to_string())?;
    set("failslab/probability", "100")?;
    let result = requests(ctx, 150);
    set("failslab/probability", "0")?;
    set("failslab/interval", "1")?;
    mark_caches("0");
    let injected = TIMES - get("failslab/times")?;
    set("failslab/times", "-1")?;
    set("failslab/cache-filter", "N")?;
    let (right, failed) = result?;
    println!("anywhere: {injected} faults: {right} right, {failed} errors");
    ensure!(
        injected >= 50 && right >= 50,
        "{injected} faults, {right} right"
    );
    let sock = socket(vip, 0, ctx.secs(20))?;
    sock.connect(vip)?;
    let after = talk(&mut Nth::none(), &sock, &Ask::get("/after"))?;
    ensure!(after.text == "right", "afterwards: {}", after.text);
    Ok(())
}

/// How many were right, and how many ended with an error that may be.
fn requests(ctx: &Ctx, count: u32) -> Result<(u32, u32)> {
    let vip = VIP4.parse()?;
    let (mut right, mut failed) = (0, 0);
    for n in 0..count {
        let path = ["/plain", "/chunked", "/changed", "/big"]
            .get(n as usize % 4)
            .copied()
            .unwrap_or("/");
        let went = (|| {
            let sock = socket(vip, n % 10, ctx.secs(30))?;
            sock.connect(vip)?;
            talk(&mut Nth::none(), &sock, &Ask::get(path))
        })();
        match went {
            Ok(went) => {
                ensure!(went.text == "right", "request {n}: {}", went.text);
                right += 1;
            }
            Err(error) => {
                let text = format!("{error:#}");
                let clean = [
                    "ENOMEM",
                    "ENOBUFS",
                    "ECONNRESET",
                    "EPIPE",
                    "503 no_memory",
                    "503 connect_failed",
                    // A packet that was dropped for want of memory comes again when it is too late.
                    "504 timeout",
                ];
                ensure!(
                    clean.iter().any(|c| text.contains(c)),
                    "request {n}: {text}"
                );
                failed += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((right, failed))
}
