// SPDX-License-Identifier: Apache-2.0
//! Each kind of flow as the programs of version 1 wrote it.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use abi::flow::State;
use abi::flow::tcp::{ACK, FIN, RST, SYN};
use abi::spine::flags::{CLOSING, ESTABLISHED, MASQUERADE, NAT_DST, NAT_SRC, REPLY};
use abi::spine::{ARRIVING, FROM_POD, opposite};

const POD_IFINDEX: u32 = 20;
const OTHER_IFINDEX: u32 = 22;
const OVERLAY: u32 = 5;
const NATIVE: u32 = 2;

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn pod() -> Endpoint {
    Endpoint { ifindex: POD_IFINDEX, id: 10, identity: 300, mac: [1; 6], host_mac: [2; 6], ..Endpoint::default() }
}

/// A pair of entries as it stood in the table.
#[derive(Clone, Copy)]
struct Pair {
    key: spine::FlowKey,
    forward: FlowEntry,
    reply: FlowEntry,
}

impl Pair {
    /// The pod opens a flow, which is sent on by `action` through that interface.
    fn from_pod(proto: u8, action: u8, out_ifindex: u32) -> Self {
        let dst = addr("10.0.1.20");
        let (sport, dport) = (41000_u16.to_be(), 8080_u16.to_be());
        let key = spine::FlowKey { src: addr("10.0.0.10"), dst, sport, dport, proto, hook: FROM_POD, pad: 0 };
        let forward = FlowEntry {
            topology_epoch: 7,
            src_epoch: 8,
            dst_epoch: 9,
            src_endpoint: 10,
            src_identity: 300,
            dst_identity: 301,
            in_ifindex: POD_IFINDEX,
            out_ifindex,
            action,
            provenance: 4,
            peer_slot: 70_000,
            created: 100,
            last_seen: 120,
            last_report: 118,
            packets: 5,
            bytes: 500,
            tcp_seen: SYN | ACK,
            tcp_reported: SYN,
            ..FlowEntry::default()
        };
        let reply = FlowEntry {
            src_identity: 301,
            dst_identity: 300,
            dst_endpoint: 10,
            // As `complete_reply` had it: what a pod of this node answers must come in there.
            in_ifindex: if action == action::LOCAL { out_ifindex } else { 0 },
            out_ifindex: POD_IFINDEX,
            action: action::LOCAL,
            flags: REPLY,
            dst_mac: [1; 6],
            src_mac: [2; 6],
            created: 100,
            last_seen: 121,
            last_report: 119,
            packets: 4,
            bytes: 400,
            tcp_seen: SYN | ACK | FIN,
            tcp_reported: SYN | FIN,
            ..forward
        };
        Self { key, forward, reply }
    }

    /// Somebody opens a flow to the pod; replies are sent by `action` through that interface.
    fn to_pod(action: u8, out_ifindex: u32) -> Self {
        let Self { key, forward, reply } = Self::from_pod(proto::TCP, action::LOCAL, POD_IFINDEX);
        let key = spine::FlowKey { src: addr("10.0.1.20"), dst: addr("10.0.0.10"), hook: ARRIVING, ..key };
        let ends = FlowEntry { src_endpoint: 0, dst_endpoint: 10, in_ifindex: 0, ..forward };
        let forward = FlowEntry { dst_mac: [1; 6], src_mac: [2; 6], ..ends };
        let reply =
            FlowEntry { in_ifindex: POD_IFINDEX, out_ifindex, action, dst_mac: [0; 6], src_mac: [0; 6], ..reply };
        Self { key, forward, reply }
    }

    fn established(mut self) -> Self {
        self.forward.flags |= ESTABLISHED;
        self.reply.flags |= ESTABLISHED;
        self
    }

    /// Goes to a service, whose backend is what the flow was to.
    fn to_service(mut self) -> Self {
        self.forward.flags |= NAT_DST;
        (self.forward.nat_dst, self.forward.nat_dport) = (self.key.dst, self.key.dport);
        (self.forward.service, self.forward.backend) = (3, 33);
        (self.key.dst, self.key.dport) = (addr("10.96.0.5"), 80_u16.to_be());
        self.reply.flags |= NAT_SRC;
        (self.reply.nat_src, self.reply.nat_sport) = (self.key.dst, self.key.dport);
        self
    }

