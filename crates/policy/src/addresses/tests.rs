// SPDX-License-Identifier: Apache-2.0
//! Pods, nodes and prefixes in, entries out.

use super::*;
use model::EndpointKind;
use model::Mac;
use model::PodName;
use proptest::prelude::*;

const DUAL: Families = Families { ipv4: true, ipv6: true };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn local(routing: RoutingMode) -> LocalNode {
    LocalNode {
        name: "node1".into(),
        ipv4: Some("192.168.77.11".parse().unwrap()),
        ipv6: None,
        addresses: vec![ip("192.168.77.11"), ip("10.0.1.1"), ip("127.0.0.1"), ip("fe80::1")],
        router_ipv4: Some("10.0.1.1".parse().unwrap()),
        router_ipv6: None,
        pod_cidrs: vec![net("10.0.1.0/24")],
        devices: vec!["eth0".into()],
        device_mtu: 1500,
        route_mtu: 1450,
        routing,
    }
}

fn node2() -> Node {
    Node {
        name: "node2".into(),
        cluster: "default".into(),
        internal_ips: vec![ip("fd77::12"), ip("192.168.77.12")],
        external_ips: vec![ip("203.0.113.12")],
        cilium_internal_ips: vec![ip("10.0.2.1")],
        health_ips: vec![ip("10.0.2.9")],
        pod_cidrs: vec![net("10.0.2.0/24")],
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: false,
    }
}

/// A pod of this cluster.
fn here(pod: PodName) -> model::MeshPod {
    model::MeshPod { cluster: "default".into(), pod }
}

fn pod(name: &str, ipv4: &str, identity: u32, host: &str) -> RemoteEndpoint {
    RemoteEndpoint {
        cluster: "default".into(),
        pod: PodName::new("shop", name),
        ipv4: Some(ipv4.parse().unwrap()),
        ipv6: None,
        identity: IdentityId(identity),
        host: Some(ip(host)),
        named_ports: vec![],
    }
}

fn endpoint(id: u16, ipv4: &str) -> Endpoint {
    Endpoint {
        id: EndpointId(id),
        kind: EndpointKind::Pod { name: PodName::new("shop", "web"), uid: String::new() },
        container_id: String::new(),
        interface: "eth0".into(),
        netns: String::new(),
        netns_cookie: 0,
        host_interface: String::new(),
        host_ifindex: 0,
        mac: Mac::default(),
        host_mac: Mac::default(),
        ipv4: Some(ipv4.parse().unwrap()),
        ipv6: None,
    }
}

fn addresses(native: &[&str], routing: RoutingMode) -> Addresses {
    let native_cidrs = native.iter().map(|text| net(text)).collect();
    let mut addresses = Addresses::new(Settings { families: DUAL, cluster: "default".into(), native_cidrs });
    addresses.set_local_node(local(routing));
    addresses.upsert_node(node2());
    addresses
}

/// `prefix identity [tunnel] [node] [native]` of every entry.
fn text(addresses: &Addresses) -> Vec<String> {
    let line = |e: IpEntry| {
        let tunnel = e.tunnel.map(|t| format!(" via {t}")).unwrap_or_default();
        let node = if e.node_address { " node" } else { "" };
        format!("{} {}{tunnel}{node}{}", e.prefix, e.identity, if e.no_masquerade { " native" } else { "" })
    };
    addresses.entries().map(line).collect()
}

#[test]
fn behind_a_tunnel_are_the_pods_and_inner_addresses_of_other_nodes() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "192.168.77.12"));
    addresses.upsert_pod(pod("b", "10.0.2.6", 301, "fd77::12"));
    addresses.upsert_pod(pod("c", "10.0.1.7", 302, "192.168.77.11"));
    assert_eq!(
        text(&addresses),
        [
            "0.0.0.0/0 9",
            "10.0.1.1/32 1",
            "10.0.1.7/32 302",
            "10.0.2.0/24 9 via 192.168.77.12",
            "10.0.2.1/32 6 via 192.168.77.12",
            "10.0.2.5/32 300 via 192.168.77.12",
            "10.0.2.6/32 301 via 192.168.77.12",
            "10.0.2.9/32 4 via 192.168.77.12",
            "192.168.77.11/32 1",
            "192.168.77.12/32 6 node",
            "203.0.113.12/32 6 via 192.168.77.12 node",
            "::/0 10",
            "fd77::12/128 6 via 192.168.77.12 node",
        ]
    );
}

