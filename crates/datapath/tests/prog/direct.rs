// SPDX-License-Identifier: Apache-2.0
//! Direct server return at the node that is asked: what it sends on, and what it tells the backend's node.

use std::net::IpAddr;

use abi::config::ProgramConfig;
use abi::flow::{flags, proto};
use abi::lb::flags::{DSR, LOCAL_ONLY, SOURCE_RANGES};
use abi::{DropReason, identity};

use datapath::bpf::Program;

use crate::devices::here;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed_with};
use crate::outside::{answer, refused};
use crate::packet::{ACK, Packet, SYN, checksum};
use crate::world::{Family, World, full, tuple};

/// Runs the test for each family where the network routes pods and answers may be direct.
pub(crate) fn direct(test: impl Fn(&mut World, Family) + Send + 'static) {
    exposed_with(|config| ProgramConfig { tunnel: 0, direct_tunnel: 0, direct_return: 1, ..config }, test);
}

/// The packet as a node sends it on that has been asked for a frontend.
pub(crate) fn telling(packet: Packet, (ip, port): (IpAddr, u16)) -> Packet {
    let port = port.to_be_bytes();
    match ip {
        IpAddr::V4(ip) => packet.options(&[&[0x9a, 8][..], &port, &ip.octets()].concat()),
        IpAddr::V6(ip) => packet.extension(60, &[&[0x1b, 20][..], &ip.octets(), &port, &[0, 0]].concat()),
    }
}

/// Requests of a client outside, of each protocol, by the first packet.
pub(crate) fn requests(f: &Family, to: (IpAddr, u16)) -> [(u8, Packet); 3] {
    [
        (proto::TCP, Packet::tcp((f.world, 40001), to, SYN)),
        (proto::UDP, Packet::udp((f.world, 40001), to)),
        (proto::SCTP, Packet::sctp((f.world, 40001), to)),
    ]
}

/// Frontends of both kinds.
pub(crate) fn frontends(f: &Family) -> [((IpAddr, u16), u32); 2] {
    [((f.node, 30080), NODE_PORT | DSR), ((f.service, 80), LOAD_BALANCER | DSR)]
}

#[test]
fn the_node_of_a_backend_is_told_which_frontend_its_client_has_asked() {
    direct(|world, f| {
        for (to, kind) in frontends(&f) {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.remote, 8080)]).install(world);
                let seen = telling(request.clone().to((f.remote, 8080)).ttl(63), to);
                for _decided_and_known in 0..2 {
                    world.arrives(&request.bytes()).redirected().packet(&seen);
                }
                let flow = world.flow(&tuple((f.world, 40001), to, proto)).unwrap();
                assert_eq!(flow.flags & (flags::NAT_SRC | flags::DIRECT), flags::DIRECT, "its client is not hidden");
                assert_eq!((world.flows().len(), world.aliases()), (1, 0));
            }
        }
    });
}

/// Options cost routers time, and room in full segments.
#[test]
fn of_a_connection_the_first_segment_tells_and_what_follows_a_new_decision() {
    direct(|world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::TCP, LOAD_BALANCER | DSR, &[(f.remote, 8080)]).install(world);
        world.arrives(&Packet::tcp((f.world, 40001), to, SYN).bytes()).redirected();
        let segment = Packet::tcp((f.world, 40001), to, ACK);
        let full_size = 1500 - 20 - if f.a.is_ipv4() { 20 } else { 40 };
        let full = segment.clone().payload(&vec![7; full_size]);
        let seen = |packet: &Packet| packet.clone().to((f.remote, 8080)).ttl(63);
        for segment in [&segment, &full] {
            world.arrives(&segment.bytes()).redirected().packet(&seen(segment));
        }
        world.epochs.bump_node().unwrap();
        world.arrives(&segment.bytes()).redirected().packet(&telling(seen(&segment), to));
        // One that has no room goes without.
        world.epochs.bump_node().unwrap();
        world.arrives(&full.bytes()).redirected().packet(&seen(&full));
    });
}

#[test]
fn a_backend_outside_of_the_cluster_answers_by_way_of_this_node() {
    direct(|world, f| {
        let to = (f.service, 80);
        let other: IpAddr = if f.a.is_ipv4() { "203.0.113.9" } else { "2001:db8:fffe::9" }.parse().unwrap();
        for identity in [identity::WORLD, identity::WORLD_IPV4, identity::WORLD_IPV6, 1 << 24 | 7] {
            world.clear_flows();
            world.set_identity((other, full(other)), identity, None);
            Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(other, 8080)]).install(world);
            let request = Packet::udp((f.world, 40001), to);
            let seen = request.clone().from((f.node, 40001)).to((other, 8080)).ttl(63);
            world.arrives(&request.bytes()).redirected().packet(&seen);
        }
    });
}

