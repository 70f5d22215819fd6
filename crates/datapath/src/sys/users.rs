// SPDX-License-Identifier: Apache-2.0
//! Which programs use a map: of all that are loaded, attached or not, whoever has loaded them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{Command, RawProgramInfo, address_mut, bpf, bpf_fd, found, info};

/// The member of `union bpf_attr` for walking over ids.
#[repr(C)]
struct Id {
    start: u32,
    next: u32,
    flags: u32,
}

/// Whether a loaded program uses a map with one of these ids.
pub(crate) fn is_any_used(maps: &[u32]) -> io::Result<bool> {
    let mut walk = Id { start: 0, next: 0, flags: 0 };
    while found(bpf(Command::ProgNextId, &mut walk))? {
        walk.start = walk.next;
        if let Some(program) = open(walk.start)?
            && maps_of(&program)?.iter().any(|map| maps.contains(map))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `None` when it has gone meanwhile.
fn open(id: u32) -> io::Result<Option<OwnedFd>> {
    match bpf_fd(Command::ProgById, &mut Id { start: id, next: 0, flags: 0 }) {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ids of the maps that a program uses.
fn maps_of(program: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut head = RawProgramInfo::default();
    info(program.as_fd(), &mut head)?;
    let mut maps = vec![0_u32; head.map_count as usize];
    let mut body = RawProgramInfo { map_count: head.map_count, maps: address_mut(&mut maps), ..Default::default() };
    info(program.as_fd(), &mut body)?;
    Ok(maps)
}
