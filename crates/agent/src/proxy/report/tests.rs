// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Report, Written};
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use gateway::{Edition, InForce};
use k8s::kube::client::Body as KubeBody;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

/// Names of what was written, and whether the API server refuses the first part.
type Server = Arc<Mutex<(Vec<String>, bool)>>;

fn report(server: &Server) -> Report {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<KubeBody>| {
        let (answer, status) = answer(&mut server.lock(), &request);
        let body = Body::from(answer.to_string());
        async move { Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap()) }
    });
    let client = k8s::Client::over(k8s::kube::Client::new(service, "default"), &k8s::ClientConfig::default());
    Report { client, node: "here".to_owned(), namespace: "secrets".to_owned() }
}

fn answer(
    (written, refuses): &mut (Vec<String>, bool),
    request: &Request<KubeBody>,
) -> (serde_json::Value, StatusCode) {
    let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
    if request.method() == Method::GET {
        let node = json!({"metadata": {"name": "here", "uid": "u"}});
        return (json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [node]}), StatusCode::OK);
    }
    if *refuses && name == "cilium-proxy-here" {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "message": "no", "code": 422});
        return (status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    written.push(name.clone());
    (json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}), StatusCode::OK)
}

#[tokio::test]
async fn a_part_that_is_refused_keeps_no_other_from_being_written_and_what_is_written_is_not_written_again() {
    let server = Server::default();
    server.lock().1 = true;
    let (report, mut written) = (report(&server), Written::default());
    let edition =
        |n: usize| Edition { object: format!("Gateway shop/{n}-{}", "x".repeat(240)).into(), uid: "u".into() };
    let in_force =
        InForce { serves: true, generations: (0..1500).map(|n| (edition(n), 1)).collect(), ..InForce::default() };
    report.write(in_force.clone(), &mut written).await.unwrap_err();
    assert_eq!(server.lock().0, ["cilium-proxies-1-here"]);
    server.lock().1 = false;
    report.write(in_force.clone(), &mut written).await.unwrap();
    report.write(in_force, &mut written).await.unwrap();
    assert_eq!(server.lock().0, ["cilium-proxies-1-here", "cilium-proxy-here"]);
}
