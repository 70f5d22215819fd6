// SPDX-License-Identifier: Apache-2.0
//! This node: its devices, addresses and MTU, and the addresses of its router. Pure: from what the kernel and Kubernetes
//! say, what follows for this node.

use crate::Config;
use crate::ingest::KubeNode;
use crate::resolve::Wire;
use datapath::netlink::{Address, Link, Scope};
use ipnet::IpNet;
use model::{LocalNode, Node};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// Interface indexes of the default routes, the preferred one first.
    pub(crate) default_routes: Vec<u32>,
}

/// What there must be before there is a local node.
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

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) row: LocalNode,
    /// The native devices, in the order of the row.
    pub(crate) devices: Vec<Link>,
    /// What masqueraded traffic leaves the devices under, in their order.
    pub(crate) masquerade: Vec<Masquerade>,
    pub(crate) wire: Wire,
    /// What is not as configured but can be lived with.
    pub(crate) warnings: Vec<String>,
}

/// The addresses of a device that masqueraded traffic takes, if it is masqueraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Masquerade {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// The addresses of a node that is known to Kubernetes, with its CiliumNode if there is one already.
pub(crate) fn facts(config: &Config, host: &Host, kube: &KubeNode, own: Option<&Node>) -> Result<Facts, Missing> {
    let (devices, warnings) = select(config, host, &kube.internal_ips)?;
    let Some(first) = devices.first() else { return Err(no_device(host)) };
    let (ipv4, ipv6) = node_addresses(config, host, kube, first);
    if ipv4.is_none() && ipv6.is_none() {
        return Err(Missing::Address { node: kube.name.clone(), device: first.name.clone() });
    }
    let pod_cidrs = pod_cidrs(config, kube, own)?;
    let routers = routers(host, own, &pod_cidrs);
    let device_mtu = if config.mtu == 0 { first.mtu } else { config.mtu };
    let row = LocalNode {
        name: kube.name.clone(),
        ipv4,
        ipv6,
        addresses: own_addresses(host),
        router_ipv4: routers.iter().find_map(v4),
        router_ipv6: routers.iter().find_map(v6),
        pod_cidrs: pod_cidrs.clone(),
        devices: devices.iter().map(|link| link.name.clone()).collect(),
        device_mtu,
        route_mtu: device_mtu.saturating_sub(config.tunnel_overhead(ipv4.is_none())),
        routing: config.routing,
    };
    let native: BTreeSet<u32> = devices.iter().map(|link| link.index).collect();
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
    let masquerade = |link: &Link| {
        let source = |node: Option<IpAddr>| masquerade_source(host, link.index, node);
        Masquerade {
            ipv4: source(ipv4.map(IpAddr::V4)).and_then(|ip| v4(&ip)).filter(|_| config.masquerade_ipv4),
            ipv6: source(ipv6.map(IpAddr::V6)).and_then(|ip| v6(&ip)).filter(|_| config.masquerade_ipv6),
        }
    };
    Ok(Facts { masquerade: devices.iter().map(masquerade).collect(), row, devices, wire, warnings })
}

/// The native devices: those that the configuration names, or those of the node's addresses and of the default route. The
/// one with the node's address comes first: it leads to the other nodes.
fn select(config: &Config, host: &Host, node_ips: &[IpAddr]) -> Result<(Vec<Link>, Vec<String>), Missing> {
    let with_node_ip =
        |link: &&Link| host.addresses.iter().any(|a| a.ifindex == link.index && node_ips.contains(&a.net.addr()));
    let mut warnings = Vec::new();
    let chosen: Vec<Link> = if config.devices.is_empty() {
        let wanted = |link: &&Link| with_node_ip(link) || host.default_routes.contains(&link.index);
        host.links.iter().filter(is_candidate).filter(wanted).cloned().collect()
    } else {
        let mut named = Vec::new();
        for pattern in &config.devices {
            let matching: Vec<_> = host.links.iter().filter(|link| pattern.matches(&link.name)).cloned().collect();
            if matching.is_empty() {
                warnings.push(format!("devices: there is no device {:?}; going on without it", pattern.as_str()));
            }
            named.extend(matching.into_iter().filter(|link| !is_ours(&link.name)));
        }
        named
    };
    let (mut chosen, refused): (Vec<Link>, Vec<Link>) = chosen.into_iter().partition(|link| link.mac.is_some());
    let refused: BTreeSet<String> = refused.into_iter().map(|link| link.name).collect();
    warnings.extend(refused.iter().map(|name| not_ethernet(name)));
    let default_rank = |link: &Link| host.default_routes.iter().position(|index| *index == link.index);
    chosen.sort_by_key(|link| (!with_node_ip(&link), default_rank(link).unwrap_or(usize::MAX), link.index));
    chosen.dedup_by_key(|link| link.index);
    match chosen.is_empty() {
        false => Ok((chosen, warnings)),
        true if refused.is_empty() => Err(no_device(host)),
        true => {
            let refused = refused.into_iter().collect::<Vec<_>>().join(", ");
            Err(Missing::Ethernet { refused, present: present(host) })
        }
    }
}

