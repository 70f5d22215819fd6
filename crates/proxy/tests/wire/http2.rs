// SPDX-License-Identifier: Apache-2.0
//! Requests in HTTP/2, from clients and to backends.

use crate::backend::Backend;
use crate::client::{connect, get, status, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use l7::BackendProtocol;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::time::timeout;

type Sender = h2::client::SendRequest<Bytes>;

pub(crate) async fn open(address: SocketAddr) -> Sender {
    let (sender, connection) = h2::client::handshake(connect(address).await).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Body and trailers.
async fn read(response: Response<h2::RecvStream>) -> (String, Option<HeaderMap>) {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    (String::from_utf8(text).unwrap(), body.trailers().await.unwrap())
}

async fn ask(sender: &Sender, request: Request<()>) -> (u16, String) {
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let response = timeout(DEADLINE, response).await.unwrap().unwrap();
    (response.status().as_u16(), read(response).await.0)
}

fn request(path: &str) -> Request<()> {
    Request::get(format!("http://shop.example{path}")).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_in_clear_reaches_backends_in_either_version() {
    let (address, backend) = (free(), Backend::echo("a").await);
    for (protocol, version) in [(BackendProtocol::Auto, "HTTP/1.1"), (BackendProtocol::Http2, "HTTP/2.0")] {
        let mut objects = simple(address, backend.address);
        let mut spoken = cluster("c");
        spoken.protocol = protocol;
        objects[2] = spoken.into();
        let mut world = World::of(objects).await;
        let sender = open(address).await;
        let (code, text) = ask(&sender, request("/p?q")).await;
        assert_eq!(code, 200, "{text}");
        assert!(value(&text, "asked").unwrap().ends_with(version), "{text}");
        let host = if version == "HTTP/1.1" { value(&text, "got-host") } else { value(&text, "asked") };
        assert!(host.unwrap().contains("shop.example"), "{text}");
        // HTTP/1.1 comes in beside it.
        assert_eq!(status(&get(address, "shop.example", "/", "").await), 200);
        drop(sender);
        world.proxy.stop.cancel();
        world.proxy.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_a_time_share_a_connection_to_the_backend() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut spoken = cluster("c");
    spoken.protocol = BackendProtocol::Http2;
    objects[2] = spoken.into();
    let _world = World::of(objects).await;
    let sender = open(address).await;
    let asked = (0..90).map(|n| {
        let sender = sender.clone();
        tokio::spawn(async move { ask(&sender, request(&format!("/{n}"))).await })
    });
    for (n, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
        let (code, text) = answer.await.unwrap();
        assert!(code == 200 && value(&text, "asked").unwrap().contains(&format!("/{n} ")), "{text}");
    }
    assert_eq!((backend.requests(), backend.connections.load(SeqCst)), (90, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_its_trailers_while_both_sides_still_send() {
    let address = free();
    // Sends back each message as it comes, and then its trailers.
    let backend = Backend::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(response, false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    send.send_data(data, false).unwrap();
                }
                let trailers =
                    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
                send.send_trailers(trailers).unwrap();
            });
        }
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let mut sender = open(address).await.ready().await.unwrap();
    let request = Request::post("http://h/pkg.Service/Method").header("content-type", "application/grpc+proto");
    let (response, mut send) = sender.send_request(request.header("te", "trailers").body(()).unwrap(), false).unwrap();
    let response = timeout(DEADLINE, response).await.expect("headers come before the request has ended").unwrap();
    let mut body = response.into_body();
    for message in ["one", "two"] {
        send.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
        assert_eq!(timeout(DEADLINE, body.data()).await.unwrap().unwrap().unwrap(), message);
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(DEADLINE, body.data()).await.unwrap().is_none_or(|data| data.unwrap().is_empty()));
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_listens_need_not_speak() {
    let address = free();
    // Sends something now and then, and the client nothing but its beginning.
    let backend = Backend::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(response, false).unwrap();
                let _silent = request.into_body();
                for _ in 0..10 {
                    send.send_data(Bytes::from_static(b"x"), false).unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                send.send_data(Bytes::from_static(b"end"), true).unwrap();
            });
        }
    })
    .await;
    let mut objects = simple(address, backend.address);
    let mut impatient = http(address);
    impatient.limits.idle = Duration::from_millis(400);
    objects[0] = impatient.into();
    let _world = World::of(objects).await;
    let mut sender = open(address).await.ready().await.unwrap();
    let request = Request::post("http://h/pkg.Service/Watch").header("content-type", "application/grpc");
    let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    send.send_data(Bytes::from_static(b"?"), false).unwrap();
    let response = timeout(DEADLINE, response).await.unwrap().unwrap();
    assert_eq!(timeout(DEADLINE, read(response)).await.unwrap().0, "xxxxxxxxxxend");
    drop(send);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_refused_and_so_is_a_host_that_contradicts_itself() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let sender = open(address).await;
    let connect = Request::connect("shop.example:443").body(()).unwrap();
    assert_eq!(ask(&sender, connect).await.0, 405);
    let mut two = request("/");
    two.headers_mut().insert("host", "other.example".parse().unwrap());
    // What routes is what the backend is told.
    let (code, text) = ask(&sender, two).await;
    assert_eq!((code, value(&text, "got-host")), (200, Some("shop.example")));
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_to_end_tells_http2_clients_so_and_answers_what_is_under_way() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let mut sender = open(address).await.ready().await.unwrap();
    let post = Request::post("http://h/").header("content-length", "4").body(()).unwrap();
    let (response, mut send) = sender.send_request(post, false).unwrap();
    send.send_data(Bytes::from_static(b"bo"), false).unwrap();
    timeout(DEADLINE, async {
        while backend.requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    world.proxy.stop.cancel();
    // A client that has seen GOAWAY opens no further stream.
    timeout(DEADLINE, async {
        while let Ok(ready) = sender.clone().ready().await {
            sender = ready;
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the client is told");
    send.send_data(Bytes::from_static(b"dy"), true).unwrap();
    let response = timeout(DEADLINE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(value(&read(response).await.0, "length"), Some("4"));
    world.proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_that_come_in_crumbs_are_one_header_for_whoever_knows_no_other() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let crumbs = Request::get("http://shop.example/").header("cookie", "a=1").header("cookie", "b=2; c=3");
    let (code, text) = ask(&open(address).await, crumbs.body(()).unwrap()).await;
    let cookies: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("got-cookie: ")).collect();
    assert_eq!((code, cookies), (200, vec!["a=1; b=2; c=3"]));
}
