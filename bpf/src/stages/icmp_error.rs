// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! ICMP errors (RFC 792, RFC 4443): they belong to the flow of the packet that they quote, and go against its direction. One is let
//! through if that flow still is, if it goes to whoever sent the quoted packet, and if it comes from where that packet went.

use super::orient;
use crate::addresses;
use crate::flows;
use crate::headers::difference;
use crate::ipip;
use crate::packet::{From, Packet};
use crate::parse::{ETH_LEN, HEADERS, note_icmp};
use crate::pkt::{CLASH, FROM_B, KNOWN, Pkt, REPLY, WHOLE};
use crate::record::half_of;
use crate::rewrite;
use crate::scratch::{NOT_REMEMBERED, Scratch};
use crate::send;
use crate::verdict::{Stage, Verdict, drop};
use abi::flow::{Flow, origin, proto};
use abi::tuple::{Tuple, has_identifier, is_icmp};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;

/// Extension headers of a quoted packet that are walked over.
const MAX_EXTENSIONS: usize = 3;
/// The offset in a fragment header (RFC 8200, 4.5).
const LATER: u16 = 0xfff8u16.to_be();
/// The same in an IPv4 header.
const LATER_IPV4: u16 = 0x1fffu16.to_be();
/// ICMP's own header, before the quoted packet.
const HEADER: usize = 8;

/// Notes the flow that the error is about; it is decided as a packet of that flow. An error about no flow that we know is a packet
/// like others, unless a pod sends it.
#[inline(never)]
pub fn relate<P: Packet>(packet: P, pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    if !packet.pull(HEADERS) {
        return drop(DropReason::InvalidPacketDropped);
    }
    // Errors are short enough to be whole (RFC 1812, 4.3.2.3; RFC 4443, 2.4): what is in a piece of one is no quotation to go by.
    if pkt.fragment != WHOLE && (pkt.from != From::DEVICE || addresses::is_pod(&pkt.tuple.dst)) {
        return drop(DropReason::IpFragmentationNotSupported);
    }
    if pkt.fragment == WHOLE && concerns_flow(packet, pkt, scratch) {
        scratch.notes |= NOT_REMEMBERED;
        return orient::known(pkt, scratch);
    }
    pkt.marks &= !(KNOWN | REPLY | CLASH);
    match pkt.from {
        From::POD => drop(DropReason::CtUnknownL4Protocol),
        // Policy is asked about the error itself; nothing about it is remembered.
        _ if pkt.from == From::DEVICE && !addresses::is_pod(&pkt.tuple.dst) => Err(Verdict::NotOurs),
        _ => {
            scratch.notes |= NOT_REMEMBERED;
            orient::first(pkt, scratch)
        }
    }
}

/// Whether the error is about a flow that we know, and goes to whoever sent the quoted packet. Notes the flow.
#[inline(always)]
pub fn concerns_flow<P: Packet>(packet: P, pkt: &mut Pkt, scratch: &mut Scratch) -> bool {
    pkt.marks &= !(KNOWN | REPLY | CLASH);
    quote(packet, pkt, scratch).is_some() && scratch.quoted.src == pkt.tuple.dst && find(packet, pkt, scratch)
}

/// Notes the tuple of the packet that is quoted. `None` also for a later fragment: it has no ports.
#[inline(never)]
fn quote<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Option<()> {
    let inner = pkt.l4 as usize + HEADER;
    let tuple = &mut scratch.quoted;
    *tuple = Tuple::NONE;
    let l4 = if pkt.family == 4 {
        let version = packet.read::<u8>(inner)?;
        if packet.read::<u16>(inner + 6)? & LATER_IPV4 != 0 {
            return None;
        }
        tuple.src = Addr::from_v4_be(packet.read::<u32>(inner + 12)?);
        tuple.dst = Addr::from_v4_be(packet.read::<u32>(inner + 16)?);
        tuple.proto = packet.read::<u8>(inner + 9)?;
        inner + (version & 0x0f) as usize * 4
    } else {
        tuple.src = Addr { hi: packet.read::<u64>(inner + 8)?, lo: packet.read::<u64>(inner + 16)? };
        tuple.dst = Addr { hi: packet.read::<u64>(inner + 24)?, lo: packet.read::<u64>(inner + 32)? };
        let (next, l4) = walk(packet, inner)?;
        tuple.proto = next;
        l4
    };
    scratch.quoted_l4 = l4 as u32;
    match tuple.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            tuple.sport = packet.read::<u16>(l4)?;
            tuple.dport = packet.read::<u16>(l4 + 2)?;
        }
        proto::ICMP | proto::ICMPV6 => {
            let kind = packet.read::<u8>(l4)?;
            note_icmp(tuple, kind, packet.read::<u16>(l4 + 4)?);
        }
        _ => return None,
    }
    Some(())
}

