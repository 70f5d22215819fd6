// SPDX-License-Identifier: Apache-2.0
//! Direct server return by an option, at the backend's node: how its flows go on, and with which of the frontends.

use abi::DropReason;
use abi::flow::proto;
use abi::lb::SlotKey;
use abi::lb::flags::{DSR, MEMBERS};
use abi::maps::{Backends, Slots};
use datapath::Kernel;
use std::net::IpAddr;

use crate::direct::{direct, requests, telling};
use crate::masquerade::assert_quotes;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer};
use crate::packet::{ACK, FIN, Packet, SYN};
use crate::world::{Family, World};

/// A pod of this node as the service's backend.
pub(crate) fn served(world: &World, f: &Family, proto: u8, to: (IpAddr, u16), kind: u32) -> Offer {
    let offer = Offer::new(to, proto, kind, &[(f.b, 8080)]);
    offer.install(world);
    offer
}

#[test]
fn a_connection_goes_on_with_segments_that_tell_nothing() {
    direct(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        let ends = ((f.world, 40001), (f.b, 8080));
        let syn = Packet::tcp(ends.0, ends.1, SYN);
        world.arrives(&telling(syn.clone(), to).bytes()).redirected();
        world.leaves(&b, &syn.reply().bytes()).redirected();
        for flags in [ACK, ACK, ACK | FIN] {
            let segment = Packet::tcp(ends.0, ends.1, flags);
            let seen = segment.clone().macs(b.host_mac, b.mac).ttl(63);
            world.arrives(&segment.bytes()).redirected().packet(&seen);
            let answer = Packet::tcp(ends.1, ends.0, ACK);
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
            world.epochs.bump_node().unwrap();
        }
        assert_eq!(world.flows()[0].1.forward.packets, 4);
    });
}

/// What is told is not for us where the packet is for nobody here, and gone where it is.
#[test]
fn what_is_for_nobody_here_is_left_as_it_is() {
    direct(|world, f| {
        let arrived = telling(Packet::udp((f.world, 40001), (f.remote, 8080)), (f.service, 80));
        world.arrives(&arrived.bytes()).ignored().packet(&arrived);
    });
}

#[test]
fn errors_name_the_frontend_to_the_client_and_the_backend_to_itself() {
    direct(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
        let request = Packet::udp((f.world, 40001), (f.b, 8080));
        world.arrives(&telling(request.clone(), to).bytes()).redirected();
        let router: IpAddr = if f.a.is_ipv4() { "198.51.100.1" } else { "2001:db8:ffff::1" }.parse().unwrap();
        for _ in 0..2 {
            let run = world.leaves(&b, &Packet::too_big(f.b, f.world, &request).bytes());
            run.redirected();
            assert_quotes(&run.frame, &Packet::too_big(f.service, f.world, &request.clone().to(to)).ttl(63));
            let error = Packet::too_big(router, f.b, &request.reply());
            let run = world.arrives(&error.bytes());
            run.redirected().packet(&error.macs(b.host_mac, b.mac).ttl(63));
            world.epochs.bump_node().unwrap();
        }
    });
}

/// Members of a service come and go.
#[test]
fn a_connection_outlives_its_backends_membership_and_a_datagram_does_not() {
    direct(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        for (proto, _) in requests(&f, to).into_iter().take(2) {
            world.clear_flows();
            let offer = Offer::new(to, proto, LOAD_BALANCER | DSR | MEMBERS, &[(f.b, 8080)]);
            offer.install(world);
            let member = SlotKey::member(offer.service.id, offer.backend(0));
            let slots = world.datapath.map::<Slots>().unwrap();
            world.put(slots.clone(), &member, &offer.backend(0));
            let packet = |flags| match proto {
                proto::TCP => Packet::tcp((f.world, 40001), (f.b, 8080), flags),
                _ => Packet::udp((f.world, 40001), (f.b, 8080)),
            };
            world.arrives(&telling(packet(SYN), to).bytes()).redirected();
            world.leaves(&b, &packet(SYN).reply().bytes()).redirected();
            world.arrives(&packet(ACK).bytes()).redirected();
            slots.remove(&member).unwrap();
            world.datapath.map::<Backends>().unwrap().remove(&offer.backend(0)).unwrap();
            world.epochs.bump_peer(f.b).unwrap();
            let answer = packet(ACK).reply();
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
            if proto == proto::TCP {
                world.arrives(&packet(ACK).bytes()).redirected();
                let another = Packet::tcp((f.world, 40002), (f.b, 8080), SYN);
                world.arrives(&telling(another, to).bytes()).dropped(DropReason::StaleOrUnroutableIp);
            } else {
                world.arrives(&telling(packet(0), to).bytes()).dropped(DropReason::StaleOrUnroutableIp);
            }
        }
    });
}

