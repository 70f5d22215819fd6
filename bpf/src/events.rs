// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Telling user space, and counting. The kernel never waits for user space: a full buffer costs the event, and is counted.

use crate::config;
use crate::ctx::Skb;
use crate::maps;
use crate::parse::{NOTED, Pkt};
use crate::scratch::Scratch;
use abi::event::{Event, Verdict, kind, trace_reason};
use abi::flow::{FlowEntry, flags};
use abi::{Addr, DropReason, metrics};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::maps::ring_buf::RingBufEntry;

/// The one exit of every program: a verdict becomes a tc action; a drop is counted and reported by its reason.
#[inline(always)]
pub fn finish(skb: Skb, pkt: &Pkt, verdict: i32, direction: u8, point: u8) -> i32 {
    if verdict <= -(FIRST_REASON as i32) {
        dropped(skb, pkt, (-verdict) as u8, Place { direction, point });
        return TC_ACT_SHOT;
    }
    count(0, direction, pkt.len);
    verdict
}

const FIRST_REASON: u8 = DropReason::InvalidSourceMac as u8;

/// Where a packet was dropped.
#[derive(Clone, Copy)]
pub struct Place {
    direction: u8,
    point: u8,
}

#[inline(always)]
fn count(reason: u8, direction: u8, bytes: u32) {
    if let Some(counters) = maps::METRICS.get_ptr_mut(metrics::slot(reason, direction)) {
        // SAFETY: this processor's own counters.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += bytes as u64;
        }
    }
}

#[inline(never)]
fn dropped(skb: Skb, pkt: &Pkt, reason: u8, place: Place) -> i32 {
    count(reason, place.direction, pkt.len);
    let Some(mut entry) = reserve() else { return 0 };
    let event = entry.write(blank(skb, pkt));
    event.kind = kind::DROP;
    event.reason = reason;
    event.direction = place.direction;
    event.point = place.point;
    if pkt.marks & NOTED != 0
        && let Some(scratch) = maps::SCRATCH.get_ptr(0)
    {
        // SAFETY: this processor's notes about this packet.
        describe(event, unsafe { &*scratch });
    }
    submit(entry);
    0
}

/// Reports a flow's first packet, with the verdicts that allowed it.
#[inline(never)]
pub fn trace_new(skb: Skb, pkt: &Pkt, scratch: &Scratch, point: u8) -> i32 {
    let Some(mut entry) = reserve() else { return 0 };
    let event = entry.write(blank(skb, pkt));
    event.kind = kind::TRACE;
    event.reason = trace_reason::NEW;
    event.point = point;
    event.packets = 1;
    describe(event, scratch);
    submit(entry);
    0
}

/// Reports a later packet of a flow.
#[inline(never)]
pub fn trace_known(skb: Skb, pkt: &Pkt, flow: &FlowEntry, point: u8) -> i32 {
    let Some(mut entry) = reserve() else { return 0 };
    let event = entry.write(blank(skb, pkt));
    event.kind = kind::TRACE;
    event.point = point;
    event.reply = (flow.flags & flags::REPLY != 0) as u8;
    event.reason = if event.reply != 0 { trace_reason::REPLY } else { trace_reason::ESTABLISHED };
    event.packets = flow.packets as u32;
    identify(event, flow);
    translate(event, flow);
    submit(entry);
    0
}

#[inline(always)]
fn identify(event: &mut Event, flow: &FlowEntry) {
    event.src_identity = flow.src_identity;
    event.dst_identity = flow.dst_identity;
    event.src_endpoint = flow.src_endpoint;
    event.dst_endpoint = flow.dst_endpoint;
}

#[inline(always)]
fn translate(event: &mut Event, flow: &FlowEntry) {
    if flow.flags & flags::NAT_DST != 0 {
        event.dst_orig = event.dst;
        event.dst = flow.nat_dst;
        event.dport = flow.nat_dport;
    }
    if flow.flags & flags::NAT_SRC != 0 {
        event.src_xlated = flow.nat_src;
    }
}

#[inline(always)]
fn describe(event: &mut Event, scratch: &Scratch) {
    identify(event, &scratch.forward);
    translate(event, &scratch.forward);
    event.egress = scratch.egress;
    event.ingress = scratch.ingress;
}

#[inline(always)]
fn blank(skb: Skb, pkt: &Pkt) -> Event {
    let none = Verdict { provenance: 0, outcome: 0, match_type: 0, pad: 0 };
    let mut event = Event {
        // SAFETY: no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        src: pkt.key.src,
        dst: pkt.key.dst,
        src_xlated: Addr::NONE,
        dst_orig: Addr::NONE,
        sport: pkt.key.sport,
        dport: pkt.key.dport,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        src_identity: 0,
        dst_identity: 0,
        src_endpoint: 0,
        dst_endpoint: 0,
        ifindex: skb.ifindex(),
        len: pkt.len,
        packets: 1,
        egress: none,
        ingress: none,
        kind: 0,
        point: 0,
        reason: 0,
        proto: pkt.key.proto,
        tcp_flags: pkt.flags,
        icmp_code: pkt.code,
        reply: 0,
        direction: 0,
    };
    if let Some(mac) = skb.read::<[u8; 6]>(0) {
        event.dst_mac = mac;
    }
    if let Some(mac) = skb.read::<[u8; 6]>(6) {
        event.src_mac = mac;
    }
    event
}

#[inline(always)]
fn reserve() -> Option<RingBufEntry<Event>> {
    let entry = maps::EVENTS.reserve::<Event>(0);
    if entry.is_none()
        && let Some(lost) = maps::EVENTS_LOST.get_ptr_mut(0)
    {
        // SAFETY: this processor's own counter.
        unsafe { *lost += 1 };
    }
    entry
}

/// Wakes the reader when much is unread, and again when as much again is: it looks by itself every few milliseconds, and a
/// wake-up costs the packet more than all the rest of it. One at each event, for a reader that is behind and therefore awake,
/// would make new connections several times as dear.
#[inline(always)]
fn submit(entry: RingBufEntry<Event>) {
    const RECORD: u64 = (size_of::<Event>() + HEADER) as u64;
    let unread = maps::EVENTS.query(BPF_RB_AVAIL_DATA as u64);
    let step = config::EVENT_WAKEUP.load() as u64;
    let crossed = unread >= step && unread.checked_rem(step).is_some_and(|past| past < RECORD);
    entry.submit(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64);
}

/// What the ring buffer adds to each record.
const HEADER: usize = 8;
