// SPDX-License-Identifier: Apache-2.0
//! Tests of what follows for this node.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::Ipam;
use datapath::netlink::{Mac, Scope};
use model::config::Group;
use model::{RoutingMode, reserved};
use std::collections::BTreeMap;

pub(crate) fn link(index: u32, name: &str) -> Link {
    let mac = Some(Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]));
    Link { index, name: name.to_owned(), mtu: 1500, mac, up: true, loopback: name == "lo", ..Link::default() }
}

pub(crate) fn address(ifindex: u32, net: &str) -> Address {
    let net: IpNet = net.parse().unwrap();
    let scope = match net.addr() {
        IpAddr::V4(ip) if ip.is_loopback() => Scope::Host,
        IpAddr::V6(ip) if ip.is_loopback() => Scope::Host,
        IpAddr::V6(ip) if ip.segments()[0] == 0xfe80 => Scope::Link,
        _ => Scope::Universe,
    };
    Address { ifindex, net, scope }
}

pub(crate) fn host() -> Host {
    Host {
        links: vec![
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "docker0"),
            link(5, "lxc1234"),
            link(6, "cilium_host"),
        ],
        addresses: vec![
            address(1, "127.0.0.1/8"),
            address(2, "203.0.113.7/24"),
            address(3, "192.168.77.11/24"),
            address(3, "fd77::11/64"),
            address(3, "fe80::1/64"),
            address(4, "172.17.0.1/16"),
        ],
        default_routes: vec![2],
    }
}

