// SPDX-License-Identifier: Apache-2.0
//! ICMP errors: about whose packets, from whom, to whom, and with which addresses.

use abi::DropReason;
use abi::endpoint::flags::{ANY_SOURCE, EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::proto;
use abi::identity;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Services, Slots};
use abi::policy::EGRESS;
use datapath::Kernel;
use datapath::bpf::Place;

use crate::masquerade::assert_quotes;
use crate::packet::{Packet, SYN};
use crate::world::{Family, World};

const UNRELATED: DropReason = DropReason::CtUnknownL4Protocol;

#[test]
fn a_pods_error_goes_to_the_other_end_of_its_flow_and_nowhere_else() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), identity::WORLD, (proto::TCP, 80), false);
        let allowed = Packet::tcp((f.a, 1000), (f.world, 80), SYN);
        world.leaves(&a, &allowed.bytes()).redirected();
        // To an address that the flow does not know.
        for dst in [f.stranger, f.b, f.remote, f.node] {
            world.leaves(&a, &Packet::too_big(f.a, dst, &allowed.reply()).bytes()).dropped(UNRELATED);
        }
        // About another pod's flow, in its own name or in theirs.
        let theirs = Packet::udp((f.b, 500), (f.remote, 500));
        world.leaves(&b, &theirs.bytes()).redirected();
        world.leaves(&a, &Packet::too_big(f.a, f.remote, &theirs.reply()).bytes()).dropped(UNRELATED);
        let forged = Packet::too_big(f.b, f.remote, &theirs.reply());
        world.leaves(&a, &forged.bytes()).dropped(DropReason::InvalidSourceIp);
        world.leaves(&b, &forged.bytes()).redirected();
        // About what it has sent itself.
        world.leaves(&a, &Packet::too_big(f.a, f.a, &allowed).bytes()).dropped(UNRELATED);
    });
}

#[test]
fn an_error_is_let_through_as_long_as_its_flow_is() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&a, EGRESS_ENFORCED);
        world.add_rule((&a, EGRESS), b.identity, (proto::UDP, 53), false);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &request.bytes()).redirected();
        let error = Packet::too_big(f.b, f.a, &request);
        world.leaves(&b, &error.bytes()).redirected();
        // Its decision is old, and is made anew.
        world.epochs.bump_endpoint(a.id).unwrap();
        world.leaves(&b, &error.bytes()).redirected();
        world.add_rule((&a, EGRESS), b.identity, (proto::UDP, 53), true);
        world.epochs.bump_endpoint(a.id).unwrap();
        world.leaves(&b, &error.bytes()).dropped(DropReason::PolicyDeny);
        world.leaves(&a, &request.bytes()).dropped(DropReason::PolicyDeny);
    });
}

#[test]
fn an_error_about_what_the_world_sent_leaves_under_the_nodes_address() {
    World::test_families(|world, f| {
        let a = world.a;
        for request in [Packet::udp((f.a, 40001), (f.world, 53)), Packet::tcp((f.a, 40001), (f.world, 80), SYN)] {
            world.leaves(&a, &request.bytes()).redirected();
            let error = Packet::too_big(f.a, f.world, &request.reply());
            let run = world.leaves(&a, &error.bytes());
            run.redirected();
            let seen = request.clone().from((f.node, 40001)).reply();
            assert_quotes(&run.frame, &Packet::too_big(f.node, f.world, &seen).ttl(63));
        }
    });
}

#[test]
fn a_piece_of_an_error_quotes_nothing() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &request.bytes()).redirected();
        let error = Packet::too_big(f.b, f.a, &request);
        let first = error.clone().fragment(7, 0, true).bytes();
        world.leaves(&b, &first).dropped(DropReason::IpFragmentationNotSupported);
        let later = error.clone().fragment(7, 3, false).bytes();
        world.leaves(&b, &later).dropped(DropReason::FirstLogicalDatagramFragmentNotFound);
        world.leaves(&b, &error.bytes()).redirected();
    });
}

#[test]
fn an_error_about_a_service_names_the_service() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let backend = Backend { addr: f.b.into(), port: 8080_u16.to_be(), proto: proto::UDP, ..Backend::default() };
        world.put(world.datapath.map::<Backends>().unwrap(), &1, &backend);
        world.put(world.datapath.map::<Slots>().unwrap(), &SlotKey { service: 5, slot: 0 }, &1);
        let key =
            ServiceKey { addr: f.service.into(), port: 53_u16.to_be(), proto: proto::UDP, ..ServiceKey::default() };
        world.put(world.datapath.map::<Services>().unwrap(), &key, &Service { id: 5, count: 1, ..Service::default() });
        let request = Packet::udp((f.a, 1000), (f.service, 53));
        world.leaves(&a, &request.bytes()).redirected();
        let seen = request.clone().to((f.b, 8080));
        let run = world.leaves(&b, &Packet::too_big(f.b, f.a, &seen).bytes());
        run.redirected();
        assert_quotes(&run.frame, &Packet::too_big(f.service, f.a, &request).macs(a.host_mac, a.mac).ttl(63));
    });
}

