// SPDX-License-Identifier: Apache-2.0
//! `BPF_MAP_CREATE`. What is in a map is no business of this file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Command, bpf_fd, btf, kind_number, raw, sizes};
use crate::MapSpec;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    btf: u32,
    btf_key: u32,
    btf_value: u32,
}

/// Entries are allocated as they are made; what user space alone writes need not be there in advance.
const NO_PREALLOC: u32 = 1;

/// Makes a map of that description.
pub(crate) fn map_create(spec: &MapSpec, entries: u32, on_demand: bool) -> io::Result<OwnedFd> {
    create(spec, entries, if on_demand { NO_PREALLOC } else { 0 }, None)
}

/// Makes an array of maps that are like `inner`.
pub(crate) fn map_create_of(spec: &MapSpec, entries: u32, inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    create(spec, entries, 0, Some(inner))
}

fn create(spec: &MapSpec, entries: u32, flags: u32, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name.iter_mut().take(15).zip(spec.name.bytes()).for_each(|(to, from)| *to = from);
    let (key_size, value_size) = sizes(spec);
    let [key_size, value_size] = [key_size, value_size].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let types = (spec.kind == abi::MapKind::SkStorage).then(|| btf::load(value_size)).transpose()?;
    let (btf_key, btf_value) = if types.is_some() { (btf::KEY, btf::VALUE) } else { (0, 0) };
    let mut attr = MapCreate {
        kind: kind_number(spec.kind),
        key_size,
        value_size,
        max_entries: entries,
        flags,
        inner_map_fd: inner.map_or(0, raw),
        numa_node: 0,
        name,
        ifindex: 0,
        btf: types.as_ref().map_or(0, |types| raw(types.as_fd())),
        btf_key,
        btf_value,
    };
    bpf_fd(Command::MapCreate, &mut attr)
}
