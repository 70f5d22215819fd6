// SPDX-License-Identifier: Apache-2.0
//! What the feature shows of itself: routes, status, metrics, health.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::owned::tests::node;
use datapath::fake;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::selector;
use model::{PodName, ServiceName};
use rest::{ExplainedEndpoint, ExplainedFrontend, LrpSpec, ServiceExplanation, StatusResponse};
use serde_json::{Value, json};
use statedb::Writer;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

struct World {
    config: Config,
    services: Writer<Service>,
    slices: Writer<EndpointSlice>,
    redirects: Writer<Redirect>,
    pods: Writer<Pod>,
    nodes: Writer<Node>,
    addresses: Writer<NodeAddress>,
    hooks: Arc<fake::Hooks>,
    surface: Surface,
    _tasks: Tasks,
}

impl World {
    fn new(config: Config, hooks: fake::Hooks) -> Self {
        let (services, service_rows) = statedb::table("services");
        let (slices, slice_rows) = statedb::table("slices");
        let (redirects, redirect_rows) = statedb::table("redirects");
        let (mut intercepts, intercept_rows) = statedb::table("intercepts");
        intercepts.mark_initialized();
        let (pods, pod_rows) = statedb::table("pods");
        let (nodes, node_rows) = statedb::table("nodes");
        let (addresses, address_rows) = statedb::table("addresses");
        let maps: Arc<dyn Kernel> = Arc::new(fake::Kernel::new());
        let (tasks, hooks) = (Tasks::new(Default::default()), Arc::new(hooks));
        let inputs = Inputs {
            services: service_rows,
            slices: slice_rows,
            redirects: redirect_rows,
            intercepts: intercept_rows,
            pods: pod_rows,
            node: NodeName { cluster: "default".to_owned(), name: "n1".to_owned() },
            nodes: node_rows,
            addresses: address_rows,
            own_node: statedb::table("own-node").1,
            before_stack: tokio::sync::watch::channel(Default::default()).1,
            epochs: Epochs::open(&maps).unwrap(),
            maps,
            hooks: hooks.clone(),
            sockets: Arc::new(fake::Sockets::default()),
        };
        let surface = start(&config, inputs, &tasks).unwrap().surface;
        Self { config, services, slices, redirects, pods, nodes, addresses, hooks, surface, _tasks: tasks }
    }

    fn service(&mut self, name: &str, spec: Value, status: Value) {
        let metadata = json!({"namespace": "shop", "name": name});
        let object: core::Service =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
        self.services.insert(ingest_service(&self.config, &object).unwrap().unwrap());
    }

    fn slice(&mut self, service: &str, endpoints: Value) {
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({"metadata": {"namespace": "shop", "name": format!("{service}-1"), "labels": labels},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
        let object = serde_json::from_value(object).unwrap();
        self.slices.insert(ingest_slice(&self.config, &object).unwrap());
    }

    /// The clock is paused, so it moves only once every task waits.
    async fn settle(&mut self) {
        self.services.mark_initialized();
        self.slices.mark_initialized();
        self.redirects.mark_initialized();
        self.pods.mark_initialized();
        self.nodes.mark_initialized();
        self.addresses.mark_initialized();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = TowerToHyperService::new(self.surface.router()).call(request).await.unwrap();
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        (status, serde_json::from_slice(&body).unwrap())
    }
}

fn proxy() -> Config {
    Config { kube_proxy_replacement: true, ..Config::default() }
}

/// A Service with a local policy, of whose addresses another has one, and three endpoints.
fn web(world: &mut World) {
    let ports = json!([{"name": "http", "port": 80}]);
    let rival = json!({"clusterIP": "10.96.0.2", "externalIPs": ["192.0.2.9"], "ports": ports});
    world.service("a-rival", rival, json!({}));
    let spec = json!({"clusterIP": "10.96.0.1", "type": "LoadBalancer", "externalIPs": ["192.0.2.9"], "ports": ports,
        "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "healthCheckNodePort": 30999,
        "loadBalancerSourceRanges": ["203.0.113.0/24"]});
    world.service("web", spec, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}));
    let endpoint = |ip: &str, node: &str, ready: bool| json!({"addresses": [ip], "nodeName": node, "zone": format!("z-{node}"), "conditions": {"ready": ready}});
    let unready = endpoint("10.0.2.8", "n2", false);
    world.slice("web", json!([endpoint("10.0.1.7", "n1", true), endpoint("10.0.2.7", "n2", true), unready]));
    world.nodes.insert(node("n1", "192.168.0.11", "10.0.1.0/24"));
}

