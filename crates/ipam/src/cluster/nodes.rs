// SPDX-License-Identifier: Apache-2.0
//! What a CiliumNode has and lacks, and what to write to it. Pure.

use super::{Allocator, Decision, NodeCidrs};
use ipnet::IpNet;
use k8s::Warning;
use k8s::cilium::CiliumNode;
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use statedb::{Row, Snapshot};
use std::time::Instant;

/// Annotation of CiliumNodes to ignore.
const IGNORE_ANNOTATION: &str = "ipam.cilium.io/ignore";

/// What matters of a CiliumNode. One row per node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    pub name: String,
    reference: ObjectReference,
    created: String,
    version: String,
    pod_cidrs: Vec<IpNet>,
    /// The error in a pod CIDR that cannot be parsed.
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

/// The row of a CiliumNode. Valid pod CIDRs count as taken even next to invalid ones: another node must not get them.
#[must_use]
pub fn ingest_node(node: &CiliumNode) -> Option<NodeRow> {
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
        reference: node.object_ref(&()),
        created: node.creation_timestamp().map(|time| time.0.to_string()).unwrap_or_default(),
        version: node.resource_version().unwrap_or_default(),
        pod_cidrs,
        unreadable,
        error: error.unwrap_or_default(),
        ignored: node.annotations().get(IGNORE_ANNOTATION).is_some_and(|value| value == "true"),
    })
}

/// What to write to a CiliumNode.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    PodCidrs(Vec<IpNet>),
    /// The error for its status; empty to clear it.
    Error(String),
}

impl Write {
    /// The merge patch of the object, or of its status.
    #[must_use]
    pub fn patch(&self, node: &NodeRow) -> Value {
        match self {
            // Conditional on the version that was decided on: a concurrent writer of pod CIDRs wins.
            Self::PodCidrs(cidrs) => {
                let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                json!({"metadata": {"resourceVersion": node.version}, "spec": {"ipam": {"podCIDRs": cidrs}}})
            }
            Self::Error(error) => json!({"status": {"ipam": {"operator-status": {"error": error}}}}),
        }
    }

    /// The message for people.
    #[must_use]
    pub fn warning(&self, node: &NodeRow) -> Option<Warning> {
        match self {
            Self::Error(error) if !error.is_empty() => Some(Warning {
                about: node.reference.clone(),
                reason: "PodCIDRsRefused",
                action: "Allocate",
                note: error.clone(),
            }),
            Self::PodCidrs(_) | Self::Error(_) => None,
        }
    }
}

/// The result of one pass over all nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes {
    /// What to write to which node.
    pub writes: Vec<(NodeRow, Write)>,
    /// How many nodes do not get what they need.
    pub refused: usize,
}

