// SPDX-License-Identifier: Apache-2.0
//! Programs that read out a map (Documentation/bpf/bpf_iterators.rst).

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Command, bpf_fd, raw};

/// `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    pad: u32,
}

/// Attaches such a program to a map; the link holds both.
pub(crate) fn attach(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `struct { __u32 map_fd; } map` of `union bpf_iter_link_info`.
    let info = raw(map);
    let info_len = u32::try_from(size_of_val(&info)).unwrap_or_default();
    let info = std::ptr::from_ref(&info) as u64;
    let mut attr =
        LinkCreate { program: raw(program), target: 0, attach_type: TRACE_ITER, flags: 0, info, info_len, pad: 0 };
    bpf_fd(Command::LinkCreate, &mut attr)
}

#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

/// A file with all that the program writes about the map as it is now.
pub(crate) fn read(link: BorrowedFd<'_>) -> io::Result<File> {
    bpf_fd(Command::IterCreate, &mut IterCreate { link: raw(link), flags: 0 }).map(File::from)
}
