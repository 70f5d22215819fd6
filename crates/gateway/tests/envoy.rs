// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfigs of authors who want too much, or what nobody knows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{Serving, intercepted};
use l7::link::State;
use l7::{ClusterLimits, Key, Kind, Object, RouteAction, Serve, ServiceServer, Target};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn service(name: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port, "protocol": "TCP"})).collect();
    json!({"kind": "Service", "metadata": {"namespace": "ns", "name": name},
        "spec": {"clusterIP": "10.96.0.1", "ports": ports}})
}

/// A configuration for Service `s`, with one virtual host for all requests.
fn config(name: &str, second: u8, routes: Value, more: &[Value]) -> Value {
    let listener = json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l",
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {"@type": MANAGER, "route_config":
            {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}}}]}]});
    let cluster = json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "ns/s", "type": "EDS",
            "eds_cluster_config": {"service_name": "ns/s"}});
    let resources = [&[listener, cluster], more].concat();
    json!({"kind": "CiliumEnvoyConfig",
        "metadata": {"namespace": "ns", "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": {"services": [{"name": "s"}], "resources": resources}})
}

fn to_itself() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "ns/s"}}])
}

async fn settled(objects: &[Value]) -> World {
    let mut world = World::new(&Serving { ipv4: true, ..Serving::default() });
    for object in objects {
        world.apply(&object.to_string());
    }
    world.settle().await;
    world
}

/// What is done with requests, by route.
fn actions(world: &World) -> Vec<String> {
    let published = world.published();
    let routes = published.snapshot.iter().filter_map(|(_, object)| match object {
        Object::Route(route) => Some(route),
        _ => None,
    });
    let action = |action: &RouteAction| match action {
        RouteAction::Forward(_) => "forward".to_owned(),
        RouteAction::Respond(status) => status.to_string(),
        other => format!("{other:?}"),
    };
    routes.map(|route| format!("{}: {}", route.name, action(&route.action))).collect()
}

