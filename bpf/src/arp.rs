// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Answering a pod that asks for its gateway's hardware address: ARP (RFC 826) and neighbour discovery (RFC 4861).

use crate::ctx::Skb;
use crate::maps;
use crate::parse::{ETH_LEN, Pkt};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_redirect};

const MALFORMED: i32 = -(DropReason::InvalidPacketDropped as u8 as i32);
const FORBIDDEN: i32 = -(DropReason::ForbiddenIcmpv6Message as u8 as i32);
const WRITE_FAILED: i32 = -(DropReason::ErrorWritingToPacket as u8 as i32);

/// ARP for IPv4 over Ethernet.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct ArpPacket {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    sender_mac: [u8; 6],
    sender_ip: [u8; 4],
    target_mac: [u8; 6],
    target_ip: [u8; 4],
}

/// Answers a request for any address but the pod's own with the host side's hardware address.
#[inline(never)]
pub fn answer_arp(skb: Skb) -> i32 {
    // SAFETY: read at once.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(skb.ifindex()) }) else {
        return -(DropReason::DropEpNotReady.code() as i32);
    };
    let Some(request) = skb.read::<ArpPacket>(ETH_LEN) else { return MALFORMED };
    if request.operation != 1u16.to_be() || request.lengths != [6, 4] {
        return MALFORMED;
    }
    let reply = ArpPacket {
        operation: 2u16.to_be(),
        sender_mac: endpoint.host_mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
        ..request
    };
    if request.sender_ip == request.target_ip {
        // Announcing its own address: nothing to answer, nobody else on the link.
        return MALFORMED;
    }
    if !skb.store(ETH_LEN as u32, &reply) || !skb.store(0, &request.sender_mac) || !skb.store(6, &endpoint.host_mac) {
        return WRITE_FAILED;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect(skb.ifindex(), 0) as i32 }
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

/// What the checksum covers (RFC 8200, 8.1).
#[repr(C, packed)]
struct Covered {
    src: Addr,
    dst: Addr,
    length: u32,
    next: u32,
    body: Neighbour,
}

const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED_OVERRIDE: u32 = 0x6000_0000;
const BODY: u32 = size_of::<Neighbour>() as u32;

/// Handles ICMPv6 that never leaves the link. `Some` with the verdict when it was such a message.
#[inline(always)]
pub fn link_message(skb: Skb, pkt: &Pkt) -> Option<i32> {
    match pkt.flags {
        SOLICITATION => Some(answer_solicitation(skb)),
        // Every interface asks for routers and tells its groups (RFC 4861 6.3.7, RFC 3810): no harm, and nobody's drop.
        ROUTER_SOLICITATION | 130..=132 | 143 => Some(TC_ACT_OK),
        // A pod is no router and owns no other addresses: advertisements and redirects.
        134 | ADVERTISEMENT | 137 => Some(FORBIDDEN),
        _ => None,
    }
}

#[inline(never)]
fn answer_solicitation(skb: Skb) -> i32 {
    // SAFETY: read at once.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(skb.ifindex()) }) else {
        return -(DropReason::DropEpNotReady.code() as i32);
    };
    let body = ETH_LEN + 40;
    let Some(asker) = skb.read::<Addr>(ETH_LEN + 8) else { return MALFORMED };
    let Some(asker_mac) = skb.read::<[u8; 6]>(6) else { return MALFORMED };
    let Some(target) = skb.read::<Addr>(body + 8) else { return MALFORMED };
    // Without an address of its own the pod asks whether somebody has it: nobody has. And the option must be there, since
    // the answer is written over it.
    if asker.is_none() || skb.read::<Neighbour>(body).is_none() {
        return FORBIDDEN;
    }
    let mut covered = Covered {
        src: target,
        dst: asker,
        length: BODY.to_be(),
        next: 58u32.to_be(),
        body: Neighbour {
            kind: ADVERTISEMENT,
            code: 0,
            checksum: 0,
            flags: SOLICITED_OVERRIDE.to_be(),
            target,
            option: [2, 1],
            mac: endpoint.host_mac,
        },
    };
    // SAFETY: `Covered` is 72 readable bytes.
    let sum = unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            core::ptr::from_mut(&mut covered).cast(),
            size_of::<Covered>() as u32,
            0,
        )
    } as u32;
    let answer = Neighbour { checksum: fold(sum), ..covered.body };
    let network = ETH_LEN as u32;
    let written = skb.store(0, &asker_mac)
        && skb.store(6, &endpoint.host_mac)
        && skb.store(network + 7, &255u8)
        && skb.store(network + 8, &target)
        && skb.store(network + 24, &asker)
        && skb.store(body as u32, &answer);
    if !written {
        return WRITE_FAILED;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_redirect(skb.ifindex(), 0) as i32 }
}

/// From a 32-bit sum of words in memory order to the checksum in memory order (RFC 1071).
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
