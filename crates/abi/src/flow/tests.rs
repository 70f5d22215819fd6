// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
use super::*;
use proptest::prelude::*;

const fn addr(lo: u64) -> Addr {
    Addr { hi: 0, lo }
}

const REQUEST: Tuple =
    Tuple { src: addr(9), dst: addr(2), sport: 10, dport: 20, proto: proto::TCP, class: 0, asks: true };

fn record(flags: u16) -> (FlowKey, Flow) {
    let (key, from_b) = REQUEST.key();
    let opened = if from_b { flags::OPENED_BY_B } else { 0 };
    (key, Flow { flags: flags | opened, tag: key.tag(), ..Flow::default() })
}

#[test]
fn both_directions_of_a_flow_find_one_record() {
    let (key, flow) = record(0);
    let (reply_key, reply_from_b) = REQUEST.reversed().key();
    assert_eq!(reply_key, key);
    assert!(!flow.is_reply(REQUEST.key().1) && flow.is_reply(reply_from_b));
    assert_eq!((flow.opening(&key), flow.answer(&key)), (REQUEST, REQUEST.reversed()));
}

#[test]
fn an_alias_of_a_translated_flow_leads_back_to_its_record() {
    let (key, mut flow) = record(flags::NAT_DST | flags::NAT_SRC);
    (flow.nat_src, flow.nat_sport, flow.nat_dst, flow.nat_dport) = (addr(7), 70, addr(8), 80);
    let answer = flow.answer(&key);
    assert_eq!((answer.src, answer.sport, answer.dst, answer.dport), (addr(8), 80, addr(7), 70));
    let (alias_key, alias) = Flow::alias(&key, &answer);
    assert_ne!(alias_key, answer.key().0, "a flow of these ends has its own record");
    assert_eq!((alias.target(&alias_key), alias.tag), (key, alias_key.tag()));
    assert!(alias.is_reply(answer.key().1) && !alias.is_reply(answer.reversed().key().1));
    assert_ne!(alias.tag, flow.tag);
}

#[test]
fn an_echo_opens_a_flow_for_its_answers_only() {
    let echo = |src, dst, kind, id: u16| {
        let (class, asks) = crate::tuple::icmp_class(proto::ICMP, kind);
        let (sport, dport) = if asks { (id, 0) } else { (0, id) };
        Tuple { src: addr(src), dst: addr(dst), sport, dport, proto: proto::ICMP, class, asks }.key().0
    };
    // Also with the identifier 0, which leaves nothing but who asks.
    for id in [0, 7] {
        let request = echo(1, 2, 8, id);
        assert_eq!(echo(2, 1, 0, id), request);
        for other in
            [echo(2, 1, 8, id), echo(1, 2, 0, id), echo(2, 1, 13, id), echo(2, 1, 14, id), echo(2, 1, 0, id + 1)]
        {
            assert_ne!(other, request);
        }
    }
    assert_eq!(echo(2, 1, 14, 3), echo(1, 2, 13, 3));
}

#[test]
fn a_connection_stands_once_its_opener_answers_the_answer_and_ends_with_both_farewells_or_a_reset() {
    let (_, mut flow) = record(0);
    let state = |flow: &Flow| flow.state(proto::TCP);
    flow.forward.tcp_seen = tcp::SYN;
    flow.reply.packets = 1;
    flow.reply.tcp_seen = tcp::SYN | tcp::ACK;
    assert_eq!(state(&flow), State::Opening);
    flow.forward.flags = half::CONFIRMED;
    assert_eq!(state(&flow), State::Established);
    for farewell in [tcp::FIN, tcp::FIN | tcp::ACK] {
        let half_closed = Flow { forward: Half { tcp_seen: farewell, ..flow.forward }, ..flow };
        assert_eq!(state(&half_closed), State::Established);
        let closed = Flow { reply: Half { tcp_seen: farewell, ..flow.reply }, ..half_closed };
        assert_eq!(state(&closed), State::Closed);
    }
    let reset = Flow { reply: Half { tcp_seen: tcp::RST, ..flow.reply }, ..flow };
    assert_eq!(state(&reset), State::Closed);
    assert_eq!(state(&Flow { forward: Half { tcp_seen: tcp::RST, ..flow.forward }, ..reset }), State::Closed);
    assert_eq!(flow.state(proto::UDP), State::Established);
    assert_eq!(Flow::default().state(proto::UDP), State::Opening);
}

