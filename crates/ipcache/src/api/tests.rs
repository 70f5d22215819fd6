// SPDX-License-Identifier: Apache-2.0

use super::*;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use model::{IdentityId, MeshPod, PodName};
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn every_entry_is_listed_with_its_node_its_source_and_its_pod() {
    let entry = |prefix: &str, source| IpEntry {
        prefix: prefix.parse().unwrap(),
        identity: IdentityId(300),
        tunnel: None,
        host: None,
        node_address: false,
        no_masquerade: false,
        source,
        pod: None,
    };
    let pod = MeshPod { cluster: "blue".into(), pod: PodName::new("shop", "cart") };
    let host = Some([192, 168, 77, 12].into());
    let (mut writer, reader) = statedb::table("ipcache");
    writer.replace([
        IpEntry { host, pod: Some(pod), ..entry("10.0.1.5/32", IpSource::CustomResource) },
        entry("10.96.0.1/32", IpSource::KubeApiserver),
        entry("192.0.2.0/24", IpSource::Generated),
        entry("192.168.77.11/32", IpSource::Local),
    ]);
    writer.commit();

    let request = Request::get("/v1/ip").body(Body::empty()).unwrap();
    let body = routes(reader).oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let listed: Value = serde_json::from_slice(&body).unwrap();
    let line = |cidr: &str, source: &str| json!({"cidr": cidr, "identity": 300, "metadata": {"source": source}});
    let pod = json!({"source": "custom-resource", "namespace": "shop", "name": "cart"});
    let expected = json!([
        {"cidr": "10.0.1.5/32", "identity": 300, "hostIP": "192.168.77.12", "metadata": pod},
        line("10.96.0.1/32", "kube-apiserver"),
        line("192.0.2.0/24", "generated"),
        line("192.168.77.11/32", "local"),
    ]);
    assert_eq!(listed, expected);
}
