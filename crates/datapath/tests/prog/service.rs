// SPDX-License-Identifier: Apache-2.0
//! Services: per packet for a pod's, and at the socket for the node's programs.

use abi::DropReason;
use abi::flow::flags::NAT_DST;
use abi::flow::proto;
use abi::lb::flags::{DENY_RANGES, LOCAL_REDIRECT, MEMBERS, SOURCE_RANGES, SPARES_BACKENDS};
use abi::lb::{Backend, DENIED, SCOPE_UNREDIRECTED, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Services, Slots};
use datapath::Kernel;
use std::net::IpAddr;

use crate::choice::add_range;
use crate::packet::{Packet, SYN};
use crate::world::{Family, Pod, World, families, full, tuple};

/// Makes a service of these backends.
fn serve(world: &World, proto: u8, (ip, port): (IpAddr, u16), backends: &[(u32, IpAddr, u16)]) {
    let count = u32::try_from(backends.len()).unwrap();
    for (slot, (id, ip, port)) in backends.iter().enumerate() {
        let backend = Backend { addr: (*ip).into(), port: port.to_be(), proto, ..Backend::default() };
        world.put(world.datapath.map::<Backends>().unwrap(), id, &backend);
        let slot = SlotKey { service: 5, slot: u32::try_from(slot).unwrap() };
        world.put(world.datapath.map::<Slots>().unwrap(), &slot, id);
    }
    let key = ServiceKey { addr: ip.into(), port: port.to_be(), proto, ..ServiceKey::default() };
    let service = Service { id: 5, count, ..Service::default() };
    world.put(world.datapath.map::<Services>().unwrap(), &key, &service);
}

#[test]
fn a_packet_to_a_service_goes_to_its_backend_and_the_answer_comes_from_the_service() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        for tcp in [true, false] {
            let (proto, request) = if tcp {
                (proto::TCP, Packet::tcp((f.a, 1000), (f.service, 80), SYN))
            } else {
                (proto::UDP, Packet::udp((f.a, 1000), (f.service, 80)))
            };
            serve(world, proto, (f.service, 80), &[(1, f.b, 8080)]);
            for packet in 0..2 {
                let run = world.leaves(&a, &request.bytes());
                run.redirected().packet(&request.clone().to((f.b, 8080)).macs(b.host_mac, b.mac).ttl(63));
                if packet == 0 {
                    let event = run.told();
                    assert_eq!((IpAddr::from(event.dst), event.dport), (f.b, 8080_u16.to_be()));
                    assert_eq!(IpAddr::from(event.dst_orig), f.service);
                }
            }
            let answer = request.clone().to((f.b, 8080)).reply();
            let run = world.leaves(&b, &answer.bytes());
            run.redirected().packet(&answer.from((f.service, 80)).macs(a.host_mac, a.mac).ttl(63));
        }
    });
}

/// Where packets of a pod to the service go.
fn leads_to(world: &mut World, pod: &Pod, from: (IpAddr, u16), service: (IpAddr, u16)) -> Option<IpAddr> {
    world.leaves(pod, &Packet::udp(from, service).bytes()).redirected();
    let flow = world.flow(&tuple(from, service, proto::UDP)).unwrap();
    flow.has(NAT_DST).then(|| flow.nat_dst.into())
}

