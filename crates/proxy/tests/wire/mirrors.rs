// SPDX-License-Identifier: Apache-2.0
//! Copies of requests: what mirrors get, and what they cannot hold up.

use crate::backend::Backend;
use crate::client::{connect, read_all, read_until, status, text, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{HttpForward, Mirror, RouteAction, Share};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn with(address: SocketAddr, backend: &Backend, forward: HttpForward) -> Vec<l7::Object> {
    let mut objects = simple(address, backend.address);
    objects[1] = route("r", "/", RouteAction::Forward(forward)).into();
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_holds_so_many_copies_and_no_more() {
    let (address, main, dead) = (free(), Backend::echo("main").await, Backend::silent().await);
    let mirrors = vec![Mirror { cluster: "dead".into(), share: Share::ALL }];
    let mut objects = with(address, &main, HttpForward { mirrors, ..forward("c") });
    objects.extend([cluster("dead").into(), endpoints("dead", &[dead.address]).into()]);
    let world = World::of(objects).await;
    let mut client = connect(address).await;
    for _ in 0..300 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_until(&mut client, "length: 0\n").await), 200);
    }
    world.metric_is("cilium_proxy_mirrored_total 256").await;
    world.metric_is("cilium_proxy_clusters_overloaded_total 44").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_get_their_share_with_the_body_and_nobody_waits_for_them() {
    let (address, main, copy, none, dead) = (
        free(),
        Backend::echo("main").await,
        Backend::echo("copy").await,
        Backend::echo("none").await,
        Backend::silent().await,
    );
    let mirror =
        |cluster: &str, numerator| Mirror { cluster: cluster.into(), share: Share { numerator, denominator: 100 } };
    let mirrors = vec![mirror("copy", 100), mirror("none", 0), mirror("dead", 100), mirror("nowhere", 100)];
    let mut objects = with(address, &main, HttpForward { mirrors, ..forward("c") });
    for (name, backend) in [("copy", &copy), ("none", &none), ("dead", &dead)] {
        objects.push(cluster(name).into());
        objects.push(endpoints(name, &[backend.address]).into());
    }
    let world = World::of(objects).await;
    let body = "x".repeat(50_000);
    for framing in [
        format!("content-length: {}\r\n\r\n{body}", body.len()),
        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ] {
        let answer = text(address, &format!("POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{framing}")).await;
        assert_eq!((value(&answer, "backend"), value(&answer, "length")), (Some("main"), Some("50000")));
    }
    tokio::time::timeout(DEADLINE, async {
        while copy.requests() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(none.requests(), 0);
    world.metric_is("cilium_proxy_mirrored_total 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_is_given_up_and_counted() {
    let (address, main, dead) = (free(), Backend::echo("main").await, Backend::silent().await);
    let mirrors = vec![Mirror { cluster: "dead".into(), share: Share::ALL }];
    let mut objects = with(address, &main, HttpForward { mirrors, ..forward("c") });
    let mut impatient = http(address);
    impatient.limits.idle = Duration::from_millis(500);
    objects[0] = impatient.into();
    objects.extend([cluster("dead").into(), endpoints("dead", &[dead.address]).into()]);
    let world = World::of(objects).await;
    // More than there may be at a time, in the end.
    for turn in 1..=2 {
        for _ in 0..200 {
            let answer = text(address, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
            assert_eq!(status(&answer), 200);
        }
        world.metric_is(&format!("cilium_proxy_mirrors_lost_total {}", 200 * turn)).await;
    }
    world.metric_is("cilium_proxy_mirrored_total 400").await;
    world.metric_is("cilium_proxy_clusters_overloaded_total 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_not_kept_for_a_mirror_that_takes_nothing() {
    const SIZE: usize = 64 << 20;
    let (address, main, dead) = (free(), Backend::echo("main").await, Backend::silent().await);
    let mirrors = vec![Mirror { cluster: "dead".into(), share: Share::ALL }];
    let mut objects = with(address, &main, HttpForward { mirrors, ..forward("c") });
    objects.extend([cluster("dead").into(), endpoints("dead", &[dead.address]).into()]);
    let world = World::of(objects).await;
    let mut client = connect(address).await;
    let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let send = async {
        for _ in 0..SIZE >> 16 {
            client.write_all(&[b'x'; 1 << 16]).await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, send).await.expect("nobody waits for the mirror");
    let answer = read_all(&mut client).await;
    assert_eq!(value(&answer, "length"), Some(&*SIZE.to_string()), "{answer}");
    world.metric_is("cilium_proxy_mirrored_total 1").await;
    // Long before it would have been given up.
    world.metric_is("cilium_proxy_mirrors_lost_total 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_answers_is_not_lost_whatever_it_answers() {
    let (address, main) = (free(), Backend::echo("main").await);
    let (copy, reset) = (Backend::echo("copy").await, Backend::writing(Vec::new()).await);
    let mirror = |name: &str| Mirror { cluster: name.into(), share: Share::ALL };
    let mirrors = vec![mirror("copy"), mirror("reset"), mirror("empty")];
    let mut objects = with(address, &main, HttpForward { mirrors, ..forward("c") });
    for (name, backend) in [("copy", Some(&copy)), ("reset", Some(&reset)), ("empty", None)] {
        objects.push(cluster(name).into());
        objects.extend(backend.map(|backend| endpoints(name, &[backend.address]).into()));
    }
    let world = World::of(objects).await;
    for path in ["/", "/status/503"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        assert_ne!(status(&text(address, &request).await), 502);
    }
    world.metric_is("cilium_proxy_mirrored_total 6").await;
    world.metric_is("cilium_proxy_mirrors_lost_total 4").await;
}
