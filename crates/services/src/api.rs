// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/service` (contracts L.1).

use axum::routing::get;
use axum::{Json, Router};
use model::Frontend;
use rest::{BackendAddress, FrontendAddress, Service, ServiceFlags, ServiceSpec, ServiceStatus};
use statedb::Reader;

pub(crate) fn routes(frontends: Reader<Frontend>) -> Router {
    let list = move || async move { Json(frontends.snapshot().iter().map(|row| render(row)).collect::<Vec<_>>()) };
    Router::new().route("/v1/service", get(list))
}

fn render(row: &Frontend) -> Service {
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
