// SPDX-License-Identifier: Apache-2.0
//! Nodes to routes. Pure: derives every desired route, and every node that cannot be reached with the reason, from the
//! nodes of the cluster and the facts about this one.
//!
//! ```text
//! tunnel:  podCIDR of a node   encap id 6 dst NODE  dev cilium_vxlan  src ROUTER  mtu DEVICE-50 (over IPv6: 70)
//! native:  podCIDR of a node   via NODE  dev DEVICE
//! both:    own podCIDR         unreachable        (pods have routes of their own, which are longer)
//! ```

use crate::Config;
use ipnet::IpNet;
use model::{Node, RoutingMode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A route of the host to pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// How.
    pub hop: Hop,
    /// Source address of the host's own packets.
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
}

impl statedb::Row for Route {
    type Key = IpNet;
    fn key(&self) -> IpNet {
        self.prefix
    }
}

/// How a prefix is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Through the tunnel device to a node.
    Tunnel {
        /// The node.
        remote: IpAddr,
        /// Interface index of the tunnel device.
        device: u32,
    },
    /// Through a native device to a node.
    Direct {
        /// The node.
        gateway: IpAddr,
        /// Interface index of the device.
        device: u32,
    },
    /// Unreachable, as senders are told.
    Unreachable,
}

/// Why a node cannot be reached, or not in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub node: String,
    /// What is wrong, and what it conflicts with.
    pub message: String,
}

impl statedb::Row for Problem {
    type Key = (String, String);
    fn key(&self) -> (String, String) {
        (self.node.clone(), self.message.clone())
    }
}

/// What routes depend on besides the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
    pub(crate) routers: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// MTU of the device that leads to other nodes.
    pub(crate) device_mtu: u32,
    /// Interface index of the tunnel device, once it exists.
    pub(crate) overlay: Option<u32>,
    /// Networks that this node is on, with the interface index of the device.
    pub(crate) networks: Vec<(u32, IpNet)>,
}

/// What has been granted to whom. Holders keep their grants when others claim the same later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    prefixes: BTreeMap<IpAddr, (IpNet, String)>,
    addresses: BTreeMap<IpAddr, String>,
}

/// Everything derived from the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) routes: Vec<Route>,
    pub(crate) problems: BTreeSet<Problem>,
    pub(crate) grants: Grants,
}

/// Routes to all nodes. `before` are the grants of the last resolution.
pub(crate) fn resolve<'a>(
    config: &Config,
    wire: &Wire,
    nodes: impl Iterator<Item = &'a Node>,
    before: &Grants,
) -> Resolution {
    let mut resolution = Resolution::default();
    for prefix in wire.pod_cidrs.iter().filter(|prefix| enabled(config, prefix)) {
        if resolution.grants.prefix(*prefix, &wire.name) == Ok(true) {
            resolution.routes.push(Route { prefix: *prefix, hop: Hop::Unreachable, source: None, mtu: None });
        }
    }
    for address in wire.ipv4.into_iter().chain(wire.ipv6) {
        resolution.grants.addresses.insert(address, wire.name.clone());
    }
    let remote: Vec<&Node> = nodes.filter(|node| !node.local && node.name != wire.name).collect();
    // Previous holders come first, so that they keep their grants.
    for incumbents in [true, false] {
        for node in remote.iter().filter(|node| before.has_all_of(node) == incumbents) {
            add(config, wire, node, &mut resolution);
        }
    }
    resolution
}

fn add(config: &Config, wire: &Wire, node: &Node, resolution: &mut Resolution) {
    let problem = |message: String| Problem { node: node.name.clone(), message };
    let taken = |(address, other): (IpAddr, String)| {
        problem(format!("address {address} of node {} is node {other}'s already; its pods are not reached", node.name))
    };
    if let Err(conflict) = resolution.grants.addresses_of(node) {
        resolution.problems.insert(taken(conflict));
        return;
    }
    for prefix in node.pod_cidrs.iter().filter(|prefix| enabled(config, prefix)) {
        let hop = match hop(config, wire, node, prefix) {
            Ok(Some(hop)) => hop,
            Ok(None) => continue,
            Err(message) => {
                resolution.problems.insert(problem(message));
                continue;
            }
        };
        match resolution.grants.prefix(*prefix, &node.name) {
            Ok(true) => resolution.routes.push(route(config, wire, *prefix, hop)),
            Ok(false) => {}
            Err((other_prefix, other)) => {
                resolution.problems.insert(problem(format!(
                    "podCIDR {prefix} of node {} overlaps {other_prefix} of node {other}, which has it already",
                    node.name
                )));
            }
        }
    }
}

