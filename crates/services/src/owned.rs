// SPDX-License-Identifier: Apache-2.0
//! Addresses of the cluster itself, which no author of a Service can take by naming them as external: those of pods and of the API
//! server, and those of nodes but for the ports that the configuration gives away.

use crate::Config;
use crate::config::{PortRange, Ports};
use crate::ingest::EndpointSlice;
use ipnet::IpNet;
use model::{L4Addr, Node, Protocol};
use statedb::{Index, Reader};
use std::net::IpAddr;

/// Ports of nodes that no author of an object can take: etcd, API server, kubelet, kube-proxy's health check, controller manager, scheduler,
/// and our own for probes, flows, metrics (agent, operator, proxy, flows), the proxy's health and the tunnel, by their defaults.
const NODES_OWN: [(u16, Protocol); 15] = [
    (2379, Protocol::Tcp),
    (2380, Protocol::Tcp),
    (6443, Protocol::Tcp),
    (10250, Protocol::Tcp),
    (10256, Protocol::Tcp),
    (10257, Protocol::Tcp),
    (10259, Protocol::Tcp),
    (4240, Protocol::Tcp),
    (4244, Protocol::Tcp),
    (9878, Protocol::Tcp),
    (9962, Protocol::Tcp),
    (9963, Protocol::Tcp),
    (9964, Protocol::Tcp),
    (9965, Protocol::Tcp),
    (8472, Protocol::Udp),
];

/// Whether nobody can have that port at an address of a node.
pub(crate) fn is_nodes_own(addr: &L4Addr) -> bool {
    NODES_OWN.contains(&(addr.port, addr.protocol))
}

/// Whether its endpoints are the API server's.
pub(crate) fn is_api_server(slice: &EndpointSlice) -> bool {
    (&*slice.service.namespace, &*slice.service.name) == ("default", "kubernetes")
}

/// Where the API server is, if the slice says so.
pub(crate) fn api_servers(slice: &EndpointSlice) -> Vec<L4Addr> {
    let at = |ip| slice.ports.iter().map(move |port| L4Addr { ip, port: port.port, protocol: port.protocol });
    let endpoints = slice.endpoints.iter().filter(|_| is_api_server(slice));
    endpoints.flat_map(|endpoint| at(endpoint.ip)).collect()
}

/// Prefixes of pods, and of what else is a pod to the network.
pub(crate) fn pod_prefixes(node: &Node) -> Vec<IpNet> {
    let own = node.cilium_internal_ips.iter().chain(&node.health_ips);
    node.pod_cidrs.iter().map(IpNet::trunc).chain(own.map(|ip| IpNet::from(*ip))).collect()
}

/// Addresses of a node by which others know it.
pub(crate) fn ips_of(node: &Node) -> Vec<IpAddr> {
    node.internal_ips.iter().chain(&node.external_ips).copied().collect()
}

/// Knows whose an address is.
pub(crate) struct Owned {
    pods: Index<Node, IpNet>,
    nodes: Index<Node, IpAddr>,
    api_servers: Index<EndpointSlice, L4Addr>,
    given_away: Vec<Ports>,
    node_ports: PortRange,
}

impl Owned {
    /// With the ports that authors may have at the addresses of nodes.
    pub(crate) fn new(nodes: &Reader<Node>, slices: &Reader<EndpointSlice>, config: &Config) -> Self {
        Self {
            pods: nodes.index(pod_prefixes),
            nodes: nodes.index(ips_of),
            api_servers: slices.index(api_servers),
            given_away: config.external_ips_node_ports.clone(),
            node_ports: config.node_ports,
        }
    }