fn no_device(host: &Host) -> Missing {
    Missing::Device { present: present(host) }
}

fn present(host: &Host) -> String {
    let names: Vec<_> = host.links.iter().map(|link| link.name.as_str()).collect();
    names.join(", ")
}

/// What is not done for a device whose packets begin with the IP header (WireGuard, tun, PPP), where the programs would read garbage.
fn not_ethernet(name: &str) -> String {
    format!(
        "devices: {name} has no hardware address, and the programs expect Ethernet: they are not attached to it. What arrives there is \
         left to the host: replies to masqueraded traffic do not reach pods, and what comes to pods in native routing counts as the \
         host's own; going on without it"
    )
}

fn is_ours(name: &str) -> bool {
    name == "lo" || is_inner(name)
}

/// Whether it is the device of a pod, or one that we have made: nothing leaves the node by it but by our doing.
pub(crate) fn is_inner(name: &str) -> bool {
    name.starts_with("lxc") || name.starts_with("cilium")
}

fn is_candidate(link: &&Link) -> bool {
    link.up && !link.loopback && link.controller.is_none() && !is_ours(&link.name)
}

/// Kubernetes' word first; for a family it has no address of, the device's.
fn node_addresses(config: &Config, host: &Host, kube: &KubeNode, first: &Link) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let on_device = || global(host).filter(|a| a.ifindex == first.index).map(|a| a.net.addr());
    let v4 = kube.internal_ips.iter().copied().chain(on_device()).find_map(|ip| v4(&ip));
    let v6 = kube.internal_ips.iter().copied().chain(on_device()).find_map(|ip| v6(&ip));
    (v4.filter(|_| config.ipv4), v6.filter(|_| config.ipv6))
}

/// The node's own address if the device has it, else another one of the device.
fn masquerade_source(host: &Host, device: u32, node: Option<IpAddr>) -> Option<IpAddr> {
    let node = node?;
    let mut on_device = global(host).filter(|a| a.ifindex == device).map(|a| a.net.addr());
    let family = on_device.clone().find(|ip| ip.is_ipv4() == node.is_ipv4());
    on_device.find(|ip| *ip == node).or(family)
}

fn global(host: &Host) -> impl Iterator<Item = &Address> + Clone {
    host.addresses.iter().filter(|address| is_global(address))
}

fn is_global(address: &Address) -> bool {
    address.scope == Scope::Universe
}

/// Every address at which the host itself answers, but for the router's. Virtual ones are often on the loopback device.
fn own_addresses(host: &Host) -> Vec<IpAddr> {
    let inner: BTreeSet<u32> = host.links.iter().filter(|link| is_inner(&link.name)).map(|link| link.index).collect();
    let all: BTreeSet<IpAddr> = global(host).filter(|a| !inner.contains(&a.ifindex)).map(|a| a.net.addr()).collect();
    all.into_iter().collect()
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

/// One router address of each family: the one that `cilium_host` has already, the one that was published, or the first
/// host address of the first prefix.
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

/// The address after the network's own.
fn first_host(prefix: &IpNet) -> Option<IpAddr> {
    let network = prefix.network();
    prefix.hosts().find(|ip| *ip != network)
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(*ip),
    }
}

#[cfg(test)]
pub(crate) mod tests;
