// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A packet arrives for a pod of this node: from the host's stack, out of the tunnel, or from a native device.

use super::commit;
use crate::ctx::Skb;
use crate::parse::{NOTED, Pkt};
use crate::scratch::{self, Scratch};
use crate::{conntrack, icmp, ipcache, maps, nat, policy, redirect};
use abi::event::point;
use abi::flow::{FlowEntry, action, flags};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::TC_ACT_OK;

/// Where packets come from, which is where replies go.
pub struct Origin {
    /// `flow::action` of the reply.
    pub reply: u8,
    /// Interface of the reply, for the tunnel and for devices.
    pub ifindex: u32,
    /// Identity that came with the packet, or 0.
    pub identity: u32,
    /// The node that sent it through the tunnel, or none.
    pub node: Addr,
}

impl Origin {
    /// The host's stack.
    pub const STACK: Self = Self { reply: action::STACK, ifindex: 0, identity: 0, node: Addr::NONE };
}

/// The slow path: the stages, in order.
#[inline(never)]
pub fn decide(skb: Skb, pkt: &mut Pkt, origin: &Origin) -> i32 {
    let Some(scratch) = scratch::fresh() else { return -(DropReason::InvalidTcBuffer.code() as i32) };
    pkt.marks |= NOTED;
    if pkt.is_icmp_error() {
        if origin.reply == action::STACK && icmp::is_related(skb, pkt) {
            return TC_ACT_OK;
        }
        if origin.reply != action::STACK
            && let Some(verdict) = icmp::related(skb, pkt)
        {
            return verdict;
        }
    }
    // A reply first: under masquerading its destination is the node's address, and only the flow knows the pod.
    commit::recall(pkt, scratch);
    if scratch.known.flags & flags::REPLY != 0 {
        let verdict = commit::renew_reply(pkt, scratch);
        if verdict != commit::NO_FORWARD {
            return if verdict == 0 { renewed(skb, pkt, origin) } else { verdict };
        }
    }
    resolve(pkt, scratch, origin);
    if scratch.forward.dst_endpoint == 0 {
        // Not for a pod: the host's business.
        return TC_ACT_OK;
    }
    let verdict = policy::check(pkt, scratch);
    if verdict < 0 {
        return commit::refuse(pkt, verdict);
    }
    reply_path(pkt, scratch, origin);
    let verdict = commit::store(skb, pkt, scratch, point::TO_ENDPOINT);
    if verdict < 0 { verdict } else { deliver(skb, pkt, origin, &scratch.forward) }
}

/// Carries out what has just been renewed.
#[inline(always)]
fn renewed(skb: Skb, pkt: &Pkt, origin: &Origin) -> i32 {
    match conntrack::lookup(pkt) {
        Some(flow) => deliver(skb, pkt, origin, flow),
        None => -(DropReason::UnknownConnectionTrackingState.code() as i32),
    }
}

/// Does what was decided. What the host's stack sends is on the pod's device already, where it is only rewritten.
#[inline(always)]
fn deliver(skb: Skb, pkt: &Pkt, origin: &Origin, flow: &FlowEntry) -> i32 {
    if origin.reply != action::STACK {
        redirect::apply(skb, pkt, flow)
    } else if flow.flags & (flags::NAT_SRC | flags::NAT_DST) != 0 {
        nat::rewrite(skb, pkt, flow)
    } else {
        TC_ACT_OK
    }
}

/// Who sends, and to whom.
#[inline(always)]
fn resolve(pkt: &Pkt, scratch: &mut Scratch, origin: &Origin) {
    scratch.forward.src_identity =
        if origin.identity != 0 { origin.identity } else { ipcache::source_identity(&pkt.key.src) };
    scratch.forward.peer_slot = abi::epoch::of_peer(pkt.key.src);
    scratch.dst = pkt.key.dst;
    scratch.dport = pkt.key.dport;
    ipcache::resolve_destination(scratch);
}

/// Replies go back the way that the packet came.
#[inline(always)]
fn reply_path(pkt: &Pkt, scratch: &mut Scratch, origin: &Origin) {
    scratch.reply_key = pkt.key.reversed(abi::flow::FROM_POD);
    scratch.reply.action = origin.reply;
    scratch.reply.out_ifindex = origin.ifindex;
    scratch.reply.tunnel = origin.node;
    if origin.reply == action::TUNNEL
        && let Some(entry) = ipcache::lookup(pkt.key.src)
        && !entry.tunnel.is_none()
    {
        scratch.reply.tunnel = entry.tunnel;
    }
}

/// Whether the packet is for a pod of this node; the cheap question, before the slow path.
#[inline(always)]
pub fn is_for_local_pod(pkt: &Pkt) -> bool {
    // SAFETY: read at once.
    match unsafe { maps::LOCALS.get(pkt.key.dst) } {
        Some(local) => local.flags & abi::endpoint::flags::HOST == 0,
        None => false,
    }
}
