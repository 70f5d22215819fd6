// SPDX-License-Identifier: Apache-2.0
//! What policy writes to the ipcache: the identity of each address in the cluster, and the node it is behind, derived
//! from pods, nodes, and the prefixes in policies. Pure.

mod claims;
mod index;

use crate::resolve::Families;
use claims::{Claimant, Claims};
use index::Index;
use ipnet::IpNet;
use model::{
    Endpoint, EndpointId, IdentityId, IpEntry, IpSource, LocalNode, MeshPod, Node, NodeName, RemoteEndpoint,
    RoutingMode, reserved,
};
use statedb::Row;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Configuration that entries depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Address families.
    pub families: Families,
    /// Name of this cluster.
    pub cluster: Arc<str>,
    /// Prefixes to which traffic keeps its source address (`ipv4-native-routing-cidr`, `ipv6-native-routing-cidr`).
    pub native_cidrs: Vec<IpNet>,
}

/// See the module. Takes changes one by one; [`changes`](Self::changes) returns the result.
#[derive(Debug)]
pub(crate) struct Addresses {
    settings: Settings,
    claims: Claims,
    local: Option<LocalNode>,
    /// All addresses of this node.
    own: BTreeSet<IpAddr>,
    nodes: BTreeMap<NodeName, Node>,
    /// Nodes by their internal addresses.
    nodes_at: Index<NodeName>,
    pods: BTreeMap<MeshPod, RemoteEndpoint>,
    /// Pods by the node address they name.
    pods_behind: Index<MeshPod>,
    /// Number of pods with each identity.
    carriers: BTreeMap<IdentityId, usize>,
    endpoints: BTreeMap<EndpointId, (Endpoint, IdentityId)>,
    prefixes: BTreeMap<IpNet, IdentityId>,
    api_servers: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Contains the world, and nothing else.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        let mut addresses = Self {
            settings,
            claims: Claims::default(),
            local: None,
            own: BTreeSet::new(),
            nodes: BTreeMap::new(),
            nodes_at: Index::default(),
            pods: BTreeMap::new(),
            pods_behind: Index::default(),
            carriers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            api_servers: BTreeSet::new(),
        };
        addresses.set_prefixes([]);
        addresses
    }

    /// What has changed since the last call: prefixes with their entry, or without one.
    pub(crate) fn changes(&mut self) -> Vec<(IpNet, Option<IpEntry>)> {
        self.claims.changes()
    }

    /// All entries.
    #[cfg(test)]
    fn entries(&self) -> impl Iterator<Item = IpEntry> {
        self.claims.entries()
    }

    /// Sets the facts about this node. Its routing mode affects every entry.
    pub(crate) fn set_local_node(&mut self, node: LocalNode) {
        if self.local.as_ref() == Some(&node) {
            return;
        }
        let main = node.ipv4.map(IpAddr::V4).into_iter().chain(node.ipv6.map(IpAddr::V6));
        self.own = main.chain(node.addresses.iter().copied()).collect();
        self.local = Some(node);
        self.claim_all();
    }

    /// Adds or updates a node.
    pub(crate) fn upsert_node(&mut self, node: Node) {
        self.claim_node(&node);
        let mut ips = node.internal_ips.clone();
        let name = node.key();
        let old = self.nodes.insert(name.clone(), node).map(|old| old.internal_ips);
        if old.as_ref() != Some(&ips) {
            let old = old.unwrap_or_default();
            self.nodes_at.replace(&name, &old, &ips);
            ips.extend(old);
            self.claim_pods_behind(ips);
        }
    }

    pub(crate) fn remove_node(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.remove(name) {
            self.claims.set(Claimant::Node(name.clone()), Vec::new());
            self.nodes_at.replace(name, &node.internal_ips, []);
            self.claim_pods_behind(node.internal_ips);
        }
    }

    /// Adds or updates a pod of the cluster.
    pub(crate) fn upsert_pod(&mut self, pod: RemoteEndpoint) {
        self.claim_pod(&pod);
        let (name, host) = (pod.key(), pod.host);
        *self.carriers.entry(pod.identity).or_default() += 1;
        let old = self.pods.insert(name.clone(), pod);
        if let Some(old) = &old {
            self.carries_no_more(old.identity);
        }
        let old = old.and_then(|old| old.host);
        if old != host {
            self.pods_behind.replace(&name, &old, &host);
        }
    }

    /// Removes a pod of the cluster.
    pub(crate) fn remove_pod(&mut self, pod: &MeshPod) {
        if let Some(old) = self.pods.remove(pod) {
            self.pods_behind.replace(pod, &old.host, []);
            self.carries_no_more(old.identity);
        }
        self.claims.set(Claimant::Pod(pod.clone()), Vec::new());
    }

    fn carries_no_more(&mut self, identity: IdentityId) {
        if let Some(count) = self.carriers.get_mut(&identity) {
            *count -= 1;
            if *count == 0 {
                self.carriers.remove(&identity);
            }
        }
    }

    /// Whether any known pod of the cluster has the identity.
    pub(crate) fn is_carried(&self, identity: IdentityId) -> bool {
        self.carriers.contains_key(&identity)
    }

    /// Sets the identity of a pod on this node.
    pub(crate) fn upsert_endpoint(&mut self, endpoint: Endpoint, identity: IdentityId) {
        self.claim_endpoint(&endpoint, identity);
        self.endpoints.insert(endpoint.id, (endpoint, identity));
    }

    /// Removes a pod of this node.
    pub(crate) fn remove_endpoint(&mut self, id: EndpointId) {
        self.endpoints.remove(&id);
        self.claims.set(Claimant::Endpoint(id), Vec::new());
    }

    /// Sets the addresses of API servers: a node that runs one has that identity.
    pub(crate) fn set_api_servers(&mut self, addresses: BTreeSet<IpAddr>) {
        if self.api_servers != addresses {
            self.api_servers = addresses;
            for node in self.nodes.values().cloned().collect::<Vec<_>>() {
                self.claim_node(&node);
            }
        }
    }

    /// Sets the prefixes that policies name.
    pub(crate) fn set_prefixes(&mut self, prefixes: impl IntoIterator<Item = (IpNet, IdentityId)>) {
        let prefixes: BTreeMap<_, _> = self.settings.families.defaults().chain(prefixes).collect();
        if prefixes == self.prefixes {
            return;
        }
        let old = std::mem::replace(&mut self.prefixes, prefixes);
        for gone in old.keys().filter(|prefix| !self.prefixes.contains_key(*prefix)).copied().collect::<Vec<_>>() {
            self.claims.set(Claimant::Prefix(gone), Vec::new());
        }
        self.claim_prefixes();
    }

    fn claim_all(&mut self) {
        self.claim_prefixes();
        self.claim_local_node();
        for node in self.nodes.values().cloned().collect::<Vec<_>>() {
            self.claim_node(&node);
        }
        for pod in self.pods.values().cloned().collect::<Vec<_>>() {
            self.claim_pod(&pod);
        }
        for (endpoint, identity) in self.endpoints.values().cloned().collect::<Vec<_>>() {
            self.claim_endpoint(&endpoint, identity);
        }
    }

    fn claim_prefixes(&mut self) {
        for (prefix, identity) in self.prefixes.clone() {
            let entry = self.entry(prefix, identity, IpSource::Generated);
            self.claims.set(Claimant::Prefix(prefix), vec![entry]);
        }
        // A native prefix must not hide the identity of the wider prefix that a policy names.
        for prefix in self.settings.native_cidrs.clone() {
            let covering = self.prefixes.iter().filter(|(wider, _)| wider.contains(&prefix));
            let Some((_, identity)) = covering.max_by_key(|(wider, _)| wider.prefix_len()) else { continue };
            let entry = self.entry(prefix, *identity, IpSource::Generated);
            self.claims.set(Claimant::Native(prefix), vec![entry]);
        }
    }

    fn claim_local_node(&mut self) {
        let Some(local) = &self.local else { return };
        let routers = local.router_ipv4.map(IpAddr::V4).into_iter().chain(local.router_ipv6.map(IpAddr::V6));
        let own = [local.ipv4.map(IpAddr::V4), local.ipv6.map(IpAddr::V6)].into_iter().flatten();
        let all = local.addresses.iter().copied().chain(routers).chain(own);
        let entries =
            all.filter(|ip| !is_link_local(ip)).map(|ip| self.node_entry(ip, reserved::HOST, IpSource::Local));
        let entries = entries.collect();
        self.claims.set(Claimant::LocalNode, entries);
    }

    fn claim_node(&mut self, node: &Node) {
        let source = IpSource::CustomResource;
        let mut entries = Vec::new();
        if node.local {
            entries.extend(node.health_ips.iter().map(|ip| self.node_entry(*ip, reserved::HEALTH, source)));
        } else {
            let identity = if node.identity.0 == 0 { reserved::REMOTE_NODE } else { node.identity };
            let host = self.address_of(node);
            let tunnel = host.filter(|_| self.routing() == Some(RoutingMode::Tunnel));
            let direct = node.internal_ips.iter().chain(&node.external_ips);
            entries.extend(direct.map(|ip| {
                let identity = if self.api_servers.contains(ip) { reserved::KUBE_APISERVER } else { identity };
                let tunnel = tunnel.filter(|address| address != ip);
                IpEntry { host, tunnel, node_address: true, ..self.node_entry(*ip, identity, source) }
            }));
            // Under these the node's own programs speak to pods, an API server's webhook calls among them.
            let serves_api =
                self.api_servers.iter().any(|ip| node.internal_ips.contains(ip) || node.external_ips.contains(ip));
            let own = if serves_api { reserved::KUBE_APISERVER } else { identity };
            let inner = node.cilium_internal_ips.iter().map(|ip| (*ip, own));
            let inner = inner.chain(node.health_ips.iter().map(|ip| (*ip, reserved::HEALTH)));
            entries.extend(inner.map(|(ip, id)| IpEntry { host, tunnel, ..self.node_entry(ip, id, source) }));
            entries.extend(self.pods_not_told_yet(node, host, tunnel));
        }
        self.claims.set(Claimant::Node(node.key()), entries);
    }

    /// A pod that its node has not announced yet is reached through the tunnel like any other, under the sender's own
    /// identity; for policy it is part of the world until its identity is known.
    fn pods_not_told_yet<'a>(
        &'a self,
        node: &'a Node,
        host: Option<IpAddr>,
        tunnel: Option<IpAddr>,
    ) -> impl Iterator<Item = IpEntry> + 'a {
        node.pod_cidrs.iter().filter(move |_| tunnel.is_some()).map(move |prefix| IpEntry {
            prefix: *prefix,
            identity: self.settings.families.world(prefix),
            tunnel,
            host,
            node_address: false,
            no_masquerade: false,
            source: IpSource::CustomResource,
            pod: None,
        })
    }

    /// Pods whose node has one of these addresses; they may name a different one than the tunnel uses.
    fn claim_pods_behind(&mut self, ips: Vec<IpAddr>) {
        for pod in self.pods_at(ips) {
            self.claim_pod(&pod);
        }
    }

    fn pods_at(&self, ips: Vec<IpAddr>) -> Vec<RemoteEndpoint> {
        let ips: BTreeSet<IpAddr> = ips.into_iter().collect();
        let names = ips.into_iter().flat_map(|ip| self.pods_behind.at(ip));
        names.filter_map(|name| self.pods.get(name)).cloned().collect()
    }

    fn claim_pod(&mut self, pod: &RemoteEndpoint) {
        let here = pod.host.is_none_or(|host| self.is_local(host));
        let host = pod.host.map(|host| self.reach(host));
        let tunnel = host.filter(|_| !here && self.routing() == Some(RoutingMode::Tunnel));
        let ips = pod.ipv4.map(IpAddr::V4).into_iter().chain(pod.ipv6.map(IpAddr::V6));
        let entries = ips.map(|ip| IpEntry {
            tunnel,
            host,
            pod: Some(pod.key()),
            ..self.node_entry(ip, pod.identity, IpSource::CustomResource)
        });
        let entries = entries.collect();
        self.claims.set(Claimant::Pod(pod.key()), entries);
    }

    fn claim_endpoint(&mut self, endpoint: &Endpoint, identity: IdentityId) {
        let host = self.local.as_ref().and_then(|l| l.ipv4.map(IpAddr::V4).or(l.ipv6.map(IpAddr::V6)));
        let entry = |ip| {
            let cluster = &self.settings.cluster;
            let pod = endpoint.pod().map(|pod| MeshPod { cluster: Arc::clone(cluster), pod: pod.clone() });
            IpEntry { host, pod, ..self.node_entry(ip, identity, IpSource::Local) }
        };
        let entries = endpoint.addresses().map(entry).collect();
        self.claims.set(Claimant::Endpoint(endpoint.id), entries);
    }

    /// The entry of a pod or node: with native routing it is not masqueraded.
    fn node_entry(&self, ip: IpAddr, identity: IdentityId, source: IpSource) -> IpEntry {
        let mut entry = self.entry(IpNet::from(ip), identity, source);
        entry.no_masquerade |= self.routing() == Some(RoutingMode::Native);
        entry
    }

    fn entry(&self, prefix: IpNet, identity: IdentityId, source: IpSource) -> IpEntry {
        let no_masquerade = self.settings.native_cidrs.iter().any(|native| native.contains(&prefix));
        IpEntry { prefix, identity, tunnel: None, host: None, node_address: false, no_masquerade, source, pod: None }
    }

    fn routing(&self) -> Option<RoutingMode> {
        self.local.as_ref().map(|local| local.routing)
    }

    fn is_local(&self, host: IpAddr) -> bool {
        self.own.contains(&host)
    }

    /// Maps any of a node's addresses to the one it is reached by.
    fn reach(&self, host: IpAddr) -> IpAddr {
        let (ipv4, _) = self.families();
        if host.is_ipv4() && ipv4 {
            return host;
        }
        let node = self.nodes_at.at(host).next().and_then(|name| self.nodes.get(name));
        node.and_then(|node| self.address_of(node)).unwrap_or(host)
    }

    /// The address that represents a node: the one we tunnel to. If we share no family with it, any will do, so that
    /// traffic for its pods still belongs to the tunnel, and is dropped there rather than sent in the open.
    fn address_of(&self, node: &Node) -> Option<IpAddr> {
        let (ipv4, ipv6) = self.families();
        node.tunnel_address(ipv4, ipv6).or_else(|| node.internal_ips.first().copied())
    }

    /// The families in which this node has an address; both while that is unknown.
    fn families(&self) -> (bool, bool) {
        self.local.as_ref().map_or((true, true), |local| (local.ipv4.is_some(), local.ipv6.is_some()))
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
