// SPDX-License-Identifier: Apache-2.0
//! Services at the socket: what a program of the node sees when it connects or sends to one.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use abi::config::ProgramConfig;
use abi::endpoint::Endpoint;
use abi::endpoint::flags::HOST;
use abi::flow::proto;
use abi::ipcache::IpcacheEntry;
use abi::lb::{Backend, Connected, SCOPE_INTERNAL, Service, ServiceKey, SlotKey, flags};
use abi::maps::{Backends, ConnectedSockets, Ipcache4, Ipcache6, Locals, ReverseSockets, Services, Slots};
use datapath::bpf::{Datapath, Features, Options, Program};
use datapath::{Kernel, LpmKey, MapSpec};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt, socket, sockopt,
};

use crate::sandbox::{Cgroup, Sandbox};

mod redirects;
mod told;

/// Runs the test inside of a control group with the socket programs attached.
pub(crate) fn with_socket_programs(test: impl Fn(&Datapath, IpAddr, IpAddr) + Send + 'static) {
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

/// Makes a service with one backend, or none. Its port is its number and the backend's.
pub(crate) fn serve(datapath: &Datapath, proto: u8, service: SocketAddr, backend: Option<SocketAddr>) {
    let key = ServiceKey { port: service.port().to_be(), proto, ..ServiceKey::mark(service.ip().into()) };
    let id = u32::from(service.port());
    if let Some(at) = backend {
        let value = Backend { addr: at.ip().into(), port: at.port().to_be(), proto, ..Default::default() };
        datapath.map::<Backends>().unwrap().insert(&id, &value).unwrap();
        datapath.map::<Slots>().unwrap().insert(&SlotKey { service: id, slot: 0 }, &id).unwrap();
    }
    let value = Service { id, count: u32::from(backend.is_some()), ..Default::default() };
    datapath.map::<Services>().unwrap().insert(&key, &value).unwrap();
}

/// A server of datagrams behind a service.
pub(crate) fn serve_datagrams(datapath: &Datapath, local: IpAddr, service: SocketAddr) -> UdpSocket {
    let server = UdpSocket::bind((local, 0)).unwrap();
    serve(datapath, proto::UDP, service, Some(server.local_addr().unwrap()));
    server
}

/// A server of streams behind a service.
pub(crate) fn serve_streams(datapath: &Datapath, local: IpAddr, service: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind((local, 0)).unwrap();
    serve(datapath, proto::TCP, service, Some(listener.local_addr().unwrap()));
    listener
}

/// The client has sent to the server: it is answered, and who answered is what the client sees.
pub(crate) fn answer(server: &UdpSocket, client: &UdpSocket) -> SocketAddr {
    let mut text = [0; 16];
    // What goes astray is a failure, and no wait for ever.
    for socket in [server, client] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let (_, from) = server.recv_from(&mut text).unwrap();
    server.send_to(b"answer", from).unwrap();
    let (len, from) = client.recv_from(&mut text).unwrap();
    assert_eq!(&text[..len], b"answer");
    from
}

/// Whether the socket remembers a service.
fn remembers(datapath: &Datapath, socket: &impl AsRawFd) -> bool {
    let map = datapath.open(MapSpec::of::<ConnectedSockets>()).unwrap();
    map.lookup(&socket.as_raw_fd().to_ne_bytes(), &mut [0; size_of::<Connected>()]).unwrap()
}

/// `connect` to an address of no family: the socket is connected no more.
#[allow(unsafe_code, reason = "nobody wraps this call")]
fn disconnect(socket: &impl AsRawFd) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let len = size_of_val(&nowhere) as u32;
    // SAFETY: the address is as long as is said.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_connection_to_a_service_ends_at_its_backend_and_does_not_know() {
    with_socket_programs(|datapath, local, service| {
        let service = SocketAddr::new(service, 80);
        let listener = serve_streams(datapath, local, service);
        let mut client = TcpStream::connect(service).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        server.read_exact(&mut text).unwrap();
        assert_eq!((&text, client.peer_addr().unwrap()), (b"hello", service));
    });
}

