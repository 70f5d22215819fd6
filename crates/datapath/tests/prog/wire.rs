// SPDX-License-Identifier: Apache-2.0
//! Attacks and accidents with real packets: what a test run of a single program cannot show.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use abi::config::ProgramConfig;
use abi::endpoint::flags::{EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::proto;
use abi::policy::{EGRESS, INGRESS};
use abi::{DropReason, identity};
use datapath::bpf::{Direction, Options, Program};

use crate::devices::here;
use crate::packet::Packet;
use crate::tunnel::{ip, mac, nothing, socket};
use crate::world::{Family, REMOTE_IDENTITY, World, families, full};

/// Attaches the programs, and gives both pods an address and a way out.
fn connect(world: &World, f: Family) -> [UdpSocket; 2] {
    let attach = |program, ifindex, direction, name: &str| {
        world.datapath.attach_tc(program, ifindex, direction, name).unwrap();
    };
    attach(Program::NetdevIngress, world.eth0, Direction::Ingress, "eth0");
    attach(Program::OverlayIngress, world.overlay, Direction::Ingress, "overlay");
    let pods = [(world.a, "a", f.a), (world.b, "b", f.b)];
    for ((pod, device, address), netns) in pods.into_iter().zip(&world.pods) {
        attach(Program::PodEgress, pod.ifindex, Direction::Ingress, &format!("{device}e"));
        attach(Program::PodIngress, pod.ifindex, Direction::Egress, &format!("{device}i"));
        let (len, all) = if address.is_ipv4() { (32, "0.0.0.0/0") } else { (128, "::/0") };
        ip(netns, &format!("addr add {address}/{len} dev {device} nodad\nroute add {all} dev {device}"));
        here(&format!(
            "ip route add {address}/{len} dev lxc_{device}
             ip neigh add {address} lladdr {} dev lxc_{device} nud permanent",
            mac(pod.mac)
        ));
    }
    [socket(&world.pods[0], f.a), socket(&world.pods[1], f.b)]
}

/// A packet in VXLAN, without the outer headers (RFC 7348).
pub(crate) fn vxlan(vni: u32, inner: &Packet) -> Vec<u8> {
    frames::vxlan(vni, &inner.clone().macs([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 9, 8]).bytes())
}

/// Runs the test with either way out of the tunnel and each family, outside (the first) and inside.
fn through_tunnels(test: impl Fn(&mut World, Family, Family) + Copy + Send + 'static) {
    for direct_tunnel in [0, 1] {
        for outer in families() {
            for inner in families() {
                let config = ProgramConfig { direct_tunnel, ..ProgramConfig::default() };
                World::test_with(Options { config, ..Options::default() }, move |world| {
                    world.set_identity((inner.remote, full(inner.remote)), REMOTE_IDENTITY, Some(outer.node2));
                    test(world, outer, inner);
                });
            }
        }
    }
}

#[test]
fn a_pod_cannot_forge_an_identity_through_the_tunnel_port() {
    for direct_tunnel in [0, 1] {
        for f in families() {
            let config = ProgramConfig { direct_tunnel, ..ProgramConfig::default() };
            World::test_with(Options { config, ..Options::default() }, move |world| {
                let (a, b) = (world.a, world.b);
                let [from_a, at_b] = connect(world, f);
                world.set_pod(&a, EGRESS_ENFORCED);
                world.add_rule((&a, EGRESS), identity::HOST, (proto::UDP, 0), false);
                world.set_pod(&b, INGRESS_ENFORCED);
                world.add_rule((&b, INGRESS), REMOTE_IDENTITY, (proto::UDP, 0), false);
                let target = at_b.local_addr().unwrap();
                let inner = Packet::udp((f.remote, 7777), (f.b, target.port()));
                from_a.send_to(&vxlan(REMOTE_IDENTITY, &inner), (f.node, 8472)).unwrap();
                assert_eq!(world.next_drop().reason, DropReason::EncapsulationTrafficIsProhibited as u8);
                assert_eq!(nothing(&at_b), ErrorKind::WouldBlock);
            });
        }
    }
}

#[test]
fn only_a_node_sends_through_the_tunnel_and_only_for_those_behind_it() {
    through_tunnels(|world, outer, f| {
        let [_, at_b] = connect(world, f);
        let pick =
            |ipv4: &str, ipv6: &str, of: IpAddr| -> IpAddr { if of.is_ipv4() { ipv4 } else { ipv6 }.parse().unwrap() };
        let stranger = pick("192.0.2.66", "2001:db8::66", outer.node);
        let elsewhere = pick("10.0.2.5", "fd00:2::5", f.a);
        let other_node = pick("192.0.2.30", "2001:db8::30", outer.node);
        world.set_identity((elsewhere, full(elsewhere)), 3003, Some(other_node));
        ip(&world.node2, &format!("addr add {stranger}/{} dev eth0 nodad", full(stranger)));
        let send = |world: &World, from: IpAddr, vni, inner: IpAddr| {
            let inner = Packet::udp((inner, 7777), (f.b, at_b.local_addr().unwrap().port()));
            socket(&world.node2, from).send_to(&vxlan(vni, &inner), (outer.node, 8472)).unwrap();
        };
        let told = |world: &mut World| DropReason::from_code(world.next_drop().reason).unwrap();
        send(world, stranger, REMOTE_IDENTITY, f.remote);
        assert_eq!(told(world), DropReason::UnknownSender);
        let another = pick("192.0.2.30", "2001:db8::30", f.a);
        for inner in [f.a, f.b, f.node, elsewhere, f.world, another] {
            send(world, outer.node2, REMOTE_IDENTITY, inner);
            assert_eq!(told(world), DropReason::InvalidSourceIp, "{inner}");
        }
        for nobody in [identity::HOST, identity::UNKNOWN, identity::KUBE_APISERVER] {
            send(world, outer.node2, nobody, f.remote);
            assert_eq!(told(world), DropReason::InvalidIdentity);
        }
        assert_eq!(nothing(&at_b), ErrorKind::WouldBlock);
        // A node speaks for its pods, and for itself.
        at_b.set_nonblocking(false).unwrap();
        let itself = (outer.node.is_ipv4() == f.node.is_ipv4()).then_some(f.node2);
        for inner in itself.into_iter().chain([f.remote]) {
            send(world, outer.node2, REMOTE_IDENTITY, inner);
            let (_, from) = at_b.recv_from(&mut [0; 64]).expect("nothing arrived");
            assert_eq!(from, SocketAddr::new(inner, 7777));
        }
    });
}

#[test]
fn a_flow_of_the_tunnel_under_another_identity_is_decided_anew() {
    through_tunnels(|world, outer, f| {
        let b = world.b;
        let [_, at_b] = connect(world, f);
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), REMOTE_IDENTITY, (proto::UDP, 0), false);
        let send = |world: &World, vni| {
            let inner = Packet::udp((f.remote, 7777), (f.b, at_b.local_addr().unwrap().port()));
            socket(&world.node2, outer.node2).send_to(&vxlan(vni, &inner), (outer.node, 8472)).unwrap();
        };
        send(world, REMOTE_IDENTITY);
        at_b.recv_from(&mut [0; 64]).expect("nothing arrived");
        send(world, 4004);
        let event = world.next_drop();
        assert_eq!((event.reason, event.src_identity), (DropReason::PolicyDenied as u8, 4004));
        assert_eq!(nothing(&at_b), ErrorKind::WouldBlock);
    });
}

