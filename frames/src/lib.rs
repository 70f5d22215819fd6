// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a frame that cannot be made is a mistake of the test that asks for it"
)]

mod checksum;
mod link;

pub use checksum::checksum;
pub use link::{arp, foreign, vxlan};

use checksum::crc32c;
use std::net::IpAddr;

#[cfg(test)]
mod tests;

/// A hardware address.
pub type Mac = [u8; 6];

/// Destination of all frames, unless another one is given.
pub const NODE_MAC: Mac = [2, 0, 0, 0, 0xff, 2];
/// Source of all frames, unless another one is given.
pub const WIRE_MAC: Mac = [2, 0, 0, 0, 0xff, 1];

/// TCP flags (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Resets a connection.
pub const RST: u8 = 0x04;
/// Acknowledges.
pub const ACK: u8 = 0x10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// What follows the network header.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// A datagram.
    Udp { sport: u16, dport: u16 },
    /// A segment.
    Tcp { sport: u16, dport: u16, flags: u8 },
    /// A packet of SCTP.
    Sctp { sport: u16, dport: u16 },
    /// A message of ICMP or ICMPv6, by family; `rest` are the four octets after the checksum.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// The payload alone, under a protocol number.
    Other { proto: u8 },
}

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    id: u32,
    /// In units of eight octets.
    offset: u16,
    more: bool,
}

