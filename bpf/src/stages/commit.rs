// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Remembering a decision.

use crate::config;
use crate::epochs;
use crate::events;
use crate::flows;
use crate::maps;
use crate::packet::{From, Packet};
use crate::pkt::{Pkt, REPLY};
use crate::record;
use crate::scratch::{HAS_ALIAS, NOT_REMEMBERED, REPLACES, Scratch};
use crate::verdict::{Stage, drop};
use abi::DropReason;
use abi::event::point;
use abi::flow::{Flow, FlowKey, Half, SETTLED, State, action, flags, half, proto, tcp};
use abi::rings;
use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};

/// There is one already (`errno.h`).
pub const EEXIST: i32 = 17;
/// Places of a ring that are looked through for one that can be given up, when the table is full.
const PLACES_TRIED: u32 = 8;

/// Policy refuses: a flow that was open stays refused, in both directions, until it ends.
#[inline(never)]
pub fn refuse(pkt: &Pkt, scratch: &Scratch) -> i32 {
    if !scratch.is_known() || (scratch.notes(NOT_REMEMBERED) && !pkt.is_icmp_error()) {
        return 0;
    }
    if let Some(flow) = flows::lookup(pkt) {
        flow.flags |= flags::REFUSED;
        let mine = if pkt.is(REPLY) { &mut flow.reply } else { &mut flow.forward };
        mine.last_seen = epochs::now();
    }
    0
}

/// Remembers the decision and reports a new flow.
#[inline(always)]
pub fn store<P: Packet>(packet: P, pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    let news = complete(pkt, scratch);
    flows::follow(packet, pkt, &scratch.key, &mut scratch.flow);
    if !scratch.notes(NOT_REMEMBERED) {
        if !scratch.is_known() {
            make_way(pkt, scratch);
        }
        if takes_over(pkt, scratch) { renew(scratch)? } else { insert(scratch)? }
    }
    report(packet, pkt, scratch, news);
    Ok(())
}

/// The record's history, with this packet, and what its decision stands on. Returns the TCP flags that no event has reported yet.
#[inline(never)]
fn complete(pkt: &mut Pkt, scratch: &mut Scratch) -> u8 {
    let now = epochs::now();
    if scratch.is_known() {
        carry_over(pkt, scratch);
    } else {
        begin(scratch, now);
    }
    let news = flows::account(pkt, &mut scratch.flow, now);
    let mine = if pkt.is(REPLY) { &mut scratch.flow.reply } else { &mut scratch.flow.forward };
    mine.tcp_reported |= news;
    scratch.flow.tag = scratch.key.tag();
    pkt.tag = scratch.flow.tag;
    epochs::seal(&mut scratch.flow, scratch.generation);
    news
}

#[inline(always)]
fn report<P: Packet>(packet: P, pkt: &Pkt, scratch: &Scratch, news: u8) {
    if config::on(&config::TRACE_EVENTS) && (!scratch.is_known() || news & (tcp::FIN | tcp::RST) != 0) {
        events::trace_decided(packet, pkt, scratch, point_of(scratch, pkt));
    }
}

/// Observation point of a packet that goes on its way.
#[inline(always)]
fn point_of(scratch: &Scratch, pkt: &Pkt) -> u8 {
    if pkt.from != From::STACK {
        leaving_point(record::half_of(&scratch.flow, pkt.is(REPLY)).action)
    } else {
        point::TO_ENDPOINT
    }
}

/// Observation point of a packet that leaves a pod.
#[inline(always)]
pub fn leaving_point(action: u8) -> u8 {
    match action {
        action::LOCAL => point::TO_ENDPOINT,
        action::TUNNEL => point::TO_OVERLAY,
        action::NEIGH => point::TO_NETWORK,
        _ => point::TO_STACK,
    }
}

/// The first decision about a flow.
#[inline(always)]
fn begin(scratch: &mut Scratch, now: u32) {
    let flow = &mut scratch.flow;
    // 0 stands for "no record".
    flow.created = now | (now == 0) as u32;
    for half in [&mut flow.forward, &mut flow.reply] {
        half.last_seen = now;
        half.last_report = now;
    }
}

/// A renewed decision keeps the flow's history, as it is at this moment.
#[inline(always)]
fn carry_over(pkt: &Pkt, scratch: &mut Scratch) {
    let latest = match flows::lookup(pkt) {
        Some(flow) => flow,
        None => &mut scratch.known,
    };
    scratch.flow.created = latest.created;
    history(&mut scratch.flow.forward, &latest.forward);
    history(&mut scratch.flow.reply, &latest.reply);
}

