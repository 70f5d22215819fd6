// SPDX-License-Identifier: Apache-2.0
//! Services and EndpointSlices, headless ones too: a route may lead to any Service that has endpoints.

use crate::name::ObjectName;
use k8s::endpoint_slice::{Conditions, Usable};
use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use l7::EndpointState;
use model::Protocol;
use std::net::SocketAddr;
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
    /// All that comes from one address goes to one endpoint.
    pub by_client: bool,
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
    /// Who is to prefer it.
    pub hints: Arc<Hints>,
}

/// Who is to prefer an endpoint, as Kubernetes has it decided for Services with trafficDistribution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Names of zones.
    pub zones: Vec<Arc<str>>,
    /// Names of nodes.
    pub nodes: Vec<Arc<str>>,
}

impl Hints {
    fn of(endpoint: &discovery::Endpoint) -> Arc<Self> {
        let Some(hints) = &endpoint.hints else { return Arc::default() };
        let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into()).collect();
        let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str().into()).collect();
        Arc::new(Self { zones, nodes })
    }
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
        by_client: spec.session_affinity.as_deref() == Some("ClientIP"),
        ipv6: spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6"),
        ports: spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
    }))
}

/// The row of an EndpointSlice, with the endpoints in it that can be used; none if it belongs to no Service.
#[must_use]
pub fn ingest_slice(object: &discovery::EndpointSlice) -> Option<Slice> {
    let name = ObjectName::of(&object.metadata)?;
    let service = object.metadata.labels.as_ref()?.get("kubernetes.io/service-name").filter(|name| !name.is_empty())?;
    if object.address_type == "FQDN" {
        return None;
    }
    let service = ObjectName { namespace: Arc::clone(&name.namespace), name: service.as_str().into() };
    let usable = Usable::of(object);
    let mut endpoints = Vec::new();
    for (port, protocol, number) in usable.ports {
        let name: Arc<str> = port.name.as_deref().unwrap_or_default().into();
        endpoints.extend(usable.endpoints.iter().map(|(endpoint, ip)| Endpoint {
            port: Arc::clone(&name),
            protocol,
            address: SocketAddr::new(*ip, number),
            state: state(Conditions::of(endpoint)),
            zone: endpoint.zone.as_deref().map(Arc::from),
            hints: Hints::of(endpoint),
        }));
    }
    Some(Slice { name, service, endpoints })
}

fn state(conditions: Conditions) -> EndpointState {
    match (conditions.ready, conditions.serving && conditions.terminating) {
        (true, _) => EndpointState::Ready,
        (false, true) => EndpointState::Terminating,
        (false, false) => EndpointState::Unready,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_endpoint_or_a_port_that_cannot_be_used_takes_no_other_with_it() {
        let object = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "a", "port": 0}, {"name": "b", "port": 80}],
            "endpoints": [{"addresses": ["x"]}, {"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]});
        let slice = ingest_slice(&serde_json::from_value(object).unwrap()).unwrap();
        let all: Vec<_> =
            slice.endpoints.iter().map(|endpoint| (&*endpoint.port, endpoint.address.to_string())).collect();
        assert_eq!(all, [("b", "10.0.0.1:80".to_owned())]);
    }
}
