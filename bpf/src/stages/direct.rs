// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Direct server return: whether a flow from outside goes on to its backend's node under its client's address, and whether this node answers a
//! client by the name that another node tells. The name counts if it is a frontend that is served that way, lets the client in, and has
//! the backend that the packet was sent to: nobody makes a node answer as anyone else.

use super::backend;
use crate::config;
use crate::flows;
use crate::lb;
use crate::packet::From;
use crate::pkt::{CLASH, DIRECT, INSIDE, KNOWN, Pkt, REPLY};
use crate::record;
use crate::scratch::{DST_IS_HOST, Scratch};
use crate::verdict::{Stage, Verdict, drop};
use abi::flow::{Flow, State, action, flags};
use abi::lb::{Backend, Service, flags as lb_flags};
use abi::tuple::{Tuple, is_icmp};
use abi::{DropReason, identity};

/// What is served that way, whose backends may be on any node.
const SERVED: u32 = lb_flags::DSR | lb_flags::EXPOSED;

/// Whether a packet may be of that flow, by the frontend that it names, or the backend that it was sent to, if another node says so.
#[inline(always)]
pub fn is_of(pkt: &Pkt, flow: &Flow) -> bool {
    if pkt.is(INSIDE) {
        return !pkt.is(REPLY) && flow.is_translated() && flow.has(flags::NAT_DST) && flow.nat_dst == pkt.frontend;
    }
    !pkt.is(DIRECT) || (flow.is_returned() && flow.nat_dst == pkt.frontend && flow.nat_dport == pkt.frontend_port)
}

/// Whether a flow keeps its ends from a packet that has the same ones and names a frontend which the flow is not of: it stands.
#[inline(always)]
pub fn keeps_place(pkt: &Pkt, flow: &Flow) -> bool {
    let proto = pkt.tuple.proto;
    !matches!(flow.state(proto), State::Opening) && !flow.has_ended(proto)
}

/// The flow whose replies have the ends of this packet turned round, which its own node has been asked for directly.
#[inline(never)]
fn other_way(pkt: &Pkt, scratch: &mut Scratch) -> Option<&'static mut Flow> {
    scratch.answer = pkt.tuple.reversed();
    scratch.alias_key = record::alias_key(&scratch.answer);
    let target = flows::get(&scratch.alias_key)?.target(&scratch.alias_key);
    let flow = flows::get(&target)?;
    scratch.alias_key = target;
    let untouched = flow.has(flags::NAT_DST) && !flow.has(flags::NAT_SRC) && flow.src_endpoint == 0;
    if untouched && flow.nat_dst == pkt.tuple.dst && flow.nat_dport == pkt.tuple.dport { Some(flow) } else { None }
}

/// A segment from the middle of a connection that its client has had with a frontend of this node itself: another node has taken the address over,
/// and does not tell any more.
#[inline(always)]
pub fn recall(pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    if config::on(&config::DIRECT_RETURN)
        && pkt.is(CLASH)
        && !pkt.is(DIRECT | INSIDE)
        && pkt.from == From::DEVICE
        && pkt.is_midway()
        && let Some(flow) = other_way(pkt, scratch)
    {
        let Tuple { dst, dport, .. } = flow.opening(&scratch.alias_key);
        pkt.frontend = dst;
        pkt.frontend_port = dport;
        pkt.marks |= DIRECT;
    }
    Ok(())
}

/// Whether the flow comes to its backend by another node.
#[inline(always)]
pub fn is_returned(pkt: &Pkt, scratch: &Scratch) -> bool {
    pkt.is(DIRECT) || (scratch.is_known() && scratch.known.is_returned())
}

/// Takes what another node says for true, if it can be.
#[inline(never)]
pub fn accept(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    let Tuple { dst, dport, proto, .. } = scratch.tuple;
    let told = pkt.is(DIRECT);
    scratch.flow.nat_dst = if told { pkt.frontend } else { scratch.known.nat_dst };
    scratch.flow.nat_dport = if told { pkt.frontend_port } else { scratch.known.nat_dport };
    let service = lb::of_another_node(scratch.flow.nat_dst, scratch.flow.nat_dport, proto);
    if let Some(service) = service {
        backend::admit(scratch, service)?;
    }
    if backend::keeps_backend(pkt, scratch, service) {
        scratch.flow.service = scratch.known.service;
        scratch.flow.backend = scratch.known.backend;
    } else {
        // What keeps to a node's own backends no other node sends here.
        let served = service.filter(|service| service.flags & (SERVED | lb_flags::LOCAL_ONLY) == SERVED);
        let Some(service) = served else { return drop(DropReason::StaleOrUnroutableIp) };
        let Some(id) = lb::member_at(service, dst, dport, proto) else { return drop(DropReason::StaleOrUnroutableIp) };
        scratch.flow.service = service.id;
        scratch.flow.backend = id;
    }
    scratch.flow.flags |= flags::DIRECT;
    Ok(())
}

