// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Working memory of the slow path: what the stages have found out about the packet so far.

use crate::maps;
use abi::Addr;
use abi::event::Verdict;
use abi::flow::{FlowEntry, FlowKey};

/// The slow path's notes. One per processor: tc programs are not preempted by each other.
#[repr(C)]
pub struct Scratch {
    /// The decision for this direction.
    pub forward: FlowEntry,
    /// The decision for the reply direction.
    pub reply: FlowEntry,
    /// What was remembered of the flow before, or all zero.
    pub known: FlowEntry,
    /// Key of the reply direction.
    pub reply_key: FlowKey,
    /// Destination after service translation.
    pub dst: Addr,
    /// Destination port after service translation.
    pub dport: u16,
    /// The destination is an address of this node.
    pub dst_is_host: u8,
    /// The destination's entry asks not to masquerade.
    pub no_masquerade: u8,
    /// Compiled policy of the local destination.
    pub dst_policy: u32,
    /// Endpoint flags of the local destination.
    pub dst_flags: u16,
    /// Endpoint flags of the local source.
    pub src_flags: u16,
    /// [`abi::epoch::GENERATION`] before anything was looked up.
    pub generation: u32,
    /// Compiled policy of the local source.
    pub src_policy: u32,
    /// What egress policy said.
    pub egress: Verdict,
    /// What ingress policy said.
    pub ingress: Verdict,
}

/// This processor's notes, wiped.
#[inline(always)]
pub fn fresh() -> Option<&'static mut Scratch> {
    let scratch = maps::SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the map value is this processor's alone while the program runs; all-zero is a valid `Scratch`.
    unsafe {
        core::ptr::write_bytes(scratch.cast::<u64>(), 0, size_of::<Scratch>() / 8);
        (*scratch).generation = crate::conntrack::epoch(abi::epoch::GENERATION);
        Some(&mut *scratch)
    }
}

const _: () = assert!(size_of::<Scratch>() % 8 == 0);