/// The transport of a quoted IPv6 packet, and where it begins.
#[inline(always)]
fn walk<P: Packet>(packet: P, inner: usize) -> Option<(u8, usize)> {
    let mut next = packet.read::<u8>(inner + 6)?;
    let mut offset = inner + 40;
    for _ in 0..MAX_EXTENSIONS {
        let header = match next {
            0 | 43 | 60 => packet.read::<[u8; 2]>(offset)?,
            44 if packet.read::<u16>(offset + 2)? & LATER == 0 => [packet.read::<u8>(offset)?, 0],
            44 => return None,
            _ => return Some((next, offset)),
        };
        next = header[0];
        offset += (header[1] as usize + 1) * 8;
    }
    Some((next, offset))
}

/// The error is to its flow what an answer to the quoted packet would be.
#[inline(never)]
fn name_flow(pkt: &mut Pkt, quoted: &Tuple) -> i32 {
    let (key, from_b) = quoted.reversed().key();
    pkt.key = key;
    pkt.marks &= !FROM_B;
    pkt.marks |= if from_b { FROM_B } else { 0 };
    0
}

/// Finds the flow, and checks that whoever sends the error may speak of it.
#[inline(always)]
fn find<P: Packet>(packet: P, pkt: &mut Pkt, scratch: &mut Scratch) -> bool {
    name_flow(pkt, &scratch.quoted);
    let Some(flow) = flows::record(pkt) else { return false };
    let reply = pkt.is(REPLY);
    if !may_speak(packet, pkt, flow, reply, &scratch.quoted.dst) {
        return false;
    }
    scratch.known = *flow;
    scratch.key = pkt.key;
    true
}

/// The error comes from where the quoted packet went.
#[inline(always)]
fn may_speak<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, reply: bool, receiver: &Addr) -> bool {
    let expected = half_of(flow, reply).origin;
    match pkt.from {
        // A pod speaks for itself.
        From::POD => pkt.tuple.src == *receiver && expected == pkt.origin,
        // Routers on the way have addresses of their own, but they are on that way.
        From::TUNNEL => expected == pkt.origin && half_of(flow, !reply).hop == pkt.node,
        From::DEVICE => {
            let sender = if reply { flow.dst_endpoint } else { flow.src_endpoint };
            // Who finds out may answer by another of the node's links than the one by which the flow goes.
            sender == 0 && expected & (origin::STACK | origin::TUNNEL) == 0
        }
        // The node itself may find that a packet cannot go on.
        _ => packet.arrived_by() == 0 || expected == pkt.origin,
    }
}

/// Whether it is an error about a flow that we know.
#[inline(always)]
pub fn is_related(pkt: &Pkt, scratch: &Scratch) -> bool {
    pkt.is_icmp_error() && scratch.known.created != 0
}

/// Makes the error ready to go on as a packet of its flow, with its own addresses and those of the quotation as the flow's are on
/// that side.
#[inline(always)]
pub fn prepare<P: Packet>(packet: P, pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    scratch.flow.tag = scratch.key.tag();
    pkt.tag = scratch.flow.tag;
    if scratch.flow.is_rewritten() && !ipip::goes(pkt, &scratch.flow) && !restore(packet, pkt, scratch) {
        return drop(DropReason::ErrorWritingToPacket);
    }
    send::unless_delivered(pkt)
}

/// Where the quoted packet carries a port: (of its source, of its destination).
#[inline(always)]
fn port_offsets(tuple: &Tuple) -> (u32, u32) {
    if is_icmp(tuple.proto) { (4, 4) } else { (0, 2) }
}

