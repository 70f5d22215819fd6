// SPDX-License-Identifier: Apache-2.0
//! Traffic that leaves the cluster takes the node's address; what comes back finds its pod.

use abi::config::{Device, ProgramConfig};
use abi::event::point;
use abi::flow::{Flow, proto};
use abi::ipcache::{IpcacheEntry, flags};
use abi::maps::{Devices, Flows};
use abi::ports::{self, Range};
use abi::{Addr, DropReason, identity};
use datapath::Kernel as _;
use datapath::bpf::{Options, Program};
use std::net::{IpAddr, TcpListener, UdpSocket};

use crate::offer::{NODE_PORT, Offer, exposed};
use crate::outside::{answer as error_about, arrives_unsummed, refused};
use crate::packet::{Packet, SYN, source_port};
use crate::world::{Pod, World, families, full, tuple};

#[test]
fn a_pod_talks_to_the_world_under_the_nodes_address() {
    World::test_families(|world, f| {
        let a = world.a;
        for request in [
            Packet::tcp((f.a, 40001), (f.world, 80), SYN),
            Packet::udp((f.a, 40001), (f.world, 53)),
            Packet::echo_request(f.a, f.world, 40001),
        ] {
            let masqueraded = request.clone().from((f.node, 40001)).ttl(63);
            let run = world.leaves(&a, &request.bytes());
            run.redirected().packet(&masqueraded);
            let event = run.told();
            assert_eq!((event.point, event.dst_identity), (point::TO_NETWORK, identity::WORLD));
            assert_eq!((IpAddr::from(event.src), IpAddr::from(event.src_xlated)), (f.a, f.node));
            world.leaves(&a, &request.bytes()).redirected().packet(&masqueraded);

            let answer = masqueraded.reply().ttl(50);
            let run = world.arrives(&answer.bytes());
            run.redirected().packet(&answer.to((f.a, 40001)).macs(a.host_mac, a.mac).ttl(49));
        }
    });
}

#[test]
fn by_another_native_device_it_leaves_under_that_ones_address() {
    World::test_families(|world, f| {
        let a = world.a;
        let (other, bare) =
            (world.add_device(&format!("x{}", full(f.a))), world.add_device(&format!("y{}", full(f.a))));
        let (far, farther): (IpAddr, IpAddr) = if f.a.is_ipv4() {
            ("203.0.113.9".parse().unwrap(), "203.0.113.77".parse().unwrap())
        } else {
            ("2001:db8:9::9".parse().unwrap(), "2001:db8:9::77".parse().unwrap())
        };
        world.set_route(f.world, other);
        world.set_route(farther, bare);
        let mut device = Device::default();
        let own = if f.a.is_ipv4() { &mut device.masquerade_ipv4 } else { &mut device.masquerade_ipv6 };
        *own = far.into();
        let devices = world.datapath.map::<Devices>().unwrap();
        world.put(devices.clone(), &other, &device);
        world.put(devices, &bare, &Device::default());

        for (to, from, by) in [(f.world, far, other), (farther, f.node, bare)] {
            let request = Packet::udp((f.a, 40001), (to, 53));
            world.leaves(&a, &request.bytes()).redirected().packet(&request.clone().from((from, 40001)).ttl(63));
            let answer = Packet::udp((to, 53), (from, 40001));
            let run = world.run(Program::NetdevIngress, by, &answer.bytes());
            run.redirected().packet(&answer.to((f.a, 40001)).macs(a.host_mac, a.mac).ttl(63));
        }
    });
}

/// Nobody looks at what comes back by such a device: the pod would never hear of it.
#[test]
fn by_a_device_that_is_not_native_it_leaves_under_its_own_address() {
    World::test_families(|world, f| {
        let a = world.a;
        let bridge = world.add_device(&format!("z{}", full(f.a)));
        world.set_route(f.world, bridge);
        let request = Packet::udp((f.a, 40001), (f.world, 53));
        world.leaves(&a, &request.bytes()).redirected().packet(&request.ttl(63));
    });
}

#[test]
fn two_pods_with_one_port_get_two() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.leaves(&a, &Packet::udp((f.a, 40001), (f.world, 53)).bytes()).redirected();
        world.leaves(&b, &Packet::udp((f.b, 40001), (f.world, 53)).bytes()).redirected();
        let flows = world.flows();
        let port = |pod: IpAddr| flows.iter().find(|(key, _)| key.src == pod.into()).unwrap().1.nat_sport;
        assert_eq!(port(f.a), 40001_u16.to_be());
        assert_ne!(port(f.b), port(f.a));
        assert!(u16::from_be(port(f.b)) >= 32768);
        for (pod, ip) in [(a, f.a), (b, f.b)] {
            let answer = Packet::udp((f.world, 53), (f.node, u16::from_be(port(ip))));
            let run = world.arrives(&answer.bytes());
            run.redirected().packet(&answer.to((ip, 40001)).macs(pod.host_mac, pod.mac).ttl(63));
        }
    });
}

