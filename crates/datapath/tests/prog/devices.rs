// SPDX-License-Identifier: Apache-2.0
//! The devices of the node under test, and what is at their other ends.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use datapath::netlink::{Address, LinkChange, Mac, Netlink, Route, Scope, VethEnd, Vxlan};
use datapath::{netns, sysctl};
use ipnet::IpNet;
use tokio::time::Instant;

use crate::world::families;

pub(crate) fn pod_mac(id: u16) -> [u8; 6] {
    [2, 0, 0, 0, 0xa, id as u8]
}

pub(crate) fn host_mac(id: u16) -> [u8; 6] {
    [2, 0, 0, 0, 0xb, id as u8]
}

/// The hardware address of the node's native device.
pub(crate) use frames::NODE_MAC;

pub(crate) fn new_netns() -> OwnedFd {
    netns::create().unwrap()
}

/// Makes the devices; returns the indexes of lxc_a, lxc_b, eth0 and cilium_vxlan.
pub(crate) async fn make(others: [&OwnedFd; 3]) -> [u32; 4] {
    let netlink = Netlink::open().unwrap();
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let ends = [("lxc_a", "a", 101, host_mac(101)), ("lxc_b", "b", 102, host_mac(102)), ("eth0", "eth0", 1, NODE_MAC)];
    for ((name, peer, id, mac), other) in ends.into_iter().zip(others) {
        let host = VethEnd { name, mac: Some(Mac(mac)), ..VethEnd::default() };
        let far = VethEnd { name: peer, mac: Some(Mac(pod_mac(id))), netns: Some(other.as_fd()), ..VethEnd::default() };
        netlink.create_veth(host, far).await.unwrap();
        let inside = Netlink::open_in(other.as_fd()).unwrap();
        for (netlink, name) in [(&netlink, name), (&inside, peer), (&inside, "lo")] {
            netlink.change_link(netlink.link(name).await.unwrap().unwrap().index, up).await.unwrap();
        }
    }
    netlink.create_vxlan(Vxlan { name: "cilium_vxlan", port: 8472, ..Vxlan::default() }).await.unwrap();
    let mut indexes = [0; 4];
    for (index, name) in indexes.iter_mut().zip(["lxc_a", "lxc_b", "eth0", "cilium_vxlan"]) {
        *index = netlink.link(name).await.unwrap().unwrap().index;
    }
    let [_, _, eth0, _] = indexes;
    let node2 = Netlink::open_in(others[2].as_fd()).unwrap();
    let far = node2.link("eth0").await.unwrap().unwrap().index;
    for (family, prefix_len, router) in [(0, 24, "192.0.2.1"), (1, 64, "2001:db8::1")] {
        let family = families()[family];
        for (netlink, ip, ifindex) in [(&netlink, family.node, eth0), (&node2, family.node2, far)] {
            let net = IpNet::new(ip, prefix_len).unwrap();
            netlink.replace_address(Address { ifindex, net, scope: Scope::Universe }).await.unwrap();
        }
        let all = IpNet::new(family.node, 0).unwrap().trunc();
        let route = Route { ifindex: Some(eth0), gateway: Some(router.parse().unwrap()), ..Route::to(all) };
        netlink.replace_route(&route).await.unwrap();
    }
    sysctl::write("net/ipv4/ip_forward", "1").unwrap();
    sysctl::write("net/ipv6/conf/all/forwarding", "1").unwrap();
    let lenient = || sysctl::write("net/ipv4/conf/all/rp_filter", "0").unwrap();
    lenient();
    netns::run(others[2].as_fd(), lenient).unwrap();
    let [_, v6] = families();
    until_local(v6.node);
    netns::run(others[2].as_fd(), move || until_local(v6.node2)).unwrap();
    indexes
}

/// The node has one more address, of which the maps say nothing. It is usable at once.
pub(crate) fn add_address(device: &str, ip: IpAddr) {
    let at_once = if ip.is_ipv6() { "nodad" } else { "" };
    here(&format!("ip address replace {ip} dev {device} {at_once}"));
}

/// Runs commands in the namespace of this thread, one line each.
pub(crate) fn here(commands: &str) {
    for command in commands.lines().map(str::trim).filter(|command| !command.is_empty()) {
        output_of(command);
        if let Some(ip) = given_ipv6(command) {
            until_local(ip.into());
        }
    }
}

fn output_of(command: &str) -> Vec<u8> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The IPv6 address that the command gives to a device.
fn given_ipv6(command: &str) -> Option<Ipv6Addr> {
    let words: Vec<_> = command.split_whitespace().collect();
    let [_, "addr" | "address", "add" | "replace", net, ..] = words[..] else { return None };
    net.split('/').next()?.parse().ok()
}

/// An IPv6 address takes packets once the kernel has made its local route, which it does after it has answered, even without duplicate
/// address detection.
fn until_local(ip: IpAddr) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while output_of(&format!("ip -6 route show table local {ip}")).is_empty() {
        assert!(Instant::now() < deadline, "{ip} never became local");
    }
}

/// The same in another namespace.
pub(crate) fn there(netns: &OwnedFd, commands: &str) {
    netns::run(netns.as_fd(), || here(commands)).unwrap();
}
