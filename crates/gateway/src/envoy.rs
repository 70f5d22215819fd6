// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfigs: Envoy's listeners, routes and clusters for Services, as the proxy here can do what they ask for.
//!
//! What cannot be done and lets nobody through is left out, and told. Whatever else is not known makes its listener refuse every request:
//! it may be there to refuse some.

mod action;
mod assignment;
mod attach;
mod bytes;
mod claims;
mod cluster;
mod fields;
mod headers;
mod limit;
mod listener;
mod matches;
mod problems;
mod routes;
#[cfg(test)]
mod tests;

pub(crate) use attach::routes as attached;
pub(crate) use claims::{Placed, place};
pub(crate) use cluster::Spoken;
pub(crate) use problems::problems;
pub use problems::{EnvoyProblems, envoy_configs_here};

use crate::name::{ObjectName, RouteKind, RouteName};
use crate::source::Meta;
use cluster::Cluster;
use fields::{Node, Reading};
use k8s::cilium::{CiliumClusterwideEnvoyConfig, CiliumEnvoyConfig, EnvoyConfigSpec, ServiceListener};
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::kube::Resource;
use k8s::kube::core::Selector;
use listener::Served;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The namespace of Services that clusterwide objects name without one.
const DEFAULT_NAMESPACE: &str = "default";
/// Ports that one object may claim.
const CLAIMS: usize = 256;

/// A CiliumEnvoyConfig or CiliumClusterwideEnvoyConfig.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyConfig {
    /// Namespace and name.
    pub name: ObjectName,
    /// Metadata.
    pub meta: Meta,
    /// The object, for events.
    pub(crate) about: ObjectReference,
    /// The nodes on which it holds; all if none.
    pub(crate) nodes: Option<Selector>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) listeners: BTreeMap<Arc<str>, Served>,
    /// Clusters, or why requests for them are refused.
    pub(crate) clusters: BTreeMap<Arc<str>, Result<Cluster, String>>,
    pub(crate) limits: Vec<l7::RateLimit>,
    /// What of it is not honoured.
    pub(crate) problems: Vec<String>,
}

/// A Service whose requests go to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) service: ObjectName,
    /// All if there is none.
    pub(crate) ports: Vec<u16>,
    pub(crate) listener: Arc<str>,
}

impl statedb::Row for EnvoyConfig {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// The row of an object of a namespace.
#[must_use]
pub fn ingest_envoy_config(object: &CiliumEnvoyConfig) -> Option<EnvoyConfig> {
    EnvoyConfig::ingest(object, object.spec.as_ref()?)
}

/// The row of an object of the cluster.
#[must_use]
pub fn ingest_clusterwide_envoy_config(object: &CiliumClusterwideEnvoyConfig) -> Option<EnvoyConfig> {
    EnvoyConfig::ingest(object, object.spec.as_ref()?)
}

impl EnvoyConfig {
    fn ingest<K: Resource<DynamicType = ()>>(object: &K, spec: &EnvoyConfigSpec) -> Option<Self> {
        let name = ObjectName::of(object.meta())?;
        let meta = Meta::from(object.meta());
        let reading = Reading::default();
        let mut parts = Parts::read(&reading, spec);
        let nodes = spec.node_selector.clone().map(Selector::try_from);
        let nodes = nodes.transpose().unwrap_or_else(|error| {
            parts.refused.get_or_insert_with(|| format!("spec.nodeSelector: {error}"));
            None
        });
        let claims = claims(&reading, &name, spec, &parts);
        let listeners = parts.listeners(&RouteName::config(&name), meta.created, &claims);
        let clusters = parts.clusters();
        unknown_clusters(&reading, &listeners, &clusters);
        let limits = reading.limits.take();
        Some(Self {
            about: object.object_ref(&()),
            nodes,
            claims,
            listeners,
            clusters,
            limits,
            problems: reading.notes(),
            name,
            meta,
        })
    }

    /// Of two objects that claim a port, the one that has it.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        let order = |config: &Self| (config.meta.created, config.name.clone());
        order(self) < order(other)
    }
}

impl RouteName {
    /// The name of an object, of whichever of both kinds it is.
    pub(crate) fn config(name: &ObjectName) -> Self {
        let kind = if name.namespace.is_empty() { RouteKind::ClusterwideEnvoyConfig } else { RouteKind::EnvoyConfig };
        Self { kind, name: name.clone() }
    }
}

/// Tells of clusters that rules name and that are not there.
fn unknown_clusters(
    reading: &Reading,
    listeners: &BTreeMap<Arc<str>, Served>,
    clusters: &BTreeMap<Arc<str>, Result<Cluster, String>>,
) {
    let named: BTreeSet<&l7::Name> = listeners.values().flat_map(Served::clusters).collect();
    for name in named.into_iter().filter(|name| !clusters.contains_key(*name)) {
        reading.note(format!("requests for cluster {name:?} are refused: it is not among the resources"));
    }
}

