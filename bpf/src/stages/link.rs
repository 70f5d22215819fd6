// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Answering a pod that asks for its gateway's hardware address: ARP (RFC 826) and neighbour discovery (RFC 4861). How questions become
//! answers serves [`announced`](super::announced) as well.

use crate::headers::{fold, sum};
use crate::maps;
use crate::packet::Packet;
use crate::parse::ETH_LEN;
use crate::pkt::{Pkt, WHOLE};
use crate::redirect::redirected;
use crate::verdict::Verdict;
use abi::flow::proto;
use abi::{Addr, DropReason};
use aya_ebpf::helpers::generated::bpf_redirect;

const MALFORMED: Verdict = Verdict::Drop(DropReason::InvalidPacketDropped);
const FORBIDDEN: Verdict = Verdict::Drop(DropReason::ForbiddenIcmpv6Message);
const WRITE_FAILED: Verdict = Verdict::Drop(DropReason::ErrorWritingToPacket);
const UNKNOWN: Verdict = Verdict::Drop(DropReason::DropEpNotReady);

/// ARP for IPv4 over Ethernet.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct ArpPacket {
    pub hardware: u16,
    pub protocol: u16,
    pub lengths: [u8; 2],
    pub operation: u16,
    pub sender_mac: [u8; 6],
    pub sender_ip: [u8; 4],
    pub target_mac: [u8; 6],
    pub target_ip: [u8; 4],
}

/// Answers a request for any address but the pod's own with the host side's hardware address. A pod that asks for its own checks
/// whether somebody else has it (RFC 5227): nobody has.
#[inline(never)]
pub fn answer_arp<P: Packet>(packet: P) -> Verdict {
    // SAFETY: read at once.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(packet.ifindex()) }) else {
        return UNKNOWN;
    };
    let Some(request) = packet.read::<ArpPacket>(ETH_LEN) else { return MALFORMED };
    // Nobody else is on the link to be told of its address, by a question or by an answer (RFC 5227, 2.3 and 3), or to have it.
    if request.lengths == [6, 4] && Addr::from_v4_be(u32::from_ne_bytes(request.target_ip)) == endpoint.ipv4 {
        return Verdict::Taken;
    }
    if request.operation != 1u16.to_be() || request.lengths != [6, 4] || request.sender_ip == request.target_ip {
        return MALFORMED;
    }
    reply_to_arp(packet, &request, endpoint.host_mac)
}

/// Turns a request into the answer that its target is at `mac`.
#[inline(always)]
pub fn reply_to_arp<P: Packet>(packet: P, request: &ArpPacket, mac: [u8; 6]) -> Verdict {
    let reply = ArpPacket {
        operation: 2u16.to_be(),
        sender_mac: mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
        ..*request
    };
    if !packet.store_summed(ETH_LEN as u32, &reply) || !packet.store(0, &request.sender_mac) || !packet.store(6, &mac) {
        return WRITE_FAILED;
    }
    // SAFETY: no preconditions.
    redirected(unsafe { bpf_redirect(packet.ifindex(), 0) })
}

/// A neighbour solicitation's or advertisement's body with one link-layer address option (RFC 4861, 4.3, 4.4, 4.6.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Neighbour {
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u32,
    target: Addr,
    option: [u8; 2],
    mac: [u8; 6],
}

/// An advertisement from the addresses of its IPv6 header on; the checksum covers these too (RFC 8200, 8.1).
#[repr(C, packed)]
struct Advertisement {
    src: Addr,
    dst: Addr,
    body: Neighbour,
}

const ROUTER_SOLICITATION: u8 = 133;
/// Type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Flags of an advertisement that everybody is to believe, whatever they knew.
pub const OVERRIDE: u32 = 0x2000_0000;
/// The same for one that answers who asked.
pub const SOLICITED_OVERRIDE: u32 = 0x6000_0000;
/// Bytes of an advertisement.
pub const BODY: u32 = size_of::<Neighbour>() as u32;

/// Handles ICMPv6 that never leaves the link. `Some` with the verdict when it was such a message.
#[inline(always)]
pub fn message<P: Packet>(packet: P, pkt: &Pkt) -> Option<Verdict> {
    if pkt.tuple.proto != proto::ICMPV6 || pkt.family != 6 {
        return None;
    }
    match pkt.flags {
        SOLICITATION => Some(solicitation(packet, pkt)),
        // Every interface asks for routers and tells its groups (RFC 4861 6.3.7, RFC 2710, RFC 3810). That ends here: the host's side
        // advertises no routers, and groups span no links.
        ROUTER_SOLICITATION | 130..=132 | 143 => Some(if is_of_link(pkt) { Verdict::Taken } else { FORBIDDEN }),
        ADVERTISEMENT => Some(advertisement(packet)),
        // A pod is no router.
        134 | 137 => Some(FORBIDDEN),
        _ => None,
    }
}

