// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The tunnel device: packets of other nodes, with their source's identity in the VNI.

use super::arriving::{self, Origin};
use crate::ctx::Skb;
use crate::encap;
use crate::parse::{Frame, Pkt, parse};
use crate::{conntrack, events, redirect};
use abi::DropReason;
use abi::event::point;
use abi::flow::{ARRIVING, action};
use abi::policy::INGRESS;
use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::helpers::generated::bpf_skb_change_type;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to us.
const PACKET_HOST: u32 = 0;

/// A packet comes out of the tunnel.
#[classifier]
pub fn overlay_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mut pkt = Pkt::new(ARRIVING);
    let verdict = match parse(skb, &mut pkt) {
        Frame::Ip => {
            // The sender did not know the tunnel device's hardware address.
            // SAFETY: valid context.
            unsafe { bpf_skb_change_type(skb.0, PACKET_HOST) };
            match conntrack::find(skb, &mut pkt) {
                Some(flow) if flow.action == action::LOCAL => {
                    conntrack::touch(skb, &pkt, flow, point::TO_ENDPOINT);
                    redirect::apply(skb, &pkt, flow)
                }
                _ => decide(skb, &mut pkt),
            }
        }
        Frame::Arp | Frame::Other => TC_ACT_OK,
        Frame::Vlan => -(DropReason::VlanFiltered.code() as i32),
        Frame::Bad(reason) => -(reason.code() as i32),
    };
    events::finish(skb, &pkt, verdict, INGRESS, point::FROM_OVERLAY)
}

#[inline(always)]
fn decide(skb: Skb, pkt: &mut Pkt) -> i32 {
    let Some((identity, node)) = encap::origin(skb) else {
        return -(DropReason::ErrorRetrievingTunnelKey.code() as i32);
    };
    // The local node's identity has no place on the wire: whoever claims it wants its privileges.
    if identity == abi::identity::HOST || identity == abi::identity::UNKNOWN {
        return -(DropReason::InvalidIdentity.code() as i32);
    }
    arriving::decide(skb, pkt, &Origin { reply: action::TUNNEL, ifindex: skb.ifindex(), identity, node })
}
