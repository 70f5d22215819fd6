// SPDX-License-Identifier: Apache-2.0
//! From flows to policies. Pods are told apart by their namespace and their own labels, and the world by its addresses.

use crate::decode::POLICY_VERDICT;
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::{Endpoint, Flow, FlowType, TraceReason, TrafficDirection, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Labels that a pod has from its namespace, cluster and service account.
const DERIVED: &str = "io.cilium.k8s.";
/// Labels that give a policy its name, the best first.
const NAMES: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// The longest name of an object that is also a value of a label.
const NAME: usize = 63;

type Labels = BTreeMap<String, String>;
type End<'a> = (&'a Endpoint, &'a str);

/// Pods that policies do not tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pods {
    namespace: String,
    labels: Labels,
}

/// The other end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Pods(Pods),
    /// By the name that policies have for it.
    Entity(String),
    /// One address.
    Cidr(String),
}

/// What is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Service {
    Port { protocol: &'static str, port: u32 },
    Icmp { family: &'static str, kind: u32 },
}

type Peers = BTreeMap<Peer, BTreeSet<Service>>;

/// What pods do in each direction.
#[derive(Debug, Default)]
struct Habits {
    ingress: Peers,
    egress: Peers,
}

/// What was seen of a namespace.
#[derive(Debug)]
pub struct Seen {
    namespace: String,
    habits: BTreeMap<Labels, Habits>,
    /// All pods that were seen, in any namespace.
    known: BTreeSet<Pods>,
    left_out: u64,
    unnamed: u64,
}

impl Seen {
    /// Nothing, of this namespace.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            habits: BTreeMap::new(),
            known: BTreeSet::new(),
            left_out: 0,
            unnamed: 0,
        }
    }

    /// How many flows were of pods whose labels were not known.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// How many flows no policy can allow by their protocol.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes in a flow. What was dropped, and what only answers another, says nothing, nor does what one policy allowed: another may have
    /// denied it. Each end is believed to have taken part where it was seen at its own node: on the way it may have been dropped.
    pub fn take(&mut self, flow: &Flow) {
        let passed = matches!(flow.verdict(), Verdict::Forwarded | Verdict::Redirected);
        let of_policy = flow.event_type.is_some_and(|event| event.r#type == POLICY_VERDICT);
        // A request is of its client, and policies are about its packets, which are the proxy's.
        let of_proxy = flow.r#type() == FlowType::L7;
        if !passed || of_policy || of_proxy || flow.trace_reason() == TraceReason::Related {
            return;
        }
        let Some(reply) = flow.is_reply else { return };
        let (Some(opener), Some(target)) = ends(flow, reply) else { return };
        let Some(service) = service(flow, reply) else {
            self.left_out += u64::from(flow.l4.is_none());
            return;
        };
        let (Some(from), Some(to)) = (peer(opener.0, opener.1), peer(target.0, target.1)) else {
            self.unnamed += 1;
            return;
        };
        let (at_opener, at_target) = (opener.0.id != 0, target.0.id != 0);
        for (subject, other, egress, seen) in [(&from, &to, true, at_opener), (&to, &from, false, at_target)] {
            let Peer::Pods(pods) = subject else { continue };
            self.known.insert(pods.clone());
            if seen && pods.namespace == self.namespace {
                let habits = self.habits.entry(pods.labels.clone()).or_default();
                let peers = if egress { &mut habits.egress } else { &mut habits.ingress };
                peers.entry(other.clone()).or_default().insert(service.clone());
            }
        }
    }

    /// The labels of the pods of a namespace that were seen.
    pub fn known(&self, namespace: &str) -> impl Iterator<Item = &BTreeMap<String, String>> {
        self.known.iter().filter(move |pods| pods.namespace == namespace).map(|pods| &pods.labels)
    }

    /// A CiliumNetworkPolicy for each set of labels.
    #[must_use]
    pub fn policies(&self) -> Vec<Value> {
        let mut taken = BTreeSet::new();
        let mut policies = Vec::new();
        for (labels, habits) in &self.habits {
            let mut name = name(labels);
            let base = name.clone();
            let mut number = 1;
            while !taken.insert(name.clone()) {
                number += 1;
                name = format!("{base}-{number}");
            }
            let subject = Pods { namespace: self.namespace.clone(), labels: labels.clone() };
            policies.push(json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "endpointSelector": self.selector(&subject, false),
                    "ingress": self.rules(&habits.ingress, "from"),
                    "egress": self.rules(&habits.egress, "to"),
                },
            }));
        }
        policies
    }

    /// Selects these pods, and no others that are known.
    fn selector(&self, pods: &Pods, with_namespace: bool) -> Value {
        let mut wanted: BTreeMap<String, &str> =
            pods.labels.iter().map(|(k, v)| (format!("k8s:{k}"), v.as_str())).collect();
        if with_namespace {
            wanted.insert(format!("k8s:{NAMESPACE}"), &pods.namespace);
        }
        let mut absent = BTreeSet::new();
        for other in self.known.iter().filter(|other| other.namespace == pods.namespace && *other != pods) {
            let includes = pods.labels.iter().all(|(key, value)| other.labels.get(key) == Some(value));
            let mut more = other.labels.keys().filter(|key| !pods.labels.contains_key(*key));
            if includes && !more.clone().any(|key| absent.contains(key)) {
                absent.extend(more.next());
            }
        }
        if absent.is_empty() {
            return json!({"matchLabels": wanted});
        }
        let absent = absent.iter().map(|key| json!({"key": format!("k8s:{key}"), "operator": "DoesNotExist"}));
        json!({"matchLabels": wanted, "matchExpressions": absent.collect::<Vec<_>>()})
    }

    /// Peers that are asked for the same stand together. A rule of nothing denies what no other rule allows.
    fn rules(&self, peers: &Peers, word: &str) -> Value {
        let mut alike: BTreeMap<(&BTreeSet<Service>, &str), Vec<Value>> = BTreeMap::new();
        for (peer, services) in peers {
            let (field, value) = match peer {
                Peer::Pods(pods) => ("Endpoints", self.selector(pods, true)),
                Peer::Entity(name) => ("Entities", json!(name)),
                Peer::Cidr(cidr) => ("CIDR", json!(cidr)),
            };
            alike.entry((services, field)).or_default().push(value);
        }
        let mut rules = Vec::new();
        for ((services, field), values) in alike {
            for (what, list) in what(services) {
                rules.push(json!({format!("{word}{field}"): values, what: list}));
            }
        }
        if rules.is_empty() { json!([{}]) } else { json!(rules) }
    }
}

