// SPDX-License-Identifier: Apache-2.0
//! What must hold of any objects: which of many routes takes a request, what hostile objects cost, and that changes one by one come to the same
//! as all at once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::World;
use gateway::{ObjectName, Serving, Status, Subject};
use l7::{HostMatch, Object, PathMatch, Route, Snapshot};
use proptest::prelude::*;
use serde_json::{Value, json};

fn serving() -> Serving {
    Serving { ipv4: true, ..Serving::default() }
}

fn class() -> String {
    yaml(&json!({
        "kind": "GatewayClass", "metadata": {"name": "cilium"}, "spec": {"controllerName": "io.cilium/gateway-controller"},
    }))
}

/// JSON is YAML.
fn yaml(object: &Value) -> String {
    format!("{object}\n---\n")
}

fn http_gateway(listeners: Value) -> String {
    let spec = json!({"gatewayClassName": "cilium", "listeners": listeners});
    class() + &yaml(&json!({"kind": "Gateway", "metadata": {"name": "g", "namespace": "n"}, "spec": spec}))
}

/// A route of one rule that redirects to its own name, so that the answer tells who took the request.
#[derive(Clone, Debug)]
struct Asked {
    hosts: Vec<String>,
    exact: bool,
    path: String,
    method: Option<&'static str>,
    age: u8,
}

impl Asked {
    fn yaml(&self, number: usize) -> String {
        let kind = if self.exact { "Exact" } else { "PathPrefix" };
        let matched = json!({"path": {"type": kind, "value": self.path}, "method": self.method});
        let filter = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": format!("r{number}")}});
        let created = format!("2026-01-01T00:00:{:02}Z", self.age);
        yaml(&json!({
            "kind": "HTTPRoute",
            "metadata": {"name": format!("r{number}"), "namespace": "n", "creationTimestamp": created},
            "spec": {"parentRefs": [{"name": "g"}], "hostnames": self.hosts, "rules": [{"matches": [matched], "filters": [filter]}]},
        }))
    }

    /// The length of the longest of its host names that is for the request, exact ones before wildcards.
    fn host(&self, host: &str) -> Option<(bool, usize)> {
        let hosts = self.hosts.iter().filter(|name| match name.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
            None => *name == host,
        });
        let lengths = hosts.map(|name| (!name.starts_with('*'), name.len()));
        if self.hosts.is_empty() { Some((false, 0)) } else { lengths.max() }
    }

    fn takes(&self, path: &str, method: &str) -> bool {
        let prefix = self.path.trim_end_matches('/');
        let below = path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        let by_path = if self.exact { path == self.path } else { below };
        by_path && self.method.is_none_or(|wanted| wanted == method)
    }
}

/// Who takes a request, as the specification says it.
fn oracle(routes: &[Asked], host: &str, path: &str, method: &str) -> Option<String> {
    let hosts: Vec<_> = routes.iter().map(|route| route.host(host)).collect();
    // Hosts first: a route of a less specific host is asked only if none of the more specific takes the request.
    let taking =
        routes.iter().enumerate().filter(|(number, route)| hosts[*number].is_some() && route.takes(path, method));
    let first = taking.min_by_key(|(number, route)| {
        let (exact_host, host) = hosts[*number].unwrap();
        let prefix = if route.exact { 0 } else { route.path.trim_end_matches('/').len() };
        let order = (!exact_host, usize::MAX - host, !route.exact, usize::MAX - prefix, route.method.is_none());
        (order, route.age, format!("r{number}"))
    });
    first.map(|(number, _)| format!("r{number}"))
}

/// Who takes it, by the snapshot alone.
fn served(snapshot: &Snapshot, host: &str, path: &str, method: &str) -> Option<String> {
    let routes = snapshot.iter().filter_map(|(_, object)| match object {
        Object::Route(route) => Some(route),
        _ => None,
    });
    let takes = |route: &&std::sync::Arc<Route>| {
        let hosts = route.attachments.iter().flat_map(|attachment| &attachment.hosts);
        let host = hosts.filter(|name| name.covers(host)).max_by_key(|name| specificity(name))?;
        let matches = route.matches.iter().filter(|one| {
            let by_path = match &one.path {
                PathMatch::Exact(exact) => exact == path,
                PathMatch::Prefix(prefix) => {
                    let prefix = prefix.trim_end_matches('/');
                    path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
                }
                // No route of Gateway API asks for these.
                PathMatch::Start(_) | PathMatch::Regex(_) => false,
            };
            by_path && one.method.as_ref().is_none_or(|wanted| wanted == method)
        });
        let precedence = matches.map(|one| one.precedence.clone()).min()?;
        Some((std::cmp::Reverse(specificity(host)), precedence))
    };
    let first = routes.filter_map(|route| Some((takes(&route)?, route))).min_by(|a, b| a.0.cmp(&b.0))?.1;
    match &first.action {
        l7::RouteAction::Redirect(redirect) => redirect.host.clone(),
        _ => None,
    }
}

