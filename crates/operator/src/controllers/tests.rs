// SPDX-License-Identifier: Apache-2.0
//! What controllers write into statuses that others write into too.

use super::l2_policy_status::L2PolicyStatus;
use super::policy_status::PolicyStatus;
use super::*;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use k8s::cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use k8s::kube::client::Body as KubeBody;
use parking_lot::Mutex;
use serde_json::Value;
use statedb::Writer;
use std::sync::Arc;

/// An API server with one object, of which each write needs the version that it is based on.
#[derive(Clone)]
struct World(Arc<Mutex<Value>>);

impl World {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"});
        Self(Arc::new(Mutex::new(json!({"metadata": metadata, "spec": spec, "status": {"conditions": []}}))))
    }

    fn client(&self) -> Client {
        let world = self.clone();
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            let world = world.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
                Ok::<_, std::io::Error>(if parts.method == Method::POST {
                    answer(200, &body)
                } else {
                    world.patch(&body)
                })
            }
        });
        k8s::kube::Client::new(service, "default").into()
    }

    fn patch(&self, patch: &Value) -> Response<Body> {
        let mut object = self.0.lock();
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return answer(409, &json!({"kind": "Status", "status": "Failure", "code": 409, "message": "changed"}));
        }
        object["status"]["conditions"] = patch["status"]["conditions"].clone();
        answer(200, &object)
    }

    /// Another controller adds its condition.
    fn other_writes(&self) {
        let mut object = self.0.lock();
        object["metadata"]["resourceVersion"] = json!("2");
        let theirs = json!({"type": "theirs", "status": "True", "reason": "r", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        object["status"]["conditions"].as_array_mut().unwrap().push(theirs);
    }

    fn conditions(&self) -> Vec<String> {
        let object = self.0.lock();
        object["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn object<K: serde::de::DeserializeOwned>(&self) -> K {
        serde_json::from_value(self.0.lock().clone()).unwrap()
    }
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

/// The controller sees the object, another writes into it, and then the controller does.
async fn keeps_what_the_other_wrote<R: statedb::Row>(
    world: &World,
    writer: &mut Writer<R>,
    mut controller: impl Controller,
    row: impl Fn(&World) -> R,
) {
    writer.insert(row(world));
    writer.commit();
    controller.due().await;
    world.other_writes();
    controller.pass().await.unwrap();
    assert_eq!(world.conditions(), ["theirs"]);
    writer.insert(row(world));
    writer.commit();
    controller.due().await;
    controller.pass().await.unwrap();
    let conditions = world.conditions();
    assert!(conditions.len() == 2 && conditions[0] == "theirs", "{conditions:?}");
}

#[tokio::test]
async fn conditions_of_an_announcement_policy_that_others_write_meanwhile_stay() {
    let world = World::new(json!({"interfaces": ["["]}));
    let (mut writer, rows) = statedb::table("l2-policies");
    let controller = L2PolicyStatus::new(&world.client(), &rows);
    keeps_what_the_other_wrote(&world, &mut writer, controller, |w| l2::ingest_policy(&w.object()).unwrap()).await;
}

#[tokio::test]
async fn conditions_of_a_network_policy_that_others_write_meanwhile_stay() {
    let world = World::new(json!({"endpointSelector": {}, "egress": [{"toCIDR": ["x"]}]}));
    let ((mut writer, rows), (_, none)) = (statedb::table("namespaced"), statedb::table("clusterwide"));
    let controller = PolicyStatus::new(&world.client(), &rows, &none);
    let row = |w: &World| policy::Judged::ingest(&w.object::<CiliumNetworkPolicy>()).unwrap();
    keeps_what_the_other_wrote(&world, &mut writer, controller, row).await;
    let world = World::new(json!({"endpointSelector": {}, "egress": [{"toCIDR": ["x"]}]}));
    world.0.lock()["metadata"].as_object_mut().unwrap().remove("namespace");
    let ((mut writer, rows), (_, none)) = (statedb::table("clusterwide"), statedb::table("namespaced"));
    let controller = PolicyStatus::new(&world.client(), &none, &rows);
    let row = |w: &World| policy::Judged::ingest(&w.object::<CiliumClusterwideNetworkPolicy>()).unwrap();
    keeps_what_the_other_wrote(&world, &mut writer, controller, row).await;
}
