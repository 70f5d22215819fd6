// SPDX-License-Identifier: Apache-2.0
//! Kubernetes pods to rows. Tolerant: missing fields are left empty, and only a pod without a name gives no row.

use k8s::field::canonical_address;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use model::{HostPort, NamedPort, Pod, PodName, Protocol, Workload};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A row from a pod.
#[must_use]
pub fn ingest_pod(pod: &core::Pod) -> Option<Pod> {
    let meta = &pod.metadata;
    let name = PodName::new(meta.namespace.as_deref()?, meta.name.as_deref()?);
    let labels = meta.labels.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    Some(Pod {
        name,
        uid: meta.uid.clone().unwrap_or_default(),
        annotations: annotations(meta.annotations.as_ref()),
        service_account: spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
        ips: status
            .and_then(|s| s.pod_ips.as_ref())
            .map(|ips| ips.iter().filter_map(|ip| canonical_address(&ip.ip)).collect())
            .unwrap_or_default(),
        workload: meta.owner_references.as_deref().and_then(|owners| workload(owners, &labels)).map(Arc::new),
        named_ports: spec.into_iter().flat_map(ports).filter_map(named_port).collect(),
        host_ports: spec.into_iter().flat_map(ports).filter_map(host_port).collect(),
        ready: meta.deletion_timestamp.is_none() && status.is_some_and(is_ready),
        ended: status.and_then(|s| s.phase.as_deref()).is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")),
        labels,
    })
}

fn is_ready(status: &core::PodStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn annotations(all: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let ours = |key: &str| {
        let prefix = key.split_once('/').map_or(key, |(prefix, _)| prefix);
        prefix == "cilium.io"
            || prefix.ends_with(".cilium.io")
            || prefix.starts_with("io.cilium.")
            || matches!(key, "kubernetes.io/egress-bandwidth" | "kubernetes.io/ingress-bandwidth" | Pod::MIRROR)
    };
    all.into_iter().flatten().filter(|(key, _)| ours(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The controller. A Deployment's ReplicaSet is named after the Deployment and the hash of its template.
fn workload(owners: &[OwnerReference], labels: &BTreeMap<String, String>) -> Option<Workload> {
    let owner = owners.iter().find(|o| o.controller == Some(true)).or_else(|| owners.first())?;
    let deployment = labels
        .get("pod-template-hash")
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        .filter(|name| !name.is_empty());
    Some(match deployment {
        Some(name) => Workload { kind: "Deployment".into(), name: name.to_owned() },
        None => Workload { kind: owner.kind.clone(), name: owner.name.clone() },
    })
}

/// Ports of all long-running containers: regular ones, and restartable init containers.
fn ports(spec: &core::PodSpec) -> impl Iterator<Item = &core::ContainerPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten())
}

fn named_port(port: &core::ContainerPort) -> Option<NamedPort> {
    Some(NamedPort {
        name: port.name.clone()?,
        port: u16::try_from(port.container_port).ok()?,
        protocol: protocol(port)?,
    })
}

fn host_port(port: &core::ContainerPort) -> Option<HostPort> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
    let ip: Option<IpAddr> = match port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => Some(canonical_address(ip)?),
        None => None,
    };
    Some(HostPort {
        ip: ip.filter(|ip| !ip.is_unspecified()),
        port: number(port.host_port?)?,
        container_port: number(port.container_port)?,
        protocol: protocol(port)?,
    })
}

fn protocol(port: &core::ContainerPort) -> Option<Protocol> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ingest(pod: Value) -> Option<Pod> {
        ingest_pod(&serde_json::from_value(pod).unwrap())
    }

    fn owned_by(kind: &str, name: &str, labels: Value) -> Option<Workload> {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true});
        ingest(json!({"metadata": {"namespace": "a", "name": "b", "labels": labels, "ownerReferences": [owner]}}))
            .unwrap()
            .workload
            .map(Arc::unwrap_or_clone)
    }

    #[test]
    fn a_pod_of_a_deployment_names_the_deployment_and_not_its_replica_set() {
        let workload = |kind: &str, name: &str| Some(Workload { kind: kind.into(), name: name.into() });
        assert_eq!(
            owned_by("ReplicaSet", "web-6d4c", json!({"pod-template-hash": "6d4c"})),
            workload("Deployment", "web")
        );
        assert_eq!(owned_by("ReplicaSet", "web-6d4c", json!({})), workload("ReplicaSet", "web-6d4c"));
        assert_eq!(
            owned_by("DaemonSet", "web-6d4c", json!({"pod-template-hash": "6d4c"})),
            workload("DaemonSet", "web-6d4c")
        );
        assert_eq!(owned_by("Job", "nightly-123", json!({})), workload("Job", "nightly-123"));
    }

    #[test]
    fn what_features_need_of_a_pod_is_kept_and_nothing_else() {
        let pod = ingest(json!({
            "metadata": {"namespace": "a", "name": "b", "uid": "u1", "labels": {"app": "x"},
                "annotations": {"cni.cilium.io/mac-address": "m", "kubernetes.io/egress-bandwidth": "1M", "other/x": "y"}},
            "spec": {"serviceAccountName": "sa", "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
                "initContainers": [{"name": "i", "ports": [{"name": "no", "containerPort": 1}]},
                    {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }))
        .unwrap();
        assert_eq!(pod.name, PodName::new("a", "b"));
        assert_eq!(
            pod.annotations.keys().collect::<Vec<_>>(),
            ["cni.cilium.io/mac-address", "kubernetes.io/egress-bandwidth"]
        );
        assert_eq!(
            pod.named_ports.iter().map(|p| (&*p.name, p.port)).collect::<Vec<_>>(),
            [("http", 80), ("dns", 53), ("side", 2)]
        );
        assert_eq!(pod.ips.len(), 2);
        assert!(!pod.host_network && !pod.ended);
        assert_eq!(pod.service_account, "sa");
    }

    #[test]
    fn a_pod_that_has_ended_or_uses_the_nodes_network_says_so_and_one_without_name_is_none() {
        let pod = ingest(json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {"hostNetwork": true, "containers": []}, "status": {"phase": "Failed"}})).unwrap();
        assert!(pod.host_network && pod.ended);
        assert!(ingest(json!({"metadata": {"namespace": "a"}})).is_none());
    }
}
