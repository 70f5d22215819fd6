// SPDX-License-Identifier: Apache-2.0
//! Whose requests to Services are led to the proxy, and when.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{Serving, intercepted};
use l7::link::State;

const OBJECTS: &str = include_str!("golden/mesh.yaml");

fn serving() -> Serving {
    Serving { ipv4: true, app_protocol: true, ..Serving::default() }
}

/// Service and port, and the pods whose connections the proxy takes, by what it is given.
fn taken(world: &World) -> Vec<String> {
    let state = State { snapshot: world.published().snapshot, ..State::default() };
    let row = |one: &gateway::Intercepted| {
        let clients: Vec<_> = one.clients.iter().map(ToString::to_string).collect();
        format!("{}:{} {}", one.service, one.port, clients.join(" "))
    };
    intercepted(&state).iter().map(row).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_led_to_the_proxy_once_policy_has_judged_it_and_if_a_route_is_for_its_namespace() {
    let mut world = World::new(&serving());
    world.apply(OBJECTS);
    world.settle_without_proxy().await;
    assert_eq!(taken(&world), ["mall/cart:7070 ", "mall/cart:80 "]);
    world.settle().await;
    assert_eq!(taken(&world), ["mall/cart:7070 10.0.0.2", "mall/cart:80 10.0.0.1 10.0.0.2"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_routes_nobody_is_led_anywhere_and_nothing_is_said_of_pods() {
    let mut world = World::new(&serving());
    world.apply(OBJECTS);
    world.settle().await;
    for name in ["producer", "wrong"] {
        world.routes.remove(&common::http_route("mall", name));
    }
    world.routes.remove(&common::http_route("desk", "consumer"));
    world.settle().await;
    assert_eq!(taken(&world), ["mall/cart:7070 10.0.0.2"]);
    let calls = gateway::RouteName { kind: gateway::RouteKind::Grpc, ..common::http_route("desk", "calls") };
    world.routes.remove(&calls);
    world.settle().await;
    world.settle().await;
    assert_eq!(world.served(), "");
    world.end().await;
}