    fn masqueraded(mut self, port: u16) -> Self {
        self.forward.flags |= NAT_SRC | MASQUERADE;
        (self.forward.nat_src, self.forward.nat_sport) = (addr("192.168.0.1"), port.to_be());
        self.reply.flags |= NAT_DST;
        (self.reply.nat_dst, self.reply.nat_dport) = (self.key.src, self.key.sport);
        self
    }

    fn convert(&self) -> (FlowKey, Flow) {
        convert(&self.key, &self.forward, &self.reply).unwrap()
    }
}

fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let (src, dst) = (addr(src), addr(dst));
    Tuple { src, dst, sport: sport.to_be(), dport: dport.to_be(), proto: proto::TCP, class: 0, asks: true }
}

fn macs(bytes: [u8; 2]) -> Addr {
    let [dst, src] = bytes;
    Addr::from_v6([dst, dst, dst, dst, dst, dst, src, src, src, src, src, src, 0, 0, 0, 0])
}

#[test]
fn a_record_keeps_what_both_entries_say() {
    let mut pair = Pair::from_pod(proto::TCP, action::LOCAL, OTHER_IFINDEX);
    (pair.forward.dst_endpoint, pair.forward.dst_mac, pair.forward.src_mac) = (11, [3; 6], [4; 6]);
    let (key, flow) = pair.convert();
    let (opening_key, from_b) = tuple("10.0.0.10", 41000, "10.0.1.20", 8080).key();
    let expected = Flow {
        tag: opening_key.tag(),
        topology_epoch: 7,
        src_epoch: 8,
        dst_epoch: 9,
        peers: 70_000,
        flags: if from_b { flags::OPENED_BY_B } else { 0 },
        src_endpoint: 10,
        dst_endpoint: 11,
        src_identity: 300,
        dst_identity: 301,
        provenance: 4,
        created: 100,
        forward: Half {
            hop: macs([3, 4]),
            bytes: 500,
            packets: 5,
            last_seen: 120,
            last_report: 118,
            origin: POD_IFINDEX,
            out_ifindex: OTHER_IFINDEX,
            action: action::LOCAL,
            tcp_seen: SYN | ACK,
            tcp_reported: SYN,
            ..Half::default()
        },
        reply: Half {
            hop: macs([1, 2]),
            bytes: 400,
            packets: 4,
            last_seen: 121,
            last_report: 119,
            origin: OTHER_IFINDEX,
            out_ifindex: POD_IFINDEX,
            action: action::LOCAL,
            tcp_seen: SYN | ACK | FIN,
            tcp_reported: SYN | FIN,
            ..Half::default()
        },
        ..Flow::default()
    };
    assert_eq!((key, flow), (opening_key, expected));
    assert_eq!(flow.opening(&key), tuple("10.0.0.10", 41000, "10.0.1.20", 8080));
}

#[test]
fn who_opened_a_flow_is_kept_whichever_address_is_the_lower() {
    let there = Pair::from_pod(proto::TCP, action::NEIGH, NATIVE);
    let mut back = there;
    (back.key.src, back.key.dst) = (back.key.dst, back.key.src);
    for pair in [there, back] {
        let (key, flow) = pair.convert();
        assert_eq!((flow.opening(&key).src, flow.opening(&key).dst), (pair.key.src, pair.key.dst));
        assert_eq!((flow.forward.packets, flow.reply.packets), (5, 4));
    }
}

#[test]
fn a_flow_into_the_tunnel_is_answered_through_it() {
    let mut pair = Pair::from_pod(proto::TCP, action::TUNNEL, OVERLAY);
    pair.forward.tunnel = addr("192.168.0.2");
    let (_, flow) = pair.convert();
    assert_eq!((flow.forward.hop, flow.forward.out_ifindex, flow.forward.flags), (addr("192.168.0.2"), OVERLAY, 0));
    assert_eq!((flow.forward.origin, flow.reply.origin), (POD_IFINDEX, origin::TUNNEL | OVERLAY));
}

