// SPDX-License-Identifier: Apache-2.0
//! The Service of a Gateway. It selects no pods: the nodes take what is sent to it, and give it to their proxies.

use crate::class;
use crate::edge::{Edge, Protocol};
use crate::ingress;
use crate::name::{ObjectName, shortened};
use crate::objects::Objects;
use crate::resolve::Resolved;
use crate::source::{Meta, NodePorts, Source};
use k8s::gateway::{GatewaySpec, ServiceParameters, StatusAddress};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use statedb::{Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};

/// Label of what is made for a Gateway, with its name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The same, by which older releases of Cilium found it.
const OWNING_GATEWAY: &str = "io.cilium.gateway/owning-gateway";
/// Label of what is made for an Ingress.
const INGRESS: &str = "cilium.io/ingress";
/// Annotation with the addresses that a Service asks LB-IPAM for.
const ADDRESSES: &str = "lbipam.cilium.io/ips";
/// Annotation that says what the source ranges of a Service mean.
const RANGES_POLICY: &str = "service.cilium.io/src-ranges-policy";
/// The most that a name or the value of a label can have.
const LONGEST: usize = 63;

/// How all Gateways are reached and served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Gateways are reached at the nodes' own addresses.
    pub gateways_at_nodes: bool,
    /// Ingresses are.
    pub ingresses_at_nodes: bool,
    /// `Cluster` or `Local`, if the class says nothing else.
    pub external_traffic_policy: String,
    /// Which HTTP a backend speaks is told by its Service.
    pub app_protocol: bool,
}

impl ServiceConfig {
    /// Whether a Gateway, or what stands for Ingresses, is reached at the nodes' own addresses.
    pub(super) fn at_nodes(&self, gateway: &ObjectName) -> bool {
        if ingress::behind(gateway).is_some() { self.ingresses_at_nodes } else { self.gateways_at_nodes }
    }
}

/// The Service that a Gateway is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedService {
    /// The Gateway.
    pub gateway: ObjectName,
    /// The Service, of which only what we decide is set.
    pub service: core::Service,
    /// It is there, and has all of that.
    pub present: bool,
}

impl statedb::Row for WantedService {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.gateway.clone()
    }
}

/// The Service that a Gateway has.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedService {
    /// Namespace and name.
    pub name: ObjectName,
    /// What of it may differ from what is wanted.
    pub service: core::Service,
    /// Addresses that it was given.
    pub addresses: Vec<StatusAddress>,
}

