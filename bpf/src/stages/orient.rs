// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Which way round the flow is. A decision is always about its forward direction, whichever packet asks for it: a reply is allowed
//! because the flow is.

use super::direct;
use crate::addresses;
use crate::flows;
use crate::ipcache;
use crate::lb;
use crate::maps;
use crate::packet::From;
use crate::pkt::{DIRECT, INSIDE, KNOWN, OCCUPIED, Pkt, REPLY};
use crate::pods;
use crate::record;
use crate::scratch::{IS_REPLY, NOT_REMEMBERED, Party, REPLACES, Scratch};
use crate::verdict::{Stage, drop};
use abi::endpoint::flags as endpoint;
use abi::flow::{flags, origin, tcp};
use abi::tuple::Tuple;
use abi::{Addr, DropReason, identity};

/// Notes what is remembered of the flow, its forward tuple and who opened it.
#[inline(never)]
pub fn orient(pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    if let Some(flow) = flows::lookup(pkt) {
        // Where another flow has its ends, nothing can begin: it is for the flow that it seems to answer.
        let opens = flows::is_opening(pkt, flow) && !pkt.is(OCCUPIED);
        if opens && pkt.is(REPLY) && record::is_held(flow) {
            // It may be let through. But nobody makes their client's connection one of their own, by which it would be decided from then on.
            scratch.notes |= NOT_REMEMBERED;
            return first(pkt, scratch);
        }
        scratch.known = *flow;
        scratch.key = pkt.key;
        if opens || !direct::is_of(pkt, flow) {
            if !opens && direct::keeps_place(pkt, flow) {
                return drop(DropReason::NoMappingForNatMasquerade);
            }
            scratch.notes |= REPLACES;
            return first(pkt, scratch);
        }
        if pkt.from == From::STACK && record::half_of(flow, pkt.is(REPLY)).origin & origin::STACK == 0 {
            // What the stack forwards in a roundabout way does not draw the flow onto that way.
            scratch.notes |= NOT_REMEMBERED;
        }
        return known(pkt, scratch);
    }
    if pkt.is(OCCUPIED) {
        // There is no place for a record of it.
        scratch.notes |= NOT_REMEMBERED;
    } else if pkt.is_midway() && looks_like_reply(pkt) && !asks_service(pkt) {
        return unknown_reply(pkt, scratch);
    }
    first(pkt, scratch)
}

/// Whether somebody outside speaks to a service: its port tells nothing then.
#[inline(always)]
fn asks_service(pkt: &Pkt) -> bool {
    pkt.is(DIRECT | INSIDE) || pkt.from == From::DEVICE && lb::is_exposed(pkt)
}

/// The first packet of a flow: its sender opens it.
#[inline(never)]
pub fn first(pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    pkt.marks &= !(KNOWN | REPLY);
    if !pkt.tuple.asks {
        // An answer to nothing opens nothing.
        scratch.notes |= NOT_REMEMBERED;
    }
    scratch.icmp_type = pkt.flags;
    scratch.opener = scratch.sender;
    open(&pkt.tuple, scratch);
    Ok(())
}

/// Notes the forward direction, by its opener's tuple.
#[inline(never)]
fn open(tuple: &Tuple, scratch: &mut Scratch) -> i32 {
    scratch.tuple = *tuple;
    scratch.dst = tuple.dst;
    scratch.dport = tuple.dport;
    let (key, from_b) = tuple.key();
    scratch.key = key;
    if from_b {
        scratch.flow.flags |= flags::OPENED_BY_B;
    }
    0
}

