// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! At tc a packet can be sent everywhere.

use super::Hook;
use crate::encap;
use crate::pkt::Pkt;
use crate::redirect;
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::verdict::{Stage, Verdict};
use abi::Addr;
use abi::config::NodeConfig;
use abi::flow::Flow;
use aya_ebpf::helpers::generated::bpf_redirect_peer;

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
        redirect::to_neighbour(ifindex, hop)
    }

    #[inline(always)]
    fn to_pod(self, ifindex: u32) -> Verdict {
        // SAFETY: no preconditions.
        redirect::redirected(unsafe { bpf_redirect_peer(ifindex, 0) })
    }

    #[inline(always)]
    fn to_tunnel_device(self, node: &NodeConfig, peer: &Addr, sender: u32) -> Verdict {
        encap::by_device(self, node, peer, sender)
    }
}