/// Decides whether a flow that goes through this node is answered directly. One that goes on does so as it began: its client knows who
/// answers.
#[inline(always)]
pub fn choose(scratch: &mut Scratch) {
    let (known, flow) = (&scratch.known, &scratch.flow);
    let goes_on = scratch.is_known()
        && known.has(flags::NAT_DST)
        && known.nat_dst == flow.nat_dst
        && known.nat_dport == flow.nat_dport;
    let wanted = config::on(&config::DIRECT_RETURN) && scratch.service & lb_flags::DSR != 0;
    let direct = if goes_on { known.has(flags::DIRECT) } else { wanted };
    if direct && reaches_node(scratch) && (goes_on || is_found_there(scratch)) {
        scratch.flow.flags |= flags::DIRECT;
    }
}

/// Whether the backend is behind a node of ours, which understands what it is told.
#[inline(always)]
fn reaches_node(scratch: &Scratch) -> bool {
    let identity = scratch.target.identity;
    let of_world = matches!(identity, identity::WORLD | identity::WORLD_IPV4 | identity::WORLD_IPV6);
    scratch.flow.forward.action == action::NEIGH
        && !scratch.notes(DST_IS_HOST)
        && !is_icmp(scratch.tuple.proto)
        && !of_world
        && identity::is_known_everywhere(identity)
}

/// Whether the backend's node finds it by what it is told: of a frontend it always does, but an address of a backend may be that of more than one.
#[inline(always)]
fn is_found_there(scratch: &Scratch) -> bool {
    let flow = &scratch.flow;
    !config::on(&config::DIRECT_IPIP) || lb::member_id(flow.service, flow.nat_dst) == Some(flow.backend)
}

/// The backend of a service to which another node has sent a packet of its clients, if it is served that way.
#[inline(always)]
pub fn told(pkt: &Pkt, service: &Service) -> Result<(&'static Backend, u32), Verdict> {
    if service.flags & (SERVED | lb_flags::LOCAL_ONLY) != SERVED {
        return drop(DropReason::StaleOrUnroutableIp);
    }
    match lb::member(service, pkt.frontend) {
        Some(found) => Ok(found),
        None => drop(DropReason::StaleOrUnroutableIp),
    }
}

/// A flow that is answered directly has no other source than its client. Where replies would be taken for those of another flow, that is the
/// same one, which its client has begun at this node itself, or this one cannot be.
#[inline(always)]
pub fn keep_ends(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    if !scratch.flow.is_returned() || !pkt.is(CLASH) || pkt.is(KNOWN | REPLY) {
        return Ok(());
    }
    let (frontend, port) = (scratch.flow.nat_dst, scratch.flow.nat_dport);
    let Some(flow) = other_way(pkt, scratch) else { return drop(DropReason::NoMappingForNatMasquerade) };
    let opening = flow.opening(&scratch.alias_key);
    if opening.dst != frontend || opening.dport != port {
        return drop(DropReason::NoMappingForNatMasquerade);
    }
    flows::remove(&scratch.alias_key);
    Ok(())
}

/// Whether the ends that replies of a flow to a frontend of this node have are those of the same flow, which another node has sent here before. It
/// makes way.
#[inline(never)]
pub fn comes_another_way(scratch: &mut Scratch) -> bool {
    let asked = |flow: &&mut Flow| {
        flow.is_returned() && flow.nat_dst == scratch.tuple.dst && flow.nat_dport == scratch.tuple.dport
    };
    let same = scratch.flow.has(flags::NAT_DST) && flows::get(&scratch.alias_key).as_ref().is_some_and(asked);
    if same {
        flows::remove(&scratch.alias_key);
    }
    same
}
