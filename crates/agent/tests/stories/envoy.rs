// SPDX-License-Identifier: Apache-2.0
//! The lives of CiliumEnvoyConfigs: from the object to the node's proxy, and from its word to the Service's address.

use crate::world::{World, eventually, settle};
use axum::http::Method;
use l7::link::{Status, greet};
use l7::{Key, Kind, Snapshot};
use parking_lot::Mutex;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::UnixStream;

const CONFIG: &str = r#"
kind: CiliumEnvoyConfig
metadata: {name: canary, namespace: shop, uid: u}
spec:
  services: [{name: web}]
  resources:
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: l
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: shop/web}}]}
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: shop/web, type: EDS, connect_timeout: 1s}
"#;

fn service(backend: &str) -> String {
    format!(
        "
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{type: ClusterIP, clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], ports: [{{name: http, port: 80, protocol: TCP}}]}}
---
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: [{backend}], nodeName: node1, conditions: {{ready: true}}}}]
"
    )
}

/// A proxy in that pod, which puts all that it is told into force.
async fn proxy(socket: &Path, pod: &str) -> Arc<Mutex<Snapshot>> {
    let (reader, writer) = UnixStream::connect(socket).await.unwrap().into_split();
    let (mut updates, mut reports) = greet(BufReader::new(reader), writer, pod).await.unwrap();
    let served = Arc::<Mutex<Snapshot>>::default();
    let told = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok(received) = updates.next().await {
            told.lock().apply(received.update);
            let status = Status { version: received.version, faults: Vec::new() };
            if reports.send(status).await.is_err() {
                return;
            }
        }
    });
    served
}

fn names(served: &Mutex<Snapshot>, kind: Kind) -> Vec<String> {
    let served = served.lock();
    let of_kind = served.iter().filter(|(key, _)| key.kind == kind);
    of_kind.map(|(Key { name, .. }, _)| name.to_string()).collect()
}

/// Where pods that are led to the proxy go, and everybody else.
fn backends(world: &World) -> Vec<String> {
    let lines = world.services().into_iter().filter(|line| line.starts_with("10.96.0.20:80/TCP"));
    lines.filter_map(|line| line.split_whitespace().rev().find(|word| word.contains(":")).map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_pods_send_to_a_service_goes_to_the_proxy_while_the_object_is_there_and_holds_here() {
    let mut world = World::new().await.with_keys([("enable-envoy-config", "true")]);
    world.start_ready().await;
    let (back, front, taking) =
        (world.add("back", "back").await, world.add("front", "front").await, world.add("proxy", "proxy").await);
    world.api.apply(&service(&back.ip.to_string()));
    let served = proxy(&world.state().with_file_name("proxy").join("agent.sock"), "shop/proxy").await;
    let is_led = |world: &World| backends(world).iter().any(|backend| backend.contains(&taking.ip.to_string()));

    world.api.apply(&CONFIG.replace("spec:", "spec:\n  nodeSelector: {matchLabels: {elsewhere: \"yes\"}}"));
    settle().await;
    assert_eq!((names(&served, Kind::Route), is_led(&world)), (vec![], false), "it is for other nodes");

    world.api.apply(CONFIG);
    eventually("what it says", async || names(&served, Kind::Route).len() == 1).await;
    assert_eq!(names(&served, Kind::Route), ["CiliumEnvoyConfig shop/canary/l/0/all rule 0"]);
    assert_eq!(names(&served, Kind::Cluster), ["shop/web:80@CiliumEnvoyConfig shop/canary/shop/web"]);
    eventually("the client", async || names(&served, Kind::Client).contains(&front.ip.to_string())).await;
    eventually("the way to the proxy", async || is_led(&world)).await;

    world.api.apply(&CONFIG.replace("route: {cluster: shop/web}", "redirect: {strip_query: true}"));
    let problems = async || world.ask(Method::GET, "/v1/statedb/dump/envoy-config-problems", Value::Null).await.1;
    eventually("what is wrong", async || problems().await.to_string().contains("strip_query is not supported")).await;
    eventually("a refusal", async || names(&served, Kind::Route)[0].contains("refused")).await;
    assert!(is_led(&world), "nobody gets past it");

    world.api.delete("ciliumenvoyconfigs", "shop/canary");
    eventually("the Service as it was", async || !is_led(&world)).await;
    eventually("nothing", async || served.lock().iter().next().is_none()).await;
}
