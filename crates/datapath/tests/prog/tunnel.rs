// SPDX-License-Identifier: Apache-2.0
//! The tunnel and a pod's link with real packets: what a test run of a single program cannot show.
//!
//! Node 2 is a plain kernel with one vxlan device per identity: `vxr` takes only what has the identity of pod A, `vxs`
//! sends with an identity of the test's choice. A packet that arrives there proves which identity was on the wire.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use abi::DropReason;
use abi::config::ProgramConfig;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::flow::proto;
use abi::identity;
use abi::policy::INGRESS;
use datapath::bpf::{Direction, Options, Program};
use datapath::netns;

use crate::devices::there;
use crate::world::{Family, REMOTE_IDENTITY, World, families};

/// How long a packet may take; nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `ip`, with a word per argument, inside of a network namespace.
pub(crate) fn ip(netns: &OwnedFd, commands: &str) {
    for command in commands.lines().map(str::trim).filter(|command| !command.is_empty()) {
        there(netns, &format!("ip {command}"));
    }
}

pub(crate) fn mac(bytes: [u8; 6]) -> String {
    datapath::netlink::Mac(bytes).to_string()
}

pub(crate) fn socket(netns: &OwnedFd, at: IpAddr) -> UdpSocket {
    let socket = netns::run(netns.as_fd(), || UdpSocket::bind((at, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// How the nodes are connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// The programs make and take off the outer headers, not the tunnel device.
    pub(crate) direct: bool,
    /// Between the nodes is IPv6.
    pub(crate) over_ipv6: bool,
}

pub(crate) const MODES: [Mode; 4] = [
    Mode { direct: false, over_ipv6: false },
    Mode { direct: true, over_ipv6: false },
    Mode { direct: false, over_ipv6: true },
    Mode { direct: true, over_ipv6: true },
];

impl Mode {
    /// The nodes' addresses: the one under test, and node 2.
    pub(crate) fn nodes(self) -> (IpAddr, IpAddr) {
        let f = families()[usize::from(self.over_ipv6)];
        (f.node, f.node2)
    }
}

/// The node under test with its programs attached, pod A with an address of that family, and node 2.
pub(crate) struct Wire {
    pub(crate) a: UdpSocket,
    pub(crate) remote: UdpSocket,
}

impl Wire {
    /// `identity` is what `vxs` puts on the wire.
    pub(crate) fn new(world: &World, f: Family, mode: Mode, identity: u32) -> Self {
        let a = world.a;
        let attach = |program, ifindex| {
            world.datapath.attach_tc(program, ifindex, Direction::Ingress, &format!("{program:?}")).unwrap();
        };
        attach(Program::PodEgress, a.ifindex);
        attach(Program::OverlayIngress, world.overlay);
        attach(Program::NetdevIngress, world.eth0);
        let (node, node2_ip) = mode.nodes();
        world.set_identity((f.remote, if f.a.is_ipv4() { 24 } else { 64 }), REMOTE_IDENTITY, Some(node2_ip));
        // As IPv6 wants it said for tunnels without checksums (RFC 6935).
        let checksums = if mode.over_ipv6 { "udp6zerocsumtx udp6zerocsumrx" } else { "" };
        let (pod, node2) = (&world.pods[0], &world.node2);
        let (a_full, remote_full, all) = if f.a.is_ipv4() { (32, 32, "0.0.0.0/0") } else { (128, 128, "::/0") };
        let nodad = if f.a.is_ipv4() { "" } else { "nodad" };
        ip(pod, &format!("addr add {}/{a_full} dev a {nodad}\nroute add {all} dev a", f.a));
        ip(
            node2,
            &format!(
                "addr add {remote}/{remote_full} dev lo {nodad}
                 link add vxr type vxlan id {wanted} dstport 8472 nolearning local {node2_ip} {checksums}
                 link add vxs type vxlan id {identity} dstport 8472 nolearning local {node2_ip} remote {node} {checksums}
                 link set vxr address {host_mac} up
                 link set vxs up
                 route add {a}/{a_full} dev vxs src {remote}
                 neigh add {a} lladdr {host_mac} dev vxs nud permanent",
                remote = f.remote,
                wanted = a.identity,
                host_mac = mac(a.host_mac),
                a = f.a,
            ),
        );
        Self { a: socket(pod, f.a), remote: socket(node2, f.remote) }
    }

    fn a(&self) -> SocketAddr {
        self.a.local_addr().unwrap()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.remote.local_addr().unwrap()
    }
}

#[track_caller]
fn receives(socket: &UdpSocket, text: &[u8], from: SocketAddr) {
    let mut buffer = [0; 64];
    let (len, peer) = socket.recv_from(&mut buffer).expect("nothing arrived");
    assert_eq!((&buffer[..len], peer), (text, from));
}

/// Each family through each kind of tunnel. `identity` is what node 2 puts on the wire.
fn each_way(identity: u32, test: impl Fn(&mut World, &Wire, Family) + Send + Sync + Clone + 'static) {
    for mode in MODES {
        for family in families() {
            let test = test.clone();
            let config = ProgramConfig { direct_tunnel: u8::from(mode.direct), ..ProgramConfig::default() };
            World::test_with(Options { config, ..Options::default() }, move |world| {
                println!("{mode:?}, {}", family.a);
                let wire = Wire::new(world, family, mode, identity);
                test(world, &wire, family);
            });
        }
    }
}

#[test]
fn pods_of_two_nodes_talk_through_the_tunnel_under_their_identities() {
    each_way(REMOTE_IDENTITY, |_, wire, _| {
        for _round in 0..3 {
            wire.a.send_to(b"question", wire.remote()).unwrap();
            receives(&wire.remote, b"question", wire.a());
            wire.remote.send_to(b"answer", wire.a()).unwrap();
            receives(&wire.a, b"answer", wire.remote());
        }
    });
}

#[test]
fn the_identity_that_comes_with_a_packet_decides_and_not_its_address() {
    // The address cache says another identity: on the wire is the one that counts.
    const ON_THE_WIRE: u32 = 3456;
    each_way(ON_THE_WIRE, |world, wire, _| {
        let a = world.a;
        world.set_pod(&a, INGRESS_ENFORCED);
        world.add_rule((&a, INGRESS), ON_THE_WIRE, (proto::UDP, 0), false);
        wire.remote.send_to(b"hello", wire.a()).unwrap();
        receives(&wire.a, b"hello", wire.remote());
        let policies = world.datapath_policies();
        for key in policies.keys().unwrap() {
            policies.remove(&key).unwrap();
        }
        world.add_rule((&a, INGRESS), REMOTE_IDENTITY, (proto::UDP, 0), false);
        world.epochs.bump_endpoint(a.id).unwrap();
        wire.remote.send_to(b"again", wire.a()).unwrap();
        let event = world.next_drop();
        assert_eq!((event.reason, event.src_identity), (DropReason::PolicyDenied as u8, ON_THE_WIRE));
        assert_eq!(nothing(&wire.a), ErrorKind::WouldBlock);
    });
}

#[test]
fn nobody_may_claim_the_identity_of_this_host() {
    each_way(identity::HOST, |world, wire, _| {
        wire.remote.send_to(b"hello", wire.a()).unwrap();
        assert_eq!(world.next_drop().reason, DropReason::InvalidIdentity as u8);
        assert_eq!(nothing(&wire.a), ErrorKind::WouldBlock);
    });
}

/// Why nothing can be read.
pub(crate) fn nothing(socket: &UdpSocket) -> ErrorKind {
    socket.set_nonblocking(true).unwrap();
    socket.recv_from(&mut [0; 64]).unwrap_err().kind()
}
