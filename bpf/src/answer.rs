// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Telling the sender why a packet goes no further (RFC 792, RFC 4443): the packet becomes the error about itself, and goes back where it
//! came from. The stack tells the rest; here is what it would get wrong, because it does not know of services or policies.

use crate::config;
use crate::epochs;
use crate::events;
use crate::headers::{Ipv4, Ipv6, fold, pseudo_header, sum};
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::ETH_LEN;
use crate::pkt::{LATER, Pkt};
use crate::scratch::{self, NO_SERVICE, Notes, Scratch};
use crate::skb::Skb;
use abi::flow::proto;
use abi::policy::{EGRESS, INGRESS};
use abi::tuple::Tuple;
use abi::{DropReason, lb, limit};
use aya_ebpf::bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};

const TTL: u8 = 64;
/// What an error quotes of UDP and SCTP, at least (RFC 792).
const SHORT: usize = 8;
/// What it quotes of TCP: the kernel does not cut off a checksum that is still to be made.
const LONG: usize = 20;

/// ICMP of either family.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: u16,
    rest: u32,
}

const _: () = assert!(size_of::<Icmp>() == 8);

/// Answers the packet at hand, which is dropped for that reason. 0: nobody is told. Like a stage, it is walked through once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn to_sender(context: *mut __sk_buff, reason: u32) -> u32 {
    let answered =
        |notes: &Notes| !is_awaited(&notes.scratch, reason as u8) && answer(Skb(context), &notes.pkt, reason as u8);
    scratch::present().is_some_and(|notes| answered(&notes)) as u32
}

/// Whether the service has backends, on other nodes alone: whoever led the packet here will soon lead its like to one of those, and a sender
/// that hears nothing tries again.
#[inline(always)]
fn is_awaited(scratch: &Scratch, reason: u8) -> bool {
    reason == DropReason::ServiceBackendNotFound.code()
        && scratch.service & lb::flags::LOCAL_ONLY != 0
        && !scratch.notes(NO_SERVICE)
}

#[inline(always)]
fn answer<P: Packet>(packet: P, pkt: &Pkt, reason: u8) -> bool {
    let Some(icmp) = error(pkt, reason) else { return false };
    let has_ports = matches!(pkt.tuple.proto, proto::TCP | proto::UDP | proto::SCTP);
    let came_in = pkt.from == From::POD || pkt.from == From::DEVICE;
    if !has_ports || !came_in || pkt.fragment == LATER || packet.batch_size() != 0 || !is_admitted(pkt) {
        return false;
    }
    let written = match (pkt.family, pkt.tuple.proto) {
        (4, proto::TCP) => over_ipv4::<P, { 20 + LONG }, LONG>(packet, pkt, icmp),
        (4, _) => over_ipv4::<P, { 20 + SHORT }, SHORT>(packet, pkt, icmp),
        (_, proto::TCP) => over_ipv6::<P, { 40 + LONG }, LONG>(packet, pkt, icmp),
        _ => over_ipv6::<P, { 40 + SHORT }, SHORT>(packet, pkt, icmp),
    };
    written.is_some() && send_back(packet, pkt)
}

/// Whether its sender has not had too many answers already. One that is not sent counts as dropped on its own way.
#[inline(always)]
fn is_admitted(pkt: &Pkt) -> bool {
    let Some(answered) = maps::ANSWERED.get_ptr_mut(limit::slot(pkt.tuple.src, pkt.from == From::POD)) else {
        return false;
    };
    // SAFETY: array values are never freed. Two processors that count at once count one too few.
    let admitted = unsafe { (*answered).admit(epochs::now()) };
    if !admitted {
        let direction = if pkt.from == From::POD { INGRESS } else { EGRESS };
        events::count(DropReason::DropRateLimited.code(), direction, pkt.len);
    }
    admitted
}

/// Whether a sender may be told of a drop for that reason.
#[inline(always)]
pub fn is_told(reason: DropReason) -> bool {
    use DropReason::{CtMissingTcpAckFlag, FibLookupFailed, ServiceBackendNotFound, TtlExceeded};
    matches!(reason, ServiceBackendNotFound | FibLookupFailed | TtlExceeded | CtMissingTcpAckFlag)
}

/// What the sender is told.
#[inline(always)]
fn error(pkt: &Pkt, reason: u8) -> Option<Icmp> {
    const UNSERVED: u8 = DropReason::ServiceBackendNotFound.code();
    const NO_WAY: u8 = DropReason::FibLookupFailed.code();
    const TOO_FAR: u8 = DropReason::TtlExceeded.code();
    const TOO_BIG: u8 = DropReason::CtMissingTcpAckFlag.code();
    let (v4, v6) = match reason {
        UNSERVED if config::on(&config::REJECT_NO_BACKEND) => ([3, 3], [1, 4]),
        NO_WAY => ([3, 0], [1, 0]),
        TOO_FAR => ([11, 0], [3, 0]),
        TOO_BIG => ([3, 4], [2, 0]),
        _ => return None,
    };
    let [kind, code] = if pkt.family == 4 { v4 } else { v6 };
    Some(Icmp { kind, code, checksum: 0, rest: (pkt.room as u32).to_be() })
}

