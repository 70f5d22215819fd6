// SPDX-License-Identifier: Apache-2.0
//! Taking over what an older build has left in the kernel.

use std::time::Duration;

use abi::endpoint::Endpoint;
use abi::flow::{Flow, FlowKey, State, action, half, proto, tcp};
use abi::maps::{Endpoints, Flows, Node};
use abi::spine::{self, FlowEntry, flags};
use abi::tuple::Tuple;
use abi::{Addr, MapDef, packed};
use aya::maps::{HashMap, Map, MapData};
use datapath::Kernel;
use datapath::bpf::{Datapath, Migration, Options, Program};
use datapath::flows::now;
use tokio::time::Instant;

use crate::older::{HASH, Older, pin_map};
use crate::sandbox::Sandbox;

const POD_IFINDEX: u32 = 20;
const NATIVE: u32 = 2;

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn opening(sport: u16) -> Tuple {
    let (src, dst) = (addr("10.0.0.10"), addr("192.0.2.7"));
    Tuple { src, dst, sport: sport.to_be(), dport: 443_u16.to_be(), proto: proto::TCP, class: 0, asks: true }
}

/// A connection of the pod to the world as the older programs remember it, masqueraded under the same port.
fn connection(sport: u16, created: u32) -> [(spine::FlowKey, FlowEntry); 2] {
    let Tuple { src, dst, sport, dport, proto, .. } = opening(sport);
    let key = spine::FlowKey { src, dst, sport, dport, proto, hook: spine::FROM_POD, pad: 0 };
    let forward = FlowEntry {
        src_endpoint: 10,
        src_identity: 300,
        dst_identity: 2,
        in_ifindex: POD_IFINDEX,
        out_ifindex: NATIVE,
        action: action::NEIGH,
        flags: flags::NAT_SRC | flags::MASQUERADE | flags::ESTABLISHED,
        nat_src: addr("192.168.0.1"),
        nat_sport: sport,
        created,
        last_seen: created,
        packets: 3,
        bytes: 300,
        ..FlowEntry::default()
    };
    let reply = FlowEntry {
        out_ifindex: POD_IFINDEX,
        action: action::LOCAL,
        flags: flags::REPLY | flags::NAT_DST | flags::ESTABLISHED,
        nat_src: Addr::NONE,
        nat_dst: src,
        nat_dport: sport,
        packets: 2,
        bytes: 200,
        ..forward
    };
    [(key, forward), (spine::opposite(&key, &forward), reply)]
}

fn remember(older: &mut Older, entries: impl IntoIterator<Item = (spine::FlowKey, FlowEntry)>) {
    for (key, entry) in entries {
        older.flows.insert(key, entry, 0).unwrap();
    }
}

/// The new table's flow that the pod has opened from that port.
fn flow(datapath: &Datapath, sport: u16) -> Option<Flow> {
    datapath.map::<Flows>().unwrap().get(&opening(sport).key().0).unwrap()
}

fn has_pin(sandbox: &Sandbox, map: &str) -> bool {
    sandbox.pin("maps").join(map).exists()
}

/// Removes what an older build has left, which must succeed soon: the kernel may take a moment to forget a program.
fn finish(datapath: &Datapath) -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let Migration { flows, finished } = datapath.finish_migration().unwrap();
        if finished {
            return flows;
        }
        assert!(Instant::now() < deadline, "a program of the older build is still there");
        std::thread::yield_now();
    }
}

#[test]
fn a_new_table_knows_the_flows_of_the_older_build() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        remember(&mut older, connection(41000, now()));
        let datapath = sandbox.load();
        let table = datapath.map::<Flows>().unwrap();
        let key = opening(41000).key().0;
        let flow = flow(&datapath, 41000).unwrap();
        assert_eq!((flow.state(proto::TCP), flow.forward.flags), (State::Established, half::CONFIRMED));
        assert_eq!((flow.forward.packets, flow.reply.bytes, flow.reply.origin), (3, 200, NATIVE));
        let (alias_key, alias) = Flow::alias(&key, &flow.answer(&key));
        assert_eq!(table.get(&alias_key).unwrap(), Some(alias));
        assert_eq!(table.keys().unwrap().len(), 2);
        assert_eq!(table.capacity(), Flows::CAPACITY, "sized anew");
    });
}