/// Translates the error's own addresses and, turned round, those of the quotation.
#[inline(never)]
pub fn restore<P: Packet>(packet: P, pkt: &Pkt, scratch: &Scratch) -> bool {
    let quoted = &scratch.quoted;
    let translation = rewrite::of(&scratch.flow, &scratch.key, pkt.is(REPLY));
    let (of_src, of_dst) = port_offsets(quoted);
    let (of_src, of_dst) = (scratch.quoted_l4 + of_src, scratch.quoted_l4 + of_dst);
    let ports = !is_icmp(quoted.proto) || has_identifier(quoted.proto, quoted.class);
    // The destination of the error is the source of the quoted packet, and the other way round.
    if let Some((to, port)) = translation.dst {
        let change =
            Change { from: quoted.src, to, from_port: quoted.sport, port, offset: of_src, ports, source: true };
        if !change.apply(packet, pkt, true) {
            return false;
        }
    }
    if let Some((to, port)) = translation.src {
        let change =
            Change { from: quoted.dst, to, from_port: quoted.dport, port, offset: of_dst, ports, source: false };
        // A router on the way speaks under its own address.
        if !change.apply(packet, pkt, pkt.tuple.src == quoted.dst) {
            return false;
        }
    }
    true
}

/// An address, and its port, that change in the quotation and outside.
struct Change {
    from: Addr,
    to: Addr,
    from_port: u16,
    port: u16,
    /// Of the port.
    offset: u32,
    /// Whether there is a port.
    ports: bool,
    /// Whether it is the source of the quotation.
    source: bool,
}

impl Change {
    #[inline(always)]
    fn apply<P: Packet>(&self, packet: P, pkt: &Pkt, outside: bool) -> bool {
        if pkt.family == 4 { self.ipv4(packet, pkt, outside) } else { self.ipv6(packet, pkt, outside) }
    }

    #[inline(never)]
    fn ipv4<P: Packet>(&self, packet: P, pkt: &Pkt, outside: bool) -> bool {
        let inner = pkt.l4 as u32 + HEADER as u32;
        let (from, to) = (self.from.v4_be(), self.to.v4_be());
        // The quoted header's checksum moves with its address, so that in the error's own checksum both cancel out; what
        // remains there is the port.
        let quoted = if self.source { 12 } else { 16 };
        if !packet.fix_l3_checksum(inner + 10, from, to) || !packet.store(inner + quoted, &to) {
            return false;
        }
        if !self.port(packet, pkt) {
            return false;
        }
        let network = ETH_LEN as u32;
        let own = if self.source { 16 } else { 12 };
        !outside || (packet.fix_l3_checksum(network + 10, from, to) && packet.store(network + own, &to))
    }

    #[inline(never)]
    fn ipv6<P: Packet>(&self, packet: P, pkt: &Pkt, outside: bool) -> bool {
        let inner = pkt.l4 as u32 + HEADER as u32;
        let checksum = pkt.l4 as u32 + 2;
        let difference = difference(self.from, self.to) as u64;
        let (quoted, own) = if self.source { (8, 24) } else { (24, 8) };
        // Once for the quotation, once for the pseudo header.
        if !packet.fix_l4_checksum(checksum, 0, difference, 0)
            || !packet.store(inner + quoted, &self.to)
            || !self.port(packet, pkt)
        {
            return false;
        }
        if !outside {
            return true;
        }
        if !packet.fix_l4_checksum(checksum, 0, difference, BPF_F_PSEUDO_HDR as u64) {
            return false;
        }
        // As in `rewrite`: the address makes up for it.
        packet.add_to_sum(difference);
        packet.store(ETH_LEN as u32 + own, &self.to)
    }

    #[inline(always)]
    fn port<P: Packet>(&self, packet: P, pkt: &Pkt) -> bool {
        if !self.ports || self.from_port == self.port {
            return true;
        }
        packet.fix_l4_checksum(pkt.l4 as u32 + 2, self.from_port as u64, self.port as u64, 2)
            && packet.store(self.offset, &self.port)
    }
}
