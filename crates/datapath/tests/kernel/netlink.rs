// SPDX-License-Identifier: Apache-2.0
//! Interfaces, addresses, routes and neighbours of a network namespace of our own.

use std::future::Future;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use datapath::netlink::{
    Address, Change, Encap, Link, LinkChange, MAIN_TABLE, Mac, Neighbour, Netlink, Route, RouteChange, Scope, VethEnd,
    Vxlan,
};
use datapath::{netns, sysctl};
use ipnet::IpNet;

use crate::sandbox::{Sandbox, chain};

/// Runs the test in a sandbox, with a socket of its network namespace.
fn with_netlink<F: Future<Output = ()>>(test: impl FnOnce(Netlink) -> F + Send + 'static) {
    Sandbox::run(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            netlink.change_link(1, set_up_or_down(true)).await.unwrap();
            test(netlink).await;
        });
    });
}

/// Another network namespace, as that of a pod.
fn new_netns() -> OwnedFd {
    netns::create().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(name: &str) -> VethEnd<'_> {
    VethEnd { name, ..VethEnd::default() }
}

fn set_up_or_down(up: bool) -> LinkChange<'static> {
    LinkChange { up: Some(up), ..LinkChange::default() }
}

async fn set_up(netlink: &Netlink, name: &str) -> Link {
    let link = netlink.link(name).await.unwrap().unwrap();
    netlink.change_link(link.index, set_up_or_down(true)).await.unwrap();
    netlink.link(name).await.unwrap().unwrap()
}

async fn veth(netlink: &Netlink, name: &str) -> Link {
    let peer = format!("{name}p");
    netlink.create_veth(end(name), end(&peer)).await.unwrap();
    set_up(netlink, &peer).await;
    set_up(netlink, name).await
}

#[test]
fn a_pod_gets_its_interface_from_outside() {
    with_netlink(|netlink| async move {
        let pod = new_netns();
        let (host_mac, pod_mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let host = VethEnd { mac: Some(host_mac), mtu: Some(1450), ..end("lxc1") };
        let eth0 = VethEnd { mac: Some(pod_mac), mtu: Some(1450), netns: Some(pod.as_fd()), ..end("eth0") };
        netlink.create_veth(host, eth0).await.unwrap();

        let inside = Netlink::open_in(pod.as_fd()).unwrap();
        let eth0 = set_up(&inside, "eth0").await;
        let lxc1 = set_up(&netlink, "lxc1").await;
        assert_eq!((lxc1.mac, lxc1.mtu, lxc1.up, lxc1.kind.as_deref()), (Some(host_mac), 1450, true, Some("veth")));
        assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(pod_mac), 1450, true));
        assert_eq!(lxc1.peer, Some(eth0.index));

        for address in ["10.0.0.9/32", "fd00::9/128"] {
            let address = Address { ifindex: eth0.index, net: net(address), scope: Scope::Universe };
            inside.replace_address(address).await.unwrap();
            inside.replace_address(address).await.unwrap();
            assert!(inside.addresses().await.unwrap().contains(&address));
        }
        let gateway = Route { ifindex: Some(eth0.index), scope: Scope::Link, ..Route::to(net("10.0.0.1/32")) };
        inside.replace_route(&gateway).await.unwrap();
        for (to, via) in [("0.0.0.0/0", "10.0.0.1"), ("::/0", "fe80::1")] {
            let route =
                Route { ifindex: Some(eth0.index), gateway: Some(ip(via)), mtu: Some(1400), ..Route::to(net(to)) };
            inside.replace_route(&route).await.unwrap();
        }
        assert_eq!(inside.default_interfaces().await.unwrap(), [eth0.index]);
        assert!(netlink.default_interfaces().await.unwrap().is_empty(), "the host's routes are others");
        assert!(netlink.delete_link(lxc1.index).await.unwrap());
        assert!(!netlink.delete_link(lxc1.index).await.unwrap());
        assert_eq!(inside.link("eth0").await.unwrap(), None);
    });
}

#[test]
fn an_interface_can_be_renamed_and_have_more_names() {
    with_netlink(|netlink| async move {
        let link = veth(&netlink, "tmp1").await;
        netlink.change_link(link.index, set_up_or_down(false)).await.unwrap();
        let change = LinkChange { name: Some("lxc1"), mtu: Some(9000), mac: Some(Mac([2; 6])), ..set_up_or_down(true) };
        netlink.change_link(link.index, change).await.unwrap();
        netlink.add_alt_name(link.index, "a-name-that-is-longer-than-fifteen").await.unwrap();
        let link = netlink.link_by_index(link.index).await.unwrap().unwrap();
        assert_eq!((link.name.as_str(), link.mtu, link.up, link.mac), ("lxc1", 9000, true, Some(Mac([2; 6]))));
        assert_eq!(link.alt_names, ["a-name-that-is-longer-than-fifteen"]);
        assert_eq!(netlink.link("tmp1").await.unwrap(), None);
        assert_eq!(Mac([2; 6]).to_string(), "02:02:02:02:02:02");
    });
}

