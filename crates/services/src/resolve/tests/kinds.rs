// SPDX-License-Identifier: Apache-2.0
//! Frontends beside the cluster address, and a naive reading of who takes new connections.

use super::*;

pub(super) fn node_row(name: &str, ips: &[&str], labels: &[(&str, &str)]) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "default".to_owned(),
        internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: vec![],
        cilium_internal_ips: vec![],
        health_ips: vec![],
        pod_cidrs: vec![],
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        identity: model::reserved::REMOTE_NODE,
        local: name == "n1",
    }
}

pub(super) fn address_row(ip: &str, node_port: bool) -> NodeAddress {
    NodeAddress { address: ip.parse().unwrap(), device: "eth0".to_owned(), primary: true, node_port }
}

/// Frontends of one kind as `address`, with the number of those that take new connections.
fn of_kind(bench: &Bench, kind: ServiceKind) -> Vec<String> {
    let rows = bench.rows();
    let rows = rows.values().filter(|row| row.kind == kind);
    rows.map(|row| format!("{} {}", row.key, row.takers().count())).collect()
}

fn node_port(name: &str, number: u16) -> Service {
    let mut row = service_row(name, &["10.96.0.1"], &HTTP);
    row.ports[0].node_port = Some(number);
    row
}

#[test]
fn a_node_port_is_at_each_address_that_serves_and_follows_them() {
    let mut r = resolver();
    r.service(&up(node_port("web", 30080)));
    r.addresses.insert(address_row("192.168.0.11", true));
    r.addresses.insert(address_row("192.168.0.99", false));
    r.addresses.insert(address_row("fd77::11", true));
    r.resolve();
    assert_eq!(of_kind(&r, ServiceKind::NodePort), ["0.0.0.0:30080/TCP 0", "192.168.0.11:30080/TCP 0"]);
    assert!(
        r.rows().values().filter(|row| row.kind == ServiceKind::NodePort).all(|row| row.exposed && !row.owns_address)
    );
    r.addresses.remove(&("192.168.0.11".parse().unwrap(), "eth0".to_owned()));
    r.addresses.insert(address_row("192.168.0.12", true));
    r.resolve();
    assert_eq!(of_kind(&r, ServiceKind::NodePort), ["0.0.0.0:30080/TCP 0", "192.168.0.12:30080/TCP 0"]);
}

