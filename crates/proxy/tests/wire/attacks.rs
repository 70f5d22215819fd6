// SPDX-License-Identifier: Apache-2.0
//! Clients and backends that mean harm. Each gets its answer or its end, and others are served meanwhile.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, read_until, status, text, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{Limits, Serve, TlsAction, TlsServer};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) fn limited(address: SocketAddr, backend: SocketAddr, limit: impl FnOnce(&mut Limits)) -> Vec<l7::Object> {
    let mut objects = simple(address, backend);
    let mut listener = http(address);
    limit(&mut listener.limits);
    objects[0] = listener.into();
    objects
}

/// A backend whose machine is silent from its first answer on, as when it is dead or a policy refuses the connection.
async fn falling_silent() -> Backend {
    Backend::raw(|mut stream, requests| async move {
        let mut request = [0; 1024];
        if stream.read(&mut request).await.is_err() {
            return;
        }
        requests.fetch_add(1, SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        // Return 0: nothing that arrives is taken, nor acknowledged.
        let nothing = SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(&stream).attach_filter(&[nothing]).unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_connection_that_has_gone_silent_is_answered() {
    let (address, backend) = (free(), falling_silent().await);
    let mut objects = simple(address, backend.address);
    for object in &mut objects {
        if let l7::Object::Cluster(cluster) = object {
            std::sync::Arc::make_mut(cluster).limits.connect = Duration::from_millis(200);
        }
    }
    let _world = World::of(objects).await;
    // Both come to one worker, and with it to one connection of the backend.
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut client, "\r\n\r\n").await), 200);
    // It cannot be asked again elsewhere: nobody knows whether it has been received.
    let post = b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    client.write_all(post).await.unwrap();
    let answer = read_all(&mut client).await;
    assert_eq!((status(&answer), backend.requests.load(SeqCst)), (502, 1), "{answer}");
}

/// Nobody else notices.
pub(crate) async fn serves(address: SocketAddr) {
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_byte_now_and_then_is_ended_at_each_stage() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(limited(address, backend.address, |limits| {
        (limits.header_time, limits.idle) = (Duration::from_millis(300), Duration::from_millis(600));
    }))
    .await;
    let first = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    for begin in ["", "G", "PRI * HT", "GET / HTTP/1.1\r\nhost: h\r\nx-", first] {
        let mut client = connect(address).await;
        client.write_all(begin.as_bytes()).await.unwrap();
        if begin == first {
            read_until(&mut client, "length: 0\n").await;
        }
        let (mut reader, mut writer) = client.into_split();
        let drip = tokio::spawn(async move {
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        read_all(&mut reader).await;
        timeout(DEADLINE, drip).await.expect("the client is cut off").unwrap();
    }
    // A body that stops.
    let mut client = connect(address).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nx").await.unwrap();
    assert_eq!(status(&read_all(&mut client).await), 408);
    // One that only connects in HTTP/2.
    let mut client = connect(address).await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    read_all(&mut client).await;
    serves(address).await;
    assert!(world.metrics().await.contains("reason=\"slow\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_ended() {
    let address = free();
    let backend =
        Backend::answering(|_| async { http::Response::new(http_body_util::Full::from(vec![0; 64 << 20])) }).await;
    let world = World::of(limited(address, backend.address, |limits| limits.idle = Duration::from_millis(300))).await;
    let mut client = connect(address).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    world.metric_is(&format!("cilium_proxy_connections_total{{listener=\"listener-{address}\"}} 1")).await;
    world.metric_is(&format!("cilium_proxy_connections_active{{listener=\"listener-{address}\"}} 0")).await;
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_closed_and_those_below_go_on() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(limited(address, backend.address, |limits| limits.connections = 3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        read_until(&mut client, "length: 0\n").await;
        held.push(client);
    }
    assert_eq!(read_all(&mut connect(address).await).await, "");
    world
        .metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"connections\"}} 1"))
        .await;
    held[0].write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_until(&mut held[0], "length: 0\n").await), 200);
    held.clear();
    timeout(DEADLINE, async { while status(&get(address, "h", "/", "").await) != 200 {} }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_takes_all_connections_makes_room_for_others() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(limited(address, backend.address, |limits| limits.connections = 4)).await;
    let ask = async |client: &mut TcpStream| {
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        status(&read_until(client, "length: 0\n").await)
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = connect(address).await;
        assert_eq!(ask(&mut client).await, 200);
        held.push(client);
    }
    let other = TcpSocket::new_v4().unwrap();
    other.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    let mut other = other.connect(address).await.unwrap();
    assert_eq!(ask(&mut other).await, 200);
    assert_eq!(read_all(&mut held[0]).await, "", "the oldest has made room");
    assert_eq!(read_all(&mut connect(address).await).await, "", "who has the most gets no more");
    for client in &mut held[1..] {
        assert_eq!(ask(client).await, 200);
    }
    assert_eq!(ask(&mut other).await, 200);
    for reason in ["displaced", "connections"] {
        let line = format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"{reason}\"}} 1");
        world.metric_is(&line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_load_balancer_makes_room_for_others_behind_it() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = limited(address, backend.address, |limits| limits.connections = 4);
    let mut told = http(address);
    (told.proxy_protocol, told.limits.connections) = (true, 4);
    objects[0] = told.into();
    let world = World::of(objects).await;
    let ask = async |client: &mut TcpStream, told: &str| {
        client.write_all(format!("{told}GET / HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
        status(&read_until(client, "length: 0\n").await)
    };
    let mut held = Vec::new();
    for port in 0..4 {
        let mut client = connect(address).await;
        assert_eq!(ask(&mut client, &format!("PROXY TCP4 192.0.2.1 192.0.2.9 {port} 80\r\n")).await, 200);
        held.push(client);
    }
    let mut other = connect(address).await;
    assert_eq!(ask(&mut other, "PROXY TCP4 192.0.2.2 192.0.2.9 1 80\r\n").await, 200);
    assert_eq!(read_all(&mut held[0]).await, "", "the oldest has made room");
    for client in &mut held[1..] {
        assert_eq!(ask(client, "").await, 200);
    }
    world.metric_is(&refused(address, "displaced", 1)).await;
}

/// A line of the metrics.
pub(crate) fn refused(address: SocketAddr, reason: &str, times: usize) -> String {
    format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"{reason}\"}} {times}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_counted_after_the_answer_has_begun_too() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        while stream.read(&mut [0; 1024]).await.is_ok_and(|some| some > 0) {}
    })
    .await;
    let address = free();
    let world = World::of(limited(address, backend.address, |limits| limits.body_bytes = Some(1000))).await;
    let mut client = connect(address).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await.unwrap();
    let begun = read_until(&mut client, "hello").await;
    assert_eq!(status(&begun), 200, "{begun}");
    client.write_all(format!("7d0\r\n{}\r\n", "x".repeat(2000)).as_bytes()).await.unwrap();
    assert_eq!(read_all(&mut client).await, "");
    world.metric_is(&refused(address, "body-too-large", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_misbehave_are_502_or_cut_off_and_their_clients_are_told() {
    let endless = || format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(200_000)).into_bytes();
    for (bytes, wanted) in [
        (b"\x16\x03\x01garbage".to_vec(), 502),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_vec(), 502),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(), 200),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello".to_vec(), 200),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(), 502),
        (b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n".to_vec(), 502),
        (b"HTT".to_vec(), 502),
        (Vec::new(), 502),
        (endless(), 502),
    ] {
        let (address, backend, good) = (free(), Backend::writing(bytes.clone()).await, Backend::echo("good").await);
        let mut objects = simple(address, backend.address);
        objects.push(route("good", "/good", l7::RouteAction::Forward(forward("good"))).into());
        objects.push(cluster("good").into());
        objects.push(endpoints("good", &[good.address]).into());
        let _world = World::of(objects).await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer =
            if wanted == 200 { read_all(&mut client).await } else { read_until(&mut client, "\r\n\r\n").await };
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        // What is cut off at once may not even have begun.
        let cut_off = wanted == 200 && answer.is_empty();
        assert!(status(&answer) == wanted || cut_off, "{shown}: {answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "an answer that is cut off does not look whole: {answer}");
        assert_eq!(status(&get(address, "h", "/good", "").await), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_hello_ends_the_connection() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let action = TlsAction::Passthrough(bytes_to("c"));
    let server = TlsServer { hosts: vec!["*".parse().unwrap()], action };
    let mut listener = listener(address, Serve::Tls(vec![server]));
    listener.limits.header_time = Duration::from_millis(300);
    let world = World::of(vec![listener.into(), cluster("c").into(), endpoints("c", &[backend.address]).into()]).await;
    let rows: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff\x01", b"\x16\x03", b""];
    for bytes in rows {
        let mut client = connect(address).await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(read_all(&mut client).await, "", "{bytes:?}");
    }
    assert_eq!(backend.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    world.metric_is(&format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"hello\"}} 4")).await;
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() << 12
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_are_held_and_others_served() {
    const CONNECTIONS: usize = 10_000;
    // Other tests need some descriptors too.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most >= CONNECTIONS as u64 + 5_000, "leave for {most} descriptors is too little");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let before = resident();
    let (address, backend) = (free(), Backend::echo("a").await);
    let patient = |limits: &mut Limits| limits.header_time = Duration::from_secs(600);
    let world = World::of(limited(address, backend.address, patient)).await;
    let (held, clients) = std::sync::mpsc::channel::<()>();
    // The clients' ends are in a table of descriptors of their own.
    let clients = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let inherited: Vec<i32> = std::fs::read_dir("/proc/thread-self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .filter(|descriptor| *descriptor > 2)
            .collect();
        for descriptor in inherited {
            // The one of the folder itself is closed already.
            let _ = nix::unistd::close(descriptor);
        }
        let connect = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // Ports of this address are others' to listen at.
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0)).into()).unwrap();
            socket.connect(&address.into()).unwrap();
            socket
        };
        let connections: Vec<_> = (0..CONNECTIONS).map(connect).collect();
        let _ = clients.recv();
        drop(connections);
    });
    world.metric_is(&format!("cilium_proxy_connections_active{{listener=\"listener-{address}\"}} {CONNECTIONS}")).await;
    serves(address).await;
    // Other tests take some, too.
    let each = resident().saturating_sub(before) / CONNECTIONS;
    assert!(each < 32 << 10, "{each} bytes for each");
    drop(held);
    clients.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_written_otherwise_meets_the_same_route() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    objects.push(route("admin", "/admin", l7::RouteAction::Respond(403)).into());
    let _world = World::of(objects).await;
    for (path, wanted) in [
        ("/admin", 403),
        ("/%61dmin", 403),
        ("/a%64min/x", 403),
        ("/x/..%2fadmin", 400),
        ("/x/..%5Cadmin", 400),
        ("/x/%2e%2e%2Fadmin", 400),
        ("/x/..;/admin", 400),
        ("/x/..;a=b/admin", 400),
        ("/x/%2e%2e%3b/admin", 400),
        ("/x%2f../admin", 400),
        ("/x/../admin", 403),
        ("*", 400),
        ("h", 400),
        ("h:80", 400),
        ("/x/%2e%2E/%61dm%69n", 403),
        ("/x\\..\\admin", 400),
        ("/x/..\\admin", 400),
        ("/%%361dmin", 400),
    ] {
        assert_eq!(status(&get(address, "h", path, "").await), wanted, "{path}");
    }
    assert_eq!(status(&text(address, "OPTIONS * HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await), 200);
    // What only looks like it stays as it was written.
    let answer = get(address, "h", "/%2fadmin%3f%7e?%61", "").await;
    assert_eq!(value(&answer, "asked"), Some("GET /%2fadmin%3f~?%61 HTTP/1.1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_its_host_twice_is_routed_by_its_target() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let attachment = l7::Attachment { table: "t".into(), hosts: vec!["other.example".parse().unwrap()] };
    let matches = [l7::RouteMatch::below("/")];
    objects.push(l7::Route::plain("other", attachment, matches, l7::RouteAction::Respond(403)).into());
    let _world = World::of(objects).await;
    let other = get(address, "shop.example", "http://other.example/x", "").await;
    assert_eq!(status(&other), 403, "{other}");
    let shop = get(address, "other.example", "http://shop.example:80/x?y", "").await;
    assert_eq!(value(&shop, "asked"), Some("GET /x?y HTTP/1.1"), "{shop}");
    assert_eq!(shop.matches("got-host: shop.example:80\n").count(), 1, "{shop}");
    // Without a Host, it is no request of HTTP/1.1 (RFC 9112, 3.2).
    for (version, wanted) in [("1.1", 400), ("1.0", 200)] {
        let request = format!("GET http://shop.example/ HTTP/{version}\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&text(address, &request).await), wanted, "{version}");
    }
    for target in ["http://a@shop.example/", "http://shop.example\\x/"] {
        assert_eq!(status(&get(address, "h", target, "").await), 400, "{target}");
    }
}
