// SPDX-License-Identifier: GPL-2.0
//! The maps of `bpf/maps.h`, and the lookup that the programs do in them.
//!
//! What the kernel says to a key that is not there is NULL, and so is it here. But a blob that was compiled leads nowhere
//! that is not there: each such lookup is counted as a stray one, which tests want none of.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;

use super::head::SLOT;
use crate::compile::Compiled;
use crate::intf::*;

/// An array map: values of one size, one after the other.
pub struct Array {
    /// The programs write to them at any time.
    words: Box<[Cell<u64>]>,
    value_bytes: usize,
    #[cfg(test)]
    lookups: Box<[Cell<u32>]>,
}

impl Array {
    fn new(values: usize, value_bytes: usize) -> Array {
        assert_eq!(value_bytes % size_of::<u64>(), 0);
        Array {
            words: vec![Cell::new(0); values * value_bytes / size_of::<u64>()].into(),
            value_bytes,
            #[cfg(test)]
            lookups: vec![Cell::new(0); values].into(),
        }
    }

    fn of_blob(blob: &[u8], page_bytes: u32) -> Array {
        let page_bytes = page_bytes as usize;
        assert_eq!(blob.len() % page_bytes, 0);
        let array = Array::new(blob.len() / page_bytes, page_bytes);
        for (to, from) in array.words.iter().zip(blob.chunks_exact(size_of::<u64>())) {
            let mut word = [0; size_of::<u64>()];
            word.copy_from_slice(from);
            to.set(u64::from_ne_bytes(word));
        }
        array
    }

    fn len(&self) -> usize {
        self.words.len() * size_of::<u64>() / self.value_bytes
    }

    fn value(&self, index: u32) -> Option<*mut c_void> {
        let index = index as usize;
        #[cfg(test)]
        {
            let count = self.lookups.get(index)?;
            count.set(count.get() + 1);
        }
        let words = self.value_bytes / size_of::<u64>();
        let value = self.words.get(index * words..)?.get(..words)?;
        Some(value.as_ptr().cast_mut().cast())
    }

    /// Word `n` of 32 bits from the beginning of a value, which may lie in one after it.
    pub fn word(&self, value: u32, n: u64) -> Option<u32> {
        let at = u64::from(value) * (self.value_bytes / size_of::<u32>()) as u64 + n;
        let [a, b, c, d, e, f, g, h] = self
            .words
            .get(usize::try_from(at / 2).ok()?)?
            .get()
            .to_ne_bytes();
        Some(u32::from_ne_bytes(match at % 2 {
            0 => [a, b, c, d],
            _ => [e, f, g, h],
        }))
    }

    /// Whether so many bytes from the beginning of a value are in the map.
    pub fn has(&self, value: u32, bytes: u64) -> bool {
        let left = self.len().checked_sub(value as usize);
        left.is_some_and(|left| left > 0 && bytes <= (left * self.value_bytes) as u64)
    }
}

/// The inner maps of one outer map, by slot.
type Inner = BTreeMap<u32, Array>;

fn clusters_of(compiled: &Compiled) -> Inner {
    let array = |blob| Array::of_blob(blob, XLB_CLUSTER_PAGE_BYTES);
    let slots = compiled.clusters.iter();
    slots.map(|(slot, blob)| (*slot, array(blob))).collect()
}

/// A service's configuration and what the policy keeps of it.
pub struct Policy {
    /// Of the service; one is in force.
    blobs: Vec<Array>,
    /// Those of a slot in a later one take the place of those before, from when it is in force.
    cluster_blobs: Vec<Inner>,
    in_force: Cell<usize>,
    states: Vec<Array>,
    stats: Vec<Array>,
    /// What the programs draw.
    draws: RefCell<Box<dyn FnMut() -> u32>>,
    strays: Cell<u32>,
    /// After so many looks at which configuration is in force, the next one is.
    #[cfg(test)]
    change_after: Cell<u32>,
    /// Only clusters change then, and looks at them count.
    #[cfg(test)]
    are_clusters_alone: Cell<bool>,
}

// The maps, by whose addresses the programs name them.
extern "C" {
    static services: u8;
    static clusters: u8;
    static states: u8;
    static stats: u8;
}

thread_local! {
    static CURRENT: Cell<*const Policy> = const { Cell::new(ptr::null()) };
}

/// The policy that this thread runs.
///
/// # Safety
///
/// Called by a program, for as long as its call goes on.
pub unsafe fn current<'p>() -> &'p Policy {
    // SAFETY: `Policy::run` has set it, and borrows the policy for the time of the call.
    unsafe { CURRENT.get().as_ref() }.expect("a program runs inside of Policy::run()")
}

impl Policy {
    /// `end` is one more than the highest number. All draws are 0.
    pub fn new(compiled: &Compiled, end: u32) -> Policy {
        let pages = |of: u32, bytes: usize| {
            let page = || Array::new(of as usize, bytes);
            (0..end.div_ceil(of)).map(|_| page()).collect()
        };
        Policy {
            blobs: vec![Array::of_blob(&compiled.service, XLB_PAGE_BYTES)],
            cluster_blobs: vec![clusters_of(compiled)],
            in_force: Cell::new(0),
            states: pages(XLB_STATE_PAGE, size_of::<xlb_state>()),
            stats: pages(XLB_STATS_PAGE, size_of::<xlb_stats>()),
            draws: RefCell::new(Box::new(|| 0)),
            strays: Cell::new(0),
            #[cfg(test)]
            change_after: Cell::new(u32::MAX),
            #[cfg(test)]
            are_clusters_alone: Cell::new(false),
        }
    }

