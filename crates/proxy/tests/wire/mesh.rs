// SPDX-License-Identifier: Apache-2.0
//! What pods send to Services: the routes of their namespace, and no way past policy.

use crate::backend::Backend;
use crate::client::{connect, get, read_all, read_until, status, value};
use crate::objects::*;
use crate::streams::echo_bytes;
use crate::world::{DEADLINE, World, free};
use l7::{
    Attachment, Client, Cluster, ClusterLimits, Consumer, HttpForward, HttpServer, Mesh, Mirror, Object, Permission,
    RouteAction, Serve, Server, ServiceServer, Share,
};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Identity of the pod that asks, and of the endpoints that [`endpoints`] makes.
const CLIENT: u32 = 300;
const SERVER: u32 = 7;

fn service(address: SocketAddr, produces: bool) -> Object {
    let consumers = vec![Consumer { namespace: "desk".into(), table: "d".into() }];
    let tables = if produces { site().tables } else { Vec::new() };
    let mesh = Some(Mesh { consumers, produces });
    listener(address, Serve::Http(HttpServer { tables, trusted_hops: 0, mesh })).into()
}

/// A pod at the loopback address.
fn pod(namespace: &str) -> Object {
    Client { name: "127.0.0.1".into(), namespace: namespace.into(), identity: CLIENT }.into()
}

fn reaches(servers: &[(SocketAddr, bool)]) -> Object {
    let server =
        |(address, allowed): &(SocketAddr, bool)| Server { identity: SERVER, port: address.port(), allowed: *allowed };
    Permission { name: Permission::name_of(CLIENT), servers: servers.iter().map(server).collect() }.into()
}

