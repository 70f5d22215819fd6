// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Remembering a decision in both directions, and renewing one that has grown old.

use crate::config;
use crate::conntrack::{is_reopened, lookup, now, seal};
use crate::ctx::Skb;
use crate::parse::Pkt;
use crate::scratch::Scratch;
use crate::{events, ipcache, maps, policy};
use abi::flow::{FROM_POD, FlowEntry, FlowKey, flags, opposite, proto, tcp};
use abi::{DropReason, endpoint};

/// The reply's forward direction is not known: the packet is decided as the first of a flow.
pub const NO_FORWARD: i32 = 1000;

/// Notes what is remembered of the flow; nothing for a connection that has ended and begins anew.
#[inline(never)]
pub fn recall(pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    if let Some(entry) = lookup(pkt)
        && !is_reopened(pkt, entry)
    {
        scratch.known = *entry;
    }
    0
}

/// Policy refuses: whatever was remembered of the flow goes.
#[inline(always)]
pub fn refuse(pkt: &Pkt, verdict: i32) -> i32 {
    if let Some(entry) = lookup(pkt) {
        let other = opposite(&pkt.key, entry);
        let _ = maps::FLOWS.remove(&pkt.key);
        let _ = maps::FLOWS.remove(&other);
    }
    verdict
}

/// Writes both directions and reports a new flow. 0, or minus a drop reason.
#[inline(never)]
pub fn store(skb: Skb, pkt: &Pkt, scratch: &mut Scratch, point: u8) -> i32 {
    let now = now();
    let is_new = scratch.known.created == 0;
    date(&mut scratch.forward, scratch.generation, now);
    carry_over(&mut scratch.forward, &scratch.known);
    scratch.forward.packets += 1;
    scratch.forward.bytes += pkt.len as u64;
    scratch.forward.tcp_seen |= pkt.flags;
    if is_new {
        scratch.forward.last_report = now;
        scratch.forward.tcp_reported = pkt.flags & (tcp::SYN | tcp::FIN | tcp::RST);
    }
    complete_reply(scratch, now);
    let failed = -(DropReason::CtMapInsertionFailed.code() as i32);
    if maps::FLOWS.insert(&scratch.reply_key, &scratch.reply, 0).is_err()
        || maps::FLOWS.insert(&pkt.key, &scratch.forward, 0).is_err()
    {
        return failed;
    }
    if is_new && config::on(&config::TRACE_EVENTS) {
        events::trace_new(skb, pkt, scratch, point);
    }
    0
}

/// The epochs and the time of a decision.
#[inline(always)]
fn date(entry: &mut FlowEntry, generation: u32, now: u32) {
    seal(entry, generation);
    entry.last_seen = now;
    // 0 stands for "no entry".
    entry.created = now | (now == 0) as u32;
    entry.last_report = now;
}

/// A renewed decision keeps the flow's history.
#[inline(always)]
fn carry_over(entry: &mut FlowEntry, known: &FlowEntry) {
    if known.created == 0 {
        return;
    }
    entry.created = known.created;
    entry.packets = known.packets;
    entry.bytes = known.bytes;
    entry.tcp_seen = known.tcp_seen;
    entry.tcp_reported = known.tcp_reported;
    entry.last_report = known.last_report;
    entry.flags |= known.flags & (flags::ESTABLISHED | flags::CLOSING);
}

/// What the forward direction tells of the reply.
#[inline(always)]
fn complete_reply(scratch: &mut Scratch, now: u32) {
    let forward = &scratch.forward;
    let reply = &mut scratch.reply;
    reply.flags |= flags::REPLY;
    reply.src_identity = forward.dst_identity;
    reply.dst_identity = forward.src_identity;
    reply.src_endpoint = forward.dst_endpoint;
    reply.dst_endpoint = forward.src_endpoint;
    reply.provenance = forward.provenance;
    reply.service = forward.service;
    // A reply that a local pod sends must come in on that pod's interface.
    reply.in_ifindex = if scratch.reply_key.hook == FROM_POD { forward.out_ifindex } else { 0 };
    reply.peer_slot = forward.peer_slot;
    date(reply, scratch.generation, now);
    if forward.packets > 1
        && let Some(entry) = maps::FLOWS.get_ptr(&scratch.reply_key)
    {
        // SAFETY: values of a preallocated table stay mapped.
        let old = unsafe { &*entry };
        if old.flags & flags::REPLY != 0 {
            carry_over(reply, old);
        }
    }
}

/// Renews a reply whose decision has grown old: the forward direction is asked again, since a reply is allowed because the
/// forward direction is. 0, minus a drop reason, or [`NO_FORWARD`].
#[inline(never)]
pub fn renew_reply(pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    let Some(reply) = lookup(pkt) else { return NO_FORWARD };
    let forward_key = opposite(&pkt.key, reply);
    let Some(forward) = maps::FLOWS.get_ptr_mut(&forward_key) else { return NO_FORWARD };
    // SAFETY: values of a preallocated table stay mapped.
    let forward = unsafe { &mut *forward };
    if forward.flags & flags::REPLY != 0 {
        return NO_FORWARD;
    }
    let verdict = ask_again(pkt, scratch, &forward_key, forward);
    if verdict < 0 {
        let _ = maps::FLOWS.remove(&pkt.key);
        let _ = maps::FLOWS.remove(&forward_key);
        return verdict;
    }
    let now = now();
    forward.dst_identity = scratch.forward.dst_identity;
    forward.provenance = scratch.forward.provenance;
    seal(forward, scratch.generation);
    reply.src_identity = forward.dst_identity;
    seal(reply, scratch.generation);
    reply.last_seen = now;
    reply.packets += 1;
    reply.bytes += pkt.len as u64;
    0
}

/// The policy verdict for the forward direction, from what its entry and the present maps say.
#[inline(always)]
fn ask_again(pkt: &Pkt, scratch: &mut Scratch, key: &FlowKey, forward: &FlowEntry) -> i32 {
    scratch.src_flags = 0;
    scratch.src_policy = 0;
    scratch.forward.src_identity = forward.src_identity;
    scratch.forward.src_endpoint = forward.src_endpoint;
    if forward.src_endpoint != 0 {
        // SAFETY: read at once.
        let Some(pod) = (unsafe { maps::LOCALS.get(key.src) }) else { return gone() };
        if pod.id != forward.src_endpoint || pod.flags & endpoint::flags::HOST != 0 {
            return gone();
        }
        scratch.forward.src_identity = pod.identity;
        scratch.src_flags = pod.flags;
        scratch.src_policy = pod.policy;
    }
    let translated = forward.flags & flags::NAT_DST != 0;
    scratch.dst = if translated { forward.nat_dst } else { key.dst };
    scratch.dport = if translated { forward.nat_dport } else { key.dport };
    scratch.forward.dst_endpoint = 0;
    ipcache::resolve_destination(scratch);
    if scratch.forward.dst_endpoint != forward.dst_endpoint {
        return gone();
    }
    // An echo reply answers an echo request: that is the type that policy was asked for.
    let asked = match (pkt.key.proto, pkt.flags) {
        (proto::ICMP, 0) => 8,
        (proto::ICMPV6, 129) => 128,
        (_, other) => other,
    };
    policy::check_as(pkt, asked, scratch)
}

/// A side of the flow is not there any more.
#[inline(always)]
fn gone() -> i32 {
    -(DropReason::StaleOrUnroutableIp.code() as i32)
}
