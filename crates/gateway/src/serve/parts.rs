// SPDX-License-Identifier: Apache-2.0
//! The parts of the snapshot, each derived by itself, and all of a change together.

use super::listeners::{self, At, Bindings};
use super::ports::Ports;
use super::{Part, PartName, Peers, Serving, mesh, routes};
use crate::cluster;
use crate::edge::Edge;
use crate::envoy::Placed;
use crate::ingress;
use crate::name::ObjectName;
use crate::objects::Objects;
use crate::resolve::Resolved;
use crate::route::{Attached, Content};
use crate::source::{Anchors, KeyPair, TokenKey};
use crate::tls_policy::{self, Policies};
use model::{IpEntry, Node};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::sync::Arc;

pub(super) fn derive(tasks: &Tasks, resolved: &Resolved, peers: &Peers, serving: &Serving) -> Derived<Part> {
    let mut parts = Parts::new(resolved, peers, serving);
    let mut inputs = inputs(resolved, &peers.addresses);
    if serving.gateways_at.is_some() || serving.ingresses_at.is_some() {
        let edges = resolved.edges.rows.clone();
        inputs = inputs.and(&peers.nodes, move |node| {
            let edges = edges.snapshot();
            let all = edges.iter().filter(|_| node.local).map(|edge| PartName::Edge(edge.gateway.clone()));
            all.collect::<Vec<_>>()
        });
        let ports = &resolved.objects.parameters;
        inputs = inputs.and(ports, |parameters| [PartName::Edge(parameters.name.clone())]);
    }
    if serving.topology {
        let routes = resolved.routes.rows.clone();
        inputs = inputs.and(&peers.nodes, move |node| {
            let routes = routes.snapshot();
            let of_routes = routes.iter().filter(|_| node.local).flat_map(|route| cluster::of_route(route));
            of_routes.map(PartName::Cluster).collect::<Vec<_>>()
        });
    }
    let routes = resolved.routes.rows.clone();
    inputs = inputs.and(&peers.token_keys, move |_| {
        let routes = routes.snapshot();
        routes.iter().map(|route| PartName::Route(route.name.clone())).collect::<Vec<_>>()
    });
    statedb::derive(tasks, "gateway-parts", inputs, move |name: &PartName, _| {
        let objects = parts.objects(name)?;
        Some(Part { name: name.clone(), objects, refused: parts.refused(name) })
    })
}

/// Which parts each row bears on.
fn inputs(resolved: &Resolved, addresses: &Reader<IpEntry>) -> Inputs<PartName> {
    let objects = &resolved.objects;
    let by_gateway = resolved.routes.rows.index(gateways);
    let by_service = resolved.routes.rows.index(services);
    let by_anchors = objects.tls_policies.index(tls_policy::anchors);
    let by_written = resolved.routes.rows.index(cluster::written_addresses);
    let clusters = |routes: Vec<Arc<Attached>>| -> Vec<PartName> {
        routes.iter().flat_map(|route| cluster::of_route(route)).map(PartName::Cluster).collect()
    };
    let by_endpoint =
        objects.slices.index(|slice| slice.endpoints.iter().map(|endpoint| endpoint.address.ip()).collect::<Vec<_>>());
    let [of_slice, of_service, of_policy, of_anchors, of_endpoint] = std::array::from_fn(|_| by_service.clone());
    let of_targets = move |routes: &Index<Attached, ObjectName>, targets: Vec<ObjectName>| -> Vec<PartName> {
        targets.iter().flat_map(|target| clusters(routes.get(target))).collect()
    };
    Inputs::of(&resolved.routes.rows, of_route)
        .and(&resolved.edges.rows, move |edge| {
            let mut parts = vec![PartName::Edge(edge.gateway.clone())];
            parts.extend(shown(edge).into_iter().map(PartName::KeyPair));
            parts.extend(trusted(edge).into_iter().map(PartName::Anchors));
            parts.extend(clusters(by_gateway.get(&edge.gateway)));
            parts
        })
        .and(&resolved.placed.rows, |placed| [PartName::RateLimits(placed.config.name.clone())])
        .and(&objects.slices, move |slice| clusters(of_slice.get(&slice.service)))
        .and(&objects.services, move |service| clusters(of_service.get(&service.name)))
        .and(addresses, move |entry| {
            let slices = by_endpoint.get(&entry.prefix.addr());
            let of_slices = slices.iter().flat_map(|slice| clusters(of_endpoint.get(&slice.service)));
            of_slices.chain(clusters(by_written.get(&entry.prefix.addr()))).collect::<Vec<_>>()
        })
        .and(&objects.key_pairs, |pair: &KeyPair| [PartName::KeyPair(pair.name.clone())])
        .and(&objects.tls_policies, move |policy| {
            let mut parts = of_targets(&of_policy, tls_policy::targets(policy));
            parts.extend(tls_policy::anchors(policy).into_iter().map(PartName::Anchors));
            parts
        })
        .and(&objects.anchors, move |anchors: &Anchors| {
            let policies = by_anchors.get(&anchors.name);
            let targets = policies.iter().flat_map(|policy| tls_policy::targets(policy)).collect();
            let mut parts = of_targets(&of_anchors, targets);
            parts.push(PartName::Anchors(anchors.name.clone()));
            parts
        })
}