/// The policy that would have let a flow through that no rule allows: the smallest addition at the end that refused it. Nothing for flows that
/// policies cannot allow, and for ends whose labels are not known.
#[must_use]
pub fn missing(flow: &Flow) -> Option<Value> {
    let egress = match flow.traffic_direction() {
        TrafficDirection::Egress => true,
        TrafficDirection::Ingress => false,
        TrafficDirection::Unknown => return None,
    };
    let (opener, target) = ends(flow, false);
    let (opener, target) = (opener?, target?);
    let (from, to) = (peer(opener.0, opener.1)?, peer(target.0, target.1)?);
    let (Peer::Pods(subject), other) = (if egress { (&from, &to) } else { (&to, &from) }) else { return None };
    let mut seen = Seen::of(&subject.namespace);
    for end in [&from, &to] {
        if let Peer::Pods(pods) = end {
            seen.known.insert(pods.clone());
        }
    }
    let peers = Peers::from([(other.clone(), BTreeSet::from([service(flow, false)?]))]);
    let (direction, word) = if egress { ("egress", "to") } else { ("ingress", "from") };
    let name: String = format!("allow-{}-to-{}", short(&from), short(&to)).chars().take(NAME).collect();
    Some(json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name.trim_end_matches('-'), "namespace": subject.namespace},
        "spec": {"endpointSelector": seen.selector(subject, false), direction: seen.rules(&peers, word)},
    }))
}

