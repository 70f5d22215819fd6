// SPDX-License-Identifier: Apache-2.0
//! An Ingress in the words of Gateway API. Pure.

use super::{Ingress, IngressConfig, KIND, PREFIX};
use crate::CONTROLLER;
use crate::duration;
use crate::name::{ObjectName, RouteKind, RouteName};
use crate::source::{Meta, Parameters, Route, Rules, Service, Source};
use k8s::gateway::{
    AllowedRoutes, BackendRef, Filter, FromNamespaces, GatewayClassSpec, GatewayInfrastructure, GatewaySpec, GrantFrom,
    GrantTo, HttpMatch, HttpRule, Listener, ListenerTls, NamedMatch, ObjectReference, ParentReference, PathMatch,
    ReferenceGrantSpec, RequestRedirect, ServiceParameters, StreamRule, Timeouts,
};
use k8s::k8s_openapi::api::networking::v1 as networking;
use statedb::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of clients that speak TLS, and of those that do not.
const PORTS: [i64; 2] = [443, 80];
/// Of those that listen at the nodes' own addresses, both.
const HOST_PORT: u16 = 8080;
/// What clients are told that are to come back with TLS: with the same method.
const PERMANENT_REDIRECT: i64 = 308;

fn source<S: k8s::gateway::Spec>(name: ObjectName, meta: Meta, spec: S) -> Source<S> {
    Source { name, meta, spec, told: None }
}

/// The class of Gateways that stand for Ingresses.
pub(super) fn class() -> Source<GatewayClassSpec> {
    let spec = GatewayClassSpec { controller_name: CONTROLLER.to_owned(), ..GatewayClassSpec::default() };
    source(ObjectName::new("", PREFIX), Meta::default(), spec)
}

/// The Gateway that stands for some Ingresses, the first of which counts where only one can.
pub(super) fn gateway(
    config: &IngressConfig,
    name: &ObjectName,
    ingresses: &[Arc<Ingress>],
) -> Option<Source<GatewaySpec>> {
    let first = ingresses.first()?;
    let mut listeners = vec![listener("http", None, PORTS[1], "HTTP", None)];
    let mut taken = BTreeSet::new();
    for ingress in ingresses {
        for (host, secret) in hosts_with_tls(config, ingress) {
            if taken.insert(host.clone()) {
                let label = format!("https-{}", host.as_deref().unwrap_or("any"));
                listeners.push(if ingress.annotations.passthrough {
                    let tls = ListenerTls { mode: Some("Passthrough".to_owned()), ..ListenerTls::default() };
                    listener(&label, host, PORTS[0], "TLS", Some(tls))
                } else {
                    let certificate_refs = secret.iter().map(reference).collect();
                    let tls = ListenerTls { certificate_refs, ..ListenerTls::default() };
                    listener(&label, host, PORTS[0], "HTTPS", Some(tls))
                });
            }
        }
    }
    let own_service = (!first.annotations.shared).then(|| first.annotations.copied.clone());
    let own = ObjectReference {
        group: Some("cilium.io".to_owned()),
        kind: Some("CiliumGatewayClassConfig".to_owned()),
        name: name.name.to_string(),
        ..ObjectReference::default()
    };
    let spec = GatewaySpec {
        gateway_class_name: PREFIX.to_owned(),
        listeners,
        infrastructure: Some(GatewayInfrastructure {
            annotations: own_service.unwrap_or_default(),
            parameters_ref: Some(own),
            ..GatewayInfrastructure::default()
        }),
        ..GatewaySpec::default()
    };
    // Of several, each change is another state of what stands for them.
    let generation = ingresses.iter().map(|ingress| ingress.meta.generation).sum();
    // What they share stays the same when the first of them goes.
    let uid = if first.annotations.shared { Arc::from("") } else { Arc::clone(&first.meta.uid) };
    Some(source(name.clone(), Meta { generation, uid, ..first.meta }, spec))
}

fn listener(name: &str, hostname: Option<String>, port: i64, protocol: &str, tls: Option<ListenerTls>) -> Listener {
    let everywhere = FromNamespaces { from: Some("All".to_owned()), ..FromNamespaces::default() };
    Listener {
        name: name.to_owned(),
        hostname,
        port,
        protocol: protocol.to_owned(),
        tls,
        allowed_routes: Some(AllowedRoutes { namespaces: Some(everywhere), ..AllowedRoutes::default() }),
    }
}

pub(super) fn reference(secret: &ObjectName) -> ObjectReference {
    ObjectReference {
        name: secret.name.to_string(),
        namespace: Some(secret.namespace.to_string()),
        ..ObjectReference::default()
    }
}

