// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' Services and EndpointSlices to source rows. An object with a field that cannot be used is an error that
//! names the field; the row that an earlier version of the object gave stays.

use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{Protocol, ServiceName};
use std::net::IpAddr;
use std::sync::Arc;

use crate::Config;

/// A Service with cluster addresses. One row per such Service of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Cluster addresses, of one family or both.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<Port>,
    /// The only node whose endpoints are backends: this one, under `internalTrafficPolicy: Local`.
    pub only_node: Option<Arc<str>>,
}

impl statedb::Row for Service {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

/// A port of a Service, or of the backends in a slice: they belong together by name and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name, unless the Service has a single port without one.
    pub name: Option<Arc<str>>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// Namespace and name of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// Some of the endpoints of a Service. One row per EndpointSlice of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: SliceName,
    /// The Service it belongs to.
    pub service: ServiceName,
    /// Ports of every endpoint in it; a named target port is a number here.
    pub ports: Vec<Port>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

impl statedb::Row for EndpointSlice {
    type Key = SliceName;
    fn key(&self) -> SliceName {
        self.name.clone()
    }
}

/// An endpoint and its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Address.
    pub ip: IpAddr,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// May get new connections.
    pub ready: bool,
    /// Answers, even if it is about to end.
    pub serving: bool,
    /// Is about to end.
    pub terminating: bool,
}

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// The row of a Service; none if it has no cluster address (headless, ExternalName) or is another proxy's.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_service(config: &Config, node: &str, object: &core::Service) -> Result<Option<Service>, FieldError> {
    let (Some((namespace, name)), Some(spec)) = (names(&object.metadata), object.spec.as_ref()) else {
        return Ok(None);
    };
    let headless = label(&object.metadata, HEADLESS).is_some() || spec.cluster_ip.as_deref() == Some("None");
    if headless || !ours(config, &object.metadata) || spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let texts = match &spec.cluster_ips {
        Some(all) if !all.is_empty() => all.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    let texts = texts.iter().filter(|text| !text.is_empty());
    let cluster_ips: Vec<_> = texts.map(|text| field::address("spec.clusterIPs", text)).collect::<Result<_, _>>()?;
    if cluster_ips.is_empty() {
        return Ok(None);
    }
    let port = |port: &core::ServicePort| {
        Ok(Port {
            name: port_name(port.name.as_deref()),
            protocol: protocol("spec.ports.protocol", port.protocol.as_deref())?,
            port: field::port("spec.ports.port", port.port)?,
        })
    };
    let ports = spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?;
    let local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let only_node = local.then(|| node.into());
    Ok(Some(Service { name: ServiceName { namespace, name }, cluster_ips, ports, only_node }))
}

/// The row of an EndpointSlice; none if it belongs to no Service, to one of another proxy, or to a headless one.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_slice(config: &Config, object: &discovery::EndpointSlice) -> Result<Option<EndpointSlice>, FieldError> {
    let service = label(&object.metadata, SERVICE_OF_SLICE).filter(|s| !s.is_empty());
    let (Some((namespace, name)), Some(service)) = (names(&object.metadata), service) else { return Ok(None) };
    let headless = label(&object.metadata, HEADLESS).is_some();
    if headless || !ours(config, &object.metadata) || object.address_type == "FQDN" {
        return Ok(None);
    }
    // A port without a number stands for all ports; no Service port can be translated to it.
    let numbered = object.ports.iter().flatten().filter_map(|port| Some((port, port.port?)));
    let port = |(port, value): (&discovery::EndpointPort, i32)| {
        Ok(Port {
            name: port_name(port.name.as_deref()),
            protocol: protocol("ports.protocol", port.protocol.as_deref())?,
            port: field::port("ports.port", value)?,
        })
    };
    let ports = numbered.map(port).collect::<Result<_, _>>()?;
    // All addresses of an endpoint lead to the same place, so the first stands for them.
    let addressed =
        object.endpoints.iter().flatten().filter_map(|endpoint| Some((endpoint, endpoint.addresses.first()?)));
    let endpoint =
        |(endpoint, text): (_, &String)| Ok(slice_endpoint(field::address("endpoints.addresses", text)?, endpoint));
    let endpoints = addressed.map(endpoint).collect::<Result<_, _>>()?;
    let service = ServiceName { namespace: namespace.clone(), name: service.into() };
    Ok(Some(EndpointSlice { name: SliceName { namespace, name }, service, ports, endpoints }))
}

/// Conditions that are not given mean: ready, serving if ready, not terminating (EndpointSlice v1).
fn slice_endpoint(ip: IpAddr, endpoint: &discovery::Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    SliceEndpoint {
        ip,
        node: endpoint.node_name.as_deref().map(Arc::from),
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    }
}

fn names(meta: &ObjectMeta) -> Option<(Arc<str>, Arc<str>)> {
    Some((meta.namespace.as_deref()?.into(), meta.name.as_deref()?.into()))
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn ours(config: &Config, meta: &ObjectMeta) -> bool {
    match label(meta, PROXY_NAME) {
        Some(name) => !config.proxy_name.is_empty() && name == config.proxy_name,
        None => config.proxy_name.is_empty(),
    }
}

fn port_name(name: Option<&str>) -> Option<Arc<str>> {
    name.filter(|n| !n.is_empty()).map(Arc::from)
}

fn protocol(field: &'static str, text: Option<&str>) -> Result<Protocol, FieldError> {
    match text.unwrap_or("TCP") {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(FieldError::new(field, other, "TCP, UDP or SCTP")),
    }
}

#[cfg(test)]
mod tests;
