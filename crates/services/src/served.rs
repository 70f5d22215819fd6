// SPDX-License-Identifier: Apache-2.0
//! Services as this node serves them: the table `served-services`. A row is all that follows from one Service, so that its frontends
//! never disagree about its endpoints, and share them.

use crate::Config;
use crate::endpoints::{self, Candidates, Topology};
use crate::here::{Here, Sources};
use crate::ids::Ids;
use crate::ingest::{EndpointSlice, Service, ServicePort, limits};
use k8s::kube::core::SelectorExt as _;
use model::{
    Backend, BackendId, BackendState, Frontend, FrontendKey, L4Addr, Scope, ServiceKind, ServiceName, TrafficPolicy,
};
use parking_lot::Mutex;
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A Service as this node serves it. One row per Service of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) name: ServiceName,
    /// When its object was made, in seconds since 1970: of two that claim an address the older has it.
    pub(crate) created: i64,
    /// Its frontends without numbers, in no order, and without regard to who else claims their addresses.
    pub(crate) frontends: Vec<Frontend>,
    /// What load balancers are told of it.
    pub(crate) health: Option<HealthCheck>,
    /// All lists of backends, each of which counts as a user of their numbers.
    pub(crate) lists: Vec<Arc<[Backend]>>,
    /// Ports at an address that this node does not have.
    pub(crate) elsewhere: Vec<L4Addr>,
}

impl statedb::Row for Served {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

impl Served {
    pub(crate) const fn new(name: ServiceName) -> Self {
        Self { name, created: 0, frontends: Vec::new(), health: None, lists: Vec::new(), elsewhere: Vec::new() }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = FrontendKey> + '_ {
        self.frontends.iter().map(|frontend| frontend.key)
    }
}

/// Whether a Service has endpoints here for traffic from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    /// Where that is asked.
    pub(crate) port: u16,
    /// How many.
    pub(crate) local_endpoints: usize,
}

/// Numbers of backends, for all who name some.
pub(crate) type BackendNumbers = Arc<Mutex<Ids<L4Addr>>>;

/// The tables that it follows from.
pub(crate) struct Tables {
    pub(crate) services: Reader<Service>,
    pub(crate) slices: Reader<EndpointSlice>,
    pub(crate) here: Sources,
}

/// Keeps the table equal to what follows from Services, EndpointSlices and this node.
///
/// It is empty before all are complete: a Service without its slices would look like one without backends, and the pinned
/// maps, which are still right, would be emptied.
pub(crate) fn derive(tasks: &Tasks, config: &Config, tables: &Tables, numbers: BackendNumbers) -> Derived<Served> {
    let all = |services: &Reader<Service>| {
        let services = services.clone();
        move || services.snapshot().iter().map(|service| service.name.clone()).collect::<Vec<_>>()
    };
    let (of_node, of_address, own_name) = (all(&tables.services), all(&tables.services), tables.here.name.clone());
    let inputs = Inputs::of(&tables.services, |service: &Service| [service.name.clone()])
        .and(&tables.slices, |slice| [slice.service.clone()])
        .and(&tables.here.nodes, move |node| if statedb::Row::key(node) == own_name { of_node() } else { Vec::new() })
        .and(&tables.here.addresses, move |_| of_address());
    let resolver = Resolver {
        config: config.clone(),
        services: tables.services.clone(),
        slices: tables.slices.index(|slice| [slice.service.clone()]),
        here: tables.here.clone(),
    };
    statedb::derive(tasks, "served-services", inputs, move |name, before| {
        let numbers = &mut *numbers.lock();
        let row = resolver.resolve(name, numbers);
        // Only now, so that a backend which stays keeps its number.
        before.into_iter().for_each(|before| release(before, numbers));
        row
    })
}

/// The row lets go of its backends.
pub(crate) fn release(row: &Served, numbers: &mut Ids<L4Addr>) {
    row.lists.iter().flat_map(|list| list.iter()).for_each(|backend| numbers.release(&backend.addr));
}

struct Resolver {
    config: Config,
    services: Reader<Service>,
    slices: Index<EndpointSlice, ServiceName>,
    here: Sources,
}

impl Resolver {
    fn resolve(&self, name: &ServiceName, numbers: &mut Ids<L4Addr>) -> Option<Served> {
        let service = self.services.snapshot().get(name)?;
        let slices = self.slices.get(name);
        let here = self.here.here();
        let mut served = Served { created: service.created, ..Served::new(name.clone()) };
        if !service.nodes.matches(&here.labels) {
            return Some(served);
        }
        served.health = self.health(&service, &slices, &here);
        let most = most_backends(&service, &here);
        for port in &service.ports {
            for ipv4 in [true, false] {
                if service.cluster_ips.iter().any(|ip| ip.is_ipv4() == ipv4) {
                    let candidates = endpoints::candidates(port, ipv4, &slices, most);
                    let lists = Lists::of(&self.config, &candidates, &here, most, numbers);
                    served.frontends.extend(self.frontends(&service, port, ipv4, &here, &lists));
                    served.lists.extend([lists.cluster, lists.local]);
                }
            }
        }
        Some(served)
    }

    fn health(&self, service: &Service, slices: &[Arc<EndpointSlice>], here: &Here) -> Option<HealthCheck> {
        let port = service.health_check_node_port.filter(|_| self.config.exposes() && self.config.health_checks)?;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let local: BTreeSet<_> = endpoints.filter(|e| e.ready && here.is_mine(e)).map(|e| e.ip).collect();
        Some(HealthCheck { port, local_endpoints: local.len() })
    }

