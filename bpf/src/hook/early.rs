// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Before the stack (XDP) only what goes through this node is sent on, out of the device that it came in by.

use super::Hook;
use crate::config;
use crate::neighbour;
use crate::packet::Packet;
use crate::pkt::{Pkt, REPLY};
use crate::record::half_of;
use crate::scratch::{self, Scratch};
use crate::send;
use crate::verdict::{Stage, Verdict};
use crate::xdp::Xdp;
use abi::config::NodeConfig;
use abi::flow::{Flow, action, flags};
use abi::{Addr, DropReason};

const ELSEWHERE: Stage = Err(Verdict::NotOurs);

impl Hook for Xdp {
    #[inline(always)]
    fn reaches(self, scratch: &Scratch) -> Stage {
        if scratch.passes_through() { Ok(()) } else { ELSEWHERE }
    }

    #[inline(always)]
    fn carries(self, pkt: &mut Pkt, flow: &Flow) -> Stage {
        let way = half_of(flow, pkt.is(REPLY));
        let is_way = match way.action {
            action::NEIGH => !way.hop.is_none(),
            action::TUNNEL => config::on(&config::DIRECT_TUNNEL),
            _ => false,
        };
        let goes_through = flow.src_endpoint == 0 && flow.dst_endpoint == 0 && flow.has(flags::NAT_DST);
        if !is_way || !goes_through || way.out_ifindex != self.ifindex() {
            return ELSEWHERE;
        }
        if send::left_to_stack(self, pkt, flow).is_err() {
            return ELSEWHERE;
        }
        let Some(notes) = scratch::present() else { return ELSEWHERE };
        let known = neighbour::find(self, way.out_ifindex, &way.hop, &mut notes.macs);
        // It came in by the device that it leaves by: what is not addressed to that is not for this node.
        if known && self.read(0) == Some(notes.macs.src) { Ok(()) } else { ELSEWHERE }
    }

    #[inline(always)]
    fn to_neighbour(self, _: u32, _: &Addr) -> Verdict {
        match scratch::present() {
            Some(notes) if self.write(0, notes.macs) => Verdict::Sent,
            _ => Verdict::Drop(DropReason::ErrorWritingToPacket),
        }
    }

    #[inline(always)]
    fn to_pod(self, _: u32) -> Verdict {
        Verdict::Drop(DropReason::UnknownConnectionTrackingState)
    }

    #[inline(always)]
    fn to_tunnel_device(self, _: &NodeConfig, _: &Addr, _: u32) -> Verdict {
        Verdict::Drop(DropReason::NoTunnelOrEncapsulationEndpoint)
    }
}
