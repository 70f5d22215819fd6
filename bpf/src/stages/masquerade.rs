// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Masquerading: traffic that leaves the cluster takes the node's address. And the port of any translated flow: replies must find
//! their flow by what they name, so no two flows may have the same ones.

use super::{commit, direct};
use crate::addresses::is_local;
use crate::config;
use crate::encap::is_tunnel;
use crate::flows;
use crate::lb;
use crate::maps;
use crate::packet::{From, Packet};
use crate::pkt::{CLASH, Pkt};
use crate::record;
use crate::scratch::{DST_IS_HOST, HAS_ALIAS, IS_REPLY, NO_MASQUERADE, NOT_REMEMBERED, Scratch, TABLE_FULL};
use crate::verdict::{Stage, drop};
use abi::flow::{Flow, FlowKey, Half, action, flags, proto};
use abi::lb::{LOOPBACK_IPV4, LOOPBACK_IPV6};
use abi::ports::Range;
use abi::tuple::{Tuple, has_identifier, is_icmp};
use abi::{Addr, DropReason, identity};
use aya_ebpf::bindings::{BPF_NOEXIST, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};

/// Ports tried before a connection is refused its translation.
const PORT_TRIES: u32 = 16;
/// Those tried before its opener's own are.
const SHARED_TRIES: u32 = 11;

/// Decides under which source the flow goes on, and takes that for it by writing its alias.
#[inline(never)]
pub fn translate<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    if scratch.flow.has(flags::DIRECT) {
        return direct::keep_ends(pkt, scratch);
    }
    let source = source_address(scratch);
    if source.is_none() && hides_client(scratch) {
        return drop(DropReason::NoMappingForNatMasquerade);
    }
    // Replies to another flow would have the same tuple, or had when this flow began.
    let clash = if scratch.is_known() {
        had_clash(&scratch.known)
    } else {
        pkt.is(CLASH) && (scratch.opener.id != 0 || (pkt.from == From::DEVICE && !scratch.notes(IS_REPLY)))
    };
    if source.is_none() && !scratch.flow.has(flags::NAT_DST) && !clash {
        return Ok(());
    }
    if scratch.notes(IS_REPLY) && !scratch.is_known() {
        // An answer to it would have another tuple.
        return drop(DropReason::StaleOrUnroutableIp);
    }
    scratch.flow.nat_src = scratch.tuple.src;
    if !source.is_none() {
        scratch.flow.flags |= if scratch.comes_back() { 0 } else { flags::MASQUERADE };
        scratch.flow.nat_src = source;
    }
    if keeps_port(scratch) {
        if !scratch.notes(NOT_REMEMBERED) {
            name_alias(scratch);
            restore_alias(scratch);
        }
        return Ok(());
    }
    if scratch.notes(NOT_REMEMBERED) {
        return drop(DropReason::NoMappingForNatMasquerade);
    }
    if reserve(packet, scratch, clash) { Ok(()) } else { drop(DropReason::NoMappingForNatMasquerade) }
}

/// A known flow whose way has not changed keeps its port, and with it its alias.
#[inline(always)]
fn keeps_port(scratch: &mut Scratch) -> bool {
    let (known, flow) = (&scratch.known, &mut scratch.flow);
    if known.created == 0 || !known.is_translated() {
        return false;
    }
    let source = if known.has(flags::NAT_SRC) { known.nat_src } else { scratch.tuple.src };
    let port = if known.has(flags::NAT_SRC) { known.nat_sport } else { scratch.tuple.sport };
    let same_target = known.has(flags::NAT_DST) == flow.has(flags::NAT_DST)
        && (!flow.has(flags::NAT_DST) || (known.nat_dst == flow.nat_dst && known.nat_dport == flow.nat_dport));
    if !same_target || source != flow.nat_src {
        return false;
    }
    take_source(flow, &scratch.tuple, port);
    true
}

/// Whether a flow has another port only since its own would have clashed.
#[inline(always)]
fn had_clash(known: &Flow) -> bool {
    known.has(flags::NAT_SRC) && !known.has(flags::MASQUERADE) && !known.has(flags::NAT_DST)
}

/// Writes the alias of a known flow if it has got lost.
#[inline(never)]
fn restore_alias(scratch: &Scratch) -> i32 {
    if !record::answers_as(&scratch.flow, &scratch.key, &scratch.key) {
        let _ = maps::FLOWS.insert(&scratch.alias_key, &scratch.alias, BPF_NOEXIST as u64);
    }
    0
}

