// SPDX-License-Identifier: Apache-2.0
//! Lets pods onto a node when its agent is ready: takes the taint off and says that the network is there.

use super::{Controller, Failures, is_stale};
use crate::config::Readiness;
use k8s::Client;
use k8s::k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::{Api, Patch, PatchParams};
use k8s::kube::{Error, ResourceExt};
use serde_json::{Value, json};
use statedb::{Changes, Reader, Row};

const CONDITION: &str = "NetworkUnavailable";
const REASON: &str = "CiliumIsUp";
const MESSAGE: &str = "Cilium is running on this node";

impl Readiness {
    pub(super) fn does_something(&self) -> bool {
        self.remove_taint || self.set_taint || self.set_condition
    }
}

/// What of a Node matters here. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeRow {
    name: String,
    taints: Vec<Taint>,
    /// Status and reason of its condition NetworkUnavailable.
    condition: Option<(String, String)>,
}

impl Row for NodeRow {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// An agent's pod. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AgentRow {
    pod: String,
    node: String,
    ready: bool,
}

impl Row for AgentRow {
    type Key = (String, String);
    fn key(&self) -> (String, String) {
        (self.node.clone(), self.pod.clone())
    }
}

pub(super) fn ingest_node(node: &Node) -> Option<NodeRow> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
    Some(NodeRow {
        name: node.name_any(),
        taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
        condition: condition.map(|c| (c.status.clone(), c.reason.clone().unwrap_or_default())),
    })
}

pub(super) fn ingest_agent(pod: &Pod) -> Option<AgentRow> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Some(AgentRow { pod: pod.name_any(), node, ready })
}

pub(super) struct NodeReadiness {
    api: Api<Node>,
    config: Readiness,
    nodes: Reader<NodeRow>,
    agents: Reader<AgentRow>,
    node_changes: Changes<NodeRow>,
    agent_changes: Changes<AgentRow>,
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
        }
    }

    async fn set_taints(&self, node: &NodeRow, taints: &[Taint]) -> Result<(), Error> {
        tracing::info!(
            node = node.name,
            taint = self.config.taint,
            set = taints.len() > node.taints.len(),
            "taint changed"
        );
        // The list is replaced as a whole, so only if nobody else has changed it.
        let mut operations = Vec::new();
        if node.taints.is_empty() {
            operations.push(json!({"op": "add", "path": "/spec/taints", "value": taints}));
        } else {
            operations.push(json!({"op": "test", "path": "/spec/taints", "value": node.taints}));
            operations.push(json!({"op": "replace", "path": "/spec/taints", "value": taints}));
        }
        let patch = serde_json::from_value(Value::Array(operations)).map_err(Error::SerdeError)?;
        self.api.patch(&node.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(drop)
    }

    async fn set_condition(&self, node: &NodeRow) -> Result<(), Error> {
        tracing::info!(node = node.name, "node network ready");
        let now = Timestamp::now().to_string();
        let condition = json!({
            "type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE,
            "lastTransitionTime": now, "lastHeartbeatTime": now,
        });
        let patch = json!({"status": {"conditions": [condition]}});
        self.api.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

/// What is to be changed of a node.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    taints: Option<Vec<Taint>>,
    condition: bool,
}

/// `agent` says whether the node's agent is ready, if it has one.
fn resolve(config: &Readiness, node: &NodeRow, agent: Option<bool>) -> Wanted {
    let ours = |taint: &Taint| taint.key == config.taint;
    let tainted = node.taints.iter().any(ours);
    match agent {
        Some(true) => Wanted {
            taints: (config.remove_taint && tainted)
                .then(|| node.taints.iter().filter(|t| !ours(t)).cloned().collect()),
            condition: config.set_condition
                && node.condition.as_ref().is_none_or(|(status, reason)| status != "False" || reason != REASON),
        },
        Some(false) if config.set_taint && !tainted => {
            let taint = Taint { key: config.taint.clone(), effect: "NoSchedule".into(), ..Taint::default() };
            Wanted { taints: Some(node.taints.iter().cloned().chain([taint]).collect()), condition: false }
        }
        Some(false) | None => Wanted::default(),
    }
}

impl Controller for NodeReadiness {
    const NAME: &'static str = "node-readiness";

    async fn due(&mut self) {
        tokio::select! {
            _ = self.node_changes.next() => {}
            _ = self.agent_changes.next() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let (nodes, agents) = (self.nodes.snapshot(), self.agents.snapshot());
        if !nodes.initialized() || !agents.initialized() {
            return Ok(());
        }
        let mut failures = Failures::default();
        for node in nodes.iter() {
            // While an agent is replaced there may be two: one that is ready is enough.
            let first = (node.name.clone(), String::new());
            let of_node = agents.range(first..).take_while(|agent| agent.node == node.name);
            let agent = of_node.map(|agent| agent.ready).reduce(|a, b| a || b);
            let wanted = resolve(&self.config, node, agent);
            let mut results = Vec::new();
            if wanted.condition {
                results.push(self.set_condition(node).await);
            }
            if let Some(taints) = &wanted.taints {
                results.push(self.set_taints(node, taints).await);
            }
            for error in results.into_iter().filter_map(Result::err).filter(|error| !is_stale(error)) {
                failures.add(format_args!("Node {}", node.name), &error);
            }
        }
        failures.into_result()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

    use super::*;

    fn config() -> Readiness {
        Readiness {
            pod_labels: "k8s-app=cilium".into(),
            pod_namespace: None,
            taint: "node.cilium.io/agent-not-ready".into(),
            remove_taint: true,
            set_taint: true,
            set_condition: true,
        }
    }

    fn taint(key: &str) -> Taint {
        Taint { key: key.into(), effect: "NoSchedule".into(), ..Taint::default() }
    }

    fn node(taints: &[&str], condition: Option<(&str, &str)>) -> NodeRow {
        let condition = condition.map(|(status, reason)| (status.to_owned(), reason.to_owned()));
        NodeRow { name: "n".into(), taints: taints.iter().map(|t| taint(t)).collect(), condition }
    }

    const OURS: &str = "node.cilium.io/agent-not-ready";

    #[test]
    fn a_ready_agent_frees_its_node_and_leaves_other_taints() {
        let wanted = resolve(&config(), &node(&["a", OURS, "b"], Some(("True", "NoRoute"))), Some(true));
        assert_eq!(wanted, Wanted { taints: Some(vec![taint("a"), taint("b")]), condition: true });
    }

    #[test]
    fn nothing_is_done_to_a_node_that_is_right_or_has_no_agent() {
        assert_eq!(resolve(&config(), &node(&["a"], Some(("False", "CiliumIsUp"))), Some(true)), Wanted::default());
        assert_eq!(resolve(&config(), &node(&[OURS], None), None), Wanted::default());
    }

    #[test]
    fn an_agent_that_is_not_ready_taints_its_node_only_if_that_is_wanted() {
        let wanted = resolve(&config(), &node(&["a"], None), Some(false));
        assert_eq!(wanted.taints.unwrap().iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), ["a", OURS]);
        let config = Readiness { set_taint: false, ..config() };
        assert_eq!(resolve(&config, &node(&["a"], None), Some(false)), Wanted::default());
    }
}
