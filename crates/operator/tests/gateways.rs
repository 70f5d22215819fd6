// SPDX-License-Identifier: Apache-2.0
//! What the operator does for Gateways, against a real API server, with the permissions that the chart gives it. Some of Gateway API's
//! kinds are not served, and one in an old version only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../k8s/tests/common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;
mod common;

use apiserver::{ApiServer, eventually};
use common::{NAMESPACE, make, permit};
use k8s::gateway::{Condition, GatewayClassSpec, GatewaySpec, HttpRouteSpec, Object, ReferenceGrantSpec, Served, Spec};
use k8s::k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use k8s::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s::kube::api::{Api, DeleteParams, Patch, PatchParams};
use k8s::kube::core::DynamicResourceScope;
use operator::config::{Arguments, Config};
use serde_json::{Value, json};
use std::future::Future;
use tokio_util::sync::CancellationToken;

const SECRETS: &str = "cilium-secrets";

fn config(server: &ApiServer) -> Config {
    let keys = [
        ("k8s-namespace", NAMESPACE),
        ("ipam", "kubernetes"),
        ("operator-api-serve-addr", "127.0.0.1:0"),
        ("skip-crd-creation", "true"),
        ("enable-gateway-api", "true"),
    ];
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let config = Config::load(&Arguments { config_dir: None, keys }).unwrap();
    Config { client: server.config(server.port(), "operator"), ..config }
}

/// A definition that lets everything pass.
async fn define<S: Spec>(client: &k8s::Client, version: &str, scope: &str) {
    let Served { group, kind, plural, .. } = S::SERVED[0];
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({
        "name": version, "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": anything},
    });
    let object = json!({
        "metadata": {"name": format!("{plural}.{group}"), "annotations": {"api-approved.kubernetes.io": "unapproved"}},
        "spec": {"group": group, "scope": scope, "versions": [version],
                 "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")}},
    });
    make(&client.all::<CustomResourceDefinition>(), object).await;
    eventually(&format!("{plural} are served"), || async {
        client.served::<S>().await.map_err(|error| error.to_string())?.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

async fn api<S: Spec>(client: &k8s::Client, namespace: Option<&str>) -> Api<Object<S>>
where
    Object<S>: k8s::kube::Resource<DynamicType = Served, Scope = DynamicResourceScope>,
{
    let served = client.served::<S>().await.unwrap().unwrap();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.kube(), namespace, &served),
        None => Api::all_with(client.kube(), &served),
    }
}

