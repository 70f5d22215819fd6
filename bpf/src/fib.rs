// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The kernel's routes (its FIB): where they lead, asked once a tick for each way.

use crate::epochs;
use crate::packet::Packet;
use abi::flow::{Half, half, proto};
use abi::{Addr, epoch};
use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The ends of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub src: Addr,
    pub dst: Addr,
    pub proto: u8,
}

/// Device, next hop and size of the way to `dst`; returns the device, or 0 when the kernel would not forward the packet.
#[inline(never)]
pub fn ask<P: Packet>(packet: P, inside: u32, ends: &Ends, way: &mut Half) -> u32 {
    let from = if inside != 0 { inside } else { packet.ifindex() };
    // Read before the routes are: what changes meanwhile outdates the answer.
    let (generation, tick) = (epochs::generation(), epochs::now());
    let answer = ANSWERS.get_ptr_mut(epoch::of_peer(ends.dst) % ANSWERS_KEPT);
    // SAFETY: the map value is this processor's alone while the program runs; it holds plain values only.
    let Some(answer) = answer.map(|answer| unsafe { &mut *answer }) else { return 0 };
    let is_it = answer.generation == generation && answer.tick == tick && answer.from == from && answer.ends == *ends;
    if !is_it {
        answer.from = 0;
        if !look_up(packet, from, ends, answer) {
            return 0;
        }
        (answer.generation, answer.tick, answer.from, answer.ends) = (generation, tick, from, *ends);
    }
    way.out_ifindex = answer.params.ifindex;
    way.hop = next_hop(&answer.params);
    way.mtu = answer.mtu;
    way.flags = half::ON_LINK;
    way.out_ifindex
}

/// The way to a node, for packets that get outer headers.
#[inline(always)]
pub fn to_node<P: Packet>(packet: P, inside: u32, src: &Addr, dst: &Addr, way: &mut Half) -> u32 {
    ask(packet, inside, &Ends { src: *src, dst: *dst, proto: proto::UDP }, way)
}

/// How many answers each processor keeps.
const ANSWERS_KEPT: u32 = 256;

/// What the kernel's routes have answered lately.
#[map(name = "cilium_routes")]
static ANSWERS: PerCpuArray<Answer> = PerCpuArray::with_max_entries(ANSWERS_KEPT, 0);

/// An answer of the kernel's routes, and what they were asked.
#[repr(C)]
struct Answer {
    ends: Ends,
    /// The interface that packets of that way come from, or 0 when this is no answer.
    from: u32,
    /// [`epoch::GENERATION`] before they were asked: whatever has been noticed to change since outdates the answer.
    generation: u32,
    /// When they were asked: nothing that is not noticed makes it older than a tick.
    tick: u32,
    /// Size that the device takes.
    mtu: u16,
    /// What the kernel has made of the question. Here, since the stack has no room for it.
    params: bpf_fib_lookup,
}

/// Asks the kernel's routes. False when the kernel would not forward the packet.
#[inline(always)]
fn look_up<P: Packet>(packet: P, from: u32, ends: &Ends, answer: &mut Answer) -> bool {
    let params = &mut answer.params;
    if !ask_kernel(packet, from, ends, params, 0) {
        return false;
    }
    // The device's, and not what the kernel knows of the way: somebody may have told the node of a smaller one, by which the stack does
    // not measure what it forwards. So it would send on what it is left to answer.
    answer.mtu = packet.mtu_of(answer.params.ifindex) as u16;
    true
}

/// Puts a question to the kernel's routes, with flags as of `bpf_fib_lookup`. False when the kernel would not forward the packet.
#[inline(always)]
pub fn ask_kernel<P: Packet>(packet: P, from: u32, ends: &Ends, params: &mut bpf_fib_lookup, flags: u32) -> bool {
    // SAFETY: all-zero is valid.
    *params = unsafe { core::mem::zeroed() };
    params.ifindex = from;
    params.l4_protocol = ends.proto;
    // With any length here the kernel does not measure this packet.
    params.__bindgen_anon_1.tot_len = 1;
    if ends.dst.is_v4() {
        params.family = AF_INET;
        params.__bindgen_anon_3.ipv4_src = ends.src.v4_be();
        params.__bindgen_anon_4.ipv4_dst = ends.dst.v4_be();
    } else {
        params.family = AF_INET6;
        // SAFETY: the unions' IPv6 members are sixteen bytes.
        unsafe {
            core::ptr::from_mut(&mut params.__bindgen_anon_3).cast::<[u32; 4]>().write(words(ends.src));
            core::ptr::from_mut(&mut params.__bindgen_anon_4).cast::<[u32; 4]>().write(words(ends.dst));
        }
    }
    // SAFETY: valid context and parameters of the stated size.
    let result =
        unsafe { generated::bpf_fib_lookup(packet.context(), params, size_of::<bpf_fib_lookup>() as i32, flags) };
    // A neighbour that the kernel does not know yet is one that it asks for when something is sent.
    result == BPF_FIB_LKUP_RET_SUCCESS as i64 || (flags == 0 && result == BPF_FIB_LKUP_RET_NO_NEIGH as i64)
}

#[inline(always)]
fn next_hop(params: &bpf_fib_lookup) -> Addr {
    // SAFETY: both members of the union are plain bytes.
    unsafe {
        if params.family == AF_INET {
            return Addr::from_v4_be(params.__bindgen_anon_4.ipv4_dst);
        }
        let [a, b, c, d] = core::ptr::from_ref(&params.__bindgen_anon_4).cast::<[u32; 4]>().read();
        Addr { hi: (b as u64) << 32 | a as u64, lo: (d as u64) << 32 | c as u64 }
    }
}

#[inline(always)]
const fn words(addr: Addr) -> [u32; 4] {
    [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32]
}
