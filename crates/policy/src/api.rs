// SPDX-License-Identifier: Apache-2.0
//! Identities in the agent's REST API: `GET /v1/identity`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::{Identity, IdentityId};
use statedb::Reader;

pub(crate) fn routes(identities: Reader<Identity>) -> Router {
    Router::new().route("/v1/identity", get(list)).route("/v1/identity/{id}", get(one)).with_state(identities)
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

fn render_identity(row: &Identity) -> rest::Identity {
    rest::Identity { id: row.id.0, labels: row.labels.to_strings(), ..rest::Identity::default() }
}

#[cfg(test)]
mod tests;