async fn put<S: Spec>(client: &k8s::Client, namespace: Option<&str>, name: &str, spec: Value) {
    let Served { group, kind, .. } = S::SERVED[0];
    let version = client.served::<S>().await.unwrap().unwrap().version;
    let object = json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply("test").force();
    api::<S>(client, namespace).await.patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

async fn secret(client: &k8s::Client, namespace: &str, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let data = json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
    let object = json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": data});
    make(&client.namespaced::<Secret>(namespace), object).await;
}

fn says(conditions: &[Condition], kind: &str, wanted: (&str, &str)) -> Result<(), String> {
    let found = conditions.iter().find(|condition| condition.kind == kind);
    match found.map(|condition| (condition.status.as_str(), condition.reason.as_str())) {
        Some(found) if found == wanted => Ok(()),
        other => Err(format!("{kind}: {other:?} in {conditions:?}")),
    }
}

async fn gateway(client: &k8s::Client) -> k8s::gateway::GatewayStatus {
    let api = api::<GatewaySpec>(client, Some("shop")).await;
    api.get("edge").await.unwrap().status.unwrap_or_default()
}

/// Beside the copies there is the key of session persistence.
async fn copies(client: &k8s::Client, copies: &[&str]) {
    let wanted = [&["cilium-session-persistence"], copies].concat();
    eventually(&format!("the copies are {wanted:?}"), || async {
        let list = client.namespaced::<Secret>(SECRETS).list(&Default::default()).await.unwrap();
        let names: Vec<_> = list.into_iter().filter_map(|secret| secret.metadata.name).collect();
        if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

async fn programmed<F: Future<Output = ()>>(client: &k8s::Client, before: F, wanted: (&str, &str)) {
    before.await;
    eventually(&format!("the Gateway is programmed: {wanted:?}"), || async {
        says(&gateway(client).await.conditions, "Programmed", wanted)
    })
    .await;
}

/// An agent says what its proxy has in force.
async fn proxy_report(client: &k8s::Client) {
    let metadata = api::<GatewaySpec>(client, Some("shop")).await.get("edge").await.unwrap().metadata;
    let node = make(&client.all::<Node>(), json!({"metadata": {"name": "a"}})).await;
    let edition = gateway::Edition { object: "Gateway shop/edge".into(), uid: metadata.uid.unwrap().into() };
    let generations = [(edition, metadata.generation.unwrap())].into();
    let in_force = gateway::InForce { serves: true, generations, ..Default::default() };
    let report = gateway::report_objects(&node, SECRETS, &in_force).pop().unwrap();
    let params = PatchParams::apply("cilium-agent").force();
    let reports = client.namespaced::<ConfigMap>(SECRETS);
    reports.patch("cilium-proxy-a", &params, &Patch::Apply(report)).await.unwrap();
}

async fn objects(client: &k8s::Client) {
    define::<GatewayClassSpec>(client, "v1", "Cluster").await;
    define::<GatewaySpec>(client, "v1beta1", "Namespaced").await;
    define::<HttpRouteSpec>(client, "v1", "Namespaced").await;
    define::<ReferenceGrantSpec>(client, "v1beta1", "Namespaced").await;
    for namespace in ["shop", "other"] {
        make(&client.all::<Namespace>(), json!({"metadata": {"name": namespace}})).await;
    }
    secret(client, "shop", "own").await;
    secret(client, "other", "theirs").await;
    let spec = json!({"ports": [{"port": 80}], "clusterIP": "None"});
    make(&client.namespaced::<Service>("shop"), json!({"metadata": {"name": "cart"}, "spec": spec})).await;
    put::<GatewayClassSpec>(client, None, "cilium", json!({"controllerName": "io.cilium/gateway-controller"})).await;
    let listeners = json!([
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "own", "port": 443, "protocol": "HTTPS", "hostname": "own.test", "tls": {"certificateRefs": [{"name": "own"}]}},
        {"name": "theirs", "port": 443, "protocol": "HTTPS", "hostname": "theirs.test",
         "tls": {"certificateRefs": [{"name": "theirs", "namespace": "other"}]}},
    ]);
    let infrastructure = json!({"labels": {"color": "blue"}, "annotations": {"io.cilium/lb-ipam-sharing-key": "k"}});
    let spec = json!({"gatewayClassName": "cilium", "listeners": listeners, "infrastructure": infrastructure});
    put::<GatewaySpec>(client, Some("shop"), "edge", spec).await;
    let spec = json!({"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "cart", "port": 80}]}]});
    put::<HttpRouteSpec>(client, Some("shop"), "cart", spec).await;
}

#[tokio::test]
async fn a_gateway_gets_its_service_its_credentials_and_its_status() {
    let server = ApiServer::start().await;
    let client = server.client().await;
    permit(&client, "operator/rbac.yaml", &[]).await;
    let agent = ("{{ .Values.serviceAccounts.cilium.name }}", "cilium");
    permit(&client, "gateway/secrets.yaml", &[("{{ $namespace.name }}", SECRETS), agent]).await;
    let stop = CancellationToken::new();
    let operator = tokio::spawn(operator::run(config(&server), stop.clone()));
    objects(&client).await;

    eventually("class and route are accepted", || async {
        let class = api::<GatewayClassSpec>(&client, None).await.get("cilium").await.unwrap();
        says(&class.status.unwrap_or_default().conditions, "Accepted", ("True", "Accepted"))?;
        let route = api::<HttpRouteSpec>(&client, Some("shop")).await.get("cart").await.unwrap();
        let parents = route.status.unwrap_or_default().parents;
        let parent = parents.first().ok_or("no parent")?;
        says(&parent.conditions, "Accepted", ("True", "Accepted"))?;
        says(&parent.conditions, "ResolvedRefs", ("True", "ResolvedRefs"))
    })
    .await;
    programmed(&client, async {}, ("False", "AddressNotAssigned")).await;
    says(&gateway(&client).await.listeners[2].conditions, "ResolvedRefs", ("False", "RefNotPermitted")).unwrap();
    copies(&client, &["shop-own"]).await;

    let services = client.namespaced::<Service>("shop");
    let service = services.get("cilium-gateway-edge").await.unwrap();
    assert_eq!(service.metadata.labels.as_ref().unwrap()["color"], "blue");
    assert_eq!(service.metadata.annotations.as_ref().unwrap()["io.cilium/lb-ipam-sharing-key"], "k");
    assert_eq!(service.spec.unwrap().ports.unwrap().len(), 2);
    let given = async {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        let params = PatchParams::default();
        services.patch_status("cilium-gateway-edge", &params, &Patch::Merge(status)).await.unwrap();
    };
    programmed(&client, given, ("False", "Pending")).await;
    programmed(&client, proxy_report(&client), ("True", "Programmed")).await;
    assert_eq!(gateway(&client).await.addresses[0].value, "192.0.2.1");

    // A grant lets the certificate in, and out again when it goes.
    let to = json!([{"group": "", "kind": "Secret", "name": "theirs"}]);
    let from = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"}]);
    put::<ReferenceGrantSpec>(&client, Some("other"), "grant", json!({"from": from, "to": to})).await;
    copies(&client, &["other-theirs", "shop-own"]).await;
    let grants = api::<ReferenceGrantSpec>(&client, Some("other")).await;
    grants.delete("grant", &DeleteParams::default()).await.unwrap();
    copies(&client, &["shop-own"]).await;

    // Whoever deletes the Service gets another.
    services.delete("cilium-gateway-edge", &DeleteParams::default()).await.unwrap();
    programmed(&client, async {}, ("False", "AddressNotAssigned")).await;
    eventually("the Service is made again", || async {
        services.get("cilium-gateway-edge").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    stop.cancel();
    operator.await.unwrap().unwrap();
}
