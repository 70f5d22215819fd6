// SPDX-License-Identifier: Apache-2.0
//! Gives each CiliumNode its pod CIDRs (`ipam: cluster-pool`). What a node has is adopted; a node that cannot get what it
//! needs is told so in `status.ipam.operator-status.error`, and nothing else of it is changed.

use super::{Controller, Failures, is_stale};
use crate::metrics::Metrics;
use ipam::cluster::{Allocator, Decision, NodeCidrs};
use ipnet::IpNet;
use k8s::Client;
use k8s::cilium::CiliumNode;
use k8s::kube::api::{Api, Patch, PatchParams};
use k8s::kube::{Error, ResourceExt};
use serde_json::json;
use statedb::{Changes, Reader, Row};

/// Annotation of CiliumNodes that are none of our business.
const IGNORE_ANNOTATION: &str = "ipam.cilium.io/ignore";

/// What of a CiliumNode matters here. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeRow {
    name: String,
    created: String,
    version: String,
    pod_cidrs: Vec<IpNet>,
    /// What is wrong with a pod CIDR that cannot be read.
    unreadable: String,
    error: String,
    ignored: bool,
}

impl Row for NodeRow {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

pub(super) fn ingest(node: &CiliumNode) -> Option<NodeRow> {
    // What can be read is taken, whatever stands beside it: another node must not get it.
    let (mut pod_cidrs, mut unreadable) = (Vec::new(), String::new());
    for text in &node.spec.ipam.pod_cidrs {
        match text.parse() {
            Ok(cidr) => pod_cidrs.push(cidr),
            Err(_) => unreadable = format!("spec.ipam.podCIDRs: {text:?} is not a prefix"),
        }
    }
    let status = node.status.as_ref().and_then(|status| status.ipam.as_ref());
    let error = status.and_then(|ipam| ipam.operator_status.as_ref()).and_then(|status| status.error.clone());
    Some(NodeRow {
        name: node.name_any(),
        created: node.creation_timestamp().map(|time| time.0.to_string()).unwrap_or_default(),
        version: node.resource_version().unwrap_or_default(),
        pod_cidrs,
        unreadable,
        error: error.unwrap_or_default(),
        ignored: node.annotations().get(IGNORE_ANNOTATION).is_some_and(|value| value == "true"),
    })
}

pub(super) struct PodCidrs {
    api: Api<CiliumNode>,
    allocator: Allocator,
    nodes: Reader<NodeRow>,
    changes: Changes<NodeRow>,
    metrics: Metrics,
}

impl PodCidrs {
    pub(super) fn new(client: &Client, allocator: Allocator, nodes: &Reader<NodeRow>, metrics: Metrics) -> Self {
        Self { api: client.all(), allocator, nodes: nodes.clone(), changes: nodes.subscribe(), metrics }
    }

    async fn assign(&self, node: &NodeRow, cidrs: &[IpNet]) -> Result<(), Error> {
        let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        tracing::info!(node = node.name, pod_cidrs = cidrs.join(","), "allocated pod CIDRs to node");
        // Based on the version that was decided on: whoever writes pod CIDRs meanwhile wins.
        let patch = json!({"metadata": {"resourceVersion": node.version}, "spec": {"ipam": {"podCIDRs": cidrs}}});
        self.api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn tell(&self, node: &NodeRow, error: &str) -> Result<(), Error> {
        if node.error == error {
            return Ok(());
        }
        if error.is_empty() {
            tracing::info!(node = node.name, "node's pod CIDRs are valid again");
        } else {
            tracing::warn!(node = node.name, error, "cannot allocate pod CIDRs to node");
        }
        let patch = json!({"status": {"ipam": {"operator-status": {"error": error}}}});
        self.api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}

impl Controller for PodCidrs {
    const NAME: &'static str = "pod-cidrs";

    async fn due(&mut self) {
        let rested = async {
            match self.allocator.due() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.changes.next() => {}
            () = rested => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let nodes = self.nodes.snapshot();
        // As long as some nodes are unknown, what they have looks free.
        if !nodes.initialized() {
            return Ok(());
        }
        // An ignored node that has none gets none, but what it has is taken.
        let counted = nodes.iter().filter(|node| !node.ignored || !node.pod_cidrs.is_empty());
        let cidrs: Vec<NodeCidrs> = counted
            .map(|node| NodeCidrs {
                name: node.name.clone(),
                age: node.created.clone(),
                pod_cidrs: node.pod_cidrs.clone(),
            })
            .collect();
        let decisions = self.allocator.resolve(&cidrs, tokio::time::Instant::now().into_std());
        let refused = decisions.values().filter(|d| matches!(d, Decision::Refuse(_))).count();
        self.metrics.ipam_nodes(nodes.len(), refused);

        let mut failures = Failures::default();
        for node in nodes.iter().filter(|node| !node.ignored) {
            let result = match decisions.get(&node.name) {
                _ if !node.unreadable.is_empty() => self.tell(node, &node.unreadable).await,
                Some(Decision::Assign(cidrs)) => self.assign(node, cidrs).await,
                Some(Decision::Refuse(reason)) => self.tell(node, reason).await,
                Some(Decision::Keep) | None => self.tell(node, "").await,
            };
            if let Err(error) = result {
                // One that is gone or changed comes again as a change of the table.
                if !is_stale(&error) {
                    failures.add(format_args!("CiliumNode {}", node.name), &error);
                }
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_pod_cidr_that_cannot_be_read_does_not_free_the_others_of_its_node() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"ipam": {"podCIDRs": ["10.0.1.0/24", "10.0.2.0/240"]}}});
        let row = ingest(&serde_json::from_value(node).unwrap()).unwrap();
        assert_eq!(row.pod_cidrs, ["10.0.1.0/24".parse().unwrap()]);
        assert_eq!(row.unreadable, "spec.ipam.podCIDRs: \"10.0.2.0/240\" is not a prefix");
    }
}
