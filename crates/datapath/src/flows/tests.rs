// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{Kernel, MapSpec, RawMap, fake};
use abi::Addr;
use abi::flow::{Half, flags, half, proto, tcp};
use abi::tuple::Tuple;
use std::io;
use std::sync::Arc;

/// The key of the flow that a pod opens from that port.
fn opened(proto: u8, port: u16) -> (FlowKey, u16) {
    let (src, dst) = (Addr { hi: 0, lo: 1 }, Addr { hi: 0, lo: 2 });
    let (key, from_b) = Tuple { src, dst, sport: port, dport: 80, proto, class: 0, asks: true }.key();
    (key, if from_b { flags::OPENED_BY_B } else { 0 })
}

fn heard(forward: u32, reply: u32) -> Flow {
    Flow {
        forward: Half { last_seen: forward, ..Half::default() },
        reply: Half { last_seen: reply, ..Half::default() },
        ..Flow::default()
    }
}

fn established(last_seen: u32) -> Flow {
    let flow = heard(last_seen, last_seen);
    Flow { forward: Half { flags: half::CONFIRMED, ..flow.forward }, ..flow }
}

fn closed(last_seen: u32) -> Flow {
    let flow = established(last_seen);
    let said_goodbye = |half: Half| Half { tcp_seen: tcp::FIN | tcp::ACK, ..half };
    Flow { forward: said_goodbye(flow.forward), reply: said_goodbye(flow.reply), ..flow }
}

fn insert(flows: &Map<Flows>, port: u16, flow: Flow) -> FlowKey {
    let (key, opened_by) = opened(proto::TCP, port);
    flows.insert(&key, &Flow { flags: flow.flags | opened_by, tag: key.tag(), ..flow }).unwrap();
    key
}

/// A masqueraded flow with its alias; their keys.
fn insert_masqueraded(flows: &Map<Flows>, port: u16, last_seen: u32) -> [FlowKey; 2] {
    let nat = flags::NAT_SRC | flags::MASQUERADE;
    let flow = Flow { flags: nat, nat_src: Addr { hi: 0, lo: 9 }, nat_sport: port, ..heard(last_seen, last_seen) };
    let key = insert(flows, port, flow);
    let record = flows.get(&key).unwrap().unwrap();
    let (alias_key, alias) = Flow::alias(&key, &record.answer(&key));
    flows.insert(&alias_key, &alias).unwrap();
    [key, alias_key]
}

fn table() -> (Map<Flows>, Collector) {
    let flows: Map<Flows> = fake::Kernel::new().map().unwrap();
    (flows.clone(), Collector::new(flows))
}

#[test]
fn a_flow_lives_as_long_as_either_direction_is_heard() {
    let (flows, mut collector) = table();
    insert(&flows, 1, heard(1000, 10));
    insert(&flows, 2, heard(10, 1000));
    assert_eq!(collector.collect(1060).unwrap(), Collected { alive: 2, removed: 0, entries: 2 });
    assert_eq!(collector.collect(1061).unwrap(), Collected { alive: 0, removed: 2, entries: 0 });
    assert!(flows.keys().unwrap().is_empty());
}

#[test]
fn an_established_connection_outlives_one_that_has_ended() {
    let (flows, mut collector) = table();
    let lasting = insert(&flows, 1, established(1000));
    insert(&flows, 2, closed(1000));
    assert_eq!(collector.collect(1010).unwrap().removed, 0);
    assert_eq!(collector.collect(1011).unwrap(), Collected { alive: 1, removed: 1, entries: 1 });
    assert_eq!(flows.keys().unwrap(), [lasting]);
}

#[test]
fn the_alias_of_a_flow_is_no_flow_and_goes_with_it() {
    let (flows, mut collector) = table();
    insert_masqueraded(&flows, 1, 1000);
    assert_eq!(collector.collect(1000).unwrap(), Collected { alive: 1, removed: 0, entries: 2 });
    assert_eq!(collector.collect(2000).unwrap(), Collected { alive: 0, removed: 1, entries: 0 });
    assert!(flows.keys().unwrap().is_empty());
}

