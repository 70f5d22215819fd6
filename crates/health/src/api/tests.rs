// SPDX-License-Identifier: Apache-2.0

use super::*;
use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

fn report(timestamp: &str) -> Arc<HealthStatusResponse> {
    Arc::new(HealthStatusResponse { timestamp: timestamp.to_owned(), ..HealthStatusResponse::default() })
}

/// An API, and the other ends of it.
fn api() -> (Router, watch::Sender<Arc<HealthStatusResponse>>, mpsc::Receiver<Request>) {
    let (sender, status) = watch::channel(report("old"));
    let (probe, requests) = mpsc::channel(1);
    let agent = Arc::new(|| StatusResponse { attach_mode: "tcx".to_owned(), ..StatusResponse::default() });
    let shared = Shared { status, probe, agent, since: Instant::now() };
    (router(Arc::new(shared)), sender, requests)
}

async fn ask(api: Router, method: &str, path: &str) -> (StatusCode, Value) {
    let request = HttpRequest::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = api.oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn the_agents_status_uptime_and_load_are_told() {
    let (api, _status, _requests) = api();
    let (code, body) = ask(api, "GET", "/v1beta/healthz").await;
    assert_eq!((code, &body["cilium"]["attach-mode"]), (StatusCode::OK, &Value::from("tcx")));
    assert!(body["uptime"].as_str().unwrap().ends_with('s'));
    assert!(body["system-load"]["last15min"].is_string());
}

#[test]
fn the_load_is_read_as_the_kernel_writes_it() {
    let read = load("2.12 1.95 2.32 1/412 8531\n").unwrap();
    assert_eq!([read.last1min, read.last5min, read.last15min], ["2.12", "1.95", "2.32"]);
    assert_eq!(load("2.12"), None);
}

#[tokio::test]
async fn the_status_is_the_last_one_published() {
    let (api, status, _requests) = api();
    assert_eq!(ask(api.clone(), "GET", "/v1beta/status").await.1["timestamp"], "old");
    status.send_replace(report("new"));
    assert_eq!(ask(api.clone(), "GET", "/v1beta/status").await.1["timestamp"], "new");
    assert_eq!(ask(api, "GET", "/v1beta/status/probe").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_request_for_probes_waits_for_their_results() {
    let (api, _status, mut requests) = api();
    let prober = async { requests.recv().await.unwrap().send(report("fresh")).unwrap() };
    let ((code, body), ()) = tokio::join!(ask(api, "PUT", "/v1beta/status/probe"), prober);
    assert_eq!((code, &body["timestamp"]), (StatusCode::OK, &Value::from("fresh")));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_probes_gets_what_there_is_when_they_take_too_long() {
    let (api, _status, _requests) = api();
    assert_eq!(ask(api, "PUT", "/v1beta/status/probe").await.1["timestamp"], "old");
}
