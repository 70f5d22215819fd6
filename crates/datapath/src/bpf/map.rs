// SPDX-License-Identifier: Apache-2.0
//! Maps of the kernel, made or adopted by pin.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
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

impl Kernel for Pinned {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        let path = self.pins.map(&spec);
        let map = KernelMap::open(&spec, &path)?;
        Ok(Arc::new(map.ok_or(Error::NotPinned { map: spec.name, path })?))
    }
}

#[derive(Debug)]
pub(crate) struct KernelMap {
    fd: OwnedFd,
    id: u32,
    key_size: usize,
    /// Size of the value of an entry, of all processors.
    value_size: usize,
    values: usize,
    capacity: u32,
}

impl KernelMap {
    /// Makes a map without a pin. On demand, entries are allocated as they are made, which is for what user space alone writes.
    pub(super) fn create(spec: &MapSpec, entries: u32, on_demand: bool) -> Result<Self> {
        let failed = |source| Error::Map { map: spec.name, operation: "create", source };
        let fd = sys::create::map_create(spec, entries, on_demand).map_err(failed)?;
        Self::adopt(fd, spec, Path::new(spec.name))
    }

    /// The map that is pinned there, if one is.
    pub(super) fn open(spec: &MapSpec, path: &Path) -> Result<Option<Self>> {
        let Some(fd) = sys::open_pin(path).map_err(|source| failed("open", path, source))? else { return Ok(None) };
        Self::adopt(fd, spec, path).map(Some)
    }

    pub(super) fn adopt(fd: OwnedFd, spec: &MapSpec, path: &Path) -> Result<Self> {
        let info = sys::map_info(fd.as_fd()).map_err(|source| failed("inspect", path, source))?;
        if let Some(difference) = info.mismatch(spec) {
            return Err(Error::PinMismatch { path: path.into(), difference });
        }
        let values = match spec.kind {
            MapKind::PerCpuArray => possible_processors(),
            _ => 1,
        };
        let (key_size, value_size) = sys::sizes(spec);
        let value_size = if values == 1 { value_size } else { value_size.next_multiple_of(8) * values };
        Ok(Self { fd, id: info.id, key_size, value_size, values, capacity: info.max_entries })
    }

    pub(super) fn pin(&self, path: &Path) -> Result<()> {
        sys::pin(self.fd.as_fd(), path).map_err(|source| failed("pin at", path, source))
    }

    /// The kernel's number of it. A map that is made later has a higher one.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Adds an entry; false, and no change, when there is one of that key already.
    pub(super) fn insert_new(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        self.check(key, Some(value))?;
        sys::map_insert(self.fd.as_fd(), key, value)
    }

    /// The kernel reads and writes as many bytes as the map has, so the slices must not be shorter.
    fn check(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        if key.len() != self.key_size || value.is_some_and(|value| value.len() != self.value_size) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }
}

/// Bytes of entries that one call of the kernel reads.
const BATCH: usize = 1 << 18;

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
        // By their keys, since a trie that changes meanwhile may be walked from its start again.
        let mut entries = HashMap::new();
        self.visit(&mut |key, value| {
            entries.insert(key.into(), value.into());
            ControlFlow::Continue(())
        })?;
        Ok(entries.into_iter().collect())
    }

    fn visit(&self, see: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> io::Result<()> {
        let mut position = None;
        let fit = (BATCH / (self.key_size + self.value_size)).max(1);
        let mut count = u32::try_from(fit).unwrap_or(u32::MAX).min(self.capacity);
        let size = |of: usize, count: u32| of * count as usize;
        let (mut keys, mut values) = (vec![0; size(self.key_size, count)], vec![0; size(self.value_size, count)]);
        loop {
            keys.resize(size(self.key_size, count), 0);
            values.resize(size(self.value_size, count), 0);
            let (read, more) =
                match sys::map_lookup_batch(self.fd.as_fd(), &mut position, &mut keys, &mut values, count) {
                    Ok(batch) => batch,
                    // A batch must hold the longest chain of a hash.
                    Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                        count = count.saturating_mul(2);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
            let mut entries = keys.chunks_exact(self.key_size).zip(values.chunks_exact(self.value_size));
            let stopped = entries.by_ref().take(read as usize).try_for_each(|(key, value)| see(key, value));
            if !more || stopped.is_break() {
                return Ok(());
            }
        }
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn values_per_entry(&self) -> usize {
        self.values
    }
}

/// How many processors there may ever be: a per-processor map has a value for each.
pub(super) fn possible_processors() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}
