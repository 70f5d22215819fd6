// SPDX-License-Identifier: Apache-2.0
//! Nodes: this one and the others.

use crate::IdentityId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How pods of different nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingMode {
    /// Encapsulated from node to node.
    #[default]
    Tunnel,
    /// Routed by the network, or by direct routes on a shared link.
    Native,
}

/// The label of nodes with their zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Another node, or this one as others see it. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Name of its cluster.
    pub cluster: String,
    /// Addresses of type InternalIP, by which nodes reach each other.
    pub internal_ips: Vec<IpAddr>,
    /// Addresses of type ExternalIP.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `cilium_host`: the gateway of the node's pods.
    pub cilium_internal_ips: Vec<IpAddr>,
    /// Addresses of the health endpoint.
    pub health_ips: Vec<IpAddr>,
    /// Its pods' prefixes.
    pub pod_cidrs: Vec<IpNet>,
    pub labels: BTreeMap<String, String>,
    /// Identity of the node's own traffic.
    pub identity: IdentityId,
    /// Whether it is this node.
    pub local: bool,
}

impl Node {
    /// The address to which a node with these families tunnels: both ends use the same family, preferably IPv4. None
    /// when the two nodes share no family.
    #[must_use]
    pub fn tunnel_address(&self, ipv4: bool, ipv6: bool) -> Option<IpAddr> {
        let of_family = |v4: bool| self.internal_ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
        let v4 = of_family(true).filter(|_| ipv4);
        v4.or_else(|| of_family(false).filter(|_| ipv6))
    }
}

impl statedb::Row for Node {
    type Key = NodeName;
    fn key(&self) -> NodeName {
        NodeName { cluster: self.cluster.clone(), name: self.name.clone() }
    }
}

/// What identifies a node in a mesh of clusters. Shown with its cluster in front, unless that has the default name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    /// Name of its cluster.
    pub cluster: String,
    /// Its name in the cluster.
    pub name: String,
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cluster.as_str() {
            "" | "default" => f.write_str(&self.name),
            cluster => write!(f, "{cluster}/{}", self.name),
        }
    }
}

/// Facts about this node that several features need; discovered at start, and again when a device changes. One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Name in Kubernetes.
    pub name: String,
    /// IPv4 address by which other nodes reach it.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address by which other nodes reach it.
    pub ipv6: Option<Ipv6Addr>,
    /// All its addresses on any device: traffic to them goes to the host.
    pub addresses: Vec<IpAddr>,
    /// IPv4 address of `cilium_host`.
    pub router_ipv4: Option<Ipv4Addr>,
    /// IPv6 address of `cilium_host`.
    pub router_ipv6: Option<Ipv6Addr>,
    /// Its pods' prefixes.
    pub pod_cidrs: Vec<IpNet>,
    /// Native devices, first the one that leads to other nodes.
    pub devices: Vec<String>,
    /// MTU of that device, which pods get for their interface.
    pub device_mtu: u32,
    /// MTU of pods' routes: the device's, less the tunnel headers.
    pub route_mtu: u32,
    /// How other nodes' pods are reached.
    pub routing: RoutingMode,
}

impl statedb::Row for LocalNode {
    type Key = ();
    fn key(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use statedb::Row;

    fn node(ips: &[&str]) -> Node {
        Node {
            name: "node2".to_owned(),
            cluster: "default".to_owned(),
            internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            external_ips: Vec::new(),
            cilium_internal_ips: Vec::new(),
            health_ips: Vec::new(),
            pod_cidrs: Vec::new(),
            labels: BTreeMap::new(),
            identity: crate::reserved::REMOTE_NODE,
            local: false,
        }
    }

    #[test]
    fn only_a_cluster_with_a_name_of_its_own_is_shown_and_nodes_of_two_clusters_differ() {
        let of = |cluster: &str| Node { cluster: cluster.to_owned(), ..node(&[]) }.key();
        assert_eq!(["", "default", "blue"].map(|cluster| of(cluster).to_string()), ["node2", "node2", "blue/node2"]);
        assert_ne!(of("default"), of("blue"));
    }

    #[test]
    fn a_tunnel_has_one_family_at_both_ends_and_ipv4_goes_first() {
        let (v4, v6) = ("192.168.77.12".parse().ok(), "fd77::12".parse().ok());
        let (dual, only_v4, only_v6) =
            (node(&["fd77::12", "192.168.77.12"]), node(&["192.168.77.12"]), node(&["fd77::12"]));
        let of = |node: &Node| [(true, true), (true, false), (false, true)].map(|(a, b)| node.tunnel_address(a, b));
        assert_eq!(of(&dual), [v4, v4, v6]);
        assert_eq!(of(&only_v4), [v4, v4, None]);
        assert_eq!(of(&only_v6), [v6, None, v6]);
    }
}
