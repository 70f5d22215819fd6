// SPDX-License-Identifier: Apache-2.0
//! Whole watches, on servers that answer and are of no use.

use super::{Value, ingest};
use crate::Client;
use hyper::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const LIST: &str = r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"1"},"items":[]}"#;
const GONE: &str =
    r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired","message":"old"}"#;
/// More requests than anybody should make here. Further ones are not answered, so that a test that fails also ends.
const TOO_MANY: usize = 10_000;

/// A client of a server that answers to the nth list and the nth watch as told.
fn client(
    lists: impl Fn(usize) -> (u16, String) + Send + Sync + 'static,
    watch: impl Fn() -> String + Send + Sync + 'static,
) -> (Client, Arc<[AtomicUsize; 2]>) {
    let (asked, script) = (Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]), Arc::new((lists, watch)));
    let counts = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (counts, script) = (counts.clone(), script.clone());
        async move {
            let is_watch = crate::client::is_watch(request.uri());
            let nth = counts[usize::from(is_watch)].fetch_add(1, Ordering::SeqCst);
            if nth >= TOO_MANY {
                return std::future::pending().await;
            }
            let (code, body) = if is_watch { (200, (script.1)()) } else { (script.0)(nth) };
            Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap())
        }
    });
    (kube::Client::new(service, "default").into(), asked)
}

/// Follows the server for an hour.
async fn an_hour(client: &Client) -> statedb::Reader<Value> {
    let (writer, reader) = statedb::table("values");
    let reflecting = client.reflect(client.all::<ConfigMap>(), writer, ingest);
    let _ = tokio::time::timeout(Duration::from_secs(3600), reflecting).await.unwrap_err();
    reader
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() {
    let (client, asked) = client(|_| (200, LIST.to_owned()), String::new);
    assert!(an_hour(&client).await.snapshot().initialized());
    let watches = asked[1].load(Ordering::SeqCst);
    assert!((100..300).contains(&watches), "{watches} watches in an hour");
    assert_eq!(asked[0].load(Ordering::SeqCst), 1, "the list is still good");
}

#[tokio::test(start_paused = true)]
async fn a_table_whose_watch_expired_and_whose_list_is_gone_for_ever_is_told_of() {
    let gone = || {
        format!(
            "{}\n",
            serde_json::json!({"type": "ERROR", "object": serde_json::from_str::<serde_json::Value>(GONE).unwrap()})
        )
    };
    let lists = |nth| if nth == 0 { (200, LIST.to_owned()) } else { (410, GONE.to_owned()) };
    let (client, asked) = client(lists, gone);
    let (writer, _reader) = statedb::table("values");
    let _task = tokio::spawn(client.reflect(client.all::<ConfigMap>(), writer, ingest));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(asked[0].load(Ordering::SeqCst) > 1);
    let failing = client.failing_watches(Duration::from_secs(3000));
    assert_eq!(failing.iter().map(|failure| failure.kind.as_str()).collect::<Vec<_>>(), ["ConfigMap"]);
}
