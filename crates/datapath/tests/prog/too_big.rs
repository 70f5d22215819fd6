// SPDX-License-Identifier: Apache-2.0
//! What is too big for its way is left to the stack, which answers it. It must not forward it: it would do so under a name that the
//! packet must not have outside.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use abi::config::ProgramConfig;
use abi::identity;
use datapath::bpf::{Direction, Options, Program};
use datapath::netns;
use ipnet::IpNet;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
use tokio::time::Instant;

use crate::devices::here;
use crate::packet::{Packet, checksum};
use crate::tunnel::{MODES, Wire, ip, mac, socket as udp};
use crate::world::{Family, World, families, full};

/// The node's own way to pod A.
fn to_pod(world: &World, f: Family) {
    let family = if f.a.is_ipv4() { "-4" } else { "-6" };
    here(&format!(
        "ip {family} route add {a}/{all} dev lxc_a
         ip {family} neigh add {a} lladdr {mac} dev lxc_a nud permanent",
        a = f.a,
        all = full(f.a),
        mac = mac(world.a.mac)
    ));
}

/// Packets that a device has received.
fn received(netns: &OwnedFd, device: &str) -> u64 {
    let read = || Command::new("ip").args(["-s", "-j", "link", "show", device]).output().unwrap();
    let output = netns::run(netns.as_fd(), read).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rx = text.split("\"rx\":{").nth(1).unwrap_or_else(|| panic!("{text}"));
    let packets = rx.split("\"packets\":").nth(1).unwrap();
    packets.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Pod A sends until it has been told how much may be sent at once, and cuts the rest up itself.
fn gets_through(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) -> bool {
    to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let arrives = || from.send(bytes).is_ok() && to.recv_from(&mut [0; 2000]).is_ok_and(|(len, _)| len == bytes.len());
    (0..100).any(|_| arrives())
}

/// Pod A sends that much at once through the tunnel, which `change` makes too narrow for it before. Some may be told to send less.
fn arrives_under_its_own_name(len: usize, change: impl Fn(&World) + Send + Sync + Copy + 'static) {
    for mode in MODES.into_iter().filter(|mode| !mode.over_ipv6) {
        for f in families() {
            let config = ProgramConfig { direct_tunnel: u8::from(mode.direct), ..ProgramConfig::default() };
            World::test_with(Options { config, ..Options::default() }, move |world| {
                println!("{mode:?} {}", f.a);
                let wire = Wire::new(world, f, mode, identity::WORLD);
                to_pod(world, f);
                let (node, node2_ip) = mode.nodes();
                ip(
                    &world.node2,
                    &format!(
                        "link add vxn type vxlan id {} dstport 8472 nolearning local {node2_ip} remote {node}
                         link set vxn address {} up",
                        identity::REMOTE_NODE,
                        mac(world.a.host_mac)
                    ),
                );
                let prefix = IpNet::new(f.remote, if f.a.is_ipv4() { 24 } else { 64 }).unwrap().trunc();
                world.set_tunnel_route(prefix, node2_ip, 1450);
                change(world);
                wire.a.connect(wire.remote()).unwrap();
                let before = received(&world.node2, "vxn");
                let through = gets_through(&wire.a, &wire.remote, &vec![1; len]);
                assert_eq!(received(&world.node2, "vxn"), before, "{mode:?}: under the node's identity");
                assert!(through, "nobody tells the sender");
            });
        }
    }
}

#[test]
fn what_is_too_big_for_the_tunnel_does_not_travel_under_the_nodes_identity() {
    arrives_under_its_own_name(1200, |world| {
        let f = families()[0];
        lower_the_nodes_path(world, f, f.node2, 1000);
    });
}

#[test]
fn a_device_that_takes_less_than_the_tunnels_carries_what_pods_send() {
    arrives_under_its_own_name(1350, |world| {
        here("ip link set eth0 mtu 1300");
        ip(&world.node2, "link set eth0 mtu 1300");
    });
}

/// The node is told, by whoever likes, that what it has sent there was too big. An echo that it has answered needs no proof.
fn lower_the_nodes_path(world: &World, f: Family, to: IpAddr, mtu: u16) {
    let mut about = Packet::echo_reply(f.node, to, 7);
    about.set_payload(Vec::new());
    let mut error = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), &about.network()].concat();
    let sum = checksum(&error);
    error[2..4].copy_from_slice(&sum);
    let IpAddr::V4(node) = f.node else { panic!("IPv4 only") };
    let send = || {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp).unwrap();
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(node, 0));
        sendto(raw.as_raw_fd(), &error, &to, MsgFlags::empty()).unwrap();
    };
    netns::run(world.node2.as_fd(), send).unwrap();
    let known = || {
        let output = Command::new("ip").args(["route", "get", &to.to_string()]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!("mtu {mtu}"))
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !known() {
        assert!(Instant::now() < deadline, "the node has not learnt of it");
        std::thread::yield_now();
    }
}

#[test]
fn what_the_node_was_told_of_a_way_does_not_send_pods_out_under_their_own_address() {
    World::test(|world| {
        let f = families()[0];
        let attach = |program, ifindex| {
            world.datapath.attach_tc(program, ifindex, Direction::Ingress, &format!("{program:?}")).unwrap();
        };
        attach(Program::PodEgress, world.a.ifindex);
        attach(Program::NetdevIngress, world.eth0);
        to_pod(world, f);
        ip(&world.pods[0], &format!("addr add {}/32 dev a\nroute add 0.0.0.0/0 dev a", f.a));
        ip(&world.node2, &format!("addr add {}/32 dev lo", f.world));
        here(&format!("ip route add {}/32 via {}", f.world, f.node2));
        lower_the_nodes_path(world, f, f.world, 1000);
        let (pod, far) = (udp(&world.pods[0], f.a), udp(&world.node2, f.world));
        pod.connect(far.local_addr().unwrap()).unwrap();
        pod.send(&[1; 1200]).unwrap();
        let (_, from) = far.recv_from(&mut [0; 2000]).expect("nothing arrived");
        assert_eq!(from.ip(), f.node);
    });
}
