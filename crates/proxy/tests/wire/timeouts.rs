// SPDX-License-Identifier: Apache-2.0
//! Routes that say how long a request and its answer may take, and what they say nothing of.

use crate::backend::Backend;
use crate::client::{connect, read_all, read_until, status};
use crate::http2::open;
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use http::Request;
use l7::{HttpForward, Object, Retry, RetryBudget, RouteAction};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const LIMIT: Option<Duration> = Some(Duration::from_millis(400));

fn limited(address: SocketAddr, backend: &Backend, forward: HttpForward) -> Vec<Object> {
    let mut objects = simple(address, backend.address);
    objects[1] = route("all", "/", RouteAction::Forward(forward)).into();
    objects
}

/// A line of the metrics: so many requests have taken too long.
fn late(address: SocketAddr, times: usize) -> String {
    format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"timeout\"}} {times}")
}

/// A backend whose answers begin at once and never end.
async fn endless(often: Duration) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = format!("400\r\n{}\r\n", "hello---".repeat(128));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            sleep(often).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_longer_than_its_route_allows_is_cut_off() {
    let backend = endless(Duration::from_millis(20)).await;
    for forward in
        [HttpForward { timeout: LIMIT, ..forward("c") }, HttpForward { attempt_timeout: LIMIT, ..forward("c") }]
    {
        let address = free();
        let world = World::of(limited(address, &backend, forward)).await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(status(&answer) == 200 && answer.contains("hello"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "it looks whole: {answer}");
        world.metric_is(&late(address, 1)).await;
        let request = Request::get("http://h/").body(()).unwrap();
        let (response, _) = open(address).await.ready().await.unwrap().send_request(request, true).unwrap();
        let mut body = timeout(DEADLINE, response).await.unwrap().unwrap().into_body();
        let end = async {
            while let Some(data) = body.data().await {
                if let Err(error) = data {
                    return error;
                }
            }
            panic!("it ends well");
        };
        assert!(timeout(DEADLINE, end).await.unwrap().is_reset());
        world.metric_is(&late(address, 2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_over_in_time_too() {
    let (address, backend) = (free(), endless(Duration::ZERO).await);
    let world = World::of(limited(address, &backend, HttpForward { timeout: LIMIT, ..forward("c") })).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    world.metric_is(&late(address, 1)).await;
    let request = Request::get("http://h/").body(()).unwrap();
    let mut sender = open(address).await.ready().await.unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let body = timeout(DEADLINE, response).await.unwrap().unwrap().into_body();
    world.metric_is(&late(address, 2)).await;
    drop((client, body, sender));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_takes_longer_than_its_route_allows_is_504() {
    let (address, kept, backend) = (free(), free(), Backend::echo("a").await);
    let budget = RetryBudget { percent: 100, interval: Duration::from_secs(10), least: 10 };
    let retry = Retry { statuses: Vec::new(), attempts: 1, backoff: Duration::ZERO, budget };
    for (address, retry) in [(address, None), (kept, Some(Box::new(retry)))] {
        let limited = limited(address, &backend, HttpForward { timeout: LIMIT, retry, ..forward("c") });
        let world = World::of(limited).await;
        let (mut reader, mut writer) = connect(address).await.into_split();
        writer.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5000\r\n\r\n").await.unwrap();
        let trickle = tokio::spawn(async move {
            while writer.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let answer = read_until(&mut reader, "\r\n\r\n").await;
        assert_eq!(status(&answer), 504, "{answer}");
        world.metric_is(&late(address, 1)).await;
        trickle.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_goes_on_after_the_answer_has_begun_is_cut_off_with_it() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        while stream.read(&mut [0; 64]).await.is_ok_and(|some| some > 0) {}
    })
    .await;
    let address = free();
    let world = World::of(limited(address, &backend, HttpForward { timeout: LIMIT, ..forward("c") })).await;
    let (mut reader, mut writer) = connect(address).await.into_split();
    writer.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5000\r\n\r\n").await.unwrap();
    let trickle = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (answer, ()) = timeout(DEADLINE, async { tokio::join!(read_all(&mut reader), trickle) }).await.unwrap();
    assert!(status(&answer) == 200 && answer.ends_with("hello"), "{answer}");
    world.metric_is(&late(address, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_is_upgraded_to_may_take_longer() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(LIMIT.unwrap() * 3).await;
        let _ = stream.write_all(b"late").await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let address = free();
    let limits = HttpForward { timeout: LIMIT, attempt_timeout: LIMIT, ..forward("c") };
    let _world = World::of(limited(address, &backend, limits)).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let answer = read_until(&mut client, "late").await;
    assert!(answer.ends_with("late"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_route_says_nothing_goes_on() {
    let (address, backend) = (free(), endless(Duration::from_millis(20)).await);
    let _world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let (mut read, mut block) = (0, [0; 1024]);
    let read_on = async {
        while read < 1000 {
            let some = client.read(&mut block).await.unwrap();
            assert_ne!(some, 0);
            read += some;
        }
    };
    timeout(DEADLINE, read_on).await.expect("it goes on");
}
