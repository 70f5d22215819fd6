// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A service's address becomes a backend's. A flow keeps the backend that it has.

use super::{direct, source};
use crate::config;
use crate::lb::{self, Client};
use crate::maps;
use crate::packet::From;
use crate::parse::{INSIDE, Pkt};
use crate::scratch::{IS_REPLY, NO_SERVICE, NOT_REMEMBERED, Scratch};
use crate::verdict::{Stage, Verdict, drop};
use abi::DropReason;
use abi::flow::{flags, proto, tcp};
use abi::lb::{Backend, Service, flags as lb_flags, spread_tuple};
use abi::tuple::Tuple;

/// Whether an address and port from outside are a service's, or a port of a service's address that is none's. The tunnel's packets are
/// the nodes', whatever a service asks for.
#[inline(always)]
pub fn is_exposed(pkt: &Pkt) -> bool {
    config::on(&config::EXPOSE_SERVICES) && !source::is_tunnel(pkt.tuple.proto, pkt.tuple.dport) && is_named(&pkt.tuple)
}

#[inline(never)]
fn is_named(tuple: &Tuple) -> bool {
    lb::outside(tuple.dst, tuple.dport, tuple.proto).is_some() || lb::is_unserved(&tuple.dst)
}

/// Chooses the backend of a flow that a pod opens, or somebody outside.
#[inline(never)]
pub fn translate(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    if scratch.opener.id == 0 && !is_from_outside(pkt, scratch) {
        return Ok(());
    }
    if direct::is_returned(pkt, scratch) {
        return direct::accept(pkt, scratch);
    }
    let service = find(pkt, scratch);
    // Without its service a flow goes on as it is, or not at all.
    scratch.service = service.map_or(lb_flags::LOCAL_ONLY, |service| service.flags);
    // Who is let in no more is not served any more either.
    if let Some(service) = service {
        admit(scratch, service)?;
    }
    if keeps_backend(pkt, scratch, service) {
        take_known(scratch);
        return Ok(());
    }
    let Some(service) = service else {
        scratch.notes |= NO_SERVICE;
        // Another node has sent it for a service that has just gone.
        return if pkt.is(INSIDE) { drop(DropReason::StaleOrUnroutableIp) } else { Ok(()) };
    };
    if scratch.notes(IS_REPLY) && !scratch.is_known() && service.count != 0 {
        // What a backend answers does not come in the service's name.
        return drop(DropReason::StaleOrUnroutableIp);
    }
    take(pkt, scratch, service)
}

/// Whether somebody outside opens the flow, or has opened it, to a service.
#[inline(always)]
fn is_from_outside(pkt: &Pkt, scratch: &Scratch) -> bool {
    if scratch.is_known() {
        // A pod that has gone leaves its flows to nobody.
        return scratch.known.flags & (flags::NAT_DST | flags::DIRECT) != 0 && scratch.known.src_endpoint == 0;
    }
    config::on(&config::EXPOSE_SERVICES) && pkt.from == From::DEVICE && !scratch.notes(IS_REPLY)
}

/// The service that the flow's opener names: one of outside may have named it to another node.
#[inline(always)]
fn find(pkt: &Pkt, scratch: &Scratch) -> Option<&'static Service> {
    let Tuple { src, dst, dport, proto, .. } = scratch.tuple;
    if scratch.opener.id != 0 {
        return lb::of_pod(&src, dst, dport, proto);
    }
    if config::on(&config::DIRECT_RETURN) && (pkt.is(INSIDE) || scratch.is_known()) {
        return lb::of_another_node(dst, dport, proto);
    }
    lb::outside(dst, dport, proto)
}

/// Who is outside finds what is for them, and everybody what lets them in.
#[inline(always)]
pub fn admit(scratch: &Scratch, service: &Service) -> Stage {
    if scratch.opener.id == 0 && service.flags & lb_flags::EXPOSED == 0 {
        return drop(DropReason::IsAClusterip);
    }
    if !lb::admits(service, &scratch.tuple.src) {
        return drop(DropReason::DeniedByLbSrcRangeCheck);
    }
    Ok(())
}

/// The flow goes where it went.
#[inline(always)]
fn take_known(scratch: &mut Scratch) {
    let (known, flow) = (&scratch.known, &mut scratch.flow);
    flow.nat_dst = known.nat_dst;
    flow.nat_dport = known.nat_dport;
    flow.service = known.service;
    flow.backend = known.backend;
    go_there(scratch);
}

/// The flow goes to a backend of the service.
#[inline(never)]
fn take(pkt: &Pkt, scratch: &mut Scratch, service: &Service) -> Stage {
    let (backend, id) = if pkt.is(INSIDE) { direct::told(pkt, service)? } else { choose(scratch, service)? };
    let flow = &mut scratch.flow;
    flow.nat_dst = backend.addr;
    flow.nat_dport = backend.port;
    flow.service = service.id;
    flow.backend = id;
    go_there(scratch);
    Ok(())
}

#[inline(always)]
fn choose(scratch: &Scratch, service: &Service) -> Result<(&'static Backend, u32), Verdict> {
    let client = Client { addr: scratch.tuple.src, is_cookie: false, connection: spread_tuple(&scratch.tuple) };
    match lb::choose(service, &client) {
        Some(chosen) => Ok(chosen),
        None => drop(DropReason::ServiceBackendNotFound),
    }
}

#[inline(always)]
fn go_there(scratch: &mut Scratch) {
    scratch.flow.flags |= flags::NAT_DST;
    scratch.dst = scratch.flow.nat_dst;
    scratch.dport = scratch.flow.nat_dport;
}

/// Whether a known flow stays where it is: its service and its backend still exist, or it is a connection that could not go on
/// elsewhere (its backend may be finishing what it began), or it is the backend that speaks, or an error that is about what a backend
/// has said.
#[inline(always)]
pub fn keeps_backend(pkt: &Pkt, scratch: &mut Scratch, service: Option<&Service>) -> bool {
    let known = &scratch.known;
    if !scratch.is_known() || known.flags & (flags::NAT_DST | flags::DIRECT) == 0 || known.backend == 0 {
        return false;
    }
    if pkt.is_icmp_error() {
        return true;
    }
    let (tcp, reply) = (scratch.tuple.proto == proto::TCP, scratch.notes(IS_REPLY));
    let goes_on = pkt.flags & (tcp::SYN | tcp::ACK) != tcp::SYN;
    if tcp && (reply || (goes_on && known.goes_on(proto::TCP))) {
        return true;
    }
    if still_serves(scratch, service) {
        return true;
    }
    if reply {
        // It may come through, but the next question is for another.
        scratch.notes |= NOT_REMEMBERED;
    }
    reply
}

/// Whether there still is the service, and it has the backend.
#[inline(always)]
fn still_serves(scratch: &Scratch, service: Option<&Service>) -> bool {
    let known = &scratch.known;
    let (addr, port) =
        if known.is_returned() { (scratch.tuple.dst, scratch.tuple.dport) } else { (known.nat_dst, known.nat_dport) };
    // SAFETY: read at once.
    let backend = unsafe { maps::BACKENDS.get(known.backend) }
        .is_some_and(|backend| backend.addr == addr && backend.port == port);
    backend && service.is_some_and(|service| service.id == known.service && lb::has_member(service, known.backend))
}
