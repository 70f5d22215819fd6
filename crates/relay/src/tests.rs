// SPDX-License-Identifier: Apache-2.0
//! The whole relay, and nodes on ports of their own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use crate::config::Config;
use crate::fixture::{DEADLINE, Does, Fake, Script};
use hubble::client::{HEALTH_SERVICE, Server};
use hubble::proto::flow::FlowFilter;
use hubble::proto::nanos;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{
    GetFlowsRequest, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest, ServerStatusResponse,
};
use hubble::proto::relay::NodeState;
use hubble::server::{Listeners, TlsFile, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use statedb::Tasks;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A relay that runs until it is dropped.
struct Running {
    listen: SocketAddr,
    _tasks: Tasks,
}

fn port() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, ports::free()).into()
}

impl Running {
    async fn start(service: String, config: Config) -> Self {
        let listen = port();
        let config = Config {
            peer_service: service,
            listen: Some(listen),
            health_listen: None,
            retry_timeout: Duration::from_millis(20),
            disable_server_tls: true,
            ..config
        };
        let tasks = Tasks::new(CancellationToken::new());
        crate::start(config, &tasks).await;
        Self { listen, _tasks: tasks }
    }

    async fn channel(&self) -> Channel {
        let server = Server { address: self.listen.to_string(), ..Server::default() };
        wait("the relay", async || server.connect().await.ok()).await
    }

    /// Waits until so many nodes are connected, and so many are not.
    async fn settled(&self, connected: u32, away: u32) -> ServerStatusResponse {
        let mut client = ObserverClient::new(self.channel().await);
        wait("the nodes", async || {
            let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
            let now = (status.num_connected_nodes, status.num_unavailable_nodes);
            (now == (Some(connected), Some(away))).then_some(status)
        })
        .await
    }
}

async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = timeout(DEADLINE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what}: did not come about"))
}

fn without_tls() -> Config {
    Config { disable_client_tls: true, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flow_of_a_hundred_nodes_arrives_and_in_order() {
    const NODES: i64 = 100;
    const FLOWS: i64 = 300;
    let mut fakes = Vec::new();
    for node in 0..NODES {
        let times = (0..FLOWS).map(|flow| flow * NODES + node).collect();
        fakes.push(Fake::start(&format!("node-{node:03}"), Does::Tell(times)).await);
    }
    let service = Fake::telling_of(&fakes).await;
    let relay = Running::start(service.address.to_string(), without_tls()).await;
    let status = relay.settled(100, 0).await;
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (1000, 409_500, 10_000));
    let mut client = ObserverClient::new(relay.channel().await);
    let mut flows = client.get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let mut times = Vec::new();
    while let Some(answer) = timeout(DEADLINE, flows.message()).await.unwrap().unwrap() {
        if let Some(ResponseTypes::Flow(_)) = answer.response_types {
            times.push(nanos(&answer.time.unwrap()));
        }
    }
    assert!(times.iter().copied().eq(0..NODES * FLOWS), "{} flows, not all in order", times.len());
}

#[tokio::test]
async fn a_relay_is_well_when_a_node_is_connected_and_lists_all_of_them() {
    let mut fakes = vec![Fake::start("a", Does::Tell(Vec::new())).await, Fake::start("b", Does::Hang).await];
    let dead = Fake { address: port(), ..Fake::start("c", Does::Hang).await };
    fakes.push(dead);
    let service = Fake::telling_of(&fakes).await;
    let alone = Running::start(port().to_string(), without_tls()).await;
    let config = Config { dial_timeout: Duration::from_millis(500), ..without_tls() };
    let relay = Running::start(service.address.to_string(), config).await;
    let status = relay.settled(1, 2).await;
    assert_eq!(status.unavailable_nodes, ["b", "c"]);
    for (relay, name, want) in [
        (&relay, HEALTH_SERVICE, ServingStatus::Serving),
        (&relay, "observer.Observer", ServingStatus::Serving),
        (&alone, "observer.Observer", ServingStatus::NotServing),
        (&alone, "", ServingStatus::Serving),
    ] {
        let mut health = HealthClient::new(relay.channel().await);
        let said = health.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap().into_inner();
        assert_eq!(said.status(), want, "{name}");
    }
    let mut client = ObserverClient::new(relay.channel().await);
    let answer = client.get_nodes(GetNodesRequest {}).await.unwrap();
    assert!(answer.metadata().contains_key("hubble-server-version"));
    let states: Vec<_> = answer.get_ref().nodes.iter().map(|node| (node.name.as_str(), node.state())).collect();
    let want = [("a", NodeState::NodeConnected), ("b", NodeState::NodeError), ("c", NodeState::NodeUnavailable)];
    assert_eq!(states, want);
    let namespaces = client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    let names: Vec<_> = namespaces.iter().map(|namespace| namespace.namespace.as_str()).collect();
    assert_eq!(names, ["a", "b", "shop"]);
}

#[tokio::test]
async fn what_no_node_can_honour_is_refused_once() {
    let fakes = [Fake::start("a", Does::Tell(Vec::new())).await];
    let service = Fake::telling_of(&fakes).await;
    let relay = Running::start(service.address.to_string(), without_tls()).await;
    relay.settled(1, 0).await;
    let filter = FlowFilter { source_ip: vec!["nowhere".to_owned()], ..FlowFilter::default() };
    let request = GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() };
    let refused = ObserverClient::new(relay.channel().await).get_flows(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("source_ip") && fakes[0].script.asked.lock().is_empty(), "{refused}");
}

