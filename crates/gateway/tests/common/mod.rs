// SPDX-License-Identifier: Apache-2.0
//! Objects in, and what is served and said out, by the functions that agent and operator call.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, dead_code, reason = "tests")]

mod pods;

use gateway::{
    Anchors, EnvoyConfig, EnvoyProblems, InForce, Ingress, IngressConfig, Keep, KeyPair, NodeAddresses, ObjectName,
    Objects, Observed, ObservedService, Parameters, ProxyReport, Report, Route, RouteName, Service, ServiceConfig,
    Serving, Slice, Snapshots, Source, Status, Subject, Wanted,
};
use k8s::gateway::{
    BackendTlsPolicySpec, Condition, GatewayClassSpec, GatewaySpec, ListenerSetSpec, ListenerStatus, MeshSpec, Object,
    ReferenceGrantSpec,
};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use l7::link::{Published, State};
use model::Namespace;
use serde_json::{Value, json};
use statedb::{Reader, Tasks, Writer, table};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(crate) struct World {
    pub(crate) classes: Writer<Source<GatewayClassSpec>>,
    pub(crate) gateways: Writer<Source<GatewaySpec>>,
    pub(crate) meshes: Writer<Source<MeshSpec>>,
    pub(crate) listener_sets: Writer<Source<ListenerSetSpec>>,
    pub(crate) routes: Writer<Route>,
    pub(crate) grants: Writer<Source<ReferenceGrantSpec>>,
    pub(crate) tls_policies: Writer<Source<BackendTlsPolicySpec>>,
    pub(crate) namespaces: Writer<Namespace>,
    pub(crate) services: Writer<Service>,
    pub(crate) slices: Writer<Slice>,
    pub(crate) key_pairs: Writer<KeyPair>,
    pub(crate) anchors: Writer<Anchors>,
    pub(crate) parameters: Writer<Parameters>,
    pub(crate) envoy_configs: Writer<EnvoyConfig>,
    pub(crate) observed: Writer<ObservedService>,
    pub(crate) nodes: Writer<NodeAddresses>,
    pub(crate) proxies: Writer<ProxyReport>,
    pub(crate) ingresses: Writer<Ingress>,
    ingress: IngressConfig,
    pub(crate) pods: pods::Pods,
    pub(crate) snapshots: Snapshots,
    /// What an agent says of CiliumEnvoyConfigs.
    pub(crate) problems: Reader<EnvoyProblems>,
    pub(crate) wanted: Wanted,
    tasks: Tasks,
}

impl World {
    pub(crate) fn new(serving: &Serving) -> Self {
        Self::with_ingresses(serving, IngressConfig::default())
    }

    /// One in which Ingresses are served as `ingress` says, besides what all tests have in common.
    pub(crate) fn with_ingresses(serving: &Serving, ingress: IngressConfig) -> Self {
        let tasks = Tasks::new(CancellationToken::new());
        let (classes, classes_reader) = table("classes");
        let (gateways, gateways_reader) = table("gateways");
        let (meshes, meshes_reader) = table("meshes");
        let (listener_sets, listener_sets_reader) = table("listener-sets");
        let (routes, routes_reader) = table("routes");
        let (grants, grants_reader) = table("grants");
        let (tls_policies, tls_policies_reader) = table("tls-policies");
        let (namespaces, namespaces_reader) = table("namespaces");
        let (services, services_reader) = table("services");
        let (slices, slices_reader) = table("slices");
        let (key_pairs, key_pairs_reader) = table("key-pairs");
        let (anchors, anchors_reader) = table("anchors");
        let (parameters, parameters_reader) = table("parameters");
        let (envoy_configs, envoy_configs_reader) = table("envoy-configs");
        let (observed, observed_reader) = table("observed");
        let (nodes, nodes_reader) = table("nodes");
        let (proxies, proxies_reader) = table("proxies");
        let objects = Objects {
            classes: classes_reader,
            gateways: gateways_reader,
            meshes: meshes_reader,
            listener_sets: listener_sets_reader,
            routes: routes_reader,
            grants: grants_reader,
            tls_policies: tls_policies_reader,
            namespaces: namespaces_reader,
            services: services_reader,
            slices: slices_reader,
            key_pairs: key_pairs_reader,
            anchors: anchors_reader,
            parameters: parameters_reader,
            envoy_configs: envoy_configs_reader,
        };
        let (ingresses, ingresses_reader) = table("ingresses");
        let ingress = IngressConfig {
            enforce_https: true,
            namespace: "kube-system".into(),
            copied: vec!["lbipam.cilium.io".to_owned()],
            ..ingress
        };
        let objects = gateway::with_ingresses(&tasks, &objects, &ingresses_reader, &ingress);
        let (pods, peers) = pods::Pods::new();
        let served = gateway::serve(&tasks, &objects, &peers, serving);
        let pods = pods.judged_for(served.proxied);
        let config = ServiceConfig {
            gateways_at_nodes: serving.gateways_at.is_some(),
            ingresses_at_nodes: serving.ingresses_at.is_some(),
            external_traffic_policy: "Cluster".to_owned(),
            app_protocol: serving.app_protocol,
        };
        let seen = Observed {
            services: observed_reader,
            ingress_nodes: nodes_reader.clone(),
            nodes: nodes_reader,
            proxies: proxies_reader,
            ingresses: ingresses_reader,
            ingress: ingress.clone(),
        };
        let wanted = gateway::want(&tasks, &objects, &seen, config);
        Self {
            classes,
            gateways,
            meshes,
            listener_sets,
            routes,
            grants,
            tls_policies,
            namespaces,
            services,
            slices,
            key_pairs,
            anchors,
            parameters,
            envoy_configs,
            observed,
            nodes,
            proxies,
            ingresses,
            ingress,
            pods,
            snapshots: served.snapshots,
            problems: served.problems,
            wanted,
            tasks,
        }
    }

