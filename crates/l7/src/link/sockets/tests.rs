// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::{Forward, Limits, Serve, Snapshot, Version};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;

const LOCAL: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// Addresses that nobody has, of both families.
fn free() -> Vec<SocketAddr> {
    // What was bound and never connected to is free again at once.
    LOCAL.iter().map(|address| TcpListener::bind(address).unwrap().local_addr().unwrap()).collect()
}

fn place(udp: bool, address: SocketAddr) -> Place {
    Place { udp, address, transparent: false, node: true }
}

fn published(version: u64, places: &[Place]) -> Published {
    let listener = |place: &Place| {
        let forward = Forward::default();
        crate::Object::from(Listener {
            name: place.to_string().into(),
            address: place.address,
            port: None,
            transparent: false,
            clear: None,
            node: place.node,
            proxy_protocol: false,
            limits: Limits::default(),
            serve: if place.udp { Serve::Udp(forward) } else { Serve::Tcp(forward) },
            sources: Vec::new(),
        })
    };
    let snapshot: Snapshot = places.iter().map(listener).collect();
    Published { version: Version(version), snapshot: Arc::new(snapshot) }
}

struct Agent {
    path: PathBuf,
    snapshots: Sender<Published>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(folder: &Path, places: &[Place]) -> Self {
        let path = folder.join(SOCKETS);
        let (snapshots, receiver) = watch::channel(published(1, places));
        let sockets = NodeSockets::open(&path, receiver).unwrap();
        Self { path, snapshots, task: tokio::spawn(sockets.serve()) }
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What a proxy has got.
type Held = HashMap<Place, OwnedFd>;

async fn ask(mut line: NodeLine, held: Held, wanted: &[Place]) -> (NodeLine, Held, io::Result<Answers>) {
    let wanted = wanted.to_vec();
    let asking = move || {
        let answers = line.ask(&held, &wanted);
        (line, held, answers)
    };
    tokio::task::spawn_blocking(asking).await.unwrap()
}

async fn given(line: NodeLine, wanted: &[Place]) -> (NodeLine, Held) {
    let (line, _, answers) = ask(line, Held::new(), wanted).await;
    (line, answers.unwrap().into_iter().map(|(place, socket)| (place, socket.unwrap())).collect())
}

/// Waits until nobody listens there.
async fn refused(address: SocketAddr) {
    let refused = async {
        while TcpStream::connect(address).is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
}

#[tokio::test]
async fn sockets_of_both_families_and_protocols_are_handed_over_and_only_those_that_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = free();
    let places: Vec<_> = addresses.iter().flat_map(|address| [place(false, *address), place(true, *address)]).collect();
    let agent = Agent::start(folder.path(), &places);
    let (line, held) = given(NodeLine::new(agent.path.clone()), &places).await;
    for place in &places {
        let socket = Socket::from(held[place].try_clone().unwrap());
        assert!(place.has(&socket), "{place}");
        if place.udp {
            let client = UdpSocket::bind(SocketAddr::new(place.address.ip(), 0)).unwrap();
            client.send_to(b"?", place.address).unwrap();
            let socket = UdpSocket::from(socket);
            socket.set_nonblocking(false).unwrap();
            assert_eq!(socket.recv_from(&mut [0; 2]).unwrap(), (1, client.local_addr().unwrap()));
        } else {
            let client = TcpStream::connect(place.address).unwrap();
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(false).unwrap();
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        }
    }
    let other = place(false, free()[0]);
    let (_, _, answers) = ask(line, held, &[other]).await;
    assert!(answers.unwrap()[0].1.is_err(), "no listener wants it");
}

#[tokio::test]
async fn an_address_that_another_has_is_refused_by_name_and_the_rest_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (lost, had) = (place(false, taken.local_addr().unwrap()), place(false, free()[0]));
    let agent = Agent::start(folder.path(), &[lost, had]);
    let (line, held, answers) = ask(NodeLine::new(agent.path.clone()), Held::new(), &[lost, had]).await;
    let answers = answers.unwrap();
    assert!(answers[0].1.as_ref().unwrap_err().to_string().contains("in use"), "{answers:?}");
    assert!(answers[1].1.is_ok());
    drop(taken);
    let (.., answers) = ask(line, held, &[lost]).await;
    assert!(answers.unwrap()[0].1.is_ok());
}

#[tokio::test]
async fn another_proxy_and_another_agent_have_the_same_socket() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(false, free()[0]);
    let agent = Agent::start(folder.path(), &[place]);
    let (line, held) = given(NodeLine::new(agent.path.clone()), &[place]).await;
    let _client = TcpStream::connect(place.address).unwrap();
    // It waits in the queue that all share.
    let (_, next) = given(NodeLine::new(agent.path.clone()), &[place]).await;
    let next = TcpListener::from(next.into_values().next().unwrap());
    next.set_nonblocking(false).unwrap();
    next.accept().unwrap();
    drop(next);
    agent.stop().await;
    let agent = Agent::start(folder.path(), &[place]);
    let (_, held, answers) = ask(line, held, &[]).await;
    assert_eq!(answers.unwrap().len(), 0);
    drop(held);
    TcpStream::connect(place.address).expect("the agent has it of the proxy");
    let (_, held) = given(NodeLine::new(agent.path.clone()), &[place]).await;
    assert_eq!(held.len(), 1);
}

#[tokio::test]
async fn what_a_proxy_says_that_it_has_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = place(false, free()[0]);
    let agent = Agent::start(folder.path(), &[wanted]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let lie = Held::from([(wanted, OwnedFd::from(other))]);
    let (.., answers) = ask(NodeLine::new(agent.path.clone()), lie, &[wanted]).await;
    let socket = Socket::from(answers.unwrap().pop().unwrap().1.unwrap());
    assert!(wanted.has(&socket), "{socket:?}");
}

#[tokio::test]
async fn a_socket_that_is_not_wanted_any_more_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let places: Vec<_> = free().into_iter().map(|address| place(false, address)).collect();
    let agent = Agent::start(folder.path(), &places);
    let (_line, held) = given(NodeLine::new(agent.path.clone()), &places).await;
    drop(held);
    TcpStream::connect(places[0].address).unwrap();
    agent.snapshots.send_replace(published(2, &places[1..]));
    refused(places[0].address).await;
    TcpStream::connect(places[1].address).unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_are_refused_once_there_has_been_no_proxy_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(false, free()[0]);
    let agent = Agent::start(folder.path(), &[place]);
    let (line, held) = given(NodeLine::new(agent.path.clone()), &[place]).await;
    drop((line, held));
    sleep(ALONE - Duration::from_secs(1)).await;
    TcpStream::connect(place.address).expect("the next proxy may come yet");
    sleep(Duration::from_secs(2)).await;
    refused(place.address).await;
}
