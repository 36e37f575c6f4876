// SPDX-License-Identifier: GPL-2.0
//! What is applied, as it is kept in the kernel beside the maps made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::model::Config;
use crate::error::{Context, Error};
use crate::intf::XLB_LAYOUT;
use crate::kernel::cgroup;
use crate::numbers::Numbers;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    pub layout: u32,
    /// Raised by each apply.
    pub generation: u64,
    /// An apply has begun and not ended: the maps may be partly of the one before.
    pub pending: bool,
    pub config: Config,
    pub numbers: Numbers,
    /// Ids of the cgroups that `config` names, when it was applied.
    pub cgroups: BTreeMap<String, u64>,
}

impl Default for Document {
    fn default() -> Self {
        Document {
            layout: XLB_LAYOUT,
            generation: 0,
            pending: false,
            config: Config::default(),
            numbers: Numbers::default(),
            cgroups: BTreeMap::new(),
        }
    }
}

impl Document {
    /// The cgroups that it names are those that it was applied to.
    pub fn is_current(&self) -> bool {
        self.cgroups
            .iter()
            .all(|(path, id)| cgroup::id_of(path) == Some(*id))
    }

    /// Length, then JSON.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let json = serde_json::to_vec(self).context("cannot encode the document")?;
        let mut bytes = (json.len() as u64).to_ne_bytes().to_vec();
        bytes.extend(json);
        Ok(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Document, Error> {
        let json = Document::json(bytes)?;
        // The layout first: a document of another one may have other fields.
        #[derive(Deserialize)]
        struct Layout {
            layout: u32,
        }
        let layout: Layout = serde_json::from_slice(json).map_err(|_| broken())?;
        if layout.layout != XLB_LAYOUT {
            return Err(Error::system(format!(
                "what is loaded has layout {}, this xlbctl knows layout {XLB_LAYOUT}: run xlbctl load, which replaces \
                 the loaded policy by this xlbctl's and keeps what is applied",
                layout.layout
            )));
        }
        serde_json::from_slice(json).map_err(|_| broken())
    }

    /// As [`Document::decode`], of whatever layout: what it does not know is left out.
    pub fn decode_any(bytes: &[u8]) -> Result<Document, Error> {
        serde_json::from_slice(Document::json(bytes)?).map_err(|_| broken())
    }

    fn json(bytes: &[u8]) -> Result<&[u8], Error> {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
        let length = usize::try_from(u64::from_ne_bytes(*length)).map_err(|_| broken())?;
        rest.get(..length).ok_or_else(broken)
    }
}

fn broken() -> Error {
    Error::system("the applied document is broken: run xlbctl unload --force, then apply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_encoding() {
        let document = Document {
            generation: 7,
            ..Document::default()
        };
        let mut bytes = document.encode().expect("encodes");
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        assert_eq!(Document::decode(&bytes).expect("decodes").generation, 7);
        assert!(Document::decode(&[1, 2, 3]).is_err());
        assert!(Document::decode(&[0xff; 64]).is_err());
    }
}
