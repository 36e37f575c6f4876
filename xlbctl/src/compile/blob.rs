// SPDX-License-Identifier: GPL-2.0
//! The pages of a blob: tables of records, and strings.  See `bpf/blob.h`.

use std::collections::HashMap;

use crate::intf::{Pod, XLB_PAGE_BYTES};

pub const PAGE: usize = XLB_PAGE_BYTES as usize;

/// A string in the blob.  `page` counts from the first string page until [`Blob::finish`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StringAt {
    pub page: u32,
    pub offset: u16,
    pub bytes: u16,
}

/// Strings, each once, none across a page.
#[derive(Default)]
pub struct Strings {
    pages: Vec<Vec<u8>>,
    seen: HashMap<Vec<u8>, StringAt>,
}

impl Strings {
    /// `None` when it is longer than a page.
    pub fn add(&mut self, string: &[u8]) -> Option<StringAt> {
        if string.len() > PAGE {
            return None;
        }
        if let Some(at) = self.seen.get(string) {
            return Some(*at);
        }
        if self
            .pages
            .last()
            .is_none_or(|page| page.len() + string.len() > PAGE)
        {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let index = self.pages.len() - 1;
        let page = self.pages.last_mut()?;
        let at = StringAt {
            page: u32::try_from(index).ok()?,
            // An empty string at the very end of a page: any offset in the page will do.
            offset: u16::try_from(page.len().min(PAGE - 1)).ok()?,
            bytes: u16::try_from(string.len()).ok()?,
        };
        page.extend_from_slice(string);
        self.seen.insert(string.to_owned(), at);
        Some(at)
    }
}

impl Strings {
    /// The string there; empty when there is none.
    pub fn get(&self, page: u32, offset: u16, bytes: u16) -> &[u8] {
        let page = self.pages.get(page as usize).map_or(&[][..], Vec::as_slice);
        let from = page.get(offset.into()..).unwrap_or(&[]);
        from.get(..bytes.into()).unwrap_or(&[])
    }
}

/// Whole pages, the first of them for the head.
pub struct Blob {
    pages: Vec<u8>,
}

impl Blob {
    pub fn new() -> Blob {
        Blob {
            pages: vec![0; PAGE],
        }
    }

    /// The page that comes next.
    pub fn next_page(&self) -> u32 {
        u32::try_from(self.pages.len() / PAGE).unwrap_or(u32::MAX)
    }

    /// Adds a table; records have a power of two bytes, so they fill pages without a gap.
    pub fn table<T: Pod>(&mut self, records: &[T]) -> u32 {
        let page = self.next_page();
        for record in records {
            self.pages.extend_from_slice(record.bytes());
        }
        self.pad();
        page
    }

    pub fn strings(&mut self, strings: &Strings) -> u32 {
        let page = self.next_page();
        for string_page in &strings.pages {
            self.pages.extend_from_slice(string_page);
            self.pad();
        }
        page
    }

    fn pad(&mut self) {
        self.pages
            .resize(self.pages.len().next_multiple_of(PAGE), 0);
    }

    /// With its head, as the value of each entry of the inner map.
    pub fn finish(mut self, head: &impl Pod) -> Vec<u8> {
        let bytes = head.bytes();
        if let Some(room) = self.pages.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.pages
    }
}