/// As after so many flows of a pod with one server.
fn take_all_that_are_anybodys(world: &World, pod: IpAddr, node: IpAddr, server: (IpAddr, u16)) {
    let flows = world.datapath.map::<Flows>().unwrap();
    for port in ports::FIRST..ports::FIRST_OWN {
        let record = tuple((pod, port), server, proto::UDP).key().0;
        let (key, alias) = Flow::alias(&record, &tuple(server, (node, port), proto::UDP));
        flows.insert(&key, &alias).unwrap();
    }
}

#[test]
fn whoever_finds_all_ports_taken_has_some_of_its_own() {
    World::test_with(Options { flows: 65_536, ..Options::default() }, |world| {
        let (a, b) = (world.a, world.b);
        for f in families() {
            world.reset();
            take_all_that_are_anybodys(world, f.stranger, f.node, (f.world, 53));
            for (pod, ip) in [(a, f.a), (b, f.b)] {
                let request = Packet::udp((ip, 40001), (f.world, 53));
                let port = source_port(&world.leaves(&pod, &request.bytes()).redirected().frame);
                assert!(port >= ports::FIRST_OWN && Range::of(pod.ifindex).allow(port), "{port}");
                let answer = Packet::udp((f.world, 53), (f.node, port));
                world
                    .arrives(&answer.bytes())
                    .redirected()
                    .packet(&request.reply().macs(pod.host_mac, pod.mac).ttl(63));
            }
        }
    });
}

#[test]
fn a_port_that_is_another_pods_own_is_not_taken() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let port = Range::of(b.ifindex).pick(0);
        let leaves = |world: &mut World, pod: &Pod, ip| {
            let run = world.leaves(pod, &Packet::udp((ip, port), (f.world, 53)).bytes());
            source_port(&run.redirected().frame)
        };
        let given = leaves(world, &a, f.a);
        assert!(given != port && Range::of(a.ifindex).allow(given), "{given}");
        assert_eq!(leaves(world, &b, f.b), port);
        // To a server in the cluster it goes under its own address.
        crate::state::serve(world, 1, (f.service, 53), (f.b, 8080), proto::UDP);
        let run = world.leaves(&a, &Packet::udp((f.a, port), (f.service, 53)).bytes());
        assert_eq!(source_port(&run.redirected().frame), port);
    });
}

#[test]
fn a_port_on_which_the_node_listens_is_not_taken() {
    World::test_families(|world, f| {
        let a = world.a;
        let node = if f.node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let listener = TcpListener::bind(node).unwrap();
        let port = listener.local_addr().unwrap().port();
        world.leaves(&a, &Packet::tcp((f.a, port), (f.world, 80), SYN).bytes()).redirected();
        let flow = world.flows().into_iter().find(|(key, _)| key.src == f.a.into()).unwrap().1;
        assert_ne!(u16::from_be(flow.nat_sport), port);
    });
}

#[test]
fn a_port_from_which_the_node_sends_datagrams_is_not_taken() {
    World::test_families(|world, f| {
        let a = world.a;
        let node = if f.node.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(node).unwrap();
        let port = socket.local_addr().unwrap().port();
        world.leaves(&a, &Packet::udp((f.a, port), (f.world, 53)).bytes()).redirected();
        assert_ne!(u16::from_be(world.flows()[0].1.nat_sport), port);
    });
}

/// What its clients send to the service would go to the pod, as answers to it.
#[test]
fn a_port_that_clients_ask_a_service_at_is_not_taken() {
    exposed(|world, f| {
        let (a, b) = (world.a, world.b);
        let served = |port| Offer::new((f.node, port), proto::UDP, NODE_PORT, &[(f.b, 53)]);
        // One of the range for ports of nodes, to which a service comes later, and one at another port.
        for (port, comes_later) in [(30053, true), (30053, false), (53, false)] {
            world.clear_flows();
            if !comes_later {
                served(port).install(world);
            }
            world.leaves(&a, &Packet::udp((f.a, port), (f.world, 5000)).bytes()).redirected();
            served(port).install(world);
            let asked = Packet::udp((f.world, 5000), (f.node, port));
            let expected = asked.clone().to((f.b, 53)).macs(b.host_mac, b.mac).ttl(63);
            world.arrives(&asked.bytes()).redirected().packet(&expected);
            served(port).remove(world);
        }
        // Another port of the node is the pod's.
        world.leaves(&a, &Packet::udp((f.a, 29999), (f.world, 5000)).bytes()).redirected();
        let given = world.flows().into_iter().find(|(key, _)| key.sport == 29999_u16.to_be()).unwrap().1.nat_sport;
        assert_eq!(given, 29999_u16.to_be());
    });
}

