// SPDX-License-Identifier: GPL-2.0

//! What tests, fuzz targets and the differential share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod checks;
pub mod drive;
pub mod reference;
pub mod rng;
pub mod smoke;

use xlb_engine::{
    Limits, Reason, RequestContext, RequestHead, RequestParser, ResponseHead, ResponseParser,
    Status,
};

/// Parses bytes that hold a whole request head, or are refused; panics when more are wanted.
pub fn request(bytes: impl AsRef<[u8]>) -> Result<RequestHead, Reason> {
    match RequestParser::new().parse(bytes.as_ref(), &Limits::DEFAULT)? {
        Status::Complete(head) => Ok(head),
        Status::Partial => panic!("no whole head: {}", bytes.as_ref().escape_ascii()),
    }
}

/// The same for a response to `to`.
pub fn response_to(to: &RequestContext, bytes: impl AsRef<[u8]>) -> Result<ResponseHead, Reason> {
    match ResponseParser::new().parse(bytes.as_ref(), &Limits::DEFAULT, to)? {
        Status::Complete(head) => Ok(head),
        Status::Partial => panic!("no whole head: {}", bytes.as_ref().escape_ascii()),
    }
}

/// The same for a response to a GET of HTTP/1.1.
pub fn response(bytes: impl AsRef<[u8]>) -> Result<ResponseHead, Reason> {
    response_to(
        &request("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?.context(),
        bytes,
    )
}

/// The files of a folder beside this crate's manifest, by name.
pub fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
