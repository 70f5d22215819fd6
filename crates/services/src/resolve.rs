// SPDX-License-Identifier: Apache-2.0
//! What this node serves to the table of frontends: each address has one frontend. It knows no map and no clock. What it says of an
//! address depends on the present rows only, never on the order in which they came; the numbers it gives out are the one exception.

use crate::Config;
use crate::ids::Ids;
use crate::ingest::EndpointSlice;
use crate::owned::{self, Owned};
use crate::served::Served;
use ipnet::IpNet;
use model::{Frontend, FrontendKey, Node, NodeAddress, Scope, ServiceKind};
use parking_lot::Mutex;
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::net::IpAddr;
use std::sync::Arc;
use tracing::warn;

pub(crate) type ServiceNumbers = Arc<Mutex<Ids<FrontendKey>>>;

/// The tables that frontends follow from.
pub(crate) struct Tables {
    pub(crate) services: Reader<Served>,
    pub(crate) pods: Reader<Served>,
    pub(crate) redirects: Reader<Served>,
    pub(crate) intercepts: Reader<Served>,
    pub(crate) slices: Reader<EndpointSlice>,
    pub(crate) nodes: Reader<Node>,
    pub(crate) addresses: Reader<NodeAddress>,
}

/// Keeps the table of frontends equal to what Services and pods of this node claim.
pub(crate) fn derive(tasks: &Tasks, config: &Config, tables: &Tables, numbers: ServiceNumbers) -> Derived<Frontend> {
    let keys = |served: &Served| served.keys().collect::<Vec<_>>();
    let at_ip = keys_at(tables);
    let (at_cluster_ip, at_node, at_api_server, at_address) = (at_ip.clone(), at_ip.clone(), at_ip.clone(), at_ip);
    let named = named_keys(tables);
    let inputs = Inputs::of(&tables.services, move |served: &Served| {
        let others = cluster_ips(served).into_iter().flat_map(&at_cluster_ip).collect::<Vec<_>>();
        [keys(served), others].concat()
    })
    .and(&tables.pods, keys)
    .and(&tables.redirects, keys)
    .and(&tables.intercepts, keys)
    .and(&tables.nodes, move |node| {
        let among_pods = owned::pod_prefixes(node).into_iter().flat_map(&named);
        owned::ips_of(node).into_iter().flat_map(&at_node).chain(among_pods).collect::<Vec<_>>()
    })
    .and(&tables.slices, move |slice| {
        owned::api_servers(slice).into_iter().flat_map(|addr| at_api_server(addr.ip)).collect::<Vec<_>>()
    })
    .and(&tables.addresses, move |address| at_address(address.address));
    let resolver = Resolver {
        services: tables.services.index(keys),
        pods: tables.pods.index(keys),
        redirects: tables.redirects.index(keys),
        intercepts: tables.intercepts.index(keys),
        cluster_ips: tables.services.index(cluster_ips),
        owned: Owned::new(&tables.nodes, &tables.slices, config),
        addresses: tables.addresses.index(|address| [address.address]),
        numbers,
    };
    statedb::derive(tasks, "frontends", inputs, move |key, before| resolver.resolve(*key, before))
}

/// The frontends that are claimed at an address.
fn keys_at(tables: &Tables) -> impl Fn(IpAddr) -> Vec<FrontendKey> + Clone + Send + 'static {
    let ips = |served: &Served| served.keys().map(|key| key.addr.ip).collect::<Vec<_>>();
    let claims = [&tables.services, &tables.pods, &tables.redirects, &tables.intercepts].map(|table| table.index(ips));
    move |ip| {
        let served = claims.iter().flat_map(|index| index.get(&ip));
        served.flat_map(|served| served.keys().filter(|key| key.addr.ip == ip).collect::<Vec<_>>()).collect()
    }
}

/// The frontends of a prefix at addresses that the author of an object has named. Few objects name any.
fn named_keys(tables: &Tables) -> impl Fn(IpNet) -> Vec<FrontendKey> + Send + 'static {
    let is_named = |frontend: &&Frontend| frontend.kind == ServiceKind::ExternalIps || is_redirected_address(frontend);
    let any = move |served: &Served| served.frontends.iter().any(|frontend| is_named(&frontend)).then_some(());
    let all = [tables.services.index(any), tables.redirects.index(any)];
    move |prefix| {
        let served: Vec<_> = all.iter().flat_map(|index| index.get(&())).collect();
        let named = served.iter().flat_map(|served| served.frontends.iter().filter(is_named));
        named.map(|frontend| frontend.key).filter(|key| prefix.contains(&key.addr.ip)).collect()
    }
}

