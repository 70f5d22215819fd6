// SPDX-License-Identifier: Apache-2.0
//! Devices of this node, and the addresses on them.

use crate::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What packets look like on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMode {
    /// Ethernet frames, from this hardware address.
    L2(Mac),
    /// They begin with the IP header (WireGuard, tun, PPP).
    L3,
}

/// A device of the host; those of pods are left out. One row per device of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Largest packet.
    pub mtu: u32,
    /// What its packets look like.
    pub mode: DeviceMode,
    /// It is up and has a carrier.
    pub running: bool,
    /// The IPv4 address that the node uses there.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that the node uses there.
    pub ipv6: Option<Ipv6Addr>,
    /// It is a native one: it leads out of the node, and has programs.
    pub selected: bool,
}

impl Device {
    /// Hardware address, if its packets have any.
    #[must_use]
    pub const fn mac(&self) -> Option<Mac> {
        match self.mode {
            DeviceMode::L2(mac) => Some(mac),
            DeviceMode::L3 => None,
        }
    }
}

impl statedb::Row for Device {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// An address at which the host answers, but for the router's and what is valid on one link or inside of the host only. One row per address
/// and device of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// Address.
    pub address: IpAddr,
    /// Name of the device that it is on.
    pub device: String,
    /// The node uses it before all others of its family on the device.
    pub primary: bool,
    /// Ports of Services of type NodePort are served at it.
    pub node_port: bool,
}

impl statedb::Row for NodeAddress {
    type Key = (IpAddr, String);
    fn key(&self) -> (IpAddr, String) {
        (self.address, self.device.clone())
    }
}
