// SPDX-License-Identifier: Apache-2.0
//! Every field of a filter, against a flow whose two sides have nothing in common.

use super::super::Filters;
use crate::proto::flow::{Flow, FlowFilter};
use crate::proto::{from_json, pool};
use prost::Name;
use std::collections::BTreeSet;

const FLOW: &str = r#"{
    "uuid": "u-1", "verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED", "traffic_direction": "INGRESS", "is_reply": true,
    "IP": {"source": "10.0.0.1", "destination": "10.0.1.2", "source_xlated": "192.168.0.3", "ipVersion": "IPv4", "encrypted": true},
    "l4": {"TCP": {"source_port": 1001, "destination_port": 1002, "flags": {"SYN": true, "ACK": true}}},
    "source": {"identity": 301, "namespace": "left", "labels": ["k8s:app=left"], "pod_name": "one-1", "cluster_name": "blue",
        "workloads": [{"kind": "Deployment", "name": "one"}]},
    "destination": {"identity": 302, "namespace": "right", "labels": ["k8s:app=right"], "pod_name": "two-1", "cluster_name": "red",
        "workloads": [{"kind": "DaemonSet", "name": "two"}]},
    "source_names": ["one.example"], "destination_names": ["two.example"],
    "source_service": {"namespace": "left", "name": "svc-one"}, "destination_service": {"namespace": "right", "name": "svc-two"},
    "node_name": "blue/n1", "node_labels": ["zone=a"], "event_type": {"type": 1, "sub_type": 133},
    "interface": {"index": 7, "name": "eth0"}, "ip_trace_id": {"trace_id": 9}, "trace_context": {"parent": {"trace_id": "t-1"}}
}"#;
const HTTP: &str = r#"{"http": {"code": 404, "method": "GET", "url": "http://shop/api/items?id=1",
    "headers": [{"key": "X-A", "value": "1"}]}}"#;
const DNS: &str = r#"{"dns": {"query": "one.example."}}"#;