    /// Who has the address, be it at this port only.
    pub(crate) fn owner(&self, addr: &L4Addr) -> Option<&'static str> {
        if self.is_pod(addr.ip) {
            Some("a pod")
        } else if !self.api_servers.get(addr).is_empty() {
            Some("the API server")
        } else if self.is_nodes_own(addr) {
            Some("a node")
        } else if self.is_node(addr.ip) && self.node_ports.contains(addr.port) {
            // Health checks of Services are among them, too.
            Some("a node, and among the node ports, which the API server gives")
        } else if self.is_node(addr.ip) && !self.given_away.iter().any(|ports| ports.contains(addr.port)) {
            Some("a node, and not among external-ips-node-ports")
        } else {
            None
        }
    }

    /// Whether it is a port of a node that nobody can have.
    pub(crate) fn is_nodes_own(&self, addr: &L4Addr) -> bool {
        is_nodes_own(addr) && self.is_node(addr.ip)
    }

    pub(crate) fn is_node(&self, ip: IpAddr) -> bool {
        !self.nodes.get(&ip).is_empty()
    }

    fn is_pod(&self, ip: IpAddr) -> bool {
        let all = IpNet::from(ip);
        let mut around = std::iter::successors(Some(all), IpNet::supernet);
        around.any(|prefix| !self.pods.get(&prefix).is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::ingest::{Port, SliceEndpoint, SliceName};
    use model::ServiceName;

    pub(crate) fn node(name: &str, ip: &str, pods: &str) -> Node {
        Node {
            name: name.to_owned(),
            cluster: "default".to_owned(),
            internal_ips: vec![ip.parse().unwrap()],
            external_ips: vec![],
            cilium_internal_ips: vec![],
            health_ips: vec![],
            pod_cidrs: vec![pods.parse().unwrap()],
            labels: Default::default(),
            identity: model::reserved::REMOTE_NODE,
            local: false,
        }
    }

    pub(crate) fn api_server(ip: &str) -> EndpointSlice {
        let endpoint = SliceEndpoint {
            ip: ip.parse().unwrap(),
            node: None,
            zone: None,
            for_zones: vec![],
            for_nodes: vec![],
            ready: true,
            serving: true,
            terminating: false,
        };
        EndpointSlice {
            name: SliceName { namespace: "default".into(), name: "kubernetes".into() },
            service: ServiceName::new("default", "kubernetes"),
            ports: vec![Port { name: Some("https".into()), protocol: Protocol::Tcp, port: 6443 }],
            endpoints: vec![endpoint],
            problems: vec![],
        }
    }

    #[test]
    fn an_address_in_a_prefix_of_pods_is_a_pods() {
        let (mut nodes, nodes_reader) = statedb::table("nodes");
        let (_, slices) = statedb::table("slices");
        let owned = Owned::new(&nodes_reader, &slices, &Config::default());
        nodes.insert(node("n1", "192.168.0.11", "10.0.1.5/24"));
        nodes.insert(node("n2", "192.168.0.12", "fd00::/64"));
        nodes.commit();
        let is_pod = |ip: &str| owned.is_pod(ip.parse().unwrap());
        assert!(is_pod("10.0.1.255") && is_pod("fd00::ffff"));
        assert!(!is_pod("10.0.2.1") && !is_pod("fd00:0:0:1::") && !is_pod("192.168.0.11"));
    }

    #[test]
    fn only_the_service_kubernetes_has_endpoints_that_are_the_api_servers() {
        let (_nodes, nodes) = statedb::table("nodes");
        let (mut slices, slices_reader) = statedb::table("slices");
        let owned = Owned::new(&nodes, &slices_reader, &Config::default());
        let at = |ip: &str, port| L4Addr { ip: ip.parse().unwrap(), port, protocol: Protocol::Tcp };
        slices.insert(api_server("198.51.100.1"));
        for (namespace, name) in [("default", "web"), ("shop", "kubernetes")] {
            let (slice, service) =
                (SliceName { namespace: namespace.into(), name: name.into() }, ServiceName::new(namespace, name));
            slices.insert(EndpointSlice { name: slice, service, ..api_server("198.51.100.2") });
        }
        slices.commit();
        assert_eq!(owned.owner(&at("198.51.100.1", 6443)), Some("the API server"));
        assert_eq!(owned.owner(&at("198.51.100.1", 80)), None);
        assert_eq!(owned.owner(&at("198.51.100.2", 6443)), None);
    }

    #[test]
    fn ports_of_nodes_that_others_give_or_need_are_nobodys() {
        let (mut nodes, nodes_reader) = statedb::table("nodes");
        let owned = Owned::new(&nodes_reader, &statedb::table("slices").1, &Config::default());
        nodes.insert(node("n1", "192.168.0.11", "10.0.1.0/24"));
        nodes.commit();
        let owner = |ip: &str, port| owned.owner(&L4Addr { ip: ip.parse().unwrap(), port, protocol: Protocol::Tcp });
        for port in [9878, 9963, 9964, 9965, 10250] {
            assert_eq!(owner("192.168.0.11", port), Some("a node"), "{port}");
        }
        for (port, taken) in [(29_999, false), (30_000, true), (32_767, true), (32_768, false)] {
            assert_eq!(owner("192.168.0.11", port).is_some(), taken, "{port}");
            assert_eq!(owner("192.168.0.12", port), None, "no node has it");
        }
    }
}
