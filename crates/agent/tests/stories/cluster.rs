// SPDX-License-Identifier: Apache-2.0
//! Nodes join and leave.

use crate::world::{NODE, World, eventually};
use datapath::netlink::Encap;
use serde_json::json;

const REMOTE_NODE: u32 = 6;

const NODE2: &str = "
kind: CiliumNode
metadata: {name: node2}
spec:
  addresses: [{type: InternalIP, ip: 192.168.0.12}, {type: CiliumInternalIP, ip: 10.2.0.1}]
  ipam: {podCIDRs: [10.2.0.0/24]}
";
const POD_OF_NODE2: &str = "
kind: CiliumIdentity
metadata: {name: \"4711\"}
security-labels: {\"k8s:app\": cart, \"k8s:io.kubernetes.pod.namespace\": shop}
---
kind: CiliumEndpoint
metadata: {name: cart, namespace: shop}
status:
  identity: {id: 4711}
  networking: {addressing: [{ipv4: 10.2.0.9}], node: 192.168.0.12}
";

#[tokio::test(start_paused = true)]
async fn a_node_publishes_itself_and_configures_its_network() {
    let mut world = World::new().await;
    world.start_ready().await;
    let own = world.api.get("ciliumnodes", NODE).unwrap();
    assert_eq!(own["spec"]["ipam"]["podCIDRs"], json!(["10.1.0.0/24"]));
    let addresses = own["spec"]["addresses"].as_array().unwrap();
    assert!(addresses.contains(&json!({"type": "InternalIP", "ip": "192.168.0.11"})), "{addresses:?}");
    let netlink = world.node.network.netlink();
    for device in ["cilium_host", "cilium_net", "cilium_vxlan"] {
        assert!(netlink.link(device).await.unwrap().unwrap().up, "{device}");
    }
    let attached = world.node.hooks.attached();
    assert!(attached.contains_key("dev_eth0_ingress") && attached.contains_key("dev_cilium_vxlan_ingress"));
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_node_that_joins_are_behind_its_tunnel() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(NODE2);
    world.api.apply(POD_OF_NODE2);
    let node2 = "192.168.0.12".parse().unwrap();
    eventually("the pod", async || world.ipcache("10.2.0.9") == Some((4711, node2))).await;
    eventually("the route", async || world.route("10.2.0.0/24").await.is_some()).await;
    assert_eq!(world.ipcache("192.168.0.12").unwrap().0, REMOTE_NODE);
    let encap = world.route("10.2.0.0/24").await.unwrap().encap;
    assert_eq!(encap, Some(Encap { id: u64::from(REMOTE_NODE), dst: node2 }));
}

#[tokio::test(start_paused = true)]
async fn of_a_node_that_leaves_nothing_stays() {
    let mut world = World::new().await;
    world.start_ready().await;
    eventually("its own address", async || world.ipcache("192.168.0.11").is_some()).await;
    let alone = world.maps();
    world.api.apply(NODE2);
    world.api.apply(POD_OF_NODE2);
    eventually("the pod", async || world.ipcache("10.2.0.9").is_some_and(|(id, _)| id == 4711)).await;
    eventually("the route", async || world.route("10.2.0.0/24").await.is_some()).await;
    world.api.delete("ciliumendpoints", "shop/cart");
    world.api.delete("ciliumidentities", "4711");
    world.api.delete("ciliumnodes", "node2");
    eventually("the route to go", async || world.route("10.2.0.0/24").await.is_none()).await;
    eventually("the maps to be as before", async || world.maps() == alone).await;
}
