// SPDX-License-Identifier: Apache-2.0
//! Who talks to whom. An edge goes from whom opens connections to whom they are opened to.

use super::{Class, Event};
use crate::name::{Kind, Name, labels, text};
use hubble::proto::flow::{Endpoint, Flow};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// The most vertices and edges that are kept.
pub(super) const VERTICES: usize = 2_500;
pub(super) const EDGES: usize = 10_000;
/// The most ports of an edge, and names of Services of a vertex, that are told apart.
const PORTS: usize = 16;
const SERVICES: usize = 4;

/// A vertex, as it is told to viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Vertex {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) services: BTreeSet<String>,
    #[serde(skip)]
    version: u64,
}

/// How many flows, and when the last one was, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) flows: u64,
    pub(crate) last: i64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Port {
    pub(crate) protocol: &'static str,
    pub(crate) port: Option<u32>,
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) dropped: u64,
}

/// An edge, as it is told to viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Edge {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) allowed: Count,
    pub(crate) denied: Count,
    pub(crate) dropped: Count,
    pub(crate) ports: Vec<Port>,
    /// Why the last one that did not arrive was dropped, and the rules that denied it.
    pub(crate) reason: String,
    pub(crate) rules: Vec<String>,
    pub(crate) proposal: Option<u64>,
    #[serde(skip)]
    version: u64,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    /// Flows of vertices that there was no room for.
    pub(crate) vertices: u64,
    pub(crate) edges: u64,
}

/// The whole graph.
#[derive(Default)]
pub(crate) struct Graph {
    vertices: Vec<Vertex>,
    names: HashMap<Name, u32>,
    edges: HashMap<(u32, u32), Edge>,
    pub(crate) left_out: LeftOut,
}

impl Graph {
    /// Counts a flow; what is only looked at draws no edge.
    pub(crate) fn add(&mut self, flow: &Flow, event: &Event, version: u64) {
        if event.class == Class::Other {
            return;
        }
        let none = Endpoint::default();
        let source = (flow.source.as_ref().unwrap_or(&none), flow.source_names.as_slice());
        let destination = (flow.destination.as_ref().unwrap_or(&none), flow.destination_names.as_slice());
        let (opener, target) = if event.reply { (destination, source) } else { (source, destination) };
        let (Some(from), Some(to)) = (self.vertex(opener, version), self.vertex(target, version)) else {
            self.left_out.vertices += 1;
            return;
        };
        self.served_as(to, flow, event.reply, version);
        let room = self.edges.len() < EDGES;
        match self.edges.get_mut(&(from, to)) {
            Some(edge) => edge.add(event, version),
            None if room => {
                let mut edge = Edge::between(from, to);
                edge.add(event, version);
                self.edges.insert((from, to), edge);
            }
            None => self.left_out.edges += 1,
        }
    }

    fn vertex(&mut self, (endpoint, names): (&Endpoint, &[String]), version: u64) -> Option<u32> {
        let name = Name::of(endpoint, names);
        if let Some(id) = self.names.get(&name) {
            return Some(*id);
        }
        let id = u32::try_from(self.vertices.len()).ok().filter(|id| (*id as usize) < VERTICES)?;
        let Name { kind, namespace, name: own } = name.clone();
        let services = BTreeSet::new();
        self.vertices.push(Vertex { id, kind, namespace, name: own, labels: labels(endpoint), services, version });
        self.names.insert(name, id);
        Some(id)
    }

    /// Remembers the Service by whose name the vertex was asked.
    fn served_as(&mut self, id: u32, flow: &Flow, reply: bool, version: u64) {
        let service = if reply { &flow.source_service } else { &flow.destination_service };
        let Some(service) = service.as_ref().filter(|service| !service.name.is_empty()) else { return };
        let Some(vertex) = usize::try_from(id).ok().and_then(|id| self.vertices.get_mut(id)) else { return };
        let name = text(&format!("{}/{}", service.namespace, service.name));
        if vertex.services.len() < SERVICES && vertex.services.insert(name) {
            vertex.version = version;
        }
    }

    /// What has changed after a version.
    pub(crate) fn since(&self, version: u64) -> (Vec<&Vertex>, Vec<&Edge>) {
        let vertices = self.vertices.iter().filter(|vertex| vertex.version > version).collect();
        let edges = self.edges.values().filter(|edge| edge.version > version).collect();
        (vertices, edges)
    }

    /// Takes out edges that were last seen before this time, and vertices without any; whether there were some. Vertices are numbered anew.
    pub(crate) fn sweep(&mut self, before: i64) -> bool {
        if self.edges.values().all(|edge| edge.last() >= before) {
            return false;
        }
        let old = std::mem::take(self);
        let mut numbers = HashMap::new();
        for edge in old.edges.into_values().filter(|edge| edge.last() >= before) {
            let mut place = |id: u32| {
                *numbers.entry(id).or_insert_with(|| {
                    let new = u32::try_from(self.vertices.len()).unwrap_or(u32::MAX);
                    let vertex = usize::try_from(id).ok().and_then(|id| old.vertices.get(id));
                    self.vertices.extend(vertex.cloned().map(|vertex| Vertex { id: new, ..vertex }));
                    new
                })
            };
            let (from, to) = (place(edge.from), place(edge.to));
            self.edges.insert((from, to), Edge { from, to, ..edge });
        }
        self.names = old.names.into_iter().filter_map(|(name, id)| Some((name, *numbers.get(&id)?))).collect();
        self.left_out = old.left_out;
        true
    }
}

impl Edge {
    fn between(from: u32, to: u32) -> Self {
        let none = Count::default();
        let (ports, rules) = (Vec::new(), Vec::new());
        let (allowed, denied, dropped) = (none, none, none);
        Self { from, to, allowed, denied, dropped, ports, reason: String::new(), rules, proposal: None, version: 0 }
    }

    fn last(&self) -> i64 {
        self.allowed.last.max(self.denied.last).max(self.dropped.last)
    }

    fn add(&mut self, event: &Event, version: u64) {
        self.version = version;
        let count = match event.class {
            Class::Allowed => &mut self.allowed,
            Class::Denied => &mut self.denied,
            Class::Dropped | Class::Other => &mut self.dropped,
        };
        count.flows += 1;
        count.last = count.last.max(event.time);
        if event.class != Class::Allowed {
            self.reason.clone_from(&event.reason);
            self.rules.clone_from(&event.deny);
            self.proposal = event.proposal;
        }
        if let Some(port) = self.port(event) {
            *match event.class {
                Class::Allowed => &mut port.allowed,
                Class::Denied => &mut port.denied,
                Class::Dropped | Class::Other => &mut port.dropped,
            } += 1;
        }
    }

    /// What the flow asks for; none if there are too many already, or if it is an answer of ICMP.
    fn port(&mut self, event: &Event) -> Option<&mut Port> {
        if event.protocol.starts_with("ICMP") && event.reply {
            return None;
        }
        let (protocol, port) = (event.protocol, event.service);
        let known = self.ports.iter().position(|known| (known.protocol, known.port) == (protocol, port));
        if known.is_none() && self.ports.len() < PORTS {
            self.ports.push(Port { protocol, port, allowed: 0, denied: 0, dropped: 0 });
            return self.ports.last_mut();
        }
        known.and_then(|at| self.ports.get_mut(at))
    }
}
