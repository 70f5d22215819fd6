// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The flow table: finding a packet's flow, judging whether its decision still stands, and keeping its connection state.

use crate::config;
use crate::epochs;
use crate::events;
use crate::maps;
use crate::packet::Packet;
use crate::pkt::{CLASH, FROM_B, KNOWN, OCCUPIED, Pkt, REPLY};
use crate::record::{alias_key, answers_as, half_of};
use abi::flow::{Flow, FlowKey, SETTLED, flags, half, origin, proto, tcp};
use abi::{identity, rings};

/// TCP flags whose first sight is reported (`monitor-aggregation-flags`).
const REPORTED: u8 = tcp::SYN | tcp::FIN | tcp::RST;
/// TCP flags by which the first segment of a connection is known.
const OPENING: u8 = tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN;

/// The packet's flow, if it is known and its decision stands for this packet. Notes in any case under which key its record is.
#[inline(always)]
pub fn find(pkt: &mut Pkt) -> Option<&'static mut Flow> {
    name(pkt);
    let flow = record(pkt)?;
    pkt.tag = pkt.key.tag();
    let mine = half_of(flow, pkt.is(REPLY));
    let stands = mine.origin == pkt.origin
        && epochs::stands(flow)
        && !flow.has(flags::REFUSED)
        && came_by_its_tunnel(pkt, flow)
        && flow.tag == pkt.tag
        && !is_opening(pkt, flow);
    if stands { Some(flow) } else { None }
}

/// Whether there is a record of the packet's flow, which is noted.
#[inline(never)]
pub fn is_known(pkt: &mut Pkt) -> bool {
    name(pkt);
    record(pkt).is_some()
}

/// Notes under which key the record is, if there is none of a translated flow.
#[inline(always)]
fn name(pkt: &mut Pkt) {
    let (key, from_b) = pkt.tuple.key();
    pkt.key = key;
    pkt.marks |= if from_b { FROM_B } else { 0 };
}

/// The record of the flow that has the packet's key, seen from the packet's side, and in which direction.
#[inline(always)]
pub fn record(pkt: &mut Pkt) -> Option<&'static mut Flow> {
    match get(&pkt.key) {
        Some(flow) if !answers_elsewhere(pkt, flow) => {
            pkt.marks |= KNOWN;
            pkt.marks |= if flow.is_reply(pkt.is(FROM_B)) { REPLY } else { 0 };
            Some(flow)
        }
        found => {
            pkt.marks |= if found.is_some() { OCCUPIED } else { 0 };
            find_alias(pkt)
        }
    }
}

/// Whether replies of this flow have another tuple than this packet, which looks like one.
#[inline(always)]
fn answers_elsewhere(pkt: &Pkt, flow: &Flow) -> bool {
    flow.is_translated() && flow.is_reply(pkt.is(FROM_B)) && !answers_as_asked(pkt, flow)
}

/// What is translated into itself has no alias.
#[inline(always)]
fn answers_as_asked(pkt: &Pkt, flow: &Flow) -> bool {
    answers_as(flow, &pkt.key, &pkt.key)
}

/// The flow whose replies have this packet's tuple.
#[inline(never)]
fn find_alias(pkt: &mut Pkt) -> Option<&'static mut Flow> {
    // In place: the stack has no room for three keys.
    pkt.key.alias = 1;
    let flow = follow_alias(pkt);
    pkt.key.alias = 0;
    flow
}

#[inline(always)]
fn follow_alias(pkt: &mut Pkt) -> Option<&'static mut Flow> {
    let alias = get(&pkt.key)?;
    if !alias.is_reply(pkt.is(FROM_B)) {
        pkt.marks |= CLASH;
        return None;
    }
    let target = alias.target(&pkt.key);
    let flow = get(&target)?;
    // An alias that was read while it became another's, or that its record has left behind, leads nowhere.
    if alias.tag != pkt.key.tag() || !answers_as(flow, &target, &pkt.key) {
        return None;
    }
    pkt.key = target;
    pkt.marks |= KNOWN | REPLY;
    Some(flow)
}

/// The record under a key.
#[inline(always)]
pub fn get(key: &FlowKey) -> Option<&'static mut Flow> {
    // SAFETY: values of a preallocated table stay mapped. Should the record be recycled for another flow at this very moment, its
    // tag tells (`find`, `send`).
    maps::FLOWS.get_ptr_mut(key).map(|flow| unsafe { &mut *flow })
}

/// The record that `find` has seen, whether its decision stands or not.
#[inline(always)]
pub fn lookup(pkt: &Pkt) -> Option<&'static mut Flow> {
    if pkt.is(KNOWN) { get(&pkt.key) } else { None }
}

/// What comes through the tunnel comes from the node that replies go to, under the identity that was decided about.
#[inline(always)]
fn came_by_its_tunnel(pkt: &Pkt, flow: &Flow) -> bool {
    if pkt.origin & origin::TUNNEL == 0 {
        return true;
    }
    let reply = pkt.is(REPLY);
    let sender = if reply { flow.dst_identity } else { flow.src_identity };
    is_told_as(sender, pkt.vni) && half_of(flow, !reply).hop == pkt.node
}