/// The resources of an object, by what they are.
struct Parts<'a> {
    reading: &'a Reading,
    /// Why nothing of it is served.
    refused: Option<String>,
    listeners: BTreeMap<&'a str, Node<'a>>,
    /// The listener that requests go to if none is named.
    first: Option<&'a str>,
    routes: BTreeMap<&'a str, Node<'a>>,
    clusters: BTreeMap<&'a str, Node<'a>>,
    /// Addresses that are written down, by cluster.
    assigned: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Parts<'a> {
    fn read(reading: &'a Reading, spec: &'a EnvoyConfigSpec) -> Self {
        let (listeners, routes, clusters, assigned) = Default::default();
        let mut parts = Self { reading, refused: None, listeners, first: None, routes, clusters, assigned };
        for (number, value) in spec.resources.iter().enumerate() {
            let node = Node { reading, path: format!("spec.resources[{number}]"), value };
            if let Err(fault) = parts.add(&node) {
                parts.refused.get_or_insert(fault.0);
            }
        }
        parts
    }

    fn add(&mut self, node: &Node<'a>) -> fields::Result<()> {
        let mut fields = node.fields()?;
        let kind = fields.kind()?;
        let name = fields.text(if kind.ends_with("ClusterLoadAssignment") { "cluster_name" } else { "name" })?;
        let name = name.unwrap_or_default();
        if !fields::is_plain(name) {
            return node.fault("its name has something else than letters, digits and signs, or is too long");
        }
        let again = match kind {
            "envoy.config.listener.v3.Listener" => {
                self.first.get_or_insert(name);
                self.listeners.insert(name, node.clone()).is_some()
            }
            "envoy.config.route.v3.RouteConfiguration" => self.routes.insert(name, node.clone()).is_some(),
            "envoy.config.cluster.v3.Cluster" => self.clusters.insert(name, node.clone()).is_some(),
            "envoy.config.endpoint.v3.ClusterLoadAssignment" => self.assigned.insert(name, node.clone()).is_some(),
            other => return node.fault(format_args!("{other} is not supported")),
        };
        if again { node.fault(format_args!("there is another {kind} named {name:?}")) } else { Ok(()) }
    }

    /// What each listener does that is claimed for. One that cannot be used refuses all requests.
    fn listeners(&self, config: &RouteName, created: i64, claims: &[Claim]) -> BTreeMap<Arc<str>, Served> {
        let config: Arc<str> = config.to_string().into();
        let context = listener::Context { config: &config, created, routes: &self.routes };
        let mut served = BTreeMap::new();
        for claim in claims {
            served.entry(Arc::clone(&claim.listener)).or_insert_with(|| {
                self.served(&context, &claim.listener).unwrap_or_else(|reason| {
                    self.reading.note(format!("listener {:?} refuses all requests: {reason}", claim.listener));
                    Served::refusing(&context.common(None), self.listeners.get(&*claim.listener))
                })
            });
        }
        for name in self.listeners.keys().filter(|name| !served.contains_key(**name)) {
            self.reading.note(format!("listener {name:?} is not served: no Service's requests go to it"));
        }
        served
    }

    fn served(&self, context: &listener::Context<'_>, name: &str) -> Result<Served, String> {
        if let Some(reason) = &self.refused {
            return Err(reason.clone());
        }
        let node = self.listeners.get(name).ok_or("it is not among the resources")?;
        let served = node.fields().and_then(|mut fields| {
            fields.skip(&["@type", "name"]);
            listener::resolve(context, fields)
        });
        served.map_err(|fault| fault.0)
    }

    fn clusters(&self) -> BTreeMap<Arc<str>, Result<Cluster, String>> {
        let used = RefCell::new(BTreeSet::new());
        let assigned = |name: &str| {
            let (name, node) = self.assigned.get_key_value(name)?;
            used.borrow_mut().insert(*name);
            Some(node)
        };
        let resolve = |(name, node): (&&str, &Node<'_>)| {
            let cluster = node.fields().and_then(|mut fields| {
                fields.skip(&["@type", "name"]);
                cluster::resolve(name, fields, &assigned)
            });
            (Arc::from(*name), cluster.map_err(|fault| fields::told(&fault.0)))
        };
        let clusters = self.clusters.iter().map(resolve).collect();
        for name in self.assigned.keys().filter(|name| !used.borrow().contains(*name)) {
            self.reading
                .note(format!("ClusterLoadAssignment {name:?} is not honoured: no cluster of type EDS is named so"));
        }
        clusters
    }
}

fn claims(reading: &Reading, config: &ObjectName, spec: &EnvoyConfigSpec, parts: &Parts<'_>) -> Vec<Claim> {
    let first = parts.first.unwrap_or_default();
    let mut claims = Vec::new();
    for (number, listed) in spec.services.iter().flatten().enumerate() {
        match claim(config, listed, first) {
            Ok(_) if claims.len() == CLAIMS => {
                reading.note(format!("spec.services: those after the first {CLAIMS} are not honoured"));
                break;
            }
            Ok(claim) => claims.push(claim),
            Err(reason) => reading.note(format!("spec.services[{number}]: {reason}")),
        }
    }
    claims
}

/// An object of a namespace claims its own Services only: those of others are not its author's.
fn claim(config: &ObjectName, listed: &ServiceListener, first: &str) -> Result<Claim, String> {
    let own = config.namespace.as_ref();
    let default = if own.is_empty() { DEFAULT_NAMESPACE } else { own };
    let namespace = listed.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(default);
    if !fields::is_plain(namespace) || !fields::is_plain(&listed.name) {
        return Err("its name is none of a Service".to_owned());
    }
    if !own.is_empty() && namespace != own {
        return Err(format!("Service {namespace}/{} is not of the object's own namespace", listed.name));
    }
    let port =
        |port: &i64| u16::try_from(*port).ok().filter(|port| *port != 0).ok_or_else(|| format!("{port} is no port"));
    // A name that no listener has leads to one that refuses.
    let listener = listed.listener.as_deref().filter(|name| !name.is_empty()).unwrap_or(first);
    Ok(Claim {
        service: ObjectName::new(namespace, listed.name.as_str()),
        ports: listed.ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
        listener: if fields::is_plain(listener) { listener } else { "" }.into(),
    })
}
