// SPDX-License-Identifier: Apache-2.0
//! Peers that hold on to what others need: connections, windows, a place in a queue.

use crate::backend::{Backend, datagrams};
use crate::client::{connect, get, read_all, read_until, status, text, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use l7::{BackendProtocol, Cluster, ClusterLimits, Object, Serve};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A backend whose `/big` is more than any buffer on the way takes.
async fn big() -> Backend {
    let bytes = Bytes::from(vec![0; 64 << 20]);
    Backend::answering(move |request| {
        let body = if request.uri().path() == "/big" { bytes.clone() } else { Bytes::from("small") };
        async move { Response::new(Full::from(body)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_counts_until_it_ends() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhi";
        let _ = stream.write_all(answer.as_bytes()).await;
        read_all(&mut stream).await;
    })
    .await;
    let mut objects = simple(address, backend.address);
    let mut limited = http(address);
    limited.limits.connections = 1;
    objects[0] = limited.into();
    let mut world = World::of(objects.clone()).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\nhi").await;
    let mut other = connect(address).await;
    let _ = other.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(read_all(&mut other).await, "", "the listener has its one connection");
    objects[0] = http(address).into();
    let connections = ClusterLimits { connections: 1, ..ClusterLimits::default() };
    let requests = ClusterLimits { requests: 1, ..ClusterLimits::default() };
    for limits in [connections, requests] {
        objects[2] = Cluster { limits, ..cluster("c") }.into();
        world.publish(objects.clone()).await;
        assert_eq!(status(&get(address, "h", "/", "").await), 503, "so has the cluster");
    }
    drop(client);
    world.metric_is(&format!("cilium_proxy_connections_active{{listener=\"listener-{address}\"}} 0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_upgraded_connection_are_no_heads_of_requests() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let mut objects = simple(address, backend.address);
    let mut impatient = http(address);
    impatient.limits.header_time = Duration::from_millis(200);
    objects[0] = impatient.into();
    let _world = World::of(objects).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    // Longer than a head may take, with a message before and after.
    for message in ["one", "two", "three"] {
        client.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut client, message).await, message);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let (address, backend) = (free(), big().await);
    let mut objects = simple(address, backend.address);
    let mut impatient = http(address);
    impatient.limits.idle = Duration::from_millis(500);
    objects[0] = impatient.into();
    let _world = World::of(objects).await;
    let (sender, connection) = h2::client::handshake(connect(address).await).await.unwrap();
    tokio::spawn(connection);
    let ask = async |path: &str| {
        let request = Request::get(format!("http://h{path}")).body(()).unwrap();
        let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
        timeout(DEADLINE, response).await.unwrap().unwrap()
    };
    let mut held = ask("/big").await.into_body();
    let end = async {
        while let Some(data) = held.data().await {
            if let Err(error) = data {
                return error;
            }
        }
        panic!("it ends well");
    };
    let error = timeout(DEADLINE, end).await.expect("an end in time");
    assert!(error.is_reset(), "{error}");
    assert_eq!(ask("/").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_up_no_others_of_their_backend() {
    let (address, backend) = (free(), big().await);
    let mut objects = simple(address, backend.address);
    let mut spoken = cluster("c");
    spoken.protocol = BackendProtocol::Http2;
    objects[2] = spoken.into();
    let _world = World::of(objects).await;
    let mut held = Vec::new();
    for _ in 0..12 {
        let mut client = connect(address).await;
        client.write_all(b"GET /big HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        read_until(&mut client, "\r\n\r\n").await;
        held.push(client);
    }
    for _ in 0..4 {
        assert_eq!(status(&get(address, "h", "/", "").await), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_behind_its_answer_holds_up_no_other_request() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        while read_until(&mut stream, "\r\n\r\n").await.contains("HTTP/1.1") {
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let mut objects = simple(address, backend.address);
    let mut patient = cluster("c");
    patient.limits.connect = Duration::from_secs(60);
    objects[2] = patient.into();
    let _world = World::of(objects).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut client = connect(address).await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nx").await.unwrap();
        assert_eq!(status(&read_until(&mut client, "\r\n\r\n").await), 401);
        held.push(client);
    }
    for _ in 0..4 {
        assert_eq!(status(&get(address, "h", "/", "").await), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_of_the_health_check_make_room_for_the_one_that_asks() {
    let world = World::of(simple(free(), free())).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(connect(world.proxy.config.metrics_address).await);
    }
    assert_eq!(status(&world.metrics().await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_for_datagrams_that_goes_leaves_its_address_to_the_next() {
    let (address, to) = (free(), datagrams("127.0.0.1:0").await);
    let objects: Vec<Object> =
        vec![listener(address, Serve::Udp(bytes_to("c"))).into(), cluster("c").into(), endpoints("c", &[to]).into()];
    let mut world = World::of(objects.clone()).await;
    for _ in 0..2 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"hello", address).await.unwrap();
        let mut bytes = [0; 64];
        assert_eq!(timeout(DEADLINE, client.recv(&mut bytes)).await.unwrap().unwrap(), 5);
        world.publish(objects[1..].to_vec()).await;
        assert_eq!(world.publish(objects.clone()).await.faults, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_never_answered_stays_with_its_backend_while_it_sends() {
    let (address, backend) = (free(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let to = backend.local_addr().unwrap();
    let mut quick = listener(address, Serve::Udp(bytes_to("c")));
    quick.limits.idle = Duration::from_millis(500);
    let _world = World::of(vec![quick.into(), cluster("c").into(), endpoints("c", &[to]).into()]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut bytes, mut from) = ([0; 8], std::collections::BTreeSet::new());
    for _ in 0..60 {
        client.send_to(b"x", address).await.unwrap();
        from.insert(timeout(DEADLINE, backend.recv_from(&mut bytes)).await.unwrap().unwrap().1);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(from.len(), 1, "{from:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_ever_new_clients_push_out_those_that_have_been_silent_longest() {
    let (address, to) = (free(), datagrams("127.0.0.1:0").await);
    let mut small = listener(address, Serve::Udp(bytes_to("c")));
    small.limits.connections = 8;
    let world = World::of(vec![small.into(), cluster("c").into(), endpoints("c", &[to]).into()]).await;
    let ask = async |client: &UdpSocket| {
        client.send_to(b"hello", address).await.unwrap();
        let answered = timeout(DEADLINE, client.recv(&mut [0; 64])).await;
        assert_eq!(answered.expect("an answer").unwrap(), 5);
    };
    let active = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    ask(&active).await;
    for turn in 2..100 {
        let new = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, turn), 0)).await.unwrap();
        ask(&new).await;
        ask(&active).await;
    }
    // One that is ended takes a moment to be gone.
    let listener = format!("listener=\"listener-{address}\"");
    world.metric_is(&format!("cilium_proxy_refused_total{{{listener},reason=\"displaced\"}} 91")).await;
    world.metric_is(&format!("cilium_proxy_connections_active{{{listener}}} 8")).await;
    world.metric_is(&format!("cilium_proxy_connections_total{{{listener}}} 99")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_listeners_that_want_one_address_the_oldest_has_it() {
    let address = free();
    let mut world = World::empty().await;
    let listener = |(name, created): (&str, i64)| {
        let mut listener = http(address);
        listener.name = name.into();
        listener.sources = vec![l7::Source { object: name.into(), uid: "".into(), generation: 1, created }];
        listener.into()
    };
    let status = world.publish([("a", 3), ("b", 1), ("c", 2)].map(listener).to_vec()).await;
    let at_fault: Vec<_> = status.faults.iter().map(|fault| &*fault.object.name).collect();
    assert_eq!(at_fault, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_stays_with_the_listener_that_has_it() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut world = World::of(objects.clone()).await;
    let mut other = http(address);
    other.name = "a".into();
    if let Serve::Http(server) = &mut other.serve {
        server.tables.clear();
    }
    objects.push(other.into());
    let status = world.publish(objects).await;
    let at_fault: Vec<_> = status.faults.iter().map(|fault| &*fault.object.name).collect();
    assert_eq!(at_fault, ["a"]);
    assert_eq!(value(&get(address, "h", "/", "").await, "backend"), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_passed_on_whatever_the_method() {
    let (address, backend): (SocketAddr, _) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    let request =
        "GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = text(address, request).await;
    assert_eq!((status(&answer), value(&answer, "length")), (200, Some("3")), "{answer}");
}
