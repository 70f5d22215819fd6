// SPDX-License-Identifier: Apache-2.0
//! Direct server return at the backend's node, by whichever way another node tells of the frontend: whose word it takes, and as whom it
//! answers.

use std::net::IpAddr;

use abi::config::ProgramConfig;
use abi::endpoint::flags::INGRESS_ENFORCED;
use abi::flow::{flags, proto};
use abi::lb::flags::{CLUSTER_IP, DENY_RANGES, DSR, LOCAL_ONLY, MEMBERS, SOURCE_RANGES};
use abi::policy::INGRESS;
use abi::tuple::Tuple;
use abi::{DropReason, identity};
use datapath::bpf::{Place, Program};

use crate::direct::{frontends, requests, telling};
use crate::ipip::{inside, routed};
use crate::masquerade::assert_quotes;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed_with};
use crate::packet::{ACK, FIN, Packet, SYN, octets};
use crate::returned::served;
use crate::world::{Family, World, tuple};

const STALE: DropReason = DropReason::StaleOrUnroutableIp;

/// How the node that was asked tells by which frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// In an option of the packet that it sends to the backend.
    Option,
    /// By the packet itself, which is inside of the one to the backend.
    Inside,
}

impl Told {
    /// What the other node makes of a client's packet to the frontend.
    fn arrival(self, f: &Family, asked: &Packet, frontend: (IpAddr, u16), backend: (IpAddr, u16)) -> Packet {
        match self {
            Self::Option => telling(asked.clone().to(backend), frontend),
            Self::Inside => inside(f.node2, backend.0, asked),
        }
    }

    /// The ends of the record: its client's, or those that its packets have on their way.
    fn opening(self, f: &Family, frontend: (IpAddr, u16), proto: u8) -> Tuple {
        tuple((f.world, 40001), if self == Self::Option { (f.b, 8080) } else { frontend }, proto)
    }

    /// Backends of which none is B at its port, as far as it tells.
    fn strangers(self, f: &Family) -> [(IpAddr, u16); 2] {
        [(f.a, 8080), if self == Self::Option { (f.b, 8081) } else { (f.remote, 8080) }]
    }
}

/// Runs the test for each family and either way.
fn told(test: impl Fn(&mut World, Family, Told) + Clone + Send + 'static) {
    for (told, direct_ipip) in [(Told::Option, 0), (Told::Inside, 1)] {
        let test = test.clone();
        exposed_with(
            move |config| ProgramConfig { direct_ipip, ..routed(config) },
            move |world, f| test(world, f, told),
        );
    }
}

#[test]
fn a_backend_answers_as_the_frontend_that_its_client_has_asked() {
    told(|world, f, told| {
        let b = world.b;
        for (to, kind) in frontends(&f) {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                served(world, &f, proto, to, kind);
                let seen = request.clone().to((f.b, 8080));
                for _decided_and_known in 0..2 {
                    let arrived = told.arrival(&f, &request, to, (f.b, 8080)).bytes();
                    world.arrives(&arrived).redirected().packet(&seen.clone().macs(b.host_mac, b.mac).ttl(63));
                    let answer = seen.reply();
                    world.leaves(&b, &answer.bytes()).redirected().packet(&answer.from(to).ttl(63));
                }
                let flow = world.flow(&told.opening(&f, to, proto)).unwrap();
                assert_eq!((flow.service, flow.backend, flow.forward.packets, flow.reply.packets), (5, 80, 2, 2));
                let direct = told == Told::Option;
                assert_eq!((flow.has(flags::DIRECT), world.aliases()), (direct, usize::from(!direct)));
                assert_eq!(world.flows().len(), 1, "one record, found at once");
            }
        }
    });
}

/// A port of a node is one of any node's, and this one has its own under the address that stands for all.
#[test]
fn the_port_of_another_node_is_a_frontend() {
    told(|world, f, told| {
        let b = world.b;
        let any: IpAddr = if f.a.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        served(world, &f, proto::UDP, (any, 30080), NODE_PORT | DSR);
        served(world, &f, proto::UDP, (any, 8000), NODE_PORT | DSR);
        let arrival = |to| told.arrival(&f, &Packet::udp((f.world, 40001), to), to, (f.b, 8080)).bytes();
        let answer = Packet::udp((f.b, 8080), (f.world, 40001));
        for _ in 0..2 {
            world.arrives(&arrival((f.node2, 30080))).redirected();
            for _ in 0..2 {
                let seen = answer.clone().from((f.node2, 30080)).ttl(63);
                world.leaves(&b, &answer.bytes()).redirected().packet(&seen);
                world.epochs.bump_node().unwrap();
            }
        }
        let flow = world.flows()[0].1;
        assert_eq!((world.flows().len(), flow.forward.packets, flow.reply.packets), (1, 2, 4));
        // Neither beyond the range, nor at an address that is no node's.
        world.clear_flows();
        for to in [(f.node2, 8000), (f.world, 30080), (f.stranger, 30080)] {
            world.arrives(&arrival(to)).dropped(STALE);
        }
    });
}

