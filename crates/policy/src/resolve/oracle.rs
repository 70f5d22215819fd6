// SPDX-License-Identifier: Apache-2.0
//! The specification of policy: an interpreter that reads the objects as users write them, afresh for each packet. It
//! shares no code with what it checks: neither the parsing of selectors, prefixes and ports, nor the matching.

mod generate;
mod read;

use super::Enforcement;
use crate::rules::Direction;
use read::{Key, contains, keys, list, selects, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) use generate::{api_servers, cidr_group, cluster, named_port, packet, pod, policy};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// An entry of a group that is no prefix.
const NO_PREFIX: &str = "10.3.0.0/99";
/// Peer fields that are not honoured.
const UNKNOWN: [&str; 6] = ["fromNodes", "toNodes", "fromGroups", "toGroups", "toFQDNs", "toServices"];
const PEERS: [&str; 14] = [
    "fromEndpoints",
    "fromCIDR",
    "fromCIDRSet",
    "fromEntities",
    "toEndpoints",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    UNKNOWN[0],
    UNKNOWN[1],
    UNKNOWN[2],
    UNKNOWN[3],
    UNKNOWN[4],
    UNKNOWN[5],
];

/// Keys and values of a pod's labels, all of Kubernetes.
pub(super) type PodLabels = BTreeMap<String, String>;

/// A packet's peer.
#[derive(Clone, Debug)]
pub(super) enum Remote {
    /// A pod, or anything else with an identity of the cluster.
    Identity(u32),
    /// An address outside.
    Outside(IpAddr),
}

/// A packet, seen from the policy's subject.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) direction: Direction,
    pub(super) remote: Remote,
    pub(super) proto: u8,
    /// Port, or type of ICMP.
    pub(super) port: u16,
}

/// A named container port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) proto: u8,
    pub(super) port: u16,
}

/// Everything that determines the verdict on a packet.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) mode: Enforcement,
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
    pub(super) name: String,
    pub(super) default_local_cluster: bool,
    pub(super) sctp: bool,
    /// NetworkPolicies, CiliumNetworkPolicies, CiliumClusterwideNetworkPolicies.
    pub(super) policies: Vec<Value>,
    /// CiliumCIDRGroups.
    pub(super) groups: Vec<Value>,
    /// Addresses outside of the cluster at which an API server runs.
    pub(super) api_servers: Vec<IpAddr>,
    /// One runs on this node.
    pub(super) api_server_here: bool,
    /// Labels of the identities of pods.
    pub(super) pods: BTreeMap<u32, PodLabels>,
    /// Earlier labels of some of them.
    pub(super) pods_before: BTreeMap<u32, PodLabels>,
    /// Identity of the subject.
    pub(super) subject: u32,
    pub(super) own_ports: Vec<Named>,
    /// Named ports of each identity's pods.
    pub(super) peer_ports: Vec<(u32, Named)>,
}

/// A label: source, key and value.
type Label = (String, String, String);

/// What a peer selector implies.
struct Scope<'a> {
    /// Of the policy; none if it is clusterwide.
    namespace: Option<&'a str>,
    /// The rule selects unlabelled pods.
    init: bool,
}

/// One element of a section, with its path.
pub(super) struct Element<'a> {
    /// Such as `ingress[0]`.
    pub(super) origin: String,
    pub(super) deny: bool,
    direction: Direction,
    scope: Scope<'a>,
    body: &'a Value,
    of_kubernetes: bool,
}

impl Cluster {
    /// Whether the packet may pass, by reading every rule.
    pub(super) fn allows(&self, packet: &Packet) -> bool {
        if self.mode == Enforcement::Never {
            return true;
        }
        let said = |deny| self.elements(None).iter().any(|e| e.deny == deny && self.speaks(e, packet));
        let from_own_node = packet.direction == Direction::Ingress && matches!(packet.remote, Remote::Identity(1));
        !said(true) && (!self.denies_by_default(packet.direction) || from_own_node || said(false))
    }

    fn denies_by_default(&self, direction: Direction) -> bool {
        let of = |policy: &Value| match policy["kind"].as_str().unwrap() {
            "NetworkPolicy" => {
                let types = list(&policy["spec"]["policyTypes"]);
                let named = |name: &str| types.iter().any(|t| t == name);
                match direction {
                    Direction::Ingress => types.is_empty() || named("Ingress"),
                    Direction::Egress if types.is_empty() => policy["spec"]["egress"].is_array(),
                    Direction::Egress => named("Egress"),
                }
            }
            _ => self.specs(policy).iter().any(|(_, spec)| {
                let name = if direction == Direction::Ingress { "ingress" } else { "egress" };
                let given =
                    [name.to_owned(), format!("{name}Deny")].iter().any(|n| !list(&spec[n.as_str()]).is_empty());
                spec["enableDefaultDeny"][name].as_bool().unwrap_or(given)
            }),
        };
        self.mode == Enforcement::Always || self.policies.iter().filter(|p| self.is_about_subject(p)).any(of)
    }

