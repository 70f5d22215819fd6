// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/service`, `GET /v1/service/explain/{namespace}/{name}`, and `GET /v1/lrp`.

mod redirects;

use crate::explain::Explainer;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use model::{Frontend, Scope, ServiceName};
use rest::{BackendAddress, FrontendAddress, Service, ServiceFlags, ServiceSpec, ServiceStatus};
use statedb::Reader;

pub(crate) use redirects::Redirected;

pub(crate) fn routes(frontends: Reader<Frontend>, explainer: Explainer, redirected: Redirected) -> Router {
    let list = move || async move { Json(frontends.snapshot().iter().map(|row| render(row)).collect::<Vec<_>>()) };
    let explain = move |Path((namespace, name)): Path<(String, String)>| async move {
        let service = ServiceName::new(namespace, name);
        match explainer.explain(&service) {
            Some(explanation) => Json(explanation).into_response(),
            None => (StatusCode::NOT_FOUND, Json(format!("no Service {service} has an address here"))).into_response(),
        }
    };
    let redirects = move || async move { Json(redirected.list()) };
    Router::new()
        .route("/v1/lrp", get(redirects))
        .route("/v1/service", get(list))
        .route("/v1/service/explain/{namespace}/{name}", get(explain))
}

fn render(row: &Frontend) -> Service {
    let spec = ServiceSpec {
        id: row.id,
        frontend_address: Some(frontend(row)),
        backend_addresses: row.backends.iter().map(backend).collect(),
        flags: Some(ServiceFlags {
            kind: row.kind.to_string(),
            traffic_policy: row.external_policy.to_string(),
            ext_traffic_policy: row.external_policy.to_string(),
            int_traffic_policy: row.internal_policy.to_string(),
            nat_policy: "None".to_owned(),
            health_check_node_port: row.health_check_node_port.unwrap_or_default(),
            name: row.service.name.to_string(),
            namespace: row.service.namespace.to_string(),
            ..ServiceFlags::default()
        }),
    };
    Service { spec: Some(spec.clone()), status: Some(ServiceStatus { realized: Some(spec) }) }
}

fn frontend(row: &Frontend) -> FrontendAddress {
    let scope = match row.key.scope {
        Scope::External => "external",
        Scope::Internal => "internal",
        Scope::Unredirected => "unredirected",
    };
    FrontendAddress {
        ip: row.key.addr.ip.to_string(),
        protocol: row.key.addr.protocol.to_string().to_lowercase(),
        scope: scope.to_owned(),
        port: row.key.addr.port,
    }
}

fn backend(backend: &model::Backend) -> BackendAddress {
    BackendAddress {
        ip: backend.addr.ip.to_string(),
        protocol: backend.addr.protocol.to_string().to_lowercase(),
        port: backend.addr.port,
        node_name: backend.node.as_deref().unwrap_or_default().to_owned(),
        state: backend.state.to_string(),
        preferred: false,
        weight: backend.weight,
        zone: backend.zone.as_deref().unwrap_or_default().to_owned(),
    }
}