/// Their packets have the same ends here, and their clients expect different ones.
#[test]
fn two_frontends_do_not_share_a_port_of_a_client() {
    direct(|world, f| {
        let b = world.b;
        for proto in [proto::TCP, proto::UDP] {
            world.clear_flows();
            served(world, &f, proto, (f.service, 80), LOAD_BALANCER | DSR);
            served(world, &f, proto, (f.node, 30080), NODE_PORT | DSR);
            let packet = |flags| match proto {
                proto::TCP => Packet::tcp((f.world, 40001), (f.b, 8080), flags),
                _ => Packet::udp((f.world, 40001), (f.b, 8080)),
            };
            let one = telling(packet(SYN), (f.service, 80)).bytes();
            let other = telling(packet(SYN), (f.node, 30080)).bytes();
            // One that nobody has answered makes way.
            for frame in [&one, &other, &one] {
                world.arrives(frame).redirected();
            }
            let answer = packet(SYN).reply();
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from((f.service, 80)).ttl(63));
            world.arrives(&packet(ACK).bytes()).redirected();
            world.arrives(&other).dropped(DropReason::NoMappingForNatMasquerade);
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.from((f.service, 80)).ttl(63));
        }
    });
}

/// The client's packets come by another node first, then here at once, and by the other node again, as routes and announcements change.
#[test]
fn a_connection_goes_on_when_the_node_that_is_asked_changes() {
    direct(|world, f| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        let sent = |flags| Packet::tcp((f.world, 40001), to, flags);
        let seen = |flags| sent(flags).to((f.b, 8080));
        let delivered = seen(ACK).macs(b.host_mac, b.mac).ttl(63);
        let answer = Packet::tcp((f.b, 8080), (f.world, 40001), ACK);
        let answers = |world: &mut World| {
            world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
        };
        world.arrives(&telling(seen(SYN), to).bytes()).redirected();
        world.leaves(&b, &seen(SYN).reply().bytes()).redirected();
        for tells in [false, true] {
            world.arrives(&seen(ACK).bytes()).redirected().packet(&delivered);
            answers(world);
            world.arrives(&sent(ACK).bytes()).redirected().packet(&delivered);
            answers(world);
            assert_eq!((world.flows().len(), world.aliases()), (1, 1));
            let back = if tells { telling(seen(ACK), to) } else { seen(ACK) };
            world.arrives(&back.bytes()).redirected().packet(&delivered);
            answers(world);
            assert_eq!((world.flows().len(), world.aliases()), (1, 0));
        }
    });
}

#[test]
fn a_flow_of_another_frontend_is_not_recalled() {
    direct(|world, f| {
        let (a, b) = (world.a, world.b);
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        served(world, &f, proto::TCP, (f.node, 30080), NODE_PORT | DSR);
        world.arrives(&Packet::tcp((f.world, 40001), to, SYN).bytes()).redirected();
        let answer = Packet::tcp((f.b, 8080), (f.world, 40001), SYN | ACK);
        world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
        let segment = Packet::tcp((f.world, 40001), (f.b, 8080), ACK);
        let other = telling(segment.clone(), (f.node, 30080));
        world.arrives(&other.bytes()).dropped(DropReason::NoMappingForNatMasquerade);
        world.leaves(&b, &answer.bytes()).redirected().packet(&answer.clone().from(to).ttl(63));
        // What one pod has to do with the client is nothing to another.
        let elsewhere = Packet::tcp((f.world, 40001), (f.a, 8080), ACK);
        world.arrives(&elsewhere.bytes()).redirected().packet(&elsewhere.macs(a.host_mac, a.mac).ttl(63));
    });
}

/// It may be another node's by now, and this one is no router of its packets.
#[test]
fn what_is_for_a_backend_that_has_gone_is_left_as_it_is() {
    direct(|world, f| {
        let to = (f.service, 80);
        for (proto, request) in requests(&f, (f.b, 8080)) {
            world.clear_flows();
            served(world, &f, proto, to, LOAD_BALANCER | DSR);
            world.arrives(&telling(request.clone(), to).bytes()).redirected();
            world.remove_local(f.b);
            world.epochs.bump_peer(f.b).unwrap();
            world.arrives(&request.bytes()).ignored().packet(&request);
            let b = world.b;
            world.set_pod(&b, 0);
        }
    });
}
