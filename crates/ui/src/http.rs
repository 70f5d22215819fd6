// SPDX-License-Identifier: Apache-2.0
//! What a browser may ask for: pages, the list of namespaces, the stream of a namespace, and a proposed policy.

use crate::assets;
use crate::guard::{Hosts, guard};
use crate::relay::Relay;
use crate::scene::Filter;
use crate::scenes::Scenes;
use crate::view::View;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::sse::Sse;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The longest name of a namespace (RFC 1123).
const NAMESPACE: usize = 63;

#[derive(Clone)]
struct Sources {
    scenes: Arc<Scenes>,
    relay: Relay,
}

/// All that is served, to browsers that call it by one of these names.
pub(crate) fn router(scenes: Arc<Scenes>, relay: Relay, hosts: Vec<String>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/api/namespaces", get(namespaces))
        .route("/api/events", get(events))
        .route("/api/proposal", get(proposal))
        .fallback(async |uri: Uri| assets::serve(uri.path()))
        .with_state(Sources { scenes, relay })
        .layer(middleware::from_fn_with_state(Hosts::new(hosts), guard))
}

async fn namespaces(State(sources): State<Sources>) -> Response {
    match sources.relay.namespaces().await {
        Ok(names) => ([(CACHE_CONTROL, "no-store")], Json(json!({ "namespaces": names }))).into_response(),
        Err(problem) => (StatusCode::BAD_GATEWAY, Json(json!({ "problem": problem }))).into_response(),
    }
}

#[derive(Deserialize)]
struct Wanted {
    /// All of them if it is empty.
    #[serde(default)]
    namespace: String,
}

/// Names of namespaces only: others would be names of pods, or as long as somebody likes.
fn is_namespace(name: &str) -> bool {
    name.len() <= NAMESPACE
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

async fn events(
    State(sources): State<Sources>,
    Query(Wanted { namespace }): Query<Wanted>,
    Query(filter): Query<Filter>,
) -> Response {
    if !is_namespace(&namespace) {
        return (StatusCode::BAD_REQUEST, "namespace: not the name of a namespace\n").into_response();
    }
    match sources.scenes.look(&namespace) {
        Ok(seat) => ([(CACHE_CONTROL, "no-store")], Sse::new(View::new(seat, filter).stream())).into_response(),
        Err(full) => (StatusCode::SERVICE_UNAVAILABLE, format!("{full}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    namespace: String,
    id: u64,
}

async fn proposal(State(sources): State<Sources>, Query(wanted): Query<Numbered>) -> Response {
    let scene = sources.scenes.find(&wanted.namespace);
    let text = scene.and_then(|scene| scene.lock().proposal(wanted.id).map(str::to_owned));
    match text {
        Some(text) => {
            ([(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
        }
        None => (StatusCode::NOT_FOUND, "this proposal is no longer kept\n").into_response(),
    }
}
