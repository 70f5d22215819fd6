// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Hardware addresses for packets that no stack sends on. The kernel keeps its table of neighbours in order while it sends to them itself;
//! so one packet a tick is left to it for each.

use crate::epochs;
use crate::fib::{Ends, ask_kernel};
use crate::headers::Macs;
use crate::packet::Packet;
use abi::{Addr, epoch};
use aya_ebpf::bindings::{BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

/// How many neighbours each processor keeps.
const KEPT: u32 = 64;

#[map(name = "cilium_neigh")]
static NEIGHBOURS: PerCpuArray<Neighbour> = PerCpuArray::with_max_entries(KEPT, 0);

/// A neighbour, as the kernel knew it.
#[repr(C)]
struct Neighbour {
    hop: Addr,
    /// Interface that leads to it, or 0 when nothing is known.
    ifindex: u32,
    /// [`epoch::GENERATION`] before the kernel was asked.
    generation: u32,
    /// When it was asked.
    tick: u32,
    macs: Macs,
    /// What the kernel has made of the question. Here, since the stack has no room for it.
    params: bpf_fib_lookup,
}

/// Finds the addresses for packets to a neighbour, or to a node behind one. False when the kernel does not know them, or is to look after
/// this neighbour again.
#[inline(never)]
pub fn find<P: Packet>(packet: P, ifindex: u32, hop: &Addr, macs: &mut Macs) -> bool {
    let (generation, tick) = (epochs::generation(), epochs::now());
    let entry = NEIGHBOURS.get_ptr_mut(epoch::of_peer(*hop) % KEPT);
    // SAFETY: the map value is this processor's alone while the program runs; it holds plain values only.
    let Some(entry) = entry.map(|entry| unsafe { &mut *entry }) else { return false };
    let is_it = entry.ifindex == ifindex && entry.hop == *hop && entry.generation == generation;
    if is_it && entry.tick == tick {
        *macs = entry.macs;
        return true;
    }
    entry.ifindex = 0;
    if !look_up(packet, ifindex, hop, entry) {
        return false;
    }
    (entry.hop, entry.ifindex, entry.generation, entry.tick) = (*hop, ifindex, generation, tick);
    *macs = entry.macs;
    !is_it
}

#[inline(always)]
fn look_up<P: Packet>(packet: P, ifindex: u32, hop: &Addr, entry: &mut Neighbour) -> bool {
    // Any source: rules that ask for it have chosen the hop.
    let src = if hop.is_v4() { Addr::from_v4_be(0) } else { Addr::NONE };
    let ends = Ends { src, dst: *hop, proto: 0 };
    if !ask_kernel(packet, ifindex, &ends, &mut entry.params, BPF_FIB_LOOKUP_OUTPUT) {
        return false;
    }
    let words = |[a, b, c, d, e, f]: [u8; 6]| [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
    entry.macs = Macs { dst: words(entry.params.dmac), src: words(entry.params.smac) };
    entry.params.ifindex == ifindex
}
