// SPDX-License-Identifier: Apache-2.0
//! Backends that mean harm. Their clients are answered in time, and nobody else notices.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, status};
use crate::floods::frame;
use crate::http2::open;
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use http::Request;
use l7::{BackendProtocol, Cluster, RouteAction};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A listener with an evil backend and, below `/good`, a good one.
fn beside_a_good_one(
    address: SocketAddr,
    evil: &Backend,
    good: &Backend,
    protocol: BackendProtocol,
) -> Vec<l7::Object> {
    let mut objects = simple(address, evil.address);
    let mut impatient = http(address);
    impatient.limits.idle = Duration::from_millis(1_000);
    objects[0] = impatient.into();
    objects[2] = Cluster { protocol, ..cluster("c") }.into();
    objects.push(route("good", "/good", RouteAction::Forward(forward("good"))).into());
    objects.extend([cluster("good").into(), endpoints("good", &[good.address]).into()]);
    objects
}

async fn asked(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
}

/// Ends a connection as by a machine that has forgotten it.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_reset_in_its_middle_is_not_taken_for_whole() {
    for head in ["content-length: 100\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let backend = Backend::raw(move |mut stream, requests| async move {
            asked(&mut stream).await;
            requests.fetch_add(1, SeqCst);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await;
            // Once the beginning is on its way.
            tokio::time::sleep(Duration::from_millis(200)).await;
            reset(stream);
        })
        .await;
        let (address, good) = (free(), Backend::echo("good").await);
        let world = World::of(beside_a_good_one(address, &backend, &good, BackendProtocol::Http1)).await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
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
        // What has reached the client is not asked for again.
        assert_eq!(backend.requests(), 2);
        assert_eq!(status(&get(address, "h", "/good", "").await), 200);
        let log = async {
            let path = world.folder.path().join("access.log");
            while std::fs::read_to_string(&path).unwrap().matches("\"reason\":\"answer-cut-off\"").count() < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, log).await.expect("the log tells");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_announce_others_for_ever_end() {
    for head in ["103 Early Hints", "100 Continue"] {
        let one = format!("HTTP/1.1 {head}\r\nlink: {}\r\n\r\n", "y".repeat(500));
        let evil = Backend::raw(move |mut stream, _| {
            let many = one.repeat(100);
            async move {
                asked(&mut stream).await;
                while stream.write_all(many.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let (address, good) = (free(), Backend::echo("good").await);
        let mut objects = beside_a_good_one(address, &evil, &good, BackendProtocol::Http1);
        objects[0] = http(address).into();
        let world = World::of(objects).await;
        let held: Vec<_> = (0..4).map(|_| tokio::spawn(async move { get(address, "h", "/", "").await })).collect();
        for _ in 0..20 {
            assert_eq!(status(&get(address, "h", "/good", "").await), 200);
        }
        for answer in held {
            assert_eq!(status(&answer.await.unwrap()), 502);
        }
        let line = format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"garbled\"}} 4");
        world.metric_is(&line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_byte_by_byte_and_never_ends_is_504() {
    let evil = Backend::raw(|mut stream, _| async move {
        asked(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let (address, good) = (free(), Backend::echo("good").await);
    let _world = World::of(beside_a_good_one(address, &evil, &good, BackendProtocol::Http1)).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 504);
    assert_eq!(status(&get(address, "h", "/good", "").await), 200);
}

/// What a backend in HTTP/2 answers the first request with, again and again if it is said twice.
async fn in_http2(settings: &'static [u8], first: Vec<u8>, again: Vec<u8>) -> Backend {
    Backend::raw(move |mut stream, requests| {
        let (first, again) = (first.clone(), again.clone());
        async move {
            let _ = stream.write_all(&frame(4, 0, 0, settings)).await;
            asked(&mut stream).await;
            requests.fetch_add(1, SeqCst);
            let _ = stream.write_all(&first).await;
            while !again.is_empty() && stream.write_all(&again).await.is_ok() {}
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_http2_that_mean_harm_are_502_or_504() {
    // `:status: 200`, by HPACK's static table; a header that is not to be known again; one that is, and its number.
    let (ok, literal) = ([0x88], [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat());
    let large = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &vec![b'y'; 3000]].concat();
    let bomb = [&ok[..], &large, &[0xbe; 10_000]].concat();
    for (what, settings, first, again) in [
        ("headers without end", &[][..], frame(1, 0, 1, &ok), frame(9, 0, 1, &literal.repeat(10))),
        ("empty headers without end", &[], frame(1, 0, 1, &ok), frame(9, 0, 1, &[]).repeat(100)),
        ("a bomb", &[], frame(1, 5, 1, &bomb), Vec::new()),
        ("settings", &[], Vec::new(), frame(4, 0, 0, &[]).repeat(1000)),
        ("pings", &[], Vec::new(), frame(6, 0, 0, &[0; 8]).repeat(1000)),
        ("resets", &[], frame(3, 0, 1, &[0, 0, 0, 2]), Vec::new()),
        ("an answer to nothing", &[], frame(1, 5, 3, &ok), Vec::new()),
        ("a status that is none", &[], frame(1, 5, 1, &[0x08, 3, b'9', b'9', b'x']), Vec::new()),
        ("two lengths", &[], frame(1, 4, 1, &[0x88, 0x5c, 1, b'5', 0x5c, 1, b'6']), Vec::new()),
        ("no room for streams", &[0, 3, 0, 0, 0, 0], Vec::new(), Vec::new()),
        ("that it goes on, for ever", &[], Vec::new(), frame(1, 4, 1, &[0x08, 3, b'1', b'0', b'3']).repeat(100)),
        ("garbage", &[], vec![0xff; 4096], Vec::new()),
    ] {
        let (address, good) = (free(), Backend::echo("good").await);
        let evil = in_http2(settings, first, again).await;
        let world = World::of(beside_a_good_one(address, &evil, &good, BackendProtocol::Http2)).await;
        for _ in 0..2 {
            let answer = get(address, "h", "/", "").await;
            assert!(matches!(status(&answer), 502..=504), "{what}: {answer}");
            assert_eq!(status(&get(address, "h", "/good", "").await), 200, "{what}");
        }
        drop(world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_http2_that_is_reset_is_not_taken_for_whole() {
    for end in [frame(3, 0, 1, &[0, 0, 0, 2]), frame(0, 1, 1, b"short"), vec![0xff; 64]] {
        // `content-length: 100`, and less than that.
        let head = frame(1, 4, 1, &[&[0x88, 0x5c, 3][..], b"100"].concat());
        let evil = in_http2(&[], [head, frame(0, 0, 1, b"hello"), end].concat(), Vec::new()).await;
        let (address, good) = (free(), Backend::echo("good").await);
        let _world = World::of(beside_a_good_one(address, &evil, &good, BackendProtocol::Http2)).await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer = read_all(&mut client).await;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(status(&answer) == 502 || body.len() < 100, "{answer}");
        assert_eq!(status(&get(address, "h", "/good", "").await), 200);
    }
}
