// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Proxy, backends, intercepts, record};
use l7::link::{Fault, State, Status};
use l7::{Client, Forward, HttpServer, Key, Kind, Limits, Listener, Mesh, Object, Permission, Serve, Source};
use model::{Pod, PodName, Protocol};
use services::{EndpointSlice, Intercept};
use statedb::{Reader, Tasks, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn pod(name: &str, ips: &[&str]) -> Pod {
    Pod {
        name: PodName::new("kube-system", name),
        uid: name.to_owned(),
        labels: BTreeMap::from([("k8s-app".to_owned(), "cilium-envoy".to_owned())]),
        annotations: BTreeMap::new(),
        service_account: String::new(),
        host_network: false,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        workload: None,
        named_ports: Vec::new(),
        host_ports: Vec::new(),
        ready: true,
        ended: false,
    }
}

/// A proxy that listens for a port of the Gateway `shop/edge`, in each of these families.
fn serving(port: u16, addresses: &[&str]) -> State {
    let listener = |(address, family): (&&str, &str)| {
        Object::from(Listener {
            name: format!("gateway/shop/edge/{port}/tcp{family}").into(),
            address: address.parse().unwrap(),
            port: None,
            transparent: false,
            clear: None,
            node: false,
            proxy_protocol: false,
            limits: Limits::default(),
            serve: Serve::Tcp(Forward::default()),
            sources: vec![Source { object: "Gateway shop/edge".into(), uid: "u1".into(), generation: 3, created: 0 }],
        })
    };
    let objects = addresses.iter().zip(["", "/ipv6"]).map(listener);
    State { status: Some(Status::default()), snapshot: Arc::new(objects.collect()), leaving: false }
}

/// A proxy that routes what these pods send to port 80 of the Service `shop/cart`.
fn routing(clients: &[&str]) -> State {
    let listener = Listener {
        name: "service/shop/cart/80/tcp".into(),
        address: "0.0.0.0:10007".parse().unwrap(),
        port: Some(80),
        transparent: false,
        clear: None,
        node: false,
        proxy_protocol: false,
        limits: Limits::default(),
        serve: Serve::Http(HttpServer {
            mesh: Some(Mesh { consumers: Vec::new(), produces: true }),
            ..HttpServer::default()
        }),
        sources: Vec::new(),
    };
    let client = |ip: &&str| Object::from(Client { name: (*ip).into(), namespace: "shop".into(), identity: 300 });
    let permission = Permission { name: Permission::name_of(300), servers: Vec::new() };
    let objects = clients.iter().map(client).chain([listener.into(), permission.into()]);
    State { status: Some(Status::default()), snapshot: Arc::new(objects.collect()), leaving: false }
}

struct World {
    pods: Writer<Pod>,
    told: mpsc::Sender<(PodName, State)>,
    proxies: Reader<Proxy>,
    slices: Reader<EndpointSlice>,
    intercepts: Reader<Intercept>,
    _tasks: Tasks,
}

impl World {
    fn new() -> Self {
        let tasks = Tasks::new(CancellationToken::new());
        let (pods, known) = statedb::table("pods");
        let (writer, proxies) = statedb::table("proxies");
        let (told, tellings) = mpsc::channel(1);
        tasks.spawn("proxies", record::keep(writer, tellings, known.clone(), "kube-system".into()));
        let slices = backends::derive(&tasks, &proxies, &known, "here");
        let intercepts = intercepts::derive(&tasks, &proxies, &known);
        Self { pods, told, proxies, slices, intercepts, _tasks: tasks }
    }

    async fn tell(&self, name: &str, state: State) {
        self.told.send((PodName::new("kube-system", name), state)).await.unwrap();
        self.settle().await;
    }

    /// The clock is paused: it moves once every task waits.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Proxies of port 80 of the Service `shop/cart`, and the pods that are led there.
    fn intercepted(&self) -> Option<(String, String)> {
        let intercepts = self.intercepts.snapshot();
        let port = &intercepts.iter().find(|row| &*row.service.name == "cart")?.ports[0];
        let proxy = |(address, leaving): &(std::net::SocketAddr, bool)| {
            format!("{address}{}", if *leaving { " leaves" } else { "" })
        };
        let proxies: Vec<_> = port.proxies.iter().map(proxy).collect();
        let clients: Vec<_> = port.clients.iter().map(ToString::to_string).collect();
        Some((proxies.join(", "), clients.join(" ")))
    }

    /// Address, port, and whether new connections go there, of each endpoint of the Service.
    fn endpoints(&self) -> Vec<(String, u16, bool)> {
        let slices = self.slices.snapshot();
        let of_gateway = slices.iter().filter(|slice| &*slice.service.name == "cilium-gateway-edge");
        let each = of_gateway.flat_map(|slice| {
            let port = &slice.ports[0];
            assert_eq!((port.name.as_deref(), port.protocol), (Some("port-80"), Protocol::Tcp));
            slice.endpoints.iter().map(|endpoint| (endpoint.ip.to_string(), port.port, endpoint.ready))
        });
        each.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_a_backend_once_it_listens_and_gives_way_to_the_next() {
    let mut world = World::new();
    world.pods.insert(pod("old", &["10.0.0.7", "fd00::7"]));
    world.pods.mark_initialized();
    world.settle().await;
    assert_eq!(world.endpoints(), []);
    world.tell("old", serving(80, &["0.0.0.0:10001", "[::]:10001"])).await;
    assert_eq!(world.endpoints(), [("10.0.0.7".into(), 10001, true), ("fd00::7".into(), 10001, true)]);

    world.pods.insert(pod("new", &["10.0.0.8", "fd00::8"]));
    world.pods.commit();
    world.tell("new", serving(80, &["0.0.0.0:10002"])).await;
    world.tell("old", State { leaving: true, ..serving(80, &["0.0.0.0:10001"]) }).await;
    assert_eq!(world.endpoints(), [("10.0.0.8".into(), 10002, true), ("10.0.0.7".into(), 10001, false)]);
    world.pods.remove(&PodName::new("kube-system", "old"));
    world.pods.commit();
    world.settle().await;
    assert_eq!(world.endpoints(), [("10.0.0.8".into(), 10002, true)]);
    assert_eq!(world.proxies.snapshot().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_lacks_a_part_is_a_backend_for_the_rest_and_one_that_is_closed_is_none() {
    let mut world = World::new();
    world.pods.insert(pod("one", &["10.0.0.7"]));
    world.pods.mark_initialized();
    let object = Key { kind: Kind::Listener, name: "gateway/shop/edge/80/tcp".into() };
    for (partial, endpoints) in [(true, 1), (false, 0), (true, 1)] {
        let faults = vec![Fault { object: object.clone(), reason: "a part of it".into(), partial }];
        let state = serving(80, &["0.0.0.0:10001"]);
        world.tell("one", State { status: Some(Status { faults, ..Status::default() }), ..state }).await;
        assert_eq!(world.endpoints().len(), endpoints, "{partial}");
        let proxies = world.proxies.snapshot();
        let in_force = &proxies.iter().next().unwrap().in_force;
        assert_eq!((in_force.generations.len(), in_force.closed.len()), (endpoints, 1 - endpoints));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_with_routes_is_led_to_the_proxies_for_pods_that_all_who_stay_know() {
    let mut world = World::new();
    world.pods.insert(pod("old", &["10.0.0.7", "fd00::7"]));
    world.pods.mark_initialized();
    let led = |proxies: &str, pods: &str| Some((proxies.to_owned(), pods.to_owned()));
    world.tell("old", routing(&["10.0.0.1", "10.0.0.2"])).await;
    assert_eq!(world.intercepted(), led("10.0.0.7:10007", "10.0.0.1 10.0.0.2"));
    world.pods.insert(pod("new", &["10.0.0.8", "fd00::8"]));
    world.pods.commit();
    world.tell("new", routing(&["10.0.0.2", "10.0.0.3"])).await;
    assert_eq!(world.intercepted(), led("10.0.0.8:10007, 10.0.0.7:10007", "10.0.0.2"));
    world.tell("old", State { leaving: true, ..routing(&["10.0.0.1", "10.0.0.2"]) }).await;
    assert_eq!(world.intercepted(), led("10.0.0.8:10007, 10.0.0.7:10007 leaves", "10.0.0.2 10.0.0.3"));
    world.tell("new", serving(80, &["0.0.0.0:10001"])).await;
    assert_eq!(world.intercepted(), led("10.0.0.7:10007 leaves", "10.0.0.1 10.0.0.2"));
    world.tell("old", serving(80, &["0.0.0.0:10001"])).await;
    assert_eq!(world.intercepted(), None);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_services_stay_what_they_were_until_all_proxies_have_said_what_they_do() {
    let mut world = World::new();
    for name in ["one", "two"] {
        world.pods.insert(pod(name, &["10.0.0.7"]));
    }
    world.pods.insert(pod("starting", &[]));
    world.pods.mark_initialized();
    world.tell("one", serving(80, &["0.0.0.0:10001"])).await;
    assert!(!world.slices.snapshot().initialized());
    world.tell("two", serving(80, &["0.0.0.0:10001"])).await;
    assert!(world.slices.snapshot().initialized());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_comes_does_not_hold_services_up() {
    let mut world = World::new();
    world.pods.insert(pod("stale", &["10.0.0.7"]));
    world.pods.mark_initialized();
    world.settle().await;
    assert!(!world.slices.snapshot().initialized());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(world.slices.snapshot().initialized());
}

fn hubble(folder: &std::path::Path, enabled: bool, tasks: &Tasks) -> hubble::Outputs {
    let config = hubble::Config { enabled, socket: folder.join("hubble.sock"), ..hubble::Config::default() };
    let tables = hubble::Tables {
        ipcache: statedb::table("ipcache").1,
        endpoints: statedb::table("endpoints").1,
        pods: statedb::table("pods").1,
        identities: statedb::table("identities").1,
        frontends: statedb::table("frontends").1,
        provenance: statedb::table("provenance").1,
        nodes: statedb::table("nodes").1,
    };
    hubble::start(config, hubble::Inputs { node_name: "here".into(), tables }, tasks)
}

#[tokio::test]
async fn requests_go_to_hubble_and_nowhere_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = gateway::Config { enabled: true, ..gateway::Config::default() };
    let tasks = Tasks::new(CancellationToken::new());
    let observing = hubble(folder.path(), true, &tasks);
    super::observe(&config, folder.path(), observing.sink.clone(), &tasks);
    let socket = folder.path().join("proxy").join(l7::link::REQUESTS);
    let wait = Duration::from_secs(10);
    let connect = async {
        loop {
            match tokio::net::UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut stream = tokio::time::timeout(wait, connect).await.unwrap();
    let served = l7::Exchange { cluster: Some("shop/web:80".into()), status: 200, ..l7::Exchange::default() };
    let told = l7::link::Exchanges { lost: 2, exchanges: vec![served] };
    told.tell(&mut stream).await.unwrap();
    let seen = async {
        // The loss, and a request with its answer.
        while observing.status.figures().is_none_or(|figures| (figures.current, figures.seen) != (2, 2)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(wait, seen).await.unwrap();

    let off = hubble(folder.path(), false, &tasks);
    super::observe(&config, folder.path(), off.sink, &tasks);
    assert!(!socket.exists());
}
