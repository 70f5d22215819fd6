// SPDX-License-Identifier: Apache-2.0
//! The whole operator does its duties against a real API server, with the permissions that the chart gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../k8s/tests/common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;
mod common;

use apiserver::{ApiServer, eventually};
use common::{NAMESPACE, make, permit};
use k8s::cilium::{
    CiliumEndpoint, CiliumIdentity, CiliumLoadBalancerIPPool, CiliumNetworkPolicy, CiliumNode, HEARTBEAT_ANNOTATION,
};
use k8s::k8s_openapi::NamespaceResourceScope;
use k8s::k8s_openapi::api::coordination::v1::Lease;
use k8s::k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s::kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use k8s::kube::core::Request;
use k8s::kube::{Resource, ResourceExt};
use operator::config::{Arguments, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use tokio_util::sync::CancellationToken;

const TAINT: &str = "node.cilium.io/agent-not-ready";

fn config(server: &ApiServer) -> Config {
    let keys = [
        ("k8s-namespace", NAMESPACE),
        ("cluster-pool-ipv4-cidr", "10.10.0.0/23"),
        ("operator-api-serve-addr", "127.0.0.1:0"),
        ("operator-prometheus-serve-addr", "127.0.0.1:0"),
        ("identity-gc-interval", "200ms"),
        ("identity-heartbeat-timeout", "1s"),
        ("cilium-endpoint-gc-interval", "200ms"),
        ("nodes-gc-interval", "200ms"),
        ("enable-node-ipam", "true"),
    ];
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let config = Config::load(&Arguments { config_dir: None, keys }).unwrap();
    let client = server.config(server.port(), "operator");
    Config { client, pod_cidr_rest: std::time::Duration::from_secs(1), ..config }
}

async fn node(client: &k8s::Client, name: &str, cidrs: &[&str]) {
    let taints = json!([{"key": "other", "effect": "NoSchedule"}, {"key": TAINT, "effect": "NoExecute"}]);
    make(&client.all::<Node>(), json!({"metadata": {"name": name}, "spec": {"taints": taints}})).await;
    cilium_node(client, json!({"name": name}), cidrs).await;
}

async fn cilium_node(client: &k8s::Client, metadata: Value, cidrs: &[&str]) {
    let object = json!({"metadata": metadata, "spec": {"ipam": {"podCIDRs": cidrs}}});
    make(&client.all::<CiliumNode>(), object).await;
}

/// Pod CIDRs and error of a CiliumNode.
async fn allocation(client: &k8s::Client, name: &str) -> (Vec<String>, String) {
    let node = client.all::<CiliumNode>().get(name).await.unwrap();
    let status = node.status.and_then(|status| status.ipam).and_then(|ipam| ipam.operator_status);
    (node.spec.ipam.pod_cidrs, status.and_then(|status| status.error).unwrap_or_default())
}

async fn gets(client: &k8s::Client, name: &str, cidrs: &[&str], error: &str) {
    eventually(&format!("{name} has its pod CIDRs and is told what is wrong"), || async {
        let (present, message) = allocation(client, name).await;
        let right = present == cidrs && message.contains(error) && (message.is_empty() == error.is_empty());
        if right { Ok(()) } else { Err(format!("{present:?} {message:?}")) }
    })
    .await;
}

async fn vanishes<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{name} is deleted"), || async {
        match api.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn the_operator_does_its_duties_and_gives_the_lease_back() {
    let server = ApiServer::start().await;
    let client = server.client().await;
    permit(&client, "operator/rbac.yaml", &[]).await;
    let stop = CancellationToken::new();
    let operator = tokio::spawn(operator::run(config(&server), stop.clone()));
    eventually("custom resources are served", || async {
        client.all::<CiliumNetworkPolicy>().list(&Default::default()).await.map(drop).map_err(|e| e.to_string())?;
        client.all::<CiliumNode>().list(&Default::default()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;

    pod_cidrs(&client).await;
    readiness(&client).await;
    policies(&client).await;
    events(&client).await;
    load_balancers(&client).await;
    addresses_of_nodes(&client).await;
    what_is_not_honoured(&client).await;
    garbage(&client).await;

    assert!(!operator.is_finished());
    stop.cancel();
    operator.await.unwrap().unwrap();
    let lease = client.namespaced::<Lease>(NAMESPACE).get(operator::LEASE).await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(""));
}

async fn pod_cidrs(client: &k8s::Client) {
    node(client, "has", &["10.10.1.0/24"]).await;
    node(client, "needs", &[]).await;
    gets(client, "needs", &["10.10.0.0/24"], "").await;
    gets(client, "has", &["10.10.1.0/24"], "").await;
    node(client, "late", &[]).await;
    gets(client, "late", &[], "10.10.0.0/23 (/24 for each node) is exhausted").await;
    node(client, "clash", &["10.10.1.128/25"]).await;
    gets(client, "clash", &["10.10.1.128/25"], "overlaps 10.10.1.0/24 of node has").await;
    node(client, "typo", &["10.10.2.0/240"]).await;
    gets(client, "typo", &["10.10.2.0/240"], "spec.ipam.podCIDRs: \"10.10.2.0/240\" is not a prefix").await;

    // What a node leaves behind goes to the one that waits.
    client.all::<Node>().delete("needs", &DeleteParams::default()).await.unwrap();
    vanishes(&client.all::<CiliumNode>(), "needs").await;
    gets(client, "late", &["10.10.0.0/24"], "").await;
    gets(client, "clash", &["10.10.1.128/25"], "overlaps").await;
    cilium_node(client, json!({"name": "ghost", "annotations": {"ipam.cilium.io/ignore": "true"}}), &[]).await;
    vanishes(&client.all::<CiliumNode>(), "ghost").await;
}

fn pod(name: &str, labels: Value, node: &str) -> Value {
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
}

async fn set_status<K>(api: &Api<K>, name: &str, status: Value)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn readiness(client: &k8s::Client) {
    let pods: Api<Pod> = client.namespaced(NAMESPACE);
    for (name, node) in [("cilium-1", "has"), ("cilium-2", "late")] {
        make(&pods, pod(name, json!({"k8s-app": "cilium"}), node)).await;
    }
    set_status(&pods, "cilium-1", json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
        .await;
    let nodes: Api<Node> = client.all();
    let taints = |node: &Node| -> Vec<String> {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        // Kubernetes adds its own to a node without a kubelet.
        taints.into_iter().map(|taint| taint.key).filter(|key| !key.starts_with("node.kubernetes.io/")).collect()
    };
    eventually("the node of the ready agent is free", || async {
        let node = nodes.get("has").await.unwrap();
        let conditions = node.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        let up = conditions.iter().find(|c| c.type_ == "NetworkUnavailable");
        let condition = up.map(|c| (c.status.as_str(), c.reason.as_deref(), c.message.as_deref()));
        let right = Some(("False", Some("CiliumIsUp"), Some("Cilium is running on this node")));
        let taints = taints(&node);
        if taints == ["other"] && condition == right { Ok(()) } else { Err(format!("{taints:?} {condition:?}")) }
    })
    .await;
    assert_eq!(taints(&nodes.get("late").await.unwrap()), ["other", TAINT]);
    first_taint(&nodes).await;
}

/// A node without a taint gets one, unless it has got one of somebody else's meanwhile.
async fn first_taint(nodes: &Api<Node>) {
    make(nodes, json!({"metadata": {"name": "bare"}})).await;
    let set = |taints: Value| async move {
        let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
        nodes.patch("bare", &PatchParams::default(), &patch).await.unwrap()
    };
    let wanted = [serde_json::from_value(json!({"key": TAINT, "effect": "NoSchedule"})).unwrap()];
    let seen = ::node::readiness::ingest_node(&set(Value::Null).await).unwrap();
    let patch = || Patch::<()>::Json(serde_json::from_value(::node::readiness::taints_patch(&seen, &wanted)).unwrap());
    let tainted = nodes.patch("bare", &PatchParams::default(), &patch()).await.unwrap();
    assert_eq!(tainted.spec.unwrap().taints.unwrap(), wanted);
    set(json!([{"key": "other", "effect": "NoExecute"}])).await;
    nodes.patch("bare", &PatchParams::default(), &patch()).await.unwrap_err();
}

async fn policies(client: &k8s::Client) {
    let api: Api<CiliumNetworkPolicy> = client.namespaced("default");
    let policy = |name: &str, ingress: Value| json!({"metadata": {"name": name}, "spec": {"endpointSelector": {}, "ingress": ingress}});
    make(&api, policy("good", json!([{}]))).await;
    make(&api, policy("bad", json!([{"fromEntities": ["world"], "fromEndpoints": [{}]}]))).await;
    make(&api, policy("nodes", json!([{"fromNodes": [{}]}]))).await;
    for (name, status, message) in [
        (
            "nodes",
            "True",
            "Policy validation succeeded, but not all of the policy is enforced: \
             spec.ingress[0].fromNodes: is not supported yet; it allows nothing",
        ),
        ("good", "True", "Policy validation succeeded"),
        ("bad", "False", "spec.ingress[0]: fromEndpoints and fromEntities cannot be combined in one rule, write two"),
    ] {
        eventually(&format!("policy {name} has its condition"), || async {
            let conditions = api.get(name).await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
            let valid = conditions.iter().find(|c| c.condition_type == "Valid");
            let right = valid.is_some_and(|c| c.status == status && c.message.as_deref() == Some(message));
            if right { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}

/// Whoever looks at a policy or a node with kubectl sees why it does not do, or get, what it says.
async fn events(client: &k8s::Client) {
    let api: Api<k8s::k8s_openapi::api::events::v1::Event> = client.namespaced("default");
    eventually("what is not enforced or not given has its event", || async {
        let events = api.list(&Default::default()).await.map_err(|e| e.to_string())?.items;
        let mut said: Vec<_> = events
            .into_iter()
            .filter(|e| e.reporting_controller.as_deref() == Some("cilium-operator"))
            .map(|e| (e.regarding.and_then(|object| object.name), e.reason, e.type_))
            .collect();
        said.sort();
        let row =
            |name: &str, reason: &str| (Some(name.to_owned()), Some(reason.to_owned()), Some("Warning".to_owned()));
        let wanted = [
            row("bad", "PolicyInvalid"),
            row("clash", "PodCIDRsRefused"),
            row("late", "PodCIDRsRefused"),
            row("nodes", "PolicyNotEnforced"),
            row("typo", "PodCIDRsRefused"),
        ];
        if said == wanted { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

fn load_balancer(name: &str, annotations: Value, port: u16) -> Value {
    let spec = json!({"type": "LoadBalancer", "ports": [{"port": port}]});
    json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

/// Waits until a Service has these addresses, and the reason of its condition is this.
async fn has(client: &k8s::Client, name: &str, addresses: &[&str], reason: &str) {
    let api: Api<Service> = client.namespaced("default");
    eventually(&format!("Service {name} has {addresses:?}"), || async {
        let status = api.get(name).await.unwrap().status.unwrap_or_default();
        let ingress = status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
        let present: Vec<String> = ingress.into_iter().filter_map(|ingress| ingress.ip).collect();
        let conditions = status.conditions.unwrap_or_default();
        let said = conditions.iter().find(|c| c.type_ == lbipam::CONDITION).map(|c| c.reason.as_str());
        if present == addresses && said == Some(reason) { Ok(()) } else { Err(format!("{present:?} {conditions:?}")) }
    })
    .await;
}

/// What `kubectl get ippools` prints of a pool, but for its age.
async fn columns(client: &k8s::Client, pool: &str) -> Vec<(String, Value)> {
    let mut request =
        Request::new("/apis/cilium.io/v2/ciliumloadbalancerippools").get(pool, &Default::default()).unwrap();
    request.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
    let table: Value = client.kube().request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned());
    names.zip(table["rows"][0]["cells"].as_array().unwrap().iter().cloned()).filter(|(name, _)| name != "Age").collect()
}

async fn load_balancers(client: &k8s::Client) {
    let services: Api<Service> = client.namespaced("default");
    make(&services, load_balancer("first", json!({}), 80)).await;
    // As notes of older releases have it.
    let pool = json!({"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "blue"},
        "spec": {"blocks": [{"start": "192.0.2.10", "stop": "192.0.2.11"}]}});
    let request = Request::new("/apis/cilium.io/v2alpha1/ciliumloadbalancerippools");
    let request = request.create(&PostParams::default(), serde_json::to_vec(&pool).unwrap()).unwrap();
    client.kube().request::<Value>(request).await.unwrap();
    has(client, "first", &["192.0.2.10"], "satisfied").await;

    let key = json!({"io.cilium/lb-ipam-sharing-key": "web"});
    make(&services, load_balancer("http", key.clone(), 80)).await;
    has(client, "http", &["192.0.2.11"], "satisfied").await;
    make(&services, load_balancer("https", key, 443)).await;
    has(client, "https", &["192.0.2.11"], "satisfied").await;
    make(&services, load_balancer("late", json!({}), 80)).await;
    has(client, "late", &[], "out_of_ips").await;
    let pools: Api<CiliumLoadBalancerIPPool> = client.all();
    let twin = json!({"metadata": {"name": "twin"}, "spec": {"blocks": [{"cidr": "192.0.2.0/24"}]}});
    make(&pools, twin).await;
    eventually("the pools say how they are", || async {
        let (blue, twin) = (columns(client, "blue").await, columns(client, "twin").await);
        let row = |name: &str, conflicting: &str, available: &str| {
            let cells = [
                ("Name", json!(name)),
                ("Disabled", json!(false)),
                ("Conflicting", json!(conflicting)),
                ("IPs Available", json!(available)),
            ];
            cells.map(|(name, value)| (name.to_owned(), value))
        };
        let right = blue == row("blue", "False", "0") && twin == row("twin", "True", "254");
        if right { Ok(()) } else { Err(format!("{blue:?} {twin:?}")) }
    })
    .await;
    services.delete("first", &DeleteParams::default()).await.unwrap();
    has(client, "late", &["192.0.2.10"], "satisfied").await;
    let patch = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    services.patch("late", &PatchParams::default(), &patch).await.unwrap();
    eventually("a Service that is none of ours any more is left clean", || async {
        let status = services.get("late").await.unwrap().status.unwrap_or_default();
        let left = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default().len()
            + status.conditions.unwrap_or_default().len();
        if left == 0 { Ok(()) } else { Err(format!("{left} entries")) }
    })
    .await;
}

async fn addresses_of_nodes(client: &k8s::Client) {
    let services: Api<Service> = client.namespaced("default");
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "io.cilium/node", "ports": [{"port": 80}]});
    make(&services, json!({"metadata": {"name": "by-nodes"}, "spec": spec})).await;
    for address in ["203.0.113.7", "203.0.113.8"] {
        let addresses =
            json!([{"type": "ExternalIP", "address": address}, {"type": "InternalIP", "address": "10.9.9.9"}]);
        let patch = Patch::Merge(json!({"status": {"addresses": addresses}}));
        client.all::<Node>().patch_status("has", &PatchParams::default(), &patch).await.unwrap();
        eventually(&format!("the Service has the node's address {address}"), || async {
            let status = services.get("by-nodes").await.unwrap().status.unwrap_or_default();
            let ingress = status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
            let present: Vec<_> = ingress.into_iter().filter_map(|ingress| ingress.ip).collect();
            if present == [address] { Ok(()) } else { Err(format!("{present:?}")) }
        })
        .await;
    }
}

async fn what_is_not_honoured(client: &k8s::Client) {
    let services: Api<Service> = client.namespaced("default");
    let annotations = |policy: Option<&str>| json!({"service.cilium.io/src-ranges-policy": policy});
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/other", "ports": [{"port": 80}]});
    let object = json!({"metadata": {"name": "odd", "annotations": annotations(Some("maybe"))}, "spec": spec});
    make(&services, object).await;
    let other = json!({"type": "example.com/Other", "status": "True", "reason": "Kept", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let patch = Patch::Strategic(json!({"status": {"conditions": [other]}}));
    services.patch_status("odd", &PatchParams::default(), &patch).await.unwrap();
    let says = async |status: &str, message: &str| {
        eventually(&format!("its condition is {status}"), || async {
            let conditions =
                services.get("odd").await.unwrap().status.unwrap_or_default().conditions.unwrap_or_default();
            let of =
                |kind: &str| conditions.iter().find(|c| c.type_ == kind).map(|c| (c.status.clone(), c.message.clone()));
            let right = of("cilium.io/ServiceHonoured") == Some((status.to_owned(), message.to_owned()));
            if right && of("example.com/Other").is_some() { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    };
    says("False", "service.cilium.io/src-ranges-policy: \"maybe\" is none of allow, deny").await;
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations(None)}}));
    services.patch("odd", &PatchParams::default(), &patch).await.unwrap();
    says("True", "").await;
}

async fn garbage(client: &k8s::Client) {
    let identities: Api<CiliumIdentity> = client.all();
    let used = json!({"name": "300", "annotations": {HEARTBEAT_ANNOTATION: "2020-01-01T00:00:00Z"}});
    let endpoints: Api<CiliumEndpoint> = client.namespaced("default");
    let endpoint = |name: &str, id: u32| json!({"metadata": {"name": name}, "status": {"identity": {"id": id}}});
    make(&client.namespaced::<Pod>("default"), pod("lives", json!({}), "has")).await;
    make(&endpoints, endpoint("lives", 300)).await;
    make(&endpoints, endpoint("gone", 301)).await;
    let labels = json!({"k8s:app": "x"});
    make(&identities, json!({"metadata": used, "security-labels": labels})).await;
    make(&identities, json!({"metadata": {"name": "301"}, "security-labels": labels})).await;

    vanishes(&endpoints, "gone").await;
    vanishes(&identities, "301").await;
    // By the time that the unused one is gone, the used one has been looked at several times.
    assert_eq!(identities.get("300").await.unwrap().annotations().get(HEARTBEAT_ANNOTATION), None);
    endpoints.get("lives").await.unwrap();
}
