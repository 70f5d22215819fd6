// SPDX-License-Identifier: Apache-2.0
//! The lives of Services that are reached from outside of the cluster, and of pods' ports on the node.

use abi::flow::proto::UDP;
use abi::lb::Connected;
use std::net::IpAddr;

use crate::churn;
use crate::world::{World, eventually, settle};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

const BALANCER: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20]
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, nodePort: 30080, targetPort: http, protocol: TCP}]
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
---
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.1.0.7], nodeName: node1, conditions: {ready: true}}
- {addresses: [10.2.0.7], nodeName: node2, conditions: {ready: true}}
";

/// The backends at a frontend.
fn backends(world: &World, frontend: &str) -> Vec<String> {
    let lines = world.services().into_iter().filter(|line| line.starts_with(&format!("{frontend} (")));
    lines.skip(1).map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_is_reached_at_each_of_its_addresses_over_restarts_until_it_goes() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(BALANCER);
    let (here, all) = (vec!["10.1.0.7:8080/TCP"], vec!["10.1.0.7:8080/TCP", "10.2.0.7:8080/TCP"]);
    eventually("its address", async || backends(&world, "192.0.2.1:80/TCP") == here).await;
    for outside in ["192.168.0.11:30080/TCP", "0.0.0.0:30080/TCP", "192.0.2.1:80/TCP"] {
        assert_eq!(backends(&world, outside), here, "{outside} keeps to this node");
        assert_eq!(backends(&world, &format!("{outside}/i")), all, "{outside} from inside");
    }
    assert_eq!(backends(&world, "10.96.0.20:80/TCP"), all);

    let before = world.maps();
    world.restart().await;
    settle().await;
    let after = world.maps();
    for map in ["Services", "Slots", "Backends"] {
        assert_eq!(after[map], before[map], "{map} stays as it is");
    }

    world.api.apply(&BALANCER.replace("externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster"));
    eventually("the other policy", async || backends(&world, "192.0.2.1:80/TCP") == all).await;
    eventually("one scope", async || !world.services().iter().any(|line| line.contains("/i "))).await;
    world.api.delete("services", "shop/web");
    eventually("its end", async || world.services().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pods_port_of_the_node_lives_as_long_as_the_pod() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(
        "kind: Pod\nmetadata: {name: edge, namespace: shop, uid: u}\nspec: {nodeName: node1, containers: [{name: c, \
         ports: [{hostPort: 8443, containerPort: 443}, {hostPort: 53, hostIP: 8.8.8.8, containerPort: 53, protocol: UDP}]}]}\n\
         status: {phase: Running, podIPs: [{ip: 10.1.0.9}]}",
    );
    let served = [
        "192.168.0.11:8443/TCP (0) => 0.0.0.0:0 (1) (0) [HostPort]",
        "192.168.0.11:8443/TCP (1) => 10.1.0.9:443/TCP (1) (1)",
    ];
    eventually("its port, and no address of others", async || world.services() == served).await;
    world.api.delete("pods", "shop/edge");
    eventually("its end", async || world.services().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_explained_with_what_is_left_out_and_why() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(
        &BALANCER.replace("externalTrafficPolicy: Local", "externalTrafficPolicy: Local\n  externalIPs: [10.1.0.99]"),
    );
    eventually("its address", async || !backends(&world, "192.0.2.1:80/TCP").is_empty()).await;
    let explain =
        async |name: &str| world.ask(Method::GET, &format!("/v1/service/explain/shop/{name}"), Value::Null).await;
    let (status, said) = explain("web").await;
    assert_eq!((status, said["node"].as_str()), (StatusCode::OK, Some("node1")));
    let frontends: Vec<_> =
        said["frontends"].as_array().unwrap().iter().map(|row| row["address"].as_str().unwrap()).collect();
    assert!(frontends.contains(&"192.0.2.1:80/TCP") && frontends.contains(&"10.96.0.20:80/TCP"), "{frontends:?}");
    assert_eq!(said["problems"], json!(["spec.externalIPs: 10.1.0.99:80/TCP is that of a pod"]));
    let left_out = "it is on another node, and the traffic policy is Local";
    let endpoints = json!([
        {"address": "10.1.0.7:8080/TCP", "port": "http", "node": "node1", "state": "active"},
        {"address": "10.2.0.7:8080/TCP", "port": "http", "node": "node2", "state": "active", "left-out-locally": left_out},
    ]);
    assert_eq!(said["endpoints"], endpoints);
    assert_eq!(explain("nobody").await.0, StatusCode::NOT_FOUND);
    assert!(backends(&world, "10.1.0.99:80/TCP").is_empty());
    assert!(!world.services().iter().any(|line| line.starts_with("10.1.0.99")), "a pod's address is not taken");
}

const RESOLVER: &str = "
kind: Service
metadata: {name: dns, namespace: shop}
spec:
  clusterIP: 10.96.0.30
  clusterIPs: [10.96.0.30]
  ports: [{name: dns, port: 53, targetPort: dns, protocol: UDP}]
---
kind: EndpointSlice
metadata: {name: dns-1, namespace: shop, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.7], nodeName: node1, conditions: {ready: true}}
- {addresses: [10.2.0.7], nodeName: node2, conditions: {ready: true}}
";

#[tokio::test(start_paused = true)]
async fn a_socket_is_connected_to_a_service_for_as_long_as_its_backend_is_there() {
    let connection = |backend: &str| Connected {
        backend: backend.parse::<IpAddr>().unwrap().into(),
        frontend: "10.96.0.30".parse::<IpAddr>().unwrap().into(),
        backend_port: 53_u16.to_be(),
        frontend_port: 53_u16.to_be(),
        service: 0,
    };
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(RESOLVER);
    eventually("its address", async || backends(&world, "10.96.0.30:53/UDP").len() == 2).await;
    let known = ["10.1.0.7", "10.2.0.7"].map(connection);
    for socket in known {
        world.node.sockets.connect(true, UDP, socket);
    }
    world.restart().await;
    settle().await;
    assert_eq!(world.node.sockets.connected(), known);

    let [here, other] = ["- {addresses: [10.1.0.7], nodeName: node1, conditions: {ready: true}}\n", ""];
    world.api.apply(&RESOLVER.replace(here, other));
    eventually("the end of one", async || world.node.sockets.connected() == [known[1]]).await;
    world.kill().await;
    world.api.delete("endpointslices", "shop/dns-1");
    world.start_ready().await;
    eventually("the end of the other", async || world.node.sockets.connected().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_used_takes_no_other_with_it_and_is_explained() {
    let mut world = World::new().await;
    world.start_ready().await;
    let bad = "- {addresses: ['fe80::1%eth0']}\n- {addresses: ['::ffff:10.2.0.8'], nodeName: node2}\n";
    world.api.apply(&format!("{RESOLVER}{bad}"));
    let used = vec!["10.1.0.7:53/UDP", "10.2.0.7:53/UDP", "10.2.0.8:53/UDP"];
    eventually("the others", async || backends(&world, "10.96.0.30:53/UDP") == used).await;
    let (_, said) = world.ask(Method::GET, "/v1/service/explain/shop/dns", Value::Null).await;
    let says = "EndpointSlice dns-1 endpoints[2].addresses[0]: \"fe80::1%eth0\" is not an IP address";
    assert_eq!(said["problems"], json!([says]));
    world.api.apply(RESOLVER);
    eventually("its end", async || {
        world.ask(Method::GET, "/v1/service/explain/shop/dns", Value::Null).await.1["problems"].is_null()
    })
    .await;
}

/// What events of that reason say.
fn notes(world: &World, reason: &str) -> Vec<String> {
    let events = world.api.all("events").into_iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_port_of_the_node_that_a_service_has_is_told_to_the_pods_author_and_shown_until_it_is_free() {
    let mut world = World::new().await;
    world.start_ready().await;
    world.api.apply(BALANCER);
    world.api.apply(
        "kind: Pod\nmetadata: {name: edge, namespace: shop, uid: u}\nspec: {nodeName: node1, containers: [{name: c, \
         ports: [{hostPort: 30080, containerPort: 443}]}]}\nstatus: {phase: Running, podIPs: [{ip: 10.1.0.9}]}",
    );
    eventually("the event", async || !notes(&world, "HostPortNotServed").is_empty()).await;
    let says = "192.168.0.11:30080/TCP is that of the Service shop/web";
    assert_eq!(notes(&world, "HostPortNotServed"), [format!("Node node1 does not serve all ports of the pod: {says}")]);
    let failing = async || {
        let (_, status) = world.ask(Method::GET, "/v1/healthz", Value::Null).await;
        let controllers = status["controllers"].as_array().unwrap().clone();
        let found = controllers.into_iter().find(|controller| controller["name"] == "host-ports").unwrap();
        found["status"]["last-failure-msg"].as_str().unwrap_or_default().to_owned()
    };
    assert!(failing().await.contains(&format!("pod shop/edge: {says}")), "{}", failing().await);
    world.api.delete("services", "shop/web");
    eventually("the port", async || backends(&world, "192.168.0.11:30080/TCP") == ["10.1.0.9:443/TCP"]).await;
    eventually("no failure", async || failing().await.is_empty()).await;
}

/// `CILIUM_CHURN_ROUNDS` says after how many.
#[tokio::test(start_paused = true)]
async fn after_every_change_the_maps_hold_what_a_naive_reading_of_all_objects_says() {
    let rounds = std::env::var("CILIUM_CHURN_ROUNDS").ok().map_or(150, |text| text.parse().unwrap());
    churn::at_random(World::new().await, 0x5eed, |round| round < rounds).await;
}
