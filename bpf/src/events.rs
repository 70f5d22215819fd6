// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Telling user space, and counting. The kernel never waits for user space: a full buffer costs the event, and is counted.

use crate::config;
use crate::maps::{self, EventRing};
use crate::packet::Packet;
use crate::pkt::{NOTED, Pkt, REPLY};
use crate::record;
use crate::rewrite;
use crate::scratch::{self, IS_REPLY, Scratch};
use abi::event::{Event, Verdict, kind, outcome, trace_reason};
use abi::flow::{Flow, FlowKey};
use abi::policy::{EGRESS, INGRESS};
use abi::{Addr, metrics};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_query};
use aya_ebpf::maps::ring_buf::RingBufEntry;

/// Where a packet was dropped: by whose program, and at which point.
#[derive(Clone, Copy)]
pub struct Place {
    pub direction: u8,
    pub point: u8,
}

/// Counts a packet, under the reason of its drop or 0.
#[inline(always)]
pub fn count(reason: u8, direction: u8, bytes: u32) {
    if let Some(counters) = maps::METRICS.get_ptr_mut(metrics::slot(reason, direction)) {
        // SAFETY: this processor's own counters.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += bytes as u64;
        }
    }
}

#[inline(never)]
pub fn dropped<P: Packet>(packet: P, pkt: &Pkt, reason: u8, place: Place) -> i32 {
    let notes = if pkt.is(NOTED) { scratch::present() } else { None };
    let refused = notes.as_ref().and_then(|notes| refused_in(&notes.scratch));
    let direction = refused.unwrap_or(place.direction);
    count(reason, direction, pkt.len);
    let Some(mut room) = reserve() else { return 0 };
    let event = room.entry.write(blank(packet, pkt));
    event.kind = kind::DROP;
    event.reason = reason;
    event.direction = direction;
    event.point = place.point;
    if let Some(notes) = notes {
        describe(event, &notes.scratch);
    }
    submit(room);
    0
}

/// The direction of the policy that refused the packet: one program asks both ends' where both are pods of this node.
#[inline(always)]
fn refused_in(scratch: &Scratch) -> Option<u8> {
    if scratch.egress.outcome == outcome::DENY {
        return Some(EGRESS);
    }
    (scratch.ingress.outcome == outcome::DENY).then_some(INGRESS)
}

/// Reports a packet that has been decided about, with the verdicts that allowed it.
#[inline(never)]
pub fn trace_decided<P: Packet>(packet: P, pkt: &Pkt, scratch: &Scratch, point: u8) -> i32 {
    let Some(mut room) = reserve() else { return 0 };
    let event = room.entry.write(blank(packet, pkt));
    event.kind = kind::TRACE;
    event.reason = match (scratch.is_known(), pkt.is(REPLY)) {
        (false, _) => trace_reason::NEW,
        (true, false) => trace_reason::ESTABLISHED,
        (true, true) => trace_reason::REPLY,
    };
    event.point = point;
    event.packets = record::half_of(&scratch.flow, pkt.is(REPLY)).packets as u32;
    describe(event, scratch);
    submit(room);
    0
}

/// Reports a later packet of a flow.
#[inline(never)]
pub fn trace_known<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, point: u8) -> i32 {
    let Some(mut room) = reserve() else { return 0 };
    let event = room.entry.write(blank(packet, pkt));
    event.kind = kind::TRACE;
    event.point = point;
    event.reply = pkt.is(REPLY) as u8;
    event.reason = if event.reply != 0 { trace_reason::REPLY } else { trace_reason::ESTABLISHED };
    event.packets = record::half_of(flow, pkt.is(REPLY)).packets as u32;
    let opener = (flow.src_identity, flow.src_endpoint);
    let target = (flow.dst_identity, flow.dst_endpoint);
    identify(event, opener, target);
    translate(event, flow, &pkt.key);
    submit(room);
    0
}

/// Who sends and who receives, of a packet of the direction that the event names.
#[inline(always)]
fn identify(event: &mut Event, opener: (u32, u16), target: (u32, u16)) {
    let (src, dst) = if event.reply != 0 { (target, opener) } else { (opener, target) };
    (event.src_identity, event.src_endpoint) = src;
    (event.dst_identity, event.dst_endpoint) = dst;
}

