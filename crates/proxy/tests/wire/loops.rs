// SPDX-License-Identifier: Apache-2.0
//! Routes that lead back to where they come from.

use crate::backend::{Backend, datagrams};
use crate::client::{connect, get, read_all, read_until, status};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{Filters, HeaderChanges, HttpForward, Mirror, Object, RouteAction, Serve, Share, TlsAction, TlsServer};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How often something has happened at all listeners.
async fn count(world: &World, name: &str) -> u64 {
    let metrics = world.metrics().await;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit(' ').next());
    lines.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_leads_back_to_its_listener_is_a_loop_that_ends_soon() {
    let address = free();
    let world = World::of(simple(address, address)).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 508);
    let requests = count(&world, "cilium_proxy_requests_total").await;
    assert!(requests <= 64, "one request has become {requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_have_come_a_long_way() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let _world = World::of(simple(address, backend.address)).await;
    for (hops, wanted) in [(15, 200), (16, 508)] {
        let chain = vec!["192.0.2.1"; hops].join(", ");
        assert_eq!(status(&get(address, "h", "/", &format!("x-forwarded-for: {chain}\r\n")).await), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_takes_away_who_has_passed_a_request_on_ends_too() {
    let name = || "x-forwarded-for".to_owned();
    for request in [
        HeaderChanges { remove: vec![name()], ..HeaderChanges::default() },
        HeaderChanges { set: vec![(name(), "192.0.2.1".to_owned())], ..HeaderChanges::default() },
    ] {
        let address = free();
        let mut objects = simple(address, address);
        let mut rule = route("all", "/", RouteAction::Forward(forward("c")));
        rule.filters = Filters { request, ..Filters::default() }.into();
        objects[1] = rule.into();
        let world = World::of(objects).await;
        assert_eq!(status(&get(address, "h", "/", "").await), 508);
        let requests = count(&world, "cilium_proxy_requests_total").await;
        assert!(requests <= 2, "one request has become {requests}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_leads_back_gets_no_copies() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut objects = simple(address, backend.address);
    let mirrors = vec![Mirror { cluster: "self".into(), share: Share::ALL }];
    objects[1] = route("all", "/", RouteAction::Forward(HttpForward { mirrors, ..forward("c") })).into();
    objects.extend([cluster("self").into(), endpoints("self", &[address]).into()]);
    let world = World::of(objects).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    world.metric_is("cilium_proxy_mirrors_lost_total 1").await;
    assert_eq!(count(&world, "cilium_proxy_requests_total").await, 1);
}

fn bytes(address: SocketAddr, serve: Serve, backend: SocketAddr) -> Vec<Object> {
    vec![listener(address, serve).into(), cluster("c").into(), endpoints("c", &[backend]).into()]
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_would_come_back_go_nowhere() {
    let passthrough = TlsServer { hosts: vec!["*".parse().unwrap()], action: TlsAction::Passthrough(bytes_to("c")) };
    for (serve, any) in
        [(Serve::Tcp(bytes_to("c")), false), (Serve::Tcp(bytes_to("c")), true), (Serve::Tls(vec![passthrough]), false)]
    {
        let address = free();
        let at = if any { (std::net::Ipv4Addr::UNSPECIFIED, address.port()).into() } else { address };
        let world = World::of(bytes(at, serve, address)).await;
        let mut client = connect(address).await;
        // The hello of a client that names nobody.
        client.write_all(&hello()).await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
        let line = format!("cilium_proxy_refused_total{{listener=\"listener-{at}\",reason=\"loop\"}} 1");
        world.metric_is(&line).await;
        assert_eq!(count(&world, "cilium_proxy_connections_total").await, 1);
    }
}

/// The first bytes of a TLS client.
fn hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_that_lead_to_each_other_end_at_once() {
    let (one, other) = (free(), free());
    let mut objects = bytes(one, Serve::Tcp(bytes_to("c")), other);
    objects.push(listener(other, Serve::Tcp(bytes_to("d"))).into());
    objects.extend([cluster("d").into(), endpoints("d", &[one]).into()]);
    let world = World::of(objects).await;
    assert_eq!(read_all(&mut connect(one).await).await, "");
    assert_eq!(count(&world, "cilium_proxy_connections_total").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_would_come_back_go_nowhere() {
    for any in [false, true] {
        let address = free();
        let at: SocketAddr = if any { (std::net::Ipv4Addr::UNSPECIFIED, address.port()).into() } else { address };
        let world = World::of(bytes(at, Serve::Udp(bytes_to("c")), address)).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for turn in 1..=3 {
            client.send_to(b"round and round", address).await.unwrap();
            let line = format!("cilium_proxy_refused_total{{listener=\"listener-{at}\",reason=\"loop\"}} {turn}");
            world.metric_is(&line).await;
        }
        assert_eq!(count(&world, "cilium_proxy_connections_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_listeners_of_the_port_are_no_loop() {
    let (address, to) = (free(), datagrams("127.0.0.1:0").await);
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "?").await;
        let _ = stream.write_all(b"!").await;
    })
    .await;
    // TCP at the address of a backend for datagrams, and the other way round.
    let mut objects = bytes(to, Serve::Tcp(bytes_to("c")), backend.address);
    objects.push(listener(address, Serve::Udp(bytes_to("d"))).into());
    objects.extend([cluster("d").into(), endpoints("d", &[to]).into()]);
    let _world = World::of(objects).await;
    let mut client = connect(to).await;
    client.write_all(b"?").await.unwrap();
    assert_eq!(read_until(&mut client, "!").await, "!");
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"hello", address).await.unwrap();
    assert_eq!(timeout(DEADLINE, client.recv(&mut [0; 64])).await.unwrap().unwrap(), 5);
    assert_eq!(backend.connections.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_here_goes_nowhere_wherever_it_was_sent() {
    // Which addresses a socket of the node has is not known here.
    let of_node = |at: SocketAddr, serve: Serve| l7::Listener { node: true, ..listener(at, serve) };
    for udp in [false, true] {
        let address = free();
        let at: SocketAddr = (std::net::Ipv4Addr::UNSPECIFIED, address.port()).into();
        let serve = if udp { Serve::Udp(bytes_to("c")) } else { Serve::Tcp(bytes_to("c")) };
        let mut objects = bytes(at, serve.clone(), address);
        objects[0] = of_node(at, serve).into();
        let world = World::of(objects).await;
        if udp {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(b"round and round", address).await.unwrap();
        } else {
            assert_eq!(read_all(&mut connect(address).await).await, "");
        }
        let refused = async {
            while !world.metrics().await.contains(&format!("listener=\"listener-{at}\",reason=\"loop\"")) {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, refused).await.expect("it is refused");
        let connections = count(&world, "cilium_proxy_connections_total").await;
        assert!(connections <= 4, "one has become {connections}");
    }
}
