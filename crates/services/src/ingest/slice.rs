// SPDX-License-Identifier: Apache-2.0
//! EndpointSlices.

use super::{HEADLESS, label, names, ours, port_name};
use crate::Config;
use k8s::endpoint_slice::Conditions;
use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::discovery::v1 as discovery;
use model::{Protocol, ServiceName};
use std::net::IpAddr;
use std::sync::Arc;

/// A port of the endpoints in a slice. It belongs to the port of the Service with the same name and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name, unless the Service has a single port without one.
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// Namespace and name of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceName {
    pub namespace: Arc<str>,
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
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    /// Zones whose clients should use it, if it says so.
    pub for_zones: Vec<Arc<str>>,
    /// Nodes whose clients should use it, if it says so.
    pub for_nodes: Vec<Arc<str>>,
    /// May get new connections.
    pub ready: bool,
    /// Answers, even if it is about to end.
    pub serving: bool,
    /// Is about to end.
    pub terminating: bool,
}

const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

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
            protocol: field::protocol("ports.protocol", port.protocol.as_deref())?,
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
    let service = ServiceName::new(namespace.clone(), service);
    Ok(Some(EndpointSlice { name: SliceName { namespace, name }, service, ports, endpoints }))
}

fn slice_endpoint(ip: IpAddr, endpoint: &discovery::Endpoint) -> SliceEndpoint {
    let Conditions { ready, serving, terminating } = Conditions::of(endpoint);
    let hints = endpoint.hints.as_ref();
    SliceEndpoint {
        ip,
        node: endpoint.node_name.as_deref().map(Arc::from),
        zone: endpoint.zone.as_deref().map(Arc::from),
        for_zones: hints
            .and_then(|h| h.for_zones.as_ref())
            .into_iter()
            .flatten()
            .map(|z| z.name.as_str().into())
            .collect(),
        for_nodes: hints
            .and_then(|h| h.for_nodes.as_ref())
            .into_iter()
            .flatten()
            .map(|n| n.name.as_str().into())
            .collect(),
        ready,
        serving,
        terminating,
    }
}
