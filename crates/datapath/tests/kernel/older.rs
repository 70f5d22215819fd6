// SPDX-License-Identifier: Apache-2.0
//! What a build of version 1 leaves behind: its maps, made and pinned without this build, and a program that uses one.
#![allow(unsafe_code, reason = "system calls take addresses")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use abi::event::Event;
use abi::spine::{FlowEntry, FlowKey, NodeConfig};
use aya::maps::{Array, HashMap, Map, MapData};

use crate::sandbox::Sandbox;

const MAP_CREATE: i64 = 0;
const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const PROG_TEST_RUN: i64 = 10;
pub(crate) const HASH: u64 = 1;
const ARRAY: u64 = 2;
const LRU_HASH: u64 = 9;
const RING: u64 = 27;
const CLASSIFIER: u64 = 3;

/// One call of bpf(2), with its attributes as words.
fn bpf(command: i64, attributes: &[u64]) -> i64 {
    // SAFETY: the kernel reads as many bytes as there are; what they point to is alive in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    assert!(result >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    result
}

/// Two 32-bit fields that lie side by side.
fn pair(first: u64, second: u64) -> u64 {
    first | second << 32
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd.try_into().unwrap()) }
}

fn number(fd: &OwnedFd) -> u64 {
    fd.as_raw_fd().try_into().unwrap()
}

/// Makes a map and pins it under its plain name.
pub(crate) fn pin_map(sandbox: &Sandbox, name: &str, kind: u64, [key, value]: [usize; 2], entries: u64) -> OwnedFd {
    let (key, value) = (u64::try_from(key).unwrap(), u64::try_from(value).unwrap());
    let map = owned(bpf(MAP_CREATE, &[pair(kind, key), pair(value, entries), 0]));
    std::fs::create_dir_all(sandbox.pin("maps")).unwrap();
    let path = CString::new(sandbox.pin("maps").join(name).into_os_string().into_encoded_bytes()).unwrap();
    bpf(OBJ_PIN, &[path.as_ptr() as u64, number(&map)]);
    map
}

/// The maps whose layout has changed since.
pub(crate) struct Older {
    pub(crate) flows: HashMap<MapData, FlowKey, FlowEntry>,
    pub(crate) node: Array<MapData, NodeConfig>,
    flows_fd: OwnedFd,
}

impl Older {
    pub(crate) fn pin(sandbox: &Sandbox) -> Self {
        let flows = [size_of::<FlowKey>(), size_of::<FlowEntry>()];
        let flows_fd = pin_map(sandbox, "cilium_flows", LRU_HASH, flows, 4096);
        pin_map(sandbox, "cilium_node", ARRAY, [4, size_of::<NodeConfig>()], 1);
        pin_map(sandbox, "cilium_fragments", LRU_HASH, [40, 4], 64);
        let open = |name: &str| MapData::from_pin(sandbox.pin("maps").join(name)).unwrap();
        Self {
            flows: Map::LruHashMap(open("cilium_flows")).try_into().unwrap(),
            node: Map::Array(open("cilium_node")).try_into().unwrap(),
            flows_fd,
        }
    }

    /// A program that uses the flow table, for as long as it is open.
    pub(crate) fn program(&self) -> OwnedFd {
        // r1 = the map; r0 = 0; return
        load(&[instruction(0x18, 0x11, number(&self.flows_fd)), 0, instruction(0xb7, 0, 0), instruction(0x95, 0, 0)])
    }
}

fn instruction(operation: u64, registers: u64, immediate: u64) -> u64 {
    operation | registers << 8 | immediate << 32
}

fn load(instructions: &[u64]) -> OwnedFd {
    let (count, license) = (u64::try_from(instructions.len()).unwrap(), c"GPL");
    let code = instructions.as_ptr() as u64;
    owned(bpf(PROG_LOAD, &[pair(CLASSIFIER, count), code, license.as_ptr() as u64, 0, 0, 0]))
}

/// The one ring of events of version 1, in which a program that is gone has told one of that time.
pub(crate) fn pin_ring_of_events(sandbox: &Sandbox, time: u32) {
    let ring = pin_map(sandbox, "cilium_events", RING, [0, 0], 1 << 20);
    let size = u64::try_from(size_of::<Event>()).unwrap();
    // The event is zeros on the stack but for its beginning, which is the time; the offset lies between registers and immediate.
    let word = |at: u64, value: u64| instruction(0x7a, 0x0a, value) | (at.wrapping_sub(size) & 0xffff) << 16;
    let mut code: Vec<_> = (0..size).step_by(8).map(|at| word(at, if at == 0 { time.into() } else { 0 })).collect();
    // r1 = the ring; r2 = the event; r3 = its size; r4 = 0; bpf_ringbuf_output; r0 = 0; return
    code.extend([instruction(0x18, 0x11, number(&ring)), 0, instruction(0xbf, 0xa2, 0)]);
    code.push(instruction(0x07, 0x02, u64::from(u32::MAX) + 1 - size));
    code.extend([instruction(0xb7, 0x03, size), instruction(0xb7, 0x04, 0), instruction(0x85, 0, 130)]);
    code.extend([instruction(0xb7, 0, 0), instruction(0x95, 0, 0)]);
    let (program, frame) = (load(&code), [0_u8; 64]);
    bpf(PROG_TEST_RUN, &[number(&program), pair(64, 0), frame.as_ptr() as u64, 0, pair(1, 0)]);
}
