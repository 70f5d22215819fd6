// SPDX-License-Identifier: Apache-2.0
//! Ports of Services as the proxy speaks to them: by which protocol, in TLS or not, and where their endpoints are.

use crate::edge::{Edge, Protocol};
use crate::envoy::Spoken;
use crate::name::{ObjectName, RouteKind, RouteName};
use crate::objects::Objects;
use crate::route::{Attached, Content, Place, Port};
use crate::source::{Endpoint, Service, ServicePort, Slice};
use crate::tls_policy::{self, Policies};
use ipnet::IpNet;
use l7::{BackendProtocol, BackendTls, Cluster, ClusterLimits, Endpoints, Object};
use model::{IdentityId, IpEntry, Node, Protocol as Transport, ZONE};
use statedb::{Index, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What requests are answered with if it is not known how to verify their backend.
const UNVERIFIABLE: u16 = 500;

/// What is sent to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Use {
    /// What the proxy has read: it may be put into TLS.
    Requests,
    /// What came, as it came.
    Bytes,
}

/// A port of a Service, or a cluster that is where its owner says, and what is sent there by whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClusterName {
    /// None: its addresses are written down.
    pub(crate) port: Option<Port>,
    pub(crate) usage: Use,
    /// Who speaks to it in a way of his own.
    pub(crate) owner: Option<Owner>,
}

/// Who has connections of his own to a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    /// A Gateway that shows its certificate there.
    Gateway(ObjectName),
    /// A CiliumEnvoyConfig, for a cluster of its.
    Config(RouteName, l7::Name),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(gateway) => write!(f, "{gateway}"),
            Self::Config(config, cluster) => write!(f, "{config}/{cluster}"),
        }
    }
}

/// The name under which the proxy knows it.
pub(crate) fn name(port: &Port, usage: Use, owner: Option<&Owner>) -> l7::Name {
    let mut name = format!("{}:{}", port.service, port.port);
    // Writing into a string cannot fail.
    let _ = match (usage, port.udp) {
        (Use::Requests, _) => Ok(()),
        (Use::Bytes, udp) => write!(name, "/{}", if udp { "udp" } else { "tcp" }),
    };
    let _ = owner.map_or(Ok(()), |owner| write!(name, "@{owner}"));
    name.into()
}

/// The Service that a cluster with this name is a port of.
#[must_use]
pub fn service_of(cluster: &str) -> Option<ObjectName> {
    let (port, _) = cluster.split_once('@').unwrap_or((cluster, ""));
    let (namespace, rest) = port.split_once('/')?;
    let (name, _) = rest.split_once(':')?;
    Some(ObjectName::new(namespace, name))
}

impl ClusterName {
    pub(crate) fn name(&self) -> l7::Name {
        let Some(port) = &self.port else {
            let owner = self.owner.as_ref().map(ToString::to_string).unwrap_or_default();
            return format!("{}@{owner}", if self.usage == Use::Bytes { "tcp" } else { "" }).into();
        };
        name(port, self.usage, self.owner.as_ref())
    }
}

/// How a route uses its ports at a place.
pub(crate) fn usage(route: &Attached, place: &Place) -> (Use, Option<Owner>) {
    let usage = match (&route.content, place.protocol) {
        (Content::Requests(_), _) | (_, Protocol::Terminate) => Use::Requests,
        _ => Use::Bytes,
    };
    let own = place.shows_certificate && usage == Use::Requests;
    (usage, own.then(|| Owner::Gateway(place.gateway.clone())))
}

/// All that a route sends to.
pub(crate) fn of_route(route: &Attached) -> BTreeSet<ClusterName> {
    if !route.own.is_empty() {
        return route.own.keys().cloned().collect();
    }
    let places = route.parents.iter().flat_map(|parent| &parent.places);
    let uses: BTreeSet<_> = places.map(|place| usage(route, place)).collect();
    let names = uses.into_iter().flat_map(|(usage, owner)| {
        route.ports.iter().map(move |port| ClusterName { port: Some(port.clone()), usage, owner: owner.clone() })
    });
    names.collect()
}

/// Addresses that clusters of a route have written down.
pub(crate) fn written_addresses(route: &Attached) -> Vec<IpAddr> {
    route.own.values().flat_map(|own| &own.addresses).map(SocketAddr::ip).collect()
}

/// What clusters follow from.
pub(crate) struct Context {
    pub(crate) objects: Objects,
    pub(crate) routes: Index<Attached, ClusterName>,
    pub(crate) slices: Index<Slice, ObjectName>,
    pub(crate) policies: Policies,
    pub(crate) by_app_protocol: bool,
    pub(crate) edges: Reader<Edge>,
    pub(crate) addresses: Reader<IpEntry>,
    /// The nodes by whether they are this one, if hints count.
    pub(crate) here: Option<Index<Node, bool>>,
    pub(crate) limits: ClusterLimits,
}

