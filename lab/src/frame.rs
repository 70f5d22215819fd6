// SPDX-License-Identifier: Apache-2.0
//! For tests: frames made by hand, byte for byte, as no socket of the kernel would send them. Lengths and checksums are right; whether addresses are one's own is
//! not asked.

use std::net::{IpAddr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

/// TCP's SYN flag.
pub const SYN: u8 = 0x02;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const HOPS: u8 = 64;

/// What follows the network header.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    /// A datagram, from port to port.
    Udp(u16, u16),
    /// A segment, from port to port, with flags.
    Tcp(u16, u16, u8),
    /// A message of ICMP or ICMPv6, by family: type, code, and the four octets after the checksum.
    Icmp(u8, u8, [u8; 4]),
    /// The payload alone, under a protocol number.
    Bare(u8),
}

/// A fragment's place in its packet.
#[derive(Debug, Clone, Copy)]
pub struct Fragment {
    /// Which packet it is of.
    pub id: u16,
    /// In units of eight octets.
    pub offset: u16,
    /// Whether another one follows.
    pub more: bool,
}

/// An IPv4 or IPv6 packet.
#[derive(Debug, Clone)]
pub struct Packet {
    src: IpAddr,
    dst: IpAddr,
    transport: Transport,
    hops: u8,
    fragment: Option<Fragment>,
    payload: Vec<u8>,
}

impl Packet {
    /// A packet between two addresses of one family.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, transport: Transport, payload: &[u8]) -> Self {
        Self { src, dst, transport, hops: HOPS, fragment: None, payload: payload.to_vec() }
    }

    /// With another TTL or hop limit.
    #[must_use]
    pub fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// As a fragment. Only the first one has the transport's header, which should be padded to eight octets.
    #[must_use]
    pub fn fragment(self, fragment: Fragment) -> Self {
        Self { fragment: Some(fragment), ..self }
    }

    /// The packet in two fragments, cut at a multiple of eight octets after the network header.
    #[must_use]
    pub fn split(&self, id: u16, at: u16) -> [Self; 2] {
        let whole = self.transport();
        let (first, later) = whole.split_at(whole.len().min(usize::from(at) * 8));
        let part = |payload: &[u8], offset, more| {
            let transport = Transport::Bare(self.protocol());
            let fragment = Some(Fragment { id, offset, more });
            Self { transport, fragment, payload: payload.to_vec(), ..self.clone() }
        };
        [part(first, 0, true), part(later, at, false)]
    }

    /// The protocol number of the transport.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Udp(..) => UDP,
            Transport::Tcp(..) => TCP,
            Transport::Icmp(..) if self.src.is_ipv4() => ICMP,
            Transport::Icmp(..) => ICMPV6,
            Transport::Bare(protocol) => protocol,
        }
    }

    /// In an Ethernet frame.
    #[must_use]
    pub fn frame(&self, from: Mac, to: Mac) -> Vec<u8> {
        let kind = if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&to[..], &from, &kind, &self.network()].concat()
    }

    /// From the network header on.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        let transport = self.transport();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (id, place) = self.fragment.map_or((0, 0), |f| (f.id, f.offset | u16::from(f.more) << 13));
                let header = |sum: [u8; 2]| {
                    let length = size(20 + transport.len());
                    [
                        &[0x45, 0][..],
                        &length,
                        &id.to_be_bytes(),
                        &place.to_be_bytes(),
                        &[self.hops, self.protocol()],
                        &sum,
                        &src.octets(),
                        &dst.octets(),
                    ]
                    .concat()
                };
                [header(checksum(&header([0, 0]))), transport].concat()
            }
            (src, dst) => {
                let extension = self.fragment.map(|f| {
                    let place = f.offset << 3 | u16::from(f.more);
                    [&[self.protocol(), 0][..], &place.to_be_bytes(), &[0, 0], &f.id.to_be_bytes()].concat()
                });
                let next = if extension.is_some() { FRAGMENT } else { self.protocol() };
                let body = [extension.unwrap_or_default(), transport].concat();
                let (src, dst) = (six(src).octets(), six(dst).octets());
                [&[0x60, 0, 0, 0][..], &size(body.len()), &[next, self.hops], &src, &dst, &body].concat()
            }
        }
    }

    fn transport(&self) -> Vec<u8> {
        if self.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return self.payload.clone();
        }
        let build = |sum: [u8; 2]| match self.transport {
            Transport::Udp(from, to) => {
                [&from.to_be_bytes()[..], &to.to_be_bytes(), &size(8 + self.payload.len()), &sum, &self.payload]
                    .concat()
            }
            Transport::Tcp(from, to, flags) => {
                let numbers = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0];
                [&from.to_be_bytes()[..], &to.to_be_bytes(), &numbers, &sum, &[0, 0], &self.payload].concat()
            }
            Transport::Icmp(kind, code, rest) => [&[kind, code][..], &sum, &rest, &self.payload].concat(),
            Transport::Bare(_) => self.payload.clone(),
        };
        let blank = build([0, 0]);
        let protocol = self.protocol();
        let pseudo = if protocol == ICMP { Vec::new() } else { self.pseudo_header(blank.len(), protocol) };
        build(checksum(&[pseudo, blank].concat()))
    }

    fn pseudo_header(&self, length: usize, protocol: u8) -> Vec<u8> {
        let length = size(length);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => [&src.octets()[..], &dst.octets(), &[0, protocol], &length].concat(),
            (src, dst) => [&six(src).octets()[..], &six(dst).octets(), &[0, 0], &length, &[0, 0, 0, protocol]].concat(),
        }
    }
}

/// A frame in VXLAN (RFC 7348), as the payload of a datagram.
#[must_use]
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[0x08, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

fn size(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or_default();
    (!sum).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    const SIX: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

    fn packet([src, dst]: [&str; 2], transport: Transport) -> Packet {
        Packet::new(src.parse().unwrap(), dst.parse().unwrap(), transport, b"twenty octets are in")
    }

    #[test]
    fn what_is_summed_with_its_checksum_gives_zero() {
        for transport in [Transport::Udp(1, 2), Transport::Tcp(1, 2, SYN), Transport::Icmp(8, 0, [1, 2, 3, 4])] {
            for ends in [FOUR, SIX] {
                let packet = packet(ends, transport);
                let body = packet.transport();
                let protocol = packet.protocol();
                let pseudo = if protocol == ICMP { Vec::new() } else { packet.pseudo_header(body.len(), protocol) };
                assert_eq!(checksum(&[pseudo, body].concat()), [0, 0], "{packet:?}");
            }
        }
        assert_eq!(checksum(&packet(FOUR, Transport::Udp(1, 2)).network()[..20]), [0, 0]);
    }

    #[test]
    fn two_fragments_are_the_packet() {
        for (ends, header) in [(FOUR, 20), (SIX, 48)] {
            let whole = packet(ends, Transport::Udp(1, 2));
            let [first, later] = whole.split(7, 2).map(|part| part.network()[header..].to_vec());
            assert_eq!((first.len(), [first, later].concat()), (16, whole.transport()));
        }
        let [first, later] = packet(FOUR, Transport::Udp(1, 2)).split(7, 2).map(|part| part.network()[4..8].to_vec());
        assert_eq!((first, later), (vec![0, 7, 0x20, 0], vec![0, 7, 0, 2]));
    }

    #[test]
    fn the_network_identifier_has_three_octets() {
        assert_eq!(vxlan(0x0a_0b0c, b"frame"), b"\x08\0\0\0\x0a\x0b\x0c\0frame");
    }
}
