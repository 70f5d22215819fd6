// SPDX-License-Identifier: Apache-2.0
//! Gateways at the nodes' own addresses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{ObjectName, Serving, Status, Subject};
use l7::link::{Fault, State};
use l7::{Key, Kind};
use model::config::Value as _;

const OBJECTS: &str = r"
kind: GatewayClass
metadata: {name: cilium}
spec: {controllerName: io.cilium/gateway-controller}
---
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: cilium
  listeners:
  - {name: web, port: 80, protocol: HTTP}
  - {name: names, port: 53, protocol: UDP}
---
kind: Node
metadata: {name: here}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

fn serving() -> Serving {
    let at = Some(vec![model::config::Label::parse("edge=yes").unwrap()]);
    Serving { gateways_at: at.clone(), ingresses_at: at, ipv4: true, ipv6: true, ..Serving::default() }
}

/// Addresses of this node's own at which a proxy is to listen.
fn at_node(world: &World) -> Vec<String> {
    let snapshot = world.published().snapshot;
    let listeners = snapshot.listeners().filter(|listener| listener.node);
    let mut listeners: Vec<_> = listeners.map(|listener| l7::Place::of(listener).to_string()).collect();
    listeners.sort();
    listeners
}

/// Status, and message, of whether the listeners are programmed.
fn programmed(world: &World) -> Vec<(String, String)> {
    let Some(Status::Gateway(status)) = world.report(&Subject::Gateway(ObjectName::new("shop", "edge"))) else {
        panic!("nothing is said of the Gateway");
    };
    let lists = [&status.conditions].into_iter().chain(status.listeners.iter().map(|listener| &listener.conditions));
    let programmed = lists.flat_map(|list| list.iter().filter(|condition| condition.kind == "Programmed"));
    programmed.map(|condition| (condition.status.clone(), condition.message.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn gateways_are_at_the_ports_of_the_nodes_that_have_the_labels_while_they_have_them() {
    let mut world = World::new(&serving());
    world.apply(OBJECTS);
    world.settle().await;
    assert_eq!(at_node(&world), [""; 0], "this node is not known yet");
    for (value, places) in
        [("no", &[][..]), ("yes", &["0.0.0.0:53/UDP", "0.0.0.0:80/TCP", "[::]:53/UDP", "[::]:80/TCP"]), ("no", &[])]
    {
        world.pods.label_node("edge", value);
        world.settle().await;
        assert_eq!(at_node(&world), places, "{value}");
        assert_eq!(world.published().snapshot.listeners().count(), places.len());
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_that_another_has_is_told_of_by_listener_and_node_and_the_rest_is_programmed() {
    let mut world = World::new(&serving());
    world.apply(OBJECTS);
    world.pods.label_node("edge", "yes");
    world.settle().await;
    let yes = || ("True".to_owned(), String::new());
    assert_eq!(programmed(&world), [yes(), yes(), yes()]);
    let object = Key { kind: Kind::Listener, name: "gateway/shop/edge/80/tcp".into() };
    let fault = Fault { object, reason: "address: in use".to_owned(), partial: false };
    let status = |faults| Some(l7::link::Status { faults, ..l7::link::Status::default() });
    world.put_into_force(&State { status: status(vec![fault]), ..State::default() });
    world.settle_without_proxy().await;
    let text = "nobody listens at port 80/TCP of the nodes: here, 0.0.0.0:80: address: in use".to_owned();
    assert_eq!(programmed(&world), [("False".to_owned(), text.clone()), ("False".to_owned(), text), yes()]);
    world.put_into_force(&State { status: status(Vec::new()), ..State::default() });
    world.settle_without_proxy().await;
    assert_eq!(programmed(&world), [yes(), yes(), yes()]);
    world.end().await;
}

/// Ingresses of which a port is closed, with what their authors are told.
fn closed(world: &World) -> Vec<(String, String)> {
    let rows = world.wanted.closed.snapshot();
    let warnings = rows.iter().map(|row| row.warning());
    warnings.map(|warning| (warning.about.name.unwrap(), warning.note)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_author_of_an_ingress_is_told_of_a_port_that_another_has_for_as_long_as_it_has_it() {
    let mut world = World::new(&serving());
    for (name, port) in [("own", 9443), ("other", 9444)] {
        world.apply(&format!(
            "kind: Ingress\nmetadata: {{name: {name}, namespace: shop, annotations: {{ingress.cilium.io/host-listener-port: '{port}'}}}}\n\
             spec: {{ingressClassName: cilium, rules: [{{host: shop.example.org}}]}}"
        ));
    }
    world.pods.label_node("edge", "yes");
    world.settle().await;
    assert_eq!(closed(&world), []);
    let listeners: Vec<_> = world.published().snapshot.listeners().map(|one| one.name.clone()).collect();
    let own = listeners.into_iter().find(|name| name.contains("ingress:own")).unwrap();
    let fault =
        |name| Fault { object: Key { kind: Kind::Listener, name }, reason: "address: in use".into(), partial: false };
    let status = |faults| Some(l7::link::Status { faults, ..l7::link::Status::default() });
    world.put_into_force(&State { status: status(vec![fault(own)]), ..State::default() });
    world.settle_without_proxy().await;
    let [(name, note)] = &closed(&world)[..] else { panic!("{:?}", closed(&world)) };
    assert_eq!(name, "own");
    assert!(note.contains(" of the nodes: here, ") && note.contains(":9443: address: in use"), "{note}");
    world.put_into_force(&State { status: status(Vec::new()), ..State::default() });
    world.settle_without_proxy().await;
    assert_eq!(closed(&world), []);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ingress_has_one_port_of_the_nodes_for_clients_with_tls_and_without() {
    let mut world = World::new(&serving());
    let spec = "spec: {ingressClassName: cilium, tls: [{hosts: [shop.example.org], secretName: cert}], rules: [{host: shop.example.org}]}";
    for (name, annotation) in [("own", "host-listener-port: '9443'"), ("usual", "request-timeout: 5s")] {
        let head = format!(
            "kind: Ingress\nmetadata: {{name: {name}, namespace: shop, annotations: {{ingress.cilium.io/{annotation}}}}}"
        );
        world.apply(&format!("{head}\n{spec}"));
    }
    world.pods.label_node("edge", "yes");
    world.settle().await;
    let ports = ["0.0.0.0:8080/TCP", "0.0.0.0:9443/TCP", "[::]:8080/TCP", "[::]:9443/TCP"];
    assert_eq!(at_node(&world), ports);
    let snapshot = world.published().snapshot;
    for listener in snapshot.listeners() {
        let l7::Serve::Tls(servers) = &listener.serve else { panic!("{listener:?}") };
        let clear = listener.clear.as_ref().unwrap();
        assert_eq!((servers.len(), clear.tables.len()), (1, 1));
    }
    world.pods.label_node("edge", "no");
    world.settle().await;
    assert_eq!(at_node(&world), [""; 0]);
    world.end().await;
}
