// SPDX-License-Identifier: Apache-2.0
//! The specification of policy: a naive interpreter that reads the rules for one packet, and generators of small
//! clusters for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use crate::ingest::CidrGroup;
use crate::labels::NAMESPACE;
use crate::resolve::Enforcement;
use crate::rules::{
    CidrSelector, Direction, Effect, GroupSelector, Groups, L4, NonEmpty, Peer, Peers, Policy, PolicyName, Requirement,
    Rule, Selector, Statement,
};
use ipnet::IpNet;
use model::{Label, LabelSource, Labels, NamedPort, PolicyKind, Protocol, reserved};
use proptest::prelude::*;
use std::net::IpAddr;

/// The other end of a packet.
#[derive(Clone, Debug)]
pub(super) enum Remote {
    /// A pod: number of its identity from 300 on.
    Pod(u32),
    /// The node.
    Host,
    /// An address outside.
    Outside(IpAddr),
}

/// A packet, seen from the pod that policy is about.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) direction: Direction,
    pub(super) remote: Remote,
    pub(super) proto: u8,
    pub(super) port: u16,
}

/// What the interpreter knows of the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) mode: Enforcement,
    pub(super) policies: Vec<Policy>,
    pub(super) groups: Vec<CidrGroup>,
    /// Ports that the subject gives names.
    pub(super) own_ports: Vec<NamedPort>,
    /// Ports that pods of each identity give names.
    pub(super) peer_ports: Vec<(u32, NamedPort)>,
}

/// Labels of the pod identities 300 to 303.
pub(super) fn pod_labels(id: u32) -> Labels {
    let (app, namespace) = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")][(id - 300) as usize];
    [Label::k8s("app", app), Label::k8s(NAMESPACE, namespace)].into_iter().collect()
}

impl Cluster {
    /// Whether the packet may pass, by reading every rule.
    pub(super) fn allows(&self, subject: &Labels, packet: &Packet) -> bool {
        if self.mode == Enforcement::Never {
            return true;
        }
        let rules: Vec<&Rule> =
            self.policies.iter().flat_map(|p| &p.rules).filter(|r| r.subject.matches(subject)).collect();
        let said = |effect| {
            let statements = rules.iter().flat_map(|r| &r.statements);
            statements.filter(|s| s.effect == effect).any(|s| self.speaks(s, packet))
        };
        let denies_by_default = self.mode == Enforcement::Always
            || rules
                .iter()
                .any(|r| if packet.direction == Direction::Ingress { r.deny_ingress } else { r.deny_egress });
        let from_own_node = packet.direction == Direction::Ingress && matches!(packet.remote, Remote::Host);
        !said(Effect::Deny) && (!denies_by_default || from_own_node || said(Effect::Allow))
    }

    /// Whether the statement is about the packet.
    pub(super) fn speaks(&self, statement: &Statement, packet: &Packet) -> bool {
        statement.direction == packet.direction
            && match &statement.peers {
                Peers::Any => true,
                Peers::Some(peers) => peers.iter().any(|peer| self.is(peer, &packet.remote)),
            }
            && statement.ports.as_ref().is_none_or(|ports| ports.iter().any(|l4| self.port(l4, packet)))
    }

    fn is(&self, peer: &Peer, remote: &Remote) -> bool {
        match (peer, remote) {
            (Peer::Labels(selector), Remote::Pod(id)) => selector.matches(&pod_labels(*id)),
            (Peer::Labels(selector), Remote::Host) => selector.matches(&reserved_labels("host")),
            // Outside, only "world" is a label that a rule can name.
            (Peer::Labels(selector), Remote::Outside(_)) => selector.matches(&reserved_labels("world-ipv4")),
            (Peer::Cidr(cidr), Remote::Outside(ip)) => holds(cidr.cidr, &cidr.except, *ip),
            (Peer::Group(group), Remote::Outside(ip)) => {
                let Groups::Named(name) = &group.groups else { panic!("not generated") };
                let meant = self.groups.iter().filter(|g| g.name == *name);
                meant.flat_map(|g| &g.cidrs).any(|cidr| holds(*cidr, &group.except, *ip))
            }
            (Peer::Cidr(_) | Peer::Group(_), _) => false,
        }
    }

