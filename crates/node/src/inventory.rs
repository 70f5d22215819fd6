// SPDX-License-Identifier: Apache-2.0
//! The host's devices and their addresses, and which of them the node uses. Pure: derived from the kernel's view and
//! the node's addresses in Kubernetes.

use crate::Config;
use crate::local::Host;
use datapath::netlink::{Address, Link, Scope};
use model::{Device, DeviceMode, Mac, NodeAddress};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// All devices except pods': native ones first, starting with the one that leads to other nodes.
    pub(crate) devices: Vec<Device>,
    /// Their addresses, except on devices that we created.
    pub(crate) addresses: Vec<NodeAddress>,
    /// Harmless deviations from the configuration.
    pub(crate) warnings: Vec<String>,
    /// Devices that would be native if the programs could parse their packets.
    pub(crate) refused: BTreeSet<String>,
}

impl Inventory {
    pub(crate) fn of(config: &Config, host: &Host, node_ips: &[IpAddr]) -> Self {
        let (chosen, mut warnings) = choose(config, host, node_ips);
        let refused = chosen.iter().filter(|link| link.mac.is_none()).map(|link| link.name.clone());
        let refused: BTreeSet<String> = refused.collect();
        warnings.extend(refused.iter().map(|name| not_ethernet(name)));
        let selected: BTreeSet<u32> = chosen.iter().filter(|link| link.mac.is_some()).map(|link| link.index).collect();

        let default_rank = |device: &Device| host.default_routes.iter().position(|index| *index == device.index);
        let has_node_ip = |device: &Device| has_one_of(host, device.index, node_ips);
        let links = host.links.iter().filter(|link| !is_pods(&link.name));
        let mut devices: Vec<Device> =
            links.map(|link| device(host, node_ips, link, selected.contains(&link.index))).collect();
        devices.sort_by_key(|device| {
            (!device.selected, !has_node_ip(device), default_rank(device).unwrap_or(usize::MAX), device.index)
        });
        let on_device = |device: &Device| addresses(config, host, device);
        let addresses = devices.iter().filter(|device| !is_inner(&device.name)).flat_map(on_device).collect();
        Self { devices, addresses, warnings, refused }
    }

    /// The devices that lead out of the node.
    pub(crate) fn native(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.selected)
    }
}

/// The configured devices, or those with the node's addresses and the default route; and which ones were not found.
fn choose<'a>(config: &Config, host: &'a Host, node_ips: &[IpAddr]) -> (Vec<&'a Link>, Vec<String>) {
    if config.devices.is_empty() {
        let wanted = |link: &&Link| has_one_of(host, link.index, node_ips) || host.default_routes.contains(&link.index);
        return (host.links.iter().filter(is_candidate).filter(wanted).collect(), Vec::new());
    }
    let (mut named, mut warnings) = (Vec::new(), Vec::new());
    for pattern in &config.devices {
        let mut matching = host.links.iter().filter(|link| pattern.matches(&link.name)).peekable();
        if matching.peek().is_none() {
            warnings.push(format!("devices: there is no device {:?}; going on without it", pattern.as_str()));
        }
        named.extend(matching.filter(|link| !is_ours(&link.name)));
    }
    (named, warnings)
}

fn device(host: &Host, node_ips: &[IpAddr], link: &Link, selected: bool) -> Device {
    let on_device = || on_device(host, link.index);
    let own = || on_device().filter(|ip| node_ips.contains(ip));
    Device {
        name: link.name.clone(),
        index: link.index,
        mtu: link.mtu,
        mode: link.mac.map_or(DeviceMode::L3, |mac| DeviceMode::L2(Mac(mac.0))),
        running: link.running,
        ipv4: own().chain(on_device()).find_map(v4),
        ipv6: own().chain(on_device()).find_map(v6),
        selected,
    }
}

fn addresses(config: &Config, host: &Host, device: &Device) -> Vec<NodeAddress> {
    let is_primary = |ip: IpAddr| device.ipv4.map(IpAddr::V4) == Some(ip) || device.ipv6.map(IpAddr::V6) == Some(ip);
    let is_wanted = |ip: IpAddr| match config.node_port_addresses.as_slice() {
        [] => is_primary(ip),
        prefixes => prefixes.iter().any(|prefix| prefix.contains(&ip)),
    };
    let row = |address| NodeAddress {
        address,
        device: device.name.clone(),
        primary: is_primary(address),
        node_port: device.selected && is_wanted(address),
    };
    on_device(host, device.index).map(row).collect()
}

/// What is unsupported on a device with bare IP packets (WireGuard, tun, PPP), where the programs would read garbage.
fn not_ethernet(name: &str) -> String {
    format!(
        "devices: {name} has no hardware address, and the programs expect Ethernet: they are not attached to it. What arrives there is \
         left to the host: replies to masqueraded traffic do not reach pods, and what comes to pods in native routing counts as the \
         host's own; going on without it"
    )
}

fn has_one_of(host: &Host, device: u32, addresses: &[IpAddr]) -> bool {
    host.addresses.iter().any(|a| a.ifindex == device && addresses.contains(&a.net.addr()))
}

/// Addresses of a device that are usable by others.
fn on_device(host: &Host, device: u32) -> impl Iterator<Item = IpAddr> + '_ {
    host.addresses.iter().filter(move |a| a.ifindex == device && is_global(a)).map(|a| a.net.addr())
}

pub(crate) fn is_global(address: &Address) -> bool {
    address.scope == Scope::Universe
}

fn is_pods(name: &str) -> bool {
    name.starts_with("lxc")
}

fn is_ours(name: &str) -> bool {
    name == "lo" || is_inner(name)
}

/// Whether it is a pod's device or one that we created: nothing leaves the node through it except by our doing.
pub(crate) fn is_inner(name: &str) -> bool {
    is_pods(name) || name.starts_with("cilium")
}

fn is_candidate(link: &&Link) -> bool {
    link.up && !link.loopback && link.controller.is_none() && !is_ours(&link.name)
}

pub(crate) fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

#[cfg(test)]
mod tests;