#[test]
fn a_backend_of_this_node_needs_not_be_told() {
    direct(|world, f| {
        let b = world.b;
        for (to, kind) in frontends(&f) {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.b, 8080)]).install(world);
                let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
                world.arrives(&request.bytes()).redirected().packet(&seen);
                let answer = request.to((f.b, 8080)).reply();
                world.leaves(&b, &answer.bytes()).redirected().packet(&answer.from(to).ttl(63));
            }
        }
    });
}

/// Its client knows who answers.
#[test]
fn a_flow_goes_on_as_it_began_whatever_its_service_asks_for_now() {
    direct(|world, f| {
        let to = (f.service, 80);
        let offer = |kind| Offer::new(to, proto::UDP, LOAD_BALANCER | kind, &[(f.remote, 8080)]);
        let request = Packet::udp((f.world, 40001), to);
        let hidden = request.clone().from((f.node, 40001)).to((f.remote, 8080)).ttl(63);
        let shown = telling(request.clone().to((f.remote, 8080)).ttl(63), to);
        for (first, then, seen) in [(0, DSR, hidden), (DSR, 0, shown)] {
            world.clear_flows();
            for kind in [first, then] {
                offer(kind).install(world);
                world.epochs.bump_node().unwrap();
                world.arrives(&request.bytes()).redirected().packet(&seen);
            }
        }
    });
}

#[test]
fn who_may_not_use_the_service_is_refused_where_he_asks() {
    direct(|world, f| {
        let to = (f.service, 80);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        Offer::new(to, proto::TCP, LOAD_BALANCER | DSR | SOURCE_RANGES, &[(f.remote, 8080)]).install(world);
        world.arrives(&request.bytes()).dropped(DropReason::DeniedByLbSrcRangeCheck);
        Offer::new(to, proto::TCP, LOAD_BALANCER | DSR | LOCAL_ONLY, &[(f.remote, 8080)]).install(world);
        world.arrives(&request.bytes()).dropped(DropReason::ServiceBackendNotFound);
    });
}

/// The backend moves to this node, and away again.
#[test]
fn a_flow_whose_backend_comes_here_is_answered_from_here() {
    direct(|world, f| {
        let to = (f.service, 80);
        let b = world.b;
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.b, 8080)]).install(world);
        world.remove_local(f.b);
        world.set_identity((f.b, full(f.b)), 2001, None);
        let request = Packet::udp((f.world, 40001), to);
        world.arrives(&request.bytes()).redirected().packet(&telling(request.clone().to((f.b, 8080)).ttl(63), to));
        world.set_pod(&b, 0);
        world.epochs.bump_peer(f.b).unwrap();
        let seen = request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63);
        world.arrives(&request.bytes()).redirected().packet(&seen);
        let answer = request.clone().to((f.b, 8080)).reply();
        world.leaves(&b, &answer.bytes()).redirected().packet(&answer.from(to).ttl(63));
    });
}

/// The asked node sees half of a connection, and takes no flood of first segments for connections: it may forget any of them.
#[test]
fn a_connection_that_is_forgotten_finds_the_same_backend_again() {
    direct(|world, f| {
        let to = (f.service, 80);
        let backends: Vec<_> = (0..8).map(|nth| (f.remote, 8080 + nth)).collect();
        Offer::new(to, proto::TCP, LOAD_BALANCER | DSR, &backends).install(world);
        let mut found = std::collections::BTreeSet::new();
        for port in 40000..40016 {
            let segment = |flags| Packet::tcp((f.world, port), to, flags);
            world.arrives(&segment(SYN).bytes()).redirected();
            let first = world.flows()[0].1.backend;
            world.clear_flows();
            world.arrives(&segment(ACK).bytes()).redirected();
            assert_eq!(world.flows()[0].1.backend, first);
            world.clear_flows();
            found.insert(first);
        }
        assert!(found.len() > 2, "{found:?}");
    });
}

#[test]
fn a_connection_goes_on_without_its_service_and_what_only_opens_does_not() {
    direct(|world, f| {
        let to = (f.service, 80);
        let offer = Offer::new(to, proto::TCP, LOAD_BALANCER | DSR, &[(f.remote, 8080)]);
        for segments in [&[SYN][..], &[SYN, ACK]] {
            world.clear_flows();
            offer.install(world);
            for flags in segments {
                world.arrives(&Packet::tcp((f.world, 40001), to, *flags).bytes()).redirected();
            }
            offer.remove(world);
            world.epochs.bump_peer(f.remote).unwrap();
            let segment = Packet::tcp((f.world, 40001), to, ACK);
            let run = world.arrives(&segment.bytes());
            if segments.len() == 2 {
                run.redirected().packet(&telling(segment.to((f.remote, 8080)).ttl(63), to));
            } else {
                run.ignored();
            }
        }
    });
}

