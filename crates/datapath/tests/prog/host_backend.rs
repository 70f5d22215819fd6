// SPDX-License-Identifier: Apache-2.0
//! A backend that is a program of this node, on the network of the node.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use abi::flow::proto;
use abi::lb::flags::LOCAL_ONLY;
use datapath::bpf::{Direction, Place, Program};
use datapath::netns;

use crate::masquerade::assert_quotes;
use crate::offer::{LOAD_BALANCER, NODE_PORT, Offer, exposed};
use crate::packet::{Packet, SYN};
use crate::run::Run;
use crate::tunnel::{ip, socket};
use crate::world::{World, full, tuple};

/// The node's own programs send something out.
fn departs(world: &mut World, frame: &[u8]) -> Run {
    let ifindex = world.eth0;
    world.run_at(Program::NetdevEgress, Place { ifindex, ..Place::default() }, frame)
}

#[test]
fn what_the_node_answers_to_a_client_goes_out_under_the_services_name() {
    exposed(|world, f| {
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER | LOCAL_ONLY)] {
            for (proto, request) in
                [(proto::TCP, Packet::tcp((f.world, 40001), to, SYN)), (proto::UDP, Packet::udp((f.world, 40001), to))]
            {
                world.clear_flows();
                Offer::new(to, proto, kind, &[(f.node, 8080)]).install(world);
                let seen = request.clone().to((f.node, 8080));
                let answer = seen.reply();
                for _ in 0..2 {
                    world.arrives(&request.bytes()).passed().packet(&seen);
                    departs(world, &answer.bytes()).passed().packet(&answer.clone().from(to));
                    world.epochs.bump_node().unwrap();
                }
                // Its decision is an old one, and no other says whose answer it is.
                departs(world, &answer.bytes()).passed().packet(&answer.clone().from(to));
                let flow = world.flow(&tuple((f.world, 40001), to, proto)).unwrap();
                assert_eq!((flow.forward.packets, flow.reply.packets), (2, 3));
                // What is forwarded has its ends already.
                let place = Place { ifindex: world.eth0, arrived_by: world.a.ifindex, ..Place::default() };
                world.run_at(Program::NetdevEgress, place, &answer.bytes()).ignored().packet(&answer);
                let another = answer.clone().to((f.world, 40002));
                departs(world, &another.bytes()).ignored().packet(&another);
            }
        }
    });
}

#[test]
fn what_the_node_says_about_a_request_is_about_the_service() {
    exposed(|world, f| {
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            world.clear_flows();
            Offer::new(to, proto::UDP, kind, &[(f.node, 8080)]).install(world);
            let request = Packet::udp((f.world, 40001), to);
            world.arrives(&request.bytes()).passed();
            let seen = request.clone().to((f.node, 8080));
            for _ in 0..2 {
                let run = departs(world, &Packet::too_big(f.node, f.world, &seen).bytes());
                run.passed();
                assert_quotes(&run.frame, &Packet::too_big(to.0, f.world, &request));
                world.epochs.bump_node().unwrap();
            }
            // About what no service was asked for, and what is forwarded.
            let other = Packet::too_big(f.node, f.world, &seen.clone().from((f.world, 40002)));
            departs(world, &other.bytes()).ignored().packet(&other);
            let place = Place { ifindex: world.eth0, arrived_by: world.a.ifindex, ..Place::default() };
            let forwarded = Packet::too_big(f.node, f.world, &seen);
            world.run_at(Program::NetdevEgress, place, &forwarded.bytes()).ignored().packet(&forwarded);
        }
    });
}

#[test]
fn a_client_is_told_that_the_program_behind_a_service_listens_no_more() {
    exposed(|world, f| {
        world.datapath.attach_tc(Program::NetdevIngress, world.eth0, Direction::Ingress, "in").unwrap();
        world.datapath.attach_tc(Program::NetdevEgress, world.eth0, Direction::Egress, "out").unwrap();
        ip(&world.node2, &format!("route replace {}/{} via {}", f.service, full(f.service), f.node));
        let closed = UdpSocket::bind((f.node, 0)).unwrap().local_addr().unwrap();
        Offer::new((f.service, 80), proto::UDP, LOAD_BALANCER, &[(closed.ip(), closed.port())]).install(world);
        let client = socket(&world.node2, f.node2);
        client.connect((f.service, 80)).unwrap();
        client.send(b"question").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        for pin in ["in", "out"] {
            assert!(world.datapath.detach(pin).unwrap());
        }
    });
}

#[test]
fn a_client_speaks_to_a_program_of_the_node_by_its_services() {
    exposed(|world, f| {
        world.datapath.attach_tc(Program::NetdevIngress, world.eth0, Direction::Ingress, "in").unwrap();
        world.datapath.attach_tc(Program::NetdevEgress, world.eth0, Direction::Egress, "out").unwrap();
        ip(&world.node2, &format!("route replace {}/{} via {}", f.service, full(f.service), f.node));
        let listener = TcpListener::bind((f.node, 0)).unwrap();
        let server = UdpSocket::bind((f.node, 0)).unwrap();
        for (to, kind) in [((f.node, 30080), NODE_PORT), ((f.service, 80), LOAD_BALANCER)] {
            let at = SocketAddr::from(to);
            let backend = |at: SocketAddr| -> [(IpAddr, u16); 1] { [(at.ip(), at.port())] };
            Offer::new(to, proto::TCP, kind, &backend(listener.local_addr().unwrap())).install(world);
            Offer::new(to, proto::UDP, kind, &backend(server.local_addr().unwrap())).id(6).install(world);
            let mut client = netns::run(world.node2.as_fd(), || TcpStream::connect(at).unwrap()).unwrap();
            let (mut accepted, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), f.node2, "it sees its client");
            accepted.write_all(b"hello").unwrap();
            let mut text = [0; 5];
            client.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"hello");
            let client = socket(&world.node2, f.node2);
            client.send_to(b"question", at).unwrap();
            let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
            server.send_to(b"answer", from).unwrap();
            assert_eq!(client.recv_from(&mut [0; 16]).expect("no answer"), (6, at));
        }
        for pin in ["in", "out"] {
            assert!(world.datapath.detach(pin).unwrap());
        }
    });
}
