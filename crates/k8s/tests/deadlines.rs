// SPDX-License-Identifier: Apache-2.0
//! No request waits for ever, whatever an API server leaves unanswered, and a table is followed again once it answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "common/apiserver.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod apiserver;
#[path = "common/scripted.rs"]
mod scripted;

use apiserver::{DEADLINE, eventually};
use k8s::k8s_openapi::api::core::v1::ConfigMap;
use k8s::kube::api::{Api, ObjectMeta, PostParams};
use parking_lot::Mutex;
use scripted::{Answer, LIMITS, config, empty_list, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

#[derive(Clone, Debug, PartialEq)]
struct Name(String);

impl statedb::Row for Name {
    type Key = String;
    fn key(&self) -> String {
        self.0.clone()
    }
}

fn ingest(object: &ConfigMap) -> Option<Name> {
    object.metadata.name.clone().map(Name)
}

/// Each way to leave a request without a whole answer.
fn unfinished() -> [Answer; 3] {
    [Answer::Silence, Answer::Head, Answer::Part("{\"kind\":".into())]
}

async fn client(port: u16) -> (k8s::Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (k8s::Client::connect(&config(port, &folder)).await.unwrap(), folder)
}

#[tokio::test]
async fn a_request_that_is_not_answered_to_its_end_fails() {
    for answer in unfinished() {
        let port = serve(move |_| answer.clone()).await;
        let (client, _folder) = client(port).await;
        let api: Api<ConfigMap> = client.namespaced("default");
        let metadata = ObjectMeta { name: Some("x".into()), ..ObjectMeta::default() };
        let object = ConfigMap { metadata, ..ConfigMap::default() };
        timeout(DEADLINE, api.create(&PostParams::default(), &object)).await.unwrap().unwrap_err();
        timeout(DEADLINE, api.get("x")).await.unwrap().unwrap_err();
        timeout(DEADLINE, api.list(&Default::default())).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn a_server_that_takes_connections_and_makes_no_tls_is_given_up() {
    let port = serve(|_| Answer::Silence).await;
    let folder = tempfile::tempdir().unwrap();
    let servers = vec![format!("https://127.0.0.1:{port}")];
    // Long enough for an answer that it is not this limit that ends the wait.
    let limits = k8s::Limits { answer: 2 * DEADLINE, ..LIMITS };
    let config = k8s::ClientConfig { api_servers: servers, limits, ..config(port, &folder) };
    let client = k8s::Client::connect(&config).await.unwrap();
    let error = timeout(DEADLINE, client.kube().apiserver_version()).await.unwrap().unwrap_err();
    assert!(k8s::chain(&error).contains("deadline has elapsed"), "{}", k8s::chain(&error));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_does_not_answer() {
    let (silent, good) = (serve(|_| Answer::Silence).await, serve(|_| Answer::Whole(200, empty_list())).await);
    let folder = tempfile::tempdir().unwrap();
    let servers = vec![format!("http://127.0.0.1:{silent}"), format!("http://127.0.0.1:{good}")];
    let config = k8s::ClientConfig { api_servers: servers, ..config(silent, &folder) };
    let client = k8s::Client::connect(&config).await.unwrap();
    client.all::<ConfigMap>().list(&Default::default()).await.unwrap();
}

/// Leaves the first requests of a kind unfinished; then lists are empty, and watches stay open until their pause is over.
fn after_some(unfinished: &Answer, watches: bool, some: usize) -> impl Fn(&str) -> Answer + Send + Sync + use<> {
    let (unfinished, asked) = (unfinished.clone(), Arc::new(AtomicUsize::new(0)));
    move |line| {
        let watch = line.contains("watch=true");
        match (watch == watches && asked.fetch_add(1, Ordering::SeqCst) < some, watch) {
            (true, _) => unfinished.clone(),
            (false, true) => Answer::Part("\n".into()),
            (false, false) => Answer::Whole(200, empty_list()),
        }
    }
}

#[tokio::test]
async fn a_table_is_followed_again_after_lists_and_watches_that_were_not_answered() {
    for answer in unfinished() {
        for watches in [false, true] {
            let port = serve(after_some(&answer, watches, 2)).await;
            let (client, _folder) = client(port).await;
            let (writer, reader) = statedb::table("config-maps");
            let task = tokio::spawn(client.reflect(client.all::<ConfigMap>(), writer, ingest));
            timeout(DEADLINE, reader.initialized()).await.unwrap();
            eventually("the watch works", || async {
                let failing = client.failing_watches(Duration::ZERO);
                if failing.is_empty() { Ok(()) } else { Err(format!("{answer:?}: {failing:?}")) }
            })
            .await;
            task.abort();
        }
    }
}

#[tokio::test]
async fn a_watch_that_never_works_is_told_of_with_its_cause() {
    let port = serve(|_| Answer::Silence).await;
    let (client, _folder) = client(port).await;
    let (writer, reader) = statedb::table("config-maps");
    let _task = tokio::spawn(client.reflect(client.all::<ConfigMap>(), writer, ingest));
    eventually("the failure is told of", || async {
        let failing = client.failing_watches(Duration::from_secs(1));
        match failing.as_slice() {
            [one] if one.kind == "ConfigMap" && one.message.contains("no answer within") && !one.refused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!reader.snapshot().initialized());
}

#[tokio::test]
async fn a_table_that_must_not_be_old_begins_with_a_list_that_is_not_from_a_cache() {
    let lists = Arc::new(Mutex::new(Vec::new()));
    let noted = lists.clone();
    let port = serve(move |line| {
        if line.contains("watch=true") {
            return Answer::Part("\n".into());
        }
        noted.lock().push(line.contains("resourceVersion"));
        Answer::Whole(200, empty_list())
    })
    .await;
    let (client, _folder) = client(port).await;
    let tables = [statedb::table("any"), statedb::table("newest")];
    let [(any, any_reader), (newest, newest_reader)] = tables;
    let _any = tokio::spawn(client.reflect(client.all::<ConfigMap>(), any, ingest));
    timeout(DEADLINE, any_reader.initialized()).await.unwrap();
    let _newest = tokio::spawn(client.reflect_newest(client.all::<ConfigMap>(), newest, ingest));
    timeout(DEADLINE, newest_reader.initialized()).await.unwrap();
    assert_eq!(*lists.lock(), [true, false]);
}