#[test]
fn a_flow_to_the_host_is_answered_by_its_stack() {
    let (_, flow) = Pair::from_pod(proto::TCP, action::STACK, 0).convert();
    assert_eq!((flow.forward.action, flow.forward.hop), (action::STACK, Addr::NONE));
    assert_eq!((flow.forward.origin, flow.reply.origin), (POD_IFINDEX, origin::STACK | POD_IFINDEX));
}

#[test]
fn a_masqueraded_flow_keeps_its_address_and_port_and_is_found_by_its_replies() {
    let pair = Pair::from_pod(proto::TCP, action::NEIGH, NATIVE).masqueraded(50_000);
    let (key, flow) = pair.convert();
    assert!(flow.has(flags::NAT_SRC) && flow.has(flags::MASQUERADE) && !flow.has(flags::NAT_DST));
    assert_eq!(flow.answer(&key), tuple("10.0.1.20", 8080, "192.168.0.1", 50_000));
    assert_eq!((flow.forward.hop, flow.reply.origin), (Addr::NONE, NATIVE));
    // The old table had it under the same tuple.
    let old = opposite(&pair.key, &pair.forward);
    assert_eq!((old.src, old.sport, old.dst, old.dport), {
        let answer = flow.answer(&key);
        (answer.src, answer.sport, answer.dst, answer.dport)
    });
}

#[test]
fn a_flow_to_a_service_keeps_its_backend() {
    let (key, flow) = Pair::from_pod(proto::TCP, action::LOCAL, OTHER_IFINDEX).to_service().convert();
    assert!(flow.has(flags::NAT_DST) && !flow.has(flags::NAT_SRC) && !flow.has(flags::MASQUERADE));
    assert_eq!((flow.service, flow.backend), (3, 33));
    assert_eq!(flow.opening(&key), tuple("10.0.0.10", 41000, "10.96.0.5", 80));
    assert_eq!(flow.answer(&key), tuple("10.0.1.20", 8080, "10.0.0.10", 41000));
}

#[test]
fn a_flow_to_a_service_outside_is_translated_at_both_ends() {
    let (key, flow) = Pair::from_pod(proto::TCP, action::NEIGH, NATIVE).to_service().masqueraded(50_000).convert();
    assert_eq!(flow.opening(&key), tuple("10.0.0.10", 41000, "10.96.0.5", 80));
    assert_eq!(flow.answer(&key), tuple("10.0.1.20", 8080, "192.168.0.1", 50_000));
}

#[test]
fn a_flow_from_outside_came_by_the_way_that_its_replies_go() {
    let mut tunnelled = Pair::to_pod(action::TUNNEL, OVERLAY);
    tunnelled.reply.tunnel = addr("192.168.0.2");
    for (pair, from, hop) in [
        (tunnelled, origin::TUNNEL | OVERLAY, addr("192.168.0.2")),
        (Pair::to_pod(action::NEIGH, NATIVE), NATIVE, Addr::NONE),
        (Pair::to_pod(action::STACK, 0), origin::STACK | POD_IFINDEX, Addr::NONE),
    ] {
        let (key, flow) = pair.convert();
        assert_eq!((flow.forward.origin, flow.reply.origin), (from, POD_IFINDEX));
        assert_eq!((flow.forward.hop, flow.reply.hop), (macs([1, 2]), hop));
        assert_eq!((flow.src_endpoint, flow.dst_endpoint), (0, 10));
        assert_eq!(flow.opening(&key).src, addr("10.0.1.20"));
    }
}

