// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What holds of every flow to a service, however it came here: whom the service lets in, and whether the flow keeps its backend.

use crate::lb;
use crate::maps;
use crate::pkt::Pkt;
use crate::scratch::{IS_REPLY, NOT_REMEMBERED, Scratch};
use crate::verdict::{Stage, drop};
use abi::DropReason;
use abi::flow::{flags, proto, tcp};
use abi::lb::{Service, flags as lb_flags};

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
