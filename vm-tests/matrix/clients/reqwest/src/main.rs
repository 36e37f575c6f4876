// SPDX-License-Identifier: GPL-2.0
//! reqwest as a client of the matrix; `vm-tests/matrix/README.md` has the arguments and the output.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response, Version};
use serde_json::{json, Map, Value};

const SHOWN: [&str; 4] = ["content-type", "content-length", "x-kind", "etag"];

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(all())
}

async fn all() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, limit, big, requests, targets @ ..] = args.as_slice() else {
        return Err("LIMIT_MS BIG_FILE REQUESTS NAME=URL...".into());
    };
    let limit = Duration::from_millis(limit.parse()?);
    let big = std::fs::read(big)?;
    for target in targets {
        let (via, url) = target.split_once('=').ok_or("NAME=URL")?;
        let client = Client::builder().timeout(limit).build()?;
        for request in requests.split(';') {
            let words: Vec<&str> = request.split(',').collect();
            let [kind, method, path, body, flag] = words.as_slice() else {
                return Err(format!("what is {request}?").into());
            };
            let mut builder = client.request(
                Method::from_bytes(method.as_bytes())?,
                format!("{url}{path}"),
            );
            let length: usize = body.parse()?;
            if length > 0 {
                builder = builder.body(big.get(..length).ok_or("body")?.to_vec());
            }
            builder = match *flag {
                "expect" => builder.header("expect", "100-continue"),
                "http10" => builder.version(Version::HTTP_10),
                "close" => builder.header("connection", "close"),
                _ => builder,
            };
            let begin = Instant::now();
            let mut line = match builder.send().await {
                Ok(response) => judge(response).await,
                Err(error) => json!({ "error": explain(&error) }),
            };
            line["via"] = json!(via);
            line["kind"] = json!(kind);
            line["ms"] = json!(begin.elapsed().as_millis() as u64);
            println!("{line}");
        }
    }
    Ok(())
}

async fn judge(response: Response) -> Value {
    let status = response.status().as_u16();
    let mut headers = Map::new();
    for name in SHOWN {
        if let Some(value) = response.headers().get(name).and_then(|v| v.to_str().ok()) {
            headers.insert(name.to_owned(), json!(value));
        }
    }
    match response.bytes().await {
        Ok(body) => json!({
            "status": status, "headers": headers, "error": null,
            "length": body.len(), "crc": crc32fast::hash(&body),
        }),
        Err(error) => json!({ "status": status, "headers": headers, "error": explain(&error) }),
    }
}

fn explain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
