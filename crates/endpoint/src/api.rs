// SPDX-License-Identifier: Apache-2.0
//! The part of the agent's REST API about addresses and endpoints, served on the agent's unix socket. Requests wait
//! until the previous process's endpoints are restored.

mod endpoint;
mod ipam;
mod render;

use crate::addresses::AddressError;
use crate::manager::{CreateError, Manager};
use crate::rest::{DaemonConfigurationStatus, NodeAddressing, NodeAddressingElement, Protocols};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::{EndpointPolicy, Identity, LocalNode};
use statedb::Reader;
use std::net::IpAddr;
use std::sync::Arc;

/// Shared by handlers.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) manager: Arc<Manager>,
    pub(crate) node: Reader<LocalNode>,
    pub(crate) policies: Reader<EndpointPolicy>,
    pub(crate) identities: Reader<Identity>,
}

/// All routes, below `/v1`.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/ipam", post(ipam::allocate))
        .route("/v1/ipam/{ip}", post(ipam::claim).delete(ipam::release))
        .route("/v1/endpoint", get(endpoint::list).delete(endpoint::remove_container))
        .route("/v1/endpoint/{id}", get(endpoint::get).put(endpoint::create).delete(endpoint::remove))
        .route("/v1/endpoint/{id}/healthz", get(endpoint::health))
        .route("/v1/endpoint/{id}/labels", get(endpoint::labels))
        .route("/v1/endpoint/{id}/log", get(endpoint::log))
        .route("/v1/endpoint/{id}/config", get(endpoint::config))
        .layer(from_fn_with_state(shared.clone(), restored))
        .with_state(shared)
}

async fn restored(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    // The sender lives as long as the manager.
    let _ = shared.manager.restored().wait_for(|restored| *restored).await;
    next.run(request).await
}

/// An error response: a status and one sentence, as a JSON string.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<AddressError> for Refusal {
    fn from(error: AddressError) -> Self {
        let status = match error {
            AddressError::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            AddressError::Exhausted(_) => StatusCode::BAD_GATEWAY,
            AddressError::Taken { .. } | AddressError::InUse { .. } => StatusCode::CONFLICT,
            AddressError::Foreign(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        let status = match error {
            CreateError::Address(error) => return error.into(),
            CreateError::Invalid { .. } | CreateError::HostNetwork(_) => StatusCode::BAD_REQUEST,
            CreateError::Exists { .. } => StatusCode::CONFLICT,
            CreateError::UnknownPod(_) | CreateError::NotAttached { .. } => StatusCode::SERVICE_UNAVAILABLE,
            CreateError::NoId | CreateError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, statedb::with_causes(&error))
    }
}

async fn config(State(shared): State<Shared>) -> Result<Json<DaemonConfigurationStatus>, Refusal> {
    let config = shared.manager.config();
    let node = local_node(&shared)?;
    let families = Protocols { ipv4: config.masquerade_ipv4, ipv6: config.masquerade_ipv6 };
    Ok(Json(DaemonConfigurationStatus {
        addressing: addressing(&shared, &node),
        device_mtu: node.device_mtu,
        route_mtu: node.route_mtu,
        datapath_mode: "veth".into(),
        ipam_mode: config.ipam.name().to_owned(),
        masquerade: families.ipv4 || families.ipv6,
        masquerade_protocols: families,
        ip_local_reserved_ports: String::new(),
        daemon_configuration_map: config.given.0.clone(),
    }))
}

/// The node's row; without it gateways and MTU are unknown.
fn local_node(shared: &Shared) -> Result<Arc<LocalNode>, Refusal> {
    shared.node.snapshot().get(&()).ok_or_else(|| {
        Refusal(StatusCode::SERVICE_UNAVAILABLE, "the node's devices and addresses are not set up yet".into())
    })
}

fn addressing(shared: &Shared, node: &LocalNode) -> NodeAddressing {
    let config = shared.manager.config();
    let range = |v4: bool| node.pod_cidrs.iter().find(|c| c.addr().is_ipv4() == v4).map(ToString::to_string);
    let element = |enabled, ip: Option<IpAddr>, v4| NodeAddressingElement { enabled, ip, alloc_range: range(v4) };
    NodeAddressing {
        ipv4: element(config.ipv4, node.router_ipv4.map(IpAddr::V4), true),
        ipv6: element(config.ipv6, node.router_ipv6.map(IpAddr::V6), false),
    }
}

#[cfg(test)]
mod tests;
