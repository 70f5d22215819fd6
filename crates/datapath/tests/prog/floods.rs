// SPDX-License-Identifier: Apache-2.0
//! What somebody off the path can do to connections of others, and to the tables that they are kept in.

use std::net::IpAddr;

use abi::config::ProgramConfig;
use abi::flow::{Flow, State, proto};
use abi::lb::spread;
use abi::policy::{EGRESS, INGRESS};
use abi::{DropReason, limit};
use datapath::bpf::Options;

use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed, exposed_with};
use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::world::{Family, World, families, tuple};

/// Numbers that each end begins its segments with.
const CLIENTS: u32 = 5000;
const SERVERS: u32 = u32::MAX - 2;

fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    Packet::tcp(from, to, flags).numbers(numbers.0, numbers.1).bytes()
}

fn state(world: &World, from: (IpAddr, u16), to: (IpAddr, u16)) -> State {
    world.flow(&tuple(from, to, proto::TCP)).expect("it is forgotten").state(proto::TCP)
}

/// A connects to B.
fn connect(world: &mut World, f: Family) -> Flow {
    let (a, b) = (world.a, world.b);
    let (client, server) = ((f.a, 40001), (f.b, 80));
    world.leaves(&a, &segment(client, server, SYN, (CLIENTS, 0))).redirected();
    world.leaves(&b, &segment(server, client, SYN | ACK, (SERVERS, CLIENTS + 1))).redirected();
    world.leaves(&a, &segment(client, server, ACK, (CLIENTS + 1, SERVERS.wrapping_add(1)))).redirected();
    world.flow(&tuple(client, server, proto::TCP)).unwrap()
}

#[test]
fn a_connection_stands_when_its_opener_acknowledges_what_it_was_answered() {
    exposed(|world, f| {
        let b = world.b;
        let (client, to, backend) = ((f.world, 40001), (f.node, 30080), (f.b, 8080));
        Offer::new(to, proto::TCP, NODE_PORT, &[backend]).install(world);
        world.arrives(&segment(client, to, SYN, (CLIENTS, 0))).redirected();
        // Before it is answered nobody can.
        world.arrives(&segment(client, to, ACK, (CLIENTS + 1, SERVERS.wrapping_add(1)))).redirected();
        world.leaves(&b, &segment(backend, client, SYN | ACK, (SERVERS, CLIENTS + 1))).redirected();
        let forged = [
            (0, SERVERS.wrapping_add(1)),
            (SYN, SERVERS.wrapping_add(1)),
            (RST | ACK, SERVERS.wrapping_add(1)),
            (ACK, SERVERS),
            (ACK, SERVERS.wrapping_sub(1 << 16)),
            (ACK, SERVERS.wrapping_add(1 << 16)),
            (ACK, 0x4000_0000),
        ];
        for (flags, acknowledged) in forged {
            world.arrives(&segment(client, to, flags, (CLIENTS + 1, acknowledged))).redirected();
            assert_ne!(state(world, client, to), State::Established, "flags {flags:x}, {acknowledged}");
            world.epochs.bump_node().unwrap();
        }
        world.arrives(&segment(client, to, ACK, (CLIENTS + 1, SERVERS.wrapping_add(1)))).redirected();
        assert_eq!(state(world, client, to), State::Established);
    });
}

/// The answer was not seen here, or by an older build.
#[test]
fn a_connection_that_is_seen_from_its_middle_stands_when_both_ends_go_on() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (client, server) = ((f.a, 40001), (f.b, 80));
        world.leaves(&a, &segment(client, server, ACK, (CLIENTS, 77))).redirected();
        world.leaves(&b, &segment(server, client, ACK, (77, CLIENTS))).redirected();
        assert_eq!(state(world, client, server), State::Opening);
        world.leaves(&a, &segment(client, server, ACK, (CLIENTS, 78))).redirected();
        assert_eq!(state(world, client, server), State::Established);
    });
}

#[test]
fn a_flood_of_one_service_costs_another_none_of_its_own() {
    exposed(|world, f| {
        let (flooded, other) = ((f.node, 30080), (f.node, 30081));
        Offer::new(flooded, proto::TCP, NODE_PORT, &[(f.b, 8080)]).install(world);
        Offer::new(other, proto::TCP, NODE_PORT, &[(f.b, 8080)]).id(6).install(world);
        let client = (f.world, 40001);
        world.arrives(&segment(client, other, SYN, (CLIENTS, 0))).redirected();
        let a = world.a;
        world.leaves(&a, &segment((f.a, 40001), (f.b, 443), SYN, (CLIENTS, 0))).redirected();
        let places = world.datapath.config().openings;
        for port in 0..2 * places as u16 {
            world.arrives(&segment((f.stranger, 10_000 + port), flooded, SYN, (CLIENTS, 0))).redirected();
        }
        assert_eq!(state(world, client, other), State::Opening);
        assert_eq!(state(world, (f.a, 40001), (f.b, 443)), State::Opening);
        assert_eq!(world.flows().len(), places as usize + 2, "of the flood so many are left");
    });
}

