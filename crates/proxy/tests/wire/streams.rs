// SPDX-License-Identifier: Apache-2.0
//! Bytes, datagrams, upgraded connections, and the PROXY header.

use crate::backend::{Backend, datagrams};
use crate::client::{connect, get, read_all, read_until, status, text, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{EndpointState, Object, ProxyProtocol, Serve};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn stream(address: SocketAddr, serve: Serve, backend: SocketAddr) -> Vec<Object> {
    vec![listener(address, serve).into(), cluster("c").into(), endpoints("c", &[backend]).into()]
}

/// A backend that sends back what it gets, until it gets no more.
pub(crate) async fn echo_bytes() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.write_all(b"bye").await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_one_side_may_end_first() {
    let (address, backend) = (free(), echo_bytes().await);
    let _world = World::of(stream(address, Serve::Tcp(bytes_to("c")), backend.address)).await;
    let mut client = connect(address).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "hellobye");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_reach_an_endpoint_that_can_be_reached_or_the_connection_ends() {
    let (address, backend) = (free(), echo_bytes().await);
    let mut objects = stream(address, Serve::Tcp(bytes_to("c")), backend.address);
    objects[2] = endpoints("c", &[free(), backend.address]).into();
    let mut world = World::of(objects.clone()).await;
    for _ in 0..10 {
        let mut client = connect(address).await;
        client.write_all(b"x").await.unwrap();
        read_until(&mut client, "x").await;
    }
    objects[2] = endpoints("c", &[free()]).into();
    world.publish(objects).await;
    assert_eq!(read_all(&mut connect(address).await).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_ends() {
    let (address, backend) = (free(), echo_bytes().await);
    let mut listener = listener(address, Serve::Tcp(bytes_to("c")));
    listener.limits.idle = Duration::from_millis(100);
    let mut objects = stream(address, Serve::Tcp(bytes_to("c")), backend.address);
    objects[0] = listener.into();
    let _world = World::of(objects).await;
    let mut client = connect(address).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read_all(&mut client).await, "x");
}

/// Whether the kernel asks the other end of the connections to a port whether it is still there: `02` in the sixth column.
fn is_asked_for(address: SocketAddr) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let here = format!(":{:04X}", address.port());
    let rows = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut open = rows.filter(|row| row[1].ends_with(&here) && row[3] == "01").peekable();
    assert!(open.peek().is_some());
    open.all(|row| row[5].starts_with("02:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_may_be_silent_for_long_is_asked_for() {
    for (idle, wanted) in [(Duration::from_secs(300), false), (Duration::from_secs(3600), true)] {
        let (address, backend) = (free(), echo_bytes().await);
        let mut listener = listener(address, Serve::Tcp(bytes_to("c")));
        listener.limits.idle = idle;
        let mut objects = stream(address, Serve::Tcp(bytes_to("c")), backend.address);
        objects[0] = listener.into();
        let _world = World::of(objects).await;
        let mut client = connect(address).await;
        client.write_all(b"x").await.unwrap();
        read_until(&mut client, "x").await;
        // What is on its way has a timer of its own.
        let settled = async {
            while is_asked_for(address) != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, settled).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_a_client_go_to_one_backend_and_answers_come_back() {
    let address = free();
    let backend = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = backend.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 2048];
        loop {
            let (length, from) = backend.recv_from(&mut bytes).await.unwrap();
            let text = format!("{} to {from}", String::from_utf8_lossy(&bytes[..length]));
            backend.send_to(text.as_bytes(), from).await.unwrap();
        }
    });
    let mut objects = stream(address, Serve::Udp(bytes_to("c")), to);
    let mut limited = listener(address, Serve::Udp(bytes_to("c")));
    limited.limits.connections = 2;
    objects[0] = limited.into();
    let world = World::of(objects).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        let mut answers = Vec::new();
        for text in ["one", "two"] {
            client.send(text.as_bytes()).await.unwrap();
            let mut bytes = [0; 2048];
            let length = timeout(DEADLINE, client.recv(&mut bytes)).await.unwrap().unwrap();
            let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
            answers.push(answer.strip_prefix(text).unwrap().to_owned());
        }
        assert_eq!(answers[0], answers[1], "a conversation has one socket");
        told.push((client, answers.remove(0)));
    }
    assert_ne!(told[0].1, told[1].1);
    let third = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    third.send_to(b"three", address).await.unwrap();
    world
        .metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"connections\"}} 1"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_with_all_conversations_makes_room_for_others() {
    let address = free();
    let to = datagrams("127.0.0.1:0").await;
    let mut objects = stream(address, Serve::Udp(bytes_to("c")), to);
    let mut limited = listener(address, Serve::Udp(bytes_to("c")));
    limited.limits.connections = 3;
    objects[0] = limited.into();
    let _world = World::of(objects).await;
    let is_answered = async |client: &UdpSocket| {
        client.send_to(b"?", address).await.unwrap();
        timeout(DEADLINE, client.recv(&mut [0; 64])).await.unwrap().unwrap();
    };
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        is_answered(&client).await;
        greedy.push(client);
    }
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    is_answered(&other).await;
    for client in &greedy[1..] {
        is_answered(client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_joined_to_its_backend() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
        if head.contains("upgrade: websocket") && head.contains("connection: upgrade") && head.contains("sec-websocket-key: k") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: a\r\n\r\nhi";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        } else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain").await;
        }
    })
    .await;
    let _world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    let ask = |protocol: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\nsec-websocket-key: k\r\n\r\n"
        )
    };
    client.write_all(ask("websocket").as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\nhi").await;
    assert_eq!((status(&answer), value(&answer, "sec-websocket-accept")), (101, Some("a")));
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read_until(&mut client, "ping").await, "ping");
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "");
    // HTTP/2 behind an upgrade would be requests that nobody routes.
    let mut smuggler = connect(address).await;
    smuggler.write_all(ask("h2c").as_bytes()).await.unwrap();
    assert_eq!(status(&read_until(&mut smuggler, "plain").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_tells_who_the_client_is_and_is_told_on() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mut listener = http(address);
    (listener.proxy_protocol, listener.port) = (true, Some(80));
    objects[0] = listener.into();
    let world = World::of(objects).await;
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = text(address, &format!("PROXY TCP4 9.8.7.6 1.2.3.4 1000 443\r\n{request}")).await;
    assert_eq!(value(&answer, "got-x-forwarded-for"), Some("9.8.7.6"));
    assert_eq!(value(&answer, "got-x-forwarded-port"), Some("443"));
    let answer = text(address, &format!("PROXY UNKNOWN\r\n{request}")).await;
    assert_eq!(value(&answer, "got-x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(text(address, request).await, "", "a client without a header is refused");
    world
        .metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"proxy-header\"}} 1"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_told_of_the_client_in_a_proxy_header_of_its_own() {
    let address = free();
    let backend = Backend::raw(|mut stream, _| async move {
        let told = read_until(&mut stream, "\r\n\r\n").await;
        let line = told.lines().next().unwrap().to_owned();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}", line.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let mut objects = simple(address, backend.address);
    let mut told = cluster("c");
    told.proxy_protocol = Some(ProxyProtocol::V1);
    objects[2] = told.into();
    let _world = World::of(objects).await;
    let mut lines = Vec::new();
    for _ in 0..2 {
        let answer = get(address, "h", "/", "").await;
        lines.push(answer.lines().last().unwrap().to_owned());
    }
    assert!(
        lines[0].starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && lines[0].ends_with(&format!(" {}", address.port()))
    );
    assert_ne!(lines[0], lines[1], "the connection of one client is not another's");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_serve_by_their_state_and_zone() {
    let (address, a, b, c) = (free(), Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await);
    let mut all = endpoints("c", &[a.address, b.address, c.address]);
    let mut objects = simple(address, a.address);
    let mut world = World::empty().await;
    use EndpointState::{Ready, Terminating, Unready};
    for (states, zone, wanted) in [
        ([Ready, Terminating, Unready], None, Some("a")),
        ([Unready, Terminating, Unready], None, Some("b")),
        ([Unready, Unready, Unready], None, None),
        ([Ready, Ready, Ready], Some("c"), Some("c")),
        ([Ready, Unready, Unready], Some("elsewhere"), Some("a")),
    ] {
        for (endpoint, (state, zone)) in all.endpoints.iter_mut().zip(states.into_iter().zip(["a", "b", "c"])) {
            (endpoint.state, endpoint.zone) = (state, Some(zone.into()));
        }
        all.prefer_zone = zone.map(Into::into);
        objects[3] = all.clone().into();
        world.publish(objects.clone()).await;
        for _ in 0..10 {
            let answer = get(address, "h", "/", "").await;
            assert_eq!(value(&answer, "backend"), wanted, "{states:?}: {answer}");
            assert_eq!(status(&answer), if wanted.is_some() { 200 } else { 503 });
        }
    }
}
