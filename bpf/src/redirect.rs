// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Carrying a decision out: rewrite, count down the hop limit, send.

use crate::ctx::Skb;
use crate::encap;
use crate::nat;
use crate::parse::{ETH_LEN, Pkt};
use abi::DropReason;
use abi::flow::{FlowEntry, action, flags};
use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::helpers::generated::{bpf_redirect_neigh, bpf_redirect_peer};

/// Does with the packet what its flow's entry says. A tc action, or minus a drop reason.
#[inline(always)]
pub fn apply(skb: Skb, pkt: &Pkt, entry: &FlowEntry) -> i32 {
    if entry.flags & (flags::NAT_SRC | flags::NAT_DST) != 0 {
        let verdict = nat::rewrite(skb, pkt, entry);
        if verdict < 0 {
            return verdict;
        }
    }
    send_as(skb, pkt, entry)
}

/// Sends a packet where its flow's entry says, as it is.
#[inline(always)]
pub fn send_as(skb: Skb, pkt: &Pkt, entry: &FlowEntry) -> i32 {
    if entry.action != action::STACK && pkt.ttl <= 1 {
        // The stack answers with the ICMP error that is due.
        return TC_ACT_OK;
    }
    match entry.action {
        action::LOCAL => {
            if !count_down(skb, pkt) || !set_macs(skb, entry) {
                return -(DropReason::ErrorWritingToPacket.code() as i32);
            }
            // SAFETY: no preconditions; a stale interface index makes the kernel drop the packet.
            unsafe { bpf_redirect_peer(entry.out_ifindex, 0) as i32 }
        }
        action::TUNNEL => {
            if !count_down(skb, pkt) {
                return -(DropReason::ErrorWritingToPacket.code() as i32);
            }
            encap::send(skb, entry)
        }
        action::NEIGH => {
            if !count_down(skb, pkt) {
                return -(DropReason::ErrorWritingToPacket.code() as i32);
            }
            // SAFETY: no parameters: the kernel looks the next hop up itself.
            unsafe { bpf_redirect_neigh(entry.out_ifindex, core::ptr::null_mut(), 0, 0) as i32 }
        }
        _ => TC_ACT_OK,
    }
}

/// One hop less (RFC 1812 5.3.1; RFC 8200 3), with the IPv4 checksum corrected in place (RFC 1624).
#[inline(always)]
fn count_down(skb: Skb, pkt: &Pkt) -> bool {
    if pkt.family == 6 {
        return skb.write::<u8>(ETH_LEN + 7, pkt.ttl - 1);
    }
    let Some(checksum) = skb.read::<u16>(ETH_LEN + 10) else { return false };
    let sum = u16::from_be(checksum) as u32 + 0x0100;
    let folded = (sum + (sum >> 16)) as u16;
    skb.write::<u8>(ETH_LEN + 8, pkt.ttl - 1) && skb.write::<u16>(ETH_LEN + 10, folded.to_be())
}

/// Both hardware addresses at once: they lie side by side in the entry as in the packet.
#[inline(always)]
fn set_macs(skb: Skb, entry: &FlowEntry) -> bool {
    // SAFETY: `dst_mac` is followed by `src_mac`, twelve bytes at an offset that is a multiple of four (asserted below).
    let macs = unsafe {
        *core::ptr::from_ref(entry).cast::<u8>().add(core::mem::offset_of!(FlowEntry, dst_mac)).cast::<[u32; 3]>()
    };
    skb.write::<[u32; 3]>(0, macs)
}

const _: () = assert!(core::mem::offset_of!(FlowEntry, dst_mac) % 4 == 0);
const _: () = assert!(core::mem::offset_of!(FlowEntry, src_mac) == core::mem::offset_of!(FlowEntry, dst_mac) + 6);
