// SPDX-License-Identifier: GPL-2.0
//! The bytes in which the applied document is kept: a head, and items that are read one by one.
//!
//! ```text
//! Head | Root as JSON | an Entry for each service, then for each cluster | their items
//!
//! item of a service:  name | Service as JSON | an Address for each VIP | a number for each route
//! item of a cluster:  name | Cluster without endpoints as JSON | an Endpoint, with its number, for each
//! ```
//!
//! Who changes one cluster of many reads that one and copies the bytes of the others.  The format has a number of its own: an
//! xlbctl of another XLB_LAYOUT reads it too, and leaves out what it does not know.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::config::merge::by_name;
use crate::config::model::{self, Cluster, Config, Service};
use crate::document::Document;
use crate::error::{Context, Error};
use crate::intf::{mapped, Pod, XLB_LAYOUT};
use crate::numbers::{Item, Numbers, Supply};

/// Another one is not read. (Documents before the first began with their length.)
const FORMAT: u32 = u32::from_le_bytes(*b"XLB\x01");

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    format: u32,
    /// 0, or as [`Document::pending`].
    pending: u32,
    layout: u32,
    root_bytes: u32,
    service_count: u32,
    cluster_count: u32,
    generation: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Root {
    supply: Supply,
    cgroups: BTreeMap<String, u64>,
}

/// Where an item is, and its [`Item`] in numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    at: u64,
    name_bytes: u32,
    json_bytes: u32,
    number: u32,
    slot: u32,
    /// Routes or endpoints.
    part_count: u32,
    vip_count: u32,
}

/// A [`SocketAddr`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Address {
    /// As [`mapped`].
    addr: [u8; 16],
    scope: u32,
    port: u16,
    flags: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Endpoint {
    address: Address,
    weight: u32,
    number: u32,
}

const V6: u16 = 1;
/// Of an endpoint that is drained.
const DRAIN: u16 = 2;

// SAFETY: integers without padding, as the assertion below says.
unsafe impl Pod for Head {}
// SAFETY: as above.
unsafe impl Pod for Entry {}
// SAFETY: as above.
unsafe impl Pod for Address {}
// SAFETY: as above.
unsafe impl Pod for Endpoint {}
const _: () = assert!(
    size_of::<Head>() == 32
        && size_of::<Entry>() == 32
        && size_of::<Address>() == 24
        && size_of::<Endpoint>() == 32
);

impl Address {
    fn of(address: SocketAddr) -> Address {
        let (scope, flags) = match address {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(v6) => (v6.scope_id(), V6),
        };
        Address {
            addr: mapped(address.ip()),
            scope,
            port: address.port(),
            flags,
        }
    }

    fn address(&self) -> SocketAddr {
        let v6 = Ipv6Addr::from(self.addr);
        match v6.to_ipv4_mapped() {
            Some(v4) if self.flags & V6 == 0 => SocketAddr::new(IpAddr::V4(v4), self.port),
            _ => SocketAddr::V6(SocketAddrV6::new(v6, self.port, 0, self.scope)),
        }
    }
}

impl Endpoint {
    fn of(endpoint: &model::Endpoint, number: u32) -> Endpoint {
        let mut address = Address::of(endpoint.address);
        address.flags |= if endpoint.drain { DRAIN } else { 0 };
        Endpoint {
            address,
            weight: endpoint.weight,
            number,
        }
    }

    fn model(&self) -> model::Endpoint {
        model::Endpoint {
            address: self.address.address(),
            weight: self.weight,
            drain: self.address.flags & DRAIN != 0,
        }
    }
}

/// An item's bytes, in their parts.
struct Parts<'b> {
    name: &'b str,
    json: &'b [u8],
    vips: &'b [u8],
    /// Of routes or endpoints.
    rest: &'b [u8],
}