impl statedb::Row for ObservedService {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// The row of a Service with a label of those that are made for Gateways and Ingresses.
#[must_use]
pub fn ingest_observed(object: &core::Service) -> Option<ObservedService> {
    let labels = object.metadata.labels.as_ref()?;
    if !labels.contains_key(GATEWAY_NAME) && !labels.contains_key(INGRESS) {
        return None;
    }
    let name = ObjectName::of(&object.metadata)?;
    let ingress = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let address = |entry: &core::LoadBalancerIngress| match (&entry.ip, &entry.hostname) {
        (Some(ip), _) => Some(StatusAddress { kind: "IPAddress".to_owned(), value: ip.clone() }),
        (None, Some(host)) => Some(StatusAddress { kind: "Hostname".to_owned(), value: host.clone() }),
        (None, None) => None,
    };
    let addresses = ingress.into_iter().flatten().filter_map(address).collect();
    let metadata = ObjectMeta {
        labels: object.metadata.labels.clone(),
        annotations: object.metadata.annotations.clone(),
        owner_references: object.metadata.owner_references.clone(),
        ..ObjectMeta::default()
    };
    Some(ObservedService {
        name,
        service: core::Service { metadata, spec: object.spec.clone(), status: None },
        addresses,
    })
}

/// Name of the Service of a Gateway. One that would be too long is cut, and ends in a hash of all of it.
pub(crate) fn service_name(gateway: &ObjectName) -> ObjectName {
    let name = match ingress::behind(gateway) {
        None => format!("cilium-gateway-{}", gateway.name),
        Some("") => "cilium-ingress".to_owned(),
        Some(ingress) => format!("cilium-ingress-{ingress}"),
    };
    ObjectName { namespace: gateway.namespace.clone(), name: shortened(&name, LONGEST).into() }
}

impl ObservedService {
    /// The Gateway that it belongs to. Others make Services for Gateways too, with the same label and owner, under other names.
    #[must_use]
    pub fn gateways(&self) -> Vec<ObjectName> {
        let owners = self.service.metadata.owner_references.iter().flatten();
        let names = owners.filter_map(|owner| match owner.kind.as_str() {
            "Gateway" => Some(owner.name.clone()),
            "Ingress" => Some(ingress::standing_for(&owner.name)),
            _ => None,
        });
        // That which Ingresses share is nobody's.
        let names = names.chain([ingress::standing_for("")]);
        let gateways = names.map(|name| ObjectName::new(self.name.namespace.clone(), name));
        gateways.filter(|gateway| service_name(gateway) == self.name).collect()
    }
}

/// Keeps the Services that Gateways are to have, as they follow from these and from what is there.
pub(super) fn derive(
    tasks: &Tasks,
    resolved: &Resolved,
    observed: &Reader<ObservedService>,
    config: ServiceConfig,
) -> Reader<WantedService> {
    let inputs = Inputs::of(&resolved.edges.rows, |edge: &Edge| [edge.gateway.clone()])
        // Labels and annotations of a Gateway are none of its edge.
        .and(&resolved.objects.gateways, |gateway| [gateway.name.clone()])
        // Neither are parameters; those of a class are for many.
        .and(&resolved.objects.parameters, {
            let edges = resolved.edges.rows.clone();
            move |parameters| match ingress::behind(&parameters.name) {
                Some(_) => vec![parameters.name.clone()],
                None => edges.snapshot().iter().map(|edge| edge.gateway.clone()).collect(),
            }
        })
        .and(observed, ObservedService::gateways);
    let (edges, objects, observed) = (resolved.edges.rows.clone(), resolved.objects.clone(), observed.clone());
    let row = move |gateway: &ObjectName, _: Option<&WantedService>| {
        let edge = edges.snapshot().get(gateway)?;
        let source = objects.gateways.snapshot().get(gateway)?;
        let service = object(&objects, &edge.listening(), &source, &config)?;
        let present =
            observed.snapshot().get(&service_name(gateway)).is_some_and(|there| has_all(&there.service, &service));
        Some(WantedService { gateway: gateway.clone(), service, present })
    };
    statedb::derive(tasks, "gateway-services", inputs, row).rows
}

impl Edge {
    /// Ports that are listened at, and whether they are UDP's.
    fn listening(&self) -> BTreeSet<(u16, bool)> {
        let served = self.listeners.iter().filter(|listener| self.accepted.holds && listener.accepted.holds);
        served.map(|listener| (listener.port, listener.protocol == Some(Protocol::Udp))).collect()
    }
}

/// The Service of a Gateway; none if nothing is listened for, or if its class has parameters that are not there.
fn object(
    objects: &Objects,
    ports: &BTreeSet<(u16, bool)>,
    gateway: &Source<GatewaySpec>,
    config: &ServiceConfig,
) -> Option<core::Service> {
    if ports.is_empty() {
        return None;
    }
    let at_nodes = config.at_nodes(&gateway.name);
    let parameters = class::of(objects, gateway)?.parameters.ok()?;
    let (parameters, node_ports) =
        parameters.map(|parameters| (parameters.service.clone(), parameters.node_ports)).unwrap_or_default();
    let mut spec = spec(ports, &parameters, config, at_nodes);
    if spec.type_.as_deref() == Some("NodePort") {
        spec.ports.iter_mut().flatten().for_each(|port| port.node_port = node_ports.of(port));
    }
    Some(core::Service { metadata: metadata(gateway, &parameters), spec: Some(spec), status: None })
}

impl NodePorts {
    fn of(self, port: &core::ServicePort) -> Option<i32> {
        let chosen = match (port.port, port.protocol.as_deref()) {
            (80, Some("TCP")) => self.insecure,
            (443, Some("TCP")) => self.secure,
            _ => None,
        };
        chosen.map(i32::from)
    }
}

fn metadata(gateway: &Source<GatewaySpec>, parameters: &ServiceParameters) -> ObjectMeta {
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    let (mut labels, mut annotations) = (infrastructure.labels, infrastructure.annotations);
    let behind = ingress::behind(&gateway.name);
    if behind.is_some() {
        labels.insert(INGRESS.to_owned(), "true".to_owned());
    } else {
        for key in [GATEWAY_NAME, OWNING_GATEWAY] {
            labels.insert(key.to_owned(), shortened(&gateway.name.name, LONGEST));
        }
    }
    let addresses: Vec<_> = gateway.spec.addresses.iter().filter_map(|address| address.value.clone()).collect();
    if !addresses.concat().is_empty() {
        annotations.entry(ADDRESSES.to_owned()).or_insert_with(|| addresses.join(","));
    }
    let policy = parameters.load_balancer_source_ranges_policy.as_deref().filter(|policy| *policy == "Deny");
    if policy.is_some() {
        annotations.entry(RANGES_POLICY.to_owned()).or_insert_with(|| "deny".to_owned());
    }
    let Meta { uid, .. } = &gateway.meta;
    let (group, kind) =
        if behind.is_some() { ("networking.k8s.io", "Ingress") } else { (k8s::gateway::GROUP, "Gateway") };
    let owner = (behind != Some("")).then(|| OwnerReference {
        api_version: format!("{group}/v1"),
        kind: kind.to_owned(),
        name: behind.unwrap_or(&gateway.name.name).to_owned(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    });
    let name = service_name(&gateway.name);
    ObjectMeta {
        name: Some(name.name.to_string()),
        namespace: Some(name.namespace.to_string()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Name of a port of a Gateway's Service, which may have one of TCP and one of UDP.
pub(crate) fn port_name(port: u16, udp: bool) -> String {
    format!("port-{port}{}", if udp { "-udp" } else { "" })
}

/// `at_nodes`: the Gateway is reached at the nodes' own addresses, so its Service need not lead to it.
fn spec(
    ports: &BTreeSet<(u16, bool)>,
    parameters: &ServiceParameters,
    config: &ServiceConfig,
    at_nodes: bool,
) -> core::ServiceSpec {
    let port = |(port, udp): &(u16, bool)| core::ServicePort {
        name: Some(port_name(*port, *udp)),
        port: i32::from(*port),
        protocol: Some(if *udp { "UDP" } else { "TCP" }.to_owned()),
        ..core::ServicePort::default()
    };
    let asked = parameters.kind.as_deref().unwrap_or("LoadBalancer");
    let kind = if at_nodes { "ClusterIP" } else { asked };
    let balanced = kind == "LoadBalancer";
    let policy = parameters.external_traffic_policy.clone();
    let policy = policy.unwrap_or_else(|| config.external_traffic_policy.clone());
    core::ServiceSpec {
        type_: Some(kind.to_owned()),
        ports: Some(ports.iter().map(port).collect()),
        external_traffic_policy: (kind != "ClusterIP" && !policy.is_empty()).then_some(policy),
        load_balancer_class: parameters.load_balancer_class.clone().filter(|_| balanced),
        load_balancer_source_ranges: parameters.load_balancer_source_ranges.clone().filter(|_| balanced),
        allocate_load_balancer_node_ports: parameters.allocate_load_balancer_node_ports.filter(|_| balanced),
        ip_families: parameters.ip_families.clone(),
        ip_family_policy: parameters.ip_family_policy.clone(),
        traffic_distribution: parameters.traffic_distribution.clone(),
        ..core::ServiceSpec::default()
    }
}

/// Whether a Service has all that is wanted of it; what others add is theirs.
fn has_all(there: &core::Service, wanted: &core::Service) -> bool {
    let within = |small: &Option<BTreeMap<String, String>>, large: &Option<BTreeMap<String, String>>| {
        small.iter().flatten().all(|(key, value)| large.as_ref().and_then(|large| large.get(key)) == Some(value))
    };
    let owned = wanted
        .metadata
        .owner_references
        .iter()
        .flatten()
        .all(|owner| there.metadata.owner_references.iter().flatten().any(|other| other.uid == owner.uid));
    let (Some(spec), Some(asked)) = (&there.spec, &wanted.spec) else { return false };
    let key = |port: &core::ServicePort| (port.name.clone(), port.port, port.protocol.clone());
    let ports = |spec: &core::ServiceSpec| spec.ports.iter().flatten().map(key).collect::<BTreeSet<_>>();
    let chosen = |port: &core::ServicePort| port.node_port.map(|number| (port.name.clone(), number));
    let node_ports = |spec: &core::ServiceSpec| spec.ports.iter().flatten().filter_map(chosen).collect::<BTreeSet<_>>();
    let same = |asked: &Option<String>, there: &Option<String>| asked.is_none() || asked == there;
    owned
        && within(&wanted.metadata.labels, &there.metadata.labels)
        && within(&wanted.metadata.annotations, &there.metadata.annotations)
        && ports(spec) == ports(asked)
        && node_ports(asked).is_subset(&node_ports(spec))
        && same(&asked.type_, &spec.type_)
        && same(&asked.external_traffic_policy, &spec.external_traffic_policy)
        && same(&asked.load_balancer_class, &spec.load_balancer_class)
        && same(&asked.ip_family_policy, &spec.ip_family_policy)
        && same(&asked.traffic_distribution, &spec.traffic_distribution)
        && asked
            .load_balancer_source_ranges
            .as_ref()
            .is_none_or(|_| asked.load_balancer_source_ranges == spec.load_balancer_source_ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_too_long_is_cut_and_stays_unique() {
        let of = |text: &str| service_name(&ObjectName::new("n", text)).name.to_string();
        assert_eq!(of("edge"), "cilium-gateway-edge");
        let (a, b) = (of(&"a".repeat(253)), of(&format!("{}b", "a".repeat(252))));
        assert_ne!(a, b);
        for name in [a, b, of(&format!("{}-.-x{}", "a".repeat(34), "y".repeat(99)))] {
            assert!(name.len() <= LONGEST && !name.contains(['.']) && !name.contains("--"), "{name}");
        }
    }
}
