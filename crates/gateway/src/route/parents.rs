// SPDX-License-Identifier: Apache-2.0
//! What a route attaches to: of each parent the listeners that it names, that let it, and that are for its host names.

use super::{Context, parent_name};
use crate::edge::{Edge, Listener, ListenerName, Protocol};
use crate::host;
use crate::name::{ObjectName, ParentKind, ParentName, RouteKind};
use crate::source::{Route, Service};
use crate::verdict::Verdict;
use k8s::gateway::ParentReference;
use l7::HostMatch;
use model::Protocol as Transport;
use std::sync::Arc;

/// A parent of ours that a route names, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parent {
    pub(crate) reference: ParentReference,
    pub(crate) name: ParentName,
    pub(crate) accepted: Verdict,
    /// Where it is attached; nowhere unless accepted.
    pub(crate) places: Vec<Place>,
}

impl Parent {
    pub(super) fn refuse(&mut self, verdict: &Verdict) {
        if self.accepted.holds {
            self.accepted = verdict.clone();
        }
        self.places.clear();
    }
}

/// Where a route is attached: a listener of a Gateway, or a port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) gateway: ObjectName,
    pub(crate) name: ListenerName,
    pub(crate) protocol: Protocol,
    pub(crate) hosts: Vec<HostMatch>,
    /// The Gateway shows backends a certificate, so it has connections of its own to them.
    pub(crate) shows_certificate: bool,
    /// It is no listener of a Gateway, but a port of a Service, which then stands in the Gateway's place.
    pub(crate) service: Option<ServicePort>,
}

/// A port of a Service that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServicePort {
    pub(crate) port: u16,
    /// The namespace whose pods the route is for, unless it is for all: then the route is where the Service is.
    pub(crate) consumer: Option<Arc<str>>,
}

/// The table of a listener's routes.
pub(crate) fn table(listener: &ListenerName) -> l7::Name {
    let kind = match listener.owner.kind {
        ParentKind::Gateway => "gateway",
        ParentKind::ListenerSet => "listenerset",
        ParentKind::Service => "service",
    };
    format!("{kind}/{}/{}", listener.owner.name, listener.name).into()
}

pub(super) fn resolve(context: &Context, route: &Route) -> Vec<Parent> {
    let parents = route.parents.iter().filter_map(|reference| {
        let name = parent_name(&route.name.name, reference)?;
        let outcome = match name.kind {
            ParentKind::Gateway | ParentKind::ListenerSet => listeners(context, route, reference, &name)?,
            ParentKind::Service => service(context, route, reference, &name.name)?,
        };
        let (accepted, places) = match outcome {
            Ok(places) => (Verdict::yes("Accepted"), places),
            Err(verdict) => (verdict, Vec::new()),
        };
        Some(Parent { reference: reference.clone(), name, accepted, places })
    });
    parents.collect()
}

/// Nothing if the parent is not ours.
fn listeners(
    context: &Context,
    route: &Route,
    reference: &ParentReference,
    parent: &ParentName,
) -> Option<Result<Vec<Place>, Verdict>> {
    let edge = context.edges_by_parent.get(parent).into_iter().next()?;
    let port = |listener: &Listener| reference.port.is_none_or(|port| port == i64::from(listener.port));
    let section =
        |listener: &Listener| reference.section_name.as_deref().is_none_or(|name| *name == *listener.name.name);
    let named: Vec<_> = edge.listeners_of(parent).filter(|listener| port(listener) && section(listener)).collect();
    if named.is_empty() {
        return Some(Err(Verdict::no("NoMatchingParent", "the parent has no listener of that name and port")));
    }
    let namespace = &route.name.name.namespace;
    let allows = |listener: &&Listener| {
        listener.kinds.contains(&route.name.kind) && listener.allows(&context.objects, namespace)
    };
    let allowed: Vec<_> = named.into_iter().filter(allows).collect();
    if allowed.is_empty() {
        let message = format!("no listener allows routes of kind {} from namespace {namespace}", route.name.kind);
        return Some(Err(Verdict::no("NotAllowedByListeners", message)));
    }
    let places: Vec<_> = allowed.into_iter().filter_map(|listener| place(&edge, route, listener)).collect();
    Some(if places.is_empty() {
        Err(Verdict::no("NoMatchingListenerHostname", "no listener is for any of the route's host names"))
    } else {
        Ok(places)
    })
}

/// The place at a listener, if it is for any of the route's host names.
fn place(edge: &Edge, route: &Route, listener: &Listener) -> Option<Place> {
    let hosts = match route.name.kind {
        RouteKind::Tcp | RouteKind::Udp => vec![HostMatch::Any],
        RouteKind::Http | RouteKind::Grpc | RouteKind::Tls => host::within(&listener.host, &route.hostnames),
        // They are for Services alone.
        RouteKind::EnvoyConfig | RouteKind::ClusterwideEnvoyConfig => Vec::new(),
    };
    if hosts.is_empty() {
        return None;
    }
    Some(Place {
        gateway: edge.gateway.clone(),
        name: listener.name.clone(),
        protocol: listener.protocol?,
        hosts,
        shows_certificate: edge.client_certificate.is_some(),
        service: None,
    })
}

/// A Service takes routes for the requests that pods send it, whatever host these name: where they are sent to is what counts.
/// Nothing if there is no such Service, or if the kind of route is not for requests.
fn service(
    context: &Context,
    route: &Route,
    reference: &ParentReference,
    name: &ObjectName,
) -> Option<Result<Vec<Place>, Verdict>> {
    if !matches!(route.name.kind, RouteKind::Http | RouteKind::Grpc) {
        return None;
    }
    let service: Arc<Service> = context.objects.services.snapshot().get(name)?;
    if !service.addressed {
        return Some(Err(Verdict::no("UnsupportedValue", "the Service has no address of its own in the cluster")));
    }
    let named = service.ports.iter().filter(|port| {
        port.protocol == Transport::Tcp
            && reference.port.is_none_or(|number| number == i64::from(port.port))
            && reference.section_name.as_deref().is_none_or(|name| *name == *port.name)
    });
    let own = &route.name.name.namespace;
    let consumer = (*own != name.namespace).then(|| Arc::clone(own));
    let places: Vec<_> = named.map(|port| at_service(name, port.port, consumer.clone())).collect();
    let missing = "the Service has no TCP port of that name and number";
    Some(if places.is_empty() { Err(Verdict::no("NoMatchingParent", missing)) } else { Ok(places) })
}

/// A port of a Service as a place.
pub(crate) fn at_service(service: &ObjectName, port: u16, consumer: Option<Arc<str>>) -> Place {
    let name = consumer.as_ref().map_or_else(|| port.to_string(), |namespace| format!("{port}@{namespace}"));
    Place {
        gateway: service.clone(),
        name: ListenerName { owner: ParentName::service(service), name: name.into() },
        protocol: Protocol::Http,
        hosts: vec![HostMatch::Any],
        shows_certificate: false,
        service: Some(ServicePort { port, consumer }),
    }
}
