// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! From bytes to a tuple: Ethernet, IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), and the ports.

use crate::ctx::Skb;
use crate::maps;
use abi::flow::{FlowKey, proto};
use abi::maps::{FragmentKey, FragmentPorts};
use abi::{Addr, DropReason};

/// Bytes of an Ethernet header.
pub const ETH_LEN: usize = 14;
const ETH_P_IP: u16 = 0x0800u16.to_be();
const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_ARP: u16 = 0x0806u16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8u16.to_be();

/// Headers that the programs look at, at most: Ethernet, IPv6 with extensions, TCP.
const HEADERS: u32 = 192;
/// Extension headers that are walked over.
const MAX_EXTENSIONS: usize = 4;

/// What is known of a packet after parsing.
pub struct Pkt {
    /// The tuple, which also is the key into the flow table.
    pub key: FlowKey,
    /// Length from the network header on.
    pub len: u32,
    /// Identification of a fragmented datagram.
    pub fragment_id: u32,
    /// Offset of the transport header.
    pub l4: u16,
    /// 4 or 6.
    pub family: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags, or the ICMP type.
    pub flags: u8,
    /// ICMP code.
    pub code: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub fragment: u8,
    /// [`NOTED`], [`KNOWN`].
    pub marks: u8,
}

/// The slow path's notes (`scratch`) are about this packet.
pub const NOTED: u8 = 1;
/// There is an entry of its flow, whether its decision stands or not.
pub const KNOWN: u8 = 2;

/// Not fragmented.
pub const WHOLE: u8 = 0;
/// The first fragment, with the ports.
pub const FIRST: u8 = 1;
/// A later fragment, without ports.
pub const LATER: u8 = 2;

impl Pkt {
    /// Nothing known yet.
    #[inline(always)]
    pub fn new(hook: u8) -> Self {
        let key = FlowKey { src: Addr::NONE, dst: Addr::NONE, sport: 0, dport: 0, proto: 0, hook, pad: 0 };
        Self { key, len: 0, fragment_id: 0, l4: 0, family: 0, ttl: 0, flags: 0, code: 0, fragment: WHOLE, marks: 0 }
    }

    /// Whether it is an ICMP error, which concerns another packet (RFC 792, RFC 4443).
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        (self.key.proto == proto::ICMP && matches!(self.flags, 3 | 11 | 12))
            || (self.key.proto == proto::ICMPV6 && matches!(self.flags, 1..=4))
    }

    /// The port that policy looks at: the destination port, or the type of an ICMP message.
    #[inline(always)]
    pub fn policy_port(&self, icmp_type: u8, dport: u16) -> u16 {
        if matches!(self.key.proto, proto::ICMP | proto::ICMPV6) { (icmp_type as u16).to_be() } else { dport }
    }
}

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
pub fn parse(skb: Skb, pkt: &mut Pkt) -> Frame {
    if skb.vlan_present() != 0 {
        return Frame::Vlan;
    }
    // Headers are linear nearly always; a packet whose headers are not is made so, once.
    if (skb.data() as usize) + 54 > skb.data_end() as usize && !skb.pull(HEADERS) {
        return Frame::Bad(DropReason::InvalidPacketDropped);
    }
    let Some(ethertype) = skb.read::<u16>(12) else {
        return Frame::Bad(DropReason::InvalidPacketDropped);
    };
    pkt.len = skb.len().wrapping_sub(ETH_LEN as u32);
    let network = match ethertype {
        ETH_P_IP => parse_ipv4(skb, pkt),
        ETH_P_IPV6 => parse_ipv6(skb, pkt),
        ETH_P_ARP => return Frame::Arp,
        ETH_P_8021Q | ETH_P_8021AD => return Frame::Vlan,
        _ => return Frame::Other,
    };
    match network.and_then(|()| parse_transport(skb, pkt)) {
        Ok(()) => Frame::Ip,
        Err(reason) => Frame::Bad(reason),
    }
}

#[inline(always)]
fn parse_ipv4(skb: Skb, pkt: &mut Pkt) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::InvalidPacketDropped;
    let version = skb.read::<u8>(ETH_LEN).ok_or(BAD)?;
    let fragment = u16::from_be(skb.read::<u16>(ETH_LEN + 6).ok_or(BAD)?);
    let src = skb.read::<u32>(ETH_LEN + 12).ok_or(BAD)?;
    let dst = skb.read::<u32>(ETH_LEN + 16).ok_or(BAD)?;
    let header = (version & 0x0f) as usize * 4;
    if version >> 4 != 4 || header < 20 {
        return Err(BAD);
    }
    pkt.family = 4;
    pkt.ttl = skb.read::<u8>(ETH_LEN + 8).ok_or(BAD)?;
    pkt.key.proto = skb.read::<u8>(ETH_LEN + 9).ok_or(BAD)?;
    pkt.key.src = Addr::from_v4_be(src);
    pkt.key.dst = Addr::from_v4_be(dst);
    pkt.l4 = (ETH_LEN + header) as u16;
    if fragment & 0x3fff != 0 {
        pkt.fragment = if fragment & 0x1fff == 0 { FIRST } else { LATER };
        pkt.fragment_id = skb.read::<u16>(ETH_LEN + 4).ok_or(BAD)? as u32;
    }
    Ok(())
}

