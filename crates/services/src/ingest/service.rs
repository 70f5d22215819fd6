// SPDX-License-Identifier: Apache-2.0
//! Services: everything that says where they are reached and how.

use super::annotations;
use super::limits;
use super::{HEADLESS, HonouredCondition, Problem, created, is_routable, label, names, ours, port_name};
use crate::Config;
use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s::kube::core::Selector;
use model::{Algorithm, Forwarding, Protocol, ServiceKind, ServiceName, SourceRanges, TrafficPolicy};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A Service with addresses. One row per such Service of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// UID of the object.
    pub uid: Arc<str>,
    /// When it was made, in seconds since 1970; 0 if it does not say.
    pub created: i64,
    /// Cluster addresses, of one family or both.
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses that its author names.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer has given it.
    pub load_balancer_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// Policy for traffic from outside of the cluster.
    pub external_policy: TrafficPolicy,
    /// Policy for traffic from inside to a cluster address.
    pub internal_policy: TrafficPolicy,
    /// For how long a client comes to the same backend again, if at all.
    pub affinity: Option<Duration>,
    /// Who may use the addresses of load balancers, unless everybody may.
    pub source_ranges: Option<Arc<SourceRanges>>,
    /// Where each node says whether it has endpoints.
    pub health_check_node_port: Option<u16>,
    /// How a backend is chosen, if not as the node is configured.
    pub algorithm: Option<Algorithm>,
    /// How a backend on another node is reached, if not as the node is configured.
    pub forwarding: Option<Forwarding>,
    /// The only kind of frontend that is wanted.
    pub only: Option<ServiceKind>,
    /// The nodes at which it is reached.
    pub nodes: Selector,
    /// What of the object is not honoured.
    pub problems: Vec<Problem>,
    /// What the object's status says of that; for who writes it only.
    pub said: HonouredCondition,
}

impl statedb::Row for Service {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

impl Service {
    /// The addresses at which clients from outside are served.
    #[must_use]
    pub fn outside(&self) -> Vec<IpAddr> {
        let external: &[IpAddr] = if self.only.is_none() { &self.external_ips } else { &[] };
        let wanted = self.only.is_none_or(|kind| kind == ServiceKind::LoadBalancer);
        let balanced: &[IpAddr] = if wanted { &self.load_balancer_ips } else { &[] };
        [balanced, external].concat()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, unless the Service has a single port without one.
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Port of every node.
    pub node_port: Option<u16>,
}

const INGRESS: &str = "status.loadBalancer.ingress.ip";

/// The row of a Service; none if it has no address (headless, ExternalName) or is another proxy's.
///
/// # Errors
///
/// The first field that cannot be read.
pub fn ingest_service(config: &Config, object: &core::Service) -> Result<Option<Service>, FieldError> {
    let (Some((namespace, name)), Some(spec)) = (names(&object.metadata), object.spec.as_ref()) else {
        return Ok(None);
    };
    let headless = label(&object.metadata, HEADLESS).is_some() || spec.cluster_ip.as_deref() == Some("None");
    if headless || !ours(config, &object.metadata) || spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let cluster_ips = cluster_ips(spec)?;
    if cluster_ips.is_empty() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let annotated =
        annotations::read(config, object.metadata.annotations.as_ref(), spec.type_.as_deref(), &mut problems);
    if wants_topology(spec, &object.metadata) && !config.topology {
        let reason = "needs enable-service-topology; clients of all zones use all endpoints";
        problems.push(Problem::new("spec.trafficDistribution", reason));
    }
    let external_ips = spec.external_ips.iter().flatten().map(String::as_str);
    let exposed = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let mut service = Service {
        name: ServiceName::new(namespace, name),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created: created(&object.metadata),
        external_ips: usable("spec.externalIPs", external_ips, &cluster_ips, &mut problems)?,
        load_balancer_ips: usable(INGRESS, load_balancer_ips(object), &cluster_ips, &mut problems)?,
        cluster_ips,
        ports: spec.ports.iter().flatten().map(|port| service_port(port, exposed)).collect::<Result<_, _>>()?,
        external_policy: policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref())?,
        internal_policy: policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref())?,
        affinity: affinity(spec)?,
        source_ranges: source_ranges(spec, annotated.deny_ranges)?,
        health_check_node_port: health_check_node_port(spec)?,
        algorithm: annotated.algorithm,
        forwarding: annotated.forwarding,
        only: annotated.only,
        nodes: annotated.nodes,
        problems,
        said: HonouredCondition::default(),
    };
    limits::apply(&mut service);
    Ok(Some(service))
}