/// Hosts that have TLS, with their Secret; of an entry that names none, any host.
pub(super) fn hosts_with_tls(config: &IngressConfig, ingress: &Ingress) -> Vec<(Option<String>, Option<ObjectName>)> {
    let mut all = Vec::new();
    for entry in ingress.spec.tls.iter().flatten() {
        let named = entry.secret_name.as_deref().filter(|name| !name.is_empty());
        let secret = named.map(|name| ObjectName::new(Arc::clone(&ingress.name.namespace), name));
        let secret = secret.or_else(|| config.default_secret.clone());
        let hosts = entry.hosts.clone().unwrap_or_default();
        if hosts.is_empty() {
            all.push((None, secret));
        } else {
            all.extend(hosts.into_iter().map(|host| (Some(host), secret.clone())));
        }
    }
    if ingress.annotations.passthrough && all.is_empty() {
        all.extend(rules(ingress).filter_map(|(host, _)| host).map(|host| (Some(host.to_owned()), None)));
    }
    all
}

/// How the Service of an Ingress is to be. One that several share is for none of them to shape.
pub(super) fn parameters(config: &IngressConfig, name: &ObjectName, ingresses: &[Arc<Ingress>]) -> Option<Parameters> {
    let annotations = &ingresses.first()?.annotations;
    let own = ServiceParameters {
        kind: annotations.service_type.clone(),
        external_traffic_policy: annotations.external_traffic_policy.clone(),
        load_balancer_class: annotations.load_balancer_class.clone(),
        ..ServiceParameters::default()
    };
    let service = if annotations.shared { ServiceParameters::default() } else { own };
    let own_port = annotations.host_port.unwrap_or(HOST_PORT);
    let host_port = Some(if annotations.shared { config.shared_host_port } else { own_port });
    Some(Parameters { host_port, node_ports: annotations.node_ports, ..Parameters::new(name.clone(), service) })
}

/// Ingresses that are served in these namespaces may use the Secret beside it, or all if none is named.
pub(super) fn grant(
    name: &ObjectName,
    namespaces: impl IntoIterator<Item = Arc<str>>,
    secret: Option<&ObjectName>,
) -> Source<ReferenceGrantSpec> {
    let namespaces: BTreeSet<Arc<str>> = namespaces.into_iter().collect();
    let from = |namespace: Arc<str>| GrantFrom {
        group: k8s::gateway::GROUP.to_owned(),
        kind: KIND.to_owned(),
        namespace: namespace.to_string(),
    };
    let secret = secret.map(|secret| secret.name.to_string());
    let to = vec![GrantTo { group: String::new(), kind: "Secret".to_owned(), name: secret }];
    source(name.clone(), Meta::default(), ReferenceGrantSpec { from: namespaces.into_iter().map(from).collect(), to })
}

/// Rules by host; those of one host together.
pub(super) fn rules(ingress: &Ingress) -> impl Iterator<Item = (Option<&str>, Vec<&networking::HTTPIngressPath>)> {
    let mut by_host: BTreeMap<Option<&str>, Vec<_>> = BTreeMap::new();
    for rule in ingress.spec.rules.iter().flatten() {
        let host = rule.host.as_deref().filter(|host| !host.is_empty());
        by_host.entry(host).or_default().extend(rule.http.iter().flat_map(|http| &http.paths));
    }
    if ingress.spec.default_backend.is_some() {
        by_host.entry(None).or_default();
    }
    by_host.into_iter()
}

fn route_name(ingress: &Ingress, kind: RouteKind, host: Option<&str>, what: &str) -> RouteName {
    let name = format!("{PREFIX}{}:{}{what}", ingress.name.name, host.unwrap_or("*"));
    RouteName { kind, name: ObjectName::new(Arc::clone(&ingress.name.namespace), name) }
}

/// The host of a route, for people.
pub(super) fn told_host(route: &RouteName) -> String {
    let host = route.name.name.split(':').nth(2).unwrap_or_default();
    format!("host {host}")
}

/// Backends that are no Services, for people.
pub(super) fn without_service(ingress: &Ingress) -> impl Iterator<Item = String> {
    let none = |path: &&&networking::HTTPIngressPath| path.backend.service.is_none();
    rules(ingress).flat_map(move |(host, paths)| {
        let host = host.unwrap_or("*");
        let told = |path: &&networking::HTTPIngressPath| {
            format!("host {host}, path {}: the backend is no Service", path.path.as_deref().unwrap_or("/"))
        };
        paths.iter().filter(none).map(told).collect::<Vec<_>>()
    })
}

/// Names of [`routes`].
pub(super) fn route_names(config: &IngressConfig, ingress: &Ingress) -> Vec<RouteName> {
    let (_none, services) = statedb::table("no-services");
    routes(config, ingress, &services.snapshot()).into_iter().map(|route| route.name).collect()
}

