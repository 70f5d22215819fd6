// SPDX-License-Identifier: Apache-2.0
//! A map as the kernel sees it, bytes to bytes, and the one place where bytes become types.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

use abi::MapKind;
use aya::Pod;

use crate::{Error, MapSpec, Result};

/// The operations of bpf(2) on one map. Errors are those of bpf(2): `E2BIG` or `ENOSPC` when it is full.
pub trait RawMap: Send + Sync + Debug {
    /// Fills `value` and returns true when there is an entry. A trie answers with the longest prefix that covers the key
    /// and is not longer than the key's own.
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool>;
    /// Adds or replaces.
    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()>;
    /// Removes; false when there was no entry.
    fn delete(&self, key: &[u8]) -> io::Result<bool>;
    /// All entries, in no order.
    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>>;
    /// Shows entries until it is told to stop, in no order. What comes or goes meanwhile may be shown or not; what stays is shown.
    /// A map of the kernel is never in memory as a whole.
    fn visit(&self, see: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> io::Result<()> {
        let _stopped = self.entries()?.iter().try_for_each(|(key, value)| see(key, value));
        Ok(())
    }
    /// Capacity in entries.
    fn capacity(&self) -> u32;
    /// How many values an entry has: 1, or in a per-processor map one for each possible processor.
    fn values_per_entry(&self) -> usize;
}

/// A raw map with the types that its bytes stand for.
pub(crate) struct Typed<K, V> {
    spec: MapSpec,
    raw: Arc<dyn RawMap>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for Typed<K, V> {
    fn clone(&self) -> Self {
        Self { spec: self.spec, raw: Arc::clone(&self.raw), types: PhantomData }
    }
}

impl<K: Pod + Debug, V: Pod> Typed<K, V> {
    pub(crate) fn new(spec: MapSpec, raw: Arc<dyn RawMap>) -> Self {
        Self { spec, raw, types: PhantomData }
    }

    pub(crate) fn raw(&self) -> &dyn RawMap {
        &*self.raw
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.raw.capacity()
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = zeroed::<V>();
        match self.raw.lookup(bytes_of(key), bytes_of_mut(&mut value)) {
            Ok(found) => Ok(found.then_some(value)),
            Err(source) => Err(self.error("lookup", source)),
        }
    }

    pub(crate) fn insert(&self, key: &K, value: &V) -> Result<()> {
        self.update(key, bytes_of(value))
    }

    pub(crate) fn update(&self, key: &K, value: &[u8]) -> Result<()> {
        self.raw.update(bytes_of(key), value).map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG) if matches!(self.spec.kind, MapKind::Array | MapKind::PerCpuArray) => {
                Error::NoSuchIndex { map: self.spec.name, index: format!("{key:?}"), entries: self.capacity() }
            }
            Some(libc::E2BIG | libc::ENOSPC) => Error::MapFull { map: self.spec.name, entries: self.capacity() },
            _ => self.error("update", source),
        })
    }

    pub(crate) fn remove(&self, key: &K) -> Result<bool> {
        self.raw.delete(bytes_of(key)).map_err(|source| self.error("delete", source))
    }

    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>> {
        let entries = self.raw_entries()?;
        Ok(entries.iter().map(|(key, value)| (from_bytes(key), from_bytes(value))).collect())
    }

    pub(crate) fn raw_entries(&self) -> Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        self.raw.entries().map_err(|source| self.error("reading all entries", source))
    }

    /// Shows all entries, until `see` fails.
    pub(crate) fn visit(&self, mut see: impl FnMut(&K, &V) -> Result<()>) -> Result<()> {
        let mut seen = Ok(());
        let all = self.raw.visit(&mut |key, value| {
            seen = see(&from_bytes(key), &from_bytes(value));
            if seen.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        all.map_err(|source| self.error("reading all entries", source))?;
        seen
    }

    pub(crate) fn error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Map { map: self.spec.name, operation, source }
    }
}

/// The bytes of a plain value.
#[allow(unsafe_code, reason = "Pod is the promise that this is sound")]
pub(crate) fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding, so all its bytes are initialised; the slice borrows the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

#[allow(unsafe_code, reason = "Pod is the promise that this is sound")]
fn bytes_of_mut<T: Pod>(value: &mut T) -> &mut [u8] {
    // SAFETY: as above, and every bit pattern is a valid `Pod`.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(value).cast(), size_of::<T>()) }
}

#[allow(unsafe_code, reason = "Pod is the promise that this is sound")]
fn zeroed<T: Pod>() -> T {
    // SAFETY: every bit pattern is a valid `Pod`, zeros too.
    unsafe { std::mem::zeroed() }
}

/// A plain value from its bytes; what is missing is zero.
pub(crate) fn from_bytes<T: Pod>(bytes: &[u8]) -> T {
    let mut value = zeroed::<T>();
    let there = bytes.len().min(size_of::<T>());
    if let (Some(to), Some(from)) = (bytes_of_mut(&mut value).get_mut(..there), bytes.get(..there)) {
        to.copy_from_slice(from);
    }
    value
}