#[test]
fn a_pod_that_a_redirect_leads_to_is_spared_it() {
    World::test_families(|world, f| {
        let (a, b, service) = (world.a, world.b, (f.service, 53));
        serve(world, proto::UDP, service, &[(1, f.b, 1053)]);
        let key =
            ServiceKey { addr: f.service.into(), port: 53_u16.to_be(), proto: proto::UDP, ..ServiceKey::default() };
        let services = world.datapath.map::<Services>().unwrap();
        let flags = LOCAL_REDIRECT | SPARES_BACKENDS | SOURCE_RANGES | DENY_RANGES;
        world.put(services.clone(), &key, &Service { id: 5, count: 1, flags, affinity: 0 });
        add_range(world, 5 | DENIED, f.b, full(f.b));
        assert_eq!(leads_to(world, &a, (f.a, 1000), service), Some(f.b));
        assert_eq!(leads_to(world, &b, (f.b, 1000), service), None, "the address is one like others");
        // What the service is to all without the redirect.
        let slot = SlotKey { service: 6, slot: 0 };
        let remote = Backend { addr: f.remote.into(), port: 53_u16.to_be(), proto: proto::UDP, ..Backend::default() };
        world.put(world.datapath.map::<Backends>().unwrap(), &2, &remote);
        world.put(world.datapath.map::<Slots>().unwrap(), &slot, &2);
        let unredirected = ServiceKey { scope: SCOPE_UNREDIRECTED, ..key };
        world.put(services, &unredirected, &Service { id: 6, count: 1, ..Service::default() });
        assert_eq!(leads_to(world, &b, (f.b, 1001), service), Some(f.remote));
        assert_eq!(leads_to(world, &a, (f.a, 1001), service), Some(f.b));
    });
}

#[test]
fn a_service_without_a_backend_drops() {
    World::test_families(|world, f| {
        let a = world.a;
        serve(world, proto::TCP, (f.service, 80), &[]);
        let request = Packet::tcp((f.a, 1000), (f.service, 80), SYN);
        world.leaves(&a, &request.bytes()).dropped(DropReason::ServiceBackendNotFound);
    });
}

#[test]
fn policy_is_asked_about_the_backend() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, proto::TCP, (f.service, 80), &[(1, f.b, 8080)]);
        world.set_pod(&b, abi::endpoint::flags::INGRESS_ENFORCED);
        let request = Packet::tcp((f.a, 1000), (f.service, 80), SYN).bytes();
        world.leaves(&a, &request).dropped(DropReason::PolicyDenied);
        world.add_rule((&b, abi::policy::INGRESS), a.identity, (proto::TCP, 8080), false);
        world.leaves(&a, &request).redirected();
    });
}

#[test]
fn a_flow_keeps_its_backend_while_that_exists() {
    World::test_families(|world, f: Family| {
        let a = world.a;
        serve(world, proto::TCP, (f.service, 80), &[(1, f.b, 8080), (2, f.remote, 8080)]);
        let request = Packet::tcp((f.a, 1000), (f.service, 80), SYN).bytes();
        let chosen = |world: &mut World| -> IpAddr {
            world.leaves(&a, &request).redirected();
            let flows = world.flows();
            flows.iter().find(|(key, _)| key.dst == f.service.into()).unwrap().1.nat_dst.into()
        };
        let first = chosen(world);
        for _round in 0..20 {
            world.epochs.bump_node().unwrap();
            assert_eq!(chosen(world), first);
        }
        let (gone, other) = if first == f.b { (1, f.remote) } else { (2, f.b) };
        let left = if gone == 1 { (2, f.remote, 8080) } else { (1, f.b, 8080) };
        serve(world, proto::TCP, (f.service, 80), &[left]);
        world.datapath.map::<Backends>().unwrap().remove(&gone).unwrap();
        world.epochs.bump_node().unwrap();
        assert_eq!(chosen(world), other);
    });
}

/// What a backend still has to say comes through, but whoever asks next is served by who serves now.
#[test]
fn an_answer_does_not_bring_back_a_backend_that_is_gone() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, proto::UDP, (f.service, 53), &[(1, f.b, 8053)]);
        let request = Packet::udp((f.a, 1000), (f.service, 53));
        world.leaves(&a, &request.bytes()).redirected();
        serve(world, proto::UDP, (f.service, 53), &[(2, f.remote, 8053)]);
        world.datapath.map::<Backends>().unwrap().remove(&1).unwrap();
        world.epochs.bump_peer(f.b).unwrap();
        let answer = request.clone().to((f.b, 8053)).reply();
        let seen = answer.clone().from((f.service, 53)).macs(a.host_mac, a.mac).ttl(63);
        world.leaves(&b, &answer.bytes()).redirected().packet(&seen);
        world.leaves(&a, &request.bytes()).redirected().packet(&request.to((f.remote, 8053)).ttl(63));
    });
}

