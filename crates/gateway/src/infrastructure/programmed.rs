// SPDX-License-Identifier: Apache-2.0
//! What the proxies of nodes have in force: each agent says so in a ConfigMap of its node's.

use crate::name::{ObjectName, ParentKind, ParentName};
use crate::serve::{ClosedPort, InForce};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use statedb::{Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Label of these ConfigMaps.
pub const PROXY_REPORT: &str = "cilium.io/proxy-report";
/// What its name begins with; that of the node follows.
const PREFIX: &str = "cilium-proxy-";
/// The entry that lists ports at which the node's proxies cannot listen.
const CLOSED: &str = "closed";
/// Nodes that a message names.
const NAMED: usize = 3;

/// What the proxy of a node has in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyReport {
    /// Name of the ConfigMap.
    pub name: String,
    /// Generations of Gateways and ListenerSets.
    pub generations: BTreeMap<ParentName, i64>,
    /// Ports of Gateways at which it cannot listen.
    pub closed: Vec<ClosedPort>,
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
    let closed = object.data.as_ref().and_then(|data| serde_json::from_str(data.get(CLOSED)?).ok());
    Some(ProxyReport { name: object.metadata.name.clone()?, generations, closed: closed.unwrap_or_default() })
}

/// The ConfigMap of a node, which goes when the node does; of what [`crate::in_force`] says.
#[must_use]
pub fn report_object(node: &core::Node, namespace: &str, in_force: &InForce) -> core::ConfigMap {
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(format!("{PREFIX}{node_name}")),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(PROXY_REPORT.to_owned(), String::new())])),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let data = in_force.generations.iter().map(|(object, generation)| (key(object), generation.to_string()));
    let mut data: BTreeMap<_, _> = data.collect();
    let closed = Some(&in_force.closed).filter(|closed| !closed.is_empty());
    data.extend(closed.and_then(|closed| Some((CLOSED.to_owned(), serde_json::to_string(closed).ok()?))));
    core::ConfigMap { metadata, data: Some(data), ..core::ConfigMap::default() }
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

/// What proxies have of a Gateway or ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programmed {
    pub(crate) object: ParentName,
    /// The newest generation that one has in force.
    pub(crate) generation: Option<i64>,
    /// Of a Gateway, ports at which some cannot listen: by number, and whether they are UDP's.
    pub(crate) closed: ClosedPorts,
}

impl Programmed {
    pub(crate) fn nothing(object: ParentName) -> Self {
        Self { object, generation: None, closed: ClosedPorts::new() }
    }
}

pub(crate) type ClosedPorts = BTreeMap<(u16, bool), Closed>;

/// A port at which a proxy cannot listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// No proxy can.
    pub(crate) everywhere: bool,
    /// Port, nodes and reasons.
    pub(crate) text: String,
}

impl statedb::Row for Programmed {
    type Key = ParentName;
    fn key(&self) -> ParentName {
        self.object.clone()
    }
}

/// Keeps them.
pub(super) fn programmed(tasks: &Tasks, proxies: &Reader<ProxyReport>) -> Reader<Programmed> {
    let objects = |report: &ProxyReport| {
        let closed = report.closed.iter().map(of_port);
        report.generations.keys().cloned().chain(closed).collect::<BTreeSet<_>>()
    };
    let by_object = proxies.index(objects);
    let inputs = Inputs::of(proxies, objects);
    let row = move |object: &ParentName, _: Option<&Programmed>| {
        let reports = by_object.get(object);
        let generation = reports.iter().filter_map(|report| report.generations.get(object)).max().copied();
        let closed = closed(object, &reports);
        let any = generation.is_some() || !closed.is_empty();
        any.then(|| Programmed { object: object.clone(), generation, closed })
    };
    statedb::derive(tasks, "gateway-programmed", inputs, row).rows
}

fn of_port(port: &ClosedPort) -> ParentName {
    ParentName::gateway(&ObjectName { namespace: Arc::clone(&port.namespace), name: Arc::clone(&port.name) })
}

/// What of a Gateway is closed somewhere, by the reports of all nodes that have anything of it.
fn closed(gateway: &ParentName, reports: &[Arc<ProxyReport>]) -> ClosedPorts {
    let mut by_port: BTreeMap<(u16, bool), BTreeMap<&str, &str>> = BTreeMap::new();
    for report in reports {
        let node = report.name.strip_prefix(PREFIX).unwrap_or(&report.name);
        for port in report.closed.iter().filter(|port| of_port(port) == *gateway) {
            by_port.entry((port.port, port.udp)).or_default().entry(node).or_insert(&port.reason);
        }
    }
    let closed = |((port, udp), nodes): ((u16, bool), BTreeMap<&str, &str>)| {
        let mut named: Vec<_> = nodes.iter().take(NAMED).map(|(node, reason)| format!("{node}, {reason}")).collect();
        named.extend((nodes.len() > NAMED).then(|| format!("and {} more", nodes.len() - NAMED)));
        let protocol = if udp { "UDP" } else { "TCP" };
        let text = format!("nobody listens at port {port}/{protocol} of the nodes: {}", named.join("; "));
        ((port, udp), Closed { everywhere: nodes.len() == reports.len(), text })
    };
    by_port.into_iter().map(closed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn what_an_agent_says_is_what_the_operator_reads() {
        let names = [
            ParentName::gateway(&ObjectName::new("shop", "edge.v2.example")),
            ParentName::listener_set(&ObjectName::new("shop", "edge")),
            ParentName::gateway(&ObjectName::new("shop", "ingress:web")),
        ];
        let said = names.iter().zip(1..).map(|(name, generation)| (l7::Name::from(name.to_string()), generation));
        let port = ClosedPort {
            namespace: "shop".into(),
            name: "edge".into(),
            port: 80,
            udp: false,
            reason: "[::]:80: in use".into(),
        };
        let said = InForce { generations: said.collect(), closed: BTreeSet::from([port.clone()]) };
        let object = report_object(&core::Node::default(), "cilium-secrets", &said);
        let is_key = |key: &String| key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        assert!(object.data.iter().flatten().all(|(key, _)| is_key(key)), "{object:?}");
        let read = ingest_report(&object).unwrap();
        assert_eq!(read.generations, names.into_iter().zip(1..).collect());
        assert_eq!(read.closed, [port]);
    }

    #[test]
    fn a_port_that_is_closed_is_told_with_its_nodes_and_whether_it_is_open_anywhere() {
        let gateway = ParentName::gateway(&ObjectName::new("shop", "edge"));
        let report = |node: usize, ports: &[u16]| {
            let closed = |port: &u16| ClosedPort {
                namespace: "shop".into(),
                name: "edge".into(),
                port: *port,
                udp: false,
                reason: format!("0.0.0.0:{port}: in use"),
            };
            let closed = ports.iter().map(closed).collect();
            Arc::new(ProxyReport { name: format!("cilium-proxy-n{node}"), generations: BTreeMap::new(), closed })
        };
        let told = closed(&gateway, &[report(0, &[80]), report(1, &[80, 443])]);
        let text = "nobody listens at port 80/TCP of the nodes: n0, 0.0.0.0:80: in use; n1, 0.0.0.0:80: in use";
        assert_eq!(told.get(&(80, false)), Some(&Closed { everywhere: true, text: text.into() }));
        assert_eq!(told.get(&(443, false)).map(|closed| closed.everywhere), Some(false));
        let many: Vec<_> = (0..5).map(|node| report(node, &[80])).collect();
        assert!(closed(&gateway, &many)[&(80, false)].text.ends_with("; and 2 more"));
    }
}
