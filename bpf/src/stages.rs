// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The slow path: the stages of a decision, in order, the same ones wherever the packet comes from. Each has a file of its own, reads
//! what earlier stages noted in `scratch`, and either lets the packet go on or ends its way.

pub mod announced;
mod backend;
pub mod commit;
pub mod destination;
pub mod direct;
pub mod icmp_error;
pub mod link;
pub mod masquerade;
pub mod orient;
pub mod policy;
pub mod route;
pub mod service;
pub mod source;

use crate::hook::Hook;
use crate::pkt::NOTED;
use crate::scratch::{self, Notes};
use crate::send;
use crate::skb::Skb;
use crate::verdict::Verdict;
use crate::xdp::Xdp;
use abi::DropReason;
use aya_ebpf::bindings::{__sk_buff, xdp_md};

/// Decides about a packet for which no decision stands, remembers that, and carries it out.
#[inline(always)]
pub fn decide(skb: Skb) -> Verdict {
    Verdict::from_code(decide_about(skb.0))
}

/// The same before the stack has the packet. What this hook cannot do is none of its business.
#[inline(always)]
pub fn decide_early(packet: Xdp) -> Verdict {
    Verdict::from_code(decide_before_stack(packet.0))
}

/// Keeps the compiler from leaving out an argument.
#[inline(always)]
fn needed(argument: usize) -> usize {
    let copy;
    // SAFETY: a copy from register to register.
    unsafe { core::arch::asm!("{0} = {1}", out(reg) copy, in(reg) argument, options(nomem, nostack, preserves_flags)) };
    copy
}

/// Declares each stage as a function of its own to the verifier, which then walks through it once, and not again for each way that
/// leads there. It finds the packet and the notes where they are; 0 lets the packet go on.
macro_rules! stages_of {
    ($kind:ident($context:ident), $decide:ident, $($name:ident = |$packet:ident, $pkt:ident, $scratch:ident| $stage:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(context: *mut $context) -> u32 {
                let Some(Notes { pkt: $pkt, scratch: $scratch, .. }) = scratch::present() else {
                    return Verdict::Drop(DropReason::InvalidTcBuffer).code();
                };
                // The kernel wants the argument to be there, also when this stage has no use for it.
                let $packet = $kind(needed(context as usize) as *mut $context);
                match $stage {
                    Ok(()) => 0,
                    Err(verdict) => verdict.code(),
                }
            }
        )+

        /// The stages, in order.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $decide(context: *mut $context) -> u32 {
            let Some(notes) = scratch::present() else { return Verdict::Drop(DropReason::InvalidTcBuffer).code() };
            notes.pkt.marks |= NOTED;
            notes.wipe();
            $(
                let verdict = $name(context);
                if verdict != 0 {
                    return verdict;
                }
            )+
            Verdict::Drop(DropReason::InvalidTcBuffer).code()
        }
    };
}

/// The same stages for each kind of hook, since a function that is walked through once knows one kind of context.
macro_rules! stages {
    ($($tc:ident, $xdp:ident = |$packet:ident, $pkt:ident, $scratch:ident| $stage:expr;)+) => {
        stages_of! { Skb(__sk_buff), decide_about, $($tc = |$packet, $pkt, $scratch| $stage;)+ }
        stages_of! { Xdp(xdp_md), decide_before_stack, $($xdp = |$packet, $pkt, $scratch| $stage;)+ }
    };
}

stages! {
    stage_source, early_source = |packet, pkt, scratch| source::check(packet, pkt, scratch);
    stage_recall, early_recall = |_packet, pkt, scratch| direct::recall(pkt, scratch);
    stage_orient, early_orient = |packet, pkt, scratch| {
        if pkt.is_icmp_error() { icmp_error::relate(packet, pkt, scratch) } else { orient::orient(pkt, scratch) }
    };
    stage_service, early_service = |_packet, pkt, scratch| service::translate(pkt, scratch);
    stage_destination, early_destination = |packet, pkt, scratch| {
        destination::resolve(pkt, scratch).and_then(|()| packet.reaches(scratch))
    };
    stage_policy, early_policy = |_packet, pkt, scratch| policy::check(pkt, scratch);
    stage_route, early_route = |packet, pkt, scratch| {
        route::next_hops(packet, pkt, scratch).and_then(|()| packet.carries(pkt, &scratch.flow))
    };
    stage_masquerade, early_masquerade = |packet, pkt, scratch| masquerade::translate(packet, pkt, scratch);
    stage_commit, early_commit = |packet, pkt, scratch| {
        if icmp_error::is_related(pkt, scratch) { Ok(()) } else { commit::store(packet, pkt, scratch) }
    };
    // What another processor has decided meanwhile may lead elsewhere.
    stage_measure, early_measure = |packet, pkt, scratch| {
        send::left_to_stack(packet, pkt, &scratch.flow).and_then(|()| packet.carries(pkt, &scratch.flow))
    };
    stage_prepare, early_prepare = |packet, pkt, scratch| {
        if icmp_error::is_related(pkt, scratch) {
            icmp_error::prepare(packet, pkt, scratch)
        } else {
            send::prepare(packet, pkt, &scratch.flow, &scratch.key)
        }
    };
    stage_send, early_send = |packet, pkt, scratch| Err(send::forward(packet, pkt, &scratch.flow));
}
