// SPDX-License-Identifier: Apache-2.0
//! What open streams go by is withdrawn: they end, and others do not.

use crate::backend::Backend;
use crate::client::{connect, read_all, read_until, status};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{Client, Forward, HttpServer, Mesh, Object, Permission, RouteAction, Serve, Server, ServiceServer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A proxy whose streams have a second to end.
async fn world() -> World {
    World::configured(|config| config.drain_time = Duration::from_secs(1)).await
}

/// A backend of bytes, of answers that never end, and of upgraded connections: it sends back what it gets.
async fn endless() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let mut first = [0; 1];
        let _ = stream.peek(&mut first).await;
        if first == *b"G" {
            let head = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
            let answer = if head.contains("upgrade: websocket") {
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\n\r\nbegun"
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

/// Sends, and waits until it comes back.
async fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    assert!(read_until(stream, text).await.ends_with(text));
}

async fn asks(address: SocketAddr, more: &str) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: h\r\n{more}\r\n").as_bytes()).await.unwrap();
    stream
}

/// Whether nothing has ended yet.
async fn is_open(stream: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(50), stream.read(&mut [0])).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_end_with_their_listener_or_its_backend_and_go_on_while_both_are_there() {
    let (one, two, backend) = (free(), free(), endless().await);
    let mut world = world().await;
    let all = |first: &str, weight: u32| -> Vec<Object> {
        let backends = vec![to(first, weight), to("d", 1)];
        let first = listener(one, Serve::Tcp(Forward { route: "r".into(), backends }));
        let second = listener(two, Serve::Tcp(bytes_to("c")));
        let clusters = ["c", "d"].map(|name| [cluster(name).into(), endpoints(name, &[backend.address]).into()]);
        [first.into(), second.into()].into_iter().chain(clusters.into_iter().flatten()).collect()
    };
    world.publish(all("c", u32::MAX)).await;
    let (mut first, mut second) = (connect(one).await, connect(two).await);
    echoes(&mut first, "a").await;
    echoes(&mut second, "a").await;
    // A share of nothing is for new connections; what is there in time again was not away.
    world.publish(all("c", 0)).await;
    echoes(&mut first, "b").await;
    world.publish(all("d", 1)).await;
    world.publish(all("c", 0)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    echoes(&mut first, "c").await;
    world.publish(all("d", 1)).await;
    assert_eq!(read_all(&mut first).await, "");
    echoes(&mut second, "d").await;
    world.publish(all("d", 1).into_iter().skip(2).collect()).await;
    assert_eq!(read_all(&mut second).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_upgraded_connections_end_with_their_route() {
    let (address, backend) = (free(), endless().await);
    let mut world = world().await;
    let objects = || simple(address, backend.address);
    world.publish(objects()).await;
    let mut answer = asks(address, "").await;
    read_until(&mut answer, "begun").await;
    let mut upgraded = asks(address, "connection: upgrade\r\nupgrade: websocket\r\n").await;
    read_until(&mut upgraded, "\r\n\r\n").await;
    echoes(&mut upgraded, "a").await;
    let mut other = objects();
    other.push(route("other", "/other", RouteAction::Forward(forward("c"))).into());
    world.publish(other).await;
    assert!(is_open(&mut answer).await && is_open(&mut upgraded).await);
    let mut gone = objects();
    gone.remove(1);
    world.publish(gone).await;
    assert!(!read_all(&mut answer).await.contains("0\r\n\r\n"), "it has not ended as if it were complete");
    assert_eq!(read_all(&mut upgraded).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_ends_with_the_next_answer_when_its_listener_is_gone() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let mut client = asks(address, "").await;
    read_until(&mut client, "length: 0\n").await;
    world.publish(simple(address, backend.address).split_off(1)).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(&mut client).await), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_refuses_a_pod_from_now_on_ends_at_once() {
    let (address, backend) = (free(), endless().await);
    // Time enough for what is only withdrawn.
    let mut world = World::configured(|config| config.drain_time = DEADLINE * 10).await;
    let mesh = Some(Mesh { consumers: Vec::new(), produces: true });
    let service = listener(address, Serve::Http(HttpServer { tables: site().tables, trusted_hops: 0, mesh }));
    let objects = |allowed: Option<bool>| {
        let server = |allowed| Server { identity: 7, port: backend.address.port(), allowed };
        let servers = allowed.map(server).into_iter().collect();
        let mut objects = simple(address, backend.address);
        objects[0] = service.clone().into();
        objects.push(Client { name: "127.0.0.1".into(), namespace: "shop".into(), identity: 300 }.into());
        objects.push(Permission { name: Permission::name_of(300), servers }.into());
        objects
    };
    world.publish(objects(Some(true))).await;
    let mut answer = asks(address, "").await;
    read_until(&mut answer, "begun").await;
    let mut upgraded = asks(address, "connection: upgrade\r\nupgrade: websocket\r\n").await;
    read_until(&mut upgraded, "\r\n\r\n").await;
    // It says nothing for a moment, while an identity changes.
    world.publish(objects(None)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(is_open(&mut answer).await && is_open(&mut upgraded).await);
    world.publish(objects(Some(false))).await;
    read_all(&mut answer).await;
    assert_eq!(read_all(&mut upgraded).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_pod_end_at_once_when_policy_refuses_them() {
    let (address, backend) = (free(), endless().await);
    let mut world = World::configured(|config| config.drain_time = DEADLINE * 10).await;
    let objects = |allowed: bool| -> Vec<Object> {
        let servers = vec![Server { identity: 7, port: backend.address.port(), allowed }];
        let service = ServiceServer { forward: bytes_to("c"), consumers: None };
        vec![
            listener(address, Serve::Service(service)).into(),
            cluster("c").into(),
            endpoints("c", &[backend.address]).into(),
            Client { name: "127.0.0.1".into(), namespace: "shop".into(), identity: 300 }.into(),
            Permission { name: Permission::name_of(300), servers }.into(),
        ]
    };
    world.publish(objects(true)).await;
    let mut stream = connect(address).await;
    echoes(&mut stream, "a").await;
    world.publish(objects(false)).await;
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_to_the_new_backend_when_theirs_is_withdrawn() {
    let address = free();
    let mut backends = Vec::new();
    for name in ["c", "d"] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        backends.push((name, socket.local_addr().unwrap()));
        tokio::spawn(async move {
            loop {
                let (_, from) = socket.recv_from(&mut [0; 64]).await.unwrap();
                socket.send_to(name.as_bytes(), from).await.unwrap();
            }
        });
    }
    let objects = |to: &str| -> Vec<Object> {
        let clusters = backends.iter().map(|(name, at)| [cluster(name).into(), endpoints(name, &[*at]).into()]);
        let first: Object = listener(address, Serve::Udp(bytes_to(to))).into();
        [first].into_iter().chain(clusters.flatten()).collect()
    };
    let mut world = world().await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for to in ["c", "d"] {
        world.publish(objects(to)).await;
        let until_then = async {
            loop {
                client.send_to(b"?", address).await.unwrap();
                let mut bytes = [0; 64];
                let answer = timeout(Duration::from_millis(100), client.recv(&mut bytes)).await;
                if answer.is_ok_and(|length| &bytes[..length.unwrap()] == to.as_bytes()) {
                    break;
                }
            }
        };
        timeout(DEADLINE, until_then).await.expect("the other backend answers");
    }
}
