// SPDX-License-Identifier: Apache-2.0
//! When a Node accepts pods: untainted, and with the condition set, once its agent is ready. Pure.

use k8s::k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::ResourceExt;
use serde_json::{Value, json};
use statedb::{Row, Snapshot};

const CONDITION: &str = "NetworkUnavailable";
const REASON: &str = "CiliumIsUp";
const MESSAGE: &str = "Cilium is running on this node";

/// What to do to nodes depending on their agent's readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Label selector of the agents' pods.
    pub pod_labels: String,
    /// Their namespace, if not the operator's.
    pub pod_namespace: Option<String>,
    /// The taint's key.
    pub taint: String,
    /// Remove the taint from nodes whose agent is ready.
    pub remove_taint: bool,
    /// Taint nodes whose agent exists but is not ready.
    pub set_taint: bool,
    /// Set the condition NetworkUnavailable.
    pub set_condition: bool,
}

impl Readiness {
    /// Whether anything is done at all.
    #[must_use]
    pub const fn does_something(&self) -> bool {
        self.remove_taint || self.set_taint || self.set_condition
    }
}

/// What matters of a Node. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    pub name: String,
    /// All taints, including others'.
    pub taints: Vec<Taint>,
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
pub struct AgentRow {
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

/// What matters of a Node.
#[must_use]
pub fn ingest_node(node: &Node) -> Option<NodeRow> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
    Some(NodeRow {
        name: node.name_any(),
        taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
        condition: condition.map(|c| (c.status.clone(), c.reason.clone().unwrap_or_default())),
    })
}

/// An agent's pod, once it has a node.
#[must_use]
pub fn ingest_agent(pod: &Pod) -> Option<AgentRow> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Some(AgentRow { pod: pod.name_any(), node, ready })
}

/// The changes to a node.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// The taints it should have.
    pub taints: Option<Vec<Taint>>,
    /// Whether to report that its network is available.
    pub condition: bool,
}

/// `agent` says whether the node's agent is ready, if it has one.
#[must_use]
pub fn resolve(config: &Readiness, node: &NodeRow, agent: Option<bool>) -> Wanted {
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

/// Whether the agent of a node is ready, if the node has one. While an agent is being replaced there may be two: one
/// ready agent is enough.
#[must_use]
pub fn agent_of(node: &str, agents: &Snapshot<AgentRow>) -> Option<bool> {
    let first = (node.to_owned(), String::new());
    let of_node = agents.range(first..).take_while(|agent| agent.node == node);
    of_node.map(|agent| agent.ready).reduce(|a, b| a || b)
}

/// The JSON patch (RFC 6902) that gives a node these taints. The list is replaced as a whole, so only if nobody else has changed it.
#[must_use]
pub fn taints_patch(node: &NodeRow, taints: &[Taint]) -> Value {
    // That there is none is tested by null: the first one of somebody else may have come meanwhile.
    let present = if node.taints.is_empty() { Value::Null } else { json!(node.taints) };
    json!([
        {"op": "test", "path": "/spec/taints", "value": present},
        {"op": "add", "path": "/spec/taints", "value": taints},
    ])
}

/// The strategic merge patch of a node's status that reports its network as available.
#[must_use]
pub fn condition_patch(now: Timestamp) -> Value {
    let now = now.to_string();
    let condition = json!({
        "type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE,
        "lastTransitionTime": now, "lastHeartbeatTime": now,
    });
    json!({"status": {"conditions": [condition]}})
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn while_an_agent_is_replaced_one_that_is_ready_is_enough() {
        let (mut writer, agents) = statedb::table("agents");
        let row = |pod: &str, node: &str, ready| AgentRow { pod: pod.into(), node: node.into(), ready };
        writer.replace([row("a", "n", false), row("b", "n", true), row("c", "m", false), row("d", "nn", true)]);
        writer.commit();
        let agents = agents.snapshot();
        assert_eq!(["n", "m", "other"].map(|node| agent_of(node, &agents)), [Some(true), Some(false), None]);
    }

    #[test]
    fn taints_are_replaced_only_as_they_were_seen() {
        let taints = [taint("a")];
        let patch = taints_patch(&node(&[OURS], None), &taints);
        assert_eq!((&patch[0]["op"], &patch[0]["value"][0]["key"]), (&json!("test"), &json!(OURS)));
        assert_eq!((&patch[1]["op"], &patch[1]["value"][0]["key"]), (&json!("add"), &json!("a")));
        let first = taints_patch(&node(&[], None), &taints);
        assert_eq!(first[0], json!({"op": "test", "path": "/spec/taints", "value": null}));
        assert_eq!(first[1], patch[1]);
    }
}
