// SPDX-License-Identifier: Apache-2.0
//! Sockets of the node, which the agent opens: proxies and agents come and go.

use crate::backend::{Backend, datagrams};
use crate::client::{get, status, text};
use crate::hand_over::Load;
use crate::objects::*;
use crate::world::{DEADLINE, Process, World, free};
use l7::{Listener, Object, Serve};
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

fn of_node(listener: Listener) -> Object {
    Listener { node: true, ..listener }.into()
}

fn objects(address: SocketAddr, backend: SocketAddr) -> Vec<Object> {
    let mut objects = simple(address, backend);
    objects[0] = of_node(http(address));
    objects
}

/// Waits until a process has a configuration in force.
async fn serves(process: &Process) {
    let request = "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let address = process.config.health_address;
    let wait = async {
        while tokio::net::TcpStream::connect(address).await.is_err() || status(&text(address, request).await) != 200 {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("the process serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_agents_follow_each_other_under_load_without_a_failed_request() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(objects(address, backend.address)).await;
    let load = Load::start(address);
    for turn in 0..3 {
        load.goes_on(200).await;
        // Another pod has a network of its own, and with it a hand-over of its own.
        let hand_over = world.folder.path().join(format!("hand-over-{turn}.sock"));
        let next = Process::start(world.folder.path(), |config| config.hand_over_socket = hand_over);
        serves(&next).await;
        let mut before = std::mem::replace(&mut world.proxy, next);
        before.stop.cancel();
        before.ended().await;
        load.goes_on(200).await;
        world.stop_agent();
        load.goes_on(100).await;
        world.start_agent();
        world.publish(objects(address, backend.address)).await;
    }
    load.goes_on(200).await;
    assert_eq!(load.failed().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_something_else_has_is_told_of_and_the_rest_serves_until_it_is_free() {
    let (address, other, backend) = (free(), free(), Backend::echo("a").await);
    let taken = std::net::TcpListener::bind(other).unwrap();
    let mut world = World::empty().await;
    let mut all = objects(address, backend.address);
    all.push(of_node(http(other)));
    let told = world.publish(all).await;
    let faults: Vec<_> = told.faults.iter().map(|fault| (&*fault.object.name, fault.partial)).collect();
    assert_eq!(faults, [(&*format!("listener-{other}"), false)]);
    assert!(told.faults[0].reason.contains("in use"), "{told:?}");
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    drop(taken);
    world.status_when(|status| status.faults.is_empty()).await;
    assert_eq!(status(&get(other, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_gone_refuses_and_without_an_agent_a_new_one_waits() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(objects(address, backend.address)).await;
    world.publish(Vec::new()).await;
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, refused).await.expect("agent and proxy close it");
    world.publish(objects(address, backend.address)).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_and_ipv6_are_the_nodes_too() {
    let to = datagrams("[::1]:0").await;
    let address = SocketAddr::new("::1".parse().unwrap(), ports::free());
    let udp = of_node(listener(address, Serve::Udp(bytes_to("c"))));
    let _world = World::of(vec![udp, cluster("c").into(), endpoints("c", &[to]).into()]).await;
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    client.send_to(b"hello", address).await.unwrap();
    let mut bytes = [0; 64];
    let (length, from) = timeout(DEADLINE, client.recv_from(&mut bytes)).await.unwrap().unwrap();
    assert_eq!((&bytes[..length], from), (&b"hello"[..], address));
}
