// SPDX-License-Identifier: Apache-2.0
//! Tables follow a real API server through cuts, restarts and expired versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;
#[path = "common/link.rs"]
mod link;

use apiserver::{ApiServer, DEADLINE, eventually};
use futures::TryStreamExt;
use k8s::k8s_openapi::api::core::v1::ConfigMap;
use k8s::kube::Error;
use k8s::kube::api::{
    Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use k8s::kube::runtime::watcher;
use link::Link;
use statedb::Reader;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    name: String,
    value: String,
}

impl statedb::Row for Entry {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

fn ingest(object: &ConfigMap) -> Option<Entry> {
    let value = object.data.as_ref()?.get("value")?.clone();
    Some(Entry { name: object.metadata.name.clone()?, value })
}

async fn put(api: &Api<ConfigMap>, name: &str, value: &str) {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        labels: Some(BTreeMap::from([("kind".to_owned(), "wanted".to_owned())])),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([("value".to_owned(), value.to_owned())]);
    let object = ConfigMap { metadata, data: Some(data.clone()), ..ConfigMap::default() };
    if api.create(&PostParams::default(), &object).await.is_err() {
        let patch = serde_json::json!({"data": data});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

fn rows(reader: &Reader<Entry>) -> Vec<String> {
    reader.snapshot().iter().map(|row| format!("{}={}", row.name, row.value)).collect()
}

async fn becomes(reader: &Reader<Entry>, expected: &[&str]) {
    eventually("the table holds what the API server has", || async {
        let rows = rows(reader);
        if rows == expected { Ok(()) } else { Err(format!("{rows:?} instead of {expected:?}")) }
    })
    .await;
}

/// Whether a watch from that version is answered with 410 Gone.
async fn is_gone(api: &Api<ConfigMap>, version: &str) -> bool {
    match api.watch(&WatchParams::default().timeout(5), version).await {
        Err(Error::Api(status)) => status.code == 410,
        Err(_) => false,
        Ok(stream) => {
            let mut stream = std::pin::pin!(stream);
            matches!(stream.try_next().await, Ok(Some(WatchEvent::Error(status))) if status.code == 410)
        }
    }
}

#[tokio::test]
async fn a_table_follows_the_api_server_through_cuts_restarts_and_expired_versions() {
    let mut server = ApiServer::start().await;
    let link = Link::to(server.port()).await;
    let api: Api<ConfigMap> = server.client().await.namespaced("default");
    put(&api, "a", "1").await;
    put(&api, "b", "1").await;

    let far = server.client_through(link.port()).await;
    let (writer, reader) = statedb::table::<Entry>("entries");
    let watch = watcher::Config::default().labels("kind=wanted").page_size(1);
    let reflector = tokio::spawn(far.reflect_with(far.namespaced("default"), watch, writer, ingest));
    reader.initialized().await;
    assert_eq!(rows(&reader), ["a=1", "b=1"]);

    // The watch brings changes.
    put(&api, "c", "1").await;
    api.delete("b", &DeleteParams::default()).await.unwrap();
    becomes(&reader, &["a=1", "c=1"]).await;

    // A cut hides what happens, and what was known stays; afterwards the watch goes on where it was.
    link.cut();
    put(&api, "a", "2").await;
    assert_eq!(rows(&reader), ["a=1", "c=1"]);
    link.mend();
    becomes(&reader, &["a=2", "c=1"]).await;

    // Away for long: the version from which to go on is forgotten everywhere. The deletion is seen all the same.
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    link.cut();
    api.delete("c", &DeleteParams::default()).await.unwrap();
    put(&api, "d", "1").await;
    server.compact().await;
    server.stop();
    server.resume().await;
    server.compact().await;
    assert_eq!(rows(&reader), ["a=2", "c=1"]);
    assert!(is_gone(&api, &version).await, "version {version} is still there, so this tests nothing");
    link.mend();
    becomes(&reader, &["a=2", "d=1"]).await;

    // The server itself goes and comes back.
    server.stop();
    server.resume().await;
    put(&api, "e", "1").await;
    becomes(&reader, &["a=2", "d=1", "e=1"]).await;
    assert!(reader.snapshot().initialized());
    reflector.abort();
}

/// A table of its own of the same objects.
async fn another(client: &k8s::Client) -> Reader<Entry> {
    let (writer, reader) = statedb::table::<Entry>("entries");
    tokio::spawn(client.reflect(client.namespaced("default"), writer, ingest));
    reader.initialized().await;
    reader
}

#[tokio::test]
async fn watches_share_a_connection_and_one_that_falls_silent_is_replaced() {
    let server = ApiServer::start().await;
    let link = Link::to(server.port()).await;
    let api: Api<ConfigMap> = server.client().await.namespaced("default");
    let (silence, probe) = (Duration::from_millis(500), Duration::from_millis(500));
    // No other limit would end the wait in time.
    let long = 2 * DEADLINE;
    let limits = k8s::Limits { silence, probe, answer: long, pause: long, watch_pause: long, ..k8s::Limits::default() };
    let config = k8s::ClientConfig { limits, ..server.config(link.port(), "admin") };
    let far = k8s::Client::connect(&config).await.unwrap();
    let mut tables = Vec::new();
    for _ in 0..13 {
        tables.push(another(&far).await);
    }
    put(&api, "a", "1").await;
    for table in &tables {
        becomes(table, &["a=1"]).await;
    }
    // Two were perhaps begun at once before it was known that one can be shared.
    assert!(link.taken() <= 2, "{} connections", link.taken());

    link.silence();
    put(&api, "a", "2").await;
    for table in &tables {
        becomes(table, &["a=2"]).await;
    }
}
