// SPDX-License-Identifier: Apache-2.0
//! Nodes: this one and the others.

use crate::IdentityId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How pods of different nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingMode {
    /// Encapsulated from node to node.
    Tunnel,
    /// Routed by the network, or by direct routes on a shared segment.
    Native,
}

/// Another node, or this one as others see it. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
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
    /// Prefixes from which its pods get addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Identity of the node's own traffic.
    pub identity: IdentityId,
    /// Whether it is the node that we run on.
    pub local: bool,
}

impl statedb::Row for Node {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// Facts of this node that several features need; found at start, and again when a device changes. One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Name in Kubernetes.
    pub name: String,
    /// IPv4 address by which other nodes reach it.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address by which other nodes reach it.
    pub ipv6: Option<Ipv6Addr>,
    /// All of its own addresses on any device: traffic to them goes to the host.
    pub addresses: Vec<IpAddr>,
    /// IPv4 address of `cilium_host`.
    pub router_ipv4: Option<Ipv4Addr>,
    /// IPv6 address of `cilium_host`.
    pub router_ipv6: Option<Ipv6Addr>,
    /// Prefixes from which its pods get addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Native devices, the one that leads to other nodes first.
    pub devices: Vec<String>,
    /// MTU of that device, which pods get for their interface.
    pub device_mtu: u32,
    /// MTU of pods' routes: the device's less the tunnel's header.
    pub route_mtu: u32,
    /// How other nodes' pods are reached.
    pub routing: RoutingMode,
}

impl statedb::Row for LocalNode {
    type Key = ();
    fn key(&self) {}
}
