// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Where packets go in both directions, and where they may come from: what addresses have not settled, the kernel's routes do.

use super::policy;
use crate::addresses;
use crate::config;
use crate::encap;
use crate::fib::{self, Ends};
use crate::ipcache;
use crate::maps;
use crate::packet::{From, Packet};
use crate::pkt::Pkt;
use crate::scratch::{DST_IS_HOST, IS_REPLY, Scratch};
use crate::verdict::{Stage, drop};
use abi::config::NodeConfig;
use abi::flow::{Half, action, flags, origin};
use abi::{Addr, DropReason};

/// Completes both halves.
#[inline(never)]
pub fn next_hops<P: Packet>(packet: P, pkt: &Pkt, scratch: &mut Scratch) -> Stage {
    // SAFETY: array values are never freed.
    let Some(node) = maps::NODE.get(0) else { return drop(DropReason::InvalidTcBuffer) };
    to_target(packet, pkt, node, scratch)?;
    to_opener(packet, pkt, node, scratch)?;
    scratch.flow.forward.origin = forward_origin(pkt, node, scratch);
    scratch.flow.reply.origin = reply_origin(pkt, node, scratch);
    Ok(())
}

/// The forward direction.
#[inline(always)]
fn to_target<P: Packet>(packet: P, pkt: &Pkt, node: &NodeConfig, scratch: &mut Scratch) -> Stage {
    let inside = scratch.opener.ifindex;
    if scratch.notes(IS_REPLY) && pkt.from == From::TUNNEL && scratch.flow.forward.action == action::TUNNEL {
        // Of a node's addresses it has chosen this one; packets to it prove by that where they belong.
        scratch.flow.forward.hop = pkt.node;
    }
    let ends = Ends { src: scratch.tuple.src, dst: scratch.dst, proto: scratch.tuple.proto };
    let leaves = scratch.flow.forward.action == action::NEIGH;
    lead(packet, node, inside, &ends, &mut scratch.flow.forward)?;
    // What the kernel does not send on it may keep: not all that is the node's is known to be.
    let kept = leaves && scratch.flow.forward.action == action::STACK;
    // To the stack what names a frontend is a packet with options that it does not know.
    if kept && (scratch.flow.has(flags::DIRECT) || !policy::lets_to_node(scratch)) {
        return drop(DropReason::FibLookupFailed);
    }
    Ok(())
}

/// The reply direction: to a local opener, or back where the flow came from.
#[inline(always)]
fn to_opener<P: Packet>(packet: P, pkt: &Pkt, node: &NodeConfig, scratch: &mut Scratch) -> Stage {
    let opener = &scratch.opener;
    if opener.id != 0 {
        scratch.flow.reply.action = action::LOCAL;
        scratch.flow.reply.out_ifindex = opener.ifindex;
        scratch.flow.reply.hop = opener.macs;
        return Ok(());
    }
    let answers_itself = scratch.notes(DST_IS_HOST);
    let asked = if scratch.flow.is_returned() { scratch.flow.nat_dst } else { scratch.tuple.dst };
    let way = &mut scratch.flow.reply;
    if scratch.notes & IS_REPLY == 0 {
        (way.action, way.hop) = match pkt.from {
            From::TUNNEL => (action::TUNNEL, pkt.node),
            From::DEVICE if !answers_itself => (action::NEIGH, Addr::NONE),
            _ => (action::STACK, Addr::NONE),
        };
    } else if scratch.known.created != 0 {
        (way.action, way.hop) = (scratch.known.reply.action, scratch.known.reply.hop);
    } else {
        (way.action, way.hop) = by_address(&scratch.tuple.src);
    }
    let ends = Ends { src: asked, dst: scratch.tuple.src, proto: scratch.tuple.proto };
    let leaves = way.action == action::NEIGH;
    lead(packet, node, scratch.target.ifindex, &ends, way)?;
    // To whom the kernel would not send from here nobody can be who sends from there.
    if leaves && way.action == action::STACK && pkt.from == From::DEVICE && scratch.notes & IS_REPLY == 0 {
        return drop(DropReason::InvalidSourceIp);
    }
    Ok(())
}

/// How an address is reached that nothing else is known of.
#[inline(always)]
fn by_address(addr: &Addr) -> (u8, Addr) {
    if addresses::is_local(addr) {
        return (action::STACK, Addr::NONE);
    }
    match ipcache::lookup(addr) {
        Some(entry) if config::on(&config::TUNNEL) && ipcache::is_behind_tunnel(entry) => {
            (action::TUNNEL, entry.tunnel)
        }
        _ => (action::NEIGH, Addr::NONE),
    }
}

/// Where packets of the forward direction come from.
#[inline(always)]
fn forward_origin(pkt: &Pkt, node: &NodeConfig, scratch: &Scratch) -> u32 {
    if scratch.opener.id != 0 {
        return scratch.opener.ifindex;
    }
    if !scratch.notes(IS_REPLY) {
        return pkt.origin;
    }
    if scratch.known.created != 0 {
        return scratch.known.forward.origin;
    }
    arrival(&scratch.flow.reply, node)
}

/// Where replies come from.
#[inline(always)]
fn reply_origin(pkt: &Pkt, node: &NodeConfig, scratch: &Scratch) -> u32 {
    if scratch.target.id != 0 {
        return scratch.target.ifindex;
    }
    if scratch.notes(IS_REPLY) {
        return pkt.origin;
    }
    arrival(&scratch.flow.forward, node)
}

/// Where packets arrive from for a pod, when those to there go that way.
#[inline(always)]
fn arrival(way: &Half, node: &NodeConfig) -> u32 {
    match way.action {
        action::TUNNEL => origin::TUNNEL | node.overlay_ifindex,
        action::NEIGH => way.out_ifindex,
        _ => origin::STACK,
    }
}

/// Asks the kernel's routes where the action leads to.
#[inline(never)]
fn lead<P: Packet>(packet: P, node: &NodeConfig, inside: u32, ends: &Ends, way: &mut Half) -> Stage {
    match way.action {
        action::TUNNEL => {
            if node.overlay_ifindex == 0 {
                return drop(DropReason::NoTunnelOrEncapsulationEndpoint);
            }
            encap::lead(packet, node, inside, way);
        }
        action::NEIGH => {
            let found = fib::ask(packet, inside, ends, way);
            if found != 0 && found == node.overlay_ifindex {
                // Through the stack's own route it would travel under the node's identity.
                return drop(DropReason::StaleOrUnroutableIp);
            }
            // Through the stack goes what it must answer itself (no route), and what its own device takes.
            if found == 0 || found == node.host_ifindex {
                way.action = action::STACK;
            }
        }
        _ => {}
    }
    Ok(())
}
