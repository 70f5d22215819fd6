// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A service's address becomes a backend's. A flow keeps the backend that it has (`stages/backend.rs`).

use super::{backend, direct};
use crate::config;
use crate::lb::{self, Client};
use crate::packet::From;
use crate::pkt::{INSIDE, Pkt};
use crate::scratch::{IS_REPLY, NO_SERVICE, Scratch};
use crate::verdict::{Stage, Verdict, drop};
use abi::DropReason;
use abi::flow::flags;
use abi::lb::{Backend, Service, flags as lb_flags, spread_tuple};
use abi::tuple::Tuple;

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
        backend::admit(scratch, service)?;
    }
    if backend::keeps_backend(pkt, scratch, service) {
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
