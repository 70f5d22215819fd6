// SPDX-License-Identifier: Apache-2.0
//! The flow table, in the model's words.

use std::collections::BTreeMap;

use abi::flow::{ASKER_A, Flow, FlowKey, Half, State, action, flags, proto};
use abi::maps::{Epochs, Flows};
use datapath::Kernel;

use super::talk::{Answers, End, Pair, Proto, Record, Slot, Stage, Talk, Way};
use crate::world::World;

/// Everything that is remembered, by the ends of its record or alias.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) records: BTreeMap<Pair, (FlowKey, Record)>,
    /// Aliases: the key, the ends of replies, and those of the record.
    pub(crate) aliases: BTreeMap<Pair, (FlowKey, Talk, Pair)>,
}

impl Dump {
    pub(crate) fn of(world: &World, interfaces: [u32; 3]) -> Self {
        let mut dump = Self::default();
        let epochs = world.datapath.map::<Epochs>().unwrap();
        let mut read = BTreeMap::new();
        let mut epoch = |slot: u32| *read.entry(slot).or_insert_with(|| epochs.get(&slot).unwrap().unwrap());
        for (key, flow) in world.datapath.map::<Flows>().unwrap().entries().unwrap() {
            let [a, b] = ends(&key);
            let by_b = flow.flags & flags::OPENED_BY_B != 0;
            let proto = protocol(key.proto);
            let talk = if by_b { Talk { from: b, to: a, proto } } else { Talk { from: a, to: b, proto } };
            if key.alias != 0 {
                let target = FlowKey {
                    a: flow.nat_src,
                    b: flow.nat_dst,
                    a_port: flow.nat_sport,
                    b_port: flow.nat_dport,
                    asker: flow.proxy_port as u8,
                    ..key
                };
                let [a, b] = ends(&target);
                let pair = Talk { from: a, to: b, proto }.pair();
                // Of an alias it is the replies' sender that is named.
                dump.aliases.insert(talk.pair(), (key, talk.back(), pair));
                continue;
            }
            assert_eq!(flow.tag, key.tag());
            let [one, other] = abi::epoch::slots(flow.peers).map(&mut epoch);
            let topology = epoch(abi::epoch::NODE).wrapping_add(one).wrapping_add(other);
            let policies = [epoch(flow.src_endpoint.into()), epoch(flow.dst_endpoint.into())];
            let stands = [flow.topology_epoch, flow.src_epoch, flow.dst_epoch] == [topology, policies[0], policies[1]];
            let ways = (way(world, interfaces, &flow.forward), way(world, interfaces, &flow.reply));
            let record = Record {
                opening: talk,
                answer: answer(&flow, talk),
                answers: answers(&flow),
                identities: (flow.src_identity, flow.dst_identity),
                pods: (flow.src_endpoint, flow.dst_endpoint),
                ways,
                packets: (flow.forward.packets, flow.reply.packets),
                stage: match flow.state(key.proto) {
                    State::Opening => Stage::Opening,
                    State::Established => Stage::Established,
                    State::Closed => Stage::Closed,
                },
                refused: flow.flags & flags::REFUSED != 0,
                stands,
            };
            dump.records.insert(talk.pair(), (key, record));
        }
        dump
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.values().map(|(_, record)| *record).collect()
    }
}

fn protocol(number: u8) -> Proto {
    match number {
        proto::TCP => Proto::Tcp,
        proto::UDP => Proto::Udp,
        _ => Proto::Echo,
    }
}

fn ends(key: &FlowKey) -> [End; 2] {
    let echo = protocol(key.proto) == Proto::Echo;
    let end = |ip, port: u16, asks| End { ip, port: (!echo || asks).then_some(u16::from_be(port)) };
    [end(key.a.into(), key.a_port, key.asker == ASKER_A), end(key.b.into(), key.b_port, key.asker != ASKER_A)]
}

fn answers(flow: &Flow) -> Answers {
    match (flow.flags & flags::DIRECT != 0, flow.flags & flags::NAT_DST != 0) {
        (false, _) => Answers::Asked,
        (true, true) => Answers::There,
        (true, false) => Answers::Here(End { ip: flow.nat_dst.into(), port: Some(u16::from_be(flow.nat_dport)) }),
    }
}

fn answer(flow: &Flow, opening: Talk) -> Talk {
    let Talk { mut from, mut to, proto } = opening;
    if flow.flags & flags::NAT_SRC != 0 {
        from = End { ip: flow.nat_src.into(), port: Some(u16::from_be(flow.nat_sport)) };
    }
    if flow.flags & flags::NAT_DST != 0 {
        to = End { ip: flow.nat_dst.into(), port: Some(u16::from_be(flow.nat_dport)) };
    }
    Talk { from: to, to: from, proto }
}

fn way(world: &World, interfaces: [u32; 3], half: &Half) -> Way {
    let slot = |ifindex| -> Slot { interfaces.iter().position(|other| *other == ifindex).unwrap() };
    match half.action {
        action::STACK => Way::Stack,
        action::LOCAL => Way::Pod(slot(half.out_ifindex)),
        action::TUNNEL => Way::Node(half.hop.into()),
        _ => {
            assert_eq!(half.out_ifindex, world.eth0);
            Way::Wire
        }
    }
}
