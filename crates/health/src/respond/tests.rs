// SPDX-License-Identifier: Apache-2.0

use super::*;
use model::RoutingMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

fn local_node(ipv4: Ipv4Addr) -> LocalNode {
    LocalNode {
        name: "n1".to_owned(),
        ipv4: Some(ipv4),
        ipv6: None,
        addresses: Vec::new(),
        router_ipv4: None,
        router_ipv6: None,
        pod_cidrs: Vec::new(),
        devices: Vec::new(),
        device_mtu: 1500,
        route_mtu: 1450,
        routing: RoutingMode::Tunnel,
    }
}

/// Asks again until the answer is of this kind. The clock is paused: pauses take no time.
async fn eventually(address: &str, port: u16, answered: bool) {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let wait = async {
        while hello::ask(address).await.is_ok() != answered {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(3600), wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_responder_of_the_node_follows_its_addresses() {
    let port = ports::free();
    let (mut writer, reader) = statedb::table("local");
    let responder = tokio::spawn(on_node(port, reader));
    writer.insert(local_node(Ipv4Addr::new(127, 0, 0, 2)));
    writer.commit();
    eventually("127.0.0.2", port, true).await;
    assert!(hello::ask(SocketAddr::from(([127, 0, 0, 1], port))).await.is_err(), "not on other addresses");
    writer.insert(local_node(Ipv4Addr::new(127, 0, 0, 3)));
    writer.commit();
    eventually("127.0.0.3", port, true).await;
    eventually("127.0.0.2", port, false).await;
    responder.abort();
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_taken_when_it_is_free() {
    let port = ports::free();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut responder = Responder::new(port, "node");
    responder.listen([IpAddr::V4(Ipv4Addr::LOCALHOST)], None);
    // The first attempt fails before this gets its turn again.
    tokio::task::yield_now().await;
    drop(taken);
    eventually("127.0.0.1", port, true).await;
}

/// What the responder says to these bytes.
async fn say(request: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = tokio::spawn(serve(listener));
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn it_knows_one_path_and_closes_the_connection_after_one_request() {
    assert_eq!(say(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await, "HTTP/1.1 200 OK");
    assert_eq!(say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await, "HTTP/1.1 404 Not Found");
    assert_eq!(
        say(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await,
        "HTTP/1.1 405 Method Not Allowed"
    );
    assert_eq!(say(b"nonsense\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
}

#[tokio::test(start_paused = true)]
async fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let server = tokio::spawn(serve(listener));
    // Sooner or later one of them has had its time.
    let answered = async { while hello::ask(address).await.is_err() {} };
    timeout(Duration::from_secs(3600), answered).await.unwrap();
    for mut stream in silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or_default(), 0);
    }
    server.abort();
}
