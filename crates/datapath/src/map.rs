// SPDX-License-Identifier: Apache-2.0
//! Maps, typed by a marker of `abi::maps`.

pub(crate) mod per_cpu;
pub(crate) mod raw;
pub(crate) mod sync;
pub(crate) mod trie;

use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::Arc;

use abi::{MapDef, MapKind};
use aya::Pod;

use crate::map::raw::{RawMap, Typed};
use crate::{Kernel, MapSpec, Result};

/// A marker whose key and value are plain bytes. Every marker of `abi::maps` is.
pub trait Layout: MapDef<Key: Pod + PartialEq, Value: Pod + PartialEq> {}

impl<M: MapDef<Key: Pod + PartialEq, Value: Pod + PartialEq>> Layout for M {}

/// What hashes, arrays and tries have in common, so that [`sync_map`](crate::sync_map) serves all.
pub trait Table {
    /// Key, of a trie with its prefix length.
    type Key: Pod + Debug;
    /// Value.
    type Value: Pod + PartialEq;

    /// Name of the map.
    fn name(&self) -> &'static str;
    /// Adds or replaces an entry.
    fn insert(&self, key: &Self::Key, value: &Self::Value) -> Result<()>;
    /// Removes an entry; false when there was none.
    fn remove(&self, key: &Self::Key) -> Result<bool>;
    /// All entries, in no order.
    fn entries(&self) -> Result<Vec<(Self::Key, Self::Value)>>;
}

/// A hash or an array. An array has all its entries always: they can be replaced, but not removed.
pub struct Map<M: Layout> {
    typed: Typed<M::Key, M::Value>,
    marker: PhantomData<fn() -> M>,
}

impl<M: Layout> Map<M> {
    pub(crate) fn open<K: Kernel + ?Sized>(kernel: &K) -> Result<Self> {
        const {
            assert!(matches!(M::KIND, MapKind::Hash | MapKind::LruHash | MapKind::Array), "not a hash or an array");
        }
        Ok(Self::from_raw(kernel.open(MapSpec::of::<M>())?))
    }

    fn from_raw(raw: Arc<dyn RawMap>) -> Self {
        Self { typed: Typed::new(MapSpec::of::<M>(), raw), marker: PhantomData }
    }

    /// The value of a key.
    pub fn get(&self, key: &M::Key) -> Result<Option<M::Value>> {
        self.typed.get(key)
    }

    /// Adds or replaces an entry.
    pub fn insert(&self, key: &M::Key, value: &M::Value) -> Result<()> {
        self.typed.insert(key, value)
    }

    /// Removes an entry; false when there was none.
    pub fn remove(&self, key: &M::Key) -> Result<bool> {
        self.typed.remove(key)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> Result<Vec<(M::Key, M::Value)>> {
        self.typed.entries()
    }

    /// Shows all entries, in no order, until `see` fails: for maps that are too big to be in memory as a whole.
    pub fn visit(&self, see: impl FnMut(&M::Key, &M::Value) -> Result<()>) -> Result<()> {
        self.typed.visit(see)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Result<Vec<M::Key>> {
        Ok(self.entries()?.into_iter().map(|(key, _)| key).collect())
    }

    /// How many entries it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.typed.capacity()
    }
}

impl<M: Layout> Table for Map<M> {
    type Key = M::Key;
    type Value = M::Value;

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn insert(&self, key: &M::Key, value: &M::Value) -> Result<()> {
        self.typed.insert(key, value)
    }

    fn remove(&self, key: &M::Key) -> Result<bool> {
        self.typed.remove(key)
    }

    fn entries(&self) -> Result<Vec<(M::Key, M::Value)>> {
        self.typed.entries()
    }
}

impl<M: Layout> Clone for Map<M> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), marker: PhantomData }
    }
}

impl<M: Layout> Debug for Map<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&M::NAME).finish()
    }
}
