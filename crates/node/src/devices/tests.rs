// SPDX-License-Identifier: Apache-2.0
//! Tests of the devices, in a network namespace of their own.

use super::*;
use crate::testing::{in_namespace, without_carriers};

fn wanted() -> Wanted {
    let routers = vec!["10.0.1.1".parse().unwrap(), "fd00:1::1".parse().unwrap()];
    Wanted { mtu: 1400, routers, tunnel_port: Some(8472), tunnel_over_ipv6: true }
}

async fn run(netlink: &Netlink, wanted: &Wanted) -> bool {
    let host = look(netlink).await.unwrap();
    ensure(netlink, &host, wanted).await.unwrap()
}

async fn index(netlink: &Netlink, name: &str) -> u32 {
    netlink.link(name).await.unwrap().unwrap().index
}

async fn router_addresses(netlink: &Netlink) -> Vec<String> {
    let device = index(netlink, HOST_DEVICE).await;
    let all = netlink.addresses().await.unwrap();
    let ours = all.iter().filter(|a| a.ifindex == device && a.scope == Scope::Universe);
    ours.map(|a| a.net.to_string()).collect()
}

#[test]
fn devices_are_made_once_and_then_left_alone() {
    in_namespace(async |netlink| {
        assert!(run(&netlink, &wanted()).await);
        for name in [HOST_DEVICE, NET_DEVICE, OVERLAY_DEVICE] {
            let link = netlink.link(name).await.unwrap().unwrap();
            assert!(link.up && link.mtu == 1400 && !link.arp, "{link:?}");
        }
        assert_eq!(netlink.link(OVERLAY_DEVICE).await.unwrap().unwrap().vxlan_port, Some(8472));
        assert_eq!(router_addresses(&netlink).await, ["10.0.1.1/32", "fd00:1::1/128"]);
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        assert_eq!(sysctl::read("net/ipv4/conf/cilium_host/rp_filter").unwrap(), "0");
        let before = without_carriers(look(&netlink).await.unwrap());
        assert!(!run(&netlink, &wanted()).await);
        assert_eq!(without_carriers(look(&netlink).await.unwrap()), before);
    });
}

#[test]
fn what_can_be_changed_is_changed_in_place() {
    in_namespace(async |netlink| {
        run(&netlink, &wanted()).await;
        let before = index(&netlink, HOST_DEVICE).await;
        let other = Wanted { mtu: 1500, routers: vec!["10.0.2.1".parse().unwrap()], ..wanted() };
        assert!(run(&netlink, &other).await);
        assert_eq!(index(&netlink, HOST_DEVICE).await, before);
        assert_eq!(netlink.link(OVERLAY_DEVICE).await.unwrap().unwrap().mtu, 1500);
        assert_eq!(router_addresses(&netlink).await, ["10.0.2.1/32"]);
    });
}

#[test]
fn a_tunnel_on_another_port_is_replaced_and_one_too_many_removed() {
    in_namespace(async |netlink| {
        run(&netlink, &wanted()).await;
        assert!(run(&netlink, &Wanted { tunnel_port: Some(8473), ..wanted() }).await);
        assert_eq!(netlink.link(OVERLAY_DEVICE).await.unwrap().unwrap().vxlan_port, Some(8473));
        assert!(run(&netlink, &Wanted { tunnel_port: None, ..wanted() }).await);
        assert_eq!(netlink.link(OVERLAY_DEVICE).await.unwrap(), None);
    });
}

/// Creates a tunnel device as others do, with UDP checksums over IPv6, and returns its index.
async fn foreign_tunnel(netlink: &Netlink) -> u32 {
    // Our client cannot create one like that.
    let words = ["link", "add", OVERLAY_DEVICE, "type", "vxlan", "external", "dstport", "8472"];
    assert!(std::process::Command::new("ip").args(words).status().unwrap().success());
    index(netlink, OVERLAY_DEVICE).await
}

#[test]
fn a_tunnel_that_wants_checksums_over_ipv6_is_replaced_only_where_it_matters() {
    in_namespace(async |netlink| {
        let foreign = foreign_tunnel(&netlink).await;
        let only_ipv4 = Wanted { tunnel_over_ipv6: false, ..wanted() };
        run(&netlink, &only_ipv4).await;
        assert_eq!(index(&netlink, OVERLAY_DEVICE).await, foreign);
        assert!(run(&netlink, &wanted()).await);
        let ours = netlink.link(OVERLAY_DEVICE).await.unwrap().unwrap();
        assert!(ours.index != foreign && ours.vxlan_zero_checksum6, "{ours:?}");
        assert!(!run(&netlink, &wanted()).await);
    });
}

#[test]
fn a_device_without_ethernet_has_no_hardware_address() {
    in_namespace(async |netlink| {
        for words in ["tuntap add dev tun0 mode tun", "link add eth0 type veth peer name far0"] {
            assert!(std::process::Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        }
        let mac = async |name| netlink.link(name).await.unwrap().unwrap().mac;
        assert_eq!(mac("tun0").await, None);
        assert_ne!(mac("eth0").await, None);
    });
}

#[test]
fn a_device_that_only_bears_the_name_is_replaced() {
    in_namespace(async |netlink| {
        let end = |name| VethEnd { name, ..VethEnd::default() };
        netlink.create_veth(end(HOST_DEVICE), end("other")).await.unwrap();
        assert!(run(&netlink, &wanted()).await);
        let (near, far) = (index(&netlink, HOST_DEVICE).await, index(&netlink, NET_DEVICE).await);
        assert_eq!(netlink.link(HOST_DEVICE).await.unwrap().unwrap().peer, Some(far));
        assert_ne!(near, far);
    });
}

#[test]
fn nothing_is_left_after_removal() {
    in_namespace(async |netlink| {
        run(&netlink, &wanted()).await;
        remove(&netlink).await.unwrap();
        let names: Vec<String> = netlink.links().await.unwrap().into_iter().map(|link| link.name).collect();
        assert!(!names.iter().any(|name| name.starts_with("cilium")), "{names:?}");
        remove(&netlink).await.unwrap();
    });
}