#[test]
fn an_entry_names_the_node_that_it_is_behind() {
    for routing in [RoutingMode::Tunnel, RoutingMode::Native] {
        let mut addresses = addresses(&[], routing);
        addresses.upsert_pod(pod("a", "10.0.2.5", 300, "fd77::12"));
        addresses.upsert_endpoint(endpoint(7, "10.0.1.5"), IdentityId(301));
        let host = |prefix: &str| addresses.entries().find(|entry| entry.prefix == net(prefix)).unwrap().host;
        for behind in ["10.0.2.5/32", "10.0.2.1/32", "10.0.2.9/32", "203.0.113.12/32"] {
            assert_eq!(host(behind), Some(ip("192.168.77.12")), "{behind}");
        }
        assert_eq!((host("10.0.1.5/32"), host("0.0.0.0/0")), (Some(ip("192.168.77.11")), None));
    }
}

#[test]
fn of_a_node_that_is_gone_nothing_is_left_but_its_pods_by_the_address_that_they_name() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "fd77::12"));
    addresses.remove_node(&node2().key());
    let entries = text(&addresses);
    assert!(
        !entries.iter().any(|line| line.contains("192.168.77.12") || line.starts_with("10.0.2.0/24")),
        "{entries:?}"
    );
    assert!(entries.contains(&"10.0.2.5/32 300 via fd77::12".to_owned()), "{entries:?}");
}

#[test]
fn a_node_has_the_identity_that_it_was_announced_with() {
    for (announced, identity) in [(0, 6), (777, 777)] {
        let mut addresses = addresses(&[], RoutingMode::Tunnel);
        addresses.upsert_node(Node { identity: IdentityId(announced), ..node2() });
        assert!(text(&addresses).contains(&format!("192.168.77.12/32 {identity} node")));
    }
}

#[test]
fn a_node_without_ipv4_tunnels_to_nodes_and_pods_over_ipv6() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "192.168.77.12"));
    let v6 = Some("fd77::11".parse().unwrap());
    addresses.set_local_node(LocalNode { ipv4: None, ipv6: v6, ..local(RoutingMode::Tunnel) });
    let entries = text(&addresses);
    for line in [
        "10.0.2.5/32 300 via fd77::12",
        "10.0.2.0/24 9 via fd77::12",
        "10.0.2.1/32 6 via fd77::12",
        "10.0.2.9/32 4 via fd77::12",
        "192.168.77.12/32 6 via fd77::12 node",
        "fd77::12/128 6 node",
    ] {
        assert!(entries.contains(&line.to_owned()), "{line} in {entries:#?}");
    }
    addresses.set_local_node(local(RoutingMode::Tunnel));
    assert!(text(&addresses).contains(&"10.0.2.5/32 300 via 192.168.77.12".to_owned()));
}

#[test]
fn a_node_that_loses_its_ipv4_address_is_tunnelled_to_over_ipv6_with_its_pods() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    let v6 = Some("fd77::11".parse().unwrap());
    addresses.set_local_node(LocalNode { ipv6: v6, ..local(RoutingMode::Tunnel) });
    addresses.upsert_pod(pod("b", "10.0.2.6", 301, "fd77::12"));
    assert!(text(&addresses).contains(&"10.0.2.6/32 301 via 192.168.77.12".to_owned()));
    addresses.upsert_node(Node { internal_ips: vec![ip("fd77::12")], ..node2() });
    let entries = text(&addresses);
    for line in ["10.0.2.6/32 301 via fd77::12", "10.0.2.1/32 6 via fd77::12", "fd77::12/128 6 node"] {
        assert!(entries.contains(&line.to_owned()), "{line} in {entries:#?}");
    }
}

