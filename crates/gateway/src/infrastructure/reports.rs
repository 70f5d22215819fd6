// SPDX-License-Identifier: Apache-2.0
//! What an agent says of its node's proxies, in ConfigMaps: none of what is in them can be refused for its name, and one that would be too large is
//! continued in others.

use super::programmed::NodeReport;
use crate::name::{ObjectName, ParentKind, ParentName, shortened};
use crate::serve::{ClosedPort, Edition, InForce};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Deserialize, Serialize};
use statedb::{Index, Inputs, Reader, Tasks};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Label of these ConfigMaps.
pub const PROXY_REPORT: &str = "cilium.io/proxy-report";
/// What the name of the first of a node begins with; that of the node follows.
const FIRST: &str = "cilium-proxy-";
/// What those of the others begin with; number and node follow.
const OTHERS: &str = "cilium-proxies-";
/// The entry with all of it.
const REPORT: &str = "report";
/// The entry in which agents before this listed ports at which the node's proxies cannot listen, beside one for each Gateway.
const CLOSED: &str = "closed";
/// The most that a name can have.
const LONGEST: usize = 253;
/// Bytes of a ConfigMap, of which it may have 1 MiB.
const ROOM: usize = 256 * 1024;

/// A ConfigMap of a node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyReport {
    /// Name of the ConfigMap.
    pub name: String,
    content: Content,
}

impl statedb::Row for ProxyReport {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// What is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    node: Arc<str>,
    part: usize,
    /// How many there are of this node. What is left of more than that says nothing.
    parts: usize,
    /// A proxy of the node takes connections, and will.
    serves: bool,
    in_force: Vec<Held>,
    closed: Vec<ClosedPort>,
}

/// What a proxy has in force of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// Kind, namespace and name.
    object: String,
    /// None: the agent is one that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Arc<str>>,
    generation: i64,
}

/// The row of a ConfigMap with the label. What cannot be read says nothing.
#[must_use]
pub fn ingest_report(object: &core::ConfigMap) -> Option<ProxyReport> {
    let name = object.metadata.name.clone()?;
    let data = object.data.clone().unwrap_or_default();
    let content = match data.get(REPORT) {
        Some(report) => serde_json::from_str(report).ok()?,
        None => of_older_agent(&name, &data),
    };
    Some(ProxyReport { name, content })
}

/// An entry for each object: `KIND.NAMESPACE.NAME`, with an underscore for each colon, and its generation.
fn of_older_agent(name: &str, data: &BTreeMap<String, String>) -> Content {
    let held = |(key, value): (&String, &String)| {
        let object = key.replacen('.', " ", 1).replacen('.', "/", 1).replace('_', ":");
        Some(Held { object, uid: None, generation: value.parse().ok()? })
    };
    let in_force: Vec<_> = data.iter().filter_map(held).collect();
    let closed: Vec<_> = data.get(CLOSED).and_then(|closed| serde_json::from_str(closed).ok()).unwrap_or_default();
    let node = Arc::from(name.strip_prefix(FIRST).unwrap_or(name));
    Content { node, part: 0, parts: 1, serves: !in_force.is_empty() || !closed.is_empty(), in_force, closed }
}

/// The ConfigMaps of a node, which go when the node does; of what [`crate::in_force`] says.
#[must_use]
pub fn report_objects(node: &core::Node, namespace: &str, in_force: &InForce) -> Vec<core::ConfigMap> {
    let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
    let mut contents = contents(in_force);
    let parts = contents.len();
    for (part, content) in contents.iter_mut().enumerate() {
        (content.node, content.part, content.parts) = (Arc::clone(&name), part, parts);
    }
    contents.iter().filter_map(|content| object(node, namespace, content)).collect()
}

/// In the order in which they are told of, as many to each as have room.
fn contents(in_force: &InForce) -> Vec<Content> {
    let first = Content { serves: in_force.serves, ..Content::default() };
    let (mut all, mut room) = (vec![first], ROOM);
    let mut add = |size: usize, put: &dyn Fn(&mut Content)| {
        if size > room {
            all.push(Content { serves: in_force.serves, ..Content::default() });
            room = ROOM;
        }
        room = room.saturating_sub(size);
        all.last_mut().into_iter().for_each(put);
    };
    for (Edition { object, uid }, generation) in &in_force.generations {
        let held = Held { object: object.to_string(), uid: Some(Arc::clone(uid)), generation: *generation };
        add(size(&held), &|content| content.in_force.push(held.clone()));
    }
    for closed in &in_force.closed {
        add(size(closed), &|content| content.closed.push(closed.clone()));
    }
    all
}

fn size(entry: &impl Serialize) -> usize {
    serde_json::to_string(entry).map_or(0, |text| text.len() + 1)
}

fn object(node: &core::Node, namespace: &str, content: &Content) -> Option<core::ConfigMap> {
    let name = match content.part {
        0 => format!("{FIRST}{}", content.node),
        part => format!("{OTHERS}{part}-{}", content.node),
    };
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: content.node.to_string(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(shortened(&name, LONGEST)),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(PROXY_REPORT.to_owned(), String::new())])),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([(REPORT.to_owned(), serde_json::to_string(content).ok()?)]);
    Some(core::ConfigMap { metadata, data: Some(data), ..core::ConfigMap::default() })
}

/// Keeps what each node says, of all its ConfigMaps together.
pub(super) fn by_node(tasks: &Tasks, reports: &Reader<ProxyReport>) -> Reader<NodeReport> {
    let node = |report: &ProxyReport| [Arc::clone(&report.content.node)];
    let of_node = reports.index(node);
    let row = move |node: &Arc<str>, _: Option<&NodeReport>| together(node, &of_node);
    statedb::derive(tasks, "gateway-node-reports", Inputs::of(reports, node), row).rows
}

fn together(node: &Arc<str>, of_node: &Index<ProxyReport, Arc<str>>) -> Option<NodeReport> {
    let reports = of_node.get(node);
    let first = &reports.iter().find(|report| report.content.part == 0)?.content;
    let mut whole =
        NodeReport { node: Arc::clone(node), serves: first.serves, in_force: BTreeMap::new(), closed: Vec::new() };
    for part in reports.iter().map(|report| &report.content).filter(|part| part.part < first.parts) {
        for held in &part.in_force {
            if let Some(object) = parse(&held.object) {
                let state = (held.uid.clone(), held.generation);
                whole.in_force.entry(object).or_default().push(state);
            }
        }
        whole.closed.extend(part.closed.iter().cloned());
    }
    Some(whole)
}

fn parse(object: &str) -> Option<ParentName> {
    let (kind, name) = object.split_once(' ')?;
    let (namespace, name) = name.split_once('/')?;
    let kind = match kind {
        "Gateway" => ParentKind::Gateway,
        "ListenerSet" => ParentKind::ListenerSet,
        _ => return None,
    };
    Some(ParentName { kind, name: ObjectName::new(namespace, name) })
}

#[cfg(test)]
mod tests;