fn records<'b, T: Pod + 'b>(bytes: &'b [u8]) -> impl Iterator<Item = T> + 'b {
    bytes.chunks_exact(size_of::<T>()).map(T::from_record)
}

pub struct Stored {
    bytes: Vec<u8>,
    head: Head,
    root: Root,
    services: Vec<Entry>,
    clusters: Vec<Entry>,
}

impl Default for Stored {
    /// Nothing is applied.
    fn default() -> Stored {
        Stored {
            bytes: Vec::new(),
            head: Head {
                format: FORMAT,
                layout: XLB_LAYOUT,
                ..Head::default()
            },
            root: Root::default(),
            services: Vec::new(),
            clusters: Vec::new(),
        }
    }
}

impl Stored {
    /// Of whatever layout; behind it may be anything.
    pub fn read(bytes: Vec<u8>) -> Result<Stored, Error> {
        let head = Head::from_bytes(&bytes).ok_or_else(broken)?;
        if head.format != FORMAT {
            return Err(Error::system(
                "what is applied was written by another xlbctl, whose format this one does not know: \
                 use that one, or run xlbctl unload --force, then apply",
            ));
        }
        let rest = bytes.get(size_of::<Head>()..).ok_or_else(broken)?;
        let (root, rest) = rest
            .split_at_checked(head.root_bytes as usize)
            .ok_or_else(broken)?;
        let root = serde_json::from_slice(root).map_err(|_| broken())?;
        let count = head.service_count as usize + head.cluster_count as usize;
        let entries = count.checked_mul(size_of::<Entry>());
        let entries = entries.and_then(|bytes| rest.get(..bytes));
        let mut services: Vec<Entry> = records(entries.ok_or_else(broken)?).collect();
        let clusters = services.split_off(head.service_count as usize);
        Ok(Stored {
            bytes,
            head,
            root,
            services,
            clusters,
        })
    }

    pub fn layout(&self) -> u32 {
        self.head.layout
    }

    pub fn is_pending(&self) -> bool {
        self.head.pending != 0
    }

    /// As [`Stored::whole`], and of the layout of this xlbctl.
    pub fn document(&self) -> Result<Document, Error> {
        self.ensure_layout()?;
        self.whole()
    }

    pub fn ensure_layout(&self) -> Result<(), Error> {
        if self.head.layout == XLB_LAYOUT {
            return Ok(());
        }
        Err(Error::system(format!(
            "what is loaded has layout {}, this xlbctl knows layout {XLB_LAYOUT}: run xlbctl load, which replaces \
             the loaded policy by this xlbctl's and keeps what is applied",
            self.head.layout
        )))
    }

    /// All of it.
    pub fn whole(&self) -> Result<Document, Error> {
        self.decode(&self.services, &self.clusters)
    }

    pub fn all(&self) -> Result<Part<'_>, Error> {
        self.ensure_layout()?;
        Ok(Part {
            document: self.whole()?,
            stored: self,
            is_all: true,
        })
    }

    /// Some clusters and no service. `None` when one of them is not there.
    pub fn clusters(&self, names: &HashSet<&str>) -> Result<Option<Part<'_>>, Error> {
        self.ensure_layout()?;
        let mut entries = Vec::new();
        for entry in &self.clusters {
            if names.contains(self.parts(entry, size_of::<Endpoint>())?.name) {
                entries.push(*entry);
            }
        }
        if entries.len() < names.len() {
            return Ok(None);
        }
        Ok(Some(Part {
            document: self.decode(&[], &entries)?,
            stored: self,
            is_all: false,
        }))
    }

    /// Is one of these the VIP of a service?
    pub fn has_vip(&self, addresses: &HashSet<SocketAddr>) -> Result<bool, Error> {
        for entry in &self.services {
            let vips = self.parts(entry, size_of::<u32>())?.vips;
            if records::<Address>(vips).any(|vip| addresses.contains(&vip.address())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn decode(&self, services: &[Entry], clusters: &[Entry]) -> Result<Document, Error> {
        let mut config = Config::default();
        let mut numbers = Numbers {
            supply: self.root.supply.clone(),
            ..Numbers::default()
        };
        let item = |entry: &Entry, parts| Item {
            number: entry.number,
            slot: entry.slot,
            parts,
        };
        for entry in services {
            let parts = self.parts(entry, size_of::<u32>())?;
            let service: Service = serde_json::from_slice(parts.json).map_err(|_| broken())?;
            let item = item(entry, records(parts.rest).collect());
            numbers.services.insert(service.name.clone(), item);
            config.services.push(service);
        }
        for entry in clusters {
            let parts = self.parts(entry, size_of::<Endpoint>())?;
            let mut cluster: Cluster = serde_json::from_slice(parts.json).map_err(|_| broken())?;
            let endpoints = records::<Endpoint>(parts.rest);
            cluster.endpoints = endpoints.map(|endpoint| endpoint.model()).collect();
            let endpoints = records::<Endpoint>(parts.rest);
            let item = item(entry, endpoints.map(|endpoint| endpoint.number).collect());
            numbers.clusters.insert(cluster.name.clone(), item);
            config.clusters.push(cluster);
        }
        Ok(Document {
            layout: self.head.layout,
            generation: self.head.generation,
            pending: self.is_pending(),
            config,
            numbers,
            cgroups: self.root.cgroups.clone(),
        })
    }

    /// `part_bytes` is the length of what it has for each route or endpoint.
    fn parts(&self, entry: &Entry, part_bytes: usize) -> Result<Parts<'_>, Error> {
        let bytes = usize::try_from(entry.at).ok();
        let bytes = bytes.and_then(|at| self.bytes.get(at..));
        let split = |bytes: &'_ [u8]| -> Option<(usize, usize, usize, usize)> {
            let name = entry.name_bytes as usize;
            let json = name.checked_add(entry.json_bytes as usize)?;
            let vips = json.checked_add(entry.vip_count as usize * size_of::<Address>())?;
            let end = vips.checked_add(part_bytes.checked_mul(entry.part_count as usize)?)?;
            (end <= bytes.len()).then_some((name, json, vips, end))
        };
        let bytes = bytes.ok_or_else(broken)?;
        let (name, json, vips, end) = split(bytes).ok_or_else(broken)?;
        Ok(Parts {
            name: std::str::from_utf8(&bytes[..name]).map_err(|_| broken())?,
            json: &bytes[name..json],
            vips: &bytes[json..vips],
            rest: &bytes[vips..end],
        })
    }
}