    fn port(&self, l4: &L4, packet: &Packet) -> bool {
        match l4 {
            L4::Range { proto, first, last } => *proto == packet.proto && (*first..=*last).contains(&packet.port),
            L4::Named { proto, name } => {
                let is = |p: &NamedPort| p.protocol.number() == *proto && *p.name == **name && p.port == packet.port;
                *proto == packet.proto
                    && match (packet.direction, &packet.remote) {
                        (Direction::Ingress, _) => self.own_ports.iter().any(is),
                        (Direction::Egress, Remote::Pod(id)) => self.peer_ports.iter().any(|(i, p)| i == id && is(p)),
                        (Direction::Egress, _) => false,
                    }
            }
        }
    }
}

fn reserved_labels(name: &str) -> Labels {
    reserved::all().into_iter().find(|i| i.labels.is_reserved(name)).unwrap().labels
}

fn holds(cidr: IpNet, except: &[IpNet], ip: IpAddr) -> bool {
    cidr.contains(&ip) && !except.iter().any(|e| e.contains(&ip))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn http(port: u16) -> NamedPort {
    NamedPort { name: "http".into(), port, protocol: Protocol::Tcp }
}

fn selector() -> impl Strategy<Value = Selector> {
    let app = |value: &str| Requirement::equals(LabelSource::Any, "app", value);
    let not_a = Requirement {
        operator: crate::rules::Operator::NotIn(NonEmpty::one("a".into())),
        ..Requirement::exists(LabelSource::K8s, "app")
    };
    prop::sample::select(vec![
        Selector::all_of(vec![app("a")]),
        Selector::all_of(vec![app("b"), Requirement::equals(LabelSource::K8s, NAMESPACE, "y")]),
        Selector::all_of(vec![Requirement::exists(LabelSource::K8s, NAMESPACE)]),
        Selector::all_of(vec![Requirement::exists(LabelSource::K8s, NAMESPACE), not_a]),
    ])
}

fn peer() -> impl Strategy<Value = Peer> {
    let cidr = |text, except: &[&str]| {
        Peer::Cidr(CidrSelector { cidr: net(text), except: except.iter().map(|e| net(e)).collect() })
    };
    let group = |except: &[&str]| {
        let except = except.iter().map(|e| net(e)).collect();
        Peer::Group(GroupSelector { groups: Groups::Named("g".into()), except })
    };
    let reserved = |name| Peer::Labels(Selector::reserved(name));
    let fixed = vec![
        reserved("host"),
        reserved("world-ipv4"),
        Peer::Labels(Selector::Nothing),
        cidr("10.0.0.0/8", &[]),
        cidr("10.0.0.0/8", &["10.1.0.0/16"]),
        cidr("10.1.2.0/24", &[]),
        cidr("10.1.2.3/32", &[]),
        cidr("0.0.0.0/0", &["10.1.0.0/16"]),
        cidr("0.0.0.0/0", &[]),
        group(&[]),
        group(&["10.1.2.0/24"]),
    ];
    prop_oneof![2 => selector().prop_map(Peer::Labels), 3 => prop::sample::select(fixed)]
}

fn l4() -> impl Strategy<Value = L4> {
    let proto = prop::sample::select(vec![6u8, 17]);
    let port = prop::sample::select(vec![0u16, 1, 2, 3, 7, 8, 80, 65535]);
    prop_oneof![
        3 => (proto.clone(), port.clone(), port).prop_map(|(proto, a, b)| L4::Range { proto, first: a.min(b), last: a.max(b) }),
        1 => proto.prop_map(L4::all),
        1 => Just(L4::Named { proto: 6, name: "http".into() }),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        4 => prop::collection::vec(peer(), 1..3).prop_map(|p| Peers::Some(NonEmpty::new(p).unwrap().sorted())),
    ];
    let ports = prop_oneof![
        1 => Just(None),
        2 => prop::collection::vec(l4(), 1..3).prop_map(|p| NonEmpty::new(p).map(NonEmpty::sorted)),
    ];
    let effect = prop::sample::select(vec![Effect::Allow, Effect::Allow, Effect::Deny]);
    (prop::sample::select(Direction::ALL.to_vec()), effect, peers, ports).prop_map(
        |(direction, effect, peers, ports)| Statement { direction, effect, peers, ports, origin: String::new() },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let subject = prop_oneof![1 => Just(Selector::Everything), 3 => selector()];
    (subject, any::<bool>(), any::<bool>(), prop::collection::vec(statement(), 0..4)).prop_map(
        |(subject, deny_ingress, deny_egress, statements)| Rule {
            subject,
            deny_ingress,
            deny_egress,
            statements,
            log: None,
        },
    )
}

/// The policy of that number.
pub(super) fn policy(number: usize) -> impl Strategy<Value = Policy> {
    prop::collection::vec(rule(), 1..3).prop_map(move |mut rules| {
        for (r, rule) in rules.iter_mut().enumerate() {
            for (s, statement) in rule.statements.iter_mut().enumerate() {
                statement.origin = format!("specs[{r}].{s}");
            }
        }
        let kind = PolicyKind::CiliumClusterwideNetworkPolicy;
        let name = PolicyName { kind, namespace: "".into(), name: format!("p{number}").into() };
        Policy { name, labels: vec![], rules, problems: vec![], valid: true }
    })
}

pub(super) fn group() -> impl Strategy<Value = CidrGroup> {
    prop::sample::subsequence(vec!["10.1.0.0/16", "10.2.0.0/16", "10.1.2.0/24"], 0..=3).prop_map(|cidrs| CidrGroup {
        name: "g".into(),
        labels: Labels::default(),
        cidrs: cidrs.into_iter().map(net).collect(),
    })
}

pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    let mode =
        prop::sample::select(vec![Enforcement::Default, Enforcement::Default, Enforcement::Always, Enforcement::Never]);
    let ports = || prop::collection::vec(prop::sample::select(vec![7u16, 80]).prop_map(http), 0..2);
    let peer_ports = prop::collection::vec((300u32..304, prop::sample::select(vec![7u16, 8, 80]).prop_map(http)), 0..4);
    (mode, (policy(0), policy(1), policy(2)), 0usize..4, prop::option::of(group()), ports(), peer_ports).prop_map(
        |(mode, (a, b, c), count, group, own_ports, peer_ports)| {
            let policies = [a, b, c].into_iter().take(count).collect();
            Cluster { mode, policies, groups: group.into_iter().collect(), own_ports, peer_ports }
        },
    )
}

pub(super) fn packet() -> impl Strategy<Value = Packet> {
    let address = prop::sample::select(vec!["10.0.0.1", "10.1.0.1", "10.1.2.3", "10.1.2.4", "10.2.0.1", "8.8.8.8"]);
    let remote = prop_oneof![
        3 => (300u32..304).prop_map(Remote::Pod),
        1 => Just(Remote::Host),
        3 => address.prop_map(|text| Remote::Outside(text.parse().unwrap())),
    ];
    let proto = prop::sample::select(vec![6u8, 17, 1]);
    let port = prop::sample::select(vec![0u16, 1, 2, 3, 4, 7, 8, 80, 443, 65535]);
    (prop::sample::select(Direction::ALL.to_vec()), remote, proto, port)
        .prop_map(|(direction, remote, proto, port)| Packet { direction, remote, proto, port })
}