#[test]
fn what_the_host_source_translates_is_not_the_host_to_policy() {
    World::test(|world| {
        let f = families()[0];
        let b = world.b;
        let [from_a, at_b] = connect(world, f);
        let port = at_b.local_addr().unwrap().port();
        ip(&world.node2, &format!("addr add {}/32 dev lo\nroute add {}/32 via {}", f.world, f.b, f.node));
        here(&format!(
            "ip route replace {w}/32 via {n2}
             nft add table ip kp
             nft add chain ip kp pre {{ type nat hook prerouting priority -100 ; }}
             nft add chain ip kp post {{ type nat hook postrouting priority 100 ; }}
             nft add rule ip kp pre udp dport 30080 dnat to {b}:{port}
             nft add rule ip kp post ip daddr {b} masquerade",
            b = f.b,
            w = f.world,
            n2 = f.node2
        ));
        world.set_pod(&b, INGRESS_ENFORCED);
        world.add_rule((&b, INGRESS), identity::HOST, (0, 0), false);
        let client = socket(&world.node2, f.world);
        client.send_to(b"by node port", (f.node, 30080)).unwrap();
        assert_eq!(world.next_drop().src_identity, identity::WORLD);
        from_a.send_to(b"by node port", (f.node, 30080)).unwrap();
        assert_eq!(world.next_drop().src_identity, world.a.identity);
        assert_eq!(nothing(&at_b), ErrorKind::WouldBlock);
        // The node itself is.
        let node = UdpSocket::bind((f.node, 0)).unwrap();
        at_b.set_nonblocking(false).unwrap();
        node.send_to(b"probe", (f.b, port)).unwrap();
        assert_eq!(at_b.recv_from(&mut [0; 64]).unwrap().1, node.local_addr().unwrap());
        // And whom policy lets in by that way gets answers.
        world.add_rule((&b, INGRESS), identity::WORLD, (proto::UDP, 0), false);
        world.epochs.bump_endpoint(b.id).unwrap();
        client.send_to(b"again", (f.node, 30080)).unwrap();
        let (_, from) = at_b.recv_from(&mut [0; 64]).expect("nothing arrived");
        at_b.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut [0; 64]).unwrap().1, SocketAddr::new(f.node, 30080));
    });
}