fn problems(world: &World) -> String {
    let mut text = String::new();
    for told in world.wanted.problems.snapshot().iter() {
        told.problems.iter().for_each(|problem| writeln!(text, "{}: {problem}", told.object()).unwrap());
    }
    text
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_known_and_could_refuse_somebody_refuses_everybody() {
    let routes = |change: &str, value: Value| {
        let mut route = json!({"match": {"prefix": "/"}, "route": {"cluster": "ns/s"}});
        *route.pointer_mut(change).unwrap() = value;
        json!([route])
    };
    let cases = [
        (routes("/match", json!({"prefix": "/", "dynamic_metadata": []})), "dynamic_metadata is not supported"),
        (
            routes("/match", json!({"prefix": "/", "headers": [{"name": "a", "treat_missing_header_as_empty": true}]})),
            "treat_missing_header_as_empty",
        ),
        (
            routes("/match", json!({"prefix": "/", "query_parameters": [{"name": "a", "present_match": false}]})),
            "no parameter can be asked to be absent",
        ),
        (
            routes(
                "/match",
                json!({"prefix": "/", "headers": [{"name": ":method", "exact_match": "GET", "invert_match": true}]}),
            ),
            "nothing but :method can be asked for",
        ),
        (routes("/match", json!({"prefix": "/", "case_sensitive": false})), "case_sensitive"),
        (routes("/match", json!({"safe_regex": {"regex": "("}})), "is no regular expression"),
        (routes("/match", json!({"safe_regex": {"regex": "(((a{100}){100}){100}){100}"}})), "is too large"),
        (routes("/match", json!({})), "asks for no path"),
        (routes("/match", json!(7)), "is no object"),
        (routes("/route", json!({"cluster_header": "x"})), "names no cluster"),
        (routes("/route", json!({"cluster": "ns/s", "cors": {}})), "cors is not supported"),
        (routes("/route", json!({"cluster": "ns/s", "timeout": 5})), "is no text"),
        (json!([{"match": {"prefix": "/"}, "typed_per_filter_config": {"envoy.filters.http.rbac": {}}}]), "rbac"),
        (json!("garbage"), "is no list"),
    ];
    for (routes, wanted) in cases {
        let world = settled(&[service("s", &[80]), config("c", 1, routes.clone(), &[])]).await;
        let told = problems(&world);
        assert!(told.contains("listener \"l\" refuses all requests") && told.contains(wanted), "{routes}: {told}");
        assert_eq!(actions(&world), ["CiliumEnvoyConfig ns/c/l/0/refused rule 0: 500"]);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_not_known_is_not_passed_over() {
    let foreign = json!({"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": "x"});
    for more in [vec![foreign], vec![json!({"name": "x"})], vec![json!("x")]] {
        let world = settled(&[service("s", &[80]), config("c", 1, to_itself(), &more)]).await;
        assert_eq!(actions(&world), ["CiliumEnvoyConfig ns/c/l/0/refused rule 0: 500"], "{more:?}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_terminal_would_obey_is_shown_nowhere() {
    let evil = "\u{1b}[2J";
    for place in [
        "/spec/resources/0/name",
        "/spec/resources/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/name",
        "/spec/resources/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/domains/0",
        "/spec/resources/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route/cluster",
        "/spec/services/0/name",
        "/spec/resources/1/name",
        "/spec/resources/1/eds_cluster_config/service_name",
        "/spec/resources/1/type",
        "/spec/resources/1/@type",
    ] {
        let mut object = config("c", 1, to_itself(), &[]);
        *object.pointer_mut(place).unwrap() = evil.into();
        let world = settled(&[service("s", &[80]), object]).await;
        let shown = format!("{}{}", actions(&world).join(""), problems(&world).replace('\n', ""));
        assert!(shown.contains("CiliumEnvoyConfig") && !shown.contains(char::is_control), "{place}: {shown:?}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_its_own_backend_without_a_loop_and_of_two_claims_the_older_counts() {
    let young = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 418}}]);
    let objects = [service("s", &[80]), config("young", 2, young, &[]), config("old", 1, to_itself(), &[])];
    let mut world = settled(&objects).await;
    assert_eq!(actions(&world), ["CiliumEnvoyConfig ns/old/l/0/v rule 0: forward"]);
    assert_eq!(
        problems(&world),
        "CiliumEnvoyConfig ns/young: Service ns/s: port 80 is claimed by CiliumEnvoyConfig ns/old, which is older\n"
    );
    let cluster = world.published().snapshot.iter().find_map(|(_, object)| match object {
        Object::Endpoints(endpoints) => Some(endpoints.cluster.to_string()),
        _ => None,
    });
    assert_eq!(cluster.as_deref(), Some("ns/s:80@CiliumEnvoyConfig ns/old/ns/s"));
    // When it goes, the other has the port.
    world.envoy_configs.remove(&gateway::ObjectName::new("ns", "old"));
    world.settle().await;
    assert_eq!(actions(&world).len(), 1);
    assert_eq!(problems(&world), "");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_with_routes_of_gateway_api_stays_with_these() {
    let route = json!({"kind": "HTTPRoute", "metadata": {"namespace": "ns", "name": "r"}, "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "s", "port": 80}],
        "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}});
    let mut world = settled(&[service("s", &[80, 81]), config("c", 1, json!([]), &[]), route]).await;
    let taken = |world: &World| {
        let state = State { snapshot: world.published().snapshot, ..State::default() };
        intercepted(&state).iter().map(|one| one.port).collect::<Vec<_>>()
    };
    assert_eq!(taken(&world), [80, 81]);
    assert!(problems(&world).contains("port 80 has routes of Gateway API"), "{}", problems(&world));
    world.routes.remove(&common::http_route("ns", "r"));
    world.settle().await;
    assert_eq!((taken(&world), problems(&world).contains("Gateway API")), (vec![80, 81], false));
    assert_eq!(actions(&world), [""; 0]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_routes_are_served_and_ten_thousand_expressions_are_not() {
    let routes = |wanted: &dyn Fn(usize) -> Value| -> Value {
        (0..10_000).map(|n| json!({"match": wanted(n), "route": {"cluster": "ns/s"}})).collect()
    };
    let plain = routes(&|n| json!({"prefix": format!("/a{n}")}));
    let world = settled(&[service("s", &[80]), config("c", 1, plain, &[])]).await;
    assert_eq!((actions(&world).len(), problems(&world)), (10_000, String::new()));
    world.end().await;
    let expressions = routes(&|n| json!({"safe_regex": {"regex": format!("/a{n}")}}));
    let world = settled(&[service("s", &[80]), config("c", 1, expressions, &[])]).await;
    assert_eq!(actions(&world), ["CiliumEnvoyConfig ns/c/l/0/refused rule 0: 500"]);
    world.end().await;
}

/// A configuration for Service `s` of what speaks anything.
fn of_bytes(proxy: Value, more: &[Value]) -> Value {
    let mut object = config("c", 1, json!([]), more);
    let mut filter = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"});
    filter.as_object_mut().unwrap().extend(proxy.as_object().unwrap().clone());
    object["spec"]["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"] = filter;
    object
}

/// What is served at port 80 of Service `s`.
fn served(world: &World) -> (ServiceServer, Duration) {
    let snapshot = world.published().snapshot;
    let listener = snapshot.listeners().find(|listener| &*listener.name == "service/ns/s/80/tcp").unwrap();
    let Serve::Service(server) = &listener.serve else { panic!("{listener:?}") };
    (server.clone(), listener.limits.idle)
}

fn targets(server: &ServiceServer) -> Vec<(Target, u32)> {
    server.forward.backends.iter().map(|backend| (backend.target.clone(), backend.weight)).collect()
}

#[tokio::test(start_paused = true)]
async fn connections_go_to_clusters_by_weight_and_pods_with_routes_of_their_own_have_these() {
    let proxy = json!({"idle_timeout": "90s", "weighted_clusters": {"clusters": [
        {"name": "ns/s", "weight": 9}, {"name": "gone", "weight": 1}]}});
    let mut object = of_bytes(proxy, &[]);
    object["spec"]["resources"][1]["circuit_breakers"] =
        json!({"thresholds": [{"max_connections": 5, "max_requests": 1}]});
    let consumer = json!({"kind": "HTTPRoute", "metadata": {"namespace": "desk", "name": "r"}, "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "namespace": "ns", "name": "s", "port": 80}], "rules": []}});
    let web =
        json!({"kind": "Pod", "metadata": {"namespace": "any", "name": "web"}, "ip": "10.0.0.1", "identity": 300});
    let mut world = settled(&[service("s", &[80]), object, consumer, web]).await;
    let (server, idle) = served(&world);
    let cluster: l7::Name = "ns/s:80/tcp@CiliumEnvoyConfig ns/c/ns/s".into();
    assert_eq!(targets(&server), [(Target::Cluster(Arc::clone(&cluster)), 9), (Target::Status(503), 1)]);
    assert_eq!(idle, Duration::from_secs(90));
    let consumers = server.consumers.unwrap().mesh.unwrap().consumers;
    assert_eq!(consumers.iter().map(|one| &*one.namespace).collect::<Vec<_>>(), ["desk"]);
    let snapshot = world.published().snapshot;
    let Some(Object::Cluster(spoken)) = snapshot.get(&Key { kind: Kind::Cluster, name: cluster }) else { panic!() };
    assert_eq!((spoken.limits.connections, spoken.limits.requests), (5, ClusterLimits::default().requests));
    assert!(problems(&world).contains("requests for cluster \"gone\" are refused"), "{}", problems(&world));
    let state = State { snapshot, ..State::default() };
    let led: Vec<_> = intercepted(&state).into_iter().map(|one| one.clients.len()).collect();
    assert_eq!(led, [1], "all pods are led there that policy has judged");
    // It goes with its object.
    world.envoy_configs.remove(&gateway::ObjectName::new("ns", "c"));
    world.routes.remove(&common::http_route("desk", "r"));
    world.settle().await;
    assert_eq!(world.published().snapshot.listeners().count(), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_bytes_that_cannot_be_as_it_is_written_closes_all_connections() {
    for (proxy, wanted) in [
        (json!({"cluster": "ns/s", "tunneling_config": {"hostname": "h"}}), "tunneling_config is not supported"),
        (json!({"cluster": "ns/s", "metadata_match": {}}), "metadata_match is not supported"),
        (json!({"stat_prefix": "x"}), "names no cluster"),
        (json!({"weighted_clusters": {"clusters": [{"name": "ns/s", "response_headers_to_add": []}]}}), "response_h"),
        (json!({"cluster": "ns/s", "idle_timeout": 5}), "is no text"),
    ] {
        let world = settled(&[service("s", &[80]), of_bytes(proxy.clone(), &[])]).await;
        let told = problems(&world);
        assert!(told.contains("listener \"l\" refuses all requests") && told.contains(wanted), "{proxy}: {told}");
        assert!(targets(&served(&world).0).is_empty(), "{proxy}");
        world.end().await;
    }
}

/// A cluster of addresses.
fn addressed(addresses: &[&str]) -> Value {
    let endpoint =
        |address: &&str| json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8080}}}});
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "w", "type": "STATIC",
        "load_assignment": {"cluster_name": "w", "endpoints": [{"lb_endpoints": endpoints}]}})
}

fn pod(namespace: &str, ip: &str, identity: u32) -> Value {
    let metadata = json!({"namespace": namespace, "name": format!("pod-{ip}")});
    json!({"kind": "Pod", "metadata": metadata, "remote": true, "ip": ip, "identity": identity})
}

#[tokio::test(start_paused = true)]
async fn of_addresses_that_are_written_down_pods_of_the_namespace_are_sent_to_and_nobody_else() {
    let to = json!([{"match": {"prefix": "/"}, "route": {"cluster": "w"}}]);
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "192.0.2.1"];
    let address_alone = json!({"kind": "Pod", "ip": "10.0.0.4", "identity": 304});
    let objects = [
        service("s", &[80]),
        config("c", 1, to, &[addressed(&all)]),
        pod("ns", "10.0.0.1", 301),
        pod("other", "10.0.0.2", 302),
        pod("ns", "10.0.0.3", 8),
        address_alone,
        pod("ns", "10.0.0.5", 1 << 24),
    ];
    let mut world = settled(&objects).await;
    let sent_to = |world: &World| {
        let snapshot = world.published().snapshot;
        let endpoints = snapshot.iter().find_map(|(_, object)| match object {
            Object::Endpoints(endpoints) if endpoints.cluster.starts_with('@') => Some(endpoints.endpoints.clone()),
            _ => None,
        });
        let shown = |one: &l7::Endpoint| format!("{} {}", one.address, one.identity);
        endpoints.unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(sent_to(&world), ["10.0.0.1:8080 301"]);
    let told = world.problems.snapshot().iter().flat_map(|told| told.problems.clone()).collect::<Vec<_>>();
    let nobodys = |ip| format!("cluster \"w\": {ip}:8080 gets nothing: no pod of namespace ns has it");
    assert_eq!(told, all[1..].iter().map(nobodys).collect::<Vec<_>>());
    // Who has an address now is who counts.
    for object in [pod("other", "10.0.0.1", 301), pod("ns", "10.0.0.2", 302)] {
        world.apply(&object.to_string());
    }
    world.settle().await;
    assert_eq!(sent_to(&world), ["10.0.0.2:8080 302"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_says_where_a_cluster_is_instead_of_its_service_and_one_that_nobody_uses_is_told() {
    let to = json!([{"match": {"prefix": "/"}, "route": {"cluster": "ns/s"}}]);
    let assignment = |name: &str, port: u32| {
        let address = json!({"socket_address": {"address": "10.0.0.1", "port_value": port}});
        json!({"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
    };
    let more = [assignment("ns/s", 8080), assignment("unused", 80)];
    let world = settled(&[service("s", &[80]), config("c", 1, to.clone(), &more), pod("ns", "10.0.0.1", 301)]).await;
    let snapshot = world.published().snapshot;
    let named: Vec<_> =
        snapshot.iter().filter(|(key, _)| key.kind == Kind::Cluster).map(|(key, _)| &*key.name).collect();
    assert_eq!(named, ["@CiliumEnvoyConfig ns/c/ns/s"]);
    assert!(problems(&world).contains("ClusterLoadAssignment \"unused\" is not honoured"), "{}", problems(&world));
    world.end().await;
    let world = settled(&[service("s", &[80]), config("c", 1, to, &[assignment("ns/s", 0)])]).await;
    assert!(problems(&world).contains("requests for cluster \"ns/s\" are refused"), "{}", problems(&world));
    world.end().await;
}
