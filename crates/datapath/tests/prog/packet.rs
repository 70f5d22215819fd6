// SPDX-License-Identifier: Apache-2.0
//! Packets made by hand, byte for byte, with right lengths and checksums unless a test wants them wrong.

use std::net::IpAddr;

use abi::flow::proto;

use crate::devices::NODE_MAC;

pub(crate) const SYN: u8 = abi::flow::tcp::SYN;
pub(crate) const ACK: u8 = abi::flow::tcp::ACK;
pub(crate) const FIN: u8 = abi::flow::tcp::FIN;
pub(crate) const RST: u8 = abi::flow::tcp::RST;

/// What follows the network header.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Udp { sport: u16, dport: u16 },
    Tcp { sport: u16, dport: u16, flags: u8 },
    Sctp { sport: u16, dport: u16 },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    Other { proto: u8 },
}

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    /// In units of eight bytes.
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

/// An IPv4 or IPv6 packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    vlan: Option<u16>,
    ttl: u8,
    /// Of a TCP segment.
    number: u32,
    acknowledged: u32,
    fragment: Option<Fragment>,
    extensions: Vec<u8>,
    pub(crate) transport: Transport,
    payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(src: IpAddr, dst: IpAddr, transport: Transport) -> Self {
        Self {
            src,
            dst,
            src_mac: [2, 0, 0, 0, 0xff, 1],
            dst_mac: NODE_MAC,
            vlan: None,
            ttl: 64,
            // All begin with the same number, and acknowledge it.
            number: 1,
            acknowledged: 2,
            fragment: None,
            extensions: Vec::new(),
            transport,
            payload: b"sixteen bytes!!!".to_vec(),
        }
    }

    pub(crate) fn udp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16)) -> Self {
        Self::new(src, dst, Transport::Udp { sport, dport })
    }

    pub(crate) fn tcp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16), flags: u8) -> Self {
        Self::new(src, dst, Transport::Tcp { sport, dport, flags })
    }

    pub(crate) fn sctp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16)) -> Self {
        Self::new(src, dst, Transport::Sctp { sport, dport })
    }

    pub(crate) fn set_icmp_type(&mut self, to: u8) {
        if let Transport::Icmp { kind, .. } = &mut self.transport {
            *kind = to;
        }
    }

    pub(crate) fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Transport::Icmp { kind: if src.is_ipv4() { 8 } else { 128 }, code: 0, rest: echo(id) })
    }

    pub(crate) fn echo_reply(src: IpAddr, dst: IpAddr, id: u16) -> Self {
        Self::new(src, dst, Transport::Icmp { kind: if src.is_ipv4() { 0 } else { 129 }, code: 0, rest: echo(id) })
    }

    /// "Packet too big", for both families, about a packet.
    pub(crate) fn too_big(src: IpAddr, dst: IpAddr, about: &Self) -> Self {
        let (kind, code) = if src.is_ipv4() { (3, 4) } else { (2, 0) };
        let mut packet = Self::new(src, dst, Transport::Icmp { kind, code, rest: [0, 0, 5, 0] });
        packet.payload = about.network();
        packet
    }

    /// The packet that answers this one.
    pub(crate) fn reply(&self) -> Self {
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

    pub(crate) fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The sequence number of a TCP segment, and the one that it acknowledges.
    pub(crate) fn numbers(mut self, number: u32, acknowledged: u32) -> Self {
        (self.number, self.acknowledged) = (number, acknowledged);
        self
    }

    pub(crate) fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    pub(crate) fn set_payload(&mut self, payload: Vec<u8>) {
        self.payload = payload;
    }

    pub(crate) fn from(mut self, (src, port): (IpAddr, u16)) -> Self {
        self.src = src;
        match &mut self.transport {
            Transport::Udp { sport, .. } | Transport::Tcp { sport, .. } | Transport::Sctp { sport, .. } => {
                *sport = port
            }
            Transport::Icmp { rest, .. } => *rest = echo(port),
            Transport::Other { .. } => {}
        }
        self
    }

    pub(crate) fn to(mut self, (dst, port): (IpAddr, u16)) -> Self {
        self.dst = dst;
        match &mut self.transport {
            Transport::Udp { dport, .. } | Transport::Tcp { dport, .. } | Transport::Sctp { dport, .. } => {
                *dport = port
            }
            Transport::Icmp { rest, .. } => *rest = echo(port),
            Transport::Other { .. } => {}
        }
        self
    }

    /// IPv6 extension headers: (type, bytes from its third on), each filled up to a multiple of eight.
    pub(crate) fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        // The type is kept in front; `network` turns the list into a chain.
        let len = (body.len() + 2).next_multiple_of(8);
        self.extensions.push(kind);
        self.extensions.push(u8::try_from(len / 8 - 1).unwrap());
        self.extensions.extend(body);
        self.extensions.resize(self.extensions.len() + len - 2 - body.len(), 0);
        self
    }

    pub(crate) fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { id, offset, more });
        self
    }

    fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    fn proto(&self) -> u8 {
        match self.transport {
            Transport::Udp { .. } => proto::UDP,
            Transport::Tcp { .. } => proto::TCP,
            Transport::Sctp { .. } => proto::SCTP,
            Transport::Icmp { .. } if self.src.is_ipv4() => proto::ICMP,
            Transport::Icmp { .. } => proto::ICMPV6,
            Transport::Other { proto } => proto,
        }
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
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
    pub(crate) fn without_checksum(&self) -> Vec<u8> {
        let mut frame = self.bytes();
        let transport = self.transport_bytes().len();
        let at = frame.len() - transport + if self.proto() == proto::TCP { 16 } else { 6 };
        let [a, b] = checksum(&self.pseudo_header(transport));
        frame[at..at + 2].copy_from_slice(&[!a, !b]);
        frame
    }

    /// From the network header on.
    pub(crate) fn network(&self) -> Vec<u8> {
        let transport = self.transport_bytes();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = vec![0x45, 0];
                header.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
                let fragment = self.fragment.unwrap_or(Fragment { id: 0, offset: 0, more: false });
                header.extend((fragment.id as u16).to_be_bytes());
                header.extend((fragment.offset | if fragment.more { 0x2000 } else { 0 }).to_be_bytes());
                header.extend([self.ttl, self.proto(), 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                let checksum = checksum(&header);
                header[10..12].copy_from_slice(&checksum);
                [header, transport].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (first, extensions) = self.chain();
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(u16::try_from(extensions.len() + transport.len()).unwrap().to_be_bytes());
                header.extend([first, self.ttl]);
                header.extend(src.octets());
                header.extend(dst.octets());
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
            kinds.push((44, bytes.len()));
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
        if self.is_later_fragment() {
            return self.payload.clone();
        }
        let len = |header: usize| u16::try_from(header + self.payload.len()).unwrap().to_be_bytes();
        let (mut bytes, at) = match self.transport {
            Transport::Udp { sport, dport } => {
                ([sport.to_be_bytes(), dport.to_be_bytes(), len(8), [0, 0]].concat(), Some(6))
            }
            Transport::Tcp { sport, dport, flags } => {
                let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                header.extend(self.number.to_be_bytes());
                let acknowledged = if flags & ACK == 0 { 0 } else { self.acknowledged };
                header.extend(acknowledged.to_be_bytes());
                header.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
                (header, Some(16))
            }
            Transport::Sctp { sport, dport } => return self.sctp_bytes(sport, dport),
            Transport::Icmp { kind, code, rest } => ([&[kind, code, 0, 0][..], &rest].concat(), Some(2)),
            Transport::Other { .. } => (Vec::new(), None),
        };
        bytes.extend(&self.payload);
        if let Some(at) = at {
            let pseudo = if self.proto() == proto::ICMP { Vec::new() } else { self.pseudo_header(bytes.len()) };
            let checksum = checksum(&[pseudo.as_slice(), &bytes].concat());
            bytes[at..at + 2].copy_from_slice(&checksum);
        }
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
        let mut header = octets(self.src);
        header.extend(octets(self.dst));
        header.extend(u32::try_from(len).unwrap().to_be_bytes());
        header.extend(u32::from(self.proto()).to_be_bytes());
        header
    }
}

fn echo(id: u16) -> [u8; 4] {
    let [a, b] = id.to_be_bytes();
    [a, b, 0, 1]
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// CRC-32C, bit by bit (RFC 3720, 12.1).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |remainder: u32, byte| {
        (0..8).fold(remainder ^ u32::from(*byte), |r, _| if r & 1 == 1 { r >> 1 ^ 0x82f6_3b78 } else { r >> 1 })
    })
}

/// Source port of a frame without options.
pub(crate) fn source_port(frame: &[u8]) -> u16 {
    let at = 14 + if frame[12..14] == [8, 0] { 20 } else { 40 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// An ARP request or reply (RFC 826).
pub(crate) fn arp(operation: u8, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4]), dst: [u8; 6]) -> Vec<u8> {
    let mut frame = [dst, sender.0].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
    frame
}
