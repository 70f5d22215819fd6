// SPDX-License-Identifier: Apache-2.0
//! When a Gateway is said to be in force, as many nodes have it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{Edition, InForce, ObjectName, Serving, Status, Subject};
use std::time::Duration;

const CLASS: &str = "
kind: GatewayClass
metadata: {name: cilium}
spec: {controllerName: io.cilium/gateway-controller}
---
kind: Service
metadata: {name: cilium-gateway-edge, namespace: shop, ownerReferences: [{kind: Gateway, name: edge, uid: u, apiVersion: v1}]}
spec: {type: LoadBalancer, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}";

fn gateway(uid: &str, generation: i64, rest: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: edge, namespace: shop, uid: {uid}, generation: {generation}}}\n\
         spec: {{gatewayClassName: cilium, listeners: [{{name: web, port: 80, protocol: HTTP}}]}}\n{rest}"
    )
}

fn in_force(uid: &str, generation: i64) -> InForce {
    of("Gateway shop/edge", uid, generation)
}

fn of(object: &str, uid: &str, generation: i64) -> InForce {
    let edition = Edition { object: object.into(), uid: uid.into() };
    InForce { serves: true, generations: [(edition, generation)].into(), ..InForce::default() }
}

/// Status and message.
fn programmed(world: &World) -> (String, String) {
    let Some(Status::Gateway(status)) = world.report(&Subject::Gateway(ObjectName::new("shop", "edge"))) else {
        panic!("nothing is said of the Gateway");
    };
    let found = status.conditions.into_iter().find(|condition| condition.kind == "Programmed").unwrap();
    (found.status, found.message)
}

fn is(status: &str, message: &str) -> (String, String) {
    (status.to_owned(), message.to_owned())
}

async fn moment(world: &mut World) {
    world.apply("");
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn world() -> World {
    let mut world = World::new(&Serving::default());
    world.apply(CLASS);
    world.apply(&gateway("u1", 5, ""));
    moment(&mut world).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_made_again_is_not_programmed_by_what_is_said_of_the_one_before() {
    let mut world = world().await;
    world.reports("a", &in_force("u1", 5));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", ""));
    world.apply(&gateway("u2", 1, ""));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("False", "no proxy has it in force yet"));
    world.reports("a", &in_force("u2", 1));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", ""));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_programmed_once_every_node_whose_proxy_takes_connections_has_it() {
    let mut world = world().await;
    for node in ["a", "b", "c", "d", "e", "f"] {
        world.reports(node, &in_force("u1", 4));
    }
    world.reports("idle", &InForce::default());
    world.reports("a", &in_force("u1", 5));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("False", "in force on 1 of 6 nodes, not on b, c, d, and 2 more"));
    for node in ["b", "c", "d", "e"] {
        world.reports(node, &in_force("u1", 5));
    }
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("False", "in force on 5 of 6 nodes, not on f"));
    world.reports("f", &in_force("u1", 5));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", ""));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_behind_is_waited_for_only_once() {
    let mut world = world().await;
    world.reports("a", &in_force("u1", 5));
    world.reports("dead", &in_force("u1", 4));
    moment(&mut world).await;
    let waiting = "in force on 1 of 2 nodes, not on dead";
    assert_eq!(programmed(&world), is("False", waiting));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(programmed(&world), is("True", waiting));
    world.apply(&gateway("u2", 1, ""));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("False", "no proxy has it in force yet"));
    world.reports("a", &in_force("u2", 1));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", waiting));
    world.reports("dead", &in_force("u2", 1));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", ""));
    world.apply(&gateway("u2", 2, ""));
    world.reports("a", &in_force("u2", 2));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("False", waiting), "it is alive");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_later_takes_nothing_back() {
    let mut world = world().await;
    let said = "status: {conditions: [{type: Programmed, status: 'True', reason: Programmed, message: '', \
                observedGeneration: 5, lastTransitionTime: '2026-01-01T00:00:00Z'}]}";
    world.apply(&gateway("u1", 5, said));
    world.reports("a", &in_force("u1", 5));
    world.reports("new", &in_force("u1", 4));
    moment(&mut world).await;
    assert_eq!(programmed(&world), is("True", ""));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ingress_is_told_its_address_by_the_same_rule_and_keeps_it() {
    let mut world = World::new(&Serving::default());
    world.apply(
        "
kind: Service
metadata:
  {name: cilium-ingress-web, namespace: shop, labels: {cilium.io/ingress: 'true'}, ownerReferences: [{kind: Ingress, name: web, uid: i, apiVersion: v1}]}
spec: {type: LoadBalancer, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}",
    );
    let ingress = |uid: &str, status: &str| {
        let metadata = format!("metadata: {{name: web, namespace: shop, uid: {uid}, generation: 2}}");
        format!("kind: Ingress\n{metadata}\nspec: {{ingressClassName: cilium, rules: [{{host: web.test}}]}}\n{status}")
    };
    world.apply(&ingress("i1", ""));
    let said = |uid: &str| of("Gateway shop/ingress:web", uid, 2);
    world.reports("a", &said("i1"));
    world.reports("b", &said("before"));
    moment(&mut world).await;
    let told =
        |world: &World| world.wanted.ingresses.snapshot().iter().map(|row| row.addresses.clone()).collect::<Vec<_>>();
    assert_eq!(told(&world), [[""; 0]; 0], "b has another's");
    world.reports("b", &said("i1"));
    moment(&mut world).await;
    assert_eq!(told(&world), [["192.0.2.1"]]);
    world.apply(&ingress("i1", "status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}"));
    world.reports("new", &InForce { serves: true, ..InForce::default() });
    moment(&mut world).await;
    assert_eq!(told(&world), [[""; 0]; 0], "nothing is to be said otherwise");
    world.end().await;
}
