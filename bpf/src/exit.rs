// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The one exit of every program: what becomes of a packet is counted, and a drop reported and answered.

use crate::answer;
use crate::events::{self, Place};
use crate::packet::From;
use crate::pkt::Pkt;
use crate::skb::Skb;
use crate::verdict::Verdict;
use crate::xdp::Xdp;
use abi::event::point;
use abi::policy::INGRESS;
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};

/// The tc action for what is none of ours: the next program, or the stack, has it.
pub const NOT_OURS: i32 = TC_ACT_UNSPEC;

/// The tc action when a program has no memory to work in, which does not happen: a map that is there has its one entry.
pub const NO_MEMORY: i32 = TC_ACT_SHOT;

/// The one exit of every program: a verdict becomes a tc action; a drop is counted and reported by its reason.
#[inline(always)]
pub fn finish(skb: Skb, pkt: &Pkt, verdict: Verdict, direction: u8, point: u8) -> i32 {
    let action = match verdict {
        Verdict::Drop(reason) => {
            events::dropped(skb, pkt, reason.code(), Place { direction, point });
            let answered = answer::to_sender(skb.0, reason.code() as u32) != 0;
            return if answered { TC_ACT_REDIRECT as i32 } else { TC_ACT_SHOT };
        }
        Verdict::NotOurs => return NOT_OURS,
        Verdict::Sent => TC_ACT_REDIRECT as i32,
        Verdict::Pass => TC_ACT_OK,
        Verdict::Taken => TC_ACT_SHOT,
    };
    events::count(0, direction, pkt.len);
    action
}

/// The one exit of a program before the stack: what it has not sent on or dropped itself is for the tc program, as it came.
#[inline(always)]
pub fn finish_early(packet: Xdp, pkt: &Pkt, verdict: Verdict) -> u32 {
    let point = if pkt.from == From::TUNNEL { point::FROM_OVERLAY } else { point::FROM_NETWORK };
    match verdict {
        Verdict::Sent => {
            events::count(0, INGRESS, pkt.len);
            xdp_action::XDP_TX
        }
        Verdict::Drop(reason) if !answer::is_told(reason) => {
            events::dropped(packet, pkt, reason.code(), Place { direction: INGRESS, point });
            xdp_action::XDP_DROP
        }
        _ => xdp_action::XDP_PASS,
    }
}