#[tokio::test(start_paused = true)]
async fn a_service_is_explained_with_what_it_has_and_what_it_has_not() {
    let mut world = World::new(proxy(), fake::Hooks::default());
    web(&mut world);
    world.settle().await;
    let (status, seen) = world.get("/v1/service/explain/shop/web").await;
    let seen: ServiceExplanation = serde_json::from_value(seen).unwrap();
    let frontend = |address: &str, kind: &str, taken_by: &str, policy: &str, backends| ExplainedFrontend {
        address: address.to_owned(),
        kind: kind.to_owned(),
        taken_by: taken_by.to_owned(),
        policy: policy.to_owned(),
        backends,
    };
    let endpoint = |n: u8, node: &str, state: &str, left_out: &str, left_out_locally: &str| ExplainedEndpoint {
        address: format!("10.0.{n}:8080/TCP", n = ["1.7", "2.7", "2.8"][usize::from(n)]),
        port: "http".to_owned(),
        node: node.to_owned(),
        zone: format!("z-{node}"),
        state: state.to_owned(),
        left_out: left_out.to_owned(),
        left_out_locally: left_out_locally.to_owned(),
    };
    let elsewhere = "it is on another node, and the traffic policy is Local";
    let expected = ServiceExplanation {
        service: "shop/web".to_owned(),
        node: "n1".to_owned(),
        not_served_because: None,
        settings: [
            "internal traffic policy: Cluster",
            "external traffic policy: Local",
            "algorithm: random",
            "forwarding: snat",
            "session affinity: 10800 s",
            "clients admitted: 203.0.113.0/24",
            "health check port: 30999",
        ]
        .map(str::to_owned)
        .to_vec(),
        problems: vec!["spec.externalIPs: 192.0.2.9:80/TCP is that of the Service shop/a-rival".to_owned()],
        frontends: vec![
            frontend("10.96.0.1:80/TCP", "ClusterIP", "", "Cluster", 2),
            frontend("192.0.2.8:80/TCP", "LoadBalancer", "", "Local", 1),
            frontend("192.0.2.8:80/TCP/i", "LoadBalancer", "", "Cluster", 2),
            frontend("192.0.2.9:80/TCP", "ExternalIPs", "shop/a-rival", "Local", 1),
            frontend("192.0.2.9:80/TCP/i", "ExternalIPs", "", "Cluster", 2),
        ],
        endpoints: vec![
            endpoint(0, "n1", "active", "", ""),
            endpoint(1, "n2", "active", "", elsewhere),
            endpoint(2, "n2", "", "it is not ready", "it is not ready"),
        ],
        announced: vec![],
    };
    assert_eq!((status, seen), (StatusCode::OK, expected));
    let (status, text) = world.get("/v1/service/explain/shop/none").await;
    assert_eq!((status, text), (StatusCode::NOT_FOUND, json!("no Service shop/none has an address here")));
}

#[tokio::test(start_paused = true)]
async fn a_service_for_other_nodes_is_explained_as_that() {
    let mut world = World::new(proxy(), fake::Hooks::default());
    web(&mut world);
    let row = world.services.reader();
    world.services.commit();
    let row = row.snapshot().get(&ServiceName::new("shop", "web")).unwrap();
    world
        .services
        .insert(Service { nodes: selector::parse("service.cilium.io/node=edge").unwrap(), ..Service::clone(&row) });
    world.settle().await;
    let (_, seen) = world.get("/v1/service/explain/shop/web").await;
    let seen: ServiceExplanation = serde_json::from_value(seen).unwrap();
    assert_eq!(seen.not_served_because.as_deref(), Some("its annotations choose other nodes"));
    assert!(seen.frontends.is_empty());
}

#[tokio::test(start_paused = true)]
async fn frontends_are_listed_with_their_backends() {
    let mut world = World::new(proxy(), fake::Hooks::default());
    web(&mut world);
    world.settle().await;
    let (status, all) = world.get("/v1/service").await;
    let all = all.as_array().unwrap();
    assert_eq!((status, all.len()), (StatusCode::OK, 6));
    let of = |ip: &str| all.iter().map(|row| &row["spec"]).find(|spec| spec["frontend-address"]["ip"] == ip).unwrap();
    let (cluster, balanced) = (of("10.96.0.1"), of("192.0.2.8"));
    let address = json!({"ip": "10.96.0.1", "protocol": "tcp", "port": 80, "scope": "external"});
    assert_eq!(cluster["frontend-address"], address);
    let flags = json!({"type": "LoadBalancer", "trafficPolicy": "Local", "extTrafficPolicy": "Local",
        "intTrafficPolicy": "Cluster", "natPolicy": "None", "healthCheckNodePort": 30999,
        "name": "web", "namespace": "shop"});
    for (name, value) in flags.as_object().unwrap() {
        assert_eq!(&balanced["flags"][name], value, "{name} of {balanced}");
    }
    let backends = cluster["backend-addresses"].as_array().unwrap();
    assert_eq!(backends.len(), 2);
    for (name, value) in [
        ("ip", json!("10.0.1.7")),
        ("port", json!(8080)),
        ("protocol", json!("tcp")),
        ("nodeName", json!("n1")),
        ("zone", json!("z-n1")),
        ("state", json!("active")),
    ] {
        assert_eq!(backends[0][name], value, "{name} of {}", backends[0]);
    }
    assert!(all.iter().all(|row| row["spec"] == row["status"]["realized"]));
}