#[test]
fn a_pod_that_names_an_address_its_node_has_lost_is_not_tunnelled_to_where_that_node_was() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("b", "10.0.2.6", 301, "fd77::12"));
    addresses.upsert_node(Node { internal_ips: vec![ip("fd77::13"), ip("192.168.77.13")], ..node2() });
    let entries = text(&addresses);
    assert!(entries.contains(&"10.0.2.6/32 301 via fd77::12".to_owned()), "{entries:#?}");
}

#[test]
fn pods_of_a_node_with_which_no_family_is_shared_are_not_sent_out_in_the_open() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_node(Node { internal_ips: vec![ip("fd77::12")], ..node2() });
    let entries = text(&addresses);
    assert!(entries.contains(&"10.0.2.0/24 9 via fd77::12".to_owned()), "{entries:#?}");
}

/// Also by the address under which its own programs speak to pods.
#[test]
fn a_node_on_which_an_api_server_runs_is_known_as_that() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    for (api_servers, identity) in [(vec![ip("192.168.77.12")], 7), (vec![ip("203.0.113.12")], 7), (vec![], 6)] {
        addresses.set_api_servers(api_servers.into_iter().collect());
        let inner = format!("10.0.2.1/32 {identity} via 192.168.77.12");
        assert!(text(&addresses).contains(&inner), "{:#?}", text(&addresses));
    }
    addresses.set_api_servers(BTreeSet::from([ip("192.168.77.12")]));
    assert!(text(&addresses).contains(&"192.168.77.12/32 7 node".to_owned()));
    addresses.set_api_servers(BTreeSet::new());
    assert!(text(&addresses).contains(&"192.168.77.12/32 6 node".to_owned()));
}

#[test]
fn with_native_routing_nothing_is_tunnelled_and_the_cluster_is_not_masqueraded() {
    let mut addresses = addresses(&["10.0.0.0/8"], RoutingMode::Native);
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "192.168.77.12"));
    addresses.set_prefixes([(net("10.9.0.0/16"), IdentityId(16_777_218)), (net("11.0.0.0/8"), IdentityId(16_777_219))]);
    let text = text(&addresses);
    for line in [
        "10.0.0.0/8 9 native",
        "10.0.2.5/32 300 native",
        "10.9.0.0/16 16777218 native",
        "11.0.0.0/8 16777219",
        "192.168.77.12/32 6 node native",
        "fd77::12/128 6 node native",
        "10.0.2.1/32 6 native",
    ] {
        assert!(text.contains(&line.to_owned()), "{line} in {text:#?}");
    }
}

#[test]
fn a_native_prefix_does_not_hide_the_identity_of_a_wider_one() {
    let mut addresses = addresses(&["10.244.0.0/16"], RoutingMode::Native);
    addresses.set_prefixes([(net("10.0.0.0/8"), IdentityId(16_777_217))]);
    assert!(text(&addresses).contains(&"10.244.0.0/16 16777217 native".to_owned()));
    addresses.set_prefixes([]);
    assert!(text(&addresses).contains(&"10.244.0.0/16 9 native".to_owned()));
    assert!(!text(&addresses).iter().any(|line| line.starts_with("10.0.0.0/8")));
    addresses.set_prefixes([(net("10.244.0.0/16"), IdentityId(16_777_218))]);
    assert!(text(&addresses).contains(&"10.244.0.0/16 16777218 native".to_owned()));
}