/// `QUOTED` bytes of the packet, of which the last `TRANSPORT` are of its transport header, and the headers in front of them.
#[inline(always)]
fn over_ipv4<P: Packet, const QUOTED: usize, const TRANSPORT: usize>(
    packet: P,
    pkt: &Pkt,
    mut icmp: Icmp,
) -> Option<()> {
    let quoted = quote::<P, QUOTED, TRANSPORT>(packet, pkt)?;
    let mut header = Ipv4 {
        version: 0x45,
        tos: 0,
        len: (28 + QUOTED as u16).to_be(),
        id: 0,
        fragment: 0,
        ttl: TTL,
        proto: proto::ICMP,
        checksum: 0,
        src: pkt.tuple.dst.v4_be(),
        dst: pkt.tuple.src.v4_be(),
    };
    header.checksum = header.sum();
    icmp.checksum = fold(sum(&icmp, quoted));
    // Both sums are right now, and what they are of sums up to nothing.
    packet.add_to_sum(!quoted as u64);
    make_room(packet, 28)?;
    let written = packet.write(ETH_LEN, header) && packet.write(ETH_LEN + 20, icmp);
    if written { Some(()) } else { None }
}

/// The same over IPv6.
#[inline(always)]
fn over_ipv6<P: Packet, const QUOTED: usize, const TRANSPORT: usize>(
    packet: P,
    pkt: &Pkt,
    mut icmp: Icmp,
) -> Option<()> {
    let quoted = quote::<P, QUOTED, TRANSPORT>(packet, pkt)?;
    let len = ((8 + QUOTED) as u16).to_be();
    let (src, dst) = (pkt.tuple.dst, pkt.tuple.src);
    let header = Ipv6 { class: 0x6000_0000u32.to_be(), len, next: proto::ICMPV6, ttl: TTL, src, dst };
    icmp.checksum = fold(sum(&icmp, sum(&pseudo_header(src, dst, (8 + QUOTED) as u32, proto::ICMPV6), quoted)));
    packet.add_to_sum(sum(&icmp, sum(&header, 0)) as u64);
    make_room(packet, 48)?;
    let written = packet.write(ETH_LEN, header) && packet.write(ETH_LEN + 40, icmp);
    if written { Some(()) } else { None }
}

/// Cuts the packet down to what is quoted of it, and returns the sum that this has when it leaves: a checksum that was left to a card is made
/// then, over what is left.
#[inline(always)]
fn quote<P: Packet, const QUOTED: usize, const TRANSPORT: usize>(packet: P, pkt: &Pkt) -> Option<u32> {
    let left_to_card = checksum_left_to_card(packet, pkt, pkt.len - (pkt.l4 as u32 - ETH_LEN as u32));
    if !packet.cut((ETH_LEN + QUOTED) as u32) || !packet.pull((ETH_LEN + QUOTED) as u32) {
        return None;
    }
    let quoted = sum(&packet.read::<[u8; QUOTED]>(ETH_LEN)?, 0);
    let Some(written) = left_to_card else { return Some(quoted) };
    let start = ETH_LEN + QUOTED - TRANSPORT;
    if pkt.l4 as usize != start {
        return None;
    }
    let made = fold(sum(&packet.read::<[u8; TRANSPORT]>(start)?, 0));
    Some(sum(&[made, !written], quoted))
}

/// What stands in place of the transport checksum, if the sender has left it to a card: the sum of the pseudo header (RFC 9293, 3.1; RFC 8200,
/// 8.1), which a checksum that is made is once in 65536 packets. `len` is that of transport header and payload.
#[inline(always)]
pub fn checksum_left_to_card<P: Packet>(packet: P, pkt: &Pkt, len: u32) -> Option<u16> {
    let at = match pkt.tuple.proto {
        proto::TCP => 16,
        proto::UDP => 6,
        _ => return None,
    };
    let written = packet.read::<u16>(pkt.l4 as usize + at)?;
    let Tuple { src, dst, proto, .. } = pkt.tuple;
    if written == !fold(pseudo_header(src, dst, len, proto)) { Some(written) } else { None }
}

#[inline(always)]
fn make_room<P: Packet>(packet: P, bytes: i32) -> Option<()> {
    if packet.adjust_room(bytes, BPF_F_ADJ_ROOM_FIXED_GSO as u64) { Some(()) } else { None }
}

/// Back by the device it came from, to the neighbour that sent it.
#[inline(always)]
fn send_back<P: Packet>(packet: P, pkt: &Pkt) -> bool {
    let (Some(dst), Some(src)) = (packet.read::<[u16; 3]>(0), packet.read::<[u16; 3]>(6)) else { return false };
    if !packet.write(0, src) || !packet.write(6, dst) {
        return false;
    }
    // SAFETY: no preconditions.
    let result = unsafe {
        if pkt.from == From::POD { bpf_redirect_peer(packet.ifindex(), 0) } else { bpf_redirect(packet.ifindex(), 0) }
    };
    result == aya_ebpf::bindings::TC_ACT_REDIRECT as i64
}
