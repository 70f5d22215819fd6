// SPDX-License-Identifier: Apache-2.0

use super::graph::{EDGES, VERTICES};
use super::rows::MOST;
use super::*;
use abi::drop_reason::DropReason;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{
    CiliumEventType, Endpoint, FlowType, Ip, Layer4, LostEvent, Policy, Service, Tcp, TrafficDirection, Verdict,
};
use hubble::proto::timestamp;

const NOW: i64 = 1_700_000_000_000;

fn pod(name: &str) -> Endpoint {
    let labels = vec![format!("k8s:app={name}"), "k8s:io.kubernetes.pod.namespace=shop".to_owned()];
    let pod_name = format!("{name}-0");
    Endpoint { id: 1, identity: 700, namespace: "shop".to_owned(), labels, pod_name, ..Endpoint::default() }
}

fn flow(from: &str, to: &str, port: u32) -> Flow {
    let tcp = Tcp { source_port: 40_000, destination_port: port, flags: None };
    Flow {
        time: Some(timestamp(NOW * 1_000_000)),
        verdict: Verdict::Forwarded.into(),
        source: Some(pod(from)),
        destination: Some(pod(to)),
        ip: Some(Ip { source: format!("10.0.0.{}", from.len()), destination: to.to_owned(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        is_reply: Some(false),
        ..Flow::default()
    }
}

fn denied(from: &str, to: &str, reason: DropReason) -> Flow {
    let direction = TrafficDirection::Ingress.into();
    let drop_reason_desc = (reason as u8).into();
    Flow { verdict: Verdict::Dropped.into(), drop_reason_desc, traffic_direction: direction, ..flow(from, to, 80) }
}

fn verdict(flow: Flow, deny: &str, allow: &str) -> Flow {
    let policy = |name: &str| Policy {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: "CiliumNetworkPolicy".to_owned(),
        ..Policy::default()
    };
    let policies = |name: &str| if name.is_empty() { Vec::new() } else { vec![policy(name)] };
    let event_type = Some(CiliumEventType { r#type: 5, sub_type: 0 });
    Flow { event_type, ingress_denied_by: policies(deny), ingress_allowed_by: policies(allow), ..flow }
}

fn scene(flows: impl IntoIterator<Item = Flow>) -> Scene {
    let mut scene = Scene::new();
    add(&mut scene, flows);
    scene
}

fn add(scene: &mut Scene, flows: impl IntoIterator<Item = Flow>) {
    for flow in flows {
        scene.take(&answer(ResponseTypes::Flow(flow)), NOW);
    }
}

fn answer(response: ResponseTypes) -> GetFlowsResponse {
    GetFlowsResponse { response_types: Some(response), ..GetFlowsResponse::default() }
}

fn all(scene: &Scene, filter: Filter) -> Vec<Event> {
    scene.rows.choose(0, &filter.normal(), usize::MAX).events
}

#[test]
fn answers_count_for_the_edge_of_whom_opened_the_connection() {
    let mut answer = flow("web", "db", 5432);
    std::mem::swap(&mut answer.source, &mut answer.destination);
    let tcp = Tcp { source_port: 5432, destination_port: 40_000, flags: None };
    answer.l4 = Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) });
    answer.is_reply = Some(true);
    let service = Service { name: "store".to_owned(), namespace: "shop".to_owned() };
    let asked = Flow { destination_service: Some(service), ..flow("web", "db", 5432) };
    let scene = scene([asked, answer]);
    let (vertices, edges) = scene.graph.since(0);
    assert_eq!((vertices.len(), edges.len()), (2, 1));
    assert_eq!((edges[0].allowed.flows, edges[0].ports.len(), edges[0].ports[0].port), (2, 1, Some(5432)));
    assert_eq!(vertices[edges[0].to as usize].name, "db");
    assert!(vertices[edges[0].to as usize].services.contains("shop/store"));
}

#[test]
fn a_packet_counts_once_and_has_the_rules_of_its_verdict() {
    let dropped = || denied("visitor", "web", DropReason::PolicyDeny);
    let mut scene = scene([verdict(dropped(), "no-visitors", ""), dropped()]);
    let events = all(&scene, Filter::default());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].deny, ["CiliumNetworkPolicy shop/no-visitors"]);
    assert_eq!((events[0].class, events[0].by_default, events[0].proposal), (Class::Denied, false, None));
    assert_eq!(scene.graph.since(0).1[0].rules, ["CiliumNetworkPolicy shop/no-visitors"]);
    // A later policy lets the same connection in.
    add(&mut scene, [verdict(flow("visitor", "web", 80), "", "visitors"), flow("visitor", "web", 80)]);
    let last = all(&scene, Filter::default()).pop().unwrap();
    assert_eq!(
        (last.deny.len(), last.allow.as_slice()),
        (0, ["CiliumNetworkPolicy shop/visitors".to_owned()].as_slice())
    );
}