/// A field of which there is one for each side, with a value of the source and one of the destination.
const SIDES: &[(&str, &str, &str)] = &[
    ("ip", r#""10.0.0.0/24""#, r#""10.0.1.2""#),
    ("pod", r#""left/one""#, r#""right/two""#),
    ("fqdn", r#""one.*""#, r#""two.*""#),
    ("label", r#""app=left""#, r#""app=right""#),
    ("port", r#""1001""#, r#""1002""#),
    ("service", r#""left/svc-one""#, r#""right/svc-two""#),
    ("identity", "301", "302"),
    ("workload", r#"{"kind": "Deployment"}"#, r#"{"name": "two"}"#),
    ("cluster_name", r#""blu*""#, r#""red""#),
];

/// The other fields, with values that fit and values that do not.
const OTHERS: &[(&str, &[&str], &[&str])] = &[
    ("verdict", &[r#""DROPPED""#], &[r#""FORWARDED""#]),
    (
        "event_type",
        &[r#"{"type": 1}"#, r#"{"type": 1, "sub_type": 7}"#, r#"{"type": 1, "match_sub_type": true, "sub_type": 133}"#],
        &[
            r#"{"type": 4}"#,
            r#"{"type": 1, "match_sub_type": true, "sub_type": 7}"#,
            r#"{"type": 4, "match_sub_type": true, "sub_type": 133}"#,
        ],
    ),
    ("http_status_code", &[r#""404""#, r#""4+""#, r#""40+""#], &[r#""400""#, r#""5+""#, r#""41+""#]),
    (
        "protocol",
        &[r#""tcp""#, r#""HTTP""#],
        &[r#""udp""#, r#""dns""#, r#""icmp""#, r#""sctp""#, r#""kafka""#, r#""vrrp""#, r#""igmp""#],
    ),
    ("reply", &["true"], &["false"]),
    ("dns_query", &[r#""^one""#, r#""example""#], &[r#""^two""#]),
    ("http_method", &[r#""get""#], &[r#""GETS""#, r#""post""#]),
    ("http_path", &[r#""^/api/items$""#], &[r#""id=1""#, r#""shop""#]),
    ("http_url", &[r#""^http://shop/""#, r#""id=1$""#], &[r#""^/api""#]),
    (
        "http_header",
        &[r#"{"key": "x-a", "value": "1"}"#],
        &[r#"{"key": "X-A", "value": "2"}"#, r#"{"key": "X-B", "value": "1"}"#],
    ),
    (
        "tcp_flags",
        &[r#"{"SYN": true}"#, r#"{"ACK": true}"#, r#"{"SYN": true, "ACK": true}"#, "{}"],
        &[
            r#"{"SYN": true, "FIN": true}"#,
            r#"{"RST": true}"#,
            r#"{"PSH": true}"#,
            r#"{"URG": true}"#,
            r#"{"ECE": true}"#,
            r#"{"CWR": true}"#,
            r#"{"NS": true}"#,
        ],
    ),
    ("node_name", &[r#""n1""#, r#""blue/""#], &[r#""n2""#, r#""red/n1""#]),
    ("ip_version", &[r#""IPv4""#], &[r#""IPv6""#, r#""IP_NOT_USED""#]),
    ("trace_id", &[r#""t-1""#], &[r#""t-2""#]),
    ("uuid", &[r#""u-1""#], &[r#""u-2""#]),
    ("traffic_direction", &[r#""INGRESS""#], &[r#""EGRESS""#]),
    ("drop_reason_desc", &[r#""POLICY_DENIED""#], &[r#""STALE_OR_UNROUTABLE_IP""#]),
    ("source_ip_xlated", &[r#""192.168.0.3""#], &[r#""10.0.0.1""#, r#""10.0.1.2""#]),
    (
        "interface",
        &[r#"{"name": "eth0"}"#, r#"{"index": 7}"#, r#"{"name": "eth0", "index": 7}"#],
        &[
            r#"{"name": "eth1"}"#,
            r#"{"index": 8}"#,
            r#"{"name": "eth0", "index": 8}"#,
            r#"{"name": "eth1", "index": 7}"#,
        ],
    ),
    ("node_labels", &[r#""zone=a""#], &[r#""zone=b""#, r#""app=left""#]),
    ("ip_trace_id", &[r#""9""#], &[r#""8""#]),
    ("encrypted", &["true"], &["false"]),
];

fn fits(field: &str, value: &str) -> bool {
    let l7 = if field == "dns_query" { DNS } else { HTTP };
    let mut flow: Flow = from_json(FLOW).unwrap();
    flow.l7 = Some(from_json(l7).unwrap());
    let filter: FlowFilter = from_json(&format!("{{\"{field}\": [{value}]}}")).unwrap();
    Filters::compile(&[filter], &[]).unwrap().matches(&flow)
}

#[test]
fn a_field_about_one_side_looks_at_that_side() {
    for (field, source, destination) in SIDES {
        for (side, own, other) in [("source", source, destination), ("destination", destination, source)] {
            let field = format!("{side}_{field}");
            assert!(fits(&field, own), "{field}: {own}");
            assert!(!fits(&field, other), "{field}: {other}");
        }
    }
}

#[test]
fn every_other_field_compares_what_it_names() {
    for (field, good, bad) in OTHERS {
        for value in *good {
            assert!(fits(field, value), "{field}: {value}");
        }
        for value in *bad {
            assert!(!fits(field, value), "{field}: {value}");
        }
    }
}

#[test]
fn a_protocol_fits_its_own_flows_only() {
    let all = ["tcp", "udp", "icmp", "icmpv4", "icmpv6", "sctp", "vrrp", "igmp", "dns", "http", "kafka"];
    for (flow, names) in [
        (r#"{"l4": {"TCP": {}}}"#, &["tcp"][..]),
        (r#"{"l4": {"UDP": {}}}"#, &["udp"]),
        (r#"{"l4": {"ICMPv4": {}}}"#, &["icmp", "icmpv4"]),
        (r#"{"l4": {"ICMPv6": {}}}"#, &["icmp", "icmpv6"]),
        (r#"{"l4": {"SCTP": {}}}"#, &["sctp"]),
        (r#"{"l4": {"VRRP": {}}}"#, &["vrrp"]),
        (r#"{"l4": {"IGMP": {}}}"#, &["igmp"]),
        (r#"{"l7": {"dns": {}}}"#, &["dns"]),
        (r#"{"l7": {"http": {}}}"#, &["http"]),
        (r#"{"l7": {"kafka": {}}}"#, &["kafka"]),
        ("{}", &[]),
    ] {
        let flow: Flow = from_json(flow).unwrap();
        let fits = |name: &&str| {
            let filter = FlowFilter { protocol: vec![(*name).to_owned()], ..FlowFilter::default() };
            Filters::compile(&[filter], &[]).unwrap().matches(&flow)
        };
        assert_eq!(all.into_iter().filter(fits).collect::<Vec<_>>(), names, "{flow:?}");
    }
}

#[test]
fn every_transport_has_ports() {
    for transport in ["TCP", "UDP", "SCTP"] {
        let flow = format!("{{\"l4\": {{\"{transport}\": {{\"source_port\": 7, \"destination_port\": 9}}}}}}");
        let flow: Flow = from_json(&flow).unwrap();
        for (field, port, fits) in [
            ("source_port", 7, true),
            ("source_port", 9, false),
            ("destination_port", 9, true),
            ("destination_port", 7, false),
        ] {
            let filter = from_json(&format!("{{\"{field}\": [\"{port}\"]}}")).unwrap();
            assert_eq!(Filters::compile(&[filter], &[]).unwrap().matches(&flow), fits, "{transport}: {field} {port}");
        }
    }
}

#[test]
fn no_field_is_left_out() {
    let sides = ["source", "destination"].into_iter();
    let sides = sides.flat_map(|side| SIDES.iter().map(move |(field, ..)| format!("{side}_{field}")));
    let tested: BTreeSet<_> = sides.chain(OTHERS.iter().map(|(field, ..)| (*field).to_owned())).collect();
    let message = pool().get_message_by_name(&FlowFilter::full_name()).unwrap();
    let all: BTreeSet<_> = message.fields().map(|field| field.name().to_owned()).collect();
    let untested: Vec<_> = all.difference(&tested).collect();
    assert_eq!(untested, ["experimental"], "which is refused");
}
