// SPDX-License-Identifier: GPL-2.0
//! The bytes of a blob: records, tables of them, and strings.  See `bpf/blob.h`.

use std::collections::HashMap;

use crate::intf::{xlb_group, Pod, XLB_PAGE_BYTES};

pub const PAGE: usize = XLB_PAGE_BYTES as usize;

/// A string of a blob. Until it has its place `page` is its number among [`Strings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StringAt {
    pub page: u32,
    pub offset: u16,
    pub bytes: u16,
}

/// Strings, each once.
#[derive(Default)]
pub struct Strings {
    all: Vec<Vec<u8>>,
    seen: HashMap<Vec<u8>, u32>,
}

impl Strings {
    /// `None` when it is longer than a page.
    pub fn add(&mut self, string: &[u8]) -> Option<StringAt> {
        if string.len() > PAGE {
            return None;
        }
        let number = match self.seen.get(string) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.all.len()).ok()?;
                self.all.push(string.to_owned());
                self.seen.insert(string.to_owned(), number);
                number
            }
        };
        Some(StringAt {
            page: number,
            offset: 0,
            bytes: u16::try_from(string.len()).ok()?,
        })
    }

    /// The string of a number; empty when there is none.
    pub fn get(&self, number: u32) -> &[u8] {
        self.all.get(number as usize).map_or(&[], Vec::as_slice)
    }
}

/// Where the strings of a blob are, by their numbers.
pub struct Places(Vec<(u32, u16)>);

impl Places {
    /// Puts the place of a string where its number is.
    pub fn put(&self, page: &mut u32, offset: &mut u16) -> Option<()> {
        (*page, *offset) = *self.0.get(*page as usize)?;
        Some(())
    }
}

/// A blob, or the blobs of some services one behind the other.
pub struct Blob {
    bytes: Vec<u8>,
    group: xlb_group,
}

impl Blob {
    pub fn new() -> Blob {
        let group = xlb_group::default();
        Blob {
            bytes: group.bytes().to_vec(),
            group,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Which `struct xlb_blob` is that of a service.
    pub fn set_head(&mut self, slot: u32, head: u32) {
        let place = slot as usize % self.group.head.len();
        self.group.head[place] = head;
    }

    /// Takes away what a service has added since the blob had that length.
    pub fn cut(&mut self, len: usize, slot: u32) {
        self.bytes.truncate(len);
        self.set_head(slot, 0);
    }

    /// Adds a table; which record of the blob its first one is.
    pub fn table<T: Pod>(&mut self, records: &[T]) -> Option<u32> {
        self.pad(size_of::<T>());
        let base = self.bytes.len() / size_of::<T>();
        for record in records {
            self.bytes.extend_from_slice(record.bytes());
        }
        u32::try_from(base).ok()
    }

    /// Writes over a record.
    pub fn set<T: Pod>(&mut self, record: u32, value: &T) {
        let at = record as usize * size_of::<T>();
        if let Some(room) = self.bytes.get_mut(at..at + size_of::<T>()) {
            room.copy_from_slice(value.bytes());
        }
    }

    /// Adds a table of those that begin with a page; the page.
    pub fn pages<T: Pod>(&mut self, records: &[T]) -> Option<u32> {
        self.pad(PAGE);
        self.table(records)?;
        let bytes = size_of_val(records);
        u32::try_from((self.bytes.len() - bytes) / PAGE).ok()
    }

    /// Adds the strings, none across a page. An empty one needs no place.
    pub fn strings(&mut self, strings: &Strings) -> Option<Places> {
        let mut places = Vec::with_capacity(strings.all.len());
        for string in &strings.all {
            if string.is_empty() {
                places.push((0, 0));
                continue;
            }
            if self.bytes.len() % PAGE + string.len() > PAGE {
                self.pad(PAGE);
            }
            let (page, offset) = (self.bytes.len() / PAGE, self.bytes.len() % PAGE);
            places.push((u32::try_from(page).ok()?, u16::try_from(offset).ok()?));
            self.bytes.extend_from_slice(string);
        }
        Some(Places(places))
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// The pages, one after the other.
    pub fn finish(mut self) -> Vec<u8> {
        let group = self.group;
        self.set(0, &group);
        self.pad(PAGE);
        self.bytes
    }
}
