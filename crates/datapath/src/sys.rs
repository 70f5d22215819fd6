// SPDX-License-Identifier: Apache-2.0
//! bpf(2) and packet(7): every call of this crate that aya and nix do not make for us, and the only place with their memory layouts.
#![allow(unsafe_code, reason = "system calls take addresses")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::MapSpec;

mod btf;
pub(crate) mod create;
pub(crate) mod iterator;
pub(crate) mod netns;
pub(crate) mod packet;
pub(crate) mod probe;
pub(crate) mod tc;
pub(crate) mod test_run;
pub(crate) mod users;

/// `enum bpf_cmd`, the part we use.
#[derive(Clone, Copy, Debug)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgNextId = 11,
    ProgById = 13,
    ObjInfo = 15,
    BtfLoad = 18,
    MapLookupBatch = 24,
    LinkCreate = 28,
    LinkUpdate = 29,
    EnableStats = 32,
    IterCreate = 33,
    LinkDetach = 34,
}

/// One call. `A` is the member of `union bpf_attr` that belongs to the command.
fn bpf<A>(command: Command, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is a `repr(C)` structure without padding, its size is passed along, and each caller keeps what it
    // points to alive until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as i32, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).unwrap_or_default())
}

fn bpf_fd<A>(command: Command, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr() as u64
}

fn address_mut<T>(of: &mut [T]) -> u64 {
    of.as_mut_ptr() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

const fn kind_number(kind: abi::MapKind) -> u32 {
    match kind {
        abi::MapKind::Hash => 1,
        abi::MapKind::Array => 2,
        abi::MapKind::PerCpuArray => 6,
        abi::MapKind::LruHash => 9,
        abi::MapKind::LpmTrie => 11,
        abi::MapKind::PerCpuRingBuf => 13,
        abi::MapKind::SkStorage => 24,
        abi::MapKind::RingBuf => 27,
    }
}

/// Sizes of keys and values as the kernel has them, which does not count events as values.
pub(crate) const fn sizes(spec: &MapSpec) -> (usize, usize) {
    match spec.kind {
        abi::MapKind::RingBuf => (0, 0),
        abi::MapKind::PerCpuRingBuf => (size_of::<u32>(), size_of::<u32>()),
        _ => (spec.key_size, spec.value_size),
    }
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> Element {
    Element { map: raw(map), pad: 0, key, value, flags: 0 }
}

/// False instead of `ENOENT`.
fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The slices must be as long as the map's key and value (of all processors).
pub(crate) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    found(bpf(Command::MapLookup, &mut element(map, address(key), address_mut(value))))
}

/// As for [`map_lookup`].
pub(crate) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(Command::MapUpdate, &mut element(map, address(key), address(value))).map(drop)
}