fn of_route(route: &Attached) -> Vec<PartName> {
    let mut parts = vec![PartName::Route(route.name.clone())];
    parts.extend(cluster::of_route(route).into_iter().map(PartName::Cluster));
    parts.extend(streams(route).into_iter().map(PartName::Edge));
    parts.extend(mesh::services(route).into_iter().map(PartName::Service));
    parts
}

fn gateways(route: &Attached) -> Vec<ObjectName> {
    route.parents.iter().flat_map(|parent| &parent.places).map(|place| place.gateway.clone()).collect()
}

/// Gateways whose sockets have to know of the route, since it is not for requests.
fn streams(route: &Attached) -> Vec<ObjectName> {
    if matches!(route.content, Content::Stream(_)) { gateways(route) } else { Vec::new() }
}

/// Services that the route sends to.
fn services(route: &Attached) -> Vec<ObjectName> {
    route.ports.iter().map(|port| port.service.clone()).collect()
}

/// The certificates that a Gateway shows.
pub(crate) fn shown(edge: &Edge) -> Vec<ObjectName> {
    let listeners = edge.listeners.iter().flat_map(|listener| &listener.certificates);
    listeners.chain(&edge.client_certificate).cloned().collect()
}

/// The authorities that a Gateway verifies clients with.
pub(crate) fn trusted(edge: &Edge) -> Vec<ObjectName> {
    let clients = edge.listeners.iter().filter_map(|listener| listener.client.as_ref());
    clients.flat_map(|client| client.anchors.clone()).collect()
}

/// What parts are made of.
struct Parts {
    objects: Objects,
    edges: Reader<Edge>,
    routes: Reader<Attached>,
    placed: Reader<Placed>,
    streams: Index<Attached, ObjectName>,
    meshed: Index<Attached, ObjectName>,
    showing: Index<Edge, ObjectName>,
    trusting: Index<Edge, ObjectName>,
    policies: Index<crate::Source<k8s::gateway::BackendTlsPolicySpec>, ObjectName>,
    clusters: cluster::Context,
    here: Index<Node, bool>,
    token_keys: Reader<TokenKey>,
    serving: Serving,
    bindings: Bindings,
    ports: Ports,
}

