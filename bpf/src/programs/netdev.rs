// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device: replies to masqueraded flows, and packets for pods where the network routes them. Everything else is
//! the host's and passes untouched.

use super::arriving::{self, Origin};
use crate::config;
use crate::ctx::Skb;
use crate::parse::{Frame, Pkt, parse};
use crate::{conntrack, events, icmp, ipcache, redirect};
use abi::event::point;
use abi::flow::{ARRIVING, action};
use abi::policy::INGRESS;
use abi::{Addr, DropReason};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// Let the next program, or the stack, have it.
const NEXT: i32 = -1;

/// A packet arrives at the node.
#[classifier]
pub fn netdev_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mut pkt = Pkt::new(ARRIVING);
    let Frame::Ip = parse(skb, &mut pkt) else { return NEXT };
    let verdict = match conntrack::find(skb, &mut pkt) {
        Some(flow) if flow.action == action::LOCAL => {
            conntrack::touch(skb, &pkt, flow, point::TO_ENDPOINT);
            redirect::apply(skb, &pkt, flow)
        }
        _ => decide(skb, &mut pkt),
    };
    if verdict == NEXT {
        return NEXT;
    }
    events::finish(skb, &pkt, verdict, INGRESS, point::FROM_NETWORK)
}

#[inline(always)]
fn decide(skb: Skb, pkt: &mut Pkt) -> i32 {
    if pkt.is_icmp_error()
        && let Some(verdict) = icmp::related(skb, pkt)
    {
        return verdict;
    }
    if !is_for_a_pod(pkt) {
        return NEXT;
    }
    // In tunnel mode, pods of other nodes come through the tunnel: one that comes from elsewhere is an impostor.
    if config::on(&config::TUNNEL)
        && let Some(entry) = ipcache::lookup(pkt.key.src)
        && !entry.tunnel.is_none()
    {
        return -(DropReason::InvalidSourceIp.code() as i32);
    }
    arriving::decide(skb, pkt, &Origin { reply: action::NEIGH, ifindex: skb.ifindex(), identity: 0, node: Addr::NONE })
}

/// For a pod's address, or for a masqueraded flow whose decision has grown old.
#[inline(always)]
fn is_for_a_pod(pkt: &Pkt) -> bool {
    arriving::is_for_local_pod(pkt) || conntrack::lookup(pkt).is_some_and(|flow| flow.action == action::LOCAL)
}
