// SPDX-License-Identifier: Apache-2.0
//! The lives of a pod, of a policy and of a Service.

use crate::world::{World, eventually};
use axum::http::StatusCode;

#[tokio::test(start_paused = true)]
async fn a_pod_gets_a_network_with_its_identity_and_leaves_nothing_behind() {
    let mut world = World::new().await;
    world.start_ready().await;
    assert!(world.conflist_is_written());
    let before = world.maps();
    let web = world.add("web", "web").await;

    let identities = world.api.all("ciliumidentities");
    let [identity] = &identities[..] else { panic!("one identity, for the labels of one pod: {identities:?}") };
    assert_eq!(identity["security-labels"]["k8s:app"], "web");
    let number: u32 = identity["metadata"]["name"].as_str().unwrap().parse().unwrap();
    let endpoint = world.endpoint(&web).unwrap();
    assert_eq!(endpoint.identity, number);
    assert!(world.is_local(web.ip));
    for end in ["egress", "ingress"] {
        let pin = format!("pod_{}_{end}", web.interface);
        assert_eq!(world.node.hooks.attached().get(&pin), Some(&Some(web.ifindex)), "{pin}");
    }
    assert!(world.node.network.netlink().link_by_index(web.ifindex).await.unwrap().unwrap().up);
    assert_eq!(world.route(&format!("{}/32", web.ip)).await.unwrap().ifindex, Some(web.ifindex));
    eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/web").is_some()).await;
    let told = world.api.get("ciliumendpoints", "shop/web").unwrap();
    assert_eq!(told["status"]["identity"]["id"], number);
    assert_eq!(told["status"]["networking"]["addressing"][0]["ipv4"], web.ip.to_string());
    assert_eq!(told["metadata"]["ownerReferences"][0]["uid"], "uid-web");

    world.del(&web).await;
    world.api.delete("pods", "shop/web");
    eventually("others to be told", async || world.api.get("ciliumendpoints", "shop/web").is_none()).await;
    assert!(!world.node.hooks.attached().keys().any(|pin| pin.starts_with("pod_")));
    assert!(world.node.network.netlink().link_by_index(web.ifindex).await.unwrap().is_none());
    eventually("the maps to be as before", async || {
        let now = world.maps();
        ["Endpoints", "Locals", "Policies"].iter().all(|map| now[map] == before[map])
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_pods_with_the_same_labels_share_an_identity_and_no_address() {
    let mut world = World::new().await;
    world.start_ready().await;
    let (one, two) = (world.add("one", "web").await, world.add("two", "web").await);
    assert_ne!(one.ip, two.ip);
    assert_eq!(world.endpoint(&one).unwrap().identity, world.endpoint(&two).unwrap().identity);
    assert_eq!(world.api.all("ciliumidentities").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_has_scheduled_gets_no_network() {
    let mut world = World::new().await;
    world.start_ready().await;
    let before = (world.maps(), world.node.hooks.attached());
    let (code, why) = world.try_add("ghost").await.unwrap_err();
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{why}");
    assert_eq!((world.maps(), world.node.hooks.attached()), before);
    assert_eq!(world.api.all("ciliumendpoints").len(), 0);
}

const FROM_CLIENT: &str = "
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]
";

#[tokio::test(start_paused = true)]
async fn a_policy_is_enforced_as_it_is_written_changed_and_deleted() {
    const WORLD: u32 = 2;
    let mut world = World::new().await;
    world.start_ready().await;
    let (web, client) = (world.add("web", "web").await, world.add("client", "client").await);
    let peer = world.endpoint(&client).unwrap().identity;
    assert!(world.lets_in(&web, WORLD, 80) && world.lets_in(&web, peer, 22), "nothing is enforced yet");

    world.api.apply(FROM_CLIENT);
    eventually("the policy", async || !world.lets_in(&web, WORLD, 80)).await;
    assert!(world.lets_in(&web, peer, 80) && !world.lets_in(&web, peer, 81));
    assert!(world.lets_out(&web, peer, 80) && world.lets_in(&client, WORLD, 80), "it is about ingress of the other");

    world.api.apply(&FROM_CLIENT.replace("\"80\"", "\"81\""));
    eventually("its change", async || world.lets_in(&web, peer, 81)).await;
    assert!(!world.lets_in(&web, peer, 80));

    world.api.delete("ciliumnetworkpolicies", "shop/web");
    eventually("its end", async || world.lets_in(&web, WORLD, 22)).await;
}

const SERVICE: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20]
  ports: [{name: http, port: 80, targetPort: http, protocol: TCP}]
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.1.0.7], nodeName: node1, conditions: {ready: true}}
- {addresses: [10.2.0.7], nodeName: node2, conditions: {ready: true}}
";

#[tokio::test(start_paused = true)]
async fn a_service_has_its_backends_until_it_goes() {
    let mut world = World::new().await;
    world.start_ready().await;
    assert_eq!(world.services(), [""; 0]);
    world.api.apply(SERVICE);
    let both = [
        "10.96.0.20:80/TCP (0) => 0.0.0.0:0 (1) (0) [ClusterIP, non-routable]",
        "10.96.0.20:80/TCP (1) => 10.1.0.7:8080/TCP (1) (1)",
        "10.96.0.20:80/TCP (2) => 10.2.0.7:8080/TCP (1) (2)",
    ];
    eventually("the Service", async || world.services() == both).await;
    world.api.apply(&SERVICE.replace("- {addresses: [10.1.0.7], nodeName: node1, conditions: {ready: true}}\n", ""));
    eventually("one backend", async || world.services().len() == 2 && world.services()[1].contains("10.2.0.7")).await;
    world.api.delete("endpointslices", "shop/web-1");
    eventually("no backend", async || world.services().len() == 1).await;
    world.api.delete("services", "shop/web");
    eventually("no Service", async || world.services().is_empty()).await;
}