#[test]
fn beside_kube_proxy_only_cluster_addresses_are_served() {
    let mut r = Bench::new(&Config::default(), Numbers { services: vec![], backends: vec![] });
    let external_ips = vec!["192.0.2.9".parse().unwrap()];
    r.service(&up(Service { external_ips, ..node_port("web", 30080) }));
    r.addresses.insert(address_row("192.168.0.11", true));
    r.resolve();
    assert_eq!(r.rows().keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.1:80/TCP"]);
}

#[test]
fn an_address_of_a_load_balancer_that_is_a_nodes_is_not_its_own_while_it_is() {
    let mut r = resolver();
    let load_balancer_ips = vec!["192.168.0.12".parse().unwrap()];
    r.service(&up(Service { load_balancer_ips, ..service_row("web", &["10.96.0.1"], &HTTP) }));
    let owns = |r: &Bench| {
        r.rows().values().find(|row| row.kind == ServiceKind::LoadBalancer).map(|row| row.owns_address).unwrap()
    };
    r.resolve();
    assert!(owns(&r));
    r.nodes.insert(node_row("n2", &["192.168.0.12"], &[]));
    r.resolve();
    assert!(!owns(&r), "what is sent to its other ports is the node's");
    r.nodes.remove(&node_name("n2"));
    r.resolve();
    assert!(owns(&r));
}

#[test]
fn who_names_an_external_address_has_one_port_of_it() {
    let mut r = resolver();
    let external_ips = vec!["8.8.8.8".parse().unwrap()];
    r.service(&up(Service { external_ips, ..service_row("web", &["10.96.0.1"], &HTTP) }));
    r.resolve();
    assert!(r.rows().values().any(|row| row.kind == ServiceKind::ExternalIps && !row.owns_address));
}

#[test]
fn nobody_takes_a_port_of_the_nodes_own() {
    let mut r = resolver();
    r.nodes.insert(node_row("n2", &["192.168.0.12"], &[]));
    r.addresses.insert(address_row("192.168.0.11", true));
    let ports = [
        ("kubelet", Protocol::Tcp, 10250),
        ("etcd", Protocol::Tcp, 2379),
        ("etcd-peers", Protocol::Tcp, 2380),
        ("controllers", Protocol::Tcp, 10257),
        ("scheduler", Protocol::Tcp, 10259),
        ("tunnel", Protocol::Udp, 8472),
        ("other", Protocol::Udp, 10250),
        ("http", Protocol::Tcp, 80),
    ];
    let ips = ["192.168.0.11", "192.168.0.12", "192.0.2.9"].map(|ip| ip.parse().unwrap()).to_vec();
    let row = || service_row("thief", &["10.96.0.1"], &ports);
    // Whatever gives the addresses of nodes to Services gives none of these ports with them.
    let by_kind = [
        (ServiceKind::ExternalIps, Service { external_ips: ips.clone(), ..row() }),
        (ServiceKind::LoadBalancer, Service { load_balancer_ips: ips, ..row() }),
    ];
    let expected = [
        "192.0.2.9:10250/TCP",
        "192.0.2.9:10250/UDP",
        "192.0.2.9:10257/TCP",
        "192.0.2.9:10259/TCP",
        "192.0.2.9:2379/TCP",
        "192.0.2.9:2380/TCP",
        "192.0.2.9:80/TCP",
        "192.0.2.9:8472/UDP",
        "192.168.0.11:10250/UDP",
        "192.168.0.11:80/TCP",
        "192.168.0.12:10250/UDP",
        "192.168.0.12:80/TCP",
    ];
    for (kind, service) in by_kind {
        r.service(&up(service));
        r.resolve();
        let taken: BTreeSet<String> =
            r.rows().values().filter(|row| row.kind == kind).map(|row| row.key.addr.to_string()).collect();
        assert_eq!(taken, expected.map(str::to_owned).into(), "{kind:?}");
    }
}

#[test]
fn nobody_takes_a_cluster_address_by_naming_it_as_external() {
    let mut r = resolver();
    let external_ips = vec!["10.96.0.10".parse().unwrap()];
    r.service(&up(Service { external_ips, ..service_row("a-thief", &["10.96.0.1"], &HTTP) }));
    r.service(&up(service_row("dns", &["10.96.0.10"], &HTTP)));
    r.resolve();
    let owner =
        r.rows().values().find(|row| row.key.addr.ip.to_string() == "10.96.0.10").map(|row| row.service.clone());
    assert_eq!(owner, Some(service_name("dns")));
}

#[test]
fn a_service_for_other_nodes_is_not_served_here_until_the_labels_change() {
    let mut r = resolver();
    let nodes = k8s::selector::parse("service.cilium.io/node=edge").unwrap();
    r.service(&up(Service { nodes, ..service_row("web", &["10.96.0.1"], &HTTP) }));
    r.resolve();
    assert!(r.rows().is_empty());
    r.nodes.insert(node_row("n1", &[], &[("service.cilium.io/node", "edge")]));
    r.resolve();
    assert_eq!(r.rows().len(), 1);
}

#[test]
fn frontends_of_one_port_share_their_backends() {
    let mut r = resolver();
    r.service(&up(node_port("web", 30080)));
    r.addresses.insert(address_row("192.168.0.11", true));
    r.slice(&up(slice_row("web-1", "web", &TARGET, vec![endpoint("10.0.0.1", true, true, false)])));
    r.resolve();
    let rows = r.derived.frontends.rows.snapshot();
    let lists: BTreeSet<_> = rows.iter().map(|row| row.backends.as_ptr()).collect();
    assert_eq!((rows.len(), lists.len()), (3, 1));
}

pub(super) fn pod_row(ip: &str, host_ip: Option<&str>, host_network: bool) -> Pod {
    let host_port = HostPort {
        ip: host_ip.map(|ip| ip.parse().unwrap()),
        port: 8443,
        container_port: 443,
        protocol: Protocol::Tcp,
    };
    Pod {
        name: PodName::new("shop", "edge"),
        uid: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        service_account: String::new(),
        host_network,
        ips: vec![ip.parse().unwrap()],
        workload: None,
        named_ports: vec![],
        host_ports: vec![host_port],
        ready: true,
        ended: false,
    }
}

#[test]
fn a_pods_port_of_the_node_is_at_the_nodes_addresses_and_at_no_others() {
    let at = |pod: Pod| {
        let mut r = resolver();
        r.addresses.insert(address_row("192.168.0.11", true));
        r.addresses.insert(address_row("192.168.0.99", false));
        r.pods.insert(pod);
        r.resolve();
        of_kind(&r, ServiceKind::HostPort)
    };
    assert_eq!(at(pod_row("10.0.0.9", None, false)), ["192.168.0.11:8443/TCP 1"]);
    assert_eq!(at(pod_row("10.0.0.9", Some("192.168.0.99"), false)), ["192.168.0.99:8443/TCP 1"]);
    assert_eq!(at(pod_row("10.0.0.9", Some("8.8.8.8"), false)), [""; 0], "another's address");
    assert_eq!(at(pod_row("192.168.0.11", None, true)), [""; 0], "it has the port already");
    assert_eq!(at(Pod { ended: true, ..pod_row("10.0.0.9", None, false) }), [""; 0]);
    assert_eq!(at(pod_row("fd00::9", None, false)), [""; 0], "the node has no address of that family");
}

/// An endpoint as a slice has it, for the naive reading below.
#[derive(Clone, Debug)]
struct Raw {
    node: Option<u8>,
    zones: Vec<u8>,
    nodes: Vec<u8>,
    conditions: (bool, bool, bool),
}

fn raw() -> impl Strategy<Value = Raw> {
    let hints = || prop::collection::vec(0..3u8, 0..3);
    let node = prop::option::of(0..3u8);
    (node, hints(), hints(), (any::<bool>(), any::<bool>(), any::<bool>()))
        .prop_map(|(node, zones, nodes, conditions)| Raw { node, zones, nodes, conditions })
}

/// Which of the endpoints take new connections on node n1 in zone z1, read off the rules of kube-proxy.
fn naive(all: &[Raw], local: bool, topology: bool) -> BTreeSet<usize> {
    let mut takers = BTreeSet::new();
    let ready: Vec<usize> = (0..all.len()).filter(|i| all[*i].conditions.0).collect();
    let mut by_node = topology && ready.iter().any(|i| all[*i].nodes.contains(&1));
    let mut by_zone = topology && ready.iter().any(|i| all[*i].zones.contains(&1));
    for i in &ready {
        by_node &= !all[*i].nodes.is_empty();
        by_zone &= !all[*i].zones.is_empty();
    }
    for i in ready {
        let mut takes = true;
        if local {
            takes = all[i].node == Some(1);
        } else if by_node {
            takes = all[i].nodes.contains(&1);
        } else if by_zone {
            takes = all[i].zones.contains(&1);
        }
        if takes {
            takers.insert(i);
        }
    }
    if takers.is_empty() {
        for (i, raw) in all.iter().enumerate() {
            let (_, serving, terminating) = raw.conditions;
            if serving && terminating && (!local || raw.node == Some(1)) {
                takers.insert(i);
            }
        }
    }
    takers
}

proptest! {
    #[test]
    fn whoever_takes_new_connections_is_who_a_naive_reading_of_the_rules_names(
        all in prop::collection::vec(raw(), 0..6), local: bool, topology: bool,
    ) {
        let mut r = Bench::new(&Config { topology, ..proxy() }, Numbers { services: vec![], backends: vec![] });
        r.nodes.insert(node_row("n1", &[], &[("topology.kubernetes.io/zone", "z1")]));
        let policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let external_ips = vec!["192.0.2.9".parse().unwrap()];
        let web = service_row("web", &["10.96.0.1"], &HTTP);
        r.service(&up(Service { internal_policy: policy, external_policy: policy, external_ips, ..web }));
        let names = |prefix: &str, all: &[u8]| all.iter().map(|n| format!("{prefix}{n}").as_str().into()).collect();
        let endpoints = all.iter().enumerate().map(|(i, raw)| SliceEndpoint {
            ip: format!("10.0.0.{i}").parse().unwrap(),
            node: raw.node.map(|n| format!("n{n}").as_str().into()),
            zone: None,
            for_zones: names("z", &raw.zones),
            for_nodes: names("n", &raw.nodes),
            ready: raw.conditions.0,
            serving: raw.conditions.1,
            terminating: raw.conditions.2,
        });
        r.slice(&up(slice_row("web-1", "web", &TARGET, endpoints.collect())));
        r.resolve();
        let takers = |key: &str| -> BTreeSet<String> {
            let rows = r.rows();
            let row = rows.values().find(|row| row.key.to_string() == key).unwrap();
            row.takers().map(|backend| backend.addr.ip.to_string()).collect()
        };
        let wanted = |local| naive(&all, local, topology).into_iter().map(|i| format!("10.0.0.{i}")).collect();
        let (cluster, own): (BTreeSet<String>, BTreeSet<String>) = (wanted(false), wanted(true));
        let under_policy = if local { &own } else { &cluster };
        prop_assert_eq!(&takers("10.96.0.1:80/TCP"), under_policy);
        prop_assert_eq!(&takers("192.0.2.9:80/TCP"), under_policy);
        if local {
            prop_assert_eq!(&takers("192.0.2.9:80/TCP/i"), &cluster);
        }
        for row in r.rows().values() {
            for backend in row.backends.iter().filter(|backend| backend.state == BackendState::Active) {
                prop_assert!(row.takers().any(|taker| taker == backend), "an active one takes");
            }
        }
    }
}

#[test]
fn however_many_ports_and_endpoints_a_service_has_its_backends_are_bounded() {
    let mut r = resolver();
    let names: Vec<String> = (0..512).map(|n| format!("p{n}")).collect();
    let ports = |first: u16| -> Vec<_> { (first..).zip(&names).map(|(n, name)| (&**name, Protocol::Tcp, n)).collect() };
    let endpoints = |last| (0..last).map(|n: u16| endpoint(&format!("10.0.{}.{}", n >> 8, n & 255), true, true, false));
    for (count, expected) in [(256, 256), (300, 256)] {
        r.service(&up(service_row("web", &["10.96.0.1"], &ports(1000))));
        r.slices.insert(slice_row("web-1", "web", &ports(8000), endpoints(count).collect()));
        r.resolve();
        assert!(r.rows().values().all(|row| row.backends.len() == expected), "{count} endpoints");
    }
    r.service(&up(service_row("web", &["10.96.0.1"], &ports(1000)[..1])));
    r.resolve();
    assert_eq!(r.rows().values().map(|row| row.backends.len()).collect::<Vec<_>>(), [300]);
}
