// SPDX-License-Identifier: Apache-2.0
//! Where maps come from: the seam between features and the kernel.

use std::sync::Arc;

use abi::{MapDef, MapKind};

use crate::map::raw::RawMap;
use crate::{Layout, Map, PerCpuMap, Result, Trie};

/// What a map looks like to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object and of the pin.
    pub name: &'static str,
    /// Version of the layout.
    pub version: u32,
    /// Kind.
    pub kind: MapKind,
    /// Size of a key in bytes, with the prefix length of a trie.
    pub key_size: usize,
    /// Size of a value (of one processor) in bytes.
    pub value_size: usize,
    /// Capacity in entries, unless it is sized at load.
    pub capacity: u32,
}

impl MapSpec {
    /// The description of marker `M`.
    #[must_use]
    pub const fn of<M: MapDef>() -> Self {
        let prefix = if matches!(M::KIND, MapKind::LpmTrie) { 4 } else { 0 };
        Self {
            name: M::NAME,
            version: M::VERSION,
            kind: M::KIND,
            key_size: size_of::<M::Key>() + prefix,
            value_size: size_of::<M::Value>(),
            capacity: M::CAPACITY,
        }
    }

    /// All maps of the datapath.
    pub fn all() -> impl Iterator<Item = Self> {
        abi::maps::ALL.iter().map(|map| Self {
            name: map.name,
            version: map.version,
            kind: map.kind,
            key_size: map.key_size,
            value_size: map.value_size,
            capacity: map.capacity,
        })
    }
}

/// Opens maps. Implemented by the real kernel (`bpf`), by [`crate::fake::Kernel`] and by [`crate::fake::Chaos`].
///
/// `Arc<dyn Kernel>` is a `Kernel` too.
pub trait Kernel: Send + Sync {
    /// Opens the map of that description, without types.
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>>;

    /// Opens a hash or array. Other kinds do not compile.
    fn map<M: Layout>(&self) -> Result<Map<M>>
    where
        Self: Sized,
    {
        Map::open(self)
    }

    /// Opens a longest-prefix trie. Other kinds do not compile.
    fn trie<M: Layout>(&self) -> Result<Trie<M>>
    where
        Self: Sized,
    {
        Trie::open(self)
    }

    /// Opens a map that holds one value per processor. Other kinds do not compile.
    fn per_cpu<M: Layout>(&self) -> Result<PerCpuMap<M>>
    where
        Self: Sized,
    {
        PerCpuMap::open(self)
    }
}

impl<K: Kernel + ?Sized> Kernel for Arc<K> {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        (**self).open(spec)
    }
}

impl<K: Kernel + ?Sized> Kernel for &K {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        (**self).open(spec)
    }
}
