// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Carrying a decision out: rewrite, count down the hop limit, send.

use crate::direct;
use crate::encap;
use crate::fragment;
use crate::hook::Hook;
use crate::ipip;
use crate::packet::{From, Packet};
use crate::parse::ETH_LEN;
use crate::pkt::{Pkt, REPLY};
use crate::record::half_of;
use crate::rewrite;
use crate::verdict::{Stage, Verdict, drop};
use abi::flow::{Flow, FlowKey, action, flags, proto};
use abi::{Addr, DropReason};

const WRITE_FAILED: Verdict = Verdict::Drop(DropReason::ErrorWritingToPacket);
/// `GSO_BY_FRAGS`: the packets of a batch of SCTP are as long as their sender has made them, for the way that it knows.
const OWN_SIZES: u32 = 0xffff;

/// Does with the packet what its flow says.
#[inline(always)]
pub fn send<P: Hook>(packet: P, pkt: &mut Pkt, flow: &Flow) -> Verdict {
    match left_to_stack(packet, pkt, flow).and_then(|()| prepare(packet, pkt, flow, &pkt.key)) {
        Ok(()) => forward(packet, pkt, flow),
        Err(verdict) => verdict,
    }
}

/// Makes the packet ready for its way, or ends it.
#[inline(always)]
pub fn prepare<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, key: &FlowKey) -> Stage {
    fragment::let_follow(pkt);
    if flow.is_rewritten() && !ipip::goes(pkt, flow) && !rewrite::apply(packet, pkt, flow, key) {
        return Err(WRITE_FAILED);
    }
    unless_delivered(pkt)
}

/// A packet that is on the pod's own device is only rewritten: its way ends here.
#[inline(always)]
pub fn unless_delivered(pkt: &Pkt) -> Stage {
    if pkt.from == From::STACK { Err(Verdict::Pass) } else { Ok(()) }
}

/// What only the stack can answer, unchanged: the last hop, and what is too big for the way.
#[inline(always)]
pub fn left_to_stack<P: Packet>(packet: P, pkt: &mut Pkt, flow: &Flow) -> Stage {
    let way = half_of(flow, pkt.is(REPLY));
    if way.action == action::STACK || pkt.from == From::STACK {
        return Ok(());
    }
    // To the stack it is for the node itself, or for nobody: what that tells its sender is wrong, and may end the connection.
    let renamed = flow.has(if pkt.is(REPLY) { flags::NAT_SRC } else { flags::NAT_DST });
    if pkt.ttl <= 1 {
        return if renamed { drop(DropReason::TtlExceeded) } else { Err(Verdict::Pass) };
    }
    let room = way.mtu.saturating_sub(direct::needs(pkt, flow));
    if way.mtu == 0 || pkt.len <= room as u32 || fits(packet, pkt, room) {
        return Ok(());
    }
    // What may be cut up the stack would cut up and send on, under a name that it must not have outside, or through the tunnel as its own.
    let cut = pkt.family == 4 && !packet.read::<u8>(ETH_LEN + 6).is_some_and(|flags| flags & 0x40 != 0);
    // Who can leave room is told all the same: a pod, and the client of a flow that is answered directly.
    let told = pkt.from == From::POD || renamed && flow.has(flags::DIRECT);
    let stays = cut && (flow.is_rewritten() || way.action == action::TUNNEL);
    if stays && !told {
        return drop(DropReason::IpFragmentationNotSupported);
    }
    if renamed || stays {
        pkt.room = room;
        // Its text is that fragmentation is needed.
        return drop(DropReason::CtMissingTcpAckFlag);
    }
    Err(Verdict::Pass)
}

/// Whether each packet that it stands for fits.
#[inline(never)]
fn fits<P: Packet>(packet: P, pkt: &Pkt, mtu: u16) -> bool {
    let size = packet.batch_size();
    if size == 0 {
        return false;
    }
    if size == OWN_SIZES {
        return true;
    }
    let l4 = pkt.l4 as u32;
    let header = match pkt.tuple.proto {
        proto::TCP => (packet.read::<u8>(l4 as usize + 12).unwrap_or(0xf0) >> 4) as u32 * 4,
        _ => 8,
    };
    l4.wrapping_sub(ETH_LEN as u32) + header + size <= mtu as u32
}

/// Sends the packet on as it is.
#[inline(always)]
pub fn forward<P: Hook>(packet: P, pkt: &Pkt, flow: &Flow) -> Verdict {
    let way = half_of(flow, pkt.is(REPLY));
    if way.action == action::STACK {
        return Verdict::Pass;
    }
    let (action, out_ifindex, hop) = (way.action, way.out_ifindex, way.hop);
    if !count_down(packet, pkt) {
        return WRITE_FAILED;
    }
    // Memory that has become another flow's since this one was found.
    // SAFETY: a plain word; volatile, so that it is read after what it vouches for.
    if unsafe { core::ptr::read_volatile(&raw const flow.tag) } != pkt.tag {
        return Verdict::Drop(DropReason::UnknownConnectionTrackingState);
    }
    match action {
        action::LOCAL => {
            if !set_macs(packet, &hop) {
                return WRITE_FAILED;
            }
            packet.to_pod(out_ifindex)
        }
        action::TUNNEL => {
            let sender = if pkt.is(REPLY) { flow.dst_identity } else { flow.src_identity };
            encap::send(packet, pkt, way, sender)
        }
        _ if direct::tells(pkt, flow) && !direct::put_on(packet, pkt, flow) => WRITE_FAILED,
        _ => packet.to_neighbour(out_ifindex, &hop),
    }
}

/// What a sum changes by when the second octet of a word becomes one less (RFC 1624).
const ONE_LESS: u32 = !(1_u16.to_be() as u32);

/// One hop less (RFC 1812 5.3.1; RFC 8200 3), with the IPv4 checksum corrected in place (RFC 1624).
#[inline(always)]
fn count_down<P: Packet>(packet: P, pkt: &Pkt) -> bool {
    if pkt.family == 6 {
        // No header checksum makes up for it in the sum of a card; what a pod sends comes from no card.
        if pkt.from != From::POD {
            packet.add_to_sum(ONE_LESS as u64);
        }
        return packet.write::<u8>(ETH_LEN + 7, pkt.ttl - 1);
    }
    let Some(checksum) = packet.read::<u16>(ETH_LEN + 10) else { return false };
    let sum = u16::from_be(checksum) as u32 + 0x0100;
    let folded = (sum + (sum >> 16)) as u16;
    packet.write::<u8>(ETH_LEN + 8, pkt.ttl - 1) && packet.write::<u16>(ETH_LEN + 10, folded.to_be())
}

/// Both hardware addresses at once: they lie side by side in the half as in the packet.
#[inline(always)]
fn set_macs<P: Packet>(packet: P, macs: &Addr) -> bool {
    packet.write::<[u32; 3]>(0, [macs.hi as u32, (macs.hi >> 32) as u32, macs.lo as u32])
}