    pub(crate) fn apply(&mut self, yaml: &str) {
        for document in yaml.split("\n---\n").filter(|document| !document.trim().is_empty()) {
            let mut value: Value = serde_saphyr::from_str(document).unwrap();
            generate(&mut value);
            let kind = value["kind"].as_str().unwrap_or_default().to_owned();
            self.object(&kind, value);
        }
        self.commit();
    }

    fn object(&mut self, kind: &str, value: Value) {
        match kind {
            "GatewayClass" => self.classes.insert(source(value)),
            "Gateway" => self.gateways.insert(source(value)),
            "CiliumGatewayClassConfig" => self.parameters.insert(Parameters::ingest_told(&read(value)).unwrap()),
            "XMesh" => self.meshes.insert(source(value)),
            "ListenerSet" | "XListenerSet" => self.listener_sets.insert(source(value)),
            "ReferenceGrant" => self.grants.insert(source(value)),
            "BackendTLSPolicy" => self.tls_policies.insert(source(value)),
            "HTTPRoute" => self.routes.insert(route::<k8s::gateway::HttpRouteSpec>(value)),
            "GRPCRoute" => self.routes.insert(route::<k8s::gateway::GrpcRouteSpec>(value)),
            "TLSRoute" => self.routes.insert(route::<k8s::gateway::TlsRouteSpec>(value)),
            "TCPRoute" => self.routes.insert(route::<k8s::gateway::TcpRouteSpec>(value)),
            "UDPRoute" => self.routes.insert(route::<k8s::gateway::UdpRouteSpec>(value)),
            "Namespace" => {
                let object: core::Namespace = read(value);
                let (name, labels) = (object.metadata.name.unwrap(), object.metadata.labels.unwrap_or_default());
                self.namespaces.insert(Namespace { name: name.into(), labels });
            }
            "Service" => {
                let object: core::Service = read(value);
                self.observed_service(&object);
                self.services.insert(gateway::ingest_service(&object).unwrap().unwrap());
            }
            "Ingress" => {
                self.ingresses.insert(gateway::ingest_ingress(&self.ingress, &read(value)).unwrap());
            }
            "CiliumEnvoyConfig" => {
                self.envoy_configs.insert(gateway::ingest_envoy_config(&read(value)).unwrap());
            }
            "CiliumClusterwideEnvoyConfig" => {
                self.envoy_configs.insert(gateway::ingest_clusterwide_envoy_config(&read(value)).unwrap());
            }
            "Pod" => self.pods.insert(&value),
            "Node" => gateway::ingest_node(&read(value)).into_iter().for_each(|row| self.nodes.insert(row)),
            "EndpointSlice" => self.slices.insert(gateway::ingest_slice(&read(value)).unwrap()),
            "Secret" => {
                let object: core::Secret = read(value);
                gateway::ingest_secret(Keep::Content, &object).into_iter().for_each(|row| self.key_pairs.insert(row));
            }
            "ConfigMap" => gateway::ingest_config_map(Keep::Content, &read(value))
                .into_iter()
                .for_each(|row| self.anchors.insert(row)),
            other => panic!("unknown kind {other}"),
        }
    }