/// Notes the source port; a source that stays what it is needs no rewriting.
#[inline(always)]
fn take_source(flow: &mut Flow, tuple: &Tuple, port: u16) {
    flow.nat_sport = port;
    if port != tuple.sport || flow.nat_src != tuple.src {
        flow.flags |= flags::NAT_SRC;
    } else {
        flow.flags &= !flags::NAT_SRC;
    }
}

/// The node's address, for a flow that is masqueraded: also for one that would not be if it began now, since its peer knows it by that.
#[inline(always)]
fn source_address(scratch: &Scratch) -> Addr {
    if scratch.comes_back() {
        // To itself a pod would answer without us.
        return if scratch.family == 4 { LOOPBACK_IPV4 } else { LOOPBACK_IPV6 };
    }
    let known = &scratch.known;
    let was = scratch.is_known() && known.has(flags::MASQUERADE) && is_local(&known.nat_src);
    if hides_client(scratch) {
        return if was { known.nat_src } else { own_address(&scratch.flow.forward, scratch.family) };
    }
    let source = masquerade_address(scratch);
    if source.is_none() && was && scratch.flow.forward.action == action::NEIGH { known.nat_src } else { source }
}

/// Whether a client outside is to be answered by way of this node, which the backend therefore has to take for its client.
#[inline(always)]
fn hides_client(scratch: &Scratch) -> bool {
    scratch.passes_through() && !scratch.notes(DST_IS_HOST) && !scratch.flow.has(flags::DIRECT)
}

/// This node's address on that way; one through the tunnel starts at the address that other nodes know it by.
#[inline(always)]
fn own_address(way: &Half, family: u8) -> Addr {
    let Some(node) = maps::NODE.get(0) else { return Addr::NONE };
    let (by_device, ends) =
        if family == 4 { (node.masquerade_ipv4, node.tunnel_ipv4) } else { (node.masquerade_ipv6, node.tunnel_ipv6) };
    let device = if way.action == action::NEIGH { address_of(way.out_ifindex, family) } else { by_device };
    if device.is_none() { ends } else { device }
}

/// The address to take, if the flow leaves the cluster over a native device, else none.
#[inline(always)]
fn masquerade_address(scratch: &Scratch) -> Addr {
    if scratch.flow.forward.action != action::NEIGH || scratch.notes(NO_MASQUERADE) || scratch.opener.id == 0 {
        return Addr::NONE;
    }
    let on = if scratch.family == 4 { &config::MASQUERADE_IPV4 } else { &config::MASQUERADE_IPV6 };
    if !config::on(on) {
        return Addr::NONE;
    }
    // With a tunnel, the network between nodes does not know pods' addresses; without, it routes them.
    let peer = scratch.target.identity;
    if matches!(peer, identity::REMOTE_NODE | identity::KUBE_APISERVER) && !config::on(&config::TUNNEL) {
        return Addr::NONE;
    }
    address_of(scratch.flow.forward.out_ifindex, scratch.family)
}

/// The address of the native device that the flow leaves by; of one without, the node's. None for another device: what comes back
/// by that one nobody looks at.
#[inline(always)]
fn address_of(ifindex: u32, family: u8) -> Addr {
    let Some(node) = maps::NODE.get(0) else { return Addr::NONE };
    let own = |ipv4, ipv6| if family == 4 { ipv4 } else { ipv6 };
    // SAFETY: an entry that is replaced meanwhile is read as it was or as it is.
    match unsafe { maps::DEVICES.get(&ifindex) } {
        Some(device) if !own(device.masquerade_ipv4, device.masquerade_ipv6).is_none() => {
            own(device.masquerade_ipv4, device.masquerade_ipv6)
        }
        None if ifindex != node.native_ifindex => Addr::NONE,
        _ => own(node.masquerade_ipv4, node.masquerade_ipv6),
    }
}

/// Finds a free port, the flow's own first unless that clashes, and takes it by writing the alias.
#[inline(always)]
fn reserve<P: Packet>(packet: P, scratch: &mut Scratch, clash: bool) -> bool {
    let own = own_ports(scratch);
    let taken = clash || (scratch.flow.has(flags::MASQUERADE) && !own.allow(u16::from_be(scratch.tuple.sport)));
    let mut port = if taken { random_of(Range::ANYBODYS) } else { scratch.tuple.sport };
    // A message without an identifier has nothing that could be another.
    let fixed = is_icmp(scratch.tuple.proto) && !has_identifier(scratch.tuple.proto, scratch.tuple.class);
    if fixed && clash {
        return false;
    }
    for tried in 1..=PORT_TRIES {
        take_source(&mut scratch.flow, &scratch.tuple, port);
        name_alias(scratch);
        if take(packet, scratch) {
            return true;
        }
        if fixed || scratch.notes(TABLE_FULL) {
            break;
        }
        port = random_of(if tried < SHARED_TRIES { Range::ANYBODYS } else { own });
    }
    scratch.notes(TABLE_FULL) && commit::make_room(scratch) && take(packet, scratch)
}

