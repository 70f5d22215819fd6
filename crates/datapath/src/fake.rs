// SPDX-License-Identifier: Apache-2.0
//! A kernel in memory, for the tests of every crate that writes maps.

mod chaos;
mod hooks;
mod network;
mod node;
mod sockets;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use abi::MapKind;
use parking_lot::Mutex;

use crate::map::raw::RawMap;
use crate::{MapSpec, Result};

pub use chaos::{Chaos, chaos};
pub use hooks::Hooks;
pub use network::Network;
pub use node::Node;
pub use sockets::Sockets;
pub use wire::Wire;

/// A kernel in memory. Clones share their maps.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    maps: Arc<Mutex<BTreeMap<&'static str, Arc<FakeMap>>>>,
    capacities: Arc<Mutex<BTreeMap<&'static str, u32>>>,
}

impl Kernel {
    /// A kernel without entries in any map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another capacity for one map, so that a test can fill it. Call before the map is opened.
    #[must_use]
    pub fn with_capacity(self, map: &'static str, entries: u32) -> Self {
        self.capacities.lock().insert(map, entries);
        self
    }

    /// Opens a hash or array.
    pub fn map<M: crate::Layout>(&self) -> Result<crate::Map<M>> {
        crate::Map::open(self)
    }

    /// Opens a longest-prefix trie.
    pub fn trie<M: crate::Layout>(&self) -> Result<crate::Trie<M>> {
        crate::Trie::open(self)
    }

    /// Opens a map with one value per processor.
    pub fn per_cpu<M: crate::Layout>(&self) -> Result<crate::PerCpuMap<M>> {
        crate::PerCpuMap::open(self)
    }
}

impl crate::Kernel for Kernel {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        let capacity = self.capacities.lock().get(spec.name).copied().unwrap_or(spec.capacity);
        let map = Arc::clone(
            self.maps
                .lock()
                .entry(spec.name)
                .or_insert_with(|| Arc::new(FakeMap { spec, capacity, entries: Mutex::default() })),
        );
        Ok(map)
    }
}

#[derive(Debug)]
struct FakeMap {
    spec: MapSpec,
    capacity: u32,
    entries: Mutex<BTreeMap<Box<[u8]>, Box<[u8]>>>,
}

impl FakeMap {
    fn is_array(&self) -> bool {
        matches!(self.spec.kind, MapKind::Array | MapKind::PerCpuArray)
    }

    /// Whether an array has that index.
    fn in_range(&self, key: &[u8]) -> bool {
        key.try_into().is_ok_and(|index| u32::from_ne_bytes(index) < self.capacity)
    }
}

fn copy(from: &[u8], to: &mut [u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

impl RawMap for FakeMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        let entries = self.entries.lock();
        let found = match self.spec.kind {
            MapKind::LpmTrie => {
                let covering = entries.iter().filter(|(prefix, _)| covers(prefix, key));
                covering.max_by_key(|(prefix, _)| prefix_len(prefix)).map(|(_, value)| value)
            }
            _ => entries.get(key),
        };
        match found {
            Some(found) => copy(found, value),
            None if self.is_array() && self.in_range(key) => value.fill(0),
            None => return Ok(false),
        }
        Ok(true)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut entries = self.entries.lock();
        if self.is_array() && !self.in_range(key) {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        if self.spec.kind == MapKind::LpmTrie && prefix_len(key) as usize > (key.len().saturating_sub(4)) * 8 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let key = if self.spec.kind == MapKind::LpmTrie { masked(key) } else { key.into() };
        if entries.len() >= self.capacity as usize && !entries.contains_key(&key) {
            match self.spec.kind {
                MapKind::LruHash => drop(entries.pop_first()),
                MapKind::LpmTrie => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                _ => return Err(io::Error::from_raw_os_error(libc::E2BIG)),
            }
        }
        entries.insert(key, value.into());
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        match self.spec.kind {
            MapKind::Array | MapKind::PerCpuArray => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            MapKind::LpmTrie => Ok(self.entries.lock().remove(&masked(key)).is_some()),
            _ => Ok(self.entries.lock().remove(key).is_some()),
        }
    }

    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        let entries = self.entries.lock();
        if !self.is_array() {
            return Ok(entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect());
        }
        let zero: Box<[u8]> = vec![0; self.spec.value_size].into();
        let all = (0..self.capacity).map(|index| -> (Box<[u8]>, Box<[u8]>) {
            let key = index.to_ne_bytes();
            (key.into(), entries.get(key.as_slice()).unwrap_or(&zero).clone())
        });
        Ok(all.collect())
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn values_per_entry(&self) -> usize {
        1
    }
}

fn prefix_len(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The key with the bits beyond its prefix length cleared: two keys that differ only there are one entry.
fn masked(key: &[u8]) -> Box<[u8]> {
    let bits = prefix_len(key) as usize;
    let mut key: Box<[u8]> = key.into();
    for (index, byte) in key.iter_mut().skip(4).enumerate() {
        let kept = bits.saturating_sub(index * 8).min(8);
        *byte &= u8::try_from(0xff00_u16 >> kept & 0xff).unwrap_or_default();
    }
    key
}

/// Whether prefix `prefix` covers all that `key` stands for.
fn covers(prefix: &[u8], key: &[u8]) -> bool {
    let bits = prefix_len(prefix);
    if bits > prefix_len(key) {
        return false;
    }
    let mut cut: Box<[u8]> = key.into();
    copy(&bits.to_ne_bytes(), &mut cut);
    *masked(&cut) == *prefix
}

#[cfg(test)]
mod tests;
