// SPDX-License-Identifier: Apache-2.0
//! Controllers at an API server that refuses every write.

use super::super::endpoint_gc::EndpointGc;
use super::super::identity_gc::IdentityGc;
use super::super::node_gc::NodeGc;
use super::super::node_readiness::NodeReadiness;
use super::super::pod_cidrs::PodCidrs;
use super::super::{Controller, Failures};
use super::REST;
use crate::config;
use crate::metrics::Metrics;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use endpoint::gc::{LivePod, Published};
use k8s::Client;
use k8s::kube::client::Body as KubeBody;
use node::readiness::{self, Readiness};
use parking_lot::Mutex;
use serde_json::{Value, json};
use statedb::{Reader, Row};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The objects by their kind in URLs, the code of refusals, and the writes.
#[derive(Clone)]
struct Server {
    objects: Arc<Mutex<Vec<(&'static str, Value)>>>,
    code: u16,
    writes: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn refusing(code: u16, objects: &[(&'static str, Value)]) -> Self {
        Self { objects: Arc::new(Mutex::new(objects.to_vec())), code, writes: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            std::future::ready(Ok::<_, std::io::Error>(server.answer(&request)))
        });
        k8s::kube::Client::new(service, "default").into()
    }

    fn answer(&self, request: &Request<KubeBody>) -> Response<Body> {
        let path = request.uri().path();
        if *request.method() != Method::GET {
            self.writes.lock().push(format!("{} {}", request.method(), path.rsplit('/').next().unwrap()));
            let status = json!({"kind": "Status", "status": "Failure", "code": self.code, "message": "refused"});
            return Response::builder().status(self.code).body(Body::from(status.to_string())).unwrap();
        }
        let query = request.uri().query().unwrap_or_default();
        let one = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"));
        let objects = self.objects.lock();
        let of_kind = objects.iter().filter(|(kind, _)| path.ends_with(kind)).map(|(_, object)| object);
        let items: Vec<_> =
            of_kind.filter(|object| one.is_none_or(|name| object["metadata"]["name"] == name)).collect();
        // What is asked for by name is to be the newest, all others may come from the cache.
        assert_eq!(query.contains("resourceVersion=0"), one.is_none(), "{path}?{query}");
        Response::new(Body::from(
            json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string(),
        ))
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.writes.lock())
    }
}

fn table<R: Row>(rows: impl IntoIterator<Item = R>) -> Reader<R> {
    let (mut writer, reader) = statedb::table("rows");
    writer.replace(rows);
    writer.mark_initialized();
    reader
}

fn read<K: serde::de::DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

/// Refused for what it says a write is made once in a long time and the controller is well; refused otherwise it is made in each pass.
async fn waits(objects: &[(&'static str, Value)], write: &str, make: impl Fn(&Client) -> Box<dyn Passes>) {
    let server = Server::refusing(422, objects);
    let mut controller = make(&server.client());
    for _ in 0..3 {
        controller.pass_now().await.unwrap();
    }
    assert_eq!(server.writes(), [write]);
    tokio::time::sleep(REST).await;
    controller.pass_now().await.unwrap();
    assert_eq!(server.writes(), [write]);
    let server = Server::refusing(403, objects);
    let mut controller = make(&server.client());
    for _ in 0..3 {
        let _ = controller.pass_now().await;
    }
    controller.pass_now().await.unwrap_err();
    assert!(server.writes().len() > 2);
}

/// One pass.
type Pass<'a> = Pin<Box<dyn Future<Output = Result<(), Failures>> + 'a>>;

/// A controller as an object.
trait Passes {
    fn pass_now(&mut self) -> Pass<'_>;
}

impl<C: Controller> Passes for C {
    fn pass_now(&mut self) -> Pass<'_> {
        Box::pin(self.pass())
    }
}

const NEVER: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_deletion_is_refused_waits() {
    let endpoint = json!({"metadata": {"namespace": "n", "name": "gone", "uid": "e", "resourceVersion": "7"}});
    let row = Published::ingest(&read(&endpoint)).unwrap();
    waits(&[], "DELETE gone", |client| {
        Box::new(EndpointGc::new(client, NEVER, &table([row.clone()]), &table::<LivePod>([])))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_pod_the_table_does_not_know_yet_stays() {
    let endpoint = json!({"metadata": {"namespace": "n", "name": "new", "uid": "e", "resourceVersion": "7"}});
    let pod = json!({"metadata": {"namespace": "n", "name": "new", "uid": "p"}, "spec": {"containers": []}});
    let server = Server::refusing(422, &[("pods", pod)]);
    let row = Published::ingest(&read(&endpoint)).unwrap();
    let mut gc = EndpointGc::new(&server.client(), NEVER, &table([row]), &table::<LivePod>([]));
    gc.pass().await.unwrap();
    assert_eq!(server.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collected_before_the_tables_are_complete() {
    let endpoint = json!({"metadata": {"namespace": "n", "name": "gone", "uid": "e", "resourceVersion": "7"}});
    let identity = json!({"metadata": {"name": "300", "uid": "i", "resourceVersion": "1"}});
    let server = Server::refusing(422, &[("ciliumidentities", identity)]);
    let row = Published::ingest(&read(&endpoint)).unwrap();
    let (_writer, no_pods) = statedb::table::<LivePod>("pods");
    EndpointGc::new(&server.client(), NEVER, &table([row]), &no_pods).pass().await.unwrap();
    let (_writer, no_endpoints) = statedb::table::<Published>("endpoints");
    IdentityGc::new(&server.client(), IDENTITY_GC, &no_endpoints).pass().await.unwrap();
    assert_eq!(server.writes(), [""; 0]);
}

const IDENTITY_GC: config::IdentityGc = config::IdentityGc { interval: NEVER, timeout: NEVER };

#[tokio::test(start_paused = true)]
async fn an_identity_whose_mark_is_refused_waits() {
    let identity = json!({"metadata": {"name": "300", "uid": "i", "resourceVersion": "1"}});
    waits(&[("ciliumidentities", identity)], "PATCH 300", |client| {
        Box::new(IdentityGc::new(client, IDENTITY_GC, &table::<Published>([])))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_deletion_is_refused_waits() {
    let node = json!({"metadata": {"name": "lost", "uid": "u", "resourceVersion": "1"}});
    waits(&[("ciliumnodes", node)], "DELETE lost", |client| Box::new(NodeGc::new(client, NEVER))).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_taint_may_not_be_removed_waits() {
    let readiness = Readiness {
        pod_labels: String::new(),
        pod_namespace: None,
        taint: "t".to_owned(),
        remove_taint: true,
        set_taint: false,
        set_condition: false,
    };
    let taints = json!([{"key": "t", "effect": "NoSchedule"}]);
    let node = readiness::ingest_node(&read(&json!({"metadata": {"name": "tainted"}, "spec": {"taints": taints}})));
    let pod = json!({"metadata": {"name": "agent"}, "spec": {"nodeName": "tainted", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let agent = readiness::ingest_agent(&read(&pod));
    waits(&[], "PATCH tainted", |client| {
        Box::new(NodeReadiness::new(client, readiness.clone(), &table(node.clone()), &table(agent.clone())))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_pod_cidrs_are_refused_waits() {
    let pools = ipam::cluster::Pools::new(&["10.0.0.0/16".parse().unwrap()], 24).unwrap();
    let object = json!({"metadata": {"name": "bare", "uid": "u", "resourceVersion": "1"}, "spec": {}});
    let node = ipam::cluster::nodes::ingest_node(&read(&object));
    waits(&[], "PATCH bare", |client| {
        let allocator = ipam::cluster::Allocator::new(vec![pools.clone()], Duration::ZERO);
        Box::new(PodCidrs::new(client, allocator, &table(node.clone()), Metrics::default()))
    })
    .await;
}
