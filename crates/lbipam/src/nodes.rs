// SPDX-License-Identifier: Apache-2.0
//! Node IPAM: the nodes themselves are the load balancer. Nothing is allocated; the addresses of a Service follow from the
//! the nodes.

use crate::range::Family;
use crate::service::{Config, families};
use crate::status::entries;
use k8s::Warning;
use k8s::endpoint_slice::Conditions;
use k8s::field::canonical_address;
use k8s::k8s_openapi::api::core::v1::{self as core, LoadBalancerIngress, ObjectReference};
use k8s::k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s::kube::core::{Selector, SelectorExt};
use k8s::kube::{Resource, ResourceExt};
use k8s::selector;
use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The class of Services served by nodes.
const CLASS: &str = "io.cilium/node";
/// Annotation with a label selector of nodes.
const MATCH: &str = "io.cilium.nodeipam/match-node-labels";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint of a node that is about to be removed.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";
const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// A Service whose load balancer is the nodes. One row per such Service of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeService {
    /// Namespace and name.
    pub name: ServiceName,
    reference: ObjectReference,
    version: String,
    families: Vec<Family>,
    /// Only nodes with an endpoint take its traffic.
    local: bool,
    /// `None` if the selector is invalid.
    nodes: Option<Selector>,
    ingress: Vec<LoadBalancerIngress>,
}

impl statedb::Row for NodeService {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

impl NodeService {
    /// The row of an object; `None` if nodes do not serve it. `default_class` says whether they serve Services
    /// without a class.
    #[must_use]
    pub fn ingest(config: Config, object: &core::Service) -> Option<Self> {
        let spec = object.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))?;
        let is_ours = spec.load_balancer_class.as_deref().map_or(config.default_class, |class| class == CLASS);
        if !is_ours || object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let text = object.annotations().get(MATCH).map(String::as_str).unwrap_or_default();
        Some(Self {
            name: ServiceName::new(object.metadata.namespace.as_deref()?, object.metadata.name.as_deref()?),
            reference: object.object_ref(&()),
            version: object.resource_version().unwrap_or_default(),
            families: families(config, spec),
            local: spec.external_traffic_policy.as_deref() == Some("Local"),
            nodes: selector::parse(text),
            ingress: balancer.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default(),
        })
    }

    /// The status to write, if it differs: external addresses of the nodes or, if none has one, internal ones. An invalid
    /// selector changes nothing.
    pub fn update<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a NodePlace>,
        hosts: &BTreeSet<Arc<str>>,
    ) -> Option<NodeUpdate> {
        let selector = self.nodes.as_ref()?;
        let serves = |node: &&NodePlace| {
            !node.excluded && selector.matches(&node.labels) && (!self.local || hosts.contains(&node.name))
        };
        let serving: Vec<&NodePlace> = nodes.into_iter().filter(serves).collect();
        let of = |addresses: fn(&NodePlace) -> &[IpAddr]| -> BTreeSet<IpAddr> {
            let all = serving.iter().flat_map(|node| addresses(node).iter().copied());
            all.filter(|ip| self.families.contains(&Family::of(*ip))).collect()
        };
        let external = of(|node| &node.external);
        let wanted = if external.is_empty() { of(|node| &node.internal) } else { external };
        let ingress = entries(&self.ingress, &wanted.into_iter().collect::<Vec<_>>());
        let update =
            || NodeUpdate { service: self.name.clone(), version: self.version.clone(), ingress: ingress.clone() };
        (ingress != self.ingress).then(update)
    }

    /// The message to the author of an invalid selector.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        let note = format!("{MATCH} is no label selector; the addresses stay as they are");
        let about = self.reference.clone();
        self.nodes.is_none().then_some(Warning { about, reason: "AddressNotAssigned", action: "Assign", note })
    }
}

/// The status a Service should have. One row per Service whose status differs.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeUpdate {
    /// Namespace and name.
    pub service: ServiceName,
    /// The version the decision is based on.
    pub version: String,
    /// All of its addresses.
    pub ingress: Vec<LoadBalancerIngress>,
}

impl statedb::Row for NodeUpdate {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.service.clone()
    }
}

