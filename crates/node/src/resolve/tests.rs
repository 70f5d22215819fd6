// SPDX-License-Identifier: Apache-2.0
//! Tests of resolution.

use super::*;
use model::reserved;
use proptest::prelude::*;

fn node(name: &str, ips: &[&str], prefixes: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "default".to_owned(),
        internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: Vec::new(),
        pod_cidrs: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: false,
    }
}

fn wire() -> Wire {
    Wire {
        name: "node1".to_owned(),
        ipv4: Some("192.168.77.11".parse().unwrap()),
        ipv6: Some("fd77::11".parse().unwrap()),
        routers: vec!["10.0.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
        pod_cidrs: vec!["10.0.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        device_mtu: 1500,
        overlay: Some(9),
        networks: vec![(2, "192.168.77.0/24".parse().unwrap()), (2, "fd77::/64".parse().unwrap())],
    }
}

fn tunnel() -> Config {
    Config { ipv6: true, ..Config::default() }
}

fn native() -> Config {
    Config { routing: RoutingMode::Native, direct_routes: true, ..tunnel() }
}

fn run(config: &Config, nodes: &[Node]) -> Resolution {
    resolve(config, &wire(), nodes.iter(), &Grants::default())
}

/// Each route as iproute2 would show it.
fn lines(resolution: &Resolution) -> Vec<String> {
    let show = |route: &Route| {
        let hop = match route.hop {
            Hop::Tunnel { remote, device } => format!("encap {remote} dev {device}"),
            Hop::Direct { gateway, device } => format!("via {gateway} dev {device}"),
            Hop::Unreachable => "unreachable".to_owned(),
        };
        let source = route.source.map(|ip| format!(" src {ip}")).unwrap_or_default();
        let mtu = route.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        format!("{} {hop}{source}{mtu}", route.prefix)
    };
    resolution.routes.iter().map(show).collect()
}

fn problems(resolution: &Resolution) -> Vec<String> {
    resolution.problems.iter().map(|problem| problem.message.clone()).collect()
}

#[test]
fn pods_of_another_node_are_tunnelled_to_its_ipv4_address_in_both_families() {
    let resolution = run(&tunnel(), &[node("node2", &["fd77::12", "192.168.77.12"], &["10.0.2.0/24", "fd00:2::/64"])]);
    assert_eq!(
        lines(&resolution),
        [
            "10.0.1.0/24 unreachable",
            "fd00:1::/64 unreachable",
            "10.0.2.0/24 encap 192.168.77.12 dev 9 src 10.0.1.1 mtu 1450",
            "fd00:2::/64 encap 192.168.77.12 dev 9 src fd00:1::1 mtu 1450",
        ]
    );
    assert!(resolution.problems.is_empty());
}

#[test]
fn a_node_without_ipv4_is_tunnelled_to_over_ipv6() {
    let resolution = run(&tunnel(), &[node("node2", &["fd77::12"], &["fd00:2::/64"])]);
    assert_eq!(lines(&resolution)[2], "fd00:2::/64 encap fd77::12 dev 9 src fd00:1::1 mtu 1430");
}

#[test]
fn a_node_without_ipv4_tunnels_over_ipv6_in_both_families() {
    let wire = Wire { ipv4: None, ..wire() };
    let nodes = [node("node2", &["192.168.77.12", "fd77::12"], &["10.0.2.0/24", "fd00:2::/64"])];
    let resolution = resolve(&tunnel(), &wire, nodes.iter(), &Grants::default());
    assert_eq!(
        lines(&resolution)[2..],
        [
            "10.0.2.0/24 encap fd77::12 dev 9 src 10.0.1.1 mtu 1430",
            "fd00:2::/64 encap fd77::12 dev 9 src fd00:1::1 mtu 1430",
        ]
    );
    let only_v4 =
        resolve(&tunnel(), &wire, [node("v4", &["192.168.77.13"], &["10.0.3.0/24"])].iter(), &Grants::default());
    assert_eq!(problems(&only_v4), ["node v4 has no InternalIP of a family that this node has too"]);
}

#[test]
fn prefixes_of_a_family_that_is_off_have_no_route() {
    let resolution = run(&Config::default(), &[node("node2", &["192.168.77.12"], &["10.0.2.0/24", "fd00:2::/64"])]);
    assert_eq!(resolution.routes.len(), 2);
}

#[test]
fn direct_routes_go_by_the_address_of_each_family() {
    let resolution = run(&native(), &[node("node2", &["192.168.77.12", "fd77::12"], &["10.0.2.0/24", "fd00:2::/64"])]);
    assert_eq!(lines(&resolution)[2..], ["10.0.2.0/24 via 192.168.77.12 dev 2", "fd00:2::/64 via fd77::12 dev 2"]);
}

#[test]
fn without_direct_routes_the_network_leads_to_other_nodes() {
    let config = Config { direct_routes: false, ..native() };
    assert_eq!(run(&config, &[node("node2", &["192.168.77.12"], &["10.0.2.0/24"])]).routes.len(), 2);
}

#[test]
fn a_node_on_another_segment_is_an_error_that_names_it_unless_it_is_to_be_skipped() {
    let far = [node("far", &["172.16.0.9"], &["10.0.9.0/24"])];
    let resolution = run(&native(), &far);
    assert_eq!(resolution.routes.len(), 2);
    assert!(problems(&resolution)[0].starts_with("address 172.16.0.9 of node far is on no network of this node"));
    assert!(run(&Config { skip_unreachable: true, ..native() }, &far).problems.is_empty());
}

#[test]
fn of_two_overlapping_prefixes_the_older_stays_and_the_error_names_both_nodes() {
    let (old, new) = (node("z", &["192.168.77.12"], &["10.0.2.0/24"]), node("a", &["192.168.77.13"], &["10.0.0.0/16"]));
    let first = run(&tunnel(), std::slice::from_ref(&old));
    let both = [new, old];
    let second = resolve(&tunnel(), &wire(), both.iter(), &first.grants);
    assert_eq!(second.routes, first.routes);
    assert_eq!(
        problems(&second),
        ["podCIDR 10.0.0.0/16 of node a overlaps 10.0.1.0/24 of node node1, which has it already"]
    );
    let inside = [node("a", &["192.168.77.13"], &["10.0.2.128/25"]), both[1].clone()];
    let third = resolve(&tunnel(), &wire(), inside.iter(), &first.grants);
    assert_eq!(third.routes, first.routes);
    assert_eq!(
        problems(&third),
        ["podCIDR 10.0.2.128/25 of node a overlaps 10.0.2.0/24 of node z, which has it already"]
    );
}

#[test]
fn of_two_nodes_with_one_address_the_older_stays_and_the_error_names_both() {
    let (old, new) = (node("z", &["192.168.77.12"], &["10.0.2.0/24"]), node("a", &["192.168.77.12"], &["10.0.3.0/24"]));
    let first = run(&tunnel(), std::slice::from_ref(&old));
    let second = resolve(&tunnel(), &wire(), [new.clone(), old].iter(), &first.grants);
    assert_eq!(second.routes, first.routes);
    assert_eq!(problems(&second), ["address 192.168.77.12 of node a is node z's already; its pods are not reached"]);
    let own = run(&tunnel(), &[node("a", &["192.168.77.11"], &["10.0.3.0/24"])]);
    assert!(problems(&own)[0].contains("is node node1's already"));
    let alone = resolve(&tunnel(), &wire(), [new].iter(), &second.grants);
    assert!(alone.problems.is_empty(), "when the older is gone, the newer takes its place");
}

#[test]
fn a_node_without_an_address_is_an_error() {
    let resolution = run(&tunnel(), &[node("node2", &[], &["10.0.2.0/24"])]);
    assert_eq!(problems(&resolution), ["node node2 has no InternalIP of a family that this node has too"]);
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let prefix = (0..6u8, 22..27u8).prop_map(|(third, bits)| {
        let text = format!("10.0.{third}.0/{bits}");
        text.parse::<IpNet>().unwrap().trunc().to_string()
    });
    let one = (0..6u8, 0..6u8, prop::collection::vec(prefix, 0..3));
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let named: BTreeMap<String, Node> = all
            .into_iter()
            .map(|(name, ip, prefixes)| {
                let (name, ip) = (format!("n{name}"), format!("192.168.77.{}", u16::from(ip) + 20));
                let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
                (name.clone(), node(&name, &[&ip], &prefixes))
            })
            .collect();
        named.into_values().collect()
    })
}

