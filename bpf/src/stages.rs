// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The slow path: the stages of a decision, in order, the same ones wherever the packet comes from. Each has a file of its own, reads
//! what earlier stages noted in `scratch`, and either lets the packet go on or ends its way.

pub mod announced;
pub mod commit;
pub mod direct;
pub mod icmp_error;
pub mod ipcache;
pub mod link;
pub mod masquerade;
pub mod orient;
pub mod policy;
pub mod route;
pub mod service;
pub mod source;

use crate::parse::NOTED;
use crate::scratch::{self, Notes};
use crate::send;
use crate::skb::Skb;
use crate::verdict::Verdict;
use abi::DropReason;
use aya_ebpf::bindings::__sk_buff;

/// Decides about a packet for which no decision stands, remembers that, and carries it out.
#[inline(always)]
pub fn decide(skb: Skb) -> Verdict {
    Verdict::from_code(decide_about(skb.0))
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
macro_rules! stages {
    ($($name:ident = |$skb:ident, $pkt:ident, $scratch:ident| $stage:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(context: *mut __sk_buff) -> u32 {
                let Some(Notes { pkt: $pkt, scratch: $scratch }) = scratch::present() else {
                    return Verdict::Drop(DropReason::InvalidTcBuffer).code();
                };
                // The kernel wants the argument to be there, also when this stage has no use for it.
                let $skb = Skb(needed(context as usize) as *mut __sk_buff);
                match $stage {
                    Ok(()) => 0,
                    Err(verdict) => verdict.code(),
                }
            }
        )+

        /// The stages, in order.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn decide_about(context: *mut __sk_buff) -> u32 {
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

stages! {
    stage_source = |skb, pkt, scratch| source::check(skb, pkt, scratch);
    stage_recall = |_skb, pkt, scratch| direct::recall(pkt, scratch);
    stage_orient = |skb, pkt, scratch| {
        if pkt.is_icmp_error() { icmp_error::relate(skb, pkt, scratch) } else { orient::orient(pkt, scratch) }
    };
    stage_service = |_skb, pkt, scratch| service::translate(pkt, scratch);
    stage_destination = |_skb, pkt, scratch| ipcache::resolve(pkt, scratch);
    stage_policy = |_skb, pkt, scratch| policy::check(pkt, scratch);
    stage_route = |skb, pkt, scratch| route::next_hops(skb, pkt, scratch);
    stage_masquerade = |skb, pkt, scratch| masquerade::translate(skb, pkt, scratch);
    stage_commit = |skb, pkt, scratch| {
        if icmp_error::is_related(pkt, scratch) { Ok(()) } else { commit::store(skb, pkt, scratch) }
    };
    stage_measure = |skb, pkt, scratch| send::left_to_stack(skb, pkt, &scratch.flow);
    stage_prepare = |skb, pkt, scratch| {
        if icmp_error::is_related(pkt, scratch) {
            icmp_error::prepare(skb, pkt, scratch)
        } else {
            send::prepare(skb, pkt, &scratch.flow, &scratch.key)
        }
    };
    stage_send = |skb, pkt, scratch| Err(send::forward(skb, pkt, &scratch.flow));
}