/// Also when that backend serves no more: the error is about what it has said, and for nobody else.
#[test]
fn an_error_of_a_services_client_goes_to_the_backend_that_it_is_about() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        crate::state::serve(world, 1, (f.service, 53), (f.b, 8080), proto::UDP);
        world.leaves(&a, &Packet::udp((f.a, 1000), (f.service, 53)).bytes()).redirected();
        world.datapath.map::<Backends>().unwrap().remove(&1).unwrap();
        crate::state::serve(world, 2, (f.service, 53), (f.remote, 8080), proto::UDP);
        world.epochs.bump_peer(f.service).unwrap();
        world.epochs.bump_peer(f.b).unwrap();
        let answer = Packet::udp((f.service, 53), (f.a, 1000));
        let run = world.leaves(&a, &Packet::too_big(f.a, f.service, &answer).bytes());
        let seen = Packet::too_big(f.a, f.b, &answer.from((f.b, 8080))).macs(b.host_mac, b.mac).ttl(63);
        run.redirected();
        assert_quotes(&run.frame, &seen);
    });
}

#[test]
fn the_wire_tells_of_errors_about_what_went_out_there() {
    World::test_families(|world, f| {
        let a = world.a;
        world.set_pod(&a, INGRESS_ENFORCED);
        // Neither about a flow through the tunnel, nor about one between pods.
        for request in [Packet::udp((f.a, 1000), (f.remote, 53)), Packet::udp((f.a, 1000), (f.b, 53))] {
            world.leaves(&a, &request.bytes()).redirected();
            let error = Packet::too_big(f.world, f.a, &request);
            world.arrives(&error.bytes()).dropped(DropReason::PolicyDenied);
        }
        // The node's own stack may, and what it merely forwards may not.
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        let error = Packet::too_big(f.node, f.a, &request).bytes();
        world.enters(&a, &error).passed();
        let eth0 = world.eth0;
        world
            .forwarded(Place { ifindex: a.ifindex, arrived_by: eth0, ..Place::default() }, &error)
            .dropped(DropReason::PolicyDenied);
    });
}

#[test]
fn the_first_hop_of_a_masqueraded_traceroute_is_told_with_the_pods_own_address() {
    World::test_families(|world, f| {
        let a = world.a;
        for _first_and_known in 0..2 {
            let probe = Packet::udp((f.a, 40001), (f.world, 33434)).ttl(1);
            world.leaves(&a, &probe.bytes()).passed().packet(&probe);
        }
    });
}

/// The error of B about what A has sent, whose network header has become this.
fn quoting(f: Family, quoted: Vec<u8>) -> Vec<u8> {
    let mut error = Packet::too_big(f.b, f.a, &Packet::udp((f.a, 1000), (f.b, 53)));
    error.set_payload(quoted);
    error.bytes()
}

#[test]
fn a_quoted_packet_may_have_options() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &request.bytes()).redirected();
        if f.a.is_ipv4() {
            let mut quoted = request.network();
            quoted[0] = 0x46;
            quoted.splice(20..20, [1, 1, 1, 1]);
            world.leaves(&b, &quoting(f, quoted)).redirected();
        } else {
            for kind in [0, 43, 60] {
                let quoted = request.clone().extension(kind, &[0; 6]).network();
                world.leaves(&b, &quoting(f, quoted)).redirected();
            }
        }
    });
}

/// What lies there are no ports, even if it looks like those of a flow.
#[test]
fn a_quoted_later_fragment_names_no_flow() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &request.bytes()).redirected();
        let mut later = request.fragment(7, 3, false);
        later.set_payload([&1000_u16.to_be_bytes()[..], &53_u16.to_be_bytes(), &[0; 12]].concat());
        world.leaves(&b, &quoting(f, later.network())).dropped(UNRELATED);
    });
}

#[test]
fn a_pod_whose_source_is_not_checked_still_tells_of_its_own_packets_alone() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        world.set_pod(&b, ANY_SOURCE);
        let request = Packet::udp((f.a, 1000), (f.b, 53));
        world.leaves(&a, &request.bytes()).redirected();
        world.leaves(&b, &Packet::too_big(f.stranger, f.a, &request).bytes()).dropped(UNRELATED);
        world.leaves(&b, &Packet::too_big(f.b, f.a, &request).bytes()).redirected();
    });
}