proptest! {
    #[test]
    fn routes_never_overlap_and_every_prefix_has_a_route_or_a_reason(all in nodes()) {
        let resolution = run(&tunnel(), &all);
        for (index, route) in resolution.routes.iter().enumerate() {
            for other in &resolution.routes[index + 1..] {
                prop_assert!(!route.prefix.contains(&other.prefix) && !other.prefix.contains(&route.prefix));
            }
        }
        for node in &all {
            let blamed = resolution.problems.iter().any(|problem| problem.node == node.name);
            let routed = |prefix: &IpNet| resolution.routes.iter().any(|route| route.prefix == *prefix);
            prop_assert!(blamed || node.pod_cidrs.iter().all(routed), "{}", node.name);
        }
    }

    #[test]
    fn nothing_changes_when_nothing_has_changed_and_newcomers_take_nothing_away(old in nodes(), new in nodes()) {
        let first = run(&tunnel(), &old);
        let again = resolve(&tunnel(), &wire(), old.iter(), &first.grants);
        prop_assert_eq!(&again.grants, &first.grants);
        let healthy: Vec<Node> = old
            .iter()
            .filter(|node| !first.problems.iter().any(|problem| problem.node == node.name))
            .cloned()
            .collect();
        let before = run(&tunnel(), &healthy);
        let newcomers = new.into_iter().map(|node| Node { name: format!("a-{}", node.name), ..node });
        let all: Vec<Node> = newcomers.chain(healthy).collect();
        let after = resolve(&tunnel(), &wire(), all.iter(), &before.grants);
        for route in &before.routes {
            prop_assert!(after.routes.contains(route), "{route:?} was taken away");
        }
    }
}