#[test]
fn a_socket_of_ipv6_knows_a_service_of_ipv4_by_name() {
    with_socket_programs(|datapath, local, service| {
        let IpAddr::V4(ip) = service else { return };
        let service = SocketAddr::new(service, 80);
        let asked = SocketAddr::new(ip.to_ipv6_mapped().into(), 80);
        let _listener = serve_streams(datapath, local, service);
        assert_eq!(TcpStream::connect(asked).unwrap().peer_addr().unwrap(), asked);
        let server = serve_datagrams(datapath, local, service);
        let client = UdpSocket::bind("[::]:0").unwrap();
        client.connect(asked).unwrap();
        client.send(b"question").unwrap();
        assert_eq!((client.peer_addr().unwrap(), answer(&server, &client)), (asked, asked));
    });
}

#[test]
fn an_unconnected_socket_is_answered_by_each_service_that_it_sends_to() {
    with_socket_programs(|datapath, local, service| {
        let services = [53, 54].map(|port| SocketAddr::new(service, port));
        let servers = services.map(|service| serve_datagrams(datapath, local, service));
        let client = UdpSocket::bind((local, 0)).unwrap();
        let table = datapath.map::<ReverseSockets>().unwrap();
        let before = table.keys().unwrap().len();
        for service in services {
            client.send_to(b"question", service).unwrap();
        }
        for (server, service) in servers.iter().zip(services).rev() {
            assert_eq!(answer(server, &client), service);
        }
        assert_eq!((table.keys().unwrap().len(), remembers(datapath, &client)), (before + 2, false));
    });
}

#[test]
fn two_sockets_that_ask_one_backend_by_two_names_hear_each_its_own() {
    with_socket_programs(|datapath, local, service| {
        let services = [53, 54].map(|port| SocketAddr::new(service, port));
        let server = serve_datagrams(datapath, local, services[0]);
        serve(datapath, proto::UDP, services[1], Some(server.local_addr().unwrap()));
        let clients = services.map(|service| {
            let client = UdpSocket::bind((local, 0)).unwrap();
            client.send_to(b"question", service).unwrap();
            client
        });
        for (client, service) in clients.iter().zip(services) {
            assert_eq!(answer(&server, client), service);
        }
    });
}

#[test]
fn a_connected_socket_of_datagrams_is_answered_by_the_service() {
    with_socket_programs(|datapath, local, service| {
        let service = SocketAddr::new(service, 53);
        let server = serve_datagrams(datapath, local, service);
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.connect(service).unwrap();
        client.send(b"question").unwrap();
        assert_eq!((answer(&server, &client), client.peer_addr().unwrap()), (service, service));
        assert!(datapath.map::<ReverseSockets>().unwrap().keys().unwrap().is_empty(), "it remembers that itself");
    });
}

#[test]
fn a_socket_that_connects_elsewhere_forgets_where_it_was_connected() {
    with_socket_programs(|datapath, local, service| {
        let [one, two] = [53, 54].map(|port| SocketAddr::new(service, port));
        let [server_one, server_two] = [one, two].map(|service| serve_datagrams(datapath, local, service));
        let client = UdpSocket::bind((local, 0)).unwrap();
        let name = |server: &UdpSocket, at: SocketAddr| {
            client.connect(at).unwrap();
            client.send(b"question").unwrap();
            (answer(server, &client), client.peer_addr().unwrap(), remembers(datapath, &client))
        };
        assert_eq!(name(&server_one, one), (one, one, true));
        assert_eq!(name(&server_two, two), (two, two, true));
        // Not as a service this time.
        let at = server_two.local_addr().unwrap();
        assert_eq!(name(&server_two, at), (at, at, false));
        assert_eq!(name(&server_one, one), (one, one, true));
        disconnect(&client);
        assert!(client.peer_addr().is_err());
        let at = server_one.local_addr().unwrap();
        client.send_to(b"question", at).unwrap();
        assert_eq!(answer(&server_one, &client), at);
        assert_eq!(name(&server_two, two), (two, two, true));
    });
}