    /// Who makes Services for Gateways gives them the label.
    fn observed_service(&mut self, object: &core::Service) {
        let mut object = object.clone();
        if object.metadata.name.as_ref().unwrap().starts_with("cilium-gateway-") {
            let labels = object.metadata.labels.get_or_insert_default();
            labels.insert("gateway.networking.k8s.io/gateway-name".to_owned(), String::new());
        }
        gateway::ingest_observed(&object).into_iter().for_each(|row| self.observed.insert(row));
    }

    fn commit(&mut self) {
        self.classes.mark_initialized();
        self.gateways.mark_initialized();
        self.meshes.mark_initialized();
        self.listener_sets.mark_initialized();
        self.routes.mark_initialized();
        self.grants.mark_initialized();
        self.tls_policies.mark_initialized();
        self.namespaces.mark_initialized();
        self.services.mark_initialized();
        self.slices.mark_initialized();
        self.key_pairs.mark_initialized();
        self.anchors.mark_initialized();
        self.parameters.mark_initialized();
        self.envoy_configs.mark_initialized();
        self.observed.mark_initialized();
        self.nodes.mark_initialized();
        self.proxies.mark_initialized();
        self.ingresses.mark_initialized();
        self.pods.commit();
    }

    /// Commits, and returns when there is nothing left to do: the clock is paused, so it moves only once every task waits.
    pub(crate) async fn settle(&mut self) {
        self.settle_without_proxy().await;
        self.put_into_force(&State::default());
        self.pods.judge();
        self.settle_without_proxy().await;
    }

