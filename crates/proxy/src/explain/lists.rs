// SPDX-License-Identifier: Apache-2.0
//! What is in force, as lists in the order of names.

use crate::serving::{Served, Serving};
use crate::upstream::Upstream;
use l7::explain::{AtEndpoint, ClusterState, ListenerState, RouteState};
use l7::{Answer, HttpForward, PathMatch, Route, RouteAction, Target};
use std::sync::atomic::Ordering::Relaxed;

pub(super) fn listeners(serving: &Serving) -> Vec<ListenerState> {
    let state = |listening: &crate::serving::Listening| ListenerState {
        name: listening.spec.name.to_string(),
        address: listening.spec.address.to_string(),
        port: listening.spec.port.unwrap_or(listening.spec.address.port()),
        protocol: protocol(&listening.served).to_owned(),
        connections: listening.connections.load(Relaxed),
        sources: listening.spec.sources.iter().map(|source| source.object.clone()).collect(),
    };
    let mut all: Vec<_> = serving.listeners.values().map(|listening| state(listening)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn protocol(served: &Served) -> &'static str {
    match served {
        Served::Http(_) => "HTTP",
        Served::Tls(_) => "TLS",
        Served::Tcp(_) | Served::Service(..) => "TCP",
        Served::Udp(_) => "UDP",
    }
}

pub(super) fn routes(serving: &Serving) -> Vec<RouteState> {
    let mut all: Vec<_> = serving.tables.routes().map(|route| state(route)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn state(route: &Route) -> RouteState {
    let mut hosts: Vec<_> = route.attachments.iter().flat_map(|one| &one.hosts).map(ToString::to_string).collect();
    hosts.sort();
    hosts.dedup();
    let mut paths: Vec<_> = route.matches.iter().map(|one| path(&one.path)).collect();
    paths.dedup();
    let action = match &route.action {
        RouteAction::Forward(forward) => format!("forward to {}", targets(forward)),
        RouteAction::Redirect(redirect) => format!("redirect ({})", redirect.status),
        RouteAction::Respond(status) | RouteAction::Answer(Answer { status, .. }) => format!("answer {status}"),
    };
    RouteState { name: route.name.to_string(), hosts, paths, action }
}

fn targets(forward: &HttpForward) -> String {
    let target = |backend: &l7::Backend| match &backend.target {
        Target::Cluster(name) => name.to_string(),
        Target::Status(status) => format!("nobody ({status})"),
    };
    let targets: Vec<_> = forward.backends.iter().map(target).collect();
    if targets.is_empty() { "nobody (500)".to_owned() } else { targets.join(", ") }
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Start(start) => format!("{start}*"),
        PathMatch::Prefix(prefix) => format!("{}/*", prefix.trim_end_matches('/')),
        PathMatch::Regex(regex) => format!("~{regex}"),
    }
}

pub(super) fn clusters(serving: &Serving) -> Vec<ClusterState> {
    let state = |upstream: &Upstream| ClusterState {
        name: upstream.settings.cluster.name.to_string(),
        requests: upstream.requests(),
        endpoints: endpoints(upstream),
    };
    let mut all: Vec<_> = serving.upstreams.values().map(|upstream| state(upstream)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

pub(super) fn endpoints(upstream: &Upstream) -> Vec<AtEndpoint> {
    let mut all: Vec<_> = upstream.endpoints().collect();
    all.sort_by_key(|(endpoint, _)| endpoint.address);
    let state = |(endpoint, chosen): (&std::sync::Arc<crate::upstream::Endpoint>, bool)| AtEndpoint {
        address: endpoint.address.to_string(),
        chosen,
        healthy: endpoint.healthy(),
        requests: endpoint.requests(),
    };
    all.into_iter().map(state).collect()
}
