// SPDX-License-Identifier: Apache-2.0
//! Garbage of a table of the kernel.

use abi::Addr;
use abi::flow::{Flow, FlowKey, Half, flags, half, proto};
use abi::maps::Flows;
use abi::tuple::Tuple;
use datapath::flows::{Collected, Collector};
use datapath::{Kernel, Map};

use crate::sandbox::Sandbox;

/// An established connection, masqueraded or not, and last heard at that tick.
fn connection(number: u32, last_seen: u32, masqueraded: bool) -> (FlowKey, Flow) {
    let [high, low] = [number >> 14, number & 0x3fff].map(u64::from);
    let (src, dst) = (Addr { hi: 0, lo: high }, Addr { hi: 1, lo: 0 });
    let sport = u16::try_from(low).unwrap();
    let (key, _) = Tuple { src, dst, sport, dport: 80, proto: proto::TCP, class: 0, asks: true }.key();
    let half = Half { last_seen, flags: half::CONFIRMED, ..Half::default() };
    let flags = if masqueraded { flags::NAT_SRC } else { 0 };
    let nat_src = Addr { hi: 2, lo: high };
    (key, Flow { tag: key.tag(), flags, nat_src, nat_sport: sport, forward: half, reply: half, ..Flow::default() })
}

fn insert(table: &Map<Flows>, (key, flow): (FlowKey, Flow)) {
    table.insert(&key, &flow).unwrap();
    if flow.is_translated() {
        let (alias_key, alias) = Flow::alias(&key, &flow.answer(&key));
        table.insert(&alias_key, &alias).unwrap();
    }
}

#[test]
fn silent_flows_of_a_big_table_go_with_their_aliases_and_the_others_stay() {
    Sandbox::run(|sandbox| {
        let table = sandbox.load().map::<Flows>().unwrap();
        for number in 0..30_000 {
            let last_seen = if number % 3 == 0 { 1000 } else { 5000 };
            insert(&table, connection(number, last_seen, number % 2 == 0));
        }
        let mut collector = Collector::new(table.clone());
        let all = Collected { alive: 30_000, removed: 0, entries: 45_000 };
        assert_eq!(collector.collect(9000).unwrap(), all);
        let expected = Collected { alive: 20_000, removed: 10_000, entries: 30_000 };
        assert_eq!(collector.collect(9001).unwrap(), expected);
        let mut left = table.entries().unwrap();
        assert_eq!(left.len(), 30_000);
        left.retain(|(key, _)| key.alias == 0);
        assert!(left.len() == 20_000 && left.iter().all(|(_, flow)| flow.forward.last_seen == 5000));
    });
}
