// SPDX-License-Identifier: Apache-2.0
//! The whole of it in two real network namespaces: one is the node, one its health endpoint. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use datapath::netlink::{Address, LinkChange, Netlink, Scope, VethEnd};
use datapath::netns;
use health::{Config, Inputs, Outputs};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use model::{LocalNode, Node, NodeName, RoutingMode, reserved};
use nix::sched::{CloneFlags, unshare};
use rest::{HealthResponse, HealthStatusResponse, NodeStatus, PathStatus, StatusResponse};
use serde_json::Value;
use statedb::{Tasks, Writer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const NODE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

/// Runs the test in a network namespace of its own, on a thread of its own.
fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(120), test()).await.expect("in time") });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn set_up(netlink: &Netlink, name: &str, address: Option<Ipv4Addr>) {
    let index = netlink.link(name).await.unwrap().unwrap().index;
    netlink.change_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
    if let Some(ip) = address {
        let net = format!("{ip}/24").parse().unwrap();
        netlink.replace_address(Address { ifindex: index, net, scope: Scope::Universe }).await.unwrap();
    }
}

/// A namespace that is reached by a pair of devices.
async fn endpoint() -> OwnedFd {
    let (here, inside) = (Netlink::open().unwrap(), netns::create().unwrap());
    let host = VethEnd { name: "lxc_health", ..VethEnd::default() };
    let peer = VethEnd { name: "eth0", netns: Some(inside.as_fd()), ..VethEnd::default() };
    here.create_veth(host, peer).await.unwrap();
    set_up(&here, "lo", None).await;
    set_up(&here, "lxc_health", Some(NODE)).await;
    set_up(&Netlink::open_in(inside.as_fd()).unwrap(), "eth0", Some(ENDPOINT)).await;
    inside
}

fn node(name: &str, internal: Vec<IpAddr>, health: Vec<IpAddr>) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "blue".to_owned(),
        internal_ips: internal,
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: health,
        pod_cidrs: Vec::new(),
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: name == "n1",
    }
}

fn local_node() -> LocalNode {
    LocalNode {
        name: "n1".to_owned(),
        ipv4: Some(NODE),
        ipv6: Some(Ipv6Addr::LOCALHOST),
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

/// The feature, started, with the other ends of it.
struct Running {
    outputs: Outputs,
    nodes: Writer<Node>,
    _local: Writer<LocalNode>,
    endpoint: watch::Sender<Option<Arc<OwnedFd>>>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("health.sock");
    let (nodes, node_reader) = statedb::table("nodes");
    let (mut local, local_reader) = statedb::table("local-node");
    local.insert(local_node());
    local.mark_initialized();
    let (endpoint, receiver) = watch::channel(None);
    let inputs = Inputs {
        node_name: "n1".to_owned(),
        socket: socket.clone(),
        nodes: node_reader,
        local_node: local_reader,
        endpoint: receiver,
        agent: Arc::new(StatusResponse::default),
    };
    let outputs = health::start(Config::default(), inputs, &Tasks::new(CancellationToken::new()));
    Running { outputs, nodes, _local: local, endpoint, socket, _folder: folder }
}

impl Running {
    /// Waits for a report of that kind.
    async fn until(&mut self, wanted: impl Fn(&HealthStatusResponse) -> bool) -> Arc<HealthStatusResponse> {
        Arc::clone(&self.outputs.status.wait_for(|status| wanted(status)).await.unwrap())
    }

    /// What the API answers.
    async fn ask(&self, method: Method, path: &str) -> Value {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(format!("/v1beta{path}")).body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.status().is_success());
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }
}

fn of<'a>(status: &'a HealthStatusResponse, name: &str) -> &'a NodeStatus {
    status.nodes.iter().find(|node| node.name == name).unwrap()
}

/// What an echo request and a request for `/hello` found.
fn found(path: &PathStatus) -> (&str, &str) {
    (&path.icmp.as_ref().unwrap().status, &path.http.as_ref().unwrap().status)
}

