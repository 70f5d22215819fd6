// SPDX-License-Identifier: Apache-2.0
//! What the proxies of nodes have in force: each agent says so in a ConfigMap of its node's.

use crate::name::{ObjectName, ParentKind, ParentName};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use l7::Name;
use statedb::{Inputs, Reader, Tasks};
use std::collections::BTreeMap;

/// Label of these ConfigMaps.
pub const PROXY_REPORT: &str = "cilium.io/proxy-report";

/// What the proxy of a node has in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyReport {
    /// Name of the ConfigMap.
    pub name: String,
    /// Generations of Gateways and ListenerSets.
    pub generations: BTreeMap<ParentName, i64>,
}

impl statedb::Row for ProxyReport {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// The row of a ConfigMap with the label. What cannot be read says nothing.
#[must_use]
pub fn ingest_report(object: &core::ConfigMap) -> Option<ProxyReport> {
    let entry = |(key, value): (&String, &String)| Some((parse(key)?, value.parse().ok()?));
    let generations = object.data.iter().flatten().filter_map(entry).collect();
    Some(ProxyReport { name: object.metadata.name.clone()?, generations })
}

/// The ConfigMap of a node, which goes when the node does; of what [`crate::in_force`] says.
#[must_use]
pub fn report_object(node: &core::Node, namespace: &str, in_force: &BTreeMap<Name, i64>) -> core::ConfigMap {
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(format!("cilium-proxy-{node_name}")),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(PROXY_REPORT.to_owned(), String::new())])),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let data = in_force.iter().map(|(object, generation)| (key(object), generation.to_string()));
    core::ConfigMap { metadata, data: Some(data.collect()), ..core::ConfigMap::default() }
}

/// `KIND NAMESPACE/NAME` as a key, in which there may be no colon. Neither kinds nor namespaces have a dot, and nothing an underscore.
fn key(object: &str) -> String {
    object.replacen([' ', '/'], ".", 2).replace(':', "_")
}

fn parse(key: &str) -> Option<ParentName> {
    let mut words = key.splitn(3, '.');
    let kind = match words.next()? {
        "Gateway" => ParentKind::Gateway,
        "ListenerSet" => ParentKind::ListenerSet,
        _ => return None,
    };
    Some(ParentName { kind, name: ObjectName::new(words.next()?, words.next()?.replace('_', ":")) })
}

/// The newest generation of a Gateway or ListenerSet that a proxy has in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programmed {
    pub(crate) object: ParentName,
    pub(crate) generation: i64,
}

impl statedb::Row for Programmed {
    type Key = ParentName;
    fn key(&self) -> ParentName {
        self.object.clone()
    }
}

/// Keeps them.
pub(super) fn programmed(tasks: &Tasks, proxies: &Reader<ProxyReport>) -> Reader<Programmed> {
    let objects = |report: &ProxyReport| report.generations.keys().cloned().collect::<Vec<_>>();
    let by_object = proxies.index(objects);
    let inputs = Inputs::of(proxies, objects);
    let row = move |object: &ParentName, _: Option<&Programmed>| {
        let reports = by_object.get(object);
        let generation = reports.iter().filter_map(|report| report.generations.get(object)).max()?;
        Some(Programmed { object: object.clone(), generation: *generation })
    };
    statedb::derive(tasks, "gateway-programmed", inputs, row).rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_is_what_the_operator_reads() {
        let names = [
            ParentName::gateway(&ObjectName::new("shop", "edge.v2.example")),
            ParentName::listener_set(&ObjectName::new("shop", "edge")),
            ParentName::gateway(&ObjectName::new("shop", "ingress:web")),
        ];
        let said = names.iter().zip(1..).map(|(name, generation)| (Name::from(name.to_string()), generation)).collect();
        let object = report_object(&core::Node::default(), "cilium-secrets", &said);
        let is_key = |key: &String| key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        assert!(object.data.iter().flatten().all(|(key, _)| is_key(key)), "{object:?}");
        let read = ingest_report(&object).map(|report| report.generations);
        assert_eq!(read, Some(names.into_iter().zip(1..).collect()));
    }
}