#[test]
fn an_alias_that_another_flow_has_by_now_outlives_the_first() {
    let (flows, mut collector) = table();
    let [first, alias_key] = insert_masqueraded(&flows, 1, 10);
    let masqueraded = flows.get(&first).unwrap().unwrap();
    let second = insert(&flows, 2, Flow { forward: heard(1000, 0).forward, ..masqueraded });
    let record = flows.get(&second).unwrap().unwrap();
    let (same, alias) = Flow::alias(&second, &record.answer(&second));
    assert_eq!(same, alias_key);
    flows.insert(&alias_key, &alias).unwrap();
    assert_eq!(collector.collect(1000).unwrap(), Collected { alive: 1, removed: 1, entries: 2 });
    assert_eq!(flows.keys().unwrap().len(), 2);
}

#[test]
fn an_alias_without_a_record_is_found_within_some_rounds_and_no_other_is_touched() {
    let (flows, mut collector) = table();
    let [gone, orphan] = insert_masqueraded(&flows, 1, 1000);
    let kept = insert_masqueraded(&flows, 2, 1000);
    flows.remove(&gone).unwrap();
    // The record of this one has got another translation, and so another alias.
    let [renewed, left] = insert_masqueraded(&flows, 3, 1000);
    let record = Flow { nat_sport: 4, ..flows.get(&renewed).unwrap().unwrap() };
    flows.insert(&renewed, &record).unwrap();
    let removed: usize = (0..=ALIAS_SHARE).map(|_| collector.collect(1000).unwrap().removed).sum();
    assert_eq!((removed, flows.get(&orphan).unwrap(), flows.get(&left).unwrap()), (2, None, None));
    assert!(kept.iter().all(|key| flows.get(key).unwrap().is_some()));
}

#[test]
fn an_alias_whose_record_is_just_being_made_stays() {
    let (flows, mut collector) = table();
    let [key, alias] = insert_masqueraded(&flows, 1, 1000);
    let record = flows.get(&key).unwrap().unwrap();
    for _ in 0..=ALIAS_SHARE {
        flows.remove(&key).unwrap();
        collector.collect(1000).unwrap();
        flows.insert(&key, &record).unwrap();
        assert_eq!(collector.collect(1000).unwrap().removed, 0);
    }
    assert!(flows.get(&alias).unwrap().is_some());
}

/// A kernel in which a packet of each flow comes right after the flow was shown.
#[derive(Clone)]
struct Late(fake::Kernel);

#[derive(Debug)]
struct LateMap(Map<Flows>, Arc<dyn RawMap>);

impl Kernel for Late {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        Ok(Arc::new(LateMap(self.0.map()?, self.0.open(spec)?)))
    }
}

impl RawMap for LateMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.1.lookup(key, value)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.1.update(key, value)
    }

    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.1.delete(key)
    }

    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        let shown = self.1.entries();
        for (key, flow) in self.0.entries().unwrap() {
            let reply = Half { last_seen: 5000, ..flow.reply };
            self.0.insert(&key, &Flow { reply, ..flow }).unwrap();
        }
        shown
    }

    fn capacity(&self) -> u32 {
        self.1.capacity()
    }

    fn values_per_entry(&self) -> usize {
        1
    }
}

#[test]
fn a_flow_that_is_heard_of_while_it_is_being_collected_stays() {
    let kernel = fake::Kernel::new();
    let flows: Map<Flows> = kernel.map().unwrap();
    insert(&flows, 1, heard(10, 10));
    let mut collector = Collector::new(Late(kernel).map().unwrap());
    assert_eq!(collector.collect(5000).unwrap(), Collected { alive: 1, removed: 0, entries: 1 });
    assert_eq!(flows.keys().unwrap().len(), 1);
}

/// A table of 160 entries with that many flows; `each` says of which kind.
fn filled(count: u16, each: impl Fn(u16) -> Flow) -> (Map<Flows>, Collector) {
    let flows: Map<Flows> = fake::Kernel::new().with_capacity("cilium_flows", 160).map().unwrap();
    for port in 0..count {
        insert(&flows, port + 1, each(port));
    }
    (flows.clone(), Collector::new(flows))
}

#[test]
fn up_to_three_quarters_of_the_table_nobody_is_hurried() {
    let (_, mut collector) = filled(120, |_| heard(1000, 1000));
    let collected = collector.collect(1060).unwrap();
    assert_eq!(collected, Collected { alive: 120, removed: 0, entries: 120 });
    assert!(!collected.is_tight(160) && Collected { entries: 121, ..collected }.is_tight(160));
}