/// A masqueraded connection of the pod as the programs of version 2 remember it.
fn packed_connection(sport: u16, created: u32, tcp_seen: u8) -> (FlowKey, packed::Flow) {
    let Tuple { sport, .. } = opening(sport);
    let (key, from_b) = opening(u16::from_be(sport)).key();
    let forward = packed::Half {
        hop: addr("192.168.0.254"),
        bytes: 300,
        packets: 3,
        last_seen: created,
        last_report: created,
        origin: POD_IFINDEX,
        out_ifindex: NATIVE,
        mtu: 1500,
        action: action::NEIGH,
        tcp_seen,
        tcp_reported: tcp::SYN,
        flags: half::CONFIRMED | half::ON_LINK,
        pad: [0; 2],
    };
    let reply = packed::Half { packets: 2, origin: NATIVE, out_ifindex: POD_IFINDEX, action: action::LOCAL, ..forward };
    let flow = packed::Flow {
        tag: key.tag(),
        topology_epoch: 1,
        src_epoch: 2,
        dst_epoch: 3,
        peers: 4,
        flags: abi::flow::flags::NAT_SRC
            | abi::flow::flags::MASQUERADE
            | if from_b { abi::flow::flags::OPENED_BY_B } else { 0 },
        src_endpoint: 10,
        src_identity: 300,
        dst_identity: 2,
        provenance: 5,
        service: 6,
        backend: 7,
        created,
        nat_src: addr("192.168.0.1"),
        nat_sport: sport,
        forward,
        reply,
        ..packed::Flow::default()
    };
    (key, flow)
}

#[test]
fn a_table_of_version_2_is_taken_over_whole_with_its_aliases() {
    Sandbox::run(|sandbox| {
        let _fd = pin_map(sandbox, "cilium_flows_v2", HASH, [size_of::<FlowKey>(), size_of::<packed::Flow>()], 64);
        let map = MapData::from_pin(sandbox.pin("maps").join("cilium_flows_v2")).unwrap();
        let mut old: HashMap<_, FlowKey, packed::Flow> = Map::HashMap(map).try_into().unwrap();
        let remember = |old: &mut HashMap<_, FlowKey, packed::Flow>, sport, created, tcp_seen| {
            let (key, flow) = packed_connection(sport, created, tcp_seen);
            let (alias_key, alias) = Flow::alias(&key, &Flow::from(flow).answer(&key));
            let alias = packed::Flow {
                tag: alias.tag,
                flags: alias.flags,
                proxy_port: alias.proxy_port,
                nat_sport: alias.nat_sport,
                nat_dport: alias.nat_dport,
                nat_src: alias.nat_src,
                nat_dst: alias.nat_dst,
                ..packed::Flow::default()
            };
            old.insert(key, flow, 0).unwrap();
            old.insert(alias_key, alias, 0).unwrap();
            (key, flow, alias_key, Flow::from(alias))
        };
        let (key, flow, alias_key, alias) = remember(&mut old, 41000, now(), tcp::SYN | tcp::ACK);
        // The machine has been up for longer than a closed connection is remembered.
        remember(&mut old, 41001, 1, tcp::FIN);
        let datapath = sandbox.load();
        let table = datapath.map::<Flows>().unwrap();
        let taken = table.get(&key).unwrap().unwrap();
        assert_eq!(taken, Flow::from(flow));
        assert_eq!((taken.forward.mtu, taken.reply.packets, taken.backend, taken.src_epoch), (1500, 2, 7, 2));
        assert_eq!(taken.state(proto::TCP), State::Established);
        assert_eq!(table.get(&alias_key).unwrap(), Some(alias));
        assert_eq!(table.keys().unwrap().len(), 2, "what has ended is left behind");
        let (later, ..) = remember(&mut old, 41002, now() + 1, tcp::SYN | tcp::ACK);
        assert_eq!(finish(&datapath), 1);
        assert!(table.get(&later).unwrap().is_some());
        assert!(!has_pin(sandbox, "cilium_flows_v2"));
    });
}

/// A segment from the middle of a connection, as a frame.
fn segment(tuple: &Tuple) -> Vec<u8> {
    // To the loopback device's own hardware address.
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, proto::TCP, 0, 0]);
    for address in [tuple.src, tuple.dst] {
        frame.extend(address.v4_be().to_ne_bytes());
    }
    frame.extend([tuple.sport, tuple.dport].map(u16::to_ne_bytes).as_flattened());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, tcp::ACK, 1, 0, 0, 0, 0, 0]);
    frame
}

