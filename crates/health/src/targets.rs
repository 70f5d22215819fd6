// SPDX-License-Identifier: Apache-2.0
//! Which addresses of a node are probed; not when or how.

use model::Node;
use std::net::IpAddr;

/// The probed addresses of a node: at most one per family; the first of a list is the primary one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Of the node itself.
    pub(crate) host: Vec<IpAddr>,
    /// Of its health endpoint, if it has one.
    pub(crate) endpoint: Vec<IpAddr>,
}

impl Targets {
    /// From a row; without health endpoints if they are disabled on this node.
    pub(crate) fn of(node: &Node, endpoints: bool) -> Self {
        let endpoint = if endpoints { one_of_each_family(&node.health_ips) } else { Vec::new() };
        Self { host: one_of_each_family(&node.internal_ips), endpoint }
    }

    /// All addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.host.iter().chain(&self.endpoint).copied()
    }
}

fn one_of_each_family(ips: &[IpAddr]) -> Vec<IpAddr> {
    let first = |v4: bool| ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
    first(true).into_iter().chain(first(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ip, node};

    #[test]
    fn the_first_address_of_each_family_is_probed_ipv4_first() {
        let node = node("n1", &["fd00::1", "192.168.0.1", "192.168.0.2"], &["fd00:1::9", "10.0.1.9"]);
        let targets = Targets::of(&node, true);
        assert_eq!(targets.host, [ip("192.168.0.1"), ip("fd00::1")]);
        assert_eq!(targets.endpoint, [ip("10.0.1.9"), ip("fd00:1::9")]);
        assert!(Targets::of(&node, false).endpoint.is_empty());
    }
}