#[test]
fn a_flow_to_a_service_that_is_gone_does_not_keep_a_backend_that_another_has_too() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, proto::UDP, (f.service, 53), &[(1, f.b, 8053)]);
        let request = Packet::udp((f.a, 40001), (f.service, 53));
        let seen = request.clone().to((f.b, 8053)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &request.bytes()).redirected().packet(&seen);
        let key =
            ServiceKey { addr: f.service.into(), port: 53_u16.to_be(), proto: proto::UDP, ..ServiceKey::default() };
        world.datapath.map::<Services>().unwrap().remove(&key).unwrap();
        world.epochs.bump_peer(f.b).unwrap();
        // Its address is one like others now.
        let run = world.leaves(&a, &request.bytes());
        run.redirected().packet(&request.from((f.node, 40001)).ttl(63));
    });
}

#[test]
fn a_flow_does_not_stay_with_a_backend_that_its_service_has_no_more_though_another_has() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (slots, services) = (world.datapath.map::<Slots>().unwrap(), world.datapath.map::<Services>().unwrap());
        let key =
            ServiceKey { addr: f.service.into(), port: 53_u16.to_be(), proto: proto::UDP, ..ServiceKey::default() };
        serve(world, proto::UDP, (f.service, 53), &[(1, f.b, 8053), (2, f.remote, 8053)]);
        // New flows go to the second one. The first is a member, as one is that is about to end.
        world.put(slots.clone(), &SlotKey { service: 5, slot: 0 }, &1);
        world.put(slots.clone(), &SlotKey::member(5, 1), &1);
        world.put(slots.clone(), &SlotKey::member(5, 2), &2);
        let service = Service { id: 5, count: 1, flags: MEMBERS, ..Service::default() };
        world.put(services.clone(), &key, &service);
        let request = Packet::udp((f.a, 1000), (f.service, 53));
        let first = request.clone().to((f.b, 8053)).macs(b.host_mac, b.mac).ttl(63);
        world.leaves(&a, &request.bytes()).redirected().packet(&first);
        world.put(slots.clone(), &SlotKey { service: 5, slot: 0 }, &2);
        world.epochs.bump_peer(f.b).unwrap();
        world.leaves(&a, &request.bytes()).redirected().packet(&first);
        slots.remove(&SlotKey::member(5, 1)).unwrap();
        world.epochs.bump_peer(f.b).unwrap();
        world.leaves(&a, &request.bytes()).redirected().packet(&request.to((f.remote, 8053)).ttl(63));
    });
}

#[test]
fn every_backend_gets_its_share() {
    World::test_families(|world, f| {
        let a = world.a;
        serve(world, proto::UDP, (f.service, 53), &[(1, f.b, 53), (2, f.remote, 53)]);
        for port in 1000..1064 {
            world.leaves(&a, &Packet::udp((f.a, port), (f.service, 53)).bytes()).redirected();
        }
        let flows = world.flows();
        for backend in [f.b, f.remote] {
            let share = flows.iter().filter(|(_, flow)| flow.nat_dst == backend.into()).count();
            assert!(share > 8, "{backend} got {share} of 64");
        }
    });
}

/// Over IPv4 it may have none (RFC 768).
#[test]
fn a_datagram_without_a_checksum_gets_none() {
    World::test(|world| {
        let [f, _] = families();
        let a = world.a;
        serve(world, proto::UDP, (f.service, 53), &[(1, f.b, 8053)]);
        let mut frame = Packet::udp((f.a, 1000), (f.service, 53)).bytes();
        frame[40..42].fill(0);
        let run = world.leaves(&a, &frame);
        assert_eq!(run.redirected().frame[36..42], [&8053_u16.to_be_bytes()[..], &frame[38..40], &[0, 0]].concat());
    });
}
