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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::scenes::VIEWERS;
    use axum::body::Body;
    use axum::http::Request;
    use clap::Parser as _;
    use futures::StreamExt as _;
    use tower::ServiceExt as _;

    fn served() -> Router {
        let relay = Relay::new(&Config::parse_from(["hubble-ui", "--server=127.0.0.1:1"]));
        router(Scenes::new(relay.clone()), relay, Vec::new())
    }

    async fn get(router: &Router, path: &str) -> Response {
        let request = Request::builder().uri(path).header("host", "localhost").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_viewer_is_told_at_once_what_there_is_and_one_too_many_why_not() {
        let router = served();
        let mut viewers = Vec::new();
        for _ in 0..VIEWERS {
            let answer = get(&router, "/api/events?namespace=shop&port=80").await;
            assert_eq!(answer.status(), StatusCode::OK);
            viewers.push(answer.into_body().into_data_stream());
        }
        let first = viewers.first_mut().unwrap().next().await.unwrap().unwrap();
        let text = String::from_utf8(first.to_vec()).unwrap();
        assert!(
            text.starts_with("data: {") && text.contains("\"reset\":true") && text.contains("hubble-relay"),
            "{text}"
        );
        assert_eq!(get(&router, "/api/events").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        viewers.pop();
        assert_eq!(get(&router, "/api/events").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let router = served();
        for (path, want) in [
            ("/api/events?namespace=shop/web", 400),
            ("/api/events?namespace=shop&port=http", 400),
            ("/api/proposal?id=1", 404),
            ("/api/proposal", 400),
            ("/../Cargo.toml", 404),
            ("/assets/nothing.js", 404),
            ("/api/namespaces", 502),
            ("/", 200),
            ("/healthz", 200),
        ] {
            assert_eq!(get(&router, path).await.status().as_u16(), want, "{path}");
        }
        let long = format!("/api/events?namespace={}", "a".repeat(64));
        assert_eq!(get(&router, &long).await.status().as_u16(), 400);
    }
}
