// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Rewriting addresses and ports, with their checksums.

use crate::headers::difference;
use crate::packet::Packet;
use crate::parse::ETH_LEN;
use crate::pkt::{LATER, Pkt, REPLY, WHOLE};
use abi::Addr;
use abi::flow::{Flow, FlowKey, flags, proto};
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};

/// What one direction of a flow turns source and destination into.
pub struct Translation {
    /// The new source, and its port, if it is rewritten.
    pub src: Option<(Addr, u16)>,
    /// The new destination, and its port, if it is rewritten.
    pub dst: Option<(Addr, u16)>,
}

/// The translation of a direction.
#[inline(always)]
pub fn of(flow: &Flow, key: &FlowKey, reply: bool) -> Translation {
    let (src, dst) = (flow.has(flags::NAT_SRC), flow.has(flags::NAT_DST));
    if !reply {
        return Translation {
            src: if src { Some((flow.nat_src, flow.nat_sport)) } else { None },
            dst: if dst { Some((flow.nat_dst, flow.nat_dport)) } else { None },
        };
    }
    let opening = flow.opening(key);
    let asked = if flow.is_returned() { (flow.nat_dst, flow.nat_dport) } else { (opening.dst, opening.dport) };
    Translation {
        src: if dst || flow.is_returned() { Some(asked) } else { None },
        dst: if src { Some((opening.src, opening.sport)) } else { None },
    }
}

/// Rewrites the packet as its flow says. False when that fails.
#[inline(never)]
pub fn apply<P: Packet>(packet: P, pkt: &Pkt, flow: &Flow, key: &FlowKey) -> bool {
    let translation = of(flow, key, pkt.is(REPLY));
    if let Some((to, to_port)) = translation.src {
        let change = Change { from: pkt.tuple.src, to, from_port: pkt.tuple.sport, to_port, side: 0 };
        if !change.apply(packet, pkt) {
            return false;
        }
    }
    if let Some((to, to_port)) = translation.dst {
        let change = Change { from: pkt.tuple.dst, to, from_port: pkt.tuple.dport, to_port, side: 1 };
        if !change.apply(packet, pkt) {
            return false;
        }
    }
    true
}

/// One side's rewrite.
struct Change {
    from: Addr,
    to: Addr,
    from_port: u16,
    to_port: u16,
    /// 0 source, 1 destination.
    side: u32,
}

impl Change {
    #[inline(always)]
    fn apply<P: Packet>(&self, packet: P, pkt: &Pkt) -> bool {
        if pkt.fragment == LATER {
            return self.address(packet, pkt, None);
        }
        let (port_offset, checksum_offset, checksum_flags) = match pkt.tuple.proto {
            proto::TCP => (self.side * 2, 16, 0),
            proto::UDP => (self.side * 2, 6, BPF_F_MARK_MANGLED_0 as u64),
            proto::ICMP | proto::ICMPV6 => (4, 2, 0),
            proto::SCTP => return self.address(packet, pkt, None) && self.sctp_port(packet, pkt),
            _ => return self.address(packet, pkt, None),
        };
        let l4 = pkt.l4 as u32;
        let checksum = l4 + checksum_offset;
        // ICMP has no pseudo header (RFC 792); ICMPv6 has (RFC 4443, 2.3).
        let pseudo = if pkt.tuple.proto == proto::ICMP { None } else { Some((checksum, checksum_flags)) };
        if !self.address(packet, pkt, pseudo) {
            return false;
        }
        if self.from_port == self.to_port {
            return true;
        }
        packet.fix_l4_checksum(checksum, self.from_port as u64, self.to_port as u64, checksum_flags | 2)
            && packet.store(l4 + port_offset, &self.to_port)
    }

    /// SCTP's checksum does not cover the addresses, and is no sum.
    #[inline(never)]
    fn sctp_port<P: Packet>(&self, packet: P, pkt: &Pkt) -> bool {
        if self.from_port == self.to_port {
            return true;
        }
        let l4 = pkt.l4 as usize;
        let Some(checksum) = packet.read::<u32>(l4 + 8) else { return false };
        // A card makes it on the way out.
        if checksum == 0 {
            return packet.store_summed(l4 as u32 + self.side * 2, &self.to_port);
        }
        // It covers what is in other fragments, too.
        if pkt.fragment != WHOLE {
            return false;
        }
        let Some(end) = end(packet, pkt) else { return false };
        let following = end.wrapping_sub(l4 as u32 + 4) as u16;
        let difference = ((self.from_port ^ self.to_port) as u32) << (self.side * 16);
        let corrected = checksum ^ sctp_difference(difference, following as u32);
        packet.store_summed(l4 as u32 + self.side * 2, &self.to_port) && packet.store_summed(l4 as u32 + 8, &corrected)
    }

    /// Rewrites the address; `pseudo` is the transport checksum that covers it.
    #[inline(always)]
    fn address<P: Packet>(&self, packet: P, pkt: &Pkt, pseudo: Option<(u32, u64)>) -> bool {
        if pkt.family == 4 {
            let (from, to) = (self.from.v4_be(), self.to.v4_be());
            if let Some((offset, flags)) = pseudo
                && !packet.fix_l4_checksum(offset, from as u64, to as u64, flags | BPF_F_PSEUDO_HDR as u64 | 4)
            {
                return false;
            }
            let network = ETH_LEN as u32;
            return packet.fix_l3_checksum(network + 10, from, to) && packet.store(network + 12 + self.side * 4, &to);
        }
        let difference = difference(self.from, self.to) as u64;
        // This takes the difference off the card's sum of the whole packet.
        if let Some((offset, flags)) = pseudo
            && !packet.fix_l4_checksum(offset, 0, difference, flags | BPF_F_PSEUDO_HDR as u64)
        {
            return false;
        }
        // The address adds it to that: IPv6 has no header checksum to make up for it.
        packet.add_to_sum(difference);
        packet.store(ETH_LEN as u32 + 8 + self.side * 16, &self.to)
    }
}

/// Where the packet ends, of a frame that may be filled up to the shortest that Ethernet has.
#[inline(always)]
fn end<P: Packet>(packet: P, pkt: &Pkt) -> Option<u32> {
    let (at, before) = if pkt.family == 4 { (2, 0) } else { (4, 40) };
    let length = u16::from_be(packet.read::<u16>(ETH_LEN + at)?);
    Some(ETH_LEN as u32 + before + length as u32)
}

/// What SCTP's checksum changes by ([`abi::sctp::difference`]). Exported, so that the verifier walks through its bits once, and not
/// again for each way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sctp_difference(difference: u32, following: u32) -> u32 {
    abi::sctp::difference(difference, following as u16)
}
