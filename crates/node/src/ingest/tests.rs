// SPDX-License-Identifier: Apache-2.0
//! Tests of ingestion.

use super::*;
use serde_json::json;

fn cilium_node(spec: serde_json::Value) -> CiliumNode {
    serde_json::from_value(json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": "node1", "labels": {"zone": "a"}},
        "spec": spec,
    }))
    .unwrap()
}

/// The row of an object that is right.
fn row<R>(ingested: Ingested<R>) -> R {
    let Ingested::Row(row) = ingested else { panic!("it is not wholly right") };
    row
}

#[test]
fn a_cilium_node_gives_its_addresses_by_type_and_its_prefixes() {
    let object = cilium_node(json!({
        "addresses": [
            {"type": "InternalIP", "ip": "192.168.77.11"},
            {"type": "InternalIP", "ip": "fd77::11"},
            {"type": "CiliumInternalIP", "ip": "10.0.1.1"},
            {"type": "ExternalIP", "ip": "203.0.113.5"},
            {"type": "Unheard", "ip": "10.9.9.9"},
        ],
        "ipam": {"podCIDRs": ["10.0.1.0/24", "fd00:10:0:1::/64"]},
        "health": {"ipv4": "10.0.1.200", "ipv6": ""},
    }));
    let node = row(ingest_node("default", "node1", &object));
    assert_eq!(node.internal_ips, ["192.168.77.11".parse::<IpAddr>().unwrap(), "fd77::11".parse().unwrap()]);
    assert_eq!(node.cilium_internal_ips, ["10.0.1.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.external_ips, ["203.0.113.5".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.health_ips, ["10.0.1.200".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.pod_cidrs, ["10.0.1.0/24".parse::<IpNet>().unwrap(), "fd00:10:0:1::/64".parse().unwrap()]);
    assert_eq!((node.identity, node.local), (reserved::REMOTE_NODE, true));
    assert!(!row(ingest_node("default", "node2", &object)).local);
}

#[test]
fn a_field_that_cannot_be_used_is_named_and_the_rest_is_used() {
    let object = cilium_node(json!({
        "addresses": [{"type": "InternalIP", "ip": "node1"}, {"type": "InternalIP", "ip": "192.168.77.11"}],
        "ipam": {"podCIDRs": ["10.0.0.0", "10.0.1.0/24"]},
        "health": {"ipv4": "10.0.1", "ipv6": "fd00::7"},
        "nodeidentity": -1,
    }));
    let Ingested::Part(node, why) = ingest_node("default", "x", &object) else { panic!() };
    assert_eq!(node.internal_ips, ["192.168.77.11".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.pod_cidrs, ["10.0.1.0/24".parse::<IpNet>().unwrap()]);
    assert_eq!(node.health_ips, ["fd00::7".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.identity, reserved::REMOTE_NODE);
    for text in [
        "spec.addresses: \"node1\" is not an IP address",
        "spec.health: \"10.0.1\" is not an IP address",
        "spec.ipam.podCIDRs: \"10.0.0.0\" is not a prefix such as 10.0.0.0/24",
        "spec.nodeidentity: \"-1\" is not an identity",
    ] {
        assert!(why.contains(text), "{why}");
    }
}

#[test]
fn a_node_gives_its_addresses_and_prefixes() {
    let object: core::Node = serde_json::from_value(json!({
        "metadata": {"name": "node1", "uid": "u"},
        "spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00:10:0:1::/64"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "node1"},
            {"type": "InternalIP", "address": "192.168.77.11"},
        ]},
    }))
    .unwrap();
    let node = row(ingest_kube_node(&object));
    assert_eq!(node.internal_ips, ["192.168.77.11".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.pod_cidrs.len(), 2);
}
