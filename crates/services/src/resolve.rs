// SPDX-License-Identifier: Apache-2.0
//! What this node serves to the table of frontends: each address has one frontend. It knows no map and no clock. What it says of an
//! address depends on the present rows only, never on the order in which they came; the numbers it gives out are the one exception.

use crate::ids::Ids;
use crate::served::Served;
use model::{Frontend, FrontendKey, L4Addr, Node, NodeAddress, Protocol, ServiceKind};
use parking_lot::Mutex;
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::net::IpAddr;
use std::sync::Arc;
use tracing::warn;

/// Ports of nodes that no author of an object can take: API server, kubelet, kube-proxy's health check, and our own for probes, flows,
/// metrics and the tunnel, by their defaults.
const NODES_OWN: [(u16, Protocol); 7] = [
    (6443, Protocol::Tcp),
    (10250, Protocol::Tcp),
    (10256, Protocol::Tcp),
    (4240, Protocol::Tcp),
    (4244, Protocol::Tcp),
    (9962, Protocol::Tcp),
    (8472, Protocol::Udp),
];

/// Numbers of services.
pub(crate) type ServiceNumbers = Arc<Mutex<Ids<FrontendKey>>>;

/// The tables that frontends follow from.
pub(crate) struct Tables {
    pub(crate) services: Reader<Served>,
    pub(crate) pods: Reader<Served>,
    pub(crate) nodes: Reader<Node>,
    pub(crate) addresses: Reader<NodeAddress>,
}

/// Keeps the table of frontends equal to what Services and pods of this node claim.
pub(crate) fn derive(tasks: &Tasks, tables: &Tables, numbers: ServiceNumbers) -> Derived<Frontend> {
    let keys = |served: &Served| served.keys().collect::<Vec<_>>();
    let at_node = keys_at(tables);
    let at_address = keys_at(tables);
    let inputs = Inputs::of(&tables.services, keys)
        .and(&tables.pods, keys)
        .and(&tables.nodes, move |node| ips_of(node).into_iter().flat_map(&at_node).collect::<Vec<_>>())
        .and(&tables.addresses, move |address| at_address(address.address));
    let resolver = Resolver {
        services: tables.services.index(keys),
        pods: tables.pods.index(keys),
        nodes: tables.nodes.index(ips_of),
        addresses: tables.addresses.index(|address| [address.address]),
        numbers,
    };
    statedb::derive(tasks, "frontends", inputs, move |key, before| resolver.resolve(*key, before))
}

/// The frontends that are claimed at an address.
fn keys_at(tables: &Tables) -> impl Fn(IpAddr) -> Vec<FrontendKey> + Send + 'static {
    let ips = |served: &Served| served.keys().map(|key| key.addr.ip).collect::<Vec<_>>();
    let claims = [tables.services.index(ips), tables.pods.index(ips)];
    move |ip| {
        let served = claims.iter().flat_map(|index| index.get(&ip));
        served.flat_map(|served| served.keys().filter(|key| key.addr.ip == ip).collect::<Vec<_>>()).collect()
    }
}

fn ips_of(node: &Node) -> Vec<IpAddr> {
    node.internal_ips.iter().chain(&node.external_ips).copied().collect()
}

struct Resolver {
    services: Index<Served, FrontendKey>,
    pods: Index<Served, FrontendKey>,
    nodes: Index<Node, IpAddr>,
    addresses: Index<NodeAddress, IpAddr>,
    numbers: ServiceNumbers,
}

impl Resolver {
    fn resolve(&self, key: FrontendKey, before: Option<&Frontend>) -> Option<Frontend> {
        let numbers = &mut *self.numbers.lock();
        let frontend = self.claimed(key).map(|frontend| Frontend {
            id: numbers.claim(&key),
            owns_address: frontend.owns_address && !self.is_node(key.addr.ip),
            ..frontend
        });
        // Only now, so that a frontend which stays keeps its number.
        if before.is_some() {
            numbers.release(&key);
        }
        frontend
    }

    /// What the first of those who claim it wants there.
    fn claimed(&self, key: FrontendKey) -> Option<Frontend> {
        let claims = [self.services.get(&key), self.pods.get(&key)].concat();
        let claims = claims.iter().flat_map(|served| served.frontends.iter().filter(|f| f.key == key));
        let (refused, mut claims): (Vec<&Frontend>, Vec<_>) = claims.partition(|claim| self.is_reserved(claim));
        if let Some(claim) = refused.first() {
            warn!(frontend = %key, service = %claim.service, "a port of the nodes' own cannot be taken by an external address or a host port");
        }
        claims.sort_by_key(|claim| (rank(claim.kind), &claim.service));
        let first = *claims.first()?;
        if claims.iter().any(|claim| claim.service != first.service) {
            let names: Vec<_> = claims.iter().map(|claim| claim.service.to_string()).collect();
            warn!(frontend = %key, services = names.join(", "), "Services claim the same address; the first one keeps it");
        }
        Some(first.clone())
    }

    /// Whether it asks for what keeps the cluster together, which would then speak to the author's pods.
    fn is_reserved(&self, claim: &Frontend) -> bool {
        let L4Addr { ip, port, protocol } = claim.key.addr;
        let anybodys = matches!(claim.kind, ServiceKind::ExternalIps | ServiceKind::HostPort);
        anybodys && NODES_OWN.contains(&(port, protocol)) && self.is_node(ip)
    }

    /// Whether it is the address of a node, which is more than a Service's.
    fn is_node(&self, ip: IpAddr) -> bool {
        !self.addresses.get(&ip).is_empty() || !self.nodes.get(&ip).is_empty()
    }
}

/// Who is given an address that several claim: what the API server or a controller has allocated, before what any author of an object may
/// write into it.
const fn rank(kind: ServiceKind) -> u8 {
    match kind {
        ServiceKind::LocalRedirect => 0,
        ServiceKind::ClusterIp => 1,
        ServiceKind::NodePort => 2,
        ServiceKind::LoadBalancer => 3,
        ServiceKind::ExternalIps => 4,
        ServiceKind::HostPort => 5,
    }
}

#[cfg(test)]
mod tests;