fn backend(name: &str, at: &[SocketAddr]) -> [Object; 2] {
    [cluster(name).into(), endpoints(name, at).into()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_the_routes_of_its_namespace_or_those_of_all() {
    let (address, all, desk) = (free(), Backend::echo("all").await, Backend::echo("desk").await);
    let routes = || {
        let mut consumer = route("desk", "/", RouteAction::Forward(forward("desk")));
        consumer.attachments = [Attachment::any("d")].into();
        let producer = route("all", "/v1", RouteAction::Forward(forward("all")));
        let mut objects = vec![consumer.into(), producer.into(), reaches(&[(all.address, true), (desk.address, true)])];
        objects.extend(backend("all", &[all.address]).into_iter().chain(backend("desk", &[desk.address])));
        objects
    };
    let mut world = World::empty().await;
    for (namespace, produces, path, wanted) in [
        ("shop", true, "/v1/x", Ok("all")),
        ("shop", true, "/v2", Err(404)),
        ("desk", true, "/v2", Ok("desk")),
        ("desk", true, "/v1", Ok("desk")),
        ("shop", false, "/v1", Err(404)),
        ("desk", false, "/v1", Ok("desk")),
    ] {
        let objects = routes().into_iter().chain([service(address, produces), pod(namespace)]).collect();
        assert_eq!(world.publish(objects).await.faults, []);
        let answer = get(address, "cart.shop", path, "").await;
        match wanted {
            Ok(name) => assert_eq!(value(&answer, "x-backend"), Some(name), "{namespace} {produces} {path}"),
            Err(code) => assert_eq!(status(&answer), code, "{namespace} {produces} {path}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_by_way_of_the_proxy_what_policy_refuses_him() {
    let (address, one, other) = (free(), Backend::echo("one").await, Backend::echo("other").await);
    let share = Share { numerator: 1, denominator: 1 };
    let mirrors = vec![Mirror { cluster: "other".into(), share }];
    let served = || {
        let action = RouteAction::Forward(HttpForward { mirrors: mirrors.clone(), ..forward("one") });
        let mut objects = vec![service(address, true), route("all", "/", action).into()];
        objects.extend(backend("one", &[one.address]).into_iter().chain(backend("other", &[other.address])));
        objects
    };
    let mut world = World::empty().await;
    for (who, wanted) in [
        (vec![], 403),
        (vec![pod("shop")], 403),
        (vec![pod("shop"), reaches(&[])], 503),
        (vec![pod("shop"), reaches(&[(one.address, false), (other.address, false)])], 403),
        (vec![pod("shop"), reaches(&[(one.address, true), (other.address, false)])], 200),
        (vec![pod("shop"), reaches(&[(one.address, true), (other.address, true)])], 200),
    ] {
        world.publish(served().into_iter().chain(who).collect()).await;
        assert_eq!(status(&get(address, "h", "/", "").await), wanted);
    }
    assert_eq!(one.requests(), 2);
    // A copy is sent where the client may go himself, and nowhere else.
    let copied = async {
        while other.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, copied).await.unwrap();
    assert_eq!(other.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_endpoints_one_of_which_policy_knows_nothing_yet_is_left_to_later_requests() {
    let (address, known, new) = (free(), Backend::echo("known").await, Backend::echo("new").await);
    let mut objects = vec![service(address, true), pod("shop"), reaches(&[(known.address, true)])];
    objects.push(route("all", "/", RouteAction::Forward(forward("c"))).into());
    objects.extend(backend("c", &[known.address, new.address]));
    let _world = World::of(objects).await;
    for _ in 0..20 {
        assert_eq!(value(&get(address, "h", "/", "").await, "x-backend"), Some("known"));
    }
    assert_eq!(new.requests(), 0);
}

/// A Service whose bytes go to cluster `c`, but pods of `desk` have routes.
fn bytes(address: SocketAddr) -> Object {
    let consumers = vec![Consumer { namespace: "desk".into(), table: "d".into() }];
    let mesh = Some(Mesh { consumers, produces: false });
    let consumers = Some(HttpServer { mesh, ..HttpServer::default() });
    listener(address, Serve::Service(ServiceServer { forward: bytes_to("c"), consumers })).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_pod_go_where_policy_lets_it_go_itself() {
    let (address, server) = (free(), echo_bytes().await);
    let mut world = World::empty().await;
    let reason = |reason: &str, count: u32| {
        format!("cilium_proxy_refused_total{{listener=\"listener-{address}\",reason=\"{reason}\"}} {count}")
    };
    for (who, refused) in [
        (vec![], reason("stranger", 1)),
        (vec![pod("shop")], reason("stranger", 2)),
        (vec![pod("shop"), reaches(&[])], reason("no-endpoint", 1)),
        (vec![pod("shop"), reaches(&[(address, true), (server.address, false)])], reason("denied", 1)),
    ] {
        world.publish(backend("c", &[server.address]).into_iter().chain(who).chain([bytes(address)]).collect()).await;
        assert_eq!(read_all(&mut connect(address).await).await, "");
        world.metric_is(&refused).await;
    }
    assert_eq!(server.connections.load(SeqCst), 0);
    let allowed = [pod("shop"), reaches(&[(server.address, true)]), bytes(address)];
    let limits = ClusterLimits { connections: 1, ..ClusterLimits::default() };
    let few = Cluster { limits, ..cluster("c") };
    let objects = allowed.into_iter().chain([few.into(), endpoints("c", &[server.address]).into()]);
    world.publish(objects.collect()).await;
    let mut client = connect(address).await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read_until(&mut client, "hello").await, "hello");
    assert_eq!(read_all(&mut connect(address).await).await, "", "the cluster has as many connections as it may");
    world.metric_is(&reason("overloaded", 1)).await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_routes_of_their_own_speak_http_where_others_send_bytes() {
    let (address, all, desk) = (free(), echo_bytes().await, Backend::echo("desk").await);
    let mut consumer = route("desk", "/", RouteAction::Forward(forward("desk")));
    consumer.attachments = [Attachment::any("d")].into();
    let permission = reaches(&[(all.address, true), (desk.address, true)]);
    let clusters = backend("c", &[all.address]).into_iter().chain(backend("desk", &[desk.address]));
    let objects: Vec<Object> = clusters.chain([bytes(address), consumer.into(), permission]).collect();
    let mut world = World::empty().await;
    for (namespace, wanted) in [("desk", "x-backend: desk"), ("shop", "GET / HTTP/1.1")] {
        world.publish(objects.iter().cloned().chain([pod(namespace)]).collect()).await;
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let answer = read_until(&mut client, wanted).await;
        assert!(answer.contains(wanted), "{namespace}: {answer}");
    }
}