#[tokio::test]
async fn a_flow_that_is_as_large_as_clients_take_costs_them_no_other_nodes_flows() {
    // Its name is added by the relay.
    let large = Fake::start("a", Does::Flood((4 << 20) - 100)).await;
    let large = Fake { name: "a".repeat(200), ..large };
    let fakes = [large, Fake::start("b", Does::Tell(vec![1, 2])).await];
    let service = Fake::telling_of(&fakes).await;
    let relay = Running::start(service.address.to_string(), without_tls()).await;
    relay.settled(2, 0).await;
    let mut client = ObserverClient::new(relay.channel().await);
    let mut answers = client.get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let (mut flows, mut said) = (0, String::new());
    while let Some(answer) = timeout(DEADLINE, answers.message()).await.unwrap().unwrap() {
        match answer.response_types {
            Some(ResponseTypes::Flow(_)) => flows += 1,
            Some(ResponseTypes::NodeStatus(status)) => said += &status.message,
            _ => {}
        }
    }
    assert_eq!(flows, 2);
    assert!(said.contains("too large"), "{said}");
}

#[tokio::test]
async fn what_a_node_makes_up_about_itself_spoils_no_sum_and_no_list() {
    let fakes = [Fake::start("a", Does::Lie("x")).await, Fake::start("b", Does::Tell(Vec::new())).await];
    let service = Fake::telling_of(&fakes).await;
    let relay = Running::start(service.address.to_string(), without_tls()).await;
    let status = relay.settled(2, 0).await;
    assert_eq!((status.flows_rate, status.num_flows), (1.5, u64::MAX));
    let nodes = ObserverClient::new(relay.channel().await).get_nodes(GetNodesRequest {}).await.unwrap().into_inner();
    assert_eq!(nodes.nodes.iter().map(|node| node.version.len()).collect::<Vec<_>>(), [128, 0]);
}

/// Signs certificates into a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn sign(&self, name: &str) -> [String; 3] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let path =
            |end: &str| self.dir.path().join(format!("{}{end}", name.trim_start_matches("*."))).display().to_string();
        std::fs::write(path(".crt"), certificate).unwrap();
        std::fs::write(path(".key"), key.serialize_pem()).unwrap();
        [path(".crt"), path(".key"), self.dir.path().join("ca.crt").display().to_string()]
    }

    /// Serves as an agent does, to clients of the same authority.
    async fn serve(&self, script: Script, certificate: &str, tasks: &Tasks) -> Fake {
        let [certificate, key, authority] =
            self.sign(certificate).map(|path| TlsFile { option: "test", path: Path::new(&path).to_owned() });
        let files = TlsFiles { certificate, key, client_authorities: vec![authority] };
        let routes = script.routes().await;
        let address = port();
        tasks.spawn("agent", Listeners::new(routes.clone()).serve_network(address, Some(files)));
        Fake { address, ..Fake::serve(script, routes).await }
    }
}

#[tokio::test]
async fn nodes_are_believed_by_their_own_names_only_and_want_a_certificate_too() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tasks = Tasks::new(CancellationToken::new());
    let everybody = "*.blue.hubble-grpc.cilium.io";
    let start = async |name: &str, authority: &Authority, certificate: &str| {
        authority.serve(Script::new(name, Does::Tell(Vec::new())), certificate, &tasks).await
    };
    let good = start("good", &ours, everybody).await;
    let other = start("other", &ours, "*.green.hubble-grpc.cilium.io").await;
    let foreign = start("foreign", &theirs, everybody).await;
    let plain = Fake::start("plain", Does::Tell(Vec::new())).await;
    let name = |node: &str| format!("{node}.blue.hubble-grpc.cilium.io");
    let mut peers: Vec<_> = [&good, &other, &foreign].iter().map(|fake| fake.told(Some(&name(&fake.name)))).collect();
    peers.push(plain.told(None));
    let service = Script { peers, ..Script::new("service", Does::Hang) };
    let service = ours.serve(service, everybody, &tasks).await;
    let [certificate, key, authority] = ours.sign("*.hubble-relay.cilium.io");
    let config = Config {
        cluster: "blue".to_owned(),
        client_certificate: Some(certificate),
        client_key: Some(key),
        server_authorities: vec![authority],
        ..Config::default()
    };
    let relay = Running::start(service.address.to_string(), config).await;
    let status = relay.settled(1, 3).await;
    assert_eq!(status.unavailable_nodes, ["foreign", "other", "plain"]);
    let mut client = ObserverClient::new(relay.channel().await);
    let mut answers = client.get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let mut said = String::new();
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(ResponseTypes::NodeStatus(status)) = answer.response_types {
            said += &status.message;
        }
    }
    for part in
        ["foreign: ", "invalid peer certificate", "other: ", "not valid for name", "plain: it serves without TLS"]
    {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[tokio::test]
async fn one_address_cannot_keep_others_out_with_requests_that_it_leaves_open() {
    let fake = Fake::start("a", Does::Tell(Vec::new())).await;
    let service = Fake::telling_of(std::slice::from_ref(&fake)).await;
    let relay = Running::start(service.address.to_string(), without_tls()).await;
    relay.settled(1, 0).await;
    let mut stranger = ObserverClient::new(relay.channel().await);
    let follow = || GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut open = Vec::new();
    let refused = loop {
        match stranger.get_flows(follow()).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((refused.code(), open.len()), (Code::ResourceExhausted, 64));
    assert_eq!(stranger.get_nodes(GetNodesRequest {}).await.unwrap_err().code(), Code::ResourceExhausted);
    let elsewhere = tonic::transport::Endpoint::from_shared(format!("http://{}", relay.listen)).unwrap();
    let elsewhere = elsewhere.local_address(Some([127, 0, 0, 2].into())).connect().await.unwrap();
    ObserverClient::new(elsewhere).get_nodes(GetNodesRequest {}).await.unwrap();
    open.pop();
    wait("the place of a request that ended", async || stranger.get_flows(follow()).await.ok()).await;
}
