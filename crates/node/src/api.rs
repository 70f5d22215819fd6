// SPDX-License-Identifier: Apache-2.0
//! Nodes in the agent's REST API: `GET /v1/cluster/nodes`.

use axum::routing::get;
use axum::{Json, Router};
use model::Node;
use rest::{ClusterNodes, NodeAddressing, NodeAddressingElement, NodeElement};
use statedb::Reader;
use std::net::IpAddr;

pub(crate) fn routes(own_name: String, nodes: Reader<Node>) -> Router {
    let list = move || async move {
        let nodes_added = nodes.snapshot().iter().map(|row| render(row)).collect();
        Json(ClusterNodes { self_name: own_name, nodes_added, ..ClusterNodes::default() })
    };
    Router::new().route("/v1/cluster/nodes", get(list))
}

/// A node as `cluster/name` with its first address of each family.
pub(crate) fn render(row: &Node) -> NodeElement {
    let address = |v4: bool| -> Option<NodeAddressingElement> {
        let ip = row.internal_ips.iter().find(|ip| ip.is_ipv4() == v4)?;
        let range = row.pod_cidrs.iter().find(|cidr| cidr.addr().is_ipv4() == v4);
        Some(NodeAddressingElement {
            enabled: true,
            ip: ip.to_string(),
            alloc_range: range.map(ToString::to_string).unwrap_or_default(),
            address_type: "InternalIP".to_owned(),
        })
    };
    let other = |ip: &IpAddr| NodeAddressingElement {
        enabled: true,
        ip: ip.to_string(),
        address_type: "CiliumInternalIP".to_owned(),
        ..NodeAddressingElement::default()
    };
    NodeElement {
        name: format!("{}/{}", row.cluster, row.name),
        primary_address: Some(NodeAddressing { ipv4: address(true), ipv6: address(false) }),
        secondary_addresses: row.cilium_internal_ips.iter().map(other).collect(),
        health_endpoint_address: health_address(row),
        source: if row.local { "local" } else { "custom-resource" }.to_owned(),
        ..NodeElement::default()
    }
}

/// Addresses of a node's health endpoint, if it has one.
fn health_address(row: &Node) -> Option<NodeAddressing> {
    let of_family = |v4: bool| {
        let ip = row.health_ips.iter().find(|ip| ip.is_ipv4() == v4)?;
        Some(NodeAddressingElement { enabled: true, ip: ip.to_string(), ..NodeAddressingElement::default() })
    };
    let (ipv4, ipv6) = (of_family(true), of_family(false));
    (ipv4.is_some() || ipv6.is_some()).then_some(NodeAddressing { ipv4, ipv6 })
}
