// SPDX-License-Identifier: Apache-2.0
//! Tests of which devices and addresses a node uses.

use super::*;
use crate::local::tests::{address, config, host, kube, link, with_devices};

fn inventory(config: &Config, host: &Host) -> Inventory {
    Inventory::of(config, host, &kube().internal_ips)
}

/// `ADDRESS DEVICE`, marked if it is the device's primary one, and if it has node ports.
fn addresses(config: &Config, host: &Host) -> Vec<String> {
    let mark = |is: bool, text| if is { text } else { "" };
    let line = |row: &NodeAddress| {
        let (primary, ports) = (mark(row.primary, " primary"), mark(row.node_port, " node-port"));
        format!("{} {}{primary}{ports}", row.address, row.device)
    };
    inventory(config, host).addresses.iter().map(line).collect()
}

#[test]
fn every_device_but_those_of_pods_is_listed_with_what_the_node_uses_there() {
    let mut host = host();
    host.links[1].running = true;
    host.links.push(Link { mac: None, mtu: 1420, ..link(7, "wg0") });
    let found = inventory(&config(), &host);
    let names: Vec<&str> = found.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["eth1", "eth0", "lo", "docker0", "cilium_host", "wg0"]);
    let native: Vec<&str> = found.native().map(|device| device.name.as_str()).collect();
    assert_eq!(native, ["eth1", "eth0"]);
    let eth0 = Device {
        name: "eth0".to_owned(),
        index: 2,
        mtu: 1500,
        mode: DeviceMode::L2(Mac([2, 0, 0, 0, 0, 2])),
        running: true,
        ipv4: "203.0.113.7".parse().ok(),
        ipv6: None,
        selected: true,
    };
    assert_eq!(found.devices[1], eth0);
    let wg0 = &found.devices[5];
    assert_eq!((wg0.mode, wg0.mtu, wg0.running, wg0.selected), (DeviceMode::L3, 1420, false, false));
}

#[test]
fn the_address_that_kubernetes_knows_is_primary_and_else_the_first() {
    let mut host = host();
    host.addresses.insert(0, address(3, "192.168.77.5/24"));
    host.addresses.push(address(2, "203.0.113.8/24"));
    let primary = |host: &Host| -> Vec<_> { inventory(&config(), host).native().map(|device| device.ipv4).collect() };
    assert_eq!(primary(&host), ["192.168.77.11", "203.0.113.7"].map(|ip| ip.parse().ok()));
    host.default_routes.push(3);
    host.addresses.retain(|address| address.net.addr() != kube().internal_ips[0]);
    assert_eq!(primary(&host), ["203.0.113.7", "192.168.77.5"].map(|ip| ip.parse().ok()));
}

#[test]
fn node_ports_are_served_at_the_primary_addresses_of_native_devices() {
    let mut host = host();
    host.addresses.push(address(2, "203.0.113.8/24"));
    host.addresses.push(address(6, "10.0.1.1/32"));
    let expected = [
        "192.168.77.11 eth1 primary node-port",
        "fd77::11 eth1 primary node-port",
        "203.0.113.7 eth0 primary node-port",
        "203.0.113.8 eth0",
        "172.17.0.1 docker0 primary",
    ];
    assert_eq!(addresses(&config(), &host), expected);
}

#[test]
fn node_ports_are_served_in_the_prefixes_that_are_named_on_native_devices_only() {
    let mut host = host();
    host.addresses.push(address(2, "203.0.113.8/24"));
    let prefixes = ["203.0.113.0/24", "172.16.0.0/12", "fd77::/16"].map(|prefix| prefix.parse().unwrap());
    let config = Config { node_port_addresses: prefixes.into(), ..config() };
    let expected = [
        "192.168.77.11 eth1 primary",
        "fd77::11 eth1 primary node-port",
        "203.0.113.7 eth0 primary node-port",
        "203.0.113.8 eth0 node-port",
        "172.17.0.1 docker0 primary",
    ];
    assert_eq!(addresses(&config, &host), expected);
}

#[test]
fn a_device_that_is_missing_is_a_warning() {
    let warnings = |names| inventory(&with_devices(names), &host()).warnings;
    assert_eq!(warnings("eth0 net0"), ["devices: there is no device \"net0\"; going on without it"]);
    assert_eq!(warnings("eth0"), [""; 0]);
}

#[test]
fn a_device_without_ethernet_is_refused_by_name_however_it_was_found() {
    let mut host = host();
    host.links.push(Link { mac: None, ..link(7, "wg0") });
    host.default_routes = vec![7, 2];
    let by_route = inventory(&config(), &host);
    let by_name = inventory(&with_devices("wg+ wg0 eth0"), &host);
    let native = |found: &Inventory| -> Vec<_> { found.native().map(|device| device.name.clone()).collect() };
    assert_eq!(
        (native(&by_route), native(&by_name)),
        (vec!["eth1".to_owned(), "eth0".to_owned()], vec!["eth0".to_owned()])
    );
    for warnings in [by_route.warnings, by_name.warnings] {
        let [warning] = &warnings[..] else { panic!("not one warning: {warnings:?}") };
        assert!(warning.starts_with("devices: wg0 has no hardware address"), "{warning}");
        assert!(warning.contains("replies to masqueraded traffic do not reach pods"), "{warning}");
    }
}