/// What is read of it, and may change: all, or some clusters.
pub struct Part<'s> {
    pub document: Document,
    stored: &'s Stored,
    is_all: bool,
}

impl Part<'_> {
    /// The bytes of all that is applied, when this part of it becomes `document`.
    pub fn write(&self, document: &Document) -> Result<Vec<u8>, Error> {
        match self.is_all {
            true => Writer::whole(document),
            false => Writer::clusters(self.stored, document),
        }
    }

    /// Takes away the addresses to which requests go from what is no part.
    pub fn without_used(&self, addresses: &mut HashSet<SocketAddr>) -> Result<(), Error> {
        if self.is_all {
            return Ok(());
        }
        let mine = by_name(&self.document.config.clusters);
        for entry in &self.stored.clusters {
            let parts = self.stored.parts(entry, size_of::<Endpoint>())?;
            if addresses.is_empty() || mine.contains_key(parts.name) {
                continue;
            }
            for endpoint in records::<Endpoint>(parts.rest) {
                let endpoint = endpoint.model();
                if endpoint.is_eligible() {
                    addresses.remove(&endpoint.address);
                }
            }
        }
        Ok(())
    }
}

/// What is to be kept.
pub struct Writer {
    head: Head,
    root: Vec<u8>,
    services: Vec<Entry>,
    clusters: Vec<Entry>,
    /// [`Entry::at`] counts from here until the end.
    items: Vec<u8>,
}

impl Writer {
    fn new(document: &Document) -> Result<Writer, Error> {
        let root = Root {
            supply: document.numbers.supply.clone(),
            cgroups: document.cgroups.clone(),
        };
        Ok(Writer {
            head: Head {
                format: FORMAT,
                pending: document.pending.into(),
                layout: document.layout,
                generation: document.generation,
                ..Head::default()
            },
            root: encode(&root)?,
            services: Vec::new(),
            clusters: Vec::new(),
            items: Vec::new(),
        })
    }

