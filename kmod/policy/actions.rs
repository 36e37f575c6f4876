// SPDX-License-Identifier: GPL-2.0

//! What the policy wants done with a request beside sending it: a list in one of its maps, handed over by
//! `bpf_xlb_act()`.
//!
//! The map has a reference until the list is dropped, so what its texts say stays, whatever configuration comes meanwhile.

use core::slice;

use crate::sys;

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

    fn all(&self) -> impl Iterator<Item = sys::xlb_action> + '_ {
        let size = self.0.bytes as usize;
        (0..self.0.count as usize).map(move |n| {
            // SAFETY: By the type invariant; a record may be longer than what is known of it, and lies anywhere.
            unsafe {
                let record = self.0.first.byte_add(n * size);
                record.cast::<sys::xlb_action>().read_unaligned()
            }
        })
    }

    fn text(&self, action: &sys::xlb_action) -> Option<&[u8]> {
        let (page, at) = (action.text_page, action.text_offset.into());
        let length = u32::from(action.text_bytes);
        // SAFETY: By the type invariant the map is live.
        let text = unsafe { sys::xlb_actions_text(&raw const self.0, page, at, length) };
        // SAFETY: What is not NULL has that length, and stays as long as the map.
        (!text.is_null()).then(|| unsafe { slice::from_raw_parts(text.cast(), length as usize) })
    }

    /// What XLB answers: status and body.
    pub(crate) fn respond(&self) -> Option<(u16, &[u8])> {
        let mut all = self.all();
        let action = all.find(|a| u32::from(a.kind) == sys::XLB_ACTION_RESPOND)?;
        Some((action.status, self.text(&action)?))
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { sys::xlb_actions_put(&raw mut self.0) };
    }
}
