// SPDX-License-Identifier: Apache-2.0
//! Which ports of Services an object has, and where its clusters are.

use super::cluster::AskedPort;
use super::{Claim, EnvoyConfig, attach};
use crate::name::{ObjectName, RouteName};
use crate::objects::Objects;
use crate::route::{Attached, Place, Port, at_service};
use crate::source::{Service, ServicePort};
use model::Protocol;
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object, and what it has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) config: Arc<EnvoyConfig>,
    /// Ports of Services, by the listener that their requests go to.
    pub(crate) places: BTreeMap<Arc<str>, Vec<Place>>,
    /// Its routes.
    pub(crate) routes: attach::Routes,
    /// Where its clusters are, or why requests for them are refused. No port: they are where they say themselves.
    pub(crate) targets: BTreeMap<Arc<str>, Result<Option<Port>, String>>,
    /// What of it is not honoured.
    pub(crate) problems: Vec<String>,
}

impl statedb::Row for Placed {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.config.name.clone()
    }
}

/// Keeps which ports each object has.
pub(crate) fn place(tasks: &Tasks, objects: &Objects, gateway_routes: &Reader<Attached>) -> Derived<Placed> {
    let by_claim = objects.envoy_configs.index(services_claimed);
    let by_service = objects.envoy_configs.index(services);
    let names = |configs: Vec<Arc<EnvoyConfig>>| configs.iter().map(|config| config.name.clone()).collect::<Vec<_>>();
    let (rivals, of_routes) = (by_claim.clone(), by_claim.clone());
    let inputs = Inputs::of(&objects.envoy_configs, move |config: &EnvoyConfig| {
        let rivals = services_claimed(config).into_iter().flat_map(|service| names(rivals.get(&service)));
        rivals.chain([config.name.clone()]).collect::<Vec<_>>()
    })
    .and(&objects.services, move |service| names(by_service.get(&service.name)))
    .and(gateway_routes, move |route| {
        produced(route).into_iter().flat_map(|(service, _)| names(of_routes.get(&service))).collect::<Vec<_>>()
    });
    let context = Context {
        configs: objects.envoy_configs.clone(),
        services: objects.services.clone(),
        by_claim,
        produced: gateway_routes.index(produced),
    };
    statedb::derive(tasks, "envoy-configs", inputs, move |name, _| context.resolve(name))
}

fn services_claimed(config: &EnvoyConfig) -> BTreeSet<ObjectName> {
    config.claims.iter().map(|claim| claim.service.clone()).collect()
}

/// Services that it claims, or sends requests to.
fn services(config: &EnvoyConfig) -> BTreeSet<ObjectName> {
    let targets = config.clusters.values().filter_map(|cluster| cluster.as_ref().ok()?.service().cloned());
    targets.chain(services_claimed(config)).collect()
}

/// Ports of Services for which a route of Gateway API is for all pods.
fn produced(route: &Attached) -> Vec<(ObjectName, u16)> {
    let places = route.parents.iter().flat_map(|parent| &parent.places);
    let ports = places.filter_map(|place| Some((place, place.service.as_ref()?)));
    ports.filter(|(_, at)| at.consumer.is_none()).map(|(place, at)| (place.gateway.clone(), at.port)).collect()
}

struct Context {
    configs: Reader<EnvoyConfig>,
    services: Reader<Service>,
    by_claim: Index<EnvoyConfig, ObjectName>,
    produced: Index<Attached, (ObjectName, u16)>,
}

impl Context {
    fn resolve(&self, name: &ObjectName) -> Option<Placed> {
        let config = self.configs.snapshot().get(name)?;
        let mut problems = config.problems.clone();
        let (mut places, mut taken) = (BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
        for claim in &config.claims {
            let of_listener = places.entry(Arc::clone(&claim.listener)).or_default();
            for port in self.ports(&config, claim, &mut problems) {
                if taken.insert((claim.service.clone(), port)) {
                    of_listener.push(at_service(&claim.service, port, None));
                } else {
                    problems
                        .push(format!("Service {}: port {port} is listed twice, and the first counts", claim.service));
                }
            }
        }
        let targets = config.clusters.iter().map(|(name, cluster)| {
            let asked = cluster.as_ref().map_err(Clone::clone).map(|cluster| cluster.port.as_ref());
            let port = asked.and_then(|asked| asked.map(|asked| self.port(&config, asked)).transpose());
            if let Err(reason) = &port {
                problems.push(format!("requests for cluster {name:?} are refused: {reason}"));
            }
            (Arc::clone(name), port)
        });
        let targets = targets.collect();
        Some(Placed { routes: attach::names(&config, &places), places, targets, problems, config })
    }

    /// The ports that an object gets of those that it claims.
    fn ports(&self, config: &EnvoyConfig, claim: &Claim, problems: &mut Vec<String>) -> Vec<u16> {
        let Claim { service, ports, .. } = claim;
        let mut problem = |reason: String| problems.push(format!("Service {service}: {reason}"));
        let Some(there) = self.services.snapshot().get(service) else {
            problem("it does not exist".to_owned());
            return Vec::new();
        };
        if !there.addressed {
            problem("it has no address of its own in the cluster".to_owned());
            return Vec::new();
        }
        let tcp = there.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        let tcp: BTreeSet<u16> = tcp.map(|port| port.port).collect();
        let asked: BTreeSet<u16> = if ports.is_empty() { tcp.clone() } else { ports.iter().copied().collect() };
        let mut got = Vec::new();
        for port in asked {
            if !tcp.contains(&port) {
                problem(format!("it has no TCP port {port}"));
            } else if !self.produced.get(&(service.clone(), port)).is_empty() {
                problem(format!("port {port} has routes of Gateway API"));
            } else if let Some(other) = self.rival(config, service, port) {
                problem(format!("port {port} is claimed by {}, which is older", RouteName::config(&other.name)));
            } else {
                got.push(port);
            }
        }
        got
    }

    /// Another object that has the port.
    fn rival(&self, config: &EnvoyConfig, service: &ObjectName, port: u16) -> Option<Arc<EnvoyConfig>> {
        let claims = |other: &EnvoyConfig| {
            let mut of_service = other.claims.iter().filter(|claim| claim.service == *service);
            of_service.any(|claim| claim.ports.is_empty() || claim.ports.contains(&port))
        };
        self.by_claim.get(service).into_iter().find(|other| other.precedes(config) && claims(other))
    }

    /// The port of a Service that a cluster is. An object of a namespace sends to Services of its own only.
    fn port(&self, config: &EnvoyConfig, asked: &AskedPort) -> Result<Port, String> {
        let AskedPort { service, port: asked } = asked;
        let own = &config.name.namespace;
        if !own.is_empty() && service.namespace != *own {
            return Err(format!("Service {service} is not of the object's own namespace"));
        }
        let Some(there) = self.services.snapshot().get(service) else {
            return Err(format!("Service {service} does not exist"));
        };
        if there.external {
            return Err(format!("Service {service} is an ExternalName, which has no endpoints"));
        }
        let is_asked = |port: &&ServicePort| {
            asked.as_ref().is_none_or(|asked| **asked == *port.name || **asked == *port.port.to_string())
        };
        let mut ports = there.ports.iter().filter(|port| port.protocol == Protocol::Tcp).filter(is_asked);
        match (ports.next(), ports.next()) {
            (Some(port), None) => Ok(Port { service: service.clone(), port: port.port, udp: false }),
            (None, _) => Err(format!("Service {service} has no such TCP port")),
            (Some(_), Some(_)) => Err(format!("Service {service} has several ports: name one, as in {service}:PORT")),
        }
    }
}
