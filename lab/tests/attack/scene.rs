// SPDX-License-Identifier: Apache-2.0
//! Who is there (`lab/manifests/attack.yaml`), with addresses of both families, and flows that live.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use frames::{Mac, Packet};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::wire::Wire;

/// The two families: places in every array of addresses.
pub(crate) const FAMILIES: [usize; 2] = [0, 1];
/// Where victims let their friend in, by UDP and TCP.
pub(crate) const PORT: u16 = 9000;
/// Where nodes listen.
pub(crate) const HOST_PORT: u16 = 9000;
/// From where the friend's datagrams come.
pub(crate) const FRIENDS_PORT: u16 = 9009;
/// Both ends of flows of the attacker with the friend, of the near victim with the friend, and of the attacker with the stranger.
pub(crate) const LIVE: [u16; 3] = [9300, 9301, 9302];
/// For reads of sockets: nothing is lost because of it, and it is a loop's pace.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// A pod or a machine.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) name: &'static str,
    pub(crate) netns: Netns,
    pub(crate) addresses: [IpAddr; 2],
    /// Of its `eth0`.
    pub(crate) mac: Mac,
    /// Where its frames go: the other end of a pod's cable.
    gateway: Mac,
}

impl Party {
    fn pod(cluster: &Cluster, name: &'static str, node: &Netns) -> Result<Self> {
        let netns = Netns::of_pod(cluster, "attack", name)?;
        let addresses = both(cluster.pod_addresses("attack", name)?)?;
        // 2: eth0@if7: ...
        let link = netns.command(&["ip", "-o", "link", "show", "eth0"])?;
        let peer = link.split("@if").nth(1).and_then(|rest| rest.split(':').next()).context("eth0 has no other end")?;
        let links = node.command(&["ip", "-o", "link"])?;
        let line = links.lines().find(|line| line.starts_with(&format!("{peer}: ")));
        let device = line.and_then(|line| line.split([' ', '@', ':']).nth(2)).context("the other end is nowhere")?;
        let gateway = Wire::sending(node, device)?.mac();
        let mac = Wire::sending(&netns, "eth0")?.mac();
        Ok(Self { name, netns, addresses, mac, gateway })
    }

    fn machine(name: &'static str, netns: Netns, addresses: [IpAddr; 2]) -> Result<Self> {
        let mac = Wire::sending(&netns, "eth0")?.mac();
        Ok(Self { name, netns, addresses, mac, gateway: mac })
    }

    /// A packet as this pod sends it.
    pub(crate) fn sends(&self, packet: &Packet) -> Vec<u8> {
        packet.clone().macs(self.mac, self.gateway).bytes()
    }

    /// A packet as this machine sends it to another one.
    pub(crate) fn sends_to(&self, machine: &Self, packet: &Packet) -> Vec<u8> {
        packet.clone().macs(self.mac, machine.mac).bytes()
    }
}

/// Everybody.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Pods of other nodes are reached as they are.
    pub(crate) native: bool,
    pub(crate) attacker: Party,
    pub(crate) near: Party,
    pub(crate) far: Party,
    pub(crate) friend: Party,
    pub(crate) visitor: Party,
    pub(crate) nodes: [Party; 2],
    /// On the wire, and no node.
    pub(crate) stranger: Party,
    /// Also the stranger's.
    pub(crate) second: [IpAddr; 2],
    /// Somebody who is not there at all.
    pub(crate) world: [IpAddr; 2],
    pub(crate) friend_identity: u32,
    /// The Service in front of both victims.
    pub(crate) victims: [IpAddr; 2],
    /// The Services in front of both nodes' tunnel ports.
    pub(crate) tunnels: [[IpAddr; 2]; 2],
    live: Vec<(UdpSocket, UdpSocket, SocketAddr)>,
}

impl Scene {
    pub(crate) fn find(cluster: &Cluster, native: bool) -> Result<Self> {
        let machine = |name| Netns::of_machine(cluster, name);
        let (one, two) = (machine("node1")?, machine("node2")?);
        let own = addresses(["192.168.77.200", "fd77::200"]);
        let second = addresses(["192.168.77.201", "fd77::201"]);
        let wire = Netns::of_stranger(cluster, "stranger", &[200, 201])?;
        let mut scene = Self {
            native,
            attacker: Party::pod(cluster, "attacker", &one)?,
            near: Party::pod(cluster, "near", &one)?,
            far: Party::pod(cluster, "far", &two)?,
            friend: Party::pod(cluster, "friend", &two)?,
            visitor: Party::pod(cluster, "visitor", &two)?,
            nodes: [
                Party::machine("node1", one, addresses(["192.168.77.11", "fd77::11"]))?,
                Party::machine("node2", two, addresses(["192.168.77.12", "fd77::12"]))?,
            ],
            stranger: Party::machine("stranger", wire, own)?,
            second,
            world: addresses(["203.0.113.5", "2001:db8::5"]),
            friend_identity: identity(cluster, "friend")?,
            victims: service(cluster, "victims")?,
            tunnels: [service(cluster, "tunnel1")?, service(cluster, "tunnel2")?],
            live: Vec::new(),
        };
        let parties = [
            (&scene.attacker, &scene.friend, LIVE[0]),
            (&scene.near, &scene.friend, LIVE[1]),
            (&scene.attacker, &scene.stranger, LIVE[2]),
        ];
        let mut live = Vec::new();
        for (from, to, port) in parties {
            for family in FAMILIES {
                let at = SocketAddr::new(to.addresses[family], port);
                let sockets =
                    (from.netns.datagrams(SocketAddr::new(from.addresses[family], port))?, to.netns.datagrams(at)?);
                sockets.1.set_nonblocking(true)?;
                live.push((sockets.0, sockets.1, at));
            }
        }
        scene.live = live;
        Ok(scene)
    }

    /// Datagrams there and back on the flows that live.
    pub(crate) fn keep_alive(&self) {
        for (from, _, to) in &self.live {
            let _ = from.send_to(b"hello", to);
        }
        for (_, there, _) in &self.live {
            while let Ok((_, from)) = there.recv_from(&mut [0; 16]) {
                let _ = there.send_to(b"hello", from);
            }
        }
    }

    pub(crate) fn victims(&self) -> [&Party; 2] {
        [&self.near, &self.far]
    }
}

fn addresses(pair: [&str; 2]) -> [IpAddr; 2] {
    pair.map(|text| text.parse().unwrap())
}

/// IPv4 first.
fn both(mut all: Vec<IpAddr>) -> Result<[IpAddr; 2]> {
    all.sort();
    ensure!(
        all.len() == 2 && all[0].is_ipv4() && all[1].is_ipv6(),
        "these are not one address of each family: {all:?}"
    );
    Ok([all[0], all[1]])
}

fn identity(cluster: &Cluster, pod: &str) -> Result<u32> {
    let path = "-o=jsonpath={.status.identity.id}";
    eventually(Duration::from_secs(30), &format!("the identity of {pod}"), || {
        let text = cluster.kubectl(&["get", "ciliumendpoint", "--namespace=attack", pod, path])?;
        text.trim().parse().with_context(|| format!("it is '{text}'"))
    })
}

fn service(cluster: &Cluster, name: &str) -> Result<[IpAddr; 2]> {
    let object = cluster.get(&["service", "--namespace=attack", name])?;
    let all = object["spec"]["clusterIPs"].as_array().into_iter().flatten();
    both(all.filter_map(|one| one.as_str()?.parse().ok()).collect())
}
