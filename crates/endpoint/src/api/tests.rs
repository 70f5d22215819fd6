// SPDX-License-Identifier: Apache-2.0
//! The API, from request to answer, over an agent without a kernel.

use crate::attachment::AttachmentKey;
use crate::testing::agent::{Agent, Setup};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use rest::{EndpointHealthStatus, EndpointState};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tower::ServiceExt;

async fn ask(agent: &Agent, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = agent.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn get(agent: &Agent, path: &str) -> (StatusCode, Value) {
    ask(agent, "GET", path, Value::Null).await
}

/// Body of PUT for pod `default/NAME`.
fn request(name: &str, ifindex: u32, address: &Value) -> Value {
    json!({
        "container-id": name, "container-interface-name": "eth0", "container-netns-path": format!("/run/netns/{name}"),
        "interface-name": format!("lxc{name}"), "interface-index": ifindex, "mac": "02:00:00:00:00:02",
        "host-mac": "02:00:00:00:00:01", "addressing": address, "k8s-pod-name": name, "k8s-namespace": "default",
        "k8s-uid": format!("uid-{name}"), "state": "waiting-for-identity", "sync-build-endpoint": true,
    })
}

async fn address(agent: &Agent, name: &str) -> Value {
    let (status, answer) =
        ask(agent, "POST", &format!("/v1/ipam?owner=default%2F{name}&expiration=true"), Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["address"].clone()
}

async fn put(agent: &Agent, name: &str, ifindex: u32, address: &Value) -> (StatusCode, Value) {
    let path = format!("/v1/endpoint/cni-attachment-id:{name}:eth0");
    ask(agent, "PUT", &path, request(name, ifindex, address)).await
}

async fn create(agent: &mut Agent, name: &str, ifindex: u32) -> Value {
    agent.know("default", name);
    let address = address(agent, name).await;
    let (status, endpoint) = put(agent, name, ifindex, &address).await;
    assert_eq!(status, StatusCode::CREATED, "{endpoint}");
    endpoint
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn saved(runtime: &Path) -> usize {
    std::fs::read_dir(runtime.join("state")).map(Iterator::count).unwrap_or_default()
}

#[tokio::test]
async fn an_endpoint_is_answered_when_its_datapath_is_there_and_found_by_every_name() {
    let runtime = folder();
    let (mut agent, interfaces, _) = Setup::new(runtime.path()).start();
    let endpoint = create(&mut agent, "a", 7).await;
    assert_eq!(interfaces.0.lock().up.get("lxca"), Some(&7));
    assert_eq!(endpoint["status"]["state"], "ready");
    assert_eq!(endpoint["status"]["identity"]["id"], 4242);
    assert_eq!(endpoint["status"]["identity"]["labels"], json!(["k8s:app=x"]));
    assert_eq!(endpoint["status"]["networking"]["addressing"][0]["ipv4"], "10.0.0.1");
    assert_eq!(endpoint["status"]["external-identifiers"]["cni-attachment-id"], "a:eth0");
    let id = endpoint["id"].as_u64().unwrap();
    for name in [
        format!("{id}"),
        format!("cilium-local:{id}"),
        "cni-attachment-id:a:eth0".into(),
        "container-id:a".into(),
        "pod-name:default:a".into(),
        "cep-name:default:a".into(),
        "ipv4:10.0.0.1".into(),
        "ipv6:fd00::1".into(),
    ] {
        let (status, found) = get(&agent, &format!("/v1/endpoint/{name}")).await;
        assert_eq!((status, &found["id"]), (StatusCode::OK, &endpoint["id"]), "{name}");
    }
    let (_, health) = get(&agent, &format!("/v1/endpoint/{id}/healthz")).await;
    assert_eq!(health["overallHealth"], EndpointHealthStatus::Ok.as_str());
    let (_, labels) = get(&agent, &format!("/v1/endpoint/{id}/labels")).await;
    assert_eq!(labels["status"]["security-relevant"], json!(["k8s:app=x"]));
    assert_eq!(labels["status"]["derived"], json!(["k8s:other=y"]));
    let (_, log) = get(&agent, &format!("/v1/endpoint/{id}/log")).await;
    assert_eq!(log[0]["state"], EndpointState::Ready.as_str());
    let (_, all) = get(&agent, "/v1/endpoint").await;
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!(saved(runtime.path()), 1);
}

#[tokio::test]
async fn a_removed_endpoint_leaves_nothing_and_its_address_is_free_again() {
    let runtime = folder();
    let (mut agent, interfaces, _) = Setup::new(runtime.path()).start();
    create(&mut agent, "a", 7).await;
    create(&mut agent, "b", 8).await;
    let (status, _) = ask(&agent, "DELETE", "/v1/endpoint", json!({"container-id": "a"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(interfaces.0.lock().up.keys().collect::<Vec<_>>(), ["lxcb"]);
    assert_eq!(agent.pool.taken.lock().values().collect::<Vec<_>>(), ["default/b", "default/b"]);
    assert_eq!(agent.kernel.map::<abi::maps::Endpoints>().unwrap().keys().unwrap(), [8]);
    assert_eq!((saved(runtime.path()), agent.endpoints.snapshot().len()), (1, 1));
    let (status, _) = ask(&agent, "DELETE", "/v1/endpoint/cni-attachment-id:a:eth0", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_that_the_api_server_has_not_told_of_is_waited_for_and_then_refused() {
    let runtime = folder();
    let (mut agent, ..) = Setup::new(runtime.path()).start();
    let first = address(&agent, "a").await;
    let (status, why) = put(&agent, "a", 7, &first).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.as_str().unwrap().contains("default/a"), "{why}");
    assert_eq!((saved(runtime.path()), agent.endpoints.snapshot().len()), (0, 0));
    let mut earlier = crate::testing::agent::pod("default", "a");
    earlier.uid = "of-an-earlier-pod".into();
    agent.pods.insert(earlier);
    agent.pods.commit();
    assert_eq!(put(&agent, "a", 7, &first).await.0, StatusCode::SERVICE_UNAVAILABLE);
    agent.know("default", "a");
    assert_eq!(put(&agent, "a", 7, &first).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn without_policy_no_endpoint_and_nothing_of_it_stays() {
    let runtime = folder();
    let (mut agent, interfaces, _) = Setup { permit: false, ..Setup::new(runtime.path()) }.start();
    agent.know("default", "a");
    let pair = address(&agent, "a").await;
    let (status, why) = put(&agent, "a", 7, &pair).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.as_str().unwrap().contains("policy"), "{why}");
    assert!(interfaces.0.lock().up.is_empty());
    assert_eq!((saved(runtime.path()), agent.endpoints.snapshot().len()), (0, 0));
    assert!(agent.pool.taken.lock().is_empty());
}

#[tokio::test]
async fn a_full_map_refuses_the_pod_that_has_no_room_and_no_other() {
    let runtime = folder();
    let mut setup = Setup::new(runtime.path());
    setup.kernel = setup.kernel.with_capacity("cilium_endpoints", 1);
    let (mut agent, interfaces, _) = setup.start();
    create(&mut agent, "a", 7).await;
    agent.know("default", "b");
    let pair = address(&agent, "b").await;
    let (status, why) = put(&agent, "b", 8, &pair).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.as_str().unwrap().contains("map cilium_endpoints is full (1 entries)"), "{why}");
    assert_eq!(interfaces.0.lock().up.keys().collect::<Vec<_>>(), ["lxca"]);
    assert_eq!(agent.kernel.map::<abi::maps::Locals>().unwrap().entries().unwrap().len(), 6, "of b nothing stays");
    let (_, health) = get(&agent, "/v1/endpoint/container-id:a/healthz").await;
    assert_eq!(health["overallHealth"], "OK");
}

#[tokio::test]
async fn one_attachment_is_one_endpoint_and_one_address_has_one_owner() {
    let runtime = folder();
    let (mut agent, ..) = Setup::new(runtime.path()).start();
    create(&mut agent, "a", 7).await;
    let (_, first) = get(&agent, "/v1/endpoint/container-id:a").await;
    let taken = json!({"ipv4": first["status"]["networking"]["addressing"][0]["ipv4"]});
    assert_eq!(put(&agent, "a", 7, &taken).await.0, StatusCode::CONFLICT);
    agent.know("default", "b");
    let (status, why) = put(&agent, "b", 8, &taken).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(why, json!("address 10.0.0.1 belongs to default/a"));
    assert_eq!(ask(&agent, "DELETE", "/v1/ipam/10.0.0.1", Value::Null).await.0, StatusCode::CONFLICT);
    assert_eq!(agent.endpoints.snapshot().len(), 1);
}

#[tokio::test]
async fn an_address_is_given_back_by_its_owner_only() {
    let runtime = folder();
    let (agent, ..) = Setup::new(runtime.path()).start();
    let release = |path: &'static str| ask(&agent, "DELETE", path, Value::Null);
    address(&agent, "a").await;
    let (status, why) = release("/v1/ipam/10.0.0.1?owner=default%2Fb").await;
    assert_eq!((status, why), (StatusCode::CONFLICT, json!("address 10.0.0.1 belongs to default/a")));
    assert_eq!(agent.pool.taken.lock().len(), 2);
    assert_eq!(release("/v1/ipam/10.0.0.1?owner=default%2Fa").await.0, StatusCode::OK);
    assert_eq!(release("/v1/ipam/10.0.0.1?owner=default%2Fa").await.0, StatusCode::OK, "it is free");
    // Nobody is named: the lease tells for whom it was.
    assert_eq!(release("/v1/ipam/fd00::1").await.0, StatusCode::OK);
    assert!(agent.pool.taken.lock().is_empty());
    let (status, _) = ask(&agent, "POST", "/v1/ipam?owner=default%2Fc&family=ipv4", Value::Null).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(release("/v1/ipam/10.0.0.1").await.0, StatusCode::CONFLICT, "it is not leased");
    assert_eq!(agent.pool.taken.lock().len(), 1);
}

#[tokio::test]
async fn an_empty_pool_says_so_and_a_bad_request_names_its_field() {
    let runtime = folder();
    let mut setup = Setup::new(runtime.path());
    setup.pool.size = 1;
    let (mut agent, ..) = setup.start();
    create(&mut agent, "a", 7).await;
    let (status, why) = ask(&agent, "POST", "/v1/ipam?owner=default%2Fb", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(why.as_str().unwrap().starts_with("no address is free"), "{why}");
    for (field, value) in [
        ("interface-index", json!(0)),
        ("netns-cookie", json!("many")),
        ("interface-name", json!("")),
        ("addressing", json!({})),
        ("container-id", json!("x")),
        ("k8s-pod-name", json!("")),
        ("mac", Value::Null),
    ] {
        let mut body = request("b", 8, &json!({"ipv4": "10.0.0.9"}));
        body[field] = value;
        let (status, why) = ask(&agent, "PUT", "/v1/endpoint/cni-attachment-id:b:eth0", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.as_str().unwrap().starts_with(&format!("{field}: ")), "{why}");
    }
}

#[tokio::test]
async fn the_configuration_tells_the_plugin_gateways_and_mtu() {
    let runtime = folder();
    let (agent, ..) = Setup::new(runtime.path()).start();
    let (status, config) = get(&agent, "/v1/config").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&config["deviceMTU"], &config["routeMTU"]), (&json!(1500), &json!(1450)));
    assert_eq!(
        config["addressing"]["ipv4"],
        json!({"enabled": true, "ip": "10.0.255.1", "alloc-range": "10.0.0.0/16"})
    );
}

#[tokio::test]
async fn a_restarted_agent_finds_its_endpoints_but_not_those_that_went_meanwhile() {
    let runtime = folder();
    let setup = Setup::new(runtime.path());
    let (kernel, pool) = (setup.kernel.clone(), setup.pool.clone());
    let (mut agent, _, _) = setup.start();
    let kept = create(&mut agent, "a", 7).await;
    create(&mut agent, "b", 8).await;
    create(&mut agent, "c", 9).await;
    agent.kill();
    drop(agent);
    pool.taken.lock().clear();
    crate::queue::Queue::new(&runtime.path().join("deleteQueue")).push("b").await.unwrap();
    let epochs = datapath::Epochs::open(&kernel).unwrap();
    let before = epochs.node().unwrap();

    let setup = Setup { kernel: kernel.clone(), ..Setup::new(runtime.path()) };
    let interfaces = crate::testing::fakes::FakeInterfaces::default();
    let links = crate::testing::fakes::FakeLinks::default();
    *links.0.lock() = [("lxca".to_owned(), 7), ("lxcb".to_owned(), 8), ("lxcc".to_owned(), 99)].into();
    let mut agent = setup.start_with(interfaces.clone(), links);
    agent.know("default", "a");
    let (_, all) = get(&agent, "/v1/endpoint").await;
    assert_eq!(all.as_array().unwrap().iter().map(|e| &e["id"]).collect::<Vec<_>>(), [&kept["id"]]);
    assert_eq!(saved(runtime.path()), 1);
    assert_eq!(agent.pool.taken.lock().len(), 2);
    let mut changes = agent.attachments.subscribe();
    while !changes.snapshot().initialized() {
        changes.next().await;
    }
    let id = model::EndpointId(u16::try_from(kept["id"].as_u64().unwrap()).unwrap());
    assert!(changes.snapshot().get(&AttachmentKey::Pod(id)).is_some());
    tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while kernel.map::<abi::maps::Endpoints>().unwrap().keys().unwrap() != [7] {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(epochs.node().unwrap(), before + 1, "two pods went: one raise, when they are pruned");
}

#[tokio::test]
async fn an_agent_that_cannot_read_its_endpoints_ends_and_leaves_the_kernel_as_it_is() {
    let runtime = folder();
    let setup = Setup::new(runtime.path());
    let kernel = setup.kernel.clone();
    let (mut agent, ..) = setup.start();
    create(&mut agent, "a", 7).await;
    agent.kill();
    drop(agent);
    let state = runtime.path().join("state");
    std::fs::rename(&state, runtime.path().join("aside")).unwrap();
    std::fs::write(&state, "").unwrap();
    let (mut agent, ..) = Setup { kernel: kernel.clone(), ..Setup::new(runtime.path()) }.start();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), &mut agent.ended).await;
    let failure = ended.unwrap().unwrap().unwrap_err();
    assert!(failure.message.contains(&*state.to_string_lossy()), "{failure}");
    assert_eq!(kernel.map::<abi::maps::Endpoints>().unwrap().keys().unwrap(), [7]);
}
