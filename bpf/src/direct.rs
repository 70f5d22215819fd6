// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Direct server return, on the wire: a packet that a node sends on to a backend's node keeps its client's address, and names the
//! frontend that the client has asked, in an IPv4 option (RFC 791, 3.1) or an IPv6 destination option (RFC 8200, 4.6). Who may say so, and what
//! follows from it, is decided in `stages/direct.rs`.

use crate::addresses;
use crate::config;
use crate::headers::sum;
use crate::ipip;
use crate::lb;
use crate::packet::Packet;
use crate::parse::ETH_LEN;
use crate::pkt::{DIRECT, INSIDE, NOTED, Pkt, REPLY};
use crate::record::half_of;
use abi::flow::{Flow, flags, proto, tcp};
use abi::tuple::is_icmp;
use abi::{Addr, DropReason};
use aya_ebpf::bindings::BPF_F_ADJ_ROOM_FIXED_GSO;

/// Segments keep their size.
const KEEP_SIZES: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
/// IPv4 without options.
const IPV4: usize = 20;
/// IPv6 without extensions.
const IPV6: usize = 40;
/// Most words of an IPv4 header.
const MOST_WORDS: u8 = 15;
/// Destination options.
const DESTINATION_OPTIONS: u8 = 60;

/// The IPv4 option: copied into fragments, of class 0, number 26.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Option4 {
    kind: u8,
    len: u8,
    port: u16,
    addr: u32,
}

impl Option4 {
    const KIND: [u8; 2] = [0x9a, size_of::<Self>() as u8];
}

/// The IPv6 destination options header with its one option.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Options6 {
    next: u8,
    len: u8,
    kind: u8,
    option_len: u8,
    addr: Addr,
    port: u16,
    pad: u16,
}

impl Options6 {
    /// Length in units of eight octets beyond the first, type of the option, and its length.
    const KIND: [u8; 3] = [size_of::<Self>() as u8 / 8 - 1, 0x1b, size_of::<Self>() as u8 - 4];
}

const _: () = assert!(size_of::<Option4>() == 8 && size_of::<Options6>() == 24);

/// Whether the packet must tell the backend's node of the frontend. Of a connection the first segment does, as long as that node remembers.
#[inline(always)]
fn must_tell(pkt: &Pkt, flow: &Flow) -> bool {
    const DIRECTLY: u16 = flags::DIRECT | flags::NAT_DST;
    let forward = flow.flags & DIRECTLY == DIRECTLY && !pkt.is(REPLY) && !is_icmp(pkt.tuple.proto);
    forward && (pkt.tuple.proto != proto::TCP || pkt.flags & tcp::SYN != 0)
}

/// Bytes that the packet needs beyond its own.
#[inline(always)]
pub fn needs(pkt: &Pkt, flow: &Flow) -> u16 {
    if config::on(&config::DIRECT_IPIP) {
        return if ipip::goes(pkt, flow) { ipip::length(pkt.family) as u16 } else { 0 };
    }
    if must_tell(pkt, flow) { length(pkt.family) as u16 } else { 0 }
}

#[inline(always)]
fn length(family: u8) -> usize {
    if family == 4 { size_of::<Option4>() } else { size_of::<Options6>() }
}

/// Whether the packet tells the backend's node of the frontend. Where a decision is made, a segment of a connection that goes on does so as
/// well, if it has room: the other node may have forgotten, too.
#[inline(always)]
pub fn tells(pkt: &Pkt, flow: &Flow) -> bool {
    if !config::on(&config::DIRECT_RETURN) {
        return false;
    }
    if config::on(&config::DIRECT_IPIP) {
        return ipip::goes(pkt, flow);
    }
    let reminds = flow.has(flags::DIRECT) && flow.has(flags::NAT_DST) && pkt.is(NOTED) && pkt.tuple.proto == proto::TCP;
    let room = pkt.len + length(pkt.family) as u32 <= half_of(flow, false).mtu as u32;
    must_tell(pkt, flow) || (reminds && room && !pkt.is(REPLY))
}

/// Tells the backend's node of the frontend, which is where the packet was sent to. False when that fails.
#[inline(always)]
pub fn put_on<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow) -> bool {
    if config::on(&config::DIRECT_IPIP) { ipip::put_on(packet, pkt, flow) } else { put_option_on(packet, pkt) }
}

#[inline(never)]
fn put_option_on<P: Packet>(packet: P, pkt: &Pkt) -> bool {
    if pkt.family == 4 { put_on_ipv4(packet, pkt).is_some() } else { put_on_ipv6(packet, pkt).is_some() }
}

#[inline(always)]
fn put_on_ipv4<P: Packet>(packet: P, pkt: &Pkt) -> Option<()> {
    let [kind, len] = Option4::KIND;
    let option = Option4 { kind, len, port: pkt.tuple.dport, addr: pkt.tuple.dst.v4_be() };
    if packet.read::<u8>(ETH_LEN)? & 0x0f > MOST_WORDS - 2 {
        return None;
    }
    done(packet.adjust_options(len as i32, KEEP_SIZES) && packet.write(ETH_LEN + IPV4, option))?;
    lengthen_ipv4(packet, option, true)
}

