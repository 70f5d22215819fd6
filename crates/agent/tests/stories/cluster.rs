// SPDX-License-Identifier: Apache-2.0
//! Nodes join and leave.

use crate::world::{NODE, World, eventually, settle};
use datapath::netlink::Encap;
use serde_json::json;
use std::time::Duration;

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
async fn a_node_of_which_a_part_is_bad_is_the_same_to_an_agent_that_runs_and_to_one_that_starts() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(NODE2);
    let node2 = "192.168.0.12".parse().unwrap();
    eventually("the route", async || world.route("10.2.0.0/24").await.is_some()).await;
    let bad = NODE2.replace("[{type: InternalIP", "[{type: InternalIP, ip: node2}, {type: InternalIP");
    world.api.apply(&bad.replace("[10.2.0.0/24]}", "[10.9.0.0/99, 10.2.0.0/24]}\n  health: {ipv4: nowhere}"));
    settle().await;
    let running = world.maps();
    let encap = Some(Encap { id: u64::from(REMOTE_NODE), dst: node2 });
    assert_eq!(world.route("10.2.0.0/24").await.unwrap().encap, encap);
    world.kill().await;
    world.forget_maps();
    world.start_ready().await;
    settle().await;
    assert_eq!(world.route("10.2.0.0/24").await.unwrap().encap, encap);
    eventually("the maps to be as before", async || world.maps() == running).await;
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

#[tokio::test(start_paused = true)]
async fn a_pod_of_which_somebody_deletes_the_ciliumendpoint_is_made_known_again() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.add("web", "web").await;
    for _ in 0..3 {
        eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/web").is_some()).await;
        settle().await;
        world.api.delete("ciliumendpoints", "shop/web");
    }
    eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/web").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn two_nodes_with_an_endpoint_of_one_name_do_not_delete_each_others_objects() {
    let mut first = World::new().await;
    first.start_ready().await;
    first.add("web-0", "web").await;
    eventually("others to be told", async || first.api.get("ciliumendpoints", "shop/web-0").is_some()).await;
    // The pod is deleted by force and begins anew elsewhere. The first node's kubelet does not know yet.
    let mut second = World::joining(&first).await;
    second.start_ready().await;
    first.api.delete("pods", "shop/web-0");
    let heir = second.add("web-0", "web").await;
    let mut about_it = Vec::new();
    for _ in 0..2 {
        // A fight would leave the paused clock no rest in which to move on.
        for _ in 0..20_000 {
            tokio::task::yield_now().await;
            about_it.extend(first.api.writes().into_iter().filter(|write| write.contains("ciliumendpoints")));
            assert!(about_it.len() < 8, "the nodes fight: {about_it:?}");
        }
        // Longer than full syncs are apart.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let object = first.api.get("ciliumendpoints", "shop/web-0").unwrap();
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "heir-web-0");
        first.api.delete("ciliumendpoints", "shop/web-0");
    }
    eventually("others to be told", async || first.api.get("ciliumendpoints", "shop/web-0").is_some()).await;
    let [post, delete] = ["POST", "DELETE"].map(|method| format!("{method} ciliumendpoints shop/web-0"));
    assert_eq!(about_it, [&post, &delete, &post, &post].map(String::clone), "the first node's, and the second's");
    let object = first.api.get("ciliumendpoints", "shop/web-0").unwrap();
    assert_eq!(object["status"]["networking"]["addressing"][0]["ipv4"], heir.ip.to_string());
}
