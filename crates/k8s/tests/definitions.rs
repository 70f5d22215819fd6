// SPDX-License-Identifier: Apache-2.0
//! A real API server takes our CustomResourceDefinitions, keeps what the types write and refuses what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;

use apiserver::{ApiServer, eventually};
use k8s::cilium::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumNetworkPolicy, CiliumNode,
};
use k8s::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s::kube::api::{Api, ListParams, PostParams};
use k8s::kube::{Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

#[derive(Clone, Debug, PartialEq)]
struct Name(String);

impl statedb::Row for Name {
    type Key = String;
    fn key(&self) -> String {
        self.0.clone()
    }
}

async fn register(client: &k8s::Client) {
    let api: Api<CustomResourceDefinition> = client.all();
    for definition in k8s::crd::all().unwrap() {
        api.create(&PostParams::default(), &definition).await.unwrap();
    }
    let definitions = k8s::crd::all().unwrap();
    eventually("all definitions are established", || async {
        for definition in &definitions {
            let present = api.get(definition.metadata.name.as_deref().unwrap()).await.map_err(|e| e.to_string())?;
            let conditions = present.status.unwrap_or_default().conditions.unwrap_or_default();
            if let Some(bad) = conditions.iter().find(|c| c.type_ == "NonStructuralSchema") {
                panic!("{}: {:?}", definition.spec.names.kind, bad.message);
            }
            if !conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
                return Err(format!("{} is not", definition.spec.names.kind));
            }
        }
        Ok(())
    })
    .await;
}

async fn create<K>(api: &Api<K>, mut object: Value) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    // As it comes from a user: what our types do not know must reach the server.
    let request = k8s::kube::core::Request::new(api.resource_url());
    let request = request.create(&PostParams::default(), serde_json::to_vec(&object).unwrap()).unwrap();
    api.clone().into_client().request(request).await
}

/// The server refuses the object, and its message names all of these.
async fn refused<K>(api: &Api<K>, object: Value, names: &[&str])
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    match create(api, object.clone()).await {
        Err(Error::Api(status)) if status.code == 422 => {
            for name in names {
                assert!(status.message.contains(name), "{name:?} is not in {:?}", status.message);
            }
        }
        other => panic!("{object} gave {other:?}"),
    }
}

#[tokio::test]
async fn the_api_server_serves_our_resources_and_refuses_what_is_wrong_naming_the_field() {
    let server = ApiServer::start().await;
    let client = server.client().await;
    // An agent may be earlier than the definitions.
    let (writer, nodes) = statedb::table::<Name>("cilium-nodes");
    let ingest = |node: &CiliumNode| node.metadata.name.clone().map(Name);
    let reflector = tokio::spawn(client.reflect(client.all(), writer, ingest));
    assert!(!nodes.snapshot().initialized());
    register(&client).await;
    nodes.initialized().await;
    policies(&client).await;
    others(&client).await;
    listed(&client).await;
    eventually("the node is in the table", || async {
        let name = nodes.snapshot().get(&"n".to_owned());
        name.map(drop).ok_or_else(|| "it is not".to_owned())
    })
    .await;
    reflector.abort();
}

