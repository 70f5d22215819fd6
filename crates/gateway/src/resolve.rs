// SPDX-License-Identifier: Apache-2.0
//! Gateways and routes as they follow from objects: one that changes has only that resolved anew which it bears on.

use crate::edge::{self, Edge};
use crate::envoy::{self, Placed};
use crate::name::{ObjectName, ParentName};
use crate::objects::Objects;
use crate::route::{self, Attached};
use crate::source::{Route, Source};
use k8s::gateway::{GatewaySpec, ListenerSetSpec, ObjectReference};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::sync::Arc;

/// Gateways and routes as they follow from objects, for whoever serves them and for whoever writes their status.
#[derive(Clone)]
pub(crate) struct Resolved {
    pub(crate) objects: Objects,
    pub(crate) edges: Derived<Edge>,
    /// Those of Gateway API and of CiliumEnvoyConfigs.
    pub(crate) routes: Derived<Attached>,
    pub(crate) placed: Derived<Placed>,
    /// What the routes are merged of.
    kinds: [Derived<Attached>; 2],
}

impl Resolved {
    /// Lets everything catch up with objects, in the order in which one follows from the other.
    pub(crate) async fn caught_up(&self) {
        let Self { edges, routes, placed, kinds: [of_gateways, of_configs], .. } = self;
        edges.caught_up().await;
        of_gateways.caught_up().await;
        placed.caught_up().await;
        of_configs.caught_up().await;
        routes.caught_up().await;
    }
}

/// Keeps edges and routes as they follow from objects.
pub(crate) fn resolve(tasks: &Tasks, objects: &Objects) -> Resolved {
    let edges = edges(tasks, objects);
    let context = route::Context {
        objects: objects.clone(),
        edges: edges.rows.clone(),
        edges_by_parent: edges.rows.index(|edge| edge.parents().collect::<Vec<_>>()),
    };
    let of_gateways = routes(tasks, context);
    let placed = envoy::place(tasks, objects, &of_gateways.rows);
    let kinds = [of_gateways, envoy::attached(tasks, &placed)];
    let routes = statedb::merge(tasks, "routes-of-all-kinds", kinds.clone().map(|kind| kind.rows));
    Resolved { objects: objects.clone(), edges, routes, placed, kinds }
}

fn edges(tasks: &Tasks, objects: &Objects) -> Derived<Edge> {
    let of_class = objects.gateways.index(|gateway| [gateway.spec.gateway_class_name.clone()]);
    let sets = objects.listener_sets.index(edge::gateway_of);
    let set_namespaces = objects.listener_sets.index(|set| [Arc::clone(&set.name.namespace)]);
    let referring = Referring::new(objects);
    let (of_pair, of_anchors, of_grant) = (referring.clone(), referring.clone(), referring);
    let every = objects.gateways.clone();
    let inputs = Inputs::of(&objects.gateways, |gateway: &Source<GatewaySpec>| [gateway.name.clone()])
        .and(&objects.classes, move |class| {
            let gateways = of_class.get(&class.name.name.to_string());
            gateways.iter().map(|gateway| gateway.name.clone()).collect::<Vec<_>>()
        })
        .and(&objects.listener_sets, |set: &Source<ListenerSetSpec>| edge::gateway_of(set))
        .and(&objects.namespaces, move |namespace| {
            let sets = set_namespaces.get(&namespace.name);
            sets.iter().filter_map(|set| edge::gateway_of(set)).collect::<Vec<_>>()
        })
        .and(&objects.grants, move |grant| of_grant.to_namespace(&grant.name.namespace))
        .and(&objects.key_pairs, move |pair| of_pair.to(&pair.name))
        .and(&objects.anchors, move |anchors| of_anchors.to(&anchors.name))
        // Parameters are few, and so are Gateways that have any.
        .and(&objects.parameters, move |_| names(&every));
    let objects = objects.clone();
    statedb::derive(tasks, "gateway-edges", inputs, move |name, _| edge::resolve(&objects, &sets, name))
}

fn names(gateways: &Reader<Source<GatewaySpec>>) -> Vec<ObjectName> {
    gateways.snapshot().iter().map(|gateway| gateway.name.clone()).collect()
}