fn specificity(host: &HostMatch) -> (u8, usize) {
    match host {
        HostMatch::Any => (0, 0),
        HostMatch::Below(domain) => (1, domain.len()),
        HostMatch::Exact(name) => (2, name.len()),
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let hosts = prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..3);
    let path = "(/[ab]){0,3}/?".prop_map(|path| format!("/{}", path.trim_start_matches('/')));
    let method = prop_oneof![Just(None), Just(Some("GET")), Just(Some("PUT"))];
    (hosts, any::<bool>(), path, method, 0..4u8).prop_map(|(hosts, exact, path, method, age)| Asked {
        hosts,
        exact,
        path,
        method,
        age,
    })
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_route_that_the_specification_prefers_takes_the_request(
        routes in prop::collection::vec(asked(), 1..8),
        requests in prop::collection::vec(("[ab](\\.[ab]){0,3}", "(/[ab]){1,3}/?", "GET|PUT"), 1..20),
    ) {
        let documents: String = routes.iter().enumerate().map(|(number, route)| route.yaml(number)).collect();
        let snapshot = paused().block_on(async {
            let mut world = World::new(&serving());
            world.apply(&(http_gateway(json!([{"name": "l", "port": 80, "protocol": "HTTP"}])) + &documents));
            world.settle().await;
            let snapshot = world.published().snapshot;
            world.end().await;
            snapshot
        });
        for (host, path, method) in requests {
            let wanted = oracle(&routes, &host, &path, &method);
            prop_assert_eq!(served(&snapshot, &host, &path, &method), wanted, "{} {} {}", method, host, path);
        }
    }

    #[test]
    fn changes_one_by_one_come_to_the_same_as_all_at_once(order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle()) {
        let documents: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .filter(|path| !path.ends_with("tls.yaml"))
            .flat_map(|path| std::fs::read_to_string(path).unwrap().split("\n---\n").map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let (once, stepwise) = paused().block_on(async {
            let mut once = World::new(&serving());
            once.apply(&documents.join("\n---\n"));
            once.settle().await;
            let mut stepwise = World::new(&serving());
            stepwise.settle().await;
            for part in order {
                for document in documents.iter().skip(part).step_by(5) {
                    stepwise.apply(document);
                    stepwise.settle().await;
                }
            }
            let ports = |text: String| text.lines().filter(|line| !line.starts_with("listener")).map(str::to_owned).collect::<Vec<_>>();
            let seen = |world: &World| (world.said(), world.made(), ports(world.served()));
            let both = (seen(&once), seen(&stepwise));
            once.end().await;
            stepwise.end().await;
            both
        });
        prop_assert_eq!(once, stepwise);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_listeners_of_one_host_are_all_refused_and_harm_nobody() {
    let listener =
        |number: usize| json!({"name": format!("l{number}"), "port": 80, "protocol": "HTTP", "hostname": "x.test"});
    let mut listeners: Vec<_> = (0..1000).map(listener).collect();
    listeners.push(json!({"name": "good", "port": 80, "protocol": "HTTP", "hostname": "good.test"}));
    let mut world = World::new(&serving());
    world.apply(&http_gateway(Value::Array(listeners)));
    world.settle().await;
    let Some(Status::Gateway(status)) = world.report(&Subject::Gateway(ObjectName::new("n", "g"))) else { panic!() };
    let refused = status.listeners.iter().filter(|listener| listener.conditions[0].reason == "HostnameConflict");
    assert_eq!(refused.count(), 1000);
    assert_eq!(status.listeners[1000].conditions[0].status, "True");
    assert!(world.served().contains("good.test") && !world.served().contains("x.test"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_goes_takes_certificate_and_backend_from_the_proxy() {
    let grant = |kind: &str| json!([{"group": "", "kind": kind}]);
    let from = |kind: &str| json!([{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "n"}]);
    let listeners = json!([{"name": "l", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c", "namespace": "m"}]}}]);
    let mut world = World::new(&serving());
    world.apply(&http_gateway(listeners));
    for object in [
        json!({"kind": "Secret", "metadata": {"name": "c", "namespace": "m"}, "generate": "c.test"}),
        json!({"kind": "Service", "metadata": {"name": "s", "namespace": "m"}, "spec": {"ports": [{"port": 80}]}}),
        json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"}, "spec": {
            "parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "namespace": "m", "port": 80}]}]}}),
        json!({"kind": "ReferenceGrant", "metadata": {"name": "a", "namespace": "m"}, "spec": {"from": from("Gateway"), "to": grant("Secret")}}),
        json!({"kind": "ReferenceGrant", "metadata": {"name": "b", "namespace": "m"}, "spec": {"from": from("HTTPRoute"), "to": grant("Service")}}),
    ] {
        world.apply(&object.to_string());
    }
    world.settle().await;
    let has = |world: &World| (world.served().contains("certificate m/c"), world.served().contains("cluster m/s:80"));
    assert_eq!(has(&world), (true, true));
    let before = world.published().version;
    world.grants.remove(&ObjectName::new("m", "a"));
    world.settle().await;
    assert_eq!(has(&world), (false, true));
    world.grants.remove(&ObjectName::new("m", "b"));
    world.settle().await;
    assert_eq!(has(&world), (false, false));
    assert_eq!(world.published().version.0, before.0 + 2, "one snapshot for each change");
    assert_eq!(world.wanted.copies.snapshot().len(), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_to_its_own_gateway_and_objects_without_anything_in_them_are_borne() {
    let mut world = World::new(&serving());
    world.apply(&http_gateway(json!([{}, {"name": "http", "port": 80, "protocol": "HTTP"}, {"port": -1, "protocol": "HTTP", "hostname": "*.*"}])));
    for object in [
        json!({"kind": "Service", "metadata": {"name": "cilium-gateway-g", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}}),
        json!({"kind": "HTTPRoute", "metadata": {"name": "loop", "namespace": "n"}, "spec": {
            "parentRefs": [{"name": "g"}, {"name": "g"}, {}], "rules": [{"backendRefs": [{"name": "cilium-gateway-g", "port": 80}]}]}}),
        json!({"kind": "HTTPRoute", "metadata": {"name": "empty", "namespace": "n"}}),
        json!({"kind": "TLSRoute", "metadata": {"name": "empty", "namespace": "n"}, "spec": {"parentRefs": [{"name": "g"}], "rules": [{}]}}),
        json!({"kind": "ListenerSet", "metadata": {"name": "empty", "namespace": "n"}}),
        json!({"kind": "BackendTLSPolicy", "metadata": {"name": "empty", "namespace": "n"}}),
        json!({"kind": "ReferenceGrant", "metadata": {"name": "empty", "namespace": "n"}}),
    ] {
        world.apply(&object.to_string());
    }
    world.settle().await;
    assert!(world.said().contains("HTTPRoute n/loop"));
    assert!(world.served().contains("cluster n/cilium-gateway-g:80"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_of_many_routes_that_changes_changes_one_object() {
    let route = |number: usize, path: &str| {
        json!({"kind": "HTTPRoute", "metadata": {"name": format!("r{number}"), "namespace": "n"}, "spec": {
            "parentRefs": [{"name": "g"}], "rules": [{"matches": [{"path": {"value": path}}]}]}})
    };
    let mut world = World::new(&serving());
    let mut documents = http_gateway(json!([{"name": "l", "port": 80, "protocol": "HTTP"}]));
    documents.extend((0..1000).map(|number| yaml(&route(number, &format!("/{number}")))));
    world.apply(&documents);
    world.settle().await;
    let before = world.published();
    world.apply(&route(7, "/other").to_string());
    world.settle().await;
    let update = before.snapshot.difference(&world.published().snapshot);
    assert_eq!((update.set.len(), update.remove.len()), (1, 0));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_programmed_before_a_proxy_has_this_very_state_of_it_in_force() {
    let subject = Subject::Gateway(ObjectName::new("n", "g"));
    let says = |world: &World| {
        let Some(Status::Gateway(status)) = world.report(&subject) else { panic!() };
        let programmed = |conditions: &[k8s::gateway::Condition]| {
            conditions.iter().find(|condition| condition.kind == "Programmed").unwrap().reason.clone()
        };
        [programmed(&status.conditions), programmed(&status.listeners[0].conditions)]
    };
    let mut world = World::new(&serving());
    world.apply(&http_gateway(json!([{"name": "l", "port": 80, "protocol": "HTTP"}])));
    let address = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let owner = json!([{"apiVersion": "", "kind": "Gateway", "name": "g", "uid": ""}]);
    world.apply(&json!({"kind": "Service", "metadata": {"name": "cilium-gateway-g", "namespace": "n", "ownerReferences": owner},
        "spec": {"ports": [{"port": 80}]}, "status": address}).to_string());
    world.settle_without_proxy().await;
    assert_eq!(says(&world), ["Pending"; 2]);
    world.settle().await;
    assert_eq!(says(&world), ["Programmed"; 2]);

    let mut gateway = world.gateways.snapshot().get(&ObjectName::new("n", "g")).unwrap().as_ref().clone();
    gateway.meta.generation += 1;
    world.gateways.insert(gateway);
    world.settle_without_proxy().await;
    assert_eq!(says(&world), ["Pending"; 2]);
    // Nor does one count that cannot listen.
    let object = l7::Key { kind: l7::Kind::Listener, name: "gateway/n/g/80/tcp".into() };
    let faults = vec![l7::link::Fault { object, reason: "address: in use".to_owned(), partial: false }];
    let status = Some(l7::link::Status { faults, ..l7::link::Status::default() });
    world.put_into_force(&l7::link::State { status, ..l7::link::State::default() });
    world.settle_without_proxy().await;
    assert_eq!(says(&world), ["Pending"; 2]);
    world.settle().await;
    assert_eq!(says(&world), ["Programmed"; 2]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_already_is_not_said_again_and_keeps_its_time() {
    let mut world = World::new(&serving());
    world.apply(&http_gateway(json!([{"name": "l", "port": 80, "protocol": "HTTP"}])));
    world.settle().await;
    let subject = Subject::Gateway(ObjectName::new("n", "g"));
    let correction = world.wanted.corrections.snapshot().get(&subject).unwrap();
    let Some(Status::Gateway(status)) = correction.status("2026-01-01T00:00:00Z") else { panic!() };
    let mut gateway = world.gateways.snapshot().get(&subject_name(&subject)).unwrap().as_ref().clone();
    gateway.told.as_mut().unwrap().status = status;
    world.gateways.insert(gateway.clone());
    world.settle().await;
    assert!(world.wanted.corrections.snapshot().get(&subject).is_none());

    gateway.meta.generation += 1;
    world.gateways.insert(gateway);
    world.settle().await;
    let correction = world.wanted.corrections.snapshot().get(&subject).unwrap();
    let Some(Status::Gateway(status)) = correction.status("2027-01-01T00:00:00Z") else { panic!() };
    assert_eq!(status.conditions[0].observed_generation, Some(1));
    assert_eq!(status.conditions[0].last_transition_time, "2026-01-01T00:00:00Z");
    world.end().await;
}

fn subject_name(subject: &Subject) -> ObjectName {
    match subject {
        Subject::Gateway(name) => name.clone(),
        _ => panic!(),
    }
}

#[tokio::test(start_paused = true)]
async fn routes_with_sessions_have_the_key_that_all_proxies_have_and_others_know_nothing_of_it() {
    let mut world = World::new(&serving());
    world.apply(&http_gateway(json!([{"name": "l", "port": 80, "protocol": "HTTP"}])));
    let backends = json!([{"name": "s", "port": 80}]);
    let rules =
        json!([{"sessionPersistence": {"sessionName": "s"}, "backendRefs": backends}, {"backendRefs": backends}]);
    let spec = json!({"parentRefs": [{"name": "g"}], "rules": rules});
    world.apply(&json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"}, "spec": spec}).to_string());
    let keys = |world: &World| {
        let snapshot = world.published().snapshot;
        let forwards = snapshot.iter().filter_map(|(_, object)| match object {
            l7::Object::Route(route) => match &route.action {
                l7::RouteAction::Forward(forward) => Some(forward.clone()),
                _ => None,
            },
            _ => None,
        });
        let mut keys: Vec<_> = forwards
            .map(|forward| (forward.persistence.is_some(), forward.token_key.map(|key| key.expose()[0])))
            .collect();
        keys.sort();
        keys
    };
    world.settle().await;
    assert_eq!(keys(&world), [(false, None), (true, None)]);
    world.pods.token_keys.insert(gateway::TokenKey([7; 32].into()));
    world.pods.token_keys.commit();
    world.settle().await;
    assert_eq!(keys(&world), [(false, None), (true, Some(7))]);
    world.end().await;
}
