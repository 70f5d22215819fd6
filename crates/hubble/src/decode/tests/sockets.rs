// SPDX-License-Identifier: Apache-2.0
//! Sockets that were translated.

use super::{decode, json};
use crate::fixture::{self, addr, connected};
use crate::names::Resolver;
use crate::proto::flow::Flow;
use abi::event::{Event, SocketEvent, translation};
use abi::identity;
use serde_json::json;

fn flows(socket: SocketEvent) -> Vec<Flow> {
    decode(socket.into())
}

/// Who talks to whom, and what the flow says of it.
fn line(flow: &Flow) -> String {
    let (ip, l4) = (flow.ip.clone().unwrap(), json(flow));
    let port = |name: &str| l4["l4"]["TCP"][name].as_u64().unwrap_or_default();
    let id = |end: &Option<crate::proto::flow::Endpoint>| end.as_ref().unwrap().identity;
    format!(
        "{}:{} ({}) -> {}:{} ({}) {} {}",
        ip.source,
        port("source_port"),
        id(&flow.source),
        ip.destination,
        port("destination_port"),
        id(&flow.destination),
        flow.sock_xlate_point().as_str_name(),
        flow.verdict().as_str_name()
    )
}

#[test]
fn a_connection_to_a_service_is_what_was_asked_for_and_what_it_became() {
    let flows = flows(connected());
    let expected: serde_json::Value = serde_json::from_str(include_str!("../../../tests/golden/sockets.json")).unwrap();
    assert_eq!(flows.iter().map(json).collect::<serde_json::Value>(), expected);
}

#[test]
fn who_asks_for_its_peer_is_told_the_service_in_place_of_the_backend() {
    let asked = SocketEvent { point: translation::REVERSE, sport: 41000_u16.to_be(), ..connected() };
    let flows = flows(asked);
    assert_eq!(
        flows.iter().map(line).collect::<Vec<_>>(),
        [
            "10.0.1.20:15432 (301) -> 10.0.0.10:41000 (300) SOCK_XLATE_POINT_PRE_DIRECTION_REV TRACED",
            "10.96.0.5:5432 (0) -> 10.0.0.10:41000 (300) SOCK_XLATE_POINT_POST_DIRECTION_REV TRANSLATED",
        ]
    );
    assert_eq!(json(&flows[1])["source_service"], json!({"name": "db", "namespace": "shop"}));
    assert_eq!(json(&flows[1])["event_type"], json!({"type": 7, "sub_type": 4}));
}

#[test]
fn the_host_s_socket_is_the_node_s_and_one_of_nobody_is_not_told_of() {
    let resolver = Resolver::new(fixture::tables().tables, fixture::node_name());
    let complete = |socket: SocketEvent| resolver.complete(&Event::from(socket)).map(|(event, _)| event);
    let host = complete(SocketEvent { netns: 1, src_identity: identity::HOST, ..connected() }).unwrap();
    assert_eq!((host.src, host.src_identity, host.src_endpoint), (addr("192.168.0.1"), identity::HOST, 0));
    assert_eq!(complete(SocketEvent { netns: 1, ..connected() }), None);
    assert_eq!(complete(SocketEvent { netns: 0, ..connected() }), None);
}

#[test]
fn a_pod_without_an_address_of_the_family_is_still_the_one_that_asks() {
    let flow = flows(SocketEvent { dst: addr("fd00::20"), dst_orig: addr("fd00:96::5"), ..connected() }).remove(0);
    let (ip, source) = (flow.ip.unwrap(), flow.source.unwrap());
    assert_eq!((ip.source.as_str(), ip.destination.as_str()), ("", "fd00:96::5"));
    assert_eq!((ip.ip_version, source.pod_name.as_str(), source.identity), (2, "web-1", 0));
}

#[test]
fn other_protocols_are_named() {
    let summary = |proto| flows(SocketEvent { proto, ..connected() }).remove(0).summary;
    assert_eq!([17, 132, 33].map(summary), ["UDP", "SCTP", "IP protocol 33"]);
}
