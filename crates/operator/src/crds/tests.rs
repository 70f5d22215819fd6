// SPDX-License-Identifier: Apache-2.0

use super::*;
use axum::http::{Method, Request, Response};
use k8s::kube;
use k8s::kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

fn definition() -> CustomResourceDefinition {
    k8s::crd::all().unwrap().remove(0)
}

fn labelled(version: &str) -> CustomResourceDefinition {
    let mut definition = definition();
    definition.labels_mut().insert(SCHEMA_VERSION_LABEL.into(), version.into());
    definition
}

#[test]
fn older_and_unlabelled_definitions_are_updated_and_newer_ones_are_not() {
    let ours = definition();
    assert!(!needs_update(&ours, &ours));
    assert!(needs_update(&labelled("1.31.9"), &ours));
    assert!(!needs_update(&labelled("1.33.0"), &ours));
    let mut unlabelled = ours.clone();
    unlabelled.metadata.labels = None;
    assert!(needs_update(&unlabelled, &ours));
}

#[test]
fn one_of_the_same_version_is_updated_when_it_lacks_something_and_defaults_do_not_count() {
    let ours = definition();
    let mut present = ours.clone();
    present.spec.preserve_unknown_fields = Some(false);
    assert!(!needs_update(&present, &ours));
    present.spec.versions[0].schema = None;
    assert!(needs_update(&present, &ours));
}

#[test]
fn what_is_there_covers_what_is_wanted_only_if_all_of_it_is_there() {
    let cases = [
        (json!({"a": 1, "default": true}), json!({"a": 1.0}), true),
        (json!({"a": 1}), json!({"a": 2}), false),
        (json!({"b": 1}), json!({"a": 1}), false),
        (json!("a"), json!("a"), true),
        (json!("a"), json!("b"), false),
        (json!([{"name": "v1", "served": true}]), json!([{"name": "v1"}]), true),
        (json!([{"name": "v1"}, {"name": "v2"}]), json!([{"name": "v1"}]), false),
        (json!([{"name": "v1"}]), json!([{"name": "v2"}]), false),
    ];
    for (present, wanted, want) in cases {
        assert_eq!(covers(&present, &wanted), want, "{present} {wanted}");
    }
}

#[test]
fn a_definition_is_served_once_it_is_established() {
    let with = |conditions: Value| {
        let mut definition = serde_json::to_value(definition()).unwrap();
        definition["status"] = json!({"conditions": conditions});
        is_established(&serde_json::from_value(definition).unwrap())
    };
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    assert!(!is_established(&definition()));
    assert!(!with(json!([condition("NamesAccepted", "True"), condition("Established", "False")])));
    assert!(with(json!([condition("NamesAccepted", "False"), condition("Established", "True")])));
}

#[test]
fn one_that_somebody_else_wrote_first_is_looked_at_again() {
    let refused = |code: u16| {
        unless_conflict(Err(Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }))))
    };
    assert_eq!(unless_conflict(Ok(definition())).unwrap(), Step::Written);
    assert_eq!(refused(409).unwrap(), Step::Written);
    assert!(refused(422).is_err());
}

/// An API server with definitions, by name.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// The one that it refuses to take.
    refused: Option<&'static str>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = server.answer(&parts.method, parts.uri.path(), serde_json::from_slice(&body).ok());
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default").into()
    }

    fn answer(&self, method: &Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": ""});
            (code, status)
        };
        let mut objects = self.objects.lock();
        let name = match &body {
            Some(body) => body["metadata"]["name"].as_str().unwrap().to_owned(),
            None => path.rsplit('/').next().unwrap().to_owned(),
        };
        match (method, body) {
            (&Method::GET, _) => {
                objects.get(&name).map_or_else(|| failure(404, "NotFound"), |object| (200, object.clone()))
            }
            _ if self.refused == Some(name.as_str()) => failure(422, "Invalid"),
            (&Method::POST, _) if objects.contains_key(&name) => failure(409, "AlreadyExists"),
            (_, Some(mut object)) => {
                object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
                objects.insert(name, object.clone());
                (200, object)
            }
            (_, None) => failure(405, "MethodNotAllowed"),
        }
    }
}

fn name(index: usize) -> String {
    k8s::crd::all().unwrap()[index].name_any()
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_deleted_is_made_anew_and_holds_up_no_other() {
    let server = Server::default();
    let mut going = serde_json::to_value(definition()).unwrap();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    server.objects.lock().insert(name(0), going);
    let client = server.client();
    let registering = tokio::spawn(async move { register(&client).await });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!registering.is_finished(), "what is about to be gone is not registered");
    assert_eq!(server.objects.lock().len(), k8s::crd::all().unwrap().len());
    server.objects.lock().remove(&name(0));
    registering.await.unwrap();
    assert!(server.objects.lock()[&name(0)]["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_holds_up_no_other() {
    let first: &'static str = name(0).leak();
    let server = Server { refused: Some(first), ..Server::default() };
    let client = server.client();
    let _registering = tokio::spawn(async move { register(&client).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.objects.lock().len(), k8s::crd::all().unwrap().len() - 1);
}

#[tokio::test(start_paused = true)]
async fn an_older_one_is_replaced_and_keeps_what_others_have_written_on_it() {
    let server = Server::default();
    let mut older = serde_json::to_value(labelled("1.0.0")).unwrap();
    older["metadata"]["resourceVersion"] = json!("77");
    older["metadata"]["annotations"] = json!({"team": "network"});
    older["metadata"]["labels"]["kept"] = json!("yes");
    older["spec"]["names"]["shortNames"] = json!(["old"]);
    server.objects.lock().insert(name(0), older);
    register(&server.client()).await;
    let now = server.objects.lock()[&name(0)].clone();
    let metadata = &now["metadata"];
    // Without it the API server would refuse the write, or undo somebody else's.
    assert_eq!(metadata["resourceVersion"], "77");
    assert_eq!(metadata["annotations"]["team"], "network");
    assert_eq!(metadata["labels"]["kept"], "yes");
    assert_eq!(metadata["labels"][SCHEMA_VERSION_LABEL], SCHEMA_VERSION);
    let wanted = serde_json::to_value(definition()).unwrap();
    assert_eq!(now["spec"]["names"], wanted["spec"]["names"]);
}
