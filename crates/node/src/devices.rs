// SPDX-License-Identifier: Apache-2.0
//! The devices that we create on this node. What is right is adopted as is; what is wrong and cannot be changed is
//! replaced.
//!
//! ```text
//! cilium_host ── cilium_net     a veth pair; the router's addresses are on cilium_host
//! cilium_vxlan                  the tunnel: key and peer come with each packet, no ARP, no learning
//! ```

use crate::local::Host;
use crate::{HOST_DEVICE, NET_DEVICE, OVERLAY_DEVICE};
use datapath::netlink::{Address, Link, LinkChange, Netlink, Scope, VethEnd, Vxlan};
use datapath::{Result, sysctl};
use ipnet::IpNet;
use std::net::IpAddr;

/// The desired devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) mtu: u32,
    /// Addresses of the router.
    pub(crate) routers: Vec<IpAddr>,
    /// UDP port of the tunnel, if there is one.
    pub(crate) tunnel_port: Option<u16>,
    /// The tunnel may run over IPv6, so its device must take packets without a UDP checksum there.
    pub(crate) tunnel_over_ipv6: bool,
}

/// The kernel's devices, addresses and default routes.
pub(crate) async fn look(netlink: &Netlink) -> Result<Host> {
    Ok(Host {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        default_routes: netlink.default_interfaces().await?,
    })
}

/// Brings the devices to the desired state; true if anything had to be changed.
pub(crate) async fn ensure(netlink: &Netlink, host: &Host, wanted: &Wanted) -> Result<bool> {
    let pair = ensure_pair(netlink, host, wanted).await?;
    let overlay = ensure_overlay(netlink, host, wanted).await?;
    let present = if pair || overlay { look(netlink).await? } else { host.clone() };
    let addresses = ensure_addresses(netlink, &present, wanted).await?;
    let wanted = wanted.clone();
    statedb::blocking(move || settings(&wanted)).await?;
    Ok(pair || overlay || addresses)
}

/// Removes the devices and, with them, their addresses and routes.
pub(crate) async fn remove(netlink: &Netlink) -> Result<()> {
    for name in [HOST_DEVICE, NET_DEVICE, OVERLAY_DEVICE] {
        if let Some(link) = netlink.link(name).await? {
            netlink.delete_link(link.index).await?;
        }
    }
    Ok(())
}

async fn ensure_pair(netlink: &Netlink, host: &Host, wanted: &Wanted) -> Result<bool> {
    let (near, far) = (find(host, HOST_DEVICE), find(host, NET_DEVICE));
    let mut changed = false;
    if let (Some(near), Some(far)) = (near, far)
        && near.kind.as_deref() == Some("veth")
        && near.peer == Some(far.index)
    {
        for link in [near, far] {
            changed |= adjust(netlink, link, wanted.mtu).await?;
        }
        return Ok(changed);
    }
    for wrong in [near, far].into_iter().flatten() {
        netlink.delete_link(wrong.index).await?;
    }
    let end = |name| VethEnd { name, mtu: Some(wanted.mtu), ..VethEnd::default() };
    netlink.create_veth(end(HOST_DEVICE), end(NET_DEVICE)).await?;
    for name in [HOST_DEVICE, NET_DEVICE] {
        if let Some(link) = netlink.link(name).await? {
            adjust(netlink, &link, wanted.mtu).await?;
        }
    }
    Ok(true)
}

async fn ensure_overlay(netlink: &Netlink, host: &Host, wanted: &Wanted) -> Result<bool> {
    let present = find(host, OVERLAY_DEVICE);
    let Some(port) = wanted.tunnel_port else {
        return match present {
            Some(link) => netlink.delete_link(link.index).await,
            None => Ok(false),
        };
    };
    if let Some(link) = present {
        // Neither port nor checksum settings of a device can be changed. Of our own devices only the port can be wrong.
        let checksums = link.vxlan_zero_checksum6 || !wanted.tunnel_over_ipv6;
        if link.kind.as_deref() == Some("vxlan") && link.vxlan_port == Some(port) && checksums {
            return adjust(netlink, link, wanted.mtu).await;
        }
        netlink.delete_link(link.index).await?;
    }
    netlink.create_vxlan(Vxlan { name: OVERLAY_DEVICE, port, mtu: Some(wanted.mtu), ..Vxlan::default() }).await?;
    if let Some(link) = netlink.link(OVERLAY_DEVICE).await? {
        adjust(netlink, &link, wanted.mtu).await?;
    }
    Ok(true)
}

/// Up, with the right MTU, and without ARP: nobody answers behind these devices.
async fn adjust(netlink: &Netlink, link: &Link, mtu: u32) -> Result<bool> {
    let change = LinkChange {
        up: (!link.up).then_some(true),
        mtu: (link.mtu != mtu).then_some(mtu),
        arp: link.arp.then_some(false),
        ..LinkChange::default()
    };
    let needed = change.up.is_some() || change.mtu.is_some() || change.arp.is_some();
    if needed {
        netlink.change_link(link.index, change).await?;
    }
    Ok(needed)
}

async fn ensure_addresses(netlink: &Netlink, host: &Host, wanted: &Wanted) -> Result<bool> {
    let Some(device) = find(host, HOST_DEVICE) else { return Ok(false) };
    let present: Vec<Address> = host.addresses.iter().filter(|a| a.ifindex == device.index).copied().collect();
    let routers: Vec<IpNet> = wanted.routers.iter().map(|ip| IpNet::from(*ip)).collect();
    let mut changed = false;
    for net in routers.iter().filter(|net| !present.iter().any(|a| a.net == **net)) {
        netlink.replace_address(Address { ifindex: device.index, net: *net, scope: Scope::Universe }).await?;
        changed = true;
    }
    for address in present.iter().filter(|a| a.scope == Scope::Universe && !routers.contains(&a.net)) {
        changed |= netlink.delete_address(*address).await?;
    }
    Ok(changed)
}

/// Settings of this network namespace without which the host would not forward, or would drop traffic that returns by a
/// different path. Setting them waits for the kernel's lock for all interfaces.
fn settings(wanted: &Wanted) -> Result<()> {
    let overlay = wanted.tunnel_port.map(|_| OVERLAY_DEVICE);
    for device in [HOST_DEVICE, NET_DEVICE].into_iter().chain(overlay) {
        sysctl::write_if_present(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
        sysctl::write_if_present(&format!("net/ipv4/conf/{device}/forwarding"), "1")?;
        sysctl::write_if_present(&format!("net/ipv6/conf/{device}/forwarding"), "1")?;
    }
    if wanted.routers.iter().any(IpAddr::is_ipv4) {
        sysctl::write("net/ipv4/ip_forward", "1")?;
    }
    if wanted.routers.iter().any(IpAddr::is_ipv6) {
        sysctl::write("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn find<'a>(host: &'a Host, name: &str) -> Option<&'a Link> {
    host.links.iter().find(|link| link.name == name)
}

#[cfg(test)]
mod tests;
