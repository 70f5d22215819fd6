// SPDX-License-Identifier: Apache-2.0
//! Sockets whose backend is gone: what becomes of those that are connected to it, in each network namespace of the node.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use abi::Addr;
use abi::lb::Connected;
use datapath::bpf::Datapath;
use datapath::sockets::{Diag, Scope};
use datapath::{Sockets, netns};
use nix::mount::{MsFlags, mount, umount};

use crate::sockets::{answer, serve_datagrams, serve_streams, with_socket_programs};

const HOST: Scope = Scope { pods: false, streams: false };
const PODS: Scope = Scope { pods: true, streams: false };

/// Ends connections to the backend at that address.
fn close(datapath: &Datapath, pods: &Path, scope: Scope, backend: SocketAddr) -> usize {
    let (addr, port) = (Addr::from(backend.ip()), backend.port().to_be());
    let is_over = |_, known: &Connected| (known.backend, known.backend_port) == (addr, port);
    Diag::open(datapath, pods).unwrap().close(scope, &is_over).unwrap()
}

fn connected(to: SocketAddr) -> UdpSocket {
    let local: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// Whether the program behind the socket is told to connect anew.
fn has_ended(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    match socket.recv(&mut [0]).unwrap_err().kind() {
        ErrorKind::ConnectionAborted => {
            assert!(socket.send(b"question").is_err(), "it has no peer");
            true
        }
        ErrorKind::WouldBlock => false,
        other => panic!("{other}"),
    }
}

/// The network namespace of a pod, mounted in a folder as a container runtime does it.
struct Pod {
    namespace: OwnedFd,
    file: PathBuf,
}

impl Pod {
    fn new(folder: &Path) -> Self {
        let namespace = netns::create().unwrap();
        let file = folder.join(format!("cni-{}", namespace.as_raw_fd()));
        File::create(&file).unwrap();
        let source = PathBuf::from(format!("/proc/thread-self/fd/{}", namespace.as_raw_fd()));
        mount(Some(&source), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let pod = Self { namespace, file };
        assert!(pod.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success()));
        pod
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run(self.namespace.as_fd(), work).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = umount(&self.file);
    }
}

#[test]
fn a_datagram_socket_is_told_that_its_backend_is_gone_and_connects_anew() {
    with_socket_programs(|datapath, local, service| {
        let folder = tempfile::tempdir().unwrap();
        let [service, other] = [53, 54].map(|port| SocketAddr::new(service, port));
        let server = serve_datagrams(datapath, local, service);
        let gone = server.local_addr().unwrap();
        let (client, bystander) = (connected(service), UdpSocket::bind((local, 0)).unwrap());
        let direct = connected(gone);
        bystander.send_to(b"question", service).unwrap();
        let _other_server = serve_datagrams(datapath, local, other);
        let to_other = connected(other);

        let server = serve_datagrams(datapath, local, service);
        assert_eq!(close(datapath, folder.path(), HOST, gone), 1);
        assert!(has_ended(&client));
        assert!(!has_ended(&to_other) && !has_ended(&bystander), "others are left alone");
        assert!(!has_ended(&direct), "who has chosen the address itself keeps it");
        client.connect(service).unwrap();
        client.send(b"question").unwrap();
        server.recv(&mut [0; 8]).unwrap();
    });
}

#[test]
fn a_socket_that_has_failed_to_connect_anew_keeps_the_backend_that_it_has() {
    with_socket_programs(|datapath, local, service| {
        let folder = tempfile::tempdir().unwrap();
        let [service, other] = [53, 54].map(|port| SocketAddr::new(service, port));
        let _server = serve_datagrams(datapath, local, service);
        let client = connected(service);
        // Nobody has a route to it.
        let nowhere = if local.is_ipv4() { "203.0.113.9:54" } else { "[2001:db8::9]:54" }.parse().unwrap();
        crate::sockets::serve(datapath, abi::flow::proto::UDP, other, Some(nowhere));
        assert!(client.connect(other).is_err());
        assert_eq!(close(datapath, folder.path(), HOST, nowhere), 0);
        assert!(!has_ended(&client));
    });
}

/// Its address may be somebody else's by now.
#[test]
fn who_has_the_address_of_a_backend_that_is_gone_does_not_speak_in_the_services_name() {
    with_socket_programs(|datapath, local, service| {
        let folder = tempfile::tempdir().unwrap();
        let [service, other] = [53, 54].map(|port| SocketAddr::new(service, port));
        let (server, stays) = (serve_datagrams(datapath, local, service), serve_datagrams(datapath, local, other));
        let client = UdpSocket::bind((local, 0)).unwrap();
        for to in [service, other] {
            client.send_to(b"question", to).unwrap();
        }
        assert_eq!((answer(&server, &client), answer(&stays, &client)), (service, other));
        let gone = server.local_addr().unwrap();
        assert_eq!(close(datapath, folder.path(), HOST, gone), 0, "there is no connection");
        let says = |server: &UdpSocket| {
            server.send_to(b"lie", client.local_addr().unwrap()).unwrap();
            client.recv_from(&mut [0; 16]).unwrap().1
        };
        assert_eq!((says(&server), says(&stays)), (gone, other));
    });
}

#[test]
fn sockets_of_pods_are_found_in_their_namespaces() {
    with_socket_programs(|datapath, _, service| {
        let folder = tempfile::tempdir().unwrap();
        let service = SocketAddr::new(service, 53);
        let local = if service.is_ipv4() { "127.0.0.1".parse().unwrap() } else { "::1".parse().unwrap() };
        let server = serve_datagrams(datapath, local, service);
        let gone = server.local_addr().unwrap();
        // What container runtimes leave behind.
        File::create(folder.path().join("left-over")).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let pods = [Pod::new(folder.path()), Pod::new(folder.path())];
        let clients = pods.each_ref().map(|pod| pod.run(|| connected(service)));
        let of_host = connected(service);

        assert_eq!(close(datapath, folder.path(), HOST, gone), 1);
        assert!(has_ended(&of_host) && !clients.iter().any(has_ended));
        assert_eq!(close(datapath, folder.path(), PODS, gone), clients.len());
        assert!(clients.iter().all(has_ended));
        assert_eq!(close(datapath, &folder.path().join("absent"), PODS, gone), 0);
    });
}

#[test]
fn streams_are_ended_where_that_is_wanted() {
    with_socket_programs(|datapath, local, service| {
        let folder = tempfile::tempdir().unwrap();
        let service = SocketAddr::new(service, 80);
        let listener = serve_streams(datapath, local, service);
        let gone = listener.local_addr().unwrap();
        let client = TcpStream::connect(service).unwrap();
        assert_eq!(close(datapath, folder.path(), PODS, gone), 0);
        assert_eq!(client.take_error().unwrap().map(|error| error.kind()), None);
        assert_eq!(close(datapath, folder.path(), Scope { streams: true, ..PODS }, gone), 1);
        assert_eq!(client.take_error().unwrap().map(|error| error.kind()), Some(ErrorKind::ConnectionAborted));
    });
}