    /// The same, while no proxy takes over what is published.
    pub(crate) async fn settle_without_proxy(&mut self) {
        self.commit();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    /// A proxy says of what is published what it would say of another snapshot.
    pub(crate) fn put_into_force(&mut self, state: &State) {
        let state = State { snapshot: self.published().snapshot, ..state.clone() };
        self.reports("here", &gateway::in_force(&state));
    }

    /// A node says what its proxy has in force.
    pub(crate) fn reports(&mut self, node: &str, in_force: &InForce) {
        let metadata = ObjectMeta { name: Some(node.to_owned()), ..ObjectMeta::default() };
        let node = core::Node { metadata, ..core::Node::default() };
        for report in gateway::report_objects(&node, "cilium-secrets", in_force) {
            self.proxies.insert(gateway::ingest_report(&report).unwrap());
        }
    }

    /// Ports of Services that are wanted and whose packets no proxy takes.
    pub(crate) fn not_taken(&self) -> Vec<String> {
        let taken = gateway::taken(&State { snapshot: self.published().snapshot, ..State::default() });
        let taken: BTreeSet<_> = taken.into_iter().map(|one| (one.service.to_string(), one.port_name)).collect();
        let wanted = self.wanted.services.snapshot();
        let ports = wanted.iter().flat_map(|wanted| {
            let metadata = &wanted.service.metadata;
            let name = format!("{}/{}", metadata.namespace.clone().unwrap(), metadata.name.clone().unwrap());
            let ports = wanted.service.spec.as_ref().unwrap().ports.clone().unwrap();
            ports.into_iter().map(move |port| (name.clone(), port.name.unwrap()))
        });
        ports.filter(|port| !taken.contains(port)).map(|(name, port)| format!("{name} {port}")).collect()
    }

    pub(crate) fn published(&self) -> Published {
        self.snapshots.borrow().clone()
    }

    pub(crate) fn report(&self, subject: &Subject) -> Option<Status> {
        self.wanted.corrections.snapshot().get(subject).map(|correction| correction.report.status.clone())
    }

    pub(crate) async fn end(self) {
        self.tasks.token().cancel();
        self.tasks.run_until_failure().await.unwrap();
    }

    /// What is said of each object.
    pub(crate) fn said(&self) -> String {
        let mut text = String::new();
        for correction in self.wanted.corrections.snapshot().iter() {
            said(&mut text, &correction.report);
        }
        for told in self.wanted.problems.snapshot().iter() {
            writeln!(text, "{}", told.object()).unwrap();
            told.problems.iter().for_each(|problem| writeln!(text, "  {problem}").unwrap());
        }
        text
    }

    /// What is made in the cluster.
    pub(crate) fn made(&self) -> String {
        let mut text = String::new();
        for wanted in self.wanted.services.snapshot().iter() {
            let mut service = serde_json::to_value(&wanted.service).unwrap();
            prune(&mut service);
            let present = if wanted.present { "there" } else { "not there" };
            writeln!(text, "{present}: {service}").unwrap();
        }
        for copy in self.wanted.copies.snapshot().iter() {
            writeln!(text, "copy {}", copy.names()[0]).unwrap();
        }
        for told in self.wanted.ingresses.snapshot().iter() {
            writeln!(text, "Ingress {} is at {:?}", told.name, told.addresses).unwrap();
        }
        text
    }

    /// What is served, in a form that people can read: what has its default is left out.
    pub(crate) fn served(&self) -> String {
        let mut text = String::new();
        for (key, object) in self.published().snapshot.iter() {
            let mut value = serde_json::to_value(object).unwrap();
            let value = value.as_object_mut().unwrap().values_mut().next().unwrap();
            // Of certificates, each test has its own.
            for field in ["name", "limits", "chain", "key", "certificates"] {
                value.as_object_mut().unwrap().remove(field);
            }
            prune(value);
            writeln!(text, "{key}: {value}").unwrap();
        }
        text
    }
}

/// Certificates are made anew each time; what is asked for is the certificate's name.
fn generate(value: &mut Value) {
    let Some(name) = value["generate"].as_str() else { return };
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    if value["kind"] == "ConfigMap" {
        value["data"] = json!({"ca.crt": certificate});
        return;
    }
    let encode = |text: String| serde_json::to_value(k8s::k8s_openapi::ByteString(text.into_bytes())).unwrap();
    value["type"] = "kubernetes.io/tls".into();
    value["data"] = json!({"tls.crt": encode(certificate), "tls.key": encode(key)});
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn source<S: k8s::gateway::Spec>(value: Value) -> Source<S> {
    Source::ingest_told(&read::<Object<S>>(value)).unwrap()
}

fn route<S: gateway::RouteSpec>(value: Value) -> Route {
    Route::ingest_told(&read::<Object<S>>(value)).unwrap()
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|key, value| key != "budget" && !is_nothing(value));
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn conditions(text: &mut String, indent: &str, conditions: &[Condition]) {
    for Condition { kind, status, reason, message, .. } in conditions {
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        writeln!(text, "{indent}{kind}={status} {reason}{message}").unwrap();
    }
}

fn listeners(text: &mut String, listeners: &[ListenerStatus]) {
    for listener in listeners {
        let kinds: Vec<_> = listener.supported_kinds.iter().map(|kind| kind.kind.as_str()).collect();
        let (name, routes) = (&listener.name, listener.attached_routes);
        writeln!(text, "  listener {name}, of {}, {routes} attached", kinds.join(" ")).unwrap();
        conditions(text, "    ", &listener.conditions);
    }
}

fn said(text: &mut String, report: &Report) {
    let name = match &report.subject {
        Subject::Class(name) => format!("GatewayClass {name}"),
        Subject::Mesh(name) => format!("XMesh {name}"),
        Subject::Gateway(name) => format!("Gateway {name}"),
        Subject::ListenerSet(name) => format!("ListenerSet {name}"),
        Subject::Route(name) => name.to_string(),
        Subject::Policy(name) => format!("BackendTLSPolicy {name}"),
        Subject::ClassConfig(name) => format!("CiliumGatewayClassConfig {name}"),
    };
    writeln!(text, "{name}").unwrap();
    match &report.status {
        Status::Class(status) | Status::Mesh(status) => conditions(text, "  ", &status.conditions),
        Status::ClassConfig(status) => conditions(text, "  ", &status.conditions),
        Status::Gateway(status) => {
            let addresses: Vec<_> = status.addresses.iter().map(|address| address.value.as_str()).collect();
            let sets = status.attached_listener_sets.unwrap_or_default();
            writeln!(text, "  at [{}], {sets} ListenerSets", addresses.join(", ")).unwrap();
            conditions(text, "  ", &status.conditions);
            listeners(text, &status.listeners);
        }
        Status::ListenerSet(status) => {
            conditions(text, "  ", &status.conditions);
            listeners(text, &status.listeners);
        }
        Status::Route(status) => {
            for parent in &status.parents {
                writeln!(text, "  parent {}", serde_json::to_string(&parent.parent_ref).unwrap()).unwrap();
                conditions(text, "    ", &parent.conditions);
            }
        }
        Status::Policy(status) => {
            for ancestor in &status.ancestors {
                let gateway = &ancestor.ancestor_ref;
                writeln!(text, "  Gateway {}/{}", gateway.namespace.clone().unwrap(), gateway.name).unwrap();
                conditions(text, "    ", &ancestor.conditions);
            }
        }
    }
}

/// Names a route for tests.
pub(crate) fn http_route(namespace: &str, name: &str) -> RouteName {
    RouteName { kind: gateway::RouteKind::Http, name: ObjectName::new(namespace, name) }
}
