// SPDX-License-Identifier: Apache-2.0
//! What features need from Kubernetes' pods and namespaces.

use crate::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Namespace and name of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PodName {
    /// From namespace and name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The controller that a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind, such as `Deployment`.
    pub kind: String,
    pub name: String,
}

/// A named container port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    /// Number.
    pub port: u16,
    pub protocol: Protocol,
}

/// A host port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The node address, if not all of them.
    pub ip: Option<IpAddr>,
    /// Port of the node.
    pub port: u16,
    /// Port of the pod.
    pub container_port: u16,
    pub protocol: Protocol,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Cilium's and bandwidth annotations; others are dropped.
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Addresses from its status.
    pub ips: Vec<IpAddr>,
    /// Its controller, resolved through a ReplicaSet to the Deployment.
    pub workload: Option<Arc<Workload>>,
    /// Named container ports.
    pub named_ports: Vec<NamedPort>,
    pub host_ports: Vec<HostPort>,
    /// Whether it takes connections: its condition Ready holds, and it is not being deleted.
    pub ready: bool,
    /// Whether it has finished (phase Succeeded or Failed).
    pub ended: bool,
}

impl Pod {
    /// Annotation of a static pod's mirror in the API.
    pub const MIRROR: &str = "kubernetes.io/config.mirror";

    /// Whether a node's proxy runs in it. `cilium` is the namespace that Cilium is in: nobody else's pods are known as that.
    #[must_use]
    pub fn is_proxy(&self, cilium: &str) -> bool {
        *self.name.namespace == *cilium && self.labels.get("k8s-app").is_some_and(|app| app == "cilium-envoy")
    }

    /// Whether it is the mirror of a static pod. A deleted mirror is recreated with another UID while the pod keeps
    /// running.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.annotations.contains_key(Self::MIRROR)
    }
}

impl statedb::Row for Pod {
    type Key = PodName;
    fn key(&self) -> PodName {
        self.name.clone()
    }
}

/// A namespace. One row per namespace of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
}

impl statedb::Row for Namespace {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Pod {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Pod {
            name: PodName::new(namespace, "a"),
            labels: owned(labels),
            annotations: owned(annotations),
            ..Pod::default()
        }
    }

    #[test]
    fn a_proxy_is_known_by_its_label_and_only_where_cilium_is() {
        let proxy = [("k8s-app", "cilium-envoy")];
        assert!(pod("kube-system", &proxy, &[]).is_proxy("kube-system"));
        assert!(!pod("shop", &proxy, &[]).is_proxy("kube-system"), "anybody could say so of a pod");
        assert!(!pod("kube-system", &[("k8s-app", "cilium")], &[]).is_proxy("kube-system"));
    }

    #[test]
    fn the_mirror_of_a_static_pod_is_known_by_its_annotation() {
        assert!(pod("a", &[], &[(Pod::MIRROR, "hash")]).is_mirror());
        assert!(!pod("a", &[], &[("other", "hash")]).is_mirror());
        assert_eq!(statedb::Row::key(&pod("a", &[], &[])), PodName::new("a", "a"));
    }
}
