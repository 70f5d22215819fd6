// SPDX-License-Identifier: Apache-2.0
//! The whole operator does its duties against a real API server, with the permissions that the chart gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../k8s/tests/common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;
mod common;

use apiserver::{ApiServer, eventually};
use common::{NAMESPACE, make, permit};
use k8s::cilium::{CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy, CiliumNode, HEARTBEAT_ANNOTATION};
use k8s::k8s_openapi::NamespaceResourceScope;
use k8s::k8s_openapi::api::coordination::v1::Lease;
use k8s::k8s_openapi::api::core::v1::{Node, Pod};
use k8s::kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use k8s::kube::{Resource, ResourceExt};
use operator::config::{Arguments, Config};
use serde::Serialize;
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

/// Whoever looks at a policy with kubectl sees why it does not do what it says.
async fn events(client: &k8s::Client) {
    let api: Api<k8s::k8s_openapi::api::events::v1::Event> = client.namespaced("default");
    eventually("policies that are not enforced have their event", || async {
        let events = api.list(&Default::default()).await.map_err(|e| e.to_string())?.items;
        let mut said: Vec<_> = events
            .into_iter()
            .filter(|e| e.reporting_controller.as_deref() == Some("cilium-operator"))
            .map(|e| (e.regarding.and_then(|object| object.name), e.reason, e.type_))
            .collect();
        said.sort();
        let row =
            |name: &str, reason: &str| (Some(name.to_owned()), Some(reason.to_owned()), Some("Warning".to_owned()));
        let wanted = [row("bad", "PolicyInvalid"), row("nodes", "PolicyNotEnforced")];
        if said == wanted { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
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