    /// The frontends of one port in one family.
    fn frontends<'a>(
        &'a self,
        service: &'a Service,
        port: &'a ServicePort,
        ipv4: bool,
        here: &'a Here,
        lists: &'a Lists,
    ) -> impl Iterator<Item = Frontend> + 'a {
        let places = places(service, port, here).into_iter().filter(move |place| {
            let wanted = service.only.is_none_or(|kind| kind == place.kind);
            let ours = place.kind == ServiceKind::ClusterIp || self.config.exposes();
            wanted && ours && place.ip.is_ipv4() == ipv4
        });
        places.flat_map(move |place| {
            let inside = place.kind != ServiceKind::ClusterIp && service.external_policy == TrafficPolicy::Local;
            let scopes = [Some(Scope::External), inside.then_some(Scope::Internal)];
            scopes.into_iter().flatten().map(move |scope| {
                let key = FrontendKey { addr: place.addr(port), scope };
                self.frontend(service, port, place.kind, key, lists)
            })
        })
    }

    fn frontend(
        &self,
        service: &Service,
        port: &ServicePort,
        kind: ServiceKind,
        key: FrontendKey,
        lists: &Lists,
    ) -> Frontend {
        let config = &self.config;
        let policy = match (kind, key.scope) {
            (ServiceKind::ClusterIp, _) => service.internal_policy,
            (_, Scope::External) => service.external_policy,
            (_, Scope::Internal | Scope::Unredirected) => TrafficPolicy::Cluster,
        };
        let exposed = kind != ServiceKind::ClusterIp || (config.exposes() && config.external_cluster_ip);
        let ranged = kind == ServiceKind::LoadBalancer || (exposed && config.ranges_of_all_kinds);
        let local = policy == TrafficPolicy::Local;
        Frontend {
            port_name: port.name.clone(),
            kind,
            exposed,
            // An external address is whatever the author of the Service wrote: its other ports are somebody else's.
            owns_address: matches!(kind, ServiceKind::ClusterIp | ServiceKind::LoadBalancer),
            external_policy: service.external_policy,
            internal_policy: service.internal_policy,
            two_scopes: kind != ServiceKind::ClusterIp && service.external_policy == TrafficPolicy::Local,
            // A Service that nobody serves refuses, whatever the policy; one that is served elsewhere is silent here.
            local_only: local && (serves(&lists.cluster) || serves(&lists.local)),
            affinity: service.affinity,
            source_ranges: service.source_ranges.clone().filter(|_| ranged),
            algorithm: service.algorithm.unwrap_or(config.algorithm),
            forwarding: service.forwarding.unwrap_or_else(|| config.forwarding.of(port.protocol)),
            health_check_node_port: service.health_check_node_port,
            ..Frontend::new(key, 0, service.name.clone(), if local { &lists.local } else { &lists.cluster }.clone())
        }
    }
}

/// An address at which a Service is reached.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: ServiceKind,
    ip: IpAddr,
    port: u16,
}

impl Place {
    const fn addr(self, port: &ServicePort) -> L4Addr {
        L4Addr { ip: self.ip, port: self.port, protocol: port.protocol }
    }
}

/// Where the port of a Service is reached, in both families. Ports of nodes are also at the unspecified address, which stands for
/// all other nodes.
fn places(service: &Service, port: &ServicePort, here: &Here) -> Vec<Place> {
    let at = |kind, ips: &[IpAddr], port: u16| ips.iter().map(|ip| Place { kind, ip: *ip, port }).collect::<Vec<_>>();
    let mut places = at(ServiceKind::ClusterIp, &service.cluster_ips, port.port);
    places.extend(at(ServiceKind::LoadBalancer, &service.load_balancer_ips, port.port));
    places.extend(at(ServiceKind::ExternalIps, &service.external_ips, port.port));
    if let Some(node_port) = port.node_port {
        let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        places.extend(at(ServiceKind::NodePort, &here.node_port_ips, node_port));
        places.extend(at(ServiceKind::NodePort, &unspecified, node_port));
    }
    places
}

/// How many backends the Service may have at each of its frontends.
pub(crate) fn most_backends(service: &Service, here: &Here) -> usize {
    let scopes = if service.external_policy == TrafficPolicy::Local { 2 } else { 1 };
    let places: usize = service.ports.iter().map(|port| places(service, port, here).len()).sum();
    limits::backends(places * scopes)
}

/// Whether one of them takes new connections.
fn serves(backends: &[Backend]) -> bool {
    backends.iter().any(|backend| matches!(backend.state, BackendState::Active | BackendState::Terminating))
}

/// The backends of one port in one family, by traffic policy.
struct Lists {
    cluster: Arc<[Backend]>,
    local: Arc<[Backend]>,
}

impl Lists {
    fn of(config: &Config, candidates: &Candidates, here: &Here, most: usize, numbers: &mut Ids<L4Addr>) -> Self {
        let topology = Topology::of(config, candidates, here);
        let mut list = |policy| {
            let judged = endpoints::judge(candidates, policy, topology, here, most);
            let backends = judged.filter_map(|(addr, endpoint, state)| {
                let (state, id) = (state.ok()?, BackendId(numbers.claim(addr)));
                let (node, zone) = (endpoint.node.clone(), endpoint.zone.clone());
                Some(Backend { node, zone, ..Backend::new(id, *addr, state) })
            });
            backends.collect()
        };
        Self { cluster: list(TrafficPolicy::Cluster), local: list(TrafficPolicy::Local) }
    }
}
