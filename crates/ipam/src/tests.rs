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
}