#[inline(always)]
fn history(half: &mut Half, known: &Half) {
    half.bytes = known.bytes;
    half.packets = known.packets;
    half.last_seen = known.last_seen;
    half.last_report = known.last_report;
    half.tcp_seen = known.tcp_seen;
    half.tcp_reported = known.tcp_reported;
    half.flags |= known.flags & half::CONFIRMED;
    half.expected = known.expected;
    half.place = known.place;
}

/// Puts the renewed record in the place of the old one, at once: who reads it sees the one or the other.
#[inline(always)]
fn renew(scratch: &mut Scratch) -> Stage {
    if maps::FLOWS.insert(&scratch.key, &scratch.flow, BPF_EXIST as u64).is_err()
        && maps::FLOWS.insert(&scratch.key, &scratch.flow, 0).is_err()
    {
        return drop(DropReason::CtMapInsertionFailed);
    }
    if scratch.known.is_translated() {
        forget_alias(scratch);
    }
    Ok(())
}

/// Removes the alias that the flow had before, unless it is the one that it has now.
#[inline(never)]
fn forget_alias(scratch: &mut Scratch) -> i32 {
    scratch.answer = scratch.known.answer(&scratch.key);
    scratch.alias_key = record::alias_key(&scratch.answer);
    scratch.answer = scratch.flow.answer(&scratch.key);
    if scratch.alias_key != record::alias_key(&scratch.answer)
        && flows::get(&scratch.alias_key).is_some_and(|alias| alias.target(&scratch.alias_key) == scratch.key)
    {
        let _ = maps::FLOWS.remove(&scratch.alias_key);
    }
    0
}

/// Whether there is a record under the flow's key, which it goes on in or begins anew.
#[inline(always)]
fn takes_over(pkt: &Pkt, scratch: &Scratch) -> bool {
    scratch.is_known() || (scratch.notes(REPLACES) && pkt.key == scratch.key)
}

/// What a new flow takes the place of goes.
#[inline(always)]
fn make_way(pkt: &Pkt, scratch: &mut Scratch) {
    if scratch.notes(REPLACES) && !takes_over(pkt, scratch) {
        flows::remove(&pkt.key);
    }
    enlist(scratch);
    if scratch.oldest.proto != 0 && scratch.oldest.alias != SETTLED && scratch.oldest != scratch.key {
        displace(&scratch.oldest);
    }
}

/// Writes the record of a new flow.
#[inline(always)]
fn insert(scratch: &mut Scratch) -> Stage {
    let mut failure = try_insert(&scratch.key, &scratch.flow);
    if failure != 0 && failure != EEXIST && make_room(scratch) {
        failure = try_insert(&scratch.key, &scratch.flow);
    }
    if failure == 0 {
        return Ok(());
    }
    // Another processor may just have decided about a packet of this flow.
    let adopted = failure == EEXIST && adopt(scratch);
    if scratch.notes(HAS_ALIAS) && !(adopted && record::answers_as(&scratch.flow, &scratch.key, &scratch.alias_key)) {
        let _ = maps::FLOWS.remove(&scratch.alias_key);
    }
    if adopted { Ok(()) } else { drop(DropReason::CtMapInsertionFailed) }
}

/// 0, or why the kernel does not take the record or alias.
#[inline(never)]
pub fn try_insert(key: &FlowKey, flow: &Flow) -> i32 {
    match maps::FLOWS.insert(key, flow, BPF_NOEXIST as u64) {
        Ok(()) => 0,
        Err(error) => -(error as i32),
    }
}

/// Takes over what is decided already. False when it is not there any more, or is the decision about another flow.
#[inline(never)]
fn adopt(scratch: &mut Scratch) -> bool {
    match flows::get(&scratch.key) {
        Some(flow) if is_same(flow, &scratch.flow) => {
            scratch.flow = *flow;
            true
        }
        _ => false,
    }
}

/// Whether both are of the same ends, and opened by the same one.
#[inline(always)]
fn is_same(one: &Flow, other: &Flow) -> bool {
    one.has(flags::OPENED_BY_B) == other.has(flags::OPENED_BY_B)
        && (one.src_identity, one.dst_identity) == (other.src_identity, other.dst_identity)
        && (one.src_endpoint, one.dst_endpoint) == (other.src_endpoint, other.dst_endpoint)
}

