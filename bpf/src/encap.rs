// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The tunnel between nodes: the source's identity travels in the VNI.

use crate::ctx::Skb;
use abi::flow::FlowEntry;
use abi::{Addr, DropReason};
use aya_ebpf::bindings::{BPF_F_ZERO_CSUM_TX, bpf_tunnel_key};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};

const TTL: u8 = 64;

/// Hands the packet to the tunnel device, with the peer node and the source's identity as metadata.
#[inline(always)]
pub fn send(skb: Skb, entry: &FlowEntry) -> i32 {
    // SAFETY: all-zero is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = entry.src_identity;
    key.__bindgen_anon_1.remote_ipv4 = u32::from_be(entry.tunnel.v4_be());
    key.tunnel_ttl = TTL;
    // SAFETY: valid context and key.
    unsafe {
        if bpf_skb_set_tunnel_key(skb.0, &mut key, size_of::<bpf_tunnel_key>() as u32, BPF_F_ZERO_CSUM_TX as u64) < 0 {
            return -(DropReason::NoTunnelOrEncapsulationEndpoint.code() as i32);
        }
        bpf_redirect(entry.out_ifindex, 0) as i32
    }
}

/// Identity and node that a packet came from, as the tunnel's metadata tells.
#[inline(always)]
pub fn origin(skb: Skb) -> Option<(u32, Addr)> {
    // SAFETY: all-zero is a valid key; valid context.
    unsafe {
        let mut key: bpf_tunnel_key = core::mem::zeroed();
        if bpf_skb_get_tunnel_key(skb.0, &mut key, size_of::<bpf_tunnel_key>() as u32, 0) < 0 {
            return None;
        }
        Some((key.tunnel_id, Addr::from_v4_be(key.__bindgen_anon_1.remote_ipv4.to_be())))
    }
}
