// SPDX-License-Identifier: Apache-2.0
//! A pod that is its own backend.

use std::net::{IpAddr, SocketAddr};

use abi::DropReason;
use abi::endpoint::flags::{EGRESS_ENFORCED, INGRESS_ENFORCED};
use abi::flow::proto;
use abi::lb::flags::CLUSTER_IP;
use abi::lb::{LOOPBACK_IPV4, LOOPBACK_IPV6};
use datapath::bpf::{Direction, Program};

use crate::masquerade::assert_quotes;
use crate::offer::{NODE_PORT, Offer};
use crate::packet::{Packet, SYN};
use crate::tunnel::{ip, socket};
use crate::world::{Family, World, families};

fn loopback(f: &Family) -> IpAddr {
    if f.a.is_ipv4() { LOOPBACK_IPV4 } else { LOOPBACK_IPV6 }.into()
}

#[test]
fn a_pod_that_is_its_own_backend_hears_itself_under_another_address() {
    World::test_families(|world, f| {
        let a = world.a;
        // Whatever its policy says of itself.
        world.set_pod(&a, INGRESS_ENFORCED | EGRESS_ENFORCED);
        for (to, kind) in [((f.service, 80), CLUSTER_IP), ((f.node, 30080), NODE_PORT)] {
            world.clear_flows();
            Offer::new(to, proto::TCP, kind, &[(f.a, 8080)]).install(world);
            let request = Packet::tcp((f.a, 40001), to, SYN);
            let seen = request.clone().from((loopback(&f), 40001)).to((f.a, 8080));
            let answer = request.clone().reply().macs(a.host_mac, a.mac).ttl(63);
            for _ in 0..2 {
                let run = world.leaves(&a, &request.bytes());
                run.redirected().packet(&seen.clone().macs(a.host_mac, a.mac).ttl(63));
                world.leaves(&a, &seen.reply().bytes()).redirected().packet(&answer);
                world.epochs.bump_node().unwrap();
            }
            let error = Packet::too_big(f.a, loopback(&f), &seen);
            let run = world.leaves(&a, &error.bytes());
            run.redirected();
            assert_quotes(&run.frame, &Packet::too_big(to.0, f.a, &request).macs(a.host_mac, a.mac).ttl(63));
        }
    });
}

#[test]
fn two_connections_of_a_pod_to_itself_stay_apart() {
    World::test_families(|world, f| {
        let a = world.a;
        let offers = [(f.service, 80), (f.service, 81)];
        for (id, to) in (5..).zip(offers) {
            Offer::new(to, proto::UDP, CLUSTER_IP, &[(f.a, 8080)]).id(id).install(world);
        }
        let ports = offers.map(|to| {
            let run = world.leaves(&a, &Packet::udp((f.a, 40001), to).bytes());
            crate::packet::source_port(&run.redirected().frame)
        });
        assert_ne!(ports[0], ports[1]);
        for (to, port) in offers.into_iter().zip(ports) {
            let run = world.leaves(&a, &Packet::udp((f.a, 8080), (loopback(&f), port)).bytes());
            run.redirected().packet(&Packet::udp(to, (f.a, 40001)).macs(a.host_mac, a.mac).ttl(63));
        }
        // Nobody else is spoken to by that address.
        let b = world.b;
        let run = world.leaves(&b, &Packet::udp((f.b, 8080), (loopback(&f), ports[0])).bytes());
        assert!(run.verdict != 7 || run.frame[..6] != a.mac, "{run:?}");
        let forged = Packet::udp((loopback(&f), 40001), (f.b, 8080));
        world.leaves(&a, &forged.bytes()).dropped(DropReason::InvalidSourceIp);
    });
}

/// With sockets of a pod, and its own routes.
#[test]
fn a_pods_own_server_answers_it_by_the_name_of_its_service() {
    for f in families() {
        World::test(move |world| {
            let a = world.a;
            world.datapath.attach_tc(Program::PodEgress, a.ifindex, Direction::Ingress, "a").unwrap();
            let (full, all, nodad) = if f.a.is_ipv4() { (32, "0.0.0.0/0", "") } else { (128, "::/0", "nodad") };
            ip(&world.pods[0], &format!("addr add {}/{full} dev a {nodad}\nroute add {all} dev a src {}", f.a, f.a));
            let [server, client] = [(); 2].map(|()| socket(&world.pods[0], f.a));
            let at = (f.service, 80);
            Offer::new(at, proto::UDP, CLUSTER_IP, &[(f.a, server.local_addr().unwrap().port())]).install(world);
            for _ in 0..3 {
                client.send_to(b"question", at).unwrap();
                let (_, from) = server.recv_from(&mut [0; 16]).expect("nothing arrived");
                server.send_to(b"answer", from).unwrap();
                let (len, from) = client.recv_from(&mut [0; 16]).expect("no answer");
                assert_eq!((len, from), (6, SocketAddr::from(at)));
            }
        });
    }
}
