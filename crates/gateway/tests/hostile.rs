// SPDX-License-Identifier: Apache-2.0
//! Objects of an author who may write in a namespace of his own, and wants what is others'.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{IngressConfig, ObjectName, Serving, Status, Subject};
use serde_json::{Value, json};

fn serving() -> Serving {
    Serving { ipv4: true, ..Serving::default() }
}

fn class() -> Value {
    json!({"kind": "GatewayClass", "metadata": {"name": "cilium"}, "spec": {"controllerName": "io.cilium/gateway-controller"}})
}

fn gateway(namespace: &str, name: &str, listeners: Value) -> Value {
    json!({"kind": "Gateway", "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": "cilium", "listeners": listeners}})
}

fn ingress(namespace: &str, name: &str, second: u8, annotations: Value, tls: Value) -> Value {
    json!({"kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": {"ingressClassName": "cilium", "tls": tls, "rules": [{"host": format!("{name}.test"), "http": {"paths": []}}]}})
}

fn secret(namespace: &str, name: &str) -> Value {
    json!({"kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "generate": format!("{name}.test")})
}

async fn settled(ingress: IngressConfig, objects: impl IntoIterator<Item = Value>) -> World {
    let mut world = World::with_ingresses(&serving(), ingress);
    for object in std::iter::once(class()).chain(objects) {
        world.apply(&object.to_string());
    }
    world.settle().await;
    world
}

/// The certificates that proxies have, which are those that are copied too.
fn certificates(world: &World) -> Vec<String> {
    let served: Vec<String> = world
        .served()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("certificate ")?.split_once(':')?.0.to_owned()))
        .collect();
    let copied: Vec<String> = world.wanted.copies.snapshot().iter().map(|copy| copy.original.to_string()).collect();
    assert_eq!(served, copied);
    served
}

