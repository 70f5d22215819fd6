// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Who the flow is opened to: a local endpoint, the node itself, or an identity from the address cache.

use super::direct;
use crate::addresses;
use crate::config;
use crate::encap;
use crate::ipcache;
use crate::lb::is_unserved;
use crate::maps;
use crate::packet::From;
use crate::pkt::Pkt;
use crate::pods;
use crate::scratch::{DST_IS_HOST, IS_REPLY, NO_MASQUERADE, NO_SERVICE, Party, Scratch};
use crate::verdict::{Stage, Verdict, drop};
use abi::endpoint::flags as endpoint;
use abi::flow::{action, flags as flow};
use abi::ipcache::flags;
use abi::lb::flags as lb;
use abi::{Addr, DropReason, identity};

/// Fills in who the flow is opened to, and how they are reached as far as addresses tell.
#[inline(never)]
pub fn resolve(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    destination(scratch);
    // What is sent where nobody serves must not leave for the world. Pods' addresses are no services', so there is nothing to look up.
    let is_pod = matches!(scratch.flow.forward.action, action::LOCAL | action::TUNNEL);
    if scratch.notes(NO_SERVICE) && !is_pod && is_unserved(&scratch.tuple.dst) {
        return drop(DropReason::ServiceBackendNotFound);
    }
    if scratch.notes(IS_REPLY) && pkt.from == From::TUNNEL && !pkt.is_icmp_error() {
        // Who answers has said who they are.
        scratch.target.identity = scratch.sender.identity;
    }
    scratch.flow.src_identity = scratch.opener.identity;
    scratch.flow.src_endpoint = scratch.opener.id;
    scratch.flow.dst_identity = scratch.target.identity;
    scratch.flow.dst_endpoint = scratch.target.id;
    scratch.flow.peers = peers(pkt, scratch);
    if scratch.is_known() && scratch.target.id != scratch.known.dst_endpoint && scratch.notes(IS_REPLY) {
        // Who answers is not who was spoken to.
        return drop(DropReason::StaleOrUnroutableIp);
    }
    if scratch.passes_through() {
        return pass_through(pkt, scratch);
    }
    if enters_tunnel(pkt, scratch) {
        return drop(DropReason::EncapsulationTrafficIsProhibited);
    }
    Ok(())
}

/// Whether a pod would send to a node's tunnel, by a question or by its answer to somebody outside.
#[inline(always)]
fn enters_tunnel(pkt: &Pkt, scratch: &Scratch) -> bool {
    let proto = pkt.tuple.proto;
    let (asks, answers) = (scratch.opener.id != 0, scratch.opener.id == 0 && scratch.target.id != 0);
    asks && encap::is_tunnel(proto, scratch.dport) || answers && encap::is_tunnel(proto, scratch.tuple.sport)
}

/// Whose addresses the decision depends on.
#[inline(always)]
fn peers(pkt: &Pkt, scratch: &Scratch) -> u32 {
    let peer = if scratch.opener.id != 0 { scratch.dst } else { scratch.tuple.src };
    let served = scratch.flow.flags & (flow::NAT_DST | flow::DIRECT) != 0;
    let other = if served { scratch.dst } else { forwarded(pkt, scratch).unwrap_or(peer) };
    abi::epoch::of_peers(peer, other)
}

/// The address of the pod that opens the flow through the host's stack, which may have given it another.
#[inline(always)]
fn forwarded(pkt: &Pkt, scratch: &Scratch) -> Option<Addr> {
    let from = match (scratch.notes(IS_REPLY), scratch.known.created) {
        (false, _) => pkt.origin,
        (true, 0) => return None,
        (true, _) => scratch.known.forward.origin,
    };
    let pod = pods::forwarded(from)?;
    Some(if scratch.family == 4 { pod.ipv4 } else { pod.ipv6 })
}

/// No pod of this node is at either end: it goes through this node if it is a service's and from outside.
#[inline(never)]
fn pass_through(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    let returned = scratch.flow.is_returned();
    if returned && scratch.notes(DST_IS_HOST) {
        return Ok(());
    }
    // A backend that has gone leaves what is for it to the stack, as any pod does.
    if returned || !scratch.flow.has(flow::NAT_DST) {
        return Err(if pkt.from == From::DEVICE { Verdict::NotOurs } else { Verdict::Pass });
    }
    // Under this node's address it would come out of the tunnel at another, whoever has sent it to a service with such a backend.
    if encap::is_tunnel(pkt.tuple.proto, scratch.dport) {
        return drop(DropReason::EncapsulationTrafficIsProhibited);
    }
    let goes_on = scratch.is_known() && scratch.known.has(flow::MASQUERADE | flow::DIRECT);
    if scratch.service & lb::LOCAL_ONLY != 0 && !scratch.notes(DST_IS_HOST) && !goes_on {
        return drop(DropReason::ServiceBackendNotFound);
    }
    if !abi::identity::is_known_everywhere(scratch.opener.identity) {
        // To other nodes such a number is somebody else.
        scratch.flow.src_identity = ipcache::world(scratch.family);
    }
    direct::choose(scratch);
    Ok(())
}

#[inline(never)]
fn destination(scratch: &mut Scratch) -> i32 {
    // SAFETY: read at once.
    if let Some(local) = unsafe { maps::LOCALS.get(scratch.dst) } {
        if local.flags & endpoint::HOST != 0 {
            scratch.target = Party::remote(local.identity);
            scratch.notes |= DST_IS_HOST;
            scratch.flow.forward.action = action::STACK;
            return 0;
        }
        scratch.target = Party::local(local);
        scratch.flow.forward.action = action::LOCAL;
        scratch.flow.forward.out_ifindex = local.ifindex;
        scratch.flow.forward.hop = scratch.target.macs;
        return 0;
    }
    if addresses::is_for_all(&scratch.dst) {
        // On its link a pod has nobody but the node.
        scratch.target = Party::remote(identity::HOST);
        scratch.notes |= DST_IS_HOST;
        scratch.flow.forward.action = action::STACK;
        return 0;
    }
    scratch.flow.forward.action = action::NEIGH;
    let Some(entry) = ipcache::lookup(&scratch.dst) else {
        scratch.target = Party::remote(identity::WORLD);
        return 0;
    };
    scratch.target = Party::remote(entry.identity);
    if entry.flags & flags::NO_MASQUERADE != 0 {
        scratch.notes |= NO_MASQUERADE;
    }
    if config::on(&config::TUNNEL) && ipcache::is_behind_tunnel(entry) {
        scratch.flow.forward.action = action::TUNNEL;
        scratch.flow.forward.hop = entry.tunnel;
    }
    0
}
