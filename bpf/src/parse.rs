// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! From bytes to a tuple: Ethernet, IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), and the ports.

use crate::fragment;
use crate::packet::Packet;
use crate::pkt::{FIRST, LATER, Pkt};
use abi::flow::proto;
use abi::tuple::{Tuple, has_identifier, icmp_class, is_icmp};
use abi::{Addr, DropReason};

/// Bytes of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// IPv4, as the Ethernet header has it in memory.
pub const ETH_P_IP: u16 = 0x0800u16.to_be();
/// IPv6, likewise.
pub const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_ARP: u16 = 0x0806u16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8u16.to_be();

/// Headers that the programs look at, at most: an outer stack, Ethernet, IPv6 with extensions, TCP, or what an ICMP error quotes.
pub const HEADERS: u32 = 256;
/// Headers of a plain TCP packet over IPv4.
pub const PLAIN: u32 = 54;
/// Extension headers that are walked over.
const MAX_EXTENSIONS: usize = 4;

/// What kind of frame it is.
pub enum Frame {
    /// IPv4 or IPv6, parsed.
    Ip,
    /// ARP.
    Arp,
    /// Something else.
    Other,
    /// VLAN-tagged.
    Vlan,
    /// Not to be forwarded.
    Bad(DropReason),
}

/// Parses the packet into `pkt`.
#[inline(always)]
pub fn parse<P: Packet>(packet: P, pkt: &mut Pkt) -> Frame {
    if packet.has_vlan() {
        return Frame::Vlan;
    }
    // Headers are linear nearly always; a packet whose headers are not is made so.
    if packet.linear() < PLAIN && !packet.pull(HEADERS) {
        return Frame::Bad(DropReason::InvalidPacketDropped);
    }
    match parse_at(packet, pkt, ETH_LEN) {
        Frame::Bad(_) if is_cut(packet) => parse_again(packet, pkt),
        frame => frame,
    }
}

/// Whether headers may be where they cannot be read directly.
#[inline(always)]
fn is_cut<P: Packet>(packet: P) -> bool {
    packet.linear() < HEADERS && packet.linear() < packet.len()
}

/// Once more, with all headers linear.
#[inline(never)]
fn parse_again<P: Packet>(packet: P, pkt: &mut Pkt) -> Frame {
    if !packet.pull(HEADERS) {
        return Frame::Bad(DropReason::InvalidPacketDropped);
    }
    *pkt = Pkt::new(pkt.origin, pkt.from);
    parse_at(packet, pkt, ETH_LEN)
}

/// Parses what has its network header at that offset, right after its Ethernet header.
#[inline(always)]
pub fn parse_at<P: Packet>(packet: P, pkt: &mut Pkt, network: usize) -> Frame {
    let Some(ethertype) = packet.read::<u16>(network - 2) else {
        return Frame::Bad(DropReason::InvalidPacketDropped);
    };
    pkt.len = packet.len().wrapping_sub(network as u32);
    let parsed = match ethertype {
        ETH_P_IP => parse_ipv4(packet, pkt, network),
        ETH_P_IPV6 => parse_ipv6(packet, pkt, network),
        ETH_P_ARP => return Frame::Arp,
        ETH_P_8021Q | ETH_P_8021AD => return Frame::Vlan,
        _ => return Frame::Other,
    };
    frame(parsed.and_then(|()| parse_transport(packet, pkt)))
}

/// Parses what a packet has right behind its own header, of the same version, which has neither options nor extensions.
#[inline(always)]
pub fn parse_inside<P: Packet>(packet: P, pkt: &mut Pkt, version: u8) -> Frame {
    const BEHIND_IPV4: usize = ETH_LEN + 20;
    const BEHIND_IPV6: usize = ETH_LEN + 40;
    let network = if version == 4 { BEHIND_IPV4 } else { BEHIND_IPV6 };
    pkt.len = packet.len().wrapping_sub(network as u32);
    let parsed = if version == 4 { parse_ipv4(packet, pkt, BEHIND_IPV4) } else { parse_ipv6(packet, pkt, BEHIND_IPV6) };
    frame(parsed.and_then(|()| parse_transport(packet, pkt)))
}