/// Who has an address, if it is a pod or a node; 0 if not.
pub(crate) fn identity(addresses: &Reader<IpEntry>, ip: IpAddr) -> u32 {
    let entry = addresses.snapshot().get(&IpNet::from(ip));
    entry.map(|entry| entry.identity).filter(|identity| !identity.is_node_local()).map_or(0, |identity| identity.0)
}

/// The cluster and its endpoints, if a route leads there.
pub(crate) fn resolve(context: &Context, cluster: &ClusterName) -> Option<Vec<Object>> {
    let routes = context.routes.get(cluster);
    let own = routes.iter().find_map(|route| route.own.get(cluster));
    let Some(asked) = &cluster.port else { return Some(written(context, cluster, own?)) };
    let service = context.objects.services.snapshot().get(&asked.service)?;
    let transport = if asked.udp { Transport::Udp } else { Transport::Tcp };
    let is_port = |port: &&ServicePort| port.port == asked.port && port.protocol == transport;
    let port = service.ports.iter().find(is_port).filter(|_| !routes.is_empty())?;
    let grpc = routes.iter().all(|route| route.name.kind == RouteKind::Grpc);
    let (tls, refuse) = match cluster.usage {
        Use::Requests => tls(context, (&asked.service, port), cluster.owner.as_ref()),
        Use::Bytes => (None, None),
    };
    let name = cluster.name();
    let by_service = || if context.by_app_protocol { protocol(port, grpc) } else { BackendProtocol::Auto };
    let spoken = Cluster {
        name: Arc::clone(&name),
        protocol: own.and_then(|own| own.protocol).unwrap_or_else(by_service),
        tls,
        proxy_protocol: None,
        by_client: service.by_client,
        limits: own.map_or_else(|| context.limits.clone(), |own| own.limits.clone()),
        refuse,
    };
    let here = context.here.as_ref().and_then(|here| here.first(&true));
    let (mut endpoints, prefer_zone) = endpoints(&service, port, &context.slices.get(&service.name), here.as_deref());
    for endpoint in &mut endpoints {
        endpoint.identity = identity(&context.addresses, endpoint.address.ip());
    }
    Some(vec![spoken.into(), Endpoints { cluster: name, prefer_zone, endpoints }.into()])
}

/// A cluster whose addresses are written down: those that pods have now, of the namespace of whoever has written them if he has one.
fn written(context: &Context, cluster: &ClusterName, own: &Spoken) -> Vec<Object> {
    let spoken = Cluster {
        name: cluster.name(),
        protocol: own.protocol.unwrap_or_default(),
        tls: None,
        proxy_protocol: None,
        by_client: false,
        limits: own.limits.clone(),
        refuse: None,
    };
    let namespace = match &cluster.owner {
        Some(Owner::Config(config, _)) => &*config.name.namespace,
        Some(Owner::Gateway(_)) | None => "",
    };
    let endpoint = |address: &SocketAddr| {
        let identity = pod_at(&context.addresses, address.ip(), namespace)?.0;
        Some(l7::Endpoint { address: *address, state: l7::EndpointState::Ready, zone: None, identity })
    };
    let endpoints = own.addresses.iter().filter_map(endpoint).collect();
    let endpoints = Endpoints { cluster: Arc::clone(&spoken.name), prefer_zone: None, endpoints };
    vec![spoken.into(), endpoints.into()]
}

/// The identity of the pod that has an address, if it is of the namespace, or of any if none is given. What stands for nodes and proxies is
/// no pod here.
pub(crate) fn pod_at(addresses: &Reader<IpEntry>, ip: IpAddr, namespace: &str) -> Option<IdentityId> {
    let entry = addresses.snapshot().get(&IpNet::from(ip))?;
    let pod = entry.pod.as_ref()?;
    let its_own = !entry.identity.is_reserved() && !entry.identity.is_node_local() && !entry.node_address;
    (its_own && (namespace.is_empty() || *pod.pod.namespace == *namespace)).then_some(entry.identity)
}

/// Which HTTP is spoken at a port (KEP-3726).
fn protocol(port: &ServicePort, grpc: bool) -> BackendProtocol {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "grpc") => BackendProtocol::Http2,
        // A gRPC call needs HTTP/2, whatever is said of the port.
        Some("kubernetes.io/ws" | "http") if !grpc => BackendProtocol::Http1,
        _ => BackendProtocol::Auto,
    }
}

fn tls(
    context: &Context,
    (service, port): (&ObjectName, &ServicePort),
    owner: Option<&Owner>,
) -> (Option<BackendTls>, Option<u16>) {
    let Some(policy) = context.policies.of(service, &port.name) else { return (None, None) };
    match tls_policy::validation(&context.objects, &policy).trust {
        None => (None, Some(UNVERIFIABLE)),
        Some(trust) => {
            let edges = context.edges.snapshot();
            let edge = match owner {
                Some(Owner::Gateway(gateway)) => edges.get(gateway),
                Some(Owner::Config(..)) | None => None,
            };
            let tls = BackendTls {
                hostname: policy.spec.validation.hostname.clone(),
                names: tls_policy::names(&policy.spec),
                trust,
                certificate: edge.and_then(|edge| Some(edge.client_certificate.as_ref()?.to_string().into())),
            };
            (Some(tls), None)
        }
    }
}