#[test]
fn nobody_makes_a_backend_answer_as_anyone_else() {
    told(|world, f, told| {
        let to = (f.service, 80);
        for (proto, request) in requests(&f, to) {
            let arrived = told.arrival(&f, &request, to, (f.b, 8080)).bytes();
            // No frontend at all, another backend's, another port of one.
            world.arrives(&arrived).dropped(STALE);
            let other = Offer::new(to, proto, LOAD_BALANCER | DSR, &told.strangers(&f));
            other.install(world);
            world.arrives(&arrived).dropped(STALE);
            let asked = (f.service, 81);
            world.arrives(&told.arrival(&f, &request.clone().to(asked), asked, (f.b, 8080)).bytes()).dropped(STALE);
            other.remove(world);
            for (kind, reason) in [
                (LOAD_BALANCER, STALE),
                (LOAD_BALANCER | DSR | LOCAL_ONLY, STALE),
                (CLUSTER_IP | DSR, DropReason::IsAClusterip),
                (LOAD_BALANCER | DSR | SOURCE_RANGES, DropReason::DeniedByLbSrcRangeCheck),
                // It is said to be a member, and is none.
                (LOAD_BALANCER | DSR | MEMBERS, STALE),
            ] {
                served(world, &f, proto, to, kind);
                world.arrives(&arrived).dropped(reason);
            }
            for kind in [LOAD_BALANCER | DSR, LOAD_BALANCER | DSR | SOURCE_RANGES | DENY_RANGES] {
                let offer = served(world, &f, proto, to, kind);
                world.arrives(&arrived).redirected();
                world.clear_flows();
                offer.remove(world);
            }
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn policy_of_the_backend_is_asked_about_the_client() {
    told(|world, f, told| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::TCP, to, LOAD_BALANCER | DSR);
        world.set_pod(&b, INGRESS_ENFORCED);
        let request = Packet::tcp((f.world, 40001), to, SYN);
        let arrived = told.arrival(&f, &request, to, (f.b, 8080)).bytes();
        let event = world.arrives(&arrived).dropped(DropReason::PolicyDenied);
        assert_eq!((event.src_identity, event.dst_orig), (identity::WORLD, f.service.into()));
        world.add_rule((&b, INGRESS), identity::WORLD, (proto::TCP, 8080), false);
        world.epochs.bump_endpoint(b.id).unwrap();
        let event = world.arrives(&arrived).redirected().told();
        assert_eq!((event.dst, event.dst_orig), (f.b.into(), f.service.into()));
        let farewell = Packet::tcp((f.b, 8080), (f.world, 40001), FIN | ACK);
        let event = world.leaves(&b, &farewell.bytes()).redirected().told();
        assert_eq!((event.src, event.src_xlated), (f.b.into(), f.service.into()));
        world.add_rule((&b, INGRESS), identity::WORLD, (proto::TCP, 8080), true);
        world.epochs.bump_endpoint(b.id).unwrap();
        world.arrives(&arrived).dropped(DropReason::PolicyDeny);
        world.leaves(&b, &farewell.bytes()).dropped(DropReason::PolicyDeny);
    });
}

#[test]
fn a_client_that_has_a_name_inside_is_forged() {
    told(|world, f, told| {
        let to = (f.service, 80);
        served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
        for forged in [f.a, f.b, f.node] {
            let arrived = told.arrival(&f, &Packet::udp((forged, 40001), to), to, (f.b, 8080));
            world.arrives(&arrived.bytes()).dropped(DropReason::InvalidSourceIp);
        }
        assert!(world.flows().is_empty());
    });
}

#[test]
fn what_the_node_itself_serves_leaves_as_the_frontends() {
    told(|world, f, told| {
        for (to, kind) in frontends(&f) {
            for (proto, request) in requests(&f, to) {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.node, 8080)]).install(world);
                let seen = request.clone().to((f.node, 8080));
                let answer = seen.reply();
                let out = Place { ifindex: world.eth0, ..Place::default() };
                for _ in 0..2 {
                    let arrived = told.arrival(&f, &request, to, (f.node, 8080));
                    world.arrives(&arrived.bytes()).passed().packet(&seen);
                    let run = world.run_at(Program::NetdevEgress, out, &answer.bytes());
                    run.passed().packet(&answer.clone().from(to));
                    world.epochs.bump_node().unwrap();
                }
                let error = Packet::too_big(f.node, f.world, &seen);
                let run = world.run_at(Program::NetdevEgress, out, &error.bytes());
                run.passed();
                assert_quotes(&run.frame, &Packet::too_big(to.0, f.world, &request));
            }
        }
    });
}

#[test]
fn a_datagram_in_fragments_is_one_of_its_flow() {
    told(|world, f, told| {
        let b = world.b;
        let to = (f.service, 80);
        served(world, &f, proto::UDP, to, LOAD_BALANCER | DSR);
        let whole = Packet::udp((f.world, 40001), to).payload(&[9; 64]);
        let parts = whole.split(7, 3).into_iter().zip(whole.clone().to((f.b, 8080)).split(7, 3));
        for (part, seen) in parts {
            // Only the first names ports.
            let arrived = match told {
                Told::Option => telling(seen.clone(), to),
                Told::Inside => inside(f.node2, f.b, &part),
            };
            world.arrives(&arrived.bytes()).redirected().packet(&seen.macs(b.host_mac, b.mac).ttl(63));
        }
        assert_eq!((world.flows().len(), world.flows()[0].1.forward.packets), (1, 2));
        for part in Packet::udp((f.b, 8080), (f.world, 40001)).payload(&[9; 64]).split(8, 3) {
            let run = world.leaves(&b, &part.bytes());
            let source = if f.a.is_ipv4() { 12..16 } else { 8..24 };
            assert_eq!(run.redirected().frame[14..][source], octets(f.service));
        }
    });
}
