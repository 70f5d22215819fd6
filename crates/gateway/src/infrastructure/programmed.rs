// SPDX-License-Identifier: Apache-2.0
//! On which nodes each Gateway and ListenerSet is in force.

use crate::edge::Edge;
use crate::ingress;
use crate::name::{ObjectName, ParentKind, ParentName};
use crate::serve::ClosedPort;
use crate::source::Meta;
use statedb::{Index, Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{NodeAddresses, Observed, ServiceConfig};

/// Nodes that a message names.
const NAMED: usize = 3;

/// The uid of an object, unless an older agent tells of it, and its generation.
pub(super) type State = (Option<Arc<str>>, i64);

/// What the proxies of a node have in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeReport {
    pub(super) node: Arc<str>,
    /// One takes connections, and will.
    pub(super) serves: bool,
    /// Of each object, in which editions (an older agent does not tell them apart), and the generation of each.
    pub(super) in_force: BTreeMap<ParentName, Vec<State>>,
    /// Ports of Gateways at which they cannot listen.
    pub(super) closed: Vec<ClosedPort>,
}

impl statedb::Row for NodeReport {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        Arc::clone(&self.node)
    }
}

impl NodeReport {
    fn objects(&self) -> BTreeSet<ParentName> {
        self.in_force.keys().cloned().chain(self.closed.iter().map(of_port)).collect()
    }

    fn has(&self, object: &ParentName, wanted: &Meta) -> bool {
        let states = self.in_force.get(object).map_or(&[][..], Vec::as_slice);
        let same = |uid: &Option<Arc<str>>| uid.as_ref().is_none_or(|uid| *uid == wanted.uid);
        states.iter().any(|(uid, generation)| same(uid) && *generation >= wanted.generation)
    }
}

/// A node whose proxy takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Serving(Arc<str>);

impl statedb::Row for Serving {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// Where a Gateway or ListenerSet is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programmed {
    pub(crate) object: ParentName,
    /// Of which object, and of which state of it, this is said.
    pub(crate) wanted: Meta,
    /// How many nodes have it in force.
    pub(crate) nodes: usize,
    /// Those that have not, though their proxies take connections.
    pub(crate) missing: BTreeSet<Arc<str>>,
    /// Of the Gateway, ports at which some cannot listen: by number, and whether they are UDP's.
    pub(crate) closed: ClosedPorts,
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

impl Programmed {
    /// `in force on N of M nodes`, with those that lack it.
    pub(crate) fn progress(&self) -> String {
        let named: Vec<_> = self.missing.iter().map(ToString::to_string).collect();
        let all = self.nodes + self.missing.len();
        format!("in force on {} of {all} nodes, not on {}", self.nodes, some(named, ", "))
    }
}

/// The first of them, and how many there are besides.
fn some(mut texts: Vec<String>, separator: &str) -> String {
    let more = texts.len().saturating_sub(NAMED);
    texts.truncate(NAMED);
    texts.extend((more > 0).then(|| format!("and {more} more")));
    texts.join(separator)
}

/// Keeps it.
pub(super) fn derive(
    tasks: &Tasks,
    edges: &Reader<Edge>,
    reports: &Reader<NodeReport>,
    observed: &Observed,
    config: &ServiceConfig,
) -> Reader<Programmed> {
    let serving = {
        let all = reports.clone();
        let inputs = Inputs::of(reports, |report: &NodeReport| [Arc::clone(&report.node)]);
        let row = move |node: &Arc<str>, _: Option<&Serving>| {
            all.snapshot().get(node).filter(|report| report.serves).map(|_| Serving(Arc::clone(node)))
        };
        statedb::derive(tasks, "gateway-serving-nodes", inputs, row).rows
    };
    let all = || {
        let edges = edges.clone();
        move || edges.snapshot().iter().flat_map(|edge| parents(edge)).collect::<Vec<_>>()
    };
    let (of_serving, of_nodes, of_ingress_nodes) = (all(), all(), all());
    let of_report = edges.clone();
    let inputs = Inputs::of(edges, parents)
        .and(reports, move |report| {
            let edges = of_report.snapshot();
            // A port that is closed is so for what adds to its Gateway too.
            let closed = report.closed.iter().filter_map(|port| edges.get(&of_port(port).name));
            let sets = closed.flat_map(|edge| parents(&edge));
            report.in_force.keys().cloned().chain(sets).collect::<BTreeSet<_>>()
        })
        .and(&serving, move |_| of_serving())
        .and(&observed.nodes, move |_| of_nodes())
        .and(&observed.ingress_nodes, move |_| of_ingress_nodes());
    let nodes = Nodes {
        by_object: reports.index(NodeReport::objects),
        serving,
        at: config.clone(),
        gateways_at: observed.nodes.clone(),
        ingresses_at: observed.ingress_nodes.clone(),
    };
    let by_parent = edges.index(parents);
    let row = move |object: &ParentName, _: Option<&Programmed>| {
        let edge = by_parent.get(object).into_iter().next()?;
        Some(nodes.programmed(object, &edge))
    };
    statedb::derive(tasks, "gateway-programmed", inputs, row).rows
}

fn parents(edge: &Edge) -> Vec<ParentName> {
    edge.parents().collect()
}

/// What nodes say.
struct Nodes {
    by_object: Index<NodeReport, ParentName>,
    serving: Reader<Serving>,
    at: ServiceConfig,
    gateways_at: Reader<NodeAddresses>,
    ingresses_at: Reader<NodeAddresses>,
}

impl Nodes {
    fn programmed(&self, object: &ParentName, edge: &Edge) -> Programmed {
        let wanted = edge.wanted(object);
        let gateway = ParentName::gateway(&edge.gateway);
        let reports = self.by_object.get(object);
        let of_gateway = if *object == gateway { reports.clone() } else { self.by_object.get(&gateway) };
        let have: BTreeSet<_> =
            reports.iter().filter(|report| report.has(object, &wanted)).map(|report| &report.node).collect();
        // What cannot have a port says so, and may have nothing else of it.
        let cannot = |report: &&Arc<NodeReport>| report.closed.iter().any(|port| of_port(port) == gateway);
        let cannot: BTreeSet<_> = of_gateway.iter().filter(cannot).map(|report| &report.node).collect();
        let serving = self.serving.snapshot();
        let others = serving.iter().map(|row| &row.0).filter(|node| !have.contains(node) && !cannot.contains(node));
        Programmed {
            object: object.clone(),
            nodes: have.len(),
            missing: others.filter(|node| self.is_to_serve(&edge.gateway, node)).cloned().collect(),
            closed: closed(&gateway, &of_gateway),
            wanted,
        }
    }