#[test]
fn what_this_node_knows_of_a_pod_counts_more_than_what_the_api_says() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("old", "10.0.1.5", 300, "192.168.77.12"));
    addresses.upsert_endpoint(endpoint(7, "10.0.1.5"), IdentityId(301));
    addresses.set_prefixes([(net("10.0.1.5/32"), IdentityId(16_777_217))]);
    assert!(text(&addresses).contains(&"10.0.1.5/32 301".to_owned()));
    addresses.remove_endpoint(EndpointId(7));
    assert!(text(&addresses).contains(&"10.0.1.5/32 300 via 192.168.77.12".to_owned()));
    addresses.remove_pod(&here(PodName::new("shop", "old")));
    assert!(text(&addresses).contains(&"10.0.1.5/32 16777217".to_owned()));
}

#[test]
fn of_two_pods_with_one_address_the_latest_counts() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    addresses.upsert_pod(pod("z", "10.0.2.5", 300, "192.168.77.12"));
    addresses.upsert_pod(pod("a", "10.0.2.5", 301, "192.168.77.12"));
    addresses.upsert_pod(pod("z", "10.0.2.5", 300, "192.168.77.12"));
    assert!(text(&addresses).contains(&"10.0.2.5/32 301 via 192.168.77.12".to_owned()));
    addresses.upsert_pod(pod("m", "10.0.2.5", 302, "192.168.77.12"));
    addresses.upsert_pod(pod("z", "10.0.2.5", 303, "192.168.77.12"));
    assert!(text(&addresses).contains(&"10.0.2.5/32 303 via 192.168.77.12".to_owned()));
    addresses.remove_pod(&here(PodName::new("shop", "z")));
    assert!(text(&addresses).contains(&"10.0.2.5/32 302 via 192.168.77.12".to_owned()));
}

#[test]
fn pods_of_one_name_in_two_clusters_are_two() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    let elsewhere = RemoteEndpoint { cluster: "other".into(), ..pod("a", "10.1.2.5", 301, "192.168.78.12") };
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "192.168.77.12"));
    addresses.upsert_pod(elsewhere.clone());
    addresses.upsert_endpoint(endpoint(7, "10.0.1.5"), IdentityId(302));
    let pods: Vec<_> = addresses.entries().filter_map(|entry| entry.pod).collect();
    assert_eq!(pods, [here(PodName::new("shop", "web")), here(PodName::new("shop", "a")), elsewhere.key()]);
    addresses.remove_pod(&here(PodName::new("shop", "a")));
    let text = text(&addresses);
    assert!(text.contains(&"10.1.2.5/32 301 via 192.168.78.12".to_owned()), "{text:#?}");
    assert!(!text.iter().any(|line| line.starts_with("10.0.2.5")), "{text:#?}");
}

#[test]
fn only_what_changed_is_told_and_replaying_it_gives_the_whole() {
    let mut addresses = addresses(&[], RoutingMode::Tunnel);
    let mut replayed: BTreeMap<IpNet, IpEntry> = BTreeMap::new();
    let mut replay = |changes: Vec<(IpNet, Option<IpEntry>)>| {
        for (prefix, entry) in changes {
            match entry {
                Some(entry) => replayed.insert(prefix, entry),
                None => replayed.remove(&prefix),
            };
        }
        replayed.values().cloned().collect::<Vec<_>>()
    };
    replay(addresses.changes());
    addresses.upsert_pod(pod("a", "10.0.2.5", 300, "192.168.77.12"));
    let changes = addresses.changes();
    assert_eq!(changes.len(), 1);
    replay(changes);
    addresses.upsert_node(node2());
    assert_eq!(addresses.changes(), []);
    addresses.set_local_node(local(RoutingMode::Native));
    addresses.remove_node(&node2().key());
    addresses.remove_pod(&here(PodName::new("shop", "a")));
    let replayed = replay(addresses.changes());
    assert_eq!(replayed, addresses.entries().collect::<Vec<_>>());
}

#[derive(Clone, Debug)]
enum Step {
    Node(u8, Vec<IpAddr>),
    NodeGoes(u8),
    Pod(u8, Option<IpAddr>),
    PodGoes(u8),
    /// This node has IPv4, IPv6, and these other addresses.
    Local(bool, bool, Vec<IpAddr>),
}

