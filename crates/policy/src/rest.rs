// SPDX-License-Identifier: Apache-2.0
//! Identities and the ipcache as the API shows them: `GET /v1/identity`, `GET /v1/ip` (contracts L.1).

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::rest::{IpListEntry, IpListEntryMetadata};
use model::{Identity, IdentityId, IpEntry, IpSource};
use statedb::Reader;

pub(crate) fn routes(identities: Reader<Identity>, ipcache: Reader<IpEntry>) -> Router {
    Router::new()
        .route("/v1/identity", get(list))
        .route("/v1/identity/{id}", get(one))
        .with_state(identities)
        .merge(Router::new().route("/v1/ip", get(ips)).with_state(ipcache))
}

async fn list(State(identities): State<Reader<Identity>>) -> Response {
    Json(identities.snapshot().iter().map(|row| render_identity(row)).collect::<Vec<_>>()).into_response()
}

async fn one(State(identities): State<Reader<Identity>>, Path(id): Path<u32>) -> Response {
    match identities.snapshot().get(&IdentityId(id)) {
        Some(row) => Json(render_identity(&row)).into_response(),
        None => (StatusCode::NOT_FOUND, Json(format!("there is no identity {id}"))).into_response(),
    }
}

async fn ips(State(ipcache): State<Reader<IpEntry>>) -> Response {
    Json(ipcache.snapshot().iter().map(|row| render_ip(row)).collect::<Vec<_>>()).into_response()
}

fn render_identity(row: &Identity) -> model::rest::Identity {
    model::rest::Identity { id: row.id.0, labels: row.labels.to_strings(), ..model::rest::Identity::default() }
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