#[inline(always)]
fn translate(event: &mut Event, flow: &Flow, key: &FlowKey) {
    if !flow.is_rewritten() {
        return;
    }
    if flow.is_returned() && event.reply == 0 {
        event.dst_orig = flow.nat_dst;
    }
    let translation = rewrite::of(flow, key, event.reply != 0);
    if let Some((dst, dport)) = translation.dst {
        event.dst_orig = event.dst;
        event.dst = dst;
        event.dport = dport;
    }
    if let Some((src, _)) = translation.src {
        event.src_xlated = src;
    }
}

#[inline(always)]
fn describe(event: &mut Event, scratch: &Scratch) {
    event.reply = scratch.notes(IS_REPLY) as u8;
    let target = (scratch.target.identity, scratch.target.id);
    let opener = (scratch.opener.identity, scratch.opener.id);
    identify(event, opener, target);
    // Whoever sends is known before which way round the flow is.
    (event.src_identity, event.src_endpoint) = (scratch.sender.identity, scratch.sender.id);
    translate(event, &scratch.flow, &scratch.key);
    event.egress = scratch.egress;
    event.ingress = scratch.ingress;
}

#[inline(always)]
fn blank<P: Packet>(packet: P, pkt: &Pkt) -> Event {
    let none = Verdict { provenance: 0, outcome: 0, match_type: 0, pad: 0 };
    let mut event = Event {
        // SAFETY: no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        src: pkt.tuple.src,
        dst: pkt.tuple.dst,
        src_xlated: Addr::NONE,
        dst_orig: Addr::NONE,
        sport: pkt.tuple.sport,
        dport: pkt.tuple.dport,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        src_identity: 0,
        dst_identity: 0,
        src_endpoint: 0,
        dst_endpoint: 0,
        ifindex: packet.ifindex(),
        len: pkt.len,
        packets: 1,
        egress: none,
        ingress: none,
        kind: 0,
        point: 0,
        reason: 0,
        proto: pkt.tuple.proto,
        tcp_flags: pkt.flags,
        icmp_code: pkt.code,
        reply: 0,
        direction: 0,
    };
    if let Some(mac) = packet.read::<[u8; 6]>(0) {
        event.dst_mac = mac;
    }
    if let Some(mac) = packet.read::<[u8; 6]>(6) {
        event.src_mac = mac;
    }
    event
}

/// Room for an event in this processor's ring: of processors that share one, each takes a while to fetch what the other has written.
pub struct Room {
    pub entry: RingBufEntry<Event>,
    ring: &'static EventRing,
}

#[inline(always)]
fn reserve() -> Option<Room> {
    reserve_in(ring())
}

/// Room for what packets' events are never lost for: half of the ring is theirs alone.
#[inline(always)]
pub fn reserve_in_half() -> Option<Room> {
    reserve_in(ring().filter(|ring| query(ring, BPF_RB_AVAIL_DATA) < query(ring, BPF_RB_RING_SIZE) / 2))
}

/// This processor's ring.
#[inline(always)]
fn ring() -> Option<&'static EventRing> {
    // SAFETY: no preconditions.
    maps::EVENTS.get(unsafe { bpf_get_smp_processor_id() })
}

#[inline(always)]
fn reserve_in(ring: Option<&'static EventRing>) -> Option<Room> {
    let room = ring.and_then(|ring| Some(Room { entry: ring.reserve(0)?, ring }));
    if room.is_none()
        && let Some(lost) = maps::EVENTS_LOST.get_ptr_mut(0)
    {
        // SAFETY: this processor's own counter.
        unsafe { *lost += 1 };
    }
    room
}

#[inline(always)]
fn query(ring: &EventRing, what: u32) -> u64 {
    let map = core::ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: the kernel knows a map by its address.
    unsafe { bpf_ringbuf_query(map, what as u64) }
}

/// Wakes the reader when much is unread, and again when as much again is: it looks by itself every few milliseconds, and a
/// wake-up costs the packet more than all the rest of it. One at each event, for a reader that is behind and therefore awake,
/// would make new connections several times as dear.
#[inline(always)]
pub fn submit(Room { entry, ring }: Room) {
    const RECORD: u64 = (size_of::<Event>() + HEADER) as u64;
    let unread = query(ring, BPF_RB_AVAIL_DATA);
    let step = config::EVENT_WAKEUP.load() as u64;
    let crossed = unread >= step && unread.checked_rem(step).is_some_and(|past| past < RECORD);
    entry.submit(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64);
}

/// What a ring buffer adds to each record.
const HEADER: usize = 8;