    /// Of a whole document.
    pub fn whole(document: &Document) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(document)?;
        for service in &document.config.services {
            writer.service(service, &document.numbers)?;
        }
        for cluster in &document.config.clusters {
            writer.cluster(cluster, &document.numbers)?;
        }
        writer.finish()
    }

    /// Of what is stored, with its clusters of these names as `document` has them.
    pub fn clusters(stored: &Stored, document: &Document) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(document)?;
        writer.root = encode(&Root {
            supply: document.numbers.supply.clone(),
            cgroups: stored.root.cgroups.clone(),
        })?;
        let clusters = by_name(&document.config.clusters);
        writer.items.reserve_exact(stored.bytes.len() + 4096);
        for entry in &stored.services {
            let kept = writer.copy(stored, entry, size_of::<u32>())?;
            writer.services.push(kept);
        }
        for entry in &stored.clusters {
            let name = stored.parts(entry, size_of::<Endpoint>())?.name;
            if let Some(cluster) = clusters.get(name) {
                writer.cluster(cluster, &document.numbers)?;
            } else {
                let kept = writer.copy(stored, entry, size_of::<Endpoint>())?;
                writer.clusters.push(kept);
            }
        }
        writer.finish()
    }

    fn copy(&mut self, stored: &Stored, entry: &Entry, part_bytes: usize) -> Result<Entry, Error> {
        let parts = stored.parts(entry, part_bytes)?;
        let at = self.items.len() as u64;
        let pieces = [parts.name.as_bytes(), parts.json, parts.vips, parts.rest];
        for piece in pieces {
            self.items.extend_from_slice(piece);
        }
        Ok(Entry { at, ..*entry })
    }

    fn service(&mut self, service: &Service, numbers: &Numbers) -> Result<(), Error> {
        let item = numbers.services.get(&service.name).ok_or_else(unnumbered)?;
        let mut entry = self.begin(&service.name, &encode(service)?, item)?;
        for vip in &service.listen {
            self.items.extend_from_slice(Address::of(*vip).bytes());
            entry.vip_count += 1;
        }
        for number in &item.parts {
            self.items.extend_from_slice(number.bytes());
        }
        self.services.push(entry);
        Ok(())
    }

    fn cluster(&mut self, cluster: &Cluster, numbers: &Numbers) -> Result<(), Error> {
        let item = numbers.clusters.get(&cluster.name).ok_or_else(unnumbered)?;
        let alone = Cluster {
            name: cluster.name.clone(),
            lb: cluster.lb,
            lb_options: cluster.lb_options,
            endpoints: Vec::new(),
            pool: cluster.pool,
        };
        let entry = self.begin(&cluster.name, &encode(&alone)?, item)?;
        self.items.reserve(item.parts.len() * size_of::<Endpoint>());
        for (endpoint, number) in cluster.endpoints.iter().zip(&item.parts) {
            let record = Endpoint::of(endpoint, *number);
            self.items.extend_from_slice(record.bytes());
        }
        self.clusters.push(entry);
        Ok(())
    }

    fn begin(&mut self, name: &str, json: &[u8], item: &Item) -> Result<Entry, Error> {
        let at = self.items.len() as u64;
        self.items.extend_from_slice(name.as_bytes());
        self.items.extend_from_slice(json);
        Ok(Entry {
            at,
            name_bytes: length(name.len())?,
            json_bytes: length(json.len())?,
            number: item.number,
            slot: item.slot,
            part_count: length(item.parts.len())?,
            vip_count: 0,
        })
    }

    fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.head.root_bytes = length(self.root.len())?;
        self.head.service_count = length(self.services.len())?;
        self.head.cluster_count = length(self.clusters.len())?;
        let count = self.services.len() + self.clusters.len();
        let first = size_of::<Head>() + self.root.len() + count * size_of::<Entry>();
        let mut bytes = Vec::with_capacity(first + self.items.len());
        bytes.extend_from_slice(self.head.bytes());
        bytes.extend_from_slice(&self.root);
        for entry in self.services.iter().chain(&self.clusters) {
            let at = entry.at + first as u64;
            bytes.extend_from_slice(Entry { at, ..*entry }.bytes());
        }
        bytes.extend_from_slice(&self.items);
        Ok(bytes)
    }
}

