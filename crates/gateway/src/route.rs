// SPDX-License-Identifier: Apache-2.0
//! A route with what it attaches to, and its rules as the proxy is to have them.

mod backend;
mod filters;
mod grpc;
mod http;
mod matches;
mod parents;

pub(crate) use backend::Port;
pub(crate) use parents::{Parent, Place, ServicePort, at_service, table};

use crate::cluster::ClusterName;
use crate::edge::Edge;
use crate::envoy::Spoken;
use crate::name::{ObjectName, ParentName, RouteName};
use crate::objects::Objects;
use crate::source::{Meta, Route, Rules};
use crate::verdict::Verdict;
use k8s::gateway::{BackendRef, Filter, ParentReference};
use statedb::{Index, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A route that has parents of ours. One row per route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attached {
    pub(crate) name: RouteName,
    pub(crate) meta: Meta,
    /// Those of the route's parents that are ours.
    pub(crate) parents: Vec<Parent>,
    /// Whether all that it refers to is there.
    pub(crate) resolved: Verdict,
    /// Why some of its rules do nothing, if others do.
    pub(crate) partly: Option<Verdict>,
    pub(crate) content: Content,
    /// Ports that it sends to, copies included.
    pub(crate) ports: BTreeSet<Port>,
    /// The clusters that these are, if it speaks to them in a way of its own.
    pub(crate) own: BTreeMap<ClusterName, Spoken>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// With each request that matches.
    Requests(Vec<Rule>),
    /// With all connections or datagrams: targets by weight.
    Stream(Vec<(Option<Port>, u32)>),
    /// With all connections of pods, and for how long nothing may happen on one. The clusters are its own.
    Connections(l7::Forward, Duration),
}

/// A rule as the proxy is to have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) matches: Arc<[l7::RouteMatch]>,
    pub(crate) filters: l7::Rare<l7::Filters>,
    pub(crate) action: l7::RouteAction,
    /// Name of what counts its requests.
    pub(crate) rate_limit: Option<l7::Name>,
}

impl statedb::Row for Attached {
    type Key = RouteName;
    fn key(&self) -> RouteName {
        self.name.clone()
    }
}

/// Where to look for what a route refers to.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) objects: Objects,
    pub(crate) edges: Reader<Edge>,
    /// By parents of routes.
    pub(crate) edges_by_parent: Index<Edge, ParentName>,
}

/// The route of that name, if it has a parent of ours.
pub(crate) fn resolve(context: &Context, name: &RouteName) -> Option<Attached> {
    let route = context.objects.routes.snapshot().get(name)?;
    let mut parents = parents::resolve(context, &route);
    if parents.is_empty() {
        return None;
    }
    let mut found = Found::new(&context.objects, &route);
    let content = match &route.rules {
        Rules::Http(rules) => Content::Requests(http::resolve(&mut found, rules)),
        Rules::Grpc(rules) => Content::Requests(grpc::resolve(&mut found, rules)),
        Rules::Stream(rules) => Content::Stream(backend::stream(&mut found, rules)),
    };
    let (resolved, dropped, ports) = (found.resolved(), found.dropped, found.ports);
    let rules = match &content {
        Content::Requests(rules) => rules.len(),
        Content::Stream(_) | Content::Connections(..) => 1,
    };
    let mut partly = None;
    if !dropped.is_empty() {
        let message = format!("Dropped Rule {}", dropped.join("; Dropped Rule "));
        if dropped.len() < rules {
            partly = Some(Verdict::yes("UnsupportedValue").with_message(message));
        } else {
            parents.iter_mut().for_each(|parent| parent.refuse(&Verdict::no("UnsupportedValue", message.as_str())));
        }
    }
    let (name, meta, own) = (name.clone(), route.meta.clone(), BTreeMap::new());
    Some(Attached { name, meta, parents, resolved, partly, content, ports, own })
}

/// What is found while a route's rules are read.
pub(crate) struct Found<'a> {
    objects: &'a Objects,
    route: &'a Route,
    /// The first reference that leads nowhere.
    unresolved: Option<Verdict>,
    /// Rules that do nothing, by number and with the reason.
    dropped: Vec<String>,
    ports: BTreeSet<Port>,
}

impl<'a> Found<'a> {
    fn new(objects: &'a Objects, route: &'a Route) -> Self {
        Self { objects, route, unresolved: None, dropped: Vec::new(), ports: BTreeSet::new() }
    }

    fn resolved(&self) -> Verdict {
        self.unresolved.clone().unwrap_or_else(|| Verdict::yes("ResolvedRefs"))
    }

    fn missing(&mut self, verdict: Verdict) {
        self.unresolved.get_or_insert(verdict);
    }
}

/// The object that a route names as its parent, if it is of a kind that we know.
pub(crate) fn parent_name(route: &ObjectName, reference: &ParentReference) -> Option<ParentName> {
    let group = reference.group.as_deref().unwrap_or(k8s::gateway::GROUP);
    let name = ObjectName::referred(&route.namespace, reference.namespace.as_deref(), &reference.name);
    match (group, reference.kind.as_deref().unwrap_or("Gateway")) {
        (k8s::gateway::GROUP, "Gateway") => Some(ParentName::gateway(&name)),
        (k8s::gateway::GROUP, "ListenerSet") | (k8s::gateway::TRIAL_GROUP, "XListenerSet") => {
            Some(ParentName::listener_set(&name))
        }
        ("", "Service") => Some(ParentName::service(&name)),
        _ => None,
    }
}

/// The Services that a route refers to, mirrors included, whether it may or not.
pub(crate) fn services(route: &Route) -> Vec<ObjectName> {
    let mut references = Vec::new();
    let with_mirrors = |references: &mut Vec<_>, backends: &[BackendRef], filters: &[Filter]| {
        let own = backends.iter().flat_map(|backend| &backend.filters);
        let mirrors = filters.iter().chain(own).filter_map(|filter| filter.request_mirror.as_ref());
        references.extend(mirrors.map(|mirror| mirror.backend_ref.as_ref().clone()));
        references.extend(backends.iter().cloned());
    };
    match &route.rules {
        Rules::Http(rules) => {
            rules.iter().for_each(|rule| with_mirrors(&mut references, &rule.backend_refs, &rule.filters));
        }
        Rules::Grpc(rules) => {
            rules.iter().for_each(|rule| with_mirrors(&mut references, &rule.backend_refs, &rule.filters));
        }
        Rules::Stream(rules) => rules.iter().for_each(|rule| references.extend(rule.backend_refs.iter().cloned())),
    }
    let namespace = &route.name.name.namespace;
    let name = |backend: &BackendRef| ObjectName::referred(namespace, backend.namespace.as_deref(), &backend.name);
    references.iter().map(name).collect()
}
