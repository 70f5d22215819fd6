// SPDX-License-Identifier: Apache-2.0
//! Packets of a talk, and the talk of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::flow::proto;

use super::talk::{End, Message, Part, Place, Proto, Talk, Words};
use crate::packet::{ACK, Packet};

const ETHERNET: usize = 14;
/// IPv6's fragment header.
const FRAGMENT: u8 = 44;
const TUNNEL_PORT: u16 = 8472;
/// Outer headers over IPv4, and the inner Ethernet header.
const OUTER: usize = 50;

/// The frame of a message; `node` is where tunnels end.
pub(crate) fn frame(message: &Message, node: IpAddr) -> Vec<u8> {
    let Talk { from, to, .. } = message.talk;
    let packet = match message.about {
        Some(about) => {
            let mut error = Packet::too_big(from.ip, to.ip, &packet(about, ACK));
            error.set_icmp_type(message.flags);
            error
        }
        None => packet(message.talk, message.flags),
    };
    let packet = match message.part {
        Part::Whole => packet,
        Part::First(id) => packet.fragment(id, 0, true),
        Part::Later(id) => packet.fragment(id, 3, false),
    };
    let Place::Tunnel { node: sender, vni } = message.place else { return packet.bytes() };
    let mut outer = Packet::udp((sender, 50000), (node, TUNNEL_PORT));
    outer.set_payload([&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), &packet.bytes()].concat());
    outer.bytes()
}

fn packet(talk: Talk, flags: u8) -> Packet {
    let Talk { from, to, proto } = talk;
    let ends = ((from.ip, from.port.unwrap_or_default()), (to.ip, to.port.unwrap_or_default()));
    match proto {
        Proto::Tcp => Packet::tcp(ends.0, ends.1, flags),
        Proto::Udp => Packet::udp(ends.0, ends.1),
        Proto::Echo if talk.asks() => Packet::echo_request(from.ip, to.ip, ends.0.1),
        Proto::Echo => Packet::echo_reply(from.ip, to.ip, ends.1.1),
        Proto::Error => unreachable!("an error is about a packet"),
    }
}

/// A frame, and if it is of the tunnel what is inside: (node, identity, frame).
pub(crate) fn tunnelled(frame: &[u8]) -> Option<(IpAddr, u32, &[u8])> {
    let (talk, _) = talk(&frame[ETHERNET..]);
    if talk.proto != Proto::Udp || talk.to.port != Some(TUNNEL_PORT) {
        return None;
    }
    let vni = u32::from_be_bytes(frame[OUTER - 4..OUTER].try_into().unwrap()) >> 8;
    Some((talk.to.ip, vni, &frame[OUTER..]))
}

/// Who speaks to whom in a frame, and about what.
pub(crate) fn words(frame: &[u8]) -> Words {
    let (talk, rest) = talk(&frame[ETHERNET..]);
    Words { talk, about: (talk.proto == Proto::Error).then(|| self::talk(rest).0) }
}

/// Who speaks to whom in a packet from its network header on, and what an error quotes.
fn talk(packet: &[u8]) -> (Talk, &[u8]) {
    let (proto, src, dst, offset, l4): (u8, IpAddr, IpAddr, u16, &[u8]) = if packet[0] >> 4 == 4 {
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()).into();
        (packet[9], ip(12), ip(16), word(packet, 6) & 0x1fff, &packet[20..])
    } else {
        let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()).into();
        match packet[6] {
            FRAGMENT => (packet[40], ip(8), ip(24), word(packet, 42) >> 3, &packet[48..]),
            proto => (proto, ip(8), ip(24), 0, &packet[40..]),
        }
    };
    let port = |at: usize| Some(word(l4, at));
    let (proto, sport, dport) = match (proto, l4[0]) {
        (proto::TCP, _) => (Proto::Tcp, port(0), port(2)),
        (proto::UDP, _) => (Proto::Udp, port(0), port(2)),
        _ if offset > 0 => (Proto::Echo, None, None),
        (_, 8 | 128) => (Proto::Echo, port(4), None),
        (_, 0 | 129) => (Proto::Echo, None, port(4)),
        _ => (Proto::Error, None, None),
    };
    let talk = Talk { from: End { ip: src, port: sport }, to: End { ip: dst, port: dport }, proto };
    (if offset > 0 { talk.without_ports() } else { talk }, &l4[8..])
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
