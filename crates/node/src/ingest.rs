// SPDX-License-Identifier: Apache-2.0
//! CiliumNodes and this node's Node to rows. Of an invalid object the rest is used, and what is wrong is told with the name of its field.

use ipnet::IpNet;
use k8s::Ingested;
use k8s::cilium::CiliumNode;
use k8s::field::{FieldError, address, prefix};
use k8s::k8s_openapi::api::core::v1 as core;
use model::{IdentityId, Node, reserved};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The row of a CiliumNode. `local_name` is this node's name. What cannot be used is left out and told of: the node is still there, and a
/// restarted agent, which knows no earlier version, must see the same as one that runs.
pub fn ingest_node(cluster: &str, local_name: &str, object: &CiliumNode) -> Ingested<Node> {
    let Some(name) = object.metadata.name.clone() else { return Ingested::Nothing };
    let mut usable = Usable::default();
    let mut by_type: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for entry in &object.spec.addresses {
        by_type.entry(&entry.address_type).or_default().extend(usable.take(address("spec.addresses", &entry.ip)));
    }
    let mut of_type = |kind| by_type.remove(kind).unwrap_or_default();
    let health = object.spec.health.iter().flat_map(|pair| pair.ipv4.iter().chain(&pair.ipv6));
    let health_ips = health.filter(|ip| !ip.is_empty()).filter_map(|ip| usable.take(address("spec.health", ip)));
    let node = Node {
        cluster: cluster.to_owned(),
        internal_ips: of_type("InternalIP"),
        external_ips: of_type("ExternalIP"),
        cilium_internal_ips: of_type("CiliumInternalIP"),
        health_ips: health_ips.collect(),
        pod_cidrs: usable.prefixes("spec.ipam.podCIDRs", &object.spec.ipam.pod_cidrs),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        identity: usable.take(identity(object.spec.node_identity)).unwrap_or(reserved::REMOTE_NODE),
        local: name == local_name,
        name,
    };
    usable.ingested(node)
}

fn identity(number: Option<i64>) -> Result<IdentityId, FieldError> {
    match number {
        // To itself a node is the host; to others it is a remote node.
        None | Some(0 | 1) => Ok(reserved::REMOTE_NODE),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(IdentityId(number)),
            Err(_) => Err(FieldError::new("spec.nodeidentity", number, "an identity")),
        },
    }
}

/// Takes what can be used of an object, and keeps why the rest cannot.
#[derive(Debug, Default)]
struct Usable(Vec<FieldError>);

impl Usable {
    fn take<T>(&mut self, field: Result<T, FieldError>) -> Option<T> {
        field.map_err(|error| self.0.push(error)).ok()
    }

    fn prefixes(&mut self, field: &'static str, texts: &[String]) -> Vec<IpNet> {
        let texts = texts.iter().filter(|text| !text.is_empty());
        texts.filter_map(|text| self.take(prefix(field, text))).collect()
    }

    fn ingested<R>(self, row: R) -> Ingested<R> {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        if texts.is_empty() { Ingested::Row(row) } else { Ingested::Part(row, texts.join("; ")) }
    }
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

/// The row of a Node. As with a CiliumNode, what cannot be used is left out.
pub(crate) fn ingest_kube_node(object: &core::Node) -> Ingested<KubeNode> {
    let (Some(name), Some(uid)) = (object.metadata.name.clone(), object.metadata.uid.clone()) else {
        return Ingested::Nothing;
    };
    let mut usable = Usable::default();
    let entries = || object.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut of_type = |kind: &str| -> Vec<IpAddr> {
        let matching = entries().filter(|entry| entry.type_ == kind);
        matching.filter_map(|entry| usable.take(address("status.addresses", &entry.address))).collect()
    };
    let (internal_ips, external_ips) = (of_type("InternalIP"), of_type("ExternalIP"));
    let spec = object.spec.as_ref();
    let cidrs = match spec.and_then(|spec| spec.pod_cidrs.as_deref()) {
        Some(cidrs) if !cidrs.is_empty() => cidrs,
        _ => spec.map_or(&[][..], |spec| spec.pod_cidr.as_slice()),
    };
    let pod_cidrs = usable.prefixes("spec.podCIDRs", cidrs);
    let labels = object.metadata.labels.clone().unwrap_or_default();
    usable.ingested(KubeNode { name, uid, internal_ips, external_ips, pod_cidrs, labels })
}

#[cfg(test)]
mod tests;