/// Whether a policy redirects an address of which it says that it is no Service's.
fn is_redirected_address(claim: &Frontend) -> bool {
    claim.kind == ServiceKind::LocalRedirect && !claim.owns_address
}

fn cluster_ips(served: &Served) -> Vec<IpAddr> {
    let frontends = served.frontends.iter().filter(|frontend| frontend.kind == ServiceKind::ClusterIp);
    frontends.map(|frontend| frontend.key.addr.ip).collect()
}

struct Resolver {
    services: Index<Served, FrontendKey>,
    pods: Index<Served, FrontendKey>,
    redirects: Index<Served, FrontendKey>,
    intercepts: Index<Served, FrontendKey>,
    cluster_ips: Index<Served, IpAddr>,
    owned: Owned,
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
        let claims =
            [&self.services, &self.pods, &self.redirects, &self.intercepts].map(|index| index.get(&key)).concat();
        let claims =
            claims.iter().flat_map(|served| served.frontends.iter().map(|frontend| (served.created, frontend)));
        let claims = claims.filter(|(_, frontend)| frontend.key == key);
        let (refused, mut claims): (Vec<_>, Vec<_>) = claims.partition(|(_, claim)| self.is_reserved(claim));
        if let Some((_, claim)) = refused.first() {
            warn!(frontend = %key, service = %claim.service, "an address of the cluster itself cannot be taken by naming it");
        }
        claims.sort_by_key(|(created, claim)| (rank(claim.kind), *created, &claim.service));
        let (_, first) = *claims.first()?;
        // A redirect takes the place of the Service that it names.
        let is_rival = |claim: &Frontend| first.kind != ServiceKind::LocalRedirect || claim.kind == first.kind;
        if claims.iter().any(|(_, claim)| claim.service != first.service && is_rival(claim)) {
            let names: Vec<_> = claims.iter().map(|(_, claim)| claim.service.to_string()).collect();
            warn!(frontend = %key, services = names.join(", "), "Services claim the same address; the first one keeps it");
        }
        Some(first.clone())
    }

    /// Whether it asks for what the cluster itself has there, which would then speak to the author's pods.
    fn is_reserved(&self, claim: &Frontend) -> bool {
        let addr = &claim.key.addr;
        let of_node = || owned::is_nodes_own(addr) && self.is_node(addr.ip);
        match claim.kind {
            ServiceKind::ExternalIps => of_node() || self.owned.owner(addr).is_some() || self.is_of_another(claim),
            // By its class the load balancer of a Service may be the nodes themselves, at any port that its author names.
            ServiceKind::LoadBalancer | ServiceKind::HostPort => of_node(),
            ServiceKind::LocalRedirect if is_redirected_address(claim) => {
                self.is_node(addr.ip) || self.owned.owner(addr).is_some() || self.is_of_a_service(claim.key)
            }
            ServiceKind::LocalRedirect => !self.is_of_its_namespace(claim),
            ServiceKind::ClusterIp if claim.key.scope == Scope::Unredirected => !self.is_of_its_namespace(claim),
            _ => false,
        }
    }

    /// Whether the address is the cluster address of another Service, be it at another port.
    fn is_of_another(&self, claim: &Frontend) -> bool {
        self.cluster_ips.get(&claim.key.addr.ip).iter().any(|served| served.name != claim.service)
    }

    /// Whether a Service of the claim's namespace has the cluster address: the one that it was made for may be gone, and another have it.
    fn is_of_its_namespace(&self, claim: &Frontend) -> bool {
        let namespace = &claim.service.namespace;
        self.cluster_ips.get(&claim.key.addr.ip).iter().any(|served| served.name.namespace == *namespace)
    }

    /// Whether a Service is served there, or has the cluster address.
    fn is_of_a_service(&self, key: FrontendKey) -> bool {
        !(self.services.get(&key).is_empty() && self.cluster_ips.get(&key.addr.ip).is_empty())
    }

    /// Whether it is the address of a node, which is more than a Service's.
    fn is_node(&self, ip: IpAddr) -> bool {
        !self.addresses.get(&ip).is_empty() || self.owned.is_node(ip)
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
