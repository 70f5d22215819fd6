// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A pod's interface: what leaves it (tc ingress of the host side), and what the host's stack sends to it (tc egress).

use crate::config;
use crate::direct;
use crate::exit;
use crate::flows;
use crate::packet::{From, Packet};
use crate::parse::{Frame, parse};
use crate::pkt::REPLY;
use crate::record;
use crate::scratch::{self, Notes};
use crate::send;
use crate::skb::Skb;
use crate::stages::commit::leaving_point;
use crate::stages::{self, link};
use crate::verdict::Verdict;
use abi::DropReason;
use abi::event::point;
use abi::flow::origin;
use abi::policy::{EGRESS, INGRESS};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// A packet leaves a pod.
#[classifier]
pub fn pod_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(notes) = scratch::begin(From::POD, skb.ifindex()) else { return exit::NO_MEMORY };
    let verdict = match parse(skb, &mut notes.pkt) {
        Frame::Ip => leave(skb, notes),
        Frame::Arp => link::answer_arp(skb),
        Frame::Vlan => Verdict::Drop(DropReason::VlanFiltered),
        Frame::Other => Verdict::Drop(DropReason::UnsupportedL3Protocol),
        Frame::Bad(_) if link::is_group_report(&notes.pkt) => Verdict::Taken,
        Frame::Bad(reason) => Verdict::Drop(reason),
    };
    exit::finish(skb, &notes.pkt, verdict, EGRESS, point::FROM_ENDPOINT)
}

#[inline(always)]
fn leave(skb: Skb, notes: &mut Notes) -> Verdict {
    let pkt = &mut notes.pkt;
    // Only nodes tell other nodes as whom to answer.
    if config::on(&config::DIRECT_RETURN) && direct::is_there(skb, pkt) {
        return Verdict::Drop(DropReason::EncapsulationTrafficIsProhibited);
    }
    if let Some(flow) = flows::find(pkt) {
        flows::touch(skb, pkt, flow, leaving_point(record::half_of(flow, pkt.is(REPLY)).action));
        return send::send(skb, pkt, flow);
    }
    match link::message(skb, pkt) {
        Some(verdict) => verdict,
        None => stages::decide(skb),
    }
}

/// The host's stack sends a packet to a pod.
#[classifier]
pub fn pod_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let Some(notes) = scratch::begin(From::STACK, origin::STACK | skb.arrived_by()) else { return exit::NO_MEMORY };
    let verdict = match parse(skb, &mut notes.pkt) {
        Frame::Ip => enter(skb, notes),
        // The host asks for the pod's hardware address, or answers the pod.
        Frame::Arp => Verdict::Pass,
        Frame::Vlan => Verdict::Drop(DropReason::VlanFiltered),
        Frame::Other => Verdict::Drop(DropReason::UnsupportedL3Protocol),
        Frame::Bad(reason) => Verdict::Drop(reason),
    };
    exit::finish(skb, &notes.pkt, verdict, INGRESS, point::TO_ENDPOINT)
}

#[inline(always)]
fn enter(skb: Skb, notes: &mut Notes) -> Verdict {
    let pkt = &mut notes.pkt;
    if let Some(flow) = flows::find(pkt) {
        flows::touch(skb, pkt, flow, point::TO_ENDPOINT);
        return send::send(skb, pkt, flow);
    }
    stages::decide(skb)
}