#[inline(always)]
fn parse_ipv6(skb: Skb, pkt: &mut Pkt) -> Result<(), DropReason> {
    const BAD: DropReason = DropReason::InvalidPacketDropped;
    let version = skb.read::<u8>(ETH_LEN).ok_or(BAD)?;
    if version >> 4 != 6 {
        return Err(BAD);
    }
    pkt.family = 6;
    pkt.ttl = skb.read::<u8>(ETH_LEN + 7).ok_or(BAD)?;
    pkt.key.src.hi = skb.read::<u64>(ETH_LEN + 8).ok_or(BAD)?;
    pkt.key.src.lo = skb.read::<u64>(ETH_LEN + 16).ok_or(BAD)?;
    pkt.key.dst.hi = skb.read::<u64>(ETH_LEN + 24).ok_or(BAD)?;
    pkt.key.dst.lo = skb.read::<u64>(ETH_LEN + 32).ok_or(BAD)?;
    // A mapped address has no place on the wire (RFC 4942, 2.2): it would pass for an IPv4 address here.
    if pkt.key.src.is_v4() || pkt.key.dst.is_v4() {
        return Err(DropReason::InvalidSourceIp);
    }
    let mut next = skb.read::<u8>(ETH_LEN + 6).ok_or(BAD)?;
    let mut offset = ETH_LEN + 40;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let header = skb.read::<[u8; 2]>(offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                next = header[0];
                offset += (header[1] as usize + 1) * 8;
            }
            // Fragment.
            44 => {
                let header = skb.read::<[u8; 4]>(offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                pkt.fragment_id = skb.read::<u32>(offset + 4).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                let at = u16::from_be_bytes([header[2], header[3]]);
                // An atomic fragment (RFC 6946) is whole.
                if at & 0xfff9 != 0 {
                    pkt.fragment = if at & 0xfff8 == 0 { FIRST } else { LATER };
                }
                next = header[0];
                offset += 8;
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
    pkt.key.proto = next;
    pkt.l4 = offset as u16;
    Ok(())
}

#[inline(always)]
fn parse_transport(skb: Skb, pkt: &mut Pkt) -> Result<(), DropReason> {
    if pkt.fragment == LATER {
        return later_fragment(pkt);
    }
    const SHORT: DropReason = DropReason::CtTruncatedOrInvalidHeader;
    let l4 = pkt.l4 as usize;
    match pkt.key.proto {
        proto::TCP => {
            pkt.key.sport = skb.read::<u16>(l4).ok_or(SHORT)?;
            pkt.key.dport = skb.read::<u16>(l4 + 2).ok_or(SHORT)?;
            pkt.flags = skb.read::<u8>(l4 + 13).ok_or(SHORT)?;
            // The whole fixed header must be there.
            skb.read::<u16>(l4 + 18).ok_or(SHORT)?;
        }
        proto::UDP | proto::SCTP => {
            pkt.key.sport = skb.read::<u16>(l4).ok_or(SHORT)?;
            pkt.key.dport = skb.read::<u16>(l4 + 2).ok_or(SHORT)?;
            skb.read::<u32>(l4 + 4).ok_or(SHORT)?;
        }
        proto::ICMP | proto::ICMPV6 => {
            pkt.flags = skb.read::<u8>(l4).ok_or(SHORT)?;
            pkt.code = skb.read::<u8>(l4 + 1).ok_or(SHORT)?;
            let id = skb.read::<u16>(l4 + 4).ok_or(SHORT)?;
            skb.read::<u16>(l4 + 6).ok_or(SHORT)?;
            match (pkt.key.proto, pkt.flags) {
                (proto::ICMP, 8) | (proto::ICMPV6, 128) => pkt.key.sport = id,
                (proto::ICMP, 0) | (proto::ICMPV6, 129) => pkt.key.dport = id,
                _ => {}
            }
        }
        _ => return Err(DropReason::CtUnknownL4Protocol),
    }
    if pkt.fragment == FIRST {
        remember_fragment(pkt);
    }
    Ok(())
}

#[inline(always)]
fn fragment_key(pkt: &Pkt) -> FragmentKey {
    FragmentKey { src: pkt.key.src, dst: pkt.key.dst, id: pkt.fragment_id, proto: pkt.key.proto, pad: [0; 3] }
}

#[inline(never)]
fn remember_fragment(pkt: &Pkt) {
    let ports = FragmentPorts { sport: pkt.key.sport, dport: pkt.key.dport };
    // A full table evicts the oldest; a failure only costs this datagram's later fragments, which then are dropped by name.
    let _ = maps::FRAGMENTS.insert(fragment_key(pkt), ports, 0);
}

#[inline(always)]
fn later_fragment(pkt: &mut Pkt) -> Result<(), DropReason> {
    // SAFETY: the value is read at once; an entry that is replaced meanwhile yields ports of another datagram at worst,
    // whose flow then decides.
    let ports =
        unsafe { maps::FRAGMENTS.get(fragment_key(pkt)) }.ok_or(DropReason::FirstLogicalDatagramFragmentNotFound)?;
    pkt.key.sport = ports.sport;
    pkt.key.dport = ports.dport;
    Ok(())
}