#[test]
fn the_programs_go_on_with_a_flow_of_the_older_build() {
    /// Both interfaces of the flow: the loopback device, which every network namespace has.
    const LO: u32 = 1;
    const REDIRECT: i32 = 7;
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        let here = |entry| FlowEntry { in_ifindex: LO, out_ifindex: LO, ..entry };
        remember(&mut older, connection(41000, now()).map(|(key, entry)| (key, here(entry))));
        let datapath = sandbox.load();
        let before = flow(&datapath, 41000).unwrap();
        // There is no pod, no policy and no route: whoever decided anew would drop these.
        let answer = before.answer(&opening(41000).key().0);
        for (program, tuple) in [(Program::PodEgress, opening(41000)), (Program::NetdevIngress, answer)] {
            let run = datapath.test_run(program, &segment(&tuple), LO, 1).unwrap();
            assert_eq!(run.verdict, REDIRECT, "{program:?}");
        }
        let after = flow(&datapath, 41000).unwrap();
        assert_eq!((after.forward.packets, after.reply.packets), (4, 3));
        assert_eq!((after.created, after.nat_sport), (before.created, before.nat_sport));
        // One that nobody remembers.
        let run = datapath.test_run(Program::PodEgress, &segment(&opening(1)), LO, 1).unwrap();
        assert_ne!(run.verdict, REDIRECT);
    });
}

#[test]
fn what_has_ended_or_is_half_there_is_not_taken_over() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        // The machine has been up for longer than a closed connection is remembered.
        let ended = connection(1, 1).map(|(key, entry)| (key, FlowEntry { tcp_seen: tcp::FIN, ..entry }));
        remember(&mut older, ended);
        let [_, lonely_reply] = connection(2, now());
        let [lonely_forward, _] = connection(3, now());
        let [(key, reserved), _] = connection(4, now());
        remember(&mut older, [lonely_reply, lonely_forward, (key, FlowEntry { created: 0, ..reserved })]);
        let datapath = sandbox.load();
        assert!(datapath.map::<Flows>().unwrap().keys().unwrap().is_empty());
    });
}

#[test]
fn a_reply_that_was_evicted_is_made_up_from_its_pod() {
    Sandbox::run(|sandbox| {
        let pod = Endpoint { ifindex: POD_IFINDEX, id: 10, mac: [1; 6], host_mac: [2; 6], ..Endpoint::default() };
        let first = sandbox.load();
        first.map::<Endpoints>().unwrap().insert(&POD_IFINDEX, &pod).unwrap();
        std::fs::remove_file(sandbox.pin("maps/cilium_flows_v3")).unwrap();
        std::fs::remove_file(sandbox.pin("maps/cilium_node_v2")).unwrap();
        let mut older = Older::pin(sandbox);
        let [forward, _] = connection(41000, now());
        remember(&mut older, [forward]);
        let reply = flow(&sandbox.load(), 41000).unwrap().reply;
        assert_eq!((reply.action, reply.out_ifindex, reply.origin), (action::LOCAL, POD_IFINDEX, NATIVE));
        assert!(reply.hop.octets().starts_with(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]));
    });
}

#[test]
fn the_node_is_known_before_the_agent_says_so() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        let facts = spine::NodeConfig { masquerade_ipv4: addr("192.168.0.1"), node_identity: 6, ..Default::default() };
        older.node.set(0, facts, 0).unwrap();
        let node = sandbox.load().map::<Node>().unwrap().get(&0).unwrap().unwrap();
        assert_eq!((node.masquerade_ipv4, node.tunnel_ipv4), (facts.masquerade_ipv4, facts.masquerade_ipv4));
        assert_eq!(node.node_identity, 6);
    });
}