impl Parts {
    fn new(resolved: &Resolved, peers: &Peers, serving: &Serving) -> Self {
        let (objects, edges, routes) = (&resolved.objects, &resolved.edges.rows, &resolved.routes.rows);
        let clusters = cluster::Context {
            objects: objects.clone(),
            routes: routes.index(cluster::of_route),
            slices: objects.slices.index(|slice| [slice.service.clone()]),
            policies: Policies::new(&objects.tls_policies),
            by_app_protocol: serving.app_protocol,
            edges: edges.clone(),
            addresses: peers.addresses.clone(),
            limits: serving.cluster_limits.clone(),
            here: serving.topology.then(|| peers.nodes.index(|node| [node.local])),
        };
        Self {
            streams: routes.index(streams),
            meshed: routes.index(mesh::services),
            showing: edges.index(shown),
            trusting: edges.index(trusted),
            policies: objects.tls_policies.index(tls_policy::anchors),
            clusters,
            here: peers.nodes.index(|node| [node.local]),
            token_keys: peers.token_keys.clone(),
            serving: serving.clone(),
            bindings: serving.into(),
            ports: Ports::default(),
            objects: objects.clone(),
            edges: edges.clone(),
            routes: routes.clone(),
            placed: resolved.placed.rows.clone(),
        }
    }

    fn objects(&mut self, name: &PartName) -> Option<Vec<l7::Object>> {
        match name {
            PartName::Edge(gateway) => self.sockets(gateway),
            PartName::Route(route) => {
                let key = self.token_keys.snapshot().iter().next().map(|row| row.0.clone());
                Some(routes::of_route(&*self.routes.snapshot().get(route)?, key.as_ref()))
            }
            PartName::Cluster(cluster) => cluster::resolve(&self.clusters, cluster),
            PartName::KeyPair(pair) => {
                let used = !self.showing.get(pair).is_empty();
                let (chain, key) = self.objects.key_pairs.snapshot().get(pair).filter(|_| used)?.content.clone()?;
                Some(vec![l7::Certificate { name: pair.to_string().into(), chain, key }.into()])
            }
            PartName::Service(service) => {
                let routes = self.meshed.get(service);
                mesh::of_service(self.bindings.of_services(), &mut self.ports, service, &routes)
            }
            PartName::RateLimits(config) => {
                let placed = self.placed.snapshot().get(config).filter(|placed| !placed.routes.is_empty())?;
                let limits = placed.config.limits.iter().cloned().map(l7::Object::from).collect::<Vec<_>>();
                (!limits.is_empty()).then_some(limits)
            }
            // Of these there is a table of its own.
            PartName::Client(_) | PartName::Permission(_) => None,
            PartName::Anchors(anchors) => {
                let used = !self.trusting.get(anchors).is_empty() || !self.policies.get(anchors).is_empty();
                let certificates = self.objects.anchors.snapshot().get(anchors).filter(|_| used)?.content.clone()?;
                Some(vec![l7::TrustAnchors { name: anchors.to_string().into(), certificates }.into()])
            }
        }
    }

    fn refused(&self, name: &PartName) -> Vec<String> {
        let owner = match name {
            PartName::Edge(gateway) => listeners::owner(gateway),
            PartName::Service(service) => mesh::owner(service),
            _ => return Vec::new(),
        };
        self.ports.refused(&owner).cloned().collect()
    }

    fn sockets(&mut self, gateway: &ObjectName) -> Option<Vec<l7::Object>> {
        match self.edges.snapshot().get(gateway).zip(self.at(gateway)) {
            Some((edge, at)) => {
                let routes = self.streams.get(gateway);
                Some(listeners::of_edge(self.bindings.of(gateway), &mut self.ports, (&edge, at), &routes))
            }
            None => {
                self.ports.keep(&listeners::owner(gateway), &[]);
                None
            }
        }
    }

    /// Where a Gateway is reached; nothing if not here.
    fn at(&self, gateway: &ObjectName) -> Option<At> {
        let of_ingress = ingress::behind(gateway).is_some();
        let labels = if of_ingress { &self.serving.ingresses_at } else { &self.serving.gateways_at };
        let Some(labels) = labels else { return Some(At::Service) };
        let here = self.here.get(&true).into_iter().next()?;
        if !labels.iter().all(|label| label.is_in(&here.labels)) {
            return None;
        }
        let parameters = self.objects.parameters.snapshot().get(gateway).filter(|_| of_ingress);
        Some(parameters.and_then(|parameters| parameters.host_port).map_or(At::Node, At::OnePort))
    }
}
