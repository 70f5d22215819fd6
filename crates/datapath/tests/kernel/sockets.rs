// SPDX-License-Identifier: Apache-2.0
//! Services at the socket: what a program of the node sees when it connects or sends to one.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use abi::config::ProgramConfig;
use abi::flow::proto;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, ReverseSockets, Services, Slots};
use datapath::Kernel;
use datapath::bpf::{Datapath, Features, Options, Program};

use crate::sandbox::{Cgroup, Sandbox};

/// Runs the test inside of a control group with the socket programs attached.
fn with_socket_programs(test: impl Fn(&Datapath, IpAddr, IpAddr) + Send + 'static) {
    with_socket_programs_of(ProgramConfig::default(), test);
}

/// The same with these constants.
fn with_socket_programs_of(config: ProgramConfig, test: impl Fn(&Datapath, IpAddr, IpAddr) + Send + 'static) {
    Sandbox::run(move |sandbox| {
        sandbox.loopback_up();
        let datapath = sandbox.load_with(Options { config, ..Options::default() });
        let cgroup = Cgroup::new("datapath-sockets");
        for program in Program::sockets() {
            datapath.attach_cgroup(program, cgroup.path(), &format!("sock_{}", program.name())).unwrap();
        }
        let _inside = cgroup.enter();
        test(&datapath, "127.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        test(&datapath, "::1".parse().unwrap(), "fd00:96::10".parse().unwrap());
    });
}

/// Makes a service with one backend, or none.
fn serve(datapath: &Datapath, proto: u8, service: SocketAddr, backend: Option<SocketAddr>) {
    let key =
        |at: SocketAddr| ServiceKey { addr: at.ip().into(), port: at.port().to_be(), proto, ..Default::default() };
    if let Some(at) = backend {
        let value = Backend { addr: at.ip().into(), port: at.port().to_be(), proto, ..Default::default() };
        datapath.map::<Backends>().unwrap().insert(&1, &value).unwrap();
        datapath.map::<Slots>().unwrap().insert(&SlotKey { service: 5, slot: 0 }, &1).unwrap();
    }
    let value = Service { id: 5, count: u32::from(backend.is_some()), ..Default::default() };
    datapath.map::<Services>().unwrap().insert(&key(service), &value).unwrap();
}

#[test]
fn a_connection_to_a_service_ends_at_its_backend_and_does_not_know() {
    with_socket_programs(|datapath, local, service| {
        let listener = TcpListener::bind((local, 0)).unwrap();
        let service = SocketAddr::new(service, 80);
        serve(datapath, proto::TCP, service, Some(listener.local_addr().unwrap()));
        let mut client = TcpStream::connect(service).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        server.read_exact(&mut text).unwrap();
        assert_eq!((&text, client.peer_addr().unwrap()), (b"hello", service));
    });
}

#[test]
fn a_datagram_to_a_service_is_answered_by_the_service() {
    with_socket_programs(|datapath, local, service| {
        let server = UdpSocket::bind((local, 0)).unwrap();
        let service = SocketAddr::new(service, 53);
        serve(datapath, proto::UDP, service, Some(server.local_addr().unwrap()));
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.send_to(b"question", service).unwrap();
        let mut text = [0; 16];
        let (_, from) = server.recv_from(&mut text).unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut text).unwrap(), (6, service));
        assert!(!datapath.map::<ReverseSockets>().unwrap().keys().unwrap().is_empty());
    });
}

#[test]
fn a_service_without_a_backend_refuses_at_once() {
    let refused = if Features::of_this_kernel().set_retval { libc::ECONNREFUSED } else { libc::EPERM };
    let on = ProgramConfig::default();
    for (config, expected) in [(on, refused), (ProgramConfig { set_retval: 0, ..on }, libc::EPERM)] {
        with_socket_programs_of(config, move |datapath, _, service| {
            let service = SocketAddr::new(service, 80);
            serve(datapath, proto::TCP, service, None);
            assert_eq!(TcpStream::connect(service).unwrap_err().raw_os_error(), Some(expected));
        });
    }
}

#[test]
fn what_is_no_service_is_left_alone() {
    with_socket_programs(|datapath, local, service| {
        let listener = TcpListener::bind((local, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        serve(datapath, proto::UDP, SocketAddr::new(local, at.port()), None);
        serve(datapath, proto::TCP, SocketAddr::new(service, at.port()), None);
        assert_eq!(TcpStream::connect(at).unwrap().peer_addr().unwrap(), at);
    });
}