fn route(config: &Config, wire: &Wire, prefix: IpNet, hop: Hop) -> Route {
    let Hop::Tunnel { remote, .. } = hop else { return Route { prefix, hop, source: None, mtu: None } };
    let source = wire.routers.iter().find(|router| same_family(router, &prefix)).copied();
    let mtu = wire.device_mtu.saturating_sub(config.tunnel_overhead(remote.is_ipv6()));
    Route { prefix, hop, source, mtu: Some(mtu) }
}

/// None when the network outside the cluster routes there.
fn hop(config: &Config, wire: &Wire, node: &Node, prefix: &IpNet) -> Result<Option<Hop>, String> {
    match config.routing {
        RoutingMode::Tunnel => {
            let missing = || format!("node {} has no InternalIP of a family that this node has too", node.name);
            let remote = node.tunnel_address(wire.ipv4.is_some(), wire.ipv6.is_some()).ok_or_else(missing)?;
            Ok(wire.overlay.map(|device| Hop::Tunnel { remote, device }))
        }
        RoutingMode::Native if !config.direct_routes => Ok(None),
        RoutingMode::Native => {
            let family = |address: &&IpAddr| same_family(address, prefix);
            let Some(gateway) = node.internal_ips.iter().find(family) else {
                return Err(format!("node {} has no InternalIP of the family of its podCIDR {prefix}", node.name));
            };
            match wire.networks.iter().find(|(_, network)| network.contains(gateway)) {
                Some((device, _)) => Ok(Some(Hop::Direct { gateway: *gateway, device: *device })),
                None if config.skip_unreachable => Ok(None),
                None => Err(format!(
                    "address {gateway} of node {} is on no network of this node: auto-direct-node-routes needs a shared \
                     segment (direct-routing-skip-unreachable leaves such nodes to the network)",
                    node.name
                )),
            }
        }
    }
}

fn enabled(config: &Config, prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(_) => config.ipv4,
        IpNet::V6(_) => config.ipv6,
    }
}

fn same_family(address: &IpAddr, prefix: &IpNet) -> bool {
    address.is_ipv4() == prefix.addr().is_ipv4()
}

impl Grants {
    fn has_all_of(&self, node: &Node) -> bool {
        let mine = |owner: &String| *owner == node.name;
        node.internal_ips.iter().all(|ip| self.addresses.get(ip).is_some_and(mine))
            && node.pod_cidrs.iter().all(|prefix| {
                self.prefixes.get(&prefix.network()).is_some_and(|(granted, owner)| granted == prefix && mine(owner))
            })
    }

    /// Grants a node all of its addresses, or returns which belongs to another.
    fn addresses_of(&mut self, node: &Node) -> Result<(), (IpAddr, String)> {
        for address in &node.internal_ips {
            if let Some(owner) = self.addresses.get(address).filter(|owner| **owner != node.name) {
                return Err((*address, owner.clone()));
            }
        }
        self.addresses.extend(node.internal_ips.iter().map(|address| (*address, node.name.clone())));
        Ok(())
    }

    /// Grants a node a prefix (false if it already has it), or returns whose prefix it overlaps. Granted prefixes never
    /// overlap, so only the last one that begins before it, and those that begin within it, need checking.
    fn prefix(&mut self, prefix: IpNet, node: &str) -> Result<bool, (IpNet, String)> {
        let (first, last) = (prefix.network(), prefix.broadcast());
        let before = self.prefixes.range(..=first).next_back().filter(|(_, (other, _))| other.contains(&first));
        let overlapping = before.or_else(|| self.prefixes.range(first..=last).next());
        match overlapping {
            Some((_, (other, owner))) if *other == prefix && owner == node => Ok(false),
            Some((_, (other, owner))) => Err((*other, owner.clone())),
            None => {
                self.prefixes.insert(first, (prefix, node.to_owned()));
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests;
