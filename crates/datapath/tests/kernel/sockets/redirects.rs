// SPDX-License-Identifier: Apache-2.0
//! Sockets and services that are redirected for some.

use super::*;
use abi::lb::{SCOPE_EXTERNAL, SCOPE_UNREDIRECTED};

fn key(at: SocketAddr) -> ServiceKey {
    ServiceKey { port: at.port().to_be(), proto: proto::UDP, ..ServiceKey::mark(at.ip().into()) }
}

/// The service of datagrams is a local redirect of that kind.
fn redirect(datapath: &Datapath, at: SocketAddr, kind: u32) {
    let key = key(at);
    let services = datapath.map::<Services>().unwrap();
    let service = services.get(&key).unwrap().unwrap();
    services.insert(&key, &Service { flags: flags::LOCAL_REDIRECT | kind, ..service }).unwrap();
}

#[test]
fn sockets_of_pods_leave_what_depends_on_their_address_to_the_packets() {
    for kind in [flags::SPARES_BACKENDS, flags::SOURCE_RANGES] {
        with_socket_programs(move |datapath, local, service| {
            let at = SocketAddr::new(service, 80);
            let server = serve_datagrams(datapath, local, at);
            redirect(datapath, at, kind);
            let client = UdpSocket::bind((local, 0)).unwrap();
            client.send_to(b"question", at).unwrap();
            assert_eq!(answer(&server, &client), at);
            elsewhere(move || {
                let socket = UdpSocket::bind((local, 0)).unwrap();
                assert!(socket.send_to(b"question", at).is_err(), "it has no way to the service itself");
            });
        });
    }
}

#[test]
fn what_is_redirected_for_pods_is_itself_to_the_host() {
    with_socket_programs(|datapath, local, service| {
        let at = SocketAddr::new(service, 80);
        let server = serve_datagrams(datapath, local, at);
        redirect(datapath, at, flags::PODS_ONLY);
        let client = UdpSocket::bind((local, 0)).unwrap();
        let _ = client.send_to(b"question", at);
        let port = server.local_addr().unwrap().port();
        elsewhere(move || {
            let server = UdpSocket::bind((local, port)).unwrap();
            let client = UdpSocket::bind((local, 0)).unwrap();
            client.send_to(b"question", at).unwrap();
            assert_eq!(answer(&server, &client), at);
        });
        server.set_nonblocking(true).unwrap();
        assert!(server.recv_from(&mut [0; 16]).is_err());
    });
}

#[test]
fn the_hosts_sockets_go_where_a_redirect_for_pods_would_not_have_led_them() {
    with_socket_programs(|datapath, local, service| {
        let at = SocketAddr::new(service, 80);
        // What pods are led to.
        let taken = serve_datagrams(datapath, local, at);
        let port = taken.local_addr().unwrap().port();
        redirect(datapath, at, flags::SPARES_BACKENDS | flags::PODS_ONLY);
        let spared = SocketAddr::new(service, 81);
        let server = serve_datagrams(datapath, local, spared);
        let scoped = |scope, at: SocketAddr| ServiceKey { scope, ..key(at) };
        let services = datapath.map::<Services>().unwrap();
        let without = services.get(&scoped(SCOPE_EXTERNAL, spared)).unwrap().unwrap();
        services.insert(&scoped(SCOPE_UNREDIRECTED, at), &without).unwrap();

        let client = UdpSocket::bind((local, 0)).unwrap();
        client.send_to(b"question", at).unwrap();
        assert_eq!(answer(&server, &client), at);
        elsewhere(move || {
            let _taken = UdpSocket::bind((local, port)).unwrap();
            let socket = UdpSocket::bind((local, 0)).unwrap();
            assert!(socket.send_to(b"question", at).is_err(), "its packets are looked at, and it has no way");
        });
    });
}
