// SPDX-License-Identifier: Apache-2.0
//! Lets pods onto a node once its agent is ready: removes the taint and reports the network as available.

use super::refusals::Refusals;
use super::{Controller, Failures, unless_stale};
use k8s::Client;
use k8s::k8s_openapi::api::core::v1::{Node, Taint};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, Patch, PatchParams};
use node::readiness::{self, AgentRow, NodeRow, Readiness, Wanted};
use statedb::{Changes, Reader};

pub(super) struct NodeReadiness {
    api: Api<Node>,
    config: Readiness,
    nodes: Reader<NodeRow>,
    agents: Reader<AgentRow>,
    node_changes: Changes<NodeRow>,
    agent_changes: Changes<AgentRow>,
    refusals: Refusals<String, (NodeRow, Wanted)>,
}

impl NodeReadiness {
    pub(super) fn new(client: &Client, config: Readiness, nodes: &Reader<NodeRow>, agents: &Reader<AgentRow>) -> Self {
        Self {
            api: client.all(),
            config,
            nodes: nodes.clone(),
            agents: agents.clone(),
            node_changes: nodes.subscribe(),
            agent_changes: agents.subscribe(),
            refusals: Refusals::new(Self::NAME),
        }
    }

    /// Both are tried, whatever becomes of the first.
    async fn set(&self, node: &NodeRow, wanted: &Wanted) -> Result<(), Error> {
        let condition = if wanted.condition { self.set_condition(node).await } else { Ok(()) };
        let taints = match &wanted.taints {
            Some(taints) => self.set_taints(node, taints).await,
            None => Ok(()),
        };
        unless_stale(condition).and(unless_stale(taints))
    }

    async fn set_taints(&self, node: &NodeRow, taints: &[Taint]) -> Result<(), Error> {
        tracing::info!(
            node = node.name,
            taint = self.config.taint,
            set = taints.len() > node.taints.len(),
            "taint changed"
        );
        let patch = serde_json::from_value(readiness::taints_patch(node, taints)).map_err(Error::SerdeError)?;
        self.api.patch(&node.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(drop)
    }

    async fn set_condition(&self, node: &NodeRow) -> Result<(), Error> {
        tracing::info!(node = node.name, "node network ready");
        let patch = readiness::condition_patch(Timestamp::now());
        self.api.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

impl Controller for NodeReadiness {
    const NAME: &'static str = "node-readiness";

    async fn due(&mut self) {
        tokio::select! {
            _ = self.node_changes.next() => {}
            _ = self.agent_changes.next() => {}
            _ = self.refusals.due() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let (nodes, agents) = (self.nodes.snapshot(), self.agents.snapshot());
        if !nodes.initialized() || !agents.initialized() {
            return Ok(());
        }
        let mut failures = Failures::default();
        self.refusals.retain(|name| nodes.get(name).is_some());
        for node in nodes.iter() {
            let wanted = readiness::resolve(&self.config, node, readiness::agent_of(&node.name, &agents));
            let version = (NodeRow::clone(node), wanted);
            if self.refusals.cover(&node.name, &version) {
                continue;
            }
            let result = self.set(node, &version.1).await;
            if let Err(error) = self.refusals.absorb(node.name.clone(), version, result) {
                failures.add(format_args!("Node {}", node.name), &error);
            }
        }
        failures.into_result()
    }
}
