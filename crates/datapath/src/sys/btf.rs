// SPDX-License-Identifier: Apache-2.0
//! Types (BTF) of a map whose values are in sockets: the kernel does not make such a map without. They say how big key and value are, and
//! nothing of what is in them: that is what the markers are for.

use std::io;
use std::os::fd::OwnedFd;

use super::{Command, address, bpf_fd};

/// Number of the key's type, a signed integer of 32 bits.
pub(super) const KEY: u32 = 1;
/// Number of the value's type, an array of bytes.
pub(super) const VALUE: u32 = 3;

/// Member of `union bpf_attr` for loading types.
#[repr(C)]
struct Load {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// Gives the kernel the types of a map with values of so many bytes. The map holds them on its own.
pub(super) fn load(value_size: u32) -> io::Result<OwnedFd> {
    let types = types(value_size);
    let size = u32::try_from(types.len()).unwrap_or_default();
    bpf_fd(Command::BtfLoad, &mut Load { btf: address(&types), log: 0, size, log_size: 0, log_level: 0, pad: 0 })
}

/// `struct btf_header`, types, strings (Documentation/bpf/btf.rst).
fn types(value_size: u32) -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const ARRAY: u32 = 3 << 24;
    const SIGNED: u32 = 1 << 24;
    const BYTE: u32 = 2;
    const STRINGS: &[u8] = b"\0int\0byte\0";
    // Name, kind, size, encoding and bits.
    let int = [1, INT, 4, SIGNED | 32];
    let byte = [5, INT, 1, 8];
    // No name, kind, no size; of what, counted by what, how many.
    let array = [0, ARRAY, 0, BYTE, KEY, value_size];
    let types: Vec<u32> = int.into_iter().chain(byte).chain(array).collect();
    let len = |bytes: usize| u32::try_from(bytes).unwrap_or_default();
    let type_len = len(size_of_val(types.as_slice()));
    // Magic number, version, flags; length of the header; where types and strings are behind it.
    let mut bytes = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0]].concat();
    let header = [24, 0, type_len, type_len, len(STRINGS.len())];
    bytes.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
    bytes.extend(STRINGS);
    bytes
}