/// The stack would take the option for something of its own.
#[test]
fn where_the_kernel_knows_no_way_it_does_not_get_what_names_a_frontend() {
    direct(|world, f| {
        let to = (f.service, 80);
        let lost: IpAddr = if f.a.is_ipv4() { "10.0.1.22" } else { "fd00:1::22" }.parse().unwrap();
        here(&format!("ip route add unreachable {lost}"));
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(lost, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        let ifindex = world.eth0;
        let run = world.run(Program::NetdevIngress, ifindex, &request.bytes());
        refused(&run, DropReason::FibLookupFailed, &answer(&request, [(3, 0), (1, 0)], 0));
    });
}

/// With the option it must fit, and the client is told what does, whether the packet may be cut up or not.
#[test]
fn what_is_too_big_with_the_name_is_answered_with_what_fits() {
    direct(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT | DSR, &[(f.remote, 8080)]).install(world);
        let (headers, name) = if f.a.is_ipv4() { (28, 8) } else { (48, 24) };
        let sized = |len: usize| Packet::udp((f.world, 40001), to).payload(&vec![0; len - headers]);
        let fits = sized(1500 - name);
        world.arrives(&fits.bytes()).redirected().packet(&telling(fits.clone().to((f.remote, 8080)).ttl(63), to));
        for may_be_cut in [true, false] {
            let mut frame = sized(1500 - name + 1).bytes();
            if f.a.is_ipv4() && !may_be_cut {
                frame[20] |= 0x40;
                frame[24..26].fill(0);
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum);
            }
            let ifindex = world.eth0;
            let run = world.run(Program::NetdevIngress, ifindex, &frame);
            let mut expected = answer(&sized(1500), [(3, 4), (2, 0)], 1500 - name as u16);
            expected.set_payload(frame[14..14 + headers].to_vec());
            refused(&run, DropReason::CtMissingTcpAckFlag, &expected);
        }
    });
}

#[test]
fn every_fragment_tells() {
    direct(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::UDP, NODE_PORT | DSR, &[(f.remote, 8080)]).install(world);
        let whole = Packet::udp((f.world, 40001), to).payload(&[9; 64]);
        // Its checksum covers all of it.
        let seen = whole.clone().to((f.remote, 8080)).ttl(63);
        for (part, seen) in whole.split(7, 3).iter().zip(seen.split(7, 3)) {
            world.arrives(&part.bytes()).redirected().packet(&telling(seen, to));
        }
    });
}

/// What is too big for the way to the client, somebody on that way says to the frontend: the node that has its address knows who it is meant for.
#[test]
fn an_error_about_an_answer_reaches_its_backend() {
    direct(|world, f| {
        let to = (f.service, 80);
        Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.remote, 8080)]).install(world);
        let request = Packet::udp((f.world, 40001), to);
        world.arrives(&request.bytes()).redirected();
        let router: IpAddr = if f.a.is_ipv4() { "198.51.100.1" } else { "2001:db8:ffff::1" }.parse().unwrap();
        for _ in 0..2 {
            let run = world.arrives(&Packet::too_big(router, f.service, &request.reply()).bytes());
            run.redirected();
            let seen = request.clone().to((f.remote, 8080)).reply();
            crate::masquerade::assert_quotes(&run.frame, &Packet::too_big(router, f.remote, &seen).ttl(63));
            world.epochs.bump_node().unwrap();
        }
    });
}

/// Nobody else is to say as whom a backend answers.
#[test]
fn whoever_asks_for_a_frontend_tells_nothing() {
    direct(|world, f| {
        for (to, kind) in frontends(&f) {
            Offer::new(to, proto::TCP, kind, &[(f.remote, 8080)]).install(world);
            let forged = telling(Packet::tcp((f.world, 40001), to, SYN), (f.service, 443));
            let run = world.arrives(&forged.bytes());
            let reason = if to.0 == f.node {
                // Taken for what another node has sent to a program of this one, which is no backend.
                DropReason::StaleOrUnroutableIp
            } else {
                DropReason::EncapsulationTrafficIsProhibited
            };
            run.dropped(reason);
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn a_pod_tells_nothing() {
    direct(|world, f| {
        let a = world.a;
        for to in [f.b, f.remote, f.world, f.node2, f.service] {
            for (_, packet) in requests(&f, (to, 8080)) {
                let forged = telling(packet.from((f.a, 40001)), (f.service, 80));
                world.leaves(&a, &forged.bytes()).dropped(DropReason::EncapsulationTrafficIsProhibited);
            }
        }
        // Other options are not ours.
        let packet = Packet::udp((f.a, 40001), (f.b, 8080));
        let other =
            if f.a.is_ipv4() { packet.options(&[0x94, 4, 0, 0]) } else { packet.extension(60, &[1, 4, 0, 0, 0, 0]) };
        world.leaves(&a, &other.bytes()).redirected();
    });
}

/// Those that are switched off do not look.
#[test]
fn nothing_is_told_where_that_is_switched_off() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.service, 80);
            Offer::new(to, proto::UDP, LOAD_BALANCER | DSR, &[(f.remote, 8080)]).install(world);
            let request = Packet::udp((f.world, 40001), to);
            let seen = request.clone().from((f.node, 40001)).to((f.remote, 8080)).ttl(63);
            world.arrives(&request.bytes()).redirected().packet(&seen);
        },
    );
}