/// The part of a Node that matters here. One row per Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlace {
    name: Arc<str>,
    labels: BTreeMap<String, String>,
    internal: Vec<IpAddr>,
    external: Vec<IpAddr>,
    /// Excluded from load balancers.
    excluded: bool,
}

impl statedb::Row for NodePlace {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.name.clone()
    }
}

impl NodePlace {
    /// The row of an object. Unreadable addresses are left out.
    #[must_use]
    pub fn ingest(object: &core::Node) -> Option<Self> {
        let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let of_type = |kind: &str| {
            let all = addresses.clone().filter(|address| address.type_ == kind);
            all.filter_map(|address| canonical_address(&address.address)).collect()
        };
        let taints = object.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let is_going =
            object.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == GOING);
        Some(Self {
            name: object.metadata.name.as_deref()?.into(),
            internal: of_type("InternalIP"),
            external: of_type("ExternalIP"),
            excluded: is_going || object.labels().contains_key(EXCLUDED),
            labels: object.labels().clone(),
        })
    }
}

/// The nodes with an endpoint of a Service. One row per EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Namespace and name of the slice.
    slice: (Arc<str>, Arc<str>),
    pub service: ServiceName,
    /// Names of nodes with an endpoint that accepts connections.
    pub nodes: BTreeSet<Arc<str>>,
}

impl statedb::Row for Hosts {
    type Key = (Arc<str>, Arc<str>);
    fn key(&self) -> Self::Key {
        self.slice.clone()
    }
}

