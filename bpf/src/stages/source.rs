// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Who sends the packet, and whether it may come from there: nobody gets in under another's address.

use crate::addresses::{is_for_all, is_host, is_local, is_loopback, is_nobody, is_pod};
use crate::config;
use crate::encap;
use crate::ipcache;
use crate::maps;
use crate::packet::{From, Packet};
use crate::pkt::{KNOWN, Pkt};
use crate::pods;
use crate::scratch::{Party, Scratch};
use crate::verdict::{Stage, drop};
use abi::endpoint::flags;
use abi::flow::{proto, tcp};
use abi::ipcache::IpcacheEntry;
use abi::{Addr, DropReason, identity};

/// Notes the sender.
#[inline(never)]
pub fn check<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    scratch.family = pkt.family;
    match pkt.from {
        From::POD => pod(packet, pkt, scratch),
        From::STACK => stack(packet, pkt, scratch),
        From::TUNNEL => tunnel(pkt, scratch),
        _ => device(pkt, scratch),
    }
}

/// A pod sends under its own address, and nothing into the tunnel.
#[inline(always)]
fn pod<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    // SAFETY: read at once.
    let Some(pod) = (unsafe { maps::ENDPOINTS.get(packet.ifindex()) }) else {
        return drop(DropReason::DropEpNotReady);
    };
    scratch.sender = Party::local(pod);
    if pod.flags & flags::NOT_READY != 0 {
        return drop(DropReason::DropEpNotReady);
    }
    if !pods::owns(pod, &pkt.tuple.src) {
        return drop(DropReason::InvalidSourceIp);
    }
    if encap::is_tunnel(pkt.tuple.proto, pkt.tuple.dport) {
        return drop(DropReason::EncapsulationTrafficIsProhibited);
    }
    // It means the sender itself (RFC 1122, 3.2.1.3); the node's is not reached by it, whatever the node's settings let in.
    if is_loopback(&pkt.tuple.dst) {
        return drop(DropReason::UnknownL3TargetAddress);
    }
    Ok(())
}

/// Only what was made on this node is the host's. What the stack forwards, under whatever address, is of where it came in.
#[inline(always)]
fn stack<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    let src = &pkt.tuple.src;
    let arrived_by = packet.arrived_by();
    let identity = if arrived_by == 0 {
        ipcache::identity_of(src)
    } else if let Some(pod) = pods::forwarded(pkt.origin) {
        pod.identity
    } else if is_local(src) || is_elsewhere(src) && !is_overlay(arrived_by) {
        ipcache::world(pkt.family)
    } else {
        ipcache::identity_of(src)
    };
    scratch.sender = Party::remote(identity);
    Ok(())
}

/// Whether whoever has that address is reached through the tunnel, and nothing of theirs comes another way.
#[inline(always)]
fn is_elsewhere(addr: &Addr) -> bool {
    config::on(&config::TUNNEL) && ipcache::lookup(addr).is_some_and(ipcache::is_behind_tunnel)
}

#[inline(always)]
fn is_overlay(ifindex: u32) -> bool {
    // SAFETY: array values are never freed.
    maps::NODE.get(0).is_some_and(|node| node.overlay_ifindex == ifindex)
}

/// The wire cannot claim to be this node or one of its pods, nor a pod whose packets come through the tunnel, nor many or nobody.
#[inline(always)]
fn device(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    let src = &pkt.tuple.src;
    if is_local(src) || is_loopback(src) || is_nobody(src) || is_for_all(src) {
        return drop(DropReason::InvalidSourceIp);
    }
    let entry = ipcache::lookup(src);
    let concerns_us = is_for_pod(pkt) || !pkt.is_icmp_error();
    if config::on(&config::TUNNEL) && entry.is_some_and(ipcache::is_behind_tunnel) && concerns_us {
        return drop(DropReason::InvalidSourceIp);
    }
    scratch.sender = Party::remote(entry.map_or(identity::WORLD, |entry| entry.identity));
    Ok(())
}

/// Whether what comes from the wire for the node itself, or for nobody here, has a source that it cannot have: this node, one of its
/// pods, or a pod of another node, which would come under that node's address.
#[inline(never)]
pub fn is_forged_to_host(pkt: &Pkt) -> bool {
    is_local(&pkt.tuple.src) || (opens(pkt) && is_masqueraded_to(pkt) && is_elsewhere(&pkt.tuple.src))
}

/// Whether it may be the first packet of a flow. What follows the first of a connection is not looked at: nobody listens to it.
#[inline(always)]
fn opens(pkt: &Pkt) -> bool {
    pkt.tuple.proto != proto::TCP || pkt.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// Whether pods of other nodes speak to the destination under their node's address.
#[inline(always)]
fn is_masqueraded_to(pkt: &Pkt) -> bool {
    let on = if pkt.family == 4 { &config::MASQUERADE_IPV4 } else { &config::MASQUERADE_IPV6 };
    config::on(on)
        && is_host(&pkt.tuple.dst)
        && !ipcache::lookup(&pkt.tuple.dst).is_some_and(|entry| entry.flags & abi::ipcache::flags::NO_MASQUERADE != 0)
}

/// Whether the packet is for a pod of this node: by its address, or since it belongs to a flow that a pod has with the outside.
#[inline(always)]
pub fn is_for_pod(pkt: &Pkt) -> bool {
    pkt.is(KNOWN) || is_pod(&pkt.tuple.dst)
}

/// What comes through the tunnel was sent by a node that is known, and for somebody behind that node.
#[inline(always)]
fn tunnel(pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    scratch.sender = Party::remote(pkt.vni);
    // The local node's identity has no place on the wire, nor has the API server's, which a node does not know to be its own: whoever claims
    // one wants its privileges.
    if matches!(pkt.vni, identity::HOST | identity::UNKNOWN | identity::KUBE_APISERVER) {
        return drop(DropReason::InvalidIdentity);
    }
    let src = &pkt.tuple.src;
    if is_local(src) {
        return drop(DropReason::InvalidSourceIp);
    }
    let Some(node) = ipcache::node_of(&pkt.node) else { return drop(DropReason::UnknownSender) };
    let Some(entry) = ipcache::lookup(src) else { return drop(DropReason::InvalidSourceIp) };
    let behind = if ipcache::is_behind_tunnel(entry) { Some(entry.tunnel) } else { ipcache::node_of(src) };
    if behind != Some(node) {
        return drop(DropReason::InvalidSourceIp);
    }
    // What a pod's node forwards by its own route has its own name. A pod's packet has that of the pod.
    if pkt.vni == identity::REMOTE_NODE && !is_of_node(entry) {
        return drop(DropReason::InvalidIdentity);
    }
    // A node does not know that it is the API server's.
    let known = entry.identity == identity::KUBE_APISERVER && pkt.vni == identity::REMOTE_NODE;
    if known {
        scratch.sender = Party::remote(entry.identity);
    }
    Ok(())
}

/// Whether it is an address of a node itself, which may be within its pods' prefix.
#[inline(always)]
fn is_of_node(entry: &IpcacheEntry) -> bool {
    ipcache::is_node(entry) || matches!(entry.identity, identity::REMOTE_NODE | identity::KUBE_APISERVER)
}
