// SPDX-License-Identifier: Apache-2.0
//! Deletes CiliumNodes whose Node is gone, so that their pod CIDRs can be reassigned.

use super::refusals::Refusals;
use super::{Controller, Failures, delete, find, list_metadata, version_of};
use k8s::Client;
use k8s::cilium::CiliumNode;
use k8s::k8s_openapi::api::core::v1::Node;
use k8s::kube::Error;
use k8s::kube::api::ObjectMeta;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) struct NodeGc {
    client: Client,
    interval: Duration,
    /// UIDs of the CiliumNodes that had no Node at the last check. Only the second check in a row deletes one: a Node
    /// that re-registers meanwhile keeps its pod CIDRs.
    suspects: BTreeSet<String>,
    refusals: Refusals<String, Option<String>>,
}

impl NodeGc {
    pub(super) fn new(client: &Client, interval: Duration) -> Self {
        Self { client: client.clone(), interval, suspects: BTreeSet::new(), refusals: Refusals::new(Self::NAME) }
    }

    /// The lists may be old: the API server is asked once more.
    async fn collect(&self, node: &ObjectMeta) -> Result<(), Error> {
        let name = node.name.as_deref().unwrap_or_default();
        if find(&self.client.all::<Node>(), name).await?.is_some() {
            return Ok(());
        }
        tracing::info!(node = name, "CiliumNode deleted: its Node is gone");
        delete(&self.client.all::<CiliumNode>(), name, version_of(node)).await
    }
}

impl Controller for NodeGc {
    const NAME: &'static str = "node-gc";

    async fn due(&mut self) {
        tokio::time::sleep(self.interval).await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let cilium_nodes = list_metadata(&self.client.all::<CiliumNode>(), Some).await?;
        let nodes: BTreeSet<String> =
            list_metadata(&self.client.all::<Node>(), |node| node.name).await?.into_iter().collect();
        let mut failures = Failures::default();
        let mut suspects = BTreeSet::new();
        for node in cilium_nodes.iter().filter(|node| node.name.as_ref().is_some_and(|name| !nodes.contains(name))) {
            let (name, uid) = (node.name.clone().unwrap_or_default(), node.uid.clone().unwrap_or_default());
            if self.suspects.contains(&uid) && !self.refusals.cover(&name, &node.resource_version) {
                let result = self.collect(node).await;
                if let Err(error) = self.refusals.absorb(name.clone(), node.resource_version.clone(), result) {
                    failures.add(format_args!("CiliumNode {name}"), &error);
                }
            }
            suspects.insert(uid);
        }
        self.suspects = suspects;
        failures.into_result()
    }
}
