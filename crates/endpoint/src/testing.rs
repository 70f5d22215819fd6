// SPDX-License-Identifier: Apache-2.0
//! Rows, and an agent without a kernel, for this crate's own tests.

pub(crate) mod agent;
pub(crate) mod fakes;
pub(crate) mod node;

use model::{
    Endpoint, EndpointId, EndpointKind, EndpointPolicy, IdentityId, LocalNode, Mac, PodName, PolicyId, RoutingMode,
};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) fn endpoint(id: u16) -> Endpoint {
    let [high, low] = id.to_be_bytes();
    Endpoint {
        id: EndpointId(id),
        kind: EndpointKind::Pod { name: PodName::new("default", format!("pod-{id}")), uid: format!("uid-{id}") },
        container_id: format!("container{id}"),
        interface: "eth0".into(),
        netns: format!("/run/netns/{id}"),
        netns_cookie: 1000 + u64::from(id),
        host_interface: format!("lxc{id:012x}"),
        host_ifindex: 100 + u32::from(id),
        mac: Mac([2, 0, 0, 0, high, low]),
        host_mac: Mac([2, 1, 0, 0, high, low]),
        ipv4: Some(Ipv4Addr::new(10, 0, high, low)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, id)),
    }
}

pub(crate) fn policy(id: u16) -> EndpointPolicy {
    EndpointPolicy {
        endpoint: EndpointId(id),
        identity: IdentityId(1000 + u32::from(id)),
        policy: PolicyId(1),
        ingress_enforced: false,
        egress_enforced: false,
        revision: 1,
    }
}

pub(crate) fn local_node() -> LocalNode {
    LocalNode {
        name: "node".into(),
        ipv4: Some(Ipv4Addr::new(192, 168, 0, 1)),
        ipv6: Some("fc00::1".parse().unwrap()),
        addresses: vec!["192.168.0.1".parse().unwrap(), "fc00::1".parse().unwrap()],
        router_ipv4: Some(Ipv4Addr::new(10, 0, 255, 1)),
        router_ipv6: Some("fd00::ffff".parse().unwrap()),
        pod_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()],
        devices: vec!["eth0".into()],
        device_mtu: 1500,
        route_mtu: 1450,
        routing: RoutingMode::Tunnel,
    }
}
