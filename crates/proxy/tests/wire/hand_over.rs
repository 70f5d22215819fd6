// SPDX-License-Identifier: Apache-2.0
//! Restarts: of the agent, of the proxy, of backends.

use crate::backend::Backend;
use crate::client::{connect, get, read_until, status, value};
use crate::objects::*;
use crate::world::{DEADLINE, Process, World, free};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Clients that ask all the time, half of them by connections of one request.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: tokio::task::JoinSet<Vec<String>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut clients = tokio::task::JoinSet::new();
        for keeps in [true, false, true, false] {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            clients.spawn(async move {
                let mut failed = Vec::new();
                let mut stream = None;
                while !stop.load(SeqCst) {
                    let mut open = match stream.take() {
                        Some(open) => open,
                        None => match tokio::net::TcpStream::connect(address).await {
                            Ok(open) => open,
                            Err(error) => {
                                failed.push(error.to_string());
                                break;
                            }
                        },
                    };
                    let more = if keeps { "" } else { "connection: close\r\n" };
                    let sent = open.write_all(format!("GET / HTTP/1.1\r\nhost: h\r\n{more}\r\n").as_bytes()).await;
                    let answer = read_until(&mut open, "length: 0\n").await;
                    match (sent, status(&answer)) {
                        (Ok(()), 200) => drop(answered.fetch_add(1, SeqCst)),
                        (sent, _) => failed.push(format!("{sent:?} {answer}")),
                    }
                    let ends = value(&answer, "connection") == Some("close");
                    stream = (keeps && !ends).then_some(open);
                }
                failed
            });
        }
        Self { stop, answered, clients }
    }

    /// Waits for as many answers more.
    pub(crate) async fn goes_on(&self, answers: usize) {
        let wanted = self.answered.load(SeqCst) + answers;
        let wait = async {
            while self.answered.load(SeqCst) < wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, wait).await.expect("requests are answered");
    }

    pub(crate) async fn failed(mut self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        let mut failed = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            failed.extend(client.unwrap());
        }
        failed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_takes_over_under_load_without_a_failed_request() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let load = Load::start(address);
    for _ in 0..3 {
        load.goes_on(200).await;
        let next = Process::start(world.folder.path(), |_| {});
        let mut before = std::mem::replace(&mut world.proxy, next);
        before.ended().await;
    }
    load.goes_on(200).await;
    assert_eq!(load.failed().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_fails_half_way_takes_nothing_over() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    let path = world.folder.path().join("hand-over.sock");
    for _ in 0..3 {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        socket.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        drop(socket);
        assert_eq!(status(&get(address, "h", "/", "").await), 200);
    }
    assert_eq!(world.proxy.config.health_address.ip().to_string(), "127.0.0.1");
    let health = crate::client::text(
        world.proxy.config.health_address,
        "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(status(&health.await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_an_agent_starts_from_what_was_in_force() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let state = world.folder.path().join("state.json");
    timeout(DEADLINE, async {
        while !std::fs::read_to_string(&state).is_ok_and(|text| text.contains("listener")) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    world.stop_agent();
    world.proxy.stop.cancel();
    world.proxy.ended().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    world.proxy = Process::start(world.folder.path(), |_| {});
    timeout(DEADLINE, async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    // The agent comes back with something else, which is what counts.
    world.start_agent();
    let elsewhere = free();
    world.publish(simple(elsewhere, backend.address)).await;
    assert_eq!(status(&get(elsewhere, "h", "/", "").await), 200);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_agent_everything_stays_as_it_is() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    world.stop_agent();
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    world.start_agent();
    let mut objects = simple(address, backend.address);
    objects.remove(1);
    world.publish(objects).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_to_end_answers_what_it_was_asked() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let mut client = connect(address).await;
    let body = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbo";
    client.write_all(body).await.unwrap();
    timeout(DEADLINE, async {
        while backend.requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    world.proxy.stop.cancel();
    timeout(DEADLINE, async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    client.write_all(b"dy").await.unwrap();
    let answer = crate::client::read_all(&mut client).await;
    assert_eq!(
        (status(&answer), value(&answer, "length"), value(&answer, "connection")),
        (200, Some("4"), Some("close"))
    );
    world.proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_connected_before_the_end_is_served() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    // Connections that come faster than the process takes them.
    let clients: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    world.proxy.stop.cancel();
    let mut asking = tokio::task::JoinSet::new();
    for client in clients {
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        asking.spawn(async move {
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            status(&crate::client::read_all(&mut client).await)
        });
    }
    assert_eq!(asking.join_all().await, [200; 300]);
    world.proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_change_and_backends_roll_under_load_without_a_failed_request() {
    let (address, mut old) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, old.address)).await;
    let load = Load::start(address);
    for turn in 0..20_u32 {
        let new = Backend::echo("a").await;
        let mut objects = simple(address, new.address);
        // Both at first: the one before is terminating.
        let mut both = endpoints("c", &[new.address, old.address]);
        both.endpoints[1].state = l7::EndpointState::Terminating;
        objects[3] = both.into();
        objects[1] = route(
            "all",
            "/",
            l7::RouteAction::Forward(l7::HttpForward {
                timeout: Some(std::time::Duration::from_secs(10 + u64::from(turn))),
                ..forward("c")
            }),
        )
        .into();
        world.publish(objects).await;
        load.goes_on(50).await;
        world.publish(simple(address, new.address)).await;
        load.goes_on(50).await;
        old = new;
    }
    assert_eq!(load.failed().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_told_of_until_it_is_free() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let taken = std::net::TcpListener::bind(address).unwrap();
    let mut world = World::empty().await;
    let status = world.publish(simple(address, backend.address)).await;
    assert_eq!(status.faults.len(), 1);
    assert!(status.faults[0].reason.contains("in use"), "{status:?}");
    drop(taken);
    world.status_when(|status| status.faults.is_empty()).await;
    assert_eq!(crate::client::status(&get(address, "h", "/", "").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_while_clients_are_sent_elsewhere_is_still_served() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let mut world = World::of(simple(address, backend.address)).await;
    let next = Process::start(world.folder.path(), |config| config.linger_time = DEADLINE * 10);
    let mut before = std::mem::replace(&mut world.proxy, next);
    before.ended().await;
    world.proxy.stop.cancel();
    world.state_when(|state| state.leaving).await;
    assert_eq!(status(&get(address, "h", "/", "").await), 200);
    // The agent has sent them elsewhere: nothing holds the process up any more.
    world.stop_agent();
    world.proxy.ended().await;
}