/// Few, so that nodes share them and pods name them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![(1..6_u8).prop_map(|n| IpAddr::from([192, 0, 2, n])), (1..6_u8).prop_map(|n| ip(&format!("fd77::{n}")))]
}

fn step() -> impl Strategy<Value = Step> {
    let addresses = || prop::collection::vec(address(), 0..4);
    prop_oneof![
        3 => (0..5_u8, addresses()).prop_map(|(n, ips)| Step::Node(n, ips)),
        1 => (0..5_u8).prop_map(Step::NodeGoes),
        3 => (0..12_u8, prop::option::of(address())).prop_map(|(n, host)| Step::Pod(n, host)),
        1 => (0..12_u8).prop_map(Step::PodGoes),
        1 => (any::<bool>(), any::<bool>(), addresses()).prop_map(|(v4, v6, ips)| Step::Local(v4, v6, ips)),
    ]
}

fn take(addresses: &mut Addresses, step: Step) {
    match step {
        Step::Node(n, internal_ips) => {
            let name = format!("node{n}");
            addresses.upsert_node(Node { name, internal_ips, external_ips: vec![], ..node2() });
        }
        Step::NodeGoes(n) => addresses.remove_node(&Node { name: format!("node{n}"), ..node2() }.key()),
        Step::Pod(n, host) => {
            let name = format!("p{n}");
            addresses.upsert_pod(RemoteEndpoint {
                host,
                ..pod(&name, &format!("10.0.2.{n}"), 300 + u32::from(host.is_some()), "::")
            });
        }
        Step::PodGoes(n) => addresses.remove_pod(&here(PodName::new("shop", format!("p{n}")))),
        Step::Local(v4, v6, own) => {
            let ipv4 = v4.then(|| "192.0.2.1".parse().unwrap());
            let ipv6 = v6.then(|| "fd77::1".parse().unwrap());
            addresses.set_local_node(LocalNode { ipv4, ipv6, addresses: own, ..local(RoutingMode::Tunnel) });
        }
    }
}

proptest! {
    /// What is found by index is what is found by looking through everything, and pods follow their nodes without being
    /// looked at again.
    #[test]
    fn an_index_finds_what_a_search_finds(steps in prop::collection::vec(step(), 0..60), ips in prop::collection::vec(address(), 0..4)) {
        let mut addresses = addresses(&[], RoutingMode::Tunnel);
        steps.into_iter().for_each(|step| take(&mut addresses, step));
        for host in &ips {
            let node = addresses.nodes.values().find(|node| node.internal_ips.contains(host));
            let searched = node.and_then(|node| addresses.address_of(node)).unwrap_or(*host);
            let direct = host.is_ipv4() && addresses.families().0;
            prop_assert_eq!(addresses.reach(*host), if direct { *host } else { searched });
            let node = addresses.local.clone().unwrap();
            let own = [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)].contains(&Some(*host));
            prop_assert_eq!(addresses.is_local(*host), own || node.addresses.contains(host));
        }
        let carried = |id| addresses.pods.values().any(|pod| pod.identity == id);
        for id in [300, 301].map(IdentityId) {
            prop_assert_eq!(addresses.is_carried(id), carried(id));
        }
        let searched: BTreeSet<_> =
            addresses.pods.values().filter(|pod| pod.host.is_some_and(|host| ips.contains(&host))).map(|pod| &pod.pod).collect();
        let found = addresses.pods_at(ips);
        prop_assert_eq!(found.iter().map(|pod| &pod.pod).collect::<BTreeSet<_>>(), searched);
        addresses.changes();
        for pod in addresses.pods.values().cloned().collect::<Vec<_>>() {
            addresses.claim_pod(&pod);
        }
        prop_assert_eq!(addresses.changes(), vec![]);
    }
}