/// The ports that are the opener's alone.
#[inline(always)]
fn own_ports(scratch: &Scratch) -> Range {
    if scratch.opener.id != 0 { Range::of(scratch.opener.ifindex) } else { Range::OUTSIDE }
}

#[inline(always)]
fn random_of(ports: Range) -> u16 {
    // SAFETY: no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    ports.pick(random).to_be()
}

/// The alias that the flow would have, and its key.
#[inline(never)]
fn name_alias(scratch: &mut Scratch) -> i32 {
    scratch.answer = scratch.flow.answer(&scratch.key);
    scratch.alias_key = scratch.alias.point_to(&scratch.key, &scratch.answer);
    0
}

/// Whether nobody else is answered by the tuple that replies have now; then it is this flow's.
#[inline(never)]
fn take<P: Packet>(packet: P, scratch: &mut Scratch) -> bool {
    scratch.alias_key.alias = 0;
    if scratch.alias_key == scratch.key {
        // Translated into itself.
        return true;
    }
    let answer = &scratch.answer;
    if scratch.flow.has(flags::MASQUERADE) && is_the_nodes(packet, answer) {
        return false;
    }
    if is_answered(&scratch.alias_key, &scratch.answer) && !direct::comes_another_way(scratch) {
        return false;
    }
    scratch.alias_key.alias = 1;
    let failure = commit::try_insert(&scratch.alias_key, &scratch.alias);
    if failure != 0 && failure != commit::EEXIST {
        scratch.notes |= TABLE_FULL;
        return false;
    }
    if failure != 0 {
        // One that this flow has left behind is as good.
        return flows::get(&scratch.alias_key).is_some_and(|found| found.target(&scratch.alias_key) == scratch.key);
    }
    scratch.notes |= HAS_ALIAS;
    true
}

/// Whether the node needs the port itself: for the tunnel, for services, whose clients' packets would go to the pod, or for a socket.
#[inline(always)]
fn is_the_nodes<P: Packet>(packet: P, answer: &Tuple) -> bool {
    is_tunnel(answer.proto, answer.dport)
        || lb::is_for_services(&answer.dst, answer.dport, answer.proto)
        || host_uses(packet, answer)
}

/// Whether these ends are another flow's own: its packets, of the one direction or the other, would be taken for answers to this one.
/// Of one that is translated that is its forward direction alone.
#[inline(always)]
fn is_answered(plain: &FlowKey, answer: &Tuple) -> bool {
    let (_, from_b) = answer.key();
    flows::get(plain).is_some_and(|flow| !flow.is_translated() || !flow.is_reply(from_b))
}

/// Whether a socket of the node would take the replies.
#[inline(never)]
fn host_uses<P: Packet>(packet: P, answer: &Tuple) -> bool {
    // SAFETY: all-zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if answer.dst.is_v4() {
        // SAFETY: the union's IPv4 member.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4.saddr = answer.src.v4_be();
        v4.daddr = answer.dst.v4_be();
        v4.sport = answer.sport;
        v4.dport = answer.dport;
        12
    } else {
        // SAFETY: the union's IPv6 member; sixteen bytes of address each.
        unsafe {
            let v6 = &mut tuple.__bindgen_anon_1.ipv6;
            core::ptr::from_mut(&mut v6.saddr).cast::<[u64; 2]>().write_unaligned([answer.src.hi, answer.src.lo]);
            core::ptr::from_mut(&mut v6.daddr).cast::<[u64; 2]>().write_unaligned([answer.dst.hi, answer.dst.lo]);
            v6.sport = answer.sport;
            v6.dport = answer.dport;
        }
        36
    };
    // SAFETY: valid context and tuple; a socket that is found is released.
    unsafe {
        let socket: *mut bpf_sock = match answer.proto {
            proto::TCP => bpf_sk_lookup_tcp(packet.context().cast(), &mut tuple, size, u64::MAX, 0),
            proto::UDP => bpf_sk_lookup_udp(packet.context().cast(), &mut tuple, size, u64::MAX, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