async fn policies(client: &k8s::Client) {
    let api: Api<CiliumNetworkPolicy> = client.namespaced("default");
    let policy = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let all = json!({"endpointSelector": {}});
    let with = |key: &str, value: Value| {
        let mut spec = all.clone();
        spec[key] = value;
        policy("wrong", spec)
    };
    let good = json!({"endpointSelector": {}, "ingress": [{}], "egress": [{"toPorts": [{"ports": [{"port": "http"}]}]}, {"icmps": [{"fields": [{"type": 8}]}]}]});
    let made = create(&api, policy("good", good.clone())).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().ingress, Some(vec![Default::default()]));
    assert_eq!(
        made.spec.unwrap().egress.unwrap()[1].icmps.as_ref().unwrap()[0].fields.as_ref().unwrap()[0].family.as_deref(),
        Some("IPv4")
    );
    create(&api, policy("empty", json!({"endpointSelector": {}, "ingress": []}))).await.unwrap();
    create(&api, json!({"metadata": {"name": "several"}, "specs": [good, good]})).await.unwrap();

    refused(&api, policy("wrong", all.clone()), &["spec"]).await;
    refused(&api, with("ingress", json!([{"fromEntities": ["mars"]}])), &["spec.ingress[0].fromEntities[0]", "mars"])
        .await;
    refused(
        &api,
        with("ingress", json!([{"toPorts": [{"ports": [{"port": "-", "protocol": "TCP"}]}]}])),
        &["spec.ingress[0].toPorts[0].ports[0].port"],
    )
    .await;
    refused(
        &api,
        with("ingress", json!([{"toPorts": [{"ports": [{"port": "1", "protocol": "ICMP"}]}]}])),
        &["ports[0].protocol", "ICMP"],
    )
    .await;
    refused(&api, with("egress", json!([{"toCIDR": ["10.0.0.0/40"]}])), &["spec.egress[0].toCIDR[0]"]).await;
    refused(
        &api,
        with("egress", json!([{"toCIDRSet": [{"cidr": "10.0.0.0/8", "cidrGroupRef": "g"}]}])),
        &["spec.egress[0].toCIDRSet[0]"],
    )
    .await;
    refused(
        &api,
        with("egress", json!([{"toFQDNs": [{"matchName": "*.example.com"}]}])),
        &["spec.egress[0].toFQDNs[0].matchName"],
    )
    .await;
    refused(
        &api,
        with("ingress", json!([{"icmps": [{"fields": [{"type": "Nonsense"}]}]}])),
        &["spec.ingress[0].icmps[0].fields[0].type"],
    )
    .await;
    refused(
        &api,
        with("ingress", json!([{"authentication": {"mode": "maybe"}}])),
        &["spec.ingress[0].authentication.mode"],
    )
    .await;
    refused(&api, with("ingress", json!([{"fromRequires": [{}]}])), &["spec.ingress[0].fromRequires"]).await;
    refused(&api, with("ingress", json!({"fromEntities": ["all"]})), &["spec.ingress"]).await;

    let clusterwide: Api<CiliumClusterwideNetworkPolicy> = client.all();
    create(&clusterwide, policy("nodes", json!({"nodeSelector": {}, "ingress": []}))).await.unwrap();
    let both = json!({"nodeSelector": {}, "endpointSelector": {}, "ingress": []});
    refused(&clusterwide, policy("wrong", both), &["spec"]).await;
    let operator = json!({"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}, "ingress": []});
    refused(&clusterwide, policy("wrong", operator), &["spec.endpointSelector.matchExpressions[0].operator"]).await;
}

async fn others(client: &k8s::Client) {
    let params = PostParams::default();
    let nodes: Api<CiliumNode> = client.all();
    let mut node = CiliumNode::named("n");
    node.spec.ipam.pod_cidrs = vec!["10.0.0.0/24".into()];
    let made = nodes.create(&params, &node).await.unwrap();
    assert_eq!(made.spec, node.spec);
    let refused_state = json!({"metadata": {"name": "p"}, "status": {"state": "asleep"}});
    refused(&client.namespaced::<CiliumEndpoint>("default"), refused_state, &["status.state", "asleep"]).await;
    refused(&client.all::<CiliumIdentity>(), json!({"metadata": {"name": "300"}}), &["security-labels"]).await;
    let groups: Api<CiliumCIDRGroup> = client.all();
    refused(&groups, json!({"metadata": {"name": "g"}, "spec": {"externalCIDRs": ["x"]}}), &["spec.externalCIDRs[0]"])
        .await;
    let group = json!({"metadata": {"name": "g"}, "spec": {"externalCIDRs": ["10.0.0.0/8"]}});
    create(&groups, group).await.unwrap();
}

async fn listed(client: &k8s::Client) {
    let policies = client.all::<CiliumNetworkPolicy>().list(&ListParams::default()).await.unwrap();
    assert_eq!(policies.items.len(), 3);
    for policy in &policies.items {
        let faults = k8s::cilium::validate(policy);
        if policy.metadata.name.as_deref() == Some("empty") {
            // The schema lets sections be empty. A rule of nothing else is at fault all the same.
            assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["spec"], "{faults:?}");
        } else {
            assert_eq!(faults, [], "{policy:?}");
        }
    }
    // The old version of the group is served with the same content.
    let old = "/apis/cilium.io/v2alpha1/ciliumcidrgroups";
    let request = k8s::kube::core::Request::new(old).get("g", &Default::default()).unwrap();
    let group: Value = client.kube().request(request).await.unwrap();
    assert_eq!(group["spec"]["externalCIDRs"], json!(["10.0.0.0/8"]));
}