#[test]
fn a_flow_lives_as_long_as_either_end_is_heard_and_as_its_state_allows() {
    let (_, mut flow) = record(0);
    (flow.forward.last_seen, flow.reply.last_seen) = (10, 1000);
    assert!(!flow.is_garbage(proto::UDP, 1060) && flow.is_garbage(proto::UDP, 1061));
    flow.reply.packets = 1;
    assert!(!flow.is_garbage(proto::UDP, 1060) && flow.is_garbage(proto::UDP, 1061));
    (flow.forward.last_seen, flow.reply.last_seen) = (1000, 10);
    assert!(!flow.is_garbage(proto::TCP, 1060) && flow.is_garbage(proto::TCP, 1061));
    flow.forward.flags = half::CONFIRMED;
    assert!(!flow.is_garbage(proto::TCP, 9000) && flow.is_garbage(proto::TCP, 9001));
    flow.forward.tcp_seen = tcp::RST;
    assert!(!flow.is_garbage(proto::TCP, 1600) && flow.is_garbage(proto::TCP, 1601), "it may be forged");
    assert!(!flow.has_ended(proto::TCP));
    flow.forward.flags = half::ON_LINK;
    assert!(!flow.is_garbage(proto::TCP, 1010) && flow.is_garbage(proto::TCP, 1011));
    assert!(flow.has_ended(proto::TCP));
    (flow.forward.flags, flow.forward.tcp_seen, flow.reply.tcp_seen) = (half::CONFIRMED, tcp::FIN, tcp::RST);
    assert!(!flow.has_ended(proto::TCP), "one end has said goodbye, and the other one's reset may be forged");
    flow.reply.tcp_seen = tcp::FIN;
    assert!(!flow.is_garbage(proto::TCP, 1010) && flow.is_garbage(proto::TCP, 1011));
}

#[test]
fn only_who_has_seen_the_answer_can_prove_it() {
    for expected in [1, 77, u32::MAX, 1 << 31] {
        let (_, mut flow) = record(0);
        flow.reply.tcp_seen = tcp::SYN | tcp::ACK;
        flow.expect(expected);
        for genuine in [0, 1000, OPENING_WINDOW - 1] {
            assert!(flow.is_proved_by(expected.wrapping_add(genuine)));
        }
        for forged in [
            expected.wrapping_add(OPENING_WINDOW),
            expected.wrapping_sub(1),
            expected.wrapping_add(1 << 16),
            expected.wrapping_sub(1 << 16),
            expected ^ 1 << 31,
        ] {
            assert!(!flow.is_proved_by(forged), "{forged} of {expected}");
        }
    }
    let (_, mut unseen) = record(0);
    assert!(unseen.is_proved_by(77));
    unseen.reply.tcp_seen = tcp::RST;
    assert!(!unseen.is_proved_by(77));
}

#[test]
fn a_flow_is_listed_in_the_ring_of_who_opened_it_or_else_of_what_it_was_opened_to() {
    let half = |ifindex| Half { origin: origin::STACK | origin::TUNNEL | ifindex, ..Half::default() };
    let mut flow = Flow { src_endpoint: 1, dst_endpoint: 2, service: 3, ..Flow::default() };
    (flow.forward, flow.reply) = (half(11), half(12));
    assert_eq!(flow.ring(), rings::of(11, true));
    flow.src_endpoint = 0;
    assert_eq!(flow.ring(), rings::of_service(3));
    flow.service = 0;
    assert_eq!(flow.ring(), rings::of(12, false));
    flow.dst_endpoint = 0;
    assert_eq!(flow.ring(), rings::of(0, false), "the node's own");
}

#[test]
fn the_parts_of_an_origin_do_not_overlap() {
    assert_eq!(origin::STACK.count_ones() + origin::TUNNEL.count_ones() + origin::IFINDEX.count_ones(), u32::BITS);
    assert_eq!(origin::STACK | origin::TUNNEL | origin::IFINDEX, u32::MAX);
}