pub(crate) fn kube() -> KubeNode {
    KubeNode {
        name: "node1".to_owned(),
        uid: "u".to_owned(),
        internal_ips: vec!["192.168.77.11".parse().unwrap()],
        external_ips: Vec::new(),
        pod_cidrs: vec!["10.0.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        labels: BTreeMap::new(),
    }
}

pub(crate) fn config() -> Config {
    Config { ipam: Ipam::Kubernetes, ipv6: true, ..Config::default() }
}

pub(crate) fn with_devices(names: &str) -> Config {
    let keys = [("devices", names), ("ipam", "kubernetes")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Config::parse(&keys.into()).unwrap()
}

/// With what there is on the host.
pub(crate) fn facts(config: &Config, host: &Host, kube: &KubeNode, own: Option<&Node>) -> Result<Facts, Missing> {
    super::facts(config, host, &Inventory::of(config, host, &kube.internal_ips), kube, own)
}

fn own(routers: &[&str], pod_cidrs: &[&str]) -> Node {
    Node {
        name: "node1".to_owned(),
        cluster: "default".to_owned(),
        internal_ips: Vec::new(),
        external_ips: Vec::new(),
        cilium_internal_ips: routers.iter().map(|ip| ip.parse().unwrap()).collect(),
        health_ips: Vec::new(),
        pod_cidrs: pod_cidrs.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        labels: BTreeMap::new(),
        identity: reserved::REMOTE_NODE,
        local: true,
    }
}

fn devices(config: &Config, host: &Host) -> Vec<String> {
    facts(config, host, &kube(), None).unwrap().row.devices
}

#[test]
fn devices_of_the_node_address_and_of_the_default_route_are_native_the_former_first() {
    assert_eq!(devices(&config(), &host()), ["eth1", "eth0"]);
}

#[test]
fn devices_that_are_down_ours_or_part_of_a_bridge_are_not_native() {
    let mut host = host();
    host.default_routes = vec![1, 2, 5, 6];
    assert_eq!(devices(&config(), &host), ["eth1", "eth0"]);
    host.links[1].controller = Some(4);
    assert_eq!(devices(&config(), &host), ["eth1"]);
    host.links[2].up = false;
    let error = facts(&config(), &host, &kube(), None).unwrap_err().to_string();
    assert!(error.starts_with("no native device: set devices to"), "{error}");
}

#[test]
fn devices_that_are_named_are_native_unless_they_are_pods() {
    let named = |text: &str| facts(&with_devices(text), &host(), &kube(), None);
    assert_eq!(named("eth0 net0").unwrap().row.devices, ["eth0"]);
    assert_eq!(named("eth+").unwrap().row.devices, ["eth1", "eth0"]);
    assert!(named("net0").unwrap_err().to_string().contains("lo, eth0, eth1"));
    assert!(named("lxc+").is_err(), "the interfaces of pods are never native");
}

#[test]
fn a_node_with_no_other_device_than_one_without_ethernet_says_why_it_has_none() {
    let mut host = host();
    host.links[1].mac = None;
    host.links[2].mac = None;
    let error = facts(&config(), &host, &kube(), None).unwrap_err().to_string();
    assert!(error.starts_with("no native device: eth0, eth1 has no hardware address"), "{error}");
}

#[test]
fn addresses_come_from_kubernetes_and_what_it_lacks_from_the_device() {
    let row = facts(&config(), &host(), &kube(), None).unwrap().row;
    assert_eq!((row.ipv4, row.ipv6), (Some(Ipv4Addr::new(192, 168, 77, 11)), "fd77::11".parse().ok()));
    let own: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["172.17.0.1", "192.168.77.11", "203.0.113.7", "fd77::11"]);
    let only_ipv4 = Config { ipv6: false, ..config() };
    assert_eq!(facts(&only_ipv4, &host(), &kube(), None).unwrap().row.ipv6, None);
}

#[test]
fn an_address_on_the_loopback_device_is_the_hosts_and_one_of_a_pod_or_of_ours_is_not() {
    let mut present = host();
    for (ifindex, net) in [(1, "198.51.100.77/32"), (1, "2001:db8::77/128"), (5, "10.0.1.9/32"), (6, "10.0.1.1/32")] {
        present.addresses.push(address(ifindex, net));
    }
    let row = facts(&config(), &present, &kube(), None).unwrap().row;
    let own: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    let expected = ["172.17.0.1", "192.168.77.11", "198.51.100.77", "203.0.113.7", "2001:db8::77", "fd77::11"];
    assert_eq!(own, expected, "127.0.0.1 and ::1 stay each namespace's own");
    assert_eq!(row.devices, ["eth1", "eth0"], "the loopback device is no native one for it");
}

#[test]
fn the_mtu_of_routes_leaves_room_for_the_tunnel() {
    let mtus = |config: &Config| {
        let row = facts(config, &host(), &kube(), None).unwrap().row;
        (row.device_mtu, row.route_mtu)
    };
    assert_eq!(mtus(&config()), (1500, 1450));
    assert_eq!(mtus(&Config { mtu: 9000, ..config() }), (9000, 8950));
    assert_eq!(mtus(&Config { routing: RoutingMode::Native, ..config() }), (1500, 1500));
    let ipv6_only = KubeNode { internal_ips: vec!["fd77::11".parse().unwrap()], ..kube() };
    let row = facts(&Config { ipv4: false, ..config() }, &host(), &ipv6_only, None).unwrap().row;
    assert_eq!(row.route_mtu, 1430, "an IPv6 header is longer");
}

#[test]
fn the_router_keeps_its_address_over_restarts() {
    let routers = |host: &Host, own: Option<&Node>| {
        let row = facts(&config(), host, &kube(), own).unwrap().row;
        (row.router_ipv4.unwrap().to_string(), row.router_ipv6.unwrap().to_string())
    };
    let text = |v4: &str, v6: &str| (v4.to_owned(), v6.to_owned());
    assert_eq!(routers(&host(), None), text("10.0.1.1", "fd00:1::1"));
    let published = own(&["10.0.1.77", "10.9.9.9"], &[]);
    assert_eq!(routers(&host(), Some(&published)), text("10.0.1.77", "fd00:1::1"));
    let mut present = host();
    present.addresses.push(address(6, "10.0.1.99/32"));
    assert_eq!(routers(&present, Some(&published)), text("10.0.1.99", "fd00:1::1"));
    present.addresses.push(address(6, "10.8.8.8/32"));
    assert_eq!(routers(&present, None).0, "10.0.1.99", "an address of another prefix is not kept");
}

#[test]
fn a_node_waits_for_its_pod_cidrs_and_says_whose_turn_it_is() {
    let pool = Config { ipam: Ipam::ClusterPool, ..config() };
    let error = facts(&pool, &host(), &kube(), None).unwrap_err().to_string();
    assert_eq!(error, "Node node1 has no IPv4 podCIDR yet: waiting for cilium-operator");
    let half = own(&[], &["10.1.0.0/24"]);
    assert!(facts(&pool, &host(), &kube(), Some(&half)).unwrap_err().to_string().contains("no IPv6 podCIDR"));
    let both = own(&[], &["10.1.0.0/24", "fd01::/64"]);
    assert_eq!(facts(&pool, &host(), &kube(), Some(&both)).unwrap().row.router_ipv4, Some(Ipv4Addr::new(10, 1, 0, 1)));
}