#[test]
fn what_older_programs_add_is_taken_over_until_the_last_of_them_has_gone() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        let program = older.program();
        remember(&mut older, connection(1, now().saturating_sub(1)));
        let datapath = sandbox.load();
        // Has ended since, under the new programs.
        let table = datapath.map::<Flows>().unwrap();
        for key in table.keys().unwrap() {
            assert!(table.remove(&key).unwrap());
        }
        remember(&mut older, connection(2, now()));
        assert_eq!(datapath.finish_migration().unwrap(), Migration { flows: 1, finished: false });
        assert!(flow(&datapath, 2).is_some() && flow(&datapath, 1).is_none());
        assert!(has_pin(sandbox, "cilium_flows"));
        let known = Flow { forward: abi::flow::Half { packets: 9, ..Default::default() }, ..Flow::default() };
        datapath.map::<Flows>().unwrap().insert(&opening(2).key().0, &known).unwrap();
        remember(&mut older, connection(3, now()));
        drop(program);
        assert_eq!(finish(&datapath), 1);
        assert_eq!(flow(&datapath, 2), Some(known), "what the new programs know counts");
        assert!(flow(&datapath, 3).is_some());
        for (map, version) in [("cilium_flows", 3), ("cilium_node", 2), ("cilium_fragments", 3)] {
            assert!(!has_pin(sandbox, map) && has_pin(sandbox, &format!("{map}_v{version}")), "{map}");
        }
        assert_eq!(datapath.finish_migration().unwrap(), Migration { flows: 0, finished: true });
    });
}

#[test]
fn an_agent_that_starts_again_meanwhile_goes_on() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        let program = older.program();
        drop(sandbox.load());
        remember(&mut older, connection(1, now().saturating_sub(1)));
        let datapath = sandbox.load();
        assert!(flow(&datapath, 1).is_none(), "the table is adopted as it is");
        assert_eq!(datapath.finish_migration().unwrap(), Migration { flows: 1, finished: false });
        drop(program);
        finish(&datapath);
        assert!(!has_pin(sandbox, "cilium_flows"));
    });
}

#[test]
fn a_reply_tuple_that_the_new_programs_have_given_away_is_not_taken_back() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        let _program = older.program();
        let datapath = sandbox.load();
        let table = datapath.map::<Flows>().unwrap();
        let [(_, forward), _] = connection(41000, now());
        let answer = Tuple { dst: forward.nat_src, ..opening(41000).reversed() };
        let (alias_key, alias) = Flow::alias(&FlowKey { proto: proto::TCP, ..FlowKey::default() }, &answer);
        table.insert(&alias_key, &alias).unwrap();
        remember(&mut older, connection(41000, now()));
        assert_eq!(datapath.finish_migration().unwrap().flows, 0);
        assert_eq!(table.entries().unwrap(), [(alias_key, alias)]);
    });
}

#[test]
fn after_a_return_to_the_older_build_its_table_is_the_truth() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        remember(&mut older, connection(1, now()));
        let newer = sandbox.load();
        finish(&newer);
        drop(newer);
        let mut older = Older::pin(sandbox);
        remember(&mut older, connection(2, now()));
        let datapath = sandbox.load();
        assert!(flow(&datapath, 1).is_none() && flow(&datapath, 2).is_some());
    });
}

#[test]
fn a_table_that_cannot_be_read_costs_its_flows_and_not_the_agent() {
    Sandbox::run(|sandbox| {
        const HASH: u64 = 1;
        pin_map(sandbox, "cilium_flows", HASH, [4, 4], 16);
        pin_map(sandbox, "cilium_node", HASH, [4, 4], 16);
        let datapath = sandbox.load();
        assert!(datapath.map::<Flows>().unwrap().keys().unwrap().is_empty());
        let error = datapath.finish_migration().unwrap_err().to_string();
        assert!(error.contains("maps/cilium_flows") && error.contains("map type 1"), "{error}");
        assert_eq!((finish(&datapath), has_pin(sandbox, "cilium_flows")), (0, false));
    });
}

#[test]
fn a_table_without_room_takes_over_what_fits() {
    Sandbox::run(|sandbox| {
        let mut older = Older::pin(sandbox);
        for port in 1..=20 {
            remember(&mut older, connection(port, now()));
        }
        let datapath = sandbox.load_with(Options { flows: 16, ..Options::default() });
        assert_eq!(datapath.map::<Flows>().unwrap().keys().unwrap().len(), 16);
    });
}

#[test]
fn where_there_is_no_older_build_there_is_nothing_to_do() {
    Sandbox::run(|sandbox| {
        let nothing = Migration { flows: 0, finished: true };
        assert_eq!(sandbox.load().finish_migration().unwrap(), nothing);
    });
}