/// The endpoints of a port in one family of addresses, that of the Service, and the zone of which they are preferred. One may be in two slices while it moves from one to the other;
/// what either says in its favour counts.
fn endpoints(
    service: &Service,
    port: &ServicePort,
    slices: &[Arc<Slice>],
    here: Option<&Node>,
) -> (Vec<l7::Endpoint>, Option<l7::Name>) {
    let of_port = |endpoint: &&Endpoint| endpoint.port == port.name && endpoint.protocol == port.protocol;
    let all: Vec<&Endpoint> = slices.iter().flat_map(|slice| &slice.endpoints).filter(of_port).collect();
    let preferred = all.iter().any(|endpoint| endpoint.address.is_ipv6() == service.ipv6);
    let ipv6 = service.ipv6 == preferred;
    let all: Vec<_> = all.into_iter().filter(|endpoint| endpoint.address.is_ipv6() == ipv6).collect();
    let preference = here.and_then(|here| Preference::of(here, &all));
    let mut by_address: BTreeMap<SocketAddr, l7::Endpoint> = BTreeMap::new();
    for endpoint in all {
        let (address, state) = (endpoint.address, endpoint.state);
        let zone = preference.as_ref().map_or_else(|| endpoint.zone.clone(), |one| one.zone(endpoint));
        let new = l7::Endpoint { address, state, zone, identity: 0 };
        let known = by_address.entry(address).or_insert(new);
        known.state = better(known.state, state);
    }
    (by_address.into_values().collect(), preference.map(|preference| preference.name))
}

/// Which endpoints this node prefers.
struct Preference {
    /// The zone that these are said to be in.
    name: l7::Name,
    /// They are those for this node; otherwise those for its zone.
    of_node: bool,
    hint: Arc<str>,
}

impl Preference {
    /// Hints count if each endpoint that is ready has some and one of them is for us, as they do for what pods send to Services: otherwise
    /// some endpoints would get all requests.
    fn of(here: &Node, endpoints: &[&Endpoint]) -> Option<Self> {
        let of_node = |endpoint: &Endpoint| !endpoint.hints.nodes.is_empty();
        let of_zone = |endpoint: &Endpoint| !endpoint.hints.zones.is_empty();
        let ready = || endpoints.iter().filter(|endpoint| endpoint.state == l7::EndpointState::Ready);
        let node = Self { name: format!("node {}", here.name).into(), of_node: true, hint: here.name.as_str().into() };
        if ready().all(|endpoint| of_node(endpoint)) && ready().any(|endpoint| node.is_for(endpoint)) {
            return Some(node);
        }
        let name: Arc<str> = here.labels.get(ZONE)?.as_str().into();
        let zone = Self { name: Arc::clone(&name), of_node: false, hint: name };
        (ready().all(|endpoint| of_zone(endpoint)) && ready().any(|endpoint| zone.is_for(endpoint))).then_some(zone)
    }

    fn is_for(&self, endpoint: &Endpoint) -> bool {
        let hints = if self.of_node { &endpoint.hints.nodes } else { &endpoint.hints.zones };
        hints.contains(&self.hint)
    }

    /// The zone that an endpoint is to serve.
    fn zone(&self, endpoint: &Endpoint) -> Option<l7::Name> {
        if self.is_for(endpoint) {
            return Some(Arc::clone(&self.name));
        }
        endpoint.zone.clone().filter(|zone| *zone != self.name)
    }
}

fn better(a: l7::EndpointState, b: l7::EndpointState) -> l7::EndpointState {
    use l7::EndpointState::{Ready, Terminating, Unready};
    match (a, b) {
        (Ready, _) | (_, Ready) => Ready,
        (Terminating, _) | (_, Terminating) => Terminating,
        (Unready, Unready) => Unready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_cluster_tells_its_service() {
        let port = Port { service: ObjectName::new("shop", "cart"), port: 8080, udp: false };
        let gateway = Owner::Gateway(ObjectName::new("edge", "public"));
        let config = Owner::Config(RouteName::config(&ObjectName::new("shop", "canary")), "shop/cart:80".into());
        for (usage, owner) in
            [(Use::Requests, None), (Use::Requests, Some(&gateway)), (Use::Requests, Some(&config)), (Use::Bytes, None)]
        {
            assert_eq!(service_of(&name(&port, usage, owner)), Some(port.service.clone()));
        }
        for usage in [Use::Requests, Use::Bytes] {
            let written = ClusterName { port: None, usage, owner: Some(config.clone()) };
            assert_eq!(service_of(&written.name()), None, "{written:?}");
        }
        assert_eq!(service_of("bytes"), None);
    }
}
