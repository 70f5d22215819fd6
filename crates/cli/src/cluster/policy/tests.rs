// SPDX-License-Identifier: Apache-2.0
#[path = "../../../../policy/tests/policy/support.rs"]
#[allow(dead_code, unreachable_pub, reason = "what the tests of policies have")]
mod support;

use hubble::POLICY_VERDICT;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{
    CiliumEventType, Endpoint, Flow, FlowType, IcmPv4, Ip, Layer4, Tcp, TraceReason, TrafficDirection, Udp, Verdict,
};
use hubble::suggest::{Seen, missing};
use model::Labels as Set;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use support::{Agent, Store, Tables};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";

type Labels = BTreeMap<String, String>;

/// Labels of the pods 1 to 5; those of some are among those of others, and the last one is of another namespace.
const PODS: [(&str, &[(&str, &str)]); 5] = [
    ("shop", &[("app", "web")]),
    ("shop", &[("app", "web"), ("tier", "front")]),
    ("shop", &[("app", "db")]),
    ("shop", &[]),
    ("away", &[("app", "web")]),
];
const ADDRESSES: [&str; 2] = ["192.0.2.7", "198.51.100.9"];

/// Who may be at an end of a flow: a pod by its place in [`PODS`], an address of the world, or the node next door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Pod(usize),
    World(usize),
    OtherNode,
}

/// Protocol and port, or type of ICMP.
type Asked = (u8, u16);

