// SPDX-License-Identifier: Apache-2.0
//! What becomes of Ingresses, and what their authors are told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{IngressFault, Serving};
use l7::{Alpn, Serve, TlsAction};
use serde_json::json;

const SERVICE: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}";

/// An Ingress of the host `NAME.test` with these annotations (without their prefix), and more of its specification.
fn ingress(name: &str, annotations: &[(&str, &str)], spec: &str) -> String {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(name, value)| (format!("ingress.cilium.io/{name}"), json!(value))).collect();
    format!(
        "kind: Ingress\nmetadata: {{name: {name}, namespace: shop, uid: {name}, annotations: {}}}\n\
         spec:\n  ingressClassName: cilium\n  rules:\n  - host: {name}.test\n    http:\n      paths:\n      \
         - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n{spec}",
        serde_json::Value::Object(annotations)
    )
}

async fn with(objects: &[String]) -> World {
    let serving = Serving { ipv4: true, ..Serving::default() };
    with_serving(&serving, objects).await
}

async fn with_serving(serving: &Serving, objects: &[String]) -> World {
    let mut world = World::new(serving);
    world.apply(SERVICE);
    objects.iter().for_each(|object| world.apply(object));
    world.settle().await;
    world
}

/// Reasons and texts of what is told of an Ingress.
fn told(world: &World, name: &str) -> Vec<(&'static str, String)> {
    let problems = world.wanted.ingress_problems.snapshot();
    let warnings = problems.iter().filter(|problem| &*problem.name.name == name).map(|problem| problem.warning());
    warnings.map(|warning| (warning.reason, warning.note)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_time_out_is_a_duration_of_go() {
    for (text, milliseconds) in [
        ("1.5s", Some(1500)),
        ("500ms", Some(500)),
        ("1m30s", Some(90_000)),
        ("100us", Some(1)),
        ("0s", None),
        ("0", None),
    ] {
        let world = with(&[ingress("web", &[("request-timeout", text)], "")]).await;
        assert_eq!(told(&world, "web"), [], "{text}");
        let wanted = milliseconds.map(|timeout| format!("\"timeout\":{timeout}}}"));
        assert!(wanted.is_none_or(|wanted| world.served().contains(&wanted)), "{text}: {}", world.served());
        assert_eq!(world.served().contains("timeout"), milliseconds.is_some(), "{text}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_cannot_be_read_is_told_of_and_takes_nothing_else_with_it() {
    let annotations = [("request-timeout", "soon"), ("service-type", "NodePort"), ("force-https", "maybe")];
    let world = with(&[ingress("web", &annotations, "")]).await;
    let [("InvalidAnnotation", note)] = &told(&world, "web")[..] else { panic!("{:?}", told(&world, "web")) };
    for part in [
        "annotation ingress.cilium.io/request-timeout: \"soon\" is not a duration",
        "annotation ingress.cilium.io/force-https: \"maybe\" is not enabled or disabled",
    ] {
        assert!(note.contains(part), "{note}");
    }
    assert!(
        world.served().contains("{\"forward\":{\"backends\":[{\"target\":{\"cluster\":\"shop/web:80\"}"),
        "{}",
        world.served()
    );
    assert!(world.made().contains("\"type\":\"NodePort\""), "{}", world.made());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_is_told_of_by_reason() {
    let odd = "
  - host: odd.test
    http:
      paths:
      - {path: '/(', pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /a, pathType: Prefix, backend: {service: {name: gone, port: {number: 80}}}}
      - {path: /b, pathType: Prefix, backend: {resource: {kind: Bucket, name: b, apiGroup: x.io}}}
  tls: [{hosts: [web.test], secretName: gone}]";
    let mut world = with(&[ingress("web", &[], odd), ingress("fine", &[], "")]).await;
    let faults = told(&world, "web");
    let has = |reason: &str, part: &str| {
        let found = faults.iter().find(|(told, _)| *told == reason);
        assert!(found.is_some_and(|(_, note)| note.contains(part)), "{reason}: {faults:?}");
    };
    has("InvalidRule", "host odd.test: Dropped Rule 0: path: \"/(\" is no regular expression");
    has("BackendNotFound", "Service shop/gone does not exist");
    has("BackendNotFound", "host odd.test, path /b: the backend is no Service");
    has("CertificateNotFound", "TLS of host web.test: Secret shop/gone does not exist or holds no certificate");
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(told(&world, "fine"), []);
    world.apply("kind: Secret\nmetadata: {name: gone, namespace: shop}\ngenerate: web.test");
    world.settle().await;
    assert!(
        !told(&world, "web").iter().any(|(reason, _)| *reason == "CertificateNotFound"),
        "{:?}",
        told(&world, "web")
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_ingresses_that_share_a_load_balancer_the_younger_is_told_what_the_older_has() {
    let shared = |name: &str, created: &str, secret: &str| {
        let spec = format!(
            "  - host: both.test\n    http:\n      paths:\n      \
            - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n  \
            tls: [{{hosts: [both.test], secretName: {secret}}}]"
        );
        let text = ingress(name, &[("loadbalancer-mode", "shared")], &spec);
        text.replace("namespace: shop,", &format!("namespace: shop, creationTimestamp: '{created}',"))
    };
    let young = shared("young", "2026-02-01T00:00:00Z", "theirs");
    let mut world = with(&[shared("old", "2026-01-01T00:00:00Z", "own"), young]).await;
    let taken = |world: &World, name: &str| -> Vec<String> {
        let problems = world.wanted.ingress_problems.snapshot();
        let of = problems.iter().filter(|one| &*one.name.name == name && one.fault == IngressFault::Host);
        of.flat_map(|problem| problem.notes.clone()).collect()
    };
    let older = "the older Ingress shop/old has it";
    let wanted = [format!("TLS of host both.test: {older}"), format!("host both.test, path /: {older}")];
    assert_eq!(taken(&world, "young"), wanted);
    assert_eq!(taken(&world, "old"), [""; 0]);
    world.ingresses.remove(&gateway::ObjectName::new("shop", "old"));
    world.settle().await;
    assert_eq!(taken(&world, "young"), [""; 0]);
    world.end().await;
}

/// Ports of the nodes at which the Service of an Ingress is wanted, by port.
fn node_ports(world: &World) -> Vec<(i32, Option<i32>)> {
    let wanted = world.wanted.services.snapshot();
    let spec = wanted.iter().next().unwrap().service.spec.clone().unwrap();
    spec.ports.unwrap().iter().map(|port| (port.port, port.node_port)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_service_of_type_node_port_has_the_ports_that_are_asked_for_and_no_other_has() {
    let ports = [("insecure-node-port", "30080"), ("secure-node-port", "30443")];
    let tls = "  tls: [{hosts: [web.test], secretName: cert}]";
    let of_type = |kind| [&[("service-type", kind)], &ports[..]].concat();
    let mut world = with(&[ingress("web", &of_type("NodePort"), tls)]).await;
    assert_eq!(node_ports(&world), [(80, Some(30080)), (443, Some(30443))]);
    assert!(!told(&world, "web").iter().any(|(reason, _)| *reason == "InvalidAnnotation"));
    world.apply(&ingress("web", &of_type("LoadBalancer"), tls));
    world.settle().await;
    assert_eq!(node_ports(&world), [(80, None), (443, None)]);
    assert!(told(&world, "web")[0].1.contains("with service-type NodePort"), "{:?}", told(&world, "web"));
    world.apply(&ingress("web", &[("service-type", "NodePort"), ("secure-node-port", "70000")], tls));
    world.settle().await;
    assert_eq!(node_ports(&world), [(80, None), (443, None)]);
    assert!(told(&world, "web")[0].1.contains("\"70000\" is not the number of a port"), "{:?}", told(&world, "web"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn gateways_and_ingresses_each_have_a_proxy_header_or_not() {
    let gateway = "
kind: GatewayClass
metadata: {name: cilium}
spec: {controllerName: io.cilium/gateway-controller}
---
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: cilium, listeners: [{name: web, port: 80, protocol: HTTP}]}";
    for (proxy_protocol, ingress_proxy_protocol) in [(true, false), (false, true)] {
        let serving = Serving { ipv4: true, proxy_protocol, ingress_proxy_protocol, ..Serving::default() };
        let world = with_serving(&serving, &[gateway.to_owned(), ingress("web", &[], "")]).await;
        let snapshot = world.published().snapshot;
        let expects = |name: &str| {
            let mut listeners = snapshot.listeners();
            listeners.find(|listener| listener.name.contains(name)).unwrap().proxy_protocol
        };
        assert_eq!((expects("shop/edge"), expects("ingress:web")), (proxy_protocol, ingress_proxy_protocol));
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_an_ingress_are_offered_http_2_in_tls() {
    let secret = "kind: Secret\nmetadata: {name: cert, namespace: shop}\ngenerate: web.test".to_owned();
    let world = with(&[secret, ingress("web", &[], "  tls: [{hosts: [web.test], secretName: cert}]")]).await;
    let snapshot = world.published().snapshot;
    let servers = snapshot.listeners().filter_map(|listener| match &listener.serve {
        Serve::Tls(servers) => Some(servers),
        _ => None,
    });
    let offered: Vec<_> = servers
        .flatten()
        .filter_map(|server| match &server.action {
            TlsAction::Http(termination, _) => Some(termination.alpn.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(offered, [[Alpn::Http2, Alpn::Http1]]);
    drop(snapshot);
    world.end().await;
}
