// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The flow table: finding a flow, judging whether its decision still stands, and keeping its connection state.
//!
//! A decision stands while the epochs that it was made under have not moved: those of the node and of the peer's address, and the
//! policy epochs of a local source and a local destination. They live in an array, whose look-up the kernel inlines.

use crate::config;
use crate::ctx::Skb;
use crate::events;
use crate::maps;
use crate::parse::{KNOWN, Pkt};
use abi::epoch;
use abi::flow::{FlowEntry, TICK_SHIFT, flags, opposite, proto, tcp};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// TCP flags whose first sight is reported (`monitor-aggregation-flags`).
const REPORTED: u8 = tcp::SYN | tcp::FIN | tcp::RST;

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
pub fn epoch(slot: u32) -> u32 {
    match maps::EPOCHS.get_ptr(slot) {
        // SAFETY: array values are never freed; a torn read is impossible for an aligned word.
        Some(epoch) => unsafe { core::ptr::read_volatile(epoch) },
        None => 0,
    }
}

/// Whether everything is still where it was at the decision.
#[inline(always)]
pub fn topology_stands(entry: &FlowEntry) -> bool {
    entry.topology_epoch == topology(entry.peer_slot)
}

/// What is to equal [`FlowEntry::topology_epoch`].
#[inline(always)]
fn topology(peer_slot: u32) -> u32 {
    epoch(epoch::NODE).wrapping_add(epoch(peer_slot))
}

/// Notes under which epochs a decision was made that began at `generation`. One that a change has overtaken is noted as outdated
/// already: it holds for its packet alone.
#[inline(always)]
pub fn seal(entry: &mut FlowEntry, generation: u32) {
    let sum = topology(entry.peer_slot);
    entry.src_epoch = epoch(entry.src_endpoint as u32);
    entry.dst_epoch = epoch(entry.dst_endpoint as u32);
    // The generation is read last: `abi::epoch` says why.
    entry.topology_epoch = epoch::noted(sum, generation, epoch(epoch::GENERATION));
}

/// The packet's flow, if it is known and its decision stands. Notes whether there is one at all: a new flow is not looked
/// for again.
#[inline(always)]
pub fn find(skb: Skb, pkt: &mut Pkt) -> Option<&'static mut FlowEntry> {
    let entry = search(pkt)?;
    pkt.marks |= KNOWN;
    if entry.in_ifindex != 0 && entry.in_ifindex != skb.ifindex() {
        return None;
    }
    if !topology_stands(entry)
        || entry.src_epoch != epoch(entry.src_endpoint as u32)
        || entry.dst_epoch != epoch(entry.dst_endpoint as u32)
    {
        return None;
    }
    if is_reopened(pkt, entry) { None } else { Some(entry) }
}

/// The packet's entry, whether its decision stands or not, after [`find`].
#[inline(always)]
pub fn lookup(pkt: &Pkt) -> Option<&'static mut FlowEntry> {
    if pkt.marks & KNOWN != 0 { search(pkt) } else { None }
}

#[inline(always)]
fn search(pkt: &Pkt) -> Option<&'static mut FlowEntry> {
    // SAFETY: values of a preallocated table stay mapped; should the entry be recycled for another flow at this very
    // moment, one packet's counters go to that flow, as with every eBPF connection table.
    maps::FLOWS.get_ptr_mut(&pkt.key).map(|entry| unsafe { &mut *entry })
}

/// A new connection on the tuple of one that has ended.
#[inline(always)]
pub fn is_reopened(pkt: &Pkt, entry: &FlowEntry) -> bool {
    pkt.key.proto == proto::TCP
        && pkt.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
        && entry.flags & flags::CLOSING != 0
}

/// Counts the packet, follows the connection's state and reports what is new.
#[inline(always)]
pub fn touch(skb: Skb, pkt: &Pkt, entry: &mut FlowEntry, point: u8) {
    let now = now();
    entry.packets += 1;
    entry.bytes += pkt.len as u64;
    entry.last_seen = now;
    let mut news = 0;
    if pkt.key.proto == proto::TCP {
        news = pkt.flags & REPORTED & !entry.tcp_reported;
        entry.tcp_seen |= pkt.flags;
        if pkt.flags & (tcp::FIN | tcp::RST) != 0 && entry.flags & flags::CLOSING == 0 {
            mark_both(pkt, entry, flags::CLOSING);
        }
    }
    if entry.flags & (flags::REPLY | flags::ESTABLISHED) == flags::REPLY {
        mark_both(pkt, entry, flags::ESTABLISHED);
    }
    if config::on(&config::TRACE_EVENTS)
        && (news != 0 || now.wrapping_sub(entry.last_report) >= config::EVENT_INTERVAL.load())
    {
        entry.tcp_reported |= news;
        entry.last_report = now;
        events::trace_known(skb, pkt, entry, point);
    }
}

/// Sets a flag on the entries of both directions.
#[inline(never)]
fn mark_both(pkt: &Pkt, entry: &mut FlowEntry, flag: u8) -> i32 {
    entry.flags |= flag;
    let key = opposite(&pkt.key, entry);
    if let Some(other) = maps::FLOWS.get_ptr_mut(&key) {
        // SAFETY: as in `lookup`.
        unsafe { (*other).flags |= flag };
    }
    0
}
