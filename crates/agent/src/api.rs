// SPDX-License-Identifier: Apache-2.0
//! The agent's REST API on its unix socket (contracts L.1): the features' routes, and those that speak of several.

use crate::status::StatusSource;
use crate::tables::Tables;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::{Frontend, Identity, IdentityId, IpEntry, IpSource, Node};
use rest::{
    BackendAddress, ClusterNodes, FrontendAddress, IpListEntry, IpListEntryMetadata, NodeAddressing,
    NodeAddressingElement, NodeElement, Service, ServiceFlags, ServiceSpec, ServiceStatus,
};
use statedb::Reader;
use std::net::IpAddr;
use std::sync::Arc;

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Identities.
    pub(crate) identities: Reader<Identity>,
    /// Addresses.
    pub(crate) ipcache: Reader<IpEntry>,
    /// Nodes.
    pub(crate) nodes: Reader<Node>,
    /// Services.
    pub(crate) frontends: Reader<Frontend>,
    /// Tables and reconcilers.
    pub(crate) tables: Tables,
    /// Status of the whole.
    pub(crate) status: Arc<dyn StatusSource>,
    /// Name of this node.
    pub(crate) node_name: String,
}

/// The routes of the agent itself.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/healthz", get(healthz))
        .route("/v1/identity", get(identities))
        .route("/v1/identity/{id}", get(identity))
        .route("/v1/ip", get(ips))
        .route("/v1/cluster/nodes", get(nodes))
        .route("/v1/service", get(services))
        .route("/v1/statedb", get(tables))
        .route("/v1/statedb/dump/{table}", get(dump))
        .with_state(shared)
}

async fn healthz(State(shared): State<Shared>) -> Response {
    Json(shared.status.status()).into_response()
}

async fn tables(State(shared): State<Shared>) -> Response {
    Json(shared.tables.list()).into_response()
}

async fn dump(State(shared): State<Shared>, Path(table): Path<String>) -> Response {
    match shared.tables.dump(&table) {
        Some(rows) => Json(rows).into_response(),
        None => {
            let known: Vec<_> = shared.tables.list().iter().map(|t| t.name).collect();
            let text = format!("there is no table {table:?}; there are: {}", known.join(", "));
            (StatusCode::NOT_FOUND, Json(text)).into_response()
        }
    }
}

async fn identities(State(shared): State<Shared>) -> Response {
    let all: Vec<_> = shared.identities.snapshot().iter().map(|row| render_identity(row)).collect();
    Json(all).into_response()
}

async fn identity(State(shared): State<Shared>, Path(id): Path<u32>) -> Response {
    match shared.identities.snapshot().get(&IdentityId(id)) {
        Some(row) => Json(render_identity(&row)).into_response(),
        None => (StatusCode::NOT_FOUND, Json(format!("there is no identity {id}"))).into_response(),
    }
}

fn render_identity(row: &Identity) -> rest::Identity {
    rest::Identity { id: row.id.0, labels: row.labels.to_strings(), ..rest::Identity::default() }
}

async fn ips(State(shared): State<Shared>) -> Response {
    let all: Vec<_> = shared.ipcache.snapshot().iter().map(|row| render_ip(row)).collect();
    Json(all).into_response()
}

fn render_ip(row: &IpEntry) -> IpListEntry {
    let source = match row.source {
        IpSource::Generated => "generated",
        IpSource::CustomResource => "custom-resource",
        IpSource::KubeApiserver => "kube-apiserver",
        IpSource::Local => "local",
    };
    let pod = row.pod.as_ref();
    IpListEntry {
        cidr: row.prefix.to_string(),
        identity: row.identity.0,
        host_ip: row.host.map(|ip| ip.to_string()).unwrap_or_default(),
        encrypt_key: 0,
        metadata: Some(IpListEntryMetadata {
            source: source.to_owned(),
            namespace: pod.map(|p| p.namespace.to_string()).unwrap_or_default(),
            name: pod.map(|p| p.name.to_string()).unwrap_or_default(),
        }),
    }
}

async fn nodes(State(shared): State<Shared>) -> Response {
    let nodes: Vec<_> = shared.nodes.snapshot().iter().map(|row| render_node(row)).collect();
    let list = ClusterNodes { self_name: shared.node_name.clone(), nodes_added: nodes, ..ClusterNodes::default() };
    Json(list).into_response()
}

/// A node as `cluster/name` with its first address of each family.
pub(crate) fn render_node(row: &Node) -> NodeElement {
    let address = |v4: bool| -> Option<NodeAddressingElement> {
        let ip = row.internal_ips.iter().find(|ip| ip.is_ipv4() == v4)?;
        let range = row.pod_cidrs.iter().find(|cidr| cidr.addr().is_ipv4() == v4);
        Some(NodeAddressingElement {
            enabled: true,
            ip: ip.to_string(),
            alloc_range: range.map(ToString::to_string).unwrap_or_default(),
            address_type: "InternalIP".to_owned(),
        })
    };
    let other = |ip: &IpAddr| NodeAddressingElement {
        enabled: true,
        ip: ip.to_string(),
        address_type: "CiliumInternalIP".to_owned(),
        ..NodeAddressingElement::default()
    };
    NodeElement {
        name: format!("{}/{}", row.cluster, row.name),
        primary_address: Some(NodeAddressing { ipv4: address(true), ipv6: address(false) }),
        secondary_addresses: row.cilium_internal_ips.iter().map(other).collect(),
        health_endpoint_address: health_address(row),
        source: if row.local { "local" } else { "custom-resource" }.to_owned(),
        ..NodeElement::default()
    }
}

/// Addresses of a node's health endpoint, if it has one.
fn health_address(row: &Node) -> Option<NodeAddressing> {
    let of_family = |v4: bool| {
        let ip = row.health_ips.iter().find(|ip| ip.is_ipv4() == v4)?;
        Some(NodeAddressingElement { enabled: true, ip: ip.to_string(), ..NodeAddressingElement::default() })
    };
    let (ipv4, ipv6) = (of_family(true), of_family(false));
    (ipv4.is_some() || ipv6.is_some()).then_some(NodeAddressing { ipv4, ipv6 })
}

async fn services(State(shared): State<Shared>) -> Response {
    let all: Vec<_> = shared.frontends.snapshot().iter().map(|row| render_service(row)).collect();
    Json(all).into_response()
}

fn render_service(row: &Frontend) -> Service {
    let backend = |backend: &model::Backend| BackendAddress {
        ip: backend.addr.ip.to_string(),
        protocol: backend.addr.protocol.to_string().to_lowercase(),
        port: backend.addr.port,
        node_name: backend.node.as_deref().unwrap_or_default().to_owned(),
        state: if backend.active { "active" } else { "terminating" }.to_owned(),
        ..BackendAddress::default()
    };
    let spec = ServiceSpec {
        id: row.id,
        frontend_address: Some(FrontendAddress {
            ip: row.addr.ip.to_string(),
            protocol: row.addr.protocol.to_string().to_lowercase(),
            scope: "external".to_owned(),
            port: row.addr.port,
        }),
        backend_addresses: row.backends.iter().map(backend).collect(),
        flags: Some(ServiceFlags {
            kind: row.kind.to_string(),
            name: row.service.name.to_string(),
            namespace: row.service.namespace.to_string(),
            ..ServiceFlags::default()
        }),
    };
    Service { spec: Some(spec.clone()), status: Some(ServiceStatus { realized: Some(spec) }) }
}
