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

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::addresses::Addresses;
use crate::config::merge::by_name;
use crate::config::model::{self, Cluster, Config, Service};
use crate::document::Document;
use crate::error::{Context, Error};
use crate::intf::{mapped, Pod, XLB_LAYOUT};
use crate::numbers::{Item, Numbers, Supply};

/// Another one is not read. (Documents before the first began with their length.)
const FORMAT: u32 = u32::from_le_bytes(*b"XLB\x02");
/// The one before knew no action but `respond`: what has others is not for those who would leave them out.
const FORMATS: [u32; 2] = [u32::from_le_bytes(*b"XLB\x01"), FORMAT];

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
struct Head {
    format: u32,
    layout: u32,
    root_bytes: u32,
    service_count: u32,
    cluster_count: u32,
    reserved0: u32,
    generation: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Root {
    supply: Supply,
    cgroups: BTreeMap<String, u64>,
}

/// Where an item is, and its [`Item`] in numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
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
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
struct Address {
    /// As [`mapped`].
    addr: [u8; 16],
    scope: u32,
    port: u16,
    flags: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
struct Endpoint {
    address: Address,
    weight: u32,
    number: u32,
}

const V6: u16 = 1;
/// Of an endpoint that is drained.
const DRAIN: u16 = 2;

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
    bytes: Box<dyn AsRef<[u8]>>,
    is_pending: bool,
    head: Head,
    root: Root,
    services: Vec<Entry>,
    clusters: Vec<Entry>,
}

impl Default for Stored {
    /// Nothing is applied.
    fn default() -> Stored {
        Stored {
            bytes: Box::new([]),
            is_pending: false,
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
    pub fn read(kept: Box<dyn AsRef<[u8]>>, is_pending: bool) -> Result<Stored, Error> {
        let bytes = (*kept).as_ref();
        let head = Head::from_bytes(bytes).ok_or_else(broken)?;
        if !FORMATS.contains(&head.format) {
            return Err(other_format());
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
            bytes: kept,
            is_pending,
            head,
            root,
            services,
            clusters,
        })
    }

    pub fn layout(&self) -> u32 {
        self.head.layout
    }

    /// As [`Document::pending`].
    pub fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// As [`Stored::whole`], and of the layout of this xlbctl.
    pub fn document(&self) -> Result<Document, Error> {
        self.ensure_layout()?;
        self.whole()
    }

    fn ensure_layout(&self) -> Result<(), Error> {
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
        Ok(Part {
            document: self.document()?,
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
    pub fn has_vip(&self, addresses: &[SocketAddr]) -> Result<bool, Error> {
        let mut vips = Vec::new();
        for entry in &self.services {
            let parts = self.parts(entry, size_of::<u32>())?;
            vips.extend(records::<Address>(parts.vips).map(|vip| vip.address()));
        }
        // The table is of the fewer.
        let (few, many) = match vips.len() < addresses.len() {
            true => (vips.as_slice(), addresses),
            false => (addresses, vips.as_slice()),
        };
        let few: Addresses = few.iter().collect();
        Ok(many.iter().any(|address| few.contains(address)))
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
        let bytes = bytes.and_then(|at| (*self.bytes).as_ref().get(at..));
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
    /// All that is applied, when this part of it becomes `document`.
    pub fn kept<'k>(&'k self, document: &'k Document) -> Result<Kept<'k>, Error> {
        match self.is_all {
            true => Kept::whole(document),
            false => Kept::clusters(self.stored, document),
        }
    }

    /// Takes away the addresses to which requests go from what is no part.
    pub fn without_used(&self, addresses: &mut FxHashSet<SocketAddr>) -> Result<(), Error> {
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

/// What is to be kept, in pieces.
pub struct Kept<'k> {
    head: Head,
    root: Vec<u8>,
    entries: Vec<Entry>,
    /// Of each item, one behind the other.
    pieces: Vec<Cow<'k, [u8]>>,
    bytes: usize,
}

impl<'k> Kept<'k> {
    /// `cgroups` are those of all that is applied.
    fn new(
        document: &Document,
        cgroups: &BTreeMap<String, u64>,
        [services, clusters]: [usize; 2],
    ) -> Result<Kept<'k>, Error> {
        let root = encode(&Root {
            supply: document.numbers.supply.clone(),
            cgroups: cgroups.clone(),
        })?;
        let entries = services + clusters;
        Ok(Kept {
            head: Head {
                format: FORMAT,
                layout: document.layout,
                root_bytes: length(root.len())?,
                service_count: length(services)?,
                cluster_count: length(clusters)?,
                reserved0: 0,
                generation: document.generation,
            },
            bytes: size_of::<Head>() + root.len() + entries * size_of::<Entry>(),
            root,
            entries: Vec::with_capacity(entries),
            pieces: Vec::with_capacity(entries * 4),
        })
    }

    /// A whole document.
    pub fn whole(document: &'k Document) -> Result<Kept<'k>, Error> {
        let (services, clusters) = (&document.config.services, &document.config.clusters);
        let counts = [services.len(), clusters.len()];
        let mut kept = Kept::new(document, &document.cgroups, counts)?;
        for service in services {
            kept.service(service, &document.numbers)?;
        }
        for cluster in clusters {
            kept.cluster(cluster, &document.numbers)?;
        }
        Ok(kept)
    }

    /// What is stored, with its clusters of these names as `document` has them.
    fn clusters(stored: &'k Stored, document: &'k Document) -> Result<Kept<'k>, Error> {
        let counts = [stored.services.len(), stored.clusters.len()];
        let mut kept = Kept::new(document, &stored.root.cgroups, counts)?;
        for entry in &stored.services {
            kept.copy(entry, stored.parts(entry, size_of::<u32>())?);
        }
        let clusters = by_name(&document.config.clusters);
        for entry in &stored.clusters {
            let parts = stored.parts(entry, size_of::<Endpoint>())?;
            match clusters.get(parts.name) {
                Some(cluster) => kept.cluster(cluster, &document.numbers)?,
                None => kept.copy(entry, parts),
            }
        }
        Ok(kept)
    }

    fn copy(&mut self, entry: &Entry, parts: Parts<'k>) {
        let pieces = [parts.name.as_bytes(), parts.json, parts.vips, parts.rest];
        self.add(*entry, pieces.map(Cow::Borrowed));
    }

    fn service(&mut self, service: &'k Service, numbers: &'k Numbers) -> Result<(), Error> {
        let item = numbers.services.get(&service.name).ok_or_else(unnumbered)?;
        let vips: Vec<Address> = service.listen.iter().copied().map(Address::of).collect();
        let json = encode(service)?;
        let entry = entry(&service.name, &json, vips.len(), item)?;
        let pieces = [
            Cow::Borrowed(service.name.as_bytes()),
            Cow::Owned(json),
            Cow::Owned(vips.as_bytes().to_vec()),
            Cow::Borrowed(item.parts.as_bytes()),
        ];
        self.add(entry, pieces);
        Ok(())
    }

    fn cluster(&mut self, cluster: &'k Cluster, numbers: &'k Numbers) -> Result<(), Error> {
        let item = numbers.clusters.get(&cluster.name).ok_or_else(unnumbered)?;
        let alone = Cluster {
            name: cluster.name.clone(),
            lb: cluster.lb,
            lb_options: cluster.lb_options,
            endpoints: Vec::new(),
            pool: cluster.pool,
        };
        let json = encode(&alone)?;
        let entry = entry(&cluster.name, &json, 0, item)?;
        let mut endpoints = Vec::with_capacity(item.parts.len() * size_of::<Endpoint>());
        for (endpoint, number) in cluster.endpoints.iter().zip(&item.parts) {
            endpoints.extend_from_slice(Endpoint::of(endpoint, *number).bytes());
        }
        let pieces = [
            Cow::Borrowed(cluster.name.as_bytes()),
            Cow::Owned(json),
            Cow::Borrowed(&[][..]),
            Cow::Owned(endpoints),
        ];
        self.add(entry, pieces);
        Ok(())
    }

    fn add(&mut self, entry: Entry, pieces: [Cow<'k, [u8]>; 4]) {
        let at = self.bytes as u64;
        self.entries.push(Entry { at, ..entry });
        self.bytes += pieces.iter().map(|piece| piece.len()).sum::<usize>();
        self.pieces.extend(pieces);
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Into room of at least so many bytes.
    pub fn write(&self, mut room: &mut [u8]) -> Result<(), Error> {
        let beginning = [self.head.bytes(), &self.root, self.entries.as_bytes()];
        let pieces = self.pieces.iter().map(|piece| piece.as_ref());
        for piece in beginning.into_iter().chain(pieces) {
            let (place, rest) = room.split_at_mut_checked(piece.len()).ok_or_else(broken)?;
            place.copy_from_slice(piece);
            room = rest;
        }
        Ok(())
    }
}

fn entry(name: &str, json: &[u8], vips: usize, item: &Item) -> Result<Entry, Error> {
    Ok(Entry {
        at: 0,
        name_bytes: length(name.len())?,
        json_bytes: length(json.len())?,
        number: item.number,
        slot: item.slot,
        part_count: length(item.parts.len())?,
        vip_count: length(vips)?,
    })
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

/// What is applied cannot be read.
pub fn other_format() -> Error {
    Error::system(
        "what is applied was written by another xlbctl, whose format this one does not know: \
         use that one, or run xlbctl unload --force, then apply",
    )
}

fn broken() -> Error {
    Error::system("the applied document is broken: run xlbctl unload --force, then apply")
}

#[cfg(test)]
impl Stored {
    /// In whole pages, as the kernel keeps it.
    fn kept(kept: &Kept<'_>, is_pending: bool) -> Stored {
        let mut bytes = vec![0; kept.bytes().next_multiple_of(4096)];
        kept.write(&mut bytes).expect("as long as it says");
        Stored::read(Box::new(bytes), is_pending).expect("reads")
    }

    pub fn of(document: &Document) -> Stored {
        Stored::kept(&Kept::whole(document).expect("fits"), document.pending)
    }
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

    #[test]
    fn a_document_is_what_it_was() {
        for pending in [true, false] {
            let mut document = document();
            document.pending = pending;
            assert_eq!(Stored::of(&document).document().expect("whole"), document);
        }
        let nothing = Stored::default().document().expect("whole");
        assert_eq!(nothing, Document::default());
    }

    #[test]
    fn a_cluster_changes_alone() {
        let before = Stored::of(&document());
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
        let after = Stored::kept(&part.kept(&changed).expect("fits"), true);
        let after = after.document().expect("whole");

        let mut expected = document();
        let mut all = expected.config.clone();
        all.clusters[0] = config.clusters[0].clone();
        expected
            .numbers
            .assign(&all, &Before::of(&expected.config), |_| true)
            .expect("few");
        expected.config = all;
        assert_eq!(after, expected);
        let more = HashSet::from(["c", "x"]);
        assert!(before.clusters(&more).expect("read").is_none());
    }

    #[test]
    fn addresses_are_found() {
        let stored = Stored::of(&document());
        let set = |texts: &[&str]| -> FxHashSet<SocketAddr> {
            let addresses = texts.iter().map(|text| text.parse().expect("an address"));
            addresses.collect()
        };
        let list = |texts: &[&str]| -> Vec<SocketAddr> { set(texts).into_iter().collect() };
        let four = ["1.2.3.4:1", "1.2.3.4:2", "1.2.3.4:3", "[fd00::1]:443"];
        for (addresses, is_there) in [
            (&four[..], true),
            (&four[3..], true),
            (&four[..3], false),
            (&["127.0.0.1:1"], false),
        ] {
            assert_eq!(stored.has_vip(&list(addresses)).expect("read"), is_there);
        }
        let mut used = set(&["127.0.0.1:1", "127.0.0.9:1", "[::1]:3", "1.2.3.4:5"]);
        let part = stored.clusters(&HashSet::from(["d"])).expect("read");
        let part = part.expect("there");
        part.without_used(&mut used).expect("read");
        // One is drained, one is of the cluster that is left out, one is nobody's.
        assert_eq!(used, set(&["127.0.0.9:1", "[::1]:3", "1.2.3.4:5"]));
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let document = document();
        let kept = Kept::whole(&document).expect("fits");
        let mut bytes = vec![0; kept.bytes()];
        kept.write(&mut bytes).expect("as long as it says");
        assert!(kept.write(&mut bytes[1..]).is_err());
        for end in 0..bytes.len() {
            let cut = Stored::read(Box::new(bytes[..end].to_vec()), false);
            assert!(cut.and_then(|stored| stored.whole()).is_err(), "{end}");
        }
        let json = b"\x80\0\0\0\0\0\0\0{\"layout\":5}".to_vec();
        for bytes in [vec![0xff; 64], json] {
            assert!(Stored::read(Box::new(bytes), false).is_err());
        }
        let mut other = document.clone();
        other.layout += 1;
        let other = Stored::of(&other);
        assert!(other.whole().is_ok());
        let err = other.document().expect_err("another layout").to_string();
        assert!(err.contains("run xlbctl load"), "{err}");
    }
}
