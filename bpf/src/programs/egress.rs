// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device, on the way out: what the node's own programs answer to clients of services goes out under the service's name.
//! Nothing is decided here, and whatever is forwarded passes untouched: it has its ends since it came in.

use crate::config;
use crate::events;
use crate::flows;
use crate::fragment;
use crate::packet::{From, Packet};
use crate::parse::{Frame, HEADERS, Pkt, REPLY, parse};
use crate::rewrite;
use crate::scratch::{self, Notes};
use crate::skb::Skb;
use crate::stages::icmp_error;
use crate::verdict::Verdict;
use abi::DropReason;
use abi::event::point;
use abi::flow::{Flow, flags, origin};
use abi::policy::EGRESS;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

const WRITE_FAILED: Verdict = Verdict::Drop(DropReason::ErrorWritingToPacket);

/// A packet leaves the node.
#[classifier]
pub fn netdev_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if !config::on(&config::EXPOSE_SERVICES) || skb.arrived_by() != 0 {
        return events::NOT_OURS;
    }
    let Some(notes) = scratch::begin(From::STACK, origin::STACK) else { return events::NO_MEMORY };
    if !matches!(parse(skb, &mut notes.pkt), Frame::Ip) {
        return events::NOT_OURS;
    }
    if notes.pkt.is_icmp_error() {
        return tell(skb, notes);
    }
    let pkt = &mut notes.pkt;
    if !flows::is_known(pkt) {
        return events::NOT_OURS;
    }
    let Some(flow) = flows::lookup(pkt) else { return events::NOT_OURS };
    if !is_answer(pkt, flow) {
        return events::NOT_OURS;
    }
    flows::touch(skb, pkt, flow, point::TO_NETWORK);
    fragment::let_follow(pkt);
    let verdict = if rewrite::apply(skb, pkt, flow, &pkt.key) { Verdict::Pass } else { WRITE_FAILED };
    events::finish(skb, pkt, verdict, EGRESS, point::TO_NETWORK)
}

/// The node tells a client of a service something about its packets: that its program listens no more, for example.
#[inline(always)]
fn tell(skb: Skb, notes: &mut Notes) -> i32 {
    notes.wipe();
    let Notes { pkt, scratch } = notes;
    if !skb.pull(HEADERS) || !icmp_error::concerns_flow(skb, pkt, scratch) || !is_answer(pkt, &scratch.known) {
        return events::NOT_OURS;
    }
    scratch.flow = scratch.known;
    let verdict = if icmp_error::restore(skb, pkt, scratch) { Verdict::Pass } else { WRITE_FAILED };
    events::finish(skb, pkt, verdict, EGRESS, point::TO_NETWORK)
}

/// Whether the node itself is the backend. Such a flow is told apart by nothing that could change, so that its answers go on under
/// the service's name whatever has been changed meanwhile.
#[inline(always)]
fn is_answer(pkt: &Pkt, flow: &Flow) -> bool {
    pkt.is(REPLY) && flow.has(flags::NAT_DST) && flow.src_endpoint == 0 && flow.reply.origin == origin::STACK
}
