// SPDX-License-Identifier: Apache-2.0
//! Maps that hold one value per processor, read as the sum over all of them.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use abi::MapKind;
use abi::metrics::MetricsValue;
use aya::Pod;

use crate::map::raw::{Typed, bytes_of, from_bytes};
use crate::{Kernel, Layout, MapSpec, Result};

/// A value of which the sum over all processors is what one wants to know.
pub trait Counter: Pod + Default {
    /// The sum of two.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

impl Counter for u64 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Counter for MetricsValue {
    fn plus(self, other: Self) -> Self {
        Self { packets: self.packets.plus(other.packets), bytes: self.bytes.plus(other.bytes) }
    }
}

/// An array with one value per processor.
pub struct PerCpuMap<M: Layout> {
    typed: Typed<M::Key, M::Value>,
    marker: PhantomData<fn() -> M>,
}

impl<M: Layout> PerCpuMap<M> {
    pub(crate) fn open<K: Kernel + ?Sized>(kernel: &K) -> Result<Self> {
        const {
            assert!(matches!(M::KIND, MapKind::PerCpuArray), "not a map per processor");
        }
        let spec = MapSpec::of::<M>();
        Ok(Self { typed: Typed::new(spec, kernel.open(spec)?), marker: PhantomData })
    }

    /// The kernel rounds the value of each processor up to eight bytes.
    const STRIDE: usize = size_of::<M::Value>().next_multiple_of(8);

    fn values(bytes: &[u8]) -> impl Iterator<Item = M::Value> {
        bytes.chunks_exact(Self::STRIDE).map(from_bytes)
    }

    /// The values of a key, one per possible processor.
    pub fn get_each(&self, key: &M::Key) -> Result<Option<Vec<M::Value>>> {
        let mut bytes = vec![0; Self::STRIDE * self.typed.raw().values_per_entry()];
        match self.typed.raw().lookup(bytes_of(key), &mut bytes) {
            Ok(found) => Ok(found.then(|| Self::values(&bytes).collect())),
            Err(source) => Err(self.typed.error("lookup", source)),
        }
    }

    /// Replaces an entry: `value` on the first processor and zero on the others, so that the sum is `value`.
    pub fn insert(&self, key: &M::Key, value: &M::Value) -> Result<()> {
        let mut bytes = vec![0; Self::STRIDE * self.typed.raw().values_per_entry()];
        for (to, from) in bytes.iter_mut().zip(bytes_of(value)) {
            *to = *from;
        }
        self.typed.update(key, &bytes)
    }
}

impl<M: Layout<Value: Counter>> PerCpuMap<M> {
    fn sum(values: impl Iterator<Item = M::Value>) -> M::Value {
        values.fold(M::Value::default(), M::Value::plus)
    }

    /// The sum over all processors.
    pub fn get(&self, key: &M::Key) -> Result<Option<M::Value>> {
        Ok(self.get_each(key)?.map(|values| Self::sum(values.into_iter())))
    }

    /// All entries, each with the sum over all processors, in no order.
    pub fn entries(&self) -> Result<Vec<(M::Key, M::Value)>> {
        let entries = self.typed.raw_entries()?;
        Ok(entries.iter().map(|(key, bytes)| (from_bytes(key), Self::sum(Self::values(bytes)))).collect())
    }
}

impl<M: Layout> Clone for PerCpuMap<M> {
    fn clone(&self) -> Self {
        Self { typed: self.typed.clone(), marker: PhantomData }
    }
}

impl<M: Layout> Debug for PerCpuMap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerCpuMap").field(&M::NAME).finish()
    }
}
