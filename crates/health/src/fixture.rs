// SPDX-License-Identifier: Apache-2.0
//! Rows for the tests of this crate.

use model::{Node, reserved};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node of the default cluster; `n1` is this one.
pub(crate) fn node(name: &str, internal: &[&str], health: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "default".to_owned(),
        internal_ips: internal.iter().copied().map(ip).collect(),
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: health.iter().copied().map(ip).collect(),
        pod_cidrs: Vec::new(),
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: name == "n1",
    }
}