    /// Calls the programs, which find these maps.
    pub(super) fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(self);
        let result = call();
        CURRENT.set(before);
        result
    }

    pub(super) fn draw(&self) -> u32 {
        (self.draws.borrow_mut())()
    }

    /// `bpf_map_lookup_elem()` of a map whose keys are 32 bits, as all of the policy's are.
    pub(super) fn lookup(&self, map: *const c_void, key: u32) -> *mut c_void {
        let found = self.find(map, key);
        if found.is_none() {
            self.strays.set(self.strays.get() + 1);
        }
        found.unwrap_or(ptr::null_mut())
    }

    fn find(&self, map: *const c_void, key: u32) -> Option<*mut c_void> {
        let inner = |array: &Array| ptr::from_ref(array).cast_mut().cast();
        if map == (&raw const services).cast() {
            (key == SLOT).then(|| inner(self.now()))
        } else if map == (&raw const clusters).cast() {
            self.cluster(key).map(inner)
        } else if map == (&raw const states).cast() {
            self.states.get(key as usize).map(inner)
        } else if map == (&raw const stats).cast() {
            self.stats.get(key as usize).map(inner)
        } else {
            self.array(map).value(key)
        }
    }

    /// The map that a program has got from an outer one. A pointer to anything else would be a fault in the kernel.
    pub(super) fn array(&self, map: *const c_void) -> &Array {
        let of_clusters = self.cluster_blobs.iter().flat_map(BTreeMap::values);
        let all = self.blobs.iter().chain(of_clusters);
        let all = all.chain(&self.states).chain(&self.stats);
        let mut all = all.filter(|array| ptr::from_ref(*array).cast() == map);
        all.next().expect("a program looks into one of its maps")
    }

    /// The configuration in force.
    fn now(&self) -> &Array {
        #[cfg(test)]
        if !self.are_clusters_alone.get() {
            self.look();
        }
        &self.blobs[self.in_force.get().min(self.blobs.len() - 1)]
    }

    /// That of a slot. Routes that are not in force any more still find theirs.
    fn cluster(&self, slot: u32) -> Option<&Array> {
        #[cfg(test)]
        if self.are_clusters_alone.get() {
            self.look();
        }
        let mut newest = self.cluster_blobs[..=self.in_force.get()].iter().rev();
        newest.find_map(|inner| inner.get(&slot))
    }

    /// A program looks which configuration is in force.
    #[cfg(test)]
    fn look(&self) {
        match self.change_after.get().checked_sub(1) {
            None => {
                self.in_force.set(self.cluster_blobs.len() - 1);
                self.change_after.set(u32::MAX);
            }
            Some(left) => self.change_after.set(left),
        }
    }
}

#[cfg(test)]
impl Policy {
    /// What the programs draw from now on.
    pub fn set_draws(&mut self, draws: impl FnMut() -> u32 + 'static) {
        *self.draws.get_mut() = Box::new(draws);
    }

    /// Another configuration, which comes into force when a program has looked so many times which one is. What it changes
    /// together with routes is in other slots.
    pub fn change_after(&mut self, looks: u32, compiled: &Compiled) {
        self.change_clusters_after(looks, compiled);
        self.blobs
            .push(Array::of_blob(&compiled.service, XLB_PAGE_BYTES));
        self.are_clusters_alone.set(false);
    }

    /// The same of clusters alone, in the slots that they have, when a program has looked so many times for one.
    pub fn change_clusters_after(&mut self, looks: u32, compiled: &Compiled) {
        self.blobs.truncate(1);
        self.cluster_blobs.truncate(1);
        self.cluster_blobs.push(clusters_of(compiled));
        self.in_force.set(0);
        self.change_after.set(looks);
        self.are_clusters_alone.set(true);
    }

    /// Lookups of what is not there, since the last time.
    pub fn strays(&self) -> u32 {
        self.strays.take()
    }

    /// Lookups of pages of the service, since the last time.
    pub fn lookups(&self) -> u32 {
        self.blobs[0].lookups.iter().map(Cell::take).sum()
    }

    /// Counters of an item.
    pub fn stats(&self, number: u32) -> xlb_stats {
        read(&self.stats, XLB_STATS_PAGE, number)
    }

    /// Its state.
    pub fn state(&self, number: u32) -> xlb_state {
        read(&self.states, XLB_STATE_PAGE, number)
    }
}

#[cfg(test)]
fn read<T: Pod>(pages: &[Array], of: u32, number: u32) -> T {
    let page = &pages[(number / of) as usize];
    let words = size_of::<T>() / size_of::<u64>();
    let from = (number % of) as usize * words;
    let bytes: Vec<u8> = page.words[from..from + words]
        .iter()
        .flat_map(|word| word.get().to_ne_bytes())
        .collect();
    T::from_bytes(&bytes).expect("as many bytes")
}