/// A pod may tell the link of its own address (RFC 4861, 7.2.6), where nobody else listens. It has no others.
#[inline(never)]
fn advertisement<P: Packet>(packet: P) -> Verdict {
    // SAFETY: read at once.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(packet.ifindex()) }) else {
        return UNKNOWN;
    };
    let target = packet.read::<Addr>(ETH_LEN + 40 + 8);
    if target.is_some_and(|target| target == endpoint.ipv6) { Verdict::Taken } else { FORBIDDEN }
}

/// Whether it is a report of groups (IGMP, RFC 2236), which span no links either.
#[inline(always)]
pub fn is_group_report(pkt: &Pkt) -> bool {
    const IGMP: u8 = 2;
    const GROUPS: u8 = 0xe0;
    let [first, ..] = pkt.tuple.dst.v4_be().to_ne_bytes();
    pkt.family == 4 && pkt.tuple.proto == IGMP && pkt.ttl == 1 && first & 0xf0 == GROUPS
}

/// Whether it can only have been meant for the link: to all of a group (`ff02::/16`), with a hop limit that no router leaves as it is
/// or lets pass.
#[inline(always)]
fn is_of_link(pkt: &Pkt) -> bool {
    const ON_LINK: u64 = u64::from_ne_bytes([0xff, 0x02, 0, 0, 0, 0, 0, 0]);
    const SCOPE: u64 = u64::from_ne_bytes([0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    pkt.tuple.dst.hi & SCOPE == ON_LINK && matches!(pkt.ttl, 1 | 255)
}

/// Whether somebody on the link asks for a neighbour (RFC 4861, 7.1.1).
#[inline(always)]
fn solicitation<P: Packet>(packet: P, pkt: &Pkt) -> Verdict {
    if pkt.ttl == 255 && pkt.code == 0 && pkt.fragment == WHOLE { answer_solicitation(packet) } else { FORBIDDEN }
}

#[inline(never)]
fn answer_solicitation<P: Packet>(packet: P) -> Verdict {
    // SAFETY: read at once.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(packet.ifindex()) }) else {
        return UNKNOWN;
    };
    let body = ETH_LEN + 40;
    let Some(asker) = packet.read::<Addr>(ETH_LEN + 8) else { return MALFORMED };
    let Some(target) = packet.read::<Addr>(body + 8) else { return MALFORMED };
    // Without an address of its own, or for its own, the pod asks whether somebody has it: nobody has.
    if asker.is_none() || target == endpoint.ipv6 {
        return Verdict::Taken;
    }
    // The option must be there, since the answer is written over it.
    if packet.read::<Neighbour>(body).is_none() {
        return FORBIDDEN;
    }
    if !turn(packet) {
        return WRITE_FAILED;
    }
    advertise(packet, target, &endpoint.host_mac, asker, SOLICITED_OVERRIDE)
}

/// Has the frame go to where it comes from.
#[inline(always)]
pub fn turn<P: Packet>(packet: P) -> bool {
    packet.read::<[u8; 6]>(6).is_some_and(|sender| packet.store(0, &sender))
}

/// Turns a solicitation, which must be as long at least and has its new destination, into the advertisement that `target` is at `mac`.
#[inline(always)]
pub fn advertise<P: Packet>(packet: P, target: Addr, mac: &[u8; 6], dst: Addr, flags: u32) -> Verdict {
    /// Length and protocol, which the checksum covers as well.
    const SEED: u32 = (BODY + 58).to_be();
    let body = Neighbour {
        kind: ADVERTISEMENT,
        code: 0,
        checksum: 0,
        flags: flags.to_be(),
        target,
        option: [2, 1],
        mac: *mac,
    };
    let mut answer = Advertisement { src: target, dst, body };
    answer.body.checksum = fold(sum(&answer, SEED));
    let network = ETH_LEN as u32;
    let written = packet.store(6, mac)
        // Without the options that follow in the question.
        && packet.store_summed(network + 4, &(BODY as u16).to_be())
        && packet.store_summed(network + 7, &255u8)
        && packet.store_summed(network + 8, &answer);
    if !written {
        return WRITE_FAILED;
    }
    // SAFETY: no preconditions.
    redirected(unsafe { bpf_redirect(packet.ifindex(), 0) })
}
