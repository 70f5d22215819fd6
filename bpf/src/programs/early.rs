// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! A native device, before the stack (XDP): packets for services from outside whose backends are on other nodes, and the answers to them, are
//! sent on where they came in. Drops are dropped here; whatever else it is passes as it came, and meets `netdev_ingress`, which decides
//! alike.

use crate::answer::checksum_left_to_card;
use crate::config;
use crate::encap::{self, Arrival};
use crate::exit;
use crate::flows;
use crate::hook::Hook;
use crate::lb;
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::{ETH_LEN, Frame, parse};
use crate::pkt::{Pkt, REPLY, WHOLE};
use crate::record;
use crate::scratch::{self, Notes};
use crate::send;
use crate::stages;
use crate::stages::commit::leaving_point;
use crate::verdict::Verdict;
use crate::xdp::Xdp;
use abi::DropReason;
use abi::flow::{Flow, proto};
use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

const NOT_OURS: u32 = Verdict::NotOurs.code();
/// No decision stands: not a verdict's code.
const UNDECIDED: u32 = 0;
const WRITE_FAILED: Verdict = Verdict::Drop(DropReason::ErrorWritingToPacket);

/// A packet has arrived at the device.
#[xdp]
pub fn netdev_xdp(ctx: XdpContext) -> u32 {
    if !config::on(&config::ACCELERATE) || !config::on(&config::EXPOSE_SERVICES) {
        return xdp_action::XDP_PASS;
    }
    let packet = Xdp(ctx.ctx);
    let Some(notes) = scratch::begin(From::DEVICE, packet.ifindex()) else { return xdp_action::XDP_PASS };
    if read_early(packet.0) == 0 {
        return xdp_action::XDP_PASS;
    }
    let pkt = &notes.pkt;
    let by_tunnel = config::on(&config::DIRECT_TUNNEL) && encap::is_tunnel(pkt.tuple.proto, pkt.tuple.dport);
    let verdict = match if by_tunnel { serve_from_tunnel(packet.0) } else { serve_from_wire(packet.0) } {
        // Not from there, whose stack would be needed as well.
        UNDECIDED => stages::decide_early(packet),
        code => Verdict::from_code(code),
    };
    exit::finish_early(packet, &notes.pkt, verdict)
}

/// Parses the packet; 0 unless it is of IP. Like a stage, this and what follows are functions of their own, which are walked through once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_early(context: *mut xdp_md) -> u32 {
    let Some(notes) = scratch::present() else { return 0 };
    matches!(parse(Xdp(context), &mut notes.pkt), Frame::Ip) as u32
}

/// A packet of another node, which answers what went through the tunnel.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn serve_from_tunnel(context: *mut xdp_md) -> u32 {
    let Some(Notes { pkt, .. }) = scratch::present() else { return NOT_OURS };
    let (packet, Some(node)) = (Xdp(context), maps::NODE.get(0)) else { return NOT_OURS };
    let Some(arrival) = Arrival::of(packet, pkt, node) else { return NOT_OURS };
    if !arrival.look_inside(packet, pkt) || !is_plain(pkt, arrival.network()) {
        return NOT_OURS;
    }
    let Some(flow) = flows::find(pkt) else { return NOT_OURS };
    if packet.carries(pkt, flow).is_err() || !has_checksum(packet, pkt, arrival.network()) {
        return NOT_OURS;
    }
    let verdict = if arrival.take_off(packet, pkt) { carry(packet, pkt, flow) } else { WRITE_FAILED };
    verdict.code()
}

/// A packet of the wire.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn serve_from_wire(context: *mut xdp_md) -> u32 {
    let Some(Notes { pkt, .. }) = scratch::present() else { return NOT_OURS };
    let packet = Xdp(context);
    if !is_plain(pkt, ETH_LEN) {
        return NOT_OURS;
    }
    if let Some(flow) = flows::find(pkt) {
        let is_carried = packet.carries(pkt, flow).is_ok() && has_checksum(packet, pkt, ETH_LEN);
        return if is_carried { carry(packet, pkt, flow).code() } else { NOT_OURS };
    }
    let is_asked = is_addressed_to_us(packet) && lb::is_exposed(pkt);
    if is_asked && has_checksum(packet, pkt, ETH_LEN) { UNDECIDED } else { NOT_OURS }
}

/// Whether the stages here understand all of it: headers without options, and no fragment.
#[inline(always)]
fn is_plain(pkt: &Pkt, network: usize) -> bool {
    let header = if pkt.family == 4 { 20 } else { 40 };
    let is_known = matches!(pkt.tuple.proto, proto::TCP | proto::UDP | proto::SCTP);
    is_known && pkt.fragment == WHOLE && pkt.l4 as usize == network + header
}

/// Whether its transport checksum is one. Of what a machine sends to itself, or several packets were put together to, a card still has to
/// make it.
#[inline(always)]
fn has_checksum(packet: Xdp, pkt: &Pkt, network: usize) -> bool {
    if pkt.tuple.proto == proto::SCTP {
        return packet.read::<u32>(pkt.l4 as usize + 8) != Some(0);
    }
    let (at, before) = if pkt.family == 4 { (2, 20) } else { (4, 0) };
    let Some(len) = packet.read::<u16>(network + at) else { return false };
    checksum_left_to_card(packet, pkt, (u16::from_be(len) as u32).wrapping_sub(before)).is_none()
}

/// Whether the frame is addressed to this node, by the device whose address the programs know.
#[inline(always)]
fn is_addressed_to_us(packet: Xdp) -> bool {
    let Some(node) = maps::NODE.get(0) else { return false };
    packet.ifindex() == node.native_ifindex && packet.read::<[u8; 6]>(0) == Some(node.native_mac)
}

/// Sends a packet of a known flow on.
#[inline(always)]
fn carry(packet: Xdp, pkt: &Pkt, flow: &mut Flow) -> Verdict {
    flows::touch(packet, pkt, flow, leaving_point(record::half_of(flow, pkt.is(REPLY)).action));
    match send::prepare(packet, pkt, flow, &pkt.key) {
        Ok(()) => send::forward(packet, pkt, flow),
        Err(verdict) => verdict,
    }
}
