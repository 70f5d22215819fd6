// SPDX-License-Identifier: Apache-2.0
//! EndpointSlices.

use super::{HEADLESS, Problem, is_routable, label, names, ours, port_name};
use crate::{Config, owned};
use k8s::endpoint_slice::{Conditions, Usable};
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
    /// What of the object is not used, the first of it.
    pub problems: Vec<Problem>,
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

/// How many fields of a slice are named.
const NAMED: usize = 5;

/// The row of an EndpointSlice, with all of it that can be used; none if it belongs to no Service, to one of another proxy, or to a headless
/// one.
#[must_use]
pub fn ingest_slice(config: &Config, object: &discovery::EndpointSlice) -> Option<EndpointSlice> {
    let service = label(&object.metadata, SERVICE_OF_SLICE).filter(|s| !s.is_empty())?;
    let (namespace, name) = names(&object.metadata)?;
    let headless = label(&object.metadata, HEADLESS).is_some();
    if headless || !ours(config, &object.metadata) || object.address_type == "FQDN" {
        return None;
    }
    let Usable { ports, endpoints, faults } = Usable::of(object);
    let ports = ports.into_iter().map(|(port, protocol, number)| Port {
        name: port_name(port.name.as_deref()),
        protocol,
        port: number,
    });
    let (endpoints, elsewhere): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(|(_, ip)| is_routable(*ip));
    let of_slice = |field: &str| format!("EndpointSlice {name} {field}");
    let odd = elsewhere.iter().map(|(_, ip)| {
        Problem::new(of_slice("endpoints.addresses"), format!("{ip} is no address of a single machine"))
    });
    let unusable = faults.iter().map(|fault| Problem::new(of_slice(&fault.field), fault.reason.as_str()));
    let mut problems: Vec<_> = unusable.chain(odd).take(NAMED).collect();
    let more = (faults.len() + elsewhere.len()).saturating_sub(NAMED);
    problems.extend((more > 0).then(|| Problem::new(of_slice("endpoints"), format!("{more} more are not used"))));
    Some(EndpointSlice {
        service: ServiceName::new(namespace.clone(), service),
        ports: ports.collect(),
        endpoints: endpoints.into_iter().map(|(endpoint, ip)| slice_endpoint(ip, endpoint)).collect(),
        problems,
        name: SliceName { namespace, name },
    })
}

/// The same for who tells the author of its Service: only where something is not used, or by which the API server's addresses are known.
#[must_use]
pub fn ingest_slice_to_judge(config: &Config, object: &discovery::EndpointSlice) -> Option<EndpointSlice> {
    let row = ingest_slice(config, object)?;
    if owned::is_api_server(&row) {
        return Some(row);
    }
    (!row.problems.is_empty()).then(|| EndpointSlice { ports: Vec::new(), endpoints: Vec::new(), ..row })
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
