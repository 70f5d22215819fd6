// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device, on the way out: what the node's own programs answer to clients of services goes out under the service's name.
//! Nothing is decided here, and whatever is forwarded passes untouched: it has its ends since it came in.

use crate::config;
use crate::exit;
use crate::flows;
use crate::fragment;
use crate::packet::{From, Packet};
use crate::parse::{Frame, HEADERS, parse};
use crate::pkt::{Pkt, REPLY};
use crate::rewrite;
use crate::scratch::{self, Notes};
use crate::skb::Skb;
use crate::stages::icmp_error;
use crate::verdict::Verdict;
use abi::DropReason;
use abi::event::point;
use abi::flow::{Flow, flags, origin};
use abi::policy::EGRESS;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

const PASS: u32 = Verdict::Pass.code();
const NOT_OURS: u32 = Verdict::NotOurs.code();
const WRITE_FAILED: u32 = Verdict::Drop(DropReason::ErrorWritingToPacket).code();

/// A packet leaves the node.
#[classifier]
pub fn netdev_egress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if !config::on(&config::EXPOSE_SERVICES) || skb.arrived_by() != 0 {
        return exit::NOT_OURS;
    }
    let Some(notes) = scratch::begin(From::STACK, origin::STACK) else { return exit::NO_MEMORY };
    if read_own(skb.0) == 0 {
        return exit::NOT_OURS;
    }
    let verdict = if notes.pkt.is_icmp_error() { tell_client(skb.0) } else { answer_client(skb.0) };
    exit::finish(skb, &notes.pkt, Verdict::from_code(verdict), EGRESS, point::TO_NETWORK)
}

/// Parses the packet; 0 unless it is of IP. Like a stage, this and what follows are functions of their own, which share no stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_own(context: *mut __sk_buff) -> u32 {
    let Some(notes) = scratch::present() else { return 0 };
    matches!(parse(Skb(context), &mut notes.pkt), Frame::Ip) as u32
}

/// A program of the node answers a client of a service.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_client(context: *mut __sk_buff) -> u32 {
    let Some(Notes { pkt, .. }) = scratch::present() else { return NOT_OURS };
    if !flows::is_known(pkt) {
        return NOT_OURS;
    }
    let Some(flow) = flows::lookup(pkt) else { return NOT_OURS };
    if !is_answer(pkt, flow) {
        return NOT_OURS;
    }
    let skb = Skb(context);
    flows::touch(skb, pkt, flow, point::TO_NETWORK);
    fragment::let_follow(pkt);
    if rewrite::apply(skb, pkt, flow, &pkt.key) { PASS } else { WRITE_FAILED }
}

/// The node tells a client of a service something about its packets: that its program listens no more, for example.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_client(context: *mut __sk_buff) -> u32 {
    let Some(notes) = scratch::present() else { return NOT_OURS };
    notes.wipe();
    let (skb, Notes { pkt, scratch, .. }) = (Skb(context), notes);
    if !skb.pull(HEADERS) || !icmp_error::concerns_flow(skb, pkt, scratch) || !is_answer(pkt, &scratch.known) {
        return NOT_OURS;
    }
    scratch.flow = scratch.known;
    if icmp_error::restore(skb, pkt, scratch) { PASS } else { WRITE_FAILED }
}

/// Whether the node itself is the backend. Such a flow is told apart by nothing that could change, so that its answers go on under
/// the service's name whatever has been changed meanwhile.
#[inline(always)]
fn is_answer(pkt: &Pkt, flow: &Flow) -> bool {
    let of_service = flow.has(flags::NAT_DST) || flow.is_returned();
    pkt.is(REPLY) && of_service && flow.src_endpoint == 0 && flow.reply.origin == origin::STACK
}