/// Whether an identity travels under that number: a node does not know that to others it is the API server's.
#[inline(always)]
fn is_told_as(sender: u32, vni: u32) -> bool {
    sender == vni || (vni == identity::REMOTE_NODE && sender == identity::KUBE_APISERVER)
}

/// Whether it is the first segment of another connection than the one that is known: the other end opens it, or the known one has ended, or
/// was never established and its opener has said goodbye.
#[inline(always)]
pub fn is_opening(pkt: &Pkt, flow: &Flow) -> bool {
    let given_up = flow.forward.tcp_seen & tcp::FIN != 0 && flow.forward.flags & half::CONFIRMED == 0;
    pkt.tuple.proto == proto::TCP
        && pkt.flags & OPENING == tcp::SYN
        && (pkt.is(REPLY) || given_up || flow.has_ended(proto::TCP))
}

/// Counts the packet, follows the connection's state and reports what is new.
#[inline(always)]
pub fn touch<P: Packet>(packet: P, pkt: &Pkt, flow: &mut Flow, point: u8) {
    let now = epochs::now();
    let news = account(pkt, flow, now);
    follow(packet, pkt, &pkt.key, flow);
    if config::on(&config::TRACE_EVENTS) {
        let mine = if pkt.is(REPLY) { &mut flow.reply } else { &mut flow.forward };
        if news != 0 || now.wrapping_sub(mine.last_report) >= config::EVENT_INTERVAL.load() {
            mine.tcp_reported |= news;
            mine.last_report = now;
            events::trace_known(packet, pkt, flow, point);
        }
    }
}

/// Counts the packet and follows the connection's state. Returns the TCP flags that no event has reported yet.
///
/// The other direction's half is looked at only where it matters: its packets may pass on another processor, which then has to give
/// that memory away.
#[inline(always)]
pub fn account(pkt: &Pkt, flow: &mut Flow, now: u32) -> u8 {
    let (is_tcp, reply) = (pkt.tuple.proto == proto::TCP, pkt.is(REPLY));
    let mut news = if is_tcp { pkt.flags & REPORTED } else { 0 };
    if news != 0 {
        news &= !(flow.forward.tcp_reported | flow.reply.tcp_reported);
    }
    let mine = if reply { &mut flow.reply } else { &mut flow.forward };
    mine.packets += 1;
    mine.bytes += pkt.len as u64;
    mine.last_seen = now;
    if is_tcp {
        // Who goes on has not reset the connection, and who opens it has not said goodbye: somebody else said so.
        if pkt.flags & tcp::RST == 0 {
            mine.tcp_seen &= !tcp::RST;
        }
        if pkt.flags & tcp::SYN != 0 {
            mine.tcp_seen &= !tcp::FIN;
        }
        mine.tcp_seen |= pkt.flags;
    }
    news
}

/// Follows how a connection is opened. It stands when its opener acknowledges what it was answered, which nobody can who has not seen it: under
/// forged addresses none is established.
#[inline(always)]
pub fn follow<P: Packet>(packet: P, pkt: &Pkt, key: &FlowKey, flow: &mut Flow) {
    const FLAGS: u8 = tcp::SYN | tcp::ACK | tcp::RST;
    if pkt.tuple.proto != proto::TCP || flow.forward.flags & half::CONFIRMED != 0 {
        return;
    }
    let number = |at: usize| packet.read::<u32>(pkt.l4 as usize + at).map(u32::from_be);
    if pkt.is(REPLY) {
        if pkt.flags & tcp::SYN != 0
            && let Some(sequence) = number(4)
        {
            flow.expect(sequence.wrapping_add(1));
        }
    } else if flow.reply.packets != 0
        && pkt.flags & FLAGS == tcp::ACK
        && number(8).is_some_and(|ack| flow.is_proved_by(ack))
    {
        flow.forward.flags |= half::CONFIRMED;
        settle(key, flow);
    }
}

/// Notes in the flow's place in its endpoint's ring, if it still has it, that it is no opening one any more: whoever takes that place
/// need not look for its record, which is cold memory by then.
#[inline(never)]
fn settle(key: &FlowKey, flow: &Flow) -> i32 {
    let place = rings::place(flow.ring(), flow.forward.place.wrapping_sub(1), config::OPENINGS.load());
    if let Some(place) = place.and_then(|place| maps::OPENINGS.get_ptr_mut(place)) {
        // SAFETY: array values are never freed. A flow that takes the place at this moment may be taken for a settled one, which then ends
        // by its age alone.
        unsafe {
            if flow.forward.place != 0 && *place == *key {
                (*place).alias = SETTLED;
            }
        }
    }
    0
}

/// Removes a record and its alias.
#[inline(never)]
pub fn remove(key: &FlowKey) -> i32 {
    let Some(flow) = get(key) else { return 0 };
    if flow.is_translated() {
        let alias = alias_key(&flow.answer(key));
        // An alias that belongs to another record by now stays.
        if get(&alias).is_some_and(|found| found.target(&alias) == *key) {
            let _ = maps::FLOWS.remove(&alias);
        }
    }
    let _ = maps::FLOWS.remove(key);
    0
}
