// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device: packets of the tunnel, replies to masqueraded flows, and packets for pods where the network routes them.
//! Everything else is the host's and passes untouched.

use crate::config;
use crate::encap::Arrival;
use crate::events;
use crate::flows;
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::{Frame, KNOWN, LATER, parse};
use crate::scratch::{self, Notes};
use crate::send;
use crate::skb::Skb;
use crate::stages::{self, announced, source};
use crate::verdict::Verdict;
use abi::DropReason;
use abi::event::point;
use abi::policy::INGRESS;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

const FORGED: Verdict = Verdict::Drop(DropReason::InvalidSourceIp);

/// A packet arrives at the node.
#[classifier]
pub fn netdev_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(notes) = scratch::begin(From::DEVICE, skb.ifindex()) else { return events::NO_MEMORY };
    skb.take_priority();
    let pkt = &mut notes.pkt;
    match parse(skb, pkt) {
        Frame::Ip if announced::is_solicitation(pkt) => {
            return events::finish(skb, pkt, announced::solicitation(skb), INGRESS, point::FROM_NETWORK);
        }
        Frame::Ip => {}
        Frame::Arp => return events::finish(skb, pkt, announced::arp(skb), INGRESS, point::FROM_NETWORK),
        // The stack may understand it better. Without its first fragment it does not take a later one for anything.
        Frame::Bad(_) if pkt.fragment != LATER && source::is_forged_to_host(pkt) => {
            return events::finish(skb, pkt, FORGED, INGRESS, point::FROM_NETWORK);
        }
        _ => return events::NOT_OURS,
    }
    if config::on(&config::DIRECT_TUNNEL)
        && source::is_tunnel(pkt.tuple.proto, pkt.tuple.dport)
        && let Some(node) = maps::NODE.get(0)
        && let Some(arrival) = Arrival::of(skb, pkt, node)
    {
        // What is for the node itself goes through the tunnel device.
        if !arrival.look_inside(skb, pkt) || !source::is_pod(&pkt.tuple.dst) || !arrival.take_off(skb, pkt) {
            return events::NOT_OURS;
        }
    }
    let verdict = arrive(skb, notes);
    let at = if notes.pkt.from == From::TUNNEL { point::FROM_OVERLAY } else { point::FROM_NETWORK };
    events::finish(skb, &notes.pkt, verdict, INGRESS, at)
}

/// A packet from outside: replayed, decided about, or none of ours.
#[inline(always)]
pub fn arrive(skb: Skb, notes: &mut Notes) -> Verdict {
    let pkt = &mut notes.pkt;
    if let Some(flow) = flows::find(pkt) {
        flows::touch(skb, pkt, flow, point::TO_ENDPOINT);
        return send::send(skb, pkt, flow, &pkt.key);
    }
    if pkt.from == From::DEVICE && !pkt.is(KNOWN) && !pkt.is_icmp_error() && !source::is_pod(&pkt.tuple.dst) {
        return if source::is_forged_to_host(pkt) { FORGED } else { Verdict::NotOurs };
    }
    stages::decide(skb)
}
