// SPDX-License-Identifier: Apache-2.0
//! This node: its published addresses, its MTU, and its router addresses. Pure: derived from the kernel's and
//! Kubernetes' view.

use crate::Config;
use crate::ingest::KubeNode;
use crate::inventory::{Inventory, is_global, v4, v6};
use crate::resolve::Wire;
use datapath::netlink::{Address, Link};
use ipnet::IpNet;
use model::{Device, LocalNode, Node};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// Interface indexes of the default routes, the preferred one first.
    pub(crate) default_routes: Vec<u32>,
}

/// What is missing before there is a local node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("no native device: set devices to those that lead to other nodes (there are: {present})")]
    Device { present: String },
    #[error(
        "no native device: {refused} has no hardware address, and the programs expect Ethernet; set devices to others that lead to \
         other nodes (there are: {present})"
    )]
    Ethernet { refused: String, present: String },
    #[error(
        "Node {node}: status.addresses has no InternalIP of an enabled family, and the device {device} has no address"
    )]
    Address { node: String, device: String },
    #[error("Node {node} has no {family} podCIDR yet: waiting for {who}")]
    PodCidr { node: String, family: &'static str, who: &'static str },
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) row: LocalNode,
    /// The native devices, in the order of the row.
    pub(crate) devices: Vec<Device>,
    pub(crate) wire: Wire,
}

/// Derives the facts of a node that Kubernetes knows, with its CiliumNode if there already is one.
pub(crate) fn facts(
    config: &Config,
    host: &Host,
    inventory: &Inventory,
    kube: &KubeNode,
    own: Option<&Node>,
) -> Result<Facts, Missing> {
    let devices: Vec<Device> = inventory.native().cloned().collect();
    let Some(first) = devices.first() else { return Err(no_device(host, inventory)) };
    let (ipv4, ipv6) = node_addresses(config, kube, first);
    if ipv4.is_none() && ipv6.is_none() {
        return Err(Missing::Address { node: kube.name.clone(), device: first.name.clone() });
    }
    let pod_cidrs = pod_cidrs(config, kube, own)?;
    let routers = routers(host, own, &pod_cidrs);
    let device_mtu = if config.mtu == 0 { first.mtu } else { config.mtu };
    let addresses: BTreeSet<IpAddr> = inventory.addresses.iter().map(|row| row.address).collect();
    let row = LocalNode {
        name: kube.name.clone(),
        ipv4,
        ipv6,
        addresses: addresses.into_iter().collect(),
        router_ipv4: routers.iter().copied().find_map(v4),
        router_ipv6: routers.iter().copied().find_map(v6),
        pod_cidrs: pod_cidrs.clone(),
        devices: devices.iter().map(|device| device.name.clone()).collect(),
        device_mtu,
        route_mtu: device_mtu.saturating_sub(config.tunnel_overhead(ipv4.is_none())),
        routing: config.routing,
    };
    let native: BTreeSet<u32> = devices.iter().map(|device| device.index).collect();
    let networks = host.addresses.iter().filter(|address| is_global(address) && native.contains(&address.ifindex));
    let wire = Wire {
        name: kube.name.clone(),
        ipv4: ipv4.map(IpAddr::V4),
        ipv6: ipv6.map(IpAddr::V6),
        routers,
        pod_cidrs,
        device_mtu,
        overlay: host.links.iter().find(|link| link.name == crate::OVERLAY_DEVICE).map(|link| link.index),
        networks: networks.map(|address| (address.ifindex, address.net.trunc())).collect(),
    };
    Ok(Facts { row, devices, wire })
}

fn no_device(host: &Host, inventory: &Inventory) -> Missing {
    let present = host.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    match inventory.refused.iter().map(String::as_str).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => Missing::Device { present },
        refused => Missing::Ethernet { refused, present },
    }
}

/// Kubernetes' address first; for a family without one, the device's.
fn node_addresses(config: &Config, kube: &KubeNode, first: &Device) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let told = || kube.internal_ips.iter().copied();
    let (ipv4, ipv6) = (told().find_map(v4).or(first.ipv4), told().find_map(v6).or(first.ipv6));
    (ipv4.filter(|_| config.ipv4), ipv6.filter(|_| config.ipv6))
}

fn pod_cidrs(config: &Config, kube: &KubeNode, own: Option<&Node>) -> Result<Vec<IpNet>, Missing> {
    let (known, who) = match config.ipam {
        crate::Ipam::Kubernetes => {
            (kube.pod_cidrs.as_slice(), "Kubernetes' controller manager (--allocate-node-cidrs)")
        }
        crate::Ipam::ClusterPool => (own.map_or(&[][..], |own| &own.pod_cidrs), "cilium-operator"),
    };
    let missing = |family| Missing::PodCidr { node: kube.name.clone(), family, who };
    if config.ipv4 && !known.iter().any(|prefix| prefix.addr().is_ipv4()) {
        return Err(missing("IPv4"));
    }
    if config.ipv6 && !known.iter().any(|prefix| prefix.addr().is_ipv6()) {
        return Err(missing("IPv6"));
    }
    let enabled = |prefix: &&IpNet| if prefix.addr().is_ipv4() { config.ipv4 } else { config.ipv6 };
    Ok(known.iter().filter(enabled).copied().collect())
}

/// One router address per family: the one already on `cilium_host`, the published one, or the first host address of the
/// first prefix.
fn routers(host: &Host, own: Option<&Node>, pod_cidrs: &[IpNet]) -> Vec<IpAddr> {
    let device = host.links.iter().find(|link| link.name == crate::HOST_DEVICE).map(|link| link.index);
    let present = host.addresses.iter().filter(|a| Some(a.ifindex) == device).map(|a| a.net.addr());
    let published = own.into_iter().flat_map(|own| own.cilium_internal_ips.iter().copied());
    let inside = |ip: &IpAddr| pod_cidrs.iter().any(|prefix| prefix.contains(ip));
    let known: Vec<IpAddr> = present.chain(published).filter(inside).collect();
    let first_of = |v4: bool| pod_cidrs.iter().find(|prefix| prefix.addr().is_ipv4() == v4).and_then(first_host);
    let choose = |v4: bool| known.iter().find(|ip| ip.is_ipv4() == v4).copied().or_else(|| first_of(v4));
    [true, false].into_iter().filter_map(choose).collect()
}

/// The address after the network address.
fn first_host(prefix: &IpNet) -> Option<IpAddr> {
    let network = prefix.network();
    prefix.hosts().find(|ip| *ip != network)
}

#[cfg(test)]
pub(crate) mod tests;