#[test]
fn node_and_endpoint_answer_and_a_lost_one_is_told_from_them() {
    in_a_namespace(|| async {
        let inside = endpoint().await;
        let mut running = start();
        running.endpoint.send_replace(Some(Arc::new(inside)));
        let internal = vec![NODE.into(), Ipv6Addr::LOCALHOST.into()];
        running.nodes.insert(node("n1", internal, vec![ENDPOINT.into()]));
        running.nodes.insert(node("n2", vec![NOBODY.into()], Vec::new()));
        running.nodes.mark_initialized();

        let status = running.until(|status| status.healthy() == 1 && status.nodes.len() == 2).await;
        assert!(of(&status, "blue/n2").health_endpoint.is_none());
        let status = running.until(|status| of(status, "blue/n1").host_paths().all(|path| path.icmp.is_some())).await;
        let local = of(&status, "blue/n1");
        let paths: Vec<_> = local.host_paths().chain(local.endpoint_paths()).collect();
        assert_eq!(paths.iter().map(|path| path.ip.as_str()).collect::<Vec<_>>(), ["10.9.0.1", "::1", "10.9.0.2"]);
        assert!(paths.iter().all(|path| found(path) == ("", "")), "{paths:?}");
        assert!(paths.iter().all(|path| path.icmp.as_ref().unwrap().latency > 0));
        let lost = of(&status, "blue/n2").host_paths().next().unwrap();
        assert_eq!(found(lost).0, "Connection timed out");
        assert!(found(lost).1.starts_with("Get \"http://10.9.0.3:4240/hello\": "), "{lost:?}");

        let health: HealthResponse = serde_json::from_value(running.ask(Method::GET, "/healthz").await).unwrap();
        assert!(health.system_load.is_some());
        assert_eq!(running.ask(Method::GET, "/status").await["local"]["name"], "blue/n1");
        running.nodes.remove(&NodeName { cluster: "blue".to_owned(), name: "n2".to_owned() });
        running.nodes.commit();
        let fresh = running.ask(Method::PUT, "/status/probe").await;
        assert_eq!(fresh["nodes"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn the_responder_of_the_endpoint_comes_and_goes_with_its_namespace() {
    in_a_namespace(|| async {
        let inside = Arc::new(endpoint().await);
        let mut running = start();
        running.nodes.insert(node("n1", vec![NODE.into()], vec![ENDPOINT.into()]));
        running.nodes.mark_initialized();
        let http = |status: &HealthStatusResponse| {
            let path = status.nodes.first()?.endpoint_paths().next()?;
            Some(path.http.as_ref()?.status.clone())
        };
        // The kernel of the endpoint answers echo requests, but there is no responder.
        let refused = Some("Get \"http://10.9.0.2:4240/hello\": Connection refused".to_owned());
        let status = running.until(|status| http(status).is_some()).await;
        assert_eq!(http(&status), refused);
        assert_eq!(found(of(&status, "blue/n1").endpoint_paths().next().unwrap()).0, "");

        running.endpoint.send_replace(Some(Arc::clone(&inside)));
        running.until(|status| http(status).as_deref() == Some("")).await;

        running.endpoint.send_replace(None);
        // A request for new probes shows it before it is their turn.
        while http(&serde_json::from_value(running.ask(Method::PUT, "/status/probe").await).unwrap()) != refused {}
    });
}

#[test]
fn nothing_is_started_when_it_is_switched_off() {
    in_a_namespace(|| async {
        let folder = tempfile::tempdir().unwrap();
        let socket: &Path = &folder.path().join("health.sock");
        let tasks = Tasks::new(CancellationToken::new());
        let (_endpoint, receiver) = watch::channel(None);
        let inputs = Inputs {
            node_name: "n1".to_owned(),
            socket: socket.into(),
            nodes: statedb::table("nodes").1,
            local_node: statedb::table("local-node").1,
            endpoint: receiver,
            agent: Arc::new(StatusResponse::default),
        };
        let outputs = health::start(Config { enabled: false, ..Config::default() }, inputs, &tasks);
        assert_eq!((tasks.list().len(), outputs.status.borrow().nodes.len()), (0, 0));
    });
}
