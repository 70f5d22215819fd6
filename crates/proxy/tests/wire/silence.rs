// SPDX-License-Identifier: Apache-2.0
//! Backends that say nothing, and how long they may.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, read_until, status};
use crate::objects::*;
use crate::world::{World, free};
use l7::{BackendProtocol, Cluster, HttpForward, Object, RouteAction};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A listener whose peers may be silent for that long.
fn quiet(address: SocketAddr, backend: &Backend, idle: u64) -> Vec<Object> {
    let mut objects = simple(address, backend.address);
    let mut listener = http(address);
    listener.limits.idle = Duration::from_millis(idle);
    objects[0] = listener.into();
    objects
}

/// A backend that answers once it has read all of this, and some time after that.
async fn answering_late(end: &'static str, late: Duration) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        read_until(&mut stream, end).await;
        tokio::time::sleep(late).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_never_answers_is_504_without_a_time_out_of_the_route() {
    let (silent, good) = (Backend::silent().await, Backend::echo("good").await);
    // HTTP/2 is spoken, and then nothing said.
    let mute = Backend::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(request) = connection.accept().await {
            held.push(request);
        }
    })
    .await;
    for (backend, protocol) in [(&silent, BackendProtocol::Http1), (&mute, BackendProtocol::Http2)] {
        let (address, other) = (free(), free());
        let mut objects = quiet(address, backend, 300);
        objects[2] = Cluster { protocol, ..cluster("c") }.into();
        objects.push(http(other).into());
        objects.push(route("good", "/good", RouteAction::Forward(forward("good"))).into());
        objects.extend([cluster("good").into(), endpoints("good", &[good.address]).into()]);
        let world = World::of(objects).await;
        for (turn, body) in [(1, "GET / HTTP/1.1\r\n"), (2, "POST / HTTP/1.1\r\ncontent-length: 1\r\n")] {
            let mut client = connect(address).await;
            client.write_all(format!("{body}host: h\r\nconnection: close\r\n\r\nx").as_bytes()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert_eq!(status(&answer), 504, "{protocol:?} {body}: {answer}");
            let line =
                format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"silent\"}} {turn}");
            world.metric_is(&line).await;
        }
        assert_eq!(status(&get(other, "h", "/good", "").await), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_is_waited_for() {
    let (address, backend) = (free(), answering_late("end", Duration::ZERO).await);
    let _world = World::of(quiet(address, &backend, 1_000)).await;
    let mut client = connect(address).await;
    let head = "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 53\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..50 {
        client.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.write_all(b"end").await.unwrap();
    let answer = read_all(&mut client).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_is_its_clients_fault() {
    let (address, backend) = (free(), answering_late("end", Duration::ZERO).await);
    let _world = World::of(quiet(address, &backend, 800)).await;
    for begin in ["", "x"] {
        let mut client = connect(address).await;
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n{begin}");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(status(&answer), 408, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_says_how_long_it_waits_is_believed() {
    let long = Some(Duration::from_secs(60));
    for asked in [HttpForward { timeout: long, ..forward("c") }, HttpForward { attempt_timeout: long, ..forward("c") }]
    {
        let (address, backend) = (free(), answering_late("\r\n\r\n", Duration::from_millis(1_200)).await);
        let mut objects = quiet(address, &backend, 200);
        objects[1] = route("all", "/", RouteAction::Forward(asked)).into();
        let _world = World::of(objects).await;
        assert_eq!(status(&get(address, "h", "/", "").await), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_on_which_one_side_only_listens_goes_on() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.write_all(b"x").await;
        }
        let _ = stream.write_all(b"end").await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let _world = World::of(quiet(address, &backend, 1_000)).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let answer = read_until(&mut client, "end").await;
    assert!(answer.ends_with(&format!("{}end", "x".repeat(20))), "{answer}");
}
