// SPDX-License-Identifier: Apache-2.0
//! The networks for comparison: pods reached by routes alone, and the reference plugin `ptp`. Netfilter is empty.
//!
//! ```text
//!   one node:    a ── node ── b
//!   two nodes:   a ── node1 ── wire (a bridge, as in the lab) ── node2 ── b
//! ```
//!
//! All of it is in named network namespaces below a `/run/netns` that only this process sees: they vanish with the process,
//! however it ends.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::place::Place;
use crate::run;
use crate::traffic::{Arm, Shape};

/// Where the distribution installs plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";
const NAMES: &str = "/run/netns";

/// Gives this process, which must be single-threaded, its own view of named network namespaces.
pub(crate) fn hide_names() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot get a mount namespace: run this as root")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot cut the mounts off")?;
    std::fs::create_dir_all(NAMES).with_context(|| format!("cannot create {NAMES}"))?;
    mount(Some("tmpfs"), NAMES, Some("tmpfs"), MsFlags::empty(), none).with_context(|| format!("cannot mount {NAMES}"))
}

/// Runs `ip -batch`, in a namespace if one is named. Lines that start with `#` are comments.
pub(crate) fn ip(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-netns", netns]);
    }
    run::with_input(command.args(["-batch", "-"]), lines).map(drop)
}

/// Creates a namespace that forwards, as a node does.
pub(crate) fn node(name: &str) -> Result<()> {
    ip(None, &format!("netns add {name}\n"))?;
    ip(Some(name), "link set lo up\n")?;
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    run::output(Command::new("ip").args(["netns", "exec", name, "sh", "-c", forward])).map(drop)
}

/// Plain veth pairs and routes: the reference.
pub(crate) fn plain() -> Result<[Arm; 3]> {
    node("plain")?;
    let [a, b] = [pod("plain-a", "plain", 1)?, pod("plain-b", "plain", 2)?];
    let one = Arm::new(Shape::OneNode, "plain", a, b);

    wire("routed")?;
    let [a, b] = [pod("routed-a", "routed1", 3)?, pod("routed-b", "routed2", 4)?];
    routes("routed", [3, 4])?;
    let two = Arm::new(Shape::TwoNodes, "plain", a, b);

    wire("tunnel")?;
    let [a, b] = [pod("tunnel-a", "tunnel1", 5)?, pod("tunnel-b", "tunnel2", 6)?];
    for (own, peer, other) in [(1, 2, 6), (2, 1, 5)] {
        let lines = format!(
            "link add vx type vxlan id 77 local 192.0.2.{own} remote 192.0.2.{peer} dstport 4789 dev eth0
            address add 198.18.0.{own}/24 dev vx
            address add fd18::{own}/64 dev vx nodad
            link set vx up
            route add 10.99.{other}.0/24 via 198.18.0.{peer}
            route add fd99:{other}::/64 via fd18::{peer}\n"
        );
        ip(Some(&format!("tunnel{own}")), &lines)?;
    }
    Ok([one, two, Arm::new(Shape::TwoNodes, "kernel vxlan", a, b)])
}

/// A pod of a node, on a subnet of its own.
pub(crate) fn pod(name: &str, node: &str, subnet: u8) -> Result<(Place, [IpAddr; 2])> {
    ip(None, &format!("netns add {name}\n"))?;
    let host = format!("p{subnet}");
    let [inside, outside] = macs(subnet).map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    let lines = format!(
        "link add {host} address {outside} type veth peer name eth0 address {inside} netns {name}
        address add 10.99.{subnet}.1/24 dev {host}
        address add fd99:{subnet}::1/64 dev {host} nodad
        link set {host} up\n"
    );
    ip(Some(node), &lines)?;
    let lines = format!(
        "link set lo up
        link set eth0 up
        address add 10.99.{subnet}.2/24 dev eth0
        address add fd99:{subnet}::2/64 dev eth0 nodad
        route add default via 10.99.{subnet}.1
        route add default via fd99:{subnet}::1\n"
    );
    ip(Some(name), &lines)?;
    let addresses = [format!("10.99.{subnet}.2"), format!("fd99:{subnet}::2")];
    let [v4, v6] = addresses.map(|text| text.parse());
    Ok((Place::named(name), [v4?, v6?]))
}