#[test]
fn an_echo_is_found_by_its_answers_and_other_icmp_is_decided_anew() {
    for (proto, class, src, dst) in
        [(proto::ICMP, 8, "10.0.0.10", "10.0.1.20"), (proto::ICMPV6, 128, "fd00::10", "fd00:1::20")]
    {
        let mut pair = Pair::from_pod(proto, action::NEIGH, NATIVE);
        (pair.key.src, pair.key.dst, pair.key.sport, pair.key.dport) = (addr(src), addr(dst), 77, 0);
        let (key, flow) = pair.convert();
        let answer = Tuple { src: addr(dst), dst: addr(src), sport: 0, dport: 77, proto, class, asks: false };
        assert_eq!((answer.key().0, flow.answer(&key)), (key, answer));
        // Masqueraded, the identifier is what is translated.
        let (key, flow) = pair.masqueraded(99).convert();
        let answer = Tuple { dst: addr("192.168.0.1"), dport: 99_u16.to_be(), ..answer };
        assert_eq!(flow.answer(&key), answer);
        for (sport, dport) in [(0, 0), (0, 77)] {
            (pair.key.sport, pair.key.dport) = (sport, dport);
            assert_eq!(convert(&pair.key, &pair.forward, &pair.reply), None);
        }
    }
}

#[test]
fn a_connection_is_as_far_as_it_was() {
    let tcp = || {
        let mut pair = Pair::from_pod(proto::TCP, action::NEIGH, NATIVE);
        (pair.forward.tcp_seen, pair.reply.tcp_seen) = (SYN, 0);
        (pair.forward.packets, pair.reply.packets) = (1, 0);
        pair
    };
    let state = |pair: Pair| pair.convert().1.state(proto::TCP);
    let closing = |mut pair: Pair, forward: u8, reply: u8| {
        pair.forward.flags |= CLOSING;
        pair.forward.tcp_seen |= forward;
        pair.reply.tcp_seen |= reply;
        pair
    };
    assert_eq!(state(tcp()), State::Opening);
    assert_eq!(state(tcp().established()), State::Established);
    assert_eq!(state(closing(tcp().established(), FIN, 0)), State::Established, "one end has more to say");
    assert_eq!(state(closing(tcp().established(), FIN, FIN)), State::Closed);
    assert_eq!(state(closing(tcp(), 0, RST)), State::Closed);
    let (_, flow) = tcp().established().convert();
    assert_eq!((flow.forward.flags, flow.reply.packets), (half::CONFIRMED, 1));
}

#[test]
fn a_datagram_flow_is_established_once_it_is_answered() {
    let mut pair = Pair::from_pod(proto::UDP, action::NEIGH, NATIVE);
    pair.reply.packets = 0;
    assert_eq!(pair.convert().1.state(proto::UDP), State::Opening);
    let (_, flow) = pair.established().convert();
    assert_eq!((flow.state(proto::UDP), flow.forward.flags), (State::Established, 0));
}

#[test]
fn a_reply_that_was_evicted_is_what_it_was() {
    for (action, out_ifindex) in
        [(action::LOCAL, OTHER_IFINDEX), (action::TUNNEL, OVERLAY), (action::NEIGH, NATIVE), (action::STACK, 0)]
    {
        let pair = Pair::from_pod(proto::TCP, action, out_ifindex).established();
        let (key, known) = pair.convert();
        let reply = reply_of(&pair.key, &pair.forward, Some(&pod())).unwrap();
        let (same, guessed) = convert(&pair.key, &pair.forward, &reply).unwrap();
        let way = |half: &Half| (half.origin, half.action, half.out_ifindex, half.hop);
        assert_eq!((same, way(&guessed.reply)), (key, way(&known.reply)));
        assert_eq!((guessed.forward, guessed.state(proto::TCP)), (known.forward, State::Established));
    }
}

#[test]
fn a_reply_that_was_evicted_is_not_guessed_without_its_pod() {
    let pair = Pair::from_pod(proto::TCP, action::NEIGH, NATIVE);
    assert_eq!(reply_of(&pair.key, &pair.forward, None), None);
    assert_eq!(reply_of(&pair.key, &pair.forward, Some(&Endpoint { id: 11, ..pod() })), None, "another by now");
    let from_outside = Pair::to_pod(action::TUNNEL, OVERLAY);
    assert_eq!(reply_of(&from_outside.key, &from_outside.forward, Some(&pod())), None);
}
