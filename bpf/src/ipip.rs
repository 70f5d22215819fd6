// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Direct server return by IP in IP (RFC 2003, RFC 2473): a packet that a node sends on to a backend's node stays as its client has sent it, in a
//! packet of the node to the backend. There it comes out, and is decided about as if its client had asked that node, whose backend is the one that
//! it was sent to (`stages/service.rs`).

use crate::addresses;
use crate::config;
use crate::encap;
use crate::flows;
use crate::headers::{Ipv4, Ipv6, sum};
use crate::ipcache;
use crate::lb;
use crate::maps;
use crate::packet::Packet;
use crate::parse::{ETH_LEN, Frame, parse_inside};
use crate::pkt::{INSIDE, LATER, Pkt, REPLY, WHOLE};
use crate::scratch::{self, Notes};
use crate::skb::Skb;
use crate::verdict::Verdict;
use abi::flow::{Flow, flags};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
};

/// Segments keep their size.
const KEEP_SIZES: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
const IPV4: usize = size_of::<Ipv4>();
const IPV6: usize = size_of::<Ipv6>();
/// IPv4 in a packet, and IPv6 in one.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
/// Routers do not cut it up: nobody would put it together again.
const DO_NOT_FRAGMENT: u16 = 0x4000u16.to_be();
const TTL: u8 = 64;
const NOT_OURS: u32 = Verdict::NotOurs.code();
/// What was inside is to be decided about: not a verdict's code.
pub const GOES_ON: u32 = 0;

/// Bytes of an outer header.
#[inline(always)]
pub fn length(family: u8) -> usize {
    if family == 4 { IPV4 } else { IPV6 }
}

/// Whether the packet goes to its backend's node in another.
#[inline(always)]
pub fn goes(pkt: &Pkt, flow: &Flow) -> bool {
    const DIRECTLY: u16 = flags::DIRECT | flags::NAT_DST;
    config::on(&config::DIRECT_IPIP) && flow.flags & DIRECTLY == DIRECTLY && !pkt.is(REPLY)
}

/// Puts the outer header on, from this node to the backend. False when that fails.
#[inline(never)]
pub fn put_on<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow) -> bool {
    // SAFETY: array values are never freed.
    let Some(node) = maps::NODE.get(0) else { return false };
    let src = encap::source(node, &flow.nat_dst);
    if src.is_none() {
        return false;
    }
    if pkt.family == 4 { put_on_ipv4(packet, pkt, flow, src) } else { put_on_ipv6(packet, pkt, flow, src) }
}

/// It says nothing of congestion, which a receiver that only takes it off would lose (RFC 6040, 4.1).
#[inline(always)]
fn put_on_ipv4<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, src: &Addr) -> bool {
    let mut header = Ipv4 {
        version: 0x45,
        tos: 0,
        len: (pkt.len as u16 + IPV4 as u16).to_be(),
        id: flow.forward.packets as u16,
        fragment: DO_NOT_FRAGMENT,
        ttl: TTL,
        proto: IPV4_INSIDE,
        checksum: 0,
        src: src.v4_be(),
        dst: flow.nat_dst.v4_be(),
    };
    header.checksum = header.sum();
    // A right IPv4 header sums up to nothing.
    packet.adjust_room(IPV4 as i32, KEEP_SIZES | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64) && packet.write(ETH_LEN, header)
}

#[inline(always)]
fn put_on_ipv6<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, src: &Addr) -> bool {
    let header = Ipv6 {
        class: 0x6000_0000u32.to_be(),
        len: (pkt.len as u16).to_be(),
        next: IPV6_INSIDE,
        ttl: TTL,
        src: *src,
        dst: flow.nat_dst,
    };
    packet.add_to_sum(sum(&header, 0) as u64);
    packet.adjust_room(IPV6 as i32, KEEP_SIZES | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64) && packet.write(ETH_LEN, header)
}

/// Whether the packet, whose transport is not understood, holds another of its own version, for somebody here.
#[inline(always)]
pub fn is_for_us(pkt: &Pkt) -> bool {
    let proto = if pkt.fragment == LATER { pkt.fragment_next } else { pkt.tuple.proto };
    config::on(&config::DIRECT_RETURN)
        && proto == if pkt.family == 4 { IPV4_INSIDE } else { IPV6_INSIDE }
        && addresses::is_local(&pkt.tuple.dst)
}

/// Takes the outer header off a packet that another node has sent to a backend here. Returns the code of a verdict, or 0 when what was inside is
/// to be decided about. For a pod there is nothing else of that kind; the node itself may have a tunnel of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn come_out(context: *mut __sk_buff) -> u32 {
    let Some(Notes { pkt, .. }) = scratch::present() else { return NOT_OURS };
    let (packet, is_pod) = (Skb(context), addresses::is_pod(&pkt.tuple.dst));
    match look_inside(packet, pkt) {
        Err(_) if !is_pod => NOT_OURS,
        Err(reason) => Verdict::Drop(reason).code(),
        Ok(()) if packet.adjust_room(-(length(pkt.family) as i32), KEEP_SIZES) => GOES_ON,
        Ok(()) => Verdict::Drop(DropReason::ErrorWritingToPacket).code(),
    }
}

/// Parses what is inside, if it comes from a node, and is of a service.
#[inline(always)]
fn look_inside<P: Packet>(packet: P, pkt: &mut Pkt) -> Result<(), DropReason> {
    let (from, backend, family) = (pkt.tuple.src, pkt.tuple.dst, pkt.family);
    if !ipcache::is_other_node(&from) {
        return Err(DropReason::UnknownSender);
    }
    if pkt.fragment != WHOLE || pkt.l4 as usize != ETH_LEN + length(family) {
        return Err(DropReason::IpFragmentationNotSupported);
    }
    *pkt = Pkt::new(pkt.origin, pkt.from);
    pkt.marks = INSIDE;
    pkt.frontend = backend;
    if let Frame::Bad(reason) = parse_inside(packet, pkt, family) {
        return Err(reason);
    }
    pkt.l4 -= length(family) as u16;
    if pkt.is_icmp_error() || is_served(pkt) { Ok(()) } else { Err(DropReason::StaleOrUnroutableIp) }
}

/// Whether it is for a service, or of a flow that was.
#[inline(always)]
fn is_served(pkt: &mut Pkt) -> bool {
    lb::of_another_node(pkt.tuple.dst, pkt.tuple.dport, pkt.tuple.proto).is_some() || flows::is_known(pkt)
}