/// To the node's stack it is a packet for the node itself, which would reset the connection.
#[test]
fn an_answer_that_has_come_too_far_does_not_reach_the_stack() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::tcp((f.a, 40001), (f.world, 80), SYN);
        world.leaves(&a, &request.bytes()).redirected();
        let answer = request.from((f.node, 40001)).reply().ttl(1);
        for _first_and_known in 0..2 {
            let run = arrives_unsummed(world, &answer.bytes());
            refused(&run, DropReason::TtlExceeded, &error_about(&answer, [(11, 0), (3, 0)], 0));
        }
    });
}

#[test]
fn an_answer_finds_its_pod_also_after_its_decision_has_grown_old() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::udp((f.a, 40001), (f.world, 53));
        world.leaves(&a, &request.bytes()).redirected();
        world.epochs.bump_node().unwrap();
        let answer = request.clone().from((f.node, 40001)).reply();
        let run = world.arrives(&answer.bytes());
        run.redirected().packet(&answer.to((f.a, 40001)).macs(a.host_mac, a.mac).ttl(63));
        world.epochs.bump_node().unwrap();
        let again = world.leaves(&a, &request.bytes());
        again.redirected().packet(&request.from((f.node, 40001)).ttl(63));
    });
}

#[test]
fn the_source_is_kept_where_masquerading_is_not_asked_for() {
    World::test_families(|world, f| {
        let a = world.a;
        let request = Packet::udp((f.a, 1000), (f.world, 53));
        let entry = IpcacheEntry { identity: 3001, flags: flags::NO_MASQUERADE, ..IpcacheEntry::default() };
        world.set_ipcache(f.world, full(f.world), entry);
        world.leaves(&a, &request.bytes()).redirected().packet(&request.clone().ttl(63));
        world.clear_flows();
        world.set_ipcache(f.world, full(f.world), IpcacheEntry { identity: 3001, ..IpcacheEntry::default() });
        world.set_node(|node| (node.masquerade_ipv4, node.masquerade_ipv6) = (Addr::NONE, Addr::NONE));
        world.leaves(&a, &request.bytes()).redirected().packet(&request.ttl(63));
    });
}

#[test]
fn masquerading_can_be_switched_off() {
    let config = ProgramConfig { masquerade_ipv4: 0, masquerade_ipv6: 0, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        let a = world.a;
        for f in families() {
            let request = Packet::udp((f.a, 1000), (f.world, 53));
            world.leaves(&a, &request.bytes()).redirected().packet(&request.ttl(63));
        }
    });
}

/// With native routing the network between nodes knows pods' addresses; with a tunnel it does not.
#[test]
fn other_nodes_are_spoken_to_under_the_pods_own_address_where_the_network_routes_it() {
    for (tunnel, identity, keeps) in [
        (0, identity::REMOTE_NODE, true),
        (0, identity::KUBE_APISERVER, true),
        (0, identity::WORLD, false),
        (1, identity::REMOTE_NODE, false),
    ] {
        let config = ProgramConfig { tunnel, ..ProgramConfig::default() };
        World::test_with(Options { config, ..Options::default() }, move |world| {
            for f in families() {
                world.set_ipcache(f.world, full(f.world), IpcacheEntry { identity, ..IpcacheEntry::default() });
                let request = Packet::udp((f.a, 40001), (f.world, 53));
                let seen = if keeps { request.clone() } else { request.clone().from((f.node, 40001)) };
                let a = world.a;
                world.leaves(&a, &request.bytes()).redirected().packet(&seen.ttl(63));
            }
        });
    }
}

