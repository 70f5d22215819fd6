// SPDX-License-Identifier: Apache-2.0
//! The Secrets, against a real API server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../k8s/tests/common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;

use apiserver::ApiServer;
use certgen::Config;
use clap::Parser;
use k8s::k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s::kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

const DAY: Duration = Duration::from_secs(24 * 3600);

const CERTIFICATES: &str = "{certs: [
    {name: hubble-relay-client-certs, namespace: kube-system, commonName: b, usage: [client auth], validity: 8760h},
    {name: hubble-server-certs, namespace: kube-system, commonName: a, hosts: ['*.a.example'], usage: [server auth], validity: 8760h}]}";
const NAMES: [&str; 3] = ["cilium-ca", "hubble-server-certs", "hubble-relay-client-certs"];

fn config(flags: &[&str]) -> Config {
    let words = ["cilium-certgen", "--ca-secret-namespace=kube-system", "--config", CERTIFICATES];
    Config::parse_from(words.iter().chain(flags))
}

struct World {
    _server: ApiServer,
    client: k8s::Client,
    api: Api<Secret>,
}

impl World {
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let client = server.client().await;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "kube-system"}})).unwrap();
        // The API server may have made it itself.
        let _ = client.all::<Namespace>().create(&PostParams::default(), &namespace).await;
        let api = client.namespaced("kube-system");
        Self { _server: server, client, api }
    }

    async fn run(&self, flags: &[&str], after: Duration) -> Result<(), String> {
        let now = OffsetDateTime::now_utc() + after;
        certgen::run(&config(flags), &self.client, now).await.map_err(|error| format!("{error:#}"))
    }

    async fn part(&self, name: &str, key: &str) -> String {
        let secret = self.api.get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    async fn all(&self, key: &str) -> Vec<String> {
        let mut all = Vec::new();
        for name in NAMES {
            all.push(self.part(name, key).await);
        }
        all
    }

    async fn label(&self, name: &str, value: Value) {
        let labels = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": value}}});
        self.api.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    }
}

fn days_left(pem: &str) -> i64 {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let ends = pem.parse_x509().unwrap().validity().not_after.to_datetime();
    (ends - OffsetDateTime::now_utc()).whole_days()
}

#[tokio::test]
async fn certificates_are_made_and_renewed_by_an_authority_that_stays_until_it_would_end_before_them() {
    let world = World::new().await;
    let refused = world.run(&[], Duration::ZERO).await.unwrap_err();
    assert!(refused.contains("Secret kube-system/cilium-ca does not exist"), "{refused}");

    world.run(&["--ca-generate"], Duration::ZERO).await.unwrap();
    let first = world.all("ca.crt").await;
    assert!(first.iter().all(|text| *text == first[0]) && (1093..=1095).contains(&days_left(&first[0])), "{first:?}");
    let secret = world.api.get("hubble-server-certs").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let (leaf, key) = (world.part(NAMES[1], "tls.crt").await, world.part("cilium-ca", "ca.key").await);
    assert!((363..=365).contains(&days_left(&leaf)));

    // A second run: other certificates, the same authority.
    world.run(&["--ca-generate"], Duration::ZERO).await.unwrap();
    assert_eq!(world.all("ca.crt").await, first);
    assert_ne!(world.part(NAMES[1], "tls.crt").await, leaf);

    // Two and a half years later it would end before what it signs.
    let late = DAY * 900;
    world.run(&["--ca-generate"], late).await.unwrap();
    let renewed = world.all("ca.crt").await;
    assert!(renewed.iter().all(|text| *text == renewed[0]) && renewed[0] != first[0], "{renewed:?}");
    assert!(days_left(&renewed[0]) > 1990 && days_left(&world.part(NAMES[1], "tls.crt").await) > 1260);
    assert_eq!(world.part("cilium-ca", "ca.key").await, key, "the key stays");
}

#[tokio::test]
async fn an_authority_of_somebody_else_is_used_and_never_changed() {
    let world = World::new().await;
    world.run(&["--ca-generate"], Duration::ZERO).await.unwrap();
    world.label("cilium-ca", json!("somebody")).await;
    let given = world.part("cilium-ca", "ca.crt").await;
    for flags in [&["--ca-generate"][..], &[]] {
        world.run(flags, DAY * 900).await.unwrap();
        assert_eq!(world.part("cilium-ca", "ca.crt").await, given);
        let leaf = world.part(NAMES[1], "tls.crt").await;
        assert_eq!(days_left(&leaf), days_left(&given), "no longer than its authority");
        let ended = world.run(flags, DAY * 1100).await.unwrap_err();
        assert!(ended.contains("hubble-relay-client-certs: ca.crt: it ended on"), "{ended}");
    }
    // The chart's own: it takes what it finds there at the next upgrade.
    world.label("cilium-ca", json!("Helm")).await;
    world.run(&["--ca-generate"], DAY * 900).await.unwrap();
    assert_ne!(world.part("cilium-ca", "ca.crt").await, given);
}

#[tokio::test]
async fn a_secret_of_helms_is_left_alone_until_helm_has_removed_it() {
    let world = World::new().await;
    world.run(&["--ca-generate"], Duration::ZERO).await.unwrap();
    let (before, earlier) = (world.part("hubble-server-certs", "tls.crt").await, world.part(NAMES[2], "tls.crt").await);
    world.label("hubble-server-certs", json!("Helm")).await;
    let helm = async {
        apiserver::eventually("the certificate before it is made", || async {
            let made = world.part(NAMES[2], "tls.crt").await != earlier;
            made.then_some(()).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        // As many requests as the other would need for its own several times.
        for _ in 0..20 {
            assert_eq!(world.part("hubble-server-certs", "tls.crt").await, before);
        }
        world.api.delete("hubble-server-certs", &Default::default()).await.unwrap();
    };
    let (made, ()) = tokio::join!(world.run(&["--ca-generate"], Duration::ZERO), helm);
    made.unwrap();
    let secret = world.api.get("hubble-server-certs").await.unwrap();
    let labels = secret.metadata.labels.clone().unwrap();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "cilium-certgen");
    assert_ne!(world.part("hubble-server-certs", "tls.crt").await, before);
}