    fn is_to_serve(&self, gateway: &ObjectName, node: &Arc<str>) -> bool {
        let at = if ingress::behind(gateway).is_some() { &self.ingresses_at } else { &self.gateways_at };
        !self.at.at_nodes(gateway) || at.snapshot().get(&node.to_string()).is_some()
    }
}

impl Edge {
    /// Which state of an object is to be in force.
    fn wanted(&self, object: &ParentName) -> Meta {
        let set = self.sets.iter().find(|set| object.kind == ParentKind::ListenerSet && set.name == object.name);
        set.map_or_else(|| self.meta.clone(), |set| set.meta.clone())
    }
}

fn of_port(port: &ClosedPort) -> ParentName {
    ParentName::gateway(&ObjectName { namespace: Arc::clone(&port.namespace), name: Arc::clone(&port.name) })
}

/// What of a Gateway is closed somewhere, by the reports of all nodes that have anything of it.
fn closed(gateway: &ParentName, reports: &[Arc<NodeReport>]) -> ClosedPorts {
    let mut by_port: BTreeMap<(u16, bool), BTreeMap<&str, &str>> = BTreeMap::new();
    for report in reports {
        for port in report.closed.iter().filter(|port| of_port(port) == *gateway) {
            by_port.entry((port.port, port.udp)).or_default().entry(&report.node).or_insert(&port.reason);
        }
    }
    let closed = |((port, udp), nodes): ((u16, bool), BTreeMap<&str, &str>)| {
        let named = nodes.iter().map(|(node, reason)| format!("{node}, {reason}")).collect();
        let protocol = if udp { "UDP" } else { "TCP" };
        let text = format!("nobody listens at port {port}/{protocol} of the nodes: {}", some(named, "; "));
        ((port, udp), Closed { everywhere: nodes.len() == reports.len(), text })
    };
    by_port.into_iter().map(closed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

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
            let node = format!("n{node}").into();
            Arc::new(NodeReport { node, serves: true, in_force: BTreeMap::new(), closed })
        };
        let told = closed(&gateway, &[report(0, &[80]), report(1, &[80, 443])]);
        let text = "nobody listens at port 80/TCP of the nodes: n0, 0.0.0.0:80: in use; n1, 0.0.0.0:80: in use";
        assert_eq!(told.get(&(80, false)), Some(&Closed { everywhere: true, text: text.into() }));
        assert_eq!(told.get(&(443, false)).map(|closed| closed.everywhere), Some(false));
        let many: Vec<_> = (0..5).map(|node| report(node, &[80])).collect();
        assert!(closed(&gateway, &many)[&(80, false)].text.ends_with("; and 2 more"));
    }
}
