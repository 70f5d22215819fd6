// SPDX-License-Identifier: Apache-2.0
//! Names and addresses of all machines. They are the same in every lab, since each has a network namespace of its own:
//!
//! ```text
//!   machine   127.0.0.1:PORT ───────────────┐ (a socket that the control plane's first process holds)
//!   ┌─────────────────── lab ───────────────┴──────────────────┐
//!   │ etcd  kube-apiserver:6443  controller-manager  scheduler │
//!   │ bridge lab0   192.168.77.1/24   fd77::1/64               │
//!   └───────┬──────────────────────────────────┬───────────────┘
//!     node1 │ eth0                       node2 │ eth0
//!   192.168.77.11, fd77::11            192.168.77.12, fd77::12
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The machine with the control plane and the bridge.
pub(crate) const CONTROL: &str = "control";
/// The bridge that connects all nodes.
pub(crate) const BRIDGE: &str = "lab0";
/// Where the API server listens, on every address of the control plane.
pub(crate) const API_PORT: u16 = 6443;
/// The most nodes that the addresses (and usually the memory) have room for.
pub(crate) const MAX_NODES: u8 = 64;

/// The size and the address families of a lab.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Topology {
    pub(crate) nodes: u8,
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

/// A node's name and place on the bridge.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: String,
}

impl Topology {
    pub(crate) fn control(&self) -> Vec<IpAddr> {
        self.hosts(1)
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let place = |n: u8| Place {
            name: format!("node{n}"),
            addresses: self.hosts(n.saturating_add(10)),
            mac: mac(n.saturating_add(10)),
        };
        (1..=self.nodes).map(place).collect()
    }

    pub(crate) fn pod_cidrs(&self) -> String {
        self.pick("10.244.0.0/16", "fd00:10:244::/56").join(",")
    }

    pub(crate) fn service_cidrs(&self) -> String {
        self.pick("10.96.0.0/12", "fd00:10:96::/112").join(",")
    }

    /// The addresses of the Service `kubernetes`, which are the first of the Service ranges.
    pub(crate) fn api_services(&self) -> Vec<&'static str> {
        self.pick("10.96.0.1", "fd00:10:96::1")
    }

    pub(crate) fn dns_services(&self) -> Vec<&'static str> {
        self.pick("10.96.0.10", "fd00:10:96::a")
    }

    /// The addresses of a machine on the bridge, by its number there.
    pub(crate) fn hosts(&self, host: u8) -> Vec<IpAddr> {
        let four = IpAddr::V4(Ipv4Addr::new(192, 168, 77, host));
        // 11 is written fd77::11: one reads the node's number in both families.
        let digits = u16::from_str_radix(&host.to_string(), 16).unwrap_or_default();
        let six = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits));
        self.pick(four, six)
    }

    fn pick<T>(&self, four: T, six: T) -> Vec<T> {
        let mut picked = Vec::new();
        if self.ipv4 {
            picked.push(four);
        }
        if self.ipv6 {
            picked.push(six);
        }
        picked
    }
}

/// The hardware address of a machine on the bridge: always the same, since others remember it.
pub(crate) fn mac(host: u8) -> String {
    format!("02:00:c0:a8:4d:{host:02x}")
}

/// An address with the length of the bridge's prefix, as iproute2 wants it.
pub(crate) fn on_link(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(four) => format!("{four}/24"),
        IpAddr::V6(six) => format!("{six}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_same_number_in_both_families() {
        let places = Topology { nodes: 2, ipv4: true, ipv6: true }.places();
        let shown: Vec<_> = places.iter().map(|p| (p.name.as_str(), format!("{:?}", p.addresses))).collect();
        assert_eq!(
            shown,
            [("node1", "[192.168.77.11, fd77::11]".to_owned()), ("node2", "[192.168.77.12, fd77::12]".to_owned())]
        );
    }

    #[test]
    fn a_single_family_leaves_the_other_out_everywhere() {
        let topology = Topology { nodes: 1, ipv4: false, ipv6: true };
        assert_eq!(topology.control(), ["fd77::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(topology.pod_cidrs(), "fd00:10:244::/56");
        assert_eq!(topology.service_cidrs(), "fd00:10:96::/112");
        assert_eq!(topology.dns_services(), ["fd00:10:96::a"]);
    }
}
