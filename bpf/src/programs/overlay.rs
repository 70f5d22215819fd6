// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The tunnel device: packets of other nodes whose outer headers the kernel has taken off.

use crate::encap;
use crate::exit;
use crate::packet::{From, Packet};
use crate::parse::{Frame, parse};
use crate::programs::netdev::arrive;
use crate::scratch::{self, Notes};
use crate::skb::Skb;
use crate::verdict::Verdict;
use abi::DropReason;
use abi::event::point;
use abi::flow::origin;
use abi::policy::INGRESS;
use aya_ebpf::helpers::generated::bpf_skb_change_type;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to us.
const PACKET_HOST: u32 = 0;

/// A packet comes out of the tunnel.
#[classifier]
pub fn overlay_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(notes) = scratch::begin(From::TUNNEL, origin::TUNNEL | skb.ifindex()) else { return exit::NO_MEMORY };
    let verdict = match parse(skb, &mut notes.pkt) {
        Frame::Ip => come_out(skb, notes),
        // Nobody has asked which node it is of.
        Frame::Arp | Frame::Other => Verdict::Drop(DropReason::UnsupportedL3Protocol),
        Frame::Vlan => Verdict::Drop(DropReason::VlanFiltered),
        Frame::Bad(reason) => Verdict::Drop(reason),
    };
    exit::finish(skb, &notes.pkt, verdict, INGRESS, point::FROM_OVERLAY)
}

#[inline(always)]
fn come_out(skb: Skb, notes: &mut Notes) -> Verdict {
    // The sender did not know the tunnel device's hardware address.
    // SAFETY: valid context.
    unsafe { bpf_skb_change_type(skb.0, PACKET_HOST) };
    if !encap::note_device_origin(skb, &mut notes.pkt) {
        return Verdict::Drop(DropReason::ErrorRetrievingTunnelKey);
    }
    arrive(skb, notes)
}
