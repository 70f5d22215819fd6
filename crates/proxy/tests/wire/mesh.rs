// SPDX-License-Identifier: Apache-2.0
//! What pods send to Services: the routes of their namespace, and no way past policy.

use crate::backend::Backend;
use crate::client::{get, status, value};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::{
    Attachment, Client, Consumer, HttpForward, HttpServer, Mesh, Mirror, Object, Permission, RouteAction, Serve,
    Server, Share,
};
use std::net::SocketAddr;
use std::time::Duration;
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
