// SPDX-License-Identifier: GPL-2.0

//! What the policy wants done with a request beside sending it: a list in one of its maps, handed over by
//! `bpf_xlb_act()`.
//!
//! The map has a reference until the list is dropped, so what its texts say stays, whatever configuration comes meanwhile.

use core::slice;

use xlb_engine::location::Redirect;
use xlb_engine::path::NewPath;
use xlb_engine::rewrite::{FieldEdit, FieldEdits, Op};

use crate::sys;

/// What XLB answers by itself.
pub(crate) enum Reply<'a> {
    /// Status and body.
    Text(u16, &'a [u8]),
    Redirect(Redirect<'a>),
}

/// The kinds of changes to the fields of one message.
#[derive(Clone, Copy)]
struct Kinds {
    set: u32,
    add: u32,
    remove: u32,
}

/// # Invariants
///
/// It owns a reference to the map, in which `first` has `count` records of `bytes`, as the shim has checked.
pub(crate) struct Actions(sys::xlb_actions);

impl Actions {
    /// # Safety
    ///
    /// They are as the invariants say, and the reference becomes its own.
    pub(super) unsafe fn new(actions: sys::xlb_actions) -> Self {
        // INVARIANT: By the contract.
        Self(actions)
    }

    fn all(&self) -> impl Iterator<Item = sys::xlb_action> + Clone + '_ {
        let size = self.0.bytes as usize;
        (0..self.0.count as usize).map(move |n| {
            // SAFETY: By the type invariant; a record may be longer than what is known of it, and lies anywhere.
            unsafe {
                let record = self.0.first.byte_add(n * size);
                record.cast::<sys::xlb_action>().read_unaligned()
            }
        })
    }

    fn bytes(&self, page: u32, at: u16, length: u16) -> Option<&[u8]> {
        let (at, length) = (at.into(), u32::from(length));
        // SAFETY: By the type invariant the map is live.
        let text = unsafe { sys::xlb_actions_text(&raw const self.0, page, at, length) };
        // SAFETY: What is not NULL has that length, and stays as long as the map.
        (!text.is_null()).then(|| unsafe { slice::from_raw_parts(text.cast(), length as usize) })
    }

    fn text(&self, action: &sys::xlb_action) -> Option<&[u8]> {
        self.bytes(action.text_page, action.text_offset, action.text_bytes)
    }

    fn find(&self, kind: u32) -> Option<sys::xlb_action> {
        self.all().find(|action| u32::from(action.kind) == kind)
    }

    fn text_of(&self, kind: u32) -> Option<&[u8]> {
        self.text(&self.find(kind)?)
    }

    /// What XLB answers, where the route says that.
    pub(crate) fn reply(&self) -> Option<Reply<'_>> {
        if let Some(action) = self.find(sys::XLB_ACTION_RESPOND) {
            return Some(Reply::Text(action.status, self.text(&action)?));
        }
        let action = self.find(sys::XLB_ACTION_REDIRECT)?;
        Some(Reply::Redirect(Redirect {
            status: action.status,
            scheme: self.text_of(sys::XLB_ACTION_SCHEME),
            host: self.host(),
            port: self.text_of(sys::XLB_ACTION_PORT),
            path: self.path(),
        }))
    }

    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.text_of(sys::XLB_ACTION_HOST)
    }

    pub(crate) fn path(&self) -> Option<NewPath<'_>> {
        if let Some(path) = self.text_of(sys::XLB_ACTION_PATH) {
            return Some(NewPath::Whole(path));
        }
        let action = self.find(sys::XLB_ACTION_PATH_PREFIX)?;
        Some(NewPath::Prefix {
            matched: action.matched as usize,
            to: self.text(&action)?,
        })
    }

    /// Changes to the fields of the request.
    pub(crate) fn request_fields(&self) -> impl FieldEdits<'_> {
        self.fields(Kinds {
            set: sys::XLB_ACTION_REQUEST_SET,
            add: sys::XLB_ACTION_REQUEST_ADD,
            remove: sys::XLB_ACTION_REQUEST_REMOVE,
        })
    }

    /// Changes to the fields of what the client gets.
    pub(crate) fn response_fields(&self) -> impl FieldEdits<'_> {
        self.fields(Kinds {
            set: sys::XLB_ACTION_RESPONSE_SET,
            add: sys::XLB_ACTION_RESPONSE_ADD,
            remove: sys::XLB_ACTION_RESPONSE_REMOVE,
        })
    }

    /// The cookie that a client without one gets: its name, and what follows the value.
    pub(crate) fn cookie(&self) -> Option<(&[u8], &[u8])> {
        let action = self.find(sys::XLB_ACTION_COOKIE)?;
        let attributes = self.bytes(action.value_page, action.value_offset, action.value_bytes)?;
        Some((self.text(&action)?, attributes))
    }

    fn fields(&self, kinds: Kinds) -> impl FieldEdits<'_> {
        self.all().filter_map(move |action| {
            let op = match u32::from(action.kind) {
                kind if kind == kinds.set => Op::Set,
                kind if kind == kinds.add => Op::Add,
                kind if kind == kinds.remove => Op::Remove,
                _ => return None,
            };
            Some(FieldEdit {
                op,
                name: self.text(&action)?,
                value: self.bytes(action.value_page, action.value_offset, action.value_bytes)?,
            })
        })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { sys::xlb_actions_put(&raw mut self.0) };
    }
}