#[inline(always)]
fn frame(parsed: Result<(), DropReason>) -> Frame {
    match parsed {
        Ok(()) => Frame::Ip,
        Err(reason) => Frame::Bad(reason),
    }
}

#[inline(always)]
fn parse_ipv4<P: Packet>(packet: P, pkt: &mut Pkt, network: usize) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::InvalidPacketDropped;
    let version = packet.read::<u8>(network).ok_or(BAD)?;
    let fragment = u16::from_be(packet.read::<u16>(network + 6).ok_or(BAD)?);
    let src = packet.read::<u32>(network + 12).ok_or(BAD)?;
    let dst = packet.read::<u32>(network + 16).ok_or(BAD)?;
    let header = (version & 0x0f) as usize * 4;
    if version >> 4 != 4 || header < 20 {
        return Err(BAD);
    }
    pkt.family = 4;
    pkt.ttl = packet.read::<u8>(network + 8).ok_or(BAD)?;
    pkt.tuple.proto = packet.read::<u8>(network + 9).ok_or(BAD)?;
    pkt.tuple.src = Addr::from_v4_be(src);
    pkt.tuple.dst = Addr::from_v4_be(dst);
    pkt.l4 = (network + header) as u16;
    if fragment & 0x3fff != 0 {
        pkt.fragment = if fragment & 0x1fff == 0 { FIRST } else { LATER };
        pkt.fragment_id = u16::from_be(packet.read::<u16>(network + 4).ok_or(BAD)?) as u32;
        pkt.fragment_next = pkt.tuple.proto;
        let len = u16::from_be(packet.read::<u16>(network + 2).ok_or(BAD)?);
        pkt.end = (network as u16).saturating_add(len);
    }
    Ok(())
}

#[inline(always)]
fn parse_ipv6<P: Packet>(packet: P, pkt: &mut Pkt, network: usize) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::InvalidPacketDropped;
    let version = packet.read::<u8>(network).ok_or(BAD)?;
    if version >> 4 != 6 {
        return Err(BAD);
    }
    pkt.family = 6;
    pkt.ttl = packet.read::<u8>(network + 7).ok_or(BAD)?;
    pkt.tuple.src.hi = packet.read::<u64>(network + 8).ok_or(BAD)?;
    pkt.tuple.src.lo = packet.read::<u64>(network + 16).ok_or(BAD)?;
    pkt.tuple.dst.hi = packet.read::<u64>(network + 24).ok_or(BAD)?;
    pkt.tuple.dst.lo = packet.read::<u64>(network + 32).ok_or(BAD)?;
    // A mapped address has no place on the wire (RFC 4942, 2.2): it would pass for an IPv4 address here.
    if pkt.tuple.src.is_v4() || pkt.tuple.dst.is_v4() {
        return Err(DropReason::InvalidSourceIp);
    }
    let mut next = packet.read::<u8>(network + 6).ok_or(BAD)?;
    let mut offset = network + 40;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let header = packet.read::<[u8; 2]>(offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                next = header[0];
                offset += (header[1] as usize + 1) * 8;
            }
            // Fragment.
            44 => {
                let header = packet.read::<[u8; 4]>(offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                let id = packet.read::<u32>(offset + 4).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                pkt.fragment_id = u32::from_be(id);
                let at = u16::from_be_bytes([header[2], header[3]]);
                // An atomic fragment (RFC 6946) is whole.
                if at & 0xfff9 != 0 {
                    pkt.fragment = if at & 0xfff8 == 0 { FIRST } else { LATER };
                    let len = u16::from_be(packet.read::<u16>(network + 4).ok_or(BAD)?);
                    pkt.end = (network as u16 + 40).saturating_add(len);
                }
                next = header[0];
                pkt.fragment_next = next;
                offset += 8;
                if pkt.fragment == LATER {
                    // What follows is not where headers are.
                    pkt.l4 = offset as u16;
                    return Ok(());
                }
            }
            _ => break,
        }
        if offset > 0x180 {
            return Err(DropReason::InvalidIpv6ExtensionHeader);
        }
    }
    if matches!(next, 0 | 43 | 44 | 60) {
        return Err(DropReason::InvalidIpv6ExtensionHeader);
    }
    pkt.tuple.proto = next;
    pkt.l4 = offset as u16;
    Ok(())
}

