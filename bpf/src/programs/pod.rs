// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A pod's interface: what leaves it (tc ingress of the host side), and what the host's stack sends to it (tc egress).

use super::arriving::{self, Origin};
use super::commit;
use crate::ctx::Skb;
use crate::ipcache;
use crate::lb::{self, Choice};
use crate::maps;
use crate::nat;
use crate::parse::{Frame, NOTED, Pkt, parse};
use crate::policy;
use crate::scratch::{self, Scratch};
use crate::{arp, conntrack, events, icmp, redirect};
use abi::endpoint::flags as endpoint;
use abi::event::point;
use abi::flow::{ARRIVING, FROM_POD, FlowEntry, action, flags, proto};
use abi::policy::{EGRESS, INGRESS};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

const fn drop(reason: DropReason) -> i32 {
    -(reason as u8 as i32)
}

/// A packet leaves a pod.
#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mut pkt = Pkt::new(FROM_POD);
    let verdict = match parse(skb, &mut pkt) {
        Frame::Ip => match conntrack::find(skb, &mut pkt) {
            Some(flow) => {
                conntrack::touch(skb, &pkt, flow, leaving_point(flow.action));
                redirect::apply(skb, &pkt, flow)
            }
            None => decide(skb, &mut pkt),
        },
        Frame::Arp => arp::answer_arp(skb),
        Frame::Vlan => drop(DropReason::VlanFiltered),
        Frame::Other => drop(DropReason::UnsupportedL3Protocol),
        Frame::Bad(reason) => drop(reason),
    };
    events::finish(skb, &pkt, verdict, EGRESS, point::FROM_ENDPOINT)
}

/// The host's stack sends a packet to a pod.
#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mut pkt = Pkt::new(ARRIVING);
    let verdict = match parse(skb, &mut pkt) {
        Frame::Ip => match conntrack::find(skb, &mut pkt) {
            Some(flow) if flow.action == action::STACK || flow.out_ifindex == skb.ifindex() => {
                conntrack::touch(skb, &pkt, flow, point::TO_ENDPOINT);
                pass(skb, &pkt, flow)
            }
            _ => arriving::decide(skb, &mut pkt, &Origin::STACK),
        },
        // The host asks for the pod's hardware address, or answers the pod.
        Frame::Arp => TC_ACT_OK,
        Frame::Vlan => drop(DropReason::VlanFiltered),
        Frame::Other => drop(DropReason::UnsupportedL3Protocol),
        Frame::Bad(reason) => drop(reason),
    };
    events::finish(skb, &pkt, verdict, INGRESS, point::TO_ENDPOINT)
}

/// The packet is on the pod's own device already: rewrite and let it go.
#[inline(always)]
fn pass(skb: Skb, pkt: &Pkt, flow: &FlowEntry) -> i32 {
    if flow.flags & (flags::NAT_SRC | flags::NAT_DST) != 0 { nat::rewrite(skb, pkt, flow) } else { TC_ACT_OK }
}

/// Observation point of a packet that leaves a pod.
#[inline(always)]
fn leaving_point(action: u8) -> u8 {
    match action {
        action::LOCAL => point::TO_ENDPOINT,
        action::TUNNEL => point::TO_OVERLAY,
        action::NEIGH => point::TO_NETWORK,
        _ => point::TO_STACK,
    }
}

/// The slow path: the stages, in order.
#[inline(never)]
fn decide(skb: Skb, pkt: &mut Pkt) -> i32 {
    let Some(scratch) = scratch::fresh() else { return drop(DropReason::InvalidTcBuffer) };
    pkt.marks |= NOTED;
    if pkt.key.proto == proto::ICMPV6
        && pkt.family == 6
        && let Some(verdict) = arp::link_message(skb, pkt)
    {
        return verdict;
    }
    let verdict = source(skb, pkt, scratch);
    if verdict != 0 {
        return verdict;
    }
    if pkt.is_icmp_error() {
        return icmp::related(skb, pkt).unwrap_or(drop(DropReason::CtUnknownL4Protocol));
    }
    commit::recall(pkt, scratch);
    if scratch.known.flags & flags::REPLY != 0 {
        let verdict = commit::renew_reply(pkt, scratch);
        if verdict != commit::NO_FORWARD {
            return if verdict == 0 { replay(skb, pkt) } else { verdict };
        }
    }
    let verdict = service(pkt, scratch);
    if verdict < 0 {
        return verdict;
    }
    ipcache::resolve_destination(scratch);
    scratch.forward.peer_slot = abi::epoch::of_peer(scratch.dst);
    let verdict = policy::check(pkt, scratch);
    if verdict < 0 {
        return commit::refuse(pkt, verdict);
    }
    let verdict = next_hop(skb, pkt, scratch);
    if verdict < 0 {
        return verdict;
    }
    scratch.reply_key = abi::flow::opposite(&pkt.key, &scratch.forward);
    let verdict = nat::masquerade(skb, pkt, scratch);
    if verdict < 0 {
        return verdict;
    }
    let verdict = commit::store(skb, pkt, scratch, leaving_point(scratch.forward.action));
    if verdict < 0 { verdict } else { redirect::apply(skb, pkt, &scratch.forward) }
}

