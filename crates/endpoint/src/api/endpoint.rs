// SPDX-License-Identifier: Apache-2.0
//! `/endpoint`: pods of this node.

use super::{Refusal, Shared, render};
use crate::reference::EndpointRef;
use crate::rest::{EndpointBatchDeleteRequest, EndpointChangeRequest};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::Endpoint;
use rest::{
    EndpointConfigurationSpec, EndpointHealth, EndpointStatusChange, LabelConfigurationSpec, LabelConfigurationStatus,
};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn list(State(shared): State<Shared>) -> Json<Vec<rest::Endpoint>> {
    let endpoints = shared.manager.endpoints().snapshot();
    Json(endpoints.iter().map(|endpoint| render::endpoint(&shared, endpoint)).collect())
}

pub(super) async fn get(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<rest::Endpoint>, Refusal> {
    Ok(Json(render::endpoint(&shared, &*find(&shared, &id)?)))
}

pub(super) async fn create(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(request): Json<EndpointChangeRequest>,
) -> Result<Response, Refusal> {
    let EndpointRef::Attachment(attachment) = parse(&id)? else {
        return Err(Refusal(StatusCode::BAD_REQUEST, format!("{id}: an endpoint is created by its cni-attachment-id")));
    };
    // A caller that hangs up must not leave half an endpoint behind.
    let manager = Arc::clone(&shared.manager);
    let created = tokio::spawn(async move { manager.create(&attachment, &request).await }).await;
    let endpoint = created.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
    Ok((StatusCode::CREATED, Json(render::endpoint(&shared, &endpoint))).into_response())
}

pub(super) async fn remove(State(shared): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    removed(&shared, &parse(&id)?).await
}

pub(super) async fn remove_container(
    State(shared): State<Shared>,
    Json(request): Json<EndpointBatchDeleteRequest>,
) -> Result<StatusCode, Refusal> {
    if request.container_id.is_empty() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "container-id: is missing".into()));
    }
    removed(&shared, &EndpointRef::Container(request.container_id)).await
}

async fn removed(shared: &Shared, name: &EndpointRef) -> Result<StatusCode, Refusal> {
    match shared.manager.remove(name).await {
        0 => Err(Refusal(StatusCode::NOT_FOUND, "there is no such endpoint".into())),
        _ => Ok(StatusCode::OK),
    }
}

pub(super) async fn health(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<EndpointHealth>, Refusal> {
    Ok(Json(render::health(&shared, &*find(&shared, &id)?)))
}

pub(super) async fn labels(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let endpoint = find(&shared, &id)?;
    let status: LabelConfigurationStatus = render::labels(&shared, &endpoint);
    Ok(Json(json!({"spec": LabelConfigurationSpec::default(), "status": status})))
}

pub(super) async fn log(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Vec<EndpointStatusChange>>, Refusal> {
    Ok(Json(shared.manager.journal().of(find(&shared, &id)?.id)))
}

pub(super) async fn config(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    find(&shared, &id)?;
    Ok(Json(json!({"realized": EndpointConfigurationSpec::default()})))
}

fn parse(id: &str) -> Result<EndpointRef, Refusal> {
    id.parse().map_err(|e: crate::reference::ParseRefError| Refusal(StatusCode::BAD_REQUEST, e.to_string()))
}

fn find(shared: &Shared, id: &str) -> Result<Arc<Endpoint>, Refusal> {
    let name = parse(id)?;
    let endpoints = shared.manager.endpoints().snapshot();
    let found = endpoints.iter().find(|endpoint| name.matches(endpoint)).cloned();
    found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("endpoint {id} is not on this node")))
}