impl Allocator {
    /// Gives each node what it lacks. Does nothing until all nodes are known: what the others have would look free.
    pub fn provide(&mut self, nodes: &Snapshot<NodeRow>, now: Instant) -> Option<Writes> {
        if !nodes.initialized() {
            return None;
        }
        // An ignored node gets nothing, but what it has is taken.
        let counted = nodes.iter().filter(|node| !node.ignored || !node.pod_cidrs.is_empty());
        let cidrs: Vec<NodeCidrs> = counted
            .map(|node| NodeCidrs {
                name: node.name.clone(),
                age: node.created.clone(),
                pod_cidrs: node.pod_cidrs.clone(),
            })
            .collect();
        let decisions = self.resolve(&cidrs, now);
        let refused = decisions.values().filter(|decision| matches!(decision, Decision::Refuse(_))).count();
        let write = |node: &NodeRow| {
            let error = match decisions.get(&node.name) {
                _ if !node.unreadable.is_empty() => &node.unreadable,
                Some(Decision::Assign(cidrs)) => return Some(Write::PodCidrs(cidrs.clone())),
                Some(Decision::Refuse(reason)) => reason,
                Some(Decision::Keep) | None => "",
            };
            (node.error != error).then(|| Write::Error(error.to_owned()))
        };
        let writes = nodes.iter().filter(|node| !node.ignored);
        let writes = writes.filter_map(|node| Some((NodeRow::clone(node), write(node)?))).collect();
        Some(Writes { writes, refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Pools;
    use std::time::Duration;

    fn node(name: &str, cidrs: &[&str], error: &str) -> NodeRow {
        let object = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7"},
            "spec": {"ipam": {"podCIDRs": cidrs}},
            "status": {"ipam": {"operator-status": {"error": error}}},
        });
        ingest_node(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_node_is_ignored_if_it_says_so_and_events_are_about_all_of_its_versions() {
        let ignored = |value: &str| {
            let object = json!({"metadata": {"name": "a", "annotations": {IGNORE_ANNOTATION: value}}, "spec": {}});
            ingest_node(&serde_json::from_value(object).unwrap()).unwrap().ignored
        };
        assert!(ignored("true") && !ignored("false") && !node("a", &[], "").ignored);
        let row = node("a", &[], "");
        assert_eq!((row.reference.name.as_deref(), row.reference.resource_version), (Some("a"), None));
    }

    /// What a pool of two /24 makes of these nodes.
    fn provide(nodes: &[NodeRow]) -> Writes {
        let (mut writer, rows) = statedb::table("nodes");
        let pools = Pools::new(&["10.0.0.0/23".parse().unwrap()], 24).unwrap();
        let mut allocator = Allocator::new(vec![pools], Duration::ZERO);
        assert_eq!(allocator.provide(&rows.snapshot(), now()), None, "nodes are not known yet");
        writer.replace(nodes.to_vec());
        writer.mark_initialized();
        allocator.provide(&rows.snapshot(), now()).unwrap()
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_pod_cidr_that_cannot_be_read_does_not_free_the_others_of_its_node() {
        let row = node("n", &["10.0.1.0/24", "10.0.2.0/240"], "");
        assert_eq!(row.pod_cidrs, ["10.0.1.0/24".parse().unwrap()]);
        assert_eq!(row.unreadable, "spec.ipam.podCIDRs: \"10.0.2.0/240\" is not a prefix");
        let writes = provide(std::slice::from_ref(&row)).writes;
        assert_eq!(writes, [(row.clone(), Write::Error(row.unreadable))]);
    }

    #[test]
    fn a_node_gets_what_it_lacks_or_is_told_why_not_and_only_once() {
        let (has, needs) = (node("a", &["10.0.0.0/24"], ""), node("b", &[], ""));
        let writes = provide(&[has.clone(), needs.clone()]).writes;
        assert_eq!(writes, [(needs.clone(), Write::PodCidrs(vec!["10.0.1.0/24".parse().unwrap()]))]);
        let patch = writes[0].1.patch(&needs);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["spec"]["ipam"]["podCIDRs"], json!(["10.0.1.0/24"]));
        assert_eq!(writes[0].1.warning(&needs), None);

        let full = [has, node("b", &["10.0.1.0/24"], "it was full"), node("c", &[], "")];
        let Writes { writes, refused } = provide(&full);
        assert_eq!((writes.len(), refused), (2, 1));
        assert_eq!(writes[0].1, Write::Error(String::new()), "b has one by now");
        assert_eq!(writes[0].1.warning(&writes[0].0), None);
        let warning = writes[1].1.warning(&writes[1].0).unwrap();
        assert!(warning.note.contains("is exhausted"), "{}", warning.note);
        assert_eq!((warning.about.kind.as_deref(), warning.about.uid.as_deref()), (Some("CiliumNode"), Some("uid-c")));
        let told = node("c", &[], &warning.note);
        assert_eq!(provide(&[full[0].clone(), node("b", &["10.0.1.0/24"], ""), told]).writes, []);
    }

    #[test]
    fn an_ignored_node_keeps_what_it_has_and_gets_nothing() {
        let ignored = |cidrs: &[&str]| NodeRow { ignored: true, ..node("a", cidrs, "") };
        assert_eq!(provide(&[ignored(&[])]).writes, []);
        let Writes { writes, .. } = provide(&[ignored(&["10.0.0.0/24"]), node("b", &[], "")]);
        assert_eq!(writes[0].1, Write::PodCidrs(vec!["10.0.1.0/24".parse().unwrap()]));
    }
}
