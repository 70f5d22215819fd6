// SPDX-License-Identifier: Apache-2.0
//! The agent's REST API on its unix socket: the features' routes, and those about the agent as a whole.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rest::StatusResponse;
use std::sync::Arc;
use surface::Surface;
use tracing::{Instrument, info_span};

/// Returns the agent's overall status.
pub(crate) type StatusSource = Arc<dyn Fn() -> StatusResponse + Send + Sync>;

/// All routes. Logs carry the request they belong to.
pub(crate) fn router(surface: &Surface, status: StatusSource) -> Router {
    let healthz = get(move || async move { Json(status()) });
    Router::new()
        .route("/v1/statedb", get(tables))
        .route("/v1/statedb/dump/{table}", get(dump))
        .with_state(surface.clone())
        .route("/v1/healthz", healthz)
        .merge(surface.router())
        .layer(middleware::from_fn(in_span))
}

async fn in_span(request: Request, next: Next) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path());
    next.run(request).instrument(span).await
}

async fn tables(State(surface): State<Surface>) -> Response {
    Json(surface.tables()).into_response()
}

async fn dump(State(surface): State<Surface>, Path(table): Path<String>) -> Response {
    match surface.dump(&table) {
        Some(rows) => Json(rows).into_response(),
        None => {
            let known: Vec<_> = surface.tables().iter().map(|t| t.name).collect();
            let text = format!("there is no table {table:?}; there are: {}", known.join(", "));
            (StatusCode::NOT_FOUND, Json(text)).into_response()
        }
    }
}
