// SPDX-License-Identifier: Apache-2.0
//! What pods send to Services that have routes: a socket for each port, and whose connections are led there.

use super::listeners::{At, Binding, Site};
use super::ports::Ports;
use super::socket::closed;
use super::{Part, PartName};
use crate::cluster;
use crate::name::{ObjectName, RouteName};
use crate::resolve::Resolved;
use crate::route::{Attached, Content, Place, ServicePort, table};
use l7::link::State;
use l7::{Consumer, Forward, HostMatch, HttpServer, Limits, Mesh, Object, Serve, ServiceServer, TableRef};
use model::{IdentityId, Proxied, Server};
use statedb::{Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What the names of such sockets begin with.
const PREFIX: &str = "service/";

pub(super) fn owner(service: &ObjectName) -> String {
    format!("{PREFIX}{service}/")
}

fn places(route: &Attached) -> impl Iterator<Item = (&Place, &ServicePort)> {
    let places = route.parents.iter().flat_map(|parent| &parent.places);
    places.filter_map(|place| Some((place, place.service.as_ref()?)))
}

/// The Services that a route is for.
pub(super) fn services(route: &Attached) -> BTreeSet<ObjectName> {
    places(route).map(|(place, _)| place.gateway.clone()).collect()
}

/// The sockets of a Service; nothing if no route is for it.
pub(super) fn of_service(
    binding: &Binding,
    ports: &mut Ports,
    service: &ObjectName,
    routes: &[Arc<Attached>],
) -> Option<Vec<Object>> {
    let mut by_port: BTreeMap<u16, AtPort<'_>> = BTreeMap::new();
    for route in routes {
        for (place, at) in places(route).filter(|(place, _)| place.gateway == *service) {
            let port = by_port.entry(at.port).or_default();
            match &route.content {
                Content::Connections(forward, idle) => port.connections = Some((forward, *idle)),
                Content::Requests(_) | Content::Stream(_) => {
                    port.tables.insert(at.consumer.clone(), table(&place.name));
                }
            }
        }
    }
    let name = |port: &u16| format!("{}{port}/tcp", owner(service));
    let names: Vec<_> = by_port.keys().map(name).collect();
    ports.keep(&owner(service), &names);
    let sockets = by_port.into_iter().map(|(port, at_port)| {
        let (name, (serve, limits)) = (name(&port), at_port.serve(&binding.limits));
        let (clear, sources, at) = (None, Vec::new(), At::Pods);
        binding.listeners(ports, &Site { name: &name, port, serve, clear, sources, at, limits })
    });
    let sockets = sockets.collect::<Vec<_>>().concat();
    (!names.is_empty()).then_some(sockets)
}

/// What is served at a port.
#[derive(Default)]
struct AtPort<'a> {
    tables: Tables,
    /// Where connections go of pods that have no table of their own, and for how long nothing may happen on one.
    connections: Option<(&'a Forward, Duration)>,
}

impl AtPort<'_> {
    fn serve(self, limits: &Limits) -> (Serve, Limits) {
        let Some((forward, idle)) = self.connections else {
            return (Serve::Http(server(self.tables)), limits.clone());
        };
        let consumers = (!self.tables.is_empty()).then(|| server(self.tables));
        (Serve::Service(ServiceServer { forward: forward.clone(), consumers }), Limits { idle, ..limits.clone() })
    }
}

/// The tables of a port by the namespace whose pods they are for, or that of all others.
type Tables = BTreeMap<Option<Arc<str>>, l7::Name>;

fn server(mut tables: Tables) -> HttpServer {
    let produced = tables.remove(&None);
    let consumers =
        tables.into_iter().filter_map(|(namespace, table)| Some(Consumer { namespace: namespace?, table })).collect();
    HttpServer {
        trusted_hops: 0,
        mesh: Some(Mesh { consumers, produces: produced.is_some() }),
        tables: produced.into_iter().map(|table| TableRef { host: HostMatch::Any, table }).collect(),
    }
}

/// A port of a Service of which a proxy takes what some pods send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercepted {
    /// The Service.
    pub service: ObjectName,
    /// The port.
    pub port: u16,
    /// Where the proxy listens. The address is unspecified.
    pub address: SocketAddr,
    /// Addresses of the pods.
    pub clients: BTreeSet<IpAddr>,
}

/// What a proxy takes of what pods send to Services, by what it says is in force.
#[must_use]
pub fn intercepted(state: &State) -> Vec<Intercepted> {
    let closed = closed(state);
    let clients: Vec<_> =
        state.snapshot.clients().filter_map(|client| Some((client.address()?, &client.namespace))).collect();
    let open = state.snapshot.listeners().filter(|listener| !closed.contains_key(&listener.name));
    open.filter_map(|listener| {
        let (service, port) = parse(&listener.name)?;
        let clients = clients.iter().filter(|(_, namespace)| is_for(&listener.serve, namespace));
        let clients = clients.map(|(address, _)| *address).collect();
        Some(Intercepted { service, port, address: listener.address, clients })
    })
    .collect()
}

/// From a listener's name, in which the protocol and the family follow.
fn parse(name: &str) -> Option<(ObjectName, u16)> {
    let mut words = name.strip_prefix(PREFIX)?.split('/');
    let service = ObjectName::new(words.next()?, words.next()?);
    Some((service, words.next()?.parse().ok()?))
}

/// Whether pods of a namespace are served.
fn is_for(serve: &Serve, namespace: &l7::Name) -> bool {
    match serve {
        Serve::Http(HttpServer { mesh: Some(mesh), .. }) => {
            mesh.produces || mesh.consumers.iter().any(|one| one.namespace == *namespace)
        }
        Serve::Service(_) => true,
        Serve::Http(_) | Serve::Tls(_) | Serve::Tcp(_) | Serve::Udp(_) => false,
    }
}

/// Keeps where routes of Services send to.
pub(super) fn proxied(tasks: &Tasks, resolved: &Resolved, parts: &Reader<Part>) -> Reader<Proxied> {
    let routes = resolved.routes.rows.clone();
    let by_cluster = routes.index(cluster::of_route);
    let by_name = routes.index(|route| [key(&route.name)]);
    let inputs = Inputs::of(&routes, |route: &Attached| [key(&route.name)]).and(parts, move |part| match &part.name {
        PartName::Cluster(cluster) => by_cluster.get(cluster).iter().map(|route| key(&route.name)).collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let parts = parts.clone();
    let row = move |name: &Arc<str>, _: Option<&Proxied>| {
        let route = by_name.get(name).into_iter().next().filter(|route| places(route).next().is_some())?;
        let parts = parts.snapshot();
        let clusters = cluster::of_route(&route).into_iter().filter_map(|name| parts.get(&PartName::Cluster(name)));
        Some(Proxied { route: Arc::clone(name), servers: clusters.flat_map(|part| servers(&part)).collect() })
    };
    statedb::derive(tasks, "gateway-proxied", inputs, row).rows
}

fn key(route: &RouteName) -> Arc<str> {
    route.to_string().into()
}

/// The endpoints of a cluster that somebody has.
fn servers(part: &Part) -> Vec<Server> {
    let endpoints = part.objects.iter().flat_map(|object| match object {
        Object::Endpoints(endpoints) => &endpoints.endpoints[..],
        _ => &[],
    });
    let known = endpoints.filter(|endpoint| endpoint.identity != 0);
    known.map(|endpoint| (IdentityId(endpoint.identity), endpoint.address.port())).collect()
}
