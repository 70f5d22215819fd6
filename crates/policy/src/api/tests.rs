// SPDX-License-Identifier: Apache-2.0

use super::*;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use model::Label;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn get_json(api: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = api.clone().oneshot(request).await.unwrap();
    let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn identities_are_listed_and_found_by_number() {
    let (mut writer, reader) = statedb::table("identities");
    let row = |id, app| Identity { id: IdentityId(id), labels: [Label::k8s("app", app)].into_iter().collect() };
    writer.replace([row(300, "web"), row(301, "db")]);
    writer.commit();
    let api = routes(reader);
    let (web, db) = (json!({"id": 300, "labels": ["k8s:app=web"]}), json!({"id": 301, "labels": ["k8s:app=db"]}));
    assert_eq!(get_json(&api, "/v1/identity").await, (StatusCode::OK, json!([web, db])));
    assert_eq!(get_json(&api, "/v1/identity/301").await, (StatusCode::OK, db));
    assert_eq!(get_json(&api, "/v1/identity/302").await.0, StatusCode::NOT_FOUND);
}