#[tokio::test(start_paused = true)]
async fn redirects_are_listed_with_the_pods_that_they_lead_to() {
    let mut world = World::new(proxy(), fake::Hooks::default());
    let port = |port: &str| json!([{"port": port, "protocol": "TCP"}]);
    let spec = json!({"redirectFrontend": {"addressMatcher": {"ip": "169.254.169.254", "toPorts": port("80")}},
        "redirectBackend": {"localEndpointSelector": {"matchLabels": {"app": "x"}}, "toPorts": port("8080")}});
    let object = json!({"metadata": {"namespace": "shop", "name": "metadata", "uid": "u"}, "spec": spec});
    let object = serde_json::from_value(object).unwrap();
    world.redirects.insert(ingest_redirect(&world.config, &object).unwrap().unwrap());
    world.pods.insert(Pod {
        name: PodName::new("shop", "x-1"),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        ips: vec!["10.0.1.9".parse().unwrap()],
        ready: true,
        ..Pod::default()
    });
    world.settle().await;
    let (_, list) = world.get("/v1/lrp").await;
    let list: Vec<LrpSpec> = serde_json::from_value(list).unwrap();
    let [policy] = &*list else { unreachable!("{list:?}") };
    assert_eq!((&*policy.uid, &*policy.namespace, &*policy.name), ("u", "shop", "metadata"));
    assert_eq!((&*policy.frontend_type, &*policy.service_id), ("IP + port", ""));
    let [mapping] = &*policy.frontend_mappings else { unreachable!("{policy:?}") };
    let address = mapping.frontend_address.as_ref().unwrap();
    assert_eq!((&*address.ip, address.port), ("169.254.169.254", 80));
    let [backend] = &*mapping.backends else { unreachable!("{mapping:?}") };
    let address = backend.backend_address.as_ref().unwrap();
    assert_eq!((&*backend.pod_id, &*address.ip, address.port), ("shop/x-1", "10.0.1.9", 8080));
}

#[tokio::test(start_paused = true)]
async fn changes_and_their_way_into_the_maps_are_counted() {
    let mut world = World::new(proxy(), fake::Hooks::default());
    web(&mut world);
    world.settle().await;
    let page = world.surface.metrics_page();
    // Two Services and a slice.
    assert!(page.contains("services_events_total 3\n"), "{page}");
    assert!(page.contains("service_implementation_delay_count{action=\"upsert\"} 1\n"), "{page}");
    for service in ["web", "a-rival"] {
        world.services.remove(&ServiceName::new("shop", service));
    }
    world.settle().await;
    let page = world.surface.metrics_page();
    assert!(page.contains("services_events_total 5\n"), "{page}");
    assert!(page.contains("service_implementation_delay_count{action=\"delete\"} 1\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn what_replaces_kube_proxy_is_in_the_status_and_at_the_sockets() {
    let on_sockets = || Program::sockets().map(|program| (program.name().to_owned(), None)).collect::<Vec<_>>();
    // What an earlier process left there.
    let all = fake::Hooks::default();
    Program::sockets().for_each(|program| all.attach_cgroup(program, "/".as_ref(), program.name()).unwrap());
    for (config, mode, at_sockets, exposed) in [
        (proxy(), "True", true, true),
        (Config { socket_lb_only: true, ..Config::default() }, "True", true, false),
        (Config::default(), "False", false, false),
    ] {
        let world = World::new(config, all.clone());
        let StatusResponse { kube_proxy_replacement, .. } = world.surface.status_now();
        let replacement = kube_proxy_replacement.unwrap();
        let features = replacement.features.unwrap();
        assert_eq!(replacement.mode, mode);
        for (switch, on) in [
            (features.socket_lb, at_sockets),
            (features.socket_lb_tracing, at_sockets),
            (features.graceful_termination, at_sockets),
            (features.session_affinity, at_sockets),
            (features.external_ips, exposed),
            (features.host_port, exposed),
        ] {
            assert_eq!(switch.unwrap().enabled, on, "{mode}");
        }
        let attached: Vec<_> = world.hooks.attached().into_iter().collect();
        let mut expected = if at_sockets { on_sockets() } else { Vec::new() };
        expected.sort();
        assert_eq!(attached, expected, "{mode}");
    }
}

/// The status with which it answers.
async fn health(at: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_healthy_when_its_maps_are_complete_and_a_port_that_is_taken_is_waited_for() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let mut world = World::new(Config { healthz: Some(at), ..proxy() }, fake::Hooks::default());
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(taken);
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    assert_eq!(health(at).await.as_deref(), Some("503"));
    tokio::time::pause();
    world.settle().await;
    tokio::time::resume();
    assert_eq!(health(at).await.as_deref(), Some("200"));
}
