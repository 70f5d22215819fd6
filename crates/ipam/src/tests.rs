// SPDX-License-Identifier: Apache-2.0
use crate::{Inputs, start};
use model::{LocalNode, RoutingMode};
use statedb::Tasks;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_pools_follow_the_local_node() {
    let (mut node, local_node) = statedb::table::<LocalNode>("local-node");
    let tasks = Tasks::new(CancellationToken::new());
    let outputs = start(Inputs { local_node }, &tasks);
    outputs.allocator.allocate("a/b", true, false).unwrap_err();
    node.insert(LocalNode {
        name: "n".into(),
        ipv4: None,
        ipv6: None,
        addresses: vec!["10.0.0.2".parse().unwrap()],
        router_ipv4: Some("10.0.0.1".parse().unwrap()),
        router_ipv6: Some("fd00::1".parse().unwrap()),
        pod_cidrs: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        devices: Vec::new(),
        device_mtu: 1500,
        route_mtu: 1450,
        routing: RoutingMode::Tunnel,
    });
    node.commit();
    outputs.pools.initialized().await;
    let got = outputs.allocator.allocate("a/b", true, true).unwrap();
    assert_eq!(got.ipv4.unwrap().to_string(), "10.0.0.3");
    assert_eq!(got.ipv6.unwrap().to_string(), "fd00::2");

    let ipam = outputs.surface.status_now().ipam.unwrap();
    assert_eq!(
        ipam.status,
        "IPv4: 1/252 allocated from 10.0.0.0/24, IPv6: 1/18446744073709551614 allocated from fd00::/64"
    );
    assert_eq!((ipam.ipv4, ipam.ipv6), (vec!["10.0.0.3".to_owned()], vec!["fd00::2".to_owned()]));
    assert_eq!(ipam.allocations["10.0.0.3"], "a/b");
    let metrics = outputs.surface.metrics_page();
    for line in
        ["ip_addresses{family=\"ipv4\"} 1", "ipam_capacity{family=\"ipv4\"} 252", "ip_addresses{family=\"ipv6\"} 1"]
    {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}
