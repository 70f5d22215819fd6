// SPDX-License-Identifier: Apache-2.0
//! CiliumNodes and this node's Node to rows. An invalid object is an error that names the field; the row of its earlier
//! version stays.

use ipnet::IpNet;
use k8s::cilium::CiliumNode;
use k8s::field::{FieldError, address, prefix};
use k8s::k8s_openapi::api::core::v1 as core;
use model::{IdentityId, Node, reserved};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The row of a CiliumNode. `local_name` is this node's name.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_node(cluster: &str, local_name: &str, object: &CiliumNode) -> Result<Option<Node>, FieldError> {
    let Some(name) = object.metadata.name.clone() else { return Ok(None) };
    let mut by_type: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for entry in &object.spec.addresses {
        by_type.entry(&entry.address_type).or_default().push(address("spec.addresses", &entry.ip)?);
    }
    let mut of_type = |kind| by_type.remove(kind).unwrap_or_default();
    let health = object.spec.health.iter().flat_map(|pair| pair.ipv4.iter().chain(&pair.ipv6));
    let health_ips = health.filter(|ip| !ip.is_empty()).map(|ip| address("spec.health", ip));
    let identity = match object.spec.node_identity {
        // To itself a node is the host; to others it is a remote node.
        None | Some(0 | 1) => reserved::REMOTE_NODE,
        Some(number) => {
            let number = u32::try_from(number).map_err(|_| FieldError::new("spec.nodeidentity", number, "an identity"));
            IdentityId(number?)
        }
    };
    Ok(Some(Node {
        cluster: cluster.to_owned(),
        internal_ips: of_type("InternalIP"),
        external_ips: of_type("ExternalIP"),
        cilium_internal_ips: of_type("CiliumInternalIP"),
        health_ips: health_ips.collect::<Result<_, _>>()?,
        pod_cidrs: prefixes("spec.ipam.podCIDRs", &object.spec.ipam.pod_cidrs)?,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        identity,
        local: name == local_name,
        name,
    }))
}

/// What Kubernetes says about this node. One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KubeNode {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) internal_ips: Vec<IpAddr>,
    pub(crate) external_ips: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl statedb::Row for KubeNode {
    type Key = ();
    fn key(&self) {}
}

/// The row of a Node.
pub(crate) fn ingest_kube_node(object: &core::Node) -> Result<Option<KubeNode>, FieldError> {
    let (Some(name), Some(uid)) = (object.metadata.name.clone(), object.metadata.uid.clone()) else { return Ok(None) };
    let entries = || object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of_type = |kind| {
        let matching = entries().filter(move |entry| entry.type_ == kind);
        matching.map(|entry| address("status.addresses", &entry.address)).collect::<Result<Vec<_>, _>>()
    };
    let spec = object.spec.as_ref();
    let cidrs = match spec.and_then(|spec| spec.pod_cidrs.as_deref()) {
        Some(cidrs) if !cidrs.is_empty() => cidrs,
        _ => spec.map_or(&[][..], |spec| spec.pod_cidr.as_slice()),
    };
    Ok(Some(KubeNode {
        name,
        uid,
        internal_ips: of_type("InternalIP")?,
        external_ips: of_type("ExternalIP")?,
        pod_cidrs: prefixes("spec.podCIDRs", cidrs)?,
        labels: object.metadata.labels.clone().unwrap_or_default(),
    }))
}

fn prefixes(field: &'static str, texts: &[String]) -> Result<Vec<IpNet>, FieldError> {
    texts.iter().filter(|text| !text.is_empty()).map(|text| prefix(field, text)).collect()
}

#[cfg(test)]
mod tests;
