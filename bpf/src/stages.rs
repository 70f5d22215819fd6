// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The slow path: the stages of a decision, in order, the same ones wherever the packet comes from. Each has a file of its own, reads
//! what earlier stages noted in `scratch`, and either lets the packet go on or ends its way.

pub mod commit;
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

/// Where a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum From {
    /// A pod of this node.
    Pod = 0,
    /// The host's stack; the packet is on its way through a pod's device.
    Stack,
    /// Another node, through the tunnel.
    Tunnel,
    /// A native device.
    Device,
}

impl From {
    /// From its number.
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Pod,
            1 => Self::Stack,
            2 => Self::Tunnel,
            _ => Self::Device,
        }
    }
}

/// Decides about a packet for which no decision stands, remembers that, and carries it out.
#[inline(always)]
pub fn decide(skb: Skb, from: From) -> Verdict {
    Verdict::from_code(decide_about(skb.0, from as u32))
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
    ($($name:ident = |$skb:ident, $pkt:ident, $from:ident, $scratch:ident| $stage:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(context: *mut __sk_buff, from: u32) -> u32 {
                let Some(Notes { pkt: $pkt, scratch: $scratch }) = scratch::present() else {
                    return Verdict::Drop(DropReason::InvalidTcBuffer).code();
                };
                // The kernel wants every argument to be there, also one that this stage has no use for.
                let (context, from) = (needed(context as usize) as *mut __sk_buff, needed(from as usize) as u32);
                let ($skb, $from) = (Skb(context), From::from_number(from));
                match $stage {
                    Ok(()) => 0,
                    Err(verdict) => verdict.code(),
                }
            }
        )+

        /// The stages, in order.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn decide_about(context: *mut __sk_buff, from: u32) -> u32 {
            let Some(notes) = scratch::present() else { return Verdict::Drop(DropReason::InvalidTcBuffer).code() };
            notes.pkt.marks |= NOTED;
            notes.wipe();
            $(
                let verdict = $name(context, from);
                if verdict != 0 {
                    return verdict;
                }
            )+
            Verdict::Drop(DropReason::InvalidTcBuffer).code()
        }
    };
}

stages! {
    stage_source = |skb, pkt, from, scratch| source::check(skb, pkt, from, scratch);
    stage_orient = |skb, pkt, from, scratch| {
        if pkt.is_icmp_error() {
            icmp_error::relate(skb, pkt, from, scratch)
        } else {
            orient::orient(pkt, from, scratch)
        }
    };
    stage_service = |_skb, pkt, _from, scratch| service::translate(pkt, scratch);
    stage_destination = |_skb, pkt, from, scratch| ipcache::resolve(pkt, from, scratch);
    stage_policy = |_skb, pkt, _from, scratch| policy::check(pkt, scratch);
    stage_route = |skb, pkt, from, scratch| route::next_hops(skb, pkt, from, scratch);
    stage_masquerade = |skb, pkt, _from, scratch| masquerade::translate(skb, pkt, scratch);
    stage_commit = |skb, pkt, from, scratch| {
        if icmp_error::is_related(pkt, scratch) { Ok(()) } else { commit::store(skb, pkt, from, scratch) }
    };
    stage_prepare = |skb, pkt, from, scratch| {
        let delivered = from == From::Stack;
        if icmp_error::is_related(pkt, scratch) {
            icmp_error::prepare(skb, pkt, scratch, delivered)
        } else {
            send::prepare(skb, pkt, &scratch.flow, &scratch.key, delivered)
        }
    };
    stage_send = |skb, pkt, _from, scratch| Err(send::forward(skb, pkt, &scratch.flow));
}