/// Hardware addresses of a pod's device and of its peer on the node.
pub(crate) const fn macs(subnet: u8) -> [[u8; 6]; 2] {
    [[2, 0, 0, 0, 0xa, subnet], [2, 0, 0, 0, 0xb, subnet]]
}

/// Two nodes, `NAME1` and `NAME2`, and a bridge between them.
pub(crate) fn wire(name: &str) -> Result<()> {
    let between = format!("{name}-wire");
    ip(None, &format!("netns add {between}\n"))?;
    ip(Some(&between), "link add wire0 type bridge\nlink set wire0 up\n")?;
    for own in 1..=2 {
        let node_name = format!("{name}{own}");
        node(&node_name)?;
        let lines = format!(
            "link add port{own} type veth peer name eth0 netns {node_name}
            link set port{own} master wire0
            link set port{own} up\n"
        );
        ip(Some(&between), &lines)?;
        let lines = format!(
            "address add 192.0.2.{own}/24 dev eth0
            address add 2001:db8::{own}/64 dev eth0 nodad
            link set eth0 up\n"
        );
        ip(Some(&node_name), &lines)?;
    }
    Ok(())
}

/// Routes from each of two nodes to the other's subnet.
fn routes(name: &str, subnets: [u8; 2]) -> Result<()> {
    let [first, second] = subnets;
    for (own, peer, other) in [(1, 2, second), (2, 1, first)] {
        let lines = format!(
            "route add 10.99.{other}.0/24 via 192.0.2.{peer} dev eth0
            route add fd99:{other}::/64 via 2001:db8::{peer} dev eth0\n"
        );
        ip(Some(&format!("{name}{own}")), &lines)?;
    }
    Ok(())
}

/// The reference plugin `ptp`, without masquerading.
pub(crate) fn ptp() -> Result<[Arm; 2]> {
    node("ptp")?;
    let [a, b] = [ptp_pod("ptp-a", "ptp", 7)?, ptp_pod("ptp-b", "ptp", 8)?];
    let one = Arm::new(Shape::OneNode, "ptp", a, b);
    wire("ptpx")?;
    let [a, b] = [ptp_pod("ptpx-a", "ptpx1", 9)?, ptp_pod("ptpx-b", "ptpx2", 10)?];
    routes("ptpx", [9, 10])?;
    Ok([one, Arm::new(Shape::TwoNodes, "ptp", a, b)])
}

fn ptp_pod(name: &str, node: &str, subnet: u8) -> Result<(Place, [IpAddr; 2])> {
    ip(None, &format!("netns add {name}\n"))?;
    let config = ptp_config(&subnet.to_string(), &[format!("10.99.{subnet}.0/24"), format!("fd99:{subnet}::/64")]);
    let netns = Path::new(NAMES).join(name);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", node]).arg(Path::new(PLUGINS).join("ptp"));
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", name).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", netns).env("CNI_PATH", PLUGINS);
    let said = run::with_input(&mut command, &config).context("the package containernetworking-plugins has ptp")?;
    let result: serde_json::Value = serde_json::from_str(&said).context("ptp did not answer in JSON")?;
    let address = |index: usize| -> Result<IpAddr> {
        let text = result.pointer(&format!("/ips/{index}/address")).and_then(serde_json::Value::as_str);
        let text = text.and_then(|text| text.split('/').next()).context("ptp did not answer with two addresses")?;
        text.parse().with_context(|| format!("ptp answered with the address {text}"))
    };
    Ok((Place::named(name), [address(0)?, address(1)?]))
}

/// A configuration of `ptp` for these subnets.
pub(crate) fn ptp_config(name: &str, subnets: &[String]) -> String {
    let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let default = |subnet: &String| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }});
    let routes: Vec<_> = subnets.iter().map(default).collect();
    let ipam = json!({"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": format!("{NAMES}/leases")});
    json!({"cniVersion": "1.0.0", "name": name, "type": "ptp", "ipam": ipam}).to_string()
}
