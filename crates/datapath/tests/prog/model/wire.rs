// SPDX-License-Identifier: Apache-2.0
//! Packets of a talk, and the talk of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::flow::proto;

use super::talk::{End, Message, Part, Place, Proto, Talk, Words};
use crate::direct::telling;
use crate::ipip::{IPV4_INSIDE, IPV6_INSIDE, inside};
use crate::packet::{ACK, Packet};

const ETHERNET: usize = 14;
/// IPv6's fragment header.
const FRAGMENT: u8 = 44;
/// IPv6's destination options, and the one of IPv4 and of IPv6 by which a node tells of a frontend.
const DESTINATION_OPTIONS: u8 = 60;
const FRONTEND4: [u8; 2] = [0x9a, 8];
const FRONTEND6: [u8; 2] = [0x1b, 20];
const TUNNEL_PORT: u16 = 8472;
/// Outer headers over IPv4, and the inner Ethernet header.
const OUTER: usize = 50;

/// The frame of a message; `node` is where tunnels end. `asked` is the node that sends packets in its own.
pub(crate) fn frame(message: &Message, node: IpAddr, asked: IpAddr) -> Vec<u8> {
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
    let packet = match message.tells {
        Some(frontend) => telling(packet, (frontend.ip, frontend.port.unwrap())),
        None => packet,
    };
    if let Some(backend) = message.inside {
        return inside(asked, backend, &packet).bytes();
    }
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
    let Parsed { talk, .. } = parse(&frame[ETHERNET..]);
    if talk.proto != Proto::Udp || talk.to.port != Some(TUNNEL_PORT) {
        return None;
    }
    let vni = u32::from_be_bytes(frame[OUTER - 4..OUTER].try_into().unwrap()) >> 8;
    Some((talk.to.ip, vni, &frame[OUTER..]))
}

/// Who speaks to whom in a frame, about what, and which frontend it tells of.
pub(crate) fn words(frame: &[u8]) -> Words {
    let packet = &frame[ETHERNET..];
    let (backend, packet) = match outer(packet) {
        Some((backend, inner)) => (Some(backend), inner),
        None => (None, packet),
    };
    let Parsed { talk, tells, rest } = parse(packet);
    Words { talk, about: (talk.proto == Proto::Error).then(|| parse(rest).talk), tells, inside: backend }
}

/// Where a packet goes that has another inside, and what that is.
fn outer(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (v4, header) = if packet[0] >> 4 == 4 { (true, 20) } else { (false, 40) };
    let is_one = if v4 { packet[9] == IPV4_INSIDE } else { packet[6] == IPV6_INSIDE };
    let dst = if v4 { ipv4(packet).dst } else { ipv6(packet).dst };
    is_one.then(|| (dst, &packet[header..]))
}

/// A packet from its network header on.
struct Parsed<'a> {
    talk: Talk,
    tells: Option<End>,
    /// What an error quotes.
    rest: &'a [u8],
}

/// Up to the transport header.
struct Network<'a> {
    proto: u8,
    src: IpAddr,
    dst: IpAddr,
    later: bool,
    tells: Option<End>,
    transport: &'a [u8],
}

fn parse(packet: &[u8]) -> Parsed<'_> {
    let Network { proto, src, dst, later, tells, transport } =
        if packet[0] >> 4 == 4 { ipv4(packet) } else { ipv6(packet) };
    let port = |at: usize| Some(word(transport, at));
    let (proto, sport, dport) = match (proto, transport[0]) {
        (proto::TCP, _) => (Proto::Tcp, port(0), port(2)),
        (proto::UDP, _) => (Proto::Udp, port(0), port(2)),
        _ if later => (Proto::Echo, None, None),
        (_, 8 | 128) => (Proto::Echo, port(4), None),
        (_, 0 | 129) => (Proto::Echo, None, port(4)),
        _ => (Proto::Error, None, None),
    };
    let talk = Talk { from: End { ip: src, port: sport }, to: End { ip: dst, port: dport }, proto };
    Parsed { talk: if later { talk.without_ports() } else { talk }, tells, rest: &transport[8..] }
}

fn ipv4(packet: &[u8]) -> Network<'_> {
    let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()).into();
    let header = usize::from(packet[0] & 0xf) * 4;
    let told = header >= 28 && packet[20..22] == FRONTEND4;
    Network {
        proto: packet[9],
        src: ip(12),
        dst: ip(16),
        later: word(packet, 6) & 0x1fff > 0,
        tells: told.then(|| End { ip: ip(24), port: Some(word(packet, 22)) }),
        transport: &packet[header..],
    }
}

fn ipv6(packet: &[u8]) -> Network<'_> {
    let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()).into();
    let (mut proto, mut at, mut later, mut tells) = (packet[6], 40, false, None);
    if proto == DESTINATION_OPTIONS {
        let told = packet[42..44] == FRONTEND6;
        tells = told.then(|| End { ip: ip(44), port: Some(word(packet, 60)) });
        (proto, at) = (packet[40], 64);
    }
    if proto == FRAGMENT {
        later = word(packet, at + 2) >> 3 > 0;
        (proto, at) = (packet[at], at + 8);
    }
    Network { proto, src: ip(8), dst: ip(24), later, tells, transport: &packet[at..] }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
