// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: objects of authors who may write anything. Not part of the product.

use crate::route::Rule;
use crate::source::{Parameters, Route, RouteSpec, Source};
use crate::{IngressConfig, ingest_envoy_config, ingest_ingress};
use k8s::gateway::{
    BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, ListenerSetSpec, MeshSpec,
    Object, ReferenceGrantSpec, Spec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
};
use l7::{Filters, HeaderChanges, PathChange, PathMatch, RouteAction, RouteMatch, ValueMatch, syntax};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// An object in JSON after a byte that names its kind: the same object gives the same row.
pub fn object(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else { return };
    match kind {
        b'0' => source::<GatewayClassSpec>(json),
        b'1' => source::<GatewaySpec>(json),
        b'2' => source::<ListenerSetSpec>(json),
        b'3' => route::<HttpRouteSpec>(json),
        b'4' => route::<GrpcRouteSpec>(json),
        b'5' => route::<TlsRouteSpec>(json),
        b'6' => route::<TcpRouteSpec>(json),
        b'7' => route::<UdpRouteSpec>(json),
        b'8' => source::<ReferenceGrantSpec>(json),
        b'9' => source::<BackendTlsPolicySpec>(json),
        b'K' => row(json, Parameters::ingest),
        b'M' => source::<MeshSpec>(json),
        b'I' => row(json, |object| ingest_ingress(&IngressConfig::default(), object)),
        _ => {}
    }
}

fn source<S: Spec>(json: &[u8]) {
    row(json, |object: &Object<S>| Source::ingest_told(object));
}

fn route<S: RouteSpec>(json: &[u8]) {
    row(json, |object: &Object<S>| Route::ingest_told(object));
}

fn row<T: DeserializeOwned, R: PartialEq + Debug>(json: &[u8], ingest: impl Fn(&T) -> R) {
    if let Ok(object) = serde_json::from_slice(json) {
        assert_eq!(ingest(&object), ingest(&object));
    }
}

/// The `spec` of a CiliumEnvoyConfig: whatever it is, all that it claims is led to a listener, and what is made of it can be shown and
/// served.
pub fn envoy_config(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Value>(data) else { return };
    let object = json!({"metadata": {"namespace": "canteen", "name": "canary"}, "spec": spec});
    let Ok(object) = serde_json::from_value(object) else { return };
    let Some(config) = ingest_envoy_config(&object) else { return };
    for claim in &config.claims {
        assert!(config.listeners.contains_key(&claim.listener), "{claim:?}");
        assert_eq!(&*claim.service.namespace, "canteen");
    }
    let shown = config.problems.iter().chain(config.clusters.values().filter_map(|cluster| cluster.as_ref().err()));
    for text in shown {
        assert!(text.chars().count() <= 400 && !text.chars().any(char::is_control), "{text:?}");
    }
    let addresses = config.clusters.values().flatten().flat_map(|cluster| &cluster.spoken.addresses);
    assert!(addresses.into_iter().all(|address| !address.ip().is_loopback() && address.port() != 0));
    for rule in config.listeners.values().flat_map(|served| served.hosts()).flat_map(|host| &host.rules) {
        check(rule);
    }
}

/// The proxy looks at the same.
fn check(rule: &Rule) {
    rule.matches.iter().for_each(matched);
    changes(&rule.filters.value());
    match &rule.action {
        RouteAction::Forward(forward) => {
            forward.backends.iter().for_each(|backend| changes(&backend.filters.value()));
            assert!(forward.mirrors.iter().all(|mirror| mirror.share.denominator > 0));
        }
        RouteAction::Redirect(redirect) => {
            assert!(redirect.host.as_deref().is_none_or(|host| syntax::authority(host).is_ok()));
            redirect.path.iter().for_each(path);
        }
        RouteAction::Respond(status) => assert!((200..=599).contains(status)),
        RouteAction::Answer(answer) => assert!((200..=599).contains(&answer.status)),
    }
}

fn matched(wanted: &RouteMatch) {
    match &wanted.path {
        PathMatch::Exact(path) | PathMatch::Start(path) | PathMatch::Prefix(path) => assert!(path.starts_with('/')),
        PathMatch::Regex(text) => assert!(syntax::expression(text).is_ok(), "{text:?}"),
    }
    for (name, value) in &wanted.headers {
        assert!(syntax::header_name(name).is_ok(), "{name:?}");
        matched_value(value);
    }
    wanted.query.iter().for_each(|(_, value)| matched_value(value));
}

fn matched_value(value: &ValueMatch) {
    match value {
        ValueMatch::Regex(text) => assert!(syntax::expression(text).is_ok(), "{text:?}"),
        ValueMatch::Not(value) => matched_value(value),
        ValueMatch::Exact(_) | ValueMatch::Present | ValueMatch::Absent => {}
    }
}

fn changes(filters: &Filters) {
    for HeaderChanges { remove, set, add } in [&filters.request, &filters.response] {
        assert!(remove.iter().all(|name| syntax::changed_header(name).is_ok()), "{remove:?}");
        for (name, value) in set.iter().chain(add) {
            assert!(syntax::changed_header(name).is_ok() && syntax::header_value(value).is_ok(), "{name:?}: {value:?}");
        }
    }
    assert!(filters.rewrite.host.as_deref().is_none_or(|host| syntax::authority(host).is_ok()));
    filters.rewrite.path.iter().for_each(path);
}

fn path(change: &PathChange) {
    match change {
        PathChange::Full(path) | PathChange::Prefix(path) | PathChange::Start(path) => {
            assert!(syntax::path(path).is_ok(), "{path:?}");
        }
        PathChange::Replace { pattern, with } => {
            let groups = syntax::pattern(pattern).map(|regex| regex.captures_len());
            assert!(groups.is_ok_and(|groups| syntax::substitution(with, groups).is_ok()), "{pattern:?}: {with:?}");
        }
    }
}