/// Carries out what has just been renewed.
#[inline(always)]
fn replay(skb: Skb, pkt: &Pkt) -> i32 {
    match conntrack::lookup(pkt) {
        Some(flow) => redirect::apply(skb, pkt, flow),
        None => drop(DropReason::UnknownConnectionTrackingState),
    }
}

/// Which pod it is, and whether the packet's source is the pod's. 0, minus a drop reason, or the tc action of a question
/// that has been answered.
#[inline(never)]
fn source(skb: Skb, pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    // SAFETY: read at once.
    let Some(pod) = (unsafe { maps::ENDPOINTS.get(skb.ifindex()) }) else { return drop(DropReason::DropEpNotReady) };
    scratch.forward.src_identity = pod.identity;
    scratch.forward.src_endpoint = pod.id;
    scratch.forward.in_ifindex = skb.ifindex();
    if pod.flags & endpoint::NOT_READY != 0 {
        return drop(DropReason::DropEpNotReady);
    }
    let own = if pkt.family == 4 { pod.ipv4 } else { pod.ipv6 };
    if (pkt.key.src != own || own == Addr::NONE) && pod.flags & endpoint::ANY_SOURCE == 0 {
        return drop(DropReason::InvalidSourceIp);
    }
    scratch.src_policy = pod.policy;
    scratch.src_flags = pod.flags;
    scratch.dst = pkt.key.dst;
    scratch.dport = pkt.key.dport;
    scratch.reply.action = action::LOCAL;
    scratch.reply.out_ifindex = skb.ifindex();
    scratch.reply.dst_mac = pod.mac;
    scratch.reply.src_mac = pod.host_mac;
    0
}

/// A service's address becomes a backend's. A flow keeps the backend that it has.
#[inline(never)]
fn service(pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    let known = &scratch.known;
    let (addr, port, id, service) = if keeps_backend(known) {
        (known.nat_dst, known.nat_dport, known.backend, known.service)
    } else {
        match lb::choose(pkt.key.dst, pkt.key.dport, pkt.key.proto) {
            Choice::NotAService => return 0,
            Choice::NoBackend => return drop(DropReason::ServiceBackendNotFound),
            Choice::Chosen(backend, id, service) => (backend.addr, backend.port, id, service),
        }
    };
    scratch.dst = addr;
    scratch.dport = port;
    scratch.forward.flags |= flags::NAT_DST;
    scratch.forward.nat_dst = addr;
    scratch.forward.nat_dport = port;
    scratch.forward.service = service;
    scratch.forward.backend = id;
    scratch.reply.flags |= flags::NAT_SRC;
    scratch.reply.nat_src = pkt.key.dst;
    scratch.reply.nat_sport = pkt.key.dport;
    0
}

/// Whether the backend of a known flow still exists.
#[inline(always)]
fn keeps_backend(known: &FlowEntry) -> bool {
    if known.flags & flags::NAT_DST == 0 || known.backend == 0 {
        return false;
    }
    // SAFETY: read at once.
    match unsafe { maps::BACKENDS.get(known.backend) } {
        Some(backend) => backend.addr == known.nat_dst && backend.port == known.nat_dport,
        None => false,
    }
}

/// Where the packet goes: what addresses have not settled, the kernel's routes do.
#[inline(never)]
fn next_hop(skb: Skb, pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    let Some(node) = maps::NODE.get(0) else { return drop(DropReason::InvalidTcBuffer) };
    match scratch.forward.action {
        action::TUNNEL => {
            if node.overlay_ifindex == 0 {
                return drop(DropReason::NoTunnelOrEncapsulationEndpoint);
            }
            scratch.forward.out_ifindex = node.overlay_ifindex;
        }
        action::NEIGH => {
            let out = crate::route::device(skb, pkt, &scratch.dst);
            if out != 0 && out == node.overlay_ifindex {
                // Through the stack's own route it would travel under the node's identity.
                return drop(DropReason::StaleOrUnroutableIp);
            }
            // Through the stack goes what it must answer itself (no route, too big), and what its own device takes.
            if out == 0 || out == node.host_ifindex {
                scratch.forward.action = action::STACK;
            } else {
                scratch.forward.out_ifindex = out;
            }
        }
        _ => {}
    }
    0
}