    /// Whether any of its rules selects the subject.
    fn is_about_subject(&self, policy: &Value) -> bool {
        if policy["kind"] == "NetworkPolicy" {
            let labels = self.labels(&Remote::Identity(self.subject));
            let namespace = &policy["metadata"]["namespace"];
            return selects(&policy["spec"]["podSelector"], &Key::Pod, &labels)
                && value(&labels, NAMESPACE) == namespace.as_str();
        }
        !self.specs(policy).is_empty()
    }

    /// The rules of a Cilium policy that select the subject, with their paths; none if it is invalid.
    fn specs<'a>(&self, policy: &'a Value) -> Vec<(String, &'a Value)> {
        let one = policy["spec"].is_object().then(|| (String::new(), &policy["spec"]));
        let more = list(&policy["specs"]).iter().enumerate().map(|(i, spec)| (format!("specs[{i}]."), spec));
        let all: Vec<_> = one.into_iter().chain(more).collect();
        if all.iter().any(|(_, spec)| is_invalid(spec)) {
            return Vec::new();
        }
        let labels = self.labels(&Remote::Identity(self.subject));
        let namespace = policy["metadata"]["namespace"].as_str();
        let here = namespace.is_none() || value(&labels, NAMESPACE) == namespace;
        all.into_iter().filter(|(_, s)| here && selects(&s["endpointSelector"], &Key::Source, &labels)).collect()
    }

    /// Every element that applies to the subject, optionally of one named policy.
    pub(super) fn elements(&self, name: Option<&str>) -> Vec<Element<'_>> {
        let mut all = Vec::new();
        let wanted = |p: &&Value| name.is_none_or(|name| p["metadata"]["name"] == name) && self.is_about_subject(p);
        for policy in self.policies.iter().filter(wanted) {
            let of_kubernetes = policy["kind"] == "NetworkPolicy";
            let specs = if of_kubernetes { vec![(String::new(), &policy["spec"])] } else { self.specs(policy) };
            for (path, spec) in specs {
                let init = keys(&spec["endpointSelector"], &Key::Source).contains(&("reserved".into(), "init".into()));
                for name in ["ingress", "ingressDeny", "egress", "egressDeny"] {
                    let direction = if name.starts_with('i') { Direction::Ingress } else { Direction::Egress };
                    let types = list(&spec["policyTypes"]);
                    let listed =
                        types.is_empty() || types.iter().any(|t| t.as_str().unwrap().eq_ignore_ascii_case(name));
                    for (i, body) in list(&spec[name]).iter().enumerate().filter(|_| listed) {
                        let scope = Scope { namespace: policy["metadata"]["namespace"].as_str(), init };
                        let (origin, deny) = (format!("{path}{name}[{i}]"), name.ends_with("Deny"));
                        all.push(Element { origin, deny, direction, scope, body, of_kubernetes });
                    }
                }
            }
        }
        all
    }

    /// Whether the element matches the packet.
    pub(super) fn speaks(&self, element: &Element<'_>, packet: &Packet) -> bool {
        let about = if element.of_kubernetes {
            self.kubernetes_peer(element, &packet.remote)
        } else {
            self.peer(element, &packet.remote)
        };
        element.direction == packet.direction && about && self.ports(element, packet)
    }

    fn kubernetes_peer(&self, element: &Element<'_>, remote: &Remote) -> bool {
        let peers = [&element.body["from"], &element.body["to"]].into_iter().flat_map(list);
        let mut any = peers.clone();
        let labels = self.labels(remote);
        let is = |peer: &Value| {
            if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
                return is_within(cidr, &peer["ipBlock"]["except"], remote);
            }
            let in_namespace = if peer["namespaceSelector"].is_object() {
                value(&labels, NAMESPACE).is_some() && selects(&peer["namespaceSelector"], &Key::Namespace, &labels)
            } else {
                value(&labels, NAMESPACE) == element.scope.namespace
            };
            in_namespace && selects(&peer["podSelector"], &Key::Pod, &labels) && self.is_of_cluster(&labels)
        };
        any.next().is_none() || peers.clone().any(is)
    }

    fn is_of_cluster(&self, labels: &[Label]) -> bool {
        !self.default_local_cluster || value(labels, CLUSTER) == Some(&self.name)
    }

    fn peer(&self, element: &Element<'_>, remote: &Remote) -> bool {
        let Element { body, deny, .. } = element;
        // A deny that is not understood matches anybody, an allow nobody.
        if UNKNOWN.iter().any(|field| !list(&body[*field]).is_empty()) {
            return *deny;
        }
        if PEERS.iter().all(|field| !body[*field].is_array()) {
            return !list(&body["toPorts"]).is_empty() || !list(&body["icmps"]).is_empty();
        }
        let each = |kind: &str| {
            let sides = [format!("from{kind}"), format!("to{kind}")];
            sides.into_iter().flat_map(|field| list(&body[field]).to_vec()).collect::<Vec<_>>()
        };
        each("Endpoints").iter().any(|selector| self.is_endpoint(&element.scope, selector, remote))
            || each("CIDR").iter().any(|cidr| is_within(cidr.as_str().unwrap(), &Value::Null, remote))
            || each("CIDRSet").iter().any(|set| self.is_in_set(set, element.deny, remote))
            || each("Entities").iter().any(|entity| self.is_entity(entity.as_str().unwrap(), remote))
    }

    fn is_endpoint(&self, scope: &Scope<'_>, selector: &Value, remote: &Remote) -> bool {
        let (labels, keys) = (self.labels(remote), keys(selector, &Key::Source));
        if !selects(selector, &Key::Source, &labels) {
            return false;
        }
        if keys.iter().any(|(source, _)| source == "reserved") {
            return true;
        }
        let names = |wanted: &dyn Fn(&str) -> bool| keys.iter().any(|(_, key)| wanted(key));
        if !names(&|key| key == NAMESPACE) {
            let namespace = value(&labels, NAMESPACE);
            let meant = match scope.namespace {
                None if scope.init => return true,
                None => namespace.is_some(),
                Some(_) if names(&|key| key.starts_with(NAMESPACE_LABELS)) => true,
                own => namespace == own,
            };
            if !meant {
                return false;
            }
        }
        names(&|key| key == CLUSTER) || self.is_of_cluster(&labels)
    }

    fn is_in_set(&self, set: &Value, deny: bool, remote: &Remote) -> bool {
        if let Some(cidr) = set["cidr"].as_str() {
            return is_within(cidr, &set["except"], remote);
        }
        let meant = |group: &&Value| match set["cidrGroupRef"].as_str() {
            Some(name) => group["metadata"]["name"] == name,
            None => {
                let labels = group["metadata"]["labels"].as_object().into_iter().flatten();
                let labels: Vec<_> = labels.map(|(k, v)| ("cidrgroup".into(), k.clone(), text(v))).collect();
                selects(&set["cidrGroupSelector"], &Key::Plain, &labels)
            }
        };
        let cidrs = self.groups.iter().filter(meant).flat_map(|group| list(&group["spec"]["externalCIDRs"]));
        // What is no prefix is nothing to allow, and anything to deny.
        let is_any = |cidr: &Value| {
            deny && ["0.0.0.0/0", "::/0"].iter().any(|all| cidr == NO_PREFIX && is_within(all, &set["except"], remote))
        };
        cidrs
            .into_iter()
            .any(|cidr| is_any(cidr) || cidr != NO_PREFIX && is_within(cidr.as_str().unwrap(), &set["except"], remote))
    }

    fn is_entity(&self, name: &str, remote: &Remote) -> bool {
        let labels = self.labels(remote);
        let reserved = |name: &str| labels.iter().any(|(source, key, _)| source == "reserved" && key == name);
        match name {
            "all" => true,
            "none" => false,
            "world" => matches!(remote, Remote::Outside(_)),
            "cluster" => {
                let parts = ["host", "remote-node", "init", "ingress", "unmanaged", "health", "kube-apiserver"];
                parts.iter().any(|part| reserved(part)) || value(&labels, CLUSTER) == Some(&self.name)
            }
            other => reserved(other),
        }
    }

    fn ports(&self, element: &Element<'_>, packet: &Packet) -> bool {
        let field = if element.of_kubernetes { "ports" } else { "toPorts" };
        let (ports, icmps) = (list(&element.body[field]), list(&element.body["icmps"]));
        let authenticated = element.body["authentication"]["mode"].as_str().is_some_and(|mode| mode != "disabled");
        if authenticated {
            return false;
        }
        if ports.is_empty() && icmps.is_empty() {
            return true;
        }
        if element.of_kubernetes {
            return ports.iter().any(|port| self.port(port, "TCP", packet));
        }
        let extended = |port: &Value| matches!(port["protocol"].as_str(), Some("VRRP" | "IGMP"));
        let of = |rule: &Value| {
            let each = list(&rule["ports"]);
            (each.is_empty() || each.iter().any(extended)) && element.deny
                || !rule["rules"].is_object() && each.iter().any(|p| !extended(p) && self.port(p, "ANY", packet))
        };
        ports.iter().any(of) || icmps.iter().flat_map(|icmp| list(&icmp["fields"])).any(|field| is_icmp(field, packet))
    }

    fn port(&self, port: &Value, default: &str, packet: &Packet) -> bool {
        let meant = match port["protocol"].as_str().unwrap_or(default) {
            "TCP" => packet.proto == 6,
            "UDP" => packet.proto == 17,
            "SCTP" => packet.proto == 132,
            "ANY" => matches!(packet.proto, 6 | 17) || (packet.proto == 132 && self.sctp),
            other => panic!("{other}"),
        };
        let first = text(&port["port"]);
        let last = port["endPort"].as_u64().filter(|end| *end != 0);
        meant
            && match first.parse::<u64>() {
                _ if first.is_empty() => true,
                Ok(0) if last.is_none() => true,
                Ok(first) => (first..=last.unwrap_or(first)).contains(&u64::from(packet.port)),
                Err(_) => self.is_named(&first.to_lowercase(), packet),
            }
    }

    fn is_named(&self, name: &str, packet: &Packet) -> bool {
        let is = |p: &Named| (p.name.to_lowercase().as_str(), p.proto, p.port) == (name, packet.proto, packet.port);
        match (packet.direction, &packet.remote) {
            (Direction::Ingress, _) => self.own_ports.iter().any(is),
            (Direction::Egress, Remote::Identity(id)) => self.peer_ports.iter().any(|(i, p)| i == id && is(p)),
            (Direction::Egress, Remote::Outside(_)) => false,
        }
    }

    /// The labels of somebody.
    pub(super) fn labels(&self, of: &Remote) -> Vec<Label> {
        let api_server = |is: bool| is.then_some("kube-apiserver");
        let reserved: Vec<&str> = match of {
            Remote::Identity(id) if self.pods.contains_key(id) => {
                let label = |(key, value): (&String, &String)| ("k8s".into(), key.clone(), value.clone());
                return self.pods[id].iter().map(label).collect();
            }
            Remote::Identity(1) => ["host"].into_iter().chain(api_server(self.api_server_here)).collect(),
            Remote::Identity(3) => vec!["unmanaged"],
            Remote::Identity(4) => vec!["health"],
            Remote::Identity(5) => vec!["init"],
            Remote::Identity(6) => vec!["remote-node"],
            Remote::Identity(7) => vec!["remote-node", "kube-apiserver"],
            Remote::Identity(8) => vec!["ingress"],
            Remote::Identity(id) => panic!("identity {id}"),
            Remote::Outside(ip) => {
                let world = match ip {
                    _ if !(self.ipv4 && self.ipv6) => "world",
                    IpAddr::V4(_) => "world-ipv4",
                    IpAddr::V6(_) => "world-ipv6",
                };
                [world].into_iter().chain(api_server(self.api_servers.contains(ip))).collect()
            }
        };
        reserved.into_iter().map(|name| ("reserved".to_owned(), name.to_owned(), String::new())).collect()
    }
}