fn own(pod: usize) -> Labels {
    PODS[pod].1.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn endpoint(end: End) -> (Endpoint, String) {
    match end {
        End::Pod(pod) => {
            let labels = own(pod).into_iter().map(|(key, value)| format!("k8s:{key}={value}"));
            let derived =
                [format!("k8s:{NAMESPACE}={}", PODS[pod].0), "k8s:io.cilium.k8s.policy.cluster=default".into()];
            let labels = labels.chain(derived).collect();
            let namespace = PODS[pod].0.to_owned();
            // As if all were on one node.
            let id = u32::try_from(pod).unwrap() + 1;
            (Endpoint { id, namespace, labels, ..Endpoint::default() }, format!("10.0.0.{}", pod + 1))
        }
        End::World(at) => {
            let labels = vec!["reserved:world".to_owned()];
            (Endpoint { labels, identity: 2, ..Endpoint::default() }, ADDRESSES[at].to_owned())
        }
        End::OtherNode => {
            let labels = vec!["reserved:remote-node".to_owned()];
            (Endpoint { labels, identity: 6, ..Endpoint::default() }, "192.168.77.12".to_owned())
        }
    }
}

fn flow(from: End, to: End, (proto, port): Asked, reply: bool) -> Flow {
    let ((source, source_ip), (destination, destination_ip)) = (endpoint(from), endpoint(to));
    let port = u32::from(port);
    let protocol = match proto {
        6 => Protocol::Tcp(Tcp { source_port: 40_000, destination_port: port, flags: None }),
        17 => Protocol::Udp(Udp { source_port: 40_000, destination_port: port }),
        _ => Protocol::IcmPv4(IcmPv4 { r#type: port, code: 0 }),
    };
    let forward = Flow {
        verdict: Verdict::Forwarded.into(),
        source: Some(source),
        destination: Some(destination),
        ip: Some(Ip { source: source_ip, destination: destination_ip, ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(protocol) }),
        is_reply: Some(false),
        ..Flow::default()
    };
    if reply { turn(forward) } else { forward }
}

/// The answer to a flow.
fn turn(flow: Flow) -> Flow {
    let Flow { source, destination, ip, l4, .. } = flow.clone();
    let ip = ip.map(|ip| Ip { source: ip.destination, destination: ip.source, ..ip });
    let protocol = match l4.and_then(|l4| l4.protocol) {
        Some(Protocol::Tcp(tcp)) => {
            Protocol::Tcp(Tcp { source_port: tcp.destination_port, destination_port: tcp.source_port, flags: None })
        }
        Some(Protocol::Udp(udp)) => {
            Protocol::Udp(Udp { source_port: udp.destination_port, destination_port: udp.source_port })
        }
        _ => Protocol::IcmPv4(IcmPv4 { r#type: 0, code: 0 }),
    };
    Flow {
        source: destination,
        destination: source,
        ip,
        l4: Some(Layer4 { protocol: Some(protocol) }),
        is_reply: Some(true),
        ..flow
    }
}

/// The policies in force on a node that has the pods of the namespace.
async fn enforce(policies: &[Value]) -> Agent {
    let mut tables = Tables::default();
    for (id, (namespace, labels)) in (1..).zip(PODS) {
        tables.add_pod(id, &format!("{namespace}/pod-{id}"), labels, vec![]);
    }
    let config = policy::Config::default();
    for policy in policies {
        let ingested =
            policy::ingest_cilium_policy(&config.context(), &serde_json::from_value(policy.clone()).unwrap()).unwrap();
        assert!(ingested.valid && ingested.problems.is_empty(), "{:?} of {policy:#}", ingested.problems);
        tables.cilium_policies.insert(ingested);
    }
    tables.commit();
    tables.mark_initialized();
    let agent = support::start(config, datapath::fake::Kernel::new(), Store::default(), &tables);
    // The tables may go: what was read stays.
    for id in 1..=5 {
        agent.policy_of(id, |_| true).await;
    }
    agent
}

/// What a pod may do: direction, peer and what is asked; the node itself, which is always let in, is left out.
type Allowed = BTreeSet<(bool, End, Asked)>;

const BOTH: [policy::Direction; 2] = [policy::Direction::Egress, policy::Direction::Ingress];

fn allowed(agent: &Agent, pod: usize, directions: &[policy::Direction]) -> Allowed {
    let ends = [End::OtherNode, End::World(0), End::World(1)].into_iter().chain((0..PODS.len()).map(End::Pod));
    let lines = agent.outputs.policy_lines(model::EndpointId(u16::try_from(pod + 1).unwrap())).unwrap();
    let mut found = Allowed::new();
    for line in lines {
        assert!(!line.deny);
        if line.labels.is_reserved("host") || !directions.contains(&line.direction) {
            continue;
        }
        let egress = line.direction == policy::Direction::Egress;
        let (Some(proto), Some((first, last))) = (line.proto, line.ports) else { panic!("all of {line}") };
        assert_eq!(first, last, "{line}");
        let end = ends.clone().find(|end| is(*end, &line.labels)).unwrap_or_else(|| panic!("somebody else: {line}"));
        found.insert((egress, end, (proto, first)));
    }
    found
}

/// Whether labels of an identity are those of this end.
fn is(end: End, labels: &Set) -> bool {
    match end {
        End::OtherNode => labels.is_reserved("remote-node"),
        End::World(at) => labels.to_strings().contains(&format!("cidr:{}/32", ADDRESSES[at])),
        End::Pod(pod) => {
            let value = |key: &str| labels.get(model::LabelSource::K8s, key).map(|label| label.value.to_string());
            value(NAMESPACE).as_deref() == Some(PODS[pod].0)
                && ["app", "tier"].iter().all(|key| value(key) == own(pod).get(*key).cloned())
        }
    }
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => (0..PODS.len()).prop_map(End::Pod),
        1 => (0..ADDRESSES.len()).prop_map(End::World),
        1 => Just(End::OtherNode),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![Just((6, 80)), Just((6, 5432)), Just((17, 53)), Just((1, 8))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_is_allowed_and_nothing_else(flows in prop::collection::vec((ends(), ends(), asked(), any::<bool>()), 1..12)) {
        let mut seen = Seen::of("shop");
        let mut want: BTreeMap<usize, Allowed> = BTreeMap::new();
        for (from, to, asked, reply) in flows {
            // Whoever is seen at all is told apart; that an answer of ICMP came says nothing.
            seen.take(&flow(from, to, asked, reply));
            let silent = reply && asked.0 == 1;
            for (subject, other, egress) in [(from, to, true), (to, from, false)] {
                if let End::Pod(pod @ 0..4) = subject && !silent {
                    want.entry(pod).or_default().insert((egress, other, asked));
                }
            }
        }
        let policies = seen.policies();
        prop_assert_eq!(policies.len(), want.len());
        // Pods that did nothing are not told apart from those whose labels they have more of.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found: BTreeMap<usize, Allowed> = runtime.block_on(async {
            let agent = enforce(&policies).await;
            let found = want.keys().map(|pod| (*pod, allowed(&agent, *pod, &BOTH))).collect();
            agent.kill().await;
            found
        });
        let told_apart = |end: &End| match end {
            End::Pod(pod) => seen.known(PODS[*pod].0).any(|labels| *labels == own(*pod)),
            _ => true,
        };
        for (pod, found) in found {
            let found: Allowed = found.into_iter().filter(|(_, end, _)| told_apart(end)).collect();
            prop_assert_eq!(&found, &want[&pod], "of {:?}: {:#?}", PODS[pod], policies);
        }
    }
}

#[test]
fn what_was_dropped_or_answers_only_is_not_allowed() {
    let mut seen = Seen::of("shop");
    let web = |verdict: Verdict| Flow { verdict: verdict.into(), ..flow(End::Pod(0), End::Pod(2), (6, 5432), false) };
    seen.take(&web(Verdict::Dropped));
    let related = TraceReason::Related.into();
    seen.take(&Flow { trace_reason: related, ..web(Verdict::Forwarded) });
    seen.take(&flow(End::Pod(2), End::Pod(0), (1, 8), true));
    assert!(seen.policies().is_empty());
}

#[test]
fn what_one_policy_allowed_and_another_denied_is_not_allowed() {
    let forward = || flow(End::Pod(0), End::Pod(2), (6, 5432), false);
    let said = Some(CiliumEventType { r#type: POLICY_VERDICT, sub_type: 0 });
    let mut seen = Seen::of("shop");
    seen.take(&Flow { event_type: said, ..forward() });
    // Nobody knows who opened it.
    seen.take(&Flow { is_reply: None, ..forward() });
    assert!(seen.policies().is_empty());
    // At the node of the opener, and dropped at that of the target.
    let mut sent = forward();
    sent.destination.as_mut().unwrap().id = 0;
    seen.take(&sent);
    let policies = seen.policies();
    assert_eq!(policies.len(), 1, "{policies:#?}");
    assert_eq!(policies[0]["spec"]["endpointSelector"], json!({"matchLabels": {"k8s:app": "web"}}));
    assert_eq!(policies[0]["spec"]["ingress"], json!([{}]));
    // An answer that arrives was sent by the target.
    let mut answer = turn(forward());
    answer.destination.as_mut().unwrap().id = 0;
    seen.take(&answer);
    assert_eq!(seen.policies().len(), 2);
}

#[test]
fn pods_whose_labels_are_not_known_do_not_stand_for_their_namespace() {
    let mut seen = Seen::of("shop");
    for unknown in [End::Pod(0), End::Pod(4)] {
        let mut flow = flow(unknown, End::Pod(2), (6, 5432), false);
        flow.source.as_mut().unwrap().labels.clear();
        seen.take(&flow);
    }
    assert_eq!((seen.policies().len(), seen.unnamed()), (0, 2));
}

#[test]
fn values_of_labels_stay_values() {
    let mut seen = Seen::of("shop");
    let mut hostile = flow(End::Pod(0), End::Pod(2), (6, 5432), false);
    let value = "a\n  ingress: [{fromEntities: [all]}]\n---\n# \"'{}&*!|>%@`\u{85}\u{2028}";
    hostile.source.as_mut().unwrap().labels.push(format!("k8s:evil={value}"));
    seen.take(&hostile);
    for policy in seen.policies() {
        let text = serde_saphyr::to_string(&policy).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), policy, "{text}");
    }
    assert_eq!(seen.policies().len(), 2);
}

#[test]
fn a_policy_is_named_after_its_pods_and_reads_well() {
    let mut seen = Seen::of("shop");
    seen.take(&flow(End::Pod(0), End::Pod(2), (6, 5432), false));
    let policies = seen.policies();
    let names: Vec<_> = policies.iter().map(|policy| policy["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["db", "web"]);
    let web = json!({"matchLabels": {"k8s:app": "web", "k8s:io.kubernetes.pod.namespace": "shop"}});
    let spec = json!({
        "endpointSelector": {"matchLabels": {"k8s:app": "db"}},
        "ingress": [{"fromEndpoints": [web], "toPorts": [{"ports": [{"port": "5432", "protocol": "TCP"}]}]}],
        "egress": [{}],
    });
    assert_eq!(policies[0]["spec"], spec);
}

/// A flow that was refused at one of its ends.
fn refused(from: End, to: End, asked: Asked, egress: bool) -> Flow {
    let direction = if egress { TrafficDirection::Egress } else { TrafficDirection::Ingress };
    let verdict = Verdict::Dropped.into();
    Flow { verdict, traffic_direction: direction.into(), ..flow(from, to, asked, false) }
}

#[tokio::test]
async fn the_missing_policy_allows_what_was_refused_and_nothing_else() {
    let asked = (6, 5432);
    for (from, to, egress) in [
        (End::Pod(1), End::Pod(2), false),
        (End::Pod(0), End::Pod(2), true),
        (End::World(0), End::Pod(1), false),
        (End::Pod(2), End::World(1), true),
        (End::OtherNode, End::Pod(0), false),
        (End::Pod(4), End::Pod(0), false),
    ] {
        let (subject, other) = if egress { (from, to) } else { (to, from) };
        let End::Pod(pod) = subject else { panic!("a pod is refused") };
        let policy = missing(&refused(from, to, asked, egress)).unwrap();
        let agent = enforce(std::slice::from_ref(&policy)).await;
        // The other direction stays as it was: open.
        let direction = if egress { policy::Direction::Egress } else { policy::Direction::Ingress };
        let found = allowed(&agent, pod, &[direction]);
        agent.kill().await;
        assert_eq!(found, Allowed::from([(egress, other, asked)]), "{policy:#}");
    }
}

#[test]
fn no_policy_is_proposed_for_what_none_can_allow() {
    let web = || refused(End::Pod(0), End::Pod(2), (6, 5432), false);
    assert_eq!(missing(&Flow { l4: None, ..web() }), None);
    assert_eq!(missing(&Flow { traffic_direction: TrafficDirection::Unknown.into(), ..web() }), None);
    assert_eq!(missing(&refused(End::Pod(0), End::World(0), (6, 443), false)), None, "the world has no policy");
    let mut unnamed = web();
    unnamed.source.as_mut().unwrap().labels.clear();
    assert_eq!(missing(&unnamed), None);
    let name = missing(&web()).unwrap()["metadata"]["name"].clone();
    assert_eq!(name, "allow-web-to-db");
}

#[test]
fn a_request_through_a_gateway_says_nothing_of_who_sends_packets() {
    let mut seen = Seen::of("shop");
    let request = Flow { r#type: FlowType::L7.into(), ..flow(End::World(0), End::Pod(0), (6, 8080), false) };
    seen.take(&request);
    assert_eq!(seen.policies(), Vec::<Value>::new());
    seen.take(&Flow { r#type: FlowType::L3L4.into(), ..request });
    assert_eq!(seen.policies().len(), 1);
}