#[inline(always)]
fn place(ring: u32, at: u32) -> Option<*mut FlowKey> {
    maps::OPENINGS.get_ptr_mut(rings::place(ring, at, config::OPENINGS.load())?)
}

#[inline(always)]
fn stack_place(height: u32) -> Option<*mut FlowKey> {
    maps::OPENINGS.get_ptr_mut(rings::stack_place(height, config::OPENINGS.load())?)
}

/// Puts the flow into its ring, and notes the one whose place it takes.
#[inline(never)]
fn enlist(scratch: &mut Scratch) -> i32 {
    let ring = scratch.flow.ring();
    let Some(next) = maps::OPENINGS_NEXT.get_ptr_mut(ring) else { return 0 };
    // SAFETY: array values are never freed. Two processors that take one place at once leave one flow out of the ring, which then
    // ends by its age alone.
    let at = unsafe { *next };
    let Some(place) = place(ring, at) else { return 0 };
    // SAFETY: as above.
    unsafe {
        *next = at.wrapping_add(1);
        scratch.oldest = *place;
        *place = scratch.key;
    }
    scratch.flow.forward.place = at.wrapping_add(1);
    0
}

/// A flow that has lost its place in its ring: if nobody has answered it, it goes.
#[inline(always)]
fn displace(key: &FlowKey) {
    let Some(flow) = flows::get(key) else { return };
    match flow.state(key.proto) {
        State::Opening if !flow.has(flags::REFUSED) => {
            flows::remove(key);
        }
        State::Established if key.proto != proto::TCP => lay_by(key),
        State::Closed => lay_by(key),
        _ => {}
    }
}

/// Notes a flow that can be given up when the table is full.
#[inline(always)]
fn lay_by(key: &FlowKey) {
    let Some(height) = maps::OPENINGS_NEXT.get_ptr_mut(rings::STACK) else { return };
    // SAFETY: array values are never freed. Of two processors that take one place at once one overwrites the other's: that flow ends
    // by its age alone.
    unsafe {
        if let Some(place) = stack_place(*height) {
            *height = (*height).wrapping_add(1);
            *place = *key;
        }
    }
}

/// The table is full: who opens a flow gives up one of their own, or one of somebody's who has very many.
#[inline(never)]
pub fn make_room(scratch: &mut Scratch) -> bool {
    let ring = scratch.flow.ring();
    let Some(next) = maps::OPENINGS_NEXT.get_ptr(ring) else { return false };
    // SAFETY: array values are never freed.
    let next = unsafe { *next };
    // Backwards: the latest is the likeliest to be still opening.
    for offset in 0..PLACES_TRIED {
        if look_up_place(ring, next.wrapping_sub(1 + offset), scratch) && give_up(&scratch.oldest, false) {
            return true;
        }
    }
    for _ in 0..PLACES_TRIED {
        if take_laid_by(scratch) && give_up(&scratch.oldest, true) {
            return true;
        }
    }
    false
}

/// Removes a flow that nobody has answered, or that has ended; also one that is answered, but no TCP connection. Whether it did.
#[inline(always)]
fn give_up(key: &FlowKey, answered: bool) -> bool {
    let Some(flow) = flows::get(key) else { return false };
    let spare = match flow.state(key.proto) {
        State::Opening => !flow.has(flags::REFUSED),
        State::Closed => true,
        State::Established => answered && key.proto != proto::TCP && !flow.has(flags::REFUSED),
    };
    if spare {
        flows::remove(key);
    }
    spare
}

/// Takes the flow that was laid by last; false when there is none.
#[inline(never)]
fn take_laid_by(scratch: &mut Scratch) -> bool {
    let Some(height) = maps::OPENINGS_NEXT.get_ptr_mut(rings::STACK) else { return false };
    // SAFETY: as in `lay_by`; two processors that take the same one find it gone the second time.
    unsafe {
        let Some(place) = stack_place((*height).wrapping_sub(1)) else { return false };
        scratch.oldest = *place;
        if scratch.oldest.proto == 0 {
            return false;
        }
        (*place).proto = 0;
        *height = (*height).wrapping_sub(1);
    }
    scratch.oldest != scratch.key
}

/// Notes the flow at a place of a ring; false when it is this one or none.
#[inline(never)]
fn look_up_place(ring: u32, at: u32, scratch: &mut Scratch) -> bool {
    let Some(place) = place(ring, at) else { return false };
    // SAFETY: array values are never freed.
    scratch.oldest = unsafe { *place };
    scratch.oldest.alias = 0;
    scratch.oldest.proto != 0 && scratch.oldest != scratch.key
}
