// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! ICMP errors: they belong to the flow of the packet that they quote, and go where its replies go.

use crate::conntrack;
use crate::ctx::Skb;
use crate::maps;
use crate::parse::{ETH_LEN, Pkt};
use crate::redirect;
use abi::flow::{FlowEntry, FlowKey, flags, proto};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;

/// ICMP's own header, before the quoted packet.
const HEADER: usize = 8;
const WRITE_FAILED: i32 = -(DropReason::ErrorWritingToPacket as u8 as i32);

/// Forwards an ICMP error like a reply of the flow that it concerns. `None`: it concerns none that we know.
#[inline(always)]
pub fn related(skb: Skb, pkt: &Pkt) -> Option<i32> {
    let key = quoted(skb, pkt)?;
    // SAFETY: values of a preallocated table stay mapped.
    let flow = maps::FLOWS.get_ptr_mut(&key).map(|entry| unsafe { &*entry })?;
    if !conntrack::topology_stands(flow) {
        return None;
    }
    Some(forward(skb, pkt, flow))
}

/// Whether an ICMP error concerns a flow that we know.
#[inline(never)]
pub fn is_related(skb: Skb, pkt: &Pkt) -> bool {
    match quoted(skb, pkt) {
        Some(key) => maps::FLOWS.get_ptr(&key).is_some(),
        None => false,
    }
}

/// The key under which a reply to the quoted packet would be found at this hook.
#[inline(always)]
fn quoted(skb: Skb, pkt: &Pkt) -> Option<FlowKey> {
    let inner = pkt.l4 as usize + HEADER;
    let (src, dst, protocol, l4) = if pkt.family == 4 {
        let version = skb.read::<u8>(inner)?;
        let header = (version & 0x0f) as usize * 4;
        (
            Addr::from_v4_be(skb.read::<u32>(inner + 12)?),
            Addr::from_v4_be(skb.read::<u32>(inner + 16)?),
            skb.read::<u8>(inner + 9)?,
            inner + header,
        )
    } else {
        let src = Addr { hi: skb.read::<u64>(inner + 8)?, lo: skb.read::<u64>(inner + 16)? };
        let dst = Addr { hi: skb.read::<u64>(inner + 24)?, lo: skb.read::<u64>(inner + 32)? };
        (src, dst, skb.read::<u8>(inner + 6)?, inner + 40)
    };
    let (sport, dport) = match protocol {
        proto::TCP | proto::UDP | proto::SCTP => (skb.read::<u16>(l4)?, skb.read::<u16>(l4 + 2)?),
        proto::ICMP | proto::ICMPV6 => (skb.read::<u16>(l4 + 4)?, 0),
        _ => return None,
    };
    Some(FlowKey { src: dst, dst: src, sport: dport, dport: sport, proto: protocol, hook: pkt.key.hook, pad: 0 })
}

/// Sends the error where the flow's replies go; under masquerading both the packet and its quotation get the pod's address.
#[inline(never)]
fn forward(skb: Skb, pkt: &Pkt, flow: &FlowEntry) -> i32 {
    if flow.flags & flags::NAT_DST == 0 {
        return redirect::send_as(skb, pkt, flow);
    }
    if pkt.family == 4 && !restore_ipv4(skb, pkt, flow) {
        return WRITE_FAILED;
    }
    if pkt.family == 6 && !restore_ipv6(skb, pkt, flow) {
        return WRITE_FAILED;
    }
    redirect::send_as(skb, pkt, flow)
}

/// Where the quoted packet carries what masquerading rewrites: its source port, or the identifier of an echo request.
#[inline(always)]
const fn port_offset(protocol: u8) -> u32 {
    if matches!(protocol, proto::ICMP | proto::ICMPV6) { 4 } else { 0 }
}

#[inline(always)]
fn restore_ipv4(skb: Skb, pkt: &Pkt, flow: &FlowEntry) -> bool {
    let inner = pkt.l4 as u32 + HEADER as u32;
    let (from, to) = (pkt.key.dst.v4_be(), flow.nat_dst.v4_be());
    let Some(version) = skb.read::<u8>(inner as usize) else { return false };
    let Some(protocol) = skb.read::<u8>(inner as usize + 9) else { return false };
    let ports = inner + (version & 0x0f) as u32 * 4 + port_offset(protocol);
    let Some(port) = skb.read::<u16>(ports as usize) else { return false };
    let checksum = pkt.l4 as u32 + 2;
    // The quoted header's checksum moves with its address, so that in the error's own checksum both cancel out; what
    // remains there is the port.
    skb.fix_l3_checksum(inner + 10, from, to)
        && skb.store(inner + 12, &to)
        && skb.fix_l4_checksum(checksum, port as u64, flow.nat_dport as u64, 2)
        && skb.store(ports, &flow.nat_dport)
        && skb.fix_l3_checksum(ETH_LEN as u32 + 10, from, to)
        && skb.store(ETH_LEN as u32 + 16, &to)
}

#[inline(always)]
fn restore_ipv6(skb: Skb, pkt: &Pkt, flow: &FlowEntry) -> bool {
    let inner = pkt.l4 as u32 + HEADER as u32;
    let checksum = pkt.l4 as u32 + 2;
    let Some(protocol) = skb.read::<u8>(inner as usize + 6) else { return false };
    let ports = inner + 40 + port_offset(protocol);
    let Some(port) = skb.read::<u16>(ports as usize) else { return false };
    let (mut from, mut to) = (pkt.key.dst, flow.nat_dst);
    // SAFETY: both are sixteen readable bytes.
    let difference = unsafe {
        aya_ebpf::helpers::generated::bpf_csum_diff(
            core::ptr::from_mut(&mut from).cast(),
            16,
            core::ptr::from_mut(&mut to).cast(),
            16,
            0,
        )
    } as u64;
    // Once for the pseudo header, once for the quotation.
    skb.fix_l4_checksum(checksum, 0, difference, BPF_F_PSEUDO_HDR as u64)
        && skb.fix_l4_checksum(checksum, 0, difference, 0)
        && skb.store(inner + 8, &to)
        && skb.fix_l4_checksum(checksum, port as u64, flow.nat_dport as u64, 2)
        && skb.store(ports, &flow.nat_dport)
        && skb.store(ETH_LEN as u32 + 24, &to)
}
