// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device: packets of the tunnel, replies to masqueraded flows, and packets for pods where the network routes them.
//! Everything else is the host's and passes untouched.

use crate::addresses;
use crate::config;
use crate::direct;
use crate::encap::{self, Arrival};
use crate::exit;
use crate::flows;
use crate::ipip;
use crate::lb;
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::{Frame, parse};
use crate::pkt::{DIRECT, INSIDE, KNOWN, LATER, Pkt, REPLY};
use crate::record;
use crate::scratch::{self, Notes};
use crate::send;
use crate::skb::Skb;
use crate::stages::commit::leaving_point;
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
    let Some(notes) = scratch::begin(From::DEVICE, skb.ifindex()) else { return exit::NO_MEMORY };
    let untagged = skb.take_priorities();
    let pkt = &mut notes.pkt;
    if !untagged {
        let verdict = Verdict::Drop(DropReason::VlanFiltered);
        return exit::finish(skb, pkt, verdict, INGRESS, point::FROM_NETWORK);
    }
    match parse(skb, pkt) {
        Frame::Ip if announced::is_solicitation(pkt) => {
            return exit::finish(skb, pkt, announced::solicitation(skb), INGRESS, point::FROM_NETWORK);
        }
        // As to the stack, which forwards none of it either.
        Frame::Ip if !skb.is_addressed_to_us() => {
            return exit::finish(skb, pkt, not_ours(pkt), INGRESS, point::FROM_NETWORK);
        }
        Frame::Ip => {}
        Frame::Arp => return exit::finish(skb, pkt, announced::arp(skb), INGRESS, point::FROM_NETWORK),
        // The stack may understand it better. Without its first fragment it does not take a later one for anything.
        Frame::Bad(_) if pkt.fragment != LATER && source::is_forged_to_host(pkt) => {
            return exit::finish(skb, pkt, FORGED, INGRESS, point::FROM_NETWORK);
        }
        Frame::Bad(_) if ipip::is_for_us(pkt) && skb.is_addressed_to_us() => match ipip::come_out(skb.0) {
            ipip::GOES_ON => {}
            code => return exit::finish(skb, pkt, Verdict::from_code(code), INGRESS, point::FROM_NETWORK),
        },
        _ => return exit::NOT_OURS,
    }
    if config::on(&config::DIRECT_TUNNEL) && encap::is_tunnel(pkt.tuple.proto, pkt.tuple.dport) && !come_out(skb, pkt) {
        return exit::NOT_OURS;
    }
    if config::on(&config::DIRECT_RETURN)
        && let Some(reason) = DropReason::from_code(direct::arrive(skb, pkt) as u8)
    {
        return exit::finish(skb, pkt, Verdict::Drop(reason), INGRESS, point::FROM_NETWORK);
    }
    let verdict = arrive(skb, notes);
    let at = if notes.pkt.from == From::TUNNEL { point::FROM_OVERLAY } else { point::FROM_NETWORK };
    exit::finish(skb, &notes.pkt, verdict, INGRESS, at)
}

/// Takes the outer headers off, if they are a tunnel's of ours. False: it goes through the tunnel device, as does what is for the node
/// itself.
#[inline(never)]
fn come_out(skb: Skb, pkt: &mut Pkt) -> bool {
    let Some(node) = maps::NODE.get(0) else { return false };
    let Some(arrival) = Arrival::of(skb, pkt, node) else { return true };
    arrival.look_inside(skb, pkt) && is_for_us(pkt) && arrival.take_off(skb, pkt)
}

/// Whether what a tunnel's packet holds is for a pod, or of a flow that goes through this node.
#[inline(always)]
fn is_for_us(pkt: &mut Pkt) -> bool {
    addresses::is_pod(&pkt.tuple.dst) || config::on(&config::EXPOSE_SERVICES) && flows::is_known(pkt)
}

/// A packet from outside: replayed, decided about, or none of ours.
#[inline(always)]
pub fn arrive(skb: Skb, notes: &mut Notes) -> Verdict {
    let pkt = &mut notes.pkt;
    if let Some(flow) = flows::find(pkt)
        && stages::direct::is_of(pkt, flow)
    {
        flows::touch(skb, pkt, flow, leaving_point(record::half_of(flow, pkt.is(REPLY)).action));
        return send::send(skb, pkt, flow);
    }
    if pkt.from == From::DEVICE && !concerns_us(pkt) {
        return not_ours(pkt);
    }
    stages::decide(skb)
}

/// Whether what comes from the wire may be for a pod, or for a service.
#[inline(always)]
fn concerns_us(pkt: &Pkt) -> bool {
    pkt.is(KNOWN | DIRECT | INSIDE) || pkt.is_icmp_error() || addresses::is_pod(&pkt.tuple.dst) || lb::is_exposed(pkt)
}

/// What concerns nobody but the stack may still claim to come from where it does not.
#[inline(always)]
fn not_ours(pkt: &Pkt) -> Verdict {
    if source::is_forged_to_host(pkt) { FORGED } else { Verdict::NotOurs }
}