#[inline(always)]
fn parse_transport<P: Packet>(packet: P, pkt: &mut Pkt) -> Result<(), DropReason> {
    if pkt.fragment == LATER {
        let first = fragment::first_of(pkt).ok_or(DropReason::FirstLogicalDatagramFragmentNotFound)?;
        pkt.tuple.sport = first.sport;
        pkt.tuple.dport = first.dport;
        pkt.tuple.proto = first.proto;
        if is_icmp(pkt.tuple.proto) {
            (pkt.flags, pkt.code) = (first.kind, first.code);
            (pkt.tuple.class, pkt.tuple.asks) = icmp_class(pkt.tuple.proto, first.kind);
        }
        return Ok(());
    }
    const SHORT: DropReason = DropReason::CtTruncatedOrInvalidHeader;
    if pkt.fragment == FIRST && !holds_transport(pkt) {
        return Err(SHORT);
    }
    let l4 = pkt.l4 as usize;
    match pkt.tuple.proto {
        proto::TCP => {
            pkt.tuple.sport = packet.read::<u16>(l4).ok_or(SHORT)?;
            pkt.tuple.dport = packet.read::<u16>(l4 + 2).ok_or(SHORT)?;
            pkt.flags = packet.read::<u8>(l4 + 13).ok_or(SHORT)?;
            // The whole fixed header must be there.
            packet.read::<u16>(l4 + 18).ok_or(SHORT)?;
        }
        proto::UDP | proto::SCTP => {
            pkt.tuple.sport = packet.read::<u16>(l4).ok_or(SHORT)?;
            pkt.tuple.dport = packet.read::<u16>(l4 + 2).ok_or(SHORT)?;
            packet.read::<u32>(l4 + 4).ok_or(SHORT)?;
        }
        proto::ICMP | proto::ICMPV6 => {
            pkt.flags = packet.read::<u8>(l4).ok_or(SHORT)?;
            pkt.code = packet.read::<u8>(l4 + 1).ok_or(SHORT)?;
            let identifier = packet.read::<u16>(l4 + 4).ok_or(SHORT)?;
            packet.read::<u16>(l4 + 6).ok_or(SHORT)?;
            note_icmp(&mut pkt.tuple, pkt.flags, identifier);
        }
        _ => return Err(DropReason::CtUnknownL4Protocol),
    }
    Ok(())
}

/// Whether a first fragment has all headers itself (RFC 7112): what looks like ports behind its end is none, and the true ones come with a
/// later fragment.
#[inline(always)]
fn holds_transport(pkt: &Pkt) -> bool {
    let header = if pkt.tuple.proto == proto::TCP { 20 } else { 8 };
    pkt.l4 as u32 + header <= pkt.end as u32
}

/// An ICMP message's part of the tuple.
#[inline(always)]
pub fn note_icmp(tuple: &mut Tuple, kind: u8, identifier: u16) {
    (tuple.class, tuple.asks) = icmp_class(tuple.proto, kind);
    if has_identifier(tuple.proto, tuple.class) {
        if tuple.asks {
            tuple.sport = identifier;
        } else {
            tuple.dport = identifier;
        }
    }
}
