// SPDX-License-Identifier: Apache-2.0
//! The whole of Hubble behind its socket, asked by a client.

mod history;
mod hostile;

use crate::client::Server;
use crate::fixture::{self, Writers, monotonic};
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::{AgentEvent, Flow, FlowFilter, LostEventSource};
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::observer::observer_client::ObserverClient;
use crate::proto::observer::{
    GetAgentEventsRequest, GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest,
    ServerStatusRequest,
};
use crate::proto::peer::NotifyRequest;
use crate::proto::peer::peer_client::PeerClient;
use crate::{Config, Inputs, Outputs};
use abi::event::Event;
use statedb::Tasks;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

const DEADLINE: Duration = Duration::from_secs(10);

struct Node {
    outputs: Outputs,
    writers: Writers,
    channel: Channel,
    dir: tempfile::TempDir,
    tasks: Tasks,
}

fn inputs(writers: &Writers) -> Inputs {
    Inputs { node_name: "n1".to_owned(), tables: writers.tables.clone() }
}

impl Node {
    async fn start(capacity: u16) -> Self {
        Self::start_with(Config { capacity: crate::Capacity(capacity), ..Config::default() }).await
    }

    async fn start_with(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("hubble.sock");
        let config = Config { enabled: true, socket: socket.clone(), cluster: "blue".to_owned(), ..config };
        let writers = fixture::tables();
        let tasks = Tasks::new(CancellationToken::new());
        let outputs = crate::start(config, inputs(&writers), &tasks);
        let server = Server { address: format!("unix://{}", socket.display()), ..Server::default() };
        let channel = timeout(DEADLINE, async {
            loop {
                match server.connect().await {
                    Ok(channel) => break channel,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        let channel = channel.await.unwrap();
        Self { outputs, writers, channel, dir, tasks }
    }

    fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel.clone())
    }

    /// A trace with this source port; without verdicts, so that it is one flow.
    fn push(&self, port: u16) {
        let none = abi::event::Verdict::default();
        self.outputs.sink.push(&Event {
            sport: port.to_be(),
            egress: none,
            ingress: none,
            time: monotonic(),
            ..fixture::allowed_syn()
        });
    }

    async fn ports(&self, request: GetFlowsRequest) -> Vec<u32> {
        let stream = self.client().get_flows(request).await.unwrap().into_inner();
        let all: Vec<_> = timeout(DEADLINE, stream.collect()).await.unwrap();
        all.into_iter().filter_map(|r: Result<_, _>| port(&r.unwrap())).collect()
    }
}

fn flow(response: &GetFlowsResponse) -> Option<&Flow> {
    if let Some(ResponseTypes::Flow(flow)) = &response.response_types { Some(flow) } else { None }
}

fn port(response: &GetFlowsResponse) -> Option<u32> {
    match flow(response)?.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => Some(tcp.source_port),
        _ => None,
    }
}

async fn next(stream: &mut Streaming<GetFlowsResponse>) -> GetFlowsResponse {
    timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn requests_are_found_by_what_they_asked_for_and_their_loss_is_told() {
    let node = Node::start(63).await;
    let exchange = |method: &str, path: &str, status| l7::Exchange {
        time: crate::now(),
        method: method.to_owned(),
        url: format!("http://shop.example{path}?q=1"),
        status,
        ..l7::Exchange::default()
    };
    node.push(1);
    node.outputs.sink.exchange(exchange("GET", "/cart", 200), None);
    node.outputs.sink.exchange(exchange("POST", "/cart", 503), None);
    node.outputs.sink.lost_exchanges(4);
    let filter = |text: &str| crate::proto::from_json::<FlowFilter>(text).unwrap();
    for (filter_text, count) in [
        (r#"{"protocol": ["http"]}"#, 4),
        (r#"{"http_method": ["post"]}"#, 2),
        (r#"{"http_path": ["^/cart$"], "http_status_code": ["5+"]}"#, 1),
        (r#"{"event_type": [{"type": 129}], "reply": [true]}"#, 2),
    ] {
        let whitelist = vec![filter(filter_text)];
        let request = GetFlowsRequest { number: 100, whitelist, ..GetFlowsRequest::default() };
        let mut responses = node.client().get_flows(request).await.unwrap().into_inner();
        let (mut flows, mut lost) = (0, Vec::new());
        while let Some(response) = responses.next().await {
            match response.unwrap().response_types {
                Some(ResponseTypes::Flow(_)) => flows += 1,
                Some(ResponseTypes::LostEvents(events)) => lost.push((events.source(), events.num_events_lost)),
                _ => {}
            }
        }
        assert_eq!(flows, count, "{filter_text}");
        assert_eq!(lost, [(LostEventSource::ObserverEventsQueue, 4)]);
    }
}

#[tokio::test]
async fn number_means_the_last_ones_unless_the_first_are_asked_for() {
    let node = Node::start(7).await;
    (1..=5).for_each(|port| node.push(port));
    let request = |number, first| GetFlowsRequest { number, first, ..GetFlowsRequest::default() };
    assert_eq!(node.ports(request(2, false)).await, [4, 5]);
    assert_eq!(node.ports(request(2, true)).await, [1, 2]);
    assert_eq!(node.ports(request(0, false)).await, [1, 2, 3, 4, 5]);
    assert_eq!(node.ports(request(99, false)).await, [1, 2, 3, 4, 5]);
    (6..=9).for_each(|port| node.push(port));
    assert_eq!(node.ports(request(0, true)).await, [3, 4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn number_counts_flows_that_fit_and_not_events() {
    let node = Node::start(63).await;
    node.outputs.sink.push(&fixture::denied_syn());
    (1..=5).for_each(|port| node.push(port));
    node.outputs.sink.push(&fixture::denied_syn());
    let whitelist = vec![FlowFilter { verdict: vec![2], ..FlowFilter::default() }];
    let request = |number| GetFlowsRequest { number, whitelist: whitelist.clone(), ..GetFlowsRequest::default() };
    let kinds = async |number| {
        let stream = node.client().get_flows(request(number)).await.unwrap().into_inner();
        let all: Vec<_> = timeout(DEADLINE, stream.collect()).await.unwrap();
        let kind = |r: Result<GetFlowsResponse, _>| flow(&r.unwrap()).unwrap().event_type.unwrap().r#type;
        all.into_iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(1).await, [1]);
    assert_eq!(kinds(3).await, [1, 5, 1]);
    assert_eq!(kinds(20).await, [5, 1, 5, 1]);
}

#[tokio::test]
async fn a_follower_gets_what_comes_after_the_history_it_asked_for() {
    let node = Node::start(63).await;
    (1..=3).for_each(|port| node.push(port));
    let request = GetFlowsRequest { number: 1, follow: true, ..GetFlowsRequest::default() };
    let mut stream = node.client().get_flows(request).await.unwrap().into_inner();
    assert_eq!(port(&next(&mut stream).await), Some(3));
    node.push(4);
    assert_eq!(port(&next(&mut stream).await), Some(4));
    let request = GetFlowsRequest { follow: true, first: true, ..GetFlowsRequest::default() };
    let mut stream = node.client().get_flows(request).await.unwrap().into_inner();
    assert_eq!(port(&next(&mut stream).await), Some(1));
}

#[tokio::test]
async fn a_follower_that_asks_for_no_history_begins_with_what_comes() {
    let node = Node::start(4095).await;
    (1..=3).for_each(|port| node.push(port));
    let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut stream = node.client().get_flows(request).await.unwrap().into_inner();
    let first = async {
        let mut first = std::pin::pin!(next(&mut stream));
        for number in 4.. {
            node.push(number);
            tokio::select! {
                biased;
                first = &mut first => return port(&first),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        None
    };
    assert!(timeout(DEADLINE, first).await.unwrap() > Some(3));
}

#[tokio::test]
async fn since_and_until_bound_the_time() {
    let node = Node::start(63).await;
    (1..=3).for_each(|port| node.push(port));
    let stream = node.client().get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let all: Vec<_> = timeout(DEADLINE, stream.collect::<Vec<_>>()).await.unwrap();
    let times: Vec<_> = all.into_iter().map(|r| r.unwrap().time.unwrap()).collect();
    let since = |since, until| GetFlowsRequest { since, until, number: 2, ..GetFlowsRequest::default() };
    assert_eq!(node.ports(since(Some(times[1]), None)).await, [2, 3]);
    assert_eq!(node.ports(since(Some(times[0]), Some(times[1]))).await, [1, 2]);
    assert_eq!(node.ports(since(None, Some(times[1]))).await, [1, 2]);
    assert_eq!(node.ports(since(Some(times[0]), None)).await, [1, 2]);
    // One that follows up to a time has all of it once something is later.
    let follow = GetFlowsRequest { follow: true, first: true, until: Some(times[1]), ..GetFlowsRequest::default() };
    assert_eq!(node.ports(follow).await, [1, 2]);
}

#[tokio::test]
async fn a_slow_follower_learns_how_many_events_it_missed() {
    let node = Node::start(3).await;
    node.push(1);
    let request = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
    let mut stream = node.client().get_flows(request).await.unwrap().into_inner();
    assert_eq!(port(&next(&mut stream).await), Some(1));
    // The reader task cannot run between these: the test has one thread and does not wait.
    (2..=21).for_each(|port| node.push(port));
    let ResponseTypes::LostEvents(lost) = next(&mut stream).await.response_types.unwrap() else { panic!("no loss") };
    assert_eq!((lost.source(), lost.num_events_lost), (LostEventSource::HubbleRingBuffer, 17));
    let rest = [next(&mut stream).await, next(&mut stream).await, next(&mut stream).await];
    assert_eq!(rest.map(|r| port(&r)), [Some(19), Some(20), Some(21)]);
}

#[tokio::test]
async fn events_that_the_kernel_lost_are_reported_and_do_not_count() {
    let node = Node::start(7).await;
    node.push(1);
    node.outputs.sink.lost(5);
    node.outputs.sink.lost(0);
    node.push(2);
    let request = GetFlowsRequest { number: 2, ..GetFlowsRequest::default() };
    let stream = node.client().get_flows(request).await.unwrap().into_inner();
    let all: Vec<_> = timeout(DEADLINE, stream.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(all.len(), 3);
    let Some(ResponseTypes::LostEvents(lost)) = &all[1].as_ref().unwrap().response_types else { panic!("no loss") };
    assert_eq!((lost.source(), lost.num_events_lost), (LostEventSource::PerfEventRingBuffer, 5));
}

#[tokio::test]
async fn names_are_those_of_the_moment_of_the_event() {
    let mut node = Node::start(4095).await;
    node.push(1);
    node.writers.ipcache.insert(fixture::ip_entry("10.0.1.20", 301, "db-new"));
    node.writers.ipcache.commit();
    let name = |r: Result<GetFlowsResponse, _>| flow(&r.unwrap()).unwrap().destination.clone().unwrap().pod_name;
    let names = async |request| {
        let stream = node.client().get_flows(request).await.unwrap().into_inner();
        stream.collect::<Vec<_>>().await.into_iter().map(name).collect::<Vec<String>>()
    };
    let renamed = timeout(DEADLINE, async {
        let last = GetFlowsRequest { number: 1, ..GetFlowsRequest::default() };
        while names(last.clone()).await != ["db-new"] {
            node.push(2);
        }
    });
    renamed.await.unwrap();
    assert_eq!(names(GetFlowsRequest { number: 1, first: true, ..GetFlowsRequest::default() }).await, ["db-0"]);
}

#[tokio::test]
async fn only_the_fields_of_the_mask_are_sent_and_bad_requests_name_the_field() {
    let node = Node::start(7).await;
    node.push(1);
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.to_owned()] });
    let request = GetFlowsRequest { field_mask: mask("source.pod_name"), ..GetFlowsRequest::default() };
    let mut stream = node.client().get_flows(request).await.unwrap().into_inner();
    let response = next(&mut stream).await;
    assert_eq!(response.node_name, "blue/n1");
    let flow = flow(&response).unwrap();
    assert_eq!((flow.source.as_ref().unwrap().pod_name.as_str(), flow.verdict), ("web-1", 0));
    let request = GetFlowsRequest { field_mask: mask("colour"), ..GetFlowsRequest::default() };
    let error = node.client().get_flows(request).await.unwrap_err();
    assert_eq!((error.code(), error.message().contains("colour")), (Code::InvalidArgument, true));
    let whitelist = vec![FlowFilter { source_ip: vec!["x".to_owned()], ..FlowFilter::default() }];
    let error = node.client().get_flows(GetFlowsRequest { whitelist, ..GetFlowsRequest::default() }).await.unwrap_err();
    assert_eq!((error.code(), error.message().contains("source_ip")), (Code::InvalidArgument, true));
}

#[tokio::test]
async fn status_namespaces_and_version_are_told() {
    let node = Node::start(7).await;
    node.outputs.sink.push(&Event { time: monotonic(), ..fixture::allowed_syn() });
    let status = node.client().server_status(ServerStatusRequest {}).await.unwrap();
    assert_eq!(status.metadata().get("hubble-server-version").unwrap(), env!("CARGO_PKG_VERSION"));
    let status = status.into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (1, 7, 3));
    assert!(status.flows_rate > 0.0 && status.version.starts_with("cilium v"));
    let namespaces = node.client().get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    let names: Vec<_> = namespaces.iter().map(|n| (n.cluster.as_str(), n.namespace.as_str())).collect();
    assert_eq!(names, [("blue", "shop")]);
    let error = node.client().get_nodes(GetNodesRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(node.outputs.status.problems().is_empty());
}

#[tokio::test]
async fn strangers_numbers_on_the_wire_are_not_remembered() {
    let node = Node::start(7).await;
    for identity in 5000..6000 {
        node.outputs.sink.push(&Event { src_identity: identity, time: monotonic(), ..fixture::denied_syn() });
    }
    let store = node.outputs.status.store.as_ref().unwrap();
    assert_eq!(store.identities(), 1, "that of the destination");
}

#[tokio::test]
async fn health_is_serving_for_the_names_that_clients_ask() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let node = Node::start(7).await;
    for service in ["", "hubble.server.Observer", "observer.Observer", "peer.Peer"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(node.channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

#[tokio::test]
async fn peers_are_told_at_once_and_as_they_come() {
    let mut node = Node::start(7).await;
    let mut stream = PeerClient::new(node.channel.clone()).notify(NotifyRequest {}).await.unwrap().into_inner();
    let first = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((first.name.as_str(), first.address.as_str(), first.tls), ("blue/n1", "192.168.0.1:4244", None));
    node.writers.nodes.insert(fixture::node("n2", "192.168.0.2", false));
    node.writers.nodes.commit();
    let second = timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(second.name, "blue/n2");
}

#[tokio::test]
async fn agent_events_have_a_history_and_a_stream() {
    let node = Node::start(7).await;
    let event = |r#type| AgentEvent { r#type, notification: None };
    (2..=4).for_each(|n| node.outputs.agent_events.push(event(n)));
    let request = GetAgentEventsRequest { number: 2, follow: true, ..GetAgentEventsRequest::default() };
    let mut stream = node.client().get_agent_events(request).await.unwrap().into_inner();
    let mut types = Vec::new();
    for n in 5..=7 {
        node.outputs.agent_events.push(event(n));
    }
    for _ in 0..5 {
        types.push(timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap().agent_event.unwrap().r#type);
    }
    assert_eq!(types, [3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_only() {
    let node = Node::start(7).await;
    let path = node.dir.path().join("hubble.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn when_it_is_off_events_are_dropped_and_nothing_is_served() {
    let writers = fixture::tables();
    let tasks = Tasks::new(CancellationToken::new());
    let outputs = crate::start(Config::default(), inputs(&writers), &tasks);
    outputs.sink.push(&fixture::allowed_syn());
    assert!(outputs.status.figures().is_none() && tasks.list().is_empty());
}

#[tokio::test]
async fn a_request_that_asks_for_too_much_is_refused_in_words_that_arrive() {
    let node = Node::start(7).await;
    let refused = async |filters: Vec<FlowFilter>| {
        let request = GetFlowsRequest { whitelist: filters, ..GetFlowsRequest::default() };
        let error = node.client().get_flows(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        error.message().to_owned()
    };
    let filter = FlowFilter { verdict: vec![2], ..FlowFilter::default() };
    assert_eq!(refused(vec![filter; 30_000]).await, "filters: 90000 bytes are more than 65536");
    let (names, urls) = (vec!["a".to_owned(); 50], vec!["b".to_owned(); 51]);
    let filter = FlowFilter { source_fqdn: names, http_url: urls, ..FlowFilter::default() };
    assert_eq!(refused(vec![filter]).await, "filters: 101 patterns and expressions are more than 100");
    let filter = FlowFilter { dns_query: vec![r"\w{20}".to_owned()], ..FlowFilter::default() };
    assert!(refused(vec![filter]).await.contains("dns_query"));
    // What is quoted travels in a header.
    let filter = FlowFilter { source_ip: vec!["é".repeat(30_000)], ..FlowFilter::default() };
    assert!(refused(vec![filter]).await.contains("source_ip"));
    let paths = vec!["x".repeat(1_000_000)];
    let request = GetFlowsRequest { field_mask: Some(prost_types::FieldMask { paths }), ..GetFlowsRequest::default() };
    let error = node.client().get_flows(request).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("field_mask"), "{error:?}");
}
