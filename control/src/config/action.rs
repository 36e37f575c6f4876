// SPDX-License-Identifier: GPL-2.0
//! What a route does with a request beside sending it, or instead: what it is called in files, and its record for the policy.
//!
//! What the module does then is in `kmod/policy/actions.rs`.

use serde::{Deserialize, Serialize};

use super::decode::{Field, Object};
use super::names;
use crate::compile::Strings;
use crate::intf::{self, xlb_action};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Actions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
}

/// XLB answers by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Respond {
    /// From 200 to 599.
    pub status: u16,
    /// Plain text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}

impl Actions {
    /// Fields of a route that say what the client gets, instead of clusters.
    pub const INSTEAD: [&'static str; 1] = ["respond"];

    pub(super) fn of(route: &Object<'_, '_>) -> Actions {
        Actions {
            respond: route.get("respond").and_then(respond),
        }
    }

    /// What the client gets, where that is no endpoint's answer; as lists show it.
    pub fn reply(&self) -> Option<String> {
        let respond = self.respond.as_ref();
        respond.map(|respond| format!("respond {}", respond.status))
    }

    /// The first of them is what the client gets. `None` as of [`crate::compile::Group::add`].
    pub(crate) fn records(&self, strings: &mut Strings) -> Option<Vec<xlb_action>> {
        let mut records = Vec::new();
        if let Some(respond) = &self.respond {
            let text = strings.add(respond.body.as_bytes())?;
            records.push(xlb_action {
                kind: u16::try_from(intf::XLB_ACTION_RESPOND).ok()?,
                status: respond.status,
                text_page: text.page,
                text_offset: text.offset,
                text_bytes: text.bytes,
                ..xlb_action::default()
            });
        }
        Some(records)
    }
}

fn respond(field: Field<'_>) -> Option<Respond> {
    let object = field.object(&["status", "body"])?;
    let status = object
        .need("status", "status: 403")
        .and_then(|f| f.number(200, 599));
    let body = object.get("body").map_or(Some(String::new()), names::text);
    let (status, body) = (u16::try_from(status?).ok()?, body?);
    // RFC 9110, sections 15.3.5 and 15.4.5.
    if matches!(status, 204 | 304) && !body.is_empty() {
        field.wrong(format!("a response {status} has no body: leave it out"));
        return None;
    }
    Some(Respond { status, body })
}
