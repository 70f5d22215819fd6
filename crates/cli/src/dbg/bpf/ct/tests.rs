// SPDX-License-Identifier: Apache-2.0
use super::*;
use abi::Addr;
use abi::flow::flags::OPENED_BY_B;
use abi::flow::{half, proto, tcp};
use abi::tuple::Tuple;
use serde_json::json;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// A pod of this node talks to a service, whose backend is on another node.
fn service_flow() -> (FlowKey, Flow) {
    let (sport, dport) = (41000_u16.to_be(), 80_u16.to_be());
    let (src, dst) = (addr("10.0.0.10"), addr("10.96.0.5"));
    let (key, opened_by_b) = Tuple { src, dst, sport, dport, proto: proto::TCP, class: 0, asks: true }.key();
    let flow = Flow {
        src_endpoint: 10,
        src_identity: 300,
        dst_identity: 301,
        flags: NAT_DST | if opened_by_b { OPENED_BY_B } else { 0 },
        nat_dst: addr("10.0.1.20"),
        nat_dport: 8080_u16.to_be(),
        service: 7,
        forward: Half {
            action: action::TUNNEL,
            hop: addr("192.168.0.2"),
            last_seen: 100,
            packets: 5,
            bytes: 300,
            flags: half::CONFIRMED,
            ..Half::default()
        },
        reply: Half { action: action::LOCAL, last_seen: 90, packets: 4, bytes: 200, ..Half::default() },
        ..Flow::default()
    };
    (key, flow)
}

fn kernel(flows: &[(FlowKey, Flow)]) -> datapath::fake::Kernel {
    let kernel = datapath::fake::Kernel::new();
    for (key, flow) in flows {
        kernel.map::<Flows>().unwrap().insert(key, flow).unwrap();
    }
    kernel
}

#[test]
fn a_connection_is_one_line_from_the_side_of_its_opener() {
    let (key, flow) = service_flow();
    let all = list(&kernel(&[(key, flow), Flow::alias(&key, &flow.answer(&key))]), None, 100).unwrap();
    assert_eq!(
        all.iter().map(line).collect::<String>(),
        "TCP OUT 10.0.0.10:41000 -> 10.96.0.5:80 expires=8589s State=established Action=tunnel Tunnel=192.168.0.2 \
         ReplyAction=local Flags=nat-dst SourceSecurityID=300 DestinationSecurityID=301 Destination=10.0.1.20:8080 \
         Packets=5 Bytes=300 ReplyPackets=4 ReplyBytes=200\n"
    );
}

#[test]
fn the_object_of_a_connection_has_the_reply_inside() {
    let (key, flow) = service_flow();
    let object = serde_json::to_value(connection(&key, &flow, 110)).unwrap();
    let expected = json!({
        "protocol": "TCP",
        "direction": "OUT",
        "source": "10.0.0.10:41000",
        "destination": "10.96.0.5:80",
        "state": "established",
        "flags": "nat-dst",
        "source-identity": 300,
        "destination-identity": 301,
        "source-endpoint": 10,
        "destination-endpoint": 0,
        "translated-destination": "10.0.1.20:8080",
        "service": 7,
        "action": "tunnel",
        "tunnel": "192.168.0.2",
        "packets": 5,
        "bytes": 300,
        "reply": { "action": "local", "packets": 4, "bytes": 200 },
        "idle-seconds": 10,
        "expires-seconds": 8579,
    });
    assert_eq!(object, expected);
}

#[test]
fn the_connections_of_an_endpoint_are_those_from_and_to_it() {
    let (key, flow) = service_flow();
    let incoming = Flow { src_endpoint: 0, dst_endpoint: 11, ..flow };
    let kernel = kernel(&[(key, flow), (FlowKey { a_port: 1, ..key }, incoming)]);
    let directions = |whose| -> Vec<_> { list(&kernel, whose, 100).unwrap().iter().map(|c| c.direction).collect() };
    assert_eq!((directions(Some(10)), directions(Some(11))), (vec!["OUT"], vec!["IN"]));
    assert_eq!((directions(None).len(), directions(Some(12)).len()), (2, 0));
}

#[test]
fn a_connection_says_how_far_it_is() {
    let (key, flow) = service_flow();
    let opening = Flow { forward: Half { flags: 0, ..flow.forward }, ..flow };
    let closed = Flow { reply: Half { tcp_seen: tcp::RST, ..flow.reply }, ..flow };
    let refused = Flow { flags: flow.flags | REFUSED, ..flow };
    assert_eq!(
        [opening, flow, closed, refused].map(|flow| state(&key, &flow)),
        ["opening", "established", "closed", "refused"]
    );
}