/// As when its peer turns out to be a node. What comes back is for the node's address, and the peer knows the flow by that.
#[test]
fn a_flow_that_is_masqueraded_stays_so() {
    let config = ProgramConfig { tunnel: 0, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, |world| {
        for f in families() {
            let a = world.a;
            let request = Packet::udp((f.a, 40001), (f.world, 53));
            let seen = request.clone().from((f.node, 40001));
            world.leaves(&a, &request.bytes()).redirected();
            for answer_comes_first in [true, false] {
                world.set_identity((f.world, full(f.world)), identity::REMOTE_NODE, None);
                world.epochs.bump_peer(f.world).unwrap();
                if answer_comes_first {
                    let run = world.arrives(&Packet::too_big(f.stranger, f.node, &seen).bytes());
                    run.redirected();
                    let expected = Packet::too_big(f.stranger, f.a, &request).macs(a.host_mac, a.mac).ttl(63);
                    assert_quotes(&run.frame, &expected);
                    let answer = request.reply().macs(a.host_mac, a.mac).ttl(63);
                    world.arrives(&seen.reply().bytes()).redirected().packet(&answer);
                }
                world.leaves(&a, &request.bytes()).redirected().packet(&seen.clone().ttl(63));
            }
            // Another one begins as it should.
            let other = Packet::udp((f.a, 40002), (f.world, 53));
            world.leaves(&a, &other.bytes()).redirected().packet(&other.ttl(63));
        }
    });
}

#[test]
fn an_answer_that_nobody_asked_for_is_the_hosts() {
    World::test_families(|world, f| {
        let answer = Packet::udp((f.world, 53), (f.node, 40001));
        world.arrives(&answer.bytes()).ignored().packet(&answer);
    });
}

#[test]
fn an_icmp_error_about_a_masqueraded_packet_reaches_its_pod() {
    World::test_families(|world, f| {
        let a = world.a;
        for request in [
            Packet::udp((f.a, 40001), (f.world, 53)),
            Packet::tcp((f.a, 40001), (f.world, 80), SYN),
            Packet::echo_request(f.a, f.world, 40001),
        ] {
            world.leaves(&a, &request.bytes()).redirected();
            // A router on the way says that the packet as it saw it is too big.
            let seen = request.clone().from((f.node, 40001)).ttl(63);
            let error = Packet::too_big(f.stranger, f.node, &seen);
            let run = world.arrives(&error.bytes());
            run.redirected();
            let quoted = &run.frame[run.frame.len() - request.network().len()..];
            assert_eq!(quoted[..if f.a.is_ipv4() { 10 } else { 40 }].len(), if f.a.is_ipv4() { 10 } else { 40 });
            let expected = Packet::too_big(f.stranger, f.a, &request.clone().ttl(63));
            assert_quotes(&run.frame, &expected.macs(a.host_mac, a.mac).ttl(63));
        }
    });
}

/// The error is as expected but for the transport checksum inside of the quotation, which nobody checks.
#[track_caller]
pub(crate) fn assert_quotes(frame: &[u8], expected: &Packet) {
    let expected = expected.bytes();
    assert_eq!(frame.len(), expected.len());
    let network = if expected[12..14] == [8, 0] { 20 } else { 40 };
    let icmp = 14 + network;
    let quoted_transport = icmp + 8 + network;
    assert_eq!(frame[..icmp + 2], expected[..icmp + 2]);
    assert_eq!(frame[icmp + 4..quoted_transport + 2], expected[icmp + 4..quoted_transport + 2]);
    // The error's own checksum is right for what it carries.
    let mut covered = frame[icmp..].to_vec();
    if network == 40 {
        let len = u32::try_from(covered.len()).unwrap().to_be_bytes();
        let pseudo = [&frame[14 + 8..14 + 40], &len, &[0, 0, 0, 58]].concat();
        covered = [pseudo, covered].concat();
    }
    assert_eq!(crate::packet::checksum(&covered), [0, 0], "checksum");
}

#[test]
fn an_icmp_error_about_a_flow_that_we_do_not_know_is_the_hosts() {
    World::test_families(|world, f| {
        let unknown = Packet::udp((f.node, 40001), (f.world, 53));
        let error = Packet::too_big(f.stranger, f.node, &unknown);
        world.arrives(&error.bytes()).ignored().packet(&error);
    });
}

#[test]
fn a_pod_may_tell_of_an_error_about_a_flow_and_of_no_other() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        let error = Packet::too_big(f.b, f.a, &request);
        world.leaves(&b, &error.bytes()).dropped(abi::DropReason::CtUnknownL4Protocol);
        world.leaves(&a, &request.bytes()).redirected();
        world.leaves(&b, &error.bytes()).redirected().packet(&error.macs(a.host_mac, a.mac).ttl(63));
    });
}