/// What a node forwards by its own route has the node's name on it.
#[test]
fn a_pod_does_not_come_in_its_nodes_name() {
    for direct_tunnel in [0, 1] {
        let config = ProgramConfig { direct_tunnel, ..ProgramConfig::default() };
        World::test_with(Options { config, ..Options::default() }, |world| {
            let f = families()[0];
            let a = world.a;
            let [at_a, _] = connect(world, f);
            world.set_pod(&a, INGRESS_ENFORCED);
            world.add_rule((&a, INGRESS), identity::REMOTE_NODE, (0, 0), false);
            let router: IpAddr = "10.0.1.1".parse().unwrap();
            world.set_identity((router, 32), identity::REMOTE_NODE, Some(f.node2));
            let send = |world: &World, inner: IpAddr| {
                let inner = Packet::udp((inner, 7777), (f.a, at_a.local_addr().unwrap().port()));
                let frame = vxlan(identity::REMOTE_NODE, &inner);
                socket(&world.node2, f.node2).send_to(&frame, (f.node, 8472)).unwrap();
            };
            for node in [router, f.node2] {
                send(world, node);
                let (_, from) = at_a.recv_from(&mut [0; 64]).expect("nothing arrived");
                assert_eq!(from.ip(), node);
            }
            send(world, f.remote);
            assert_eq!(DropReason::from_code(world.next_drop().reason), Some(DropReason::InvalidIdentity));
            assert_eq!(nothing(&at_a), ErrorKind::WouldBlock);
        });
    }
}

#[test]
fn a_node_with_an_api_server_is_one_through_the_tunnel_too() {
    for direct_tunnel in [0, 1] {
        let config = ProgramConfig { direct_tunnel, ..ProgramConfig::default() };
        World::test_with(Options { config, ..Options::default() }, |world| {
            let f = families()[0];
            let a = world.a;
            let [at_a, _] = connect(world, f);
            world.set_identity((f.remote, 32), identity::KUBE_APISERVER, Some(f.node2));
            world.set_pod(&a, INGRESS_ENFORCED);
            world.add_rule((&a, INGRESS), identity::KUBE_APISERVER, (0, 0), false);
            for _first_and_known in 0..2 {
                let inner = Packet::udp((f.remote, 7777), (f.a, at_a.local_addr().unwrap().port()));
                let frame = vxlan(identity::REMOTE_NODE, &inner);
                socket(&world.node2, f.node2).send_to(&frame, (f.node, 8472)).unwrap();
                at_a.recv_from(&mut [0; 64]).expect("nothing arrived");
            }
            let (_, flow) = world.flows()[0];
            assert_eq!((flow.src_identity, flow.forward.packets), (identity::KUBE_APISERVER, 2));
        });
    }
}

#[test]
fn who_sends_too_much_for_the_way_out_is_told() {
    World::test(|world| {
        let f = families()[0];
        let [at_a, _] = connect(world, f);
        ip(&world.node2, &format!("link set eth0 mtu 1300\naddr add {}/32 dev lo", f.world));
        here(&format!("ip link set eth0 mtu 1300\nip route add {}/32 via {}", f.world, f.node2));
        let far = socket(&world.node2, f.world);
        at_a.connect(far.local_addr().unwrap()).unwrap();
        at_a.send(&[1; 1000]).unwrap();
        assert_eq!(far.recv_from(&mut [0; 2000]).unwrap().0, 1000);
        // It may not be cut up on the way. Once the sender has been told, it cuts it up itself.
        far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let arrives =
            || at_a.send(&[1; 1372]).is_ok() && far.recv_from(&mut [0; 2000]).is_ok_and(|(len, _)| len == 1372);
        assert!((0..100).any(|_| arrives()), "nobody tells the sender");
    });
}