#[test]
fn beyond_three_quarters_flows_without_an_answer_go_first() {
    let (flows, mut collector) = filled(125, |port| if port < 10 { heard(1000, 0) } else { established(10) });
    // A quarter of 60 ticks.
    assert_eq!(collector.collect(1015).unwrap().removed, 0);
    let collected = collector.collect(1016).unwrap();
    assert_eq!(collected, Collected { alive: 115, removed: 10, entries: 115 });
    assert!(flows.entries().unwrap().iter().all(|(key, flow)| flow.state(key.proto) == State::Established));
}

#[test]
fn beyond_three_quarters_of_established_flows_those_heard_of_least_recently_go() {
    let (flows, mut collector) = filled(125, |port| established(if port < 100 { 3000 } else { 1000 }));
    // A quarter of 8000 ticks.
    assert_eq!(collector.collect(3000).unwrap().removed, 0);
    assert_eq!(collector.collect(3001).unwrap(), Collected { alive: 100, removed: 25, entries: 100 });
    assert!(flows.entries().unwrap().iter().all(|(_, flow)| flow.forward.last_seen == 3000));
}

#[test]
fn beyond_fifteen_sixteenths_a_sixteenth_of_the_silence_is_too_much() {
    let (_, mut collector) = filled(150, |_| established(1000));
    assert_eq!(collector.collect(1501).unwrap().removed, 0, "150 of 160 are fifteen sixteenths");
    let (_, mut collector) = filled(151, |_| established(1000));
    assert_eq!(collector.collect(1500).unwrap().removed, 0);
    assert_eq!(collector.collect(1501).unwrap().removed, 151);
}

#[test]
fn who_holds_little_loses_no_connection_to_one_that_holds_much() {
    let quiet = |port: u16| Flow { src_endpoint: if port < 4 { 7 } else { 8 }, ..established(1000) };
    let (flows, mut collector) = filled(155, quiet);
    assert_eq!(collector.collect(9000).unwrap(), Collected { alive: 4, removed: 151, entries: 4 });
    assert!(flows.entries().unwrap().iter().all(|(_, flow)| flow.src_endpoint == 7));
    assert_eq!(collector.collect(9001).unwrap().removed, 4, "they live as long as in a table with room");
}

#[test]
fn who_holds_more_than_others_does_not_lose_it_while_it_is_in_use() {
    let (_, mut collector) = filled(155, |port| Flow { src_endpoint: 7 + port % 2, ..established(1000) });
    assert_eq!(collector.collect(1500).unwrap().removed, 0);
    assert_eq!(collector.collect(1501).unwrap().removed, 155, "both hold more than half");
}

#[test]
fn a_connection_from_outside_is_held_by_the_endpoint_that_it_was_opened_to() {
    let opened_to = |port: u16| if port < 4 { (7, 8) } else { (0, 8) };
    let (flows, mut collector) = filled(155, |port| {
        let (src_endpoint, dst_endpoint) = opened_to(port);
        Flow { src_endpoint, dst_endpoint, ..established(1000) }
    });
    collector.collect(9000).unwrap();
    assert!(flows.entries().unwrap().iter().all(|(_, flow)| flow.src_endpoint == 7));
    assert_eq!(flows.keys().unwrap().len(), 4);
}

#[test]
fn what_some_do_not_need_of_their_share_is_the_others() {
    let fair = |held: &[u32], entries| {
        let mut shares = Shares::new();
        (1..).zip(held).for_each(|(holder, held)| shares.count(holder, *held));
        shares.divide(entries);
        shares.fair
    };
    assert_eq!(fair(&[10, 100], 60), 50);
    assert_eq!(fair(&[100, 10, 20, 100], 90), 30);
    assert_eq!(fair(&[100, 100, 100], 90), 30);
    assert_eq!(fair(&[10, 20], 60), u32::MAX, "there is enough for all");
    assert_eq!(fair(&[], 60), u32::MAX);
}

#[test]
fn aliases_take_room_too() {
    let flows: Map<Flows> = fake::Kernel::new().with_capacity("cilium_flows", 160).map().unwrap();
    for port in 1..=61 {
        insert_masqueraded(&flows, port, 1000);
    }
    let collected = Collector::new(flows.clone()).collect(1015).unwrap();
    assert_eq!((collected.alive, collected.entries), (61, 122));
    assert_eq!(Collector::new(flows.clone()).collect(1016).unwrap().removed, 61);
    assert!(flows.keys().unwrap().is_empty());
}