impl Hosts {
    /// The row of an object; `None` if it belongs to no Service.
    #[must_use]
    pub fn ingest(object: &EndpointSlice) -> Option<Self> {
        let (namespace, name) = (object.metadata.namespace.as_deref()?, object.metadata.name.as_deref()?);
        let service = object.labels().get(SERVICE_OF_SLICE)?;
        let serving = object.endpoints.iter().flatten().filter(|endpoint| Conditions::of(endpoint).serving);
        let nodes = serving.filter_map(|endpoint| endpoint.node_name.as_deref());
        Some(Self {
            slice: (namespace.into(), name.into()),
            service: ServiceName::new(namespace, service.as_str()),
            nodes: nodes.map(Arc::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};
    use statedb::Row;

    const CONFIG: Config = Config { default_class: false, ipv4: true, ipv6: true };

    fn node(object: Value) -> NodePlace {
        NodePlace::ingest(&serde_json::from_value(object).unwrap()).unwrap()
    }

    /// Addresses starting with a 2 are external.
    fn with_addresses(name: &str, addresses: &[&str]) -> Value {
        let kind = |ip: &str| if ip.starts_with('2') { "ExternalIP" } else { "InternalIP" };
        let addresses: Vec<_> = addresses.iter().map(|ip| json!({"type": kind(ip), "address": ip})).collect();
        json!({"metadata": {"name": name}, "status": {"addresses": addresses}})
    }

    fn service(spec: Value, annotations: Value, present: &[&str]) -> Option<NodeService> {
        let ingress: Vec<_> = present.iter().map(|ip| json!({"ip": ip})).collect();
        let mut object = json!({"metadata": {"namespace": "shop", "name": "web", "annotations": annotations},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": CLASS, "ipFamilies": ["IPv4"]},
            "status": {"loadBalancer": {"ingress": ingress}}});
        spec.as_object().unwrap().iter().for_each(|(key, value)| object["spec"][key] = value.clone());
        NodeService::ingest(CONFIG, &serde_json::from_value(object).unwrap())
    }

    fn given(service: &NodeService, nodes: &[NodePlace], hosts: &[&str]) -> Option<Vec<String>> {
        let hosts = hosts.iter().map(|name| Arc::from(*name)).collect();
        let update = service.update(nodes, &hosts)?;
        Some(update.ingress.into_iter().filter_map(|entry| entry.ip).collect())
    }

    #[test]
    fn a_service_has_external_addresses_of_nodes_or_else_internal_ones_of_its_families() {
        let web = service(json!({}), json!({}), &[]).unwrap();
        let first = node(with_addresses("n1", &["10.0.0.1", "fd00::1"]));
        let second = node(with_addresses("n2", &["10.0.0.2"]));
        assert_eq!(given(&web, &[first.clone(), second.clone()], &[]).unwrap(), ["10.0.0.1", "10.0.0.2"]);
        let third = node(with_addresses("n3", &["10.0.0.3", "203.0.113.3", "2001:db8::3"]));
        let all = [first, second, third];
        assert_eq!(given(&web, &all, &[]).unwrap(), ["203.0.113.3"]);
        let dual = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        let dual = service(dual, json!({}), &[]).unwrap();
        assert_eq!(given(&dual, &all, &[]).unwrap(), ["203.0.113.3", "2001:db8::3"]);
        let right = service(json!({}), json!({}), &["203.0.113.3"]).unwrap();
        assert_eq!(given(&right, &all, &[]), None, "what is right is not written");
        let update = web.update(&all, &BTreeSet::new()).unwrap();
        assert_eq!([web.key(), update.key()], [web.name.clone(), web.name.clone()]);
        let gone = service(json!({}), json!({}), &["203.0.113.9"]).unwrap();
        assert_eq!(given(&gone, &[], &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn nodes_that_are_left_out_of_balancing_or_not_selected_or_without_endpoints_give_none() {
        let mut excluded = with_addresses("n1", &["10.0.0.1"]);
        excluded["metadata"]["labels"] = json!({EXCLUDED: ""});
        let mut going = with_addresses("n2", &["10.0.0.2"]);
        going["spec"] = json!({"taints": [{"key": GOING, "effect": "NoSchedule"}]});
        let mut edge = with_addresses("n3", &["10.0.0.3"]);
        edge["metadata"]["labels"] = json!({"tier": "edge"});
        let nodes = [excluded, going, edge, with_addresses("n4", &["10.0.0.4"])].map(node);
        assert_eq!(given(&service(json!({}), json!({}), &[]).unwrap(), &nodes, &[]).unwrap(), ["10.0.0.3", "10.0.0.4"]);
        let selected = service(json!({}), json!({MATCH: "tier in (edge)"}), &[]).unwrap();
        assert_eq!(given(&selected, &nodes, &[]).unwrap(), ["10.0.0.3"]);
        let local = service(json!({"externalTrafficPolicy": "Local"}), json!({}), &[]).unwrap();
        assert_eq!(given(&local, &nodes, &["n1", "n4"]).unwrap(), ["10.0.0.4"]);
        let nonsense = service(json!({}), json!({MATCH: "tier in"}), &["10.0.0.9"]).unwrap();
        assert_eq!(given(&nonsense, &nodes, &[]), None, "it stays as it was");
        assert!(nonsense.warning().is_some() && selected.warning().is_none());
        let about = nonsense.warning().unwrap().about;
        assert_eq!((about.name.as_deref(), about.resource_version), (Some("web"), None), "one event for all versions");
    }

    #[test]
    fn only_services_of_its_class_are_its_own_unless_it_is_the_default() {
        assert!(service(json!({"type": "NodePort"}), json!({}), &[]).is_none());
        assert!(service(json!({"loadBalancerClass": "io.cilium/l2-announcer"}), json!({}), &[]).is_none());
        let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"type": "LoadBalancer"}});
        let of = |default_class| {
            let object = serde_json::from_value(object.clone()).unwrap();
            NodeService::ingest(Config { default_class, ..CONFIG }, &object).is_some()
        };
        assert!(of(true) && !of(false));
    }

    #[test]
    fn an_endpoint_that_serves_counts_for_its_node() {
        let endpoint = |node: &str, ready, serving: Option<bool>| json!({"addresses": ["10.1.0.1"], "nodeName": node, "conditions": {"ready": ready, "serving": serving}});
        let object = json!({"metadata": {"namespace": "shop", "name": "web-1", "labels": {SERVICE_OF_SLICE: "web"}},
            "addressType": "IPv4", "endpoints": [endpoint("n1", true, None), endpoint("n2", false, Some(true)),
                endpoint("n3", false, None)]});
        let hosts = Hosts::ingest(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(hosts.service, ServiceName::new("shop", "web"));
        assert_eq!(hosts.key(), hosts.slice);
        assert_eq!(hosts.nodes, ["n1", "n2"].map(Arc::from).into());
    }
}