/// The opener and the target, each with its address.
fn ends(flow: &Flow, reply: bool) -> (Option<End<'_>>, Option<End<'_>>) {
    let address = |source| flow.ip.as_ref().map(|ip| if source { ip.source.as_str() } else { ip.destination.as_str() });
    let (source, destination) =
        (flow.source.as_ref().zip(address(true)), flow.destination.as_ref().zip(address(false)));
    if reply { (destination, source) } else { (source, destination) }
}

/// A peer in the name of a policy.
fn short(peer: &Peer) -> String {
    match peer {
        Peer::Pods(pods) => name(&pods.labels),
        Peer::Entity(name) => name.clone(),
        Peer::Cidr(_) => "world".to_owned(),
    }
}

/// The fields of a rule that allow these, and what they hold; a rule has ports or ICMP, not both.
fn what(services: &BTreeSet<Service>) -> Vec<(&'static str, Value)> {
    let (mut ports, mut types) = (Vec::new(), Vec::new());
    for service in services {
        match service {
            Service::Port { protocol, port } => ports.push(json!({"port": port.to_string(), "protocol": protocol})),
            Service::Icmp { family, kind } => types.push(json!({"family": family, "type": kind})),
        }
    }
    // The API takes no more than 40 in a list.
    let ports = ports.chunks(40).map(|ports| ("toPorts", json!([{"ports": ports}])));
    ports.chain(types.chunks(40).map(|types| ("icmps", json!([{"fields": types}])))).collect()
}

/// What the opener asks for; nothing for protocols without rules, and for answers of ICMP.
fn service(flow: &Flow, reply: bool) -> Option<Service> {
    let port = |protocol, source: u32, destination: u32| {
        Some(Service::Port { protocol, port: if reply { source } else { destination } })
    };
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => port("TCP", tcp.source_port, tcp.destination_port),
        Protocol::Udp(udp) => port("UDP", udp.source_port, udp.destination_port),
        Protocol::Sctp(sctp) => port("SCTP", sctp.source_port, sctp.destination_port),
        Protocol::IcmPv4(icmp) if !reply => Some(Service::Icmp { family: "IPv4", kind: icmp.r#type }),
        Protocol::IcmPv6(icmp) if !reply => Some(Service::Icmp { family: "IPv6", kind: icmp.r#type }),
        _ => None,
    }
}

/// None if it is a pod whose labels are not known: without any it would stand for all pods of its namespace.
fn peer(endpoint: &Endpoint, ip: &str) -> Option<Peer> {
    let reserved: Vec<_> = endpoint.labels.iter().filter_map(|label| label.strip_prefix("reserved:")).collect();
    // The API server may be a node, or of the world: what names it is narrower.
    let entity = reserved.iter().find(|name| **name == "kube-apiserver").or_else(|| reserved.first());
    match entity {
        Some(name) if !name.starts_with("world") => return Some(Peer::Entity((*name).to_owned())),
        None if !endpoint.namespace.is_empty() && endpoint.labels.is_empty() => return None,
        None if !endpoint.namespace.is_empty() => {}
        _ => {
            let bits = if ip.contains(':') { 128 } else { 32 };
            return Some(Peer::Cidr(format!("{ip}/{bits}")));
        }
    }
    let own = endpoint.labels.iter().filter_map(|label| label.strip_prefix("k8s:"));
    let own = own.map(|label| label.split_once('=').unwrap_or((label, "")));
    let labels = own.filter(|(key, _)| *key != NAMESPACE && !key.starts_with(DERIVED));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Some(Peer::Pods(Pods { namespace: endpoint.namespace.clone(), labels }))
}

/// A name for the policy of these pods.
fn name(labels: &Labels) -> String {
    let named = NAMES.iter().find_map(|key| labels.get(*key)).or_else(|| labels.values().next());
    let name: String = named.map_or("pods", String::as_str).to_lowercase();
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let name = name.trim_matches('-');
    if name.is_empty() { "pods".to_owned() } else { name.to_owned() }
}