/// What a flood has displaced goes on where it began.
#[test]
fn a_connection_that_is_forgotten_while_it_is_opened_finds_its_backend_again() {
    exposed(|world, f| {
        let to = (f.node, 30080);
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.a, 8080), (f.b, 8080)]).install(world);
        for client in (0..16).map(|port| (f.world, 40001 + port)) {
            world.arrives(&segment(client, to, SYN, (CLIENTS, 0))).redirected();
            let chosen = world.flow(&tuple(client, to, proto::TCP)).unwrap().nat_dst;
            world.clear_flows();
            world.arrives(&segment(client, to, ACK, (CLIENTS + 1, 78))).redirected();
            assert_eq!(world.flow(&tuple(client, to, proto::TCP)).unwrap().nat_dst, chosen);
        }
    });
}

/// Its segments pretend to complete what they have opened; or its aim resets them.
#[test]
fn a_flood_from_outside_never_fills_the_table() {
    for refused in [false, true] {
        let config = ProgramConfig { expose_services: 1, ..ProgramConfig::default() };
        World::test_with(Options { config, flows: 256, ..Options::default() }, move |world| {
            let f = families()[0];
            let (a, b) = (world.a, world.b);
            connect(world, f);
            let (to, backend) = ((f.node, 30080), (f.b, 8080));
            Offer::new(to, proto::TCP, NODE_PORT, &[backend]).install(world);
            for client in (0..300).map(|port| (f.world, 10_000 + port)) {
                world.arrives(&segment(client, to, SYN, (CLIENTS, 0))).redirected();
                let flags = if refused { RST | ACK } else { SYN | ACK };
                world.leaves(&b, &segment(backend, client, flags, (SERVERS, CLIENTS + 1))).redirected();
                world.arrives(&segment(client, to, ACK, (CLIENTS + 1, 0x4000_0000))).redirected();
            }
            let established =
                world.flows().iter().filter(|(_, flow)| flow.state(proto::TCP) == State::Established).count();
            assert_eq!(established, 1);
            for port in 0..16 {
                world.leaves(&a, &segment((f.a, 2000 + port), (f.world, 443), SYN, (CLIENTS, 0))).redirected();
            }
            assert_eq!(state(world, (f.a, 40001), (f.b, 80)), State::Established);
        });
    }
}

#[test]
fn a_reset_shortens_a_connection_and_does_not_end_it() {
    World::test_families(|world, f| {
        let (a, b) = (world.a, world.b);
        let (client, server) = ((f.a, 40001), (f.b, 80));
        let flow = connect(world, f);
        world.leaves(&b, &segment(server, client, RST, (0, 0))).redirected();
        let reset = world.flow(&tuple(client, server, proto::TCP)).unwrap();
        let lifetimes = [flow, reset].map(|flow| flow.lifetime(proto::TCP));
        assert!(lifetimes[0] > lifetimes[1] && lifetimes[1] >= 600, "{lifetimes:?}");
        // What looks like another connection on its ports does not take its place either.
        world.leaves(&a, &segment(client, server, SYN, (CLIENTS, 0))).redirected();
        let now = world.flow(&tuple(client, server, proto::TCP)).unwrap();
        assert_eq!((now.forward.packets, now.created), (3, flow.created));
        world.leaves(&b, &segment(server, client, ACK, (SERVERS, CLIENTS))).redirected();
        assert_eq!(state(world, client, server), State::Established);
    });
}

#[test]
fn a_goodbye_and_a_greeting_in_a_clients_name_do_not_end_its_connection() {
    exposed(|world, f| {
        let (b, to) = (world.b, (f.node, 30080));
        Offer::new(to, proto::TCP, NODE_PORT, &[(f.b, 8080), (f.b, 8081)]).install(world);
        for client in (40_000..40_016).map(|port| (f.world, port)) {
            world.arrives(&segment(client, to, SYN, (CLIENTS, 0))).redirected();
            let opening = tuple(client, to, proto::TCP);
            let backend = (f.b, u16::from_be(world.flow(&opening).unwrap().nat_dport));
            world.leaves(&b, &segment(backend, client, SYN | ACK, (SERVERS, CLIENTS + 1))).redirected();
            let goes_on = segment(client, to, ACK, (CLIENTS + 1, SERVERS.wrapping_add(1)));
            world.arrives(&goes_on).redirected();
            world.arrives(&segment(client, to, FIN | ACK, (0, 0))).redirected();
            world.arrives(&segment(client, to, SYN, (0, 0))).redirected();
            assert_eq!(state(world, client, to), State::Established);
            let packet = Packet::tcp(client, to, ACK).numbers(CLIENTS + 1, SERVERS.wrapping_add(1));
            let seen = packet.clone().to(backend).macs(b.host_mac, b.mac).ttl(63);
            world.arrives(&packet.bytes()).redirected().packet(&seen);
            // Nor does the goodbye count that was not its own.
            world.leaves(&b, &segment(backend, client, FIN | ACK, (SERVERS, CLIENTS))).redirected();
            assert_eq!(state(world, client, to), State::Established);
        }
    });
}

