// SPDX-License-Identifier: Apache-2.0
//! What user space is told of sockets that were translated.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use abi::config::ProgramConfig;
use abi::event::{SocketEvent, kind, translation};
use abi::flow::proto;
use abi::identity;
use datapath::bpf::{Datapath, Options, Program};
use datapath::events::Reader;

use super::{answer, serve_datagrams, serve_streams};
use crate::events::{RECORD, drop_packets, move_to, processors};
use crate::sandbox::{Cgroup, Sandbox};

/// Sockets are told of, each time.
fn each_time() -> ProgramConfig {
    ProgramConfig { trace_sockets: 1, event_interval: 0, ..ProgramConfig::default() }
}

struct World {
    datapath: Datapath,
    reader: Reader,
    cgroup: u64,
}

impl World {
    /// What was told since the last call.
    fn told(&mut self) -> Vec<SocketEvent> {
        let mut told = Vec::new();
        while self.reader.read_present(|event| told.push(event.socket().unwrap())) > 0 {}
        told
    }
}

/// Runs the test for both families inside of a control group with the socket programs attached.
fn with_told(config: ProgramConfig, test: impl Fn(&mut World, IpAddr, IpAddr) + Send + 'static) {
    Sandbox::run(move |sandbox| {
        sandbox.loopback_up();
        let datapath = sandbox.load_with(Options { config, ..Options::default() });
        let cgroup = Cgroup::new("datapath-told");
        for program in Program::sockets() {
            datapath.attach_cgroup(program, cgroup.path(), &format!("told_{}", program.name())).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let reader = Reader::open(&sandbox.bpffs).unwrap();
        let mut world = World { datapath, reader, cgroup: cgroup.path().metadata().unwrap().ino() };
        let _inside = cgroup.enter();
        test(&mut world, "127.0.0.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        test(&mut world, "::1".parse().unwrap(), "fd00:96::10".parse().unwrap());
    });
}

/// The number of a socket.
#[allow(unsafe_code, reason = "nobody wraps this option")]
fn cookie(socket: &impl AsRawFd) -> u64 {
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as u32);
    let (value, size) = (std::ptr::from_mut(&mut cookie), std::ptr::from_mut(&mut len));
    // SAFETY: the option is a number of eight bytes, for which there is room.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, value.cast(), size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    cookie
}

#[test]
fn who_connects_and_who_asks_for_its_peer_is_told_of_with_both_names() {
    with_told(each_time(), |world, local, service| {
        let service = SocketAddr::new(service, 80);
        let listener = serve_streams(&world.datapath, local, service);
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(service).unwrap();
        let told = world.told();
        let expected = SocketEvent {
            time: told[0].time,
            dst: at.ip().into(),
            cookie: cookie(&client),
            cgroup: world.cgroup,
            dst_orig: service.ip().into(),
            dport: at.port().to_be(),
            dport_orig: 80_u16.to_be(),
            src_identity: identity::HOST,
            netns: datapath::netns::cookie(),
            kind: kind::TRACE_SOCK,
            point: translation::FORWARD,
            proto: proto::TCP,
            ..SocketEvent::default()
        };
        assert_eq!(told, [expected]);
        assert!(expected.time > 0 && expected.netns > 0 && expected.cgroup > 0);
        assert_eq!(client.peer_addr().unwrap(), service);
        let told = world.told();
        let sport = client.local_addr().unwrap().port().to_be();
        assert_eq!(told, [SocketEvent { time: told[0].time, sport, point: translation::REVERSE, ..expected }]);
    });
}

#[test]
fn what_is_sent_and_received_without_a_connection_is_told_of() {
    with_told(each_time(), |world, local, service| {
        let service = SocketAddr::new(service, 53);
        let server = serve_datagrams(&world.datapath, local, service);
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.send_to(b"question", service).unwrap();
        assert_eq!(answer(&server, &client), service);
        let told = world.told();
        let shape = |event: &SocketEvent| {
            let [port, frontend] = [event.dport, event.dport_orig].map(u16::from_be);
            (event.point, event.cookie, event.proto, event.dst, port, event.dst_orig, frontend)
        };
        let at = server.local_addr().unwrap();
        let of = |point| (point, cookie(&client), proto::UDP, at.ip().into(), at.port(), service.ip().into(), 53);
        assert_eq!(told.iter().map(shape).collect::<Vec<_>>(), [of(translation::FORWARD), of(translation::REVERSE)]);
    });
}

#[test]
fn what_a_socket_repeats_is_told_of_once_in_a_while() {
    let config = ProgramConfig { event_interval: u32::MAX, ..each_time() };
    with_told(config, |world, local, service| {
        let services = [53, 54].map(|port| SocketAddr::new(service, port));
        let _servers = services.map(|service| serve_datagrams(&world.datapath, local, service));
        let clients: Vec<_> = (0..2).map(|_| UdpSocket::bind((local, 0)).unwrap()).collect();
        for _ in 0..20 {
            for (client, service) in clients.iter().zip(services) {
                client.send_to(b"question", service).unwrap();
            }
            // The other one's, too.
            clients[0].send_to(b"question", services[1]).unwrap();
        }
        let told: Vec<_> = world.told().iter().map(|event| (event.cookie, event.dport_orig.to_be())).collect();
        let [one, other] = [&clients[0], &clients[1]].map(cookie);
        assert_eq!(told, [(one, 53), (other, 54), (one, 54)]);
    });
}

#[test]
fn a_pod_s_socket_is_known_by_its_namespace_alone() {
    let host_netns = u64::MAX;
    with_told(ProgramConfig { host_netns, ..each_time() }, |world, local, service| {
        let service = SocketAddr::new(service, 80);
        let _listener = serve_streams(&world.datapath, local, service);
        let _client = TcpStream::connect(service).unwrap();
        let told: Vec<_> = world.told().iter().map(|event| (event.src_identity, event.netns)).collect();
        assert_eq!(told, [(identity::UNKNOWN, datapath::netns::cookie())]);
    });
}

#[test]
fn what_is_no_service_is_not_told_of_and_nothing_is_where_nobody_wants_it() {
    with_told(each_time(), |world, local, _| {
        let listener = TcpListener::bind((local, 0)).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().peer_addr().unwrap();
        assert_eq!(world.told(), []);
    });
    with_told(ProgramConfig { trace_sockets: 0, ..each_time() }, |world, local, service| {
        let service = SocketAddr::new(service, 80);
        let _listener = serve_streams(&world.datapath, local, service);
        TcpStream::connect(service).unwrap().peer_addr().unwrap();
        assert_eq!(world.told(), []);
    });
}

#[test]
fn sockets_without_end_cost_no_packet_its_event() {
    with_told(each_time(), |world, local, service| {
        const CALLS: u64 = 20_000;
        move_to(processors()[0]);
        let service = SocketAddr::new(service, 53);
        let _server = serve_datagrams(&world.datapath, local, service);
        let client = UdpSocket::bind((local, 0)).unwrap();
        (0..CALLS).for_each(|_| client.connect(service).unwrap());
        let lost = world.reader.lost().unwrap();
        let half = u64::from(world.reader.ring_bytes()) / 2;
        assert_eq!(CALLS - lost, half.div_ceil(RECORD), "half of the ring");
        // As many as the other half holds.
        let packets = half / RECORD - 1;
        drop_packets(&world.datapath, u32::try_from(packets).unwrap());
        assert_eq!(world.reader.lost().unwrap(), 0);
        let (mut sockets, mut drops) = (0, 0);
        let mut count = |event: &abi::event::Event| match event.kind {
            kind::DROP => drops += 1,
            _ => sockets += 1,
        };
        while world.reader.read_present(&mut count) > 0 {}
        assert_eq!((sockets, drops), (CALLS - lost, packets));
    });
}