#[test]
fn a_connection_that_is_refused_leaves_the_one_that_there_is() {
    with_socket_programs(|datapath, local, service| {
        let [one, nobody] = [53, 54].map(|port| SocketAddr::new(service, port));
        let server = serve_datagrams(datapath, local, one);
        serve(datapath, proto::UDP, nobody, None);
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.connect(one).unwrap();
        client.connect(nobody).unwrap_err();
        client.send(b"question").unwrap();
        assert_eq!((answer(&server, &client), client.peer_addr().unwrap()), (one, one));
    });
}

#[test]
fn a_connection_that_does_not_come_about_gives_no_name_to_the_one_that_there_is() {
    with_socket_programs(|datapath, local, service| {
        let service = SocketAddr::new(service, 53);
        // Nothing is routed but the loopback device.
        let elsewhere: IpAddr = if local.is_ipv4() { [192, 0, 2, 1].into() } else { "2001:db8::1".parse().unwrap() };
        serve(datapath, proto::UDP, service, Some(SocketAddr::new(elsewhere, 53)));
        let server = UdpSocket::bind((local, 0)).unwrap();
        let at = server.local_addr().unwrap();
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.connect(at).unwrap();
        client.connect(service).unwrap_err();
        assert!(remembers(datapath, &client), "or this tests nothing");
        client.send(b"question").unwrap();
        assert_eq!((answer(&server, &client), client.peer_addr().unwrap()), (at, at));
    });
}