/// An IPv4 or IPv6 packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// What it carries.
    pub transport: Transport,
    src_mac: Mac,
    dst_mac: Mac,
    vlan: Option<u16>,
    ttl: u8,
    /// Of a TCP segment.
    number: u32,
    acknowledged: u32,
    fragment: Option<Fragment>,
    extensions: Vec<u8>,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Packet {
    /// A packet with some payload.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, transport: Transport) -> Self {
        Self {
            src,
            dst,
            transport,
            src_mac: WIRE_MAC,
            dst_mac: NODE_MAC,
            vlan: None,
            ttl: 64,
            // All begin with the same number, and acknowledge it.
            number: 1,
            acknowledged: 2,
            fragment: None,
            extensions: Vec::new(),
            options: Vec::new(),
            payload: b"sixteen bytes!!!".to_vec(),
        }
    }

    /// A datagram.
    #[must_use]
    pub fn udp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16)) -> Self {
        Self::new(src, dst, Transport::Udp { sport, dport })
    }

    /// A segment with these flags.
    #[must_use]
    pub fn tcp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16), flags: u8) -> Self {
        Self::new(src, dst, Transport::Tcp { sport, dport, flags })
    }

    /// A packet of SCTP.
    #[must_use]
    pub fn sctp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16)) -> Self {
        Self::new(src, dst, Transport::Sctp { sport, dport })
    }

    /// An echo request of the family's ICMP.
    #[must_use]
    pub fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Transport::Icmp { kind: if src.is_ipv4() { 8 } else { 128 }, code: 0, rest: echo(id) })
    }

    /// The answer to one.
    #[must_use]
    pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Transport::Icmp { kind: if src.is_ipv4() { 0 } else { 129 }, code: 0, rest: echo(id) })
    }

    /// "Packet too big", for both families, about a packet.
    #[must_use]
    pub fn too_big(src: IpAddr, dst: IpAddr, about: &Self) -> Self {
        let (kind, code) = if src.is_ipv4() { (3, 4) } else { (2, 0) };
        Self::new(src, dst, Transport::Icmp { kind, code, rest: [0, 0, 5, 0] }).payload(&about.network())
    }

    /// The packet that answers this one.
    #[must_use]
    pub fn reply(&self) -> Self {
        let transport = match self.transport {
            Transport::Udp { sport, dport } => Transport::Udp { sport: dport, dport: sport },
            Transport::Tcp { sport, dport, .. } => Transport::Tcp { sport: dport, dport: sport, flags: SYN | ACK },
            Transport::Sctp { sport, dport } => Transport::Sctp { sport: dport, dport: sport },
            Transport::Icmp { rest, .. } => {
                Transport::Icmp { kind: if self.src.is_ipv4() { 0 } else { 129 }, code: 0, rest }
            }
            Transport::Other { proto } => Transport::Other { proto },
        };
        Self { src: self.dst, dst: self.src, transport, ..self.clone() }
    }

    /// With another source, whose port is the identifier for ICMP.
    #[must_use]
    pub fn from(mut self, (src, port): (IpAddr, u16)) -> Self {
        self.src = src;
        match &mut self.transport {
            Transport::Udp { sport, .. } | Transport::Tcp { sport, .. } | Transport::Sctp { sport, .. } => {
                *sport = port;
            }
            Transport::Icmp { rest, .. } => *rest = echo(port),
            Transport::Other { .. } => {}
        }
        self
    }

    /// With another destination, likewise.
    #[must_use]
    pub fn to(mut self, (dst, port): (IpAddr, u16)) -> Self {
        self.dst = dst;
        match &mut self.transport {
            Transport::Udp { dport, .. } | Transport::Tcp { dport, .. } | Transport::Sctp { dport, .. } => {
                *dport = port;
            }
            Transport::Icmp { rest, .. } => *rest = echo(port),
            Transport::Other { .. } => {}
        }
        self
    }

    /// With these hardware addresses, source first.
    #[must_use]
    pub fn macs(self, src_mac: Mac, dst_mac: Mac) -> Self {
        Self { src_mac, dst_mac, ..self }
    }

    /// With another TTL or hop limit.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// With a sequence number, and the one that it acknowledges, for TCP.
    #[must_use]
    pub fn numbers(self, number: u32, acknowledged: u32) -> Self {
        Self { number, acknowledged, ..self }
    }

    /// With an 802.1Q tag.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        Self { vlan: Some(id), ..self }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Replaces the payload.
    pub fn set_payload(&mut self, payload: Vec<u8>) {
        self.payload = payload;
    }

    /// Replaces the type of a message of ICMP.
    pub fn set_icmp_type(&mut self, to: u8) {
        if let Transport::Icmp { kind, .. } = &mut self.transport {
            *kind = to;
        }
    }

    /// With one more IPv6 extension header: its type, and its bytes from the third on, padded to a multiple of eight.
    #[must_use]
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        // The type is kept in front; `network` turns the list into a chain.
        let len = (body.len() + 2).next_multiple_of(8);
        self.extensions.extend([kind, u8::try_from(len / 8 - 1).unwrap_or(u8::MAX)]);
        self.extensions.extend(body);
        self.extensions.resize(self.extensions.len() + len - 2 - body.len(), 0);
        self
    }

    /// With these IPv4 options before those that it has, a multiple of four octets.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = [options, &self.options].concat();
        self
    }

    /// As a fragment, `offset` in units of eight octets. Only the first one has the transport's header, which should be padded to eight octets.
    #[must_use]
    pub fn fragment(self, id: u32, offset: u16, more: bool) -> Self {
        Self { fragment: Some(Fragment { id, offset, more }), ..self }
    }

    /// The packet in two fragments, cut at a multiple of eight octets after the network header.
    #[must_use]
    pub fn split(&self, id: u32, at: u16) -> [Self; 2] {
        let whole = self.transport_bytes();
        let (first, later) = whole.split_at(whole.len().min(usize::from(at) * 8));
        let part = |payload: &[u8], offset, more| {
            let transport = Transport::Other { proto: self.proto() };
            Self { transport, ..self.clone() }.payload(payload).fragment(id, offset, more)
        };
        [part(first, 0, true), part(later, at, false)]
    }

    /// The protocol number of the transport.
    #[must_use]
    pub fn proto(&self) -> u8 {
        match self.transport {
            Transport::Udp { .. } => UDP,
            Transport::Tcp { .. } => TCP,
            Transport::Sctp { .. } => SCTP,
            Transport::Icmp { .. } if self.src.is_ipv4() => ICMP,
            Transport::Icmp { .. } => ICMPV6,
            Transport::Other { proto } => proto,
        }
    }

    /// The whole frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.dst_mac, self.src_mac].concat();
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.network());
        frame
    }

    /// The whole frame, with the sum of the pseudo header in place of the transport checksum, as whoever leaves that to a card sends it.
    #[must_use]
    pub fn without_checksum(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        let transport = self.transport_bytes().len();
        let at = frame.len() - transport + if self.proto() == TCP { 16 } else { 6 };
        let [a, b] = checksum(&self.pseudo_header(transport));
        frame[at..at + 2].copy_from_slice(&[!a, !b]);
        frame
    }

    /// From the network header on.
    #[must_use]
    pub fn network(&self) -> Vec<u8> {
        let transport = self.transport_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = 20 + self.options.len();
                let mut header = [&[0x40 | (length / 4) as u8, 0], &size(length + transport.len())[..]].concat();
                let fragment = self.fragment.unwrap_or(Fragment { id: 0, offset: 0, more: false });
                header.extend((fragment.id as u16).to_be_bytes());
                header.extend((fragment.offset | u16::from(fragment.more) << 13).to_be_bytes());
                header.extend([self.ttl, self.proto(), 0, 0]);
                header.extend([src.octets(), dst.octets()].concat());
                header.extend(&self.options);
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum);
                [header, transport].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (first, extensions) = self.chain();
                let length = size(extensions.len() + transport.len());
                let header = [&[0x60, 0, 0, 0], &length[..], &[first, self.ttl], &src.octets(), &dst.octets()].concat();
                [header, extensions, transport].concat()
            }
            _ => panic!("one address of each family"),
        }
    }

    /// The first next-header value, and the extension headers with theirs.
    fn chain(&self) -> (u8, Vec<u8>) {
        let mut kinds = Vec::new();
        let mut bytes = Vec::new();
        let mut rest = self.extensions.as_slice();
        while let [kind, len, ..] = *rest {
            let size = (usize::from(len) + 1) * 8;
            kinds.push((kind, bytes.len()));
            bytes.extend([0, len]);
            bytes.extend(&rest[2..size]);
            rest = &rest[size..];
        }
        if let Some(fragment) = self.fragment {
            kinds.push((FRAGMENT, bytes.len()));
            bytes.extend([0, 0]);
            bytes.extend((fragment.offset << 3 | u16::from(fragment.more)).to_be_bytes());
            bytes.extend(fragment.id.to_be_bytes());
        }
        let mut next = self.proto();
        for (kind, at) in kinds.into_iter().rev() {
            bytes[at] = next;
            next = kind;
        }
        (next, bytes)
    }

    fn transport_bytes(&self) -> Vec<u8> {
        if self.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return self.payload.clone();
        }
        let (mut bytes, at) = match self.transport {
            Transport::Udp { sport, dport } => {
                ([sport.to_be_bytes(), dport.to_be_bytes(), size(8 + self.payload.len()), [0, 0]].concat(), 6)
            }
            Transport::Tcp { sport, dport, flags } => {
                let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                header.extend(self.number.to_be_bytes());
                let acknowledged = if flags & ACK == 0 { 0 } else { self.acknowledged };
                header.extend(acknowledged.to_be_bytes());
                header.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
                (header, 16)
            }
            Transport::Sctp { sport, dport } => return self.sctp_bytes(sport, dport),
            Transport::Icmp { kind, code, rest } => ([&[kind, code, 0, 0][..], &rest].concat(), 2),
            Transport::Other { .. } => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        let pseudo = if self.proto() == ICMP { Vec::new() } else { self.pseudo_header(bytes.len()) };
        let checksum = checksum(&[pseudo.as_slice(), &bytes].concat());
        bytes[at..at + 2].copy_from_slice(&checksum);
        bytes
    }

    /// A common header and the payload, with the checksum over both (RFC 9260, 6.8).
    fn sctp_bytes(&self, sport: u16, dport: u16) -> Vec<u8> {
        let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), [0, 0], [0, 7], [0, 0], [0, 0]].concat();
        bytes.extend(&self.payload);
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let addresses = [octets(self.src), octets(self.dst)].concat();
        [&addresses[..], &[0, 0], &size(len), &[0, 0, 0, self.proto()]].concat()
    }
}

fn echo(id: u16) -> [u8; 4] {
    let [a, b] = id.to_be_bytes();
    [a, b, 0, 1]
}

fn size(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}

/// The bytes of an address.
#[must_use]
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
