// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Time, and the epochs that a decision stands on. They live in an array, whose look-up the kernel inlines.

use crate::config;
use crate::maps;
use abi::epoch;
use abi::flow::{Flow, TICK_SHIFT};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// Ticks since boot.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: no preconditions.
    let nanoseconds =
        unsafe { if config::on(&config::COARSE_CLOCK) { bpf_ktime_get_coarse_ns() } else { bpf_ktime_get_ns() } };
    (nanoseconds >> TICK_SHIFT) as u32
}

/// The number in a slot.
#[inline(always)]
fn read(slot: u32) -> u32 {
    match maps::EPOCHS.get_ptr(slot) {
        // SAFETY: array values are never freed; a torn read is impossible for an aligned word.
        Some(epoch) => unsafe { core::ptr::read_volatile(epoch) },
        None => 0,
    }
}

/// [`abi::epoch::GENERATION`], to be read before a decision looks anything up.
#[inline(always)]
pub fn generation() -> u32 {
    read(epoch::GENERATION)
}

/// Whether everything that the decision was made from is still what it was.
#[inline(always)]
pub fn stands(flow: &Flow) -> bool {
    flow.topology_epoch == topology(flow.peers)
        && flow.src_epoch == read(flow.src_endpoint as u32)
        && flow.dst_epoch == read(flow.dst_endpoint as u32)
}

#[inline(always)]
fn topology(peers: u32) -> u32 {
    let [one, other] = epoch::slots(peers);
    read(epoch::NODE).wrapping_add(read(one)).wrapping_add(read(other))
}

/// Notes under which epochs a decision was made that began at `generation`. One that a change has overtaken is noted as outdated
/// already: it holds for its packet alone.
#[inline(always)]
pub fn seal(flow: &mut Flow, generation: u32) {
    let sum = topology(flow.peers);
    flow.src_epoch = read(flow.src_endpoint as u32);
    flow.dst_epoch = read(flow.dst_endpoint as u32);
    // The generation is read last: `abi::epoch` says why.
    flow.topology_epoch = epoch::noted(sum, generation, self::generation());
}