/// In the first page of what is kept: the apply has ended.
pub fn end_pending(page: &mut [u8]) {
    if let Some(mut head) = Head::from_bytes(page) {
        head.pending = 0;
        if let Some(room) = page.get_mut(..size_of::<Head>()) {
            room.copy_from_slice(head.bytes());
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).context("cannot encode the document")
}

fn length(bytes: usize) -> Result<u32, Error> {
    u32::try_from(bytes).map_err(|_| Error::system("what is applied is too large to be kept"))
}

fn unnumbered() -> Error {
    Error::system("an item has no number: this is a bug of xlbctl")
}

fn broken() -> Error {
    Error::system("the applied document is broken: run xlbctl unload --force, then apply")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::numbers::Before;

    const FILE: &str = "version: 1\nservices:\n\
        - {name: s, listen: [\"10.0.0.1:80\", \"[fd00::1]:443\"], routes: [{cluster: c}, {cluster: d}]}\n\
        - {name: t, listen: [\"10.0.0.2:80\"], routes: []}\n\
        clusters:\n\
        - {name: c, endpoints: [\"127.0.0.1:1\", \"[::ffff:127.0.0.1]:2\", {address: \"[::1]:3\", weight: 7, drain: true}]}\n\
        - {name: d, lb: random, pool: {max: 3}, endpoints: [\"127.0.0.9:1\"]}\n";

    fn document() -> Document {
        let config = config::parse("f", FILE.to_owned()).expect("parses").config;
        let mut document = Document {
            generation: 1 << 40,
            pending: true,
            cgroups: BTreeMap::from([("/a".to_owned(), 7)]),
            ..Document::default()
        };
        let nothing = Config::default();
        document
            .numbers
            .assign(&config, &Before::of(&nothing), |_| true)
            .expect("few");
        document.config = config;
        document
    }

    /// In whole pages, as the kernel keeps it.
    fn stored(mut bytes: Vec<u8>) -> Stored {
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        Stored::read(bytes).expect("reads")
    }

    #[test]
    fn a_document_is_what_it_was() {
        let document = document();
        let mut bytes = Writer::whole(&document).expect("fits");
        assert_eq!(stored(bytes.clone()).document().expect("whole"), document);
        end_pending(&mut bytes);
        assert!(!stored(bytes).is_pending());
        let nothing = Stored::default().document().expect("whole");
        assert_eq!(nothing, Document::default());
    }

    #[test]
    fn a_cluster_changes_alone() {
        let before = stored(Writer::whole(&document()).expect("fits"));
        let names = HashSet::from(["c"]);
        let part = before.clusters(&names).expect("read").expect("there");
        let mut changed = part.document.clone();
        assert_eq!(changed.config.clusters, document().config.clusters[..1]);
        assert!(changed.config.services.is_empty());
        let mut config = changed.config.clone();
        config.clusters[0].endpoints.remove(0);
        let reused = changed
            .numbers
            .assign(&config, &Before::of(&changed.config), |_| true);
        assert_eq!(reused, Ok(vec![]));
        changed.config = config.clone();
        let after = stored(part.write(&changed).expect("fits"));
        let after = after.document().expect("whole");

        let mut expected = document();
        let mut whole = expected.config.clone();
        whole.clusters[0] = config.clusters[0].clone();
        expected
            .numbers
            .assign(&whole, &Before::of(&expected.config), |_| true)
            .expect("few");
        expected.config = whole;
        assert_eq!(after, expected);
        let more = HashSet::from(["c", "x"]);
        assert!(before.clusters(&more).expect("read").is_none());
    }

    #[test]
    fn addresses_are_found() {
        let stored = stored(Writer::whole(&document()).expect("fits"));
        let set = |texts: &[&str]| -> HashSet<SocketAddr> {
            let addresses = texts.iter().map(|text| text.parse().expect("an address"));
            addresses.collect()
        };
        assert!(stored.has_vip(&set(&["[fd00::1]:443"])).expect("read"));
        assert!(!stored.has_vip(&set(&["127.0.0.1:1"])).expect("read"));
        let mut used = set(&["127.0.0.1:1", "127.0.0.9:1", "[::1]:3", "1.2.3.4:5"]);
        let part = stored.clusters(&HashSet::from(["d"])).expect("read");
        let part = part.expect("there");
        part.without_used(&mut used).expect("read");
        // One is drained, one is of the cluster that is left out, one is nobody's.
        assert_eq!(used, set(&["127.0.0.9:1", "[::1]:3", "1.2.3.4:5"]));
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let whole = Writer::whole(&document()).expect("fits");
        for end in 0..whole.len() {
            let cut = Stored::read(whole[..end].to_vec());
            assert!(cut.and_then(|stored| stored.whole()).is_err(), "{end}");
        }
        for bytes in [vec![0xff; 64], b"\x80\0\0\0\0\0\0\0{\"layout\":5}".to_vec()] {
            assert!(Stored::read(bytes).is_err());
        }
        let mut other = document();
        other.layout += 1;
        let other = stored(Writer::whole(&other).expect("fits"));
        assert!(other.whole().is_ok());
        let err = other.document().expect_err("another layout").to_string();
        assert!(err.contains("run xlbctl load"), "{err}");
    }
}
