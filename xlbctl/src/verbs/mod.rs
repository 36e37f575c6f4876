// SPDX-License-Identifier: GPL-2.0
//! One module for each verb.

pub mod apply;
pub mod delete;
pub mod explain;
pub mod get;
pub mod identity;
pub mod load;
mod pins;
pub mod stats;
pub mod status;
pub mod unload;
pub mod validate;

use xlb_control::document::Document;
use xlb_control::error::Error;
use xlb_control::kernel::commit::Maps;
use xlb_control::kernel::{preflight, programs};

/// The loaded maps and what is applied; an error that says why there is nothing.
fn applied() -> Result<(Maps, Document), Error> {
    let maps = loaded()?;
    let document = maps.document()?;
    Ok((maps, document))
}

fn loaded() -> Result<Maps, Error> {
    ready_to_look()?;
    if !programs::are_loaded() {
        return Err(Error::system("nothing is loaded: run xlbctl apply -f FILE"));
    }
    Maps::open()
}

/// Rights and module, for verbs that only look.
fn ready_to_look() -> Result<(), Error> {
    match preflight::permission().or_else(preflight::module) {
        Some(problem) => Err(Error::System(problem)),
        None => Ok(()),
    }
}
