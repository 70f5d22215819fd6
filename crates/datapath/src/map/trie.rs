// SPDX-License-Identifier: Apache-2.0
//! Longest-prefix tries.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use abi::MapKind;
use aya::Pod;

use crate::map::raw::Typed;
use crate::{Kernel, Layout, MapSpec, Result, Table};

/// A key of a trie: how many of the leading bits of `data` count.
#[repr(C, packed)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LpmKey<K: Copy> {
    /// How many bits count.
    pub prefix_len: u32,
    /// The bits.
    pub data: K,
}

// SAFETY: packed, so there is no padding beyond that of the parts, and both parts are `Pod`.
#[allow(unsafe_code, reason = "the marker trait of plain bytes")]
unsafe impl<K: Pod> Pod for LpmKey<K> {}

impl<K: Copy> LpmKey<K> {
    /// The prefix of that length.
    pub const fn new(prefix_len: u32, data: K) -> Self {
        Self { prefix_len, data }
    }
}

impl<K: Copy + Debug> Debug for LpmKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix_len, data } = *self;
        write!(f, "{data:?}/{prefix_len}")
    }
}

/// A longest-prefix trie.
pub struct Trie<M: Layout> {
    typed: Typed<LpmKey<M::Key>, M::Value>,
    marker: PhantomData<fn() -> M>,
}

impl<M: Layout> Trie<M> {
    /// The length of a key that counts as a whole.
    pub const FULL: u32 = size_of::<M::Key>() as u32 * 8;

    pub(crate) fn open<K: Kernel + ?Sized>(kernel: &K) -> Result<Self> {
        const {
            assert!(matches!(M::KIND, MapKind::LpmTrie), "not a longest-prefix trie");
        }
        let spec = MapSpec::of::<M>();
        Ok(Self { typed: Typed::new(spec, kernel.open(spec)?), marker: PhantomData })
    }

    /// The value of the longest prefix that covers the key.
    pub fn lookup(&self, key: &M::Key) -> Result<Option<M::Value>> {
        self.typed.get(&LpmKey::new(Self::FULL, *key))
    }

    /// Adds or replaces a prefix.
    pub fn insert(&self, key: &LpmKey<M::Key>, value: &M::Value) -> Result<()> {
        self.typed.insert(key, value)
    }

    /// Removes a prefix; false when there was none of exactly this length.
    pub fn remove(&self, key: &LpmKey<M::Key>) -> Result<bool> {
        self.typed.remove(key)
    }

    /// All prefixes, in no order.
    pub fn entries(&self) -> Result<Vec<(LpmKey<M::Key>, M::Value)>> {
        self.typed.entries()
    }

    /// All prefixes, in no order, without their values.
    pub fn keys(&self) -> Result<Vec<LpmKey<M::Key>>> {
        Ok(self.entries()?.into_iter().map(|(key, _)| key).collect())
    }

    /// How many prefixes it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.typed.capacity()
    }
}

impl<M: Layout> Table for Trie<M> {
    type Key = LpmKey<M::Key>;
    type Value = M::Value;

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn insert(&self, key: &Self::Key, value: &M::Value) -> Result<()> {
        self.typed.insert(key, value)
    }

    fn remove(&self, key: &Self::Key) -> Result<bool> {
        self.typed.remove(key)
    }

    fn entries(&self) -> Result<Vec<(Self::Key, M::Value)>> {
        self.typed.entries()
    }
}

impl<M: Layout> Clone for Trie<M> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), marker: PhantomData }
    }
}

impl<M: Layout> Debug for Trie<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trie").field(&M::NAME).finish()
    }
}
