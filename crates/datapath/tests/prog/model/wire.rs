// SPDX-License-Identifier: Apache-2.0
//! Packets of a talk, and the talk of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::talk::{End, Message, Place, Proto, Talk};
use crate::packet::Packet;

const TUNNEL_PORT: u16 = 8472;
/// Outer headers over IPv4, and the inner Ethernet header.
const OUTER: usize = 50;

/// The frame of a message; `node` is where tunnels end.
pub(crate) fn frame(message: &Message, node: IpAddr) -> Vec<u8> {
    let Talk { from, to, proto } = message.talk;
    let ends = ((from.ip, from.port.unwrap_or_default()), (to.ip, to.port.unwrap_or_default()));
    let packet = match proto {
        Proto::Tcp => Packet::tcp(ends.0, ends.1, message.flags),
        Proto::Udp => Packet::udp(ends.0, ends.1),
        Proto::Echo if message.talk.asks() => Packet::echo_request(from.ip, to.ip, ends.0.1),
        Proto::Echo => Packet::echo_reply(from.ip, to.ip, ends.1.1),
    };
    let Place::Tunnel { node: sender, vni } = message.place else { return packet.bytes() };
    let mut outer = Packet::udp((sender, 50000), (node, TUNNEL_PORT));
    outer.set_payload([&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), &packet.bytes()].concat());
    outer.bytes()
}

/// A frame, and if it is of the tunnel what is inside: (node, identity, frame).
pub(crate) fn tunnelled(frame: &[u8]) -> Option<(IpAddr, u32, &[u8])> {
    let talk = talk(frame);
    if talk.proto != Proto::Udp || talk.to.port != Some(TUNNEL_PORT) {
        return None;
    }
    let vni = u32::from_be_bytes(frame[OUTER - 4..OUTER].try_into().unwrap()) >> 8;
    Some((talk.to.ip, vni, &frame[OUTER..]))
}

/// Who speaks to whom in a frame.
pub(crate) fn talk(frame: &[u8]) -> Talk {
    let (proto, src, dst, l4): (u8, IpAddr, IpAddr, &[u8]) = if frame[12..14] == [8, 0] {
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap()).into();
        (frame[23], ip(26), ip(30), &frame[34..])
    } else {
        let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap()).into();
        (frame[20], ip(22), ip(38), &frame[54..])
    };
    let port = |at: usize| Some(u16::from_be_bytes([l4[at], l4[at + 1]]));
    let (proto, sport, dport) = match (proto, l4[0]) {
        (6, _) => (Proto::Tcp, port(0), port(2)),
        (17, _) => (Proto::Udp, port(0), port(2)),
        (_, 8 | 128) => (Proto::Echo, port(4), None),
        _ => (Proto::Echo, None, port(4)),
    };
    Talk { from: End { ip: src, port: sport }, to: End { ip: dst, port: dport }, proto }
}
