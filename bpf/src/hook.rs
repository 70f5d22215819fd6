// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What a hook can do with a packet: at tc everything, before the stack what goes through this node by one device.

use crate::config;
use crate::encap;
use crate::flows::half_of;
use crate::neighbour;
use crate::packet::Packet;
use crate::parse::{Pkt, REPLY};
use crate::scratch::{self, Scratch};
use crate::send;
use crate::skb::Skb;
use crate::verdict::{Stage, Verdict};
use crate::xdp::Xdp;
use abi::config::NodeConfig;
use abi::flow::{Flow, action, flags};
use abi::{Addr, DropReason};
use aya_ebpf::helpers::generated::bpf_redirect_peer;

const ELSEWHERE: Stage = Err(Verdict::NotOurs);

/// A packet at a hook.
pub trait Hook: Packet {
    /// Whether the hook reaches who the flow is opened to. An error leaves the packet as it is to another hook.
    fn reaches(self, scratch: &Scratch) -> Stage;
    /// Whether the hook carries packets of that flow, of this one's direction and size. An error leaves it to another hook.
    fn carries(self, pkt: &mut Pkt, flow: &Flow) -> Stage;
    /// Out of a device, to the neighbour, or to where the kernel's routes lead when none is named.
    fn to_neighbour(self, ifindex: u32, hop: &Addr) -> Verdict;
    /// Into a pod, by the host's side of its device.
    fn to_pod(self, ifindex: u32) -> Verdict;
    /// Through the kernel's tunnel device, to that node.
    fn to_tunnel_device(self, node: &NodeConfig, peer: &Addr, sender: u32) -> Verdict;
}

impl Hook for Skb {
    #[inline(always)]
    fn reaches(self, _: &Scratch) -> Stage {
        Ok(())
    }

    #[inline(always)]
    fn carries(self, _: &mut Pkt, _: &Flow) -> Stage {
        Ok(())
    }

    #[inline(always)]
    fn to_neighbour(self, ifindex: u32, hop: &Addr) -> Verdict {
        send::to_neighbour(ifindex, hop)
    }

    #[inline(always)]
    fn to_pod(self, ifindex: u32) -> Verdict {
        // SAFETY: no preconditions.
        send::redirected(unsafe { bpf_redirect_peer(ifindex, 0) })
    }

    #[inline(always)]
    fn to_tunnel_device(self, node: &NodeConfig, peer: &Addr, sender: u32) -> Verdict {
        encap::by_device(self, node, peer, sender)
    }
}

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
