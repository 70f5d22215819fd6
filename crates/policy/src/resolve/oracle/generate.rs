// SPDX-License-Identifier: Apache-2.0
//! Small clusters that exercise all of the policy language, as JSON.

use super::{Cluster, Named, Packet, PodLabels, Remote};
use crate::resolve::Enforcement;
use crate::rules::Direction;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use std::net::IpAddr;

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.1.0.1", "10.1.2.3", "10.1.2.4", "203.0.113.7", "8.8.8.8"];
const ADDRESSES6: [&str; 5] = ["fd00::1", "fd00:1::1", "fd00:1::2", "2001:db8::7", "2001:db8::8"];
const API_SERVERS: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const PODS: std::ops::Range<u32> = 300..305;

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    select(values.to_vec()).boxed()
}

fn some_of(item: impl Strategy<Value = Value>, count: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    prop::collection::vec(item, count).prop_map(Value::Array)
}

/// Selectors that mean the same everywhere.
fn plain_selectors() -> Vec<Value> {
    vec![
        json!({}),
        json!({"matchLabels": {"app": "a"}}),
        json!({"matchLabels": {"app": "b", "tier": "1"}}),
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}),
        json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}, {"key": "app", "operator": "Exists"}]}),
    ]
}

/// Selectors of Cilium's policies.
fn selector() -> BoxedStrategy<Value> {
    let own = [
        json!({"matchLabels": {"k8s:app": "b", "any:tier": "1"}}),
        json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": "y"}}),
        json!({"matchLabels": {"io.kubernetes.pod.namespace": "x", "app": "a"}}),
        json!({"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}]}),
        json!({"matchLabels": {"k8s:io.cilium.k8s.namespace.labels.env": "prod"}}),
        json!({"matchExpressions": [{"key": "io.cilium.k8s.namespace.labels.env", "operator": "DoesNotExist"}]}),
        json!({"matchLabels": {"io.cilium.k8s.policy.cluster": "other"}}),
        json!({"matchExpressions": [{"key": "k8s:io.cilium.k8s.policy.cluster", "operator": "Exists"}]}),
        json!({"matchLabels": {"reserved:host": ""}}),
        json!({"matchLabels": {"reserved:kube-apiserver": ""}}),
        json!({"matchExpressions": [{"key": "reserved:health", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "reserved:world-ipv4", "operator": "DoesNotExist"}]}),
    ];
    prop_oneof![3 => one_of(&plain_selectors()), 2 => one_of(&own)].boxed()
}

fn cidr() -> BoxedStrategy<Value> {
    one_of(&[
        json!("10.0.0.0/8"),
        json!("10.1.0.0/16"),
        json!("10.1.2.9/24"),
        json!("10.1.2.3"),
        json!("203.0.113.0/24"),
        json!("0.0.0.0/0"),
        json!("fd00::/8"),
        json!("fd00:1::/32"),
        json!("fd00:1::2/128"),
        json!("2001:db8::7"),
        json!("::/0"),
    ])
}

fn cidr_set() -> BoxedStrategy<Value> {
    let holes = [
        ("10.0.0.0/8", vec!["10.1.0.0/16", "10.1.2.0/24", "10.0.0.1/32"]),
        ("0.0.0.0/0", vec!["10.0.0.0/8", "203.0.113.7/32", "0.0.0.0/0"]),
        ("fd00::/8", vec!["fd00:1::/32", "fd00:1::2/128"]),
        ("::/0", vec!["2001:db8::7/128", "fd00::/8"]),
    ];
    let with_holes = select(holes.to_vec()).prop_flat_map(|(cidr, holes)| {
        let count = 0..=holes.len();
        subsequence(holes, count).prop_map(move |except| json!({"cidr": cidr, "except": except}))
    });
    let group = one_of(&[
        json!({"cidrGroupRef": "g"}),
        json!({"cidrGroupRef": "h"}),
        json!({"cidrGroupSelector": {"matchLabels": {"trust": "some"}}}),
        json!({"cidrGroupSelector": {}}),
        json!({"cidrGroupSelector": {"matchExpressions": [{"key": "trust", "operator": "NotIn", "values": ["some"]}]}}),
    ]);
    let holes = vec!["10.1.2.0/24", "fd00:1::/32", "10.1.0.0/16"];
    let group = (group, subsequence(holes, 0..=2)).prop_map(|(mut group, except)| {
        group["except"] = json!(except);
        group
    });
    prop_oneof![with_holes, group].boxed()
}

fn entity() -> BoxedStrategy<Value> {
    let names = [
        "all",
        "world",
        "world-ipv4",
        "world-ipv6",
        "cluster",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ];
    select(names.to_vec()).prop_map(Value::from).boxed()
}

/// A field with peers, without its `from` or `to`.
fn peers() -> BoxedStrategy<(&'static str, Value)> {
    prop_oneof![
        5 => some_of(selector(), 0..3).prop_map(|list| ("Endpoints", list)),
        2 => some_of(cidr(), 0..3).prop_map(|list| ("CIDR", list)),
        3 => some_of(cidr_set(), 0..3).prop_map(|list| ("CIDRSet", list)),
        3 => some_of(entity(), 0..3).prop_map(|list| ("Entities", list)),
        1 => some_of(Just(json!({})), 0..2).prop_map(|list| ("Nodes", list)),
    ]
    .boxed()
}

fn port() -> BoxedStrategy<Value> {
    let number = select(vec![0u16, 1, 2, 3, 7, 8, 80, 65535]);
    let protocol = select(vec![json!("TCP"), json!("UDP"), json!("SCTP"), json!("ANY"), Value::Null]);
    let with = |mut port: Value, protocol: Value| {
        if protocol.is_string() {
            port["protocol"] = protocol;
        }
        port
    };
    prop_oneof![
        4 => (number.clone(), protocol.clone()).prop_map(move |(n, p)| with(json!({"port": n.to_string()}), p)),
        3 => (number.clone(), number, protocol.clone()).prop_map(move |(a, b, p)| {
            with(json!({"port": a.min(b).to_string(), "endPort": a.max(b)}), p)
        }),
        2 => (select(vec!["http", "HTTP", "dns"]), protocol).prop_map(move |(n, p)| with(json!({"port": n}), p)),
        1 => Just(json!({"protocol": "VRRP"})),
    ]
    .boxed()
}

/// `toPorts` or `icmps`.
fn ports() -> BoxedStrategy<(&'static str, Value)> {
    let rule = prop_oneof![
        12 => some_of(port(), 1..4).prop_map(|ports| json!({"ports": ports})),
        1 => Just(json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}})),
        1 => Just(json!({})),
    ];
    let icmp = one_of(&[
        json!({"type": 8}),
        json!({"type": "EchoRequest"}),
        json!({"family": "IPv4", "type": "DestinationUnreachable"}),
        json!({"family": "IPv6", "type": "EchoRequest"}),
        json!({"family": "IPv6", "type": "PacketTooBig"}),
        json!({"family": "IPv6", "type": 129}),
    ]);
    prop_oneof![
        3 => some_of(rule, 1..3).prop_map(|rules| ("toPorts", rules)),
        1 => some_of(icmp, 0..3).prop_map(|fields| ("icmps", json!([{"fields": fields}]))),
    ]
    .boxed()
}