/// The routes of an Ingress. What it says for one host does not depend on another.
pub(super) fn routes(config: &IngressConfig, ingress: &Ingress, services: &Snapshot<Service>) -> Vec<Route> {
    let with_tls = hosts_with_tls(config, ingress);
    let backend = |backend: &networking::IngressBackend| backend_ref(ingress, backend, services);
    let mut routes = Vec::new();
    for (host, paths) in rules(ingress) {
        let parent = |port: Option<i64>| {
            let gateway = ingress.gateway(config);
            let namespace = Some(gateway.namespace.to_string());
            ParentReference { name: gateway.name.to_string(), namespace, port, ..ParentReference::default() }
        };
        let route = |name: RouteName, port: Option<i64>, rules: Rules| Route {
            name,
            meta: ingress.meta.clone(),
            parents: vec![parent(port)],
            hostnames: host.map(str::to_owned).into_iter().collect(),
            rules,
            told: None,
        };
        let has_tls = with_tls.iter().any(|(one, _)| one.is_none() || one.as_deref() == host);
        if has_tls && ingress.annotations.passthrough {
            let first = paths.first().map(|path| &path.backend).or(ingress.spec.default_backend.as_ref());
            let rule =
                StreamRule { backend_refs: first.and_then(backend).into_iter().collect(), ..StreamRule::default() };
            let name = route_name(ingress, RouteKind::Tls, host, "");
            routes.push(route(name, Some(PORTS[0]), Rules::Stream(vec![rule])));
            continue;
        }
        let default = ingress.spec.default_backend.as_ref();
        // Paths that nothing else is for, of this host too.
        let default = default.map(|default| (PathMatch::default(), backend(default)));
        let paths = paths.iter().map(|path| (path_match(path), backend(&path.backend))).chain(default);
        let rules = paths.map(|(path, backend)| rule(ingress, host, path, backend)).collect();
        let redirected = has_tls && ingress.annotations.force_https;
        let port = redirected.then_some(PORTS[0]);
        routes.push(route(route_name(ingress, RouteKind::Http, host, ""), port, Rules::Http(rules)));
        if redirected {
            let name = route_name(ingress, RouteKind::Http, host, ":redirect");
            routes.push(route(name, Some(PORTS[1]), Rules::Http(vec![to_https()])));
        }
    }
    routes
}

fn to_https() -> HttpRule {
    let redirect = RequestRedirect {
        scheme: Some("https".to_owned()),
        status_code: Some(PERMANENT_REDIRECT),
        ..RequestRedirect::default()
    };
    let filter = Filter { kind: "RequestRedirect".to_owned(), request_redirect: Some(redirect), ..Filter::default() };
    HttpRule { filters: vec![filter], ..HttpRule::default() }
}

fn rule(ingress: &Ingress, host: Option<&str>, path: PathMatch, backend: Option<BackendRef>) -> HttpRule {
    let request = ingress.annotations.request_timeout.map(duration::text);
    let headers = host.and_then(one_label).into_iter().collect();
    HttpRule {
        matches: vec![HttpMatch { path: Some(path), headers, ..HttpMatch::default() }],
        backend_refs: backend.into_iter().collect(),
        timeouts: request.map(|request| Timeouts { request: Some(request), ..Timeouts::default() }),
        ..HttpRule::default()
    }
}

/// An asterisk of an Ingress stands for one label, where that of a route stands for one or more.
fn one_label(host: &str) -> Option<NamedMatch> {
    let domain = host.strip_prefix("*.")?.replace('.', "[.]");
    let value = format!("(?i)[^.]+[.]{domain}[.]?(:[0-9]+)?");
    Some(NamedMatch { kind: Some("RegularExpression".to_owned()), name: "host".to_owned(), value })
}

/// An expression may be left out where everything is meant.
pub(super) fn path_match(path: &networking::HTTPIngressPath) -> PathMatch {
    let value = path.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let kind = match path.path_type.as_str() {
        "Exact" => "Exact",
        "ImplementationSpecific" if value != "/" => "RegularExpression",
        _ => "PathPrefix",
    };
    PathMatch { kind: Some(kind.to_owned()), value: Some(value) }
}

/// The backend, whose port may be known by its name only. One that is no Service, or has no such port, is named without one: requests
/// are answered with 500.
fn backend_ref(
    ingress: &Ingress,
    backend: &networking::IngressBackend,
    services: &Snapshot<Service>,
) -> Option<BackendRef> {
    let named = backend.service.as_ref()?;
    let port = named.port.as_ref();
    let number = port.and_then(|port| port.number).map(i64::from);
    let by_name = || {
        let wanted = port?.name.as_deref()?;
        let service = services.get(&ObjectName::new(Arc::clone(&ingress.name.namespace), named.name.as_str()))?;
        service.ports.iter().find(|port| *port.name == *wanted).map(|port| i64::from(port.port))
    };
    Some(BackendRef { name: named.name.clone(), port: number.or_else(by_name), ..BackendRef::default() })
}