#[tokio::test(start_paused = true)]
async fn the_default_certificate_is_for_ingresses_alone_and_no_other_secret_comes_with_it() {
    let config =
        IngressConfig { default_secret: Some(ObjectName::new("system", "default")), ..IngressConfig::default() };
    let listener = |name: &str, secret: &str| {
        json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": format!("{name}.test"),
            "tls": {"certificateRefs": [{"name": secret, "namespace": "system"}]}})
    };
    let objects = [
        secret("system", "default"),
        secret("system", "other"),
        gateway("evil", "g", json!([listener("a", "default"), listener("b", "other")])),
    ];
    let mut world = settled(config, objects).await;
    assert_eq!(certificates(&world), [""; 0]);
    world.apply(&ingress("evil", "web", 0, json!({}), json!([{"hosts": ["web.test"]}])).to_string());
    world.settle().await;
    assert_eq!(certificates(&world), ["system/default"]);
    let Some(Status::Gateway(status)) = world.report(&Subject::Gateway(ObjectName::new("evil", "g"))) else { panic!() };
    for listener in status.listeners {
        let resolved = listener.conditions.iter().find(|condition| condition.kind == "ResolvedRefs").unwrap();
        assert_eq!(resolved.reason, "RefNotPermitted", "{}", listener.name);
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_load_balancer_that_ingresses_share_is_none_of_theirs_to_shape() {
    let shared = IngressConfig { shared: true, ..IngressConfig::default() };
    let asks = json!({"lbipam.cilium.io/ips": "192.0.2.66", "ingress.cilium.io/loadbalancer-class": "mine",
        "ingress.cilium.io/service-external-traffic-policy": "Local"});
    let objects = [
        ingress("shop", "web", 1, json!({}), json!([])),
        ingress("evil", "older", 0, asks.clone(), json!([])),
        ingress("evil", "younger", 2, asks, json!([])),
    ];
    let world = settled(shared, objects).await;
    let made = world.made();
    assert!(made.contains("cilium-ingress") && made.contains("kube-system"), "{made}");
    assert!(!["192.0.2.66", "mine", "Local"].iter().any(|text| made.contains(text)), "{made}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_asterisk_of_an_ingress_stands_for_one_label() {
    let ingress = json!({"kind": "Ingress", "metadata": {"name": "web", "namespace": "n"}, "spec": {
        "ingressClassName": "cilium", "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}},
        "rules": [{"host": "*.w.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    let world = settled(IngressConfig::default(), [ingress]).await;
    let published = world.published().snapshot;
    let mut seen = 0;
    for (_, object) in published.iter() {
        let l7::Object::Route(route) = object else { continue };
        if !route.attachments.iter().any(|attachment| attachment.hosts.contains(&"*.w.test".parse().unwrap())) {
            continue;
        }
        for one in route.matches.iter() {
            let Some((_, l7::ValueMatch::Regex(text))) = one.headers.first() else { panic!("{one:?}") };
            let host = l7::syntax::expression(text).unwrap();
            let hosts = ["a.w.test", "A.W.test:80", "a.w.test.", "a.b.w.test", "w.test", "axw.test"];
            assert_eq!(hosts.map(|name| host.is_match(name)), [true, true, true, false, false, false]);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
    world.end().await;
}

/// The API server takes labels of more than the 63 bytes that DNS allows.
fn overlong() -> String {
    format!("{}.test", "a".repeat(64))
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_a_name_that_is_none_is_for_no_name() {
    let listeners = json!([
        {"name": "good", "port": 80, "protocol": "HTTP", "hostname": "good.test"},
        {"name": "bad", "port": 80, "protocol": "HTTP", "hostname": overlong()},
        {"name": "tls", "port": 443, "protocol": "HTTPS", "hostname": "tls.test", "tls": {"certificateRefs": [{"name": "c"}]}},
        {"name": "bad-tls", "port": 443, "protocol": "HTTPS", "hostname": overlong(), "tls": {"certificateRefs": [{"name": "c"}]}},
    ]);
    let world = settled(IngressConfig::default(), [gateway("n", "g", listeners), secret("n", "c")]).await;
    let served = world.served();
    assert!(served.contains("gateway/n/g/good") && served.contains("gateway/n/g/tls"), "{served}");
    assert!(!served.contains("gateway/n/g/bad"), "{served}");
    let Some(Status::Gateway(status)) = world.report(&Subject::Gateway(ObjectName::new("n", "g"))) else { panic!() };
    let accepted =
        status.listeners.iter().map(|listener| (listener.name.as_str(), listener.conditions[0].status.as_str()));
    assert_eq!(
        accepted.collect::<Vec<_>>(),
        [("good", "True"), ("bad", "False"), ("tls", "True"), ("bad-tls", "False")]
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ingress_with_a_name_that_is_none_takes_nobody_elses_tls() {
    let shared = IngressConfig { shared: true, ..IngressConfig::default() };
    let objects = [
        ingress("shop", "web", 0, json!({}), json!([{"secretName": "c"}])),
        secret("shop", "c"),
        ingress("evil", "bad", 1, json!({}), json!([{"hosts": [overlong()], "secretName": "c"}])),
    ];
    let world = settled(shared, objects).await;
    assert_eq!(certificates(&world), ["shop/c"]);
    assert!(world.served().contains("\"certificates\":[\"shop/c\"]"), "{}", world.served());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_of_another_namespace_leads_only_that_ones_pods_away_from_a_service() {
    let objects = [
        json!({"kind": "Service", "metadata": {"name": "s", "namespace": "shop"}, "spec": {
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}}),
        json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "evil"}, "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "s", "namespace": "shop"}],
            "rules": [{"backendRefs": [{"name": "s", "namespace": "shop", "port": 80}]}]}}),
    ];
    let world = settled(IngressConfig::default(), objects).await;
    // Its own namespace's pods are led where it says, and nobody else.
    let served = world.served();
    assert!(
        served.contains(r#""mesh":{"consumers":[{"namespace":"evil","table":"service/shop/s/80@evil"}]}"#),
        "{served}"
    );
    assert!(!served.contains(r#""table":"service/shop/s/80""#), "{served}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_cannot_use_is_refused_and_its_author_told() {
    let header = |name: &str, value: &str| json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": name, "value": value}]}}]});
    let path = |kind: &str, field: &str, value: &str| json!({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": kind, field: value}}}]});
    let origins = json!({"filters": [{"type": "CORS", "cors": {"allowOrigins": ["shop.test"]}}]});
    let rules = [
        header("Host", "x"),
        header("Content-Length", "1"),
        header("x", "line\nbreak"),
        path("ReplaceFullPath", "replaceFullPath", "/a?b"),
        path("ReplacePrefixMatch", "replacePrefixMatch", "/a b"),
        origins,
        json!({"sessionPersistence": {"sessionName": "a;b"}}),
        json!({"matches": [{"path": {"type": "RegularExpression", "value": "/a)|(?:/b"}}]}),
        json!({"matches": [{"path": {"type": "RegularExpression", "value": "/\\w{200}"}}]}),
    ];
    let listeners = json!([{"name": "l", "port": 80, "protocol": "HTTP"}]);
    let service =
        json!({"kind": "Service", "metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}});
    for mut rule in rules {
        let shown = rule.to_string();
        let map = rule.as_object_mut().unwrap();
        map.insert("backendRefs".to_owned(), json!([{"name": "s", "port": 80}]));
        let route = json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"},
            "spec": {"parentRefs": [{"name": "g"}], "rules": [rule]}});
        let objects = [gateway("n", "g", listeners.clone()), service.clone(), route];
        let world = settled(IngressConfig::default(), objects).await;
        assert!(world.said().contains("Accepted=False UnsupportedValue"), "{shown}: {}", world.said());
        assert!(!world.served().contains("HTTPRoute n/r"), "{shown}: {}", world.served());
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_whose_name_cannot_be_verified_is_not_spoken_to() {
    let objects = [
        gateway("n", "g", json!([{"name": "l", "port": 80, "protocol": "HTTP"}])),
        json!({"kind": "Service", "metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}}),
        json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"}, "spec": {
            "parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}}),
        json!({"kind": "BackendTLSPolicy", "metadata": {"name": "p", "namespace": "n"}, "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
            "validation": {"hostname": overlong(), "wellKnownCACertificates": "System"}}}),
    ];
    let world = settled(IngressConfig::default(), objects).await;
    assert!(world.served().contains("\"refuse\":500"), "{}", world.served());
    assert!(world.said().contains("Accepted=False Invalid: validation.hostname"), "{}", world.said());
    world.end().await;
}

#[test]
fn a_service_that_another_controller_has_made_for_a_gateway_is_not_ours() {
    let service = |name: &str, kind: &str| {
        let object = json!({
            "metadata": {"name": name, "namespace": "n", "labels": {"gateway.networking.k8s.io/gateway-name": "g", "cilium.io/ingress": "true"},
                "ownerReferences": [{"apiVersion": "x/v1", "kind": kind, "name": "g", "uid": "u"}]}});
        gateway::ingest_observed(&serde_json::from_value(object).unwrap()).unwrap().gateways()
    };
    assert_eq!(service("g-istio", "Gateway"), []);
    assert_eq!(service("cilium-ingress-g", "Gateway"), []);
    assert_eq!(service("cilium-gateway-g", "Gateway"), [ObjectName::new("n", "g")]);
    assert_eq!(service("g", "Ingress"), []);
    assert_eq!(service("cilium-ingress-g", "Ingress"), [ObjectName::new("n", "ingress:g")]);
    assert_eq!(service("cilium-ingress", "Ingress"), [ObjectName::new("n", "ingress:")]);
}
