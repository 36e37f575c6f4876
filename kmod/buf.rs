// SPDX-License-Identifier: GPL-2.0

//! A growing byte buffer whose front can be consumed.
//!
//! Holds heads, bytes that wait, and replies: small things. Bodies never pass through it. Its
//! memory is counted for the object that owns it, see [`Buf::bytes`].

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use kernel::alloc::{AllocError, Allocator, Flags, NumaNode, Vec};
use kernel::prelude::*;

use crate::sys;

/// Memory charged to the cgroup of the client: that of [`crate::psock::Locked`] while one is held,
/// else that of the current task. Flags are its own, see `xlb_client_realloc()`.
pub(crate) struct ClientMemory;

// SAFETY: `xlb_client_realloc()` is `kvrealloc()`, which keeps the contents up to the smaller size;
// what it returns stays valid until it is given back to it.
unsafe impl Allocator for ClientMemory {
    const MIN_ALIGN: usize = align_of::<u64>();

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _flags: Flags,
        _nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if layout.align() > Self::MIN_ALIGN {
            return Err(AllocError);
        }
        let old = match ptr {
            Some(old) if old_layout.size() != 0 => old.as_ptr(),
            _ => ptr::null_mut(),
        };
        // SAFETY: By the trait's contract `old` is null or came from here; process context for any
        // size but 0.
        let new = unsafe { sys::xlb_client_realloc(old.cast(), layout.size()) };
        let new = if layout.size() == 0 {
            NonNull::<u64>::dangling().cast()
        } else {
            NonNull::new(new.cast::<u8>()).ok_or(AllocError)?
        };
        Ok(NonNull::slice_from_raw_parts(new, layout.size()))
    }
}

/// Bytes with a consumed part in front: `data[start..]` are the contents.
pub(crate) struct Buf {
    data: Vec<u8, ClientMemory>,
    start: usize,
}

/// What a buffer is given at first, and keeps while its owner is idle, in bytes: the head of a
/// plain client fits, and an idle p-sock stays far below its budget of 2 KiB.
pub(crate) const KEPT: usize = 512;

impl Buf {
    /// An empty buffer without memory.
    pub(crate) const fn new() -> Self {
        Self {
            data: Vec::new(),
            start: 0,
        }
    }

    /// The contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.as_slice().get(self.start..).unwrap_or(&[])
    }

    /// Number of bytes held.
    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory behind the buffer.
    pub(crate) fn memory(&self) -> usize {
        self.data.capacity()
    }

    /// Makes room for at least one more byte, growing to `max` bytes of contents at most, and
    /// returns how many fit now. May sleep.
    pub(crate) fn make_room(&mut self, max: usize) -> Result<usize> {
        let len = self.len();
        if len >= max {
            return Ok(0);
        }
        if self.start > 0 {
            self.compact();
        }
        if self.data.capacity() == len {
            let more = if len < KEPT { KEPT } else { len };
            self.data.reserve(more.min(max - len), GFP_KERNEL)?;
        }
        Ok((self.data.capacity() - len).min(max - len))
    }

    /// Makes room for `more` bytes behind the contents. May sleep.
    pub(crate) fn reserve(&mut self, more: usize) -> Result {
        self.data.reserve(more, GFP_KERNEL)?;
        Ok(())
    }

    /// Lets `fill` write at most `n` bytes behind the contents; it returns how many it wrote.
    /// Nothing is written when `n` bytes do not fit, see [`Buf::make_room`].
    pub(crate) fn fill(&mut self, n: usize, fill: impl FnOnce(*mut u8, usize) -> usize) -> usize {
        let len = self.data.len();
        let n = n.min(self.data.capacity() - len);
        let to = self.data.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        let written = fill(to, n).min(n);
        // SAFETY: `written` bytes of the spare capacity behind `len` were just initialised.
        unsafe { self.data.inc_len(written) };
        written
    }

    /// Appends `bytes`. May sleep.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result {
        self.data.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(())
    }

    /// Drops `n` bytes from the front.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.data.len());
        if self.start == self.data.len() {
            self.data.clear();
            self.start = 0;
        }
    }

    /// Drops the contents, and the memory when it is more than [`KEPT`].
    pub(crate) fn reset(&mut self) {
        self.data.clear();
        self.start = 0;
        if self.data.capacity() > KEPT {
            self.data = Vec::new();
        }
    }

    /// Gives memory beyond [`KEPT`] back when nothing is held.
    pub(crate) fn relax(&mut self) {
        if self.is_empty() && self.data.capacity() > KEPT {
            self.data = Vec::new();
        }
    }

    fn compact(&mut self) {
        let len = self.len();
        let start = self.start;
        self.data.as_mut_slice().copy_within(start.., 0);
        self.data.truncate(len);
        self.start = 0;
    }
}