/// A packet of a flow that has a record. Its sender has opened the flow, unless it is a reply, or an error, which somebody on the way may
/// have sent.
#[inline(never)]
pub fn known(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    scratch.tuple = scratch.known.opening(&scratch.key);
    scratch.dst = scratch.tuple.dst;
    scratch.dport = scratch.tuple.dport;
    scratch.icmp_type = scratch.tuple.class;
    scratch.flow.flags |= scratch.known.flags & flags::OPENED_BY_B;
    if pkt.is(REPLY) {
        scratch.notes |= IS_REPLY;
    } else if !pkt.is_icmp_error() {
        scratch.opener = scratch.sender;
        return Ok(());
    }
    match find_opener(scratch) {
        Opener::Gone => drop(DropReason::StaleOrUnroutableIp),
        // Whoever was refused by its name since is not let in again by the name of before.
        Opener::Told if scratch.known.flags & flags::REFUSED != 0 => drop(DropReason::PolicyDenied),
        Opener::Told => {
            scratch.notes |= NOT_REMEMBERED;
            Ok(())
        }
        Opener::Found => Ok(()),
    }
}

/// What is known of whoever opened a flow.
enum Opener {
    /// Nothing: they are gone.
    Gone,
    /// Who they are now.
    Found,
    /// Who they said they were. Whether that still is so, their next packet tells: until then nothing is made of it that was not so before.
    Told,
}

/// Notes who opened a flow.
#[inline(always)]
fn find_opener(scratch: &mut Scratch) -> Opener {
    let (known, src) = (&scratch.known, &scratch.tuple.src);
    if known.src_endpoint != 0 {
        let Some(pod) = pods::opener(known, src) else { return Opener::Gone };
        scratch.opener = Party::local(pod);
        return Opener::Found;
    }
    let mut identity = ipcache::identity_of(src);
    let mut opener = Opener::Found;
    if let Some(pod) = pods::forwarded(known.forward.origin) {
        identity = pod.identity;
    } else if known.forward.origin & origin::STACK != 0 {
        // What the node sends under its own address is of where it came from, which the address does not tell.
        if addresses::is_local(src) {
            identity = known.src_identity;
        }
    } else if known.forward.origin & origin::TUNNEL != 0 && is_told_by_sender(src, identity, known.src_identity) {
        identity = known.src_identity;
        opener = Opener::Told;
    }
    scratch.opener = Party::remote(identity);
    opener
}

/// Whether the sender alone tells who opened the flow: a pod of another node that nobody has told of yet, or a node that has sent under its
/// own address what others have sent to services there.
#[inline(always)]
fn is_told_by_sender(src: &Addr, identity: u32, told: u32) -> bool {
    is_world(identity) || is_node(src) && !matches!(told, identity::REMOTE_NODE | identity::KUBE_APISERVER)
}

#[inline(always)]
fn is_node(addr: &Addr) -> bool {
    ipcache::lookup(addr).is_some_and(ipcache::is_node)
}

#[inline(always)]
const fn is_world(identity: u32) -> bool {
    matches!(identity, identity::WORLD | identity::WORLD_IPV4 | identity::WORLD_IPV6)
}

/// Who opened a connection without a record is not known. Its port tells: a server's is the lower one. Asking policy about the other
/// way round as well would let a refused connection go on as if its server had opened it.
#[inline(always)]
fn looks_like_reply(pkt: &Pkt) -> bool {
    pkt.flags & tcp::SYN != 0 || u16::from_be(pkt.tuple.sport) < u16::from_be(pkt.tuple.dport)
}

/// It looks like a reply to a flow whose record is lost: the receiver opened it. That is taken on trust, so not from a pod that may not
/// send what it likes, nor for one that does not take in what comes: their flows go on when their openers speak.
#[inline(never)]
fn unknown_reply(pkt: &mut Pkt, scratch: &mut Scratch) -> Stage {
    // SAFETY: read at once.
    scratch.opener = match unsafe { maps::LOCALS.get(pkt.tuple.dst) } {
        Some(pod) if pod.flags & endpoint::HOST == 0 => Party::local(pod),
        _ => Party::remote(ipcache::identity_of(&pkt.tuple.dst)),
    };
    if scratch.sender.flags & endpoint::EGRESS_ENFORCED != 0 || scratch.opener.flags & endpoint::INGRESS_ENFORCED != 0 {
        return first(pkt, scratch);
    }
    scratch.notes |= IS_REPLY;
    pkt.marks |= REPLY;
    open(&pkt.tuple.reversed(), scratch);
    Ok(())
}
