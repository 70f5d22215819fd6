// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A service's address becomes a backend's. A flow keeps the backend that it has.

use crate::lb::{self, Choice};
use crate::maps;
use crate::parse::Pkt;
use crate::scratch::{IS_REPLY, NOT_REMEMBERED, Scratch};
use crate::verdict::{Stage, drop};
use abi::DropReason;
use abi::flow::{Flow, State, flags, proto, tcp};
use abi::tuple::Tuple;

/// Chooses the backend of a flow that a pod opens.
#[inline(never)]
pub fn translate(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    if scratch.opener.id == 0 {
        return Ok(());
    }
    let (addr, port, backend, service) = if keeps_backend(pkt, scratch) {
        let known = &scratch.known;
        (known.nat_dst, known.nat_dport, known.backend, known.service)
    } else {
        match lb::choose(scratch.tuple.dst, scratch.tuple.dport, scratch.tuple.proto) {
            Choice::NotAService => return Ok(()),
            Choice::NoBackend => return drop(DropReason::ServiceBackendNotFound),
            Choice::Chosen(backend, id, service) => (backend.addr, backend.port, id, service),
        }
    };
    if scratch.notes(IS_REPLY) && !scratch.is_known() {
        // What a backend answers does not come in the service's name.
        return drop(DropReason::StaleOrUnroutableIp);
    }
    scratch.dst = addr;
    scratch.dport = port;
    let flow = &mut scratch.flow;
    flow.flags |= flags::NAT_DST;
    flow.nat_dst = addr;
    flow.nat_dport = port;
    flow.service = service;
    flow.backend = backend;
    Ok(())
}

/// Whether a known flow stays where it is: its service and its backend still exist, or it is a connection that could not go on
/// elsewhere (its backend may be finishing what it began), or it is the backend that speaks, or an error that is about what a backend
/// has said.
#[inline(always)]
fn keeps_backend(pkt: &Pkt, scratch: &mut Scratch) -> bool {
    let known = &scratch.known;
    if !scratch.is_known() || !known.has(flags::NAT_DST) || known.backend == 0 {
        return false;
    }
    if pkt.is_icmp_error() {
        return true;
    }
    let (tcp, reply) = (scratch.tuple.proto == proto::TCP, scratch.notes(IS_REPLY));
    let goes_on = pkt.flags & (tcp::SYN | tcp::ACK) != tcp::SYN;
    if tcp && (reply || (goes_on && matches!(known.state(proto::TCP), State::Established))) {
        return true;
    }
    if still_serves(known, &scratch.tuple) {
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
fn still_serves(known: &Flow, opening: &Tuple) -> bool {
    // SAFETY: read at once.
    let backend = unsafe { maps::BACKENDS.get(known.backend) }
        .is_some_and(|backend| backend.addr == known.nat_dst && backend.port == known.nat_dport);
    backend
        && lb::service(opening.dst, opening.dport, opening.proto)
            .is_some_and(|service| service.id == known.service && lb::has_member(service, known.backend))
}
