// SPDX-License-Identifier: Apache-2.0
//! The address of a service at a port that nobody serves: what is sent there is for no one, and does not leave for the world.

use abi::DropReason;
use abi::flow::proto;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Services, Slots};
use datapath::Kernel;
use std::net::IpAddr;

use crate::packet::{Packet, SYN};
use crate::world::{Family, World};

/// Makes a service of TCP at that port, with the mark of its address.
fn serve(world: &World, f: &Family, port: u16) {
    mark(world, f.service);
    let backend = Backend { addr: f.b.into(), port: 8080_u16.to_be(), proto: proto::TCP, ..Backend::default() };
    world.put(world.datapath.map::<Backends>().unwrap(), &1, &backend);
    world.put(world.datapath.map::<Slots>().unwrap(), &SlotKey { service: 5, slot: 0 }, &1);
    let key = ServiceKey { port: port.to_be(), proto: proto::TCP, ..ServiceKey::mark(f.service.into()) };
    world.put(world.datapath.map::<Services>().unwrap(), &key, &Service { id: 5, count: 1, ..Service::default() });
}

fn mark(world: &World, ip: IpAddr) {
    world.put(world.datapath.map::<Services>().unwrap(), &ServiceKey::mark(ip.into()), &Service::MARK);
}

fn unmark(world: &World, ip: IpAddr) {
    world.datapath.map::<Services>().unwrap().remove(&ServiceKey::mark(ip.into())).unwrap();
}

/// Packets to the service's address that no backend is for, when TCP is served at port 80.
fn unserved(f: &Family) -> [Packet; 4] {
    [
        Packet::tcp((f.a, 1000), (f.service, 81), SYN),
        Packet::udp((f.a, 1000), (f.service, 80)),
        Packet::udp((f.a, 1001), (f.service, 0)),
        Packet::echo_request(f.a, f.service, 80),
    ]
}

#[test]
fn what_is_sent_to_a_port_that_nobody_serves_is_dropped() {
    World::test_families(|world, f| {
        let a = world.a;
        serve(world, &f, 80);
        for packet in unserved(&f) {
            world.leaves(&a, &packet.bytes()).dropped(DropReason::ServiceBackendNotFound);
        }
        assert!(world.flows().is_empty(), "nothing is remembered of it");
        world.leaves(&a, &Packet::tcp((f.a, 1000), (f.service, 80), SYN).bytes()).redirected();
    });
}

#[test]
fn without_the_mark_it_is_as_any_address_of_the_world() {
    World::test_families(|world, f| {
        let a = world.a;
        mark(world, f.service);
        let answers = |world: &mut World| unserved(&f).map(|packet| world.leaves(&a, &packet.bytes()).verdict);
        let marked = answers(world);
        unmark(world, f.service);
        let unmarked = answers(world);
        assert!(marked.iter().zip(unmarked).all(|(with, without)| *with != without), "{marked:?} {unmarked:?}");
    });
}

#[test]
fn a_flow_that_went_to_the_world_ends_when_its_address_becomes_a_service() {
    World::test_families(|world, f| {
        let a = world.a;
        let packet = Packet::udp((f.a, 1000), (f.service, 81)).bytes();
        let verdict = world.leaves(&a, &packet).verdict;
        mark(world, f.service);
        assert_eq!(world.leaves(&a, &packet).verdict, verdict, "it is known");
        world.epochs.bump_peer(f.service).unwrap();
        world.leaves(&a, &packet).dropped(DropReason::ServiceBackendNotFound);
        unmark(world, f.service);
    });
}

#[test]
fn other_addresses_are_left_alone() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        serve(world, &f, 80);
        let packet = Packet::tcp((f.a, 1000), (f.b, 81), SYN);
        world.leaves(&a, &packet.bytes()).redirected().packet(&packet.macs(b.host_mac, b.mac).ttl(63));
    });
}
