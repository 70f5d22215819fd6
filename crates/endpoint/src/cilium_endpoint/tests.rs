// SPDX-License-Identifier: Apache-2.0
//! Objects from facts, and objects at an API server of the test.

use super::*;
use crate::testing::{endpoint, local_node, policy};
use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s::kube::client::Body;
use model::{EndpointKind, IdentityId, Label, Protocol, Workload};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use statedb::{Row, Target as _, Writer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn table<R: Row>(rows: Vec<R>) -> Reader<R> {
    let (mut writer, reader) = statedb::table("t");
    writer.replace(rows);
    writer.commit();
    reader
}

fn by_pod(endpoints: Vec<Endpoint>) -> Index<Endpoint, PodName> {
    table(endpoints).index(|endpoint| endpoint.pod().cloned())
}

/// The objects of all pods, where these were before.
fn resolve_all(facts: &Facts, before: &[Object]) -> Vec<Object> {
    let names = (0..3).filter_map(|n| endpoint(n).pod().cloned());
    names.filter_map(|name| resolve(facts, &name, before.iter().find(|object| object.pod == name))).collect()
}

fn pod(id: u16) -> Pod {
    let port = |name: &str, port| model::NamedPort { name: name.into(), port, protocol: Protocol::Tcp };
    Pod {
        name: endpoint(id).pod().unwrap().clone(),
        uid: format!("uid-{id}"),
        labels: Default::default(),
        annotations: Default::default(),
        service_account: "sa".into(),
        host_network: false,
        ips: vec![],
        workload: Some(Workload { kind: "Deployment".into(), name: "d".into() }.into()),
        named_ports: vec![port("web", 80), port("admin", 81), port("web", 80)],
        host_ports: vec![],
        ready: true,
        ended: false,
    }
}

fn facts() -> Facts {
    let labels = [Label::k8s("app", "x")].into_iter().collect();
    Facts {
        endpoints: by_pod(vec![endpoint(1)]),
        policies: table(vec![EndpointPolicy { ingress_enforced: true, ..policy(1) }]),
        identities: table(vec![Identity { id: IdentityId(1001), labels }]),
        pods: table(vec![pod(1)]),
        node: table(vec![local_node()]),
        present: table(vec![]),
        cluster: "default".into(),
    }
}

/// An object as the watch shows it.
fn shown(object: &Object) -> RemoteEndpoint {
    RemoteEndpoint {
        cluster: "default".into(),
        pod: object.pod.clone(),
        ipv4: endpoint(1).ipv4,
        ipv6: endpoint(1).ipv6,
        identity: IdentityId(1001),
        host: Some("192.168.0.1".parse().unwrap()),
        named_ports: vec![],
    }
}

#[test]
fn a_pod_takes_over_the_object_of_an_earlier_one_of_its_name() {
    let former = resolve_all(&facts(), &[]);
    let heir = Endpoint { kind: EndpointKind::Pod { name: pod(1).name, uid: "heir".into() }, ..endpoint(0) };
    let facts = Facts {
        endpoints: by_pod(vec![endpoint(1), heir]),
        policies: table(vec![policy(0), policy(1)]),
        identities: table(vec![
            Identity { id: IdentityId(1000), labels: Default::default() },
            Identity { id: IdentityId(1001), labels: Default::default() },
        ]),
        pods: table(vec![Pod { uid: "heir".into(), ..pod(1) }]),
        ..facts()
    };
    let objects = resolve_all(&facts, &former);
    assert_eq!(objects.iter().map(|o| &*o.uid).collect::<Vec<_>>(), ["heir"]);
}

#[test]
fn a_change_of_policy_does_not_change_the_object() {
    let enforced = EndpointPolicy { egress_enforced: true, ..policy(1) };
    let changed = Facts { policies: table(vec![enforced]), ..facts() };
    assert_eq!(resolve_all(&changed, &[]), resolve_all(&facts(), &[]));
}

#[test]
fn of_two_sandboxes_of_a_pod_the_one_counts_whose_address_kubernetes_knows() {
    let second = Endpoint { kind: endpoint(1).kind, ..endpoint(2) };
    let shown = |ip: Option<std::net::Ipv4Addr>| {
        let facts = Facts {
            endpoints: by_pod(vec![endpoint(1), second.clone()]),
            policies: table(vec![policy(1), EndpointPolicy { identity: IdentityId(1001), ..policy(2) }]),
            pods: table(vec![Pod { ips: ip.into_iter().map(IpAddr::V4).collect(), ..pod(1) }]),
            ..facts()
        };
        let former = resolve_all(&facts, &[]);
        resolve_all(&facts, &former)[0].status.id
    };
    assert_eq!((shown(endpoint(1).ipv4), shown(endpoint(2).ipv4)), (Some(1), Some(2)));
}

#[test]
fn a_static_pod_keeps_its_object_when_its_mirror_is_made_anew() {
    let before = resolve_all(&facts(), &[]);
    let mirror = || [(Pod::MIRROR.to_owned(), "hash".to_owned())].into();
    let gone = Facts { pods: table(vec![]), ..facts() };
    assert_eq!(resolve_all(&gone, &before).len(), 1);
    let anew = Facts { pods: table(vec![Pod { uid: "uid-2".into(), annotations: mirror(), ..pod(1) }]), ..facts() };
    let objects = resolve_all(&anew, &before);
    assert_eq!((objects[0].uid.as_str(), &objects[0].status), ("uid-2", &before[0].status));
    assert_eq!(resolve_all(&gone, &objects).len(), 1);
}

#[test]
fn the_object_says_what_others_need() {
    let objects = resolve_all(&facts(), &[]);
    let object = serde_json::to_value(new_object(&objects[0])).unwrap();
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(
        object["status"],
        json!({
            "id": 1, "state": "ready", "identity": {"id": 1001, "labels": ["k8s:app=x"]},
            "networking": {"addressing": [{"ipv4": "10.0.0.1", "ipv6": "fd00::1"}], "node": "192.168.0.1"},
            "named-ports": [{"name": "admin", "port": 81, "protocol": "TCP"}, {"name": "web", "port": 80, "protocol": "TCP"}],
            "external-identifiers": {"cni-attachment-id": "container1:eth0", "container-id": "container1",
                "k8s-namespace": "default", "k8s-pod-name": "pod-1", "pod-name": "default/pod-1"},
            "service-account": "sa",
        })
    );
}

#[test]
fn there_is_no_object_while_a_fact_is_missing_or_is_another_pods_but_a_former_one_stays() {
    let later = Pod { uid: "another".into(), ..pod(1) };
    let incomplete = [
        Facts { policies: table(vec![]), ..facts() },
        Facts { identities: table(vec![]), ..facts() },
        Facts { node: table(vec![]), ..facts() },
        Facts { pods: table(vec![later]), ..facts() },
    ];
    let former = resolve_all(&facts(), &[]);
    for facts in incomplete {
        assert!(resolve_all(&facts, &[]).is_empty());
        assert_eq!(resolve_all(&facts, &former), former);
    }
    assert!(resolve_all(&Facts { endpoints: by_pod(vec![]), ..facts() }, &former).is_empty());
}

/// A change of one table: the row that is `n`, if it is there, in one of a few forms.
#[derive(Clone, Debug)]
enum Step {
    Endpoint(u16, Option<bool>),
    Policy(u16, Option<u32>),
    Identity(u32, Option<bool>),
    Pod(u16, Option<bool>),
    Node(bool),
    Present(u16, Option<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    let (n, form) = (1..3_u16, prop::option::weighted(0.8, any::<bool>()));
    prop_oneof![
        (n.clone(), form.clone()).prop_map(|(n, form)| Step::Endpoint(n, form)),
        (n.clone(), prop::option::weighted(0.8, 1000..1003_u32)).prop_map(|(n, identity)| Step::Policy(n, identity)),
        (1000..1003_u32, form.clone()).prop_map(|(n, form)| Step::Identity(n, form)),
        (n.clone(), form.clone()).prop_map(|(n, form)| Step::Pod(n, form)),
        (n, form).prop_map(|(n, form)| Step::Present(n, form)),
        any::<bool>().prop_map(Step::Node),
    ]
}

fn put<R: Row>(writer: &mut Writer<R>, key: &R::Key, row: Option<R>) {
    match row {
        Some(row) => writer.insert(row),
        None => writer.remove(key),
    }
    writer.commit();
}

async fn objects_follow(steps: Vec<Step>) {
    let tasks = Tasks::new(Default::default());
    let (mut endpoints, endpoint_rows) = statedb::table("endpoints");
    let (mut policies, policy_rows) = statedb::table("policies");
    let (mut identities, identity_rows) = statedb::table("identities");
    let (mut pods, pod_rows) = statedb::table("pods");
    let (mut node, node_rows) = statedb::table("node");
    let (mut present, present_rows) = statedb::table("present");
    let facts = Facts {
        endpoints: endpoint_rows.index(|endpoint: &Endpoint| endpoint.pod().cloned()),
        policies: policy_rows,
        identities: identity_rows,
        pods: pod_rows,
        node: node_rows,
        present: present_rows,
        cluster: "default".into(),
    };
    let objects = derive(&tasks, &endpoint_rows, facts.clone());
    endpoints.mark_initialized();
    policies.mark_initialized();
    identities.mark_initialized();
    pods.mark_initialized();
    node.mark_initialized();
    present.mark_initialized();
    for step in steps {
        match step {
            // In its other form it is a second sandbox of the first pod.
            Step::Endpoint(n, form) => {
                let row = form.map(|other| Endpoint { kind: endpoint(if other { 1 } else { n }).kind, ..endpoint(n) });
                put(&mut endpoints, &model::EndpointId(n), row);
            }
            Step::Policy(n, identity) => {
                let row = identity.map(|id| EndpointPolicy { identity: IdentityId(id), ..policy(n) });
                put(&mut policies, &model::EndpointId(n), row);
            }
            Step::Identity(n, form) => {
                let labels = |other| [Label::k8s("app", if other { "x" } else { "y" })].into_iter().collect();
                put(
                    &mut identities,
                    &IdentityId(n),
                    form.map(|other| Identity { id: IdentityId(n), labels: labels(other) }),
                );
            }
            Step::Pod(n, form) => {
                let uid = |other| if other { "other".to_owned() } else { pod(n).uid };
                put(&mut pods, &pod(n).name, form.map(|other| Pod { uid: uid(other), ..pod(n) }));
            }
            Step::Node(other) => {
                let ipv4 = if other { "192.168.0.9".parse().ok() } else { local_node().ipv4 };
                put(&mut node, &(), Some(LocalNode { ipv4, ..local_node() }));
            }
            Step::Present(n, form) => {
                let name = pod(n).name;
                let as_it_should_be = || {
                    let ips = (endpoint(n).ipv4, endpoint(n).ipv6);
                    let identity = policy(n).identity;
                    RemoteEndpoint { ipv4: ips.0, ipv6: ips.1, identity, ..shown(&object()) }
                };
                let row = form.map(|right| RemoteEndpoint {
                    pod: name.clone(),
                    ..if right {
                        as_it_should_be()
                    } else {
                        RemoteEndpoint { identity: IdentityId(7), ..shown(&object()) }
                    }
                });
                put(&mut present, &MeshPod { cluster: "default".into(), pod: name.clone() }, row);
            }
        }
        objects.caught_up().await;
        let rows: Vec<Object> = objects.rows.snapshot().iter().map(|row| Object::clone(row)).collect();
        assert_eq!(resolve_all(&facts, &rows), rows, "some change was not taken note of");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_the_objects_follow(steps in prop::collection::vec(step(), 0..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(objects_follow(steps));
    }
}

/// Objects by path, and how often one was written.
#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<(BTreeMap<String, Value>, usize)>>, Arc<AtomicUsize>);

impl ApiServer {
    fn target(&self, remote: Vec<RemoteEndpoint>) -> Target {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let (method, path) = (parts.method, parts.uri.path().to_owned());
                let body = body.collect().await.unwrap().to_bytes();
                if method != Method::GET && path.contains("/namespaces/a-slow/") {
                    std::future::pending::<()>().await;
                }
                if method != Method::GET && path.contains("/namespaces/barred/") {
                    let refusal =
                        json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "by a webhook"});
                    let answer = Response::builder().status(StatusCode::FORBIDDEN);
                    return Ok(answer.body(Body::from(refusal.to_string().into_bytes())).unwrap());
                }
                Ok::<_, Infallible>(server.answer(&method, &path, &body))
            }
        });
        let client = Client::from(k8s::kube::Client::new(service, "default"));
        let (mut nodes, node) = statedb::table("local-node");
        nodes.insert(local_node());
        nodes.commit();
        let (mut all, remotes) = statedb::table("remote-endpoints");
        all.replace(remote);
        all.commit();
        Target {
            client,
            node,
            remote: remotes,
            cluster: "default".into(),
            warnings: Warnings::channel().0,
            written: BTreeMap::new(),
            forbidden: BTreeMap::new(),
        }
    }

    fn answer(&self, method: &Method, path: &str, body: &Bytes) -> Response<Body> {
        let mut state = self.0.lock();
        if *method == Method::GET {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        let given = || serde_json::from_slice::<Value>(body).unwrap();
        let missing = (StatusCode::NOT_FOUND, json!({"kind": "Status", "code": 404, "reason": "NotFound"}));
        let (status, answer) = match *method {
            Method::GET => state.0.get(path).map_or(missing, |object| (StatusCode::OK, object.clone())),
            Method::POST => {
                let mut object = given();
                state.1 += 1;
                object["metadata"]["uid"] = json!(format!("object-{}", state.1));
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                state.0.insert(path, object.clone());
                (StatusCode::CREATED, object)
            }
            Method::PUT => {
                state.1 += 1;
                state.0.insert(path.to_owned(), given());
                (StatusCode::OK, given())
            }
            Method::DELETE => {
                let wanted = given()["preconditions"]["uid"].clone();
                state.1 += 1;
                match state.0.get(path).map(|object| object["metadata"]["uid"] == wanted) {
                    Some(true) => (StatusCode::OK, state.0.remove(path).unwrap()),
                    Some(false) => (StatusCode::CONFLICT, json!({"kind": "Status", "code": 409, "reason": "Conflict"})),
                    None => missing,
                }
            }
            _ => panic!("{method} {path}"),
        };
        Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap()
    }

    fn writes(&self) -> usize {
        self.0.lock().1
    }

    fn reads(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    /// Creates a pod.
    fn schedule(&self, name: &str, uid: &str, phase: &str) {
        let pod = json!({"metadata": {"namespace": "default", "name": name, "uid": uid}, "status": {"phase": phase}});
        self.0.lock().0.insert(format!("/api/v1/namespaces/default/pods/{name}"), pod);
    }

    /// Somebody deletes an object.
    fn lose(&self, name: &str) {
        self.0.lock().0.remove(&format!("/apis/cilium.io/v2/namespaces/default/ciliumendpoints/{name}")).unwrap();
    }

    fn object(&self, name: &str) -> Option<Value> {
        self.0.lock().0.get(&format!("/apis/cilium.io/v2/namespaces/default/ciliumendpoints/{name}")).cloned()
    }
}

fn object() -> Object {
    resolve_all(&facts(), &[]).remove(0)
}

#[tokio::test]
async fn an_object_is_written_once_and_again_only_when_it_differs() {
    let server = ApiServer::default();
    server.target(vec![]).update(&object()).await.unwrap();
    assert_eq!(server.object("pod-1").unwrap()["status"]["identity"]["id"], 1001);
    // Another process, as after a restart.
    server.target(vec![]).update(&object()).await.unwrap();
    assert_eq!(server.writes(), 1);
    let mut other = object();
    other.status.state = Some("not-ready".into());
    other.status.service_account = None;
    server.target(vec![]).update(&other).await.unwrap();
    let written = server.object("pod-1").unwrap();
    assert_eq!(
        (&written["status"]["state"], &written["status"]["service-account"]),
        (&json!("not-ready"), &Value::Null)
    );
    assert_eq!(written["metadata"]["ownerReferences"][0]["uid"], "uid-1");
}

#[tokio::test]
async fn the_object_of_an_earlier_pod_makes_room_for_that_of_the_present_one() {
    let server = ApiServer::default();
    server.target(vec![]).update(&object()).await.unwrap();
    server.schedule("pod-1", "heir", "Pending");
    server.target(vec![]).update(&Object { uid: "heir".into(), ..object() }).await.unwrap();
    let object = server.object("pod-1").unwrap();
    assert_eq!(
        (&object["metadata"]["ownerReferences"][0]["uid"], &object["metadata"]["uid"]),
        (&json!("heir"), &json!("object-3"))
    );
}

#[tokio::test]
async fn only_objects_of_this_node_are_deleted() {
    let server = ApiServer::default();
    let mut elsewhere = object();
    elsewhere.status.networking.as_mut().unwrap().node = Some("192.168.0.2".into());
    let mut target = server.target(vec![]);
    target.update(&elsewhere).await.unwrap();
    target.delete(&object().pod).await.unwrap();
    assert!(server.object("pod-1").is_some());
    target.update(&object()).await.unwrap();
    target.delete(&object().pod).await.unwrap();
    target.delete(&object().pod).await.unwrap();
    assert!(server.object("pod-1").is_none());
}

#[tokio::test]
async fn objects_that_a_process_before_left_are_pruned() {
    let server = ApiServer::default();
    let stale = Object { pod: PodName::new("default", "stale"), ..object() };
    for object in [&stale, &object()] {
        server.target(vec![]).update(object).await.unwrap();
    }
    // A pod of another cluster, behind a node that has the same address there.
    let elsewhere = Object { pod: PodName::new("default", "elsewhere"), ..object() };
    server.target(vec![]).update(&elsewhere).await.unwrap();
    let elsewhere = RemoteEndpoint { cluster: "other".into(), ..shown(&elsewhere) };
    let mut target = server.target(vec![shown(&stale), shown(&object()), elsewhere]);
    target.prune(&table(vec![object()]).snapshot()).await.unwrap();
    assert!(server.object("stale").is_none() && server.object("pod-1").is_some());
    assert!(server.object("elsewhere").is_some());
}

fn named(namespace: &str, name: &str) -> Object {
    Object { pod: PodName::new(namespace, name), ..object() }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_webhook_does_not_answer_holds_up_no_other() {
    let server = ApiServer::default();
    let slow = (0..20).map(|n| named("a-slow", &format!("pod-{n}")));
    let others = (0..20).map(|n| named("default", &format!("pod-{n}")));
    let operations: Vec<_> = slow.chain(others).map(|object| Operation::Update(Arc::new(object))).collect();
    let mut target = server.target(vec![]);
    let applied = tokio::time::timeout(Duration::from_secs(1), target.apply(&operations)).await;
    assert!(applied.is_err(), "the slow one is waited for");
    assert!((0..20).all(|n| server.object(&format!("pod-{n}")).is_some()));
}

#[tokio::test]
async fn of_several_operations_each_has_its_own_outcome() {
    let server = ApiServer::default();
    let mut target = server.target(vec![]);
    target.update(&named("default", "gone")).await.unwrap();
    let update = |object| Operation::Update(Arc::new(object));
    let gone = Operation::Delete(PodName::new("default", "gone"));
    let failed = target.apply(&[update(named("barred", "a")), update(object()), gone]).await;
    assert_eq!(failed.iter().map(|(pod, _)| pod.to_string()).collect::<Vec<_>>(), ["barred/a"]);
    assert!(server.object("pod-1").is_some() && server.object("gone").is_none());
    let reads = server.reads();
    target.update(&Object { published: true, ..object() }).await.unwrap();
    assert_eq!(server.reads(), reads, "it is known to be written");
}

#[tokio::test]
async fn a_stale_object_that_cannot_be_deleted_does_not_keep_the_others() {
    let server = ApiServer::default();
    let stale: Vec<_> = ["a", "b"].iter().map(|name| named("default", name)).collect();
    for object in &stale {
        server.target(vec![]).update(object).await.unwrap();
    }
    let forbidden = named("barred", "a");
    let api = "/apis/cilium.io/v2/namespaces/barred/ciliumendpoints/a";
    let copy = server.object("a").unwrap();
    server.0.lock().0.insert(api.to_owned(), copy);
    let mut target = server.target(vec![shown(&stale[0]), shown(&forbidden), shown(&stale[1])]);
    let error = target.prune(&table(vec![]).snapshot()).await.unwrap_err();
    assert!(error.to_string().contains("barred/a"), "{error}");
    assert!(server.object("a").is_none() && server.object("b").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_object_is_forbidden_is_told_once_after_a_while() {
    let server = ApiServer::default();
    let (warnings, mut queue) = Warnings::channel();
    let mut target = Target { warnings, ..server.target(vec![]) };
    target.update(&named("barred", "a")).await.unwrap_err();
    assert_eq!(queue.try_next(), None, "rules may change in passing");
    tokio::time::sleep(PATIENCE).await;
    for _ in 0..3 {
        assert!(!Target::is_permanent(&target.update(&named("barred", "a")).await.unwrap_err()));
    }
    let warning = queue.try_next().unwrap();
    assert_eq!((warning.reason, warning.about.name.as_deref()), ("CiliumEndpointRefused", Some("a")));
    assert!(warning.note.contains("by a webhook"), "{}", warning.note);
    assert_eq!(queue.try_next(), None);
}

#[test]
fn an_object_knows_whether_the_watch_shows_it() {
    let told = |present: Vec<RemoteEndpoint>| {
        let facts = Facts { present: table(present), ..facts() };
        let objects = resolve_all(&facts, &[]);
        // One that is kept for lack of facts knows it as well.
        let kept = resolve_all(&Facts { pods: table(vec![]), ..facts }, &objects);
        assert_eq!(kept, objects);
        objects[0].published
    };
    assert!(told(vec![shown(&object())]));
    assert!(!told(vec![]));
    assert!(!told(vec![RemoteEndpoint { identity: IdentityId(7), ..shown(&object()) }]));
    assert!(!told(vec![RemoteEndpoint { cluster: "other".into(), ..shown(&object()) }]));
}

#[tokio::test]
async fn an_object_that_the_watch_tells_of_as_it_was_written_is_not_asked_for_again() {
    let server = ApiServer::default();
    let mut target = server.target(vec![]);
    for _ in 0..3 {
        target.update(&Object { published: true, ..object() }).await.unwrap();
    }
    assert_eq!((server.reads(), server.writes()), (1, 1));

    // One that the watch tells of differently, or not at all, is looked at.
    for _ in 0..2 {
        target.update(&object()).await.unwrap();
    }
    assert_eq!((server.reads(), server.writes()), (3, 1));
}

#[tokio::test]
async fn an_object_that_somebody_deletes_is_made_again_while_its_pod_runs() {
    let server = ApiServer::default();
    let mut target = server.target(vec![]);
    target.update(&object()).await.unwrap();
    server.schedule("pod-1", "uid-1", "Running");
    server.lose("pod-1");
    target.update(&object()).await.unwrap();
    assert_eq!(server.object("pod-1").unwrap()["status"]["identity"]["id"], 1001);

    // The garbage collector would take it away again.
    server.lose("pod-1");
    for (uid, phase) in [("uid-1", "Succeeded"), ("another", "Running")] {
        server.schedule("pod-1", uid, phase);
        target.update(&object()).await.unwrap();
        assert_eq!(server.object("pod-1"), None, "{uid} {phase}");
    }
    server.schedule("pod-1", "uid-1", "Running");
    target.update(&object()).await.unwrap();
    assert!(server.object("pod-1").is_some());
}

#[tokio::test]
async fn of_two_nodes_with_an_endpoint_of_one_name_the_one_writes_that_has_the_pod() {
    let server = ApiServer::default();
    let (mut here, mut there) = (server.target(vec![]), server.target(vec![]));
    here.update(&object()).await.unwrap();
    server.schedule("pod-1", "heir", "Running");
    let heir = Object { uid: "heir".into(), ..object() };
    for _ in 0..3 {
        here.update(&object()).await.unwrap();
        there.update(&heir).await.unwrap();
    }
    assert_eq!(server.object("pod-1").unwrap()["metadata"]["ownerReferences"][0]["uid"], "heir");
    assert_eq!(server.writes(), 3, "two creations and one deletion");
}