/// As for [`map_lookup`]; false, and no change, when there is an entry already.
pub(crate) fn map_insert(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    const NOEXIST: u64 = 1;
    let mut attr = Element { flags: NOEXIST, ..element(map, address(key), address(value)) };
    match bpf(Command::MapUpdate, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// As for [`map_lookup`].
pub(crate) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    found(bpf(Command::MapDelete, &mut element(map, address(key), 0)))
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads up to `count` entries from where `position` says. Returns how many, and whether there are more.
pub(crate) fn map_lookup_batch(
    map: BorrowedFd<'_>,
    position: &mut Option<Vec<u8>>,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let mut next = vec![0_u8; position.as_ref().map_or(64, Vec::len)];
    let mut attr = Batch {
        in_batch: position.as_deref().map_or(0, address),
        out_batch: address_mut(&mut next),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    let more = found(bpf(Command::MapLookupBatch, &mut attr))?;
    *position = Some(next);
    Ok((attr.count, more))
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Makes a map, program or link live on under that path.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 };
    bpf(Command::ObjPin, &mut attr).map(drop)
}

/// Opens what is pinned there; `None` when nothing is.
pub(crate) fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    match bpf_fd(Command::ObjGet, &mut Object { path: path.as_ptr() as u64, fd: 0, flags: 0 }) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct InfoRequest {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T>(fd: BorrowedFd<'_>, answer: &mut T) -> io::Result<()> {
    let len = u32::try_from(size_of::<T>()).unwrap_or_default();
    let mut attr = InfoRequest { fd: raw(fd), len, info: std::ptr::from_mut(answer) as u64 };
    bpf(Command::ObjInfo, &mut attr).map(drop)
}

/// Head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

impl MapInfo {
    /// What differs from the description, in words.
    pub(crate) fn mismatch(&self, spec: &MapSpec) -> Option<String> {
        let (key_size, value_size) = sizes(spec);
        if self.kind != kind_number(spec.kind) {
            return Some(format!("map type {}, expected {}", self.kind, kind_number(spec.kind)));
        }
        if self.key_size as usize != key_size {
            return Some(format!("keys of {} bytes, expected {key_size}", self.key_size));
        }
        (self.value_size as usize != value_size)
            .then(|| format!("values of {} bytes, expected {value_size}", self.value_size))
    }
}

pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut answer = MapInfo::default();
    info(map, &mut answer)?;
    Ok(answer)
}

/// Head of `struct bpf_link_info`; the target is an interface index and the attach type for tcx, an interface index for XDP, a cgroup id for
/// cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    pub(crate) pad: u32,
    target: u64,
    attach_type: u32,
    pad_end: u32,
}

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
const LINK_TCX: u32 = 11;

impl LinkInfo {
    /// Index of the interface a link of tcx or XDP is attached to; 0 when that has gone.
    pub(crate) fn ifindex(&self) -> Option<u32> {
        let [a, b, c, d, ..] = self.target.to_ne_bytes();
        matches!(self.kind, LINK_TCX | LINK_XDP).then(|| u32::from_ne_bytes([a, b, c, d]))
    }

    /// Id of the control group a link is attached to, which is its inode.
    pub(crate) fn cgroup(&self) -> Option<u64> {
        (self.kind == LINK_CGROUP).then_some(self.target)
    }

    /// `enum bpf_attach_type`.
    pub(crate) fn attach_type(&self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.target.to_ne_bytes();
        if self.kind == LINK_TCX { u32::from_ne_bytes([a, b, c, d]) } else { self.attach_type }
    }
}

pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut answer = LinkInfo::default();
    info(link, &mut answer)?;
    Ok(answer)
}

/// Head of `struct bpf_prog_info`; what we do not read is left out as words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: u64,
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    before: [u64; 10],
    function_count: u32,
    line_count: u32,
    after: [u64; 5],
    run_time_ns: u64,
    run_count: u64,
    recursion_misses: u64,
    verified_instructions: u32,
    pad: u32,
}

/// How often a program ran and for how long, while that was counted.
pub(crate) fn program_run_time(program: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut head = RawProgramInfo::default();
    info(program, &mut head)?;
    Ok((head.run_count, head.run_time_ns))
}

/// Has the kernel count the run time of all programs for as long as the descriptor is open (`BPF_STATS_RUN_TIME`).
pub(crate) fn count_run_time() -> io::Result<OwnedFd> {
    bpf_fd(Command::EnableStats, &mut 0_u32)
}

/// What the verifier made of a program.
#[derive(Debug)]
pub(crate) struct ProgramInfo {
    pub(crate) verified_instructions: u32,
    /// Source lines of which it has left something.
    pub(crate) lines: u32,
    /// The instructions that are left, as they lie in memory.
    pub(crate) instructions: Vec<[u8; 8]>,
}

pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut head = RawProgramInfo::default();
    info(program, &mut head)?;
    let mut instructions = vec![[0_u8; 8]; head.xlated_len as usize / 8];
    let mut body =
        RawProgramInfo { xlated_len: head.xlated_len, xlated: address_mut(&mut instructions), ..Default::default() };
    info(program, &mut body)?;
    Ok(ProgramInfo { verified_instructions: head.verified_instructions, lines: head.line_count, instructions })
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u64,
    expected_revision: u64,
}

/// Attaches a program to an interface (by index) or a cgroup (by descriptor).
pub(crate) fn link_create(program: BorrowedFd<'_>, target: u32, attach_type: u32) -> io::Result<OwnedFd> {
    link_create_with(program, target, attach_type, 0)
}

/// The same with flags of that type of attachment.
pub(crate) fn link_create_with(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate { program: raw(program), target, attach_type, flags, relative: 0, expected_revision: 0 };
    bpf_fd(Command::LinkCreate, &mut attr)
}

/// The number by which [`link_create`] knows an open cgroup.
pub(crate) fn target_of(cgroup: &impl AsFd) -> u32 {
    raw(cgroup.as_fd())
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link; no packet sees none.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf(Command::LinkUpdate, &mut attr).map(drop)
}

/// Ends a link before its last holder goes, who would end it a little later: the kernel puts that off.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    bpf(Command::LinkDetach, &mut attr).map(drop)
}
