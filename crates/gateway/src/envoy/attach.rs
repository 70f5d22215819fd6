// SPDX-License-Identifier: Apache-2.0
//! Virtual hosts and TCP proxies as routes of Services: from here on, they are served as those of Gateway API are.

use super::EnvoyConfig;
use super::bytes::Connections;
use super::claims::Placed;
use super::cluster::Spoken;
use super::listener::Served;
use super::routes::VirtualHost;
use crate::cluster::{ClusterName, Owner, Use};
use crate::name::{ObjectName, ParentName, RouteName};
use crate::route::{Attached, Content, Parent, Place, Rule};
use crate::verdict::Verdict;
use k8s::gateway::ParentReference;
use l7::{Backend, ClusterLimits, HostMatch, RouteAction, Target};
use statedb::{Derived, Inputs, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What requests are answered with whose cluster cannot be used.
const UNUSABLE: u16 = 500;
/// What requests are answered with whose cluster is not there; Envoy's own.
const NOT_THERE: u16 = 503;

/// Listeners and numbers of virtual hosts by the routes that these are. A TCP proxy is one route.
pub(super) type Routes = BTreeMap<RouteName, (Arc<str>, usize)>;

/// Keeps a route for each virtual host and TCP proxy of the listeners that Services are led to.
pub(crate) fn routes(tasks: &Tasks, placed: &Derived<Placed>) -> Derived<Attached> {
    let names = |placed: &Placed| placed.routes.keys().cloned().collect::<Vec<_>>();
    let (inputs, by_route) = (Inputs::of(&placed.rows, names), placed.rows.index(names));
    statedb::derive(tasks, "envoy-routes", inputs, move |name, _| {
        let placed = by_route.get(name).into_iter().next()?;
        let (listener, number) = placed.routes.get(name)?;
        let places = placed.places.get(listener)?;
        match placed.config.listeners.get(listener)? {
            Served::Requests(hosts) => Some(requests(&placed, name, hosts.get(*number)?, places)),
            Served::Connections(connections) => Some(self::connections(&placed, name, connections, places)),
        }
    })
}

/// The routes of an object, each with its listener and the number of its virtual host.
pub(super) fn names(config: &EnvoyConfig, places: &BTreeMap<Arc<str>, Vec<Place>>) -> Routes {
    let (of_listener, config) = (&config.listeners, RouteName::config(&config.name));
    let mut names = BTreeMap::new();
    for listener in places.iter().filter(|(_, places)| !places.is_empty()).map(|(listener, _)| listener) {
        let Some(served) = of_listener.get(listener) else { continue };
        let mut name = |within: String, number| {
            let name = ObjectName { namespace: Arc::clone(&config.name.namespace), name: within.into() };
            names.insert(RouteName { kind: config.kind, name }, (Arc::clone(listener), number));
        };
        for (number, host) in served.hosts().iter().enumerate() {
            name(format!("{}/{listener}/{number}/{}", config.name.name, host.name), number);
        }
        if matches!(served, Served::Connections(_)) {
            // No name of a listener or a virtual host has a space.
            name(format!("{}/{listener} tcp", config.name.name), 0);
        }
    }
    names
}

fn requests(placed: &Placed, name: &RouteName, host: &VirtualHost, places: &[Place]) -> Attached {
    let mut own = Clusters { placed, usage: Use::Requests, used: BTreeMap::new() };
    let rules = host.rules.iter().map(|rule| Rule { action: own.action(&rule.action), ..rule.clone() }).collect();
    own.attached(name, Content::Requests(rules), (&host.hosts, places))
}

fn connections(placed: &Placed, name: &RouteName, connections: &Connections, places: &[Place]) -> Attached {
    let mut own = Clusters { placed, usage: Use::Bytes, used: BTreeMap::new() };
    let mut backends = connections.backends.clone();
    own.lead(&mut backends);
    let forward = l7::Forward { route: name.to_string().into(), backends };
    own.attached(name, Content::Connections(forward, connections.idle), (&[HostMatch::Any], places))
}

/// The clusters that a route uses, under the names that the proxy knows them by.
struct Clusters<'a> {
    placed: &'a Placed,
    usage: Use,
    used: BTreeMap<ClusterName, Spoken>,
}

impl Clusters<'_> {
    fn attached(self, name: &RouteName, content: Content, (hosts, places): (&[HostMatch], &[Place])) -> Attached {
        let parent = |place: &Place| Parent {
            reference: ParentReference::default(),
            name: ParentName::service(&place.gateway),
            accepted: Verdict::yes("Accepted"),
            places: vec![Place { hosts: hosts.to_vec(), ..place.clone() }],
        };
        Attached {
            name: name.clone(),
            meta: self.placed.config.meta.clone(),
            parents: places.iter().map(parent).collect(),
            resolved: Verdict::yes("ResolvedRefs"),
            partly: None,
            content,
            ports: self.used.keys().filter_map(|cluster| cluster.port.clone()).collect::<BTreeSet<_>>(),
            own: self.used,
        }
    }

    fn action(&mut self, action: &RouteAction) -> RouteAction {
        let RouteAction::Forward(forward) = action else { return action.clone() };
        let mut forward = forward.clone();
        self.lead(&mut forward.backends);
        forward.mirrors.retain_mut(|mirror| match self.target(&mirror.cluster) {
            Target::Cluster(name) => {
                mirror.cluster = name;
                true
            }
            Target::Status(_) => false,
        });
        RouteAction::Forward(forward)
    }

    /// Has backends lead to clusters as the proxy knows them.
    fn lead(&mut self, backends: &mut [Backend]) {
        for backend in backends {
            if let Target::Cluster(name) = &backend.target {
                backend.target = self.target(name);
            }
        }
    }

    fn target(&mut self, name: &l7::Name) -> Target {
        let config = &self.placed.config;
        match (self.placed.targets.get(name), config.clusters.get(name)) {
            (Some(Ok(port)), Some(Ok(known))) => {
                let owner = Owner::Config(RouteName::config(&config.name), Arc::clone(name));
                let cluster = ClusterName { port: port.clone(), usage: self.usage, owner: Some(owner) };
                let (named, mut spoken) = (cluster.name(), known.spoken.clone());
                if self.usage == Use::Bytes {
                    // Of those, connections are counted.
                    spoken.limits.requests = ClusterLimits::default().requests;
                }
                self.used.insert(cluster, spoken);
                Target::Cluster(named)
            }
            (None, _) => Target::Status(NOT_THERE),
            _ => Target::Status(UNUSABLE),
        }
    }
}