#[test]
fn an_error_names_the_interface_and_the_reason() {
    with_netlink(|netlink| async move {
        let link = veth(&netlink, "lxc1").await;
        let error = netlink.create_veth(end("lxc1"), end("x")).await.unwrap_err();
        assert!(chain(&error).starts_with("cannot create veth pair lxc1 and x: File exists"), "{}", chain(&error));
        let route =
            Route { ifindex: Some(link.index), gateway: Some(ip("192.0.2.1")), ..Route::to(net("10.9.0.0/24")) };
        let error = netlink.replace_route(&route).await.unwrap_err();
        let wanted = format!("cannot add route to 10.9.0.0/24 through interface {}", link.index);
        assert_eq!(error.to_string(), wanted);
    });
}

#[test]
fn routes_lead_into_the_tunnel() {
    with_netlink(|netlink| async move {
        let vxlan = Vxlan { name: "cilium_vxlan", port: 8472, mtu: Some(1450), ..Vxlan::default() };
        netlink.create_vxlan(vxlan).await.unwrap();
        let device = netlink.link("cilium_vxlan").await.unwrap().unwrap();
        assert_eq!((device.kind.as_deref(), device.vxlan_port, device.up), (Some("vxlan"), Some(8472), true));
        for (to, node) in [
            ("10.9.0.0/24", "192.0.2.1"),
            ("10.8.0.0/24", "2001:db8::1"),
            ("fd00:9::/64", "2001:db8::1"),
            ("fd00:8::/64", "192.0.2.1"),
        ] {
            let encap = Some(Encap { id: 6, dst: ip(node) });
            let mut route = Route { ifindex: Some(device.index), encap, mtu: Some(1400), ..Route::to(net(to)) };
            if route.destination.addr().is_ipv4() {
                route.scope = Scope::Link;
            } else {
                route.priority = Some(1024);
            }
            netlink.replace_route(&route).await.unwrap();
            netlink.replace_route(&route).await.unwrap();
            let routes = netlink.routes(MAIN_TABLE).await.unwrap();
            assert!(routes.contains(&route), "{route:?} not in {routes:?}");
            assert_eq!(routes.iter().filter(|other| other.destination == route.destination).count(), 1);
            assert!(netlink.delete_route(&route).await.unwrap());
            assert!(!netlink.delete_route(&route).await.unwrap());
        }
    });
}

/// One end of a tunnel over IPv6, in the network namespace of the socket: addresses of the host and of what is behind the tunnel,
/// and routes to what is behind the other end.
async fn tunnel_end(netlink: &Netlink, device: &str, own: u8, other: u8) {
    let wire = set_up(netlink, device).await;
    let underlay = Address { ifindex: wire.index, net: net(&format!("fd77::{own}/64")), scope: Scope::Universe };
    netlink.replace_address(underlay).await.unwrap();
    let mac = |end| Mac([2, 0, 0, 0, 0, end]);
    let vxlan = Vxlan { name: "cilium_vxlan", port: 8472, mac: Some(mac(own)), ..Vxlan::default() };
    netlink.create_vxlan(vxlan).await.unwrap();
    let overlay = netlink.link("cilium_vxlan").await.unwrap().unwrap();
    assert!(overlay.vxlan_zero_checksum6);
    let encap = Some(Encap { id: 6, dst: ip(&format!("fd77::{other}")) });
    for (own, to, beyond) in [
        (format!("10.0.{own}.1/32"), format!("10.0.{other}.0/24"), format!("10.0.{other}.1")),
        (format!("fd00:{own}::1/128"), format!("fd00:{other}::/64"), format!("fd00:{other}::1")),
    ] {
        let own = Address { ifindex: overlay.index, net: net(&own), scope: Scope::Universe };
        netlink.replace_address(own).await.unwrap();
        let scope = if own.net.addr().is_ipv4() { Scope::Link } else { Scope::Universe };
        let source = Some(own.net.addr());
        let route = Route { ifindex: Some(overlay.index), encap, source, scope, ..Route::to(net(&to)) };
        netlink.replace_route(&route).await.unwrap();
        let neighbour = Neighbour { ifindex: overlay.index, ip: ip(&beyond), mac: mac(other) };
        netlink.replace_neighbour(neighbour).await.unwrap();
    }
}

