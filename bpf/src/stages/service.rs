// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A service's address becomes a backend's. A flow keeps the backend that it has.

use crate::lb::{self, Choice};
use crate::maps;
use crate::parse::Pkt;
use crate::scratch::{IS_REPLY, Scratch};
use crate::verdict::{Stage, drop};
use abi::DropReason;
use abi::flow::{State, flags, proto, tcp};

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

/// Whether a known flow stays where it is: its backend still exists, or it is a connection that could not go on elsewhere (its
/// backend may be finishing what it began), or it is the backend that speaks, or an error that is about what a backend has said.
#[inline(always)]
fn keeps_backend(pkt: &Pkt, scratch: &Scratch) -> bool {
    let known = &scratch.known;
    if !scratch.is_known() || !known.has(flags::NAT_DST) || known.backend == 0 {
        return false;
    }
    if scratch.notes(IS_REPLY) || pkt.is_icmp_error() {
        return true;
    }
    let goes_on = pkt.flags & (tcp::SYN | tcp::ACK) != tcp::SYN;
    if scratch.tuple.proto == proto::TCP && goes_on && matches!(known.state(proto::TCP), State::Established) {
        return true;
    }
    // SAFETY: read at once.
    unsafe { maps::BACKENDS.get(known.backend) }
        .is_some_and(|backend| backend.addr == known.nat_dst && backend.port == known.nat_dport)
}