#[test]
fn nobody_is_answered_more_often_than_the_limit_allows() {
    exposed_with(
        |config| ProgramConfig { reject_no_backend: 1, ..config },
        |world, f| {
            let a = world.a;
            Offer::new((f.service, 80), proto::UDP, LOAD_BALANCER, &[]).install(world);
            let ask = |world: &mut World, client: IpAddr| {
                let mut request = Packet::udp((client, 40001), (f.service, 80));
                request.set_payload(Vec::new());
                let from_pod = client == f.a;
                let run = if from_pod { world.leaves(&a, &request.bytes()) } else { world.arrives(&request.bytes()) };
                let (came, goes) = if from_pod { (EGRESS, INGRESS) } else { (INGRESS, EGRESS) };
                let refused = ((DropReason::ServiceBackendNotFound as u8, came), 1);
                let suppressed = ((DropReason::DropRateLimited as u8, goes), 1);
                if run.verdict == 7 {
                    assert_eq!(run.counters, [refused]);
                    return true;
                }
                let mut expected = vec![refused, suppressed];
                expected.sort_by_key(|((reason, direction), _)| abi::metrics::slot(*reason, *direction));
                assert_eq!((run.verdict, run.counters), (2, expected));
                false
            };
            for client in [f.world, f.a] {
                let answered = (0..10_000).take_while(|_| ask(world, client)).count();
                assert!((limit::PER_TICK as usize..10_000).contains(&answered), "{answered}");
            }
            assert_ne!(limit::slot(f.world.into(), false), limit::slot(f.stranger.into(), false));
            assert!(ask(world, f.stranger), "others are");
        },
    );
}

/// Who is outside chooses an address that has to do with that of the pod.
#[test]
fn a_flood_from_outside_leaves_a_pod_its_answers() {
    exposed_with(
        |config| ProgramConfig { reject_no_backend: 1, ..config },
        |world, f| {
            let a = world.a;
            Offer::new((f.service, 80), proto::UDP, LOAD_BALANCER, &[]).install(world);
            let request = |client| {
                let mut request = Packet::udp((client, 40001), (f.service, 80));
                request.set_payload(Vec::new());
                request.bytes()
            };
            let place = |ip: IpAddr| spread(ip.into()) % limit::SLOTS;
            let address = |n: u16| -> IpAddr {
                let [high, low] = n.to_be_bytes();
                if f.a.is_ipv4() { [198, 51, high, low].into() } else { [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, n].into() }
            };
            let neighbour = (1..u16::MAX).map(address).find(|ip| place(*ip) == place(f.a)).unwrap();
            assert!((0..10_000).any(|_| world.arrives(&request(neighbour)).verdict != 7));
            assert_eq!(world.leaves(&a, &request(f.a)).verdict, 7);
        },
    );
}

#[test]
fn what_is_addressed_to_another_machine_or_to_all_is_not_served() {
    exposed_with(
        |config| ProgramConfig { tunnel: 0, direct_tunnel: 0, ..config },
        |world, f| {
            let to = (f.node, 30080);
            Offer::new(to, proto::UDP, NODE_PORT, &[(f.b, 8080)]).install(world);
            let router = [2, 0, 0, 0, 0xff, 1];
            for mac in [[2, 0, 0, 0, 0xff, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
                let requests = [Packet::udp((f.world, 40001), to), Packet::udp((f.world, 40001), (f.b, 8080))]
                    .map(|p| p.macs(router, mac));
                for request in requests {
                    world.arrives(&request.bytes()).ignored().packet(&request);
                }
                let forged = Packet::udp((f.a, 40001), to).macs(router, mac);
                world.arrives(&forged.bytes()).dropped(DropReason::InvalidSourceIp);
            }
            assert!(world.flows().is_empty());
            world.arrives(&Packet::udp((f.world, 40001), to).bytes()).redirected();
        },
    );
}