fn bound(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip(address), 5000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn packets_of_both_families_cross_a_tunnel_over_ipv6_and_come_back() {
    with_netlink(|netlink| async move {
        let far = new_netns();
        netlink.create_veth(end("eth0"), VethEnd { netns: Some(far.as_fd()), ..end("eth0") }).await.unwrap();
        let there = Netlink::open_in(far.as_fd()).unwrap();
        set_up(&there, "lo").await;
        set_up(&there, "eth0").await;
        tunnel_end(&netlink, "eth0", 1, 2).await;
        tunnel_end(&there, "eth0", 2, 1).await;
        for (near, beyond) in [("10.0.1.1", "10.0.2.1"), ("fd00:1::1", "fd00:2::1")] {
            let near = bound(near);
            let answering = netns::run(far.as_fd(), || bound(beyond)).unwrap();
            let mut packet = [0; 8];
            near.send_to(b"question", (ip(beyond), 5000)).unwrap();
            let (_, from) = answering.recv_from(&mut packet).unwrap();
            assert_eq!((&packet, from), (b"question", near.local_addr().unwrap()));
            answering.send_to(b"answered", from).unwrap();
            near.recv_from(&mut packet).unwrap();
            assert_eq!(&packet, b"answered");
        }
    });
}

#[test]
fn replacing_a_route_changes_its_next_hop() {
    with_netlink(|netlink| async move {
        let link = veth(&netlink, "eth0").await;
        for (to, source, hops) in [
            ("10.9.0.0/24", "192.0.2.9/32", ["192.0.2.1", "192.0.2.2"]),
            ("fd00:9::/64", "2001:db8::9/128", ["2001:db8::1", "2001:db8::2"]),
        ] {
            let source = Address { ifindex: link.index, net: net(source), scope: Scope::Universe };
            netlink.replace_address(source).await.unwrap();
            let mut route = Route { ifindex: Some(link.index), onlink: true, ..Route::to(net(to)) };
            route.source = Some(source.net.addr());
            route.table = 200;
            route.protocol = 101;
            for hop in hops {
                route.gateway = Some(ip(hop));
                netlink.replace_route(&route).await.unwrap();
            }
            let routes = netlink.routes(200).await.unwrap();
            let found: Vec<_> = routes.iter().filter(|route| route.destination == net(to)).collect();
            let [found] = found[..] else { panic!("{routes:?}") };
            assert_eq!((found.gateway, found.source, found.protocol), (route.gateway, route.source, 101));
            assert!(netlink.delete_address(source).await.unwrap());
            assert!(!netlink.delete_address(source).await.unwrap());
        }
    });
}

#[test]
fn a_permanent_neighbour_is_there_until_it_is_removed() {
    with_netlink(|netlink| async move {
        let link = veth(&netlink, "eth0").await;
        for address in ["192.0.2.1", "fe80::1"] {
            for last in [1, 2] {
                let neighbour = Neighbour { ifindex: link.index, ip: ip(address), mac: Mac([2, 0, 0, 0, 0, last]) };
                netlink.replace_neighbour(neighbour).await.unwrap();
                assert_eq!(netlink.neighbours().await.unwrap(), [neighbour]);
            }
            let neighbour = Neighbour { ifindex: link.index, ip: ip(address), mac: Mac::default() };
            assert!(netlink.delete_neighbour(neighbour).await.unwrap());
            assert!(!netlink.delete_neighbour(neighbour).await.unwrap());
        }
    });
}

#[test]
fn changes_are_told_as_they_happen() {
    with_netlink(|netlink| async move {
        let mut changes = netlink.changes().unwrap();
        let link = veth(&netlink, "eth0").await;
        let address = Address { ifindex: link.index, net: net("192.0.2.9/24"), scope: Scope::Universe };
        netlink.replace_address(address).await.unwrap();
        netlink.delete_link(link.index).await.unwrap();
        let mut seen = Vec::new();
        let gone = |change: &Change| matches!(change, Change::LinkGone(gone) if gone.name == "eth0");
        let deadline = std::time::Duration::from_secs(10);
        tokio::time::timeout(deadline, async {
            while !seen.last().is_some_and(gone) {
                seen.push(changes.next().await.unwrap());
            }
        })
        .await
        .expect("the last change was not told");
        assert!(seen.iter().any(|change| matches!(change, Change::Link(link) if link.name == "eth0")));
        assert!(seen.contains(&Change::Address(address)) && seen.contains(&Change::AddressGone(address)));
        let through = |change: &Change| match change {
            Change::Route(RouteChange::Added(route)) => route.way.hops.iter().any(|hop| hop.ifindex == link.index),
            _ => false,
        };
        assert!(seen.iter().any(through));
    });
}

#[test]
fn a_setting_belongs_to_the_namespace_it_is_written_in() {
    Sandbox::run(|_| {
        let pod = new_netns();
        let name = "net/ipv4/conf/all/rp_filter";
        sysctl::write(name, "0").unwrap();
        netns::run(pod.as_fd(), || sysctl::write(name, "2")).unwrap().unwrap();
        assert_eq!(sysctl::read(name).unwrap(), "0");
        assert_eq!(netns::run(pod.as_fd(), || sysctl::read(name)).unwrap().unwrap(), "2");
        assert!(!sysctl::write_if_present("net/ipv4/conf/nothing/rp_filter", "0").unwrap());
        let error = sysctl::write("net/ipv4/conf/nothing/rp_filter", "0").unwrap_err().to_string();
        assert_eq!(error, "cannot access the setting net/ipv4/conf/nothing/rp_filter");
    });
}
