// SPDX-License-Identifier: Apache-2.0
//! Virtual hosts as routes of Services: from here on, they are served as those of Gateway API are.

use super::EnvoyConfig;
use super::claims::Placed;
use super::cluster::Spoken;
use super::routes::VirtualHost;
use crate::cluster::{self, ClusterName, Owner, Use};
use crate::name::{ObjectName, ParentName, RouteName};
use crate::route::{Attached, Content, Parent, Place, Rule};
use crate::verdict::Verdict;
use k8s::gateway::ParentReference;
use l7::{RouteAction, Target};
use statedb::{Derived, Inputs, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What requests are answered with whose cluster cannot be used.
const UNUSABLE: u16 = 500;
/// What requests are answered with whose cluster is not there; Envoy's own.
const NOT_THERE: u16 = 503;

/// Listeners and numbers of virtual hosts by the routes that these are.
pub(super) type Routes = BTreeMap<RouteName, (Arc<str>, usize)>;

/// Keeps a route for each virtual host of the listeners that requests go to.
pub(crate) fn routes(tasks: &Tasks, placed: &Derived<Placed>) -> Derived<Attached> {
    let names = |placed: &Placed| placed.routes.keys().cloned().collect::<Vec<_>>();
    let (inputs, by_route) = (Inputs::of(&placed.rows, names), placed.rows.index(names));
    statedb::derive(tasks, "envoy-routes", inputs, move |name, _| {
        let placed = by_route.get(name).into_iter().next()?;
        let (listener, number) = placed.routes.get(name)?;
        let host = placed.config.listeners.get(listener)?.get(*number)?;
        Some(attached(&placed, name, host, placed.places.get(listener)?))
    })
}

/// The routes of an object, each with its listener and the number of its virtual host.
pub(super) fn names(config: &EnvoyConfig, places: &BTreeMap<Arc<str>, Vec<Place>>) -> Routes {
    let (of_listener, config) = (&config.listeners, RouteName::config(&config.name));
    let mut names = BTreeMap::new();
    for listener in places.iter().filter(|(_, places)| !places.is_empty()).map(|(listener, _)| listener) {
        let hosts = of_listener.get(listener).map_or(&[][..], Vec::as_slice);
        for (number, host) in hosts.iter().enumerate() {
            let within = format!("{}/{listener}/{number}/{}", config.name.name, host.name);
            let name = ObjectName { namespace: Arc::clone(&config.name.namespace), name: within.into() };
            names.insert(RouteName { kind: config.kind, name }, (Arc::clone(listener), number));
        }
    }
    names
}

fn attached(placed: &Placed, name: &RouteName, host: &VirtualHost, places: &[Place]) -> Attached {
    let mut own = Clusters { placed, used: BTreeMap::new() };
    let rules = host.rules.iter().map(|rule| Rule { action: own.action(&rule.action), ..rule.clone() }).collect();
    let parent = |place: &Place| Parent {
        reference: ParentReference::default(),
        name: ParentName::service(&place.gateway),
        accepted: Verdict::yes("Accepted"),
        places: vec![Place { hosts: host.hosts.clone(), ..place.clone() }],
    };
    Attached {
        name: name.clone(),
        meta: placed.config.meta.clone(),
        parents: places.iter().map(parent).collect(),
        resolved: Verdict::yes("ResolvedRefs"),
        partly: None,
        content: Content::Requests(rules),
        ports: own.used.keys().map(|cluster| cluster.port.clone()).collect::<BTreeSet<_>>(),
        own: own.used,
    }
}

/// The clusters that a route uses, under the names that the proxy knows them by.
struct Clusters<'a> {
    placed: &'a Placed,
    used: BTreeMap<ClusterName, Spoken>,
}

impl Clusters<'_> {
    fn action(&mut self, action: &RouteAction) -> RouteAction {
        let RouteAction::Forward(forward) = action else { return action.clone() };
        let mut forward = forward.clone();
        for backend in &mut forward.backends {
            if let Target::Cluster(name) = &backend.target {
                backend.target = self.target(name);
            }
        }
        forward.mirrors.retain_mut(|mirror| match self.target(&mirror.cluster) {
            Target::Cluster(name) => {
                mirror.cluster = name;
                true
            }
            Target::Status(_) => false,
        });
        RouteAction::Forward(forward)
    }

    fn target(&mut self, name: &l7::Name) -> Target {
        let config = &self.placed.config;
        match (self.placed.targets.get(name), config.clusters.get(name)) {
            (Some(Ok(port)), Some(Ok(known))) => {
                let owner = Owner::Config(RouteName::config(&config.name), Arc::clone(name));
                let cluster = ClusterName { port: port.clone(), usage: Use::Requests, owner: Some(owner) };
                let named = cluster::name(port, Use::Requests, cluster.owner.as_ref());
                self.used.insert(cluster, known.spoken.clone());
                Target::Cluster(named)
            }
            (None, _) => Target::Status(NOT_THERE),
            _ => Target::Status(UNUSABLE),
        }
    }
}