#[test]
fn a_tick_is_about_a_second() {
    assert!((1_000_000_000..1_100_000_000).contains(&TICK_NS));
}

#[test]
fn replies_of_a_translated_flow_have_a_tuple_of_their_own() {
    for translated in [flags::NAT_SRC, flags::NAT_DST, flags::NAT_SRC | flags::NAT_DST] {
        assert!(Flow { flags: translated, ..Flow::default() }.is_translated());
    }
    assert!(!Flow { flags: !(flags::NAT_SRC | flags::NAT_DST), ..Flow::default() }.is_translated());
}

/// Records outlive the build that made them, which must go on finding their tags right.
#[test]
fn the_tag_of_a_key_never_changes() {
    let end =
        |seed: u64| Addr { hi: 0x0123_4567_89ab_cdef ^ seed, lo: 0xfedc_ba98_7654_3210_u64.rotate_left(seed as u32) };
    let key =
        FlowKey { a: end(3), b: end(9), a_port: 0x1234, b_port: 0xabcd, proto: 0x91, class: 0x53, asker: 1, alias: 1 };
    assert_eq!(key.tag(), 0x5810_9fb3);
    assert_eq!(FlowKey { proto: proto::TCP, class: 0, asker: 0, alias: 0, ..key }.tag(), 0x8eb3_35bf);
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let protocol = prop_oneof![Just(proto::TCP), Just(proto::UDP), Just(proto::ICMP)];
    (0..3u64, 0..3u64, 0..3u64, 0..3u16, 0..3u16, protocol, 0..2u8, any::<bool>()).prop_map(
        |(hi, src, dst, sport, dport, proto, class, asks)| Tuple {
            src: Addr { hi, lo: src },
            dst: addr(dst),
            sport,
            dport,
            proto,
            class: if proto == proto::ICMP { class } else { 0 },
            asks: asks || proto != proto::ICMP,
        },
    )
}

proptest! {
    /// Two packets have one key if and only if they are of one flow: the same, or one the reverse of the other.
    #[test]
    fn a_key_belongs_to_one_flow(one in any_tuple(), other in any_tuple()) {
        // What an end says to itself crosses no interface.
        prop_assume!((one.src, one.sport) != (one.dst, one.dport));
        let same = one == other || one == other.reversed();
        prop_assert_eq!(one.key().0 == other.key().0, same);
    }

    #[test]
    fn the_sender_is_told_apart(tuple in any_tuple()) {
        prop_assume!((tuple.src, tuple.sport) != (tuple.dst, tuple.dport));
        prop_assert_ne!(tuple.key().1, tuple.reversed().key().1);
        prop_assert_eq!(tuple.reversed().reversed(), tuple);
    }
}

#[test]
fn a_connection_whose_answers_are_not_seen_lives_by_what_its_opener_says() {
    let told = |seen| Flow {
        flags: flags::DIRECT | flags::NAT_DST,
        forward: Half { tcp_seen: seen, ..Half::default() },
        ..Flow::default()
    };
    for (seen, goes_on) in [
        (tcp::SYN, false),
        (tcp::SYN | tcp::ACK, true),
        (tcp::SYN | tcp::ACK | tcp::FIN, false),
        (tcp::SYN | tcp::ACK | tcp::RST, false),
    ] {
        let flow = told(seen);
        assert_eq!(flow.goes_on(proto::TCP), goes_on, "{seen:#x}");
        assert_eq!(flow.lifetime(proto::TCP) == State::Established.lifetime(proto::TCP), goes_on, "{seen:#x}");
        assert!(!matches!(flow.state(proto::TCP), State::Established), "its place in a ring is not safe");
    }
    let here = Flow { flags: flags::DIRECT, ..told(tcp::SYN | tcp::ACK) };
    assert!(!here.goes_on(proto::TCP) && here.is_returned() && here.is_rewritten() && !here.is_translated());
    assert!(!told(tcp::ACK).is_returned() && !told(tcp::ACK).is_translated() && told(tcp::ACK).is_rewritten());
}