/// The same for who tells its author: a Service that cannot be read has the error as its problem, and nothing else.
#[must_use]
pub fn ingest_service_to_judge(config: &Config, object: &core::Service) -> Option<Service> {
    let row = ingest_service(config, object).unwrap_or_else(|error| {
        let (namespace, name) = names(&object.metadata)?;
        let reason = format!("{}; the Service stays as it was before", error.reason());
        Some(Service {
            name: ServiceName::new(namespace, name),
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            created: created(&object.metadata),
            problems: vec![Problem::new(error.field(), reason)],
            ..Service::default()
        })
    })?;
    Some(Service { said: HonouredCondition::read(object), ..row })
}

fn cluster_ips(spec: &core::ServiceSpec) -> Result<Vec<IpAddr>, FieldError> {
    let texts = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    texts.iter().filter(|text| !text.is_empty()).map(|text| field::address("spec.clusterIPs", text)).collect()
}

/// The addresses whose traffic arrives with them as its destination: not so if the load balancer is a proxy.
fn load_balancer_ips(object: &core::Service) -> impl Iterator<Item = &str> {
    let is_one = object.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let direct = ingress.filter(move |ingress| is_one && ingress.ip_mode.as_deref() != Some("Proxy"));
    direct.filter_map(|ingress| ingress.ip.as_deref())
}

fn usable<'a>(
    name: &'static str,
    texts: impl Iterator<Item = &'a str>,
    cluster_ips: &[IpAddr],
    problems: &mut Vec<Problem>,
) -> Result<Vec<IpAddr>, FieldError> {
    let mut usable = Vec::new();
    for text in texts.filter(|text| !text.is_empty()) {
        let ip = field::address(name, text)?;
        if !is_routable(ip) {
            problems.push(Problem::new(name, format!("{ip} is no address of a single machine; it is left out")));
        } else if !cluster_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4()) {
            let reason = format!("the Service has no address of the family of {ip}; it is left out");
            problems.push(Problem::new(name, reason));
        } else {
            usable.push(ip);
        }
    }
    Ok(usable)
}

fn service_port(port: &core::ServicePort, exposed: bool) -> Result<ServicePort, FieldError> {
    let node_port = port.node_port.filter(|number| exposed && *number != 0);
    Ok(ServicePort {
        name: port_name(port.name.as_deref()),
        protocol: field::protocol("spec.ports.protocol", port.protocol.as_deref())?,
        port: field::port("spec.ports.port", port.port)?,
        node_port: node_port.map(|number| field::port("spec.ports.nodePort", number)).transpose()?,
    })
}

fn policy(field: &'static str, text: Option<&str>) -> Result<TrafficPolicy, FieldError> {
    match text.unwrap_or_default() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(FieldError::new(field, other, "Cluster or Local")),
    }
}

/// Three hours unless it says otherwise (ServiceSpec v1).
fn affinity(spec: &core::ServiceSpec) -> Result<Option<Duration>, FieldError> {
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" | "None" => return Ok(None),
        "ClientIP" => {}
        other => return Err(FieldError::new("spec.sessionAffinity", other, "None or ClientIP")),
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(10_800);
    let timeout = u64::try_from(seconds).ok().filter(|seconds| (1..=86_400).contains(seconds));
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    timeout
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or_else(|| FieldError::new(field, seconds, "between 1 and 86400"))
}

fn source_ranges(spec: &core::ServiceSpec, deny: bool) -> Result<Option<Arc<SourceRanges>>, FieldError> {
    let texts = spec.load_balancer_source_ranges.iter().flatten().map(|text| text.trim());
    let mut prefixes =
        texts.map(|text| field::prefix("spec.loadBalancerSourceRanges", text)).collect::<Result<Vec<_>, _>>()?;
    prefixes.sort();
    prefixes.dedup();
    Ok(Some(prefixes).filter(|all| !all.is_empty()).map(|prefixes| Arc::new(SourceRanges { prefixes, deny })))
}

fn health_check_node_port(spec: &core::ServiceSpec) -> Result<Option<u16>, FieldError> {
    let port = spec.health_check_node_port.filter(|port| *port != 0);
    port.map(|port| field::port("spec.healthCheckNodePort", port)).transpose()
}

fn wants_topology(spec: &core::ServiceSpec, meta: &ObjectMeta) -> bool {
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(String::as_str);
    let auto = |mode: Option<&str>| mode.is_some_and(|mode| matches!(mode, "Auto" | "auto"));
    spec.traffic_distribution.is_some()
        || auto(annotation("service.kubernetes.io/topology-mode"))
        || auto(annotation("service.kubernetes.io/topology-aware-hints"))
}