/// An element of a section; `side` is `from` or `to`.
fn element(side: &'static str) -> BoxedStrategy<Value> {
    let odd = |odds: f64, fields: Vec<(&'static str, Value)>| prop::option::weighted(odds, select(fields));
    let more = vec![
        ("toFQDNs", json!([{"matchName": "a.example"}])),
        ("toServices", json!([{"k8sService": {"serviceName": "s"}}])),
        ("Groups", json!([{"aws": {"region": "r"}}])),
        ("authentication", json!({"mode": "required"})),
        ("authentication", json!({"mode": "disabled"})),
        ("Entities", json!(["world"])),
        ("icmps", json!([{"fields": [{"type": 8}]}])),
    ];
    (prop::option::weighted(0.8, peers()), prop::option::weighted(0.6, ports()), odd(0.08, more))
        .prop_map(move |(peers, ports, more)| {
            let mut element = json!({});
            for (field, value) in peers.into_iter().chain(ports).chain(more) {
                let of_side = matches!(field, "Endpoints" | "CIDR" | "CIDRSet" | "Entities" | "Nodes" | "Groups");
                let egress_only = matches!(field, "toFQDNs" | "toServices");
                if !egress_only || side == "to" {
                    element[if of_side { format!("{side}{field}") } else { field.to_owned() }] = value;
                }
            }
            element
        })
        .boxed()
}

fn section(side: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![3 => Just(Value::Null), 5 => some_of(element(side), 0..3)]
}

fn spec(clusterwide: bool) -> BoxedStrategy<Value> {
    let mut subjects = plain_selectors();
    if clusterwide {
        subjects.push(json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": "y"}}));
        subjects.push(json!({"matchExpressions": [{"key": "reserved:health", "operator": "Exists"}]}));
        subjects.push(json!({"matchLabels": {"reserved:init": ""}}));
    }
    let default_deny = one_of(&[
        Value::Null,
        Value::Null,
        json!({"ingress": false}),
        json!({"egress": true}),
        json!({"ingress": true, "egress": false}),
    ]);
    let sections = (section("from"), section("from"), section("to"), section("to"));
    (one_of(&subjects), sections, default_deny)
        .prop_map(|(subject, (ingress, ingress_deny, egress, egress_deny), default_deny)| {
            let fields = [
                ("endpointSelector", subject),
                ("ingress", ingress),
                ("ingressDeny", ingress_deny),
                ("egress", egress),
                ("egressDeny", egress_deny),
                ("enableDefaultDeny", default_deny),
            ];
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Value>()
        })
        .boxed()
}

fn cilium_policy(name: String) -> BoxedStrategy<Value> {
    (any::<bool>(), select(vec!["x", "y"]))
        .prop_flat_map(move |(clusterwide, namespace)| {
            let mut object = json!({"kind": "CiliumNetworkPolicy", "metadata": {"name": name, "namespace": namespace}});
            if clusterwide {
                object = json!({"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": name}});
            }
            let with = move |field: &str, value: Value| {
                let mut object = object.clone();
                object[field] = value;
                object
            };
            let several = with.clone();
            prop_oneof![
                3 => spec(clusterwide).prop_map(move |spec| with("spec", spec)),
                1 => some_of(spec(clusterwide), 1..3).prop_map(move |specs| several("specs", specs)),
            ]
        })
        .boxed()
}

fn network_policy(name: String) -> BoxedStrategy<Value> {
    let namespaces = one_of(&[
        json!({}),
        json!({"matchLabels": {"env": "prod"}}),
        json!({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}),
    ]);
    let pods = || one_of(&plain_selectors());
    let peer = prop_oneof![
        2 => pods().prop_map(|pods| json!({"podSelector": pods})),
        2 => namespaces.clone().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        1 => (pods(), namespaces).prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
        2 => one_of(&[
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
            json!({"ipBlock": {"cidr": "0.0.0.0/0"}}),
            json!({"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::2/128"]}}),
        ]),
    ];
    let port = one_of(&[
        json!({"port": 80}),
        json!({"port": "http"}),
        json!({"port": 2, "endPort": 8, "protocol": "UDP"}),
        json!({"protocol": "SCTP"}),
        json!({}),
    ]);
    let rule = move |side: &'static str| {
        let (peers, ports) = (some_of(peer.clone(), 0..3), some_of(port.clone(), 0..3));
        let both = (prop::option::weighted(0.8, peers), prop::option::weighted(0.6, ports));
        both.prop_map(move |(peers, ports)| {
            let fields = [(side, peers), ("ports", ports)];
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect::<Value>()
        })
    };
    let types = one_of(&[json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let sections = (prop::option::of(some_of(rule("from"), 0..3)), prop::option::of(some_of(rule("to"), 0..3)));
    (select(vec!["x", "y"]), pods(), sections, prop::option::of(types))
        .prop_map(move |(namespace, pods, (ingress, egress), types)| {
            let fields =
                [("podSelector", Some(pods)), ("ingress", ingress), ("egress", egress), ("policyTypes", types)];
            let spec: Value = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            json!({"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        })
        .boxed()
}

/// The policy of that number.
pub(crate) fn policy(number: usize) -> BoxedStrategy<Value> {
    let name = format!("p{number}");
    prop_oneof![3 => cilium_policy(name.clone()), 1 => network_policy(name)].boxed()
}

/// The group of that name.
pub(crate) fn cidr_group(name: &'static str) -> BoxedStrategy<Value> {
    let cidrs = vec!["10.1.0.0/16", "10.2.0.0/16", "10.1.2.0/24", "fd00:1::/32", "203.0.113.7"];
    let labels = one_of(&[json!({"trust": "some"}), json!({"trust": "none"}), json!({})]);
    (subsequence(cidrs, 0..=5), prop::option::weighted(0.3, Just(super::NO_PREFIX)), labels)
        .prop_map(move |(mut cidrs, no_prefix, labels)| {
            cidrs.extend(no_prefix);
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"externalCIDRs": cidrs}})
        })
        .boxed()
}

/// Labels that a pod's identity may have.
pub(crate) fn pod() -> BoxedStrategy<PodLabels> {
    let namespace = select(vec![("x", None), ("y", Some("prod"))]);
    let app = select(vec![None, Some("a"), Some("b")]);
    let cluster = select(vec!["home", "home", "home", "other"]);
    (namespace, app, prop::option::of(Just("1")), cluster)
        .prop_map(|((namespace, env), app, tier, cluster)| {
            let env_key = format!("{}env", super::NAMESPACE_LABELS);
            let labels = [
                (super::NAMESPACE, Some(namespace)),
                (super::CLUSTER, Some(cluster)),
                (env_key.as_str(), env),
                ("app", app),
                ("tier", tier),
            ];
            labels.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect()
        })
        .boxed()
}

/// A port with a name.
pub(crate) fn named_port() -> BoxedStrategy<Named> {
    let name = select(vec!["http", "Http", "dns"]);
    (name, select(vec![6, 6, 17, 132]), select(vec![7, 8, 80]))
        .prop_map(|(name, proto, port)| Named { name: name.to_owned(), proto, port })
        .boxed()
}

/// Addresses of API servers outside of the cluster.
pub(crate) fn api_servers() -> BoxedStrategy<Vec<IpAddr>> {
    subsequence(API_SERVERS.map(|text| text.parse().unwrap()).to_vec(), 0..=2).boxed()
}

/// A whole cluster.
pub(crate) fn cluster() -> BoxedStrategy<Cluster> {
    let mode = select(vec![Enforcement::Default, Enforcement::Default, Enforcement::Always, Enforcement::Never]);
    let families = select(vec![(true, true), (true, true), (true, false), (false, true)]);
    let settings = (mode, families, prop::bool::weighted(0.8), any::<bool>());
    let objects = (
        (0usize..4).prop_flat_map(|count| (0..count).map(policy).collect::<Vec<_>>()),
        prop::option::of(cidr_group("g")),
        prop::option::of(cidr_group("h")),
        (api_servers(), any::<bool>()),
    );
    let pods = (PODS).map(|id| (Just(id), pod())).collect::<Vec<_>>();
    let before = prop::collection::btree_map(PODS, pod(), 0..4);
    let subject = prop_oneof![8 => PODS, 1 => Just(4), 1 => Just(5)];
    let ports = (
        prop::collection::vec(named_port(), 0..4),
        prop::collection::vec((prop_oneof![PODS, Just(4)], named_port()), 0..6),
    );
    (settings, objects, (pods, before), subject, ports)
        .prop_map(
            |(settings, (policies, g, h, (api_servers, api_server_here)), (pods, pods_before), subject, ports)| {
                let (mode, (ipv4, ipv6), default_local_cluster, sctp) = settings;
                let (own_ports, peer_ports) = ports;
                let (name, groups, pods) =
                    ("home".to_owned(), g.into_iter().chain(h).collect(), pods.into_iter().collect());
                Cluster {
                    mode,
                    ipv4,
                    ipv6,
                    name,
                    default_local_cluster,
                    sctp,
                    policies,
                    groups,
                    api_servers,
                    api_server_here,
                    pods,
                    pods_before,
                    subject,
                    own_ports,
                    peer_ports,
                }
            },
        )
        .boxed()
}

/// A packet to or from anybody. Callers skip it if the cluster lacks its family.
pub(crate) fn packet() -> BoxedStrategy<Packet> {
    let address =
        select(ADDRESSES.iter().chain(&ADDRESSES6).map(|text| text.parse::<IpAddr>().unwrap()).collect::<Vec<_>>());
    let remote = prop_oneof![
        4 => PODS.prop_map(Remote::Identity),
        3 => select(vec![1, 3, 4, 5, 6, 7, 8]).prop_map(Remote::Identity),
        4 => address.prop_map(Remote::Outside),
    ];
    let ports = (select(vec![6, 17, 132]), select(vec![0u16, 1, 2, 3, 4, 7, 8, 80, 443, 65535]));
    let l4 =
        prop_oneof![4 => ports, 1 => select(vec![(1u8, 8u16), (1, 3), (1, 0), (58, 128), (58, 2), (58, 129), (58, 1)])];
    (select(Direction::ALL.to_vec()), remote, l4)
        .prop_map(|(direction, remote, (proto, port))| Packet { direction, remote, proto, port })
        .boxed()
}
