// SPDX-License-Identifier: Apache-2.0
//! Devices of this node, and the addresses on them.

use crate::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Framing of packets on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMode {
    /// Ethernet frames, from this hardware address.
    L2(Mac),
    /// Bare IP packets (WireGuard, tun, PPP).
    L3,
}

/// A device of the host; pods' devices are left out. One row per device of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    /// Interface index.
    pub index: u32,
    pub mtu: u32,
    /// Framing of its packets.
    pub mode: DeviceMode,
    /// It is up and has a carrier.
    pub running: bool,
    /// The node's IPv4 address there.
    pub ipv4: Option<Ipv4Addr>,
    /// The node's IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
    /// It is a native device: it leads out of the node, and has programs attached.
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

/// An address of the host, except the router's and those of link or host scope. One row per address and device of this
/// node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    pub address: IpAddr,
    /// Name of its device.
    pub device: String,
    /// It is the preferred one of its family on the device.
    pub primary: bool,
    /// NodePort Services are served at it.
    pub node_port: bool,
}

impl statedb::Row for NodeAddress {
    type Key = (IpAddr, String);
    fn key(&self) -> (IpAddr, String) {
        (self.address, self.device.clone())
    }
}
