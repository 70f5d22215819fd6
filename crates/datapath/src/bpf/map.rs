// SPDX-License-Identifier: Apache-2.0
//! Maps of the kernel, made or adopted by pin.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi::MapKind;

use super::pins::{Pins, failed};
use crate::map::raw::RawMap;
use crate::{Error, Kernel, MapSpec, Result, sys};

/// The maps that an agent has pinned, without its programs: for tools that look.
#[derive(Clone, Debug)]
pub struct Pinned {
    pins: Pins,
}

impl Pinned {
    /// The maps below that bpf file system (`/sys/fs/bpf`). A map that is missing is an error only when it is opened.
    #[must_use]
    pub fn open(bpffs: &Path) -> Self {
        Self { pins: Pins::below(bpffs) }
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }
}

/// Where a map is pinned.
pub(crate) fn pin_of_map(bpffs: &Path, name: &str) -> PathBuf {
    Pins::below(bpffs).map(name)
}

impl Kernel for Pinned {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        let path = self.pins.map(spec.name);
        let fd = sys::open_pin(&path).map_err(|source| failed("open", &path, source))?;
        let fd = fd.ok_or_else(|| Error::NotPinned { map: spec.name, path: path.clone() })?;
        Ok(Arc::new(KernelMap::adopt(fd, &spec, &path)?))
    }
}

/// Makes a map and pins it, or adopts the one that is pinned there, with its size.
pub(super) fn create_or_adopt(pins: &Pins, spec: &MapSpec, entries: u32) -> Result<KernelMap> {
    let path = pins.map(spec.name);
    if let Some(fd) = sys::open_pin(&path).map_err(|source| failed("open", &path, source))? {
        return KernelMap::adopt(fd, spec, &path);
    }
    let fd =
        sys::map_create(spec, entries).map_err(|source| Error::Map { map: spec.name, operation: "create", source })?;
    sys::pin(fd.as_fd(), &path).map_err(|source| failed("pin at", &path, source))?;
    KernelMap::adopt(fd, spec, &path)
}

#[derive(Debug)]
pub(crate) struct KernelMap {
    fd: OwnedFd,
    kind: MapKind,
    key_size: usize,
    /// Size of the value of an entry, of all processors.
    value_size: usize,
    values: usize,
    capacity: u32,
}

impl KernelMap {
    fn adopt(fd: OwnedFd, spec: &MapSpec, path: &Path) -> Result<Self> {
        let info = sys::map_info(fd.as_fd()).map_err(|source| failed("inspect", path, source))?;
        if let Some(difference) = info.mismatch(spec) {
            return Err(Error::PinMismatch { path: path.into(), difference });
        }
        let values = match spec.kind {
            MapKind::PerCpuArray => possible_processors(),
            _ => 1,
        };
        let value_size = if values == 1 { spec.value_size } else { spec.value_size.next_multiple_of(8) * values };
        let kind = spec.kind;
        Ok(Self { fd, kind, key_size: spec.key_size, value_size, values, capacity: info.max_entries })
    }

    /// The kernel reads and writes as many bytes as the map has, so the slices must not be shorter.
    fn check(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        if key.len() != self.key_size || value.is_some_and(|value| value.len() != self.value_size) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }

    /// All entries by batches: a hash that changes meanwhile is not walked from its start again.
    fn entries_by_batch(&self) -> io::Result<HashMap<Box<[u8]>, Box<[u8]>>> {
        let mut entries = HashMap::new();
        let mut position = None;
        // A batch must hold the longest chain of a hash.
        let mut count = self.capacity.clamp(1, 4096);
        loop {
            let mut keys = vec![0; self.key_size * count as usize];
            let mut values = vec![0; self.value_size * count as usize];
            match sys::map_lookup_batch(self.fd.as_fd(), &mut position, &mut keys, &mut values, count) {
                Ok((read, more)) => {
                    let pairs = keys.chunks_exact(self.key_size).zip(values.chunks_exact(self.value_size));
                    entries.extend(pairs.take(read as usize).map(|(key, value)| (key.into(), value.into())));
                    if !more {
                        return Ok(entries);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => count = count.saturating_mul(2),
                Err(error) => return Err(error),
            }
        }
    }

    /// All entries one by one, for kinds without batches.
    fn entries_by_key(&self) -> io::Result<HashMap<Box<[u8]>, Box<[u8]>>> {
        let mut entries = HashMap::new();
        let mut key = vec![0; self.key_size];
        let mut next = vec![0; self.key_size];
        let mut value = vec![0; self.value_size];
        let mut more = sys::map_next_key(self.fd.as_fd(), None, &mut next)?;
        // When an entry vanishes under the walk, the kernel starts again: give up after as many steps as could make sense.
        let mut steps = u64::from(self.capacity) * 2;
        while more && steps > 0 {
            steps -= 1;
            std::mem::swap(&mut key, &mut next);
            if sys::map_lookup(self.fd.as_fd(), &key, &mut value)? {
                entries.insert(key.as_slice().into(), value.as_slice().into());
            }
            more = sys::map_next_key(self.fd.as_fd(), Some(&key), &mut next)?;
        }
        Ok(entries)
    }
}

impl RawMap for KernelMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, Some(value))?;
        sys::map_lookup(self.fd.as_fd(), key, value)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value))?;
        sys::map_update(self.fd.as_fd(), key, value)
    }

    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None)?;
        sys::map_delete(self.fd.as_fd(), key)
    }

    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        let entries = match self.kind {
            MapKind::Hash | MapKind::LruHash | MapKind::Array => self.entries_by_batch()?,
            // These have batches only since 5.13; whatever goes wrong there, the other way tells.
            MapKind::LpmTrie | MapKind::PerCpuArray => self.entries_by_batch().or_else(|_| self.entries_by_key())?,
            MapKind::RingBuf => self.entries_by_key()?,
        };
        Ok(entries.into_iter().collect())
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn values_per_entry(&self) -> usize {
        self.values
    }
}

/// How many processors there may ever be: a per-processor map has a value for each.
fn possible_processors() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}
