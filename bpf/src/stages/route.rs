// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Where packets go in both directions, and where they may come from: what addresses have not settled, the kernel's routes do.

use super::{ipcache, policy, source};
use crate::config;
use crate::encap;
use crate::epochs;
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::Pkt;
use crate::scratch::{DST_IS_HOST, IS_REPLY, Scratch};
use crate::verdict::{Stage, drop};
use abi::config::NodeConfig;
use abi::flow::{Half, action, flags, half, origin};
use abi::{Addr, DropReason, epoch};
use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Completes both halves.
#[inline(never)]
pub fn next_hops<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    // SAFETY: array values are never freed.
    let Some(node) = maps::NODE.get(0) else { return drop(DropReason::InvalidTcBuffer) };
    to_target(packet, pkt, node, scratch)?;
    to_opener(packet, pkt, node, scratch)?;
    scratch.flow.forward.origin = forward_origin(pkt, node, scratch);
    scratch.flow.reply.origin = reply_origin(pkt, node, scratch);
    Ok(())
}

/// The forward direction.
#[inline(always)]
fn to_target<P: Packet>(packet: P, pkt: &Pkt, node: &NodeConfig, scratch: &mut Scratch) -> Stage {
    let inside = scratch.opener.ifindex;
    if scratch.notes(IS_REPLY) && pkt.from == From::TUNNEL && scratch.flow.forward.action == action::TUNNEL {
        // Of a node's addresses it has chosen this one; packets to it prove by that where they belong.
        scratch.flow.forward.hop = pkt.node;
    }
    let ends = Ends { src: scratch.tuple.src, dst: scratch.dst, proto: scratch.tuple.proto };
    let leaves = scratch.flow.forward.action == action::NEIGH;
    lead(packet, node, inside, &ends, &mut scratch.flow.forward)?;
    // What the kernel does not send on it may keep: not all that is the node's is known to be.
    let kept = leaves && scratch.flow.forward.action == action::STACK;
    // To the stack what names a frontend is a packet with options that it does not know.
    if kept && (scratch.flow.has(flags::DIRECT) || !policy::lets_to_node(scratch)) {
        return drop(DropReason::FibLookupFailed);
    }
    Ok(())
}

/// The reply direction: to a local opener, or back where the flow came from.
#[inline(always)]
fn to_opener<P: Packet>(packet: P, pkt: &Pkt, node: &NodeConfig, scratch: &mut Scratch) -> Stage {
    let opener = &scratch.opener;
    if opener.id != 0 {
        scratch.flow.reply.action = action::LOCAL;
        scratch.flow.reply.out_ifindex = opener.ifindex;
        scratch.flow.reply.hop = opener.macs;
        return Ok(());
    }
    let answers_itself = scratch.notes(DST_IS_HOST);
    let asked = if scratch.flow.is_returned() { scratch.flow.nat_dst } else { scratch.tuple.dst };
    let way = &mut scratch.flow.reply;
    if scratch.notes & IS_REPLY == 0 {
        (way.action, way.hop) = match pkt.from {
            From::TUNNEL => (action::TUNNEL, pkt.node),
            From::DEVICE if !answers_itself => (action::NEIGH, Addr::NONE),
            _ => (action::STACK, Addr::NONE),
        };
    } else if scratch.known.created != 0 {
        (way.action, way.hop) = (scratch.known.reply.action, scratch.known.reply.hop);
    } else {
        (way.action, way.hop) = by_address(&scratch.tuple.src);
    }
    let ends = Ends { src: asked, dst: scratch.tuple.src, proto: scratch.tuple.proto };
    let leaves = way.action == action::NEIGH;
    lead(packet, node, scratch.target.ifindex, &ends, way)?;
    // To whom the kernel would not send from here nobody can be who sends from there.
    if leaves && way.action == action::STACK && pkt.from == From::DEVICE && scratch.notes & IS_REPLY == 0 {
        return drop(DropReason::InvalidSourceIp);
    }
    Ok(())
}

/// How an address is reached that nothing else is known of.
#[inline(always)]
fn by_address(addr: &Addr) -> (u8, Addr) {
    if source::is_local(addr) {
        return (action::STACK, Addr::NONE);
    }
    match ipcache::lookup(addr) {
        Some(entry) if config::on(&config::TUNNEL) && ipcache::is_behind_tunnel(entry) => {
            (action::TUNNEL, entry.tunnel)
        }
        _ => (action::NEIGH, Addr::NONE),
    }
}

/// Where packets of the forward direction come from.
#[inline(always)]
fn forward_origin(pkt: &Pkt, node: &NodeConfig, scratch: &Scratch) -> u32 {
    if scratch.opener.id != 0 {
        return scratch.opener.ifindex;
    }
    if !scratch.notes(IS_REPLY) {
        return pkt.origin;
    }
    if scratch.known.created != 0 {
        return scratch.known.forward.origin;
    }
    arrival(&scratch.flow.reply, node)
}

/// Where replies come from.
#[inline(always)]
fn reply_origin(pkt: &Pkt, node: &NodeConfig, scratch: &Scratch) -> u32 {
    if scratch.target.id != 0 {
        return scratch.target.ifindex;
    }
    if scratch.notes(IS_REPLY) {
        return pkt.origin;
    }
    arrival(&scratch.flow.forward, node)
}

/// Where packets arrive from for a pod, when those to there go that way.
#[inline(always)]
fn arrival(way: &Half, node: &NodeConfig) -> u32 {
    match way.action {
        action::TUNNEL => origin::TUNNEL | node.overlay_ifindex,
        action::NEIGH => way.out_ifindex,
        _ => origin::STACK,
    }
}

/// The ends of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub src: Addr,
    pub dst: Addr,
    pub proto: u8,
}

/// Asks the kernel's routes where the action leads to.
#[inline(never)]
fn lead<P: Packet>(packet: P, node: &NodeConfig, inside: u32, ends: &Ends, way: &mut Half) -> Stage {
    match way.action {
        action::TUNNEL => {
            if node.overlay_ifindex == 0 {
                return drop(DropReason::NoTunnelOrEncapsulationEndpoint);
            }
            encap::lead(packet, node, inside, way);
        }
        action::NEIGH => {
            let found = ask(packet, inside, ends, way);
            if found != 0 && found == node.overlay_ifindex {
                // Through the stack's own route it would travel under the node's identity.
                return drop(DropReason::StaleOrUnroutableIp);
            }
            // Through the stack goes what it must answer itself (no route), and what its own device takes.
            if found == 0 || found == node.host_ifindex {
                way.action = action::STACK;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Device, next hop and size of the way to `dst`; returns the device, or 0 when the kernel would not forward the packet.
#[inline(never)]
fn ask<P: Packet>(packet: P, inside: u32, ends: &Ends, way: &mut Half) -> u32 {
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

/// The way to a node, for packets that get outer headers.
#[inline(always)]
pub fn to_node<P: Packet>(packet: P, inside: u32, src: &Addr, dst: &Addr, way: &mut Half) -> u32 {
    ask(packet, inside, &Ends { src: *src, dst: *dst, proto: abi::flow::proto::UDP }, way)
}

#[inline(always)]
const fn words(addr: Addr) -> [u32; 4] {
    [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32]
}
