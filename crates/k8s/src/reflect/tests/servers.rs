// SPDX-License-Identifier: Apache-2.0
//! Whole watches, on servers that answer and are of no use.

use super::{Value, ingest};
use crate::Client;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
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

/// A list with that object.
fn list_of(name: &str) -> String {
    let object = serde_json::json!({"metadata": {"name": name, "resourceVersion": "1"}, "data": {"value": "1"}});
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": [object]})
        .to_string()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_has_expired_is_followed_by_a_list_that_takes_the_place_of_the_first() {
    let gone = || format!(r#"{{"type":"ERROR","object":{GONE}}}"#) + "\n";
    let expired = AtomicUsize::new(0);
    let watch = move || if expired.fetch_add(1, Ordering::SeqCst) == 0 { gone() } else { String::new() };
    let (client, asked) = client(|nth| (200, list_of(if nth == 0 { "before" } else { "after" })), watch);
    let (writer, reader) = statedb::table("values");
    let reflecting = client.reflect(client.all::<ConfigMap>(), writer, ingest);
    // One that was open for long is no reason to wait.
    let _ = tokio::time::timeout(Duration::from_secs(2), reflecting).await.unwrap_err();
    assert_eq!(asked[0].load(Ordering::SeqCst), 2);
    assert_eq!(reader.snapshot().iter().map(|row| row.key.clone()).collect::<Vec<_>>(), ["after"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_every_list_is_asked_ever_more_seldom_and_not_by_all_at_once() {
    let times = |code: u16| async move {
        let at = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (noted, begun) = (at.clone(), tokio::time::Instant::now());
        let lists = move |_| {
            noted.lock().push(begun.elapsed());
            (code, GONE.replace("410", &code.to_string()))
        };
        an_hour(&client(lists, String::new).0).await;
        let at = at.lock();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    for code in [403, 422, 429, 500, 503] {
        let (one, other) = (times(code).await, times(code).await);
        assert!((30..90).contains(&one.len()), "{code}: {} lists in an hour", one.len());
        let minute = Duration::from_secs(60);
        assert!(
            one.iter().rev().take(25).all(|wait| *wait >= minute && *wait <= 2 * minute + minute / 60),
            "{code}: {one:?}"
        );
        assert_ne!(one, other, "{code}");
    }
}

/// A body of one part, after which it ends or stands still.
struct Part {
    part: Option<Bytes>,
    ends: bool,
}

impl hyper::body::Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.part.take() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stands_still_in_the_middle_is_given_up_and_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let nth = counted.fetch_add(usize::from(!crate::client::is_watch(request.uri())), Ordering::SeqCst);
        let (text, ends) = if nth < 2 { (list_of("half"), false) } else { (list_of("whole"), true) };
        let shown = if ends { text.len() } else { text.len() / 2 };
        let body = Part { part: Some(text[..shown].to_owned().into()), ends };
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let client = Client::over(kube::Client::new(service, "default"), &crate::ClientConfig::default());
    let (writer, reader) = statedb::table("values");
    let begun = tokio::time::Instant::now();
    let _task = tokio::spawn(client.reflect(client.all::<ConfigMap>(), writer, ingest));
    reader.initialized().await;
    assert_eq!(reader.snapshot().iter().map(|row| row.key.clone()).collect::<Vec<_>>(), ["whole"]);
    assert!(begun.elapsed() < Duration::from_secs(70), "twice the pause that a body may make: {:?}", begun.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}