fn value<'a>(labels: &'a [Label], key: &str) -> Option<&'a str> {
    labels.iter().find(|(source, k, _)| source == "k8s" && k == key).map(|(_, _, value)| value.as_str())
}

fn is_within(cidr: &str, except: &Value, remote: &Remote) -> bool {
    let Remote::Outside(ip) = remote else { return false };
    contains(cidr, *ip) && !list(except).iter().any(|hole| contains(hole.as_str().unwrap(), *ip))
}

fn is_icmp(field: &Value, packet: &Packet) -> bool {
    let v6 = field["family"] == "IPv6";
    let number = match text(&field["type"]).as_str() {
        "EchoRequest" => {
            if v6 {
                128
            } else {
                8
            }
        }
        "EchoReply" => {
            if v6 {
                129
            } else {
                0
            }
        }
        "DestinationUnreachable" => {
            if v6 {
                1
            } else {
                3
            }
        }
        "PacketTooBig" => 2,
        number => number.parse().unwrap(),
    };
    (packet.proto, packet.port) == (if v6 { 58 } else { 1 }, number)
}

/// What makes a rule invalid. The generators make no other mistakes.
fn is_invalid(spec: &Value) -> bool {
    let sections = ["ingress", "ingressDeny", "egress", "egressDeny"];
    let of = |name: &&str| {
        list(&spec[*name]).iter().any(|body| {
            let ports = !list(&body["toPorts"]).is_empty();
            let only_allowed = ["authentication", "toFQDNs"]
                .iter()
                .any(|field| !body[*field].is_null() && body[*field] != Value::Array(vec![]))
                || list(&body["toPorts"]).iter().any(|rule| rule["rules"].is_object());
            PEERS.iter().filter(|field| !list(&body[**field]).is_empty()).count() > 1
                || (ports && !list(&body["icmps"]).is_empty())
                || (ports && !list(&body["toServices"]).is_empty())
                || (name.ends_with("Deny") && only_allowed)
        })
    };
    sections.iter().all(|name| list(&spec[*name]).is_empty()) || sections.iter().any(of)
}