/// Gateways by what they, or their ListenerSets, refer to.
#[derive(Clone)]
struct Referring {
    gateways: Index<Source<GatewaySpec>, ObjectName>,
    sets: Index<Source<ListenerSetSpec>, ObjectName>,
    gateways_into: Index<Source<GatewaySpec>, Arc<str>>,
    sets_into: Index<Source<ListenerSetSpec>, Arc<str>>,
}

impl Referring {
    fn new(objects: &Objects) -> Self {
        let namespaces = |names: Vec<ObjectName>| names.into_iter().map(|name| name.namespace).collect::<Vec<_>>();
        Self {
            gateways: objects.gateways.index(of_gateway),
            sets: objects.listener_sets.index(of_set),
            gateways_into: objects.gateways.index(move |gateway| namespaces(of_gateway(gateway))),
            sets_into: objects.listener_sets.index(move |set| namespaces(of_set(set))),
        }
    }

    /// Gateways that refer to an object of that name.
    fn to(&self, name: &ObjectName) -> Vec<ObjectName> {
        let of_sets = self.sets.get(name).into_iter().filter_map(|set| edge::gateway_of(&set));
        self.gateways.get(name).iter().map(|gateway| gateway.name.clone()).chain(of_sets).collect()
    }

    /// Gateways that refer into a namespace.
    fn to_namespace(&self, namespace: &Arc<str>) -> Vec<ObjectName> {
        let of_sets = self.sets_into.get(namespace).into_iter().filter_map(|set| edge::gateway_of(&set));
        self.gateways_into.get(namespace).iter().map(|gateway| gateway.name.clone()).chain(of_sets).collect()
    }
}

/// Secrets and ConfigMaps that a Gateway refers to.
fn of_gateway(gateway: &Source<GatewaySpec>) -> Vec<ObjectName> {
    let tls = gateway.spec.tls.as_ref();
    let backend = tls.and_then(|tls| tls.backend.as_ref()?.client_certificate_ref.as_ref());
    let frontend = tls.and_then(|tls| tls.frontend.as_ref()).into_iter();
    let configs = frontend
        .flat_map(|frontend| std::iter::once(&frontend.default).chain(frontend.per_port.iter().map(|port| &port.tls)));
    let authorities = configs.filter_map(|config| config.validation.as_ref()).flat_map(|one| &one.ca_certificate_refs);
    let references = certificates(&gateway.spec.listeners).chain(backend).chain(authorities);
    named(&gateway.name, references)
}

fn of_set(set: &Source<ListenerSetSpec>) -> Vec<ObjectName> {
    named(&set.name, certificates(&set.spec.listeners))
}

fn certificates(listeners: &[k8s::gateway::Listener]) -> impl Iterator<Item = &ObjectReference> {
    listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificate_refs)
}

fn named<'a>(own: &ObjectName, references: impl Iterator<Item = &'a ObjectReference>) -> Vec<ObjectName> {
    let name = |reference: &ObjectReference| {
        ObjectName::referred(&own.namespace, reference.namespace.as_deref(), &reference.name)
    };
    references.map(name).collect()
}

fn routes(tasks: &Tasks, context: route::Context) -> Derived<Attached> {
    let objects = &context.objects;
    let parents = |route: &Route| {
        let names = route.parents.iter().map(|reference| route::parent_name(&route.name.name, reference));
        names.flatten().collect::<Vec<ParentName>>()
    };
    let by_parent = objects.routes.index(parents);
    let by_service = objects.routes.index(route::services);
    let by_namespace = objects.routes.index(|route| [Arc::clone(&route.name.name.namespace)]);
    let into = objects
        .routes
        .index(|route| route::services(route).into_iter().map(|service| service.namespace).collect::<Vec<_>>());
    let names = |routes: Vec<Arc<Route>>| routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
    let of_edge = by_parent.clone();
    let inputs = Inputs::of(&objects.routes, |route: &Route| [route.name.clone()])
        .and(&context.edges, move |edge| {
            edge.parents().flat_map(|parent| names(of_edge.get(&parent))).collect::<Vec<_>>()
        })
        .and(&objects.services, move |service| {
            let mut routes = names(by_service.get(&service.name));
            routes.extend(names(by_parent.get(&ParentName::service(&service.name))));
            routes
        })
        .and(&objects.namespaces, move |namespace| names(by_namespace.get(&namespace.name)))
        .and(&objects.grants, move |grant| names(into.get(&grant.name.namespace)));
    statedb::derive(tasks, "gateway-routes", inputs, move |name, _| route::resolve(&context, name))
}