#[test]
fn an_accepted_socket_shows_its_true_peer_whatever_its_listener_was_connected_to() {
    with_socket_programs(|datapath, local, service| {
        let service = SocketAddr::new(service, 80);
        let backend = serve_streams(datapath, local, service);
        let listener = TcpStream::connect(service).unwrap();
        drop(backend.accept().unwrap());
        let at = backend.local_addr().unwrap();
        drop(backend);
        disconnect(&listener);
        assert!(remembers(datapath, &listener), "or this tests nothing");
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let listener = TcpListener::from(OwnedFd::from(listener));
        // The backend, as a client.
        let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let client = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        setsockopt(&client, sockopt::ReuseAddr, &true).unwrap();
        bind(client.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
        connect(client.as_raw_fd(), &SockaddrStorage::from(listener.local_addr().unwrap())).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!((from, accepted.peer_addr().unwrap()), (at, at));
    });
}

#[test]
fn what_a_socket_remembers_goes_with_it() {
    with_socket_programs(|datapath, local, service| {
        let service = SocketAddr::new(service, 80);
        let listener = serve_streams(datapath, local, service);
        let client = TcpStream::connect(service).unwrap();
        let other = client.try_clone().unwrap();
        drop(client);
        assert!(remembers(datapath, &other), "it belongs to the socket, not to a descriptor of it");
        drop(other);
        let fresh: Vec<_> = (0..64).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        assert!(!fresh.iter().any(|socket| remembers(datapath, socket)));
    });
}

#[test]
fn a_connection_keeps_its_name_when_the_next_agent_comes() {
    Sandbox::run(|sandbox| {
        sandbox.loopback_up();
        let cgroup = Cgroup::new("datapath-sockets");
        let attach = || {
            let datapath = sandbox.load();
            for program in Program::sockets() {
                datapath.attach_cgroup(program, cgroup.path(), program.name()).unwrap();
            }
            datapath
        };
        let first = attach();
        let _inside = cgroup.enter();
        let service = "10.96.0.10:80".parse().unwrap();
        let _listener = serve_streams(&first, "127.0.0.1".parse().unwrap(), service);
        let client = TcpStream::connect(service).unwrap();
        drop(first);
        let second = attach();
        assert!(remembers(&second, &client));
        assert_eq!(client.peer_addr().unwrap(), service);
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

#[test]
fn at_a_port_that_nobody_serves_a_service_refuses_what_would_be_sent() {
    with_socket_programs(|datapath, local, service| {
        let served = SocketAddr::new(service, 80);
        let _listener = serve_streams(datapath, local, served);
        datapath.map::<Services>().unwrap().insert(&ServiceKey::mark(service.into()), &Service::MARK).unwrap();
        let refused = if Features::of_this_kernel().set_retval { libc::ECONNREFUSED } else { libc::EPERM };
        let at = SocketAddr::new(service, 81);
        let datagrams = UdpSocket::bind((local, 0)).unwrap();
        for error in [TcpStream::connect(at).unwrap_err(), datagrams.send_to(b"question", at).unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(refused));
        }
        assert_eq!(TcpStream::connect(served).unwrap().peer_addr().unwrap(), served);
    });
}

#[test]
fn a_source_address_can_be_asked_for_at_a_port_that_nobody_serves() {
    with_socket_programs(|datapath, local, service| {
        datapath.map::<Services>().unwrap().insert(&ServiceKey::mark(service.into()), &Service::MARK).unwrap();
        let routed = Command::new("ip").args(["route", "add", &service.to_string(), "dev", "lo"]).status().unwrap();
        assert!(routed.success());
        let socket = UdpSocket::bind((local, 0)).unwrap();
        for port in [1025, 9, 65535] {
            let at = SocketAddr::new(service, port);
            socket.connect(at).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), at);
        }
    });
}

const EXPOSED_NODE_PORT: u32 = flags::NODE_PORT | flags::EXPOSED;

/// Makes a node port at an address, or at all nodes' when that is the unspecified one, with these backends.
fn serve_node_port(datapath: &Datapath, proto: u8, at: SocketAddr, affinity: u32, backends: &[SocketAddr]) {
    let id = u32::from(at.port());
    for (slot, backend) in (0..).zip(backends) {
        let value = Backend { addr: backend.ip().into(), port: backend.port().to_be(), proto, ..Default::default() };
        datapath.map::<Backends>().unwrap().insert(&(id + slot), &value).unwrap();
        datapath.map::<Slots>().unwrap().insert(&SlotKey { service: id, slot }, &(id + slot)).unwrap();
    }
    let count = u32::try_from(backends.len()).unwrap();
    let key = ServiceKey { port: at.port().to_be(), proto, ..ServiceKey::mark(at.ip().into()) };
    let value = Service { id, count, flags: EXPOSED_NODE_PORT, affinity };
    datapath.map::<Services>().unwrap().insert(&key, &value).unwrap();
}

fn any(local: IpAddr) -> IpAddr {
    if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The address is this node's.
fn add_host(datapath: &Datapath, ip: IpAddr) {
    let host = Endpoint { identity: abi::identity::HOST, flags: HOST, ..Endpoint::default() };
    datapath.map::<Locals>().unwrap().insert(&ip.into(), &host).unwrap();
}

/// The address is another node's.
fn add_node(datapath: &Datapath, ip: IpAddr) {
    let entry = IpcacheEntry { identity: abi::identity::REMOTE_NODE, ..IpcacheEntry::default() };
    match ip {
        IpAddr::V4(ip) => datapath.trie::<Ipcache4>().unwrap().insert(&LpmKey::new(32, ip.octets()), &entry),
        IpAddr::V6(ip) => datapath.trie::<Ipcache6>().unwrap().insert(&LpmKey::new(128, ip.octets()), &entry),
    }
    .unwrap();
}

#[test]
fn a_port_of_another_node_that_keeps_to_its_own_backends_is_left_to_it() {
    with_socket_programs(|datapath, local, other| {
        add_node(datapath, other);
        let server = UdpSocket::bind((local, 0)).unwrap();
        serve_node_port(datapath, proto::UDP, (any(local), 30081).into(), 0, &[server.local_addr().unwrap()]);
        let services = datapath.map::<Services>().unwrap();
        let key = ServiceKey { port: 30081_u16.to_be(), proto: proto::UDP, ..ServiceKey::mark(any(local).into()) };
        let inside = services.get(&key).unwrap().unwrap();
        services.insert(&key, &Service { flags: inside.flags | flags::TWO_SCOPES, ..inside }).unwrap();
        services.insert(&ServiceKey { scope: SCOPE_INTERNAL, ..key }, &inside).unwrap();
        let client = UdpSocket::bind((local, 0)).unwrap();
        assert!(client.send_to(b"question", (other, 30081)).is_err(), "it has no way to that node");
        let here = SocketAddr::new(local, 30081);
        client.send_to(b"question", here).unwrap();
        assert_eq!(answer(&server, &client), here);
    });
}

#[test]
fn a_port_of_any_node_is_served_at_the_socket() {
    with_socket_programs(|datapath, local, other| {
        let here: IpAddr =
            if local.is_ipv4() { "192.0.2.10".parse().unwrap() } else { "2001:db8::10".parse().unwrap() };
        add_host(datapath, here);
        add_node(datapath, other);
        let listener = TcpListener::bind((local, 0)).unwrap();
        let server = UdpSocket::bind((local, 0)).unwrap();
        serve_node_port(datapath, proto::TCP, (any(local), 30080).into(), 0, &[listener.local_addr().unwrap()]);
        serve_node_port(datapath, proto::UDP, (any(local), 30081).into(), 0, &[server.local_addr().unwrap()]);
        // By the addresses of nodes, and for the host's own programs by that of loopback.
        for ip in [here, other, local] {
            let at = SocketAddr::new(ip, 30080);
            assert_eq!(TcpStream::connect(at).unwrap().peer_addr().unwrap(), at);
            let client = UdpSocket::bind((local, 0)).unwrap();
            let at = SocketAddr::new(ip, 30081);
            client.send_to(b"question", at).unwrap();
            assert_eq!(answer(&server, &client), at);
        }
        // Not at anybody's, and not beyond the range.
        serve_node_port(datapath, proto::TCP, (any(local), 8000).into(), 0, &[listener.local_addr().unwrap()]);
        let stranger: IpAddr = if local.is_ipv4() { "127.0.0.2".parse().unwrap() } else { "::2".parse().unwrap() };
        assert!(local.is_ipv4() || TcpStream::connect((stranger, 30080)).is_err());
        assert!(TcpStream::connect((local, 8000)).is_err());
    });
}

/// From a network namespace that is not the host's.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let netns = datapath::netns::create().unwrap();
    std::thread::scope(|scope| {
        let run = || {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            work()
        };
        scope.spawn(run).join().unwrap()
    })
}

#[test]
fn sockets_of_a_pod_find_ports_of_nodes_and_their_own_loopback() {
    with_socket_programs(|datapath, local, other| {
        add_node(datapath, other);
        let at = SocketAddr::new(local, 9);
        serve_node_port(datapath, proto::UDP, (any(local), 30080).into(), 0, &[at]);
        elsewhere(move || {
            let server = UdpSocket::bind((local, 30080)).unwrap();
            let client = UdpSocket::bind((local, 0)).unwrap();
            client.send_to(b"question", (local, 30080)).unwrap();
            assert_eq!(answer(&server, &client), SocketAddr::new(local, 30080));
            let server = UdpSocket::bind(at).unwrap();
            client.send_to(b"question", (other, 30080)).unwrap();
            assert_eq!(answer(&server, &client), SocketAddr::new(other, 30080));
        });
    });
}

#[test]
fn sockets_of_pods_can_be_left_to_the_packets() {
    for only in [0, 1] {
        let config = ProgramConfig { sockets_of_host_only: only, ..ProgramConfig::default() };
        with_socket_programs_of(config, move |datapath, local, service| {
            let at = SocketAddr::new(service, 80);
            let _listener = serve_streams(datapath, local, at);
            assert_eq!(TcpStream::connect(at).unwrap().peer_addr().unwrap(), at);
            elsewhere(move || {
                let socket = UdpSocket::bind((local, 0)).unwrap();
                let _there = serve_datagrams(datapath, local, at);
                assert_eq!(socket.connect(at).is_ok(), only == 0, "it has no way to the service itself");
            });
        });
    }
}

#[test]
fn what_is_served_at_the_hosts_loopback_is_the_hosts_alone() {
    with_socket_programs(|datapath, local, _| {
        let at = SocketAddr::new(local, 5432);
        let server = serve_datagrams(datapath, local, at);
        let client = UdpSocket::bind((local, 0)).unwrap();
        client.send_to(b"question", at).unwrap();
        assert_eq!(answer(&server, &client), at);
        elsewhere(move || {
            let own = UdpSocket::bind(at).unwrap();
            let client = UdpSocket::bind((local, 0)).unwrap();
            client.send_to(b"question", at).unwrap();
            assert_eq!(answer(&own, &client), at);
        });
    });
}

#[test]
fn the_host_cannot_take_a_port_at_which_the_node_serves() {
    for on in [0, 1] {
        let config = ProgramConfig { bind_protection: on, ..ProgramConfig::default() };
        with_socket_programs_of(config, move |datapath, local, _| {
            serve_node_port(datapath, proto::TCP, (any(local), 30080).into(), 0, &[]);
            serve_node_port(datapath, proto::TCP, (local, 30081).into(), 0, &[]);
            let refused = if Features::of_this_kernel().set_retval { libc::EADDRINUSE } else { libc::EPERM };
            for at in [SocketAddr::new(any(local), 30080), SocketAddr::new(local, 30081)] {
                match TcpListener::bind(at) {
                    Ok(_) => assert_eq!(on, 0, "{at}"),
                    Err(error) => assert_eq!((on, error.raw_os_error()), (1, Some(refused)), "{at}"),
                }
                UdpSocket::bind(at).unwrap();
            }
            // Neither what is not a node's, though a service's, nor what no node serves.
            serve(datapath, proto::TCP, SocketAddr::new(any(local), 30083), None);
            serve_node_port(datapath, proto::TCP, (any(local), 8000).into(), 0, &[]);
            for port in [30082, 30083, 8000, 0] {
                TcpListener::bind((any(local), port)).unwrap();
            }
            if local.is_ipv4() {
                let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 30080));
                assert_eq!(both.is_ok(), on == 0, "it takes IPv4 as well");
            }
            elsewhere(move || TcpListener::bind((any(local), 30080)).unwrap());
        });
    }
}

#[test]
fn the_sockets_of_a_namespace_find_the_backend_that_it_had() {
    with_socket_programs(|datapath, local, service| {
        let listeners: Vec<_> = (0..8).map(|_| TcpListener::bind((local, 0)).unwrap()).collect();
        let backends: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let at = SocketAddr::new(service, 80);
        serve_node_port(datapath, proto::TCP, at, 100, &backends);
        let accepted = |listener: &TcpListener| {
            listener.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| listener.accept().ok()).count()
        };
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
        let counts: Vec<_> = listeners.iter().map(accepted).collect();
        assert_eq!((counts.iter().max(), counts.iter().sum::<usize>()), (Some(&20), clients.len()), "{counts:?}");
        serve_node_port(datapath, proto::TCP, at, 0, &backends);
        let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
        let counts: Vec<_> = listeners.iter().map(accepted).collect();
        assert!(counts.iter().all(|count| *count < 40) && clients.len() == 40, "{counts:?}");
    });
}