/// Corrects the header for an option that it has now, or had. With its checksum it sums up to nothing, before and after.
#[inline(always)]
fn lengthen_ipv4<P: Packet>(packet: P, option: Option4, longer: bool) -> Option<()> {
    let [version, tos, a, b] = packet.read::<[u8; 4]>(ETH_LEN)?;
    let before = u32::from_ne_bytes([version, tos, a, b]);
    let (len, bytes) = (u16::from_be_bytes([a, b]), size_of::<Option4>() as u16);
    let (version, len) =
        if longer { (version + 2, len.wrapping_add(bytes)) } else { (version - 2, len.wrapping_sub(bytes)) };
    let [a, b] = len.to_be_bytes();
    let after = u32::from_ne_bytes([version, tos, a, b]);
    // SAFETY: eight plain bytes.
    let [one, other] = unsafe { core::mem::transmute::<Option4, [u32; 2]>(option) };
    let fix = |word: u32| {
        let (from, to) = if longer { (0, word) } else { (word, 0) };
        packet.fix_l3_checksum(ETH_LEN as u32 + 10, from, to)
    };
    done(packet.write(ETH_LEN, after))?;
    done(packet.fix_l3_checksum(ETH_LEN as u32 + 10, before, after) && fix(one) && fix(other))
}

#[inline(always)]
fn put_on_ipv6<P: Packet>(packet: P, pkt: &Pkt) -> Option<()> {
    let [len, kind, option_len] = Options6::KIND;
    let next = packet.read::<u8>(ETH_LEN + 6)?;
    let options = Options6 { next, len, kind, option_len, addr: pkt.tuple.dst, port: pkt.tuple.dport, pad: 0 };
    done(packet.adjust_options(size_of::<Options6>() as i32, KEEP_SIZES))?;
    done(packet.store_summed((ETH_LEN + IPV6) as u32, &options))?;
    lengthen_ipv6(packet, DESTINATION_OPTIONS, size_of::<Options6>() as u16)
}

/// Corrects what the IPv6 header says of what follows it.
#[inline(always)]
fn lengthen_ipv6<P: Packet>(packet: P, next: u8, by: u16) -> Option<()> {
    let len = u16::from_be(packet.read::<u16>(ETH_LEN + 4)?).wrapping_add(by);
    done(packet.store_summed(ETH_LEN as u32 + 4, &len.to_be()) && packet.store_summed(ETH_LEN as u32 + 6, &next))
}

#[inline(always)]
fn done(written: bool) -> Option<()> {
    if written { Some(()) } else { None }
}

/// Whether the packet names a frontend, in the place where nodes do: before all other options.
#[inline(always)]
pub fn is_there<P: Packet>(packet: P, pkt: &Pkt) -> bool {
    if pkt.family == 4 {
        return pkt.l4 as usize >= ETH_LEN + IPV4 + size_of::<Option4>()
            && packet.read::<[u8; 2]>(ETH_LEN + IPV4) == Some(Option4::KIND);
    }
    pkt.l4 as usize >= ETH_LEN + IPV6 + size_of::<Options6>()
        && packet.read::<u8>(ETH_LEN + 6) == Some(DESTINATION_OPTIONS)
        && packet.read::<[u8; 3]>(ETH_LEN + IPV6 + 1) == Some(Options6::KIND)
}

/// A packet from the wire that names a frontend loses that here, whatever becomes of it, if it is for a pod of this node or the node; and it is not
/// sent on to a backend. Returns the code of the reason why it is dropped, or 0.
#[inline(never)]
pub fn arrive<P: Packet>(packet: P, pkt: &mut Pkt) -> u32 {
    if !is_there(packet, pkt) {
        return 0;
    }
    if pkt.is(INSIDE) || !addresses::is_local(&pkt.tuple.dst) {
        // To another node it would be this one that says so, and another has sent it here in vain.
        return if pkt.is(INSIDE) || lb::is_exposed(pkt) {
            DropReason::EncapsulationTrafficIsProhibited.code() as u32
        } else {
            0
        };
    }
    let taken = if pkt.family == 4 { take_off_ipv4(packet, pkt) } else { take_off_ipv6(packet, pkt) };
    if taken.is_none() {
        return DropReason::ErrorWritingToPacket.code() as u32;
    }
    let bytes = length(pkt.family);
    pkt.l4 -= bytes as u16;
    pkt.len -= bytes as u32;
    pkt.marks |= DIRECT;
    0
}

#[inline(always)]
fn take_off_ipv4<P: Packet>(packet: P, pkt: &mut Pkt) -> Option<()> {
    let option = packet.read::<Option4>(ETH_LEN + IPV4)?;
    pkt.frontend = Addr::from_v4_be(option.addr);
    pkt.frontend_port = option.port;
    lengthen_ipv4(packet, option, false)?;
    done(packet.adjust_options(-(size_of::<Option4>() as i32), KEEP_SIZES))?;
    // It was taken off the card's sum of the whole packet, in which the header has made up for it.
    packet.add_to_sum(sum(&option, 0) as u64);
    Some(())
}

#[inline(always)]
fn take_off_ipv6<P: Packet>(packet: P, pkt: &mut Pkt) -> Option<()> {
    let options = packet.read::<Options6>(ETH_LEN + IPV6)?;
    pkt.frontend = options.addr;
    pkt.frontend_port = options.port;
    done(packet.adjust_options(-(size_of::<Options6>() as i32), KEEP_SIZES))?;
    lengthen_ipv6(packet, options.next, (size_of::<Options6>() as u16).wrapping_neg())
}
