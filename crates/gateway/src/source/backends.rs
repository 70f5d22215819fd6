// SPDX-License-Identifier: Apache-2.0
//! Services and EndpointSlices, headless ones too: a route may lead to any Service that has endpoints.

use crate::name::ObjectName;
use k8s::endpoint_slice::Conditions;
use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use l7::EndpointState;
use model::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// It stands for a name in DNS and has no endpoints.
    pub external: bool,
    /// It has an address of its own in the cluster.
    pub addressed: bool,
    /// Its endpoints have IPv6 addresses first.
    pub ipv6: bool,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, unless it is the only one.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// What is spoken there.
    pub app_protocol: Option<Arc<str>>,
}

impl statedb::Row for Service {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// Some of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service.
    pub service: ObjectName,
    /// The endpoints, once for each port.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the Service's port that leads to it.
    pub port: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it takes requests.
    pub state: EndpointState,
    /// Its zone.
    pub zone: Option<Arc<str>>,
}

impl statedb::Row for Slice {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// The row of a Service.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_service(object: &core::Service) -> Result<Option<Service>, FieldError> {
    let (Some(name), Some(spec)) = (ObjectName::of(&object.metadata), object.spec.as_ref()) else {
        return Ok(None);
    };
    let port = |port: &core::ServicePort| {
        Ok(ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: field::protocol("spec.ports.protocol", port.protocol.as_deref())?,
            port: field::port("spec.ports.port", port.port)?,
            app_protocol: port.app_protocol.as_deref().map(Arc::from),
        })
    };
    Ok(Some(Service {
        name,
        external: spec.type_.as_deref() == Some("ExternalName"),
        addressed: spec.cluster_ip.as_deref().is_some_and(|ip| !matches!(ip, "" | "None")),
        ipv6: spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6"),
        ports: spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
    }))
}

/// The row of an EndpointSlice; none if it belongs to no Service.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_slice(object: &discovery::EndpointSlice) -> Result<Option<Slice>, FieldError> {
    let labels = object.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).filter(|name| !name.is_empty());
    let (Some(name), Some(service)) = (ObjectName::of(&object.metadata), service) else { return Ok(None) };
    if object.address_type == "FQDN" {
        return Ok(None);
    }
    let service = ObjectName { namespace: Arc::clone(&name.namespace), name: service.as_str().into() };
    let mut endpoints = Vec::new();
    for port in object.ports.iter().flatten() {
        // A port without a number stands for all of them.
        let Some(number) = port.port else { continue };
        let number = field::port("ports.port", number)?;
        let protocol = field::protocol("ports.protocol", port.protocol.as_deref())?;
        let port: Arc<str> = port.name.as_deref().unwrap_or_default().into();
        for endpoint in object.endpoints.iter().flatten() {
            // All addresses of an endpoint lead to the same place, so the first stands for them.
            let Some(address) = endpoint.addresses.first() else { continue };
            let ip: IpAddr = field::address("endpoints.addresses", address)?;
            endpoints.push(Endpoint {
                port: Arc::clone(&port),
                protocol,
                address: SocketAddr::new(ip, number),
                state: state(Conditions::of(endpoint)),
                zone: endpoint.zone.as_deref().map(Arc::from),
            });
        }
    }
    Ok(Some(Slice { name, service, endpoints }))
}

fn state(conditions: Conditions) -> EndpointState {
    match (conditions.ready, conditions.serving && conditions.terminating) {
        (true, _) => EndpointState::Ready,
        (false, true) => EndpointState::Terminating,
        (false, false) => EndpointState::Unready,
    }
}