#[test]
fn a_translation_of_a_socket_is_no_traffic() {
    let socket =
        Flow { r#type: FlowType::Sock.into(), verdict: Verdict::Translated.into(), ..flow("visitor", "web", 80) };
    let scene = scene([socket]);
    assert!(all(&scene, Filter::default()).is_empty() && scene.graph.since(0).1.is_empty());
}

#[test]
fn what_no_rule_allows_comes_with_the_policy_that_would() {
    let refused = || denied("visitor", "web", DropReason::PolicyDenied);
    let scene = scene([verdict(refused(), "", ""), refused(), refused()]);
    let events = all(&scene, Filter::default());
    assert!(events.iter().all(|event| event.by_default && event.deny.is_empty()));
    let numbers: Vec<_> = events.iter().map(|event| event.proposal.unwrap()).collect();
    assert_eq!(numbers, [1, 1], "one for all that are alike");
    let text = scene.proposal(1).unwrap();
    for part in ["kind: CiliumNetworkPolicy", "namespace: shop", "allow-visitor-to-web", "fromEndpoints", "\"80\""] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(scene.proposal(2), None);
    let edge = scene.graph.since(0).1[0];
    assert_eq!((edge.denied.flows, edge.proposal, edge.reason.as_str()), (2, Some(1), "Policy denied"));
}

#[test]
fn other_drops_are_told_apart_from_denials() {
    let scene = scene([denied("web", "db", DropReason::InvalidSourceIp)]);
    let event = all(&scene, Filter::default()).pop().unwrap();
    assert_eq!((event.class, event.reason.as_str(), event.proposal), (Class::Dropped, "Invalid source ip", None));
    let seconds = scene.rates.since(0);
    assert_eq!((seconds.len(), seconds[0].dropped, seconds[0].denied), (1, 1, 0));
}

#[test]
fn filters_narrow_and_together_narrow_further() {
    let scene = scene([
        flow("web", "db", 5432),
        flow("web", "cache", 6379),
        denied("visitor", "web", DropReason::PolicyDenied),
        denied("web", "db", DropReason::InvalidSourceIp),
    ]);
    let found = |filter: Filter| all(&scene, filter).len();
    let text = |text: &str| Filter { text: text.to_owned(), ..Filter::default() };
    let pod = |pod: &str| Filter { pod: pod.to_owned(), ..Filter::default() };
    let verdict = |verdict: &str| Filter { verdict: verdict.to_owned(), ..Filter::default() };
    assert_eq!([found(verdict("allowed")), found(verdict("denied")), found(verdict("dropped"))], [2, 1, 2]);
    assert_eq!([found(pod("DB")), found(pod("shop/web")), found(pod("away/web"))], [2, 4, 0]);
    assert_eq!(found(Filter { port: Some(6379), ..Filter::default() }), 1);
    assert_eq!([found(text("policy denied")), found(text("tcp")), found(text("<b>"))], [1, 4, 0]);
    assert_eq!(found(Filter { port: Some(80), ..pod("db") }), 1);
    assert_eq!(found(Filter { verdict: "allowed".to_owned(), ..pod(" db ") }), 1);
}

#[test]
fn who_is_slow_is_told_of_refusals_first_and_how_much_it_missed() {
    let mut scene = scene([denied("visitor", "web", DropReason::PolicyDenied)]);
    add(&mut scene, (0..10).map(|_| flow("web", "db", 5432)));
    let chosen = scene.rows.choose(0, &Filter::default(), 4);
    assert_eq!(chosen.events.iter().map(|event| event.id).collect::<Vec<_>>(), [0, 8, 9, 10]);
    assert_eq!(chosen.missed, 7);
    add(&mut scene, (0..MOST + 5).map(|_| flow("web", "db", 5432)));
    let chosen = scene.rows.choose(11, &Filter { verdict: "denied".to_owned(), ..Filter::default() }, 4);
    assert_eq!((chosen.events.len(), chosen.missed), (0, 5), "those that are gone");
}

#[test]
fn strangers_cannot_make_it_grow() {
    let name = |n: usize| format!("n{n}");
    let mut scene = scene((0..VERTICES + 50).map(|n| flow("hub", &name(n), 80)));
    let (vertices, edges) = scene.graph.since(0);
    assert_eq!((vertices.len(), edges.len()), (VERTICES, VERTICES - 1));
    assert_eq!(scene.graph.left_out.vertices, 51);
    add(&mut scene, (0..EDGES + 100).map(|n| flow(&name(n % 120), &name(n / 120), 80)));
    assert_eq!(scene.graph.since(0).1.len(), EDGES);
    assert!(scene.graph.left_out.edges > 0);
    add(&mut scene, (0..100).map(|n| flow("hub", &name(0), n)));
    assert!(scene.graph.since(0).1.iter().all(|edge| edge.ports.len() <= 16));
    assert_eq!(all(&scene, Filter::default()).len(), MOST);
    let mut long = flow("web", "db", 80);
    long.source.as_mut().unwrap().pod_name = "x".repeat(100_000);
    add(&mut scene, [long]);
    assert!(all(&scene, Filter::default()).pop().unwrap().source.name.len() <= 253);
}

#[test]
fn edges_that_are_quiet_for_long_go_and_their_ends_with_them() {
    let mut scene = scene([flow("web", "db", 5432)]);
    let late = NOW + IDLE + 1;
    let time = Some(timestamp(late * 1_000_000));
    scene.take(&answer(ResponseTypes::Flow(Flow { time, ..flow("web", "cache", 6379) })), late);
    scene.sweep(NOW + IDLE);
    assert_eq!(scene.generation, 0);
    scene.sweep(late);
    assert_eq!(scene.generation, 1);
    let (vertices, edges) = scene.graph.since(0);
    let names: Vec<_> = vertices.iter().map(|vertex| (vertex.id, vertex.name.as_str())).collect();
    assert_eq!(names, [(0, "web"), (1, "cache")]);
    assert_eq!((edges.len(), edges[0].from, edges[0].to), (1, 0, 1));
    add(&mut scene, [flow("cache", "web", 80)]);
    assert_eq!(scene.graph.since(0).0.len(), 2, "who is known stays known");
}

#[test]
fn losses_and_nodes_that_are_away_are_kept() {
    let mut scene = Scene::new();
    assert!(scene.link.problem.is_some(), "not connected yet");
    scene.link.set(None);
    let status = |state: NodeState, name: &str| NodeStatusEvent {
        state_change: state.into(),
        node_names: vec![name.to_owned()],
        message: String::new(),
    };
    for (state, name) in
        [(NodeState::NodeUnavailable, "a"), (NodeState::NodeError, "b"), (NodeState::NodeConnected, "a")]
    {
        scene.take(&answer(ResponseTypes::NodeStatus(status(state, name))), NOW);
    }
    assert_eq!(scene.link.unavailable, BTreeSet::from(["b".to_owned()]));
    let lost = LostEvent { num_events_lost: 7, ..LostEvent::default() };
    scene.take(&answer(ResponseTypes::LostEvents(lost)), NOW);
    assert_eq!((scene.lost, scene.latest()), (7, None));
    add(&mut scene, [flow("web", "db", 80)]);
    assert_eq!(scene.latest(), Some(NOW * 1_000_000));
}

#[test]
fn rates_are_of_ten_minutes_and_the_future_is_now() {
    let at = |seconds: i64| Flow { time: Some(timestamp((NOW + seconds * 1000) * 1_000_000)), ..flow("web", "db", 80) };
    let scene = scene([at(-700), at(-600), at(0), at(50)]);
    let seconds: Vec<_> =
        scene.rates.since(0).iter().map(|second| (second.time - NOW / 1000, second.allowed)).collect();
    assert_eq!(seconds, [(-600, 1), (0, 2)]);
}

#[test]
fn a_clock_that_is_ahead_does_not_put_off_from_when_on_flows_are_asked_for() {
    let ahead = Flow { time: Some(timestamp(i64::MAX)), ..flow("web", "db", 5432) };
    assert_eq!(scene([ahead]).latest(), Some(NOW * 1_000_000));
}
