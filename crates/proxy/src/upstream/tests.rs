// SPDX-License-Identifier: Apache-2.0
use super::{Checkout, ConnectError, Speak, Upstream};
use crate::proxy_protocol::Peer;
use l7::{BackendProtocol, Cluster, Endpoint, Endpoints};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

fn upstream(address: SocketAddr) -> Upstream {
    of_endpoints(&[address], false)
}

fn of_endpoints(addresses: &[SocketAddr], by_client: bool) -> Upstream {
    let cluster = Cluster {
        name: "c".into(),
        protocol: BackendProtocol::Http2,
        tls: None,
        proxy_protocol: None,
        by_client,
        limits: l7::ClusterLimits::default(),
        refuse: None,
    };
    let endpoint =
        |address: &SocketAddr| Endpoint { address: *address, state: Default::default(), zone: None, identity: 0 };
    let endpoints = addresses.iter().map(endpoint).collect();
    let endpoints = Endpoints { cluster: "c".into(), prefer_zone: None, endpoints };
    Upstream::new(Arc::new(cluster), None, None).with(Some(&endpoints), 1)
}

#[tokio::test]
async fn an_endpoint_that_could_not_be_reached_is_tried_by_the_next_who_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = upstream(address).choose(&[]).unwrap();
    let peer = Peer { client: address, local: address };
    let error = Checkout::new(&endpoint, Speak::Http2, peer).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(_)), "{error}");
    endpoint.unreached(&error);
    assert!(!endpoint.healthy());
    let _listener = TcpListener::bind(address).await.unwrap();
    assert!(Checkout::new(&endpoint, Speak::Http2, peer).await.is_ok());
}

#[tokio::test]
async fn those_who_wait_for_a_connection_that_fails_do_not_each_try_for_themselves() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    drop(silent);
    let endpoint = upstream(address).choose(&[]).unwrap();
    let peer = Peer { client: address, local: address };
    let ask = || async {
        let error = Checkout::new(&endpoint, Speak::Http2, peer).await.unwrap_err();
        endpoint.unreached(&error);
        matches!(error, ConnectError::JustFailed)
    };
    assert_eq!(tokio::join!(ask(), ask(), ask()), (false, true, true));
}

#[tokio::test]
async fn what_says_nothing_of_an_endpoint_leaves_it_as_it_is() {
    let endpoint = upstream("127.0.0.1:1".parse().unwrap()).choose(&[]).unwrap();
    for error in [ConnectError::JustFailed, ConnectError::NotHttp2, ConnectError::Limit] {
        endpoint.unreached(&error);
        assert!(endpoint.healthy(), "{error}");
    }
    endpoint.unreached(&ConnectError::TimedOut);
    assert!(!endpoint.healthy());
}

#[test]
fn a_client_stays_at_one_endpoint_and_few_others_move_when_one_goes() {
    let addresses: Vec<SocketAddr> = (1..=8).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect();
    let (all, fewer) = (of_endpoints(&addresses, true), of_endpoints(&addresses[1..], true));
    let chosen = |upstream: &Upstream, n: u16, avoid: &[SocketAddr]| {
        let [high, low] = n.to_be_bytes();
        upstream.choose_for(std::net::Ipv4Addr::new(192, 0, high, low).into(), avoid).unwrap().address
    };
    let mut clients = std::collections::BTreeMap::<SocketAddr, usize>::new();
    for n in 0..800 {
        let address = chosen(&all, n, &[]);
        *clients.entry(address).or_default() += 1;
        assert_eq!(chosen(&all, n, &[]), address);
        let mapped = std::net::Ipv4Addr::new(192, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]).to_ipv6_mapped();
        assert_eq!(all.choose_for(mapped.into(), &[]).unwrap().address, address);
        assert_ne!(chosen(&all, n, &[address]), address, "it is to be avoided");
        if address != addresses[0] {
            assert_eq!(chosen(&fewer, n, &[]), address);
        }
    }
    assert!(clients.len() == 8 && clients.values().all(|clients| (40..200).contains(clients)), "{clients:?}");
}
