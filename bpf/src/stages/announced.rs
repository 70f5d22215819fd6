// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Answering the link for addresses of Services that this node announces: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861). What
//! is not as these want it, or is about any other address, is left to the stack.

use super::link::{self, ArpPacket, BODY, OVERRIDE, SOLICITATION, SOLICITED_OVERRIDE};
use crate::maps;
use crate::packet::Packet;
use crate::parse::ETH_LEN;
use crate::pkt::{Pkt, WHOLE};
use crate::verdict::Verdict;
use abi::flow::proto;
use abi::l2::{Announced, AnnouncedKey};
use abi::{Addr, DropReason};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

/// First byte of the hardware address of a group.
const GROUP: u8 = 1;
const BODY_AT: usize = ETH_LEN + 40;
const ALL_NODES: Addr = Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Answers an ARP request for an announced address. Whoever announces it himself asks nothing: it is the node that has just taken it over.
#[inline(never)]
pub fn arp<P: Packet>(packet: P) -> Verdict {
    const REQUEST: u16 = 1u16.to_be();
    const ETHERNET: u16 = 1u16.to_be();
    const IPV4: u16 = 0x0800u16.to_be();
    let Some(request) = packet.read::<ArpPacket>(ETH_LEN) else { return Verdict::NotOurs };
    if request.hardware != ETHERNET
        || request.protocol != IPV4
        || request.lengths != [6, 4]
        || request.operation != REQUEST
    {
        return Verdict::NotOurs;
    }
    if request.sender_ip == request.target_ip || request.sender_mac[0] & GROUP != 0 {
        return Verdict::NotOurs;
    }
    match find(packet, Addr::from_v4_be(u32::from_ne_bytes(request.target_ip))) {
        Some(announced) => link::reply_to_arp(packet, &request, announced.mac),
        None => Verdict::NotOurs,
    }
}

/// Whether it is a neighbour solicitation, valid as far as the headers tell (RFC 4861, 7.1.1).
#[inline(always)]
pub fn is_solicitation(pkt: &Pkt) -> bool {
    pkt.tuple.proto == proto::ICMPV6
        && pkt.flags == SOLICITATION
        && pkt.family == 6
        && pkt.ttl == 255
        && pkt.code == 0
        && pkt.fragment == WHOLE
        && pkt.l4 as usize == BODY_AT
}

/// Answers a solicitation of an announced address. Who has no address yet checks whether somebody has this one (RFC 4862, 5.4): it is told, and all
/// others with it.
#[inline(never)]
pub fn solicitation<P: Packet>(packet: P) -> Verdict {
    let Some(asker) = packet.read::<Addr>(ETH_LEN + 8) else { return Verdict::NotOurs };
    let Some(to) = packet.read::<Addr>(ETH_LEN + 24) else { return Verdict::NotOurs };
    let Some(target) = packet.read::<Addr>(BODY_AT + 8) else { return Verdict::NotOurs };
    let Some(sender) = packet.read::<u8>(6) else { return Verdict::NotOurs };
    let is_probe = asker.is_none();
    if sender & GROUP != 0
        || asker.octets()[0] == 0xff
        || to != if is_probe || to != target { group_of(target) } else { target }
    {
        return Verdict::NotOurs;
    }
    let Some(announced) = find(packet, target) else { return Verdict::NotOurs };
    // The question may lack the option that the answer needs, or have more.
    if !packet.resize(BODY_AT as u32 + BODY) {
        return Verdict::NotOurs;
    }
    let turned = if is_probe { packet.store(0, &ALL_NODES_MAC) } else { link::turn(packet) };
    if !turned {
        return Verdict::Drop(DropReason::ErrorWritingToPacket);
    }
    let (to, flags) = if is_probe { (ALL_NODES, OVERRIDE) } else { (asker, SOLICITED_OVERRIDE) };
    link::advertise(packet, target, &announced.mac, to, flags)
}

/// What is announced at an address on the packet's device, if it is meant for this node or for everybody.
#[inline(always)]
fn find<P: Packet>(packet: P, addr: Addr) -> Option<&'static Announced> {
    let key = AnnouncedKey::new(addr, packet.ifindex());
    // SAFETY: read while the program runs; an entry that is replaced meanwhile says the same of another time.
    let announced = unsafe { maps::ANNOUNCED.get(key) }?;
    let to = packet.read::<[u8; 6]>(0)?;
    // SAFETY: no preconditions.
    let stands = unsafe { bpf_ktime_get_boot_ns() } < announced.until;
    (stands && (to == announced.mac || to[0] & GROUP != 0)).then_some(announced)
}

/// The group of those whose addresses end as this one (RFC 4291, 2.7.1).
#[inline(always)]
fn group_of(target: Addr) -> Addr {
    let [.., a, b, c] = target.octets();
    Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}
